//! What a request brings that its size does not show: more input than its bytes, and things that the provider does by itself.
//!
//! A walk over the body with all names and texts decoded, so that no escape hides one. Of tools it knows those that run at the
//! client, and takes every other for one that runs at the provider: new ones come by the month. Of messages it knows the forms that
//! the providers document today; what it does not know passes and is caught by settlement, not by reservation.

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Gemini reads `generationConfig` and `generation_config` as one.
pub(super) fn canonical(name: Cow<'_, str>) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte == b'_' || byte.is_ascii_uppercase()) {
        true => name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect(),
        false => name,
    }
}

/// The name of a field, copied only where it is escaped.
#[derive(Clone, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Name<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// What the body brings that its size does not show.
#[derive(Debug, Default)]
pub(super) struct Brings {
    /// More input than its bytes.
    pub(super) more: bool,
    /// Input of which nothing is in the body, or next to nothing: earlier conversations, files by name, documents.
    pub(super) hidden: bool,
    /// Whose forms of tools are spoken.
    pub(super) tools: Tools,
    /// Something that the provider does by itself.
    pub(super) reach: Option<String>,
}

/// In whose form a tool says what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tools {
    /// By its `type`; without one it is the client's.
    #[default]
    ByType,
    /// By the field that declares it, as Gemini's.
    ByField,
}

/// Where in a body the walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    Messages,
    /// In the list of tools, and at the top of one of them.
    Tools,
    Tool,
}

impl Brings {
    /// Notes what a field of the body brings.
    pub(super) fn walk(&mut self, raw: &RawValue, inside: Inside) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(raw.get());
        Walk { brings: self, inside, key: "" }.deserialize(&mut json)
    }

    /// What a field's name brings.
    fn name(&mut self, key: &str, inside: Inside) {
        match inside {
            Inside::Messages => {
                self.more |= MORE_NAMES.contains(&key);
                self.hidden |= HIDDEN.contains(&key);
            }
            Inside::Tool if REACH_TOOLS.contains(&key) => self.reaches(key),
            Inside::Tool if self.tools == Tools::ByField && !CLIENT_FIELDS.contains(&key) => self.reaches(key),
            _ => {}
        }
    }

    /// What a text brings by itself.
    fn text(&mut self, key: &str, text: &str, inside: Inside) {
        match (inside, key) {
            (Inside::Messages, "type") => {
                let plain = canonical(text.into());
                self.more |= MORE_TYPES.contains(&&*plain);
                self.hidden |= HIDDEN.contains(&&*plain);
            }
            // `video_url` and its like are on no provider's list, and on those of servers that speak their languages.
            (Inside::Messages, key) if key.ends_with("url") || key.ends_with("uri") => {
                self.more = true;
                if !text.trim_start().get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("data:")) {
                    self.reaches(key);
                }
            }
            // A shell runs where its environment says ([`Walk::visit_map`]).
            (Inside::Tool, "type") => {
                let plain = canonical(text.into());
                if !CLIENT_TYPES.contains(&plain.trim_end_matches(|c: char| c.is_ascii_digit())) && plain != SHELL {
                    self.reaches(text);
                }
            }
            // A tool by its name alone.
            (Inside::Tools, _) => self.reaches(text),
            _ => {}
        }
    }

    fn reaches(&mut self, what: &str) {
        self.more = true;
        self.reach.get_or_insert_with(|| what.chars().take(40).collect());
    }
}

/// Fields of messages that bring more input than their bytes.
const MORE_NAMES: [&str; 9] =
    ["imageurl", "fileurl", "fileid", "filedata", "fileuri", "inputaudio", "inlinedata", "audio", "videometadata"];
/// Parts of messages that do.
const MORE_TYPES: [&str; 9] = [
    "image",
    "document",
    "file",
    "inputimage",
    "inputfile",
    "inputaudio",
    "imageurl",
    "containerupload",
    "itemreference",
];
/// Gemini's tools that the provider runs, by the field that declares them.
const REACH_TOOLS: [&str; 8] = [
    "googlesearch",
    "googlesearchretrieval",
    "urlcontext",
    "codeexecution",
    "googlemaps",
    "filesearch",
    "enterprisewebsearch",
    "mcpservers",
];
/// Names and types of what is input and not in the body; a document's few bytes can be a thousand pages.
const HIDDEN: [&str; 9] =
    ["fileid", "fileurl", "fileuri", "filedata", "file", "inputfile", "document", "itemreference", "containerupload"];
