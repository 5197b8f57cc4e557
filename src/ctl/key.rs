//! `pushctl key new`: makes a secret, and says what to write where.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};

use super::fault::Fault;
use super::{Outcome, print};
use crate::daemon::exit::Exit;

/// Bytes of a secret: as many as it takes that guessing is hopeless, and as many as HS256 wants (RFC 7518, section 3.2).
const SECRET_BYTES: usize = 32;

const EXAMPLES: &str = "\
Examples:
  pushctl key new                                 backend.key, in this directory
  sudo pushctl key new site --file /etc/pushd/site.key";

/// Make a secret for a key or for tokens
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct KeyCommand {
    /// The file, which must not exist [default: NAME.key]
    #[arg(long, value_name = "FILE", global = true)]
    file: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a new secret to a file that only this user can read, and print what to write into the configuration
    New {
        /// The name of the key in the configuration
        #[arg(default_value = "backend")]
        name: String,
    },
}

impl KeyCommand {
    pub fn run(&self) -> Outcome {
        let Command::New { name } = &self.command;
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(is_good) {
            let message = format!("'{name}' is not a name: use letters, digits, `_` and `-`");
            return Err(Fault::new(Exit::Usage, message));
        }
        let file = self.file.clone().unwrap_or_else(|| format!("{name}.key").into());
        write_new(&file, &secret()?)?;
        print(&advice(name, &std::path::absolute(&file).unwrap_or(file)))?;
        Ok(Exit::Clean.code())
    }
}

/// A new secret, as text.
fn secret() -> Result<String, Fault> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = aws_lc_rs::rand::fill(&mut bytes);
    filled.map_err(|_| Fault::new(Exit::System, "the system gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Writes the secret to a file that did not exist.
fn write_new(file: &Path, secret: &str) -> Result<(), Fault> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut made = made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let message = format!("{} exists already, and was not changed: name another file", file.display());
            Fault::new(Exit::CannotCreate, message)
        }
        _ => Fault::io(format!("cannot create {}", file.display()), &error),
    })?;
    let written = writeln!(made, "{secret}").and_then(|()| made.sync_all());
    written.map_err(|error| Fault::io(format!("cannot write {}", file.display()), &error))
}

fn advice(name: &str, file: &Path) -> String {
    let file = file.display();
    format!(
        "The secret is in {file}, which only this user can read.

In the configuration:
  [key.{name}]
  secret = {{ file = \"{file}\" }}
and at the route:
  \"/publish/{{channel}}\" = {{ publish = \"HUB\", channel = \"{{channel}}\", keys = [\"{name}\"] }}

pushd must be able to read it. As a service, let systemd pass it on: `systemctl edit pushd`, with
  [Service]
  LoadCredential={name}.key:{file}
and in the configuration: secret = {{ credential = \"{name}.key\" }}

A program shows it:
  curl -H \"Authorization: Bearer $(cat {file})\" -d Hello http://127.0.0.1:8888/publish/news
  pushctl publish --key-file {file} news Hello
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_and_differ() {
        let (one, other) = (secret().unwrap(), secret().unwrap());
        assert_eq!(one.len(), 43);
        assert_ne!(one, other);
    }
}
