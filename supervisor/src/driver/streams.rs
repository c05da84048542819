//! What an agent's three standard streams are connected to.
//!
//! Raw hands over our own descriptors: not a byte passes through us, so an MCP client talks to the server itself. Prefixed and
//! log read pipes; every control character of a line is escaped before it reaches a terminal, because an agent's output is
//! input to whoever looks at it.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use agt_rings::launch::Streams;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::logfile::LogLimits;
use super::outlet::{Log, Outlet};

/// The longest line that is kept whole; longer ones are cut into pieces of this size.
const LINE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// Lines are passed on together once they are this long together, or when there is nothing more to read.
const TEXT_BYTES: usize = 16 * 1024;
/// How long the last output of an ended agent may take to be read.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);
/// The same where the next life waits for it.
const TERMINAL_WITHIN: Duration = Duration::from_millis(200);

/// The kinds of wiring.
#[derive(Debug)]
pub enum Wiring {
    /// These descriptors, untouched.
    Direct(Streams),
    /// The same, but for those that are a terminal: of these the agent gets a pipe's end.
    Tamed(Streams),
    /// Pipes whose lines go to our standard output and error with the agent's name before them, and to the log.
    Prefixed,
    /// Pipes whose lines go to the log alone.
    Log,
    /// A terminal of its own, joined to ours.
    Terminal,
}

/// Streams ready for a launch, and the tasks that serve their other ends.
#[derive(Debug)]
pub struct Wired {
    /// For the launch.
    pub streams: Streams,
    /// Serving the other ends; they end with the last writer.
    pub pumps: JoinSet<()>,
}

/// Waits until what ended agents said last is passed on: that is worth a wait, and a reader who is asleep not a longer one.
/// It is one wait for all of them, and nothing serves their streams afterwards.
pub async fn last_words(all: Vec<&mut JoinSet<()>>) {
    let deadline = Instant::now() + LAST_WORDS_WITHIN;
    for pumps in all {
        let rest = async { while pumps.join_next().await.is_some() {} };
        let _ = timeout_at(deadline, rest).await;
        pumps.shutdown().await;
    }
}

/// The next life begins: what the one before said last is still passed on.
pub(super) async fn give_way(mut before: JoinSet<()>, next: &Wiring) {
    if before.is_empty() {
        return;
    }
    if matches!(next, Wiring::Terminal) {
        // Our terminal's modes are put back by the one and changed by the other, in this order.
        let rest = async { while before.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(TERMINAL_WITHIN, rest).await;
        before.shutdown().await;
    } else {
        tokio::spawn(async move { last_words(vec![&mut before]).await });
    }
}

/// Connects the streams of one launch.
///
/// # Errors
/// When a pipe can't be made or a descriptor duplicated.
pub fn wire(name: &str, wiring: &Wiring, log: PathBuf, limits: LogLimits) -> io::Result<Wired> {
    let mut pumps = JoinSet::new();
    let (out, err) = match wiring {
        Wiring::Direct(given) => {
            let copy = |fd: &OwnedFd| fd.as_fd().try_clone_to_owned();
            let streams =
                Streams { stdin: copy(&given.stdin)?, stdout: copy(&given.stdout)?, stderr: copy(&given.stderr)? };
            return Ok(Wired { streams, pumps });
        }
        Wiring::Tamed(given) => return super::tame::wire(given),
        Wiring::Terminal => return super::terminal::wire(log, limits),
        Wiring::Prefixed => (Some(Outlet::Stdout), Some(Outlet::Stderr)),
        Wiring::Log => (None, None),
    };
    let stdin = OwnedFd::from(File::open("/dev/null")?);
    let log = Log::open(log, limits);
    let mut end = |echo: Option<Outlet>| -> io::Result<OwnedFd> {
        let (reader, write) = pipe()?;
        pumps.spawn(pump(name.to_owned(), reader, echo, log.clone()));
        Ok(write)
    };
    let (stdout, stderr) = (end(out)?, end(err)?);
    Ok(Wired { streams: Streams { stdin, stdout, stderr }, pumps })
}

/// A pipe whose reading end is ours.
pub(crate) fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

async fn pump(name: String, mut from: pipe::Receiver, echo: Option<Outlet>, log: Log) {
    let mut buffer = vec![0u8; READ_BYTES];
    let (mut line, mut text) = (Vec::new(), String::new());
    loop {
        // A pipe's read fails only when it is closed under us; both mean that nothing more comes.
        let length = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        log.append(&buffer[..length]).await;
        let Some(outlet) = echo else { continue };
        for byte in &buffer[..length] {
            if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                show(&name, &line, &mut text);
                line.clear();
                if text.len() >= TEXT_BYTES {
                    outlet.print(std::mem::take(&mut text).into_bytes()).await;
                }
                if *byte == b'\n' {
                    continue;
                }
            }
            line.push(*byte);
        }
        if !text.is_empty() {
            outlet.print(std::mem::take(&mut text).into_bytes()).await;
        }
    }
    if let Some(outlet) = echo {
        if !line.is_empty() {
            show(&name, &line, &mut text);
            outlet.print(text.into_bytes()).await;
        }
        outlet.flushed().await;
    }
    log.flushed().await;
}

fn show(name: &str, line: &[u8], text: &mut String) {
    let _ = writeln!(text, "{name} | {}", escaped(&String::from_utf8_lossy(line)));
}

/// Shows control characters instead of sending them: ESC becomes `\u{1b}`. Tab stays; so does everything printable.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\t') || is_deceiving(c) {
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Bidirectional overrides rearrange what a reader sees without being control characters by class.
pub(super) fn is_deceiving(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_of_an_agent_never_reach_a_terminal() {
        assert_eq!(escaped("a\u{1b}[2Jb\tc\r"), "a\\u{1b}[2Jb\tc\\u{d}");
        assert_eq!(escaped("\u{9b}31m\u{202e}x"), "\\u{9b}31m\\u{202e}x");
    }
}
