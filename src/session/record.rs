//! A session written down: everything another process needs to go on with it, but its socket.
//!
//! What the client said and was not heard stands as bytes that a client could have sent ([`Codec::unfinished`]), what it was not told
//! yet as the frames of its outbox, the first of them with how much of it is written. Its route and its hub stand by name: the
//! other process has its own numbers, and perhaps another configuration. Times are those of a clock that goes on there.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::codec::Codec;
use super::outbox::{Entry, Outbox};
use super::{Allowance, Phase, Seconds, Session, Socket, Terms};
use crate::config::limits::{self, CHANNEL_BYTES_MAX};
use crate::config::{self, Accept, HubId, OnMessage, Origins, SessionLog, WhenSlow};
use crate::hub::{Members, Membership, Topic};
use crate::wire::Dialect;
use crate::wire::fields::{self, Damaged, Fields};

const FLAGS: [bool; 2] = [false, true];
const PHASES: [Phase; 4] = [Phase::Open, Phase::Closing, Phase::Leaving, Phase::Failed];

/// A session without its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// NAME of its server.
    pub server: String,
    /// The path of its route, as the file writes it.
    pub path: String,
    /// NAME of its hub.
    pub hub: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// Whether its messages may be compressed.
    pub inflates: bool,
    /// Where it stands.
    pub phase: Phase,
    /// When it was last heard.
    pub heard: Seconds,
    /// When its timer is due.
    pub due: Seconds,
    /// When a ping went out that is not answered yet.
    pub pinged: Option<Seconds>,
    /// Its subscriptions.
    pub channels: SmallVec<[Arc<str>; 1]>,
    /// The channel its broadcasts go to.
    pub to: Arc<str>,
    /// What it said and was not heard.
    pub said: Vec<u8>,
    /// What it was not told yet.
    pub waiting: Vec<Kept>,
    /// How much of the first of these is written.
    pub written: usize,
}

/// An entry of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// A frame, the place of its channel among the session's (`None`: a reply), and since when it waits.
    Frame(Bytes, Option<usize>, Seconds),
    /// So many messages were dropped here.
    Gap(u64),
    /// A notice of so many that is partly written.
    Notice(Bytes, u64),
}

impl Record {
    /// Writes it down.
    pub fn write(&self, out: &mut Vec<u8>) {
        for text in [&*self.server, &*self.path, &*self.hub, &*self.to] {
            fields::bytes(text.as_bytes(), out);
        }
        let phase = PHASES.iter().position(|phase| *phase == self.phase).unwrap_or_default();
        for number in [self.dialect as u64, u64::from(self.inflates), phase as u64, self.heard.into(), self.due.into()]
        {
            fields::number(number, out);
        }
        // One more, so that 0 is none.
        fields::number(self.pinged.map_or(0, |pinged| u64::from(pinged) + 1), out);
        fields::number(self.channels.len() as u64, out);
        self.channels.iter().for_each(|channel| fields::bytes(channel.as_bytes(), out));
        fields::bytes(&self.said, out);
        fields::number(self.waiting.len() as u64, out);
        self.waiting.iter().for_each(|kept| kept.write(out));
        fields::number(self.written as u64, out);
    }

    /// Reads what [`Record::write`] wrote.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(bytes: &[u8]) -> Result<Record, Damaged> {
        let mut fields = Fields(bytes);
        let (server, path, hub) = (fields.text()?.to_owned(), fields.text()?.to_owned(), fields.text()?.to_owned());
        let to = channel(&mut fields)?;
        let dialect = fields.one_of(&Dialect::ALL)?;
        let (inflates, phase) = (fields.one_of(&FLAGS)?, fields.one_of(&PHASES)?);
        let (heard, due) = (fields.small()?, fields.small()?);
        let pinged = fields.number()?.checked_sub(1).map(Seconds::try_from).transpose();
        // A list is as long as there are bytes for it, so none is made in advance.
        let channels = (0..fields.number()?).map(|_| channel(&mut fields)).collect::<Result<SmallVec<_>, _>>()?;
        let said = fields.bytes()?.to_vec();
        let waiting = 0..fields.number()?;
        let waiting = waiting.map(|_| Kept::read(&mut fields, channels.len())).collect::<Result<Vec<_>, _>>()?;
        let written = fields.small()?;
        fields.end()?;
        if written > 0 && written >= waiting.first().map_or(0, Kept::len) {
            return Err(Damaged("a frame that is written beyond its end"));
        }
        let pinged = pinged.map_err(|_| Damaged("a number out of range"))?;
        Ok(Record {
            server,
            path,
            hub,
            dialect,
            inflates,
            phase,
            heard,
            due,
            pinged,
            channels,
            to,
            said,
            waiting,
            written,
        })
    }
}

fn channel(fields: &mut Fields<'_>) -> Result<Arc<str>, Damaged> {
    match fields.text()? {
        name if name.len() <= CHANNEL_BYTES_MAX => Ok(name.into()),
        _ => Err(Damaged("a channel's name that is too long")),
    }
}

