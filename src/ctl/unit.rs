//! The systemd unit that runs pushd, and a rehearsal of its start.
//!
//! Whether pushd can start depends on the settings of its unit: another user, a file system without /home, no ports
//! below 1024. So the start is rehearsed under these settings. The `[Service]` section of the unit (from `systemctl
//! cat`: the file and its drop-ins, in order) becomes a temporary unit, in which pushd runs with `--rehearse` and ends.
//! The service itself is not touched. This needs root, and a running systemd.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Uid;

use super::fault::Fault;
use crate::daemon::exit::Exit;

/// The services of the packages.
const UNITS: [&str; 2] = ["pushd.service", "pushd-socket.service"];
/// This directory exists if systemd runs.
const SYSTEMD: &str = "/run/systemd/system";
/// Settings that the rehearsal replaces: no other commands, nothing permanent. And its end must not remove the
/// service's runtime directory.
const OVERRIDES: &str = "Type=oneshot\nRemainAfterExit=no\nRestart=no\nTimeoutStartSec=30s\nWatchdogSec=0\nRuntimeDirectoryPreserve=yes\n\
    ExecCondition=\nExecStartPre=\nExecStartPost=\nExecReload=\nExecStop=\nExecStopPost=\nStandardInput=null\n";
/// Settings of a unit that may hide something from pushd or forbid it.
const RESTRICTIONS: [&str; 14] = [
    "User",
    "Group",
    "DynamicUser",
    "ProtectHome",
    "ProtectSystem",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateUsers",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "RootDirectory",
    "RootImage",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
];

/// A unit that starts pushd.
#[derive(Debug)]
pub(super) struct Unit {
    name: String,
    /// The lines of `[Service]`, with continued lines joined.
    service: Vec<String>,
}

/// The outcome of a rehearsal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rehearsal {
    /// The unit could be started. The list names files that could not be read.
    Good(Vec<String>),
    /// The unit could not be started: the exit code, and why.
    Refused(u8, String),
}

impl Unit {
    /// The unit with that name.
    pub fn named(name: &str) -> Result<Unit, Fault> {
        if !Uid::effective().is_root() {
            let message = format!(
                "only root can rehearse a start of {name}, because its unit may change the user and hide files"
            );
            return Err(Fault::new(Exit::NoPermission, message));
        }
        if !Path::new(SYSTEMD).is_dir() {
            return Err(Fault::new(Exit::Unavailable, format!("systemd does not run here, so nothing starts {name}")));
        }
        let (good, text) = systemctl(&["cat", "--no-pager", "--", name])?;
        match good {
            true => Ok(Unit { name: name.to_owned(), service: service(&text) }),
            false => Err(Fault::failed(format!("there is no unit {name} (`systemctl cat`)"))),
        }
    }

    /// The packaged unit that would run `file`, if there is one. Of two, the one that is active, or else the one that
    /// is enabled.
    pub fn that_runs(file: &Path) -> Option<Unit> {
        if !Uid::effective().is_root() || !Path::new(SYSTEMD).is_dir() {
            return None;
        }
        let is = |what: &str, unit: &Unit| systemctl(&[what, "--quiet", "--", &unit.name]).is_ok_and(|(good, _)| good);
        let units = || UNITS.iter().filter_map(|name| Unit::named(name).ok()).filter(|unit| unit.starts_with(file));
        let runs = units().find(|unit| is("is-active", unit));
        runs.or_else(|| units().find(|unit| is("is-enabled", unit)))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings that may hide something from pushd or forbid it, as the unit has them.
    pub fn restrictions(&self) -> Vec<&str> {
        let is_one = |line: &&String| line.split_once('=').is_some_and(|(key, _)| RESTRICTIONS.contains(&key.trim()));
        self.service.iter().filter(is_one).map(String::as_str).collect()
    }

    /// The effective command: the last one, because an empty one resets the list.
    fn start(&self) -> Option<&str> {
        self.service.iter().filter_map(|line| line.strip_prefix("ExecStart=")).next_back().map(str::trim)
    }

    fn starts_with(&self, file: &Path) -> bool {
        let is_file = |word: &str| Path::new(word.trim_matches(['"', '\''])) == file;
        self.start().is_some_and(|start| start.split_whitespace().any(is_file))
    }

    /// Rehearses a start.
    ///
    /// # Errors
    /// The rehearsal was not possible.
    pub fn rehearse(&self) -> Result<Rehearsal, Fault> {
        let start = self.start().filter(|start| is_pushd(start)).ok_or_else(|| {
            Fault::failed(format!("cannot rehearse {}: its ExecStart= is not pushd itself", self.name))
        })?;
        let trial = Trial::new().map_err(|error| Fault::io("cannot make a unit for the rehearsal", &error))?;
        let [answer, said] = ["answer", "said"].map(|name| trial.directory.join(name));
        let text = format!(
            "[Unit]\nDescription=Rehearsal of {}\n[Service]\n{}\n{OVERRIDES}ExecStart=\nExecStart={start} --rehearse\n\
             StandardOutput=append:{}\nStandardError=append:{}\n",
            self.name,
            self.service.join("\n"),
            answer.display(),
            said.display(),
        );
        fs::write(trial.file(), text).map_err(|error| Fault::io("cannot make a unit for the rehearsal", &error))?;
        let (good, why) = systemctl(&["start", "--", &trial.name])?;
        let read = |file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).trim_end().to_owned();
        if good {
            return Ok(Rehearsal::Good(read(answer).lines().skip(1).map(ToOwned::to_owned).collect()));
        }
        let said = read(said);
        let (_, status) = systemctl(&["show", "--value", "--property=ExecMainStatus", "--", &trial.name])?;
        Ok(match status.trim().parse::<u8>() {
            Ok(code) if Exit::from_code(code).is_some_and(|exit| exit != Exit::Clean) && !said.is_empty() => {
                Rehearsal::Refused(code, said)
            }
            Ok(code) if code > 0 => {
                let more = if said.is_empty() { String::new() } else { format!("\n{said}") };
                Rehearsal::Refused(super::FAILED, format!("systemd: {}{more}", of_systemd(code)))
            }
            _ => Rehearsal::Refused(super::FAILED, format!("systemd: {}", why.trim_end())),
        })
    }
}

