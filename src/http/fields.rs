//! The header fields that the configuration adds to answers.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Fields, in the order of the file.
#[derive(Debug, Default)]
pub struct Fields(Vec<(HeaderName, HeaderValue)>);

impl Fields {
    /// Those with these names and values, which the configuration has checked.
    pub fn new(fields: &[(String, String)]) -> Fields {
        let field = |(name, value): &(String, String)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?))
        };
        Fields(fields.iter().filter_map(field).collect())
    }

    /// Sets them in an answer with these fields.
    pub fn set(&self, fields: &mut HeaderMap) {
        for (name, value) in &self.0 {
            fields.insert(name.clone(), value.clone());
        }
    }

    /// Adds those that an answer with these fields does not have.
    pub fn add(&self, fields: &mut HeaderMap) {
        for (name, value) in &self.0 {
            fields.entry(name).or_insert_with(|| value.clone());
        }
    }
}
