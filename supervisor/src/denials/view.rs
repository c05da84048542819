//! What a compiled plan says of a path, a call or an address, without anything having happened.
//!
//! The plan is the one that a launch performs, so this is no second opinion on the rules: it reads the mounts and Landlock rules that
//! would be made, and asks the policy that the filters are compiled from. What only the kernel knows at the time of the call (links
//! that an agent makes, space, quotas) is not in it.

use std::path::{Path, PathBuf};

use agt_gateway::host::Authority;
use agt_gateway::policy::{Ask, Verdict as Decided, Via};
use agt_rings::Ring;
use agt_rings::names;
use agt_rings::plan::{Mount, Plan, ProcView, Root};
use agt_rings::seccomp::policy::{Decision, Refusal, Rule};
use agt_rings::seccomp::{ExecCookie, Names, Notify, Options, Sockets, builtin, checks, groups};
use agt_rings::spec::Access;

use super::words::name_rule;
use crate::config::AgentPlan;
use crate::config::spec::HostPort;

/// The rule that keeps never-writable names.
pub const PROTECTED: &str = "files.protected";
/// The rule of the file itself that keeps names.
pub const DENY: &str = "files.deny";

/// The rule that keeps processes to themselves.
pub const OTHER_PROCESS: &str = "proc.other-process";

/// Links of the view that are followed for one path.
const LINKS_MAX: usize = 16;

/// What would become of something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It would work.
    Allowed {
        /// By which rule, in words.
        by: String,
    },
    /// It would not.
    Denied {
        /// What would stop it: `mounts`, `landlock`, `seccomp`, `network`, `file mode`.
        layer: &'static str,
        /// The rule, as `why` names it.
        rule: String,
        /// What the call would be answered with.
        errno: i32,
        /// Why, in words.
        why: String,
    },
    /// No plan can tell.
    Unknown {
        /// Why not, in words.
        why: String,
    },
}

impl Verdict {
    fn allowed(by: impl Into<String>) -> Verdict {
        Verdict::Allowed { by: by.into() }
    }

    fn denied(layer: &'static str, rule: impl Into<String>, errno: i32, why: impl Into<String>) -> Verdict {
        Verdict::Denied { layer, rule: rule.into(), errno, why: why.into() }
    }
}

/// Who owns a file and who may read and write it, as stat(2) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Permission bits.
    pub bits: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What becomes of reading or writing `path`, an absolute one with links resolved. `mode` is that of the file that is there, if one is;
/// `own` the uid and gid of an agent that has no other ones than the supervisor.
pub fn path(plan: &Plan, path: &Path, access: Access, mode: Option<Mode>, own: (u32, u32)) -> Verdict {
    let seen = match &plan.root {
        Root::Built { mounts, .. } => built(mounts, path, access, mode),
        Root::Host { hide, show } => host(hide, show.as_deref(), path),
        Root::Unchanged => Seen { verdict: Verdict::allowed("the host's own tree"), owns: false },
    };
    if !matches!(seen.verdict, Verdict::Allowed { .. }) {
        return seen.verdict;
    }
    if access == Access::Write
        && mode.is_none()
        && let Some(refused) = unmade(plan, path)
    {
        return refused;
    }
    if let Some(landlock) = &plan.landlock {
        let covers = |(tree, granted): &(PathBuf, Access)| {
            path.starts_with(tree) && (access == Access::Read || *granted == Access::Write)
        };
        if !landlock.rules.iter().any(covers) {
            let (rule, what) = words(access);
            return Verdict::denied("landlock", rule, libc::EACCES, format!("no rule lets it {what} there"));
        }
    }
    let ids = plan.ids.map_or(own, |ids| (ids.uid, ids.gid));
    match mode.filter(|mode| !seen.owns && ids.0 != 0 && !may(*mode, ids, access)) {
        Some(mode) => Verdict::denied(
            "file mode",
            "files.mode",
            libc::EACCES,
            format!(
                "its mode is {:04o}, owner {}:{}, and the agent is uid {}",
                mode.bits & 0o7777,
                mode.uid,
                mode.gid,
                ids.0
            ),
        ),
        None => seen.verdict,
    }
}

