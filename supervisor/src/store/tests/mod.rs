//! The store on a real disk.
#![allow(clippy::unwrap_used)]

mod bad_state;
mod commits;
mod crash;
mod full_disk;
mod tamper;

use std::path::Path;
use std::process::Command;

use agt_saga::journal::Summary;

use crate::audit::record::{Action, Actor, Outcome, Record};

/// Set for a child process of a test: the folder it works in.
const CHILD_DIR: &str = "AGT_TEST_STORE_DIR";

fn record(text: &str) -> Record {
    Record::new(1_700_000_000_000, Actor::Supervisor, Action::new("test"), Outcome::Noted).agent("a").reason(text)
}

fn summary(id: &str, state: &str, updated_ms: i64) -> Summary {
    let finished = state == "completed";
    Summary { id: id.to_owned(), name: "refund".to_owned(), state: state.to_owned(), finished, updated_ms }
}

/// This test executable again, running one test marked as a child.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(CHILD_DIR, dir);
    command
}
