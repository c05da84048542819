//! Floods of denials, made small: the first whole, then counts per agent, rule and second, under a byte budget per agent.
//!
//! An agent that is refused loops on it, thousands of times a second. Writing each would let the agent fill the disk, writing none
//! would hide it. Pure: time comes in as milliseconds, records come out; the caller appends them without waiting. Going over the
//! budget is itself a record, and so is how much was left out when the budget comes back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::record::{Action, Actor, Outcome, Record};

/// Counts of a second: `details.count` denials of one rule.
pub const COUNTED: Action = Action::new("denials.counted");
/// An agent's byte budget is spent; its denials are only counted until `details.until_ms`.
pub const BUDGET_SPENT: Action = Action::new("denials.budget_spent");
/// What was left out while the budget was spent.
pub const LEFT_OUT: Action = Action::new("denials.left_out");

/// Name of the rule, or agent, that stands for all those beyond the limits.
const OTHERS: &str = "(others)";

/// The bounds of a [`Coalescer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of records per agent and window.
    pub agent_bytes: usize,
    /// Length of the budget's window, in milliseconds.
    pub window_ms: i64,
    /// A rule that was quiet this long has its next denial recorded whole again, in milliseconds.
    pub quiet_ms: i64,
    /// Most rules that are kept apart per agent; the rest share one count.
    pub rules: usize,
    /// Most agents that are kept apart; the rest share one budget.
    pub agents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { agent_bytes: 64 * 1024, window_ms: 3_600_000, quiet_ms: 60_000, rules: 64, agents: 1024 }
    }
}

/// One second in which counts are gathered, in milliseconds.
const COUNT_MS: i64 = 1000;

#[derive(Debug)]
struct Rule {
    last_ms: i64,
    /// Start of the second being counted, and the count; none between seconds with denials.
    counting: Option<(i64, u64)>,
}

#[derive(Debug)]
struct Agent {
    window_start: i64,
    spent: usize,
    /// Denials since the budget was spent; none while there is budget.
    left_out: Option<u64>,
    rules: BTreeMap<String, Rule>,
}

/// Turns denials into records.
#[derive(Debug, Default)]
pub struct Coalescer {
    limits: Limits,
    agents: BTreeMap<String, Agent>,
    now: i64,
}

