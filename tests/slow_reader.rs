//! Somebody who reads what agents print slowly, or not at all: it slows those agents down, and nothing else.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Rig, Supervisor, effort, until};

/// Far below the runtime's pool of blocking threads (512), far above what two agents need.
const THREADS_MAX: usize = 100;
/// Far above what a supervisor needs.
const MEMORY_KIB_MAX: u64 = 300 * 1024;
/// What the end may take beside the wait for last words (5 s).
const END_WITHIN: Duration = Duration::from_secs(30);

/// A folder with an agent that floods and one that says nothing.
fn two(rig: &Rig) -> PathBuf {
    let folder = rig.work.join("two");
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, rest: &str| {
        let text = format!("version: 1\nname: {name}\nring: 2\nlog: {{max_size: 1MiB, keep: 1}}\n{}{rest}", effort());
        std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    };
    write("flood", "command: [sh, -c, 'yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa']\n");
    write("quiet", "command: [sleep, '1000']\n");
    folder
}

fn spawn<S: AsRef<OsStr>>(rig: &Rig, args: impl IntoIterator<Item = S>, stdout: OwnedFd) -> Supervisor {
    let mut command: Command = rig.command(args);
    let child = command.stdout(Stdio::from(stdout)).stderr(Stdio::null()).spawn().unwrap();
    Supervisor { child: Some(child) }
}

fn all_run(rig: &Rig, number: usize) {
    until("all run", || rig.output(["ps", "--json"]).stdout.matches("\"state\": \"running\"").count() == number);
}

/// Waits until an agent's output stands still: nobody reads, so it waits.
fn stands_still(rig: &Rig, agent: &str) {
    let log = rig.state.join(format!("logs/{agent}.log"));
    let changed = |log: &Path| std::fs::metadata(log).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok();
    until("the flood is held up", || {
        let before = changed(&log);
        // It has time for some thousand lines between each two answers.
        rig.ask_again_and_again(20);
        before.is_some() && before == changed(&log)
    });
}

fn is_modest(process: &Supervisor) {
    let pid = process.pid();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert!(threads < THREADS_MAX, "{threads} threads");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = most.trim().trim_end_matches("kB").trim().parse().unwrap();
    assert!(kib < MEMORY_KIB_MAX, "{kib} KiB at most");
}

fn ends_soon(supervisor: Supervisor) -> i32 {
    let began = Instant::now();
    let code = supervisor.wait().code;
    assert!(began.elapsed() < END_WITHIN, "it took {:?}", began.elapsed());
    code
}

#[test]
fn reader_that_sleeps_holds_up_the_flood_and_no_kill() {
    let rig = Rig::new();
    let folder = two(&rig);
    let (_unread, stdout) = nix::unistd::pipe().unwrap();
    let supervisor = spawn(&rig, ["run".as_ref(), folder.as_os_str()], stdout);
    all_run(&rig, 2);
    stands_still(&rig, "flood");
    for name in ["quiet", "flood"] {
        let killed = rig.output(["kill", name, "--reason", "test", "--yes"]);
        assert_eq!(killed.code, 0, "{}", killed.stderr);
    }
    is_modest(&supervisor);
    assert_eq!(ends_soon(supervisor), 76);
}

#[test]
fn reader_that_sleeps_does_not_keep_a_supervisor_from_its_end() {
    let rig = Rig::new();
    let folder = two(&rig);
    let (_unread, stdout) = nix::unistd::pipe().unwrap();
    let supervisor = spawn(&rig, ["run".as_ref(), folder.as_os_str()], stdout);
    all_run(&rig, 2);
    stands_still(&rig, "flood");
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(ends_soon(supervisor), 143);
}

#[test]
fn reader_of_a_handed_over_run_that_sleeps_holds_up_nothing_else_either() {
    let rig = Rig::new();
    let folder = two(&rig);
    let first = rig.start(&folder.join("quiet.yaml"));
    let (_unread, stdout) = nix::unistd::pipe().unwrap();
    let flood = folder.join("flood.yaml");
    let second = spawn(&rig, ["run".as_ref(), "--stdio".as_ref(), "prefixed".as_ref(), flood.as_os_str()], stdout);
    all_run(&rig, 2);
    stands_still(&rig, "flood");
    is_modest(&second);
    second.signal(Signal::SIGTERM);
    assert_eq!(ends_soon(second), 143);
    assert_eq!(rig.output(["stop", "quiet", "--reason", "test", "--yes"]).code, 0);
    assert_eq!(ends_soon(first), 143);
}

#[test]
fn terminal_that_is_stopped_holds_up_no_kill() {
    let rig = Rig::new();
    let folder = two(&rig);
    // A terminal that nobody reads, as after Ctrl-S: what is ours of it is only our standard output.
    let pair = nix::pty::openpty(None, None).unwrap();
    let flood = folder.join("flood.yaml");
    let supervisor = spawn(&rig, ["run".as_ref(), flood.as_os_str()], pair.slave.as_fd().try_clone_to_owned().unwrap());
    all_run(&rig, 1);
    let killed = rig.output(["kill", "flood", "--reason", "test", "--yes"]);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    is_modest(&supervisor);
    assert_eq!(ends_soon(supervisor), 76);
    drop(pair);
}

#[test]
fn lines_come_in_the_order_in_which_an_agent_wrote_them() {
    let rig = Rig::new();
    let file = rig.agent("counter", &format!("ring: 2\n{}command: [seq, '20000']\n", effort()));
    let outcome = rig.output(["run".as_ref(), "--stdio".as_ref(), "prefixed".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let expected: String = (1..=20000).map(|n| format!("counter | {n}\n")).collect();
    let wrong = outcome.stdout.lines().zip(expected.lines()).find(|(got, wanted)| got != wanted);
    assert_eq!(wrong, None);
    assert_eq!(outcome.stdout.len(), expected.len());
}

#[test]
fn slow_reader_gets_every_line_and_the_log_keeps_its_bounds() {
    use std::io::Read;
    let rig = Rig::new();
    let text = format!("ring: 2\nlog: {{max_size: 64KiB, keep: 1}}\n{}command: [seq, '60000']\n", effort());
    let file = rig.agent("counter", &text);
    let (unread, stdout) = nix::unistd::pipe().unwrap();
    let args = ["run".as_ref(), "--stdio".as_ref(), "prefixed".as_ref(), file.as_os_str()];
    let supervisor = spawn(&rig, args, stdout);
    until("the agent is held up", || rig.state.join("logs/counter.log").exists());
    stands_still(&rig, "counter");
    let mut read = String::new();
    std::fs::File::from(unread).read_to_string(&mut read).unwrap();
    let expected: String = (1..=60000).map(|n| format!("counter | {n}\n")).collect();
    assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
    assert_eq!(supervisor.wait().code, 0);
    let logs = std::fs::read_dir(rig.state.join("logs")).unwrap();
    let sizes: Vec<u64> = logs.map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 64 * 1024), "{sizes:?}");
}
