//! Groups that an ordinary user's agents keep: what they open decides, not what they are called.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Outcome, Rig, binary, needs_root, quoted};

const USER: u32 = 65_533;
/// Nobody's on this host.
const GROUP: u32 = 64_311;

/// A rig that an ordinary user owns, with the program where that user reaches it.
fn rig() -> Rig {
    let rig = Rig::new();
    std::fs::copy(binary(), rig.dir.path().join("program")).unwrap();
    for path in [rig.dir.path(), &rig.work] {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    rig
}

fn as_user(rig: &Rig, groups: &str, args: &[&str]) -> Outcome {
    let (id, dir) = (USER.to_string(), rig.dir.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, groups, "--"]).arg(dir.join("program"));
    command.arg("--state-dir").arg(&rig.state).args(args).current_dir(&rig.work);
    Outcome::from(command.env("HOME", dir).stdin(Stdio::null()).output().unwrap())
}

/// Whether `doctor` finds fault with the user's groups in this ring, naming this path.
fn is_missed(rig: &Rig, groups: &str, ring: usize, path: &Path) -> bool {
    let outcome = as_user(rig, groups, &["doctor", "--json"]);
    let survey: Value = serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    let gaps = survey["rings"][ring]["gaps"].as_array().unwrap().clone();
    let names = |gap: &Value| gap["reason"].as_str().unwrap().contains(&path.display().to_string());
    gaps.iter().any(|gap| names(gap) && gap["help"].as_str().unwrap().contains("--clear-groups"))
}

#[test]
fn a_socket_that_only_a_kept_group_opens_is_a_gap_of_r0_and_covered_in_r2() {
    if !needs_root("a_socket_that_only_a_kept_group_opens_is_a_gap_of_r0_and_covered_in_r2") {
        return;
    }
    let rig = rig();
    let path = rig.work.join("docker.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(0), Some(GROUP)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660)).unwrap();
    let with = format!("--groups={GROUP}");
    assert!(is_missed(&rig, &with, 0, &path), "R0 sees the socket");
    assert!(!is_missed(&rig, "--clear-groups", 0, &path), "without the group it is closed");
    // In R2 the same socket in the agent's own workdir is covered: the agent has the group, and it is of no use.
    let script = "import socket\ns = socket.socket(socket.AF_UNIX)\ntry: s.connect('docker.sock'); print('LEAK')\nexcept OSError as e: print('closed', e.errno)\nimport os; print(os.getgroups())";
    let text = format!("ring: 2\nenforcement: best-effort\ncommand: [python3, -c, {}]\n", quoted(script));
    let file = rig.agent("reader", &text);
    let outcome = as_user(&rig, &with, &["run", &file.display().to_string()]);
    assert!(outcome.stdout.starts_with("closed"), "{} {}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("65534"), "the group stays, without a name inside: {}", outcome.stdout);
}

#[test]
fn a_group_that_opens_private_keys_of_the_system_refuses_the_rings_that_see_them() {
    if !needs_root("a_group_that_opens_private_keys_of_the_system_refuses_the_rings_that_see_them") {
        return;
    }
    // A mount namespace of this test's own, so that the host's folder of keys stays as it is.
    let rig = rig();
    let file = rig.agent("reader", "ring: 2\ncommand: ['true']\n");
    let script = format!(
        "mount -t tmpfs -o mode=755 keys /etc/ssl && mkdir -m 710 /etc/ssl/private && chown 0:{GROUP} /etc/ssl/private && \
         cd {} && exec setpriv --reuid {USER} --regid {USER} $1 -- {} --state-dir {} run {}",
        rig.work.display(),
        rig.dir.path().join("program").display(),
        rig.state.display(),
        file.display()
    );
    let run = |groups: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", groups]);
        Outcome::from(command.env("HOME", rig.dir.path()).stdin(Stdio::null()).output().unwrap())
    };
    let refused = run(&format!("--groups={GROUP}"));
    assert_eq!(refused.code, 69, "{}", refused.stderr);
    let words = format!("own-identity needs your group {GROUP} dropped");
    assert!(refused.stderr.contains(&words) && refused.stderr.contains("/etc/ssl/private"), "{}", refused.stderr);
    let without = run("--clear-groups");
    assert!(!without.stderr.contains("own-identity"), "{}", without.stderr);
}
