#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::fault::Seen;
use crate::interlock::tests::willing;
use crate::plan::tests::spec;
use crate::spec::{Comparison, Condition, Spec};
use crate::target::{Missing, Need, Process};
use crate::undo::JournalEntry;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn condition(sli: &str, comparison: Comparison, value: f64) -> Condition {
    Condition { sli: Some(sli.into()), metric: None, budget: None, comparison, value }
}

fn experiment(spec: &Spec) -> Experiment {
    Experiment::new(Plan::resolve(spec).unwrap(), RunId("run".into()), BootId("boot".into()))
}

/// An agent that is frozen between `Inject` and `Undo`, and otherwise as `look` says.
struct World<'a> {
    frozen: bool,
    look: &'a dyn Fn(bool) -> Option<Observation>,
}

fn frozen_or_not(frozen: bool) -> Option<Observation> {
    Some(Observation { frozen: Some(frozen), ..willing() })
}

impl World<'_> {
    fn answer(&mut self, action: &Action) -> Event {
        match action {
            Action::CheckHost(_) => Event::HostChecked(Vec::new()),
            Action::Observe { .. } => match (self.look)(self.frozen) {
                Some(observation) => Event::Observed(Box::new(observation)),
                None => Event::ObserveFailed("nothing to be seen".into()),
            },
            Action::Prepare(_) => Event::Prepared(Vec::new()),
            Action::Journal(_) => Event::Journaled,
            Action::ArmGuardian { .. } => Event::GuardianArmed,
            Action::Inject(_) => {
                self.frozen = true;
                Event::Injected
            }
            Action::Undo(_) | Action::UndoByGuardian => {
                self.frozen = false;
                Event::Undone
            }
            Action::DisarmGuardian => Event::Disarmed,
            Action::Finish => panic!("nothing answers Finish"),
        }
    }
}

/// Runs to the end; `interfere` may replace the answer to an action, or come before a tick (`None`).
fn run_with(
    machine: &mut Experiment,
    look: &dyn Fn(bool) -> Option<Observation>,
    mut interfere: impl FnMut(Option<&Action>, Duration) -> Option<Event>,
) -> (Report, Vec<Action>) {
    let mut world = World { frozen: false, look };
    let mut now = Duration::ZERO;
    let mut actions = Vec::new();
    let mut action = machine.step(Event::Start, now);
    for _ in 0..100_000 {
        let event = match &action {
            Some(Action::Finish) => return (machine.report().unwrap(), actions),
            Some(asked) => {
                actions.push(asked.clone());
                let answer = world.answer(asked);
                interfere(Some(asked), now).unwrap_or(answer)
            }
            None => {
                now = machine.wake().expect("with nothing under way, something must be due").max(now);
                interfere(None, now).unwrap_or(Event::Tick)
            }
        };
        action = machine.step(event, now);
    }
    panic!("no end in sight");
}

fn run(spec: &Spec, look: &dyn Fn(bool) -> Option<Observation>) -> Report {
    run_with(&mut experiment(spec), look, |_, _| None).0
}

fn names(actions: &[Action]) -> Vec<&'static str> {
    let name = |action: &Action| match action {
        Action::Journal(JournalEntry::Undo(_)) => Some("journal undo"),
        Action::Journal(JournalEntry::Undone { .. }) => Some("journal undone"),
        Action::ArmGuardian { .. } => Some("arm"),
        Action::Inject(_) => Some("inject"),
        Action::Undo(_) => Some("undo"),
        Action::UndoByGuardian => Some("undo by guardian"),
        Action::DisarmGuardian => Some("disarm"),
        _ => None,
    };
    actions.iter().filter_map(name).collect()
}

