//! The gateway with real sockets on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod clients;
mod corpus;
mod hooks;
mod live;
mod malformed;
mod models;
mod plain;
mod ports;
mod rig;
mod socks;
mod tunnels;
