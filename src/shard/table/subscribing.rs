//! Subscriptions that clients begin and end themselves.

use super::Table;
use crate::hub::{Seat, Selector, Since, Slot};
use crate::session::speech::Answer;
use crate::session::subscribing::Pending;
use crate::session::work::Work;
use crate::session::{Phase, Socket, Terms, Wish};

const ALREADY: &str = "already subscribed";
const NOT_SUBSCRIBED: &str = "not subscribed";
const OF_ROUTE: &str = "the route subscribes to it, so it cannot be ended";
const NO_LONGER_ALLOWED: &str = "no longer allowed";

impl<S: Socket> Table<S> {
    /// Does what a client has asked for, in order, and answers each.
    pub(super) fn grant_wishes(&mut self, slot: Slot) {
        let mut wishes = std::mem::take(&mut self.wishes);
        for wish in wishes.drain(..) {
            if self.sessions[slot as usize].phase() != Phase::Open {
                break;
            }
            match wish {
                Wish::Subscribe(selector, since) => self.subscribe_as_wished(slot, selector, since),
                Wish::Unsubscribe(selector) => self.unsubscribe_as_wished(slot, &selector),
            }
        }
        wishes.clear();
        self.wishes = wishes;
    }

    fn subscribe_as_wished(&mut self, slot: Slot, selector: Selector, since: Option<Since>) {
        let session = &self.sessions[slot as usize];
        let Terms { hub_id, hub, speech, .. } = &**session.terms();
        let (hub_id, max) = (*hub_id, speech.subscriptions_max());
        // An answer at once would tell the present position, before the client has received what it misses of its route. So a
        // subscription that begins now waits for that, too, and begins from that position.
        let present = self.frontier(hub_id).filter(|_| session.is_behind_route()).map(Since::After);
        let since = since.or(present).filter(|_| hub.history.is_some());
        let is_seated = |seats| self.channels.position(hub_id, &selector, seats).is_some();
        if is_seated(session.seats()) || is_seated(session.wished_seats()) || session.pending(&selector).is_some() {
            return self.answer(slot, &Answer::Refused(&selector.text, ALREADY));
        }
        if session.wished_count() >= max {
            let why = format!("at most {max} subscriptions are allowed");
            return self.answer(slot, &Answer::Refused(&selector.text, &why));
        }
        self.note_coming_to(slot, std::slice::from_ref(&selector));
        if let Some(since) = since {
            let session = &mut self.sessions[slot as usize];
            session.catch_up([selector].into(), since, true);
            return self.ask_later(slot);
        }
        let seats = self.subscribe(hub_id, std::slice::from_ref(&selector), slot);
        self.sessions[slot as usize].add_wished_seats(seats);
        self.counters.channels.set(self.channels.len() as u64);
        // What was published up to here is not received, and what comes is.
        let position = self.frontier(hub_id);
        self.answer(slot, &Answer::Subscribed(&selector.text, position));
    }

    fn unsubscribe_as_wished(&mut self, slot: Slot, selector: &Selector) {
        let session = &self.sessions[slot as usize];
        let hub = session.terms().hub_id;
        let place = self.channels.position(hub, selector, session.wished_seats());
        let is_of_route = self.channels.position(hub, selector, session.seats()).is_some();
        let answer = match (place, session.pending(selector)) {
            (None, Some(Pending::OfRoute)) => Answer::Refused(&selector.text, OF_ROUTE),
            (None, None) if is_of_route => Answer::Refused(&selector.text, OF_ROUTE),
            (None, None) => Answer::Refused(&selector.text, NOT_SUBSCRIBED),
            _ => {
                self.end_wished(slot, selector);
                Answer::Unsubscribed(&selector.text, None)
            }
        };
        self.answer(slot, &answer);
    }

    /// Ends what the client of a session has asked for and the session's terms do not allow. Returns how many subscriptions were
    /// looked at.
    pub(super) fn end_disallowed(&mut self, slot: Slot) -> usize {
        let session = &mut self.sessions[slot as usize];
        let (terms, count) = (session.terms().clone(), session.wished_count());
        if count == 0 {
            return 0;
        }
        // What was published before is still received.
        self.stage_streak();
        let session = &mut self.sessions[slot as usize];
        let is_disallowed = |selector: &Selector| !terms.speech.allows(selector);
        let mut ended = session.end_pending(is_disallowed);
        let (ending, staying): (Vec<Seat>, Vec<Seat>) =
            session.take_wished_seats().into_iter().partition(|seat| is_disallowed(self.channels.selector(seat)));
        session.add_wished_seats(staying);
        for seat in ending {
            ended.push(self.channels.selector(&seat).clone());
            self.channels.unsubscribe(seat);
        }
        self.counters.channels.set(self.channels.len() as u64);
        for selector in ended {
            self.note_going_from(slot, &selector);
            self.answer(slot, &Answer::Unsubscribed(&selector.text, Some(NO_LONGER_ALLOWED)));
        }
        self.ask_later(slot);
        count
    }

