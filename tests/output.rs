//! Nobody at the other end of our standard error can end or stop the supervisor, and nothing in an agent's folder makes it write elsewhere.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::support::{Rig, Supervisor, effort, quoted, until};

/// A pipe that takes nothing more, and whether writing to it blocks.
fn full_pipe(flags: OFlag) -> (OwnedFd, OwnedFd) {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&write, &[b'x'; 4096]).is_ok() {}
    while nix::unistd::write(&write, b"x").is_ok() {}
    fcntl(&write, FcntlArg::F_SETFL(flags)).unwrap();
    (read, write)
}

/// A supervisor with this standard error and an agent that runs.
fn start(rig: &Rig, stderr: OwnedFd) -> Supervisor {
    let file = rig.agent("sleeper", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let mut command: Command = rig.command(["run".as_ref(), "--stdio".as_ref(), "raw".as_ref(), file.as_os_str()]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::from(stderr)).spawn().unwrap();
    drop(command);
    let supervisor = Supervisor { child: Some(child) };
    until("the agent runs", || {
        let ps = rig.output(["ps", "--json"]);
        ps.code == 0 && ps.stdout.contains("\"state\": \"running\"")
    });
    supervisor
}

fn ends_in_order(rig: &Rig, supervisor: Supervisor) {
    assert_eq!(rig.output(["ps"]).code, 0, "it answers");
    assert_eq!(rig.output(["stop", "sleeper", "--reason", "test", "--yes"]).code, 0, "it acts");
    assert_eq!(supervisor.wait().code, 143, "the agent's own end is what it ends with");
}

#[test]
fn full_standard_error_that_nobody_reads_holds_nothing_up() {
    let rig = Rig::new();
    let (_unread, full) = full_pipe(OFlag::empty());
    let supervisor = start(&rig, full);
    ends_in_order(&rig, supervisor);
}

#[test]
fn standard_error_made_non_blocking_by_an_agent_ends_nothing() {
    let rig = Rig::new();
    let (_unread, full) = full_pipe(OFlag::O_NONBLOCK);
    let supervisor = start(&rig, full);
    ends_in_order(&rig, supervisor);
}

#[test]
fn standard_error_that_was_closed_ends_nothing() {
    let rig = Rig::new();
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    drop(read);
    let supervisor = start(&rig, write);
    ends_in_order(&rig, supervisor);
}

#[test]
fn what_an_agent_puts_in_the_place_of_the_status_file_is_replaced_and_not_followed() {
    let rig = Rig::new();
    // The agent has another uid when root runs this.
    std::fs::set_permissions(&rig.work, std::fs::Permissions::from_mode(0o777)).unwrap();
    let victim = rig.dir.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    for (name, make) in
        [("link", format!("ln -s {} status.json", victim.display())), ("fifo", "mkfifo status.json".to_owned())]
    {
        let script = format!("rm -f status.json; {make}");
        let file = rig.agent(name, &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(&script)));
        let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), "status.json".as_ref()]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let place = rig.work.join("status.json");
        assert!(std::fs::symlink_metadata(&place).unwrap().is_file(), "{name}");
        assert!(std::fs::read_to_string(&place).unwrap().contains(name));
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    }
}

#[test]
fn status_file_that_cannot_be_made_is_said_before_anything_starts() {
    let rig = Rig::new();
    let file = rig.agent("early", &format!("ring: 2\n{}command: [touch, ran]\n", effort()));
    let place = rig.dir.path().join("no/status.json");
    let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), place.as_os_str()]);
    assert_eq!(outcome.code, 73, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("nothing was started"), "{}", outcome.stderr);
    assert!(!rig.work.join("ran").exists());
}

#[test]
fn agent_gets_no_terminal_of_ours_unless_raw_was_typed() {
    let rig = Rig::new();
    let script = "test -t 0 && echo terminal-in; test -t 1 && echo terminal-out; printf '\\033[31mred\\033[0m\\n'; read line; echo got-$line";
    let file = rig.agent("wild", &format!("ring: 2\n{}stdio: raw\ncommand: [sh, -c, {}]\n", effort(), quoted(script)));
    let run = |typed: &[&str]| -> String {
        let pair = nix::pty::openpty(None, None).unwrap();
        let end = || Stdio::from(pair.slave.as_fd().try_clone_to_owned().unwrap());
        let mut command = rig.command(["run".as_ref(), file.as_os_str()]);
        let mut child = command.args(typed).stdin(end()).stdout(end()).stderr(Stdio::null()).spawn().unwrap();
        drop((command, pair.slave));
        let mut master = File::from(pair.master);
        std::io::Write::write_all(&mut master, b"word\n").unwrap();
        let mut screen = Vec::new();
        // The last writer gone is an error on a terminal's master side.
        let mut buffer = [0u8; 4096];
        while let Ok(length) = master.read(&mut buffer) {
            if length == 0 {
                break;
            }
            screen.extend_from_slice(&buffer[..length]);
        }
        assert!(child.wait().unwrap().success());
        String::from_utf8_lossy(&screen).into_owned()
    };
    let tamed = run(&[]);
    assert!(!tamed.contains("terminal-"), "{tamed:?}");
    assert!(tamed.contains("\\u{1b}[31mred") && !tamed.contains('\u{1b}'), "{tamed:?}");
    assert!(tamed.contains("got-word"), "{tamed:?}");
    let raw = run(&["--stdio", "raw"]);
    assert!(raw.contains("terminal-in") && raw.contains("terminal-out") && raw.contains("\u{1b}[31mred"), "{raw:?}");
}
