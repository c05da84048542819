//! The rules of each step by itself, and its resolved form.

use std::time::Duration;

use serde_json::Value;

use super::ATTEMPTS_MAX;
use super::graph::{Shape, candidates, is_name};
use super::problem::{Path, Problem, ProblemKind};
use crate::plan::{
    CHECK_TIMEOUT_DEFAULT_MS, Class, OnUnknown, PlanDocument, Retry, Source, Step, TIMEOUT_DEFAULT_MS, Work,
};
use crate::spec::{EffectsSpec, OnUnknownSpec, RetrySpec, SagaSpec, StepSpec};

/// Attempts of a compensation when nothing is said.
const COMPENSATE_ATTEMPTS_DEFAULT: u32 = 5;
/// Attempts of a step past the pivot when nothing is said: there is no way back, so giving up early helps nobody.
const RETRIABLE_ATTEMPTS_DEFAULT: u32 = 10;
/// Attempts of a check.
const CHECK_ATTEMPTS: u32 = 3;

pub(super) fn document(spec: &SagaSpec, shape: &Shape, problems: &mut Vec<Problem>) -> PlanDocument {
    let mut linter = Linter { spec, shape, problems };
    let timeout_ms = spec.timeout.map(|limit| linter.milliseconds(limit, Path::default().key("timeout")));
    let steps = spec.steps.list.iter().enumerate().map(|(at, step)| linter.step(at, step)).collect();
    PlanDocument { name: spec.name.clone(), ring: spec.ring, timeout_ms, steps }
}

struct Linter<'a> {
    spec: &'a SagaSpec,
    shape: &'a Shape,
    problems: &'a mut Vec<Problem>,
}

