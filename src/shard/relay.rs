//! The turn of a shard: messages from clients, other shards and HTTP go to the owners of their channels, and from the owners to the
//! tables of all shards, in the order that each owner makes.
//!
//! The relay knows mailboxes and a table, but neither a poller nor a clock, so a simulation takes exactly the turns that a shard takes.

mod presence;

use std::cell::{RefCell, RefMut};
use std::sync::Arc;

use smallvec::SmallVec;

use super::lane::{Delivery, Request};
use super::mailbox::Mailbox;
use super::owner::{Admitted, Answer, Asker, Owner, PlannedHistory, Question};
use super::poller::Ready;
use super::register::Register;
use super::table::Table;
use crate::config::HubId;
use crate::config::limits::PRESENCE_WORK_PER_TURN;
use crate::hub::history::Memory;
use crate::hub::{Message, Partition, Publication};
use crate::session::catch_up::Asked;
use crate::session::work::Work;
use crate::session::{Seconds, Socket};

/// The place of one shard among all.
#[derive(Debug)]
pub struct Relay {
    index: usize,
    mailboxes: Arc<[Mailbox]>,
    owner: RefCell<Owner>,
    register: RefCell<Register>,
}

impl Relay {
    /// Of shard number `index`.
    pub fn new(index: usize, mailboxes: Arc<[Mailbox]>) -> Relay {
        Relay { index, mailboxes, owner: RefCell::default(), register: RefCell::default() }
    }

