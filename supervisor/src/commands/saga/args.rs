//! What the verbs of `saga` take.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

/// What can be done with sagas.
#[derive(Debug, Subcommand)]
pub enum SagaVerb {
    /// Run a saga to its end: exit 0 completed, 1 compensated, 2 partially compensated, 3 abandoned, 75 stuck
    #[command(after_help = "Examples:\n  agt-supervise saga run saga.yaml")]
    Run(RunArgs),
    /// List sagas, newest change first
    #[command(after_help = "Examples:\n  agt-supervise saga list\n  agt-supervise saga list --unfinished --json")]
    List {
        /// Only those that are not over
        #[arg(long)]
        unfinished: bool,
    },
    /// Show one saga: its steps and its history
    #[command(after_help = "Examples:\n  agt-supervise saga show refund-1a2b3c4d")]
    Show {
        /// The saga's id
        id: String,
    },
    /// Take a saga up where its journal ends: after a crash, a stop, or an operator's word
    #[command(after_help = "Examples:\n  agt-supervise saga resume refund-1a2b3c4d")]
    Resume(ResumeArgs),
    /// Settle a step that waits for an operator
    #[command(
        after_help = "Examples:\n  agt-supervise saga resolve refund-1a2b3c4d charge --applied --reason \"found in the ledger\""
    )]
    Resolve(ResolveArgs),
    /// Undo a saga; `resume` then does it
    #[command(after_help = "Examples:\n  agt-supervise saga cancel refund-1a2b3c4d --reason \"wrong order\"")]
    Cancel(OrderArgs),
    /// Give a saga up as it stands; nothing is undone
    #[command(after_help = "Examples:\n  agt-supervise saga abandon refund-1a2b3c4d --reason \"settled by hand\"")]
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
