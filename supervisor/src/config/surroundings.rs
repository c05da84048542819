//! What is around a configuration: folders, accounts, environment. Handed in, never looked up on the way.
//!
//! The resolver reads the file system (links, interpreters), but who asks, from where and with which variables is an
//! argument, so that a test or a second supervisor can stand in for anybody.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use agt_rings::Ring;
use agt_rings::spec::Limits;

/// One line of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home folder.
    pub home: PathBuf,
}

/// What a ring gives without a grant: default and ceiling in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingDefaults {
    /// Kept by cgroups.
    pub limits: Limits,
    /// Open files of each process (RLIMIT_NOFILE).
    pub open_files: Option<u32>,
    /// Requests a minute, through the gateway and on the control socket.
    pub requests_per_minute: Option<u32>,
}

/// The built-in defaults of the four rings, R0 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RingTable(pub [RingDefaults; 4]);

impl RingTable {
    /// The row of a ring.
    #[must_use]
    pub fn of(&self, ring: Ring) -> RingDefaults {
        self.0[usize::from(ring.number())]
    }
}

/// Everything about the outside that a plan depends on.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the user stands.
    pub cwd: PathBuf,
    /// Who asks.
    pub uid: u32,
    /// The asking user's group.
    pub gid: u32,
    /// The asking user's home.
    pub home: Option<PathBuf>,
    /// All known accounts: their homes are protected, their names can be asked for.
    pub accounts: Vec<Account>,
    /// All known groups, by name: the operator's file may name some as operators.
    pub groups: BTreeMap<String, u32>,
    /// Our configuration.
    pub config_dir: PathBuf,
    /// Our durable state.
    pub state_dir: PathBuf,
    /// Our sockets and locks.
    pub runtime_dir: PathBuf,
    /// The operator's file when none is named.
    pub operator_file: PathBuf,
    /// The environment of the asking process.
    pub env: BTreeMap<String, String>,
    /// Limits of the four rings.
    pub rings: RingTable,
    /// The faults that exist, for `chaos.faults`; empty = not checked.
    pub faults: Vec<String>,
}

impl fmt::Debug for Surroundings {
    /// The environment holds secrets: only its size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("cwd", &self.cwd)
            .field("uid", &self.uid)
            .field("home", &self.home)
            .field("config_dir", &self.config_dir)
            .field("state_dir", &self.state_dir)
            .field("runtime_dir", &self.runtime_dir)
            .field("operator_file", &self.operator_file)
            .field("env", &format_args!("{} variables", self.env.len()))
            .finish_non_exhaustive()
    }
}

/// Our own folders, as the command line and the environment give them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFolders {
    /// Configuration.
    pub config: PathBuf,
    /// Durable state.
    pub state: PathBuf,
    /// Sockets and locks.
    pub runtime: PathBuf,
}

impl Surroundings {
    /// What surrounds this process. Variables that are not UTF-8 are left out.
    ///
    /// # Errors
    /// The working folder is gone, or the user database can't be read.
    pub fn of_process(own: OwnFolders, rings: RingTable, faults: Vec<String>) -> std::io::Result<Surroundings> {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let read = |path| match std::fs::read_to_string(path) {
            // A container without a user database has no homes to protect but $HOME.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        };
        let accounts = parse_accounts(&read("/etc/passwd")?);
        let uid = nix::unistd::getuid().as_raw();
        let home = env
            .get("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute())
            .or_else(|| accounts.iter().find(|account| account.uid == uid).map(|account| account.home.clone()));
        Ok(Surroundings {
            cwd: std::env::current_dir()?,
            uid,
            gid: nix::unistd::getgid().as_raw(),
            home,
            accounts,
            groups: parse_groups(&read("/etc/group")?),
            operator_file: PathBuf::from("/etc/agt-supervise/operator.yaml"),
            config_dir: own.config,
            state_dir: own.state,
            runtime_dir: own.runtime,
            env,
            rings,
            faults,
        })
    }

    /// The account that `text` names, by name or by uid.
    #[must_use]
    pub fn account(&self, text: &str) -> Option<&Account> {
        let by_name = self.accounts.iter().find(|account| account.name == text);
        by_name.or_else(|| text.parse().ok().and_then(|uid: u32| self.accounts.iter().find(|a| a.uid == uid)))
    }

    /// The gid of the group that `text` names, by name or by number.
    #[must_use]
    pub fn group(&self, text: &str) -> Option<u32> {
        self.groups.get(text).copied().or_else(|| text.parse().ok())
    }
}

/// The lines of passwd(5) that are whole.
fn parse_accounts(passwd: &str) -> Vec<Account> {
    passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
            Some(Account {
                name: (*name).to_owned(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: PathBuf::from(home),
            })
        })
        .collect()
}

/// The lines of group(5) that are whole.
fn parse_groups(group: &str) -> BTreeMap<String, u32> {
    group
        .lines()
        .filter_map(|line| {
            let [name, _, gid, ..] = line.split(':').collect::<Vec<_>>()[..] else { return None };
            Some((name.to_owned(), gid.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn broken_lines_of_the_user_database_are_skipped() {
        let accounts =
            parse_accounts("root:x:0:0:root:/root:/bin/sh\n#comment\nx:y\nbad:x:a:b::/h:/s\nu:x:7:8::/home/u:\n");
        assert_eq!(accounts.iter().map(|a| (a.name.as_str(), a.uid)).collect::<Vec<_>>(), [("root", 0), ("u", 7)]);
    }
}
