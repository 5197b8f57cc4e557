//! Every bound in pushd: its unit in the name, its default, and why that.
//!
//! What an operator can set has its default here; what nobody should need to set is a constant here too, so that
//! nothing in the program grows without a number in this file.

use std::time::Duration;

/// The largest message a hub takes, unless `message_max` says otherwise. Notifications are small; a megabyte of JSON
/// is a mistake better told than fanned out.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The most `message_max` may be set to: 64 MiB. One such message times `queue_max` is already a machine's memory.
pub const MESSAGE_BYTES_CEILING: usize = 64 << 20;
/// What may wait for one slow subscriber: about a second of a busy channel, sixteen of the largest default messages.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;
/// The same in messages, so that a million tiny ones cannot hide in a byte limit.
pub const QUEUE_MESSAGES_MAX: usize = 16_384;
/// The smallest message worth compressing: below, the saving is less than a TCP segment's header.
pub const DEFLATE_BYTES_MIN: usize = 256;
/// A ping after this much silence. Below the 30 s after which the shortest-lived home routers forget a connection.
pub const PING: Duration = Duration::from_secs(25);
/// How long the answer to a ping may take: a phone leaving a tunnel needs some of it.
pub const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a graceful end may take; below systemd's 90 s and Kubernetes' 30 s, with room to spare. `docker stop` waits no longer.
pub const GRACE: Duration = Duration::from_secs(10);
/// How long a peer may take to answer our Close before the socket is dropped.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long handing the clients over may take once the requests in flight are finished, which have a third of the grace; together, and
/// with the end of the log, below the unit's 20 s. A million take some seconds.
pub const HANDOVER: Duration = Duration::from_secs(10);
/// How long the service manager may take to answer, or to make room for a message.
pub const NOTIFY_PATIENCE: Duration = Duration::from_secs(5);
/// The most that is handed over of one session, in bytes: a message half said, and what waits for it. Beyond, it is closed.
pub const RECORD_BYTES_MAX: usize = 256 << 20;
/// The most that one shard hands over, in bytes. A million idle sessions take some 100 MB.
pub const PARCEL_BYTES_MAX: u64 = 1 << 30;
/// How many sessions a shard closes in a second where they are asked to come back: what a server that starts cold takes in
/// handshakes. It is quicker where half of the grace would not do.
pub const RETURNS_PER_SECOND: usize = 1000;

/// How long a client may take to send a request's header: a slow phone needs two, an attack needs for ever.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may idle between requests (nginx's default).
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// The largest request header, in bytes; nginx takes 4 × 8 KiB, cookies seldom pass 8.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// How many header fields a request may have.
pub const HEADER_FIELDS_MAX: usize = 100;
/// The longest channel name, in bytes: fits a log line, and a million of them fit in memory.
pub const CHANNEL_BYTES_MAX: usize = 256;
/// How many channels one route may subscribe a session to.
pub const CHANNELS_PER_SESSION_MAX: usize = 32;

/// File descriptors kept from clients: log, pidfile, listeners, feeds, the [`CONNECTIONS_RESERVED`], the [`REFUSALS_AT_ONCE`]. Where
/// the limit of open files is small it is at most half of them.
pub const DESCRIPTORS_RESERVED: usize = 112;
/// File descriptors kept for each shard: its epoll sets, and three for each of its [`BLOCKING_THREADS_MAX`], which open files.
pub const DESCRIPTORS_PER_SHARD: usize = 16;
/// How many connections from this machine are let in beyond the limits, to ask how the server is and to publish: a monitor or two, a
/// scraper, and some publishers at once. Each has one answer.
pub const CONNECTIONS_RESERVED: usize = 16;
/// How many connections are told at once, and so that they hear it, that there is no room for them.
pub const REFUSALS_AT_ONCE: usize = 16;
/// How long such a connection may take to ask, and then to hear the answer and end: a few round trips.
pub const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);
/// How much is read of what it sends behind its answer, in bytes: most bodies whole. Sixteen of them are 16 MB in two seconds.
pub const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// How often the log says of one limit that connections are refused by it.
pub const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Pause after `accept` failed for want of a resource, so that a full table is not a busy loop.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Length of the kernel's queue of connections not yet accepted (the kernel caps it at `somaxconn`).
pub const LISTEN_BACKLOG: i32 = 4096;
/// How long a reload waits until the addresses that end are closed: a shard's turn takes milliseconds.
pub const LISTENER_END: Duration = Duration::from_secs(1);

