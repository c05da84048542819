//! What a person sees of a saga: a line per transition while it runs, a table of its steps at the end.

use std::fmt::Write as _;

use agt_saga::id::RunKind;
use agt_saga::machine::{Phase, Stage, State};
use agt_saga::outcome::{Ending, Verdict};
use agt_saga::record::{Because, Effect, Event, Record, Vote};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use crate::config::Color;
use crate::driver::streams::escaped;

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";

/// How a run ended, in words.
#[must_use]
pub fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("exited {code}"),
        Ending::Signalled(signal) => format!("ended by signal {signal}"),
        Ending::TimedOut => "ran into its time limit and was ended".to_owned(),
        Ending::Cancelled => "cancelled and ended".to_owned(),
        Ending::Killed { reason, .. } => format!("killed: {reason}"),
        Ending::NotStarted { reason, .. } => format!("not started: {reason}"),
        Ending::Status(status) => format!("answered with status {status}"),
        Ending::Errored { error, .. } => format!("answered with the error {error}"),
        Ending::NoAnswer { reason } => format!("gave no answer: {reason}"),
        Ending::BadOutput { reason } => format!("done, but {reason}"),
    }
}

/// The line for a record; none for what follows from the line before it.
#[must_use]
pub fn line(saga: &str, record: &Record, color: Color) -> Option<String> {
    let (step, words, code) = match &record.event {
        Event::Started(run) => {
            let word = match run.kind {
                RunKind::Forward => "runs",
                RunKind::Check => "checks whether its effect is there",
                RunKind::Compensate => "undoes",
            };
            let attempt = if run.attempt > 1 { format!(" (attempt {})", run.attempt) } else { String::new() };
            (run.step.as_str(), format!("{word}{attempt}"), None)
        }
        Event::Finished(finished) => {
            let (word, code) = match (finished.verdict, finished.run.kind) {
                (Verdict::Ok, RunKind::Compensate) => ("undone".to_owned(), YELLOW),
                (Verdict::Ok, _) => ("done".to_owned(), GREEN),
                (Verdict::Applied, _) => ("its effect is there".to_owned(), GREEN),
                (Verdict::NotApplied, _) => ("its effect is not there".to_owned(), YELLOW),
                (Verdict::Unknown, _) => (format!("{}: its effect is unknown", ending(&finished.outcome.ending)), RED),
                _ => (format!("failed: {}", ending(&finished.outcome.ending)), RED),
            };
            let note = finished.outcome.note.as_deref().and_then(|note| note.lines().next_back());
            let note = note.filter(|_| code == RED).map_or(String::new(), |note| format!(" | {note}"));
            (finished.run.step.as_str(), format!("{word}{note}"), Some(code))
        }
        Event::Retry(retry) => {
            let wait = (retry.due - record.at).max(0);
            (retry.step.as_str(), format!("is tried again in {:.1} s", wait as f64 / 1000.0), None)
        }
        Event::GaveUp(gave) => {
            let effect = if gave.effect == Effect::Unknown { ", its effect unknown" } else { "" };
            (gave.step.as_str(), format!("given up{effect}: {}", gave.why), Some(RED))
        }
        Event::Unwinding(because) | Event::Halted(because) => {
            let why = match because {
                Because::Failed { step } => format!("step `{step}` failed"),
                Because::Cancelled(authority) => format!("cancelled by {}", authority.by),
                Because::Deadline => "its time limit passed".to_owned(),
            };
            ("", format!("turns back: {why}"), Some(YELLOW))
        }
        Event::Bypassed(bypassed) => (bypassed.step.as_str(), "is not needed".to_owned(), None),
        Event::Slept(slept) => {
            let wait = (slept.due - record.at).max(0);
            (slept.step.as_str(), format!("waits for {:.1} s", wait as f64 / 1000.0), None)
        }
        Event::Rang(rang) => (rang.step.as_str(), "has waited".to_owned(), Some(GREEN)),
        Event::Asked(asked) => (asked.step.as_str(), "waits for an approval".to_owned(), Some(YELLOW)),
        Event::Decided(decided) => {
            let code = if decided.vote == Vote::Approve { GREEN } else { RED };
            (decided.step.as_str(), decided.why.clone(), Some(code))
        }
        Event::Spread(spread) => (spread.step.as_str(), format!("has {} branches", spread.items.len()), None),
        Event::Gathered(gathered) => {
            (gathered.step.as_str(), format!("done: {} branches are", gathered.winners.len()), Some(GREEN))
        }
        Event::Dropped(dropped) => (dropped.step.as_str(), format!("counts no more: {}", dropped.why), Some(YELLOW)),
        Event::Parked(parked) => (parked.step.as_str(), format!("waits for an operator: {}", parked.why), Some(RED)),
        Event::Left(left) => (left.step.as_str(), format!("stays as it is: {}", left.why), Some(YELLOW)),
        Event::Lost(run) => (run.step.as_str(), "was running when the supervisor stopped".to_owned(), Some(YELLOW)),
        Event::Recovered => ("", "taken up again; nothing of it runs any more".to_owned(), None),
        _ => return None,
    };
    // One line each, whatever a step wrote.
    let words = escaped(&words.replace('\n', " | "));
    let words = match (color, code) {
        (Color::Always, Some(code)) => format!("\x1b[{code}m{words}\x1b[0m"),
        _ => words,
    };
    let step = if step.is_empty() { String::new() } else { format!("{step}  ") };
    Some(format!("{saga}  {step}{words}"))
}

