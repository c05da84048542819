//! A signed head: "the chain of this store has this hash at this number", which only the key's owner can say.
//!
//! A head is one line of canonical JSON. The signature is over a domain text and the same JSON without its `sig` member, so that
//! a head can be checked with any Ed25519 library (RFC 8032) and a dozen lines of script.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};

use super::AuditError;
use super::canonical::Value;
use super::chain::{Hash, StoreId, Tip, from_hex, to_hex};
use super::record::{take_int, take_text};
use super::signer::{KeyId, Signer};

const HEAD_DOMAIN: &[u8] = b"agt-supervise audit head v1\0";
/// Longest line of a head that is worth reading, in bytes; ours have under 400.
pub const HEAD_BYTES_MAX: usize = 1024;

/// What a head states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose chain.
    pub store: StoreId,
    /// Its end when this was signed.
    pub tip: Tip,
    /// When it was signed, in milliseconds since the epoch.
    pub time_ms: i64,
    /// By which key.
    pub key: KeyId,
}

/// A head with its signature, as stored; whether the signature holds is for [`SignedHead::is_signed_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    /// The statement.
    pub head: Head,
    /// 64 bytes of Ed25519.
    pub signature: [u8; 64],
}

impl Head {
    fn members(&self) -> BTreeMap<String, Value> {
        [
            ("v".to_owned(), Value::Int(1)),
            ("store".to_owned(), Value::Text(self.store.to_string())),
            ("seq".to_owned(), Value::from(self.tip.seq)),
            ("hash".to_owned(), Value::Text(self.tip.hash.to_string())),
            ("time_ms".to_owned(), Value::Int(self.time_ms)),
            ("key".to_owned(), Value::Text(self.key.to_string())),
        ]
        .into()
    }

    fn signed_bytes(&self) -> Vec<u8> {
        [HEAD_DOMAIN, Value::Map(self.members()).to_canonical().as_bytes()].concat()
    }
}

impl SignedHead {
    /// Signs the end of a chain.
    #[must_use]
    pub fn sign(signer: &Signer, store: StoreId, tip: Tip, time_ms: i64) -> Self {
        let head = Head { store, tip, time_ms, key: signer.key_id() };
        let signature = signer.sign(&head.signed_bytes());
        Self { head, signature }
    }

    /// The line, without its newline.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut members = self.head.members();
        members.insert("sig".to_owned(), Value::Text(to_hex(&self.signature)));
        Value::Map(members).to_canonical()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// [`AuditError::NotCanonical`] or [`AuditError::Malformed`].
    pub fn decode(line: &str) -> Result<Self, AuditError> {
        let malformed = |field| AuditError::Malformed { field };
        if line.len() > HEAD_BYTES_MAX {
            return Err(malformed("head (too long)"));
        }
        let Value::Map(mut members) = Value::from_canonical(line)? else {
            return Err(malformed("head"));
        };
        if take_int(&mut members, "v")? != 1 {
            return Err(malformed("v"));
        }
        let seq = u64::try_from(take_int(&mut members, "seq")?).map_err(|_| malformed("seq"))?;
        let hash = Hash::from_hex(&take_text(&mut members, "hash")?).ok_or(malformed("hash"))?;
        let signed = Self {
            head: Head {
                store: StoreId::from_hex(&take_text(&mut members, "store")?).ok_or(malformed("store"))?,
                tip: Tip { seq, hash },
                time_ms: take_int(&mut members, "time_ms")?,
                key: KeyId::from_hex(&take_text(&mut members, "key")?).ok_or(malformed("key"))?,
            },
            signature: from_hex(&take_text(&mut members, "sig")?).ok_or(malformed("sig"))?,
        };
        match members.is_empty() {
            true => Ok(signed),
            false => Err(malformed("head (unknown members)")),
        }
    }

    /// Whether the key's owner signed this very statement (strict verification: no malleable or small-order variants).
    #[must_use]
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verify_strict(&self.head.signed_bytes(), &Signature::from_bytes(&self.signature)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn signed() -> (Signer, SignedHead) {
        let signer = Signer::from_seed([3; 32]);
        let head = SignedHead::sign(&signer, StoreId([1; 16]), Tip { seq: 9, hash: Hash([2; 32]) }, 1_700_000_000_000);
        (signer, head)
    }

    #[test]
    fn a_head_survives_its_text_form_and_its_signature_holds() {
        let (signer, head) = signed();
        assert_eq!(SignedHead::decode(&head.encode()).unwrap(), head);
        assert!(head.is_signed_by(&signer.public_key()));
        assert!(!head.is_signed_by(&Signer::from_seed([4; 32]).public_key()));
    }

    proptest! {
        #[test]
        fn any_changed_byte_of_a_head_is_found(index in 0_usize..300, flip in 1_u8..) {
            let (signer, head) = signed();
            let mut bytes = head.encode().into_bytes();
            let index = index % bytes.len();
            bytes[index] ^= flip;
            let found = String::from_utf8(bytes).ok().and_then(|line| SignedHead::decode(&line).ok());
            prop_assert!(found.is_none_or(|head| !head.is_signed_by(&signer.public_key())));
        }
    }
}
