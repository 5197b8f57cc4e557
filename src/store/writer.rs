//! The writer: one thread that commits everything that is queued in one transaction, again and again.
//!
//! The more publications come while a commit is in progress, the more the next one has: group commit, without a delay of its own. A
//! transaction that fails is kept and tried again; what waited for it is told, and nothing more is accepted until it succeeds.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::append::{State, Written, transaction};
use super::files::Files;
use super::hubs;
use super::queue::{Command, Queue};
use super::syncer::Signal;
use super::{Clock, Sync, expiry, io_error, is_damage, salvage, schema};
use crate::config::limits::{STORE_REST, STORE_RETRY};

pub(super) struct Writer {
    files: Files,
    /// `None` only while it is replaced, or if it could not be opened again.
    db: Option<Connection>,
    sync: Sync,
    queue: Arc<Queue>,
    syncing: Arc<Signal>,
    clock: Clock,
    state: State,
    /// What could not be written.
    failed: Vec<Command>,
    retry_at: Instant,
    /// When something was last written, if it is still in the log.
    written_at: Option<Instant>,
    /// When background work comes next.
    house_at: Instant,
}

impl Writer {
    pub fn new(
        files: Files,
        db: Connection,
        sync: Sync,
        queue: Arc<Queue>,
        syncing: Arc<Signal>,
        clock: Clock,
    ) -> io::Result<Writer> {
        let state = State { hubs: hubs::load(&db).map_err(|error| io_error(&error))?, ..State::default() };
        let now = Instant::now();
        let (db, failed) = (Some(db), Vec::new());
        Ok(Writer {
            files,
            db,
            sync,
            queue,
            syncing,
            clock,
            state,
            failed,
            retry_at: now,
            written_at: Some(now),
            house_at: now,
        })
    }

    /// Until the queue is closed and empty.
    pub fn run(mut self) {
        while let Some(commands) = self.queue.take(self.patience()) {
            if self.failed.is_empty() {
                self.write(commands);
            } else {
                self.keep(commands, None);
                if Instant::now() >= self.retry_at || self.queue.is_closed() {
                    self.retry();
                }
            }
            // Also while nothing can be written: what is deleted gives a full disk room.
            if Instant::now() >= self.house_at {
                self.keep_house();
            }
        }
        self.end();
    }

    /// How long to wait for commands.
    fn patience(&self) -> Option<Duration> {
        let left = |at: Instant| Some(at.saturating_duration_since(Instant::now()));
        if !self.failed.is_empty() {
            return left(self.retry_at.min(self.house_at));
        }
        let is_something_left = self.written_at.is_some() || self.state.has_ages();
        if is_something_left { left(self.house_at) } else { None }
    }

    fn retry(&mut self) {
        let failed = std::mem::take(&mut self.failed);
        if let Some(db) = &self.db {
            // A full disk has room again when the log is moved into the database.
            let _ = schema::empty_log(db);
        }
        self.write(failed);
        if self.failed.is_empty() {
            self.queue.set_failing(false);
            log::warn!("the store can be written again: publications to durable hubs are accepted");
        }
    }

    fn write(&mut self, mut commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let rebuilds: Vec<_> = commands.extract_if(.., |command| matches!(command, Command::Rebuild { .. })).collect();
        self.queue.finish(&rebuilds);
        if !commands.is_empty() {
            let mut result = self.commit(&commands);
            if let Err(error) = &result
                && is_damage(error)
            {
                let found = error.to_string();
                result = self.rebuild(&found).and_then(|()| self.commit(&commands));
            }
            match result {
                Ok(written) => self.committed(commands, written),
                Err(error) => self.keep(commands, Some(&error)),
            }
        }
        self.rebuild_as_asked(rebuilds);
    }

    fn commit(&mut self, commands: &[Command]) -> rusqlite::Result<Written> {
        if self.db.is_none() {
            self.db = Some(schema::writing(&self.files.database(), self.sync)?);
        }
        let Some(db) = &self.db else { return Err(rusqlite::Error::InvalidPath(self.files.database())) };
        let (state, now) = (&mut self.state, (self.clock)());
        let result = transaction(db, || {
            state.refresh(db)?;
            state.write(db, commands, now)
        });
        let mut written = match result {
            Ok(written) => written,
            Err(error) => {
                state.forget_all();
                if !db.is_autocommit() {
                    self.db = None;
                }
                return Err(error);
            }
        };
        // A reservation is only used when it does not depend on the log. Everything else is written, also if this fails.
        if !written.begun.is_empty()
            && let Err(error) = schema::checkpoint(db)
        {
            written.begun.iter_mut().for_each(|(_, answer)| *answer = Err(io_error(&error)));
        }
        Ok(written)
    }

    /// The transaction is in the log, and synced if it has to be. Now, and not before, everything that waited for it is released.
    fn committed(&mut self, mut commands: Vec<Command>, written: Written) {
        self.state.publish_written();
        self.queue.finish(&commands);
        self.queue.count_commit();
        self.written_at = Some(Instant::now());
        self.house_at = self.house_at.min(Instant::now() + STORE_REST);
        let mut bytes = 0;
        for place in written.refused {
            if let Command::Append(append) = &mut commands[place] {
                append.hold = None;
            }
        }
        for (place, state) in written.begun {
            if let Command::Begin { answer, .. } = &commands[place] {
                // The caller may have given up.
                let _ = answer.send(state);
            }
        }
        for command in &mut commands {
            match command {
                Command::Append(append) => {
                    bytes += append.payload.len() + 100;
                    if let Some(hold) = append.hold.take() {
                        hold.written();
                    }
                }
                Command::Complete { done, .. } => done.take().into_iter().for_each(|done| done()),
                Command::Mark { hold, .. } => *hold = None,
                _ => {}
            }
        }
        self.syncing.wrote(bytes);
    }

