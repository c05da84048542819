//! A terminal of the agent's own, joined to ours while it runs.
//!
//! Ours is put into raw mode, so every key goes to the agent, Ctrl-C included: its own line discipline turns that into a signal
//! for its own foreground program. The agent never holds a descriptor of our terminal, so nothing that it does to its own
//! (modes, size, faked input) outlives it. Our modes are put back when the guard is dropped.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use agt_rings::launch::Streams;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::logfile::{LogFile, LogLimits};
use super::streams::Wired;

const READ_BYTES: usize = 16 * 1024;

/// Our terminal in raw mode; dropping it puts the old modes back.
#[derive(Debug)]
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Raw> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that went away needs no modes.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Makes a terminal for the agent and joins it to ours.
///
/// # Errors
/// When no terminal can be made, or ours is none.
pub(super) fn wire(log: PathBuf, limits: LogLimits) -> io::Result<Wired> {
    let pair = nix::pty::openpty(None, None)?;
    let (master, slave) = (Arc::new(pair.master), pair.slave);
    rustix::io::fcntl_setfd(&*master, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&slave, rustix::io::FdFlags::CLOEXEC)?;
    copy_size(&master);
    let raw = Raw::enter()?;
    // Closed when the agent's side is: both pumps end then.
    let (stop_read, stop_write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let (ended, over) = tokio::sync::oneshot::channel::<()>();
    let mut pumps = JoinSet::new();
    let keys = Arc::clone(&master);
    pumps.spawn_blocking(move || carry_keys(&keys, &stop_read));
    let screen = Arc::clone(&master);
    pumps.spawn_blocking(move || {
        carry_screen(&screen, LogFile::open(log, limits));
        drop((raw, stop_write, ended));
    });
    pumps.spawn(async move { follow_size(&master, over).await });
    let copy = || slave.as_fd().try_clone_to_owned();
    let streams = Streams { stdin: copy()?, stdout: copy()?, stderr: slave };
    Ok(Wired { streams, pumps })
}

fn copy_size(master: &OwnedFd) {
    // A terminal without a size (a serial line) gives its agent none either.
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdout()) {
        let _ = tcsetwinsize(master, size);
    }
}

async fn follow_size(master: &OwnedFd, mut over: tokio::sync::oneshot::Receiver<()>) {
    let Ok(mut resized) = signal(SignalKind::window_change()) else { return };
    loop {
        tokio::select! {
            _ = &mut over => return,
            heard = resized.recv() => match heard {
                Some(()) => copy_size(master),
                None => return,
            },
        }
    }
}

/// Our keyboard to the agent, until the agent's side is closed.
fn carry_keys(master: &OwnedFd, stop: &OwnedFd) {
    let stdin = io::stdin();
    let mut buffer = [0u8; READ_BYTES];
    loop {
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN), PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        match nix::unistd::read(stdin.as_fd(), &mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if write_all(master, &buffer[..length]).is_err() {
                    return;
                }
            }
        }
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// The agent's screen to ours and to the log, until its last writer is gone (the kernel says EIO then).
fn carry_screen(master: &OwnedFd, mut log: LogFile) {
    let Ok(copy) = master.try_clone() else { return };
    let mut from = File::from(copy);
    let mut buffer = [0u8; READ_BYTES];
    let mut out = io::stdout();
    loop {
        match from.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(length) => {
                log.append(&buffer[..length]);
                // A terminal that went away: the agent is told by the hang-up, the log still has its words.
                let _ = out.write_all(&buffer[..length]).and_then(|()| out.flush());
            }
        }
    }
}
