//! `run` beside a supervisor that is there already: hand the agents over, pass signals on, come out with their exit code.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::run::{StdioKind, wiring};
use super::{Failure, Outcome};
use crate::control::client;
use crate::control::handoff::{End, Handed, Refused};
use crate::control::protocol::{About, SUPERVISOR};
use crate::dirs::Dirs;
use crate::driver::Talk;
use crate::driver::definition::Definition;
use crate::driver::event::Act;
use crate::driver::records::obituary;
use crate::driver::streams::{self, Wired};
use crate::exit;
use crate::telemetry::endpoint::Choice;

/// Hands over and waits.
pub(super) fn hand_over(
    dirs: &Dirs,
    talk: Talk,
    definitions: Vec<(Definition, StdioKind)>,
    metrics: Option<Choice>,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::of(exit::BUG, &e))?;
    let code = runtime.block_on(async {
        if let Some(choice) = metrics {
            say_where_metrics_are(dirs, choice).await;
        }
        all(dirs, talk, definitions).await
    });
    runtime.shutdown_background();
    code
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

async fn all(dirs: &Dirs, talk: Talk, definitions: Vec<(Definition, StdioKind)>) -> Outcome {
    let mut handed = Vec::new();
    let mut pumps = Vec::new();
    for (definition, kind) in definitions {
        let name = definition.name().to_owned();
        let bug = |e: std::io::Error| Failure::of(exit::BUG, &e);
        // Wired here: the other ends are this process's own, and the supervisor gets what the agent will have.
        let log = dirs.logs().join(format!("{name}.log"));
        let wired = streams::wire(&name, &wiring(kind).map_err(bug)?, log, definition.log_limits()).map_err(bug)?;
        let Wired { streams, pumps: pumping } = wired;
        let connection = Handed::over(&dirs.handoff_socket(), &definition, &streams).map_err(|e| {
            Failure::new(
                exit::UNAVAILABLE,
                format!("the supervisor of {} can't take agents over: {e}", dirs.state.display()),
            )
            .help("wait until it has started or ended, or give this one a folder of its own with --state-dir")
        })?;
        pumps.push(pumping);
        handed.push((name, Arc::new(connection)));
    }
    let heard = tokio::spawn(pass_signals(handed.iter().map(|(_, connection)| Arc::clone(connection)).collect()));
    let mut code = 0;
    for (name, connection) in handed {
        let ended =
            tokio::task::spawn_blocking(move || connection.end()).await.map_err(|e| Failure::of(exit::BUG, &e))?;
        let this = match ended {
            Ok(End::Dead(death)) => {
                if talk == Talk::Normal {
                    eprintln!("{}", obituary(&name, &death, None, 0));
                }
                death.exit_code()
            }
            Ok(End::Refused(Refused { why, code })) => {
                eprintln!("error: {name} was not started: {why}");
                code
            }
            Err(e) => {
                eprintln!("error: {name}: {e}");
                exit::UNAVAILABLE
            }
        };
        code = if code == 0 { this } else { code };
    }
    heard.abort();
    for mut pumping in pumps {
        streams::last_words(&mut pumping).await;
    }
    Ok(code)
}

/// The first signal stops the agents that came from here, the second kills them; others' agents are not touched.
async fn pass_signals(connections: Vec<Arc<Handed>>) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else { return };
    let mut act = Act::Stop;
    loop {
        let heard = tokio::select! {
            heard = term.recv() => heard,
            heard = int.recv() => heard,
            heard = hup.recv() => heard,
        };
        if heard.is_none() {
            return;
        }
        connections.iter().for_each(|connection| connection.wish(act));
        act = Act::Kill;
    }
}
