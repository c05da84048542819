//! What a request's body asks for: the model, how much at most, whether as a stream, and what it makes the provider do.
//!
//! The body goes on byte for byte as it came, because order and spelling of its fields can matter (schemas of structured output);
//! only where a stream's usage has to be asked for, that is put in as text. So that the provider reads what was read here, fields
//! given twice are refused, and so are those that only some servers would read for what they look like (`MAX_TOKENS`). What the size of
//! a request does not bound (files by name, images, earlier conversations) is bounded by what the model can take in at all.

use super::brings::{Brings, Inside, Name, Prompts, Tools, canonical};
use super::endpoint::Endpoint;
use super::spec::{AskUsage, Reach};
use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Tokens that a provider puts around what it is sent (forms of messages, instructions for tools).
const OVERHEAD_TOKENS: u64 = 2_048;
/// Longest options of a stream: they are written anew.
const OPTIONS_BYTES_MAX: usize = 4_096;
/// Longest name of a model.
const MODEL_BYTES_MAX: usize = 256;

/// A body that is not passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAsk {
    #[error("the body is no JSON object: {0}")]
    NoObject(String),
    #[error("the field {0} stands there twice")]
    Twice(String),
    #[error("the field {0} is one that some read as {1}: spell it so, or leave it out")]
    Spelling(String, &'static str),
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
    /// Whether there is input that is not in the body.
    pub(super) hidden_input: bool,
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
    // Gemini alone has the model in the path.
    let tools = if path_model.is_some() { Tools::ByField } else { Tools::ByType };
    let mut fields =
        Fields { endpoint: Some(endpoint), brings: Brings { tools, ..Brings::default() }, ..Fields::default() };
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
    let hidden_input = fields.brings.hidden;
    Ok(Asked { model, max_output: fields.max_output, choices, stream, usage_is_ours, max_input, hidden_input, body })
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
    endpoint: Option<Endpoint>,
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
        let mut seen: Vec<Cow<'de, str>> = Vec::with_capacity(FIELDS_USUAL);
        while let Some(Name(name)) = map.next_key()? {
            let plain = canonical(name.clone());
            if seen.contains(&plain) {
                self.fields.wrong = Some(BadAsk::Twice(name.chars().take(40).collect()));
                return Err(serde::de::Error::custom("a field stands there twice"));
            }
            let raw: &RawValue = map.next_value()?;
            let taken = spelled(&name, &plain).and_then(|()| self.fields.take(&plain, raw, self.body));
            if let Err(wrong) = taken {
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

/// Room for the fields that most bodies have.
const FIELDS_USUAL: usize = 8;
/// Most fields at the top of a body.
const FIELDS_MAX: usize = 256;

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
                // Nothing is no bound: some take it for none.
                if self.bounds_output(name) {
                    self.max_output = self.max_output.max(most.filter(|most| *most > 0));
                }
            }
            "n" => self.choices = self.choices.max(value(raw, "n")?),
            "bestof" => self.best_of = value(raw, "best_of")?,
            "background" if value(raw, "background")?.unwrap_or(false) => return Err(BadAsk::Background),
            "servicetier" => usual(raw, "service_tier", &["auto", "default", "standard", "standard_only", "flex"])?,
            "speed" => usual(raw, "speed", &["standard"])?,
            "inferencegeo" => usual(raw, "inference_geo", &["global"])?,
            "streamoptions" if raw.get().len() > OPTIONS_BYTES_MAX => return Err(BadAsk::Field("stream_options")),
            "streamoptions" => {
                let options: Option<serde_json::Map<String, serde_json::Value>> = value(raw, "stream_options")?;
                let options = options.unwrap_or_default();
                self.asks_usage = options.get("include_usage") == Some(&true.into());
                let start = (raw.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
                self.stream_options = Some((start..start + raw.get().len(), options));
            }
            "generationconfig" => {
                // Serde would read a list as the fields in their order.
                if raw.get().starts_with('[') {
                    return Err(BadAsk::Field("generationConfig"));
                }
                let config: Option<GenerationConfig> = value(raw, "generationConfig")?;
                let config = config.unwrap_or_default();
                if matches!(self.endpoint, Some(Endpoint::Generate | Endpoint::StreamGenerate)) {
                    self.max_output = config.max_output_tokens.filter(|most| *most > 0);
                }
                self.choices = self.choices.max(config.candidate_count);
            }
            "prompt" if raw.get().starts_with('[') => {
                self.prompts = value::<Prompts>(raw, "prompt")?.map_or(1, Prompts::count);
            }
            // A prompt that the provider keeps, an earlier conversation, what is in its cache.
            "prompt" if raw.get().starts_with('{') => (self.brings.more, self.brings.hidden) = (true, true),
            "previousresponseid" | "conversation" | "cachedcontent" | "container" if raw.get() != "null" => {
                (self.brings.more, self.brings.hidden) = (true, true);
            }
            "mcpservers" | "websearchoptions" | "plugins" if !matches!(raw.get(), "null" | "[]") => {
                self.brings.more = true;
                self.brings.reach = Some(name.to_owned());
            }
            "tools" => self.walk(raw, Inside::Tools)?,
            "messages" | "input" | "contents" | "system" | "systeminstruction" | "requests" | "content"
            | "instructions" => {
                self.walk(raw, Inside::Messages)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether this call's provider reads the field as a bound of its output. Others pass over it, and what they pass over bounds
    /// nothing.
    fn bounds_output(&self, name: &str) -> bool {
        match self.endpoint {
            Some(Endpoint::Chat) => matches!(name, "maxtokens" | "maxcompletiontokens"),
            Some(Endpoint::Completions | Endpoint::Messages) => name == "maxtokens",
            Some(Endpoint::Responses) => name == "maxoutputtokens",
            _ => false,
        }
    }

    fn walk(&mut self, raw: &RawValue, inside: Inside) -> Result<(), BadAsk> {
        self.brings.walk(raw, inside).map_err(|error| BadAsk::NoObject(error.to_string()))
    }
}

/// Fields that are read here, in the two spellings that providers have.
const SPELLINGS: [(&str, &str); 30] = [
    ("model", "model"),
    ("stream", "stream"),
    ("max_tokens", "maxTokens"),
    ("max_completion_tokens", "maxCompletionTokens"),
    ("max_output_tokens", "maxOutputTokens"),
    ("n", "n"),
    ("best_of", "bestOf"),
    ("background", "background"),
    ("service_tier", "serviceTier"),
    ("speed", "speed"),
    ("inference_geo", "inferenceGeo"),
    ("stream_options", "streamOptions"),
    ("generation_config", "generationConfig"),
    ("prompt", "prompt"),
    ("previous_response_id", "previousResponseId"),
    ("conversation", "conversation"),
    ("cached_content", "cachedContent"),
    ("container", "container"),
    ("mcp_servers", "mcpServers"),
    ("web_search_options", "webSearchOptions"),
    ("plugins", "plugins"),
    ("tools", "tools"),
    ("messages", "messages"),
    ("input", "input"),
    ("contents", "contents"),
    ("system", "system"),
    ("system_instruction", "systemInstruction"),
    ("requests", "requests"),
    ("content", "content"),
    ("instructions", "instructions"),
];
/// Those of them that Gemini has, which reads both spellings; the others read the first.
const IN_BOTH: [&str; 5] = ["generation_config", "cached_content", "system_instruction", "service_tier", "mcp_servers"];

/// Whether a field that is read here is spelled as it is read: servers that do not mind case and those that pass over what they do not
/// know would make two things of another spelling.
fn spelled(name: &str, plain: &str) -> Result<(), BadAsk> {
    // Most are spelled well.
    let read = |(snake, camel): &&(&str, &str)| *snake == name || camel.eq_ignore_ascii_case(plain);
    let Some((snake, camel)) = SPELLINGS.iter().find(read) else { return Ok(()) };
    match *snake == name || *camel == name && IN_BOTH.contains(snake) {
        true => Ok(()),
        false => Err(BadAsk::Spelling(name.chars().take(40).collect(), snake)),
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

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
