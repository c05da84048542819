//! What an agent tried and was told off for: notices, from the process beside the agent that answers for its filter.
//!
//! A filter alone refuses in silence. With a listener ([`crate::seccomp`]) a refused call, and a creating one, goes to the
//! attendant ([`crate::launch`]), which answers it and tells the supervisor. One notice is one JSON text in one packet of a
//! SOCK_SEQPACKET: whole or not at all. Whoever writes it has the agent's uid, so a notice is a report, never a proof: it is
//! bounded and escaped on arrival too, and nothing is allowed because of one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};

/// The largest packet.
pub const PACKET_BYTES_MAX: usize = 8 * 1024;
/// The longest path or address, escaped.
pub const TEXT_BYTES_MAX: usize = 4096;
/// The longest name of a process (the kernel keeps 15 bytes), escaped.
pub const COMM_BYTES_MAX: usize = 64;
/// What a text is cut to where the whole would not fit into a packet.
const TEXT_BYTES_SHORT: usize = 1024;

/// Something that an agent did, once or several times.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Notice {
    /// Who, as a process id in the agent's own PID namespace; 0 where nobody did.
    pub pid: i32,
    /// The name of that process, which it chooses itself: escaped, bounded.
    pub comm: String,
    /// What.
    pub what: What,
    /// How often, equal ones taken together; at least 1.
    pub count: u64,
}

/// What an agent did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A system call that the ring's filter refuses.
    Refused {
        /// Its name, or `#` and its number where the table has none.
        call: String,
        /// The architecture whose number it is.
        arch: String,
        /// The six argument registers.
        args: [u64; 6],
        /// What it was answered with.
        errno: i32,
        /// Why the ring refuses it, from the filter's own tables.
        why: String,
    },
    /// A name that a pattern keeps from the agent.
    Name {
        /// The call that would have made it.
        call: String,
        /// The path as the agent would see it, escaped and bounded.
        path: String,
        /// The pattern.
        pattern: String,
    },
    /// `learn` alone: a file was opened, or would have been.
    Opened {
        /// The path, escaped and bounded.
        path: String,
        /// Whether it was to be written or made.
        write: bool,
        /// Whether it is there.
        result: Outcome,
    },
    /// `learn` alone: a program was executed, or would have been.
    Executed {
        /// Its path, escaped and bounded.
        path: String,
    },
    /// `learn` alone: a connection was asked for.
    Connected {
        /// `IP:PORT`, `[IP]:PORT`, `unix:PATH`, `unix:@NAME` or `family:NUMBER`.
        address: String,
    },
    /// The agent made a repository of its own.
    Repository {
        /// The `.git`, or bare, directory, escaped and bounded.
        path: String,
    },
    /// Notices that could not be passed on.
    Lost {
        /// How many.
        count: u64,
    },
}

/// What could be told of an observed call: it goes on to the kernel, so nobody here sees its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Not looked at.
    Unknown,
    /// The name could be found in the agent's view.
    Found,
    /// It could not: this errno.
    Missing(i32),
}

