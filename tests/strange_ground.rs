//! Kernels and disks that are not as they should be: no Landlock, no control groups, limits that don't stick, a full or read-only
//! disk, other clocks. What lacks is named, what gives power is refused, what takes power works, and nothing else is harmed.
//!
//! All of it is real: refusals and lies by a seccomp filter over the whole supervisor, small file systems and read-only mounts
//! in a mount namespace that ends with the test. The wall clock can't be set here; `.ci/vm-checks` sets that of a machine of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::{
    Outcome, Rig, Supervisor, binary, effort, is_root, needs_root, processes_with, quoted, skip, unique,
};

/// Compiles the program that makes a kernel look strange; `None` where there is no compiler.
fn strange_kernel(rig: &Rig, test: &str) -> Option<PathBuf> {
    let (source, program) = (rig.dir.path().join("strange.c"), rig.dir.path().join("strange"));
    std::fs::write(&source, include_str!("support/strange_kernel.c")).unwrap();
    match Command::new("cc").arg("-o").arg(&program).arg(&source).status() {
        Ok(status) if status.success() => Some(program),
        other => {
            skip(test, &format!("cc does not work here ({other:?})"));
            None
        }
    }
}

/// Our program with these arguments, started by another one.
fn started_by(rig: &Rig, starter: Command, args: &[&str]) -> Outcome {
    let mut command = starter;
    command.arg(binary()).arg("--state-dir").arg(&rig.state).args(args).current_dir(&rig.work).stdin(Stdio::null());
    command.output().unwrap().into()
}

/// A shell script as root in a mount namespace of its own. `$agt` is our program with the rig's state directory, `$state` that
/// directory; whatever the script mounts goes with it.
fn in_own_mounts(rig: &Rig, script: &str) -> Outcome {
    let all = format!(
        "set -u; state={}; agt='{} --state-dir {}'\n\
         run=; fail() {{ echo \"FAILED: $*\"; [ -z \"$run\" ] || kill -9 $run; exit 99; }}\n\
         until_running() {{ n=0; until $agt ps --json 2>/dev/null | grep -q '\"state\": \"running\"'; do\n\
         n=$((n+1)); [ $n -lt 600 ] || fail 'it never ran'; sleep 0.1; done; }}\n{script}",
        rig.state.display(),
        binary().display(),
        rig.state.display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]).arg(all);
    command.current_dir(&rig.work).stdin(Stdio::null()).output().unwrap().into()
}

fn report_of(rig: &Rig) -> String {
    std::fs::read_to_string(rig.dir.path().join("end.json")).unwrap()
}

#[test]
fn without_landlock_every_protection_is_held_by_something_else_and_none_is_claimed() {
    let test = "without_landlock_every_protection_is_held_by_something_else_and_none_is_claimed";
    let rig = Rig::new();
    let Some(strange) = strange_kernel(&rig, test) else { return };
    let secret = rig.dir.path().join("secret");
    std::fs::write(&secret, "outside").unwrap();
    let script =
        format!("cat {} && echo LEAK; touch /usr/x /etc/x && echo LEAK; touch made && echo fine", secret.display());
    let file = rig.agent("bare", &format!("ring: 2\n{}command: [sh, -c, '{script}']\n", effort()));
    let end = rig.dir.path().join("end.json");
    let mut starter = Command::new(&strange);
    starter.arg("no-landlock");
    let outcome = started_by(&rig, starter, &["run", file.to_str().unwrap(), "--status-file", end.to_str().unwrap()]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "fine\n"), "{}", outcome.stderr);
    let report = report_of(&rig);
    assert!(!report.contains("Landlock"), "{report}");
    assert!(report.contains("\"mount namespace\""), "{report}");
    if is_root() {
        assert!(outcome.stderr.contains("enforced: full"), "{}", outcome.stderr);
    }
}

