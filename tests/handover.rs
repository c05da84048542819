//! A second `run` beside a supervisor: its agents are taken over with its descriptors.

use std::io::{Read, Write};
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::support::{Rig, Supervisor, effort, until};

fn first(rig: &Rig) -> Supervisor {
    let file = rig.agent("first", &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()));
    rig.start(&file)
}

#[test]
fn a_second_run_keeps_its_own_streams_and_exit_code() {
    let rig = Rig::new();
    let supervisor = first(&rig);
    let file = rig.agent("second", &format!("ring: 2\n{}command: [sh, -c, 'cat; exit 9']\n", effort()));
    let mut child = rig
        .command(["run".as_ref(), file.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"through\x00\xff\n").unwrap();
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert_eq!(got, b"through\x00\xff\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let names: Vec<String> =
        rig.ps()["agents"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["first", "second"], "both were in one supervisor");
    assert_eq!(rig.output(["stop", "first", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn a_signal_to_the_second_run_stops_its_agent_and_no_other() {
    let rig = Rig::new();
    let supervisor = first(&rig);
    let script = "trap 'exit 3' TERM; touch ready; while :; do sleep 0.1; done";
    let file = rig.agent("second", &format!("ring: 2\n{}command: [sh, -c, \"{script}\"]\n", effort()));
    let child =
        rig.command(["run".as_ref(), file.as_os_str()]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let second = Supervisor { child: Some(child) };
    until("the second runs", || rig.work.join("ready").exists());
    second.signal(Signal::SIGINT);
    assert_eq!(second.wait().code, 3);
    let ps = rig.ps();
    let states: Vec<&str> = ps["agents"].as_array().unwrap().iter().map(|a| a["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["running", "ended"]);
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn an_agent_ends_when_the_run_that_handed_it_over_is_killed() {
    let rig = Rig::new();
    let supervisor = first(&rig);
    let file = rig.agent("second", &format!("ring: 2\n{}command: [sh, -c, 'touch ready; sleep 1000']\n", effort()));
    let child =
        rig.command(["run".as_ref(), file.as_os_str()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = Supervisor { child: Some(child) };
    until("the second runs", || rig.work.join("ready").exists());
    second.signal(Signal::SIGKILL);
    drop(second);
    until("its agent is stopped", || {
        rig.ps()["agents"].as_array().unwrap().iter().any(|a| a["name"] == "second" && a["state"] == "ended")
    });
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn the_first_supervisor_stays_for_agents_that_were_handed_to_it() {
    let rig = Rig::new();
    let supervisor = first(&rig);
    let file = rig.agent("second", &format!("ring: 2\n{}command: [sh, -c, 'touch ready; sleep 1000']\n", effort()));
    let child =
        rig.command(["run".as_ref(), file.as_os_str()]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let second = Supervisor { child: Some(child) };
    until("the second runs", || rig.work.join("ready").exists());
    supervisor.signal(Signal::SIGINT);
    until("the first agent is stopped", || {
        rig.ps()["agents"].as_array().unwrap().iter().any(|a| a["name"] == "first" && a["state"] == "ended")
    });
    assert!(rig.ps()["agents"].as_array().unwrap().iter().any(|a| a["name"] == "second" && a["state"] == "running"));
    assert_eq!(rig.output(["stop", "second", "--reason", "test", "--yes"]).code, 0);
    assert_eq!(second.wait().code, 143);
    supervisor.wait();
}

#[test]
fn a_handed_over_run_says_where_the_metrics_really_are() {
    let rig = Rig::new();
    let supervisor = first(&rig);
    let status: serde_json::Value = serde_json::from_str(&rig.output(["status", "first", "--json"]).stdout).unwrap();
    assert_eq!(status["agents"][0]["name"], "first");
    let url = status["supervisor"]["metrics"].as_str().unwrap().to_owned();
    let file = rig.agent("second", &format!("ring: 2\n{}command: ['true']\n", effort()));
    let run = |metrics: &[&str]| {
        let args = ["run", file.to_str().unwrap()].into_iter().chain(metrics.iter().copied());
        rig.output(args)
    };
    let typed = run(&["--metrics", "127.0.0.1:1"]);
    assert_eq!(typed.code, 0, "{}", typed.stderr);
    assert!(typed.stderr.contains("--metrics has no effect") && typed.stderr.contains(&url), "{}", typed.stderr);
    let not_typed = run(&[]);
    assert!(!not_typed.stderr.contains("--metrics"), "{}", not_typed.stderr);
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}
