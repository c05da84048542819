//! One entry, compiled: whom it is about, and what it lets pass.

use std::net::IpAddr;

use crate::host::Host;
use crate::policy::ask::{Ask, Via};
use crate::policy::path::{Asked, PathPattern};
use crate::policy::pattern::HostPattern;
use crate::policy::ranges::Ports;
use crate::policy::spec::{Destination, EntrySpec, ITEMS_MAX, InterceptSpec, MethodName, SniSpec};
use crate::policy::verdict::{DEFAULT_PORT, Intercept, Reason, RuleId};

use super::Owner;

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

/// One entry.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Rule {
    pub(super) id: RuleId,
    pub(super) hosts: HostPattern,
    pub(in crate::policy) ports: Ports,
    /// Empty: all.
    pub(super) methods: Box<[MethodName]>,
    /// Empty: all.
    pub(super) paths: Box<[PathPattern]>,
    pub(super) bytes: Bytes,
}

/// What may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    /// TLS that names the host, and HTTP.
    Named(Intercept),
    /// Anything in a tunnel, and HTTP (`sni: any`).
    Unread,
    /// Anything, also by a way out of its own (`tcp`).
    Tcp,
}

/// Whether a tunnel may carry what nobody checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::policy) enum Unread {
    No,
    Yes,
}

impl Unread {
    pub(super) fn unless(self, intercept: Intercept) -> Unread {
        match intercept {
            Intercept::On => Unread::No,
            Intercept::Off => self,
        }
    }
}

/// How near an entry came to an ask that it doesn't grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Near {
    Nothing,
    Host,
    Way,
    Opaque,
    Method,
    Path,
}

impl Near {
    pub(super) fn reason(self) -> Reason {
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
    pub(super) fn new(id: RuleId, owner: Owner, entry: &EntrySpec) -> Result<Rule, Wrong> {
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

    fn for_tcp(id: RuleId, destination: &Destination, entry: &EntrySpec) -> Result<Rule, Wrong> {
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

    /// Its number in its list.
    pub(in crate::policy) fn index(&self) -> usize {
        match self.id {
            RuleId::Agent(index) | RuleId::Operator(index) => usize::from(index),
            _ => 0,
        }
    }

    /// The address that it names, if it does.
    pub(in crate::policy) fn address(&self) -> Option<IpAddr> {
        match self.hosts {
            HostPattern::Address(address) => Some(address),
            _ => None,
        }
    }

    /// Whether it allows all that another allows, ports left aside.
    pub(super) fn covers(&self, asked: &Rule) -> bool {
        let methods = self.methods.is_empty()
            || (!asked.methods.is_empty() && asked.methods.iter().all(|method| self.methods.contains(method)));
        let path = |asked: &PathPattern| self.paths.iter().any(|mine| mine.covers(asked));
        let paths = self.paths.is_empty() || (!asked.paths.is_empty() && asked.paths.iter().all(path));
        let bytes = match (asked.bytes, self.bytes) {
            // A tunnel that is opened by one list alone is closed to the other's methods and paths.
            (Bytes::Named(Intercept::On), Bytes::Named(Intercept::Off) | Bytes::Unread) => self.is_unconditional(),
            (Bytes::Named(_), _) | (Bytes::Unread, Bytes::Unread | Bytes::Tcp) | (Bytes::Tcp, Bytes::Tcp) => true,
            (Bytes::Unread, Bytes::Named(_)) | (Bytes::Tcp, Bytes::Named(_) | Bytes::Unread) => false,
        };
        methods && paths && bytes && self.hosts.covers(&asked.hosts)
    }

    pub(super) fn is_unconditional(&self) -> bool {
        self.methods.is_empty() && self.paths.is_empty()
    }

    pub(super) fn is_about(&self, ask: &Ask) -> bool {
        self.hosts.matches(&ask.host) && self.ports.contain(ask.port)
    }

    /// What it grants of an ask whose host it matches, or how near it came.
    pub(super) fn judge(&self, ask: &Ask, intercept: Intercept) -> Result<Unread, Near> {
        if !self.ports.contain(ask.port) {
            return Err(Near::Host);
        }
        let unread = match self.bytes {
            Bytes::Named(_) => Unread::No,
            Bytes::Unread | Bytes::Tcp => Unread::Yes,
        };
        match &ask.via {
            Via::Tcp if self.bytes != Bytes::Tcp => Err(Near::Way),
            Via::Http { method, path } => {
                if !self.methods.is_empty() && !self.methods.iter().any(|mine| mine.as_str() == method.as_str()) {
                    return Err(Near::Method);
                }
                // Read only where it is compared: most entries list no paths.
                if !self.paths.is_empty() {
                    let asked = Asked::read(path);
                    if !self.paths.iter().any(|mine| mine.allows(&asked)) {
                        return Err(Near::Path);
                    }
                }
                Ok(unread)
            }
            _ if self.is_unconditional() || intercept == Intercept::On => Ok(unread),
            _ => Err(Near::Opaque),
        }
    }
}
