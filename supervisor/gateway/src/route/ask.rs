//! What a request's body asks for: the model, how much at most, whether as a stream, and what it makes the provider do.
//!
//! The body goes on byte for byte as it came, because order and spelling of its fields can matter (schemas of structured output);
//! only where a stream's usage has to be asked for, that is put in as text. So that the provider reads what was read here, fields
//! given twice are refused. What the size of a request does not bound (files by name, images, earlier conversations) is bounded by
//! what the model can take in at all.

use super::endpoint::Endpoint;
use super::spec::{AskUsage, Reach};
use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Tokens that a provider puts around what it is sent (forms of messages, instructions for tools).
const OVERHEAD_TOKENS: u64 = 2_048;
/// Longest name of a model.
const MODEL_BYTES_MAX: usize = 256;

/// A body that is not passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAsk {
    #[error("the body is no JSON object: {0}")]
    NoObject(String),
    #[error("the field {0} stands there twice")]
    Twice(String),
    #[error("the field {0} has no value that can be read")]
    Field(&'static str),
    #[error("the field model is missing")]
    NoModel,
    #[error("`background` is not passed on: its answer could not be metered")]
    Background,
    #[error("the field {0} asks for what the price table does not know")]
    Dearer(&'static str),
    #[error("{0} makes the provider reach out by itself, which is closed for this route (`reach: open` opens it)")]
    Reach(String),
}

/// A request that may be passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Empty where the call has none.
    pub(super) model: String,
    /// Most tokens of output, over all choices; none: as many as the model can give.
    pub(super) max_output: Option<u64>,
    /// How many answers.
    pub(super) choices: u64,
    pub(super) stream: bool,
    /// Usage was put into the request by us: the event that tells it is to be taken out.
    pub(super) usage_is_ours: bool,
    /// Most tokens of input; none: as many as the model can take.
    pub(super) max_input: Option<u64>,
    /// The body to send.
    pub(super) body: Bytes,
}

/// Reads the body of a metered call.
pub(super) fn read(
    endpoint: Endpoint,
    path_model: Option<&str>,
    body: Bytes,
    reach: Reach,
    ask_usage: AskUsage,
) -> Result<Asked, BadAsk> {
    let mut fields = Fields::default();
    let mut json = serde_json::Deserializer::from_slice(&body);
    let read = (&mut json).deserialize_map(Top { fields: &mut fields, body: &body });
    if let Err(error) = read.and_then(|()| json.end()) {
        return Err(fields.wrong.take().unwrap_or_else(|| BadAsk::NoObject(error.to_string())));
    }
    if let Some(wrong) = fields.wrong.take() {
        return Err(wrong);
    }
    if let (Reach::Closed, Some(what)) = (reach, fields.brings.reach.take()) {
        return Err(BadAsk::Reach(what));
    }
    let model = path_model.map(str::to_owned).or(fields.model.take());
    let model = model.filter(|model| !model.is_empty() && model.len() <= MODEL_BYTES_MAX).ok_or(BadAsk::NoModel)?;
    let stream = fields.stream || endpoint == Endpoint::StreamGenerate;
    let asks = stream && ask_usage == AskUsage::On && matches!(endpoint, Endpoint::Chat | Endpoint::Completions);
    let (body, usage_is_ours) = match asks && !fields.asks_usage {
        true => (with_usage(&body, &fields), true),
        false => (body, false),
    };
    let max_input = (!fields.brings.more).then(|| (body.len() as u64).saturating_add(OVERHEAD_TOKENS));
    let choices =
        fields.choices.unwrap_or(1).max(fields.best_of.unwrap_or(1)).max(1).saturating_mul(fields.prompts.max(1));
    Ok(Asked { model, max_output: fields.max_output, choices, stream, usage_is_ours, max_input, body })
}

