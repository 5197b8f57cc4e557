//! Sessions that receive what they have missed, before they are subscribed.

use std::collections::HashMap;
use std::sync::Arc;

use super::{SessionKey, Table};
use crate::config::HubId;
use crate::hub::{Position, Selector, Since, Slot};
use crate::session::Socket;
use crate::session::catch_up::{Asked, Paged};
use crate::session::work::Work;
use crate::shard::owner::Answer;

impl<S: Socket> Table<S> {
    /// Sets the positions of the hubs with history, for those of which nothing has passed here yet.
    pub fn set_frontiers(&mut self, beginnings: impl Iterator<Item = (HubId, Position)>) {
        let mut before = std::mem::take(&mut self.frontiers);
        let now = beginnings.map(|(hub, beginning)| (hub, before.remove(&hub).unwrap_or(beginning)));
        self.frontiers = now.collect::<HashMap<_, _>>();
    }

    /// The position up to which everything of a hub has passed here.
    pub fn frontier(&self, hub: HubId) -> Option<Position> {
        self.frontiers.get(&hub).copied()
    }

    /// Has a session catch up with subscriptions, which begin then.
    pub(super) fn catch_up(&mut self, key: SessionKey, selectors: Arc<[Selector]>, since: Since) {
        self.note_coming_to(key.slot, &selectors);
        self.sessions[key.slot as usize].catch_up(selectors, since, false);
        self.asking.push(key);
    }

    /// A client that continues from no position is to be told one.
    pub(super) fn owe_position(&mut self, slot: Slot) {
        let (now, session) = (self.now, &mut self.sessions[slot as usize]);
        if session.terms().hub.history.is_some() && session.terms().speech.has_positions(session.framing()) {
            session.owe_position(now);
            self.tell_position(slot);
            self.arm(slot);
        }
    }

    /// Tells a client from which position it may continue later, if it is time.
    pub(super) fn tell_position(&mut self, slot: Slot) {
        if !self.sessions[slot as usize].owes_position(self.now) {
            return;
        }
        // What has passed here is in the frontier, and not staged yet. It may be what the client waits for.
        self.stage_streak();
        let session = &self.sessions[slot as usize];
        if session.owes_position(self.now) {
            let terms = session.terms();
            let position = self.frontier(terms.hub_id);
            if position.is_none() && terms.hub.history.is_some() {
                // It is not known before the shard has its first plan. The timer asks again.
                return;
            }
            // A reload may have removed the history: then there is no position.
            self.act(slot, &mut Work::default(), |session, turn| session.tell_position(position, &mut turn.acts));
        }
    }

    /// A session may ask for more.
    pub(super) fn ask_later(&mut self, slot: Slot) {
        let generation = self.sessions[slot as usize].generation();
        self.asking.push(SessionKey { slot, generation });
    }

    /// The questions of sessions that catch up, each with its hub.
    pub fn take_questions(&mut self) -> Vec<(SessionKey, HubId, Asked)> {
        let (asking, most) = (std::mem::take(&mut self.asking), self.pace.page_messages);
        let questions = asking.into_iter().filter_map(|key| {
            let session = self.at(key)?;
            let hub = session.terms().hub_id;
            let asked = session.ask()?;
            let messages_max = asked.messages_max.min(most);
            Some((key, hub, Asked { messages_max, ..asked }))
        });
        questions.collect()
    }