#[test]
fn a_fault_that_harms_nothing_passes() {
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |_, _| None);
    assert_eq!(report.verdict, Verdict::Pass, "{report}");
    assert_eq!(report.score, Some(100.0));
    assert_eq!(report.undo, UndoState::Undone);
    assert_eq!(report.recovery, Some(s(1)));
    assert_eq!(report.duration, s(120));
    assert_eq!(names(&actions), ["journal undo", "arm", "inject", "undo", "journal undone", "disarm"]);
}

#[test]
fn a_fault_that_breaks_the_steady_state_fails_with_its_score() {
    let look = |frozen| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("availability".into(), Some(if frozen { 0.5 } else { 1.0 }));
        now.incident_open = Some(frozen);
        Some(now)
    };
    let report = run(&spec(), &look);
    assert_eq!(report.verdict, Verdict::Fail, "{report}");
    assert_eq!(report.score, Some(50.0));
    assert_eq!(report.detection, Some(Duration::ZERO));
    assert_eq!(report.steady_state[0].held_during, Some(false));
    assert_eq!(report.steady_state[0].held_after, Some(true));
}

#[test]
fn a_fault_that_is_not_seen_to_act_is_inconclusive() {
    let report = run(&spec(), &|_| frozen_or_not(false));
    assert_eq!((report.verdict, report.acted), (Verdict::Inconclusive, Seen::No), "{report}");
    let blind = |_| Some(Observation { frozen: None, ..willing() });
    let report = run(&spec(), &blind);
    assert_eq!((report.verdict, report.acted), (Verdict::Inconclusive, Seen::Unknown), "{report}");
}

#[test]
fn a_fault_that_is_still_seen_after_its_undo_fails() {
    let stuck = std::cell::Cell::new(false);
    let look = |frozen| {
        stuck.set(stuck.get() || frozen);
        frozen_or_not(stuck.get())
    };
    let report = run(&spec(), &look);
    assert_eq!((report.verdict, report.restored), (Verdict::Fail, Seen::No), "{report}");
    assert_eq!(report.recovery, None);
}

#[test]
fn missing_data_before_the_fault_injects_nothing() {
    let look = |frozen| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("availability".into(), None);
        Some(now)
    };
    let (report, actions) = run_with(&mut experiment(&spec()), &look, |_, _| None);
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
    assert_eq!(names(&actions), [""; 0]);
    assert_eq!(report.undo, UndoState::NothingDone);
}

#[test]
fn missing_data_during_the_fault_is_inconclusive() {
    let look = |frozen| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("availability".into(), (!frozen).then_some(1.0));
        Some(now)
    };
    let report = run(&spec(), &look);
    assert_eq!(report.verdict, Verdict::Inconclusive, "{report}");
    assert_eq!(report.steady_state[0].during, None);
}

#[test]
fn unknown_safety_is_inconclusive_and_a_violation_fails() {
    let unknown = |frozen| Some(Observation { safety_violations: None, ..frozen_or_not(frozen)? });
    assert_eq!(run(&spec(), &unknown).verdict, Verdict::Inconclusive);
    let count = std::cell::Cell::new(7);
    let violated = |frozen| {
        count.set(count.get() + u64::from(frozen));
        Some(Observation { safety_violations: Some(count.get()), ..frozen_or_not(frozen)? })
    };
    let report = run(&spec(), &violated);
    assert_eq!(report.verdict, Verdict::Fail, "{report}");
    assert!(report.safety_violations.unwrap() > 0);
}

#[test]
fn a_baseline_of_zero_is_inconclusive() {
    let zero = |frozen| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("availability".into(), Some(0.0));
        Some(now)
    };
    let mut asked = spec();
    asked.steady_state[0].value = 0.0;
    assert_eq!(run(&asked, &zero).verdict, Verdict::Inconclusive);
}

#[test]
fn an_unsteady_baseline_is_refused() {
    let low = |frozen| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("availability".into(), Some(0.5));
        Some(now)
    };
    let (report, actions) = run_with(&mut experiment(&spec()), &low, |_, _| None);
    assert!(matches!(report.refusals[..], [Refusal::NotSteady { .. }]), "{report}");
    assert_eq!((report.verdict, names(&actions).len()), (Verdict::Refused, 0));
}

