//! A resolver that hangs, floods, fails and changes its mind.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;

/// Answers by rule of the name's first label, and counts.
struct Fake {
    asked: Arc<AtomicUsize>,
    /// Names that begin with `hang` wait until this end is dropped.
    hung: Mutex<mpsc::Receiver<()>>,
}

/// What holds a fake up; dropping it lets go.
type Hold = mpsc::Sender<()>;

fn fake(bounds: Bounds) -> (Resolver, Arc<AtomicUsize>, Hold) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (hold, hung) = mpsc::channel();
    let fake = Fake { asked: Arc::clone(&asked), hung: Mutex::new(hung) };
    (Resolver::new(fake, bounds), asked, hold)
}

impl Lookup for Fake {
    fn addresses(&self, name: &Name) -> io::Result<Vec<IpAddr>> {
        let count = self.asked.fetch_add(1, Ordering::SeqCst);
        match name.as_str() {
            text if text.starts_with("hang") => {
                let _ = self.hung.lock().unwrap_or_else(PoisonError::into_inner).recv();
                Ok(vec!["192.0.2.1".parse().unwrap()])
            }
            text if text.starts_with("empty") => Ok(Vec::new()),
            text if text.starts_with("fail") => Err(io::Error::other("NXDOMAIN")),
            text if text.starts_with("panic") && count == 0 => panic!("a resolver that panics"),
            text if text.starts_with("flood") => {
                Ok((0..5000_u32).map(|n| IpAddr::V4(std::net::Ipv4Addr::from(0x0808_0000 + n / 2))).collect())
            }
            text if text.starts_with("mapped") => {
                Ok(vec!["::ffff:8.8.8.8".parse().unwrap(), "8.8.8.8".parse().unwrap()])
            }
            _ => Ok(vec![IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, u8::try_from(count).unwrap_or(255)))]),
        }
    }
}

/// Waits until so many look-ups have begun: a thread starts when the machine lets it.
async fn begun(asked: &AtomicUsize, count: usize) {
    while asked.load(Ordering::SeqCst) < count {
        tokio::task::yield_now().await;
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn bounds() -> Bounds {
    Bounds { lookups: 4, per_agent: 2, wait: Duration::from_millis(50), keep: Duration::from_secs(60) }
}

#[tokio::test]
async fn answers_are_bounded_and_each_address_comes_once_and_plain() {
    let (resolver, _, _hold) = fake(Bounds { wait: Duration::from_secs(60), ..bounds() });
    assert_eq!(resolver.resolve(&name("flood.example")).await.unwrap().len(), ADDRESSES_MAX);
    let mapped = resolver.resolve(&name("mapped.example")).await.unwrap();
    assert_eq!(&*mapped, &["8.8.8.8".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn errors_say_which_name_and_why() {
    let (resolver, asked, _hold) = fake(Bounds { wait: Duration::from_secs(60), ..bounds() });
    let error = resolver.resolve(&name("fail.example")).await.unwrap_err();
    assert_eq!(error.to_string(), "fail.example was not resolved");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "NXDOMAIN");
    assert!(matches!(resolver.resolve(&name("empty.example")).await, Err(ResolveError::Empty { .. })));
    // A failure is asked again the next time.
    let _ = resolver.resolve(&name("fail.example")).await;
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_look_up_that_panics_is_an_error_and_asked_again() {
    let (resolver, _, _hold) = fake(Bounds { wait: Duration::from_secs(60), ..bounds() });
    assert!(resolver.resolve(&name("panic.example")).await.is_err());
    assert!(resolver.resolve(&name("panic.example")).await.is_ok());
}

#[tokio::test]
async fn a_name_asked_for_many_times_at_once_is_looked_up_once() {
    let (resolver, asked, hold) = fake(Bounds { wait: Duration::from_secs(60), ..bounds() });
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let resolver = resolver.for_agent();
        asking.spawn(async move { resolver.resolve(&name("hang.example")).await });
    }
    // Until the first has its thread; the others have only to find it.
    begun(&asked, 1).await;
    drop(hold);
    while let Some(answer) = asking.join_next().await {
        assert_eq!(&*answer.unwrap().unwrap(), &["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn dead_names_of_one_agent_leave_room_for_another() {
    let (resolver, asked, hold) = fake(bounds());
    let (one, other) = (resolver.for_agent(), resolver.for_agent());
    for number in 0..5 {
        let error = one.resolve(&name(&format!("hang{number}.example"))).await.unwrap_err();
        assert!(matches!(error, ResolveError::TimedOut { .. }), "{error}");
    }
    // Two threads are taken for good, the other names never had one.
    begun(&asked, 2).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // On a busy machine one wait may be too short for a thread to start; a hundred are not.
    let alive = name("alive.example");
    let mut tries = 0..100;
    while other.resolve(&alive).await.is_err() {
        assert!(tries.next().is_some(), "no room for the other agent");
    }
    drop(hold);
}

#[tokio::test]
async fn a_hung_resolver_takes_no_more_threads_than_it_may_and_recovers() {
    let (resolver, asked, hold) = fake(bounds());
    let mut asking = tokio::task::JoinSet::new();
    for agent in 0..10 {
        let resolver = resolver.for_agent();
        asking.spawn(async move { resolver.resolve(&name(&format!("hang{agent}.example"))).await });
    }
    while let Some(answer) = asking.join_next().await {
        assert!(matches!(answer.unwrap(), Err(ResolveError::TimedOut { .. })));
    }
    begun(&asked, 4).await;
    assert_eq!(asked.load(Ordering::SeqCst), 4);
    drop(hold);
    // Room comes back when the threads end: that takes as long as it takes.
    let alive = name("alive.example");
    let mut tries = 0..1000;
    while resolver.resolve(&alive).await.is_err() {
        assert!(tries.next().is_some(), "the threads never came back");
    }
}

#[tokio::test]
async fn an_answer_is_used_again_while_it_is_kept_and_no_longer() {
    let (resolver, asked, _hold) = fake(Bounds { wait: Duration::from_secs(60), ..bounds() });
    let first = resolver.resolve(&name("a.example")).await.unwrap();
    assert_eq!(resolver.for_agent().resolve(&name("a.example")).await.unwrap(), first);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let (resolver, asked, _hold) = fake(Bounds { wait: Duration::from_secs(60), keep: Duration::ZERO, ..bounds() });
    let first = resolver.resolve(&name("a.example")).await.unwrap();
    assert_ne!(resolver.resolve(&name("a.example")).await.unwrap(), first);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn the_system_knows_localhost() {
    let resolver = Resolver::system(Bounds { wait: Duration::from_secs(60), ..Bounds::default() });
    let addresses = resolver.resolve(&name("localhost")).await.unwrap();
    assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
}
