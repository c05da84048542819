//! `run` beside a supervisor that is there already: hand the agents over, pass signals on, come out with their exit code.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::run::{StdioKind, wiring};
use crate::control::handoff::{End, Handed, Refused, Word};
use crate::control::protocol::{About, SUPERVISOR};
use crate::control::{client, listener};
use crate::dirs::Dirs;
use crate::driver::Talk;
use crate::driver::audience::{Line, Wish};
use crate::driver::beside::beside;
use crate::driver::definition::Definition;
use crate::driver::streams::{self, Wired};
use crate::exit;
use crate::store::StoreError;
use crate::store::lock::StateLock;
use crate::telemetry::endpoint::Choice;

/// How long a `run` waits for a supervisor that is starting or ending. Its agents are dead then; what is left is cleared away.
const TURN_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whose turn it is.
pub(super) enum Turn {
    /// Ours: the state directory is free, and this process supervises.
    Ours(StateLock),
    /// Theirs: the agents were taken over and have ended, with this exit code.
    Theirs(u8),
}

/// Becomes the supervisor, or hands over to the one that is there and waits for the end of the agents. One that is just ending (or
/// has not opened its door yet) is waited for.
pub(super) fn take_turn(
    dirs: &Dirs,
    talk: Talk,
    definitions: &[(Definition, StdioKind)],
    metrics: Option<Choice>,
) -> Result<Turn, Failure> {
    let deadline = Instant::now() + TURN_WITHIN;
    loop {
        match StateLock::acquire(&dirs.state) {
            Ok(lock) => return Ok(Turn::Ours(lock)),
            Err(StoreError::Locked { .. }) => {}
            Err(e) => return Err(e.into()),
        }
        if let Some(code) = hand_over(dirs, talk, definitions, metrics)? {
            return Ok(Turn::Theirs(code));
        }
        if Instant::now() >= deadline {
            let text = format!(
                "{} is in use, and whoever uses it takes no agents over (waited {} s)",
                dirs.state.display(),
                TURN_WITHIN.as_secs()
            );
            return Err(Failure::new(exit::TRY_AGAIN, text)
                .help("try again, or give this one a folder of its own with --state-dir"));
        }
        // The lock is a file's: no event tells of its release.
        std::thread::sleep(LOOK_EVERY);
    }
}

/// `None`: nothing was taken over, for that supervisor is ending, or its door is not open.
fn hand_over(
    dirs: &Dirs,
    talk: Talk,
    definitions: &[(Definition, StdioKind)],
    metrics: Option<Choice>,
) -> Result<Option<u8>, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::of(exit::BUG, &e))?;
    let code = runtime.block_on(async {
        let mut doors = Vec::new();
        for _ in definitions {
            match Handed::knock(&dirs.handoff_socket()) {
                Ok(door) => doors.push(Arc::new(door)),
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
                Err(e) => return Err(unable(dirs, &e)),
            }
        }
        if let Some(choice) = metrics {
            say_where_metrics_are(dirs, choice).await;
        }
        all(dirs, talk, definitions, doors).await
    });
    runtime.shutdown_background();
    code
}

fn unable(dirs: &Dirs, error: &std::io::Error) -> Failure {
    if let Some(stranger) = listener::stranger(error) {
        return stranger.into();
    }
    let text = format!("the supervisor of {} can't take agents over: {error}", dirs.state.display());
    Failure::new(exit::UNAVAILABLE, text).help("give this one a folder of its own with --state-dir")
}

/// `--metrics` was typed, but whoever supervises serves them: said, because somebody will point Prometheus there.
async fn say_where_metrics_are(dirs: &Dirs, choice: Choice) {
    let about: Result<About, _> = client::get(&dirs.operator_socket(), SUPERVISOR).await;
    let there = match about {
        // A supervisor that does not answer fails the hand-over, and says why.
        Err(_) => return,
        Ok(about) => about.metrics,
    };
    let url = match (choice, &there) {
        (Choice::Off, None) => return,
        (Choice::At(address), Some(url)) if url.contains(&format!("//{address}/")) => return,
        (_, url) => url.as_deref().unwrap_or("no address: that supervisor was started with --metrics off"),
    };
    eprintln!(
        "warning: --metrics has no effect here: the supervisor of {} takes this agent over and serves metrics at {url}",
        dirs.state.display()
    );
}

