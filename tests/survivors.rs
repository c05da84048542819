//! Nothing survives a kill of any kind of tree, nor any kind of death of the supervisor. The kernel counts: the lists of the
//! agent's cgroups, and every process of the host whose environment holds the tree's mark.
//!
//! A short run is part of the tests; `AGT_SURVIVORS_KILLS` and `AGT_SURVIVORS_DEATHS` make it longer, and
//! `cargo bench -p agt-supervise --bench survivors` is the long one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Rig, Supervisor, quoted, unique, until};

/// How long a tree may take to be gone after its supervisor: after a kill of our own it must be gone at once.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// Tasks of the bomb in a tree whose supervisor dies: it is one of several there.
const SMALL_BOMB: usize = 40;
/// Names an agent's mark.
const MARK: &str = "SURVIVORS_MARK";

/// Forks without end and without exec, and does not stop where fork is refused.
const BOMB: &str = "exec perl -e 'fork while 1'";
const VFORK: &str = "import ctypes, os\nc = ctypes.CDLL(None)\nif os.fork() == 0:\n    c.vfork()\n    c.pause()\nopen('ready', 'w')\nc.pause()\n";
const THREADS: &str = "import threading, time\nfor i in range(30): threading.Thread(target=time.sleep, args=(1000,)).start()\nopen('ready', 'w')\n";

/// A kind of tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Children in the agent's own session.
    Plain,
    /// Each child leads a session of its own.
    Setsid,
    /// Daemons, whose parents are gone.
    DoubleFork,
    /// Everybody is stopped, the main process too.
    Stopped,
    /// Held by the freezer.
    Frozen,
    /// At its limit of tasks, and goes on.
    ForkBomb,
    /// Some of it sits in groups below the agent's.
    NestedGroups,
    /// Many threads.
    Threads,
    /// A parent that waits in the kernel for its vfork child.
    VforkHung,
    /// A health check is at work beside it.
    Checked,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Plain,
        Kind::Setsid,
        Kind::DoubleFork,
        Kind::Stopped,
        Kind::Frozen,
        Kind::ForkBomb,
        Kind::NestedGroups,
        Kind::Threads,
        Kind::VforkHung,
        Kind::Checked,
    ];

    /// The agent's command and other keys.
    fn keys(self) -> String {
        let sh = |script: &str| format!("command: [sh, -c, {}]\n", quoted(script));
        let python = |script: &str| format!("command: [python3, -c, {}]\n", quoted(script));
        match self {
            Kind::Plain | Kind::Frozen | Kind::NestedGroups => {
                sh("for i in 1 2 3 4 5; do sleep 1000 & done; touch ready; wait")
            }
            Kind::Setsid => sh("for i in 1 2 3 4 5; do setsid sleep 1000 & done; touch ready; wait"),
            Kind::DoubleFork => sh("for i in 1 2 3 4 5; do (setsid sleep 1000 &); done; touch ready; sleep 1000"),
            Kind::Stopped => sh("for i in 1 2 3 4 5; do sh -c 'kill -STOP $$' & done; touch ready; kill -STOP $$"),
            Kind::ForkBomb => sh(&format!("touch ready; {BOMB}")),
            Kind::Threads => python(THREADS),
            Kind::VforkHung => python(VFORK),
            Kind::Checked => {
                let health = "health: {command: [sh, -c, 'touch ready; sleep 1000'], interval: 900s, timeout: 900s}\n";
                format!("{}{health}", sh("sleep 1000"))
            }
        }
    }

    /// How many processes the whole tree has, at least.
    fn least(self) -> usize {
        match self {
            // How far it has come is seen by its refused forks: those that are on their way hold places in its limit.
            Kind::ForkBomb | Kind::Threads => 1,
            Kind::VforkHung | Kind::Checked => 3,
            _ => 6,
        }
    }
}

/// A way in which a supervisor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It alone.
    Alone,
    /// It alone, while its launcher and all inits are stopped: the watchdog is all that is left to act.
    WatchdogActs,
    /// The watchdog, and it so much later: while that is being replaced.
    WatchdogFirst(Duration),
    /// The watchdog and it, without a moment between.
    BothAtOnce,
    /// It alone, with its agents frozen.
    Frozen,
    /// The watchdog and it at once, with its agents frozen.
    FrozenBothAtOnce,
}

impl Death {
    /// All of them.
    pub const ALL: [Death; 8] = [
        Death::Alone,
        Death::WatchdogActs,
        Death::WatchdogFirst(Duration::ZERO),
        Death::WatchdogFirst(Duration::from_millis(1)),
        Death::WatchdogFirst(Duration::from_millis(5)),
        Death::BothAtOnce,
        Death::Frozen,
        Death::FrozenBothAtOnce,
    ];
}

