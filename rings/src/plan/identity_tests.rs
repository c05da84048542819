//! Whose uid and gid an agent of a root supervisor gets.

#![allow(clippy::unwrap_used)]
use crate::builtin;
use crate::host::{Host, Privilege, Support, Tree};
use crate::plan::{Ids, Plan, SystemTrees, compile};
use crate::report::Protection;
use crate::ring::Ring;
use crate::seccomp::ExecCookie;
use crate::spec::{Access, Enforcement, FileRule, Spec, User};

const OWN: u32 = builtin::OWN_ID_BASE;

fn plan(user: User, uid: u32, gid: u32, id_map: Support) -> Plan {
    let host = Host::of_today(Privilege::Root);
    let spec = Spec {
        enforcement: Enforcement::BestEffort,
        files: vec![FileRule { path: "/srv/w".into(), access: Access::Write }],
        user,
        ..Spec::new("test", Ring::R2, "/bin/true", "/srv/w")
    };
    let tree = Tree { path: "/srv/w".into(), uid, gid, id_map, filesystem: "overlay".to_owned() };
    compile(&spec, &host, &[tree], &SystemTrees::default(), ExecCookie::new(1)).unwrap()
}

fn unmapped() -> Support {
    Support::No { reason: "test".to_owned() }
}

#[test]
fn who_works_as_a_folders_owner_never_has_roots_group() {
    let ids = |uid, gid| plan(User::Own, uid, gid, unmapped()).ids.unwrap();
    assert_eq!(ids(1234, 1300), Ids { uid: 1234, gid: 1300 });
    assert_eq!(ids(1234, 0), Ids { uid: 1234, gid: OWN });
    assert_eq!(ids(0, 0), Ids { uid: OWN, gid: OWN });
    assert_eq!(plan(User::Own, 1234, 0, Support::Yes).ids, Some(Ids { uid: OWN, gid: OWN }));
    let account = User::Fixed { uid: 11, gid: 0 };
    assert_eq!(plan(account, 11, 0, Support::Yes).ids, Some(Ids { uid: 11, gid: OWN }));
    let root = User::Fixed { uid: 0, gid: 0 };
    assert_eq!(plan(root, 0, 0, Support::Yes).ids, Some(Ids { uid: 0, gid: 0 }), "an operator's line");
}

#[test]
fn what_is_not_reachable_without_roots_group_is_said() {
    let reason = |gid| {
        let plan = plan(User::Own, 1234, gid, unmapped());
        let gap = plan.report.gaps.iter().find(|gap| gap.protection == Protection::OwnIdentity).unwrap();
        gap.reason.clone()
    };
    assert!(reason(0).contains("what only that group may reach stays closed"), "{}", reason(0));
    assert!(!reason(1300).contains("group"), "{}", reason(1300));
}
