//! From the init to the agent's program: a child that shares the init's memory until it executes, or is a fork of it.
//!
//! CLONE_VM|CLONE_VFORK: no page table is copied, and the parent sleeps until the exec, so the child can say in plain memory
//! which step failed. It must not allocate, lock or panic: raw system calls over data prepared beforehand. Every step is
//! commented with why it stands where it stands. Where that clone can't be had (`Birth::Fork`) a fork takes the same steps by
//! the same code, and says which one failed over a pipe that the exec closes.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use super::fork;
use super::given::Wiring;
use super::protocol::Failure;
use super::step::Step;
use crate::builtin;
use crate::capability::Capabilities;
use crate::plan::{Ids, LeftOut, Plan, Start};
use crate::spec::Terminal;
use crate::sys::birth::{self, Birth};
use crate::sys::{notify, process};

const STACK_BYTES: usize = 64 * 1024;

/// Everything the child needs, made before it exists.
pub(super) struct Prepared {
    program: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    workdir: CString,
    streams: [RawFd; 3],
    cgroup: Option<RawFd>,
    tasks: Vec<RawFd>,
    ids: Option<Ids>,
    open_files: u64,
    landlock: Option<RawFd>,
    filters: Vec<Vec<libc::sock_filter>>,
    start: Start,
    birth: Birth,
    exec_cookie: u64,
    /// Where the listener of the last filter goes, if it has one.
    door: Option<RawFd>,
    terminal: Terminal,
    capabilities: Capabilities,
    /// None outside a debug build.
    left_out: Option<LeftOut>,
}

