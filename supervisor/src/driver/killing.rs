//! Ends a tree and looks that it is gone: by its cgroup where it has one, else by the init of its PID namespace.

use std::io;
use std::time::{Duration, Instant};

use agt_rings::cgroup::Group;
use agt_rings::launch::Running;

use super::status::KillSeen;

/// Why a tree is not known to be gone.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// The group did not become empty.
    #[error(transparent)]
    Group(#[from] agt_rings::cgroup::Error),
    /// The init could not be watched.
    #[error("its init can't be watched")]
    Init(#[source] io::Error),
    /// The init did not end.
    #[error("its init has not ended within {} s", .0.as_secs())]
    Late(Duration),
    /// Neither a cgroup nor a PID namespace holds the tree together.
    #[error("nothing here holds its tree together: processes that left its session may live on")]
    Loose,
}

/// Ends a tree; how that went once it is verified. Waits for nothing of ours.
///
/// # Errors
/// [`Unverified`]; its main process and init are dead or dying all the same.
pub fn end(group: Option<&Group>, running: Option<&Running>, within: Duration) -> Result<KillSeen, Unverified> {
    let began = Instant::now();
    if let (None, Some(running)) = (group, running.filter(|running| !running.is_nested())) {
        return end_loose(running, within, began);
    }
    let report = group.map(|group| group.kill(within));
    if let Some(running) = running {
        // With a cgroup the init is gone already (ESRCH); without one this is the kill.
        let _ = running.kill_init();
    }
    match (report, running) {
        (Some(report), _) => {
            let report = report?;
            Ok(seen(Some(report.processes), report.took))
        }
        (None, Some(running)) => {
            let gone = running.wait_gone(within).map_err(Unverified::Init)?;
            // The kernel reports an init's end when everything in its namespace has been reaped; nobody has counted.
            if gone { Ok(seen(None, began.elapsed())) } else { Err(Unverified::Late(within)) }
        }
        (None, None) => Ok(seen(Some(0), began.elapsed())),
    }
}

/// Neither a cgroup nor a PID namespace: the init, as the subreaper of its tree, ends what descends from it and goes last. Taking it
/// away first would leave the rest to nobody.
fn end_loose(running: &Running, within: Duration, began: Instant) -> Result<KillSeen, Unverified> {
    if running.dismiss().is_ok() && running.wait_gone(within).map_err(Unverified::Init)? {
        return Ok(seen(None, began.elapsed()));
    }
    let _ = running.kill_init();
    Err(Unverified::Loose)
}

fn seen(processes: Option<usize>, took: Duration) -> KillSeen {
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    KillSeen { processes, took_us: Some(took_us), verified_empty: true }
}

impl KillSeen {
    /// A kill that could not be verified.
    #[must_use]
    pub fn unverified() -> KillSeen {
        KillSeen { processes: None, took_us: None, verified_empty: false }
    }

    /// What it did, in words.
    #[must_use]
    pub fn words(&self) -> String {
        let processes = match self.processes {
            None => "its whole tree".to_owned(),
            Some(1) => "1 process".to_owned(),
            Some(processes) => format!("{processes} processes"),
        };
        match self.took_us.filter(|_| self.verified_empty) {
            Some(took) => {
                let took = f64::from(u32::try_from(took).unwrap_or(u32::MAX)) / 1000.0;
                format!("{processes} in {took:.1} ms, verified empty")
            }
            None => {
                "not verified: some of it may live on; `agt-supervise doctor` shows what this host lacks".to_owned()
            }
        }
    }
}
