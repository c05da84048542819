//! The data of a saga: what references lead to, where the saga stands.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::slot::{Slot, Stage};
use super::state::State;
use crate::plan::{Source, Step, walk};

impl State {
    /// The step of a slot.
    pub(super) fn step(&self, at: usize) -> &Step {
        &self.plan.steps()[self.slots[at].of]
    }

    /// The name of a slot: its step's, with the number of the branch behind it.
    pub(super) fn name(&self, at: usize) -> String {
        let step = &self.step(at).name;
        match &self.slots[at].branch {
            Some(branch) => format!("{step}.{}", branch.number),
            None => step.clone(),
        }
    }

    /// The slot of that name.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let Some((step, number)) = name.split_once('.') else { return self.plan.position(name) };
        let branches = self.slots[self.plan.position(step)?].branches.clone()?;
        let at = branches.start.checked_add(number.parse::<usize>().ok()?)?;
        // One name each: not also `a.01`.
        (branches.contains(&at) && self.name(at) == name).then_some(at)
    }

    /// All steps and branches with their names: each step, and behind them the branches of those that fanned out.
    pub fn nodes(&self) -> impl Iterator<Item = (String, &Step, &Slot)> {
        let steps = (0..self.plan.steps().len()).map(|at| (at, self.slots[at].branches.clone().unwrap_or_default()));
        let order = steps.flat_map(|(at, branches)| std::iter::once(at).chain(branches));
        order.map(|at| (self.name(at), self.step(at), &self.slots[at]))
    }

    /// The steps that operators are asked about.
    pub fn asking(&self) -> impl Iterator<Item = (&Step, &Slot)> {
        self.steps().filter(|(_, slot)| matches!(slot.stage, Stage::Asking { .. }))
    }

    /// What the slot at `at` is given.
    ///
    /// # Errors
    /// The reference that leads nowhere.
    pub(super) fn inputs(&self, at: usize) -> Result<Map<String, Value>, String> {
        let mut inputs = Map::new();
        for (name, source) in &self.step(at).inputs {
            let value = self.value(source, Some(at)).ok_or_else(|| nowhere(name, source))?;
            inputs.insert(name.clone(), value.into_owned());
        }
        Ok(inputs)
    }

    /// The same question without the answer.
    pub(super) fn missing_input(&self, at: usize) -> Option<String> {
        let mut inputs = self.step(at).inputs.iter();
        let (name, source) = inputs.find(|(_, source)| self.value(source, Some(at)).is_none())?;
        Some(nowhere(name, source))
    }

    /// The list that a step fans out over, and how many of its branches have to be done.
    ///
    /// # Errors
    /// Why it can't.
    pub(super) fn items(&self, at: usize) -> Result<(&Vec<Value>, usize), String> {
        let each = self.step(at).each.as_ref().ok_or("it doesn't fan out")?;
        let list = self.lookup(&each.items).and_then(Value::as_array).ok_or("what it fans out over is no list")?;
        let most = crate::lint::ITEMS_MAX;
        if list.len() > most {
            return Err(format!("the list that it fans out over has {} items, the limit is {most}", list.len()));
        }
        let enough = each.enough.of(list.len());
        if enough > list.len() {
            return Err(format!("{enough} branches have to be done, and the list has {} items", list.len()));
        }
        Ok((list, enough))
    }

    /// Whether the step's condition lets it run.
    ///
    /// # Errors
    /// Why that can't be judged.
    pub(super) fn is_wanted(&self, at: usize) -> Result<bool, String> {
        let Some(when) = &self.step(at).when else { return Ok(true) };
        when.holds(&|source| self.lookup(source)).map_err(|fault| format!("its condition can't be judged: {fault}"))
    }

    /// What a reference leads to, outside of any branch.
    fn lookup<'a>(&'a self, source: &'a Source) -> Option<&'a Value> {
        match source {
            Source::Literal(value) => Some(value),
            Source::Output { step, keys, default } => {
                let found = walk(&self.slots[self.plan.position(step)?].output, keys);
                found.filter(|value| !value.is_null() || default.is_none()).or(default.as_ref())
            }
            Source::Param { name, keys } => walk(self.params.get(name)?, keys),
            Source::Item { .. } | Source::Index => None,
        }
    }

    fn value<'a>(&'a self, source: &'a Source, at: Option<usize>) -> Option<Cow<'a, Value>> {
        let branch = || at.and_then(|at| self.slots[at].branch.as_ref());
        match source {
            Source::Item { keys } => walk(&branch()?.item, keys).map(Cow::Borrowed),
            Source::Index => Some(Cow::Owned(branch()?.number.into())),
            _ => self.lookup(source).map(Cow::Borrowed),
        }
    }
}

fn nowhere(name: &str, source: &Source) -> String {
    let path = |keys: &[String]| keys.iter().map(|key| format!(".{key}")).collect::<String>();
    match source {
        Source::Output { step, keys, .. } => format!("input `{name}`: step `{step}` gave no outputs{}", path(keys)),
        Source::Param { name: param, keys } => format!("input `{name}`: there is no params.{param}{}", path(keys)),
        Source::Item { keys } => format!("input `{name}`: there is no item{}", path(keys)),
        Source::Literal(_) | Source::Index => format!("input `{name}` is missing"),
    }
}
