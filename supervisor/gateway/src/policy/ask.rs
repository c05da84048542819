//! What is asked for.

use std::fmt;

use hyper::Method;

use crate::host::{Authority, Host};

/// A destination, and how it is to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// By which way.
    pub via: Via,
}

/// By which way a destination is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// HTTP CONNECT: bytes that nobody reads but for the ClientHello, unless TLS is intercepted.
    Connect,
    /// A request that can be read: plain HTTP, or out of an intercepted tunnel.
    Http {
        /// Its method.
        method: Method,
        /// Its path as the client wrote it; a query behind it is not looked at.
        path: String,
    },
    /// A TCP way out that agent.yaml declares with `tcp`.
    Tcp,
    /// SOCKS5.
    Socks,
}

impl Ask {
    /// An ask for an authority.
    #[must_use]
    pub fn new(authority: Authority, via: Via) -> Ask {
        Ask { host: authority.host, port: authority.port, via }
    }

    /// Where to.
    #[must_use]
    pub fn authority(&self) -> Authority {
        Authority { host: self.host.clone(), port: self.port }
    }
}

/// Characters of a path that are shown.
const SHOWN_MAX: usize = 200;

impl fmt::Display for Ask {
    /// `connect evil.example:443`, `GET http://a.example:80/x`: one line, escaped, without the query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority();
        match &self.via {
            Via::Connect => write!(f, "connect {authority}"),
            Via::Tcp => write!(f, "tcp {authority}"),
            Via::Socks => write!(f, "socks {authority}"),
            Via::Http { method, path } => {
                let path = path.split(['?', '#']).next().unwrap_or_default();
                let shown: String = path.chars().take(SHOWN_MAX).collect();
                let more = if shown.len() < path.len() { "..." } else { "" };
                write!(f, "{method} {authority}{}{more}", shown.escape_debug())
            }
        }
    }
}
