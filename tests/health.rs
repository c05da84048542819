//! Health checks: in the agent's ring and no less confined, bounded in time and output, and never in the way of a stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Rig, Supervisor, effort, is_root, needs_root, processes_with, quoted, unique, until};

/// An agent whose script is `agent` and whose check is the script `check`; `health` are the check's other keys.
fn checked(rig: &Rig, name: &str, agent: &str, check: &str, health: &str, rest: &str) -> PathBuf {
    let text = format!(
        "ring: 2\n{}command: [sh, -c, {}]\nhealth: {{command: [sh, -c, {}], {health}}}\n{rest}\n",
        effort(),
        quoted(agent),
        quoted(check)
    );
    rig.agent(name, &text)
}

fn spawn(rig: &Rig, file: &std::path::Path) -> Supervisor {
    let mut command = rig.command(["run".as_ref(), file.as_os_str()]);
    let piped = std::process::Stdio::piped;
    Supervisor { child: Some(command.stdout(piped()).stderr(piped()).spawn().unwrap()) }
}

fn of(rig: &Rig, name: &str) -> Value {
    let status = rig.output(["status", name, "--json"]);
    serde_json::from_str::<Value>(&status.stdout).map_or(Value::Null, |status| status["agents"][0].clone())
}

fn health(rig: &Rig, name: &str) -> String {
    of(rig, name)["health"]["state"].as_str().unwrap_or_default().to_owned()
}

fn stop(rig: &Rig, supervisor: Supervisor) -> crate::support::Outcome {
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait()
}

#[test]
fn an_agent_is_starting_then_healthy_then_failing_and_it_shows() {
    let rig = Rig::new();
    let file = checked(
        &rig,
        "moody",
        "exec sleep 1000",
        "echo checked; test -e ok",
        "interval: 200ms, timeout: 200ms, retries: 1000",
        "",
    );
    let supervisor = rig.start(&file);
    until("it is failing", || health(&rig, "moody") == "failing");
    assert!(rig.output(["ps"]).stdout.contains("running, failing "));
    std::fs::write(rig.work.join("ok"), "").unwrap();
    until("it is healthy", || health(&rig, "moody") == "healthy");
    assert!(rig.output(["ps"]).stdout.contains("running, healthy"));
    let status = rig.output(["status", "moody"]).stdout;
    assert!(status.contains("health: healthy   failures: 0 of 1000"), "{status}");
    assert!(status.contains("the last check passed in ") && status.contains("\n      checked\n"), "{status}");
    assert!(status.contains("the last failure exited 1 in "), "{status}");
    let outcome = stop(&rig, supervisor);
    assert!(outcome.stderr.contains("moody  ready after "), "{}", outcome.stderr);
    assert!(rig.output(["audit", "show"]).stdout.contains("health.ready noted"));
}

