//! The status of the server: metrics in the text format of Prometheus, health, readiness.

use std::fmt::Write;

use http::StatusCode;

use super::answer::{self, Answer};

/// One figure of the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its name, with the unit last, as Prometheus recommends.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Its kind.
    pub kind: SampleKind,
    /// The name and value of its label, if it has one.
    pub label: Option<(&'static str, String)>,
    /// The figure.
    pub value: u64,
}

/// How a figure changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
}

/// `/metrics`. Samples of one name must follow each other.
pub fn metrics(samples: &[Sample]) -> Answer {
    let mut text = String::new();
    let mut last = "";
    for sample in samples {
        if sample.name != last {
            let kind = match sample.kind {
                SampleKind::Counter => "counter",
                SampleKind::Gauge => "gauge",
            };
            let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {kind}", sample.name, sample.help);
            last = sample.name;
        }
        let label = sample.label.as_ref().map_or(String::new(), |(name, value)| {
            format!("{{{name}=\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
        });
        let _ = writeln!(text, "{}{label} {}", sample.name, sample.value);
    }
    answer::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}

/// `/healthz`. The shard of the connection answers, so any answer proves that it runs.
pub fn health() -> Answer {
    answer::text(StatusCode::OK, "ok")
}

/// `/readyz`.
pub fn ready(draining: bool) -> Answer {
    if draining {
        answer::text(StatusCode::SERVICE_UNAVAILABLE, "draining: no new clients")
    } else {
        answer::text(StatusCode::OK, "ready")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[test]
    fn samples_with_the_same_name_have_one_help_line() {
        let sample = |value, hub: &str| Sample {
            name: "pushd_sessions",
            help: "Sessions open now.",
            kind: SampleKind::Gauge,
            label: Some(("hub", hub.into())),
            value,
        };
        let answer = metrics(&[sample(1, "a"), sample(2, "b\"")]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let body = runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
        let expected = "# HELP pushd_sessions Sessions open now.\n# TYPE pushd_sessions gauge\n\
                        pushd_sessions{hub=\"a\"} 1\npushd_sessions{hub=\"b\\\"\"} 2\n";
        assert_eq!(body, expected);
    }
}
