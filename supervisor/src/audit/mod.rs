//! The audit log: what was decided, in a form that shows every later change.
//!
//! A record is canonical JSON, linked to the one before it by SHA-256; each second the chain's end (a *head*) is signed with
//! Ed25519 and kept in the table, in a second file and, the newest, in a third. Records are not signed one by one: a signature costs a hundred times a
//! hash, and a signed head covers everything before it. What a thief of the database cannot do is sign: edits, deletions,
//! reordering, forks, a cut tail and a chain that was computed anew all end in a disagreement that [`verify()`] places.
//!
//! The modules: [`canonical`] the byte form, [`record`] the record, [`chain`] hashes, [`head`] signed heads, [`signer`] the key,
//! [`heads_file`] the second file, [`floor`] the third, [`check`] the pure verifier, [`mod@verify`] the same over files, [`coalesce`] floods of denials.

pub mod canonical;
pub mod chain;
pub mod check;
pub mod coalesce;
mod displaced;
mod error;
pub mod floor;
pub mod head;
pub mod heads_file;
pub mod record;
pub mod signer;
pub mod verify;

pub use chain::{Hash, StoreId};
pub use error::AuditError;
pub use record::{Action, Actor, Outcome, Record};
pub use verify::{VerifyReport, verify};