#[test]
fn an_unhealthy_agent_is_restarted_recorded_counted_and_down() {
    let rig = Rig::new();
    let slo = "slos: [{name: up, sli: availability, objective: 0.5, minimum_events: 1}]\n";
    let restart = "restart: {policy: on-failure, backoff: {initial: 50ms, max: 100ms}}\n";
    let file = checked(
        &rig,
        "sick",
        "echo life >> lives; touch ok; trap 'exit 0' TERM; while :; do sleep 0.1; done",
        "echo no pulse; test -e ok",
        "interval: 500ms, timeout: 300ms, retries: 3",
        &format!("{restart}{slo}"),
    );
    let supervisor = spawn(&rig, &file);
    until("it is healthy", || health(&rig, "sick") == "healthy");
    std::fs::remove_file(rig.work.join("ok")).unwrap();
    let lives = || std::fs::read_to_string(rig.work.join("lives")).unwrap_or_default().lines().count();
    until("it lives again", || lives() == 2);
    until("it is healthy again", || health(&rig, "sick") == "healthy");
    let seen = of(&rig, "sick");
    assert_eq!(seen["last_death"]["cause"], "unhealthy");
    assert_eq!(seen["health"]["last_failure"]["output"], "no pulse\n");
    let slo: Value = serde_json::from_str(&rig.output(["slo", "sick", "--json"]).stdout).unwrap();
    let bad = slo[0]["slos"].as_array().unwrap().iter().find(|slo| slo["slo"] == "up").unwrap()["bad"].as_u64();
    assert!(bad >= Some(1), "{slo}");
    let url = serde_json::from_str::<Value>(&rig.output(["ps", "--json"]).stdout).unwrap();
    let metrics = crate::metrics::scrape(
        url["supervisor"]["metrics"].as_str().unwrap().trim_start_matches("http://").trim_end_matches("/metrics"),
    );
    assert!(metrics.contains("agt_agent_health{agent=\"sick\",state=\"healthy\"} 1\n"), "{metrics}");
    assert!(metrics.contains("agt_agent_deaths_total{agent=\"sick\",cause=\"unhealthy\"} 1\n"), "{metrics}");
    let checks = |outcome: &str| {
        let series = format!("agt_agent_health_checks_total{{agent=\"sick\",outcome=\"{outcome}\"}} ");
        let line = metrics.lines().find(|line| line.starts_with(&series)).unwrap();
        line[series.len()..].parse::<f64>().unwrap()
    };
    assert!(checks("bad") >= 3.0 && checks("good") >= 1.0, "{metrics}");
    let outcome = stop(&rig, supervisor);
    let said = "warning: sick is unhealthy: 3 health checks in a row failed; the last one exited 1. It is ended.\n  it said: no pulse\n";
    assert!(outcome.stderr.contains(said), "{}", outcome.stderr);
    assert!(rig.output(["audit", "show"]).stdout.contains("health.unhealthy noted  \"3 health checks in a row failed"));
}

