//! What must not leak between launches, or out of an agent's own directories by a second name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use agt_rings::launch::{Ahead, Launcher};
use agt_rings::plan::Plan;
use agt_rings::ring::Ring;
use agt_rings::spec::{Access, FileRule, Spec};

use super::look::kind_of_link;
use super::{WITHIN, children, compile, launcher, run, shell, try_run};

/// As root and as an ordinary user, who is the same user inside.
pub(crate) const TESTS: [super::Test; 1] = [(
    "private_directories_are_reached_by_their_own_names_alone",
    private_directories_are_reached_by_their_own_names_alone,
)];

/// What is prepared ahead takes root.
pub(crate) const AS_ROOT: [super::Test; 3] = [
    ("waiting_inits_hold_nothing_of_each_other", waiting_inits_hold_nothing_of_each_other),
    ("a_waiting_init_that_is_killed_holds_up_no_launch", a_waiting_init_that_is_killed_holds_up_no_launch),
    ("a_layer_that_is_untrue_by_now_is_made_anew_once", a_layer_that_is_untrue_by_now_is_made_anew_once),
];

/// Their file system is mounted in one place, from which each is shown with its own attributes: through that place what is
/// noexec could be run.
fn private_directories_are_reached_by_their_own_names_alone() {
    let work = tempfile::tempdir().unwrap();
    let script = "cp /usr/bin/true /dev/shm/tool && chmod 755 /dev/shm/tool
        /dev/shm/tool 2>/dev/null && echo ran
        ls /.private 2>/dev/null && echo listed
        chmod 700 /.private 2>/dev/null && echo opened
        for d in 0 1 2 3 4 5 6 7 8 9; do /.private/$d/tool 2>/dev/null && echo ran around; done; echo end";
    for ring in [Ring::R1, Ring::R2] {
        let launcher = launcher(Ahead::Nothing);
        let plan = compile(&launcher, &Spec { ring, ..shell(work.path(), script) });
        assert_eq!(run(&launcher, &plan), "end\n", "{ring}");
    }
}

/// Plans of different agents, each launched often enough that an init waits for it. All at once, so that what is asked for
/// waits together.
fn all_ready(work: &std::path::Path, count: usize) -> (Launcher, Vec<Plan>) {
    let launcher = launcher(Ahead::Inits(count));
    let plans: Vec<Plan> = (0..count)
        .map(|number| compile(&launcher, &Spec { name: format!("launched-{number}"), ..shell(work, "echo well") }))
        .collect();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            plans.iter().for_each(|plan| drop(scope.spawn(|| run(&launcher, plan))));
        });
    }
    let deadline = Instant::now() + WITHIN;
    while launcher.ready() < count {
        assert!(Instant::now() < deadline, "only {} inits were prepared", launcher.ready());
        std::thread::sleep(Duration::from_millis(2));
    }
    (launcher, plans)
}

fn waiting_inits_hold_nothing_of_each_other() {
    let work = tempfile::tempdir().unwrap();
    let (launcher, _) = all_ready(work.path(), 4);
    let waiting = children(launcher.pid());
    assert_eq!(waiting.len(), 4);
    for pid in waiting {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().path());
        let mut kinds: Vec<String> = fds.map(|fd| kind_of_link(fd.to_str().unwrap())).collect();
        kinds.sort();
        // Its channel and its way to the launcher; the way to its attendant, and the supervisor's end of what that tells.
        let sockets = kinds.iter().filter(|kind| *kind == "socket").count();
        assert_eq!(sockets, 4, "{kinds:?}");
        assert!(kinds.iter().filter(|kind| *kind == "mnt").count() <= 1, "layers of others: {kinds:?}");
    }
}

fn a_waiting_init_that_is_killed_holds_up_no_launch() {
    let work = tempfile::tempdir().unwrap();
    let (launcher, plans) = all_ready(work.path(), 4);
    for pid in children(launcher.pid()).into_iter().skip(1) {
        // As the OOM killer does.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        super::wait_until_gone(&[pid]);
    }
    for plan in &plans {
        let began = Instant::now();
        assert_eq!(try_run(&launcher, plan).unwrap_or_else(|e| panic!("{e}")), "well\n");
        assert!(began.elapsed() < WITHIN / 2, "it was waited for");
    }
}

fn a_layer_that_is_untrue_by_now_is_made_anew_once() {
    // Not below /tmp, which is each agent's own: what lies there is no part of the layer.
    let (work, around) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    fs::set_permissions(around.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = around.path().join("cache");
    let replace = |content: &str| {
        fs::write(around.path().join("new"), content).unwrap();
        fs::rename(around.path().join("new"), &file).unwrap();
    };
    replace("old\n");
    // A layer is known again by when it was made.
    let mut spec = shell(work.path(), &format!("stat -c %z /; cat {}", file.display()));
    spec.files.push(FileRule { path: file.clone(), access: Access::Read });
    let launcher = launcher(Ahead::Layers);
    let plan = compile(&launcher, &spec);
    let [first, second] = [(); 2].map(|()| run(&launcher, &plan));
    assert_eq!(first, second, "a layer is kept");
    replace("new\n");
    let [third, fourth, fifth] = [(); 3].map(|()| run(&launcher, &plan));
    assert!(third.ends_with("new\n") && third.lines().next() != first.lines().next(), "{first}{third}");
    assert_eq!((&third, &fourth), (&fourth, &fifth), "the new one is kept too");
}
