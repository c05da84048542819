//! YAML in, spanned tree out, types from the tree: the only file that names serde_yaml and saphyr-parser.
//!
//! saphyr-parser gives events with positions; they become a [`Node`] tree under limits of depth and size that stop alias
//! bombs before they grow. serde_yaml, which the types' serde impls were written against, never sees the file: it gets
//! the checked tree written out again, so that there is one authority on what the file says, and an error of a type
//! comes back with a position that is looked up in the tree.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as YamlSpan, Tag};
use serde::de::DeserializeOwned;

use super::diagnostic::Problem;
use super::document::Kind;
use super::tree::{Entry, KeyPath, Mark, Node, Place, Value};

/// Deepest nesting of lists and groups. Real files have eight levels.
pub const MAX_DEPTH: usize = 40;

/// Most values in one document, aliases counted with all that they stand for.
pub const MAX_NODES: usize = 20_000;

/// Long texts count as several values, so that repeating one by alias is bounded too.
const BYTES_PER_VALUE: usize = 256;

/// A value of the document that its type refused.
#[derive(Debug)]
pub struct TypeRefusal {
    /// Which value.
    pub path: KeyPath,
    /// Why.
    pub message: String,
}

/// Reads one YAML document.
///
/// # Errors
/// The first problem of syntax: the rest of a file can't be understood after one. Duplicate keys come beside the tree, in which the
/// first of each counts.
pub fn parse(text: &str, kind: Kind) -> Result<(Node, Vec<Problem>), Box<Problem>> {
    if let Some(problem) = control_character(text) {
        return Err(Box::new(problem));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error, text))?;
        builder.event(event, span)?;
    }
    let root = builder.root.filter(|root| root.value != Value::Null);
    let root = root.ok_or_else(|| Problem::config("the file is empty").help(kind.first_lines()))?;
    Ok((root, builder.duplicates))
}

/// The first character that YAML does not allow in a file (section 5.1 of the specification).
fn control_character(text: &str) -> Option<Problem> {
    let bad = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    text.split('\n').enumerate().find_map(|(index, line)| {
        let column = line.chars().position(|c| bad(&c))?;
        let code = line.chars().nth(column).map_or(0, u32::from);
        let place = super::source::point(index + 1, column + 1);
        Some(
            Problem::config(format!("control character U+{code:04X} in the file"))
                .at(place)
                .help("YAML allows none but tab and newline; inside double quotes write it as \"\\x1b\""),
        )
    })
}

fn syntax(error: &ScanError, text: &str) -> Problem {
    let mark = Mark { line: error.marker().line(), column: error.marker().col() + 1 };
    let place = super::source::point(mark.line, mark.column);
    let problem = Problem::config(format!("this is not YAML: {}", error.info())).at(place);
    let lines: Vec<&str> = text.split('\n').collect();
    // Scanners notice a tab one line late or early at times: look at the lines around too.
    let tab = [mark.line, mark.line.saturating_sub(1), mark.line + 1].into_iter().find(|&number| {
        let line = number.checked_sub(1).and_then(|index| lines.get(index));
        line.is_some_and(|line| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t'))
    });
    match tab {
        Some(line) => {
            let before = lines[line - 1].chars().position(|c| c == '\t').unwrap_or(0);
            Problem::config("a tab indents this line")
                .at(super::source::point(line, before + 1))
                .label("YAML indents with spaces only")
                .help("replace the tab by spaces")
        }
        None => {
            problem.help("`key: value` pairs, two spaces deeper for each level; quote a value that has `: ` or ` #`")
        }
    }
}

/// A collection whose end has not been seen yet.
struct Open {
    place: Place,
    anchor: usize,
    items: Items,
    /// Values in the finished children, for the bound on aliases.
    nodes: usize,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>, Option<(String, Place)>, HashMap<String, usize>),
}

#[derive(Default)]
struct Builder {
    stack: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    duplicates: Vec<Problem>,
}

