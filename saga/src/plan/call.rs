//! What a step does, as data: the seven kinds of work.
//!
//! Five of them are effects, which the caller performs ([`crate::driver::Steps`]); a wait and an approval are the machine's
//! own, for a timer and an operator's word need nobody's help. Data from earlier steps reaches a call as JSON values, under
//! the names of the step's inputs: nothing is ever pasted into a command line, and what is put into a URL is encoded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What one work does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// A process: the program and its arguments; never empty.
    Command(Vec<String>),
    /// A request over HTTP.
    Http(Http),
    /// A call of an MCP server's tool. Its arguments are the step's inputs.
    Mcp(Mcp),
    /// Another agent is given the step's inputs and answers as a process does.
    Agent(Delegate),
    /// Another saga, with the step's inputs as its parameters.
    Saga(SubSaga),
    /// A timer. The machine's own.
    Wait(Wait),
    /// Operators have to agree. The machine's own.
    Approval(Approval),
    /// The files of the step that were kept apart are dropped: the undo of `effects: files`.
    Discard,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// `GET`, `POST`, ...
    pub method: String,
    /// With `{NAME}` where an input's value stands.
    pub url: String,
    /// Parameters of the query, each with the name of the input that it carries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Fixed headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What is sent.
    #[serde(default, skip_serializing_if = "Body::is_none")]
    pub body: Body,
}

/// What a request sends, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Nothing.
    #[default]
    None,
    /// One input, as it is.
    Input(String),
    /// An object of these inputs.
    Inputs(Vec<String>),
}

impl Body {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// A tool of an MCP server that speaks over its standard input and output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mcp {
    /// The server: a program and its arguments; never empty.
    pub server: Vec<String>,
    /// The tool's name.
    pub tool: String,
}

/// An agent that does the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegate {
    /// Its agent.yaml; relative to the saga's file.
    pub file: String,
}

/// A saga inside a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubSaga {
    /// Its saga.yaml; relative to the saga's file.
    pub file: String,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// How long, in milliseconds.
    pub ms: u64,
}

/// A question to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who may answer, in the words of [`crate::record::Authority::by`]; any operator when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<String>,
    /// How many different people have to say yes; at least 1. One no is enough for no.
    pub quorum: u32,
    /// The question.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ask: String,
    /// The longest it stands open, in milliseconds; then it counts as refused. For ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A request with its inputs in their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, ...
    pub method: String,
    /// All of it, encoded.
    pub url: String,
    /// Fixed headers.
    pub headers: BTreeMap<String, String>,
    /// JSON to send.
    pub body: Option<Value>,
}

/// Why a request can't be made of its inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The input isn't there.
    #[error("there is no input `{name}`")]
    Missing {
        /// Which.
        name: String,
    },
    /// Lists and maps have no place in a URL.
    #[error("input `{name}` has no place in a URL: it is a list or a map")]
    NotPlain {
        /// Which.
        name: String,
    },
}

impl Call {
    /// The word for its kind, as the file has it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Http(_) => "http",
            Self::Mcp(_) => "mcp",
            Self::Agent(_) => "agent",
            Self::Saga(_) => "saga",
            Self::Wait(_) => "wait",
            Self::Approval(_) => "approval",
            Self::Discard => "discard",
        }
    }

    /// The program and its arguments, if it is a process.
    #[must_use]
    pub fn command(&self) -> Option<&[String]> {
        match self {
            Self::Command(words) => Some(words),
            _ => None,
        }
    }
}

impl Http {
    /// The names of inputs between braces in the URL, and whether every brace has its partner.
    #[must_use]
    pub fn placeholders(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        let mut rest = self.url.as_str();
        while let Some(open) = rest.find(['{', '}']) {
            let inside = rest[open..].strip_prefix('{')?;
            let close = inside.find(['{', '}']).filter(|at| inside[*at..].starts_with('}'))?;
            names.push(&inside[..close]);
            rest = &inside[close + 1..];
        }
        Some(names)
    }

