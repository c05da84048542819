//! From the words of a command to the one program that the kernel starts.
//!
//! A ring that lets a program start exactly once can't start a script, an `env` or a version manager's shim: each of
//! them starts something else. So the chain is walked here, as the kernel and the shims would, and the plan names the
//! interpreter itself. What can't be followed is refused with the command line to write instead.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agt_rings::Ring;

use super::shebang::{Head, head, interpreter_for};
use super::{Context, installation, packages, shims, strangers};
use crate::config::diagnostic::{Class, Problem};
use crate::config::plan::EnvValue;
use crate::config::tree::KeyPath;
use crate::config::validate::is_env_name;

/// Longest chain of scripts, shims and `env`. The kernel follows four scripts.
const MAX_CHAIN: usize = 8;

/// Programs that exist to start others. In R3, where nothing can be started twice, they can't work.
const LAUNCHERS: [&str; 22] = [
    "bunx", "conda", "corepack", "doas", "flock", "hatch", "make", "mamba", "nice", "nohup", "npm", "pdm", "pipenv",
    "pipx", "pnpm", "poetry", "setsid", "sudo", "timeout", "uv", "uvx", "yarn",
];

/// Where names are looked up.
#[derive(Debug)]
pub(super) struct Search<'a> {
    /// The agent's own PATH.
    pub(super) path: String,
    /// What relative names are relative to.
    pub(super) workdir: &'a Path,
    /// The folder of the agent's file: the top of the project in which packages are looked for.
    pub(super) project: &'a Path,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Links resolved, an ELF file.
    pub(super) program: PathBuf,
    /// The program as it was found, then its arguments.
    pub(super) argv: Vec<String>,
    /// The script that is read, if there is one.
    pub(super) script: Option<PathBuf>,
    /// `NAME=value` words of an `env`.
    pub(super) env: Vec<(String, EnvValue)>,
    /// Files and folders of the program's installation that are not free anyway.
    pub(super) installation: Vec<PathBuf>,
}

/// Why there is nothing to start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoProgram {
    #[error("the program `{name}` was not found{}", if *in_path { " in the agent's PATH" } else { "" })]
    NotFound { name: String, in_path: bool },
    #[error("{path}: the interpreter `{interpreter}` of this script was not found")]
    NoInterpreter { path: PathBuf, interpreter: String },
    #[error("{path}: {why}")]
    NotExecutable { path: PathBuf, why: String, instead: String },
    #[error("{what} starts another program, and which one can't be known")]
    Unresolvable { what: String, instead: String },
}

/// Where a program was named: what helps in a file means nothing where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    InAFile,
    OnTheCommandLine,
}

impl NoProgram {
    fn problem(&self, search: &Search<'_>, asked: Asked) -> Problem {
        let (class, label, help) = match self {
            NoProgram::NotFound { name, in_path: true } => {
                let path = &search.path;
                let help = match asked {
                    Asked::InAFile => format!(
                        "install it, write its path in place of `{name}`, or give the agent another PATH (`env: {{pass: [PATH]}}`); PATH is {path}"
                    ),
                    Asked::OnTheCommandLine => {
                        format!("install it, or write its path in place of `{name}`; your PATH is {path}")
                    }
                };
                (Class::NotFound, "not found", help)
            }
            NoProgram::NotFound { .. } => (
                Class::NotFound,
                "not found",
                format!("a relative path starts at the workdir {}", search.workdir.display()),
            ),
            NoProgram::NoInterpreter { interpreter, .. } if interpreter.ends_with('\r') => (
                Class::NotFound,
                "Windows line ends",
                "its first line ends with CR LF: save it with Unix line ends".to_owned(),
            ),
            NoProgram::NoInterpreter { .. } => (
                Class::NotFound,
                "not found",
                "install the interpreter, or put it in front: `command: [python3, agent.py]`".to_owned(),
            ),
            NoProgram::NotExecutable { instead, .. } => (Class::NotExecutable, "can't be started", instead.clone()),
            NoProgram::Unresolvable { instead, .. } => (Class::NotExecutable, "can't be followed", instead.clone()),
        };
        Problem::new(class, self.to_string()).label(label).help(help)
    }
}

/// The agent's own program.
pub(super) fn of_command(context: &mut Context<'_>, search: &Search<'_>) -> Option<Program> {
    let words = context.spec.command.words();
    let path = KeyPath::of("command");
    let mut program = find(context, search, words, &path)?;
    program.installation.extend(installation::granted_script(context, search, &program));
    strangers::may_start(context, &program);
    // What an interpreter is told to read is what is started: it counts for the program's hash.
    program.script =
        program.script.take().or_else(|| installation::argument_of(&program.program, &program.argv, search));
    for (name, _) in &program.env {
        super::env::is_reserved(context, name, &path);
    }
    Some(program)
}

