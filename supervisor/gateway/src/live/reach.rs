//! From a decision to a connection: the hooks are asked, the name is resolved, each address admitted, one connected.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::seat::Decided;
use crate::dial::{self, Bounds, DialError};
use crate::flow::{Outcome, Wait};
use crate::hook::Failure;
use crate::policy::{Ask, Denial};

/// Why there is no connection. The passage has ended with it.
#[derive(Clone, Debug)]
pub(crate) enum NoWay {
    /// The policy doesn't admit the address.
    Denied(Arc<Denial>, Arc<Ask>),
    /// It could not be resolved or connected; in words for the agent.
    Unreachable(String),
    /// It took too long.
    TimedOut,
    /// A hook made it fail.
    Failed(Failure),
    /// The destination is not who it should be; in words for the agent.
    Untrusted(Arc<Denial>, String),
}

/// A connection to what was decided.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) stream: TcpStream,
    /// The address that was admitted, and is connected.
    pub(crate) address: IpAddr,
}

impl NoWay {
    /// A denial of a decided flow.
    pub(crate) fn denied(denial: Arc<Denial>, decided: &Decided) -> Self {
        decided.passage.end(Outcome::Denied(denial.reason));
        Self::Denied(denial, Arc::clone(&decided.ask))
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Denied(denial, _) => Outcome::Denied(denial.reason),
            Self::Unreachable(_) => Outcome::Unreachable,
            Self::TimedOut => Outcome::TimedOut(Wait::Connect),
            Self::Failed(failure) => Outcome::Failed(*failure),
            Self::Untrusted(denial, _) => Outcome::Denied(denial.reason),
        }
    }
}

/// Connects to what was decided.
///
/// # Errors
/// Why not; denials have been told.
pub(crate) async fn reach(decided: &Decided) -> Result<Reached, NoWay> {
    connect(decided).await.inspect_err(|way| decided.passage.end(way.outcome()))
}

async fn connect(decided: &Decided) -> Result<Reached, NoWay> {
    decided.passage.before_connect().await.map_err(NoWay::Failed)?;
    let seat = decided.passage.seat();
    let agent = &seat.agent;
    let bounds = Bounds { connect: agent.gateway.settings.waits.connect, ..Bounds::default() };
    let told = |denial: Denial| {
        let flow = Some(decided.passage.flow().id);
        agent.denied(Some(Arc::clone(&decided.ask)), denial, decided.policy.generation, flow)
    };
    let dialled = match dial::dial(&decided.policy, &decided.ask, &agent.resolver, &agent.own(), &bounds).await {
        Ok(dialled) => dialled,
        Err(DialError::Denied(denial)) => return Err(NoWay::Denied(told(denial), Arc::clone(&decided.ask))),
        Err(DialError::TimedOut { .. }) => return Err(NoWay::TimedOut),
        // A name that doesn't resolve now may later: that is no word of the policy.
        Err(error @ (DialError::Unresolved(_) | DialError::Unreachable { .. })) => {
            return Err(NoWay::Unreachable(whole(&decided.ask, &error)));
        }
    };
    for denial in dialled.refused {
        told(denial);
    }
    let address = dialled.address.ip();
    seat.connected(decided, address).map_err(|denial| NoWay::Denied(denial, Arc::clone(&decided.ask)))?;
    Ok(Reached { stream: dialled.stream, address })
}

/// An error with its causes, as one line.
fn whole(ask: &Ask, error: &dyn Error) -> String {
    let mut text = format!("{ask}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
