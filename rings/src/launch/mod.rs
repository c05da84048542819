//! Starting an agent in its ring: supervisor -> launcher process -> init of the namespaces -> agent.
//!
//! Why a launcher process: it is this same executable, started once, single-threaded and a few hundred kilobytes small. So a
//! launch costs the same whatever the supervisor weighs, its fork runs ordinary code safely, it holds none of the
//! supervisor's secrets, and the parent whose death ends every init is a process that does nothing else.
//!
//! ```text
//! supervisor  --socket-->  launcher  --clone3(namespaces)-->  init (pid 1)  --clone(VM|VFORK)-->  agent
//!      ^                                                         |
//!      +------------------- channel (one per agent) -------------+   started + descriptors, exited + status
//! ```
//!
//! An agent with a health check has a third process beside it, the checker: forked by the init, confined as the agent is
//! before the agent exists, and asked for checks over a socket of its own.
//!
//! An agent whose filter asks a listener has one more beside it, the attendant: forked by the init once the agent runs, it answers
//! the calls that are left to it and tells the supervisor of them.
//!
//! Into an agent's network leads its init, where the plan asks for it: it makes sockets there and passes them out
//! ([`Entrance`]).
//!
//! Nothing outlives the supervisor: the launcher ends when its socket closes, each init when the launcher dies
//! (PR_SET_PDEATHSIG) or its channel closes, and with an init the kernel ends everything in its PID namespace.

mod ahead;
mod alone;
mod attendant;
mod check;
mod checker;
mod child;
mod client;
mod detect;
mod entrance;
mod fork;
mod given;
mod groups;
mod held;
mod init;
mod lent;
mod memory;
mod naming;
mod oom;
mod payload;
mod protocol;
mod ready;
mod root;
mod rules;
mod running;
mod server;
mod step;
mod streams;
mod talk;

pub use ahead::{Ahead, READY_MAX};
pub use alone::Alone;
pub use check::{Checked, Checker, End, OUTPUT_BYTES_MAX};
pub use client::{By, Launcher};
pub use entrance::{Entrance, Family, Made};
pub use protocol::Usage;
pub use running::{Exit, LaunchError, Running};
pub use server::become_launcher_if_asked;
pub use streams::{Stream, Streams};
