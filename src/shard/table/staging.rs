//! The frames of one turn: which are to be written, and to which sessions.
//!
//! Publications to one channel that follow each other are a streak. It is staged in one walk over the channel's subscribers, as one
//! range of frames for each encoding in use, so a hundred publications cost a subscriber one step. Replies to one session are staged
//! at once, and are written before publications to many.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use slab::Slab;
use smallvec::{SmallVec, smallvec};

use crate::config::limits::{REPLIES_BYTES_MAX, STAGED_PER_TURN_MAX, TURN_BYTES_MAX};
use crate::hub::{Channels, EncodingKey, Kind, Publication, Slot};
use crate::session::run::{FrameNumber, Run};
use crate::session::{Phase, Session, Socket};
use crate::shard::counters::Counters;
use crate::wire::deflate::Deflater;

/// The frames of one turn.
#[derive(Debug, Default)]
pub(super) struct Staging {
    runs: Vec<Encoded>,
    /// Sessions with publications staged, in the order of staging.
    pub dirty: VecDeque<Slot>,
    /// Sessions with replies staged.
    pub answered: VecDeque<Slot>,
    /// Publications are still being written.
    pub is_flushing: bool,
    /// The cost of all replies.
    pub replies_cost: usize,
    /// The bytes of the pages of history that sessions have received.
    pub pages_bytes: usize,
    /// How many times a publication was staged on a session.
    staged: usize,
    streak: Vec<Arc<Publication>>,
    /// The memory that the streak takes, in bytes.
    streak_cost: usize,
    deflater: Deflater,
}

/// The run of one encoding.
#[derive(Debug)]
struct Encoded {
    key: EncodingKey,
    run: Run,
    /// How many sessions use it.
    sessions: usize,
}

/// What a streak is in one run.
#[derive(Debug, Clone, Default)]
struct Stretch {
    frames: Option<Range<FrameNumber>>,
    /// Binary messages are sent, too. Text always is.
    carries_binary: bool,
    /// Only the first message is sent: it is the answer to a poll.
    takes_one: bool,
    reached: u64,
}

/// What a streak is in each run.
type Stretches = SmallVec<[Stretch; 4]>;

impl Stretch {
    /// Whether message number `index` of the streak is sent.
    fn carries(&self, index: usize, kind: Kind) -> bool {
        (kind == Kind::Text || self.carries_binary) && !(self.takes_one && index > 0)
    }
}

impl Staging {
    /// The number of the run for an encoding, which one more session uses.
    pub fn join(&mut self, key: EncodingKey) -> u32 {
        let known = self.runs.iter().position(|encoded| encoded.key == key);
        // A run that no session uses, and that holds no frames, serves another encoding.
        let free = || self.runs.iter().position(|encoded| encoded.sessions == 0 && encoded.run.is_empty());
        let number = known.or_else(free).unwrap_or_else(|| {
            self.runs.push(Encoded { key, run: Run::default(), sessions: 0 });
            self.runs.len() - 1
        });
        self.runs[number].key = key;
        self.runs[number].sessions += 1;
        number as u32
    }

    /// One session less uses a run.
    pub fn leave(&mut self, run: u32) {
        self.runs[run as usize].sessions -= 1;
    }

    /// A run by its number.
    pub fn run(&mut self, run: u32) -> &mut Run {
        &mut self.runs[run as usize].run
    }

    /// Whether a publication goes to the channel of the streak.
    pub fn continues_streak(&self, publication: &Publication) -> bool {
        let same = |last: &Publication| {
            last.message.hub == publication.message.hub && last.message.channel == publication.message.channel
        };
        self.streak.last().is_none_or(|last| same(last))
    }

    /// Adds a publication to the streak.
    pub fn add(&mut self, publication: Arc<Publication>) {
        self.streak_cost += publication.message.cost();
        self.streak.push(publication);
    }

    /// Notes that a session has a reply staged, or has ended.
    pub fn has_reply(&mut self, slot: Slot) {
        // It is written before publications, even where a publication is staged for the session already.
        if self.answered.back() != Some(&slot) {
            self.answered.push_back(slot);
        }
    }

    /// Whether enough is staged to write it before more is taken.
    pub fn is_full(&self) -> bool {
        let cost: usize = self.runs.iter().map(|encoded| encoded.run.cost()).sum();
        self.staged >= STAGED_PER_TURN_MAX || self.streak_cost + cost + self.pages_bytes >= TURN_BYTES_MAX
    }

    /// How much more may be staged in reply. Where nothing may, no more clients are heard for now.
    pub fn replies_left(&self) -> usize {
        REPLIES_BYTES_MAX.saturating_sub(self.replies_cost)
    }

