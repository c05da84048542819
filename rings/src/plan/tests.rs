//! Properties of the plan as a whole: less asked for is never more given, and a less privileged ring has no more of anything.
//!
//! A plan is compared by what it lets an agent do, not by how: reading and writing each of a set of host paths, the system calls
//! that its filters let through, capabilities, descriptors, listeners, namespaces shared with the host.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use proptest::strategy::ValueTree;

use super::{Landlock, Mount, Plan, Root, SystemEntry, SystemTrees, Tcp, compile};
use crate::capability::Capabilities;
use crate::host::{Host, Privilege, Support, Tree};
use crate::report::Protection;
use crate::ring::Ring;
use crate::seccomp::policy::{Decision, Notified};
use crate::seccomp::{self, Arch, Call, ExecCookie, Verdict};
use crate::spec::{Access, Enforcement, FileRule, Listen, ModelAccess, Spec, User};

const FOLDERS: [&str; 7] = ["/data", "/data/a", "/data/a/b", "/data/c", "/work", "/work/sub", "/opt/tool"];
const PATHS: [&str; 18] = [
    "/data",
    "/data/a",
    "/data/a/b",
    "/data/a/b/f",
    "/data/c/f",
    "/work",
    "/work/f",
    "/work/agent.yaml",
    "/work/.git/hooks",
    "/work/.git/hooks/pre-commit",
    "/work/sub/.state/key",
    "/opt/tool/bin",
    "/usr/bin/env",
    "/etc/shadow",
    "/etc/ssl/certs",
    "/home/user/.ssh/id",
    "/var/lib/agt/state",
    "/var/lib/other",
];

fn system() -> SystemTrees {
    let real = |path: &str| (PathBuf::from(path), SystemEntry::Real(path.into()));
    let mut entries: Vec<_> = ["/usr", "/etc", "/etc/ssl", "/opt", "/srv", "/var/lib"].map(real).to_vec();
    entries.push(("/bin".into(), SystemEntry::Link("usr/bin".into())));
    entries.push(("/etc/timezone".into(), SystemEntry::Small("UTC\n".to_owned())));
    SystemTrees { entries }
}

fn a_host() -> impl Strategy<Value = Host> {
    let support = |works: bool| if works { Support::Yes } else { Support::No { reason: "test".to_owned() } };
    (any::<bool>(), any::<bool>(), any::<bool>(), prop::option::of(1u32..8)).prop_map(
        move |(is_root, namespaces, seccomp, landlock_abi)| Host {
            landlock_abi,
            seccomp: support(seccomp),
            namespaces: support(namespaces),
            capabilities: Capabilities::from_mask(if is_root { 0xffff } else { 0 }),
            ..Host::of_today(if is_root { Privilege::Root } else { Privilege::User { uid: 1000, gid: 1000 } })
        },
    )
}

fn a_spec() -> impl Strategy<Value = Spec> {
    let rule = (prop::sample::select(&FOLDERS[..]), any::<bool>()).prop_map(|(path, is_write)| FileRule {
        path: path.into(),
        access: if is_write { Access::Write } else { Access::Read },
    });
    let some = |of: &'static [&'static str]| {
        subsequence(of, 0..=of.len()).prop_map(|paths| paths.into_iter().map(PathBuf::from).collect::<Vec<_>>())
    };
    let paths = (
        prop::collection::vec(rule, 0..5),
        some(&["/work/agent.yaml", "/work/.git/hooks", "/data/a/b/f"]),
        some(&["/work/sub/.state", "/var/lib/agt", "/data/c"]),
        some(&["/work/f", "/data/a/b"]),
    );
    let rest = (any::<u64>(), prop::option::of(1u32..100_000), 0usize..3, any::<bool>(), any::<bool>());
    (paths, rest).prop_map(|((files, protect, hide, sockets), (mask, open_files, listen, own, models))| Spec {
        enforcement: Enforcement::BestEffort,
        files,
        protect,
        sockets,
        hide,
        listen: (0..listen).map(|n| Listen { address: ([127, 0, 0, 1], 8000 + n as u16).into() }).collect(),
        models: if models { ModelAccess::Granted } else { ModelAccess::None },
        user: if own { User::Own } else { User::Fixed { uid: 7, gid: 7 } },
        capabilities: Capabilities::from_mask(mask & 0xffff),
        open_files,
        ..Spec::new("test", Ring::R0, "/usr/bin/env", "/work")
    })
}

