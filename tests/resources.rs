//! What agents use and which limits they meet, against the real kernel: a memory hog, a fork bomb, a CPU burner, limits that are
//! changed while an agent runs, and limits over all agents.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::docs::only_its_owner_writes;
use crate::metrics::{address, scrape, value};
use crate::support::{Outcome, Rig, Supervisor, binary, effort, is_root, needs_root, quoted, until};

/// Starts these agents, with this operator's file if there is one, and waits until one runs.
fn start(rig: &Rig, files: &[&Path], operator: Option<&Path>) -> Supervisor {
    let mut command = rig.command(["run", "--metrics", "127.0.0.1:0"]);
    if let Some(operator) = operator {
        command.arg("--operator").arg(operator);
    }
    let log = std::fs::File::create(rig.dir.path().join("stderr")).unwrap();
    let child = command.args(files).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    until("an agent runs", || {
        let ps = rig.output(["ps", "--json"]);
        ps.code == 0 && ps.stdout.contains("\"state\": \"running\"")
    });
    supervisor
}

/// What the supervisor has said.
fn said(rig: &Rig) -> String {
    std::fs::read_to_string(rig.dir.path().join("stderr")).unwrap()
}

fn python(rig: &Rig, name: &str, limits: &str, script: &str) -> PathBuf {
    rig.agent(name, &format!("ring: 2\nlimits: {limits}\ncommand: [python3, -c, {}]\n", quoted(script)))
}

fn agent(ps: &Value, name: &str) -> Value {
    let agents = ps["agents"].as_array().unwrap();
    agents.iter().find(|agent| agent["name"] == name).unwrap_or_else(|| panic!("no {name} in {ps}")).clone()
}

