//! One thread that sleeps until the kernel says of some agent that it may have met a limit.
//!
//! A thread of its own with epoll(7), because the runtime waits for foreign descriptors through an unsafe door only; and one for
//! all agents, so that a thousand of them cost no thread each. Edge-triggered: a group that is being taken away stays ready for ever.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agt_rings::cgroup::{Alarm, Wait};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use super::event::{Event, Whose};

/// The shortest time between two rounds of alarms: a fork bomb raises hundreds a second, and one look sees them all.
const PAUSE: Duration = Duration::from_millis(200);
/// Alarms taken in one round; more wait for the next.
const ROUND: usize = 64;
/// The word to end.
const END: u64 = 0;

/// All alarms; the thread ends with it.
#[derive(Debug)]
pub(super) struct Alarms {
    shared: Arc<Shared>,
    next: u64,
}

#[derive(Debug)]
struct Shared {
    epoll: Epoll,
    end: EventFd,
    /// Closing a descriptor takes it out of the epoll.
    entries: Mutex<BTreeMap<u64, (Whose, Alarm)>>,
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, (Whose, Alarm)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarms {
    /// Starts the thread.
    ///
    /// # Errors
    /// No descriptor or no thread is to be had.
    pub(super) fn start(events: mpsc::UnboundedSender<Event>) -> io::Result<Alarms> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let end = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&end, EpollEvent::new(EpollFlags::EPOLLIN, END))?;
        let shared = Arc::new(Shared { epoll, end, entries: Mutex::default() });
        let waits = Arc::clone(&shared);
        std::thread::Builder::new().name("agt-limits".to_owned()).spawn(move || wait(&waits, &events))?;
        Ok(Alarms { shared, next: END })
    }

    /// Listens to the alarms of one life.
    ///
    /// # Errors
    /// The kernel takes no more of them.
    pub(super) fn add(&mut self, whose: &Whose, alarms: Vec<Alarm>) -> io::Result<()> {
        for alarm in alarms {
            self.next += 1;
            let ready = match alarm.wait() {
                Wait::Priority => EpollFlags::EPOLLPRI,
                Wait::Readable => EpollFlags::EPOLLIN,
            };
            let mut entries = self.shared.entries();
            self.shared.epoll.add(&alarm, EpollEvent::new(ready | EpollFlags::EPOLLET, self.next))?;
            entries.insert(self.next, (whose.clone(), alarm));
        }
        Ok(())
    }

    /// Forgets those of an agent.
    pub(super) fn remove(&mut self, agent: &str) {
        self.shared.entries().retain(|_, (whose, _)| whose.agent != agent);
    }
}

impl Drop for Alarms {
    fn drop(&mut self) {
        // A counter that is full is as good a word.
        let _ = self.shared.end.write(1);
    }
}

fn wait(shared: &Shared, events: &mpsc::UnboundedSender<Event>) {
    let mut ready = [EpollEvent::empty(); ROUND];
    loop {
        let count = match shared.epoll.wait(&mut ready, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(errno) => {
                eprintln!("error: limits that agents meet are told late from now on: {errno}");
                return;
            }
        };
        if ready[..count].iter().any(|event| event.data() == END) {
            return;
        }
        for whose in hushed(shared, &ready[..count]) {
            if events.send(Event::LimitMet(whose)).is_err() {
                return;
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whose alarms these are, each life once. Hushed before the counts are read, so that nothing is missed.
fn hushed(shared: &Shared, ready: &[EpollEvent]) -> Vec<Whose> {
    let entries = shared.entries();
    let mut lives: Vec<Whose> = Vec::new();
    for (whose, alarm) in ready.iter().filter_map(|event| entries.get(&event.data())) {
        alarm.hush();
        if !lives.contains(whose) {
            lives.push(whose.clone());
        }
    }
    lives
}