async fn all(
    dirs: &Dirs,
    talk: Talk,
    definitions: &[(Definition, StdioKind)],
    doors: Vec<Arc<Handed>>,
) -> Result<Option<u8>, Failure> {
    let mut handed = Vec::new();
    let mut pumps = Vec::new();
    for ((definition, kind), door) in definitions.iter().zip(doors) {
        let name = definition.name().to_owned();
        let bug = |e: std::io::Error| Failure::of(exit::BUG, &e);
        // Wired here: the other ends are this process's own, and the supervisor gets what the agent will have.
        let log = dirs.logs().join(format!("{name}.log"));
        let wired = streams::wire(&name, &wiring(*kind).map_err(bug)?, log, definition.log_limits()).map_err(bug)?;
        let Wired { streams, pumps: pumping } = wired;
        // A door that has just closed says so below.
        let given = door.over(definition, &streams);
        pumps.push(pumping);
        handed.push((name, door, given.is_ok()));
    }
    let told = Arc::<AtomicI32>::default();
    let doors = handed.iter().map(|(_, door, _)| Arc::clone(door)).collect();
    let heard = tokio::spawn(pass_signals(doors, Arc::clone(&told)));
    let ends: Vec<_> = handed
        .into_iter()
        .map(|(name, door, given)| {
            (name.clone(), beside("agt-hear", move || if given { until_end(&door, &name, talk) } else { None }))
        })
        .collect();
    let (mut code, mut taken, mut missed) = (0, 0, Vec::new());
    for (name, end) in ends {
        match end.await.map_err(|e| Failure::of(exit::BUG, &e))? {
            Some(this) => {
                taken += 1;
                code = if code == 0 { this } else { code };
            }
            None => missed.push(name),
        }
    }
    heard.abort();
    streams::last_words(pumps.iter_mut().collect()).await;
    let told = told.load(Ordering::SeqCst);
    if taken == 0 && told == 0 {
        return Ok(None);
    }
    for name in missed {
        eprintln!("error: {name} was not started: the supervisor is ending");
        // Somebody who was told to end does not wait for another turn.
        let this = u8::try_from(128 + told).ok().filter(|_| told != 0).unwrap_or(exit::TRY_AGAIN);
        code = if code == 0 { this } else { code };
    }
    Ok(Some(code))
}

/// Passes on what is said of an agent; the exit code for its end, or `None` if it was never taken over because the supervisor ends.
fn until_end(door: &Handed, name: &str, talk: Talk) -> Option<u8> {
    let mut first = true;
    loop {
        match door.hear() {
            Ok(Word::Said(said)) => {
                if said.weight == Line::Matter || talk == Talk::Normal {
                    eprintln!("{}", said.text);
                }
            }
            Ok(Word::End(End::Dead(conclusion))) => return Some(conclusion.exit_code()),
            Ok(Word::End(End::Ending)) => return None,
            Ok(Word::End(End::Refused(Refused { why, code }))) => {
                eprintln!("error: {name} was not started: {why}");
                return Some(code);
            }
            // Nothing was ever said: it was not taken up.
            Err(_) if first => return None,
            Err(e) => {
                eprintln!("error: {name}: {e}");
                return Some(exit::UNAVAILABLE);
            }
        }
        first = false;
    }
}

/// The first signal stops the agents that came from here, the second ends them at once; others' agents are not touched.
async fn pass_signals(doors: Vec<Arc<Handed>>, told: Arc<AtomicI32>) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else { return };
    let mut wish = Wish::Stop;
    loop {
        let (heard, number) = tokio::select! {
            heard = term.recv() => (heard, libc::SIGTERM),
            heard = int.recv() => (heard, libc::SIGINT),
            heard = hup.recv() => (heard, libc::SIGHUP),
        };
        if heard.is_none() {
            return;
        }
        told.store(number, Ordering::SeqCst);
        doors.iter().for_each(|door| door.wish(wish));
        wish = Wish::End;
    }
}
