//! `trust` and `attest`: an operator's decisions about who may do how much; and the way to the governor for every verb.
//!
//! A running supervisor is asked over its operator socket. Without one the same question goes straight to the state store,
//! whose lock keeps a supervisor from starting meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agt_rings::Ring;
use agt_sre::trust::Score;

use super::check::{config_failure, surroundings};
use super::{Failure, Outcome, client_runtime, dirs, print};
use crate::cli::Global;
use crate::config::{self, Overrides};
use crate::control::client::{self, ClientError};
use crate::dirs::Dirs;
use crate::exit;
use crate::govern::Governor;
use crate::govern::ask::{Answer, Ask, GOVERN, Introduced, TrustView};
use crate::govern::attestation::Subject;
use crate::govern::governor::GovernError;
use crate::govern::kill_mark;
use crate::store::{DATABASE_FILE, Store};

/// `trust ...`.
#[derive(Debug, clap::Subcommand)]
pub enum TrustVerb {
    /// Show the score of one agent or all, and the ring that it reaches
    #[command(after_help = "Examples:\n  agt-supervise trust show researcher")]
    Show {
        /// The agent's name; every agent without it
        agent: Option<String>,
    },
    /// Set the score and its baseline: an operator's decision, kept in the audit log
    #[command(
        after_help = "Examples:\n  agt-supervise trust set billing 800 --reason \"reviewed\"\n  agt-supervise trust set agents/billing.yaml 800 --reason \"reviewed\""
    )]
    Set {
        /// The agent's name; or its file, also before it has ever run
        #[arg(value_name = "AGENT|FILE")]
        agent: String,
        /// 0 to 1000: R0 needs 950 and an attestation, R1 800, R2 600
        #[arg(value_parser = clap::value_parser!(u16).range(0..=1000))]
        score: u16,
        /// Why; kept in the audit log
        #[arg(long, value_parser = reason)]
        reason: String,
        /// The operator's file, when the agent is named by its file
        #[arg(long, value_name = "FILE")]
        operator: Option<PathBuf>,
    },
    /// Forget an identity with its score, budgets and breaker, so that another file may have its name
    #[command(after_help = "Examples:\n  agt-supervise trust forget researcher --reason \"moved to another folder\"")]
    Forget {
        /// The agent's name
        agent: String,
        /// Why; kept in the audit log
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

/// `attest`.
#[derive(Debug, clap::Args)]
pub struct AttestArgs {
    /// The agent's name: the plan of its last start is attested; or its file: the plan that `run FILE` would start
    #[arg(value_name = "AGENT|FILE")]
    pub agent: String,
    /// Why; kept in the audit log
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// For how long, at most 24h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub ttl: Duration,
    /// The operator's file, when the agent is named by its file
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(24 * 3600);
    let ttl = humantime::parse_duration(text).map_err(|e| format!("{e}; write 30m or 8h"))?;
    match (Duration::from_secs(1)..=longest).contains(&ttl) {
        true => Ok(ttl),
        false => Err("an attestation holds for 1 second to 24 hours".to_owned()),
    }
}

/// A reason is for those who read the audit log later: an empty one tells them nothing.
pub(super) fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why: it is kept in the audit log".to_owned()),
        said => Ok(said.to_owned()),
    }
}

/// Performs `trust ...`.
///
/// # Errors
/// No such agent; a store or supervisor that can't be asked.
pub fn trust(global: &Global, verb: TrustVerb) -> Outcome {
    let ask = match verb {
        TrustVerb::Show { agent } => Ask::Trust { agent },
        TrustVerb::Set { agent, score, reason, operator } => {
            let score = Score::new(score).ok_or_else(|| Failure::usage("a score is 0 to 1000"))?;
            let (agent, file) = named(global, agent, operator.as_deref())?;
            Ask::SetTrust { agent, score, reason, file }
        }
        TrustVerb::Forget { agent, reason } => Ask::Forget { agent, reason },
    };
    show(global, self::ask(global, ask)?)
}

/// Performs `attest`.
///
/// # Errors
/// As [`trust`].
pub fn attest(global: &Global, args: AttestArgs) -> Outcome {
    let (agent, file) = named(global, args.agent, args.operator.as_deref())?;
    let ask = Ask::Attest { agent, reason: args.reason, ttl_s: args.ttl.as_secs(), file };
    show(global, self::ask(global, ask)?)
}

