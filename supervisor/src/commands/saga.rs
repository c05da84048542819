//! `saga run`, `list`, `show`, `resume`, `resolve`, `cancel`, `abandon`.

use std::io::IsTerminal;
use std::path::PathBuf;

use agt_saga::driver::SagaError;
use agt_saga::id::SagaId;
use agt_saga::journal::{JournalError, Scope};
use agt_saga::machine::{Command, Order, Rest};
use agt_saga::record::{Authority, Resolution};
use clap::{ArgGroup, Args, Subcommand};
use comfy_table::{Table, presets};
use serde_json::Value;

use super::check::{color, config_failure, surroundings};
use super::{Failure, Outcome, dirs, print};
use crate::cli::Global;
use crate::dirs::Dirs;
use crate::exit;
use crate::sagas::file::{self, Commands, Context};
use crate::sagas::host::{self, Driven, Host, HostError, Show};
use crate::sagas::progress;
use crate::store::StoreError;

/// What can be done with sagas.
#[derive(Debug, Subcommand)]
pub enum SagaVerb {
    /// Run a saga to its end: exit 0 completed, 1 compensated, 2 partially compensated, 3 abandoned, 75 stuck
    #[command(after_help = "Example:\n  agt-supervise saga run saga.yaml")]
    Run(RunArgs),
    /// List sagas, newest change first
    #[command(after_help = "Examples:\n  agt-supervise saga list\n  agt-supervise saga list --unfinished --json")]
    List {
        /// Only those that are not over
        #[arg(long)]
        unfinished: bool,
    },
    /// Show one saga: its steps and its history
    #[command(after_help = "Example:\n  agt-supervise saga show refund-1a2b3c4d")]
    Show {
        /// The saga's id
        id: String,
    },
    /// Take a saga up where its journal ends: after a crash, a stop, or an operator's word
    #[command(after_help = "Example:\n  agt-supervise saga resume refund-1a2b3c4d")]
    Resume(ResumeArgs),
    /// Settle a step that waits for an operator
    #[command(
        after_help = "Example:\n  agt-supervise saga resolve refund-1a2b3c4d charge --applied --reason \"found in the ledger\""
    )]
    Resolve(ResolveArgs),
    /// Undo a saga; `resume` then does it
    #[command(after_help = "Example:\n  agt-supervise saga cancel refund-1a2b3c4d --reason \"wrong order\"")]
    Cancel(OrderArgs),
    /// Give a saga up as it stands; nothing is undone
    #[command(after_help = "Example:\n  agt-supervise saga abandon refund-1a2b3c4d --reason \"settled by hand\"")]
    Abandon(OrderArgs),
}

/// `saga run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The saga's file
    pub file: PathBuf,
    /// The operator's file
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
    /// For tests: die by SIGKILL at the place with this number
    #[arg(long, hide = true)]
    pub crash_at: Option<u64>,
}

/// `saga resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The saga's id
    pub id: String,
    /// For tests: die by SIGKILL at the place with this number
    #[arg(long, hide = true)]
    pub crash_at: Option<u64>,
}

/// `saga cancel`, `saga abandon`.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// The saga's id
    pub id: String,
    /// Why; kept with the saga and in the audit log
    #[arg(long)]
    pub reason: String,
}

/// `saga resolve`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("how").required(true))]
pub struct ResolveArgs {
    /// The saga's id
    pub id: String,
    /// The step
    pub step: String,
    /// Yes: its effect is there (or, for an undo, is gone)
    #[arg(long, group = "how")]
    pub applied: bool,
    /// No
    #[arg(long, group = "how")]
    pub not_applied: bool,
    /// Try again with a new retry budget
    #[arg(long, group = "how")]
    pub retry: bool,
    /// Go on without it; its effect, if any, stays
    #[arg(long, group = "how")]
    pub skip: bool,
    /// With --applied: what the step would have given to later ones, as JSON
    #[arg(long, value_name = "JSON", requires = "applied")]
    pub output: Option<String>,
    /// Why; kept with the saga and in the audit log
    #[arg(long)]
    pub reason: String,
}

/// Performs a verb.
///
/// # Errors
/// A bad file, a refusal, no lock, no ground, no store.
pub fn saga(global: &Global, verb: SagaVerb) -> Outcome {
    let dirs = dirs(global)?;
    match verb {
        SagaVerb::Run(args) => run(global, &dirs, &args),
        SagaVerb::List { unfinished } => list(global, &dirs, if unfinished { Scope::Unfinished } else { Scope::All }),
        SagaVerb::Show { id } => show(global, &dirs, &id),
        SagaVerb::Resume(args) => resume(global, &dirs, &args),
        SagaVerb::Resolve(args) => {
            let resolution = match (args.applied, args.not_applied, args.retry) {
                (true, ..) => Resolution::Applied { output: given_output(args.output.as_deref())? },
                (_, true, _) => Resolution::NotApplied,
                (_, _, true) => Resolution::Retry,
                _ => Resolution::Skip,
            };
            order(global, &dirs, &args.id, Order::Resolve { step: args.step, resolution }, args.reason)
        }
        SagaVerb::Cancel(args) => order(global, &dirs, &args.id, Order::Cancel, args.reason),
        SagaVerb::Abandon(args) => order(global, &dirs, &args.id, Order::Abandon, args.reason),
    }
}

fn given_output(text: Option<&str>) -> Result<Value, Failure> {
    let Some(text) = text else { return Ok(Value::Null) };
    serde_json::from_str(text).map_err(|e| Failure::usage(format!("--output is no JSON: {e}")))
}

