//! What goes on: heads without what belonged to one hop.
//!
//! A destination gets framing that hyper's client wrote and a `Host` that we wrote; the agent gets framing that hyper's server
//! wrote. Fields of one hop (RFC 9110, 7.6.1), those that `Connection` names, and `Expect` (hyper answers it here) stay behind.

use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request;
use hyper::http::response;

use super::head::tokens;

/// Fields of one hop, whether or not `Connection` names them.
const ONE_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];
/// Whether the body of a request goes on in chunks, because its length isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known,
    Chunked,
}

/// The head of a request as the destination sees it. `authority` is the host and port in one spelling, without the usual port.
pub(super) fn request(head: &mut request::Parts, authority: HeaderValue, length: Length) {
    strip(&mut head.headers);
    head.headers.remove(header::EXPECT);
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::TRANSFER_ENCODING);
    if length == Length::Chunked {
        // hyper's client takes a GET of unknown length for one without a body unless the field says otherwise.
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    head.headers.insert(header::HOST, authority);
    // Of a target that has a fragment and no path an empty path is left, which says `/` and is written as nothing.
    let path = head.uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
    head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    head.version = hyper::Version::HTTP_11;
    // hyper put there what belongs to this side's connection, such as its upgrade.
    head.extensions.clear();
}

/// The head of an answer as the agent sees it.
pub(super) fn response(head: &mut response::Parts) {
    strip(&mut head.headers);
    if head.headers.remove(header::TRANSFER_ENCODING).is_some() {
        // Both in one answer: hyper read the chunks, the number is a lie.
        head.headers.remove(header::CONTENT_LENGTH);
    }
    head.version = hyper::Version::HTTP_11;
    head.extensions.clear();
}

fn strip(fields: &mut HeaderMap) {
    if fields.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = fields
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(tokens)
            .filter_map(|word| HeaderName::from_bytes(word.as_bytes()).ok())
            .filter(|name| !super::head::NEVER_NAMED.contains(name))
            .collect();
        for name in named {
            fields.remove(name);
        }
    }
    for name in &ONE_HOP {
        fields.remove(name);
    }
}
