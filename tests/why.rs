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
    assert_eq!(
        (of(&["--call", "mount"]).0.as_str(), of(&["--call", "mount"]).1.as_str()),
        ("EPERM", "nested_sandbox: on")
    );
    assert_eq!(of(&["--call", "shmget"]).1, "ring: 1");
    assert_eq!((of(&["--call", "bpf"]).1.as_str(), of(&["--call", "clone3"]).0.as_str()), ("-", "ENOSYS"));
    let (_, agent_yaml, operator, _) = of(&["--connect", "127.0.0.1:8099"]);
    assert!(agent_yaml.contains("8099") && operator.contains("network: [{tcp:"), "{agent_yaml} {operator}");
    let (_, agent_yaml, operator, _) = of(&["--connect", "example.org:443"]);
    assert_eq!(agent_yaml, "network: [{host: example.org}]");
    assert!(operator.contains(&agent_yaml), "{operator}");
    assert_eq!(of(&["--connect", "example.org:22"]).1, "network: [{tcp: \"example.org:22\"}]");
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

/// Makes system calls by number, as x86-64 and aarch64 have them.
fn calling(lines: &str) -> String {
    let head = "import ctypes, os, socket, time\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def call(x86, arm):\n    \
            result = libc.syscall(x86 if os.uname().machine == 'x86_64' else arm, 0, 0, 0, 0, 0, 0)\n    \
            return ctypes.get_errno() if result < 0 else 0\n";
    format!("{head}{lines}")
}

const MOUNT: &str = "call(165, 40)";
const INIT_MODULE: &str = "call(175, 105)";

fn python(rig: &Rig, name: &str, lines: &str) -> std::path::PathBuf {
    std::fs::write(rig.work.join(format!("{name}.py")), calling(lines)).unwrap();
    rig.agent(name, &format!("ring: 2\n{}stdio: prefixed\ncommand: [python3, {name}.py]\n", effort()))
}

fn denials(rig: &Rig, who: &str) -> Vec<Value> {
    let outcome = rig.output(["why", who, "--json"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let value: Value = serde_json::from_str(&outcome.stdout).unwrap();
    value["agents"].as_array().unwrap().iter().flat_map(|agent| agent["denials"].as_array().unwrap().clone()).collect()
}

#[test]
fn what_an_agent_is_denied_is_told_once_counted_recorded_and_explained_after_its_end() {
    let rig = Rig::new();
    let lines =
        format!("for _ in range(40): print({MOUNT})\ntry: socket.socket(40, 1)\nexcept OSError as e: print(e.errno)\n");
    let file = python(&rig, "tries", &lines);
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.stdout.matches(" 1\n").count(), 41, "EPERM each time: {}", outcome.stdout);
    let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("denied: ")).collect();
    assert!(said.len() == 2 && said[0].starts_with("denied: mount   tries (pid "), "{}", outcome.stderr);
    assert!(said[1].contains("socket(AF_VSOCK, SOCK_STREAM)"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("exited 0   41 denials (agt-supervise why tries)"), "{}", outcome.stderr);
    // The supervisor has ended.
    let found = denials(&rig, "tries");
    let mount = found.iter().find(|denial| denial["words"] == "mount").unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!((mount["count"].as_u64(), mount["class"].as_str()), (Some(40), Some("mounts")), "{mount}");
    let advised = (mount["allow"]["agent_yaml"].as_str(), mount["retry"].as_bool());
    assert_eq!(advised, (Some("nested_sandbox: on"), Some(false)), "{mount}");
    assert!(mount["comm"].as_str().unwrap().starts_with("python3"), "{mount}");
    let id = mount["id"].as_str().unwrap();
    assert!(outcome.stderr.contains(&format!("help: agt-supervise why {id}")), "{}", outcome.stderr);
    let by_id = rig.output(["why", id]);
    assert!(by_id.code == 0 && by_id.stdout.contains("40 times") && !by_id.stdout.contains("VSOCK"), "{by_id:?}");
    // The first whole, the rest counted.
    let audit = rig.output(["audit", "show", "--agent", "tries"]).stdout;
    let of_mounts: Vec<&str> = audit.lines().filter(|line| line.contains("rule=\"seccomp.mounts\"")).collect();
    assert!((1..=4).contains(&of_mounts.len()) && of_mounts[0].contains("tried=\"mount\""), "{audit}");
    // The same in the next run, counted on.
    assert_eq!(rig.output(["run".as_ref(), file.as_os_str()]).code, 0);
    let again = denials(&rig, id);
    assert_eq!((again.len(), again[0]["count"].as_u64()), (1, Some(80)), "{again:?}");
    assert_eq!(again[0]["first_ms"], mount["first_ms"]);
}

#[test]
fn a_quiet_run_says_nothing_of_denials_and_knows_them() {
    let rig = Rig::new();
    let file = python(&rig, "quiet", &format!("{MOUNT}\n"));
    let outcome = rig.output(["run".as_ref(), "--quiet".as_ref(), file.as_os_str()]);
    assert!(outcome.code == 0 && !outcome.stderr.contains("denied"), "{}", outcome.stderr);
    assert_eq!(denials(&rig, "quiet").len(), 1);
    let json = rig.output(["run".as_ref(), "--json".as_ref(), file.as_os_str()]);
    assert!(json.stderr.lines().any(|line| line.starts_with("{\"level\":\"denied\"")), "{}", json.stderr);
}

#[test]
fn a_flood_of_denials_is_a_few_lines_and_a_count_and_the_agent_is_not_held_up() {
    let rig = Rig::new();
    let lines = "for family in range(17, 3000):\n  try: socket.socket(family, 1)\n  except OSError: pass\n\
for number in range(237, 246): libc.syscall(number, 0, 0, 0, 0, 0, 0)\nprint('done')\n";
    let file = python(&rig, "flood", lines);
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    let said = outcome.stderr.lines().filter(|line| line.starts_with("denied: ")).count();
    assert!((1..=5).contains(&said), "{}", outcome.stderr);
    let listed = rig.output(["why", "flood", "--last", "1000", "--json"]);
    let value: Value = serde_json::from_str(&listed.stdout).unwrap();
    let agent = &value["agents"][0];
    let kept = agent["denials"].as_array().unwrap();
    let known: u64 = kept.iter().map(|denial| denial["count"].as_u64().unwrap()).sum();
    assert!(kept.len() <= 64 && known + agent["lost"].as_u64().unwrap() >= 2983, "{agent}");
}

#[test]
fn an_escape_attempt_trips_the_safety_slo_at_once() {
    let rig = Rig::new();
    let file = python(&rig, "escapes", &format!("{INIT_MODULE}\ntime.sleep(1000)\n"));
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 76, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("safety") && outcome.stderr.contains("denied: init_module"), "{}", outcome.stderr);
}

