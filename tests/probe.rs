//! `probe` and `doctor` on the real program.

use crate::support::{Rig, needs_root};

#[test]
fn r2_holds_against_every_attack_of_the_probe() {
    if !needs_root("r2_holds_against_every_attack_of_the_probe") {
        return;
    }
    let rig = Rig::new();
    let outcome = rig.output(["probe", "--ring", "2", "--json"]);
    let findings: Vec<serde_json::Value> = serde_json::from_str(&outcome.stdout).unwrap();
    let bad: Vec<&serde_json::Value> = findings.iter().filter(|f| f["verdict"] == "fail").collect();
    assert!(outcome.code == 0 && bad.is_empty(), "{bad:#?}\n{}", outcome.stderr);
    let denied = findings.iter().filter(|f| f["verdict"] == "pass" && f["expected"] == "denied").count();
    assert!(denied >= 20, "only {denied} attacks were judged");
    for finding in &findings {
        let keys: Vec<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 8, "{keys:?}");
        for key in ["ring", "name", "asked", "expected", "got", "layer", "verdict", "reason"] {
            assert!(keys.contains(&key), "{key} is missing in {finding}");
        }
    }
}

#[test]
fn doctor_says_what_works_here_as_text_and_as_data() {
    let rig = Rig::new();
    let text = rig.output(["doctor"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    assert!(text.stdout.contains("kernel") && text.stdout.contains("rings you can run here"), "{}", text.stdout);
    let data = rig.output(["doctor", "--json"]);
    assert!(serde_json::from_str::<serde_json::Value>(&data.stdout).is_ok(), "{}", data.stdout);
}
