//! The loop of one saga.

#![expect(clippy::disallowed_methods, reason = "the loop waits for due times")]

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::run::{Ended, run_one};
use super::{Ask, Driver, Live, SagaError, Steps, error};
use crate::id::RunId;
use crate::inject::Point;
use crate::journal::Journal;
use crate::machine::{self, Action, Input, Rest, State, StepError, Turn};
use crate::time::Moment;

/// The most inputs that share one append.
const BATCH_MAX: usize = 64;

/// One saga in motion.
pub(super) struct Drive<'a, J: Journal, S: Steps> {
    driver: &'a Driver<J, S>,
    state: State,
    /// The last record known to be durable.
    durable: u64,
    /// When the machine was last asked, in milliseconds since the epoch.
    asked_ms: i64,
    live: Live<'a, J, S>,
    runs: JoinSet<Ended>,
    /// Dropping or sending ends the run.
    enders: Vec<(RunId, oneshot::Sender<()>)>,
    /// Told once what they asked for is durable.
    replies: Vec<oneshot::Sender<Result<(), SagaError>>>,
}

/// What woke the loop.
enum Woken {
    Time,
    Run(Ended),
    Asked(Ask),
}

impl<'a, J: Journal, S: Steps> Drive<'a, J, S> {
    pub(super) fn new(driver: &'a Driver<J, S>, state: State, live: Live<'a, J, S>, asked: Moment) -> Self {
        let (runs, enders, replies) = (JoinSet::new(), Vec::new(), Vec::new());
        Self { driver, state, durable: 0, asked_ms: asked.now_ms, live, runs, enders, replies }
    }

    /// Goes on until the saga rests. `turn` came of the input that set it in motion.
    pub(super) async fn drive(mut self, turn: Turn) -> Result<Rest, SagaError> {
        self.durable = self.state.seq() - turn.records.len() as u64;
        let rested = self.go_on(turn).await;
        if let Err(error) = &rested
            && !matches!(error, SagaError::Stopped { .. })
        {
            // Nothing more can be recorded, so nothing more may run. What becomes of these runs is settled at resume.
            self.enders.clear();
            while self.runs.join_next().await.is_some() {}
        }
        rested
    }

    async fn go_on(&mut self, mut turn: Turn) -> Result<Rest, SagaError> {
        loop {
            self.keep(&turn).await?;
            for reply in self.replies.drain(..) {
                // Whoever asked may have gone away; the command stands all the same.
                let _gone = reply.send(Ok(()));
            }
            for action in turn.actions {
                self.perform(action)?;
            }
            if let Some(rest) = self.state.rest() {
                return Ok(rest);
            }
            turn = self.next_turn().await?;
        }
    }

    /// Makes the records durable.
    async fn keep(&mut self, turn: &Turn) -> Result<(), SagaError> {
        if turn.records.is_empty() {
            return Ok(());
        }
        self.driver.append(&self.state, self.durable, &turn.records).await?;
        self.durable = self.state.seq();
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), SagaError> {
        match action {
            Action::Run(run) => {
                self.driver.pass(Point::BeforeRun(&run.id))?;
                let (ender, end) = oneshot::channel();
                self.enders.push((run.id.clone(), ender));
                self.runs.spawn(run_one(self.driver.steps.clone(), *run, end));
            }
            Action::End(run) => self.let_go(&run),
        }
        Ok(())
    }

    /// Drops what ends a run. Few run at once, so that looking at each is quicker than hashing.
    fn let_go(&mut self, run: &RunId) {
        self.enders.retain(|(other, _)| other != run);
    }

    /// Waits for something to happen, takes along all else that has happened by then, and asks what follows.
    async fn next_turn(&mut self) -> Result<Turn, SagaError> {
        let first = self.woken().await;
        let moment = self.driver.moment();
        self.asked_ms = moment.now_ms;
        let mut turn = self.take(first, moment)?;
        for _ in 1..BATCH_MAX {
            let more = match self.runs.try_join_next() {
                Some(joined) => Woken::Run(unpanicked(joined)),
                None => match self.live.asks.try_recv() {
                    Ok(ask) => Woken::Asked(ask),
                    Err(_none) => break,
                },
            };
            turn.join(self.take(more, moment)?);
        }
        let advanced = turn.advance(&mut self.state, moment, &self.driver.settings.policy);
        advanced.map_err(|source| SagaError::Illegal { saga: self.state.id().clone(), source })?;
        Ok(turn)
    }

    async fn woken(&mut self) -> Woken {
        let due = self.state.next_wake_ms(self.asked_ms).map(|at_ms| self.driver.clock.instant(at_ms));
        tokio::select! {
            Some(ask) = self.live.asks.recv() => Woken::Asked(ask),
            Some(joined) = self.runs.join_next(), if !self.runs.is_empty() => Woken::Run(unpanicked(joined)),
            () = waited(due), if due.is_some() => Woken::Time,
            else => Woken::Time,
        }
    }

    fn take(&mut self, woken: Woken, moment: Moment) -> Result<Turn, SagaError> {
        let input = match woken {
            Woken::Time => Input::Wake,
            Woken::Run(ended) => {
                self.let_go(&ended.run);
                let outcome = match ended.outcome {
                    Ok(outcome) => outcome,
                    Err(source) => return Err(SagaError::NotEnded { run: ended.run, source }),
                };
                self.driver.pass(Point::AfterRun(&ended.run))?;
                Input::Finished { run: ended.run, outcome }
            }
            Woken::Asked(ask) => return self.take_ask(ask, moment),
        };
        machine::accept(&mut self.state, input, moment).map_err(|e| error(&self.live.id, e))
    }

    fn take_ask(&mut self, ask: Ask, moment: Moment) -> Result<Turn, SagaError> {
        match machine::accept(&mut self.state, Input::Command(*ask.command), moment) {
            Ok(turn) => {
                self.replies.push(ask.reply);
                Ok(turn)
            }
            Err(refused @ StepError::Refused(_)) => {
                let _gone = ask.reply.send(Err(error(&self.live.id, refused)));
                Ok(Turn::default())
            }
            Err(illegal) => Err(error(&self.live.id, illegal)),
        }
    }
}

/// Waits until then, or for ever.
async fn waited(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// A run's end; a panic in the caller's `Steps` goes on in the driver's own task, where the caller sees it.
fn unpanicked(joined: Result<Ended, JoinError>) -> Ended {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
