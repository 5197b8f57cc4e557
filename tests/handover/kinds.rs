//! One session of each kind that can be handed over: how it is created, and how its client continues.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};

use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder};

use crate::common::http::{Answer, metric, publish, request};
use crate::common::service::Service;
use crate::common::until_true;
use crate::common::wire::Wire;
use crate::common::ws::{CLOSE, KEYS_76, PING, PONG, TEXT, close_payload, frame, handshake, handshake_76};

/// The first content of the tail's file, and what is appended before the handover. The last line is incomplete.
pub const TAIL: (&str, &str) = ("old\n", "whole\nhalf");

/// The configuration of both processes. Its paths are the same in every directory.
pub const CONFIG: &str = r#"
[server.main]
listen = "127.0.0.1:0"
[server.main.routes]
"/plain" = { websocket = "push", channels = ["{channel}"], draft76 = true }
"/two" = { websocket = "push", channels = ["{channel}", "{other}"], on_message = "broadcast" }
"/echo" = { websocket = "push", channels = ["all"], on_message = "echo", draft76 = true }
"/pinged" = { websocket = "pinged", channels = ["all"] }
"/publish/slow" = { publish = "slow", channel = "slow" }
"/publish/noticed" = { publish = "noticed", channel = "noticed" }
"/publish/{channel}" = { publish = "push", channel = "{channel}" }
"/metrics" = { metrics = true }
[server.narrow]
listen = ["systemd:narrow", "unix:/proc/self/cwd/unix"]
[server.narrow.routes]
"/slow" = { websocket = "slow", channels = ["slow"] }
"/noticed" = { websocket = "noticed", channels = ["noticed"] }
"/leaving" = { websocket = "push", channels = ["leaving"] }
"/metrics" = { metrics = true }
[hub.push]
deflate = true
deflate_min = "64"
ping = false
[hub.slow]
ping = false
when_slow = "drop_oldest"
message_max = "2KiB"
queue_max = "4KiB"
gap_notice = "missed {dropped}"
[hub.noticed]
ping = false
when_slow = "drop_oldest"
message_max = "2KiB"
queue_max = "4KiB"
gap_notice = "missed {dropped}, and this is long NOTICE"
[hub.pinged]
ping = "1s"
pong_timeout = "1h"
[feed.tail]
hub = "push"
channel = "tail"
tail = "/proc/self/cwd/tail"
message = "{n} {line}"
[daemon]
workers = 1
"#;

/// The configuration, with a notice that is longer than what the kernel accepts at once on a narrow connection.
pub fn config() -> String {
    CONFIG.replace("NOTICE", &"and long ".repeat(2000))
}

/// The configuration with one more route, which is removed while a session is open on it.
pub fn config_before() -> String {
    config().replace("\"/two\"", "\"/gone\" = { websocket = \"push\" }\n\"/two\"")
}

/// A listener whose connections have small buffers in the kernel, passed as by a service manager.
pub fn narrow() -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(64).unwrap();
    socket.into()
}

/// The kinds of sessions: what their clients have sent and received, and what waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Receives.
    Plain,
    /// Receives compressed messages.
    Deflate,
    /// Receives by draft-76.
    Old,
    /// Subscribes to two channels, and broadcasts to the first.
    Two,
    /// Has sent half of a frame.
    Half,
    /// Has sent half of a frame of draft-76.
    OldHalf,
    /// Has sent a frame that is not the last of its message.
    Fragment,
    /// Has sent half of a compressed frame.
    DeflateHalf,
    /// Reads nothing: messages wait, one is partly written, others were dropped.
    Slow,
    /// Reads little: the notice about dropped messages is partly written.
    Noticed,
    /// Reads nothing, and has sent a close.
    Leaving,
    /// Has violated the protocol, was closed, and has not ended the connection yet.
    Failed,
    /// Has received a ping, and has not answered.
    Pinged,
    /// Was closed because its route is gone, and has not answered.
    Closing,
    /// A connection on which nothing was sent.
    Silent,
}

/// One of each kind, in the order in which they are opened and recorded.
pub const KINDS: [Kind; 15] = [
    Kind::Plain,
    Kind::Deflate,
    Kind::Old,
    Kind::Two,
    Kind::Half,
    Kind::OldHalf,
    Kind::Fragment,
    Kind::DeflateHalf,
    Kind::Slow,
    Kind::Noticed,
    Kind::Leaving,
    Kind::Failed,
    Kind::Pinged,
    Kind::Closing,
    Kind::Silent,
];

