//! Collects the problems of a configuration and renders them.
//!
//! All modules that read the files share a [`Report`]. Each [`note`](Report::note)s a problem and continues, so that the operator sees
//! all problems at once. [`finish`](Report::finish) sorts them and renders them with annotate-snippets. The renderer gets only the lines
//! concerned, so that neither the size nor the content of a file matters to it.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::{self as draw, Annotation, AnnotationKind, Level, Origin, Renderer, Snippet};
use nix::unistd::{Group, User};

use super::error::{Diagnostic, Location, Severity};
use super::limits;
use super::sources::Source;
use super::syntax;
use super::text;
use super::unclosed::Mended;

/// A range of bytes in the files of a configuration.
pub(super) type Span = Range<usize>;

/// One problem, before it is rendered.
#[derive(Debug)]
pub(super) struct Problem {
    severity: Severity,
    span: Option<Span>,
    /// The file, if the problem is about a file as a whole and not about the first one.
    file: Option<PathBuf>,
    title: String,
    label: String,
    help: Option<String>,
    also: Option<(Span, String)>,
    basis: Basis,
    /// Whether this user has no permission to read the file.
    denied: bool,
}

/// What a problem is based on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// The file is not TOML here.
    Syntax,
    /// Something that is in the file.
    Presence,
    /// Something that is not in the file.
    Absence,
}

impl Problem {
    /// An error at `span`. The `title` is the mistake.
    pub(super) fn error(span: Span, title: impl Into<String>) -> Problem {
        let (label, help, also) = (String::new(), None, None);
        Problem {
            severity: Severity::Error,
            span: Some(span),
            file: None,
            title: title.into(),
            label,
            help,
            also,
            basis: Basis::Presence,
            denied: false,
        }
    }

    /// A warning at `span`.
    pub(super) fn warning(span: Span, title: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(span, title) }
    }

    /// An error about a file as a whole.
    pub(super) fn whole(title: impl Into<String>) -> Problem {
        Problem { span: None, ..Problem::error(0..0, title) }
    }

    /// The file, if it is not the first.
    pub(super) fn of(mut self, file: PathBuf) -> Problem {
        self.file = Some(file);
        self
    }

    /// The text under the location.
    pub(super) fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// What would be right.
    pub(super) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// `did you mean`, if one of `known` is similar to `found`.
    pub(super) fn meant<'k>(self, found: &str, known: impl IntoIterator<Item = &'k str>) -> Problem {
        match nearest(found, known) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// A second location that belongs to the problem.
    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Problem {
        self.also = Some((span, label.into()));
        self
    }

    /// Marks that this user has no permission to read the file.
    pub(super) fn denied(mut self) -> Problem {
        self.denied = true;
        self
    }

    /// Marks that the problem is something missing. It is dropped where a file is not TOML, because the parser may have skipped it.
    pub(super) fn absence(mut self) -> Problem {
        self.basis = Basis::Absence;
        self
    }
}

/// Something outside of the file that must exist.
pub(super) enum External {
    /// A directory.
    Directory(PathBuf),
    /// A user, by name or number.
    User(String),
    /// A group, by name or number.
    Group(String),
}

/// All problems so far.
pub(super) struct Report<'a> {
    files: &'a [Source],
    problems: RefCell<Vec<Problem>>,
    /// The things outside that the file names, with the locations.
    external: RefCell<Vec<(Span, External)>>,
    /// The lines that are not TOML.
    broken: Vec<Span>,
    /// Whether the files that the configuration names are read, too, such as those of secrets.
    pub(super) reads_files: bool,
    /// Whether the credentials of the service manager must be there.
    pub(super) needs_credentials: bool,
    /// Whether a file could not be read.
    partial: bool,
    /// How many syntax errors were counted only.
    more: usize,
}

impl<'a> Report<'a> {
    /// A report on `files`, with the problems of files that could not be read.
    pub(super) fn new(files: &'a [Source], unread: Vec<Problem>) -> Report<'a> {
        Report {
            files,
            reads_files: false,
            needs_credentials: false,
            partial: !unread.is_empty(),
            problems: RefCell::new(unread),
            external: RefCell::default(),
            broken: Vec::new(),
            more: 0,
        }
    }

    /// The files, the main file first.
    pub(super) fn files(&self) -> &'a [Source] {
        self.files
    }

