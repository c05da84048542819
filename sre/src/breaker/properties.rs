//! The breaker against a model that keeps every call in a list and works everything out anew.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::json;
use crate::ratio::Ratio;

const START: u64 = 1_700_000_000_000;

#[derive(Debug, Clone)]
enum Op {
    Acquire,
    Finish { which: usize, failed: bool, slow: bool },
    Drop { which: usize },
    Wait { millis: u64 },
    Trip,
    ForceOpen,
    Disable,
    Reset,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => Just(Op::Acquire),
        25 => (any::<usize>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(which, failed, slow)| Op::Finish { which, failed, slow }),
        5 => any::<usize>().prop_map(|which| Op::Drop { which }),
        15 => (0u64..3_000).prop_map(|millis| Op::Wait { millis }),
        3 => (10_000u64..100_000).prop_map(|millis| Op::Wait { millis }),
        1 => Just(Op::Trip),
        1 => Just(Op::ForceOpen),
        1 => Just(Op::Disable),
        2 => Just(Op::Reset),
        1 => Just(Op::Restart),
    ]
}

#[derive(Debug, Clone, PartialEq)]
enum Spell {
    Closed,
    Open { until: u64 },
    HalfOpen { last_probe: u64 },
    ForcedOpen,
    Disabled,
}

/// One permit as the model sees it: in which spell it was given.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Given {
    spell: usize,
}

/// Every spell has a number; every finished call of the current spell stands in a list.
struct Model {
    settings: BreakerSettings,
    spell: Spell,
    number: usize,
    calls: Vec<(u64, bool, bool)>,
    out: Vec<Given>,
    streak: u32,
    closed: Option<(u64, u64)>,
}

impl Model {
    fn enter(&mut self, spell: Spell) {
        self.spell = spell;
        self.number += 1;
        self.calls.clear();
    }

    fn interval(&self, streak: u32) -> u64 {
        let mut interval = self.settings.open_for;
        for _ in 1..streak {
            interval = (interval * 2).min(self.settings.open_for_most);
        }
        u64::try_from(interval.as_millis()).unwrap()
    }

    fn open(&mut self, now: u64) -> u64 {
        let lasting = self.closed.take().is_some_and(|(since, was_open)| now - since >= was_open);
        self.streak = if lasting { 1 } else { self.streak + 1 };
        let until = now + self.interval(self.streak);
        self.enter(Spell::Open { until });
        until
    }

    fn acquire(&mut self, now: u64) -> bool {
        if let Spell::Open { until } = self.spell
            && now >= until
        {
            self.enter(Spell::HalfOpen { last_probe: now });
        }
        let passes = match self.spell {
            Spell::Closed | Spell::Disabled => true,
            Spell::Open { .. } | Spell::ForcedOpen => false,
            Spell::HalfOpen { last_probe } => {
                let out = self.out.iter().filter(|given| given.spell == self.number).count();
                let passes = out + self.calls.len() < self.settings.probes as usize;
                if passes {
                    self.spell = Spell::HalfOpen { last_probe: now };
                } else if now >= last_probe + u64::try_from(self.settings.probe_timeout.as_millis()).unwrap() {
                    self.open(now);
                }
                passes
            }
        };
        if passes {
            self.out.push(Given { spell: self.number });
        }
        passes
    }

    fn over(&self, of: usize, calls: &[&(u64, bool, bool)]) -> bool {
        let failed = calls.iter().filter(|call| call.1).count() as f64;
        let slow = calls.iter().filter(|call| call.2).count() as f64;
        let slow_limit = self.settings.slow_calls.unwrap().rate.as_f64();
        of > 0 && (failed / of as f64 >= self.settings.failure_rate.as_f64() || slow / of as f64 >= slow_limit)
    }

    fn finish(&mut self, given: Given, failed: bool, slow: bool, now: u64) {
        if given.spell != self.number {
            return;
        }
        self.calls.push((now, failed, slow));
        match self.spell {
            Spell::Closed => {
                let inside: Vec<_> = match self.settings.window {
                    CallWindow::Calls(most) => self.calls.iter().rev().take(most as usize).collect(),
                    CallWindow::Time(length) => {
                        let width = u64::try_from(length.as_millis()).unwrap().div_ceil(30);
                        self.calls.iter().filter(|call| call.0 / width + 30 >= now / width).collect()
                    }
                };
                if inside.len() >= self.settings.minimum_calls as usize && self.over(inside.len(), &inside) {
                    self.open(now);
                }
            }
            Spell::HalfOpen { .. } => {
                let all: Vec<_> = self.calls.iter().collect();
                let probes = self.settings.probes as usize;
                if self.over(probes, &all) {
                    self.open(now);
                } else if all.len() == probes {
                    self.closed = Some((now, self.interval(self.streak)));
                    self.enter(Spell::Closed);
                }
            }
            Spell::Open { .. } | Spell::ForcedOpen | Spell::Disabled => {}
        }
    }

