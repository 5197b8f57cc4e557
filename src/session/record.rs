//! The record of a session for another process: everything except its socket.
//!
//! Bytes that were received and not decoded are written as a client could have sent them ([`Codec::unfinished`]). Frames that were
//! not sent yet are the entries of its outbox, and how much of the first one is written. Route and hub are written by name, because
//! the other process has its own numbers and perhaps another configuration. Times are those of the clock of the sessions, which
//! continues in the other process.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::catch_up::{CatchUp, POSITION_SECONDS};
use super::codec::Codec;
use super::outbox::{Entry, Outbox};
use super::speech::{Plain, Speech};
use super::{Granted, Phase, Reading, Seconds, Session, Socket, State, Terms};
use crate::config::limits::{CHANNEL_BYTES_MAX, IDENTITY_BYTES_MAX};
use crate::config::{self, ChannelPattern, HubId, SessionLog};
use crate::hub::{Members, Membership, Position, Selector, Since, Topic};
use crate::wire::Framing;
use crate::wire::fields::Damaged;
use crate::wire::tagged::{Field, numbered, tagged};

numbered!(Framing { 0 Rfc6455, 1 Hixie76, 2 Deflate, 3 EventStream, 4 BareEventStream, 5 Poll, 6 BarePoll });
numbered!(Phase { 0 Open, 1 Closing, 2 Leaving, 3 HalfClosed });

/// A session without its socket. A field that is missing has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// NAME of its server.
    pub server: String,
    /// The path of its route, as in the configuration file.
    pub path: String,
    /// NAME of its hub.
    pub hub: String,
    /// Its framing.
    pub framing: Framing,
    /// Whether its messages may be compressed.
    pub inflates: bool,
    /// The state of its connection.
    pub phase: Phase,
    /// When its client last sent something.
    pub heard: Seconds,
    /// When its timer is due.
    pub due: Seconds,
    /// When a ping was sent that is not answered yet.
    pub pinged: Option<Seconds>,
    /// The channels it is subscribed to, by name.
    pub channels: SmallVec<[Arc<str>; 1]>,
    /// The channel that its messages are published on.
    pub to: Arc<str>,
    /// Bytes that were received and not decoded.
    pub undecoded: Vec<u8>,
    /// The entries of its outbox.
    pub waiting: Vec<Kept>,
    /// How many bytes of the first entry are written.
    pub written: u64,
    /// Subscriptions that begin when the client has received what it missed.
    pub behind: Vec<Behind>,
    /// The patterns it is subscribed to.
    pub patterns: SmallVec<[Arc<str>; 1]>,
    /// When a poll that waits is answered at the latest.
    pub answer_due: Seconds,
    /// How many messages a poll takes.
    pub messages_max: u32,
    /// So many of the channels, the last ones, are there because the client has asked for them itself.
    pub wished_channels: u32,
    /// The same for patterns.
    pub wished_patterns: u32,
    /// Whether its client is still to be told a position.
    pub owes_position: bool,
    /// Its name for presence. Empty: it has none.
    pub identity: Arc<str>,
    /// When its token expires; 0: it has none.
    pub token_expires: Seconds,
    /// The number of the key that signed its token.
    pub token_key: u64,
    /// The channels that its token allows.
    pub token_allows: Vec<Arc<str>>,
    /// Whether its token allows only these.
    pub token_limits: bool,
}

tagged!(Record {
    1 server,
    2 path,
    3 hub,
    4 to,
    5 framing,
    6 inflates,
    7 phase,
    8 heard,
    9 due,
    10 pinged,
    11 channels,
    12 undecoded,
    13 waiting,
    14 written,
    15 behind,
    16 patterns,
    17 answer_due,
    18 messages_max,
    19 wished_channels,
    20 wished_patterns,
    21 owes_position,
    // 22 to 24 were never written.
    25 identity,
    26 token_expires,
    27 token_key,
    28 token_allows,
    29 token_limits,
});

/// Subscriptions of a session that catches up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behind {
    /// The names of channels.
    pub names: SmallVec<[Arc<str>; 1]>,
    /// The patterns.
    pub patterns: SmallVec<[Arc<str>; 1]>,
    /// The position up to which the client has heard everything, as text.
    pub since: String,
    /// Whether the client has asked for them itself.
    pub is_wished: bool,
    /// The channels in which the client was told of a gap, and of which it has received nothing since.
    pub gaps: SmallVec<[Arc<str>; 1]>,
}

tagged!(Behind { 1 names, 2 patterns, 3 since, 4 is_wished, 5 gaps });

