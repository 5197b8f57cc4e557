//! Path patterns and paths: nothing panics, parameters are never empty, patterns that are reported to match the same paths do so,
//! and a tree of both patterns finds the same as each of them alone.
//!
//! The input, by lines: two patterns (a `*` at the end makes it a tree), then paths.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pushd::config::Pattern;
use pushd::http::routes::Routes;

fn pattern(line: &str) -> Option<Pattern> {
    match line.strip_suffix('*') {
        Some(tree) => Pattern::parse(tree, true).ok(),
        None => Pattern::parse(line, false).ok(),
    }
}

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let (Some(one), Some(other)) = (lines.next().and_then(pattern), lines.next().and_then(pattern)) else { return };
    let same = one.paths() == other.paths();
    let patterns = [one, other];
    let [alone, beside] = patterns.each_ref().map(|pattern| Routes::new([pattern.clone()]));
    let both = Routes::new(patterns.clone());
    for path in lines {
        let found = alone.find(path);
        if let Some((_, found)) = &found {
            assert!(path.ends_with(found.rest), "the rest is a part of the path");
            assert!(found.parameters.iter().all(|(_, value)| !value.is_empty()));
            assert!(found.parameters.iter().map(|(name, _)| *name).eq(patterns[0].names()));
        }
        let besides = beside.find(path);
        if same {
            assert_eq!(found.is_some(), besides.is_some(), "{} and {} on {path:?}", patterns[0], patterns[1]);
        }
        let either = both.find(path);
        assert_eq!(either.is_some(), found.is_some() || besides.is_some(), "{path:?}");
        if let Some((number, either)) = either {
            let own = if number == 0 { &found } else { &besides };
            assert_eq!(own.as_ref().map(|(_, own)| own), Some(&either), "{path:?}");
        }
    }
});
