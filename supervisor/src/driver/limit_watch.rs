//! Sees that limits were met, and tells it: a line, a record, a count.
//!
//! The kernel wakes us where it can ([`agt_rings::cgroup::Alarm`]); what it raises no alarm for (the CPU's quota everywhere, more
//! on v1) is looked at every few seconds. Which of all that is worth a line is decided in [`crate::machine::limit_events`].

use agt_rings::cgroup::Hits;
use agt_rings::spec::Limits;

use super::Supervisor;
use super::audience::Line;
use super::event::Whose;
use super::launching::in_full;
use super::records::wall_ms;
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::units::{ByteSize, Cpu};
use crate::machine::limit_events::{Limit, Met};

const MET: Action = Action::new("limit.met");
/// Ticks (seconds) between two looks at counters that raise no alarm. Agents take turns, so that no tick has them all.
const LOOK_EVERY: u64 = 5;

/// Where a limit stands: for the words.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    own: Limits,
    total: Limits,
}

impl Supervisor {
    /// Listens for the alarms of a life that has begun.
    pub(super) fn listen_for_limits(&mut self, whose: &Whose) {
        let Some(agent) = self.agents.get_mut(&whose.agent) else { return };
        agent.meter.begin();
        let (Some(group), Some(alarms)) = (&agent.group, &mut self.alarms) else { return };
        let listening = group.tree().alarms().map_err(|e| in_full(&e));
        let listening = listening.and_then(|found| alarms.add(whose, found).map_err(|e| e.to_string()));
        // They are counted all the same, and seen at the next look.
        if let Err(e) = listening {
            eprintln!("warning: {}: limits that it meets are told late: {e}", whose.agent);
        }
    }

    /// The life is over.
    pub(super) fn listen_no_more(&mut self, name: &str) {
        if let Some(alarms) = &mut self.alarms {
            alarms.remove(name);
        }
    }

    pub(super) fn limit_met(&mut self, whose: &Whose) {
        if self.agents.get(&whose.agent).is_some_and(|agent| agent.launches == whose.life) {
            self.look_at(&whose.agent);
        }
    }

    /// Once a tick: those whose turn it is, and the limits over all.
    pub(super) fn look_at_limits(&mut self) {
        let turn = |(index, name): (usize, &String)| {
            ((index as u64).wrapping_add(self.ticks).is_multiple_of(LOOK_EVERY)).then(|| name.clone())
        };
        for name in self.agents.keys().enumerate().filter_map(turn).collect::<Vec<_>>() {
            self.look_at(&name);
        }
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.look_at_total();
        }
    }

    fn look_at(&mut self, name: &str) {
        let group = self.agents.get(name).and_then(|agent| agent.group.clone());
        // A group that is just going away is read once more by whoever takes it away.
        if let Some(Ok(hits)) = group.map(|group| group.tree().hits()) {
            self.count_hits(name, &hits);
        }
    }

    /// Tells what is new in the counts of an agent's present life.
    pub(super) fn count_hits(&mut self, name: &str, hits: &Hits) {
        let now = self.now();
        let Some(agent) = self.agents.get_mut(name) else { return };
        let met = agent.meter.look(hits, now);
        if met.is_empty() {
            return;
        }
        let total = self.ground.total().map(|total| total.limits()).unwrap_or_default();
        let bounds = Bounds { own: agent.limits_at(agent.ring), total };
        let has_killed = met.iter().any(|met| met.limit == Limit::OomKill);
        for met in met {
            self.note(record(&met, &bounds.own).agent(name));
            // What the OOM killer did says that the limit was met.
            if met.limit != Limit::Memory || !has_killed {
                let (line, text) = told(name, &met, &bounds);
                self.say(name, line, text);
            }
        }
    }

    fn look_at_total(&mut self) {
        let Some(total) = self.ground.total() else { return };
        let limits = total.limits();
        if limits == Limits::default() {
            return;
        }
        for met in self.meter.look(&total.hits(), self.now()) {
            self.note(record(&met, &limits).detail("of", "all agents together"));
            let (_, text) = told("all agents together", &met, &Bounds { own: limits, total: Limits::default() });
            eprintln!("{text}");
        }
    }
}

