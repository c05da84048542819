//! From each step's spec to its resolved form; the rules of numbers, rings and names.
//!
//! What a step does is resolved in `calls`, what it is to its saga in `class`, where its data comes from in `values`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ATTEMPTS_MAX;
use super::graph::{Shape, is_name};
use super::problem::{Path, Problem, ProblemKind};
use crate::plan::{CHECK_TIMEOUT_DEFAULT_MS, Call, Class, Param, PlanDocument, Retry, Step, TIMEOUT_DEFAULT_MS, Work};
use crate::schema::Schema;
use crate::spec::{CheckSpec, CompensateSpec, NonRetryableSpec, ParamSpec, RetrySpec, SagaSpec, StepSpec};

/// Attempts of a compensation when nothing is said.
const COMPENSATE_ATTEMPTS_DEFAULT: u32 = 5;
/// Attempts of a step past the pivot when nothing is said: there is no way back, so giving up early helps nobody.
const RETRIABLE_ATTEMPTS_DEFAULT: u32 = 10;
/// Attempts of a check.
const CHECK_ATTEMPTS: u32 = 3;

pub(super) fn document(spec: &SagaSpec, shape: &Shape, problems: &mut Vec<Problem>) -> PlanDocument {
    let mut linter = Linter { spec, shape, problems };
    let timeout_ms = spec.timeout.map(|limit| linter.milliseconds(limit, Path::default().key("timeout")));
    let params = spec.params.iter().map(|(name, param)| (name.clone(), linter.param(name, param))).collect();
    let steps = spec.steps.list.iter().enumerate().map(|(at, step)| linter.step(at, step)).collect();
    PlanDocument { name: spec.name.clone(), ring: spec.ring, timeout_ms, params, steps }
}

pub(super) struct Linter<'a> {
    pub(super) spec: &'a SagaSpec,
    pub(super) shape: &'a Shape,
    problems: &'a mut Vec<Problem>,
}

