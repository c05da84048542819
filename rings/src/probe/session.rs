//! One probe from its first decoy to the last: a launcher, a control group, and for each ring and attack a control and a launch.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answering::Answering;
use super::attack::{self, Attack, Got, Need, Squeeze, stand};
use super::controls::{Control, patience};
use super::decoys::{self, Directory, Standing, Target};
use super::judge::{Ended, Run, judge};
use super::launched::{Launched, Order};
use super::scene::Scene;
use super::tree::{Stock, Tree};
use super::{ATTACK_NAME, Error, Layer, Options, Probed, Verdict};
use crate::builtin;
use crate::cgroup::Base;
use crate::cgroup::scope::{self, Asked, Claimed};
use crate::host::{Controllers, Privilege};
use crate::launch::Launcher;
use crate::plan::Ids;
use crate::report::Gap;
use crate::ring::Ring;
use crate::spec::{Check, ModelAccess};

/// Attacks that run at once: a launch is mostly waiting for the kernel (namespaces and groups take grace periods to go).
const WORKERS: usize = 8;
/// How long an attack is given: none takes a tenth of it on a machine of its own.
const GIVEN: Duration = Duration::from_secs(20);
/// And how long where it came to no end in that and is tried again, alone.
const GIVEN_AGAIN: Duration = Duration::from_secs(60);
/// How long ended processes may take to be gone.
pub(super) const GONE_WITHIN: Duration = Duration::from_secs(10);
/// The uid of the probe's agents where the caller is root: the last of the range, so that it meets no real agent's.
pub(super) const OWN_ID: u32 = builtin::OWN_ID_BASE + builtin::OWN_ID_COUNT - 1;

/// Probes rings one after another, the attacks of one a few at a time.
pub(super) fn run(rings: &[Ring], options: &Options) -> Result<Probed, Error> {
    let session = Session::open(options)?;
    let mut probed = Probed { findings: Vec::new(), took: Vec::new(), gaps: Vec::new() };
    let mut worked = Ok(());
    for &ring in rings {
        worked = session.ring(ring, options, &mut probed);
        if worked.is_err() {
            break;
        }
    }
    // Also after a failure: nothing of ours is left on the host.
    let closed = session.close();
    worked.and(closed).map(|()| probed)
}

pub(super) struct Session {
    pub(super) launcher: Launcher,
    pub(super) base: Option<Base>,
    pub(super) standing: Standing,
    /// What answers at the port of a model's route, outside.
    model: Answering,
    pub(super) program: PathBuf,
    pub(super) count: AtomicUsize,
    pub(super) controls: Mutex<HashMap<(&'static str, Option<u32>), Control>>,
    protocols: String,
    pub(super) without: Vec<Layer>,
    pub(super) trees: Stock,
    _directory: Directory,
}

impl Session {
    fn open(options: &Options) -> Result<Session, Error> {
        let directory = Directory::make(options.directory.as_deref())?;
        let standing = Standing::raise(&directory.path)?;
        let program = std::env::current_exe().map_err(Error::decoy("find our own executable"))?;
        let (base, controllers, _) = control_groups()?;
        // After the base: the launcher is born in the group that we moved to.
        let launcher = Launcher::start_by(options.by, controllers)?;
        // The first thread: what is planted in the environment is planted before there is one.
        let model = Answering::outside().map_err(Error::decoy("answer at a port"))?;
        let protocols = fs::read_to_string("/proc/net/protocols").map_err(Error::decoy("read /proc/net/protocols"))?;
        Ok(Session {
            launcher,
            base,
            standing,
            model,
            program,
            count: AtomicUsize::new(0),
            controls: Mutex::new(HashMap::new()),
            protocols,
            without: options.without.clone(),
            trees: Stock::new(directory.path.clone()),
            _directory: directory,
        })
    }

    fn close(self) -> Result<(), Error> {
        drop(self.launcher);
        if let Some(base) = self.base {
            base.agents().kill(GONE_WITHIN).map(drop)?;
            base.close()?;
        }
        Ok(())
    }

