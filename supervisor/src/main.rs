//! The command: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First, while there is one thread: the launcher is this same executable under another name.
    agt_rings::launch::become_launcher_if_asked();
    agt_supervise::cli::main()
}