/// An entry of an outbox: a frame, a number of dropped messages, or a notice of them that is partly written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// The frame, or the notice.
    pub bytes: Bytes,
    /// The index of a frame's channel among the channels of the session. `None`: it is a reply, or it came by a pattern, and later
    /// messages do not replace it.
    pub channel: Option<u32>,
    /// Since when a frame waits.
    pub since: Seconds,
    /// How many messages were dropped here.
    pub dropped: u32,
}

tagged!(Kept { 1 bytes, 2 channel, 3 since, 4 dropped });

impl Record {
    /// Reads the record of a session.
    ///
    /// # Errors
    /// The bytes are not a record, or its fields contradict each other.
    pub fn read(bytes: &[u8]) -> Result<Record, Damaged> {
        let mut record = <Record as Field>::read(bytes)?;
        let behind = record.behind.iter().flat_map(|behind| [&behind.names, &behind.patterns, &behind.gaps]);
        let live = record.channels.iter().chain(&record.patterns);
        if live.chain([&record.to]).chain(behind.flatten()).any(|name| name.len() > CHANNEL_BYTES_MAX) {
            return Err(Damaged("the name of a channel is too long"));
        }
        if record.identity.len() > IDENTITY_BYTES_MAX {
            return Err(Damaged("an identity is too long"));
        }
        let channels = record.channels.len();
        if record.waiting.iter().any(|kept| kept.channel.is_some_and(|channel| channel as usize >= channels)) {
            return Err(Damaged("a frame belongs to no channel of the session"));
        }
        // Entries without bytes and without dropped messages: kinds of a later version, unknown here.
        record.waiting.retain(|kept| !kept.bytes.is_empty() || kept.dropped > 0);
        if record.written > 0 && record.written >= record.waiting.first().map_or(0, |kept| kept.bytes.len() as u64) {
            return Err(Damaged("more of a frame is written than it has bytes"));
        }
        Ok(record)
    }
}

impl Terms {
    /// The terms of a session whose route is no longer configured: it may only receive the reason why it is closed.
    pub fn of_no_route(record: &Record) -> Terms {
        let hub = config::Hub { name: record.hub.clone(), ping: None, ..config::Hub::default() };
        Terms {
            server: record.server.clone(),
            path: record.path.clone(),
            transport: record.framing.transport(),
            log: SessionLog::Off,
            speech: Speech::Plain(Plain::receiving(None)),
            hub_id: HubId(u32::MAX),
            hub,
            members: Members::default(),
            token_keys: None,
        }
    }
}

impl<S: Socket> Session<S> {
    /// The record of the session with its subscriptions: those of its route, and those that its client has asked for. `position` is
    /// that up to which it has received everything of them. Nothing may be staged.
    pub fn record(&self, of_route: &[Selector], wished: &[Selector], position: Option<Position>) -> Record {
        let State { framing, phase, heard, pinged, deadline, timer, terms, to, staged, .. } = &self.state;
        debug_assert!(staged.is_empty(), "staged frames would be lost");
        let mut undecoded = Vec::new();
        self.codec.unfinished(&mut undecoded);
        undecoded.extend_from_slice(self.state.unheard());
        let ((mut channels, mut patterns), wished) = (apart(of_route), apart(wished));
        let (wished_channels, wished_patterns) = (wished.0.len() as u32, wished.1.len() as u32);
        channels.extend(wished.0);
        patterns.extend(wished.1);
        let (mut waiting, written) = self.outbox.as_ref().map_or_else(Default::default, |outbox| {
            let topics = channels.iter().map(|name| Topic::of(terms.hub_id, name));
            outbox.kept(&topics.zip(0..).collect())
        });
        let mut behind: Vec<Behind> = self.catching_up().map(Behind::from).collect();
        let poll = self.polling();
        if let Some(poll) = poll {
            waiting.extend(poll.head_kept());
            // It asks again, from where it is.
            let since = position.map_or(Since::Unknown, Since::After);
            behind.extend((!of_route.is_empty()).then(|| Behind::of(of_route, since)));
            channels.clear();
            patterns.clear();
        }
        Record {
            server: terms.server.clone(),
            path: terms.path.clone(),
            hub: terms.hub.name.clone(),
            framing: *framing,
            inflates: self.codec.inflates(),
            phase: *phase,
            heard: *heard,
            due: if *phase == Phase::Open { *timer } else { *deadline },
            pinged: pinged.map(NonZero::get),
            channels,
            to: to.clone(),
            undecoded,
            waiting,
            written,
            behind,
            patterns,
            answer_due: poll.map_or(0, |_| self.state.position_due),
            messages_max: poll.map_or(0, |poll| poll.messages_max as u32),
            wished_channels,
            wished_patterns,
            owes_position: poll.is_none() && self.state.position_due != Seconds::MAX,
            identity: self.identity().cloned().unwrap_or_default(),
            token_expires: self.granted().map_or(0, |granted| granted.expires),
            token_key: self.granted().map_or(0, |granted| granted.key),
            token_allows: self
                .granted()
                .and_then(|granted| granted.allowed.as_ref())
                .into_iter()
                .flatten()
                .map(|pattern| pattern.as_str().into())
                .collect(),
            token_limits: self.granted().is_some_and(|granted| granted.allowed.is_some()),
        }
    }

