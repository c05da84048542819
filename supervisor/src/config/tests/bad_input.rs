//! Files that nobody should be able to hurt us with, and mistakes that everybody makes: message, place, exit code.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

#[test]
fn all_problems_of_a_file_are_reported_at_once_with_their_lines() {
    let world = World::new();
    let text = message(
        world.load("version: 1\nname: Bad Name\ncommand: []\nring: 7\nlimits:\n  memory: 64M\n  cpu: 0\n  tasks: 0\n  memroy: 1\nrestart:\n  window: 5\nlog:\n  keep: -1\n"),
        64,
    );
    for expected in [
        "agent.yaml:2:7",
        "`Bad Name` can't be an agent's name",
        "for example `bad-name`",
        "agent.yaml:3:1",
        "`command` has 0 items",
        "agent.yaml:4:7",
        "unknown value `7` for `ring`",
        "agent.yaml:6:11",
        "write `64MiB` (in 1024) or `64MB` (in 1000)",
        "agent.yaml:7:8",
        "leaves no CPU at all",
        "agent.yaml:8:10",
        "it must be 1 or more",
        "agent.yaml:9:3",
        "did you mean `memory`?",
        "agent.yaml:11:11",
        "`5s` for seconds",
        "agent.yaml:13:9",
        "it must be 0 or more",
        "8 more errors below; nothing was started.",
        "9 errors; nothing was started.",
    ] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
}

#[test]
fn wrong_types_are_named_in_words() {
    let world = World::new();
    for (line, expected) in [
        ("limits: 5", "`limits` must be a group of keys, this is a number"),
        ("env: [A]", "`env` must be a group of keys, this is a list"),
        ("network: {tcp: 127.0.0.1:1}", "put `- ` before each item"),
        ("files: {read: /usr}", "`files.read` must be a list, this is text"),
        ("chaos: {opt_in: yes}", "YAML 1.2 knows `true` and `false` only"),
        ("limits:", "`limits` has no value"),
        ("workdir: ~", "`workdir` has no value"),
        ("health: {command: {a: b}}", "`health.command` must be a list or text"),
        ("restart: {attempts: 1.5}", "write it without a point"),
        ("limits: {memory: [1]}", "must be a size with its unit"),
        ("labels: {a: {b: c}}", "`labels.a` must be text"),
        ("network: [{udp: 127.0.0.1:1}]", "unknown key `network[0].udp`"),
        ("network: [127.0.0.1:1]", "`network[0]` must be a group of keys"),
        ("network: [a.example]", "with one or more of these keys: deny, host,"),
        ("env: {pass: [A-B]}", "can't be the name of a variable"),
        ("env: {set: {1A: x}}", "can't be the name of a variable"),
        ("labels: {a-b: x}", "can't be the name of a label"),
    ] {
        let text = message(world.agent(&format!("{line}\n")), 64);
        assert!(text.contains(expected) && text.contains("agent.yaml:4:"), "{line}:\n{text}");
    }
}

