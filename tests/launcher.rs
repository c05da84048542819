//! The launcher process: an answer that comes late is nobody's, and one that is ended is replaced, said and not for ever.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{PATIENCE, Rig, Supervisor, effort, needs_root, quoted, until};
use crate::watchdog::{child, send};

/// A service over the folder `agents`; what it says goes to a file.
fn serve(rig: &Rig, agents: &[(&str, &str)]) -> (Supervisor, PathBuf) {
    let folder = rig.work.join("agents");
    fs::create_dir_all(&folder).unwrap();
    for (name, rest) in agents {
        fs::write(folder.join(format!("{name}.yaml")), format!("version: 1\nname: {name}\nring: 2\n{rest}")).unwrap();
    }
    let said = rig.dir.path().join("said");
    let mut command = rig.command(["serve", "agents", "--metrics", "off"]);
    command.stderr(Stdio::from(fs::File::create(&said).unwrap())).stdout(Stdio::null());
    (Supervisor { child: Some(command.spawn().unwrap()) }, said)
}

fn agent(rig: &Rig, name: &str) -> Value {
    let Ok(ps) = serde_json::from_str::<Value>(&rig.output(["ps", "--json"]).stdout) else { return Value::Null };
    let found = ps["agents"].as_array().unwrap().iter().find(|agent| agent["name"] == name).cloned();
    found.unwrap_or(Value::Null)
}

fn runs(rig: &Rig, name: &str, life: u64) -> bool {
    let agent = agent(rig, name);
    agent["state"] == "running" && agent["life"] == life
}

