//! Which routes and feeds of one hub can meet in a channel: looked at once all of them are known to be good.
//!
//! A feed that no route can hear is a mistake in all likelihood. So is a route where a client names the whole channel beside
//! one that builds its channel of parts: what was meant for one user is heard by whoever names it.

use std::collections::{HashMap, HashSet};

use super::limits::BUILT_CHANNELS_COMPARED_MAX;
use super::report::{Problem, Report, Span};
use super::{Action, Feed, HubId, Route, Template};

/// What the clients of one hub can receive.
#[derive(Default)]
struct Heard<'c> {
    fixed: HashSet<&'c str>,
    /// The routes whose clients name the whole channel.
    whole: Vec<&'c (Span, Route)>,
    /// Channels that are built of parts, each with its route.
    built: Vec<(&'c Template, &'c Span)>,
}

impl Heard<'_> {
    /// Whether some client could hear it; where that would take long to find out, it could.
    fn can_be(&self, channel: &str) -> bool {
        !self.whole.is_empty()
            || self.fixed.contains(channel)
            || self.built.len() > BUILT_CHANNELS_COMPARED_MAX
            || self.built.iter().any(|(template, _)| template.can_be(channel))
    }
}

/// Warns of both.
pub(super) fn note(report: &Report<'_>, routes: &[(Span, Route)], feeds: &[(Span, Feed)]) {
    let mut hubs: HashMap<HubId, Heard<'_>> = HashMap::new();
    for route in routes {
        let (hub, channels) = match &route.1.action {
            Action::WebSocket(socket) => (socket.hub, &socket.channels),
            Action::Events(events) => (events.subscription.hub, &events.subscription.channels),
            _ => continue,
        };
        let heard = hubs.entry(hub).or_default();
        for channel in channels {
            match channel.fixed() {
                Some(name) => drop(heard.fixed.insert(name)),
                None if channel.is_whole() => {
                    if !heard.whole.last().is_some_and(|last| std::ptr::eq(*last, route)) {
                        heard.whole.push(route);
                    }
                }
                None => heard.built.push((channel, &route.0)),
            }
        }
    }
    for (span, feed) in feeds {
        if !hubs.get(&feed.hub).is_some_and(|heard| heard.can_be(&feed.channel)) {
            let problem = Problem::warning(span.clone(), "no route can hear this channel");
            let help = format!("`channels = [\"{}\"]` on a websocket or events route of its hub would", feed.channel);
            report.note(problem.label("published to nobody").help(help));
        }
    }
    for heard in hubs.values() {
        let Some((_, other)) = heard.built.first() else { continue };
        for (span, route) in &heard.whole {
            let title = format!("clients of `{}` can name any channel of its hub", route.pattern);
            let help = "give one of them a hub of its own, or its channels a part of their own, as in `room/{channel}`";
            let problem = Problem::warning(span.clone(), title).label("a channel of it is one hole").help(help);
            report.note(problem.also((*other).clone(), "also those that this route builds of parts"));
        }
    }
}