/// A text that is sent in two halves.
const HALVES: &str = "something that is said in two halves, and long enough to be compressed, said in two halves";

impl Kind {
    /// The name of the file with the bytes that this client receives, if they depend on the recording.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Kind::Slow => Some("slow"),
            Kind::Noticed => Some("noticed"),
            Kind::Leaving => Some("leaving"),
            _ => None,
        }
    }

    /// Whether it subscribes to the channel `all` of the hub `push`.
    pub fn hears(self) -> bool {
        use Kind::{Closing, Failed, Leaving, Noticed, Pinged, Silent, Slow};
        !matches!(self, Slow | Noticed | Leaving | Failed | Pinged | Closing | Silent)
    }

    fn speech(self) -> Speech {
        match self {
            Kind::Deflate | Kind::DeflateHalf => Speech::Deflate,
            Kind::Old | Kind::OldHalf => Speech::Old,
            _ => Speech::Plain,
        }
    }

    /// The bytes that it sends before the handover, and after it.
    fn sends(self) -> (Vec<u8>, Vec<u8>) {
        let (first, second) = HALVES.split_at(40);
        let cut = |frame: Vec<u8>| (frame[..20].to_vec(), frame[20..].to_vec());
        match self {
            Kind::Half => cut(frame(TEXT, HALVES.as_bytes())),
            Kind::OldHalf => cut([b"\x00", HALVES.as_bytes(), b"\xff"].concat()),
            Kind::Fragment => (frame(0x01, first.as_bytes()), frame(0x80, second.as_bytes())),
            Kind::DeflateHalf => {
                let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
                deflate.write_all(HALVES.as_bytes()).unwrap();
                deflate.flush().unwrap();
                let deflated = deflate.get_ref().strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
                cut(frame(0xc1, deflated))
            }
            Kind::Leaving => (frame(CLOSE, &close_payload(1000, "")), Vec::new()),
            Kind::Closing => (Vec::new(), frame(CLOSE, &close_payload(1001, ""))),
            Kind::Failed => (vec![0x81, 0x00], Vec::new()),
            Kind::Pinged => (Vec::new(), frame(PONG, b"")),
            Kind::Silent => (Vec::new(), request(([127, 0, 0, 1], 1).into(), "GET", "/metrics", &[], b"")),
            _ => Default::default(),
        }
    }

    /// Opens a session or connection of this kind.
    pub fn open(self, address: SocketAddr, narrow: SocketAddr) -> Client {
        let mut wire = match self {
            Kind::Slow | Kind::Noticed | Kind::Leaving => Wire::connect_narrow(narrow),
            _ => Wire::connect(address),
        };
        let target = match self {
            Kind::Plain | Kind::Deflate | Kind::Old => "/plain?channel=all",
            Kind::Two => "/two?channel=two&other=all",
            Kind::Slow => "/slow",
            Kind::Leaving => "/leaving",
            Kind::Noticed => "/noticed",
            Kind::Pinged => "/pinged",
            Kind::Closing => "/gone",
            Kind::Half | Kind::OldHalf | Kind::Fragment | Kind::DeflateHalf | Kind::Failed => "/echo",
            Kind::Silent => return Client { kind: self, wire },
        };
        let host = wire.peer_address();
        wire.send(&match self.speech() {
            Speech::Plain => handshake(host, target, &[]),
            Speech::Deflate => handshake(host, target, &["Sec-WebSocket-Extensions: permessage-deflate"]),
            Speech::Old => [&handshake_76(host, target, &[]), &KEYS_76.2[..]].concat(),
        });
        let answer = Answer::read_head(&mut wire);
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.field("sec-websocket-extensions").is_some(), self.speech() == Speech::Deflate, "{answer:?}");
        if self.speech() == Speech::Old {
            wire.take(16);
        }
        Client { kind: self, wire }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Plain,
    Deflate,
    Old,
}

/// A client and its kind.
pub struct Client {
    pub kind: Kind,
    pub wire: Wire,
}

impl Client {
    /// Sends what the client sends before the handover.
    pub fn begin(&mut self) {
        if self.kind != Kind::Leaving {
            self.wire.send(&self.kind.sends().0);
        }
        match self.kind {
            Kind::Failed => assert_eq!(self.next().0, CLOSE),
            Kind::Pinged => assert_eq!(self.next(), (PING, Vec::new())),
            _ => {}
        }
    }

