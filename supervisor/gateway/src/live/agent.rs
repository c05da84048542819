//! An agent as the gateway knows it: its policy of now, its model routes, its open connections.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::accept::{self, Serve};
use super::happening::Happening;
use super::seat::{Rooms, Seat, Sitting, Visited};
use super::{Inner, Models};
use crate::flow::{Cut, Ended, Flow, FlowId, Label};
use crate::limit::rate::{Rate, TooMany};
use crate::policy::{Ask, Denial, OwnAddresses, Policy};
use crate::resolve::Resolver;

/// What all connections of one agent share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) label: Label,
    pub(crate) gateway: Arc<Inner>,
    pub(super) resolver: Resolver,
    pub(super) room: Arc<Semaphore>,
    policy: RwLock<Arc<Policy>>,
    /// The generation in `policy`, to be read without its lock.
    generation: AtomicU64,
    models: RwLock<Option<Arc<Models>>>,
    rate: OnceLock<Arc<Rate>>,
    seats: Mutex<Seats>,
    emptied: Notify,
    counts: Counters,
}

#[derive(Debug)]
struct Seats {
    open: bool,
    next: u64,
    taken: HashMap<u64, Arc<Seat>>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) limited: AtomicU64,
    pub(super) in_flight: AtomicUsize,
    pub(super) cut: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// What was counted for an agent since it was registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections open now.
    pub open: usize,
    /// Decided and not yet over: requests, tunnels, model calls.
    pub in_flight: usize,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Denials.
    pub denied: u64,
    /// Requests that were not understood, and so decided by no policy.
    pub malformed: u64,
    /// How often a bound on connections was met.
    pub limited: u64,
    /// Connections that a new policy closed.
    pub cut: u64,
    /// Bytes of bodies and tunnels outwards.
    pub sent: u64,
    /// Bytes of bodies and tunnels back.
    pub received: u64,
}

