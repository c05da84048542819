//! Where an experiment lies in wait for a step: its process tree is killed at the moment it begins.
//!
//! It lives in memory alone, so a supervisor that dies has disarmed it. The engine knows nothing of it: a step that was killed
//! so gave no answer, as after any crash, and is settled by its declared rule.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agt_saga::id::{RunId, RunKind};

use super::live::LiveRun;

/// One place: there is one experiment at a time.
#[derive(Debug, Clone, Default)]
pub struct Ambush(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    armed: Option<Armed>,
    /// Kills carried out, by saga name. Only names that were armed stand here.
    sprung: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Armed {
    saga: String,
    step: String,
}

impl Ambush {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next start of this step in any saga of this name.
    pub fn arm(&self, saga: &str, step: &str) {
        let mut inner = self.inner();
        inner.armed = Some(Armed { saga: saga.to_owned(), step: step.to_owned() });
        inner.sprung.entry(saga.to_owned()).or_default();
    }

    /// Waits no more.
    pub fn disarm(&self) {
        self.inner().armed = None;
    }

    /// Whether it waits for a step of sagas of this name.
    #[must_use]
    pub fn is_armed(&self, saga: &str) -> bool {
        self.inner().armed.as_ref().is_some_and(|armed| armed.saga == saga)
    }

    /// How many steps of sagas of this name it killed while this supervisor lived.
    #[must_use]
    pub fn sprung(&self, saga: &str) -> u64 {
        self.inner().sprung.get(saga).copied().unwrap_or(0)
    }

    /// A run has begun. If it is the one waited for, its tree is killed; it counts once that is verified.
    pub(super) fn spring(&self, saga: &str, run: &RunId, live: &Arc<LiveRun>) {
        let mut inner = self.inner();
        let meant = |armed: &Armed| armed.saga == saga && armed.step == run.step && run.kind == RunKind::Forward;
        if !inner.armed.as_ref().is_some_and(meant) {
            return;
        }
        inner.armed = None;
        drop(inner);
        let (ambush, live, saga) = (self.clone(), Arc::clone(live), saga.to_owned());
        tokio::spawn(async move {
            match live.end().await {
                Ok(Some(_)) => *ambush.inner().sprung.entry(saga).or_default() += 1,
                // It was faster: nothing was done, and nothing is counted.
                Ok(None) => {}
                Err(e) => eprintln!("error: {}: the crash of an experiment can't be verified: {e}", live.name()),
            }
        });
    }
}
