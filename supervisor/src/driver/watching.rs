//! Who watches the watchdog: the loop, which starts another when it is gone.

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
/// Between two tries to start one on a host that is out of processes, say.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Sends [`Event::WatchdogGone`] once the present watchdog is gone. Without one (no cgroups here) there is nothing to send.
///
/// A thread that sleeps in poll(2): the runtime waits for foreign descriptors through an unsafe door only, and its pool of
/// blocking threads would have to be waited for at the end.
pub(super) fn watch(ground: &Ground, events: mpsc::UnboundedSender<Event>) {
    let Some(gone) = ground.watchdog_gone() else { return };
    let wait = move |gone: OwnedFd| {
        let mut fds = [PollFd::new(gone.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
        // Nobody listens any more once the loop has ended.
        let _ = events.send(Event::WatchdogGone);
    };
    let thread = std::thread::Builder::new().name("agt-watch".to_owned());
    if let Err(e) = gone.and_then(|gone| thread.spawn(move || wait(gone))) {
        eprintln!("error: the watchdog can't be watched ({e}): were it to end, nobody would start another");
    }
}

impl Supervisor {
    /// Starts another watchdog beside the loop; tries until it stands.
    pub(super) fn watchdog_gone(&self) {
        eprintln!("warning: the watchdog was ended from outside; starting another");
        let record = Record::new(wall_ms(), Actor::Supervisor, WATCHDOG, Outcome::Noted).reason("ended from outside");
        let _ = self.store.append_audit_nowait(record);
        let (ground, events) = (Arc::downgrade(&self.ground), self.events.clone());
        tokio::spawn(async move {
            let mut told = false;
            while let Some(held) = ground.upgrade() {
                let renewed = beside("agt-renew", move || {
                    let renewed = held.renew_watchdog();
                    (held, renewed)
                });
                match renewed.await {
                    Ok((ground, Ok(()))) => return watch(&ground, events),
                    Ok((_, Err(e))) if !told => {
                        told = true;
                        eprintln!(
                            "error: no new watchdog: {}\nUntil there is one (tried again each {} s), agents that outlive this \
                             supervisor are ended by their init alone.",
                            in_full(&e),
                            TRY_AGAIN.as_secs()
                        );
                    }
                    Ok((_, Err(_))) => {}
                    Err(_) => return,
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        });
    }
}
