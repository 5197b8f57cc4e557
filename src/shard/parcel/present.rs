//! The members of channels, as they are handed over: those of which it was told that they have joined.

use std::sync::Arc;

use crate::config::HubId;
use crate::config::limits::{LIST_VALUES_MAX, PRESENCE_BYTES_MAX};
use crate::hub::presence::Member;
use crate::wire::tagged::tagged;

/// What a member takes beside its texts, in bytes.
const OVERHEAD_BYTES: usize = 16;

/// Members of a channel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Present {
    /// NAME of the hub.
    pub hub: String,
    /// The channel.
    pub channel: Arc<str>,
    /// Their identities.
    pub ids: Vec<Arc<str>>,
}

tagged!(Present { 1 hub, 2 channel, 3 ids });

impl Present {
    /// Groups members by their channels. Those of a channel follow each other; `name` names their hubs. Returns also how many are left
    /// out, because there are too many.
    pub fn of<'n>(
        members: impl Iterator<Item = Member>,
        name: impl Fn(HubId) -> Option<&'n str>,
    ) -> (Vec<Present>, usize) {
        let mut present = Vec::<Present>::new();
        let (mut left_out, mut bytes) = (0, 0);
        for Member { hub, channel, id } in members {
            let Some(hub) = name(hub) else { continue };
            let last = present.last().filter(|last| last.hub == hub && last.channel == channel);
            let is_new = last.is_none_or(|last| last.ids.len() == LIST_VALUES_MAX);
            bytes += id.len() + OVERHEAD_BYTES;
            if is_new {
                bytes += hub.len() + channel.len() + OVERHEAD_BYTES;
            }
            if bytes > PRESENCE_BYTES_MAX || is_new && present.len() == LIST_VALUES_MAX {
                left_out += 1;
                continue;
            }
            if is_new {
                present.push(Present { hub: hub.to_owned(), channel, ids: Vec::new() });
            }
            if let Some(last) = present.last_mut() {
                last.ids.push(id);
            }
        }
        (present, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_grouped_by_their_channels_within_the_limits() {
        let member = |hub, channel: &str, id: &str| Member { hub: HubId(hub), channel: channel.into(), id: id.into() };
        let name = |hub: HubId| (hub.0 < 2).then_some(if hub.0 == 0 { "a" } else { "b" });
        let all = [member(0, "x", "1"), member(0, "x", "2"), member(1, "x", "1"), member(2, "gone", "1")];
        let (present, left_out) = Present::of(all.into_iter(), name);
        let of = |hub: &str, ids: &[&str]| {
            let ids = ids.iter().map(|id| Arc::from(*id)).collect();
            Present { hub: hub.into(), channel: "x".into(), ids }
        };
        assert_eq!(present, [of("a", &["1", "2"]), of("b", &["1"])]);
        assert_eq!(left_out, 0);
        let long = "x".repeat(1 << 20);
        let (present, left_out) = Present::of((0..200).map(|_| member(0, "x", &long)), name);
        assert_eq!(present[0].ids.len() + left_out, 200);
        assert!(left_out > 0);
    }
}
