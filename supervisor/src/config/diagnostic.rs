//! What is wrong with a file, in the form that every message has: what / where / what happens now / what helps.
//!
//! Problems are collected, never thrown one by one: whoever fixes a file sees all of them in one run. A problem carries
//! its class, because the exit code (64, 77, 126, 127) says to a script what kind of person has to act. The renderer is
//! our own: the form (no gutter line, `help:` at the left margin) is fixed by the user's conventions, and it must never
//! print a value of `env.set` or a raw control character.

mod render;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::grant::Grant;
use super::tree::{KeyPath, Place};

pub use render::Color;
pub(super) use render::harmless;

/// Who has to act on a problem, and with it the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The file is wrong: exit 64.
    Config,
    /// The file is right but asks for more than the operator allows: exit 77.
    Refused,
    /// The program is there but can't be started: exit 126.
    NotExecutable,
    /// There is no such program: exit 127.
    NotFound,
}

impl Class {
    /// The process exit code of this class (the table in USERS: 64 usage or bad config, 77 refused by the operator's
    /// file, 126 and 127 as shells have them).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Class::Config => 64,
            Class::Refused => 77,
            Class::NotExecutable => 126,
            Class::NotFound => 127,
        }
    }
}

/// How much of the source line may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Show {
    /// The whole line.
    #[default]
    Line,
    /// Only up to the end of the marked place: what follows may be secret.
    UpToMark,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Who has to act.
    pub class: Class,
    /// What is wrong, with the value and the limit.
    pub message: String,
    /// Where, when it stands in the file.
    pub place: Option<Place>,
    /// The key that it is about.
    pub path: Option<KeyPath>,
    /// How much of the line may be shown.
    pub show: Show,
    /// What stands beside the caret.
    pub label: String,
    /// What to do, in one line or a few.
    pub help: Option<String>,
    /// The line of the operator's file that would allow it.
    pub grant: Option<Grant>,
}

impl Problem {
    /// A mistake in the file.
    pub fn config(message: impl Into<String>) -> Problem {
        Problem::new(Class::Config, message)
    }

    /// A problem of this class.
    pub fn new(class: Class, message: impl Into<String>) -> Problem {
        Problem {
            class,
            message: message.into(),
            place: None,
            path: None,
            show: Show::Line,
            label: String::new(),
            help: None,
            grant: None,
        }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: Place) -> Problem {
        self.place = Some(place);
        self
    }

    /// Says about which key.
    #[must_use]
    pub fn about(mut self, path: &KeyPath) -> Problem {
        self.path = Some(path.clone());
        self
    }

    /// Says where, when that is known.
    #[must_use]
    pub fn at_if(mut self, place: Option<Place>) -> Problem {
        self.place = place.or(self.place);
        self
    }

    /// Says what stands beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = label.into();
        self
    }

    /// Says what helps.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(help.into());
        self
    }

    /// Keeps what stands after the marked place out of every message.
    #[must_use]
    pub fn show(mut self, show: Show) -> Problem {
        self.show = show;
        self
    }

    /// Names the operator's line that would allow it.
    #[must_use]
    pub fn grant(mut self, grant: Grant) -> Problem {
        self.grant = Some(grant);
        self
    }
}

/// All that is wrong with one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The file as the user named it; empty for a command line.
    pub file: PathBuf,
    /// Its text; empty when it could not be read.
    pub text: Arc<str>,
    /// At least one problem, in the order of the file.
    pub problems: Vec<Problem>,
    /// What happens now: "nothing was started", or what the caller says.
    pub consequence: String,
}

/// Full messages up to this many; the rest is a count.
pub const MAX_SHOWN: usize = 20;

impl Report {
    /// A report on `file`. Problems are put in the order of the file, those without a place last.
    #[must_use]
    pub fn new(file: &Path, text: Arc<str>, mut problems: Vec<Problem>) -> Report {
        problems.sort_by_key(|problem| problem.place.map_or((usize::MAX, 0), |p| (p.start.line, p.start.column)));
        problems.dedup();
        Report { file: file.to_path_buf(), text, problems, consequence: "nothing was started".to_owned() }
    }