/// The program behind `words`, or a problem at `path`.
pub(super) fn find(
    context: &mut Context<'_>,
    search: &Search<'_>,
    words: &[String],
    path: &KeyPath,
) -> Option<Program> {
    match follow(search, words, context.ceiling) {
        Ok(found) => {
            let installation = installation::of(&context.zones, &found, search);
            Some(Program {
                program: found.program,
                argv: found.words,
                script: found.script,
                env: found.env.into_iter().map(|(name, value)| (name, EnvValue::Plain(value))).collect(),
                installation,
            })
        }
        Err(none) => {
            let asked = if context.origin.document.is_some() { Asked::InAFile } else { Asked::OnTheCommandLine };
            context.problem(path, none.problem(search, asked));
            None
        }
    }
}

/// A chain followed to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The ELF file, links resolved.
    pub(super) program: PathBuf,
    /// `argv`; the first word is the program as it was found, with its folder resolved and its own link kept.
    pub(super) words: Vec<String>,
    /// The script that the interpreter reads.
    pub(super) script: Option<PathBuf>,
    /// Variables that an `env` set on the way.
    pub(super) env: Vec<(String, String)>,
}

/// Follows scripts, `env` and shims to the program that is really started.
pub(super) fn follow(search: &Search<'_>, words: &[String], ring: Ring) -> Result<Found, NoProgram> {
    let mut words = words.to_vec();
    let mut script: Option<PathBuf> = None;
    let mut env: Vec<(String, String)> = Vec::new();
    for _ in 0..MAX_CHAIN {
        let name = words.first().cloned().unwrap_or_default();
        let path = env.iter().rev().find(|(key, _)| key == "PATH").map_or(search.path.as_str(), |(_, path)| path);
        let found = locate(&name, path, search.workdir).map_err(|none| match (&script, none) {
            (Some(script), NoProgram::NotFound { name, .. }) => {
                NoProgram::NoInterpreter { path: script.clone(), interpreter: name }
            }
            (_, none) => none,
        })?;
        if let Some(real) = shims::follow(&found, search, path)? {
            words[0] = text(&real)?;
            continue;
        }
        if let Some(rest) = packages::follow_npx(&found, &words, search)? {
            words = rest;
            continue;
        }
        if let Some(rest) = follow_env(&found, &words, &mut env, ring)? {
            words = rest;
            continue;
        }
        let program = executable(&found)?;
        match head(&program)? {
            Head::Elf => {
                launcher(&found, ring, &words)?;
                words[0] = text(&found)?;
                return Ok(Found { program, words, script, env });
            }
            Head::Script { interpreter, argument } => {
                let mut next = vec![interpreter];
                next.extend(argument);
                next.push(text(&found)?);
                next.extend(words.drain(1..));
                words = next;
                script = script.or(Some(program));
            }
        }
    }
    let what = format!("`{}`: more than {MAX_CHAIN} scripts in a row", words.first().map_or("", String::as_str));
    Err(NoProgram::Unresolvable { what, instead: "name the last interpreter itself".to_owned() })
}

fn text(path: &Path) -> Result<String, NoProgram> {
    let not_text = || NoProgram::NotExecutable {
        path: path.to_path_buf(),
        why: "its path is not UTF-8".to_owned(),
        instead: "rename it".to_owned(),
    };
    path.to_str().map(str::to_owned).ok_or_else(not_text)
}

/// The file that a name stands for: a path as it is, a bare name by PATH. Its folder is resolved, its own last link is
/// kept (a venv's `python` is a link, and knows its venv by its name).
fn locate(name: &str, path: &str, workdir: &Path) -> Result<PathBuf, NoProgram> {
    let tidy = |found: &Path| match (found.parent().and_then(|folder| folder.canonicalize().ok()), found.file_name()) {
        (Some(folder), Some(file)) => folder.join(file),
        _ => found.to_path_buf(),
    };
    if name.contains('/') {
        let found = workdir.join(name);
        return if found.exists() {
            Ok(tidy(&found))
        } else {
            Err(NoProgram::NotFound { name: name.to_owned(), in_path: false })
        };
    }
    let mut not_executable = None;
    for folder in path.split(':').filter(|folder| folder.starts_with('/')) {
        let found = Path::new(folder).join(name);
        match executable(&found) {
            Ok(_) => return Ok(tidy(&found)),
            Err(_) if found.is_file() => not_executable = not_executable.or(Some(found)),
            Err(_) => {}
        }
    }
    match not_executable {
        Some(found) => Ok(tidy(&found)),
        None => Err(NoProgram::NotFound { name: name.to_owned(), in_path: true }),
    }
}

