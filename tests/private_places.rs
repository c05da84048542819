//! Folders, files and sockets are made with modes of our own, and who listens where a supervisor should is looked at.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Outcome, Rig, Supervisor, binary, effort, needs_root, quoted, until};

const STRANGER: u32 = 64_111;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The program with this umask and, as a service manager gives them, a state and a runtime directory.
fn with_umask(rig: &Rig, umask: &str, runtime: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(binary()).args(args).current_dir(&rig.work);
    command.env("STATE_DIRECTORY", &rig.state).env("RUNTIME_DIRECTORY", runtime).stdin(Stdio::null());
    command
}

fn outcome(mut command: Command) -> Outcome {
    Outcome::from(command.output().unwrap())
}

#[test]
fn what_is_made_is_private_whatever_the_umask() {
    for umask in ["000", "022"] {
        let rig = Rig::new();
        let runtime = rig.dir.path().join("rt");
        // The agent has another uid when root runs this: its socket must be reachable with any umask.
        let script = "import os, socket, time\n\
                      s = socket.socket(socket.AF_UNIX)\n\
                      s.connect(os.environ['AGT_SOCKET'])\n\
                      print('connected', flush=True)\n\
                      time.sleep(1000)\n";
        let file = rig.agent("a", &format!("ring: 2\n{}command: [python3, -c, {}]\n", effort(), quoted(script)));
        let mut command = with_umask(
            &rig,
            umask,
            &runtime,
            &["run", "--stdio", "prefixed", "--metrics", "off", file.to_str().unwrap()],
        );
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let supervisor = Supervisor { child: Some(child) };
        let mut line = [0; 13];
        stdout.read_exact(&mut line).unwrap_or_else(|e| panic!("umask {umask}: the agent did not connect: {e}"));
        assert_eq!(&line, b"a | connected");
        assert_eq!(mode(&runtime), 0o755, "umask {umask}");
        assert_eq!(mode(&rig.state), 0o700, "umask {umask}");
        assert_eq!(mode(&rig.state.join("logs")), 0o700, "umask {umask}");
        for socket in ["handoff.sock", "operator.sock"] {
            assert_eq!(mode(&runtime.join(socket)), 0o600, "umask {umask}: {socket}");
        }
        let killed = outcome(with_umask(&rig, umask, &runtime, &["kill", "a", "--reason", "test", "--yes"]));
        assert_eq!(killed.code, 0, "{}", killed.stderr);
        for entry in std::fs::read_dir(&rig.state).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & 0o077, 0, "umask {umask}: {} can be used by others", path.display());
        }
        drop(stdout);
        assert_eq!(supervisor.wait().code, 76);
    }
}

/// Operators of other uids must get through to the socket, whose own mode and check decide.
#[test]
fn runtime_folder_is_not_closed_by_a_strict_umask() {
    let rig = Rig::new();
    let runtime = rig.dir.path().join("rt");
    let file = rig.agent("a", &format!("ring: 2\n{}command: ['true']\n", effort()));
    let _ = outcome(with_umask(&rig, "077", &runtime, &["run", "--metrics", "off", file.to_str().unwrap()]));
    assert_eq!((mode(&runtime), mode(&runtime.join("agents")), mode(&rig.state)), (0o755, 0o755, 0o700));
}

