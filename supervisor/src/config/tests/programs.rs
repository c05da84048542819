//! From a command to the program that is really started: PATH, scripts, `env`, shims, packages, installations.

use std::os::unix::fs::symlink;

use super::*;

/// A real program of this system, to stand for any other.
fn elf() -> Vec<u8> {
    fs::read("/bin/true").unwrap()
}

impl World {
    /// A python at `prefix`, with its library.
    fn python(&self, prefix: &str) -> PathBuf {
        self.write(format!("{prefix}/lib/python3.11/os.py"), "");
        self.program(format!("{prefix}/bin/python3.11"), elf());
        let link = self.root.join(prefix).join("bin/python3");
        symlink("python3.11", &link).unwrap();
        link
    }

    fn command(&self, ring: u8, command: &str) -> Result<AgentPlan, ConfigError> {
        self.load(&format!("version: 1\nname: a\nring: {ring}\ncommand: {command}\n"))
    }

    fn command_in_path(&self, folders: &[&Path], command: &str) -> Result<AgentPlan, ConfigError> {
        let path: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        self.load(&format!(
            "version: 1\nname: a\nring: 2\ncommand: {command}\nenv: {{set: {{PATH: '{}'}}}}\n",
            path.join(":")
        ))
    }

    fn readable(&self, plan: &AgentPlan) -> Vec<String> {
        let relative = |path: &Path| path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        plan.files.iter().map(|rule| relative(&rule.path)).filter(|path| path != "homes/alice/project").collect()
    }
}

#[test]
fn a_missing_program_is_127_and_says_where_was_looked() {
    let world = World::new();
    let text = message(world.command(2, "[no-such-program]"), 127);
    assert!(
        text.contains("`no-such-program` was not found")
            && text.contains("agent.yaml:4:1")
            && text.contains("/usr/bin"),
        "{text}"
    );
    assert!(message(world.command(2, "[./nope]"), 127).contains("a relative path starts at the workdir"));
    let script = world.program("homes/alice/project/x.py", "#!/usr/bin/no-python\n");
    assert!(message(world.command(2, "[./x.py]"), 127).contains("the interpreter `/usr/bin/no-python`"), "{script:?}");
    world.program("homes/alice/project/x.py", "#!/usr/bin/env no-python\n");
    assert!(message(world.command(2, "[./x.py]"), 127).contains("the interpreter `no-python`"));
    world.program("homes/alice/project/x.py", "#!/usr/bin/python3\r\nprint()\r\n");
    assert!(message(world.command(2, "[./x.py]"), 127).contains("CR LF"));
}

#[test]
fn what_cannot_be_executed_is_126_with_what_to_write_instead() {
    let world = World::new();
    world.write("homes/alice/project/x.py", "print()\n");
    let text = message(world.command(2, "[./x.py]"), 126);
    assert!(text.contains("it is not executable") && text.contains("command: [python3, x.py]"), "{text}");
    world.program("homes/alice/project/x.py", "print()\n");
    assert!(message(world.command(2, "[./x.py]"), 126).contains("command: [python3, "));
    assert!(
        message(world.command(2, "[.]"), 127).contains("not found")
            || message(world.command(2, "[./.]"), 126).contains("folder")
    );
    assert!(message(world.command(2, "[/usr]"), 126).contains("this is a folder"));
    world.program("homes/alice/project/loop", format!("#!{}\n", world.project.join("loop").display()));
    assert!(message(world.command(2, "[./loop]"), 126).contains("scripts in a row"));
    world.program("homes/alice/project/relative", "#!bin/sh\n");
    assert!(message(world.command(2, "[./relative]"), 126).contains("relative path"));
    world.program("homes/alice/project/empty", "#!\n");
    assert!(message(world.command(2, "[./empty]"), 126).contains("names no interpreter"));
    world.program("homes/alice/project/long", format!("#!/bin/{}\n", "x".repeat(400)));
    assert!(message(world.command(2, "[./long]"), 126).contains("longer than the kernel reads"));
}