/// The body with the stream's usage asked for: put in front, or in place of the options that are there.
fn with_usage(body: &Bytes, fields: &Fields) -> Bytes {
    const ASKED: &str = r#""include_usage":true"#;
    let mut out = Vec::with_capacity(body.len() + 64);
    match &fields.stream_options {
        None => {
            let open = body.iter().position(|b| *b == b'{').map_or(0, |at| at + 1);
            out.extend_from_slice(&body[..open]);
            out.extend_from_slice(format!(r#""stream_options":{{{ASKED}}},"#).as_bytes());
            out.extend_from_slice(&body[open..]);
        }
        Some((span, options)) => {
            let mut options = options.clone();
            options.insert("include_usage".to_owned(), true.into());
            out.extend_from_slice(&body[..span.start]);
            out.extend_from_slice(serde_json::Value::Object(options).to_string().as_bytes());
            out.extend_from_slice(&body[span.end..]);
        }
    }
    out.into()
}

#[derive(Debug, Default)]
struct Fields {
    model: Option<String>,
    max_output: Option<u64>,
    choices: Option<u64>,
    best_of: Option<u64>,
    /// OpenAI's Completions take many prompts at once, each with its own output.
    prompts: u64,
    stream: bool,
    asks_usage: bool,
    stream_options: Option<(std::ops::Range<usize>, serde_json::Map<String, serde_json::Value>)>,
    brings: Brings,
    wrong: Option<BadAsk>,
}

/// What the body brings that its size does not show.
#[derive(Debug, Default)]
struct Brings {
    /// More input than its bytes.
    more: bool,
    /// Something that the provider does by itself.
    reach: Option<String>,
}

/// Reads the fields at the top.
struct Top<'a> {
    fields: &'a mut Fields,
    body: &'a Bytes,
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let plain = canonical(&name);
            if seen.contains(&plain) {
                self.fields.wrong = Some(BadAsk::Twice(name.chars().take(40).collect()));
                return Err(serde::de::Error::custom("a field stands there twice"));
            }
            let raw: &RawValue = map.next_value()?;
            if let Err(wrong) = self.fields.take(&plain, raw, self.body) {
                self.fields.wrong = Some(wrong);
                return Err(serde::de::Error::custom("a field is wrong"));
            }
            // A thousand names at the top are no request; the search above would be slow.
            if seen.len() >= FIELDS_MAX {
                return Err(serde::de::Error::custom("too many fields"));
            }
            seen.push(plain);
        }
        Ok(())
    }
}

/// Most fields at the top of a body.
const FIELDS_MAX: usize = 256;

