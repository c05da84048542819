//! The people of a test: a victim, an injector that can be killed, and its guardian.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use agt_chaos::guardian::{ArmedGuardian, GuardianProcess, Guardians};
use agt_chaos::kernel;
use agt_chaos::undo::{ProcessId, RunId, Undo, UndoEntry, UndoId};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;

/// The first argument of an injector.
pub(crate) const INJECTOR: &str = "--be-the-injector";
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a guardian holds an undo in tests that aren't about that.
pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const NOBODY: u32 = 65534;

/// Waits for what no descriptor tells.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn undo(entries: Vec<UndoEntry>) -> Undo {
    let boot = kernel::boot_id().unwrap();
    Undo { id: UndoId("run/0".into()), run: RunId("run".into()), agent: "victim".into(), boot, entries }
}

/// A child that sleeps, killed at the end of its test.
pub(crate) struct Victim(pub(crate) Child);

impl Victim {
    pub(crate) fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    pub(crate) fn of_nobody() -> Self {
        Self(Command::new("sleep").arg("1000").uid(NOBODY).gid(NOBODY).spawn().unwrap())
    }

    /// A shell that starts a child of its own when it is told to.
    pub(crate) fn shell() -> Self {
        let script = "read go; sleep 1000 & echo started; wait";
        Self(Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    pub(crate) fn fork(&mut self) {
        assert_eq!(self.ask(), "started");
    }

    /// A shell that opens a file whenever it is asked, and says how it went.
    pub(crate) fn opener() -> Self {
        let script = "while read go; do if true </dev/null; then echo opened; else echo failed; fi; done";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn ask(&mut self) -> String {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn id(&self) -> ProcessId {
        kernel::identify(self.0.id() as i32).unwrap().unwrap()
    }

    pub(crate) fn stop(&self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGSTOP).unwrap();
        wait_for("the victim to stand still", || self.is_stopped());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        stat.rsplit_once(") ").unwrap().1.starts_with('T')
    }

    pub(crate) fn soft_limit(&self) -> u64 {
        kernel::file_limits(self.id()).unwrap().unwrap().soft
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that has armed a guardian and waits.
pub(crate) struct Injector {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub(crate) guardian: Guardian,
}

/// Somebody else's child, known by its pidfd.
pub(crate) struct Guardian {
    pub(crate) id: ProcessId,
    fd: std::os::fd::OwnedFd,
}

impl Guardian {
    pub(crate) fn new(pid: i32) -> Self {
        let id = kernel::identify(pid).unwrap().unwrap();
        Self { id, fd: kernel::open_process(id).unwrap().unwrap() }
    }

    pub(crate) fn wait_for_end(&self) {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let ms = PollTimeout::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut fds, ms).unwrap(), 1, "the guardian didn't end");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id.pid), signal).unwrap();
    }
}

impl Injector {
    pub(crate) fn arm(undo: &Undo, within: Duration) -> Self {
        Self::start(Command::new("/proc/self/exe"), undo, within)
    }

    pub(crate) fn start(mut command: Command, undo: &Undo, within: Duration) -> Self {
        command.arg(INJECTOR).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut orders = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        writeln!(orders, "{}", serde_json::to_string(&(undo, within.as_millis() as u64)).unwrap()).unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap_or_else(|_| panic!("the injector said {line:?}"));
        Self { child, orders: Some(orders), answers, guardian: Guardian::new(pid) }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Disarms the guardian, and ends.
    pub(crate) fn disarm(&mut self) {
        drop(self.orders.take());
        let mut rest = String::new();
        self.answers.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "disarmed\n");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The injector's main: arms a guardian, says its pid, and waits for the end of its stdin to disarm it.
pub(crate) fn be_injector() -> ExitCode {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let (undo, within): (Undo, u64) = serde_json::from_str(&line).unwrap();
    runtime().block_on(async {
        let armed = GuardianProcess::default().arm(&undo, Duration::from_millis(within)).await.unwrap();
        println!("{}", armed.pid());
        std::io::stdin().read_line(&mut line).unwrap();
        armed.disarm().await.unwrap();
        println!("disarmed");
    });
    ExitCode::SUCCESS
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
