//! Both ways to make processes (clone3, fork), and each with nothing, a layer or a whole init prepared, give the same
//! confinement: by what an agent of each ring sees itself, and by what the kernel shows of it and its init from outside.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use agt_rings::cgroup::{Base, Group, Join, Layout};
use agt_rings::host::{Controllers, LaunchPath, Privilege};
use agt_rings::launch::{Ahead, By, Exit, LaunchError, Launcher, Streams};
use agt_rings::plan::Plan;
use agt_rings::ring::Ring;
use agt_rings::spec::{Access, Check, FileRule, Limits, Spec};

use super::look::{END, NAME, kind_of_link};
use super::{WITHIN, children, compile, ready_in, spec};

pub(crate) const TESTS: [super::Test; 4] = [
    ("both_paths_give_the_same_confinement_in_every_ring", both_paths_give_the_same_confinement_in_every_ring),
    ("both_paths_confine_the_checker_alike", both_paths_confine_the_checker_alike),
    ("a_failed_step_is_named_alike_by_both_paths", a_failed_step_is_named_alike_by_both_paths),
    (
        "where_clone3_is_refused_agents_are_forked_and_confined_alike",
        where_clone3_is_refused_agents_are_forked_and_confined_alike,
    ),
];

/// A launcher of each kind, and the groups that their agents join where this host has some.
struct Ground {
    base: Option<Base>,
    controllers: Controllers,
}

impl Ground {
    fn open() -> Ground {
        let opened = Layout::detect().and_then(|layout| {
            let base = Base::open(&layout, &format!("launch-{}", std::process::id()), &[])?;
            Ok((Controllers::from_base(&layout, &base), base))
        });
        match opened {
            Ok((controllers, base)) => Ground { base: Some(base), controllers },
            Err(e) => Ground { base: None, controllers: Controllers::none(&e.to_string()) },
        }
    }

    fn launcher(&self, by: By, ahead: Ahead) -> Launcher {
        let launcher = Launcher::start_by(by, self.controllers.clone()).expect("the launcher starts");
        launcher.prepare(ahead);
        launcher
    }

    fn group(&self, plan: &Plan) -> Option<Group> {
        let limits = Limits { memory_bytes: Some(256 << 20), tasks: Some(64), cpu_millis: None };
        self.base.as_ref().map(|base| base.create(&plan.name, &limits).unwrap())
    }

    fn close(self) {
        if let Some(base) = self.base {
            let _ = base.agents().kill(WITHIN).unwrap();
            base.close().unwrap();
        }
    }
}

/// What one launch came to.
#[derive(Debug, PartialEq)]
struct Seen {
    inside: Vec<String>,
    outside: Vec<String>,
}

