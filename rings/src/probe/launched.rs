//! One attacker in its ring: spec, plan, control group, launch, and what it got.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::answering::{self, Answering};
use super::attack::{Attack, Got, Squeeze, hogs};
use super::controls;
use super::scene::Scene;
use super::session::{GONE_WITHIN, OWN_ID, Session};
use super::tree::{SOCKETS, Tree};
use super::{ATTACK_NAME, Error, Layer, layer, output};
use crate::builtin;
use crate::cgroup::Group;
use crate::launch::{Checker, Exit, Running, Streams};
use crate::names::Rules;
use crate::plan::{Plan, Root};
use crate::report::Gap;
use crate::ring::Ring;
use crate::spec::{Access, Check, Enforcement, FileRule, Limits, Listen, ModelAccess, Spec};

/// What the supervisor finds in a workdir like the decoys' one.
const REPOSITORIES: [&str; 3] = ["work/.git", "work/vendor/.git", "work/plain/.git"];
const PROTECTED: [&str; 11] = [
    "work/agent.yaml",
    "work/.git/hooks",
    "work/.git/config",
    "work/.git/commondir",
    "work/setuid",
    "work/.vscode",
    "work/.claude",
    "work/.mcp.json",
    "work/.envrc",
    "work/.bashrc",
    "work/vendor/.git/hooks",
];

/// How long a neighbour may take to say its first word, on the busiest of machines.
const SPEAKS_WITHIN: Duration = Duration::from_secs(60);

/// What to launch.
pub(super) struct Order {
    /// Which part it plays.
    pub(super) part: &'static str,
    /// Which limit is lowered.
    pub(super) squeeze: Squeeze,
    /// Its health check.
    pub(super) check: Option<Check>,
    /// Whether R3 has access to models.
    pub(super) models: ModelAccess,
}

impl Session {
    /// The ring's own limits with one squeezed, as far as they can be kept here.
    pub(super) fn limits(&self, squeeze: Squeeze, ring: Ring) -> Limits {
        use crate::cgroup::Controller;
        let mut limits = builtin::definition(ring).limits;
        match squeeze {
            Squeeze::None | Squeeze::Disk => {}
            Squeeze::Tasks => limits.tasks = Some(hogs::TASKS_GIVEN),
            Squeeze::Memory => limits.memory_bytes = Some(hogs::MEMORY_GIVEN),
            Squeeze::Cpu => limits.cpu_millis = Some(hogs::CPU_MILLIS_GIVEN),
        }
        let keeps = |controller| self.base.as_ref().is_some_and(|base| base.keeps(controller));
        Limits {
            memory_bytes: limits.memory_bytes.filter(|_| keeps(Controller::Memory)),
            cpu_millis: limits.cpu_millis.filter(|_| keeps(Controller::Cpu)),
            tasks: limits.tasks.filter(|_| keeps(Controller::Pids)),
        }
    }

    fn spec(&self, order: &Order, ring: Ring, tree: &Tree) -> Spec {
        let rule = |path: PathBuf, access| FileRule { path, access };
        Spec {
            argv: vec![ATTACK_NAME.into(), order.part.into()],
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            files: vec![
                rule(self.program.clone(), Access::Read),
                rule(tree.path("readonly"), Access::Read),
                rule(tree.path("installed"), Access::Read),
                rule(tree.path("work"), Access::Write),
            ],
            protect: PROTECTED.map(|part| tree.path(part)).to_vec(),
            sockets: SOCKETS.map(|part| tree.path(part)).to_vec(),
            names: Some(Rules {
                roots: vec![tree.path("work")],
                workdir: tree.path("work"),
                paths: PROTECTED.map(|part| tree.path(part)).into(),
                repositories: REPOSITORIES.map(|part| tree.path(part)).to_vec(),
                ..Rules::default()
            }),
            hide: vec![tree.path("state"), tree.path("work/.state")],
            own_id: OWN_ID,
            check: order.check.clone(),
            listen: match order.models {
                ModelAccess::Granted => vec![Listen { address: answering::inside() }],
                ModelAccess::None => Vec::new(),
            },
            models: order.models,
            ..Spec::new("probe", ring, &self.program, tree.path("work"))
        }
    }

    /// In full where the host can, else with what there is.
    fn compile(&self, order: &Order, ring: Ring, tree: &Tree) -> Result<(Plan, Option<Vec<Gap>>), Error> {
        let spec = self.spec(order, ring, tree);
        match self.launcher.compile(&spec)? {
            Ok(plan) => Ok((plan, None)),
            Err(refused) => {
                let spec = Spec { enforcement: Enforcement::BestEffort, ..spec };
                let plan = self.launcher.compile(&spec)?.expect("best effort is never refused");
                Ok((plan, Some(refused.gaps)))
            }
        }
    }

