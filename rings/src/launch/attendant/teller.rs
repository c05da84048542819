//! Tells the supervisor what was noticed: at once as long as it is little, taken together when it is much, and never without end.
//!
//! The agent decides how many refused calls it makes; so equal ones within a second become one notice with a count, there are so
//! many packets a second and not more, and what does not fit is counted.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use super::pending::Pending;
use crate::notice::{Notice, What};

/// Equal notices within it are taken together.
const WINDOW: Duration = Duration::from_secs(1);
/// How the last notices are waited for when the agent has ended and the supervisor does not read.
const LAST_WAIT_MS: u8 = 200;

/// Room for one notice of each call that there is: no flood of others keeps the supervisor from hearing of a grave one.
const CALLS_MAX: usize = 512;

/// What one agent may have told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Different notices within a window.
    pub(super) kinds: usize,
    /// Equal ones that are told one by one.
    pub(super) each: usize,
    /// Packets that are sent at once within a window.
    pub(super) packets: usize,
    /// Packets that wait for room in the socket.
    pub(super) queue: usize,
}

/// Refusals are an exception; what is more than this is an attack, or a loop.
pub(super) const OF_REFUSALS: Bounds = Bounds { kinds: 64, each: 16, packets: 128, queue: 64 };
/// A run to learn from opens thousands of files in its first second.
pub(super) const OF_LEARNING: Bounds = Bounds { kinds: 8192, each: 1, packets: 8192, queue: 8192 };

/// What makes two notices equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A thread's call, by number. Thread 0 stands for all of them.
    Refused(i32, u32),
    /// Anything else, by what it says.
    Told(What),
}

#[derive(Debug)]
struct Entry {
    notice: Notice,
    sent: usize,
    unsent: u64,
}

/// The way to the supervisor.
#[derive(Debug)]
pub(super) struct Teller {
    socket: OwnedFd,
    bounds: Bounds,
    pending: Pending,
    began: Instant,
    entries: HashMap<Key, Entry>,
    packets: usize,
    /// Of all entries.
    unsent: u64,
    lost: u64,
    queue: VecDeque<Vec<u8>>,
}

impl Teller {
    pub(super) fn new(socket: OwnedFd, bounds: Bounds, pending: Pending, now: Instant) -> Teller {
        let (entries, queue) = (HashMap::new(), VecDeque::new());
        Teller { socket, bounds, pending, began: now, entries, packets: 0, unsent: 0, lost: 0, queue }
    }

    /// Notices something; `notice` is made only where an equal one is not known yet.
    pub(super) fn notice(&mut self, mut key: Key, now: Instant, notice: impl FnOnce() -> Notice) {
        self.turn(now);
        if !self.entries.contains_key(&key) && self.entries.len() >= self.bounds.kinds {
            // A refused call keeps a place by its number: names, threads and addresses are the agent's to make up, calls are not.
            match key {
                Key::Refused(_, number) if self.entries.len() < self.bounds.kinds + CALLS_MAX => {
                    key = Key::Refused(0, number);
                }
                _ => {
                    self.lost += 1;
                    return self.account();
                }
            }
        }
        let entry = self.entries.entry(key).or_insert_with(|| Entry { notice: notice(), sent: 0, unsent: 0 });
        if entry.sent < self.bounds.each && self.packets < self.bounds.packets {
            entry.sent += 1;
            self.packets += 1;
            let notice = entry.notice.clone();
            self.pass(&notice);
        } else {
            entry.unsent += 1;
            self.unsent += 1;
        }
        self.account();
    }

    /// When to come back; `None` while nothing waits.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waits().then(|| self.began + WINDOW)
    }

    /// Whether the socket had no room.
    pub(super) fn is_stuck(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Begins a new window if the last one is over, with what that one has left to say.
    pub(super) fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= WINDOW {
            self.began = now;
            self.flush();
        }
        self.account();
    }

    fn flush(&mut self) {
        (self.packets, self.unsent) = (0, 0);
        let mut entries: Vec<_> = std::mem::take(&mut self.entries).into_iter().collect();
        entries.sort_by_key(|(key, _)| !matches!(key, Key::Refused(..)));
        for (_, Entry { notice, unsent, .. }) in entries {
            if unsent > 0 {
                self.pass(&Notice { count: unsent, ..notice });
            }
        }
        let lost = std::mem::take(&mut self.lost);
        if lost > 0 {
            self.pass(&Notice { pid: 0, comm: String::new(), what: What::Lost { count: lost }, count: 1 });
        }
    }

    fn pass(&mut self, notice: &Notice) {
        // Only a notice that was not bounded by who made it could be too long.
        let Ok(packet) = notice.to_packet() else { return self.lose(notice) };
        if self.queue.is_empty() && send_one(self.socket.as_fd(), &packet) {
            return;
        }
        let room = match notice.what {
            What::Refused { .. } => self.bounds.queue + CALLS_MAX,
            _ => self.bounds.queue,
        };
        if self.queue.len() < room { self.queue.push_back(packet) } else { self.lose(notice) }
    }

    fn lose(&mut self, notice: &Notice) {
        self.lost += match notice.what {
            What::Lost { count } => count,
            _ => notice.count,
        };
    }

    /// Sends what had no room before.
    pub(super) fn drain(&mut self) {
        while let Some(packet) = self.queue.front() {
            if !send_one(self.socket.as_fd(), packet) {
                break;
            }
            self.queue.pop_front();
        }
        self.account();
    }

    /// Sends all that is left; a supervisor that doesn't read is not waited for.
    pub(super) fn finish(&mut self) {
        self.flush();
        loop {
            self.drain();
            if self.queue.is_empty() {
                return;
            }
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut fds, PollTimeout::from(LAST_WAIT_MS)) {
                Ok(1..) if fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT)) => {}
                Err(nix::errno::Errno::EINTR) => {}
                _ => return,
            }
        }
    }

    fn waits(&self) -> bool {
        self.lost > 0 || self.unsent > 0
    }

    fn account(&self) {
        self.pending.set(self.waits() || self.is_stuck());
    }
}

