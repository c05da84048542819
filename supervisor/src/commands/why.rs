//! `why`: the last denials in the agent's terms, with what would allow them; read from the store, so that it works after the end too.

use std::path::PathBuf;

use agt_rings::Ring;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::asking::{self, Question};
use super::{Failure, Outcome, dirs, print, show};
use crate::cli::Global;
use crate::config::plan::Identity;
use crate::config::spec::HostPort;
use crate::denials::memory::Kept;
use crate::denials::{Denial, Tried, advice, words};
use crate::driver::denied::DENIALS;
use crate::driver::streams::escaped;
use crate::exit;
use crate::govern::stored;
use crate::reloading::{LAUNCHED, Launched};
use crate::store::{DATABASE_FILE, Reader};

/// What `why` says at its end, in `--help`.
pub(crate) const HELP: &str = "Without a question: the last denials, newest first; a running supervisor writes them down within seconds. With --path, \
--call or --connect: what the agent's file as it stands now would come to, by the evaluator that `run` uses, without anything \
being started; exit code 0 when it would be allowed, 1 when not or when no plan can tell (`unknown`). An agent's name stands for its file with what its last launch had \
beside it (operator's file, workdir, ring); --operator names another one. A FILE stands for itself, as for `check`.

--json without a question: {agents: [{agent, denials: [{id, words, tried, class, rule, layer, ring, pid, comm, count, first_ms, \
last_ms, why, allow: {ring, agent_yaml, operator, text}, retry}], forgotten, lost}], not_seen}. With one: {agent, file, \
operator_file, operator_named, ring, question, answer} and, if the answer is `allowed`, by; if `denied`, layer, rule, errno, why, \
allow: {agent_yaml, operator, text}, retry; if `unknown`, why. Times are milliseconds since the epoch; null is \"nothing\".

Examples:
  agt-supervise why
  agt-supervise why researcher --last 3
  agt-supervise why 4f2c
  agt-supervise why refund-1a2b3c4d/ship
  agt-supervise why researcher --path /srv/data/prices.csv
  agt-supervise why agent.yaml --path out.txt --write
  agt-supervise why researcher --call ptrace
  agt-supervise why researcher --connect 127.0.0.1:8099";

/// What can't be seen, wherever denials are listed.
const NOT_SEEN: &str = "not seen: what mounts and Landlock refuse (ENOENT, EROFS, EACCES): the kernel tells nobody, but for its audit log where \
audit is on. `agt-supervise why AGENT --path PATH` asks the plan, `agt-supervise learn -- COMMAND` sees them happen.";

/// `why`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("question").args(["path", "call", "connect"]))]
pub struct WhyArgs {
    /// The agent's name, a saga or a step of one as `ps` names it, the id of a denial, or (with a question) an agent.yaml; everybody without it
    #[arg(value_name = "AGENT|ID|FILE")]
    pub who: Option<String>,
    /// At most this many denials
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub last: u32,
    /// Whether the agent can read this path (one that is not absolute: from its workdir)
    #[arg(long, value_name = "PATH", requires = "who")]
    pub path: Option<PathBuf>,
    /// Whether it can write it
    #[arg(long, requires = "path")]
    pub write: bool,
    /// Whether it can make this system call
    #[arg(long, value_name = "NAME", requires = "who")]
    pub call: Option<String>,
    /// Whether it can connect there
    #[arg(long, value_name = "HOST:PORT", requires = "who", value_parser = destination)]
    pub connect: Option<HostPort>,
    /// The operator's file, for a question (default: that of the agent's last launch; for a FILE the usual one)
    #[arg(long, value_name = "FILE")]
    pub operator: Option<PathBuf>,
}

fn destination(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text).map_err(|bad| format!("{}; {}", bad.message, bad.instead))
}

/// The denials of one agent.
#[derive(Debug)]
struct OfAgent {
    agent: String,
    kept: Kept,
}

/// Performs the verb.
///
/// # Errors
/// Nobody of that name, no such id; for a question a file that does not pass.
pub fn why(global: &Global, args: &WhyArgs) -> Outcome {
    let question = match (&args.path, &args.call, &args.connect) {
        (Some(path), _, _) => Some(Question::Path { path: path.clone(), access: asking::access(args.write) }),
        (_, Some(call), _) => Some(Question::Call(call.clone())),
        (_, _, Some(to)) => Some(Question::Connect(to.clone())),
        (None, None, None) => None,
    };
    match (question, &args.who) {
        (Some(question), Some(who)) => asking::ask(global, who, args.operator.as_deref(), &question),
        _ => list(global, args.who.as_deref(), args.last as usize),
    }
}

fn list(global: &Global, who: Option<&str>, last: usize) -> Outcome {
    let mut found = denials(global, who)?;
    for agent in &mut found {
        agent.kept.denials.truncate(last);
    }
    if global.json {
        let agents: Vec<Value> = found.iter().map(agent_json).collect();
        show::json(&json!({ "agents": agents, "not_seen": NOT_SEEN }))?;
        return Ok(0);
    }
    let mut text = String::new();
    for OfAgent { agent, kept } in &found {
        kept.denials.iter().for_each(|denial| text.push_str(&paragraph(agent, denial)));
        if kept.forgotten > 0 {
            text.push_str(&format!("{agent}: {} older kinds were forgotten for want of room\n", kept.forgotten));
        }
        if kept.lost > 0 {
            text.push_str(&format!("{agent}: {} denials came too fast to be told apart\n", kept.lost));
        }
    }
    if text.is_empty() {
        let whose = who.map_or_else(String::new, |who| format!(" of {}", escaped(who)));
        text = format!("no denials{whose} are known\n");
    }
    print(&text);
    eprintln!("{NOT_SEEN}");
    Ok(0)
}

