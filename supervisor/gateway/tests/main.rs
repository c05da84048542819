//! The gateway with real sockets on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod clients;
mod corpus;
mod hooks;
mod intercept;
mod live;
mod malformed;
mod models;
mod plain;
mod ports;
mod rig;
mod secured;
mod socks;
mod tunnels;
