//! What was decided, by which rule, and why, in words that a metric, a log and a person can read.

use std::fmt;
use std::net::IpAddr;

use super::ask::{Ask, Via};
use crate::hello::Progress;
use crate::host::{Host, Name};
use crate::zone::{Zone, judged};

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Go on, under these conditions.
    Allowed(Permit),
    /// No, and retrying will not help.
    Denied(Denial),
}

/// What an allowed connection has to keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// The entry of the agent's list that allows it.
    pub rule: RuleId,
    /// What a tunnel's ClientHello must say.
    pub sni: SniRule,
    /// Whether TLS is opened here.
    pub intercept: Intercept,
}

/// Whether TLS of a tunnel is opened by the gateway, so that its requests are decided one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Intercept {
    /// Bytes pass as they are.
    #[default]
    Off,
    /// The gateway ends TLS on both sides.
    On,
}

/// Which name a tunnel's TLS may ask for.
///
/// It holds a tunnel to the server that was decided, not to one site behind it. A front that serves many sites at one name's address
/// may be asked for another inside TLS, where nobody sees it: by `Host` or `:authority` (domain fronting), in a renegotiation, or in the
/// second hello after a HelloRetryRequest. What a front of that kind carries, a list of names can't hold back; `intercept: on` can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SniRule {
    /// Exactly this one, in the open.
    Name(Name),
    /// None: the destination is an address, and TLS has no names for addresses (RFC 6066, 3).
    Absent,
    /// Whatever it says; it needn't be TLS.
    Any,
}

impl SniRule {
    /// Judges what a tunnel began with. [`Progress::NeedMore`] as the last word (the client sends no more) is a broken TLS hello.
    ///
    /// # Errors
    /// Why the tunnel must not be.
    pub fn check(&self, begun: &Progress) -> Result<(), Reason> {
        let wanted = match self {
            SniRule::Any => return Ok(()),
            SniRule::Name(name) => Some(name),
            SniRule::Absent => None,
        };
        match begun {
            Progress::NeedMore | Progress::Bad(_) => Err(Reason::BadTls),
            Progress::NotTls => Err(Reason::NotTls),
            Progress::Hello { ech: true, .. } => Err(Reason::Ech),
            Progress::Hello { sni, .. } if sni.as_ref() == wanted => Ok(()),
            Progress::Hello { sni: None, .. } => Err(Reason::SniMissing),
            Progress::Hello { sni: Some(_), .. } => Err(Reason::SniMismatch),
        }
    }
}

/// Which rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleId {
    /// What nobody lists is denied.
    Default,
    /// R1: what nobody denies is allowed.
    Open,
    /// An entry of `network` in agent.yaml, counted from 0.
    Agent(u16),
    /// What the operator's file doesn't list is denied, whatever agent.yaml says.
    Ceiling,
    /// An entry of `network` in the operator's file, counted from 0.
    Operator(u16),
    /// Addresses of this zone need a line in the operator's file.
    Zone(Zone),
    /// The host's own addresses need a line in the operator's file.
    OwnAddresses,
    /// The supervisor's ports need a line in the operator's file.
    SupervisorPorts,
    /// A host must have one reading.
    Names,
    /// A name must resolve.
    Resolve,
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleId::Default => f.write_str("network.default"),
            RuleId::Open => f.write_str("network.open"),
            RuleId::Agent(index) => write!(f, "network[{index}]"),
            RuleId::Ceiling => f.write_str("operator.network.default"),
            RuleId::Operator(index) => write!(f, "operator.network[{index}]"),
            RuleId::Zone(zone) => write!(f, "network.zone.{zone}"),
            RuleId::OwnAddresses => f.write_str("network.own-addresses"),
            RuleId::SupervisorPorts => f.write_str("network.supervisor-ports"),
            RuleId::Names => f.write_str("network.names"),
            RuleId::Resolve => f.write_str("network.resolve"),
        }
    }
}

