//! What the YAML says of the network: entries of agent.yaml, and the operator's entries and ranges above them.

use std::borrow::Cow;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::path::PathPattern;
use super::pattern::{BadPattern, HostPattern, opening_range};
use crate::host::{Authority, BadHost};

/// Ports, methods or paths of one entry.
pub const ITEMS_MAX: usize = 64;
/// The longest method, in characters.
pub const METHOD_MAX: usize = 32;

/// One entry: exactly one of `host`, `tcp` and `deny`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EntrySpec {
    /// A host that may be reached over TLS or HTTP: `api.example.com`, `*.example.com` (one label), an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HostPattern")]
    pub host: Option<HostPattern>,
    /// A TCP destination, `host:port`, that may be reached with whatever protocol. The agent finds it at this name and port
    /// through SOCKS5, and at the same address inside its own network where that is an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Destination")]
    pub tcp: Option<Destination>,
    /// Hosts that may not be reached, whatever other entries say: a host, or a range of addresses. Without `ports` at every port,
    /// without `methods` and `paths` in every way.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HostPattern")]
    pub deny: Option<HostPattern>,
    /// The port. Default 443.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Port")]
    pub port: Option<Port>,
    /// The ports, where there are several. Default 443 alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<Port>,
    /// Methods of HTTP (`GET`). Default all. They are seen in plain HTTP and, with `intercept: on`, in TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub methods: Vec<MethodName>,
    /// Paths: `/v1/models`, `/v1/files/*` (one segment), `/v1/**` (this and below). Default all. Seen as `methods` are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub paths: Vec<PathPattern>,
    /// `any`: a tunnel needn't be TLS that names this host. It can then reach whatever the other end passes it on to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SniSpec")]
    pub sni: Option<SniSpec>,
    /// `on`: the supervisor opens TLS to this host and decides request by request. Default off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InterceptSpec")]
    pub intercept: Option<InterceptSpec>,
}

/// `sni:` of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SniSpec {
    /// Any name, none, a hidden one, and what is no TLS.
    Any,
}

/// `intercept:` of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InterceptSpec {
    /// TLS is opened here.
    On,
    /// TLS passes.
    Off,
}

/// What the operator's file allows at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CeilingSpec {
    /// Entries of the same shape as those of agent.yaml. `host: "*"` is every host.
    pub network: Vec<EntrySpec>,
    /// Addresses that aren't public and may be reached all the same.
    pub addresses: Vec<RangeSpec>,
}

/// Addresses that are reachable although they are not public.
///
/// A range opens the ordinary addresses in it. Metadata services of clouds, multicast, and the host's own addresses other than
/// loopback are opened only by name: a range of one address. A port of the supervisor only by one address and that port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeSpec {
    /// The range: `10.0.0.0/8`, or one address: `127.0.0.1/32`.
    pub cidr: Cidr,
    /// The ports. Default all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<Port>,
}

/// A port, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(u16);

/// Port 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ports are 1 to 65535")]
pub struct BadPort;

impl Port {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Port {
    type Error = BadPort;

    fn try_from(number: u16) -> Result<Port, BadPort> {
        if number == 0 { Err(BadPort) } else { Ok(Port(number)) }
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> u16 {
        port.0
    }
}

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1, "maximum": 65535})
    }
}

/// A method of HTTP in capitals.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodName(String);

/// A method that none is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMethod {
    /// Small letters: methods are case-sensitive (RFC 9110, 9.1).
    #[error("methods are written in capitals: did you mean `{meant}`?")]
    Case {
        /// In capitals.
        meant: String,
    },
    /// `CONNECT` opens tunnels; an entry without methods allows them.
    #[error("`CONNECT` is how a tunnel is opened, and not a method to list")]
    Connect,
    /// Something else than letters and `-`, or too much of them.
    #[error("a method is 1 to {METHOD_MAX} capital letters, `-` and `_`")]
    Form,
}

impl MethodName {
    /// The method.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MethodName {
    type Error = BadMethod;

    fn try_from(text: String) -> Result<MethodName, BadMethod> {
        let fits = |b: u8| b.is_ascii_alphabetic() || b == b'-' || b == b'_';
        if !(1..=METHOD_MAX).contains(&text.len()) || !text.bytes().all(fits) {
            return Err(BadMethod::Form);
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(BadMethod::Case { meant: text.to_ascii_uppercase() });
        }
        if text == "CONNECT" { Err(BadMethod::Connect) } else { Ok(MethodName(text)) }
    }
}

impl From<MethodName> for String {
    fn from(method: MethodName) -> String {
        method.0
    }
}

impl JsonSchema for MethodName {
    fn schema_name() -> Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Z_-]+$", "maxLength": METHOD_MAX, "examples": ["GET", "POST"]})
    }
}

/// `host:port` in one spelling.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination(pub Authority);

impl TryFrom<String> for Destination {
    type Error = BadHost;

    fn try_from(text: String) -> Result<Destination, BadHost> {
        Authority::parse(&text).map(Destination)
    }
}

impl From<Destination> for String {
    fn from(destination: Destination) -> String {
        destination.0.to_string()
    }
}

impl JsonSchema for Destination {
    fn schema_name() -> Cow<'static, str> {
        "Destination".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-check": "host-port", "title": "host:port", "examples": ["db.internal:5432"]})
    }
}

/// A range of addresses in one spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr(pub IpNet);

impl TryFrom<String> for Cidr {
    type Error = BadPattern;

    fn try_from(text: String) -> Result<Cidr, BadPattern> {
        opening_range(&text).map(Cidr)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.0.to_string()
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-check": "cidr", "title": "range of addresses", "examples": ["10.0.0.0/8"]})
    }
}