/// What else a [`Prepared`] is made for.
pub(super) enum For<'a> {
    /// The agent itself.
    Agent(&'a Wiring),
    /// A check of it, started by a process that is confined already: [`shed`] and [`join_groups`] have nothing left to do.
    Check(&'a crate::spec::Check),
    /// Only what is given up before anything else: for a process that is forked before the agent is connected.
    Shedding,
}

/// A started agent, from the init's side.
pub(super) struct Agent {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

impl Prepared {
    pub(super) fn new(
        plan: &Plan,
        whom: &For<'_>,
        landlock: Option<&OwnedFd>,
        birth: Birth,
    ) -> Result<Prepared, Failure> {
        let text = |s: &OsStr| {
            CString::new(s.as_bytes())
                .map_err(|_| Failure { step: format!("use {s:?}: it holds a NUL byte"), errno: libc::EINVAL })
        };
        let env = plan.env.iter().map(|(key, value)| {
            let mut both = key.clone();
            both.push("=");
            both.push(value);
            text(&both)
        });
        let (program, argv) = match whom {
            For::Agent(_) | For::Shedding => (&plan.program, &plan.argv),
            For::Check(check) => (&check.program, &check.argv),
        };
        let given = match whom {
            For::Agent(given) => Some(given),
            For::Check(_) | For::Shedding => None,
        };
        Ok(Prepared {
            program: text(program.as_os_str())?,
            argv: argv.iter().map(|arg| text(arg)).collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            workdir: text(plan.workdir.as_os_str())?,
            streams: given.map_or([-1; 3], |given| [0, 1, 2].map(|number: usize| given.streams[number].as_raw_fd())),
            cgroup: given.and_then(|given| given.cgroup.as_ref()).map(AsRawFd::as_raw_fd),
            tasks: given.map_or_else(Vec::new, |given| given.tasks.iter().map(AsRawFd::as_raw_fd).collect()),
            ids: plan.ids.filter(|_| !matches!(whom, For::Check(_))),
            open_files: plan.open_files,
            landlock: landlock.map(AsRawFd::as_raw_fd),
            filters: plan.filters.as_ref().map_or_else(Vec::new, |filters| {
                filters.programs().iter().map(|program| program.as_sock_filters().to_vec()).collect()
            }),
            start: plan.start,
            birth,
            exec_cookie: plan.exec_cookie.secret(),
            door: None,
            terminal: if given.is_some() { plan.terminal } else { Terminal::None },
            capabilities: plan.capabilities,
            left_out: plan.left_out.filter(|step| plan.leaves_out(*step)),
        })
    }

    /// Other standard streams: each check has its own.
    pub(super) fn connect(&mut self, streams: [RawFd; 3]) {
        self.streams = streams;
    }

    /// The last filter has a listener, which goes to whoever listens behind this socket.
    pub(super) fn listen(&mut self, door: Option<RawFd>) {
        self.door = door;
    }

    /// The cgroup v2 directory that the child is born into.
    pub(super) fn cgroup(&self) -> Option<RawFd> {
        self.cgroup
    }
}

/// What a child works with, and what it says.
pub(super) struct Shared<'a> {
    prepared: &'a Prepared,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    failed: Failed,
}

/// The step that failed, and the kernel's answer.
pub(super) type Failed = Option<(Step, i32)>;

/// Starts the program; returns once it was executed.
pub(super) fn start(prepared: &Prepared) -> Result<Agent, Failure> {
    let pointers = |texts: &[CString]| {
        let mut list: Vec<*const libc::c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        list.push(std::ptr::null());
        list
    };
    let mut shared = Shared { prepared, argv: pointers(&prepared.argv), env: pointers(&prepared.env), failed: None };
    let (agent, failed) = match prepared.birth {
        Birth::Direct => start_directly(&mut shared)?,
        Birth::Fork => fork::start(&shared)?,
    };
    match failed {
        None => Ok(agent),
        Some((step, errno)) => {
            let what = match step {
                Step::Execute | Step::OpenProgram => format!("{} {}", step.words(), prepared.program.to_string_lossy()),
                Step::Workdir => format!("{} {}", step.words(), prepared.workdir.to_string_lossy()),
                _ => step.words().to_owned(),
            };
            Err(Failure { step: what, errno })
        }
    }
}

fn start_directly(shared: &mut Shared<'_>) -> Result<(Agent, Failed), Failure> {
    let mut stack = vec![0u8; STACK_BYTES];
    let cgroup = shared.prepared.cgroup;
    // SAFETY: the stack outlives the child's use of it, because CLONE_VFORK holds us until the child has executed or ended;
    // `shared` is this thread's alone and so is touched by the child alone until then; `enter` takes raw system calls over it
    // ([`perform`]), allocates and locks nothing, and never returns.
    let cloned = unsafe { birth::vfork_on(&mut stack, cgroup, enter, std::ptr::from_mut(shared).cast()) };
    let (pid, pidfd) = cloned.map_err(|e| Failure::new("clone the agent", &e))?;
    // SAFETY: a volatile read: the child wrote through another pointer to the same memory.
    let failed = unsafe { std::ptr::read_volatile(&raw const shared.failed) };
    Ok((Agent { pid, pidfd }, failed))
}

extern "C" fn enter(shared: *mut libc::c_void) -> ! {
    // SAFETY: `start` passes a live Shared that only this child touches while its parent sleeps in vfork.
    let shared = unsafe { &mut *shared.cast::<Shared<'_>>() };
    // SAFETY: raw system calls over prepared data, see `perform`.
    let Err(step) = unsafe { perform(shared) };
    // SAFETY: errno of this thread of execution; the parent sleeps.
    shared.failed = Some((step, unsafe { *libc::__errno_location() }));
    // SAFETY: ends only this child.
    unsafe { libc::_exit(127) }
}

fn ok(ret: libc::c_long, step: Step) -> Result<(), Step> {
    if ret < 0 { Err(step) } else { Ok(()) }
}

/// Why raw `syscall` and not the wrappers: glibc's setuid family signals every thread of a process, which is the init's here.
///
/// # Safety
/// To be called in a child that has one thread: a vforked one that shares its parent's memory, `shared` with it, or a fork.
pub(super) unsafe fn perform(shared: &Shared<'_>) -> Result<std::convert::Infallible, Step> {
    let p = shared.prepared;
    // SAFETY: each call gets numbers or pointers into `shared`; none of them returns memory.
    unsafe {
        join_groups(p)?;
        // Rust ignores SIGPIPE and the init blocks SIGCHLD; a program expects neither.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        ok(libc::sigaction(libc::SIGPIPE, &raw const action, std::ptr::null_mut()).into(), Step::Signals)?;
        let none: libc::sigset_t = std::mem::zeroed();
        ok(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()).into(), Step::Signals)?;
        // A session of its own: no terminal, no process group, is shared with anyone outside.
        ok(libc::syscall(libc::SYS_setsid), Step::Session)?;
        connect_streams(p)?;
        if p.terminal == Terminal::Controlling {
            ok(libc::ioctl(0, libc::TIOCSCTTY, 0).into(), Step::Terminal)?;
        }
        shed(p)?;
        // As the agent's uid: what it can't enter it must not start in.
        ok(libc::syscall(libc::SYS_chdir, p.workdir.as_ptr()), Step::Workdir)?;
        let exec_fd = libc::c_long::from(builtin::EXEC_FD);
        if p.start == Start::Once {
            number_the_program(p, exec_fd)?;
        }
        if p.left_out != Some(LeftOut::Limits) {
            set_limit(libc::RLIMIT_NOFILE, p.open_files, p.open_files, Step::FileLimit)?;
        }
        if let Some(ruleset) = p.landlock {
            ok(libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0), Step::Landlock)?;
        }
        if p.left_out != Some(LeftOut::Descriptors) {
            ok(libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4 /* CLOSE_RANGE_CLOEXEC */), Step::Descriptors)?;
        }
        // Last: the filters refuse most of the calls above.
        load_filters(p)?;
        let (argv, env) = (shared.argv.as_ptr(), shared.env.as_ptr());
        match p.start {
            // The sixth argument means nothing to the kernel; the filter knows our exec by it.
            Start::Path => libc::syscall(libc::SYS_execve, p.program.as_ptr(), argv, env, 0, 0, p.exec_cookie),
            Start::Once => {
                libc::syscall(libc::SYS_execveat, exec_fd, c"".as_ptr(), argv, env, libc::AT_EMPTY_PATH, p.exec_cookie)
            }
        };
    }
    Err(Step::Execute)
}

