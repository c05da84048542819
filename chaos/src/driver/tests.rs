#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use super::*;
use crate::error::{GuardianError, JournalError};
use crate::fault::{FaultKind, Seen};
use crate::interlock::tests::willing;
use crate::journal::MemoryJournal;
use crate::plan::tests::spec;
use crate::report::{AbortReason, UndoState, Verdict};
use crate::spec::Spec;
use crate::target::{Act, Limit, Observation};
use crate::undo::{JournalEntry, Undo, UndoEntry};

/// Everything that happened to the agent, the journal and the guardian, in one order.
type Log = Arc<Mutex<Vec<String>>>;

fn say(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

/// Where the fake agent or its keeper doesn't do as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    InjectHangs,
    UndoHangs,
    ObserveHangs,
    JournalHangs,
    GuardianRefuses,
    GuardianDies,
    LacksFreezer,
}

/// An agent in memory: acts change its observation, undo brings the first one back.
struct FakeTarget {
    now: Mutex<Observation>,
    log: Log,
    flaw: Flaw,
}

impl Target for FakeTarget {
    async fn missing(&self, needs: &[Need]) -> Vec<Missing> {
        let lacks = needs.iter().filter(|need| **need == Need::Freezer && self.flaw == Flaw::LacksFreezer);
        lacks.map(|need| Missing { need: *need, reason: "no cgroup".into() }).collect()
    }

    async fn observe(&self, _look_back: Duration) -> Result<Observation, TargetError> {
        let now = self.now.lock().unwrap().clone();
        if self.flaw == Flaw::ObserveHangs && now.frozen == Some(true) {
            future::pending::<()>().await;
        }
        Ok(now)
    }

    async fn prepare(&self, acts: &[Act]) -> Result<Vec<UndoEntry>, TargetError> {
        Ok(acts.iter().map(|act| UndoEntry::DisarmCrash { step: format!("{act:?}") }).collect())
    }

    async fn perform(&self, acts: &[Act]) -> Result<(), TargetError> {
        say(&self.log, "inject");
        for act in acts {
            let mut now = self.now.lock().unwrap();
            match act {
                Act::Freeze => now.frozen = Some(true),
                Act::SetCpuQuota(share) => {
                    now.cpu_quota = Some(Limit::At(share.0.into()));
                    now.cpu_throttled = Some(9);
                }
                Act::SetMemoryLimit(bytes) => now.memory_limit = Some(Limit::At(bytes.0)),
                Act::PressMemory { .. } => now.oom_kills = Some(1),
                Act::LimitFds { headroom } => {
                    now.fd_soft_limit = Some(24);
                    now.fd_room = Some((*headroom).into());
                }
                Act::CrashAtStep { .. } => {
                    now.crash_armed = Some(true);
                    now.step_crashes = Some(1);
                }
                Act::SetTrust(score) => {
                    now.trust = Some(*score);
                    now.trust_replaced = Some(true);
                }
            }
        }
        if self.flaw == Flaw::InjectHangs {
            future::pending::<()>().await;
        }
        Ok(())
    }

    async fn undo(&self, _undo: &Undo) -> Result<(), TargetError> {
        if self.flaw == Flaw::UndoHangs {
            say(&self.log, "undo hangs");
            future::pending::<()>().await;
        }
        say(&self.log, "undo");
        let mut now = self.now.lock().unwrap();
        let (throttled, ooms, crashes) = (now.cpu_throttled, now.oom_kills, now.step_crashes);
        *now = Observation { cpu_throttled: throttled, oom_kills: ooms, step_crashes: crashes, ..willing() };
        Ok(())
    }
}

struct FakeJournal {
    kept: MemoryJournal,
    log: Log,
    flaw: Flaw,
}

impl Journal for FakeJournal {
    async fn record(&self, entry: &JournalEntry) -> Result<(), JournalError> {
        if self.flaw == Flaw::JournalHangs {
            future::pending::<()>().await;
        }
        say(&self.log, if matches!(entry, JournalEntry::Undo(_)) { "journal undo" } else { "journal undone" });
        self.kept.record(entry).await
    }
}