/// What a shard reads at once, in bytes; one buffer serves all its sessions. 64 KiB holds a default-sized message whole.
pub const READ_BYTES: usize = 64 << 10;
/// Readiness events taken from the kernel at once.
pub const EVENTS_PER_TURN: usize = 512;
/// A turn flushes when this much is staged, with what is noted of each message, so that one busy channel cannot hold the shard.
pub const TURN_BYTES_MAX: usize = 1 << 20;
/// Frames up to this size are copied into the turn's shared run; above, a second slice is cheaper than the copy.
pub const RUN_FRAME_BYTES_MAX: usize = 16 << 10;
/// Publications that may wait between two shards; beyond, a publisher is refused (HTTP 503) or not read (WebSocket).
pub const INBOX_MESSAGES_MAX: usize = 8192;
/// The same in bytes.
pub const INBOX_BYTES_MAX: usize = 64 << 20;

/// Log lines that may wait for the disk; beyond, they are counted and the count is logged once there is room.
pub const LOG_LINES_MAX: usize = 8192;
/// The longest text of one log line, in bytes; what is longer is cut and ends in `…`.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// How long the end of the process waits for the log's disk.
pub const LOG_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest piece of a client's message that is logged, in bytes.
pub const LOG_MESSAGE_BYTES_MAX: usize = 1024;
/// The log rotates at this size (twistd's).
pub const LOG_ROTATE_BYTES: u64 = 1_000_000;
/// How many rotated logs are kept.
pub const LOG_KEEP: u32 = 10;

/// How often a tailed file is looked at: below what a person notices, ten `stat`s a second.
pub const TAIL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a start or a reload waits for feeds to begin: opening a file takes microseconds, unless its file system hangs.
pub const FEED_BEGIN: Duration = Duration::from_secs(5);
/// The first pause before a feed's command is started again; doubles up to [`COMMAND_BACKOFF_MAX`].
pub const COMMAND_BACKOFF: Duration = Duration::from_millis(500);
/// The longest pause before a feed's command is started again.
pub const COMMAND_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The shortest period of a ticking feed.
pub const EVERY_MIN: Duration = Duration::from_millis(10);
/// A command that ran this long was not failing at its start: its next pause is the first one again.
pub const COMMAND_STEADY: Duration = Duration::from_secs(10);
/// How long the pipes of an ended command may stay silent before what still holds them open is given up.
pub const COMMAND_DRAIN: Duration = Duration::from_secs(1);
/// What a feed reads at once from a file or a pipe, in bytes: a pipe's own size.
pub const FEED_READ_BYTES: usize = 64 << 10;

/// The longest path asked of a static route, in bytes as sent: the kernel's own bound on a path.
pub const PATH_BYTES_MAX: usize = 4096;
/// Files up to this size are read in one go and kept for the next request; larger ones are streamed.
pub const FILE_WHOLE_BYTES_MAX: u64 = 256 << 10;
/// What a shard keeps of files it sent lately, in bytes: the pages of most sites.
pub const PAGE_CACHE_BYTES_MAX: usize = 32 << 20;
/// What is read at once of a larger file, in bytes: what a download holds while its client does not read.
pub const FILE_CHUNK_BYTES: usize = 16 << 10;
/// What a download is sent at once, in bytes, before other connections have their turn.
pub const FILE_TURN_BYTES: usize = 64 << 10;
/// What the kernel holds of an answer that is read from a file, in bytes, beyond what is on its way: else it takes megabytes of each,
/// and it shows late that a client reads no more.
pub const SEND_UNSENT_BYTES_MAX: u32 = 128 << 10;
/// A client that is sent an answer takes [`SEND_BYTES_MIN`] of it in this time, or is let go. Players pause for minutes.
pub const SEND_WINDOW: Duration = Duration::from_secs(300);
/// What it takes at least, in bytes: 218 bytes a second, a fortieth of a telephone modem.
pub const SEND_BYTES_MIN: u64 = 64 << 10;
/// How many files are open at once for answers; one that several answers are read from is open once. Beyond, 503. It is an eighth of
/// the limit of open files at most.
pub const FILES_OPEN_MAX: usize = 1024;
/// Threads of a shard that wait for disks. Four disks' worth: more threads only take the processor from the shards.
pub const BLOCKING_THREADS_MAX: usize = 4;
/// How many names of a directory are looked at for its listing: 10,000 make a page of some 2 MB, which nobody reads to its end, and
/// take some 50 ms.
pub const LISTING_ENTRIES_MAX: usize = 10_000;
/// How long a listing is shown again while its directory has not changed: what files in it are like is that old at most.
pub const LISTING_KEPT: Duration = Duration::from_secs(1);
/// What is kept of listings, in bytes: those of a few large directories.
pub const LISTINGS_BYTES_MAX: usize = 16 << 20;

/// How long an end waits for a file that is being read: one on a file system that hangs is not waited for.
pub const BLOCKED_FILE: Duration = Duration::from_secs(1);