/// What came of a run of one kind.
#[derive(Debug, Default)]
pub struct Found {
    /// Kills, or deaths.
    pub times: usize,
    /// Processes that the kernel counted in the trees before.
    pub processes: usize,
    /// Processes that were left after.
    pub survivors: usize,
}

/// Whether a living process's environment holds this. Forks have their parent's.
fn is_marked(pid: i32, value: &str) -> bool {
    let text = format!("{MARK}={value}\0");
    let all = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    all.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Every process of this host that is so marked, but for those that sit in another supervisor's groups: none of ours can get there,
/// and whoever reads the environment of a forking process waits for its memory, at the pace of its quota.
fn marked(value: &str, base: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let foreign = |pid: i32| {
        let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        own.lines().any(|line| line.contains("/agt-supervise-") && !line.contains(base))
    };
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| !foreign(*pid) && is_marked(*pid, value)).collect()
}

/// The name of the folder of a supervisor's groups.
fn base(groups: &[PathBuf]) -> String {
    let base = groups[0].ancestors().nth(2).and_then(Path::file_name).expect("BASE/agents/agent-NAME-LIFE");
    let base = base.to_str().expect("it is ASCII").to_owned();
    assert!(base.starts_with("agt-supervise-"), "{groups:?}");
    base
}

/// The agent's group in every hierarchy, as the kernel names them.
fn groups(pid: i32) -> Vec<PathBuf> {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let place = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let found = mounts.lines().find_map(|mount| {
            let fields: Vec<&str> = mount.split(' ').collect();
            let fits = match controllers {
                "" => fields[2] == "cgroup2",
                named => fields[2] == "cgroup" && named.split(',').all(|one| fields[3].split(',').any(|o| o == one)),
            };
            fits.then(|| fields[1].to_owned())
        })?;
        // Hierarchies in which it has no group of its own say nothing about it.
        path.rsplit('/').next()?.starts_with("agent-").then(|| PathBuf::from(format!("{found}{path}")))
    };
    own.lines().filter_map(place).collect()
}

/// Processes in a group and in those below it; a group that is gone has none.
fn members(group: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<i32> = text.lines().map(|pid| pid.parse().unwrap()).collect();
    for below in std::fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        all.extend(members(&below.path()));
    }
    all
}

/// How many processes the hierarchy that knows most of them has.
fn largest(groups: &[PathBuf]) -> usize {
    groups.iter().map(|group| members(group).len()).max().unwrap_or_default()
}

