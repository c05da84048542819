//! What a provider's path does: which calls are allowed, and how each is metered.

use super::spec::Provider;
use crate::usage::Shape;
use hyper::Method;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// OpenAI's Chat Completions.
    Chat,
    /// OpenAI's Completions.
    Completions,
    /// OpenAI's Responses.
    Responses,
    /// OpenAI's embeddings.
    Embeddings,
    /// Anthropic's Messages.
    Messages,
    /// Gemini's generateContent.
    Generate,
    /// Gemini's streamGenerateContent.
    StreamGenerate,
    /// Gemini's embedContent and batchEmbedContents.
    Embed,
    /// Counting tokens: free, its body is read all the same.
    Count,
    /// Lists and what the operator allowed besides: nothing is metered but the call.
    Free,
}

impl Endpoint {
    /// In which shape its answer tells its usage.
    pub fn shape(self) -> Option<Shape> {
        match self {
            Self::Chat | Self::Completions | Self::Embeddings => Some(Shape::Chat),
            Self::Responses => Some(Shape::Responses),
            Self::Messages => Some(Shape::Messages),
            Self::Generate | Self::StreamGenerate | Self::Embed => Some(Shape::Gemini),
            Self::Count | Self::Free => None,
        }
    }

    /// `gen_ai.operation.name` of OpenTelemetry.
    pub fn operation(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Messages => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings | Self::Embed => "embeddings",
            Self::Generate | Self::StreamGenerate => "generate_content",
            Self::Count => "count_tokens",
            Self::Free => "other",
        }
    }

    /// Whether it makes text.
    pub(super) fn makes_output(self) -> bool {
        !matches!(self, Self::Embeddings | Self::Embed | Self::Count | Self::Free)
    }
}

/// A path that is allowed, and what stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) endpoint: Endpoint,
    /// Gemini has the model in the path.
    pub(super) model: Option<String>,
}

/// Most parts of a path in the lists below.
const PARTS_MAX: usize = 3;

/// What `method` of the normal `path` does, if the provider's list has it.
pub(super) fn find(provider: Provider, method: &Method, path: &str) -> Option<Found> {
    let (mut parts, mut count) = ([""; PARTS_MAX], 0);
    for part in path[1..].split('/') {
        *parts.get_mut(count)? = part;
        count += 1;
    }
    let found = |endpoint| Some(Found { endpoint, model: None });
    match (provider, method.as_str(), &parts[..count]) {
        (Provider::OpenAi, "POST", ["v1", "chat", "completions"]) => found(Endpoint::Chat),
        (Provider::OpenAi, "POST", ["v1", "completions"]) => found(Endpoint::Completions),
        (Provider::OpenAi, "POST", ["v1", "responses"]) => found(Endpoint::Responses),
        (Provider::OpenAi, "POST", ["v1", "embeddings"]) => found(Endpoint::Embeddings),
        (Provider::OpenAi | Provider::Anthropic, "GET", ["v1", "models"] | ["v1", "models", _]) => {
            found(Endpoint::Free)
        }
        (Provider::Anthropic, "POST", ["v1", "messages"]) => found(Endpoint::Messages),
        (Provider::Anthropic, "POST", ["v1", "messages", "count_tokens"]) => found(Endpoint::Count),
        (Provider::Gemini, "GET", ["v1" | "v1beta", "models"]) => found(Endpoint::Free),
        (Provider::Gemini, "GET", ["v1" | "v1beta", "models", model]) if !model.contains(':') => found(Endpoint::Free),
        (Provider::Gemini, "POST", ["v1" | "v1beta", "models", call]) => {
            let (model, verb) = call.split_once(':')?;
            let endpoint = match verb {
                "generateContent" => Endpoint::Generate,
                "streamGenerateContent" => Endpoint::StreamGenerate,
                "embedContent" | "batchEmbedContents" => Endpoint::Embed,
                "countTokens" => Endpoint::Count,
                _ => return None,
            };
            (!model.is_empty()).then(|| Found { endpoint, model: Some(model.to_owned()) })
        }
        _ => None,
    }
}

/// Query parameters that are passed on; keys among them would be the agent's own.
const QUERY: [&str; 10] =
    ["alt", "$alt", "after", "after_id", "before_id", "beta", "limit", "order", "pageSize", "pageToken"];

