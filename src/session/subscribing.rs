//! The subscriptions that a client has asked for itself, beside those of its route.
//!
//! Of each there is a seat, or an entry among those that catch up. Names are not kept here: the channels of the table have them.

use super::speech::Answer;
use super::{Acts, Session, Socket};
use crate::hub::{Seat, Selector};

/// What is known of a subscription that has not begun yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// The client has asked for it.
    OfClient,
    /// It is one of the route's.
    OfRoute,
}

impl<S: Socket> Session<S> {
    /// The subscriptions that have begun.
    pub fn wished_seats(&self) -> &[Seat] {
        self.state.cold.as_ref().map_or(&[], |cold| &cold.wished_seats)
    }

    /// How many there are, with those that have not begun.
    pub fn wished_count(&self) -> usize {
        let asked = |cold: &super::Cold| {
            let pending = cold.catch_ups.iter().filter(|catch_up| catch_up.is_wished && !catch_up.is_ended);
            cold.wished_seats.len() + pending.count()
        };
        self.state.cold.as_deref().map_or(0, asked)
    }

    /// Adds subscriptions.
    pub fn add_wished_seats(&mut self, seats: impl IntoIterator<Item = Seat>) {
        self.state.cold.get_or_insert_default().wished_seats.extend(seats);
        self.state.shrink_cold();
    }

    /// Removes one by its place.
    pub fn take_wished_seat(&mut self, at: usize) -> Option<Seat> {
        let cold = self.state.cold.as_mut()?;
        let seat = (at < cold.wished_seats.len()).then(|| cold.wished_seats.swap_remove(at));
        self.state.shrink_cold();
        seat
    }

    /// Takes them all, without those that have not begun.
    pub fn take_wished_seats(&mut self) -> Vec<Seat> {
        let seats = self.state.cold.as_mut().map(|cold| std::mem::take(&mut cold.wished_seats));
        self.state.shrink_cold();
        seats.unwrap_or_default()
    }

    /// Whether the subscriptions of its route have not begun yet.
    pub fn is_behind_route(&self) -> bool {
        self.catching_up().any(|catch_up| !catch_up.is_wished)
    }

    /// A subscription that has not begun yet.
    pub fn pending(&self, selector: &Selector) -> Option<Pending> {
        let cold = self.state.cold.as_ref()?;
        let found = cold.catch_ups.iter().find(|one| !one.is_ended && one.selectors.contains(selector))?;
        Some(if found.is_wished { Pending::OfClient } else { Pending::OfRoute })
    }

    /// Ends subscriptions that the client has asked for and that have not begun yet.
    pub fn end_pending(&mut self, is_meant: impl Fn(&Selector) -> bool) -> Vec<Selector> {
        let mut ended = Vec::new();
        let Some(cold) = &mut self.state.cold else { return ended };
        // A question that was asked is answered first. So a client that begins and ends subscriptions has one open at most.
        cold.catch_ups.retain_mut(|one| {
            let ends = one.is_wished && !one.is_ended && one.selectors.iter().all(&is_meant);
            if ends {
                ended.extend(one.selectors.iter().cloned());
                one.is_ended = true;
            }
            !ends || one.is_asking()
        });
        self.state.shrink_cold();
        ended
    }

    /// Answers a request of the client, or tells it that a subscription has ended.
    pub fn answer(&mut self, answer: &Answer<'_>, acts: &mut Acts<'_>) {
        let (terms, framing) = (self.state.terms.clone(), self.state.framing);
        self.state.reply(acts, |out| terms.speech.answer_into(framing, answer, out));
    }
}
