//! Every change that a thief of the database could make, made with plain SQL, and found in its place by `verify`.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::VerifyingKey;
use rusqlite::{Connection, params};

use super::super::*;
use super::*;
use crate::audit::chain::Tip;
use crate::audit::check::Kind;
use crate::audit::{VerifyReport, verify};

struct Site {
    dir: tempfile::TempDir,
    database: PathBuf,
    heads: PathBuf,
    key: VerifyingKey,
}

impl Site {
    /// A store of four runs with ten records each: heads at 10, 20, 30 and 40.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for run in 0..4 {
            let store = Store::open(dir.path()).unwrap();
            for index in 0..10 {
                store.append_audit_nowait(record(&format!("run {run}, record {index}")));
            }
            store.close().await.unwrap();
        }
        let key = crate::audit::signer::public_key_of(dir.path()).unwrap();
        let (database, heads) = (dir.path().join(DATABASE_FILE), dir.path().join("audit-heads.log"));
        let site = Self { dir, database, heads, key };
        assert_eq!(site.found(), []);
        site
    }

    fn sql(&self, sql: &str) {
        Connection::open(&self.database).unwrap().execute_batch(sql).unwrap();
    }

    fn report(&self) -> VerifyReport {
        verify(&self.database, Some(&self.heads), &self.key).unwrap()
    }

    fn found(&self) -> Vec<(Kind, u64)> {
        let report = self.report();
        assert_eq!(report.exit_code(), if report.problems.is_empty() { 0 } else { 65 });
        report.problems.iter().map(|problem| (problem.kind, problem.seq)).collect()
    }

    /// Computes the chain anew from `from` on, as somebody can who knows the format and hasn't the key.
    fn rewrite_chain(&self) {
        let connection = Connection::open(&self.database).unwrap();
        let store = Reader::open(self.dir.path()).unwrap().store_id().unwrap();
        let mut select = connection.prepare("SELECT seq, record FROM audit ORDER BY seq").unwrap();
        let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let rows: Vec<(i64, String)> = rows.collect::<Result<_, _>>().unwrap();
        let mut tip = Tip::genesis(&store);
        for (seq, text) in rows {
            let (_, record) = Record::decode(&text).unwrap();
            let text = record.encode(tip.seq + 1);
            tip = tip.next(text.as_bytes());
            let values = params![seq, tip.seq as i64, text, tip.hash.0];
            connection.execute("UPDATE audit SET seq = ?2, record = ?3, hash = ?4 WHERE seq = ?1", values).unwrap();
        }
    }
}

#[tokio::test]
async fn an_edited_record_is_found() {
    let site = Site::new().await;
    site.sql("UPDATE audit SET record = replace(record, 'run 1', 'run 9') WHERE seq = 13");
    assert_eq!(site.found(), [(Kind::Edited, 13)]);
}

#[tokio::test]
async fn a_record_of_another_type_or_spelling_is_found() {
    for sql in [
        "UPDATE audit SET record = replace(record, ',', ', ') WHERE seq = 13",
        "UPDATE audit SET record = '' WHERE seq = 13",
        "UPDATE audit SET record = record || char(0) WHERE seq = 13",
        "UPDATE audit SET hash = x'00' WHERE seq = 13",
    ] {
        let site = Site::new().await;
        site.sql(sql);
        assert_eq!(site.found(), [(Kind::Edited, 13)], "{sql}");
    }
}

#[tokio::test]
async fn deleted_records_are_found() {
    let site = Site::new().await;
    site.sql("DELETE FROM audit WHERE seq BETWEEN 13 AND 15");
    assert_eq!(site.found(), [(Kind::Deleted, 13)]);
    site.sql("UPDATE audit SET seq = seq - 3 WHERE seq > 15");
    assert_eq!(site.found()[0], (Kind::Deleted, 13));
}

#[tokio::test]
async fn exchanged_records_are_found() {
    let site = Site::new().await;
    site.sql("UPDATE audit SET seq = 99 WHERE seq = 13; UPDATE audit SET seq = 13 WHERE seq = 17; UPDATE audit SET seq = 17 WHERE seq = 99");
    assert_eq!(site.found(), [(Kind::Reordered, 13)]);
}

