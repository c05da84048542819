//! Containers: what can be enforced under the restrictions that Docker and Kubernetes set, as docs/containers.md has it.
//!
//! There is no container runtime here, so `fixtures/container.py` takes away what one takes away: system calls, capabilities, parts
//! of /proc, writable control groups. What a runtime's AppArmor or SELinux policy adds is not played.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Outcome, Rig, binary, is_root, needs_root, quoted, skip};

struct Container<'a> {
    rig: &'a Rig,
    words: &'a str,
}

impl Container<'_> {
    fn run(&self, args: &[&str]) -> Outcome {
        let dir = self.rig.dir.path();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private", "python3"]);
        command.arg(dir.join("container.py")).args(self.words.split_whitespace()).arg("--");
        command.arg(dir.join("program")).arg("--state-dir").arg(&self.rig.state).args(args);
        Outcome::from(command.current_dir(&self.rig.work).stdin(Stdio::null()).output().unwrap())
    }

    fn survey(&self) -> Value {
        let outcome = self.run(&["doctor", "--json"]);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{}: {e}: {outcome:?}", self.words))
    }
}

fn rig() -> Rig {
    let rig = Rig::new();
    std::fs::copy(binary(), rig.dir.path().join("program")).unwrap();
    std::fs::write(rig.dir.path().join("container.py"), include_str!("fixtures/container.py")).unwrap();
    for path in [rig.dir.path(), &rig.work] {
        std::os::unix::fs::chown(path, Some(if is_root() { 1000 } else { nix::unistd::geteuid().as_raw() }), None)
            .unwrap();
    }
    rig
}

fn can_play(test: &str) -> bool {
    if std::env::consts::ARCH != "x86_64" {
        skip(test, "the container's filter is written for x86-64");
        return false;
    }
    needs_root(test)
}

/// The protections that a ring lacks, sorted.
fn missing(survey: &Value, ring: usize) -> Vec<String> {
    let gaps = survey["rings"][ring]["gaps"].as_array().unwrap();
    let mut names: Vec<String> = gaps.iter().map(|gap| gap["protection"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

const LIMITS: [&str; 3] = ["cpu-limit", "memory-limit", "task-limit"];
const BY_DEFAULT: &str = "caps seccomp masked cgroup-ro";
const RESTRICTED: &str = "user seccomp masked cgroup-ro";

/// The table of docs/containers.md: words, what R2 lacks, what R3 lacks.
fn table() -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
    let without_namespaces = [
        "cpu-limit",
        "dies-with-supervisor",
        "file-metadata",
        "ipc-isolation",
        "memory-limit",
        "own-identity",
        "private-files",
        "process-isolation",
        "task-limit",
    ];
    let mut r2 = without_namespaces.to_vec();
    r2.push("network-isolation");
    r2.sort_unstable();
    let bare = || (r2.clone(), without_namespaces.to_vec());
    vec![
        (BY_DEFAULT, bare().0, bare().1),
        (RESTRICTED, bare().0, bare().1),
        ("caps masked cgroup-ro", bare().0, bare().1),
        ("caps cgroup-ro", LIMITS.to_vec(), LIMITS.to_vec()),
        ("user cgroup-ro", LIMITS.to_vec(), LIMITS.to_vec()),
        ("caps", vec![], vec![]),
        ("", vec![], vec![]),
    ]
}

#[test]
fn each_kind_of_container_gets_what_the_document_says() {
    if !can_play("each_kind_of_container_gets_what_the_document_says") {
        return;
    }
    let rig = rig();
    for (words, r2, r3) in table() {
        let survey = Container { rig: &rig, words }.survey();
        assert_eq!(missing(&survey, 2), r2, "R2 with `{words}`");
        assert_eq!(missing(&survey, 3), r3, "R3 with `{words}`");
    }
}

#[test]
fn doctor_names_the_containers_own_switches_and_no_sysctl_of_the_host() {
    if !can_play("doctor_names_the_containers_own_switches_and_no_sysctl_of_the_host") {
        return;
    }
    let rig = rig();
    for (words, help) in [
        (BY_DEFAULT, "seccompProfile: {type: Unconfined}"),
        ("caps masked cgroup-ro", "systempaths=unconfined"),
        ("caps cgroup-ro", "make /sys/fs/cgroup writable in this container"),
    ] {
        let shown = Container { rig: &rig, words }.run(&["doctor"]).stdout;
        assert!(shown.contains(help), "{words}: {shown}");
        assert!(!shown.contains("sysctl") && !shown.contains("Landlock is absent"), "{words}: {shown}");
    }
}

#[test]
fn under_the_default_restrictions_required_refuses_and_best_effort_keeps_what_its_report_says() {
    let name = "under_the_default_restrictions_required_refuses_and_best_effort_keeps_what_its_report_says";
    if !can_play(name) {
        return;
    }
    let rig = rig();
    let outside = rig.dir.path().join("outside");
    std::fs::write(&outside, "secret").unwrap();
    for words in [BY_DEFAULT, RESTRICTED] {
        let _ = std::fs::remove_dir_all(&rig.state);
        let container = Container { rig: &rig, words };
        let refused = run(&container, &rig.agent("strict", "ring: 3\ncommand: ['true']\n"));
        assert_eq!(refused.code, 69, "{words}: {}", refused.stderr);
        let script = format!(
            "import os, socket\ndef tried(what, act):\n  try: act(); print(what, 'LEAK')\n  except OSError as e: print(what, 'no')\n\
             tried('read', lambda: open({0:?}).read())\ntried('write', lambda: open({0:?}, 'w'))\n\
             tried('fork', os.fork)\ntried('socket', lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))\n\
             print('filters', [l.split()[1] for l in open('/proc/self/status') if l.startswith('Seccomp:')])",
            outside.display().to_string()
        );
        let text = format!("ring: 3\nenforcement: best-effort\ncommand: [python3, -c, {}]\n", quoted(&script));
        let outcome = run(&container, &rig.agent("loose", &text));
        assert_eq!(outcome.code, 0, "{words}: {}", outcome.stderr);
        assert_eq!(
            outcome.stdout, "read no\nwrite no\nfork no\nsocket no\nfilters ['2']\n",
            "{words}: {}",
            outcome.stderr
        );
        assert!(outcome.stderr.contains("enforced: partial"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("not enforced: process-isolation needs namespaces"), "{}", outcome.stderr);
    }
}

fn run(container: &Container<'_>, file: &Path) -> Outcome {
    container.run(&["run", "--metrics", "off", &file.display().to_string()])
}