    /// Continues after the handover. `told` returns the bytes that the client must receive, for the kinds that have a
    /// file.
    pub fn go_on(&mut self, told: impl Fn(&str) -> Vec<u8>) {
        self.wire.send(&self.kind.sends().1);
        if let Some(name) = self.kind.file() {
            let told = told(name);
            assert!(self.wire.take(told.len()) == told, "{:?} receives other bytes", self.kind);
        }
        match self.kind {
            Kind::Half | Kind::OldHalf | Kind::Fragment | Kind::DeflateHalf => self.expect(HALVES),
            Kind::Slow | Kind::Noticed | Kind::Pinged => self.expect_nothing(),
            Kind::Leaving | Kind::Closing => self.wire.expect_end(),
            Kind::Failed => {
                self.wire.finish();
                self.wire.expect_end();
            }
            Kind::Silent => assert_eq!(Answer::read(&mut self.wire).status, 200),
            _ => {}
        }
    }

    /// The next message must be this text. It may be compressed.
    pub fn expect(&mut self, text: &str) {
        match self.kind.speech() {
            Speech::Plain => {
                let received = self.next_but_pings();
                assert_eq!(received, (TEXT, text.as_bytes().to_vec()), "{:?}", self.kind);
            }
            Speech::Old => {
                let all = self.wire.take(text.len() + 2);
                assert_eq!(all, [b"\x00", text.as_bytes(), b"\xff"].concat());
            }
            // Only publications are compressed.
            Speech::Deflate => match self.next() {
                (0xc1, payload) => {
                    let mut inflate = DeflateDecoder::new(Vec::new());
                    inflate.write_all(&[&payload, &[0, 0, 0xff, 0xff][..]].concat()).unwrap();
                    inflate.flush().unwrap();
                    assert_eq!(inflate.get_ref(), text.as_bytes());
                }
                received => assert_eq!(received, (TEXT, text.as_bytes().to_vec()), "{:?}", self.kind),
            },
        }
    }

    /// Broadcasts a text.
    pub fn say(&mut self, text: &str) {
        self.wire.send(&frame(TEXT, text.as_bytes()));
    }

    fn expect_nothing(&mut self) {
        self.wire.send(&frame(PING, b"nothing yet?"));
        assert_eq!(self.next_but_pings(), (PONG, b"nothing yet?".to_vec()), "{:?}", self.kind);
    }

    fn next_but_pings(&mut self) -> (u8, Vec<u8>) {
        loop {
            match self.next() {
                (PING, payload) => self.wire.send(&frame(PONG, &payload)),
                frame => return frame,
            }
        }
    }

    fn next(&mut self) -> (u8, Vec<u8>) {
        let head = self.wire.take(2);
        let length = match head[1] {
            126 => u16::from_be_bytes(self.wire.take(2).try_into().unwrap()).into(),
            length => usize::from(length),
        };
        (head[0], self.wire.take(length))
    }

    /// The bytes that it receives from the process that recorded it, after that process has taken it up again.
    pub fn told(&mut self) -> Vec<u8> {
        if self.kind == Kind::Leaving {
            return self.wire.take_all();
        }
        self.wire.send(&frame(PING, b"last"));
        let mut told = self.wire.take_until(b"\x8a\x04last");
        told.truncate(told.len() - 6);
        told
    }
}

/// Brings every client into the state in which it is to be handed over.
pub fn settle(service: &Service, clients: &mut [Client]) {
    let address = service.address();
    clients.iter_mut().for_each(Client::begin);
    let crowd_out = |hub: &str| {
        let before = metric(address, "pushd_messages_dropped_total");
        let messages = (0..).map(|number| format!("{number:03} {}", "x".repeat(1900)));
        let is_over = |_: &String| metric(address, "pushd_messages_dropped_total") < before + 10;
        for message in messages.take_while(is_over) {
            publish(address, &format!("/publish/{hub}"), &message);
        }
    };
    crowd_out("noticed");
    for number in 0..10 {
        publish(address, "/publish/leaving", &format!("{number:03} {}", "x".repeat(1900)));
    }
    let client = |kind: Kind| KINDS.iter().position(|other| *other == kind).unwrap();
    clients[client(Kind::Leaving)].wire.send(&Kind::Leaving.sends().0);
    // It reads until the notice begins.
    clients[client(Kind::Noticed)].wire.take_until(b"missed ");
    assert!(service.reload(&config()).contains("] Reloaded"));
    assert_eq!(clients[client(Kind::Closing)].next().0, CLOSE);
    // Twice: the kernel accepts more once it knows how little the client reads.
    crowd_out("slow");
    crowd_out("slow");
    // The only shard has read everything sent before when it answers this.
    until_true("all accepted", || metric(address, "pushd_connections_accepted_total") > KINDS.len() as u64);
}
