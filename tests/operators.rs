//! Who may command a supervisor besides root and its own user.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::{Outcome, Rig, Supervisor, binary, needs_root, until};

const COMMANDER: u32 = 64_101;
const MEMBER: u32 = 64_102;
const STRANGER: u32 = 64_103;
const GROUP: u32 = 64_201;

/// A service whose operator's file lets one user and one group command it.
fn serve(rig: &Rig) -> Supervisor {
    let operator = format!("version: 1\nkind: operator\noperators: {{users: ['{COMMANDER}'], groups: ['{GROUP}']}}\n");
    std::fs::write(rig.work.join("operator.yaml"), operator).unwrap();
    let agents = rig.work.join("agents");
    std::fs::create_dir_all(agents.join("a")).unwrap();
    std::fs::write(agents.join("a.yaml"), "version: 1\nname: a\nring: 2\ncommand: [sleep, '300']\n").unwrap();
    let mut command = rig.command(["serve", "agents", "--operator", "operator.yaml", "--metrics", "off"]);
    command.stderr(Stdio::from(std::fs::File::create(rig.dir.path().join("said")).unwrap()));
    Supervisor { child: Some(command.spawn().unwrap()) }
}

/// The program as another user, from where that user reaches it.
fn act_as(rig: &Rig, uid: u32, groups: &str, args: &[&str]) -> Outcome {
    let copy = rig.dir.path().join("program");
    if !copy.exists() {
        std::fs::copy(binary(), &copy).unwrap();
    }
    let (id, dir) = (uid.to_string(), rig.dir.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, groups, "--"]).arg(&copy).arg("--state-dir").arg(&rig.state);
    command.args(args).current_dir(dir).env("HOME", dir).stdin(Stdio::null());
    Outcome::from(command.output().unwrap())
}

#[test]
fn users_and_groups_of_the_operators_file_command_and_others_do_not() {
    if !needs_root("users_and_groups_of_the_operators_file_command_and_others_do_not") {
        return;
    }
    let rig = Rig::new();
    let supervisor = serve(&rig);
    until("the agent runs", || rig.output(["ps"]).stdout.contains("running"));
    let said = std::fs::read_to_string(rig.dir.path().join("said")).unwrap();
    assert!(said.contains("can't enter") && said.contains(&rig.state.display().to_string()), "{said}");
    let group = format!("--groups={GROUP}");
    // The folder still keeps everybody out.
    assert_eq!(act_as(&rig, COMMANDER, "--clear-groups", &["ps"]).code, 77);
    std::fs::set_permissions(&rig.state, std::fs::Permissions::from_mode(0o711)).unwrap();
    let shown = act_as(&rig, COMMANDER, "--clear-groups", &["ps"]);
    assert!(shown.code == 0 && shown.stdout.contains("running"), "{}", shown.stderr);
    let refused = act_as(&rig, STRANGER, "--clear-groups", &["kill", "a", "--reason", "mine"]);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert!(refused.stderr.contains("only operators"), "{}", refused.stderr);
    let stopped = act_as(&rig, MEMBER, &group, &["freeze", "a", "--reason", "looking"]);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    let record = rig.output(["audit", "show"]).stdout;
    assert!(record.lines().any(|line| line.contains("freeze") && line.contains(&MEMBER.to_string())), "{record}");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait().code, 0);
}

#[test]
fn strangers_who_hold_connections_open_keep_no_operator_out() {
    if !needs_root("strangers_who_hold_connections_open_keep_no_operator_out") {
        return;
    }
    let rig = Rig::new();
    let supervisor = serve(&rig);
    until("the agent runs", || rig.output(["ps"]).stdout.contains("running"));
    std::fs::set_permissions(&rig.state, std::fs::Permissions::from_mode(0o711)).unwrap();
    let script = "import socket, sys, time\n\
                  held = [socket.socket(socket.AF_UNIX) for _ in range(400)]\n\
                  for s in held: s.connect(sys.argv[1])\n\
                  print('held', flush=True)\n\
                  sys.stdin.read()\n";
    let mut strangers = Command::new("python3")
        .args(["-c", script])
        .arg(rig.state.join("operator.sock"))
        .uid(STRANGER)
        .gid(STRANGER)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut word = [0; 4];
    strangers.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    assert_eq!(rig.output(["ps"]).code, 0);
    drop(strangers.stdin.take());
    strangers.wait().unwrap();
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait().code, 0);
}

#[test]
fn a_user_that_nobody_knows_is_named_before_anything_starts() {
    let rig = Rig::new();
    let file = rig.agent("a", "command: [sh]\nring: 2\n");
    let text = "version: 1\nkind: operator\noperators: {users: [nosuchuser], groups: [nosuchgroup]}\n";
    std::fs::write(rig.work.join("operator.yaml"), text).unwrap();
    let outcome = rig.output(["check".as_ref(), file.as_os_str(), "--operator".as_ref(), "operator.yaml".as_ref()]);
    assert_eq!(outcome.code, 64);
    for name in ["user `nosuchuser`", "group `nosuchgroup`"] {
        assert!(outcome.stderr.contains(name), "{}", outcome.stderr);
    }
}

/// What a stranger sends is not read: the answer comes before the body.
#[test]
fn a_stranger_is_refused_before_the_body() {
    if !needs_root("a_stranger_is_refused_before_the_body") {
        return;
    }
    let rig = Rig::new();
    let supervisor = serve(&rig);
    until("the agent runs", || rig.output(["ps"]).stdout.contains("running"));
    std::fs::set_permissions(&rig.state, std::fs::Permissions::from_mode(0o711)).unwrap();
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.sendall(b'POST /v1/act HTTP/1.1\\r\\nHost: x\\r\\nContent-Type: application/json\\r\\nContent-Length: 1000000\\r\\n\\r\\n{')\n\
                  print(s.recv(4096).decode())\n";
    let mut stranger = Command::new("python3");
    stranger.args(["-c", script]).arg(rig.state.join("operator.sock")).uid(STRANGER).gid(STRANGER).current_dir("/");
    let said = String::from_utf8_lossy(&stranger.output().unwrap().stdout).into_owned();
    assert!(said.starts_with("HTTP/1.1 403"), "{said}");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait().code, 0);
}
