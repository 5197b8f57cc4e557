//! Every bound in pushd that no key sets, with its unit in the name and its reason.
//!
//! The bounds and defaults that an operator can set are in the entries of `keys`. Nothing in the program grows without a number in one
//! of the two.

use std::time::Duration;

mod hooks;
mod pages;
mod secure;

pub use hooks::*;
pub use pages::*;
pub use secure::*;

/// The upper bound of `message_max`: 64 MiB. One such message times `queue_max` is already the memory of a machine.
pub const MESSAGE_BYTES_CEILING: usize = 64 << 20;

/// How long a peer may take to answer our Close before the socket is dropped.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout for handing sessions over, once the requests in flight are finished (these have a third of the grace). Together
/// with the end of the log this is less than the 20 s of the unit. A million sessions take some seconds.
pub const HANDOVER: Duration = Duration::from_secs(10);
/// The timeout for the program that replaces this one to check the configuration, before the sessions are handed over. The check
/// takes milliseconds.
pub const SUCCESSOR_PATIENCE: Duration = Duration::from_secs(2);
/// How much of its messages about the configuration is logged, in bytes.
pub const SUCCESSOR_SAYS_MAX: u64 = 4 << 10;
/// The timeout for the service manager to answer, or to have room for a message.
pub const NOTIFY_PATIENCE: Duration = Duration::from_secs(5);
/// The largest record of one session in a hand-over, in bytes: an unfinished message, and what is queued. A session with more is
/// closed.
pub const RECORD_BYTES_MAX: usize = 256 << 20;
/// The maximum number of values in one list of a hand-over, such as the queue of a session. Bytes alone are not a limit, because
/// an empty value takes memory, too. A million is sixty times the default queue; a session with more is closed.
pub const LIST_VALUES_MAX: usize = 1 << 20;
/// The maximum that one shard hands over, in bytes. A million idle sessions take some 100 MB.
pub const PARCEL_BYTES_MAX: u64 = 1 << 30;
/// How many sessions a shard closes each second where clients are asked to reconnect: as many handshakes as a server takes after
/// a cold start. The rate is higher if half of the grace would not be enough.
pub const RETURNS_PER_SECOND: usize = 1000;

/// The largest header of a request, in bytes. nginx accepts 4 × 8 KiB; cookies are rarely larger than 8 KiB.
pub const HEADER_BYTES_MAX: usize = 16 << 10;
/// The maximum number of header fields of a request.
pub const HEADER_FIELDS_MAX: usize = 100;
/// The longest channel name, in bytes. It fits a log line, and a million of them fit into memory.
pub const CHANNEL_BYTES_MAX: usize = 256;
/// The longest host name, in bytes: the limit of DNS (RFC 1035, without the dot of the root).
pub const HOST_BYTES_MAX: usize = 253;
/// How much of `/etc/hosts` is read. The machine's own names are in its first lines; long lists of blocked hosts may follow.
pub const HOSTS_FILE_BYTES_MAX: u64 = 64 << 10;
/// How often the log reports clients that were refused for their origin or for the host name, each kind separately. The first
/// refusal is logged at once, and no client can fill a disk.
pub const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(5);
/// How much of a client's text is shown in a refusal, in characters.
pub const REFUSAL_CHARS_MAX: usize = 200;

/// File descriptors that are not available to clients: log, pidfile, listeners, feeds, the [`CONNECTIONS_RESERVED`], the
/// [`REFUSALS_AT_ONCE`]. With a small limit of open files, they are at most half of it.
pub const DESCRIPTORS_RESERVED: usize = 112;
/// File descriptors reserved for each shard: its epoll sets, and three for each of its [`BLOCKING_THREADS_MAX`], which open
/// files.
pub const DESCRIPTORS_PER_SHARD: usize = 16;
/// How many connections from this machine are accepted beyond the limits, for status and publishing: one or two monitors, a
/// scraper, and some publishers at the same time. Each gets one answer.
pub const CONNECTIONS_RESERVED: usize = 16;
/// How many refused connections at the same time are read first, so that they receive the answer that the server is full.
pub const REFUSALS_AT_ONCE: usize = 16;
/// The timeout for such a connection to send a request, and then to receive the answer and end: a few round trips.
pub const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);
/// How much of what it sends is read after the answer, in bytes. Most bodies fit. Sixteen connections are 16 MB in two seconds.
pub const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// How often the log reports, for each limit, that connections are refused.
pub const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(60);
/// The pause after `accept` has failed for lack of a resource. Without it, a full table of files would be a busy loop.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// The length of the kernel's queue of connections that are not accepted yet (the kernel's own maximum is `somaxconn`).
pub const LISTEN_BACKLOG: i32 = 4096;
/// How long a reload waits until removed addresses are closed. A shard's turn takes milliseconds.
pub const LISTENER_END: Duration = Duration::from_secs(1);

