//! A rig per test: a folder of its own, a state directory of its own, and the program.

pub mod pulse;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Generous: two cores, many tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test. `AGT_TEST_BINARY` names a copy where an ordinary user can't reach the build folder.
pub fn binary() -> PathBuf {
    std::env::var_os("AGT_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_agt-supervise").into(), PathBuf::from)
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says that a test can't run here. Where CI knows that it can, a skip is a failure.
pub fn skip(test: &str, reason: &str) {
    println!("SKIP {test}: {reason}");
    eprintln!("SKIP {test}: {reason}");
    assert!(
        std::env::var_os("AGT_FORBID_SKIPS").is_none() || !is_root(),
        "{test} was skipped, which is forbidden here: {reason}"
    );
}

/// Whether the rings can be enforced in full here, as far as a test needs it.
pub fn needs_root(test: &str) -> bool {
    if !is_root() {
        skip(test, "needs root");
    }
    is_root()
}

pub struct Rig {
    pub dir: tempfile::TempDir,
    pub state: PathBuf,
    pub work: PathBuf,
}

impl Rig {
    pub fn new() -> Rig {
        let dir = tempfile::Builder::new().prefix("agt-test-").tempdir().unwrap();
        // The agent's uid walks through it.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let state = dir.path().join("state");
        let work = dir.path().join("work");
        std::fs::create_dir(&work).unwrap();
        Rig { dir, state, work }
    }

    /// Writes an agent.yaml; `version` is added.
    pub fn agent(&self, name: &str, rest: &str) -> PathBuf {
        let path = self.work.join(format!("{name}.yaml"));
        std::fs::write(&path, format!("version: 1\nname: {name}\n{rest}")).unwrap();
        path
    }

    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(binary());
        command.env("RUST_BACKTRACE", "1").arg("--state-dir").arg(&self.state).args(args).current_dir(&self.work);
        command.stdin(Stdio::null());
        command
    }

    pub fn output<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::from(self.command(args).output().unwrap())
    }

    /// Runs `script` with sh in `ring`; best effort where this user can't have limits.
    pub fn sh(&self, ring: u8, script: &str) -> Outcome {
        let file = self.agent("sh", &format!("ring: {ring}\n{}command: [sh, -c, {}]\n", effort(), quoted(script)));
        self.output([OsStr::new("run"), file.as_os_str()])
    }

    /// Starts a supervisor and waits until its agent runs.
    pub fn start(&self, file: &Path) -> Supervisor {
        self.start_waiting(file, "running")
    }

    /// Starts a supervisor and waits until its agent is in this state.
    pub fn start_waiting(&self, file: &Path, state: &str) -> Supervisor {
        let child = self
            .command([OsStr::new("run"), file.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let supervisor = Supervisor { child: Some(child) };
        until("the agent runs", || {
            let ps = self.output(["ps", "--json"]);
            ps.code == 0 && ps.stdout.contains(&format!("\"state\": \"{state}\""))
        });
        supervisor
    }

    /// Asks the supervisor so many times, one after the other: for what must not happen meanwhile. On a busy machine it takes longer,
    /// as everything else does.
    pub fn ask_again_and_again(&self, times: usize) {
        for _ in 0..times {
            assert_eq!(self.output(["ps"]).code, 0);
        }
    }

    /// The agents as `ps --json` has them.
    pub fn ps(&self) -> serde_json::Value {
        serde_json::from_str(&self.output(["ps", "--json"]).stdout).unwrap()
    }
}

impl Drop for Rig {
    /// A supervisor that a test killed left its groups for the next start, which this state directory will not see.
    fn drop(&mut self) {
        let Ok(record) = std::fs::read(self.state.join("cgroup.json")) else { return };
        let swept = serde_json::from_slice(&record)
            .map_err(|e| e.to_string())
            .and_then(|tree| agt_rings::cgroup::base::sweep_recorded(&tree, PATIENCE).map_err(|e| e.to_string()));
        if let Err(e) = swept
            && !std::thread::panicking()
        {
            panic!("the test's cgroups could not be removed: {e}");
        }
    }
}

/// Ordinary users have no cgroups on the machines that run these tests.
pub fn effort() -> &'static str {
    if is_root() { "" } else { "enforcement: best-effort\n" }
}

/// A YAML double-quoted string: JSON's are a subset.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A supervisor that a failing test does not leave behind.
pub struct Supervisor {
    pub child: Option<Child>,
}

impl Supervisor {
    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed())
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    pub fn wait(mut self) -> Outcome {
        Outcome::from(self.child.take().unwrap().wait_with_output().unwrap())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[derive(Debug)]
pub struct Outcome {
    /// The exit code; 128+n for a signal.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Outcome {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Waits for a condition, bounded.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    // Most questions start a program: asked at one pace all along they would take the processor from what is waited for.
    let mut pause = Duration::from_millis(10);
    while !done() {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(60));
    }
}

/// Does the work for each item, so many at a time: for what mostly waits and shares nothing. A panic of one is the test's.
pub fn side_by_side<T: Send>(items: impl IntoIterator<Item = T>, at_once: usize, work: impl Fn(T) + Sync) {
    let items = std::sync::Mutex::new(items.into_iter().collect::<std::collections::VecDeque<_>>());
    let next = || items.lock().unwrap().pop_front();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| std::iter::from_fn(next).for_each(&work));
        }
    });
}

/// Processes whose command line holds this text, this test process itself left out.
pub fn processes_with(text: &str) -> Vec<i32> {
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "));
            !zombie && String::from_utf8_lossy(&line).contains(text)
        })
        .map(|pid| pid.parse().unwrap())
        .collect()
}

/// A text that no other test has, to be found in command lines.
pub fn unique(stem: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
