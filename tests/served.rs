//! Configuration that the supervisor goes by: no agent changes a neighbour's file, none writes the folder that is served.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Outcome, Rig, Supervisor, effort, quoted, until};

fn script_of(rig: &Rig, name: &str, script: &str) -> std::path::PathBuf {
    rig.agent(name, &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(script)))
}

/// Tries every way to change `file`, and says what worked.
fn tampering(file: &str) -> String {
    format!(
        "echo '# changed' >> {file} && echo APPENDED; echo x > new && mv new {file} && echo REPLACED; \
         rm {file} && echo REMOVED; chmod 666 {file} && echo CHMODDED; echo made > beside && echo worked"
    )
}

fn untouched(outcome: &Outcome, file: &Path, before: &str) {
    assert!(outcome.stdout.contains("worked"), "{outcome:?}");
    for sign in ["APPENDED", "REPLACED", "REMOVED", "CHMODDED"] {
        assert!(!outcome.stdout.contains(sign), "{outcome:?}");
    }
    assert_eq!(std::fs::read_to_string(file).unwrap(), before);
}

fn serve(rig: &Rig, folder: &Path) -> Supervisor {
    let mut command = rig.command([OsStr::new("serve"), folder.as_os_str()]);
    command.args(["--metrics", "off"]).stderr(Stdio::piped());
    let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
    until("it serves", || rig.output(["ps"]).code == 0);
    supervisor
}

#[test]
fn agents_of_one_run_can_not_change_each_others_files() {
    let rig = Rig::new();
    let second = rig.agent("second", &format!("ring: 2\n{}command: ['true']\n", effort()));
    let before = std::fs::read_to_string(&second).unwrap();
    let first = script_of(&rig, "first", &tampering("second.yaml"));
    let together = rig.output([OsStr::new("run"), first.as_os_str(), second.as_os_str()]);
    untouched(&together, &second, &before);
}

