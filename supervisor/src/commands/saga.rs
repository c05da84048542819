//! `saga run`, `list`, `show`, `resume`, `resolve`, `cancel`, `abandon`.

mod args;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use agt_saga::id::SagaId;
use agt_saga::journal::Scope;
use agt_saga::machine::{Rest, State};
use agt_saga::record::Resolution;
use comfy_table::{Table, presets};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

pub use self::args::{OrderArgs, ResolveArgs, ResumeArgs, RunArgs, SagaVerb};
use super::check::{color, config_failure, surroundings};
use super::supervise::{Errand, Task, supervise};
use super::{Failure, Outcome, dirs, print};
use crate::cli::Global;
use crate::config::Surroundings;
use crate::control::client;
use crate::control::handoff::Refused;
use crate::control::listener;
use crate::control::sagas::{HandedSaga, Word};
use crate::control::steps::{OrderBody, OrderWord, Ordered, SAGA_ORDER};
use crate::dirs::Dirs;
use crate::driver::Talk;
use crate::exit;
use crate::sagas::file::{self, Commands, Context};
use crate::sagas::host::{self, HostError};
use crate::sagas::hosted::{Driven, From, Listener, Submission};
use crate::sagas::progress;
use crate::store::{StateLock, StoreError};
use crate::telemetry::endpoint::Choice;

/// Performs a verb.
///
/// # Errors
/// A bad file, a refusal, no lock, no ground, no store.
pub fn saga(global: &Global, verb: SagaVerb) -> Outcome {
    let dirs = dirs(global)?;
    match verb {
        SagaVerb::Run(args) => run(global, &dirs, &args),
        SagaVerb::List { unfinished } => list(global, &dirs, if unfinished { Scope::Unfinished } else { Scope::All }),
        SagaVerb::Show { id } => show(global, &dirs, &id, Extent::Whole),
        SagaVerb::Resume(args) => resume(global, &dirs, &args),
        SagaVerb::Resolve(args) => {
            let resolution = match (args.applied, args.not_applied, args.retry) {
                (true, ..) => Resolution::Applied { output: given_output(args.output.as_deref())? },
                (_, true, _) => Resolution::NotApplied,
                (_, _, true) => Resolution::Retry,
                _ => Resolution::Skip,
            };
            order(global, &dirs, &args.id, OrderWord::Resolve { step: args.step, resolution }, args.reason)
        }
        SagaVerb::Cancel(args) => order(global, &dirs, &args.id, OrderWord::Cancel, args.reason),
        SagaVerb::Abandon(args) => order(global, &dirs, &args.id, OrderWord::Abandon, args.reason),
    }
}

fn given_output(text: Option<&str>) -> Result<Value, Failure> {
    let Some(text) = text else { return Ok(Value::Null) };
    serde_json::from_str(text).map_err(|e| Failure::usage(format!("--output is no JSON: {e}")))
}

fn run(global: &Global, dirs: &Dirs, args: &RunArgs) -> Outcome {
    let around = surroundings(dirs)?;
    let ready = file::load(&args.file, &around, args.operator.as_deref()).map_err(|e| config_failure(&e))?;
    let name = ready.plan.name().to_owned();
    let id = SagaId::new(format!("{name}-{:08x}", rand::random::<u32>()));
    let from = From::TheBeginning(Box::new(ready.plan), ready.context);
    let submission = Submission { id, commands: ready.commands, from };
    let operator = args.operator.clone();
    driven(global, dirs, around, Wanted { name, submission, operator, crash_at: args.crash_at })
}

fn resume(global: &Global, dirs: &Dirs, args: &ResumeArgs) -> Outcome {
    let around = surroundings(dirs)?;
    let (state, _) = known(dirs, &args.id)?;
    let (commands, operator) = commands(&state, &around)?;
    let (name, id) = (state.plan().name().to_owned(), SagaId::new(args.id.as_str()));
    let submission = Submission { id, commands, from: From::ItsJournal };
    driven(global, dirs, around, Wanted { name, submission, operator, crash_at: args.crash_at })
}

