//! The plan itself: what it holds, what it never shows, how it changes.

use super::*;
use crate::config::plan::EnvValue;

fn full_world() -> World {
    let world = World::new();
    for path in ["work", "data", "out"] {
        fs::create_dir_all(world.project.join(path)).unwrap();
    }
    world.write("homes/alice/project/key.txt", "s3cret\n");
    world.write("homes/alice/project/work/researcher.py", "");
    world.operator(&FULL_OPERATOR.replace("../project", &world.project.display().to_string()));
    world
}

fn full_text() -> String {
    // One check of the three, else it is none.
    let text = FULL_AGENT.replace("  http: {port: 7070, path: /health, status: 204}\n  tcp: 7070\n", "");
    text.replace("../data", "data").replace("../out", "out").replace("../key.txt", "key.txt")
}

#[test]
fn a_full_file_gives_a_full_plan() {
    let world = full_world();
    let plan = world.load(&full_text()).unwrap();
    assert_eq!((plan.name(), plan.ceiling), ("researcher", Ring::R2));
    assert_eq!(plan.workdir, world.project.join("work"));
    assert_eq!(plan.limits_at(Ring::R2).memory_bytes, Some(256 << 20));
    assert_eq!(plan.limits_at(Ring::R2).cpu_millis, Some(500));
    assert_eq!((plan.open_files_at(Ring::R2), plan.restart.attempts), (Some(512), 5));
    assert_eq!(plan.forwards[0].listen.to_string(), "127.0.0.1:8099");
    assert!(plan.forwards_at(Ring::R3).is_empty());
    assert_eq!(plan.environment, spec::Environment::Dev);
    assert_eq!(plan.vouch, spec::Switch::Off);
    assert!(plan.chaos.opt_in && plan.labels["team"] == "travel");
    let env: BTreeMap<_, _> = plan.environment().unwrap().into_iter().collect();
    let value = |name: &str| env[std::ffi::OsStr::new(name)].to_str().unwrap().to_owned();
    assert_eq!(
        (value("API_KEY"), value("PORT"), value("LANG")),
        ("s3cret".into(), "8080".into(), "en_US.UTF-8".into())
    );
    assert!(!env.contains_key(std::ffi::OsStr::new("OPENAI_API_KEY")), "the environment is clean");
}

#[test]
fn a_launch_spec_never_has_more_than_the_ceiling() {
    let world = full_world();
    let plan = world.load(&full_text()).unwrap();
    let spec = plan.launch_spec(Ring::R0).unwrap();
    assert_eq!((spec.ring, spec.listen.len()), (Ring::R2, 3), "its forward, the proxy, SOCKS5");
    let spec = plan.launch_spec(Ring::R3).unwrap();
    assert_eq!(
        (spec.listen.len(), spec.limits.tasks),
        (1, Some(64)),
        "the listener of the routes that are left to it in R3"
    );
    assert!(spec.files.iter().all(|rule| rule.access == agt_rings::spec::Access::Read));
}

#[test]
fn secrets_are_in_no_output() {
    let world = full_world();
    let overrides = Overrides { pass: vec!["OPENAI_API_KEY".to_owned()], ..Overrides::default() };
    let plan = world.load_with(&full_text().replace("MODE: fast", "MODE: 'x${OPENAI_API_KEY}'"), &overrides).unwrap();
    let everything =
        format!("{plan:?}{plan}{}{}{:?}", plan.to_json(), serde_json::to_string(&plan).unwrap(), world.around);
    assert!(!everything.contains("hunter2") && !everything.contains("s3cret"), "{everything}");
    assert!(matches!(plan.env["MODE"], EnvValue::Secret(_)), "a value made of a secret is one");
    let shown = format!("{plan}{}", plan.to_json());
    assert!(!shown.contains("8080"), "values of env.set are not shown either: {shown}");
    // The wire between two supervisors is the one exception.
    let other = AgentPlan::from_wire(&plan.to_wire()).unwrap();
    assert_eq!(other.env["MODE"].reveal("MODE").unwrap(), "xsk-hunter2");
    assert_eq!(other, plan);
}

#[test]
fn the_hash_is_that_of_the_plan_and_not_of_its_secrets() {
    let mut world = full_world();
    let plan = world.load(&full_text()).unwrap();
    assert_eq!(plan.hash(), world.load(&full_text()).unwrap().hash());
    assert_eq!(plan.hash().to_string().len(), 64);
    world.write("homes/alice/project/key.txt", "rotated\n");
    assert_eq!(plan.hash(), world.load(&full_text()).unwrap().hash());
    assert_ne!(plan.hash(), world.load(&full_text().replace("256MiB", "255MiB")).unwrap().hash());
    assert_ne!(plan.hash(), world.load(&full_text().replace("fast", "slow")).unwrap().hash());
    world.around.uid += 1;
    world.operator("version: 1\nkind: operator\n");
    if nix::unistd::getuid().is_root() {
        assert!(world.load(&minimal("")).is_ok());
    }
}