/// The process that answers for an agent's filter: its sibling.
fn attendant(agent: i32) -> Option<i32> {
    let parent = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.split_whitespace().nth(1)?.parse().ok()
    };
    let init = parent(agent)?;
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "agt-attendant")
            && parent(*pid) == Some(init)
    };
    pids.into_iter().find(is_it)
}

#[test]
fn an_attendant_that_is_ended_is_said_and_what_it_would_answer_fails() {
    let rig = Rig::new();
    let lines =
        format!("print({MOUNT}, flush=True)\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint({MOUNT})\n");
    let file = python(&rig, "deaf", &lines);
    let supervisor = rig.start(&file);
    // Its first refused call has it started for sure.
    crate::support::until("the first denial is known", || {
        let listed = rig.output(["why", "deaf"]);
        listed.code == 0 && listed.stdout.contains("mount")
    });
    let pid = i32::try_from(rig.ps()["agents"][0]["pid"].as_i64().unwrap()).unwrap();
    let attendant = attendant(pid).expect("an attendant beside the agent");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(attendant), nix::sys::signal::Signal::SIGKILL).unwrap();
    crate::support::until("it is recorded", || {
        rig.output(["audit", "show", "--agent", "deaf"]).stdout.contains("attendant.gone")
    });
    std::fs::write(rig.work.join("go"), "").unwrap();
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(
        outcome.stdout.contains(" 1\n") && outcome.stdout.contains(" 38\n"),
        "EPERM, then ENOSYS: {}",
        outcome.stdout
    );
    assert!(outcome.stderr.contains("answers for its system call filter was ended"), "{}", outcome.stderr);
}

