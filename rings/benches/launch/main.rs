//! Launch cost, each as a ratio to posix_spawn of /bin/true, all interleaved in one run: the rings as `run` launches them (with
//! nothing kept, with the kept layer of the root, from a prepared init), the policy alone, and other sandboxes.
//!
//! `cargo bench -p agt-rings --bench launch [-- COUNT] [ungrouped]`; the last lines are `RATIO name=value`. `BWRAP` and `NSJAIL` name their
//! programs; one that is not there has no ratio. `ungrouped` joins no control group: an agent's has a low CPU weight, so on a
//! busy machine the launch path itself can only be seen without.

mod rivals;
mod rows;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agt_rings::cgroup::{Base, Group, Join, Layout};
use agt_rings::host::{Controllers, Support};
use agt_rings::launch::{Ahead, Alone, Exit, Launcher, Streams, become_launcher_if_asked};
use agt_rings::plan::{Plan, Root};
use agt_rings::ring::Ring;
use agt_rings::spec::{Access, FileRule, Limits, Spec};

use rows::Rows;

type Anything = Box<dyn std::error::Error>;

const WITHIN: Duration = Duration::from_secs(5);
/// What the kernel, caches and branch predictors need to settle.
const WARM_UP: usize = 10;
/// Between two launches where a gap is asked for: work that the kernel puts off after one is over by then.
const GAP: Duration = Duration::from_millis(20);

fn main() -> Result<(), Anything> {
    become_launcher_if_asked();
    let count: usize = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(300);
    let bench = Bench::open()?;
    println!("host: {:?}", bench.plain.host());
    let mut real = real(&bench, count)?;
    lower_bounding_set()?;
    let mut alone = policy(&bench, count, Duration::ZERO)?;
    let mut gap = policy(&bench, count.min(100), GAP)?;
    let ballast = vec![1u8; 2 << 30];
    let mut heavy = policy(&bench, count, Duration::ZERO)?;
    drop(std::hint::black_box(ballast));
    let mut threads = with_threads(64, || policy(&bench, count, Duration::ZERO))?;
    bench.close()?;
    real.report(&["r2_first", "r2_real", "r3_real", "r2_pool", "r3_pool", "r2_unheard", "r2_pool_unheard"]);
    alone.report(&["r2_core"]);
    gap.rename("r2_core", "r2_core_gap").report(&["r2_core_gap"]);
    heavy.rename("r2_core", "r2_core_2gb").report(&["r2_core_2gb"]);
    threads.rename("r2_core", "r2_core_64threads").report(&["r2_core_64threads"]);
    for rival in ["bwrap", "nsjail"] {
        real.faster("r3_real", rival, &format!("vs_{rival}_cold"));
        real.faster("r3_pool", rival, &format!("vs_{rival}_pool"));
    }
    Ok(())
}

/// Three launchers, each with another policy about what is prepared, over one base.
struct Bench {
    base: Base,
    plain: Launcher,
    layers: Launcher,
    pool: Launcher,
    workdir: PathBuf,
    groups: Groups,
}

enum Groups {
    Joined,
    Left,
}

impl Bench {
    fn open() -> Result<Bench, Anything> {
        let yes = Support::Yes;
        let controllers = Controllers {
            memory: yes.clone(),
            cpu: yes.clone(),
            tasks: yes.clone(),
            kill: yes,
            layout: "measured".into(),
        };
        let start = |ahead| -> Result<Launcher, Anything> {
            let launcher = Launcher::start(controllers.clone())?;
            launcher.prepare(ahead);
            Ok(launcher)
        };
        let (plain, layers, pool) = (start(Ahead::Nothing)?, start(Ahead::Layers)?, start(Ahead::Inits(3))?);
        let ours: Vec<i32> = [&plain, &layers, &pool].iter().map(|launcher| launcher.pid().cast_signed()).collect();
        let base = Base::open(&Layout::detect()?, &format!("bench-{}", std::process::id()), &ours)?;
        let left = std::env::args().any(|arg| arg == "ungrouped");
        let groups = if left { Groups::Left } else { Groups::Joined };
        Ok(Bench { base, plain, layers, pool, workdir: tempdir()?, groups })
    }

