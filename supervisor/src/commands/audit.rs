//! `audit`: the log is read from the disk, so that it can be read when no supervisor runs, and judged offline.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, Outcome, dirs, print};
use crate::audit::check::Problem;
use crate::audit::floor::FLOOR_FILE;
use crate::audit::heads_file::HEADS_FILE;
use crate::audit::signer::{self, KEY_FILE, KeyId};
use crate::audit::{AuditError, VerifyReport, verify};
use crate::cli::{AuditShowArgs, AuditVerb, AuditVerifyArgs, Global};
use crate::driver::streams::escaped;
use crate::exit;
use crate::store::{AuditRow, DATABASE_FILE, Reader, StoreError};

/// Records read at once.
const PAGE: u32 = 1000;

/// The verbs below `audit`.
///
/// # Errors
/// No store, an unreadable one, no key.
pub fn audit(global: &Global, verb: &AuditVerb) -> Outcome {
    match verb {
        AuditVerb::Show(args) => show(global, args),
        AuditVerb::Verify(args) => check(global, args),
        AuditVerb::Key => key(global),
    }
}

fn must_exist(database: &Path) -> Result<(), Failure> {
    match std::fs::metadata(database) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Failure::new(
            exit::UNAVAILABLE,
            format!("there is no audit log: {} does not exist", database.display()),
        )
        .help("name the state directory with --state-dir; the log begins with the first `agt-supervise run`")),
        _ => Ok(()),
    }
}

fn show(global: &Global, args: &AuditShowArgs) -> Outcome {
    let dirs = dirs(global)?;
    must_exist(&dirs.state.join(DATABASE_FILE))?;
    let reader = Reader::open(&dirs.state)?;
    let rows = match args.after {
        Some(after) => from(&reader, after, args)?,
        None => newest(&reader, args)?,
    };
    if global.json {
        let records = rows.iter().map(record_json).collect::<Result<Vec<Value>, Failure>>()?;
        print_json(&json!({ "records": records }));
    } else {
        rows.iter().for_each(|row| print(&line(row)));
    }
    Ok(0)
}

fn concerns(row: &AuditRow, agent: Option<&str>) -> bool {
    agent.is_none_or(|agent| row.record.agent.as_deref() == Some(agent))
}

