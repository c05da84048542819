//! What a step is to its saga, and whether what it does to the world fits the place where it stands.

use super::problem::ProblemKind;
use super::resolve::Linter;
use crate::plan::{Call, Class, Files, OnUnknown, Publish};
use crate::spec::{ClassSpec, EffectsSpec, OnUnknownSpec, PublishSpec, StepSpec};

impl Linter<'_> {
    pub(super) fn class(&mut self, at: usize, spec: &StepSpec, call: &Call) -> Class {
        self.contradictions(at, spec);
        let past_pivot = self.shape.past_pivot(at);
        match spec.class {
            _ if matches!(call, Call::Wait(_) | Call::Approval(_)) => return Class::ReadOnly,
            _ if self.shape.pivot == Some(at) => return Class::Pivot,
            _ if spec.effects == EffectsSpec::None => return Class::ReadOnly,
            Some(ClassSpec::ReadOnly) => return Class::ReadOnly,
            Some(ClassSpec::Irreversible) => return Class::Irreversible,
            Some(ClassSpec::Compensatable) if past_pivot => {
                let kind = ProblemKind::CompensatablePastPivot { pivot: self.pivot_name() };
                self.report(self.shape.paths[at].key("class"), kind);
            }
            Some(ClassSpec::Retriable) if !past_pivot => {
                self.report(self.shape.paths[at].key("class"), ProblemKind::RetriableBeforePivot);
            }
            _ => {}
        }
        // Of a fan-out's branches one may fail when others are done, so that there is something left to undo.
        let is_last = self.shape.comes_last(at) && spec.each.is_none() && spec.class.is_none();
        if past_pivot {
            Class::Retriable
        } else if spec.undoing().is_none() && spec.effects == EffectsSpec::External && is_last {
            Class::Last
        } else {
            Class::Compensatable
        }
    }

    /// Two words that say different things.
    fn contradictions(&mut self, at: usize, spec: &StepSpec) {
        let Some(class) = spec.class else { return };
        let word = word(class);
        let other = match class {
            ClassSpec::Pivot if spec.effects == EffectsSpec::None => "effects: none",
            ClassSpec::Pivot => return,
            _ if spec.pivot => "pivot: true",
            ClassSpec::ReadOnly if spec.effects == EffectsSpec::Files => "effects: files",
            ClassSpec::Irreversible if spec.effects == EffectsSpec::Files => "effects: files",
            ClassSpec::ReadOnly => return,
            _ if spec.effects == EffectsSpec::None => "effects: none",
            _ => return,
        };
        self.report(self.shape.paths[at].key("class"), ProblemKind::ClassContradicts { class: word, other });
    }

    /// Whether what a step can do to the world fits the place where it stands.
    pub(super) fn undo_rules(&mut self, at: usize, spec: &StepSpec, class: Class) {
        let path = self.shape.paths[at].clone();
        let undo_path = path.key(spec.undoing().map_or("undo", |(_, word)| word));
        let has_undo = spec.undoing().is_some();
        if Self::is_read_only(class) && spec.wait.is_none() && spec.approval.is_none() && has_undo {
            self.report(undo_path.clone(), ProblemKind::CompensationOfNothing);
        }
        if class == Class::Compensatable && !has_undo && spec.effects != EffectsSpec::Files {
            // Of a retriable step that stands in the wrong place that was said already.
            if spec.class != Some(ClassSpec::Retriable) {
                self.report(path.clone(), ProblemKind::CompensationMissing);
            }
        }
        if class == Class::Irreversible {
            if spec.probing().is_none() && !self.is_approved(at) {
                self.report(path.clone(), ProblemKind::IrreversibleUnguarded);
            }
            if has_undo {
                self.report(undo_path.clone(), ProblemKind::IrreversibleWithUndo);
            }
        }
        let Some(pivot) = self.shape.pivot.filter(|pivot| *pivot != at) else { return };
        let pivot_name = self.pivot_name();
        if self.shape.past_pivot(at) {
            if class == Class::Retriable && !spec.idempotent {
                self.report(path.clone(), ProblemKind::NotRetriable);
            }
            if has_undo {
                self.report(undo_path, ProblemKind::CompensationPastPivot { pivot: pivot_name });
            }
        } else if !self.shape.ancestors[pivot][at] {
            self.report(path, ProblemKind::BesidePivot { pivot: pivot_name });
        }
    }

    pub(super) fn files(&mut self, at: usize, spec: &StepSpec, call: &Call) -> Option<Files> {
        let path = self.shape.paths[at].clone();
        if spec.effects != EffectsSpec::Files {
            if spec.publish.is_some() {
                self.report(path.key("publish"), ProblemKind::PublishWithoutFiles);
            }
            return None;
        }
        if !matches!(call, Call::Command(_) | Call::Mcp(_) | Call::Agent(_)) {
            let kind = ProblemKind::NotForKind { key: "effects: files", kind: call.kind() };
            self.report(path.key("effects"), kind);
        }
        if let Some((_, word)) = spec.undoing() {
            self.report(path.key(word), ProblemKind::FilesWithUndo);
        }
        let publish = match spec.publish {
            None | Some(PublishSpec::Saga) => Publish::Saga,
            Some(PublishSpec::Step) => Publish::Step,
        };
        Some(Files { publish })
    }

    pub(super) fn on_unknown(&mut self, at: usize, spec: &StepSpec, class: Class, has_undo: bool) -> OnUnknown {
        let repeatable = spec.idempotent || Self::is_read_only(class);
        let has_probe = spec.probing().is_some();
        let path = self.shape.paths[at].key("on_unknown");
        match spec.on_unknown {
            Some(OnUnknownSpec::Rerun) => {
                if !repeatable {
                    self.report(path, ProblemKind::RerunNotIdempotent);
                }
                OnUnknown::Rerun
            }
            Some(OnUnknownSpec::Check) => {
                if !has_probe {
                    self.report(path, ProblemKind::CheckMissing);
                }
                OnUnknown::Check
            }
            Some(OnUnknownSpec::Compensate) => {
                if !has_undo {
                    self.report(path, ProblemKind::CompensateForUnknownMissing);
                }
                OnUnknown::Compensate
            }
            Some(OnUnknownSpec::Operator) => OnUnknown::Operator,
            None if repeatable => OnUnknown::Rerun,
            None if has_probe => OnUnknown::Check,
            None if has_undo => OnUnknown::Compensate,
            None => OnUnknown::Operator,
        }
    }
}

fn word(class: ClassSpec) -> &'static str {
    match class {
        ClassSpec::Compensatable => "compensatable",
        ClassSpec::Pivot => "pivot",
        ClassSpec::Retriable => "retriable",
        ClassSpec::ReadOnly => "read_only",
        ClassSpec::Irreversible => "irreversible",
    }
}
