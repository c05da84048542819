//! The checker: the process inside the ring that starts health checks.
//!
//! The init could start them itself only if it kept CAP_SETUID and CAP_SETGID beside a running agent, to become the agent once
//! more each time. So before the agent exists the init forks this process, which gives up the same things that the agent gives
//! up (uid, groups, capabilities, bounding set) in the same code, joins the same cgroups, and waits. It holds no power that
//! a check would not have, so starting one needs none; and the init is as it is without a health check. It has the agent's
//! uid, is not dumpable, so that the agent can't look into it, and an agent that stops or kills it gets no check passed.
//!
//! Each check is a child that takes the agent's remaining steps: session, streams, workdir, descriptor limit, Landlock,
//! seccomp, and in R3 the one exec. Its orphans come back here (PR_SET_CHILD_SUBREAPER), and nothing of a check is left when
//! its end is told. The checker itself dies with the tree: it is in the agent's PID namespace and cgroup.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::child::{self, For, Prepared};
use super::init::replace_with_nothing;
use super::protocol::{Ask, CheckEnd, CheckWord, Failure};
use crate::plan::Plan;
use crate::sys::fdpass;
use crate::sys::process::{self, Cloned};

/// Rounds of ending what a check has left behind: each ends a whole generation, and the task limit bounds what there can be.
const ROUNDS_MAX: usize = 1000;

/// Starts the plan's checker and waits until it is confined; the supervisor's end of its socket.
///
/// `door`: where the listeners of its checks' filters go.
pub(super) fn start(
    plan: &Plan,
    agent: &Prepared,
    landlock: Option<&OwnedFd>,
    door: Option<RawFd>,
) -> Result<Option<OwnedFd>, Failure> {
    let Some(check) = &plan.check else { return Ok(None) };
    let failed = |step: &'static str| move |e: io::Error| Failure::new(step, &e);
    let mut prepared = Prepared::new(plan, &For::Check(check), landlock)?;
    prepared.listen(door);
    let (ours, theirs) = fdpass::pair().map_err(failed("make the checker's socket"))?;
    // SAFETY: an init is single-threaded: it was forked by a single-threaded launcher and starts no thread.
    let cloned = unsafe { process::fork_into(0, agent.cgroup()) };
    match cloned.map_err(failed("fork the checker"))? {
        Cloned::Child => {
            drop(ours);
            let kept = landlock.map(AsRawFd::as_raw_fd).into_iter().chain(door).collect();
            live(agent, prepared, theirs, kept)
        }
        Cloned::Parent { .. } => drop(theirs),
    }
    let gone = || Failure { step: "confine the checker: it ended".to_owned(), errno: 0 };
    let (bytes, _) = fdpass::receive(ours.as_fd()).map_err(failed("hear the checker"))?.ok_or_else(gone)?;
    match serde_json::from_slice(&bytes).map_err(|e| failed("hear the checker")(e.into()))? {
        CheckWord::Ready => Ok(Some(ours)),
        CheckWord::Failed(failure) => Err(failure),
        CheckWord::Ended { .. } => Err(gone()),
    }
}

/// The checker's whole life.
fn live(agent: &Prepared, mut check: Prepared, socket: OwnedFd, kept: Vec<RawFd>) -> ! {
    let word = confine(agent, socket.as_raw_fd(), kept).map_or_else(CheckWord::Failed, |()| CheckWord::Ready);
    let confined = matches!(word, CheckWord::Ready);
    if tell(socket.as_fd(), &word).is_ok() && confined {
        serve(socket.as_fd(), &mut check);
    }
    // SAFETY: ends the process without running the exit handlers of the launcher, whose copy it is.
    unsafe { libc::_exit(0) }
}

