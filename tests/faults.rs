//! Bad input and a broken ground: a clear message, the right exit code, nothing started, nothing else harmed.
//!
//! What can go wrong, and the test that shows it (the reader's own tests hold the details of each message):
//!
//! | fault | through the real program | beside it |
//! |---|---|---|
//! | missing or non-executable command | `run::a_program_that_is_not_there_is_127_..` | `config::tests::programs` |
//! | shebang that can't be resolved | `a_script_whose_interpreter_is_not_there_..` | `config::tests::programs` |
//! | 10 MB of YAML, alias bombs | `huge_and_exploding_files_are_refused_at_once` | `config::tests::bad_input`, the fuzz target |
//! | unknown ring | `units_rings_and_values_that_cannot_be_..` | `config::tests::bad_input` |
//! | a path that doesn't exist | `a_path_that_does_not_exist_is_named_..` | `config::tests::{bad_input, workdirs}` |
//! | workdir `/` or a home | `a_workdir_that_holds_too_much_is_refused` | `config::tests::workdirs` |
//! | an agent that rewrites its own agent.yaml | `confinement::an_agent_cannot_rewrite_its_own_file` | |
//! | full disk, at the start and in the middle | `strange_ground::{a_disk_that_is_full_.., with_the_disk_full_..}` | `store::tests::full_disk` |
//! | read-only state directory | `strange_ground::a_read_only_state_directory_..` | `store::tests::full_disk` |
//! | corrupt store | `a_corrupt_store_is_65_and_is_left_as_it_is` | `store::tests::{bad_state, tamper}` |
//! | kernel without Landlock | `strange_ground::without_landlock_..` (two) | `.ci/vm-program uml` |
//! | no writable cgroup | `strange_ground::without_a_writable_cgroup_..`, `confinement::required_is_refused_..` | |
//! | limits that don't stick | `strange_ground::a_limit_that_reads_back_otherwise_..` | `cgroup::limits` of the rings |
//! | an agent that ignores SIGTERM | `run::an_agent_that_ignores_sigterm_..` | `machine::lifecycle` |
//! | closes its stdout | `run::closed_output_and_endless_output_harm_nobody` | |
//! | writes 1 GB | `strange_ground::{a_gigabyte_comes_through_raw_.., half_a_gigabyte_of_lines_..}` | |
//! | clock jumps | `strange_ground::a_boot_clock_that_starts_anew_..`; the wall clock in `.ci/vm-checks` | `clock` tests of sre, saga, chaos |

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
    assert!(!rig.state.join("cgroup.json").exists(), "what was made for it is gone too");
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
    let outcome = rig.output(["run".as_ref(), huge.as_os_str()]);
    refused(&rig, &outcome, 64, "huge.yaml");
    assert!(outcome.stderr.len() < 2000, "the file is not printed");
    let bomb = rig.work.join("bomb.yaml");
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ('a'..='y').zip('b'..='z') {
        text.push_str(&format!("{to}: &{to} [{}]\n", vec![format!("*{from}"); 9].join(",")));
    }
    std::fs::write(&bomb, text).unwrap();
    refused(&rig, &rig.output(["run".as_ref(), bomb.as_os_str()]), 64, "bomb.yaml");
    assert!(!rig.state.exists());
}

#[test]
fn a_workdir_that_holds_too_much_is_refused() {
    let rig = Rig::new();
    let file = rig.agent("wide", &format!("ring: 2\n{}workdir: /\ncommand: [touch, started]\n", effort()));
    refused(&rig, &rig.output(["run".as_ref(), file.as_os_str()]), 77, "workdir");
    let at_home = traced(&rig, "");
    let outcome =
        Outcome::from(rig.command(["run".as_ref(), at_home.as_os_str()]).env("HOME", &rig.work).output().unwrap());
    refused(&rig, &outcome, 77, "home");
    assert!(!rig.state.exists());
}

#[test]
fn a_script_whose_interpreter_is_not_there_is_126_or_127_and_names_it() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    for (line, word) in
        [("#!/no/such/interpreter -x", "/no/such/interpreter"), ("#!/usr/bin/env no-such-thing", "no-such-thing")]
    {
        let script = rig.work.join("tool");
        std::fs::write(&script, format!("{line}\ntouch started\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = rig.agent("script", &format!("ring: 2\n{}command: [./tool]\n", effort()));
        let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
        assert!(matches!(outcome.code, 126 | 127), "{outcome:?}");
        refused(&rig, &outcome, outcome.code, word);
        assert!(!rig.state.exists());
    }
}

#[test]
fn a_path_that_does_not_exist_is_named_with_its_line() {
    let rig = Rig::new();
    let file = traced(&rig, "files:\n  read: [./no-such-folder]\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    refused(&rig, &outcome, 64, "no-such-folder");
    assert!(outcome.stderr.contains("traced.yaml:"), "{}", outcome.stderr);
    let missing = rig.work.join("nowhere.yaml");
    refused(&rig, &rig.output(["run".as_ref(), missing.as_os_str()]), 64, "nowhere.yaml");
    assert!(!rig.state.exists());
}