#[test]
fn without_landlock_and_mounts_required_is_refused_by_name_and_best_effort_says_what_is_left() {
    let test = "without_landlock_and_mounts_required_is_refused_by_name_and_best_effort_says_what_is_left";
    let rig = Rig::new();
    let Some(strange) = strange_kernel(&rig, test) else { return };
    let run = |file: &std::path::Path| {
        let mut starter = Command::new(&strange);
        starter.arg("no-landlock-no-mounts");
        started_by(&rig, starter, &["run", file.to_str().unwrap()])
    };
    let strict = run(&rig.agent("strict", "ring: 2\ncommand: [touch, started]\n"));
    assert_eq!(strict.code, 69, "{}", strict.stderr);
    for word in ["file-read", "Landlock is absent", "help:"] {
        assert!(strict.stderr.contains(word), "`{word}` is missing in: {}", strict.stderr);
    }
    assert!(!rig.work.join("started").exists(), "it was started");
    let loose = run(&rig.agent("loose", "ring: 2\nenforcement: best-effort\ncommand: [sh, -c, 'echo ran; exit 5']\n"));
    assert_eq!((loose.code, loose.stdout.as_str()), (5, "ran\n"), "{}", loose.stderr);
    assert!(loose.stderr.contains("not enforced: file-read"), "{}", loose.stderr);
}

#[test]
fn a_limit_that_reads_back_otherwise_is_refused_and_nothing_is_started() {
    let test = "a_limit_that_reads_back_otherwise_is_refused_and_nothing_is_started";
    if !needs_root(test) {
        return;
    }
    let rig = Rig::new();
    let Some(strange) = strange_kernel(&rig, test) else { return };
    for enforcement in ["required", "best-effort"] {
        let file = rig.agent("lied", &format!("ring: 2\nenforcement: {enforcement}\ncommand: [touch, started]\n"));
        let mut starter = Command::new(&strange);
        starter.arg("lying-limit");
        // What lies here listens to system calls, and nobody else can: names that come later are nobody's to keep.
        let operator = rig.dir.path().join("operator.yaml");
        let grant = format!("agents:\n  lied:\n    file: {}\n    protect: existing\n", file.display());
        std::fs::write(&operator, format!("version: 1\nkind: operator\n{grant}")).unwrap();
        let (operator, file) = (operator.to_str().unwrap(), file.to_str().unwrap());
        let outcome = started_by(&rig, starter, &["run", "--operator", operator, file]);
        assert_eq!(outcome.code, 69, "{}", outcome.stderr);
        for word in ["did not stick", "pids.max", "`max`", "`256`", "help:"] {
            assert!(outcome.stderr.contains(word), "`{word}` is missing in: {}", outcome.stderr);
        }
        assert!(!rig.work.join("started").exists(), "it was started");
    }
    assert_eq!(rig.sh(2, "exit 6").code, 6, "with honest files it runs");
}

const NO_CGROUPS: &str =
    "for m in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do mount -o remount,bind,ro $m || fail $m; done\n";

#[test]
fn without_a_writable_cgroup_required_names_it_and_best_effort_still_leaves_nothing() {
    if !needs_root("without_a_writable_cgroup_required_names_it_and_best_effort_still_leaves_nothing") {
        return;
    }
    let rig = Rig::new();
    rig.agent("strict", "ring: 2\ncommand: [touch, started]\n");
    let outcome = in_own_mounts(&rig, &format!("{NO_CGROUPS}exec $agt run strict.yaml"));
    assert_eq!(outcome.code, 69, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains("cgroup controllers memory, cpu, pids") && outcome.stderr.contains("help:"));
    assert_eq!(outcome.stderr.matches("can't be written").count(), 1, "said once: {}", outcome.stderr);
    assert!(!rig.work.join("started").exists(), "it was started");
    let marker = unique("nocgroup");
    rig.agent(
        "loose",
        &format!(
            "ring: 2\nenforcement: best-effort\ncommand: [sh, -c, 'setsid sleep 1000 & sleep 1000; : {marker}']\n"
        ),
    );
    let script = format!(
        "{NO_CGROUPS}$agt run loose.yaml & run=$!\nuntil_running\n\
         $agt kill loose --reason test --yes || fail kill; wait $run; [ $? = 76 ] || fail 'no 76'"
    );
    let outcome = in_own_mounts(&rig, &script);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains("not enforced: memory-limit, cpu-limit, task-limit"), "{}", outcome.stderr);
    assert_eq!(processes_with(&marker), Vec::<i32>::new());
}