/// How much a shard reads at once, in bytes, into one buffer for all its sessions. 64 KiB is a whole message of the default size.
pub const READ_BYTES: usize = 64 << 10;
/// How much one read takes while much data of clients waits to be processed, in bytes. Each read then adds little to it.
pub const READ_BYTES_HELD: usize = 4 << 10;
/// How much data may be read and not processed in a shard, in bytes, before reads get small.
pub const UNHEARD_BYTES_MAX: usize = 16 << 20;
/// The maximum size of the unfinished messages of a shard's clients together, in bytes. The client whose message exceeds it is
/// closed with 1013. Four of the largest messages fit.
pub const UNFINISHED_BYTES_MAX: usize = 256 << 20;
/// The maximum size of the bodies of requests that are being read or wait to be parsed, together, in bytes, for each server.
/// Another body is then answered with 503.
pub const UNFINISHED_BODIES_BYTES_MAX: usize = 256 << 20;
/// How much memory is allocated at once for a body, in bytes. An announced length alone gets no more.
pub const BODY_AHEAD_BYTES_MAX: usize = 64 << 10;
/// The allowance that a client may save up, in seconds of its rates. A network that stalls for some seconds delivers all data at
/// once afterwards.
pub const ALLOWANCE_SECONDS: u32 = 10;
/// How many readiness events are taken from the kernel at once.
pub const EVENTS_PER_TURN: usize = 512;
/// A turn flushes once this much is staged, in bytes, including the bookkeeping of each message. A busy channel cannot occupy the
/// shard for longer.
pub const TURN_BYTES_MAX: usize = 1 << 20;
/// How many times a turn stages a publication on a session. Each takes some ten nanoseconds, so a turn with many small messages
/// to many clients is bounded, too.
pub const STAGED_PER_TURN_MAX: usize = 300_000;
/// The budget of a turn for reading, in the unit of `session::work` (nanoseconds). A client's message is processed within
/// two or three turns, whatever other clients send.
pub const READING_WORK: u32 = 500_000;
/// The budget of a turn for reading on from clients that have already had their slice, even if other clients took the whole turn.
pub const READING_ON_WORK: u32 = 125_000;
/// How much work is done for one client before the next has its slice. A read of 64 KiB with messages of 1 KiB is one slice, so
/// messages that a publisher sends together are sent on together.
pub const SLICE_WORK: u32 = 100_000;
/// The budget of a turn for writing to subscribers, in the same unit, before it reads new input. One message to 250 clients.
pub const FLUSHING_WORK: u32 = 1_000_000;
/// How many answers may wait for a client that subscribes by messages, before it is not read on. Messages that wait do not count: a
/// slow client can still end a subscription.
pub const ANSWERS_WAITING_MAX: usize = 64;
/// How much a turn may stage in answer to clients' messages, in bytes, while a publication is still being written to others.
pub const REPLIES_BYTES_MAX: usize = 4 << 20;
/// How many connections with their first request are served in one turn. A handshake takes about ten microseconds.
pub const HANDSHAKES_PER_TURN: usize = 50;
/// How many timers fire in one turn. Each may send a ping.
pub const TIMERS_PER_TURN: usize = 100;
/// How many sessions a reload or an end reaches in one turn.
pub const SWEEP_SESSIONS_PER_TURN: usize = 100;
/// How many slots of the table are checked for them in one turn. After many clients have left, most slots are empty.
pub const SWEEP_PLACES_PER_TURN: usize = 10_000;
/// How many commands a shard executes in one turn.
pub const COMMANDS_PER_TURN: usize = 16;
/// The largest message that is compressed, in bytes. A shard delivers nothing while it compresses, and this size takes one or two
/// milliseconds. Larger messages are sent uncompressed.
pub const DEFLATE_BYTES_MAX: usize = 256 << 10;
/// Frames up to this size are copied into the shared run of the turn. For a larger frame a second slice is cheaper than the copy.
pub const RUN_FRAME_BYTES_MAX: usize = 16 << 10;
/// How many messages may wait in a lane of a shard. Beyond, publishers are refused (HTTP 503) or not read (WebSocket).
pub const INBOX_MESSAGES_MAX: usize = 8192;
/// The same in bytes.
pub const INBOX_BYTES_MAX: usize = 64 << 20;