    /// All attacks in one ring.
    fn ring(&self, ring: Ring, options: &Options, probed: &mut Probed) -> Result<(), Error> {
        let index = usize::from(ring.number());
        let wanted = |attack: &&'static Attack| {
            attack.expected[index].is_some()
                && (options.only.is_empty() || options.only.iter().any(|name| name == attack.name))
        };
        // Hogs come one by one after the rest: what they get depends on who else works.
        let attacks: Vec<&'static Attack> = attack::all().filter(wanted).collect();
        let (quiet, hogs): (Vec<_>, Vec<_>) = attacks.into_iter().partition(|a| a.squeeze == Squeeze::None);
        let gaps = Mutex::new(Vec::new());
        let side_by_side = self.at_once(&quiet, WORKERS, GIVEN, ring, &gaps);
        for ((took, ended), attack) in
            side_by_side.into_iter().chain(self.at_once(&hogs, 1, GIVEN, ring, &gaps)).zip(quiet.iter().chain(&hogs))
        {
            let (took, finding) = match ended? {
                Ended::Found(finding) => (took, finding),
                // A machine under load is no finding. By now nothing of ours runs beside it.
                Ended::Late(_) => {
                    let again = self.at_once(&[attack], 1, GIVEN_AGAIN, ring, &gaps);
                    let (more, ended) = again.into_iter().next().expect("one for each attack");
                    (took + more, ended?.finding())
                }
            };
            probed.findings.push(finding);
            probed.took.push(took);
        }
        let gaps = gaps.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !gaps.is_empty() {
            probed.gaps.push((ring, gaps));
        }
        Ok(())
    }