fn plan(spec: &Spec, ring: Ring, host: &Host) -> Plan {
    let tree = |rule: &FileRule| Tree {
        path: rule.path.clone(),
        uid: 1000,
        gid: 1000,
        id_map: Support::Yes,
        filesystem: "ext4".to_owned(),
    };
    let trees: Vec<Tree> = spec.files.iter().map(tree).collect();
    let spec = Spec { ring, ..spec.clone() };
    compile(&spec, host, &trees, &system(), ExecCookie::new(1)).unwrap()
}

fn by_landlock(landlock: Option<&Landlock>, path: &Path, access: Access) -> bool {
    landlock.is_none_or(|landlock| {
        landlock
            .rules
            .iter()
            .any(|(tree, given)| path.starts_with(tree) && (access == Access::Read || *given == access))
    })
}

/// Whether the agent reaches this path *of the host*: a private directory at the same place is none.
fn reaches(plan: &Plan, path: &Path, access: Access) -> bool {
    let by_view = match &plan.root {
        Root::Unchanged => true,
        Root::Host { hide, .. } => !hide.iter().any(|hidden| path.starts_with(hidden)),
        // The last mount that covers a path decides: they are made in this order.
        Root::Built { mounts, .. } => mounts.iter().fold(false, |reached, mount| match mount {
            Mount::Bind { target, access: given, .. } if path.starts_with(target) => {
                access == Access::Read || *given == access
            }
            Mount::Private { target, .. } | Mount::Hide { target } if path.starts_with(target) => false,
            Mount::Protect { target } if path.starts_with(target) => reached && access == Access::Read,
            _ => reached,
        }),
    };
    by_view && by_landlock(plan.landlock.as_ref(), path, access)
}

/// Calls that `less` lets through and `more` does not, each number with plain and with telling arguments.
fn widened_calls(less: &Plan, more: &Plan) -> Vec<String> {
    // What the attendant makes or only looks at happens.
    let policy = |plan: &Plan| plan.listens().map(|options| seccomp::builtin::policy(plan.ring, options));
    let policies = [policy(less), policy(more)];
    let happens = |policy: &Option<seccomp::policy::Policy>, call: &Call| {
        let decision = policy.as_ref().map(|policy| policy.decide(call));
        matches!(decision, Some(Decision::Notify(Notified::Creating | Notified::Observed)))
    };
    let lets_through = |plan: &Plan, policy: &Option<seccomp::policy::Policy>, call: &Call| {
        plan.filters.as_ref().is_none_or(|filters| match filters.decide(call) {
            Verdict::Allow => true,
            Verdict::Notify => happens(policy, call),
            _ => false,
        })
    };
    let arguments = [[0; 6], [2, 1, 6, 0, 0, 0], [u64::MAX; 6], [0x1_0000, 8, 0, 0, 0, 0]];
    let calls = (0..480).flat_map(|number| arguments.map(|args| Call::new(Arch::native().unwrap(), number, args)));
    calls
        .filter(|call| lets_through(less, &policies[0], call) && !lets_through(more, &policies[1], call))
        .map(|call| format!("{call:x?}"))
        .collect()
}

/// Everything else that `less` may do and `more` may not. (Filters depend on the ring and the namespaces alone, so that a test of
/// their own compares them.)
fn widened(less: &Plan, more: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |is_wider: bool, what: String| {
        if is_wider {
            found.push(what);
        }
    };
    for path in PATHS.map(Path::new) {
        for access in [Access::Read, Access::Write] {
            let is_wider = reaches(less, path, access) && !reaches(more, path, access);
            note(is_wider, format!("{access:?} {}", path.display()));
        }
    }
    note(more.namespaces & !less.namespaces != 0, "shares a namespace with the host".to_owned());
    note(less.capabilities.mask() & !more.capabilities.mask() != 0, format!("holds {}", less.capabilities));
    note(less.open_files > more.open_files, format!("{} open files", less.open_files));
    note(more.ids.is_some() && less.ids.is_none(), "keeps the supervisor's uid".to_owned());
    note(less.start != more.start && less.start == super::Start::Path, "executes more programs".to_owned());
    note(more.filters.is_some() && less.filters.is_none(), "has no filters".to_owned());
    for promised in more.report.enforced.iter().map(|enforced| enforced.protection) {
        use crate::report::Protection as P;
        let kept = less.report.enforced.iter().any(|enforced| {
            enforced.protection == promised || promised == P::NetworkIsolation && enforced.protection == P::NoNetwork
        });
        // What it no longer promises it must admit.
        let admitted = less.report.gaps.iter().any(|gap| gap.protection == promised);
        note(!kept && !admitted, format!("does not promise {promised}"));
    }
    found
}

