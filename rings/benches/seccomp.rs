//! What the rings' filters cost: instructions, and CPU time to load them.
//!
//! The kernel does its work at load (checks, JIT, a run over every number for its table of always-allowed calls), so
//! that is where a filter's size shows; afterwards an always-allowed call costs next to nothing. Each load happens in a
//! fresh thread, all variants take turns in one run, and medians are printed. R2's policy compiled by seccompiler, a
//! list instead of a tree, stands beside it for comparison. The filters that ask a listener are those that are launched with
//! (`_asks`: refusals and new names), the others what they are where nobody can listen.
//!
//! Then, in real launches of R2: what a refused call costs by the filter alone and with an attendant that answers and tells of it.
//! Last lines: `RATIO name=value`; `seccomp_load_us` is the slowest of R2's and R3's.

use std::thread;

use agt_rings::Ring;
use agt_rings::launch::become_launcher_if_asked;
use agt_rings::seccomp::{ExecCookie, Filters, Names, Notify, Options, Program, builtin, denylist};
use nix::sys::resource::{UsageWho, getrusage};
use seccompiler::sock_filter;

/// Loads of each variant.
const ROUNDS: usize = 301;

/// A stack of programs to load.
struct Variant {
    name: &'static str,
    programs: Vec<Vec<sock_filter>>,
    microseconds: Vec<i64>,
    /// Of one call that the filter always allows, and of one whose arguments it looks at.
    nanoseconds: [Vec<i64>; 2],
}

/// Calls after each load.
const CALLS: u32 = 2000;