/// What keeps a name from being made that does not exist.
fn unmade(plan: &Plan, path: &Path) -> Option<Verdict> {
    let (rules, name) = (plan.names.as_ref()?, path.file_name()?);
    let place = names::Place { folder: path.parent(), name, in_repository: false };
    match rules.decide(&place, names::Kind::New) {
        names::Verdict::Refused(pattern) => {
            let why = format!("no such name may be made: {}", name_rule(&pattern));
            let rule = if pattern.starts_with(names::DENIED) { DENY } else { PROTECTED };
            Some(Verdict::denied("seccomp notification", rule, libc::EACCES, why))
        }
        names::Verdict::Free | names::Verdict::FromOutside => None,
    }
}

fn may(mode: Mode, (uid, gid): (u32, u32), access: Access) -> bool {
    let bit = if access == Access::Read { 0o4 } else { 0o2 };
    let shift = match () {
        () if mode.uid == uid => 6,
        () if mode.gid == gid => 3,
        () => 0,
    };
    mode.bits >> shift & bit != 0
}

fn words(access: Access) -> (&'static str, &'static str) {
    match access {
        Access::Read => ("files.read", "read"),
        Access::Write => ("files.write", "write"),
    }
}

/// A verdict, and whether the agent counts as the owner of what it sees there.
struct Seen {
    verdict: Verdict,
    owns: bool,
}

fn host(hide: &[PathBuf], show: Option<&Path>, path: &Path) -> Seen {
    let hidden =
        hide.iter().find(|tree| path.starts_with(tree)).filter(|_| show.is_none_or(|show| !path.starts_with(show)));
    let verdict = match hidden {
        Some(tree) => Verdict::denied(
            "mounts",
            "files.hidden",
            libc::ENOENT,
            format!("{} belongs to the supervisor, which no ring sees", tree.display()),
        ),
        None => Verdict::allowed("the host's own tree, with the rights of the user who started it"),
    };
    Seen { verdict, owns: false }
}

/// The mount that is seen at a path: the innermost, of several on one place the last.
fn innermost<'m>(mounts: &'m [Mount], path: &Path) -> Option<&'m Mount> {
    let over = mounts.iter().filter(|mount| !matches!(mount, Mount::Pin { .. }) && path.starts_with(mount.target()));
    over.max_by_key(|mount| mount.target().components().count())
}

fn built(mounts: &[Mount], path: &Path, access: Access, on_host: Option<Mode>) -> Seen {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Some(Mount::Link { target, to }) = innermost(mounts, &path) else { break };
        let rest = path.strip_prefix(target).unwrap_or(Path::new("")).to_owned();
        let folder = target.parent().unwrap_or(Path::new("/"));
        path = folder.join(to);
        // Joining an empty rest would add a slash.
        if !rest.as_os_str().is_empty() {
            path.push(rest);
        }
    }
    let is_write = access == Access::Write;
    let read_only = |what: String| Verdict::denied("mounts", "files.write", libc::EROFS, what);
    let mut owns = false;
    let verdict = match innermost(mounts, &path) {
        None if mounts.iter().any(|mount| mount.target().starts_with(&path)) => match access {
            Access::Read => Verdict::allowed("a folder that holds only what the ring shows"),
            Access::Write => read_only(format!("{} is part of the ring's own root", path.display())),
        },
        None => {
            let why = format!("{} is not in its view: neither of the system's runtime nor declared", path.display());
            Verdict::denied("mounts", words(access).0, libc::ENOENT, why)
        }
        Some(Mount::Hide { target }) => {
            let why = format!(
                "{} is covered: `files.deny`, a socket of another program, or the supervisor's own",
                target.display()
            );
            Verdict::denied("mounts", "files.hidden", libc::ENOENT, why)
        }
        Some(Mount::Protect { target }) if is_write => {
            let why = "a never-writable name: it could change the agent's own rules, or run as its user later";
            Verdict::denied("mounts", PROTECTED, libc::EROFS, format!("{} is {why}", target.display()))
        }
        Some(Mount::Bind { target, access: granted, id_map, .. }) => {
            owns = id_map.is_some();
            match granted {
                Access::Read if is_write => read_only(format!("{} is shown read-only", target.display())),
                Access::Read => Verdict::allowed(format!("{} is in its view, read-only", target.display())),
                Access::Write => Verdict::allowed(format!("{} is its to write", target.display())),
            }
        }
        Some(Mount::Overlay { target, id_map, .. }) => {
            owns = id_map.is_some();
            Verdict::allowed(format!("{} is its to change, and stays as it is", target.display()))
        }
        Some(Mount::Protect { target }) => Verdict::allowed(format!("{} is in its view, read-only", target.display())),
        Some(Mount::Private { target, .. }) if !is_write && on_host.is_some() && path != *target => {
            let why = format!(
                "its {} is private and begins empty: what stands there on the host is not in it",
                target.display()
            );
            Verdict::denied("mounts", "files.read", libc::ENOENT, why)
        }
        Some(Mount::Private { target, .. }) => {
            owns = true;
            Verdict::allowed(format!("{} is private: it begins empty and ends with the agent", target.display()))
        }
        Some(Mount::Device { .. } | Mount::Terminals) => {
            owns = true;
            Verdict::allowed("a device of every ring")
        }
        Some(
            Mount::File { .. } | Mount::Proc { view: ProcView::ReadOnly } | Mount::Link { .. } | Mount::Pin { .. },
        ) if is_write => read_only(format!("{} is part of the ring's own root", path.display())),
        Some(Mount::Proc { .. }) => {
            let (verdict, of_process) = procfs(&path);
            owns = of_process;
            verdict
        }
        Some(Mount::File { .. } | Mount::Link { .. } | Mount::Pin { .. }) => {
            owns = true;
            Verdict::allowed("part of the ring's own root")
        }
    };
    Seen { verdict, owns }
}

