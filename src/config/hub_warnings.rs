//! Warnings about routes and feeds of one hub that may be mistakes together. They are looked for once every single one is valid.
//!
//! - A feed publishes to a channel that no route subscribes to.
//! - The clients of one route choose the whole name of a channel, while another route builds its channel from parts, such as
//!   `user/{id}`. A client of the first can subscribe to the channel of any user.
//! - The same, if clients of a route can subscribe by requests, and `subscribe` has a pattern that covers the channels of another.

use std::collections::{HashMap, HashSet};

use super::limits::BUILT_CHANNELS_COMPARED_MAX;
use super::report::{Problem, Report, Span};
use super::{Action, ChannelPattern, Feed, HubId, Route, Template, WebSocket};

/// The channels that the clients of one hub can subscribe to.
#[derive(Default)]
struct Subscribed<'c> {
    fixed: HashSet<&'c str>,
    /// The routes whose clients choose the whole name of a channel.
    whole: Vec<&'c (Span, Route)>,
    /// The channels that are built from parts, each with the location of its route.
    built: Vec<(&'c Template, &'c Span)>,
    /// The patterns: those of the operator, and those that clients may subscribe to.
    patterns: Vec<ChannelPattern>,
    /// The routes whose clients can subscribe by requests.
    asking: Vec<&'c (Span, Route)>,
}

impl Subscribed<'_> {
    /// Whether a client can subscribe to the channel. `true` where there are too many templates to compare.
    fn can_be(&self, channel: &str) -> bool {
        !self.whole.is_empty()
            || self.fixed.contains(channel)
            || self.built.len().max(self.patterns.len()) > BUILT_CHANNELS_COMPARED_MAX
            || self.patterns.iter().any(|pattern| pattern.matches(channel))
            || self.built.iter().any(|(template, _)| template.can_be(channel))
    }
}

/// Reports all of them.
pub(super) fn note(report: &Report<'_>, routes: &[(Span, Route)], feeds: &[(Span, Feed)]) {
    let mut hubs: HashMap<HubId, Subscribed<'_>> = HashMap::new();
    for route in routes {
        let Some(subscription) = route.1.action.subscription() else { continue };
        let subscribed = hubs.entry(subscription.hub).or_default();
        if let Action::WebSocket(WebSocket { subscribe, .. }) = &route.1.action
            && !subscribe.is_empty()
        {
            subscribed.patterns.extend(subscribe.iter().cloned());
            subscribed.asking.push(route);
        }
        for channel in &subscription.channels {
            if channel.is_pattern() {
                subscribed.patterns.extend(channel.as_pattern());
                continue;
            }
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
                format!("add `channels = [\"{}\"]` to a websocket, events or poll route of the same hub", feed.channel);
            report.note(problem.label("its messages have no receiver").help(help));
        }
    }
    for subscribed in hubs.values() {
        for route in &subscribed.asking {
            note_asking(report, route, &subscribed.built);
        }
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

/// Warns if clients of the route can subscribe to the channels that another route builds.
fn note_asking(report: &Report<'_>, (span, route): &(Span, Route), built: &[(&Template, &Span)]) {
    let Action::WebSocket(WebSocket { subscribe, .. }) = &route.action else { return };
    let others = built.iter().filter(|(_, other)| *other != span).take(BUILT_CHANNELS_COMPARED_MAX);
    let covered = others.filter_map(|(template, other)| {
        let pattern = template.as_pattern()?;
        subscribe.iter().find(|allowed| allowed.covers(&pattern)).map(|allowed| (allowed, *other))
    });
    let Some((allowed, other)) = covered.into_iter().next() else { return };
    let title = format!("clients of `{}` can subscribe to the channels that another route builds", route.pattern);
    let problem = Problem::warning(span.clone(), title).label(format!("`subscribe` has `{allowed}`"));
    let help = "use another hub for one of the two routes, or another prefix for the channels of one";
    report.note(problem.help(help).also(other.clone(), "this route builds its channels from parts"));
}
