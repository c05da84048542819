//! Hears what agents are denied, and tells it: a line, a record, a count, evidence for the safety SLO, and a memory for `why`.
//!
//! Whoever tells it has the agent's uid, so the ear is what bounds it: so many notices at once, then a pause in which the socket fills
//! and the teller begins to count. A record of a denial is coalesced as SEMANTICS of the audit log want it, a line is said for the
//! first of a kind, and the memory goes to the store now and then and at the end.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agt_rings::Ring;
use agt_rings::names::Rules;
use agt_rings::notice::{Notice, Notices};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Supervisor;
use super::agent::Agent;
use super::audience::Line;
use super::event::{Event, Whose};
use super::made::Places;
use super::records::wall_ms;
use crate::audit::coalesce::Coalescer;
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::denials::memory::{Kept, News, Taken, Weighs};
use crate::denials::{Denial, Memory, Tried, advice, words};
use crate::govern::evidence::Weight;
use crate::repositories::Found;
use crate::store::{Commit, Store};

/// What an agent was denied.
const DENIED: Action = Action::new("denied");
/// Nobody answers for an agent's filter any more.
const ATTENDANT_GONE: Action = Action::new("attendant.gone");
/// The kind of state in which the memory lies in the store.
pub const DENIALS: &str = "denials";

/// Notices taken at once, and the pause after them.
#[derive(Debug, Clone, Copy)]
struct Pace {
    batch: usize,
    pause: Duration,
}

/// No agent has more than some hundred denials a second heard.
const OF_DENIALS: Pace = Pace { batch: 64, pause: Duration::from_millis(200) };
/// A run to learn from opens thousands of files in its first second, and somebody wants to know them all.
const OF_LEARNING: Pace = Pace { batch: 512, pause: Duration::from_millis(5) };
/// Notices that are still heard when the tree is gone: more than its socket holds.
const LAST_MAX: usize = 16 * 1024;
/// How long an agent may outlive the process that answers for its filter without that being news: they end together.
const DEAF_AFTER: Duration = Duration::from_secs(1);
/// The shortest time between two writes of a memory to the store.
const STORE_EVERY: Duration = Duration::from_secs(5);

/// What was heard.
#[derive(Debug)]
pub enum Heard {
    /// Notices, in order.
    Notices(Vec<Notice>),
    /// Their socket is closed.
    Gone,
    /// What became of the repositories that it made, when the tree is gone.
    Made(Found),
}

/// What one agent was denied, and where that goes.
#[derive(Debug, Default)]
pub(super) struct Denied {
    memory: Memory,
    records: Coalescer,
    stored: Option<Instant>,
}

impl Denied {
    /// A launch is decided.
    pub(super) fn begin(&mut self) {
        self.memory.begin();
    }

    /// A life has ended: what is left to record and to store, and the words for its last line.
    pub(super) fn end(&mut self, store: &Store, name: &str) -> Option<String> {
        for record in self.records.finish(wall_ms()) {
            let _ = store.append_audit_nowait(record);
        }
        self.store(store, name);
        self.memory.summary()
    }

    fn store(&mut self, store: &Store, name: &str) {
        let Some(kept) = self.memory.news() else { return };
        self.stored = Some(Instant::now());
        let value = serde_json::to_value(kept).expect("plain data");
        // A note that finds no room is counted by the store; the next one holds this one's denials too.
        let _ = store.note(Commit::new().put_state(name, DENIALS, value, wall_ms()));
    }

    fn is_due(&self) -> bool {
        self.stored.is_none_or(|at| at.elapsed() >= STORE_EVERY)
    }
}

/// The supervisor's end of one life's notices.
#[derive(Debug)]
pub(super) struct Ear {
    whose: Whose,
    /// Whoever reads also sends, under one lock: what was heard first is handled first.
    notices: Mutex<Notices>,
    pace: Pace,
    events: mpsc::UnboundedSender<Event>,
    /// Where it was seen to make repositories.
    places: Places,
}

/// What is left in an ear.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    Perhaps,
    Closed,
}

impl Ear {
    fn hear(&self) -> Left {
        let notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut heard, mut left) = (Vec::new(), Left::Perhaps);
        for _ in 0..self.pace.batch {
            match notices.next() {
                Ok(Some(notice)) => {
                    self.places.take(&notice);
                    heard.push(notice);
                }
                Ok(None) => left = Left::Nothing,
                // What is no notice is nothing to us, whoever sent it.
                Err(e) if e.kind() == io::ErrorKind::InvalidData => continue,
                Err(_) => left = Left::Closed,
            }
            if left != Left::Perhaps {
                break;
            }
        }
        if !heard.is_empty() {
            // The loop has ended: nobody is there to be told.
            let _ = self.events.send(Event::Noticed(self.whose.clone(), Heard::Notices(heard)));
        }
        left
    }

    /// Hears what is left when the tree is gone, and looks at the repositories that were made.
    pub(super) async fn last(&self) {
        self.drain();
        if let Some(found) = self.places.look().await {
            let _ = self.events.send(Event::Noticed(self.whose.clone(), Heard::Made(found)));
        }
    }

    fn drain(&self) {
        let mut rest = LAST_MAX;
        while rest > 0 && self.hear() == Left::Perhaps {
            rest = rest.saturating_sub(self.pace.batch);
        }
    }
}

