//! Performs an experiment: takes the machine's actions to the target, the journal and a guardian, and the answers back.
//!
//! One action at a time. Every one has a limit, so that whatever hangs, the machine moves on and the fault is undone; a
//! limit on doing is safe because a target's futures change nothing once dropped. If this future itself is dropped, the
//! guardian's pipe closes and the guardian undoes.

use std::future::{self, Future};
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::chain;
use crate::experiment::{Action, Event, Experiment};
use crate::guardian::{ArmedGuardian, Guardians};
use crate::interlock::Refusal;
use crate::journal::Journal;
use crate::plan::Plan;
use crate::report::{Moment, Report};
use crate::target::{Missing, Need, Target, TargetError};
use crate::undo::{BootId, Outcome, RunId};

/// For checking the host, preparing and injecting.
pub const TARGET_LIMIT: Duration = Duration::from_secs(5);
/// For one observation.
pub const OBSERVE_LIMIT: Duration = Duration::from_secs(2);
/// For one durable record.
pub const JOURNAL_LIMIT: Duration = Duration::from_secs(5);
/// For anything asked of a guardian; its own limits are shorter.
pub const GUARDIAN_LIMIT: Duration = Duration::from_secs(15);
/// For one attempt to undo.
pub const UNDO_LIMIT: Duration = Duration::from_secs(5);

/// What an experiment is run with.
#[derive(Debug)]
pub struct Stage<'a, T, J, G> {
    /// The agent.
    pub target: &'a T,
    /// Where undos are kept.
    pub journal: &'a J,
    /// Who undoes when this process can't.
    pub guardians: &'a G,
    /// The present boot ([`crate::kernel::boot_id`]).
    pub boot: BootId,
}

/// The operator's way to break an experiment off, and the experiment's ear for it.
///
/// Dropping the sender breaks nothing off.
pub fn abort_switch() -> (AbortSwitch, AbortEar) {
    let (sender, receiver) = watch::channel(None);
    (AbortSwitch(sender), AbortEar(receiver))
}

/// Breaks an experiment off.
#[derive(Debug)]
pub struct AbortSwitch(watch::Sender<Option<String>>);

/// Hears that an experiment is to be broken off.
#[derive(Debug)]
pub struct AbortEar(watch::Receiver<Option<String>>);

impl AbortSwitch {
    /// Breaks it off, whatever it is doing; it is undone first. Later calls change nothing.
    pub fn abort(&self, reason: impl Into<String>) {
        self.0.send_if_modified(|now| {
            let is_first = now.is_none();
            if is_first {
                *now = Some(reason.into());
            }
            is_first
        });
    }
}

impl AbortEar {
    async fn heard(&mut self) -> String {
        let reason = self.0.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The switch is gone without having been used.
            None => future::pending().await,
        }
    }
}

/// The answer to an action, and the guardian that came with it.
struct Answer<A> {
    event: Event,
    armed: Option<A>,
}

type UnderWay<'a, A> = Pin<Box<dyn Future<Output = Answer<A>> + Send + 'a>>;

/// Runs an experiment to its end and returns the report. `on_moment` hears each line of the timeline as it is written.
pub async fn run<T: Target, J: Journal, G: Guardians>(
    plan: Plan,
    run: RunId,
    stage: Stage<'_, T, J, G>,
    mut abort: AbortEar,
    mut on_moment: impl FnMut(&Moment) + Send,
) -> Report {
    let origin = now();
    let mut machine = Experiment::new(plan, run, stage.boot.clone());
    let mut armed: Option<G::Armed> = None;
    let mut under_way: Option<UnderWay<'_, G::Armed>> = None;
    let mut is_aborted = false;
    let mut told = 0;
    let mut event = Event::Start;
    loop {
        let action = machine.step(event, now() - origin);
        for moment in &machine.timeline()[told..] {
            on_moment(moment);
        }
        told = machine.timeline().len();
        match action {
            Some(Action::Finish) => break,
            // Only looking is ever given up for something else: see `experiment`.
            Some(action) => under_way = Some(begin(action, &stage, &mut armed)),
            None => {}
        }
        let wake = machine.wake();
        event = tokio::select! {
            biased;
            reason = abort.heard(), if !is_aborted => {
                is_aborted = true;
                Event::Abort(reason)
            }
            how = ended(&mut armed) => {
                armed = None;
                Event::GuardianEnded(how)
            }
            answer = answered(&mut under_way) => {
                under_way = None;
                if answer.armed.is_some() {
                    armed = answer.armed;
                }
                answer.event
            }
            () = sleep_until(origin + wake.unwrap_or_default()), if wake.is_some() => Event::Tick,
        };
    }
    machine.report().expect("the machine says Finish only when it has ended")
}

async fn ended<A: ArmedGuardian>(armed: &mut Option<A>) -> String {
    match armed {
        Some(armed) => armed.ended().await,
        None => future::pending().await,
    }
}