/// The commands of a saga in the journal, resolved again, and the operator's file that was named for them.
fn commands(state: &State, around: &Surroundings) -> Result<(Commands, Option<PathBuf>), Failure> {
    let context: Context = serde_json::from_value(state.context().clone()).map_err(|e| {
        let text = format!("saga {}: what was stored with it can't be read: {e}", state.id());
        Failure::new(exit::DATA, text)
    })?;
    if matches!(state.rest(), Some(Rest::Ended(_))) {
        return Ok((Commands::new(), context.operator));
    }
    let commands = file::commands(state.plan(), &context, around, None).map_err(|e| config_failure(&e))?;
    Ok((commands, context.operator))
}

/// A saga that is to be driven, here or by the supervisor that is there.
struct Wanted {
    /// The saga's name.
    name: String,
    submission: Submission,
    /// The operator's file that was named.
    operator: Option<PathBuf>,
    crash_at: Option<u64>,
}

/// Drives a saga and shows where it came to rest.
fn driven(global: &Global, dirs: &Dirs, around: Surroundings, wanted: Wanted) -> Outcome {
    let quiet = global.json && !std::io::stderr().is_terminal();
    let id = wanted.submission.id.clone();
    let begins = matches!(wanted.submission.from, From::TheBeginning(..));
    let say = |id: &SagaId| {
        host::name_unfinished(dirs, id.as_str());
        if begins {
            eprintln!("saga {id} begins");
        }
    };
    let driven = match StateLock::acquire(&dirs.state) {
        Ok(lock) => {
            say(&id);
            drive_here(dirs, lock, around, wanted, quiet)?
        }
        Err(StoreError::Locked { .. }) => {
            if begins {
                eprintln!("saga {id} begins");
            }
            hand_over(dirs, wanted, quiet)?
        }
        Err(e) => return Err(e.into()),
    };
    // Its history was told line by line while it was made.
    show(global, dirs, id.as_str(), if quiet { Extent::Whole } else { Extent::Steps })?;
    match driven {
        Driven::Rests { code } => Ok(code),
        Driven::Stopped => {
            eprintln!("stopped; `agt-supervise saga resume {id}` takes it up again");
            Ok(exit::TRY_AGAIN)
        }
    }
}

/// Nobody is there: a supervisor that ends with the saga, so that it can be seen, killed and measured like any other.
fn drive_here(
    dirs: &Dirs,
    lock: StateLock,
    around: Surroundings,
    wanted: Wanted,
    quiet: bool,
) -> Result<Driven, Failure> {
    let (tell, told) = std::sync::mpsc::channel();
    let listener = if quiet { Listener::Nobody } else { Listener::Stderr(color()) };
    let errand = Errand {
        submission: wanted.submission,
        name: wanted.name,
        listener,
        crash_at: wanted.crash_at,
        // Nobody waits any more only when this process is ending.
        ended: Box::new(move |ended| drop(tell.send(ended))),
    };
    let task = Task {
        served: None,
        talk: Talk::Normal,
        // It would be gone before anybody scraped it.
        metrics: Choice::Off,
        around,
        operator: wanted.operator,
        definitions: Vec::new(),
        errand: Some(errand),
    };
    let code = supervise(dirs, lock, task)?;
    match told.try_recv() {
        Ok(Ok(driven)) => Ok(driven),
        Ok(Err(error)) => Err(Failure::of(error.exit_code(), &error)),
        Err(_) => Err(Failure::new(code.max(1), "the saga's supervisor ended without it")),
    }
}

