//! Saying no in the shape in which the provider itself does.
//!
//! Clients' libraries turn these shapes into their own exceptions and decide by them whether to try again. Sources: OpenAI and
//! Anthropic API references ("Errors"), Google's `google.rpc.Status`. `x-should-retry` is read by the libraries of OpenAI and
//! Anthropic: without it they try a spent budget twice more.

use super::body::{Body, full};
use super::spec::Provider;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// When to ask again where waiting does not help: some clients know nothing but this header.
const RETRY_NEVER: Duration = Duration::from_secs(24 * 3600);

/// What kind of no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// The request can't be read, or asks for what is not passed on.
    Invalid,
    /// It carries a key of its own.
    Key,
    /// The path or method is not on the list.
    NotAllowed,
    /// The body is too large.
    TooLarge,
    /// A limit by time or number.
    RateLimited,
    /// A cap of money.
    SpendCap,
    /// Too much is under way here.
    Busy,
    /// The upstream can't be reached or makes no sense.
    Upstream,
    /// The upstream is silent.
    Stalled,
}

impl Trouble {
    /// A word for metrics and audit that stays.
    pub fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Key => "own-key",
            Self::NotAllowed => "not-allowed",
            Self::TooLarge => "too-large",
            Self::RateLimited => "rate-limited",
            Self::SpendCap => "spend-cap",
            Self::Busy => "busy",
            Self::Upstream => "upstream",
            Self::Stalled => "stalled",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Key => StatusCode::UNAUTHORIZED,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited | Self::SpendCap => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream => StatusCode::BAD_GATEWAY,
            Self::Stalled => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// OpenAI's type and code.
    fn openai(self) -> (&'static str, &'static str) {
        match self {
            Self::Invalid | Self::TooLarge => ("invalid_request_error", "agt_invalid_request"),
            Self::Key => ("invalid_request_error", "invalid_api_key"),
            Self::NotAllowed => ("invalid_request_error", "agt_not_allowed"),
            Self::RateLimited => ("requests", "rate_limit_exceeded"),
            Self::SpendCap => ("insufficient_quota", "insufficient_quota"),
            Self::Busy | Self::Upstream => ("server_error", "agt_upstream"),
            Self::Stalled => ("server_error", "agt_upstream_timeout"),
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_request_error",
            Self::Key => "authentication_error",
            Self::NotAllowed => "permission_error",
            Self::TooLarge => "request_too_large",
            Self::RateLimited | Self::SpendCap => "rate_limit_error",
            Self::Busy => "overloaded_error",
            Self::Upstream => "api_error",
            Self::Stalled => "timeout_error",
        }
    }

    fn google(self) -> &'static str {
        match self {
            Self::Invalid | Self::TooLarge => "INVALID_ARGUMENT",
            Self::Key => "UNAUTHENTICATED",
            Self::NotAllowed => "PERMISSION_DENIED",
            Self::RateLimited | Self::SpendCap => "RESOURCE_EXHAUSTED",
            Self::Busy | Self::Upstream => "UNAVAILABLE",
            Self::Stalled => "DEADLINE_EXCEEDED",
        }
    }
}

/// When the client may ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// As it does by itself.
    AsUsual,
    After(Duration),
    /// Not by waiting.
    Never,
}

/// A no with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    trouble: Trouble,
    message: String,
    again: Again,
}

impl Problem {
    /// A no of this kind; the client's library decides whether it tries again.
    pub(super) fn new(trouble: Trouble, message: impl std::fmt::Display) -> Self {
        Self { trouble, message: message.to_string(), again: Again::AsUsual }
    }

    /// A no that another try does not change.
    pub(super) fn lasting(trouble: Trouble, message: impl std::fmt::Display) -> Self {
        Self { again: Again::Never, ..Self::new(trouble, message) }
    }

    /// A limit's no.
    pub(super) fn limited(trouble: Trouble, message: impl std::fmt::Display, retry_after: Option<Duration>) -> Self {
        Self { again: retry_after.map_or(Again::Never, Again::After), ..Self::new(trouble, message) }
    }

    /// What kind.
    pub fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// Its words.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn seconds(&self) -> Option<u64> {
        let wait = match self.again {
            Again::AsUsual => return None,
            Again::After(wait) => wait,
            Again::Never => RETRY_NEVER,
        };
        Some((wait.as_millis().div_ceil(1000) as u64).clamp(1, RETRY_NEVER.as_secs()))
    }

    /// The JSON that `provider` would send.
    pub fn json(&self, provider: Provider) -> String {
        let (message, trouble) = (format!("agt-supervise: {}", self.message), self.trouble);
        match provider {
            Provider::OpenAi => {
                let (kind, code) = trouble.openai();
                json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
            }
            Provider::Anthropic => json!({"type": "error", "error": {"type": trouble.anthropic(), "message": message}}),
            Provider::Gemini => {
                let details = match (trouble.status(), self.seconds()) {
                    (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) => {
                        json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{seconds}s")}])
                    }
                    _ => json!([]),
                };
                let code = trouble.status().as_u16();
                json!({"error": {"code": code, "message": message, "status": trouble.google(), "details": details}})
            }
        }
        .to_string()
    }

    /// The same within a stream that has begun.
    pub(super) fn event(&self, provider: Provider) -> String {
        match provider {
            Provider::Anthropic => format!("event: error\ndata: {}\n\n", self.json(provider)),
            Provider::OpenAi | Provider::Gemini => format!("data: {}\n\n", self.json(provider)),
        }
    }

    /// The answer to the agent.
    pub fn response(&self, provider: Provider) -> Response<Body> {
        self.answer(provider).map(full)
    }

    /// The answer with its text as it is.
    pub(super) fn answer(&self, provider: Provider) -> Response<String> {
        let mut response = Response::new(self.json(provider));
        *response.status_mut() = self.trouble.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let limited = self.trouble.status() == StatusCode::TOO_MANY_REQUESTS;
        if let Some(seconds) = self.seconds().filter(|_| limited) {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.again == Again::Never {
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::Value;

    #[test]
    fn a_limit_is_said_as_the_provider_says_it() {
        let problem = Problem::limited(Trouble::RateLimited, "6 calls a minute", Some(Duration::from_millis(9_100)));
        for (provider, pointer, value) in [
            (Provider::OpenAi, "/error/code", json!("rate_limit_exceeded")),
            (Provider::Anthropic, "/error/type", json!("rate_limit_error")),
            (Provider::Gemini, "/error/details/0/retryDelay", json!("10s")),
        ] {
            let response = problem.response(provider);
            assert_eq!(
                (response.status().as_u16(), &response.headers()["retry-after"]),
                (429, &HeaderValue::from_static("10"))
            );
            assert!(!response.headers().contains_key("x-should-retry"));
            let json: Value = serde_json::from_str(&problem.json(provider)).unwrap();
            assert_eq!(json.pointer(pointer), Some(&value));
        }
    }

    #[test]
    fn a_hard_stop_asks_nobody_to_try_again() {
        let problem = Problem::limited(Trouble::SpendCap, "the cap", None);
        let response = problem.response(Provider::OpenAi);
        assert_eq!(response.status().as_u16(), 429);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert_eq!(response.headers()["retry-after"], "86400");
        assert!(problem.json(Provider::OpenAi).contains("insufficient_quota"));
    }
}
