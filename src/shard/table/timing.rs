//! The clock: pings, and who is let go because nothing comes of him.

use super::{SessionKey, Table, Timer};
use crate::hub::Slot;
use crate::session::{Phase, Seconds, Socket};
use crate::wire::Close;

/// How long a timer lasts at most. One that is due later is set anew, so clients who come and go leave no more behind than the timers
/// of a minute, however seldom their hub pings.
const TIMER_MAX: Seconds = 60;

impl<S: Socket> Table<S> {
    /// Says what time it is.
    pub fn set_time(&mut self, now: Seconds) {
        self.now = now;
    }

    /// Sends the pings that are due by `now` and lets go of those who did not answer.
    pub fn tick(&mut self, now: Seconds) {
        self.set_time(now);
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.fire(now, &mut fired);
        for timer in fired.drain(..) {
            let current = self.sessions.get(timer.slot as usize);
            if current.is_some_and(|session| session.generation == timer.generation && session.due == timer.due) {
                self.is_due(timer.slot);
            }
        }
        self.fired = fired;
    }

    fn is_due(&mut self, slot: Slot) {
        let session = &self.sessions[slot as usize];
        if session.phase != Phase::Open {
            return self.remove(slot, "no answer to our close");
        }
        // The kernel is late to tell that it takes more; asked, it takes what the client made room for.
        self.writable(SessionKey { slot, generation: session.generation });
        let Some(session) = self.sessions.get_mut(slot as usize) else { return };
        // A reload may have switched pings off.
        let Some(ping) = session.terms.hub.ping else { return };
        let (ping, patience) = (ping.as_secs() as Seconds, session.terms.hub.pong_timeout.as_secs() as Seconds);
        let patience = patience.max(1);
        match session.pinged {
            // Anything heard since the ping is as good as its pong.
            Some(pinged) if session.heard < pinged => {
                let latest = pinged + patience;
                if self.now < latest {
                    self.set_timer(slot, latest);
                } else if session.unread {
                    // He has spoken, and was not read yet.
                    self.set_timer(slot, self.now + 1);
                } else {
                    self.counters.silent.add(1);
                    self.close(slot, &Close::NO_PONG);
                }
            }
            _ if self.now < session.heard + ping => {
                session.pinged = None;
                let due = session.heard + ping;
                self.set_timer(slot, due);
            }
            _ => {
                session.pinged = Some(self.now);
                let frame = session.dialect.ping().unwrap_or_default();
                self.say(slot, |_, out| out.extend_from_slice(&frame));
                self.set_timer(slot, self.now + patience);
            }
        }
    }

    pub(super) fn set_timer(&mut self, slot: Slot, due: Seconds) {
        let session = &mut self.sessions[slot as usize];
        session.due = due.min(self.now + TIMER_MAX);
        self.wheel.set(Timer { slot, generation: session.generation, due: session.due });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::{Kind, Publication};
    use crate::shard::testing::{Line, arrival, terms};

    const IGNORES: &str = "on_message = \"ignore\"";

    fn is_open(table: &Table<Line>, key: SessionKey) -> bool {
        table.session(key).is_some_and(|session| session.phase == Phase::Open)
    }

    #[test]
    fn who_takes_what_waits_is_there_though_our_ping_is_behind_it() {
        for when_slow in ["drop_oldest", "drop_newest", "conflate"] {
            let hub =
                format!("ping = \"5s\"\npong_timeout = \"2s\"\nqueue_max = \"64KiB\"\nwhen_slow = \"{when_slow}\"");
            let (mut table, line) = (Table::new(Arc::default()), Line::default());
            let key = table.adopt(line.clone(), arrival(IGNORES, &hub));
            let hub_id = table.session(key).unwrap().terms.hub_id;
            for now in 1..60 {
                // A quarter of what is published, and nobody tells that there is room again.
                line.room.set(16 << 10);
                for _ in 0..4 {
                    let text = vec![b'x'; 16 << 10].into();
                    table.publish(Publication::new(hub_id, "all".into(), Kind::Text, text).into());
                }
                table.tick(now);
                table.flush();
                assert!(is_open(&table, key), "{when_slow}: closed after {now} s");
            }
            for now in 60..70 {
                table.tick(now);
                table.flush();
            }
            assert!(!is_open(&table, key), "{when_slow}: takes nothing any more");
        }
    }

    #[test]
    fn an_echo_that_is_taken_slowly_is_no_silence() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        let hub = "ping = \"5s\"\npong_timeout = \"2s\"";
        let key = table.adopt(line.clone(), arrival("on_message = \"echo\"", hub));
        // A thousand messages of 100 bytes, whose masks change nothing.
        for _ in 0..1000 {
            line.says.borrow_mut().extend([&[0x82, 0x80 | 100, 0, 0, 0, 0][..], &[7; 100]].concat());
        }
        table.readable(key, false);
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
    fn who_waits_to_be_read_is_not_silent() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(1000);
        let key = table.adopt(line.clone(), arrival(IGNORES, "ping = \"5s\"\npong_timeout = \"2s\""));
        table.tick(5);
        // A pong of no bytes, before sessions are handed over.
        line.says.borrow_mut().extend([0x8a, 0x80, 0, 0, 0, 0]);
        table.set_still(true);
        table.readable(key, false);
        for now in 6..12 {
            table.tick(now);
            assert!(is_open(&table, key), "closed after {now} s");
        }
        table.set_still(false);
        table.take_unread().into_iter().for_each(|slot| table.read_on(slot));
        for now in 12..20 {
            table.tick(now);
        }
        assert!(!is_open(&table, key), "silent since");
    }

    #[test]
    fn a_reload_takes_nobodys_time_to_answer() {
        let (mut table, line) = (Table::new(Arc::default()), Line::default());
        line.room.set(1000);
        let key = table.adopt(line.clone(), arrival(IGNORES, "ping = \"30s\"\npong_timeout = \"20s\""));
        table.tick(30);
        let now = terms(IGNORES, "ping = \"1s\"\npong_timeout = \"20s\"");
        table.rebind(|_| Some(now.clone()));
        table.tick(49);
        assert!(is_open(&table, key));
        table.tick(50);
        assert!(!is_open(&table, key));
    }

    #[test]
    fn who_went_leaves_no_timer_for_a_week() {
        let mut table = Table::new(Arc::default());
        for _ in 0..1000 {
            let key = table.adopt(Line::default(), arrival(IGNORES, "ping = \"7d\""));
            table.abandon(key);
        }
        let key = table.adopt(Line::default(), arrival(IGNORES, "ping = \"7d\""));
        table.tick(TIMER_MAX);
        assert_eq!(table.wheel.held(), 1);
        table.tick(7 * 86_400 - 1);
        assert_eq!(table.session(key).unwrap().pinged, None);
        table.tick(7 * 86_400);
        assert_eq!(table.session(key).unwrap().pinged, Some(7 * 86_400));
    }
}