impl Linter<'_> {
    pub(super) fn report(&mut self, path: Path, kind: ProblemKind) {
        self.problems.push(Problem { path, kind });
    }

    fn param(&mut self, name: &str, spec: &ParamSpec) -> Param {
        let path = Path::default().key("params").key(name);
        if !is_name(name) {
            self.report(path.clone(), ProblemKind::Name { name: name.to_owned() });
        }
        let schema = self.schema(spec.schema.as_ref(), path.key("schema"));
        if let (Some(schema), Some(default)) = (&schema, &spec.default)
            && let Err(fault) = schema.check(default)
        {
            self.report(path.key("default"), ProblemKind::BadDefault { fault });
        }
        Param { default: spec.default.clone(), schema }
    }

    fn schema(&mut self, text: Option<&serde_json::Value>, path: Path) -> Option<Schema> {
        match Schema::new(text?.clone()) {
            Ok(schema) => Some(schema),
            Err(error) => {
                self.report(path, ProblemKind::BadSchema { fault: error.to_string() });
                None
            }
        }
    }

    fn step(&mut self, at: usize, spec: &StepSpec) -> Step {
        let path = self.shape.paths[at].clone();
        let call = self.call(at, spec);
        let class = self.class(at, spec, &call);
        let past_pivot = self.shape.past_pivot(at);
        let own = matches!(call, Call::Wait(_) | Call::Approval(_));
        let retry_default = if past_pivot && !own { Retry::times(RETRIABLE_ATTEMPTS_DEFAULT) } else { Retry::once() };
        let timeout_ms = match call {
            Call::Wait(ref wait) => wait.ms,
            _ => self.timeout(spec.timeout, &path, TIMEOUT_DEFAULT_MS),
        };
        let forward = Work {
            call,
            ring: self.ring(spec.ring, &path),
            workdir: spec.workdir.clone(),
            env: spec.env.clone(),
            secrets: self.secrets(&spec.secrets, &path),
            timeout_ms,
            retry: self.retry(spec.retry.as_ref(), &path, retry_default),
        };
        let when = spec.when.as_ref().and_then(|when| self.condition(at, when, &path.key("when")));
        let each = spec.each.as_ref().map(|each| self.each(at, each, class));
        let inputs = spec.inputs.iter().map(|(name, value)| (name.clone(), self.input(at, name, value))).collect();
        let output_schema = self.schema(spec.output_schema.as_ref(), path.key("output_schema"));
        for (one, other, first, second) in [
            (spec.check.is_some(), spec.probe.is_some(), "check", "probe"),
            (spec.compensate.is_some(), spec.undo.is_some(), "compensate", "undo"),
        ] {
            if one && other {
                self.report(path.key(second), ProblemKind::Twice { first, second });
            }
        }
        let check = spec.probing().map(|(check, word)| self.probe(at, check, word, &forward));
        let compensate = spec.undoing().map(|(undo, word)| self.undo(at, undo, word, &forward));
        self.undo_rules(at, spec, class);
        let files = self.files(at, spec, &forward.call);
        let compensate = compensate.or_else(|| {
            let drop =
                Work { call: Call::Discard, retry: Retry::times(COMPENSATE_ATTEMPTS_DEFAULT), ..forward.clone() };
            files.map(|_| drop)
        });
        let on_unknown = self.on_unknown(at, spec, class, compensate.is_some());
        let (name, needs) = (spec.name.clone(), spec.needs.clone());
        Step { name, class, needs, when, each, inputs, forward, output_schema, on_unknown, check, compensate, files }
    }

    fn probe(&mut self, at: usize, check: &CheckSpec, word: &'static str, forward: &Work) -> Work {
        let path = self.shape.paths[at].key(word);
        Work {
            call: self.probe_call(at, check, &path),
            timeout_ms: self.timeout(check.timeout, &path, CHECK_TIMEOUT_DEFAULT_MS),
            retry: Retry::times(CHECK_ATTEMPTS),
            ..forward.clone()
        }
    }

    fn undo(&mut self, at: usize, undo: &CompensateSpec, word: &'static str, forward: &Work) -> Work {
        let path = self.shape.paths[at].key(word);
        Work {
            call: self.undo_call(at, undo, &path),
            ring: self.ring(undo.ring, &path).or(forward.ring),
            timeout_ms: self.timeout(undo.timeout, &path, TIMEOUT_DEFAULT_MS),
            retry: self.retry(undo.retry.as_ref(), &path, Retry::times(COMPENSATE_ATTEMPTS_DEFAULT)),
            ..forward.clone()
        }
    }

    fn ring(&mut self, ring: Option<u8>, owner: &Path) -> Option<u8> {
        if let (Some(ring), Some(ceiling)) = (ring, self.spec.ring)
            && ring < ceiling
        {
            self.report(owner.key("ring"), ProblemKind::RingAboveCeiling { ring, ceiling });
        }
        ring
    }

    fn secrets(&mut self, secrets: &BTreeMap<String, String>, owner: &Path) -> BTreeMap<String, String> {
        for (name, reference) in secrets {
            let path = owner.key("secrets").key(name);
            if !is_name(name) {
                self.report(path, ProblemKind::Name { name: name.clone() });
            } else if reference.is_empty() {
                self.report(path, ProblemKind::Empty { key: "secrets" });
            }
        }
        secrets.clone()
    }

    fn timeout(&mut self, limit: Option<Duration>, owner: &Path, default_ms: u64) -> u64 {
        limit.map_or(default_ms, |limit| self.milliseconds(limit, owner.key("timeout")))
    }

    pub(super) fn milliseconds(&mut self, limit: Duration, path: Path) -> u64 {
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
        let (mut non_retryable, mut non_retryable_errors) = (Vec::new(), Vec::new());
        for what in &spec.non_retryable {
            match what {
                NonRetryableSpec::Code(code) => non_retryable.push(*code),
                NonRetryableSpec::Error(error) => non_retryable_errors.push(error.clone()),
            }
        }
        Retry {
            attempts: spec.attempts,
            initial_ms: whole_ms(spec.backoff.initial),
            max_ms: whole_ms(spec.backoff.max),
            non_retryable,
            non_retryable_errors,
        }
    }

    /// Whether an approval stands somewhere before the step.
    pub(super) fn is_approved(&self, at: usize) -> bool {
        let steps = self.spec.steps.list.iter().enumerate();
        steps.filter(|(_, step)| step.approval.is_some()).any(|(before, _)| self.shape.ancestors[at][before])
    }

    pub(super) fn pivot_name(&self) -> String {
        self.shape.pivot.map(|at| self.spec.steps.list[at].name.clone()).unwrap_or_default()
    }

    pub(super) fn is_read_only(class: Class) -> bool {
        class == Class::ReadOnly
    }
}

pub(super) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
