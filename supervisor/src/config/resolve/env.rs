//! The environment: clean but for PATH and LANG, plus what was asked for and may be given.
//!
//! A variable of the user's environment is theirs, and many are keys. A file that may come from a stranger gets the
//! harmless ones by name; for any other, in `pass` or inside `${...}`, an operator's line (or `--env NAME`, typed by the
//! user) is needed, and the value is then treated as a secret.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;

use super::Context;
use super::workdir::{existing, expand_path};
use crate::config::diagnostic::Problem;
use crate::config::grant::Right;
use crate::config::interpolate::{expand, is_harmless};
use crate::config::plan::{EnvValue, SecretText};
use crate::config::tree::KeyPath;

/// PATH of an agent that asks for no other. The same on every host, so that a plan is.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Text in UTF-8, messages in English, on any host.
const DEFAULT_LANG: &str = "C.UTF-8";

/// Names with this beginning belong to the supervisor (AGT_SOCKET, ...).
const RESERVED: &str = "AGT_";

pub(super) type Environment = BTreeMap<String, EnvValue>;

/// The PATH in which the program is looked up.
pub(super) fn path_of(env: &Environment) -> String {
    match env.get("PATH") {
        Some(EnvValue::Plain(path)) => path.clone(),
        Some(EnvValue::Secret(path)) => path.reveal().to_owned(),
        Some(EnvValue::SecretFile(_)) | None => DEFAULT_PATH.to_owned(),
    }
}

pub(super) fn resolve(context: &mut Context<'_>) -> Environment {
    let mut env = Environment::from([
        ("PATH".to_owned(), EnvValue::Plain(DEFAULT_PATH.to_owned())),
        ("LANG".to_owned(), EnvValue::Plain(DEFAULT_LANG.to_owned())),
    ]);
    pass(context, &mut env);
    set(context, &mut env);
    secrets(context, &mut env);
    if let Some(EnvValue::Plain(path)) = env.get("PATH")
        && let Some(relative) = path.split(':').find(|entry| !entry.starts_with('/'))
    {
        let problem = Problem::config(format!("PATH has the relative entry `{relative}`"))
            .label("absolute folders only")
            .help("a relative entry would find another program in each folder");
        let at = if context.spec.env.set.contains_key("PATH") { "env.set.PATH" } else { "env.pass" };
        context.problem(&KeyPath::of(at), problem);
    }
    env
}

/// Asks for a variable of the user's environment that may be a secret.
pub(super) fn need_variable(context: &mut Context<'_>, name: &str, path: &KeyPath) {
    let granted = context.rights.env.iter().chain(&context.overrides.pass).any(|granted| granted == name);
    if !granted {
        let message = format!("the variable {name} needs an operator's line: it may hold a secret");
        context.needs_operator(path, message, Right::Env(name.to_owned()));
    }
}

fn pass(context: &mut Context<'_>, env: &mut Environment) {
    let spec = context.spec;
    let overrides = context.overrides;
    let from_file = spec.env.pass.iter().enumerate().map(|(i, name)| (name, KeyPath::of("env.pass").item(i)));
    let typed = overrides.pass.iter().map(|name| (name, KeyPath::default()));
    for (name, path) in from_file.chain(typed) {
        if is_reserved(context, name, &path) {
            continue;
        }
        if !is_harmless(name) {
            need_variable(context, name, &path);
        }
        match context.around.env.get(name) {
            Some(value) if is_harmless(name) => drop(env.insert(name.clone(), EnvValue::Plain(passed(name, value)))),
            Some(value) => drop(env.insert(name.clone(), EnvValue::Secret(SecretText::new(value.clone())))),
            None => context.notes.push(format!("{name} is not set here, so it is not passed on")),
        }
    }
}

/// A passed PATH keeps its absolute entries: a relative one belongs to the folder in which the user stands.
fn passed(name: &str, value: &str) -> String {
    if name != "PATH" {
        return value.to_owned();
    }
    value.split(':').filter(|entry| entry.starts_with('/')).collect::<Vec<_>>().join(":")
}

fn set(context: &mut Context<'_>, env: &mut Environment) {
    let spec = context.spec;
    for (name, text) in &spec.env.set {
        let path = KeyPath::of("env.set").key(name);
        if is_reserved(context, name, &path) {
            continue;
        }
        if spec.env.pass.contains(name) {
            context.problem(&path, twice(name, "env.pass"));
            continue;
        }
        match expand(text, &context.around.env) {
            Ok(expanded) => {
                let foreign: Vec<&String> = expanded.used.iter().filter(|used| !is_harmless(used)).collect();
                for used in &foreign {
                    need_variable(context, used, &path);
                }
                let value = if foreign.is_empty() {
                    EnvValue::Plain(expanded.text)
                } else {
                    EnvValue::Secret(SecretText::new(expanded.text))
                };
                env.insert(name.clone(), value);
            }
            Err(bad) => {
                let problem = Problem::config(format!("{bad} (`{path}`)")).label("can't be replaced");
                let help = "the forms are `${NAME}` and `${NAME:?message}`; `$${` is a plain `${`";
                context.problem(&path, problem.help(help));
            }
        }
    }
}

fn secrets(context: &mut Context<'_>, env: &mut Environment) {
    let spec = context.spec;
    for (name, secret) in &spec.env.secrets {
        let path = KeyPath::of("env.secrets").key(name);
        if is_reserved(context, name, &path) {
            continue;
        }
        if spec.env.pass.contains(name) || spec.env.set.contains_key(name) {
            context.problem(&path, twice(name, "env.pass or env.set"));
            continue;
        }
        let path = path.key("file");
        let Some(wanted) = expand_path(context, &secret.file, &path) else { continue };
        let folder = context.origin.folder;
        let Some(file) = existing(context, &folder.join(wanted), &path) else { continue };
        if !file.is_file() {
            let problem = Problem::config(format!("the secret {} is not a regular file", file.display()));
            context.problem(&path, problem.label("a file is needed"));
            continue;
        }
        if context.zones.is_ours(&file) {
            let message = format!("{} belongs to the supervisor: no agent gets it", file.display());
            context.never(&path, message, "no line of the operator's file opens it");
            continue;
        }
        let metadata = file.metadata().ok();
        if metadata.as_ref().is_some_and(|metadata| metadata.len() == 0) {
            let problem = Problem::config(format!("the secret {} is empty", file.display()));
            context.problem(&path, problem.label("an empty file").help("put the secret into it, or take the line out"));
            continue;
        }
        let open_to_others = metadata.map(|metadata| metadata.mode() & 0o7777).filter(|mode| mode & 0o044 != 0);
        if let Some(mode) = open_to_others {
            let shown = file.display();
            context.notes.push(format!(
                "the secret {shown} can be read by others (mode {mode:04o}); `chmod 600 {shown}` closes it"
            ));
        }
        if !context.rights.may_have_secret(&file) {
            let message = format!("the secret {} needs an operator's line: no secret is free", file.display());
            context.needs_operator(&path, message, Right::Secret(file.clone()));
        }
        env.insert(name.clone(), EnvValue::SecretFile(file));
    }
}

pub(super) fn is_reserved(context: &mut Context<'_>, name: &str, path: &KeyPath) -> bool {
    let reserved = name.starts_with(RESERVED);
    if reserved {
        let problem = Problem::config(format!("`{name}`: names that begin with `{RESERVED}` belong to the supervisor"));
        context.problem(path, problem.label("take another name"));
    }
    reserved
}

fn twice(name: &str, other: &str) -> Problem {
    Problem::config(format!("the variable `{name}` is also in `{other}`")).label("one source for each variable")
}
