//! A second `run` hands its agents to the supervisor that is there, with its descriptors.
//!
//! HTTP carries no descriptors, so this is a socket of its own: SOCK_SEQPACKET, one connection per `run`. The plan travels in
//! a memfd with its secrets, between two processes of the same user or root. When the connection ends (the terminal went
//! away, the second `run` was killed), the agents that came over it are stopped in order.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use agt_rings::fdpass;
use agt_rings::launch::Streams;
use agt_rings::spec::Terminal;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle as Runtime;

use super::listener::{self, Trust};
use crate::config::AgentPlan;
use crate::config::spec::Switch;
use crate::driver::Handle;
use crate::driver::audience::{Audience, Said, Tenure, Wish};
use crate::driver::definition::Definition;
use crate::driver::event::Refusal;
use crate::driver::status_file::StatusFile;
use crate::driver::streams::Wiring;
use crate::exit;
use crate::govern::governor::Vouching;
use crate::machine::lifecycle::Conclusion;
use crate::reloading::Origin;
use crate::sagas::hosted::Sagas;

/// `run`s that hand over at once; more wait.
const BACKLOG: i32 = 16;

/// What is handed over beside the descriptors.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    plan: Vec<u8>,
    terminal: Terminal,
    status_file: Option<PathBuf>,
    origin: Option<Origin>,
    term: Option<String>,
}

/// From the supervisor to the second `run`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Something is said of its agent.
    Said(Said),
    /// The last word.
    End(End),
}

/// The longest refusal that is passed on, in bytes: it must fit a message.
const WHY_BYTES_MAX: usize = 8192;

/// How it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The agent died for good.
    Dead(Conclusion),
    /// It was not started because the supervisor is ending: another one can start it soon.
    Ending,
    /// It was never started.
    Refused(Refused),
}

/// Why something was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub why: String,
    /// The exit code for it.
    pub code: u8,
}

/// The listening side; its file goes when it is dropped.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    talks: Talks,
}

/// Conversations that are not over: an answer must be out before the process may end.
#[derive(Debug, Clone, Default)]
struct Talks(Arc<(Mutex<usize>, Condvar)>);

/// How long the end of the supervisor waits for answers that are on their way: all their agents are dead by then.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

impl Talks {
    fn change(&self, by: isize) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *open = open.saturating_add_signed(by);
        self.0.1.notify_all();
    }

    fn wait_over(&self) {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Late or poisoned: the process ends all the same, and the other side says that its supervisor has ended.
        drop(self.0.1.wait_timeout_while(open, ANSWERS_WITHIN, |open| *open > 0));
    }
}