fn run(global: &Global, dirs: &Dirs, args: &RunArgs) -> Outcome {
    let around = surroundings(dirs)?;
    let ready = file::load(&args.file, &around, args.operator.as_deref()).map_err(|e| config_failure(&e))?;
    host::name_unfinished(dirs);
    let id = SagaId::new(format!("{}-{:08x}", ready.plan.name(), rand::random::<u32>()));
    let context = serde_json::to_value(&ready.context).map_err(|e| Failure::of(exit::BUG, &e))?;
    let plan = ready.plan;
    let name = id.clone();
    driven(global, dirs, ready.commands, args.crash_at, id, async move |host| {
        eprintln!("saga {name} begins");
        host.drive(host.driver.run(plan, name, context)).await
    })
}

fn resume(global: &Global, dirs: &Dirs, args: &ResumeArgs) -> Outcome {
    let commands = commands(dirs, &args.id)?;
    let id = SagaId::new(args.id.as_str());
    let name = id.clone();
    driven(global, dirs, commands, args.crash_at, id, async move |host| host.drive(host.driver.resume(&name)).await)
}

/// The commands of a saga in the journal, resolved again.
fn commands(dirs: &Dirs, id: &str) -> Result<Commands, Failure> {
    let (state, _) = known(dirs, id)?;
    let context: Context = serde_json::from_value(state.context().clone())
        .map_err(|e| Failure::new(exit::DATA, format!("saga {id}: what was stored with it can't be read: {e}")))?;
    if matches!(state.rest(), Some(Rest::Ended(_))) {
        return Ok(Commands::new());
    }
    file::commands(state.plan(), &context, &surroundings(dirs)?, None).map_err(|e| config_failure(&e))
}

/// Drives a saga and shows where it came to rest.
fn driven(
    global: &Global,
    dirs: &Dirs,
    commands: Commands,
    crash_at: Option<u64>,
    id: SagaId,
    drive: impl AsyncFnOnce(&Host) -> Result<Driven, HostError>,
) -> Outcome {
    let runtime = runtime()?;
    let shown = if global.json && !std::io::stderr().is_terminal() { Show::Nothing } else { Show::Lines(color()) };
    let driven = runtime.block_on(async {
        let host = Host::open(dirs, commands, uid(), shown, crash_at).map_err(failure)?;
        let driven = drive(&host).await;
        host.close().await;
        driven.map_err(failure)
    })?;
    show(global, dirs, id.as_str())?;
    match driven {
        Driven::Rests(rest) => Ok(rest.exit_code()),
        Driven::Stopped => {
            eprintln!("stopped; `agt-supervise saga resume {id}` takes it up again");
            Ok(exit::TRY_AGAIN)
        }
    }
}

fn order(global: &Global, dirs: &Dirs, id: &str, order: Order, reason: String) -> Outcome {
    let (before, _) = known(dirs, id)?;
    let authority = Authority { by: format!("uid {}", uid()), reason };
    runtime()?.block_on(async {
        let host = Host::open(dirs, Commands::new(), uid(), Show::Nothing, None).map_err(failure)?;
        let given = host.driver.command(before.id(), Command { order, authority }).await;
        host.close().await;
        given.map_err(|e| failure(e.into()))
    })?;
    let (state, _) = known(dirs, id)?;
    show(global, dirs, id)?;
    if !matches!(state.rest(), Some(Rest::Ended(_))) {
        eprintln!("`agt-supervise saga resume {id}` goes on with it");
    }
    Ok(0)
}

fn known(dirs: &Dirs, id: &str) -> Result<(agt_saga::machine::State, Vec<agt_saga::record::Record>), Failure> {
    let found = host::read(dirs, id).map_err(failure)?;
    found.ok_or_else(|| Failure::usage(format!("there is no saga `{id}`")).help("`agt-supervise saga list` names them"))
}

fn show(global: &Global, dirs: &Dirs, id: &str) -> Outcome {
    let (state, records) = known(dirs, id)?;
    if global.json {
        print(&json_text(&progress::as_json(&state, &records))?);
    } else {
        print(&format!("{}{}", progress::timeline(&state, &records), progress::table(&state)));
    }
    Ok(0)
}

fn list(global: &Global, dirs: &Dirs, scope: Scope) -> Outcome {
    let sagas = host::list(dirs, scope).map_err(failure)?;
    if global.json {
        print(&json_text(&serde_json::to_value(&sagas).map_err(|e| Failure::of(exit::BUG, &e))?)?);
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
        HostError::Store(StoreError::Locked { pid, .. }) => {
            let holder = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
            Failure::new(exit::UNAVAILABLE, format!("another supervisor{holder} works with this state directory"))
                .help("wait for its end, or give the saga a folder of its own with --state-dir")
        }
        HostError::Store(e) => e.into(),
        HostError::Ground(e) => e.into(),
        HostError::Folder { .. } => Failure::of(exit::CANT_CREATE, &error),
        HostError::Signals(_) => Failure::of(exit::BUG, &error),
        HostError::Saga(saga) => Failure::of(saga_code(&saga), &saga),
    }
}

fn saga_code(error: &SagaError) -> u8 {
    match error {
        SagaError::Journal { source: JournalError::Store(source), .. } => {
            source.downcast_ref::<StoreError>().map_or(exit::CANT_CREATE, StoreError::exit_code)
        }
        SagaError::Replay { .. } => exit::DATA,
        SagaError::Refused { .. } => exit::USAGE,
        SagaError::TreesNotEmpty { .. } | SagaError::NotEnded { .. } => exit::UNAVAILABLE,
        SagaError::Journal { .. } | SagaError::AlreadyDriven { .. } => exit::TRY_AGAIN,
        SagaError::Illegal { .. } | SagaError::Stopped { .. } => exit::BUG,
    }
}
