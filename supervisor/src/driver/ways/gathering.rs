//! What happens on the ways out, gathered for a moment before the loop is told: an agent that asks a thousand times a second costs it
//! a handful of sums. The gatherer waits for the first and only then for the moment, so nothing wakes up while nothing passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agt_gateway::flow::{Ended, Flow, Kind, Label, Outcome, To};
use agt_gateway::live::{Happening, Happenings, Settings};
use agt_gateway::policy;
use agt_gateway::policy::{Ask, Denial};
use agt_rings::Ring;
use tokio::sync::{mpsc, oneshot};

use crate::denials::memory::Tried;
use crate::driver::Supervisor;
use crate::driver::audience::Line;
use crate::driver::event::Event;
use crate::govern::evidence::Weight;

const HELP_IN_R3: &str = "R3 calls models and reaches nothing else: `ring: 2` has what `network` lists";
/// How long happenings are gathered before the loop is told.
const GATHER: Duration = Duration::from_millis(200);
/// Kinds that one gathering keeps apart; of others only the number is told. Beyond it each reason still has a place, for each agent: what
/// is refused for a grave one must not be hidden by the noise of others.
const KINDS_MAX: usize = 256;

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    denials: BTreeMap<(String, Refused), u64>,
    carried: BTreeMap<(String, &'static str, &'static str), Carried>,
    /// How long each of them took. No more than happenings fit into one gathering.
    took: BTreeMap<(String, &'static str), Vec<Took>>,
    /// Bounds on connections that were met.
    limited: BTreeMap<String, u64>,
    /// Agents that made more requests than they may.
    throttled: BTreeSet<String>,
    /// Agents whose network a fault of ours has taken.
    lost: Vec<String>,
    /// Connections to ports at which nobody listens inside.
    untaken: BTreeMap<(String, u16), u64>,
    /// What did not fit.
    uncounted: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Refused {
    asked: String,
    rule: String,
    reason: policy::Reason,
    why: String,
    help: Option<String>,
}

/// Requests of one kind and outcome, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) count: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// How long one of them took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    /// To the first byte of its answer, if one came.
    pub(crate) first_byte: Option<Duration>,
    /// To its end.
    pub(crate) total: Duration,
}

impl Gathered {
    /// One agent made more requests than it may, elsewhere than through the gateway.
    pub(crate) fn throttled(agent: &str) -> Gathered {
        Gathered { throttled: BTreeSet::from([agent.to_owned()]), ..Gathered::default() }
    }

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::Denied { agent, ask, denial, .. } => self.denied(&agent, ask.as_deref(), &denial),
            Happening::Ended { flow, ended } => self.ended(&flow, ended),
            Happening::Limited { agent, .. } => *self.limited.entry(agent.as_str().to_owned()).or_default() += 1,
            Happening::Throttled { agent } => drop(self.throttled.insert(agent.as_str().to_owned())),
            Happening::Lost { agent } => self.lost.push(agent.as_str().to_owned()),
        }
    }

    fn denied(&mut self, agent: &Label, ask: Option<&Ask>, denial: &Denial) {
        let refused = Refused {
            asked: ask.map_or_else(|| "what can't be read as a destination".to_owned(), Ask::to_string),
            rule: denial.rule.to_string(),
            reason: denial.reason,
            why: denial.to_string(),
            help: ask.and_then(|ask| denial.help(ask)),
        };
        let key = (agent.as_str().to_owned(), refused);
        let is_full = self.denials.len() >= KINDS_MAX && !self.denials.contains_key(&key);
        let same = |(whose, other): &(String, Refused)| *whose == key.0 && other.reason == key.1.reason;
        if is_full && self.denials.keys().any(same) {
            self.uncounted += 1;
            return;
        }
        *self.denials.entry(key).or_default() += 1;
    }

    fn ended(&mut self, flow: &Flow, ended: Ended) {
        let (agent, kind) = (flow.agent.as_str().to_owned(), flow.kind.word());
        if let (Kind::Published, Outcome::Unreachable, To::Inside(port)) = (flow.kind, ended.outcome, &flow.to) {
            *self.untaken.entry((agent.clone(), *port)).or_default() += 1;
        }
        let took = Took { first_byte: ended.first_byte, total: ended.total };
        self.took.entry((agent.clone(), kind)).or_default().push(took);
        let key = (agent, kind, ended.outcome.word());
        let sum = self.carried.entry(key).or_default();
        sum.count += 1;
        sum.sent = sum.sent.saturating_add(ended.sent);
        sum.received = sum.received.saturating_add(ended.received);
    }

    fn drain(&mut self, happenings: &mut Happenings, room: usize) {
        for _ in 0..room {
            let Some(happening) = happenings.try_next() else { return };
            self.take(happening);
        }
    }
}

