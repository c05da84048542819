//! What an agent meets where its filter asks the attendant, and what the supervisor hears of it: in real launches, as root or as an
//! ordinary user with user namespaces.
//!
//! Without the test harness, because the launcher is this same executable and becomes it at the start of `main`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agt_rings::cgroup::Join;
use agt_rings::host::Controllers;
use agt_rings::launch::{Ahead, End, Exit, Launcher, Running, Streams, become_launcher_if_asked};
use agt_rings::names::Rules;
use agt_rings::notice::{Notice, Notices, Outcome, What};
use agt_rings::plan::Plan;
use agt_rings::ring::Ring;
use agt_rings::seccomp::policy::{Decision, Refusal, Rule};
use agt_rings::seccomp::{Arch, Notify, Options, builtin};
use agt_rings::spec::{Access, Enforcement, FileRule, Spec};

const WITHIN: Duration = Duration::from_secs(20);

fn main() {
    become_launcher_if_asked();
    // As `cargo test` asks a harness.
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let launcher = launcher(Ahead::Nothing);
    if !launcher.host().notify.is_yes() || !Path::new(PERL).exists() {
        println!("SKIPPED attendant tests: they need {PERL} and seccomp notification: {:?}", launcher.host().notify);
        assert!(std::env::var_os("AGT_FORBID_SKIPS").is_none(), "a skip is forbidden here");
        return;
    }
    drop(launcher);
    let tests: [(&str, fn()); 10] = [
        ("refused_calls_have_their_errno_and_are_told", refused_calls_have_their_errno_and_are_told),
        ("a_prepared_init_has_an_attendant_too", a_prepared_init_has_an_attendant_too),
        ("attendants_are_paid_by_their_agents_group", attendants_are_paid_by_their_agents_group),
        ("many_at_once_are_all_answered_and_counted", many_at_once_are_all_answered_and_counted),
        ("an_agent_whose_attendant_is_ended_gets_nothing_by_it", an_agent_whose_attendant_is_ended_gets_nothing_by_it),
        ("names_whose_maker_is_ended_are_made_by_nobody", names_whose_maker_is_ended_are_made_by_nobody),
        ("the_listener_is_nowhere_in_the_agent", the_listener_is_nowhere_in_the_agent),
        ("the_attendant_holds_nothing_but_what_it_needs", the_attendant_holds_nothing_but_what_it_needs),
        ("a_check_of_the_agent_is_answered_and_told_too", a_check_of_the_agent_is_answered_and_told_too),
        ("a_run_to_learn_from_tells_what_it_used", a_run_to_learn_from_tells_what_it_used),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
}

const PERL: &str = "/usr/bin/perl";

fn launcher(ahead: Ahead) -> Launcher {
    let launcher = Launcher::start(Controllers::none("not looked at")).expect("the launcher starts");
    launcher.prepare(ahead);
    launcher
}

/// A folder that the agent's own uid can enter.
fn workdir() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn spec(ring: Ring, workdir: &Path, script: &str) -> Spec {
    Spec {
        // No control groups here: they are not what is tested.
        enforcement: Enforcement::BestEffort,
        argv: ["perl", "-e", script].map(OsString::from).to_vec(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        files: vec![FileRule { path: workdir.to_owned(), access: Access::Write }],
        own_id: agt_rings::builtin::OWN_ID_BASE + 12,
        ..Spec::new("attended", ring, PERL, workdir)
    }
}

fn compile(launcher: &Launcher, spec: &Spec) -> Plan {
    launcher.compile(spec).expect("the launcher answers").expect("best effort refuses nothing")
}

struct Ran {
    text: String,
    notices: Vec<Notice>,
    /// Whether the attendant was there to the end.
    closed: io::ErrorKind,
}

fn launch(launcher: &Launcher, plan: &Plan) -> (Running, File) {
    launch_with(launcher, plan, File::open("/dev/null").unwrap().into())
}

fn launch_with(launcher: &Launcher, plan: &Plan, stdin: OwnedFd) -> (Running, File) {
    let out = tempfile::tempfile().unwrap();
    let copy = || -> OwnedFd { out.try_clone().unwrap().into() };
    let streams = Streams { stdin, stdout: copy(), stderr: copy() };
    let running = launcher.launch(plan, &streams, &Join::default());
    (running.unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e))), out)
}

