//! What somebody else does in the same folder meanwhile, whose calls are not answered here.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::harness::{attended, has_walls, rules};

/// From then on the FIFO has its other end, so that a failure is told and not waited for.
const LET_GO_AFTER: Duration = Duration::from_secs(30);

/// Puts a FIFO and a file in each other's place at one name until it is over.
fn swap(folder: &Path, over: &AtomicBool) {
    let [name, kept, fifo, file] = ["q", "kept", "fifo", "file"].map(|each| folder.join(each));
    nix::unistd::mkfifo(&kept, Mode::from_bits_truncate(0o666)).unwrap();
    let (began, mut other_end) = (Instant::now(), None);
    while !over.load(Ordering::Relaxed) {
        std::fs::hard_link(&kept, &fifo).unwrap();
        std::fs::rename(&fifo, &name).unwrap();
        if other_end.is_none() && began.elapsed() > LET_GO_AFTER {
            other_end = Some(open(&kept, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap());
        }
        std::fs::write(&file, "").unwrap();
        std::fs::rename(&file, &name).unwrap();
    }
}

#[test]
fn a_fifo_that_comes_in_a_files_place_holds_up_nobody_elses_calls() {
    if !has_walls() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let over = AtomicBool::new(false);
    // One opens the name again and again, and is ended wherever it waits; the other makes files of its own.
    let script = "end=$(( $(date +%s) + 3 ))
        while [ $(date +%s) -lt $end ]; do timeout -s KILL 0.05 sh -c 'while :; do : > q; done'; done &
        n=0; while [ $(date +%s) -lt $end ]; do n=$((n + 1)); : > own$n; done
        wait; echo made";
    std::thread::scope(|scope| {
        scope.spawn(|| swap(top.path(), &over));
        let mut command = Command::new("/usr/bin/timeout");
        command.args(["-s", "KILL", "20", "/bin/sh", "-c", script]).current_dir(top.path()).stdin(Stdio::null());
        let (output, _) = attended(top.path(), command, rules(top.path()));
        over.store(true, Ordering::Relaxed);
        let said = (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned());
        assert_eq!(said, (Some(0), "made\n".to_owned()), "every call stood still");
    });
}
