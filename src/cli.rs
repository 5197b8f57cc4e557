//! The command line of `pushd`: its options, and how they change a configuration.
//!
//! The options are those of twistd. They override the file, at the start and at each reload.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::config::{Config, LogTarget};
use crate::daemon::exit::{Exit, Failure};
use crate::daemon::usage;

/// The configuration file, unless `-c` names another.
pub const CONFIG: &str = "/etc/pushd/config.toml";

const EXAMPLES: &str = "\
Examples:
  pushd                              serve /etc/pushd/config.toml, in the background
  pushd -n -c hub.toml               stay in the foreground, log to the terminal
  pushd --check -c hub.toml          report everything wrong with the file
  pushd --print-default-config       print a commented file to start from
  pushd -c hub.toml -d /srv/push -u www-data -l push.log

In bash and zsh, `pushd` is a command of the shell: use `env pushd`, or the path.

Signals: INT, TERM end gracefully, a second one at once; HUP reloads; USR1 reopens the log; USR2 hands the clients \
over for a restart by systemd.

Exit codes: 0 clean; 1 a second signal; 64 usage; 69 a port is taken or another pushd runs; 71 the system refused; \
73 cannot create a file; 77 no permission; 78 bad configuration.";

/// A push server: WebSocket and HTTP publish in, everything out to browsers.
#[derive(Debug, Clone, Parser)]
#[command(name = "pushd", bin_name = "pushd", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Read the configuration from FILE
    // Absolute once parsed.
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,

    /// Stay in the foreground; log to standard error by default
    #[arg(short, long)]
    pub nodaemon: bool,

    /// Log to FILE, relative to the run directory; "-" is standard output (foreground only)
    #[arg(short, long, value_name = "FILE", conflicts_with = "syslog")]
    pub logfile: Option<PathBuf>,

    /// Write the process ID to FILE, relative to the run directory
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,

    /// Change to DIR before pidfile and log are opened
    #[arg(short = 'd', long, value_name = "DIR")]
    pub rundir: Option<PathBuf>,

    /// File mode creation mask [default: 077 as a daemon, else inherited]
    #[arg(long, value_name = "OCTAL", value_parser = parse_umask)]
    pub umask: Option<u32>,

    /// Switch to USER (name or number) once the ports are bound
    #[arg(short, long, value_name = "USER")]
    pub uid: Option<String>,

    /// Switch to GROUP (name or number) [default: the user's own]
    #[arg(short, long, value_name = "GROUP")]
    pub gid: Option<String>,

    /// Log to the system logger
    #[arg(long)]
    pub syslog: bool,

    /// Program name in the system log
    #[arg(long, value_name = "NAME", default_value = "pushd")]
    pub prefix: String,

    /// Foreground, level debug, log to the terminal
    #[arg(long)]
    pub debug: bool,

    /// Report everything wrong with the configuration and exit
    #[arg(long)]
    pub check: bool,

    /// Report everything that would keep pushd from starting (or from restarting, if it runs already) and exit; start
    /// nothing
    #[arg(long, conflicts_with = "check")]
    pub rehearse: bool,

    /// Print the commented default configuration and exit
    #[arg(long, conflicts_with_all = ["check", "rehearse"])]
    pub print_default_config: bool,
}

impl Cli {
    /// The command line of this process. Help and version are printed and end the process with 0, a mistake ends it with 64.
    pub fn read() -> Cli {
        match Cli::from_args(std::env::args_os()) {
            Ok(cli) => cli,
            Err(error) => {
                // A failure to print does not change the code.
                let _ = error.print();
                std::process::exit(exit_of(&error).code().into());
            }
        }
    }

    /// Parses `args`; the first is the name of the program.
    pub fn from_args<I, T>(args: I) -> Result<Cli, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        let mut cli = Cli::try_parse_from(args).map_err(usage::with_tip)?;
        // It is read again at a reload, when the current directory is another. (An empty path can neither be made absolute nor read.)
        cli.config = std::path::absolute(&cli.config).unwrap_or(cli.config);
        if cli.log_target() == Some(LogTarget::Stdout) && !cli.foreground() {
            let message = "--logfile - is standard output, which a daemon does not have: add --nodaemon";
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(cli)
    }

    /// Whether the process stays in the foreground.
    pub fn foreground(&self) -> bool {
        self.nodaemon || self.debug
    }

    /// Overrides the configuration with the options. Fails if the result is contradictory.
    pub fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        let daemon = &mut config.daemon;
        if let Some(pidfile) = &self.pidfile {
            daemon.pidfile.clone_from(pidfile);
        }
        override_with(&mut daemon.rundir, &self.rundir);
        override_with(&mut daemon.umask, &self.umask);
        if self.uid.is_some() {
            // The group in the file belongs to the user in the file.
            daemon.group = None;
        }
        override_with(&mut daemon.user, &self.uid);
        override_with(&mut daemon.group, &self.gid);
        override_with(&mut config.log.target, &self.log_target());
        if self.debug {
            config.log.level = log::LevelFilter::Debug;
        }
        let stream = matches!(config.log.target, Some(LogTarget::Stderr | LogTarget::Stdout));
        if stream && !self.foreground() {
            let message = "[log] file is a standard stream, which a daemon does not have: \
                           name a file or \"syslog\", or stay in the foreground with --nodaemon";
            return Err(Failure::new(Exit::Config, message));
        }
        Ok(())
    }

    /// Where the options direct the log, if they do.
    fn log_target(&self) -> Option<LogTarget> {
        match &self.logfile {
            _ if self.syslog => Some(LogTarget::Syslog),
            Some(path) if path.as_os_str() == "-" => Some(LogTarget::Stdout),
            Some(path) => Some(LogTarget::File(path.clone())),
            None if self.debug => Some(LogTarget::Stderr),
            None => None,
        }
    }
}