fn run(launcher: &Launcher, plan: &Plan) -> Ran {
    let (mut running, mut out) = launch(launcher, plan);
    let notices = running.take_notices().expect("somebody listens");
    assert!(running.take_notices().is_none());
    // Read as they come, as a supervisor does.
    let hear = |notices: &Notices, heard: &mut Vec<Notice>| loop {
        match notices.next() {
            Ok(Some(notice)) => heard.push(notice),
            Ok(None) => return None,
            Err(e) => return Some(e.kind()),
        }
    };
    let (mut heard, mut closed) = (Vec::new(), None);
    while !running.wait_gone(Duration::from_millis(1)).unwrap() {
        closed = closed.or_else(|| hear(&notices, &mut heard));
    }
    let exit = running.read_exit().unwrap();
    assert!(matches!(exit, Exit::Ended(_)), "{exit:?}");
    let closed = closed.or_else(|| hear(&notices, &mut heard)).expect("its end is seen");
    Ran { text: text_of(&mut out), notices: heard, closed }
}

fn text_of(out: &mut File) -> String {
    let mut text = String::new();
    out.rewind().unwrap();
    out.read_to_string(&mut text).unwrap();
    text
}

/// Prints the errno of each call, all arguments -1: no descriptor, no address, no flags that exist.
fn calls(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!(
        "$| = 1; for (qw({})) {{ $! = 0; syscall($_, -1, -1, -1, -1, -1, -1); print $!+0, \"\\n\" }}",
        numbers.join(" ")
    )
}

/// The calls that a ring refuses whatever their arguments, and how; but for those that would end the caller where they leak.
fn refused(ring: Ring, options: &Options) -> Vec<(u32, &'static str, i32)> {
    let policy = builtin::policy(ring, &Options { notify: Notify::Off, ..*options });
    let errno = |rule: &Rule| match rule {
        Rule::Always(Decision::Refuse(Refusal::NotPermitted)) => Some(libc_eperm()),
        Rule::Always(Decision::Refuse(Refusal::NoSuchCall)) => Some(libc_enosys()),
        _ => None,
    };
    let named = |number| options.arch.name(number).unwrap();
    policy.rules.iter().filter_map(|(number, rule)| Some((*number, named(*number), errno(rule)?))).collect()
}

fn libc_eperm() -> i32 {
    nix::errno::Errno::EPERM as i32
}

fn libc_enosys() -> i32 {
    nix::errno::Errno::ENOSYS as i32
}

fn refused_calls_have_their_errno_and_are_told() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    for ring in [Ring::R1, Ring::R2, Ring::R3] {
        assert_each_is_told(&launcher, ring, folder.path());
    }
    // R0 has no listener: programs there may want one of their own.
    let (mut running, _) = launch(&launcher, &compile(&launcher, &spec(Ring::R0, folder.path(), "exit 0")));
    assert!(running.take_notices().is_none());
    assert!(running.wait_gone(WITHIN).unwrap());
}

