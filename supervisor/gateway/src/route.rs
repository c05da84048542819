//! Model routes: a plain base URL inside, the key and TLS outside.
//!
//! A program in a ring speaks to `http://127.0.0.1:PORT/openai/v1/...` as it would to the provider; [`Routes::serve`] checks what
//! it asks for, puts the key on, and carries the answer back as it comes. The order is the same for every request, and each step
//! only sees what the one before let through: path and method of the provider's list ([`path`], `endpoint`), headers (`head`),
//! body (`ask`), limits ([`crate::limit`]), upstream (`upstream`), answer (`body`). What is refused is refused in the shape in
//! which the provider itself says no, because that is what the client's library can read.

mod ask;
mod body;
mod brings;
mod call;
mod dial;
mod endpoint;
mod head;
mod key;
pub mod path;
mod problem;
mod redact;
mod serve;
pub mod spec;
mod table;
mod upstream;

pub use body::{Body, BodyError, Eventwise, full};
pub use call::{Basis, Call, Outcome, Witness};
pub use dial::{BadTrust, Dial, Dialling, SystemDial, trust, trust_nobody};
pub use endpoint::Endpoint;
pub use key::{BadKey, Key};
pub use problem::{Problem, Trouble};
pub use redact::{Needles, Redactor};
pub use spec::{KeySpec, Provider, RouteSpec};
pub use table::{BadRoute, Context, PLACEHOLDER_KEY, Room, Route, Routes, check, environment, upstream as upstream_of};
pub use upstream::{Base, Client, SendError};
