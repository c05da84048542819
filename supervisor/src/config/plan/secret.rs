//! Values of the environment, of which some must never be seen.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Largest file that is given as a variable. A process's whole environment has little more room.
const MAX_SECRET: u64 = 64 * 1024;

/// What stands in the place of a secret wherever it could be seen.
const MARK: &str = "[secret]";

/// A text that is shown to nobody. `Debug`, `Display` and `Serialize` give a mark.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

impl SecretText {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: String) -> SecretText {
        SecretText(text)
    }

    /// The text itself. Every call is a place to check in review.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MARK)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MARK)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    /// Reads the mark back as a mark: the value is gone.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(SecretText)
    }
}

/// One value of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    /// May be shown.
    Plain(String),
    /// From the supervisor's environment, by the operator's leave; held in memory only.
    Secret(SecretText),
    /// The content of this file, read at each launch, so that a rotated key is picked up by a restart.
    SecretFile(PathBuf),
}

/// A secret's file that can't be given to the agent.
#[derive(Debug, thiserror::Error)]
#[error("the secret for {variable} can't be read from {path}")]
pub struct UnreadableSecret {
    /// The variable.
    pub variable: String,
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl EnvValue {
    /// The value for the agent.
    ///
    /// # Errors
    /// A file that can't be read, is too large, is empty, is not UTF-8 or holds a NUL.
    pub fn reveal(&self, variable: &str) -> Result<String, UnreadableSecret> {
        match self {
            EnvValue::Plain(text) => Ok(text.clone()),
            EnvValue::Secret(text) => Ok(text.reveal().to_owned()),
            EnvValue::SecretFile(path) => read_secret(path).map_err(|source| UnreadableSecret {
                variable: variable.to_owned(),
                path: path.clone(),
                source,
            }),
        }
    }
}

fn read_secret(path: &Path) -> io::Result<String> {
    // The path was resolved when the plan was made: a link in its place now is somebody's attempt.
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let bad = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
    if !file.metadata()?.is_file() {
        return bad("it is not a regular file");
    }
    let mut text = String::new();
    file.take(MAX_SECRET + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SECRET {
        return bad("it has more than 64 KiB");
    }
    if text.contains('\0') {
        return bad("it contains a NUL character");
    }
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    if text.is_empty() {
        return bad("it is empty");
    }
    Ok(text)
}
