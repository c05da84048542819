//! What the operator socket shows of saga steps and does to them, and operators' words to sagas.
//!
//! Not through the loop: a kill waits for neither it nor the store. The steps' trees end first; that their sagas turn back
//! follows from their own records.

use agt_saga::id::SagaId;
use agt_saga::machine::{Command, Order};
use agt_saga::record::{Authority, Resolution};
use serde::{Deserialize, Serialize};

use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::driver::event::{Act, Refusal};
use crate::driver::records::wall_ms;
use crate::driver::status::AgentStatus;
use crate::machine::lifecycle::{Death, GaveUp, State};
use crate::sagas::hosted::Sagas;
use crate::store::Store;

/// An operator's word to a saga: POST.
pub const SAGA_ORDER: &str = "/v1/sagas/order";

const KILL: Action = Action::new("kill");

/// The body of [`SAGA_ORDER`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderBody {
    /// The saga's id.
    pub saga: String,
    /// What to do.
    pub order: OrderWord,
    /// Why; kept with the saga and in the audit log.
    pub reason: String,
}

/// An order in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderWord {
    /// Undo it.
    Cancel,
    /// Give it up as it stands.
    Abandon,
    /// Settle a step.
    Resolve {
        /// The step.
        step: String,
        /// How.
        resolution: Resolution,
    },
}

impl OrderBody {
    /// The saga, and the engine's command by this user.
    #[must_use]
    pub fn command(self, by: u32) -> (SagaId, Command) {
        let order = match self.order {
            OrderWord::Cancel => Order::Cancel,
            OrderWord::Abandon => Order::Abandon,
            OrderWord::Resolve { step, resolution } => Order::Resolve { step, resolution },
        };
        let authority = Authority { by: format!("uid {by}"), reason: self.reason };
        (SagaId::new(self.saga), Command { order, authority })
    }
}

/// What an operator did or was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Whether the supervisor drives the saga now, so that it acts on the word by itself.
    pub driven: bool,
}

/// Whether a name can mean a step or a saga: agents' names have neither a slash, nor does the supervisor drive one of them.
#[must_use]
pub fn means_saga(sagas: &Sagas, name: &str) -> bool {
    name.contains('/') || sagas.driven().iter().any(|id| id.as_str() == name)
}

/// The running steps that `name` means; all for `None`.
#[must_use]
pub fn statuses(sagas: &Sagas, name: Option<&str>) -> Vec<AgentStatus> {
    sagas.steps().live().named(name).iter().map(|run| run.status()).collect()
}

/// Does something to steps: they can be killed, and their saga stopped in order.
///
/// # Errors
/// No such step runs; an act that no step knows; a kill that could not be verified.
pub async fn act(
    sagas: &Sagas,
    store: &Store,
    name: Option<&str>,
    act: Act,
    by: u32,
    reason: &str,
) -> Result<Vec<AgentStatus>, Refusal> {
    match (act, name) {
        (Act::Kill, _) => kill(sagas, store, name, by, reason).await,
        (Act::Stop, None) => {
            sagas.let_go();
            Ok(Vec::new())
        }
        (_, None) => Ok(Vec::new()),
        (_, Some(name)) => Err(Refusal::NotNow(format!(
            "{name} is a step of a saga: it can be killed, and its saga cancelled\nhelp: agt-supervise kill {name} --reason \
             \"...\", or agt-supervise saga cancel {} --reason \"...\"",
            name.split('/').next().unwrap_or(name)
        ))),
    }
}

async fn kill(
    sagas: &Sagas,
    store: &Store,
    name: Option<&str>,
    by: u32,
    reason: &str,
) -> Result<Vec<AgentStatus>, Refusal> {
    let runs = sagas.steps().live().named(name);
    if let (Some(name), true) = (name, runs.is_empty()) {
        return Err(Refusal::NotNow(format!(
            "no step of that name runs: {name}\nhelp: agt-supervise ps names those that do"
        )));
    }
    let word = if reason.is_empty() { "manual" } else { reason };
    // All at once: one that is slow to die keeps nobody else alive.
    let strikes: Vec<_> = runs
        .iter()
        .map(|run| {
            let (run, word) = (std::sync::Arc::clone(run), word.to_owned());
            tokio::spawn(async move { run.strike(&word).await })
        })
        .collect();
    let mut killed = Vec::new();
    for (run, strike) in runs.iter().zip(strikes) {
        let done = strike.await.map_err(|e| Refusal::NotNow(e.to_string()))?;
        let done = done.map_err(|e| Refusal::NotNow(format!("{}: the kill could not be verified: {e}", run.name())))?;
        let record = Record::new(wall_ms(), Actor::Operator(by), KILL, Outcome::Done).agent(run.name()).reason(word);
        let _ = store.append_audit_nowait(record);
        let mut status = run.status();
        let death = Death::Killed { reason: word.to_owned() };
        status.state = State::Ended { death, gave_up: GaveUp::No };
        status.kill = done;
        killed.push(status);
    }
    if name.is_none() {
        turn_the_others_back(sagas, &runs, by, word).await;
    }
    Ok(killed)
}

/// `kill --all` leaves no saga going forward: those between two steps are cancelled.
async fn turn_the_others_back(
    sagas: &Sagas,
    struck: &[std::sync::Arc<crate::sagas::live::LiveRun>],
    by: u32,
    why: &str,
) {
    for id in sagas.driven().into_iter().filter(|id| struck.iter().all(|run| run.saga() != id)) {
        let authority = Authority { by: format!("uid {by}"), reason: format!("kill --all: {why}") };
        // One that is being undone, past its pivot or over takes no cancel, and needs none.
        let _ = sagas.command(&id, Command { order: Order::Cancel, authority }).await;
    }
}