#[test]
fn the_program_hash_covers_program_and_script() {
    let world = World::new();
    world.program("homes/alice/project/run.sh", "#!/bin/sh\ndate\n");
    let plan = world.load("version: 1\nname: a\ncommand: [./run.sh]\n").unwrap();
    let before = plan.program_hash().unwrap();
    world.program("homes/alice/project/run.sh", "#!/bin/sh\ndate -u\n");
    assert_ne!(before, plan.program_hash().unwrap());
}

#[test]
fn a_difference_is_readable_and_hides_values() {
    let world = full_world();
    let old = world.load(&full_text()).unwrap();
    assert!(diff(&old, &old).is_empty());
    let changed =
        full_text().replace("256MiB", "300MiB").replace("fast", "slow-secret").replace("/usr/share/dict", "/usr/share");
    let new = world.load(&changed).unwrap();
    let lines: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    for expected in [
        "~ env.MODE: [set] -> [set]",
        "~ limits.memory in R2: 256MiB -> 300MiB",
        "- files: read /usr/share/dict",
        "+ files: read /usr/share",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
    assert!(!lines.join("\n").contains("slow-secret"));
}

#[test]
fn check_prints_every_decision() {
    let world = full_world();
    let plan = world.load(&full_text()).unwrap();
    let text = plan.to_string();
    assert!(text.starts_with("researcher  R2  memory 256MiB  cpu 50%  tasks 64  "), "{text}");
    for expected in [
        "net 127.0.0.1:8099",
        "program",
        "/work",
        "write ",
        "API_KEY=[secret, from ",
        "on failure, 5 times in 10m",
        "label        team=travel",
        "slo          answers: latency 99% in 7d, good up to 2s",
        "slo          safe: safety 99% in 30d; budget below 50%: demote; trip: kill",
        "chaos        opted in: process-hang",
        "environment  ",
        "timeouts     start ",
        "stdio        ",
        "log          files of ",
        "open files   ",
        "health       ",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    assert!(plan.summary(Ring::R3).ends_with("net none"), "{}", plan.summary(Ring::R3));
}

#[test]
fn a_secret_file_that_is_swapped_for_a_link_is_not_read() {
    let world = full_world();
    let plan = world.load(&full_text()).unwrap();
    let file = world.project.join("key.txt");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", &file).unwrap();
    let error = plan.environment().unwrap_err();
    assert!(error.to_string().contains("API_KEY") && error.to_string().contains("key.txt"), "{error}");
}

#[test]
fn the_agents_own_file_and_dangerous_names_are_protected() {
    let world = full_world();
    world.write("homes/alice/project/.git/HEAD", "");
    world.write("homes/alice/project/.git/config", "");
    fs::create_dir_all(world.project.join(".git/objects")).unwrap();
    fs::create_dir_all(world.project.join(".git/refs")).unwrap();
    fs::create_dir_all(world.project.join(".vscode")).unwrap();
    let text = full_text().replace("workdir: work\n", "");
    let plan = world.load(&text).unwrap();
    let protects = |name: &str| plan.protect.contains(&world.project.join(name));
    assert!(protects("agent.yaml") && protects(".git/config"));
    assert!(!protects(".vscode"), "the operator's file opens it");
    let odd = world.write("homes/alice/project/odd-name.yml", minimal("ring: 2\n"));
    let plan = load_agent(&odd, &world.around, None, &Overrides::default()).unwrap();
    assert!(plan.protect.contains(&odd) && plan.protect.contains(&world.project.join(".vscode")));
    assert!(world.agent("ring: 3\n").unwrap().protect.is_empty(), "R3 writes nothing, so there is nothing to protect");
}

#[test]
fn defaults_are_the_narrowest() {
    let world = World::new();
    let plan = world.agent("").unwrap();
    assert_eq!(plan.ceiling, Ring::R3);
    assert_eq!(plan.enforcement, agt_rings::spec::Enforcement::Required);
    assert!(plan.forwards.is_empty() && !plan.chaos.opt_in && plan.capabilities.is_empty());
    assert_eq!(plan.env.keys().collect::<Vec<_>>(), ["LANG", "PATH"]);
    assert_eq!(plan.environment, spec::Environment::Production);
}

#[test]
fn entries_of_the_network_are_shown_with_what_they_let_pass() {
    let world = World::new();
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {}/agent.yaml\n    network: [{{host: \"*\", ports: [80, 443]}}, {{host: localhost, port: 80}}]\n",
        world.project.display()
    ));
    let old = world.agent("ring: 2\nnetwork: [{host: localhost, port: 80}]\n").unwrap();
    assert!(old.notes.iter().any(|note| note.contains("`tcp: 127.0.0.1:80`")), "{:?}", old.notes);
    let new = world
        .agent("ring: 2\nnetwork: [{host: b.example, methods: [GET, HEAD], paths: [/v1/**], intercept: on}, {deny: c.example}]\n")
        .unwrap();
    let page = new.page(None);
    for row in ["reaches      b.example  GET HEAD  /v1/**  TLS is opened\n", "denies       c.example\n"] {
        assert!(page.contains(row), "{row} in {page}");
    }
    assert!(new.notes.is_empty(), "{:?}", new.notes);
    let lines: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    for line in ["- network: reaches localhost:80", "+ network: denies c.example"] {
        assert!(lines.iter().any(|told| told == line), "{line} in {lines:#?}");
    }
}
