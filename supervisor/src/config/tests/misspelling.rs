//! No misspelling may widen a right: every key of a full file, misspelt in every usual way, is refused on its line with
//! the right key suggested.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::config::tree::{Entry, KeyPath, Node, Value};

/// Keys that people choose: their names can't be misspelt.
fn is_free(path: &KeyPath) -> bool {
    let text = path.to_string();
    ["env.set", "env.secrets", "labels", "agents", "rings", "models.providers", "models.rings"].contains(&text.as_str())
}

fn keys<'n>(node: &'n Node, path: &KeyPath, out: &mut Vec<(KeyPath, &'n Entry, Vec<String>)>) {
    match &node.value {
        Value::Mapping(entries) => {
            let siblings: Vec<String> = entries.iter().map(|entry| entry.key.clone()).collect();
            for entry in entries {
                if !is_free(path) && !entry.key.starts_with("x-") {
                    out.push((path.key(&entry.key), entry, siblings.clone()));
                }
                keys(&entry.value, &path.key(&entry.key), out);
            }
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                keys(item, &path.item(index), out);
            }
        }
        _ => {}
    }
}

fn misspellings(key: &str) -> BTreeSet<String> {
    let letters: Vec<char> = key.chars().collect();
    let mut out = BTreeSet::new();
    let text = |letters: &[char]| letters.iter().collect::<String>();
    for at in 0..letters.len() {
        let mut doubled = letters.clone();
        doubled.insert(at, letters[at]);
        out.insert(text(&doubled));
        let mut foreign = letters.clone();
        foreign.insert(at, 'q');
        out.insert(text(&foreign));
        if letters.len() > 3 {
            let mut dropped = letters.clone();
            dropped.remove(at);
            out.insert(text(&dropped));
            let mut replaced = letters.clone();
            replaced[at] = 'q';
            out.insert(text(&replaced));
        }
        if at + 1 < letters.len() {
            let mut swapped = letters.clone();
            swapped.swap(at, at + 1);
            out.insert(text(&swapped));
        }
    }
    out.insert(key.to_uppercase());
    out.insert(format!("{}{}", key[..1].to_uppercase(), &key[1..]));
    out.insert(format!("{key}s"));
    out.insert(key.replace('_', "-"));
    out.insert(key.replace('_', ""));
    out.remove(key);
    out
}

fn try_all<T: serde::de::DeserializeOwned + schemars::JsonSchema + std::fmt::Debug + 'static>(
    text: &str,
    kind: Kind,
) -> usize {
    let good = parse_typed::<T>(&Arc::from(text), Path::new("f.yaml"), kind).expect("the full file is right");
    let raw = crate::config::yaml::parse(text, Kind::Agent).unwrap().0;
    let mut all = Vec::new();
    keys(&raw, &KeyPath::default(), &mut all);
    drop(good);
    let mut tried = 0;
    for (path, entry, siblings) in all {
        for wrong in misspellings(&entry.key) {
            // Another key of the same group is no misspelling.
            if siblings.contains(&wrong)
                || matches!((entry.key.as_str(), wrong.as_str()), ("port", "ports") | ("ports", "port"))
            {
                continue;
            }
            let (line, column) = (entry.key_place.start.line, entry.key_place.start.column);
            let changed: Vec<String> = text
                .split('\n')
                .enumerate()
                .map(|(index, content)| {
                    if index + 1 != line {
                        return content.to_owned();
                    }
                    let (before, after) = content.split_at(column - 1);
                    format!("{before}{}", after.replacen(&entry.key, &wrong, 1))
                })
                .collect();
            let changed = changed.join("\n");
            let error = parse_typed::<T>(&Arc::from(changed.as_str()), Path::new("f.yaml"), kind)
                .expect_err(&format!("{path} as `{wrong}` was accepted"));
            let expected = format!("`{}`", entry.key);
            let found = error.problems().iter().any(|problem| {
                problem.message.starts_with("unknown key")
                    && problem.place.is_some_and(|place| place.start.line == line)
                    && problem.label.starts_with("did you mean")
                    && problem.label.contains(&expected)
            });
            assert!(found, "{path} as `{wrong}`:\n{}", error.render(Color::Never));
            assert_eq!(error.exit_code(), 64);
            tried += 1;
        }
    }
    tried
}

#[test]
fn every_key_of_an_agent_misspelt_in_every_way_is_refused_with_the_right_one_suggested() {
    let tried = try_all::<AgentSpec>(FULL_AGENT, Kind::Agent);
    assert!(tried > 800, "only {tried} misspellings were tried");
}

#[test]
fn every_key_of_the_operators_file_misspelt_is_refused_too() {
    let tried = try_all::<OperatorSpec>(FULL_OPERATOR, Kind::Operator);
    assert!(tried > 500, "only {tried} misspellings were tried");
}

#[test]
fn every_key_of_the_types_stands_in_the_full_files() {
    // Or the two tests above would not try it.
    for (text, schema) in [(FULL_AGENT, schema(SchemaKind::Agent)), (FULL_OPERATOR, schema(SchemaKind::Operator))] {
        let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
        let mut groups = vec![&schema];
        groups.extend(schema["definitions"].as_object().unwrap().values());
        for group in groups {
            for key in group.get("properties").and_then(|p| p.as_object()).into_iter().flat_map(|map| map.keys()) {
                assert!(text.contains(&format!("{key}:")), "{key} is not in the full file");
            }
        }
    }
}

#[test]
fn keys_in_the_wrong_group_and_foreign_names_are_put_right() {
    let world = World::new();
    assert!(message(world.agent("memory: 64MiB\n"), 64).contains("it belongs under `limits`"));
    assert!(message(world.agent("volumes: [/x]\n"), 64).contains("did you mean `files`?"));
    assert!(message(world.agent("environment: {A: b}\n"), 64).contains("did you mean `env`?"));
    assert!(message(world.load("version: 1\nname: a\ncmd: date\n"), 64).contains("did you mean `command`?"));
}

#[test]
fn misspelt_values_are_refused_with_the_right_one_suggested() {
    let world = World::new();
    for (line, near) in [
        ("restart: {policy: on_failure}", "on-failure"),
        ("restart: {policy: Never}", "never"),
        ("enforcement: best_effort", "best-effort"),
        ("stdio: PTY", "pty"),
        ("ring: R2", "2"),
        ("kind: agnet", "agent"),
    ] {
        let text = message(world.agent(&format!("{line}\n")), 64);
        assert!(text.contains(&format!("did you mean `{near}`?")), "{line}:\n{text}");
    }
}

#[test]
fn the_message_has_the_form_of_the_conventions() {
    let world = World::new();
    let text =
        message(world.load("version: 1\nname: a\ncommand: [date]\nlimits:\n    cpu: 50%\n    memroy: 64MiB\n"), 64);
    assert_eq!(
        text,
        "error: unknown key `limits.memroy`\n --> agent.yaml:6:5\n6 |     memroy: 64MiB\n  |     ^^^^^^ did you mean `memory`?\n\
         help: keys under `limits`: cpu, files, memory, requests_per_minute, tasks. nothing was started.\n"
    );
}
