//! Which promise is met, by which mechanism, on this host: the judgement behind every report and every refusal.

use std::path::PathBuf;

use super::{Ids, Landlock, Root, groups, nested, network};
use crate::builtin::Definition;
use crate::capability::Capabilities;
use crate::host::{Host, Privilege, Support, Tree};
use crate::report::{Enforced, Gap, MissingController, Protection};
use crate::ring::Ring;
use crate::seccomp::Nested;
use crate::spec::{Access, FileRule, Spec, User};

/// What the judgement looks at.
pub(super) struct Facts<'a> {
    pub(super) spec: &'a Spec,
    pub(super) host: &'a Host,
    pub(super) trees: &'a [Tree],
    pub(super) ids: Option<Ids>,
    pub(super) root: &'a Root,
    pub(super) landlock: Option<&'a Landlock>,
    pub(super) filters: bool,
    pub(super) heard: bool,
}

pub(super) type Judgement = Result<Vec<String>, (String, String)>;

/// Every promise of the ring, kept or not.
pub(super) fn judge(definition: &Definition, facts: &Facts<'_>) -> (Vec<Enforced>, Vec<Gap>) {
    let mut enforced = Vec::new();
    let mut gaps = Vec::new();
    for &protection in definition.protections {
        let protection = network::promised(protection, facts);
        let known: Vec<&Gap> = facts.spec.gaps.iter().filter(|gap| concerns(gap, protection, facts.spec)).collect();
        gaps.extend(known.iter().copied().cloned());
        match judge_one(protection, facts) {
            Ok(by) if known.is_empty() => enforced.push(Enforced { protection, by }),
            Ok(_) => {}
            Err((reason, help)) => {
                gaps.push(Gap { protection, reason, help, controller: missing_controller(protection, facts.host) });
            }
        }
    }
    (enforced, gaps)
}

/// The first of a spec's trees of which nothing is known: neither whose it is nor whether it can be mapped.
pub(super) fn unknown(spec: &Spec, trees: &[Tree]) -> Option<Gap> {
    let rule = spec.files.iter().find(|rule| !trees.iter().any(|tree| tree.path == rule.path))?;
    Some(Gap {
        protection: Protection::OwnIdentity,
        reason: format!("can't be judged: nothing is known of {}", rule.path.display()),
        help: "this is a mistake of the supervisor's: please report it".to_owned(),
        controller: None,
    })
}

fn missing_controller(protection: Protection, host: &Host) -> Option<MissingController> {
    let controllers = &host.controllers;
    let (name, support) = match protection {
        Protection::MemoryLimit => ("memory", &controllers.memory),
        Protection::CpuLimit => ("cpu", &controllers.cpu),
        Protection::TaskLimit => ("pids", &controllers.tasks),
        _ => return None,
    };
    support.reason().map(|because| MissingController { name: name.to_owned(), because: because.to_owned() })
}

/// Whether a known gap is one of this protection, in this ring: R3 writes nothing outside its private directories, so a name
/// there needs no protection of its own.
fn concerns(gap: &Gap, protection: Protection, spec: &Spec) -> bool {
    gap.protection == protection && !(protection == Protection::FileWrite && spec.ring == Ring::R3)
}

fn judge_one(protection: Protection, facts: &Facts<'_>) -> Judgement {
    match protection {
        Protection::HiddenSupervisor => hidden(facts),
        Protection::FileRead => files(facts),
        Protection::FileWrite => protected(facts),
        Protection::FileMetadata => namespaced(
            facts,
            "mount namespace, read-only mounts",
            "Landlock has no right for chmod, chown, utime or xattr",
        ),
        Protection::PrivateFiles => {
            namespaced(facts, "mount namespace, tmpfs", "nothing else gives it private directories")
        }
        Protection::OwnIdentity => own_identity(facts),
        Protection::ProcessIsolation => namespaced(facts, "PID namespace", "no Landlock ABI hides processes"),
        Protection::IpcIsolation => {
            namespaced(facts, "IPC namespace", "nothing else separates System V IPC and message queues")
        }
        Protection::NetworkIsolation | Protection::NoNetwork => network::judged(facts),
        Protection::SingleProgram | Protection::Syscalls => syscalls(facts),
        Protection::Privileges => privileges(facts),
        Protection::CleanStart => Ok(vec!["clean environment".into(), "close_range".into()]),
        Protection::MemoryLimit => {
            limit(facts, facts.spec.limits.memory_bytes.map(|_| ()), &facts.host.controllers.memory, "memory")
        }
        Protection::CpuLimit => {
            limit(facts, facts.spec.limits.cpu_millis.map(|_| ()), &facts.host.controllers.cpu, "cpu")
        }
        Protection::TaskLimit => {
            limit(facts, facts.spec.limits.tasks.map(|_| ()), &facts.host.controllers.tasks, "pids")
        }
        Protection::DiesWithSupervisor => dies(facts),
    }
}

