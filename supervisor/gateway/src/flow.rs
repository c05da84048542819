//! One connection or request on its way through, and what is told about it.
//!
//! A [`Flow`] is what is known when it was decided and never changes afterwards; [`Ended`] is what is known at its end. Between
//! them stand the hooks. A flow is one *decision*: a tunnel is one for its whole life, a keep-alive connection with three
//! requests carries three, one after the other.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::host::Host;
use crate::policy::{Permit, Reason};

use crate::hook::Failure;

/// An agent as it is named in metrics, events and audit. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Label {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which flow: unique within one gateway, in the order of their decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A tunnel by HTTP `CONNECT`.
    Connect,
    /// A plain request in absolute form.
    Http,
    /// A request out of a tunnel whose TLS is opened here. The tunnel is a flow of its own, without bytes.
    Https,
    /// A request to a model route.
    Route,
    /// A listener with one named target.
    Tcp,
    /// A tunnel by SOCKS5.
    Socks,
    /// A connection from the host to an agent's own port.
    Published,
}

impl Kind {
    /// The word for metrics and audit.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Https => "https",
            Self::Route => "route",
            Self::Tcp => "tcp",
            Self::Socks => "socks",
            Self::Published => "published",
        }
    }
}

/// Where it goes.
#[derive(Clone, Debug)]
pub enum To {
    /// Out of the ring, to a host that the policy permits.
    Outside {
        /// As the agent named it, in one spelling.
        host: Host,
        /// The port.
        port: u16,
        /// What the policy said to it.
        permit: Permit,
    },
    /// To a model route, by its name.
    Route(Arc<str>),
    /// Into the ring, to a port of the agent.
    Inside(u16),
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Route(name) => write!(f, "/{name}"),
            Self::Inside(port) => write!(f, "inside:{port}"),
        }
    }
}

/// What is known of one connection or request from its decision on.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Which one.
    pub id: FlowId,
    /// Whose.
    pub agent: Label,
    /// How it came in.
    pub kind: Kind,
    /// Where it goes.
    pub to: To,
    /// The generation of the policy that decided it.
    pub generation: u64,
    /// When it was decided.
    pub start: Instant,
}

/// What stood out a wait of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The agent sent no whole request head, or no whole SOCKS greeting.
    Head,
    /// The agent opened a tunnel and sent no ClientHello.
    Hello,
    /// The destination did not accept the connection.
    Connect,
    /// The destination took the request and answered nothing.
    Answer,
    /// Nothing moved either way.
    Idle,
}

impl Wait {
    /// The word for metrics and audit.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Head => "head-timeout",
            Self::Hello => "hello-timeout",
            Self::Connect => "connect-timeout",
            Self::Answer => "answer-timeout",
            Self::Idle => "idle-timeout",
        }
    }
}

/// Why we ended what was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// A new policy no longer allows it.
    Policy,
    /// The agent is gone, or its network was taken.
    Agent,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Both sides said all they had to say.
    Complete,
    /// Refused after the decision for the name: its addresses, or what the tunnel's ClientHello asks for.
    Denied(Reason),
    /// No connection to the destination.
    Unreachable,
    /// A wait of ours ran out.
    TimedOut(Wait),
    /// We ended it.
    Cut(Cut),
    /// The agent went away before the end.
    HungUp,
    /// The agent's program does not believe the certificate that it was shown: it was not told of the gateway's authority, or
    /// believes only one certificate of its own.
    Distrusted,
    /// The destination broke off before the end.
    Broken,
    /// A hook made it fail.
    Failed(Failure),
}

impl Outcome {
    /// The word for metrics and audit.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Denied(_) => "denied",
            Self::Unreachable => "unreachable",
            Self::TimedOut(wait) => wait.word(),
            Self::Cut(Cut::Policy) => "cut-by-policy",
            Self::Cut(Cut::Agent) => "cut-with-agent",
            Self::HungUp => "hung-up",
            Self::Distrusted => "distrusted",
            Self::Broken => "broken",
            Self::Failed(_) => "failed-by-hook",
        }
    }
}

/// What is known at a flow's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Bytes of bodies and tunnels from the agent's side outwards (of a published port: from the host's side inwards).
    pub sent: u64,
    /// Bytes of bodies and tunnels that came back.
    pub received: u64,
    /// The status of the answer, for what is HTTP.
    pub status: Option<u16>,
    /// From the decision to the first byte of the answer.
    pub first_byte: Option<Duration>,
    /// From the decision to the end.
    pub total: Duration,
    /// How.
    pub outcome: Outcome,
}
