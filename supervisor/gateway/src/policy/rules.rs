//! One list of entries, compiled: what it denies, what it grants.

use std::net::IpAddr;

use super::ask::{Ask, Via};
use super::own::Opening;
use super::path::{Asked, PathPattern};
use super::pattern::HostPattern;
use super::spec::{EntrySpec, ITEMS_MAX, InterceptSpec, MethodName, Port, RangeSpec, SniSpec};
use super::verdict::{DEFAULT_PORT, Denial, Intercept, Permit, Reason, RuleId, SniRule};
use super::{ENTRIES_MAX, spec};
use crate::host::Host;
use crate::zone::judged;

/// Why entries make no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// More than can be looked through for each request.
    #[error("{count} entries: at most {ENTRIES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// An entry that is wrong by itself.
    #[error("{rule}: {wrong}")]
    Entry {
        /// Which.
        rule: RuleId,
        /// Its number in its list, from 0.
        index: usize,
        /// How.
        wrong: Wrong,
    },
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// None or several of `host`, `tcp`, `deny`.
    #[error("an entry has exactly one of `host`, `tcp` and `deny`")]
    Kind,
    /// `port` and `ports`.
    #[error("`port` or `ports`, not both")]
    Ports,
    /// More ports, methods or paths than are looked at.
    #[error("at most {ITEMS_MAX} ports, methods and paths in an entry")]
    Items,
    /// A key that says nothing beside `tcp`: its port is in it, and nobody reads what passes.
    #[error("`tcp` has its port in it and is not read: no `port`, `ports`, `methods`, `paths`, `sni` or `intercept`")]
    Tcp,
    /// `sni` or `intercept` beside `deny`.
    #[error("`deny` allows nothing: no `sni` or `intercept`")]
    Deny,
    /// `host: "*"` in agent.yaml.
    #[error("every host: an agent lists the hosts that it needs")]
    Everything,
    /// A range as `host`.
    #[error("a range of addresses can be denied, or stand under `addresses` in the operator's file")]
    Range,
    /// Methods or paths on a port of TLS, which nobody opens.
    #[error("methods and paths are seen in plain HTTP (`ports: [80]`) or with `intercept: on`")]
    Hidden,
    /// Both.
    #[error("`sni: any` lets through what `intercept: on` should read")]
    SniAndIntercept,
}

/// Whose list it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Agent,
    Operator,
}

impl Owner {
    fn rule(self, index: usize) -> RuleId {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        match self {
            Owner::Agent => RuleId::Agent(index),
            Owner::Operator => RuleId::Operator(index),
        }
    }

    fn default_rule(self) -> RuleId {
        match self {
            Owner::Agent => RuleId::Default,
            Owner::Operator => RuleId::Ceiling,
        }
    }
}

/// What is allowed without an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    Nothing,
    Everything,
}

/// The entries of one owner.
#[derive(Debug, Clone)]
pub(super) struct List {
    owner: Owner,
    base: Base,
    allow: Box<[Rule]>,
    deny: Box<[Rule]>,
}

/// One entry.
#[derive(Debug, Clone)]
struct Rule {
    id: RuleId,
    hosts: HostPattern,
    ports: Ports,
    /// Empty: all.
    methods: Box<[MethodName]>,
    /// Empty: all.
    paths: Box<[PathPattern]>,
    bytes: Bytes,
}

/// What may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bytes {
    /// TLS that names the host, and HTTP.
    Named(Intercept),
    /// Anything in a tunnel, and HTTP (`sni: any`).
    Unread,
    /// Anything, also by a way out of its own (`tcp`).
    Tcp,
}

/// Ports of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ports {
    All,
    These(Box<[u16]>),
}

impl Ports {
    fn of(port: Option<Port>, ports: &[Port], default: Ports) -> Ports {
        let these: Vec<u16> = port.iter().chain(ports).map(|port| port.number()).collect();
        if these.is_empty() { default } else { Ports::These(these.into()) }
    }

