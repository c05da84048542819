//! Launches of real agents: every way to make one gives the same confinement, and nothing is used twice or out of date.
//!
//! Without the test harness, because the launcher is this same executable and becomes it at the start of `main`. What is prepared
//! ahead needs root; without namespaces it says that it can't.

#![allow(clippy::unwrap_used)]

mod inside;
mod leaks;
mod look;
mod paths;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agt_rings::cgroup::Join;
use agt_rings::host::Controllers;
use agt_rings::launch::{Ahead, Exit, LaunchError, Launcher, Streams, become_launcher_if_asked};
use agt_rings::plan::Plan;
use agt_rings::ring::Ring;
use agt_rings::spec::{Access, Enforcement, FileRule, Spec};

const WITHIN: Duration = Duration::from_secs(20);

fn main() {
    become_launcher_if_asked();
    look::look_if_asked();
    // As `cargo test` asks a harness.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let launcher = launcher(Ahead::Nothing);
    if !launcher.host().namespaces.is_yes() {
        println!("SKIPPED launch tests: they need namespaces: {:?}", launcher.host());
        assert!(std::env::var_os("AGT_FORBID_SKIPS").is_none(), "a skip is forbidden here");
        return;
    }
    let is_root = launcher.host().privilege == agt_rings::host::Privilege::Root;
    drop(launcher);
    if is_root {
        run_tests(&AS_ROOT);
        run_tests(&leaks::AS_ROOT);
    } else {
        println!("SKIPPED tests of what is prepared ahead: they need root");
    }
    run_tests(&leaks::TESTS);
    run_tests(&inside::TESTS);
    run_tests(&paths::TESTS);
}

type Test = (&'static str, fn());

fn run_tests(tests: &[Test]) {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
}

const AS_ROOT: [Test; 13] = [
    ("every_way_to_launch_gives_the_same_confinement", every_way_to_launch_gives_the_same_confinement),
    ("no_namespace_and_no_private_file_serves_twice", no_namespace_and_no_private_file_serves_twice),
    (
        "namespaces_that_were_laid_by_serve_the_next_launch_and_no_other",
        namespaces_that_were_laid_by_serve_the_next_launch_and_no_other,
    ),
    ("a_prepared_init_is_used_when_nothing_has_changed", a_prepared_init_is_used_when_nothing_has_changed),
    ("a_protected_name_that_was_replaced_is_protected_again", a_protected_name_that_was_replaced_is_protected_again),
    (
        "a_scratch_takes_the_changes_of_a_workdir_and_the_workdir_stays",
        a_scratch_takes_the_changes_of_a_workdir_and_the_workdir_stays,
    ),
    ("a_protected_name_that_came_to_be_is_protected", a_protected_name_that_came_to_be_is_protected),
    ("a_tree_that_was_replaced_is_shown_as_it_is_now", a_tree_that_was_replaced_is_shown_as_it_is_now),
    (
        "a_read_only_tree_that_was_replaced_is_shown_as_it_is_now",
        a_read_only_tree_that_was_replaced_is_shown_as_it_is_now,
    ),
    ("a_mount_on_the_host_ends_what_was_prepared", a_mount_on_the_host_ends_what_was_prepared),
    ("another_plan_of_the_agent_ends_what_was_prepared", another_plan_of_the_agent_ends_what_was_prepared),
    ("waiting_inits_die_with_the_launcher_and_with_its_owner", waiting_inits_die_with_the_launcher_and_with_its_owner),
    ("a_failed_step_is_named_with_its_errno_in_every_way", a_failed_step_is_named_with_its_errno_in_every_way),
];

fn launcher(ahead: Ahead) -> Launcher {
    let launcher = Launcher::start(Controllers::none("not looked at")).expect("the launcher starts");
    launcher.prepare(ahead);
    launcher
}

fn spec(ring: Ring, workdir: &Path, program: &str, argv: &[&str]) -> Spec {
    Spec {
        // No control groups here: they are not what is tested.
        enforcement: Enforcement::BestEffort,
        argv: argv.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        files: vec![FileRule { path: workdir.to_owned(), access: Access::Write }],
        own_id: agt_rings::builtin::OWN_ID_BASE + 11,
        ..Spec::new("launched", ring, program, workdir)
    }
}

fn shell(workdir: &Path, script: &str) -> Spec {
    spec(Ring::R2, workdir, "/usr/bin/dash", &["sh", "-c", script])
}

fn compile(launcher: &Launcher, spec: &Spec) -> Plan {
    launcher.compile(spec).expect("the launcher answers").expect("best effort refuses nothing")
}

/// Launches, waits for the end, and returns what was printed.
fn try_run(launcher: &Launcher, plan: &Plan) -> Result<String, LaunchError> {
    let mut out = tempfile::tempfile().unwrap();
    let null = || -> OwnedFd { File::options().read(true).write(true).open("/dev/null").unwrap().into() };
    let copy = || -> OwnedFd { out.try_clone().unwrap().into() };
    let streams = Streams { stdin: null(), stdout: copy(), stderr: copy() };
    let running = launcher.launch(plan, &streams, &Join::default())?;
    let exit = running.read_exit().unwrap();
    assert!(matches!(exit, Exit::Ended(_)), "{exit:?}");
    assert!(running.wait_gone(WITHIN).unwrap());
    let mut text = String::new();
    out.rewind().unwrap();
    out.read_to_string(&mut text).unwrap();
    Ok(text)
}

fn run(launcher: &Launcher, plan: &Plan) -> String {
    try_run(launcher, plan).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)))
}