/// `spec` with less asked for. A tree inside a writable one stays listed: there a rule for reading takes something away.
fn narrowed(spec: &Spec, choices: &[Index]) -> Spec {
    let mut narrow = spec.clone();
    for choice in choices {
        match choice.index(6) {
            0 if !narrow.files.is_empty() => {
                let at = choice.index(narrow.files.len());
                let path = narrow.files[at].path.clone();
                let inside = narrow.files.iter().any(|rule| path.starts_with(&rule.path) && path != rule.path);
                if !inside {
                    // All rules for the same tree: the widest of them counts.
                    narrow.files.retain(|rule| rule.path != path);
                }
            }
            1 => {
                let at = choice.index(FOLDERS.len());
                for rule in narrow.files.iter_mut().filter(|rule| rule.path == Path::new(FOLDERS[at])) {
                    rule.access = Access::Read;
                }
            }
            2 => narrow.hide.push(choice.get(&PATHS).into()),
            3 => narrow.protect.push(choice.get(&PATHS).into()),
            4 => narrow.capabilities = Capabilities::from_mask(narrow.capabilities.mask() & 0xff),
            _ => narrow.listen.truncate(1),
        }
    }
    narrow
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_less_privileged_ring_has_no_more_of_anything(spec in a_spec(), host in a_host()) {
        for pair in Ring::ALL.windows(2) {
            let (more, less) = (plan(&spec, pair[0], &host), plan(&spec, pair[1], &host));
            let found = widened(&less, &more);
            prop_assert!(more.left_out.is_none() && less.left_out.is_none());
            prop_assert!(found.is_empty(), "{} has more than {}: {found:?}", pair[1], pair[0]);
        }
    }

    #[test]
    fn narrowing_never_widens(
        spec in a_spec(),
        host in a_host(),
        choices in prop::collection::vec(any::<Index>(), 1..6),
    ) {
        let narrow = narrowed(&spec, &choices);
        for ring in Ring::ALL {
            let (less, more) = (plan(&narrow, ring, &host), plan(&spec, ring, &host));
            prop_assert_eq!(&less.filters, &more.filters);
            let found = widened(&less, &more);
            prop_assert!(found.is_empty(), "{ring}: {found:?} by asking for {narrow:?}");
        }
    }
}

fn full_host(namespaces: Support) -> Host {
    Host { namespaces, capabilities: Capabilities::from_mask(0xffff), ..Host::of_today(Privilege::Root) }
}

fn any_spec() -> Spec {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let spec = a_spec().new_tree(&mut runner).unwrap().current();
    Spec { files: Vec::new(), open_files: None, ..spec }
}

#[test]
fn filters_of_a_less_privileged_ring_let_no_more_through() {
    for namespaces in [Support::Yes, Support::No { reason: "test".to_owned() }] {
        let plans = Ring::ALL.map(|ring| plan(&any_spec(), ring, &full_host(namespaces.clone())));
        for pair in plans.windows(2) {
            assert_eq!(widened_calls(&pair[1], &pair[0]), [""; 0], "{} {namespaces:?}", pair[1].ring);
            assert!(!widened_calls(&pair[0], &pair[1]).is_empty(), "{}: the comparison sees nothing", pair[0].ring);
        }
    }
}

