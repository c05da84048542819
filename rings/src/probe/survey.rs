//! What this host offers and which rings it can enforce: the data behind `doctor`.
//!
//! Why nothing is guessed: the facts come from a launcher that tried each mechanism and a control group that was really made
//! and removed, and the judgement of each ring is the very plan that `run` would compile, not a second opinion beside it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::attack::stand;
use super::session::{GONE_WITHIN, OWN_ID, control_groups};
use super::{Error, decoys, wire};
use crate::cgroup::scope::Asked;
use crate::cgroup::{Base, Controller, Reserve};
use crate::host::{Controllers, Host, Privilege, Support};
use crate::launch::Launcher;
use crate::plan::Ids;
use crate::report::Report;
use crate::ring::Ring;
use crate::spec::{Access, Enforcement, FileRule, Spec};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Kernel, Landlock, seccomp, namespaces, controllers.
    #[serde(flatten)]
    pub host: Host,
    /// Whether an ordinary user can make a user namespace.
    pub user_namespaces: Support,
    /// Control groups.
    pub cgroup: Groups,
    /// The directory that was asked about.
    pub directory: Directory,
    /// Each ring, most privileged first: what a launch here enforces and what is missing.
    pub rings: Vec<Report>,
}

/// Control groups, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// `cgroup v2` and the like; `none` where there are none to use.
    pub layout: String,
    /// The group that we run in, as the kernel names it.
    pub own: Option<PathBuf>,
    /// Who gave us that group.
    pub delegated_by: String,
    /// What systemd said, where it was asked for a group.
    pub asked: Option<String>,
    /// What is kept for the supervisor itself; `None` where there are no groups.
    pub reserve: Option<Reserve>,
    /// Controllers that can keep limits, by the kernel's names.
    pub controllers: Vec<String>,
    /// Controllers that can't.
    pub gaps: Vec<GroupGap>,
}

/// A controller that can't keep limits here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupGap {
    /// The controller; `all` where there is no group at all.
    pub controller: String,
    /// Why.
    pub reason: String,
    /// One thing that helps.
    pub help: String,
}

/// A directory as an agent's workdir.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// Its path, links resolved.
    pub path: PathBuf,
    /// Its file system.
    pub filesystem: String,
    /// Whether an agent of its own uid can reach it without chown: by an id-mapped mount.
    pub id_map: Support,
}

impl Survey {
    /// Rings that can be enforced in full.
    pub fn full(&self) -> impl Iterator<Item = Ring> + '_ {
        self.rings.iter().filter(|report| report.is_full()).map(|report| report.ring)
    }
}

/// Looks at this host, with `directory` as the workdir of the agents in question. Leaves nothing behind. Call it from a process
/// whose `main` begins with the hooks of launcher and probe.
///
/// # Errors
/// [`Error`] when the launcher can't be started or the directory isn't there.
pub fn survey(directory: &Path) -> Result<Survey, Error> {
    let directory = directory.canonicalize().map_err(Error::decoy(format!("find {}", directory.display())))?;
    let (base, controllers, asked) = control_groups()?;
    let groups = groups(base.as_ref(), &controllers, &asked);
    let surveyed = look(&directory, controllers, groups);
    if let Some(base) = base {
        base.agents().kill(GONE_WITHIN).map(drop)?;
        base.close()?;
    }
    surveyed
}

fn look(directory: &Path, controllers: Controllers, cgroup: Groups) -> Result<Survey, Error> {
    let launcher = Launcher::start(controllers)?;
    let host = launcher.host().clone();
    let mut rings = Vec::new();
    for ring in Ring::ALL {
        let plan = launcher.compile(&sample(ring, directory))?;
        rings.push(plan.expect("best effort is never refused").report);
    }
    let tree = launcher.inspect(&[directory.to_owned()])?.into_iter().next();
    let unseen = || Support::No { reason: "the launcher said nothing about it".to_owned() };
    let (filesystem, id_map) = tree.map_or_else(|| (String::new(), unseen()), |tree| (tree.filesystem, tree.id_map));
    let user_namespaces = user_namespaces(&host)?;
    let directory = Directory { path: directory.to_owned(), filesystem, id_map };
    Ok(Survey { host, user_namespaces, cgroup, directory, rings })
}

