//! What happened to an agent between two looks, in words for a report's timeline: who died of what, and what was decided.
//!
//! The kernel counts its OOM kills and doesn't say whom it chose, so the names are those of the processes that the group had
//! lost when the count had grown: the chosen one, and whoever went with it.

use std::collections::BTreeMap;

use agt_rings::Ring;

/// The most processes that are named.
const NAMED_MAX: usize = 8;
/// How many looks a victim may take to be gone; then nobody is named.
const WAITS_MAX: u32 = 5;

/// One look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Moment {
    /// Which of its lives this is.
    pub(super) life: u64,
    /// How the last one ended, once it did.
    pub(super) obituary: Option<String>,
    /// Whether it is dead, in words of its own death (`obituary`).
    pub(super) is_down: bool,
    /// The ring that it would be launched in now.
    pub(super) ring: Option<Ring>,
    /// OOM kills ever.
    pub(super) oom_kills: Option<u64>,
    /// Its processes by pid, without ours.
    pub(super) processes: BTreeMap<i32, String>,
}

/// The last look.
#[derive(Debug, Default)]
pub(super) struct Happenings {
    last: Option<Moment>,
    /// OOM kills whose victims were not gone at the last look, and for how many looks.
    unnamed: u64,
    waited: u32,
    /// Who was gone at the last look: a kill may be counted a look after its victim went.
    lately: BTreeMap<i32, String>,
}

impl Happenings {
    /// Takes a look; says what is new in it.
    pub(super) fn since_last(&mut self, now: Moment) -> Vec<String> {
        let mut news = Vec::new();
        if let Some(last) = &self.last {
            let kills = now.oom_kills.zip(last.oom_kills).map_or(0, |(now, last)| now.saturating_sub(last));
            let is_gone = |(pid, _): &(&i32, &String)| !now.processes.contains_key(*pid);
            let gone: BTreeMap<i32, String> =
                last.processes.iter().filter(is_gone).map(|(pid, name)| (*pid, name.clone())).collect();
            let both = self.lately.iter().chain(&gone).collect::<Vec<_>>();
            let due = kills + self.unnamed;
            if due > 0 && (!both.is_empty() || self.waited >= WAITS_MAX) {
                news.push(format!("the OOM killer acted in its cgroup ({due} killed); gone since: {}", named(&both)));
                (self.unnamed, self.waited) = (0, 0);
            } else {
                (self.unnamed, self.waited) = (due, if due > 0 { self.waited + 1 } else { 0 });
            }
            self.lately = gone;
            let died = (now.is_down && !last.is_down) || now.life > last.life;
            if let Some(obituary) = now.obituary.as_ref().filter(|_| died && !last.is_down) {
                news.push(obituary.clone());
            }
            if now.life > last.life {
                news.push(format!("it was started again, as its life {}", now.life));
            }
            if let (Some(before), Some(after)) = (last.ring, now.ring)
                && before != after
            {
                news.push(format!("the governor's verdict on its ring: {after}, not {before}"));
            }
        }
        self.last = Some(now);
        news
    }
}

fn named(gone: &[(&i32, &String)]) -> String {
    if gone.is_empty() {
        return "nobody that was seen before".to_owned();
    }
    let mut names: Vec<String> = gone.iter().take(NAMED_MAX).map(|(pid, name)| format!("{name} (pid {pid})")).collect();
    if gone.len() > NAMED_MAX {
        names.push(format!("{} more", gone.len() - NAMED_MAX));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(life: u64, oom_kills: u64, processes: &[(i32, &str)]) -> Moment {
        let processes = processes.iter().map(|(pid, name)| (*pid, (*name).to_owned())).collect();
        Moment { life, oom_kills: Some(oom_kills), processes, ring: Some(Ring::R2), ..Moment::default() }
    }

    #[test]
    fn a_quiet_agent_makes_no_news_and_neither_does_the_first_look() {
        let mut happenings = Happenings::default();
        assert!(happenings.since_last(moment(1, 5, &[(7, "sh")])).is_empty());
        assert!(happenings.since_last(moment(1, 5, &[(7, "sh"), (8, "sleep")])).is_empty());
        assert!(happenings.since_last(moment(1, 5, &[(7, "sh")])).is_empty(), "an ended child is no OOM kill");
    }

    #[test]
    fn an_oom_kill_names_whom_the_group_lost() {
        let mut happenings = Happenings::default();
        happenings.since_last(moment(1, 0, &[(7, "sh"), (8, "python3")]));
        let news = happenings.since_last(moment(1, 1, &[(7, "sh")]));
        assert_eq!(news, ["the OOM killer acted in its cgroup (1 killed); gone since: python3 (pid 8)"]);
    }

    #[test]
    fn a_victim_that_takes_its_time_is_named_at_the_next_look() {
        let mut happenings = Happenings::default();
        happenings.since_last(moment(1, 0, &[(7, "sh")]));
        assert!(happenings.since_last(moment(1, 1, &[(7, "sh")])).is_empty());
        let mut dead = moment(1, 1, &[]);
        (dead.is_down, dead.obituary) = (true, Some("a  met its memory limit".to_owned()));
        let news = happenings.since_last(dead.clone());
        assert_eq!(news[0], "the OOM killer acted in its cgroup (1 killed); gone since: sh (pid 7)");
        assert_eq!(news[1], "a  met its memory limit");
        assert!(happenings.since_last(dead).is_empty(), "a death is told once");
        let news = happenings.since_last(moment(2, 1, &[(9, "sh")]));
        assert_eq!(news, ["it was started again, as its life 2"]);
    }

    #[test]
    fn a_kill_that_is_counted_a_look_late_names_whom_it_took_and_not_the_next_life() {
        let mut happenings = Happenings::default();
        happenings.since_last(moment(1, 0, &[(7, "sh")]));
        assert!(happenings.since_last(moment(1, 0, &[])).is_empty());
        let news = happenings.since_last(moment(1, 2, &[]));
        assert_eq!(news, ["the OOM killer acted in its cgroup (2 killed); gone since: sh (pid 7)"]);
        happenings.since_last(moment(2, 2, &[(9, "sh")]));
        assert!(happenings.since_last(moment(2, 2, &[])).is_empty());
    }

    #[test]
    fn a_kill_of_nobody_that_was_seen_is_told_too() {
        let mut happenings = Happenings::default();
        happenings.since_last(moment(1, 0, &[(7, "sh")]));
        let told: Vec<String> = (0..10).flat_map(|_| happenings.since_last(moment(1, 1, &[(7, "sh")]))).collect();
        assert_eq!(told, ["the OOM killer acted in its cgroup (1 killed); gone since: nobody that was seen before"]);
    }

    #[test]
    fn a_restart_between_two_looks_tells_the_death_too() {
        let mut happenings = Happenings::default();
        happenings.since_last(moment(1, 0, &[(7, "sh")]));
        let again = Moment { obituary: Some("a  met its memory limit".to_owned()), ..moment(2, 1, &[(9, "sh")]) };
        let news = happenings.since_last(again);
        assert_eq!(news.len(), 3, "{news:?}");
    }

    #[test]
    fn a_changed_verdict_names_both_rings() {
        let mut happenings = Happenings::default();
        happenings.since_last(moment(1, 0, &[]));
        let low = Moment { ring: Some(Ring::R3), ..moment(1, 0, &[]) };
        assert_eq!(happenings.since_last(low), ["the governor's verdict on its ring: R3, not R2"]);
    }
}
