//! How much, and how long: every bound of the gateway that the supervisor may set.

use std::time::Duration;

/// The largest head that is read, in bytes; hyper answers 431 beyond it.
pub const HEAD_MAX: usize = 32 * 1024;
/// Fields of one head; hyper answers 431 beyond it.
pub const FIELDS_MAX: usize = 100;

/// Bounds of a gateway.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that carry traffic, each with a runtime of its own (1 at least).
    pub threads: usize,
    /// Connections of all agents at once. Each takes two descriptors, its own and that to its destination; three where one
    /// that fetched plain HTTP then calls a model.
    pub connections: usize,
    /// Connections of one agent at once, through all its listeners.
    pub connections_per_agent: usize,
    /// Happenings that wait for the supervisor; what doesn't fit is counted and dropped.
    pub happenings: usize,
    /// The waits.
    pub waits: Waits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            connections: 4000,
            connections_per_agent: 256,
            happenings: 4096,
            waits: Waits::default(),
        }
    }
}

/// How long each side may keep the other, and us, waiting.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// On an open connection for the next request.
    pub keep_alive: Duration,
    /// In a new tunnel for its whole ClientHello.
    pub hello: Duration,
    /// For the destination's name and the connection to it together.
    pub connect: Duration,
    /// For the head of an answer once the request is out. Models think for minutes before the first byte.
    pub answer: Duration,
    /// For the next byte either way, in a body or a tunnel.
    pub idle: Duration,
    /// For the rest once one side of a tunnel has said its last word.
    pub half_closed: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            hello: Duration::from_secs(10),
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(300),
            idle: Duration::from_secs(300),
            half_closed: Duration::from_secs(60),
        }
    }
}
