//! What the tests of feeds share: a feed as the configuration has it, and an outlet that hands everything to the test.

use std::time::Duration;

use tokio::sync::mpsc;

use super::Outlet;
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

/// An outlet with room for as many messages as its channel has.
pub(super) struct Ear(pub(super) mpsc::Sender<String>);

impl Outlet for Ear {
    async fn publish(&self, hub: HubId, channel: &str, message: Vec<u8>) {
        assert_eq!((hub, channel), (HubId(3), "all"));
        let text = String::from_utf8(message).expect("a feed's text is valid");
        // A test that has heard enough no longer listens.
        let _ = self.0.send(text).await;
    }
}

/// The next message, while `run` runs.
pub(super) async fn next(
    run: &mut std::pin::Pin<Box<impl Future<Output = ()>>>,
    heard: &mut mpsc::Receiver<String>,
) -> String {
    tokio::select! {
        message = tokio::time::timeout(DEADLINE, heard.recv()) => message.expect("a message in time").unwrap(),
        () = run => panic!("a feed ended"),
    }
}
