//! The workdir: the one place that an agent writes without an operator, so where it can be is guarded.

use std::os::unix::fs::symlink;

use super::*;

fn typed(path: impl Into<PathBuf>) -> Overrides {
    Overrides { workdir: Some(path.into()), ..Overrides::default() }
}

#[test]
fn the_files_own_folder_is_the_default_and_one_below_it_is_free() {
    let world = World::new();
    assert_eq!(world.agent("").unwrap().workdir, world.project);
    fs::create_dir(world.project.join("work")).unwrap();
    assert_eq!(world.agent("workdir: work\n").unwrap().workdir, world.project.join("work"));
    let elsewhere = world.root.join("srv/data");
    assert_eq!(world.load_with(&minimal(""), &typed(&elsewhere)).unwrap().workdir, elsewhere);
}

#[test]
fn root_systems_homes_and_what_holds_them_are_never_a_workdir() {
    let world = World::new();
    let homes = world.root.join("homes");
    fs::create_dir_all(world.home.join(".config/app")).unwrap();
    for (path, why) in [
        (PathBuf::from("/"), "the root of the file system"),
        (PathBuf::from("/usr/share"), "a system folder"),
        (PathBuf::from("/etc"), "a system folder"),
        (PathBuf::from("/tmp"), "a system folder"),
        (PathBuf::from("/var"), "a system folder"),
        (PathBuf::from("/proc/self/root"), "the root of the file system"),
        (world.home.clone(), "it is a home"),
        (homes.clone(), "it holds the home"),
        (world.home.join(".ssh"), "a dot-folder of a home"),
        (world.home.join(".config/app"), "a dot-folder of a home"),
        (world.root.join("state"), "the supervisor keeps its own files"),
        (world.root.clone(), "can't be a workdir"),
    ] {
        let line = format!("workdir: {}\n", path.display());
        for text in [message(world.agent(&line), 77), message(world.load_with(&minimal(""), &typed(&path)), 77)] {
            assert!(text.contains(why) && text.starts_with("refused:"), "{path:?}:\n{text}");
        }
    }
    assert!(message(world.agent("workdir: /\n"), 77).contains("agent.yaml:4:10"));
}

#[test]
fn a_link_is_judged_by_where_it_leads() {
    let world = World::new();
    symlink(&world.home, world.project.join("innocent")).unwrap();
    let text = message(world.agent("workdir: innocent\n"), 77);
    assert!(text.contains("it is a home") && text.contains("in truth"), "{text}");
    symlink("/", world.project.join("slash")).unwrap();
    assert!(message(world.agent("workdir: slash\n"), 77).contains("the root of the file system"));
    // And a home that is itself a link is still a home.
    let mut world = world;
    symlink(&world.home, world.root.join("alias-home")).unwrap();
    world.around.home = Some(world.root.join("alias-home"));
    world.around.accounts.clear();
    assert!(message(world.agent(&format!("workdir: {}\n", world.home.display())), 77).contains("it is a home"));
}

#[test]
fn a_folder_that_holds_our_state_is_refused_even_before_the_state_exists() {
    let mut world = World::new();
    world.around.state_dir = world.project.join("not/yet/there");
    let text = message(world.agent(""), 77);
    assert!(text.contains("the supervisor keeps its own files"), "{text}");
}

#[test]
fn a_folder_elsewhere_needs_the_operator_or_the_user_who_types_it() {
    let world = World::new();
    let elsewhere = world.root.join("srv/data");
    let line = format!("ring: 2\nworkdir: {}\n", elsewhere.display());
    let text = message(world.agent(&line), 77);
    assert!(text.contains("neither the folder of the agent's file") && text.contains("write: ["), "{text}");
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {}/agent.yaml\n    write: [{}]\n",
        world.project.display(),
        elsewhere.display()
    ));
    assert_eq!(world.agent(&line).unwrap().workdir, elsewhere);
    // No operator's line opens a home.
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {0}/agent.yaml\n    write: [{1}]\n",
        world.project.display(),
        world.home.display()
    ));
    assert!(message(world.agent(&format!("workdir: {}\n", world.home.display())), 77).contains("it is a home"));
}

#[test]
fn a_missing_workdir_and_a_file_as_workdir_are_mistakes() {
    let world = World::new();
    assert!(message(world.agent("workdir: nowhere\n"), 64).contains("doesn't exist"));
    assert!(message(world.agent("workdir: agent.yaml\n"), 64).contains("is not a folder"));
}

fn served(world: &World) -> Overrides {
    Overrides { served: Some(world.project.clone()), ..Overrides::default() }
}

#[test]
fn a_served_agent_works_in_the_folder_of_its_name_and_never_in_the_served_one() {
    let world = World::new();
    let text = message(world.load_with(&minimal(""), &served(&world)), 64);
    let own = world.project.join("a");
    assert!(text.contains(&format!("there is no folder {}", own.display())), "{text}");
    assert!(text.contains("agent.yaml:2:7") && text.contains("help: mkdir"), "{text}");
    fs::create_dir(&own).unwrap();
    assert_eq!(world.load_with(&minimal(""), &served(&world)).unwrap().workdir, own);
    let text = message(world.load_with(&minimal("workdir: .\n"), &served(&world)), 77);
    assert!(text.contains("holds the served folder") && text.contains("`workdir: a`"), "{text}");
    let below = Overrides { served: Some(world.project.join("a")), ..Overrides::default() };
    let text = message(world.load_with(&minimal("workdir: .\n"), &below), 77);
    assert!(text.contains("holds the served folder"), "a folder that holds it: {text}");
}

#[test]
fn no_line_of_the_operators_file_lets_a_served_agent_write_the_served_folder() {
    let world = World::new();
    fs::create_dir(world.project.join("a")).unwrap();
    let project = world.project.display();
    world.operator(&format!(
        "version: 1\nkind: operator\nagents: {{a: {{file: {project}/agent.yaml, write: ['{project}']}}}}\n"
    ));
    let lines = format!("ring: 2\nfiles: {{write: ['{project}']}}\n");
    assert!(world.load_with(&minimal(&lines), &Overrides::default()).is_ok());
    let text = message(world.load_with(&minimal(&lines), &served(&world)), 77);
    assert!(text.contains("holds the served folder") && text.contains("no agent writes there"), "{text}");
}

#[test]
fn a_file_that_is_linked_into_a_served_folder_works_where_it_really_is() {
    let world = World::new();
    let folder = world.root.join("srv/agents");
    fs::create_dir_all(&folder).unwrap();
    fs::write(world.project.join("agent.yaml"), minimal("")).unwrap();
    symlink(world.project.join("agent.yaml"), folder.join("a.yaml")).unwrap();
    let overrides = Overrides { served: Some(folder.clone()), ..Overrides::default() };
    let plan = load_agent(&folder.join("a.yaml"), &world.around, None, &overrides).unwrap();
    assert_eq!(plan.workdir, world.project);
}
