//! Passwords of a static route (HTTP Basic, RFC 7617).
//!
//! A password that was right is remembered, so most requests cost a keyed hash. Others are compared on a blocking thread. Few are
//! compared at once in the whole process, and few wait: an attacker who tries passwords cannot take the processors, nor the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use tokio::sync::Semaphore;

use super::route::{Ask, Pages};
use super::{Body, Refusal};
use crate::config;
use crate::config::limits::{PASSWORD_CHECKS_MAX, PASSWORD_WAITERS_MAX};
use crate::grant::passwords::{self, Shown, Users};
use crate::http::access::User;
use crate::http::body::plain_text;

static CHECKS: Semaphore = Semaphore::const_new(PASSWORD_CHECKS_MAX);
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The users of a route, and what a request without a password is answered with.
#[derive(Debug)]
pub(super) struct Gate {
    users: Users,
    challenge: HeaderValue,
}

/// What is known of a request without a comparison.
pub(super) enum Known {
    /// It may be answered: the route is open, or its user is known.
    Yes(Option<User>),
    /// It shows a password that must be compared.
    NotYet(Shown),
    /// It shows none.
    No,
}

impl Gate {
    pub(super) fn new(passwords: &config::Passwords) -> Gate {
        let challenge = format!("Basic realm=\"{}\", charset=\"UTF-8\"", passwords.realm);
        let plain = HeaderValue::from_static("Basic realm=\"restricted\", charset=\"UTF-8\"");
        Gate { users: Users::new(passwords), challenge: HeaderValue::from_str(&challenge).unwrap_or(plain) }
    }
}

/// What is known of the user of a request.
pub(super) fn known(ask: &Ask<'_>) -> Known {
    let Some(gate) = &ask.pages.gate else { return Known::Yes(None) };
    // A browser asks for leave without a password (Fetch, "CORS-preflight fetch"), and the answer tells nothing.
    if *ask.method == Method::OPTIONS && !ask.headers.contains_key(AUTHORIZATION) {
        return Known::Yes(None);
    }
    let Some(shown) = passwords::shown(ask.headers) else { return Known::No };
    match gate.users.recent(&shown) {
        Some(user) => Known::Yes(Some(User(user))),
        None => Known::NotYet(shown),
    }
}

/// The user of a request, if the route has users.
///
/// # Errors
/// 401, or 503 where too many passwords are being compared.
pub(super) async fn check(pages: &Arc<Pages>, ask: &Ask<'_>) -> Result<Option<User>, Response<Body>> {
    let shown = match known(ask) {
        Known::Yes(user) => return Ok(user),
        Known::No => return Err(refuse(pages, "a password is needed here")),
        Known::NotYet(shown) => shown,
    };
    let Some(_waiting) = Waiting::enter() else {
        let busy = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many passwords are being compared, try later");
        return Err(busy.answer());
    };
    let permit = CHECKS.acquire().await;
    let work = tokio::task::spawn_blocking({
        let pages = pages.clone();
        move || pages.gate.as_ref().and_then(|gate| gate.users.verify(&shown))
    });
    let verified = work.await;
    drop(permit);
    match verified {
        Ok(Some(user)) => Ok(Some(User(user))),
        _ => Err(refuse(pages, "this user or this password is not known here")),
    }
}

fn refuse(pages: &Pages, why: &str) -> Response<Body> {
    let mut answer = plain_text(StatusCode::UNAUTHORIZED, why);
    if let Some(gate) = &pages.gate {
        answer.headers_mut().insert(WWW_AUTHENTICATE, gate.challenge.clone());
    }
    answer
}

/// A request whose password is compared, or will be.
struct Waiting;

impl Waiting {
    fn enter() -> Option<Waiting> {
        let most = PASSWORD_CHECKS_MAX + PASSWORD_WAITERS_MAX;
        let entered = WAITING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        entered.ok().map(|_| Waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}
