//! The configuration of a world: hubs with different policies for slow clients, and routes to them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use pushd::config::{
    Accept, History, Hub, HubId, OnMessage, Origins, SessionLog, Subscription, Template, WebSocket, WhenSlow,
};
use pushd::hub::Members;
use pushd::session::Terms;
use pushd::session::speech::{Plain, Speech};
use pushd::shard::table::Pace;
use pushd::wire::Transport;

use crate::random::Random;

/// The prefix of a gap notice.
pub const GAP: &str = "dropped:";

/// A route.
pub struct Route {
    pub terms: Arc<Terms>,
    /// The prefix that its template adds to each message.
    pub prefix: &'static str,
    pub is_removed: bool,
}

/// The hubs: two that disconnect (one with large limits, one with small ones), one that drops the oldest messages, one that drops
/// the newest, and one that keeps the latest of each channel.
pub fn hubs(exact: bool, random: &mut Random) -> Vec<Hub> {
    let gap_notice = random.once_in(2).then(|| Template::parse(&format!("{GAP}{{dropped}}")).unwrap());
    // In an exact world every dropped message is counted. The model does not know pings, so there are none.
    let ping = (!exact).then_some(Duration::from_secs(6));
    let mut hub =
        |name: &str, when_slow, message_bytes_max, queue_bytes_max: &[usize], queue_messages_max: &[usize]| Hub {
            name: name.to_owned(),
            message_bytes_max,
            queue_bytes_max: random.one_of(queue_bytes_max),
            queue_messages_max: random.one_of(queue_messages_max),
            queue_age_max: random.one_of(&[None, None, None, Some(Duration::from_secs(2))]),
            when_slow,
            gap_notice: gap_notice.clone().filter(|_| when_slow != WhenSlow::Disconnect),
            ping,
            pong_timeout: Duration::from_secs(3),
            subscribers_max: NonZeroUsize::new(40),
            deflate_bytes_min: random.one_of(&[None, Some(60)]),
            history: (!random.once_in(3)).then(|| history(random)),
            ..Hub::default()
        };
    vec![
        hub("generous", WhenSlow::Disconnect, 100_000, &[1 << 20], &[16_384]),
        hub("narrow", WhenSlow::Disconnect, 300, &[400, 3_000], &[8, 40]),
        hub("oldest", WhenSlow::DropOldest, 1_000, &[1_000, 9_000], &[10, 100]),
        hub("newest", WhenSlow::DropNewest, 1_000, &[1_000, 9_000], &[10, 100]),
        hub("latest", WhenSlow::Conflate, 1_000, &[20_000], &[50]),
    ]
}

/// What is kept of each channel. Little of it, in most cases, so that messages are dropped.
pub fn history(random: &mut Random) -> History {
    let messages = random.one_of(&[None, Some(1), Some(3), Some(20), Some(500)]);
    let bytes = random.one_of(&[None, None, Some(50), Some(700), Some(20_000), Some(1 << 20)]);
    let age = random.one_of(&[None, None, Some(Duration::from_secs(1)), Some(Duration::from_secs(5))]);
    let is_unlimited = messages.is_none() && bytes.is_none() && age.is_none();
    History { messages: messages.or(is_unlimited.then_some(40)).and_then(NonZeroUsize::new), bytes, age }
}

/// The routes: for each hub one that broadcasts and one of another kind.
pub fn routes(hubs: &[Hub], members: &[Members], random: &mut Random) -> Vec<Route> {
    let mut routes = Vec::new();
    for (number, hub) in hubs.iter().enumerate() {
        let other = random.one_of(&[OnMessage::Echo, OnMessage::Echo, OnMessage::Ignore]);
        for (kind, on_message) in [("said", OnMessage::Broadcast), ("other", other)] {
            let prefix = random.one_of(&["", "", "msg:"]);
            let route = WebSocket {
                message: (!prefix.is_empty()).then(|| Template::parse(&format!("{prefix}{{message}}")).unwrap()),
                envelope: random.once_in(2),
                accept: random.one_of(&[Accept::Both, Accept::Both, Accept::Text, Accept::Binary]),
                ..route(HubId(number as u32), on_message)
            };
            let path = format!("/{}/{kind}", hub.name);
            let terms = terms(path, route, hub.clone(), members[number].clone());
            routes.push(Route { terms, prefix, is_removed: false });
        }
    }
    routes
}

/// The route of witnesses, which are never slow.
pub fn witness(hub: &Hub, number: usize, members: &Members) -> Arc<Terms> {
    let unlimited =
        Hub { queue_bytes_max: usize::MAX / 2, queue_age_max: None, ping: None, subscribers_max: None, ..hub.clone() };
    let envelope = hub.history.is_some();
    let route = WebSocket { envelope, ..route(HubId(number as u32), OnMessage::Ignore) };
    terms("/witness".to_owned(), route, unlimited, members.clone())
}

/// How much a turn does: as in a shard, or so little that most work takes several turns.
pub fn pace(random: &mut Random) -> Pace {
    if random.once_in(3) {
        return Pace::default();
    }
    let work = |random: &mut Random| random.one_of(&[1, 2_000, 10_000]);
    Pace {
        reading: work(random),
        reading_on: work(random),
        slice: work(random),
        flushing: work(random),
        timers: 1 + random.below(3),
        sweep: 1 + random.below(3),
        answers: work(random),
        page_messages: random.one_of(&[1, 2, 10, usize::MAX]),
    }
}

fn route(hub: HubId, on_message: OnMessage) -> WebSocket {
    WebSocket {
        subscription: Subscription {
            hub,
            channels: vec![Template::parse("all").unwrap()],
            origins: Origins::Any,
            log: SessionLog::Off,
            tokens: None,
            hook: None,
        },
        on_message,
        to: None,
        accept: Accept::Both,
        greeting: None,
        message: None,
        draft76: true,
        subprotocols: Vec::new(),
        envelope: false,
        subscribe: Vec::new(),
        subscriptions_max: 100,
        identity: None,
    }
}

fn terms(path: String, route: WebSocket, hub: Hub, members: Members) -> Arc<Terms> {
    let (log, speech) = (route.subscription.log, Speech::Plain(Plain::from(&route)));
    Arc::new(Terms {
        server: "simulated".to_owned(),
        path,
        transport: Transport::WebSocket,
        log,
        speech,
        hub_id: route.subscription.hub,
        hub,
        members,
        token_keys: None,
    })
}
