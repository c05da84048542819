//! A supervisor that kills itself at a chosen place: the only honest stand-in for a crash.
//!
//! The engine names each place that it passes (before and after each append, before and after each run). Counting them is
//! enough: a test raises the number until a run ends by itself, and has then died at every one.

use std::sync::atomic::{AtomicU64, Ordering};

use agt_saga::inject::{Hook, Onward, Point};
use nix::sys::signal::{Signal, raise};

/// Dies by SIGKILL at the place with this number, counted from 1.
#[derive(Debug)]
pub struct CrashAt {
    left: AtomicU64,
}

impl CrashAt {
    /// At place `number`; 0 never comes.
    #[must_use]
    pub fn new(number: u64) -> CrashAt {
        CrashAt { left: AtomicU64::new(number) }
    }
}

impl Hook for CrashAt {
    fn reached(&self, _: &Point<'_>) -> Onward {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 && raise(Signal::SIGKILL).is_ok() {
            // Not reached: the signal can't be held up. Should it be, nothing more is done here.
            return Onward::Stop;
        }
        Onward::GoOn
    }
}
