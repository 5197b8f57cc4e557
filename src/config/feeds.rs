//! `[feed.NAME]`: one source, one channel, one message.

use std::path::PathBuf;
use std::time::Duration;

use super::hubs::Hubs;
use super::keys;
use super::reader::{Item, Table, listed};
use super::report::{Problem, Span};
use super::routes;
use super::{HubId, Template};

/// `[feed.NAME]`: a source of messages inside pushd.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// NAME in `[feed.NAME]`.
    pub name: String,
    /// The hub published to.
    pub hub: HubId,
    /// The channel published to; its name has no holes.
    pub channel: String,
    /// The message: `{n}` counts from 0; `{line}` is the line of a file or command.
    pub message: Template,
    /// Where the messages come from.
    pub source: Source,
}

/// The source of a feed's messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// `every = "1s"`
    Every(Duration),
    /// `tail = "FILE"`: each line that is appended to a file, also after a rotation.
    Tail(PathBuf),
    /// `command = ["vmstat", "1"]`: each line of its output. It is restarted with back-off when it ends.
    Command(Vec<String>),
}

impl Source {
    /// Whether it is the lines of a file.
    pub fn is_tail(&self) -> bool {
        matches!(self, Source::Tail(_))
    }
}

/// The keys for the source. A feed has exactly one of them.
const SOURCES: [&str; 3] = ["every", "tail", "command"];

/// Reads every `[feed.NAME]`, each with the location of its channel.
pub(super) fn read(top: &Table<'_>, hubs: &Hubs<'_>) -> Vec<(Span, Feed)> {
    top.named("feed").into_iter().filter_map(|item| feed(item, hubs)).collect()
}

fn feed<'a>(item: Item<'a>, hubs: &Hubs<'a>) -> Option<(Span, Feed)> {
    item.note_bad_name();
    let table = item.table(&keys::FEED)?;
    let hub = table.required("hub", "add the name of a hub: `hub = \"...\"`").and_then(|i| hubs.named_by(&i));
    let channel = table.required("channel", "for example `channel = \"all\"`").and_then(|i| channel(&i));
    let source = source(&table);
    // Also if `every` could not be read: the message is missing in that case, too.
    let is_set = |key: &str| table.item(key).is_some();
    let ticks = is_set("every") && !is_set("tail") && !is_set("command");
    let message = match table.item("message") {
        None if source.is_none() && !ticks => None,
        None if ticks => {
            table.required("message", "add the message to publish each time: `message = \"tick:{n}\"`");
            None
        }
        None => Template::parse("{line}").ok(),
        Some(item) => message(&item, ticks),
    };
    let at = table.item("channel")?.span();
    let feed = Feed { name: item.key().to_owned(), hub: hub?, channel: channel?, message: message?, source: source? };
    Some((at, feed))
}

fn channel(item: &Item<'_>) -> Option<String> {
    let template = routes::name(item)?;
    item.only_holes(&template, &[], "the channel of a feed has no placeholders");
    template.fixed().map(str::to_owned)
}

fn message(item: &Item<'_>, ticks: bool) -> Option<Template> {
    let template = item.template()?;
    if ticks {
        item.only_holes(&template, &["n"], "a feed with `every` has only a counter");
    } else {
        item.only_holes(&template, &["line", "n"], "a feed has only its lines and their number");
    }
    Some(template)
}

fn source(table: &Table<'_>) -> Option<Source> {
    let mut found: Vec<Item<'_>> = SOURCES.iter().filter_map(|key| table.item(key)).collect();
    found.sort_by_key(|item| item.key_span().start);
    match found.as_slice() {
        [] => {
            let problem = Problem::error(table.span(), "this feed has no source").absence();
            let help = format!("add one of {}", listed(SOURCES, "or"));
            table.note(problem.label("its messages come from nowhere").help(help));
            None
        }
        [item] => one_source(item),
        [first, second, ..] => {
            let problem = Problem::error(second.key_span(), "this feed has several sources");
            let help = "make a feed for each source; they may have the same hub and channel";
            second.note(problem.label("a second one").help(help).also(first.key_span(), "the first one is here"));
            None
        }
    }
}

fn one_source(item: &Item<'_>) -> Option<Source> {
    match item.key() {
        "every" => item.duration().map(Source::Every),
        "tail" => item.text("the path of a file").map(|path| Source::Tail(item.base().join(path))),
        _ => command(item).map(Source::Command),
    }
}

fn command(item: &Item<'_>) -> Option<Vec<String>> {
    if let Some(line) = item.as_text().filter(|line| !line.trim().is_empty()) {
        let words: Vec<String> = line.split_whitespace().map(|word| format!("{word:?}")).collect();
        let problem = item.error("`command` takes a list: the program and its arguments").label("this is one string");
        item.note(problem.help(format!("write [{}]; no shell splits it", words.join(", "))));
        return None;
    }
    let words = item.strings()?;
    let program = words.first()?.text("a program")?;
    if let Some(odd) = words.iter().find(|word| word.as_text().is_some_and(|text| text.contains('\0'))) {
        odd.note(odd.error("an argument contains a NUL character"));
    }
    let mut command: Vec<String> = words.iter().filter_map(Item::as_text).map(str::to_owned).collect();
    // As in a shell: a program with a slash is a path, one without is searched in PATH.
    if program.contains('/') {
        command[0] = item.base().join(program).to_string_lossy().into_owned();
    }
    Some(command)
}
