//! A supervisor, its disk and the world outside, without tasks or clocks: one life of a saga takes well under a
//! millisecond, so that it can be cut off everywhere.
//!
//! The supervisor does what the driver does, in the same order: records to the journal, then actions. It is stopped at a
//! place by its number; the next one has only the journal. The world goes on being what it is, and accuses whoever breaks a
//! rule at the moment when it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agt_saga::id::{RunId, RunKind, SagaId};
use agt_saga::journal::Entry;
use agt_saga::machine::{
    self, Action, Command, Fate, FateEnd, Input, Order, Policy, Rest, Stage, State, StepError, StepRun, Submission,
    Turn,
};
use agt_saga::outcome::{Ending, StepOutcome, Verdict};
use agt_saga::record::{Attempt, Authority, Becomes, EndState, Event, Record, Resolution};
use agt_saga::replay::replay;
use agt_saga::time::{Draw, Moment};
use serde_json::{Value, json};

use super::graphs::{Graph, Kind, Settle};
use super::model::Facts;
use crate::crash::digest;

/// A bug planted to see whether it is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    None,
    /// Effects begin before their intent is on disk.
    ActsFirst,
    /// The last append before a crash is acknowledged and lost.
    LyingDisk,
    /// What nobody knows after a crash is taken for never begun.
    Guesses,
    /// A probe says that nothing is there.
    LyingProbe,
    /// A branch that is not needed is said to have failed, whatever it did.
    LosersForgotten,
    /// A step gets another idempotency key with each attempt.
    FreshKeys,
}

/// The supervisor was stopped.
struct Crash;

/// More turns than any saga needs.
const TURNS_MAX: usize = 2_000;

pub(crate) struct Life {
    pub(crate) end: EndState,
    pub(crate) facts: Facts,
    pub(crate) present: BTreeSet<String>,
    pub(crate) violations: Vec<String>,
    pub(crate) records: Vec<Record>,
    /// How many places each supervisor passed.
    pub(crate) places: Vec<usize>,
}

/// A run under way.
#[derive(Debug)]
struct Running {
    run: StepRun,
    ends_at: i64,
    told_to_end: bool,
}

pub(crate) struct Sim<'a> {
    graph: &'a Graph,
    plant: Plant,
    crash_at: Option<usize>,
    place: usize,
    // The disk.
    lines: Vec<String>,
    acked: Vec<Record>,
    last_append: usize,
    // The world.
    now_ms: i64,
    present: BTreeSet<String>,
    counts: BTreeMap<(String, RunKind), u32>,
    keys: BTreeMap<(String, RunKind), String>,
    begun: BTreeSet<String>,
    /// Outcomes that a step's shim has kept, by run.
    kept: BTreeMap<String, StepOutcome>,
    running: Vec<Running>,
    facts: Facts,
    violations: Vec<String>,
    appends: usize,
    cancels: usize,
}

/// Lives a saga through; the n-th supervisor is stopped at the place of that number in `crashes`, if there is one.
pub(crate) fn live(graph: &Graph, plant: Plant, crashes: &[usize]) -> Result<Life, String> {
    let mut sim = Sim {
        graph,
        plant,
        crash_at: None,
        place: 0,
        lines: Vec::new(),
        acked: Vec::new(),
        last_append: 0,
        now_ms: 1_000_000,
        present: BTreeSet::new(),
        counts: BTreeMap::new(),
        keys: BTreeMap::new(),
        begun: BTreeSet::new(),
        kept: BTreeMap::new(),
        running: Vec::new(),
        facts: Facts::default(),
        violations: Vec::new(),
        appends: 0,
        cancels: 0,
    };
    let mut places = Vec::new();
    for number in 0.. {
        (sim.place, sim.crash_at) = (0, crashes.get(number).copied());
        let ended = sim.supervise()?;
        places.push(sim.place);
        match ended {
            Ok(end) => {
                let Sim { facts, present, violations, acked, .. } = sim;
                return Ok(Life { end, facts, present, violations, records: acked, places });
            }
            Err(Crash) => sim.crash(),
        }
    }
    unreachable!("the last supervisor is not stopped")
}