#[test]
fn one_that_is_never_well_ends_with_1_when_its_time_to_start_is_over() {
    let rig = Rig::new();
    let file = checked(
        &rig,
        "stillborn",
        "exec sleep 1000",
        "false",
        "interval: 100s, timeout: 1s",
        "timeouts: {start: 1500ms, stop: 5s}",
    );
    let began = Instant::now();
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(began.elapsed() >= Duration::from_millis(1500), "not before its time");
    assert!(outcome.stderr.contains("no health check has passed since its start"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("stillborn  failed its health check and was ended"), "{}", outcome.stderr);
}

/// What a process may do, as it sees it itself.
const FACTS: &str = "import os, resource
status = [l for l in open('/proc/self/status') if l.split(':')[0] in
          ('Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp', 'Seccomp_filters')]
spaces = [os.readlink('/proc/self/ns/' + n) for n in sorted(os.listdir('/proc/self/ns'))]
limits = [l.split()[-3:] for l in open('/proc/self/limits')]
def tried(what):
    try: return what() or 'done'
    except OSError as e: return e.errno
acts = [tried(lambda: open('/etc/passwd', 'a') and 'done'), tried(lambda: os.chmod('/etc', 0o755)), tried(lambda: [os.fork()] and 'done') if RING == 3 else '',
        tried(lambda: os.listdir('/root')), tried(lambda: os.mkdir('/x')), tried(lambda: os.kill(1, 9))]
facts = [status, spaces, limits, open('/proc/self/cgroup').read(), os.getcwd(), sorted(os.environ.items()), acts,
         tried(lambda: sorted(os.listdir('/'))), os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd'))[:3], os.umask(0o22), 'the end']
";

/// Prints the facts of the agent (to its log) and of its check (to the status), which must not differ in anything.
fn compare(ring: u8) {
    let rig = Rig::new();
    let facts = FACTS.replace("RING", &ring.to_string());
    std::fs::write(
        rig.work.join("agent.py"),
        format!("{facts}\nprint(facts, flush=True)\nimport time\ntime.sleep(1000)\n"),
    )
    .unwrap();
    std::fs::write(rig.work.join("check.py"), format!("{facts}\nprint(facts)\n")).unwrap();
    let file = rig.agent(
        "twin",
        &format!(
            "ring: {ring}\n{}stdio: prefixed\ncommand: [python3, agent.py]\nenv: {{set: {{MINE: yes}}}}\nhealth: {{command: [python3, check.py], interval: 1s, timeout: 900ms}}\n",
            effort()
        ),
    );
    let supervisor = rig.start(&file);
    until("it is healthy", || health(&rig, "twin") == "healthy");
    until("the agent has spoken", || rig.output(["logs", "twin"]).stdout.contains("the end"));
    let agent = rig.output(["logs", "twin"]).stdout;
    let check = of(&rig, "twin")["health"]["last"]["output"].as_str().unwrap().to_owned();
    assert_eq!(agent.replace("\\u{27}", "'"), check, "the check differs from its agent in R{ring}");
    assert!(check.contains("'MINE', 'yes'"), "{check}");
    if ring == 3 && is_root() {
        assert!(!check.contains("'done'"), "a fork in R3, or worse: {check}");
    }
    stop(&rig, supervisor);
}

#[test]
fn a_check_has_exactly_its_agents_confinement() {
    compare(2);
}

#[test]
fn in_r3_a_check_is_one_program_too_and_is_started_without_the_agents_help() {
    compare(3);
}

#[test]
fn the_process_that_starts_checks_holds_nothing_and_cannot_be_looked_into() {
    if !needs_root("the_process_that_starts_checks_holds_nothing_and_cannot_be_looked_into") {
        return;
    }
    let rig = Rig::new();
    // The agent (pid 3: init, checker, agent) tries to read and to trace its checker, pid 2.
    let agent = "cat /proc/2/environ /proc/2/maps; ls /proc/2/fd; echo tried; sleep 1000";
    let file = checked(&rig, "curious", &format!("({agent}) > seen 2>&1"), "true", "interval: 1s, timeout: 900ms", "");
    let supervisor = rig.start(&file);
    until("it is healthy", || health(&rig, "curious") == "healthy");
    until("the agent has looked", || {
        std::fs::read_to_string(rig.work.join("seen")).unwrap_or_default().contains("tried")
    });
    let seen = std::fs::read_to_string(rig.work.join("seen")).unwrap();
    assert_eq!(seen.matches("Permission denied").count(), 3, "{seen}");
    let agent = of(&rig, "curious")["pid"].as_i64().unwrap();
    let line = |pid: i64, key: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let found = status.lines().find(|line| line.starts_with(&format!("{key}:"))).unwrap().to_owned();
        found.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let init: i64 = line(agent, "PPid").parse().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    let children: Vec<i64> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let is_attendant =
        |pid: i64| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "agt-attendant\n");
    let checker = children.iter().copied().find(|pid| *pid != agent && !is_attendant(*pid));
    let checker = checker.expect("a checker beside the agent");
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(line(checker, key), "0000000000000000", "{key} of the checker");
        assert_eq!(line(init, key), "0000000000000000", "{key} of the init");
    }
    assert_eq!((line(checker, "Uid"), line(checker, "Gid")), (line(agent, "Uid"), line(agent, "Gid")));
    assert_eq!(line(checker, "NoNewPrivs"), "1");
    let group = |pid: i64| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(group(checker), group(agent), "it is in the kill, and pays from the agent's limits");
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{checker}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .collect();
    let expected =
        |name: &str| name.starts_with("/memfd:agt-nothing") || name.contains("landlock") || name.starts_with("socket:");
    // Its own socket, and where the filter has a listener the one by which that goes to the attendant.
    let doors = children.iter().filter(|pid| is_attendant(**pid)).count();
    assert!(open.iter().all(|name| expected(name)) && open.len() == 5 + doors, "{open:?}");
    stop(&rig, supervisor);
}