/// The denials that are asked for: of one agent, with one id, or all.
fn denials(global: &Global, who: Option<&str>) -> Result<Vec<OfAgent>, Failure> {
    let dirs = dirs(global)?;
    let unknown = |who: &str| {
        Failure::usage(format!("no agent or saga is called `{0}`, and no denial has the id `{0}`", escaped(who)))
            .help("`agt-supervise why` lists the denials of all agents; a question (--path, --call, --connect) also takes a file")
    };
    if !dirs.state.join(DATABASE_FILE).exists() {
        return who.map_or(Ok(Vec::new()), |who| Err(unknown(who)));
    }
    let reader = Reader::open(&dirs.state)?;
    let mut found = Vec::new();
    for state in reader.states(DENIALS)? {
        let kept: Kept = serde_json::from_value(state.value)
            .map_err(|e| Failure::new(exit::DATA, format!("the denials of {} can't be read: {e}", state.agent)))?;
        found.push(OfAgent { agent: state.agent, kept });
    }
    let Some(who) = who else { return Ok(found) };
    // An agent, a step as `ps` names it, or all steps of a saga.
    let saga = who.split('/').next().unwrap_or(who);
    let means = |agent: &OfAgent| agent.agent == who || agent.agent.split_once('/').is_some_and(|(of, _)| of == who);
    let is_known = |reader: &Reader| -> Result<bool, Failure> {
        Ok(reader.state(who, stored::IDENTITY)?.is_some() || !reader.saga_events(saga)?.is_empty())
    };
    if found.iter().any(means) || is_known(&reader)? {
        found.retain(means);
        return Ok(found);
    }
    for agent in &mut found {
        agent.kept.denials.retain(|denial| denial.id == who);
        (agent.kept.forgotten, agent.kept.lost) = (0, 0);
    }
    found.retain(|agent| !agent.kept.denials.is_empty());
    if found.is_empty() { Err(unknown(who)) } else { Ok(found) }
}

/// Whose file an agent was started from.
pub(super) fn identity(global: &Global, name: &str) -> Result<Option<Identity>, Failure> {
    stored_of(global, name, stored::IDENTITY)
}

/// How an agent was last launched; `None` where that was without a file, or before this was kept.
pub(super) fn launched(global: &Global, name: &str) -> Result<Option<Launched>, Failure> {
    stored_of(global, name, LAUNCHED)
}

/// Whether there is, or was, a saga of this id.
pub(super) fn known_saga(global: &Global, id: &str) -> Result<bool, Failure> {
    let dirs = dirs(global)?;
    if !dirs.state.join(DATABASE_FILE).exists() {
        return Ok(false);
    }
    Ok(!Reader::open(&dirs.state)?.saga_events(id)?.is_empty())
}

fn stored_of<T: DeserializeOwned>(global: &Global, name: &str, kind: &str) -> Result<Option<T>, Failure> {
    let dirs = dirs(global)?;
    if !dirs.state.join(DATABASE_FILE).exists() {
        return Ok(None);
    }
    let state = Reader::open(&dirs.state)?.state(name, kind)?;
    let read = state.map(|state| serde_json::from_value(state.value)).transpose();
    read.map_err(|e| Failure::new(exit::DATA, format!("what is stored of {name} ({kind}) can't be read: {e}")))
}

fn agent_json(agent: &OfAgent) -> Value {
    let denial = |denial: &Denial| {
        let mut value = serde_json::to_value(denial).expect("plain data");
        value["words"] = json!(denial.tried.to_string());
        value["rule"] = json!(denial.tried.rule());
        value["layer"] = json!(layer(denial));
        value["why"] = json!(advice::reason(denial));
        value["allow"] = serde_json::to_value(advice::advice(&agent.agent, denial)).expect("plain data");
        value["retry"] = json!(matches!(denial.tried, Tried::Rate { .. }));
        value
    };
    json!({
        "agent": agent.agent,
        "denials": agent.kept.denials.iter().map(denial).collect::<Vec<Value>>(),
        "forgotten": agent.kept.forgotten,
        "lost": agent.kept.lost,
    })
}

/// What refused it.
fn layer(denial: &Denial) -> &'static str {
    match denial.tried {
        Tried::Call { .. } => "seccomp",
        Tried::Name { .. } => "name rules",
        Tried::Network { .. } => "network",
        Tried::Rate { .. } => "rate",
    }
}

fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| format!("{time:.0}"))
}

/// One denial for people. What an agent may have had a part in is escaped.
fn paragraph(agent: &str, denial: &Denial) -> String {
    let Denial { id, tried, ring, pid, comm, count, first_ms, last_ms, .. } = denial;
    let times = match count {
        1 => time(*last_ms),
        _ => format!("{count} times, {} to {}", time(*first_ms), time(*last_ms)),
    };
    let answered = match tried {
        Tried::Call { errno, .. } => format!(", answered with {}", words::errno(*errno)),
        Tried::Name { .. } | Tried::Network { .. } | Tried::Rate { .. } => String::new(),
    };
    let who = if *pid == 0 { String::new() } else { format!("   by {} (pid {pid})", escaped(comm)) };
    format!(
        "{id}  {agent}  {}{who}   {times}\n      {ring}, {}, rule {}{answered}\n      why: {}\n      to allow it: {}\n",
        escaped(&tried.to_string()),
        layer(denial),
        escaped(&tried.rule()),
        escaped(&advice::reason(denial)),
        escaped(&advice::advice(agent, denial).text),
    )
}

/// The ring in which a question is asked, for words.
pub(super) fn ring_words(ring: Ring) -> String {
    format!("{ring}, its ceiling")
}
