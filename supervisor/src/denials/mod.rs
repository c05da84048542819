//! What agents were denied: remembered, counted, explained.
//!
//! A refused call reaches us as a [`Notice`](agt_rings::notice::Notice) from a process that has the agent's own uid. So nothing here believes more of one
//! than what it costs the agent: reasons and rules come from our own tables by the call's name, every text is bounded and escaped,
//! and an agent that floods us gets counts. The modules: [`class`] what kind of thing it was and how grave, [`words`] what was tried in
//! words, [`memory`] the last of them for one agent, [`advice`] what would allow it, [`view`] what a plan says of a path or an
//! address, without anything having happened.

pub mod advice;
pub mod class;
pub mod memory;
pub mod view;
pub mod words;

pub use class::Class;
pub use memory::{Denial, Memory, Tried};
