//! `pushctl diff`: shows what a reload with another file would change, and when the changes take effect.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::config::location;
use super::fault::Fault;
use super::{CONFIG, Outcome, check, print};
use crate::config::keys::Change;
use crate::config::{self, Difference, Provenance};
use crate::daemon::exit::Exit;

/// When a change takes effect, in the order of the output.
const PARTS: [(Change, &str); 3] = [
    (Change::AtOnce, "At once:"),
    (Change::NewConnections, "For new connections only:"),
    (Change::Restart, "Only by a restart:"),
];

/// The width of the names' column, unless a name is longer.
const COLUMN: usize = 36;

/// Show which keys another configuration would change, and when: at once, for new connections, or by a restart
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// The new configuration
    #[arg(value_name = "NEW")]
    new: PathBuf,

    /// The configuration that pushd runs on
    #[arg(short, long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
}

impl Diff {
    pub fn run(&self) -> Outcome {
        if self.config == Path::new(CONFIG) && !self.config.exists() {
            let message = format!("there is no {CONFIG} to compare with: --config names the file that pushd runs on");
            return Err(Fault::new(Exit::Config, message));
        }
        let (_, now) = check::load_settings(&self.config)?;
        let (_, new) = check::load_settings(&self.new)?;
        print(&report(&config::differences(&now, &new))).map(|()| Exit::Clean.code())
    }
}

fn report(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "Nothing would change.\n".to_owned();
    }
    let mut text = String::new();
    for (change, title) in PARTS {
        let part: Vec<_> = differences.iter().filter(|difference| difference.change == change).collect();
        if part.is_empty() {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{title}");
        for Difference { name, text: what, provenance, .. } in part {
            let at = match provenance {
                Provenance::Default => String::new(),
                Provenance::Line(file, line) => format!("  ({})", location(file, *line)),
            };
            let _ = writeln!(text, "  {name:COLUMN$}  {what}{at}");
        }
    }
    text
}
