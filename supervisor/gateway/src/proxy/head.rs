//! Whether a request head, as hyper parsed it, may be understood at all: one meaning or none.
//!
//! hyper is lenient where others read differently (a second `Host`, a target that names another host than `Host` does, dot
//! segments, `TRACE`). What two readers could take for two things is refused here, before anything is decided; the rest is
//! written anew by [`super::rewrite`], so that nothing of the agent's own framing reaches the destination.

use std::borrow::Cow;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Uri, Version};

use crate::host::{Authority, Host};

/// The longest method that is understood; the longest registered one has 16 letters (IANA HTTP methods).
const METHOD_MAX: usize = 32;
/// How often a path is decoded to find dot segments under several coats; what still changes after that is refused.
const DECODE_MAX: usize = 4;
/// Fields whose meaning is this hop's framing or routing: naming them in `Connection` would take them away from us.
pub(super) const NEVER_NAMED: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING];

/// Where a request wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `CONNECT host:port`.
    Tunnel(Authority),
    /// `GET http://host[:port]/...`: the path with its query is in the request's URI.
    Outside(Authority),
    /// `GET /...`: for the gateway itself, a model route.
    Here,
}

/// Why a head is refused. `Display` is what the agent reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("the request has no Host")]
    NoHost,
    #[error("the request has more than one Host")]
    ManyHosts,
    #[error("Host is not a host with an optional port")]
    HostUnclear,
    #[error("Host names another host than the request's target")]
    HostDiffers,
    #[error("Host is not this gateway: to reach another host, use the absolute form or CONNECT")]
    NotHere,
    #[error("the target is not a host and a port")]
    Authority,
    #[error("the target carries a user name or a password")]
    UserInfo,
    #[error("only http: is fetched by its URL; for https: use CONNECT")]
    Scheme,
    #[error("this form of target is not understood")]
    Form,
    #[error("the path has dot segments")]
    DotSegments,
    #[error("the path has characters that have no place in one, or a broken percent-encoding")]
    Path,
    #[error("this method is not carried")]
    Method,
    #[error("the request says in two ways where its body ends")]
    Framing,
    #[error("only the transfer coding `chunked` is understood")]
    Coding,
    #[error("the body breaks the rules of its own framing")]
    Body,
    #[error("CONNECT has no body")]
    TunnelBody,
    #[error("Connection names a field that belongs to the message itself, or what is no name")]
    Named,
    #[error("a field name that others read as Content-Length, Transfer-Encoding or Host")]
    Alias,
    #[error("only `Expect: 100-continue` is understood")]
    Expect,
    #[error(
        "websockets are carried inside TLS only: use wss:, or list the destination as `tcp:` and reach it past the proxy"
    )]
    Websocket,
    #[error("websockets are not carried where the gateway opens TLS (`intercept: on`)")]
    OpenedWebsocket,
    #[error("inside a tunnel a request names its path alone")]
    OriginForm,
    #[error("only HTTP/1.0 and HTTP/1.1 are understood")]
    Version,
}

