//! What the agent is told when the answer is no, or when there is none.
//!
//! As data, for agents loop on what they don't understand: a denial says that it is policy, which rule, and that a retry will not
//! help. Clients show little of an answer to CONNECT, most only its first line: so the reason phrase says it too.

use std::time::Duration;

use bytes::Bytes;
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use super::body::Body;
use super::head::BadHead;
use crate::flow::Wait;
use crate::hook::Failure;
use crate::limit::rate::{RULE, TooMany};
use crate::live::NoWay;
use crate::policy::{Ask, Denial};

/// A policy said no.
pub(super) fn denied(denial: &Denial, ask: Option<&Ask>) -> Response<Body> {
    let message = ask.map_or_else(|| format!("denied: rule {}", denial.rule), |ask| denial.about(ask).to_string());
    let phrase = format!("Denied by policy ({}, rule {})", denial.reason, denial.rule);
    let error = json!({
        "type": "denied_by_policy",
        "reason": denial.reason.word(),
        "rule": denial.rule.to_string(),
        "message": message,
        "help": ask.and_then(|ask| denial.help(ask)),
        "retry": false,
    });
    answer(StatusCode::FORBIDDEN, Some(&phrase), error)
}

/// The request has no one meaning.
pub(super) fn malformed(bad: BadHead) -> Response<Body> {
    let error = json!({ "type": "request_not_understood", "message": bad.to_string(), "retry": false });
    let mut answer = answer(bad.status(), None, error);
    // What follows on such a connection is not to be trusted either.
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// More requests than its rate lets through.
pub(super) fn too_many(too_many: &TooMany) -> Response<Body> {
    let seconds = seconds(too_many.retry_after);
    let error = json!({
        "type": "too_many_requests",
        "rule": RULE,
        "message": format!("denied: {too_many} (rule {RULE})"),
        "retry": true,
        "retry_after_s": seconds,
    });
    let phrase = format!("Too Many Requests (rule {RULE}, again in {seconds} s)");
    let mut answer = answer(StatusCode::TOO_MANY_REQUESTS, Some(&phrase), error);
    answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    answer
}

/// Whole seconds, one at least: to come back too early is to be refused again.
fn seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
}

/// There is nothing at this path of the gateway.
pub(super) fn no_route(path: &str) -> Response<Body> {
    let shown: String = path.chars().take(100).collect();
    let message = format!("there is no model route at {shown}");
    answer(StatusCode::NOT_FOUND, None, json!({ "type": "no_such_route", "message": message, "retry": false }))
}

/// No connection came about.
pub(super) fn no_way(way: &NoWay) -> Option<Response<Body>> {
    Some(match way {
        NoWay::Denied(denial, ask) => denied(denial, Some(ask)),
        NoWay::Unreachable(message) => {
            let error = json!({ "type": "destination_unreachable", "message": message, "retry": true });
            answer(StatusCode::BAD_GATEWAY, None, error)
        }
        NoWay::TimedOut => timed_out(Wait::Connect),
        NoWay::Failed(failure) => return failed(*failure),
        NoWay::Untrusted(denial, message) => untrusted(denial, message),
    })
}

/// The destination is not who it should be. No program of the agent sees that by itself any more: it is told as plainly as a
/// browser would, and with the status of a gateway whose upstream is at fault.
fn untrusted(denial: &Denial, message: &str) -> Response<Body> {
    let phrase = format!("Destination not trusted ({}, rule {})", denial.reason, denial.rule);
    let error = json!({
        "type": "destination_not_trusted",
        "reason": denial.reason.word(),
        "rule": denial.rule.to_string(),
        "message": message,
        "retry": false,
    });
    answer(StatusCode::BAD_GATEWAY, Some(&phrase), error)
}

/// A wait of ours ran out.
pub(super) fn timed_out(wait: Wait) -> Response<Body> {
    let error = json!({ "type": wait.word(), "message": "the destination did not answer in time", "retry": true });
    answer(StatusCode::GATEWAY_TIMEOUT, None, error)
}

/// The destination broke off before its answer.
pub(super) fn broken() -> Response<Body> {
    let message = "the destination broke off, or answered what is not HTTP/1.1";
    answer(StatusCode::BAD_GATEWAY, None, json!({ "type": "destination_broke_off", "message": message, "retry": true }))
}

/// A hook's will, where a status can say it.
pub(super) fn failed(failure: Failure) -> Option<Response<Body>> {
    let status = match failure {
        Failure::Refused => StatusCode::BAD_GATEWAY,
        Failure::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Failure::Status(code @ 400..=599) => StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY),
        Failure::Status(_) => StatusCode::BAD_GATEWAY,
        Failure::Reset | Failure::Closed => return None,
    };
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    Some(answer)
}

fn answer(status: StatusCode, phrase: Option<&str>, error: serde_json::Value) -> Response<Body> {
    let mut text = json!({ "error": error }).to_string();
    text.push('\n');
    let mut answer = Response::new(Body::whole(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(phrase) = phrase.and_then(|text| ReasonPhrase::try_from(text.as_bytes()).ok()) {
        answer.extensions_mut().insert(phrase);
    }
    answer
}