fn assert_each_is_told(launcher: &Launcher, ring: Ring, folder: &Path) {
    let plan = compile(launcher, &spec(ring, folder, "exit 0"));
    let expected = refused(ring, plan.listens().expect("it listens"));
    assert!(expected.len() > 30, "{ring}: {}", expected.len());
    // In portions: there are so many kinds a second and not more.
    let mut told: BTreeMap<String, i32> = BTreeMap::new();
    for portion in expected.chunks(50) {
        let numbers: Vec<u32> = portion.iter().map(|(number, ..)| *number).collect();
        let ran = run(launcher, &compile(launcher, &spec(ring, folder, &calls(&numbers))));
        let errnos: Vec<i32> = ran.text.lines().map(|line| line.parse().unwrap()).collect();
        let wanted: Vec<i32> = portion.iter().map(|(_, _, errno)| *errno).collect();
        assert_eq!(errnos, wanted, "{ring} {portion:?}");
        assert_eq!(ran.closed, io::ErrorKind::UnexpectedEof);
        for notice in ran.notices {
            let What::Refused { call, arch, args, errno, why } = notice.what else { panic!("{notice:?}") };
            assert_eq!((notice.comm.as_str(), notice.count, args), ("perl", 1, [u64::MAX; 6]), "{call}");
            assert!(notice.pid > 1 && !why.is_empty() && Some(arch) == Arch::native().map(|arch| arch.to_string()));
            assert_eq!(told.insert(call, errno), None);
        }
    }
    let eperm = |errno: i32| errno == libc_eperm();
    let wanted = expected.iter().filter(|(_, _, errno)| eperm(*errno)).map(|(_, name, _)| (*name).to_owned());
    assert_eq!(told.keys().cloned().collect::<Vec<_>>(), sorted(wanted.collect()), "{ring}");
    assert!(told.values().all(|errno| eperm(*errno)));
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

fn a_prepared_init_has_an_attendant_too() {
    let (launcher, folder) = (launcher(Ahead::Inits(1)), workdir());
    if launcher.host().privilege != agt_rings::host::Privilege::Root {
        return println!("SKIPPED the prepared init: only root has them");
    }
    let plan = compile(&launcher, &spec(Ring::R2, folder.path(), &calls(&[number("ptrace")])));
    for _ in 0..2 {
        run(&launcher, &plan);
    }
    until_prepared(&launcher, Instant::now() + WITHIN);
    let ran = run(&launcher, &plan);
    assert_eq!((ran.text.as_str(), names(&ran).as_slice()), ("1\n", &["ptrace".to_owned()][..]));
}

fn attendants_are_paid_by_their_agents_group() {
    let (launcher, folder) = (launcher(Ahead::Inits(1)), workdir());
    if launcher.host().privilege != agt_rings::host::Privilege::Root {
        return println!("SKIPPED the groups: only root makes them here");
    }
    let layout = agt_rings::cgroup::Layout::detect().unwrap();
    let name = format!("attendant-test-{}", std::process::id());
    let base = agt_rings::cgroup::Base::open(&layout, &name, &[launcher.pid().cast_signed()]).unwrap();
    let script = format!("$| = 1; syscall({}, -1); print 'told'; <STDIN>", number("ptrace"));
    let plan = compile(&launcher, &spec(Ring::R2, folder.path(), &script));
    // The third is from a prepared init.
    for round in 0..3 {
        let deadline = Instant::now() + WITHIN;
        if round == 2 {
            until_prepared(&launcher, deadline);
        }
        let group = base.create(&format!("round-{round}"), &plan.limits).unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let out = tempfile::tempfile().unwrap();
        let copy = || -> OwnedFd { out.try_clone().unwrap().into() };
        let streams = Streams { stdin: read, stdout: copy(), stderr: copy() };
        let running = launcher.launch(&plan, &streams, &group.join().unwrap()).unwrap();
        printed(&out, 4, deadline);
        let groups = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let attendants = beside(running.pid(), "agt-attendant");
        assert_eq!(attendants.len(), 1);
        // It may be asked a moment before it is told which groups they are.
        while groups(attendants[0]) != groups(running.pid()) {
            assert!(Instant::now() < deadline, "round {round}: {}", groups(attendants[0]));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(groups(running.pid()).contains("round-"));
        drop(write);
        assert!(running.wait_gone(WITHIN).unwrap());
        let _ = group.kill(WITHIN).unwrap();
        group.remove(WITHIN).unwrap();
    }
    drop(launcher);
    base.close().unwrap();
}

fn number(name: &str) -> u32 {
    Arch::native().unwrap().number(name).unwrap()
}

fn names(ran: &Ran) -> Vec<String> {
    let name = |notice: &Notice| match &notice.what {
        What::Refused { call, .. } => Some(call.clone()),
        _ => None,
    };
    ran.notices.iter().filter_map(name).collect()
}

fn many_at_once_are_all_answered_and_counted() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    let script = format!(
        "for (1..8) {{ fork or do {{ for (1..500) {{ syscall({}, -1) == -1 && $!+0 == 1 or die }} print \"ok\"; exit }} }}
         1 while wait > 0",
        number("ptrace")
    );
    let began = Instant::now();
    let ran = run(&launcher, &compile(&launcher, &spec(Ring::R2, folder.path(), &script)));
    assert_eq!(ran.text, "ok".repeat(8));
    let count = |notice: &Notice| match notice.what {
        What::Lost { count } => count,
        _ => notice.count,
    };
    assert_eq!(ran.notices.iter().map(count).sum::<u64>(), 4000);
    // So many a second and not more: on a busy machine the calls take several.
    let most = 250 * (1 + usize::try_from(began.elapsed().as_secs()).unwrap());
    assert!(ran.notices.len() < most, "{} of {most}", ran.notices.len());
}

/// Finds the attendant in the agent's own /proc.
const FIND: &str = "sub comm { open my $f, '<', \"/proc/$_[0]/comm\" or return ''; my $c = <$f>; chomp $c; $c }
    for (1..2000) { ($a) = grep { comm($_) eq 'agt-attendant' } map { m{(\\d+)} } glob('/proc/[0-9]*'); last if $a;
                    select undef, undef, undef, 0.005 } die 'no attendant' unless $a;";

fn an_agent_whose_attendant_is_ended_gets_nothing_by_it() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    let [ptrace, mount, clone3] = ["ptrace", "mount", "clone3"].map(number);
    for ring in [Ring::R1, Ring::R2, Ring::R3] {
        // It tries itself first: Landlock's scope holds it from ABI 6 on, and the uid does not.
        let script = format!(
            "$| = 1; {FIND} syscall({ptrace}, -1); print $!+0, \"\\n\"; kill 9, $a; <STDIN>;
             for ({ptrace}, {mount}, {clone3}) {{ syscall($_, -1, -1, -1, -1, -1, -1); print $!+0, ' ' }}
             open F, '<', '/etc/ld.so.cache' and print 'works';"
        );
        let plan = compile(&launcher, &spec(ring, folder.path(), &script));
        let (read, write) = nix::unistd::pipe().unwrap();
        let (mut running, mut out) = launch_with(&launcher, &plan, read);
        let notices = running.take_notices().unwrap();
        let deadline = Instant::now() + WITHIN;
        printed(&out, 2, deadline);
        for attendant in beside(running.pid(), "agt-attendant") {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(attendant), nix::sys::signal::Signal::SIGKILL);
        }
        let last = loop {
            match notices.next() {
                Ok(Some(notice)) => assert!(matches!(notice.what, What::Refused { ref call, .. } if call == "ptrace")),
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => break e.kind(),
            }
            assert!(Instant::now() < deadline, "the end of the attendant is not seen");
        };
        assert_eq!(last, io::ErrorKind::UnexpectedEof);
        drop(write);
        assert!(running.wait_gone(WITHIN).unwrap());
        assert_eq!(text_of(&mut out), "1\n38 38 38 works", "{ring}");
    }
}

