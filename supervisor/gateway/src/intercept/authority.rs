//! The authority of one gateway, and the certificates that it made of late.
//!
//! Every name gets a key of its own: two certificates with one key would have one serial number (rcgen makes it of the key), which
//! some clients refuse. What rcgen keeps of a key beside the signer (its PKCS#8 text) is wiped as soon as the signer stands.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroize;

use crate::host::Host;

/// How long an authority is valid. It ends with its process; this is for those that run for long.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a certificate for a host is valid at most: never longer than the authority. It is made anew after half of it.
pub const LEAF_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Certificates for hosts that are kept.
pub const LEAVES_MAX: usize = 1024;

/// How far an agent's clock may be behind ours.
const CLOCKS_DIFFER: Duration = Duration::from_secs(3600);
/// The longest common name (RFC 5280, appendix A: ub-common-name).
const COMMON_NAME_MAX: usize = 64;

/// A certificate as text (RFC 7468). There is no key in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem(String);

impl Pem {
    /// The text, with a line end at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no certificate to show.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoAuthority {
    /// The system gave no randomness, or the host's name has no place in a certificate.
    #[error("a certificate can't be made")]
    Certificate(#[source] rcgen::Error),
    /// TLS does not take what was made.
    #[error("TLS towards the agent can't be set up")]
    Tls(#[source] rustls::Error),
}

impl From<rcgen::Error> for NoAuthority {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error)
    }
}

impl From<rustls::Error> for NoAuthority {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

/// A certificate authority and what it signed of late.
pub(crate) struct Authority {
    pem: Pem,
    issuer: Issuer<'static, KeyPair>,
    until: SystemTime,
    leaves: Mutex<HashMap<Host, Leaf>>,
}

/// TLS as one host.
#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    /// When it is made anew.
    due: SystemTime,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("pem", &self.pem).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, with a key that nobody has seen.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn new(now: SystemTime) -> Result<Self, NoAuthority> {
        let (key, _) = key()?;
        let until = now + AUTHORITY_LIFE;
        let mut params = valid(now, until);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Two authorities of one name in one file would be taken for each other.
        let mark: String = params.key_identifier(&key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = named(format!("agt-supervise interception {mark}"));
        let pem = Pem(params.self_signed(&key)?.pem());
        Ok(Self { pem, issuer: Issuer::new(params, key), until, leaves: Mutex::new(HashMap::new()) })
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> &Pem {
        &self.pem
    }

    /// TLS as `host`.
    ///
    /// # Errors
    /// When the system gives no randomness, or the name has no place in a certificate.
    pub(crate) fn serve(&self, host: &Host, now: SystemTime) -> Result<Arc<ServerConfig>, NoAuthority> {
        // A panic under this lock leaves the map whole: each change is one call of it.
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(host).filter(|leaf| now < leaf.due) {
            return Ok(Arc::clone(&leaf.config));
        }
        let until = self.until.min(now + LEAF_LIFE);
        let config = self.leaf(host, now, until)?;
        if leaves.len() >= LEAVES_MAX {
            leaves.retain(|_, leaf| now < leaf.due);
        }
        if leaves.len() >= LEAVES_MAX {
            // As many names as an agent can think of: making them again is cheaper than knowing which.
            leaves.clear();
        }
        leaves.insert(host.clone(), Leaf { config: Arc::clone(&config), due: now + LEAF_LIFE / 2 });
        Ok(config)
    }

    fn leaf(&self, host: &Host, now: SystemTime, until: SystemTime) -> Result<Arc<ServerConfig>, NoAuthority> {
        let (key, mut secret) = key()?;
        let mut params = valid(now, until);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let text = host.to_string();
        params.subject_alt_names = vec![match host {
            Host::Address(address) => SanType::IpAddress(*address),
            Host::Name(_) => SanType::DnsName(text.as_str().try_into()?),
        }];
        params.distinguished_name = named(common_name(text));
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.issuer)?.into();
        let signer = rustls::crypto::ring::sign::any_supported_type(&secret);
        secret.zeroize();
        tls(CertifiedKey::new(vec![certificate], signer?))
    }
}

/// A key for ECDSA with P-256, and its text for whoever needs that once.
fn key() -> Result<(KeyPair, PrivateKeyDer<'static>), NoAuthority> {
    let mut key = KeyPair::generate()?;
    let secret = PrivatePkcs8KeyDer::from(key.serialize_der());
    key.zeroize();
    Ok((key, secret.into()))
}

/// What one host's certificate is shown by: HTTP/1.1 alone, and nothing that outlives the connection.
fn tls(certified: CertifiedKey) -> Result<Arc<ServerConfig>, NoAuthority> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn valid(now: SystemTime, until: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    let at = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(since.as_secs())
    };
    params.not_before = at(now.checked_sub(CLOCKS_DIFFER).unwrap_or(now));
    params.not_after = at(until);
    params
}

/// The host, where it fits: clients look at the alternative names, people at this one.
fn common_name(host: String) -> String {
    if host.len() > COMMON_NAME_MAX { "a host with a long name".to_owned() } else { host }
}

fn named(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn host(name: &str) -> Host {
        Host::parse(name).unwrap()
    }

    #[test]
    fn a_certificate_is_kept_for_half_its_life_and_made_anew_then() {
        let now = SystemTime::now();
        let authority = Authority::new(now).unwrap();
        let first = authority.serve(&host("a.example"), now).unwrap();
        let kept = authority.serve(&host("a.example"), now + LEAF_LIFE / 2 - Duration::from_secs(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &kept));
        let anew = authority.serve(&host("a.example"), now + LEAF_LIFE / 2).unwrap();
        assert!(!Arc::ptr_eq(&first, &anew));
        assert!(!Arc::ptr_eq(&first, &authority.serve(&host("b.example"), now).unwrap()));
    }

    #[test]
    fn more_names_than_are_kept_are_served_and_not_kept() {
        let now = SystemTime::now();
        let authority = Authority::new(now).unwrap();
        for number in 0..=LEAVES_MAX {
            authority.serve(&host(&format!("n{number}.example")), now).unwrap();
        }
        assert!(authority.leaves.lock().unwrap().len() <= LEAVES_MAX);
    }

    #[test]
    fn names_too_long_for_a_common_name_are_served_without() {
        let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
        assert!(common_name("a".repeat(COMMON_NAME_MAX + 1)).len() <= COMMON_NAME_MAX);
        assert_eq!(common_name("a.example".to_owned()), "a.example");
        let authority = Authority::new(SystemTime::now()).unwrap();
        assert!(authority.serve(&host(&long), SystemTime::now()).is_ok());
        assert!(authority.serve(&host("127.0.0.1"), SystemTime::now()).is_ok());
    }

    #[test]
    fn what_is_shown_of_an_authority_has_no_key() {
        let authority = Authority::new(SystemTime::now()).unwrap();
        let shown = format!("{authority:?} {}", authority.pem());
        assert!(!shown.contains("PRIVATE") && shown.contains("BEGIN CERTIFICATE"), "{shown}");
        assert!(authority.issuer.key().serialized_der().is_empty(), "the text of the key is still there");
    }
}