/// Gathers until nobody is left to tell, or a gateway to tell of.
pub(super) async fn gather(
    mut happenings: Happenings,
    mut last: mpsc::Receiver<oneshot::Sender<Gathered>>,
    events: mpsc::UnboundedSender<Event>,
) {
    let room = Settings::default().happenings;
    loop {
        let mut gathered = Gathered::default();
        let asked = tokio::select! {
            biased;
            asked = last.recv() => asked,
            first = happenings.next() => {
                let Some(first) = first else { return };
                gathered.take(first);
                tokio::time::timeout(GATHER, last.recv()).await.ok().flatten()
            }
        };
        gathered.drain(&mut happenings, room);
        let told = match asked {
            Some(answer) => answer.send(gathered).map_err(drop),
            None => events.send(Event::Passed(Box::new(gathered))).map_err(drop),
        };
        // Nobody is there to be told any more.
        if told.is_err() && events.is_closed() {
            return;
        }
    }
}

impl Supervisor {
    /// Counts, records, tells and weighs what passed the gateway.
    pub(in crate::driver) async fn passed(&mut self, gathered: Gathered) {
        for ((agent, kind, outcome), sum) in gathered.carried {
            self.telemetry.carried(&agent, kind, outcome, sum);
        }
        for ((agent, kind), took) in &gathered.took {
            self.telemetry.timed(agent, kind, took);
        }
        if !gathered.took.is_empty() {
            self.telemetry.settle();
        }
        for (agent, times) in gathered.limited {
            self.telemetry.connections_waited(&agent, times);
        }
        for ((agent, port), times) in gathered.untaken {
            self.nobody_listens(&agent, port, times);
        }
        self.telemetry.uncounted(gathered.uncounted);
        for agent in gathered.throttled {
            self.throttled(&agent);
        }
        for agent in gathered.lost {
            let text = format!("error: {agent}: a fault of the gateway took its network: a restart gives it back");
            self.say(&agent, Line::Matter, text);
        }
        let mut heavy = Vec::new();
        for ((name, refused), count) in gathered.denials {
            let reason = refused.reason.word();
            self.telemetry.kept_in(&name, reason, count);
            let Refused { asked, rule, why, help, .. } = refused;
            let Some(agent) = self.agents.get_mut(&name) else { continue };
            // No entry of `network` helps there.
            let help = if agent.ring == Ring::R3 { Some(HELP_IN_R3.to_owned()) } else { help };
            let tried = Tried::Network { asked, rule, reason: reason.to_owned(), why, help };
            let heard = agent.denied.refused(tried, agent.ring, count, &self.store);
            self.telemetry.denied(&name, heard.class, count);
            if let Some(line) = heard.line {
                self.say(&name, Line::Course, line);
            }
            if self.weigh_denial(&name, heard.class, heard.severity, heard.weighs) == Weight::Heavy {
                heavy.push(name);
            }
        }
        for name in heavy {
            self.evaluate(&name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use agt_gateway::host::{Authority, Host};
    use agt_gateway::policy::{Reason, RuleId, Via};

    use super::*;

    fn denied(gathered: &mut Gathered, agent: &str, address: [u8; 4], reason: Reason) {
        let to = Authority { host: Host::from(std::net::IpAddr::from(address)), port: 80 };
        let denial = Denial::new(RuleId::Default, reason);
        gathered.denied(&Label::from(agent), Some(&Ask::new(to, Via::Connect)), &denial);
    }

    #[test]
    fn a_flood_of_denials_hides_none_of_another_reason_and_none_of_a_neighbour() {
        let mut gathered = Gathered::default();
        for number in 0..2_000_u16 {
            let [high, low] = number.to_be_bytes();
            denied(&mut gathered, "a", [10, 0, high, low], Reason::NotListed);
        }
        assert_eq!((gathered.denials.len(), gathered.uncounted), (KINDS_MAX, 2_000 - KINDS_MAX as u64));
        denied(&mut gathered, "a", [127, 0, 0, 1], Reason::SupervisorPort);
        denied(&mut gathered, "b", [10, 0, 0, 1], Reason::NotListed);
        for _ in 0..2 {
            denied(&mut gathered, "a", [127, 0, 0, 2], Reason::SupervisorPort);
        }
        let kept: Vec<_> = gathered.denials.keys().map(|(agent, refused)| (agent.as_str(), refused.reason)).collect();
        assert!(kept.contains(&("a", Reason::SupervisorPort)) && kept.contains(&("b", Reason::NotListed)), "{kept:?}");
        assert_eq!(gathered.denials.len(), KINDS_MAX + 2);
    }
}