fn audit(rig: &Rig, agent: &str) -> String {
    let shown = rig.output(["audit", "show", "--agent", agent, "--json"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    shown.stdout
}

fn limits(rig: &Rig, args: &[&str]) -> Outcome {
    rig.output([&["limits"], args].concat())
}

fn operator(rig: &Rig, rest: &str) -> PathBuf {
    let path = rig.dir.path().join("operator.yaml");
    std::fs::write(&path, format!("version: 1\nkind: operator\n{rest}")).unwrap();
    only_its_owner_writes(&path);
    path
}

/// One file of an agent's group, found by ourselves: not through the program under test.
fn kernel(pid: i64, v1: (&str, &str), v2: &str) -> String {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controller: &str| {
        own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            names.split(',').any(|name| name == controller).then(|| path.to_owned())
        })
    };
    let (controller, file) = v1;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = |kind: &str, option: Option<&str>| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let fits = fields[2] == kind && option.is_none_or(|option| fields[3].split(',').any(|one| one == option));
            fits.then(|| fields[1].to_owned())
        })
    };
    let path = match (of(controller), mount("cgroup", Some(controller))) {
        (Some(group), Some(mount)) => format!("{mount}{group}/{file}"),
        _ => format!("{}{}/{v2}", mount("cgroup2", None).unwrap(), of("").unwrap()),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

#[test]
fn a_memory_hog_is_seen_at_its_limit_in_lines_records_and_metrics() {
    if !needs_root("a_memory_hog_is_seen_at_its_limit_in_lines_records_and_metrics") {
        return;
    }
    let rig = Rig::new();
    let script = "import time\ntime.sleep(0.5)\nb = bytearray(512 << 20)\n";
    let hog = rig.agent(
        "hog",
        &format!(
            "ring: 2\nlimits: {{memory: 64MiB}}\nrestart: {{policy: always, attempts: 1000, backoff: {{initial: 1s, max: 1s}}}}\ncommand: [python3, -c, {}]\n",
            quoted(script)
        ),
    );
    let _supervisor = start(&rig, &[&hog], None);
    let line = "warning: hog met its memory limit (64MiB): the kernel ended ";
    until("it is said", || said(&rig).contains(line));
    until("it is recorded", || {
        let records = audit(&rig, "hog");
        records.contains("limit.met") && records.contains("oom_kill")
    });
    let address = address(&rig.ps());
    until("it is counted over its lives", || {
        let text = scrape(&address);
        value(&text, "agt_agent_limit_hits_total{agent=\"hog\",limit=\"oom_kill\"}") >= Some(2.0)
            && value(&text, "agt_agent_oom_kills_total{agent=\"hog\"}") >= Some(2.0)
    });
    assert_eq!(said(&rig).matches(line).count(), 1, "every life has met it, and one line is enough:\n{}", said(&rig));
}

#[test]
fn a_fork_bomb_is_seen_at_its_limit_and_counted() {
    if !needs_root("a_fork_bomb_is_seen_at_its_limit_and_counted") {
        return;
    }
    let rig = Rig::new();
    let script = "import os, time\nwhile True:\n    try:\n        if os.fork() == 0: time.sleep(1000)\n    except OSError: time.sleep(0.05)\n";
    let bomb = python(&rig, "bomb", "{tasks: 40}", script);
    let _supervisor = start(&rig, &[&bomb], None);
    until("it is at its limit", || agent(&rig.ps(), "bomb")["usage"]["tasks_limit_hits"].as_u64() > Some(3));
    let seen = agent(&rig.ps(), "bomb");
    assert_eq!(seen["usage"]["tasks"], 40, "{seen}");
    assert_eq!(seen["limits"]["in_force"]["tasks"], 40, "{seen}");
    until("it is said", || said(&rig).contains("warning: bomb met its task limit (40): "));
    until("it is recorded", || audit(&rig, "bomb").contains("limit.met"));
    let text = scrape(&address(&rig.ps()));
    assert!(value(&text, "agt_agent_limit_hits_total{agent=\"bomb\",limit=\"tasks\"}") > Some(3.0), "{text}");
    assert_eq!(value(&text, "agt_agent_tasks_limit{agent=\"bomb\"}"), Some(40.0));
    let table = rig.output(["ps"]).stdout;
    assert!(table.contains("40/40"), "{table}");
    let status = rig.output(["status", "bomb"]).stdout;
    assert!(status.contains("tasks 40   (read from the kernel)") && status.contains("forks refused: "), "{status}");
}

#[test]
fn a_cpu_burner_is_held_back_and_top_shows_by_how_much() {
    if !needs_root("a_cpu_burner_is_held_back_and_top_shows_by_how_much") {
        return;
    }
    let rig = Rig::new();
    // So little that it runs out in each period, however busy the machine is.
    let burner = rig.agent("burner", "ring: 2\nlimits: {cpu: 2%}\ncommand: [sh, -c, 'while :; do :; done']\n");
    let _supervisor = start(&rig, &[&burner], None);
    until("it is held back", || agent(&rig.ps(), "burner")["usage"]["cpu_throttled_periods"].as_u64() > Some(10));
    until("it is said", || said(&rig).contains("note: burner is held back by its CPU limit (2%)"));
    let top = rig.output(["top", "--json", "--interval", "2s"]);
    assert_eq!(top.code, 0, "{}", top.stderr);
    let top: Value = serde_json::from_str(&top.stdout).unwrap();
    let rate = &top["rates"]["burner"];
    let cores = rate["cpu_cores"].as_f64().unwrap();
    assert!(cores > 0.0 && cores < 0.1, "{rate}");
    assert!(rate["throttled_ratio"].as_f64() > Some(0.3), "{rate}");
    let text = scrape(&address(&rig.ps()));
    assert!(value(&text, "agt_agent_limit_hits_total{agent=\"burner\",limit=\"cpu\"}") > Some(10.0), "{text}");
    assert_eq!(value(&text, "agt_agent_cpu_limit_cores{agent=\"burner\"}"), Some(0.02));
    let plain = rig.output(["top", "--interval", "200ms"]).stdout;
    assert!(plain.contains("burner") && plain.contains("HELD") && !plain.contains('\x1b'), "{plain}");
}

#[test]
fn top_draws_on_a_terminal_and_puts_it_back() {
    let rig = Rig::new();
    let file = rig.agent("seen", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let _supervisor = start(&rig, &[&file], None);
    let line = format!("{} --state-dir {} top", binary().display(), rig.state.display());
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env_remove("NO_COLOR");
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(script.stdin.as_mut().unwrap(), b"q").unwrap();
    let output = Outcome::from(script.wait_with_output().unwrap());
    assert_eq!(output.code, 0, "{}", output.stdout);
    let (before, drawn) = output.stdout.split_once("\x1b[?1049h").expect("it goes to the other screen");
    assert!(!before.contains("seen") && drawn.contains("seen"), "{drawn}");
    assert!(drawn.trim_end().ends_with("\x1b[?1049l"), "it comes back: {drawn:?}");
}

#[test]
fn limits_set_live_are_in_the_kernel_and_survive_a_restart() {
    if !needs_root("limits_set_live_are_in_the_kernel_and_survive_a_restart") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("sleeper", "ring: 2\nlimits: {memory: 256MiB, tasks: 60}\ncommand: [sleep, '1000']\n");
    let _supervisor = start(&rig, &[&file], None);
    let pid = || agent(&rig.ps(), "sleeper")["pid"].as_i64();
    let memory = |pid: i64| kernel(pid, ("memory", "memory.limit_in_bytes"), "memory.max");
    let tasks = |pid: i64| kernel(pid, ("pids", "pids.max"), "pids.max");
    let first = pid().unwrap();
    assert_eq!(memory(first), (256 << 20).to_string());

    let set = limits(&rig, &["set", "sleeper", "memory=100MiB", "cpu=30%", "tasks=70", "--reason", "a try"]);
    assert_eq!(set.code, 0, "{}", set.stderr);
    assert!(set.stderr.contains("sleeper  memory 100MiB  cpu 30%  tasks 70"), "{}", set.stderr);
    assert_eq!((memory(first), tasks(first).as_str()), ((100 << 20).to_string(), "70"));
    assert!(kernel(first, ("cpu", "cpu.cfs_quota_us"), "cpu.max").starts_with("30000"));
    let record = audit(&rig, "sleeper");
    assert!(
        record.contains("limits.set") && record.contains("a try") && record.contains("256MiB -> 100MiB"),
        "{record}"
    );
    // Raised tasks: durable before.
    assert!(record.contains("60 -> 70"), "{record}");

    assert_eq!(rig.output(["restart", "sleeper", "--reason", "new life", "--yes"]).code, 0);
    until("it has a new life", || pid().is_some_and(|pid| pid != first));
    let second = pid().unwrap();
    assert_eq!((memory(second), tasks(second).as_str()), ((100 << 20).to_string(), "70"));
    let shown = limits(&rig, &["show", "sleeper"]).stdout;
    assert!(shown.contains("100MiB") && shown.contains("256MiB") && shown.contains("a try"), "{shown}");

    let reset = limits(&rig, &["reset", "sleeper", "--reason", "enough"]);
    assert_eq!(reset.code, 0, "{}", reset.stderr);
    assert_eq!((memory(second), tasks(second).as_str()), ((256 << 20).to_string(), "60"));
    assert!(audit(&rig, "sleeper").contains("limits.reset"));
}

#[test]
fn a_limit_above_what_the_ring_gives_is_refused_unless_it_is_meant() {
    if !needs_root("a_limit_above_what_the_ring_gives_is_refused_unless_it_is_meant") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("greedy", "ring: 2\ncommand: [sleep, '1000']\n");
    let _supervisor = start(&rig, &[&file], None);
    let pid = agent(&rig.ps(), "greedy")["pid"].as_i64().unwrap();
    let memory = || kernel(pid, ("memory", "memory.limit_in_bytes"), "memory.max");
    let before = memory();
    let refused = limits(&rig, &["set", "greedy", "memory=2GiB", "--reason", "more"]);
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    for word in ["memory=2GiB is more than R2", "(1GiB)", "agents.greedy", "--above-ceiling"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    assert_eq!(memory(), before);
    let meant = limits(&rig, &["set", "greedy", "memory=2GiB", "--reason", "more", "--above-ceiling"]);
    assert_eq!(meant.code, 0, "{}", meant.stderr);
    assert_eq!(memory(), (2_u64 << 30).to_string());
    assert!(audit(&rig, "greedy").contains("above_ceiling"));
}

#[test]
fn a_reload_puts_the_limits_of_the_file_in_place_of_those_set_by_hand() {
    if !needs_root("a_reload_puts_the_limits_of_the_file_in_place_of_those_set_by_hand") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("worker", "ring: 2\nlimits: {tasks: 60}\ncommand: [sleep, '1000']\n");
    let _supervisor = start(&rig, &[&file], None);
    assert_eq!(limits(&rig, &["set", "worker", "tasks=20", "--reason", "less"]).code, 0);
    rig.agent("worker", "ring: 2\nlimits: {tasks: 50}\ncommand: [sleep, '1000']\n");
    let reloaded = rig.output(["reload", "--yes", "--reason", "new file"]);
    assert_eq!(reloaded.code, 0, "{}", reloaded.stderr);
    until("it has the limits of its file", || agent(&rig.ps(), "worker")["limits"]["in_force"]["tasks"] == 50);
    assert!(said(&rig).contains("limits that were set by hand are gone"), "{}", said(&rig));
}

#[test]
fn all_agents_together_are_held_by_the_total_of_the_operators_file() {
    if !needs_root("all_agents_together_are_held_by_the_total_of_the_operators_file") {
        return;
    }
    let rig = Rig::new();
    let operator = operator(&rig, "total: {memory: 96MiB, cpu: 50%, tasks: 60}\n");
    let script = "import time\ntime.sleep(1)\nb = bytearray(400 << 20)\n";
    let hog = python(&rig, "hog", "{memory: 512MiB}", script);
    let bomb = "import os, time\nwhile True:\n    try:\n        if os.fork() == 0: time.sleep(1000)\n    except OSError: time.sleep(0.05)\n";
    let bomb = python(&rig, "bomb", "{tasks: 200}", bomb);
    let _supervisor = start(&rig, &[&hog, &bomb], Some(&operator));
    let ps = rig.ps();
    let total = serde_json::json!({"memory_bytes": 96 << 20, "cpu_millis": 500, "tasks": 60});
    assert_eq!(ps["total"]["limits"], total, "{ps}");
    until("the hog is ended", || agent(&rig.ps(), "hog")["last_death"]["cause"] == "memory_limit");
    until("the bomb is held", || rig.ps()["total"]["usage"]["tasks"] == 60);
    let ps = rig.ps();
    assert!(agent(&ps, "bomb")["usage"]["tasks"].as_u64() <= Some(60), "{ps}");
    assert!(ps["total"]["usage"]["memory_peak_bytes"].as_u64().is_none_or(|peak| peak <= 96 << 20), "{ps}");
    assert!(said(&rig).contains("(512MiB; all agents together 96MiB)"), "{}", said(&rig));
    let table = rig.output(["ps"]).stdout;
    assert!(table.contains("all agents together: memory ") && table.contains("tasks 60/60"), "{table}");
    let text = scrape(&address(&ps));
    assert_eq!(value(&text, "agt_total_tasks_limit"), Some(60.0));
    assert_eq!(value(&text, "agt_total_memory_limit_bytes"), Some(f64::from(96 << 20)));
    let more = limits(&rig, &["set", "bomb", "tasks=100", "--reason", "a try"]);
    assert_eq!(more.code, 0, "{}", more.stderr);
    assert!(more.stderr.contains("all agents have together (60)"), "{}", more.stderr);
}

#[test]
fn a_wrong_limit_is_refused_before_anybody_is_asked() {
    let rig = Rig::new();
    for (wrong, says) in [("memory=64M", "64MiB"), ("memroy=1GiB", "did you mean"), ("tasks=0", "1 to")] {
        let outcome = limits(&rig, &["set", "nobody", wrong, "--reason", "x"]);
        assert_eq!(outcome.code, 64, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(says), "{wrong}: {}", outcome.stderr);
    }
    assert_eq!(limits(&rig, &["set", "nobody", "tasks=5", "--reason", "x"]).code, 69, "there is no supervisor");
    assert_eq!(limits(&rig, &["set", "nobody", "tasks=5"]).code, 64, "there is no reason");
}

#[test]
fn a_total_that_this_host_cannot_keep_starts_nothing() {
    if is_root() {
        // Root has all controllers here: the ordinary user's run of these tests shows it.
        println!("SKIP a_total_that_this_host_cannot_keep_starts_nothing: root has all controllers");
        return;
    }
    let rig = Rig::new();
    let operator = operator(&rig, "total: {memory: 1GiB}\n");
    let file = rig.agent("one", &format!("ring: 2\n{}command: ['true']\n", effort()));
    let outcome = rig.output(["run".as_ref(), "--operator".as_ref(), operator.as_os_str(), file.as_os_str()]);
    if outcome.code == 0 {
        // A user with a delegated group keeps it, which is as good.
        return;
    }
    assert_eq!(outcome.code, 69, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`total:` in the operator's file can't be kept here"), "{}", outcome.stderr);
}