async fn answered<A>(under_way: &mut Option<UnderWay<'_, A>>) -> Answer<A> {
    match under_way {
        Some(under_way) => under_way.await,
        None => future::pending().await,
    }
}

fn begin<'a, T: Target, J: Journal, G: Guardians>(
    action: Action,
    stage: &Stage<'a, T, J, G>,
    armed: &mut Option<G::Armed>,
) -> UnderWay<'a, G::Armed>
where
    G::Armed: 'a,
{
    let &Stage { target, journal, guardians, .. } = stage;
    match action {
        Action::ArmGuardian { undo, within } => Box::pin(async move {
            let failed = |why| Answer { event: Event::GuardianFailed(why), armed: None };
            match timeout(GUARDIAN_LIMIT, guardians.arm(&undo, within)).await {
                Ok(Ok(guardian)) => Answer { event: Event::GuardianArmed, armed: Some(guardian) },
                Ok(Err(error)) => failed(chain(&error)),
                Err(_) => failed(TargetError::TimedOut(GUARDIAN_LIMIT).to_string()),
            }
        }),
        Action::DisarmGuardian => {
            let guardian = armed.take();
            plain(async move {
                // A guardian that can't be disarmed undoes what is undone already.
                if let Some(guardian) = guardian {
                    let _ = timeout(GUARDIAN_LIMIT, guardian.disarm()).await;
                }
                Event::Disarmed
            })
        }
        Action::UndoByGuardian => {
            let guardian = armed.take();
            plain(async move { undo_by_guardian(guardian).await })
        }
        Action::Journal(entry) => plain(async move {
            match timeout(JOURNAL_LIMIT, journal.record(&entry)).await {
                Ok(Ok(())) => Event::Journaled,
                Ok(Err(error)) => Event::JournalFailed(chain(&error)),
                Err(_) => Event::JournalFailed(TargetError::TimedOut(JOURNAL_LIMIT).to_string()),
            }
        }),
        Action::CheckHost(needs) => plain(async move {
            match timeout(TARGET_LIMIT, target.missing(&needs)).await {
                Ok(missing) => Event::HostChecked(missing),
                Err(_) => Event::HostChecked(needs.into_iter().map(unanswered).collect()),
            }
        }),
        Action::Observe { look_back } => plain(async move {
            match within(OBSERVE_LIMIT, target.observe(look_back)).await {
                Ok(observation) => Event::Observed(Box::new(observation)),
                Err(error) => Event::ObserveFailed(chain(&error)),
            }
        }),
        Action::Prepare(acts) => plain(async move {
            match within(TARGET_LIMIT, target.prepare(&acts)).await {
                Ok(entries) => Event::Prepared(entries),
                Err(TargetError::Refused(refusal)) => Event::PrepareRefused(refusal),
                Err(error) => Event::PrepareRefused(Refusal::Target { reason: chain(&error) }),
            }
        }),
        Action::Inject(acts) => plain(async move {
            match within(TARGET_LIMIT, target.perform(&acts)).await {
                Ok(()) => Event::Injected,
                Err(error) => Event::InjectFailed(chain(&error)),
            }
        }),
        Action::Undo(undo) => plain(async move {
            match within(UNDO_LIMIT, target.undo(&undo)).await {
                Ok(()) => Event::Undone,
                Err(error) => Event::UndoFailed(chain(&error)),
            }
        }),
        // The loop ends at this one before it gets here.
        Action::Finish => Box::pin(future::pending()),
    }
}

fn plain<'a, A: 'a>(event: impl Future<Output = Event> + Send + 'a) -> UnderWay<'a, A> {
    Box::pin(async move { Answer { event: event.await, armed: None } })
}

async fn within<A>(limit: Duration, doing: impl Future<Output = Result<A, TargetError>>) -> Result<A, TargetError> {
    timeout(limit, doing).await.unwrap_or(Err(TargetError::TimedOut(limit)))
}

fn unanswered(need: Need) -> Missing {
    Missing { need, reason: TargetError::TimedOut(TARGET_LIMIT).to_string() }
}

async fn undo_by_guardian<A: ArmedGuardian>(guardian: Option<A>) -> Event {
    let Some(guardian) = guardian else {
        return Event::UndoFailed("the target can't undo it, and the guardian is gone".to_owned());
    };
    match timeout(GUARDIAN_LIMIT, guardian.undo_now()).await {
        Ok(Ok(outcomes)) if outcomes.iter().all(Outcome::is_settled) => Event::Undone,
        Ok(Ok(outcomes)) => {
            let left: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_settled()).collect();
            Event::UndoFailed(format!("the guardian left {} of {} undone: {left:?}", left.len(), outcomes.len()))
        }
        Ok(Err(error)) => Event::UndoFailed(chain(&error)),
        Err(_) => Event::UndoFailed(TargetError::TimedOut(GUARDIAN_LIMIT).to_string()),
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the driver is the one who reads the clock for the machine")]
    Instant::now()
}

#[cfg(test)]
mod tests;
