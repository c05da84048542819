//! Which files belong to a program: what it may read without being asked.
//!
//! The rule is narrow because an agent.yaml from a stranger can name any program: only trees that carry the landmark of
//! an installation count (`pyvenv.cfg`, `lib/python3.x/os.py`, `include/node`, `node_modules`), and never a home, a
//! dot-folder that holds more than the installation, or anything of ours. Of a plain program, only the file itself.

use std::fs;
use std::path::{Path, PathBuf};

use super::Context;
use super::program::{Found, Program, Search};
use crate::config::grant::Right;
use crate::config::source::{MAX_BYTES, small_text};
use crate::config::tree::KeyPath;
use crate::config::zones::Zones;

/// Programs that read a script named as their first argument.
const INTERPRETERS: [&str; 12] =
    ["bash", "bun", "dash", "deno", "lua", "node", "nodejs", "perl", "php", "python", "ruby", "sh"];

/// Whether a program of this name reads a script named as its first argument.
pub(in crate::config) fn is_interpreter(name: &str) -> bool {
    interpreter(name).is_some()
}

/// The interpreter that a program's name stands for: `python3.11` is `python`.
fn interpreter(name: &str) -> Option<&'static str> {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let bare = if bare == "pypy" { "python" } else { bare };
    INTERPRETERS.into_iter().find(|known| *known == bare)
}

/// The installation of a program: files and folders that are not readable anyway.
pub(super) fn of(zones: &Zones, found: &Found, search: &Search<'_>) -> Vec<PathBuf> {
    let mut trees = vec![found.program.clone()];
    let as_found = Path::new(found.words.first().map_or("", String::as_str));
    let name = found.program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match interpreter(name) {
        Some("python") => {
            venv(zones, as_found, &mut trees);
            if let Some(prefix) = prefix_of(&found.program) {
                python_prefix(zones, prefix, &mut trees);
            }
        }
        Some("node" | "nodejs") => {
            if let Some(prefix) = prefix_of(&found.program) {
                node_prefix(zones, prefix, &mut trees);
            }
        }
        Some(_) => {
            // ruby, perl and the like keep their library below `lib`.
            if let Some(prefix) = prefix_of(&found.program).filter(|prefix| prefix.join("lib").join(name).is_dir()) {
                trees.push(prefix.join("lib").join(name));
            }
        }
        None => {
            // Packages of /opt are folders of their own.
            if let Some(prefix) = prefix_of(&found.program).filter(|prefix| prefix.starts_with("/opt")) {
                trees.push(prefix.to_path_buf());
            }
        }
    }
    // The link by which it was found, when it is not inside one of the trees.
    if as_found.is_absolute() {
        trees.push(as_found.to_path_buf());
    }
    for script in found.script.iter().cloned().chain(script_argument(found, search)) {
        if let Some(modules) = outermost_modules(&script) {
            trees.push(modules);
        }
        // A script that was only named as an argument is not part of an installation: see check_script_argument.
        if found.script.as_ref() == Some(&script) {
            trees.push(script);
        }
    }
    tidy(zones, trees, search)
}

fn tidy(zones: &Zones, mut trees: Vec<PathBuf>, search: &Search<'_>) -> Vec<PathBuf> {
    trees.retain(|tree| {
        let whole_folder_ok = !tree.is_dir() || zones.can_be_installation(tree);
        let free = tree.starts_with(search.workdir) || zones.read_objection(tree).is_none();
        whole_folder_ok && !free && !zones.is_ours(tree)
    });
    trees.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for tree in trees {
        if !kept.iter().any(|outer| tree.starts_with(outer)) {
            kept.push(tree);
        }
    }
    kept
}

/// `P` of `P/bin/program`.
fn prefix_of(program: &Path) -> Option<&Path> {
    let folder = program.parent()?;
    (folder.file_name()? == "bin").then(|| folder.parent()).flatten()
}

