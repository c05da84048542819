//! The machine as a whole: its clock, its power, its log, its sysctls, its control groups. Nothing here is ever changed: files
//! are only opened, and calls get arguments that the kernel refuses after its permission check.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{Answer, Attack, D, Stopped, attack, open, raw};
use crate::probe::Layer::{Capabilities, Landlock, MountNamespace, ReadOnlyMount, Seccomp, Uid};
use crate::probe::scene::Scene;

const CLOCK: &str = "certificates, deadlines and audit records of the whole machine";
const MACHINE: &str = "to stop or fill up the machine";
const ROOT: &str = "a program of its choice, run by the kernel as root outside every ring";

pub(super) const ATTACKS: &[Attack] = &[
    // A zone of 1,666 hours is refused after the permission check.
    call("settimeofday", "set the time zone to an impossible one", CLOCK, |_| {
        let zone: [i32; 2] = [100_000, 0];
        // SAFETY: no time, and a zone of two ints that outlives the call.
        unsafe { raw(libc::SYS_settimeofday, [0, zone.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::EINVAL]),
    // A tick of 0 is refused after the permission check.
    call("adjtimex", "set the clock's tick to 0", CLOCK, |_| {
        const ADJ_TICK: u32 = 0x4000;
        // SAFETY: timex is plain old data; all zeroes is a valid value.
        let mut wanted: libc::timex = unsafe { std::mem::zeroed() };
        wanted.modes = ADJ_TICK;
        // SAFETY: one timex, living past the call.
        unsafe { raw(libc::SYS_adjtimex, [(&raw mut wanted) as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::EINVAL]),
    // A wrong magic number is refused after the permission check.
    call("reboot", "reboot with a wrong magic number", MACHINE, |_| {
        // SAFETY: numbers only; without the magic nothing happens.
        unsafe { raw(libc::SYS_reboot, [0, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::EINVAL]),
    call("swapon", "swap to a file that does not exist", MACHINE, |s| {
        let path = missing(s);
        // SAFETY: a NUL-terminated path that outlives the call.
        unsafe { raw(libc::SYS_swapon, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::ENOENT, Errno::EINVAL]),
    call("acct", "write process accounting to a file that does not exist", MACHINE, |s| {
        let path = missing(s);
        // SAFETY: a NUL-terminated path, never null (null would turn accounting off).
        unsafe { raw(libc::SYS_acct, [path.as_ptr() as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .past(&[Errno::ENOENT]),
    call("kernel-log-size", "ask for the size of the kernel's log (syslog)", "kernel addresses", |_| {
        // SAFETY: SYSLOG_ACTION_SIZE_BUFFER takes no buffer.
        unsafe { raw(libc::SYS_syslog, [10, 0, 0, 0, 0, 0]) }.map(drop)
    }),
    file("core-pattern", "open core_pattern for writing", ROOT, |_| for_writing("/proc/sys/kernel/core_pattern")),
    file("sysrq", "open sysrq-trigger for writing", MACHINE, |_| for_writing("/proc/sysrq-trigger")),
    file("sysctl", "open a sysctl for writing", MACHINE, |_| for_writing("/proc/sys/kernel/panic")),
    file("sysfs", "open a file of /sys for writing", MACHINE, |_| {
        let files = ["/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/module/printk/parameters/time"];
        let first = files.iter().find(|path| Path::new(path).exists());
        for_writing(first.unwrap_or(&files[0]))
    }),
    file("cgroup-escape", "open the process list of a control group above for writing", "no limits and no kill", |s| {
        let Some(first) = s.cgroup.first() else {
            return Err(Stopped::Setup("no control group is in use here".to_owned()));
        };
        open(first, OFlag::O_WRONLY).map(drop)
    }),
    file("cgroup-release-agent", "open the release_agent of a control group hierarchy for writing", ROOT, |s| {
        let Some(file) = &s.release_agent else {
            return Err(Stopped::Setup("no v1 control group is in use here".to_owned()));
        };
        open(file, OFlag::O_WRONLY).map(drop)
    }),
    file("cgroup-limits", "open its own limits for writing", "no limits", |s| {
        let Some(limit) = s.cgroup.get(1) else {
            return Err(Stopped::Setup("no limit is kept by a control group here".to_owned()));
        };
        open(limit, OFlag::O_WRONLY).map(drop)
    }),
];

const fn call(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([D; 4]).by(&[Seccomp, Capabilities])
}

const fn file(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([D; 4]).by(&[MountNamespace, ReadOnlyMount, Landlock, Uid])
}

/// Opened, never written.
fn for_writing(path: &str) -> Answer {
    open(Path::new(path), OFlag::O_WRONLY).map(drop)
}

fn missing(scene: &Scene) -> std::ffi::CString {
    let path: PathBuf = scene.own.join("agt-probe-none");
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_else(|_| c"/agt-probe-none".to_owned())
}
