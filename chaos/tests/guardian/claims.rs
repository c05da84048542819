//! What is claimed of the guardian and of the undo, one function each.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use agt_chaos::guardian::{ArmedGuardian, GuardianProcess, Guardians};
use agt_chaos::kernel;
use agt_chaos::replay::replay;
use agt_chaos::undo::{Outcome, UndoEntry, UndoSignal, open_undos};
use nix::sys::signal::{Signal, kill};

use crate::experiment::{read_journal, start};
use crate::group::Group;
use crate::scene::{Injector, LONG, NOBODY, Victim, runtime, undo, wait_for};
use crate::{Needs, Test};

macro_rules! tests {
    ($($needs:ident $name:ident,)*) => {
        pub(crate) const ALL: &[Test] =
            &[$(Test { name: stringify!($name), needs: Needs::$needs, run: $name }),*];
    };
}

tests! {
    Nothing killed_injector_s_victim_runs_again,
    Nothing killed_injector_s_victim_gets_its_file_limit_back,
    Nothing hung_injector_s_fault_ends_at_the_deadline,
    Nothing guardian_that_is_told_to_end_undoes_first,
    Nothing disarmed_guardian_does_nothing,
    Nothing guardian_is_a_session_of_its_own_with_nothing_but_its_pipes,
    Nothing guardian_undoes_on_request_and_says_what_it_did,
    Nothing dead_guardian_is_noticed,
    Nothing dropped_guardian_undoes,
    Nothing argument_zero_alone_makes_nobody_a_guardian_with_orders,
    Root killed_injector_s_frozen_group_is_thawed,
    Root pidfd_tells_the_death_when_somebody_else_holds_the_pipe,
    Root guardian_can_t_be_traced_by_its_own_uid,
    Root file_limit_of_another_uid_is_lowered_and_given_back,
    Root process_forked_during_the_fault_gets_its_file_limit_back,
    Root process_without_room_can_open_nothing_until_the_undo,
    Root experiment_on_a_real_process_passes_and_settles_its_journal,
    Root experiment_whose_process_is_killed_is_undone_and_left_open_in_the_journal,
    Root replay_thaws_when_injector_and_guardian_are_both_dead,
    Root replay_leaves_a_new_group_of_the_same_name_alone,
}

fn go_on(victim: &Victim) -> UndoEntry {
    UndoEntry::Signal { process: victim.id(), signal: UndoSignal::Continue }
}

fn killed_injector_s_victim_runs_again() {
    let victim = Victim::new();
    let mut injector = Injector::arm(&undo(vec![go_on(&victim)]), LONG);
    victim.stop();
    injector.kill();
    injector.guardian.wait_for_end();
    assert!(!victim.is_stopped());
}

fn killed_injector_s_victim_gets_its_file_limit_back() {
    let victim = Victim::new();
    let soft = victim.soft_limit();
    let mut injector = Injector::arm(&undo(vec![UndoEntry::Prlimit { process: victim.id(), soft }]), LONG);
    kernel::set_file_limit(victim.id(), 3).unwrap().unwrap();
    assert_eq!(victim.soft_limit(), 3);
    injector.kill();
    injector.guardian.wait_for_end();
    assert_eq!(victim.soft_limit(), soft);
}

fn hung_injector_s_fault_ends_at_the_deadline() {
    let victim = Victim::new();
    let injector = Injector::arm(&undo(vec![go_on(&victim)]), Duration::from_millis(300));
    kill(injector.pid(), Signal::SIGSTOP).unwrap();
    victim.stop();
    injector.guardian.wait_for_end();
    assert!(!victim.is_stopped());
}

fn guardian_that_is_told_to_end_undoes_first() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let victim = Victim::new();
        let injector = Injector::arm(&undo(vec![go_on(&victim)]), LONG);
        victim.stop();
        injector.guardian.signal(signal);
        injector.guardian.wait_for_end();
        assert!(!victim.is_stopped(), "{signal}");
    }
}

fn disarmed_guardian_does_nothing() {
    let victim = Victim::new();
    let mut injector = Injector::arm(&undo(vec![go_on(&victim)]), LONG);
    victim.stop();
    injector.disarm();
    injector.guardian.wait_for_end();
    assert!(victim.is_stopped());
}

