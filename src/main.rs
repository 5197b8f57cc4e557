//! The daemon: read the configuration, bind, detach, serve, wait for signals, drain. Each failure has an exit code and
//! a message.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use pushd::cli::Cli;
use pushd::config::limits::{CONFIG_PATIENCE, LOG_CLOSE_TIMEOUT};
use pushd::config::{self, Config};
use pushd::daemon::behalf::Behalf;
use pushd::daemon::detach::{self, StatusPipe, UMASK};
use pushd::daemon::exit::{self, Exit, Failure};
use pushd::daemon::log::{LogContext, LogHandle};
use pushd::daemon::pidfile::{self, Pidfile};
use pushd::daemon::privileges::Identity;
use pushd::daemon::reloads::Reloads;
use pushd::daemon::signals::{Signal, Signals};
use pushd::daemon::{descriptors, journal, notify, successor, timeout};
use pushd::server::rehearsal::{self, Predecessor};
use pushd::server::{BindAs, BindError, Bound, End, Handover, Inherited, ServeError, Server, TRIED};

/// How often the service manager's status line is updated and the shards are checked.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let cli = Cli::read();
    let outcome = match () {
        () if cli.print_default_config => print(config::DEFAULT),
        () if cli.check => check(&cli),
        () if cli.rehearse => rehearse(&cli),
        () => start(&cli),
    };
    match outcome {
        Ok(()) => Exit::Clean.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    exit::print(text).map_err(|error| Failure::io("cannot print", &error))
}

/// Runs every check of a start, and nothing else of it.
fn check(cli: &Cli) -> Result<(), Failure> {
    let config = load(cli)?;
    identity(&config)?;
    print(&format!("{}: the configuration is good\n", config.provenance()))
}

/// Runs the steps of a start that leave no trace, and reports everything that would make it fail.
fn rehearse(cli: &Cli) -> Result<(), Failure> {
    let config = load(cli)?;
    let identity = identity(&config)?;
    if let Some(rundir) = &config.daemon.rundir {
        detach::enter(rundir)?;
    }
    let context = LogContext { foreground: cli.foreground(), prefix: cli.prefix.clone(), behalf: Behalf::default() };
    let log = pushd::daemon::log::rehearse(&config.log, &context);
    let (predecessor, pidfile) = match pidfile::rehearse(&config.daemon.pidfile) {
        Ok(holder) => {
            (holder.map_or(Predecessor::None, |holder| Predecessor::Running(holder.pid.map(Pid::as_raw))), None)
        }
        Err(failure) => (Predecessor::None, Some(failure)),
    };
    let refusals = rehearsal::rehearse(&config, predecessor);
    let refusals = refusals.into_iter().map(|error| refused(&error.into()));
    let failures: Vec<Failure> = pidfile.into_iter().chain(log.err()).chain(refusals).collect();
    match &failures[..] {
        [] => {
            // A process that changes its user must test the files as that user, so it is not done here.
            let unread = if identity.is_none() { rehearsal::unreadable(&config) } else { Vec::new() };
            let unread: String = unread.iter().map(|what| format!("{what}\n")).collect();
            print(&format!("{}: pushd could start with it\n{unread}", config.provenance()))
        }
        [first, ..] => {
            let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
            Err(Failure::new(first.exit, all.join("\n")))
        }
    }
}

/// The configuration made from the file and the command line. Warnings are printed.
fn load(cli: &Cli) -> Result<Config, Failure> {
    let read = if cli.check { config::load_for_another(&cli.config) } else { config::load(&cli.config) };
    let mut config = read.map_err(Failure::from)?;
    for warning in config.warnings.iter().map(ToString::to_string).chain(config.expiring(timeout::seconds_since_1970()))
    {
        journal::print(log::Level::Warn, &warning);
    }
    cli.apply(&mut config)?;
    Ok(config)
}

fn identity(config: &Config) -> Result<Option<Identity>, Failure> {
    let identity = Identity::find(config.daemon.user.as_deref(), config.daemon.group.as_deref())?;
    identity.as_ref().map_or(Ok(()), Identity::check)?;
    Ok(identity)
}

