//! What a run is given and what it gives back: its environment, its standard input, and who reads what it prints.
//!
//! Inputs stand in a file with one JSON object `{"inputs": {...}, "output": ...}` on standard input, so that no path has to be
//! made visible in the ring and no size is out of reach; small values stand in the environment as well, so that a shell
//! script needs no JSON parser.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use agt_rings::launch::Streams;
use agt_rings::spec::Spec;
use agt_saga::id::RunKind;
use agt_saga::machine::StepRun;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::output::{STDERR_TAIL_BYTES, STDOUT_BYTES_MAX, Tail};
use crate::driver::logfile::LogLimits;
use crate::driver::outlet::Log;
use crate::driver::streams;

/// Longest value that stands in a variable; longer ones are on standard input alone. The kernel's own limit for one
/// string is 128 KiB (execve(2), MAX_ARG_STRLEN).
const VARIABLE_BYTES_MAX: usize = 32 * 1024;
/// All such values together, so that the environment always fits.
const VARIABLES_BYTES_MAX: usize = 128 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// The environment that says what this run is and what it is given.
pub(super) fn tell(spec: &mut Spec, run: &StepRun) {
    let mut set = |name: String, value: String| spec.env.push((OsString::from(name), OsString::from(value)));
    set("AGT_SAGA".to_owned(), run.id.saga.to_string());
    set("AGT_STEP".to_owned(), run.id.step.clone());
    set("AGT_RUN".to_owned(), run.id.kind.as_str().to_owned());
    set("AGT_ATTEMPT".to_owned(), run.id.attempt.to_string());
    set("AGT_IDEMPOTENCY_KEY".to_owned(), run.key.to_string());
    let mut room = VARIABLES_BYTES_MAX;
    let mut each = |prefix: &str, values: &Map<String, Value>| {
        for (name, value) in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if value.len() <= VARIABLE_BYTES_MAX.min(room) && !value.contains('\0') {
                room -= value.len();
                set(format!("{prefix}{}", variable(name)), value);
            }
        }
    };
    each("AGT_INPUT_", &run.inputs);
    if let (RunKind::Compensate, Value::Object(output)) = (run.id.kind, &run.output) {
        each("AGT_OUTPUT_", output);
    }
}

/// A name as a variable's: capitals, digits and `_`.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The streams of one run and who reads them.
pub(super) struct Wired {
    pub(super) streams: Streams,
    pub(super) stdout: tokio::task::JoinHandle<Tail>,
    pub(super) stderr: tokio::task::JoinHandle<Tail>,
}

impl Wired {
    pub(super) async fn new(run: &StepRun, log: PathBuf) -> std::io::Result<Wired> {
        // One log for a step of this name, not one for each saga: their number must not grow without bound.
        let log = Log::open(log, LogLimits::default());
        log.append(format!("== {}\n", run.id).as_bytes()).await;
        let pump = |limit: usize| -> std::io::Result<(OwnedFd, tokio::task::JoinHandle<Tail>)> {
            let (from, write) = streams::pipe()?;
            Ok((write, tokio::spawn(keep(from, Tail::new(limit), log.clone()))))
        };
        let (out, stdout) = pump(STDOUT_BYTES_MAX)?;
        let (err, stderr) = pump(STDERR_TAIL_BYTES)?;
        Ok(Wired { streams: Streams { stdin: given(run)?, stdout: out, stderr: err }, stdout, stderr })
    }
}

/// What the run is given, as a file that can only be read.
fn given(run: &StepRun) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"agt-step-inputs", MFdFlags::MFD_CLOEXEC)?);
    let text = serde_json::json!({"inputs": run.inputs, "output": run.output}).to_string();
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    Ok(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.into())
}

async fn keep(mut from: pipe::Receiver, mut tail: Tail, log: Log) -> Tail {
    let mut buffer = vec![0u8; READ_BYTES];
    loop {
        match from.read(&mut buffer).await {
            // A pipe's read fails only when it is closed under us; both mean that nothing more comes.
            Ok(0) | Err(_) => break,
            Ok(length) => {
                tail.push(&buffer[..length]);
                log.append(&buffer[..length]).await;
            }
        }
    }
    log.flushed().await;
    tail
}
