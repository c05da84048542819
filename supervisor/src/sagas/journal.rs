//! The saga journal whose appends carry their audit records in the same commit.
//!
//! A forward step gives power, so its record must be durable before it starts; so must the journal's intent. One commit
//! for both costs one sync, and neither can be there without the other.

use agt_saga::id::RunKind;
use agt_saga::journal::{Entry, Journal, JournalError, Scope, Summary};
use agt_saga::record::{Authority, Event, Record as SagaRecord, Vote};

use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::store::{Commit, SqliteJournal, Store};

const START: Action = Action::new("saga.start");
const STEP: Action = Action::new("saga.step");
const UNDO: Action = Action::new("saga.undo");
const CHECK: Action = Action::new("saga.check");
const STEP_END: Action = Action::new("saga.step_end");
const ORDER: Action = Action::new("saga.order");
const END: Action = Action::new("saga.end");

/// The journal of one supervisor.
#[derive(Debug, Clone)]
pub struct AuditedJournal {
    store: Store,
    plain: SqliteJournal,
    uid: u32,
}

impl AuditedJournal {
    /// A journal in `store`; where neither order nor saga says whose they are, records name `uid`.
    #[must_use]
    pub fn new(store: Store, uid: u32) -> AuditedJournal {
        AuditedJournal { plain: SqliteJournal::new(store.clone()), store, uid }
    }

    /// The uid of whoever gave an order: the server wrote it there from the kernel's word.
    fn by(&self, authority: &Authority) -> u32 {
        authority.by.strip_prefix("uid ").and_then(|uid| uid.parse().ok()).unwrap_or(self.uid)
    }

    /// What of a journal record the audit log keeps as well; waits and the like are none of its business.
    fn audit(&self, summary: &Summary, record: &SagaRecord) -> Option<Record> {
        let new = |actor, action, outcome| {
            let record = Record::new(record.at, actor, action, outcome);
            record.agent(summary.name.as_str()).detail("saga", summary.id.as_str())
        };
        let order = |authority: &Authority, word: &str| {
            let record = new(Actor::Operator(self.by(authority)), ORDER, Outcome::Allowed).detail("order", word);
            record.reason(authority.reason.as_str())
        };
        Some(match &record.event {
            Event::Created(created) => {
                let uid = created.context.get("uid").and_then(serde_json::Value::as_u64);
                let uid = uid.and_then(|uid| u32::try_from(uid).ok()).unwrap_or(self.uid);
                new(Actor::Uid(uid), START, Outcome::Allowed).detail("plan", created.plan_hash.as_str())
            }
            Event::Started(run) => {
                let action = match run.kind {
                    RunKind::Forward => STEP,
                    RunKind::Compensate => UNDO,
                    RunKind::Check => CHECK,
                };
                let record = new(Actor::Supervisor, action, Outcome::Allowed);
                record.detail("step", run.step.as_str()).detail("attempt", i64::from(run.attempt))
            }
            Event::Finished(finished) => {
                let record = new(Actor::Supervisor, STEP_END, Outcome::Noted);
                let record = record.reason(super::progress::ending(&finished.outcome.ending));
                let record = record.detail("kind", finished.run.kind.as_str());
                record.detail("step", finished.run.step.as_str()).detail("attempt", i64::from(finished.run.attempt))
            }
            Event::Resolved(resolved) => order(&resolved.authority, "resolve").detail("step", resolved.step.as_str()),
            Event::Voted(voted) => {
                let word = if voted.vote == Vote::Approve { "approve" } else { "deny" };
                order(&voted.authority, word).detail("step", voted.step.as_str())
            }
            Event::Halted(agt_saga::record::Because::Cancelled(authority)) => order(authority, "cancel"),
            Event::Ended(ended) => {
                let actor = ended.authority.as_ref().map_or(Actor::Supervisor, |by| Actor::Operator(self.by(by)));
                let reason = ended.authority.as_ref().map_or("", |authority| authority.reason.as_str());
                new(actor, END, Outcome::Noted).reason(reason).detail("state", ended.state.as_str())
            }
            _ => return None,
        })
    }
}

impl Journal for AuditedJournal {
    async fn append(&self, summary: Summary, after: u64, events: Vec<String>) -> Result<(), JournalError> {
        let mut commit = Commit::new();
        for event in &events {
            let record = SagaRecord::from_text(event).map_err(|e| JournalError::Store(Box::new(e)))?;
            if let Some(record) = self.audit(&summary, &record) {
                commit = commit.audit(record);
            }
        }
        self.store.commit(commit.saga(summary, after, events)).await?;
        Ok(())
    }

    async fn load(&self, saga: &str) -> Result<Vec<Entry>, JournalError> {
        self.plain.load(saga).await
    }

    async fn list(&self, scope: Scope) -> Result<Vec<Summary>, JournalError> {
        self.plain.list(scope).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_saga::journal::Summary;
    use agt_saga::record::{Attempt, Created};

    use super::*;

    #[tokio::test]
    async fn the_intent_of_a_step_and_its_audit_record_are_one_commit() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let journal = AuditedJournal::new(store.clone(), 7);
        let (saga, text) = (agt_saga::id::SagaId::new("s"), String::new());
        let created = Created {
            saga,
            plan_hash: "h".to_owned(),
            plan: text,
            context: serde_json::Value::Null,
            params: serde_json::Map::new(),
        };
        let run = Attempt { step: "one".to_owned(), kind: RunKind::Forward, attempt: 1 };
        let events = [Event::Created(created), Event::Started(run)].map(|event| SagaRecord::new(5, event).to_text());
        let summary =
            Summary { id: "s".into(), name: "n".into(), state: "running".into(), finished: false, updated_ms: 5 };
        journal.append(summary.clone(), 0, events.to_vec()).await.unwrap();
        let actions = async || {
            let page = store.audit_page(0, 100).await.unwrap();
            let of_sagas =
                page.into_iter().map(|row| row.record).filter(|record| record.action.as_str().starts_with("saga."));
            of_sagas.map(|record| (record.action.as_str().to_owned(), record.outcome)).collect::<Vec<_>>()
        };
        let expected = [("saga.start".to_owned(), Outcome::Allowed), ("saga.step".to_owned(), Outcome::Allowed)];
        assert_eq!(actions().await, expected);
        // What the journal refuses leaves no audit record either.
        assert!(matches!(journal.append(summary, 0, events.to_vec()).await, Err(JournalError::Conflict { .. })));
        assert_eq!(actions().await, expected);
        assert_eq!(journal.load("s").await.unwrap().len(), 2);
        store.close().await.unwrap();
    }
}
