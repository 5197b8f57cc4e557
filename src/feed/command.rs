//! A feed that publishes the lines a command writes.
//!
//! The command runs in a process group of its own, without input. Each line of its standard output is published, each
//! line of its standard error is logged. When it ends, the rest of its group is killed and the rest of its pipes is
//! read. It is then started again after a pause of half a second. The pause doubles with each failure; it is short
//! again after a run that exited with 0 or lasted for a while. A program that exits with 0 has not failed; its starts
//! and ends are logged at level info only the first time.
//!
//! Dropping the feed kills the whole group at once (SIGKILL, because nothing remains that could wait for a graceful
//! end).

use std::io;
use std::ops::AsyncFnMut;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use log::Level;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::lines::Lines;
use super::{Limit, Outlet, Publisher, inheritance};
use crate::config::limits::{
    COMMAND_BACKOFF, COMMAND_BACKOFF_MAX, COMMAND_DRAIN, COMMAND_STEADY, FEED_READ_BYTES, LOG_MESSAGE_BYTES_MAX,
};

pub(super) async fn run<O: Outlet>(words: Vec<String>, mut publisher: Publisher<O>) {
    let Some((program, arguments)) = words.split_first() else {
        log::error!("feed {}: its command is empty", publisher.name);
        return std::future::pending().await;
    };
    let mut backoff = Backoff::new();
    // The last run exited with 0: further ones are routine, and logged at level debug.
    let mut routine = false;
    loop {
        let start = Instant::now();
        let ended = match spawn(program, arguments) {
            Ok(child) => {
                let level = if routine { Level::Debug } else { Level::Info };
                log::log!(level, "feed {}: {program} started, PID {}", publisher.name, child.id().unwrap_or(0));
                follow(child, &mut publisher).await
            }
            Err(error) => Err(error),
        };
        let well = ended.as_ref().is_ok_and(ExitStatus::success);
        let pause = backoff.pause(start.elapsed(), well);
        match ended {
            Ok(_) if routine && well => log::debug!("feed {}: {program} ended, again in {pause:?}", publisher.name),
            Ok(_) if well => {
                log::info!(
                    "feed {}: {program} ended with 0, again in {pause:?}; further such runs are logged at level debug",
                    publisher.name
                );
            }
            Ok(status) => log::warn!("feed {}: {program} ended ({status}), again in {pause:?}", publisher.name),
            Err(error) => log::warn!("feed {}: cannot run {program}: {error}, again in {pause:?}", publisher.name),
        }
        routine = well;
        sleep(pause).await;
    }
}

fn spawn(program: &str, arguments: &[String]) -> io::Result<Child> {
    let mut command = Command::new(program);
    inheritance::without_service_variables(&mut command)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    inheritance::with_signals_unblocked(|| command.spawn()).inspect(inheritance::reset_limit)
}

/// Publishes and logs the output of `child`, until the child and its pipes have ended.
async fn follow<O: Outlet>(mut child: Child, publisher: &mut Publisher<O>) -> io::Result<ExitStatus> {
    // Declared after the child and so dropped before it: the group is killed while the PID of its leader is still
    // taken.
    let group = Group::of(&child);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (end, ended) = watch::channel(false);
    let name = publisher.name.clone();
    let line_max = publisher.message_max.clone();
    let published = each_line(out, line_max, ended.clone(), async |line: String| publisher.publish(&line).await);
    let logged = each_line(err, LOG_MESSAGE_BYTES_MAX, ended, async |line: String| log::warn!("feed {name}: {line}"));
    let waited = async {
        let status = child.wait().await;
        // Processes that it left behind would hold its pipes, and would run beside the next start.
        drop(group);
        end.send_replace(true);
        status
    };
    let ((), (), status) = tokio::join!(published, logged, waited);
    status
}

/// Passes each line of `pipe` to `take`. It returns when the pipe ends, or when the command has `ended` and no more
/// output arrives: a process that left the group may hold the pipe open for ever.
async fn each_line(
    pipe: Option<impl AsyncRead + Unpin>,
    line_max: impl Into<Limit>,
    mut ended: watch::Receiver<bool>,
    mut take: impl AsyncFnMut(String),
) {
    let Some(mut pipe) = pipe else { return };
    let mut lines = Lines::new(line_max);
    let mut buffer = vec![0; FEED_READ_BYTES];
    loop {
        let silent = async {
            // An error means that the sender is gone, which is an end too.
            let _ = ended.wait_for(|ended| *ended).await;
            sleep(COMMAND_DRAIN).await;
        };
        let read = tokio::select! {
            biased;
            read = pipe.read(&mut buffer) => read.unwrap_or(0),
            () = silent => 0,
        };
        if read == 0 {
            break;
        }
        let mut bytes = &buffer[..read];
        while let Some(line) = lines.next(&mut bytes) {
            take(line).await;
        }
    }
    if let Some(line) = lines.finish() {
        take(line).await;
    }
}

/// The process group of a command; killed when dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Group {
        Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Usually the group is empty by now, which is not an error.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The pauses between starts.
struct Backoff {
    next: Duration,
}

impl Backoff {
    fn new() -> Backoff {
        Backoff { next: COMMAND_BACKOFF }
    }