#[test]
fn scripts_become_their_interpreter_with_the_script_as_argument() {
    let world = World::new();
    let sh = Path::new("/bin/sh").canonicalize().unwrap();
    let script = world.program("homes/alice/project/run.sh", "#! /bin/sh -e \ndate\n");
    let plan = world.command(3, "[./run.sh, one]").unwrap();
    assert_eq!(plan.program, sh);
    assert_eq!(plan.argv, ["/usr/bin/sh", "-e", script.to_str().unwrap(), "one"]);
    assert_eq!(plan.script.as_deref(), Some(script.as_path()));
    // A script whose interpreter is a script.
    world.program("homes/alice/project/outer", format!("#!{}\n", script.display()));
    let plan = world.command(3, "[./outer, x]").unwrap();
    let outer = world.project.join("outer");
    assert_eq!(plan.argv, ["/usr/bin/sh", "-e", script.to_str().unwrap(), outer.to_str().unwrap(), "x"]);
}

#[test]
fn env_is_followed_and_what_it_sets_goes_into_the_environment() {
    let world = World::new();
    for first in ["#!/usr/bin/env sh", "#!/usr/bin/env -S sh", "#!/usr/bin/env -S A=1 sh"] {
        world.program("homes/alice/project/s", format!("{first}\n"));
        let plan = world.command(3, "[./s]").unwrap();
        assert_eq!(plan.argv[1], world.project.join("s").display().to_string(), "{first}");
    }
    world.program("homes/alice/project/s", "#!/usr/bin/env -S sh -e -u\n");
    assert_eq!(world.command(3, "[./s]").unwrap().argv[1..3], ["-e", "-u"]);
    let plan = world.command(3, "[env, A=1, B=x=y, sh, -c, date]").unwrap();
    assert_eq!(plan.argv, ["/usr/bin/sh", "-c", "date"]);
    assert_eq!(plan.env["B"].reveal("B").unwrap(), "x=y");
    assert!(message(world.command(2, "[env, AGT_SOCKET=/x, sh]"), 64).contains("belong to the supervisor"));
    // Options of its own: a program like any other, where programs may start others.
    assert_eq!(world.command(2, "[env, -i, sh]").unwrap().program, Path::new("/usr/bin/env"));
    assert!(message(world.command(3, "[env, -i, sh]"), 126).contains("leave `env` out"));
}

#[test]
fn a_launcher_in_r3_is_refused_with_the_direct_command() {
    let world = World::new();
    let bin = world.root.join("srv/bin");
    world.program("srv/bin/uv", elf());
    let lines = |ring| {
        format!(
            "version: 1\nname: a\nring: {ring}\ncommand: [uv, run, x.py]\nenv: {{set: {{PATH: '{}'}}}}\n",
            bin.display()
        )
    };
    assert!(message(world.load(&lines(3)), 126).contains("[.venv/bin/python, x.py]"));
    world.load(&lines(2)).unwrap();
}

#[test]
fn pyenv_shims_become_the_python_that_the_version_files_name() {
    let world = World::new();
    for version in ["3.11.7", "3.11.12", "3.12.1"] {
        world.python(&format!("homes/alice/.pyenv/versions/{version}"));
    }
    let shims = world.home.join(".pyenv/shims");
    world.program(
        "homes/alice/.pyenv/shims/python3",
        "#!/usr/bin/env bash\nexport PYENV_ROOT=\"x\"\nexec \"x/libexec/pyenv\" exec \"$program\" \"$@\"\n",
    );
    let find = || world.command_in_path(&[&shims, Path::new("/usr/bin")], "[python3, -c, pass]");
    let python = |version: &str| world.home.join(format!(".pyenv/versions/{version}/bin/python3.11"));
    // No version file: the system's.
    assert!(find().unwrap().program.starts_with("/usr"));
    world.write("homes/alice/.pyenv/version", "3.11.7\n");
    let plan = find().unwrap();
    assert_eq!(plan.program, python("3.11.7"));
    assert_eq!(plan.argv[0], world.home.join(".pyenv/versions/3.11.7/bin/python3").display().to_string());
    assert_eq!(world.readable(&plan), ["homes/alice/.pyenv/versions/3.11.7"]);
    // The project's file counts before the global one; a prefix means the latest.
    world.write("homes/alice/project/.python-version", "3.11 # comment\n");
    assert_eq!(find().unwrap().program, python("3.11.12"));
    world.python("homes/alice/evil");
    world.write("homes/alice/project/.python-version", "3.9.9\n../../evil\n3.12.1\n");
    assert_eq!(find().unwrap().program, python("3.12.1"));
    world.write("homes/alice/project/.python-version", "2.7.18\n");
    let text = message(find(), 126);
    assert!(text.contains("is a shim of pyenv") && text.contains("`pyenv which python3`"), "{text}");
}