#[test]
fn a_command_without_a_file_can_go_without_control_groups_by_the_flag_that_its_refusal_names() {
    let rig = Rig::new();
    // Ordinary users have none where these tests run; root has them taken away.
    let with = |arguments: &str| match is_root() {
        true => in_own_mounts(&rig, &format!("{NO_CGROUPS}exec $agt run {arguments}")),
        false => rig.output([&["run"], &arguments.split(' ').collect::<Vec<_>>()[..]].concat()),
    };
    let refused = with("--ring 3 -- echo started");
    assert_eq!((refused.code, refused.stdout.as_str()), (69, ""), "{}", refused.stderr);
    let named = "`run --ring 3 --enforcement best-effort -- ...`";
    assert!(refused.stderr.contains(named), "the help names the flag: {}", refused.stderr);
    let loose = with("--ring 3 --enforcement best-effort -- echo started");
    assert_eq!((loose.code, loose.stdout.as_str()), (0, "started\n"), "{}", loose.stderr);
    assert!(loose.stderr.contains("not enforced: "), "{}", loose.stderr);
    // A file says it itself, and its refusal names its key.
    rig.agent("strict", "ring: 3\ncommand: [echo, started]\n");
    let refused = with("strict.yaml");
    assert!(
        refused.code == 69 && refused.stderr.contains("`enforcement: best-effort` in its file"),
        "{}",
        refused.stderr
    );
    assert_eq!(with("--enforcement best-effort strict.yaml").code, 64, "a file is not opened from beside it");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_73_and_nothing_is_started() {
    if !needs_root("a_disk_that_is_full_at_the_start_is_73_and_nothing_is_started") {
        return;
    }
    let rig = Rig::new();
    rig.agent("traced", "ring: 2\ncommand: [touch, started]\n");
    for room in ["size=8k", "size=64k"] {
        let script = format!(
            "mkdir -p $state; mount -t tmpfs -o {room},mode=700 t $state || fail mount\nexec $agt run traced.yaml"
        );
        let outcome = in_own_mounts(&rig, &script);
        assert_eq!(outcome.code, 73, "{room}: {}{}", outcome.stdout, outcome.stderr);
        assert!(outcome.stderr.contains("space"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("help:"), "{}", outcome.stderr);
        assert!(!rig.work.join("started").exists(), "it was started");
    }
}

#[test]
fn with_the_disk_full_in_the_middle_starts_are_refused_and_kills_work_and_last() {
    if !needs_root("with_the_disk_full_in_the_middle_starts_are_refused_and_kills_work_and_last") {
        return;
    }
    let rig = Rig::new();
    rig.agent("first", "ring: 2\ncommand: [sleep, '1000']\n");
    rig.agent("late", "ring: 2\ncommand: [touch, started]\n");
    // The log has some room ahead, in which starts are still recorded; then comes the end.
    let script = "mkdir -p $state; mount -t tmpfs -o size=16m,mode=700 t $state || fail mount\n\
        $agt run first.yaml & run=$!\nuntil_running\n\
        dd if=/dev/zero of=$state/fill bs=64k 2>/dev/null; dd if=/dev/zero of=$state/fill2 bs=1 2>/dev/null\n\
        late=0; n=0; while [ $late = 0 ]; do n=$((n+1)); [ $n -lt 1000 ] || fail 'the disk is never full'\n\
        rm -f started; $agt run late.yaml 2>late.err; late=$?; done\n\
        cat late.err >&2; [ $late = 73 ] || fail \"late: $late\"\n\
        [ ! -e started ] || fail 'late was started'\n\
        $agt ps --json | grep -q '\"state\": \"running\"' || fail 'the first one was harmed'\n\
        $agt kill first --reason test --yes || fail kill\n\
        wait $run; ended=$?; [ $ended = 76 ] || fail \"ended: $ended\"\n\
        rm $state/fill $state/fill2\n\
        $agt audit verify || fail verify\n\
        $agt audit show --json | grep -q '\"kill\"' || fail 'the kill is not in the log'\n\
        $agt run first.yaml; again=$?; [ $again = 76 ] || fail \"again: $again\"";
    let outcome = in_own_mounts(&rig, script);
    assert_eq!(outcome.code, 0, "{}{}", outcome.stdout, outcome.stderr);
    for word in ["late was not started", "no space left", "help: free space", "verified empty", "revive first"] {
        assert!(outcome.stderr.contains(word), "`{word}` is missing in: {}", outcome.stderr);
    }
}

#[test]
fn a_read_only_state_directory_is_73_and_nothing_is_started() {
    let rig = Rig::new();
    assert_eq!(rig.sh(2, "exit 0").code, 0);
    let file = rig.agent("traced", &format!("ring: 2\n{}command: [touch, started]\n", effort()));
    let outcome = if is_root() {
        let script =
            "mount --bind $state $state && mount -o remount,bind,ro $state || fail mount\nexec $agt run traced.yaml";
        in_own_mounts(&rig, script)
    } else {
        use std::os::unix::fs::PermissionsExt;
        let mode = |mode| std::fs::set_permissions(&rig.state, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o500);
        let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
        mode(0o700);
        outcome
    };
    assert_eq!(outcome.code, 73, "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains(rig.state.to_str().unwrap()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("help:"), "{}", outcome.stderr);
    assert!(!rig.work.join("started").exists(), "it was started");
    assert_eq!(rig.sh(2, "exit 4").code, 4, "afterwards it works as before");
}

/// The most memory that a process has held, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const GIB: u64 = 1 << 30;
/// Far below what was written, far above what the program needs.
const PEAK_KIB_MAX: u64 = 192 * 1024;

#[test]
fn a_gigabyte_comes_through_raw_whole_and_costs_no_memory() {
    let rig = Rig::new();
    let script = "head -c 1073741824 /dev/zero; echo; read x";
    let file = rig.agent("loud", &format!("ring: 2\n{}stdio: raw\ncommand: [sh, -c, '{script}']\n", effort()));
    let mut child = rig
        .command(["run".as_ref(), file.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let supervisor = Supervisor { child: Some(child) };
    let (mut buffer, zeroes) = (vec![0u8; 1 << 20], vec![0u8; 1 << 20]);
    let mut got = 0u64;
    while got < GIB {
        let most = usize::try_from((GIB - got).min(1 << 20)).unwrap();
        let read = stdout.read(&mut buffer[..most]).unwrap();
        assert!(read > 0, "it ended after {got} bytes");
        // As a whole: a gigabyte byte by byte takes a debug build longer than all the rest.
        assert!(buffer[..read] == zeroes[..read], "a byte was changed");
        got += read as u64;
    }
    let mut rest = [0u8; 1];
    stdout.read_exact(&mut rest).unwrap();
    assert_eq!(rest, *b"\n");
    let peak = peak_kib(supervisor.child.as_ref().unwrap().id());
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
    stdin.write_all(b"x\n").unwrap();
    drop(stdin);
    supervisor.wait();
}

#[test]
fn half_a_gigabyte_of_lines_and_one_endless_line_fill_neither_memory_nor_disk() {
    let rig = Rig::new();
    // No line end at all first: that one is cut, not collected.
    let script = "head -c 20000000 /dev/zero; yes $(head -c 3000 /dev/zero | tr '\\0' x) | head -c 536870912; echo; echo the last line; sleep 1000";
    let file = rig.agent(
        "loud",
        &format!(
            "ring: 2\n{}stdio: prefixed\nlog: {{max_size: 1MiB, keep: 1}}\ncommand: [sh, -c, {}]\n",
            effort(),
            quoted(script)
        ),
    );
    let mut child =
        rig.command(["run".as_ref(), file.as_os_str()]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let supervisor = Supervisor { child: Some(child) };
    let mut line = Vec::new();
    loop {
        line.clear();
        assert!(stdout.read_until(b'\n', &mut line).unwrap() > 0, "it ended before its last line");
        if line.ends_with(b"the last line\n") {
            break;
        }
    }
    let peak = peak_kib(supervisor.child.as_ref().unwrap().id());
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
    let logs = std::fs::read_dir(rig.state.join("logs")).unwrap();
    let logged: u64 = logs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert!((1..=2 << 20).contains(&logged), "{logged} bytes of log");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}

#[test]
fn a_boot_clock_that_starts_anew_loses_and_ends_nothing() {
    if !needs_root("a_boot_clock_that_starts_anew_loses_and_ends_nothing") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("clock", "ring: 2\ntimeouts: {run: 1h}\ncommand: [sh, -c, 'sleep 0.5; exit 3']\n");
    // Up for 11 days longer, then as it is: as after a reboot.
    let mut later = Command::new("unshare");
    later.args(["--time", "--fork", "--monotonic", "1000000", "--boottime", "1000000"]);
    let outcome = started_by(&rig, later, &["run", file.to_str().unwrap()]);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let trust = rig.output(["trust", "show", "--json"]);
    assert_eq!(trust.code, 0, "{}", trust.stderr);
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("clock  R2"), "its trust is kept: {}", outcome.stderr);
    assert_eq!(rig.output(["audit", "verify"]).code, 0);
}
