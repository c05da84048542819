//! A `saga run` beside a supervisor hands its saga over: commands resolved with its own rights go in, lines and the end
//! come out.
//!
//! Over the same socket as agents (see `handoff`), in a memfd, because resolved commands may carry secrets. When the
//! connection ends, the saga is stopped in order, as it is by Ctrl-C: what runs is ended, and it can be taken up again.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use agt_rings::fdpass;
use agt_saga::id::{RunKind, SagaId};
use agt_saga::plan::Plan;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, watch};

use super::handoff::Refused;
use super::listener::{self, Trust};
use crate::config::{AgentPlan, Color};
use crate::exit;
use crate::sagas::file::{Commands, Context};
use crate::sagas::hosted::{Driven, From, LINES_MAX, Listener, Sagas, Submission};

/// The word that says that a saga comes, where an agent's is `o`.
pub(super) const WORD: &[u8] = b"s";
/// The longest line that is passed on, in bytes; what the journal has is whole.
const LINE_BYTES_MAX: usize = 3 * 1024;

/// What is handed over.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    id: SagaId,
    /// The saga's name.
    name: String,
    /// Plan and context of one that begins; `None` for one that is taken up.
    begins: Option<(String, Context)>,
    commands: Vec<(String, RunKind, Vec<u8>)>,
    colored: bool,
}

/// From the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// A line of progress.
    Line(String),
    /// It is not driven any more.
    Over(Driven),
    /// It was not begun, or the engine gave it up.
    Refused(Refused),
}

fn bad(problem: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn submission(offer: Offer) -> io::Result<(Submission, Color)> {
    let commands =
        offer.commands.into_iter().map(|(step, kind, plan)| Ok(((step, kind), AgentPlan::from_wire(&plan)?)));
    let commands = commands.collect::<io::Result<Commands>>()?;
    let from = match offer.begins {
        Some((text, context)) => From::TheBeginning(Box::new(Plan::from_text(&text).map_err(bad)?), context),
        None => From::ItsJournal,
    };
    let color = if offer.colored { Color::Always } else { Color::Never };
    Ok((Submission { id: offer.id, commands, from }, color))
}

fn say(connection: &OwnedFd, word: &Word) -> io::Result<()> {
    fdpass::send(connection.as_fd(), &serde_json::to_vec(word)?, &[])
}

/// Takes a saga over and answers until it is driven no more.
pub(super) fn take(connection: &Arc<OwnedFd>, mut payload: File, sagas: &Sagas, runtime: &Runtime) -> io::Result<()> {
    let mut bytes = Vec::new();
    payload.read_to_end(&mut bytes)?;
    let offer: Offer = serde_json::from_slice(&bytes)?;
    let seat = sagas.seat(&offer.name);
    let (submission, color) = submission(offer)?;
    let (lines, mut hears) = mpsc::channel(LINES_MAX);
    let (stop, stopped) = watch::channel(false);
    let from = Arc::clone(connection);
    // Whatever comes from there is a wish to stop, and so is its end.
    std::thread::Builder::new().name("saga-wishes".to_owned()).spawn(move || {
        let _ = fdpass::receive(from.as_fd());
        stop.send_replace(true);
    })?;
    let hosted = sagas.clone();
    let driving =
        runtime.spawn(async move { hosted.drive(submission, Listener::Far(lines, color), stopped, seat).await });
    while let Some(mut line) = hears.blocking_recv() {
        if line.len() > LINE_BYTES_MAX {
            let cut = (0..=LINE_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            line.truncate(cut);
        }
        // Somebody who went away is noticed by the other thread; the saga comes to its rest first.
        let _ = say(connection, &Word::Line(line));
    }
    let word = match runtime.block_on(driving) {
        Ok(Ok(driven)) => Word::Over(driven),
        Ok(Err(error)) => {
            let why = crate::driver::launching::in_full(&error);
            Word::Refused(Refused { why, code: error.exit_code() })
        }
        Err(e) => Word::Refused(Refused { why: e.to_string(), code: exit::BUG }),
    };
    say(connection, &word)
}

/// The other side of the connection.
#[derive(Debug)]
pub struct HandedSaga {
    connection: OwnedFd,
}

impl HandedSaga {
    /// Hands a saga over; `name` is the saga's.
    ///
    /// # Errors
    /// Nobody is there, or the connection broke.
    pub fn over(path: &Path, name: &str, submission: Submission, color: Color) -> io::Result<HandedSaga> {
        let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(connection.as_raw_fd(), &UnixAddr::new(path)?)?;
        listener::check(&connection, path, Trust::Secrets)?;
        let begins = match submission.from {
            From::TheBeginning(plan, context) => Some((plan.text().to_owned(), context)),
            From::ItsJournal => None,
        };
        let wire = |((step, kind), plan): ((String, RunKind), AgentPlan)| (step, kind, plan.to_wire());
        let commands = submission.commands.into_iter().map(wire).collect();
        let (name, colored) = (name.to_owned(), color == Color::Always);
        let offer = Offer { id: submission.id, name, begins, commands, colored };
        let mut payload = File::from(memfd_create(c"agt-handoff", MFdFlags::MFD_CLOEXEC)?);
        payload.write_all(&serde_json::to_vec(&offer)?)?;
        payload.rewind()?;
        fdpass::send(connection.as_fd(), WORD, &[payload.as_raw_fd()])?;
        Ok(HandedSaga { connection })
    }

    /// Asks for a stop in order.
    pub fn stop(&self) {
        // A supervisor that is gone has stopped it already.
        let _ = fdpass::send(self.connection.as_fd(), b"stop", &[]);
    }

    /// Blocks for the next word.
    ///
    /// # Errors
    /// The supervisor died; the saga can be taken up again.
    pub fn next(&self) -> io::Result<Word> {
        match fdpass::receive(self.connection.as_fd())? {
            Some((bytes, _)) => Ok(serde_json::from_slice(&bytes)?),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the supervisor has ended")),
        }
    }
}
