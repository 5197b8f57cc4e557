//! The thread that writes the log.
//!
//! In each round it takes the queued lines, writes them, reports the number of lost lines, and carries out the orders.
//! While losses are not yet reported (because the disk is full), it tries again at an interval, so that the report does
//! not have to wait for the next event.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use ::log::Level;

use super::file::Loss;
use super::line::Line;
use super::queue::{Order, Queue};
use super::sink::Sink;
use crate::daemon::exit::reason;

/// How often to try again to report a loss.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    sink: Sink,
    /// Lines lost and not yet reported, and the reason of the last loss.
    lost: u64,
    why: String,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, sink: Sink) -> Writer {
        Writer { queue, sink, lost: 0, why: String::new() }
    }

    /// Runs until it is ordered to close.
    pub(super) fn run(mut self) {
        let greeted = self.sink.greet();
        self.note(greeted);
        loop {
            let batch = self.queue.take((self.lost > 0).then_some(REPORT_INTERVAL));
            self.report_loss();
            if !batch.lines.is_empty() {
                let written = self.sink.write(&batch.lines);
                self.note(written);
            }
            if batch.lost > 0 {
                self.lost += batch.lost;
                self.why = "they came faster than they could be written".to_string();
                self.report_loss();
            }
            for order in batch.orders {
                if let Some(closed) = self.carry_out(order) {
                    // The caller may have stopped waiting.
                    let _ = closed.send(());
                    return;
                }
            }
        }
    }

    fn carry_out(&mut self, order: Order) -> Option<Sender<()>> {
        match order {
            Order::Reopen => {
                let reopened = self.sink.reopen();
                self.note(reopened);
            }
            Order::Replace(sink) => {
                self.report_loss();
                self.sink = *sink;
                let greeted = self.sink.greet();
                self.note(greeted);
            }
            Order::Restyle(format, rotate) => self.sink.restyle(format, rotate),
            Order::Flush(done) => {
                let _ = done.send(());
            }
            Order::Close(done) => return Some(done),
        }
        None
    }

    fn note(&mut self, written: Result<(), Loss>) {
        if let Err(loss) = written {
            self.lost += loss.lines;
            self.why = reason(&loss.error);
        }
    }

    fn report_loss(&mut self) {
        if self.lost == 0 {
            return;
        }
        let lines = if self.lost == 1 { "line was" } else { "lines were" };
        let text = format!("{} log {lines} lost: {}", self.lost, self.why);
        if self.sink.write(&[Line::new(Level::Warn, "log", text)]).is_ok() {
            self.lost = 0;
        }
    }
}
