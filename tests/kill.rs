//! Kill is verified, nothing outlives the supervisor, killed agents stay dead.

use nix::sys::signal::Signal;

use crate::support::{Rig, effort, needs_root, processes_with, quoted, unique, until};

#[test]
fn kill_leaves_nothing_and_says_how_long_it_took() {
    if !needs_root("kill_leaves_nothing_and_says_how_long_it_took") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("killed");
    let script = format!(
        "for i in 1 2 3 4 5; do (setsid sh -c 'sleep 1000; : {marker}' &); done; (sh -c 'kill -STOP $$; : {marker}' &); touch ready; while :; do sh -c ': {marker}'; done"
    );
    let file = rig.agent("tree", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&script)));
    let supervisor = rig.start(&file);
    until("the tree stands", || rig.work.join("ready").exists() && processes_with(&marker).len() >= 7);
    let killed = rig.output(["kill", "tree", "--reason", "test", "--yes"]);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert!(killed.stderr.contains("verified empty"), "{}", killed.stderr);
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 76, "{}", outcome.stderr);
    assert_eq!(processes_with(&marker), Vec::<i32>::new());
}

#[test]
fn an_agents_tree_ends_with_its_main_process() {
    let rig = Rig::new();
    let marker = unique("left");
    let outcome = rig.sh(2, &format!("(setsid sh -c 'sleep 1000; : {marker}' &); exit 6"));
    assert_eq!(outcome.code, 6);
    assert_eq!(processes_with(&marker), Vec::<i32>::new());
}

#[test]
fn nothing_survives_a_sigkilled_supervisor_and_the_next_start_works() {
    let rig = Rig::new();
    let marker = unique("orphan");
    let script = format!("(setsid sh -c 'sleep 1000; : {marker}' &); touch ready; sleep 1000; : {marker}");
    let file = rig.agent("orphan", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(&script)));
    let supervisor = rig.start(&file);
    until("the tree stands", || rig.work.join("ready").exists() && processes_with(&marker).len() >= 2);
    supervisor.signal(Signal::SIGKILL);
    drop(supervisor);
    until("the tree is gone", || processes_with(&marker).is_empty());
    assert_eq!(rig.sh(2, "exit 0").code, 0, "the next start works");
}

#[test]
fn a_frozen_agent_dies_when_it_is_killed() {
    if !needs_root("a_frozen_agent_dies_when_it_is_killed") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("ice", "ring: 2\ncommand: [sh, -c, 'while :; do date +%N > tick; done']\n");
    let supervisor = rig.start(&file);
    until("it ticks", || rig.work.join("tick").exists());
    assert_eq!(rig.output(["freeze", "ice", "--reason", "test"]).code, 0);
    let tick = || std::fs::read_to_string(rig.work.join("tick")).unwrap();
    let before = tick();
    // What the agent does all the time, done here: time enough for it too, however busy the machine is.
    for _ in 0..100 {
        assert!(std::process::Command::new("true").status().unwrap().success());
    }
    assert_eq!(before, tick(), "a frozen agent does nothing");
    assert_eq!(rig.output(["kill", "ice", "--reason", "test", "--yes"]).code, 0);
    assert_eq!(supervisor.wait().code, 76);
}