    /// The file of the byte `at`.
    pub(super) fn file(&self, at: usize) -> &'a Source {
        let number = self.files.partition_point(|file| file.start <= at).saturating_sub(1);
        &self.files[number]
    }

    /// Adds a problem.
    pub(super) fn note(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Remembers that the value at `span` names something that must exist.
    pub(super) fn expect(&self, span: Span, external: External) {
        self.external.borrow_mut().push((span, external));
    }

    /// Reports each thing outside that does not exist, if `counts` selects it. Only here does a check look at anything but the files.
    pub(super) fn note_missing(&self, counts: impl Fn(&External) -> bool) {
        for (span, external) in self.external.take().into_iter().filter(|(_, external)| counts(external)) {
            let missing = match &external {
                External::Directory(path) => missing_directory(path),
                External::User(name) => missing_name("user", name, |name| Ok(User::from_name(name)?.is_some())),
                External::Group(name) => missing_name("group", name, |name| Ok(Group::from_name(name)?.is_some())),
            };
            if let Some((title, label, help)) = missing {
                self.note(Problem::error(span, title).label(label).help(help));
            }
        }
    }

    /// Reports the brackets that `file` does not close.
    pub(super) fn note_unclosed(&mut self, file: &Source, mended: &Mended) {
        for (at, lines) in &mended.unclosed {
            let sign = &file.text[*at..=*at];
            let other = if sign == "{" { "}" } else { "]" };
            let at = file.start + at;
            let problem = Problem::error(at..at + 1, format!("this is not TOML: `{sign}` has no `{other}`"));
            self.note(Problem { basis: Basis::Syntax, ..problem.label("never closed") });
            self.broken.push(file.start + lines.start..file.start + lines.end);
        }
    }

    /// Reports the syntax errors of `file`; of a large number, only the first.
    pub(super) fn note_all_syntax(&mut self, file: &Source, errors: &[toml::de::Error]) {
        let (shown, more) = errors.split_at(errors.len().min(limits::DIAGNOSTICS_MAX));
        self.more += more.len();
        for error in shown {
            self.note_syntax(file, error);
        }
    }

    fn note_syntax(&mut self, file: &Source, error: &toml::de::Error) {
        let span = error.span().unwrap_or(file.text.len()..file.text.len());
        let span = file.start + span.start..file.start + span.end;
        let start = span.start;
        let message = error.message();
        if message == "duplicate key" {
            let problem = Problem::error(span, "a key is set twice in one table").label("the second time");
            return self.note(Problem { basis: Basis::Syntax, ..problem });
        }
        let line = self.line_of(start);
        let explained = syntax::explained(span, message, &file.text[file.local(&line)], !self.is_broken(start));
        self.broken.push(line);
        if let Some(problem) = explained {
            self.note(Problem { basis: Basis::Syntax, ..problem });
        }
    }

    /// Where the text of a string begins, if it has no escapes. An offset in its value is then an offset in the text, too.
    pub(super) fn inside(&self, span: &Span, value: &str) -> Option<usize> {
        let inner = span.start + 1..span.end.checked_sub(1)?;
        let file = self.file(span.start);
        (file.text.get(file.local(&inner)) == Some(value)).then_some(inner.start)
    }

    /// Whether a problem is reported for exactly this range.
    pub(super) fn is_wrong(&self, span: &Span) -> bool {
        self.problems.borrow().iter().any(|problem| problem.span.as_ref() == Some(span))
    }

    /// Whether there is no error so far.
    pub(super) fn is_good(&self) -> bool {
        self.problems.borrow().iter().all(|problem| problem.severity == Severity::Warning)
    }

    /// All problems, rendered, in the order of the files.
    pub(super) fn finish(self) -> Vec<Diagnostic> {
        let mut problems = self.problems.take();
        if self.partial {
            problems.retain(|p| p.basis != Basis::Absence);
        }
        if !self.broken.is_empty() {
            let on_broken_line = |p: &Problem| p.span.as_ref().is_some_and(|s| self.is_broken(s.start));
            problems.retain(|p| match p.basis {
                Basis::Syntax => true,
                Basis::Presence => !on_broken_line(p),
                Basis::Absence => false,
            });
        }
        problems.sort_by_key(|p| p.span.as_ref().map_or((0, 0), |s| (s.start, s.end)));
        let more = self.more + problems.len().saturating_sub(limits::DIAGNOSTICS_MAX);
        problems.truncate(limits::DIAGNOSTICS_MAX);
        if more > 0 {
            problems.push(Problem::whole(format!("and {more} more, which are shown once these are corrected")));
        }
        problems.iter().map(|problem| self.draw(problem)).collect()
    }

    /// Whether the byte `at` is on a line that is not TOML.
    fn is_broken(&self, at: usize) -> bool {
        self.broken.iter().any(|line| line.start <= at && at <= line.end)
    }

    /// The line of the byte `at`, without its line break.
    fn line_of(&self, at: usize) -> Span {
        let file = self.file(at);
        let at = file.boundary(at);
        let start = file.text[..at].rfind('\n').map_or(0, |i| i + 1);
        let end = file.text[at..].find('\n').map_or(file.text.len(), |i| at + i);
        file.start + start..file.start + end
    }

    /// The line and column of the byte `at` in its file.
    pub(super) fn location(&self, at: usize) -> Location {
        let file = self.file(at);
        let line = file.local(&self.line_of(at));
        let at = file.boundary(at);
        let above = file.text[..at].bytes().filter(|&b| b == b'\n').count();
        Location { line: above + 1, column: file.text[line.start..at].chars().count() + 1 }
    }

    fn draw(&self, problem: &Problem) -> Diagnostic {
        let file = problem.span.as_ref().map_or(&self.files[0], |span| self.file(span.start));
        let path = problem.file.as_deref().unwrap_or(&file.path).to_string_lossy();
        let cut = |text: &str| text::cut(text, limits::DIAGNOSTIC_CHARS_MAX).into_owned();
        let (shown, title, label) = (text::shown(&path), cut(&problem.title), cut(&problem.label));
        let help = problem.help.as_deref().map(cut);
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = draw::Group::with_title(level.primary_title(title.as_str()));
        group = match &problem.span {
            Some(span) => group.element(self.snippet(span, &label)),
            None => group.element(Origin::path(&*shown)),
        };
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let mut groups = vec![group];
        if let Some((span, label)) = &problem.also {
            let snippet = self.snippet(span, "");
            groups.push(draw::Group::with_title(Level::NOTE.secondary_title(label.as_str())).element(snippet));
        }
        let rendered = Renderer::plain().render(&groups);
        let location = problem.span.as_ref().map(|span| self.location(span.start));
        let at = location.map_or_else(String::new, |p| format!("{}:{}:", p.line, p.column));
        let label = if label.is_empty() { label } else { format!(": {label}") };
        let help = help.map_or_else(String::new, |help| format!("; {help}"));
        let also = problem.also.as_ref().map_or_else(String::new, |(span, label)| {
            let (file, location) = (self.file(span.start), self.location(span.start));
            format!("; {label}: {}:{}:{}", text::shown(&file.path.to_string_lossy()), location.line, location.column)
        });
        let summary = format!("{shown}:{at} {title}{label}{help}{also}");
        Diagnostic { severity: problem.severity, location, summary, rendered, denied: problem.denied }
    }

    /// The first line of `span`, with the part of `span` on it underlined.
    fn snippet<'s>(&'s self, span: &Span, label: &'s str) -> Snippet<'s, Annotation<'s>> {
        let file = self.file(span.start);
        let line = file.local(&self.line_of(span.start));
        let source = file.text[line.clone()].trim_end_matches('\r');
        let start = (file.boundary(span.start) - line.start).min(source.len());
        let most =
            source[start..].char_indices().nth(limits::DIAGNOSTIC_CHARS_MAX).map_or(source.len(), |(i, _)| start + i);
        let source = text::masked(&source[..most]);
        let end = file.boundary(span.end).saturating_sub(line.start).min(source.len()).max(start);
        let mut annotation = AnnotationKind::Primary.span(start..end);
        if !label.is_empty() {
            annotation = annotation.label(label);
        }
        Snippet::source(source)
            .path(text::shown(&file.path.to_string_lossy()).into_owned())
            .line_start(self.location(span.start).line)
            .annotation(annotation)
    }
}