/// The whole life of the process, from the command line to its end.
fn start(cli: &Cli) -> Result<(), Failure> {
    let config = load(cli)?;
    let identity = identity(&config)?;
    if let Some(rundir) = &config.daemon.rundir {
        detach::enter(rundir)?;
    }
    let behalf = Behalf::of(identity.as_ref());
    let pidfile = Pidfile::lock_for(&config.daemon.pidfile, &behalf)?;
    let inherited =
        notify::listen_fds().map_err(|error| Failure::io("cannot take the service manager's sockets", &error))?;
    descriptors::keep_from_children();
    let mut inherited = Inherited::new(inherited.into_iter().map(|passed| (passed.name, passed.socket)));
    // Close the sockets that the configuration no longer names first, so that its new addresses can be bound.
    forget(&inherited.close_unneeded_listeners(&config));
    let mask = config.daemon.umask.or((!cli.foreground()).then_some(UMASK));
    // Set the mask before binding: Unix sockets are files, too.
    detach::mask(mask);
    let mut kept_names = inherited.kept_names().to_vec();
    if !kept_names.is_empty() {
        kept_names.push(TRIED.to_owned());
    }
    let bind_as: BindAs<'_> = &|path, bind| behalf.open(path, bind, |(_, file), uid, gid| file.give(uid, gid));
    let bound = Bound::bind(config.clone(), inherited, bind_as).map_err(|error| refused(&error.into()))?;
    let status = match cli.foreground() {
        true => StatusPipe::none(),
        false => detach::detach(mask.unwrap_or(UMASK))?,
    };
    // From here on this may be the daemon. A failure is reported through the pipe, after the pidfile was released.
    match begin(cli, &config, identity.as_ref(), pidfile, bound) {
        Ok(running) => {
            // This process now holds everything that was passed to it. If the start had failed, the next start would
            // have received it.
            forget(&kept_names);
            running.serve(cli, status);
            Ok(())
        }
        Err(failure) if cli.foreground() => Err(failure),
        Err(failure) => {
            status.fail(&failure);
            std::process::exit(failure.exit.code().into());
        }
    }
}

/// Tells the service manager to drop the descriptors that it keeps under these names.
fn forget(names: &[String]) {
    names.iter().for_each(|name| notify::forget(name));
    if !names.is_empty()
        && let Err(error) = notify::barrier()
    {
        log::debug!("the service manager: {error}");
    }
}

/// Stores a marker with the service manager: this start has begun to take up sessions. It stays until the process
/// serves, see [`TRIED`].
fn mark_attempt() {
    let kept = std::io::pipe().and_then(|(sign, _)| notify::keep(TRIED, sign.as_fd()));
    if let Err(error) = kept {
        log::debug!("the service manager: {error}");
    }
}

/// A process that serves.
struct Running {
    server: Server,
    log: LogHandle,
    /// Dropped before the pidfile: while the pidfile is locked, no other process writes the reload report beside it.
    reloads: Reloads,
    pidfile: Pidfile,
    signals: Signals,
}

/// Starts signal handlers, log, privileges and threads, in this order, so that each failure can still be reported.
fn begin(
    cli: &Cli,
    config: &Config,
    identity: Option<&Identity>,
    mut pidfile: Pidfile,
    bound: Bound,
) -> Result<Running, Failure> {
    let signals = Signals::install().map_err(|error| Failure::io("cannot install signal handlers", &error))?;
    let context = LogContext { foreground: cli.foreground(), prefix: cli.prefix.clone(), behalf: Behalf::of(identity) };
    let log = pushd::daemon::log::init(&config.log, context)?;
    pushd::server::write_access_log(log.access());
    identity.map_or(Ok(()), Identity::assume)?;
    log::info!("pushd {} starting, configuration {}", env!("CARGO_PKG_VERSION"), config.provenance());
    config.warnings.iter().for_each(|warning| log::warn!("{}", warning.summary()));
    if bound.takes_up() {
        mark_attempt();
    }
    let server = bound.serve().map_err(|error| {
        // The taken-up sessions did not cause this failure, so the next start may try them again.
        notify::forget(TRIED);
        refused(&error)
    })?;
    // Before the PID is written: a process that reads the PID may ask for a reload at once.
    let reloads = Reloads::new(pidfile.path(), &cli.config);
    match pidfile.write() {
        Ok(()) => Ok(Running { server, log, reloads, pidfile, signals }),
        Err(failure) => {
            // The commands of its feeds run already. Stop them, or they would outlive this process.
            server.drain(End::Restart);
            Err(failure)
        }
    }
}

