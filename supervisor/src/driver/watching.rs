//! Who watches the watchdog and the launcher: the loop, which has another started when one is gone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc;

use super::Supervisor;
use super::beside::beside;
use super::event::Event;
use super::ground::Ground;
use super::launching::in_full;
use super::records::wall_ms;
use crate::audit::record::{Action, Actor, Outcome, Record};

const WATCHDOG: Action = Action::new("watchdog.restart");
const LAUNCHER: Action = Action::new("launcher.restart");
/// Between two tries to start one on a host that is out of processes, say.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Sends [`Event::WatchdogGone`] once the present watchdog is gone. Without one (no cgroups here) there is nothing to send.
pub(super) fn watch(ground: &Ground, events: mpsc::UnboundedSender<Event>) {
    let Some(gone) = ground.watchdog_gone() else { return };
    if let Err(e) = gone.and_then(|gone| tell_once_gone(gone, Event::WatchdogGone, events)) {
        eprintln!("error: the watchdog can't be watched ({e}): were it to end, nobody would start another");
    }
}

/// Sends an event once a pidfd says that its process is gone.
///
/// A thread that sleeps in poll(2): the runtime waits for foreign descriptors through an unsafe door only, and its pool of
/// blocking threads would have to be waited for at the end.
pub(super) fn tell_once_gone(gone: OwnedFd, event: Event, events: mpsc::UnboundedSender<Event>) -> std::io::Result<()> {
    let wait = move || {
        let mut fds = [PollFd::new(gone.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
        // Nobody listens any more once the loop has ended.
        let _ = events.send(event);
    };
    std::thread::Builder::new().name("agt-watch".to_owned()).spawn(wait).map(drop)
}

impl Supervisor {
    /// Starts another watchdog beside the loop; tries until it stands.
    pub(super) fn watchdog_gone(&self) {
        eprintln!("warning: the watchdog was ended from outside; starting another");
        let record = Record::new(wall_ms(), Actor::Supervisor, WATCHDOG, Outcome::Noted).reason("ended from outside");
        let _ = self.store.append_audit_nowait(record);
        let (ground, handle) = (Arc::downgrade(&self.ground), self.reached_by());
        tokio::spawn(async move {
            let mut told = false;
            while let Some(held) = ground.upgrade() {
                // At its end the loop takes the ground away, and must be the only one to hold it.
                let hold = handle.hold();
                let events = handle.events.clone();
                let renewed = beside("agt-renew", move || {
                    let renewed = held.renew_watchdog();
                    if renewed.is_ok() {
                        watch(&held, events);
                    }
                    drop(held);
                    drop(hold);
                    renewed
                });
                match renewed.await {
                    Ok(Ok(())) => return,
                    Ok(Err(e)) if !told => {
                        told = true;
                        eprintln!(
                            "error: no new watchdog: {}\nUntil there is one (tried again each {} s), agents that outlive this \
                             supervisor are ended by their init alone.",
                            in_full(&e),
                            TRY_AGAIN.as_secs()
                        );
                    }
                    Ok(Err(_)) => {}
                    Err(_) => return,
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        });
    }

    /// Has another launcher started beside the loop. If that fails, or has failed too often, it is said here, and each launch
    /// tries again.
    pub(super) fn launcher_gone(&self) {
        let record = |outcome| Record::new(wall_ms(), Actor::Supervisor, LAUNCHER, outcome);
        let untold = self.ground.launchers_untold();
        for _ in 0..untold {
            eprintln!("warning: the launcher was ended from outside, and with it every agent; starting another");
            self.note(record(Outcome::Noted).reason("ended from outside"));
        }
        if untold == 0 {
            return;
        }
        let (ground, handle, store) = (Arc::clone(&self.ground), self.reached_by(), self.store.clone());
        let hold = handle.hold();
        // What comes of it is said there.
        drop(beside("agt-launcher", move || {
            if let Err(e) = ground.launcher() {
                eprintln!("error: {}", e.in_full());
                // A lost note is counted by the store and itself recorded.
                let _ = store.append_audit_nowait(record(Outcome::Failed).reason(e.to_string()));
            }
            // At its end the loop takes the ground away, and must be the only one to hold it.
            drop(ground);
            drop(hold);
        }));
    }
}