/// The temporary unit of a rehearsal, and its output. Removed on drop.
struct Trial {
    name: String,
    directory: PathBuf,
}

impl Trial {
    fn new() -> io::Result<Trial> {
        let name = format!("pushctl-rehearsal-{}", std::process::id());
        let directory = Path::new("/run").join(&name);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::DirBuilder::new().mode(0o700).create(&directory)?,
        }
        Ok(Trial { name: format!("{name}.service"), directory })
    }

    fn file(&self) -> PathBuf {
        Path::new(SYSTEMD).join(&self.name)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // If something remains in /run, the next boot removes it.
        let _ = systemctl(&["reset-failed", "--", &self.name]);
        let _ = fs::remove_file(self.file());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Runs systemctl. Returns whether it succeeded, and its output.
fn systemctl(words: &[&str]) -> Result<(bool, String), Fault> {
    let ran = Command::new("systemctl").args(words).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| Fault::io("cannot run systemctl", &error))?;
    let said = if ran.status.success() { ran.stdout } else { [ran.stdout, ran.stderr].concat() };
    Ok((ran.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// The lines of `[Service]` in the text of a unit, with continued lines joined.
fn service(text: &str) -> Vec<String> {
    let (mut lines, mut inside, mut begun) = (Vec::new(), false, String::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(begin) = line.strip_suffix('\\') {
            begun += begin;
            begun.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut begun) + line;
        match whole.strip_prefix('[').and_then(|title| title.strip_suffix(']')) {
            Some(title) => inside = title == "Service",
            None if inside && !whole.is_empty() => lines.push(whole),
            None => {}
        }
    }
    lines
}

/// Whether a command is pushd itself, and not a shell, which would get the option `--rehearse` instead.
fn is_pushd(start: &str) -> bool {
    let program = start.trim_start_matches(['@', '-', ':', '+', '!']).split_whitespace().next();
    program.is_some_and(|program| Path::new(program).file_name().is_some_and(|name| name == "pushd"))
}

/// The meaning of an exit code of systemd, for a program that it could not start.
fn of_systemd(code: u8) -> String {
    let why = match code {
        // A missing library, or one of the wrong version, is reported by the loader.
        1..=127 => return format!("the program ended with exit code {code}"),
        200 => "the working directory cannot be entered (200/CHDIR)",
        203 => "the program cannot be executed (203/EXEC)",
        216 => "the group does not exist (216/GROUP)",
        217 => "the user does not exist (217/USER)",
        226 => "its view of the file system cannot be made (226/NAMESPACE)",
        243 => "a credential cannot be loaded (243/CREDENTIALS)",
        _ => return format!("exit code {code}; systemd.exec(5) lists them under \"Process Exit Codes\""),
    };
    why.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# /usr/lib/systemd/system/pushd.service\n[Unit]\nConflicts=other.service\n\n[Service]\nType=notify\n\
        ExecStart=/usr/bin/pushd -n \\\n# between\n  -c /etc/pushd/config.toml\n; a comment\nUser=pushd\n[Install]\nWantedBy=x\n\
        \n# /etc/systemd/system/pushd.service.d/mine.conf\n[Service]\nProtectHome=read-only\n";

    fn unit(text: &str) -> Unit {
        Unit { name: "pushd.service".into(), service: service(text) }
    }

    #[test]
    fn a_unit_consists_of_its_service_lines_in_order() {
        let unit = unit(TEXT);
        let start = "ExecStart=/usr/bin/pushd -n  -c /etc/pushd/config.toml";
        assert_eq!(unit.service, ["Type=notify", start, "User=pushd", "ProtectHome=read-only"]);
        assert!(unit.starts_with(Path::new("/etc/pushd/config.toml")));
        assert!(!unit.starts_with(Path::new("/etc/pushd/other.toml")));
        assert_eq!(unit.restrictions(), ["User=pushd", "ProtectHome=read-only"]);
    }

    #[test]
    fn the_last_command_is_used_and_must_be_pushd() {
        let other = unit(&format!("{TEXT}ExecStart=\nExecStart=-/opt/pushd -n -c \"/srv/x.toml\"\n"));
        assert!(other.starts_with(Path::new("/srv/x.toml")) && is_pushd(other.start().unwrap()));
        for shell in ["/bin/sh -c 'exec /usr/bin/pushd -n'", "/usr/bin/env pushd", "/usr/bin/pushd2", ""] {
            assert!(!is_pushd(shell), "{shell}");
        }
        let wrapped = unit("[Service]\nExecStart=/bin/sh -c 'exec pushd -n'\n");
        assert!(wrapped.rehearse().unwrap_err().message.contains("not pushd itself"));
    }

    #[test]
    fn the_packaged_units_can_be_rehearsed() {
        for text in [
            include_str!("../../packaging/systemd/pushd.service"),
            include_str!("../../packaging/systemd/pushd-socket.service"),
        ] {
            let unit = unit(text);
            assert!(unit.service.len() > 40, "{:?}", unit.service);
            assert!(unit.starts_with(Path::new(super::super::CONFIG)) && is_pushd(unit.start().unwrap()));
            assert!(unit.restrictions().contains(&"ProtectHome=yes"));
        }
    }
}
