//! `pushctl config show`: prints every key with its effective value and where it is set, as a valid configuration file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{CONFIG, Outcome, check, print};
use crate::config::keys::Fallback;
use crate::config::{Provenance, Setting, Settings};
use crate::daemon::exit::Exit;

/// The column of comments, unless a value reaches beyond it.
const COLUMN: usize = 40;

/// Look at a configuration as a whole: the file, its drop-ins and the defaults
#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(Show),
}

/// Print the effective value of every key, and where it is set
#[derive(Debug, Args)]
struct Show {
    /// The configuration
    #[arg(value_name = "FILE", default_value = CONFIG)]
    file: PathBuf,
}

impl Config {
    pub fn run(&self) -> Outcome {
        let Command::Show(show) = &self.command;
        let (config, settings) = check::load_settings(&show.file)?;
        let head = format!(
            "# {}: every key with its effective value, and where it is set.\n\
             # Options on pushd's command line override these values.\n",
            config.provenance()
        );
        let tables: String = settings.iter().map(table).collect();
        print(&(head + &tables)).map(|()| Exit::Clean.code())
    }
}

fn table(table: &Settings) -> String {
    let mut text = "\n".to_owned();
    line(&mut text, &format!("[{}]", table.name()), &provenance(&table.provenance));
    for setting in &table.keys {
        key(&mut text, setting);
    }
    text
}

fn key(text: &mut String, setting: &Setting) {
    let name = setting.key.name;
    match (&setting.value, setting.key.fallback) {
        (Some(value), _) => line(text, &format!("{name} = {value}"), &provenance(&setting.provenance)),
        (None, Fallback::Nothing(meaning)) => line(text, &format!("#{name}"), &format!("not set: {meaning}")),
        (None, _) => line(text, &format!("#{name}"), "not set"),
    }
}

fn line(text: &mut String, said: &str, comment: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{said:COLUMN$} # {comment}");
}

fn provenance(provenance: &Provenance) -> String {
    match provenance {
        Provenance::Default => "default".to_owned(),
        Provenance::Line(file, line) => location(file, *line),
    }
}

/// A line of a file, in the form that editors and compilers use.
pub(super) fn location(file: &Path, line: usize) -> String {
    // A file name may contain control characters; a comment ends with its line.
    let name: String = file.display().to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("{name}:{line}")
}