fn from(reader: &Reader, mut after: u64, args: &AuditShowArgs) -> Result<Vec<AuditRow>, StoreError> {
    let limit = args.limit as usize;
    let mut found = Vec::new();
    while found.len() < limit {
        let page = reader.audit_page(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        found.extend(page.into_iter().filter(|row| concerns(row, args.agent.as_deref())));
    }
    found.truncate(limit);
    Ok(found)
}

/// Backwards page by page, so that the newest of a long log cost no more than those of a short one.
fn newest(reader: &Reader, args: &AuditShowArgs) -> Result<Vec<AuditRow>, StoreError> {
    let limit = args.limit as usize;
    let mut found: VecDeque<AuditRow> = VecDeque::new();
    let mut before = reader.audit_last()? + 1;
    while before > 1 && found.len() < limit {
        let after = before.saturating_sub(u64::from(PAGE) + 1);
        let page = reader.audit_page(after, PAGE)?;
        let wanted = page.into_iter().filter(|row| row.seq < before && concerns(row, args.agent.as_deref())).rev();
        wanted.take(limit - found.len()).for_each(|row| found.push_front(row));
        before = after + 1;
    }
    Ok(found.into())
}

fn record_json(row: &AuditRow) -> Result<Value, Failure> {
    let mut value: Value = serde_json::from_str(&row.record.encode(row.seq)).map_err(|e| Failure::of(exit::BUG, &e))?;
    value["hash"] = Value::from(row.hash.to_string());
    Ok(value)
}

/// One line for people. What an agent may have had a part in (names, reasons, details) is escaped.
fn line(row: &AuditRow) -> String {
    let record = &row.record;
    let time = Timestamp::from_millisecond(record.time_ms)
        .map_or_else(|_| format!("{} ms", record.time_ms), |time| format!("{time:.3}"));
    let agent = record.agent.as_deref().unwrap_or("-");
    let mut text = format!(
        "{:>6}  {time}  {:<14}  {:<14}  {} {}",
        row.seq,
        escaped(&record.actor.to_string()),
        escaped(agent),
        record.action.as_str(),
        record.outcome.as_str()
    );
    if !record.reason.is_empty() {
        let _ = write!(text, "  \"{}\"", escaped(&record.reason));
    }
    for (name, value) in &record.details {
        let _ = write!(text, "  {}={}", escaped(name), escaped(&value.to_canonical()));
    }
    text.push('\n');
    text
}

fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

fn audit_failure(error: &AuditError) -> Failure {
    let failure = Failure::of(error.exit_code(), error);
    match error.help() {
        Some(help) => failure.help(help),
        None => failure,
    }
}

fn key(global: &Global) -> Outcome {
    let dirs = dirs(global)?;
    must_exist(&dirs.state.join(DATABASE_FILE))?;
    let key = signer::public_key_of(&dirs.state).map_err(|e| audit_failure(&e))?;
    let text = signer::public_key_text(&key);
    match global.json {
        true => print_json(&json!({ "key": text, "id": KeyId::of(&key).to_string() })),
        false => print(&(text + "\n")),
    }
    Ok(0)
}

/// The key as typed, or the one beside the database.
fn public_key(typed: Option<&str>, folder: &Path) -> Result<VerifyingKey, Failure> {
    let Some(typed) = typed else {
        return signer::public_key_of(folder).map_err(|e| {
            audit_failure(&e)
                .help("name the public key with --key; `agt-supervise audit key` prints it where the log was written")
        });
    };
    let path = Path::new(typed);
    if !path.exists() {
        return signer::parse_public_key(typed).map_err(|_| {
            Failure::usage(format!("`{}` is neither a file nor a public key of 64 hexadecimal digits", escaped(typed)))
        });
    }
    // The file of the signing key has the same form as a public key's; its name tells it apart.
    if path.file_name().is_some_and(|name| name == KEY_FILE) {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return signer::public_key_of(folder).map_err(|e| audit_failure(&e));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(exit::UNAVAILABLE, format!("{}: {e}", path.display())))?;
    signer::parse_public_key(&text)
        .map_err(|_| Failure::usage(format!("{} holds no public key (64 hexadecimal digits)", path.display())))
}

/// What is to be verified.
struct Subject {
    database: PathBuf,
    heads: Option<PathBuf>,
    key: VerifyingKey,
}

fn subject(global: &Global, args: &AuditVerifyArgs) -> Result<Subject, Failure> {
    let database = match &args.db {
        Some(path) => path.clone(),
        None => dirs(global)?.state.join(DATABASE_FILE),
    };
    must_exist(&database)?;
    let folder = database.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let key = public_key(args.key.as_deref(), &folder)?;
    let beside = folder.join(HEADS_FILE);
    let heads = match (&args.heads, &args.db) {
        (Some(path), _) => Some(path.clone()),
        (None, _) if beside.exists() => Some(beside),
        (None, Some(_)) => None,
        // A state directory that was ever opened has the file: without it a cut tail could not be told from a short log.
        (None, None) => {
            return Err(Failure::new(exit::DATA, format!("the file of signed heads is missing: {}", beside.display()))
                .help("if the operator keeps it elsewhere, name it with --heads; otherwise somebody removed it"));
        }
    };
    let floor = folder.join(FLOOR_FILE);
    if args.db.is_none() && !floor.exists() {
        return Err(Failure::new(exit::DATA, format!("the floor of the audit log is missing: {}", floor.display()))
            .help("it was made before the key was: somebody removed it. Keep the whole folder as it is"));
    }
    if let Some(path) = heads.as_ref().filter(|path| !path.exists()) {
        return Err(Failure::new(exit::UNAVAILABLE, format!("{} does not exist", path.display())));
    }
    Ok(Subject { database, heads, key })
}

fn check(global: &Global, args: &AuditVerifyArgs) -> Outcome {
    let subject = subject(global, args)?;
    let report = verify(&subject.database, subject.heads.as_deref(), &subject.key)?;
    if global.json {
        print_json(&report_json(&subject, &report));
    } else {
        print(&report_text(&subject, &report));
    }
    if !report.is_sound() {
        let count = report.problems.len() as u64 + report.untold;
        let noun = if count == 1 { "problem" } else { "problems" };
        eprintln!("error: the audit log {} does not hold: {count} {noun}", subject.database.display());
        eprintln!(
            "help: keep the whole folder as it is; records before the first place named are as they were written"
        );
    }
    Ok(report.exit_code())
}

fn report_json(subject: &Subject, report: &VerifyReport) -> Value {
    let problem =
        |problem: &Problem| json!({ "kind": problem.kind.as_str(), "seq": problem.seq, "text": problem.text });
    json!({
        "database": subject.database,
        "heads_file": subject.heads,
        "key": KeyId::of(&subject.key).to_string(),
        "sound": report.is_sound(),
        "records": report.records,
        "heads": report.heads,
        "unprotected": report.unprotected,
        "torn_heads": report.torn_heads,
        "floor": report.floor,
        "problems": report.problems.iter().map(problem).collect::<Vec<Value>>(),
        "untold": report.untold,
    })
}

fn report_text(subject: &Subject, report: &VerifyReport) -> String {
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "record {}: {}: {}", problem.seq, problem.kind, escaped(&problem.text));
    }
    if report.untold > 0 {
        let _ = writeln!(text, "and {} more", report.untold);
    }
    let verdict = if report.is_sound() { "sound" } else { "CHANGED" };
    let _ = writeln!(
        text,
        "{verdict}: {} records, {} signed heads, key {}",
        report.records,
        report.heads,
        KeyId::of(&subject.key)
    );
    if report.unprotected > 0 {
        let _ = writeln!(
            text,
            "unprotected: {} at the end, newer than the last signed head. A supervisor that runs signs them within a second; one that was killed leaves them so. They are linked, but nobody signed them.",
            report.unprotected
        );
    } else if report.is_sound() {
        let _ = writeln!(text, "unprotected: 0, every record is under a signed head");
    }
    if report.torn_heads > 0 {
        let _ = writeln!(
            text,
            "torn: {} lines of the heads file were cut off by a crash or a full disk",
            report.torn_heads
        );
    }
    if report.floor.is_none() {
        let _ = writeln!(
            text,
            "no floor: {FLOOR_FILE} is not beside the database; a log that was cut everywhere at once can't be seen"
        );
    }
    if subject.heads.is_none() {
        let _ = writeln!(
            text,
            "no heads file: a tail that was cut together with its heads can't be seen; name the file with --heads"
        );
    }
    text
}