fn launch_and_look(ground: &Ground, launcher: &Launcher, plan: &Plan) -> Seen {
    let group = ground.group(plan);
    let (input, leash) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let (output, out) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let streams = Streams { stdin: input, stdout: out.try_clone().unwrap(), stderr: out };
    let join = group.as_ref().map_or_else(Join::default, |group| group.join().unwrap());
    let running =
        launcher.launch(plan, &streams, &join).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
    drop((streams, join));
    let mut lines = BufReader::new(fs::File::from(output)).lines().map(Result::unwrap);
    let inside: Vec<String> = lines.by_ref().take_while(|line| line != END).collect();
    assert!(inside.len() > 100, "{inside:#?}");
    let agent = running.pid();
    let init = parent_of(agent);
    // It gives up what is left while its agent is at work already.
    let deadline = Instant::now() + WITHIN;
    while !shown(init).contains(&"NoNewPrivs:\t1".to_owned()) {
        assert!(Instant::now() < deadline, "the init keeps what it had");
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut outside = Vec::new();
    for (whose, pid) in [("agent", agent), ("init", init)] {
        outside.extend(shown(pid).into_iter().map(|line| format!("{whose} {line}")));
    }
    let beside = children(init.unsigned_abs());
    outside.push(format!("children of the init: {}", beside.len()));
    for pid in beside.into_iter().filter(|pid| *pid != agent) {
        outside.extend(shown(pid).into_iter().map(|line| format!("checker {line}")));
    }
    drop(leash);
    let exit = running.read_exit().unwrap();
    assert!(matches!(exit, Exit::Ended(usage) if usage.status == 0), "{exit:?}: {:#?}", lines.collect::<Vec<_>>());
    assert!(running.wait_gone(WITHIN).unwrap());
    if let Some(group) = group {
        let _ = group.kill(WITHIN).unwrap();
        group.remove(WITHIN).unwrap();
    }
    Seen { inside: inside.iter().map(|line| line.replace(&plan.name, "NAME")).collect(), outside }
}

fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// What the kernel shows of a process to whoever may look: everything that a launch decides, without numbers that differ from
/// one to the next.
fn shown(pid: i32) -> Vec<String> {
    let read = |file: &str| {
        let mut bytes = Vec::new();
        let read = fs::File::open(format!("/proc/{pid}/{file}")).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_or_else(|e| e.to_string(), |_| String::from_utf8_lossy(&bytes).replace('\0', " "))
    };
    const VARY: [&str; 10] = ["FDSize", "Pid", "PPid", "Tgid", "Ngid", "NStgid", "NSpid", "NSpgid", "NSsid", "State"];
    const USED: [&str; 4] = ["Vm", "Rss", "Huge", "voluntary"];
    let mut lines: Vec<String> = read("status")
        .lines()
        .filter(|line| {
            let key = line.split(':').next().unwrap_or_default();
            !VARY.contains(&key) && !USED.iter().any(|used| key.contains(used)) && !key.starts_with("Sig")
                || key == "SigIgn"
                || key == "SigBlk"
                || key == "SigCgt"
        })
        .map(str::to_owned)
        .collect();
    for file in [
        "limits",
        "oom_score_adj",
        "personality",
        "cgroup",
        "comm",
        "coredump_filter",
        "loginuid",
        "uid_map",
        "gid_map",
        "setgroups",
    ] {
        // A group's own name stands at the end of each line.
        lines.extend(read(file).lines().map(|line| format!("{file}: {line}")));
    }
    for name in ["mnt", "pid", "pid_for_children", "net", "ipc", "uts", "user", "cgroup", "time"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).map(|to| to.display().to_string());
        let whose = match (of(&pid.to_string()), of("self")) {
            (Ok(its), Ok(ours)) if its == ours => "the host's".to_owned(),
            (Ok(_), Ok(_)) => "of its own".to_owned(),
            (Err(e), _) | (_, Err(e)) => e.to_string(),
        };
        lines.push(format!("{name} namespace: {whose}"));
    }
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut kinds: Vec<String> = fds.map(|fd| kind_of_link(fd.path().to_str().unwrap())).collect();
    kinds.sort();
    lines.push(format!("descriptors: {kinds:?}"));
    lines
}

fn assert_same(what: &str, one: &Seen, other: &Seen) {
    for (ours, theirs) in one.inside.iter().zip(&other.inside).chain(one.outside.iter().zip(&other.outside)) {
        assert_eq!(ours, theirs, "{what}");
    }
    assert_eq!((one.inside.len(), one.outside.len()), (other.inside.len(), other.outside.len()), "{what}");
}

/// An agent that looks, in its ring, with something to protect, to hide and to listen at.
fn looker(ring: Ring, work: &Path, check: Option<Check>) -> Spec {
    let program = std::env::current_exe().unwrap();
    // R0 sees the host: what it tries to move stays in its workdir.
    let other = if ring == Ring::R0 { work.join("sub") } else { "/tmp".into() };
    let argv = [NAME.into(), other.into_os_string(), work.join("sub").into_os_string()];
    let mut spec = Spec { argv: argv.to_vec(), check, ..spec(ring, work, program.to_str().unwrap(), &[]) };
    spec.files.push(FileRule { path: program, access: Access::Read });
    spec.protect = vec![work.join("protected"), work.join("not-there")];
    spec.hide = vec![work.join("secret")];
    spec
}