pub(super) fn namespace_help(facts: &Facts<'_>) -> String {
    let why = why_no_namespaces(facts);
    if why.contains("seccomp filter") {
        return "let this container make namespaces: docs/containers.md has the lines for Docker (--security-opt \
                seccomp=unconfined ...) and Kubernetes (seccompProfile: {type: Unconfined} ...)"
            .to_owned();
    }
    // Namespaces can be made and /proc can't: the kernel gives no fresh one where the /proc in sight has something mounted over
    // it (mount_too_revealing), as container runtimes do to hide parts of it.
    if why.contains("fresh /proc") {
        return "give this container its whole /proc (Docker: --security-opt systempaths=unconfined, Kubernetes: \
                securityContext.procMount: Unmasked), or take away what is mounted below /proc"
            .to_owned();
    }
    match facts.host.privilege {
        Privilege::Root => "run outside a container that filters namespaces, or give it CAP_SYS_ADMIN and an unconfined seccomp profile".to_owned(),
        Privilege::User { .. } => "sysctl kernel.unprivileged_userns_clone=1 (or the host's AppArmor rule for user namespaces), or start the service as root".to_owned(),
    }
}

pub(super) fn why_no_namespaces(facts: &Facts<'_>) -> String {
    facts.host.namespaces.reason().unwrap_or("no namespaces").to_owned()
}

fn namespaced(facts: &Facts<'_>, mechanism: &str, instead: &str) -> Judgement {
    if matches!(facts.root, Root::Built { .. } | Root::Host { .. }) {
        Ok(mechanism.split(", ").map(str::to_owned).collect())
    } else {
        Err((format!("needs namespaces ({}); {instead}", why_no_namespaces(facts)), namespace_help(facts)))
    }
}

fn hidden(facts: &Facts<'_>) -> Judgement {
    if matches!(facts.root, Root::Unchanged) && facts.landlock.is_some() {
        return match inside_a_rule(facts, &facts.spec.hide, Access::Read) {
            None => Ok(vec!["Landlock".into()]),
            Some(path) => Err((
                format!(
                    "needs a mount namespace ({}); Landlock can't take {} out of a tree that it opens",
                    why_no_namespaces(facts),
                    path.display()
                ),
                namespace_help(facts),
            )),
        };
    }
    let instead = match facts.host.landlock_abi {
        None => "and Landlock is absent",
        Some(_) => "Landlock can't take anything out of a view that is the host's",
    };
    namespaced(facts, "mount namespace", instead)
}

/// The first of `paths` that lies in a declared tree: Landlock's rules only add, so it could not be taken out again.
fn inside_a_rule<'a>(facts: &Facts<'_>, paths: &'a [PathBuf], access: Access) -> Option<&'a PathBuf> {
    let opened = |rule: &&FileRule| access == Access::Read || (rule.access == access && facts.spec.ring != Ring::R3);
    paths.iter().find(|path| facts.spec.files.iter().filter(opened).any(|rule| path.starts_with(&rule.path)))
}