/// How much of a history is sent to a client that catches up, in bytes, before the next page is made. At least one message. A page is
/// memory until the client has read it: a thousand clients take 256 MiB at most.
pub const HISTORY_PAGE_BYTES_MAX: usize = 256 << 10;
/// The same in messages. A page of tiny messages takes an owner a fraction of a millisecond.
pub const HISTORY_PAGE_MESSAGES_MAX: usize = 256;
/// A page up to this size, in bytes, may be the last one before a session goes live. It counts to no limit of the queue, so it has to
/// be small beside the default of `queue_max`.
pub const HISTORY_LAST_PAGE_BYTES_MAX: usize = 16 << 10;
/// The budget of an owner's turn for making pages, in nanoseconds. Publications of the same turn are delayed by no more.
pub const HISTORY_WORK_PER_TURN: u32 = 200_000;
/// How many channels a gap names. A client that missed something on more of them is told of these, and that there are more.
pub const GAP_CHANNELS_MAX: usize = 100;
/// For how many channels that hold nothing any more a hub still knows up to which position they lost messages. Beyond, the oldest of
/// these positions applies to all channels without one, so clients may be told of a gap that they do not have.
pub const TOMBSTONES_MAX: usize = 65_536;
/// The longest position that is read, in bytes. Ours are shorter; a longer text is like a position of another epoch.
pub const POSITION_BYTES_MAX: usize = 128;
/// The longest time that a poll waits. Proxies end a silent request after 60 s.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(60);
/// The same, if the request does not say how long.
pub const POLL_WAIT_DEFAULT: Duration = Duration::from_secs(25);
/// How many messages a poll answers with, at most, if the request asks for so many.
pub const POLL_MESSAGES_MAX: usize = 1000;
/// The same, if the request does not say how many.
pub const POLL_MESSAGES_DEFAULT: usize = 100;
/// How long an `Idempotency-Key` is known. A publisher that tries again does it within seconds.
pub const IDEMPOTENCY_AGE: Duration = Duration::from_secs(300);
/// How many of these keys a hub knows; the oldest are forgotten first. In five minutes that is 873 publications with a key each second.
pub const IDEMPOTENCY_KEYS_MAX: usize = 262_144;
/// The longest of these keys, in bytes. UUIDs have 36; a longer key is answered with 400.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// The maximum number of messages in the body of a batch. They are published in one turn.
pub const BATCH_LINES_MAX: usize = 10_000;
/// The largest body of a batch, in bytes. 10,000 messages of 1 KiB with their channels fit. It is less than the lane of a shard holds, so
/// a batch is not larger than what may wait anyway.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// A batch up to this size is parsed at once, which takes well under a millisecond. A larger one is parsed on another thread.
pub const BATCH_BYTES_AT_ONCE: usize = 64 << 10;
/// How long a member of a channel may be away before it has left. A page that is loaded again, or a restart, takes less.
pub const PRESENCE_LEAVE_DELAY: Duration = Duration::from_secs(3);
/// The longest identity of a client, in bytes: that of a channel's name, which is often made of it.
pub const IDENTITY_BYTES_MAX: usize = CHANNEL_BYTES_MAX;
/// How many members of a channel are named in an answer. Of the others only the number is told. An answer has a few hundred
/// kilobytes, and takes its owner a fraction of a millisecond.
pub const PRESENCE_MEMBERS_MAX: usize = 10_000;
/// The budget of an owner's turn for sessions that come and go and for questions about presence, in nanoseconds.
pub const PRESENCE_WORK_PER_TURN: u32 = 1_000_000;
/// How many joins and leaves an owner looks at in one turn. Each may be published. When a network fails, many clients leave in the
/// same second.
pub const PRESENCE_CHANGES_PER_TURN: usize = 250;
/// How much a shard hands over about the members that it has told of, in bytes. Two million take some 60 MB. The next process tells
/// again of those that are left out.
pub const PRESENCE_BYTES_MAX: usize = 128 << 20;

