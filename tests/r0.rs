//! R0: the host's view, the operator's capabilities and not one more, and a control socket of its own.

use std::path::PathBuf;

use crate::support::{Outcome, Rig, needs_root, quoted};

/// An agent in R0 with these capabilities from the operator's file, trusted, attested and run.
fn run(rig: &Rig, capabilities: &str, rest: &str) -> Outcome {
    let file = rig.agent("chief", &format!("ring: 0\n{rest}"));
    let operator: PathBuf = rig.dir.path().join("operator.yaml");
    let grant = format!("  chief: {{file: {}, ceiling: 0, capabilities: {capabilities}}}\n", file.display());
    std::fs::write(&operator, format!("version: 1\nkind: operator\nagents:\n{grant}")).unwrap();
    let end = rig.dir.path().join("end.json");
    let start = || {
        let args = ["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()];
        rig.output(args.into_iter().chain(["--status-file".as_ref(), end.as_os_str()]))
    };
    // Known after its first start, which is in a lower ring.
    start();
    for args in [
        &["trust", "set", "chief", "960", "--reason", "test"][..],
        &["attest", "chief", "--reason", "test", "--ttl", "1h"],
    ] {
        let outcome = rig.output(args);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    }
    start()
}

fn mask(outcome: &Outcome, key: &str) -> u64 {
    let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

const SETS: [&str; 5] = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];

#[test]
fn r0_has_exactly_the_capabilities_that_its_operator_names() {
    if !needs_root("r0_has_exactly_the_capabilities_that_its_operator_names") {
        return;
    }
    let rig = Rig::new();
    let granted = run(&rig, "[net_bind_service, CAP_KILL]", "command: [cat, /proc/self/status]\n");
    assert_eq!(granted.code, 0, "{}", granted.stderr);
    assert!(granted.stderr.contains("chief  R0"), "{}", granted.stderr);
    for set in SETS {
        assert_eq!(mask(&granted, set), 1 << 10 | 1 << 5, "{set}");
    }
    let report = std::fs::read_to_string(rig.dir.path().join("end.json")).unwrap();
    assert!(report.contains("hold kill, net_bind_service and nothing else"), "{report}");
    let none = run(&Rig::new(), "[]", "command: [cat, /proc/self/status]\n");
    for set in SETS {
        assert_eq!(mask(&none, set), 0, "{set}");
    }
}

#[test]
fn capabilities_stay_with_r0() {
    if !needs_root("capabilities_stay_with_r0") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("low", "ring: 2\ncommand: [cat, /proc/self/status]\n");
    let operator = rig.dir.path().join("operator.yaml");
    let grant = format!("  low: {{file: {}, capabilities: [kill]}}\n", file.display());
    std::fs::write(&operator, format!("version: 1\nkind: operator\nagents:\n{grant}")).unwrap();
    let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    for set in SETS {
        assert_eq!(mask(&outcome, set), 0, "R2 {set}");
    }
}

#[test]
fn a_capability_that_the_supervisor_does_not_hold_refuses_the_launch_by_name() {
    if !needs_root("a_capability_that_the_supervisor_does_not_hold_refuses_the_launch_by_name") {
        return;
    }
    let rig = Rig::new();
    let script = "setpriv --bounding-set -sys_boot --inh-caps -sys_boot";
    // Held or not by this test's own process, the supervisor below does not have it.
    let starter = rig.dir.path().join("starter");
    let text = format!("#!/bin/sh\nexec {script} {} \"$@\"\n", crate::support::binary().display());
    std::fs::write(&starter, text).unwrap();
    assert_eq!(run(&rig, "[]", "command: ['true']\n").code, 0);
    let file = rig.work.join("chief.yaml");
    let operator = rig.dir.path().join("operator.yaml");
    let grant = format!("  chief: {{file: {}, ceiling: 0, capabilities: [sys_boot]}}\n", file.display());
    std::fs::write(&operator, format!("version: 1\nkind: operator\nagents:\n{grant}")).unwrap();
    let start = || -> Outcome {
        let mut command = std::process::Command::new("sh");
        command.arg(&starter).arg("--state-dir").arg(&rig.state).arg("run").arg(&file).arg("--operator").arg(&operator);
        command.current_dir(&rig.work).stdin(std::process::Stdio::null()).output().unwrap().into()
    };
    start();
    assert_eq!(rig.output(["attest", "chief", "--reason", "test", "--ttl", "1h"]).code, 0);
    let refused = start();
    assert_eq!(refused.code, 69, "{}", refused.stderr);
    assert!(refused.stderr.contains("sys_boot") && refused.stderr.contains("help:"), "{}", refused.stderr);
}

#[test]
fn r0_speaks_on_its_control_socket_and_sees_nothing_else_of_the_supervisor() {
    if !needs_root("r0_speaks_on_its_control_socket_and_sees_nothing_else_of_the_supervisor") {
        return;
    }
    let rig = Rig::new();
    let script = format!(
        "import os, socket\ns = socket.socket(socket.AF_UNIX)\nos.chdir(os.path.dirname(os.environ['AGT_SOCKET']))\ns.connect('agent.sock')\ns.sendall(b'{{\"task\": \"start\", \"id\": \"t1\"}}\\n')\nprint('heard' if b'ok' in s.recv(4096) else 'deaf')\nfor path in ({0:?}, {0:?} + '/agents', {0:?} + '/state.db', {0:?} + '/operator.sock'):\n    try: print('LEAK', os.listdir(path) if os.path.isdir(path) else open(path).read(1))\n    except OSError as e: print(type(e).__name__)\ntry: open('x', 'w'); print('LEAK')\nexcept OSError as e: print(e.errno)\n",
        rig.state.display().to_string()
    );
    let outcome = run(&rig, "[]", &format!("command: [python3, -c, {}]\n", quoted(&script)));
    assert!(outcome.stderr.contains("chief  R0"), "{}", outcome.stderr);
    let wanted = "heard\nPermissionError\nPermissionError\nFileNotFoundError\nFileNotFoundError\n30\n";
    assert_eq!(outcome.stdout, wanted, "{}", outcome.stderr);
}
