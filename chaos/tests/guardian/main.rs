//! The guardian on real processes: it is this very executable, started again, which is why this test has a main of its own.
//!
//! Four roles: the tests; an injector that arms a guardian and then waits to be killed; a process that runs a whole
//! experiment; the guardian itself. A test that
//! needs root says so and is counted as ignored; with `AGT_FORBID_SKIPS` set it fails instead.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod claims;
mod experiment;
mod group;
mod scene;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// What a test needs to run at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Root,
}

struct Test {
    name: &'static str,
    needs: Needs,
    run: fn(),
}

fn main() -> ExitCode {
    agt_chaos::guardian::main_if_guardian();
    agt_chaos::hog::main_if_hog();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == scene::INJECTOR) {
        return scene::be_injector();
    }
    if args.first().is_some_and(|arg| arg == experiment::EXPERIMENTER) {
        return experiment::be_experimenter(&args[1..]);
    }
    let wanted = |test: &&Test| {
        let mut filters = args.iter().filter(|arg| !arg.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|filter| test.name.contains(filter.as_str()))
    };
    let tests: Vec<&Test> = claims::ALL.iter().filter(wanted).collect();
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|test| println!("{}: test", test.name));
        return ExitCode::SUCCESS;
    }
    run_all(&tests)
}

/// Runs the tests one by one and sums up in the words of libtest.
fn run_all(tests: &[&Test]) -> ExitCode {
    let is_root = nix::unistd::geteuid().is_root();
    let forbids_skips = std::env::var_os("AGT_FORBID_SKIPS").is_some();
    println!("\nrunning {} tests", tests.len());
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    for test in tests {
        if test.needs == Needs::Root && !is_root && !forbids_skips {
            println!("test {} ... ignored, needs root", test.name);
            ignored += 1;
        } else if catch_unwind(AssertUnwindSafe(test.run)).is_ok() {
            println!("test {} ... ok", test.name);
            passed += 1;
        } else {
            println!("test {} ... FAILED", test.name);
            failed += 1;
        }
    }
    let end = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {end}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
