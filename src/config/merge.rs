//! Merges several files into one table. Each key keeps its location.
//!
//! Tables are merged key by key, and a drop-in may set a key again that the main file sets. A route is replaced as a whole. A key that
//! two drop-ins set is a mistake, because the names of the files would decide which value applies.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::report::{Problem, Report, Span};

/// The merged table of all files.
pub(super) fn merged<'a>(report: &mut Report<'a>) -> DeTable<'a> {
    let mut whole = DeTable::new();
    for (number, file) in report.files().iter().enumerate() {
        let (mut table, mut syntax) = DeTable::parse_recoverable(&file.text);
        if !syntax.is_empty()
            && let Some(mended) = file.mended()
        {
            report.note_unclosed(file, mended);
            (table, syntax) = DeTable::parse_recoverable(&mended.text);
        }
        report.note_all_syntax(file, &syntax);
        if number == 0 {
            whole = table.into_inner();
        } else {
            let drop_in = moved(table.into_inner(), file.start);
            Merge { report, first_drop_in: report.files()[1].start }.put(&mut whole, drop_in, &mut Vec::new());
        }
    }
    whole
}

/// The same table with every location moved by `by` bytes.
fn moved(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let span = |span: Span| span.start + by..span.end + by;
    let entry =
        |(key, value): (Spanned<_>, _)| (Spanned::new(span(key.span()), key.into_inner()), moved_value(value, by));
    table.into_iter().map(entry).collect()
}

fn moved_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved(table, by)),
        DeValue::Array(items) => {
            DeValue::Array(items.into_iter().map(|item| moved_value(item, by)).collect::<DeArray<'_>>())
        }
        simple => simple,
    };
    Spanned::new(span.start + by..span.end + by, inner)
}

/// Merges drop-ins into the table.
struct Merge<'r, 'a> {
    report: &'r Report<'a>,
    /// Where the first drop-in begins. Every location behind is in a drop-in.
    first_drop_in: usize,
}

impl<'a> Merge<'_, 'a> {
    /// Merges `above` into `below`; `path` is the path of both.
    fn put(&self, below: &mut DeTable<'a>, above: DeTable<'a>, path: &mut Vec<String>) {
        for (key, value) in above {
            let Some((old_key, old)) = below.remove_entry(key.get_ref().as_ref()) else {
                below.insert(key, value);
                continue;
            };
            path.push(key.get_ref().to_string());
            let span = old.span();
            match (old.into_inner(), value) {
                (DeValue::Table(mut old), value) if value.get_ref().is_table() && !is_route(path) => {
                    if let DeValue::Table(new) = value.into_inner() {
                        self.put(&mut old, new, path);
                    }
                    below.insert(old_key, Spanned::new(span, DeValue::Table(old)));
                }
                (old, value) => {
                    if let Some(first) = self.set_before(old_key.span(), &old) {
                        self.note_twice(path, key.span(), first);
                    }
                    below.insert(key, value);
                }
            }
            path.pop();
        }
    }

    /// The location where another drop-in has set this key or a part of it.
    fn set_before(&self, key: Span, value: &DeValue<'_>) -> Option<Span> {
        if key.start >= self.first_drop_in {
            return Some(key);
        }
        let DeValue::Table(table) = value else { return None };
        table.iter().find_map(|(key, value)| self.set_before(key.span(), value.get_ref()))
    }

    fn note_twice(&self, path: &[String], at: Span, first: Span) {
        let title = format!("two drop-ins set `{}`", super::text::path(path));
        let problem = Problem::error(at, title).label("the second time").also(first, "the first time is here");
        self.report.note(problem.help("remove one of them"));
    }
}

/// Whether this is `server.NAME.routes.PATH`.
fn is_route(path: &[String]) -> bool {
    matches!(path, [server, _, routes, _] if server == "server" && routes == "routes")
}
