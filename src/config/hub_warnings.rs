//! Warnings about routes and feeds of one hub that may be mistakes together. They are looked for once every single one is valid.
//!
//! - A feed publishes to a channel that no route subscribes to.
//! - The clients of one route choose the whole name of a channel, while another route builds its channel from parts, such as
//!   `user/{id}`. A client of the first can subscribe to the channel of any user.

use std::collections::{HashMap, HashSet};

use super::limits::BUILT_CHANNELS_COMPARED_MAX;
use super::report::{Problem, Report, Span};
use super::{Feed, HubId, Route, Template};

/// The channels that the clients of one hub can subscribe to.
#[derive(Default)]
struct Subscribed<'c> {
    fixed: HashSet<&'c str>,
    /// The routes whose clients choose the whole name of a channel.
    whole: Vec<&'c (Span, Route)>,
    /// The channels that are built from parts, each with the location of its route.
    built: Vec<(&'c Template, &'c Span)>,
}

impl Subscribed<'_> {
    /// Whether a client can subscribe to the channel. `true` where there are too many templates to compare.
    fn can_be(&self, channel: &str) -> bool {
        !self.whole.is_empty()
            || self.fixed.contains(channel)
            || self.built.len() > BUILT_CHANNELS_COMPARED_MAX
            || self.built.iter().any(|(template, _)| template.can_be(channel))
    }
}

/// Reports both warnings.
pub(super) fn note(report: &Report<'_>, routes: &[(Span, Route)], feeds: &[(Span, Feed)]) {
    let mut hubs: HashMap<HubId, Subscribed<'_>> = HashMap::new();
    for route in routes {
        let Some(subscription) = route.1.action.subscription() else { continue };
        let subscribed = hubs.entry(subscription.hub).or_default();
        for channel in &subscription.channels {
            match channel.fixed() {
                Some(name) => drop(subscribed.fixed.insert(name)),
                None if channel.is_whole() => {
                    if !subscribed.whole.last().is_some_and(|last| std::ptr::eq(*last, route)) {
                        subscribed.whole.push(route);
                    }
                }
                None => subscribed.built.push((channel, &route.0)),
            }
        }
    }
    for (span, feed) in feeds {
        if !hubs.get(&feed.hub).is_some_and(|subscribed| subscribed.can_be(&feed.channel)) {
            let problem = Problem::warning(span.clone(), "no route subscribes to this channel");
            let help =
                format!("add `channels = [\"{}\"]` to a websocket or events route of the same hub", feed.channel);
            report.note(problem.label("its messages have no receiver").help(help));
        }
    }
    for subscribed in hubs.values() {
        let Some((_, other)) = subscribed.built.first() else { continue };
        for (span, route) in &subscribed.whole {
            let title = format!("clients of `{}` can subscribe to every channel of its hub", route.pattern);
            let help =
                "use another hub for one of the two routes, or a prefix for its channels, as in `room/{channel}`";
            let problem =
                Problem::warning(span.clone(), title).label("one of its channels is a single placeholder").help(help);
            report.note(problem.also((*other).clone(), "including the channels that this route builds from parts"));
        }
    }
}
