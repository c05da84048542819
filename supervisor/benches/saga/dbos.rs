//! The peer, in a process of its own, told when to work.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PROGRAM: &str = include_str!("dbos.py");

/// A DBOS that waits for work.
pub(crate) struct Dbos {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Dbos {
    /// So many workflows at once of so many steps; none: it is not here, which is said once.
    pub(crate) fn start(folder: &Path, at_once: usize, steps: usize) -> Option<Dbos> {
        let peers = PathBuf::from(std::env::var_os("AGT_BENCH_PEERS")?);
        let python = peers.join("dbos/bin/python");
        if !python.exists() {
            return None;
        }
        // Not `dbos.py`: it would import itself.
        let program = folder.join("peer.py");
        std::fs::write(&program, PROGRAM).expect("the folder is writable");
        let database = folder.join(format!("dbos-{at_once}.sqlite"));
        let mut command = Command::new(python);
        command.arg(program).args([at_once.to_string(), steps.to_string()]).arg(database);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("python starts");
        let to = child.stdin.take().expect("it was piped");
        let from = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut dbos = Dbos { child, to, from };
        assert_eq!(dbos.line(), "ready");
        Some(dbos)
    }

    fn line(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.from.read_line(&mut line).expect("it can be read") > 0, "DBOS ended");
            // It says some things of its own.
            if line.trim() == "ready" || line.trim().parse::<f64>().is_ok() {
                return line.trim().to_owned();
            }
        }
    }

    /// Steps a second of one round.
    pub(crate) fn round(&mut self) -> f64 {
        writeln!(self.to).expect("it listens");
        self.line().parse().expect("a number")
    }
}

impl Drop for Dbos {
    fn drop(&mut self) {
        // A peer that has ended by itself is over as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
