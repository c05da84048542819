//! A seat: one connection of an agent, and what it carries right now.
//!
//! Every decision is made in a seat, under its lock, and a new policy visits every seat under the same lock: so a decision
//! either sees the new policy or is seen by its visit. The lock is the connection's own: no request waits for another's.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use super::agent::Shared;
use super::passage::Passage;
use crate::flow::{Cut, Flow, FlowId, Kind, Outcome, To};
use crate::policy::{Ask, Denial, OwnAddresses, Permit, Policy, Reason, SniRule, Verdict};

/// The rooms that a connection takes up: its agent's and the gateway's.
#[derive(Debug)]
pub(crate) struct Rooms(
    #[expect(dead_code, reason = "given back when the seat goes")] pub(super) [OwnedSemaphorePermit; 2],
);

/// One connection.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) agent: Arc<Shared>,
    number: u64,
    now: Mutex<Now>,
    task: OnceLock<AbortHandle>,
    _rooms: Rooms,
}

#[derive(Debug)]
struct Now {
    policy: Arc<Policy>,
    /// Why the connection ends, if it is we who end it.
    ending: Option<Outcome>,
    carried: Option<Carried>,
    /// A tunnel whose requests are carried one by one, each for itself: both are held to the policy.
    tunnel: Option<Carried>,
}

/// What stands to be decided again under a new policy.
#[derive(Debug)]
struct Carried {
    flow: FlowId,
    what: What,
}

#[derive(Debug)]
enum What {
    Outside(Out),
    Route(Arc<str>),
    Inside,
}

/// A way out that is being carried: all that a new policy has to know of it.
#[derive(Clone, Debug)]
struct Out {
    ask: Arc<Ask>,
    permit: Permit,
    address: Option<IpAddr>,
}

impl Out {
    /// Whether a policy allows it as it is: the host, the address it is connected to, and no condition that it was not held to.
    fn judge(&self, policy: &Policy, own: &OwnAddresses) -> Result<(), Denial> {
        let permit = match policy.decide(&self.ask) {
            Verdict::Allowed(permit) => permit,
            Verdict::Denied(denial) => return Err(denial),
        };
        if permit.sni != self.permit.sni && permit.sni != SniRule::Any {
            return Err(Denial::new(permit.rule, Reason::SniMismatch));
        }
        if permit.intercept != self.permit.intercept {
            return Err(Denial::new(permit.rule, Reason::Opaque));
        }
        self.address.map_or(Ok(()), |address| policy.admit(&self.ask, address, own))
    }
}

