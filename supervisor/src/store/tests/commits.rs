//! What a commit promises.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use agt_saga::journal::{Entry, Journal, JournalError, Scope};
use serde_json::json;

use super::super::request::{NOTE_BYTES_MAX, REQUEST_BYTES_MAX};
use super::super::*;
use super::*;
use crate::audit::verify;

#[tokio::test]
async fn what_was_stored_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let receipt = store.append_audit(record("one")).await.unwrap();
    assert_eq!(receipt.seq, 1);
    store.put_state("a", "trust", json!({"score": 700}), 5).await.unwrap();
    store.put_state("a", "trust", json!({"score": 650}), 6).await.unwrap();
    store.close().await.unwrap();
    let store = Store::open(dir.path()).unwrap();
    let page = store.audit_page(0, 10).await.unwrap();
    assert_eq!((page.len(), page[0].seq, page[0].hash, &page[0].record), (1, 1, receipt.hash, &record("one")));
    let state = store.get_state("a", "trust").await.unwrap().unwrap();
    assert_eq!((state.value, state.updated_ms), (json!({"score": 650}), 6));
    assert_eq!(store.append_audit(record("two")).await.unwrap().seq, 2, "the chain goes on");
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_directory_and_every_file_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("parent/state");
    let store = Store::open(&state).unwrap();
    store.append_audit(record("x")).await.unwrap();
    store.put_state("a", "k", json!(1), 1).await.unwrap();
    assert_eq!(std::fs::metadata(&state).unwrap().mode() & 0o7777, 0o700);
    for entry in std::fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.file_name());
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_commit_is_stored_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let first = Commit::new().saga(summary("s", "running", 1), 0, vec!["e1".into()]);
    store.commit(first).await.unwrap();
    let mixed = Commit::new()
        .audit(record("must not stay"))
        .put_state("a", "k", json!(1), 1)
        .add_undo("u", json!("x"), 1)
        .saga(summary("s", "running", 2), 7, vec!["e8".into()]);
    let error = store.commit(mixed).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { expected: 7, found: 1, .. }), "{error}");
    assert_eq!(store.get_state("a", "k").await.unwrap(), None);
    assert_eq!(store.pending_undos().await.unwrap(), []);
    assert_eq!(store.append_audit(record("first")).await.unwrap().seq, 1, "the failed record took a number");
    store.close().await.unwrap();
    assert!(verify(store.database(), Some(store.heads_file()), &store.public_key()).unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_request_does_not_harm_the_others_of_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let after = u64::from(task % 2 == 0) * 9;
                let commit =
                    Commit::new().audit(record("x")).saga(summary(&task.to_string(), "running", 1), after, vec![]);
                (after, store.commit(commit).await)
            })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (0, Ok(receipts)) => seqs.push(receipts[0].seq),
            (9, Err(StoreError::Conflict { .. })) => {}
            other => panic!("{other:?}"),
        }
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=32).collect::<Vec<_>>());
    store.close().await.unwrap();
    assert!(verify(store.database(), None, &store.public_key()).unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_share_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    // The writer stands still until all requests wait.
    store.in_writer(move |_| held.recv().unwrap());
    let before = store.counts().commits;
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn({
                let store = store.clone();
                async move { store.append_audit(record("x")).await }
            })
        })
        .collect();
    while store.waiting() < 100 {
        tokio::task::yield_now().await;
    }
    hold.send(()).unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(store.counts().commits - before, 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_journal_keeps_order_refuses_stale_writers_and_lists_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let journal = SqliteJournal::new(store.clone());
    journal.append(summary("s1", "running", 1), 0, vec!["a".into(), "b".into()]).await.unwrap();
    journal.append(summary("s2", "running", 2), 0, vec!["x".into()]).await.unwrap();
    journal.append(summary("s1", "completed", 3), 2, vec!["c".into()]).await.unwrap();
    let entry = |seq, event: &str| Entry { seq, event: event.to_owned() };
    assert_eq!(journal.load("s1").await.unwrap(), [entry(1, "a"), entry(2, "b"), entry(3, "c")]);
    assert_eq!(journal.load("unknown").await.unwrap(), []);
    let stale = journal.append(summary("s1", "running", 4), 2, vec!["d".into()]).await;
    assert!(matches!(stale, Err(JournalError::Conflict { expected: 2, found: 3, .. })), "{stale:?}");
    let again = journal.append(summary("s1", "running", 4), 0, vec!["d".into()]).await;
    assert!(matches!(again, Err(JournalError::Conflict { expected: 0, found: 3, .. })), "{again:?}");
    let ghost = journal.append(summary("s9", "running", 4), 1, vec!["d".into()]).await;
    assert!(matches!(ghost, Err(JournalError::Conflict { expected: 1, found: 0, .. })), "{ghost:?}");
    assert_eq!(journal.list(Scope::All).await.unwrap(), [summary("s1", "completed", 3), summary("s2", "running", 2)]);
    assert_eq!(journal.list(Scope::Unfinished).await.unwrap(), [summary("s2", "running", 2)]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn states_and_undos_are_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let commit = Commit::new()
        .put_state("b", "trust", json!(2), 1)
        .put_state("a", "trust", json!(1), 1)
        .put_state("a", "killed", json!("manual"), 1)
        .add_undo("u1", json!({"thaw": "a"}), 1)
        .add_undo("u2", json!({"thaw": "b"}), 2);
    store.commit(commit).await.unwrap();
    let agents = |states: Vec<AgentState>| states.into_iter().map(|state| state.agent).collect::<Vec<_>>();
    assert_eq!(agents(store.list_states("trust").await.unwrap()), ["a", "b"]);
    store.commit(Commit::new().undo_done("u1").delete_state("a", "killed").forget_agent("b")).await.unwrap();
    assert_eq!(agents(store.list_states("trust").await.unwrap()), ["a"]);
    assert_eq!(store.get_state("a", "killed").await.unwrap(), None);
    assert_eq!(store.pending_undos().await.unwrap()[0].id, "u2");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_closed_store_and_a_dead_writer_answer_instead_of_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let clone = store.clone();
    store.close().await.unwrap();
    assert!(matches!(clone.append_audit(record("x")).await, Err(StoreError::Closed)));
    assert!(matches!(clone.get_state("a", "k").await, Err(StoreError::Closed)));
    assert_eq!(clone.append_audit_nowait(record("x")), Admission::Lost);
    let store = Store::open(dir.path()).unwrap();
    store.in_writer(|_| panic!("a fault of the program"));
    assert!(matches!(store.append_audit(record("x")).await, Err(StoreError::WriterDied)));
    assert!(matches!(store.close().await, Err(StoreError::WriterDied)));
    // The dead writer's lock is free again, and what it stored is whole.
    Store::open(dir.path()).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn notes_never_wait_and_lost_ones_are_counted_in_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    store.in_writer(move |_| held.recv().unwrap());
    let mut lost = 0_u64;
    let notes = NOTE_BYTES_MAX as u64 / 1024 + 10;
    for _ in 0..notes {
        lost += u64::from(store.append_audit_nowait(record("taken")) == Admission::Lost);
    }
    assert_eq!(lost, 10, "the note queue has {NOTE_BYTES_MAX} bytes");
    hold.send(()).unwrap();
    store.append_audit(record("after")).await.unwrap();
    let last = store.read(Reader::audit_last).await.unwrap();
    assert_eq!(last, notes - lost + 2, "all that had room, the one that waited, and one about the lost");
    let mut found = Vec::new();
    let mut after = 0;
    while let Some(row) = store.audit_page(after, 1000).await.unwrap().last() {
        found.extend(store.audit_page(after, 1000).await.unwrap());
        after = row.seq;
    }
    let told: Vec<_> = found.iter().filter(|row| row.record.action.as_str() == "audit.notes_lost").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].record.details["count"], 10_i64.into());
    assert_eq!(store.counts().lost_notes, 10);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let huge = json!("x".repeat(REQUEST_BYTES_MAX));
    assert!(matches!(store.put_state("a", "k", huge, 1).await, Err(StoreError::TooLarge { .. })));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_head_follows_within_a_second_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let unprotected = |store: &Store| {
        let report = verify(store.database(), Some(store.heads_file()), &store.public_key()).unwrap();
        assert!(report.is_sound(), "{report:?}");
        report.unprotected
    };
    store.append_audit(record("one")).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while store.counts().heads == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("no head was signed");
    assert_eq!(unprotected(&store), 0, "verified while the store runs");
    store.append_audit(record("two")).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(unprotected(&store), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_commit_nothing_is_acknowledged_and_the_next_works() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.append_audit(record("before")).await.unwrap();
    let limit = |pages: &'static str| {
        store.in_writer(move |connection| {
            let sql = if pages.is_empty() { "PRAGMA page_count" } else { pages };
            let pages: i64 = connection.query_row(sql, (), |row| row.get(0)).unwrap();
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(())).unwrap();
        });
    };
    limit("");
    let big = "x".repeat(200_000);
    let first = store.put_state("a", "big", json!(big), 1).await;
    assert!(matches!(first, Err(StoreError::DiskFull { .. })), "{first:?}");
    // A note survives the failure and is stored when there is space.
    let note = Commit::new().audit(record("note")).put_state("a", "note", json!(big), 1);
    assert_eq!(store.note(note), Admission::Queued);
    let second = store.append_audit(record("power")).await;
    assert!(second.is_err() || second.is_ok_and(|receipt| receipt.seq == 2));
    limit("SELECT 1000000");
    store.append_audit(record("after")).await.unwrap();
    assert!(store.get_state("a", "note").await.unwrap().is_some());
    assert_eq!(store.get_state("a", "big").await.unwrap(), None);
    assert!(store.counts().failed_commits > 0);
    store.close().await.unwrap();
    assert!(verify(store.database(), Some(store.heads_file()), &store.public_key()).unwrap().is_sound());
}

#[tokio::test]
async fn writes_to_the_same_store_from_many_threads_keep_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path()).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    assert_eq!(store.append_audit_nowait(record("x")), Admission::Queued);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    store.close().await.unwrap();
    let report = verify(store.database(), None, &store.public_key()).unwrap();
    assert_eq!((report.records, report.unprotected, report.is_sound()), (800, 0, true));
}