/// The first parameter of a query that is not passed on.
pub(super) fn foreign_parameter(query: &str) -> Option<&str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let plain = |value: &str| value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%=+:,".contains(&b));
    // Other forms of answers (`proto`, `media`) could not be read.
    let readable = |name: &str, value: &str| !name.ends_with("alt") || matches!(value, "sse" | "json");
    let passes = |name: &str, value: &str| QUERY.contains(&name) && plain(value) && readable(name, value);
    pairs.into_iter().find(|(name, value)| !passes(name, value)).map(|(name, _)| name)
}

/// A call that the operator allowed besides.
#[derive(Clone, Debug)]
pub(super) struct Extra {
    method: Method,
    parts: Vec<String>,
}

impl Extra {
    /// `GET /v1/files/*`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (method, path) = text.split_once(' ')?;
        let method = ["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method).then(|| method.parse().ok())??;
        let parts: Vec<String> = path.trim().strip_prefix('/')?.split('/').map(str::to_owned).collect();
        let sound = |part: &String| {
            part == "*" || super::path::normal(&format!("/{part}")).as_deref() == Ok(&format!("/{part}"))
        };
        parts.iter().all(sound).then_some(Self { method, parts })
    }

    pub(super) fn allows(&self, method: &Method, path: &str) -> bool {
        let parts: Vec<&str> = path[1..].split('/').collect();
        self.method == method
            && parts.len() == self.parts.len()
            && self.parts.iter().zip(parts).all(|(allowed, part)| allowed == "*" || allowed == part)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_inference_and_lists_are_found() {
        use Provider::{Anthropic, Gemini, OpenAi};
        let endpoint = |provider, method: Method, path| find(provider, &method, path).map(|found| found.endpoint);
        assert_eq!(endpoint(OpenAi, Method::POST, "/v1/chat/completions"), Some(Endpoint::Chat));
        assert_eq!(endpoint(OpenAi, Method::GET, "/v1/models/gpt-4o"), Some(Endpoint::Free));
        assert_eq!(endpoint(Anthropic, Method::POST, "/v1/messages/count_tokens"), Some(Endpoint::Count));
        let found = find(Gemini, &Method::POST, "/v1beta/models/gemini-2.5-pro:streamGenerateContent").unwrap();
        assert_eq!((found.endpoint, found.model.as_deref()), (Endpoint::StreamGenerate, Some("gemini-2.5-pro")));
        for (provider, method, path) in [
            (OpenAi, Method::GET, "/v1/chat/completions"),
            (OpenAi, Method::DELETE, "/v1/models/gpt-4o"),
            (OpenAi, Method::GET, "/v1/files"),
            (OpenAi, Method::POST, "/v1/organization/admin_api_keys"),
            (OpenAi, Method::GET, "/v1/organization/costs"),
            (OpenAi, Method::POST, "/v1/chat/completions/x"),
            (OpenAi, Method::POST, "/V1/chat/completions"),
            (OpenAi, Method::POST, "/v1/messages"),
            (Anthropic, Method::POST, "/v1/messages/batches"),
            (Anthropic, Method::GET, "/v1/organizations/api_keys"),
            (Gemini, Method::POST, "/v1beta/models/x:predictLongRunning"),
            (Gemini, Method::POST, "/v1beta/models/:generateContent"),
            (Gemini, Method::POST, "/v1beta/tunedModels/x:generateContent"),
            (Gemini, Method::POST, "/upload/v1beta/files"),
            (Gemini, Method::GET, "/v1beta/models/x:generateContent"),
        ] {
            assert_eq!(find(provider, &method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn keys_in_a_query_are_foreign_however_they_are_spelled() {
        assert_eq!(foreign_parameter("alt=sse&pageSize=5"), None);
        for query in [
            "key=x",
            "k%65y=x",
            "alt=sse&key=x",
            "access_token=x",
            "KEY=x",
            "alt=sse;key=x",
            "alt=sse&",
            "x",
            "alt=a b",
        ] {
            assert!(foreign_parameter(query).is_some(), "{query}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_allowed_as_said() {
        let extra = Extra::parse("GET /v1/files/*").unwrap();
        assert!(extra.allows(&Method::GET, "/v1/files/abc"));
        for (method, path) in
            [(Method::POST, "/v1/files/abc"), (Method::GET, "/v1/files"), (Method::GET, "/v1/files/a/b")]
        {
            assert!(!extra.allows(&method, path));
        }
        for bad in ["/v1/files", "TRACE /x", "CONNECT /x", "GET v1", "GET /a/../b", "GET /a%2fb", "GET /a//b"] {
            assert!(Extra::parse(bad).is_none(), "{bad}");
        }
    }
}
