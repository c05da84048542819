//! What a question is about: a file, or an agent as it was last launched.
//!
//! An agent's name alone would mean its file with the usual operator's file, which is another plan than the one that runs: so a launch
//! keeps what it was launched with, and whoever asks is told which operator's file counted.

use std::path::{Path, PathBuf};

use super::Failure;
use super::why::{identity, known_saga, launched};
use crate::cli::Global;
use crate::config::Overrides;
use crate::driver::streams::escaped;

/// The file that is asked about, and what counts beside it.
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) operator: Option<PathBuf>,
    pub(super) overrides: Overrides,
    /// Whose word the operator's file is.
    pub(super) named: Named,
}

/// Whose word it is which operator's file counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// `--operator`.
    Typed,
    /// The agent's last launch.
    AtLaunch,
    /// Nobody's: the default one, if it is there.
    Nowhere,
}

impl Named {
    pub(super) fn word(self) -> &'static str {
        match self {
            Named::Typed => "typed",
            Named::AtLaunch => "last-launch",
            Named::Nowhere => "default",
        }
    }
}

/// What `who` names. An agent is asked about as it was last launched: with that operator's file and what was typed then.
pub(super) fn source(global: &Global, who: &str, typed: Option<&Path>) -> Result<Source, Failure> {
    let named = if typed.is_some() { Named::Typed } else { Named::Nowhere };
    let operator = typed.map(Path::to_path_buf);
    if Path::new(who).is_file() {
        return Ok(Source { file: PathBuf::from(who), operator, overrides: Overrides::default(), named });
    }
    let Some(identity) = identity(global, who)? else {
        if let Some((saga, _)) = who.split_once('/').filter(|(saga, _)| known_saga(global, saga).is_ok_and(|is| is)) {
            let text = format!("{} is a step of a saga: what its plan comes to is asked of no step", escaped(who));
            return Err(Failure::usage(text)
                .help(format!("`agt-supervise why {}` lists what its steps were denied", escaped(saga))));
        }
        return Err(Failure::usage(format!("no agent is called `{}`, and there is no such file", escaped(who)))
            .help("name an agent.yaml, or an agent that has run with this state directory"));
    };
    let launched =
        launched(global, who)?.filter(|launched| launched.file.canonicalize().is_ok_and(|f| f == identity.source));
    let Some(launched) = launched else {
        return Ok(Source { file: identity.source, operator, overrides: Overrides::default(), named });
    };
    let (operator, named) = match (operator, launched.operator) {
        (None, Some(operator)) => (Some(operator), Named::AtLaunch),
        (operator, _) => (operator, named),
    };
    Ok(Source { file: identity.source, operator, overrides: launched.overrides, named })
}
