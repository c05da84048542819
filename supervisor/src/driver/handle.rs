//! How everything outside the loop reaches it: requests in, answers out, never a lock.

use tokio::sync::{mpsc, oneshot};

use super::definition::Definition;
use super::event::{Act, Event, Refusal, Request};
use super::experimenting::Order;
use super::observing::Observed;
use super::scene::Scene;
use super::status::AgentStatus;
use super::streams::Wiring;
use crate::govern::ask::{Answer, Ask};
use crate::machine::lifecycle::Death;

/// How to reach the loop.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) events: mpsc::UnboundedSender<Event>,
}

impl Handle {
    /// Sends a request; a supervisor that has ended answers by dropping the answer's sender.
    pub fn send(&self, request: Request) {
        // A closed loop drops the request, and with it the sender of its answer: the asker sees that.
        let _ = self.events.send(Event::Request(request));
    }

    /// Takes up an agent; the receiver hears how it died for good.
    #[must_use]
    pub fn add(&self, definition: Definition, wiring: Wiring) -> oneshot::Receiver<Result<Death, Refusal>> {
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

    /// Does something to an agent without waiting for it: for somebody who waits for its death already.
    pub fn wish(&self, agent: &str, act: Act, by: u32) {
        let (answer, _) = oneshot::channel();
        self.send(Request::Act { agent: Some(agent.to_owned()), act, by, reason: String::new(), answer });
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
        let (answer, hears) = oneshot::channel();
        self.send(Request::Act { agent, act, by, reason, answer });
        hears.await.unwrap_or(Err(Refusal::Ending))
    }
}
