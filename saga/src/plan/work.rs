//! One piece of work: a call with its place, its time limit and its retries.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Call;
use crate::time::{Draw, later};

/// How long one attempt may take when nothing is said, in milliseconds.
pub const TIMEOUT_DEFAULT_MS: u64 = 300_000;
/// How long one check may take when nothing is said, in milliseconds.
pub const CHECK_TIMEOUT_DEFAULT_MS: u64 = 30_000;

/// One piece of work with all that is needed to do it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What it does.
    #[serde(flatten)]
    pub call: Call,
    /// The ring it asks for; the caller's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<u8>,
    /// Where it runs; relative to the saga's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Variables added to its clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets by the name under which it is given them, each as the name that the caller knows it by. The value is
    /// nowhere here, nor in the journal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The longest one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// Its retries.
    pub retry: Retry,
}

impl fmt::Debug for Work {
    /// Values of `env` are left out: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("call", &self.call)
            .field("ring", &self.ring)
            .field("workdir", &self.workdir)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("timeout_ms", &self.timeout_ms)
            .field("retry", &self.retry)
            .finish()
    }
}

/// A retry budget with exponential backoff and full jitter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How many failed attempts make a failure; at least 1.
    pub attempts: u32,
    /// The bound of the first wait, in milliseconds.
    pub initial_ms: u64,
    /// No wait is longer, in milliseconds.
    pub max_ms: u64,
    /// Exit codes, and statuses of HTTP, that no retry mends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_retryable: Vec<i32>,
    /// Errors by name that no retry mends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_retryable_errors: Vec<String>,
}

impl Retry {
    /// One attempt: what a step has that declares nothing.
    #[must_use]
    pub fn once() -> Self {
        Self { attempts: 1, ..Self::times(1) }
    }

    /// `attempts` attempts with waits of up to 1 s, 2 s, 4 s, ... 30 s.
    #[must_use]
    pub fn times(attempts: u32) -> Self {
        Self {
            attempts,
            initial_ms: 1_000,
            max_ms: 30_000,
            non_retryable: Vec::new(),
            non_retryable_errors: Vec::new(),
        }
    }

    /// When the next attempt is due after `failures` failed ones (0: at once).
    #[must_use]
    pub fn due_ms(&self, failures: u32, now_ms: i64, draw: Draw) -> i64 {
        let Some(doublings) = failures.checked_sub(1) else { return now_ms };
        let factor = 1u64.checked_shl(doublings).unwrap_or(u64::MAX);
        later(now_ms, draw.of(self.initial_ms.saturating_mul(factor).min(self.max_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound_and_never_overflows() {
        let retry = Retry { attempts: 9, initial_ms: 100, max_ms: 1_000, ..Retry::once() };
        let waits: Vec<i64> = (0..7).map(|failures| retry.due_ms(failures, 0, Draw::LONGEST)).collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(retry.due_ms(u32::MAX, 0, Draw::LONGEST), 1_000);
        assert_eq!(retry.due_ms(4, 50, Draw(0)), 50);
    }
}
