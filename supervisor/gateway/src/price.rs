//! What tokens cost, from a table; an unknown model is flagged, never free.
//!
//! Prices change more often than programs: they are data ([`spec::TableSpec`], a file of the user's over a built-in one), and the
//! arithmetic is of integers, so that a thousand small calls add up to what the bill says. A model that the table does not know
//! is charged by the table's worst price and the charge says so: a new name must never be a way around a cap.

mod money;
pub mod spec;
mod table;

pub use money::{BadMoney, Money};
pub use table::{BadTable, Charge, Known, Price, Rates, Source, Table, sources};