impl Kept {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Kept::Frame(bytes, channel, since) => {
                fields::number(0, out);
                fields::bytes(bytes, out);
                fields::number(channel.map_or(0, |channel| channel as u64 + 1), out);
                fields::number(u64::from(*since), out);
            }
            Kept::Gap(dropped) => {
                fields::number(1, out);
                fields::number((*dropped).min(u32::MAX.into()), out);
            }
            Kept::Notice(bytes, dropped) => {
                fields::number(2, out);
                fields::bytes(bytes, out);
                fields::number((*dropped).min(u32::MAX.into()), out);
            }
        }
    }

    fn read(fields: &mut Fields<'_>, channels: usize) -> Result<Kept, Damaged> {
        match fields.number()? {
            0 => {
                let bytes = Bytes::copy_from_slice(fields.bytes()?);
                let channel = fields.small::<usize>()?.checked_sub(1);
                if channel.is_some_and(|channel| channel >= channels) {
                    return Err(Damaged("a channel that is none of the session's"));
                }
                Ok(Kept::Frame(bytes, channel, fields.small()?))
            }
            1 => Ok(Kept::Gap(fields.small::<u32>()?.into())),
            2 => Ok(Kept::Notice(Bytes::copy_from_slice(fields.bytes()?), fields.small::<u32>()?.into())),
            _ => Err(Damaged("a choice that is none")),
        }
    }

    fn len(&self) -> usize {
        match self {
            Kept::Frame(bytes, ..) | Kept::Notice(bytes, _) => bytes.len(),
            Kept::Gap(_) => 0,
        }
    }
}

impl Terms {
    /// What a session may whose route is gone: hear that, and go.
    pub fn of_no_route(record: &Record) -> Terms {
        let hub_id = HubId(u32::MAX);
        let route = config::WebSocket {
            hub: hub_id,
            channels: Vec::new(),
            on_message: OnMessage::Ignore,
            to: None,
            accept: Accept::Both,
            greeting: None,
            message: None,
            draft76: false,
            subprotocols: Vec::new(),
            origins: Origins::Same,
            log: SessionLog::Off,
        };
        let hub = config::Hub {
            name: record.hub.clone(),
            message_bytes_max: limits::MESSAGE_BYTES_MAX,
            messages_per_second: limits::MESSAGES_PER_SECOND as u32,
            bytes_per_second: limits::BYTES_PER_SECOND as u32,
            message_timeout: limits::MESSAGE_TIMEOUT,
            queue_bytes_max: limits::QUEUE_BYTES_MAX,
            queue_messages_max: limits::QUEUE_MESSAGES_MAX,
            queue_age_max: None,
            when_slow: WhenSlow::Disconnect,
            gap_notice: None,
            ping: None,
            pong_timeout: limits::PONG_TIMEOUT,
            subscribers_max: None,
            deflate_bytes_min: None,
        };
        let (server, path) = (record.server.clone(), record.path.clone());
        Terms { server, path, route, hub_id, hub, members: Members::default() }
    }
}

impl<S: Socket> Session<S> {
    /// Everything of it but its socket; `channels` are those it is subscribed to. Nothing may be staged.
    pub fn record(&self, channels: SmallVec<[Arc<str>; 1]>) -> Record {
        debug_assert!(self.staged.is_empty(), "what is staged would be lost");
        let terms = &self.terms;
        let mut said = Vec::new();
        self.codec.unfinished(&mut said);
        said.extend_from_slice(self.unheard.as_deref().unwrap_or_default());
        let topics: SmallVec<[Topic; 1]> = channels.iter().map(|name| Topic::of(terms.hub_id, name)).collect();
        let (waiting, written) = self.outbox.as_ref().map_or_else(Default::default, |outbox| outbox.kept(&topics));
        Record {
            server: terms.server.clone(),
            path: terms.path.clone(),
            hub: terms.hub.name.clone(),
            dialect: self.dialect,
            inflates: self.codec.inflates(),
            phase: self.phase,
            heard: self.heard,
            due: self.due,
            pinged: self.pinged,
            channels,
            to: self.to.clone(),
            said,
            waiting,
            written,
        }
    }

    /// The session that was written down, not seated yet; it goes by `terms` from now on.
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
        Session {
            socket,
            dialect: record.dialect,
            phase: record.phase,
            dismissed: None,
            // Whoever waited for its outbox goes on once that is empty; for the others it is one read for nothing.
            paused: outbox.is_some(),
            unread: false,
            ending: false,
            unheard: (!record.said.is_empty()).then(|| record.said.into()),
            generation,
            heard: record.heard.min(now),
            allowance: Allowance::new(&terms.hub),
            due: record.due,
            pinged: record.pinged.map(|pinged| pinged.min(now)),
            terms,
            to: record.to,
            membership,
            seats: SmallVec::new(),
            codec: Codec::new(record.dialect, record.inflates),
            staged: Default::default(),
            outbox: outbox.map(Box::new),
        }
    }
}

impl Outbox {
    /// What waits, and how much of the first entry is written; a session's `topics` stand in the order of its channels.
    fn kept(&self, topics: &[Topic]) -> (Vec<Kept>, usize) {
        let place = |topic: Topic| topics.iter().position(|other| *other == topic);
        let kept = self.entries().map(|entry| match entry {
            Entry::Frame { bytes, topic, since } => Kept::Frame(bytes.clone(), topic.and_then(place), *since),
            Entry::Gap(dropped) => Kept::Gap(*dropped),
            Entry::Notice { bytes, dropped } => Kept::Notice(bytes.clone(), *dropped),
        });
        (kept.collect(), self.written())
    }

    fn of(kept: Vec<Kept>, written: usize, topics: &[Topic]) -> Outbox {
        let entries = kept.into_iter().map(|kept| match kept {
            Kept::Frame(bytes, channel, since) => {
                Entry::Frame { bytes, topic: channel.and_then(|place| topics.get(place).copied()), since }
            }
            Kept::Gap(dropped) => Entry::Gap(dropped),
            Kept::Notice(bytes, dropped) => Entry::Notice { bytes, dropped },
        });
        Outbox::with(entries.collect(), written)
    }
}