#[tokio::test]
async fn a_cut_tail_is_found_by_the_table_or_by_the_file() {
    let site = Site::new().await;
    site.sql("DELETE FROM audit WHERE seq > 35");
    assert_eq!(site.found(), [(Kind::CutTail, 36)]);
    site.sql("DELETE FROM audit_heads WHERE seq > 35");
    let found = site.found();
    assert!(found.contains(&(Kind::CutTail, 36)), "{found:?}");
    let by_the_floor = verify(&site.database, None, &site.key).unwrap();
    assert!(by_the_floor.problems.iter().any(|problem| (problem.kind, problem.seq) == (Kind::CutTail, 36)));
    fs::remove_file(site.dir.path().join("audit-floor")).unwrap();
    let without_file = verify(&site.database, None, &site.key).unwrap();
    assert_eq!(without_file.unprotected, 5, "the table alone can't know");
}

#[tokio::test]
async fn an_emptied_log_is_found_by_the_file() {
    let site = Site::new().await;
    site.sql("DELETE FROM audit; DELETE FROM audit_heads");
    let found = site.found();
    assert!(found.contains(&(Kind::CutTail, 1)), "{found:?}");
}

#[tokio::test]
async fn a_rewritten_chain_is_found_behind_the_last_head_that_fits() {
    let site = Site::new().await;
    site.sql("UPDATE audit SET record = replace(record, 'run 1', 'run 9') WHERE seq = 13");
    site.rewrite_chain();
    assert_eq!(site.found(), [(Kind::Rewritten, 11)]);
    // Also when the table's heads that contradict it are gone.
    site.sql("DELETE FROM audit_heads WHERE seq > 10");
    let found = site.found();
    assert!(found.contains(&(Kind::Rewritten, 11)), "{found:?}");
    assert!(found.contains(&(Kind::MissingHead, 20)), "{found:?}");
}

#[tokio::test]
async fn an_inserted_record_is_found() {
    let site = Site::new().await;
    site.sql("UPDATE audit SET seq = -seq WHERE seq >= 13; UPDATE audit SET seq = -seq + 1 WHERE seq < 0");
    site.sql("INSERT INTO audit (seq, record, hash) SELECT 13, record, hash FROM audit WHERE seq = 12");
    let found = site.found();
    assert!(found.iter().any(|(_, seq)| (12..=14).contains(seq)), "{found:?}");
    site.rewrite_chain();
    assert!(site.found().contains(&(Kind::Rewritten, 11)));
}

#[tokio::test]
async fn a_store_that_was_set_back_and_went_on_is_a_fork() {
    let site = Site::new().await;
    let old = site.dir.path().join("old.db");
    let floor = fs::read(site.dir.path().join("audit-floor")).unwrap();
    site.sql(&format!("VACUUM INTO '{}'", old.display()));
    let add = |text: &'static str| async {
        let store = Store::open(site.dir.path()).unwrap();
        store.append_audit(record(text)).await.unwrap();
        store.append_audit(record(text)).await.unwrap();
        store.close().await.unwrap();
    };
    add("first history").await;
    // Heads file and floor are set back too for the start, which would refuse otherwise; a copy knows both histories.
    let first = fs::read_to_string(&site.heads).unwrap();
    fs::remove_file(&site.database).unwrap();
    fs::rename(&old, &site.database).unwrap();
    fs::write(site.dir.path().join("audit-floor"), floor).unwrap();
    let before: Vec<&str> = first.lines().take(4).collect();
    fs::write(&site.heads, before.join("\n") + "\n").unwrap();
    add("second history").await;
    let second = fs::read_to_string(&site.heads).unwrap();
    assert_eq!(site.found(), [], "each history alone is sound");
    let news = second.lines().last().unwrap();
    fs::write(&site.heads, format!("{first}{news}\n")).unwrap();
    let found = site.found();
    assert!(found.contains(&(Kind::Forked, 42)), "{found:?}");
}

#[tokio::test]
async fn damaged_forged_and_missing_heads_are_found() {
    let site = Site::new().await;
    site.sql("UPDATE audit_heads SET head = replace(head, '\"time_ms\":1', '\"time_ms\":2') WHERE seq = 20");
    assert_eq!(site.found(), [(Kind::BadHead, 20)]);
    let site = Site::new().await;
    site.sql("UPDATE audit_heads SET head = 'x' WHERE seq = 20");
    assert_eq!(site.found(), [(Kind::BadHead, 20)]);
    let site = Site::new().await;
    site.sql("DELETE FROM audit_heads WHERE seq = 20");
    assert_eq!(site.found(), [(Kind::MissingHead, 20)]);
    let site = Site::new().await;
    let lines = fs::read_to_string(&site.heads).unwrap();
    let kept: String =
        lines.lines().filter(|line| !line.contains("\"seq\":20")).map(|line| format!("{line}\n")).collect();
    fs::write(&site.heads, kept).unwrap();
    assert_eq!(site.found(), [(Kind::MissingHead, 20)]);
}

