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

mod timed;

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
    use std::error::Error;
    use std::os::unix::fs::PermissionsExt;

    use agt_rings::host::Controllers;
    use agt_rings::launch::Launcher;
    use agt_rings::seccomp::Arch;

    use super::timed;

    /// Refused calls in one launch.
    const CALLS: u32 = 20_000;
    const LAUNCHES: usize = 11;

    /// Microseconds without an attendant and with one, medians of launches that take turns.
    pub(super) fn costs() -> Result<[f64; 2], Box<dyn Error>> {
        let launcher = Launcher::start(Controllers::none("not needed"))?;
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let plan = launcher.compile(&timed::spec(&script()?, &folder.path().canonicalize()?))??;
        if plan.listens().is_none() {
            return Err("nobody can listen here".into());
        }
        let plans = [plan.clone().unheard(), plan];
        Ok(timed::in_turns(&launcher, &plans, LAUNCHES, 1)?.map(|medians| medians[0]))
    }

    fn script() -> Result<String, Box<dyn Error>> {
        let number = |name| Arch::native().and_then(|arch| arch.number(name)).ok_or("no table");
        // The loop itself, with a call that is allowed and does nothing, is taken off.
        Ok(format!(
            "use Time::HiRes 'time'; sub t {{ my $n = shift; my $s = time; syscall($n, 0, -2, 0) for 1..{CALLS}; time - $s }}
             t({refused}); my $none = t({allowed}); printf '%f', (t({refused}) - $none) * 1e6 / {CALLS}",
            refused = number("keyctl")?,
            allowed = number("getppid")?,
        ))
    }
}
