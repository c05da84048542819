//! Where data comes from: inputs, conditions, the lists of fan-outs.

use serde_json::Value;

use super::ITEMS_MAX;
use super::graph::{candidates, is_name};
use super::problem::{Path, ProblemKind};
use super::resolve::Linter;
use crate::plan::{Class, Condition, Each, Enough, Source, Test};
use crate::spec::{EachSpec, EnoughSpec, WhenSpec};

/// Which references mean something where a text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Steps and parameters.
    Step,
    /// Those, and the item of a fan-out.
    Branch,
}

impl Linter<'_> {
    pub(super) fn input(&mut self, at: usize, name: &str, value: &Value) -> Source {
        let path = self.shape.paths[at].key("inputs").key(name);
        if !is_name(name) {
            self.report(path.clone(), ProblemKind::Name { name: name.to_owned() });
        }
        let scope = if self.spec.steps.list[at].each.is_some() { Scope::Branch } else { Scope::Step };
        self.value(at, value, scope, &path)
    }

    /// A value of the file: a literal, or a reference.
    fn value(&mut self, at: usize, value: &Value, scope: Scope, path: &Path) -> Source {
        if let Some(literal) = escaped(value) {
            return Source::Literal(literal.clone());
        }
        if let Some((text, default)) = self.with_default(value) {
            return match self.reference(at, text, scope, path) {
                Some(Source::Output { step, keys, .. }) => {
                    Source::Output { step, keys, default: Some(default.clone()) }
                }
                Some(other) => other,
                None => Source::Literal(Value::Null),
            };
        }
        match value.as_str().filter(|text| self.is_reference(text, scope)) {
            Some(text) => self.reference(at, text, scope, path).unwrap_or(Source::Literal(Value::Null)),
            None => Source::Literal(value.clone()),
        }
    }

    /// The parts of `{from: REFERENCE, default: VALUE}`.
    fn with_default<'v>(&self, value: &'v Value) -> Option<(&'v str, &'v Value)> {
        let map = value.as_object().filter(|map| map.len() == 2)?;
        let text = map.get("from")?.as_str().filter(|text| self.is_reference(text, Scope::Step))?;
        Some((text, map.get("default")?))
    }

    fn is_reference(&self, text: &str, scope: Scope) -> bool {
        text.starts_with("steps.")
            || (text.starts_with("params.") && !self.spec.params.is_empty())
            || (scope == Scope::Branch && (text == "item" || text == "index" || text.starts_with("item.")))
    }

    /// A reference that leads somewhere; reported otherwise.
    fn reference(&mut self, at: usize, text: &str, scope: Scope, path: &Path) -> Option<Source> {
        let bad = ProblemKind::BadReference { text: text.to_owned() };
        let Some(source) = parsed(text)
            .filter(|source| scope == Scope::Branch || !matches!(source, Source::Item { .. } | Source::Index))
        else {
            self.report(path.clone(), bad);
            return None;
        };
        match &source {
            Source::Output { step, .. } => match self.shape.positions.get(step) {
                None => {
                    let candidates = candidates(self.spec, at);
                    self.report(path.clone(), ProblemKind::UnknownInput { name: step.clone(), candidates });
                }
                Some(before) if !self.shape.ancestors[at][*before] => {
                    self.report(path.clone(), ProblemKind::InputNotBefore { name: step.clone() });
                }
                Some(_) => {}
            },
            Source::Param { name, .. } if !self.spec.params.contains_key(name) => {
                let candidates = self.spec.params.keys().cloned().collect();
                self.report(path.clone(), ProblemKind::UnknownParam { name: name.clone(), candidates });
            }
            _ => {}
        }
        Some(source)
    }

    pub(super) fn condition(&mut self, at: usize, spec: &WhenSpec, path: &Path) -> Option<Condition> {
        let mut parts = Vec::new();
        let tests = tests(spec);
        match &spec.value {
            Some(text) => {
                let value = self.reference(at, text, Scope::Step, &path.key("value"))?;
                let tests = if tests.is_empty() { vec![Test::True] } else { tests };
                parts.extend(tests.into_iter().map(|test| Condition::Is { value: value.clone(), test }));
            }
            None if !tests.is_empty() => self.report(path.clone(), ProblemKind::TestWithoutValue),
            None => {}
        }
        for (list, key) in [(&spec.all, "all"), (&spec.any, "any")] {
            let Some(list) = list else { continue };
            if list.is_empty() {
                self.report(path.key(key), ProblemKind::EmptyCondition);
            }
            let below: Vec<Condition> = (list.iter().enumerate())
                .filter_map(|(number, spec)| self.condition(at, spec, &path.key(key).index(number)))
                .collect();
            parts.push(if key == "all" { Condition::All(below) } else { Condition::Any(below) });
        }
        if let Some(spec) = &spec.not {
            parts.extend(self.condition(at, spec, &path.key("not")).map(|below| Condition::Not(Box::new(below))));
        }
        match parts.len() {
            0 => {
                if *spec == WhenSpec::default() {
                    self.report(path.clone(), ProblemKind::EmptyCondition);
                }
                None
            }
            1 => parts.pop(),
            _ => Some(Condition::All(parts)),
        }
    }

    pub(super) fn each(&mut self, at: usize, spec: &EachSpec, class: Class) -> Each {
        let path = self.shape.paths[at].key("each");
        let items = self.value(at, &spec.items, Scope::Step, &path.key("items"));
        let length = match &items {
            Source::Literal(Value::Array(list)) => Some(list.len()),
            // A reference that leads nowhere was reported.
            Source::Literal(_) if spec.items.as_str().is_some_and(|text| self.is_reference(text, Scope::Step)) => None,
            Source::Literal(_) => {
                self.report(path.key("items"), ProblemKind::NoList);
                None
            }
            _ => None,
        };
        if let Some(found) = length.filter(|length| *length > ITEMS_MAX) {
            self.report(path.key("items"), ProblemKind::TooManyItems { found });
        }
        let enough = match spec.enough {
            EnoughSpec::All => Enough::All,
            EnoughSpec::Any => Enough::Any,
            EnoughSpec::Majority => Enough::Majority,
            EnoughSpec::Count(count) => Enough::Count(count),
        };
        let of = length.unwrap_or(ITEMS_MAX);
        if let Enough::Count(count) = enough
            && (count == 0 || usize::try_from(count).is_ok_and(|count| count > of))
        {
            self.report(path.key("enough"), ProblemKind::Enough { count, of });
        }
        if class == Class::Pivot {
            self.report(path.clone(), ProblemKind::EachPivot);
        } else if enough != Enough::All && !matches!(class, Class::Compensatable | Class::ReadOnly) {
            self.report(path.key("enough"), ProblemKind::LosersStay);
        }
        Each { items, enough }
    }
}

