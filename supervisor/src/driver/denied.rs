//! What one agent, or one step of a saga, was denied, and where that goes: the audit log, a line, the store for `why`.
//!
//! A record of a denial is coalesced as the audit log wants it, a line is said for the first of a kind, and the memory goes to the
//! store now and then and at the end. It is kept under the name by which people ask, which in a run of `learn` is not the one it has.

use std::time::{Duration, Instant};

use agt_rings::Ring;
use agt_rings::notice::Notice;
use agt_sre::sli::Severity;

use super::records::wall_ms;
use crate::audit::coalesce::Coalescer;
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::denials::memory::{Kept, News, Taken, Weighs, Who};
use crate::denials::{Class, Denial, Memory, Tried, advice, words};
use crate::store::{Commit, Store};

/// In the audit log.
const DENIED: Action = Action::new("denied");
/// The kind of state in which the memory lies in the store.
pub const DENIALS: &str = "denials";
/// The shortest time between two writes of a memory to the store.
const STORE_EVERY: Duration = Duration::from_secs(5);

/// What was denied.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    name: String,
    memory: Memory,
    records: Coalescer,
    stored: Option<Instant>,
}

/// What a notice came to.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) class: Class,
    pub(crate) severity: Severity,
    pub(crate) weighs: Weighs,
    /// What is to be said of it.
    pub(crate) line: Option<String>,
}

impl Denied {
    /// With what earlier runs under this name have left.
    pub(crate) async fn recall(store: &Store, name: &str) -> Denied {
        let kept = match store.get_state(name, DENIALS).await {
            // What another version wrote is not worth a refusal: it is about the past.
            Ok(state) => state.and_then(|state| serde_json::from_value(state.value).ok()).unwrap_or_default(),
            Err(e) => {
                eprintln!("warning: {name}: its earlier denials can't be read: {e}");
                Kept::default()
            }
        };
        Denied { name: name.to_owned(), memory: Memory::of(name, kept), ..Denied::default() }
    }

    /// A launch is decided.
    pub(crate) fn begin(&mut self) {
        self.memory.begin();
    }

    /// Takes a notice into account; `None` for what was no denial.
    pub(crate) fn take(&mut self, notice: &Notice, ring: Ring, store: &Store) -> Option<Heard> {
        let now = wall_ms();
        let taken = self.memory.take(notice, ring, now)?;
        let (heard, rule, record) = told(&self.name, taken);
        self.record(&rule, record, notice.count, now, store);
        Some(heard)
    }

    /// Takes `count` refusals of the gateway into account.
    pub(crate) fn refused(&mut self, tried: Tried, ring: Ring, count: u64, store: &Store) -> Heard {
        let now = wall_ms();
        let taken = self.memory.refused(tried, Who::default(), count, ring, now);
        let (heard, rule, record) = told(&self.name, taken);
        self.record(&rule, record, count, now, store);
        heard
    }

    fn record(&mut self, rule: &str, record: Record, count: u64, now: i64, store: &Store) {
        let records = self.records.deny_times(&self.name, rule, record, count, now);
        self.note(records, store);
        self.store_if_due(store);
    }

    /// Counts that are due go to the audit log, the memory to the store.
    pub(crate) fn keep(&mut self, store: &Store) {
        let records = self.records.advance(wall_ms());
        self.note(records, store);
        self.store_if_due(store);
    }

    /// A life has ended: what is left to record and to store, and the words for its last line.
    pub(crate) fn end(&mut self, store: &Store) -> Option<String> {
        let records = self.records.finish(wall_ms());
        self.note(records, store);
        self.store(store);
        self.memory.summary()
    }

    fn note(&self, records: impl IntoIterator<Item = Record>, store: &Store) {
        for record in records {
            // A lost note is counted by the store, and itself recorded.
            let _ = store.append_audit_nowait(record);
        }
    }

    fn store_if_due(&mut self, store: &Store) {
        if self.stored.is_none_or(|at| at.elapsed() >= STORE_EVERY) {
            self.store(store);
        }
    }

    fn store(&mut self, store: &Store) {
        let Some(kept) = self.memory.news() else { return };
        self.stored = Some(Instant::now());
        let value = serde_json::to_value(kept).expect("plain data");
        // A note that finds no room is counted by the store; the next one holds this one's denials too.
        let _ = store.note(Commit::new().put_state(&self.name, DENIALS, value, wall_ms()));
    }
}

/// What is heard of a denial, its rule and its record.
fn told(name: &str, Taken { denial, news, weighs }: Taken<'_>) -> (Heard, String, Record) {
    let heard = Heard {
        class: denial.class,
        severity: denial.tried.severity(),
        weighs,
        line: (news != News::None).then(|| line(name, denial, news)),
    };
    (heard, denial.tried.rule(), record(name, denial))
}

fn record(name: &str, denial: &Denial) -> Record {
    let record = Record::new(wall_ms(), Actor::Agent(name.to_owned()), DENIED, Outcome::Denied)
        .agent(name)
        .detail("id", denial.id.as_str())
        .detail("tried", denial.tried.to_string())
        .detail("class", denial.class.word())
        .detail("rule", denial.tried.rule())
        .detail("ring", denial.ring.to_string())
        .detail("pid", i64::from(denial.pid))
        .detail("comm", denial.comm.as_str());
    match &denial.tried {
        Tried::Call { errno, .. } => record.detail("errno", i64::from(*errno)),
        Tried::Name { .. } | Tried::Rate { .. } => record,
        Tried::Network { reason, .. } => record.detail("reason", reason.as_str()),
    }
}

/// What is said of the first of a kind.
fn line(name: &str, denial: &Denial, news: News) -> String {
    let Denial { id, tried, ring, pid, comm, .. } = denial;
    let who = if *pid == 0 { String::new() } else { format!(" (pid {pid}, {comm})") };
    let answered = match tried {
        Tried::Call { errno, .. } => format!("It was answered with {}: ", words::errno(*errno)),
        Tried::Name { .. } | Tried::Network { .. } | Tried::Rate { .. } => "It was refused: ".to_owned(),
    };
    let more = match news {
        News::LastLine => format!("\nFurther denials of this run are only counted: agt-supervise why {name}"),
        News::First | News::None => String::new(),
    };
    format!(
        "denied: {tried}   {name}{who}   {ring}, rule {}\n{answered}{}.\nhelp: agt-supervise why {id}{more}",
        tried.rule(),
        advice::reason(denial)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use agt_rings::notice::What;

    use super::*;

    #[test]
    fn a_line_names_what_who_where_why_and_what_helps() {
        let what = What::Refused {
            call: "socket".to_owned(),
            arch: "x86_64".to_owned(),
            args: [40, 1, 0, 0, 0, 0],
            errno: libc::EPERM,
            why: "whatever its sender says".to_owned(),
        };
        let notice = Notice { pid: 4711, comm: "python3".to_owned(), what, count: 1 };
        let mut memory = Memory::of("researcher", Kept::default());
        let taken = memory.take(&notice, Ring::R2, 5).unwrap();
        let text = line("researcher", taken.denial, taken.news);
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "denied: socket(AF_VSOCK, SOCK_STREAM)   researcher (pid 4711, python3)   R2, rule seccomp.named-sockets"
        );
        assert!(text.contains("EPERM") && text.contains("network namespace") && !text.contains("sender"), "{text}");
        assert!(text.ends_with(&format!("help: agt-supervise why {}", taken.denial.id)), "{text}");
    }
}