type Step = Result<(), Box<Problem>>;

impl Builder {
    fn event(&mut self, event: Event<'_>, span: YamlSpan) -> Step {
        let place = place_of(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return fail(
                        Problem::config("a second document begins here")
                            .at(place)
                            .label("one document a file")
                            .help("put it into a file of its own"),
                    );
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar(text.into_owned(), style, tag.as_deref(), place)?;
                let weight = 1 + node.source.len() / BYTES_PER_VALUE;
                self.finished(node, anchor, weight)
            }
            Event::SequenceStart(anchor, tag) => {
                no_tag(tag.as_deref(), place)?;
                self.open(place, anchor, Items::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                no_tag(tag.as_deref(), place)?;
                self.open(place, anchor, Items::Mapping(Vec::new(), None, HashMap::new()))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
            Event::Alias(anchor) => {
                let Some((node, nodes)) = self.anchors.get(&anchor) else {
                    return fail(Problem::config("this alias stands inside the value that it repeats").at(place));
                };
                // Checked before the copy: an alias bomb never gets to grow.
                if self.nodes + nodes > MAX_NODES {
                    return fail(too_many(place));
                }
                let (mut node, nodes) = (node.clone(), *nodes);
                node.place = place;
                self.finished(node, 0, nodes)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, place: Place, anchor: usize, items: Items) -> Step {
        if self.stack.len() >= MAX_DEPTH {
            return fail(Problem::config(format!("nested deeper than {MAX_DEPTH} levels")).at(place));
        }
        if self.is_key_next() {
            return fail(complex_key(place));
        }
        self.stack.push(Open { place, anchor, items, nodes: 1 });
        Ok(())
    }

    fn is_key_next(&self) -> bool {
        matches!(self.stack.last(), Some(Open { items: Items::Mapping(_, None, _), .. }))
    }

    fn close(&mut self, place: Place) -> Step {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.items {
            Items::Sequence(items) => Value::Sequence(items),
            Items::Mapping(entries, _, _) => Value::Mapping(entries),
        };
        let place = Place { start: open.place.start, end: place.end };
        // Its own node was counted at the start of the children's count.
        self.nodes -= open.nodes - 1;
        self.finished(Node { value, source: String::new(), place }, open.anchor, open.nodes)
    }

    fn finished(&mut self, node: Node, anchor: usize, nodes: usize) -> Step {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return fail(too_many(node.place));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), nodes));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.nodes += nodes;
        match &mut open.items {
            Items::Sequence(items) => items.push(node),
            Items::Mapping(entries, pending, lines) => match pending.take() {
                Some((key, _)) if entries.iter().any(|entry| entry.key == key) => {}
                Some((key, key_place)) => entries.push(Entry { key, key_place, value: node }),
                None => {
                    if matches!(node.value, Value::Sequence(_) | Value::Mapping(_)) {
                        return fail(complex_key(node.place));
                    }
                    if node.source == "<<" {
                        return fail(
                            Problem::config("merge keys (`<<`) are not part of YAML 1.2")
                                .at(node.place)
                                .help("repeat a whole value with `*alias`, or write the keys out"),
                        );
                    }
                    let line = node.place.start.line;
                    if let Some(first) = lines.insert(node.source.clone(), line) {
                        self.duplicates.push(
                            Problem::config(format!("the key `{}` stands here twice", node.source))
                                .at(node.place)
                                .label(format!("first in line {first}"))
                                .help("keep one of the two"),
                        );
                    }
                    *pending = Some((node.source, node.place));
                }
            },
        }
        Ok(())
    }
}

fn fail(problem: Problem) -> Step {
    Err(Box::new(problem))
}

fn too_many(place: Place) -> Problem {
    Problem::config(format!("more than {MAX_NODES} values, those that aliases repeat counted"))
        .at(place)
        .help("write less, or repeat less with `*alias`")
}

