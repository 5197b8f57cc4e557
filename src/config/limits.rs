//! Every bound in pushd that no key sets, with its unit in the name and its reason.
//!
//! The bounds and defaults that an operator can set are in the entries of `keys`. Nothing in the program grows without a number in one
//! of the two.

use std::time::Duration;

/// The most `message_max` may be set to: 64 MiB. One such message times `queue_max` is already a machine's memory.
pub const MESSAGE_BYTES_CEILING: usize = 64 << 20;

/// How long a peer may take to answer our Close before the socket is dropped.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long handing the clients over may take once the requests in flight are finished, which have a third of the grace; together, and
/// with the end of the log, below the unit's 20 s. A million take some seconds.
pub const HANDOVER: Duration = Duration::from_secs(10);
/// How long the program that was installed in the place of this one may take to check the configuration before it gets the clients; it takes
/// milliseconds.
pub const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(2);
/// How much of what it says against the configuration is logged, in bytes.
pub const SUCCESSOR_SAYS_MAX: u64 = 4 << 10;
/// How long the service manager may take to answer, or to make room for a message.
pub const NOTIFY_PATIENCE: Duration = Duration::from_secs(5);
/// The most that is handed over of one session, in bytes: a message half said, and what waits for it. Beyond, it is closed.
pub const RECORD_BYTES_MAX: usize = 256 << 20;
/// The most values in one list that is handed over, such as what waits for a session: a value of no bytes still takes memory, so the bytes are no
/// bound. A million are sixty times the default queue; beyond, a session is closed.
pub const LIST_VALUES_MAX: usize = 1 << 20;
/// The most that one shard hands over, in bytes. A million idle sessions take some 100 MB.
pub const PARCEL_BYTES_MAX: u64 = 1 << 30;
/// How many sessions a shard closes in a second where they are asked to come back: what a server that starts cold takes in
/// handshakes. It is quicker where half of the grace would not do.
pub const RETURNS_PER_SECOND: usize = 1000;

/// The largest request header, in bytes; nginx takes 4 × 8 KiB, cookies seldom pass 8.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// How many header fields a request may have.
pub const HEADER_FIELDS_MAX: usize = 100;
/// The longest channel name, in bytes: fits a log line, and a million of them fit in memory.
pub const CHANNEL_BYTES_MAX: usize = 256;
/// The longest name of a host, in bytes: what DNS takes (RFC 1035, less the root's own dot).
pub const HOST_BYTES_MAX: usize = 253;
/// How much is read of `/etc/hosts`, where the machine's own names stand among its first lines; lists of advertisers may follow.
pub const HOSTS_FILE_BYTES_MAX: u64 = 64 << 10;
/// How often the log tells that clients were refused by their origin or by the name they called the server, each kind by itself:
/// whoever tries it out sees a line at once, and no client fills a disk.
pub const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(5);
/// How much of what a client sent is shown in a refusal, in characters.
pub const REFUSAL_CHARS_MAX: usize = 200;

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
/// What one read takes where much of what clients sent waits to be heard already, in bytes: each of them then adds little to that.
pub const READ_BYTES_HELD: usize = 4 << 10;
/// How much may wait in a shard of what was read and not heard yet, in bytes, before reads get small.
pub const UNHEARD_BYTES_MAX: usize = 16 << 20;
/// How much the unfinished messages of a shard's clients may hold together, in bytes. The client whose message passes it is closed
/// with 1013. Four of the largest messages fit.
pub const UNFINISHED_BYTES_MAX: usize = 256 << 20;
/// How much the bodies of requests may hold together while they are read, in bytes, for each server. Beyond, one more is answered 503.
pub const UNFINISHED_BODIES_BYTES_MAX: usize = 256 << 20;
/// What is made ready for a body at once, in bytes: a length that is only announced buys no more memory.
pub const BODY_AHEAD_BYTES_MAX: usize = 64 << 10;
/// How many seconds' worth of these a client may save up: a network that stalls for some seconds delivers all at once afterwards.
pub const ALLOWANCE_SECONDS: u32 = 10;
/// Readiness events taken from the kernel at once.
pub const EVENTS_PER_TURN: usize = 512;
/// A turn flushes when this much is staged, with what is noted of each message, so that one busy channel cannot hold the shard.
pub const TURN_BYTES_MAX: usize = 1 << 20;
/// How often a turn stages something published on a session: some ten nanoseconds each, so a turn of many small messages to many
/// clients is bounded, too.
pub const STAGED_PER_TURN_MAX: usize = 300_000;
/// What a turn reads, in the work of nanoseconds (see `shard::table::work`): a client that says something is heard within two or
/// three turns, whatever others send.
pub const READING_WORK: u32 = 500_000;
/// What a turn reads of those that had their slice before, even where others took the whole turn.
pub const READING_ON_WORK: u32 = 125_000;
/// What is read of one client at once before the next one has its slice: a read of 64 KiB of messages of a kilobyte is one slice, so
/// that what a publisher sent at once leaves at once.
pub const SLICE_WORK: u32 = 100_000;
/// What a turn writes to subscribers, likewise, before it looks at what came meanwhile. One message to 250 clients.
pub const FLUSHING_WORK: u32 = 1_000_000;
/// What a turn may stage for clients in answer to what they said, in bytes, while a publication is still being written to others.
pub const REPLIES_BYTES_MAX: usize = 4 << 20;
/// How many connections that say something for the first time are looked at in one turn; a handshake takes about ten microseconds.
pub const HANDSHAKES_PER_TURN: usize = 50;
/// How many timers fire in one turn: each may send a ping.
pub const TIMERS_PER_TURN: usize = 100;
/// How many sessions a reload or an end reaches in one turn.
pub const SWEEP_SESSIONS_PER_TURN: usize = 100;
/// How many places of the table it looks at for them: after a crowd has gone most are empty.
pub const SWEEP_PLACES_PER_TURN: usize = 10_000;
/// How many commands a shard obeys in one turn.
pub const COMMANDS_PER_TURN: usize = 16;
/// The largest message that is compressed: a shard that compresses delivers nothing meanwhile, and this takes a millisecond or two.
/// Larger ones go as they are.
pub const DEFLATE_BYTES_MAX: usize = 256 << 10;
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

