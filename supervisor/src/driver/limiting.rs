//! Limits that an operator changes while the agent runs.
//!
//! They stand in place of the plan's until its plan is replaced (a `reload` that restarts it, another `run`), somebody resets them,
//! or the supervisor ends; restarts keep them. In a ring below the one in which they were set they can only narrow: a demotion takes
//! what it says it takes. What gives power (any limit raised) is durable in the audit log before the kernel hears of it; what only
//! takes is noted after. The kernel's own files are asked what holds then: a limit that it refuses is refused to the operator too,
//! and the old ones are set again. Writing a limit may make the kernel reclaim memory for seconds, so it is done beside the loop.

use std::sync::Arc;

use agt_rings::Ring;
use agt_rings::cgroup::{self, Group};
use agt_rings::spec::Limits;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Supervisor;
use super::agent::Agent;
use super::audience::Line;
use super::event::{Event, Refusal};
use super::launching::in_full;
use super::records::wall_ms;
use super::reload::Process;
use super::status::AgentStatus;
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::AgentPlan;
use crate::config::units::{ByteSize, Cpu};

/// Change an agent's limits: POST.
pub const LIMITS: &str = "/v1/limits";

const SET: Action = Action::new("limits.set");
const RESET: Action = Action::new("limits.reset");

/// The body of [`LIMITS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitBody {
    /// The agent.
    pub agent: String,
    /// What.
    pub change: LimitChange,
    /// Why; kept in the audit log.
    #[serde(default)]
    pub reason: String,
}

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitChange {
    /// These are set, the others stay.
    Set {
        /// `None`: stays.
        limits: Limits,
        /// Above what ring and operator's file give.
        above: Above,
    },
    /// Those of its plan hold again.
    Reset,
}

/// What is done with a limit above what the ring and the operator's file give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Above {
    /// It is refused.
    Refused,
    /// It is set: the operator has said that it is meant, and the record says so too.
    Meant,
}

/// One limit, and the ring in which it was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<T> {
    /// The limit.
    pub value: T,
    /// The ring.
    pub ring: Ring,
}

/// Limits set by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// Bytes.
    pub memory_bytes: Option<Held<u64>>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<Held<u32>>,
    /// Processes and threads.
    pub tasks: Option<Held<u32>>,
    /// Who set the last one.
    pub by: u32,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Why.
    pub reason: String,
}

impl ByHand {
    /// The limits in `ring`, over those of the plan.
    fn over(&self, plan: &Limits, ring: Ring) -> Limits {
        Limits {
            memory_bytes: pick(self.memory_bytes, plan.memory_bytes, ring),
            cpu_millis: pick(self.cpu_millis, plan.cpu_millis, ring),
            tasks: pick(self.tasks, plan.tasks, ring),
        }
    }

    fn with(mut self, limits: &Limits, ring: Ring) -> ByHand {
        fn hold<T>(value: Option<T>, ring: Ring, old: Option<Held<T>>) -> Option<Held<T>> {
            value.map(|value| Held { value, ring }).or(old)
        }
        self.memory_bytes = hold(limits.memory_bytes, ring, self.memory_bytes);
        self.cpu_millis = hold(limits.cpu_millis, ring, self.cpu_millis);
        self.tasks = hold(limits.tasks, ring, self.tasks);
        self
    }
}

fn pick<T: Ord + Copy>(held: Option<Held<T>>, plan: Option<T>, ring: Ring) -> Option<T> {
    match held {
        None => plan,
        Some(held) if held.ring.is_more_privileged_than(ring) => {
            Some(plan.map_or(held.value, |plan| plan.min(held.value)))
        }
        Some(held) => Some(held.value),
    }
}

/// An agent's limits: which hold, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitsStatus {
    /// What the kernel shows; `null` while it runs in no cgroup.
    pub in_force: Option<Limits>,
    /// What is meant to hold in its present ring.
    pub wanted: Limits,
    /// What its plan says for that ring.
    pub plan: Limits,
    /// The most that can be set without saying that it is more than the ring and the operator's file give.
    pub most: Limits,
    /// What an operator set.
    pub by_hand: Option<ByHand>,
}

