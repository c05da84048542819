//! A process of ours that takes memory inside an agent's cgroup until the kernel's OOM killer has acted there.
//!
//! Started again from our own executable under a private name, like the guardian: it waits outside of the agent's cgroup,
//! holding nothing, so that its way back (a SIGKILL by pid and start time) can be journaled before anything is done. Then it is
//! moved in and told to press. A process of its own rather than memory of the supervisor's, because the kernel charges memory
//! to the cgroup of who takes it and frees it, whatever else happens, when that process ends.
//!
//! It ends when the cgroup's OOM count has grown, when it has taken what it may, when the host itself runs short, at its
//! deadline, when its pipe ends and when its owner dies. Should it hang in the kernel, the guardian's SIGKILL ends it.

mod process;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::HogError;
use crate::kernel;
use crate::undo::ProcessId;
pub use process::main_if_hog;

/// `argv[0]` of a hog.
const ARGV0: &str = "agt-chaos-hog";
/// The longest that a hog waits to be told to press, and the longest that it then presses.
pub const LIFE_MAX: Duration = Duration::from_secs(2 * 3600);
/// What the host must have left besides, in bytes: below that a hog lets go.
pub const HOST_RESERVE: u64 = 256 << 20;

/// What a hog is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ToHog {
    /// The first word: whose death ends it.
    Owner(ProcessId),
    /// Take memory.
    Press(Pressing),
}

/// How memory is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressing {
    /// Bytes a second.
    pub per_second: u64,
    /// Never more than this, in bytes: the limit that is pressed against.
    pub most: u64,
    /// The file whose `oom_kill` counts the kills: v1 `memory.oom_control`, v2 `memory.events`.
    pub counter: PathBuf,
}

/// A hog, idle until [`Hog::press`]. Dropping it ends it.
#[derive(Debug)]
pub struct Hog {
    id: ProcessId,
    child: Option<Child>,
    ended: Option<ExitStatus>,
}

impl Hog {
    /// Starts one that does nothing yet.
    ///
    /// # Errors
    /// [`HogError`].
    pub fn start() -> Result<Hog, HogError> {
        #[expect(clippy::disallowed_methods, reason = "the process that takes the memory has to be one of its own")]
        let mut command = Command::new("/proc/self/exe");
        command.arg0(ARGV0).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(HogError::Spawn)?;
        let pid = i32::try_from(child.id()).expect("pid_t is an i32");
        // Held from here on: whatever fails next ends it.
        let mut hog = Hog { id: ProcessId { pid, start_time: 0 }, child: Some(child), ended: None };
        hog.id = identified(pid)?;
        let me = i32::try_from(std::process::id()).expect("pid_t is an i32");
        hog.tell(&ToHog::Owner(identified(me)?))?;
        Ok(hog)
    }

    /// Which process it is.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Begins to take memory, in whatever cgroup it is by now.
    ///
    /// # Errors
    /// [`HogError::Gone`].
    pub fn press(&mut self, pressing: &Pressing) -> Result<(), HogError> {
        self.tell(&ToHog::Press(pressing.clone()))
    }

    /// How it ended; `None` while it lives. A hog that the OOM killer chose ended by signal 9.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            // One that can't be waited for is taken for alive: whoever waits for its end has a limit.
            self.ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        }
        self.ended
    }

    fn tell(&mut self, order: &ToHog) -> Result<(), HogError> {
        let mut line = serde_json::to_vec(order).expect("orders have string keys only");
        line.push(b'\n');
        let pid = self.id.pid;
        let orders = self.child.as_mut().and_then(|child| child.stdin.as_mut());
        let orders = orders.expect("it was started with a pipe, which stays until the drop");
        // Two lines of a few hundred bytes: they fit into any pipe, so this never waits.
        orders.write_all(&line).map_err(|source| HogError::Gone { pid, source })
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let Some(mut child) = self.child.take() else { return };
        // Fails only when it has ended.
        let _ = child.kill();
        // A process that dies in the middle of an OOM kill may take a moment, for which nobody here should wait.
        std::thread::spawn(move || child.wait());
    }
}

fn identified(pid: i32) -> Result<ProcessId, HogError> {
    match kernel::identify(pid) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(HogError::Gone { pid, source: std::io::Error::other("/proc doesn't show it") }),
        Err(error) => Err(HogError::Gone { pid, source: std::io::Error::other(error) }),
    }
}
