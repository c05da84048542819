//! The life of one agent: one pure transition function.
//!
//! ```text
//!            launch              started                  exit (tree gone)
//!  Idle ------------> Starting ----------> Running ---------------------------> Ended
//!    ^                   |                   | stop        | kill / limits        |
//!    |                   | failed            v             v                      | restart rule
//!    |                   +-----> Ended    Stopping ----> Killing ----> Ended      v
//!    +------------------------------- Backoff <------------------------------ Ended
//! ```
//!
//! Killed agents stay dead until `Revive`. Every state carries what it needs and nothing that another state would.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ended::cause;
pub use super::ended::{Conclusion, Ended};
pub use super::health::Health;
use super::restart::Policy;
pub use super::rules::Rules;

/// Milliseconds on a clock that never goes backwards (the driver's own, since its start).
pub type Now = u64;

/// Why an agent is dead. Told apart everywhere it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Death {
    /// It exited by itself.
    Exit {
        /// Its exit code.
        code: i32,
    },
    /// A signal that nobody here sent ended it.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel ended it at its memory limit.
    MemoryLimit,
    /// It ran longer than `timeouts.run`.
    TimeLimit,
    /// Its health check failed too often.
    Unhealthy,
    /// The kill switch.
    Killed {
        /// Why, one of the reasons of the kill switch.
        reason: String,
    },
    /// It was stopped in order.
    Stopped {
        /// Its own exit code, 128+n when a signal ended it.
        code: i32,
    },
    /// It could not be started.
    LaunchFailed {
        /// What went wrong.
        error: String,
        /// The exit code for it: 126, 127, 69, ...
        code: u8,
    },
    /// The tree was ended from outside, nobody here knows by whom.
    Taken,
}

impl Death {
    /// Whether a restart rule sees this as a failure.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !matches!(self, Death::Exit { code: 0 } | Death::Stopped { .. })
    }

    /// The death of one that an operator wants stopped: nothing restarts it.
    fn asked_for(self) -> Death {
        if matches!(self, Death::Killed { .. }) { self } else { Death::Stopped { code: 0 } }
    }

    /// A stop passes on how the agent ended; every other cause stands by itself.
    fn with_status(self, ended: &Ended) -> Death {
        match (self, ended) {
            (Death::Stopped { .. }, Ended::Exit(code)) => Death::Stopped { code: *code },
            (Death::Stopped { .. }, Ended::Signal(signal)) => Death::Stopped { code: 128 + signal },
            (Death::Stopped { .. }, Ended::OutOfMemory | Ended::Taken) => Death::Stopped { code: 128 + 9 },
            (death, _) => death,
        }
    }

    /// The exit code of `run` for it, as the table of exit codes has it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let own = |code: i32| u8::try_from(code & 0xff).unwrap_or(1);
        match self {
            Death::Exit { code } | Death::Stopped { code } => own(*code),
            Death::Signal { signal } => own(128 + signal),
            Death::MemoryLimit | Death::Taken => 137,
            Death::TimeLimit => 124,
            Death::Unhealthy => 1,
            Death::Killed { .. } => 76,
            Death::LaunchFailed { code, .. } => *code,
        }
    }

    /// The word that tables and metrics use.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Death::Exit { .. } => "exit",
            Death::Signal { .. } => "signal",
            Death::MemoryLimit => "memory_limit",
            Death::TimeLimit => "time_limit",
            Death::Unhealthy => "unhealthy",
            Death::Killed { .. } => "killed",
            Death::Stopped { .. } => "stopped",
            Death::LaunchFailed { .. } => "launch_failed",
            Death::Taken => "taken",
        }
    }
}

/// Where an agent is in its life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Known, never started.
    Idle,
    /// The launcher is at work.
    Starting,
    /// The program runs.
    Running {
        /// Since when.
        since: Now,
        /// Health checks failed in a row.
        unhealthy: u32,
    },
    /// Asked to stop; the grace runs.
    Stopping {
        /// What it will have died of.
        death: Death,
    },
    /// Its tree is being ended.
    Killing {
        /// What it will have died of.
        death: Death,
    },
    /// Dead, to be started again.
    Backoff {
        /// What it died of.
        death: Death,
        /// Which restart comes next, from 1.
        attempt: u32,
    },
    /// Dead for good.
    Ended {
        /// What it died of.
        death: Death,
        /// It was restarted too often and given up.
        gave_up: GaveUp,
    },
}

