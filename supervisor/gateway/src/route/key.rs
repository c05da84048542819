//! The key of a route: read here, put on outside, shown nowhere.

use super::redact::Needles;
use super::spec::{KeySpec, Provider};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Shortest key: below that, redaction would tear holes into every text.
const KEY_BYTES_MIN: usize = 8;
/// Longest key.
const KEY_BYTES_MAX: usize = 4096;

/// A key that can't be had. Says where it was looked for, never what was found.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// The file can't be read.
    #[error("the key file {} can't be read", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the file.
    #[error("the key file {path} can be read by others (mode {mode:04o})", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The variable is not set, or not text.
    #[error("the variable {0} is not set in the supervisor's environment")]
    Variable(String),
    /// Not a key.
    #[error("{place} holds no key: a key is {KEY_BYTES_MIN} to {KEY_BYTES_MAX} visible ASCII characters in one line")]
    Form {
        /// Where it was looked for.
        place: String,
    },
}

impl BadKey {
    /// What mends it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            BadKey::Open { path, .. } => format!("chmod 600 {}", path.display()),
            BadKey::File { .. } | BadKey::Form { .. } => {
                "write the key alone into that file, of mode 600, or name another under `models.providers` in the operator's file".to_owned()
            }
            BadKey::Variable(name) => {
                format!("set {name} where agt-supervise is started, or say `key: {{file: FILE}}` in the operator's file")
            }
        }
    }
}

/// A key. It shows itself nowhere: `Debug` says only that it is one.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

impl Key {
    /// A key from its text; `place` is said if it is none.
    pub fn new(text: &str, place: &str) -> Result<Self, BadKey> {
        let text = text.trim();
        match (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self { text: text.into() }),
            false => Err(BadKey::Form { place: place.to_owned() }),
        }
    }

    /// Reads the key in the supervisor's world.
    pub fn read(spec: &KeySpec) -> Result<Self, BadKey> {
        match spec {
            KeySpec::File(path) => {
                let failed = |source| BadKey::File { path: path.clone(), source };
                let mut text = String::new();
                // Asked before it is opened: opening a pipe would wait for a writer.
                if !std::fs::metadata(path).map_err(failed)?.is_file() {
                    return Err(failed(std::io::Error::other("it is not a regular file")));
                }
                let file = std::fs::File::open(path).map_err(failed)?;
                let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
                if mode & 0o077 != 0 {
                    return Err(BadKey::Open { path: path.clone(), mode });
                }
                std::io::Read::read_to_string(&mut std::io::Read::take(file, KEY_BYTES_MAX as u64 * 2), &mut text)
                    .map_err(failed)?;
                Self::new(&text, &path.display().to_string())
            }
            KeySpec::Variable(name) => {
                let text = std::env::var(name).map_err(|_| BadKey::Variable(name.clone()))?;
                Self::new(&text, &format!("the variable {name}"))
            }
        }
    }

    /// The header in which `provider` takes it.
    pub(super) fn header(&self, provider: Provider) -> (HeaderName, HeaderValue) {
        let (name, text) = match provider {
            Provider::OpenAi => (AUTHORIZATION, format!("Bearer {}", self.text)),
            Provider::Anthropic => (HeaderName::from_static("x-api-key"), self.text.to_string()),
            Provider::Gemini => (HeaderName::from_static("x-goog-api-key"), self.text.to_string()),
        };
        let mut value = HeaderValue::from_str(&text).expect("a key is visible ASCII");
        value.set_sensitive(true);
        (name, value)
    }

    /// In which spellings it is looked for in answers.
    pub(super) fn needles(&self) -> Needles {
        let encoded = |hex: fn(u8) -> String| -> String {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            self.text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { hex(b) }).collect()
        };
        let (upper, lower) = (encoded(|b| format!("%{b:02X}")), encoded(|b| format!("%{b:02x}")));
        let escaped = self.text.replace('\\', "\\\\").replace('"', "\\\"");
        let slashed = escaped.replace('/', "\\/");
        Needles::new([self.text.to_string(), upper, lower, escaped, slashed])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_comes_from_a_file_and_shows_itself_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "sk-secret-0123\n").unwrap();
        let only_for = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        only_for(0o640);
        assert!(matches!(Key::read(&KeySpec::File(path.clone())), Err(BadKey::Open { mode: 0o640, .. })));
        only_for(0o600);
        let key = Key::read(&KeySpec::File(path)).unwrap();
        let (_, value) = key.header(Provider::OpenAi);
        assert_eq!(value.to_str().unwrap(), "Bearer sk-secret-0123");
        let shown = format!("{key:?} {value:?} {:?}", key.needles());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_said() {
        for bad in ["", "short", "two words here", "line\nbreak-in-it", "nön-ascii-key", &"x".repeat(5000)] {
            let said = Key::new(bad, "the file k").unwrap_err().to_string();
            assert!(bad.is_empty() || !said.contains(bad), "{said}");
        }
        assert!(matches!(Key::read(&KeySpec::File("/nonexistent/key".into())), Err(BadKey::File { .. })));
        assert!(matches!(Key::read(&KeySpec::Variable("AGT_NO_SUCH_VARIABLE".into())), Err(BadKey::Variable(_))));
    }
}