#[test]
fn asdf_mise_and_volta_are_followed_or_refused_with_their_own_which() {
    let world = World::new();
    let shims = world.home.join(".asdf/shims");
    world.program(
        "homes/alice/.asdf/shims/node",
        "#!/usr/bin/env bash\n# asdf-plugin: nodejs 20.1.0\n# asdf-plugin: nodejs 18.0.0\nexec asdf exec \"node\" \"$@\"\n",
    );
    let node = world.program("homes/alice/.asdf/installs/nodejs/18.0.0/bin/node", elf());
    let find = || world.command_in_path(&[&shims, Path::new("/usr/bin")], "[node, -v]");
    assert!(message(find(), 126).contains("`asdf which node`"));
    world.write("homes/alice/project/.tool-versions", "python 3.11.7\nnodejs 18.0.0\n");
    assert_eq!(find().unwrap().program, node);
    let bin = world.root.join("srv/mise");
    world.program("srv/real/mise", elf());
    fs::create_dir_all(&bin).unwrap();
    symlink(world.root.join("srv/real/mise"), bin.join("node")).unwrap();
    assert!(message(world.command_in_path(&[&bin], "[node]"), 126).contains("`mise which node`"));
}

#[test]
fn npx_becomes_node_with_the_packages_script_or_is_refused() {
    let world = World::new();
    let bin = world.root.join("srv/bin");
    let node = world.program("srv/bin/node", elf());
    world.program("srv/bin/npx", "#!/usr/bin/env node\n");
    let find = |command: &str| world.command_in_path(&[&bin, Path::new("/usr/bin")], command);
    let text = message(find("[npx, -y, '@mcp/server-files@1.2', /x]"), 126);
    assert!(text.contains("npm install @mcp/server-files"), "{text}");
    world.write(
        "homes/alice/project/node_modules/@mcp/server-files/package.json",
        r#"{"bin": {"mcp-server-files": "dist/index.js"}}"#,
    );
    let script = world.write("homes/alice/project/node_modules/@mcp/server-files/dist/index.js", "");
    let plan = find("[npx, -y, '@mcp/server-files@1.2', /x]").unwrap();
    assert_eq!((plan.program, plan.argv[1..].to_vec()), (node, vec![script.display().to_string(), "/x".to_owned()]));
    // A manifest can't name a file elsewhere.
    world.write("homes/alice/project/node_modules/evil/package.json", r#"{"bin": "../../../.ssh/id"}"#);
    world.write("homes/alice/.ssh/id", "key");
    assert!(message(find("[npx, evil]"), 126).contains("npx evil"));
    assert!(message(find("[npx]"), 126).contains("without a package"));
}

#[test]
fn a_venv_keeps_its_name_and_brings_its_base() {
    let world = World::new();
    let base = world.python("homes/alice/.local/share/uv/python/cpython-3.11");
    world.write("homes/alice/other/venv/pyvenv.cfg", format!("home = {}\n", base.parent().unwrap().display()));
    fs::create_dir_all(world.home.join("other/venv/bin")).unwrap();
    let python = world.home.join("other/venv/bin/python");
    symlink(&base, &python).unwrap();
    let plan = world.command(3, &format!("[{}, x.py]", python.display())).unwrap();
    assert_eq!(plan.program, base.canonicalize().unwrap());
    assert_eq!(plan.argv[0], python.display().to_string());
    assert_eq!(world.readable(&plan), ["homes/alice/.local/share/uv/python/cpython-3.11", "homes/alice/other/venv"]);
}

#[test]
fn an_installation_is_never_a_home_or_a_shared_dot_folder() {
    let world = World::new();
    // ~/bin/tool: the prefix would be the home.
    let tool = world.program("homes/alice/bin/tool", elf());
    let plan = world.command(3, &format!("[{}]", tool.display())).unwrap();
    assert_eq!(world.readable(&plan), ["homes/alice/bin/tool"]);
    // A python right in the home, or in ~/.local, brings its library and nothing else.
    for prefix in ["homes/alice", "homes/alice/.local", "homes"] {
        let world = World::new();
        let python = world.python(prefix);
        let plan = world.command(3, &format!("[{}]", python.display())).unwrap();
        let expected =
            [format!("{prefix}/bin/python3"), format!("{prefix}/bin/python3.11"), format!("{prefix}/lib/python3.11")];
        assert_eq!(world.readable(&plan), expected);
    }
    // A pyvenv.cfg can say anything.
    world.write("homes/alice/project/venv/pyvenv.cfg", format!("home = {}\n", world.home.join(".ssh").display()));
    world.program("homes/alice/project/venv/bin/python", elf());
    let plan = world.command(3, "[venv/bin/python]").unwrap();
    assert_eq!(world.readable(&plan), Vec::<String>::new());
    // A venv whose python is a link into a home's own bin.
    fs::create_dir_all(world.home.join("project/v2/bin")).unwrap();
    world.write("homes/alice/project/v2/pyvenv.cfg", format!("home = {}\n", world.home.join("bin").display()));
    symlink(&tool, world.project.join("v2/bin/python")).unwrap();
    let plan = world.command(3, "[v2/bin/python]").unwrap();
    assert_eq!(world.readable(&plan), ["homes/alice/bin/tool"]);
}

#[test]
fn a_node_script_brings_its_node_modules() {
    let world = World::new();
    world.write("homes/alice/.nvm/v20/include/node/node.h", "");
    let node = world.program("homes/alice/.nvm/v20/bin/node", elf());
    let script = world.program("homes/alice/tools/node_modules/cli/main.js", format!("#!{}\n", node.display()));
    let plan = world.command(3, &format!("[{}]", script.display())).unwrap();
    assert_eq!(world.readable(&plan), ["homes/alice/.nvm/v20", "homes/alice/tools/node_modules"]);
}

#[test]
fn a_script_named_as_an_argument_elsewhere_is_not_opened_by_itself() {
    let world = World::new();
    let bin = world.root.join("srv/bin");
    world.program("srv/bin/python3", elf());
    let key = world.write("homes/alice/.ssh/id", "key");
    let command = format!("[python3, -u, {}]", key.display());
    let text = message(world.command_in_path(&[&bin], &command), 77);
    assert!(text.contains("the script") && text.contains("it is in the home"), "{text}");
    world.write("homes/alice/project/x.py", "");
    let plan = world.command_in_path(&[&bin], "[python3, -u, x.py]").unwrap();
    assert_eq!(plan.script, Some(world.project.join("x.py")), "what is read counts for the program's hash");
    world.operator(&format!(
        "version: 1\nkind: operator\nagents:\n  a:\n    file: {}/agent.yaml\n    read: [{}]\n",
        world.project.display(),
        key.display()
    ));
    let plan = world.command_in_path(&[&bin], &command).unwrap();
    assert!(world.readable(&plan).contains(&"homes/alice/.ssh/id".to_owned()), "granted, so it can be read");
    world.command_in_path(&[&bin], "[python3, -m, json.tool]").unwrap();
}

#[test]
fn a_relative_path_entry_never_finds_a_program() {
    let mut world = World::new();
    world.program("homes/alice/project/date", elf());
    world.around.env.insert("PATH".to_owned(), ".:project::/usr/bin".to_owned());
    let plan = agent_from_command(vec!["date".to_owned()], &world.around, None, &Overrides::default()).unwrap();
    assert_eq!(plan.program, Path::new("/usr/bin/date"));
}

#[test]
fn a_command_line_needs_no_file() {
    let world = World::new();
    let script = world.write("homes/alice/project/my_agent.py", "");
    let bin = world.root.join("srv/bin");
    world.program("srv/bin/python3", elf());
    let mut around = world.around.clone();
    around.env.insert("PATH".to_owned(), format!("{}:/usr/bin", bin.display()));
    let overrides = Overrides { ring: Some(Ring::R2), ..Overrides::default() };
    let words = ["python3", "my_agent.py", "a b"].map(str::to_owned).to_vec();
    let plan = agent_from_command(words, &around, None, &overrides).unwrap();
    assert!(plan.name().starts_with("my-agent-"), "{}", plan.name());
    assert_eq!(plan.ceiling, Ring::R2);
    assert_eq!((&plan.identity.source, &plan.workdir), (&script, &world.project));
    assert_eq!(plan.argv[1..], ["my_agent.py", "a b"]);
    // Without --ring: the narrowest.
    let plan = agent_from_command(vec!["/bin/date".to_owned()], &around, None, &Overrides::default()).unwrap();
    assert_eq!(plan.ceiling, Ring::R3);
    let none = agent_from_command(vec!["nope".to_owned()], &around, None, &Overrides::default());
    let text = message(none, 127);
    assert!(text.starts_with("error: the program `nope` was not found"), "{text}");
    assert!(text.contains("your PATH is") && !text.contains("env:"), "there is no file to write that into: {text}");
    around.cwd.clone_from(&world.home);
    let home = agent_from_command(vec!["date".to_owned()], &around, None, &Overrides::default());
    assert!(message(home, 77).contains("it is a home"));
}

#[test]
fn a_derived_name_is_the_same_for_the_same_program_and_another_for_another() {
    let world = World::new();
    for folder in ["one", "two"] {
        world.write(format!("homes/alice/project/{folder}/main.py"), "");
    }
    world.program("srv/bin/python3", elf());
    let mut around = world.around.clone();
    around.env.insert("PATH".to_owned(), format!("{}:/usr/bin", world.root.join("srv/bin").display()));
    let named = |script: &str, name: Option<&str>| {
        let overrides = Overrides { name: name.map(AgentName::from_words), ..Overrides::default() };
        let words = vec!["python3".to_owned(), script.to_owned()];
        agent_from_command(words, &around, None, &overrides).unwrap().identity.name
    };
    let (one, two) = (named("one/main.py", None), named("two/main.py", None));
    assert!(one.starts_with("main-") && two.starts_with("main-") && one.len() == "main-".len() + 6, "{one} {two}");
    assert_ne!(one, two);
    assert_ne!(one, "main", "an agent.yaml of that name is another agent");
    assert_eq!(one, named("./one/../one/main.py", None));
    assert_eq!(named("one/main.py", Some("trial")), "trial");
}

#[test]
fn a_typed_ring_lowers_a_files_ceiling_and_never_raises_it() {
    let world = World::new();
    for (file, typed, expected, noted) in [
        ("ring: 3\n", Ring::R2, Ring::R3, true),
        ("", Ring::R1, Ring::R3, true),
        ("ring: 2\n", Ring::R0, Ring::R2, true),
        ("ring: 1\n", Ring::R2, Ring::R2, false),
        ("ring: 2\n", Ring::R2, Ring::R2, false),
    ] {
        let overrides = Overrides { ring: Some(typed), ..Overrides::default() };
        let plan = world.load_with(&minimal(file), &overrides).unwrap();
        assert_eq!(plan.ceiling, expected, "{file:?} with --ring {typed}");
        let says = plan.notes.iter().any(|note| note.contains("has no effect") && note.contains(&expected.to_string()));
        assert_eq!(says, noted, "{:?}", plan.notes);
    }
}