#[test]
fn an_agent_that_ends_its_checker_only_makes_itself_unhealthy() {
    if !needs_root("an_agent_that_ends_its_checker_only_makes_itself_unhealthy") {
        return;
    }
    let rig = Rig::new();
    // The checker is the first that the init has forked.
    let agent = "until [ -e go ]; do sleep 0.1; done; \
        kill -KILL 2 2> .tried && echo ended > .tried; mv .tried tried; sleep 1000";
    let file = checked(&rig, "spiteful", agent, "true", "interval: 300ms, timeout: 300ms, retries: 2", "");
    let supervisor = rig.start(&file);
    until("it is healthy", || health(&rig, "spiteful") == "healthy");
    std::fs::write(rig.work.join("go"), "").unwrap();
    // Landlock keeps it from its checker where the kernel scopes signals; then there is nothing to see here.
    until("it has tried", || rig.work.join("tried").exists());
    let told = std::fs::read_to_string(rig.work.join("tried")).unwrap();
    if told == "ended\n" {
        let outcome = supervisor.wait();
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("has ended the process that runs its checks"), "{}", outcome.stderr);
    } else {
        assert!(told.contains("not permitted"), "{told}");
        assert_eq!(health(&rig, "spiteful"), "healthy");
        stop(&rig, supervisor);
    }
}

#[test]
fn a_check_that_takes_too_long_is_ended_with_everything_it_started() {
    let rig = Rig::new();
    let mark = unique("77777");
    let check = format!("sh -c 'sleep 1000 #{mark}' & setsid sh -c 'sleep 1000; : {mark}' & sleep 1000 #{mark}");
    let file =
        checked(&rig, "slowcheck", "exec sleep 1000", &check, "interval: 60s, timeout: 700ms, retries: 1000", "");
    let supervisor = spawn(&rig, &file);
    let ended = || of(&rig, "slowcheck")["health"]["last"]["result"] == "took longer than 700ms and was ended";
    until("the check was ended", ended);
    // The check's own shells carry the mark; the supervisor's command line does not.
    let left = processes_with(&mark);
    assert!(left.is_empty(), "{left:?} outlived their check");
    assert_eq!(of(&rig, "slowcheck")["state"], "running", "the agent itself was left alone");
    stop(&rig, supervisor);
}

#[test]
fn a_check_that_passes_leaves_nothing_behind_either() {
    let rig = Rig::new();
    let mark = unique("66666");
    let check = format!("setsid sh -c 'sleep 1000; : {mark}' & exit 0");
    let file = checked(&rig, "litter", "exec sleep 1000", &check, "interval: 60s, timeout: 5s", "");
    let supervisor = spawn(&rig, &file);
    until("it is healthy", || health(&rig, "litter") == "healthy");
    let left = processes_with(&mark);
    assert!(left.is_empty(), "{left:?} outlived their check");
    stop(&rig, supervisor);
}

#[test]
fn the_last_of_a_checks_output_is_kept_and_harms_nobody() {
    let rig = Rig::new();
    let check = "head -c 3000000 /dev/zero | tr '\\0' x; printf 'the end \\033[2J'";
    let file = checked(&rig, "chatty", "exec sleep 1000", check, "interval: 10s, timeout: 10s", "");
    let supervisor = spawn(&rig, &file);
    until("it is healthy", || health(&rig, "chatty") == "healthy");
    let last = of(&rig, "chatty")["health"]["last"].clone();
    let output = last["output"].as_str().unwrap();
    assert_eq!(output.len(), 4096);
    assert!(output.ends_with("the end \u{1b}[2J"));
    assert_eq!(last["output_dropped"], 3_000_000 + 12 - 4096);
    let shown = rig.output(["status", "chatty"]).stdout;
    assert!(shown.contains("bytes before this were not kept]") && shown.contains("the end \\u{1b}[2J"), "{shown}");
    assert!(!shown.contains('\u{1b}'));
    stop(&rig, supervisor);
}