/// Limits on their way to the kernel have arrived, or not.
#[derive(Debug)]
pub struct Limited {
    change: Pending,
    result: Result<(), cgroup::Error>,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Vec<AgentStatus>, Refusal>>;

/// A change that was allowed.
#[derive(Debug)]
struct Pending {
    agent: String,
    by_hand: Option<ByHand>,
    /// Noted once it is done; the same record was made durable before, if it gives power.
    record: Record,
    gives: Gives,
    remark: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    No,
    Yes,
}

impl Agent {
    /// Its limits in `ring`.
    pub(super) fn limits_at(&self, ring: Ring) -> Limits {
        let plan = self.definition.plan.limits_at(ring);
        self.by_hand.as_ref().map_or(plan, |by_hand| by_hand.over(&plan, ring))
    }

    pub(super) fn limits_status(&self) -> LimitsStatus {
        LimitsStatus {
            in_force: None,
            wanted: self.limits_at(self.ring),
            plan: self.definition.plan.limits_at(self.ring),
            most: self.definition.plan.limits_most_at(self.ring),
            by_hand: self.by_hand.clone(),
        }
    }
}

impl Supervisor {
    pub(super) async fn limit(&mut self, body: LimitBody, by: u32, answer: Answer) {
        let (name, action) = (body.agent.clone(), action(&body.change));
        let refuse = |supervisor: &Supervisor, refusal: Refusal, answer: Answer| {
            let why = refusal.to_string();
            let outcome = if matches!(refusal, Refusal::Policy(_)) { Outcome::Denied } else { Outcome::Failed };
            let record = Record::new(wall_ms(), Actor::Operator(by), action, outcome).agent(name.as_str());
            supervisor.note(record.reason(body.reason.as_str()).detail("why", why.lines().next().unwrap_or_default()));
            let _ = answer.send(Err(refusal));
        };
        let change = match self.allow(&body, by) {
            Ok(change) => change,
            Err(refusal) => return refuse(self, refusal, answer),
        };
        if change.gives == Gives::Yes
            && let Err(refusal) = self.durable(change.record.clone()).await
        {
            let _ = answer.send(Err(refusal));
            return;
        }
        let events = self.events.clone();
        let Some(agent) = self.agents.get_mut(&name) else {
            let _ = answer.send(Err(Refusal::Unknown(name)));
            return;
        };
        let Some(group) = agent.group.clone() else {
            self.limited(Limited { change, result: Ok(()), answer });
            return;
        };
        agent.limiting = true;
        let plan = agent.definition.plan.limits_at(agent.ring);
        let wanted = change.by_hand.as_ref().map_or(plan, |by_hand| by_hand.over(&plan, agent.ring));
        let wanted = self.ground.fitting(&wanted);
        tokio::task::spawn_blocking(move || {
            let result = set(&group, &wanted);
            // The loop has ended: so has the agent.
            let _ = events.send(Event::Limited(Box::new(Limited { change, result, answer })));
        });
    }

    /// Whether a change may be, and what it comes to.
    fn allow(&self, body: &LimitBody, by: u32) -> Result<Pending, Refusal> {
        let name = body.agent.as_str();
        if self.is_ending() {
            return Err(Refusal::Ending);
        }
        let agent = self.agents.get(name).ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        if agent.limiting {
            return Err(Refusal::NotNow(format!("other limits of {name} are just being set: try again")));
        }
        let (plan, ring) = (&agent.definition.plan, agent.ring);
        let mut record = Record::new(wall_ms(), Actor::Operator(by), action(&body.change), Outcome::Done);
        let by_hand = match &body.change {
            LimitChange::Reset => None,
            LimitChange::Set { limits, above } => {
                if let Some((what, most)) = excess(limits, &plan.limits_most_at(ring)) {
                    if *above == Above::Refused {
                        return Err(Refusal::Policy(too_much(name, ring, &what, &most)));
                    }
                    record = record
                        .detail("above_ceiling", format!("{what}, where {ring} and the operator's file give {most}"));
                }
                if let Some(why) = self.ground.lacks(limits) {
                    return Err(Refusal::HostCant(format!("{name}: {why}")));
                }
                let old = agent.by_hand.clone().unwrap_or_default();
                let set = ByHand { by, at_ms: wall_ms(), reason: body.reason.clone(), ..old };
                Some(set.with(limits, ring))
            }
        };
        let (old, own) = (agent.limits_at(ring), plan.limits_at(ring));
        let new = by_hand.as_ref().map_or(own, |by_hand| by_hand.over(&own, ring));
        let gives = if is_raised(&old, &new) { Gives::Yes } else { Gives::No };
        record.outcome = if gives == Gives::Yes { Outcome::Allowed } else { Outcome::Done };
        record = record.agent(name).reason(body.reason.as_str()).detail("ring", ring.to_string());
        for (what, old, new) in differences(&old, &new) {
            record = record.detail(what, format!("{old} -> {new}"));
        }
        let named = match &body.change {
            LimitChange::Set { limits, .. } => *limits,
            LimitChange::Reset => Limits::default(),
        };
        let remark = self.remark(agent, &named);
        Ok(Pending { agent: name.to_owned(), by_hand, record, gives, remark })
    }

