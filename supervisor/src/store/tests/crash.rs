//! SIGKILL in the middle of appends: what was acknowledged is there.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use agt_saga::journal::{Journal as _, Scope};

use super::super::*;
use super::*;
use crate::audit::verify;

/// The child: appends for ever from eight tasks and says what was acknowledged.
#[test]
#[ignore = "a child process of the tests in this file"]
fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = Store::open(Path::new(&dir)).unwrap();
        let journal = SqliteJournal::new(store.clone());
        let run = std::process::id();
        let tasks = (0..8).map(|task| {
            let (store, journal) = (store.clone(), journal.clone());
            tokio::spawn(async move {
                let saga = format!("saga-{run}-{task}");
                for step in 0_u64.. {
                    let receipt = store.append_audit(record("step")).await.unwrap();
                    say(&format!("audit {} {}", receipt.seq, receipt.hash));
                    let _ = store.append_audit_nowait(record("note"));
                    journal.append(summary(&saga, "running", 1), step, vec![format!("event {step}")]).await.unwrap();
                    say(&format!("saga {saga} {}", step + 1));
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    });
}

fn say(line: &str) {
    // One write a line: lines of several threads don't mix, and none is half told.
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[derive(Default)]
struct Acknowledged {
    audit: BTreeMap<u64, String>,
    sagas: BTreeMap<String, u64>,
}

impl Acknowledged {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["audit", seq, hash] => {
                self.audit.insert(seq.parse().unwrap(), hash.to_owned());
            }
            ["saga", id, seq] => {
                let last = self.sagas.entry(id.to_owned()).or_default();
                *last = (*last).max(seq.parse().unwrap());
            }
            _ => {}
        }
    }
}

/// Runs the child in `dir` until it has told of `lines` more appends, then kills it.
fn run_and_kill(dir: &Path, lines: usize, acknowledged: &mut Acknowledged) {
    let mut child =
        child("store::tests::crash::child_appends_until_killed", dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    let mut seen = 0;
    while seen < lines {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended by itself");
        seen += usize::from(line.starts_with("audit") || line.starts_with("saga"));
        acknowledged.take(&line);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    // The last line may be cut off by the kill; what it says is then not claimed.
    rest.lines().filter(|_| rest.ends_with('\n')).for_each(|line| acknowledged.take(line));
}

#[tokio::test]
async fn every_acknowledged_append_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for lines in [1, 40, 700, 333] {
        run_and_kill(dir.path(), lines, &mut acknowledged);
        let key = crate::audit::signer::public_key_of(dir.path()).unwrap();
        let (database, heads) = (dir.path().join(DATABASE_FILE), dir.path().join("audit-heads.log"));
        let report = verify(&database, Some(&heads), &key).unwrap();
        assert!(report.is_sound(), "{:?}", report.problems);
        let signed = last_signed(&database);
        assert_eq!(report.unprotected, report.records - signed, "only what is behind the last head is unprotected");

        let store = Store::open(dir.path()).unwrap();
        let mut rows = BTreeMap::new();
        loop {
            let page = store.audit_page(rows.len() as u64, 1000).await.unwrap();
            if page.is_empty() {
                break;
            }
            rows.extend(page.into_iter().map(|row| (row.seq, row)));
        }
        for (seq, hash) in &acknowledged.audit {
            assert_eq!(&rows[seq].hash.to_string(), hash, "acknowledged record {seq}");
        }
        let journal = SqliteJournal::new(store.clone());
        for (saga, last) in &acknowledged.sagas {
            let events = journal.load(saga).await.unwrap();
            assert!(events.len() as u64 >= *last, "{saga}: {} events, {last} acknowledged", events.len());
            assert!(events.iter().zip(1..).all(|(event, seq)| event.seq == seq));
        }
        assert!(journal.list(Scope::Unfinished).await.unwrap().len() >= acknowledged.sagas.len());
        store.close().await.unwrap();
        let after = verify(&database, Some(&heads), &key).unwrap();
        assert_eq!((after.is_sound(), after.unprotected), (true, 0));
        if report.unprotected > 0 {
            assert_eq!(after.records, report.records + 1, "one record says what was unprotected");
        }
    }
    assert!(acknowledged.audit.len() > 300);
}

fn last_signed(database: &Path) -> u64 {
    let connection = open_reading(database).unwrap();
    let last: i64 =
        connection.query_row("SELECT coalesce(max(seq), 0) FROM audit_heads", (), |row| row.get(0)).unwrap();
    last as u64
}