    /// This shard's own mailbox.
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailboxes[self.index]
    }

    /// The mailboxes of all shards.
    pub fn mailboxes(&self) -> &[Mailbox] {
        &self.mailboxes
    }

    /// The hubs that this shard owns.
    pub fn owner(&self) -> RefMut<'_, Owner> {
        self.owner.borrow_mut()
    }

    /// Who is on the channels that this shard owns.
    pub fn register(&self) -> RefMut<'_, Register> {
        self.register.borrow_mut()
    }

    /// Owns those of these hubs with history that are this shard's.
    pub fn own<'h>(&self, histories: impl Iterator<Item = (HubId, &'h PlannedHistory)>, memory: &Memory) {
        let own = histories.filter(|(hub, _)| self.owner_of(Partition::of_hub(*hub)) == self.index);
        self.owner().own(own, memory);
    }

    /// One turn: takes what came, stages it, writes it; of each only so much as a turn may.
    pub fn turn<S: Socket>(&self, table: &mut Table<S>, now: Seconds, ready: impl IntoIterator<Item = Ready>) {
        table.set_time(now);
        self.take_publications(table);
        table.set_room(self.has_room());
        for ready in ready {
            if ready.writable {
                table.writable(ready.key);
            }
            if ready.readable {
                table.readable(ready.key, ready.ending);
            }
        }
        table.read_sessions(|table| self.relay_published(table));
        // Last, so that a client whose answer is here already is not closed for being silent.
        table.tick(now);
        // It may have read a session before closing it.
        self.relay_published(table);
        self.answer_some(table);
        self.tell_changes(table);
        self.owner().expire(now);
        table.sweep_on();
        table.flush_some();
    }

    /// Takes what is to be published, as much as a turn may stage. While a publication is still being written, others wait in their lanes.
    fn take_publications<S: Socket>(&self, table: &mut Table<S>) {
        if table.is_flushing() {
            return;
        }
        while !table.is_turn_full()
            && let Some(delivery) = self.mailbox().deliveries().pop()
        {
            self.take(delivery, table);
        }
        self.deliver_kept(table);
        let mut work = Work::of(PRESENCE_WORK_PER_TURN);
        while !table.is_turn_full()
            && !work.is_spent()
            && self.deliveries_have_room()
            && let Some(request) = self.mailbox().requests().pop()
        {
            work.spend(request.work());
            self.serve(request, table);
        }
    }

    /// Whether something is left that could be done in the next turn: publications, questions, changes, or memory to release.
    pub fn has_work(&self) -> bool {
        self.mailbox().deliveries().waiting() > 0
            || (self.mailbox().requests().waiting() > 0 || self.owner().has_questions()) && self.deliveries_have_room()
            || self.register().has_changes() && self.has_room()
            || self.owner().has_kept() && self.deliveries_have_room()
            || self.owner().must_release()
    }

    /// Answers questions of sessions that catch up, as many as a turn may.
    fn answer_some<S: Socket>(&self, table: &mut Table<S>) {
        if !self.owner().has_questions() || table.is_flushing() || !self.deliveries_have_room() {
            return;
        }
        let (now, work) = (table.now(), Work::of(table.pace().answers));
        self.owner().answer_some(now, work, &self.mailboxes, |answer| self.deliver_page(answer, table));
        self.ask_owners(table);
    }

    /// Sends a page to the shard of its session. It has its place among the publications of its hub.
    fn deliver_page<S: Socket>(&self, answer: Answer, table: &mut Table<S>) {
        match answer.asker.shard {
            shard if shard == self.index => table.take_page(answer),
            shard => self.mailboxes[shard].deliver(Delivery::Page(Box::new(answer))),
        }
    }

    /// Sends the questions of sessions that catch up to the owners of their hubs.
    fn ask_owners<S: Socket>(&self, table: &mut Table<S>) {
        for (key, hub, asked) in table.take_questions() {
            let Asked { selectors, since, serial, messages_max } = asked;
            let asker = Asker { shard: self.index, key, serial };
            let question = Question { hub, selectors, since, messages_max, asker };
            match self.owner_of(Partition::of_hub(hub)) {
                owner if owner == self.index => self.owner().ask(question),
                owner => self.mailboxes[owner].ask(Request::Page(Box::new(question))),
            }
        }
    }

    /// Publishes a message that does not come from a session. Returns whether there was room for it.
    pub fn publish<S: Socket>(&self, message: Message, table: &mut Table<S>) -> bool {
        match self.owner_of(message.partition) {
            owner if owner == self.index && !self.must_wait(table) => {
                if !self.deliveries_have_room() {
                    return false;
                }
                self.spread(message, table);
                self.mailbox().bell.notify_one();
                true
            }
            owner => self.mailboxes[owner].request(message).is_ok(),
        }
    }

    /// Publishes messages that do not come from sessions: all of one owner in one step, through its lane. So a large batch takes as many
    /// turns as it needs, and other publications have theirs. Returns whether there was room; if not, none of them is published.
    pub fn publish_all(&self, messages: impl IntoIterator<Item = Message>) -> bool {
        let mut by_owner: Vec<Vec<Message>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for message in messages {
            by_owner[self.owner_of(message.partition)].push(message);
        }
        let batches = || self.mailboxes.iter().zip(&by_owner).filter(|(_, messages)| !messages.is_empty());
        if !batches().all(|(mailbox, _)| mailbox.requests().has_room()) {
            return false;
        }
        for (mailbox, messages) in self.mailboxes.iter().zip(by_owner) {
            if !messages.is_empty() {
                mailbox.request_all(messages);
            }
        }
        true
    }

    /// Sends the messages that sessions published to the owners of their channels.
    pub fn relay_published<S: Socket>(&self, table: &mut Table<S>) {
        let published: SmallVec<[Message; 8]> = table.take_published().collect();
        for message in published {
            self.publish_in_order(message, table);
        }
        self.relay_visits(table);
        self.ask_owners(table);
        table.set_room(self.has_room());
    }

    /// Publishes a message, whether there is room or not, behind those that were published before it.
    fn publish_in_order<S: Socket>(&self, message: Message, table: &mut Table<S>) {
        match self.owner_of(message.partition) {
            owner if owner == self.index && !self.must_wait(table) => self.spread(message, table),
            owner => self.mailboxes[owner].request_anyway(message),
        }
    }

    /// The shard that owns a partition.
    pub fn owner_of(&self, partition: Partition) -> usize {
        partition.owner(self.mailboxes.len())
    }

    /// Whether messages of channels that this shard owns must wait in its own lane: behind others there, or until a turn's worth is written.
    fn must_wait<S: Socket>(&self, table: &Table<S>) -> bool {
        table.is_flushing() || table.is_turn_full() || self.mailbox().requests().waiting() > 0
    }

    /// Serves every request that waits, whether there is room or not. Where nobody makes requests any more, none are left. What waits for
    /// a disk is delivered before it is there: the process writes it before it ends.
    pub fn serve_all<S: Socket>(&self, table: &mut Table<S>) {
        while let Some(request) = self.mailbox().requests().pop() {
            self.serve(request, table);
            if table.is_turn_full() {
                table.flush();
            }
        }
        loop {
            let Some(publication) = self.owner().next_kept(table.now(), |_| true) else { break };
            self.deliver(publication, table);
            if table.is_turn_full() {
                table.flush();
            }
        }
        table.flush();
    }

    /// Takes every delivery that waits, and flushes. Where every owner has served its last request, no session misses anything then.
    pub fn take_all<S: Socket>(&self, table: &mut Table<S>) {
        while let Some(delivery) = self.mailbox().deliveries().pop() {
            self.take(delivery, table);
            if table.is_turn_full() {
                table.flush();
            }
        }
        table.flush();
    }

    /// Does what was asked of this shard as an owner.
    fn serve<S: Socket>(&self, request: Request, table: &mut Table<S>) {
        match request {
            Request::Publish(message) => self.spread(message, table),
            Request::Page(question) => self.owner().ask(*question),
            Request::Visit(visit) => self.register().visit(visit, table.now()),
            Request::Attendees(inquiry) => self.register().answer(inquiry),
        }
    }

    /// Passes on what an owner sent.
    fn take<S: Socket>(&self, delivery: Delivery, table: &mut Table<S>) {
        match delivery {
            Delivery::Publication(publication) => table.publish(publication),
            Delivery::Page(answer) => table.take_page(*answer),
        }
    }

    /// Makes a publication of a message, as the owner of its channel, and delivers it to all shards; if its hub is durable, when it is on
    /// the disk. The order of the channel is made here.
    fn spread<S: Socket>(&self, message: Message, table: &mut Table<S>) {
        let (message, position) = match self.owner().admit(message, table.now()) {
            Admitted::New(message, position) => (message, position),
            Admitted::Refused => return self.mailbox().counters.unkept.add(1),
            Admitted::Known => return,
        };
        self.mailbox().counters.published.add(1);
        let publication = Arc::new(Publication::from(message).at(position));
        let (mailboxes, owner) = (self.mailboxes.clone(), self.index);
        if !self.owner().keep(&publication, move || mailboxes[owner].bell.notify_one()) {
            self.deliver(publication, table);
        }
    }

    /// Delivers publications that have waited for a disk.
    fn deliver_kept<S: Socket>(&self, table: &mut Table<S>) {
        while !table.is_turn_full() && self.deliveries_have_room() {
            let Some(publication) = self.owner().next_kept(table.now(), Publication::is_settled) else { return };
            self.deliver(publication, table);
        }
    }

    /// Delivers a publication to all shards.
    fn deliver<S: Socket>(&self, publication: Arc<Publication>, table: &mut Table<S>) {
        for mailbox in self.others() {
            mailbox.deliver(Delivery::Publication(publication.clone()));
        }
        table.publish(publication);
    }

    /// Whether there is room for messages of this shard's clients, whichever shard owns the channel.
    pub fn has_room(&self) -> bool {
        self.mailboxes.iter().all(|mailbox| mailbox.requests().has_room()) && self.deliveries_have_room()
    }

    fn deliveries_have_room(&self) -> bool {
        self.others().all(|mailbox| mailbox.deliveries().has_room())
    }

    fn others(&self) -> impl Iterator<Item = &Mailbox> {
        let others = self.mailboxes.iter().enumerate().filter(|(index, _)| *index != self.index);
        others.map(|(_, mailbox)| mailbox)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{self, IoSlice};
    use std::rc::Rc;

    use bytes::Bytes;

    use super::*;
    use crate::config::HubId;
    use crate::config::limits::{READ_BYTES, SLICE_WORK, TURN_BYTES_MAX};
    use crate::hub::Kind;
    use crate::session::Phase;
    use crate::shard::testing::{Line, arrival};
    use crate::wire::rfc6455::PING;

    /// A client that always has more to send. It counts how often it is read.
    struct Endless(Rc<Cell<usize>>);

    impl Socket for Endless {
        fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.update(|reads| reads + 1);
            // A binary message of two bytes, whose mask changes nothing.
            buffer.as_chunks_mut::<8>().0.fill([0x82, 0x82, 0, 0, 0, 0, 7, 7]);
            Ok(buffer.len())
        }

        fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn shutdown_write(&mut self) {}

        fn peer(&self) -> String {
            String::new()
        }
    }

    /// A client of a flood, or another one.
    enum Party {
        Flood,
        Line(Line),
    }

    impl Socket for Party {
        fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self {
                Party::Flood => Endless(Rc::default()).try_read(buffer),
                Party::Line(line) => line.try_read(buffer),
            }
        }

        fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            match self {
                Party::Flood => Endless(Rc::default()).try_write_vectored(slices),
                Party::Line(line) => line.try_write_vectored(slices),
            }
        }

        fn shutdown_write(&mut self) {}

        fn peer(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn a_pong_that_came_during_a_pause_of_the_shard_counts() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let mut table = Table::new(mailboxes[0].counters.clone());
        let (relay, line) = (Relay::new(0, mailboxes), Line::default());
        line.room.set(1000);
        let key = table.adopt(line.clone(), arrival("on_message = \"ignore\"", "ping = \"5s\"\npong_timeout = \"2s\""));
        relay.turn(&mut table, 5, []);
        assert_eq!(*line.heard.borrow(), PING);
        // A pong of no bytes.
        line.says.borrow_mut().extend([0x8a, 0x80, 0, 0, 0, 0]);
        relay.turn(&mut table, 60, [Ready { key, readable: true, writable: false, ending: false }]);
        assert!(table.session(key).is_some_and(|session| session.phase() == Phase::Open));
    }

    #[test]
    fn a_message_read_just_before_a_session_is_closed_is_published() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let mut table = Table::new(mailboxes[0].counters.clone());
        let (relay, [talking, hearing]) = (Relay::new(0, mailboxes), [Line::default(), Line::default()]);
        for (line, hub) in [(&talking, "ping = \"5s\"\npong_timeout = \"2s\""), (&hearing, "ping = false")] {
            line.room.set(1000);
            table.adopt(line.clone(), arrival("on_message = \"broadcast\"", hub));
        }
        relay.turn(&mut table, 5, []);
        hearing.heard.borrow_mut().clear();
        // Its readiness is not reported: it is read because it is about to be closed as silent.
        talking.says.borrow_mut().extend([0x82, 0x82, 0, 0, 0, 0, 7, 7]);
        relay.turn(&mut table, 7, []);
        relay.turn(&mut table, 7, []);
        assert!(hearing.heard.borrow().starts_with(&[0x82, 2, 7, 7]), "{:?}", hearing.heard.borrow());
    }

    #[test]
    fn a_batch_is_published_as_a_whole_or_not_at_all() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default(), Mailbox::default()].into();
        let (relay, mut table) = (Relay::new(0, mailboxes.clone()), Table::<Line>::new(Arc::default()));
        let message = |number: u32| Message::new(HubId(0), number.to_string().into(), Kind::Text, Bytes::new());
        let owned_by = |owner| (0..1000).map(message).filter(move |message| message.partition.owner(2) == owner);
        let batch = || (0..100).map(message);
        assert!(relay.publish_all(batch()));
        let waiting = [0, 1].map(|shard: usize| mailboxes[shard].requests().waiting());
        assert!(waiting[0] > 0 && waiting[1] > 0 && waiting[0] + waiting[1] == 100, "{waiting:?}");
        relay.turn(&mut table, 0, []);
        assert_eq!(mailboxes[1].deliveries().waiting(), waiting[0], "all that this shard owns, in one turn");
        while mailboxes[1].requests().has_room() {
            mailboxes[1].request_all(owned_by(1).collect());
        }
        let before = mailboxes[1].requests().waiting();
        assert!(!relay.publish_all(batch()));
        assert_eq!((mailboxes[0].requests().waiting(), mailboxes[1].requests().waiting()), (0, before));
        assert!(relay.publish_all(owned_by(0)), "only the owners of its messages must have room");
    }

    #[test]
    fn a_large_publication_to_many_does_not_hold_up_a_ping() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let mut table = Table::new(mailboxes[0].counters.clone());
        let relay = Relay::new(0, mailboxes);
        let lines: Vec<Line> = (0..200).map(|_| Line::default()).collect();
        let hub = "message_max = \"8MiB\"\nqueue_max = \"8MiB\"";
        let keys: Vec<_> = lines
            .iter()
            .map(|line| {
                line.room.set(16 << 20);
                table.adopt(line.clone(), arrival("on_message = \"ignore\"", hub))
            })
            .collect();
        let hub_id = table.session(keys[0]).unwrap().terms().hub_id;
        let large = vec![7; 5 << 20].into();
        assert!(relay.publish(Message::new(hub_id, "all".into(), Kind::Binary, large), &mut table));
        relay.turn(&mut table, 0, []);
        assert!(table.is_flushing(), "it takes several turns");
        let last = lines.last().unwrap();
        last.says.borrow_mut().extend([0x89, 0x80, 0, 0, 0, 0]);
        relay.turn(&mut table, 0, [Ready { key: keys[199], readable: true, writable: false, ending: false }]);
        assert!(table.is_flushing(), "and is still being written to others");
        assert!(last.heard.borrow().ends_with(&[0x8a, 0]));
    }

    #[test]
    fn a_close_in_the_turn_after_a_long_pause_is_sent() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let mut table = Table::new(mailboxes[0].counters.clone());
        let (relay, line) = (Relay::new(0, mailboxes), Line::default());
        line.room.set(1000);
        let key = table.adopt(line.clone(), arrival("on_message = \"ignore\"", ""));
        relay.turn(&mut table, 5, []);
        // A frame that no client may send, since it is not masked.
        line.says.borrow_mut().extend([0x81, 0x01, b'x']);
        relay.turn(&mut table, 60, [Ready { key, readable: true, writable: false, ending: false }]);
        assert_eq!(line.heard.borrow().get(2..4), Some(&1002u16.to_be_bytes()[..]));
    }

    #[test]
    fn a_busy_publisher_leaves_room_for_the_others() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default(), Mailbox::default()].into();
        let mut table = Table::new(mailboxes[0].counters.clone());
        let relay = Relay::new(0, mailboxes.clone());
        let reads: [Rc<Cell<usize>>; 3] = Default::default();
        let keys = reads
            .each_ref()
            .map(|reads| table.adopt(Endless(reads.clone()), arrival("on_message = \"broadcast\"", "")));
        for turn in 0..12 {
            // The messages of one of them fill the lane of the other shard, which is empty again at the next turn.
            while mailboxes[1].requests().pop().is_some() || mailboxes[1].deliveries().pop().is_some() {}
            let ready = keys.map(|key| Ready { key, readable: turn == 0, writable: false, ending: false });
            relay.turn(&mut table, 0, ready);
        }
        let reads = reads.map(|reads| reads.get());
        assert!(reads[0] > 0 && reads.iter().all(|read| *read == reads[0]), "{reads:?}");
    }

    #[test]
    fn messages_of_no_bytes_fill_a_turn_too() {
        let mut table = Table::<Endless>::new(Arc::default());
        let mut count = 0;
        while !table.is_turn_full() {
            let message = Message::new(HubId(0), "unheard".into(), Kind::Text, Bytes::new());
            table.publish(Arc::new(message.into()));
            count += 1;
            assert!(count <= TURN_BYTES_MAX / size_of::<Publication>() + 1, "{count} wait");
        }
    }

    #[test]
    fn a_client_that_never_stops_sending_gets_no_more_of_a_turn() {
        const { assert!(READ_BYTES.is_multiple_of(8)) };
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let counters = mailboxes[0].counters.clone();
        let mut table = Table::new(counters.clone());
        let relay = Relay::new(0, mailboxes);
        let hub = "messages_per_second = 100000000";
        let key = table.adopt(Endless(Rc::default()), arrival("on_message = \"ignore\"", hub));
        for _ in 0..100 {
            let before = counters.received.value();
            relay.turn(&mut table, 0, [Ready { key, readable: true, writable: false, ending: false }]);
            let heard = counters.received.value() - before;
            assert!((1..=u64::from(SLICE_WORK) / 100).contains(&heard), "{heard} messages in a turn");
            assert!(table.has_work());
        }
    }

    #[test]
    fn a_flood_of_others_does_not_hold_up_a_ping() {
        let mailboxes: Arc<[Mailbox]> = [Mailbox::default()].into();
        let mut table = Table::new(mailboxes[0].counters.clone());
        let relay = Relay::new(0, mailboxes);
        let hub = "messages_per_second = 100000000";
        let ready = |key| Ready { key, readable: true, writable: false, ending: false };
        let flood: Vec<_> =
            (0..500).map(|_| ready(table.adopt(Party::Flood, arrival("on_message = \"ignore\"", hub)))).collect();
        relay.turn(&mut table, 0, flood);
        // All of them have more than their slice, and wait for one another.
        (0..100).for_each(|_| relay.turn(&mut table, 0, []));
        let line = Line::default();
        line.room.set(1000);
        let key = table.adopt(Party::Line(line.clone()), arrival("on_message = \"ignore\"", ""));
        line.says.borrow_mut().extend([0x89, 0x80, 0, 0, 0, 0]);
        relay.turn(&mut table, 0, [ready(key)]);
        assert_eq!(*line.heard.borrow(), [0x8a, 0]);
    }
}
