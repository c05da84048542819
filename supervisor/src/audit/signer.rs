//! The signing key: one Ed25519 seed in a file of mode 0400 that no ring can see.
//!
//! The file is made once, under another name, synced, then linked to its own: link(2) never replaces, so two starts can't make
//! two keys, and a crash leaves either no key or a whole one.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use nix::unistd::geteuid;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

use super::AuditError;
use super::chain::{from_hex, to_hex};

/// The key's file name in the state directory.
pub const KEY_FILE: &str = "audit.key";
/// 64 digits and a newline.
const KEY_BYTES: usize = 65;

/// The first eight bytes of the SHA-256 of a public key: names it in heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The id of a public key.
    #[must_use]
    pub fn of(key: &VerifyingKey) -> Self {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self(id)
    }

    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// The key that signs heads.
pub struct Signer {
    key: SigningKey,
    id: KeyId,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({}, seed hidden)", self.id)
    }
}

impl Signer {
    /// A signer of this seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&seed);
        let id = KeyId::of(&key.verifying_key());
        Self { key, id }
    }

    /// Reads the state directory's key; none when there is none.
    ///
    /// # Errors
    /// [`AuditError::Io`], [`AuditError::KeyDamaged`], [`AuditError::KeyExposed`].
    pub fn open(dir: &Path) -> Result<Option<Self>, AuditError> {
        match read_key(&dir.join(KEY_FILE)) {
            Err(AuditError::KeyMissing { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Makes the state directory's key from the system's random bytes. `before` runs while the key has not got its name yet: what
    /// it makes exists wherever the key does.
    ///
    /// # Errors
    /// [`AuditError::Io`], [`AuditError::Random`], and those of `before`.
    pub fn create(dir: &Path, before: impl FnOnce(&Self) -> Result<(), AuditError>) -> Result<Self, AuditError> {
        let path = dir.join(KEY_FILE);
        create_key(dir, &path, before)?;
        read_key(&path)
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The key that verifies.
    #[must_use]
    pub fn public_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// The public key's short name.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.id
    }
}

/// A public key as 64 hexadecimal digits, for `audit verify --key` and for keeping elsewhere.
#[must_use]
pub fn public_key_text(key: &VerifyingKey) -> String {
    to_hex(key.as_bytes())
}

/// Reads what [`public_key_text`] wrote.
///
/// # Errors
/// [`AuditError::PublicKey`].
pub fn parse_public_key(text: &str) -> Result<VerifyingKey, AuditError> {
    from_hex(text.trim())
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or_else(|| AuditError::PublicKey { text: text.trim().to_owned() })
}

/// The public key of a state directory, without making one.
///
/// # Errors
/// As [`Signer::open`], and [`AuditError::KeyMissing`].
pub fn public_key_of(dir: &Path) -> Result<VerifyingKey, AuditError> {
    Ok(read_key(&dir.join(KEY_FILE))?.public_key())
}

fn read_key(path: &Path) -> Result<Signer, AuditError> {
    let io = |source| AuditError::Io { doing: "read", path: path.to_owned(), source };
    let damaged = |found: String| AuditError::KeyDamaged { path: path.to_owned(), found, expected: KEY_BYTES };
    // Not opened before it is known to be a file: a pipe of that name would keep the start waiting.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(AuditError::KeyMissing { path: path.to_owned() });
        }
        Ok(meta) if meta.is_symlink() => return Err(damaged("a symbolic link".to_owned())),
        Ok(meta) if !meta.is_file() => return Err(damaged("no regular file".to_owned())),
        other => other.map_err(io)?,
    };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(io)?;
    let meta = file.metadata().map_err(io)?;
    // Root reads anybody's store; anybody else has no business with a key that another user placed.
    let foreign = meta.uid() != geteuid().as_raw() && !geteuid().is_root();
    if meta.mode() & 0o077 != 0 || foreign {
        return Err(AuditError::KeyExposed { path: path.to_owned(), mode: meta.mode() & 0o7777, owner: meta.uid() });
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    match std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n')).and_then(from_hex) {
        Some(seed) => Ok(Signer::from_seed(seed)),
        None if bytes.len() == KEY_BYTES => Err(damaged("other characters".to_owned())),
        None => Err(damaged(format!("{} bytes", meta.len()))),
    }
}

fn create_key(
    dir: &Path,
    path: &Path,
    before: impl FnOnce(&Signer) -> Result<(), AuditError>,
) -> Result<(), AuditError> {
    let temporary: PathBuf = dir.join(format!("{KEY_FILE}.new"));
    let io = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| AuditError::Io { doing, path, source }
    };
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).map_err(AuditError::Random)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &temporary)(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o400);
    let mut file = options.open(&temporary).map_err(io("create", &temporary))?;
    file.write_all(format!("{}\n", to_hex(&seed)).as_bytes()).map_err(io("write", &temporary))?;
    file.sync_all().map_err(io("sync", &temporary))?;
    before(&Signer::from_seed(seed))?;
    match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(io("create", path)(error)),
        _ => {}
    }
    fs::remove_file(&temporary).map_err(io("remove", &temporary))?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn create(dir: &Path) -> Signer {
        Signer::create(dir, |_| Ok(())).unwrap()
    }

    #[test]
    fn the_key_is_made_once_and_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Signer::open(dir.path()).unwrap().is_none());
        let first = create(dir.path());
        let again = Signer::open(dir.path()).unwrap().unwrap();
        assert_eq!(first.public_key(), again.public_key());
        assert_eq!(public_key_of(dir.path()).unwrap(), first.public_key());
        assert_eq!(fs::metadata(dir.path().join(KEY_FILE)).unwrap().mode() & 0o7777, 0o400);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file stayed");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path());
        fs::set_permissions(dir.path().join(KEY_FILE), Permissions::from_mode(0o440)).unwrap();
        assert!(matches!(Signer::open(dir.path()), Err(AuditError::KeyExposed { mode: 0o440, .. })));
    }

    #[test]
    fn a_damaged_key_is_refused_and_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path());
        let path = dir.path().join(KEY_FILE);
        for bad in ["", "abc\n", &"g".repeat(64), &format!("{}\n\n", "a".repeat(64))] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
            assert!(matches!(Signer::open(dir.path()), Err(AuditError::KeyDamaged { .. })), "{bad:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, [0xff; KEY_BYTES]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(matches!(Signer::open(dir.path()), Err(AuditError::KeyDamaged { .. })), "no text at all");
    }

    #[test]
    fn a_public_key_survives_its_text_form() {
        let key = Signer::from_seed([9; 32]).public_key();
        assert_eq!(parse_public_key(&public_key_text(&key)).unwrap(), key);
        assert!(parse_public_key("xyz").is_err());
    }
}
