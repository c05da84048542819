//! Model routes of the agents: built for each launch, metered in an account that outlives it.
//!
//! What an agent has spent is no property of a life: one that is started again, by its restart rule or by a new supervisor, goes on
//! where it was. So the account stands beside the agents, by name, and what it says of the last day lies in the store. A task is a
//! start by somebody: restarts belong to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_gateway::limit::{Account, Refused, Shared};
use agt_gateway::live::Models;
use agt_gateway::price::{BadTable, Known, Money};
use agt_gateway::route::{BadRoute, Call, Routes, Trouble, Witness};
use agt_rings::Ring;
use serde::{Deserialize, Serialize};

use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::AgentPlan;
use crate::driver::Supervisor;
use crate::driver::audience::Line;
use crate::driver::launching::in_full;
use crate::driver::records::wall_ms;
use crate::driver::status::metered::{ModelsStatus, Tally};
use crate::driver::streams::escaped;
use crate::store::{Commit, Store};
use crate::telemetry::Telemetry;

const MET: Action = Action::new("limit.met");
const REFUSED: Action = Action::new("model.refused");
const UNPRICED: Action = Action::new("model.unpriced");
/// The kind of state in which an agent's spending lies in the store.
const SPENT: &str = "models.spent";
/// What was spent within this time is one sum, in milliseconds.
const SPAN_MS: i64 = 60_000;
/// How long a sum counts, in milliseconds: the longest period of a cap.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Sums that are kept.
const SPANS_MAX: usize = 1500;
/// The longest text of a refusal that is told, in characters.
const SAID_MAX: usize = 300;
/// Kinds of news that wait to be told; more are counted by the metrics alone.
const NEWS_MAX: usize = 32;
/// The shortest time between two lines of one kind.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Routes that can't be made.
#[derive(Debug, thiserror::Error)]
pub(in crate::driver) enum BadModels {
    #[error(transparent)]
    Route(#[from] BadRoute),
    #[error("the price table")]
    Table(#[from] BadTable),
}

/// All accounts.
#[derive(Debug, Default)]
pub(in crate::driver) struct Accounts {
    agents: BTreeMap<String, Arc<Ledger>>,
    rings: [Option<Arc<Shared>>; 4],
}

/// One agent's account, and who is told of its calls.
#[derive(Debug)]
struct Ledger {
    agent: String,
    limits: Arc<Shared>,
    telemetry: Telemetry,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    spent: Spent,
    unstored: bool,
    called: bool,
    tally: Tally,
    news: BTreeMap<News, u64>,
    told: BTreeMap<News, Instant>,
}

/// What was spent when: sums of a minute each, the oldest first.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    /// When a minute began, on the wall clock, and billionths of a dollar.
    sums: VecDeque<(i64, u64)>,
}

impl Spent {
    fn add(&mut self, cost: Money, now_ms: i64) {
        match self.sums.back_mut() {
            // A clock that was set back adds to the newest sum: it counts for longer, never for less.
            Some((began, sum)) if now_ms < *began + SPAN_MS => *sum = sum.saturating_add(cost.nanos()),
            _ => self.sums.push_back((now_ms, cost.nanos())),
        }
        while self.sums.len() > SPANS_MAX
            || self.sums.front().is_some_and(|(began, _)| began + SPAN_MS + KEPT_MS < now_ms)
        {
            self.sums.pop_front();
        }
    }