fn tests(spec: &WhenSpec) -> Vec<Test> {
    let tests = [
        spec.equals.clone().map(Test::Equals),
        spec.one_of.clone().map(Test::In),
        spec.above.map(Test::Above),
        spec.below.map(Test::Below),
        spec.exists.map(Test::Exists),
    ];
    tests.into_iter().flatten().collect()
}

/// The value inside `{literal: ...}`.
fn escaped(value: &Value) -> Option<&Value> {
    value.as_object().filter(|map| map.len() == 1)?.get("literal")
}

/// `steps.NAME.outputs.KEY...`, `params.NAME.KEY...`, `item.KEY...`, `index`.
fn parsed(text: &str) -> Option<Source> {
    let mut parts = text.split('.').map(str::to_owned);
    let source = match parts.next()?.as_str() {
        "steps" => {
            let step = parts.next().filter(|name| is_name(name))?;
            parts.next().filter(|word| word == "outputs")?;
            Source::Output { step, keys: parts.collect(), default: None }
        }
        "params" => Source::Param { name: parts.next().filter(|name| is_name(name))?, keys: parts.collect() },
        "item" => Source::Item { keys: parts.collect() },
        "index" if parts.next().is_none() => Source::Index,
        _ => return None,
    };
    let keys: &[String] = match &source {
        Source::Output { keys, .. } | Source::Param { keys, .. } | Source::Item { keys } => keys,
        Source::Literal(_) | Source::Index => &[],
    };
    keys.iter().all(|key| !key.is_empty()).then_some(source)
}