struct FakeGuardians {
    log: Log,
    flaw: Flaw,
}

struct FakeArmed {
    log: Log,
    dies_at: Option<Instant>,
    disarmed: bool,
}

impl Guardians for FakeGuardians {
    type Armed = FakeArmed;

    async fn arm(&self, _undo: &Undo, _within: Duration) -> Result<FakeArmed, GuardianError> {
        if self.flaw == Flaw::GuardianRefuses {
            return Err(GuardianError::Answer { pid: 1, answer: "no".into() });
        }
        say(&self.log, "arm");
        let dies_at = (self.flaw == Flaw::GuardianDies).then(|| now() + Duration::from_secs(5));
        Ok(FakeArmed { log: self.log.clone(), dies_at, disarmed: false })
    }
}

impl ArmedGuardian for FakeArmed {
    async fn disarm(mut self) -> Result<(), GuardianError> {
        say(&self.log, "disarm");
        self.disarmed = true;
        Ok(())
    }

    async fn undo_now(mut self) -> Result<Vec<Outcome>, GuardianError> {
        say(&self.log, "guardian undoes");
        self.disarmed = true;
        Ok(vec![Outcome::Done])
    }

    async fn ended(&mut self) -> String {
        if let Some(dies_at) = self.dies_at {
            sleep_until(dies_at).await;
            self.disarmed = true;
            return "signal 9".into();
        }
        future::pending().await
    }
}

impl Drop for FakeArmed {
    fn drop(&mut self) {
        if !self.disarmed {
            say(&self.log, "guardian undoes by itself");
        }
    }
}

struct Scene {
    target: FakeTarget,
    journal: FakeJournal,
    guardians: FakeGuardians,
    log: Log,
}

impl Scene {
    fn new(flaw: Flaw) -> Self {
        let log = Log::default();
        Self {
            target: FakeTarget { now: Mutex::new(willing()), log: log.clone(), flaw },
            journal: FakeJournal { kept: MemoryJournal::default(), log: log.clone(), flaw },
            guardians: FakeGuardians { log: log.clone(), flaw },
            log,
        }
    }