    /// The session of a record. It has the given `terms`, and is not subscribed to anything yet.
    pub fn resume(
        socket: S,
        record: Record,
        terms: Arc<Terms>,
        membership: Membership,
        generation: u32,
        now: Seconds,
    ) -> Self {
        let topics: SmallVec<[Topic; 1]> = record.channels.iter().map(|name| Topic::of(terms.hub_id, name)).collect();
        let outbox = (!record.waiting.is_empty()).then(|| Outbox::of(record.waiting, record.written, &topics));
        let (framing, inflates, phase) = (record.framing, record.inflates, record.phase);
        let mut state = State::new(framing, terms, record.to, membership, generation, now);
        state.set_identity(Some(record.identity).filter(|identity| !identity.is_empty()));
        let allows = record.token_allows.iter().filter_map(|text| ChannelPattern::parse(text).ok()).collect();
        let (expires, key) = (record.token_expires, record.token_key);
        let granted = Granted { expires, key, allowed: record.token_limits.then_some(allows) };
        state.set_granted((expires > 0).then(|| Box::new(granted)));
        state.phase = record.phase;
        state.heard = record.heard.min(now);
        state.pinged = record.pinged.and_then(|pinged| NonZero::new(pinged.min(now)));
        if record.owes_position {
            state.position_due = now + POSITION_SECONDS;
        }
        state.close_by(now);
        if record.due > 0 {
            // Processes that did not write it had no deadline.
            state.deadline = state.deadline.min(record.due);
        }
        if outbox.is_some() {
            // A session that replies may have to be read on once its outbox is empty. For others it is one read without effect.
            state.reading = Reading::AwaitsOutbox;
        }
        state.replace_unheard(record.undecoded.into());
        let mut session = Session { socket, codec: Codec::new(framing, inflates), outbox: outbox.map(Box::new), state };
        if framing.is_poll() && phase == Phase::Open {
            session.resume_poll(record.answer_due, record.messages_max as usize);
        }
        for behind in record.behind {
            let (since, gaps) = (Since::parse(&behind.since), behind.gaps.clone());
            session.go_on_catching_up(behind.selectors(), since, behind.is_wished, gaps);
        }
        session
    }
}

impl Record {
    /// Its subscriptions: those of its route, and those that its client has asked for.
    pub fn selectors(&self) -> (SmallVec<[Selector; 1]>, SmallVec<[Selector; 1]>) {
        let of_route = |all: &Texts, wished: u32| all.len().saturating_sub(wished as usize);
        let (channels, wished_channels) = self.channels.split_at(of_route(&self.channels, self.wished_channels));
        let (patterns, wished_patterns) = self.patterns.split_at(of_route(&self.patterns, self.wished_patterns));
        (together(channels, patterns), together(wished_channels, wished_patterns))
    }
}

impl From<&CatchUp> for Behind {
    fn from(CatchUp { selectors, since, is_wished, gaps, .. }: &CatchUp) -> Behind {
        Behind { is_wished: *is_wished, gaps: gaps.clone(), ..Behind::of(selectors, *since) }
    }
}

impl Behind {
    fn of(selectors: &[Selector], since: Since) -> Behind {
        let (names, patterns) = apart(selectors);
        Behind { names, patterns, since: since.to_string(), ..Behind::default() }
    }

    fn selectors(&self) -> Arc<[Selector]> {
        together(&self.names, &self.patterns).into_iter().collect()
    }
}

type Texts = SmallVec<[Arc<str>; 1]>;

/// The names and the patterns among some selectors.
fn apart(selectors: &[Selector]) -> (Texts, Texts) {
    let of = |is_pattern: bool| {
        let some = selectors.iter().filter(move |selector| selector.is_pattern == is_pattern);
        some.map(|selector| selector.text.clone()).collect()
    };
    (of(false), of(true))
}

