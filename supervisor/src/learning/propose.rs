//! From what was seen to the fewest and smallest rules that would have allowed it.
//!
//! What the ring shows anyway needs no rule. What does not exist on this host gets none. Several files of one folder become the
//! folder, an installation (a venv, node_modules) becomes its root; but never a home, `/`, or a folder right below it, asked for by
//! itself or as the place of a new name: that, and what nobody should paste (secrets of /etc, the system, never-writable names), is
//! told as a note. Each rule is put to the resolver, whose word decides whether it is free, an operator's, or nobody's; what is
//! nobody's hides nothing that lies in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use agt_rings::spec::Access;

use super::observed::{Observed, Wanted};
use crate::config::Wish;
use crate::config::spec::HostPort;

/// So many names of one folder become the folder.
pub const FOLDER_FROM: usize = 4;
/// Rounds of making folders of folders: deeper trees are left as they are by then.
const ROUNDS_MAX: usize = 32;
/// Most rules of one kind: a file for people to read. More are told as a note.
pub const RULES_MAX: usize = 100;
/// Most questions to the resolver before the lines are known: each resolves the whole file.
const ASKS_MAX: usize = 200;
/// Paths that one note names.
const NAMED_MAX: usize = 5;

/// What the resolver says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Nothing: it needs nobody.
    Free,
    /// It needs a line of the operator's file, for this reason.
    Operator(String),
    /// No line allows it, for this reason.
    Never(String),
}

/// What stands at a path on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// The path with links resolved.
    pub real: PathBuf,
    /// Whether it is a folder.
    pub kind: Kind,
}

/// Folder or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// Anything else.
    File,
}

/// The host and the rules, as far as a proposal needs them.
pub trait World {
    /// Whether the run had it already, by its ring or its workdir.
    fn has(&self, path: &Path, access: Access) -> bool;
    /// What is there on the host.
    fn stands(&self, path: &Path) -> Option<Stands>;
    /// The installation that a path is part of: a venv, node_modules, a package folder.
    fn installation(&self, path: &Path) -> Option<PathBuf>;
    /// Whether a whole folder can be asked for: no home, nothing that holds one, no folder of everybody.
    fn may_be_whole(&self, folder: &Path) -> bool;
    /// Why nobody should paste a line for this path, whatever the resolver says: a secret, the system, a never-writable name.
    fn closed(&self, path: &Path, access: Access) -> Option<String>;
    /// What the resolver says to this line.
    fn says(&self, wish: &Wish) -> Said;
    /// Whether something on the host listens there.
    fn listens(&self, address: SocketAddr) -> bool;
}

/// One proposed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it asks for.
    pub wish: Wish,
    /// What the resolver says to it.
    pub said: Said,
}

/// What comes of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Lines, files before destinations.
    pub lines: Vec<Line>,
    /// What no line can say, in sentences.
    pub notes: Vec<String>,
}

impl Proposal {
    /// Lines that an operator has to look at.
    #[must_use]
    pub fn for_the_operator(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line.said, Said::Operator(_))).count()
    }
}

/// Makes a proposal.
#[must_use]
pub fn propose(observed: &Observed, world: &dyn World) -> Proposal {
    let asks = Asks { world, said: RefCell::default() };
    let Sorted { reads, writes, notes } = wanted(observed, world);
    let mut proposal = Proposal { lines: Vec::new(), notes };
    let writes = generalised(writes, Wanted::Write, &asks);
    let is_covered =
        |path: &Path| writes.iter().any(|tree| path.starts_with(tree) && !asks.is_never(tree, Wanted::Write));
    let reads = generalised(reads.into_iter().filter(|path| !is_covered(path)).collect(), Wanted::Read, &asks);
    for (paths, wanted) in [(reads, Wanted::Read), (writes, Wanted::Write)] {
        if paths.len() > RULES_MAX {
            proposal
                .notes
                .push(format!("{} more paths are not listed: name the folders that it needs", paths.len() - RULES_MAX));
        }
        for path in paths.into_iter().take(RULES_MAX) {
            let said = asks.says(&path, wanted);
            proposal.lines.push(Line { wish: Wish::File(path, wanted.access()), said });
        }
    }
    for (address, times) in &observed.addresses {
        destination(address, *times, world, &mut proposal);
    }
    for (call, times) in &observed.refused {
        proposal.notes.push(format!("the ring refused {call} ({})", counted(*times)));
    }
    if observed.lost > 0 {
        proposal.notes.push(format!("{} of its acts came too fast to be seen: run it again for those", observed.lost));
    }
    proposal
}

