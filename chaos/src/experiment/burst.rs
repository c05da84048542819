//! One burst of the fault: prepared, journaled, guarded, injected, undone, recorded. In this order, and no other.

use super::sampling::Sampler;
use super::{Action, Experiment, GUARDIAN_GRACE, State, Step, UNDO_ATTEMPTS, UNDO_PAUSE};
use crate::fault::Fault;
use crate::report::UndoState;
use crate::undo::{JournalEntry, Undo, UndoEntry, UndoId};

impl Experiment {
    pub(super) fn prepared(&mut self, entries: Vec<UndoEntry>) -> Step {
        let undo = Box::new(Undo {
            id: UndoId(format!("{}/{}", self.run, self.burst)),
            run: self.run.clone(),
            agent: self.plan.agent.clone(),
            boot: self.boot.clone(),
            entries,
        });
        let action = Action::Journal(JournalEntry::Undo((*undo).clone()));
        (State::Journaling(undo), Some(action))
    }

    pub(super) fn arm(&mut self, undo: Box<Undo>) -> Step {
        let within = self.plan.bursts[self.burst].length + GUARDIAN_GRACE;
        let action = Action::ArmGuardian { undo: (*undo).clone(), within };
        (State::Arming(undo), Some(action))
    }

    pub(super) fn inject(&mut self, undo: Box<Undo>) -> Step {
        self.seen.before_injection();
        self.note(format!("injecting, burst {} of {}", self.burst + 1, self.plan.bursts.len()));
        (State::Injecting(undo), Some(Action::Inject(self.plan.fault.acts())))
    }

    pub(super) fn injected(&mut self, undo: Box<Undo>) -> Step {
        self.seen.injected(self.now);
        self.note("injected");
        if self.abort.is_some() {
            return self.begin_undo(undo);
        }
        let length = self.plan.bursts[self.burst].length;
        // The first look is due at once: a fault that acts only for a moment must be seen too.
        let mut sampler = Sampler::new(self.now, length, self.plan.windows.every);
        sampler.next = self.now;
        (State::Acting(sampler, undo), None)
    }

    pub(super) fn begin_undo(&mut self, undo: Box<Undo>) -> Step {
        let action = Action::Undo((*undo).clone());
        (State::Undoing(undo, 1), Some(action))
    }

    pub(super) fn undo_failed(&mut self, undo: Box<Undo>, attempt: u32, reason: &str) -> Step {
        self.note(format!("undo failed, attempt {attempt} of {UNDO_ATTEMPTS}: {reason}"));
        if attempt < UNDO_ATTEMPTS {
            let until = self.now + UNDO_PAUSE;
            return (State::UndoPause(undo, attempt, until), None);
        }
        (State::UndoingByGuardian(undo), Some(Action::UndoByGuardian))
    }

    pub(super) fn undone(&mut self, undo: &Undo) -> Step {
        self.seen.undone(self.now);
        self.undo = UndoState::Undone;
        self.note("undone");
        let entry = JournalEntry::Undone { id: undo.id.clone() };
        (State::Recording(undo.id.clone()), Some(Action::Journal(entry)))
    }

    pub(super) fn left_behind(&mut self, undo: &Undo, reason: String) -> Step {
        self.seen.undone(self.now);
        self.note(format!("NOT UNDONE: {reason}"));
        self.undo = UndoState::NotUndone { id: undo.id.clone(), reason };
        self.settle()
    }

    pub(super) fn burst_over(&mut self) -> Step {
        self.burst += 1;
        let is_over = self.abort.is_some() || !self.refusals.is_empty();
        if is_over { self.settle() } else { self.begin_burst() }
    }

    /// Waits for the next burst, or begins it; after the last one, waits for the end of the faulty phase.
    pub(super) fn begin_burst(&mut self) -> Step {
        let next = self.plan.bursts.get(self.burst);
        let start = self.during_since + next.map_or(self.plan.duration, |burst| burst.start);
        if self.now < start {
            return (State::Gap(Sampler::new(self.now, start - self.now, self.plan.windows.every)), None);
        }
        if next.is_some() {
            return (State::Preparing, Some(Action::Prepare(self.plan.fault.acts())));
        }
        self.note("faulty phase over; watching the recovery");
        (State::Recovering(Sampler::new(self.now, self.plan.windows.observe, self.plan.windows.every)), None)
    }
}
