//! Who follows a launcher that was ended: another one, but not without end.
//!
//! Without a launcher nothing can be started any more, so whoever needs one and finds it gone starts the next. Its agents die with
//! it; whether they come back is for their restart rules. A host that ends every launcher (out of memory, say) must not turn
//! that into a loop: so many deaths in so short a time, and every launch is refused with the reason until that time is over.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_rings::launch::{LaunchError, Launcher};
use tokio::sync::mpsc;

use super::event::Event;
use super::watching;

/// Launchers that may be ended within [`WINDOW`] and are replaced.
const DEATHS_MAX: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
pub enum NoLauncher {
    /// The next one can't be started.
    #[error("the launcher process was ended and no other can be started")]
    NotStarted(#[source] LaunchError),
    /// Too many were ended.
    #[error(
        "the launcher process was ended from outside, or did not start, more than {DEATHS_MAX} times within {} s: nothing is \
         started for {} s more",
        WINDOW.as_secs(), .wait.as_secs() + 1
    )]
    KeepsDying {
        /// Until another one may be started.
        wait: Duration,
    },
}

impl NoLauncher {
    /// The error with its causes, and what to do about it.
    #[must_use]
    pub fn in_full(&self) -> String {
        let help = match self {
            NoLauncher::NotStarted(_) => "the next launch tries again",
            NoLauncher::KeepsDying { .. } => {
                "find out who ends `agt-launcher` (`dmesg` names the OOM killer), then `agt-supervise restart NAME`"
            }
        };
        format!("{}\nhelp: {help}", super::launching::in_full(self))
    }
}

/// The present launcher and its predecessors' deaths.
#[derive(Debug)]
pub struct Succession(Mutex<Place>);

#[derive(Debug)]
struct Place {
    present: Arc<Launcher>,
    deaths: Deaths,
    /// Launchers that were replaced, and how many deaths were told.
    replaced: u64,
    told: u64,
    events: Option<mpsc::UnboundedSender<Event>>,
}

impl Succession {
    /// Begins with the first launcher.
    #[must_use]
    pub fn begin(first: Launcher) -> Succession {
        Succession(Mutex::new(Place {
            present: Arc::new(first),
            deaths: Deaths::default(),
            replaced: 0,
            told: 0,
            events: None,
        }))
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The launcher that lives, started now if need be. Blocks for a launcher's start then.
    ///
    /// # Errors
    /// [`NoLauncher`].
    pub fn present(&self) -> Result<Arc<Launcher>, NoLauncher> {
        let mut place = self.place();
        if place.present.is_gone() {
            // Noted first: one that dies while it starts is one more.
            place.deaths.follow(Instant::now()).map_err(|wait| NoLauncher::KeepsDying { wait })?;
            let controllers = place.present.host().controllers.clone();
            place.replaced += 1;
            // The last who holds the old one reaps it.
            place.present = Arc::new(Launcher::start(controllers).map_err(NoLauncher::NotStarted)?);
            place.tell();
        }
        Ok(Arc::clone(&place.present))
    }

    /// How many launchers have died and were not told of yet: from now on they are.
    pub(super) fn untold(&self) -> u64 {
        let mut place = self.place();
        let died = place.replaced + u64::from(place.present.is_gone());
        let untold = died.saturating_sub(place.told);
        place.told = place.told.max(died);
        untold
    }

    /// Has the death of the present launcher, and of each that follows, told to the loop.
    pub(super) fn watch(&self, events: mpsc::UnboundedSender<Event>) {
        let mut place = self.place();
        place.events = Some(events);
        place.tell();
    }
}

impl Place {
    fn tell(&self) {
        let Some(events) = self.events.clone() else { return };
        let told = self
            .present
            .gone()
            .try_clone_to_owned()
            .and_then(|gone: OwnedFd| watching::tell_once_gone(gone, Event::LauncherGone, events));
        if let Err(e) = told {
            eprintln!("error: the launcher can't be watched ({e}): were it to end, only the next launch would notice");
        }
    }
}

/// When dead launchers were followed by another, newest last.
#[derive(Debug, Default)]
struct Deaths(VecDeque<Instant>);

impl Deaths {
    /// Notes that one more follows, if it may; else how long it may not.
    fn follow(&mut self, now: Instant) -> Result<(), Duration> {
        if let Some(oldest) = self.0.front().filter(|_| self.0.len() == DEATHS_MAX) {
            let wait = (*oldest + WINDOW).saturating_duration_since(now);
            if !wait.is_zero() {
                return Err(wait);
            }
            self.0.pop_front();
        }
        self.0.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_that_die_too_fast_are_followed_by_none_until_the_window_is_over() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let mut deaths = Deaths::default();
        for number in 0..u32::try_from(DEATHS_MAX).expect("a handful") {
            assert_eq!(deaths.follow(begin + second * number), Ok(()), "death {number}");
        }
        assert_eq!(deaths.follow(begin + second * 10), Err(WINDOW - second * 10));
        assert_eq!(deaths.follow(begin + WINDOW), Ok(()), "the first is forgotten");
        assert_eq!(deaths.follow(begin + WINDOW), Err(second), "the second is not");
    }
}
