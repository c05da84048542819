//! What is said of wrong files: every mistake of every phase at once, each with its line, and no more than that.

use crate::support::Rig;

/// Writes `text` to a file and gives what the command says of it, with its exit code.
fn said(args: &[&str], text: &str) -> (i32, String) {
    let rig = Rig::new();
    std::fs::write(rig.work.join("file.yaml"), text).unwrap();
    let outcome = rig.output(args);
    (outcome.code, outcome.stderr)
}

fn told(args: &[&str], text: &str, expected: &[&str]) {
    let (code, stderr) = said(args, text);
    assert_eq!(code, 64, "{stderr}");
    for part in expected {
        assert!(stderr.contains(part), "`{part}` is missing in:\n{stderr}");
    }
    let errors = stderr.matches("error: ").count();
    assert_eq!(errors, expected.len(), "one error for each mistake:\n{stderr}");
}

#[test]
fn a_misspelling_in_an_agents_file_hides_no_other_mistake() {
    let check = ["check", "file.yaml"];
    let head = "version: 1\nname: a\ncommand: [sh]\n";
    let slos = "slos:\n  - {name: one, sli: latencyy, objective: 100%, threshold: 2s}\n  - {name: one, sli: safety, objective: 99%}\n";
    told(&check, &format!("{head}{slos}"), &["`latencyy`", "no error budget", "another SLO is named"]);
    let times = "slos:\n  - {name: a, sli: latency, objective: 99%, threshold: -1s, period: 0s}\n  - {name: b, sli: safety, objective: 99%, period: 1000000d}\n";
    told(&check, &format!("{head}{times}"), &["threshold", "`slos[0].period`", "1000000"]);
    let remedy = "slos:\n  - {name: Not A Name, sli: safety, objective: 99%, remedies: [{on: page, action: demot}]}\n";
    told(&check, &format!("{head}{remedy}"), &["`demote`", "is not a name"]);
    // Rights and paths beside a misspelt key, where what they rest on is sound.
    let rights = "files: {read: [/srv/nowhere/at/all]}\nlimits: {memroy: 1GiB}\nnetwork: [{tcp: '127.0.0.1:8'}, {tcp: '127.0.0.1:8'}]\n";
    let (_, stderr) = said(&check, &format!("{head}ring: 2\n{rights}"));
    for part in ["memroy", "twice", "nowhere"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    // And no more than that: a program that is not there is no news while the command itself is wrong.
    told(&check, "version: 1\nname: A B\ncommand: {}\nring: 7\n", &["`A B`", "`command`", "`7`"]);
    told(&check, &format!("{head}ring: 2\nring: 2\ntmeouts: {{}}\n"), &["twice", "tmeouts"]);
}

#[test]
fn a_misspelling_in_a_sagas_file_hides_no_other_mistake() {
    let text = "version: 1\nkind: saga\nname: s\ntimeout: 5\nsteps:\n  - {name: a, command: ['true'], compensat: {}, effects: none, retry: {attempts: 0}}\n  - {name: b, command: ['true'], effects: none, needs: [zz]}\n";
    told(&["saga", "run", "file.yaml"], text, &["compensat", "timeout", "attempts", "zz"]);
}

#[test]
fn a_misspelling_in_an_experiments_file_hides_no_other_mistake() {
    let text = "version: 1\nkind: chaos\nname: c\nagent: a\nfault: proces-hang\nduration: 15\nsteady_state:\n  - {sli: availabilty, comparison: at-least, value: 2}\n";
    told(
        &["chaos", "plan", "file.yaml"],
        text,
        &["proces-hang", "duration", "did you mean `availability`?", "out of range"],
    );
}

#[test]
fn a_misspelling_in_the_operators_file_hides_no_other_mistake() {
    let rig = Rig::new();
    let agent = rig.agent("a", "command: [sh]\n");
    let text = "version: 1\nkind: operator\nceilng: 2\nagents:\n  a: {file: a.yaml, capabilities: [net_bnid], read: ['~/x'], limits: {memory: 64M}}\n";
    std::fs::write(rig.work.join("operator.yaml"), text).unwrap();
    let outcome = rig.output(["check".as_ref(), agent.as_os_str(), "--operator".as_ref(), "operator.yaml".as_ref()]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    for part in ["ceilng", "net_bnid", "~/x", "64M"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
}

#[test]
fn check_gives_problems_as_data() {
    let rig = Rig::new();
    let bad = rig.agent("bad", "command: [sh]\nring: 4\nlimits: {memroy: 1GiB}\n");
    let outcome = rig.output(["check".as_ref(), "--json".as_ref(), bad.as_os_str()]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    let data: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let problems = data[0]["problems"].as_array().unwrap();
    let found: Vec<_> = problems.iter().map(|p| (p["line"].as_u64().unwrap(), p["key"].as_str().unwrap())).collect();
    assert_eq!(found, [(4, "ring"), (5, "limits.memroy")], "{data}");
    assert!(problems.iter().all(|p| p["help"].is_string() && p["file"].is_string() && p["column"].is_u64()), "{data}");
}

#[test]
fn a_suggestion_never_offers_more_rights_and_is_never_what_was_written() {
    let of = |rest: &str| said(&["check", "file.yaml"], &format!("version: 1\nname: a\n{rest}")).1;
    let ring = of("command: [sh]\nring: 4\n");
    assert!(ring.contains("did you mean `3`?") && ring.contains("0, 1, 2, 3") && !ring.contains("`0`"), "{ring}");
    for (text, wanted) in [
        ("command: [sh]\nring: \"2\"\n", "without quotes"),
        ("command: [sh]\nring: 2\nnetwork: none\n", "leave the line out"),
        ("command: [/etc/passwd]\n", "neither a binary nor a script"),
        ("command: [sh]\ntimeouts: {grace: 5s}\n", "did you mean `stop`?"),
        ("command: [sh]\nlimits: {tasks: 99999999999999999999999999}\n", "a number that is too large"),
        ("command: !!python/object/apply:os.system [id]\n", "has no meaning here"),
    ] {
        let stderr = of(text);
        assert!(stderr.contains(wanted), "{text}: {stderr}");
    }
    for text in ["null\n", "~\n", "# nothing\n"] {
        let (code, stderr) = said(&["check", "file.yaml"], text);
        assert!(code == 64 && stderr.contains("the file is empty"), "{text:?}: {stderr}");
    }
    let operator = Rig::new();
    let agent = operator.agent("a", "command: [sh]\n");
    std::fs::write(operator.work.join("operator.yaml"), "").unwrap();
    let args = ["check".as_ref(), agent.as_os_str(), "--operator".as_ref(), "operator.yaml".as_ref()];
    let stderr = operator.output(args).stderr;
    assert!(stderr.contains("kind: operator") && !stderr.contains("command"), "{stderr}");
    std::fs::remove_file(operator.work.join("operator.yaml")).unwrap();
    assert!(!operator.output(args).stderr.contains("agent.yaml"));
}

#[test]
fn data_that_can_not_be_written_is_a_failure_and_a_reader_that_left_is_none() {
    let rig = Rig::new();
    assert_eq!(rig.sh(2, "exit 0").code, 0);
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["audit", "show"][..],
        &["trust", "show"],
        &["slo"],
        &["schema", "agent"],
        &["man"],
        &["completions", "bash"],
        &["audit", "key", "--json"],
        &["--help"],
    ] {
        let outcome = rig.command(args).stdout(full()).stderr(std::process::Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!(outcome.status.code(), Some(73), "{args:?}: {stderr}");
        assert!(stderr.contains("standard output"), "{args:?}: {stderr}");
        // A pipe whose reader is gone.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let outcome = rig.command(args).stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        assert!(outcome.status.code() == Some(0) && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_name_that_nobody_has_is_wrong_usage_in_every_verb() {
    let rig = Rig::new();
    let verbs: [&[&str]; 6] = [
        &["logs", "nosuch"],
        &["trust", "show", "nosuch"],
        &["trust", "set", "nosuch", "800", "--reason", "x"],
        &["attest", "nosuch", "--reason", "x", "--ttl", "1h"],
        &["slo", "nosuch"],
        &["saga", "show", "0b5cd8a2-6b6f-4c3e-9d0e-000000000000"],
    ];
    let check = |when: &str| {
        for args in verbs {
            let outcome = rig.output(args);
            assert_eq!(outcome.code, 64, "{when}, {args:?}: {}", outcome.stderr);
            assert!(!outcome.stderr.contains("stdio"), "{when}, {args:?}: {}", outcome.stderr);
        }
    };
    assert_eq!(rig.sh(2, "exit 0").code, 0);
    check("no supervisor");
    let file = rig
        .agent("alive", &format!("ring: 2\n{}stdio: prefixed\ncommand: [sleep, '1000']\n", crate::support::effort()));
    let _supervisor = rig.start(&file);
    check("a supervisor");
    for args in [&["status", "nosuch"][..], &["stop", "nosuch", "--yes"]] {
        assert_eq!(rig.output(args).code, 64, "{args:?}");
    }
    for args in [
        &["attest", "alive", "--reason", "x", "--ttl", "25h"][..],
        &["attest", "alive", "--reason", " ", "--ttl", "1h"],
        &["trust", "set", "alive", "800", "--reason", ""],
    ] {
        let outcome = rig.output(args);
        assert_eq!(outcome.code, 64, "{args:?}: {}", outcome.stderr);
    }
    let lines = rig.output(["logs", "alive", "--json"]);
    assert!(serde_json::from_str::<serde_json::Value>(&lines.stdout).unwrap()["lines"].is_array(), "{lines:?}");
}

#[test]
fn a_status_file_that_can_not_be_written_is_refused_before_anything_runs() {
    let rig = Rig::new();
    let file = rig.agent("a", &format!("{}command: [sh, -c, 'touch ran']\nring: 2\n", crate::support::effort()));
    for place in ["/nowhere/at/all/end.json", "/dev/null/end.json", "."] {
        let args = ["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), place.as_ref()];
        let outcome = rig.output(args);
        assert_eq!(outcome.code, 73, "{place}: {}", outcome.stderr);
        assert!(
            !rig.work.join("ran").exists() && outcome.stderr.contains("status file"),
            "{place}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn run_speaks_json_beside_its_agent_when_asked() {
    let rig = Rig::new();
    let text = format!("{}command: [sh, -c, 'echo its own; exit 4']\nring: 2\n", crate::support::effort());
    let file = rig.agent("a", &text);
    let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--json".as_ref()]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (4, "its own\n"));
    let said: Vec<serde_json::Value> = outcome
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(said.iter().any(|said| said["level"] == "info" && said["text"] == "a  exited 4"), "{said:?}");
    let bad = rig.output(["run", "nosuch.yaml", "--json"]);
    let said: serde_json::Value = serde_json::from_str(bad.stderr.lines().next().unwrap()).unwrap();
    assert!(bad.code == 64 && said["level"] == "error", "{said}");
}

#[test]
fn a_status_file_is_for_one_agent() {
    let rig = Rig::new();
    let files = ["a", "b"].map(|name| rig.agent(name, "command: [sh, -c, 'touch ran']\nring: 2\n"));
    let outcome = rig.output([
        "run".as_ref(),
        files[0].as_os_str(),
        files[1].as_os_str(),
        "--status-file".as_ref(),
        "end.json".as_ref(),
    ]);
    assert!(outcome.code == 64 && outcome.stderr.contains("one by one"), "{}", outcome.stderr);
    assert!(!rig.work.join("ran").exists());
}

#[test]
fn a_step_that_can_not_have_its_input_says_which() {
    let rig = Rig::new();
    let file = rig.work.join("saga.yaml");
    let text = format!(
        "version: 1\nkind: saga\nname: thirsty\n{}steps:\n  one: {{command: [sh, -c, 'echo plain'], effects: none}}\n  \
         two: {{command: [cat], effects: none, needs: [one], inputs: {{x: steps.one.outputs.b}}}}\n",
        crate::support::effort()
    );
    std::fs::write(&file, text).unwrap();
    let outcome = rig.output(["saga".as_ref(), "run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("given up: input `x`: step `one` gave no outputs.b"), "{}", outcome.stderr);
}

#[test]
fn an_empty_secret_is_refused_and_an_open_one_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    let secret = rig.work.join("token");
    let agent = rig.agent("a", "command: [sh]\nring: 2\nenv: {secrets: {TOKEN: {file: token}}}\n");
    std::fs::write(&secret, "").unwrap();
    let outcome = rig.output(["check".as_ref(), agent.as_os_str()]);
    assert!(outcome.code == 64 && outcome.stderr.contains("is empty"), "{}", outcome.stderr);
    std::fs::write(&secret, "x").unwrap();
    std::fs::write(
        rig.work.join("operator.yaml"),
        format!(
            "version: 1\nkind: operator\nagents: {{a: {{file: {}, secrets: [{}]}}}}\n",
            agent.display(),
            secret.display()
        ),
    )
    .unwrap();
    for (mode, told) in [(0o644, true), (0o600, false)] {
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(mode)).unwrap();
        let args = ["check".as_ref(), agent.as_os_str(), "--operator".as_ref(), "operator.yaml".as_ref()];
        let outcome = rig.output(args);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_eq!(outcome.stdout.contains("can be read by others"), told, "{}", outcome.stdout);
    }
}

#[test]
fn every_verb_has_a_page_and_every_kind_a_schema() {
    let rig = Rig::new();
    let man = |words: &[&str]| rig.output([&["man"], words].concat());
    let page = man(&[]);
    for part in ["partially compensated", "abandoned", "a bug of ours"] {
        assert!(page.code == 0 && page.stdout.contains(part), "{part}");
    }
    // Each page that the program's own refers to is there.
    let verbs: Vec<String> = page
        .stdout
        .lines()
        .filter_map(|line| {
            line.strip_prefix("agt\\-supervise\\-")?.strip_suffix("(1)").map(|verb| verb.replace('\\', ""))
        })
        .collect();
    assert!(verbs.len() > 15, "{}", page.stdout);
    for verb in &verbs {
        let page = man(&[verb]);
        assert!(
            page.code == 0 && page.stdout.contains(&format!(".TH agt-supervise-{verb}")),
            "{verb}: {}",
            page.stderr
        );
    }
    assert!(man(&["saga", "run"]).stdout.contains("saga run"));
    let none = man(&["saga", "nosuch"]);
    assert!(none.code == 64 && none.stderr.contains("resume"), "{}", none.stderr);
    for kind in ["agent", "saga", "chaos", "operator"] {
        let schema = rig.output(["schema", kind]);
        let value: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
        assert!(value["properties"]["kind"].is_object(), "{kind}");
    }
    for verb in ["saga", "audit", "chaos"] {
        assert!(rig.output([verb, "--help"]).stdout.contains("Examples:"), "{verb}");
    }
}

#[test]
fn whoever_asks_for_a_log_is_told_why_there_is_none() {
    let rig = Rig::new();
    let run = |stdio: &str, script: &str| {
        let lines = format!("ring: 2\n{}stdio: {stdio}\ncommand: [sh, -c, {script}]\n", crate::support::effort());
        let file = rig.agent("writer", &lines);
        assert_eq!(rig.output(["run".as_ref(), file.as_os_str()]).code, 0);
    };
    run("raw", "'echo hello'");
    let logs = rig.output(["logs", "writer"]);
    assert_eq!(logs.code, 1, "{}", logs.stderr);
    for part in ["went straight to whoever ran it", "--stdio prefixed"] {
        assert!(logs.stderr.contains(part) && !logs.stderr.contains("os error"), "{}", logs.stderr);
    }
    run("prefixed", "'true'");
    let logs = rig.output(["logs", "writer"]);
    assert_eq!((logs.code, logs.stdout.as_str(), logs.stderr.as_str()), (0, "", "writer has printed nothing yet\n"));
    run("prefixed", "'echo hello; echo there >&2'");
    let logs = rig.output(["logs", "writer"]);
    assert!(logs.stdout.contains("hello\n") && logs.stdout.contains("there\n"), "{logs:?}");
    for (name, word) in [("nosuch", "no agent is called `nosuch`"), ("../x", "is no agent's name")] {
        let logs = rig.output(["logs", name]);
        assert!(logs.code == 64 && logs.stderr.contains(word) && logs.stderr.contains("ps"), "{}", logs.stderr);
    }
}
