//! `npx PACKAGE`: finds the package's script in the project, so that node can be started itself.
//!
//! npx asks a registry, downloads, then starts node as another process: in a ring without network it hangs, and in R3 it
//! can't start anything. A package that is installed in the project needs none of that.

use std::path::{Path, PathBuf};

use super::program::{NoProgram, Search};
use crate::config::source::small_text;

/// A package.json has a few kilobytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// The words of `node SCRIPT ...` that `npx PACKAGE ...` stands for; `None` when this is no npx.
pub(super) fn follow_npx(
    found: &Path,
    words: &[String],
    search: &Search<'_>,
) -> Result<Option<Vec<String>>, NoProgram> {
    if found.file_name().is_none_or(|name| name != "npx") {
        return Ok(None);
    }
    let (mut package, mut program, mut rest) = (None, None, words[1..].iter());
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-y" | "--yes" | "-n" | "--no" | "--no-install" | "-q" | "--quiet" | "--" => {}
            "-p" | "--package" => package = rest.next().cloned(),
            other if other.starts_with("--package=") => package = other.strip_prefix("--package=").map(str::to_owned),
            other if other.starts_with('-') => return Err(unresolvable(other, search)),
            other => {
                program = Some(other.to_owned());
                break;
            }
        }
    }
    let Some(program) = program else { return Err(unresolvable("without a package", search)) };
    let wanted = package.as_deref().unwrap_or(&program);
    let name = without_version(wanted);
    let bin = if package.is_some() { program.as_str() } else { name.rsplit('/').next().unwrap_or(name) };
    let script = script_of(name, bin, search).ok_or_else(|| unresolvable(wanted, search))?;
    let mut next = vec!["node".to_owned(), script.to_string_lossy().into_owned()];
    next.extend(rest.cloned());
    Ok(Some(next))
}

fn unresolvable(what: &str, search: &Search<'_>) -> NoProgram {
    let name = without_version(what);
    NoProgram::Unresolvable {
        what: format!("`npx {what}`"),
        instead: format!(
            "run `npm install {name}` in {}, then this line works; or write `command: [node, path/to/script.js]`",
            search.workdir.display()
        ),
    }
}

/// `@scope/name@1.2` without its version.
fn without_version(package: &str) -> &str {
    match package.char_indices().skip(1).find(|(_, character)| *character == '@') {
        Some((at, _)) => &package[..at],
        None => package,
    }
}

/// The script that a package of the project puts forward as its program.
fn script_of(package: &str, bin: &str, search: &Search<'_>) -> Option<PathBuf> {
    if package.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return None;
    }
    // From the workdir up to the folder of the agent's file, as node itself looks for packages; not further.
    let top = search.project;
    let folders = search.workdir.ancestors().take_while(|folder| folder.starts_with(top) || *folder == search.workdir);
    for folder in folders {
        let home = folder.join("node_modules").join(package);
        let manifest = home.join("package.json");
        let Some(text) = small_text(&manifest, MAX_MANIFEST) else { continue };
        let value: serde_json::Value = serde_json::from_str(&text).ok()?;
        let relative = match value.get("bin")? {
            serde_json::Value::String(only) => only.clone(),
            serde_json::Value::Object(several) => {
                let named = several.get(bin).or_else(|| several.values().next().filter(|_| several.len() == 1))?;
                named.as_str()?.to_owned()
            }
            _ => return None,
        };
        let script = home.join(relative).canonicalize().ok()?;
        // A manifest can't point out of its own package tree.
        let modules = folder.join("node_modules").canonicalize().ok()?;
        return Some(script).filter(|script| script.is_file() && script.starts_with(modules));
    }
    None
}
