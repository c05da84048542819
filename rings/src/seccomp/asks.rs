//! Allowed calls that a listener answers: those that can make a name, and those that show what a program needs.
//!
//! A path stands behind a pointer. So whether `.envrc` may be made is nothing that a filter can say: the call waits, and a
//! process beside the agent reads the path, decides, and makes the name in the agent's stead ([`Names::Asked`]). Whether an open
//! can make anything does show in its flags; one that can't never leaves the kernel's way.

use super::options::{Names, Notify, Options};
use super::policy::{Check, Condition, Notified, Test};
use crate::ring::Ring;

// asm-generic/fcntl.h.
const O_CREAT: u32 = 0o100;
const O_TMPFILE_BIT: u32 = 0o20_000_000;

/// Calls that make a name whatever their arguments are.
const MAKERS: [&str; 12] = [
    "creat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "rename",
    "renameat",
    "renameat2",
];

/// Opens, and where their flags stand.
const OPENS: [(&str, u8); 2] = [("open", 1), ("openat", 2)];

/// Calls that show what a program needs, besides the opens.
const TELLING: [&str; 3] = ["execve", "execveat", "connect"];

/// Where the launcher's own exec holds its secret, see [`ExecCookie`](super::ExecCookie).
const SECRET: u8 = 5;

/// What the listener is asked for `call`, after the checks of its arguments.
#[must_use]
pub fn of(call: &str, ring: Ring, options: &Options) -> Vec<Check> {
    let mut asks = Vec::new();
    if ring == Ring::R0 {
        return asks;
    }
    let open = OPENS.iter().find(|(name, _)| *name == call);
    if options.names == Names::Asked && (ring == Ring::R1 || ring == Ring::R2) {
        if let Some((_, flags)) = open {
            let creating = Condition::new(*flags, Test::AnyBit(O_CREAT | O_TMPFILE_BIT));
            asks.push(Check::AskWhen(vec![vec![creating]], Notified::Creating));
        }
        if MAKERS.contains(&call) {
            asks.push(Check::ask(Notified::Creating));
        }
    }
    if options.notify == Notify::Learn {
        if open.is_some() || call == "creat" || call == "connect" {
            asks.push(Check::ask(Notified::Observed));
        }
        // The launch's own exec comes before anybody listens.
        if TELLING.contains(&call) && call != "connect" {
            let ours = Condition::new(SECRET, Test::Whole(options.exec_cookie.secret()));
            asks.push(Check::AskUnless(vec![vec![ours]], Notified::Observed));
        }
    }
    asks
}