    /// The pause after a run that lasted `ran`, and exited with 0 if `well`.
    fn pause(&mut self, ran: Duration, well: bool) -> Duration {
        if well || ran >= COMMAND_STEADY {
            self.next = COMMAND_BACKOFF;
        }
        let pause = self.next;
        self.next = if well { pause } else { (pause * 2).min(COMMAND_BACKOFF_MAX) };
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::Pin;

    use tempfile::TempDir;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::Source;
    use crate::feed::testing::{DEADLINE, Queue, feed, next};

    type Run = Pin<Box<dyn Future<Output = ()>>>;

    fn shell(script: &str, queued_max: usize) -> (Pin<Box<Run>>, mpsc::Receiver<String>) {
        command(&["/bin/sh", "-c", script], queued_max)
    }

    fn command(words: &[&str], queued_max: usize) -> (Pin<Box<Run>>, mpsc::Receiver<String>) {
        let (sender, received) = mpsc::channel(queued_max);
        let source = Source::Command(words.iter().map(|&word| word.to_owned()).collect());
        let run: Run = Box::pin(crate::feed::run(
            feed("{n}:{line}", source),
            32,
            Queue(sender),
            std::sync::mpsc::channel().0,
            Default::default(),
        ));
        (Box::pin(run), received)
    }

    /// Waits for `condition`, and fails after the deadline.
    async fn until(what: &str, condition: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !condition() {
            assert!(start.elapsed() < DEADLINE, "{what}");
            tokio::task::yield_now().await;
        }
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie that was not reaped yet is not alive.
        std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
    }

    #[test]
    fn pauses_double_and_are_reset_after_a_long_run() {
        let mut backoff = Backoff::new();
        let pauses: Vec<u128> = (0..8).map(|_| backoff.pause(Duration::ZERO, false).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(backoff.pause(COMMAND_STEADY, false), COMMAND_BACKOFF);
        assert_eq!(backoff.pause(Duration::ZERO, false), COMMAND_BACKOFF * 2);
        // An exit with 0 is not a failure, however short the run.
        let pauses = [true, true, false, false].map(|well| backoff.pause(Duration::ZERO, well));
        assert_eq!(pauses, [1, 1, 1, 2].map(|times| COMMAND_BACKOFF * times));
    }

    #[tokio::test]
    async fn each_line_is_published_also_a_last_one_without_newline() {
        let (mut run, mut received) =
            shell(r"read x; printf 'one\r\nt\377o\n'; echo loud >&2; printf last; exec sleep 600 >&-", 9);
        for expected in ["0:one", "1:t\u{fffd}o", "2:last"] {
            assert_eq!(next(&mut run, &mut received).await, expected);
        }
    }

    #[tokio::test]
    async fn an_ended_command_is_started_again() {
        let (mut run, mut received) = shell("echo $$; exit 3", 9);
        let first = next(&mut run, &mut received).await;
        let second = next(&mut run, &mut received).await;
        assert!(first.starts_with("0:") && second.starts_with("1:"));
        assert_ne!(first[2..], second[2..]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_program_is_tried_again() {
        let directory = TempDir::new().unwrap();
        let program = directory.path().join("later");
        let (mut run, mut received) = command(&[program.to_str().unwrap()], 9);
        assert!(tokio::time::timeout(COMMAND_BACKOFF * 5, &mut run).await.is_err());
        std::os::unix::fs::symlink("/bin/pwd", &program).unwrap();
        tokio::time::resume();
        assert!(next(&mut run, &mut received).await.starts_with("0:/"));
    }

    #[tokio::test]
    async fn background_processes_are_killed_when_the_command_ends_and_its_output_is_published() {
        let (mut run, mut received) = shell("sleep 600 & echo $!; echo bye", 9);
        let left = next(&mut run, &mut received).await[2..].to_owned();
        assert_eq!(next(&mut run, &mut received).await, "1:bye");
        // The next run starts only when the pipes of the first have ended.
        assert!(next(&mut run, &mut received).await.starts_with("2:"));
        assert!(!is_alive(&left));
    }

    #[tokio::test]
    async fn the_whole_group_ends_with_the_feed() {
        let (mut run, mut received) = shell("trap '' TERM INT HUP; sleep 600 & echo $!; echo $$; wait", 9);
        let child = next(&mut run, &mut received).await[2..].to_owned();
        let leader = next(&mut run, &mut received).await[2..].to_owned();
        assert!(is_alive(&child) && is_alive(&leader));
        drop(run);
        until("both have ended", || !is_alive(&child) && !is_alive(&leader)).await;
    }

    // Paused time advances only when all tasks wait: when the deadline passes, nothing moves any more.
    #[tokio::test(start_paused = true)]
    async fn while_the_outlet_is_full_nothing_is_read() {
        let (mut pipe, out) = tokio::io::duplex(1024);
        let (_end, ended) = watch::channel(false);
        let (sender, mut received) = mpsc::channel(1);
        let written = std::cell::Cell::new(0);
        let write = async {
            loop {
                pipe.write_all(format!("{:063}\n", written.get()).as_bytes()).await.unwrap();
                written.set(written.get() + 1);
            }
        };
        let read = each_line(Some(out), 64, ended, async |line: String| sender.send(line).await.unwrap());
        let mut both = std::pin::pin!(async { tokio::join!(write, read) });
        assert!(tokio::time::timeout(DEADLINE, &mut both).await.is_err());
        // The capacity: the pipe, the read buffer, the outlet, and one line before and after them.
        assert!(written.get() <= (1024 + FEED_READ_BYTES) / 64 + 3, "{} lines", written.get());
        for n in 0..2000 {
            tokio::select! {
                line = received.recv() => assert_eq!(line.unwrap(), format!("{n:063}")),
                _ = &mut both => unreachable!(),
            }
        }
    }
}
