//! A terminal of ours is no agent's: where `raw` would hand one over, a pipe goes to the agent and we carry the bytes.
//!
//! With our terminal's descriptor in hand an agent could switch its echo off, lock it, resize it, stop its output, and write
//! control sequences; all of that stays after the agent is gone. Pipes, files and sockets are still handed over untouched:
//! those are what a program at the other end reads. Who wants the terminal itself handed over types `--stdio raw`.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};

use agt_rings::launch::Streams;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read, write};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::outlet::Outlet;
use super::streams::{self, Wired, is_deceiving};

const READ_BYTES: usize = 16 * 1024;
/// The longest UTF-8 sequence.
const CHAR_BYTES_MAX: usize = 4;

/// Streams with a pipe in the place of each terminal among them.
pub(super) fn wire(given: &Streams) -> io::Result<Wired> {
    let mut pumps = JoinSet::new();
    // What was given are copies of our own three.
    let stdin = if given.stdin.is_terminal() {
        let (theirs, ours) = pipe2(OFlag::O_CLOEXEC)?;
        let from = given.stdin.try_clone()?;
        // Beside the runtime: it sleeps as long as nobody types. It ends with the agent's side of the pipe.
        std::thread::Builder::new().name("agt-keys".to_owned()).spawn(move || carry_keys(&from, &ours))?;
        theirs
    } else {
        given.stdin.try_clone()?
    };
    let mut screen = |given: &OwnedFd, outlet: Outlet| -> io::Result<OwnedFd> {
        if !given.is_terminal() {
            return given.try_clone();
        }
        let (ours, theirs) = streams::pipe()?;
        pumps.spawn(carry_text(ours, outlet));
        Ok(theirs)
    };
    let (stdout, stderr) = (screen(&given.stdout, Outlet::Stdout)?, screen(&given.stderr, Outlet::Stderr)?);
    Ok(Wired { streams: Streams { stdin, stdout, stderr }, pumps })
}

/// Our keyboard to the agent, until nobody of the agent's reads any more.
fn carry_keys(from: &OwnedFd, to: &OwnedFd) {
    let mut buffer = [0u8; READ_BYTES];
    loop {
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN), PollFd::new(to.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return;
        }
        match read(from, &mut buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if write_all(to, &buffer[..length]).is_err() {
                    return;
                }
            }
        }
    }
}

/// The agent's text to our terminal, control characters shown instead of sent.
async fn carry_text(mut from: pipe::Receiver, to: Outlet) {
    let mut buffer = vec![0u8; READ_BYTES];
    let mut held = 0;
    // A pipe's read fails only when it is closed under us; both mean that nothing more comes.
    while let Ok(length @ 1..) = from.read(&mut buffer[held..]).await {
        let filled = held + length;
        let (text, rest) = whole_characters(&buffer[..filled]);
        to.print(shown(&text).into_bytes()).await;
        buffer.copy_within(filled - rest..filled, 0);
        held = rest;
    }
    to.print(shown(&String::from_utf8_lossy(&buffer[..held])).into_bytes()).await;
    to.flushed().await;
}

/// The text up to the last whole character, and how many bytes of one are left over.
fn whole_characters(bytes: &[u8]) -> (String, usize) {
    let start = bytes.len().saturating_sub(CHAR_BYTES_MAX - 1);
    let cut = (start..bytes.len()).rev().find(|at| bytes[*at] & 0xC0 != 0x80);
    let rest = match cut {
        Some(at) if matches!(std::str::from_utf8(&bytes[at..]), Err(e) if e.error_len().is_none()) => bytes.len() - at,
        _ => 0,
    };
    (String::from_utf8_lossy(&bytes[..bytes.len() - rest]).into_owned(), rest)
}

fn shown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // What lays out plain text moves within the line or to the next one, and no further.
        let plain = matches!(c, '\n' | '\t' | '\r' | '\u{8}');
        if (c.is_control() && !plain) || is_deceiving(c) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

pub(super) fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
                poll(&mut fds, PollTimeout::NONE)?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn character_cut_by_a_read_is_put_together_again() {
        let text = "a€b";
        for cut in 0..=text.len() {
            let (first, rest) = whole_characters(&text.as_bytes()[..cut]);
            let held = &text.as_bytes()[cut - rest..];
            assert_eq!(first + std::str::from_utf8(held).unwrap(), text, "cut at {cut}");
        }
        assert_eq!(whole_characters(b"\xff\xff"), ("\u{fffd}\u{fffd}".to_owned(), 0));
    }

    #[test]
    fn escape_sequences_are_shown_and_layout_stays() {
        assert_eq!(shown("a\tb\r\n\u{1b}[2J\u{9b}x\u{202e}"), "a\tb\r\n\\u{1b}[2J\\u{9b}x\\u{202e}");
    }
}
