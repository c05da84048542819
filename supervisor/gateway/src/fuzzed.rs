//! What must hold of everything that strangers write, whatever they write: one function a reader, for the fuzz targets in `fuzz/`.
//!
//! They are here and not beside the targets because they look at what is private, and because the tests run them too, on a bounded
//! number of inputs. Each panics where something does not hold.

use bytes::Bytes;
use rustls::server::Acceptor;

use crate::hello::{Hello, Progress};
use crate::host::{Authority, Host};
use crate::policy::PathPattern;
use crate::route::path;
use crate::usage::{EventCutter, EventFilter, Framing, Kept, Reader, Report, Shape};

/// A request head and what follows it, as the proxy reads them.
pub fn request(bytes: &[u8]) {
    crate::proxy::trial::requests(bytes);
}

/// The beginning of a tunnel. The first byte says how it is cut.
///
/// The cut changes nothing, all bytes are kept, and where rustls reads a name as well it is the same one: two readers, one meaning.
pub fn hello(bytes: &[u8]) {
    let (cut, bytes) = cut_of(bytes);
    let mut whole = Hello::new();
    let said = whole.read(bytes);
    let mut pieces = Hello::new();
    let mut last = Progress::NeedMore;
    for piece in bytes.chunks(cut) {
        last = pieces.read(piece);
    }
    // Bytes behind a message can come in its last piece or in a later one.
    assert_eq!(last, said);
    assert_eq!((whole.bytes(), pieces.bytes()), (bytes, bytes));
    let Progress::Hello { sni, .. } = said else { return };
    if let Some(name) = &sni {
        assert_eq!(Host::parse(name.as_str()), Ok(Host::Name(name.clone())));
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let theirs = accepted.client_hello().server_name().map(str::to_owned);
                // It takes an address for no name; we take it for no hello.
                if let Some(theirs) = theirs {
                    let ours = sni.as_ref().map(|name| name.as_str());
                    assert_eq!(ours, Some(theirs.trim_end_matches('.').to_ascii_lowercase().as_str()));
                }
                return;
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

/// A host, with or without a port, in whatever spelling.
pub fn host(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(host) = Host::parse(text) {
        let shown = host.to_string();
        assert!(shown.is_ascii() && !shown.bytes().any(|byte| byte.is_ascii_uppercase()), "{shown}");
        assert_eq!(Host::parse(&shown), Ok(host.clone()), "{text} {shown}");
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            assert_eq!(host, Host::from(address), "{text}");
        }
        if let Host::Name(name) = &host {
            assert!(name.as_str().parse::<std::net::IpAddr>().is_err() && !name.as_str().ends_with('.'), "{name:?}");
        }
    }
    let with_port = Authority::parse(text);
    if let Ok(to) = &with_port {
        assert!(to.port != 0);
        assert_eq!(Authority::parse(&to.to_string()).as_ref(), Ok(to), "{text}");
        assert_eq!(Authority::with_default(text, 1).as_ref(), Ok(to), "{text}");
    }
    if let Ok(to) = Authority::with_default(text, 1) {
        assert!(with_port.is_ok() || to.port == 1, "{text}");
    }
}

/// A stream of events. The first byte says how it is cut: no byte is lost, and the cut changes nothing.
pub fn events(bytes: &[u8]) {
    let (cut, bytes) = cut_of(bytes);
    let filtered = |pieces: std::slice::Chunks<'_, u8>, judge: fn(&[u8]) -> Kept| {
        let mut filter = EventFilter::default();
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend_from_slice(&filter.feed(Bytes::copy_from_slice(piece), judge));
        }
        passed.extend_from_slice(&filter.finish());
        passed
    };
    assert_eq!(filtered(bytes.chunks(cut), |_| Kept::Yes), bytes);
    let some = |event: &[u8]| if event.contains(&b'x') { Kept::No } else { Kept::Yes };
    let whole = bytes.len().max(1);
    assert_eq!(filtered(bytes.chunks(cut), some), filtered(bytes.chunks(whole), some));
    let cut_into = |pieces: std::slice::Chunks<'_, u8>| {
        let (mut cutter, mut events) = (EventCutter::default(), Vec::new());
        for piece in pieces {
            cutter.push(piece);
            events.extend(std::iter::from_fn(|| cutter.next_event()));
        }
        events.push(cutter.rest());
        events
    };
    let events = cut_into(bytes.chunks(cut));
    assert_eq!(events.concat(), bytes);
    assert_eq!(events, cut_into(bytes.chunks(whole)));
}

/// An answer of a provider. The first byte says how it is cut, the second which provider's it is: the cut changes nothing of what
/// is charged.
pub fn usage(bytes: &[u8]) {
    let (cut, bytes) = cut_of(bytes);
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let shape = [Shape::Chat, Shape::Responses, Shape::Messages, Shape::Gemini][usize::from(kind % 4)];
    let framing = if kind / 4 % 2 == 0 { Framing::Events } else { Framing::Json };
    let read = |pieces: std::slice::Chunks<'_, u8>| -> Report {
        let mut reader = Reader::new(shape, framing);
        pieces.for_each(|piece| reader.feed(piece));
        reader.finish(true)
    };
    let report = read(bytes.chunks(cut));
    assert_eq!(report, read(bytes.chunks(bytes.len().max(1))));
    assert!(report.usage.is_some() || !report.complete);
}

/// The path of a model route, and a pattern of paths: in one spelling or none.
pub fn route_path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(normal) = path::normal(text) {
        assert_eq!(path::normal(&normal).as_ref(), Ok(&normal), "{text}");
        assert!(
            normal.starts_with('/') && !normal.contains("//") && !normal.contains(['%', '\\', '?', '#']),
            "{normal}"
        );
        assert!(normal.split('/').all(|part| part != "." && part != ".."), "{normal}");
    }
    if let Ok(pattern) = PathPattern::parse(text) {
        assert_eq!(PathPattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern), "{text}");
        assert!(pattern.covers(&pattern), "{text}");
    }
}

/// Pieces of this size; the rest of the bytes is what is cut.
fn cut_of(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((1, bytes), |(cut, rest)| (usize::from(*cut) % 64 + 1, rest))
}

#[cfg(test)]
mod tests;
