//! Names are resolved here and nowhere else, within bounds.
//!
//! The system's resolver is asked (nsswitch, hosts file, search list and all), because what it says is what the operator of this host
//! means by a name. It blocks, for as long as its own settings say, and can't be called off: so each look-up has a thread of its own,
//! there are at most so many of them in all and per agent, and who waits for one gives up in time while the thread finishes by itself.
//! Nothing else runs on these threads, so a hung DNS holds up names and nothing but names.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::host::{Name, plain};

/// Addresses of one name that are looked at.
pub const ADDRESSES_MAX: usize = 16;
/// Names whose answer is kept.
const KEPT_MAX: usize = 1024;

/// Bounds of a resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Look-ups at once for all agents: threads.
    pub lookups: usize,
    /// Look-ups at once for one agent, so that one agent's dead names leave room for the others.
    pub per_agent: usize,
    /// How long a caller waits for an answer, waiting for a thread included.
    pub wait: Duration,
    /// How long an answer is used again. The system's resolver doesn't tell how long it is good for.
    pub keep: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { lookups: 32, per_agent: 8, wait: Duration::from_secs(10), keep: Duration::from_secs(2) }
    }
}

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says so.
    #[error("{name} was not resolved")]
    Failed {
        /// The name.
        name: Name,
        /// What the resolver said.
        #[source]
        source: Arc<io::Error>,
    },
    /// It resolves, to nothing.
    #[error("{name} has no address")]
    Empty {
        /// The name.
        name: Name,
    },
    /// No answer in time.
    #[error("{name} was not resolved within {} s", wait.as_secs_f32())]
    TimedOut {
        /// The name.
        name: Name,
        /// How long was waited.
        wait: Duration,
    },
    /// No thread could be had for it.
    #[error("no thread to resolve {name}")]
    NoThread {
        /// The name.
        name: Name,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
}

/// What answers: blocks, and returns addresses in the order in which they should be tried.
pub trait Lookup: Send + Sync {
    /// Looks a name up.
    ///
    /// # Errors
    /// Whatever the resolver says.
    fn addresses(&self, name: &Name) -> io::Result<Vec<IpAddr>>;
}

