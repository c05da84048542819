//! The command: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First, while there is one thread: the guardian, the hog, the watchdog, the launcher and the probe's attacks are this same
    // executable under other names. The first two close what they inherit, so they come before anything is opened.
    agt_chaos::guardian::main_if_guardian();
    agt_chaos::hog::main_if_hog();
    agt_rings::watchdog::become_watchdog_if_asked();
    agt_rings::launch::become_launcher_if_asked();
    agt_rings::probe::run_attack_if_asked();
    agt_supervise::cli::main()
}