    /// What whoever named these limits should know beside "done".
    fn remark(&self, agent: &Agent, named: &Limits) -> Option<String> {
        if agent.running.is_none() {
            return Some("does not run: its next start has them".to_owned());
        }
        let total = self.ground.total()?.limits();
        let (what, most) = excess(named, &total)?;
        Some(format!("has more for itself ({what}) than all agents have together ({most}), and can't get it"))
    }

    pub(super) fn limited(&mut self, limited: Limited) {
        let Limited { change, result, answer } = limited;
        let Pending { agent: name, by_hand, record, gives, remark } = change;
        let Some(agent) = self.agents.get_mut(&name) else {
            let _ = answer.send(Err(Refusal::Unknown(name)));
            return;
        };
        agent.limiting = false;
        agent.by_hand = if result.is_ok() { by_hand } else { agent.by_hand.take() };
        self.limits_once_more(&name);
        if let Err(e) = result {
            let text = in_full(&e);
            self.note(Record { outcome: Outcome::Failed, ..record }.detail("why", text.as_str()));
            let _ = answer.send(Err(Refusal::HostCant(format!("{name}: {text}{}", advice(&e)))));
            return;
        }
        if gives == Gives::No {
            self.note(record);
        }
        let mut statuses = self.statuses(std::slice::from_ref(&name));
        statuses.iter_mut().for_each(|status| status.remark.clone_from(&remark));
        let _ = answer.send(Ok(statuses));
    }

    /// Another plan takes the place of limits set by hand, if it starts anew or has other limits.
    pub(super) fn drop_limits_by_hand(&mut self, name: &str, new: &AgentPlan, process: Process) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let replaced = process == Process::Restarted || agent.definition.plan.ring_limits != new.ring_limits;
        if replaced && agent.by_hand.take().is_some() {
            let text = format!("note: {name}: the limits that were set by hand are gone: its file was loaded anew");
            self.say(name, Line::Course, text);
        }
    }
}

/// Sets limits and lets the kernel say that they hold; the old ones else.
pub(super) fn set(group: &Arc<Group>, wanted: &Limits) -> Result<(), cgroup::Error> {
    let old = group.limits();
    let result = group.set_limits(wanted);
    if result.is_err() && group.set_limits(&old).is_err() {
        eprintln!(
            "warning: limits that could not be set may be set in part: `agt-supervise limits show` shows what holds"
        );
    }
    result
}

fn action(change: &LimitChange) -> Action {
    match change {
        LimitChange::Set { .. } => SET,
        LimitChange::Reset => RESET,
    }
}

/// Less than no limit is a limit; more than one is none.
fn is_raised(old: &Limits, new: &Limits) -> bool {
    fn above<T: Ord>(old: Option<T>, new: Option<T>) -> bool {
        old.is_some_and(|old| new.is_none_or(|new| new > old))
    }
    above(old.memory_bytes, new.memory_bytes) || above(old.cpu_millis, new.cpu_millis) || above(old.tasks, new.tasks)
}

