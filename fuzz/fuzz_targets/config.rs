//! Any text as a configuration: parsing it returns a configuration or errors that can be displayed, and never panics.

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
            // Parsing it again gives the same configuration.
            assert!(config::parse("fuzz.toml".as_ref(), text).is_ok_and(|again| again == config));
        }
        Err(errors) => assert!(!errors.to_string().trim().is_empty()),
    }
});
