//! What the bench asks of its load process, and what that says: a line of JSON each.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Something to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Connections that each send the next request as soon as the answer is there.
    Closed { at: SocketAddr, request: String, connections: usize, millis: u64 },
    /// Requests at their times, whatever the answers do; how late each answer was, by the time when it should have been sent.
    /// Without a rate: one after the other, on one connection.
    Timed { at: SocketAddr, request: String, connections: usize, per_second: Option<u32>, millis: u64 },
    /// Streams of events, spread over the doors; events before `warm_millis` don't count.
    Streams { doors: Vec<Door>, count: usize, warm_millis: u64, millis: u64 },
    /// Tunnels opened, used for one byte there and back, and closed.
    Tunnels { proxy: SocketAddr, target: String, first: First, connections: usize, millis: u64 },
    /// Opens connections and keeps them: said as soon as all are there.
    Hold { doors: Vec<Door>, count: usize, held: Held },
    /// Lets go of them.
    Release,
}

/// A listener, and what is said to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) at: SocketAddr,
    pub(crate) request: String,
}

/// What a tunnel's client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum First {
    /// A byte that begins no TLS.
    Byte,
    /// A whole ClientHello.
    Hello,
}

/// How a held connection is used before it rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Held {
    /// One request and its answer.
    KeepAlive,
    /// A tunnel, and a ClientHello with an answer through it. The request is the CONNECT.
    Tunnel,
    /// A stream; whoever holds it reads what comes.
    Stream,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Requests, tunnels or events within the time that counts.
    pub(crate) counted: u64,
    /// All of them, the warm-up's too: what the CPU time is divided by.
    pub(crate) all: u64,
    /// How long the time that counts was.
    pub(crate) seconds: f64,
    /// What went wrong.
    pub(crate) errors: u64,
    /// The first of it, in words.
    pub(crate) first_error: Option<String>,
    /// In microseconds.
    pub(crate) p50: f64,
    /// In microseconds.
    pub(crate) p99: f64,
    /// Events that never came, or came twice or out of order.
    pub(crate) lost: u64,
    /// Events that came together with the one before.
    pub(crate) merged: u64,
}