    /// Runs attacks, `workers` at a time, each for so long at most; what came of them comes in the order of the attacks.
    fn at_once(
        &self,
        attacks: &[&'static Attack],
        workers: usize,
        given: Duration,
        ring: Ring,
        gaps: &Mutex<Vec<Gap>>,
    ) -> Vec<(Duration, Result<Ended, Error>)> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut mine = Vec::new();
            while let Some((at, attack)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                attacks.get(at).map(|attack| (at, *attack))
            } {
                let began = Instant::now();
                let ended = self.one(attack, given, ring, gaps);
                mine.push((at, began.elapsed(), ended));
            }
            mine
        };
        let mut found: Vec<(usize, Duration, Result<Ended, Error>)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("workers return their errors")).collect()
        });
        found.sort_by_key(|(at, ..)| *at);
        found.into_iter().map(|(_, took, ended)| (took, ended)).collect()
    }

    fn one(
        &self,
        attack: &'static Attack,
        given: Duration,
        ring: Ring,
        gaps: &Mutex<Vec<Gap>>,
    ) -> Result<Ended, Error> {
        let expected = attack.expected[usize::from(ring.number())].expect("only what is expected is asked");
        let missing = attack.needs.iter().find_map(|need| match need {
            Need::Protocol(name) if !self.has_protocol(name) => {
                Some(format!("{name} is not loaded here; to ask would load a kernel module"))
            }
            Need::Device(name) if !has_device(name) => {
                Some(format!("the device {name} is not there; to open it could load a kernel module"))
            }
            Need::Check if self.launcher.host().landlock_abi.is_none() => Some(
                "no Landlock here: nothing else keeps an agent from its own health check, which it could as well answer falsely"
                    .to_owned(),
            ),
            Need::Attendant if !self.launcher.host().notify.is_yes() => {
                Some("no seccomp notification here: the filter answers by itself".to_owned())
            }
            Need::SignalScope if self.launcher.host().landlock_abi.is_none_or(|abi| abi < 6) => {
                Some("Landlock has no scope for signals before ABI 6".to_owned())
            }
            Need::Models if !self.launcher.host().namespaces.is_yes() => {
                Some("no network namespace here, so R3 is given no access to models".to_owned())
            }
            Need::OwnUid if self.agent(ring).is_none() => {
                Some("without root the agent has its user's uid, and with it that user's files".to_owned())
            }
            _ => None,
        });
        if let Some(missing) = missing {
            let got = Got::Setup(missing);
            let control = Control { user: "nobody".to_owned(), got: got.clone() };
            let run = Run { attack, ring, expected, got, has_changed: false, control: &control };
            return Ok(Ended::Found(judge(&run)));
        }
        let control = self.control(attack, ring, given)?;
        if !control.reaches(attack) {
            // What shows nothing need not be launched.
            let got = Got::Setup("the control did not get through".to_owned());
            let finding = judge(&Run { attack, ring, expected, got, has_changed: false, control: &control });
            return Ok(if control.got == Got::Late { Ended::Late(finding) } else { Ended::Found(finding) });
        }
        let (got, has_changed) = self.confined(attack, given, ring, gaps)?;
        let is_late = got == Got::Late;
        let mut finding = judge(&Run { attack, ring, expected, got, has_changed, control: &control });
        if finding.verdict == Verdict::Fail {
            let gaps = gaps.lock().unwrap_or_else(PoisonError::into_inner);
            let missing: Vec<String> = gaps.iter().map(|gap| gap.protection.to_string()).collect();
            if !missing.is_empty() {
                finding.reason = format!("{}; not enforced here: {}", finding.reason, missing.join(", "));
            }
        }
        Ok(if is_late { Ended::Late(finding) } else { Ended::Found(finding) })
    }

    fn has_protocol(&self, name: &str) -> bool {
        self.protocols.lines().any(|line| line.split_whitespace().next() == Some(name))
    }

    /// The uid that this ring's agents get, when we are root.
    pub(super) fn agent(&self, ring: Ring) -> Option<Ids> {
        let is_root = self.launcher.host().privilege == Privilege::Root;
        (is_root && ring != Ring::R0).then_some(Ids { uid: OWN_ID, gid: OWN_ID })
    }

    /// A datagram that nobody got was sent to nobody.
    pub(super) fn witnessed(&self, attack: &Attack, got: Got) -> Got {
        let unseen =
            attack.needs.contains(&Need::Datagram) && got == Got::Ok && !self.standing.has_datagram(attack.name);
        if unseen { Got::Nothing("it never arrived".to_owned()) } else { got }
    }

    pub(super) fn tree(&self, agent: Option<Ids>) -> Result<Tree, Error> {
        self.trees.take(agent).map_err(Error::decoy("make a tree of decoys"))
    }

    pub(super) fn scene(&self, ring: Ring, tree: &Tree, victim: Option<&Target>, given: Duration) -> Scene {
        Scene {
            program: self.program.clone(),
            outside: tree.path("outside"),
            installed: tree.path("installed"),
            readonly: tree.path("readonly"),
            work: tree.path("work"),
            state: tree.path("state"),
            own: PathBuf::from("/tmp"),
            home: PathBuf::from(builtin::HOME),
            shared: PathBuf::from("/dev/shm"),
            services: self.standing.services.clone(),
            resolver: decoys::resolver(),
            release_agent: self.base.as_ref().and_then(release_agent),
            socket: self.standing.socket.clone(),
            abstract_name: self.standing.abstract_name.clone(),
            tcp: self.standing.tcp,
            model: self.model.port(),
            tcp6: self.standing.tcp6,
            udp: self.standing.udp.local_addr().map_or(0, |address| address.port()),
            stub: self.standing.stub.local_addr().map_or(0, |address| address.port()),
            own_address: decoys::own_address(),
            interface: decoys::interface(),
            ipc_key: self.standing.ipc.key,
            queue: self.standing.ipc.queue.clone(),
            handle: attack::handle_of(&tree.path("outside/secret")),
            cgroup: self.base.as_ref().map_or_else(Vec::new, cgroup_files),
            victim: victim.map(|target| target.victim),
            neighbour: None,
            reaper: 1,
            open_files: builtin::definition(ring).open_files,
            seconds: u32::try_from(given.as_secs()).unwrap_or(u32::MAX),
        }
    }

    /// Launches an attack in its ring; what it got, and whether a decoy that it must not change has changed.
    fn confined(
        &self,
        attack: &'static Attack,
        given: Duration,
        ring: Ring,
        gaps: &Mutex<Vec<Gap>>,
    ) -> Result<(Got, bool), Error> {
        let agent = self.agent(ring);
        let tree = self.tree(agent)?;
        let victim = self.victim(attack, agent, &tree)?;
        let neighbour = self.neighbour(attack, ring)?;
        let mut scene = self.scene(ring, &tree, victim.as_ref(), given);
        scene.neighbour = neighbour.as_ref().map(|launched| launched.running.pid());
        let before = tree.look();
        if attack.needs.contains(&Need::Datagram) {
            self.standing.has_datagram(attack.name);
        }
        if self.without.contains(&Layer::Pid) {
            // There number 1 is the host's init.
            scene.reaper = victim.as_ref().map_or(1, |target| target.victim.pid);
        }
        let check = || Check { program: self.program.clone(), argv: vec![ATTACK_NAME.into(), stand::CHECKED.into()] };
        let check = attack.needs.contains(&Need::Check).then(check);
        let order = Order { part: attack.name, squeeze: attack.squeeze, check, models: attack.models() };
        let launched = match self.launch(&order, ring, &tree, Some(&mut scene)) {
            Err(Error::Launch(e)) if !self.without.is_empty() => {
                let mut causes = std::iter::successors(Some(&e as &dyn std::error::Error), |e| e.source());
                let text: Vec<String> = causes.by_ref().map(ToString::to_string).collect();
                return Ok((
                    Got::Setup(format!("without that layer it can't be launched: {}", text.join(": "))),
                    false,
                ));
            }
            launched => launched?,
        };
        if let Some(missing) = launched.gaps.clone() {
            *gaps.lock().unwrap_or_else(PoisonError::into_inner) = missing;
        }
        let got = self.witnessed(attack, launched.finish(attack, patience(&scene))?);
        if let Some(neighbour) = neighbour {
            neighbour.end()?;
        }
        drop(victim);
        let has_changed = tree.look() != before;
        self.trees.give_back(tree);
        Ok((got, has_changed))
    }

    /// Another agent in the same ring (R2 for R0's sake), with its secret in place.
    pub(super) fn neighbour(&self, attack: &Attack, ring: Ring) -> Result<Option<Launched>, Error> {
        if !attack.needs.contains(&Need::Neighbour) {
            return Ok(None);
        }
        let tree = self.tree(self.agent(ring))?;
        let order = Order { part: stand::NEIGHBOUR, squeeze: Squeeze::None, check: None, models: ModelAccess::None };
        let mut launched = self.launch(&order, ring, &tree, None)?;
        launched.keep = Some(tree);
        launched.await_word()?;
        Ok(Some(launched))
    }
}