/// Listens to the notices of a life that has begun; `None` where there are none.
pub(super) fn listen(
    whose: &Whose,
    agent: &mut Agent,
    notices: Option<Notices>,
    names: Option<&Rules>,
    events: &mpsc::UnboundedSender<Event>,
) -> Option<Arc<Ear>> {
    let notices = notices?;
    // Registered as a stream: readiness is all that is asked of it.
    let socket = notices.as_fd().try_clone_to_owned().map(Socket::from);
    let ready = socket.and_then(|socket| socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)));
    let pace = if agent.definition.learning.is_some() { OF_LEARNING } else { OF_DENIALS };
    let (whose, events) = (whose.clone(), events.clone());
    let ear = Arc::new(Ear { whose, notices: Mutex::new(notices), pace, events, places: Places::new(names) });
    match ready {
        Ok(ready) => drop(agent.served.spawn(hear_all(ready, Arc::clone(&ear)))),
        Err(e) => eprintln!("warning: {}: what it is denied is told at its end: {e}", ear.whose.agent),
    }
    Some(ear)
}

async fn hear_all(ready: UnixStream, ear: Arc<Ear>) {
    loop {
        if ready.readable().await.is_err() {
            return;
        }
        let mut left = Left::Nothing;
        let _ = ready.try_io(Interest::READABLE, || {
            left = ear.hear();
            // Only an empty socket is to be waited for.
            if left == Left::Nothing { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match left {
            Left::Nothing => {}
            Left::Perhaps => tokio::time::sleep(ear.pace.pause).await,
            Left::Closed => break,
        }
    }
    tokio::time::sleep(DEAF_AFTER).await;
    let _ = ear.events.send(Event::Noticed(ear.whose.clone(), Heard::Gone));
}

impl Supervisor {
    /// What earlier runs of an agent have left.
    pub(super) async fn recall(&self, name: &str) -> Denied {
        let kept = match self.store.get_state(name, DENIALS).await {
            // What another version wrote is not worth a refusal: it is about the past.
            Ok(state) => state.and_then(|state| serde_json::from_value(state.value).ok()).unwrap_or_default(),
            Err(e) => {
                eprintln!("warning: {name}: its earlier denials can't be read: {e}");
                Kept::default()
            }
        };
        Denied { memory: Memory::of(name, kept), ..Denied::default() }
    }

    pub(super) async fn noticed(&mut self, whose: &Whose, heard: Heard) {
        let name = &whose.agent;
        let Some(agent) = self.agents.get(name).filter(|agent| agent.launches == whose.life) else { return };
        let ring = agent.ring;
        match heard {
            Heard::Gone if agent.running.is_some() => self.deaf(name),
            Heard::Gone => {}
            Heard::Made(found) => self.made(name, found),
            Heard::Notices(notices) => {
                let mut weight = Weight::Light;
                for notice in notices {
                    if self.denied(name, ring, &notice) == Weight::Heavy {
                        weight = Weight::Heavy;
                    }
                }
                if weight == Weight::Heavy {
                    self.evaluate(name).await;
                }
            }
        }
    }

    /// Takes one notice into account.
    fn denied(&mut self, name: &str, ring: Ring, notice: &Notice) -> Weight {
        let now = wall_ms();
        let Some(agent) = self.agents.get_mut(name) else { return Weight::Light };
        agent.definition.learning.iter().for_each(|learning| learning.take(notice));
        let Some(Taken { denial, news, weighs }) = agent.denied.memory.take(notice, ring, now) else {
            return Weight::Light;
        };
        let denial = denial.clone();
        let record = record(name, &denial);
        let records = agent.denied.records.deny_times(name, &denial.tried.rule(), record, notice.count, now);
        if agent.denied.is_due() {
            agent.denied.store(&self.store, name);
        }
        self.telemetry.denied(name, denial.class, notice.count);
        records.into_iter().for_each(|record| self.note(record));
        if news != News::None {
            self.say(name, Line::Course, line(name, &denial, news));
        }
        let since = self.governor.now();
        match self.governor.get_mut(name).filter(|_| weighs == Weighs::Yes) {
            Some(governed) => governed.observe_denial(denial.class.id(), denial.tried.severity(), since),
            None => Weight::Light,
        }
    }

    /// Once a tick: counts that are due go to the audit log, memories to the store.
    pub(super) fn keep_denials(&mut self) {
        let now = wall_ms();
        for (name, agent) in &mut self.agents {
            for record in agent.denied.records.advance(now) {
                let _ = self.store.append_audit_nowait(record);
            }
            if agent.denied.is_due() {
                agent.denied.store(&self.store, name);
            }
        }
    }

    fn deaf(&mut self, name: &str) {
        let text = format!(
            "warning: {name}: the process that answers for its system call filter was ended, by itself or from outside\n\
             What it would have answered fails with ENOSYS now, and denials are no longer seen. It gains nothing by that.\n\
             help: agt-supervise restart {name} --reason \"...\""
        );
        self.say(name, Line::Matter, text);
        self.note_taking(name, ATTENDANT_GONE, "refused and intercepted calls fail with ENOSYS from now on");
    }
}

fn record(name: &str, denial: &Denial) -> Record {
    let record = Record::new(wall_ms(), Actor::Agent(name.to_owned()), DENIED, Outcome::Denied)
        .agent(name)
        .detail("id", denial.id.as_str())
        .detail("tried", denial.tried.to_string())
        .detail("class", denial.class.word())
        .detail("rule", denial.tried.rule())
        .detail("ring", denial.ring.to_string())
        .detail("pid", i64::from(denial.pid))
        .detail("comm", denial.comm.as_str());
    match &denial.tried {
        Tried::Call { errno, .. } => record.detail("errno", i64::from(*errno)),
        Tried::Name { .. } => record,
    }
}

/// What is said of the first of a kind.
fn line(name: &str, denial: &Denial, news: News) -> String {
    let Denial { id, tried, ring, pid, comm, .. } = denial;
    let answered = match tried {
        Tried::Call { errno, .. } => format!("It was answered with {}: ", words::errno(*errno)),
        Tried::Name { .. } => "It was refused: ".to_owned(),
    };
    let more = match news {
        News::LastLine => format!("\nFurther denials of this run are only counted: agt-supervise why {name}"),
        News::First | News::None => String::new(),
    };
    format!(
        "denied: {tried}   {name} (pid {pid}, {comm})   {ring}, rule {}\n{answered}{}.\nhelp: agt-supervise why {id}{more}",
        tried.rule(),
        advice::reason(denial)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_rings::notice::What;

    use super::*;

    #[test]
    fn a_line_names_what_who_where_why_and_what_helps() {
        let what = What::Refused {
            call: "socket".to_owned(),
            arch: "x86_64".to_owned(),
            args: [40, 1, 0, 0, 0, 0],
            errno: libc::EPERM,
            why: "whatever its sender says".to_owned(),
        };
        let notice = Notice { pid: 4711, comm: "python3".to_owned(), what, count: 1 };
        let mut memory = Memory::of("researcher", Kept::default());
        let taken = memory.take(&notice, Ring::R2, 5).unwrap();
        let text = line("researcher", taken.denial, taken.news);
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "denied: socket(AF_VSOCK, SOCK_STREAM)   researcher (pid 4711, python3)   R2, rule seccomp.named-sockets"
        );
        assert!(text.contains("EPERM") && text.contains("network namespace") && !text.contains("sender"), "{text}");
        assert!(text.ends_with(&format!("help: agt-supervise why {}", taken.denial.id)), "{text}");
    }

    #[test]
    fn what_was_heard_last_comes_before_the_end_and_rubbish_is_no_notice() {
        let (here, there) = nix::sys::socket::socketpair(
            nix::sys::socket::AddressFamily::Unix,
            nix::sys::socket::SockType::SeqPacket,
            None,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let (events, mut inbox) = mpsc::unbounded_channel();
        let whose = Whose { agent: "a".to_owned(), life: 1 };
        let ear =
            Ear { whose, notices: Mutex::new(Notices::new(here)), pace: OF_DENIALS, events, places: Places::new(None) };
        let notice = Notice { pid: 1, comm: "x".to_owned(), what: What::Lost { count: 2 }, count: 1 };
        let sent = OF_DENIALS.batch + 3;
        for _ in 0..sent {
            nix::unistd::write(&there, &notice.to_packet().unwrap()).unwrap();
        }
        nix::unistd::write(&there, b"rubbish").unwrap();
        nix::unistd::write(&there, &notice.to_packet().unwrap()).unwrap();
        ear.drain();
        drop(ear);
        let mut heard = 0;
        while let Ok(Event::Noticed(_, Heard::Notices(notices))) = inbox.try_recv() {
            assert!(notices.len() <= OF_DENIALS.batch);
            heard += notices.len();
        }
        assert_eq!(heard, sent + 1);
    }
}
