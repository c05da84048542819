//! Limits under calls that begin and end in any order.
#![allow(clippy::unwrap_used)]

use super::super::spec::SpendSpec;
use super::*;
use proptest::prelude::*;

fn money(nanos: u64) -> Money {
    Money::from_nanos(nanos)
}

fn worst(cost: u64) -> Worst {
    Worst { tokens: cost, cost: money(cost) }
}

fn took(cost: u64) -> Actual {
    Actual { tokens: cost, cost: money(cost) }
}

fn caps(task: Option<u64>, hour: Option<u64>, day: Option<u64>) -> LimitSpec {
    let spend = SpendSpec { task: task.map(money), hour: hour.map(money), day: day.map(money) };
    LimitSpec { spend, ..LimitSpec::default() }
}

const T0: Duration = Duration::from_secs(1_000_000);

#[test]
fn a_reservation_counts_until_it_is_settled() {
    let mut limits = Limits::new(&caps(Some(100), None, None), T0);
    let first = limits.reserve(&worst(60), T0).unwrap();
    let refused = limits.reserve(&worst(60), T0).unwrap_err();
    assert_eq!(refused.retry_after(), Some(CONTENDED));
    limits.settle(first, took(10), T0);
    let second = limits.reserve(&worst(60), T0).unwrap();
    limits.settle(second, took(60), T0);
    let refused = limits.reserve(&worst(60), T0).unwrap_err();
    assert_eq!((refused.word(), refused.retry_after()), ("spend-task", None));
    assert!(refused.to_string().contains("$0.0000001"), "{refused}");
    limits.begin_task();
    let third = limits.reserve(&worst(60), T0).unwrap();
    limits.settle(third, took(60), T0);
}

#[test]
fn an_hours_cap_says_when_there_is_room_and_keeps_its_word() {
    let mut limits = Limits::new(&caps(None, Some(100), None), T0);
    for (at, cost) in [(0, 50), (600, 50)] {
        let now = T0 + Duration::from_secs(at);
        let held = limits.reserve(&worst(cost), now).unwrap();
        limits.settle(held, took(cost), now);
    }
    let now = T0 + Duration::from_secs(700);
    let wait = limits.reserve(&worst(50), now).unwrap_err().retry_after().unwrap();
    assert!(wait >= Duration::from_secs(2_900) && wait <= Duration::from_secs(2_960), "{wait:?}");
    assert!(limits.clone().reserve(&worst(50), now + wait - Duration::from_nanos(1)).is_err());
    assert!(limits.clone().reserve(&worst(50), now + wait).is_ok());
    assert_eq!(limits.reserve(&worst(101), now).unwrap_err().retry_after(), None);
}

#[test]
fn a_spent_cap_stops_free_calls_as_well() {
    let mut limits = Limits::new(&caps(Some(100), None, None), T0);
    let held = limits.reserve(&worst(100), T0).unwrap();
    limits.settle(held, took(100), T0);
    assert!(limits.reserve(&worst(0), T0).is_err());
}

#[test]
fn calls_of_an_earlier_task_do_not_count_for_the_next() {
    let mut limits = Limits::new(&caps(Some(100), Some(1_000), None), T0);
    let old = limits.reserve(&worst(100), T0).unwrap();
    limits.begin_task();
    let new = limits.reserve(&worst(100), T0).unwrap();
    limits.settle(old, took(100), T0);
    limits.settle(new, took(50), T0);
    let standing = limits.standing(T0);
    assert_eq!((standing.task, standing.hour, standing.reserved), (money(50), money(150), Money::ZERO));
}

#[test]
fn what_was_refused_took_nothing() {
    let spec = LimitSpec {
        requests_per_minute: Some(1),
        tokens_per_minute: Some(100),
        concurrent: Some(5),
        ..LimitSpec::default()
    };
    let mut limits = Limits::new(&spec, T0);
    let first = limits.reserve(&worst(50), T0).unwrap();
    assert_eq!(limits.reserve(&worst(40), T0).unwrap_err().word(), "requests-per-minute");
    assert_eq!(limits.tokens.as_mut().unwrap().level(T0), 50);
    assert_eq!(limits.in_flight, 1);
    limits.release(first, T0);
    assert_eq!((limits.tokens.as_mut().unwrap().level(T0), limits.requests.as_mut().unwrap().level(T0)), (100, 1));
    let again = limits.reserve(&worst(500), T0).unwrap();
    limits.settle(again, took(20), T0);
    assert_eq!(limits.tokens.as_mut().unwrap().level(T0), 80);
}

