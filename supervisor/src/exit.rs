//! The exit codes: one table for the program, its help, its man page and its tests.

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The code.
    pub code: u8,
    /// When it is used.
    pub meaning: &'static str,
}

/// It ran and the answer is no.
pub const NO: u8 = 1;
/// Usage or configuration.
pub const USAGE: u8 = 64;
/// Bad data.
pub const DATA: u8 = 65;
/// The host can't, or nobody is there.
pub const UNAVAILABLE: u8 = 69;
/// Our bug.
pub const BUG: u8 = 70;
/// Can't create or write.
pub const CANT_CREATE: u8 = 73;
/// Try again.
pub const TRY_AGAIN: u8 = 75;
/// The kill switch.
pub const KILLED: u8 = 76;
/// Refused by policy.
pub const REFUSED: u8 = 77;

/// What a saga's end is told by, beside the codes that all verbs share.
pub const SAGA_TABLE: [Row; 5] = [
    Row { code: 0, meaning: "completed: every step took effect" },
    Row { code: 1, meaning: "compensated: a step failed, and what was done is undone" },
    Row { code: 2, meaning: "partially compensated: a compensation failed too" },
    Row { code: 3, meaning: "abandoned: an operator gave it up as it stands" },
    Row { code: TRY_AGAIN, meaning: "stuck: a step waits for an operator (`saga resolve`)" },
];

/// Every code of ours.
pub const TABLE: [Row; 14] = [
    Row { code: 0, meaning: "done; for `run`: the agent exited 0" },
    Row { code: NO, meaning: "it ran and the answer is no (probe mismatch, chaos failed)" },
    Row { code: USAGE, meaning: "wrong usage or a bad configuration; nothing was started" },
    Row { code: DATA, meaning: "bad data (tampered audit, corrupt store)" },
    Row { code: UNAVAILABLE, meaning: "this host can't enforce it, or no supervisor is there" },
    Row { code: BUG, meaning: "a bug of ours" },
    Row { code: CANT_CREATE, meaning: "can't create or write (state directory, full disk)" },
    Row {
        code: TRY_AGAIN,
        meaning: "try again later (breaker open, `run` of what runs already); a saga that is stuck",
    },
    Row { code: KILLED, meaning: "ended by the kill switch" },
    Row { code: REFUSED, meaning: "refused by policy, interlock or the operator's file" },
    Row { code: 124, meaning: "`run`: the time limit ended the agent" },
    Row { code: 126, meaning: "`run`: the command can't be executed" },
    Row { code: 127, meaning: "`run`: the command was not found" },
    Row { code: 137, meaning: "`run`: the memory limit ended the agent (128+n for any signal n)" },
];
