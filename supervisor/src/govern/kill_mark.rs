//! The kill switch's mark where the supervisor could not put it: `kill --all` beside one that hangs or is dead.
//!
//! Whoever kills has no right to the store, whose lock the hung supervisor holds. So it leaves a file in the state directory,
//! durable before the command ends; the supervisor takes it up when it runs again, and a next start before it starts anything.
//! One file a kill: two killers never write the same one, and a file that is there is whole (written beside, then renamed).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::stored::{self, Killed};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::store::{Commit, Store, StoreError};

/// The folder in the state directory; it is there only while a mark waits.
const FOLDER: &str = "killed";
/// What the audit log calls it.
const KILL: Action = Action::new("kill");
/// Marks that are taken up at once: more wait for the next look.
const MARKS_MAX: usize = 1000;

/// One kill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillMark {
    /// Whom it ended.
    pub agents: Vec<String>,
    /// Why.
    pub reason: String,
    /// The uid that asked for it.
    pub by: u32,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Whether it was for everybody: then also for those who had nothing running just then, because they wait to be restarted.
    #[serde(default)]
    pub everyone: bool,
}

/// A mark that can't be taken up. Until it is, nothing is started.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The file or its folder.
    #[error("the kill switch's mark {} can't be used", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It isn't what this program writes.
    #[error("the kill switch's mark {} can't be read", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MarkError {
    /// The exit code of this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            MarkError::Io { .. } => crate::exit::CANT_CREATE,
            MarkError::Damaged { .. } => crate::exit::DATA,
            MarkError::Store(e) => e.exit_code(),
        }
    }

    /// One line that helps.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            MarkError::Io { .. } => Some("make the state directory writable for this user.".to_owned()),
            MarkError::Damaged { path, .. } => Some(format!(
                "somebody was killed by it: look at {}, remove it, and put the mark again with `agt-supervise kill`.",
                path.display()
            )),
            MarkError::Store(e) => e.help(),
        }
    }
}

/// Leaves a mark, synced.
///
/// # Errors
/// What kept it from the disk, with the path.
pub fn leave(state: &Path, mark: &KillMark) -> Result<(), MarkError> {
    let folder = state.join(FOLDER);
    let name = format!("{}-{}", mark.at_ms, std::process::id());
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| MarkError::Io { path, source }
    };
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(at(&folder)(e)),
        _ => {}
    }
    let beside = folder.join(format!(".{name}"));
    let bytes = serde_json::to_vec(mark).expect("a mark is plain data");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(at(&beside))?;
    let path = folder.join(format!("{name}.json"));
    fs::rename(&beside, &path).map_err(at(&path))?;
    [&folder, state].into_iter().try_for_each(|dir| File::open(dir)?.sync_all()).map_err(at(&folder))
}

/// The marks that wait, oldest first. One look at a folder that is hardly ever there.
///
/// # Errors
/// A folder or a file that can't be read, a file that is no mark.
pub fn waiting(state: &Path) -> Result<Vec<(PathBuf, KillMark)>, MarkError> {
    let folder = state.join(FOLDER);
    let at = |path: &Path, source| MarkError::Io { path: path.to_owned(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(at(&folder, e)),
    };
    let mut paths = Vec::new();
    for entry in entries.take(MARKS_MAX) {
        let path = entry.map_err(|e| at(&folder, e))?.path();
        // What is being written beside ends differently.
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).map_err(|e| at(&path, e))?;
        let mark =
            serde_json::from_slice(&bytes).map_err(|source| MarkError::Damaged { path: path.clone(), source })?;
        Ok((path, mark))
    };
    paths.into_iter().map(read).collect()
}

/// Takes the marks that wait into the store, audited; whom they killed stays dead from now on. A name that the store does not
/// know (a saga's step) has nothing to be marked.
///
/// # Errors
/// [`MarkError`]; a mark that was not stored stays where it is.
pub async fn take_up(store: &Store, state: &Path) -> Result<Vec<KillMark>, MarkError> {
    let mut taken = Vec::new();
    for (path, mut mark) in waiting(state)? {
        let mut known = Vec::new();
        for agent in std::mem::take(&mut mark.agents) {
            if store.get_state(&agent, stored::IDENTITY).await?.is_some() {
                known.push(agent);
            }
        }
        mark.agents = known;
        let killed = serde_json::to_value(Killed { reason: mark.reason.clone(), at_ms: mark.at_ms })
            .expect("a mark is plain data");
        let commit = mark.agents.iter().fold(Commit::new(), |commit, agent| {
            let record = Record::new(mark.at_ms, Actor::Operator(mark.by), KILL, Outcome::Done)
                .agent(agent)
                .reason(mark.reason.as_str())
                .detail("how", "kill --all, without the supervisor");
            commit.put_state(agent, stored::KILLED, killed.clone(), mark.at_ms).audit(record)
        });
        if !commit.is_empty() {
            store.commit(commit).await?;
        }
        // After the store has it: a crash in between marks it twice, which is once.
        fs::remove_file(&path).map_err(|source| MarkError::Io { path: path.clone(), source })?;
        taken.push(mark);
    }
    if !taken.is_empty() {
        // Another kill may have written into it meanwhile; then it stays.
        let _ = fs::remove_dir(state.join(FOLDER));
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mark(agent: &str, at_ms: i64) -> KillMark {
        KillMark { agents: vec![agent.to_owned()], reason: "test".to_owned(), by: 7, at_ms, everyone: false }
    }

    #[test]
    fn what_is_left_is_read_oldest_first_and_half_written_marks_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert!(waiting(dir.path()).unwrap().is_empty());
        leave(dir.path(), &mark("b", 20)).unwrap();
        leave(dir.path(), &mark("a", 10)).unwrap();
        fs::write(dir.path().join(FOLDER).join(".5-1"), "{").unwrap();
        let marks: Vec<KillMark> = waiting(dir.path()).unwrap().into_iter().map(|(_, mark)| mark).collect();
        assert_eq!(marks, [mark("a", 10), mark("b", 20)]);
    }

    #[test]
    fn a_damaged_mark_is_no_missing_mark() {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), &mark("a", 10)).unwrap();
        let path = waiting(dir.path()).unwrap().remove(0).0;
        fs::write(&path, "{}").unwrap();
        let error = waiting(dir.path()).unwrap_err();
        assert_eq!(error.exit_code(), crate::exit::DATA);
    }

    #[tokio::test]
    async fn a_mark_kills_whom_the_store_knows_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let store = Store::open(&state).unwrap();
        store.put_state("a", stored::IDENTITY, serde_json::json!({}), 1).await.unwrap();
        leave(&state, &KillMark { agents: vec!["a".to_owned(), "a-step".to_owned()], ..mark("a", 10) }).unwrap();
        let taken = take_up(&store, &state).await.unwrap();
        assert_eq!(taken, [mark("a", 10)]);
        assert!(store.get_state("a", stored::KILLED).await.unwrap().is_some());
        assert!(store.get_state("a-step", stored::KILLED).await.unwrap().is_none());
        assert!(!state.join(FOLDER).exists());
        let audited = store.audit_page(0, 100).await.unwrap();
        assert!(audited.iter().any(|row| format!("{row:?}").contains("without the supervisor")), "{audited:?}");
        store.close().await.unwrap();
    }
}
