//! The last denials of one agent: each kind once, with how often and when.
//!
//! Bounded in every direction, because whoever is refused decides how often and with which arguments: so many kinds, the one that was
//! quiet longest goes first; so many lines on a terminal per life; so many bytes a text. Pure: notices and times in, news out.

use std::collections::{BTreeMap, BTreeSet};

use agt_gateway::limit::rate::RULE;
use agt_rings::Ring;
use agt_rings::notice::{Notice, What, escaped};
use agt_sre::sli::Severity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::class::{self, Class};
use super::words;

/// Denials that are kept apart; beyond them the one that was quiet longest is forgotten, and counted.
pub const KINDS_MAX: usize = 256;
/// Of which so many, the newest, outlive the supervisor.
pub const STORED_MAX: usize = 64;
/// Lines of one life on a terminal; more are only counted.
pub const LINES_MAX: usize = 5;
/// The shortest time between two safety events of one kind, in milliseconds.
pub const WEIGHS_EVERY_MS: i64 = 60_000;
/// The longest path or name that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1024;
/// The shortest id, in hexadecimal digits; more where two would be the same.
const ID_DIGITS: usize = 4;

/// What was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    /// A system call that the ring's filter refuses.
    Call {
        /// Its name, or `#` and its number.
        call: String,
        /// The architecture whose number it is.
        arch: String,
        /// The six argument registers, the last time.
        args: [u64; 6],
        /// The argument that tells what it was about, in words.
        argument: Option<String>,
        /// What it was answered with.
        errno: i32,
    },
    /// A name that a pattern keeps from the agent.
    Name {
        /// The call that would have made it.
        call: String,
        /// The path as the agent saw it.
        path: String,
        /// The pattern.
        pattern: String,
    },
    /// A destination that the gateway does not let it reach.
    Network {
        /// What it asked for.
        asked: String,
        /// The rule of the policy.
        rule: String,
        /// Why, as the closed word of metrics.
        reason: String,
        /// Why, in words.
        why: String,
        /// The line that would allow it, and in which file.
        help: Option<String>,
    },
    /// More requests than its ring or its file lets through, by the gateway or on its control socket.
    Rate {
        /// How many a minute were let through.
        per_minute: u64,
    },
}

impl Tried {
    /// What a notice says was denied; `None` for what was no denial.
    #[must_use]
    pub fn of(what: &What) -> Option<Tried> {
        let short = |text: &str| escaped(text.as_bytes(), TEXT_BYTES_MAX);
        match what {
            What::Refused { call, arch, args, errno, why: _ } => Some(Tried::Call {
                argument: words::argument(call, args),
                call: short(call),
                arch: short(arch),
                args: *args,
                errno: *errno,
            }),
            What::Name { call, path, pattern } => {
                Some(Tried::Name { call: short(call), path: short(path), pattern: short(pattern) })
            }
            What::Opened { .. }
            | What::Executed { .. }
            | What::Connected { .. }
            | What::Repository { .. }
            | What::Lost { .. } => None,
        }
    }

    /// The call.
    #[must_use]
    pub fn call(&self) -> &str {
        match self {
            Tried::Call { call, .. } | Tried::Name { call, .. } => call,
            Tried::Network { .. } => "connect",
            Tried::Rate { .. } => "request",
        }
    }

    /// What kind of thing it was.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Tried::Call { call, .. } => Class::of_call(call),
            Tried::Name { .. } => Class::Names,
            Tried::Network { .. } | Tried::Rate { .. } => Class::Network,
        }
    }

    /// How grave it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Tried::Call { call, .. } => class::severity(call),
            Tried::Name { .. } => Severity::Medium,
            Tried::Network { reason, .. } => class::severity_of_network(reason),
            Tried::Rate { .. } => Severity::Low,
        }
    }

    /// What makes two of them the same. Pointers in the arguments do not.
    fn key(&self) -> String {
        match self {
            Tried::Call { call, argument, errno, .. } => {
                format!("call\0{call}\0{}\0{errno}", argument.as_deref().unwrap_or_default())
            }
            Tried::Name { path, pattern, .. } => format!("name\0{path}\0{pattern}"),
            Tried::Network { asked, rule, .. } => format!("network\0{asked}\0{rule}"),
            Tried::Rate { .. } => "rate".to_owned(),
        }
    }

    /// The rule that refused it, as audit and messages name it.
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Tried::Call { call, .. } => {
                format!("seccomp.{}", agt_rings::seccomp::groups::of(call).map_or("unknown", |g| g.name))
            }
            Tried::Name { pattern, .. } => format!("name.{pattern}"),
            Tried::Network { rule, .. } => rule.clone(),
            Tried::Rate { .. } => RULE.to_owned(),
        }
    }
}