    fn close(self) -> Result<(), Anything> {
        drop((self.plain, self.layers, self.pool));
        self.base.close()?;
        Ok(std::fs::remove_dir_all(&self.workdir)?)
    }

    fn join(&self, group: &Group) -> Result<Join, Anything> {
        match self.groups {
            Groups::Joined => Ok(group.join()?),
            Groups::Left => Ok(Join::default()),
        }
    }

    fn group(&self, name: &str, limits: &Limits) -> Result<Group, Anything> {
        Ok(self.base.create(name, limits)?)
    }
}

/// From the request to the exit's word, as `run` sees it.
fn timed(bench: &Bench, launcher: &Launcher, plan: &Plan, name: &str) -> Result<Duration, Anything> {
    let group = bench.group(name, &plan.limits)?;
    let streams = Streams { stdin: null()?, stdout: null()?, stderr: null()? };
    let start = Instant::now();
    let running = launcher.launch(plan, &streams, &bench.join(&group)?)?;
    let exit = running.read_exit()?;
    let took = start.elapsed();
    if !matches!(exit, Exit::Ended(usage) if usage.status == 0) {
        return Err(format!("the agent ended with {exit:?}").into());
    }
    running.wait_gone(WITHIN)?;
    clear(group)?;
    Ok(took)
}

fn clear(group: Group) -> Result<(), Anything> {
    let _ = group.kill(WITHIN)?;
    Ok(group.remove(WITHIN)?)
}

fn real(bench: &Bench, count: usize) -> Result<Rows, Anything> {
    let plan =
        |launcher: &Launcher, ring| -> Result<Plan, Anything> { Ok(launcher.compile(&spec(ring, &bench.workdir))??) };
    let cases = [
        ("r2_first", &bench.plain, plan(&bench.plain, Ring::R2)?),
        ("r2_real", &bench.layers, plan(&bench.layers, Ring::R2)?),
        ("r3_real", &bench.layers, plan(&bench.layers, Ring::R3)?),
        ("r2_pool", &bench.pool, plan(&bench.pool, Ring::R2)?),
        ("r3_pool", &bench.pool, plan(&bench.pool, Ring::R3)?),
        ("r2_unheard", &bench.layers, unheard(plan(&bench.layers, Ring::R2)?)),
        ("r2_pool_unheard", &bench.pool, unheard(plan(&bench.pool, Ring::R2)?)),
    ];
    let rivals = rivals::found();
    let mut rows = Rows::default();
    for round in 0..count + WARM_UP {
        let mut add = |name: &str, took| {
            if round >= WARM_UP {
                rows.add(name, took)
            }
        };
        add("posix_spawn", rivals::spawned(&["/bin/true".into()])?);
        for (name, launcher, plan) in &cases {
            let ready = launcher.ready();
            rivals::spawned(&["/bin/true".into()])?;
            add(name, timed(bench, launcher, plan, &format!("{name}-{round}"))?);
            settle(bench, launcher, ready)?;
        }
        for (name, command) in &rivals {
            rivals::spawned(&["/bin/true".into()])?;
            add(name, rivals::spawned(command)?);
        }
    }
    if let Groups::Joined = bench.groups {
        cost(bench, &cases[3].2)?;
    }
    Ok(rows)
}

/// The same without an attendant: what that costs.
fn unheard(plan: Plan) -> Plan {
    Plan { name: "bench-unheard".to_owned(), ..plan.unheard() }
}