fn refused(error: &ServeError) -> Failure {
    let exit = match error {
        ServeError::Bind(BindError { error, .. }) | ServeError::System(error) => Exit::of_error(error),
        ServeError::Store(error) if error.kind == std::io::ErrorKind::PermissionDenied => Exit::NoPermission,
        ServeError::Store(_) => Exit::CannotCreate,
    };
    Failure::new(exit, error.to_string())
}

impl Running {
    /// Serves until a signal ends it.
    fn serve(mut self, cli: &Cli, status: StatusPipe) {
        notify::ready(&self.server.status());
        status.ready();
        let mut turns = Vec::new();
        let mut look_due = Instant::now() + STATUS_INTERVAL;
        let order = loop {
            // Check the shards on time even when signals arrive all the time.
            if Instant::now() >= look_due {
                self.look(&mut turns);
                look_due = Instant::now() + STATUS_INTERVAL;
            }
            match self.signals.wait_until(look_due) {
                Some(order @ (Signal::Shutdown(_) | Signal::HandOver)) => break order,
                Some(Signal::Reload) => self.reload(cli, &mut turns),
                Some(Signal::Reopen) => self.log.reopen(),
                None => {}
            }
        };
        notify::stopping();
        let cut = match order {
            Signal::Shutdown(name) => {
                log::info!("Received {name}, shutting down");
                self.server.drain(End::Stop)
            }
            _ => hand_over(self.server, cli),
        };
        if cut > 0 {
            log::warn!("{cut} connections did not end within the grace and were cut off");
        }
        log::info!("Server Shut Down");
        self.log.close(LOG_CLOSE_TIMEOUT);
        drop(self.reloads);
        drop(self.pidfile);
    }

    /// Checks the shards and reports to the service manager. `turns` holds the number of turns of each shard at the
    /// last check.
    fn look(&mut self, turns: &mut Vec<u64>) {
        self.server.renew_certificates();
        if !self.server.all_shards_run() {
            log::error!("a shard or a thread of the store has ended unexpectedly, so the process exits");
            self.log.flush(LOG_CLOSE_TIMEOUT);
            std::process::exit(Exit::System.code().into());
        }
        notify::status(&self.server.status());
        // The watchdog message proves progress: it is sent only if every shard took a turn since the last check.
        let taken = self.server.turns();
        if taken.iter().zip(&*turns).all(|(now, before)| now > before) {
            notify::watchdog();
        }
        *turns = taken;
    }

    /// SIGHUP: applies the whole file, or changes nothing.
    fn reload(&mut self, cli: &Cli, turns: &mut Vec<u64>) {
        notify::reloading();
        self.reloads.begin();
        let outcome = self.try_reload(cli, turns).map(|fixed| {
            let what = self.server.config().provenance();
            log::info!("Reloaded {what}");
            match fixed.is_empty() {
                true => what,
                false => format!("{what}\nchanged only by a restart: {}", fixed.join(", ")),
            }
        });
        if let Err(why) = &outcome {
            log::error!("Reload refused, nothing changed: {why}");
        }
        self.reloads.end(&outcome);
        notify::ready(&self.server.status());
    }

