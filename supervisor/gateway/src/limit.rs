//! Requests, tokens, money, concurrency: reserved before a request leaves, settled after.
//!
//! What a call costs is known only when it is over, and by then a hundred others have left. So each call first takes its worst
//! case out of every limit ([`Limits::reserve`]); what it did not use comes back when it is settled. The sum of what was spent and
//! what is reserved never passes a cap, in whatever order calls begin and end. [`Limits`] is pure, time is its argument;
//! [`Account`] holds those of an agent and of its ring together behind locks, and settles what nobody settled. [`rate`] is apart:
//! requests of every kind, which cost nothing but themselves.

mod account;
mod bucket;
mod limits;
pub mod rate;
pub mod spec;
mod spend;

pub use account::{Account, Held, Refused, Shared};
pub use bucket::Bucket;
pub use limits::{Actual, Limits, Refusal, Reservation, Standing, Worst};
pub use spend::{Period, Spend};
