//! The model: all messages, their order, and what each client may receive.
//!
//! Each shard has a witness for each hub: a client that is subscribed to all channels and reads everything at once. What the
//! witnesses receive defines the order of each channel, and how much of it a shard has delivered. All other clients are compared
//! with this.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use pushd::hub::Kind;
use pushd::wire::Framing;

use crate::random::Random;

/// The channels of each hub.
pub const CHANNELS: [&str; 3] = ["a", "a/b", "news"];

/// The number of a channel, over all hubs.
pub type Channel = usize;
/// The number of a message.
pub type Number = usize;

/// The sender of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// HTTP or a feed, on a shard.
    Outside(usize),
    /// A client.
    Client(usize),
}

/// A message: a publication if it has a channel, otherwise an echo.
#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub channel: Option<Channel>,
    pub source: Source,
    /// Its position in the order of its channel, once a witness has received it.
    pub position: Option<usize>,
    pub receipt: Option<Arc<Mutex<Vec<u64>>>>,
}

/// All messages.
pub struct Model {
    pub messages: Vec<Message>,
    by_payload: HashMap<Arc<[u8]>, Number>,
    /// The order of each channel.
    pub order: Vec<Vec<Number>>,
    /// How much of it each shard has delivered: by shard, then channel.
    pub delivered: Vec<Vec<usize>>,
    /// The messages that each source published on each channel and no witness has received yet.
    pending: HashMap<(Channel, SourceKey), VecDeque<Number>>,
}

type SourceKey = (bool, usize);

impl Source {
    fn key(self) -> SourceKey {
        match self {
            Source::Outside(shard) => (false, shard),
            Source::Client(client) => (true, client),
        }
    }
}

impl Model {
    pub fn new(shards: usize, channels: usize) -> Model {
        Model {
            messages: Vec::new(),
            by_payload: HashMap::new(),
            order: vec![Vec::new(); channels],
            delivered: vec![vec![0; channels]; shards],
            pending: HashMap::new(),
        }
    }

    /// A unique payload of about `size` bytes.
    pub fn payload(&self, kind: Kind, size: usize, random: &mut Random) -> Vec<u8> {
        let mut payload = format!("{}:", self.messages.len()).into_bytes();
        match kind {
            Kind::Binary => payload.extend((payload.len()..size).map(|_| random.number() as u8)),
            Kind::Text => {
                let letters = random.one_of(&["a", "ß", "€", "😀", "€a"]);
                while payload.len() + letters.len() <= size {
                    payload.extend_from_slice(letters.as_bytes());
                }
            }
        }
        payload
    }

    /// Adds a message.
    pub fn note(&mut self, kind: Kind, payload: Vec<u8>, channel: Option<Channel>, source: Source) -> Number {
        let number = self.messages.len();
        assert_eq!(self.by_payload.insert(payload.into(), number), None, "payloads are unique");
        self.messages.push(Message { kind, channel, source, position: None, receipt: None });
        if let Some(channel) = channel {
            self.pending.entry((channel, source.key())).or_default().push_back(number);
        }
        number
    }

    /// A publication was refused: no client receives it.
    pub fn refuse(&mut self, number: Number) {
        let message = &self.messages[number];
        let key = (message.channel.unwrap(), message.source.key());
        assert_eq!(self.pending.get_mut(&key).and_then(|queue| queue.pop_back()), Some(number));
    }

    /// The message with this payload.
    pub fn find(&self, kind: Kind, payload: &[u8]) -> Number {
        let Some(&number) = self.by_payload.get(payload) else {
            panic!("received {} bytes that were never sent: {:?}", payload.len(), String::from_utf8_lossy(payload));
        };
        assert_eq!(self.messages[number].kind, kind, "text stays text");
        number
    }

    /// A witness on `shard` has received a message.
    pub fn witness(&mut self, shard: usize, kind: Kind, payload: &[u8]) {
        let number = self.find(kind, payload);
        let message = &mut self.messages[number];
        let channel = message.channel.expect("an echo goes to its sender only");
        let position = self.delivered[shard][channel];
        self.delivered[shard][channel] += 1;
        if let Some(&known) = self.order[channel].get(position) {
            assert_eq!(known, number, "shard {shard} has another order in channel {channel}, at position {position}");
            return;
        }
        assert_eq!(message.position, None, "message {number} was received twice");
        message.position = Some(position);
        self.order[channel].push(number);
        let queue = self.pending.get_mut(&(channel, message.source.key()));
        let next = queue.and_then(VecDeque::pop_front);
        assert_eq!(next, Some(number), "messages of {:?} keep their order and have no gap", message.source);
    }

    /// The messages of these sources that were published and no witness has received.
    pub fn pending_of(&self, wanted: impl Fn(Source) -> bool) -> Vec<Number> {
        let mut all: Vec<_> = self.pending.values().flatten().copied().collect();
        all.retain(|&number| wanted(self.messages[number].source));
        all.sort_unstable();
        all
    }

    /// Whether a framing can carry a message.
    pub fn carries(&self, framing: Framing, number: Number) -> bool {
        matches!(framing, Framing::Rfc6455 | Framing::Deflate) || self.messages[number].kind == Kind::Text
    }

    /// How many messages at these positions of a channel a framing can carry.
    pub fn count(&self, channel: Channel, positions: std::ops::Range<usize>, framing: Framing) -> usize {
        self.order[channel][positions].iter().filter(|&&number| self.carries(framing, number)).count()
    }
}
