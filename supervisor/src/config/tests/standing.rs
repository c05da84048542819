//! What a launch adds to its loaded plan, and what it must not change.

use super::*;
use std::os::unix::net::UnixListener;

fn stands(plan: &AgentPlan) -> agt_rings::spec::Spec {
    plan.as_it_stands(plan.launch_spec(plan.ceiling).unwrap())
}

#[test]
fn a_launch_adds_what_was_made_since_but_for_what_the_operators_file_opens() {
    let world = World::new();
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {0}/agent.yaml\n    writable: [.vscode]\n    read: [{0}/open.sock]\n",
        world.project.display()
    ));
    world.write("homes/alice/project/.envrc", "");
    let text = minimal("ring: 2\n");
    let plan = world.load(&text).unwrap();
    let hash = plan.hash();
    assert_eq!(stands(&plan).protect, plan.protect, "nothing has happened");
    for name in [".mcp.json", ".vscode/settings.json", ".git/HEAD", ".git/config"] {
        world.write(format!("homes/alice/project/{name}"), "");
    }
    let _sockets = ["open.sock", "other.sock"].map(|name| UnixListener::bind(world.project.join(name)).unwrap());
    let protected = [".envrc", ".git/config", ".mcp.json", "agent.yaml"].map(|name| world.project.join(name));
    let now = stands(&plan);
    assert_eq!(now.protect, protected);
    assert_eq!(now.sockets, [world.project.join("other.sock")]);
    assert_eq!(now.gaps, []);
    assert_eq!(stands(&AgentPlan::from_wire(&plan.to_wire()).unwrap()).protect, protected, "handed over");
    assert_eq!(plan.hash(), hash);
    // In R0 nothing of the kind is promised, and nothing is looked at.
    let mut spec = plan.launch_spec(plan.ceiling).unwrap();
    spec.ring = Ring::R0;
    assert_eq!(plan.as_it_stands(spec.clone()), spec);
}

#[test]
fn what_the_loaded_plan_protects_has_the_first_claim_on_the_room() {
    let world = World::new();
    world.write("homes/alice/project/z/.envrc", "");
    let plan = world.agent("ring: 2\n").unwrap();
    for number in 0..1_000 {
        world.write(format!("homes/alice/project/a{number}/.envrc"), "");
    }
    let now = stands(&plan);
    assert!(now.protect.contains(&world.project.join("z/.envrc")) && now.protect.len() == 1_000);
    assert!(now.gaps[0].reason.starts_with("leaves 2 never-writable names writable"), "{:?}", now.gaps);
    assert!(now.protect.is_sorted(), "outer before inner");
}

#[test]
fn a_gap_is_that_of_the_launch_and_keeps_the_help_of_the_load() {
    let world = World::new();
    let link = world.project.join(".envrc");
    std::os::unix::fs::symlink("rules", &link).unwrap();
    let plan = world.agent("ring: 2\n").unwrap();
    assert_eq!(plan.gaps.len(), 1);
    assert_eq!(stands(&plan).gaps, plan.gaps);
    fs::remove_file(&link).unwrap();
    assert_eq!(stands(&plan).gaps, []);
    // A folder on the way that has become a link no longer leads to what was protected.
    fs::create_dir(world.project.join("moved")).unwrap();
    world.write("homes/alice/project/sub/.bashrc", "");
    let plan = world.agent("ring: 2\n").unwrap();
    fs::rename(world.project.join("sub/.bashrc"), world.project.join("moved/.bashrc")).unwrap();
    fs::remove_dir(world.project.join("sub")).unwrap();
    std::os::unix::fs::symlink("moved", world.project.join("sub")).unwrap();
    let now = stands(&plan);
    assert!(now.protect.contains(&world.project.join("moved/.bashrc")), "{:?}", now.protect);
    assert!(!now.protect.contains(&world.project.join("sub/.bashrc")), "{:?}", now.protect);
}

#[test]
fn nobody_is_offered_a_secret_of_etc_the_system_or_a_never_writable_name() {
    let world = World::new();
    let offered = |path: &str, access| not_to_be_offered(Path::new(path), access, &world.around).is_none();
    for path in ["/srv/p/.envrc", "/srv/p/.vscode/tasks.json", "/srv/p/.git/hooks/x", "/srv/p/.MCP.json", "/etc/hosts"]
    {
        assert!(!offered(path, Access::Write), "{path}");
        assert!(offered(path, Access::Read), "{path}");
    }
    for path in ["/usr/local/bin", "/usr/local/bin/x", "/run/x"] {
        assert!(!offered(path, Access::Write), "{path}");
    }
    for path in ["/srv/p/envrc", "/srv/p/.git/objects/x", "/srv/config", "/var/lib/x"] {
        assert!(offered(path, Access::Write), "{path}");
    }
    if Path::new("/etc/shadow").exists() {
        assert!([Access::Read, Access::Write].iter().all(|access| !offered("/etc/shadow", *access)));
    }
}