/// Gemini reads `generationConfig` and `generation_config` as one.
fn canonical(name: &str) -> String {
    name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

fn value<'a, T: serde::Deserialize<'a>>(raw: &'a RawValue, name: &'static str) -> Result<Option<T>, BadAsk> {
    serde_json::from_str(raw.get()).map_err(|_| BadAsk::Field(name))
}

impl Fields {
    fn take(&mut self, name: &str, raw: &RawValue, body: &Bytes) -> Result<(), BadAsk> {
        match name {
            "model" => self.model = value(raw, "model")?,
            "stream" => self.stream = value(raw, "stream")?.unwrap_or(false),
            "maxtokens" | "maxcompletiontokens" | "maxoutputtokens" => {
                let most: Option<u64> = value(raw, "max_tokens")?;
                self.max_output = self.max_output.max(most);
            }
            "n" => self.choices = value(raw, "n")?,
            "bestof" => self.best_of = value(raw, "best_of")?,
            "background" if value(raw, "background")?.unwrap_or(false) => return Err(BadAsk::Background),
            "servicetier" => usual(raw, "service_tier", &["auto", "default", "standard", "standard_only", "flex"])?,
            "speed" => usual(raw, "speed", &["standard"])?,
            "inferencegeo" => usual(raw, "inference_geo", &["global"])?,
            "streamoptions" => {
                let options: Option<serde_json::Map<String, serde_json::Value>> = value(raw, "stream_options")?;
                let options = options.unwrap_or_default();
                self.asks_usage = options.get("include_usage") == Some(&true.into());
                let start = (raw.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
                self.stream_options = Some((start..start + raw.get().len(), options));
            }
            "generationconfig" => {
                let config: Option<GenerationConfig> = value(raw, "generationConfig")?;
                let config = config.unwrap_or_default();
                self.max_output = config.max_output_tokens;
                self.choices = config.candidate_count;
            }
            "prompt" if raw.get().starts_with('[') => {
                let prompts: Vec<&RawValue> = value(raw, "prompt")?.unwrap_or_default();
                // A list of numbers is one prompt as tokens.
                let each = prompts.iter().any(|prompt| !prompt.get().starts_with(|c: char| c.is_ascii_digit()));
                self.prompts = if each { prompts.len() as u64 } else { 1 };
            }
            // A prompt that the provider keeps, an earlier conversation, what is in its cache.
            "prompt" if raw.get().starts_with('{') => self.brings.more = true,
            "previousresponseid" | "conversation" | "cachedcontent" | "container" if raw.get() != "null" => {
                self.brings.more = true;
            }
            "mcpservers" | "websearchoptions" if !matches!(raw.get(), "null" | "[]") => {
                self.brings.more = true;
                self.brings.reach = Some(name.to_owned());
            }
            "tools" => self.brings.walk(raw, Inside::Tools)?,
            "messages" | "input" | "contents" | "system" | "systeminstruction" | "requests" | "content"
            | "instructions" => {
                self.brings.walk(raw, Inside::Messages)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A dearer service than the table prices is refused, and so is one that nobody has seen yet.
fn usual(raw: &RawValue, name: &'static str, allowed: &[&str]) -> Result<(), BadAsk> {
    let asked: Option<String> = value(raw, name)?;
    match asked.is_none_or(|asked| allowed.contains(&asked.as_str())) {
        true => Ok(()),
        false => Err(BadAsk::Dearer(name)),
    }
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct GenerationConfig {
    #[serde(alias = "maxOutputTokens")]
    max_output_tokens: Option<u64>,
    #[serde(alias = "candidateCount")]
    candidate_count: Option<u64>,
}

/// Where in a body the walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Messages,
    /// In the list of tools, and at the top of one of them.
    Tools,
    Tool,
}

impl Brings {
    fn walk(&mut self, raw: &RawValue, inside: Inside) -> Result<(), BadAsk> {
        let mut json = serde_json::Deserializer::from_str(raw.get());
        Walk { brings: self, inside, key: "" }
            .deserialize(&mut json)
            .map_err(|error| BadAsk::NoObject(error.to_string()))
    }

    /// What a field's name brings.
    fn name(&mut self, key: &str, inside: Inside) {
        match inside {
            Inside::Messages => self.more |= MORE_NAMES.contains(&key),
            Inside::Tool if REACH_TOOLS.contains(&key) => self.reaches(key),
            _ => {}
        }
    }

    /// What a text brings by itself.
    fn text(&mut self, key: &str, text: &str, inside: Inside) {
        match (inside, key) {
            (Inside::Messages, "type") => self.more |= MORE_TYPES.contains(&canonical(text).as_str()),
            (Inside::Messages, "url" | "imageurl" | "fileurl" | "fileuri") => {
                self.more = true;
                if !text.trim_start().get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case("data:")) {
                    self.reaches(key);
                }
            }
            (Inside::Tool, "type") => {
                let plain = canonical(text);
                if REACH_TYPES.iter().any(|begin| plain.starts_with(begin)) {
                    self.reaches(text);
                }
            }
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
const REACH_TOOLS: [&str; 7] = [
    "googlesearch",
    "googlesearchretrieval",
    "urlcontext",
    "codeexecution",
    "googlemaps",
    "filesearch",
    "enterprisewebsearch",
];
/// OpenAI's and Anthropic's tools that the provider runs, by the beginning of their type.
const REACH_TYPES: [&str; 7] =
    ["websearch", "webfetch", "mcp", "codeinterpreter", "codeexecution", "filesearch", "imagegeneration"];

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
        while let Some(name) = map.next_key::<String>()? {
            let key = canonical(&name);
            self.brings.name(&key, inside);
            // What a model gave to a tool and what came back is text to the provider, whatever its fields are called; so are the
            // schemas of tools.
            let inert = match inside {
                Inside::Messages => matches!(key.as_str(), "input" | "args" | "arguments" | "response"),
                Inside::Tool | Inside::Tools => key != "type",
            };
            match inert {
                true => drop(map.next_value::<IgnoredAny>()?),
                false => map.next_value_seed(Walk { brings: &mut *self.brings, inside, key: &key })?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
