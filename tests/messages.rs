//! What is said of wrong files: every mistake of every phase at once, each with its line, and no more than that.

use crate::support::Rig;

/// Writes `text` to a file and gives what the command says of it, with its exit code.
fn said(args: &[&str], text: &str) -> (i32, String) {
    let rig = Rig::new();
    std::fs::write(rig.work.join("file.yaml"), text).unwrap();
    let outcome = rig.output(args);
    (outcome.code, outcome.stderr)
}

fn told(args: &[&str], text: &str, expected: &[&str]) {
    let (code, stderr) = said(args, text);
    assert_eq!(code, 64, "{stderr}");
    for part in expected {
        assert!(stderr.contains(part), "`{part}` is missing in:\n{stderr}");
    }
    let errors = stderr.matches("error: ").count();
    assert_eq!(errors, expected.len(), "one error for each mistake:\n{stderr}");
}

#[test]
fn a_misspelling_in_an_agents_file_hides_no_other_mistake() {
    let check = ["check", "file.yaml"];
    let head = "version: 1\nname: a\ncommand: [sh]\n";
    let slos = "slos:\n  - {name: one, sli: latencyy, objective: 100%, threshold: 2s}\n  - {name: one, sli: safety, objective: 99%}\n";
    told(&check, &format!("{head}{slos}"), &["`latencyy`", "no error budget", "another SLO is named"]);
    let times = "slos:\n  - {name: a, sli: latency, objective: 99%, threshold: -1s, period: 0s}\n  - {name: b, sli: safety, objective: 99%, period: 1000000d}\n";
    told(&check, &format!("{head}{times}"), &["threshold", "`slos[0].period`", "1000000"]);
    let remedy = "slos:\n  - {name: Not A Name, sli: safety, objective: 99%, remedies: [{on: page, action: demot}]}\n";
    told(&check, &format!("{head}{remedy}"), &["`demote`", "is not a name"]);
    // Rights and paths beside a misspelt key, where what they rest on is sound.
    let rights = "files: {read: [/srv/nowhere/at/all]}\nlimits: {memroy: 1GiB}\nnetwork: [{tcp: '10.1.2.3:80'}]\n";
    let (_, stderr) = said(&check, &format!("{head}ring: 2\n{rights}"));
    for part in ["memroy", "loopback", "nowhere"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    // And no more than that: a program that is not there is no news while the command itself is wrong.
    told(&check, "version: 1\nname: A B\ncommand: {}\nring: 7\n", &["`A B`", "`command`", "`7`"]);
    told(&check, &format!("{head}ring: 2\nring: 2\ntmeouts: {{}}\n"), &["twice", "tmeouts"]);
}

#[test]
fn a_misspelling_in_a_sagas_file_hides_no_other_mistake() {
    let text = "version: 1\nkind: saga\nname: s\ntimeout: 5\nsteps:\n  - {name: a, command: ['true'], compensat: {}, effects: none, retry: {attempts: 0}}\n  - {name: b, command: ['true'], effects: none, needs: [zz]}\n";
    told(&["saga", "run", "file.yaml"], text, &["compensat", "timeout", "attempts", "zz"]);
}

#[test]
fn a_misspelling_in_an_experiments_file_hides_no_other_mistake() {
    let text = "version: 1\nkind: chaos\nname: c\nagent: a\nfault: proces-hang\nduration: 15\nsteady_state:\n  - {sli: availabilty, comparison: at-least, value: 2}\n";
    told(
        &["chaos", "plan", "file.yaml"],
        text,
        &["proces-hang", "duration", "did you mean `availability`?", "out of range"],
    );
}

#[test]
fn a_misspelling_in_the_operators_file_hides_no_other_mistake() {
    let rig = Rig::new();
    let agent = rig.agent("a", "command: [sh]\n");
    let text = "version: 1\nkind: operator\nceilng: 2\nagents:\n  a: {file: a.yaml, capabilities: [net_bnid], read: ['~/x'], limits: {memory: 64M}}\n";
    std::fs::write(rig.work.join("operator.yaml"), text).unwrap();
    let outcome = rig.output(["check".as_ref(), agent.as_os_str(), "--operator".as_ref(), "operator.yaml".as_ref()]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
    for part in ["ceilng", "net_bnid", "~/x", "64M"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
}
