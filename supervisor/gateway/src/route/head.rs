//! Headers of requests and answers: which pass.
//!
//! To the provider goes what is on a list, because with our key on it a header that is new tomorrow may mean another bill; to the
//! agent goes what is not on a list, because clients read many. The agent's own keys are refused rather than dropped: a program
//! that thinks it pays for itself should hear that it does not.

use super::redact::Needles;
use super::table::PLACEHOLDER_KEY;
use hyper::HeaderMap;
use hyper::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION,
};

/// Headers of the agent that go on.
const PASSED: [&str; 11] = [
    "accept",
    "accept-language",
    "content-type",
    "user-agent",
    "anthropic-version",
    "anthropic-beta",
    "openai-beta",
    "idempotency-key",
    "x-client-request-id",
    "x-goog-api-client",
    "traceparent",
];
/// Beginnings of such headers: what the providers' libraries say of themselves.
const PASSED_BEGINNINGS: [&str; 1] = ["x-stainless-"];
/// Headers that carry a key or say who pays.
const CREDENTIALS: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "api-key"];
const PAYERS: [&str; 7] = [
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
    "anthropic-workspace-id",
    "anthropic-organization-id",
    "x-goog-authenticated-user-email",
    "x-goog-iam-authorization-token",
];

/// A head that is not passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error(
        "the header {0} carries a key of your own: this route puts its own key on, send `{PLACEHOLDER_KEY}` or none"
    )]
    Key(String),
    #[error("the header {0} is not passed on: the operator decides whose account pays")]
    Payer(String),
    #[error("the header {0} stands there twice")]
    Twice(String),
    #[error("the body is encoded ({0}): send it plain")]
    Encoded(String),
}

/// The headers that go on to the provider, without the key.
pub(super) fn outgoing(headers: HeaderMap, extra: &[HeaderName]) -> Result<HeaderMap, BadHead> {
    check(&headers, extra)?;
    let mut out = HeaderMap::with_capacity(headers.len() + HEADERS_MORE);
    let mut last = None;
    // Moved, not copied; of a name that is there twice only the first comes with it.
    for (name, value) in headers {
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| passes(name, extra)) {
            out.append(name, value);
        }
    }
    out.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(out)
}

/// Headers that a request gets here: what it accepts, where it goes, the key, its length.
const HEADERS_MORE: usize = 4;

fn passes(name: &HeaderName, extra: &[HeaderName]) -> bool {
    let text = name.as_str();
    PASSED.contains(&text) || PASSED_BEGINNINGS.iter().any(|begin| text.starts_with(begin)) || extra.contains(name)
}

/// Whether every header may be there as it is.
fn check(headers: &HeaderMap, extra: &[HeaderName]) -> Result<(), BadHead> {
    for name in headers.keys() {
        let text = name.as_str();
        if CREDENTIALS.contains(&text) || *name == PROXY_AUTHORIZATION || *name == COOKIE {
            if !headers.get_all(name).iter().all(is_placeholder) {
                return Err(BadHead::Key(text.to_owned()));
            }
        } else if PAYERS.contains(&text) {
            return Err(BadHead::Payer(text.to_owned()));
        } else if *name == CONTENT_ENCODING {
            let plain = headers.get_all(name).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
            if !plain {
                return Err(BadHead::Encoded(shown(headers, name)));
            }
        } else if passes(name, extra) {
            // Lists may be split over lines; whatever else is there twice, the two sides could read differently.
            let list = matches!(text, "accept" | "accept-language" | "anthropic-beta" | "openai-beta");
            if !list && headers.get_all(name).iter().nth(1).is_some() {
                return Err(BadHead::Twice(text.to_owned()));
            }
        }
    }
    Ok(())
}

fn shown(headers: &HeaderMap, name: &HeaderName) -> String {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).chars().take(40).collect())
        .unwrap_or_default()
}

/// Nothing, or the key that is no key, with or without the word before it.
fn is_placeholder(value: &HeaderValue) -> bool {
    let text = value.as_bytes().trim_ascii();
    let bare = match text.get(..7) {
        Some(begin) if begin.eq_ignore_ascii_case(b"bearer ") => text[7..].trim_ascii(),
        _ => text,
    };
    bare.is_empty() || bare.eq_ignore_ascii_case(b"bearer") || bare == PLACEHOLDER_KEY.as_bytes()
}