    fn state(&self, now: u64) -> BreakerState {
        match self.spell {
            Spell::Closed => BreakerState::Closed,
            Spell::Open { until } if now < until => BreakerState::Open { until: Timestamp::from_millis(until) },
            Spell::Open { .. } | Spell::HalfOpen { .. } => BreakerState::HalfOpen,
            Spell::ForcedOpen => BreakerState::ForcedOpen,
            Spell::Disabled => BreakerState::Disabled,
        }
    }
}

fn settings(window: CallWindow, minimum_calls: u32, probes: u32) -> BreakerSettings {
    BreakerSettings {
        window,
        minimum_calls,
        failure_rate: Ratio::percent(50),
        slow_calls: Some(SlowCalls { longer_than: Duration::from_secs(1), rate: Ratio::percent(75) }),
        open_for: Duration::from_secs(5),
        open_for_most: Duration::from_secs(30),
        jitter: Ratio::ZERO,
        probes,
        probe_timeout: Duration::from_secs(20),
    }
}

fn run(settings: BreakerSettings, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut breaker = Breaker::new(settings.clone()).unwrap();
    let mut model = Model {
        settings: settings.clone(),
        spell: Spell::Closed,
        number: 0,
        calls: vec![],
        out: vec![],
        streak: 0,
        closed: None,
    };
    let mut permits: Vec<Permit> = vec![];
    let mut now = START;
    for op in ops {
        let time = Timestamp::from_millis(now);
        match op {
            Op::Acquire => {
                let permit = breaker.acquire(time);
                prop_assert_eq!(permit.is_ok(), model.acquire(now));
                permits.extend(permit);
            }
            Op::Finish { which, failed, slow } if !permits.is_empty() => {
                let which = which % permits.len();
                let outcome = if failed { CallOutcome::Failed } else { CallOutcome::Ok };
                let took = Duration::from_secs(if slow { 2 } else { 0 });
                let _ = breaker.finish(permits.remove(which), outcome, took, time, Jitter::NONE);
                let given = model.out.remove(which);
                model.finish(given, failed, slow, now);
            }
            Op::Drop { which } if !permits.is_empty() => {
                let which = which % permits.len();
                drop(permits.remove(which));
                model.out.remove(which);
            }
            Op::Finish { .. } | Op::Drop { .. } => {}
            Op::Wait { millis } => now += millis,
            Op::Trip => {
                let until = breaker.trip(time, Jitter::NONE);
                let expected = match model.spell {
                    Spell::ForcedOpen | Spell::Disabled => None,
                    Spell::Open { until: before } => {
                        let until = model.open(now).max(before);
                        model.spell = Spell::Open { until };
                        Some(until)
                    }
                    _ => Some(model.open(now)),
                };
                prop_assert_eq!(until.map(Timestamp::as_millis), expected);
            }
            Op::ForceOpen => {
                breaker.force_open();
                model.enter(Spell::ForcedOpen);
            }
            Op::Disable => {
                breaker.disable();
                model.enter(Spell::Disabled);
            }
            Op::Reset => {
                breaker.reset();
                model.enter(Spell::Closed);
                (model.streak, model.closed) = (0, None);
            }
            Op::Restart => {
                // Everybody who held a permit is gone; a half-open spell begins anew with its next call.
                permits.clear();
                model.out.clear();
                if let Spell::HalfOpen { .. } = model.spell {
                    model.enter(Spell::Open { until: now });
                }
                let stored = json::write(&breaker.snapshot());
                breaker = Breaker::restore(settings.clone(), &json::read(&stored).unwrap(), time).unwrap();
            }
        }
        prop_assert_eq!(breaker.state(Timestamp::from_millis(now)), model.state(now));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_breaker_over_counted_calls_does_what_the_model_does(
        most in 1u32..12, minimum in 1u32..12, probes in 1u32..5, ops in prop::collection::vec(op(), 0..400),
    ) {
        run(settings(CallWindow::Calls(most), minimum.min(most), probes), ops)?;
    }

    #[test]
    fn a_breaker_over_time_does_what_the_model_does(
        length in 1_000u64..60_000, minimum in 1u32..12, probes in 1u32..5, ops in prop::collection::vec(op(), 0..400),
    ) {
        run(settings(CallWindow::Time(Duration::from_millis(length)), minimum, probes), ops)?;
    }
}