/// If a directory does not exist: the mistake, what was expected, and what would be right.
fn missing_directory(path: &Path) -> Option<(String, &'static str, &'static str)> {
    let title = match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => return None,
        Ok(_) => "this is not a directory".to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "this directory does not exist".to_owned(),
        Err(error) => format!("this directory cannot be read: {error}"),
    };
    Some((
        title,
        "expected a directory",
        "create it, or correct the path; a relative path begins in the directory of this file",
    ))
}

/// The same for a user or a group. A number need not have an entry in the database: it is checked when pushd switches to it.
fn missing_name(
    kind: &str,
    name: &str,
    is_there: impl Fn(&str) -> nix::Result<bool>,
) -> Option<(String, &'static str, &'static str)> {
    if name.parse::<u32>().is_ok() || is_there(name).unwrap_or(true) {
        return None;
    }
    Some((format!("this {kind} does not exist"), "not in the system's database", "create it, or correct the name"))
}

/// The word of `known` that is most similar to `found`: `warn` for `warning`.
fn nearest<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let found = found.to_lowercase();
    let near = |known: &'k str| match known.len() > 3 && found.starts_with(known) {
        true => (0, known),
        false => (strsim::osa_distance(&found, &known.to_lowercase()), known),
    };
    let (distance, known) = known.into_iter().map(near).min_by_key(|(distance, _)| *distance)?;
    (distance <= (found.chars().count().max(known.chars().count()) / 3).max(1)).then_some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use crate::config::sources::Sources;

    fn file(text: &str) -> Vec<Source> {
        Sources::of(Path::new("x.toml"), text.to_owned()).files
    }

    fn drawn(text: &str, problem: Problem) -> String {
        let files = file(text);
        let report = Report::new(&files, Vec::new());
        report.note(problem);
        report.finish()[0].to_string()
    }

    #[test]
    fn a_mistake_behind_the_end_of_a_line_is_shown_at_its_end() {
        let text = "a = \"x\r\r\r\r\n";
        let shown = drawn(text, Problem::error(7..9, "what is that?"));
        assert!(shown.contains("1 | a = \"x\n"), "{shown}");
        let message = crate::config::parse(Path::new("x.toml"), text).unwrap_err().to_string();
        assert!(message.contains("x.toml:1:"), "{message}");
    }

    #[test]
    fn a_similar_word_is_suggested_and_no_other() {
        let known = ["message_max", "queue_max", "ping"];
        assert_eq!(nearest("mesage_max", known), Some("message_max"));
        assert_eq!(nearest("pign", known), Some("ping"));
        assert_eq!(nearest("PING", known), Some("ping"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("warning", ["error", "warn", "info"]), Some("warn"));
    }

    #[test]
    fn problems_beyond_the_limit_are_counted() {
        let files = file("a = 1\n");
        let report = Report::new(&files, Vec::new());
        for _ in 0..limits::DIAGNOSTICS_MAX + 7 {
            report.note(Problem::error(0..1, "odd"));
        }
        let diagnostics = report.finish();
        assert_eq!(diagnostics.len(), limits::DIAGNOSTICS_MAX + 1);
        assert!(diagnostics[limits::DIAGNOSTICS_MAX].to_string().contains("and 7 more"));
    }

    #[test]
    fn every_span_can_be_rendered() {
        let text = "ä = \"ö\"\r\n\u{feff}b = 1\n";
        for start in 0..=text.len() + 2 {
            for end in 0..=text.len() + 2 {
                drawn(text, Problem::error(start..end, "t").label("l"));
            }
        }
    }

    #[test]
    fn a_column_is_counted_in_characters() {
        let text = "a = 1\nö = 2\n";
        let files = file(text);
        let report = Report::new(&files, Vec::new());
        assert_eq!(report.location(text.find('2').unwrap()), Location { line: 2, column: 5 });
        assert!(drawn(text, Problem::error(11..12, "odd")).contains("x.toml:2:5"));
    }
}