/// `kill --all` where nobody answers leaves a mark, and a start would heed a mark of anybody's.
#[test]
fn folder_of_kill_marks_is_private_whatever_the_umask() {
    let rig = Rig::new();
    let runtime = rig.dir.path().join("rt");
    let file = rig.agent("a", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let mut command = with_umask(&rig, "000", &runtime, &["run", "--metrics", "off", file.to_str().unwrap()]);
    let supervisor = Supervisor { child: Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()) };
    until("it runs", || outcome(with_umask(&rig, "000", &runtime, &["ps"])).stdout.contains("running"));
    supervisor.signal(nix::sys::signal::Signal::SIGKILL);
    supervisor.wait();
    let _ = outcome(with_umask(&rig, "000", &runtime, &["kill", "--all", "--reason", "test", "--yes"]));
    let folders = std::fs::read_dir(&rig.state).unwrap().map(|entry| entry.unwrap().path());
    for folder in folders.filter(|path| path.is_dir()) {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
}

#[test]
fn runtime_folder_that_others_may_write_is_refused() {
    let rig = Rig::new();
    let runtime = rig.dir.path().join("rt");
    std::fs::create_dir(&runtime).unwrap();
    let file = rig.agent("a", &format!("ring: 2\n{}command: [touch, ran]\n", effort()));
    for open in [0o777, 0o1777, 0o775] {
        set_mode(&runtime, open);
        let refused = outcome(with_umask(&rig, "022", &runtime, &["run", file.to_str().unwrap()]));
        assert_eq!(refused.code, 73, "{open:o}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(&format!("{} can be changed by others", runtime.display())),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains("help: ") && refused.stderr.contains("chmod go-w"), "{}", refused.stderr);
    }
    assert!(!rig.work.join("ran").exists());
    assert_eq!(std::fs::read_dir(&runtime).unwrap().count(), 0);
}

#[test]
fn runtime_folder_of_somebody_else_is_refused() {
    if !needs_root("runtime_folder_of_somebody_else_is_refused") {
        return;
    }
    let rig = Rig::new();
    let runtime = rig.dir.path().join("rt");
    std::fs::create_dir(&runtime).unwrap();
    std::os::unix::fs::chown(&runtime, Some(STRANGER), Some(STRANGER)).unwrap();
    let file = rig.agent("a", "ring: 2\ncommand: [touch, ran]\n");
    let refused = outcome(with_umask(&rig, "022", &runtime, &["run", file.to_str().unwrap()]));
    assert_eq!(refused.code, 73, "{}", refused.stderr);
    assert!(refused.stderr.contains("owner 64111"), "{}", refused.stderr);
    assert!(!rig.work.join("ran").exists());
}

/// Somebody who listens at both sockets and notes what comes.
struct Listener {
    child: Child,
    got: PathBuf,
}

impl Listener {
    fn new(folder: &Path, uid: u32) -> Listener {
        let script = "import os, select, socket, sys\n\
                      os.umask(0)\n\
                      hand, oper = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), socket.socket(socket.AF_UNIX)\n\
                      for s, name in ((hand, 'handoff.sock'), (oper, 'operator.sock')):\n\
                      \x20s.bind(name); s.listen(8)\n\
                      print('ready', flush=True)\n\
                      while True:\n\
                      \x20for s in select.select([hand, oper], [], [])[0]:\n\
                      \x20 c, _ = s.accept()\n\
                      \x20 data = c.recv(65536)\n\
                      \x20 open('got', 'ab').write(data)\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .uid(uid)
            .gid(uid)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut word = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        Listener { child, got: folder.join("got") }
    }

    fn got(&self) -> usize {
        std::fs::read(&self.got).map_or(0, |bytes| bytes.len())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn stranger_who_listens_in_the_place_of_a_supervisor_is_given_nothing() {
    if !needs_root("stranger_who_listens_in_the_place_of_a_supervisor_is_given_nothing") {
        return;
    }
    let rig = Rig::new();
    // The supervisor that is there holds the state directory; the folder of the sockets is another one, open to all.
    let file = rig.agent("first", "ring: 2\ncommand: [sleep, '1000']\n");
    let first = rig.start(&file);
    let runtime = rig.dir.path().join("rt");
    std::fs::create_dir(&runtime).unwrap();
    set_mode(&runtime, 0o1777);
    let listener = Listener::new(&runtime, STRANGER);
    let second = rig.agent("second", "ring: 2\ncommand: [sleep, '1000']\nenv: {set: {TOKEN: very-secret}}\n");
    let saga = rig.work.join("saga.yaml");
    std::fs::write(&saga, "version: 1\nkind: saga\nname: s\nsteps:\n  one:\n    ring: 2\n    command: ['true']\n")
        .unwrap();
    for args in [
        vec!["run", second.to_str().unwrap()],
        vec!["saga", "run", saga.to_str().unwrap()],
        vec!["ps"],
        vec!["kill", "first", "--reason", "test", "--yes"],
    ] {
        let refused = outcome(with_umask(&rig, "022", &runtime, &args));
        assert_eq!(refused.code, 77, "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("belongs to uid 64111"), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("help: "), "{args:?}: {}", refused.stderr);
    }
    assert_eq!(listener.got(), 0, "it was told something");
    assert_eq!(rig.output(["stop", "first", "--reason", "test", "--yes"]).code, 0);
    first.wait();
}
