//! A feed that publishes at a steady pace: the first message at once, the others on the beat.
//!
//! The beat is counted from the start, so it does not drift. Beats that pass while the outlet has no room, or while the
//! machine sleeps, are left out rather than made up for in a bunch; `{n}` counts messages, not beats.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Outlet, Publisher};

pub(super) async fn run<O: Outlet>(period: Duration, mut publisher: Publisher<O>) {
    let mut beat = interval(period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        publisher.publish("").await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::config::{HubId, Source};
    use crate::feed::testing::feed;

    const SECOND: Duration = Duration::from_secs(1);

    /// Notes when what was published; takes `slow` for the messages named.
    struct Clocked<'a> {
        start: Instant,
        heard: &'a RefCell<Vec<(u128, String)>>,
        slow: fn(&str) -> Duration,
    }

    impl Outlet for Clocked<'_> {
        async fn publish(&self, _: HubId, _: &str, message: Vec<u8>) {
            let message = String::from_utf8(message).unwrap();
            let slow = (self.slow)(&message);
            self.heard.borrow_mut().push((self.start.elapsed().as_millis(), message));
            // The clock is paused: this takes no time.
            sleep(slow).await;
        }
    }

    async fn heard(during: Duration, slow: fn(&str) -> Duration) -> Vec<(u128, String)> {
        let heard = RefCell::default();
        let outlet = Clocked { start: Instant::now(), heard: &heard, slow };
        let run = crate::feed::run(
            feed("tick:{n}", Source::Every(SECOND)),
            64,
            outlet,
            std::sync::mpsc::channel().0,
            Default::default(),
        );
        assert!(tokio::time::timeout(during, run).await.is_err());
        heard.into_inner()
    }

    fn named(times: &[u128]) -> Vec<(u128, String)> {
        times.iter().enumerate().map(|(n, &at)| (at, format!("tick:{n}"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_comes_at_once_and_the_others_on_the_beat() {
        let during = SECOND * 3 + SECOND / 2;
        assert_eq!(heard(during, |_| Duration::ZERO).await, named(&[0, 1000, 2000, 3000]));
        // However long publishing takes, the beat is not moved.
        assert_eq!(heard(during, |_| SECOND * 9 / 10).await, named(&[0, 1000, 2000, 3000]));
    }

    #[tokio::test(start_paused = true)]
    async fn missed_beats_are_not_bunched() {
        let slow = |message: &str| if message == "tick:1" { SECOND * 5 / 2 } else { Duration::ZERO };
        let heard = heard(SECOND * 11 / 2, slow).await;
        let times: Vec<u128> = heard.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 1000, 3500, 4000, 5000]);
        assert_eq!(heard.last().unwrap().1, "tick:4");
    }
}