    /// The names of all inputs that it uses.
    #[must_use]
    pub fn uses(&self) -> Vec<&str> {
        let mut names = self.placeholders().unwrap_or_default();
        names.extend(self.query.values().map(String::as_str));
        match &self.body {
            Body::None => {}
            Body::Input(name) => names.push(name),
            Body::Inputs(more) => names.extend(more.iter().map(String::as_str)),
        }
        names
    }

    /// The request of these inputs. Values in the URL are percent-encoded (RFC 3986, section 2.1), so that no value can
    /// change which resource is meant.
    ///
    /// # Errors
    /// [`FillError`] for an input that isn't there or has no place in a URL.
    pub fn fill(&self, inputs: &Map<String, Value>) -> Result<Request, FillError> {
        let mut url = String::new();
        let mut rest = self.url.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            url.push_str(before);
            url.push_str(&encoded(&plain(inputs, name)?));
            rest = after;
        }
        url.push_str(rest);
        for (number, (key, name)) in self.query.iter().enumerate() {
            url.push(if number == 0 && !url.contains('?') { '?' } else { '&' });
            url.push_str(&format!("{}={}", encoded(key), encoded(&plain(inputs, name)?)));
        }
        let whole = |name: &String| inputs.get(name).cloned().ok_or_else(|| FillError::Missing { name: name.clone() });
        let body = match &self.body {
            Body::None => None,
            Body::Input(name) => Some(whole(name)?),
            Body::Inputs(names) => {
                let object = names.iter().map(|name| Ok((name.clone(), whole(name)?)));
                Some(Value::Object(object.collect::<Result<_, FillError>>()?))
            }
        };
        Ok(Request { method: self.method.clone(), url, headers: self.headers.clone(), body })
    }
}

fn plain(inputs: &Map<String, Value>, name: &str) -> Result<String, FillError> {
    match inputs.get(name) {
        None => Err(FillError::Missing { name: name.to_owned() }),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(_) => Err(FillError::NotPlain { name: name.to_owned() }),
    }
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    // A segment of dots alone would climb up the path.
    if !encoded.is_empty() && encoded.bytes().all(|byte| byte == b'.') { encoded.replace('.', "%2E") } else { encoded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn http(url: &str) -> Http {
        let (query, headers) = (BTreeMap::from([("q".into(), "what".into())]), BTreeMap::new());
        Http { method: "POST".into(), url: url.into(), query, headers, body: Body::Inputs(vec!["id".into()]) }
    }

    #[test]
    fn a_value_in_a_url_can_name_no_other_resource() {
        let inputs = json!({"id": "../admin?x=1#y", "what": "a&b=c", "list": []});
        let request = http("https://h/orders/{id}").fill(inputs.as_object().unwrap()).unwrap();
        assert_eq!(request.url, "https://h/orders/..%2Fadmin%3Fx%3D1%23y?q=a%26b%3Dc");
        assert_eq!(request.body, Some(json!({"id": "../admin?x=1#y"})));
        let up = json!({"id": "..", "what": 1});
        assert_eq!(http("https://h/{id}/x").fill(up.as_object().unwrap()).unwrap().url, "https://h/%2E%2E/x?q=1");
        let fault = |url: &str| http(url).fill(inputs.as_object().unwrap()).unwrap_err();
        assert_eq!(fault("https://h/{other}"), FillError::Missing { name: "other".into() });
        assert_eq!(fault("https://h/{list}"), FillError::NotPlain { name: "list".into() });
    }

    #[test]
    fn a_brace_without_its_partner_is_noticed() {
        assert_eq!(http("https://h/{a}/{b}").placeholders(), Some(vec!["a", "b"]));
        for url in ["https://h/{a", "https://h/a}", "https://h/{{a}}"] {
            assert_eq!(http(url).placeholders(), None, "{url}");
        }
    }

    #[test]
    fn a_command_is_written_as_it_always_was() {
        let old = json!({"command": ["run"]});
        assert_eq!(serde_json::from_value::<Call>(old.clone()).unwrap(), Call::Command(vec!["run".into()]));
        assert_eq!(serde_json::to_value(Call::Command(vec!["run".into()])).unwrap(), old);
    }
}