fn guardian_is_a_session_of_its_own_with_nothing_but_its_pipes() {
    let injector = Injector::arm(&undo(Vec::new()), LONG);
    let pid = injector.guardian.id.pid;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session: i32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, pid);
    assert_ne!(session, nix::unistd::getsid(None).unwrap().as_raw());
    // Readable for root only: it isn't dumpable.
    if nix::unistd::geteuid().is_root() {
        let names: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().path()).collect();
        let links: Vec<_> = names.iter().filter_map(|name| fs::read_link(name).ok()).collect();
        let is_known = |link: &&std::path::PathBuf| {
            let link = link.to_string_lossy();
            link.starts_with("pipe:") || link == "/dev/null" || link.contains("signalfd") || link.contains("pidfd")
        };
        assert_eq!(links.iter().filter(is_known).count(), links.len(), "{links:?}");
        assert_eq!(links.len(), 5, "{links:?}");
    }
}

fn guardian_undoes_on_request_and_says_what_it_did() {
    let victim = Victim::new();
    victim.stop();
    let undo = undo(vec![go_on(&victim), UndoEntry::RestoreTrust { replaced: 1, original: 2 }]);
    let outcomes = runtime().block_on(async {
        let armed = GuardianProcess::default().arm(&undo, LONG).await.unwrap();
        armed.undo_now().await.unwrap()
    });
    assert_eq!(outcomes, [Outcome::Done, Outcome::LeftToSupervisor]);
    assert!(!victim.is_stopped());
}

fn dead_guardian_is_noticed() {
    let how = runtime().block_on(async {
        let mut armed = GuardianProcess::default().arm(&undo(Vec::new()), LONG).await.unwrap();
        kill(nix::unistd::Pid::from_raw(armed.pid() as i32), Signal::SIGKILL).unwrap();
        armed.ended().await
    });
    assert!(how.contains("signal: 9"), "{how}");
}

fn dropped_guardian_undoes() {
    let victim = Victim::new();
    victim.stop();
    let undo = undo(vec![go_on(&victim)]);
    let guardian = runtime().block_on(async {
        let armed = GuardianProcess::default().arm(&undo, LONG).await.unwrap();
        crate::scene::Guardian::new(armed.pid() as i32)
    });
    guardian.wait_for_end();
    assert!(!victim.is_stopped());
}

fn argument_zero_alone_makes_nobody_a_guardian_with_orders() {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("agt-chaos-guardian").stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("no orders came"), "{said}");
}

fn killed_injector_s_frozen_group_is_thawed() {
    for group in Group::on_every_hierarchy() {
        let victim = Victim::new();
        group.add(victim.0.id());
        let thaw = kernel::thaw(&group.freezer()).unwrap().unwrap();
        let mut injector = Injector::arm(&undo(vec![thaw]), LONG);
        group.freeze();
        injector.kill();
        injector.guardian.wait_for_end();
        assert!(!group.is_frozen());
    }
}

fn pidfd_tells_the_death_when_somebody_else_holds_the_pipe() {
    let victim = Victim::new();
    let mut injector = Injector::arm(&undo(vec![go_on(&victim)]), LONG);
    let theirs = fs::read_link(format!("/proc/{}/fd/0", injector.guardian.id.pid)).unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", injector.pid())).unwrap().map(|fd| fd.unwrap().path());
    let ours = fds.into_iter().find(|fd| fs::read_link(fd).is_ok_and(|link| link == theirs)).unwrap();
    let held = fs::OpenOptions::new().write(true).open(ours).unwrap();
    victim.stop();
    injector.kill();
    injector.guardian.wait_for_end();
    assert!(!victim.is_stopped());
    drop(held);
}

fn guardian_can_t_be_traced_by_its_own_uid() {
    let mut command = Command::new("/proc/self/exe");
    command.uid(NOBODY).gid(NOBODY);
    let injector = Injector::start(command, &undo(Vec::new()), LONG);
    // The kernel gives the private files of a process that isn't dumpable to root. The injector went through an exec as
    // nobody, which makes it dumpable.
    assert_eq!(fs::metadata(format!("/proc/{}/environ", injector.pid())).unwrap().uid(), NOBODY);
    assert_eq!(fs::metadata(format!("/proc/{}/environ", injector.guardian.id.pid)).unwrap().uid(), 0);
}

fn file_limit_of_another_uid_is_lowered_and_given_back() {
    let victim = Victim::of_nobody();
    let soft = victim.soft_limit();
    let mut injector = Injector::arm(&undo(vec![UndoEntry::Prlimit { process: victim.id(), soft }]), LONG);
    kernel::set_file_limit(victim.id(), 3).unwrap().unwrap();
    assert_eq!(victim.soft_limit(), 3);
    injector.kill();
    injector.guardian.wait_for_end();
    assert_eq!(victim.soft_limit(), soft);
}

