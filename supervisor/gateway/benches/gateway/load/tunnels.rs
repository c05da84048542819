//! Tunnels by CONNECT: opened, proven by one answer through them, closed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Reading, ended};
use super::{failed, sum};
use crate::Anything;
use crate::orders::{First, Report};
use crate::threads::Threads;

const WARM: u32 = 4;

/// As many as go, so many at the same time.
pub(super) fn run(
    threads: &Threads,
    proxy: SocketAddr,
    target: &str,
    first: First,
    connections: usize,
    millis: u64,
) -> Result<Report, Anything> {
    let measured = Duration::from_millis(millis);
    let begins = Instant::now() + measured / WARM;
    let until = begins + measured;
    let connect: Arc<str> = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into();
    let first: Arc<[u8]> = spoken(first)?.into();
    let clients = (0..connections).map(|number| {
        let (connect, first) = (Arc::clone(&connect), Arc::clone(&first));
        threads.of(number).spawn(async move {
            let mut report = Report::default();
            while Instant::now() < until {
                if let Err(error) = open(proxy, &connect, &first).await {
                    report = sum([report, failed(&error)]);
                    continue;
                }
                report.all += 1;
                report.counted += u64::from((begins..until).contains(&Instant::now()));
            }
            report
        })
    });
    let report = sum(super::wait(clients.collect())?);
    Ok(Report { seconds: measured.as_secs_f64(), ..report })
}

/// Opens one, says the first thing through it and reads the answer.
pub(super) async fn open(proxy: SocketAddr, connect: &str, first: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    stream.write_all(connect.as_bytes()).await?;
    let mut reading = Reading::default();
    while !reading.head()? {
        if stream.read_buf(reading.room()).await? == 0 {
            return Err(ended());
        }
    }
    stream.write_all(first).await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    Ok(stream)
}

/// What is said first.
pub(super) fn spoken(first: First) -> Result<Vec<u8>, Anything> {
    if first == First::Byte {
        return Ok(b"?".to_vec());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello)?;
    Ok(hello)
}
