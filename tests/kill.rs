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
    std::thread::sleep(std::time::Duration::from_millis(200));
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
    let killed = rig.output(["kill", "--all", "--yes"]);
    let left = processes_with(&marker);
    supervisor.signal(Signal::SIGCONT);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    assert_eq!(left, Vec::<i32>::new());
    supervisor.wait();
}