fn workdir() -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    for folder in ["sub", "protected", "secret"] {
        fs::create_dir(work.path().join(folder)).unwrap();
    }
    work
}

fn both_paths_give_the_same_confinement_in_every_ring() {
    let ground = Ground::open();
    for ring in Ring::ALL {
        let work = workdir();
        let spec = looker(ring, work.path(), None);
        let mut first: Option<Seen> = None;
        for by in [By::WhatWorks, By::Fork] {
            for ahead in [Ahead::Nothing, Ahead::Layers, Ahead::Inits(1)] {
                let launcher = ground.launcher(by, ahead);
                assert_eq!(matches!(launcher.host().launch, LaunchPath::Fork { .. }), by == By::Fork);
                let plan = compile(&launcher, &spec);
                assert_eq!(plan.report.launch, launcher.host().launch);
                // Twice: what is kept comes from the first. One that is prepared is waited for, where there can be one.
                let can_wait = launcher.host().privilege == Privilege::Root && ring != Ring::R0;
                for turn in 0..2 {
                    if turn == 1 && ahead == Ahead::Inits(1) && can_wait {
                        launch_and_look(&ground, &launcher, &plan);
                        ready_in(&launcher);
                    }
                    let seen = launch_and_look(&ground, &launcher, &plan);
                    assert_promised(ring, &seen);
                    match &first {
                        None => first = Some(seen),
                        Some(first) => assert_same(&format!("{ring}, {by:?}, {ahead:?}, launch {turn}"), first, &seen),
                    }
                }
            }
        }
    }
    ground.close();
}

/// That the look sees anything at all: what every agent of a ring must show.
fn assert_promised(ring: Ring, seen: &Seen) {
    let all = || seen.inside.iter().chain(&seen.outside);
    let has = |line: &str| {
        assert!(all().any(|seen| seen.trim_end() == line), "{ring}: no `{line}` in {:#?}", all().collect::<Vec<_>>())
    };
    has("status: NoNewPrivs:\t1");
    has("status: Seccomp:\t2");
    has("status: CapEff:\t0000000000000000");
    has("status: CapBnd:\t0000000000000000");
    has("agent mnt namespace: of its own");
    has("agent pid namespace: of its own");
    // The OOM killer takes what an agent runs before what stands beside it.
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().to_owned();
    has("oom_score_adj: 500");
    has(&format!("init oom_score_adj: {own}"));
    let is_attendant = |seen: &&String| seen.as_str() == "checker comm: agt-attendant";
    if all().any(|seen| is_attendant(&seen)) {
        has(&format!("checker oom_score_adj: {own}"));
    }
    has("parent death signal: 9");
    has(if ring == Ring::R0 { "agent net namespace: the host's" } else { "agent net namespace: of its own" });
    let spawned = all().find(|line| line.starts_with("process: ")).unwrap();
    assert_eq!(spawned == "process: exit status: 0", ring != Ring::R3, "{ring}: {spawned}");
}

fn both_paths_confine_the_checker_alike() {
    let ground = Ground::open();
    for ring in [Ring::R2, Ring::R3] {
        let work = workdir();
        let check = Check { program: std::env::current_exe().unwrap(), argv: vec![OsString::from(NAME)] };
        let spec = looker(ring, work.path(), Some(check));
        let [one, other] = [By::WhatWorks, By::Fork].map(|by| {
            let launcher = ground.launcher(by, Ahead::Nothing);
            launch_and_look(&ground, &launcher, &compile(&launcher, &spec))
        });
        assert!(one.outside.iter().any(|line| line.starts_with("checker NoNewPrivs:\t1")), "{:#?}", one.outside);
        assert_same(&format!("{ring} with a checker"), &one, &other);
    }
    ground.close();
}

