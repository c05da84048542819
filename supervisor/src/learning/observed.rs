//! What a run to learn from was seen doing: each path, program and address once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use agt_rings::notice::{Notice, What};
use agt_rings::spec::Access;

use crate::denials::Tried;

/// Paths that are kept apart; a program that opens more is told so.
pub const PATHS_MAX: usize = 50_000;
/// Addresses and refused calls that are kept apart.
pub const OTHERS_MAX: usize = 1_000;

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Paths that were opened or executed, with the most that was asked of each.
    pub paths: BTreeMap<PathBuf, Wanted>,
    /// Addresses that a connection was asked for to, and how often.
    pub addresses: BTreeMap<String, u64>,
    /// Refused calls in words, and how often.
    pub refused: BTreeMap<String, u64>,
    /// Programs that were started, or looked for: a shell tries each folder of PATH.
    pub programs: BTreeSet<PathBuf>,
    /// Opens for reading.
    pub reads: u64,
    /// Opens for writing.
    pub writes: u64,
    /// What found no room here, or never arrived.
    pub lost: u64,
}

/// The most that was asked of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// To be read or executed.
    Read,
    /// To be written or made.
    Write,
}

impl Wanted {
    /// As a rule of a file has it.
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Wanted::Read => Access::Read,
            Wanted::Write => Access::Write,
        }
    }
}

/// `.` and `..` folded, without asking any file system: what was noticed may be gone.
fn folded(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    if !path.is_absolute() {
        return None;
    }
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => drop(out.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(out)
}

impl Observed {
    /// Takes a notice.
    pub fn take(&mut self, notice: &Notice) {
        let count = notice.count;
        match &notice.what {
            What::Opened { path, write, .. } => {
                let wanted = if *write { Wanted::Write } else { Wanted::Read };
                match wanted {
                    Wanted::Read => self.reads = self.reads.saturating_add(count),
                    Wanted::Write => self.writes = self.writes.saturating_add(count),
                }
                self.path(path, wanted);
            }
            What::Executed { path } => {
                if let Some(program) = folded(path).filter(|_| self.programs.len() < OTHERS_MAX) {
                    self.programs.insert(program);
                }
                self.path(path, Wanted::Read);
            }
            What::Connected { address } => Self::count(&mut self.addresses, &mut self.lost, address, count),
            What::Refused { .. } | What::Name { .. } => {
                if let Some(tried) = Tried::of(&notice.what) {
                    Self::count(&mut self.refused, &mut self.lost, &tried.to_string(), count);
                }
            }
            What::Repository { .. } => {}
            What::Lost { count } => self.lost = self.lost.saturating_add(*count),
        }
    }

    /// Whether nothing was seen at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.addresses.is_empty() && self.refused.is_empty()
    }

    fn path(&mut self, path: &str, wanted: Wanted) {
        let Some(path) = folded(path) else { return };
        let has_room = self.paths.len() < PATHS_MAX;
        match self.paths.get_mut(&path) {
            Some(known) => *known = (*known).max(wanted),
            None if has_room => drop(self.paths.insert(path, wanted)),
            None => self.lost = self.lost.saturating_add(1),
        }
    }

    fn count(into: &mut BTreeMap<String, u64>, lost: &mut u64, what: &str, count: u64) {
        let has_room = into.len() < OTHERS_MAX;
        match into.get_mut(what) {
            Some(known) => *known = known.saturating_add(count),
            None if has_room => drop(into.insert(what.to_owned(), count)),
            None => *lost = lost.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use agt_rings::notice::Outcome;

    use super::*;

    fn opened(path: &str, write: bool) -> Notice {
        let what = What::Opened { path: path.to_owned(), write, result: Outcome::Unknown };
        Notice { pid: 1, comm: "x".to_owned(), what, count: 1 }
    }

    #[test]
    fn a_path_is_known_once_by_the_most_that_was_asked_of_it() {
        let mut observed = Observed::default();
        for (path, write) in
            [("/a/./b/../c", false), ("/a/c", true), ("/a/c", false), ("relative", false), ("/../x", false)]
        {
            observed.take(&opened(path, write));
        }
        let expected = [(PathBuf::from("/a/c"), Wanted::Write), (PathBuf::from("/x"), Wanted::Read)];
        assert_eq!(observed.paths.clone().into_iter().collect::<Vec<_>>(), expected);
        assert_eq!((observed.reads, observed.writes), (4, 1));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut observed = Observed::default();
        for number in 0..PATHS_MAX + 7 {
            observed.take(&opened(&format!("/{number}"), false));
        }
        assert_eq!((observed.paths.len(), observed.lost), (PATHS_MAX, 7));
    }
}