/// Who is left of a tree, by both counts: one by the groups' own lists, and once these are empty, one over the whole host.
fn left(mark: &str, groups: &[PathBuf]) -> Vec<i32> {
    let mut all: Vec<i32> = groups.iter().flat_map(|group| members(group)).collect();
    if all.is_empty() {
        all = marked(mark, &base(groups));
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A supervisor with its agents, for many rounds.
struct Stage {
    rig: Rig,
    mark: String,
    files: Vec<PathBuf>,
}

impl Stage {
    fn new(agents: &[(&str, String)]) -> Stage {
        let rig = Rig::new();
        let mark = unique("mark");
        let write = |(name, keys): &(&str, String)| {
            // Each has a folder for itself: so `ready` is its own.
            std::fs::create_dir(rig.work.join(name)).unwrap();
            let env = format!("env: {{set: {{{MARK}: {mark}-{name}}}}}\n");
            let path = rig.work.join(name).join("agent.yaml");
            std::fs::write(&path, format!("version: 1\nname: {name}\nring: 2\n{env}{keys}")).unwrap();
            path
        };
        let files = agents.iter().map(write).collect();
        Stage { rig, mark, files }
    }

    fn mark_of(&self, name: &str) -> String {
        format!("{}-{name}", self.mark)
    }

    fn start(&self) -> Supervisor {
        let log = std::fs::File::create(self.rig.dir.path().join("stderr")).unwrap();
        let mut command = self.rig.command(["run"]);
        command.args(&self.files).stdout(std::process::Stdio::null()).stderr(log);
        Supervisor { child: Some(command.spawn().unwrap()) }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.rig.dir.path().join("stderr")).unwrap_or_default()
    }

    fn main_pid(&self, name: &str) -> Option<i32> {
        let shown = self.rig.output(["status", name, "--json"]);
        let value: serde_json::Value = serde_json::from_str(&shown.stdout).ok()?;
        let agent = &value["agents"][0];
        let pid = (agent["state"] == "running").then(|| agent["pid"].as_i64())??;
        i32::try_from(pid).ok()
    }

    /// Waits for a tree to stand in full; its groups.
    fn stand(&self, name: &str, kind: Kind) -> Vec<PathBuf> {
        let (ready, mark) = (self.rig.work.join(name).join("ready"), self.mark_of(name));
        until(&format!("{name} is ready; {}", self.said()), || ready.exists() && self.main_pid(name).is_some());
        let groups = groups(self.main_pid(name).expect("it runs"));
        assert!(!groups.is_empty(), "it has a group of its own");
        until(&format!("{name} stands; {}", self.said()), || {
            let standing = groups.iter().flat_map(|group| members(group)).collect::<std::collections::BTreeSet<i32>>();
            match kind {
                Kind::ForkBomb => has_met_its_task_limit(&groups),
                // By both counts: what is looked for in the end is seen to be there now.
                _ => standing.iter().filter(|pid| is_marked(**pid, &mark)).count() >= kind.least(),
            }
        });
        groups
    }

    fn act(&self, verb: &str, name: &str) {
        let yes: &[&str] = if verb == "kill" { &["--yes"] } else { &[] };
        let done = self.rig.output([&[verb, name, "--reason", "test"], yes].concat());
        assert_eq!(done.code, 0, "{verb} {name}: {}\n{}", done.stderr, self.said());
    }
}

/// Half of the tree goes two groups down, in every hierarchy.
fn nest(groups: &[PathBuf]) {
    let pids = members(&groups[0]);
    for group in groups {
        let below = group.join("below").join("it");
        std::fs::create_dir_all(&below).unwrap();
        for (place, pid) in [(group.join("below"), pids[0]), (below.clone(), pids[1]), (below, pids[2])] {
            std::fs::write(place.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}

/// Kills trees of one kind.
pub fn kills(kind: Kind, times: usize) -> Found {
    let stage = Stage::new(&[("tree", kind.keys()), ("sibling", "command: [sleep, '1000']\n".to_owned())]);
    let _supervisor = stage.start();
    let mark = stage.mark_of("tree");
    let mut found = Found::default();
    until(&format!("the sibling stands; {}", stage.said()), || stage.main_pid("sibling").is_some());
    let sibling = stage.main_pid("sibling");
    for _ in 0..times {
        let groups = stage.stand("tree", kind);
        match kind {
            Kind::Frozen => stage.act("freeze", "tree"),
            Kind::NestedGroups => nest(&groups),
            _ => {}
        }
        let before = largest(&groups);
        assert!(before >= kind.least(), "{kind:?}: {before} in {groups:?}");
        found.processes += before;
        std::fs::remove_file(stage.rig.work.join("tree").join("ready")).unwrap();
        stage.act("kill", "tree");
        let survivors = left(&mark, &groups);
        assert!(survivors.is_empty(), "{kind:?}: {survivors:?} survived\n{}", stage.said());
        found.survivors += survivors.len();
        found.times += 1;
        stage.act("revive", "tree");
    }
    assert_eq!(stage.main_pid("sibling"), sibling, "nobody else was touched");
    assert_eq!(stage.rig.output(["kill", "--all", "--reason", "test", "--yes"]).code, 0);
    found
}

/// By the kernel's own count of forks that it refused.
fn has_met_its_task_limit(groups: &[PathBuf]) -> bool {
    groups.iter().any(|group| {
        let events = std::fs::read_to_string(group.join("pids.events")).unwrap_or_default();
        events.lines().any(|line| line.strip_prefix("max ").is_some_and(|count| count != "0"))
    })
}

fn children(of: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let children = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks
        .flat_map(|task| children(task).split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// What a supervisor has forked for itself: pids, with when each began.
struct Helpers {
    watchdog: i32,
    launcher: i32,
    inits: Vec<i32>,
    began: Vec<(i32, String)>,
}

impl Helpers {
    fn of(supervisor: &Supervisor) -> Helpers {
        let first = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        let pids = children(supervisor.pid().as_raw());
        let called = |name: &str| *pids.iter().find(|pid| first(pid) == name).unwrap_or_else(|| panic!("no {name}"));
        let (watchdog, launcher) = (called("agt-watchdog"), called("agt-launcher"));
        let inits = children(launcher);
        let all = inits.iter().copied().chain([watchdog, launcher]);
        let began = all.filter_map(|pid| Some((pid, began(pid)?))).collect();
        Helpers { watchdog, launcher, inits, began }
    }

    fn are_gone(&self) -> bool {
        self.began.iter().all(|(pid, then)| began(*pid).is_none_or(|now| now != *then))
    }
}

/// When a process began, in ticks since the boot; nothing for one that is dead.
fn began(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    (!matches!(fields[0], "Z" | "X")).then(|| fields[19].to_owned())
}

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Kills supervisors in one way.
pub fn deaths(way: Death, times: usize) -> Found {
    let bomb = format!("limits: {{tasks: {SMALL_BOMB}}}\n{}", Kind::ForkBomb.keys());
    let daemons = "for i in 1 2 3; do (setsid sleep 1000 &); sh -c 'kill -STOP $$' & done; touch ready; sleep 1000";
    let mixed = format!("command: [sh, -c, {}]\n", quoted(daemons));
    let agents = [
        ("bomb", bomb, Kind::ForkBomb),
        ("mixed", mixed, Kind::Stopped),
        ("checked", Kind::Checked.keys(), Kind::Checked),
    ];
    let stage = Stage::new(&agents.each_ref().map(|(name, keys, _)| (*name, keys.clone())));
    let mut found = Found::default();
    for _ in 0..times {
        let supervisor = stage.start();
        let standing = agents.each_ref().map(|(name, _, kind)| (*name, stage.stand(name, *kind)));
        found.processes += standing.iter().map(|(_, groups)| largest(groups)).sum::<usize>();
        let helpers = Helpers::of(&supervisor);
        assert!(helpers.inits.len() >= agents.len(), "each agent has an init");
        let stopped = die(&stage, &supervisor, way, &helpers, &agents.each_ref().map(|(name, ..)| *name));
        drop(supervisor);
        let count = || standing.iter().map(|(name, groups)| left(&stage.mark_of(name), groups).len()).sum::<usize>();
        let deadline = Instant::now() + GONE_WITHIN;
        while count() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(count(), 0, "{way:?}: {standing:?} survived");
        found.survivors += count();
        found.times += 1;
        stopped.iter().for_each(|pid| send(*pid, Signal::SIGKILL));
        until("what it had forked for itself is gone too", || helpers.are_gone());
        for (name, ..) in &agents {
            std::fs::remove_file(stage.rig.work.join(name).join("ready")).unwrap();
        }
    }
    found
}

/// Ends it; whom we have stopped for it.
fn die(stage: &Stage, supervisor: &Supervisor, way: Death, helpers: &Helpers, agents: &[&str]) -> Vec<i32> {
    if matches!(way, Death::Frozen | Death::FrozenBothAtOnce) {
        agents.iter().for_each(|name| stage.act("freeze", name));
    }
    let mut stopped = Vec::new();
    match way {
        Death::Alone | Death::Frozen => {}
        Death::WatchdogActs => {
            stopped = helpers.inits.iter().copied().chain([helpers.launcher]).collect();
            stopped.iter().for_each(|pid| send(*pid, Signal::SIGSTOP));
        }
        Death::WatchdogFirst(after) => {
            send(helpers.watchdog, Signal::SIGKILL);
            std::thread::sleep(after);
        }
        Death::BothAtOnce | Death::FrozenBothAtOnce => {
            // It must not get to start another one between the two.
            supervisor.signal(Signal::SIGSTOP);
            send(helpers.watchdog, Signal::SIGKILL);
        }
    }
    supervisor.signal(Signal::SIGKILL);
    stopped
}

/// This many of all, as even as can be.
fn share(all: usize, kinds: usize, index: usize) -> usize {
    all / kinds + usize::from(index < all % kinds)
}

fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().map_or(usual, |text| text.parse().expect("a number"))
}

/// Kills of every kind, told one by one.
pub fn all_kills(usual: usize) -> Found {
    let times = number("AGT_SURVIVORS_KILLS", usual);
    sum(Kind::ALL
        .iter()
        .enumerate()
        .map(|(index, kind)| (format!("kill {kind:?}"), kills(*kind, share(times, Kind::ALL.len(), index)))))
}

/// Deaths of every kind, told one by one.
pub fn all_deaths(usual: usize) -> Found {
    let times = number("AGT_SURVIVORS_DEATHS", usual);
    sum(Death::ALL
        .iter()
        .enumerate()
        .map(|(index, way)| (format!("supervisor dies: {way:?}"), deaths(*way, share(times, Death::ALL.len(), index)))))
}

fn sum(all: impl Iterator<Item = (String, Found)>) -> Found {
    all.fold(Found::default(), |sum, (what, found)| {
        println!("{what:36} times={} processes={} survivors={}", found.times, found.processes, found.survivors);
        Found {
            times: sum.times + found.times,
            processes: sum.processes + found.processes,
            survivors: sum.survivors + found.survivors,
        }
    })
}

#[test]
fn kills_of_every_kind_leave_nobody() {
    if crate::support::needs_root("kills_of_every_kind_leave_nobody") {
        let found = all_kills(100);
        assert!(found.times >= Kind::ALL.len() && found.survivors == 0, "{found:?}");
    }
}

#[test]
fn deaths_of_the_supervisor_of_every_kind_leave_nobody() {
    if crate::support::needs_root("deaths_of_the_supervisor_of_every_kind_leave_nobody") {
        let found = all_deaths(20);
        assert!(found.times >= Death::ALL.len() && found.survivors == 0, "{found:?}");
    }
}