impl Linter<'_> {
    fn report(&mut self, path: Path, kind: ProblemKind) {
        self.problems.push(Problem { path, kind });
    }

    fn step(&mut self, at: usize, spec: &StepSpec) -> Step {
        let path = self.shape.paths[at].clone();
        let class = self.class(at, spec);
        let past_pivot = self.shape.past_pivot(at);
        let retry_default = if past_pivot { Retry::times(RETRIABLE_ATTEMPTS_DEFAULT) } else { Retry::once() };
        let forward = Work {
            command: self.command(&spec.command, path.key("command")),
            ring: spec.ring,
            workdir: spec.workdir.clone(),
            env: spec.env.clone(),
            timeout_ms: self.timeout(spec.timeout, &path, TIMEOUT_DEFAULT_MS),
            retry: self.retry(spec.retry.as_ref(), &path, retry_default),
        };
        let inputs = spec.inputs.iter().map(|(name, value)| (name.clone(), self.input(at, name, value))).collect();
        let check = spec.check.as_ref().map(|check| Work {
            command: self.command(&check.command, path.key("check")),
            timeout_ms: self.timeout(check.timeout, &path.key("check"), CHECK_TIMEOUT_DEFAULT_MS),
            retry: Retry::times(CHECK_ATTEMPTS),
            ..forward.clone()
        });
        let compensate = spec.compensate.as_ref().map(|undo| {
            let path = path.key("compensate");
            Work {
                command: self.command(&undo.command, path.key("command")),
                ring: undo.ring.or(spec.ring),
                timeout_ms: self.timeout(undo.timeout, &path, TIMEOUT_DEFAULT_MS),
                retry: self.retry(undo.retry.as_ref(), &path, Retry::times(COMPENSATE_ATTEMPTS_DEFAULT)),
                ..forward.clone()
            }
        });
        self.undo_rules(at, spec, class);
        let on_unknown = self.on_unknown(at, spec, class);
        let (name, needs) = (spec.name.clone(), spec.needs.clone());
        Step { name, class, needs, inputs, forward, on_unknown, check, compensate }
    }

    fn class(&mut self, at: usize, spec: &StepSpec) -> Class {
        if self.shape.pivot == Some(at) {
            Class::Pivot
        } else if spec.effects == EffectsSpec::None {
            Class::ReadOnly
        } else if self.shape.past_pivot(at) {
            Class::Retriable
        } else if spec.compensate.is_none() && self.shape.comes_last(at) {
            Class::Last
        } else {
            Class::Compensatable
        }
    }

    /// Whether what a step can do to the world fits the place where it stands.
    fn undo_rules(&mut self, at: usize, spec: &StepSpec, class: Class) {
        let path = self.shape.paths[at].clone();
        if spec.effects == EffectsSpec::None && spec.compensate.is_some() {
            self.report(path.key("compensate"), ProblemKind::CompensationOfNothing);
        }
        if class == Class::Compensatable && spec.compensate.is_none() {
            self.report(path.clone(), ProblemKind::CompensationMissing);
        }
        let Some(pivot) = self.shape.pivot.filter(|pivot| *pivot != at) else { return };
        let pivot_name = self.spec.steps.list[pivot].name.clone();
        if self.shape.past_pivot(at) {
            if spec.effects == EffectsSpec::External && !spec.idempotent {
                self.report(path.clone(), ProblemKind::NotRetriable);
            }
            if spec.compensate.is_some() {
                self.report(path.key("compensate"), ProblemKind::CompensationPastPivot { pivot: pivot_name });
            }
        } else if !self.shape.ancestors[pivot][at] {
            self.report(path, ProblemKind::BesidePivot { pivot: pivot_name });
        }
    }

    fn on_unknown(&mut self, at: usize, spec: &StepSpec, class: Class) -> OnUnknown {
        let repeatable = spec.idempotent || class == Class::ReadOnly;
        let path = self.shape.paths[at].key("on_unknown");
        match spec.on_unknown {
            Some(OnUnknownSpec::Rerun) => {
                if !repeatable {
                    self.report(path, ProblemKind::RerunNotIdempotent);
                }
                OnUnknown::Rerun
            }
            Some(OnUnknownSpec::Check) => {
                if spec.check.is_none() {
                    self.report(path, ProblemKind::CheckMissing);
                }
                OnUnknown::Check
            }
            Some(OnUnknownSpec::Compensate) => {
                if spec.compensate.is_none() {
                    self.report(path, ProblemKind::CompensateForUnknownMissing);
                }
                OnUnknown::Compensate
            }
            Some(OnUnknownSpec::Operator) => OnUnknown::Operator,
            None if repeatable => OnUnknown::Rerun,
            None if spec.check.is_some() => OnUnknown::Check,
            None if spec.compensate.is_some() => OnUnknown::Compensate,
            None => OnUnknown::Operator,
        }
    }

    fn command(&mut self, command: &[String], path: Path) -> Vec<String> {
        if command.first().is_none_or(String::is_empty) {
            self.report(path, ProblemKind::EmptyCommand);
        }
        command.to_vec()
    }

    fn timeout(&mut self, limit: Option<Duration>, owner: &Path, default_ms: u64) -> u64 {
        limit.map_or(default_ms, |limit| self.milliseconds(limit, owner.key("timeout")))
    }

    fn milliseconds(&mut self, limit: Duration, path: Path) -> u64 {
        if limit < Duration::from_millis(1) {
            self.report(path, ProblemKind::ZeroTimeout);
        }
        whole_ms(limit)
    }

    fn retry(&mut self, spec: Option<&RetrySpec>, owner: &Path, default: Retry) -> Retry {
        let Some(spec) = spec else { return default };
        let path = owner.key("retry");
        if spec.attempts == 0 || spec.attempts > ATTEMPTS_MAX {
            self.report(path.key("attempts"), ProblemKind::Attempts { found: spec.attempts });
        }
        if spec.backoff.initial > spec.backoff.max {
            self.report(path.key("backoff"), ProblemKind::Backoff);
        }
        Retry {
            attempts: spec.attempts,
            initial_ms: whole_ms(spec.backoff.initial),
            max_ms: whole_ms(spec.backoff.max),
            non_retryable: spec.non_retryable.clone(),
        }
    }

    fn input(&mut self, at: usize, name: &str, value: &Value) -> Source {
        let path = self.shape.paths[at].key("inputs").key(name);
        if !is_name(name) {
            self.report(path.clone(), ProblemKind::Name { name: name.to_owned() });
        }
        if let Some(literal) = escaped(value) {
            return Source::Literal(literal.clone());
        }
        let Some(text) = value.as_str().filter(|text| text.starts_with("steps.")) else {
            return Source::Literal(value.clone());
        };
        let Some((step, keys)) = reference(text) else {
            self.report(path, ProblemKind::BadReference { text: text.to_owned() });
            return Source::Literal(Value::Null);
        };
        match self.shape.positions.get(step) {
            None => {
                let candidates = candidates(self.spec, at);
                self.report(path, ProblemKind::UnknownInput { name: step.to_owned(), candidates });
            }
            Some(before) if !self.shape.ancestors[at][*before] => {
                self.report(path, ProblemKind::InputNotBefore { name: step.to_owned() });
            }
            Some(_) => {}
        }
        Source::Output { step: step.to_owned(), keys: keys.into_iter().map(str::to_owned).collect() }
    }
}

/// The value inside `{literal: ...}`.
fn escaped(value: &Value) -> Option<&Value> {
    value.as_object().filter(|map| map.len() == 1)?.get("literal")
}

/// The parts of `steps.NAME.outputs.KEY.KEY...`.
fn reference(text: &str) -> Option<(&str, Vec<&str>)> {
    let mut parts = text.split('.');
    let (Some("steps"), Some(step), Some("outputs")) = (parts.next(), parts.next(), parts.next()) else { return None };
    let keys: Vec<&str> = parts.collect();
    (is_name(step) && keys.iter().all(|key| !key.is_empty())).then_some((step, keys))
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