#[test]
fn a_question_about_an_agent_is_answered_with_the_operators_file_of_its_last_launch() {
    let rig = Rig::new();
    let (granted, workdir) = (rig.dir.path().join("granted"), rig.work.join("typed"));
    std::fs::create_dir(&granted).unwrap();
    std::fs::create_dir(&workdir).unwrap();
    let lines = format!("files:\n  read: [{}]\ncommand: [sh, -c, 'true']\n", granted.display());
    let file = rig.agent("granted", &format!("ring: 2\n{}{lines}", effort()));
    let operator = |name: &str| {
        let path = rig.dir.path().join(name);
        let entry = format!("granted: {{file: {}, read: [{}]}}", file.display(), granted.display());
        std::fs::write(&path, format!("version: 1\nkind: operator\nagents:\n  {entry}\n")).unwrap();
        crate::docs::only_its_owner_writes(&path);
        path.to_str().unwrap().to_owned()
    };
    let (first, second) = (operator("first.yaml"), operator("second.yaml"));
    let file = file.to_str().unwrap();
    let run = rig.output(["run", file, "--operator", &first, "--workdir", workdir.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let inside = granted.join("x").display().to_string();
    let outcome = rig.output(["why", "granted", "--path", &inside, "--json"]);
    assert_eq!(outcome.code, 0, "not 77: {}", outcome.stderr);
    let answer: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (answer["operator_file"].as_str(), answer["operator_named"].as_str()),
        (Some(&*first), Some("last-launch"))
    );
    let told = rig.output(["why", "granted", "--path", &inside, "--write"]);
    let expected = format!("the operator's file {first}, that of its last launch");
    assert!(told.code == 1 && told.stdout.contains(&expected), "{}{}", told.stdout, told.stderr);
    // A run to learn from is not how it is launched.
    let learnt = rig.output(["learn", file, "--operator", &second, "--drop"]);
    assert_eq!(learnt.code, 0, "{}", learnt.stderr);
    assert!(
        rig.output(["why", "granted", "--path", &inside]).stdout.contains(&first),
        "the last launch is still known"
    );
    // The workdir that was typed then is the one that relative paths are from.
    let relative = rig.output(["why", "granted", "--path", "out", "--write"]);
    assert!(relative.code == 0 && relative.stdout.contains("typed/out"), "{}{}", relative.stdout, relative.stderr);
    // What is typed now wins, and is said.
    let other = rig.output(["why", "granted", "--path", &inside, "--write", "--operator", &second]);
    assert!(other.code == 1 && other.stdout.contains(&format!("{second}, as named")), "{other:?}");
    // A file stands for itself; an operator's file that went away is no silent other one.
    assert_eq!(rig.output(["why", file, "--path", &inside]).code, 77);
    std::fs::remove_file(&first).unwrap();
    let gone = rig.output(["why", "granted", "--path", &inside]);
    assert!(gone.code == 64 && gone.stderr.contains(&first) && gone.stderr.contains("--operator FILE"), "{gone:?}");
    let audit = rig.output(["audit", "show", "--agent", "granted"]).stdout;
    assert!(audit.contains(&format!("operator={first:?}")), "{audit}");
}

/// The keys of an object, in order.
fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

#[test]
fn the_json_of_why_has_the_keys_that_its_help_documents_and_no_others() {
    let rig = Rig::new();
    let file = python(&rig, "keys", &format!("{MOUNT}\n"));
    assert_eq!(rig.output(["run".as_ref(), file.as_os_str()]).code, 0);
    let listed: Value = serde_json::from_str(&rig.output(["why", "--json"]).stdout).unwrap();
    let agent = &listed["agents"][0];
    let denial = &agent["denials"][0];
    let (_, allowed) = asked(&rig, &file, &["--path", "/usr/bin/env"]);
    let (_, denied) = asked(&rig, &file, &["--path", "/usr/bin/env", "--write"]);
    let (_, unknown) = asked(&rig, &file, &["--path", "/proc/4711/environ"]);
    let question = ["agent", "file", "operator_file", "operator_named", "question", "ring", "answer"];
    let sorted = |parts: &[&'static str]| {
        let mut all = [&question[..], parts].concat();
        all.sort_unstable();
        all
    };
    let golden: [(&Value, Vec<&str>); 9] = [
        (&listed, vec!["agents", "not_seen"]),
        (agent, vec!["agent", "denials", "forgotten", "lost"]),
        (
            denial,
            vec![
                "allow", "class", "comm", "count", "first_ms", "id", "last_ms", "layer", "pid", "retry", "ring",
                "rule", "tried", "why", "words",
            ],
        ),
        (&denial["tried"], vec!["call"]),
        (&denial["tried"]["call"], vec!["arch", "args", "argument", "call", "errno"]),
        (&denial["allow"], vec!["agent_yaml", "operator", "ring", "text"]),
        (&allowed, sorted(&["by"])),
        (&denied, sorted(&["allow", "errno", "layer", "retry", "rule", "why"])),
        (&unknown, sorted(&["why"])),
    ];
    let help = rig.output(["why", "--help"]).stdout;
    for (value, expected) in golden {
        let mut found = keys(value);
        found.sort_unstable();
        assert_eq!(found, expected, "{value}");
        // What of a call is tried is the call's own matter.
        let is_tried = value == &denial["tried"] || value == &denial["tried"]["call"];
        for key in found.iter().filter(|_| !is_tried) {
            assert!(help.contains(key), "`{key}` is not in `why --help`");
        }
    }
    assert_eq!(keys(&denied["allow"]).len(), 3, "{denied}");
}

#[test]
fn another_process_is_none_of_an_agents_and_a_plan_says_what_it_cannot_know() {
    let rig = Rig::new();
    let script = "cat /proc/1/environ; echo \"one=$?\"; cat /proc/self/status > /dev/null; echo \"self=$?\"; \
        cat /proc/1/status > /dev/null; echo \"status=$?\"";
    let file = rig.agent("peeks", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(script)));
    let run = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(run.stdout, "one=1\nself=0\nstatus=0\n", "what a plan has to say: {}", run.stderr);
    for (path, answer, code) in [
        ("/proc/1/environ", "denied", 1),
        ("/proc/1/status", "allowed", 0),
        ("/proc/self/environ", "allowed", 0),
        ("/proc/4711/environ", "unknown", 1),
    ] {
        let (outcome, told) = asked(&rig, &file, &["--path", path]);
        assert_eq!((told["answer"].as_str(), outcome.code), (Some(answer), code), "{path}: {told}");
    }
    let words = rig.output(["why", file.to_str().unwrap(), "--path", "/proc/1/environ"]);
    assert!(words.stdout.contains("the ring's own init") && words.stdout.contains("no line can"), "{}", words.stdout);
}

