//! An HTTP/1.1 client that works on bytes.

use std::net::SocketAddr;

use super::wire::Wire;

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its first line.
    pub line: String,
    fields: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Reads the head of a response up to the empty line.
    pub fn read_head(wire: &mut Wire) -> Answer {
        let head = String::from_utf8(wire.take_until(b"\r\n\r\n")).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("{line:?} in {head:?}"));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let fields = lines.map(field).collect();
        Answer { status, line, fields, body: Vec::new() }
    }

    /// Reads a complete response, whose body has a length or chunks.
    pub fn read(wire: &mut Wire) -> Answer {
        let mut answer = Answer::read_head(wire);
        answer.read_body(wire);
        answer
    }

    /// Reads the body, which has a length or chunks.
    pub fn read_body(&mut self, wire: &mut Wire) {
        if self.field("transfer-encoding") == Some("chunked") {
            loop {
                let length = String::from_utf8(wire.take_until(b"\r\n")).unwrap();
                let chunk = wire.take(usize::from_str_radix(length.trim(), 16).unwrap());
                assert_eq!(wire.take(2), b"\r\n");
                if chunk.is_empty() {
                    return;
                }
                self.body.extend(chunk);
            }
        }
        let length = self.field("content-length").map_or(0, |length| length.parse().unwrap());
        self.body = wire.take(length);
    }

    /// The value of a field that occurs at most once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} occurs twice");
        value
    }

    /// Its body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Its body as JSON.
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.field("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

/// A request from method, target, header fields and body. A body gets a Content-Length.
pub fn request(address: SocketAddr, method: &str, target: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|field| field.to_ascii_lowercase().starts_with("host:")) {
        text += &format!("Host: {address}\r\n");
    }
    for field in fields {
        text += &format!("{field}\r\n");
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT") {
        text += &format!("Content-Length: {}\r\n", body.len());
    }
    [(text + "\r\n").as_bytes(), body].concat()
}

/// Sends a request on a connection of its own, and returns the response.
pub fn ask(address: SocketAddr, method: &str, target: &str, fields: &[&str], body: &[u8]) -> Answer {
    let mut wire = Wire::connect(address);
    // The server may refuse and close before all is sent.
    wire.try_send(&request(address, method, target, fields, body));
    if method == "HEAD" { Answer::read_head(&mut wire) } else { Answer::read(&mut wire) }
}

/// Sends a GET request.
pub fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, &[], b"")
}

/// Publishes a text. Returns the number of subscribers it reached.
pub fn publish(address: SocketAddr, target: &str, message: &str) -> u64 {
    let answer = ask(address, "POST", target, &[], message.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["subscribers"].as_u64().unwrap()
}

/// Publishes a text on a channel of a hub with history, by the route `/publish/CHANNEL`. Returns its position.
pub fn publish_kept(address: SocketAddr, channel: &str, text: &str) -> String {
    let answer = ask(address, "POST", &format!("/publish/{channel}"), &[], text.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert!((1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)));
    id
}

/// A value of `/metrics`. `name` includes the label, if there is one.
pub fn metric(address: SocketAddr, name: &str) -> u64 {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200, "{answer:?}");
    let value = answer.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {}", answer.text())).parse().unwrap()
}
