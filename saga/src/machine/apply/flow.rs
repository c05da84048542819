//! The table's arrows of conditions, timers, approvals and fan-outs.

use serde_json::Value;

use crate::id::RunKind;
use crate::machine::slot::{Branch, Race, Slot, Stage};
use crate::machine::state::{Phase, State};
use crate::outcome::Again;
use crate::plan::Call;
use crate::record::{Asked, Bypassed, Decided, Dropped, Gathered, Rang, Slept, Spread, Vote, Voted};

/// Whether a step has not begun, or is to begin anew.
fn is_fresh(stage: &Stage) -> bool {
    matches!(stage, Stage::Waiting | Stage::Backoff { kind: RunKind::Forward, .. })
}

impl State {
    /// Whether its work is the caller's to do, and not that of its branches or the machine's own.
    pub(in crate::machine) fn is_an_effect(&self, at: usize) -> bool {
        let step = self.step(at);
        let own = matches!(step.forward.call, Call::Wait(_) | Call::Approval(_));
        !own && (step.each.is_none() || self.slots[at].branch.is_some())
    }

    fn may_begin(&self, step: &str, fits: impl Fn(&Call) -> bool) -> Result<(), String> {
        let at = self.at(step)?;
        if !self.slot_goes_forward(at) {
            return Err(format!("step `{step}` would go forward while the saga goes back"));
        }
        if !self.ready(at) || !fits(&self.step(at).forward.call) {
            return Err(format!("step `{step}` can't begin like this"));
        }
        Ok(())
    }

    pub(super) fn bypassed(&mut self, bypassed: &Bypassed) -> Result<(), String> {
        self.may_begin(&bypassed.step, |_| true)?;
        self.leave(&bypassed.step, "be bypassed", Stage::Bypassed, is_fresh)
    }

    pub(super) fn slept(&mut self, slept: &Slept) -> Result<(), String> {
        self.may_begin(&slept.step, |call| matches!(call, Call::Wait(_)))?;
        self.leave(&slept.step, "sleep", Stage::Sleeping { due_ms: slept.due }, is_fresh)
    }

    pub(super) fn rang(&mut self, rang: &Rang) -> Result<(), String> {
        self.leave(&rang.step, "wake", Stage::Done, |from| matches!(from, Stage::Sleeping { .. }))
    }

    pub(super) fn asked(&mut self, asked: &Asked) -> Result<(), String> {
        self.may_begin(&asked.step, |call| matches!(call, Call::Approval(_)))?;
        self.leave(&asked.step, "be asked about", Stage::Asking { due_ms: asked.due }, is_fresh)?;
        let at = self.at(&asked.step)?;
        self.slots[at].votes.clear();
        Ok(())
    }

    pub(super) fn voted(&mut self, voted: &Voted) -> Result<(), String> {
        let at = self.at(&voted.step)?;
        let slot = &mut self.slots[at];
        let twice = slot.votes.iter().any(|vote| vote.authority.by == voted.authority.by);
        if !matches!(slot.stage, Stage::Asking { .. }) || twice {
            return Err(format!("no answer to step `{}` is awaited from {}", voted.step, voted.authority.by));
        }
        slot.votes.push(voted.clone());
        Ok(())
    }

    pub(super) fn decided(&mut self, decided: &Decided) -> Result<(), String> {
        let to = match decided.vote {
            Vote::Approve => Stage::Done,
            Vote::Deny => Stage::Faulted { kind: RunKind::Forward, again: Again::No },
        };
        self.leave(&decided.step, "be decided", to, |from| matches!(from, Stage::Asking { .. }))?;
        if decided.vote == Vote::Approve {
            let at = self.at(&decided.step)?;
            let slot = &mut self.slots[at];
            let by: Vec<&str> = slot.votes.iter().map(|vote| vote.authority.by.as_str()).collect();
            slot.output = serde_json::json!({"approved": true, "by": by});
        }
        Ok(())
    }

    pub(super) fn spread(&mut self, spread: &Spread) -> Result<(), String> {
        self.may_begin(&spread.step, |_| true)?;
        let at = self.at(&spread.step)?;
        if self.step(at).each.is_none() || self.slots[at].branch.is_some() || self.slots[at].branches.is_some() {
            return Err(format!("step `{}` doesn't fan out, or has already", spread.step));
        }
        self.leave(&spread.step, "fan out", Stage::Spread, is_fresh)?;
        let (of, first) = (self.slots[at].of, self.slots.len());
        let branch = |(item, number): (&Value, u32)| {
            let branch = Branch { number, item: item.clone(), race: Race::On };
            Slot { branch: Some(branch), ..Slot::new(of) }
        };
        self.slots.extend(spread.items.iter().zip(0..).map(branch));
        self.slots[at].branches = Some(first..self.slots.len());
        Ok(())
    }

    pub(super) fn gathered(&mut self, gathered: &Gathered) -> Result<(), String> {
        let at = self.at(&gathered.step)?;
        let branches = self.slots[at].branches.clone().unwrap_or_default();
        let wins = |branch: usize| {
            let number = self.slots[branch].branch.as_ref().map(|branch| branch.number);
            number.is_some_and(|number| gathered.winners.contains(&number))
        };
        let winners: Vec<usize> = branches.clone().filter(|branch| wins(*branch)).collect();
        let done =
            |at: &usize| !self.slots[*at].is_lost() && matches!(self.slots[*at].stage, Stage::Done | Stage::Skipped);
        if winners.len() != gathered.winners.len() || !winners.iter().all(done) {
            return Err(format!("a branch of `{}` that is to count is not done", gathered.step));
        }
        self.leave(&gathered.step, "be gathered", Stage::Done, |from| *from == Stage::Spread)?;
        self.slots[at].output = winners.iter().map(|branch| self.slots[*branch].output.clone()).collect();
        self.lose(at, |branch| !winners.contains(&branch));
        Ok(())
    }

    pub(super) fn dropped(&mut self, dropped: &Dropped) -> Result<(), String> {
        let at = self.at(&dropped.step)?;
        let slot = &mut self.slots[at];
        let settles = matches!(slot.stage, Stage::Unknown | Stage::Spoiled);
        match slot.branch.as_mut().filter(|branch| settles && branch.race == Race::On) {
            Some(branch) => branch.race = Race::Lost,
            None => return Err(format!("`{}` is no branch that can be dropped", dropped.step)),
        }
        Ok(())
    }

    /// The branches of a step that no longer count.
    pub(super) fn lose(&mut self, at: usize, which: impl Fn(usize) -> bool) {
        for branch in self.slots[at].branches.clone().unwrap_or_default().filter(|branch| which(*branch)) {
            if let Some(branch) = self.slots[branch].branch.as_mut() {
                branch.race = Race::Lost;
            }
        }
    }

    /// Going back, a step that fanned out stands where its branches stand. That follows from them, so no record says it.
    pub(super) fn regroup(&mut self) {
        if self.slots.len() == self.plan.steps().len() || !matches!(self.phase, Phase::Unwinding(_)) {
            return;
        }
        for at in 0..self.plan.steps().len() {
            let Some(branches) = self.slots[at].branches.clone() else { continue };
            if self.slots[at].stage != Stage::Done || !self.settled(at) {
                continue;
            }
            let stays = |branch: usize| matches!(self.slots[branch].stage, Stage::Left | Stage::Skipped);
            let undone = |branch: usize| self.slots[branch].stage == Stage::Undone;
            if branches.clone().any(stays) {
                self.slots[at].stage = Stage::Left;
            } else if branches.clone().any(undone) {
                self.slots[at].stage = Stage::Undone;
            }
        }
    }
}