/// Launches until an init waits for the plan's next launch.
fn ready(plan_of: impl Fn(&Launcher) -> Plan) -> (Launcher, Plan) {
    let launcher = launcher(Ahead::Inits(1));
    let plan = plan_of(&launcher);
    for _ in 0..2 {
        run(&launcher, &plan);
    }
    ready_in(&launcher);
    (launcher, plan)
}

/// Waits until an init waits for a launch.
fn ready_in(launcher: &Launcher) {
    wait_until("no init was prepared", || launcher.ready() > 0);
}

fn wait_until(complaint: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !is_so() {
        assert!(Instant::now() < deadline, "{complaint}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn children(pid: u32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn wait_until_gone(pids: &[i32]) {
    let deadline = Instant::now() + WITHIN;
    while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        assert!(Instant::now() < deadline, "still there: {pids:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Everything about an agent that its launch decides, as it sees it itself.
const LOOK: &str = "
    grep -E '^(Name|Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|NSpid|CoreDumping|SigBlk|SigIgn|SigCgt)' /proc/self/status
    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/loginuid 2>&1
    cut -d' ' -f4- /proc/self/mountinfo | sed 's/:[0-9]*//' | sort
    for d in / /dev /etc /run /tmp /home /home/agent /dev/pts /dev/shm /var; do stat -c '%A %u %g %N' $d $d/* $d/.[a-z]*; done 2>&1
    cat /proc/net/dev /proc/sys/kernel/hostname /etc/passwd /etc/group /etc/hosts
    ls -l /proc/self/fd | sed 's/.* \\([0-9]* ->\\)/\\1/;s/\\[[0-9]*\\]//'
    cat /proc/1/comm; names=$(cat /proc/[0-9]*/comm); echo \"$names\" | grep -v '^agt-attendant$' | sort -u; pwd; env | sort
    for f in /x /etc/x /dev/x /usr/x /.private/x /proc/x; do (echo x > $f) 2>&1; done
    ls /.private 2>&1; cat /proc/cmdline; readlink /proc/1/root 2>&1; head -c 3 /dev/zero | wc -c
";

/// Addresses, ids and times that differ from launch to launch; and paths of the output, a file of the test.
fn without_accidents(text: &str) -> String {
    text.lines()
        .map(|line| if line.contains("-> /tmp/") { "a file" } else { line })
        // An attendant that was forked ahead has a smaller number than the agent's processes, any other comes when it comes.
        .map(|line| if line.starts_with("NSpid:") { "NSpid" } else { line })
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

fn every_way_to_launch_gives_the_same_confinement() {
    for ring in [Ring::R1, Ring::R2] {
        let work = tempfile::tempdir().unwrap();
        fs::create_dir_all(work.path().join(".git/hooks")).unwrap();
        let mut spec = Spec { ring, ..shell(work.path(), LOOK) };
        spec.protect = vec![work.path().join(".git/hooks"), work.path().join(".envrc")];
        spec.hide = vec![work.path().join("secret")];
        fs::create_dir(work.path().join("secret")).unwrap();
        let (plain, layers) = (launcher(Ahead::Nothing), launcher(Ahead::Layers));
        let nothing = without_accidents(&run(&plain, &compile(&plain, &spec)));
        let plan = compile(&layers, &spec);
        let first = without_accidents(&run(&layers, &plan));
        let kept = without_accidents(&run(&layers, &plan));
        let (prepared, plan) = ready(|launcher| compile(launcher, &spec));
        let waited = without_accidents(&run(&prepared, &plan));
        assert!(nothing.contains("NoNewPrivs:\t1") && nothing.contains("Seccomp:\t2") && nothing.contains("agt-root"));
        assert!(nothing.contains("CapBnd:\t0000000000000000"), "{nothing}");
        for (way, other) in [("the first", &first), ("the kept layer", &kept), ("a prepared init", &waited)] {
            for (ours, theirs) in nothing.lines().zip(other.lines()) {
                assert_eq!(ours, theirs, "{ring}: {way} differs");
            }
            assert_eq!(nothing.lines().count(), other.lines().count(), "{ring}: {way}");
        }
    }
}

fn no_namespace_and_no_private_file_serves_twice() {
    let work = tempfile::tempdir().unwrap();
    let script = "for n in mnt net pid ipc uts; do readlink /proc/self/ns/$n; done
        for d in /tmp /home/agent /dev/shm; do cat $d/left 2>/dev/null; echo mine > $d/left; done";
    let (launcher, plan) = ready(|launcher| compile(launcher, &shell(work.path(), script)));
    let mut seen = std::collections::BTreeSet::new();
    // One that is prepared, one that is not, and so on.
    for _ in 0..4 {
        let text = run(&launcher, &plan);
        assert_eq!(text.lines().count(), 5, "a file was left: {text}");
        // The kernel may give a freed namespace's number again, but not while another still has it.
        seen.insert(text);
    }
    assert!(seen.len() > 1, "one set of namespaces served every launch");
}

/// The network namespaces that a launcher has open: their names, and a hold on them, so that no number is given anew.
fn networks_of(launcher: &Launcher) -> BTreeMap<PathBuf, File> {
    let open = fs::read_dir(format!("/proc/{}/fd", launcher.pid())).unwrap();
    let held = open.filter_map(|entry| {
        let path = entry.ok()?.path();
        let link = fs::read_link(&path).ok().filter(|link| link.to_string_lossy().starts_with("net:"))?;
        Some((link, File::open(&path).ok()?))
    });
    held.collect()
}

fn namespaces_that_were_laid_by_serve_the_next_launch_and_no_other() {
    let work = tempfile::tempdir().unwrap();
    let launcher = launcher(Ahead::Layers);
    let plan = compile(&launcher, &shell(work.path(), "readlink /proc/self/ns/net; cat /proc/net/dev | wc -l"));
    let mut known = networks_of(&launcher);
    run(&launcher, &plan);
    for _ in 0..3 {
        let mut spare = BTreeMap::new();
        wait_until("nothing new was laid by", || {
            spare = networks_of(&launcher);
            spare.retain(|name, _| !known.contains_key(name));
            !spare.is_empty()
        });
        let text = run(&launcher, &plan);
        let (network, lines) = text.trim().split_once('\n').unwrap();
        assert!(spare.contains_key(Path::new(network)), "{network} is not of {spare:?}");
        assert_eq!(lines, "3", "its loopback alone, under two lines of heading");
        known.append(&mut spare);
    }
}

fn a_prepared_init_is_used_when_nothing_has_changed() {
    let work = tempfile::tempdir().unwrap();
    let (launcher, plan) = ready(|launcher| compile(launcher, &shell(work.path(), "readlink /proc/self/ns/mnt")));
    let waiting = children(launcher.pid());
    assert_eq!(waiting.len(), 1);
    let its = fs::read_link(format!("/proc/{}/ns/mnt", waiting[0])).unwrap();
    assert_eq!(run(&launcher, &plan).trim(), its.to_str().unwrap());
}

const TRY_TO_WRITE: &str = "if (echo x >> conf) 2>/dev/null; then echo written; else echo refused; fi";

fn a_scratch_takes_the_changes_of_a_workdir_and_the_workdir_stays() {
    let (work, changes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let script = "echo changed > a; rm b; mkdir -p new/deep; echo x > new/deep/c; mv d e; \
        (echo x >> conf) 2>/dev/null || echo refused; cat a e/inside; ls; ls /.private /proc/1/root 2>/dev/null";
    fs::create_dir(work.path().join("d")).unwrap();
    for name in ["a", "b", "conf", "d/inside"] {
        fs::write(work.path().join(name), format!("{name} of the host\n")).unwrap();
    }
    let spec = Spec {
        scratch: Some(changes.path().to_owned()),
        protect: vec![work.path().join("conf")],
        ..shell(work.path(), script)
    };
    let launcher = launcher(Ahead::Nothing);
    let plan = compile(&launcher, &spec);
    let seen = "refused\nchanged\nd/inside of the host\na\nconf\ne\nnew\n";
    assert_eq!(run(&launcher, &plan), seen);
    let mut left: Vec<_> = fs::read_dir(work.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["a", "b", "conf", "d"]);
    assert_eq!(fs::read_to_string(work.path().join("a")).unwrap(), "a of the host\n");
    assert_eq!(fs::read_to_string(changes.path().join("upper/new/deep/c")).unwrap(), "x\n");
    // Another launch goes on from there.
    assert!(run(&launcher, &plan).ends_with(seen));
}

fn a_protected_name_that_was_replaced_is_protected_again() {
    let work = tempfile::tempdir().unwrap();
    let conf = work.path().join("conf");
    let write = |name: &Path| {
        fs::write(name, "the host's").unwrap();
        fs::set_permissions(name, fs::Permissions::from_mode(0o666)).unwrap();
    };
    write(&conf);
    let spec = Spec { protect: vec![conf.clone()], ..shell(work.path(), TRY_TO_WRITE) };
    let (launcher, plan) = ready(|launcher| compile(launcher, &spec));
    // As git writes its configuration: the mask that the waiting init holds goes with the old name.
    write(&work.path().join("conf.lock"));
    fs::rename(work.path().join("conf.lock"), &conf).unwrap();
    assert_eq!(run(&launcher, &plan).trim(), "refused");
    assert_eq!(fs::read_to_string(&conf).unwrap(), "the host's");
}

fn a_protected_name_that_came_to_be_is_protected() {
    let work = tempfile::tempdir().unwrap();
    let conf = work.path().join("conf");
    let spec = Spec { protect: vec![conf.clone()], ..shell(work.path(), TRY_TO_WRITE) };
    let (launcher, plan) = {
        // The script itself makes the name where it is not protected.
        let quiet = Spec {
            argv: ["sh", "-c", "test -e conf && { echo x >> conf; }; cat conf"].map(OsString::from).into(),
            ..spec
        };
        ready(|launcher| compile(launcher, &quiet))
    };
    fs::write(&conf, "the host's").unwrap();
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o666)).unwrap();
    run(&launcher, &plan);
    assert_eq!(fs::read_to_string(&conf).unwrap(), "the host's");
}

fn a_tree_that_was_replaced_is_shown_as_it_is_now() {
    let around = tempfile::tempdir().unwrap();
    let work = around.path().join("work");
    let make = |content: &str| {
        fs::create_dir(&work).unwrap();
        fs::write(work.join("which"), content).unwrap();
    };
    make("old\n");
    let (launcher, plan) = ready(|launcher| compile(launcher, &shell(&work, "cat which")));
    fs::rename(&work, around.path().join("away")).unwrap();
    make("new\n");
    assert_eq!(run(&launcher, &plan), "new\n");
}

fn a_read_only_tree_that_was_replaced_is_shown_as_it_is_now() {
    // Not below /tmp, which is each agent's own: so the tree is in the kept layer.
    let (work, around) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    fs::set_permissions(around.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tree = around.path().join("data");
    let make = |content: &str| {
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("which"), content).unwrap();
    };
    make("old\n");
    let mut spec = shell(work.path(), &format!("cat {}/which", tree.display()));
    spec.files.push(FileRule { path: tree.clone(), access: Access::Read });
    let layers = launcher(Ahead::Layers);
    let kept = compile(&layers, &spec);
    for _ in 0..2 {
        assert_eq!(run(&layers, &kept), "old\n");
    }
    let (prepared, plan) = ready(|launcher| compile(launcher, &spec));
    fs::rename(&tree, around.path().join("away")).unwrap();
    make("new\n");
    assert_eq!(run(&layers, &kept), "new\n");
    assert_eq!(run(&prepared, &plan), "new\n");
    // A link in its place is refused, as it is by a launch that has nothing to start from.
    fs::rename(&tree, around.path().join("away2")).unwrap();
    symlink(around.path().join("away2"), &tree).unwrap();
    assert!(try_run(&layers, &kept).is_err());
}

fn a_mount_on_the_host_ends_what_was_prepared() {
    let (work, at) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (launcher, plan) = ready(|launcher| compile(launcher, &shell(work.path(), "echo well")));
    let waiting = children(launcher.pid());
    let flags = nix::mount::MsFlags::MS_NODEV;
    nix::mount::mount(Some("test"), at.path(), Some("tmpfs"), flags, Some("size=4k")).unwrap();
    nix::mount::umount(at.path()).unwrap();
    wait_until_gone(&waiting);
    assert_eq!(run(&launcher, &plan), "well\n");
}

fn another_plan_of_the_agent_ends_what_was_prepared() {
    let work = tempfile::tempdir().unwrap();
    let (launcher, _) = ready(|launcher| compile(launcher, &shell(work.path(), "echo old")));
    let waiting = children(launcher.pid());
    let other = compile(&launcher, &shell(work.path(), "echo new"));
    assert_eq!(run(&launcher, &other), "new\n");
    wait_until_gone(&waiting);
}

fn waiting_inits_die_with_the_launcher_and_with_its_owner() {
    let work = tempfile::tempdir().unwrap();
    let plan_of = |launcher: &Launcher| compile(launcher, &shell(work.path(), "true"));
    let (killed, plan) = ready(plan_of);
    let waiting = children(killed.pid());
    assert_eq!(waiting.len(), 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(killed.pid().cast_signed()), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    wait_until_gone(&waiting);
    assert!(try_run(&killed, &plan).is_err(), "nothing is started without a launcher");
    let (dropped, _) = ready(plan_of);
    let waiting = children(dropped.pid());
    drop(dropped);
    wait_until_gone(&waiting);
    let (emptied, _) = ready(plan_of);
    let waiting = children(emptied.pid());
    emptied.prepare(Ahead::Nothing);
    wait_until_gone(&waiting);
}

fn a_failed_step_is_named_with_its_errno_in_every_way() {
    let work = tempfile::tempdir().unwrap();
    let program = work.path().join("tool");
    fs::copy("/usr/bin/true", &program).unwrap();
    let spec = spec(Ring::R2, work.path(), program.to_str().unwrap(), &["tool"]);
    let (prepared, plan) = ready(|launcher| compile(launcher, &spec));
    let others = [launcher(Ahead::Nothing), launcher(Ahead::Layers)];
    fs::remove_file(&program).unwrap();
    for launcher in others.iter().chain([&prepared]) {
        match try_run(launcher, &plan) {
            Err(LaunchError::Step { step, source }) => {
                assert_eq!(step, format!("execute the program {}", program.display()));
                assert_eq!(source.raw_os_error(), Some(libc::ENOENT));
            }
            other => panic!("{other:?}"),
        }
    }
}