/// A supervisor is there: the saga goes to it, its lines and its end come back.
fn hand_over(dirs: &Dirs, wanted: Wanted, quiet: bool) -> Result<Driven, Failure> {
    let runtime = runtime()?;
    let handed = HandedSaga::over(&dirs.handoff_socket(), &wanted.name, wanted.submission, color()).map_err(|e| {
        if let Some(stranger) = listener::stranger(&e) {
            return stranger.into();
        }
        Failure::new(
            exit::UNAVAILABLE,
            format!("the supervisor of {} can't take sagas over: {e}", dirs.state.display()),
        )
        .help("wait until it has started or ended, or give the saga a folder of its own with --state-dir")
    })?;
    let handed = Arc::new(handed);
    let stops = Arc::clone(&handed);
    let _signals = runtime.spawn(async move {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [Ok(mut term), Ok(mut int), Ok(mut hup)] = kinds.map(signal) else { return };
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hup.recv() => {}
            }
            stops.stop();
        }
    });
    let end = loop {
        match handed.next() {
            Ok(Word::Line(line)) if !quiet => eprintln!("{line}"),
            Ok(Word::Line(_)) => {}
            Ok(Word::Over(driven)) => break Ok(driven),
            Ok(Word::Refused(Refused { why, code })) => break Err(Failure::new(code, why)),
            Err(e) => {
                break Err(Failure::new(exit::UNAVAILABLE, e.to_string())
                    .help("the next supervisor here takes the saga up again; `agt-supervise saga list` names it"));
            }
        }
    };
    runtime.shutdown_background();
    end
}

fn order(global: &Global, dirs: &Dirs, id: &str, order: OrderWord, reason: String) -> Outcome {
    known(dirs, id)?;
    let body = OrderBody { saga: id.to_owned(), order, reason };
    let driven = runtime()?.block_on(async {
        let (saga, command) = body.clone().command(uid());
        match host::command(dirs, &saga, command).await {
            Ok(()) => Ok(false),
            Err(HostError::Store(StoreError::Locked { .. })) => {
                let ordered: Ordered = client::post(&dirs.operator_socket(), SAGA_ORDER, &body).await?;
                Ok(ordered.driven)
            }
            Err(e) => Err(failure(e)),
        }
    })?;
    let (state, _) = known(dirs, id)?;
    show(global, dirs, id, Extent::Steps)?;
    match state.rest() {
        Some(Rest::Ended(_)) => {}
        _ if driven => eprintln!("the supervisor goes on with it: `agt-supervise saga show {id}` tells how it ends"),
        _ => eprintln!("`agt-supervise saga resume {id}` goes on with it"),
    }
    Ok(0)
}

fn known(dirs: &Dirs, id: &str) -> Result<(State, Vec<agt_saga::record::Record>), Failure> {
    let found = host::read(dirs, id).map_err(failure)?;
    found.ok_or_else(|| Failure::usage(format!("there is no saga `{id}`")).help("`agt-supervise saga list` names them"))
}

/// How much of a saga is shown to people. `--json` has it all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// History and steps.
    Whole,
    /// Where its steps stand.
    Steps,
}

fn show(global: &Global, dirs: &Dirs, id: &str, extent: Extent) -> Outcome {
    let (state, records) = known(dirs, id)?;
    if global.json {
        print(&json_text(&progress::as_json(&state, &records))?);
    } else {
        if extent == Extent::Whole {
            print(&progress::timeline(&state, &records));
        }
        print(&progress::table(&state));
    }
    Ok(0)
}

fn list(global: &Global, dirs: &Dirs, scope: Scope) -> Outcome {
    let sagas = host::list(dirs, scope).map_err(failure)?;
    if global.json {
        print(&json_text(&serde_json::to_value(&sagas).map_err(|e| Failure::of(exit::BUG, &e))?)?);
        return Ok(0);
    }
    if sagas.is_empty() {
        eprintln!(
            "no saga{}",
            if scope == Scope::Unfinished { " is unfinished" } else { " has run with this state directory yet" }
        );
        return Ok(0);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["SAGA", "NAME", "STATE"]);
    for saga in sagas {
        table.add_row([saga.id, saga.name, saga.state]);
    }
    print(&(table.to_string() + "\n"));
    Ok(0)
}

fn json_text(value: &Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| Failure::of(exit::BUG, &e))
}

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    built.map_err(|e| Failure::new(exit::BUG, format!("the asynchronous runtime can't be started: {e}")))
}

fn failure(error: HostError) -> Failure {
    match error {
        HostError::Store(e) => e.into(),
        HostError::Saga(saga) => Failure::of(host::saga_code(&saga), &saga),
    }
}