/// The venv that a python was found in, and the python below it.
fn venv(zones: &Zones, as_found: &Path, trees: &mut Vec<PathBuf>) {
    let Some(root) = prefix_of(as_found) else { return };
    let Some(config) = small_text(&root.join("pyvenv.cfg"), MAX_BYTES) else { return };
    trees.push(root.to_path_buf());
    // `home = /usr/local/bin`: the folder of the python that the venv was made with. It is text that anybody can write,
    // so it only counts where a real python stands with its library.
    let home = config.lines().find_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == "home"));
    if let Some((_, home)) = home
        && let Ok(home) = Path::new(home.trim()).canonicalize()
        && home.file_name().is_some_and(|name| name == "bin")
        && home.join("python3").exists()
        && let Some(prefix) = home.parent()
    {
        python_prefix(zones, prefix, trees);
    }
}

/// The library of a python: the whole prefix where that holds nothing else, its parts where it is shared.
fn python_prefix(zones: &Zones, prefix: &Path, trees: &mut Vec<PathBuf>) {
    let libraries: Vec<PathBuf> = ["lib", "lib64"]
        .iter()
        .filter_map(|lib| fs::read_dir(prefix.join(lib)).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| path.join("os.py").is_file())
        .collect();
    if libraries.is_empty() {
        return;
    }
    if zones.can_be_installation(prefix) {
        trees.push(prefix.to_path_buf());
        return;
    }
    trees.extend(libraries);
}

fn node_prefix(zones: &Zones, prefix: &Path, trees: &mut Vec<PathBuf>) {
    let is_node = prefix.join("include/node/node.h").is_file();
    if is_node && zones.can_be_installation(prefix) {
        trees.push(prefix.to_path_buf());
    } else if prefix.join("lib/node_modules").is_dir() {
        trees.push(prefix.join("lib/node_modules"));
    }
}

/// The `node_modules` that holds a script with all that it needs: the outermost one, where dependencies are hoisted to.
fn outermost_modules(script: &Path) -> Option<PathBuf> {
    let inside =
        script.ancestors().filter(|folder| folder.file_name().is_some_and(|name| name == "node_modules")).last();
    inside.map(Path::to_path_buf)
}

/// The file that an interpreter is told to read: the first argument that is no option.
fn script_argument(found: &Found, search: &Search<'_>) -> Option<PathBuf> {
    argument_of(&found.program, &found.words, search)
}

pub(super) fn argument_of(program: &Path, argv: &[String], search: &Search<'_>) -> Option<PathBuf> {
    let name = program.file_name()?.to_str()?;
    interpreter(name)?;
    let mut words = argv.iter().skip(1);
    let first = loop {
        let word = words.next()?;
        match word.as_str() {
            // Code or a module follows, no file.
            "-c" | "-m" | "-e" | "-p" | "--eval" | "--print" | "-" => return None,
            // Options with a value of their own.
            "-W" | "-X" | "-r" | "--require" | "--import" | "--loader" | "-I" => drop(words.next()),
            "run" if matches!(name, "deno" | "bun") => {}
            option if option.starts_with('-') => {}
            other => break other,
        }
    };
    let script = search.workdir.join(first).canonicalize().ok()?;
    script.is_file().then_some(script)
}

/// A script outside of everything readable would only fail inside the ring, with a message of the interpreter's: say it
/// here, and open it once an operator allows it. It is not opened by itself, or `command: [python3,
/// /home/you/.ssh/id_rsa]` would open that.
pub(super) fn granted_script(context: &mut Context<'_>, search: &Search<'_>, program: &Program) -> Option<PathBuf> {
    let script = argument_of(&program.program, &program.argv, search)?;
    let free = script.starts_with(search.workdir)
        || program.script.as_ref() == Some(&script)
        || program.installation.iter().any(|tree| script.starts_with(tree));
    let declared = context.spec.files.read.iter().chain(&context.spec.files.write).any(|text| {
        let path = context.origin.folder.join(text).canonicalize();
        path.is_ok_and(|path| script.starts_with(path))
    });
    let why = context.zones.read_objection(&script).filter(|_| !free && !declared)?;
    if context.zones.is_ours(&script) {
        let message = format!("{} belongs to the supervisor: no agent reaches it", script.display());
        context.never(&KeyPath::of("command"), message, "no line of the operator's file opens it");
        return None;
    }
    if !context.rights.may_read(&script) {
        let message = format!("the script {} needs an operator's line: {why}", script.display());
        context.needs_operator(&KeyPath::of("command"), message, Right::Read(script.clone()));
    }
    Some(script)
}