fn restart(rig: &Rig, name: &str) {
    let outcome = rig.output(["restart", name, "--reason", "test"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

fn launcher(supervisor: &Supervisor) -> Option<i32> {
    child(supervisor.pid().as_raw(), "agt-launcher")
}

fn end(supervisor: Supervisor) -> i32 {
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait().code
}

#[test]
fn an_answer_that_comes_late_is_never_taken_for_that_of_another_agent() {
    if !needs_root("an_answer_that_comes_late_is_never_taken_for_that_of_another_agent") {
        return;
    }
    let rig = Rig::new();
    let mut files = Vec::new();
    for (name, uid) in [("a", 64_301), ("b", 64_302)] {
        let workdir = rig.dir.path().join(name);
        fs::create_dir(&workdir).unwrap();
        fs::set_permissions(&workdir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&workdir, Some(uid), Some(uid)).unwrap();
        let script = quoted("echo >> written && exec sleep 1000");
        let text = format!("version: 1\nname: {name}\nring: 2\ncommand: [sh, -c, {script}]\n");
        files.push(workdir.join(format!("{name}.yaml")));
        fs::write(files.last().unwrap(), text).unwrap();
    }
    // `run`: whoever starts them vouches for them, so that they have R2 at once.
    let said = rig.dir.path().join("said");
    let mut command = rig.command(["run", "--metrics", "off"]);
    command.args(&files).stderr(Stdio::from(fs::File::create(&said).unwrap())).stdout(Stdio::null());
    let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
    let lives = |name: &str| fs::read(rig.dir.path().join(name).join("written")).map_or(0, |lines| lines.len());
    until("both have written", || lives("a") == 1 && lives("b") == 1);
    let pid = launcher(&supervisor).expect("a launcher");
    send(pid, Signal::SIGSTOP);
    restart(&rig, "a");
    until("a is given up", || agent(&rig, "a")["last_death"]["cause"] == "launch_failed");
    send(pid, Signal::SIGCONT);
    restart(&rig, "b");
    until("b runs or is refused", || runs(&rig, "b", 2) || agent(&rig, "b")["state"] == "ended");
    until("b has written", || lives("b") == 2 || agent(&rig, "b")["state"] == "ended");
    assert_eq!(lives("b"), 2, "{}\n{}", agent(&rig, "b"), fs::read_to_string(&said).unwrap());
    restart(&rig, "a");
    until("a has written", || lives("a") == 2);
    assert_eq!(launcher(&supervisor), Some(pid), "it was only held up");
    end(supervisor);
}

#[test]
fn a_launcher_that_was_ended_is_replaced_and_its_agents_come_back_by_their_rules() {
    let rig = Rig::new();
    let again = format!(
        "{}restart: {{policy: on-failure, backoff: {{initial: 10ms, max: 10ms}}}}\ncommand: [sleep, '1000']\n",
        effort()
    );
    let never = format!("{}command: [sleep, '1000']\n", effort());
    let (supervisor, said) = serve(&rig, &[("again", &again), ("never", &never)]);
    until("both run", || runs(&rig, "again", 1) && runs(&rig, "never", 1));
    let first = launcher(&supervisor).expect("a launcher");
    send(first, Signal::SIGKILL);
    until("one is back", || runs(&rig, "again", 2));
    until("the other is dead", || agent(&rig, "never")["state"] == "ended");
    assert_eq!(agent(&rig, "never")["last_death"]["cause"], "taken");
    let second = launcher(&supervisor).expect("another launcher");
    assert_ne!(first, second);
    until("the first is reaped", || !PathBuf::from(format!("/proc/{first}")).exists());
    restart(&rig, "never");
    until("the other runs", || runs(&rig, "never", 2));
    let text = fs::read_to_string(said).unwrap();
    assert!(text.contains("the launcher was ended from outside"), "{text}");
    let audit = rig.output(["audit", "show", "--json"]).stdout;
    assert_eq!(audit.matches("launcher.restart").count(), 1, "{audit}");
    assert_eq!(end(supervisor), 0);
    assert!(!rig.state.join("cgroup.json").exists(), "it ended in order");
}

#[test]
fn launchers_that_are_ended_again_and_again_end_with_a_clear_error() {
    let rig = Rig::new();
    let rest = format!(
        "{}restart: {{policy: always, attempts: 8, backoff: {{initial: 10ms, max: 10ms}}}}\ncommand: [sleep, '1000']\n",
        effort()
    );
    let (supervisor, said) = serve(&rig, &[("patient", &rest)]);
    until("it runs", || runs(&rig, "patient", 1));
    let mut ended = Vec::new();
    let said = || fs::read_to_string(&said).unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while !said().contains("more than 5 times within") {
        assert!(std::time::Instant::now() < deadline && ended.len() < 10, "{ended:?}: {}", said());
        if let Some(pid) = launcher(&supervisor).filter(|pid| ended.last() != Some(pid)) {
            send(pid, Signal::SIGKILL);
            ended.push(pid);
        }
    }
    assert_eq!(ended.len(), 6, "{}", said());
    until("its rule gives up", || said().contains("gave up"));
    let dead = agent(&rig, "patient");
    assert_eq!((&dead["last_death"]["cause"], &dead["exit_code"]), (&"launch_failed".into(), &69.into()), "{dead}");
    assert!(dead["last_death"]["error"].as_str().unwrap().contains("find out who ends"), "{dead}");
    assert_eq!(launcher(&supervisor), None);
    assert_eq!(end(supervisor), 0);
}

#[test]
fn a_run_whose_launcher_is_ended_says_so_and_ends_in_order() {
    let rig = Rig::new();
    let file = rig.agent("only", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let supervisor = rig.start(&file);
    send(launcher(&supervisor).expect("a launcher"), Signal::SIGKILL);
    let outcome = supervisor.wait();
    assert_eq!(outcome.code, 137, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the launcher was ended from outside"), "{}", outcome.stderr);
    assert!(!rig.state.join("cgroup.json").exists(), "its groups were taken away");
}

#[test]
fn a_launcher_that_stands_still_does_not_hold_the_end_up() {
    let rig = Rig::new();
    let file = rig.agent("only", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let supervisor = rig.start(&file);
    let pid = launcher(&supervisor).expect("a launcher");
    send(pid, Signal::SIGSTOP);
    supervisor.signal(Signal::SIGINT);
    let mut child = { supervisor }.child.take().unwrap();
    until("it has ended", || child.try_wait().unwrap().is_some());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}