/// Whether restarts ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GaveUp {
    /// No.
    No,
    /// Yes: the rule allowed no more.
    Yes,
}

/// Everything that can happen to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Start it.
    Launch,
    /// The program was executed.
    Started,
    /// The launch failed.
    LaunchFailed {
        /// What went wrong.
        error: String,
        /// The exit code for it.
        code: u8,
    },
    /// The main process ended and the tree with it.
    Ended(Ended),
    /// Stop in order.
    Stop,
    /// End the tree now.
    Kill {
        /// Why.
        reason: String,
    },
    /// The grace of a stop is over.
    GraceOver,
    /// `timeouts.run` is over.
    RunTimeOver,
    /// The backoff is over.
    BackoffOver,
    /// A health check's result.
    Health(Health),
    /// An operator lets a dead agent live again.
    Revive,
}

/// Timers of one agent; arming one again replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The grace of a stop.
    Grace,
    /// `timeouts.run`.
    Run,
    /// The delay before a restart.
    Backoff,
}

/// What the driver must do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Launch the plan.
    Launch,
    /// Ask the main process to end (SIGTERM).
    Terminate,
    /// End the whole tree and verify.
    KillTree,
    /// Arm a timer.
    Arm(Timer, Duration),
    /// Disarm every timer.
    DisarmAll,
    /// Tell whoever watches that it runs.
    Announce,
    /// Tell whoever watches that it died, and whether it comes back.
    Bury {
        /// What it died of.
        death: Death,
        /// The delay until it comes back.
        again_in: Option<Duration>,
    },
}

/// One agent's machine.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    rules: Rules,
    state: State,
    /// Restarts in the present window, and when the window began.
    restarts: u32,
    window_began: Now,
}

impl Lifecycle {
    /// A known agent that was never started.
    #[must_use]
    pub fn new(rules: Rules) -> Lifecycle {
        Lifecycle { rules, state: State::Idle, restarts: 0, window_began: 0 }
    }

