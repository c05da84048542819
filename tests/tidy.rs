//! The house rules as tests: who may depend on whom, how large a file may be, where unsafe may stand, which licences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tree of the project: where it was built, or a copy that an ordinary user can read.
fn root() -> PathBuf {
    std::env::var_os("AGT_TEST_TREE")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned(), PathBuf::from)
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap().filter_map(Result::ok) {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != ".git" && name != "fuzz" {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let (root, mut found) = (root(), Vec::new());
    for top in ["supervisor", "rings", "saga", "sre", "chaos", "tests"] {
        walk(&root.join(top), &mut found);
    }
    found.sort();
    assert!(found.len() > 50, "the sources were not found in {}", root.display());
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(&root).unwrap().to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// Lines before a file's own test module.
fn code_lines(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

/// A test file: its size is its own business.
fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("/tests")
        || text.ends_with("/properties.rs")
        || text.starts_with("tests/")
        || text.contains("/benches/")
        || text.ends_with("_tests.rs")
}

#[test]
fn files_stay_small() {
    // A ratchet: these may shrink, not grow, and no other file may join them.
    let known: BTreeMap<&str, usize> = BTreeMap::from(KNOWN_LARGE);
    let mut wrong = Vec::new();
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let lines = code_lines(text);
        let most = known.get(path.to_str().unwrap()).copied().unwrap_or(400);
        if lines > most {
            wrong.push(format!("{}: {lines} lines, at most {most}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "split by subject:\n{}", wrong.join("\n"));
}

/// Files above 400 lines before their tests, with their present size.
const KNOWN_LARGE: [(&str, usize); 3] = [
    ("supervisor/src/driver/mod.rs", 540),
    ("supervisor/src/machine/lifecycle.rs", 415),
    ("rings/src/plan/mod.rs", 420),
];

#[test]
fn unsafe_stands_only_where_it_may() {
    let allowed = ["rings/src/launch/", "rings/src/sys/", "rings/src/probe/attack", "chaos/src/kernel/sys.rs"];
    let opening = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    for (path, text) in sources() {
        let may = allowed.iter().any(|place| path.starts_with(place) || path.to_string_lossy().starts_with(place));
        let has =
            text.lines().any(|l| !l.trim_start().starts_with("//") && opening.iter().any(|word| l.contains(word)));
        let test = path.ends_with("tests/tidy.rs") || is_test(&path);
        assert!(may || test || !has, "{} has unsafe code: HOUSE allows it in {allowed:?}", path.display());
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources().iter().filter(|(path, _)| !is_test(path)) {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!"), "{} does not begin with a `//!` line", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME"), concat!("XX", "X")];
    for (path, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{} contains {mark}", path.display());
        }
    }
}

#[test]
fn no_module_is_a_drawer() {
    let drawers = ["core.rs", "utils.rs", "util.rs", "common.rs", "helpers.rs", "manager.rs", "misc.rs"];
    for (path, _) in sources() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!drawers.contains(&name) && !name.ends_with("_support.rs"), "{}: name it by subject", path.display());
    }
}

fn metadata() -> Option<serde_json::Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output();
    match output {
        Ok(output) if output.status.success() => Some(serde_json::from_slice(&output.stdout).unwrap()),
        _ => {
            crate::support::skip("cargo metadata", "cargo or its registry is not reachable for this user");
            None
        }
    }
}

#[test]
fn the_crates_form_a_star() {
    let Some(metadata) = metadata() else { return };
    let ours = ["agt-gateway", "agt-rings", "agt-saga", "agt-sre", "agt-chaos"];
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if ours.contains(&name) {
            for dependency in package["dependencies"].as_array().unwrap() {
                let on = dependency["name"].as_str().unwrap();
                assert!(!on.starts_with("agt-"), "{name} depends on {on}: leaf crates never know each other");
            }
        }
    }
}

#[test]
fn licences_are_known_and_crates_come_once() {
    let Some(metadata) = metadata() else { return };
    let known: BTreeSet<&str> = [
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Unicode-3.0",
        "Zlib",
        "MPL-2.0",
        "CC0-1.0",
        "Unlicense",
        "0BSD",
        "BSL-1.0",
    ]
    .into();
    let banned = ["openssl", "openssl-sys", "native-tls", "aws-lc-sys"];
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(&name), "{name} is banned, see deny.toml");
        if let Some(source) = package["source"].as_str() {
            assert!(source.starts_with("registry+"), "{name} comes from {source}");
        }
        let license = package["license"].as_str().unwrap_or_default().replace(['(', ')'], "").replace('/', " OR ");
        // One known licence of an OR suffices; every part of an AND must be known.
        let fits = license.split(" OR ").any(|choice| {
            choice.split(" AND ").all(|part| known.contains(part.trim().trim_end_matches(" WITH LLVM-exception")))
        });
        assert!(fits, "{name} has the licence `{license}`");
        versions.entry(name.to_owned()).or_default().insert(package["version"].as_str().unwrap().to_owned());
    }
    let twice: BTreeSet<&str> = versions.iter().filter(|(_, v)| v.len() > 1).map(|(name, _)| name.as_str()).collect();
    let excused: BTreeSet<&str> = EXCUSED.iter().map(|(name, _)| *name).collect();
    assert_eq!(twice, excused, "crates in two versions, each with a reason");
}

/// Crates that stand in the lock file twice, and why.
const EXCUSED: [(&str, &str); 14] = [
    ("base64", "pem, for rcgen, is on 0.23 already"),
    ("bit-vec", "cgroups-rs is on 0.6; an ASN.1 parser of rcgen's that is not built"),
    ("bitflags", "cgroups-rs 0.5 is on nix 0.25"),
    ("getrandom", "ring is on 0.2, rand 0.9 and 0.10"),
    ("hashbrown", "metrics-util and indexmap"),
    ("nix", "cgroups-rs 0.5 is on nix 0.25"),
    ("r-efi", "getrandom, for targets that we don't have"),
    ("rand", "metrics-util is on 0.9"),
    ("rand_core", "metrics-util is on rand 0.9"),
    ("syn", "derive crates between two majors"),
    ("synstructure", "derive crates between two majors of syn"),
    ("thiserror", "cgroups-rs 0.5 is on thiserror 1"),
    ("thiserror-impl", "cgroups-rs 0.5 is on thiserror 1"),
    ("windows-sys", "ring, for targets that we don't have"),
];