    fn contain(&self, port: u16) -> bool {
        match self {
            Ports::All => true,
            Ports::These(these) => these.contains(&port),
        }
    }
}

impl List {
    pub(super) fn new(owner: Owner, base: Base, entries: &[EntrySpec]) -> Result<List, BadPolicy> {
        if entries.len() > ENTRIES_MAX {
            return Err(BadPolicy::TooMany { count: entries.len() });
        }
        let (mut allow, mut deny) = (Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            let rule = owner.rule(index);
            let (list, made) = match Rule::new(rule, owner, entry) {
                Ok(made) if entry.deny.is_some() => (&mut deny, made),
                Ok(made) => (&mut allow, made),
                Err(wrong) => return Err(BadPolicy::Entry { rule, index, wrong }),
            };
            list.push(made);
        }
        Ok(List { owner, base, allow: allow.into(), deny: deny.into() })
    }

    /// Looks through what is denied. `host` is the ask's, or an address that it was resolved to.
    pub(super) fn denies(&self, host: &Host, ask: &Ask) -> Result<(), Denial> {
        let mut hits = self.deny.iter().filter(|rule| rule.hosts.matches(host) && rule.ports.contain(ask.port));
        let Some((rule, reason)) = hits.find_map(|rule| Some((rule, self.denied_by(rule, ask)?))) else {
            return Ok(());
        };
        let denial = Denial::new(rule.id, reason);
        Err(match host {
            Host::Address(address) => denial.at(*address),
            Host::Name(_) => denial,
        })
    }

    fn denied_by(&self, rule: &Rule, ask: &Ask) -> Option<Reason> {
        if rule.is_unconditional() {
            return Some(Reason::Denied);
        }
        match &ask.via {
            Via::Http { method, path } => {
                let method = rule.methods.is_empty()
                    || rule.methods.iter().any(|mine| mine.as_str().eq_ignore_ascii_case(method.as_str()));
                let path = rule.paths.is_empty() || {
                    let asked = Asked::read(path);
                    rule.paths.iter().any(|mine| mine.denies(&asked))
                };
                (method && path).then_some(Reason::Denied)
            }
            // What is denied will be seen request by request.
            Via::Connect | Via::Socks if self.intercepts(ask) == Intercept::On => None,
            Via::Connect | Via::Socks | Via::Tcp => Some(Reason::Opaque),
        }
    }

    /// What the list itself says of opening TLS to an ask's destination.
    fn intercepts(&self, ask: &Ask) -> Intercept {
        let on = |rule: &&Rule| rule.bytes == Bytes::Named(Intercept::On) && rule.is_about(ask);
        if self.allow.iter().any(|rule| on(&rule)) { Intercept::On } else { Intercept::Off }
    }

    /// What the list grants by itself.
    pub(super) fn grants(&self, ask: &Ask) -> Result<Grant, Denial> {
        let asked = match &ask.via {
            Via::Http { path, .. } => Some(Asked::read(path)),
            Via::Connect | Via::Tcp | Via::Socks => None,
        };
        let intercept = match ask.via {
            Via::Connect | Via::Socks => self.intercepts(ask),
            Via::Http { .. } | Via::Tcp => Intercept::Off,
        };
        let mut grant: Option<Grant> = None;
        let mut miss = Miss { near: Near::Nothing, rule: self.owner.default_rule() };
        for rule in self.allow.iter().filter(|rule| rule.hosts.matches(&ask.host)) {
            match rule.judge(ask, asked.as_ref(), intercept) {
                Ok(unread) => match &mut grant {
                    Some(grant) => grant.unread = grant.unread.max(unread),
                    None => grant = Some(Grant { rule: rule.id, unread, intercept }),
                },
                Err(near) if near > miss.near => miss = Miss { near, rule: rule.id },
                Err(_) => {}
            }
        }
        match (grant, self.base) {
            (Some(grant), Base::Nothing) => Ok(grant),
            (Some(grant), Base::Everything) => Ok(Grant { unread: Unread::Yes.unless(intercept), ..grant }),
            (None, Base::Everything) => {
                Ok(Grant { rule: RuleId::Open, unread: Unread::Yes.unless(intercept), intercept })
            }
            (None, Base::Nothing) => Err(Denial::new(miss.rule, miss.near.reason())),
        }
    }

