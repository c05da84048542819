//! The command line: what was typed. What it means is each command's own matter.

mod starting;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub(crate) use starting::agent_name;
pub use starting::{EnforcementChoice, MetricsArgs, RunArgs, ServeArgs, StdioChoice};

use crate::commands;
use crate::control::protocol::ActWord;
use crate::exit;

/// Runs AI agents the way an operating system runs processes.
#[derive(Debug, Parser)]
#[command(name = "agt-supervise", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "Examples:\n  agt-supervise run agent.yaml\n  agt-supervise run --ring 3 -- python3 script.py\n  agt-supervise ps"
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Keep state, sockets and logs in this folder instead of the usual ones
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start agents in their rings and stay with them until they end
    #[command(
        after_help = starting::RUN_HELP
    )]
    Run(Box<RunArgs>),
    /// Start the agents of a folder and stay on as a service
    #[command(after_help = commands::run::SERVE_HELP)]
    Serve(ServeArgs),
    /// Check files and print the plan they resolve to; starts nothing
    #[command(
        after_help = "What this host would refuse or leave out is a warning, in the words of `run`, and `host` in --json; the exit code is about the files, \
which are checked on other hosts than they run on.\n\nExamples:\n  agt-supervise check agent.yaml\n  agt-supervise check agent.yaml --json\n  agt-supervise check --serve /srv/agents"
    )]
    Check(commands::check::CheckArgs),
    /// List the agents of the running supervisor
    #[command(after_help = "Examples:\n  agt-supervise ps\n  agt-supervise ps --json")]
    Ps,
    /// Watch what the agents use: CPU, memory, tasks, disk, waiting; one look where there is no terminal
    #[command(
        after_help = "Examples:\n  agt-supervise top\n  agt-supervise top --interval 5s\n  agt-supervise top --json"
    )]
    Top(commands::top::TopArgs),
    /// Show one agent: what is enforced, what it uses, what it died of
    #[command(after_help = "Examples:\n  agt-supervise status researcher\n  agt-supervise status researcher --json")]
    Status(OneAgent),
    /// Show what agents were denied and what would allow it; or ask what a plan says of a path, a call or a destination
    #[command(after_help = commands::why::HELP)]
    Why(commands::why::WhyArgs),
    /// Run a command once inside a ring, watch what it does, and propose the smallest agent.yaml for it
    #[command(after_help = commands::learn::HELP)]
    Learn(Box<commands::learn::LearnArgs>),
    /// Print what an agent printed: standard output and standard error, as far as they were kept
    #[command(after_help = commands::logs::HELP)]
    Logs(commands::logs::LogsArgs),
    /// Stop agents in order: signal, grace, then the whole tree
    #[command(
        after_help = "Examples:\n  agt-supervise stop researcher --reason \"night\"\n  agt-supervise stop --all --yes"
    )]
    Stop(ActArgs),
    /// End agents at once and verify that nothing is left; they stay dead until `revive`
    #[command(
        after_help = "Examples:\n  agt-supervise kill researcher --reason \"loops\"\n  agt-supervise kill refund-1a2b3c4d/ship --reason \"charges twice\"\n  agt-supervise kill --all --yes"
    )]
    Kill(ActArgs),
    /// Let a killed agent live again
    #[command(
        after_help = "Examples:\n  agt-supervise revive researcher --reason \"fixed\"\n  agt-supervise revive --all --yes --reason \"the model is mended\""
    )]
    Revive(ActArgs),
    /// Stop an agent, then start it again
    #[command(after_help = "Examples:\n  agt-supervise restart researcher --reason \"new key\"")]
    Restart(ActArgs),
    /// Read the files of running agents again, show what differs, and do it once it is confirmed
    #[command(
        after_help = "Examples:\n  agt-supervise reload --dry-run\n  agt-supervise reload researcher\n  agt-supervise reload --yes --reason \"more memory\""
    )]
    Reload(commands::reload::ReloadArgs),
    /// Show the limits that the kernel keeps, and change them while an agent runs
    #[command(
        subcommand,
        after_help = "Examples:\n  agt-supervise limits show\n  agt-supervise limits set researcher memory=768MiB --reason \"large index\""
    )]
    Limits(commands::limits::LimitsVerb),
    /// Freeze agents: every task stands still
    #[command(after_help = "Examples:\n  agt-supervise freeze researcher --reason \"a look inside\"")]
    Freeze(ActArgs),
    /// Let frozen agents run on
    #[command(after_help = "Examples:\n  agt-supervise thaw researcher --reason \"looked\"")]
    Thaw(ActArgs),
    /// Show what this machine can enforce, which rings that makes, and what to do about gaps
    #[command(after_help = "Examples:\n  agt-supervise doctor\n  agt-supervise doctor --json")]
    Doctor,
    /// Attack the rings from inside, harmlessly, and compare with what they promise
    #[command(after_help = "Examples:\n  agt-supervise probe --ring 2\n  agt-supervise probe --all --json")]
    Probe(commands::probe::ProbeArgs),
    /// Print the JSON schema of a kind of file, for editors
    #[command(
        after_help = "Examples:\n  agt-supervise schema agent > agent.schema.json\n  agt-supervise schema saga > saga.schema.json"
    )]
    Schema {
        /// agent, saga, chaos or operator
        kind: String,
    },
    /// Read the audit log, or verify that nobody changed it
    #[command(
        subcommand,
        after_help = "Examples:\n  agt-supervise audit show --agent researcher\n  agt-supervise audit verify"
    )]
    Audit(AuditVerb),
    /// Show how the service level objectives stand: status, budget left, burn rates
    #[command(
        after_help = "Examples:\n  agt-supervise slo\n  agt-supervise slo researcher --explain\n  agt-supervise slo rules agent.yaml"
    )]
    Slo(commands::slo::SloArgs),
    /// Show and set the trust that picks an agent's ring
    #[command(
        subcommand,
        after_help = "Examples:\n  agt-supervise trust show\n  agt-supervise trust set billing 800 --reason \"reviewed\""
    )]
    Trust(commands::trust::TrustVerb),
    /// Attest an R0 agent's plan and program, for at most a day
    #[command(
        after_help = "Examples:\n  agt-supervise attest deploy --reason \"release 4.2\" --ttl 1h\n  agt-supervise attest deploy.yaml --reason \"release 4.2\" --ttl 1h"
    )]
    Attest(commands::trust::AttestArgs),
    /// Run sagas: steps that either all take effect or are all undone
    #[command(
        subcommand,
        after_help = "Examples:\n  agt-supervise saga run saga.yaml\n  agt-supervise saga list --unfinished"
    )]
    Saga(commands::saga::SagaVerb),
    /// Do a real fault to an agent that opted in, watch what it makes of it, and undo it
    #[command(
        subcommand,
        after_help = "Examples:\n  agt-supervise chaos list\n  agt-supervise chaos plan chaos.yaml\n  agt-supervise chaos run chaos.yaml"
    )]
    Chaos(commands::chaos::ChaosVerb),
    /// Print a shell's completions
    #[command(after_help = "Examples:\n  agt-supervise completions bash > /etc/bash_completion.d/agt-supervise")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual: the page of the program, or of one of its verbs
    #[command(after_help = "Examples:\n  agt-supervise man > agt-supervise.1\n  agt-supervise man saga run | man -l -")]
    Man {
        /// The verb, `saga run` in two words; the program itself without it
        verb: Vec<String>,
    },
}

