//! What an agent's list asks for beyond what the operator's file gives: said when a file is loaded, not when a request fails.
//!
//! An entry is covered when each request that it alone would allow is allowed under the ceiling, denials left aside: a denial is
//! meant to take something away, and is no reason to refuse the file.

use super::ranges::{Opening, Ranges};
use super::rules::{BadPolicy, Base, List, Owner};
use super::spec::{CeilingSpec, EntrySpec};
use crate::zone::{self, Zone};

/// An entry that the operator's file doesn't cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// The entry, counted from 0.
    pub index: usize,
    /// What the operator's file lacks.
    pub lacks: Lacks,
}

/// What the operator's file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacks {
    /// An entry under `network` that is as wide: the agent's entry itself would do.
    Entry,
    /// A range under `addresses` for the address that the entry names, which is of this zone.
    Address(Zone),
}

/// The entries of an agent's list that its ceiling doesn't cover, in their order.
///
/// # Errors
/// When one of the lists makes no policy.
pub fn shortfalls(entries: &[EntrySpec], ceiling: &CeilingSpec) -> Result<Vec<Shortfall>, BadPolicy> {
    let asked = List::new(Owner::Agent, Base::Nothing, entries)?;
    let given = List::new(Owner::Operator, Base::Nothing, &ceiling.network)?;
    let ranges = Ranges::new(&ceiling.addresses)?;
    let mut found = Vec::new();
    for rule in asked.allowing() {
        let index = rule.index();
        if !given.covers(rule) {
            found.push(Shortfall { index, lacks: Lacks::Entry });
            continue;
        }
        let Some(address) = rule.address() else { continue };
        let zone = zone::of(address);
        let closed = |port: u16| {
            let named = given.lists_address(address, port);
            let opening = if named { Opening::AloneWithPort } else { ranges.opening(address, port) };
            !opening.opens(zone)
        };
        if rule.ports.numbers().iter().copied().any(closed) {
            found.push(Shortfall { index, lacks: Lacks::Address(zone) });
        }
    }
    Ok(found)
}
