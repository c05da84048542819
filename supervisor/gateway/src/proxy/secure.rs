//! TLS to the destination of an opened tunnel, which no program of the agent can verify any more: so it is verified here, and there
//! is no way to go on without.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::opening::deny;
use super::upstream::Upstream;
use crate::flow::{Outcome, Wait};
use crate::host::{Authority, Host};
use crate::live::{Decided, NoWay, Reached};
use crate::policy::Reason;

/// Names of a certificate for another host that are shown.
const NAMES_SHOWN: usize = 4;
/// Characters that are shown of what a destination said.
const SHOWN_MAX: usize = 200;

/// Why there is no TLS with the destination; in words for the agent.
#[derive(Debug)]
pub(super) enum Unsecured {
    /// Its certificate is not to be believed.
    Untrusted(String),
    /// It speaks no TLS that we do, or broke off.
    Failed(String),
    /// It said nothing for too long.
    TimedOut,
}

/// What opened tunnels believe: as the model routes, but each connection is verified anew. A resumed session isn't, and a ticket that
/// one agent's connection was given would make the next agent known as the same at the destination.
pub(crate) fn apart(tls: &ClientConfig) -> Arc<ClientConfig> {
    let mut tls = tls.clone();
    tls.resumption = Resumption::disabled();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(tls)
}

/// Makes TLS with `to` over a connection, verified by `tls`, and takes it into use.
///
/// # Errors
/// See [`Unsecured`].
pub(super) async fn connect(
    tls: &Arc<ClientConfig>,
    far: Reached,
    to: &Authority,
    wait: Duration,
) -> Result<Upstream, Unsecured> {
    let failed = |error: &dyn Error| Unsecured::Failed(format!("{to}: TLS: {}", shown(&error.to_string())));
    let name = match &to.host {
        Host::Address(address) => ServerName::IpAddress((*address).into()),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned()).map_err(|error| failed(&error))?,
    };
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(name, far.stream);
    let stream = match timeout(wait, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(untrusted(&error, to).unwrap_or_else(|| failed(&error))),
        Err(_) => return Err(Unsecured::TimedOut),
    };
    Upstream::new(stream, to.clone(), far.address).await.map_err(|error| failed(&error))
}

fn untrusted(error: &io::Error, to: &Authority) -> Option<Unsecured> {
    let why = match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(error) => certificate(error),
        rustls::Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        _ => return None,
    };
    Some(Unsecured::Untrusted(format!(
        "{to}: {why}. The gateway opens TLS to this host (`intercept: on`) and does not go on to one that it can't trust; a retry \
         will not help."
    )))
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<_> = presented.iter().take(NAMES_SHOWN).map(|name| shown(name)).collect();
            let more = if presented.len() > NAMES_SHOWN { ", ..." } else { "" };
            format!("its certificate is for another name ({}{more})", names.join(", "))
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::UnknownIssuer => {
            "its certificate is self-signed, or signed by nobody whom this host trusts".to_owned()
        }
        CertificateError::Revoked => "its certificate is revoked".to_owned(),
        other => format!("its certificate is not valid ({})", shown(&other.to_string())),
    }
}

/// What comes from outside, in one bounded line.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect()
}

impl Unsecured {
    /// Tells it of a flow, which ends with it.
    pub(super) fn tell(self, decided: &Decided) -> NoWay {
        match self {
            Self::Untrusted(message) => NoWay::Untrusted(deny(decided, Reason::Untrusted), message),
            Self::Failed(message) => {
                decided.passage.end(Outcome::Unreachable);
                NoWay::Unreachable(message)
            }
            Self::TimedOut => {
                decided.passage.end(Outcome::TimedOut(Wait::Connect));
                NoWay::TimedOut
            }
        }
    }
}
