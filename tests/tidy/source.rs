//! A Rust file as the tidy rules see it: comments and literals are blanked out, and functions and the start of the
//! tests are found.
//!
//! It is not a parser. A scanner for comments, strings, characters and braces suffices for rules about words and
//! lengths.

use std::path::{Path, PathBuf};

/// One file.
pub struct Source {
    /// Its path from the root of the project, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
    /// The same text with spaces in place of comments and literals; all byte offsets are the same.
    pub code: String,
}

/// A function: its name, its first line, and its number of lines.
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

impl Source {
    /// Reads `path` below `root`.
    pub fn read(root: &Path, path: &Path) -> Source {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        Source { path, code: blanked(&text), text }
    }

    /// `file:line` of an offset in the code.
    pub fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.path, line(&self.code, offset))
    }

    /// Its top-level module: the folder or file below `src`.
    pub fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        Some(below.split('/').next().unwrap().trim_end_matches(".rs"))
    }

    /// Whether the whole file is a test.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.ends_with("/testing.rs")
    }

    /// The offset of the tests at its end.
    pub fn tests_at(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        let mut from = 0;
        while let Some(found) = self.code[from..].find("#[cfg(test)]") {
            let after = self.code[from + found..].lines().nth(1).unwrap_or_default();
            // `mod tests;` and single test items may be anywhere; a whole test module ends the file.
            if after.trim_start().starts_with("mod ") && after.trim_end().ends_with('{') {
                return from + found;
            }
            from += found + 1;
        }
        self.code.len()
    }

    /// All offsets of `word` in the code, except as a part of another word. `word` may end in punctuation.
    pub fn words<'s>(&'s self, word: &'s str) -> impl Iterator<Item = usize> + 's {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + word.len()..].chars().next();
            let goes_on = word.ends_with(part) && after.is_some_and(part);
            !before.is_some_and(part) && !goes_on
        })
    }

    /// Every path that begins with `crate::`, as the name that follows. Groups are expanded.
    pub fn crate_paths(&self) -> Vec<(usize, &str)> {
        let mut paths = Vec::new();
        for at in self.words("crate::") {
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                None => paths.push((at, name(rest))),
                Some(group) => {
                    let mut depth = 0;
                    let mut fresh = true;
                    for (i, c) in group.char_indices() {
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => fresh = true,
                            c if fresh && !c.is_whitespace() => {
                                fresh = false;
                                paths.push((at, name(&group[i..])));
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        paths
    }

    /// Every function with a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for at in self.words("fn") {
            let rest = &self.code[at + 2..];
            let name = name(rest.trim_start());
            let Some(open) = body(rest).filter(|_| !name.is_empty()) else { continue };
            let length = closing(&rest[open..]);
            let lines = rest[..open + length].matches('\n').count() + 1;
            functions.push(Function { name: name.to_owned(), line: line(&self.code, at), lines });
        }
        functions
    }

    /// Every name that is defined: functions, types, modules, constants.
    pub fn definitions(&self) -> Vec<(usize, &str)> {
        let kinds = ["fn", "struct", "enum", "trait", "type", "mod", "const", "static"];
        let defined = kinds.iter().flat_map(|kind| self.words(kind).map(|at| (at, &self.code[at + kind.len()..])));
        defined.map(|(at, rest)| (at, name(rest.trim_start()))).filter(|(_, name)| !name.is_empty()).collect()
    }
}

/// The line of an offset in `text`, counted from 1.
pub fn line(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// All files below `folder` with this ending, sorted, without folders that tools generate.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    const FILLED_BY_TOOLS: [&str; 7] =
        ["target", ".git", "corpus", "artifacts", "coverage", "node_modules", "__pycache__"];
    let mut found = Vec::new();
    let Ok(entries) = folder.read_dir() else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap_or_default().to_owned();
        if path.is_symlink() || FILLED_BY_TOOLS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The name at the start of `text`.
fn name(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The offset of a function's opening brace; `None` if it has no body.
fn body(rest: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in rest.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            // An unmatched closing bracket: this was the type of a function pointer, not a function.
            ')' | ']' if depth == 0 => return None,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(i),
            ';' | ',' | '=' if depth == 0 && !rest[..i].contains('<') => return None,
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The length of the block that begins `text`.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return i + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

/// `text` with spaces in place of comments, strings and characters. Lines and offsets stay the same.
fn blanked(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        code[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let end = match rest {
            [b'/', b'/', ..] => at + rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => at + comment(rest),
            [b'"', ..] => at + string(rest),
            [b'r', b'"' | b'#', ..] if !in_a_word(bytes, at) => at + raw(rest),
            [b'b', b'r', b'"' | b'#', ..] if !in_a_word(bytes, at) => at + 1 + raw(&rest[1..]),
            [b'\'', ..] => at + character(rest),
            _ => at,
        };
        if end > at {
            blank(at, end.min(bytes.len()));
        }
        at = end.max(at + 1);
    }
    String::from_utf8(code).unwrap_or_else(|_| panic!("blanking split a character"))
}

fn in_a_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a raw string at the start of `rest`; 0 for a raw name (`r#type`).
fn raw(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end: Vec<u8> = [b'"'].into_iter().chain(std::iter::repeat_n(b'#', hashes)).collect();
    let inside = &rest[2 + hashes..];
    let found = inside.windows(end.len()).position(|window| window == end).unwrap_or(inside.len());
    2 + hashes + found + end.len()
}

/// The length of a character literal at the start of `rest`; 0 for a lifetime.
fn character(rest: &[u8]) -> usize {
    match rest {
        [_, b'\\', ..] => 3 + rest[3..].iter().position(|&b| b == b'\'').map_or(0, |i| i + 1),
        _ => {
            // One character of up to four bytes, then the closing quote.
            let close = rest.iter().skip(2).take(4).position(|&b| b == b'\'');
            match close {
                Some(i) if std::str::from_utf8(&rest[1..i + 2]).is_ok_and(|c| c.chars().count() == 1) => i + 3,
                _ => 0,
            }
        }
    }
}
