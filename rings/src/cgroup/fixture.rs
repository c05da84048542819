//! What the kernel tests stand on: a base of their own, children behind a gate, and skips that can be seen.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Base, Controller, Group, Layout, Limits};

/// Enough for an emulated machine; reached only by a test that fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The kernel tests run one at a time: opening a base moves the whole test process on v2.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A base that takes itself away.
pub(super) struct Rig {
    pub(super) base: Option<Base>,
    pub(super) layout: Layout,
    pub(super) id: String,
    _turn: MutexGuard<'static, ()>,
}

/// Says that a test did not run, past the test runner's capture. Where skips are forbidden, one that a set-up could have
/// avoided is a failure.
pub(super) fn skip(name: &str, reason: &str) {
    writeln!(std::io::stderr(), "SKIP {name}: {reason}").unwrap();
}

fn skip_or_fail(name: &str, reason: &str) {
    let forbidden = std::env::var_os("AGT_FORBID_SKIPS").is_some() && nix::unistd::geteuid().is_root();
    assert!(!forbidden, "{name} was skipped where skips are forbidden: {reason}");
    skip(name, reason);
}

impl Rig {
    /// A base on this host as it is, with all limits, or a visible skip.
    pub(super) fn host(name: &str) -> Option<Rig> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = match Layout::detect() {
            Ok(layout) => layout,
            Err(error) => {
                skip(name, &error.to_string());
                return None;
            }
        };
        Rig::with(name, layout, turn)
    }

    /// A base on the v1 hierarchies of this host alone, as on a host without v2.
    pub(super) fn legacy(name: &str) -> Option<Rig> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut layout = match Layout::detect() {
            Ok(layout) => layout,
            Err(error) => {
                skip(name, &error.to_string());
                return None;
            }
        };
        if !layout.legacy.iter().any(|(controller, _)| *controller == Controller::Freezer) {
            skip(name, "no writable v1 freezer on this host");
            return None;
        }
        layout.unified = None;
        Rig::with(name, layout, turn)
    }

    /// Both, where they can be had.
    pub(super) fn each(name: &str, test: impl Fn(&Rig)) {
        if let Some(rig) = Rig::host(name) {
            test(&rig);
        }
        if let Some(rig) = Rig::legacy(name) {
            test(&rig);
        }
    }

    fn with(name: &str, layout: Layout, turn: MutexGuard<'static, ()>) -> Option<Rig> {
        let id = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = Base::open(&layout, &id, &[]).unwrap();
        let rig = Rig { base: Some(base), layout, id, _turn: turn };
        if let Some(gap) = rig.base().gaps().first() {
            skip_or_fail(name, &gap.to_string());
            return None;
        }
        Some(rig)
    }

    pub(super) fn base(&self) -> &Base {
        self.base.as_ref().unwrap()
    }

    pub(super) fn group(&self, name: &str, limits: Limits) -> Group {
        self.base().create(name, &limits).unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let Some(base) = self.base.take() else { return };
        let _ = base.agents().kill(PATIENCE).map_err(|e| skip(&self.id, &format!("clean-up: {e}")));
        let tree = base.tree().clone();
        if let Err(error) = base.close() {
            skip(&self.id, &format!("clean-up: {error}"));
        }
        if !std::thread::panicking() {
            assert!(!tree.exists(), "left behind: {tree:?}");
        }
    }
}

/// A shell in a group, ended and reaped at the end of the test.
pub(super) struct Agent {
    pub(super) child: Child,
    stdin: ChildStdin,
}

impl Agent {
    /// Runs `script` in `group`: the shell waits at a gate until it has joined.
    pub(super) fn start(group: &Group, script: &str) -> Agent {
        let mut agent = Agent::at_gate(script, &[]);
        group.adopt(agent.pid()).unwrap();
        agent.open_gate();
        agent
    }

    pub(super) fn at_gate(script: &str, arguments: &[String]) -> Agent {
        let script = format!("read gate\n{script}");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script, "agent"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        Agent { child, stdin }
    }

    pub(super) fn open_gate(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done`, or fails saying what was awaited.
pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "still waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
