//! A disk that is really full, and one that is read-only: small file systems in a mount namespace of a child.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;
use serde_json::json;

use super::super::reserve::RESERVE_FILE;
use super::super::*;
use super::*;
use crate::audit::signer::public_key_of;
use crate::audit::verify;

/// Runs a child test with a file system of `bytes` mounted at a fresh folder, in namespaces of its own.
fn in_small_file_system(test: &str, bytes: u32) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs -o size={bytes},mode=0700 small \"$1\" && shift && exec \"$@\""));
    command.arg("sh").arg(dir.path()).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(CHILD_DIR, dir.path());
    match command.output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            if text.contains("unshare failed")
                || text.contains("permission denied")
                || text.contains("must be superuser")
            {
                eprintln!("SKIPPED: no mount namespace can be had here: {text}");
                return;
            }
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        Err(error) => eprintln!("SKIPPED: unshare(1) can't be started: {error}"),
    }
}

fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD_DIR).map(Into::into)
}

/// Fills the file system to its last page.
fn fill(dir: &Path) {
    let mut file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join("filler")).unwrap();
    for size in [65536, 4096] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

#[test]
fn with_the_disk_full_power_is_refused_and_its_taking_is_still_recorded() {
    in_small_file_system("store::tests::full_disk::child_full_disk", 8 * 1024 * 1024);
}

#[test]
#[ignore = "a child process of the tests in this file"]
fn child_full_disk() {
    let Some(dir) = child_dir() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&dir).unwrap();
        store.append_audit(record("before")).await.unwrap();
        fill(&dir);
        // The log has some room ahead; then comes the end of the disk.
        let mut stored = 0;
        let error = loop {
            match store.put_state("a", &format!("k{stored}"), json!("x".repeat(20_000)), 1).await {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 10_000, "the disk never filled");
        };
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
        assert_eq!(error.exit_code(), 73);
        assert!(error.help().unwrap().contains("free space"));
        assert!(dir.join(RESERVE_FILE).exists(), "what gives power doesn't get the reserve");
        assert_eq!(store.get_state("a", &format!("k{stored}")).await.unwrap(), None);

        // What took power is recorded with the reserve's space.
        let last = store.read(Reader::audit_last).await.unwrap();
        for index in 0..100 {
            assert_eq!(store.append_audit_nowait(record(&format!("killed {index}"))), Admission::Queued);
        }
        let recorded = async {
            while store.read(Reader::audit_last).await.unwrap() < last + 100 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), recorded).await.expect("the kills were not recorded");
        // The space that the reserve had is not for others.
        fill(&dir);
        let refused = store.append_audit(record("launch")).await.unwrap_err();
        assert!(matches!(refused, StoreError::DiskFull { .. }), "{refused:?}");

        // Space again: the reserve comes back, and so does the service.
        fs::remove_file(dir.join("filler")).unwrap();
        store.append_audit(record("launch")).await.unwrap();
        assert!(dir.join(RESERVE_FILE).exists());
        fill(&dir);
        assert_eq!(store.append_audit_nowait(record("last words")), Admission::Queued);
        store.close().await.unwrap();
        let key = public_key_of(&dir).unwrap();
        let report = verify(store.database(), Some(store.heads_file()), &key).unwrap();
        assert_eq!((report.is_sound(), report.unprotected), (true, 0), "{:?}", report.problems);

        // A start on a full disk is refused in words.
        let _ = fs::remove_file(dir.join(RESERVE_FILE));
        fill(&dir);
        let error = Store::open(&dir).map(drop).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    });
}

#[test]
fn a_read_only_state_directory_is_told_and_can_be_verified() {
    in_small_file_system("store::tests::full_disk::child_read_only", 16 * 1024 * 1024);
}

#[test]
#[ignore = "a child process of the tests in this file"]
fn child_read_only() {
    let Some(dir) = child_dir() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    runtime.block_on(async {
        let copy = dir.join("copy");
        let store = Store::open(&dir.join("state")).unwrap();
        store.append_audit(record("x")).await.unwrap();
        fs::create_dir(&copy).unwrap();
        for name in ["state.db", "state.db-wal", "audit-heads.log"] {
            fs::copy(dir.join("state").join(name), copy.join(name)).unwrap();
        }
        store.close().await.unwrap();
        drop(store);
        mount(None::<&str>, &dir, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>).unwrap();
        let error = Store::open(&dir.join("state")).map(drop).unwrap_err();
        assert_eq!(error.exit_code(), 73, "{error:?}");
        assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
        assert!(error.help().unwrap().contains("--state-dir"));
        let error = Store::open(&dir.join("new")).map(drop).unwrap_err();
        assert_eq!(error.exit_code(), 73, "{error:?}");
        let key = public_key_of(&dir.join("state")).unwrap();
        for (place, records) in [("state", 1), ("copy", 1)] {
            let report = verify(&dir.join(place).join("state.db"), None, &key).unwrap();
            assert_eq!((report.records, report.is_sound()), (records, true), "{place}: {:?}", report.problems);
        }
    });
}