fn counted(times: u64) -> String {
    if times == 1 { "once".to_owned() } else { format!("{times} times") }
}

/// The resolver's answers, each asked for once.
struct Asks<'w> {
    world: &'w dyn World,
    said: RefCell<BTreeMap<(PathBuf, Wanted), Said>>,
}

impl Asks<'_> {
    fn says(&self, path: &Path, wanted: Wanted) -> Said {
        let key = (path.to_path_buf(), wanted);
        if let Some(said) = self.said.borrow().get(&key) {
            return said.clone();
        }
        let said = self.world.says(&Wish::File(path.to_path_buf(), wanted.access()));
        self.said.borrow_mut().insert(key, said.clone());
        said
    }

    /// Whether no line allows it. What is asked beyond the bound is taken for allowed: then it is looked at as a line.
    fn is_never(&self, path: &Path, wanted: Wanted) -> bool {
        let may_ask = || self.said.borrow().len() < ASKS_MAX;
        let is_known = || self.said.borrow().contains_key(&(path.to_path_buf(), wanted));
        (may_ask() || is_known()) && matches!(self.says(path, wanted), Said::Never(_))
    }
}

/// What the run wanted and did not have.
#[derive(Debug, Default)]
struct Sorted {
    reads: BTreeSet<PathBuf>,
    writes: BTreeSet<PathBuf>,
    /// What becomes no line.
    notes: Vec<String>,
}

