//! Who hears of the sagas that are driven: a line for each record, and for each first denial of a step.
//!
//! A saga is driven exactly while it has a listener here, so this is also where two that would drive one saga meet.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agt_saga::driver::Progress;
use agt_saga::id::SagaId;
use tokio::sync::mpsc;

use super::evidence::Witness;
use super::progress;
use crate::config::Color;
use crate::driver::Handle;

/// Who hears a saga's lines.
#[derive(Debug, Clone)]
pub enum Listener {
    /// This process's standard error.
    Stderr(Color),
    /// Somebody else; slow ones miss lines.
    Far(mpsc::Sender<String>, Color),
    /// Nobody.
    Nobody,
}

/// Who hears the lines of the sagas that are driven.
#[derive(Debug, Default)]
pub(super) struct Audience(Mutex<HashMap<SagaId, Heard>>);

#[derive(Debug)]
struct Heard {
    listener: Listener,
    witness: Witness,
}

impl Audience {
    fn map(&self) -> MutexGuard<'_, HashMap<SagaId, Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A saga is about to be driven; `false` when it is already.
    #[must_use]
    pub(super) fn enter(&self, saga: &SagaId, listener: Listener) -> bool {
        let mut map = self.map();
        let is_new = !map.contains_key(saga);
        if is_new {
            map.insert(saga.clone(), Heard { listener, witness: Witness::default() });
        }
        is_new
    }

    /// It is driven no more.
    pub(super) fn leave(&self, saga: &SagaId) {
        self.map().remove(saga);
    }

    /// All that are driven now.
    pub(super) fn sagas(&self) -> Vec<SagaId> {
        self.map().keys().cloned().collect()
    }

    /// Something durable has happened: its lines, and what it says of the saga.
    pub(super) fn hear(&self, seen: &Progress<'_>, handle: &Handle) {
        let mut map = self.map();
        let Some(heard) = map.get_mut(seen.state.id()) else { return };
        let name = seen.state.plan().name();
        let said = heard.witness.hear(seen.records);
        handle.saga_evidence(name, seen.state.word(), said.samples, said.violation);
        let color = heard.listener.color();
        seen.records
            .iter()
            .filter_map(|record| progress::line(name, record, color))
            .for_each(|l| heard.listener.hear(l));
    }

    /// Says a line of a saga that is driven.
    pub(super) fn say(&self, saga: &SagaId, line: String) {
        if let Some(heard) = self.map().get(saga) {
            heard.listener.hear(line);
        }
    }
}

impl Listener {
    fn color(&self) -> Color {
        match self {
            Listener::Stderr(color) | Listener::Far(_, color) => *color,
            Listener::Nobody => Color::Never,
        }
    }

    fn hear(&self, line: String) {
        match self {
            Listener::Stderr(_) => eprintln!("{line}"),
            Listener::Far(to, _) => drop(to.try_send(line)),
            Listener::Nobody => {}
        }
    }
}
