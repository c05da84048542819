//! TLS interception: the certificates that an agent is shown where `intercept: on` opens its TLS.
//!
//! **What it means.** The agent's program speaks TLS with the gateway, by a certificate for the destination's name that the gateway
//! made itself; the gateway speaks TLS with the destination, and verifies it as any client does. In between everything can be read
//! here: that is its purpose, and why it is off unless an entry says otherwise. A program with a pinned certificate, or one that
//! reads none of the variables of [`trust_environment`](crate::proxy::trust_environment), refuses it.
//!
//! **The authority** behind those certificates lives as long as its gateway and is made when it is first asked for. Its key is in
//! this process's memory and nowhere else; what leaves the gateway is its certificate ([`Pem`]). It may sign certificates of TLS
//! servers (extended key usage) and no further authorities (path length 0). Name constraints it has none: an agent is given the
//! certificate at its launch, and the entries with `intercept: on` may change while it runs.

mod authority;
mod bundle;

pub use authority::{AUTHORITY_LIFE, LEAF_LIFE, LEAVES_MAX, NoAuthority, Pem};
pub use bundle::{Bundle, bundle};

pub(crate) use authority::Authority;
