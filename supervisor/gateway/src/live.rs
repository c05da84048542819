//! The gateway as the supervisor holds it: agents, their policies of now, what is open under which.
//!
//! Nothing is shared between requests but what is read: a connection has its own seat and lock, a policy is an `Arc`. A new
//! policy is published first and then visits every seat, so that no flow is left that only the old one allowed.

mod accept;
mod agent;
mod happening;
mod passage;
mod reach;
mod seat;
mod settings;
mod worker;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::Semaphore;

pub use accept::Serve;
pub use agent::{Agent, Counts, Outdated};
pub use happening::{Happening, Happenings, Limit};
pub use settings::{FIELDS_MAX, HEAD_MAX, Settings, Waits};

pub(crate) use passage::Passage;
pub(crate) use reach::{NoWay, Reached, reach};
pub(crate) use seat::{Decided, Seat};

use crate::flow::Label;
use crate::hook::Hooks;
use crate::intercept::{Authority, NoAuthority, Pem};
use crate::limit::Account;
use crate::policy::{OwnAddresses, Policy};
use crate::proxy::secure;
use crate::resolve::Resolver;
use crate::route::{Client, Dial, Routes, Witness};
use happening::Teller;
use worker::{Thread, Worker};

/// What all agents share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) hooks: Hooks,
    pub(crate) resolver: Resolver,
    /// Whom destinations are believed to be by, where their TLS is opened here.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// Made when it is first asked for.
    authority: Mutex<Option<Arc<Authority>>>,
    own: RwLock<Arc<OwnAddresses>>,
    teller: Teller,
    room: Arc<Semaphore>,
    flows: AtomicU64,
    workers: Vec<Worker>,
}

impl Inner {
    fn own(&self) -> Arc<OwnAddresses> {
        Arc::clone(&self.own.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The authority behind the certificates that agents are shown.
    pub(crate) fn authority(&self) -> Result<Arc<Authority>, NoAuthority> {
        let mut made = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = &*made {
            return Ok(Arc::clone(authority));
        }
        let authority = Arc::new(Authority::new(SystemTime::now())?);
        *made = Some(Arc::clone(&authority));
        Ok(authority)
    }

    /// The thread that carries least, by its number; `home` where none carries less.
    fn pick(&self, home: Option<usize>) -> usize {
        let load = |number: &usize| (self.workers[*number].load.now(), Some(*number) != home);
        (0..self.workers.len()).min_by_key(load).expect("there is at least one thread")
    }
}

/// How the gateway itself gets outside.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Resolves names for agents.
    pub resolver: Resolver,
    /// The host's own addresses and the supervisor's ports.
    pub own: OwnAddresses,
    /// Makes connections to the upstreams of model routes, which the operator declared.
    pub dial: Arc<dyn Dial>,
    /// Whom those upstreams are believed to be by, and destinations whose TLS is opened here (`intercept: on`).
    pub tls: Arc<rustls::ClientConfig>,
}

/// The model routes of an agent, with what its calls are held to.
#[derive(Clone, Debug)]
pub struct Models {
    /// Where calls may go.
    pub routes: Routes,
    /// The limits they stand under.
    pub account: Arc<Account>,
    /// Who is told of them.
    pub witness: Arc<dyn Witness>,
}

/// The gateway. Dropping it ends every connection and every thread of it.
#[derive(Debug)]
pub struct Gateway {
    inner: Arc<Inner>,
    /// Dropped for its effect.
    _threads: Vec<Thread>,
}

impl Gateway {
    /// Starts the threads; nobody is served yet. What happens comes out of the second value.
    ///
    /// # Errors
    /// When the kernel gives no thread or no epoll descriptor.
    pub fn start(settings: Settings, hooks: Hooks, outside: Outside) -> io::Result<(Self, Happenings)> {
        let Outside { resolver, own, dial, tls } = outside;
        let client = || Client::new(Arc::clone(&dial), Arc::clone(&tls));
        let threads = 0..settings.threads.max(1);
        let started = threads.map(|number| worker::start(number, client())).collect::<io::Result<Vec<_>>>()?;
        let (workers, threads) = started.into_iter().unzip();
        let (teller, happenings) = Happenings::new(settings.happenings);
        let room = Arc::new(Semaphore::new(settings.connections));
        let own = RwLock::new(Arc::new(own));
        let tls = secure::apart(&tls);
        let (authority, flows) = (Mutex::new(None), AtomicU64::new(1));
        let inner = Inner { settings, hooks, resolver, tls, authority, own, teller, room, flows, workers };
        Ok((Self { inner: Arc::new(inner), _threads: threads }, happenings))
    }

    /// Registers an agent under its first policy. It has no way out until it is given a listener.
    #[must_use]
    pub fn register(&self, label: Label, policy: Policy) -> Agent {
        Agent::new(Arc::new(agent::Shared::new(label, Arc::clone(&self.inner), policy)))
    }

    /// The certificate of the authority behind what agents are shown where `intercept: on` opens their TLS, to be handed to them
    /// ([`bundle`](crate::intercept::bundle), [`trust_environment`](crate::proxy::trust_environment)). The authority is made by the
    /// first call of this, or by the first tunnel that is opened; it ends with the gateway.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn authority(&self) -> Result<Pem, NoAuthority> {
        Ok(self.inner.authority()?.pem().clone())
    }

    /// Whether there is an authority yet: nothing of it is made for a gateway that opens no TLS.
    #[must_use]
    pub fn has_authority(&self) -> bool {
        self.inner.authority.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The host's own addresses and ports, when they changed. Holds for every connection that is made from here on.
    pub fn set_own(&self, own: OwnAddresses) {
        *self.inner.own.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(own);
    }
}
