//! A small process of its own that puts a fault right when the injector dies or hangs.
//!
//! The injector starts its own executable again under a private name ([`main_if_guardian`] must be the first call in
//! main), hands it the undo, and waits until it is armed before anything is injected. From then on the guardian undoes as
//! soon as the pipe from the injector ends, the injector's pidfd says that it is dead, the deadline passes, a signal asks
//! it to end, or the injector tells it to; it ends without doing anything only when it is told that nothing is left to do.
//!
//! Pipe *and* pidfd, because another child forked meanwhile may hold the pipe open. A process instead of a thread, because
//! SIGKILL takes all threads. The same executable instead of a helper, because that one is there, and is the right version,
//! whatever was installed since.

mod process;
mod protocol;
pub(crate) mod watch;

use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::error::GuardianError;
use crate::kernel;
use crate::undo::{Outcome, Undo};
pub use process::main_if_guardian;
pub use protocol::Cause;
use protocol::{ARGV0, FromGuardian, Orders, ToGuardian};

/// How long a guardian may take to be armed, to answer, and to end.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The longest that a guardian holds an undo: a bound on every fault.
pub const HOLD_MAX: Duration = Duration::from_secs(2 * 3600);

/// Where guardians come from.
pub trait Guardians: Send + Sync {
    /// An armed one.
    type Armed: ArmedGuardian;

    /// Starts one that holds this undo and performs it after `within` at the latest. Returns when it is armed.
    fn arm(&self, undo: &Undo, within: Duration) -> impl Future<Output = Result<Self::Armed, GuardianError>> + Send;
}

/// A guardian that holds an undo. Dropping it makes it undo.
pub trait ArmedGuardian: Send {
    /// Nothing is left to do: it ends without doing anything.
    fn disarm(self) -> impl Future<Output = Result<(), GuardianError>> + Send;

    /// It undoes now, and ends. The outcomes are those of the undo's entries, in order.
    fn undo_now(self) -> impl Future<Output = Result<Vec<Outcome>, GuardianError>> + Send;

    /// Resolves when it has ended by itself, with how. Cancel-safe.
    fn ended(&mut self) -> impl Future<Output = String> + Send;
}

/// Guardians as processes: this executable once more.
#[derive(Debug, Clone)]
pub struct GuardianProcess {
    program: PathBuf,
}

impl Default for GuardianProcess {
    fn default() -> Self {
        // The running executable itself, also when its file has been replaced or removed by an upgrade.
        Self { program: PathBuf::from("/proc/self/exe") }
    }
}

/// An armed guardian process.
#[derive(Debug)]
pub struct ArmedProcess {
    pid: u32,
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Guardians for GuardianProcess {
    type Armed = ArmedProcess;

    async fn arm(&self, undo: &Undo, within: Duration) -> Result<ArmedProcess, GuardianError> {
        let mut armed = self.spawn()?;
        let me = i32::try_from(std::process::id()).expect("pid_t is an i32");
        let injector = match kernel::identify(me) {
            Ok(Some(injector)) => injector,
            Ok(None) => return Err(armed.gone(std::io::Error::other("/proc doesn't show this process"))),
            Err(error) => return Err(armed.gone(std::io::Error::other(error))),
        };
        let within_ms = u64::try_from(within.min(HOLD_MAX).as_millis()).expect("bounded by two hours");
        let orders = ToGuardian::Hold(Box::new(Orders { injector, within_ms, undo: undo.clone() }));
        match armed.ask(&orders).await? {
            FromGuardian::Armed => Ok(armed),
            other => Err(armed.unexpected(&other)),
        }
    }
}

impl GuardianProcess {
    fn spawn(&self) -> Result<ArmedProcess, GuardianError> {
        let spawn_error = |source| GuardianError::Spawn { program: self.program.clone(), source };
        #[expect(clippy::disallowed_methods, reason = "the one process that this crate starts")]
        let mut command = Command::new(&self.program);
        command.arg0(ARGV0).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(spawn_error)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.expect("both were asked for as pipes two lines above");
        let pid = child.id().expect("it hasn't been waited for");
        Ok(ArmedProcess { pid, child, orders, answers: BufReader::new(answers).lines() })
    }
}

impl ArmedProcess {
    /// The guardian's pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    async fn ask(&mut self, message: &ToGuardian) -> Result<FromGuardian, GuardianError> {
        let mut line = serde_json::to_vec(message).expect("messages have string keys only");
        line.push(b'\n');
        let pid = self.pid;
        let exchange = async {
            self.orders.write_all(&line).await?;
            self.orders.flush().await?;
            self.answers.next_line().await
        };
        match timeout(ANSWER_LIMIT, exchange).await {
            Err(_) => Err(GuardianError::Silent { pid, limit: ANSWER_LIMIT }),
            Ok(Err(source)) => Err(GuardianError::Gone { pid, source }),
            Ok(Ok(None)) => Err(GuardianError::Gone { pid, source: std::io::ErrorKind::UnexpectedEof.into() }),
            Ok(Ok(Some(answer))) => {
                serde_json::from_str(&answer).map_err(|_| GuardianError::Answer { pid, answer: answer.clone() })
            }
        }
    }

    /// Waits for its end. One that won't end is killed: it has no undo left to do.
    async fn reap(mut self) -> Result<(), GuardianError> {
        let pid = self.pid;
        drop(self.orders);
        match timeout(ANSWER_LIMIT, self.child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(GuardianError::Gone { pid, source }),
            Err(_) => {
                self.child.kill().await.map_err(|source| GuardianError::Gone { pid, source })?;
                Err(GuardianError::Silent { pid, limit: ANSWER_LIMIT })
            }
        }
    }

    fn gone(&self, source: std::io::Error) -> GuardianError {
        GuardianError::Gone { pid: self.pid, source }
    }

    fn unexpected(&self, answer: &FromGuardian) -> GuardianError {
        GuardianError::Answer { pid: self.pid, answer: format!("{answer:?}") }
    }
}

impl ArmedGuardian for ArmedProcess {
    async fn disarm(mut self) -> Result<(), GuardianError> {
        match self.ask(&ToGuardian::Disarm).await? {
            FromGuardian::Disarmed => self.reap().await,
            // It was quicker: its deadline came while the disarming was under way. What it did was done already.
            FromGuardian::Undone { .. } => self.reap().await,
            other => Err(self.unexpected(&other)),
        }
    }

    async fn undo_now(mut self) -> Result<Vec<Outcome>, GuardianError> {
        match self.ask(&ToGuardian::Undo).await? {
            FromGuardian::Undone { outcomes, .. } => {
                self.reap().await?;
                Ok(outcomes)
            }
            other => Err(self.unexpected(&other)),
        }
    }

    async fn ended(&mut self) -> String {
        let last = match self.answers.next_line().await {
            Ok(Some(line)) => match serde_json::from_str(&line) {
                Ok(FromGuardian::Undone { cause, .. }) => format!("it undid the fault by itself ({cause})"),
                _ => format!("it said `{line}`"),
            },
            Ok(None) => "its pipe ended".to_owned(),
            Err(error) => format!("its pipe broke: {error}"),
        };
        match timeout(ANSWER_LIMIT, self.child.wait()).await {
            Ok(Ok(status)) => format!("{last}; {status}"),
            Ok(Err(error)) => format!("{last}; waiting for it failed: {error}"),
            Err(_) => format!("{last}, and it didn't end"),
        }
    }
}
