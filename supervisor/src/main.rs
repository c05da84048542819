//! The command: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First, while there is one thread: the guardian, the launcher, the watchdog and the probe's attacks are this same
    // executable under other names. The guardian closes what it inherits, so it comes before anything is opened.
    agt_chaos::guardian::main_if_guardian();
    agt_rings::watchdog::become_watchdog_if_asked();
    agt_rings::launch::become_launcher_if_asked();
    agt_rings::probe::run_attack_if_asked();
    agt_supervise::cli::main()
}
