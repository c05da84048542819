//! State directories that are not as they should be: each a clear error, nothing harmed.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use super::super::*;
use super::*;

fn open_error(dir: &Path) -> StoreError {
    Store::open(dir).map(drop).unwrap_err()
}

async fn filled(dir: &Path) {
    let store = Store::open(dir).unwrap();
    for _ in 0..50 {
        store.append_audit_nowait(record(&"x".repeat(500)));
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_second_supervisor_is_refused_with_the_first_ones_pid() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    assert_eq!(error.exit_code(), 75);
    assert_eq!(StateLock::holder(dir.path()), Some(std::process::id()));
    store.close().await.unwrap();
    assert_eq!(StateLock::holder(dir.path()), None);
}

#[test]
#[ignore = "a child process of the tests in this file"]
fn child_holds_the_lock() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let _lock = StateLock::acquire(Path::new(&dir)).unwrap();
    std::io::stdout().write_all(b"held\n").unwrap();
    // Until the parent closes the pipe or kills this process.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = child("store::tests::bad_state::child_holds_the_lock", dir.path());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"held\n") {
        let mut byte = [0];
        output.read_exact(&mut byte).unwrap();
        told.push(byte[0]);
    }
    match StateLock::acquire(dir.path()) {
        Err(StoreError::Locked { pid, .. }) => assert_eq!(pid, Some(child.id())),
        other => panic!("{other:?}"),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    StateLock::acquire(dir.path()).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE_FILE);
    let text = "my notes, by accident under this name\n".repeat(100);
    fs::write(&path, &text).unwrap();
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
    assert_eq!(error.exit_code(), 65);
    assert!(error.to_string().contains(path.to_str().unwrap()));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn somebody_elses_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(DATABASE_FILE);
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    drop(foreign);
    assert!(matches!(open_error(dir.path()), StoreError::NotADatabase { .. }));
    let foreign = rusqlite::Connection::open(&path).unwrap();
    let tables: i64 = foreign.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0)).unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let connection = rusqlite::Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::Newer { found: 99, known: schema::VERSION, .. }), "{error:?}");
    assert_eq!(error.exit_code(), 65);
}

#[tokio::test]
async fn a_damaged_database_is_an_error_with_its_path_and_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let path = dir.path().join(DATABASE_FILE);
    let whole = fs::read(&path).unwrap();
    let mut seen = 0;
    for page in 0..whole.len() / 4096 {
        let mut damaged = whole.clone();
        // Page 1 keeps the header that names it a database.
        let start = page * 4096 + if page == 0 { 100 } else { 0 };
        damaged[start..(page + 1) * 4096].fill(0xa5);
        fs::write(&path, &damaged).unwrap();
        match Store::open(dir.path()) {
            Err(error) => {
                assert_eq!(error.exit_code(), 65, "page {page}: {error:?}");
                assert!(error.help().is_some());
                seen += 1;
            }
            Ok(store) => {
                // The damage is in a page that a start doesn't need: the first use of it says so.
                let read = store.audit_page(0, 1000).await;
                let used = read.is_err() || store.put_state("a", "k", 1.into(), 1).await.is_err();
                let listed = store.list_states("k").await.is_err() || store.pending_undos().await.is_err();
                seen += usize::from(used || listed);
                let _ = store.close().await;
            }
        }
    }
    assert!(seen > 3, "{seen}");
}

#[tokio::test]
async fn a_truncated_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let path = dir.path().join(DATABASE_FILE);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = open_error(dir.path());
    assert_eq!(error.exit_code(), 65, "{error:?}");
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let error = open_error(dir.path());
    assert!(matches!(error, StoreError::UnsafeDirectory { mode: 0o777, .. }), "{error:?}");
    assert_eq!(error.exit_code(), 73);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_state_directory_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = open_error(&path);
    assert_eq!(error.exit_code(), 73, "{error:?}");
    assert!(error.to_string().contains("file"));
}

#[tokio::test]
async fn a_foreign_lock_on_the_database_is_told_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let foreign = rusqlite::Connection::open(store.database()).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.append_audit_nowait(record("taken meanwhile")), Admission::Queued);
    let error = store.append_audit(record("x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    foreign.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.append_audit(record("y")).await.unwrap().seq, 2, "the note went in first");
    drop(foreign);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_changed_log_is_not_continued() {
    let change = |sql: &'static str| async move {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let connection = rusqlite::Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        open_error(dir.path())
    };
    for sql in [
        "DELETE FROM audit WHERE seq > 40",
        "DELETE FROM audit; DELETE FROM audit_heads",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 50",
        "UPDATE audit_heads SET head = replace(head, '\"seq\":50', '\"seq\":49')",
        "DELETE FROM audit_heads; UPDATE audit SET record = replace(record, 'xx', 'yy') WHERE seq = 50",
        "DELETE FROM meta",
    ] {
        let error = change(sql).await;
        assert_eq!(error.exit_code(), 65, "{sql}: {error:?}");
        assert!(error.help().is_some(), "{sql}");
    }
}

#[tokio::test]
async fn a_replaced_key_is_told() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    fs::remove_file(dir.path().join(crate::audit::signer::KEY_FILE)).unwrap();
    let error = open_error(dir.path());
    assert!(error.to_string().contains("audit log"), "{error}");
    assert_eq!(error.exit_code(), 65);
}