/// Landlock alone can't keep a name read-only inside a writable tree.
fn protected(facts: &Facts<'_>) -> Judgement {
    if matches!(facts.root, Root::Unchanged)
        && let Some(path) = inside_a_rule(facts, &facts.spec.protect, Access::Write)
    {
        return Err((
            format!(
                "needs a mount namespace ({}); Landlock can't keep {} read-only inside a writable tree",
                why_no_namespaces(facts),
                path.display()
            ),
            namespace_help(facts),
        ));
    }
    let later = facts.spec.names.as_ref().is_some_and(|rules| !rules.roots.is_empty());
    if later && matches!(facts.root, Root::Unchanged) && matches!(facts.spec.ring, Ring::R1 | Ring::R2) {
        return Err((
            format!("needs namespaces to keep names that are made later ({})", why_no_namespaces(facts)),
            namespace_help(facts),
        ));
    }
    let mut by = files(facts)?;
    if names(facts.spec, facts.host).is_some() {
        if let Some(reason) = facts.host.seccomp.reason().or(facts.host.notify.reason()) {
            return Err((
                format!("needs seccomp notification for names that are made later ({reason})"),
                "kernel.yama.ptrace_scope below 3 and no filter with a listener around the supervisor; or `protect: existing` in the operator's file: names that are not there at launch can then be made".to_owned(),
            ));
        }
        by.push("seccomp notification".to_owned());
    }
    Ok(by)
}

/// The rules about names that hold in this ring: R0 has the host's files, R3 writes nothing that lasts. Whoever may mount can
/// show a folder under another path, or have another root, so that paths say nothing: sandboxes of its own leave the masks alone.
/// Without namespaces there are no masks to begin with, and whoever answered would stand among the host's processes.
pub(super) fn names<'a>(spec: &'a Spec, host: &Host) -> Option<&'a crate::names::Rules> {
    let asked = matches!(spec.ring, Ring::R1 | Ring::R2)
        && host.namespaces.is_yes()
        && nested::given(spec, host) == Nested::Refused;
    spec.names.as_ref().filter(|rules| asked && !rules.roots.is_empty())
}

fn files(facts: &Facts<'_>) -> Judgement {
    let mut by = Vec::new();
    if matches!(facts.root, Root::Built { .. }) {
        by.push("mount namespace".to_owned());
        by.push("read-only mounts".to_owned());
    }
    // Below ABI 3 Landlock lets truncate(2) through, so it can't stand alone.
    let alone = facts.landlock.is_some_and(|landlock| landlock.abi >= 3);
    if let Some(landlock) = facts.landlock {
        by.push(format!("Landlock ABI {}", landlock.abi));
    }
    if matches!(facts.root, Root::Built { .. }) || alone {
        Ok(by)
    } else {
        let have = facts
            .landlock
            .map_or("Landlock is absent".to_owned(), |l| format!("Landlock ABI {} does not cover truncate", l.abi));
        Err((format!("needs a mount namespace ({}); {have}", why_no_namespaces(facts)), namespace_help(facts)))
    }
}

fn own_identity(facts: &Facts<'_>) -> Judgement {
    match facts.host.privilege {
        Privilege::User { .. } => {
            groups::refuse_opened(facts)?;
            namespaced(facts, "user namespace, mount namespace", "the agent would be its user everywhere")
        }
        Privilege::Root => {
            let by_operator = matches!(facts.spec.user, User::Fixed { .. });
            if let Support::No { reason } = &facts.host.own_ids {
                return Err((
                    format!("needs uids of its own ({reason})"),
                    "map more uids into this container".to_owned(),
                ));
            }
            let unmapped = facts
                .spec
                .files
                .iter()
                .filter(|rule| rule.access == Access::Write && facts.spec.ring != Ring::R3)
                .filter_map(|rule| facts.trees.iter().find(|tree| tree.path == rule.path))
                .find(|tree| {
                    !tree.id_map.is_yes() && Some(tree.uid) != facts.ids.map(|ids| ids.uid).filter(|_| by_operator)
                });
            match unmapped {
                None if by_operator => Ok(vec!["uid set by the operator".into()]),
                None => Ok(vec!["uid of its own".into(), "id-mapped mount".into()]),
                Some(tree) => Err((
                    format!(
                        "needs an id-mapped mount of {}, which {} can't have here ({}){}",
                        tree.path.display(),
                        tree.filesystem,
                        tree.id_map.reason().unwrap_or("refused"),
                        without_roots_group(tree)
                    ),
                    "move the workdir to ext4, xfs or btrfs".to_owned(),
                )),
            }
        }
    }
}