/// A group of our own below which the agents live, where there can be one.
pub(super) fn control_groups() -> Result<(Option<Base>, Controllers, Asked), Error> {
    match scope::claim(&format!("probe-{}", std::process::id())) {
        Ok(Claimed { layout, base, asked }) => {
            let controllers = Controllers::from_base(&layout, &base).with(&asked);
            Ok((Some(base), controllers, asked))
        }
        Err((e @ crate::cgroup::Error::Unusable(_), asked)) => {
            Ok((None, Controllers::none(&e.to_string()).with(&asked), asked))
        }
        Err((e, _)) => Err(e.into()),
    }
}

/// Whether the kernel lists it among its small devices.
fn has_device(name: &str) -> bool {
    let listed = fs::read_to_string("/proc/misc").unwrap_or_default();
    listed.lines().any(|line| line.split_whitespace().nth(1) == Some(name))
}

/// Stands in the root of each v1 hierarchy, and nowhere on v2.
fn release_agent(base: &Base) -> Option<PathBuf> {
    let legacy = base.agents().tree().legacy.first()?;
    legacy.dir.ancestors().map(|dir| dir.join("release_agent")).find(|path| path.exists())
}

/// The process list of the group over all agents, and a limit in it.
fn cgroup_files(base: &Base) -> Vec<PathBuf> {
    let tree = base.agents().tree();
    let dirs: Vec<&PathBuf> = tree.legacy.iter().map(|legacy| &legacy.dir).chain(&tree.unified).collect();
    let limits = ["memory.max", "memory.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us"];
    let limit = dirs.iter().flat_map(|dir| limits.iter().map(|name| dir.join(name))).find(|path| path.exists());
    dirs.first().map(|dir| dir.join("cgroup.procs")).into_iter().chain(limit).collect()
}