/// An ordinary agent of this ring in this directory.
fn sample(ring: Ring, directory: &Path) -> Spec {
    Spec {
        enforcement: Enforcement::BestEffort,
        files: vec![FileRule { path: directory.to_owned(), access: Access::Write }],
        own_id: OWN_ID,
        ..Spec::new("doctor", ring, "/bin/true", directory)
    }
}

/// Tried in a child, as an ordinary user where we can become one.
fn user_namespaces(host: &Host) -> Result<Support, Error> {
    let ordinary =
        (host.privilege == Privilege::Root && host.own_ids.is_yes()).then_some(Ids { uid: OWN_ID, gid: OWN_ID });
    let mut command = decoys::attacker(ordinary);
    let output = command.arg(stand::USER_NAMESPACE).output().map_err(Error::decoy("try a user namespace"))?;
    Ok(match wire::parse(&output.stdout) {
        Some(super::attack::Got::Ok) => Support::Yes,
        Some(got) => Support::No { reason: format!("unshare: {}", got.words()) },
        None => Support::No { reason: format!("no answer, {}", output.status) },
    })
}

fn groups(base: Option<&Base>, controllers: &Controllers, asked: &Asked) -> Groups {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own_group(&text);
    let in_container = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    let is_root = nix::unistd::geteuid().is_root();
    let delegated_by = delegated_by(own.as_deref().unwrap_or(Path::new("/")), in_container, is_root).to_owned();
    let Some(base) = base else {
        let gap = GroupGap {
            controller: "all".to_owned(),
            reason: controllers.kill.reason().unwrap_or("no control group can be used").to_owned(),
            help: "start as root, or in a delegated group: systemd-run --user --scope -p Delegate=yes COMMAND"
                .to_owned(),
        };
        let asked = asked.in_words();
        return Groups {
            layout: "none".to_owned(),
            own,
            delegated_by,
            asked,
            reserve: None,
            controllers: Vec::new(),
            gaps: vec![gap],
        };
    };
    let kept = Controller::LIMITING.into_iter().filter(|controller| base.keeps(*controller));
    let gaps = base.gaps().iter().map(|gap| GroupGap {
        controller: gap.controller.to_string(),
        reason: gap.reason.to_string(),
        help: gap.help(),
    });
    Groups {
        layout: format!("cgroup {}", controllers.layout),
        own,
        delegated_by,
        asked: asked.in_words(),
        reserve: Some(base.reserve()),
        controllers: kept.map(|controller| controller.to_string()).collect(),
        gaps: gaps.collect(),
    }
}

/// Our group: v2's where there is one, else the memory controller's.
fn own_group(proc_self_cgroup: &str) -> Option<PathBuf> {
    let of = |wanted: &str| {
        proc_self_cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|name| name == wanted).then(|| PathBuf::from(path))
        })
    };
    of("").filter(|path| path != Path::new("/")).or_else(|| of("memory")).or_else(|| of(""))
}

/// Who gave us our group, as far as its name says.
fn delegated_by(own: &Path, in_container: bool, is_root: bool) -> &'static str {
    let name = own.to_string_lossy();
    if name.contains("/user@") {
        "systemd --user"
    } else if in_container || ["docker", "kubepods", "libpod", "lxc"].iter().any(|part| name.contains(part)) {
        "the container's runtime"
    } else if name.contains(".service") || name.contains(".scope") {
        "systemd"
    } else if is_root {
        "nobody (root owns all groups)"
    } else {
        "nobody"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_group_is_v2s_unless_that_is_only_the_root_of_a_hybrid_host() {
        assert_eq!(own_group("0::/user.slice/a.scope\n"), Some("/user.slice/a.scope".into()));
        assert_eq!(own_group("4:memory:/we\n1:cpu,cpuacct:/x\n0::/\n"), Some("/we".into()));
        assert_eq!(own_group("0::/\n"), Some("/".into()));
        assert_eq!(own_group(""), None);
    }

    #[test]
    fn the_giver_of_a_group_is_read_off_its_name() {
        let by = |own: &str| delegated_by(Path::new(own), false, false);
        assert_eq!(by("/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope"), "systemd --user");
        assert_eq!(by("/system.slice/agt-supervise.service"), "systemd");
        assert_eq!(by("/docker/0a1b"), "the container's runtime");
        assert_eq!(by("/"), "nobody");
        assert_eq!(delegated_by(Path::new("/"), true, true), "the container's runtime");
        assert_eq!(delegated_by(Path::new("/"), false, true), "nobody (root owns all groups)");
    }
}