fn together(names: &[Arc<str>], patterns: &[Arc<str>]) -> SmallVec<[Selector; 1]> {
    let names = names.iter().cloned().map(Selector::name);
    names.chain(patterns.iter().cloned().map(Selector::pattern)).collect()
}

impl Outbox {
    /// The entries, and how much of the first one is written. `indexes` are those of the session's channels.
    fn kept(&self, indexes: &HashMap<Topic, u32>) -> (Vec<Kept>, u64) {
        let index = |topic: Topic| indexes.get(&topic).copied();
        let dropped = |dropped: u64| dropped.min(u32::MAX.into()) as u32;
        let kept = self.entries().map(|entry| match entry {
            Entry::Frame { bytes, topic, since } => {
                Kept { bytes: bytes.clone(), channel: topic.and_then(index), since: *since, dropped: 0 }
            }
            Entry::Gap(count) => Kept { dropped: dropped(*count), ..Kept::default() },
            Entry::Notice { bytes, dropped: count } => {
                Kept { bytes: bytes.clone(), dropped: dropped(*count), ..Kept::default() }
            }
        });
        (kept.collect(), self.written() as u64)
    }

    fn of(kept: Vec<Kept>, written: u64, topics: &[Topic]) -> Outbox {
        let topic = |index: u32| topics.get(index as usize).copied();
        let entries =
            kept.into_iter().map(|Kept { bytes, channel, since, dropped }| match (bytes.is_empty(), dropped) {
                (false, 0) => Entry::Frame { bytes, topic: channel.and_then(topic), since },
                (true, dropped) => Entry::Gap(dropped.into()),
                (false, dropped) => Entry::Notice { bytes, dropped: dropped.into() },
            });
        Outbox::with(entries.collect(), written as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::fields::Fields;
    use crate::wire::tagged::put;

    fn kept() -> impl Strategy<Value = Kept> {
        let kept = (vec(any::<u8>(), 0..200), option::of(0..2u32), any::<u32>(), 0..4u32);
        kept.prop_map(|(bytes, channel, since, dropped)| Kept { bytes: bytes.into(), channel, since, dropped })
    }

    fn behind() -> impl Strategy<Value = Behind> {
        let texts = || vec("[a-z*/]{0,8}", 0..3);
        (texts(), texts(), "[a-z0-9-]{0,20}", any::<bool>(), texts()).prop_map(
            |(names, patterns, since, is_wished, gaps)| {
                let [names, patterns, gaps] =
                    [names, patterns, gaps].map(|texts| texts.into_iter().map(Arc::from).collect());
                Behind { names, patterns, since, is_wished, gaps }
            },
        )
    }

    prop_compose! {
        fn record()(
            [server, path, hub] in ["[a-z]{0,8}", "/[a-zäöü]{0,300}", "[a-z]{0,8}"],
            channels in vec("[a-z]{0,20}", 2..5),
            (framing, phase) in (
                prop::sample::select(Framing::ALL.to_vec()),
                prop::sample::select(vec![Phase::Open, Phase::Closing, Phase::Leaving, Phase::HalfClosed]),
            ),
            (inflates, owes_position, heard, due) in any::<(bool, bool, Seconds, Seconds)>(),
            pinged in any::<Option<Seconds>>(),
            undecoded in vec(any::<u8>(), 0..300),
            waiting in vec(kept(), 0..6),
            behind in vec(behind(), 0..3),
            patterns in vec("[a-z*/]{0,8}", 0..3),
            (answer_due, messages_max) in any::<(Seconds, u32)>(),
            (wished_channels, wished_patterns) in (0..4u32, 0..4u32),
            identity in "[a-zä]{0,8}",
            (token_expires, token_key, token_limits) in any::<(Seconds, u64, bool)>(),
            token_allows in vec("[a-z*/]{0,8}", 0..3),
        ) -> Record {
            let channels: SmallVec<[Arc<str>; 1]> = channels.into_iter().map(Arc::from).collect();
            let to = channels[0].clone();
            let mut record = Record {
                server, path, hub, framing, inflates, phase, heard, due, pinged, channels, to, undecoded, waiting, written: 0,
                behind, patterns: patterns.into_iter().map(Arc::from).collect(), answer_due, messages_max, wished_channels,
                wished_patterns, owes_position,
                identity: identity.into(),
                token_expires, token_key, token_allows: token_allows.into_iter().map(Arc::from).collect(), token_limits,
            };
            record.waiting.retain(|kept| *kept != Kept { dropped: 0, bytes: Bytes::new(), ..kept.clone() });
            record.written = record.waiting.first().map_or(0, |kept| kept.bytes.len() as u64 / 2);
            record
        }
    }

    fn written(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.write(&mut out);
        out
    }

    fn fields(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut fields = Fields(bytes);
        std::iter::from_fn(|| fields.tagged().unwrap()).map(|(tag, value)| (tag, value.to_vec())).collect()
    }

    fn message(fields: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        fields.iter().for_each(|(tag, value)| put(*tag, value, &mut out));
        out
    }

    /// The same record with an additional field, in the record itself and in each entry of the outbox.
    fn with(bytes: &[u8], at: prop::sample::Index, field: &(u64, Vec<u8>)) -> Vec<u8> {
        let mut all = fields(bytes);
        for (tag, value) in &mut all {
            if *tag == 13 {
                let waiting: Vec<Vec<u8>> = Vec::read(value).unwrap();
                let longer = waiting.iter().map(|kept| {
                    let mut all = fields(kept);
                    all.insert(at.index(all.len() + 1), field.clone());
                    message(&all)
                });
                value.clear();
                longer.collect::<Vec<_>>().write(value);
            }
        }
        all.insert(at.index(all.len() + 1), field.clone());
        message(&all)
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_and_unknown_fields_are_skipped(
            record in record(), at: prop::sample::Index, tag in 26..=u64::MAX, value in vec(any::<u8>(), 1..300),
        ) {
            let bytes = written(&record);
            prop_assert_eq!(Record::read(&bytes), Ok(record.clone()));
            prop_assert_eq!(Record::read(&with(&bytes, at, &(tag, value))), Ok(record));
        }

        #[test]
        fn a_missing_field_has_its_default(record in record(), at: prop::sample::Index) {
            let mut all = fields(&written(&record));
            let (tag, _) = all.remove(at.index(all.len()));
            let mut expected = record;
            match tag {
                1 => expected.server.clear(),
                2 => expected.path.clear(),
                3 => expected.hub.clear(),
                4 => expected.to = "".into(),
                5 => expected.framing = Framing::Rfc6455,
                6 => expected.inflates = false,
                7 => expected.phase = Phase::Open,
                8 => expected.heard = 0,
                9 => expected.due = 0,
                10 => expected.pinged = None,
                11 => expected.channels.clear(),
                12 => expected.undecoded.clear(),
                13 => expected.waiting.clear(),
                14 => expected.written = 0,
                15 => expected.behind.clear(),
                16 => expected.patterns.clear(),
                17 => expected.answer_due = 0,
                18 => expected.messages_max = 0,
                19 => expected.wished_channels = 0,
                20 => expected.wished_patterns = 0,
                21 => expected.owes_position = false,
                25 => expected.identity = "".into(),
                26 => expected.token_expires = 0,
                27 => expected.token_key = 0,
                28 => expected.token_allows.clear(),
                29 => expected.token_limits = false,
                tag => prop_assert!(false, "tag {} is written but missing in this test", tag),
            }
            prop_assert_eq!(<Record as Field>::read(&message(&all)), Ok(expected));
        }

        #[test]
        fn a_damaged_record_is_an_error_or_a_valid_record(record in record(), cut: prop::sample::Index, at: prop::sample::Index, bits: u8) {
            let mut bytes = written(&record);
            let index = at.index(bytes.len());
            bytes[index] ^= bits;
            for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
                let Ok(read) = Record::read(bytes) else { continue };
                prop_assert_eq!(Record::read(&written(&read)), Ok(read));
            }
        }
    }

    #[test]
    fn an_unknown_number_of_an_enum_is_an_error() {
        let number = |number: u64| {
            let mut out = Vec::new();
            number.write(&mut out);
            out
        };
        assert_eq!(Framing::read(&number(6)), Ok(Framing::BarePoll));
        assert!(Framing::read(&number(7)).is_err());
        assert_eq!(Phase::read(&number(3)), Ok(Phase::HalfClosed));
        assert!(Phase::read(&number(4)).is_err());
    }

    #[test]
    fn a_record_of_few_bytes_does_not_allocate_much() {
        let zeros = vec![0; 8 << 20];
        for tag in [11, 13] {
            assert_eq!(Record::read(&message(&[(tag, zeros.clone())])), Err(Damaged("a list is too long")));
        }
        let long = [13, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Record::read(&long), Err(Damaged("a field is shorter than its length says")));
    }
}