/// What only those see of a process who may trace it (proc(5), ptrace(2): PTRACE_MODE_READ). Nobody may trace an init of ours: it
/// isn't dumpable.
const OF_TRACERS: [&str; 23] = [
    "auxv",
    "cwd",
    "environ",
    "exe",
    "fd",
    "fdinfo",
    "io",
    "map_files",
    "maps",
    "mem",
    "ns",
    "numa_maps",
    "pagemap",
    "personality",
    "root",
    "smaps",
    "smaps_rollup",
    "stack",
    "syscall",
    "task",
    "timers",
    "wchan",
    "clear_refs",
];

/// Reading below the ring's own /proc, and whether that is of a process. Who has which number there, the plan doesn't know: but 1.
fn procfs(path: &Path) -> (Verdict, bool) {
    let mut names = path.strip_prefix("/proc").into_iter().flat_map(Path::iter).filter_map(std::ffi::OsStr::to_str);
    let (first, second) = (names.next().unwrap_or_default(), names.next());
    let allowed = || Verdict::allowed("part of the ring's own root");
    match first {
        "self" | "thread-self" => (Verdict::allowed("its own process, in the ring's own /proc"), true),
        "1" => match second.filter(|name| OF_TRACERS.contains(name)) {
            Some(name) => {
                let why = format!("process 1 is the ring's own init, and {name} is shown to nobody but itself");
                (Verdict::denied("process", OTHER_PROCESS, libc::EACCES, why), true)
            }
            None => (allowed(), true),
        },
        pid if !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) => {
            let why = format!(
                "/proc is the ring's own: {pid} is there whichever of the agent's own processes has that number then; of its own it sees all, of the host's nothing"
            );
            (Verdict::Unknown { why }, true)
        }
        _ => (allowed(), false),
    }
}

