//! The reader: one thread that answers pages, and checks what was written long ago while there are none.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;

use super::files::Files;
use super::opening::Opened;
use super::page::{self, PageQuery, StoredPage};
use super::queue::{Command, Queue};
use super::verify::Patrol;
use super::{Clock, io_error, is_damage, schema};

type Answer = Box<dyn FnOnce(StoredPage) + Send>;

/// How much nicer than the others this thread is. Pages are for clients that return. Where processors are few, those that are live
/// come first: with the same priority as the shard, the return of 1,000 clients raised the p99 of live ones 4.5 times.
const NICENESS: i32 = 10;
/// How often a part of the store is checked, while no page is asked for.
const PATROL_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Default)]
struct Waiting {
    queries: VecDeque<(PageQuery, Answer)>,
    is_closed: bool,
}

/// The pages that were asked for. Each client asks for one at a time, so their number is bounded by that of the clients.
#[derive(Default)]
pub(super) struct Requests {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Requests {
    pub fn push(&self, query: PageQuery, answer: Answer) {
        let mut waiting = self.lock();
        if waiting.is_closed {
            drop(waiting);
            return answer(StoredPage::lost(&query));
        }
        waiting.queries.push_back((query, answer));
        self.changed.notify_one();
    }

    pub fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Reader {
    files: Files,
    db: Option<Connection>,
    requests: Arc<Requests>,
    queue: Arc<Queue>,
    clock: Clock,
    /// Which database it has open.
    generation: u64,
    /// `None`: everything was checked.
    patrol: Option<Patrol>,
}

impl Reader {
    pub fn new(opened: &Opened, requests: Arc<Requests>, queue: Arc<Queue>, clock: Clock) -> io::Result<Reader> {
        let db = schema::reading(&opened.files.database()).map_err(|error| io_error(&error))?;
        let patrol = (!opened.is_checked).then(Patrol::default);
        Ok(Reader {
            files: opened.files.clone(),
            db: Some(db),
            requests,
            generation: queue.generation(),
            queue,
            clock,
            patrol,
        })
    }

    /// Until it is closed; then all that was asked for has an answer.
    pub fn run(mut self) {
        // On Linux it is the priority of the calling thread (setpriority(2)).
        if let Err(error) = rustix::process::nice(NICENESS) {
            log::debug!("the thread that reads the store keeps its priority: {error}");
        }
        loop {
            let mut waiting = self.requests.lock();
            let is_idle = |waiting: &mut Waiting| waiting.queries.is_empty() && !waiting.is_closed;
            waiting = if self.patrol.is_some() {
                let waited = self.requests.changed.wait_timeout_while(waiting, PATROL_INTERVAL, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.requests.changed.wait_while(waiting, is_idle).unwrap_or_else(PoisonError::into_inner)
            };
            match waiting.queries.pop_front() {
                // Nobody waits for it any more: who does holds the selectors, too.
                Some((query, _)) if Arc::strong_count(&query.channels) == 1 => {}
                Some((query, answer)) => {
                    drop(waiting);
                    answer(self.page(&query));
                }
                None if waiting.is_closed => return,
                None => {
                    drop(waiting);
                    self.patrol();
                }
            }
        }
    }

    /// A page. If the database is damaged there, it is asked for again once the writer has made a new one.
    fn page(&mut self, query: &PageQuery) -> StoredPage {
        for _ in 0..2 {
            let error = match self.try_page(query) {
                Ok(page) => return page,
                Err(error) => error,
            };
            log::warn!("a page of the store cannot be read: {error}");
            if is_damage(&error) {
                self.have_rebuilt(&error.to_string());
            }
        }
        StoredPage::lost(query)
    }

    fn try_page(&mut self, query: &PageQuery) -> rusqlite::Result<StoredPage> {
        let generation = self.queue.generation();
        if self.db.is_none() || self.generation != generation {
            self.db = Some(schema::reading(&self.files.database())?);
            self.generation = generation;
        }
        let Some(db) = &self.db else { return Ok(StoredPage::lost(query)) };
        let mut damaged = Vec::new();
        let page = page::read(db, query, (self.clock)(), &mut damaged);
        self.forget(&damaged);
        page
    }

    fn forget(&self, damaged: &[i64]) {
        for &id in damaged {
            let (hub, offset) = schema::of_message_id(id);
            log::warn!("store: the message with offset {offset} of hub number {hub} is damaged, and is deleted");
            self.queue.push(Command::Forget { id });
        }
    }

    fn patrol(&mut self) {
        let (Some(patrol), Some(db)) = (&mut self.patrol, &self.db) else { return };
        let mut damaged = Vec::new();
        match patrol.step(db, &mut damaged) {
            Ok(true) => {}
            Ok(false) => self.patrol = None,
            Err(error) => {
                self.patrol = None;
                if is_damage(&error) {
                    self.have_rebuilt(&error.to_string());
                }
            }
        }
        self.forget(&damaged);
    }

    /// Waits until the writer has replaced the database. This thread has it not open meanwhile.
    fn have_rebuilt(&mut self, found: &str) {
        self.db = None;
        let (answer, answered) = sync_channel(1);
        self.queue.push(Command::Rebuild { found: found.to_owned(), answer });
        // An error: the store is being closed.
        let _ = answered.recv();
        self.patrol = None;
    }
}