impl Coalescer {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, agents: BTreeMap::new(), now: 0 }
    }

    /// Takes one denial of `rule` to `agent`; `denial` is the whole record of it. Returns what is to be appended now.
    #[must_use]
    pub fn deny(&mut self, agent: &str, rule: &str, denial: Record, now_ms: i64) -> Vec<Record> {
        self.deny_times(agent, rule, denial, 1, now_ms)
    }

    /// The same for several at once, at least one: equal ones that somebody has taken together already.
    #[must_use]
    pub fn deny_times(&mut self, agent: &str, rule: &str, denial: Record, times: u64, now_ms: i64) -> Vec<Record> {
        let times = times.max(1);
        let mut out = self.advance(now_ms);
        let limits = self.limits;
        let name = match self.agents.len() < limits.agents || self.agents.contains_key(agent) {
            true => agent,
            false => OTHERS,
        };
        let state = self.agents.entry(name.to_owned()).or_insert_with(|| Agent {
            window_start: self.now,
            spent: 0,
            left_out: None,
            rules: BTreeMap::new(),
        });
        if let Some(left_out) = &mut state.left_out {
            *left_out = left_out.saturating_add(times);
            return out;
        }
        let rule = match state.rules.len() < limits.rules || state.rules.contains_key(rule) {
            true => rule,
            false => OTHERS,
        };
        match state.rules.entry(rule.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(Rule { last_ms: self.now, counting: None });
                let denial = if times > 1 { denial.detail("count", times) } else { denial };
                state.spend(name, denial, &limits, self.now, times, &mut out);
            }
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                known.last_ms = self.now;
                let (_, count) = known.counting.get_or_insert((self.now, 0));
                *count = count.saturating_add(times);
            }
        }
        out
    }

    /// Time passed: counts of full seconds, and what was left out of windows that ended.
    #[must_use]
    pub fn advance(&mut self, now_ms: i64) -> Vec<Record> {
        // A clock that goes back stands still here.
        self.now = self.now.max(now_ms);
        self.collect(|since, now| now - since >= COUNT_MS)
    }

    /// The end is near: everything that was counted and not yet told.
    #[must_use]
    pub fn finish(&mut self, now_ms: i64) -> Vec<Record> {
        self.now = self.now.max(now_ms);
        let mut out = self.collect(|_, _| true);
        for (name, state) in &mut self.agents {
            out.extend(state.left_out.take().map(|count| left_out(name, count, self.now)));
        }
        self.agents.clear();
        out
    }

    /// When [`Self::advance`] has something to say at the earliest, in milliseconds since the epoch.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        let windows = self.agents.values().filter(|agent| agent.left_out.is_some());
        let windows = windows.map(|agent| agent.window_start.saturating_add(self.limits.window_ms));
        let rules = self.agents.values().flat_map(|agent| agent.rules.values());
        let counts = rules.filter_map(|rule| rule.counting.map(|(since, _)| since.saturating_add(COUNT_MS)));
        windows.chain(counts).min()
    }

    fn collect(&mut self, is_due: impl Fn(i64, i64) -> bool) -> Vec<Record> {
        let (now, limits) = (self.now, self.limits);
        let mut out = Vec::new();
        for (name, state) in &mut self.agents {
            if now - state.window_start >= limits.window_ms {
                out.extend(state.left_out.take().map(|count| left_out(name, count, now)));
                state.window_start = now;
                state.spent = 0;
            }
            let mut rules = std::mem::take(&mut state.rules);
            for (rule, known) in &mut rules {
                if let Some((since, count)) = known.counting.take_if(|(since, _)| is_due(*since, now)) {
                    let record = Record::new(now, Actor::Supervisor, COUNTED, Outcome::Denied).agent(name.clone());
                    let record = record.detail("rule", rule.as_str()).detail("since_ms", since).detail("count", count);
                    state.spend(name, record, &limits, now, count, &mut out);
                }
            }
            rules.retain(|_, known| known.counting.is_some() || now - known.last_ms < limits.quiet_ms);
            state.rules = rules;
        }
        self.agents.retain(|_, agent| {
            agent.left_out.is_some()
                || !agent.rules.is_empty()
                || now - agent.window_start < limits.window_ms && agent.spent > 0
        });
        out
    }
}

impl Agent {
    /// Emits `record`, which stands for `count` denials, or the one that says the budget is spent.
    fn spend(&mut self, name: &str, record: Record, limits: &Limits, now: i64, count: u64, out: &mut Vec<Record>) {
        if let Some(left_out) = &mut self.left_out {
            *left_out += count;
            return;
        }
        // The number is not known yet; its digits hardly matter to a budget.
        let bytes = record.encode(0).len();
        if self.spent + bytes <= limits.agent_bytes {
            self.spent += bytes;
            out.push(record);
            return;
        }
        self.left_out = Some(count);
        out.push(
            Record::new(now, Actor::Supervisor, BUDGET_SPENT, Outcome::Noted)
                .agent(name)
                .reason("this agent's denials filled its share of the log; from here on they are only counted")
                .detail("bytes", limits.agent_bytes)
                .detail("until_ms", self.window_start.saturating_add(limits.window_ms)),
        );
    }
}