/// What becomes of a connection to `to` in this ring.
pub fn connect(plan: &AgentPlan, ring: Ring, to: &HostPort) -> Verdict {
    match ring {
        Ring::R0 => return Verdict::allowed("the host's own network"),
        Ring::R3 if plan.models.has_routes_at(ring) => {
            let why = "R3 reaches nothing but the model routes that the operator leaves to it";
            return Verdict::denied("network", "network.none", libc::EACCES, why);
        }
        Ring::R3 => return Verdict::denied("network", "network.none", libc::EACCES, "R3 has no network"),
        Ring::R1 | Ring::R2 => {}
    }
    if let Some(forward) = plan.forwards_at(ring).iter().find(|forward| forward.target == *to) {
        return Verdict::allowed(format!("forwarded from {} in its own network", forward.listen));
    }
    let named = plan.destinations_at(ring);
    if named.is_empty() {
        return Verdict::denied("network", "network.default", libc::ECONNREFUSED, "no destination is declared");
    }
    let declared = || format!("declared: {}", named.join(", "));
    let unreadable = || Verdict::denied("network", "network.names", libc::ECONNREFUSED, declared());
    let Ok(authority) = Authority::parse(&to.to_string()) else { return unreadable() };
    let Ok(policy) = plan.network.policy_at(ring, 0) else { return unreadable() };
    // A client that speaks HTTP or TLS; one that speaks neither needs a `tcp` entry, and goes through SOCKS5.
    let mut decided =
        [Via::Connect, Via::Socks].map(|via| policy.decide(&Ask::new(authority.clone(), via))).into_iter();
    match (decided.next(), decided.next()) {
        (Some(Decided::Allowed(permit)), _) => {
            Verdict::allowed(format!("the proxy in its own network: rule {}", permit.rule))
        }
        (_, Some(Decided::Allowed(permit))) => {
            Verdict::allowed(format!("SOCKS5 in its own network: rule {}", permit.rule))
        }
        (Some(Decided::Denied(denial)), _) => {
            let why = format!("{denial}; {}", declared());
            Verdict::denied("network", denial.rule.to_string(), libc::ECONNREFUSED, why)
        }
        (None, _) => unreadable(),
    }
}

/// The options of a ring's filter. The secret of the launcher's own exec is nobody's: that call is never asked about.
#[must_use]
pub fn filter_options(ring: Ring, namespaces: i32) -> Option<Options> {
    let mut options = Options::new(ring, ExecCookie::new(0)).ok()?;
    if namespaces == 0 && ring != Ring::R0 {
        options.sockets = Sockets::UnixPairs;
    }
    Some(options)
}

