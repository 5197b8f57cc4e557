//! A feed that publishes at a fixed interval: the first message at once, the others at each tick.
//!
//! Ticks are counted from the start, so they do not drift. Ticks that pass while the outlet is full, or while the
//! machine sleeps, are skipped. `{n}` counts messages, not ticks.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Outlet, Publisher};

pub(super) async fn run<O: Outlet>(period: Duration, mut publisher: Publisher<O>) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        publisher.publish("").await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::config::{HubId, Source};
    use crate::feed::Mark;
    use crate::feed::testing::feed;

    const SECOND: Duration = Duration::from_secs(1);

    /// Records when each message was published. Publishing takes as long as `slow` returns.
    struct Recorder<'a> {
        start: Instant,
        received: &'a RefCell<Vec<(u128, String)>>,
        slow: fn(&str) -> Duration,
    }

    impl Outlet for Recorder<'_> {
        async fn publish(&self, _: HubId, _: &str, message: Vec<u8>, _: &Mark) {
            let message = String::from_utf8(message).unwrap();
            let slow = (self.slow)(&message);
            self.received.borrow_mut().push((self.start.elapsed().as_millis(), message));
            // The clock is paused: this takes no time.
            sleep(slow).await;
        }
    }

    async fn received(during: Duration, slow: fn(&str) -> Duration) -> Vec<(u128, String)> {
        let received = RefCell::default();
        let outlet = Recorder { start: Instant::now(), received: &received, slow };
        let run = crate::feed::run(
            feed("tick:{n}", Source::Every(SECOND)),
            64,
            outlet,
            std::sync::mpsc::channel().0,
            Default::default(),
        );
        assert!(tokio::time::timeout(during, run).await.is_err());
        received.into_inner()
    }

    fn named(times: &[u128]) -> Vec<(u128, String)> {
        times.iter().enumerate().map(|(n, &at)| (at, format!("tick:{n}"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_message_comes_at_once_and_the_others_at_each_tick() {
        let during = SECOND * 3 + SECOND / 2;
        assert_eq!(received(during, |_| Duration::ZERO).await, named(&[0, 1000, 2000, 3000]));
        // Slow publishing does not move the ticks.
        assert_eq!(received(during, |_| SECOND * 9 / 10).await, named(&[0, 1000, 2000, 3000]));
    }

    #[tokio::test(start_paused = true)]
    async fn missed_ticks_are_skipped() {
        let slow = |message: &str| if message == "tick:1" { SECOND * 5 / 2 } else { Duration::ZERO };
        let received = received(SECOND * 11 / 2, slow).await;
        let times: Vec<u128> = received.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [0, 1000, 3500, 4000, 5000]);
        assert_eq!(received.last().unwrap().1, "tick:4");
    }
}