    /// Ends a subscription that the client of a session has asked for, whether it has begun or not.
    fn end_wished(&mut self, slot: Slot, selector: &Selector) {
        // What was published before is still received.
        self.stage_streak();
        self.note_going_from(slot, selector);
        let session = &mut self.sessions[slot as usize];
        let place = self.channels.position(session.terms().hub_id, selector, session.wished_seats());
        if let Some(seat) = place.and_then(|place| session.take_wished_seat(place)) {
            self.channels.unsubscribe(seat);
            self.counters.channels.set(self.channels.len() as u64);
            return;
        }
        session.end_pending(|pending| pending == selector);
        // Another subscription may be the next to catch up.
        self.ask_later(slot);
    }

    fn answer(&mut self, slot: Slot, answer: &Answer<'_>) {
        if self.sessions[slot as usize].phase() == Phase::Open {
            self.act(slot, &mut Work::default(), |session, turn| session.answer(answer, &mut turn.acts));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::HubId;
    use crate::hub::history::{Kept, Page};
    use crate::hub::{Epoch, Kind, Message, Position, Publication};
    use crate::session::Arrival;
    use crate::session::catch_up::Asked;
    use crate::shard::owner::{Answer as Answered, Asker};
    use crate::shard::table::SessionKey;
    use crate::shard::testing::{Line, arrival};

    fn position(offset: u64) -> Position {
        Position { epoch: Epoch(36), offset }
    }

    /// A client on the channel "all", which may subscribe to others.
    struct Client {
        table: Table<Line>,
        line: Line,
        key: SessionKey,
        hub: HubId,
    }

    impl Client {
        /// One that continues from a position. The last publication so far has the offset 99.
        fn connect(since: Option<Since>) -> Client {
            let (mut table, line) = (Table::new(Arc::default()), Line::default());
            line.room.set(10_000);
            let other =
                arrival("on_message = \"ignore\", envelope = true, subscribe = [\"b\"]", "history = { messages = 9 }");
            let hub = other.terms.hub_id;
            table.set_frontiers([(hub, position(99))].into_iter());
            let key = table.adopt(line.clone(), Arrival { since, ..other });
            Client { table, line, key, hub }
        }

        fn says(&mut self, text: &str) {
            // A mask of zeros changes nothing.
            let head = [0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
            self.line.says.borrow_mut().extend([&head, text.as_bytes()].concat());
            self.table.readable(self.key, false);
            self.table.read_sessions(|_| ());
        }

        fn asks(&mut self) -> Asked {
            self.table.take_questions().pop().unwrap().2
        }

        fn receives_page(&mut self, serial: u32, messages: Vec<Kept>, offset: u64, is_end: bool) {
            let (gone, gone_before) = (Vec::new(), Vec::new());
            let page = Page { messages, position: position(offset), is_end, gone, gone_before };
            self.table.take_page(Answered { asker: Asker { shard: 0, key: self.key, serial }, page: Some(page) });
        }

        fn publish(&mut self, channel: &str, offset: u64) {
            let message = Message::new(self.hub, channel.into(), Kind::Text, "x".into());
            self.table.publish(Arc::new(Publication::from(message).at(Some(position(offset)))));
        }

        /// The offsets of everything that it has received, in the order it came. Each frame has a header of two bytes.
        fn heard(&mut self) -> Vec<u64> {
            self.table.flush();
            let heard = String::from_utf8_lossy(&self.line.heard.take()).into_owned();
            let ids = heard.split("\"id\":\"").skip(1);
            ids.map(|rest| Position::parse(rest.split('"').next().unwrap()).unwrap().offset).collect()
        }
    }

    #[test]
    fn what_was_published_before_comes_before_the_answer() {
        let mut client = Client::connect(None);
        client.says(r#"{"subscribe":"b","since":"earliest"}"#);
        let serial = client.asks().serial;
        client.publish("all", 100);
        client.receives_page(serial, Vec::new(), 101, true);
        assert_eq!(client.heard(), [100, 101]);
    }

    #[test]
    fn a_subscription_without_a_position_waits_for_what_was_missed() {
        let mut client = Client::connect(Some(Since::Earliest));
        client.says(r#"{"subscribe":"b"}"#);
        let Asked { selectors, serial, .. } = client.asks();
        assert_eq!(&*selectors, &[Selector::name("all")][..]);
        for offset in 100..103 {
            client.publish("b", offset);
        }
        client.receives_page(serial, Vec::new(), 50, false);
        assert!(client.heard().is_empty());
        let serial = client.asks().serial;
        client.receives_page(serial, Vec::new(), 102, true);
        let Asked { selectors, serial, since, .. } = client.asks();
        assert_eq!((&*selectors, since), (&[Selector::name("b")][..], Since::After(position(99))));
        client.receives_page(serial, Vec::new(), 102, true);
        client.publish("b", 103);
        assert_eq!(client.heard(), [102, 103]);
    }
}