impl std::fmt::Display for Tried {
    /// `socket(AF_VSOCK, SOCK_STREAM)`, `mkdir /w/.vscode`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tried::Call { call, argument: Some(argument), .. } => write!(f, "{call}({argument})"),
            Tried::Call { call, .. } => f.write_str(call),
            Tried::Name { call, path, .. } => write!(f, "{call} {path}"),
            Tried::Network { asked, .. } => f.write_str(asked),
            Tried::Rate { per_minute } => write!(f, "more than {per_minute} requests a minute"),
        }
    }
}

/// One kind of denial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Short, the same each time for the same agent.
    pub id: String,
    /// What was tried.
    pub tried: Tried,
    /// What kind of thing that is.
    pub class: Class,
    /// The ring that refused it.
    pub ring: Ring,
    /// Who tried it last, in the agent's own PID namespace.
    pub pid: i32,
    /// The name of that process, which it chose itself.
    pub comm: String,
    /// How often.
    pub count: u64,
    /// The first time, in milliseconds since the epoch.
    pub first_ms: i64,
    /// The last time.
    pub last_ms: i64,
}

/// What of a memory outlives the supervisor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The newest denials, newest first.
    pub denials: Vec<Denial>,
    /// Kinds that were forgotten for want of room.
    pub forgotten: u64,
    /// Notices that never arrived.
    pub lost: u64,
}

/// Who tried it: a process of the agent, or nobody in particular where connections tell no processes apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// In the agent's own PID namespace; 0 where it isn't known.
    pub pid: i32,
    /// Its name, which it chose itself.
    pub comm: String,
}

/// A notice that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Taken<'m> {
    /// What it is about, with all that is known of it by now.
    pub denial: &'m Denial,
    /// Whether somebody is to be told.
    pub news: News,
    /// Whether it is an event for the safety SLO.
    pub weighs: Weighs,
}

/// Whether a denial is an event for the safety SLO. One of a kind is, once in [`WEIGHS_EVERY_MS`]: a loop around a refused call is
/// one misdeed, not thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighs {
    /// It is.
    Yes,
    /// It is none: too light, or counted a moment ago.
    No,
}

/// Whether somebody is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nothing that anybody needs to be told.
    None,
    /// A kind that this life has not shown before, and there is room for a line.
    First,
    /// The same, and the last line that there is room for.
    LastLine,
}

/// The last denials of one agent.
#[derive(Debug, Default)]
pub struct Memory {
    agent: String,
    kept: Kept,
    /// Of the present life.
    seen: BTreeSet<String>,
    total: u64,
    lines: usize,
    /// When a kind was last an event for the safety SLO.
    weighed: BTreeMap<String, i64>,
    changed: bool,
}

impl Memory {
    /// An agent's, with what earlier runs have left.
    #[must_use]
    pub fn of(agent: &str, mut kept: Kept) -> Memory {
        kept.denials.truncate(KINDS_MAX);
        Memory { agent: agent.to_owned(), kept, ..Memory::default() }
    }

    /// A life begins: what it will be denied is counted anew.
    pub fn begin(&mut self) {
        self.seen.clear();
        self.total = 0;
        self.lines = 0;
    }

