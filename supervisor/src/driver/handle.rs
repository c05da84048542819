//! How everything outside the loop reaches it: requests in, answers out, never a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::audience::{Tenure, Wish};
use super::definition::Definition;
use super::event::{Act, Event, Refusal, Request};
use super::experimenting::Order;
use super::observing::Observed;
use super::reach::{self, Reach};
use super::scene::Scene;
use super::status::AgentStatus;
use super::streams::Wiring;
use crate::govern::ask::{Answer, Ask};
use crate::machine::lifecycle::Conclusion;

/// How to reach the loop.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) holds: Arc<AtomicUsize>,
    pub(super) reach: Reach,
}

/// Work beside the agents, an experiment say: as long as one of these is there, the supervisor does not end.
#[derive(Debug)]
pub struct Hold(Handle);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
        // Whoever waited for it looks again; a loop that has ended waits for nothing.
        let _ = self.0.events.send(Event::Released);
    }
}

impl Handle {
    /// Sends a request; a supervisor that has ended answers by dropping the answer's sender.
    pub fn send(&self, request: Request) {
        // A closed loop drops the request, and with it the sender of its answer: the asker sees that.
        let _ = self.events.send(Event::Request(request));
    }

    /// Takes up an agent; the receiver hears how it died for good.
    #[must_use]
    pub fn add(&self, definition: Definition, wiring: Wiring) -> oneshot::Receiver<Result<Conclusion, Refusal>> {
        let (done, hears) = oneshot::channel();
        self.send(Request::Add { definition: Box::new(definition), wiring, done });
        hears
    }

    /// Asks for the status of one agent or all.
    ///
    /// # Errors
    /// [`Refusal`] when there is no such agent or the supervisor is ending.
    pub async fn status(&self, agent: Option<String>) -> Result<Vec<AgentStatus>, Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Status { agent, answer });
        hears.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Says what whoever started an agent wants of it, without waiting: they wait for its death already.
    pub fn wish(&self, agent: &str, tenure: Tenure, wish: Wish, by: u32) {
        self.send(Request::Wish { agent: agent.to_owned(), tenure, wish, by });
    }

    /// Keeps the supervisor from ending until the hold is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.holds.fetch_add(1, Ordering::SeqCst);
        Hold(self.clone())
    }

    /// Asks the governor.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn govern(&self, ask: Ask, by: u32) -> Result<Answer, Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Govern { ask, by, answer });
        hears.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Asks for the numbers of all agents, for metrics.
    ///
    /// # Errors
    /// [`Refusal::Ending`].
    pub async fn observe(&self) -> Result<Observed, Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Observe { answer });
        hears.await.map_err(|_| Refusal::Ending)
    }

    /// Asks for what an experiment sees of one agent.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] and [`Refusal::Ending`].
    pub async fn scene(&self, agent: &str) -> Result<Scene, Refusal> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Scene { agent: agent.to_owned(), answer });
        hears.await.unwrap_or(Err(Refusal::Ending))
    }

    /// Does the part of a fault that is no file of a cgroup.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] and [`Refusal::Ending`].
    pub async fn experiment(&self, agent: &str, order: Order) -> Result<(), Refusal> {
        let hears = self.order(agent, order);
        hears.await.unwrap_or(Err(Refusal::Ending))
    }

    /// The same without waiting: for somebody who is being dropped.
    pub fn order(&self, agent: &str, order: Order) -> oneshot::Receiver<Result<(), Refusal>> {
        let (answer, hears) = oneshot::channel();
        self.send(Request::Experiment { agent: agent.to_owned(), order, answer });
        hears
    }

    /// Does something to one agent or all; returns once it is done.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn act(
        &self,
        agent: Option<String>,
        act: Act,
        by: u32,
        reason: String,
    ) -> Result<Vec<AgentStatus>, Refusal> {
        let (answer, mut hears) = oneshot::channel();
        self.send(Request::Act { agent: agent.clone(), act, by, reason, answer });
        let mut heard = None;
        if act == Act::Kill {
            heard = timeout(reach::LOOP_WITHIN, &mut hears).await.ok();
            if heard.is_none() {
                let struck = self.reach.strike(agent.as_deref()).await;
                heard = timeout(reach::WORD_WITHIN, &mut hears).await.ok();
                if heard.is_none() {
                    return Err(reach::unrecorded(&struck));
                }
            }
        }
        let heard = match heard {
            Some(heard) => heard,
            None => hears.await,
        };
        heard.unwrap_or(Err(Refusal::Ending))
    }
}
