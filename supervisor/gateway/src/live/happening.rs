//! What happened, for the supervisor: over a bounded channel that never makes traffic wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::flow::{Ended, Flow, FlowId, Label};
use crate::policy::{Ask, Denial};

/// Something that the supervisor may audit, count or tell.
#[derive(Clone, Debug)]
pub enum Happening {
    /// The policy said no.
    Denied {
        /// To whom.
        agent: Label,
        /// To what; nothing when what was asked for could not even be read as a destination.
        ask: Option<Arc<Ask>>,
        /// Which rule, and why.
        denial: Arc<Denial>,
        /// Of which policy.
        generation: u64,
        /// The flow, if its name had been allowed before. When only some addresses of the name are refused, it goes on by
        /// another.
        flow: Option<FlowId>,
    },
    /// A flow came to its end.
    Ended {
        /// Which.
        flow: Arc<Flow>,
        /// How.
        ended: Ended,
    },
    /// An agent met a bound; told for each connection that has to wait for it.
    Limited {
        /// Who.
        agent: Label,
        /// Which bound.
        limit: Limit,
    },
    /// An agent made more requests than its rate lets through. How many its [`Rate`](crate::limit::rate::Rate) knows; told again only
    /// once somebody has asked it.
    Throttled {
        /// Who.
        agent: Label,
    },
    /// A task that accepts for an agent died of a fault of ours: the agent has no network any more.
    Lost {
        /// Who.
        agent: Label,
    },
}

/// A bound that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Connections of the agent.
    Connections,
    /// Connections of all agents.
    AllConnections,
}

/// Where happenings go in.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    channel: mpsc::Sender<Happening>,
    lost: Arc<AtomicU64>,
}

impl Teller {
    /// Tells it, or counts that it did not fit; says whether it did.
    pub(crate) fn tell(&self, happening: Happening) -> bool {
        let fits = self.channel.try_send(happening).is_ok();
        if !fits {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
}

/// Where happenings come out.
#[derive(Debug)]
pub struct Happenings {
    channel: mpsc::Receiver<Happening>,
    lost: Arc<AtomicU64>,
}

impl Happenings {
    pub(crate) fn new(room: usize) -> (Teller, Self) {
        let (channel, out) = mpsc::channel(room.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        (Teller { channel, lost: Arc::clone(&lost) }, Self { channel: out, lost })
    }

    /// The next one; nothing once the gateway is gone.
    pub async fn next(&mut self) -> Option<Happening> {
        self.channel.recv().await
    }

    /// The next one, if there is one now. Whoever drains at intervals costs the traffic no wake-up per flow.
    pub fn try_next(&mut self) -> Option<Happening> {
        self.channel.try_recv().ok()
    }

    /// How many did not fit since the gateway began.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