/// Why it is denied. A closed set: its words label metrics and stand in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No entry lists the host.
    NotListed,
    /// Entries list the host, but not this port.
    Port,
    /// Entries list host and port, but not by this way.
    Way,
    /// Entries list host and port, but not this method.
    Method,
    /// Entries list host, port and method, but not this path.
    Path,
    /// The entry is about methods or paths, which can't be seen in a tunnel.
    Opaque,
    /// An entry denies it.
    Denied,
    /// Its address is of a zone that needs the operator's word.
    Zone,
    /// Its address is the host's own.
    OwnAddress,
    /// It is a port that the supervisor serves.
    SupervisorPort,
    /// The host or the port has no one reading.
    BadHost,
    /// TLS asks for another name than the tunnel was opened for.
    SniMismatch,
    /// TLS asks for no name.
    SniMissing,
    /// TLS hides the name that it asks for.
    Ech,
    /// The tunnel is no TLS.
    NotTls,
    /// The tunnel begins like TLS and breaks its rules, or never says hello.
    BadTls,
    /// The name has no address.
    Unresolvable,
    /// In an opened tunnel, a request names another host than the tunnel was opened for.
    HostMismatch,
    /// What comes out of an opened tunnel is no HTTP/1.1.
    NotHttp,
    /// The destination's certificate is not to be believed.
    Untrusted,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 20] = [
        Reason::NotListed,
        Reason::Port,
        Reason::Way,
        Reason::Method,
        Reason::Path,
        Reason::Opaque,
        Reason::Denied,
        Reason::Zone,
        Reason::OwnAddress,
        Reason::SupervisorPort,
        Reason::BadHost,
        Reason::SniMismatch,
        Reason::SniMissing,
        Reason::Ech,
        Reason::NotTls,
        Reason::BadTls,
        Reason::Unresolvable,
        Reason::HostMismatch,
        Reason::NotHttp,
        Reason::Untrusted,
    ];

    /// Its word in metrics and audit: stable.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Reason::NotListed => "not-listed",
            Reason::Port => "port",
            Reason::Way => "way",
            Reason::Method => "method",
            Reason::Path => "path",
            Reason::Opaque => "opaque",
            Reason::Denied => "denied",
            Reason::Zone => "zone",
            Reason::OwnAddress => "own-address",
            Reason::SupervisorPort => "supervisor-port",
            Reason::BadHost => "bad-host",
            Reason::SniMismatch => "sni-mismatch",
            Reason::SniMissing => "sni-missing",
            Reason::Ech => "ech",
            Reason::NotTls => "not-tls",
            Reason::BadTls => "bad-tls",
            Reason::Unresolvable => "unresolvable",
            Reason::HostMismatch => "host-mismatch",
            Reason::NotHttp => "not-http",
            Reason::Untrusted => "untrusted",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A denial.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Denial {
    /// The rule that denies.
    pub rule: RuleId,
    /// Why.
    pub reason: Reason,
    /// The address that it is about, where a name stood for it.
    pub address: Option<IpAddr>,
}

impl Denial {
    /// A denial that is about no address.
    pub const fn new(rule: RuleId, reason: Reason) -> Denial {
        Denial { rule, reason, address: None }
    }

    /// The same, about an address.
    pub const fn at(self, address: IpAddr) -> Denial {
        Denial { address: Some(address), ..self }
    }

    /// The whole message: `denied: connect evil.example:443   rule network.default`, why, and what would allow it.
    #[must_use]
    pub fn about<'a>(&'a self, ask: &'a Ask) -> impl fmt::Display + 'a {
        About { denial: self, ask }
    }