/// A verb about one agent.
#[derive(Debug, Args)]
pub struct OneAgent {
    /// The agent's name
    pub agent: String,
}

/// A verb that does something to agents.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// The agent's name, or a step of a saga as `ps` names it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub agent: Option<String>,
    /// Every agent
    #[arg(long)]
    pub all: bool,
    /// Why; kept in the audit log
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Don't ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// `audit`.
#[derive(Debug, Subcommand)]
pub enum AuditVerb {
    /// Print records, oldest first, with or without a running supervisor
    #[command(
        after_help = "Examples:\n  agt-supervise audit show\n  agt-supervise audit show --agent researcher --limit 20\n  agt-supervise audit show --after 100 --json"
    )]
    Show(AuditShowArgs),
    /// Find any edit, deletion, reorder, fork, cut tail or rewritten chain; exit 65 and the place if there is one
    #[command(
        after_help = "Examples:\n  agt-supervise audit verify\n  agt-supervise audit verify --db copy.db --heads audit-heads.log --key audit.pub\n\nA key and heads that were kept on another machine find what a thief of the whole state directory could hide."
    )]
    Verify(AuditVerifyArgs),
    /// Print the public key that verifies this log, to be kept elsewhere
    #[command(after_help = "Examples:\n  agt-supervise audit key > audit.pub")]
    Key,
}

/// `audit show`.
#[derive(Debug, Args)]
pub struct AuditShowArgs {
    /// Only records that concern this agent
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// From the record behind this number on; without it the newest records
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,
    /// At most this many records
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// `audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// The database, running or not, or a copy of it (default: the state directory's)
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
    /// The second file of signed heads (default: audit-heads.log beside the database)
    #[arg(long, value_name = "FILE")]
    pub heads: Option<PathBuf>,
    /// The public key: 64 hexadecimal digits, or a file that holds them (default: from audit.key beside the database)
    #[arg(long, value_name = "FILE|HEX")]
    pub key: Option<String>,
}