impl Variant {
    fn new(name: &'static str, programs: &[Program]) -> Variant {
        let convert = |program: &Program| {
            let instructions = program.as_sock_filters().iter();
            instructions.map(|i| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
        };
        let programs = programs.iter().map(convert).collect();
        Variant { name, programs, microseconds: Vec::with_capacity(ROUNDS), nanoseconds: Default::default() }
    }

    fn instructions(&self) -> usize {
        self.programs.iter().map(Vec::len).sum()
    }

    /// The given share of the loads took at most this long.
    fn quantile(&mut self, share: f64) -> i64 {
        quantile(&mut self.microseconds, share)
    }
}

fn quantile(all: &mut [i64], share: f64) -> i64 {
    all.sort_unstable();
    all[((all.len() - 1) as f64 * share).round() as usize]
}

fn timed(mut call: impl FnMut()) -> i64 {
    let start = std::time::Instant::now();
    for _ in 0..CALLS {
        call();
    }
    i64::try_from(start.elapsed().as_nanos() / u128::from(CALLS)).unwrap_or(i64::MAX)
}

/// CPU time of this thread so far, in microseconds. The yield makes the kernel bring its account up to date, which
/// otherwise waits for the next tick.
fn thread_microseconds() -> i64 {
    thread::yield_now();
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage of oneself can't fail");
    let (user, system) = (usage.user_time(), usage.system_time());
    (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()
}

fn load(programs: &[Vec<sock_filter>]) -> (i64, [i64; 2]) {
    thread::scope(|scope| {
        let loaded = scope.spawn(|| {
            let before = thread_microseconds();
            for program in programs {
                seccompiler::apply_filter(program).expect("the kernel takes our programs");
            }
            let took = thread_microseconds() - before;
            let open = || {
                // No such folder: the cheapest open there is, and none that makes anything.
                let _ = nix::fcntl::open("/nowhere", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty());
            };
            (
                took,
                [
                    timed(|| {
                        let _ = nix::unistd::getppid();
                    }),
                    timed(open),
                ],
            )
        });
        loaded.join().expect("the thread lives on under its filters")
    })
}

fn main() {
    become_launcher_if_asked();
    let cookie = ExecCookie::new(0x0123_4567_89ab_cdef);
    let options = |ring| Options::new(ring, cookie).expect("this processor has tables");
    let ring = |ring| Filters::for_ring(ring, &options(ring)).expect("default options are sound");
    let asks = |ring| {
        let options = Options { notify: Notify::Refusals, names: Names::Asked, ..options(ring) };
        Filters::for_ring(ring, &options).expect("default options are sound")
    };
    let r2 = builtin::policy(Ring::R2, &options(Ring::R2));
    let mut variants = [
        Variant::new("r0", ring(Ring::R0).programs()),
        Variant::new("r1", ring(Ring::R1).programs()),
        Variant::new("r2", ring(Ring::R2).programs()),
        Variant::new("r2_as_list", &denylist::compile(&r2).expect("it fits")),
        Variant::new("r3", ring(Ring::R3).programs()),
        Variant::new("r1_asks", asks(Ring::R1).programs()),
        Variant::new("r2_asks", asks(Ring::R2).programs()),
        Variant::new("r3_asks", asks(Ring::R3).programs()),
    ];
    for _ in 0..ROUNDS {
        for variant in &mut variants {
            let (took, calls) = load(&variant.programs);
            variant.microseconds.push(took);
            variant.nanoseconds.iter_mut().zip(calls).for_each(|(all, took)| all.push(took));
        }
    }
    for variant in &mut variants {
        let (p50, p95) = (variant.quantile(0.5), variant.quantile(0.95));
        let [getppid, open] = variant.nanoseconds.each_mut().map(|all| quantile(all, 0.5));
        println!(
            "{:<11} {:>5} instructions, load {p50} us p50, {p95} us p95; getppid {getppid} ns, open of nothing {open} ns",
            variant.name,
            variant.instructions()
        );
    }
    for variant in &mut variants {
        let p50 = variant.quantile(0.5);
        println!("RATIO seccomp_load_us_{}={p50}", variant.name);
    }
    let allow_lists = |variant: &&mut Variant| ["r2", "r3", "r2_asks", "r3_asks"].contains(&variant.name);
    for variant in variants.iter_mut().filter(allow_lists) {
        println!("RATIO seccomp_insns_{}={}", variant.name, variant.instructions());
    }
    let slower = variants.iter_mut().filter(allow_lists).map(|variant| variant.quantile(0.5)).max().unwrap_or(0);
    println!("RATIO seccomp_load_us={slower}");
    match refused::costs() {
        Ok([bare, heard]) => {
            println!(
                "a refused call: {bare:.2} us by the filter alone, {heard:.2} us with an attendant that tells of it"
            );
            println!("RATIO seccomp_refused_bare_us={bare:.2}");
            println!("RATIO seccomp_refused_heard_us={heard:.2}");
        }
        Err(e) => println!("a refused call: not measured: {e}"),
    }
}

/// What a refused call costs an agent.
mod refused {
    use std::ffi::OsString;
    use std::fs::{self, File};
    use std::io::{Read, Seek};
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;

    use agt_rings::Ring;
    use agt_rings::cgroup::Join;
    use agt_rings::host::Controllers;
    use agt_rings::launch::{Launcher, Streams};
    use agt_rings::plan::Plan;
    use agt_rings::spec::{Access, Enforcement, FileRule, Spec, Terminal, User};

    /// Refused calls in one launch.
    const CALLS: u32 = 20_000;
    const LAUNCHES: usize = 11;

    /// Microseconds without an attendant and with one, medians of launches that take turns.
    pub(super) fn costs() -> Result<[f64; 2], Box<dyn std::error::Error>> {
        let launcher = Launcher::start(Controllers::none("not needed"))?;
        let folder = std::env::temp_dir().join(format!("agt-bench-refused-{}", std::process::id()));
        fs::create_dir(&folder)?;
        let plan = launcher.compile(&spec(&folder)?)??;
        if plan.listens().is_none() {
            return Err("nobody can listen here".into());
        }
        let plans = [plan.clone().unheard(), plan];
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..LAUNCHES {
            for (plan, took) in plans.iter().zip(&mut took) {
                took.push(run(&launcher, plan)?);
            }
        }
        fs::remove_dir(&folder)?;
        Ok(took.map(|mut all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        }))
    }

    fn run(launcher: &Launcher, plan: &Plan) -> Result<f64, Box<dyn std::error::Error>> {
        let path = std::env::temp_dir().join(format!("agt-bench-out-{}", std::process::id()));
        let mut out = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        fs::remove_file(&path)?;
        let null = || -> std::io::Result<OwnedFd> { Ok(File::open("/dev/null")?.into()) };
        let streams = Streams { stdin: null()?, stdout: out.try_clone()?.into(), stderr: null()? };
        let mut running =
            launcher.launch(plan, &streams, &Join { into_cgroup: None, tasks: Vec::new(), procs: None })?;
        let notices = running.take_notices();
        let _ = running.read_exit()?;
        drop(notices);
        let mut text = String::new();
        out.rewind()?;
        out.read_to_string(&mut text)?;
        Ok(text.trim().parse()?)
    }

    fn spec(folder: &std::path::Path) -> Result<Spec, Box<dyn std::error::Error>> {
        let number = agt_rings::seccomp::Arch::native().and_then(|arch| arch.number("keyctl")).ok_or("no table")?;
        // The loop itself, with a call that is allowed and does nothing, is taken off.
        let script = format!(
            "use Time::HiRes 'time'; sub t {{ my $n = shift; my $s = time; syscall($n, 0, -2, 0) for 1..{CALLS}; time - $s }}
             t({number}); my $none = t({}); printf '%f', (t({number}) - $none) * 1e6 / {CALLS}",
            agt_rings::seccomp::Arch::native().and_then(|arch| arch.number("getppid")).ok_or("no table")?
        );
        Ok(Spec {
            name: "bench".to_owned(),
            ring: Ring::R2,
            enforcement: Enforcement::BestEffort,
            program: PathBuf::from("/usr/bin/perl"),
            argv: ["perl", "-e", &script].map(OsString::from).to_vec(),
            env: Vec::new(),
            workdir: folder.canonicalize()?,
            files: vec![FileRule { path: folder.canonicalize()?, access: Access::Write }],
            as_owner: Vec::new(),
            scratch: None,
            protect: Vec::new(),
            gaps: Vec::new(),
            sockets: Vec::new(),
            names: None,
            hide: Vec::new(),
            listen: Vec::new(),
            limits: agt_rings::builtin::definition(Ring::R2).limits,
            user: User::Own,
            own_id: agt_rings::builtin::OWN_ID_BASE + 8,
            capabilities: agt_rings::capability::Capabilities::NONE,
            open_files: None,
            terminal: Terminal::None,
            nested: Default::default(),
            check: None,
        })
    }
}
