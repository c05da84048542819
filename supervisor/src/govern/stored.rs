//! How the governor's memory lies in the state store: a kind for each part, so that one damaged part names itself.

use std::collections::BTreeMap;

use agt_rings::Ring;
use agt_sre::breaker::BreakerSnapshot;
use agt_sre::engine::EngineSnapshot;
use agt_sre::spec::SloSpec;
use agt_sre::trust::TrustSnapshot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whose all this is.
pub const IDENTITY: &str = "identity";
/// [`StoredSlo`].
pub const SLO: &str = "slo";
/// The trust snapshot.
pub const TRUST: &str = "trust";
/// The breaker's snapshot.
pub const BREAKER: &str = "breaker";
/// [`Killed`].
pub const KILLED: &str = "killed";
/// The attestation.
pub const ATTESTATION: &str = "attestation";
/// What was to be started last, for an attestation made without the file at hand.
pub const SUBJECT: &str = "subject";

/// All kinds.
pub const KINDS: [&str; 7] = [IDENTITY, SLO, TRUST, BREAKER, KILLED, ATTESTATION, SUBJECT];

/// SLOs as written, with what they have counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSlo {
    /// As agent.yaml had them.
    pub specs: Vec<SloSpec>,
    /// The engine's memory.
    pub snapshot: EngineSnapshot,
    /// A demotion in force.
    pub demoted: Option<Demoted>,
}

/// A demotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demoted {
    /// Into which ring.
    pub to: Ring,
    /// From which.
    pub from: Ring,
    /// By which SLO.
    pub slo: String,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

/// The mark of the kill switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Killed {
    /// One of the reasons of the kill switch, or the operator's words.
    pub reason: String,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
}

/// One agent's parts, as read.
#[derive(Debug, Default)]
pub struct Parts(pub BTreeMap<String, Value>);

/// A part that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It isn't what it should be.
    #[error("the stored {kind} of {agent} can't be read")]
    Unreadable {
        /// Whose.
        agent: String,
        /// Which part.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// No run can have written it.
    #[error("the stored {kind} of {agent} can't be used")]
    Unusable {
        /// Whose.
        agent: String,
        /// Which part.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: agt_sre::error::Error,
    },
    /// The SLOs as written don't pass the checks of this build.
    #[error("the stored SLOs of {agent} are no longer valid: {problem}")]
    Slos {
        /// Whose.
        agent: String,
        /// The first thing that is wrong.
        problem: String,
    },
}

impl Parts {
    /// One part.
    ///
    /// # Errors
    /// [`PartError::Unreadable`].
    pub fn read<T: DeserializeOwned>(&self, agent: &str, kind: &'static str) -> Result<Option<T>, PartError> {
        let Some(value) = self.0.get(kind) else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|source| PartError::Unreadable {
            agent: agent.to_owned(),
            kind,
            source,
        })
    }

    /// The trust snapshot.
    ///
    /// # Errors
    /// [`PartError::Unreadable`].
    pub fn trust(&self, agent: &str) -> Result<Option<TrustSnapshot>, PartError> {
        self.read(agent, TRUST)
    }

    /// The breaker's snapshot.
    ///
    /// # Errors
    /// [`PartError::Unreadable`].
    pub fn breaker(&self, agent: &str) -> Result<Option<BreakerSnapshot>, PartError> {
        self.read(agent, BREAKER)
    }
}