#[test]
fn only_so_many_are_under_way() {
    let spec = LimitSpec { concurrent: Some(2), ..LimitSpec::default() };
    let mut limits = Limits::new(&spec, T0);
    let held: Vec<Reservation> = (0..2).map(|_| limits.reserve(&worst(1), T0).unwrap()).collect();
    assert_eq!(limits.reserve(&worst(1), T0).unwrap_err(), Refusal::Concurrent { limit: 2 });
    for held in held {
        limits.settle(held, took(1), T0);
    }
    assert_eq!(limits.standing(T0).in_flight, 0);
}

#[test]
fn other_limits_hold_at_once_and_forget_nothing() {
    let mut limits = Limits::new(&caps(Some(1_000), None, None), T0);
    let held = limits.reserve(&worst(500), T0).unwrap();
    limits.settle(held, took(500), T0);
    limits.set(&caps(Some(400), None, None), T0);
    assert!(limits.reserve(&worst(1), T0).is_err());
    limits.set(&caps(Some(501), None, None), T0);
    assert!(limits.reserve(&worst(1), T0).is_ok());
}

#[test]
fn money_of_an_earlier_life_counts() {
    let mut limits = Limits::new(&caps(None, Some(100), Some(200)), T0);
    limits.recall(money(150), T0 - Duration::from_secs(7_200));
    limits.recall(money(40), T0 - Duration::from_secs(60));
    assert_eq!(limits.reserve(&worst(61), T0).unwrap_err().word(), "spend-hour");
    assert_eq!(limits.reserve(&worst(11), T0).unwrap_err().word(), "spend-day");
    assert!(limits.reserve(&worst(10), T0).is_ok());
}

#[derive(Clone, Debug)]
enum Deed {
    Reserve(u64),
    /// Settles one of the open ones with a share of its worst case.
    Settle(prop::sample::Index, u64),
    Release(prop::sample::Index),
    Wait(u64),
    Resize(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => (0u64..60).prop_map(Deed::Reserve),
        3 => (any::<prop::sample::Index>(), 0u64..=100).prop_map(|(which, share)| Deed::Settle(which, share)),
        1 => any::<prop::sample::Index>().prop_map(Deed::Release),
        2 => (0u64..2_000).prop_map(Deed::Wait),
        1 => (50u64..200).prop_map(Deed::Resize),
    ];
    prop::collection::vec(deed, 0..150)
}

proptest! {
    /// However calls begin, end and overlap: no cap is ever passed, by what was spent and by what can still be spent together.
    #[test]
    fn no_cap_is_ever_overrun(deeds in deeds()) {
        let mut cap = 100;
        let mut limits = Limits::new(&caps(Some(cap * 20), Some(cap), Some(cap * 3)), T0);
        let (mut now, mut open, mut spent) = (T0, Vec::new(), Vec::<(Duration, u64)>::new());
        for deed in deeds {
            match deed {
                Deed::Reserve(cost) => {
                    if let Ok(held) = limits.reserve(&worst(cost), now) {
                        open.push(held);
                        let within = |length| -> u64 {
                            let spent: u64 = spent.iter().filter(|(at, _)| now - *at < length).map(|(_, cost)| cost).sum();
                            spent + open.iter().map(|held: &Reservation| held.worst().cost.nanos()).sum::<u64>()
                        };
                        prop_assert!(within(Duration::from_secs(3_600)) <= cap);
                        prop_assert!(within(Duration::from_secs(86_400)) <= cap * 3);
                        prop_assert!(within(Duration::MAX) <= cap * 20);
                    }
                }
                Deed::Settle(which, share) if !open.is_empty() => {
                    let held = open.swap_remove(which.index(open.len()));
                    let cost = held.worst().cost.nanos() * share / 100;
                    limits.settle(held, took(cost), now);
                    spent.push((now, cost));
                }
                Deed::Release(which) if !open.is_empty() => {
                    let held = open.swap_remove(which.index(open.len()));
                    limits.release(held, now);
                }
                Deed::Wait(seconds) => now += Duration::from_secs(seconds),
                Deed::Resize(other) => {
                    cap = other;
                    limits.set(&caps(Some(cap * 20), Some(cap), Some(cap * 3)), now);
                }
                Deed::Settle(..) | Deed::Release(_) => {}
            }
        }
        let left: u64 = open.iter().map(|held| held.worst().cost.nanos()).sum();
        prop_assert_eq!(limits.standing(now).reserved, money(left));
        prop_assert_eq!(limits.standing(now).in_flight as usize, open.len());
    }
}
