//! One module per verb: each takes what the command line resolved to, and writes to what it is given.

pub mod doctor;
pub mod probe;

/// How a read verb writes its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For programs (`--json`).
    Json,
}
