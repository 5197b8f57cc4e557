//! The clock: pings, and clients that keep us waiting for too long.

use super::{SessionKey, Table, Timer, Work};
use crate::hub::Slot;
use crate::session::{Phase, Seconds, Socket};
use crate::shard::wheel::TIMER_MAX;
use crate::wire::Close;

impl<S: Socket> Table<S> {
    /// Says what time it is.
    pub fn set_time(&mut self, now: Seconds) {
        self.now = now;
    }

    /// Sends the pings that are due by `now` and lets go of clients that did not answer, or did not finish what they began: as many as
    /// a turn may.
    pub fn tick(&mut self, now: Seconds) {
        self.set_time(now);
        self.wheel.fire(now, &mut self.fired);
        let mut left = self.pace.timers;
        while left > 0
            && let Some(timer) = self.fired.pop_front()
        {
            let current = self.sessions.get(timer.slot as usize);
            if current.is_some_and(|session| session.generation == timer.generation && session.due == timer.due) {
                left -= 1;
                self.is_due(timer.slot);
            }
        }
    }

    fn is_due(&mut self, slot: Slot) {
        let session = &self.sessions[slot as usize];
        if session.phase != Phase::Open {
            return self.remove(slot, "no answer to our close");
        }
        // The kernel is late to tell that it takes more; asked, it takes what the client made room for.
        self.writable(SessionKey { slot, generation: session.generation });
        if self.overdue(slot).is_some() {
            // After a pause of the whole process, what the client sent in time may lie in the kernel.
            self.read_slice(slot, &mut Work::of(self.pace.slice));
        }
        if let Some(close) = self.overdue(slot) {
            if close == Close::NO_PONG {
                self.counters.silent.add(1);
                return self.close(slot, &close);
            }
            return self.fail(slot, &close);
        }
        self.ping_if_silent(slot);
        self.set_next_timer(slot);
    }

    /// How a session is to be closed that kept us waiting for too long.
    fn overdue(&mut self, slot: Slot) -> Option<Close> {
        let (now, is_still) = (self.now, self.still);
        let session = self.sessions.get_mut(slot as usize).filter(|session| session.phase == Phase::Open)?;
        if session.unread || is_still {
            // It has spoken, and was not read yet.
            return None;
        }
        // A reload may have switched pings off.
        let pinged = session.pinged.filter(|pinged| session.heard < *pinged && session.terms.hub.ping.is_some());
        if pinged.is_some_and(|pinged| pinged + session.pong_patience() <= now) {
            return Some(Close::NO_PONG);
        }
        session.message_deadline(now).is_some_and(|deadline| deadline <= now).then_some(Close::MESSAGE_LATE)
    }

    fn ping_if_silent(&mut self, slot: Slot) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot as usize).filter(|session| session.phase == Phase::Open) else {
            return;
        };
        let (Some(ping), Some(frame)) = (session.terms.hub.ping, session.framing.ping()) else { return };
        // Anything heard since the ping is as good as its pong.
        if session.pinged.is_some_and(|pinged| session.heard < pinged) {
            return;
        }
        session.pinged = None;
        if session.heard + ping.as_secs() as Seconds <= now {
            session.pinged = Some(now);
            self.say(slot, |_, out| out.extend_from_slice(&frame));
        }
    }

    /// Sets the timer for what is waited for next.
    pub(super) fn set_next_timer(&mut self, slot: Slot) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(slot as usize).filter(|session| session.phase == Phase::Open) else {
            return;
        };
        let ping = session.terms.hub.ping.filter(|_| session.framing.ping().is_some());
        let ping = ping.map(|ping| match session.pinged.filter(|pinged| session.heard < *pinged) {
            Some(pinged) => pinged + session.pong_patience(),
            None => session.heard + ping.as_secs() as Seconds,
        });
        if let Some(due) = [ping, session.message_deadline(now)].into_iter().flatten().min() {
            self.set_timer(slot, due.max(now + 1));
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
        table.read_sessions(|_| ());
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
        table.rebind(Box::new(move |_| Some(now.clone())));
        table.sweep_on();
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
