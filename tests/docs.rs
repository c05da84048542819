//! What the documents say is run: every ```` ```console ```` block of the README, of docs/ and of the examples.
//!
//! A block's lines with `$ ` are commands, run from the top of a copy of the tree by one shell; its other lines must come
//! out of them. ```` ```console exit=76 ```` says that the last command ends with that code (else 0), `needs=root` that it is
//! skipped for others. ```` ```text ```` blocks are shown, not run. The files of the examples are held to the schema here too, also misspelt.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::real_agents::{NODE, PYTHON, Packages};
use crate::support::{Outcome, PATIENCE, Rig, binary, is_root, side_by_side, skip};

/// The port that the documents name; each test puts a free one in its place.
const DOCUMENTED_PORT: &str = "8099";

/// A block to run.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    exit: i32,
    root: bool,
    commands: Vec<String>,
    output: Vec<String>,
}

/// The console blocks of a document.
fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut inside: Option<Option<Block>> = None;
    for (number, text) in document.lines().enumerate() {
        let fence = text.trim_start().strip_prefix("```");
        match (&mut inside, fence) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace();
                inside = Some((words.next() == Some("console")).then(|| {
                    let (mut exit, mut root) = (0, false);
                    for word in words {
                        match word.split_once('=').unwrap() {
                            ("exit", code) => exit = code.parse().unwrap(),
                            ("needs", "root") => root = true,
                            other => panic!("line {}: {other:?} means nothing here", number + 1),
                        }
                    }
                    Block { line: number + 1, exit, root, commands: Vec::new(), output: Vec::new() }
                }));
            }
            (Some(_), Some(_)) => found.extend(inside.take().flatten()),
            (Some(Some(block)), None) => match text.trim_start().strip_prefix("$ ") {
                Some(command) => block.commands.push(command.to_owned()),
                None => block.output.push(text.trim().to_owned()),
            },
            (Some(None) | None, None) => {}
        }
    }
    assert!(inside.is_none(), "a block is not closed");
    found
}

fn tree() -> PathBuf {
    std::env::var_os("AGT_TEST_TREE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned(), PathBuf::from)
}

/// Folders that a reader's own try has left in the tree, and that are not ours to copy.
const INSTALLED: [&str; 2] = ["node_modules", ".venv"];

/// Copies the examples; the documented port becomes `port`.
pub fn copy_tree(from: &Path, to: &Path, port: u16) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if INSTALLED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target, port);
            continue;
        }
        fs::copy(entry.path(), &target).unwrap();
        if let Ok(text) = fs::read_to_string(&target)
            && text.contains(DOCUMENTED_PORT)
        {
            fs::write(&target, text.replace(DOCUMENTED_PORT, &port.to_string())).unwrap();
        }
    }
}

/// An operator's file that a group may write, as a checkout with umask 002 leaves it, is not believed.
pub fn only_its_owner_writes(operator: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(operator, fs::Permissions::from_mode(0o644)).unwrap();
}

pub fn only_its_owner_reads(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a documented command means here; `None`: it is not run.
fn translated(command: &str, rig: &Rig) -> Option<String> {
    // The test that would run this test, and what stands beside the product.
    if ["cargo test", "cargo bench", ".ci/"].iter().any(|start| command.starts_with(start)) {
        return None;
    }
    // The packages come from the cache that CI filled with the same commands.
    if let Some(rest) = command.strip_prefix("npm install --prefix ") {
        Packages::installed(NODE).unwrap().put_into(&rig.work.join(rest.split_whitespace().next().unwrap()));
        return None;
    }
    if let Some(venv) = command.strip_prefix("python3 -m venv ") {
        Packages::installed(PYTHON).unwrap().put_into(rig.work.join(venv).parent().unwrap());
        return None;
    }
    if command.contains("/pip install ") {
        return None;
    }
    let command = command.replace("cargo run --release -- ", "agt-supervise ");
    let first = command.split_whitespace().next().unwrap();
    assert!(
        ["agt-supervise", "chmod", "python3", "until"].contains(&first),
        "the tests don't know how to run `{command}`"
    );
    Some(command)
}

/// Packages that a document installs and this machine doesn't have.
fn missing(document: &str) -> Option<&'static str> {
    let wanted = [("npm install ", NODE), ("pip install ", PYTHON)];
    wanted
        .into_iter()
        .find(|(text, kind)| document.contains(text) && Packages::installed(*kind).is_none())
        .map(|(_, kind)| kind.name)
}

/// Runs one block as one shell; what it leaves running in the background is ended with it.
fn run(block: &Block, rig: &Rig) -> Option<Outcome> {
    let mut script =
        "set -e\ntrap 'code=$?; kill $(jobs -p) 2>/dev/null || :; wait || :; exit $code' EXIT\n".to_owned();
    let commands: Vec<String> = block.commands.iter().filter_map(|command| translated(command, rig)).collect();
    for command in &commands {
        writeln!(script, "{command}").unwrap();
    }
    if commands.is_empty() {
        return None;
    }
    let bin = rig.dir.path().join("bin");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args([&PATIENCE.as_secs().to_string(), "bash", "-c", &script])
        .current_dir(&rig.work)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Some(Outcome::from(output))
}

