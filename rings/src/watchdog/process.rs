//! The watchdog's own main: takes its order, waits for the end of the socket, kills.
//!
//! Whatever can fail is done before it says that it is armed; afterwards every way in which its wait ends, but for a
//! dismissal, leads to the kill.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Answer, NAME, Order};
use crate::cgroup::Grip;
use crate::sys::{fdpass, process};

/// How long one kill may take before it is tried again.
const KILL_WITHIN: Duration = Duration::from_secs(10);
/// How often a kill that left survivors (stuck in the kernel) is tried again: a minute in all. The next start sweeps the rest.
const KILLS_MAX: u32 = 6;

/// What ends nothing here: only the supervisor's death or its word does.
const IGNORED: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGPIPE, Signal::SIGTSTP];

/// Becomes the watchdog when this process was started as one. Must be called in `main` before any thread is started. Returns
/// at once in every other process.
pub fn become_watchdog_if_asked() {
    if std::env::args_os().next().is_none_or(|name| name.as_bytes() != NAME.as_bytes()) {
        return;
    }
    let code = match watch() {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{NAME}: {e}");
            70
        }
    };
    std::process::exit(code);
}

fn watch() -> io::Result<()> {
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    let grip = match arm(socket) {
        Ok(Some(grip)) => grip,
        // The supervisor ended before it gave an order: nothing was launched.
        Ok(None) => return Ok(()),
        Err(e) => {
            let answer = Answer::Refused(e.to_string());
            // Where even that can't be said, the supervisor reads the end of the socket.
            let _ = fdpass::send(socket, &serde_json::to_vec(&answer)?, &[]);
            return Err(e);
        }
    };
    if fdpass::send(socket, &serde_json::to_vec(&Answer::Armed)?, &[]).is_ok() && is_dismissed(socket) {
        return Ok(());
    }
    let mut last = None;
    for _ in 0..KILLS_MAX {
        match grip.kill(KILL_WITHIN) {
            Ok(_) => return Ok(()),
            Err(e) => last = Some(e),
        }
    }
    last.map_or(Ok(()), |e| Err(io::Error::other(e)))
}

/// From a fresh process to one that holds what it needs for the kill.
fn arm(socket: BorrowedFd<'_>) -> io::Result<Option<Grip>> {
    nix::unistd::setsid()?;
    process::ignore(&IGNORED)?;
    process::set_name(c"agt-watchdog")?;
    process::set_non_dumpable()?;
    let Some((bytes, _)) = fdpass::receive(socket)? else { return Ok(None) };
    match serde_json::from_slice(&bytes)? {
        Order::Watch(tree) => Grip::open(tree).map(Some).map_err(io::Error::other),
        Order::Dismissed => Ok(None),
    }
}

/// Waits for the end of the socket; whether it was a dismissal.
fn is_dismissed(socket: BorrowedFd<'_>) -> bool {
    match fdpass::receive(socket) {
        Ok(Some((bytes, _))) => matches!(serde_json::from_slice(&bytes), Ok(Order::Dismissed)),
        // Closed, or broken in a way that should not be: both mean that nobody speaks for the agents any more.
        Ok(None) | Err(_) => false,
    }
}