/// Whether the packet is off: one that can't be sent at all counts as such, since nobody reads any more.
fn send_one(socket: BorrowedFd<'_>, packet: &[u8]) -> bool {
    loop {
        match send(socket.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::ENOBUFS) => return false,
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fdpass;
    use crate::notice::Notices;

    const FEW: Bounds = Bounds { kinds: 3, each: 3, packets: 4, queue: 2 };

    fn refused(call: &str) -> Notice {
        let (call, arch, why) = (call.to_owned(), "x86_64".to_owned(), "why".to_owned());
        let what = What::Refused { call, arch, args: [0; 6], errno: libc::EPERM, why };
        Notice { pid: 1, comm: "a".to_owned(), what, count: 1 }
    }

    fn told(notices: &Notices) -> Vec<(String, u64)> {
        let name = |notice: Notice| match notice.what {
            What::Refused { call, .. } => (call, notice.count),
            What::Lost { count } => ("lost".to_owned(), count),
            what => panic!("{what:?}"),
        };
        std::iter::from_fn(|| notices.next().unwrap()).map(name).collect()
    }

    #[test]
    fn every_notice_is_told_or_counted_and_there_are_so_many_packets_a_second_and_not_more() {
        let (here, there) = fdpass::pair().unwrap();
        let (notices, start) = (Notices::new(here), Instant::now());
        let mut teller = Teller::new(there, FEW, Pending::new().unwrap(), start);
        for _ in 0..1000 {
            teller.notice(Key::Refused(1, 101), start, || refused("ptrace"));
        }
        assert_eq!(teller.due(), Some(start + WINDOW), "what was not told yet is waited for");
        for (at, call) in ["mount", "bpf", "unshare", "setns"].iter().enumerate() {
            teller.notice(Key::Refused(1, at as u32), start, || refused(call));
        }
        let ones = ["ptrace", "ptrace", "ptrace", "mount"];
        assert_eq!(told(&notices), ones.map(|call| (call.to_owned(), 1)));
        assert_eq!(teller.due(), Some(start + WINDOW));
        teller.turn(start + WINDOW);
        let mut rest = told(&notices);
        rest.sort();
        let expected = [("bpf", 1), ("ptrace", 997), ("setns", 1), ("unshare", 1)];
        assert_eq!(rest, expected.map(|(call, count)| (call.to_owned(), count)));
        assert_eq!(teller.due(), None);
    }

    #[test]
    fn a_flood_of_names_and_threads_hides_no_call() {
        let (here, there) = fdpass::pair().unwrap();
        let (notices, start) = (Notices::new(here), Instant::now());
        let mut teller = Teller::new(there, FEW, Pending::new().unwrap(), start);
        let name = |at: i32| What::Name { call: "mkdir".to_owned(), path: at.to_string(), pattern: String::new() };
        for at in 0..100 {
            let notice = || Notice { pid: 1, comm: "a".to_owned(), what: name(at), count: 1 };
            teller.notice(Key::Told(name(at)), start, notice);
            teller.notice(Key::Refused(at, 165), start, || refused("mount"));
        }
        teller.notice(Key::Refused(7, 304), start, || refused("open_by_handle_at"));
        teller.turn(start + WINDOW);
        let all: Vec<Notice> = std::iter::from_fn(|| notices.next().unwrap()).collect();
        let counted = |wanted: &str| -> u64 {
            let is = |notice: &&Notice| matches!(&notice.what, What::Refused { call, .. } if call == wanted);
            all.iter().filter(is).map(|notice| notice.count).sum()
        };
        assert_eq!((counted("mount"), counted("open_by_handle_at")), (100, 1));
        let lost = |notice: &Notice| if let What::Lost { count } = notice.what { count } else { 0 };
        assert!(all.iter().map(lost).sum::<u64>() > 90, "{all:?}");
    }

    #[test]
    fn a_supervisor_that_does_not_read_costs_a_bounded_queue_and_a_count() {
        let (here, there) = fdpass::pair().unwrap();
        let (notices, mut now) = (Notices::new(here), Instant::now());
        let pending = Pending::new().unwrap();
        let mut teller = Teller::new(there, FEW, pending.clone(), now);
        for round in 0..2000 {
            teller.notice(Key::Refused(round, 101), now, || refused("ptrace"));
            now += WINDOW;
        }
        assert!(teller.is_stuck() && teller.queue.len() == FEW.queue + CALLS_MAX && pending.get());
        let mut all = told(&notices);
        while teller.is_stuck() {
            teller.drain();
            all.extend(told(&notices));
        }
        teller.turn(now + WINDOW);
        all.extend(told(&notices));
        assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 2000);
        assert!(!pending.get());
    }
}
