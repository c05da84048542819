//! agent.yaml is input, not authority: what needs the operator, and what the operator's file must be like.

use proptest::prelude::*;

use super::*;
use agt_rings::spec::{Access, User};

fn with_grant(world: &World, lines: &str) {
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {}/agent.yaml\n{lines}",
        world.project.display()
    ));
}

/// Requests that need an operator, as agent lines.
fn requests(world: &World) -> Vec<String> {
    world.write("homes/alice/.ssh/id", "key");
    world.write("srv/data/key", "s3cret\n");
    let socket = world.project.join("service.sock");
    if !socket.exists() {
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    }
    vec![
        format!("files: {{read: [{}]}}", world.home.join(".ssh").display()),
        "files: {read: ['${HOME}/.ssh/id']}".to_owned(),
        format!("files: {{read: [{}]}}", world.root.join("srv/data").display()),
        "files: {read: [/etc/shadow]}".to_owned(),
        "files: {read: [/proc/1]}".to_owned(),
        "files: {read: [/run]}".to_owned(),
        "files: {read: [/dev]}".to_owned(),
        "files: {read: [/]}".to_owned(),
        "files: {read: [service.sock]}".to_owned(),
        format!("files: {{write: [{}]}}", world.root.join("srv/data").display()),
        format!("env: {{secrets: {{KEY: {{file: {}}}}}}}", world.root.join("srv/data/key").display()),
        "env: {pass: [OPENAI_API_KEY]}".to_owned(),
        "env: {set: {KEY: 'Bearer ${OPENAI_API_KEY}'}}".to_owned(),
        "network: [{tcp: 127.0.0.1:8099}]".to_owned(),
        "models: [openai]".to_owned(),
        "models: [my-vllm, anthropic]".to_owned(),
        "user: root".to_owned(),
        "user: bob".to_owned(),
        "nested_sandbox: on".to_owned(),
        "limits: {memory: 2GiB}".to_owned(),
        "limits: {cpu: 1.5}".to_owned(),
        "limits: {tasks: 257}".to_owned(),
        "limits: {files: 2000}".to_owned(),
        "chaos: {opt_in: true}".to_owned(),
        "chaos: {opt_in: true, faults: [process-hang]}".to_owned(),
    ]
}

/// The lines that the message offers, as an operator's file.
fn offered(text: &str) -> String {
    let block: Vec<&str> = text
        .lines()
        .skip_while(|line| !line.contains("an operator can allow this in"))
        .skip(1)
        .take_while(|line| line.starts_with("    "))
        .map(|line| &line[4..])
        .collect();
    let block = block.join("\n");
    if block.starts_with("version") { block } else { format!("version: 1\nkind: operator\n{block}") }
}

#[test]
fn every_request_beyond_the_ceiling_is_refused_with_a_line_that_helps() {
    let world = World::new();
    for request in requests(&world) {
        let lines = format!("ring: 2\n{request}\n");
        let text = message(world.agent(&lines), 77);
        assert!(text.starts_with("refused:") && text.contains("--> agent.yaml:5:"), "{request}:\n{text}");
        assert!(!text.contains("sk-hunter2") && !text.contains("s3cret"), "{text}");
        world.operator(&offered(&text));
        let plan =
            world.agent(&lines).unwrap_or_else(|error| panic!("{}\n{}", offered(&text), error.render(Color::Never)));
        assert!(plan.needs_attestation.is_empty());
        fs::remove_file(world.root.join("etc/operator.yaml")).unwrap();
    }
}

#[test]
fn several_refusals_come_with_one_block_that_allows_them_all() {
    let world = World::new();
    requests(&world);
    let lines = "ring: 2\nuser: root\nfiles: {read: [/dev, /run]}\nlimits: {memory: 2GiB, tasks: 300}\nnetwork: [{tcp: 127.0.0.1:8099}]\n";
    let text = message(world.agent(lines), 77);
    assert_eq!(text.matches("refused:").count(), 6, "{text}");
    world.operator(&offered(&text));
    world.agent(lines).unwrap();
}

#[test]
fn a_grant_belongs_to_a_file_not_to_a_name() {
    let world = World::new();
    let other = world.write("srv/other/agent.yaml", "");
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {}\n    user: root\n",
        other.display()
    ));
    let text = message(world.agent("user: root\n"), 77);
    assert!(text.contains("the entry that is there is for") && text.contains("other/agent.yaml"), "{text}");
}

