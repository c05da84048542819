//! Bad input and a broken ground: a clear message, the right exit code, nothing started, nothing else harmed.

use crate::support::{Outcome, Rig, effort};

/// An agent that leaves a trace if it is started after all.
fn traced(rig: &Rig, rest: &str) -> std::path::PathBuf {
    rig.agent("traced", &format!("ring: 2\n{}command: [touch, started]\n{rest}", effort()))
}

fn refused(rig: &Rig, outcome: &Outcome, code: i32, word: &str) {
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(word), "`{word}` is missing in: {}", outcome.stderr);
    assert!(outcome.stderr.contains("help:"), "no next step in: {}", outcome.stderr);
    assert!(!outcome.stderr.contains("stack backtrace"), "{}", outcome.stderr);
    assert!(!rig.work.join("started").exists(), "it was started");
}

#[test]
fn a_state_directory_that_cannot_be_made_is_73() {
    let rig = Rig::new();
    let file = traced(&rig, "");
    std::fs::write(&rig.state, "a file stands where the folder should be").unwrap();
    refused(&rig, &rig.output(["run".as_ref(), file.as_os_str()]), 73, "state");
}

#[test]
fn a_corrupt_store_is_65_and_is_left_as_it_is() {
    let rig = Rig::new();
    assert_eq!(rig.sh(2, "exit 0").code, 0);
    let database = rig.state.join("state.db");
    let garbage = vec![0x5a; 8192];
    std::fs::write(&database, &garbage).unwrap();
    let file = traced(&rig, "");
    refused(&rig, &rig.output(["run".as_ref(), file.as_os_str()]), 65, "state.db");
    assert_eq!(std::fs::read(&database).unwrap(), garbage);
}

#[test]
fn a_misspelt_key_is_64_with_the_right_suggestion() {
    let rig = Rig::new();
    let file = traced(&rig, "limits: {memroy: 64MiB}\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    refused(&rig, &outcome, 64, "did you mean `memory`?");
    assert!(!rig.state.exists());
}

#[test]
fn units_rings_and_values_that_cannot_be_are_reported_together() {
    let rig = Rig::new();
    let file = traced(&rig, "limits: {memory: 64M, tasks: 0}\ntimeouts: {run: 5}\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    refused(&rig, &outcome, 64, "64M");
    for word in ["tasks", "run", "MiB"] {
        assert!(outcome.stderr.contains(word), "`{word}` is missing in: {}", outcome.stderr);
    }
    let unknown = rig.agent("ring", "ring: 7\ncommand: [touch, started]\n");
    refused(&rig, &rig.output(["run".as_ref(), unknown.as_os_str()]), 64, "ring");
}

#[test]
fn huge_and_exploding_files_are_refused_at_once() {
    let rig = Rig::new();
    let huge = rig.work.join("huge.yaml");
    std::fs::write(&huge, "# ".to_owned() + &"x".repeat(10 << 20)).unwrap();
    assert_eq!(rig.output(["run".as_ref(), huge.as_os_str()]).code, 64);
    let bomb = rig.work.join("bomb.yaml");
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ('a'..='y').zip('b'..='z') {
        text.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(",")));
    }
    std::fs::write(&bomb, text).unwrap();
    assert_eq!(rig.output(["run".as_ref(), bomb.as_os_str()]).code, 64);
}

#[test]
fn a_workdir_that_holds_too_much_is_refused() {
    let rig = Rig::new();
    let file = rig.agent("wide", &format!("ring: 2\n{}workdir: /\ncommand: [touch, started]\n", effort()));
    refused(&rig, &rig.output(["run".as_ref(), file.as_os_str()]), 77, "workdir");
}
