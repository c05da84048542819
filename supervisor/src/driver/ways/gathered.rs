//! What happened on the ways, gathered for a moment before the loop is told: an agent that asks a thousand times a second costs it a
//! handful of sums. The gatherer waits for the first and only then for the moment, so nothing wakes up while nothing passes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agt_gateway::flow::{Ended, Flow, Kind, Label, Outcome, To};
use agt_gateway::live::{Happening, Happenings, Settings};
use agt_gateway::policy::{self, Ask, Denial};
use tokio::sync::{mpsc, oneshot};

use crate::driver::event::Event;

/// How long happenings are gathered before the loop is told.
const GATHER: Duration = Duration::from_millis(200);
/// Kinds that one gathering keeps apart; of others only the number is told.
const KINDS_MAX: usize = 256;

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    pub(super) denials: BTreeMap<(String, Refused), u64>,
    pub(super) carried: BTreeMap<(String, &'static str, &'static str), Carried>,
    /// How long each of them took. No more than happenings fit into one gathering.
    pub(super) took: BTreeMap<(String, &'static str), Vec<Took>>,
    /// Bounds on connections that were met.
    pub(super) limited: BTreeMap<String, u64>,
    /// Agents that made more requests than they may.
    pub(super) throttled: BTreeSet<String>,
    /// Agents whose network a fault of ours has taken.
    pub(super) lost: Vec<String>,
    /// Connections to ports at which nobody listens inside.
    pub(super) untaken: BTreeMap<(String, u16), u64>,
    /// What did not fit.
    pub(super) uncounted: u64,
}

/// A denial, as far as it is told apart from others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refused {
    pub(super) asked: String,
    pub(super) rule: String,
    pub(super) reason: policy::Reason,
    pub(super) why: String,
    pub(super) help: Option<String>,
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
        if self.denials.len() >= KINDS_MAX && !self.denials.contains_key(&key) {
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

/// Gathers until nothing more can happen, or nobody is there to be told.
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