    /// The line that would allow it, where one can, and the file it belongs to.
    #[must_use]
    pub fn help(&self, ask: &Ask) -> Option<String> {
        let entry = match &ask.via {
            Via::Tcp => format!("{{tcp: \"{}\"}}", ask.authority()),
            Via::Connect | Via::Http { .. } | Via::Socks if ask.port == DEFAULT_PORT => {
                format!("{{host: \"{}\"}}", ask.host)
            }
            Via::Connect | Via::Http { .. } | Via::Socks => {
                format!("{{host: \"{}\", ports: [{}]}}", ask.host, ask.port)
            }
        };
        let mine = |entry: &str| Some(format!("add to `network` in agent.yaml: {entry}"));
        let operators = |entry: &str| Some(format!("add to `network` in the operator's file: {entry}"));
        let by_agent = !matches!(self.rule, RuleId::Ceiling | RuleId::Operator(_));
        match self.reason {
            Reason::NotListed | Reason::Port if by_agent => mine(&entry),
            Reason::NotListed | Reason::Port => operators(&entry),
            Reason::Way => {
                let entry = format!("{{tcp: \"{}\"}}", ask.authority());
                if by_agent { mine(&entry) } else { operators(&entry) }
            }
            Reason::Zone | Reason::OwnAddress | Reason::SupervisorPort => {
                let address = self.address.or(match &ask.host {
                    Host::Address(address) => Some(*address),
                    Host::Name(_) => None,
                })?;
                let address = judged(address);
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let port = ask.port;
                Some(format!(
                    "add to `addresses` in the operator's file: {{cidr: \"{address}/{bits}\", ports: [{port}]}}"
                ))
            }
            Reason::SniMissing | Reason::SniMismatch | Reason::Ech | Reason::NotTls => {
                Some(format!("if {} may carry anything: `sni: any` in that entry", ask.authority()))
            }
            Reason::Opaque => Some("`intercept: on` in that entry lets methods and paths be seen".to_owned()),
            Reason::Method | Reason::Path => {
                let asked = match (&ask.via, self.reason) {
                    (Via::Http { method, .. }, Reason::Method) => format!(" {method}"),
                    _ => " it".to_owned(),
                };
                let file = if by_agent { "agent.yaml" } else { "the operator's file" };
                Some(format!("add{asked} to `{}s` of that entry in {file}, or leave them out for all", self.reason))
            }
            Reason::NotHttp => Some("where `intercept: on` opens TLS, only HTTP/1.1 is carried".to_owned()),
            Reason::Denied
            | Reason::BadHost
            | Reason::BadTls
            | Reason::Unresolvable
            | Reason::HostMismatch
            | Reason::Untrusted => None,
        }
    }

    fn why(&self) -> &'static str {
        match self.reason {
            Reason::NotListed if self.rule == RuleId::Ceiling => "the operator's file doesn't list it",
            Reason::NotListed => "no entry of `network` lists it",
            Reason::Port => "the host is listed, this port is not",
            Reason::Way => "it is listed, but not for plain TCP",
            Reason::Method => "the host is listed, this method is not",
            Reason::Path => "the host is listed, this path is not (or it has two readings)",
            Reason::Opaque => "the entry is about methods or paths, and a tunnel hides them",
            Reason::Denied => "an entry denies it",
            Reason::Zone => "addresses of this kind need the operator's word",
            Reason::OwnAddress => "it is an address of this host",
            Reason::SupervisorPort => "it is a port of the supervisor",
            Reason::BadHost => "the host or port can't be read in one way only",
            Reason::SniMismatch => "TLS asks for another name than the tunnel was opened for",
            Reason::SniMissing => "TLS names no server",
            Reason::Ech => "TLS hides the name of the server (encrypted ClientHello)",
            Reason::NotTls => "the tunnel carries something else than TLS",
            Reason::BadTls => "the tunnel begins with a broken TLS hello",
            Reason::Unresolvable => "the name has no address",
            Reason::HostMismatch => "Host names another host than the tunnel was opened for",
            Reason::NotHttp => "what is inside TLS is not HTTP/1.1",
            Reason::Untrusted => "the certificate of the destination is not to be believed",
        }
    }
}

/// The port of an entry that names none.
pub(super) const DEFAULT_PORT: u16 = 443;

impl fmt::Display for Denial {
    /// `rule network.zone.private: 10.0.0.5: addresses of this kind need the operator's word`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: ", self.rule)?;
        if let Some(address) = self.address {
            write!(f, "{address}: ")?;
        }
        f.write_str(self.why())
    }
}

struct About<'a> {
    denial: &'a Denial,
    ask: &'a Ask,
}

impl fmt::Display for About<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Denial { rule, address, .. } = self.denial;
        writeln!(f, "denied: {}   rule {rule}", self.ask)?;
        match (address, &self.ask.host) {
            (Some(address), Host::Name(name)) => write!(f, "{name} is {address}: {}", self.denial.why())?,
            _ => f.write_str(self.denial.why())?,
        }
        f.write_str(". This is policy: a retry will not help.")?;
        match self.denial.help(self.ask) {
            Some(help) => write!(f, "\nhelp: {help}"),
            None => Ok(()),
        }
    }
}
