//! What the rings' filters cost: instructions, and CPU time to load them.
//!
//! The kernel does its work at load (checks, JIT, a run over every number for its table of always-allowed calls), so
//! that is where a filter's size shows; afterwards an always-allowed call costs next to nothing. Each load happens in a
//! fresh thread, all variants take turns in one run, and medians are printed. R2's policy compiled by seccompiler, a
//! list instead of a tree, stands beside it for comparison. Last lines: `RATIO name=value`; `seccomp_load_us` is the slower
//! of R2's and R3's.

use std::thread;

use agt_rings::Ring;
use agt_rings::seccomp::{ExecCookie, Filters, Options, Program, builtin, denylist};
use nix::sys::resource::{UsageWho, getrusage};
use seccompiler::sock_filter;

/// Loads of each variant.
const ROUNDS: usize = 301;

/// A stack of programs to load.
struct Variant {
    name: &'static str,
    programs: Vec<Vec<sock_filter>>,
    microseconds: Vec<i64>,
}

impl Variant {
    fn new(name: &'static str, programs: &[Program]) -> Variant {
        let convert = |program: &Program| {
            let instructions = program.as_sock_filters().iter();
            instructions.map(|i| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
        };
        Variant { name, programs: programs.iter().map(convert).collect(), microseconds: Vec::with_capacity(ROUNDS) }
    }

    fn instructions(&self) -> usize {
        self.programs.iter().map(Vec::len).sum()
    }

    /// The given share of the loads took at most this long.
    fn quantile(&mut self, share: f64) -> i64 {
        self.microseconds.sort_unstable();
        let last = self.microseconds.len() - 1;
        self.microseconds[(last as f64 * share).round() as usize]
    }
}

/// CPU time of this thread so far, in microseconds. The yield makes the kernel bring its account up to date, which
/// otherwise waits for the next tick.
fn thread_microseconds() -> i64 {
    thread::yield_now();
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("getrusage of oneself can't fail");
    let (user, system) = (usage.user_time(), usage.system_time());
    (user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()
}

fn load(programs: &[Vec<sock_filter>]) -> i64 {
    thread::scope(|scope| {
        let loaded = scope.spawn(|| {
            let before = thread_microseconds();
            for program in programs {
                seccompiler::apply_filter(program).expect("the kernel takes our programs");
            }
            thread_microseconds() - before
        });
        loaded.join().expect("the thread lives on under its filters")
    })
}

fn main() {
    let cookie = ExecCookie::new(0x0123_4567_89ab_cdef);
    let options = |ring| Options::new(ring, cookie).expect("this processor has tables");
    let ring = |ring| Filters::for_ring(ring, &options(ring)).expect("default options are sound");
    let r2 = builtin::policy(Ring::R2, &options(Ring::R2));
    let mut variants = [
        Variant::new("r0", ring(Ring::R0).programs()),
        Variant::new("r1", ring(Ring::R1).programs()),
        Variant::new("r2", ring(Ring::R2).programs()),
        Variant::new("r2_as_list", &denylist::compile(&r2).expect("it fits")),
        Variant::new("r3", ring(Ring::R3).programs()),
    ];
    for _ in 0..ROUNDS {
        for variant in &mut variants {
            let took = load(&variant.programs);
            variant.microseconds.push(took);
        }
    }
    for variant in &mut variants {
        let (p50, p95) = (variant.quantile(0.5), variant.quantile(0.95));
        println!("{:<11} {:>5} instructions, load {p50} us p50, {p95} us p95", variant.name, variant.instructions());
    }
    for variant in &mut variants {
        let p50 = variant.quantile(0.5);
        println!("RATIO seccomp_load_us_{}={p50}", variant.name);
    }
    let allow_lists = |variant: &&mut Variant| ["r2", "r3"].contains(&variant.name);
    for variant in variants.iter_mut().filter(allow_lists) {
        println!("RATIO seccomp_insns_{}={}", variant.name, variant.instructions());
    }
    let slower = variants.iter_mut().filter(allow_lists).map(|variant| variant.quantile(0.5)).max().unwrap_or(0);
    println!("RATIO seccomp_load_us={slower}");
}
