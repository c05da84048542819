//! `logs`: what an agent printed, as far as it was kept.
//!
//! Not everything is: an agent whose streams are its caller's own (`raw`) writes past us. Whoever asks for such a log is told that, and
//! how the next run would have one.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::why::{identity, known_saga};
use super::{Failure, Outcome, dirs, print, show};
use crate::cli::Global;
use crate::driver::streams::escaped;
use crate::exit;

/// What `logs` says at its end, in `--help`.
pub(crate) const HELP: &str = "Kept is what goes through us: with `stdio: prefixed` (several agents have that by themselves), at a terminal of the agent's own, \
and under `serve`. With `stdio: raw`, which is also how one agent runs where there is no terminal, it goes to whoever ran it, and \
nothing is kept. A full log (`log: {max_size: ...}`) goes on in a new file; the older ones stand beside it as NAME.log.1 and so on. \
Control characters are shown, not sent. `tail -f` of the file that `status NAME --json` has as `log` follows it.

Examples:
  agt-supervise logs researcher
  agt-supervise logs researcher --lines 20
  agt-supervise logs refund-1a2b3c4d/ship";

/// Most lines of a log in one JSON document: the newest.
const JSON_LINES_MAX: usize = 100_000;

/// `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The agent's name, or a step of a saga as `ps` names it
    pub agent: String,
    /// Only this many lines from the end
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<usize>,
}

/// Prints an agent's log, control characters shown instead of sent.
///
/// # Errors
/// No log of that name.
pub fn logs(global: &Global, args: &LogsArgs) -> Outcome {
    let path = place(global, &args.agent)?;
    let file = File::open(&path).map_err(|e| missing(global, &args.agent, &path, &e))?;
    let unreadable = |e: std::io::Error| Failure::new(exit::DATA, format!("{}: {e}", path.display()));
    let mut last = std::collections::VecDeque::new();
    let (mut reader, mut line, mut is_empty) = (BufReader::new(file), Vec::new(), true);
    while reader.read_until(b'\n', &mut line).map_err(unreadable)? > 0 {
        is_empty = false;
        let text = String::from_utf8_lossy(&line);
        // A terminal ends its lines with CR LF.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = escaped(text.strip_suffix('\r').unwrap_or(text)) + "\n";
        line.clear();
        match args.lines {
            None if !global.json => print(&text),
            keep => {
                last.push_back(text);
                if last.len() > keep.unwrap_or(JSON_LINES_MAX) {
                    last.pop_front();
                }
            }
        }
    }
    if global.json {
        let lines: Vec<&str> = last.iter().map(|text| text.trim_end_matches('\n')).collect();
        show::json(&serde_json::json!({ "agent": args.agent, "lines": lines }))?;
        return Ok(0);
    }
    last.iter().for_each(|text| print(text));
    crate::say::flush();
    if is_empty {
        eprintln!("{} has printed nothing yet", args.agent);
    }
    let older = PathBuf::from(format!("{}.1", path.display()));
    if older.exists() && args.lines.is_none() {
        eprintln!("older output is in {} and the files with higher numbers", older.display());
    }
    Ok(0)
}

/// Where the log of an agent or of a step would be.
fn place(global: &Global, name: &str) -> Result<PathBuf, Failure> {
    // Nothing in such a part leads to another folder.
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let logs = dirs(global)?.logs();
    match name.split_once('/') {
        None if plain(name) => Ok(logs.join(format!("{name}.log"))),
        // The log of a step is that of all sagas of the name; the id is the name and a random end.
        Some((saga, step)) if plain(saga) && plain(step) => {
            let of = saga.rsplit_once('-').map_or(saga, |(of, _)| of);
            Ok(logs.join(format!("saga-{of}-{step}.log")))
        }
        _ => Err(Failure::usage(format!("`{}` is no agent's name", escaped(name)))
            .help("`agt-supervise ps` names the agents that run, `agt-supervise trust show` all that ever did")),
    }
}

/// Why there is none. Whether there is such an agent at all comes first.
fn missing(global: &Global, name: &str, path: &Path, error: &std::io::Error) -> Failure {
    let known = match name.split_once('/') {
        Some((saga, _)) => known_saga(global, saga),
        None => identity(global, name).map(|identity| identity.is_some()),
    };
    match known {
        Err(failure) => failure,
        Ok(false) => Failure::usage(format!("no agent is called `{}`", escaped(name)))
            .help("`agt-supervise ps` names the agents that run, `agt-supervise trust show` all that ever did"),
        Ok(true) if error.kind() != std::io::ErrorKind::NotFound => {
            Failure::new(exit::DATA, format!("the log of {name} can't be read: {}: {error}", path.display()))
        }
        Ok(true) => Failure::new(exit::NO, format!("{name} has no log: what it printed went straight to whoever ran it"))
            .help("`run --stdio prefixed`, or `stdio: prefixed` in its file, keeps one; `agt-supervise logs --help` says when there is one"),
    }
}