#[test]
fn a_mistake_in_the_file_comes_before_a_refusal() {
    let world = World::new();
    let text = message(world.agent("user: root\nfiles: {read: [/no/where]}\n"), 64);
    assert!(text.contains("refused:") && text.contains("doesn't exist"), "{text}");
}

#[test]
fn what_is_free_needs_no_operator() {
    let world = World::new();
    world.write("homes/alice/project/data/x", "");
    let plan = world
        .agent("ring: 2\nfiles: {read: [/usr/share, data, /etc/ssl/certs], write: [data]}\nenv: {pass: [LANG, HOME], set: {A: '${HOME}/x'}}\nlimits: {memory: 1GiB, cpu: 100%, tasks: 256}\n")
        .unwrap();
    assert_eq!(plan.user, User::Own);
    assert_eq!(plan.limits_at(Ring::R2).memory_bytes, Some(1 << 30));
}

#[test]
fn nothing_opens_our_own_files() {
    let world = World::new();
    world.write("state/store.db", "x");
    with_grant(&world, "    read: [/]\n    write: [/srv]\n    secrets: [/]\n");
    for lines in [
        format!("files: {{read: [{}]}}", world.root.join("state/store.db").display()),
        format!("files: {{read: [{}]}}", world.root.join("state").display()),
        format!("files: {{read: [{}]}}", world.root.join("etc/operator.yaml").display()),
        format!("files: {{write: [{}]}}", world.root.display()),
        format!("env: {{secrets: {{K: {{file: {}}}}}}}", world.root.join("state/store.db").display()),
    ] {
        for ring in [0, 1, 2] {
            let text = message(world.agent(&format!("ring: {ring}\n{lines}\n")), 77);
            assert!(text.contains("supervisor") && !text.contains("an operator can allow"), "{lines}:\n{text}");
        }
    }
    let plan = world.agent("ring: 2\n").unwrap();
    for own in ["state", "run", "etc", "etc/operator.yaml"] {
        assert!(plan.hide.contains(&world.root.join(own)), "{own}");
    }
}

#[test]
fn in_r0_the_attestation_is_the_operators_line() {
    let world = World::new();
    let plan = world.agent("ring: 0\nuser: root\nfiles: {read: [/root], write: [/etc]}\n").unwrap();
    assert_eq!(plan.ceiling, Ring::R0);
    let needed: Vec<&str> = plan.needs_attestation.iter().map(|refusal| refusal.message.as_str()).collect();
    assert_eq!(needed.len(), 3, "{needed:?}");
    assert!(plan.needs_attestation.iter().all(|refusal| refusal.grant.is_some()));
    // Capabilities stay the operator's alone.
    assert!(plan.capabilities.is_empty());
    with_grant(&world, "    capabilities: [CAP_NET_BIND_SERVICE]\n");
    assert_eq!(world.agent("ring: 0\n").unwrap().capabilities, ["net_bind_service"]);
    assert!(world.agent("ring: 1\n").unwrap().capabilities.is_empty());
}

#[test]
fn the_operators_ceiling_holds_over_file_and_command_line() {
    let world = World::new();
    world.operator("version: 1\nkind: operator\nceiling: 2\n");
    let plan = world.agent("ring: 0\nuser: own\n").unwrap();
    assert_eq!(plan.ceiling, Ring::R2);
    assert!(plan.notes[0].contains("R0 was asked for, the operator's file allows R2"), "{:?}", plan.notes);
    let typed = Overrides { ring: Some(Ring::R1), ..Overrides::default() };
    assert_eq!(world.load_with(&minimal("ring: 1\n"), &typed).unwrap().ceiling, Ring::R2);
    world.operator("version: 1\nkind: operator\nceiling: 3\n");
    let plan = world.agent("ring: 2\nfiles: {write: [.]}\n").unwrap();
    assert!(plan.files.iter().all(|rule| rule.access == Access::Read), "{:?}", plan.files);
    world.operator("version: 1\nkind: operator\nceiling: 2\n");
    // The narrowed agent no longer has the attestation's road.
    message(world.agent("ring: 0\nuser: root\n"), 77);
    with_grant(&world, "    ceiling: 1\n");
    assert_eq!(world.agent("ring: 1\n").unwrap().ceiling, Ring::R1);
}