impl Door {
    /// Opens the door, from within a runtime's context, and serves it on a thread of its own for as long as the process lives. The caller holds the state
    /// directory's lock, so a file that is there was left by a dead supervisor.
    ///
    /// # Errors
    /// What bind(2) says.
    pub fn open(path: &Path, handle: Handle, sagas: Sagas) -> io::Result<Door> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listening = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        // Before bind(2), which gives the file the socket's own mode: no moment at which others may connect.
        rustix::fs::fchmod(&listening, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        bind(listening.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&listening, Backlog::new(BACKLOG)?)?;
        let talks = Talks::default();
        std::thread::Builder::new().name("handoff".to_owned()).spawn({
            let (talks, runtime) = (talks.clone(), Runtime::current());
            let hosts = Hosts { handle, sagas, runtime };
            move || serve(&listening, &hosts, &talks)
        })?;
        Ok(Door { path: path.to_owned(), talks })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.talks.wait_over();
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who takes in what comes.
#[derive(Debug, Clone)]
struct Hosts {
    handle: Handle,
    sagas: Sagas,
    runtime: Runtime,
}

fn serve(listening: &OwnedFd, hosts: &Hosts, talks: &Talks) {
    loop {
        match rustix::net::accept_with(listening, rustix::net::SocketFlags::CLOEXEC) {
            Ok(connection) => {
                let (hosts, talk) = (hosts.clone(), talks.clone());
                talks.change(1);
                let spawned = std::thread::Builder::new().name("handed-over".to_owned()).spawn(move || {
                    if let Err(e) = one(Arc::new(connection), &hosts) {
                        eprintln!("error: an agent or a saga could not be taken over: {e}");
                    }
                    talk.change(-1);
                });
                if let Err(e) = spawned {
                    talks.change(-1);
                    eprintln!("error: an agent could not be taken over: {e}");
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            Err(e) => {
                eprintln!("error: no more agents can be taken over: {e}");
                return;
            }
        }
    }
}

fn one(connection: Arc<OwnedFd>, hosts: &Hosts) -> io::Result<()> {
    let handle = &hosts.handle;
    let peer = getsockopt(&*connection, sockopt::PeerCredentials)?;
    let ours = nix::unistd::geteuid().as_raw();
    let say = |word: &Word| fdpass::send(connection.as_fd(), &serde_json::to_vec(word)?, &[]);
    let answer = |end: End| say(&Word::End(end));
    if peer.uid() != ours && peer.uid() != 0 {
        let why = "this supervisor belongs to another user".to_owned();
        return answer(End::Refused(Refused { why, code: exit::REFUSED }));
    }
    let Some((word, fds)) = fdpass::receive(connection.as_fd())? else { return Ok(()) };
    let mut fds = fds.into_iter();
    if word == super::sagas::WORD {
        let payload =
            fds.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a descriptor is missing"))?;
        return super::sagas::take(&connection, File::from(payload), &hosts.sagas, &hosts.runtime);
    }
    let (Some(payload), Some(stdin), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next(), fds.next())
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
    };
    let mut bytes = Vec::new();
    File::from(payload).read_to_end(&mut bytes)?;
    let offer: Offer = serde_json::from_slice(&bytes)?;
    let mut definition = Definition::new(AgentPlan::from_wire(&offer.plan)?);
    definition.terminal = offer.terminal;
    definition.origin = offer.origin;
    if definition.plan.vouch == Switch::On {
        // A person typed this `run`, as they would have typed the first one.
        definition.vouching = Vouching::ByHand;
    }
    definition.status_file = offer.status_file.as_deref().map(StatusFile::new).transpose()?;
    definition.term = offer.term;
    let (audience, mut ear) = Audience::open();
    definition.audience = Some(audience);
    let (name, tenure) = (definition.name().to_owned(), definition.tenure);
    let death = handle.add(definition, Wiring::Direct(Streams { stdin, stdout, stderr }));
    // After the order to take it up, in the same queue: a wish for one that was refused finds nobody of this tenure.
    let (wishes, from) = (handle.clone(), Arc::clone(&connection));
    let hears = move || hear(&from, (&name, tenure), peer.uid(), &wishes);
    std::thread::Builder::new().name("wishes".to_owned()).spawn(hears)?;
    while let Some(said) = ear.blocking_recv() {
        if say(&Word::Said(said)).is_err() {
            // It went away; its agent is being stopped.
            break;
        }
    }
    drop(ear);
    answer(match death.blocking_recv() {
        Ok(Ok(conclusion)) => End::Dead(conclusion),
        Ok(Err(Refusal::Ending)) | Err(_) => End::Ending,
        Ok(Err(refusal)) => {
            let mut why = refusal.to_string();
            let end = (0..=WHY_BYTES_MAX.min(why.len())).rev().find(|end| why.is_char_boundary(*end));
            why.truncate(end.expect("0 is a boundary"));
            End::Refused(Refused { code: refusal_code(&refusal), why })
        }
    })
}

/// The exit code of a refusal.
#[must_use]
pub fn refusal_code(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NameTaken { .. } | Refusal::Policy(_) => exit::REFUSED,
        Refusal::NotNow(_) => exit::NO,
        Refusal::Killed { .. } => exit::KILLED,
        Refusal::BreakerOpen { .. } | Refusal::AlreadyRuns(_) => exit::TRY_AGAIN,
        Refusal::BadState(_) => exit::DATA,
        Refusal::NotRecorded(_) => exit::CANT_CREATE,
        Refusal::Unknown(_) | Refusal::HostCant(_) | Refusal::Ending => exit::UNAVAILABLE,
    }
}

/// Hears what the second `run` wants; its end wants a stop.
fn hear(connection: &OwnedFd, (name, tenure): (&str, Tenure), by: u32, handle: &Handle) {
    while let Ok(Some((bytes, _))) = fdpass::receive(connection.as_fd()) {
        handle.wish(name, tenure, serde_json::from_slice(&bytes).unwrap_or(Wish::Stop), by);
    }
    handle.wish(name, tenure, Wish::Stop, by);
}

/// The second `run`'s side of the connection.
#[derive(Debug)]
pub struct Handed {
    connection: Arc<OwnedFd>,
}

impl Handed {
    /// Knocks.
    ///
    /// # Errors
    /// Nobody is there, or somebody who must not be given anything (see `listener`).
    pub fn knock(path: &Path) -> io::Result<Handed> {
        let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(connection.as_raw_fd(), &UnixAddr::new(path)?)?;
        listener::check(&connection, path, Trust::Secrets)?;
        Ok(Handed { connection: Arc::new(connection) })
    }

    /// Hands an agent over.
    ///
    /// # Errors
    /// The connection broke.
    pub fn over(&self, definition: &Definition, streams: &Streams) -> io::Result<()> {
        let status_file = definition.status_file.as_ref().map(|file| file.path().to_owned());
        let (term, origin) = (definition.term.clone(), definition.origin.clone());
        let offer = Offer { plan: definition.plan.to_wire(), terminal: definition.terminal, status_file, origin, term };
        let mut payload = File::from(memfd_create(c"agt-handoff", MFdFlags::MFD_CLOEXEC)?);
        payload.write_all(&serde_json::to_vec(&offer)?)?;
        payload.rewind()?;
        let fds =
            [payload.as_raw_fd(), streams.stdin.as_raw_fd(), streams.stdout.as_raw_fd(), streams.stderr.as_raw_fd()];
        fdpass::send(self.connection.as_fd(), b"o", &fds)
    }

    /// Asks for a stop, or for an end at once.
    pub fn wish(&self, wish: Wish) {
        // A supervisor that is gone has ended the agent already.
        let _ = fdpass::send(self.connection.as_fd(), &serde_json::to_vec(&wish).expect("a word"), &[]);
    }

    /// Blocks until something is said; the last word is the end of the agent.
    ///
    /// # Errors
    /// The supervisor died; with it the agent.
    pub fn hear(&self) -> io::Result<Word> {
        match fdpass::receive(self.connection.as_fd())? {
            Some((bytes, _)) => Ok(serde_json::from_slice(&bytes)?),
            None => {
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor has ended, and its agents with it"))
            }
        }
    }
}
