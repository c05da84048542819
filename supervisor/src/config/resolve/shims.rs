//! Version managers' shims: small scripts that look a version up and start the real program.
//!
//! pyenv, rbenv and nodenv share one layout; asdf writes the versions into the shim. mise and volta decide in a program
//! of their own, which can't be followed: they are refused with the command that prints the real path. nvm has no shims.

use std::fs;
use std::path::{Path, PathBuf};

use super::program::{NoProgram, Search};
use crate::config::source::small_text;

/// A shim has a few hundred bytes.
const MAX_SHIM: u64 = 16 * 1024;

/// Managers of the pyenv family: the word in the shim, the file with the version, the manager's own command.
const FAMILY: [(&str, &str, &str); 3] = [
    ("PYENV_ROOT", ".python-version", "pyenv"),
    ("RBENV_ROOT", ".ruby-version", "rbenv"),
    ("NODENV_ROOT", ".node-version", "nodenv"),
];

/// The real program behind `found`, if `found` is a shim.
pub(super) fn follow(found: &Path, search: &Search<'_>, path: &str) -> Result<Option<PathBuf>, NoProgram> {
    let Some(name) = found.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    if let Some(manager) = decided_elsewhere(found, name) {
        return Err(NoProgram::Unresolvable {
            what: format!("`{}` is a shim of {manager}, which", found.display()),
            instead: format!("`{manager} which {name}` prints the real path: write that in the command"),
        });
    }
    let Some(folder) = found.parent().filter(|folder| folder.file_name().is_some_and(|name| name == "shims")) else {
        return Ok(None);
    };
    let Some(text) = small_text(found, MAX_SHIM) else { return Ok(None) };
    if text.contains("asdf exec") || text.contains("# asdf-plugin:") {
        return asdf(&text, name, found, folder, search).map(Some);
    }
    for (mark, version_file, command) in FAMILY {
        if text.contains(mark) || text.contains(&format!("{command}\" exec")) {
            return family(version_file, command, name, found, folder, search, path).map(Some);
        }
    }
    Ok(None)
}

/// A shim whose decision is made in a program.
fn decided_elsewhere(found: &Path, name: &str) -> Option<&'static str> {
    let target = found.canonicalize().ok()?;
    let target = target.file_name()?.to_str()?;
    match target {
        "mise" | "rtx" if name != target => Some("mise"),
        "volta-shim" => Some("volta"),
        _ => None,
    }
}

/// The nearest file of this name in the workdir or above it, read as lines without comments.
fn nearest_lines(search: &Search<'_>, file: &str) -> Option<Vec<String>> {
    search.workdir.ancestors().find_map(|folder| lines(&folder.join(file)))
}

fn lines(path: &Path) -> Option<Vec<String>> {
    let text = small_text(path, MAX_SHIM)?;
    let kept =
        text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty());
    Some(kept.map(str::to_owned).collect())
}

fn family(
    version_file: &str,
    command: &str,
    name: &str,
    found: &Path,
    shims: &Path,
    search: &Search<'_>,
    path: &str,
) -> Result<PathBuf, NoProgram> {
    let unresolvable = || NoProgram::Unresolvable {
        what: format!("`{}` is a shim of {command}, which", found.display()),
        instead: format!("`{command} which {name}` prints the real path: write that in the command"),
    };
    let root = shims.parent().ok_or_else(unresolvable)?;
    let versions = nearest_lines(search, version_file)
        .or_else(|| lines(&root.join("version")))
        .unwrap_or_else(|| vec!["system".to_owned()]);
    // Several versions can be named, in one line or in more: the first that has the program counts.
    for version in versions.iter().flat_map(|line| line.split([':', ' '])).filter(|word| !word.is_empty()) {
        if version == "system" {
            if let Some(real) = outside_of_shims(name, path) {
                return Ok(real);
            }
            continue;
        }
        // A version is the name of a folder, never a way out of `versions`.
        if version.contains('/') || version.starts_with('.') {
            continue;
        }
        if let Some(real) = installed(&root.join("versions"), version, name) {
            return Ok(real);
        }
    }
    Err(unresolvable())
}

/// `versions/3.11.7/bin/python3`; a version like `3.11` stands for the latest `3.11.x`.
fn installed(versions: &Path, version: &str, name: &str) -> Option<PathBuf> {
    let program = |folder: &Path| Some(folder.join("bin").join(name)).filter(|program| program.is_file());
    if let Some(exact) = program(&versions.join(version)) {
        return Some(exact);
    }
    let prefix = format!("{version}.");
    let mut candidates: Vec<(Vec<u64>, PathBuf)> = fs::read_dir(versions)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let folder = entry.file_name().into_string().ok()?;
            let rest = folder.strip_prefix(&prefix)?;
            let numbers: Option<Vec<u64>> = rest.split('.').map(|part| part.parse().ok()).collect();
            Some((numbers?, entry.path()))
        })
        .collect();
    candidates.sort();
    candidates.iter().rev().find_map(|(_, folder)| program(folder))
}

/// The same name further down in PATH.
fn outside_of_shims(name: &str, path: &str) -> Option<PathBuf> {
    path.split(':')
        .filter(|folder| folder.starts_with('/') && !folder.trim_end_matches('/').ends_with("/shims"))
        .map(|folder| Path::new(folder).join(name))
        .find(|program| program.is_file())
}

fn asdf(text: &str, name: &str, found: &Path, shims: &Path, search: &Search<'_>) -> Result<PathBuf, NoProgram> {
    let unresolvable = || NoProgram::Unresolvable {
        what: format!("`{}` is a shim of asdf, which", found.display()),
        instead: format!("`asdf which {name}` prints the real path: write that in the command"),
    };
    let root = shims.parent().ok_or_else(unresolvable)?;
    // `# asdf-plugin: nodejs 20.11.0`, one line for each installed version that has the program.
    let offers: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("# asdf-plugin:")?.trim().split_once(' '))
        .map(|(plugin, version)| (plugin, version.trim()))
        .filter(|(plugin, version)| ![*plugin, *version].iter().any(|part| part.contains('/') || part.starts_with('.')))
        .collect();
    let chosen = nearest_lines(search, ".tool-versions").or_else(|| lines(&root.parent()?.join(".tool-versions")));
    for line in chosen.unwrap_or_default() {
        let mut words = line.split_whitespace();
        let Some(plugin) = words.next() else { continue };
        for version in words {
            let program = root.join("installs").join(plugin).join(version).join("bin").join(name);
            if offers.contains(&(plugin, version)) && program.is_file() {
                return Ok(program);
            }
        }
    }
    Err(unresolvable())
}