#[test]
fn what_a_step_of_a_saga_is_denied_is_told_recorded_and_explained_under_its_name() {
    let rig = Rig::new();
    std::fs::write(rig.work.join("step.py"), calling(&format!("print({MOUNT})\n"))).unwrap();
    let steps = "steps:\n  quiet: {command: ['true'], effects: none}\n  ship: {command: [python3, step.py], needs: [quiet], effects: none}\n";
    std::fs::write(rig.work.join("saga.yaml"), format!("version: 1\nkind: saga\nname: refund\n{}{steps}", effort()))
        .unwrap();
    let run = rig.output(["saga", "run", "saga.yaml"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let listed: Value = serde_json::from_str(&rig.output(["saga", "list", "--json"]).stdout).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    let step = format!("{id}/ship");
    assert!(run.stderr.contains(&format!("denied: mount   {step} (pid ")), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("{step}  1 denial (agt-supervise why ")), "{}", run.stderr);
    for who in [step.as_str(), id] {
        let found = denials(&rig, who);
        assert_eq!((found.len(), found[0]["words"].as_str()), (1, Some("mount")), "{who}: {found:?}");
    }
    let told = rig.output(["why", &step]).stdout;
    assert!(told.contains(&step) && told.contains("no line can for a step of a saga"), "{told}");
    let none = rig.output(["why", &format!("{id}/quiet")]);
    assert!(none.code == 0 && none.stdout.contains("no denials of"), "{none:?}");
    let audit = rig.output(["audit", "show", "--agent", &step]).stdout;
    assert!(audit.contains("rule=\"seccomp.mounts\""), "{audit}");
    let question = rig.output(["why", &step, "--call", "mount"]);
    assert!(question.code == 64 && question.stderr.contains("a step of a saga"), "{question:?}");
    assert_eq!(rig.output(["why", "refund-00000000/ship"]).code, 64);
    assert!(rig.output(["logs", &step]).stdout.contains('1'), "its log has the name that `ps` shows");
}

#[test]
fn an_escape_attempt_of_a_step_counts_against_its_saga() {
    let rig = Rig::new();
    let script = calling(&format!("{INIT_MODULE}\ntime.sleep(1000)\n"));
    std::fs::write(rig.work.join("step.py"), script).unwrap();
    let steps = "steps:\n  out: {command: [python3, step.py], effects: none}\n";
    std::fs::write(rig.work.join("saga.yaml"), format!("version: 1\nkind: saga\nname: escape\n{}{steps}", effort()))
        .unwrap();
    let run = rig.output(["saga", "run", "saga.yaml"]);
    assert!(run.code != 0 && run.stderr.contains("ring_breach"), "{}", run.stderr);
}
