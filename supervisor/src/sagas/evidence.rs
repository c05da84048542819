//! From a saga's journal to its indicators: what the supervisor itself saw of its steps.
//!
//! Correctness counts each attempt of a step and of an undo by its answer (exit code and output); latency how long a step's
//! attempts took; delegation each step as a whole, after its retries: it is work that the saga gave away. What an operator
//! or a deadline cut off, and what never began, says nothing about the work and counts for nothing. Records are counted when
//! they have just become durable, so a replay counts nothing twice.

use std::collections::HashMap;

use agt_saga::id::RunKind;
use agt_saga::outcome::{Ending, Verdict};
use agt_saga::record::{Attempt, Event, Finished, Record};
use agt_sre::sli::{Evidence, Outcome, Sample, Severity, Sli};

/// Attempts whose beginning is remembered; a saga has at most a few at once.
const BEGUN_MAX: usize = 1024;

/// When the attempts of one saga began, in milliseconds since the epoch.
#[derive(Debug, Default)]
pub struct Witness {
    begun: HashMap<(String, RunKind, u32), i64>,
}

/// What a batch of records says.
#[derive(Debug, Default, PartialEq)]
pub struct Testimony {
    /// For the indicators.
    pub samples: Vec<Sample>,
    /// The gravest thing that a step did wrong.
    pub violation: Option<Severity>,
}

fn key(run: &Attempt) -> (String, RunKind, u32) {
    (run.step.clone(), run.kind, run.attempt)
}

fn sample(sli: Sli, outcome: Outcome) -> Sample {
    Sample::new(sli, outcome, Evidence::Supervisor)
}

impl Witness {
    /// Takes what has just become durable.
    pub fn hear(&mut self, records: &[Record]) -> Testimony {
        let mut said = Testimony::default();
        for record in records {
            match &record.event {
                Event::Started(run) if self.begun.len() < BEGUN_MAX => {
                    self.begun.insert(key(run), record.at);
                }
                Event::Finished(finished) => {
                    let began = self.begun.remove(&key(&finished.run));
                    judge(finished, began.map(|began| record.at - began), &mut said);
                }
                Event::GaveUp(_) => said.samples.push(sample(Sli::Delegation, Outcome::Bad)),
                Event::Parked(parked) if parked.kind != RunKind::Compensate => {
                    said.samples.push(sample(Sli::Delegation, Outcome::Bad));
                }
                _ => {}
            }
        }
        said
    }
}

fn judge(finished: &Finished, took_ms: Option<i64>, said: &mut Testimony) {
    let kind = finished.run.kind;
    if kind == RunKind::Check {
        return;
    }
    match &finished.outcome.ending {
        Ending::Cancelled | Ending::NotStarted { .. } => return,
        Ending::Killed { .. } if finished.outcome.is_struck() => return,
        Ending::Killed { .. } | Ending::TimedOut => said.violation = Some(Severity::Low),
        Ending::Exited(_)
        | Ending::Signalled(_)
        | Ending::Status(_)
        | Ending::Errored { .. }
        | Ending::NoAnswer { .. }
        | Ending::BadOutput { .. } => {}
    }
    let good = finished.verdict == Verdict::Ok;
    said.samples.push(sample(Sli::Correctness, if good { Outcome::Good } else { Outcome::Bad }));
    if kind == RunKind::Forward {
        if let Some(took_ms) = took_ms {
            said.samples.push(sample(Sli::Latency, Outcome::Value(took_ms.max(0) as f64 / 1000.0)));
        }
        if good {
            said.samples.push(sample(Sli::Delegation, Outcome::Good));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_saga::outcome::{Again, StepOutcome};
    use agt_saga::record::{Effect, GaveUp};
    use serde_json::Value;

    use super::*;

    fn run(kind: RunKind) -> Attempt {
        Attempt { step: "pay".to_owned(), kind, attempt: 1 }
    }

    fn heard(kind: RunKind, verdict: Verdict, outcome: StepOutcome) -> Testimony {
        let mut witness = Witness::default();
        let finished = Finished { run: run(kind), verdict, outcome };
        witness.hear(&[Record::new(1000, Event::Started(run(kind))), Record::new(3500, Event::Finished(finished))])
    }

    fn slis(said: &Testimony) -> Vec<(Sli, Outcome)> {
        said.samples.iter().map(|sample| (sample.sli, sample.outcome)).collect()
    }

    #[test]
    fn a_step_counts_by_its_answer_its_time_and_as_work_given_away() {
        let good = heard(RunKind::Forward, Verdict::Ok, StepOutcome::ok(Value::Null));
        let expected =
            [(Sli::Correctness, Outcome::Good), (Sli::Latency, Outcome::Value(2.5)), (Sli::Delegation, Outcome::Good)];
        assert_eq!(slis(&good), expected);
        let unusable = Ending::BadOutput { reason: "no JSON".to_owned() };
        let bad = heard(RunKind::Forward, Verdict::Unusable, StepOutcome::ended(unusable));
        assert_eq!(slis(&bad)[0], (Sli::Correctness, Outcome::Bad));
        let undo = heard(RunKind::Compensate, Verdict::Failed, StepOutcome::ended(Ending::Exited(1)));
        assert_eq!(slis(&undo), [(Sli::Correctness, Outcome::Bad)]);
    }

    #[test]
    fn a_retry_spoils_correctness_and_only_giving_up_spoils_delegation() {
        let mut witness = Witness::default();
        let gave_up = GaveUp { step: "pay".to_owned(), effect: Effect::Absent, why: "it failed".to_owned() };
        let said = witness.hear(&[Record::new(1, Event::GaveUp(gave_up))]);
        assert_eq!(slis(&said), [(Sli::Delegation, Outcome::Bad)]);
        let failed = heard(RunKind::Forward, Verdict::Failed, StepOutcome::ended(Ending::Exited(1)));
        assert!(!slis(&failed).iter().any(|(sli, _)| *sli == Sli::Delegation));
    }

    #[test]
    fn what_was_cut_off_by_others_counts_for_nothing() {
        let killed = Ending::Killed { reason: "manual".to_owned(), again: Again::No };
        for ending in [Ending::Cancelled, killed] {
            let said = heard(RunKind::Forward, Verdict::Unknown, StepOutcome::ended(ending));
            assert_eq!(said, Testimony::default());
        }
        let late = heard(RunKind::Forward, Verdict::Unknown, StepOutcome::ended(Ending::TimedOut));
        assert_eq!(late.violation, Some(Severity::Low));
    }
}