fn a_failed_step_is_named_alike_by_both_paths() {
    let work = workdir();
    let program = work.path().join("tool");
    let ground = Ground { base: None, controllers: Controllers::none("not looked at") };
    for ring in [Ring::R2, Ring::R3] {
        fs::copy("/usr/bin/true", &program).unwrap();
        let spec = spec(ring, work.path(), program.to_str().unwrap(), &["tool"]);
        let failures = [By::WhatWorks, By::Fork].map(|by| {
            let launcher = ground.launcher(by, Ahead::Nothing);
            let plan = compile(&launcher, &spec);
            // No program, then one that the kernel executes not: that step comes after the filters.
            ["", "text"].map(|content| {
                if content.is_empty() {
                    fs::remove_file(&program).unwrap();
                } else {
                    fs::write(&program, content).unwrap();
                    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
                }
                let failed = failure(&launcher, &plan);
                assert!(children(launcher.pid()).is_empty() || gone(&launcher), "something is left");
                fs::copy("/usr/bin/true", &program).unwrap();
                failed
            })
        });
        let [missing, text] = &failures[0];
        let step = if ring == Ring::R3 { "open" } else { "execute" };
        assert_eq!(*missing, (format!("{step} the program {}", program.display()), Some(libc::ENOENT)));
        assert_eq!(*text, (format!("execute the program {}", program.display()), Some(libc::ENOEXEC)));
        assert_eq!(failures[0], failures[1], "{ring}");
    }
}

fn failure(launcher: &Launcher, plan: &Plan) -> (String, Option<i32>) {
    let null = || -> OwnedFd { fs::File::options().read(true).write(true).open("/dev/null").unwrap().into() };
    let streams = Streams { stdin: null(), stdout: null(), stderr: null() };
    match launcher.launch(plan, &streams, &Join::default()) {
        Err(LaunchError::Step { step, source }) => (step, source.raw_os_error()),
        other => panic!("{other:?}"),
    }
}

fn gone(launcher: &Launcher) -> bool {
    super::wait_until_gone(&children(launcher.pid()));
    true
}

fn where_clone3_is_refused_agents_are_forked_and_confined_alike() {
    let ground = Ground::open();
    let work = workdir();
    for ring in [Ring::R2, Ring::R3] {
        let spec = looker(ring, work.path(), None);
        let free = ground.launcher(By::Fork, Ahead::Nothing);
        let expected = launch_and_look(&ground, &free, &compile(&free, &spec));
        // The filter is this thread's, and everybody's that comes of it.
        let under_a_filter = || {
            refuse_clone3();
            let launcher = ground.launcher(By::WhatWorks, Ahead::Layers);
            match &launcher.host().launch {
                LaunchPath::Fork { because } => assert!(because.starts_with("clone3(2)"), "{because}"),
                LaunchPath::Clone3 => panic!("clone3 was refused"),
            }
            assert!(launcher.host().namespaces.is_yes(), "{:?}", launcher.host().namespaces);
            launch_and_look(&ground, &launcher, &compile(&launcher, &spec))
        };
        let seen = std::thread::scope(|scope| scope.spawn(under_a_filter).join().unwrap());
        // One filter more; and the init has one, and can gain nothing either.
        let without = |lines: &[String], words: &[&str]| {
            lines.iter().filter(|line| !words.iter().any(|word| line.contains(word))).cloned().collect()
        };
        let comparable = |seen: &Seen| Seen {
            inside: without(&seen.inside, &["Seccomp_filters"]),
            outside: without(&seen.outside, &["Seccomp", "NoNewPrivs"]),
        };
        assert_same(&format!("{ring} where clone3 is refused"), &comparable(&expected), &comparable(&seen));
    }
    ground.close();
}

/// As a container's filter does that does not know the call. ENOSYS: for any other answer libc itself starts no process.
fn refuse_clone3() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(libc::SYS_clone3, Vec::new())].into_iter().collect();
    let refuse = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