/// # Safety
/// As [`perform`].
pub(super) unsafe fn join_groups(p: &Prepared) -> Result<(), Step> {
    // v1, first of all: what follows is paid by the agent's group. Writing 0 moves the writer alone, and for a process of one
    // thread the kernel needs no grace period.
    for &tasks in &p.tasks {
        // SAFETY: one byte of a constant.
        ok(unsafe { libc::syscall(libc::SYS_write, tasks, c"0".as_ptr(), 1) }, Step::Cgroup)?;
    }
    Ok(())
}

/// Gives up what the launcher could do and the agent must not: for good, in an order in which each step can still be taken.
///
/// # Safety
/// As [`perform`].
pub(super) unsafe fn shed(p: &Prepared) -> Result<(), Step> {
    // SAFETY: the caller's.
    unsafe { shed_all_but(p, p.capabilities) }
}

/// The same, with other capabilities than the agent's.
///
/// # Safety
/// As [`perform`].
pub(super) unsafe fn shed_all_but(p: &Prepared, keep: Capabilities) -> Result<(), Step> {
    // SAFETY: numbers, and pointers to locals that outlive the calls.
    unsafe {
        // 1, not 0: a `|handler` core pattern ignores 0 but not 1.
        if p.left_out != Some(LeftOut::Limits) {
            set_limit(libc::RLIMIT_CORE, 1, 1, Step::CoreLimit)?;
        }
        // The bounding set first: lowering it needs the capability that the uid change takes away.
        drop_bounding_set(p, p.capabilities)?;
        if p.left_out != Some(LeftOut::NoNewPrivileges) {
            ok(libc::syscall(libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), Step::NoNewPrivileges)?;
        }
        if let Some(ids) = p.ids {
            if !keep.is_empty() {
                // Else the uid change takes all of them; the flag ends with the exec.
                ok(libc::syscall(libc::SYS_prctl, libc::PR_SET_KEEPCAPS, 1, 0, 0, 0), Step::Capabilities)?;
            }
            ok(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()), Step::Groups)?;
            ok(libc::syscall(libc::SYS_setresgid, ids.gid, ids.gid, ids.gid), Step::Gid)?;
            ok(libc::syscall(libc::SYS_setresuid, ids.uid, ids.uid, ids.uid), Step::Uid)?;
        }
        // What an exec would pass on takes room in the bounding set, which an attendant does not have, and executes nothing.
        let kept = if keep == p.capabilities { process::keep_capabilities } else { process::drop_capabilities_but };
        ok(kept(keep).map_or(-1, |()| 0), Step::Capabilities)?;
        // After the uid change, which clears it.
        ok(libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0), Step::DeathSignal)?;
        Ok(())
    }
}

