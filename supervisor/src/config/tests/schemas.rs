//! The committed schema, and the generic road that other kinds take.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::*;

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    for kind in SchemaKind::ALL {
        let word = kind.word();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../examples/{word}.schema.json"));
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let fresh = schema(kind);
        if std::env::var_os("AGT_WRITE_SCHEMA").is_some() {
            fs::write(&path, &fresh).unwrap();
            continue;
        }
        assert!(committed == fresh, "{word} is stale: run this test with AGT_WRITE_SCHEMA=1");
    }
}

#[test]
fn every_example_names_its_schema_in_its_first_line() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for folder in fs::read_dir(&examples).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
            let kind = file.file_stem().unwrap().to_string_lossy().into_owned();
            // A table of prices is data: there is no schema for editors.
            if kind == "prices" {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            let line = format!("# yaml-language-server: $schema=../{kind}.schema.json\n");
            assert!(text.starts_with(&line), "{}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 9, "{seen}");
}

#[test]
fn the_schema_is_draft_07_and_closed_but_for_x_keys() {
    for kind in SchemaKind::ALL {
        let text = schema(kind);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["$schema"], "http://json-schema.org/draft-07/schema#");
        let groups = value["definitions"].as_object().unwrap().values().chain([&value]);
        for group in groups.filter(|group| group.get("properties").is_some()) {
            assert_eq!(group["additionalProperties"], false, "{group}");
            assert!(group["patternProperties"].get("^x-").is_some(), "{group}");
        }
    }
}

/// A kind of another crate: tags, variants with data, a parser of its own, no header.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Foreign {
    steps: Vec<Step>,
    #[serde(default)]
    rule: Rule,
    #[serde(default)]
    even: Even,
    #[serde(default)]
    evens: Vec<Even>,
    #[serde(default)]
    flat: Vec<Flat>,
}

/// A group with the keys of an enum among its own.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Flat {
    name: String,
    #[serde(flatten)]
    action: Step,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
enum Step {
    Process { command: Command },
    Wait { time: units::Span },
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Rule {
    #[default]
    All,
    Count(u32),
    Window {
        size: u32,
    },
}

#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "u32")]
struct Even(u32);

impl TryFrom<u32> for Even {
    type Error = String;

    fn try_from(number: u32) -> Result<Even, String> {
        if number.is_multiple_of(2) { Ok(Even(number)) } else { Err(format!("{number} is odd")) }
    }
}

fn foreign(lines: &str) -> Result<Foreign, ConfigError> {
    let text = format!("version: 1\nkind: saga\n{lines}\n");
    parse_typed::<Foreign>(&Arc::from(text.as_str()), Path::new("s.yaml"), Kind::Saga).map(|loaded| loaded.value)
}

#[test]
fn kinds_of_other_crates_take_the_same_road() {
    let value =
        foreign("steps:\n- {type: wait, time: 5s}\n- type: process\n  command: date -u\nrule: {count: 3}\neven: 4")
            .unwrap();
    assert_eq!((value.steps.len(), value.rule, value.even), (2, Rule::Count(3), Even(4)));
    assert_eq!(foreign("steps: []\nrule: all").unwrap().rule, Rule::All);
    let flat = foreign("steps: []\nflat: [{name: a, type: wait, time: 5s}]").unwrap().flat;
    assert_eq!(flat[0].action, Step::Wait { time: units::Span::seconds(5) });
    for (lines, expected, line) in [
        ("steps: [{type: wiat, time: 5s}]", "did you mean `wait`?", 3),
        ("steps: [{type: wait, tmie: 5s}]", "did you mean `time`?", 3),
        ("steps: [{type: wait, time: 5}]", "has no unit", 3),
        ("steps: [{time: 5s}]", "the key `steps[0].type` is missing", 3),
        ("steps: []\nrule: al", "did you mean `all`?", 4),
        ("steps: []\nrule: {cuont: 3}", "did you mean `count`?", 4),
        ("steps: []\nrule: {window: {sise: 3}}", "did you mean `size`?", 4),
        ("steps: []\nx-a: 1\nrule: all\neven: 3", "`even`: 3 is odd", 6),
        ("steps: []\nevens: [2, 4, 6, 5, 8]", "`evens[3]`: 5 is odd", 4),
        ("steps: []\nflat: [{name: a, type: wait, time: 5s, tiem: 1}]", "did you mean `time`?", 4),
        ("steps: []\nflat: [{nmae: a, type: wait, time: 5s}]", "did you mean `name`?", 4),
        ("steps: []\nflat: [{name: a, type: wiat}]", "did you mean `wait`?", 4),
        ("step: []", "did you mean `steps`?", 3),
    ] {
        let error = foreign(lines).unwrap_err();
        let text = error.render(Color::Never);
        assert!(text.contains(expected) && text.contains(&format!("s.yaml:{line}:")), "{lines}:\n{text}");
    }
    let headless = parse_typed::<Foreign>(&Arc::from("kind: saga\nsteps: []\n"), Path::new("s"), Kind::Saga);
    assert!(message(headless, 64).contains("add a line `version: 1`"));
}