/// A copy of the tree and an `agt-supervise` in PATH that keeps its state in the rig.
fn checkout(rig: &Rig) {
    use std::os::unix::fs::PermissionsExt;
    copy_tree(&tree().join("examples"), &rig.work.join("examples"), free_port());
    let bin = rig.dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let program = bin.join("agt-supervise");
    let (binary, state) = (binary(), rig.state.clone());
    let text = format!("#!/bin/sh\nexec '{}' --state-dir '{}' \"$@\"\n", binary.display(), state.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run_document(test: &str, relative: &str) {
    let document = fs::read_to_string(tree().join(relative)).unwrap();
    if let Some(kind) = missing(&document) {
        return skip(test, &format!("the {kind} packages are not installed (.ci/run installs them)"));
    }
    let rig = Rig::new();
    checkout(&rig);
    // An example's own copy names the port that is used here.
    let document = fs::read_to_string(rig.work.join(relative)).unwrap_or(document);
    for block in blocks(&document) {
        if block.root && !is_root() {
            skip(test, &format!("line {} needs root", block.line));
            continue;
        }
        let Some(outcome) = run(&block, &rig) else { continue };
        let shown = format!("{relative}:{}\n{}\n{}", block.line, outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code, block.exit, "{shown}");
        for line in &block.output {
            assert!(outcome.stdout.contains(line) || outcome.stderr.contains(line), "no `{line}` in {shown}");
        }
    }
}

/// Every document, relative to the tree.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![tree().join("docs")];
    folders.extend(folders_of_examples());
    for folder in folders {
        let entries = fs::read_dir(&folder).into_iter().flatten().map(Result::unwrap);
        found.extend(entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    let top = fs::read_dir(tree()).unwrap().map(|entry| entry.unwrap().path());
    found.extend(top.filter(|path| path.extension().is_some_and(|e| e == "md")));
    let mut names: Vec<String> =
        found.iter().map(|path| path.strip_prefix(tree()).unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

fn folders_of_examples() -> Vec<PathBuf> {
    let entries = fs::read_dir(tree().join("examples")).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[test]
fn blocks_are_found_with_their_commands_output_and_code() {
    let document = "a\n```console exit=76\n$ agt-supervise x\nout\n```\n```text\n$ not run\n```\n";
    let block = Block {
        line: 2,
        exit: 76,
        root: false,
        commands: vec!["agt-supervise x".to_owned()],
        output: vec!["out".to_owned()],
    };
    assert_eq!(blocks(document), [block]);
}

#[test]
fn every_block_of_every_document_is_marked() {
    for name in documents() {
        let text = fs::read_to_string(tree().join(&name)).unwrap();
        let fences = text.lines().filter_map(|line| line.trim_start().strip_prefix("```"));
        for info in fences.step_by(2) {
            assert!(!info.trim().is_empty(), "{name}: a block says neither `console` nor what else it is");
        }
    }
}

#[test]
fn the_examples_readmes_do_what_they_say() {
    let names = documents();
    assert!(names.iter().filter(|name| name.starts_with("examples/")).count() >= 4, "{names:?}");
    side_by_side(names.iter().filter(|name| name.starts_with("examples/")), 3, |name| run_document(name, name));
}

#[test]
fn the_other_documents_do_what_they_say() {
    let names = documents();
    side_by_side(names.iter().filter(|name| !name.starts_with("examples/")), 3, |name| run_document(name, name));
}

/// The files of a kind in the examples.
fn files(name: &str) -> Vec<PathBuf> {
    folders_of_examples().into_iter().map(|folder| folder.join(name)).filter(|file| file.exists()).collect()
}

#[test]
fn every_examples_file_passes_the_check() {
    let rig = Rig::new();
    checkout(&rig);
    for file in files("agent.yaml") {
        let folder = file.parent().unwrap();
        if let Some(kind) = missing(&fs::read_to_string(folder.join("README.md")).unwrap()) {
            skip("every_examples_file_passes_the_check", &format!("the {kind} packages are not installed"));
            continue;
        }
        let copy = rig.work.join("examples").join(folder.file_name().unwrap());
        for kind in [NODE, PYTHON] {
            if fs::read_to_string(folder.join("README.md")).unwrap().contains(kind.install) {
                Packages::installed(kind).unwrap().put_into(&copy);
            }
        }
        let mut args = vec!["check".to_owned(), copy.join("agent.yaml").display().to_string()];
        let operator = copy.join("operator.yaml");
        if operator.exists() {
            only_its_owner_writes(&operator);
            if copy.join("prices.yaml").exists() {
                only_its_owner_writes(&copy.join("prices.yaml"));
            }
            args.extend(["--operator".to_owned(), operator.display().to_string()]);
        }
        let outcome = rig.output(&args);
        assert_eq!(outcome.code, 0, "{}: {}", file.display(), outcome.stderr);
    }
}

/// Where keys stand in a YAML text: `(line, from, to)` in bytes.
fn keys(text: &str) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.split(" #").next().unwrap();
        if content.trim_start().starts_with('#') {
            continue;
        }
        for (colon, _) in content.match_indices(':') {
            let after = &content[colon + 1..];
            let start = content[..colon].rfind(|c: char| !(c.is_ascii_lowercase() || c == '_')).map_or(0, |at| at + 1);
            if start < colon && (after.is_empty() || after.starts_with(' ')) {
                found.push((number, start, colon));
            }
        }
    }
    found
}

/// One letter dropped, two swapped, one doubled: at the start, in the middle, at the end of a word.
fn misspellings(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut all = Vec::new();
    for at in [0, letters.len() / 2, letters.len() - 1] {
        let mut dropped = letters.clone();
        dropped.remove(at);
        let mut doubled = letters.clone();
        doubled.insert(at, letters[at]);
        let mut swapped = letters.clone();
        swapped.swap(at.saturating_sub(1), at.max(1).min(letters.len() - 1));
        all.extend([dropped, doubled, swapped].map(String::from_iter));
    }
    all.retain(|misspelt| misspelt != word && !misspelt.is_empty());
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_misspelt_key_anywhere_in_an_example_starts_nothing() {
    let rig = Rig::new();
    checkout(&rig);
    let mut tried = 0;
    for file in files("agent.yaml") {
        let text = fs::read_to_string(&file).unwrap();
        let copy = rig.work.join("examples").join(file.parent().unwrap().file_name().unwrap()).join("agent.yaml");
        for (number, from, to) in keys(&text) {
            let line = text.lines().nth(number).unwrap();
            for misspelt in misspellings(&line[from..to]) {
                let changed = format!("{}{misspelt}{}", &line[..from], &line[to..]);
                let lines = text.lines().enumerate().map(|(at, line)| if at == number { &changed } else { line });
                fs::write(&copy, lines.collect::<Vec<&str>>().join("\n")).unwrap();
                let outcome = rig.output(["run".as_ref(), copy.as_os_str()]);
                let shown = format!("{}: `{changed}`: {}", file.display(), outcome.stderr);
                assert_eq!(outcome.code, 64, "{shown}");
                assert!(!rig.state.exists(), "something was begun: {shown}");
                assert!(outcome.stderr.contains(&misspelt), "the message does not name it: {shown}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "only {tried} misspellings were tried");
}

/// Groups whose keys people choose: there a misspelling is another name.
const FREE: [&str; 6] = ["steps", "inputs", "env", "agents", "rings", "providers"];

/// Whether the key that begins a line is one that people choose: by the nearest line above that is indented less.
fn is_free(text: &str, number: usize, from: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = indent(lines[number]);
    let parent = lines[..number].iter().rev().find(|line| !line.trim().is_empty() && indent(line) < own);
    from == own && parent.is_some_and(|line| FREE.contains(&line.trim().trim_end_matches(':')))
}

#[test]
fn a_misspelt_key_in_a_saga_an_experiment_or_an_operators_file_starts_nothing() {
    let rig = Rig::new();
    checkout(&rig);
    let mut tried = 0;
    for (name, verb) in [
        ("saga.yaml", vec!["saga", "run"]),
        ("chaos.yaml", vec!["chaos", "run"]),
        ("operator.yaml", vec!["run", "agent.yaml", "--operator"]),
    ] {
        for file in files(name) {
            let text = fs::read_to_string(&file).unwrap();
            let folder = rig.work.join("examples").join(file.parent().unwrap().file_name().unwrap());
            let copy = folder.join(name);
            for (number, from, to) in keys(&text) {
                let line = text.lines().nth(number).unwrap();
                let word = &line[from..to];
                for misspelt in misspellings(word).into_iter().filter(|_| !is_free(&text, number, from)) {
                    let changed = format!("{}{misspelt}{}", &line[..from], &line[to..]);
                    let lines = text.lines().enumerate().map(|(at, line)| if at == number { &changed } else { line });
                    fs::write(&copy, lines.collect::<Vec<&str>>().join("\n")).unwrap();
                    only_its_owner_writes(&copy);
                    let mut command = rig.command(verb.iter().copied().chain([name]));
                    let outcome = Outcome::from(command.current_dir(&folder).output().unwrap());
                    let shown = format!("{}: `{changed}`: {}", file.display(), outcome.stderr);
                    assert_eq!(outcome.code, 64, "{shown}");
                    assert!(!rig.state.exists(), "something was begun: {shown}");
                    assert!(outcome.stderr.contains(&misspelt), "the message does not name it: {shown}");
                    let suggests =
                        outcome.stderr.contains("did you mean") && outcome.stderr.contains(&format!("`{word}`"));
                    assert!(suggests, "no right suggestion: {shown}");
                    tried += 1;
                }
            }
            fs::write(&copy, text).unwrap();
        }
    }
    assert!(tried > 300, "only {tried} misspellings were tried");
}