/// Headers of answers that stay here: of the connection, of the account behind the key, and such as would make a client keep
/// something for the provider's name.
const KEPT: [&str; 17] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
    "openai-organization",
    "openai-project",
    "anthropic-organization-id",
    "proxy-connection",
    "server-timing",
    "report-to",
];

/// The headers that go back to the agent, with copies of the key taken out.
pub(super) fn incoming(headers: HeaderMap, needles: &Needles) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let stays = |name: &HeaderName| KEPT.contains(&name.as_str()) || named.iter().any(|kept| kept == name.as_str());
    // Nearly all are as they should be.
    if !headers.iter().any(|(name, value)| stays(name) || needles.clean(value.as_bytes()).is_some()) {
        return headers;
    }
    let mut out = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !stays(name)) {
        let value = match needles.clean(value.as_bytes()) {
            Some(clean) => HeaderValue::from_maybe_shared(clean.freeze()).unwrap_or(HeaderValue::from_static("***")),
            None => value.clone(),
        };
        out.append(name, value);
    }
    out
}

/// Whether an answer comes as it is, not compressed.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        let text = value.as_bytes().trim_ascii();
        text.is_empty() || text.eq_ignore_ascii_case(b"identity")
    })
}

/// Whether an answer is a stream of events.
pub(super) fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(hyper::header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"))
}

/// How long an answer says it is.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn keys_and_payers_of_the_agent_are_refused() {
        for name in ["authorization", "x-api-key", "x-goog-api-key", "api-key", "proxy-authorization", "cookie"] {
            let refused = outgoing(headers(&[(name, "sk-of-the-agent")]), &[]);
            assert_eq!(refused, Err(BadHead::Key(name.to_owned())));
            let second = outgoing(headers(&[(name, PLACEHOLDER_KEY), (name, "sk-of-the-agent")]), &[]);
            assert!(second.is_err(), "{name}");
            for none in ["", PLACEHOLDER_KEY, &format!("Bearer {PLACEHOLDER_KEY}"), "Bearer "] {
                let out = outgoing(headers(&[(name, none)]), &[]).unwrap();
                assert!(!out.contains_key(name), "{name}: {none}");
            }
        }
        for name in PAYERS {
            assert_eq!(outgoing(headers(&[(name, "x")]), &[]), Err(BadHead::Payer(name.to_owned())));
        }
    }

    #[test]
    fn only_listed_headers_go_out() {
        let sent = headers(&[
            ("content-type", "application/json"),
            ("x-stainless-lang", "python"),
            ("host", "127.0.0.1"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "1.2.3.4"),
            ("connection", "content-type"),
            ("accept-encoding", "gzip, br"),
            ("x-http-method-override", "DELETE"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
        ]);
        let out = outgoing(sent, &[HeaderName::from_static("x-mine")]).unwrap();
        let mut names: Vec<&str> = out.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept-encoding", "content-type", "x-mine", "x-stainless-lang"]);
        assert_eq!(out["accept-encoding"], "identity");
        let lists = outgoing(headers(&[("anthropic-beta", "a"), ("anthropic-beta", "b")]), &[]).unwrap();
        assert_eq!(lists.get_all("anthropic-beta").iter().count(), 2);
        assert!(outgoing(headers(&[("content-encoding", "gzip")]), &[]).is_err());
        assert!(outgoing(headers(&[("content-type", "a"), ("content-type", "b")]), &[]).is_err());
    }

    #[test]
    fn answers_lose_the_account_and_copies_of_the_key() {
        let needles = Needles::new(["sk-secret-0123".to_owned()]);
        let sent = headers(&[
            ("content-type", "text/plain"),
            ("x-echo", "Bearer sk-secret-0123!"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("set-cookie", "a=b"),
            ("openai-organization", "acme"),
        ]);
        let out = incoming(sent, &needles);
        assert_eq!(out.len(), 2);
        assert_eq!(out["x-echo"], "Bearer **************!");
    }

    #[test]
    fn compression_is_noticed() {
        assert!(is_plain(&headers(&[("content-encoding", "identity")])));
        assert!(!is_plain(&headers(&[("content-encoding", "gzip")])));
        assert!(is_events(&headers(&[("content-type", "text/event-stream; charset=utf-8")])));
    }
}
