//! Timers of sessions. Each session has one that counts: for its next ping or deadline, whichever comes first.
//!
//! A timer is set when it is needed sooner than the one that runs. One that is needed later is not set: when the earlier one fires, the
//! session is asked again. No timer runs longer than a minute, so clients that come and go leave few behind.

use std::collections::VecDeque;

use super::{SessionKey, Table};
use crate::hub::Slot;
use crate::session::work::Work;
use crate::session::{Phase, Seconds, Socket};
use crate::shard::wheel::{TIMER_MAX, Timer, Wheel};
use crate::wire::Close;

/// The timers of all sessions.
#[derive(Debug, Default)]
pub(super) struct Timers {
    wheel: Wheel,
    /// Timers that have fired and were not looked at yet.
    fired: VecDeque<Timer>,
}

impl Timers {
    /// Whether some have fired.
    pub fn have_fired(&self) -> bool {
        !self.fired.is_empty()
    }
}

impl<S: Socket> Table<S> {
    /// Sets the time.
    pub fn set_time(&mut self, now: Seconds) {
        self.now = now;
    }

    /// Looks at sessions whose timers have fired by `now`, as many as a turn may: sends pings, and closes sessions that are late.
    pub fn tick(&mut self, now: Seconds) {
        self.set_time(now);
        self.timers.wheel.fire(now, &mut self.timers.fired);
        let mut left = self.pace.timers;
        while left > 0
            && let Some(Timer { slot, generation, due }) = self.timers.fired.pop_front()
        {
            let Some(session) = self.at(SessionKey { slot, generation }).filter(|session| session.timer() == due)
            else {
                continue;
            };
            left -= 1;
            session.set_timer(Seconds::MAX);
            let key = SessionKey { slot, generation };
            self.on_timer(key);
            if self.at(key).is_some() {
                self.arm(slot);
            }
        }
    }

    fn on_timer(&mut self, key: SessionKey) {
        let (slot, now) = (key.slot, self.now);
        let session = &self.sessions[slot as usize];
        if session.phase() != Phase::Open {
            if session.is_over(now) {
                self.remove(slot, "no answer to our close");
            }
            return;
        }
        self.tell_position(slot);
        // The kernel reports late that it accepts more. Asked, it accepts what the client has made room for.
        self.writable(key);
        if self.lateness(key).is_some() {
            // After a pause of the whole process, what the client sent in time may still be in the kernel.
            self.read_slice(slot, &mut Work::of(self.pace.slice));
        }
        if let Some(close) = self.lateness(key) {
            self.act(slot, &mut Work::default(), |session, turn| session.expire(&close, &mut turn.acts));
        } else if self.at(key).is_some() {
            self.act(slot, &mut Work::default(), |session, turn| session.ping_if_silent(&mut turn.acts));
        }
    }

    /// How a session is to be closed that is late. While no session is read, none is.
    fn lateness(&mut self, key: SessionKey) -> Option<Close> {
        let now = self.now;
        if self.readers.is_paused() { None } else { self.at(key)?.lateness(now) }
    }

    /// Sets the timer of a session, if it is needed sooner than the one that runs.
    pub(super) fn arm(&mut self, slot: Slot) {
        let session = &mut self.sessions[slot as usize];
        let Some(due) = session.next_due(self.now) else { return };
        let due = due.clamp(self.now + 1, self.now + TIMER_MAX);
        if due < session.timer() {
            session.set_timer(due);
            self.timers.wheel.set(Timer { slot, generation: session.generation(), due });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::{Kind, Message};
    use crate::session::Arrival;
    use crate::shard::testing::{Line, arrival, terms};
    use crate::wire::Framing;

    const IGNORES: &str = "on_message = \"ignore\"";

    fn is_open(table: &Table<Line>, key: SessionKey) -> bool {
        table.session(key).is_some_and(|session| session.phase() == Phase::Open)
    }

    #[test]
    fn a_client_that_accepts_what_waits_is_not_closed_for_an_unanswered_ping() {
        for when_slow in ["drop_oldest", "drop_newest", "conflate"] {
            let hub =
                format!("ping = \"5s\"\npong_timeout = \"2s\"\nqueue_max = \"64KiB\"\nwhen_slow = \"{when_slow}\"");
            let (mut table, line) = (Table::new(Arc::default()), Line::default());
            let key = table.adopt(line.clone(), arrival(IGNORES, &hub));
            let hub_id = table.session(key).unwrap().terms().hub_id;
            for now in 1..60 {
                // Room for a quarter of what is published. The kernel does not report it.
                line.room.set(16 << 10);
                for _ in 0..4 {
                    let text = vec![b'x'; 16 << 10].into();
                    table.publish(Arc::new(Message::new(hub_id, "all".into(), Kind::Text, text).into()));
                }
                table.tick(now);
                table.flush();
                assert!(is_open(&table, key), "{when_slow}: closed after {now} s");
            }
            for now in 60..70 {
                table.tick(now);
                table.flush();
            }
            assert!(!is_open(&table, key), "{when_slow}: it accepts nothing any more");
        }
    }

    #[test]
    fn a_client_that_accepts_its_echoes_slowly_is_not_closed() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        let hub = "ping = \"5s\"\npong_timeout = \"2s\"";
        let key = table.adopt(line.clone(), arrival("on_message = \"echo\"", hub));
        // A thousand messages of 100 bytes, whose masks change nothing.
        for _ in 0..1000 {
            line.says.borrow_mut().extend([&[0x82, 0x80 | 100, 0, 0, 0, 0][..], &[7; 100]].concat());
        }
        table.readable(key, false);
        table.read_sessions(|_| ());
        table.flush();
        for now in 1..60 {
            line.room.set(500);
            table.tick(now);
            table.flush();
            assert!(is_open(&table, key), "closed after {now} s");
        }
        assert!(table.session(key).unwrap().is_waiting());
    }

    #[test]
    fn a_session_that_waits_to_be_read_is_not_closed_as_silent() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(1000);
        let key = table.adopt(line.clone(), arrival(IGNORES, "ping = \"5s\"\npong_timeout = \"2s\""));
        table.tick(5);
        // A pong without payload, before sessions are handed over.
        line.says.borrow_mut().extend([0x8a, 0x80, 0, 0, 0, 0]);
        table.pause_reading(true);
        table.readable(key, false);
        for now in 6..12 {
            table.tick(now);
            assert!(is_open(&table, key), "closed after {now} s");
        }
        table.pause_reading(false);
        table.read_sessions(|_| ());
        for now in 12..20 {
            table.tick(now);
        }
        assert!(!is_open(&table, key), "it was silent afterwards");
    }

