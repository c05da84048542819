//! When a breaker opens, for how long, and what it takes to close it again; and how much of a fleet may be out at once.

use std::time::Duration;

use super::Jitter;
use super::calls::Rates;
use crate::error::Error;
use crate::ratio::Ratio;

/// The most calls that a count window keeps.
pub(super) const MOST_WINDOW_CALLS: u32 = 10_000;
/// The most probes of one half-open spell.
pub(super) const MOST_PROBES: u32 = 1_000;
/// The longest of all spans here.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const WHAT: &str = "breaker";

/// Which calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallWindow {
    /// The last so many.
    Calls(u32),
    /// Those of the last so long.
    Time(Duration),
}

/// When a call is slow, and how many may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowCalls {
    /// A call that takes longer than this is slow.
    pub longer_than: Duration,
    /// This share of slow calls opens the breaker.
    pub rate: Ratio,
}

/// All settings of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Which calls count.
    pub window: CallWindow,
    /// Calls in the window before anything is concluded.
    pub minimum_calls: u32,
    /// This share of failed calls opens it.
    pub failure_rate: Ratio,
    /// The same for slow calls; none: calls may take as long as they like.
    pub slow_calls: Option<SlowCalls>,
    /// How long it stays open the first time; each opening in a row doubles it...
    pub open_for: Duration,
    /// ...up to this.
    pub open_for_most: Duration,
    /// Up to this share of the interval is added, by the caller's jitter.
    pub jitter: Ratio,
    /// Calls let through when half-open. It closes when all of them are in and within the limits.
    pub probes: u32,
    /// How long a probe may take before a half-open breaker that waits for it opens again.
    pub probe_timeout: Duration,
}

impl Default for BreakerSettings {
    /// resilience4j's defaults where it has one (100 calls, half of them failed), shorter where an agent's calls are
    /// fewer and dearer: ten calls to judge, three probes, open for 30 s up to 10 min.
    fn default() -> Self {
        Self {
            window: CallWindow::Calls(100),
            minimum_calls: 10,
            failure_rate: Ratio::percent(50),
            slow_calls: None,
            open_for: Duration::from_secs(30),
            open_for_most: Duration::from_secs(600),
            jitter: Ratio::percent(10),
            probes: 3,
            probe_timeout: Duration::from_secs(60),
        }
    }
}

impl BreakerSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |field, problem| Err(Error::Settings { what: WHAT, field, problem });
        let span = |span: Duration| (Duration::from_millis(1)..=LONGEST).contains(&span);
        match self.window {
            CallWindow::Calls(calls) if !(1..=MOST_WINDOW_CALLS).contains(&calls) => {
                return refuse("window", "must be 1 to 10000 calls");
            }
            CallWindow::Calls(calls) if self.minimum_calls > calls => {
                return refuse("minimum_calls", "is more than the window holds: it could never open");
            }
            CallWindow::Time(length) if !span(length) => return refuse("window", "must be 1 ms to 7 days"),
            _ => {}
        }
        if self.minimum_calls == 0 {
            return refuse("minimum_calls", "must be at least 1");
        }
        if self.failure_rate == Ratio::ZERO || self.slow_calls.is_some_and(|slow| slow.rate == Ratio::ZERO) {
            return refuse("rate", "of 0 would open it on every call");
        }
        if !span(self.open_for) || !span(self.open_for_most) || self.open_for > self.open_for_most {
            return refuse("open_for", "must be 1 ms to 7 days and not longer than open_for_most");
        }
        if !(1..=MOST_PROBES).contains(&self.probes) {
            return refuse("probes", "must be 1 to 1000: with none it could never close");
        }
        if !span(self.probe_timeout) {
            return refuse("probe_timeout", "must be 1 ms to 7 days");
        }
        Ok(())
    }

    pub(super) fn is_slow(&self, took: Duration) -> bool {
        self.slow_calls.is_some_and(|slow| took > slow.longer_than)
    }

    /// Whether either rate has reached its limit.
    pub(super) fn are_over(&self, rates: Rates) -> bool {
        let slow = self.slow_calls.is_some_and(|slow| slow.rate.reached_by(rates.slow, rates.calls));
        slow || self.failure_rate.reached_by(rates.failed, rates.calls)
    }

    /// How long the `streak`-th opening in a row lasts.
    pub(super) fn interval(&self, streak: u32, jitter: Jitter) -> Duration {
        let doubled = self.open_for.saturating_mul(2u32.saturating_pow(streak.saturating_sub(1)));
        let capped = doubled.min(self.open_for_most);
        capped + capped.mul_f64(self.jitter.as_f64() * jitter.as_f64())
    }
}