/// # Safety
/// As [`perform`].
unsafe fn connect_streams(p: &Prepared) -> Result<(), Step> {
    for (number, stream) in (0..).zip(p.streams) {
        // SAFETY: numbers only. The streams are above 2: the launcher keeps 0 to 2 open itself.
        ok(unsafe { libc::syscall(libc::SYS_dup3, stream, number, 0) }, Step::Streams)?;
    }
    Ok(())
}

/// # Safety
/// As [`perform`].
unsafe fn drop_bounding_set(p: &Prepared, keep: Capabilities) -> Result<(), Step> {
    match process::drop_bounding_set_but(keep) {
        Ok(()) => Ok(()),
        // Neither root nor a user namespace: the set can't be changed, and no_new_privs makes it worthless.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && p.ids.is_none() => Ok(()),
        Err(_) => Err(Step::BoundingSet),
    }
}

/// # Safety
/// As [`perform`].
unsafe fn set_limit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64, step: Step) -> Result<(), Step> {
    // SAFETY: prlimit64 reads and writes one rlimit64 each.
    unsafe {
        let mut current = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        let nothing = std::ptr::null::<libc::rlimit64>();
        ok(libc::syscall(libc::SYS_prlimit64, 0, resource, nothing, &raw mut current), step)?;
        // A hard limit can only be lowered: what the supervisor itself may not have, the agent gets less of.
        let limit = libc::rlimit64 { rlim_cur: soft.min(current.rlim_max), rlim_max: hard.min(current.rlim_max) };
        ok(
            libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, std::ptr::null_mut::<libc::rlimit64>()),
            step,
        )
    }
}

/// Opens the program as the agent and moves it to the number that can never be had again under the final limit.
///
/// # Safety
/// As [`perform`].
unsafe fn number_the_program(p: &Prepared, exec_fd: libc::c_long) -> Result<(), Step> {
    // SAFETY: as `perform`.
    unsafe {
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, p.program.as_ptr(), flags, 0);
        ok(fd, Step::OpenProgram)?;
        let room = u64::from(builtin::EXEC_FD) + 1;
        set_limit(libc::RLIMIT_NOFILE, room, u64::MAX, Step::ProgramNumber)?;
        ok(libc::syscall(libc::SYS_dup3, fd, exec_fd, libc::O_CLOEXEC), Step::ProgramNumber)
    }
}

/// # Safety
/// As [`perform`].
unsafe fn load_filters(p: &Prepared) -> Result<(), Step> {
    for (at, filter) in p.filters.iter().enumerate() {
        let door = p.door.filter(|_| at + 1 == p.filters.len());
        let listener = notify::load(filter, door.map(|_| notify::WAIT_KILLABLE)).map_err(|_| Step::Filters)?;
        if let Some(door) = door {
            // Ours closes with the exec.
            notify::hand_over(door, listener).map_err(|_| Step::Listener)?;
        }
    }
    Ok(())
}
