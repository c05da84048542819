//! The same attack, unconfined: what it gets when no ring stands in the way.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::attack::{Attack, Got, Need};
use super::scene::Scene;
use super::{Error, decoys, output, wire};
use crate::plan::Ids;
use crate::sys::process;

/// How long one attacker may take. It ends itself long before.
pub(super) const ATTACK_TIMEOUT: Duration = Duration::from_secs(30);

/// As whom a control ran, and what it got.
#[derive(Debug, Clone)]
pub(super) struct Control {
    pub(super) user: String,
    pub(super) got: Got,
}

impl Control {
    /// Whether the attack gets through when nothing confines it.
    pub(super) fn reaches(&self, attack: &Attack) -> bool {
        gets_through(attack, &self.got)
    }
}

/// Success, or the errno that lies behind the permission check.
pub(super) fn gets_through(attack: &Attack, got: &Got) -> bool {
    match got {
        Got::Ok => true,
        Got::Errno(errno) => attack.past.iter().any(|past| *past as i32 == *errno),
        Got::Signal(_) | Got::Nothing(_) | Got::Setup(_) | Got::Silent(_) => false,
    }
}

/// Runs an attack as a child of ours, as `user` or as ourselves.
pub(super) fn run(attack: &Attack, user: Option<Ids>, scene: &Scene) -> Result<Control, Error> {
    let doing = || format!("run the control of {}", attack.name);
    let failed = |e: std::io::Error| Error::decoy(doing())(e);
    let scene_text = serde_json::to_string(scene).expect("a scene is plain data");
    let (leash_read, leash) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    let (out, out_write) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut command = decoys::attacker(user);
    command.arg(attack.name).arg(scene_text).env("HOME", &scene.home).current_dir(&scene.own);
    command.stdin(Stdio::from(leash_read)).stdout(Stdio::from(out_write)).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    // The command holds its ends of the pipes open until it is dropped.
    drop(command);
    let pid = i32::try_from(child.id()).expect("pids fit 22 bits");
    let ended = process::pidfd_open(pid).and_then(|pidfd| readable(&pidfd)).map_err(failed)?;
    if !ended {
        child.kill().map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    let output = output::collect(&out).map_err(failed)?;
    drop(leash);
    let got = if ended { judge_end(attack, status, &output) } else { Got::Silent("given up".to_owned()) };
    let user =
        user.map_or_else(|| format!("the caller (uid {})", nix::unistd::geteuid()), |ids| format!("uid {}", ids.uid));
    Ok(Control { user, got })
}

fn readable(pidfd: &OwnedFd) -> std::io::Result<bool> {
    let timeout = PollTimeout::try_from(ATTACK_TIMEOUT).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// What an ended attacker got: its last word, or the signal that kept it from speaking.
pub(super) fn judge_end(attack: &Attack, status: ExitStatus, output: &output::Output) -> Got {
    let said = wire::parse(&output.bytes);
    let got = match (said, status.signal()) {
        (Some(got), _) => got,
        (None, Some(signal)) => Got::Signal(signal),
        (None, None) => Got::Silent(format!("no answer, {status}")),
    };
    if attack.needs.contains(&Need::Survivor) && got == Got::Ok && !output.is_held {
        return Got::Signal(libc::SIGKILL);
    }
    got
}
