//! Agents that build sandboxes of their own: only by an operator's line, and then for real, with the ring's walls still around.

use std::path::Path;
use std::process::Command;

use crate::support::{Outcome, Rig, effort, quoted, skip};

fn has_bwrap(test: &str) -> bool {
    let found = Command::new("bwrap").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip(test, "needs bubblewrap");
    }
    found
}

/// Runs a script in R2; `line` stands in agent.yaml, `grant` in the operator's file.
fn run(rig: &Rig, line: &str, grant: &str, script: &str) -> Outcome {
    let text = format!("ring: 2\n{}{line}command: [sh, -c, {}]\n", effort(), quoted(script));
    let file = rig.agent("builder", &text);
    let operator = rig.dir.path().join("operator.yaml");
    let agents = format!("agents:\n  builder: {{file: {}{grant}}}\n", file.display());
    std::fs::write(&operator, format!("version: 1\nkind: operator\n{agents}")).unwrap();
    let mut command = rig.command(["run".as_ref(), file.as_os_str(), "--operator".as_ref(), operator.as_os_str()]);
    Outcome::from(command.arg("--status-file").arg(rig.dir.path().join("end.json")).output().unwrap())
}

const BWRAP: &str = "bwrap --unshare-all --die-with-parent --bind / / --proc /proc --dev /dev --hostname inner --";
const LINE: &str = "nested_sandbox: on\n";
const GRANT: &str = ", nested_sandbox: on";

#[test]
fn bwrap_with_all_namespaces_runs_in_r2_by_the_operators_line_and_not_without_it() {
    let name = "bwrap_with_all_namespaces_runs_in_r2_by_the_operators_line_and_not_without_it";
    if !has_bwrap(name) {
        return;
    }
    let rig = Rig::new();
    let script =
        format!("{BWRAP} sh -c 'hostname; echo pid $$; ls /proc | grep -c \"^[0-9]\"; echo x > made; echo ok'");
    let inside = run(&rig, LINE, GRANT, &script);
    assert_eq!(inside.code, 0, "{}", inside.stderr);
    let lines: Vec<&str> = inside.stdout.lines().collect();
    assert_eq!((lines[0], lines.last()), ("inner", Some(&"ok")), "{}", inside.stdout);
    assert!(lines[2].parse::<u32>().unwrap() <= 5, "it sees the processes of its sandbox alone: {}", inside.stdout);
    assert!(rig.work.join("made").exists());
    assert!(inside.stderr.contains("note: it may build sandboxes of its own"), "{}", inside.stderr);
    let report = std::fs::read_to_string(rig.dir.path().join("end.json")).unwrap();
    assert!(report.contains("open by the operator's file: namespaces and mounts"), "{report}");
    assert!(!report.contains("Landlock ABI"), "{report}");
    let refused = run(&rig, LINE, "", "true");
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert!(refused.stderr.contains("nested_sandbox: on"), "{}", refused.stderr);
    // The line alone in the operator's file gives nothing that nobody asked for.
    let unasked = run(&rig, "", GRANT, &format!("{BWRAP} true || echo refused"));
    assert_eq!(unasked.stdout, "refused\n", "{}", unasked.stderr);
}

#[test]
fn a_sandbox_inside_takes_no_mask_away_and_reaches_nothing_that_the_ring_hides() {
    let name = "a_sandbox_inside_takes_no_mask_away_and_reaches_nothing_that_the_ring_hides";
    if !has_bwrap(name) {
        return;
    }
    let rig = Rig::new();
    std::fs::create_dir_all(rig.work.join(".git/hooks")).unwrap();
    std::fs::write(rig.work.join(".git/config"), "kept").unwrap();
    std::fs::write(rig.dir.path().join("outside"), "secret").unwrap();
    let outside = rig.dir.path().join("outside");
    // With every capability inside its own user namespace, and mounts of its own.
    let tries = format!(
        "umount .git/config; umount -l .git/config; mount -o remount,bind,rw .git/config; mount --bind .git .git; \
         echo bad > .git/config && echo LEAK-CONFIG; echo bad > .git/hooks/pre-commit && echo LEAK-HOOK; \
         mkdir /tmp/b; mount --bind . /tmp/b && echo bad > /tmp/b/.git/config && echo LEAK-BIND; \
         echo x >> builder.yaml && echo LEAK-YAML; cat {} && echo LEAK-OUTSIDE; \
         mknod n c 1 3 && echo LEAK-NODE; touch s && chmod u+s s && echo LEAK-SETUID; \
         nsenter -t 1 -m true && echo LEAK-SETNS; echo done",
        outside.display()
    );
    let script =
        format!("unshare --user --map-root-user --mount --pid --fork sh -c {} 2>/dev/null", shell_word(&tries));
    let outcome = run(&rig, LINE, GRANT, &script);
    assert_eq!(outcome.stdout, "done\n", "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(rig.work.join(".git/config")).unwrap(), "kept");
    assert!(!rig.work.join(".git/hooks/pre-commit").exists());
}

#[test]
fn r3_builds_no_sandboxes_whatever_the_operator_says() {
    let rig = Rig::new();
    let file = rig.agent("builder", &format!("ring: 3\n{}{LINE}command: ['true']\n", effort()));
    let operator = rig.dir.path().join("operator.yaml");
    let agents = format!("agents:\n  builder: {{file: {}{GRANT}}}\n", file.display());
    std::fs::write(&operator, format!("version: 1\nkind: operator\n{agents}")).unwrap();
    let check =
        |path: &Path| rig.output(["check".as_ref(), path.as_os_str(), "--operator".as_ref(), operator.as_os_str()]);
    let wrong = check(&file);
    assert_eq!(wrong.code, 64, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("R3 is one program"), "{}", wrong.stderr);
    let right = rig.agent("builder", &format!("ring: 2\n{}{LINE}command: ['true']\n", effort()));
    let shown = check(&right);
    assert!(shown.stdout.contains("sandboxes") && shown.stdout.contains("no Landlock"), "{shown:?}");
}

fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