/// The program: parses, dispatches, turns the outcome into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            if e.use_stderr() {
                // Nobody is left to tell when standard error is gone.
                let _ = e.print();
                return ExitCode::from(exit::USAGE);
            }
            let code = match e.print() {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    let text = format!("standard output can't be written: {error}");
                    commands::Failure::new(exit::CANT_CREATE, text).report()
                }
                _ => 0,
            };
            crate::say::flush();
            return ExitCode::from(code);
        }
    };
    let global = cli.global;
    if global.json && matches!(cli.verb, Verb::Run(_) | Verb::Serve(_) | Verb::Learn(_)) {
        // Standard output is the agent's: what is for programs is what we say beside it.
        crate::say::speak_json();
    }
    let code = match cli.verb {
        Verb::Run(args) => commands::run::run(&global, *args),
        Verb::Serve(args) => commands::run::serve(&global, &args),
        Verb::Check(args) => commands::check::check(&global, &args),
        Verb::Ps => commands::show::ps(&global),
        Verb::Top(args) => commands::top::top(&global, &args),
        Verb::Limits(verb) => commands::limits::limits(&global, verb),
        Verb::Status(args) => commands::show::status(&global, &args.agent),
        Verb::Why(args) => commands::why::why(&global, &args),
        Verb::Learn(args) => commands::learn::learn(&global, *args),
        Verb::Logs(args) => commands::logs::logs(&global, &args),
        Verb::Stop(args) => commands::act::act(&global, &args, ActWord::Stop),
        Verb::Kill(args) => commands::act::act(&global, &args, ActWord::Kill),
        Verb::Revive(args) => commands::act::act(&global, &args, ActWord::Revive),
        Verb::Restart(args) => commands::act::act(&global, &args, ActWord::Restart),
        Verb::Reload(args) => commands::reload::reload(&global, args),
        Verb::Freeze(args) => commands::act::act(&global, &args, ActWord::Freeze),
        Verb::Thaw(args) => commands::act::act(&global, &args, ActWord::Thaw),
        Verb::Doctor => commands::host::doctor(&global),
        Verb::Probe(args) => commands::host::probe(&global, &args),
        Verb::Schema { kind } => commands::host::schema(&kind),
        Verb::Slo(args) => commands::slo::slo(&global, args),
        Verb::Trust(verb) => commands::trust::trust(&global, verb),
        Verb::Attest(args) => commands::trust::attest(&global, args),
        Verb::Saga(verb) => commands::saga::saga(&global, verb),
        Verb::Chaos(verb) => commands::chaos::chaos(&global, verb),
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "agt-supervise", &mut text);
            commands::print(&String::from_utf8_lossy(&text));
            Ok(0)
        }
        Verb::Audit(verb) => commands::audit::audit(&global, &verb),
        Verb::Man { verb } => commands::man::man(&verb),
    };
    let code = code.unwrap_or_else(|failure| failure.report());
    let code = commands::printed().map_or_else(|failure| failure.report(), |()| code);
    crate::say::flush();
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The words of a line as a shell would pass them to its first command.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
        for c in line.chars() {
            match c {
                '"' => (word, quoted) = (Some(word.unwrap_or_default()), !quoted),
                ' ' if !quoted => words.extend(word.take()),
                '>' | '|' if !quoted => break,
                c => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    /// Every command with the words that lead to it.
    fn all(command: &clap::Command, road: &str) -> Vec<(String, String)> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let below = command.get_subcommands().flat_map(|verb| all(verb, &format!("{road} {}", verb.get_name())));
        let mut found: Vec<(String, String)> = below.collect();
        found.push((road.to_owned(), help));
        found
    }

    #[test]
    fn every_verb_shows_examples_of_itself_and_its_own_parser_takes_them() {
        for (road, help) in all(&Cli::command(), "agt-supervise") {
            let (_, examples) =
                help.split_once("Examples:\n").unwrap_or_else(|| panic!("`{road} --help` has no examples"));
            let lines: Vec<&str> = examples.lines().take_while(|line| line.starts_with("  ")).map(str::trim).collect();
            assert!(lines.iter().any(|line| line.starts_with(&road)), "none is of `{road}`: {lines:?}");
            for line in lines.iter().filter(|line| line.starts_with("agt-supervise ")) {
                let parsed = Cli::try_parse_from(words(line));
                assert!(parsed.is_ok(), "`{line}` in `{road} --help`: {}", parsed.unwrap_err());
            }
        }
    }
}