#[test]
fn missing_keys_are_named_with_what_to_add() {
    let world = World::new();
    let text = message(world.load("kind: agent\n"), 64);
    for expected in [
        "the key `version` is missing",
        "add a first line `version: 1`",
        "the key `name` is missing",
        "the key `command` is missing",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(
        message(world.load("version: 2\nname: a\ncommand: date\n"), 64).contains("unknown value `2` for `version`")
    );
    assert!(
        message(world.agent("health: {interval: 5s}\n"), 64)
            .contains("a health check is one of `command`, `http` and `tcp`")
    );
    assert!(message(world.load(""), 64).contains("the file is empty"));
    assert!(message(world.load("# only a comment\n"), 64).contains("the file is empty"));
    assert!(message(world.load("just text\n"), 64).contains("the file must be a group of keys"));
}

#[test]
fn a_missing_kind_is_one_mistake_with_the_line_to_add() {
    let world = World::new();
    world.operator("version: 1\nagents: {}\n");
    let text = message(world.agent(""), 64);
    assert!(text.contains("add a line `kind: operator`"), "{text}");
    assert_eq!(text.matches("error:").count(), 1, "{text}");
}

#[test]
fn a_file_of_another_kind_is_told_what_reads_it() {
    let world = World::new();
    let text = message(world.load("version: 1\nkind: saga\nsteps: []\n"), 64);
    assert!(text.contains("this file is `kind: saga`") && text.contains("agt-supervise saga run"), "{text}");
    assert_eq!(text.matches("error:").count(), 1, "{text}");
}

#[test]
fn ten_megabytes_are_refused_unread() {
    let world = World::new();
    let text = message(world.load(&format!("version: 1\nname: {}\n", "a".repeat(10 << 20))), 64);
    assert!(text.contains("the limit is 1048576 (1 MiB)") && text.len() < 500, "{text}");
}

#[test]
fn alias_bombs_are_refused_before_they_grow() {
    let world = World::new();
    let mut bomb =
        String::from("version: 1\nname: a\ncommand: [date]\nx-a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        bomb.push_str(&format!("x-a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
    }
    let text = message(world.load(&bomb), 64);
    assert!(text.contains("more than 20000 values") && text.contains("agent.yaml:"), "{text}");
    // One long text, repeated, is a bomb as well.
    let long = format!("x-a: &a {}\nx-b: [{}]\n", "y".repeat(500_000), "*a,".repeat(1000));
    assert!(message(world.load(&minimal(&long)), 64).contains("more than 20000 values"));
    assert!(message(world.load(&minimal("x-a: &a [*a]\n")), 64).contains("alias"));
}

#[test]
fn an_honest_alias_is_its_value() {
    let world = World::new();
    let plan = world.agent("x-size: &size 64MiB\nring: 2\nlimits: {memory: *size}\n").unwrap();
    assert_eq!(plan.limits_at(Ring::R2).memory_bytes, Some(64 << 20));
}

#[test]
fn deep_nesting_is_refused() {
    let world = World::new();
    for open in ["[", "{a: ", "- "] {
        let text = message(world.load(&format!("x-deep: \n  {}", open.repeat(100_000))), 64);
        assert!(text.contains("nested deeper") || text.contains("not YAML"), "{text}");
    }
}

#[test]
fn broken_yaml_says_where() {
    let world = World::new();
    for (text, expected) in [
        ("version: 1\nname: \"a\n", "not YAML"),
        ("version: 1\n\tname: a\n", "a tab indents this line"),
        ("limits:\n\tmemory: 1MiB\n", "a tab indents this line"),
        ("version: 1\nname: a\nname: b\n", "the key `name` stands here twice"),
        ("version: 1\n---\nversion: 1\n", "a second document begins here"),
        ("version: 1\nname: !custom a\n", "the tag `!custom` has no meaning here"),
        ("version: 1\n? [a]\n: b\n", "a key must be a single word"),
        ("version: 1\n<<: {name: a}\n", "merge keys"),
        ("version: 1\nname: a\u{7}b\n", "control character U+0007"),
        ("version: 1\nname: *nowhere\n", "not YAML"),
        ("version: 1\nname: a: b\n", "not YAML"),
    ] {
        let message = message(world.load(text), 64);
        assert!(message.contains(expected) && message.contains("agent.yaml:"), "{text:?}:\n{message}");
    }
    let text = message(world.load("version: 1\nname: a\nname: b\n"), 64);
    assert!(text.contains("agent.yaml:3:1") && text.contains("first in line 2"), "{text}");
}

#[test]
fn bytes_that_are_no_text_say_where() {
    let world = World::new();
    world.write("homes/alice/project/agent.yaml", b"version: 1\nname: \xff\n");
    let text = message(load_agent(Path::new("agent.yaml"), &world.around, None, &Overrides::default()), 64);
    assert!(text.contains("not UTF-8: the first wrong byte is in line 2, column 7"), "{text}");
}

#[test]
fn folders_pipes_and_missing_files_are_named() {
    let world = World::new();
    let load = |path: &str| load_agent(Path::new(path), &world.around, None, &Overrides::default());
    assert!(message(load("nowhere.yaml"), 64).contains("nowhere.yaml: there is no such file"));
    assert!(message(load("."), 64).contains("this is a folder"));
    assert!(message(load("/dev/null"), 64).contains("a regular file was expected"));
    let pipe = world.project.join("pipe.yaml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(message(load("pipe.yaml"), 64).contains("a regular file was expected"));
}

#[test]
fn impossible_values_are_refused() {
    let world = World::new();
    for (lines, expected) in [
        ("limits: {memory: 1kB}", "less than 1MiB"),
        ("limits: {tasks: 99999999999}", "it must be"),
        ("limits: {cpu: 5000}", "more CPUs than a machine has"),
        ("limits: {files: 1}", "it must be 8 or more"),
        ("restart: {backoff: {initial: 2m, max: 1m}}", "the first wait (2m) is longer than the longest (1m)"),
        ("restart: {window: 0s}", "`restart.window` is 0"),
        ("restart: {backoff: {jitter: 120%}}", "more than the whole"),
        ("timeouts: {run: 0s}", "`timeouts.run` is 0"),
        ("timeouts: {stop: 99999d}", "longer than ten years"),
        ("ring: 2\nhealth: {command: [/bin/true], interval: 1s, timeout: 5s}", "a check may take 5s"),
        ("log: {max_size: 1B}", "at least 4KiB"),
        ("chaos: {faults: [process-hang]}", "`opt_in` is not true"),
        ("chaos: {opt_in: true, faults: [meteor]}", "unknown fault `meteor`"),
        ("ring: 2\nnetwork: [{tcp: 127.0.0.1:0}]", "has port 0"),
        ("ring: 2\nnetwork: [{host: \"*\"}]", "an agent lists the hosts that it needs"),
        ("ring: 2\nnetwork: [{host: a.example, tcp: a.example:1}]", "exactly one of `host`, `tcp` and `deny`"),
        ("ring: 2\nnetwork: [{tcp: 127.0.0.1:1}, {tcp: 127.0.0.1:1}]", "stands here twice"),
        ("network: [{tcp: 127.0.0.1:1}]", "R3 has no network"),
        ("ring: 3\nfiles: {write: [.]}", "R3 writes nothing"),
        ("user: nobody-knows-me", "there is no user `nobody-knows-me`"),
        ("env: {set: {AGT_SOCKET: x}}", "belong to the supervisor"),
        ("env: {set: {PATH: 'bin:/usr/bin'}}", "relative entry `bin`"),
        ("env: {pass: [LANG], set: {LANG: C}}", "is also in `env.pass`"),
        ("files: {read: [/no/such/path]}", "the path /no/such/path doesn't exist"),
        ("files: {read: [~/x]}", "write `${HOME}/x`"),
        ("files: {read: ['${NOPE:?set it}']}", "the variable `NOPE` is not set: set it"),
        ("workdir: '${HOME:-x}'", "is not a form that is known here"),
        ("command2: x", "unknown key"),
        ("slos: [{name: a, sli: latency, objective: 99%, threshold: 0.5}]", "(`slos[0].threshold`)"),
        ("slos: [{name: a, sli: safety, objective: 100%}]", "leaves no error budget"),
        ("slos: [{name: a, sli: saftey, objective: 99%}]", "did you mean `safety`?"),
        ("slos: [{name: a, sli: safety, objective: most}]", "`slos[0].objective`"),
        ("slos: [{name: a, sli: latency, objective: 99%, threshold: quick}]", "`slos[0].threshold`"),
    ] {
        let text = message(world.agent(&format!("{lines}\n")), 64);
        assert!(text.contains(expected) && text.contains("--> agent.yaml:"), "{lines}:\n{text}");
    }
}

#[test]
fn a_missing_path_is_reported_with_its_own_line() {
    let world = World::new();
    let text = message(world.agent("ring: 2\nfiles:\n  read:\n    - /usr/share\n    - ../nowhere\n"), 64);
    assert!(text.contains("agent.yaml:8:7") && text.contains("nowhere doesn't exist"), "{text}");
}

#[test]
fn no_message_shows_a_value_of_the_environment() {
    let world = World::new();
    for lines in [
        "env: {set: {KEY: [hunter2]}}",
        "env:\n  set:\n    KEY: hunter2${X:-}\n",
        "env:\n  set:\n    AGT_KEY: hunter2\n",
        "api_key: hunter2",
    ] {
        let text = message(world.agent(lines), 64);
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn scalars_in_text_places_keep_their_characters() {
    let world = World::new();
    let plan = world
        .load("version: 1\nname: 007\ncommand: [/bin/echo, 5, 1.10, true, 0x1F, no, 1e3]\nlabels: {release: 1.10}\n")
        .unwrap();
    assert_eq!(plan.argv, ["/usr/bin/echo", "5", "1.10", "true", "0x1F", "no", "1e3"]);
    assert_eq!((plan.name(), plan.labels["release"].as_str()), ("007", "1.10"));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n\té\u{1F600}]{0,200}") {
        let _ = parse_typed::<AgentSpec>(&Arc::from(text.as_str()), Path::new("f"), Kind::Agent).map_err(|e| e.render(Color::Always));
    }

    /// Lines of a good file shuffled, cut and joined: near enough to a file to reach the deep checks.
    #[test]
    fn no_mangled_file_makes_the_reader_panic(picks in proptest::collection::vec((0..60_usize, 0..6_usize), 0..40)) {
        let lines: Vec<&str> = FULL_AGENT.lines().collect();
        let text: String = picks.iter().map(|(line, cut)| {
            let line = lines[line % lines.len()];
            format!("{}\n", line.get(*cut..).unwrap_or(line))
        }).collect();
        let _ = parse_typed::<AgentSpec>(&Arc::from(text.as_str()), Path::new("f"), Kind::Agent).map_err(|e| e.render(Color::Never));
    }
}

#[test]
fn a_short_interval_alone_shortens_the_timeout_and_a_written_one_is_named() {
    let world = World::new();
    let health = |rest: &str| world.agent(&format!("health:\n  command: [/bin/true]\n  interval: 1s\n{rest}"));
    let span = |seconds| units::Span::seconds(seconds);
    assert_eq!(health("").unwrap().health.unwrap().timeout, span(1));
    let text = message(health("  timeout: 2s\n"), 64);
    assert!(text.contains("a check may take 2s") && text.contains("agent.yaml:7:12"), "{text}");
    assert!(text.contains("shorten `timeout:` to at most 1s"), "{text}");
    let plan = world.agent("health: {command: [/bin/true], interval: 1m}\n").unwrap();
    assert_eq!(plan.health.unwrap().timeout, span(5));
}

#[test]
fn a_remedy_that_would_do_nothing_is_refused() {
    let world = World::new();
    let slo = |action: &str| {
        format!(
            "slos:\n  - name: x\n    sli: availability\n    objective: 99%\n    remedies:\n      - {{on: page, action: {action}}}\n"
        )
    };
    assert!(world.agent(&slo("demote")).is_ok());
    let text = message(world.agent(&slo("throttle")), 64);
    assert!(text.contains("`throttle` can't be a remedy yet") && text.contains("it would do nothing"), "{text}");
    assert!(text.contains("alert, demote, break, quarantine, kill"), "{text}");
}

#[test]
fn what_is_near_is_named_by_the_key_that_is_meant() {
    let world = World::new();
    let text = message(world.agent("env:\n  secrets: {KEY: hunter2}\n"), 64);
    assert!(text.contains("write `{file: ...}`"), "{text}");
    let text = message(world.agent("restart: {policy: always, max: 3}\n"), 64);
    assert!(text.contains("did you mean `attempts`?"), "{text}");
}

#[test]
fn an_entry_with_a_mistake_is_told_of_once_and_of_nothing_that_mending_it_may_mend() {
    let world = World::new();
    for (entry, says) in [
        ("{host: \"https://a.example/v1\"}", "a host alone stands here"),
        ("{hots: a.example}", "did you mean `host`?"),
        ("{tcp: db.internal}", "has no port"),
        ("{host: a.example, port: http}", "must be a whole number"),
    ] {
        let text = message(world.agent(&format!("ring: 2\nnetwork: [{entry}]\n")), 64);
        assert!(text.contains(says), "{entry}: {text}");
        for follows in ["exactly one of", "needs an operator"] {
            assert!(!text.contains(follows), "{entry}: {text}");
        }
    }
}

#[test]
fn amounts_and_durations_of_models_are_told_without_places_of_another_text() {
    let world = World::new();
    let text = message(world.agent("ring: 2\nmodel_limits: {spend: {day: \"-1\"}}\n"), 64);
    let once = text.contains("error: `model_limits.spend.day`: \"-1\" is no amount of dollars: write \"2.50\"\n");
    assert!(once, "{text}");
    let whole = "version: 1\nkind: operator\nmodels: {providers: {openai: {idle: 5}}}\n";
    world.operator(whole);
    let text = message(world.agent("ring: 2\n"), 64);
    assert!(text.contains("expected a duration") && text.contains("for example `5s`"), "{text}");
    let text = message(World::new().agent("ring: 2\nports: [\"1 > 2\"]\n"), 64);
    assert!(text.contains("`1 > 2` is not a port (`ports[0]`)"), "{text}");
}
