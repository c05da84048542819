//! Who may be reached: rules of agent.yaml under the operator's ceiling, decided under exactly one generation.
//!
//! Two lists are judged, each by itself, and only what both allow is allowed: so no entry of agent.yaml can widen what the
//! operator's file says, whatever it says. In each list deny wins and the default is deny. A [`Policy`] never changes; a new one has
//! a new generation, and whoever decided under the old one asks again. Nothing here waits, resolves or reads a clock.

mod ask;
mod cover;
mod own;
mod path;
mod pattern;
mod ranges;
mod rules;
pub mod spec;
mod verdict;

use std::net::IpAddr;

pub use ask::{Ask, Via};
pub use cover::{Lacks, Shortfall, shortfalls};
pub use own::{BadTranslator, OwnAddresses};
pub use path::{BadPath, PATTERN_MAX, PathPattern};
pub use pattern::{BadPattern, HostPattern};
pub use rules::{BadPolicy, Wrong};
pub use verdict::{Denial, Intercept, Permit, Reason, RuleId, SniRule, Verdict};

use crate::host::{Host, plain};
use crate::zone::{self, Zone};
use ranges::{Opening, Ranges};
use rules::{Base, List, Owner};
use spec::{CeilingSpec, EntrySpec};

/// Entries of one list.
pub const ENTRIES_MAX: usize = 500;

/// How far an agent reaches before any entry is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only what its list and the operator's list both allow (R2, R3).
    Listed,
    /// Every public destination that nobody denies, each one logged (R1); ranges and denials of the operator hold.
    Open,
}

/// The rules for one agent, at one time.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Which of the policies of this agent it is; each new one has a higher number.
    pub generation: u64,
    agent: List,
    ceiling: List,
    ranges: Ranges,
}

impl Policy {
    /// Compiles an agent's entries under the operator's.
    ///
    /// # Errors
    /// An entry that says nothing, contradicts itself, or promises what can't be held.
    pub fn new(
        generation: u64,
        reach: Reach,
        entries: &[EntrySpec],
        ceiling: &CeilingSpec,
    ) -> Result<Policy, BadPolicy> {
        let base = match reach {
            Reach::Listed => Base::Nothing,
            Reach::Open => Base::Everything,
        };
        Ok(Policy {
            generation,
            agent: List::new(Owner::Agent, base, entries)?,
            ceiling: List::new(Owner::Operator, base, &ceiling.network)?,
            ranges: Ranges::new(&ceiling.addresses)?,
        })
    }

    /// A policy that reaches nothing.
    #[must_use]
    pub fn nothing(generation: u64) -> Policy {
        Policy::new(generation, Reach::Listed, &[], &CeilingSpec::default()).expect("no entry, so none is bad")
    }

    /// Decides what is asked for, by what is known before a name is resolved.
    pub fn decide(&self, ask: &Ask) -> Verdict {
        match self.permit(ask) {
            Ok(permit) => Verdict::Allowed(permit),
            Err(denial) => Verdict::Denied(denial),
        }
    }

    fn permit(&self, ask: &Ask) -> Result<Permit, Denial> {
        // An authority has none; an ask can be put together without one.
        if ask.port == 0 {
            return Err(Denial::new(RuleId::Names, Reason::BadHost));
        }
        self.ceiling.denies(&ask.host, ask)?;
        self.agent.denies(&ask.host, ask)?;
        let granted = self.agent.grants(ask)?;
        let limit = self.ceiling.grants(ask)?;
        if let Host::Address(address) = &ask.host {
            self.opens(ask, *address, zone::of(*address))?;
        }
        Ok(granted.under(&limit, &ask.host))
    }

    /// Decides an address that the host of an allowed ask was resolved to (or is): only admitted ones may be connected.
    ///
    /// # Errors
    /// Why this address is not to be reached: denied by address, in a zone that isn't public, the host's own, or a port of the
    /// supervisor; unless the operator's file lists it.
    pub fn admit(&self, ask: &Ask, address: IpAddr, own: &OwnAddresses) -> Result<(), Denial> {
        let address = plain(address);
        for inside in own.translated(address) {
            self.admit(ask, inside.into(), own)?;
        }
        let host = Host::Address(address);
        self.ceiling.denies(&host, ask)?;
        self.agent.denies(&host, ask)?;
        let zone = zone::of(address);
        let opening = self.opening(ask, address);
        let here = own.contains(address) || matches!(zone, Zone::Loopback | Zone::Unspecified);
        if here && own.serves(ask.port) && opening != Opening::AloneWithPort {
            return Err(Denial::new(RuleId::SupervisorPorts, Reason::SupervisorPort).at(address));
        }
        // Loopback is the host's own as well, but ranges may open it as any other zone.
        if own.contains(address) && zone != Zone::Loopback && !opening.is_alone() {
            return Err(Denial::new(RuleId::OwnAddresses, Reason::OwnAddress).at(address));
        }
        self.opens(ask, address, zone)
    }

    /// Whether the operator named this very address, for this ask: also what turns out to be the host itself may be reached.
    pub(crate) fn names(&self, ask: &Ask, address: IpAddr) -> bool {
        self.opening(ask, plain(address)).is_alone()
    }

    fn opening(&self, ask: &Ask, address: IpAddr) -> Opening {
        let literal = ask.host == Host::Address(address) && self.ceiling.lists_address(address, ask.port);
        if literal { Opening::AloneWithPort } else { self.ranges.opening(address, ask.port) }
    }

    fn opens(&self, ask: &Ask, address: IpAddr, zone: Zone) -> Result<(), Denial> {
        let open = self.opening(ask, address).opens(zone);
        if open { Ok(()) } else { Err(Denial::new(RuleId::Zone(zone), Reason::Zone).at(address)) }
    }
}

#[cfg(test)]
mod tests;