    /// Whether an entry is about this one address and port by number.
    pub(super) fn lists_address(&self, address: IpAddr, port: u16) -> bool {
        self.allow.iter().any(|rule| {
            matches!(rule.hosts, HostPattern::Address(_))
                && rule.hosts.matches(&Host::Address(address))
                && rule.ports.contain(port)
        })
    }
}

/// Whether a tunnel may carry what nobody checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unread {
    No,
    Yes,
}

impl Unread {
    fn unless(self, intercept: Intercept) -> Unread {
        match intercept {
            Intercept::On => Unread::No,
            Intercept::Off => self,
        }
    }
}

/// What one list grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    rule: RuleId,
    unread: Unread,
    intercept: Intercept,
}

impl Grant {
    /// What is left of it under the other list's grant: the stricter of each.
    pub(super) fn under(self, limit: &Grant, host: &Host) -> Permit {
        let intercept = self.intercept.max(limit.intercept);
        let sni = match (self.unread.min(limit.unread).unless(intercept), host) {
            (Unread::Yes, _) => SniRule::Any,
            (Unread::No, Host::Name(name)) => SniRule::Name(name.clone()),
            (Unread::No, Host::Address(_)) => SniRule::Absent,
        };
        Permit { rule: self.rule, sni, intercept }
    }
}

/// The entry that came nearest, so that a denial can say what was missing.
struct Miss {
    near: Near,
    rule: RuleId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Nothing,
    Host,
    Way,
    Opaque,
    Method,
    Path,
}

impl Near {
    fn reason(self) -> Reason {
        match self {
            Near::Nothing => Reason::NotListed,
            Near::Host => Reason::Port,
            Near::Way => Reason::Way,
            Near::Opaque => Reason::Opaque,
            Near::Method => Reason::Method,
            Near::Path => Reason::Path,
        }
    }
}

impl Rule {
    fn new(id: RuleId, owner: Owner, entry: &EntrySpec) -> Result<Rule, Wrong> {
        let items = [entry.ports.len(), entry.methods.len(), entry.paths.len()];
        if items.into_iter().any(|count| count > ITEMS_MAX) {
            return Err(Wrong::Items);
        }
        if entry.port.is_some() && !entry.ports.is_empty() {
            return Err(Wrong::Ports);
        }
        match (&entry.host, &entry.tcp, &entry.deny) {
            (Some(hosts), None, None) => Rule::for_host(id, owner, hosts, entry),
            (None, Some(destination), None) => Rule::for_tcp(id, destination, entry),
            (None, None, Some(hosts)) => Rule::for_denial(id, hosts, entry),
            _ => Err(Wrong::Kind),
        }
    }

    fn for_host(id: RuleId, owner: Owner, hosts: &HostPattern, entry: &EntrySpec) -> Result<Rule, Wrong> {
        match (hosts, owner) {
            (HostPattern::Any, Owner::Agent) => return Err(Wrong::Everything),
            (HostPattern::Range(_), _) => return Err(Wrong::Range),
            _ => {}
        }
        let bytes = match (entry.sni, entry.intercept) {
            (Some(SniSpec::Any), Some(InterceptSpec::On)) => return Err(Wrong::SniAndIntercept),
            (Some(SniSpec::Any), _) => Bytes::Unread,
            (None, Some(InterceptSpec::On)) => Bytes::Named(Intercept::On),
            (None, _) => Bytes::Named(Intercept::Off),
        };
        let ports = Ports::of(entry.port, &entry.ports, Ports::These([DEFAULT_PORT].into()));
        let rule = Rule {
            id,
            hosts: hosts.clone(),
            ports,
            methods: entry.methods.as_slice().into(),
            paths: entry.paths.as_slice().into(),
            bytes,
        };
        let hidden = !rule.is_unconditional() && bytes != Bytes::Named(Intercept::On);
        if hidden && rule.ports.contain(DEFAULT_PORT) {
            return Err(Wrong::Hidden);
        }
        Ok(rule)
    }