    /// Keeps commands for the next attempt, and tells what waits for them.
    fn keep(&mut self, mut commands: Vec<Command>, error: Option<&rusqlite::Error>) {
        let reason = error.map_or_else(|| "the store cannot be written".to_owned(), ToString::to_string);
        let asking = |command: &mut Command| matches!(command, Command::Begin { .. } | Command::Rebuild { .. });
        let asking: Vec<_> = commands.extract_if(.., asking).collect();
        self.queue.finish(&asking);
        // Otherwise there is nothing to try again, and nothing would end the failure.
        if let Some(error) = error.filter(|_| !commands.is_empty()) {
            self.fail(error);
        }
        for command in asking {
            if let Command::Begin { answer, .. } = command {
                let error = error.map_or_else(|| io::Error::other(reason.clone()), io_error);
                let _ = answer.send(Err(error));
            }
        }
        for command in &mut commands {
            match command {
                Command::Append(append) => append.hold = None,
                // Its message is written. The publisher need not wait for what completes the key.
                Command::Complete { done, .. } => done.take().into_iter().for_each(|done| done()),
                _ => {}
            }
        }
        self.failed.append(&mut commands);
    }

    /// Accepts nothing until the next attempt succeeds.
    fn fail(&mut self, error: &rusqlite::Error) {
        if !self.queue.is_failing() {
            log::error!(
                "the store cannot be written: {error}. Publications to durable hubs are refused until it can; \
                 it is tried every second"
            );
        }
        self.queue.set_failing(true);
        self.retry_at = Instant::now() + STORE_RETRY;
    }

    fn rebuild_as_asked(&mut self, commands: Vec<Command>) {
        let mut answers: Vec<SyncSender<()>> = Vec::new();
        let mut damage = None;
        for command in commands {
            if let Command::Rebuild { found, answer } = command {
                damage = Some(found);
                answers.push(answer);
            }
        }
        if let Some(found) = damage
            && let Err(error) = self.rebuild(&found)
        {
            log::error!("the store is damaged ({found}) and could not be repaired: {error}");
        }
        for answer in answers {
            // The reader may have been closed.
            let _ = answer.send(());
        }
    }

    /// Replaces the database by a new one with all that is whole.
    fn rebuild(&mut self, found: &str) -> rusqlite::Result<()> {
        log::error!("the store is damaged: {found}");
        self.syncing.pause();
        self.db = None;
        let known = std::mem::take(&mut self.state.hubs);
        let result = salvage::rebuild(&self.files, found, &known);
        self.state = State { hubs: known, is_stale: true, ..State::default() };
        let reopened = schema::writing(&self.files.database(), self.sync).map(|db| self.db = Some(db));
        self.queue.count_generation();
        self.syncing.resume();
        match result {
            Ok(report) => report.iter().for_each(|line| log::warn!("{line}")),
            Err(error) => {
                log::error!("what is whole in the damaged store could not be saved: {error}");
                return Err(rusqlite::Error::InvalidPath(self.files.database()));
            }
        }
        reopened
    }

    /// One step of what is done in the background, so that it never holds up a commit for long.
    fn keep_house(&mut self) {
        let is_busy = self.written_at.is_some_and(|at| at.elapsed() < STORE_REST);
        match self.clean_up(is_busy) {
            // The next step comes after the next batch, or at once if nothing is queued.
            Ok(true) => self.house_at = Instant::now(),
            Ok(false) => self.house_at = Instant::now() + STORE_REST,
            Err(error) => {
                self.state.forget_all();
                self.house_at = Instant::now() + STORE_RETRY;
                if is_damage(&error) {
                    let _ = self.rebuild(&error.to_string());
                } else {
                    log::debug!("the store cannot be cleaned up: {error}");
                }
            }
        }
    }

    /// Returns whether there is more to do.
    fn clean_up(&mut self, is_busy: bool) -> rusqlite::Result<bool> {
        let Some(db) = &self.db else { return Ok(false) };
        let (state, now) = (&mut self.state, (self.clock)());
        let changes = db.total_changes();
        let is_more = transaction(db, || {
            state.refresh(db)?;
            state.expire(db, now)
        })?;
        state.publish_written();
        let is_more = expiry::give_back(db, is_busy)? || is_more;
        if db.total_changes() != changes && self.written_at.is_none() {
            self.written_at = Some(Instant::now());
        }
        if !is_more && !is_busy && self.written_at.is_some() && schema::empty_log(db)? {
            self.written_at = None;
        }
        Ok(is_more)
    }

    fn end(mut self) {
        if !self.failed.is_empty() {
            self.retry();
        }
        let lost = self.failed.iter().filter(|command| matches!(command, Command::Append(_))).count();
        if lost > 0 {
            log::error!("the store could not be written: {lost} publications, which were refused, are lost");
        }
        if let Some(db) = self.db.take()
            && let Err((_, error)) = db.close()
        {
            log::error!("the store could not be closed: {error}");
        }
    }
}