impl BadHead {
    /// The status that says it (RFC 9110).
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Method | Self::Coding | Self::Websocket | Self::OpenedWebsocket => StatusCode::NOT_IMPLEMENTED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            Self::NotHere => StatusCode::MISDIRECTED_REQUEST,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads where the request goes, or why it is not understood.
pub(crate) fn read(head: &Parts) -> Result<Target, BadHead> {
    if !matches!(head.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(BadHead::Version);
    }
    method(&head.method)?;
    fields(&head.headers)?;
    if head.method == Method::CONNECT {
        return tunnel(head);
    }
    let uri = &head.uri;
    path(uri)?;
    match uri.authority() {
        Some(authority) => {
            let scheme = uri.scheme_str().ok_or(BadHead::Form)?;
            if !scheme.eq_ignore_ascii_case("http") {
                return Err(BadHead::Scheme);
            }
            let to = place(authority.as_str(), 80)?;
            same(head, &to, 80)?;
            Ok(Target::Outside(to))
        }
        None if uri.path().starts_with('/') => {
            here(head)?;
            Ok(Target::Here)
        }
        None => Err(BadHead::Form),
    }
}

/// Reads a request out of a tunnel that was opened for `tunnel`: in origin form, for the same host. [`BadHead::HostDiffers`] is an
/// attempt to reach another site behind the same front.
pub(crate) fn read_opened(head: &Parts, tunnel: &Authority) -> Result<(), BadHead> {
    if !matches!(head.version, Version::HTTP_10 | Version::HTTP_11) {
        return Err(BadHead::Version);
    }
    method(&head.method)?;
    fields(&head.headers).map_err(|bad| match bad {
        BadHead::Websocket => BadHead::OpenedWebsocket,
        bad => bad,
    })?;
    if head.method == Method::CONNECT || head.uri.authority().is_some() || !head.uri.path().starts_with('/') {
        return Err(BadHead::OriginForm);
    }
    path(&head.uri)?;
    same(head, tunnel, 443)
}

fn tunnel(head: &Parts) -> Result<Target, BadHead> {
    let fields = &head.headers;
    if fields.contains_key(header::CONTENT_LENGTH) || fields.contains_key(header::TRANSFER_ENCODING) {
        return Err(BadHead::TunnelBody);
    }
    if head.uri.scheme().is_some() || head.uri.path_and_query().is_some_and(|path| path.as_str() != "") {
        return Err(BadHead::Form);
    }
    let text = head.uri.authority().ok_or(BadHead::Form)?.as_str();
    if text.contains('@') {
        return Err(BadHead::UserInfo);
    }
    let to = Authority::parse(text).map_err(|_| BadHead::Authority)?;
    // A client that leaves the port away in Host means the one in the target (RFC 9110, 7.2 has it repeat the target).
    same(head, &to, to.port)?;
    Ok(Target::Tunnel(to))
}

/// A host with an optional port.
fn place(text: &str, default: u16) -> Result<Authority, BadHead> {
    if text.contains('@') {
        return Err(BadHead::UserInfo);
    }
    Authority::with_default(text, default).map_err(|_| BadHead::Authority)
}

/// The one `Host` of a request, if it has one.
fn host(head: &Parts) -> Result<Option<&str>, BadHead> {
    let mut all = head.headers.get_all(header::HOST).iter();
    let first = all.next();
    if all.next().is_some() {
        return Err(BadHead::ManyHosts);
    }
    match first {
        Some(value) => value.to_str().map(Some).map_err(|_| BadHead::HostUnclear),
        // RFC 9112, 3.2: missing in HTTP/1.1 is an error; HTTP/1.0 knew no Host.
        None if head.version == Version::HTTP_10 => Ok(None),
        None => Err(BadHead::NoHost),
    }
}

/// `Host` says the same as the target, in whatever spelling.
fn same(head: &Parts, target: &Authority, default: u16) -> Result<(), BadHead> {
    let Some(text) = host(head)? else { return Ok(()) };
    let named = place(text, default).map_err(|_| BadHead::HostUnclear)?;
    if named == *target { Ok(()) } else { Err(BadHead::HostDiffers) }
}

/// A request in origin form is for us: `Host` is the loopback that it came by. Anything else is a client that takes us for
/// somebody else, or a page that was talked into it.
fn here(head: &Parts) -> Result<(), BadHead> {
    let Some(text) = host(head)? else { return Ok(()) };
    let named = place(text, 80).map_err(|_| BadHead::HostUnclear)?;
    match named.host {
        Host::Address(address) if address.is_loopback() => Ok(()),
        Host::Name(name) if name.as_str() == "localhost" => Ok(()),
        _ => Err(BadHead::NotHere),
    }
}

fn method(method: &Method) -> Result<(), BadHead> {
    let name = method.as_str();
    // TRACE and its kin send back what they got, credentials included. Lower case is another method for HTTP and the same
    // for careless servers.
    let echoes = ["TRACE", "TRACK", "DEBUG"].contains(&name);
    let plain = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-' || byte == b'_');
    if echoes || !plain || name.len() > METHOD_MAX { Err(BadHead::Method) } else { Ok(()) }
}

fn fields(fields: &HeaderMap) -> Result<(), BadHead> {
    let coding = fields.get_all(header::TRANSFER_ENCODING);
    let mut codings = coding.iter();
    if let Some(first) = codings.next() {
        if fields.contains_key(header::CONTENT_LENGTH) {
            return Err(BadHead::Framing);
        }
        if !first.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            return Err(BadHead::Coding);
        }
    }
    if fields.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(BadHead::Framing);
    }
    if let Some(value) = fields.get(header::EXPECT)
        && !value.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(BadHead::Expect);
    }
    if fields.get_all(header::UPGRADE).iter().flat_map(tokens).any(|word| word.eq_ignore_ascii_case("websocket")) {
        return Err(BadHead::Websocket);
    }
    // CGI and its heirs read `_` as `-`.
    let alias = |name: &HeaderName| matches!(name.as_str(), "content_length" | "transfer_encoding" | "host_");
    if fields.keys().any(alias) {
        return Err(BadHead::Alias);
    }
    let connection = fields.get_all(header::CONNECTION);
    if connection.iter().any(|value| value.to_str().is_err()) {
        return Err(BadHead::Named);
    }
    for word in connection.iter().flat_map(tokens) {
        if NEVER_NAMED.iter().any(|name| word.eq_ignore_ascii_case(name.as_str())) {
            return Err(BadHead::Named);
        }
    }
    Ok(())
}