fn process_forked_during_the_fault_gets_its_file_limit_back() {
    for group in Group::on_every_hierarchy() {
        let mut victim = Victim::shell();
        group.add(victim.0.id());
        let soft = victim.soft_limit();
        let entries = kernel::file_limits_back(&group.procs()).unwrap().unwrap();
        assert_eq!(entries.len(), 2);
        let lowered = soft / 2;
        kernel::set_file_limit(victim.id(), lowered).unwrap().unwrap();
        victim.fork();
        let limits = || {
            let members = kernel::members(&fs::read_to_string(group.procs()).unwrap()).unwrap();
            members.iter().map(|p| kernel::file_limits(*p).unwrap().unwrap().soft).collect::<Vec<_>>()
        };
        assert_eq!(limits(), [lowered, lowered]);
        let done = replay(vec![undo(entries)]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::Done, Outcome::Done]);
        assert_eq!(limits(), [soft, soft]);
        let again = replay(vec![done[0].undo.clone()]).unwrap();
        assert_eq!(again[0].outcomes, [Outcome::AlreadySo, Outcome::AlreadySo]);
    }
}

fn replay_thaws_when_injector_and_guardian_are_both_dead() {
    for group in Group::on_every_hierarchy() {
        let victim = Victim::new();
        group.add(victim.0.id());
        let undo = undo(vec![kernel::thaw(&group.freezer()).unwrap().unwrap()]);
        let mut injector = Injector::arm(&undo, LONG);
        group.freeze();
        injector.guardian.signal(Signal::SIGKILL);
        injector.guardian.wait_for_end();
        injector.kill();
        assert!(group.is_frozen());
        let done = replay(vec![undo]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::Done]);
        assert!(!group.is_frozen());
        let again = replay(vec![done[0].undo.clone()]).unwrap();
        assert_eq!(again[0].outcomes, [Outcome::AlreadySo]);
    }
}

fn replay_leaves_a_new_group_of_the_same_name_alone() {
    for group in Group::on_every_hierarchy() {
        let undo = undo(vec![kernel::thaw(&group.freezer()).unwrap().unwrap()]);
        let folder = group.freezer().parent().unwrap().to_owned();
        fs::remove_dir(&folder).unwrap();
        let done = replay(vec![undo.clone()]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::Gone]);
        fs::create_dir(&folder).unwrap();
        group.freeze();
        let done = replay(vec![undo]).unwrap();
        assert_eq!(done[0].outcomes, [Outcome::Gone]);
        assert!(group.is_frozen());
    }
}

fn process_without_room_can_open_nothing_until_the_undo() {
    for group in Group::on_every_hierarchy() {
        let mut victim = Victim::opener();
        group.add(victim.0.id());
        let before = kernel::file_room(&group.procs()).unwrap().unwrap();
        let entries = kernel::file_limits_back(&group.procs()).unwrap().unwrap();
        assert_eq!(victim.ask(), "opened");
        assert_eq!(kernel::lower_file_limits(&group.procs(), 0).unwrap(), 1);
        let during = kernel::file_room(&group.procs()).unwrap().unwrap();
        assert!(during.soft < before.soft && during.room == 0, "{during:?}");
        assert_eq!(victim.ask(), "failed");
        let done = replay(vec![undo(entries)]).unwrap();
        assert!(done[0].is_settled(), "{done:?}");
        assert_eq!(victim.ask(), "opened");
        assert_eq!(kernel::file_room(&group.procs()).unwrap().unwrap(), before);
    }
}

fn experiment_on_a_real_process_passes_and_settles_its_journal() {
    for group in Group::on_every_hierarchy() {
        let victim = Victim::new();
        group.add(victim.0.id());
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let (mut child, lines) = start(&group.freezer(), &journal, Duration::from_millis(500));
        let lines: Vec<String> = lines.collect();
        assert!(child.wait().unwrap().success());
        assert!(lines.contains(&"the fault is seen to act".to_owned()), "{lines:#?}");
        assert_eq!(lines.last().unwrap(), "pass", "{lines:#?}");
        assert!(!group.is_frozen());
        assert_eq!(read_journal(&journal).len(), 2);
        assert_eq!(open_undos(read_journal(&journal)), []);
    }
}

fn experiment_whose_process_is_killed_is_undone_and_left_open_in_the_journal() {
    for group in Group::on_every_hierarchy() {
        let victim = Victim::new();
        group.add(victim.0.id());
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        let (mut child, mut lines) = start(&group.freezer(), &journal, LONG);
        assert!(lines.any(|line| line == "the fault is seen to act"));
        assert!(group.is_frozen());
        child.kill().unwrap();
        child.wait().unwrap();
        wait_for("the guardian to thaw the group", || !group.is_frozen());
        let open = open_undos(read_journal(&journal));
        assert_eq!(open.len(), 1);
        assert_eq!(replay(open).unwrap()[0].outcomes, [Outcome::AlreadySo]);
    }
}