#[tokio::test]
async fn another_key_and_another_store_are_told() {
    let (site, other) = (Site::new().await, Site::new().await);
    let report = verify(&site.database, Some(&site.heads), &other.key).unwrap();
    assert!(report.problems.iter().any(|problem| problem.kind == Kind::OtherKey));
    // The whole database is replaced by a new one under the same key.
    fs::remove_file(&site.database).unwrap();
    let lines = fs::read_to_string(&site.heads).unwrap();
    let error = Store::open(site.dir.path()).map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 65, "a start goes on over it");
    assert_eq!(fs::read_to_string(&site.heads).unwrap(), lines);
    let found = site.found();
    assert!(found.contains(&(Kind::OtherStore, 40)), "{found:?}");
}

#[tokio::test]
async fn a_torn_last_line_of_the_heads_file_is_no_tampering() {
    let site = Site::new().await;
    let whole = fs::read_to_string(&site.heads).unwrap();
    fs::write(&site.heads, &whole[..whole.len() - 100]).unwrap();
    let report = site.report();
    assert_eq!((report.is_sound(), report.torn_heads), (true, 1), "{:?}", report.problems);
    Store::open(site.dir.path()).unwrap().close().await.unwrap();
    let report = site.report();
    assert_eq!((report.is_sound(), report.torn_heads), (true, 1), "{:?}", report.problems);
    assert_eq!(fs::read_to_string(&site.heads).unwrap().lines().last(), whole.lines().last(), "the lost head is back");
}

#[tokio::test]
async fn any_changed_byte_of_the_database_file_is_found_or_not_of_the_log() {
    let site = Site::new().await;
    let whole = fs::read(&site.database).unwrap();
    let sound = site.report();
    let needle = b"run 1, record 3";
    let places: Vec<usize> =
        (0..whole.len() - needle.len()).filter(|at| &whole[*at..*at + needle.len()] == needle).collect();
    // A page that was split leaves a dead copy behind; the living one is found, byte by byte.
    let mut living = 0;
    for place in places {
        for offset in 0..needle.len() {
            let mut bytes = whole.clone();
            bytes[place + offset] ^= 1;
            fs::write(&site.database, &bytes).unwrap();
            let found = site.found();
            assert!(found.is_empty() || found == [(Kind::Edited, 14)], "{found:?}");
            living += usize::from(!found.is_empty());
        }
    }
    assert_eq!(living, needle.len());
    // Anywhere at all: a different log is never called sound.
    for at in (0..whole.len()).step_by(2503) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&site.database, &bytes).unwrap();
        if let Ok(report) = verify(&site.database, Some(&site.heads), &site.key) {
            assert!(!report.is_sound() || report == sound, "byte {at}: {report:?}");
        }
    }
}

#[tokio::test]
async fn verification_changes_nothing_and_reads_copies() {
    let site = Site::new().await;
    // A store that was killed: its log is still beside it.
    let store = Store::open(site.dir.path()).unwrap();
    store.append_audit(record("only in the log")).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in [DATABASE_FILE, "state.db-wal", "audit-heads.log"] {
        fs::copy(site.dir.path().join(name), copy.path().join(name)).unwrap();
    }
    store.close().await.unwrap();
    let read = |name: &str| fs::read(copy.path().join(name)).unwrap();
    let before = (read(DATABASE_FILE), read("state.db-wal"));
    let report =
        verify(&copy.path().join(DATABASE_FILE), Some(&copy.path().join("audit-heads.log")), &site.key).unwrap();
    assert_eq!((report.records, report.unprotected, report.is_sound()), (41, 1, true), "{:?}", report.problems);
    assert_eq!((read(DATABASE_FILE), read("state.db-wal")), before);
}

#[test]
fn nothing_to_verify_is_an_error_and_not_a_clean_bill() {
    let dir = tempfile::tempdir().unwrap();
    let key = crate::audit::signer::Signer::from_seed([1; 32]).public_key();
    let path = dir.path().join("none.db");
    assert_eq!(verify(&path, None, &key).unwrap_err().exit_code(), 73);
    assert!(!path.exists());
    fs::write(&path, "").unwrap();
    assert_eq!(verify(&path, None, &key).unwrap_err().exit_code(), 65, "an empty file is no log");
}
