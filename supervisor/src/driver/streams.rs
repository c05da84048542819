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
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinSet;

use super::logfile::{LogFile, LogLimits};

/// The longest line that is kept whole; longer ones are cut into pieces of this size.
const LINE_BYTES_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// How long the last output of an ended agent may take to be read.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(5);

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

/// Where a pump writes.
#[derive(Debug, Clone, Copy)]
enum Echo {
    Stdout,
    Stderr,
    Nowhere,
}

/// Waits until what an ended agent said last is passed on: that is worth a wait, and a reader who is asleep not a longer one.
pub async fn last_words(pumps: &mut JoinSet<()>) {
    let rest = async { while pumps.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS_WITHIN, rest).await;
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
        Wiring::Prefixed => (Echo::Stdout, Echo::Stderr),
        Wiring::Log => (Echo::Nowhere, Echo::Nowhere),
    };
    let stdin = OwnedFd::from(File::open("/dev/null")?);
    let log = std::sync::Arc::new(std::sync::Mutex::new(LogFile::open(log, limits)));
    let mut end = |echo: Echo| -> io::Result<OwnedFd> {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let reader = {
            let flags = nix::fcntl::OFlag::O_NONBLOCK;
            nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags))?;
            pipe::Receiver::from_owned_fd(read)?
        };
        pumps.spawn(pump(name.to_owned(), reader, echo, std::sync::Arc::clone(&log)));
        Ok(write)
    };
    let (stdout, stderr) = (end(out)?, end(err)?);
    Ok(Wired { streams: Streams { stdin, stdout, stderr }, pumps })
}

async fn pump(name: String, mut from: pipe::Receiver, echo: Echo, log: std::sync::Arc<std::sync::Mutex<LogFile>>) {
    let mut buffer = vec![0u8; READ_BYTES];
    let mut line = Vec::new();
    loop {
        // A pipe's read fails only when it is closed under us; both mean that nothing more comes.
        let length = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        if let Ok(mut log) = log.lock() {
            log.append(&buffer[..length]);
        }
        for byte in &buffer[..length] {
            if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                show(&name, &line, echo).await;
                line.clear();
                if *byte == b'\n' {
                    continue;
                }
            }
            line.push(*byte);
        }
    }
    if !line.is_empty() {
        show(&name, &line, echo).await;
    }
}

async fn show(name: &str, line: &[u8], echo: Echo) {
    let text = format!("{name} | {}\n", escaped(&String::from_utf8_lossy(line)));
    // Our own output is gone (a closed pipe): the agent's log still has the line, and the agent must not be held up.
    let _ = match echo {
        Echo::Stdout => tokio::io::stdout().write_all(text.as_bytes()).await,
        Echo::Stderr => tokio::io::stderr().write_all(text.as_bytes()).await,
        Echo::Nowhere => Ok(()),
    };
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