#[test]
fn the_host_s_lack_is_refused_before_anything_is_looked_at() {
    let missing = Missing { need: Need::Freezer, reason: "read-only".into() };
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, _| {
        matches!(action, Some(Action::CheckHost(_))).then(|| Event::HostChecked(vec![missing.clone()]))
    });
    assert_eq!(report.verdict, Verdict::Refused);
    assert_eq!(report.refusals, [Refusal::HostLacks(missing)]);
    assert_eq!(actions.len(), 1);
}

#[test]
fn interlocks_are_asked_again_right_before_the_injection() {
    let looks = std::cell::Cell::new(0);
    let look = |frozen| {
        looks.set(looks.get() + 1);
        Some(Observation { incident_open: Some(looks.get() > 20), ..frozen_or_not(frozen)? })
    };
    let (report, actions) = run_with(&mut experiment(&spec()), &look, |_, _| None);
    assert_eq!(report.refusals, [Refusal::Incident { known: true }], "{report}");
    assert_eq!(names(&actions).len(), 0);
}

#[test]
fn without_a_durable_undo_nothing_is_injected() {
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, _| {
        matches!(action, Some(Action::Journal(_))).then(|| Event::JournalFailed("disk full".into()))
    });
    assert_eq!(report.verdict, Verdict::Refused, "{report}");
    assert_eq!(names(&actions), ["journal undo"]);
}

#[test]
fn without_a_guardian_nothing_is_injected_and_the_journal_is_settled() {
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, _| {
        matches!(action, Some(Action::ArmGuardian { .. })).then(|| Event::GuardianFailed("no memory".into()))
    });
    assert_eq!(report.verdict, Verdict::Refused, "{report}");
    assert_eq!(names(&actions), ["journal undo", "arm", "undo", "journal undone", "disarm"]);
}

#[test]
fn an_abort_condition_undoes_at_once() {
    let mut asked = spec();
    asked.abort = vec![condition("safety", Comparison::Below, 0.99)];
    let look = |frozen| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("safety".into(), Some(if frozen { 0.5 } else { 1.0 }));
        Some(now)
    };
    let report = run(&asked, &look);
    assert_eq!(report.verdict, Verdict::Aborted, "{report}");
    assert!(matches!(report.abort, Some(AbortReason::Condition { .. })));
    assert_eq!((report.duration, report.undo), (s(30), UndoState::Undone));
}

#[test]
fn a_missing_reading_for_an_abort_condition_aborts() {
    let mut asked = spec();
    asked.abort = vec![condition("safety", Comparison::Below, 0.99)];
    let silent = |frozen: bool| {
        let mut now = frozen_or_not(frozen).unwrap();
        now.slis.insert("safety".into(), (!frozen).then_some(1.0));
        Some(now)
    };
    let report = run(&asked, &silent);
    assert!(matches!(report.abort, Some(AbortReason::MissingReading { .. })), "{report}");
    assert_eq!(report.undo, UndoState::Undone);

    let sighted = |frozen: bool| {
        let mut now = frozen_or_not(frozen)?;
        now.slis.insert("safety".into(), Some(1.0));
        (!frozen).then_some(now)
    };
    assert!(matches!(run(&asked, &sighted).abort, Some(AbortReason::MissingReading { .. })));
}

