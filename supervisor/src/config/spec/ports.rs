//! A published port as it is written: `127.0.0.1:8080 -> 8080`, with short forms of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::texts::{BadText, bad};

/// Ports below are root's to listen on: whoever connects to one believes that root chose who answers there.
const PRIVILEGED_BELOW: u16 = 1024;
const FORM: &str = "for example `8080`, `8080 -> 3000` or `127.0.0.1:8080 -> 8080`";

/// A port of the agent, shown outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Publish {
    /// Where the supervisor listens; port 0: any that is free.
    pub listen: SocketAddr,
    /// The agent's own port, 1 to 65535.
    pub port: u16,
}

impl Publish {
    /// Reads `[[ADDRESS:]PORT ->] PORT`. Without an address it is 127.0.0.1; without an arrow both ports are the same.
    ///
    /// # Errors
    /// A name in place of an address, an impossible port, and the form with two colons that other programs have.
    pub fn parse(text: &str) -> Result<Publish, BadText> {
        let (outside, inside) = match text.split_once("->") {
            Some((outside, inside)) => (outside.trim(), Some(inside.trim())),
            None => (text.trim(), None),
        };
        let listen = listen_at(outside, text)?;
        let port = match inside {
            Some(inside) => number(inside, text)?,
            None => listen.port(),
        };
        if port == 0 {
            let instead = "the agent's own port stands behind the arrow: `0 -> 8080` shows it at any free port";
            return bad(format!("`{text}` names no port of the agent"), instead);
        }
        Ok(Publish { listen, port })
    }

    /// Whether the operator has to allow it: more than this host sees it, or only root could listen there.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        !self.listen.ip().is_loopback() || (1..PRIVILEGED_BELOW).contains(&self.listen.port())
    }

    /// Whether both can't be listened at together.
    #[must_use]
    pub fn overlaps(&self, other: &Publish) -> bool {
        let (one, another) = (self.listen, other.listen);
        one.port() == another.port()
            && one.port() != 0
            && (ListenAt(one).covers(another) || ListenAt(another).covers(one))
    }
}

/// `ADDRESS:PORT` or `PORT`; `whole` is what the file says.
fn listen_at(text: &str, whole: &str) -> Result<SocketAddr, BadText> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        // What is IPv4 in IPv6's clothes is judged as IPv4.
        return Ok(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }
    if !text.contains([':', '.']) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, number(text, whole)?)));
    }
    if text.parse::<IpAddr>().is_ok() {
        return bad(format!("`{text}` has no port{}", within(text, whole)), FORM);
    }
    let (before, last) = text.rsplit_once(':').unwrap_or((text, ""));
    if last.parse::<u16>().is_ok() && (before.parse::<SocketAddr>().is_ok() || before.parse::<u16>().is_ok()) {
        return bad(
            format!("`{whole}` has no arrow"),
            format!("write `{before} -> {last}`: outside first, then the agent's"),
        );
    }
    bad(format!("`{text}` is no address with a port{}", within(text, whole)), format!("addresses are numbers: {FORM}"))
}

fn number(text: &str, whole: &str) -> Result<u16, BadText> {
    match text.parse() {
        Ok(number) if text.starts_with(|c: char| c.is_ascii_digit()) => Ok(number),
        _ => bad(format!("`{text}` is not a port{}", within(text, whole)), format!("ports are 1 to 65535: {FORM}")),
    }
}

/// What it is a part of, where it is one.
fn within(text: &str, whole: &str) -> String {
    if text == whole { String::new() } else { format!(" (`{whole}`)") }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.listen, self.port)
    }
}

impl TryFrom<String> for Publish {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        Publish::parse(&text)
    }
}

impl From<Publish> for String {
    fn from(port: Publish) -> String {
        port.to_string()
    }
}

impl JsonSchema for Publish {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Publish".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let examples = ["8080", "8080 -> 3000", "127.0.0.1:8080 -> 8080"];
        json_schema!({"type": "string", "x-check": "publish", "title": "address:port -> port", "examples": examples})
    }
}

/// Where an operator lets ports be shown: `0.0.0.0:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenAt(pub SocketAddr);