#[test]
fn ring_limits_of_the_operator_replace_the_built_in_ones() {
    let world = World::new();
    world.operator("version: 1\nkind: operator\nrings:\n  2: {memory: 2GiB}\n  3: {memory: 100MiB}\n");
    let plan = world.agent("ring: 2\n").unwrap();
    assert_eq!(plan.limits_at(Ring::R2).memory_bytes, Some(2 << 30));
    assert_eq!(plan.limits_at(Ring::R3).memory_bytes, Some(100 << 20));
    assert_eq!(plan.limits_at(Ring::R2).tasks, Some(256));
    message(world.agent("limits: {memory: 101MiB}\n"), 77);
}

#[test]
fn a_demoted_agent_has_at_most_the_limits_of_its_new_ring() {
    let world = World::new();
    with_grant(&world, "    limits: {memory: 8GiB}\n");
    let plan = world.agent("ring: 2\nlimits: {memory: 8GiB, cpu: 10%}\n").unwrap();
    assert_eq!(plan.limits_at(Ring::R2).memory_bytes, Some(8 << 30));
    assert_eq!(plan.limits_at(Ring::R3).memory_bytes, Some(512 << 20));
    assert_eq!(plan.limits_at(Ring::R3).cpu_millis, Some(100));
}

#[test]
fn what_can_be_set_while_it_runs_is_bound_by_ring_and_grant() {
    let world = World::new();
    let most = |yaml: &str| world.agent(yaml).unwrap().limits_most_at(Ring::R2);
    assert_eq!(most("ring: 2\nlimits: {memory: 64MiB}\n").memory_bytes, Some(1 << 30), "less was asked for");
    with_grant(&world, "    limits: {memory: 8GiB, tasks: 10}\n");
    let most = most("ring: 2\n");
    assert_eq!((most.memory_bytes, most.tasks), (Some(8 << 30), Some(256)), "a grant never narrows");
    let plan = world.agent("ring: 2\n").unwrap();
    assert_eq!(plan.limits_most_at(Ring::R3).memory_bytes, Some(512 << 20), "a grant holds at the ceiling");
    assert_eq!(plan.limits_most_at(Ring::R0).memory_bytes, None);
}

#[test]
fn the_total_is_read_strictly_and_is_nothing_without_a_file() {
    let world = World::new();
    let total = || crate::config::total(None, &world.around);
    assert_eq!(total().unwrap(), agt_rings::spec::Limits::default());
    world.operator("version: 1\nkind: operator\ntotal: {memory: 2GiB, cpu: 50%}\n");
    let read = total().unwrap();
    assert_eq!((read.memory_bytes, read.cpu_millis, read.tasks), (Some(2 << 30), Some(500), None));
    for wrong in [
        "total: {memory: 64M}",
        "total: {memroy: 1GiB}",
        "total: {tasks: 0}",
        "total: {memory: 4KiB}",
        "total: {files: 9}",
    ] {
        world.operator(&format!("version: 1\nkind: operator\n{wrong}\n"));
        assert!(total().is_err(), "{wrong}");
    }
}