/// An agent by its name, or by its file: then what that says comes along.
fn named(
    global: &Global,
    agent: String,
    operator: Option<&Path>,
) -> Result<(String, Option<Box<Introduced>>), Failure> {
    // No name has a dot or a slash.
    if !agent.contains(['.', '/']) {
        return match operator {
            None => Ok((agent, None)),
            Some(_) => Err(Failure::usage("--operator is for an agent that is named by its file")),
        };
    }
    let around = surroundings(&dirs(global)?)?;
    let plan = config::load_agent(Path::new(&agent), &around, operator, &Overrides::default());
    let plan = plan.map_err(|e| config_failure(&e))?;
    let program = match plan.ceiling {
        Ring::R0 => Some(
            plan.program_hash()
                .map_err(|e| Failure::new(exit::USAGE, format!("{} can't be read: {e}", plan.program.display())))?,
        ),
        Ring::R1 | Ring::R2 | Ring::R3 => None,
    };
    let subject = Subject { plan: plan.hash().to_string(), program: program.map(|hash| hash.to_string()) };
    let name = plan.name().to_owned();
    Ok((name, Some(Box::new(Introduced { identity: plan.identity, slos: plan.slos, subject }))))
}

/// `revive` for an agent that no supervisor runs.
pub(super) fn revive_without_supervisor(dirs: &Dirs, agent: &str, reason: &str) -> Outcome {
    let ask = Ask::Revive { agent: agent.to_owned(), reason: reason.to_owned() };
    if let Answer::Done(text) = on_store(dirs, ask)? {
        eprintln!("{text}");
    }
    Ok(0)
}

/// Asks the supervisor, or the store where there is none.
pub(super) fn ask(global: &Global, ask: Ask) -> Result<Answer, Failure> {
    let dirs = dirs(global)?;
    let socket = dirs.operator_socket();
    let answered = client_runtime()?.block_on(async {
        match &ask {
            Ask::Slo { .. } | Ask::Trust { .. } => client::look::<_, Answer>(&socket, GOVERN, &ask).await,
            _ => client::post::<_, Answer>(&socket, GOVERN, &ask).await,
        }
    });
    match answered {
        Err(ClientError::Nobody { .. }) => on_store(&dirs, ask),
        answered => Ok(answered?),
    }
}

fn on_store(dirs: &Dirs, ask: Ask) -> Result<Answer, Failure> {
    let for_all = matches!(ask, Ask::Slo { agent: None } | Ask::Trust { agent: None });
    let introduces = matches!(ask, Ask::SetTrust { file: Some(_), .. } | Ask::Attest { file: Some(_), .. });
    if !introduces && !dirs.state.join(DATABASE_FILE).exists() {
        // Looking must not make a state directory.
        return match ask {
            Ask::Slo { .. } if for_all => Ok(Answer::Slos(Vec::new())),
            Ask::Trust { .. } if for_all => Ok(Answer::Trust(Vec::new())),
            _ => Err(Failure::new(exit::USAGE, format!("no agent has run with {} yet", dirs.state.display()))
                .help("an agent is known after its first `agt-supervise run`, or by its file: `agt-supervise trust set FILE.yaml ...`")),
        };
    }
    let by = nix::unistd::geteuid().as_raw();
    client_runtime()?.block_on(async {
        let store = Store::open(&dirs.state)?;
        kill_mark::take_up(&store, &dirs.state).await.map_err(|e| Failure::from(&e))?;
        let answer = Governor::new(store.clone()).ask(ask, by).await;
        store.close().await?;
        answer.map_err(|error| match error {
            GovernError::Store(e) => e.into(),
            GovernError::State(ref e) => Failure::of(exit::DATA, e),
            GovernError::Unknown(_) => Failure::of(exit::USAGE, &error),
            GovernError::NameTaken { .. } => Failure::of(exit::REFUSED, &error),
            GovernError::NotNow(_) => Failure::of(exit::NO, &error),
        })
    })
}

fn show(global: &Global, answer: Answer) -> Outcome {
    let agents = match answer {
        Answer::Trust(agents) => agents,
        Answer::Done(text) => {
            eprintln!("{text}");
            return Ok(0);
        }
        Answer::Slos(_) => return Err(Failure::new(exit::BUG, "the supervisor answered another question")),
    };
    if global.json {
        print(&(serde_json::to_string_pretty(&agents).map_err(|e| Failure::of(exit::BUG, &e))? + "\n"));
        return Ok(0);
    }
    if agents.is_empty() {
        eprintln!("no agent has run with this state directory yet");
        return Ok(0);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["AGENT", "TRUST", "TIER", "BASELINE", "REACHES", "SUCCESSES", "VIOLATIONS", "MARKS"]);
    for agent in &agents {
        table.add_row([
            agent.agent.clone(),
            agent.score.to_string(),
            agent.tier.clone(),
            agent.baseline.to_string(),
            agent.ring.to_string(),
            agent.successes.to_string(),
            agent.violations.to_string(),
            marks(agent),
        ]);
    }
    print(&format!("{}\n", table.trim_fmt()));
    Ok(0)
}

fn marks(agent: &TrustView) -> String {
    let killed = agent.killed.as_ref().map(|killed| format!("killed ({})", killed.reason));
    let lowered = agent.own_score.map(|own| format!("lowered by an experiment (its own: {own})"));
    let marks: Vec<String> = killed.into_iter().chain(lowered).collect();
    if marks.is_empty() { "-".to_owned() } else { marks.join(", ") }
}
