//! What is typed to start agents: `run` and `serve`.

use std::path::PathBuf;

use clap::Args;

use crate::config::AgentName;
use crate::telemetry::endpoint::Choice;

/// What `run` says at its end, in `--help`.
pub(super) const RUN_HELP: &str = "Examples:
  agt-supervise run agent.yaml
  agt-supervise run agents/
  agt-supervise run --ring 3 -- python3 script.py
  agt-supervise run --ring 3 --name trial -- python3 script.py
  agt-supervise run --ring 3 --enforcement best-effort -- python3 script.py
  agt-supervise run server.yaml --status-file end.json";

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// agent.yaml files, or folders of them
    #[arg(value_name = "FILE|FOLDER", required_unless_present = "command", conflicts_with = "command")]
    pub files: Vec<PathBuf>,
    /// The ring for a command without a file (0 to 3), or a lower ceiling for files: one above a file's own has no effect
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub ring: Option<u8>,
    /// The operator's file (default: operator.yaml under /etc/agt-supervise or the user's configuration)
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
    /// The folder in which the agent works
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<PathBuf>,
    /// How standard input and output are connected (default: by what they are)
    #[arg(long, value_enum)]
    pub stdio: Option<StdioChoice>,
    /// Write the agent's final state to this file as JSON
    #[arg(long, value_name = "PATH")]
    pub status_file: Option<PathBuf>,
    /// Say nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// Where metrics are served.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// What a command without a file is called (default: its script or program and six hexadecimal digits for where that stands)
    #[arg(long, value_name = "NAME", conflicts_with = "files", value_parser = agent_name)]
    pub name: Option<AgentName>,
    /// What becomes of a command without a file where this host can't enforce its ring in full; a file says it with `enforcement:`
    #[arg(long, value_enum, value_name = "HOW", conflicts_with = "files", default_value = "required")]
    pub enforcement: EnforcementChoice,
    /// A command to run without a file
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub(crate) fn agent_name(text: &str) -> Result<AgentName, String> {
    AgentName::try_from(text.to_owned()).map_err(|bad| format!("{}; {}", bad.message, bad.instead))
}

/// Where metrics are served.
#[derive(Debug, Clone, Copy, Args)]
pub struct MetricsArgs {
    /// Serve Prometheus metrics, /livez and /readyz here, or nowhere (`off`); without it at 127.0.0.1:9464 or the next free port
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<Choice>,
}

impl MetricsArgs {
    /// What was chosen.
    #[must_use]
    pub fn choice(self) -> Choice {
        self.metrics.unwrap_or_default()
    }
}

/// `--enforcement`: `enforcement:` of agent.yaml, for a command without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EnforcementChoice {
    /// It is not started
    Required,
    /// It is started, and what is not enforced is said
    BestEffort,
}

/// `--stdio`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum StdioChoice {
    /// The agent has our own input and output, untouched
    Raw,
    /// The agent has a terminal of its own: Ctrl-C goes to the agent alone; `agt-supervise stop NAME` elsewhere ends it
    Pty,
    /// Each line with the agent's name before it
    Prefixed,
}

/// `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A folder of agent.yaml files, which no agent writes: NAME works in FOLDER/NAME unless its file names a workdir
    pub folder: PathBuf,
    /// The operator's file
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
    /// Where metrics are served.
    #[command(flatten)]
    pub metrics: MetricsArgs,
}