impl ListenAt {
    /// Reads an address with a port.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(text: &str) -> Result<ListenAt, BadText> {
        match text.parse::<SocketAddr>() {
            Ok(address) => Ok(ListenAt(SocketAddr::new(address.ip().to_canonical(), address.port()))),
            Err(_) => bad(
                format!("`{text}` is no address with a port"),
                "for example `0.0.0.0:8080` (every address of this host), `192.0.2.1:8080` or `127.0.0.1:80`",
            ),
        }
    }

    /// Whether whoever reaches `address` reaches this one, too. The address that stands for all of IPv6 is listened at for IPv4 as
    /// well.
    #[must_use]
    pub fn covers(&self, address: SocketAddr) -> bool {
        let all = match (self.0.ip(), address.ip()) {
            (IpAddr::V4(own), IpAddr::V4(_)) => own.is_unspecified(),
            (IpAddr::V6(own), _) => own.is_unspecified(),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        };
        self.0.port() == address.port() && (all || self.0.ip() == address.ip())
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for ListenAt {
    type Error = BadText;

    fn try_from(text: String) -> Result<Self, BadText> {
        ListenAt::parse(&text)
    }
}

impl From<ListenAt> for String {
    fn from(at: ListenAt) -> String {
        at.to_string()
    }
}

impl JsonSchema for ListenAt {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ListenAt".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-check": "listen-at", "title": "address:port", "examples": ["0.0.0.0:8080"]})
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_forms_are_the_long_one_on_loopback() {
        for (short, long) in [
            ("8080", "127.0.0.1:8080 -> 8080"),
            ("8080 -> 3000", "127.0.0.1:8080 -> 3000"),
            ("8080->3000", "127.0.0.1:8080 -> 3000"),
            ("0 -> 3000", "127.0.0.1:0 -> 3000"),
            ("127.0.0.1:8080", "127.0.0.1:8080 -> 8080"),
            ("[::1]:8080 -> 80", "[::1]:8080 -> 80"),
            ("0.0.0.0:8080 -> 80", "0.0.0.0:8080 -> 80"),
            ("[::ffff:10.0.0.1]:8080", "10.0.0.1:8080 -> 8080"),
        ] {
            let read = Publish::parse(short).unwrap();
            assert_eq!(read.to_string(), long);
            assert_eq!(Publish::parse(long).unwrap(), read);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_what_to_write() {
        for (wrong, instead) in [
            ("", "8080"),
            ("0", "0 -> 8080"),
            ("8080 -> 0", "0 -> 8080"),
            ("8080 -> ", "8080 -> 3000"),
            ("-> 8080", "8080 -> 3000"),
            ("http", "8080"),
            ("65536", "1 to 65535"),
            ("+80", "1 to 65535"),
            ("127.0.0.1", "127.0.0.1:8080"),
            ("localhost:8080 -> 80", "addresses are numbers"),
            ("*:80", "addresses are numbers"),
            ("::1:80 -> 80", "127.0.0.1:8080"),
            ("8080:80", "`8080 -> 80`"),
            ("127.0.0.1:8080:80", "`127.0.0.1:8080 -> 80`"),
            ("1 -> 2 -> 3", "1 to 65535"),
        ] {
            let bad = Publish::parse(wrong).unwrap_err();
            assert!(bad.instead.contains(instead), "{wrong}: {} / {}", bad.message, bad.instead);
        }
    }

    #[test]
    fn beyond_loopback_and_below_1024_an_operator_decides() {
        let needs = |text: &str| Publish::parse(text).unwrap().needs_operator();
        for free in ["8080", "127.0.0.2:1024 -> 80", "[::1]:8080", "0 -> 80"] {
            assert!(!needs(free), "{free}");
        }
        for asks in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:8080", "0.0.0.0:0 -> 1", "80", "1023"] {
            assert!(needs(asks), "{asks}");
        }
    }

    #[test]
    fn an_address_for_all_covers_those_of_its_port() {
        let covers = |line: &str, asked: &str| ListenAt::parse(line).unwrap().covers(asked.parse().unwrap());
        assert!(
            covers("0.0.0.0:80", "10.0.0.1:80") && covers("[::]:80", "10.0.0.1:80") && covers("[::]:80", "[::1]:80")
        );
        assert!(!covers("0.0.0.0:80", "[::]:80") && !covers("0.0.0.0:80", "10.0.0.1:81"));
        assert!(!covers("10.0.0.1:80", "0.0.0.0:80") && !covers("10.0.0.1:80", "10.0.0.2:80"));
        let overlap = |one: &str, other: &str| Publish::parse(one).unwrap().overlaps(&Publish::parse(other).unwrap());
        assert!(overlap("8080", "8080 -> 90") && overlap("8080", "0.0.0.0:8080") && overlap("[::]:8080", "8080"));
        assert!(!overlap("8080", "8081") && !overlap("0 -> 80", "0 -> 80") && !overlap("8080", "[::1]:8080"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_comes_back(text in "[0-9a-f:.>\\[\\] -]{0,40}") {
            if let Ok(read) = Publish::parse(&text) {
                prop_assert!(read.port != 0);
                prop_assert_eq!(Publish::parse(&read.to_string()).unwrap(), read);
            }
        }
    }
}