#[test]
fn budgets_and_the_kill_switch_abort() {
    let mut asked = spec();
    asked.blast_radius.max_budget_burn = Some(0.1);
    let burning = |left: Option<f64>| {
        move |frozen: bool| {
            let mut now = frozen_or_not(frozen).unwrap();
            now.budgets.insert("availability".into(), if frozen { left } else { Some(0.8) });
            Some(now)
        }
    };
    assert!(matches!(run(&asked, &burning(Some(0.69))).abort, Some(AbortReason::Budget { .. })));
    assert!(matches!(run(&asked, &burning(None)).abort, Some(AbortReason::MissingReading { .. })));
    assert_eq!(run(&asked, &burning(Some(0.71))).abort, None);
    assert!(matches!(run(&spec(), &burning(Some(0.0))).abort, Some(AbortReason::Budget { .. })));

    let killed = |frozen| {
        let process = Some(if frozen { Process::Killed } else { Process::Alive });
        Some(Observation { process, ..frozen_or_not(frozen)? })
    };
    assert_eq!(run(&spec(), &killed).abort, Some(AbortReason::KillSwitch));
}

#[test]
fn a_budget_of_which_no_event_was_counted_is_no_data_in_the_report_and_aborts_nothing() {
    let mut asked = spec();
    asked.blast_radius.max_budget_burn = Some(0.1);
    let untouched = |frozen: bool| {
        let mut now = frozen_or_not(frozen)?;
        now.budgets.insert("availability".into(), Some(1.0));
        now.uncounted.insert("availability".to_owned());
        Some(now)
    };
    let report = run(&asked, &untouched);
    assert_eq!((report.abort.as_ref(), report.budget_burned["availability"]), (None, None), "{report}");
    assert!(report.to_string().contains("budget      no data of availability\n"), "{report}");
}

#[test]
fn a_withdrawn_opt_in_aborts() {
    let look = |frozen| {
        let opt_in = if frozen { crate::target::OptIn::No } else { crate::target::OptIn::Any };
        Some(Observation { opt_in, ..frozen_or_not(frozen)? })
    };
    let report = run(&spec(), &look);
    assert!(matches!(report.abort, Some(AbortReason::Leave { .. })), "{report}");
}

#[test]
fn a_lost_guardian_ends_the_fault_at_once() {
    let mut told = false;
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, now| {
        let tell = action.is_none() && now >= s(35) && !told;
        told |= tell;
        tell.then(|| Event::GuardianEnded("signal 9".into()))
    });
    assert!(matches!(report.abort, Some(AbortReason::GuardianLost { .. })), "{report}");
    assert_eq!((report.duration, report.undo), (s(35), UndoState::Undone));
    assert_eq!(names(&actions).last(), Some(&"disarm"));
}

#[test]
fn an_undo_that_fails_is_tried_again_then_left_to_the_guardian() {
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, _| {
        matches!(action, Some(Action::Undo(_))).then(|| Event::UndoFailed("busy".into()))
    });
    assert_eq!(report.undo, UndoState::Undone, "{report}");
    let expected =
        ["journal undo", "arm", "inject", "undo", "undo", "undo", "undo by guardian", "journal undone", "disarm"];
    assert_eq!(names(&actions), expected);
}

#[test]
fn what_nobody_can_undo_fails_and_stays_open_in_the_journal() {
    let (report, actions) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, _| {
        matches!(action, Some(Action::Undo(_) | Action::UndoByGuardian)).then(|| Event::UndoFailed("gone wrong".into()))
    });
    assert_eq!(report.verdict, Verdict::Fail, "{report}");
    assert!(matches!(report.undo, UndoState::NotUndone { .. }));
    assert!(!names(&actions).contains(&"journal undone"));
}

#[test]
fn an_unrecorded_undo_is_reported_as_such() {
    let (report, _) = run_with(&mut experiment(&spec()), &frozen_or_not, |action, _| {
        let undone = matches!(action, Some(Action::Journal(JournalEntry::Undone { .. })));
        undone.then(|| Event::JournalFailed("disk full".into()))
    });
    assert!(matches!(report.undo, UndoState::NotRecorded { .. }), "{report}");
}