    /// How much was spent how long ago. What lies in the future counts as of now.
    fn ago(&self, now_ms: i64) -> impl Iterator<Item = (Money, Duration)> {
        self.sums.iter().map(move |(began, nanos)| {
            let ago = u64::try_from(now_ms.saturating_sub(*began)).unwrap_or(0);
            (Money::from_nanos(*nanos), Duration::from_millis(ago))
        })
    }
}

/// Something that is worth a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    /// A limit was met: its word, and what it says.
    Limit { word: &'static str, says: String },
    /// A call was refused for what it was.
    Refused { word: &'static str, says: String },
    /// A model that the price table does not know was charged the worst price.
    Unpriced { model: String },
}

impl Ledger {
    fn new(agent: &str, telemetry: &Telemetry) -> Ledger {
        let limits = Shared::new(format!("agent {agent}"), &agt_gateway::limit::spec::LimitSpec::default());
        Ledger { agent: agent.to_owned(), limits, telemetry: telemetry.clone(), book: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic under this lock leaves the book whole: each change is one call of a collection.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(book: &mut Book, news: News) {
        if book.news.len() < NEWS_MAX || book.news.contains_key(&news) {
            *book.news.entry(news).or_default() += 1;
        }
    }

    /// What was spent before: an earlier supervisor's.
    fn recall(&self, spent: Spent) {
        let now = wall_ms();
        for (cost, ago) in spent.ago(now) {
            self.limits.recall(cost, ago);
        }
        self.book().spent = spent;
    }

    fn store(&self, store: &Store) {
        let mut book = self.book();
        if !std::mem::take(&mut book.unstored) {
            return;
        }
        let value = serde_json::to_value(&book.spent).expect("plain data");
        drop(book);
        // A note that finds no room is counted by the store; the next one holds this one's sums too.
        let _ = store.note(Commit::new().put_state(&self.agent, SPENT, value, wall_ms()));
    }
}

impl Witness for Ledger {
    fn ended(&self, call: &Call) {
        self.telemetry.called(&self.agent, call);
        let mut book = self.book();
        book.called = true;
        book.tally.calls += 1;
        book.tally.input_tokens = book.tally.input_tokens.saturating_add(call.usage.input_total());
        book.tally.output_tokens = book.tally.output_tokens.saturating_add(call.usage.output);
        if !call.cost.is_zero() {
            book.spent.add(call.cost, wall_ms());
            book.unstored = true;
        }
        if call.known == Known::Unknown {
            let model = call.model.chars().take(80).collect();
            Self::note(&mut book, News::Unpriced { model });
        }
    }

    fn refused(&self, route: &str, trouble: Trouble, message: &str) {
        self.book().tally.refused += 1;
        // A limit says which one it is by `limited`.
        if matches!(trouble, Trouble::RateLimited | Trouble::SpendCap) {
            return;
        }
        let word = trouble.word();
        self.telemetry.model_refused(&self.agent, word);
        if !matches!(trouble, Trouble::Key | Trouble::NotAllowed) {
            return;
        }
        // What is refused is the agent's own text.
        let message: String = message.chars().take(SAID_MAX).collect();
        Self::note(&mut self.book(), News::Refused { word, says: escaped(&format!("{route}: {message}")) });
    }

    fn limited(&self, _: &str, refused: &Refused) {
        let word = refused.refusal.word();
        self.telemetry.model_refused(&self.agent, word);
        self.telemetry.throttled(&self.agent, &format!("model-{word}"), 1);
        let mut book = self.book();
        book.tally.throttled += 1;
        Self::note(&mut book, News::Limit { word, says: refused.to_string() });
    }
}

impl Accounts {
    fn ledger(&mut self, agent: &str, telemetry: &Telemetry) -> Arc<Ledger> {
        let new = || Arc::new(Ledger::new(agent, telemetry));
        Arc::clone(self.agents.entry(agent.to_owned()).or_insert_with(new))
    }

    /// What an agent's calls come to; `None`: it was never started with model routes.
    pub(in crate::driver) fn status(&self, agent: &str) -> Option<ModelsStatus> {
        let ledger = self.agents.get(agent)?;
        let tally = ledger.book().tally;
        Some(ModelsStatus::new(tally, &ledger.limits.standing(), &ledger.limits.caps()))
    }

    /// The routes of a plan in a ring, with what their calls are held to from now on; `None`: it has none there.
    ///
    /// # Errors
    /// A key that can't be had, above all.
    pub(in crate::driver) fn models(
        &mut self,
        plan: &AgentPlan,
        ring: Ring,
        telemetry: &Telemetry,
    ) -> Result<Option<Models>, BadModels> {
        if plan.models.is_nothing() || matches!(ring, Ring::R0 | Ring::R3) {
            return Ok(None);
        }
        let routes = Routes::new(&plan.models.routes, Arc::new(plan.models.table()?))?;
        let ledger = self.ledger(plan.name(), telemetry);
        ledger.limits.set(&plan.models.limits);
        let own = self.rings[usize::from(ring.number())]
            .get_or_insert_with(|| Shared::new(format!("all of {ring}"), plan.models.ring(ring)));
        own.set(plan.models.ring(ring));
        let account = Arc::new(Account::new(vec![Arc::clone(&ledger.limits), Arc::clone(own)]));
        Ok(Some(Models { routes, account, witness: ledger }))
    }
}

impl Supervisor {
    /// Somebody starts an agent: what it spends from here on is this task's.
    pub(in crate::driver) async fn begin_task(&mut self, name: &str) {
        let Some(agent) = self.agents.get(name) else { return };
        if agent.definition.plan.models.is_nothing() {
            return;
        }
        let is_new = !self.ways.accounts.agents.contains_key(name);
        let ledger = self.ways.accounts.ledger(name, &self.telemetry);
        ledger.limits.begin_task();
        if !is_new {
            return;
        }
        match self.store.get_state(name, SPENT).await {
            Ok(state) => {
                // What another version wrote is not readable as sums; a cap that counts from nothing is said.
                let spent = state.map(|state| serde_json::from_value(state.value)).transpose();
                match spent {
                    Ok(spent) => ledger.recall(spent.unwrap_or_default()),
                    Err(e) => eprintln!("warning: {name}: what it spent on models before is not counted: {e}"),
                }
            }
            Err(e) => eprintln!("warning: {name}: what it spent on models before is not counted: {e}"),
        }
    }

    /// Tells what is new of the agents' model calls, and stores what they spent.
    pub(in crate::driver) fn keep_models(&mut self) {
        let ledgers: Vec<Arc<Ledger>> = self.ways.accounts.agents.values().cloned().collect();
        let mut called = false;
        for ledger in ledgers {
            called |= std::mem::take(&mut ledger.book().called);
            ledger.store(&self.store);
            self.tell_models(&ledger);
        }
        if called {
            self.telemetry.settle();
        }
    }

    fn tell_models(&mut self, ledger: &Ledger) {
        let mut book = ledger.book();
        let news = std::mem::take(&mut book.news);
        if news.is_empty() {
            return;
        }
        let now = Instant::now();
        book.told.retain(|_, told| now.duration_since(*told) < TELL_EVERY);
        let mut fresh = Vec::new();
        for (news, times) in news {
            // The text changes with each call: its word is what it is told once by.
            let kind = match &news {
                News::Limit { word, .. } => News::Limit { word, says: String::new() },
                News::Refused { word, .. } => News::Refused { word, says: String::new() },
                News::Unpriced { .. } => news.clone(),
            };
            if book.told.len() < NEWS_MAX && !book.told.contains_key(&kind) {
                book.told.insert(kind, now);
                fresh.push((news, times));
            }
        }
        drop(book);
        for (news, times) in fresh {
            let name = ledger.agent.as_str();
            let record = |action, outcome| Record::new(wall_ms(), Actor::Supervisor, action, outcome).agent(name);
            let times = i64::try_from(times).unwrap_or(i64::MAX);
            match news {
                News::Limit { word, says } => {
                    self.note(
                        record(MET, Outcome::Noted)
                            .detail("limit", word)
                            .detail("times", times)
                            .detail("says", says.as_str()),
                    );
                    self.say(name, Line::Course, format!("limit: {name}: a model call was refused: {says}"));
                }
                News::Refused { word, says } => {
                    let record = record(REFUSED, Outcome::Denied).detail("reason", word);
                    self.note(record.detail("times", times).detail("says", says.as_str()));
                    self.say(name, Line::Course, format!("denied: {name}: a model call was refused: {says}"));
                }
                News::Unpriced { model } => {
                    self.note(record(UNPRICED, Outcome::Noted).detail("model", model.as_str()).detail("times", times));
                    let text = format!(
                        "warning: {name}: the price table does not know the model {model:?}, so it is charged its worst price\n\
                         help: put its price into the file that `models: {{prices: FILE}}` names in the operator's file"
                    );
                    self.say(name, Line::Course, text);
                }
            }
        }
    }

    /// A changed plan's routes are in force at once.
    pub(in crate::driver) fn renew_models(&mut self, name: &str) {
        let Some(agent) = self.agents.get(name) else { return };
        let Some(way) = &agent.way_out else { return };
        let models =
            self.ways.accounts.models(&agent.definition.plan, agent.ring, &self.telemetry).unwrap_or_else(|e| {
                eprintln!("error: {name}: its model routes can't be made, so it has none: {}", in_full(&e));
                None
            });
        way.set_models(models);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_spent_is_summed_by_the_minute_and_kept_for_a_day() {
        let mut spent = Spent::default();
        let cent = Money::from_cents(1);
        spent.add(cent, 1_000_000);
        spent.add(cent, 1_059_999);
        spent.add(cent, 1_060_000);
        // Set back.
        spent.add(cent, 500_000);
        assert_eq!(spent.sums, [(1_000_000, 20_000_000), (1_060_000, 20_000_000)]);
        let ago: Vec<_> = spent.ago(1_060_000).collect();
        assert_eq!(ago[0], (Money::from_cents(2), Duration::from_secs(60)));
        spent.add(cent, 1_000_000 + KEPT_MS + SPAN_MS + 1);
        assert_eq!(spent.sums.front().unwrap().0, 1_060_000);
        let again: Spent = serde_json::from_value(serde_json::to_value(&spent).unwrap()).unwrap();
        assert_eq!(again, spent);
    }
}
