//! The output of a load: a progress line while it runs, a table or JSON at its end.

use std::io::{Write, stderr};

use super::figures::{Figures, Times};
use super::load::Progress;

/// The progress line on a terminal.
#[derive(Debug)]
pub struct Line {
    shown: bool,
    terminal: bool,
}

impl Line {
    /// Writes to standard error if that is a terminal; otherwise nothing is written.
    pub fn new(terminal: bool) -> Line {
        Line { shown: false, terminal }
    }

    /// Shows the progress.
    pub fn show(&mut self, progress: Progress) {
        let text = match progress {
            Progress::Opening { opened, all } => format!("opening connections: {opened} of {all}"),
            Progress::Delivering { per_second, left } => {
                format!("{} deliveries/s, {:.0} s left", short(per_second), left.as_secs_f64().ceil())
            }
        };
        self.write(&text);
    }

    /// Erases the line.
    pub fn clear(&mut self) {
        if self.shown {
            self.write("");
        }
    }

    fn write(&mut self, text: &str) {
        if self.terminal {
            self.shown = true;
            // Move to the first column and erase the line. If standard error is closed, nothing can be shown.
            let _ = write!(stderr(), "\r\x1b[K{text}").and_then(|()| stderr().flush());
        }
    }
}

/// The figures as one JSON object.
pub fn json(figures: &Figures) -> String {
    // Every field can be serialized, so this does not fail.
    serde_json::to_string_pretty(figures).map_or_else(|_| String::new(), |text| text + "\n")
}

/// The figures as a table for people.
pub fn table(figures: &Figures, url: &str) -> String {
    let Figures { connections, size_bytes, window, seconds, .. } = figures;
    let messages = if *window == 1 { "message" } else { "messages" };
    let mut rows = vec![
        ("connections", format!("{connections} opened, {} a second", short(figures.connections_per_second))),
        ("handshake", times(&figures.handshake)),
        (
            "deliveries",
            format!("{} a second, {} in {seconds:.1} s", short(figures.deliveries_per_second), figures.deliveries),
        ),
        ("latency", times(&figures.latency)),
        ("received", format!("{}B a second", short(figures.bytes_per_second))),
    ];
    if let Some(cost) = &figures.server {
        rows.extend([
            (
                "server",
                format!(
                    "process {}, {:.2} processors (others: {:.2})",
                    cost.pid, cost.processors, cost.processors_of_others
                ),
            ),
            ("", format!("{:.2} µs of processor a delivery", cost.cpu_us_per_delivery)),
            ("", format!("{:.0} µs of processor a handshake", cost.cpu_us_per_handshake)),
            ("", format!("{:.0} bytes of memory an idle connection", cost.resident_bytes_per_connection)),
        ]);
    }
    let checked = if figures.faults.is_none() { "every delivery came once, in order, unchanged" } else { "FAILED" };
    rows.push(("checked", checked.to_owned()));
    if figures.foreign > 0 {
        rows.push(("others", format!("{} messages of other publishers", figures.foreign)));
    }
    let end = if figures.cut_short { ", cut short" } else { "" };
    let head = format!("{url}: {size_bytes} bytes, {window} {messages} on the way at most{end}\n");
    rows.iter().fold(head, |table, (name, value)| table + &format!("  {name:<13}{value}\n"))
}

/// All faults in one sentence.
pub fn faults(figures: &Figures) -> String {
    let found = figures.faults;
    let kinds = [
        (found.lost, "lost"),
        (found.duplicated, "duplicated"),
        (found.reordered, "reordered"),
        (found.corrupt, "corrupt"),
    ];
    let mut sentences: Vec<String> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}")).collect();
    if !sentences.is_empty() {
        sentences = vec![format!("deliveries: {}", sentences.join(", "))];
    }
    if found.closed > 0 {
        let why = figures.first_closed.as_deref().unwrap_or("no reason");
        sentences.push(format!("connections ended by the server: {} (the first: {why})", found.closed));
    }
    sentences.join("; ")
}

fn times(times: &Times) -> String {
    let Times { p50_ms, p90_ms, p99_ms, max_ms } = times;
    format!("p50 {p50_ms:.2}  p90 {p90_ms:.2}  p99 {p99_ms:.2}  max {max_ms:.2} ms")
}

/// A number with an SI prefix: `12.3 k`.
fn short(number: f64) -> String {
    match number {
        0.0..1e4 => format!("{number:.0} "),
        1e4..1e6 => format!("{:.1} k", number / 1e3),
        1e6..1e9 => format!("{:.2} M", number / 1e6),
        _ => format!("{:.2} G", number / 1e9),
    }
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::figures::Faults;
    use super::*;

    fn figures() -> Figures {
        Figures {
            connections: 100,
            size_bytes: 64,
            window: 1,
            seconds: 5.0,
            connections_per_second: 12_345.6,
            handshake: Times::default(),
            deliveries: 7,
            deliveries_per_second: 1.4,
            bytes_per_second: 2_500_000.0,
            latency: Times { p50_ms: 0.5, ..Times::default() },
            server: None,
            faults: Faults::default(),
            foreign: 0,
            first_closed: None,
            cut_short: false,
        }
    }

    #[test]
    fn the_table_shows_the_results() {
        let table = table(&figures(), "http://h/");
        assert!(table.contains("12.3 k a second") && table.contains("2.50 MB a second"), "{table}");
        assert!(table.contains("every delivery came once"), "{table}");
        assert!(!table.contains("process"), "{table}");
    }

    #[test]
    fn faults_are_one_sentence() {
        let faults_of =
            |found: Faults| faults(&Figures { faults: found, first_closed: Some("1008 slow".into()), ..figures() });
        assert_eq!(faults_of(Faults { lost: 3, corrupt: 1, ..Faults::default() }), "deliveries: 3 lost, 1 corrupt");
        let closed = faults_of(Faults { closed: 2, ..Faults::default() });
        assert_eq!(closed, "connections ended by the server: 2 (the first: 1008 slow)");
    }

    #[test]
    fn the_json_output_is_valid() {
        let value: serde_json::Value = serde_json::from_str(&json(&figures())).unwrap();
        assert_eq!((&value["deliveries"], &value["faults"]["lost"]), (&7.into(), &0.into()));
        assert!(value["server"].is_null() && value["latency"]["p50_ms"] == 0.5);
    }
}
