//! A passage: a flow on its way, counted, and ended exactly once.
//!
//! Whoever carries bytes holds it; when the last one lets go without having said how it ended, the seat knows (cut) or the agent
//! went away. So nothing that was decided goes without an end, also when its task is thrown away in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use super::seat::Seat;
use crate::flow::{Ended, Flow, Outcome};
use crate::hook::{Act, Direction, Event, Failure};

/// "Not yet" for the time of the first byte.
const NEVER: u64 = u64::MAX;

/// A flow being carried.
#[derive(Debug)]
pub(crate) struct Passage {
    seat: Arc<Seat>,
    flow: Arc<Flow>,
    sent: AtomicU64,
    received: AtomicU64,
    status: AtomicU16,
    first_byte_us: AtomicU64,
    garbled: AtomicBool,
    done: AtomicBool,
    watched: bool,
}

impl Passage {
    pub(super) fn new(seat: Arc<Seat>, flow: Arc<Flow>) -> Self {
        let watched = seat.agent.gateway.hooks.watch(&flow);
        seat.agent.began();
        Self {
            seat,
            flow,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            status: AtomicU16::new(0),
            first_byte_us: AtomicU64::new(NEVER),
            garbled: AtomicBool::new(false),
            done: AtomicBool::new(false),
            watched,
        }
    }

    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Whether hooks want its pieces.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// Counts bytes that went through.
    pub(crate) fn count(&self, direction: Direction, bytes: usize) {
        let counter = match direction {
            Direction::Out => &self.sent,
            Direction::Back => {
                self.answered();
                &self.received
            }
        };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The first of an answer is there.
    pub(crate) fn answered(&self) {
        if self.first_byte_us.load(Ordering::Relaxed) == NEVER {
            let micros = u64::try_from(self.flow.start.elapsed().as_micros()).unwrap_or(NEVER - 1);
            self.first_byte_us.store(micros, Ordering::Relaxed);
        }
    }

    /// The agent's own body broke its rules or broke off.
    pub(crate) fn garble(&self) {
        self.garbled.store(true, Ordering::Relaxed);
    }

    /// Whether it is the agent's body that ended the exchange.
    pub(crate) fn is_garbled(&self) -> bool {
        self.garbled.load(Ordering::Relaxed)
    }

    pub(crate) fn status(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// Asks the hooks before it connects, and waits as long as they say.
    ///
    /// # Errors
    /// How a hook wants it to fail.
    pub(crate) async fn before_connect(&self) -> Result<(), Failure> {
        perform(self.seat.agent.gateway.hooks.before_connect(&self.flow)).await
    }

    /// Shows the hooks the head of its answer.
    ///
    /// # Errors
    /// How a hook wants it to fail.
    pub(crate) async fn on_head(&self, head: &hyper::http::response::Parts) -> Result<(), Failure> {
        self.answered();
        self.status(head.status.as_u16());
        perform(self.seat.agent.gateway.hooks.on_head(&self.flow, head)).await
    }

    /// Shows the hooks a piece of its stream. Only for a flow that [`Passage::is_watched`].
    pub(crate) fn on_event(&self, event: &mut Event) -> Act {
        self.seat.agent.gateway.hooks.on_event(&self.flow, event)
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Ends it; the first word counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        if self.done.swap(true, Ordering::AcqRel) {
            return;
        }
        self.seat.release(self.flow.id);
        let first = self.first_byte_us.load(Ordering::Relaxed);
        let status = self.status.load(Ordering::Relaxed);
        let ended = Ended {
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
            status: (status != 0).then_some(status),
            first_byte: (first != NEVER).then(|| Duration::from_micros(first)),
            total: self.flow.start.elapsed(),
            outcome,
        };
        self.seat.agent.ended(&self.flow, ended);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if *self.done.get_mut() {
            return;
        }
        let outcome = match self.seat.ending() {
            Some(outcome) => outcome,
            None if std::thread::panicking() => Outcome::Broken,
            None => Outcome::HungUp,
        };
        self.end(outcome);
    }
}

async fn perform(act: Act) -> Result<(), Failure> {
    match act {
        Act::Go => Ok(()),
        Act::Delay(time) => {
            tokio::time::sleep(time).await;
            Ok(())
        }
        Act::Fail(failure) => Err(failure),
    }
}