    /// Forgets all frames: they are written.
    pub fn clear(&mut self) {
        self.runs.iter_mut().for_each(|encoded| encoded.run.clear());
        (self.replies_cost, self.staged, self.pages_bytes) = (0, 0, 0);
    }

    /// Stages the streak on the subscribers of its channel, and on those of the patterns that match it.
    pub fn stage_streak<S: Socket>(
        &mut self,
        sessions: &mut Slab<Session<S>>,
        channels: &Channels,
        counters: &Counters,
    ) {
        let Some(first) = self.streak.first() else { return };
        let (hub, channel) = (first.message.hub, first.message.channel.clone());
        let mut stretches: Stretches = smallvec![Stretch::default(); self.runs.len()];
        for slot in channels.subscribers(hub, &channel) {
            self.stage_on(slot, &mut sessions[slot as usize], &mut stretches);
        }
        let (patterns, steps) = channels.matching(hub, &channel);
        self.staged += steps;
        if !patterns.is_empty() {
            let named = channels.subscribers(hub, &channel);
            self.stage_on_matching(named, channels.subscribers_of(&patterns), sessions, &mut stretches);
        }
        for Stretch { frames, reached, carries_binary, .. } in &stretches {
            let frames = frames.as_ref().map_or(0, |frames| u64::from(frames.end - frames.start));
            counters.delivered.add(reached * frames);
            if !carries_binary {
                counters.unspeakable.add(reached * (self.streak.len() as u64 - frames));
            }
        }
        for (index, publication) in self.streak.drain(..).enumerate() {
            if let Some(receipt) = &publication.message.receipt {
                let carrying = stretches.iter().filter(|stretch| stretch.carries(index, publication.message.kind));
                receipt.add(carrying.map(|stretch| stretch.reached).sum());
            }
        }
        self.streak_cost = 0;
    }

    // A call for each delivery would be a fifth of what staging costs.
    #[inline(always)]
    fn stage_on<S: Socket>(&mut self, slot: Slot, session: &mut Session<S>, stretches: &mut Stretches) {
        self.staged += 1;
        if session.phase() != Phase::Open {
            return;
        }
        let (stretch, encoded) = (&mut stretches[session.run() as usize], &mut self.runs[session.run() as usize]);
        let frames = match &stretch.frames {
            Some(frames) => frames.clone(),
            None => {
                let frames = encoded.push(&self.streak, session, &mut self.deflater);
                stretch.carries_binary = session.carries(Kind::Binary);
                stretch.takes_one = session.framing().is_poll();
                stretch.frames = Some(frames.clone());
                frames
            }
        };
        stretch.reached += 1;
        if !frames.is_empty() && session.stage(&mut encoded.run, frames) {
            self.dirty.push_back(slot);
        }
    }

    /// Stages the streak on subscribers of patterns, except on those that have it already: by the channel's name, or by another pattern.
    fn stage_on_matching<S: Socket>(
        &mut self,
        named: impl Iterator<Item = Slot>,
        slots: impl Iterator<Item = Slot>,
        sessions: &mut Slab<Session<S>>,
        stretches: &mut Stretches,
    ) {
        // Of sessions that cannot receive the streak, nothing shows that they were looked at. They are counted once, too.
        let carries_nothing = |stretch: &Stretch| stretch.frames.as_ref().is_some_and(Range::is_empty);
        let mut without: HashSet<Slot> = named.take_while(|_| stretches.iter().any(carries_nothing)).collect();
        for slot in slots {
            let session = &mut sessions[slot as usize];
            let run = session.run() as usize;
            let is_staged = match &stretches[run].frames {
                Some(frames) if frames.is_empty() => without.contains(&slot),
                Some(frames) => session.staged().ends_at(frames.end),
                None => false,
            };
            if is_staged {
                self.staged += 1;
                continue;
            }
            self.stage_on(slot, session, stretches);
            if carries_nothing(&stretches[run]) {
                without.insert(slot);
            }
        }
    }
}

impl Encoded {
    /// Adds the publications of a streak that `session`'s framing can carry.
    fn push<S: Socket>(
        &mut self,
        streak: &[Arc<Publication>],
        session: &Session<S>,
        deflater: &mut Deflater,
    ) -> Range<FrameNumber> {
        let (framing, terms) = (session.framing(), session.terms());
        let start = self.run.next();
        // The first message is the whole answer to a poll. The others come with the next one.
        let count = if framing.is_poll() { 1 } else { streak.len() };
        for publication in streak[..count].iter().filter(|publication| session.carries(publication.message.kind)) {
            let frame = terms.frame(publication, framing, self.key, deflater);
            self.run.push(frame, publication.message.topic);
        }
        start..self.run.next()
    }
}