    /// Passes a page to its session. After the last one the session is subscribed: in this step, so that it receives everything
    /// that comes after the page, and nothing that is in it.
    pub fn take_page(&mut self, Answer { asker, page }: Answer) {
        let (key, slot, now) = (asker.key, asker.key.slot, self.now);
        let Some(session) = self.at(key) else { return };
        // What was published before the page is written before it: an answer in the page tells a position after that. Most sessions
        // that catch up are not subscribed yet, and the streak goes on.
        if !session.seats().is_empty() || !session.wished_seats().is_empty() {
            self.stage_streak();
        }
        if !self.sessions[slot as usize].staged().is_empty() {
            self.flush_session(slot);
        }
        let Some(session) = self.at(key) else { return };
        let waiting = session.waiting_bytes();
        let paged = session.take_page(asker.serial, page.as_ref(), now);
        let bytes = session.waiting_bytes() - waiting;
        self.staging.pages_bytes += bytes;
        self.counters.caught_up.add(page.map_or(0, |page| page.messages.len() as u64));
        if let Paged::Live { selectors, is_wished } = &paged {
            let hub = self.sessions[slot as usize].terms().hub_id;
            let seats = self.subscribe(hub, selectors, slot);
            let session = &mut self.sessions[slot as usize];
            if *is_wished {
                session.add_wished_seats(seats);
            } else {
                session.add_seats(seats);
            }
            self.counters.channels.set(self.channels.len() as u64);
        }
        if bytes > 0 {
            self.writable(key);
        }
        if paged != Paged::Ignored && self.at(key).is_some() {
            self.ask_later(slot);
            self.arm(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::hub::history::{Kept, Page};
    use crate::hub::{Epoch, Kind, Message, Publication, Receipt};
    use crate::session::poll::Polling;
    use crate::session::{Arrival, Phase};
    use crate::shard::owner::Asker;
    use crate::shard::testing::{Line, arrival};
    use crate::wire::Framing;

    const HEAD: &[u8] = b"HEAD ";

    fn position(offset: u64) -> Position {
        Position { epoch: Epoch(36), offset }
    }

    fn polls(wait: u64) -> (Table<Line>, Line, SessionKey) {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(10_000);
        let polling = Polling { wait: std::time::Duration::from_secs(wait), messages_max: 7 };
        let other = arrival("on_message = \"ignore\"", "history = { messages = 9 }");
        table.set_frontiers([(other.terms.hub_id, position(3))].into_iter());
        let key = table.adopt(
            line.clone(),
            Arrival {
                framing: Framing::BarePoll,
                since: Some(Since::After(position(1))),
                poll: Some(polling),
                head: HEAD.into(),
                ..other
            },
        );
        (table, line, key)
    }

    fn answer(table: &mut Table<Line>) {
        let [(key, _, asked)] = &table.take_questions()[..] else { panic!("not one question") };
        assert_eq!((asked.since, asked.messages_max), (Since::After(position(1)), 7));
        let page = Page {
            messages: Vec::new(),
            position: position(3),
            is_end: true,
            gone: Vec::new(),
            gone_before: Vec::new(),
        };
        table.take_page(Answer { asker: Asker { shard: 0, key: *key, serial: asked.serial }, page: Some(page) });
    }

    fn publish(table: &mut Table<Line>, key: SessionKey, offset: u64, receipt: Receipt) {
        let hub = table.session(key).unwrap().terms().hub_id;
        let message = Message::new(hub, "all".into(), Kind::Text, Bytes::from(format!("{offset}")));
        let message = message.with_receipt(receipt);
        table.publish(Arc::new(Publication::from(message).at(Some(position(offset)))));
    }

    fn heard(line: &Line) -> String {
        String::from_utf8(line.heard.take()).unwrap()
    }

    #[test]
    fn the_head_of_a_poll_is_written_with_its_first_page() {
        for (wait, expected) in [(0, "HEAD {\"position\":\"10-3\",\"messages\":[],\"gap\":false}\n"), (9, "HEAD ")] {
            let (mut table, line, key) = polls(wait);
            table.writable(key);
            table.flush();
            assert_eq!(heard(&line), "");
            answer(&mut table);
            assert_eq!(heard(&line), expected);
            assert_eq!(table.session(key).unwrap().phase() == Phase::Open, wait > 0);
        }
    }

    #[test]
    fn the_first_publication_is_the_whole_answer() {
        let (mut table, line, key) = polls(9);
        answer(&mut table);
        let counts = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        for offset in 4..7 {
            let counts = counts.clone();
            let receipt = Receipt::new(move |outcome| counts.lock().unwrap().push((offset, outcome.subscribers)));
            publish(&mut table, key, offset, receipt);
        }
        table.flush();
        let message = "{\"channel\":\"all\",\"id\":\"10-4\",\"data\":\"4\"}";
        let expected = format!("HEAD {{\"position\":\"10-4\",\"messages\":[{message}],\"gap\":false}}\n");
        assert_eq!(heard(&line), expected);
        assert_eq!(*counts.lock().unwrap(), [(4, 1), (5, 0), (6, 0)]);
        publish(&mut table, key, 7, Receipt::new(|_| ()));
        table.flush();
        assert_eq!(heard(&line), "");
        // A client that does not close is not waited for.
        (1..30).for_each(|now| table.tick(now));
        assert!(table.session(key).is_none());
    }

    #[test]
    fn what_is_published_in_the_last_moment_is_answered() {
        let (mut table, line, key) = polls(2);
        answer(&mut table);
        table.tick(2);
        publish(&mut table, key, 4, Receipt::new(|_| ()));
        table.tick(3);
        table.flush();
        assert!(heard(&line).contains("\"data\":\"4\""));
        let (mut table, line, _) = polls(2);
        answer(&mut table);
        table.tick(3);
        table.flush();
        assert_eq!(heard(&line), "HEAD {\"position\":\"10-3\",\"messages\":[],\"gap\":false}\n");
    }

    /// A session that catches up from `since` with two channels, and receives pages of one message each: a text on the channel, its
    /// offset, and the channels of which messages are gone.
    fn pages(framing: Framing, since: Since, pages: &[(&'static str, u64, &[&'static str])]) -> String {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(10_000);
        let other = arrival("on_message = \"ignore\"", "history = { messages = 9 }");
        let channels = ["a", "b"].map(Selector::name).into_iter().collect();
        let key = table.adopt(line.clone(), Arrival { framing, since: Some(since), channels, ..other });
        for (at, (channel, offset, gone)) in pages.iter().enumerate() {
            let [(_, _, asked)] = &table.take_questions()[..] else { panic!("not one question") };
            let kept = Kept { offset: *offset, channel: (*channel).into(), kind: Kind::Text, payload: "x".into() };
            let gone = gone.iter().map(|channel| Arc::from(*channel)).collect();
            let (messages, is_end) = (vec![kept], at + 1 == pages.len());
            let page = Page { messages, position: position(*offset), is_end, gone, gone_before: Vec::new() };
            table.take_page(Answer { asker: Asker { shard: 0, key, serial: asked.serial }, page: Some(page) });
        }
        heard(&line)
    }

    #[test]
    fn a_gap_is_told_once_and_its_position_with_the_last_one() {
        let gap = |channel: &str, id: &str| format!("event: gap\n{id}data: {{\"channel\":\"{channel}\"}}\n\n");
        let event = |offset: u64| format!("id: {}\ndata: x\n\n", position(offset));
        let since = Since::After(position(1));
        // The second page tells again what is gone of "a". Then a message of "a" comes, and after that more is gone.
        let all: [(&str, u64, &[&str]); 4] =
            [("b", 4, &["a", "b"]), ("b", 5, &["a"]), ("a", 8, &["a"]), ("a", 10, &["a"])];
        let expected =
            [gap("a", ""), gap("b", "id: 10-3\n"), event(4), event(5), event(8), gap("a", "id: 10-9\n"), event(10)];
        assert_eq!(pages(Framing::BareEventStream, since, &all), expected.concat());
        // A client that asks for the oldest messages has missed none.
        let all: [(&str, u64, &[&str]); 2] = [("b", 4, &[]), ("a", 5, &["a"])];
        assert_eq!(pages(Framing::BareEventStream, Since::Earliest, &all), [event(4), event(5)].concat());
    }

    #[test]
    fn a_websocket_that_has_missed_nothing_is_told_a_position() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(10_000);
        let arrives = || Arrival {
            since: Some(Since::Unknown),
            ..arrival("on_message = \"ignore\", envelope = true", "history = { messages = 9 }")
        };
        let key = table.adopt(line.clone(), arrives());
        let terms = table.session(key).unwrap().terms().clone();
        table.set_frontiers([(terms.hub_id, position(3))].into_iter());
        let [(_, _, asked)] = &table.take_questions()[..] else { panic!("not one question") };
        let page = Page {
            messages: Vec::new(),
            position: position(3),
            is_end: true,
            gone: Vec::new(),
            gone_before: Vec::new(),
        };
        table.take_page(Answer { asker: Asker { shard: 0, key, serial: asked.serial }, page: Some(page) });
        // Before that is due, another process takes it up. There it is due before the positions are known.
        let record = table.records().next().unwrap().1;
        let mut next = Table::new(Arc::default());
        next.take_up(line.clone(), record, Some(terms.clone()), terms.members.enter());
        (1..4).for_each(|now| next.tick(now));
        next.flush();
        assert!(line.heard.borrow().is_empty());
        next.set_frontiers([(terms.hub_id, position(3))].into_iter());
        next.tick(4);
        next.flush();
        assert!(line.heard.borrow().ends_with(b"{\"id\":\"10-3\"}"));
    }

    #[test]
    fn a_position_takes_no_place_of_messages_that_wait() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        let hub = "history = { messages = 9 }\nqueue_messages_max = 1\nwhen_slow = \"drop_newest\"";
        let other = arrival("on_message = \"ignore\", envelope = true", hub);
        table.set_frontiers([(other.terms.hub_id, position(3))].into_iter());
        let key = table.adopt(line.clone(), Arrival { greeting: Some("hello".to_owned()), ..other });
        table.flush();
        (1..4).for_each(|now| table.tick(now));
        table.flush();
        line.room.set(100);
        table.writable(key);
        assert_eq!(*line.heard.borrow(), b"\x81\x05hello\x81\x0d{\"id\":\"10-3\"}");
        assert_eq!(table.counters.dropped.value(), 0);
    }

