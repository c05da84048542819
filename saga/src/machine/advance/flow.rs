//! What comes next for conditions, timers, approvals and fan-outs.

use crate::id::RunKind;
use crate::machine::slot::Stage;
use crate::machine::state::State;
use crate::plan::Call;
use crate::record::{Asked, Bypassed, Decided, Dropped, Event, Gathered, Rang, Slept, Spread, Vote, Voted};
use crate::time::{Moment, later};

impl State {
    /// What is known of a step before it begins: perhaps it need not, perhaps it can't.
    pub(super) fn before_start(&self, at: usize) -> Option<Event> {
        let slot = &self.slots[at];
        if slot.branch.is_none() {
            match self.is_wanted(at) {
                Ok(true) => {}
                // Once it has begun its condition is not asked again.
                Ok(false) if slot.stage == Stage::Waiting => {
                    return Some(Event::Bypassed(Bypassed { step: self.name(at) }));
                }
                Ok(false) => {}
                Err(why) => return Some(self.cannot(at, why)),
            }
        }
        let fans_out = self.step(at).each.is_some() && slot.branch.is_none();
        let why = if fans_out { self.items(at).err() } else { self.missing_input(at) };
        why.map(|why| self.cannot(at, why))
    }

    /// A step that can't begin.
    fn cannot(&self, at: usize, why: String) -> Event {
        if self.past_pivot() { self.park(at, RunKind::Forward, why) } else { self.give_up(at, &why) }
    }

    /// What begins without anything being run: a timer, a question, a fan-out.
    pub(super) fn open(&self, at: usize, moment: Moment) -> Option<Event> {
        let fresh = matches!(self.slots[at].stage, Stage::Waiting | Stage::Backoff { kind: RunKind::Forward, .. });
        if !fresh || self.is_an_effect(at) || !self.slot_goes_forward(at) || !self.ready(at) {
            return None;
        }
        let step = self.name(at);
        Some(match &self.step(at).forward.call {
            Call::Wait(wait) => Event::Slept(Slept { step, due: later(moment.now_ms, wait.ms) }),
            Call::Approval(approval) => {
                let due = approval.timeout_ms.map(|limit_ms| later(moment.now_ms, limit_ms));
                Event::Asked(Asked { step, due })
            }
            _ => Event::Spread(Spread { step, items: self.items(at).ok()?.0.clone() }),
        })
    }

    /// What a question comes to.
    pub(super) fn answer(&self, at: usize, due_ms: Option<i64>, moment: Moment) -> Option<Event> {
        let Call::Approval(approval) = &self.step(at).forward.call else { return None };
        let votes = &self.slots[at].votes;
        let decided = |vote, why| Some(Event::Decided(Decided { step: self.name(at), vote, why }));
        let names =
            |votes: &[Voted]| votes.iter().map(|vote| vote.authority.by.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(no) = votes.iter().find(|vote| vote.vote == Vote::Deny) {
            let reason = if no.authority.reason.is_empty() { "" } else { ": " };
            return decided(Vote::Deny, format!("{} said no{reason}{}", no.authority.by, no.authority.reason));
        }
        if usize::try_from(approval.quorum).is_ok_and(|quorum| votes.len() >= quorum) {
            return decided(Vote::Approve, format!("{} said yes", names(votes)));
        }
        if due_ms.is_some_and(|due_ms| due_ms <= moment.now_ms) {
            let count = votes.len();
            return decided(Vote::Deny, format!("{count} of {} had said yes when the time was up", approval.quorum));
        }
        None
    }

    /// Why a question was answered with no, from the answers.
    pub(super) fn refusal(&self, at: usize) -> String {
        match self.slots[at].votes.iter().find(|vote| vote.vote == Vote::Deny) {
            Some(no) => format!("{} said no", no.authority.by),
            None => "not enough operators said yes in time".to_owned(),
        }
    }

    pub(super) fn ring(&self, at: usize, due_ms: i64, moment: Moment) -> Option<Event> {
        (due_ms <= moment.now_ms).then(|| Event::Rang(Rang { step: self.name(at) }))
    }

    /// What the branches of a fan-out come to.
    pub(super) fn gather(&self, at: usize) -> Option<Event> {
        if !self.goes_forward() {
            return Some(self.give_up(at, "the saga is being undone"));
        }
        let branches = self.slots[at].branches.clone()?;
        let enough = self.step(at).each.as_ref()?.enough.of(branches.len());
        let counts = |branch: &usize| !self.slots[*branch].is_lost();
        let done = |branch: &usize| matches!(self.slots[*branch].stage, Stage::Done | Stage::Skipped);
        let winners: Vec<usize> = branches.clone().filter(counts).filter(done).take(enough).collect();
        if winners.len() >= enough {
            let number = |branch: &usize| self.slots[*branch].branch.as_ref().map(|branch| branch.number);
            let winners = winners.iter().filter_map(number).collect();
            return Some(Event::Gathered(Gathered { step: self.name(at), winners }));
        }
        let may = |branch: &usize| !matches!(self.slots[*branch].stage, Stage::Failed | Stage::Left | Stage::Undone);
        let left = branches.filter(counts).filter(may).count();
        (left < enough)
            .then(|| self.give_up(at, &format!("{enough} branches have to be done, and {left} still can be")))
    }

    /// A branch that stops to count, for what it did has to be undone.
    pub(super) fn drop_branch(&self, at: usize, why: &str) -> Event {
        Event::Dropped(Dropped { step: self.name(at), why: why.to_owned() })
    }
}