/// The words of a list field; a value that is no text has none.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn path(uri: &Uri) -> Result<(), BadHead> {
    let whole = uri.path_and_query().map_or("", |path| path.as_str());
    if whole.bytes().any(|byte| !(0x21..=0x7e).contains(&byte) || matches!(byte, b'\\' | b'<' | b'>' | b'"' | b'#')) {
        return Err(BadHead::Path);
    }
    let mut text = Cow::Borrowed(uri.path().as_bytes());
    for coat in 0..DECODE_MAX {
        if dotted(&text) {
            return Err(BadHead::DotSegments);
        }
        if !text.contains(&b'%') {
            return Ok(());
        }
        // `%25` is a percent sign: under the first coat, one that is followed by no digits is itself.
        let decoded = decode(&text, if coat == 0 { Broken::Refused } else { Broken::Itself })?;
        if *decoded == *text {
            return Ok(());
        }
        text = Cow::Owned(decoded);
    }
    Err(BadHead::Path)
}

/// Whether a segment is `.` or `..`, with whatever some server takes for the end of one: `/`, `\`, and `;` before parameters.
fn dotted(path: &[u8]) -> bool {
    path.split(|byte| matches!(byte, b'/' | b'\\' | b';')).any(|segment| segment == b"." || segment == b"..")
}

/// What a percent sign without two hexadecimal digits is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    Refused,
    Itself,
}

/// One coat of percent-encoding off. Control characters under it are refused: they end lines for those who decode too early.
fn decode(text: &[u8], broken: Broken) -> Result<Vec<u8>, BadHead> {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                let byte = u8::try_from(high * 16 + low).expect("two hexadecimal digits make one byte");
                if byte < 0x20 || byte == 0x7f {
                    return Err(BadHead::Path);
                }
                out.push(byte);
                at += 3;
            }
            (b'%', ..) if broken == Broken::Refused => return Err(BadHead::Path),
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hyper::Request;
    use proptest::prelude::*;

    use super::*;

    /// As a server does that decodes until nothing changes and takes `\` for `/` and `;` for the end of a segment.
    fn most_careless(path: &str) -> Vec<Vec<u8>> {
        let mut text = path.as_bytes().to_vec();
        loop {
            let mut out = Vec::new();
            let mut at = 0;
            while at < text.len() {
                let hex = text.get(at + 1..at + 3).and_then(|two| std::str::from_utf8(two).ok());
                match hex.filter(|_| text[at] == b'%').and_then(|two| u8::from_str_radix(two, 16).ok()) {
                    // `from_str_radix` takes a sign.
                    Some(byte) if text[at + 1] != b'+' => {
                        out.push(byte);
                        at += 3;
                    }
                    _ => {
                        out.push(text[at]);
                        at += 1;
                    }
                }
            }
            if out == text {
                return text.split(|byte| b"/\\;".contains(byte)).map(<[u8]>::to_vec).collect();
            }
            text = out;
        }
    }

    fn head(target: &str, host: &str) -> Option<Parts> {
        let request = Request::builder().uri(target).header(header::HOST, host).body(()).ok()?;
        Some(request.into_parts().0)
    }

    proptest! {
        #[test]
        fn no_path_that_passes_climbs_under_any_decoding(path in "(/|%2f|%5[cC]|%25|\\.|%2e|2e|%2E|;|a|5c){1,12}") {
            if let Some(parts) = head(&format!("http://a.example/{path}"), "a.example")
                && read(&parts).is_ok()
            {
                let segments = most_careless(parts.uri.path());
                prop_assert!(!segments.iter().any(|s| s == b"." || s == b".."), "{}: {:?}", path, segments);
            }
        }

        #[test]
        fn a_plain_path_passes(path in "[a-zA-Z0-9_~!$&'()*+,=:@-]{0,20}(/[a-zA-Z0-9_-]{1,9}(\\.[a-z]{1,4})?){0,4}") {
            let parts = head(&format!("http://a.example/{path}"), "a.example").unwrap();
            prop_assert!(read(&parts).is_ok());
        }

        #[test]
        fn a_request_goes_where_its_host_says_or_nowhere(a in "[a-c]{1,3}\\.example", b in "[a-c]{1,3}\\.example") {
            let parts = head(&format!("http://{a}/"), &b).unwrap();
            match read(&parts) {
                Ok(Target::Outside(to)) => prop_assert!(a == b && to.to_string() == a.clone() + ":80"),
                other => prop_assert!(a != b && other == Err(BadHead::HostDiffers), "{:?}", other),
            }
        }
    }
}
