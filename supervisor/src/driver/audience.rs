//! Who started an agent: whose wishes count for it, and who hears what becomes of it.
//!
//! A name is not enough for either. A second `run` of the same name is refused, and its end must not stop the first; a `run` whose
//! agent has died must not stop the next one of that name. So each start by somebody has a tenure of its own. And what is said of
//! an agent goes to whoever started it: an agent that came over the hand-over socket is not the supervisor's owner's business.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{Supervisor, Talk};

/// Lines that wait for somebody who reads slowly; more are dropped, for the agent must not be held up.
const LINES_MAX: usize = 256;
/// The longest line that is passed on, in bytes: one message of the hand-over socket holds 16 KiB.
const LINE_BYTES_MAX: usize = 4096;

/// One start of an agent by somebody, with all the restarts that follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenure(u64);

impl Tenure {
    /// One that no other start has.
    #[must_use]
    pub fn begin() -> Tenure {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Tenure(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What whoever started an agent wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Stop in order.
    Stop,
    /// End the tree at once. Not the kill switch: it may be started again.
    End,
}

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What `--quiet` leaves out.
    Course,
    /// What is always said.
    Matter,
}

/// Something said of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// How much it matters.
    pub weight: Line,
    /// In words; may have several lines.
    pub text: String,
}

/// Somebody elsewhere who hears what is said of an agent.
#[derive(Debug, Clone)]
pub struct Audience(mpsc::Sender<Said>);

impl Audience {
    /// An audience and its ear. The ear hears the end once the agent is dead for good.
    #[must_use]
    pub fn open() -> (Audience, mpsc::Receiver<Said>) {
        let (lines, ear) = mpsc::channel(LINES_MAX);
        (Audience(lines), ear)
    }

    fn tell(&self, weight: Line, mut text: String) {
        if text.len() > LINE_BYTES_MAX {
            let end = (0..=LINE_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.expect("0 is a boundary"));
            text.push_str(" [cut]");
        }
        // Full or gone: whoever does not read misses lines; the audit log and `status` have what matters.
        let _ = self.0.try_send(Said { weight, text });
    }
}

/// Says something to an audience, else on our own standard error.
pub(super) fn say_to(audience: Option<&Audience>, talk: Talk, weight: Line, text: String) {
    match audience {
        Some(audience) => audience.tell(weight, text),
        None if weight == Line::Matter || talk == Talk::Normal => eprintln!("{text}"),
        None => {}
    }
}

impl Supervisor {
    /// Says something of an agent to whoever started it.
    pub(super) fn say(&self, name: &str, weight: Line, text: impl Into<String>) {
        let audience = self.agents.get(name).and_then(|agent| agent.audience.as_ref());
        say_to(audience, self.talk, weight, text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_starts_have_one_tenure() {
        assert_ne!(Tenure::begin(), Tenure::begin());
    }

    #[test]
    fn a_line_fits_a_message_and_a_slow_reader_holds_nobody_up() {
        let (audience, mut ear) = Audience::open();
        for _ in 0..LINES_MAX + 10 {
            audience.tell(Line::Matter, "é".repeat(10_000));
        }
        drop(audience);
        let mut heard = 0;
        while let Some(said) = ear.blocking_recv() {
            assert!(said.text.len() <= LINE_BYTES_MAX + 10, "{}", said.text.len());
            heard += 1;
        }
        assert_eq!(heard, LINES_MAX);
    }
}
