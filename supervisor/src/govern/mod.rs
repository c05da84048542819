//! The governor: what each agent has earned and spent, and what follows from it.
//!
//! One SLO engine, one trust score and one circuit breaker per agent identity, kept in the state store, so that neither a
//! restart nor a new supervisor washes anything clean. It decides nothing about processes: it answers which ring a launch may
//! have, whether a launch may happen at all, and which remedies are due; the driver performs. What an agent says about itself
//! comes in through a socket of its own and can cost it, never help it.

pub mod ask;
pub mod attestation;
mod decisions;
pub mod evidence;
pub mod governed;
pub mod governor;
pub mod kill_mark;
pub mod report;
pub mod ring;
pub mod socket;
pub mod stored;

pub use governor::Governor;