    /// Reloads, and returns the settings that only a restart can change.
    fn try_reload(&mut self, cli: &Cli, turns: &mut Vec<u64>) -> Result<Vec<String>, Failure> {
        let mut look_due = Instant::now() + STATUS_INTERVAL;
        let config = read_again(cli, || {
            if Instant::now() >= look_due {
                self.look(turns);
                look_due = Instant::now() + STATUS_INTERVAL;
            }
            !self.signals.is_end_asked()
        })?;
        let old_log = self.server.config().log.clone();
        self.log.reconfigure(&config.log)?;
        for warning in &config.warnings {
            log::warn!("{}", warning.summary());
        }
        match self.server.reload(config) {
            Ok(fixed) => {
                if !fixed.is_empty() {
                    log::warn!("changed only by a restart: {}", fixed.join(", "));
                }
                Ok(fixed)
            }
            Err(error) => {
                let refused = refused(&error);
                // The old target was open a moment ago. If it cannot be opened again, the log stays with the new
                // target.
                match self.log.reconfigure(&old_log) {
                    Ok(()) => Err(refused),
                    Err(failure) => Err(Failure::new(refused.exit, format!("{refused}; and {failure}"))),
                }
            }
        }
    }
}

/// Reads the configuration again. On failure, the error names all that is wrong with it in one line. The file system
/// may not answer, so the wait ends when `goes_on` returns false, and after [`CONFIG_PATIENCE`].
fn read_again(cli: &Cli, goes_on: impl FnMut() -> bool) -> Result<Config, Failure> {
    let path = cli.config.clone();
    let read = timeout::within(CONFIG_PATIENCE, move || config::load_again(&path), goes_on);
    let unread = |error| Failure::new(Exit::Config, format!("{} cannot be read: {error}", cli.config.display()));
    let mut config = read.map_err(unread)?.map_err(|errors| {
        let all: Vec<&str> = errors.0.iter().map(config::Diagnostic::summary).collect();
        Failure::new(Exit::of_errors(&errors), all.join("; "))
    })?;
    cli.apply(&mut config)?;
    Ok(config)
}

/// SIGUSR2: hands the sessions to the next process. If that is impossible, clients are asked to reconnect. Returns the
/// number of connections that were cut off.
fn hand_over(mut server: Server, cli: &Cli) -> usize {
    log::info!("Received SIGUSR2, handing over");
    let why = match try_hand_over(&mut server, cli) {
        Ok(handover) => {
            let (sessions, idle, listeners) = (handover.sessions(), handover.idle(), handover.listeners());
            log::info!(
                "Handed over {sessions} sessions, {idle} other connections and {listeners} addresses to the next process"
            );
            let (left_out, unfinished) = (handover.left_out(), handover.unfinished);
            if left_out + unfinished > 0 {
                log::warn!(
                    "not handed over: {left_out} sessions, {unfinished} requests that were not finished in time"
                );
            }
            return server.leave(&handover);
        }
        Err(why) => why,
    };
    log::warn!("Nothing is handed over, clients are asked to reconnect: {why}");
    server.resume();
    server.drain(End::Restart)
}

fn try_hand_over(server: &mut Server, cli: &Cli) -> Result<Handover, String> {
    if !notify::keeps_descriptors() {
        return Err("there is no service manager to keep them".to_owned());
    }
    let verdict = successor::check(&cli.config)
        .unwrap_or_else(|| read_again(cli, || true).map(drop).map_err(|failure| failure.to_string()));
    verdict.map_err(|why| format!("the next process could not start with its configuration: {why}"))?;
    let mut handover = server.hand_over()?;
    let names: BTreeSet<String> = handover.descriptors().map(|(name, _)| name).collect();
    let kept = give(&mut handover);
    if kept.is_err() {
        names.iter().for_each(|name| notify::forget(name));
    }
    kept.map(|()| handover)
}

/// Gives everything to the service manager and checks that it keeps it.
fn give(handover: &mut Handover) -> Result<(), String> {
    for (name, descriptor) in handover.descriptors() {
        notify::keep(&name, descriptor)
            .map_err(|error| format!("cannot pass {name} to the service manager: {error}"))?;
    }
    notify::barrier().map_err(|error| error.to_string())?;
    match handover.release_pipes() {
        true => Ok(()),
        false => Err("the service manager does not keep descriptors (FileDescriptorStoreMax=)".to_owned()),
    }
}