fn complex_key(place: Place) -> Problem {
    Problem::config("a key must be a single word").at(place).label("a list or group can't be a key")
}

fn place_of(span: YamlSpan) -> Place {
    let mark = |m: saphyr_parser::Marker| Mark { line: m.line(), column: m.col() + 1 };
    Place { start: mark(span.start), end: mark(span.end) }
}

/// The tags of YAML's core schema (section 10.3); any other asks a loader to make something, which none may.
const CORE_TAGS: [&str; 7] = ["str", "int", "float", "bool", "null", "seq", "map"];

fn no_tag(tag: Option<&Tag>, place: Place) -> Step {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() || !CORE_TAGS.contains(&tag.suffix.as_str()) => fail(
            Problem::config(format!("the tag `{}{}` has no meaning here", clip(&tag.handle), clip(&tag.suffix)))
                .at(place)
                .help("leave it out"),
        ),
        _ => Ok(()),
    }
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A scalar by the core schema (section 10.3 of YAML 1.2): quoted is text, `yes` and `no` are text.
fn scalar(source: String, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Node, Box<Problem>> {
    no_tag(tag, place)?;
    let is_text = style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str");
    let value = if is_text { Value::Text(source.clone()) } else { plain(&source) };
    // A plain scalar over several lines ends where its last line ends; a caret belongs to the first.
    Ok(Node { value, source, place })
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return match number {
            n if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&n) => Value::Integer(n),
            n => Value::Float(n as f64),
        };
    }
    let looks_numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'))
        && text.contains(|c: char| c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if looks_numeric => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<i128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return hex.chars().all(|c| c.is_ascii_hexdigit()).then(|| i128::from_str_radix(hex, 16).ok()).flatten();
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return octal.chars().all(|c| c.is_digit(8)).then(|| i128::from_str_radix(octal, 8).ok()).flatten();
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Gives a checked tree to the type's serde impl.
///
/// Enums are read as YAML people write them: `key: value` for a variant with data, not serde_yaml's `!Tag`.
///
/// # Errors
/// What the type says, with the value that it said it of.
pub fn typed<T: DeserializeOwned>(node: &Node) -> Result<T, TypeRefusal> {
    let everywhere = |message: String| TypeRefusal { path: KeyPath::default(), message };
    let canonical = serde_yaml::to_string(&value_of(node)).map_err(|error| everywhere(error.to_string()))?;
    serde_yaml::with::singleton_map_recursive::deserialize(serde_yaml::Deserializer::from_str(&canonical))
        .map_err(|error| located(&error, &canonical))
}

fn located(error: &serde_yaml::Error, canonical: &str) -> TypeRefusal {
    let mut message = error.to_string();
    let path = error.location().and_then(|location| {
        let suffix = format!(" at line {} column {}", location.line(), location.column());
        if let Some(bare) = message.strip_suffix(&suffix) {
            message = bare.to_owned();
        }
        let mark = Mark { line: location.line(), column: location.column() };
        parse(canonical, Kind::Agent).ok().and_then(|(tree, _)| tree.starting_at(mark))
    });
    TypeRefusal { path: path.unwrap_or_default(), message }
}

fn value_of(node: &Node) -> serde_yaml::Value {
    use serde_yaml::Value as Yaml;
    match &node.value {
        Value::Null => Yaml::Null,
        Value::Bool(value) => Yaml::Bool(*value),
        Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
            (Ok(number), _) => Yaml::Number(number.into()),
            (_, Ok(number)) => Yaml::Number(number.into()),
            _ => Yaml::Number((*value as f64).into()),
        },
        Value::Float(value) => Yaml::Number((*value).into()),
        Value::Text(text) => Yaml::String(text.clone()),
        Value::Sequence(items) => Yaml::Sequence(items.iter().map(value_of).collect()),
        Value::Mapping(entries) => {
            Yaml::Mapping(entries.iter().map(|e| (Yaml::String(e.key.clone()), value_of(&e.value))).collect())
        }
    }
}