impl Sim<'_> {
    /// A number that is the same for the same saga, place and purpose.
    fn chance(&self, what: &str, of: u64) -> u64 {
        let text = format!("{}/{}/{:?}/{what}", self.graph.seed, self.lines.len(), self.crash_at);
        let hash =
            text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        (hash >> 17) % of
    }

    fn pass(&mut self) -> Result<(), Crash> {
        let here = self.place;
        self.place += 1;
        if Some(here) == self.crash_at { Err(Crash) } else { Ok(()) }
    }

    fn accuse(&mut self, violation: String) {
        self.violations.push(violation);
    }

    /// Everything of the supervisor dies; runs die with it, some of them just after they have taken effect.
    fn crash(&mut self) {
        for running in std::mem::take(&mut self.running) {
            let name = running.run.id.step.clone();
            let script = &self.graph.scripts[&name];
            if self.chance(&name, 2) == 0 {
                match running.run.id.kind {
                    RunKind::Forward if !script.always_fails => self.take_effect(&name),
                    RunKind::Compensate if !script.undo_always_fails => drop(self.present.remove(&name)),
                    _ => {}
                }
            }
        }
        if self.plant == Plant::LyingDisk {
            self.lines.truncate(self.last_append);
        }
        self.now_ms += 50;
    }

    fn moment(&self) -> Moment {
        Moment { now_ms: self.now_ms, draw: Draw(u32::MAX / 2) }
    }

    /// One supervisor, from its start to the saga's end or its own.
    fn supervise(&mut self) -> Result<Result<EndState, Crash>, String> {
        let policy = Policy::default();
        let illegal = |error: &dyn std::fmt::Display| format!("the machine contradicts itself: {error}");
        let (mut state, mut turn) = if self.lines.is_empty() {
            let plan = Arc::new(self.graph.plan.clone());
            let plan_hash = digest(plan.text().as_bytes());
            let params = plan.params(serde_json::Map::new()).map_err(|e| e.to_string())?;
            let submission = Submission { id: SagaId::new("s"), plan, plan_hash, context: Value::Null, params };
            machine::begin(submission, self.moment(), &policy).map_err(|e| illegal(&e))?
        } else {
            let entry = |(line, seq): (&String, u64)| Entry { seq, event: line.clone() };
            let entries: Vec<Entry> = self.lines.iter().zip(1..).map(entry).collect();
            let mut state = replay(&entries, digest).map_err(|e| format!("the journal makes no saga: {e:?}"))?;
            let in_flight = state.in_flight();
            let input =
                if in_flight.is_empty() { Input::Wake } else { Input::Recovered { fates: self.fates(&in_flight) } };
            let turn = machine::step(&mut state, input, self.moment(), &policy).map_err(|e| illegal(&e))?;
            (state, turn)
        };
        for _ in 0..TURNS_MAX {
            if let Err(crash) = self.keep_and_perform(&state, turn) {
                return Ok(Err(crash));
            }
            match state.rest() {
                Some(Rest::Ended(end)) => return Ok(Ok(end)),
                rest => match self.next(&mut state, rest) {
                    Err(Crash) => return Ok(Err(Crash)),
                    Ok(Err(fault)) => return Err(fault),
                    Ok(Ok(next)) => turn = next,
                },
            }
            let advanced = turn.advance(&mut state, self.moment(), &policy);
            advanced.map_err(|e| illegal(&e))?;
        }
        Err(format!("it comes to no end: {}, {:?}", state.word(), state.parked()))
    }

    /// What can be found out about the runs of a dead supervisor.
    fn fates(&mut self, in_flight: &[RunId]) -> Vec<Fate> {
        let mut fates = Vec::new();
        for run in in_flight {
            let id = run.to_string();
            let end = match self.kept.get(&id) {
                Some(outcome) if self.chance(&id, 3) > 0 => FateEnd::Finished(outcome.clone()),
                None if !self.begun.contains(&id) && self.chance(&id, 2) == 0 => FateEnd::NeverStarted,
                _ if self.plant == Plant::Guesses => FateEnd::NeverStarted,
                _ => FateEnd::Lost,
            };
            match &end {
                FateEnd::Lost => self.unanswered(run),
                FateEnd::Finished(outcome) => self.answered(run, outcome),
                FateEnd::NeverStarted => {}
            }
            fates.push(Fate { run: run.clone(), end });
        }
        fates
    }

    fn unanswered(&mut self, run: &RunId) {
        if run.kind == RunKind::Forward {
            self.facts.unanswered.insert(run.step.clone());
        }
    }

    fn answered(&mut self, run: &RunId, outcome: &StepOutcome) {
        if matches!(outcome.ending, Ending::TimedOut | Ending::Cancelled) {
            self.unanswered(run);
        }
    }

    fn keep_and_perform(&mut self, state: &State, turn: Turn) -> Result<(), Crash> {
        if self.plant == Plant::ActsFirst {
            for action in turn.actions.clone() {
                self.perform(action)?;
            }
        }
        if !turn.records.is_empty() {
            self.pass()?;
            self.last_append = self.lines.len();
            self.lines.extend(turn.records.iter().map(Record::to_text));
            self.acked.extend(turn.records.iter().cloned());
            self.appends += 1;
            if self.plant != Plant::LyingDisk && u64::try_from(self.lines.len()) != Ok(state.seq()) {
                self.accuse(format!("{} records are on disk, the saga has {}", self.lines.len(), state.seq()));
            }
            self.pass()?;
        }
        if self.plant != Plant::ActsFirst {
            for action in turn.actions {
                self.perform(action)?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), Crash> {
        match action {
            Action::Run(run) => {
                self.pass()?;
                self.begin(&run);
                let script = &self.graph.scripts[&run.id.step];
                let hangs = run.id.kind == RunKind::Forward && self.hangs(&run.id);
                let ends_at = self.now_ms + if hangs { 1_000 } else { script.ms };
                self.running.push(Running { run: *run, ends_at, told_to_end: false });
                self.pass()?;
            }
            Action::End(id) => {
                for running in self.running.iter_mut().filter(|running| running.run.id == id) {
                    (running.told_to_end, running.ends_at) = (true, self.now_ms);
                }
            }
        }
        Ok(())
    }

    fn count(&self, name: &str, kind: RunKind) -> u32 {
        self.counts.get(&(name.to_owned(), kind)).copied().unwrap_or_default()
    }

    fn hangs(&self, run: &RunId) -> bool {
        let script = &self.graph.scripts[&run.step];
        script.hangs && !script.always_fails && self.count(&run.step, RunKind::Forward) == script.fails + 1
    }

    /// A run begins: what does the journal say to that?
    fn begin(&mut self, run: &StepRun) {
        let (name, kind) = (run.id.step.clone(), run.id.kind);
        self.begun.insert(run.id.to_string());
        *self.counts.entry((name.clone(), kind)).or_default() += 1;
        let attempt = Attempt { step: name.clone(), kind, attempt: run.id.attempt };
        let mut faults: Vec<String> = Vec::new();
        if !self.said(|event| *event == Event::Started(attempt.clone())) {
            faults.push("began without a durable intent".into());
        }
        let succeeded = self.said(|event| match event {
            Event::Finished(done) => done.run.step == name && done.run.kind == kind && done.verdict == Verdict::Ok,
            Event::Resolved(resolved) if resolved.step == name => match kind {
                RunKind::Forward => resolved.becomes == Becomes::Done,
                RunKind::Compensate => resolved.becomes == Becomes::Undone,
                RunKind::Check => false,
            },
            _ => false,
        });
        if succeeded && kind != RunKind::Check {
            faults.push("began although its success was acknowledged".into());
        }
        let unwinding = self.said(|event| matches!(event, Event::Unwinding(_)));
        let loser = self.is_loser(&name);
        match kind {
            RunKind::Forward if unwinding => faults.push("went forward while unwinding".into()),
            RunKind::Forward if loser => faults.push("went forward although nobody needs it".into()),
            RunKind::Compensate if !loser => {
                if !unwinding {
                    faults.push("was undone while the saga goes forward".into());
                }
                if self.running.iter().any(|other| other.run.id.kind == RunKind::Forward) {
                    faults.push("was undone while another step runs forward".into());
                }
                let standing = self.present.iter().filter(|other| self.stands_on(other, &name));
                faults.extend(standing.filter(|other| !self.is_left(other)).map(|o| format!("was undone under {o}")));
            }
            _ => {}
        }
        let key = if self.plant == Plant::FreshKeys { run.id.to_string() } else { run.key.to_string() };
        let known = self.keys.entry((name, kind)).or_insert_with(|| key.clone()).clone();
        if known != key {
            faults.push(format!("changed its key from {known} to {key}"));
        }
        let id = run.id.to_string();
        faults.into_iter().for_each(|fault| self.accuse(format!("{id} {fault}")));
    }

    fn said(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.acked.iter().any(|record| what(&record.event))
    }

    /// Whether the journal says that this branch counts no more.
    fn is_loser(&self, name: &str) -> bool {
        let Some((step, number)) = name.split_once('.') else { return false };
        let number: u32 = number.parse().unwrap();
        self.said(|event| match event {
            Event::Gathered(gathered) => gathered.step == step && !gathered.winners.contains(&number),
            Event::GaveUp(gave_up) => gave_up.step == step,
            Event::Dropped(dropped) => dropped.step == name,
            _ => false,
        })
    }

    fn is_left(&self, name: &str) -> bool {
        self.said(|event| match event {
            Event::Resolved(resolved) => resolved.step == name && resolved.becomes == Becomes::Left,
            Event::Left(left) => left.step == name,
            _ => false,
        })
    }

    /// Whether `other` was built on `name`, near or far.
    fn stands_on(&self, other: &str, name: &str) -> bool {
        let plan = &self.graph.plan;
        let at = |name: &str| plan.position(name.split('.').next().unwrap()).unwrap();
        plan.descendants(at(name)).contains(&at(other))
    }

    fn take_effect(&mut self, name: &str) {
        let node = self.graph.node(name);
        if node.reads_only {
            return;
        }
        let doubled = !self.present.insert(name.to_owned());
        if doubled && node.settle != Settle::Rerun {
            self.accuse(format!("{name} took effect twice"));
        }
    }

    /// The next thing that happens to the saga, and what it makes of it.
    fn next(&mut self, state: &mut State, rest: Option<Rest>) -> Result<Result<Turn, String>, Crash> {
        if let Some(order) = self.operator(state, rest) {
            return Ok(self.say(state, "ann", order));
        }
        if let Some((by, order)) = self.approver(state) {
            return Ok(self.say(state, by, order));
        }
        let first = (0..self.running.len()).min_by_key(|at| self.running[*at].ends_at);
        let due = state.next_wake_ms(self.now_ms);
        let mut inputs = Vec::new();
        match (first, due) {
            (Some(first), due) if due.is_none_or(|due| self.running[first].ends_at <= due) => {
                self.now_ms = self.now_ms.max(self.running[first].ends_at);
                inputs.push(self.finish(first)?);
                // Sometimes another end comes in the same breath.
                if !self.running.is_empty() && self.chance("batch", 4) == 0 {
                    inputs.push(self.finish(0)?);
                }
            }
            (_, Some(due)) => {
                self.now_ms = due;
                inputs.push(Input::Wake);
            }
            (_, None) => return Ok(Err(format!("nothing moves and nothing rests: {}", state.word()))),
        }
        let mut turn = Turn::default();
        for input in inputs {
            match machine::accept(state, input, self.moment()) {
                Ok(accepted) => turn.join(accepted),
                Err(error) => return Ok(Err(format!("an input was not taken: {error}"))),
            }
        }
        Ok(Ok(turn))
    }

    fn say(&mut self, state: &mut State, by: &str, order: Order) -> Result<Turn, String> {
        let is_cancel = order == Order::Cancel;
        let left = match &order {
            Order::Resolve { step, resolution: Resolution::Skip } => Some(step.clone()),
            _ => None,
        };
        let authority = Authority { by: by.into(), reason: "looked".into() };
        match machine::accept(state, Input::Command(Command { order, authority }), self.moment()) {
            Ok(turn) => {
                // It counts once it is on disk; a crash before that leaves the fact standing that it was said, which the model
                // must not be told.
                if is_cancel && turn.records.iter().any(|record| matches!(record.event, Event::Halted(_))) {
                    self.facts.cancelled = true;
                }
                self.facts.left.extend(left.filter(|step| self.present.contains(step)));
                Ok(turn)
            }
            Err(StepError::Refused(_)) if is_cancel => Ok(Turn::default()),
            Err(error) => Err(format!("an operator's word was not taken: {error}")),
        }
    }

    /// What an operator does who looks at the world.
    fn operator(&mut self, state: &State, rest: Option<Rest>) -> Option<Order> {
        if rest == Some(Rest::Paused) {
            return Some(Order::Resume);
        }
        let cancel_at = self.graph.cancels.get(self.cancels).copied();
        if cancel_at.is_some_and(|at| self.appends >= at) {
            self.cancels += 1;
            return Some(Order::Cancel);
        }
        if rest != Some(Rest::Stuck) {
            return None;
        }
        let (name, _, slot) = state.nodes().find(|(_, _, slot)| matches!(slot.stage(), Stage::Parked { .. }))?;
        let Stage::Parked { kind, .. } = slot.stage() else { unreachable!("it is parked") };
        let is_present = self.present.contains(&name);
        let resolution = match kind {
            RunKind::Compensate if is_present => Resolution::Skip,
            RunKind::Compensate => Resolution::Applied { output: Value::Null },
            _ if is_present => Resolution::Applied { output: self.output(&name) },
            _ if self.graph.node(&name).past => Resolution::Skip,
            _ => Resolution::NotApplied,
        };
        Some(Order::Resolve { step: name, resolution })
    }

    fn approver(&self, state: &State) -> Option<(&'static str, Order)> {
        for (step, slot) in state.asking() {
            let Kind::Approval { yes } = self.graph.node(&step.name).kind else { continue };
            let given = slot.votes().len();
            let by = ["ann", "bob", "eve"][given.min(2)];
            if given < yes {
                return Some((by, Order::Approve { step: step.name.clone() }));
            }
            // Some say no, others nothing.
            if yes == 1 {
                return Some((by, Order::Deny { step: step.name.clone() }));
            }
        }
        None
    }

    fn output(&self, name: &str) -> Value {
        json!({"of": name, "flag": self.graph.node(name).flag})
    }

    /// A run comes to its end.
    fn finish(&mut self, at: usize) -> Result<Input, Crash> {
        let (id, told_to_end) = (self.running[at].run.id.clone(), self.running[at].told_to_end);
        let (name, nth) = (id.step.clone(), self.count(&id.step, id.kind));
        let script = self.graph.scripts[&name].clone();
        let failed = || StepOutcome::ended(Ending::Exited(1));
        self.pass()?;
        let outcome = match id.kind {
            RunKind::Forward if told_to_end => {
                if !script.always_fails && self.chance(&name, 2) == 0 {
                    self.take_effect(&name);
                }
                if self.plant == Plant::LosersForgotten { failed() } else { StepOutcome::ended(Ending::Cancelled) }
            }
            RunKind::Forward if script.always_fails || nth <= script.fails => failed(),
            RunKind::Forward if self.hangs(&id) => {
                if script.hang_applies {
                    self.take_effect(&name);
                }
                StepOutcome::ended(Ending::TimedOut)
            }
            RunKind::Forward => {
                self.take_effect(&name);
                StepOutcome::ok(self.output(&name))
            }
            RunKind::Check if nth <= script.probe_fails => failed(),
            RunKind::Check => {
                let applied = self.present.contains(&name) && self.plant != Plant::LyingProbe;
                StepOutcome::ok(json!({"applied": applied, "outputs": self.output(&name)}))
            }
            RunKind::Compensate if script.undo_always_fails || nth <= script.undo_fails => failed(),
            RunKind::Compensate => {
                self.present.remove(&name);
                StepOutcome::ok(Value::Null)
            }
        };
        self.running.remove(at);
        if !matches!(outcome.ending, Ending::TimedOut | Ending::Cancelled) {
            self.kept.insert(id.to_string(), outcome.clone());
        }
        self.pass()?;
        self.answered(&id, &outcome);
        Ok(Input::Finished { run: id, outcome })
    }
}
