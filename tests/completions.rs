//! The packaged completions are the output of `pushctl completions`, and contain every command.
//!
//! `.ci/run completions` tests them in the shells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHIPPED: [(&str, &str); 3] = [("bash", "pushctl.bash"), ("zsh", "_pushctl"), ("fish", "pushctl.fish")];

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/completions").join(name)
}

fn pushctl(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pushctl")).args(arguments).output().unwrap();
    assert!(output.status.success(), "pushctl {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_packaged_files_are_the_programs_output() {
    for (shell, name) in SHIPPED {
        let printed = pushctl(&["completions", shell]);
        if std::env::var_os("PUSHD_BLESS").is_some() {
            std::fs::write(file(name), &printed).unwrap();
        }
        assert!(std::fs::read_to_string(file(name)).unwrap_or_default() == printed, "{name}: run with PUSHD_BLESS=1");
    }
    let shipped = file("").read_dir().unwrap().count();
    assert_eq!(shipped, SHIPPED.len(), "a file that no test covers");
}

#[test]
fn each_script_contains_every_command() {
    let help = pushctl(&["--help"]);
    let listed = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let commands = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands: Vec<&str> = commands.filter(|name| !name.is_empty()).collect();
    assert!(commands.contains(&"reload") && commands.len() > 8, "{help}");
    for (shell, _) in SHIPPED {
        let script = pushctl(&["completions", shell]);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

/// A plain `pushd` is the shell's built-in command, and completes directories.
#[test]
fn the_shells_builtin_pushd_is_not_changed() {
    for (shell, _) in SHIPPED {
        let script = pushctl(&["completions", shell]);
        let registering = script
            .lines()
            .map(str::trim_start)
            .filter(|line| ["complete ", "compdef ", "#compdef "].iter().any(|start| line.starts_with(start)));
        let words: BTreeSet<&str> = registering
            .map(|line| match line.split_once("complete -c ") {
                Some((_, rest)) => rest.split(' ').next().unwrap(),
                None => line.rsplit(' ').next().unwrap(),
            })
            .collect();
        assert_eq!(words, BTreeSet::from(["pushctl"]), "{shell}");
    }
}