    fn class(&self) -> Class {
        self.problems.iter().map(|problem| problem.class).min().unwrap_or(Class::Config)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.problems.first() else { return f.write_str("no problem") };
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}: ", self.file.display())?;
        }
        f.write_str(&first.message)?;
        match self.problems.len() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

/// Why a configuration can't be used. The variant says who has to act; [`ConfigError::render`] gives the whole message.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read at all.
    #[error("{path}: can't be read")]
    Unreadable {
        /// The file, as named by the user.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{0}")]
    Invalid(Report),
    /// The file asks for more than the operator allows.
    #[error("{0}")]
    Refused(Report),
    /// The program can't be started.
    #[error("{0}")]
    NotExecutable(Report),
    /// There is no such program.
    #[error("{0}")]
    NotFound(Report),
}

impl ConfigError {
    /// The error for a report; its variant is that of the first class to be mended (a wrong file before a refusal,
    /// a refusal before a program that can't be found).
    #[must_use]
    pub fn from_report(report: Report) -> ConfigError {
        match report.class() {
            Class::Config => ConfigError::Invalid(report),
            Class::Refused => ConfigError::Refused(report),
            Class::NotExecutable => ConfigError::NotExecutable(report),
            Class::NotFound => ConfigError::NotFound(report),
        }
    }

    /// The exit code: 64, 77, 126 or 127.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ConfigError::Unreadable { .. } | ConfigError::Invalid(_) => Class::Config.exit_code(),
            ConfigError::Refused(_) => Class::Refused.exit_code(),
            ConfigError::NotExecutable(_) => Class::NotExecutable.exit_code(),
            ConfigError::NotFound(_) => Class::NotFound.exit_code(),
        }
    }

    /// What is wrong, as data.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        self.report().map_or(&[], |report| &report.problems)
    }

    /// The report, unless the file could not be read at all.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        match self {
            ConfigError::Unreadable { .. } => None,
            ConfigError::Invalid(r)
            | ConfigError::Refused(r)
            | ConfigError::NotExecutable(r)
            | ConfigError::NotFound(r) => Some(r),
        }
    }

    /// Replaces "nothing was started" where something else is true ("the old plan stays in force").
    #[must_use]
    pub fn with_consequence(mut self, consequence: &str) -> ConfigError {
        match &mut self {
            ConfigError::Unreadable { .. } => {}
            ConfigError::Invalid(r)
            | ConfigError::Refused(r)
            | ConfigError::NotExecutable(r)
            | ConfigError::NotFound(r) => consequence.clone_into(&mut r.consequence),
        }
        self
    }

    /// The whole message for a person, ending with a newline.
    #[must_use]
    pub fn render(&self, color: Color) -> String {
        match self {
            ConfigError::Unreadable { path, source } => render::unreadable(path, source, color),
            other => other.report().map(|report| render::report(report, color)).unwrap_or_default(),
        }
    }
}

impl ConfigError {
    /// The file that it is about.
    pub(super) fn file(&self) -> &Path {
        match self {
            ConfigError::Unreadable { path, .. } => path,
            ConfigError::Invalid(r)
            | ConfigError::Refused(r)
            | ConfigError::NotExecutable(r)
            | ConfigError::NotFound(r) => &r.file,
        }
    }

    /// Names the file as the user named it.
    pub(super) fn shown_as(mut self, shown: &Path) -> ConfigError {
        match &mut self {
            ConfigError::Unreadable { path, .. } => *path = shown.to_path_buf(),
            ConfigError::Invalid(r)
            | ConfigError::Refused(r)
            | ConfigError::NotExecutable(r)
            | ConfigError::NotFound(r) => r.file = shown.to_path_buf(),
        }
        self
    }
}
