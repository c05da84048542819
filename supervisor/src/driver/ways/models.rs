//! Model routes of the agents: built for each launch, metered in an account that outlives it.
//!
//! What an agent has spent is no property of a life: one that is started again, by its restart rule or by a new supervisor, goes on
//! where it was. So the account stands beside the agents, by name, and what it says of the last day lies in the store. A task is a
//! start by somebody: restarts belong to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::limit::{Account, Refused, Shared};
use agt_gateway::live::Models;
use agt_gateway::price::{BadTable, Known};
use agt_gateway::route::{BadRoute, Call, Room, Routes, Trouble, Witness};
use agt_rings::Ring;

use super::spent::{Purse, past};
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::AgentPlan;
use crate::driver::Supervisor;
use crate::driver::audience::Line;
use crate::driver::launching::in_full;
use crate::driver::records::wall_ms;
use crate::driver::status::metered::{ModelsStatus, Tally};
use crate::driver::streams::escaped;
use crate::exit;
use crate::telemetry::Telemetry;

const MET: Action = Action::new("limit.met");
const REFUSED: Action = Action::new("model.refused");
const UNPRICED: Action = Action::new("model.unpriced");
const UNREAD: Action = Action::new("model.spent.unread");
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

impl BadModels {
    /// The exit code, and what mends it.
    pub(in crate::driver) fn launch_failure(&self) -> (String, u8) {
        let text = in_full(self);
        match self {
            BadModels::Route(BadRoute::Key { source, .. }) => (format!("{text}\nhelp: {}", source.help()), exit::USAGE),
            BadModels::Route(_) | BadModels::Table(_) => (text, exit::UNAVAILABLE),
        }
    }
}

/// All accounts.
#[derive(Debug, Default)]
pub(in crate::driver) struct Accounts {
    agents: BTreeMap<String, Arc<Ledger>>,
    rings: [Option<Arc<Purse>>; 4],
    /// For the requests of all of them.
    room: Room,
}

/// One agent's account, and who is told of its calls.
#[derive(Debug)]
struct Ledger {
    agent: String,
    purse: Purse,
    telemetry: Telemetry,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    called: bool,
    tally: Tally,
    news: BTreeMap<News, u64>,
    told: BTreeMap<News, Instant>,
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
        let purse = Purse::new(agent, Shared::new(format!("agent {agent}"), &LimitSpec::default()));
        Ledger { agent: agent.to_owned(), purse, telemetry: telemetry.clone(), book: Mutex::default() }
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
}

/// Who hears of the calls of one life: they are paid by the agent and by all of its ring.
#[derive(Debug)]
struct Caller {
    ledger: Arc<Ledger>,
    ring: Arc<Purse>,
}

impl Witness for Caller {
    fn ended(&self, call: &Call) {
        self.ring.spend(call.cost);
        self.ledger.ended(call);
    }

    fn refused(&self, route: &str, trouble: Trouble, message: &str) {
        self.ledger.refused(route, trouble, message);
    }

    fn limited(&self, _: &str, refused: &Refused) {
        self.ledger.limited(refused);
    }
}

impl Ledger {
    fn ended(&self, call: &Call) {
        self.telemetry.called(&self.agent, call);
        self.purse.spend(call.cost);
        let mut book = self.book();
        book.called = true;
        book.tally.calls += 1;
        book.tally.input_tokens = book.tally.input_tokens.saturating_add(call.usage.input_total());
        book.tally.output_tokens = book.tally.output_tokens.saturating_add(call.usage.output);
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

    fn limited(&self, refused: &Refused) {
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

    fn ring(&mut self, ring: Ring) -> Arc<Purse> {
        let limits = || Shared::new(format!("all of {ring}"), &LimitSpec::default());
        let new = || Arc::new(Purse::new(&ring.to_string(), limits()));
        Arc::clone(self.rings[usize::from(ring.number())].get_or_insert_with(new))
    }

    /// What an agent's calls come to; `None`: it was never started with model routes.
    pub(in crate::driver) fn status(&self, agent: &str) -> Option<ModelsStatus> {
        let ledger = self.agents.get(agent)?;
        let tally = ledger.book().tally;
        Some(ModelsStatus::new(tally, &ledger.purse.limits.standing(), &ledger.purse.limits.caps()))
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
        let routes = plan.models.routes_at(ring);
        if routes.is_empty() {
            return Ok(None);
        }
        let routes = Routes::new(&routes, Arc::new(plan.models.table()?))?.within(&self.room);
        let ledger = self.ledger(plan.name(), telemetry);
        ledger.purse.limits.set(&plan.models.limits);
        let ring_purse = self.ring(ring);
        ring_purse.limits.set(plan.models.ring(ring));
        let subjects = vec![Arc::clone(&ledger.purse.limits), Arc::clone(&ring_purse.limits)];
        let witness = Arc::new(Caller { ledger, ring: ring_purse });
        Ok(Some(Models { routes, account: Arc::new(Account::new(subjects)), witness }))
    }
}

impl Supervisor {
    /// Somebody starts an agent: what it spends from here on is this task's.
    pub(in crate::driver) async fn begin_task(&mut self, name: &str) {
        self.recall_models(name).await;
        if let Some(ledger) = self.ways.accounts.agents.get(name) {
            ledger.purse.limits.begin_task();
        }
    }

    /// What an agent with model routes and its ring spent before is counted from here on, if it is not yet.
    pub(in crate::driver) async fn recall_models(&mut self, name: &str) {
        let Some(agent) = self.agents.get(name).filter(|agent| !agent.definition.plan.models.is_nothing()) else {
            return;
        };
        let (ring, models) = (agent.ring, agent.definition.plan.models.clone());
        if !self.ways.accounts.agents.contains_key(name) {
            let past = past(&self.store, name).await;
            let ledger = self.ways.accounts.ledger(name, &self.telemetry);
            let unknown = ledger.purse.recall(past, &models.limits.spend);
            self.tell_unread(name, name, unknown);
        }
        if self.ways.accounts.rings[usize::from(ring.number())].is_none() {
            let past = past(&self.store, &ring.to_string()).await;
            let unknown = self.ways.accounts.ring(ring).recall(past, &models.ring(ring).spend);
            self.tell_unread(name, &format!("all of {ring}"), unknown);
        }
    }

    fn tell_unread(&mut self, name: &str, whose: &str, unknown: Option<String>) {
        let Some(why) = unknown else { return };
        let record = Record::new(wall_ms(), Actor::Supervisor, UNREAD, Outcome::Noted).agent(name);
        self.note(record.detail("whose", whose).detail("why", why.as_str()));
        let text = format!(
            "warning: {whose}: what was spent on models before can't be read ({why}): the caps of an hour and a day count as spent, \
             and calls are refused until that time is over\n\
             help: higher caps in the operator's file give room at once: agt-supervise reload {name}"
        );
        self.say(name, Line::Matter, text);
    }

    /// Tells what is new of the agents' model calls, and stores what they spent.
    pub(in crate::driver) fn keep_models(&mut self) {
        let ledgers: Vec<Arc<Ledger>> = self.ways.accounts.agents.values().cloned().collect();
        let mut called = false;
        for ledger in ledgers {
            called |= std::mem::take(&mut ledger.book().called);
            ledger.purse.store(&self.store);
            self.tell_models(&ledger);
        }
        self.ways.accounts.rings.iter().flatten().for_each(|ring| ring.store(&self.store));
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
                    let text = format!(
                        "limit: {name}: a model call was refused: {says}\n\
                         help: `model_limits` in its file and the operator's set it; once it is raised: agt-supervise reload"
                    );
                    self.say(name, Line::Course, text);
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