/// A text that another chose, fit to be shown: control characters and what is no UTF-8 are escaped, and it is cut (with `…`)
/// at `most` bytes.
#[must_use]
pub fn escaped(bytes: &[u8], most: usize) -> String {
    let mut shown = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_invisible(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
            if shown.len() > most {
                return cut(shown, most);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    cut(shown, most)
}

/// Characters that turn the text around them or hide in it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn cut(mut text: String, most: usize) -> String {
    const MARK: &str = "…";
    if text.len() > most {
        let whole = (0..=most.saturating_sub(MARK.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(whole.unwrap_or(0));
        text.push_str(MARK);
    }
    text
}

impl Notice {
    /// For the wire; texts that would not fit are cut.
    ///
    /// # Errors
    /// Never for a notice whose texts came through [`escaped`]: EMSGSIZE for others.
    pub fn to_packet(&self) -> io::Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() <= PACKET_BYTES_MAX {
            return Ok(bytes);
        }
        let bytes = serde_json::to_vec(&self.clone().bounded(TEXT_BYTES_SHORT))?;
        if bytes.len() <= PACKET_BYTES_MAX { Ok(bytes) } else { Err(io::Error::from_raw_os_error(libc::EMSGSIZE)) }
    }

    /// From the wire: escaped and bounded once more, since whoever wrote it might not have been who should.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] for what is no notice.
    pub fn from_packet(packet: &[u8]) -> io::Result<Notice> {
        let notice: Notice = serde_json::from_slice(packet)?;
        let mut notice = notice.bounded(TEXT_BYTES_MAX);
        notice.count = notice.count.max(1);
        Ok(notice)
    }

    fn bounded(mut self, most: usize) -> Notice {
        self.comm = escaped(self.comm.as_bytes(), COMM_BYTES_MAX);
        let text = |text: &mut String| *text = escaped(text.as_bytes(), most);
        match &mut self.what {
            What::Refused { call, arch, why, .. } => [call, arch, why].into_iter().for_each(text),
            What::Name { call, path, pattern } => [call, path, pattern].into_iter().for_each(text),
            What::Opened { path, .. } | What::Executed { path } | What::Repository { path } => text(path),
            What::Connected { address } => text(address),
            What::Lost { .. } => {}
        }
        self
    }
}

/// The supervisor's end: notices as they come.
#[derive(Debug)]
pub struct Notices {
    socket: OwnedFd,
}

impl Notices {
    /// Over the end of a SOCK_SEQPACKET pair.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Notices {
        Notices { socket }
    }

    /// The next one; `Ok(None)` when there is none for now. Never blocks.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] once the attendant has ended, which is before the agent only if somebody ended it;
    /// [`io::ErrorKind::InvalidData`] for a packet that is no notice (the next call goes on behind it); what recv(2) says.
    pub fn next(&self) -> io::Result<Option<Notice>> {
        let mut buffer = [0u8; PACKET_BYTES_MAX + 1];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => return Notice::from_packet(&buffer[..length]).map(Some),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use proptest::prelude::*;

    use super::*;
    use crate::fdpass;

    fn named(path: &str) -> Notice {
        let what = What::Name { call: "mkdir".to_owned(), path: path.to_owned(), pattern: "**/.envrc".to_owned() };
        Notice { pid: 7, comm: "sh".to_owned(), what, count: 1 }
    }

    #[test]
    fn notices_come_out_as_they_were_put_in_and_an_end_is_an_error() {
        let (here, there) = fdpass::pair().unwrap();
        let notices = Notices::new(here);
        assert_eq!(notices.next().unwrap(), None);
        let sent = named("/w/.envrc");
        fdpass::send(there.as_fd(), &sent.to_packet().unwrap(), &[]).unwrap();
        fdpass::send(there.as_fd(), b"{}", &[]).unwrap();
        assert_eq!(notices.next().unwrap(), Some(sent));
        assert_eq!(notices.next().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(notices.next().unwrap(), None);
        drop(there);
        // Not at once: another test's child holds the other end too until it has called exec.
        let mut ended = [PollFd::new(notices.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ended, PollTimeout::from(60_000u16)), Ok(1));
        assert_eq!(notices.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_could_act_on_a_terminal_is_escaped_and_letters_of_all_languages_stay() {
        assert_eq!(escaped(b"a\x1b[2J\n\xff", 100), "a\\u{1b}[2J\\n\\xff");
        assert_eq!(escaped("é \u{202e}x 漢".as_bytes(), 100), "é \\u{202e}x 漢");
        assert_eq!(escaped("ééé".as_bytes(), 5), "é…");
    }

    #[test]
    fn a_path_that_doubles_on_the_wire_is_cut_rather_than_lost() {
        let packet = named(&"\\".repeat(TEXT_BYTES_MAX)).to_packet().unwrap();
        assert!(packet.len() <= PACKET_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn every_escaped_path_fits_a_packet(path in proptest::collection::vec(any::<u8>(), 0..6000)) {
            let packet = named(&escaped(&path, TEXT_BYTES_MAX)).to_packet().unwrap();
            prop_assert!(packet.len() <= PACKET_BYTES_MAX);
            let read = Notice::from_packet(&packet).unwrap();
            prop_assert_eq!(read.pid, 7);
        }
    }
}
