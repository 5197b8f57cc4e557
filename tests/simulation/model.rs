//! The model: all messages, their order, and what each client may receive.
//!
//! Each shard has a witness for each hub: a client that is subscribed to all channels and reads everything at once. What the
//! witnesses receive defines the order of each channel, and how much of it a shard has delivered. All other clients are compared
//! with this.
//!
//! All channels of a hub with history have one order. There the witness receives envelopes, whose positions must be the successive
//! numbers of that order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use pushd::hub::{Epoch, Kind, Outcome, Position};
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

/// How messages look to a client.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    pub framing: Framing,
    /// Messages are in envelopes, which are text.
    pub envelope: bool,
}

/// A message: a publication if it has a channel, otherwise an echo.
#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub channel: Option<Channel>,
    pub source: Source,
    pub bytes: usize,
    /// Its position in the order of its channel, once a witness has received it.
    pub position: Option<usize>,
    /// Its offset in the order of its hub, once a witness has received it, if the hub has history.
    pub offset: Option<u64>,
    pub receipt: Option<Arc<Mutex<Vec<Outcome>>>>,
    /// The message that was published with the same key before. This one must not be published.
    pub repeats: Option<Number>,
}

/// The order of all channels of a hub with history.
#[derive(Debug)]
pub struct Order {
    pub epoch: Epoch,
    /// The offset before that of the first message.
    pub base: u64,
    pub numbers: Vec<Number>,
    /// How much of it each shard has delivered.
    pub delivered: Vec<usize>,
}

/// All messages.
pub struct Model {
    pub messages: Vec<Message>,
    by_payload: HashMap<Arc<[u8]>, Number>,
    /// The order of each channel.
    pub order: Vec<Vec<Number>>,
    /// How much of it each shard has delivered: by shard, then channel.
    pub delivered: Vec<Vec<usize>>,
    /// The orders of the hubs with history.
    pub hubs: Vec<Option<Order>>,
    /// The first message with each key, by channel.
    pub keys: HashMap<(Channel, &'static str), Number>,
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

impl Order {
    pub fn new(beginning: Position, shards: usize) -> Order {
        Order { epoch: beginning.epoch, base: beginning.offset, numbers: Vec::new(), delivered: vec![0; shards] }
    }

    /// The offset of the last message that is known.
    pub fn last(&self) -> u64 {
        self.base + self.numbers.len() as u64
    }

    fn witness(&mut self, shard: usize, number: Number, position: Option<Position>) -> u64 {
        let delivered = &mut self.delivered[shard];
        let offset = self.base + 1 + *delivered as u64;
        assert_eq!(position, Some(Position { epoch: self.epoch, offset }), "positions are given one after the other");
        match self.numbers.get(*delivered) {
            Some(known) => assert_eq!(*known, number, "shard {shard} has another message at {offset}"),
            None => self.numbers.push(number),
        }
        *delivered += 1;
        offset
    }
}

impl Model {
    pub fn new(shards: usize, hubs: Vec<Option<Order>>) -> Model {
        let channels = hubs.len() * CHANNELS.len();
        Model {
            messages: Vec::new(),
            by_payload: HashMap::new(),
            order: vec![Vec::new(); channels],
            delivered: vec![vec![0; channels]; shards],
            hubs,
            keys: HashMap::new(),
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
        let bytes = payload.len();
        assert_eq!(self.by_payload.insert(payload.into(), number), None, "payloads are unique");
        let (position, offset, receipt, repeats) = (None, None, None, None);
        self.messages.push(Message { kind, channel, source, bytes, position, offset, receipt, repeats });
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
    pub fn witness(&mut self, shard: usize, kind: Kind, payload: &[u8], position: Option<Position>) {
        let number = self.find(kind, payload);
        let message = &mut self.messages[number];
        assert_eq!(message.repeats, None, "message {number} has a key that was published before");
        let channel = message.channel.expect("an echo goes to its sender only");
        match &mut self.hubs[channel / CHANNELS.len()] {
            Some(order) => message.offset = Some(order.witness(shard, number, position)),
            None => assert_eq!(position, None, "a hub without history gives no positions"),
        }
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

    /// A witness on `shard` was told a position.
    pub fn check_told(&self, shard: usize, position: Position) {
        let mut orders = self.hubs.iter().flatten();
        let order = orders.find(|order| order.epoch == position.epoch).expect("an epoch of a hub");
        assert_eq!(order.base + order.delivered[shard] as u64, position.offset);
    }

    /// The messages of these sources that were published and no witness has received.
    pub fn pending_of(&self, wanted: impl Fn(Source) -> bool) -> Vec<Number> {
        let mut all: Vec<_> = self.pending.values().flatten().copied().collect();
        all.retain(|&number| wanted(self.messages[number].source));
        all.sort_unstable();
        all
    }

    /// Whether a client can receive a message.
    pub fn carries(&self, form: Form, number: Number) -> bool {
        let takes_binary = matches!(form.framing, Framing::Rfc6455 | Framing::Deflate);
        takes_binary || form.envelope || self.messages[number].kind == Kind::Text
    }

    /// The index of the first message of a channel after an offset, of those that are known.
    pub fn first_after(&self, channel: Channel, offset: u64) -> usize {
        self.order[channel].partition_point(|&number| self.messages[number].offset.unwrap() <= offset)
    }
}