#[test]
fn an_operators_file_that_others_could_have_written_is_refused() {
    let world = World::new();
    let path = world.operator("version: 1\nkind: operator\n");
    for mode in [0o664, 0o646, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let text = message(world.agent(""), 77);
        assert!(text.contains("can be written by others") && text.contains("chmod go-w"), "{text}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    world.agent("").unwrap();
    if world.around.uid == 0 {
        nix::unistd::chown(&path, Some(nix::unistd::Uid::from_raw(4712)), None).unwrap();
        let text = message(world.agent(""), 77);
        assert!(text.contains("belongs to uid 4712") && text.contains("sudo chown root"), "{text}");
    }
}

#[test]
fn a_wrong_operators_file_is_an_error_never_no_file() {
    let world = World::new();
    for (text, expected) in [
        ("version: 1\nkind: operator\nagents:\n  a: {user: root}\n", "`agents.a.file` is missing"),
        ("version: 1\nkind: operator\nagents:\n  a: {file: x, write: [/]}\n", "no agent may write `/`"),
        ("version: 1\nkind: operator\nagents:\n  a: {file: x, read: ['${HOME}']}\n", "nothing is replaced"),
        ("version: 1\nkind: operator\nagents:\n  a: {file: x, capabilities: [fly]}\n", "unknown capability `fly`"),
        ("version: 1\nkind: operator\nrings:\n  4: {memory: 1GiB}\n", "unknown key `rings.4`"),
        ("version: 1\nkind: operator\nvouch: maybe\n", "unknown value `maybe`"),
        ("version: 1\nkind: operator\nenvironment: develop\n", "did you mean `dev`?"),
        ("version: 1\nkind: agent\n", "this file is `kind: agent`"),
        ("version: 1\n", "the key `kind` is missing"),
    ] {
        world.operator(text);
        let out = message(world.agent(""), 64);
        assert!(out.contains(expected) && out.contains("operator.yaml:"), "{text}:\n{out}");
    }
    let named = load_agent(Path::new("agent.yaml"), &world.around, Some(Path::new("gone.yaml")), &Overrides::default());
    assert!(message(named, 64).contains("gone.yaml: there is no such file"));
}

#[test]
fn what_the_user_types_is_the_users_to_give() {
    let world = World::new();
    let typed = Overrides { pass: vec!["OPENAI_API_KEY".to_owned()], ..Overrides::default() };
    let plan = world.load_with(&minimal(""), &typed).unwrap();
    let value = plan.env.get("OPENAI_API_KEY").unwrap();
    assert_eq!(value.reveal("OPENAI_API_KEY").unwrap(), "sk-hunter2");
    assert!(!format!("{plan:?}{plan}{}", plan.to_json()).contains("hunter2"));
}

/// Subsets of a full grant, from nothing to everything.
const GRANT_LINES: [&str; 9] = [
    "    read: [DATA, /dev, /run]\n",
    "    write: [DATA]\n",
    "    network: [{tcp: 127.0.0.1:8099}]\n",
    "    secrets: [DATA/key]\n",
    "    env: [OPENAI_API_KEY]\n",
    "    user: root\n",
    "    limits: {memory: 4GiB, cpu: 4, tasks: 1000, files: 5000}\n",
    "    chaos: {opt_in: true}\n",
    "    ceiling: 1\n",
];

fn granted(world: &World, mask: u32) -> String {
    let data = world.root.join("srv/data").display().to_string();
    GRANT_LINES
        .iter()
        .enumerate()
        .filter(|(index, _)| mask & (1 << index) != 0)
        .map(|(_, line)| line.replace("DATA", &data))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What a smaller grant lets through, a larger one lets through as well, and never with less refused.
    #[test]
    fn more_restrictions_never_widen(first in 0..512_u32, second in 0..512_u32, picks in proptest::collection::vec(0..25_usize, 1..4)) {
        let world = World::new();
        let requests = requests(&world);
        let mut groups: std::collections::BTreeMap<&str, &String> = std::collections::BTreeMap::new();
        for pick in picks {
            let request = &requests[pick];
            groups.insert(request.split(':').next().unwrap(), request);
        }
        let lines: String = groups.values().map(|line| format!("{line}\n")).collect();
        let lines = format!("ring: 2\n{lines}");
        let refused = |mask: u32| -> std::collections::BTreeSet<String> {
            with_grant(&world, &granted(&world, mask));
            match world.agent(&lines) {
                Ok(_) => std::collections::BTreeSet::new(),
                Err(error) => error.problems().iter().map(|problem| problem.message.clone()).collect(),
            }
        };
        // The ceiling line narrows: it is left out of the comparison of sets.
        let (small, large) = (first & second & !256, (first | second) & !256);
        let (with_small, with_large) = (refused(small), refused(large));
        prop_assert!(with_large.len() <= with_small.len(), "{with_small:?} {with_large:?}");
    }

    /// Without an operator's file nothing outside the workdir is ever writable, whatever is asked for.
    #[test]
    fn without_an_operator_no_write_path_is_outside_the_workdir(
        ring in 1..4_u8,
        paths in proptest::collection::vec(prop_oneof!["/[a-z]{1,5}", "\\.\\./[a-z]{1,5}", "[a-z]{1,3}", Just("/".to_owned()), Just("..".to_owned()), Just("/tmp".to_owned()), Just("link".to_owned())], 0..4),
    ) {
        let world = World::new();
        fs::create_dir_all(world.project.join("out")).unwrap();
        std::os::unix::fs::symlink("/tmp", world.project.join("link")).unwrap();
        let list = paths.iter().map(|path| format!("'{path}'")).collect::<Vec<_>>().join(", ");
        let write = if ring == 3 { String::new() } else { format!(", write: [out, {list}]") };
        if let Ok(plan) = world.agent(&format!("ring: {ring}\nfiles: {{read: [/usr]{write}}}\n")) {
            for ring in Ring::ALL {
                for rule in plan.files_at(ring).iter().filter(|rule| rule.access == Access::Write) {
                    prop_assert!(rule.path.starts_with(&plan.workdir), "{:?}", rule.path);
                }
            }
            prop_assert!(plan.files_at(Ring::R3).iter().all(|rule| rule.access == Access::Read));
        }
    }
}