/// The host's paths that the run wanted and did not have.
fn wanted(observed: &Observed, world: &dyn World) -> Sorted {
    let mut sorted = Sorted::default();
    let mut told: BTreeMap<(&'static str, String), Vec<&Path>> = BTreeMap::new();
    for (path, wanted) in &observed.paths {
        // Of these each process has its own, or the ring's.
        if ["/proc", "/sys", "/dev"].iter().any(|tree| path.starts_with(tree)) {
            continue;
        }
        let (found, verb) = match (world.stands(path), wanted, path.parent()) {
            (Some(found), Wanted::Read, _) => (found, "read"),
            (Some(found), Wanted::Write, _) => (found, "write"),
            // A new name needs the folder that it would be made in.
            (None, Wanted::Write, Some(parent)) => match world.stands(parent) {
                Some(found @ Stands { kind: Kind::Folder, .. }) => (found, "make"),
                _ => continue,
            },
            _ => continue,
        };
        let Stands { real, kind } = found;
        let access = wanted.access();
        if world.has(path, access) || world.has(&real, access) {
            continue;
        }
        if let Some(why) = world.closed(path, access).or_else(|| world.closed(&real, access)) {
            told.entry((verb, why)).or_default().push(path);
        } else if kind == Kind::Folder && !world.may_be_whole(&real) {
            let how = if verb == "make" { "make a folder there and name it" } else { "name what it needs in it" };
            told.entry((verb, format!("{} is not given whole; {how}", real.display()))).or_default().push(path);
        } else {
            match wanted {
                Wanted::Read => sorted.reads.insert(real),
                Wanted::Write => sorted.writes.insert(real),
            };
        }
    }
    let more = told.len().saturating_sub(RULES_MAX);
    sorted.notes = told.into_iter().take(RULES_MAX).map(|((verb, why), paths)| note(verb, &why, &paths)).collect();
    if more > 0 {
        sorted.notes.push(format!("{more} more notes like these are not listed"));
    }
    sorted
}

/// One sentence about what was wanted and becomes no line.
fn note(verb: &str, why: &str, paths: &[&Path]) -> String {
    let named: Vec<String> = paths.iter().take(NAMED_MAX).map(|path| path.display().to_string()).collect();
    let more = paths.len() - named.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("it wanted to {verb} {}{more}: {why}", named.join(", "))
}

/// Installations by their root, folders in place of many files; then nothing that lies in another.
fn generalised(paths: BTreeSet<PathBuf>, wanted: Wanted, asks: &Asks<'_>) -> BTreeSet<PathBuf> {
    let world = asks.world;
    // What no line allows stands for nothing that lies in it. Of the others nobody needs to know yet.
    let holds_another = |path: &PathBuf| {
        let after = (Bound::Excluded(path.as_path()), Bound::Unbounded);
        paths.range::<Path, _>(after).next().is_some_and(|next| next.starts_with(path))
    };
    let never: BTreeSet<PathBuf> =
        paths.iter().filter(|path| holds_another(path) && asks.is_never(path, wanted)).cloned().collect();
    let can_be_whole = |folder: &Path| world.may_be_whole(folder) && !asks.is_never(folder, wanted);
    let mut paths: BTreeSet<PathBuf> = paths
        .into_iter()
        .filter(|path| !never.contains(path))
        .map(|path| match world.installation(&path) {
            Some(root) if wanted == Wanted::Read && can_be_whole(&root) => root,
            _ => path,
        })
        .collect();
    for _ in 0..ROUNDS_MAX {
        let mut children: BTreeMap<&Path, usize> = BTreeMap::new();
        for parent in paths.iter().filter_map(|path| path.parent()) {
            *children.entry(parent).or_default() += 1;
        }
        let many = |(folder, count): &(&Path, usize)| *count >= FOLDER_FROM && can_be_whole(folder);
        let whole: BTreeSet<PathBuf> =
            children.into_iter().filter(many).map(|(folder, _)| folder.to_path_buf()).collect();
        if whole.is_empty() {
            break;
        }
        paths.extend(whole);
        paths = outermost(paths);
    }
    let mut paths = outermost(paths);
    paths.extend(never);
    paths
}

fn outermost(paths: BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
    let mut kept: BTreeSet<PathBuf> = BTreeSet::new();
    // A folder comes before what is in it.
    for path in paths {
        if !path.ancestors().skip(1).any(|above| kept.contains(above)) {
            kept.insert(path);
        }
    }
    kept
}

fn destination(address: &str, times: u64, world: &dyn World, proposal: &mut Proposal) {
    let Ok(socket) = address.parse::<SocketAddr>() else {
        if !is_commonplace(address) {
            proposal
                .notes
                .push(format!("it asked for {address} ({}): other programs' sockets are not shown", counted(times)));
        }
        return;
    };
    if !socket.ip().is_loopback() {
        let text = format!("it asked for {socket} ({}): run a proxy to it on this host, and name that", counted(times));
        proposal.notes.push(text);
        return;
    }
    // Its own network has a loopback of its own: what nothing on the host listens at was its own affair.
    if let (true, Ok(to)) = (world.listens(socket), HostPort::parse(&socket.to_string())) {
        let wish = Wish::Network(to);
        let said = world.says(&wish);
        proposal.lines.push(Line { wish, said });
    }
}

/// What C libraries call at every start, and go on without: name services, the log.
fn is_commonplace(address: &str) -> bool {
    ["unix:/var/run/nscd/", "unix:/run/nscd/", "unix:/dev/log", "unix:/run/systemd/", "family:0"]
        .iter()
        .any(|known| address.starts_with(known))
        || address == "unix:"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_rings::notice::{Notice, Outcome, What};
    use proptest::prelude::*;

    use super::*;

    /// A host with /home/u, /srv/data, a venv and node_modules; a ring that shows /usr and the workdir /home/u/p.
    struct Host;

    impl World for Host {
        fn has(&self, path: &Path, access: Access) -> bool {
            path.starts_with("/home/u/p") || (access == Access::Read && path.starts_with("/usr"))
        }

        fn stands(&self, path: &Path) -> Option<Stands> {
            let folders = [
                "/",
                "/srv",
                "/srv/data",
                "/srv/data/a",
                "/srv/ours",
                "/srv/ours/in",
                "/home",
                "/home/u",
                "/home/u/p",
                "/home/u/.ssh",
                "/opt/v",
                "/etc",
            ];
            if folders.iter().any(|folder| path == Path::new(folder)) {
                return Some(Stands { real: path.to_path_buf(), kind: Kind::Folder });
            }
            let is_there =
                path.parent().is_some_and(|parent| parent != Path::new("/")) && !path.to_str()?.contains("new");
            is_there.then(|| Stands { real: path.to_path_buf(), kind: Kind::File })
        }

        fn installation(&self, path: &Path) -> Option<PathBuf> {
            path.starts_with("/opt/v").then(|| PathBuf::from("/opt/v"))
        }

        fn may_be_whole(&self, folder: &Path) -> bool {
            folder.components().count() > 2 && !["/home/u", "/home/u/.ssh"].iter().any(|home| folder == Path::new(home))
        }

        fn closed(&self, path: &Path, _: Access) -> Option<String> {
            path.ends_with("shadow").then(|| "a secret".to_owned())
        }

        fn says(&self, wish: &Wish) -> Said {
            match wish {
                Wish::File(path, _) if path == Path::new("/srv/ours") => Said::Never("ours".to_owned()),
                _ => Said::Operator("outside".to_owned()),
            }
        }

        fn listens(&self, address: SocketAddr) -> bool {
            address.port() == 8099
        }
    }

    fn seen(paths: &[(&str, bool)]) -> Observed {
        let mut observed = Observed::default();
        for (path, write) in paths {
            let what = What::Opened { path: (*path).to_owned(), write: *write, result: Outcome::Unknown };
            observed.take(&Notice { pid: 1, comm: String::new(), what, count: 1 });
        }
        observed
    }

    fn files(observed: &Observed) -> Vec<(String, Access)> {
        let file = |line: Line| match line.wish {
            Wish::File(path, access) => Some((path.display().to_string(), access)),
            Wish::Network(_) => None,
        };
        propose(observed, &Host).lines.into_iter().filter_map(file).collect()
    }

    #[test]
    fn what_the_ring_shows_and_what_is_not_there_needs_no_line() {
        let paths = [
            ("/usr/lib/x", false),
            ("/home/u/p/out", true),
            ("/srv/data/new", false),
            ("/proc/1/maps", false),
            ("/gone/new/x", true),
        ];
        assert_eq!(files(&seen(&paths)), []);
    }

    #[test]
    fn a_file_stays_a_file_and_many_become_their_folder() {
        let one = [("/srv/data/a/1", false), ("/srv/data/a/2", false), ("/srv/data/a/3", false)];
        assert_eq!(files(&seen(&one)).len(), 3);
        let four = [&one[..], &[("/srv/data/a/4", false)]].concat();
        assert_eq!(files(&seen(&four)), [("/srv/data/a".to_owned(), Access::Read)]);
    }

    #[test]
    fn a_venv_is_its_root_and_a_new_file_is_its_folder() {
        let paths = [
            ("/opt/v/lib/a.py", false),
            ("/opt/v/bin/x", false),
            ("/srv/data/new.txt", true),
            ("/srv/data/old", false),
        ];
        let expected = [("/opt/v".to_owned(), Access::Read), ("/srv/data".to_owned(), Access::Write)];
        assert_eq!(files(&seen(&paths)), expected, "what is read in a tree to be written needs no line of its own");
    }

    #[test]
    fn a_home_is_never_proposed_whatever_is_read_in_it() {
        let paths: Vec<String> = (0..50).flat_map(|n| [format!("/home/u/{n}"), format!("/home/u/.ssh/{n}")]).collect();
        let paths: Vec<(&str, bool)> = paths.iter().map(|path| (path.as_str(), false)).collect();
        let found = files(&seen(&paths));
        assert_eq!(found.len(), 100);
        assert!(found.iter().all(|(path, _)| path != "/home/u" && path != "/home/u/.ssh"), "{found:?}");
    }

    #[test]
    fn the_place_of_a_new_name_is_told_where_it_is_not_given_whole() {
        let paths =
            [("/home/new", true), ("/srv/new", true), ("/srv/new2", true), ("/home/u/new", true), ("/new", true)];
        let proposal = propose(&seen(&paths), &Host);
        assert_eq!(proposal.lines, []);
        let notes = proposal.notes.join("\n");
        assert!(notes.contains("make /home/new: /home is not given whole; make a folder there and name it"), "{notes}");
        assert!(notes.contains("make /srv/new, /srv/new2: /srv is not given whole"), "{notes}");
        assert_eq!(proposal.notes.len(), 4, "{notes}");
    }

    #[test]
    fn a_folder_that_is_not_given_whole_is_told_when_it_is_asked_for_itself() {
        for write in [false, true] {
            let proposal = propose(&seen(&[("/home/u", write), ("/", write)]), &Host);
            assert_eq!((proposal.lines.len(), proposal.notes.len()), (0, 2), "{proposal:?}");
            assert!(proposal.notes[0].contains("name what it needs in it"), "{proposal:?}");
        }
    }

    #[test]
    fn a_secret_is_told_and_no_line() {
        for write in [false, true] {
            let proposal = propose(&seen(&[("/etc/shadow", write)]), &Host);
            assert_eq!((proposal.lines.len(), proposal.notes.len()), (0, 1), "{proposal:?}");
            assert!(proposal.notes[0].ends_with("/etc/shadow: a secret"), "{proposal:?}");
        }
    }

    #[test]
    fn what_is_refused_hides_nothing_that_lies_in_it() {
        let paths = [("/new", true), ("/srv/data/1", false), ("/srv/data/a/2", true)];
        let expected = [("/srv/data/1".to_owned(), Access::Read), ("/srv/data/a/2".to_owned(), Access::Write)];
        assert_eq!(files(&seen(&paths)), expected, "the root");
        for write in [false, true] {
            let paths = [("/srv/ours/new", true), ("/srv/ours/in/1", write), ("/srv/ours", false)];
            let proposal = propose(&seen(&paths), &Host);
            let inside = |line: &&Line| matches!(&line.wish, Wish::File(path, _) if path.ends_with("in/1"));
            let line = proposal.lines.iter().find(inside).unwrap();
            assert_eq!(line.said, Said::Operator("outside".to_owned()), "{proposal:?}");
        }
        let four: Vec<String> = (0..4).map(|n| format!("/srv/ours/{n}")).collect();
        let four: Vec<(&str, bool)> = four.iter().map(|path| (path.as_str(), false)).collect();
        assert_eq!(files(&seen(&four)).len(), 4, "a folder that no line allows stands for no files");
    }

    #[test]
    fn notes_are_bounded() {
        let paths: Vec<String> = (0..1000).map(|n| format!("/srv/new{n}")).collect();
        let paths: Vec<(&str, bool)> = paths.iter().map(|path| (path.as_str(), true)).collect();
        let proposal = propose(&seen(&paths), &Host);
        assert_eq!(proposal.notes.len(), 1);
        assert!(proposal.notes[0].contains(" and 995 more: ") && proposal.notes[0].len() < 200, "{proposal:?}");
    }

    #[test]
    fn destinations_on_this_host_are_lines_and_the_rest_is_told() {
        let mut observed = Observed::default();
        for address in
            ["127.0.0.1:8099", "127.0.0.1:9", "93.184.216.34:443", "unix:/run/docker.sock", "unix:/var/run/nscd/socket"]
        {
            let what = What::Connected { address: address.to_owned() };
            observed.take(&Notice { pid: 1, comm: String::new(), what, count: 2 });
        }
        let proposal = propose(&observed, &Host);
        assert_eq!(proposal.lines.len(), 1);
        assert_eq!(proposal.lines[0].wish, Wish::Network(HostPort::parse("127.0.0.1:8099").unwrap()));
        assert_eq!(proposal.notes.len(), 2, "{:?}", proposal.notes);
        assert!(proposal.notes.iter().any(|note| note.contains("proxy")), "{:?}", proposal.notes);
    }

    proptest! {
        #[test]
        fn every_wanted_path_is_covered_and_nothing_forbidden_is_asked_for_whole(
            paths in prop::collection::vec(("(/(srv|home|opt|u|data|a|b|v|p)){1,5}", any::<bool>()), 0..60),
        ) {
            let paths: Vec<(&str, bool)> = paths.iter().map(|(path, write)| (path.as_str(), *write)).collect();
            let observed = seen(&paths);
            let found = files(&observed);
            let Sorted { reads, writes, .. } = wanted(&observed, &Host);
            for (wanted, needs_write) in reads.iter().map(|p| (p, false)).chain(writes.iter().map(|p| (p, true))) {
                let covers = |(tree, access): &&(String, Access)| {
                    wanted.starts_with(tree) && (!needs_write || *access == Access::Write)
                };
                prop_assert!(found.iter().any(|rule| covers(&rule)), "{wanted:?} {found:?}");
            }
            for (path, _) in &found {
                let asked = reads.contains(Path::new(path)) || writes.contains(Path::new(path));
                // This host takes every name that it does not know for a file, folders of other names too.
                let holds = |other: &&PathBuf| other.as_path() != Path::new(path) && other.starts_with(path);
                let is_file = Host.stands(Path::new(path)).is_some_and(|found| found.kind == Kind::File)
                    && !reads.iter().chain(&writes).any(|other| holds(&other));
                prop_assert!(asked || !is_file, "{path} was made up");
                prop_assert!(is_file || Host.may_be_whole(Path::new(path)), "{path} is whole");
            }
        }
    }
}