fn record(met: &Met, limits: &Limits) -> Record {
    let record = Record::new(wall_ms(), Actor::Supervisor, MET, Outcome::Noted)
        .detail("limit", met.limit.word())
        .detail("times", i64::try_from(met.times).unwrap_or(i64::MAX));
    match bound(met.limit, limits) {
        Some(bound) => record.detail("at", bound),
        None => record,
    }
}

/// The limit in the units of a file.
fn bound(limit: Limit, limits: &Limits) -> Option<String> {
    match limit {
        Limit::OomKill | Limit::Memory => limits.memory_bytes.map(|bytes| ByteSize(bytes).to_string()),
        Limit::MemoryHigh => None,
        Limit::Tasks => limits.tasks.map(|tasks| tasks.to_string()),
        Limit::Cpu => limits.cpu_millis.map(|millis| Cpu(millis).to_string()),
    }
}

fn told(name: &str, met: &Met, bounds: &Bounds) -> (Line, String) {
    let own = bound(met.limit, &bounds.own);
    // Which of the two was met can't always be told: v1 and kernels before 6.11 count where it was felt.
    let at = match (own, bound(met.limit, &bounds.total)) {
        (Some(own), Some(total)) => format!(" ({own}; all agents together {total})"),
        (Some(own), None) => format!(" ({own})"),
        (None, Some(total)) => format!(" ({total} for all agents together)"),
        (None, None) => String::new(),
    };
    let times = met.times;
    let count = |one: &str, many: &str| if times == 1 { format!("1 {one}") } else { format!("{times} {many}") };
    let since = match met.since {
        Some(since) => format!(" in the last {} s", since.as_secs()),
        None => String::new(),
    };
    match met.limit {
        Limit::OomKill => {
            let ended = count("process", "processes");
            (Line::Matter, format!("warning: {name} met its memory limit{at}: the kernel ended {ended} of it{since}"))
        }
        Limit::Memory => {
            let met = count("time", "times");
            (Line::Matter, format!("warning: {name} met its memory limit{at} {met}{since}; memory was reclaimed"))
        }
        Limit::MemoryHigh => {
            let met = count("time", "times");
            (Line::Course, format!("note: {name} was above memory.high {met}{since} and was slowed down"))
        }
        Limit::Tasks => {
            let refused = count("fork or clone was", "forks and clones were");
            (Line::Matter, format!("warning: {name} met its task limit{at}: {refused} refused{since}"))
        }
        Limit::Cpu => {
            let periods = count("period", "periods");
            (Line::Course, format!("note: {name} is held back by its CPU limit{at}: in {periods} of 100 ms{since}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const OWN: Limits = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), tasks: Some(40) };

    #[test]
    fn a_line_names_the_limit_its_size_and_what_it_did() {
        let bounds = Bounds { own: OWN, total: Limits::default() };
        let tell = |limit, times, since| told("hog", &Met { limit, times, since }, &bounds).1;
        assert_eq!(
            tell(Limit::OomKill, 1, None),
            "warning: hog met its memory limit (64MiB): the kernel ended 1 process of it"
        );
        assert_eq!(
            tell(Limit::Tasks, 960, Some(Duration::from_secs(60))),
            "warning: hog met its task limit (40): 960 forks and clones were refused in the last 60 s"
        );
        assert!(tell(Limit::Cpu, 9, None).contains("CPU limit (50%): in 9 periods"), "{}", tell(Limit::Cpu, 9, None));
    }

    #[test]
    fn where_all_together_are_limited_too_a_line_names_both() {
        let total = Limits { memory_bytes: Some(1 << 30), ..Limits::default() };
        let met = Met { limit: Limit::OomKill, times: 2, since: None };
        let text = told("hog", &met, &Bounds { own: OWN, total }).1;
        assert!(text.contains("(64MiB; all agents together 1GiB)"), "{text}");
        let text = told("hog", &met, &Bounds { own: Limits::default(), total }).1;
        assert!(text.contains("(1GiB for all agents together)"), "{text}");
    }
}
