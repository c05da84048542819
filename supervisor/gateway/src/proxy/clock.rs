//! How long a connection may keep us waiting: one timer a connection, looked at when something moves.
//!
//! A timer for each head, each body and each answer would cost more than the request; instead the connection notes what it is
//! doing since when, and its one timer asks for that when it fires.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::flow::Wait;
use crate::live::Waits;

/// For an agent that takes nothing of an answer, so that nobody else's wait is asked either.
const ELSEWHERE_MAX: Duration = Duration::from_secs(3600);

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Doing {
    /// Waiting for the next request.
    Nothing = 0,
    /// In the middle of a head.
    Head = 1,
    /// With a request: every byte either way is progress.
    Request = 2,
    /// With a request whose waits somebody else keeps.
    Elsewhere = 3,
}

/// What one connection is doing, since when.
#[derive(Debug)]
pub(super) struct Clock {
    begun: Instant,
    waits: Waits,
    doing: AtomicU8,
    /// Since when, or the last progress, in milliseconds after `begun`.
    since: AtomicU64,
    reset: AtomicBool,
}

impl Clock {
    pub(super) fn new(waits: Waits) -> Self {
        // The first head may be as slow as any: the connection was opened for it.
        let doing = AtomicU8::new(Doing::Head as u8);
        Self { begun: Instant::now(), waits, doing, since: AtomicU64::new(0), reset: AtomicBool::new(false) }
    }

    fn doing(&self) -> Doing {
        match self.doing.load(Ordering::Relaxed) {
            0 => Doing::Nothing,
            1 => Doing::Head,
            2 => Doing::Request,
            _ => Doing::Elsewhere,
        }
    }

    fn set(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
        self.touch();
    }

    fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(now, Ordering::Relaxed);
    }

    /// Bytes went to the agent.
    pub(super) fn moved_out(&self) {
        if matches!(self.doing(), Doing::Request | Doing::Elsewhere) {
            self.touch();
        }
    }

    /// Bytes came from the agent.
    pub(super) fn moved_in(&self) {
        match self.doing() {
            Doing::Nothing => self.set(Doing::Head),
            // A head that drips is not progress.
            Doing::Head => {}
            Doing::Request | Doing::Elsewhere => self.touch(),
        }
    }

    /// A whole head is there.
    pub(super) fn request(&self) {
        self.set(Doing::Request);
    }

    /// A whole head is there, and somebody else keeps the waits of its answer.
    pub(super) fn elsewhere(&self) {
        self.set(Doing::Elsewhere);
    }

    /// The answer is out.
    pub(super) fn answered(&self) {
        self.set(Doing::Nothing);
    }

    /// The connection shall end with a reset, not in order.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    fn due(&self) -> (Instant, Wait) {
        let since = self.begun + Duration::from_millis(self.since.load(Ordering::Relaxed));
        match self.doing() {
            Doing::Nothing => (since + self.waits.keep_alive, Wait::Idle),
            Doing::Head => (since + self.waits.head, Wait::Head),
            // The answer's own wait is the exchange's: it can still be told. This one ends what stands in mid-air.
            Doing::Request => (since + self.waits.idle.max(self.waits.answer), Wait::Idle),
            Doing::Elsewhere => (since + ELSEWHERE_MAX, Wait::Idle),
        }
    }

    /// Ready when a wait ran out.
    pub(super) fn poll(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Wait> {
        loop {
            let (due, wait) = self.due();
            // A timer that fires too early is set again; one that would fire too late is set now.
            if timer.deadline() > due {
                timer.as_mut().reset(due);
            }
            std::task::ready!(timer.as_mut().poll(cx));
            let (due, _) = self.due();
            if due <= Instant::now() {
                return Poll::Ready(wait);
            }
            timer.as_mut().reset(due);
        }
    }

    /// The timer of a connection.
    pub(super) fn timer(&self) -> Sleep {
        tokio::time::sleep_until(self.due().0)
    }
}