#[test]
fn every_burst_is_injected_and_undone_within_the_phase() {
    let mut asked = spec();
    asked.bursts.count = 3;
    asked.seed = 7;
    let (report, actions) = run_with(&mut experiment(&asked), &frozen_or_not, |_, _| None);
    assert_eq!(report.verdict, Verdict::Pass, "{report}");
    assert_eq!(names(&actions).iter().filter(|name| **name == "inject").count(), 3);
    assert_eq!(names(&actions).iter().filter(|name| **name == "undo").count(), 3);
    assert_eq!(report.duration, s(120));
}

#[test]
fn expected_times_that_are_missed_fail() {
    let mut asked = spec();
    asked.expect.detect_within = Some(s(5));
    let report = run(&asked, &frozen_or_not);
    assert_eq!(report.verdict, Verdict::Fail, "{report}");
    let detected = |frozen| Some(Observation { incident_open: Some(frozen), ..frozen_or_not(frozen)? });
    assert_eq!(run(&asked, &detected).verdict, Verdict::Pass);
}

#[test]
fn a_report_reads_back_as_written_and_says_its_verdict() {
    let report = run(&spec(), &frozen_or_not);
    assert_eq!(serde_json::from_str::<Report>(&report.to_json()).unwrap(), report);
    assert!(report.to_text().starts_with("hang: process-hang on researcher: pass\n"), "{report}");
}

#[test]
fn a_clock_that_goes_backwards_stands_still() {
    let mut machine = experiment(&spec());
    machine.step(Event::Start, s(10));
    machine.step(Event::HostChecked(Vec::new()), s(5));
    machine.step(Event::Observed(Box::new(willing())), s(5));
    assert_eq!(machine.wake(), Some(s(11)));
}

/// What a random run does next.
#[derive(Debug, Clone)]
enum Move {
    Answer,
    Fail,
    Abort,
    GuardianEnds,
    Stray(u8),
    Blind,
    Wait(u16),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        40 => Just(Move::Answer),
        4 => Just(Move::Fail),
        1 => Just(Move::Abort),
        1 => Just(Move::GuardianEnds),
        3 => (0_u8..8).prop_map(Move::Stray),
        2 => Just(Move::Blind),
        20 => (0_u16..30_000).prop_map(Move::Wait),
    ];
    prop::collection::vec(one, 0..400)
}

fn failure_of(action: &Action) -> Event {
    let why = "it failed".to_owned();
    match action {
        Action::CheckHost(_) => Event::HostChecked(vec![Missing { need: Need::Freezer, reason: why }]),
        Action::Observe { .. } => Event::ObserveFailed(why),
        Action::Prepare(_) => Event::PrepareRefused(Refusal::Target { reason: why }),
        Action::Journal(_) => Event::JournalFailed(why),
        Action::ArmGuardian { .. } => Event::GuardianFailed(why),
        Action::Inject(_) => Event::InjectFailed(why),
        Action::Undo(_) | Action::UndoByGuardian => Event::UndoFailed(why),
        Action::DisarmGuardian | Action::Finish => Event::Disarmed,
    }
}

fn stray(i: u8) -> Event {
    match i {
        0 => Event::Start,
        1 => Event::Tick,
        2 => Event::Observed(Box::new(willing())),
        3 => Event::ObserveFailed("stray".into()),
        4 => Event::Disarmed,
        5 => Event::HostChecked(Vec::new()),
        6 => Event::Prepared(Vec::new()),
        _ => Event::GuardianEnded("stray".into()),
    }
}

/// Holds a run against the rules, action by action.
#[derive(Default)]
struct Rules {
    under_way: Option<Action>,
    journaled: bool,
    armed: bool,
    in_force: bool,
    undo_tried: bool,
    aborted: bool,
    finished: bool,
}

impl Rules {
    fn fed(&mut self, event: &Event) {
        match (event, &self.under_way) {
            (Event::Journaled, Some(Action::Journal(JournalEntry::Undo(_)))) => self.journaled = true,
            (Event::GuardianArmed, _) => self.armed = true,
            (Event::Undone, _) => self.in_force = false,
            (Event::Abort(_), _) if !self.finished => self.aborted = true,
            _ => {}
        }
    }

