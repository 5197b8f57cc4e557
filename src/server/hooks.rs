//! The hooks in use, and the thread that asks for all of them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::config;
use crate::config::limits::HOOK_RESOLVERS_MAX;
use crate::hook::Hook;

/// The hooks by their names.
pub(super) type ByName = HashMap<Arc<str>, Arc<Hook>>;

/// The hooks in use.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Without hooks there is no thread.
    thread: Option<Thread>,
    by_name: ByName,
}

/// A runtime on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
struct Thread {
    runtime: Handle,
    _ends: oneshot::Sender<()>,
}

impl Hooks {
    /// Takes the hooks of a configuration. Those that have not changed keep their connections and their breakers.
    ///
    /// # Errors
    /// The thread cannot be created, or no certificates can be trusted. Then nothing has changed.
    pub(super) fn begin(&mut self, hooks: &[config::Hook]) -> io::Result<()> {
        if hooks.is_empty() {
            self.by_name.clear();
            return Ok(());
        }
        let runtime = match &self.thread {
            Some(thread) => thread.runtime.clone(),
            None => {
                let thread = Thread::start()?;
                let runtime = thread.runtime.clone();
                self.thread = Some(thread);
                runtime
            }
        };
        let by_name = hooks.iter().map(|hook| {
            let before = self.by_name.get(&hook.name);
            let hook = match before.filter(|before| before.config == *hook) {
                Some(before) => before.clone(),
                None => {
                    let figures = before.map(|before| before.figures().clone()).unwrap_or_default();
                    let new = Hook::new(hook.clone(), runtime.clone(), figures);
                    Arc::new(new.map_err(|why| io::Error::other(format!("the hook {}: {why}", hook.name)))?)
                }
            };
            Ok((hook.config.name.clone(), hook))
        });
        self.by_name = by_name.collect::<io::Result<_>>()?;
        Ok(())
    }

    /// The hooks by their names.
    pub(super) fn by_name(&self) -> &ByName {
        &self.by_name
    }

    /// The hooks in the order of their names.
    pub(super) fn sorted(&self) -> Vec<Arc<Hook>> {
        let mut hooks: Vec<_> = self.by_name.values().cloned().collect();
        hooks.sort_by(|one, other| one.config.name.cmp(&other.config.name));
        hooks
    }
}

impl Thread {
    fn start() -> io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(HOOK_RESOLVERS_MAX).build()?;
        let (ends, ended) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name("hooks".to_owned()).spawn(move || {
            // The sender is dropped, never used.
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Thread { runtime: handle, _ends: ends })
    }
}