    fn for_tcp(id: RuleId, destination: &spec::Destination, entry: &EntrySpec) -> Result<Rule, Wrong> {
        let alone = EntrySpec { tcp: entry.tcp.clone(), ..EntrySpec::default() };
        if *entry != alone {
            return Err(Wrong::Tcp);
        }
        let hosts = match &destination.0.host {
            Host::Name(name) => HostPattern::Name(name.clone()),
            Host::Address(address) => HostPattern::Address(*address),
        };
        let ports = Ports::These([destination.0.port].into());
        Ok(Rule { id, hosts, ports, methods: [].into(), paths: [].into(), bytes: Bytes::Tcp })
    }

    fn for_denial(id: RuleId, hosts: &HostPattern, entry: &EntrySpec) -> Result<Rule, Wrong> {
        if entry.sni.is_some() || entry.intercept.is_some() {
            return Err(Wrong::Deny);
        }
        Ok(Rule {
            id,
            hosts: hosts.clone(),
            ports: Ports::of(entry.port, &entry.ports, Ports::All),
            methods: entry.methods.as_slice().into(),
            paths: entry.paths.as_slice().into(),
            bytes: Bytes::Named(Intercept::Off),
        })
    }

    fn is_unconditional(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    fn is_about(&self, ask: &Ask) -> bool {
        self.hosts.matches(&ask.host) && self.ports.contain(ask.port)
    }

    /// What it grants of an ask whose host it matches, or how near it came.
    fn judge(&self, ask: &Ask, asked: Option<&Asked>, intercept: Intercept) -> Result<Unread, Near> {
        if !self.ports.contain(ask.port) {
            return Err(Near::Host);
        }
        let unread = match self.bytes {
            Bytes::Named(_) => Unread::No,
            Bytes::Unread | Bytes::Tcp => Unread::Yes,
        };
        match (&ask.via, asked) {
            (Via::Tcp, _) if self.bytes != Bytes::Tcp => Err(Near::Way),
            (Via::Http { method, .. }, Some(path)) => {
                if !self.methods.is_empty() && !self.methods.iter().any(|mine| mine.as_str() == method.as_str()) {
                    return Err(Near::Method);
                }
                if !self.paths.is_empty() && !self.paths.iter().any(|mine| mine.allows(path)) {
                    return Err(Near::Path);
                }
                Ok(unread)
            }
            _ if self.is_unconditional() || intercept == Intercept::On => Ok(unread),
            _ => Err(Near::Opaque),
        }
    }
}

/// Ranges that the operator opens.
#[derive(Debug, Clone)]
pub(super) struct Ranges(Box<[(ipnet::IpNet, Ports)]>);

impl Ranges {
    pub(super) fn new(ranges: &[RangeSpec]) -> Result<Ranges, BadPolicy> {
        if ranges.len() > ENTRIES_MAX {
            return Err(BadPolicy::TooMany { count: ranges.len() });
        }
        Ok(Ranges(ranges.iter().map(|range| (range.cidr.0, Ports::of(None, &range.ports, Ports::All))).collect()))
    }

    /// How far an address is opened, by the range that opens it farthest.
    pub(super) fn opening(&self, address: IpAddr, port: u16) -> Opening {
        let open = |(range, ports): &(ipnet::IpNet, Ports)| {
            if !range.contains(&judged(address)) || !ports.contain(port) {
                return Opening::Closed;
            }
            match ports {
                _ if range.prefix_len() < range.max_prefix_len() => Opening::InRange,
                Ports::All => Opening::Alone,
                Ports::These(_) => Opening::AloneWithPort,
            }
        };
        self.0.iter().map(open).max().unwrap_or(Opening::Closed)
    }
}
