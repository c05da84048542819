//! Whom the OOM killer takes: what an agent runs, before the processes of ours beside it, and those of other users' before neither.
//!
//! The init and the attendant hold little, and live in the agent's memory group. Were they as likely to be taken as what the agent
//! runs, the larger of two small processes would go: ours. Without the attendant every call that it answers ends with ENOSYS for as
//! long as the agent lives. So the score is raised around the birth of what the agent runs, which inherits it, and put back.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::Mode;

use super::given::Help;

/// What an agent has at least; the kernel's range is -1000 to 1000.
const LEAST: i16 = 500;
/// How far an agent stands above a launcher that was started with a high score itself, as a pod's processes often are.
const ABOVE: i16 = 100;
const MOST: i16 = 1000;

/// The score of an init, which its children inherit.
pub(super) struct Score {
    file: File,
    own: i16,
}

impl Score {
    /// To be opened while the host's /proc is in view.
    pub(super) fn open(help: Option<&Help>) -> io::Result<Score> {
        let (from, path) = match help {
            Some(help) => (help.host.proc.as_fd(), "self/oom_score_adj"),
            None => (AT_FDCWD, "/proc/self/oom_score_adj"),
        };
        let file = File::from(nix::fcntl::openat(from, path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?);
        let mut text = [0u8; 16];
        let read = file.read_at(&mut text, 0)?;
        let number = str::from_utf8(&text[..read]).ok().and_then(|text| text.trim().parse().ok());
        Ok(Score { file, own: number.ok_or(io::ErrorKind::InvalidData)? })
    }

    /// Who is born from here on is an agent's.
    pub(super) fn raise(&self) -> io::Result<()> {
        self.write(of_an_agent(self.own))
    }

    /// Who is born from here on is ours. Needs no capability: no score is put below what it was.
    pub(super) fn put_back(&self) -> io::Result<()> {
        self.write(self.own)
    }

    fn write(&self, score: i16) -> io::Result<()> {
        self.file.write_at(score.to_string().as_bytes(), 0).map(drop)
    }
}

fn of_an_agent(own: i16) -> i16 {
    LEAST.max(MOST.min(own.saturating_add(ABOVE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_stands_above_its_launcher_wherever_that_stands() {
        for (own, agents) in [(-1000, 500), (0, 500), (400, 500), (401, 501), (900, 1000), (999, 1000), (1000, 1000)] {
            assert_eq!(of_an_agent(own), agents, "{own}");
        }
    }
}
