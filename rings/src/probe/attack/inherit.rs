//! What a launch could leave behind in the agent by accident: descriptors and environment of whoever started the supervisor.

use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{Attack, D, MARK, Ready, Stopped, attack, holds_mark};
use crate::probe::Layer::CleanStart;

/// The environment variable that must not be passed on.
pub(in crate::probe) const VARIABLE: &str = "AGT_PROBE_SECRET";

pub(super) const ATTACKS: &[Attack] = &[
    attack(
        "inherited-descriptor",
        "find a descriptor that the supervisor's caller left open",
        "open files and connections",
        |_| {
            let names = fs::read_dir("/proc/self/fd").ready("list our descriptors")?;
            let numbers: Vec<RawFd> = names
                .flatten()
                .filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()))
                .collect();
            // The listing's own descriptor is closed by now; 0 to 2 are ours by right.
            let foreign: Vec<RawFd> = numbers.into_iter().filter(|fd| *fd > 2 && is_open(*fd)).collect();
            if foreign.is_empty() { Err(Stopped::Nothing("0, 1 and 2 only".to_owned())) } else { Ok(()) }
        },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
    attack(
        "inherited-environment",
        "find a secret of the supervisor's environment in one's own",
        "tokens of the user",
        |_| {
            let own = fs::read("/proc/self/environ").ready("read our own environment")?;
            if holds_mark(&own) || std::env::var_os(VARIABLE).is_some() {
                Ok(())
            } else {
                Err(Stopped::Nothing("it is not there".to_owned()))
            }
        },
    )
    .rings([D; 4])
    .by(&[CleanStart]),
];

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only asks.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// A descriptor without close-on-exec and a variable, as a careless caller leaves them.
#[derive(Debug)]
pub(in crate::probe) struct Planted {
    _descriptor: File,
}

impl Planted {
    /// Plants both. Must come before the launcher is started, which would inherit them.
    pub(in crate::probe) fn plant(secret: &Path) -> io::Result<Planted> {
        let path = std::ffi::CString::new(secret.as_os_str().as_encoded_bytes())?;
        // SAFETY: a NUL-terminated path. Without O_CLOEXEC, on purpose.
        let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor of ours.
        let descriptor = unsafe { File::from_raw_fd(fd) };
        let mut bytes = [0u8; MARK.len()];
        descriptor.read_exact_at(&mut bytes, 0)?;
        if fs::read_dir("/proc/self/task")?.count() == 1 {
            // SAFETY: nobody else can read or write the environment: this is the only thread, as checked in the line above.
            unsafe { std::env::set_var(VARIABLE, MARK) };
        }
        Ok(Planted { _descriptor: descriptor })
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        if fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1) {
            // SAFETY: the only thread, as checked in the line above.
            unsafe { std::env::remove_var(VARIABLE) };
        }
    }
}
