//! What a backend is asked: a JSON object, with the fields of Centrifugo's proxy and a few more.

use bytes::Bytes;
use http::header::HeaderMap;
use serde::Serialize;

/// A question.
#[derive(Debug)]
pub struct Question {
    /// The fields of the client's request that are passed on.
    pub fields: HeaderMap,
    /// What is asked about.
    pub about: About,
    /// The message, or what the client sends with its request.
    pub data: Data,
}

/// What a question is about.
#[derive(Debug, Default, Serialize)]
pub struct About {
    /// A name for the client, which is drawn at random.
    pub client: String,
    /// How it connects.
    pub transport: &'static str,
    /// The protocol, for backends of Centrifugo.
    pub protocol: &'static str,
    /// `json`, or `binary` for a message of bytes.
    pub encoding: &'static str,
    /// Its user, if it is known.
    pub user: String,
    /// The channels that it is subscribed to by the route.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// The channel of a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// NAME in `[server.NAME]`.
    pub server: String,
    /// The path of the request.
    pub path: String,
    /// The address of the client, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What the client sends.
#[derive(Debug)]
pub enum Data {
    /// The arguments of the request, by their names.
    Arguments(serde_json::Map<String, serde_json::Value>),
    /// A text. One that is JSON is passed on as its value, another one as a string.
    Text(Bytes),
    /// Bytes, which are passed on as base64.
    Binary(Bytes),
}

impl Question {
    /// Its body.
    ///
    /// # Errors
    /// A text is not UTF-8.
    pub fn body(&self) -> Result<Bytes, String> {
        let unwritten = |error: serde_json::Error| format!("the question cannot be written: {error}");
        let mut body = serde_json::to_vec(&self.about).map_err(unwritten)?;
        // The end of the object.
        body.pop();
        match &self.data {
            Data::Arguments(arguments) => {
                body.extend_from_slice(b",\"data\":");
                serde_json::to_writer(&mut body, arguments).map_err(unwritten)?;
            }
            Data::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| "the message is not UTF-8".to_owned())?;
                body.extend_from_slice(b",\"data\":");
                // What only a lax parser takes, such as a thousand nested arrays, must not make the backend fail: it goes as a string.
                match serde_json::from_str::<serde_json::Value>(text) {
                    Ok(_) => body.extend_from_slice(text.as_bytes()),
                    Err(_) => serde_json::to_writer(&mut body, text).map_err(unwritten)?,
                }
            }
            Data::Binary(bytes) => {
                body.extend_from_slice(b",\"b64data\":\"");
                let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
                body.extend_from_slice(text.as_bytes());
                body.push(b'"');
            }
        }
        body.push(b'}');
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(data: Data) -> serde_json::Value {
        let question = Question { fields: HeaderMap::new(), about: About::default(), data };
        serde_json::from_slice(&question.body().unwrap()).unwrap()
    }

    #[test]
    fn json_is_passed_on_as_its_value_and_other_text_as_a_string() {
        let text = |text: &'static str| data(Data::Text(Bytes::from_static(text.as_bytes())))["data"].clone();
        assert_eq!(text("{\"a\": [1]}"), serde_json::json!({ "a": [1] }));
        assert_eq!(text(" 12 "), serde_json::json!(12));
        assert_eq!(text("hello \"you\""), serde_json::json!("hello \"you\""));
        assert_eq!(text("{\"a\":1}, \"user\":\"admin\""), serde_json::json!("{\"a\":1}, \"user\":\"admin\""));
        assert_eq!(text(""), serde_json::json!(""));
        // Only a lax parser takes these.
        assert_eq!(text("1e999"), serde_json::json!("1e999"));
        assert_eq!(text(r#""\ud800""#), serde_json::json!(r#""\ud800""#));
        let deep = "[".repeat(500) + &"]".repeat(500);
        assert_eq!(data(Data::Text(Bytes::from(deep.clone())))["data"], serde_json::json!(deep));
        assert_eq!(data(Data::Binary(Bytes::from_static(&[0, 255])))["b64data"], serde_json::json!("AP8="));
    }
}
