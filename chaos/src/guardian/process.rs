//! The guardian's own main: gets out of everybody's way, holds the undo, performs it when it has to.
//!
//! Everything that could fail (orders, boot id, descriptors) is done before it says that it is armed; afterwards it only
//! waits. In whatever way it stops waiting except for a disarm, it undoes: there is no path that loses the undo.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::unistd;

use super::protocol::{ARGV0, Cause, FromGuardian, Orders, ToGuardian};
use super::watch::{Waker, Watch};
use crate::error::chain;
use crate::kernel;
use crate::replay;
use crate::undo::{BootId, Outcome};

/// How long it waits for its orders.
const ORDERS_LIMIT: Duration = Duration::from_secs(5);

/// Everything is put back, or was never touched.
const EXIT_DONE: i32 = 0;
/// Something could not be put back; the journal still holds it.
const EXIT_LEFT: i32 = 1;
/// It was never armed.
const EXIT_NOT_ARMED: i32 = 2;

/// Does the guardian's work and ends the process, if this process was started as a guardian; else returns at once.
///
/// Must be the first call in `main`: it closes every descriptor but the standard ones.
pub fn main_if_guardian() {
    if std::env::args_os().next().as_deref() != Some(OsStr::new(ARGV0)) {
        return;
    }
    let code = run();
    #[expect(clippy::disallowed_methods, reason = "this is the whole process's own main")]
    std::process::exit(code)
}

fn run() -> i32 {
    let (mut watch, orders, boot) = match arm() {
        Ok(armed) => armed,
        Err(reason) => {
            // Where even that can't be said, the injector reads the end of the pipe.
            let _ = say(&FromGuardian::Refused { reason });
            return EXIT_NOT_ARMED;
        }
    };
    let deadline = now() + Duration::from_millis(orders.within_ms);
    if say(&FromGuardian::Armed).is_err() {
        return undo(&orders, &boot, Cause::InjectorGone);
    }
    let cause = match watch.wait(deadline) {
        Waker::Message(line) => match serde_json::from_slice(&line) {
            Ok(ToGuardian::Disarm) => {
                // The injector may be gone already; there is nothing to do about it.
                let _ = say(&FromGuardian::Disarmed);
                return EXIT_DONE;
            }
            Ok(ToGuardian::Undo) => Cause::Asked,
            Ok(ToGuardian::Hold(_)) | Err(_) => Cause::Confused,
        },
        Waker::InjectorGone => Cause::InjectorGone,
        Waker::Signal => Cause::Signal,
        Waker::Deadline => Cause::Deadline,
        Waker::Broken(_) => Cause::Confused,
    };
    undo(&orders, &boot, cause)
}

/// From a fresh process to one that holds an undo. The error is a sentence for the injector.
fn arm() -> Result<(Watch, Orders, BootId), String> {
    let failed = |doing: &str, error: &dyn std::fmt::Display| format!("{doing}: {error}");
    kernel::close_inherited().map_err(|error| failed("closing inherited descriptors", &error))?;
    kernel::default_signals();
    // Out of the terminal's and the shell's reach: ^C is for the injector.
    unistd::setsid().map_err(|error| failed("setsid", &error))?;
    // Nobody of our uid may trace or read it.
    prctl::set_dumpable(false).map_err(|error| failed("PR_SET_DUMPABLE", &error))?;
    prctl::set_name(c"agt-guardian").map_err(|error| failed("PR_SET_NAME", &error))?;
    let boot = kernel::boot_id().map_err(|error| failed("reading the boot id", &chain(&error)))?;
    let mut watch = Watch::begin().map_err(|error| failed("watching", &error))?;
    let line = match watch.wait(now() + ORDERS_LIMIT) {
        Waker::Message(line) => line,
        other => return Err(format!("no orders came: {other:?}")),
    };
    let orders = match serde_json::from_slice(&line) {
        Ok(ToGuardian::Hold(orders)) => *orders,
        Ok(other) => return Err(format!("the first word was {other:?}")),
        Err(error) => return Err(failed("reading the orders", &error)),
    };
    match kernel::open_process(orders.injector) {
        Ok(Some(injector)) => watch.add_injector(injector),
        Ok(None) => return Err("the injector is gone".to_owned()),
        Err(error) => return Err(failed("watching the injector", &chain(&error))),
    }
    Ok((watch, orders, boot))
}

fn undo(orders: &Orders, boot: &BootId, cause: Cause) -> i32 {
    let outcomes = replay::apply(&orders.undo, boot);
    let is_done = outcomes.iter().all(|outcome| outcome.is_settled() || *outcome == Outcome::LeftToSupervisor);
    // Nobody may be left to hear it. What is left undone stands in the journal.
    let _ = say(&FromGuardian::Undone { cause, outcomes });
    if is_done { EXIT_DONE } else { EXIT_LEFT }
}

fn say(message: &FromGuardian) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the guardian is a process of its own; its deadline is real time")]
    Instant::now()
}