#[test]
fn a_killed_agent_lives_again_only_by_revive() {
    let rig = Rig::new();
    let one =
        rig.agent("one", &format!("ring: 2\n{}restart: {{policy: always}}\ncommand: [sleep, '1000']\n", effort()));
    let two = rig.agent("two", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let folder = rig.dir.path().join("agents");
    std::fs::create_dir(&folder).unwrap();
    for file in [&one, &two] {
        std::fs::rename(file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let supervisor = rig.start(&folder);
    assert_eq!(rig.output(["kill", "one", "--reason", "test", "--yes"]).code, 0);
    let state = |name: &str| {
        let ps = rig.ps();
        let agents = ps["agents"].as_array().unwrap().clone();
        agents.iter().find(|a| a["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state("one"), "ended");
    assert_eq!(rig.output(["revive", "one", "--reason", "test"]).code, 0);
    until("it runs again", || state("one") == "running");
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

/// `kill --all` beside a supervisor that is stopped.
fn kill_beside_a_hung_one(rig: &Rig, supervisor: &crate::support::Supervisor) -> crate::support::Outcome {
    supervisor.signal(Signal::SIGSTOP);
    rig.output(["kill", "--all", "--reason", "hangs", "--yes"])
}

#[test]
fn whom_kill_all_ended_beside_a_hung_supervisor_stays_dead_until_revived() {
    if !needs_root("whom_kill_all_ended_beside_a_hung_supervisor_stays_dead_until_revived") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("hung-one", "ring: 2\ncommand: [sleep, '1000']\n");
    let supervisor = rig.start(&file);
    let killed = kill_beside_a_hung_one(&rig, &supervisor);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert!(killed.stderr.contains("hung-one stays dead"), "{}", killed.stderr);
    // It never answers again.
    drop(supervisor);
    let again = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(again.code, 76, "{}", again.stderr);
    assert!(again.stderr.contains("revive hung-one"), "{}", again.stderr);
    let audit = rig.output(["audit", "show", "--agent", "hung-one", "--json"]);
    assert!(audit.stdout.contains("kill --all, without the supervisor"), "{}", audit.stdout);
    assert!(audit.stdout.contains("hangs"), "{}", audit.stdout);
    assert_eq!(rig.output(["audit", "verify"]).code, 0);
    assert_eq!(rig.output(["revive", "hung-one", "--reason", "test"]).code, 0);
    let alive = rig.start(&file);
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    alive.wait();
}

#[test]
fn a_mark_that_nobody_took_up_yet_is_revived_too() {
    if !needs_root("a_mark_that_nobody_took_up_yet_is_revived_too") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("marked", "ring: 2\ncommand: [sh, -c, '[ -e again ] || sleep 1000; exit 5']\n");
    let supervisor = rig.start(&file);
    assert_eq!(kill_beside_a_hung_one(&rig, &supervisor).code, 0);
    drop(supervisor);
    std::fs::write(rig.work.join("again"), "").unwrap();
    let revived = rig.output(["revive", "marked", "--reason", "test"]);
    assert_eq!(revived.code, 0, "{}", revived.stderr);
    assert_eq!(rig.output(["run".as_ref(), file.as_os_str()]).code, 5);
}

#[test]
fn a_supervisor_that_runs_on_restarts_nobody_who_was_killed_meanwhile() {
    if !needs_root("a_supervisor_that_runs_on_restarts_nobody_who_was_killed_meanwhile") {
        return;
    }
    let rig = Rig::new();
    let policy = "restart: {policy: always, backoff: {initial: 10ms, max: 20ms}}";
    let file = rig.agent("back", &format!("ring: 2\n{policy}\ncommand: [sh, -c, 'echo life >> lives; sleep 1000']\n"));
    let supervisor = rig.start(&file);
    until("it lives", || rig.work.join("lives").exists());
    assert_eq!(kill_beside_a_hung_one(&rig, &supervisor).code, 0);
    supervisor.signal(Signal::SIGCONT);
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 76, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(rig.work.join("lives")).unwrap(), "life\n");
    assert_eq!(rig.output(["run".as_ref(), file.as_os_str()]).code, 76);
}

#[test]
fn a_mark_that_appears_ends_whom_it_names_and_nobody_else() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("agents");
    std::fs::create_dir(&folder).unwrap();
    for name in ["one", "two"] {
        let policy = "restart: {policy: always}";
        let file = rig.agent(name, &format!("ring: 2\n{}{policy}\ncommand: [sleep, '1000']\n", effort()));
        std::fs::rename(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let supervisor = rig.start(&folder);
    let state = |name: &str| {
        let agents = rig.ps()["agents"].as_array().unwrap().clone();
        agents.iter().find(|agent| agent["name"] == name).unwrap()["state"].as_str().unwrap().to_owned()
    };
    until("both run", || state("one") == "running" && state("two") == "running");
    let marks = rig.state.join("killed");
    std::fs::create_dir(&marks).unwrap();
    std::fs::write(rig.dir.path().join("mark"), r#"{"agents": ["one"], "reason": "test", "by": 7, "at_ms": 5}"#)
        .unwrap();
    std::fs::rename(rig.dir.path().join("mark"), marks.join("5-1.json")).unwrap();
    until("the named one is ended", || state("one") == "ended");
    assert_eq!(state("two"), "running");
    until("the mark is taken up", || !marks.exists());
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
    let audit = rig.output(["audit", "show", "--agent", "one"]);
    assert!(audit.stdout.contains("operator:7"), "{}", audit.stdout);
}

#[test]
fn the_launcher_and_the_init_have_names() {
    let rig = Rig::new();
    let file = rig.agent("named", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let supervisor = rig.start(&file);
    let name = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    let parent = |pid: i32| -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let agent = i32::try_from(rig.ps()["agents"][0]["pid"].as_i64().unwrap()).unwrap();
    let init = parent(agent);
    let launcher = parent(init);
    assert_eq!([name(agent), name(init), name(launcher)], ["sleep", "agt-init", "agt-launcher"]);
    assert_eq!(parent(launcher), supervisor.pid().as_raw());
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn kill_all_works_when_the_supervisor_hangs() {
    if !needs_root("kill_all_works_when_the_supervisor_hangs") {
        return;
    }
    let rig = Rig::new();
    let marker = unique("hung");
    let file =
        rig.agent("hung", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&format!("sleep 1000; : {marker}"))));
    let supervisor = rig.start(&file);
    supervisor.signal(Signal::SIGSTOP);
    // A look is no order: it gives up, and names who does not answer and what works without it.
    let looked = rig.output(["limits", "show"]);
    let killed = rig.output(["kill", "--all", "--yes"]);
    let left = processes_with(&marker);
    supervisor.signal(Signal::SIGCONT);
    let hung = format!("the supervisor (pid {}) does not answer", supervisor.pid());
    assert!(looked.code == 69 && looked.stderr.contains(&hung), "{}", looked.stderr);
    assert!(looked.stderr.contains("`agt-supervise kill --all` works without it"), "{}", looked.stderr);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert_eq!(left, Vec::<i32>::new());
    supervisor.wait();
}

#[test]
fn kill_all_beside_a_hung_supervisor_holds_for_who_waits_to_be_restarted() {
    if !needs_root("kill_all_beside_a_hung_supervisor_holds_for_who_waits_to_be_restarted") {
        return;
    }
    let rig = Rig::new();
    let text = "ring: 2\nrestart: {policy: always, attempts: 1, backoff: {initial: 4s, max: 4s}}\ncommand: [sh, -c, 'echo life >> lives; exit 1']\n";
    let supervisor = rig.start_waiting(&rig.agent("waiting", text), "backoff");
    supervisor.signal(Signal::SIGSTOP);
    // Else the request waits in its socket, and a supervisor that runs on may read that before it restarts anybody: whether the
    // mark holds would be left to chance.
    let (socket, away) = (rig.state.join("operator.sock"), rig.state.join("away.sock"));
    std::fs::rename(&socket, &away).unwrap();
    let killed = rig.output(["kill", "--all", "--reason", "hangs", "--yes"]);
    std::fs::rename(&away, &socket).unwrap();
    supervisor.signal(Signal::SIGCONT);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 76, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(rig.work.join("lives")).unwrap(), "life\n");
}

/// The program as an ordinary user in a chroot, where the kernel gives nobody a user namespace; that user can make no cgroup.
pub(crate) struct Bare {
    pub(crate) rig: Rig,
    program: std::path::PathBuf,
    root: std::path::PathBuf,
}

/// Whoever has neither files nor processes on this host.
const NOBODY: u32 = 65533;

impl Bare {
    pub(crate) fn new() -> Bare {
        let rig = Rig::new();
        let (program, root) = (rig.dir.path().join("program"), rig.dir.path().join("root"));
        std::fs::copy(crate::support::binary(), &program).unwrap();
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&rig.state).unwrap();
        for folder in [&rig.state, &rig.work] {
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Bare { rig, program, root }
    }

    /// The mount of / ends with the process: its mount namespace is its own.
    fn command(&self, args: &[&str]) -> std::process::Command {
        let script =
            r#"mount --rbind / "$1" && root=$1 && shift && exec chroot --userspec=65533:65533 --groups= "$root" "$@""#;
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]).arg(&self.root);
        command.arg(&self.program).arg("--state-dir").arg(&self.rig.state).args(args);
        command.stdin(std::process::Stdio::null()).env("HOME", self.rig.dir.path());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> crate::support::Outcome {
        self.command(args).output().unwrap().into()
    }
}

/// Whether both are in the same namespace of this kind.
fn share(kind: &str, one: i32, other: i32) -> bool {
    let of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    of(one) == of(other)
}

#[test]
fn a_kill_with_neither_namespace_nor_cgroup_leaves_nothing() {
    if !needs_root("a_kill_with_neither_namespace_nor_cgroup_leaves_nothing") {
        return;
    }
    let bare = Bare::new();
    let mark = unique("loose");
    // Out of its session and, by the second fork, out of its parent's reach.
    let script = format!("(setsid sh -c 'sleep 1000; : {mark}' &); touch ready; sleep 1000; : {mark}");
    let text = format!("ring: 2\nenforcement: best-effort\ncommand: [sh, -c, {}]\n", quoted(&script));
    let file = bare.rig.agent("loose", &text);
    let mut run = bare.command(&["run", file.to_str().unwrap()]);
    let run = run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let supervisor = crate::support::Supervisor { child: Some(run) };
    let standing = || processes_with(&mark).into_iter().filter(|pid| *pid != supervisor.pid().as_raw()).collect();
    until("the tree stands", || {
        let tree: Vec<i32> = standing();
        bare.rig.work.join("ready").exists() && tree.len() >= 2
    });
    let own = i32::try_from(std::process::id()).unwrap();
    let cgroup = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for pid in standing() {
        assert!(share("pid", pid, own), "this test needs a tree that no PID namespace holds together");
        assert_eq!(cgroup(pid), cgroup(own), "this test needs a tree that no cgroup holds together");
    }
    let killed = bare.output(&["kill", "loose", "--reason", "test", "--yes"]);
    assert_eq!(standing(), Vec::<i32>::new(), "{}", killed.stderr);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert!(killed.stderr.contains("verified empty"), "{}", killed.stderr);
    supervisor.wait();
}

#[test]
fn a_kill_beside_a_hung_supervisor_without_cgroups_names_what_ends_it() {
    if !needs_root("a_kill_beside_a_hung_supervisor_without_cgroups_names_what_ends_it") {
        return;
    }
    let bare = Bare::new();
    let mark = unique("stuck");
    // Whoever leaves it by setsid and a second fork is held by nothing here: the report says so (`dies-with-supervisor`).
    let script = format!("touch ready; sleep 1000; : {mark}");
    let text = format!("ring: 2\nenforcement: best-effort\ncommand: [sh, -c, {}]\n", quoted(&script));
    let file = bare.rig.agent("stuck", &text);
    let mut run = bare.command(&["run", file.to_str().unwrap()]);
    let run = run.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let supervisor = crate::support::Supervisor { child: Some(run) };
    let pid = supervisor.pid();
    until("the agent runs", || bare.rig.work.join("ready").exists());
    supervisor.signal(Signal::SIGSTOP);
    for whom in [&["kill", "--all", "--yes"][..], &["kill", "stuck", "--yes"]] {
        let killed = bare.output(whom);
        assert_eq!(killed.code, 69, "{}", killed.stderr);
        for said in
            [&format!("(pid {pid}) does not answer")[..], "no control groups", &format!("kill -9 {pid} ends it")]
        {
            assert!(killed.stderr.contains(said), "{}", killed.stderr);
        }
    }
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait();
    until("its agent has ended with it", || processes_with(&mark).is_empty());
}
