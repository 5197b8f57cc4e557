//! Explains lines that are not TOML: habits from other formats and from word processors, and what to write instead.

use super::report::{Problem, Span};

/// The quotes of word processors.
const CURLY: [char; 4] = ['“', '”', '‘', '’'];

/// Explains the parser's `message` about `span` in `line`; `first`: it is the first about this line. `None`: the first explains it.
pub(super) fn explained(span: Span, message: &str, line: &str, first: bool) -> Option<Problem> {
    let (title, label) = match message.split_once(", expected ") {
        Some((title, "nothing")) => (title, String::new()),
        Some((title, expected)) => (title, format!("expected {expected}")),
        None => (message, String::new()),
    };
    let this = |title: &str| Problem::error(span, format!("this is not TOML: {title}"));
    let problem = match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
        _ if let Some((key, value)) = with_a_colon(line) => {
            if !first {
                return None;
            }
            this("there is a colon instead of `=`").help(format!("write `{key} = {value}`"))
        }
        _ if line.contains(CURLY) => this("these quotes are not `\"`").help("write straight quotes: `\"text\"`"),
        _ if title == "invalid basic string" && label == "expected `\"`" => {
            this("text without its closing quote").label(label).help("close the text with `\"` on the same line")
        }
        _ if title == "invalid literal string" && label == "expected `'`" => {
            this("text without its closing quote").label(label).help("close the text with `'` on the same line")
        }
        Some((_, value)) if is_bare_switch(value) => {
            this("this value is neither a string nor a boolean").help("write `true` or `false`, in lower case")
        }
        Some((key, value)) if is_bare_text(value) => {
            this("text without quotes").help(format!("write `{key} = \"{value}\"`"))
        }
        Some((key, "")) => this(&format!("`{key}` has no value")),
        _ => this(title).label(label),
    };
    Some(problem)
}

/// Key and value of a line with a colon between them, as in YAML; the value with the quotes that it needs.
fn with_a_colon(line: &str) -> Option<(&str, String)> {
    let (key, value) = line.split_once(':').map(|(key, value)| (key.trim(), value.trim()))?;
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let is_written = value.parse::<u64>().is_ok() || value.starts_with(['"', '\'', '[', '{']) || is_bare_switch(value);
    (is_key && !value.is_empty()).then(|| (key, if is_written { value.to_owned() } else { format!("\"{value}\"") }))
}

/// Whether a value looks like `true` or `false` in another language.
fn is_bare_switch(value: &str) -> bool {
    ["true", "false", "yes", "no", "on", "off"].contains(&value.to_lowercase().as_str())
}

/// Whether a value looks like text without quotes.
fn is_bare_text(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '/' | '-' | '_' | '[' | ']');
    value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/') && value.chars().all(plain)
}