/// Waits until an init waits for the next launch.
fn until_prepared(launcher: &Launcher, deadline: Instant) {
    while launcher.ready() == 0 {
        assert!(Instant::now() < deadline, "no init was prepared");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the agent has printed so much.
fn printed(out: &File, bytes: u64, deadline: Instant) {
    while out.metadata().unwrap().len() < bytes {
        assert!(Instant::now() < deadline, "the agent did not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Hears notices to their end.
fn last_of(notices: &Notices, deadline: Instant) -> io::ErrorKind {
    loop {
        match notices.next() {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => return e.kind(),
        }
        assert!(Instant::now() < deadline, "the end of the attendant is not seen");
    }
}

fn names_whose_maker_is_ended_are_made_by_nobody() {
    let launcher = launcher(Ahead::Nothing);
    for ring in [Ring::R1, Ring::R2] {
        let folder = workdir();
        // The agent has another uid.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let script = "$| = 1; sub made { print $_[0] ? 'made ' : $!+0 . ' ' } made(open F, '>', 'first'); <STDIN>;
             made(open F, '>', 'new'); made(open F, '>', '.envrc'); made(mkdir 'folder'); made(symlink 'x', 'link');
             made(link 'first', 'second'); made(rename 'first', 'moved'); open F, '<', 'first' and print 'works';";
        let rules = Rules { roots: vec![folder.path().into()], workdir: folder.path().into(), ..Rules::default() };
        let plan = compile(&launcher, &Spec { names: Some(rules), ..spec(ring, folder.path(), script) });
        if plan.names.is_none() {
            return println!("SKIPPED names_whose_maker_is_ended_are_made_by_nobody: nobody can make names here");
        }
        let (read, write) = nix::unistd::pipe().unwrap();
        let (mut running, mut out) = launch_with(&launcher, &plan, read);
        let (notices, deadline) = (running.take_notices().unwrap(), Instant::now() + WITHIN);
        printed(&out, 5, deadline);
        let attendants = beside(running.pid(), "agt-attendant");
        let workers: Vec<i32> = named("agt-attendant")
            .filter(|pid| attendants.iter().any(|a| parent(*pid) == Some(a.to_string())))
            .collect();
        assert_eq!(workers.len(), 1, "{ring}: one worker makes names");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(workers[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(last_of(&notices, deadline), io::ErrorKind::UnexpectedEof, "the supervisor hears of it");
        drop(write);
        assert!(running.wait_gone(WITHIN).unwrap());
        assert_eq!(text_of(&mut out), "made 38 38 38 38 38 38 works", "{ring}");
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["first"], "{ring}");
    }
}

fn parent(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).map(|pid| pid.trim().to_owned())
}

/// Processes of that name.
fn named(name: &str) -> impl Iterator<Item = i32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(move |pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
}

/// Processes of that name with the same parent as `pid`.
fn beside(pid: i32, name: &str) -> Vec<i32> {
    let ours = parent(pid);
    named(name).filter(|pid| parent(*pid) == ours).collect()
}

fn the_listener_is_nowhere_in_the_agent() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    let script = format!(
        "print join(',', map {{ readlink \"/proc/self/fd/$_\" }} 0..4095), \"\\n\";
         my $f = pack('SxxxxxxQ', 1, unpack('Q', pack('P', pack('SCCL', 6, 0, 0, 0x7fff0000))));
         for my $flag (8, 40) {{ syscall({}, 1, $flag, $f); print $!+0, \"\\n\" }}",
        number("seccomp")
    );
    for ring in [Ring::R1, Ring::R2] {
        let ran = run(&launcher, &compile(&launcher, &spec(ring, folder.path(), &script)));
        let mut lines = ran.text.lines();
        let open = lines.next().unwrap();
        assert!(!open.contains("seccomp") && !open.contains("socket"), "{ring}: {open}");
        assert_eq!(lines.collect::<Vec<_>>(), ["1", "1"], "{ring}");
        assert_eq!(names(&ran), ["seccomp", "seccomp"], "{ring}");
    }
}

fn the_attendant_holds_nothing_but_what_it_needs() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    // Its status is for everybody to read; its descriptors and its memory are not.
    let script = format!(
        "{FIND} syscall({}, -1); open S, '<', \"/proc/$a/status\" or die; while (<S>) {{
            print if /^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs)/ }}
         print \"sealed\\n\" if (stat \"/proc/$a/environ\")[4] != $<;
         for my $f ('mem', 'environ', 'maps', 'auxv') {{ open F, '<', \"/proc/$a/$f\" and sysread(F, $b, 9) and print \"read $f\\n\" }}
         opendir D, \"/proc/$a/fd\" and print \"fd\\n\"; readlink \"/proc/$a/exe\" and print \"exe\\n\";",
        number("ptrace")
    );
    let ran = run(&launcher, &compile(&launcher, &spec(Ring::R2, folder.path(), &script)));
    let lines: BTreeMap<&str, &str> = ran.text.lines().filter_map(|line| line.split_once(":\t")).collect();
    let nothing = "0000000000000000";
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| lines[set]);
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    if yama.is_empty() || yama.trim() == "0" {
        assert_eq!(sets, [nothing; 5], "{}", ran.text);
    }
    assert_eq!(lines["NoNewPrivs"], "1");
    // Not dumpable: its files in /proc belong to root, whatever its uid.
    assert!(ran.text.contains("sealed"), "{}", ran.text);
    for line in ["read", "fd", "exe"] {
        assert!(!ran.text.lines().any(|found| found.starts_with(line)), "{}", ran.text);
    }
}

fn a_check_of_the_agent_is_answered_and_told_too() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    let script = format!("syscall({}, -1); exit $!+0", number("ptrace"));
    let check = agt_rings::spec::Check {
        program: PathBuf::from(PERL),
        argv: ["perl", "-e", &script].map(OsString::from).to_vec(),
    };
    for ring in [Ring::R2, Ring::R3] {
        let agent = Spec { check: Some(check.clone()), ..spec(ring, folder.path(), "sleep 1000") };
        let (mut running, _) = launch(&launcher, &compile(&launcher, &agent));
        let notices = running.take_notices().unwrap();
        let checker = running.take_checker().unwrap();
        for _ in 0..3 {
            assert_eq!(checker.check(WITHIN).unwrap().end, End::Exited(libc_eperm()), "{ring}");
        }
        let deadline = Instant::now() + WITHIN;
        let mut told = 0;
        while told < 3 && Instant::now() < deadline {
            match notices.next().unwrap() {
                Some(Notice { what: What::Refused { call, .. }, .. }) if call == "ptrace" => told += 1,
                Some(notice) => panic!("{notice:?}"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert_eq!(told, 3, "{ring}");
        running.kill_init().unwrap();
        assert!(running.wait_gone(WITHIN).unwrap());
    }
}

fn a_run_to_learn_from_tells_what_it_used() {
    let (launcher, folder) = (launcher(Ahead::Nothing), workdir());
    fs::write(folder.path().join("here"), "x").unwrap();
    let script = "use Socket; open F, '<', 'here' or die; open F, '<', '/nowhere/at/all' and die;
        open F, '>', 'made' or die; open F, '>>', '/usr/new' and die;
        socket(S, AF_INET, SOCK_STREAM, 0) or die; connect(S, pack_sockaddr_in(9, inet_aton('127.0.0.1')));
        system('/bin/true') == 0 or die; exec '/usr/bin/env', 'echo', 'over'";
    let plan = compile(&launcher, &spec(Ring::R2, folder.path(), script)).learning().expect("it can be listened to");
    let ran = run(&launcher, &plan);
    assert_eq!(ran.text, "over\n");
    let shown: Vec<What> = ran.notices.into_iter().map(|notice| notice.what).collect();
    let opened = |path: &str, write, result| What::Opened { path: path.to_owned(), write, result };
    let here = |name: &str| folder.path().join(name).display().to_string();
    for what in [
        opened(&here("here"), false, Outcome::Found),
        opened("/nowhere/at/all", false, Outcome::Missing(2)),
        opened(&here("made"), true, Outcome::Missing(2)),
        opened("/usr/new", true, Outcome::Missing(2)),
        What::Connected { address: "127.0.0.1:9".to_owned() },
        What::Executed { path: "/bin/true".to_owned() },
        What::Executed { path: "/usr/bin/env".to_owned() },
    ] {
        assert!(shown.contains(&what), "{what:?} in {shown:#?}");
    }
    assert!(!shown.contains(&What::Executed { path: PERL.to_owned() }), "the launch itself is not told");
}
