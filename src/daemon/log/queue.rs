//! The bounded queue between the threads that log and the thread that writes.
//!
//! Adding a line takes a lock for a moment and never waits for the disk. Lines that do not fit are counted. The writer
//! takes everything at once, so a burst becomes one write. Orders (reopen, flush, …) are kept in a list of their own,
//! so that a full queue does not block them. They are carried out after the lines that were queued before them.

use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::line::Line;
use super::sink::Sink;
use crate::config::{LogFormat, Rotate};

/// An order to the writer, carried out after the queued lines were written.
#[derive(Debug)]
pub(super) enum Order {
    /// Reopen the file (SIGUSR1).
    Reopen,
    /// Write to another destination from now on.
    Replace(Box<Sink>),
    /// Write to the same destination, with another format or rotation.
    Restyle(LogFormat, Option<Rotate>),
    /// Answer once all lines before it are written.
    Flush(Sender<()>),
    /// The same, and end the writer.
    Close(Sender<()>),
}

/// Everything that was queued when the writer looked.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    pub(super) orders: Vec<Order>,
    /// Lines that did not fit into the queue, after those in `lines`.
    pub(super) lost: u64,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.orders.is_empty() && self.lost == 0
    }
}

#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Batch>,
    wake: Condvar,
    lines_max: usize,
}

impl Queue {
    pub(super) fn new(lines_max: usize) -> Queue {
        Queue { waiting: Mutex::default(), wake: Condvar::new(), lines_max }
    }

    /// Queues a line, or counts it as lost.
    pub(super) fn push(&self, line: Line) {
        let mut waiting = self.lock();
        if waiting.lines.len() >= self.lines_max {
            waiting.lost += 1;
            return;
        }
        let first = waiting.is_empty();
        waiting.lines.push(line);
        drop(waiting);
        // If the batch was not empty, the writer was woken already or will look before it sleeps.
        if first {
            self.wake.notify_one();
        }
    }

    /// Queues an order. There are only ever a few.
    pub(super) fn order(&self, order: Order) {
        self.lock().orders.push(order);
        self.wake.notify_one();
    }

    /// Takes everything. Waits while the queue is empty, for at most `time` if that is given.
    pub(super) fn take(&self, time: Option<Duration>) -> Batch {
        let empty = |waiting: &mut Batch| waiting.is_empty();
        let waiting = self.lock();
        let mut waiting = match time {
            None => self.wake.wait_while(waiting, empty).unwrap_or_else(PoisonError::into_inner),
            Some(time) => {
                let waited = self.wake.wait_timeout_while(waiting, time, empty);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        std::mem::take(&mut *waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        // A thread that panicked while holding the lock left at worst one line unqueued.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ::log::Level;

    use super::*;

    fn line(text: &str) -> Line {
        Line::new(Level::Info, "test", text.to_string())
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_orders_still_pass() {
        let queue = Queue::new(2);
        for text in ["a", "b", "c", "d"] {
            queue.push(line(text));
        }
        queue.order(Order::Reopen);
        let batch = queue.take(None);
        assert_eq!(batch.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(batch.lost, 2);
        assert!(matches!(batch.orders[..], [Order::Reopen]));
        assert!(queue.take(Some(Duration::ZERO)).is_empty());
        queue.push(line("e"));
        assert_eq!(queue.take(None).lines.len(), 1);
    }

    #[test]
    fn a_waiting_writer_is_woken() {
        let queue = std::sync::Arc::new(Queue::new(8));
        let writer = std::thread::spawn({
            let queue = queue.clone();
            move || queue.take(None).lines.len()
        });
        queue.push(line("a"));
        assert_eq!(writer.join().unwrap(), 1);
    }
}