/// The longest silence before the kernel probes a connection: what Linux takes (`MAX_TCP_KEEPIDLE`).
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(32_767);
/// How long a connection that was answered for the last time is still read, so that the answer is not reset away.
pub const LINGER: Duration = Duration::from_secs(1);
/// How much is read and thrown away meanwhile, in bytes.
pub const LINGER_BYTES_MAX: usize = 256 << 10;

/// How much is read of a configuration, its drop-ins included: ten thousand routes fit.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The most drop-ins: far more than an administrator remembers.
pub const DROP_INS_MAX: usize = 256;
/// Mistakes told at once; beyond, they are counted. More than a screenful helps nobody.
pub const DIAGNOSTICS_MAX: usize = 100;
/// The most `queue_max` may be set to: one subscriber that holds a gigabyte is already an outage.
pub const QUEUE_BYTES_CEILING: usize = 1 << 30;
/// The most `queue_messages_max` may be set to.
pub const QUEUE_MESSAGES_CEILING: usize = 1 << 24;
/// The most `connections_max` and `subscribers_max` may be set to: what Linux gives one process at most (`fs.nr_open` can be raised so far).
pub const CONNECTIONS_CEILING: usize = 1 << 26;
/// The most `workers` may be set to.
pub const WORKERS_CEILING: usize = 1024;
/// The shortest timeout that can be set: below, an honest local client is cut off.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// The longest duration that can be set; keeps every sum with a clock far from its end.
pub const DURATION_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The most old logs `rotate` may keep: each rotation renames them all.
pub const LOG_KEEP_CEILING: u32 = 1000;
/// The longest path of a Unix socket, in bytes (`sun_path` less its final zero).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// How long pushctl tries to reach a server: a network that answers does so within two, a lost packet costs one more.
pub const CTL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long pushctl waits for an HTTP answer: longer than a server that is about to refuse a slow body.
pub const CTL_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest body pushctl sends unasked, in bytes; before a larger one it lets the server refuse it. What any kernel buffers.
pub const CTL_BODY_BYTES_UNASKED: usize = 64 << 10;
/// How long that takes at most: a server that does not know the question says nothing (curl waits as long).
pub const CTL_CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest HTTP answer pushctl reads: the metrics of a thousand hubs fit.
pub const CTL_ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long `pushctl connect` waits for the answers to its lines.
pub const CTL_ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than its grace a pushd may take to end before `pushctl stop` gives up: its log has to be written too.
pub const CTL_STOP_MARGIN: Duration = Duration::from_secs(5);
/// How long pushctl waits for the number of a pushd that is starting.
pub const CTL_STARTING_TIMEOUT: Duration = Duration::from_secs(5);
/// How often pushctl looks whether a pushd has ended: below what a person notices.
pub const CTL_POLL: Duration = Duration::from_millis(20);

/// The most connections `pushctl bench` opens: what one machine has addresses and memory for.
pub const BENCH_CONNECTIONS_MAX: usize = 1 << 20;
/// The most messages it has on their way at once.
pub const BENCH_WINDOW_MAX: usize = 1 << 16;
/// The largest message it sends.
pub const BENCH_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What the messages on their way may hold together, in bytes: they are kept to be compared with what arrives.
pub const BENCH_WINDOW_BYTES_MAX: usize = 256 << 20;
/// The longest time it counts deliveries.
pub const BENCH_DURATION_MAX: Duration = Duration::from_secs(86_400);
/// How many handshakes it has on their way at once: below the shortest queue of connections that any kernel has by default.
pub const BENCH_HANDSHAKES_AT_ONCE: usize = 64;
/// How many of its connections come from one address of the loopback; of its 28,000 ports some are still held by the last run.
pub const BENCH_PORTS_PER_ADDRESS: usize = 8000;
/// Files that it needs beside its connections.
pub const BENCH_DESCRIPTORS_RESERVED: usize = 32;
/// What it reads at once, in bytes, beside the longest message.
pub const BENCH_READ_BYTES: usize = 256 << 10;
/// How long it rests between opening and sending, so that the server's memory is that of idle connections.
pub const BENCH_REST: Duration = Duration::from_millis(300);
/// How long it sends before it counts; a fifth of the whole at most.
pub const BENCH_WARM_UP: Duration = Duration::from_secs(1);
/// When nothing has arrived for so long, nothing will.
pub const BENCH_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the network before it looks at the clock.
pub const BENCH_TURN: Duration = Duration::from_millis(20);
/// How long it leaves the kernel alone where it does not sleep; latencies contain up to so much of it.
pub const BENCH_POLL_GAP: Duration = Duration::from_micros(20);
/// How often it tells how far it is.
pub const BENCH_WATCH: Duration = Duration::from_millis(250);