fn confine(agent: &Prepared, socket: RawFd, mut kept: Vec<RawFd>) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: io::Error| Failure::new(step, &e);
    // SAFETY: this process has one thread, which alone has its memory.
    let shed = unsafe { child::join_groups(agent).and_then(|()| child::shed(agent)) };
    shed.map_err(|step| Failure::new(format!("confine the checker: {}", step.words()), &io::Error::last_os_error()))?;
    process::set_non_dumpable().map_err(failed("make the checker non-dumpable"))?;
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map_err(failed("make the checker a subreaper"))?;
    for number in 0..3 {
        replace_with_nothing(number).map_err(failed("let go of the launcher's streams in the checker"))?;
    }
    kept.push(socket);
    // Who owned the others never drops them: this process ends without unwinding.
    process::close_all_but(&mut kept).map_err(failed("close descriptors in the checker"))
}

fn tell(socket: BorrowedFd<'_>, word: &CheckWord) -> io::Result<()> {
    fdpass::send(socket, &serde_json::to_vec(word)?, &[])
}

/// Runs checks, one at a time, until the supervisor lets go of the socket.
fn serve(socket: BorrowedFd<'_>, check: &mut Prepared) {
    while let Ok(Some((bytes, fds))) = fdpass::receive(socket) {
        let Ok(Ask { id, timeout_ms }) = serde_json::from_slice(&bytes) else { return };
        let mut fds = fds.into_iter();
        let (Some(input), Some(output)) = (fds.next(), fds.next()) else { return };
        let end = run(socket, check, input, output, Duration::from_millis(timeout_ms));
        if tell(socket, &CheckWord::Ended { id, end }).is_err() {
            return;
        }
    }
}

fn run(socket: BorrowedFd<'_>, check: &mut Prepared, input: OwnedFd, output: OwnedFd, timeout: Duration) -> CheckEnd {
    let deadline = Instant::now() + timeout;
    check.connect([input.as_raw_fd(), output.as_raw_fd(), output.as_raw_fd()]);
    let started = child::start(check);
    // Ours must be closed, so that whoever reads sees the end.
    drop((input, output));
    let end = match started {
        Err(failure) => CheckEnd::NotStarted(failure),
        Ok(started) => {
            let in_time = wait(started.pidfd.as_fd(), socket, deadline);
            let pid = Pid::from_raw(started.pid);
            if !in_time {
                // ESRCH: it has just ended. The group first: it is the check's own session.
                let _ = kill(Pid::from_raw(-started.pid), Signal::SIGKILL);
                let _ = process::pidfd_send_signal(started.pidfd.as_fd(), libc::SIGKILL);
            }
            match status_of(pid) {
                _ if !in_time => CheckEnd::TimedOut,
                Ok(WaitStatus::Exited(_, code)) => CheckEnd::Exited(code),
                Ok(WaitStatus::Signaled(_, signal, _)) => CheckEnd::Signaled(signal as i32),
                Ok(_) => CheckEnd::Signaled(0),
                Err(e) => CheckEnd::NotStarted(Failure::new("wait for the check", &e.into())),
            }
        }
    };
    end_children();
    end
}

fn status_of(pid: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(pid, None) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// Whether the check ended by itself. A supervisor that is gone ends it as its time does.
fn wait(check: BorrowedFd<'_>, socket: BorrowedFd<'_>, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a poll of 0 ms would spin through the last one.
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(check, PollFlags::POLLIN), PollFd::new(socket, PollFlags::empty())];
        match poll(&mut fds, left) {
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return false,
            Ok(_) => {}
        }
        let happened = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if happened(&fds[0]) {
            return true;
        }
        if happened(&fds[1]) || Instant::now() >= deadline {
            return false;
        }
    }
}

/// Ends and reaps every child until there is none: orphans of a check are our children.
fn end_children() {
    let children = format!("/proc/self/task/{}/children", nix::unistd::getpid());
    for _ in 0..ROUNDS_MAX {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        for pid in text.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // A child of ours that we have not reaped: its number can't have been given to another.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if waitpid(None, None) == Err(nix::errno::Errno::ECHILD) {
            return;
        }
    }
}
