//! Any bytes as what an agent sends to the proxy: read by hyper as we set it up, judged, written anew.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{self, HeaderName};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::head::{self, Target};
use super::plain::host_field;
use super::rewrite::{self, Length};
use crate::host::Authority;

/// What no destination may see.
const ONE_HOP: [&str; 8] =
    ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "upgrade", "expect"];

/// Every request that hyper finds in the bytes, judged.
pub(crate) fn requests(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
    runtime.block_on(async {
        let (mut near, far) = duplex(bytes.len().max(1));
        let service = service_fn(|request: Request<Incoming>| async {
            judge(request);
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let connection = super::parser().serve_connection(TokioIo::new(far), service);
        let speak = async {
            // Whoever closed early has refused the rest.
            let _ = near.write_all(bytes).await;
            let _ = near.shutdown().await;
            let _ = near.read_to_end(&mut Vec::new()).await;
        };
        // What breaks the rules of HTTP is an error here, and an answer or a closed connection to the agent.
        let _ = tokio::join!(connection, speak);
    });
}

fn judge(request: Request<Incoming>) {
    let (mut head, _body) = request.into_parts();
    let to = match head::read(&head) {
        Err(_) => return,
        Ok(Target::Here) => return assert!(head.uri.path().starts_with('/')),
        Ok(Target::Tunnel(to)) => return one_spelling(&to),
        Ok(Target::Outside(to)) => to,
    };
    one_spelling(&to);
    rewrite::request(&mut head, host_field(&to, 80), Length::Known);
    let hosts: Vec<_> = head.headers.get_all(header::HOST).iter().collect();
    let [host] = hosts[..] else { panic!("one Host: {hosts:?}") };
    let host = host.to_str().expect("a host is ASCII");
    assert_eq!(Authority::with_default(host, 80).as_ref(), Ok(&to), "{host}");
    for name in ONE_HOP {
        assert!(!head.headers.contains_key(HeaderName::from_static(name)), "{name} goes on");
    }
    let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    assert!(framed.iter().all(|name| !head.headers.contains_key(name)), "framing of the agent's goes on");
    assert!(head.uri.authority().is_none() && head.uri.path().starts_with('/'), "{}", head.uri);
    assert!(head.uri.to_string().bytes().all(|byte| byte.is_ascii_graphic()), "{}", head.uri);
    assert!(!climbs(head.uri.path().as_bytes()), "{}", head.uri);
}

fn one_spelling(to: &Authority) {
    assert_eq!(Authority::parse(&to.to_string()).as_ref(), Ok(to));
}

/// Whether the most careless of servers finds a dot segment: one that decodes until nothing changes.
fn climbs(path: &[u8]) -> bool {
    let mut text = path.to_vec();
    loop {
        let is_end = |byte: &u8| matches!(byte, b'/' | b'\\' | b';');
        if text.split(is_end).any(|segment| matches!(segment, b"." | b"..")) {
            return true;
        }
        let mut out = Vec::with_capacity(text.len());
        let mut rest = &text[..];
        while let [byte, after @ ..] = rest {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            (rest, _) = match (byte, after) {
                (b'%', [high, low, after @ ..]) if digit(*high).is_some() && digit(*low).is_some() => {
                    (after, out.push(digit(*high).zip(digit(*low)).map_or(b'%', |(high, low)| high << 4 | low)))
                }
                _ => (after, out.push(*byte)),
            };
        }
        if out == text {
            return false;
        }
        text = out;
    }
}