    /// Takes a notice. Gives the denial that it is about; `None` for what was none.
    pub fn take(&mut self, notice: &Notice, ring: Ring, now_ms: i64) -> Option<Taken<'_>> {
        if let What::Lost { count } = notice.what {
            self.kept.lost = self.kept.lost.saturating_add(count.max(1));
            self.changed = true;
            return None;
        }
        let tried = Tried::of(&notice.what)?;
        Some(self.refused(tried, Who { pid: notice.pid, comm: notice.comm.clone() }, notice.count, ring, now_ms))
    }

    /// Takes `count` denials of one kind.
    pub fn refused(&mut self, tried: Tried, who: Who, count: u64, ring: Ring, now_ms: i64) -> Taken<'_> {
        let is_news = !class::is_probing(tried.call());
        self.changed = true;
        self.total = self.total.saturating_add(count);
        let key = tried.key();
        let index = self.kept.denials.iter().position(|denial| denial.tried.key() == key);
        let mut denial = match index {
            Some(index) => self.kept.denials.remove(index),
            None => Denial {
                id: self.new_id(&key),
                class: tried.class(),
                tried: tried.clone(),
                ring,
                pid: who.pid,
                comm: who.comm.clone(),
                count: 0,
                first_ms: now_ms,
                last_ms: now_ms,
            },
        };
        denial.count = denial.count.saturating_add(count);
        // A clock that goes back stands still here.
        denial.last_ms = denial.last_ms.max(now_ms);
        (denial.pid, denial.comm, denial.ring, denial.tried) = (who.pid, who.comm, ring, tried);
        let is_first = self.seen.len() < KINDS_MAX && self.seen.insert(denial.id.clone());
        let weighs = self.weigh(&denial, now_ms);
        self.kept.denials.insert(0, denial);
        if self.kept.denials.len() > KINDS_MAX {
            self.kept.denials.truncate(KINDS_MAX);
            self.kept.forgotten += 1;
        }
        let news = match is_first && is_news && self.lines < LINES_MAX {
            false => News::None,
            true => {
                self.lines += 1;
                if self.lines == LINES_MAX { News::LastLine } else { News::First }
            }
        };
        Taken { denial: &self.kept.denials[0], news, weighs }
    }

    fn weigh(&mut self, denial: &Denial, now_ms: i64) -> Weighs {
        if denial.tried.severity() < Severity::High {
            return Weighs::No;
        }
        self.weighed.retain(|_, at| now_ms.saturating_sub(*at) < WEIGHS_EVERY_MS);
        if self.weighed.len() >= KINDS_MAX || self.weighed.contains_key(&denial.id) {
            return Weighs::No;
        }
        self.weighed.insert(denial.id.clone(), now_ms);
        Weighs::Yes
    }

    /// The first digits of a hash that no other denial here has.
    fn new_id(&self, key: &str) -> String {
        let digest = Sha256::digest(format!("{}\0{key}", self.agent));
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_free = |id: &str| self.kept.denials.iter().all(|denial| denial.id != id);
        (ID_DIGITS..digits.len()).map(|length| &digits[..length]).find(|id| is_free(id)).unwrap_or(&digits).to_owned()
    }

    /// How the present life's denials are told at its end; `None` when there was none.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        if self.total == 0 {
            return None;
        }
        let noun = if self.total == 1 { "denial" } else { "denials" };
        let which = match self.seen.first() {
            Some(only) if self.seen.len() == 1 => only,
            _ => &self.agent,
        };
        Some(format!("{} {noun} (agt-supervise why {which})", self.total))
    }

    /// What is to be stored, if there is something new.
    pub fn news(&mut self) -> Option<Kept> {
        std::mem::take(&mut self.changed).then(|| Kept {
            denials: self.kept.denials.iter().take(STORED_MAX).cloned().collect(),
            forgotten: self.kept.forgotten,
            lost: self.kept.lost,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn refused(call: &str, args: [u64; 6], count: u64) -> Notice {
        let what = What::Refused {
            call: call.to_owned(),
            arch: "x86_64".to_owned(),
            args,
            errno: 1,
            why: "because".to_owned(),
        };
        Notice { pid: 7, comm: "sh".to_owned(), what, count }
    }

    fn name(path: &str) -> Notice {
        let what = What::Name { call: "mkdir".to_owned(), path: path.to_owned(), pattern: ".vscode".to_owned() };
        Notice { pid: 7, comm: "sh".to_owned(), what, count: 1 }
    }

    fn take(memory: &mut Memory, notice: &Notice, now: i64) -> (Denial, News) {
        let taken = memory.take(notice, Ring::R2, now).unwrap();
        (taken.denial.clone(), taken.news)
    }

    #[test]
    fn the_same_call_with_other_pointers_is_the_same_denial() {
        let mut memory = Memory::of("a", Kept::default());
        let (first, news) = take(&mut memory, &refused("mount", [1, 2, 3, 0, 0, 0], 1), 10);
        assert_eq!(news, News::First);
        let (again, news) = take(&mut memory, &refused("mount", [9, 8, 7, 0, 0, 0], 41), 20);
        assert_eq!((news, again.count, again.first_ms, again.last_ms), (News::None, 42, 10, 20));
        assert_eq!(first.id, again.id);
        let vsock = take(&mut memory, &refused("socket", [40, 1, 0, 0, 0, 0], 1), 21).0;
        let packet = take(&mut memory, &refused("socket", [17, 3, 0, 0, 0, 0], 1), 22).0;
        assert_ne!(vsock.id, packet.id, "another family is another denial");
    }

    #[test]
    fn an_id_is_the_same_in_the_next_run_and_another_for_another_agent() {
        let id = |agent: &str| take(&mut Memory::of(agent, Kept::default()), &refused("mount", [0; 6], 1), 1).0.id;
        assert_eq!(id("a"), id("a"));
        assert_ne!(id("a"), id("b"));
        assert_eq!(id("a").len(), ID_DIGITS);
    }

    #[test]
    fn what_is_kept_outlives_the_run_and_a_new_life_counts_anew() {
        let mut memory = Memory::of("a", Kept::default());
        let _ = take(&mut memory, &refused("mount", [0; 6], 3), 10);
        assert_eq!(memory.summary().unwrap().split(" (").next(), Some("3 denials"));
        let kept = memory.news().unwrap();
        assert_eq!(memory.news(), None, "nothing new since");
        let mut next = Memory::of("a", serde_json::from_value(serde_json::json!(kept)).unwrap());
        next.begin();
        assert_eq!(next.summary(), None);
        let (denial, news) = take(&mut next, &refused("mount", [0; 6], 1), 99);
        assert_eq!((denial.count, denial.first_ms, news), (4, 10, News::First));
        assert_eq!(next.summary(), Some(format!("1 denial (agt-supervise why {})", denial.id)));
        let _ = take(&mut next, &name("/w/.vscode"), 100);
        assert_eq!(next.summary().unwrap(), "2 denials (agt-supervise why a)");
    }

    #[test]
    fn lines_are_few_and_what_programs_probe_for_is_counted_without_one() {
        let mut memory = Memory::of("a", Kept::default());
        assert_eq!(take(&mut memory, &refused("io_uring_setup", [0; 6], 1), 1).1, News::None);
        let news: Vec<News> = (0..10).map(|n| take(&mut memory, &name(&format!("/w/{n}/.vscode")), n).1).collect();
        assert_eq!(news.iter().filter(|news| **news == News::First).count(), LINES_MAX - 1);
        assert_eq!(news[LINES_MAX - 1], News::LastLine);
        assert!(news[LINES_MAX..].iter().all(|news| *news == News::None));
    }

    #[test]
    fn a_loop_around_a_grave_call_is_one_event_a_minute_and_a_light_one_none() {
        let mut memory = Memory::of("a", Kept::default());
        let mut weighs = |notice: &Notice, now| memory.take(notice, Ring::R2, now).unwrap().weighs;
        assert_eq!(weighs(&refused("mount", [0; 6], 900), 0), Weighs::Yes);
        assert_eq!(weighs(&refused("mount", [7; 6], 900), WEIGHS_EVERY_MS - 1), Weighs::No);
        assert_eq!(weighs(&refused("bpf", [0; 6], 1), 1_000), Weighs::Yes);
        assert_eq!(weighs(&refused("mount", [0; 6], 1), WEIGHS_EVERY_MS), Weighs::Yes);
        assert_eq!(weighs(&refused("unshare", [0x1000_0000, 0, 0, 0, 0, 0], 1), 0), Weighs::No);
    }

    #[test]
    fn what_was_lost_is_counted_and_no_denial() {
        let mut memory = Memory::of("a", Kept::default());
        let lost = Notice { pid: 0, comm: String::new(), what: What::Lost { count: 500 }, count: 1 };
        assert!(memory.take(&lost, Ring::R2, 1).is_none());
        assert_eq!(memory.news().unwrap().lost, 500);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn an_agent_that_tries_ever_new_things_fills_no_memory_and_nothing_goes_uncounted(
            tries in prop::collection::vec((0u64..2_000, 1u64..5), 1..900),
        ) {
            let mut memory = Memory::of("a", Kept::default());
            let mut expected = 0;
            for (now, (family, count)) in tries.iter().enumerate() {
                let _ = memory.take(&refused("socket", [*family, 1, 0, 0, 0, 0], *count), Ring::R2, now as i64);
                expected += count;
                prop_assert!(memory.kept.denials.len() <= KINDS_MAX && memory.seen.len() <= KINDS_MAX);
            }
            prop_assert!(memory.summary().unwrap().starts_with(&expected.to_string()));
            let ids: BTreeSet<&str> = memory.kept.denials.iter().map(|denial| denial.id.as_str()).collect();
            prop_assert_eq!(ids.len(), memory.kept.denials.len());
            let kept = memory.news().unwrap();
            prop_assert!(kept.denials.len() <= STORED_MAX);
            prop_assert!(kept.denials.is_sorted_by(|a, b| a.last_ms >= b.last_ms));
        }
    }
}
