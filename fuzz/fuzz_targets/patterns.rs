//! Path patterns against paths: nothing panics, parameters are never empty, and patterns that are told to take the same paths do.
//!
//! The input, by lines: two patterns (with a `*` behind one that takes a tree), then paths.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::config::Pattern;

fn pattern(line: &str) -> Option<Pattern> {
    match line.strip_suffix('*') {
        Some(tree) => Pattern::parse(tree, true).ok(),
        None => Pattern::parse(line, false).ok(),
    }
}

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let (Some(one), Some(other)) = (lines.next().and_then(pattern), lines.next().and_then(pattern)) else { return };
    assert!(one.same_paths(&one));
    let same = one.same_paths(&other);
    assert_eq!(same, other.same_paths(&one));
    for path in lines {
        let found = one.matches(path);
        if let Some(found) = &found {
            assert!(path.ends_with(&found.rest), "the rest is what was sent");
            assert!(found.parameters.iter().all(|(_, value)| !value.is_empty()));
            assert!(found.parameters.iter().map(|(name, _)| *name).eq(one.names()));
        }
        if same {
            assert_eq!(found.is_some(), other.matches(path).is_some(), "{one} and {other} on {path:?}");
        }
    }
});
