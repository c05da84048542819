//! One list of entries, compiled: what it denies, what it grants.

mod entry;

use std::net::IpAddr;

use super::ENTRIES_MAX;
use super::ask::{Ask, Via};
use super::path::Asked;
use super::pattern::HostPattern;
use super::spec::EntrySpec;
use super::verdict::{Denial, Intercept, Permit, Reason, RuleId, SniRule};
use crate::host::Host;
pub use entry::Wrong;
use entry::{Bytes, Near, Rule, Unread};

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
        let intercept = match ask.via {
            Via::Connect | Via::Socks => self.intercepts(ask),
            Via::Http { .. } | Via::Tcp => Intercept::Off,
        };
        let mut grant: Option<Grant> = None;
        let mut miss = Miss { near: Near::Nothing, rule: self.owner.default_rule() };
        for rule in self.allow.iter().filter(|rule| rule.hosts.matches(&ask.host)) {
            match rule.judge(ask, intercept) {
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
            (Some(grant), Base::Everything) => Ok(Grant { unread: Unread::Yes, ..grant }),
            (None, Base::Everything) => Ok(Grant { rule: RuleId::Open, unread: Unread::Yes, intercept }),
            (None, Base::Nothing) => Err(Denial::new(miss.rule, miss.near.reason())),
        }
    }

    /// The entries that allow something.
    pub(super) fn allowing(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter()
    }

    /// Whether all that an entry of another list allows is allowed here, at each of its ports by one entry.
    pub(super) fn covers(&self, asked: &Rule) -> bool {
        let covered = |port: &u16| self.allow.iter().any(|rule| rule.ports.contain(*port) && rule.covers(asked));
        asked.ports.numbers().iter().all(covered)
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
