//! How upstreams are reached: addresses, and whom to believe that they are the upstream.

use crate::host::Host;
use crate::resolve::Resolver;
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one address of several is tried.
const ADDRESS_MAX: Duration = Duration::from_secs(5);

/// What comes of dialling.
pub type Dialling<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Makes TCP connections to upstreams: where names are resolved and addresses checked.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Connects to `host`, a name or an address.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a>;
}

/// Dials what the resolver says, address by address. Addresses are not checked: it is for upstreams that the operator declared, a
/// model on this machine or in a private network among them. Look-ups are bounded: a hung DNS holds up these calls alone.
impl Dial for Resolver {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(async move {
            let addresses = match Host::parse(host).map_err(io::Error::other)? {
                Host::Address(address) => Arc::from([address]),
                Host::Name(name) => self.resolve(&name).await.map_err(io::Error::other)?,
            };
            connect(&addresses, port).await
        })
    }
}

async fn connect(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(ADDRESS_MAX, TcpStream::connect((*address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

/// Dials by the runtime's own look-ups, which have no bound: for upstreams given by address.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDial;

impl Dial for SystemDial {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialling<'a> {
        Box::pin(TcpStream::connect((host, port)))
    }
}

/// Roots that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadTrust {
    /// The system has none and none were given.
    #[error("no root certificate was found on this system, and none is declared")]
    NoRoots,
    /// One of those given is broken.
    #[error("a declared root certificate can't be used")]
    Root(#[source] rustls::Error),
    /// The protocol versions do not fit the cryptography.
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
}

/// TLS to upstreams by the system's roots and `extra` ones.
pub fn trust(extra: &[CertificateDer<'static>]) -> Result<Arc<rustls::ClientConfig>, BadTrust> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in extra {
        roots.add(root.clone()).map_err(BadTrust::Root)?;
    }
    if roots.is_empty() {
        return Err(BadTrust::NoRoots);
    }
    believing(roots)
}

/// TLS to upstreams that are believed by nobody: each is refused. For a host without root certificates, whose agents have other ways.
///
/// # Errors
/// As [`trust`], but for what it says of roots.
pub fn trust_nobody() -> Result<Arc<rustls::ClientConfig>, BadTrust> {
    believing(rustls::RootCertStore::empty())
}

fn believing(roots: rustls::RootCertStore) -> Result<Arc<rustls::ClientConfig>, BadTrust> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BadTrust::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
