//! `run`: exit codes, streams, files that come out right, messages.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use crate::support::{Rig, effort, quoted, until};

#[test]
fn exit_status_is_passed_through() {
    let rig = Rig::new();
    assert_eq!(rig.sh(2, "exit 0").code, 0);
    assert_eq!(rig.sh(2, "exit 42").code, 42);
    assert_eq!(rig.sh(2, "kill -TERM $$").code, 128 + 15);
}

#[test]
fn a_program_that_is_not_there_is_127_and_one_that_cannot_run_is_126() {
    let rig = Rig::new();
    let missing = rig.agent("missing", "ring: 2\ncommand: [no-such-program-anywhere]\n");
    let outcome = rig.output(["run".as_ref(), missing.as_os_str()]);
    assert_eq!(outcome.code, 127, "{}", outcome.stderr);
    assert!(!rig.state.exists(), "nothing was started");
    std::fs::write(rig.work.join("plain.txt"), "not a program").unwrap();
    let plain = rig.agent("plain", "ring: 2\ncommand: [./plain.txt]\n");
    let outcome = rig.output(["run".as_ref(), plain.as_os_str()]);
    assert_eq!(outcome.code, 126, "{}", outcome.stderr);
}

#[test]
fn raw_streams_carry_every_byte_untouched() {
    let rig = Rig::new();
    let file = rig.agent("cat", &format!("ring: 2\n{}stdio: raw\ncommand: [cat]\n", effort()));
    let mut child = rig
        .command(["run".as_ref(), file.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let bytes: Vec<u8> = (0..=255u8).cycle().take(100_000).collect();
    let mut stdin = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(got == bytes, "{} bytes came back of {}", got.len(), bytes.len());
}

#[test]
fn files_made_in_the_workdir_belong_to_its_owner() {
    let rig = Rig::new();
    let outcome = rig.sh(2, "echo hello > made && mkdir dir && echo x > dir/y && mv made moved && cat moved");
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "hello\n"), "{}", outcome.stderr);
    let owner = std::fs::metadata(&rig.work).unwrap().uid();
    assert_eq!(std::fs::metadata(rig.work.join("moved")).unwrap().uid(), owner);
    assert_eq!(std::fs::metadata(rig.work.join("dir/y")).unwrap().uid(), owner);
}

#[test]
fn several_agents_are_prefixed_and_their_control_characters_shown() {
    let rig = Rig::new();
    let one = rig.agent("one", &format!("ring: 2\n{}command: [printf, 'a\\033[2J\\n']\n", effort()));
    let two = rig.agent("two", &format!("ring: 2\n{}command: [sh, -c, 'echo b; exit 5']\n", effort()));
    let outcome = rig.output(["run".as_ref(), one.as_os_str(), two.as_os_str()]);
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("one | a\\u{1b}[2J\n"), "{:?}", outcome.stdout);
    assert!(outcome.stdout.contains("two | b\n"), "{:?}", outcome.stdout);
    assert!(!outcome.stdout.contains('\u{1b}'));
    let logged = rig.output(["logs", "two"]);
    assert_eq!(logged.stdout, "b\n");
}

#[test]
fn the_status_file_tells_causes_of_death_apart() {
    let rig = Rig::new();
    let path = rig.dir.path().join("end.json");
    for (script, cause, code) in [("exit 3", "exit", 3), ("kill -KILL $$", "signal", 137)] {
        let file = rig.agent("dies", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(script)));
        let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), path.as_os_str()]);
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        let status: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(status["last_death"]["cause"], cause);
        assert_eq!(status["exit_code"], code);
    }
}

#[test]
fn a_time_limit_ends_it_with_124() {
    let rig = Rig::new();
    let file =
        rig.agent("slow", &format!("ring: 2\n{}command: [sleep, '1000']\ntimeouts: {{run: 1s, stop: 5s}}\n", effort()));
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 124, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("time limit"), "{}", outcome.stderr);
}

#[test]
fn restarts_run_out_and_it_says_so() {
    let rig = Rig::new();
    let file = rig.agent(
        "flaky",
        &format!(
            "ring: 2\n{}command: [sh, -c, 'echo life >> lives; exit 9']\nrestart: {{policy: on-failure, attempts: 2, backoff: {{initial: 50ms, max: 100ms}}}}\n",
            effort()
        ),
    );
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 9, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(rig.work.join("lives")).unwrap().lines().count(), 3);
    assert!(outcome.stderr.contains("gave up"), "{}", outcome.stderr);
}

#[test]
fn closed_output_and_endless_output_harm_nobody() {
    let rig = Rig::new();
    let outcome = rig.sh(2, "exec 1>&- 2>&-; exit 4");
    assert_eq!(outcome.code, 4);
    let file = rig.agent(
        "loud",
        &format!("ring: 2\n{}stdio: prefixed\nlog: {{max_size: 1MiB, keep: 1}}\ncommand: [sh, -c, 'head -c 20000000 /dev/zero']\n", effort()),
    );
    let mut child =
        rig.command(["run".as_ref(), file.as_os_str()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let logged: u64 =
        std::fs::read_dir(rig.state.join("logs")).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(logged <= 2 * 1024 * 1024, "{logged} bytes of log");
}

#[test]
fn an_agent_that_ignores_sigterm_is_killed_after_the_grace() {
    let rig = Rig::new();
    let file = rig.agent(
        "stubborn",
        &format!(
            "ring: 2\n{}timeouts: {{stop: 300ms}}\ncommand: [sh, -c, 'trap \"\" TERM; while :; do sleep 1; done']\n",
            effort()
        ),
    );
    let supervisor = rig.start(&file);
    let stopped = rig.output(["stop", "stubborn", "--reason", "test", "--yes"]);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert_eq!(supervisor.wait().code, 137);
}

#[test]
fn term_stops_in_order_and_the_agents_own_code_comes_out() {
    let rig = Rig::new();
    let file = rig.agent(
        "polite",
        &format!(
            "ring: 2\n{}command: [sh, -c, 'trap \"exit 7\" TERM; touch ready; while :; do sleep 0.1; done']\n",
            effort()
        ),
    );
    let supervisor = rig.start(&file);
    until("the trap is set", || rig.work.join("ready").exists());
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 7, "{}", outcome.stderr);
    assert!(!rig.state.join("operator.sock").exists(), "the socket's file is gone with us");
}