/// What a folder's owner can't reach in it without the folder's group, which is root's and no agent's.
fn without_roots_group(tree: &Tree) -> &'static str {
    if tree.uid != 0 && tree.gid == 0 {
        "; its owner would work there without its group, root's, so what only that group may reach stays closed"
    } else {
        ""
    }
}

fn syscalls(facts: &Facts<'_>) -> Judgement {
    if facts.filters {
        let told = match (&facts.host.notify, facts.heard) {
            (_, true) => Some("refusals told by seccomp notification".to_owned()),
            (Support::No { reason }, _) if facts.spec.ring != Ring::R0 => {
                Some(format!("refusals untold, no seccomp notification: {reason}"))
            }
            _ => None,
        };
        Ok(["seccomp".to_owned()].into_iter().chain(told).chain(nested::in_words(facts)).collect())
    } else {
        let reason = facts.host.seccomp.reason().unwrap_or("the filter could not be built").to_owned();
        Err((format!("needs seccomp filters ({reason})"), "boot a kernel with CONFIG_SECCOMP_FILTER".to_owned()))
    }
}

/// What the operator leaves to an agent in R0, as far as the launcher holds it itself.
pub(super) fn capabilities(spec: &Spec, host: &Host) -> Capabilities {
    let wanted = if spec.ring == Ring::R0 { spec.capabilities } else { Capabilities::NONE };
    Capabilities::from_mask(wanted.mask() & host.capabilities.mask())
}

fn privileges(facts: &Facts<'_>) -> Judgement {
    let missing = facts.spec.capabilities.without(facts.host.capabilities);
    if facts.spec.ring == Ring::R0 && !missing.is_empty() {
        return Err((
            format!("needs {missing}, which the operator's file grants and the supervisor does not hold itself"),
            "start the service as root with these capabilities, or take them out of the operator's file".to_owned(),
        ));
    }
    if facts.spec.ring == Ring::R0 {
        groups::refuse_opened(facts)?;
    }
    let kept = capabilities(facts.spec, facts.host);
    if !kept.is_empty() {
        let sets = format!("capability and bounding sets hold {kept} and nothing else, by the operator's file");
        return Ok(vec!["no_new_privs".to_owned(), sets]);
    }
    let mut by = vec!["no_new_privs".to_owned(), "empty capability sets".to_owned()];
    if facts.host.privilege == Privilege::Root || facts.host.namespaces.is_yes() {
        by.push("empty bounding set".to_owned());
    }
    Ok(by)
}

fn limit(facts: &Facts<'_>, wanted: Option<()>, support: &Support, controller: &str) -> Judgement {
    if wanted.is_none() {
        return Ok(vec!["no limit, by the operator's file".into()]);
    }
    match support {
        Support::Yes => Ok(vec![format!("cgroup {} {controller}", facts.host.controllers.layout)]),
        Support::No { reason } if reason.contains("EROFS") => Err((
            format!("needs the cgroup controller {controller} ({reason})"),
            "make /sys/fs/cgroup writable in this container (docs/containers.md), or limit the container itself and ask for \
             best-effort"
                .to_owned(),
        )),
        Support::No { reason } => Err((
            format!("needs the cgroup controller {controller} ({reason})"),
            "systemd-run --user --scope -p Delegate=yes agt-supervise ..., or start the service as root".to_owned(),
        )),
    }
}

