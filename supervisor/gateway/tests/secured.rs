//! TLS around what the other tests have in the clear: in front of a destination, and behind a client.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::HandshakeKind;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::rig::{Client, PATIENCE, Rig, listener};

/// Where the TLS of all tests is done.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Believes these and nobody else; what it speaks inside TLS is `alpn`.
pub(crate) fn believing(roots: &[CertificateDer<'static>], alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    let mut store = rustls::RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// The authority of the tests' destinations.
pub(crate) struct World(CertifiedIssuer<'static, KeyPair>, pub(crate) Handshakes);

/// What the gateway chose to speak with destinations, and whether it came with a session of before.
pub(crate) type Handshakes = Arc<Mutex<Vec<(Option<Vec<u8>>, HandshakeKind)>>>;

/// What is wrong with a destination's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    Expired,
    WrongName,
    SelfSigned,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the world");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(), Arc::default())
    }

    /// What the gateway believes.
    pub(crate) fn trust(&self) -> Arc<rustls::ClientConfig> {
        believing(&[self.0.der().clone()], &[b"h2", b"http/1.1"])
    }

    fn serve(&self, flaw: Flaw) -> Arc<rustls::ServerConfig> {
        let names = match flaw {
            Flaw::WrongName => vec!["other.example".to_owned()],
            _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(names).unwrap();
        if flaw == Flaw::Expired {
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate =
            if flaw == Flaw::SelfSigned { params.self_signed(&key) } else { params.signed_by(&key, &self.0) }.unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// A port that speaks TLS and passes what is inside on to `plain`.
    pub(crate) fn front(&self, plain: SocketAddr, flaw: Flaw) -> u16 {
        let acceptor = TlsAcceptor::from(self.serve(flaw));
        let (listener, at) = listener();
        listener.set_nonblocking(true).unwrap();
        let handshakes = Arc::clone(&self.1);
        runtime().spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((near, _)) = listener.accept().await {
                let (acceptor, handshakes) = (acceptor.clone(), Arc::clone(&handshakes));
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(near).await else { return };
                    let session = near.get_ref().1;
                    let seen = (session.alpn_protocol().map(<[u8]>::to_vec), session.handshake_kind().unwrap());
                    handshakes.lock().unwrap().push(seen);
                    let mut far = tokio::net::TcpStream::connect(plain).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                    let _ = near.shutdown().await;
                });
            }
        });
        at.port()
    }
}

/// What a client saw of the TLS handshake.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) alpn: Option<Vec<u8>>,
}

/// Speaks TLS over a connection: the client's bytes go inside of it.
pub(crate) fn inside(
    stream: TcpStream,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> Result<(Client, Seen), String> {
    let (listener, at) = listener();
    let near = TcpStream::connect(at).unwrap();
    let (middle, _) = listener.accept().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    stream.set_nonblocking(true).unwrap();
    middle.set_nonblocking(true).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    runtime().spawn(async move {
        let far = tokio::net::TcpStream::from_std(stream).unwrap();
        let mut far = match TlsConnector::from(config).connect(name, far).await {
            Ok(far) => far,
            Err(error) => return tell.send(Err(error.to_string())).unwrap(),
        };
        let session = far.get_ref().1;
        let leaf = session.peer_certificates().unwrap()[0].clone().into_owned();
        let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
        tell.send(Ok(Seen { leaf, alpn })).unwrap();
        let mut middle = tokio::net::TcpStream::from_std(middle).unwrap();
        if copy_bidirectional(&mut middle, &mut far).await.is_err() {
            // What broke off shall not look like an end.
            middle.set_zero_linger().unwrap();
        }
    });
    let seen = told.recv_timeout(PATIENCE + Duration::from_secs(5)).unwrap()?;
    Ok((Client::over(near), seen))
}

/// What an agent believes that was handed the gateway's certificate.
pub(crate) fn handed(rig: &Rig) -> Arc<rustls::ClientConfig> {
    let authority = rig.gateway.authority().unwrap();
    let der = pem::parse(authority.as_str()).unwrap().into_contents();
    believing(&[CertificateDer::from(der)], &[b"h2", b"http/1.1"])
}
