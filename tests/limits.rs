//! The cgroup's limits act, and the cause of death says so.

use crate::support::{Rig, needs_root};

#[test]
fn the_memory_limit_ends_it_with_137_and_says_so() {
    if !needs_root("the_memory_limit_ends_it_with_137_and_says_so") {
        return;
    }
    let rig = Rig::new();
    let path = rig.dir.path().join("end.json");
    let file =
        rig.agent("hog", "ring: 2\nlimits: {memory: 64MiB}\ncommand: [python3, -c, 'b = bytearray(512 << 20)']\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), path.as_os_str()]);
    assert_eq!(outcome.code, 137, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("memory limit"), "{}", outcome.stderr);
    let status: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(status["last_death"]["cause"], "memory_limit");
}

/// What fills the memory are files, which no process holds: of small processes one is taken. Where the kernel ends whole groups
/// (`memory.oom.group`, cgroup v2) all of the agent ends, as it is told.
#[test]
fn what_meets_the_memory_limit_is_what_the_agent_runs_and_not_what_answers_for_it() {
    if !needs_root("what_meets_the_memory_limit_is_what_the_agent_runs_and_not_what_answers_for_it") {
        return;
    }
    let rig = Rig::new();
    // Larger than the shell, which goes on, and smaller than what answers.
    let filler = "perl -e '$x = q(x) x 65536; print $x while 1' > /tmp/full";
    let script = format!(
        "mkdir before; for i in 1 2 3; do {filler}; echo $?; done; rm /tmp/full; mkdir made && echo made; mkdir .vscode || echo refused"
    );
    let file = rig.agent(
        "filler",
        &format!("ring: 2\nlimits: {{memory: 24MiB}}\ncommand: [sh, -c, {}]\n", crate::support::quoted(&script)),
    );
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        assert_eq!(outcome.code, 137, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("memory limit"), "{}", outcome.stderr);
        return;
    }
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "137\n137\n137\nmade\nrefused\n"), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("Permission denied") || outcome.stderr.contains("not permitted"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_task_limit_stops_a_fork_bomb() {
    if !needs_root("the_task_limit_stops_a_fork_bomb") {
        return;
    }
    let rig = Rig::new();
    let script = "import os, time\nn = 0\ntry:\n    while n < 1000:\n        if os.fork() == 0: time.sleep(1000)\n        n += 1\nexcept OSError as e: print(n < 40, e.errno)\n";
    let file = rig.agent(
        "bomb",
        &format!("ring: 2\nlimits: {{tasks: 40}}\ncommand: [python3, -c, {}]\n", crate::support::quoted(script)),
    );
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "True 11\n"), "{}", outcome.stderr);
}

#[test]
fn a_limit_above_the_rings_default_needs_an_operator() {
    let rig = Rig::new();
    let file = rig.agent("greedy", "ring: 2\nlimits: {memory: 64GiB}\ncommand: ['true']\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("limits.memory") || outcome.stderr.contains("memory: 64GiB"), "{}", outcome.stderr);
    assert!(!rig.state.exists(), "nothing was started");
}