/// The saga's steps, as text.
#[must_use]
pub fn table(state: &State) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["STEP", "STATE", "RUNS", "UNDOS", "OUTPUT"]);
    for (name, _, slot) in state.nodes() {
        let output = if slot.output().is_null() { String::new() } else { cut(&slot.output().to_string()) };
        let runs = [RunKind::Forward, RunKind::Compensate].map(|kind| slot.attempts(kind).to_string());
        let [runs, undos] = runs;
        table.add_row([name, slot.stage().as_str().to_owned(), runs, undos, escaped(&output)]);
    }
    let mut text = format!("saga {} ({}): {}\n", state.id(), state.plan().name(), state.word());
    for line in table.to_string().lines() {
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for (name, _, slot) in state.nodes() {
        if let Stage::Parked { why, kind } = slot.stage() {
            let question = if *kind == RunKind::Compensate { "is its effect gone?" } else { "is its effect there?" };
            let _ = writeln!(text, "{name} waits for an operator: {}; {question}", escaped(why));
            let _ = writeln!(
                text,
                "help: agt-supervise saga resolve {} {name} --applied|--not-applied|--retry|--skip --reason TEXT",
                state.id(),
            );
        }
    }
    text
}

/// As much of an output as fits a line.
fn cut(text: &str) -> String {
    const WIDTH: usize = 60;
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 3).chain("...".chars()).collect()
}

/// The saga as JSON; times in milliseconds since the epoch.
#[must_use]
pub fn as_json(state: &State, records: &[Record]) -> Value {
    let steps: Vec<Value> = state
        .nodes()
        .map(|(name, _, slot)| {
            json!({
                "name": name,
                "state": slot.stage().as_str(),
                "runs": slot.attempts(RunKind::Forward),
                "checks": slot.attempts(RunKind::Check),
                "undos": slot.attempts(RunKind::Compensate),
                "output": slot.output(),
            })
        })
        .collect();
    json!({
        "id": state.id().as_str(),
        "name": state.plan().name(),
        "state": state.word(),
        "finished": matches!(state.phase(), Phase::Ended(_)),
        "exit_code": state.rest().map(agt_saga::machine::Rest::exit_code),
        "plan": state.plan_hash(),
        "created_ms": state.created_at_ms(),
        "steps": steps,
        "history": records.iter().filter_map(|record| history(state, record)).collect::<Vec<_>>(),
    })
}

/// The saga's history, a line each.
#[must_use]
pub fn timeline(state: &State, records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        if let Some(line) = line(state.plan().name(), record, Color::Never) {
            let seconds = (record.at - state.created_at_ms()) as f64 / 1000.0;
            let _ = writeln!(text, "{seconds:>9.3} s  {line}");
        }
    }
    text
}

fn history(state: &State, record: &Record) -> Option<Value> {
    let line = line(state.plan().name(), record, Color::Never)?;
    Some(json!({"at_ms": record.at, "text": line}))
}