/// The exit code for an error of clap. Help and version are not mistakes.
pub fn exit_of(error: &clap::Error) -> Exit {
    if error.use_stderr() { Exit::Usage } else { Exit::Clean }
}

fn override_with<T: Clone>(from_file: &mut Option<T>, option: &Option<T>) {
    if option.is_some() {
        from_file.clone_from(option);
    }
}

fn parse_umask(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mask) if mask <= 0o777 && !digits.starts_with('+') => Ok(mask),
        _ => Err("must be an octal number from 0 to 777, such as 027".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Daemon, Log, Store};

    fn read(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::from_args([&["pushd"], args].concat())
    }

    fn file() -> Config {
        Config {
            daemon: Daemon {
                pidfile: "file.pid".into(),
                user: Some("alice".to_string()),
                group: Some("staff".to_string()),
                umask: Some(0o022),
                ..Daemon::default()
            },
            log: Log { level: log::LevelFilter::Warn, ..Log::default() },
            store: Store::default(),
            servers: Vec::new(),
            hubs: Vec::new(),
            feeds: Vec::new(),
            hooks: Vec::new(),
            files: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn applied(args: &[&str]) -> Config {
        let mut config = file();
        read(args).unwrap().apply(&mut config).unwrap();
        config
    }

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_options_the_file_is_not_changed() {
        assert_eq!(applied(&[]), file());
        let cli = read(&[]).unwrap();
        assert_eq!(cli.config, Path::new("/etc/pushd/config.toml"));
        assert_eq!(cli.prefix, "pushd");
        assert!(!cli.foreground());
    }

    #[test]
    fn the_path_of_the_file_is_made_absolute() {
        let here = std::env::current_dir().unwrap();
        assert_eq!(read(&["-c", "hub.toml"]).unwrap().config, here.join("hub.toml"));
    }

    #[test]
    fn options_override_the_file() {
        let config = applied(&["--pidfile", "p", "-d", "/srv", "--umask", "027", "-u", "bob", "-l", "x.log"]);
        assert_eq!(config.daemon.pidfile, Path::new("p"));
        assert_eq!(config.daemon.rundir.as_deref(), Some(Path::new("/srv")));
        assert_eq!(config.daemon.umask, Some(0o027));
        assert_eq!((config.daemon.user.as_deref(), config.daemon.group.as_deref()), (Some("bob"), None));
        assert_eq!(config.log.target, Some(LogTarget::File("x.log".into())));
        let config = applied(&["-g", "www"]);
        assert_eq!((config.daemon.user.as_deref(), config.daemon.group.as_deref()), (Some("alice"), Some("www")));
        assert_eq!(applied(&["--syslog", "--prefix", "mine"]).log.target, Some(LogTarget::Syslog));
    }

    #[test]
    fn the_log_goes_where_the_options_direct_it() {
        assert_eq!(applied(&["-n"]).log.target, None);
        assert_eq!(applied(&["-n", "-l", "-"]).log.target, Some(LogTarget::Stdout));
        assert_eq!(applied(&["-nl-"]).log.target, Some(LogTarget::Stdout));
        let debug = applied(&["--debug"]).log;
        assert_eq!((debug.target, debug.level), (Some(LogTarget::Stderr), log::LevelFilter::Debug));
        assert_eq!(applied(&["--debug", "-l", "x"]).log.target, Some(LogTarget::File("x".into())));
        let mut config = file();
        config.log.target = Some(LogTarget::Syslog);
        read(&["-n"]).unwrap().apply(&mut config).unwrap();
        assert_eq!(config.log.target, Some(LogTarget::Syslog));
        read(&["--debug"]).unwrap().apply(&mut config).unwrap();
        assert_eq!(config.log.target, Some(LogTarget::Stderr));
    }

    #[test]
    fn a_daemon_cannot_log_to_a_standard_stream() {
        assert_eq!(exit_of(&read(&["-l", "-"]).unwrap_err()), Exit::Usage);
        let mut config = file();
        config.log.target = Some(LogTarget::Stderr);
        assert_eq!(read(&[]).unwrap().apply(&mut config).unwrap_err().exit, Exit::Config);
        read(&["-n"]).unwrap().apply(&mut config).unwrap();
    }

    #[test]
    fn a_mistake_is_code_64_and_help_is_code_0() {
        for args in [
            &["--no-such-switch"][..],
            &["stray"],
            &["--umask", "8"],
            &["--umask", "7777"],
            &["--umask", "+7"],
            &["--syslog", "-l", "x"],
            &["-c"],
        ] {
            assert_eq!(exit_of(&read(args).unwrap_err()), Exit::Usage, "{args:?}");
        }
        for args in [["--help"], ["--version"], ["-h"]] {
            assert_eq!(exit_of(&read(&args).unwrap_err()), Exit::Clean, "{args:?}");
        }
        assert_eq!(read(&["--version"]).unwrap_err().to_string(), format!("pushd {}\n", env!("CARGO_PKG_VERSION")));
    }
}
