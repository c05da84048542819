//! What can go wrong with keys, heads and records, before any question of tampering.
//!
//! Tampering itself is no error here: it is the answer that verification gives, as data.

use std::io;
use std::path::PathBuf;

use super::chain::Hash;

/// Why an audit operation failed.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The text isn't the canonical form of a value.
    #[error("not canonical JSON: {why}")]
    NotCanonical {
        /// What is wrong with it.
        why: String,
    },
    /// Canonical JSON, but no record or head.
    #[error("`{field}` is missing or not what it should be")]
    Malformed {
        /// The member that is wrong.
        field: &'static str,
    },
    /// A file could not be read or written.
    #[error("can't {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `create`, `append to`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// There is no signing key, though there are heads that it signed.
    #[error("the audit key {} is missing, and the log has heads that it signed", path.display())]
    KeyMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The signing key isn't 32 bytes in hexadecimal.
    #[error("the audit key {} is damaged: {found} instead of {expected} bytes, 64 hexadecimal digits and a newline", path.display())]
    KeyDamaged {
        /// The key file.
        path: PathBuf,
        /// What was found: its length, or what it is instead of a file.
        found: String,
        /// What it should be.
        expected: usize,
    },
    /// Others can read or replace the signing key.
    #[error("the audit key {} can be read by others (mode {mode:04o}, owner {owner})", path.display())]
    KeyExposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's uid.
        owner: u32,
    },
    /// The system gave no random bytes for a key.
    #[error("the system gave no random bytes")]
    Random(#[source] rand::rngs::SysError),
    /// Not an Ed25519 public key in hexadecimal.
    #[error("`{text}` is no Ed25519 public key: 64 hexadecimal digits are needed")]
    PublicKey {
        /// What was given.
        text: String,
    },
    /// A signed head says something else than the chain: the log was changed behind the supervisor's back.
    #[error("the audit log was changed: {what} (record {seq})")]
    Tampered {
        /// The record where the two part.
        seq: u64,
        /// What disagrees.
        what: String,
    },
    /// The head's key isn't ours.
    #[error("the audit log was signed with another key: head {seq} names {found}, the key file holds {ours}")]
    OtherKey {
        /// The head.
        seq: u64,
        /// Its key id.
        found: String,
        /// The key id of the key file.
        ours: String,
    },
}

impl AuditError {
    /// The exit code of this error (USERS: 65 bad data, 70 our bug, 73 can't create or write).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotCanonical { .. }
            | Self::Malformed { .. }
            | Self::KeyDamaged { .. }
            | Self::KeyMissing { .. }
            | Self::Tampered { .. }
            | Self::OtherKey { .. } => 65,
            Self::PublicKey { .. } => 64,
            Self::Io { .. } | Self::KeyExposed { .. } => 73,
            Self::Random(_) => 70,
        }
    }

    /// One line that helps, where there is one.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Tampered { .. } => Some(
                "`agt-supervise audit verify` says where. To go on with a new log, move the whole state directory aside and keep it."
                    .to_owned(),
            ),
            Self::OtherKey { .. } | Self::KeyDamaged { .. } | Self::KeyMissing { .. } => {
                Some("restore the key file from a backup, or move the whole state directory aside and keep it.".to_owned())
            }
            Self::KeyExposed { path, .. } => {
                Some(format!("chmod 0400 {}, after asking who may have read it.", path.display()))
            }
            _ => None,
        }
    }

    pub(crate) fn tampered(seq: u64, found: &Hash, signed: &Hash) -> Self {
        Self::Tampered { seq, what: format!("the chain has {}, a signed head has {}", found.short(), signed.short()) }
    }
}