/// The resolved file, if it is one that can be executed.
fn executable(found: &Path) -> Result<PathBuf, NoProgram> {
    let refuse = |why: String, instead: &str| {
        Err(NoProgram::NotExecutable { path: found.to_path_buf(), why, instead: instead.to_owned() })
    };
    let resolved = match found.canonicalize() {
        Ok(resolved) => resolved,
        Err(error) => return refuse(format!("it can't be looked up: {error}"), "check the path"),
    };
    let metadata = match resolved.metadata() {
        Ok(metadata) => metadata,
        Err(error) => return refuse(format!("it can't be looked up: {error}"), "check the path"),
    };
    if metadata.is_dir() {
        return refuse("this is a folder, not a program".to_owned(), "name the program in it");
    }
    if !metadata.is_file() {
        return refuse("this is not a regular file".to_owned(), "name a program");
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        let name = found.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let instead = match interpreter_for(&name) {
            Some(interpreter) => format!("write `command: [{interpreter}, {name}]`, or `chmod +x {}`", found.display()),
            None if is_program(&resolved) => format!("chmod +x {}", found.display()),
            None => "name a program: this file is neither a binary nor a script with a `#!` line".to_owned(),
        };
        return refuse("it is not executable".to_owned(), &instead);
    }
    Ok(resolved)
}

/// Whether a file begins as something that the kernel can execute: execve(2) knows ELF and `#!`.
fn is_program(path: &Path) -> bool {
    use std::io::Read as _;
    let mut first = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(4).read_to_end(&mut first));
    read.is_ok() && (first.starts_with(b"#!") || first == b"\x7fELF")
}

/// `env NAME=value PROGRAM ...` without `env`. `None` when this is no env, or (R0 to R2) one with options of its own,
/// which then runs as a program.
fn follow_env(
    found: &Path,
    words: &[String],
    env: &mut Vec<(String, String)>,
    ring: Ring,
) -> Result<Option<Vec<String>>, NoProgram> {
    if found.file_name().is_none_or(|name| name != "env") {
        return Ok(None);
    }
    let mut rest: Vec<String> = words[1..].to_vec();
    // From a `#!` line everything comes as one word: `-S python3 -u`.
    let split = rest.first().and_then(|word| word.strip_prefix("-S").or_else(|| word.strip_prefix("--split-string=")));
    if let Some(line) = split {
        let line = if line.trim().is_empty() && rest.len() > 1 { rest.remove(1) } else { line.to_owned() };
        let Ok(parts) = crate::config::spec::split_words(&line) else {
            let instead = "name the interpreter in the command".to_owned();
            return Err(NoProgram::Unresolvable { what: format!("`env -S {line}`"), instead });
        };
        rest.splice(0..1, parts);
    }
    while let Some((name, value)) = rest.first().and_then(|word| word.split_once('=')) {
        if !is_env_name(name) {
            break;
        }
        env.push((name.to_owned(), value.to_owned()));
        rest.remove(0);
    }
    match rest.first() {
        Some(word) if word.starts_with('-') && ring == Ring::R3 => Err(NoProgram::Unresolvable {
            what: format!("`env {word}`"),
            instead: "leave `env` out: the environment is clean, and `env: {set: ...}` sets variables".to_owned(),
        }),
        Some(word) if word.starts_with('-') => Ok(None),
        Some(_) => Ok(Some(rest)),
        None => Ok(None),
    }
}

/// In R3 a program that only starts another can't work: say so before it dies of it.
fn launcher(found: &Path, ring: Ring, words: &[String]) -> Result<(), NoProgram> {
    let name = found.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if ring != Ring::R3 || !LAUNCHERS.contains(&name) {
        return Ok(());
    }
    let rest = words.iter().skip(1).skip_while(|word| word.starts_with('-') || *word == "run");
    let rest: Vec<&str> = rest.map(String::as_str).collect();
    let instead = match name {
        "uv" | "uvx" | "poetry" | "pipx" | "pdm" | "hatch" | "pipenv" | "conda" | "mamba" => {
            format!("start the environment's own python: `command: [.venv/bin/python, {}]`", rest.join(", "))
        }
        _ => format!("start it directly: `command: [{}]`, or ask for `ring: 2`", rest.join(", ")),
    };
    Err(NoProgram::Unresolvable { what: format!("`{name}`, which R3 can't start twice,"), instead })
}
