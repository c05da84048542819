//! One model call from its reservation to its settlement.
//!
//! Whatever ends a call (its answer, an error, the agent hanging up, a task that is dropped) ends it here exactly once: what was
//! used is read or estimated, priced, settled, and told.

use super::endpoint::Endpoint;
use super::problem::Trouble;
use super::spec::Provider;
use crate::limit::{Actual, Held, Refused};
use crate::price::{Known, Money, Table};
use crate::usage::{Framing, Reader, Seen, Usage, estimate};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How a charge came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// The answer told its usage.
    Reported,
    /// It did not, or not all: estimated.
    Estimated,
    /// Nothing to charge: a call without tokens, an upstream's error, a request that never left.
    Nothing,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The answer came to its end.
    Whole,
    /// The agent hung up, or was cut off.
    HungUp,
    /// No answer, or one that broke off.
    Failed(Trouble),
}

/// A call that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The route's name.
    pub route: Arc<str>,
    /// Whose language it speaks.
    pub provider: Provider,
    /// What it did.
    pub endpoint: Endpoint,
    /// The model that was asked for; empty where none was.
    pub model: String,
    /// The model that answered, if it said.
    pub answered: Option<String>,
    /// The upstream's status; none: it never answered.
    pub status: Option<u16>,
    /// Tokens.
    pub usage: Usage,
    /// What it cost.
    pub cost: Money,
    /// How that is known.
    pub basis: Basis,
    /// Whether the table knew the model; an unknown one was charged the worst price.
    pub known: Known,
    /// More than was reserved.
    pub overran: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// From when it left to the first byte of the answer's body.
    pub first_byte: Option<Duration>,
    /// From when it left to its end.
    pub total: Duration,
    /// Bytes of the request's body and of the answer's.
    pub bytes: (u64, u64),
}

/// Who is told of calls. Called from within a call: it must not wait.
pub trait Witness: Send + Sync + fmt::Debug {
    /// A call is over and settled.
    fn ended(&self, call: &Call);
    /// A request was refused before it left, by us.
    fn refused(&self, route: &str, trouble: Trouble, message: &str);
    /// A limit refused a request (also told by [`Witness::refused`]).
    fn limited(&self, route: &str, refused: &Refused);
}

/// A call under way. Dropped, it has ended by hanging up.
#[derive(Debug)]
pub(super) struct Meter {
    table: Arc<Table>,
    witness: Arc<dyn Witness>,
    held: Option<Held>,
    reader: Option<Reader>,
    call: Call,
    /// When it left; none: it has not.
    left: Option<Instant>,
    most: (u64, u64),
    /// Whether the request has input that is not in its body.
    hidden_input: bool,
    /// When the last bytes came, and how long there were none since the first: a model may think in the middle, too.
    last: Option<Instant>,
    silent: Duration,
}

/// Between two pieces of a stream: what takes longer is a model that works and shows nothing.
const SILENCE: Duration = Duration::from_millis(500);

impl Meter {
    pub(super) fn new(table: Arc<Table>, witness: Arc<dyn Witness>, held: Held, call: Call, most: (u64, u64)) -> Self {
        let (held, silent) = (Some(held), Duration::ZERO);
        Self { table, witness, held, reader: None, call, left: None, most, hidden_input: false, last: None, silent }
    }

    /// The request has input that its size says nothing about.
    pub(super) fn hides_input(&mut self) {
        self.hidden_input = true;
    }

    /// The request is about to leave.
    pub(super) fn leaves(&mut self) {
        self.left = Some(Instant::now());
    }

    /// It did not leave after all.
    pub(super) fn stays(&mut self) {
        self.left = None;
    }

    /// The head of the answer came.
    pub(super) fn answered(&mut self, status: u16, framing: Framing) {
        self.call.status = Some(status);
        self.reader = self.call.endpoint.shape().map(|shape| Reader::new(shape, framing));
    }

    /// Bytes of the answer's body came.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        if self.call.first_byte.is_none() {
            self.call.first_byte = self.left.map(|left| now.duration_since(left));
        }
        self.pause(now);
        self.call.bytes.1 += bytes.len() as u64;
        if let Some(reader) = &mut self.reader {
            reader.feed(bytes);
        }
    }

    fn pause(&mut self, now: Instant) {
        let pause = self.last.map_or(Duration::ZERO, |last| now.duration_since(last));
        if pause >= SILENCE {
            self.silent += pause;
        }
        self.last = Some(now);
    }

    /// The call is over. The first call of this counts.
    pub(super) fn end(&mut self, outcome: Outcome) {
        let Some(held) = self.held.take() else { return };
        self.call.outcome = outcome;
        self.call.total = self.left.map_or(Duration::ZERO, |left| left.elapsed());
        if self.left.is_none() {
            held.release();
            return self.witness.ended(&self.call);
        }
        self.pause(Instant::now());
        self.charge(outcome);
        let actual = Actual { tokens: self.call.usage.total(), cost: self.call.cost };
        self.call.overran = actual.cost > held.worst().cost;
        held.settle(actual);
        self.witness.ended(&self.call);
    }

    fn charge(&mut self, outcome: Outcome) {
        let report = self.reader.take().map(|reader| reader.finish(outcome == Outcome::Whole));
        let (told, complete, seen, answered) = match report {
            Some(report) => (report.usage, report.complete, report.seen, report.model),
            None => (None, false, Seen::default(), None),
        };
        self.call.answered = answered;
        let refused = self.call.status.is_some_and(|status| !(200..300).contains(&status));
        if self.call.endpoint.shape().is_none() || refused && told.is_none() {
            return;
        }
        let (usage, basis) = match told {
            // No model reads nothing: a count of nothing is none.
            Some(usage) if complete && usage.total() > 0 => (usage, Basis::Reported),
            _ => {
                let unseen = self.call.first_byte.unwrap_or(self.call.total) + self.silent;
                let bytes = if self.hidden_input { u64::MAX } else { self.call.bytes.0 };
                (estimate(told, &seen, bytes, unseen, self.most), Basis::Estimated)
            }
        };
        // The answer names the release that was used; a table that does not know it may know what was asked for.
        let named = self.call.answered.as_deref().map(|model| self.table.charge(model, &usage));
        let asked = self.table.charge(&self.call.model, &usage);
        let charge = named.filter(|charge| charge.known == Known::Listed).unwrap_or(asked);
        (self.call.usage, self.call.basis) = (usage, basis);
        (self.call.cost, self.call.known) = (charge.cost, charge.known);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end(Outcome::HungUp);
    }
}