/// How many log lines may be queued for the disk. Further ones are counted, and the number is logged once there is room.
pub const LOG_LINES_MAX: usize = 8192;
/// The longest text of one log line, in bytes. A longer one is cut and ends in `…`.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// How long the process waits for the disk of the log when it ends.
pub const LOG_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of a client's message is logged, in bytes.
pub const LOG_MESSAGE_BYTES_MAX: usize = 1024;

/// How often a tailed file is checked. People do not notice this delay, and it costs ten `stat` calls a second.
pub const TAIL_INTERVAL: Duration = Duration::from_millis(100);
/// How many bytes before the read offset of a tailed file are remembered, to detect whether it still is the same file. A line
/// with a time is unique.
pub const TAIL_REMEMBERED_BYTES: usize = 256;
/// How long a start or a reload waits for feeds to begin. Opening a file takes microseconds, unless its file system hangs.
pub const FEED_BEGIN: Duration = Duration::from_secs(5);
/// The first pause before a feed's command is restarted. It doubles up to [`COMMAND_BACKOFF_MAX`].
pub const COMMAND_BACKOFF: Duration = Duration::from_millis(500);
/// The longest pause before a feed's command is restarted.
pub const COMMAND_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A command that has run this long did not fail at its start. The next pause is the first one again.
pub const COMMAND_STEADY: Duration = Duration::from_secs(10);
/// How long the pipes of an ended command may stay silent before they are closed, although another process still holds them open.
pub const COMMAND_DRAIN: Duration = Duration::from_secs(1);
/// How much a feed reads at once from a file or a pipe, in bytes: the size of a pipe.
pub const FEED_READ_BYTES: usize = 64 << 10;

/// The longest path of a request, in bytes as sent: the kernel's own limit for a path, and more than any route needs.
pub const PATH_BYTES_MAX: usize = 4096;
/// Files up to this size are read at once and cached. Larger ones are streamed.
pub const FILE_WHOLE_BYTES_MAX: u64 = 256 << 10;
/// The size of a shard's cache of files, in bytes: enough for the pages of most sites.
pub const PAGE_CACHE_BYTES_MAX: usize = 32 << 20;
/// How much of a larger file is read at once, in bytes. A download holds this much while its client does not read.
pub const FILE_CHUNK_BYTES: usize = 16 << 10;
/// How much a download sends at once, in bytes, before other connections have their turn.
pub const FILE_TURN_BYTES: usize = 64 << 10;
/// How much unsent data of an answer from a file the kernel holds, in bytes. Without this limit it takes megabytes for each
/// answer, and a client that has stopped reading is noticed late.
pub const SEND_UNSENT_BYTES_MAX: u32 = 128 << 10;
/// In this time a client must take [`SEND_BYTES_MIN`] of an answer, or it is disconnected. Media players pause for minutes.
pub const SEND_WINDOW: Duration = Duration::from_secs(300);
/// How much it must take, in bytes: 218 bytes a second, a fortieth of a telephone modem.
pub const SEND_BYTES_MIN: u64 = 64 << 10;
/// How many files are open at the same time for answers. A file that several answers are read from is open once. Beyond, 503. It
/// is at most an eighth of the limit of open files.
pub const FILES_OPEN_MAX: usize = 1024;
/// Threads of a shard that wait for disks. They are enough for four disks. More threads would only take processor time from the
/// shards.
pub const BLOCKING_THREADS_MAX: usize = 4;
/// How many names of a directory are read for its listing. 10,000 make a page of some 2 MB, which is too long to read, and take
/// some 50 ms.
pub const LISTING_ENTRIES_MAX: usize = 10_000;
/// How long the listing of an unchanged directory is cached. Its details about files can be outdated by this time at most.
pub const LISTING_KEPT: Duration = Duration::from_secs(1);
/// The size of the cache of listings, in bytes: enough for a few large directories.
pub const LISTINGS_BYTES_MAX: usize = 16 << 20;

/// How long an end waits for a file that is being read. A file on a file system that hangs is given up.
pub const BLOCKED_FILE: Duration = Duration::from_secs(1);

