//! The hog's own main: takes memory at its pace, and looks at everything that may end it between two helpings.
//!
//! The memory is that of a file without a name (memfd_create(2)) that nobody maps: it is charged to the cgroup and goes with the
//! process, but it makes the process itself no larger, and the OOM killer takes the largest first. With memory of its own the
//! hog was its choice in small groups.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::unistd;

use super::{ARGV0, HOST_RESERVE, LIFE_MAX, Pressing, ToHog};
use crate::guardian::watch::{Waker, Watch};
use crate::kernel;

/// What is taken at once. Small: what is left of a helping after an OOM kill may lead to another one.
const HELPING: u64 = 64 << 10;
/// After how much the host is looked at again.
const HOST_LOOK: u64 = 16 << 20;
/// Between two looks at the clock.
const PACE: Duration = Duration::from_millis(20);

/// Why a hog ends; the exit code says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The cgroup has counted a further OOM kill.
    Acted = 0,
    /// Its owner is gone, or asked it to end, or its time is over.
    Let = 1,
    /// It was never told what to do, or what it was told makes no sense.
    NoOrders = 2,
    /// The count can't be read, or the host runs short: it must not press blindly.
    Blind = 3,
}

/// Does the hog's work and ends the process, if this process was started as a hog; else returns at once.
///
/// Must come right after [`crate::guardian::main_if_guardian`]: it closes every descriptor but the standard ones.
pub fn main_if_hog() {
    if std::env::args_os().next().as_deref() != Some(OsStr::new(ARGV0)) {
        return;
    }
    let end = run().unwrap_or(End::Blind);
    #[expect(clippy::disallowed_methods, reason = "this is the whole process's own main")]
    std::process::exit(end as i32)
}

fn run() -> io::Result<End> {
    kernel::close_inherited()?;
    kernel::default_signals();
    // Out of the terminal's and the shell's reach: ^C is for the supervisor.
    unistd::setsid()?;
    prctl::set_name(c"agt-hog")?;
    let mut watch = Watch::begin()?;
    let deadline = now() + LIFE_MAX;
    match order(&mut watch, deadline) {
        Some(ToHog::Owner(owner)) => match kernel::open_process(owner) {
            Ok(Some(owner)) => watch.add_injector(owner),
            Ok(None) => return Ok(End::Let),
            Err(_) => return Ok(End::Blind),
        },
        _ => return Ok(End::NoOrders),
    }
    match order(&mut watch, deadline) {
        Some(ToHog::Press(pressing)) => press(&pressing, &mut watch, deadline),
        _ => Ok(End::NoOrders),
    }
}

fn order(watch: &mut Watch, deadline: Instant) -> Option<ToHog> {
    match watch.wait(deadline) {
        Waker::Message(line) => serde_json::from_slice(&line).ok(),
        _ => None,
    }
}

fn press(pressing: &Pressing, watch: &mut Watch, deadline: Instant) -> io::Result<End> {
    #[expect(clippy::disallowed_methods, reason = "the hog is a process of its own, and this is its one file")]
    let counter = File::open(&pressing.counter)?;
    let before = kills(&counter)?;
    let began = now();
    let mut held = File::from(memfd_create(c"agt-hog", MFdFlags::MFD_CLOEXEC)?);
    let helping = vec![0xA5; usize::try_from(HELPING).expect("some pages")];
    let mut taken = 0;
    loop {
        let elapsed = now().saturating_duration_since(began).as_secs_f64();
        // As f64: half a byte more or less is no matter, and it can't overflow.
        let due = (pressing.per_second as f64 * elapsed) as u64;
        while taken + HELPING <= due.min(pressing.most) {
            if taken.is_multiple_of(HOST_LOOK) && kernel::memory_available()? < HOST_RESERVE {
                return Ok(End::Blind);
            }
            let written = held.write_all(&helping);
            if kills(&counter)? > before {
                return Ok(End::Acted);
            }
            match written {
                Ok(()) => taken += HELPING,
                // Full, and nobody was killed: others gave something back. Again after a pause.
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => break,
                Err(error) => return Err(error),
            }
        }
        if kills(&counter)? > before {
            return Ok(End::Acted);
        }
        match watch.wait((now() + PACE).min(deadline)) {
            Waker::Deadline if now() < deadline => {}
            _ => return Ok(End::Let),
        }
    }
}

fn kills(counter: &File) -> io::Result<u64> {
    // Ten short lines at most.
    let mut text = [0; 1024];
    let length = counter.read_at(&mut text, 0)?;
    kernel::oom_kills_in(&String::from_utf8_lossy(&text[..length]))
        .ok_or_else(|| io::Error::other("it has no oom_kill"))
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the hog is a process of its own; its pace is real time")]
    Instant::now()
}