/// The three limits in words, with their numbers.
fn words(limits: &Limits) -> [(&'static str, Option<u64>, String); 3] {
    let none = || "none".to_owned();
    [
        ("memory", limits.memory_bytes, limits.memory_bytes.map_or_else(none, |bytes| ByteSize(bytes).to_string())),
        (
            "cpu",
            limits.cpu_millis.map(u64::from),
            limits.cpu_millis.map_or_else(none, |millis| Cpu(millis).to_string()),
        ),
        ("tasks", limits.tasks.map(u64::from), limits.tasks.map_or_else(none, |tasks| tasks.to_string())),
    ]
}

/// The first limit that is above its bound, with that bound.
fn excess(limits: &Limits, most: &Limits) -> Option<(String, String)> {
    words(limits).into_iter().zip(words(most)).find_map(|((what, asked, shown), (_, most, bound))| {
        (asked? > most?).then(|| (format!("{what}={shown}"), bound))
    })
}

fn differences(old: &Limits, new: &Limits) -> Vec<(&'static str, String, String)> {
    let pairs = words(old).into_iter().zip(words(new));
    pairs
        .filter(|((_, old, _), (_, new, _))| old != new)
        .map(|((what, _, old), (_, _, new))| (what, old, new))
        .collect()
}

fn too_much(name: &str, ring: Ring, what: &str, most: &str) -> String {
    let (key, value) = what.split_once('=').unwrap_or((what, ""));
    format!(
        "{what} is more than {ring} and the operator's file give {name} ({most})\nhelp: for good, a line of the operator's file: \
         `limits: {{{key}: {value}}}` under `agents.{name}`; for now, the same command with --above-ceiling, which the audit log says"
    )
}

/// What helps against the kernel's no.
pub(super) fn advice(error: &cgroup::Error) -> &'static str {
    use nix::errno::Errno;
    let errno = match error {
        cgroup::Error::Write { source, .. } => source.raw_os_error().map(Errno::from_raw),
        _ => None,
    };
    match errno {
        Some(Errno::EBUSY) => {
            "\nhelp: it uses more than that, and the kernel could not take it back; its limits are as they were"
        }
        _ => "\nhelp: its limits are as they were; `agt-supervise limits show` shows them",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const PLAN: Limits = Limits { memory_bytes: Some(1 << 30), cpu_millis: Some(1000), tasks: Some(256) };

    #[test]
    fn a_demotion_keeps_no_limit_above_its_ring() {
        let more = Limits { memory_bytes: Some(4 << 30), cpu_millis: None, tasks: Some(10) };
        let by_hand = ByHand::default().with(&more, Ring::R2);
        let r3 = Limits { memory_bytes: Some(512 << 20), cpu_millis: Some(500), tasks: Some(64) };
        assert_eq!(by_hand.over(&PLAN, Ring::R2), Limits { cpu_millis: Some(1000), ..more });
        assert_eq!(
            by_hand.over(&r3, Ring::R3),
            Limits { memory_bytes: Some(512 << 20), cpu_millis: Some(500), tasks: Some(10) }
        );
    }

    #[test]
    fn what_was_set_in_another_ring_keeps_that_ring() {
        let by_hand = ByHand::default().with(&Limits { memory_bytes: Some(4 << 30), ..Limits::default() }, Ring::R2);
        let by_hand = by_hand.with(&Limits { tasks: Some(9), ..Limits::default() }, Ring::R3);
        assert_eq!(by_hand.over(&PLAN, Ring::R3).memory_bytes, Some(1 << 30));
        assert_eq!(by_hand.over(&PLAN, Ring::R2).memory_bytes, Some(4 << 30));
    }

    #[test]
    fn taking_a_limit_away_gives_power_and_setting_one_where_none_was_takes_it() {
        assert!(is_raised(&PLAN, &Limits { tasks: None, ..PLAN }));
        assert!(!is_raised(&Limits { tasks: None, ..PLAN }, &PLAN));
        assert!(is_raised(&PLAN, &Limits { tasks: Some(257), memory_bytes: Some(1), ..PLAN }));
        assert!(!is_raised(&PLAN, &PLAN));
    }

    #[test]
    fn a_bound_that_is_not_there_is_never_exceeded() {
        assert_eq!(excess(&PLAN, &Limits::default()), None);
        let most = Limits { memory_bytes: Some(1 << 20), ..Limits::default() };
        assert_eq!(excess(&PLAN, &most), Some(("memory=1GiB".to_owned(), "1MiB".to_owned())));
    }

    proptest! {
        /// In a less privileged ring a limit set by hand never gives more than that ring's plan.
        #[test]
        fn by_hand_never_widens_a_lower_ring(value in 1_u32..10_000, plan in proptest::option::of(1_u32..10_000), set in 0_u8..4, now in 0_u8..4) {
            let (set, now) = (Ring::from_number(set).unwrap(), Ring::from_number(now).unwrap());
            let picked = pick(Some(Held { value, ring: set }), plan, now);
            if set.is_more_privileged_than(now) {
                prop_assert!(plan.is_none_or(|plan| picked.unwrap() <= plan));
                prop_assert!(picked.unwrap() <= value);
            } else {
                prop_assert_eq!(picked, Some(value));
            }
        }
    }
}