/// The longest silence before the kernel probes a connection: the maximum of Linux (`MAX_TCP_KEEPIDLE`).
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(32_767);
/// How much of an unused body is read, in bytes, so that the connection can be used after it: the size of a form, or of a
/// careless client's body. With more, the connection ends.
pub const UNUSED_BODY_BYTES_MAX: usize = 64 << 10;
/// How long a connection is read after its last answer, so that a reset does not destroy the answer (`lingering_time` of nginx).
pub const LINGER: Duration = Duration::from_secs(30);
/// How long such a connection may be silent (`lingering_timeout` of nginx). A client that has sent everything ends its side once
/// it has read ours.
pub const LINGER_QUIET: Duration = Duration::from_secs(5);
/// How long it is read when the server ends. An answer arrives in less time.
pub const LINGER_ENDING: Duration = Duration::from_secs(1);
/// How much is read and discarded meanwhile, in bytes: the largest message that a hub can be set to accept. A client that sends
/// more has not just mistaken the limit.
pub const LINGER_BYTES_MAX: usize = MESSAGE_BYTES_CEILING;

/// The maximum size of a configuration with its drop-ins: ten thousand routes fit.
pub const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The timeout for reading a configuration. At the start the writer of a pipe may be gone, at a reload a file system may hang.
pub const CONFIG_PATIENCE: Duration = Duration::from_secs(10);
/// The maximum number of drop-ins: far more than an administrator can remember.
pub const DROP_INS_MAX: usize = 256;
/// How much of a title, a hint or a line of the file is shown in a message, in characters: a few times the width of a screen.
pub const DIAGNOSTIC_CHARS_MAX: usize = 400;
/// How many mistakes are reported at once. Further ones are counted. More than a screen of them helps no operator.
pub const DIAGNOSTICS_MAX: usize = 100;
/// With how many channels that routes build from parts the channel of a feed is compared, to warn of a feed that no route
/// subscribes to.
pub const BUILT_CHANNELS_COMPARED_MAX: usize = 64;
/// The longest path of a Unix socket, in bytes (`sun_path` without its final zero).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// How long pushctl tries to connect. A working network answers within two seconds; a lost packet costs one more.
pub const CTL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long pushctl waits for an HTTP answer: longer than a server takes to refuse a slow body.
pub const CTL_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest body that pushctl sends without asking first, in bytes: what any kernel buffers. Before a larger one the server
/// can refuse it.
pub const CTL_BODY_BYTES_UNASKED: usize = 64 << 10;
/// How long pushctl waits for the server's consent. A server that does not know the question sends nothing (curl waits as long).
pub const CTL_CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// The largest HTTP answer that pushctl reads, in bytes: the metrics of a thousand hubs fit.
pub const CTL_ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long `pushctl connect` waits for the answers to its lines.
pub const CTL_ANSWERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer than its grace a pushd may take to end before `pushctl stop` gives up. It also has to write its log.
pub const CTL_STOP_MARGIN: Duration = Duration::from_secs(5);
/// How long pushctl waits for the process ID of a pushd that is starting.
pub const CTL_STARTING_TIMEOUT: Duration = Duration::from_secs(5);
/// How many starts may crash while they take up sessions, before the next start does without them. A defect that these sessions
/// trigger must not keep the server down for ever, and a crash with another cause (memory, power) does not happen three times in
/// a row.
pub const TAKE_UP_TRIES_MAX: usize = 3;
/// How long `pushctl reload` waits for the result. A reload takes milliseconds, or some seconds with files on a remote file
/// system. This is less than the 90 s after which systemd gives up an `ExecReload=`.
pub const CTL_RELOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of the report of a reload, in bytes: a few screens of mistakes.
pub const RELOAD_BYTES_MAX: usize = 16 << 10;
/// How often pushctl checks whether a pushd has ended. People do not notice this delay.
pub const CTL_POLL: Duration = Duration::from_millis(20);

