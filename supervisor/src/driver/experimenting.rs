//! What an experiment asks of the loop itself: the parts of a fault that are no file of a cgroup.
//!
//! They live in memory and are never stored, so that they die with the supervisor: a crash leaves nothing of them to repair.

use agt_sre::trust::Score;

use super::Supervisor;
use super::event::Refusal;
use super::launching::in_full;
use super::limiting;
use crate::govern::governed::Memory;

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Let a lower trust score count than the agent's own.
    LowerTrust(Score),
    /// Let its own count again.
    GiveTrustBack,
    /// From now on a death at the memory limit is the experiment's doing: it costs availability and no trust. Ends with that
    /// death.
    PressMemory,
    /// From now on it is the agent's own again.
    RelieveMemory,
    /// The hang is over: its tasks run on, unless an operator or a quarantine holds them meanwhile.
    EndHang,
    /// A limit was put back to what it was: those that are meant to hold by now are set over it.
    LimitsAgain,
}

impl Supervisor {
    pub(super) async fn experiment(&mut self, name: &str, order: Order) -> Result<(), Refusal> {
        if order == Order::EndHang {
            return match self.agents.get(name) {
                Some(agent) if agent.frozen.is_none() && agent.group.is_some() => self.set_frozen(name, None).await,
                // Held by somebody else from now on, or dead.
                _ => Ok(()),
            };
        }
        if order == Order::LimitsAgain {
            return self.limits_again(name);
        }
        let now = self.governor.now();
        let group = self.agents.get(name).and_then(|agent| agent.group.as_ref());
        let has_killed = group.and_then(|group| group.usage().ok()?.oom_kills).is_some_and(|kills| kills > 0);
        let Some(governed) = self.governor.get_mut(name) else { return Err(Refusal::Unknown(name.to_owned())) };
        match order {
            Order::LowerTrust(score) => {
                let _ = governed.lower_trust(score, now);
            }
            Order::GiveTrustBack => {
                let _ = governed.give_trust_back(now);
            }
            Order::PressMemory => governed.memory = Memory::Pressed,
            // Where the kernel has killed, the death that follows may still be on its way here.
            Order::RelieveMemory if has_killed => {}
            Order::RelieveMemory => governed.memory = Memory::Own,
            Order::EndHang | Order::LimitsAgain => {}
        }
        Ok(())
    }

    /// The limits that are meant to hold are set again: an experiment's undo has put back those that held when it began, and an
    /// operator may have set others since. Those that are just on their way to the kernel are waited for.
    fn limits_again(&mut self, name: &str) -> Result<(), Refusal> {
        let Some(agent) = self.agents.get_mut(name) else { return Ok(()) };
        if agent.limiting {
            agent.limits_again = true;
            return Ok(());
        }
        let wanted = self.ground.fitting(&agent.limits_at(agent.ring));
        let Some(group) = &agent.group else { return Ok(()) };
        // In the loop: it was under these limits or under narrower ones, so there is nothing to be reclaimed.
        limiting::set(group, &wanted)
            .map_err(|e| Refusal::HostCant(format!("{name}: {}{}", in_full(&e), limiting::advice(&e))))
    }

    /// Limits have arrived: if an undo came to an end meanwhile, what it wrote may stand over them.
    pub(super) fn limits_once_more(&mut self, name: &str) {
        let again = self.agents.get_mut(name).is_some_and(|agent| std::mem::take(&mut agent.limits_again));
        if again && let Err(refusal) = self.limits_again(name) {
            eprintln!("error: {refusal}");
        }
    }
}