/// getaddrinfo(3).
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Lookup for System {
    fn addresses(&self, name: &Name) -> io::Result<Vec<IpAddr>> {
        Ok((name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

type Answer = Result<Arc<[IpAddr]>, ResolveError>;
type Awaited = watch::Receiver<Option<Answer>>;

/// Asks for names. Clones and shares ask the same look-ups.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
    /// The look-ups that this agent may have under way.
    agent: Arc<Semaphore>,
}

struct Shared {
    lookup: Box<dyn Lookup>,
    bounds: Bounds,
    threads: Arc<Semaphore>,
    known: Mutex<HashMap<Name, Known>>,
}

/// An answer, or one that is waited for: however many connections ask for a name at once, it is looked up once.
struct Known {
    answer: Awaited,
    /// When it was asked for.
    asked: Instant,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("bounds", &self.shared.bounds)
            .field("free", &self.shared.threads.available_permits())
            .finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks the system.
    #[must_use]
    pub fn system(bounds: Bounds) -> Resolver {
        Resolver::new(System, bounds)
    }

    /// Asks something else.
    #[must_use]
    pub fn new(lookup: impl Lookup + 'static, bounds: Bounds) -> Resolver {
        let shared = Shared {
            lookup: Box::new(lookup),
            bounds,
            threads: Arc::new(Semaphore::new(bounds.lookups)),
            known: Mutex::new(HashMap::new()),
        };
        Resolver { shared: Arc::new(shared), agent: Arc::new(Semaphore::new(bounds.per_agent)) }
    }

    /// The same resolver for another agent, with room of its own.
    #[must_use]
    pub fn for_agent(&self) -> Resolver {
        Resolver { shared: Arc::clone(&self.shared), agent: Arc::new(Semaphore::new(self.shared.bounds.per_agent)) }
    }

    /// The addresses of a name, in the order in which they should be tried; IPv4-mapped ones as IPv4. None of them is checked.
    ///
    /// # Errors
    /// When there is no answer, or none in time.
    pub async fn resolve(&self, name: &Name) -> Result<Arc<[IpAddr]>, ResolveError> {
        let wait = self.shared.bounds.wait;
        let until = Instant::now() + wait;
        let late = || ResolveError::TimedOut { name: name.clone(), wait };
        if let Some(answer) = self.shared.awaited(name) {
            return self.shared.answered(answer, name, until).await;
        }
        let room = |semaphore: &Arc<Semaphore>| timeout_at(until, Arc::clone(semaphore).acquire_owned());
        let mine = room(&self.agent).await.map_err(|_| late())?.expect("the semaphore is never closed");
        let thread = room(&self.shared.threads).await.map_err(|_| late())?.expect("the semaphore is never closed");
        let answer = Shared::start(&self.shared, name, [mine, thread])?;
        self.shared.answered(answer, name, until).await
    }
}

impl Shared {
    /// An answer that is fresh or on its way.
    fn awaited(&self, name: &Name) -> Option<Awaited> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|known| known.is_of_use(self.bounds.keep)).map(|known| known.answer.clone())
    }

    /// Looks a name up, unless somebody else began to while we waited for room.
    fn start(shared: &Arc<Shared>, name: &Name, room: [OwnedSemaphorePermit; 2]) -> Result<Awaited, ResolveError> {
        let (told, answer) = watch::channel(None);
        {
            let mut known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(there) = known.get(name).filter(|known| known.is_of_use(shared.bounds.keep)) {
                return Ok(there.answer.clone());
            }
            if known.len() >= KEPT_MAX {
                known.retain(|_, known| known.is_of_use(shared.bounds.keep));
            }
            if known.len() < KEPT_MAX {
                known.insert(name.clone(), Known { answer: answer.clone(), asked: Instant::now() });
            }
        }
        let (asked, name_here) = (Arc::clone(shared), name.clone());
        let spawned = std::thread::Builder::new().name("agt-resolve".to_owned()).spawn(move || {
            let addresses = asked.lookup.addresses(&name_here);
            told.send_replace(Some(answer_of(&name_here, addresses)));
            drop(room);
        });
        match spawned {
            Ok(_) => Ok(answer),
            Err(source) => Err(ResolveError::NoThread { name: name.clone(), source: Arc::new(source) }),
        }
    }

    async fn answered(&self, mut answer: Awaited, name: &Name, until: Instant) -> Answer {
        match timeout_at(until, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone().expect("it was waited for until it is there"),
            // The look-up panicked, or never had a thread.
            Ok(Err(_)) => Err(ResolveError::Empty { name: name.clone() }),
            Err(_) => Err(ResolveError::TimedOut { name: name.clone(), wait: self.bounds.wait }),
        }
    }
}

impl Known {
    /// Whether to wait for it or to take it: not a failure, nor what is old, nor what will never come.
    fn is_of_use(&self, keep: Duration) -> bool {
        match &*self.answer.borrow() {
            Some(Ok(_)) => self.asked.elapsed() < keep,
            Some(Err(_)) => false,
            None => self.answer.has_changed().is_ok(),
        }
    }
}

fn answer_of(name: &Name, looked_up: io::Result<Vec<IpAddr>>) -> Answer {
    let found = match looked_up {
        Ok(found) => found,
        Err(source) => return Err(ResolveError::Failed { name: name.clone(), source: Arc::new(source) }),
    };
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(found.len().min(ADDRESSES_MAX));
    for address in found.into_iter().map(plain) {
        if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(ResolveError::Empty { name: name.clone() }) } else { Ok(addresses.into()) }
}

#[cfg(test)]
mod tests;