impl Seat {
    pub(super) fn new(agent: Arc<Shared>, number: u64, rooms: Rooms) -> Self {
        let policy = agent.policy();
        let now = Mutex::new(Now { policy, ending: None, carried: None, tunnel: None });
        Self { agent, number, now, task: OnceLock::new(), _rooms: rooms }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // A panic under this lock leaves nothing half done: each change is one assignment.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy of this moment. Called under the seat's own lock only.
    fn fresh<'a>(&self, now: &'a mut Now) -> &'a Arc<Policy> {
        if now.policy.generation != self.agent.generation() {
            now.policy = self.agent.policy();
        }
        &now.policy
    }

    /// Decides a way out. What is allowed is carried by this seat until its passage ends.
    ///
    /// # Errors
    /// The denial, which has been told already.
    pub(crate) fn decide(self: &Arc<Self>, kind: Kind, ask: Ask) -> Result<Decided, (Arc<Denial>, Arc<Ask>)> {
        let ask = Arc::new(ask);
        let mut now = self.now();
        let policy = Arc::clone(self.fresh(&mut now));
        match policy.decide(&ask) {
            Verdict::Allowed(permit) => {
                let to = To::Outside { host: ask.host.clone(), port: ask.port, permit: permit.clone() };
                let what = What::Outside(Out { ask: Arc::clone(&ask), permit: permit.clone(), address: None });
                let flow = self.carry(&mut now, kind, to, policy.generation, what);
                // Hooks are asked outside of the lock.
                drop(now);
                let passage = Arc::new(Passage::new(Arc::clone(self), flow));
                Ok(Decided { policy, ask, permit, passage })
            }
            Verdict::Denied(denial) => {
                drop(now);
                Err((self.agent.denied(Some(Arc::clone(&ask)), denial, policy.generation, None), ask))
            }
        }
    }

    /// Begins a passage that no policy of hosts decides: to a model route, or into the ring.
    pub(crate) fn begin(self: &Arc<Self>, kind: Kind, to: To) -> Arc<Passage> {
        let mut now = self.now();
        let generation = self.fresh(&mut now).generation;
        let what = match &to {
            To::Route(name) => What::Route(Arc::clone(name)),
            To::Outside { .. } | To::Inside(_) => What::Inside,
        };
        let flow = self.carry(&mut now, kind, to, generation, what);
        drop(now);
        Arc::new(Passage::new(Arc::clone(self), flow))
    }

    fn carry(&self, now: &mut Now, kind: Kind, to: To, generation: u64, what: What) -> Arc<Flow> {
        let id = self.agent.next_flow();
        let agent = self.agent.label.clone();
        let flow = Flow { id, agent, kind, to, generation, start: Instant::now() };
        now.carried = Some(Carried { flow: id, what });
        Arc::new(flow)
    }

    /// A tunnel is opened here: what it carries is decided request by request, and it stays to be judged itself meanwhile.
    pub(crate) fn opens(&self, tunnel: &Decided) {
        let mut now = self.now();
        let flow = tunnel.passage.flow().id;
        if now.carried.as_ref().is_some_and(|carried| carried.flow == flow) {
            now.tunnel = now.carried.take();
        }
    }

    /// Notes which address a flow is connected to, so that a new policy can judge it too. If the policy changed since the
    /// decision, this is where the flow learns it.
    ///
    /// # Errors
    /// The denial of the policy of now, which has been told already.
    pub(crate) fn connected(&self, decided: &Decided, to: IpAddr) -> Result<(), Arc<Denial>> {
        let mut now = self.now();
        let policy = Arc::clone(self.fresh(&mut now));
        let id = decided.passage.flow().id;
        let judged = match &mut now.carried {
            Some(Carried { flow, what: What::Outside(out) }) if *flow == id => {
                out.address = Some(to);
                if policy.generation == decided.policy.generation {
                    return Ok(());
                }
                out.judge(&policy, &self.agent.own())
            }
            // Released meanwhile: nothing will be sent.
            _ => return Ok(()),
        };
        drop(now);
        judged.map_err(|denial| self.agent.denied(Some(Arc::clone(&decided.ask)), denial, policy.generation, Some(id)))
    }

    /// The passage ended: nothing of it is left to judge.
    pub(super) fn release(&self, flow: FlowId) {
        let mut now = self.now();
        if now.carried.as_ref().is_some_and(|carried| carried.flow == flow) {
            now.carried = None;
        }
        if now.tunnel.as_ref().is_some_and(|tunnel| tunnel.flow == flow) {
            now.tunnel = None;
        }
    }

    /// Why this connection ends, if it is we who end it.
    pub(super) fn ending(&self) -> Option<Outcome> {
        self.now().ending
    }

    /// Notes why the connection is about to end, for whatever it carries.
    pub(crate) fn ends(&self, outcome: Outcome) {
        self.now().ending.get_or_insert(outcome);
    }

    /// Ends the connection now: its task, and with it its sockets.
    pub(super) fn cut(&self, cut: Cut) {
        self.now().ending.get_or_insert(Outcome::Cut(cut));
        self.abort();
    }

    fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// There is a new policy: what it does not allow is cut. Says whether that was so.
    pub(super) fn visit(&self, own: &OwnAddresses) -> Visited {
        let mut now = self.now();
        // The newest, also if this visit is that of one before it.
        let policy = Arc::clone(self.fresh(&mut now));
        let judged = [&now.tunnel, &now.carried].into_iter().flatten().find_map(|carried| {
            let What::Outside(out) = &carried.what else { return None };
            let denial = out.judge(&policy, own).err()?;
            Some((carried.flow, Arc::clone(&out.ask), denial))
        });
        let Some((flow, ask, denial)) = judged else { return Visited::Stays };
        now.ending.get_or_insert(Outcome::Cut(Cut::Policy));
        drop(now);
        self.abort();
        self.agent.denied(Some(ask), denial, policy.generation, Some(flow));
        Visited::Cut
    }

    /// Model routes were taken away: what goes to one that is no longer there is cut.
    pub(super) fn visit_routes(&self, stays: impl Fn(&str) -> bool) -> Visited {
        let mut now = self.now();
        if !matches!(&now.carried, Some(Carried { what: What::Route(name), .. }) if !stays(name)) {
            return Visited::Stays;
        }
        now.ending.get_or_insert(Outcome::Cut(Cut::Policy));
        drop(now);
        self.abort();
        Visited::Cut
    }

    /// Gives the seat its task, which was begun before it had a place to be cut from.
    pub(super) fn attach(&self, task: AbortHandle) {
        let _ = self.task.set(task);
        if self.ending().is_some() {
            self.abort();
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// What a visit of a new policy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visited {
    Stays,
    Cut,
}

/// A way out that was decided.
#[derive(Debug)]
pub(crate) struct Decided {
    /// The policy that decided, and that has to decide the rest of it: addresses and ClientHello.
    pub(crate) policy: Arc<Policy>,
    pub(crate) ask: Arc<Ask>,
    pub(crate) permit: Permit,
    pub(crate) passage: Arc<Passage>,
}

/// Leaves the registry when the connection's task is gone, however it went.
#[derive(Debug)]
pub(crate) struct Sitting(pub(super) Arc<Seat>);

impl Sitting {
    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.0
    }
}

impl Drop for Sitting {
    fn drop(&mut self) {
        self.0.agent.leave(self.0.number());
    }
}