/// What becomes of a system call by name, whatever its arguments, in a ring whose filter is made from `options`. `None`: the
/// kernel's table here has no such call.
#[must_use]
pub fn call(ring: Ring, options: &Options, name: &str) -> Option<Verdict> {
    // Who answers a refused call changes nothing about what is refused.
    let options = Options { notify: Notify::Off, names: Names::Free, ..*options };
    let number = options.arch.number(name)?;
    let group = groups::of(name)?;
    let rule = format!("seccomp.{}", group.name);
    let refusals: Vec<String> = checks::of(name, ring)
        .filter(|check| (check.check)(&options).is_some())
        .map(|check| format!("{} ({})", check.refuses, check.why))
        .collect();
    Some(match builtin::policy(ring, &options).rules.get(&number)? {
        Rule::Always(Decision::Refuse(refusal)) => {
            let errno = if *refusal == Refusal::NoSuchCall { libc::ENOSYS } else { libc::EPERM };
            Verdict::denied("seccomp", rule, errno, group.why)
        }
        Rule::Checked(_) => Verdict::allowed(format!("allowed by its arguments; refused: {}", refusals.join("; "))),
        Rule::Always(_) => Verdict::allowed(format!("{rule}: {}", group.why)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_rings::plan::Execute;
    use agt_rings::seccomp::Nested;

    use super::*;

    fn bind(path: &str, access: Access) -> Mount {
        Mount::Bind { source: path.into(), target: path.into(), access, id_map: None }
    }

    const THERE: Mode = Mode { bits: 0o100_644, uid: 0, gid: 0 };

    fn mounts() -> Vec<Mount> {
        vec![
            Mount::Link { target: "/bin".into(), to: "usr/bin".into() },
            Mount::Private { target: "/tmp".into(), mode: 0o1777, execute: Execute::Allowed },
            bind("/usr", Access::Read),
            bind("/w", Access::Write),
            Mount::Pin { target: "/w/.git".into() },
            Mount::Protect { target: "/w/.git/hooks".into() },
            Mount::Hide { target: "/w/s.sock".into() },
            Mount::Proc { view: ProcView::ReadOnly },
        ]
    }

    fn told(path: &str, access: Access) -> Result<String, (&'static str, i32)> {
        match built(&mounts(), Path::new(path), access, Some(THERE)).verdict {
            Verdict::Allowed { by } => Ok(by),
            Verdict::Denied { layer, errno, .. } => Err((layer, errno)),
            Verdict::Unknown { .. } => Err(("unknown", 0)),
        }
    }

    #[test]
    fn the_innermost_mount_decides() {
        assert!(told("/usr/lib/x", Access::Read).is_ok() && told("/bin/sh", Access::Read).is_ok());
        assert_eq!(told("/bin/sh", Access::Write), Err(("mounts", libc::EROFS)));
        assert!(told("/w/.git/config", Access::Write).is_ok(), "a pin is no wall");
        assert_eq!(told("/w/.git/hooks/pre-commit", Access::Write), Err(("mounts", libc::EROFS)));
        assert!(told("/w/.git/hooks/pre-commit", Access::Read).is_ok());
        assert_eq!(told("/w/s.sock", Access::Read), Err(("mounts", libc::ENOENT)));
        assert_eq!(told("/srv/data", Access::Read), Err(("mounts", libc::ENOENT)));
        assert_eq!(told("/wide", Access::Read), Err(("mounts", libc::ENOENT)), "no prefix of a name");
        assert_eq!(told("/tmp/of-the-host", Access::Read), Err(("mounts", libc::ENOENT)));
        assert!(told("/tmp/x", Access::Write).is_ok() && told("/tmp", Access::Read).is_ok());
        assert!(told("/", Access::Read).unwrap().contains("only what the ring shows"));
    }

    #[test]
    fn of_processes_a_plan_knows_the_agents_own_and_the_init_and_says_so_of_others() {
        assert!(told("/proc/self/environ", Access::Read).is_ok() && told("/proc/meminfo", Access::Read).is_ok());
        assert_eq!(told("/proc/1/environ", Access::Read), Err(("process", libc::EACCES)));
        assert_eq!(told("/proc/1/fd/3", Access::Read), Err(("process", libc::EACCES)));
        assert!(told("/proc/1/status", Access::Read).is_ok());
        assert_eq!(told("/proc/4711/environ", Access::Read), Err(("unknown", 0)));
        assert_eq!(told("/proc/self/environ", Access::Write), Err(("mounts", libc::EROFS)));
    }

    #[test]
    fn the_policy_that_filters_are_made_from_answers_for_calls() {
        let of = |ring| filter_options(ring, i32::MAX).unwrap();
        let r2 = Options { notify: Notify::Refusals, names: Names::Asked, ..of(Ring::R2) };
        assert!(matches!(call(Ring::R2, &r2, "mount"), Some(Verdict::Denied { errno: libc::EPERM, .. })));
        assert!(matches!(call(Ring::R2, &r2, "clone3"), Some(Verdict::Denied { errno: libc::ENOSYS, .. })));
        assert!(matches!(call(Ring::R0, &of(Ring::R0), "mount"), Some(Verdict::Allowed { .. })));
        let nested = Options { nested: Nested::Allowed, ..r2 };
        assert!(matches!(call(Ring::R2, &nested, "mount"), Some(Verdict::Allowed { .. })));
        let Some(Verdict::Allowed { by }) = call(Ring::R2, &r2, "socket") else { panic!("refused") };
        assert!(by.contains("refused: families"), "{by}");
        assert_eq!(call(Ring::R2, &r2, "no_such_call"), None);
        let calls = Options { sockets: Sockets::Calls, ..of(Ring::R3) };
        assert!(matches!(call(Ring::R3, &calls, "bind"), Some(Verdict::Denied { errno: libc::EPERM, .. })));
        assert!(matches!(call(Ring::R3, &of(Ring::R3), "bind"), Some(Verdict::Allowed { .. })));
    }

    #[test]
    fn a_file_for_its_owner_alone_is_none_for_another_uid() {
        let mode = Mode { bits: 0o100_640, uid: 1000, gid: 5 };
        assert!(may(mode, (1000, 9), Access::Write) && may(mode, (7, 5), Access::Read));
        assert!(!may(mode, (7, 5), Access::Write) && !may(mode, (7, 7), Access::Read));
    }
}