    #[test]
    fn a_poll_goes_on_from_where_it_is() {
        let (mut table, _, _) = polls(9);
        let record = table.records().next().unwrap().1;
        assert_eq!((&record.waiting[0].bytes[..], record.messages_max, record.answer_due), (HEAD, 7, 10));
        assert_eq!((record.channels.len(), &record.behind[0].since[..]), (0, "10-1"));
        answer(&mut table);
        let record = table.records().next().unwrap().1;
        assert_eq!((record.waiting.len(), record.messages_max, record.answer_due), (0, 7, 10));
        assert_eq!((&record.behind[0].names[0][..], &record.behind[0].since[..]), ("all", "10-3"));
        let terms = arrival("on_message = \"ignore\"", "history = { messages = 9 }").terms;
        let (mut next, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(1000);
        next.tick(5);
        let key = next.take_up(line.clone(), record, Some(terms.clone()), terms.members.enter());
        let [(_, _, asked)] = &next.take_questions()[..] else { panic!("not one question") };
        assert_eq!((asked.since, asked.messages_max), (Since::After(position(3)), 7));
        // The hub has no history here.
        next.take_page(Answer { asker: Asker { shard: 0, key, serial: asked.serial }, page: None });
        assert_eq!(heard(&line), "{\"position\":\"10-3\",\"messages\":[],\"gap\":false}\n");
    }
}