impl Shared {
    pub(super) fn new(label: Label, gateway: Arc<Inner>, policy: Policy) -> Self {
        let room = Arc::new(Semaphore::new(gateway.settings.connections_per_agent));
        let generation = AtomicU64::new(policy.generation);
        let seats = Mutex::new(Seats { open: true, next: 0, taken: HashMap::new() });
        let policy = RwLock::new(Arc::new(policy));
        let (resolver, counts) = (gateway.resolver.for_agent(), Counters::default());
        let (models, rate, emptied) = (RwLock::new(None), OnceLock::new(), Notify::new());
        Self { label, gateway, resolver, room, policy, generation, models, rate, seats, emptied, counts }
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The model routes of now.
    pub(crate) fn models(&self) -> Option<Arc<Models>> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn own(&self) -> Arc<OwnAddresses> {
        self.gateway.own()
    }

    pub(super) fn next_flow(&self) -> FlowId {
        FlowId(self.gateway.flows.fetch_add(1, Ordering::Relaxed))
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        // A panic under this lock leaves the registry whole: each change is one call of the map.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a new connection; none once the agent is closed.
    pub(super) fn sit(self: &Arc<Self>, rooms: Rooms) -> Option<Sitting> {
        let mut seats = self.seats();
        if !seats.open {
            return None;
        }
        let number = seats.next;
        seats.next += 1;
        let seat = Arc::new(Seat::new(Arc::clone(self), number, rooms));
        seats.taken.insert(number, Arc::clone(&seat));
        drop(seats);
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Sitting(seat))
    }

    pub(super) fn leave(&self, number: u64) {
        let mut seats = self.seats();
        seats.taken.remove(&number);
        if seats.taken.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Takes the network away: nothing new, and what is open is cut.
    pub(super) fn close(&self) {
        let mut seats = self.seats();
        seats.open = false;
        let all: Vec<_> = seats.taken.values().cloned().collect();
        drop(seats);
        all.iter().for_each(|seat| seat.cut(Cut::Agent));
    }

    fn visit(&self, mut visit: impl FnMut(&Seat) -> Visited) -> usize {
        let all: Vec<_> = self.seats().taken.values().cloned().collect();
        let cut = all.iter().filter(|seat| visit(seat) == Visited::Cut).count();
        self.counts.cut.fetch_add(cut as u64, Ordering::Relaxed);
        cut
    }

    /// Counts and tells a denial.
    pub(crate) fn denied(
        &self,
        ask: Option<Arc<Ask>>,
        denial: Denial,
        generation: u64,
        flow: Option<FlowId>,
    ) -> Arc<Denial> {
        let denial = Arc::new(denial);
        self.counts.denied.fetch_add(1, Ordering::Relaxed);
        let agent = self.label.clone();
        self.gateway.teller.tell(Happening::Denied { agent, ask, denial: Arc::clone(&denial), generation, flow });
        denial
    }

    /// Takes one request out of the agent's rate.
    ///
    /// # Errors
    /// It is one too many, which is counted and told.
    pub(crate) fn request(&self) -> Result<(), TooMany> {
        let Some(rate) = self.rate.get() else { return Ok(()) };
        rate.take().inspect_err(|_| {
            let told = || self.gateway.teller.tell(Happening::Throttled { agent: self.label.clone() });
            if rate.is_news() && !told() {
                rate.unheard();
            }
        })
    }

    /// A flow begins.
    pub(super) fn began(&self) {
        self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was not understood.
    pub(crate) fn malformed(&self) {
        self.counts.malformed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn limited(&self, limit: super::Limit) {
        self.counts.limited.fetch_add(1, Ordering::Relaxed);
        self.gateway.teller.tell(Happening::Limited { agent: self.label.clone(), limit });
    }

    pub(super) fn lost(&self) {
        self.close();
        self.gateway.teller.tell(Happening::Lost { agent: self.label.clone() });
    }

    pub(super) fn ended(&self, flow: &Arc<Flow>, ended: Ended) {
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.counts.sent.fetch_add(ended.sent, Ordering::Relaxed);
        self.counts.received.fetch_add(ended.received, Ordering::Relaxed);
        self.gateway.hooks.ended(flow, &ended);
        self.gateway.teller.tell(Happening::Ended { flow: Arc::clone(flow), ended });
    }
}

/// An agent with a way out. Dropping it closes its listeners and everything that is open.
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
    listeners: Mutex<Vec<AbortHandle>>,
}

impl Agent {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, listeners: Mutex::new(Vec::new()) }
    }

    /// Serves one more listener for the agent, until the agent is dropped.
    ///
    /// # Errors
    /// When the listener can't be made asynchronous, or a published port would be open beyond loopback without leave.
    pub fn listen(&self, listener: TcpListener, serve: Serve) -> io::Result<()> {
        let task = accept::start(&self.shared, listener, serve)?;
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(())
    }

    /// Puts a new policy in force. From here on every decision is made under it; what is open and no longer allowed is ended:
    /// its task is told before this returns, and ends with at most the piece in its hands. Gives the number of those.
    ///
    /// # Errors
    /// [`Outdated`] when the policy isn't newer than the one in force: a late one must not bring back what was taken.
    pub fn set_policy(&self, policy: Policy) -> Result<usize, Outdated> {
        let policy = Arc::new(policy);
        let mut current = self.shared.policy.write().unwrap_or_else(PoisonError::into_inner);
        if policy.generation <= current.generation {
            return Err(Outdated { given: policy.generation, current: current.generation });
        }
        // First the policy is there for all to see, then the seats are visited: see `seat`.
        self.shared.generation.store(policy.generation, Ordering::Release);
        *current = policy;
        drop(current);
        let own = self.shared.own();
        Ok(self.shared.visit(|seat| seat.visit(&own)))
    }

    /// Gives, changes or takes model routes. Calls on a route that is no longer there are cut; gives how many were. Calls on
    /// one that stays end as they began.
    pub fn set_models(&self, models: Option<Models>) -> usize {
        let models = models.map(Arc::new);
        *self.shared.models.write().unwrap_or_else(PoisonError::into_inner) = models.clone();
        let stays =
            |name: &str| models.as_ref().is_some_and(|models| models.routes.iter().any(|route| route.name() == name));
        self.shared.visit(|seat| seat.visit_routes(stays))
    }

    /// Holds its requests, by whatever listener they come, to a rate that others may count for too. To be called once, before the
    /// first listener: without it requests are not counted, and later calls change nothing.
    pub fn set_rate(&self, rate: Arc<Rate>) {
        let _ = self.shared.rate.set(rate);
    }

    /// The generation of the policy in force.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = &self.shared.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            open: self.shared.seats().taken.len(),
            in_flight: counts.in_flight.load(Ordering::Relaxed),
            accepted: read(&counts.accepted),
            denied: read(&counts.denied),
            malformed: read(&counts.malformed),
            limited: read(&counts.limited),
            cut: read(&counts.cut),
            sent: read(&counts.sent),
            received: read(&counts.received),
        }
    }

    /// Takes the network away at once: nothing new is accepted, and what is open is cut. Nothing gives it back.
    pub fn cut(&self) {
        self.cut_all();
    }

    /// Takes the network away and waits until the last connection's task is gone.
    pub async fn close(self) {
        self.cut_all();
        loop {
            let emptied = self.shared.emptied.notified();
            if self.shared.seats().taken.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn cut_all(&self) {
        for task in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        self.shared.close();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.cut_all();
    }
}

/// A policy that is not newer than the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy generation {given} is not newer than {current}, which is in force")]
pub struct Outdated {
    /// The generation that was given.
    pub given: u64,
    /// The generation in force.
    pub current: u64,
}
