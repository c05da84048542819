//! Hears what agents are denied, and passes it on: a line, a record, a memory (`denied`), a count, evidence for the safety SLO.
//!
//! Whoever tells it has the agent's uid, so the ear is what bounds it: so many notices at once, then a pause in which the socket fills
//! and the teller begins to count.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agt_rings::Ring;
use agt_rings::names::Rules;
use agt_rings::notice::{Notice, Notices};
use agt_sre::sli::Severity;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Supervisor;
use super::agent::Agent;
use super::audience::Line;
use super::event::{Event, Whose};
use super::made::Places;
use crate::audit::record::Action;
use crate::denials::Class;
use crate::denials::memory::Weighs;
use crate::govern::evidence::Weight;
use crate::repositories::Found;

/// Nobody answers for an agent's filter any more.
const ATTENDANT_GONE: Action = Action::new("attendant.gone");
/// Notices taken at once, and the pause after them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    batch: usize,
    pause: Duration,
}

/// No agent has more than some hundred denials a second heard.
pub(crate) const OF_DENIALS: Pace = Pace { batch: 64, pause: Duration::from_millis(200) };
/// A run to learn from opens thousands of files in its first second, and somebody wants to know them all.
const OF_LEARNING: Pace = Pace { batch: 512, pause: Duration::from_millis(5) };
/// Notices that are still heard when the tree is gone: more than its socket holds.
const LAST_MAX: usize = 16 * 1024;
/// How long an agent may outlive the process that answers for its filter without that being news: they end together.
const DEAF_AFTER: Duration = Duration::from_secs(1);

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

/// The supervisor's end of one life's notices.
#[derive(Debug)]
pub(crate) struct Ear {
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
    pub(crate) async fn last(&self) {
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

/// The ear of an agent's life; `None` where nobody tells anything.
pub(super) fn of_agent(
    whose: &Whose,
    agent: &mut Agent,
    notices: Option<Notices>,
    names: Option<&Rules>,
    events: &mpsc::UnboundedSender<Event>,
) -> Option<Arc<Ear>> {
    let pace = if agent.definition.learning.is_some() { OF_LEARNING } else { OF_DENIALS };
    Some(listen(whose.clone(), notices?, names, pace, events, &mut agent.served))
}

/// Listens to the notices of a life that has begun.
pub(crate) fn listen(
    whose: Whose,
    notices: Notices,
    names: Option<&Rules>,
    pace: Pace,
    events: &mpsc::UnboundedSender<Event>,
    served: &mut JoinSet<()>,
) -> Arc<Ear> {
    // Registered as a stream: readiness is all that is asked of it.
    let socket = notices.as_fd().try_clone_to_owned().map(Socket::from);
    let ready = socket.and_then(|socket| socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)));
    let (events, places) = (events.clone(), Places::new(names));
    let ear = Arc::new(Ear { whose, notices: Mutex::new(notices), pace, events, places });
    match ready {
        Ok(ready) => drop(served.spawn(hear_all(ready, Arc::clone(&ear)))),
        Err(e) => eprintln!("warning: {}: what it is denied is told at its end: {e}", ear.whose.agent),
    }
    ear
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
        let Some(agent) = self.agents.get_mut(name) else { return Weight::Light };
        agent.definition.learning.iter().for_each(|learning| learning.take(notice));
        let Some(heard) = agent.denied.take(notice, ring, &self.store) else { return Weight::Light };
        self.telemetry.denied(name, heard.class, notice.count);
        if let Some(line) = heard.line {
            self.say(name, Line::Course, line);
        }
        self.weigh_denial(name, heard.class, heard.severity, heard.weighs)
    }

    /// What a denial is to the safety of an agent, or of a saga.
    pub(super) fn weigh_denial(&mut self, name: &str, class: Class, severity: Severity, weighs: Weighs) -> Weight {
        let since = self.governor.now();
        match self.governor.get_mut(name).filter(|_| weighs == Weighs::Yes) {
            Some(governed) => governed.observe_denial(class.id(), severity, since),
            None => Weight::Light,
        }
    }

    /// Once a tick: counts that are due go to the audit log, memories to the store.
    pub(super) fn keep_denials(&mut self) {
        self.agents.values_mut().for_each(|agent| agent.denied.keep(&self.store));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_rings::notice::What;

    use super::*;

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
