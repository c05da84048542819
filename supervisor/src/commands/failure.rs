//! A command that failed: what to say and with which code to end.

use crate::control::client::ClientError;
use crate::control::listener::Stranger;
use crate::driver::ground::GroundError;
use crate::exit;
use crate::govern::kill_mark::MarkError;
use crate::store::StoreError;

/// What went wrong, for a person.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
    help: Option<String>,
}

impl Failure {
    /// A failure with its exit code.
    #[must_use]
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), help: None }
    }

    /// Wrong usage.
    #[must_use]
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure::new(exit::USAGE, text)
    }

    /// A failure whose message is already written in full, `error:` and help included.
    #[must_use]
    pub fn rendered(code: u8, text: String) -> Failure {
        Failure { code, text, help: Some(String::new()) }
    }

    /// Adds the one command or change that helps.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// From an error with its chain of causes.
    #[must_use]
    pub fn of(code: u8, error: &dyn std::error::Error) -> Failure {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Failure::new(code, text)
    }

    /// Prints it to standard error; returns the exit code.
    #[must_use]
    pub fn report(&self) -> u8 {
        match self.help.as_deref() {
            Some("") => eprint!("{}", self.text),
            Some(help) => eprintln!("error: {}\nhelp: {help}", self.text),
            None => eprintln!("error: {}", self.text),
        }
        self.code
    }
}

impl std::fmt::Display for Failure {
    /// What is wrong, without what helps.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        let failure = Failure::of(error.exit_code(), &error);
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl From<&MarkError> for Failure {
    fn from(error: &MarkError) -> Failure {
        let failure = Failure::of(error.exit_code(), error);
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

impl From<GroundError> for Failure {
    fn from(error: GroundError) -> Failure {
        let code = match &error {
            GroundError::Record { .. } => exit::CANT_CREATE,
            GroundError::Launcher(_)
            | GroundError::Watchdog(_)
            | GroundError::Sweep(_)
            | GroundError::Total(_)
            | GroundError::NoTotal(_) => exit::UNAVAILABLE,
        };
        let failure = Failure::of(code, &error);
        match error {
            GroundError::Total(_) | GroundError::NoTotal(_) => {
                failure.help("take that line out, or see with `agt-supervise doctor` what the control groups here keep")
            }
            _ => failure,
        }
    }
}

impl From<&Stranger> for Failure {
    fn from(stranger: &Stranger) -> Failure {
        Failure::of(exit::REFUSED, stranger).help(stranger.help())
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let failure = Failure::of(error.exit_code(), &error);
        match error {
            ClientError::Stranger(stranger) => failure.help(stranger.help()),
            ClientError::Nobody { .. } => {
                failure.help("start one with `agt-supervise run agent.yaml`, or name its folder with --state-dir")
            }
            ClientError::Late { .. } => failure.help("`agt-supervise kill --all` works without it"),
            ClientError::NotPermitted { .. } => failure.help(
                "ask root or the user that runs the supervisor; `operators:` in the operator's file names others who may",
            ),
            _ => failure,
        }
    }
}