fn left_out(name: &str, count: u64, now: i64) -> Record {
    Record::new(now, Actor::Supervisor, LEFT_OUT, Outcome::Denied).agent(name).detail("count", count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::super::canonical::Value;
    use super::*;

    const DENIED: Action = Action::new("file.open");

    fn denial(now: i64) -> Record {
        Record::new(now, Actor::Agent("a".into()), DENIED, Outcome::Denied).agent("a").detail("path", "/etc/shadow")
    }

    fn count(record: &Record) -> u64 {
        match record.details.get("count") {
            Some(Value::Int(count)) => *count as u64,
            _ => u64::from(record.action == DENIED),
        }
    }

    #[test]
    fn the_first_is_whole_and_the_rest_of_the_second_is_one_count() {
        let mut coalescer = Coalescer::new(Limits::default());
        assert_eq!(coalescer.deny("a", "files", denial(0), 0), [denial(0)]);
        for now in 1..=500 {
            assert_eq!(coalescer.deny("a", "files", denial(now), now), []);
        }
        assert_eq!(coalescer.next_deadline(), Some(1001));
        let told = coalescer.advance(1001);
        assert_eq!((told.len(), count(&told[0]), told[0].action.clone()), (1, 500, COUNTED));
        assert_eq!(coalescer.next_deadline(), None);
    }

    #[test]
    fn another_rule_another_agent_and_a_quiet_minute_are_whole_again() {
        let mut coalescer = Coalescer::new(Limits::default());
        for (agent, rule, now) in [("a", "files", 0), ("a", "net", 1), ("b", "files", 2), ("a", "files", 60_003)] {
            assert_eq!(coalescer.deny(agent, rule, denial(now), now), [denial(now)], "{agent} {rule} {now}");
        }
    }

    #[test]
    fn a_spent_budget_is_itself_a_record_and_ends_with_its_window() {
        let limits = Limits { agent_bytes: 500, window_ms: 10_000, ..Limits::default() };
        let mut coalescer = Coalescer::new(limits);
        let mut told = Vec::new();
        for now in 0..9_000 {
            told.extend(coalescer.deny("a", &format!("rule {}", now % 10), denial(now), now));
        }
        assert_eq!(told.iter().filter(|record| record.action == BUDGET_SPENT).count(), 1);
        assert!(told.iter().map(|record| record.encode(0).len()).sum::<usize>() < 1000);
        assert_eq!(coalescer.next_deadline(), Some(10_000));
        let back = coalescer.advance(10_000);
        assert_eq!(back[0].action, LEFT_OUT);
        told.extend(back);
        told.extend(coalescer.finish(10_000));
        assert_eq!(told.iter().map(count).sum::<u64>(), 9_000);
    }

    #[test]
    fn several_at_once_count_as_several() {
        let mut coalescer = Coalescer::new(Limits::default());
        let first = coalescer.deny_times("a", "files", denial(0), 40, 0);
        assert_eq!(first.iter().map(count).sum::<u64>(), 40);
        assert_eq!(coalescer.deny_times("a", "files", denial(1), 2, 1), []);
        assert_eq!(coalescer.advance(1001).iter().map(count).sum::<u64>(), 2);
    }

    proptest! {
        #[test]
        fn no_denial_is_ever_uncounted_and_no_agent_exceeds_its_bytes(
            events in prop::collection::vec((0_u8..6, 0_u8..8, 0_i64..3_000), 1..400),
        ) {
            let limits = Limits { agent_bytes: 2_000, window_ms: 30_000, quiet_ms: 5_000, rules: 3, agents: 3 };
            let mut coalescer = Coalescer::new(limits);
            let (mut now, mut told) = (0, Vec::new());
            for (agent, rule, gap) in &events {
                now += gap;
                told.extend(coalescer.deny(&agent.to_string(), &rule.to_string(), denial(now), now));
                prop_assert!(coalescer.agents.len() <= limits.agents + 1);
                prop_assert!(coalescer.agents.values().all(|agent| agent.rules.len() <= limits.rules + 1));
                prop_assert!(coalescer.agents.values().all(|agent| agent.spent <= limits.agent_bytes));
            }
            told.extend(coalescer.finish(now));
            prop_assert_eq!(told.iter().map(count).sum::<u64>(), events.len() as u64);
        }
    }

    #[test]
    fn a_clock_that_goes_back_breaks_nothing() {
        let mut coalescer = Coalescer::new(Limits::default());
        let _ = coalescer.deny("a", "files", denial(10_000), 10_000);
        assert_eq!(coalescer.deny("a", "files", denial(0), 0), []);
        assert_eq!(count(&coalescer.advance(11_000)[0]), 1);
    }
}
