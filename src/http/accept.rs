//! Whether a client accepts the media type of an answer.

use http::header::{ACCEPT, HeaderMap};
use smallvec::SmallVec;

/// Whether a client accepts the media type `kind`, for example `text/event-stream`. The most specific range decides, and without any
/// range everything is accepted (RFC 9110, section 12.5.1).
pub fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges: SmallVec<[String; 4]> = lines
        .flat_map(|line| line.split(','))
        .map(|range| range.trim().to_ascii_lowercase())
        .filter(|range| !range.is_empty())
        .collect();
    let accepts = |range: &String| !range.split(';').any(|part| part.trim().strip_prefix("q=").is_some_and(is_zero));
    let media = |range: &str| range.split(';').next().map_or("", str::trim).to_owned();
    let is_whole_type = |range: &str| range.strip_suffix("/*").is_some_and(|main| kind.split('/').next() == Some(main));
    let exact = ranges.iter().find(|range| media(range) == kind);
    let whole_type = || ranges.iter().find(|range| is_whole_type(&media(range)));
    let any = || ranges.iter().find(|range| media(range) == "*/*");
    ranges.is_empty() || exact.or_else(whole_type).or_else(any).is_some_and(accepts)
}

fn is_zero(quality: &str) -> bool {
    quality.trim().parse() == Ok(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        let accepts = |values: &[&str], kind: &str| {
            let mut headers = HeaderMap::new();
            values
                .iter()
                .for_each(|value| assert!(!headers.append(ACCEPT, value.parse().unwrap()) || values.len() > 1));
            accepts(&headers, kind)
        };
        let events = |values: &[&str]| accepts(values, "text/event-stream");
        assert!(events(&[]));
        assert!(events(&["text/event-stream"]));
        assert!(events(&["text/html, */*;q=0.1"]));
        assert!(events(&["application/json", "Text/*"]));
        assert!(events(&["text/*;q=0, text/event-stream"]));
        assert!(events(&[""]));
        assert!(!events(&["text/event-stream;Q=0.0, */*"]));
        assert!(!events(&["application/json"]));
        assert!(!events(&["text/html, text/event-stream; q=0"]));
        let json = |values: &[&str]| accepts(values, "application/json");
        assert!(json(&["application/json, text/plain, */*"]));
        assert!(json(&["text/html, application/*;q=0.5"]));
        assert!(!json(&["text/event-stream"]));
        assert!(!json(&["application/*;q=0, */*"]));
    }
}
