//! What an operator decides about an agent's power: its score, and what it attests.
//!
//! An agent can be named by its file before it ever ran: whoever has to start it in a low ring first, only to be asked about it,
//! learns to wave questions through.

use agt_sre::trust::Score;

use super::ask::{Answer, Introduced, trust_of};
use super::attestation::{Attestation, Subject, TTL_MOST_MS};
use super::governed::Governed;
use super::governor::{GovernError, Governor, wall_ms};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::plan::Identity;

const TRUST_SET: Action = Action::new("trust.set");
const ATTEST: Action = Action::new("attest");

/// Whether an agent was known before it was asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Before,
    /// Only by its file, and not stored yet.
    ByItsFile,
}

impl Governor {
    /// Makes an agent known by its file. One that is known stays as it is: its plan is not replaced by the way.
    async fn introduce(&mut self, name: &str, file: Option<&Introduced>) -> Result<Known, GovernError> {
        let Some(file) = file else {
            self.known(name).await?;
            return Ok(Known::Before);
        };
        let identity = Identity { uid: nix::unistd::getuid().as_raw(), ..file.identity.clone() };
        self.load(name).await?;
        if let Some(known) = self.agents.get(name) {
            if known.identity != identity {
                let other = known.identity.source.display().to_string();
                return Err(GovernError::NameTaken { name: name.to_owned(), other });
            }
            return Ok(Known::Before);
        }
        let mut governed = Governed::first(identity, file.slos.clone(), Score::UNKNOWN, self.now())?;
        governed.subject = Some(file.subject.clone());
        self.agents.insert(name.to_owned(), governed);
        Ok(Known::ByItsFile)
    }

    pub(super) async fn set_trust(
        &mut self,
        name: &str,
        score: Score,
        reason: &str,
        file: Option<&Introduced>,
        by: u32,
    ) -> Result<Answer, GovernError> {
        let now = self.now();
        let known = self.introduce(name, file).await?;
        let governed = self.known(name).await?;
        let before = governed.trust().clone();
        let changed = governed.set_trust(score, now);
        let record = Record::new(wall_ms(), Actor::Operator(by), TRUST_SET, Outcome::Allowed)
            .agent(name)
            .reason(reason)
            .detail("before", u32::from(changed.before.get()))
            .detail("score", u32::from(score.get()));
        if let Err(e) = self.durable(name, record).await {
            // Not recorded, so not given.
            if known == Known::ByItsFile {
                self.agents.remove(name);
            } else if let Some(governed) = self.agents.get_mut(name) {
                governed.put_trust(before);
            }
            return Err(e);
        }
        let now = self.now();
        Ok(Answer::Trust(self.agents.get(name).map(|governed| trust_of(governed, now)).into_iter().collect()))
    }

    pub(super) async fn attest(
        &mut self,
        name: &str,
        reason: &str,
        ttl_s: u64,
        file: Option<&Introduced>,
        by: u32,
    ) -> Result<Answer, GovernError> {
        let made_ms = wall_ms();
        let ttl_ms = i64::try_from(ttl_s).unwrap_or(i64::MAX).saturating_mul(1000);
        if ttl_ms <= 0 || ttl_ms > TTL_MOST_MS {
            return Err(GovernError::NotNow("an attestation holds for 1 second to 24 hours".to_owned()));
        }
        let known = self.introduce(name, file).await?;
        let governed = self.known(name).await?;
        let subject = file.map(|file| file.subject.clone()).or_else(|| governed.subject.clone());
        let subject = match subject {
            Some(Subject { plan, program: Some(program) }) => Subject { plan, program: Some(program) },
            subject => {
                if known == Known::ByItsFile {
                    self.agents.remove(name);
                }
                return Err(GovernError::NotNow(unattestable(name, subject.is_some(), file.is_some())));
            }
        };
        let record = Record::new(made_ms, Actor::Operator(by), ATTEST, Outcome::Allowed)
            .agent(name)
            .reason(reason)
            .detail("plan", subject.plan.as_str())
            .detail("program", subject.program.as_deref().unwrap_or_default())
            .detail("ttl_s", ttl_s);
        let text = format!("{name}  plan {} attested for {} s", &subject.plan[..12.min(subject.plan.len())], ttl_s);
        let made =
            Attestation { subject, by, reason: reason.to_owned(), made_ms, until_ms: made_ms.saturating_add(ttl_ms) };
        let before = governed.attestation.replace(made);
        if let Err(e) = self.durable(name, record).await {
            if known == Known::ByItsFile {
                self.agents.remove(name);
            } else if let Some(governed) = self.agents.get_mut(name) {
                governed.attestation = before;
            }
            return Err(e);
        }
        Ok(Answer::Done(text))
    }
}

fn unattestable(name: &str, has_plan: bool, by_file: bool) -> String {
    let only = "only an agent whose ring is 0 and whose program can be read is attested";
    match (has_plan, by_file) {
        (false, _) => {
            format!(
                "{name} has no plan yet: it is known after its first `run`, or by its file (`attest FILE.yaml ...`)"
            )
        }
        (true, true) => format!("{only}: by its file {name} is none"),
        (true, false) => format!("{only}: {name} was not at its last start"),
    }
}