/// The maximum number of connections of `pushctl bench`: one machine has addresses and memory for as many.
pub const BENCH_CONNECTIONS_MAX: usize = 1 << 20;
/// The maximum number of messages in flight.
pub const BENCH_WINDOW_MAX: usize = 1 << 16;
/// The largest message that it sends, in bytes.
pub const BENCH_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The maximum size of the messages in flight together, in bytes. They are kept to be compared with what arrives.
pub const BENCH_WINDOW_BYTES_MAX: usize = 256 << 20;
/// The longest time that it counts deliveries.
pub const BENCH_DURATION_MAX: Duration = Duration::from_secs(86_400);
/// How many handshakes are in flight at the same time: fewer than the shortest default queue of connections of any kernel.
pub const BENCH_HANDSHAKES_AT_ONCE: usize = 64;
/// How many of its connections have the same loopback address. Of its 28,000 ports some are still in use from the last run.
pub const BENCH_PORTS_PER_ADDRESS: usize = 8000;
/// File descriptors that it needs beside its connections.
pub const BENCH_DESCRIPTORS_RESERVED: usize = 32;
/// How much it reads at once, in bytes, beside the longest message.
pub const BENCH_READ_BYTES: usize = 256 << 10;
/// The pause between connecting and sending, so that the server's memory is that of idle connections.
pub const BENCH_REST: Duration = Duration::from_millis(300);
/// How long it sends before it counts; at most a fifth of the whole time.
pub const BENCH_WARM_UP: Duration = Duration::from_secs(1);
/// If nothing arrives for this long, nothing more is expected.
pub const BENCH_PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for the network before it checks the clock.
pub const BENCH_TURN: Duration = Duration::from_millis(20);
/// How long it leaves the kernel alone where it does not sleep. Latencies can include up to this time.
pub const BENCH_POLL_GAP: Duration = Duration::from_micros(20);
/// How often it reports its progress.
pub const BENCH_WATCH: Duration = Duration::from_millis(250);
/// How long clients of an event stream are asked to wait before they connect again, on an idle hub: up to twice as long, at random.
pub const RETRY_MIN: Duration = Duration::from_secs(2);
/// The same on a hub with [`RETRY_SESSIONS`]. Browsers do not back off: so 100,000 of them make about 4,500 connections a second.
pub const RETRY_MAX: Duration = Duration::from_secs(15);
/// The sessions of a hub from which on clients wait for [`RETRY_MAX`].
pub const RETRY_SESSIONS: usize = 100_000;
/// How many expired messages, or keys of messages, of a hub are dropped in one turn. Each takes less than a microsecond.
pub const EXPIRED_PER_TURN_MAX: usize = 200;
/// How much of a durable hub is kept in memory, too, in bytes: a client that was away for a short time is answered from there.
pub const STORE_CACHE_BYTES_MAX: usize = 32 << 20;
/// A smaller message is copied before it is kept: it may be a part of a larger buffer, which it would hold in memory.
pub const HISTORY_SHARED_BYTES_MIN: usize = 4 << 10;

/// The most publications that wait for the writer of the store, those of its current batch included. A disk that stops for a
/// second is absorbed at the highest rate that one takes.
pub const STORE_QUEUE_ENTRIES_MAX: usize = 1 << 16;
/// The same in bytes of payloads.
pub const STORE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// The most publications in one transaction of the store. Twice as many are not faster.
pub const STORE_BATCH_MAX: usize = 8192;
/// How long the store waits after a failed write before it tries again.
pub const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long the store waits after the last write before it does what can wait: moves the log into the database, gives space back.
pub const STORE_REST: Duration = Duration::from_millis(500);
/// How many offsets of a hub are reserved on disk at once. More than are ever in flight: [`STORE_QUEUE_ENTRIES_MAX`].
pub const STORE_OFFSETS_RESERVED: u64 = 1 << 20;
/// The most channels whose counters the writer of the store keeps in memory, some 200 bytes each.
pub const STORE_CHANNELS_CACHED: usize = 1 << 16;
/// How many messages one step of expiry deletes at most: some milliseconds.
pub const STORE_EXPIRY_STEP: usize = 1000;
/// How many pages of 4 KiB one step of giving space back moves at most: some milliseconds.
pub const STORE_VACUUM_STEP: usize = 512;
/// A database of up to so many bytes is checked completely before it is used; one byte takes a nanosecond or two. A larger one
/// is checked while it is used.
pub const STORE_CHECKED_BYTES_MAX: u64 = 64 << 20;
/// How many rows are looked at for one page of history. Most of them may be of other channels.
pub const STORE_LOOKED_AT_MAX: usize = 4096;
