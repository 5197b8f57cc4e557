//! The oracle: what was said to whom, in which order, and what each client may hear of it.
//!
//! A witness on every shard and hub is subscribed to everything and takes all at once; what witnesses hear is the order of each channel,
//! and how much of it a shard has handed out. Every other client is held against that.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use pushd::hub::Kind;
use pushd::wire::Framing;

use crate::random::Random;

/// Channels of each hub.
pub const CHANNELS: [&str; 3] = ["a", "a/b", "news"];

/// A channel's number: over all hubs.
pub type Channel = usize;
/// A message's number.
pub type Number = usize;

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The edge of a shard.
    Outside(usize),
    /// A client.
    Client(usize),
}

/// One message: a publication, where it has a channel; else an echo.
#[derive(Debug)]
pub struct Message {
    pub kind: Kind,
    pub channel: Option<Channel>,
    pub source: Source,
    /// Its place in the order of its channel, once a witness has heard it.
    pub place: Option<usize>,
    pub receipt: Option<Arc<Mutex<Vec<u64>>>>,
}

/// Everything that was said.
pub struct Model {
    pub messages: Vec<Message>,
    by_payload: HashMap<Arc<[u8]>, Number>,
    /// The one order of each channel.
    pub order: Vec<Vec<Number>>,
    /// How much of it each shard has handed out: by shard, then channel.
    pub handed_out: Vec<Vec<usize>>,
    /// What each source published on each channel and no witness has heard yet.
    unheard: HashMap<(Channel, SourceKey), VecDeque<Number>>,
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
            handed_out: vec![vec![0; channels]; shards],
            unheard: HashMap::new(),
        }
    }

    /// A payload unlike any other, of about `size` bytes.
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

    /// Notes a message.
    pub fn note(&mut self, kind: Kind, payload: Vec<u8>, channel: Option<Channel>, source: Source) -> Number {
        let number = self.messages.len();
        assert_eq!(self.by_payload.insert(payload.into(), number), None, "payloads are unique");
        self.messages.push(Message { kind, channel, source, place: None, receipt: None });
        if let Some(channel) = channel {
            self.unheard.entry((channel, source.key())).or_default().push_back(number);
        }
        number
    }

    /// A publication that was refused is never heard.
    pub fn refuse(&mut self, number: Number) {
        let message = &self.messages[number];
        let key = (message.channel.unwrap(), message.source.key());
        assert_eq!(self.unheard.get_mut(&key).and_then(|queue| queue.pop_back()), Some(number));
    }

    /// Which message this is.
    pub fn find(&self, kind: Kind, payload: &[u8]) -> Number {
        let Some(&number) = self.by_payload.get(payload) else {
            panic!("heard {} bytes that nobody said: {:?}", payload.len(), String::from_utf8_lossy(payload));
        };
        assert_eq!(self.messages[number].kind, kind, "text stays text");
        number
    }

    /// A witness on `shard` has heard this.
    pub fn witness(&mut self, shard: usize, kind: Kind, payload: &[u8]) {
        let number = self.find(kind, payload);
        let message = &mut self.messages[number];
        let channel = message.channel.expect("echoes are heard by nobody else");
        let place = self.handed_out[shard][channel];
        self.handed_out[shard][channel] += 1;
        if let Some(&known) = self.order[channel].get(place) {
            assert_eq!(known, number, "shard {shard} heard another order in channel {channel}, at place {place}");
            return;
        }
        assert_eq!(message.place, None, "message {number} was heard twice");
        message.place = Some(place);
        self.order[channel].push(number);
        let queue = self.unheard.get_mut(&(channel, message.source.key()));
        let next = queue.and_then(VecDeque::pop_front);
        assert_eq!(next, Some(number), "{:?} is heard in the order it spoke, without a gap", message.source);
    }

    /// What a source published and no witness has heard.
    pub fn unheard_of(&self, wanted: impl Fn(Source) -> bool) -> Vec<Number> {
        let mut all: Vec<_> = self.unheard.values().flatten().copied().collect();
        all.retain(|&number| wanted(self.messages[number].source));
        all.sort_unstable();
        all
    }

    /// Whether a message can be said in a framing.
    pub fn carries(&self, framing: Framing, number: Number) -> bool {
        matches!(framing, Framing::Rfc6455 | Framing::Deflate) || self.messages[number].kind == Kind::Text
    }

    /// How many messages of a channel's order, in these places, a framing carries.
    pub fn count(&self, channel: Channel, places: std::ops::Range<usize>, framing: Framing) -> usize {
        self.order[channel][places].iter().filter(|&&number| self.carries(framing, number)).count()
    }
}
