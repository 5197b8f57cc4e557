//! Shared by the tests of feeds: a feed as configured, and an outlet that sends every message to the test.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Mark, Outlet};
use crate::config::{Feed, HubId, Source, Template};

/// A test that waits longer than this has failed.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn feed(message: &str, source: Source) -> Feed {
    Feed {
        name: "test".into(),
        hub: HubId(3),
        channel: "all".into(),
        message: Template::parse(message).unwrap(),
        source,
    }
}

/// An outlet that queues messages for the test, up to the capacity of its channel.
pub(super) struct Queue(pub(super) mpsc::Sender<String>);

impl Outlet for Queue {
    async fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>, _: &Mark) {
        assert_eq!((hub, channel), (HubId(3), "all"));
        let text = String::from_utf8(message).expect("a feed's text is valid");
        // The test may have dropped the receiver when it had received enough.
        let _ = self.0.send(text).await;
    }
}

/// The next message, while `run` runs.
pub(super) async fn next(
    run: &mut std::pin::Pin<Box<impl Future<Output = ()>>>,
    received: &mut mpsc::Receiver<String>,
) -> String {
    tokio::select! {
        message = tokio::time::timeout(DEADLINE, received.recv()) => message.expect("a message in time").unwrap(),
        () = run => panic!("a feed ended"),
    }
}