    fn run(&self, spec: &Spec, ear: AbortEar) -> impl Future<Output = Report> + Send + use<'_> {
        let plan = Plan::resolve(spec).unwrap();
        let stage = Stage {
            target: &self.target,
            journal: &self.journal,
            guardians: &self.guardians,
            boot: BootId("boot".into()),
        };
        run(plan, RunId("run".into()), stage, ear, |_| {})
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

const IN_ORDER: [&str; 6] = ["journal undo", "arm", "inject", "undo", "journal undone", "disarm"];

fn spec_of(kind: FaultKind) -> Spec {
    let mut parameters = crate::catalog::template_of(kind).parameters();
    if kind == FaultKind::CrashAtStep {
        parameters.step = Some("pay".into());
    }
    Spec { fault: Some(kind), parameters, ..spec() }
}

#[tokio::test(start_paused = true)]
async fn every_fault_acts_is_seen_and_is_undone_in_order() {
    for kind in FaultKind::ALL {
        let scene = Scene::new(Flaw::None);
        let report = scene.run(&spec_of(kind), abort_switch().1).await;
        assert_eq!(report.verdict, Verdict::Pass, "{report}");
        assert_eq!((report.acted, report.restored), (Seen::Yes, Seen::Yes), "{kind}");
        assert_eq!(scene.log(), IN_ORDER, "{kind}");
        assert_eq!(report.duration, Duration::from_secs(120), "{kind}");
        assert_eq!(crate::undo::open_undos(scene.journal.kept.entries()), []);
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeline_is_heard_as_it_is_written() {
    let scene = Scene::new(Flaw::None);
    let mut heard = Vec::new();
    let stage = Stage {
        target: &scene.target,
        journal: &scene.journal,
        guardians: &scene.guardians,
        boot: BootId("boot".into()),
    };
    let plan = Plan::resolve(&spec()).unwrap();
    let report = run(plan, RunId("run".into()), stage, abort_switch().1, |moment| heard.push(moment.clone())).await;
    assert_eq!(heard, report.timeline);
}

#[tokio::test(start_paused = true)]
async fn an_operator_s_abort_undoes_at_once() {
    let scene = Scene::new(Flaw::None);
    let (switch, ear) = abort_switch();
    let abort = async {
        sleep_until(now() + Duration::from_millis(40_500)).await;
        switch.abort("enough");
        switch.abort("more than enough");
    };
    let (report, ()) = tokio::join!(scene.run(&spec(), ear), abort);
    assert_eq!(report.verdict, Verdict::Aborted, "{report}");
    assert_eq!(report.abort, Some(AbortReason::Operator { reason: "enough".into() }));
    assert_eq!(report.duration, Duration::from_millis(40_500));
    assert_eq!(scene.log(), IN_ORDER);
}

#[tokio::test(start_paused = true)]
async fn an_abort_before_the_fault_touches_nothing() {
    let scene = Scene::new(Flaw::None);
    let (switch, ear) = abort_switch();
    switch.abort("no");
    let report = scene.run(&spec(), ear).await;
    assert_eq!((report.verdict, report.undo), (Verdict::Aborted, UndoState::NothingDone));
    assert_eq!(scene.log(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_injection_that_hangs_is_given_up_and_undone() {
    let scene = Scene::new(Flaw::InjectHangs);
    let report = scene.run(&spec(), abort_switch().1).await;
    assert!(matches!(report.abort, Some(AbortReason::InjectFailed { .. })), "{report}");
    assert_eq!((scene.log(), report.undo), (IN_ORDER.map(str::to_owned).to_vec(), UndoState::Undone));
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_hangs_is_done_by_the_guardian() {
    let scene = Scene::new(Flaw::UndoHangs);
    let report = scene.run(&spec(), abort_switch().1).await;
    assert_eq!(report.undo, UndoState::Undone, "{report}");
    let log = scene.log();
    assert_eq!(log.iter().filter(|line| *line == "undo hangs").count(), 3);
    assert!(log.ends_with(&["guardian undoes".into(), "journal undone".into()]), "{log:?}");
}

#[tokio::test(start_paused = true)]
async fn an_observation_that_hangs_is_missing_data() {
    let scene = Scene::new(Flaw::ObserveHangs);
    let report = scene.run(&spec(), abort_switch().1).await;
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
    assert_eq!(scene.log(), IN_ORDER);
}

#[tokio::test(start_paused = true)]
async fn without_journal_guardian_or_freezer_nothing_is_injected() {
    for flaw in [Flaw::JournalHangs, Flaw::GuardianRefuses, Flaw::LacksFreezer] {
        let scene = Scene::new(flaw);
        let report = scene.run(&spec(), abort_switch().1).await;
        assert_eq!(report.verdict, Verdict::Refused, "{flaw:?}: {report}");
        assert!(!scene.log().contains(&"inject".to_owned()), "{flaw:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_guardian_ends_the_fault() {
    let scene = Scene::new(Flaw::GuardianDies);
    let report = scene.run(&spec(), abort_switch().1).await;
    assert!(matches!(report.abort, Some(AbortReason::GuardianLost { .. })), "{report}");
    assert_eq!(report.duration, Duration::from_secs(35));
    assert_eq!(scene.log(), ["journal undo", "arm", "inject", "undo", "journal undone"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_experiment_leaves_the_undo_to_the_guardian_and_the_journal() {
    let scene = Scene::new(Flaw::None);
    let cut = timeout(Duration::from_secs(40), scene.run(&spec(), abort_switch().1)).await;
    assert!(cut.is_err());
    assert_eq!(scene.log(), ["journal undo", "arm", "inject", "guardian undoes by itself"]);
    assert_eq!(crate::undo::open_undos(scene.journal.kept.entries()).len(), 1);
}
