//! What is measured: broadcasts of a client, with or without TLS, echoes, or event streams beside WebSockets. Each mode has its loads and the
//! rows of its table.

use pushd::ctl::Fault;
use pushd::ctl::bench::{Framing, Publisher, Target};

use super::server::Kind;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The first client sends the messages, and the server broadcasts them.
    Broadcast,
    /// The same over TLS.
    Tls,
    /// Each client sends its own messages and receives them back.
    Echo,
    /// Messages are posted over HTTP. The clients are WebSockets or event streams.
    Events,
}

/// A row of the table: a server with one kind of clients.
#[derive(Debug)]
pub struct Row {
    /// The name in the table.
    pub name: String,
    /// The server.
    pub kind: Kind,
    /// The kind of its clients.
    pub framing: Framing,
    /// The name of the column with the ratios of all rows to this one.
    pub base: Option<String>,
}

impl Mode {
    /// The numbers of connections; PUSHD_BENCH_CONNECTIONS adds more.
    pub fn connections(self) -> &'static [usize] {
        match self {
            Mode::Broadcast | Mode::Echo => &[100, 1000],
            Mode::Tls | Mode::Events => &[1000],
        }
    }

    /// Bytes of a message, and the largest number of messages in flight, for an echo on each connection.
    pub fn loads(self) -> &'static [(usize, usize)] {
        match self {
            Mode::Broadcast | Mode::Tls => &[(64, 1), (64, 64), (1024, 64)],
            Mode::Echo | Mode::Events => &[(64, 1)],
        }
    }

    /// The start of a table's title.
    pub fn title(self) -> &'static str {
        match self {
            Mode::Broadcast => "",
            Mode::Tls => "over TLS, ",
            Mode::Echo => "echo, ",
            Mode::Events => "posted over HTTP, ",
        }
    }

    /// The rows of a table: the own servers, then those named by `--beside`. With `history`, hubs with a history are beside those
    /// without one.
    pub fn rows(self, beside: &[Kind], history: bool) -> Vec<Row> {
        if self == Mode::Events {
            let kinds = if history { &[Kind::Pushd, Kind::History][..] } else { &[Kind::Pushd] };
            let streams = kinds.iter().map(|kind| Row { base: None, ..posted(kind, Framing::EventStream) });
            let mut rows = vec![posted(&Kind::Pushd, Framing::WebSocket)];
            rows.extend(streams);
            rows.extend(beside.iter().map(|kind| posted(kind, Framing::EventStream)));
            return rows;
        }
        // The others are added by `--tls`.
        if self == Mode::Tls {
            let row = |kind: &Kind| Row {
                name: kind.name().to_owned(),
                kind: kind.clone(),
                framing: Framing::WebSocket,
                base: Some(format!("to {}", kind.name())),
            };
            return beside.iter().map(row).collect();
        }
        let base = |kind: &Kind| match kind {
            Kind::Send => Some("to send".to_owned()),
            Kind::Coalesce => Some("to coalesce".to_owned()),
            Kind::Pushd if history => Some("to pushd".to_owned()),
            _ => None,
        };
        let own = if history { &[Kind::Coalesce, Kind::Pushd, Kind::History][..] } else { &Kind::OWN };
        let kinds = own.iter().chain(beside);
        let row = |kind: &Kind| Row {
            name: kind.name().to_owned(),
            kind: kind.clone(),
            framing: Framing::WebSocket,
            base: base(kind),
        };
        kinds.map(row).collect()
    }

    /// How messages are sent to the server at `address`.
    pub fn publisher(self, address: &str) -> Result<Publisher, Fault> {
        Ok(match self {
            Mode::Broadcast | Mode::Tls => Publisher::Subscriber,
            Mode::Echo => Publisher::Echo,
            Mode::Events => Publisher::Post(Box::new(Target::parse(&format!("http://{address}/publish"))?)),
        })
    }

    /// The path to which clients connect.
    pub fn path(self, framing: Framing) -> &'static str {
        match (self, framing) {
            (Mode::Echo, _) => "echo",
            (_, Framing::EventStream) => "events",
            (_, Framing::WebSocket) => "",
        }
    }
}

/// A row of event streams, or of the WebSockets beside them.
fn posted(kind: &Kind, framing: Framing) -> Row {
    let clients = match framing {
        Framing::WebSocket => "WebSockets",
        Framing::EventStream => "event streams",
    };
    let name = format!("{}, {clients}", kind.name());
    Row { base: Some(format!("to {name}")), name, kind: kind.clone(), framing }
}
