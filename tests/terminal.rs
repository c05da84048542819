//! An agent started at a terminal gets a terminal of its own.

use std::process::{Command, Stdio};

use crate::support::{Outcome, Rig, effort, quoted};

/// Runs the program at a terminal that script(1) makes.
fn at_a_terminal(rig: &Rig, file: &std::path::Path) -> Outcome {
    let line =
        format!("{} --state-dir {} run {}", crate::support::binary().display(), rig.state.display(), file.display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(&rig.work).stdin(Stdio::null());
    command.output().unwrap().into()
}

#[test]
fn its_streams_are_a_terminal_and_its_exit_code_comes_out() {
    let rig = Rig::new();
    let script =
        "test -t 0 && test -t 1 && test -t 2 && echo at-a-terminal; sh -c 'echo controlled > /dev/tty'; exit 5";
    let file = rig.agent("screen", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(script)));
    let outcome = at_a_terminal(&rig, &file);
    assert_eq!(outcome.code, 5, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("at-a-terminal\r\n"), "{:?}", outcome.stdout);
    assert!(outcome.stdout.contains("controlled\r\n"), "{:?}", outcome.stdout);
    let logged = rig.output(["logs", "screen"]);
    assert!(logged.stdout.contains("at-a-terminal"), "{:?}", logged.stdout);
}

#[test]
fn raw_is_not_logged() {
    let rig = Rig::new();
    let file = rig.agent("plain", &format!("ring: 2\n{}stdio: raw\ncommand: [echo, hello]\n", effort()));
    let outcome = at_a_terminal(&rig, &file);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("hello"), "{:?}", outcome.stdout);
    assert_ne!(rig.output(["logs", "plain"]).code, 0, "raw is not logged");
}

#[test]
fn its_terminal_has_a_type_and_a_name() {
    let rig = Rig::new();
    let script = "echo type=$TERM; echo name=$(tty); test -c $(tty) && echo there";
    let file = rig.agent("named", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(script)));
    for (term, expected) in [(Some("vt220"), "type=vt220\r\n"), (None, "type=xterm-256color\r\n")] {
        let set = term.map_or_else(|| "env -u TERM ".to_owned(), |term| format!("env TERM={term} "));
        let line = format!(
            "{set}{} --state-dir {} run {}",
            crate::support::binary().display(),
            rig.state.display(),
            file.display()
        );
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).current_dir(&rig.work).stdin(Stdio::null());
        let outcome: Outcome = command.output().unwrap().into();
        assert!(outcome.stdout.contains(expected), "{:?}", outcome.stdout);
        assert!(outcome.stdout.contains("name=/dev/") && outcome.stdout.contains("there"), "{:?}", outcome.stdout);
    }
}

#[test]
fn a_terminal_that_was_asked_for_and_is_not_there_is_a_usage_error() {
    let rig = Rig::new();
    let file = rig.agent("asked", &format!("ring: 2\n{}command: [sh, -c, 'touch started']\n", effort()));
    let outcome = rig.output(["run".as_ref(), "--stdio".as_ref(), "pty".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("needs a terminal"), "{}", outcome.stderr);
    assert!(!rig.work.join("started").exists());
}
