//! What the steps of sagas are denied: heard, told, recorded and kept under the name that `ps` shows, `SAGA/STEP`.
//!
//! As for agents, but beside the loop, which a step has no life in: each run has an ear and a task of its own, and the loop hears only
//! what counts for the saga's safety. The ids of sagas are ever new, so of their memories the store keeps the newest.

use std::sync::Arc;
use std::time::Duration;

use agt_rings::Ring;
use agt_rings::names::Rules;
use agt_rings::notice::{Notice, Notices};
use agt_saga::id::RunId;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::audience::Audience;
use crate::driver::Handle;
use crate::driver::denied::{DENIALS, Denied};
use crate::driver::event::{Event, Whose};
use crate::driver::noticing::{Ear, Heard, OF_DENIALS, listen};
use crate::driver::sagas::DeniedStep;
use crate::store::{Commit, Store};

/// Steps whose denials the store keeps; beyond them the ones that were quiet longest go.
const STEPS_KEPT_MAX: usize = 256;
/// How often counts that are due are looked for.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// Whom it is told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    store: Store,
    handle: Handle,
    audience: Arc<Audience>,
}

/// One run's ear. Dropped, it hears no more, and what was heard is still told and kept.
#[derive(Debug)]
pub(super) struct StepEar {
    ear: Arc<Ear>,
    served: JoinSet<()>,
    telling: JoinHandle<()>,
}

/// One run of a step, as it is heard.
#[derive(Debug)]
pub(super) struct Of {
    pub(super) run: RunId,
    /// As `ps` names it.
    pub(super) name: String,
    /// The saga's name.
    pub(super) saga: String,
    pub(super) ring: Ring,
}

impl Told {
    pub(super) fn new(store: Store, handle: Handle, audience: Arc<Audience>) -> Told {
        Told { store, handle, audience }
    }

    /// Listens to a run that was launched.
    pub(super) fn listen(&self, of: Of, notices: Notices, names: Option<&Rules>) -> StepEar {
        // Bounded by the ear, which pauses.
        let (events, inbox) = mpsc::unbounded_channel();
        let whose = Whose { agent: of.name.clone(), life: u64::from(of.run.attempt) };
        let mut served = JoinSet::new();
        let ear = listen(whose, notices, names, OF_DENIALS, &events, &mut served);
        StepEar { ear, served, telling: tokio::spawn(self.clone().tell(of, inbox)) }
    }

    async fn tell(self, of: Of, mut inbox: mpsc::UnboundedReceiver<Event>) {
        let mut denied: Option<Denied> = None;
        loop {
            let event = match tokio::time::timeout(KEEP_EVERY, inbox.recv()).await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => {
                    denied.iter_mut().for_each(|denied| denied.keep(&self.store));
                    continue;
                }
            };
            match event {
                Event::Noticed(_, Heard::Notices(notices)) => {
                    if denied.is_none() {
                        denied = Some(Denied::recall(&self.store, &of.name).await);
                    }
                    let Some(denied) = &mut denied else { continue };
                    notices.iter().for_each(|notice| self.take(&of, denied, notice));
                }
                Event::Noticed(_, Heard::Gone) => {
                    let text = format!(
                        "warning: {}: the process that answers for its system call filter was ended: what it would have answered fails with ENOSYS now",
                        of.name
                    );
                    self.audience.say(&of.run.saga, text);
                }
                // What a step made is its saga's to look at: its outputs name it.
                _ => {}
            }
        }
        if let Some(mut denied) = denied
            && let Some(summary) = denied.end(&self.store)
        {
            self.audience.say(&of.run.saga, format!("{}  {summary}", of.name));
            self.forget_the_oldest().await;
        }
    }

    fn take(&self, of: &Of, denied: &mut Denied, notice: &Notice) {
        let Some(heard) = denied.take(notice, of.ring, &self.store) else { return };
        if let Some(line) = heard.line {
            self.audience.say(&of.run.saga, line);
        }
        let (class, severity, weighs) = (heard.class, heard.severity, heard.weighs);
        self.handle.saga_denied(&of.saga, DeniedStep { class, severity, weighs, times: notice.count });
    }

    async fn forget_the_oldest(&self) {
        // What can't be read now is forgotten by a later step's end.
        let Ok(mut kept) = self.store.list_states(DENIALS).await else { return };
        kept.retain(|state| state.agent.contains('/'));
        kept.sort_by_key(|state| std::cmp::Reverse(state.updated_ms));
        for old in kept.iter().skip(STEPS_KEPT_MAX) {
            let _ = self.store.note(Commit::new().delete_state(&old.agent, DENIALS));
        }
    }
}

impl StepEar {
    /// Its tree is gone: what is left is heard, told and kept before this returns.
    pub(super) async fn end(self) {
        let StepEar { ear, mut served, telling } = self;
        ear.last().await;
        served.shutdown().await;
        drop(ear);
        // It ends with the last ear; a panic in it was reported as one.
        let _ = telling.await;
    }
}