    pub(super) fn launch(
        &self,
        order: &Order,
        ring: Ring,
        tree: &Tree,
        scene: Option<&mut Scene>,
    ) -> Result<Launched, Error> {
        let (mut plan, gaps) = self.compile(order, ring, tree)?;
        if let (Squeeze::Disk, Root::Built { bytes, .. }) = (order.squeeze, &mut plan.root) {
            *bytes = hogs::DISK_GIVEN;
        }
        for layer in &self.without {
            layer::take_out(&mut plan, *layer, self.launcher.host());
        }
        if let Some(scene) = scene {
            if !matches!(plan.root, Root::Built { .. }) {
                // Without a root of its own there is no private /tmp and HOME either.
                let scratch = || tree.path("scratch");
                (scene.own, scene.home, scene.shared) = (scratch(), scratch(), scratch());
            }
            if order.models == ModelAccess::Granted {
                scene.model = answering::PORT;
            }
            plan.argv.push(serde_json::to_string(scene).expect("a scene is plain data").into());
        }
        let pipes = |e: nix::errno::Errno| Error::decoy("make a pipe")(e.into());
        let (leash_read, leash) = pipe2(OFlag::O_CLOEXEC).map_err(pipes)?;
        let (output, out_write) = pipe2(OFlag::O_CLOEXEC).map_err(pipes)?;
        let null = fs::File::options().write(true).open("/dev/null").map_err(Error::decoy("open /dev/null"))?;
        let streams = Streams { stdin: leash_read, stdout: out_write, stderr: null.into() };
        let name = format!("probe-{}", self.count.fetch_add(1, Ordering::Relaxed));
        let base = self.base.as_ref().filter(|_| !self.without.contains(&Layer::Cgroup));
        let group = base.map(|base| base.create(&name, &self.limits(order.squeeze, ring))).transpose()?;
        let join = group.as_ref().map(Group::join).transpose()?.unwrap_or_default();
        let mut running = self.launcher.launch(&plan, &streams, &join)?;
        let checker = running.take_checker();
        let answering = running.take_listeners().into_iter().map(Answering::start).collect::<Result<_, _>>();
        let answering = answering.map_err(Error::decoy("answer at the listener in the ring"))?;
        Ok(Launched { running, checker, group, output, leash: Some(leash), gaps, keep: None, _answering: answering })
    }
}

/// A launched attacker.
pub(super) struct Launched {
    pub(super) running: Running,
    checker: Option<Checker>,
    group: Option<Group>,
    output: OwnedFd,
    /// Its input: what it left behind ends when this closes.
    leash: Option<OwnedFd>,
    /// What its plan could not enforce.
    pub(super) gaps: Option<Vec<Gap>>,
    /// Its decoys, where they must live as long as it.
    pub(super) keep: Option<Tree>,
    /// Who answers at its listeners.
    _answering: Vec<Answering>,
}

impl Launched {
    /// Waits so long for its end, and says what it got.
    pub(super) fn finish(mut self, attack: &Attack, within: Duration) -> Result<Got, Error> {
        let failed = |e| Error::decoy(format!("wait for {}", attack.name))(e);
        let checker = self.checker.take();
        // The check runs until the attacker has ended, and its namespace with it: how it ends is of no interest.
        let in_time = std::thread::scope(|scope| {
            checker.as_ref().map(|checker| scope.spawn(|| checker.check(within)));
            let in_time = readable(self.running.channel(), within).map_err(failed)?;
            if !in_time {
                // Already ended between the two calls: as well.
                let _gone = self.running.kill_init();
            }
            Ok::<bool, Error>(in_time)
        })?;
        let exit = self.running.read_exit().map_err(failed)?;
        self.running.wait_gone(GONE_WITHIN).map_err(failed)?;
        let output = output::collect(&self.output).map_err(failed)?;
        let status = match exit {
            Exit::Ended(usage) => ExitStatus::from_raw(usage.status),
            // Nothing but a SIGKILL from outside (here the memory limit) ends an init.
            Exit::Taken => ExitStatus::from_raw(libc::SIGKILL),
        };
        self.leash = None;
        self.clean()?;
        Ok(if in_time { controls::judge_end(attack, status, &output) } else { Got::Late })
    }

    /// Waits until it has said something.
    pub(super) fn await_word(&self) -> Result<(), Error> {
        let failed = Error::decoy("wait for a neighbour");
        match readable(self.output.as_fd(), SPEAKS_WITHIN) {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(std::io::ErrorKind::TimedOut.into())),
            Err(e) => Err(failed(e)),
        }
    }

    /// Ends a neighbour.
    pub(super) fn end(mut self) -> Result<(), Error> {
        self.leash = None;
        let failed = |e| Error::decoy("wait for a neighbour")(e);
        // It may have been stopped by an attack that got through.
        let _gone = self.running.kill_init();
        self.running.wait_gone(GONE_WITHIN).map_err(failed)?;
        self.keep = None;
        self.clean()
    }

    fn clean(self) -> Result<(), Error> {
        if let Some(group) = self.group {
            group.kill(GONE_WITHIN).map(drop)?;
            group.remove(GONE_WITHIN)?;
        }
        Ok(())
    }
}

fn readable(fd: BorrowedFd<'_>, within: Duration) -> std::io::Result<bool> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