    fn asked(&mut self, action: &Action) -> Result<(), TestCaseError> {
        let is_free =
            matches!(self.under_way, None | Some(Action::CheckHost(_) | Action::Observe { .. } | Action::Prepare(_)));
        prop_assert!(is_free, "{action:?} asked for while {:?} is under way", self.under_way);
        match action {
            Action::Inject(_) => {
                prop_assert!(self.journaled && self.armed, "injected without a way back");
                prop_assert!(!self.aborted, "injected after an abort");
                self.in_force = true;
                self.undo_tried = false;
            }
            Action::Undo(_) => self.undo_tried = true,
            Action::DisarmGuardian => {
                prop_assert!(!self.in_force, "disarmed while the fault is in force");
                (self.journaled, self.armed) = (false, false);
            }
            Action::Finish => self.finished = true,
            _ => {}
        }
        self.under_way = Some(action.clone());
        Ok(())
    }
}

/// Feeds one event, answers included, and checks what comes of it.
fn feed(
    machine: &mut Experiment,
    rules: &mut Rules,
    event: Event,
    is_answer: bool,
    now: Duration,
) -> Result<(), TestCaseError> {
    rules.fed(&event);
    if is_answer {
        rules.under_way = None;
    }
    if let Some(action) = machine.step(event, now) {
        rules.asked(&action)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_an_injected_fault_is_undone_and_abort_wins(script in moves(), count in 1_u32..4, seed: u64) {
        let mut asked = spec();
        asked.bursts.count = count;
        asked.seed = seed;
        asked.abort = vec![condition("availability", Comparison::Below, 0.1)];
        let mut machine = experiment(&asked);
        let mut world = World { frozen: false, look: &frozen_or_not };
        let mut rules = Rules::default();
        let mut now = Duration::ZERO;
        feed(&mut machine, &mut rules, Event::Start, false, now)?;
        // After the script everything answers and time passes, until the end.
        let script = script.into_iter().chain(std::iter::repeat_n([Move::Answer, Move::Wait(2000)], 2000).flatten());
        for step in script {
            if rules.finished {
                break;
            }
            let asked = rules.under_way.clone();
            match (step, asked) {
                (Move::Answer, Some(action)) => {
                    let event = world.answer(&action);
                    feed(&mut machine, &mut rules, event, true, now)?;
                }
                (Move::Fail, Some(action)) => feed(&mut machine, &mut rules, failure_of(&action), true, now)?,
                (Move::Blind, Some(Action::Observe { .. })) => {
                    feed(&mut machine, &mut rules, Event::ObserveFailed("blind".into()), true, now)?;
                }
                (Move::Abort, _) => feed(&mut machine, &mut rules, Event::Abort("enough".into()), false, now)?,
                (Move::GuardianEnds, _) if rules.armed => {
                    feed(&mut machine, &mut rules, Event::GuardianEnded("killed".into()), false, now)?;
                }
                (Move::Stray(i), None) => feed(&mut machine, &mut rules, stray(i), false, now)?,
                (Move::Wait(ms), _) => {
                    now += Duration::from_millis(ms.into());
                    feed(&mut machine, &mut rules, Event::Tick, false, now)?;
                }
                _ => {}
            }
        }
        prop_assert!(rules.finished, "no end: {machine:?}");
        let report = machine.report().unwrap();
        if rules.in_force {
            prop_assert!(rules.undo_tried, "ended without an attempt to undo");
            prop_assert!(matches!(report.undo, UndoState::NotUndone { .. }), "{report}");
            prop_assert!(matches!(report.verdict, Verdict::Fail | Verdict::Aborted), "{report}");
        }
        if rules.aborted {
            prop_assert_eq!(report.verdict, Verdict::Aborted, "{}", report);
        }
        prop_assert!(!report.reasons.is_empty());
    }
}
