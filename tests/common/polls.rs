//! A client of polls, in bytes.

use std::net::SocketAddr;

use serde_json::Value;

use super::http::{Answer, request};
use super::wire::Wire;

/// A poll that was sent.
pub struct Poll {
    /// Its connection.
    pub wire: Wire,
    head: Option<Answer>,
}

impl Poll {
    /// Sends a poll.
    pub fn send(address: SocketAddr, target: &str, fields: &[&str]) -> Poll {
        let mut wire = Wire::connect(address);
        wire.send(&request(address, "GET", target, fields, b""));
        Poll::of(wire)
    }

    /// A poll that was sent on this connection.
    pub fn of(wire: Wire) -> Poll {
        Poll { wire, head: None }
    }

    /// Sends a poll that waits, and returns when it does: its head has come.
    pub fn waiting(address: SocketAddr, target: &str, since: &str) -> Poll {
        let mut poll = Poll::send(address, &format!("{target}?since={since}"), &[]);
        assert_eq!(poll.head().status, 200);
        poll
    }

    /// The head of the response.
    pub fn head(&mut self) -> &Answer {
        self.head.get_or_insert_with(|| Answer::read_head(&mut self.wire))
    }

    /// The whole response, which ends its connection if it says so.
    pub fn answer(mut self) -> Value {
        let mut answer = self.head().clone();
        if ["transfer-encoding", "content-length"].iter().any(|name| answer.field(name).is_some()) {
            answer.read_body(&mut self.wire);
        } else {
            answer.body = self.wire.take_all();
        }
        if answer.field("connection") == Some("close") {
            self.wire.expect_end();
        }
        assert_eq!((answer.status, answer.text().ends_with("}\n")), (200, true), "{answer:?}");
        answer.json()
    }
}

/// Polls once: the answer.
pub fn poll(address: SocketAddr, target: &str) -> Value {
    Poll::send(address, target, &[]).answer()
}

/// The texts of the messages of an answer.
pub fn texts(answer: &Value) -> Vec<&str> {
    answer["messages"].as_array().unwrap().iter().map(|message| message["data"].as_str().unwrap()).collect()
}

/// The position of an answer.
pub fn position(answer: &Value) -> String {
    answer["position"].as_str().unwrap().to_owned()
}