#[test]
fn model_access_opens_r3s_listeners_and_calls_to_them_and_changes_no_other_ring() {
    let listen = vec![Listen { address: ([127, 0, 0, 1], 20_789).into() }];
    let with = |models| Spec { listen: listen.clone(), models, ..any_spec() };
    let (without, granted) = (with(ModelAccess::None), with(ModelAccess::Granted));
    let host = full_host(Support::Yes);
    for ring in [Ring::R0, Ring::R1, Ring::R2] {
        assert_eq!(plan(&without, ring, &host), plan(&granted, ring, &host), "{ring}");
    }
    let (closed, open) = (plan(&without, Ring::R3, &host), plan(&granted, Ring::R3, &host));
    assert_eq!((closed.listen.len(), &open.listen), (0, &listen));
    let tcp = |plan: &Plan| plan.landlock.as_ref().unwrap().tcp.clone();
    assert_eq!((tcp(&closed), tcp(&open)), (Tcp::Calls(vec![]), Tcp::Calls(vec![20_789])));
    let says = |plan: &Plan, protection: Protection| {
        let held = plan.report.enforced.iter().find(|held| held.protection == protection);
        held.map(|held| held.by.join(", "))
    };
    assert_eq!(says(&closed, Protection::NoNetwork).unwrap(), "network namespace, seccomp: no sockets");
    assert_eq!(says(&open, Protection::NoNetwork), None);
    let words = says(&open, Protection::NetworkIsolation).unwrap();
    assert!(words.contains("seccomp: sockets that only call, Landlock ABI"), "{words}");
    assert!(words.ends_with(": model calls to port 20789 alone"), "{words}");
    // Debian 12's kernel has no rules on TCP.
    let old = plan(&granted, Ring::R3, &Host { landlock_abi: Some(2), ..host.clone() });
    assert_eq!(tcp(&old), Tcp::Unruled);
    let words = says(&old, Protection::NetworkIsolation).unwrap();
    assert!(words.contains("network namespace") && words.contains("nothing else listens in that namespace"), "{words}");
    // Where the network would be the host's, a grant opens nothing.
    let shared = full_host(Support::No { reason: "test".to_owned() });
    let (closed, open) = (plan(&without, Ring::R3, &shared), plan(&granted, Ring::R3, &shared));
    assert_eq!((&closed.listen, &closed.filters, &closed.landlock), (&open.listen, &open.filters, &open.landlock));
    let words = "seccomp: no sockets, no model either: that takes a network namespace";
    assert_eq!(says(&open, Protection::NoNetwork).as_deref(), Some(words));
}

#[test]
fn the_comparison_sees_what_is_wider() {
    let (host, spec) = (full_host(Support::Yes), any_spec());
    for pair in Ring::ALL.windows(2) {
        let found = widened(&plan(&spec, pair[0], &host), &plan(&spec, pair[1], &host));
        assert!(found.iter().any(|what| what.ends_with("open files")), "{}: {found:?}", pair[0]);
    }
    let open = Spec { files: vec![FileRule { path: "/data".into(), access: Access::Write }], ..spec.clone() };
    let found = widened(&plan(&open, Ring::R2, &host), &plan(&spec, Ring::R2, &host));
    assert!(found.iter().any(|what| what == "Write /data/a/b/f"), "{found:?}");
}

#[test]
fn filters_ask_a_listener_where_the_host_can_have_one_and_refuse_the_same_without() {
    let silent = Host { notify: Support::No { reason: "old kernel".to_owned() }, ..full_host(Support::Yes) };
    for ring in Ring::ALL {
        let (heard, silent) = (plan(&any_spec(), ring, &full_host(Support::Yes)), plan(&any_spec(), ring, &silent));
        assert_eq!((heard.listens().is_some(), silent.listens().is_some()), (ring != Ring::R0, false), "{ring}");
        assert_eq!(silent.filters, heard.clone().unheard().filters);
        let told = |plan: &Plan| {
            assert!(plan.report.gaps.iter().all(|gap| gap.protection != Protection::Syscalls));
            let held = plan.report.enforced.iter().find(|held| held.protection == Protection::Syscalls);
            held.unwrap().by.join(", ")
        };
        if ring == Ring::R0 {
            assert_eq!((told(&heard), told(&silent)), ("seccomp".to_owned(), "seccomp".to_owned()));
            assert!(heard.learning().is_none());
        } else {
            assert!(told(&heard).contains("refusals told"), "{}", told(&heard));
            assert!(
                told(&silent).contains("refusals untold, no seccomp notification: old kernel"),
                "{}",
                told(&silent)
            );
            assert!(silent.learning().is_none());
            let learning = heard.clone().learning().unwrap();
            assert_eq!((learning.notify, learning.report == heard.report), (seccomp::Notify::Learn, true));
        }
    }
}
