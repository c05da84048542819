//! Each launch protects what exists at that launch, not what existed when the plan was loaded: also a restart's, a restart
//! rule's and a saga's later step's.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::support::{Rig, needs_root, quoted, until};

/// What the tests make while an agent runs.
const LATER: [&str; 4] = [".envrc", ".git/config", ".git/hooks/pre-commit", "suid"];

/// Writes down, for each life, which of the names it can open for writing. A setuid file that can be opened so can be rewritten
/// through shared memory, which keeps the bit.
fn tries(names: &[&str]) -> String {
    format!(
        r#"n=$(ls | grep -c '^life-'); for f in {}; do
  [ -e "$f" ] || continue
  if (exec 3<>"$f") 2>/dev/null; then echo "$f is open"; else echo "$f is shut"; fi
done > trying; mv trying "life-$n"; exec sleep 1000"#,
        names.join(" ")
    )
}

fn life(rig: &Rig, number: u32) -> String {
    let path = rig.work.join(format!("life-{number}"));
    until("the life has tried", || path.exists());
    fs::read_to_string(path).unwrap()
}

fn make_later(rig: &Rig) {
    fs::create_dir_all(rig.work.join(".git/hooks")).unwrap();
    for name in &LATER[..3] {
        fs::write(rig.work.join(name), "theirs\n").unwrap();
    }
    fs::copy("/bin/true", rig.work.join("suid")).unwrap();
    fs::set_permissions(rig.work.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
}

fn status(rig: &Rig, name: &str) -> Value {
    let shown: Value = serde_json::from_str(&rig.output(["status", name, "--json"]).stdout).unwrap();
    shown["agents"][0].clone()
}

fn restart(rig: &Rig, name: &str) {
    let outcome = rig.output(["restart", name, "--reason", "test"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

/// Of each launch in the audit log: the hash of its plan.
fn plans(rig: &Rig) -> Vec<String> {
    let shown: Value = serde_json::from_str(&rig.output(["audit", "show", "--json"]).stdout).unwrap();
    let launches = shown["records"].as_array().unwrap().iter().filter(|record| record["action"] == "launch");
    launches.map(|record| record["details"]["plan"].to_string()).collect()
}

#[test]
fn a_restart_protects_what_was_made_since_the_plan_was_loaded() {
    if !needs_root("a_restart_protects_what_was_made_since_the_plan_was_loaded") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("late", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&tries(&LATER))));
    let supervisor = rig.start(&file);
    assert_eq!(life(&rig, 0), "");
    make_later(&rig);
    let socket = rig.work.join("service");
    let _service = UnixListener::bind(&socket).unwrap();
    restart(&rig, "late");
    assert_eq!(life(&rig, 1), LATER.map(|name| format!("{name} is shut\n")).concat());
    let now = status(&rig, "late");
    assert_eq!(now["report"]["gaps"], serde_json::json!([]), "{now}");
    for name in [".envrc", ".git/config", ".git/hooks", "suid", "late.yaml"] {
        let path = rig.work.join(name).display().to_string();
        assert!(now["protected"].as_array().unwrap().iter().any(|shown| shown == &path), "{name}: {now}");
    }
    let said = rig.output(["status", "late"]).stdout;
    assert!(said.contains("read-only, since its last launch") && said.contains(".git/config"), "{said}");
    // Its mount namespace has an empty file where the socket is.
    let pid = now["pid"].as_i64().unwrap();
    let inside = format!("/proc/{pid}/root{}", socket.display());
    use std::os::unix::fs::FileTypeExt;
    assert!(fs::symlink_metadata(inside).unwrap().file_type().is_char_device());
    // What has gone since is no reason not to start, and the plan is the one that was loaded.
    fs::remove_file(rig.work.join("suid")).unwrap();
    fs::remove_dir_all(rig.work.join(".git")).unwrap();
    restart(&rig, "late");
    assert_eq!(life(&rig, 2), ".envrc is shut\n");
    let plans = plans(&rig);
    assert!(plans.len() == 3 && plans.iter().all(|plan| *plan == plans[0] && plan.len() > 60), "{plans:?}");
    assert_eq!(rig.output(["stop", "late", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn a_restart_keeps_what_the_loaded_plan_protects_as_long_as_it_exists() {
    if !needs_root("a_restart_keeps_what_the_loaded_plan_protects_as_long_as_it_exists") {
        return;
    }
    let rig = Rig::new();
    fs::copy("/bin/true", rig.work.join("suid")).unwrap();
    fs::set_permissions(rig.work.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(rig.work.join(".envrc"), "theirs\n").unwrap();
    let file = rig.agent("kept", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&tries(&LATER))));
    let supervisor = rig.start(&file);
    assert_eq!(life(&rig, 0), ".envrc is shut\nsuid is shut\n");
    // A look at this launch alone would find nothing in it any more.
    fs::set_permissions(rig.work.join("suid"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(rig.work.join(".envrc")).unwrap();
    restart(&rig, "kept");
    assert_eq!(life(&rig, 1), "suid is shut\n");
    assert_eq!(rig.output(["stop", "kept", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

impl Rig {
    /// Runs an agent that may make never-writable names: those that exist are kept from it, and no others.
    fn existing_alone(&self, file: &std::path::Path) -> crate::support::Outcome {
        let operator = self.dir.path().join("operator.yaml");
        let name = file.file_stem().unwrap().to_str().unwrap();
        let grant = format!("  {name}:\n    file: {}\n    protect: existing\n", file.display());
        fs::write(&operator, format!("version: 1\nkind: operator\nagents:\n{grant}")).unwrap();
        self.output(["run".as_ref(), "--operator".as_ref(), operator.as_os_str(), file.as_os_str()])
    }
}

#[test]
fn a_link_among_protected_names_that_was_made_later_refuses_the_next_life() {
    if !needs_root("a_link_among_protected_names_that_was_made_later_refuses_the_next_life") {
        return;
    }
    let cases = [
        ("touch rules; ln -s rules .envrc", ".envrc: it is a link"),
        ("touch .bashrc; ln .bashrc plain", ".bashrc: it has another name"),
    ];
    for (make, expected) in cases {
        // By its restart rule, which says so and gives up.
        let rig = Rig::new();
        let script = format!("echo >> lives; [ -e rules ] || [ -e plain ] || {{ {make}; }}; exit 1");
        let rest = |effort: &str| {
            let rule = "restart: {policy: on-failure, attempts: 2, backoff: {initial: 10ms, max: 10ms}}";
            format!("ring: 2\n{effort}{rule}\ncommand: [sh, -c, {}]\n", quoted(&script))
        };
        let file = rig.agent("linker", &rest(""));
        let outcome = rig.existing_alone(&file);
        assert_eq!(outcome.code, 69, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected) && outcome.stderr.contains("gave up"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("writable: [") && outcome.stderr.contains("operator"), "{}", outcome.stderr);
        assert_eq!(fs::read_to_string(rig.work.join("lives")).unwrap(), "\n", "one life: {}", outcome.stderr);
        // Best effort goes on and reports it.
        let rig = Rig::new();
        let file = rig.agent("linker", &rest("enforcement: best-effort\n"));
        let outcome = rig.existing_alone(&file);
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        assert_eq!(fs::read_to_string(rig.work.join("lives")).unwrap(), "\n\n\n");
        assert!(outcome.stderr.contains("not enforced") && outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
}

#[test]
fn a_link_that_is_gone_again_holds_no_restart_up() {
    if !needs_root("a_link_that_is_gone_again_holds_no_restart_up") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("mended", &format!("ring: 2\ncommand: [sh, -c, {}]\n", quoted(&tries(&LATER))));
    let keeper = rig.agent("keeper", "ring: 2\ncommand: [sleep, '1000']\n");
    let supervisor = {
        use std::process::Stdio;
        let words = ["run".as_ref(), file.as_os_str(), keeper.as_os_str()];
        let child = rig.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        crate::support::Supervisor { child: Some(child) }
    };
    assert_eq!(life(&rig, 0), "");
    symlink("rules", rig.work.join(".envrc")).unwrap();
    restart(&rig, "mended");
    until("it is refused", || status(&rig, "mended")["last_death"]["cause"] == "launch_failed");
    let refused = status(&rig, "mended");
    assert_eq!(refused["exit_code"], 69, "{refused}");
    fs::remove_file(rig.work.join(".envrc")).unwrap();
    restart(&rig, "mended");
    life(&rig, 1);
    assert_eq!(rig.output(["stop", "--all", "--reason", "test", "--yes"]).code, 0);
    supervisor.wait();
}

#[test]
fn a_later_step_of_a_saga_can_not_change_what_an_earlier_one_made_that_is_never_writable() {
    if !needs_root("a_later_step_of_a_saga_can_not_change_what_an_earlier_one_made_that_is_never_writable") {
        return;
    }
    let rig = Rig::new();
    let first = "mkdir -p .git/hooks && echo theirs > .git/config && ! touch .envrc";
    let second = "for f in .git/config .envrc .git/hooks/new; do echo ours >> $f && exit 1; done; exit 0";
    let text = format!(
        "version: 1\nkind: saga\nname: later\nsteps:\n  make:\n    command: [sh, -c, {}]\n    compensate: {{command: ['true']}}\n  change:\n    needs: [make]\n    command: [sh, -c, {}]\n",
        quoted(first),
        quoted(second)
    );
    let path = rig.work.join("saga.yaml");
    fs::write(&path, text).unwrap();
    let outcome = rig.output(["saga".as_ref(), "run".as_ref(), path.as_os_str()]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(fs::read_to_string(rig.work.join(".git/config")).unwrap(), "theirs\n");
}
