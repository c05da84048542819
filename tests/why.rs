//! `why`: what was denied, after the end too, and what a plan says before anything was tried.

use std::path::Path;

use serde_json::Value;

use crate::support::{Outcome, Rig, effort, is_root, quoted};

/// Asks about a file; answers with the outcome and its JSON.
fn asked(rig: &Rig, file: &Path, question: &[&str]) -> (Outcome, Value) {
    let file = file.to_str().unwrap();
    let outcome = rig.output([&["why", file, "--json"], question].concat());
    let value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    (outcome, value)
}

#[test]
fn a_question_is_answered_from_the_plan_and_the_line_that_it_offers_helps() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("prices.csv");
    std::fs::write(&outside, "1\n").unwrap();
    let script = format!("cat {} && echo x > out.txt", outside.display());
    let agent = |files: &str| {
        rig.agent("asker", &format!("ring: 2\n{}{files}command: [sh, -c, {}]\n", effort(), quoted(&script)))
    };
    let file = agent("");
    let (outcome, answer) = asked(&rig, &file, &["--path", "out.txt", "--write"]);
    assert_eq!((outcome.code, answer["answer"].as_str()), (0, Some("allowed")), "{answer}");
    let (outcome, answer) = asked(&rig, &file, &["--path", outside.to_str().unwrap()]);
    assert_eq!((outcome.code, answer["answer"].as_str()), (1, Some("denied")), "{answer}");
    assert_eq!((answer["errno"].as_str(), answer["layer"].as_str()), (Some("ENOENT"), Some("mounts")), "{answer}");
    // The plan was right: that is what happens.
    let refused = rig.output(["run".as_ref(), file.as_os_str()]);
    assert!(refused.code != 0 && refused.stderr.contains("No such file"), "{}", refused.stderr);
    // And so are the lines.
    let operator = rig.work.join("operator.yaml");
    let block = answer["allow"]["operator"].as_str().unwrap();
    let lines: Vec<&str> = block.lines().skip(1).map(|line| line.strip_prefix("    ").unwrap()).collect();
    let head = if lines[0].starts_with("version") { "" } else { "version: 1\nkind: operator\n" };
    std::fs::write(&operator, format!("{head}{}\n", lines.join("\n"))).unwrap();
    crate::docs::only_its_owner_writes(&operator);
    let file = agent(&format!("{}\n", answer["allow"]["agent_yaml"].as_str().unwrap()));
    let operator = operator.to_str().unwrap();
    let (outcome, answer) = asked(&rig, &file, &["--path", outside.to_str().unwrap(), "--operator", operator]);
    assert_eq!(outcome.code, 0, "{answer}");
    let run = rig.output(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_ref()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stdout, "1\n");
}

#[test]
fn never_writable_names_system_files_calls_and_destinations_each_have_their_own_answer() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.work.join(".git/hooks")).unwrap();
    let file = rig.agent("asker", &format!("ring: 2\n{}command: [sh, -c, 'true']\n", effort()));
    let of = |question: &[&str]| {
        let (outcome, answer) = asked(&rig, &file, question);
        assert_eq!(outcome.code == 0, answer["answer"] == "allowed", "{answer}");
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (text(&answer["errno"]), text(&answer["allow"]["agent_yaml"]), text(&answer["allow"]["operator"]), answer)
    };
    let (errno, agent_yaml, operator, _) = of(&["--path", ".git/hooks/pre-commit", "--write"]);
    assert!(errno == "EROFS" && agent_yaml == "-" && operator.contains("writable: ["), "{operator}");
    let (errno, agent_yaml, operator, answer) = of(&["--path", "asker.yaml", "--write"]);
    assert_eq!((errno.as_str(), agent_yaml.as_str(), operator.as_str()), ("EROFS", "-", "-"), "{answer}");
    assert_eq!(of(&["--path", "/usr/bin/env"]).0, "-");
    assert_eq!(of(&["--path", "/usr/bin/env", "--write"]).0, "EROFS");
    assert_eq!(of(&["--path", "/tmp/x", "--write"]).0, "-");
    assert_eq!(of(&["--call", "openat"]).0, "-");
    assert_eq!((of(&["--call", "mount"]).0.as_str(), of(&["--call", "mount"]).1.as_str()), ("EPERM", "ring: 0"));
    assert_eq!(of(&["--call", "shmget"]).1, "ring: 1");
    assert_eq!((of(&["--call", "bpf"]).1.as_str(), of(&["--call", "clone3"]).0.as_str()), ("-", "ENOSYS"));
    let (_, agent_yaml, operator, _) = of(&["--connect", "127.0.0.1:8099"]);
    assert!(agent_yaml.contains("8099") && operator.contains("network: [{tcp:"), "{agent_yaml} {operator}");
    let (_, agent_yaml, _, answer) = of(&["--connect", "example.org:443"]);
    assert!(agent_yaml == "-" && answer["allow"]["text"].as_str().unwrap().contains("loopback"), "{answer}");
    assert!(!rig.state.exists(), "a question starts nothing and leaves nothing");
}

#[test]
fn a_question_in_words_and_a_question_about_nobody() {
    let rig = Rig::new();
    let file = rig.agent("asker", &format!("{}command: [sh, -c, 'true']\n", effort()));
    let file = file.to_str().unwrap();
    let outcome = rig.output(["why", file, "--path", "x", "--write"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    for part in ["denied: write ", "R3, its ceiling", "EROFS", "ring: 2"] {
        assert!(outcome.stdout.contains(part), "{part}: {}", outcome.stdout);
    }
    for args in [
        &["why", "nobody"][..],
        &["why", "nobody", "--path", "/x"],
        &["why", file, "--call", "no_such_call"],
        &["why", file, "--connect", "example.org"],
        &["why", file, "--write"],
        &["why", "--path", "/x"],
        &["why", file, "--path", "/x", "--call", "mount"],
    ] {
        let outcome = rig.output(args);
        assert_eq!(outcome.code, 64, "{args:?}: {}", outcome.stderr);
    }
    let none = rig.output(["why"]);
    assert_eq!((none.code, none.stdout.as_str()), (0, "no denials are known\n"));
    assert!(none.stderr.contains("Landlock"), "{}", none.stderr);
}

#[test]
fn a_file_for_its_owner_alone_is_denied_to_an_agent_with_a_uid_of_its_own() {
    use std::os::unix::fs::PermissionsExt;
    if !crate::support::needs_root("a_file_for_its_owner_alone_is_denied_to_an_agent_with_a_uid_of_its_own") {
        return;
    }
    assert!(is_root());
    let rig = Rig::new();
    let file = rig.agent("asker", "ring: 1\ncommand: [sh, -c, 'cat /etc/shadow']\n");
    let shadow = Path::new("/etc/shadow");
    assert_eq!(std::fs::metadata(shadow).unwrap().permissions().mode() & 0o007, 0);
    let (outcome, answer) = asked(&rig, &file, &["--path", "/etc/shadow"]);
    assert_eq!((outcome.code, answer["layer"].as_str()), (1, Some("file mode")), "{answer}");
}
