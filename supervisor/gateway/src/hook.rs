//! Where faults and recorders sit on a flow.
//!
//! The proxy asks the hooks at three places (before it connects, at the head of an answer, at each piece of a stream) and tells
//! them the end. A hook decides, the proxy acts: a hook holds no socket and waits for nothing itself, so it can't hang a flow.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::http::response::Parts;

use crate::flow::{Ended, Flow};

/// The longest that one [`Act::Delay`] holds a flow; more is cut to it.
pub const DELAY_MAX: Duration = Duration::from_secs(600);

/// What a hook wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Act {
    /// Go on.
    Go,
    /// Go on after a while ([`DELAY_MAX`] at most).
    Delay(Duration),
    /// End it so.
    Fail(Failure),
}

/// How a flow is made to fail, in terms of what the agent sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// As if the destination refused the connection: 502 where HTTP can still say it, else a closed connection.
    Refused,
    /// As if the destination did not answer in time: 504, else a closed connection.
    TimedOut,
    /// This status, with no body; what can't say a status any more is closed. Codes outside 400-599 count as 502.
    Status(u16),
    /// The connection is reset.
    Reset,
    /// The connection is closed in mid-air, in order.
    Closed,
}

/// Which way a piece of a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the agent outwards.
    Out,
    /// Back to the agent.
    Back,
}

/// A piece of a stream: of a tunnel what was read at once, of an answer what came at once, of a model's stream one event. A hook
/// may change the data; empty data is swallowed.
#[derive(Debug)]
pub struct Event {
    /// Which way it goes.
    pub direction: Direction,
    /// What it carries.
    pub data: Bytes,
}

/// Something that sits on flows. All calls come from the threads that carry traffic: they must not block.
pub trait Hook: Send + Sync + 'static {
    /// Decided and not yet connected.
    fn before_connect(&self, flow: &Flow) -> Act {
        let _ = flow;
        Act::Go
    }
    /// The head of an answer (HTTP only).
    fn on_head(&self, flow: &Flow, head: &Parts) -> Act {
        let _ = (flow, head);
        Act::Go
    }
    /// Whether [`Hook::on_event`] is wanted for this flow; asked once a flow. What nobody watches is carried without it.
    fn watches(&self, flow: &Flow) -> bool {
        let _ = flow;
        false
    }
    /// A piece of a stream.
    fn on_event(&self, flow: &Flow, event: &mut Event) -> Act {
        let _ = (flow, event);
        Act::Go
    }
    /// The end, once for every flow that was decided, however it came.
    fn ended(&self, flow: &Flow, ended: &Ended) {
        let _ = (flow, ended);
    }
}

/// The hooks of a gateway, in the order in which they are asked; the first that does not say [`Act::Go`] decides.
#[derive(Clone, Default)]
pub struct Hooks(Arc<[Arc<dyn Hook>]>);

impl Hooks {
    /// These, in this order.
    #[must_use]
    pub fn new(hooks: Vec<Arc<dyn Hook>>) -> Self {
        Self(hooks.into())
    }

    /// See [`Hook::before_connect`].
    pub fn before_connect(&self, flow: &Flow) -> Act {
        self.first(|hook| hook.before_connect(flow))
    }

    /// See [`Hook::on_head`].
    pub fn on_head(&self, flow: &Flow, head: &Parts) -> Act {
        self.first(|hook| hook.on_head(flow, head))
    }

    /// Whether any hook wants the pieces of this flow.
    #[must_use]
    pub fn watch(&self, flow: &Flow) -> bool {
        self.0.iter().any(|hook| hook.watches(flow))
    }

    /// See [`Hook::on_event`]. Every hook sees the piece as the hooks before it left it.
    pub fn on_event(&self, flow: &Flow, event: &mut Event) -> Act {
        self.first(|hook| if hook.watches(flow) { hook.on_event(flow, event) } else { Act::Go })
    }

    /// See [`Hook::ended`].
    pub fn ended(&self, flow: &Flow, ended: &Ended) {
        self.0.iter().for_each(|hook| hook.ended(flow, ended));
    }

    fn first(&self, mut ask: impl FnMut(&dyn Hook) -> Act) -> Act {
        for hook in self.0.iter() {
            match ask(hook.as_ref()) {
                Act::Go => {}
                Act::Delay(time) => return Act::Delay(time.min(DELAY_MAX)),
                fail @ Act::Fail(_) => return fail,
            }
        }
        Act::Go
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({})", self.0.len())
    }
}