/// Waits until a launcher has prepared again what it had before: the next row is not to pay for it.
fn settle(bench: &Bench, launcher: &Launcher, ready: usize) -> Result<(), Anything> {
    let deadline = Instant::now() + WITHIN;
    while launcher.ready() < ready {
        if Instant::now() > deadline {
            return Err("no init was prepared".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    while launcher.pid() == bench.layers.pid() && !has_spare(launcher)? {
        if Instant::now() > deadline {
            return Err("no namespaces were laid by".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether a launcher holds another network namespace than its own.
fn has_spare(launcher: &Launcher) -> Result<bool, Anything> {
    let open = std::fs::read_dir(format!("/proc/{}/fd", launcher.pid()))?;
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let networks: BTreeSet<PathBuf> = links.filter(|link| link.to_string_lossy().starts_with("net:")).collect();
    Ok(networks.len() > 1)
}

/// What waiting inits cost: memory, all that the kernel counts for them, by how a group's usage grows with each.
fn cost(bench: &Bench, plan: &Plan) -> Result<(), Anything> {
    const MANY: usize = 8;
    let group = bench.group("cost", &Limits::default())?;
    let launcher = Launcher::start(bench.pool.host().controllers.clone())?;
    group.adopt(launcher.pid().cast_signed())?;
    launcher.prepare(Ahead::Inits(MANY));
    let used = || -> Result<u64, Anything> { Ok(group.usage()?.memory_bytes.unwrap_or(0)) };
    let mut plans = Vec::new();
    for number in 0..MANY {
        let plan = Plan { name: format!("bench-{number}"), exec_cookie: plan.exec_cookie, ..plan.clone() };
        timed(bench, &launcher, &plan, &format!("cost-{number}"))?;
        plans.push(plan);
    }
    let before = used()?;
    for (number, plan) in plans.iter().enumerate() {
        timed(bench, &launcher, plan, &format!("cost-more-{number}"))?;
    }
    settle(bench, &launcher, MANY)?;
    let waiting = launcher.ready() as u64;
    let each = used()?.saturating_sub(before) / waiting.max(1) / 1024;
    println!("waiting inits: {waiting}, {each} KiB each");
    println!("RATIO r2_pool_kib={each}");
    drop(launcher);
    clear(group)
}

fn policy(bench: &Bench, count: usize, gap: Duration) -> Result<Rows, Anything> {
    let plan = bench.plain.compile(&spec(Ring::R2, &bench.workdir))??;
    let plan = Plan { namespaces: 0, root: Root::Unchanged, workdir: "/".into(), ..plan };
    let alone = Alone::new(&plan)?;
    let mut rows = Rows::default();
    for round in 0..count + WARM_UP {
        std::thread::sleep(gap);
        let posix = rivals::spawned(&["/bin/true".into()])?;
        let group = bench.group(&format!("core-{round}"), &plan.limits)?;
        let streams = Streams { stdin: null()?, stdout: null()?, stderr: null()? };
        // Opened with the group, which is made beforehand too: the rows of whole launches have it in their time.
        let join = bench.join(&group)?;
        std::thread::sleep(gap);
        let start = Instant::now();
        let pidfd = alone.start(streams, join)?;
        let status = nix::sys::wait::waitid(
            nix::sys::wait::Id::PIDFd(std::os::fd::AsFd::as_fd(&pidfd)),
            nix::sys::wait::WaitPidFlag::WEXITED,
        )?;
        let took = start.elapsed();
        if !matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)) {
            return Err(format!("the program ended with {status:?}").into());
        }
        clear(group)?;
        if round >= WARM_UP {
            rows.add("posix_spawn", posix);
            rows.add("r2_core", took);
        }
    }
    Ok(rows)
}

/// For the rows of the policy alone, whose child is this process's own: an init's has it lowered by then, while the launcher is at
/// work (41 system calls, 60 us).
fn lower_bounding_set() -> std::io::Result<()> {
    for capability in 0..64 {
        // SAFETY: numbers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } == 0 {
            continue;
        }
        let error = std::io::Error::last_os_error();
        // Past the last one that this kernel knows.
        return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
    }
    Ok(())
}

fn with_threads<T>(count: usize, run: impl FnOnce() -> T) -> T {
    let (stop, wait) = (std::sync::Mutex::new(false), std::sync::Condvar::new());
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let stopped = stop.lock().expect("nobody panics with it");
                drop(wait.wait_while(stopped, |stopped| !*stopped));
            });
        }
        let result = run();
        *stop.lock().expect("nobody panics with it") = true;
        wait.notify_all();
        result
    })
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

fn tempdir() -> std::io::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("agt-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    dir.canonicalize()
}

fn spec(ring: Ring, workdir: &Path) -> Spec {
    Spec {
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        files: vec![FileRule { path: workdir.to_owned(), access: Access::Write }],
        own_id: agt_rings::builtin::OWN_ID_BASE + 7,
        ..Spec::new("bench", ring, "/usr/bin/true", workdir)
    }
}
