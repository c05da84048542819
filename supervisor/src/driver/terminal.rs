//! A terminal of the agent's own, joined to ours while it runs.
//!
//! Ours is put into raw mode, so every key goes to the agent, Ctrl-C included: its own line discipline turns that into a signal
//! for its own foreground program. The agent never holds a descriptor of our terminal, so nothing that it does to its own
//! (modes, size, faked input) outlives it. Our modes are put back when the guard is dropped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use agt_rings::launch::Streams;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::logfile::LogLimits;
use super::outlet::{Log, Outlet};
use super::streams::Wired;
use super::tame::write_all;

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
    // Beside the runtime: it sleeps as long as nobody types.
    std::thread::Builder::new().name("agt-keys".to_owned()).spawn(move || carry_keys(&keys, &stop_read))?;
    let screen = screen(&master)?;
    let log = Log::open(log, limits);
    pumps.spawn(async move {
        // Dropped at its end, and when it is cancelled.
        let _held = (raw, stop_write, ended);
        carry_screen(screen, log).await;
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

/// The master side as something that can be waited for. Registered as a stream: readiness is all that is asked of it.
fn screen(master: &OwnedFd) -> io::Result<UnixStream> {
    let copy = std::os::unix::net::UnixStream::from(master.try_clone()?);
    copy.set_nonblocking(true)?;
    UnixStream::from_std(copy)
}

/// The agent's screen to ours and to the log, until its last writer is gone (the kernel says EIO then).
async fn carry_screen(from: UnixStream, log: Log) {
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        match from.async_io(Interest::READABLE, || Ok(nix::unistd::read(&from, &mut buffer)?)).await {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(length) => {
                log.append(&buffer[..length]).await;
                // A terminal that went away: the agent is told by the hang-up, the log still has its words.
                Outlet::Stdout.print(buffer[..length].to_vec()).await;
            }
        }
    }
    Outlet::Stdout.flushed().await;
    log.flushed().await;
}