    #[test]
    fn a_reload_does_not_shorten_the_time_for_a_pong() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(1000);
        let key = table.adopt(line.clone(), arrival(IGNORES, "ping = \"30s\"\npong_timeout = \"20s\""));
        table.tick(30);
        let now = terms(IGNORES, "ping = \"1s\"\npong_timeout = \"20s\"");
        table.rebind(Box::new(move |_| Some(now.clone())));
        table.sweep_on();
        table.tick(49);
        assert!(is_open(&table, key));
        table.tick(50);
        assert!(!is_open(&table, key));
    }

    #[test]
    fn a_session_that_ended_leaves_no_timer_for_a_week() {
        let mut table = Table::new(Arc::default());
        for _ in 0..1000 {
            let key = table.adopt(Line::default(), arrival(IGNORES, "ping = \"7d\""));
            table.abandon(key);
        }
        let key = table.adopt(Line::default(), arrival(IGNORES, "ping = \"7d\""));
        table.tick(TIMER_MAX);
        assert_eq!(table.timers.wheel.held(), 1);
        table.tick(7 * 86_400 - 1);
        assert_eq!(table.session(key).unwrap().pinged(), None);
        table.tick(7 * 86_400);
        assert_eq!(table.session(key).unwrap().pinged(), Some(7 * 86_400));
    }

    fn stream(hub: &str) -> Arrival {
        Arrival { framing: Framing::BareEventStream, ..arrival(IGNORES, hub) }
    }

    #[test]
    fn comments_on_a_stream_take_no_place_of_messages_that_wait() {
        for when_slow in ["disconnect", "drop_oldest", "drop_newest", "conflate"] {
            let limits = "queue_messages_max = 5\nping = \"1s\"\npong_timeout = \"1m\"";
            let (mut table, line) = (Table::new(Arc::default()), Line::default());
            let key = table.adopt(line.clone(), stream(&format!("{limits}\nwhen_slow = \"{when_slow}\"")));
            let hub_id = table.session(key).unwrap().terms().hub_id;
            for now in 1..20 {
                if now <= 4 || now == 15 {
                    let (channel, text) = (format!("{now}").into(), format!("{now}").into_bytes().into());
                    let mut message = Message::new(hub_id, channel, Kind::Text, text);
                    message.channel = "all".into();
                    table.publish(Arc::new(message.into()));
                }
                table.tick(now);
                table.flush();
            }
            line.room.set(1000);
            table.writable(key);
            let expected = "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\ndata: 15\n\n";
            let heard = String::from_utf8(line.heard.take()).unwrap();
            assert_eq!(heard.replace(":\n\n", ""), expected, "{when_slow}");
        }
    }

    #[test]
    fn a_stream_whose_client_accepts_nothing_any_more_ends() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(3);
        let key = table.adopt(line.clone(), stream("ping = \"5s\"\npong_timeout = \"2s\""));
        for now in 1..=11 {
            table.tick(now);
            table.flush();
            assert!(is_open(&table, key), "closed after {now} s");
        }
        assert_eq!(*line.heard.borrow(), b":\n\n", "the first comment was accepted");
        for now in 12..=17 {
            table.tick(now);
            table.flush();
        }
        assert!(!is_open(&table, key));
    }
}
