//! The hash chain: what a record's hash is, and where a chain starts.
//!
//! `hash(n) = SHA-256(domain ++ hash(n-1) ++ record(n))`, where `record(n)` is the canonical text that holds `n` itself. The chain
//! starts from a hash of the store's random id, so that a chain of another store never fits, not even its first record.

use std::fmt;

use sha2::{Digest, Sha256};

const RECORD_DOMAIN: &[u8] = b"agt-supervise audit record v1\0";
const GENESIS_DOMAIN: &[u8] = b"agt-supervise audit genesis v1\0";

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// From bytes as stored; none when there aren't 32.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// The first eight digits, for messages.
    #[must_use]
    pub fn short(&self) -> String {
        to_hex(&self.0[..4])
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// A store's random identity: 16 bytes, made when the database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// From 32 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// What stands before the first record.
    #[must_use]
    pub fn genesis(&self) -> Hash {
        Hash(Sha256::new().chain_update(GENESIS_DOMAIN).chain_update(self.0).finalize().into())
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// The hash of `record` behind `previous`.
#[must_use]
pub fn link(previous: &Hash, record: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update(RECORD_DOMAIN).chain_update(previous.0).chain_update(record).finalize().into())
}

/// The end of a chain: the last record's number (0 before the first) and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The last record's number.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Tip {
    /// The end of an empty chain.
    #[must_use]
    pub fn genesis(store: &StoreId) -> Self {
        Self { seq: 0, hash: store.genesis() }
    }

    /// Moves on by one record, given under the next number.
    #[must_use]
    pub fn next(&self, record: &[u8]) -> Self {
        Self { seq: self.seq + 1, hash: link(&self.hash, record) }
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// Lower case only: one spelling per value.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_hash_is_plain_sha256_over_domain_previous_and_record() {
        let store = StoreId([7; 16]);
        let mut bytes = b"agt-supervise audit genesis v1\0".to_vec();
        bytes.extend([7; 16]);
        let genesis: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(store.genesis(), Hash(genesis));
        let mut bytes = b"agt-supervise audit record v1\0".to_vec();
        bytes.extend(genesis);
        bytes.extend(b"{}");
        let first: [u8; 32] = Sha256::digest(&bytes).into();
        assert_eq!(Tip::genesis(&store).next(b"{}"), Tip { seq: 1, hash: Hash(first) });
    }

    #[test]
    fn hexadecimal_has_one_spelling() {
        let hash = Hash([0xab; 32]);
        assert_eq!(Hash::from_hex(&hash.to_string()), Some(hash));
        assert_eq!(Hash::from_hex(&hash.to_string().to_uppercase()), None);
        assert_eq!(Hash::from_hex("ab"), None);
        assert_eq!(Hash::from_hex(&"é".repeat(32)), None);
    }
}