#[test]
fn the_file_of_another_run_is_read_only_too() {
    let rig = Rig::new();
    let keeper = rig.agent("keeper", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let before = std::fs::read_to_string(&keeper).unwrap();
    let supervisor = rig.start(&keeper);
    let later = script_of(&rig, "later", &tampering("keeper.yaml"));
    untouched(&rig.output([OsStr::new("run"), later.as_os_str()]), &keeper, &before);
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}

#[test]
fn a_step_of_a_saga_can_not_change_the_file_of_an_agent() {
    let rig = Rig::new();
    let keeper = rig.agent("keeper", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let before = std::fs::read_to_string(&keeper).unwrap();
    let supervisor = rig.start(&keeper);
    let saga = rig.work.join("order.yaml");
    let step = quoted(&format!("{} > said", tampering("keeper.yaml").replace('\n', " ")));
    let text = format!(
        "version: 1\nkind: saga\nname: order\n{}steps:\n  one: {{command: [sh, -c, {step}], ring: 2}}\n",
        effort()
    );
    std::fs::write(&saga, text).unwrap();
    let ran = rig.output([OsStr::new("saga"), OsStr::new("run"), saga.as_os_str()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(rig.work.join("beside").exists(), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&keeper).unwrap(), before);
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}

#[test]
fn whoever_works_in_the_served_folder_is_not_started_and_nothing_new_appears_in_it() {
    let rig = Rig::new();
    let folder = rig.work.join("agents");
    std::fs::create_dir_all(folder.join("evil")).unwrap();
    let plant = "cp agent.yaml ../new.yaml && echo OUT; echo x > ../victim.yaml && echo OUT; echo x > mine";
    for (name, command) in [("victim", "[sleep, '1000']".to_owned()), ("evil", format!("[sh, -c, {}]", quoted(plant)))]
    {
        let text = format!("version: 1\nname: {name}\nring: 2\n{}command: {command}\n", effort());
        std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
    let refused = rig.output([OsStr::new("serve"), folder.as_os_str()]);
    assert_eq!(refused.code, 64, "{refused:?}");
    assert!(refused.stderr.contains("there is no folder") && refused.stderr.contains("victim"), "{refused:?}");
    assert_eq!(rig.output([OsStr::new("check"), OsStr::new("--serve"), folder.as_os_str()]).code, 64);
    std::fs::create_dir(folder.join("victim")).unwrap();
    let checked = rig.output([OsStr::new("check"), OsStr::new("--serve"), folder.as_os_str()]);
    assert_eq!(checked.code, 0, "{checked:?}");
    assert!(checked.stdout.contains(&folder.join("evil").display().to_string()), "{checked:?}");
    let before = std::fs::read_to_string(folder.join("victim.yaml")).unwrap();
    let supervisor = serve(&rig, &folder);
    // A stranger that is handed over, working in the served folder: by its own file, and by what was typed.
    let outside = script_of(&rig, "outside", "echo x > new.yaml && echo OUT");
    let typed = [OsStr::new("run"), outside.as_os_str(), OsStr::new("--workdir"), folder.as_os_str()];
    for handed in [rig.output(typed), rig.output([OsStr::new("run"), outside.as_os_str()])] {
        assert_eq!(handed.code, 77, "{handed:?}");
        assert!(handed.stderr.contains("holds the served folder"), "{handed:?}");
    }
    supervisor.signal(Signal::SIGTERM);
    let ended = supervisor.wait();
    assert_eq!(std::fs::read_to_string(folder.join("victim.yaml")).unwrap(), before, "{ended:?}");
    assert!(!folder.join("new.yaml").exists() && !rig.work.join("new.yaml").exists(), "{ended:?}");
    assert!(!rig.output(["logs", "evil"]).stdout.contains("OUT"));
}

#[test]
fn an_agent_that_is_named_by_its_file_has_its_ring_at_the_first_start() {
    if !crate::support::needs_root("an_agent_that_is_named_by_its_file_has_its_ring_at_the_first_start") {
        return;
    }
    let rig = Rig::new();
    let folder = rig.work.join("agents");
    std::fs::create_dir_all(folder.join("trusted")).unwrap();
    std::fs::create_dir_all(folder.join("later")).unwrap();
    let write = |name: &str| {
        let file = folder.join(format!("{name}.yaml"));
        std::fs::write(&file, format!("version: 1\nname: {name}\nring: 1\ncommand: [sleep, '1000']\n")).unwrap();
        file
    };
    let set = |file: &Path| {
        rig.output([
            OsStr::new("trust"),
            OsStr::new("set"),
            file.as_os_str(),
            OsStr::new("900"),
            OsStr::new("--reason"),
            OsStr::new("reviewed"),
        ])
    };
    // Before there is a supervisor, or even a state directory.
    let trusted = write("trusted");
    assert!(!rig.state.exists());
    let done = set(&trusted);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("trusted") && done.stdout.contains("R1"), "{done:?}");
    let supervisor = serve(&rig, &folder);
    let ring = |name: &str| {
        let agents = rig.ps()["agents"].clone();
        agents.as_array().unwrap().iter().find(|agent| agent["name"] == name).map(|agent| agent["ring"].to_string())
    };
    until("it runs", || ring("trusted").is_some());
    assert!(ring("trusted").unwrap().contains('1'), "{:?}", ring("trusted"));
    // And beside a supervisor, before its first start.
    let later = write("later");
    assert_eq!(set(&later).code, 0);
    assert_eq!(rig.output(["reload", "--yes"]).code, 0);
    until("the new one runs", || ring("later").is_some());
    assert!(ring("later").unwrap().contains('1'), "{:?}", ring("later"));
    // Another file under a known name is refused, as at a start.
    let other = rig.agent("later", "ring: 1\ncommand: [sleep, '1000']\n");
    assert_eq!(set(&other).code, 77);
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}

#[test]
fn r0_is_attested_by_its_file_before_it_ever_ran() {
    if !crate::support::needs_root("r0_is_attested_by_its_file_before_it_ever_ran") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("chief", "ring: 0\ncommand: [sh, -c, 'id -u']\n");
    let file = file.to_str().unwrap();
    let reason = ["--reason", "test"];
    let low = rig.agent("low", "ring: 2\ncommand: ['true']\n");
    let none = rig.output(["attest", low.to_str().unwrap(), "--reason", "test", "--ttl", "1h"]);
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.stderr.contains("only an agent whose ring is 0"), "{none:?}");
    assert_eq!(rig.output(["trust", "set", file, "960", reason[0], reason[1]]).code, 0);
    let attested = rig.output(["attest", file, "--reason", "test", "--ttl", "1h"]);
    assert_eq!(attested.code, 0, "{attested:?}");
    let ran = rig.output(["run", file]);
    assert!(ran.code == 0 && ran.stderr.contains("chief  R0"), "{ran:?}");
    assert_eq!(rig.output(["trust", "show", "low"]).code, 64, "who was refused is not known by it");
}

#[test]
fn programs_without_a_file_do_not_take_each_others_names() {
    if !crate::support::needs_root("programs_without_a_file_do_not_take_each_others_names") {
        // Without limits R3 can't be had in full, and a command line can't ask for less.
        return;
    }
    let rig = Rig::new();
    for folder in ["one", "two"] {
        std::fs::create_dir(rig.work.join(folder)).unwrap();
        std::fs::write(rig.work.join(folder).join("main.sh"), "exit 0\n").unwrap();
    }
    let file = rig.agent("main", "ring: 3\ncommand: ['true']\n");
    assert_eq!(rig.output([OsStr::new("run"), file.as_os_str()]).code, 0);
    for _ in 0..2 {
        for script in ["one/main.sh", "two/main.sh"] {
            let ran = rig.output(["run", "--ring", "3", "--", "sh", script]);
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    }
    let known = rig.output(["trust", "show", "--json"]).stdout;
    assert_eq!(known.matches("\"agent\": \"main-").count(), 2, "{known}");
    let named = rig.output(["run", "--ring", "3", "--name", "trial", "--", "sh", "one/main.sh"]);
    assert!(named.code == 0 && named.stderr.contains("trial  R3"), "{named:?}");
    assert_eq!(rig.output(["run", "--name", "Bad Name", "--", "sh"]).code, 64);
    assert_eq!(rig.output(["run", "--name", "x", file.to_str().unwrap()]).code, 64);
}

#[test]
fn a_typed_ring_does_not_lift_a_file_that_is_handed_over_either() {
    let rig = Rig::new();
    let supervisor = rig.start(&rig.agent("keeper", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort())));
    let low = rig.agent("low", &format!("ring: 3\n{}command: ['true']\n", effort()));
    let ran = rig.output([OsStr::new("run"), OsStr::new("--ring"), OsStr::new("2"), low.as_os_str()]);
    assert!(ran.stderr.contains("low  R3"), "{ran:?}");
    assert!(ran.stderr.contains("note: `--ring 2` has no effect: the file's ceiling is R3"), "{ran:?}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}

#[test]
fn check_says_what_run_would_refuse_here_in_the_same_words() {
    let rig = Rig::new();
    let file = rig.agent("judged", "ring: 2\ncommand: ['true']\n");
    let checked = rig.output([OsStr::new("check"), file.as_os_str()]);
    let ran = rig.output([OsStr::new("run"), file.as_os_str()]);
    assert_eq!(checked.code, 0, "{checked:?}");
    let words =
        ran.stderr.lines().find_map(|line| line.split_once(" can't be enforced here: ")).map(|(_, words)| words);
    match (ran.code, words) {
        (69, Some(words)) => {
            assert!(checked.stderr.contains("`run` would refuse it on this host (exit 69)"), "{checked:?}");
            assert!(checked.stderr.contains(words), "{words} in {checked:?}");
        }
        _ => assert!(!checked.stderr.contains("would refuse"), "{checked:?} {ran:?}"),
    }
    let data: serde_json::Value =
        serde_json::from_str(&rig.output([OsStr::new("check"), OsStr::new("--json"), file.as_os_str()]).stdout)
            .unwrap();
    let host = &data[0]["host"];
    assert_eq!(host["refused"].is_null(), ran.code != 69, "{host}");
    for row in ["open files", "timeouts", "stdio", "log", "chaos", "environment"] {
        assert!(checked.stdout.contains(&format!("\n  {row} ")), "{row} in {}", checked.stdout);
    }
    assert!(checked.stdout.contains("1 file rule "), "{}", checked.stdout);
    let r0 = rig.agent("chief", "ring: 0\ncommand: ['true']\n");
    let uid = nix::unistd::getuid();
    let checked = rig.output([OsStr::new("check"), r0.as_os_str()]);
    assert!(checked.stdout.contains(&format!("user         uid {uid}")), "{checked:?}");
}

#[test]
fn a_hangup_does_not_take_over_what_an_agent_may_have_written() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("agents");
    std::fs::create_dir_all(folder.join("served")).unwrap();
    let text = format!("version: 1\nname: served\nring: 2\n{}command: [sleep, '1000']\n", effort());
    std::fs::write(folder.join("served.yaml"), text).unwrap();
    let said = rig.dir.path().join("said");
    let mut command = rig.command([OsStr::new("serve"), folder.as_os_str()]);
    command.args(["--metrics", "off"]).stderr(std::fs::File::create(&said).unwrap());
    let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
    until("it serves", || rig.output(["ps"]).code == 0);
    let shows = |text: &str| rig.output(["ps"]).stdout.contains(text);
    // Started before the other's file was loaded: that one is not masked in its view.
    let script = "while [ ! -e go ]; do sleep 0.1; done; sed -i s/1000/2000/ victim.yaml && touch done; sleep 1000";
    let writer = script_of(&rig, "writer", script);
    let run = |file: &Path| Supervisor {
        child: Some(rig.command([OsStr::new("run"), file.as_os_str()]).stderr(Stdio::null()).spawn().unwrap()),
    };
    let first = run(&writer);
    until("it runs", || shows("writer"));
    let victim = rig.agent("victim", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    let second = run(&victim);
    until("it runs", || shows("victim"));
    std::fs::write(rig.work.join("go"), "").unwrap();
    until("it has written", || rig.work.join("done").exists());
    let shown = rig.output(["reload", "--dry-run"]);
    assert!(shown.stdout.contains("writer may write where this file stands"), "{shown:?}");
    supervisor.signal(Signal::SIGHUP);
    let says = || std::fs::read_to_string(&said).unwrap();
    until("the refusal is said", || says().contains("the loaded plans stay as they are"));
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
    assert!(says().contains("writer may write where it stands") && !says().contains("reload: done"), "{}", says());
    drop((first, second));
}

#[test]
fn a_check_of_a_served_file_says_who_resolves_it_otherwise() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("agents");
    std::fs::create_dir_all(folder.join("served")).unwrap();
    let text = format!("version: 1\nname: served\nring: 2\n{}command: [sleep, '1000']\n", effort());
    std::fs::write(folder.join("served.yaml"), text).unwrap();
    let file = folder.join("served.yaml");
    let check = |file: &Path| rig.output([OsStr::new("check"), file.as_os_str()]);
    assert!(!check(&file).stderr.contains("check --serve"));
    let supervisor = serve(&rig, &folder);
    let hinted = check(&file);
    let help = format!("help: agt-supervise check --serve {}", folder.canonicalize().unwrap().display());
    assert!(hinted.stderr.contains(&help), "{hinted:?}");
    let other = rig.agent("other", &format!("ring: 2\n{}command: ['true']\n", effort()));
    assert!(!check(&other).stderr.contains("check --serve"));
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}
