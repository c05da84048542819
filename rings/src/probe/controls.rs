//! The same attack, unconfined: what it gets when no ring stands in the way.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::attack::{Attack, Got, Need};
use super::decoys::Target;
use super::scene::Scene;
use super::session::Session;
use super::tree::Tree;
use super::{Error, decoys, output, wire};
use crate::plan::Ids;
use crate::ring::Ring;
use crate::sys::process;

/// How much longer than it is given an attacker may take to be gone: it ends itself.
const GRACE: Duration = Duration::from_secs(10);

/// How long to wait for an attacker that is given so much.
pub(super) fn patience(scene: &Scene) -> Duration {
    Duration::from_secs(scene.seconds.into()) + GRACE
}

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
        Got::Signal(_) | Got::Nothing(_) | Got::Setup(_) | Got::Silent(_) | Got::Late => false,
    }
}

impl Session {
    /// As the agent's own uid first; where that does not get through and we have more power, as ourselves.
    pub(super) fn control(&self, attack: &'static Attack, ring: Ring, given: Duration) -> Result<Control, Error> {
        let agent = self.agent(ring);
        let control = self.control_as(attack, ring, agent, given)?;
        if control.reaches(attack) || agent.is_none() {
            Ok(control)
        } else {
            self.control_as(attack, ring, None, given)
        }
    }

    fn control_as(
        &self,
        attack: &'static Attack,
        ring: Ring,
        user: Option<Ids>,
        given: Duration,
    ) -> Result<Control, Error> {
        // How many files the ring gives is the only thing that differs between rings.
        let per_ring = attack.needs.contains(&Need::OpenFiles);
        let key = (attack.name, user.map(|ids| ids.uid));
        if let Some(known) = self.controls.lock().unwrap_or_else(PoisonError::into_inner).get(&key)
            && !per_ring
        {
            return Ok(known.clone());
        }
        // The tree belongs to whoever the agent would be, also when the control is ourselves.
        let tree = self.tree(self.agent(ring))?;
        let victim = self.victim(attack, user, &tree)?.or(self.beside(attack, user, &tree)?);
        let neighbour = self.neighbour(attack, ring)?;
        let mut scene = self.scene(ring, &tree, victim.as_ref(), given);
        scene.neighbour = neighbour.as_ref().map(|launched| launched.running.pid());
        scene.reaper = victim.as_ref().map_or(1, |target| target.victim.pid);
        (scene.own, scene.home, scene.shared) = (tree.path("scratch"), tree.path("scratch"), tree.path("scratch"));
        if attack.needs.contains(&Need::Datagram) {
            self.standing.has_datagram(attack.name);
        }
        let mut control = run(attack, user, &scene)?;
        control.got = self.witnessed(attack, control.got);
        if let Some(neighbour) = neighbour {
            neighbour.end()?;
        }
        drop(victim);
        self.trees.give_back(tree);
        if control.got != Got::Late {
            self.controls.lock().unwrap_or_else(PoisonError::into_inner).insert(key, control.clone());
        }
        Ok(control)
    }

    pub(super) fn victim(&self, attack: &Attack, user: Option<Ids>, tree: &Tree) -> Result<Option<Target>, Error> {
        if !attack.needs.contains(&Need::Victim) {
            return Ok(None);
        }
        Target::start(user, &tree.path("scratch")).map(Some).map_err(Error::decoy("start a victim"))
    }

    /// Unconfined, an ordinary process stands in for the health check, and for whoever answers for a filter.
    fn beside(&self, attack: &Attack, user: Option<Ids>, tree: &Tree) -> Result<Option<Target>, Error> {
        if !attack.needs.iter().any(|need| matches!(need, Need::Check | Need::Attendant)) {
            return Ok(None);
        }
        Target::start(user, &tree.path("scratch")).map(Some).map_err(Error::decoy("start a stand-in"))
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
    let ended = process::pidfd_open(pid).and_then(|pidfd| readable(&pidfd, patience(scene))).map_err(failed)?;
    if !ended {
        child.kill().map_err(failed)?;
    }
    let status = child.wait().map_err(failed)?;
    let output = output::collect(&out).map_err(failed)?;
    drop(leash);
    let got = if ended { judge_end(attack, status, &output) } else { Got::Late };
    let user =
        user.map_or_else(|| format!("the caller (uid {})", nix::unistd::geteuid()), |ids| format!("uid {}", ids.uid));
    Ok(Control { user, got })
}

fn readable(pidfd: &OwnedFd, within: Duration) -> std::io::Result<bool> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
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
        // Its own alarm: whatever kept it, it was no layer's answer.
        (None, Some(libc::SIGALRM)) => Got::Late,
        (None, Some(signal)) => Got::Signal(signal),
        (None, None) => Got::Silent(format!("no answer, {status}")),
    };
    if attack.needs.contains(&Need::Survivor) && got == Got::Ok && !output.is_held {
        return Got::Signal(libc::SIGKILL);
    }
    got
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::attack;
    use super::*;

    #[test]
    fn an_attackers_own_alarm_is_no_answer_of_a_ring() {
        let attack = attack::all().find(|attack| attack.name == "outside-symlink").unwrap();
        let nothing = || output::Output { bytes: Vec::new(), is_held: false };
        assert_eq!(judge_end(attack, ExitStatus::from_raw(libc::SIGALRM), &nothing()), Got::Late);
        assert_eq!(judge_end(attack, ExitStatus::from_raw(libc::SIGSYS), &nothing()), Got::Signal(libc::SIGSYS));
    }
}