#[test]
fn a_check_under_way_keeps_no_stopping_and_no_killed_agent_alive() {
    for verb in ["stop", "kill"] {
        let rig = Rig::new();
        let mark = unique("55555");
        let check = format!("touch checking; trap '' TERM; while :; do sleep 1; done; : {mark}");
        let file = checked(
            &rig,
            "ending",
            "exec sleep 1000",
            &check,
            "interval: 100s, timeout: 99s",
            "timeouts: {start: 100s}",
        );
        let supervisor = spawn(&rig, &file);
        until("a check is under way", || rig.work.join("checking").exists());
        let began = Instant::now();
        let done = rig.output([verb, "ending", "--reason", "test", "--yes"]);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert!(began.elapsed() < Duration::from_secs(9), "{verb} waited for the check, or for the grace");
        let code = supervisor.wait().code;
        assert_eq!(code, if verb == "stop" { 143 } else { 76 });
        assert!(processes_with(&mark).is_empty(), "{verb} left the check alive");
    }
}

#[test]
fn nothing_of_a_check_outlives_a_killed_supervisor() {
    if !needs_root("nothing_of_a_check_outlives_a_killed_supervisor") {
        return;
    }
    let rig = Rig::new();
    let mark = unique("44444");
    let check = format!("touch checking; setsid sh -c 'sleep 1000; : {mark}' & while :; do sleep 1; done; : {mark}");
    let file =
        checked(&rig, "orphan", "exec sleep 1000", &check, "interval: 100s, timeout: 99s", "timeouts: {start: 100s}");
    let supervisor = spawn(&rig, &file);
    until("a check is under way", || rig.work.join("checking").exists() && processes_with(&mark).len() >= 2);
    supervisor.signal(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(supervisor.wait().code, 137);
    until("nothing is left", || processes_with(&mark).is_empty());
}

#[test]
fn a_frozen_agent_is_not_unhealthy_and_its_checks_go_on_after_the_thaw() {
    if !needs_root("a_frozen_agent_is_not_unhealthy_and_its_checks_go_on_after_the_thaw") {
        return;
    }
    let rig = Rig::new();
    // The same times for both: what a check that never answers does to one is what the freezer must not do to the other.
    let times = "interval: 1s, timeout: 1s, retries: 3";
    let file = checked(&rig, "iced", "exec sleep 1000", "echo check >> checks; test ! -e bad", times, "");
    let hangs = "test ! -e hang || exec sleep 1000";
    let beside = checked(&rig, "beside", "exec sleep 1000", hangs, times, "");
    let mut command = rig.command(["run".as_ref(), file.as_os_str(), beside.as_os_str()]);
    let piped = std::process::Stdio::piped;
    let supervisor = Supervisor { child: Some(command.stdout(piped()).stderr(piped()).spawn().unwrap()) };
    until("both are healthy", || ["iced", "beside"].iter().all(|name| health(&rig, name) == "healthy"));
    assert_eq!(rig.output(["freeze", "iced", "--reason", "test"]).code, 0);
    std::fs::write(rig.work.join("hang"), "").unwrap();
    // Frozen before the other's first check that hangs: what lasts long enough for that one has lasted long enough for this one.
    until("the one beside it is found unhealthy", || of(&rig, "beside")["last_death"]["cause"] == "unhealthy");
    assert_eq!(of(&rig, "iced")["state"], "running");
    let checks = || std::fs::read_to_string(rig.work.join("checks")).unwrap().lines().count();
    let before = checks();
    assert_eq!(rig.output(["thaw", "iced", "--reason", "test"]).code, 0);
    until("checks go on", || checks() > before + 2);
    assert_eq!(health(&rig, "iced"), "healthy");
    std::fs::write(rig.work.join("bad"), "").unwrap();
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
}

#[test]
fn a_health_command_that_is_not_there_starts_nothing() {
    let rig = Rig::new();
    let file = rig.agent("typo", "ring: 2\ncommand: ['true']\nhealth: {command: [no-such-check]}\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 127, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`no-such-check` was not found"), "{}", outcome.stderr);
    assert!(!rig.state.exists(), "nothing was started");
}
