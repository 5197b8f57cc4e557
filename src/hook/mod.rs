//! Hooks: questions to the backend of a site, by HTTP, about what a client may do.
//!
//! - [`question`] is what is asked, and [`answer`] what the backend may say, both in the shape of Centrifugo's proxy, so that its backends work.
//! - `signature` signs a question. `client` sends it, within limits of time, of size and of number.
//! - [`breaker`] stops asking a backend that fails, so that its clients do not all wait for a timeout.
//!
//! A [`Hook`] is shared by all shards. Its questions are asked on a thread of their own, so that neither a handshake of TLS nor a large
//! answer takes time of a shard. Only the request that asks waits for the answer.

pub mod answer;
pub mod breaker;
mod client;
pub mod question;
pub mod signature;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::Uri;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::config::limits::{HOOK_LOG_INTERVAL, HOOK_OPEN, HOOK_WAITING_MAX};
use crate::config::{self, OnError};
use answer::{Connected, Message, Refusal, Said};
use breaker::{Breaker, Change};
use client::Client;
use question::Question;

/// What becomes of a request that was asked about.
#[derive(Debug, PartialEq)]
pub enum Verdict<T> {
    /// It is served, as the backend says.
    Allowed(T),
    /// The backend refuses it.
    Refused(Refusal),
    /// The backend gave no answer, and without one it is not served.
    Unanswered,
}

/// The hook `[hook.NAME]`.
#[derive(Debug)]
pub struct Hook {
    /// Its configuration.
    pub config: config::Hook,
    connect: Breaker,
    publish: Breaker,
    client: Client,
    /// The thread that asks.
    runtime: Handle,
    /// The questions that may be in flight.
    places: Semaphore,
    /// The questions that wait for one of them, or are in flight.
    pending: AtomicUsize,
    figures: Arc<Figures>,
    warned: Mutex<Option<Instant>>,
}

/// The figures of a hook. They outlast a reload.
#[derive(Debug, Default)]
pub struct Figures {
    /// Questions.
    pub asked: AtomicU64,
    /// Questions that got no answer that can be used.
    pub failed: AtomicU64,
    /// Requests that the backend refused.
    pub refused: AtomicU64,
}

/// Why there is no answer.
enum Failure {
    /// The breaker is open, or too many questions wait: the backend was not asked.
    Unasked(&'static str),
    /// The backend did not answer as it should.
    Failed(String),
}

impl Hook {
    /// A hook whose questions are asked on `runtime`.
    ///
    /// # Errors
    /// No certificates can be trusted.
    pub fn new(config: config::Hook, runtime: Handle, figures: Arc<Figures>) -> Result<Hook, String> {
        Ok(Hook {
            client: Client::new(&config)?,
            connect: Breaker::default(),
            publish: Breaker::default(),
            places: Semaphore::new(config.requests_max),
            pending: AtomicUsize::new(0),
            warned: Mutex::default(),
            config,
            runtime,
            figures,
        })
    }

    /// Its figures.
    pub fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// Whether one of its breakers is open.
    pub fn is_open(&self) -> bool {
        self.connect.is_open() || self.publish.is_open()
    }

    /// Asks whether a client may connect.
    pub async fn connect(self: &Arc<Hook>, question: Question) -> Verdict<Connected> {
        self.ask(|hook| Some((hook.config.connect.as_ref()?, &hook.connect)), question, answer::connect).await
    }

    /// Asks whether a message is published.
    pub async fn publish(self: &Arc<Hook>, question: Question) -> Verdict<Message> {
        self.ask(|hook| Some((hook.config.publish.as_ref()?, &hook.publish)), question, answer::publish).await
    }

    async fn ask<T: Default + Send + 'static>(
        self: &Arc<Hook>,
        asked: fn(&Hook) -> Option<(&Uri, &Breaker)>,
        question: Question,
        read: fn(&[u8]) -> Result<Said<T>, String>,
    ) -> Verdict<T> {
        let hook = self.clone();
        let task = self.runtime.spawn(async move {
            // A configuration names a hook only where it has the address.
            let Some((uri, breaker)) = asked(&hook) else { return hook.unanswered() };
            hook.figures.asked.fetch_add(1, Ordering::Relaxed);
            match hook.answer(uri, breaker, question, read).await {
                Ok(Said::Yes(answer)) => Verdict::Allowed(answer),
                Ok(Said::No(refusal)) => {
                    hook.figures.refused.fetch_add(1, Ordering::Relaxed);
                    Verdict::Refused(refusal)
                }
                Err(failure) => {
                    hook.figures.failed.fetch_add(1, Ordering::Relaxed);
                    hook.log(uri, &failure);
                    hook.unanswered()
                }
            }
        });
        // The task is dropped only if its thread ends.
        task.await.unwrap_or(Verdict::Unanswered)
    }

    async fn answer<T>(
        &self,
        uri: &Uri,
        breaker: &Breaker,
        question: Question,
        read: fn(&[u8]) -> Result<Said<T>, String>,
    ) -> Result<Said<T>, Failure> {
        let deadline = tokio::time::Instant::now() + self.config.timeout;
        let _pending = Pending::enter(&self.pending, self.config.requests_max + HOOK_WAITING_MAX)
            .ok_or(Failure::Unasked("too many questions wait for an answer"))?;
        let place = tokio::time::timeout_at(deadline, self.places.acquire()).await;
        let _place = place.map_err(|_| Failure::Unasked("too many questions wait for an answer"))?;
        if !breaker.admits(Instant::now()) {
            return Err(Failure::Unasked("it failed too often, and is not asked for a while"));
        }
        let said = match tokio::time::timeout_at(deadline, self.client.ask(&self.config, uri, &question)).await {
            Ok(answer) => answer.and_then(|body: Bytes| read(&body)),
            Err(_) => Err(format!("no answer within {}", config::duration_text(self.config.timeout))),
        };
        match breaker.report(Instant::now(), said.is_ok()) {
            Change::None => {}
            Change::Opened => log::error!(
                "The hook {} at {} fails: it is not asked for {}, and `on_error` applies",
                self.config.name,
                place_of(uri),
                config::duration_text(HOOK_OPEN)
            ),
            Change::Closed => log::info!("The hook {} at {} answers again", self.config.name, place_of(uri)),
        }
        said.map_err(Failure::Failed)
    }

    /// What applies without an answer.
    fn unanswered<T: Default>(&self) -> Verdict<T> {
        match self.config.on_error {
            OnError::Allow => Verdict::Allowed(T::default()),
            OnError::Deny => Verdict::Unanswered,
        }
    }

    fn log(&self, uri: &Uri, failure: &Failure) {
        let (why, is_new) = match failure {
            Failure::Unasked(why) => (*why, false),
            Failure::Failed(why) => (why.as_str(), true),
        };
        let line = format!("The hook {} at {} has no answer: {why}", self.config.name, place_of(uri));
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if is_new && warned.is_none_or(|last| now.duration_since(last) >= HOOK_LOG_INTERVAL) {
            *warned = Some(now);
            log::warn!("{line}");
        } else {
            log::debug!("{line}");
        }
    }
}

/// The address without its query, which may have a secret.
fn place_of(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

/// A question that is counted.
struct Pending<'h>(&'h AtomicUsize);

impl<'h> Pending<'h> {
    fn enter(count: &'h AtomicUsize, most: usize) -> Option<Pending<'h>> {
        let pending = Pending(count);
        (count.fetch_add(1, Ordering::Relaxed) < most).then_some(pending)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