    /// Where it is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Other rules, from now on: what is running runs on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// How often it was restarted in the present window.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The one transition function. `draw` is uniform in 0..1, for the jitter. Events that mean nothing in a state change
    /// nothing: they are late (a timer that fired while its agent died), never wrong.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Now, draw: f64) -> Vec<Action> {
        match (self.state.clone(), event) {
            (State::Ended { death: Death::Killed { .. }, .. }, Event::Launch) => Vec::new(),
            (State::Idle | State::Ended { .. }, Event::Launch | Event::Revive) => {
                self.restarts = 0;
                self.window_began = now;
                self.start()
            }
            (State::Backoff { .. }, Event::BackoffOver | Event::Revive) => self.start(),
            (State::Starting, Event::Started) => {
                self.state = State::Running { since: now, unhealthy: 0 };
                let limit = self.rules.run_timeout.map(|limit| Action::Arm(Timer::Run, limit));
                limit.into_iter().chain([Action::Announce]).collect()
            }
            (State::Starting, Event::LaunchFailed { error, code }) => {
                self.end(Death::LaunchFailed { error, code }, now, draw)
            }
            // A stop or kill that came while the launcher worked takes effect on what it made.
            (State::Stopping { .. }, Event::Started) => vec![Action::Terminate],
            (State::Killing { .. }, Event::Started) => vec![Action::KillTree],
            (State::Stopping { death } | State::Killing { death }, Event::LaunchFailed { .. }) => {
                self.end(death, now, draw)
            }
            (State::Stopping { death } | State::Killing { death }, Event::Ended(ended)) => {
                self.end(death.with_status(&ended), now, draw)
            }
            (State::Running { .. }, Event::Ended(ended)) => self.end(cause(&ended), now, draw),
            (State::Starting | State::Running { .. }, Event::Stop) => self.terminate(Death::Stopped { code: 0 }),
            (State::Running { .. }, Event::RunTimeOver) => self.terminate(Death::TimeLimit),
            (State::Running { since, unhealthy }, Event::Health(health)) => self.health(since, unhealthy, health),
            (State::Stopping { death }, Event::GraceOver) => self.kill(death),
            // Asked for while a rule of ours is ending it: it must not come back by its restart rule.
            (State::Stopping { death }, Event::Stop) => self.kill(death.asked_for()),
            (State::Killing { death }, Event::Stop) => {
                self.state = State::Killing { death: death.asked_for() };
                Vec::new()
            }
            (
                State::Starting | State::Running { .. } | State::Stopping { .. } | State::Killing { .. },
                Event::Kill { reason },
            ) => self.kill(Death::Killed { reason }),
            (State::Backoff { death, .. }, Event::Stop) => self.rest(death),
            (State::Backoff { .. } | State::Idle, Event::Kill { reason }) => self.rest(Death::Killed { reason }),
            // Nothing ran, so nothing dies; but it stays dead from now on.
            (State::Ended { .. }, Event::Kill { reason }) => {
                self.state = State::Ended { death: Death::Killed { reason }, gave_up: GaveUp::No };
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Action> {
        self.state = State::Starting;
        vec![Action::DisarmAll, Action::Launch]
    }

    fn terminate(&mut self, death: Death) -> Vec<Action> {
        self.state = State::Stopping { death };
        vec![Action::DisarmAll, Action::Terminate, Action::Arm(Timer::Grace, self.rules.stop_grace)]
    }

    fn kill(&mut self, death: Death) -> Vec<Action> {
        self.state = State::Killing { death };
        vec![Action::DisarmAll, Action::KillTree]
    }

    fn rest(&mut self, death: Death) -> Vec<Action> {
        self.state = State::Ended { death: death.clone(), gave_up: GaveUp::No };
        vec![Action::DisarmAll, Action::Bury { death, again_in: None }]
    }

    fn health(&mut self, since: Now, unhealthy: u32, health: Health) -> Vec<Action> {
        let unhealthy = if health == Health::Good { 0 } else { unhealthy + 1 };
        if unhealthy >= self.rules.health_retries || health == Health::NeverGood {
            return self.terminate(Death::Unhealthy);
        }
        self.state = State::Running { since, unhealthy };
        Vec::new()
    }

    fn end(&mut self, death: Death, now: Now, draw: f64) -> Vec<Action> {
        let restart = &self.rules.restart;
        let asked_for = matches!(death, Death::Stopped { .. } | Death::Killed { .. });
        let wanted = match restart.policy {
            Policy::Never => false,
            Policy::OnFailure => death.is_failure(),
            Policy::Always => true,
        };
        if asked_for || !wanted {
            return self.rest(death);
        }
        if now.saturating_sub(self.window_began) > u64::try_from(restart.window.as_millis()).unwrap_or(u64::MAX) {
            self.restarts = 0;
            self.window_began = now;
        }
        if self.restarts >= restart.attempts {
            self.state = State::Ended { death: death.clone(), gave_up: GaveUp::Yes };
            return vec![Action::DisarmAll, Action::Bury { death, again_in: None }];
        }
        self.restarts += 1;
        let delay = restart.delay(self.restarts, draw);
        self.state = State::Backoff { death: death.clone(), attempt: self.restarts };
        vec![Action::DisarmAll, Action::Bury { death, again_in: Some(delay) }, Action::Arm(Timer::Backoff, delay)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::restart::Restart;
    use super::*;

    fn running(restart: Policy) -> Lifecycle {
        let rules =
            Rules { restart: Restart { policy: restart, attempts: 2, ..Restart::default() }, ..Rules::default() };
        let mut life = Lifecycle::new(rules);
        assert_eq!(life.step(Event::Launch, 0, 0.5), [Action::DisarmAll, Action::Launch]);
        assert_eq!(life.step(Event::Started, 1, 0.5), [Action::Announce]);
        life
    }

    #[test]
    fn a_stop_terminates_then_kills_when_the_grace_is_over() {
        let mut life = running(Policy::Always);
        assert!(life.step(Event::Stop, 2, 0.5).contains(&Action::Terminate));
        assert!(life.step(Event::GraceOver, 3, 0.5).contains(&Action::KillTree));
        let end = life.step(Event::Ended(Ended::Signal(9)), 4, 0.5);
        assert!(end.contains(&Action::Bury { death: Death::Stopped { code: 137 }, again_in: None }), "{end:?}");
    }

    #[test]
    fn a_stop_while_the_launcher_works_has_its_grace_too() {
        let mut life = Lifecycle::new(running(Policy::Always).rules);
        let _ = life.step(Event::Launch, 0, 0.5);
        assert!(!life.step(Event::Stop, 1, 0.5).contains(&Action::KillTree));
        assert_eq!(life.step(Event::Started, 2, 0.5), [Action::Terminate]);
        assert!(life.step(Event::GraceOver, 3, 0.5).contains(&Action::KillTree));
        let end = life.step(Event::Ended(Ended::Signal(9)), 4, 0.5);
        assert!(end.contains(&Action::Bury { death: Death::Stopped { code: 137 }, again_in: None }), "{end:?}");
    }

    #[test]
    fn a_killed_agent_stays_dead_until_it_is_revived() {
        let mut life = running(Policy::Always);
        assert!(life.step(Event::Kill { reason: "manual".into() }, 2, 0.5).contains(&Action::KillTree));
        let _ = life.step(Event::Ended(Ended::Taken), 3, 0.5);
        assert!(matches!(life.state(), State::Ended { death: Death::Killed { .. }, .. }));
        assert!(life.step(Event::BackoffOver, 4, 0.5).is_empty());
        assert_eq!(life.step(Event::Revive, 5, 0.5), [Action::DisarmAll, Action::Launch]);
    }

    #[test]
    fn no_launch_brings_a_killed_agent_back_and_killing_the_dead_buries_nobody() {
        let mut life = running(Policy::Always);
        let _ = life.step(Event::Stop, 2, 0.5);
        let _ = life.step(Event::Ended(Ended::Exit(0)), 3, 0.5);
        assert_eq!(life.step(Event::Kill { reason: "manual".into() }, 4, 0.5), []);
        assert!(matches!(life.state(), State::Ended { death: Death::Killed { .. }, .. }));
        assert_eq!(life.step(Event::Launch, 5, 0.5), []);
        assert_eq!(life.step(Event::Revive, 6, 0.5), [Action::DisarmAll, Action::Launch]);
    }

    #[test]
    fn a_kill_during_the_launch_takes_what_the_launcher_made() {
        let mut life = Lifecycle::new(Rules::default());
        let _ = life.step(Event::Launch, 0, 0.5);
        assert!(life.step(Event::Kill { reason: "manual".into() }, 1, 0.5).contains(&Action::KillTree));
        assert_eq!(life.step(Event::Started, 2, 0.5), [Action::KillTree]);
        let _ = life.step(Event::Ended(Ended::Taken), 3, 0.5);
        assert!(matches!(life.state(), State::Ended { death: Death::Killed { .. }, .. }));
    }

    #[test]
    fn restarts_run_out_loudly_and_a_long_life_forgives() {
        let mut life = running(Policy::OnFailure);
        for attempt in 1..=2 {
            let end = life.step(Event::Ended(Ended::Exit(1)), 10, 0.5);
            assert!(matches!(end.last(), Some(Action::Arm(Timer::Backoff, _))), "attempt {attempt}: {end:?}");
            let _ = life.step(Event::BackoffOver, 11, 0.5);
            let _ = life.step(Event::Started, 12, 0.5);
        }
        let mut exhausted = life.clone();
        let _ = exhausted.step(Event::Ended(Ended::Exit(1)), 13, 0.5);
        assert!(matches!(exhausted.state(), State::Ended { gave_up: GaveUp::Yes, .. }));
        let _ = life.step(Event::Ended(Ended::Exit(1)), 10_000_000, 0.5);
        assert!(matches!(life.state(), State::Backoff { attempt: 1, .. }));
    }

    #[test]
    fn a_clean_exit_is_no_failure() {
        let mut life = running(Policy::OnFailure);
        let _ = life.step(Event::Ended(Ended::Exit(0)), 2, 0.5);
        assert!(matches!(life.state(), State::Ended { death: Death::Exit { code: 0 }, .. }));
    }

    #[test]
    fn a_stop_wins_over_an_end_that_a_restart_would_follow() {
        for second in [Event::Stop, Event::GraceOver] {
            let mut life = running(Policy::Always);
            assert!(life.step(Event::Health(Health::NeverGood), 2, 0.5).contains(&Action::Terminate));
            let _ = life.step(second, 3, 0.5);
            let _ = life.step(Event::Stop, 4, 0.5);
            let end = life.step(Event::Ended(Ended::Signal(9)), 5, 0.5);
            assert!(end.contains(&Action::Bury { death: Death::Stopped { code: 137 }, again_in: None }), "{end:?}");
        }
    }

    #[test]
    fn health_failures_in_a_row_end_it_and_a_good_one_forgives() {
        let mut life = running(Policy::Never);
        for health in [Health::Bad, Health::Bad, Health::Good, Health::Bad, Health::Bad] {
            assert!(life.step(Event::Health(health), 2, 0.5).is_empty());
        }
        assert!(life.step(Event::Health(Health::Bad), 3, 0.5).contains(&Action::Terminate));
    }
}