/// The largest share of a fleet that may be ejected (have its breaker opened) at once, as Envoy's outlier detection
/// has it: when most of the fleet looks broken, the fault is likely elsewhere, and ejecting the rest finishes it. For
/// breakers only; nothing that protects the host waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionCap {
    share: Ratio,
}

impl EjectionCap {
    /// A cap of this share. Unless the share is zero, one may always be ejected: a fleet of one has a breaker too.
    pub const fn new(share: Ratio) -> Self {
        Self { share }
    }

    /// Whether one more of a fleet of `fleet` may be ejected when `ejected` are.
    pub fn allows_one_more(self, ejected: usize, fleet: usize) -> bool {
        if self.share == Ratio::ZERO || ejected >= fleet {
            return false;
        }
        let most = (fleet as u128 * u128::from(self.share.ppb()) / 1_000_000_000).max(1);
        (ejected as u128) < most
    }
}

impl Default for EjectionCap {
    /// Half of the fleet.
    fn default() -> Self {
        Self::new(Ratio::percent(50))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_their_most_and_jitter_only_adds() {
        let settings = BreakerSettings::default();
        let seconds = |streak, jitter| settings.interval(streak, Jitter::new(jitter)).as_secs_f64();
        assert_eq!(
            [1, 2, 3, 5, 6, 40, u32::MAX].map(|streak| seconds(streak, 0.0)),
            [30.0, 60.0, 120.0, 480.0, 600.0, 600.0, 600.0]
        );
        assert_eq!(seconds(1, 1.0), 33.0);
        assert_eq!(seconds(1, 0.5), 31.5);
        assert_eq!(seconds(1, f64::NAN), 30.0);
        assert_eq!(seconds(1, 7.0), 33.0, "clamped");
    }

    #[test]
    fn settings_that_could_never_open_or_close_are_refused() {
        let good = BreakerSettings::default();
        let bad = [
            BreakerSettings { window: CallWindow::Calls(0), ..good.clone() },
            BreakerSettings { window: CallWindow::Calls(10_001), ..good.clone() },
            BreakerSettings { window: CallWindow::Time(Duration::ZERO), ..good.clone() },
            BreakerSettings { window: CallWindow::Calls(5), minimum_calls: 6, ..good.clone() },
            BreakerSettings { minimum_calls: 0, ..good.clone() },
            BreakerSettings { failure_rate: Ratio::ZERO, ..good.clone() },
            BreakerSettings { probes: 0, ..good.clone() },
            BreakerSettings { open_for: Duration::from_secs(700), ..good.clone() },
            BreakerSettings { probe_timeout: Duration::MAX, ..good.clone() },
        ];
        assert!(good.check().is_ok());
        for settings in bad {
            assert!(settings.check().is_err(), "{settings:?}");
        }
    }

    #[test]
    fn only_a_share_of_a_fleet_may_be_out_and_always_one() {
        let half = EjectionCap::default();
        assert!(half.allows_one_more(4, 10));
        assert!(!half.allows_one_more(5, 10));
        assert!(half.allows_one_more(0, 1), "a fleet of one");
        assert!(!half.allows_one_more(1, 1));
        assert!(!half.allows_one_more(0, 0));
        assert!(!EjectionCap::new(Ratio::ZERO).allows_one_more(0, 10));
    }
}
