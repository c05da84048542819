//! `reload`: shows what reading the files again would change, asks, and has it done.

use std::io::IsTerminal;

use super::{Failure, Outcome, client_runtime, dirs, print};
use crate::cli::Global;
use crate::control::client::{self, ClientError};
use crate::exit;
use crate::reloading::{Difference, RELOAD, ReloadBody};

/// `reload`.
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// Only this agent's file; without it all, and under `serve` also files that are new or gone
    pub agent: Option<String>,
    /// Don't ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show the difference and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Why; kept in the audit log
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// Performs `reload`.
///
/// # Errors
/// No supervisor, bad files (64, 77, as `check` has them), a difference that nobody confirmed.
pub fn reload(global: &Global, args: ReloadArgs) -> Outcome {
    let socket = dirs(global)?.operator_socket();
    let runtime = client_runtime()?;
    let mut body = ReloadBody { agent: args.agent, token: None, reason: args.reason };
    let ask = |body: &ReloadBody| {
        let answer: Result<Difference, ClientError> = runtime.block_on(client::post(&socket, RELOAD, body));
        answer.map_err(failure)
    };
    let difference = ask(&body)?;
    if difference.is_empty() || args.dry_run {
        show(global, &difference)?;
        return Ok(0);
    }
    if !args.yes {
        show(global, &difference)?;
        confirm()?;
    }
    body.token = Some(difference.token);
    let done = ask(&body)?;
    if args.yes || global.json {
        show(global, &done)?;
    }
    if !global.json {
        eprintln!("reloaded");
    }
    Ok(0)
}

/// A whole report of files comes as it is.
fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(text, code) if text.starts_with("error: ") => Failure::rendered(code, text),
        error => error.into(),
    }
}

fn show(global: &Global, difference: &Difference) -> Result<(), Failure> {
    if global.json {
        print(&(serde_json::to_string_pretty(difference).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
    } else if difference.is_empty() {
        print("nothing has changed\n");
    } else {
        print(&difference.to_string());
    }
    Ok(())
}

fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked here, so nothing was done")
            .help("say it beforehand: `agt-supervise reload --yes`, or only look: `agt-supervise reload --dry-run`"));
    }
    eprint!("Do this? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(exit::NO, "nothing was done"))
    }
}