fn dies(facts: &Facts<'_>) -> Judgement {
    let mut by = Vec::new();
    if facts.host.namespaces.is_yes() {
        by.push("PID namespace".to_owned());
        by.push("parent death signal".to_owned());
    }
    if facts.host.controllers.kill.is_yes() {
        by.extend(["cgroup kill", "watchdog", "sweep at the next start"].map(str::to_owned));
    } else if !by.is_empty() {
        by.push("nothing else: watchdog and sweep need a cgroup".to_owned());
    }
    if by.is_empty() {
        Err((
            format!("needs a PID namespace ({}) or a writable cgroup", why_no_namespaces(facts)),
            namespace_help(facts),
        ))
    } else {
        Ok(by)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::host::{Host, Privilege, Support, Tree};
    use crate::plan::{Mount, Plan, Refused, Root, SystemTrees, compile};
    use crate::report::Protection;
    use crate::ring::Ring;
    use crate::seccomp::ExecCookie;
    use crate::spec::{Access, Enforcement, FileRule, Spec};

    fn host(namespaces: Support) -> Host {
        Host { namespaces, ..Host::of_today(Privilege::User { uid: 1000, gid: 1000 }) }
    }

    fn plan(ring: Ring, namespaces: Support, protect: &[&str], hide: &[&str]) -> Plan {
        plan_on(&host(namespaces), ring, protect, hide)
    }

    fn spec(ring: Ring) -> Spec {
        Spec {
            enforcement: Enforcement::BestEffort,
            files: vec![FileRule { path: "/var/tmp/w".into(), access: Access::Write }],
            ..Spec::new("test", ring, "/bin/true", "/var/tmp/w")
        }
    }

    fn tree() -> Tree {
        Tree {
            path: "/var/tmp/w".into(),
            uid: 1000,
            gid: 1000,
            id_map: Support::No { reason: "test".to_owned() },
            filesystem: "ext4".to_owned(),
        }
    }

    fn compiled(host: &Host, spec: Spec) -> Result<Plan, Refused> {
        compile(&spec, host, &[tree()], &SystemTrees::default(), ExecCookie::new(1))
    }

    fn plan_on(host: &Host, ring: Ring, protect: &[&str], hide: &[&str]) -> Plan {
        let paths = |list: &[&str]| list.iter().map(Into::into).collect();
        let spec = Spec { protect: paths(protect), hide: paths(hide), ..spec(ring) };
        let plan = |trees: &[Tree]| compile(&spec, host, trees, &SystemTrees::default(), ExecCookie::new(1));
        // Of another tree, or of none: refused, best effort or not.
        let other = Tree { path: "/var/tmp/v".into(), ..tree() };
        for trees in [&[][..], &[other]] {
            assert!(plan(trees).unwrap_err().to_string().contains("nothing is known of /var/tmp/w"));
        }
        compiled(host, spec).unwrap()
    }

    #[test]
    fn names_that_nobody_can_keep_are_a_gap_which_names_the_way_out() {
        let silent = Host { notify: Support::No { reason: "old kernel".to_owned() }, ..host(Support::Yes) };
        let rules = || crate::names::Rules { roots: vec!["/var/tmp/w".into()], ..Default::default() };
        for ring in [Ring::R1, Ring::R2] {
            let asked =
                |host: &Host, enforcement| compiled(host, Spec { enforcement, names: Some(rules()), ..spec(ring) });
            let gap =
                |plan: &Plan| plan.report.gaps.iter().find(|gap| gap.protection == Protection::FileWrite).cloned();
            let kept = asked(&host(Support::Yes), Enforcement::Required).unwrap();
            assert!(gap(&kept).is_none() && kept.names.is_some(), "{ring}");
            let refused = asked(&silent, Enforcement::Required).unwrap_err();
            let missing = refused.gaps.iter().find(|gap| gap.protection == Protection::FileWrite).unwrap();
            assert!(missing.reason.contains("seccomp notification") && missing.reason.contains("old kernel"), "{ring}");
            assert!(missing.help.contains("`protect: existing`"), "{ring}: {}", missing.help);
            let best = asked(&silent, Enforcement::BestEffort).unwrap();
            assert!(gap(&best).unwrap().help.contains("`protect: existing`") && best.names.is_none(), "{ring}");
            // That way: masks alone.
            let existing = compiled(&silent, Spec { enforcement: Enforcement::Required, ..spec(ring) }).unwrap();
            assert!(gap(&existing).is_none() && existing.names.is_none(), "{ring}");
        }
    }

    fn missing(plan: &Plan) -> Vec<Protection> {
        plan.report.gaps.iter().map(|gap| gap.protection).collect()
    }

    #[test]
    fn landlock_alone_does_not_claim_what_it_cannot_take_out_of_a_tree() {
        let none = || Support::No { reason: "test".to_owned() };
        let inside = plan(Ring::R2, none(), &["/var/tmp/w/agent.yaml"], &["/var/tmp/w/.state"]);
        assert!(missing(&inside).contains(&Protection::FileWrite));
        assert!(missing(&inside).contains(&Protection::HiddenSupervisor));
        let outside = plan(Ring::R2, none(), &[], &["/var/lib/agt-supervise"]);
        assert!(!missing(&outside).contains(&Protection::FileWrite));
        assert!(!missing(&outside).contains(&Protection::HiddenSupervisor));
        assert_eq!(missing(&plan(Ring::R2, Support::Yes, &["/var/tmp/w/agent.yaml"], &["/var/tmp/w/.state"])), []);
    }

    #[test]
    fn a_report_says_by_how_many_means_agents_die_with_their_supervisor() {
        let by = |kill: Support| {
            let mut host = host(Support::Yes);
            host.controllers.kill = kill;
            plan_on(&host, Ring::R2, &[], &[])
                .report
                .enforced
                .into_iter()
                .find(|e| e.protection == Protection::DiesWithSupervisor)
                .unwrap()
                .by
        };
        let three = ["PID namespace", "parent death signal", "cgroup kill", "watchdog", "sweep at the next start"];
        assert_eq!(by(Support::Yes), three);
        let one = by(Support::No { reason: "test".to_owned() });
        assert_eq!(one, ["PID namespace", "parent death signal", "nothing else: watchdog and sweep need a cgroup"]);
    }

    #[test]
    fn the_help_for_a_proc_that_has_masks_is_not_a_sysctl_and_landlock_is_not_called_absent_where_it_is_not() {
        let masked = || Support::No { reason: "mount a fresh /proc: Operation not permitted (os error 1)".to_owned() };
        let plan = plan(Ring::R0, masked(), &[], &[]);
        let gap = plan.report.gaps.iter().find(|gap| gap.protection == Protection::HiddenSupervisor).unwrap();
        assert!(gap.help.contains("systempaths=unconfined") && !gap.help.contains("sysctl"), "{}", gap.help);
        assert!(!gap.reason.contains("absent"), "{}", gap.reason);
    }

    #[test]
    fn r3_may_read_its_workdir_also_where_landlock_stands_alone() {
        let plan = plan(Ring::R3, Support::No { reason: "test".to_owned() }, &[], &[]);
        let rules = plan.landlock.unwrap().rules;
        assert!(rules.contains(&("/var/tmp/w".into(), Access::Read)));
        assert!(!rules.contains(&("/var/tmp/w".into(), Access::Write)));
    }

    #[test]
    fn directories_above_protected_names_are_pinned_before_them_and_only_those() {
        let plan =
            plan(Ring::R2, Support::Yes, &["/var/tmp/w/a/.git/hooks", "/var/tmp/w/agent.yaml"], &["/var/tmp/w/b/s"]);
        let Root::Built { mounts, .. } = plan.root else { panic!("no root of its own") };
        let pins: Vec<_> = mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Pin { target } => target.to_str(),
                _ => None,
            })
            .collect();
        assert_eq!(pins, ["/var/tmp/w/a", "/var/tmp/w/a/.git", "/var/tmp/w/b"]);
        let first = |wanted: fn(&Mount) -> bool| mounts.iter().position(wanted).unwrap();
        assert!(first(|m| matches!(m, Mount::Pin { .. })) < first(|m| matches!(m, Mount::Protect { .. })));
    }

    #[test]
    fn no_link_of_the_view_stands_above_a_declared_tree() {
        let plan = plan(Ring::R2, Support::Yes, &[], &[]);
        let Root::Built { mounts, .. } = plan.root else { panic!("no root of its own") };
        let links: Vec<_> = mounts.iter().filter(|mount| matches!(mount, Mount::Link { .. })).collect();
        assert!(!links.is_empty());
        assert!(!links.iter().any(|mount| matches!(mount, Mount::Link { target, .. } if target == "/var/tmp")));
    }
}
