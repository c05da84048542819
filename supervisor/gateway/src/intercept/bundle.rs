//! The file that an agent's programs are pointed to: whom they believe.
//!
//! Most of the variables that name such a file *replace* what a program believes otherwise. A file with the gateway's certificate
//! alone would therefore break TLS to every host that is not intercepted: the file has the host's usual roots, and ours.

use std::fmt;

use pem::{EncodeConfig, LineEnding};
use rustls::pki_types::CertificateDer;

use super::authority::Pem;

/// Certificates as text, to be written to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    text: String,
    roots: usize,
}

impl Bundle {
    /// The text of the file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How many roots are in it beside the gateway's. With none, TLS to hosts that are not intercepted fails in programs that
    /// believe this file alone.
    #[must_use]
    pub fn roots(&self) -> usize {
        self.roots
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The roots of this host (those that [`trust`](crate::route::trust) believes: Debian's `/etc/ssl/certs`, or what `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` of this process name), `extra` ones, and the gateway's own. Reads some 300 KiB: once, not per agent.
///
/// What can't be read of the host's roots is left out, as every TLS client does.
#[must_use]
pub fn bundle(authority: &Pem, extra: &[CertificateDer<'static>]) -> Bundle {
    let system = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<pem::Pem> =
        system.iter().chain(extra).map(|root| pem::Pem::new("CERTIFICATE", root.as_ref())).collect();
    let text = pem::encode_many_config(&roots, EncodeConfig::new().set_line_ending(LineEnding::LF));
    let mut text = text.trim_end().to_owned();
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(authority.as_str());
    Bundle { text, roots: roots.len() }
}