/// Gemini's tools that the client runs.
const CLIENT_FIELDS: [&str; 2] = ["functiondeclarations", "computeruse"];
/// OpenAI's and Anthropic's tools that the client runs, and the search among the tools that are given; without the date at their end.
const CLIENT_TYPES: [&str; 13] = [
    "function",
    "custom",
    "namespace",
    "applypatch",
    "localshell",
    "bash",
    "texteditor",
    "memory",
    "computer",
    "computerusepreview",
    "toolsearch",
    "toolsearchtoolregex",
    "toolsearchtoolbm",
];
/// OpenAI's tool that runs in a container of the provider's, or at the client.
const SHELL: &str = "shell";

/// Where a shell runs.
#[derive(serde::Deserialize)]
struct Environment<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

/// Goes through a value and notes what it brings.
struct Walk<'a> {
    brings: &'a mut Brings,
    inside: Inside,
    /// The name of the field whose value this is, in canonical form.
    key: &'a str,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.brings.text(self.key, text, self.inside);
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Walk { brings: &mut *self.brings, inside: self.inside, key: self.key })?.is_some() {
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = if self.inside == Inside::Tools { Inside::Tool } else { self.inside };
        let (mut shell, mut local, mut elsewhere) = (false, false, false);
        while let Some(Name(name)) = map.next_key()? {
            let key = canonical(name);
            self.brings.name(&key, inside);
            match (inside, &*key) {
                (Inside::Tool, "environment") => {
                    let environment: &RawValue = map.next_value()?;
                    let at: Result<Environment<'_>, _> = serde_json::from_str(environment.get());
                    let is_local = at.is_ok_and(|at| at.r#type == "local");
                    (local, elsewhere) = (local || is_local, elsewhere || !is_local);
                    continue;
                }
                (Inside::Tool, "type") => {
                    let kind: &RawValue = map.next_value()?;
                    if let Ok(Name(kind)) = serde_json::from_str::<Name<'_>>(kind.get()) {
                        shell |= canonical(kind.clone()) == SHELL;
                        self.brings.text("type", &kind, inside);
                    }
                    continue;
                }
                // Tools in a group of tools, and those that a message brings.
                (Inside::Tool | Inside::Messages, "tools") => {
                    map.next_value_seed(Walk { brings: &mut *self.brings, inside: Inside::Tools, key: "" })?;
                    continue;
                }
                _ => {}
            }
            // What a model gave to a tool and what came back is text to the provider, whatever its fields are called; so are the
            // schemas of tools.
            let inert = match inside {
                Inside::Messages => matches!(&*key, "input" | "args" | "arguments" | "response"),
                Inside::Tool | Inside::Tools => true,
            };
            match inert {
                true => drop(map.next_value::<IgnoredAny>()?),
                false => map.next_value_seed(Walk { brings: &mut *self.brings, inside, key: &key })?,
            }
        }
        if shell && (elsewhere || !local) {
            self.brings.reaches(SHELL);
        }
        Ok(())
    }
}

/// How many prompts a list holds: texts or lists of tokens are one each, a list of numbers is one prompt as tokens. Counted
/// without keeping them: a body can hold millions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prompts {
    elements: u64,
    numbers: u64,
}

impl Prompts {
    pub(super) fn count(self) -> u64 {
        if self.numbers == self.elements { 1 } else { self.elements }
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PromptsVisitor)
    }
}

struct PromptsVisitor;

impl<'de> Visitor<'de> for PromptsVisitor {
    type Value = Prompts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of prompts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
        let mut prompts = Prompts::default();
        while let Some(element) = seq.next_element::<&RawValue>()? {
            prompts.elements += 1;
            prompts.numbers += u64::from(element.get().starts_with(|c: char| c.is_ascii_digit()));
        }
        Ok(prompts)
    }
}
