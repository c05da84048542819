//! Ways to gain a uid or a capability: by asking, by executing, by what the launcher forgot to drop.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::{Answer, Attack, D, Need, Ready, Stopped, attack, proc_path, raw};
use crate::probe::Layer::{Capabilities, NoNewPrivileges, Seccomp, Uid};

const ROOT: &str = "the power of root";

pub(super) const ATTACKS: &[Attack] = &[
    attack("setuid-root", "become uid 0", ROOT, |_| {
        // SAFETY: a number; this process alone (the raw call signals no thread).
        unsafe { raw(libc::SYS_setuid, [0, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .by(&[Uid, Capabilities, Seccomp]),
    attack("setgid-other", "become another group", "files of that group: disks, logs, docker", |_| {
        let other = nix::unistd::getegid().as_raw().wrapping_add(1) as usize;
        // SAFETY: numbers; this process alone.
        unsafe { raw(libc::SYS_setresgid, [other, other, other, 0, 0, 0]) }.map(drop)
    })
    .rings([D; 4])
    .by(&[Capabilities, Seccomp]),
    attack("setgroups", "take supplementary groups", "files of those groups: disks, logs, docker", |_| {
        let groups = [0u32, 6];
        // SAFETY: two group ids that outlive the call.
        unsafe { raw(libc::SYS_setgroups, [2, groups.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
    })
    .rings([D; 4])
    .by(&[Capabilities, Seccomp]),
    attack("capset", "raise CAP_SYS_ADMIN", ROOT, |_| capset()).rings([D; 4]).by(&[Capabilities, Seccomp]),
    attack("capabilities-held", "hold any capability", ROOT, |_| {
        let status = fs::read_to_string("/proc/self/status").ready("read our own status")?;
        let held = capability_lines(&status).any(|(_, set)| set != 0);
        if held { Ok(()) } else { Err(Stopped::Nothing("every set is empty".to_owned())) }
    })
    .rings([D; 4])
    .by(&[Capabilities]),
    attack("exec-capabilities", "get capabilities by executing a program as one's uid", ROOT, |_| {
        let Credentials { capabilities, .. } =
            after_exec(Path::new("/proc/self/exe"), &["agt-probe-attack", "say-ok"])?;
        if capabilities != 0 { Ok(()) } else { Err(Stopped::Nothing("it has none".to_owned())) }
    })
    .rings([D; 4])
    .by(&[Capabilities, NoNewPrivileges, Seccomp]),
    attack("setuid-program", "execute a setuid-root program", ROOT, |_| {
        let programs = ["/usr/bin/su", "/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/sudo"];
        let program = programs.iter().map(Path::new).find(|path| has_bit(path, 0o4000));
        let program = program.ok_or("there is none here").ready("find a setuid-root program")?;
        let before = nix::unistd::geteuid().as_raw();
        let Credentials { uid, .. } = after_exec(program, &["su", "--version"])?;
        if uid == before { Err(Stopped::Nothing(format!("it ran as uid {uid}"))) } else { Ok(()) }
    })
    .by(&[NoNewPrivileges, Seccomp]),
    attack("setgid-program", "execute a setgid program", "files of that group: password hashes, mail", |_| {
        let programs = ["/usr/bin/expiry", "/usr/bin/chage", "/usr/bin/ssh-agent", "/usr/bin/crontab", "/usr/bin/wall"];
        let program = programs.iter().map(Path::new).find(|path| has_bit(path, 0o2000));
        let program = program.ok_or("there is none here").ready("find a setgid program")?;
        let before = nix::unistd::getegid().as_raw();
        let Credentials { gid, .. } = after_exec(program, &["agt-probe", "--help"])?;
        if gid == before { Err(Stopped::Nothing(format!("it ran as gid {gid}"))) } else { Ok(()) }
    })
    .by(&[NoNewPrivileges, Seccomp]),
    attack(
        "group-file",
        "read a file that only a privileged group may read",
        "files of that group: disks, logs",
        |s| super::read_secret(&s.installed.join("group.conf")),
    )
    .by(&[Uid, Capabilities])
    .with(&[Need::OwnUid]),
    attack("no-new-privs", "start programs without no_new_privs", ROOT, |_| {
        match crate::sys::process::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Stopped::Nothing("it is set, for good".to_owned())),
            Err(e) => Err(e.into()),
        }
    })
    .rings([D; 4])
    .by(&[NoNewPrivileges, Seccomp]),
];

fn capset() -> Answer {
    const CAP_SYS_ADMIN: u32 = 1 << 21;
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut held = [0u32; 6];
    // SAFETY: a header of version 3 and room for its two triples.
    unsafe { raw(libc::SYS_capget, [header.as_ptr() as usize, held.as_mut_ptr() as usize, 0, 0, 0, 0]) }
        .map_err(|stopped| Stopped::Setup(format!("read our own capabilities: {stopped:?}")))?;
    held[0] |= CAP_SYS_ADMIN;
    held[1] |= CAP_SYS_ADMIN;
    // SAFETY: the same layout; it concerns this thread alone.
    unsafe { raw(libc::SYS_capset, [header.as_ptr() as usize, held.as_ptr() as usize, 0, 0, 0, 0]) }.map(drop)
}

/// The capability sets of /proc/PID/status that give power (the bounding set alone gives none).
pub(super) fn capability_lines(status: &str) -> impl Iterator<Item = (&str, u64)> {
    status.lines().filter_map(|line| {
        let (name, set) = line.split_once(':')?;
        let counts = ["CapInh", "CapPrm", "CapEff", "CapAmb"].contains(&name);
        counts.then(|| u64::from_str_radix(set.trim(), 16).ok().map(|set| (name, set))).flatten()
    })
}

/// Its owner is not looked at: in a user namespace root has another number.
fn has_bit(path: &Path, bit: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|meta| meta.mode() & bit != 0)
}

/// Of an ended program.
struct Credentials {
    uid: u32,
    gid: u32,
    capabilities: u64,
}

/// Runs a program that does nothing and reads the credentials that it ended with: a zombie keeps them until it is waited for.
fn after_exec(program: &Path, argv: &[&str]) -> Result<Credentials, Stopped> {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new(program)
        .arg0(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = i32::try_from(child.id()).ready("a pid")?;
    let id = Id::Pid(nix::unistd::Pid::from_raw(pid));
    let ended = waitid(id, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).ready("wait for the program")?;
    let status = fs::read_to_string(proc_path(pid, "status")).ready("read its status")?;
    child.wait().ready("reap it")?;
    if !matches!(ended, WaitStatus::Exited(..)) {
        return Err(Stopped::Setup(format!("it ended with {ended:?}")));
    }
    // Real, effective, saved, file system.
    let id = |which: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(which));
        let effective = line.and_then(|ids| ids.split_whitespace().nth(1)).and_then(|id| id.parse().ok());
        effective.ok_or("no such line").ready("read its uid and gid")
    };
    let capabilities = capability_lines(&status).filter(|(name, _)| *name == "CapEff").map(|(_, set)| set).sum();
    Ok(Credentials { uid: id("Uid:")?, gid: id("Gid:")?, capabilities })
}