/// How often a tailed file is looked at: below what a person notices, ten `stat`s a second.
pub const TAIL_INTERVAL: Duration = Duration::from_millis(100);
/// What is remembered of a tailed file, in bytes before the place where it is read on, to see whether it still is what was read: a
/// line with its time is not there twice.
pub const TAIL_REMEMBERED_BYTES: usize = 256;
/// How long a start or a reload waits for feeds to begin: opening a file takes microseconds, unless its file system hangs.
pub const FEED_BEGIN: Duration = Duration::from_secs(5);
/// The first pause before a feed's command is started again; doubles up to [`COMMAND_BACKOFF_MAX`].
pub const COMMAND_BACKOFF: Duration = Duration::from_millis(500);
/// The longest pause before a feed's command is started again.
pub const COMMAND_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A command that ran this long was not failing at its start: its next pause is the first one again.
pub const COMMAND_STEADY: Duration = Duration::from_secs(10);
/// How long the pipes of an ended command may stay silent before what still holds them open is given up.
pub const COMMAND_DRAIN: Duration = Duration::from_secs(1);
/// What a feed reads at once from a file or a pipe, in bytes: a pipe's own size.
pub const FEED_READ_BYTES: usize = 64 << 10;

/// The longest path that is looked at, in bytes as sent: the kernel's own bound on a path, and more than any route needs.
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
/// How much is read of a request's body that has no use, in bytes, so that the connection can go on behind it: what a form or a
/// careless client sends. Beyond, the connection ends.
pub const UNUSED_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a connection that was answered for the last time is still read, so that the answer is not reset away (nginx's
/// `lingering_time`).
pub const LINGER: Duration = Duration::from_secs(30);
/// How long nothing may come meanwhile (nginx's `lingering_timeout`): a client that sent all it had ends its side once it has read ours.
pub const LINGER_QUIET: Duration = Duration::from_secs(5);
/// How long it is read where the server ends: an answer takes less on its way.
pub const LINGER_ENDING: Duration = Duration::from_secs(1);
/// How much is read and thrown away meanwhile, in bytes: the largest message any hub can be set to take. Who sends more has not
/// mistaken the limit.
pub const LINGER_BYTES_MAX: usize = MESSAGE_BYTES_CEILING;

/// How much is read of a configuration, its drop-ins included: ten thousand routes fit.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// How long a configuration is waited for: at the start a pipe's writer may have left, at a reload a file system may hang.
pub const CONFIG_PATIENCE: Duration = Duration::from_secs(10);
/// The most drop-ins: far more than an administrator remembers.
pub const DROP_INS_MAX: usize = 256;
/// How much of a title, a hint or a line of the file is shown with a mistake, in characters: a screen's width, a few times.
pub const DIAGNOSTIC_CHARS_MAX: usize = 400;
/// Mistakes told at once; beyond, they are counted. More than a screenful helps nobody.
pub const DIAGNOSTICS_MAX: usize = 100;
/// With how many channels that routes build of parts a feed's is compared, to tell of one that nobody can hear.
pub const BUILT_CHANNELS_COMPARED_MAX: usize = 64;
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
/// How many starts may die while they take up what was handed over, before the next one does without: a defect that the sessions bring to
/// light must not keep the server down for ever, and a death of another cause (memory, a power key) does not come three times.
pub const TAKE_UP_TRIES_MAX: usize = 3;
/// How long `pushctl reload` waits for its outcome: a reload takes milliseconds, and some seconds where files lie far away; within the
/// 90 s after which systemd gives up an `ExecReload=`.
pub const CTL_RELOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that is told of a reload, in bytes: some screens full of mistakes.
pub const RELOAD_BYTES_MAX: usize = 16 << 10;
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
/// How long clients of an event stream are asked to wait before they connect again, on an idle hub: up to twice as long, at random.
pub const RETRY_MIN: Duration = Duration::from_secs(2);
/// The same on a hub with [`RETRY_SESSIONS`]. Browsers do not back off: so 100,000 of them make about 4,500 connections a second.
pub const RETRY_MAX: Duration = Duration::from_secs(15);
/// The sessions of a hub from which on clients wait for [`RETRY_MAX`].
pub const RETRY_SESSIONS: usize = 100_000;
