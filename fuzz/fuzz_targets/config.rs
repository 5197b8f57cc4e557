//! Any text as a configuration: reading it ends in a configuration or in mistakes that can be shown, and never in a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::config;

fuzz_target!(|text: &str| {
    match config::parse("fuzz.toml".as_ref(), text) {
        Ok(config) => {
            assert!(!config.servers.is_empty());
            for warning in &config.warnings {
                assert!(!warning.to_string().is_empty());
            }
            // What it says does not depend on when it is read.
            assert!(config::parse("fuzz.toml".as_ref(), text).is_ok_and(|again| again == config));
        }
        Err(errors) => assert!(!errors.to_string().trim().is_empty()),
    }
});
