//! Accounts under threads.
#![allow(clippy::unwrap_used)]

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

fn cap(nanos: u64) -> LimitSpec {
    LimitSpec {
        spend: SpendSpec { task: Some(Money::from_nanos(nanos)), ..SpendSpec::default() },
        ..LimitSpec::default()
    }
}

fn worst(nanos: u64) -> Worst {
    Worst { tokens: 1, cost: Money::from_nanos(nanos) }
}

#[test]
fn threads_that_try_to_spend_ten_times_the_cap_spend_it_once() {
    const CAP: u64 = 10_000;
    let (agent, ring) = (Shared::new("agent a", &cap(CAP)), Shared::new("ring 2", &cap(CAP * 2)));
    let account = Account::new(vec![Arc::clone(&agent), Arc::clone(&ring)]);
    let (spent, highest) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (account, spent, highest, agent) = (&account, &spent, &highest, &agent);
            scope.spawn(move || {
                // 8 threads x 125 calls x 100 = ten times the cap.
                for call in 0..125u64 {
                    let Ok(held) = account.reserve(&worst(100)) else { continue };
                    let standing = agent.standing();
                    highest.fetch_max(standing.reserved.plus(standing.task).nanos(), Ordering::Relaxed);
                    std::thread::yield_now();
                    let cost = 100 - (thread * 31 + call * 7) % 40;
                    spent.fetch_add(cost, Ordering::Relaxed);
                    held.settle(Actual { tokens: 1, cost: Money::from_nanos(cost) });
                }
            });
        }
    });
    let spent = spent.into_inner();
    assert!(spent <= CAP && highest.into_inner() <= CAP, "{spent}");
    assert!(spent > CAP - 100, "the cap is there to be used: {spent}");
    assert_eq!(
        (agent.standing().task.nanos(), agent.standing().reserved, agent.standing().in_flight),
        (spent, Money::ZERO, 0)
    );
    assert_eq!(ring.standing().task.nanos(), spent);
}

#[test]
fn a_ring_that_refuses_leaves_nothing_with_the_agent() {
    let (agent, ring) = (Shared::new("agent a", &cap(1_000)), Shared::new("ring 2", &cap(10)));
    let account = Account::new(vec![Arc::clone(&agent), ring]);
    let refused = account.reserve(&worst(100)).unwrap_err();
    assert_eq!((refused.subject.as_str(), refused.refusal.word()), ("ring 2", "spend-task"));
    assert_eq!(agent.standing(), Standing::default());
}

#[test]
fn a_call_that_nobody_settles_is_charged_its_worst_case() {
    let agent = Shared::new("agent a", &cap(1_000));
    let account = Account::new(vec![Arc::clone(&agent)]);
    drop(account.reserve(&worst(300)).unwrap());
    assert_eq!((agent.standing().task.nanos(), agent.standing().in_flight), (300, 0));
    account.reserve(&worst(300)).unwrap().release();
    assert_eq!(agent.standing().task.nanos(), 300);
}

#[test]
fn money_of_an_earlier_life_counts_for_its_day() {
    let spec = LimitSpec {
        spend: SpendSpec { day: Some(Money::from_nanos(100)), ..SpendSpec::default() },
        ..LimitSpec::default()
    };
    let agent = Shared::new("agent a", &spec);
    agent.recall(Money::from_nanos(500), Duration::from_secs(100 * 3_600));
    agent.recall(Money::from_nanos(60), Duration::from_secs(5 * 3_600));
    assert_eq!(agent.standing().day.nanos(), 60);
}
