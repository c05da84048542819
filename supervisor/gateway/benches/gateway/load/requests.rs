//! Requests over keep-alive connections: as many as go, or at their times.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Reading, ended};
use super::{failed, quantiles, sum};
use crate::Anything;
use crate::orders::Report;
use crate::threads::Threads;

/// Of the time that counts: how long connections are opened and caches are filled before.
const WARM: u32 = 4;
/// What an answer is waited for at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// As many as go, each connection with one under way.
pub(super) fn closed(
    threads: &Threads,
    at: SocketAddr,
    request: &Arc<str>,
    connections: usize,
    millis: u64,
) -> Result<Report, Anything> {
    let measured = Duration::from_millis(millis);
    let begins = Instant::now() + measured / WARM;
    let until = begins + measured;
    let client = |number| threads.of(number).spawn(client(at, Arc::clone(request), begins, until));
    let clients: Vec<_> = (0..connections).map(client).collect();
    let report = sum(super::wait(clients)?);
    Ok(Report { seconds: measured.as_secs_f64(), ..report })
}

async fn client(at: SocketAddr, request: Arc<str>, begins: Instant, until: Instant) -> Report {
    let mut report = Report::default();
    let asking = async {
        let mut stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let mut reading = Reading::default();
        loop {
            stream.write_all(request.as_bytes()).await?;
            while !reading.whole()? {
                if stream.read_buf(reading.room()).await? == 0 {
                    return Err(ended());
                }
            }
            let now = Instant::now();
            report.all += 1;
            report.counted += u64::from((begins..until).contains(&now));
            if now >= until {
                return Ok(());
            }
        }
    };
    let patience = until.saturating_duration_since(Instant::now()) + PATIENCE;
    let wrong = match tokio::time::timeout(patience, asking).await {
        Ok(Ok(())) => return report,
        Ok(Err(error)) => failed(&error),
        Err(late) => failed(&late),
    };
    sum([report, wrong])
}

/// At their times, by a thread for each connection: the kernel wakes a thread to within some 50 us, a runtime to within 1 ms.
pub(super) fn timed(
    at: SocketAddr,
    request: &Arc<str>,
    connections: usize,
    per_second: Option<u32>,
    millis: u64,
) -> Report {
    let measured = Duration::from_millis(millis);
    // The first connections are there long before their first request is due.
    let starts = Instant::now() + Duration::from_millis(200);
    let begins = starts + measured / WARM;
    let until = begins + measured;
    let apart = per_second.map(|rate| Duration::from_secs(1) / rate);
    let times = |number: usize| Times {
        // Connections take turns: each has every so manieth of all requests.
        next: starts + apart.unwrap_or_default() * number as u32,
        every: apart.map(|apart| apart * connections as u32),
        begins,
        until,
    };
    let clients: Vec<_> = (0..connections)
        .map(|number| {
            let (request, times) = (Arc::clone(request), times(number));
            std::thread::spawn(move || punctual(at, request.as_bytes(), times))
        })
        .collect();
    let (mut took, mut reports) = (Vec::new(), Vec::new());
    for client in clients {
        let (times, report) = client.join().unwrap_or_else(|_| (Vec::new(), failed(&"a client panicked")));
        took.extend(times);
        reports.push(report);
    }
    let report = Report { seconds: measured.as_secs_f64(), ..sum(reports) };
    quantiles(took, report)
}

struct Times {
    next: Instant,
    /// None: as soon as the answer is there.
    every: Option<Duration>,
    begins: Instant,
    until: Instant,
}

fn punctual(at: SocketAddr, request: &[u8], mut times: Times) -> (Vec<u64>, Report) {
    let (mut took, mut report) = (Vec::new(), Report::default());
    let mut asking = || -> io::Result<()> {
        let mut stream = Blocking::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut reading, mut piece) = (Reading::default(), [0; 8192]);
        loop {
            let due = if times.every.is_some() { times.next } else { Instant::now().max(times.next) };
            if due >= times.until {
                return Ok(());
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Without a rate there is no time that it should have been sent at but now.
            let due = if times.every.is_some() { due } else { Instant::now() };
            stream.write_all(request)?;
            while !reading.whole()? {
                match stream.read(&mut piece)? {
                    0 => return Err(ended()),
                    read => reading.room().extend_from_slice(&piece[..read]),
                }
            }
            report.all += 1;
            if due >= times.begins {
                report.counted += 1;
                took.push(due.elapsed().as_nanos() as u64);
            }
            times.next += times.every.unwrap_or_default();
        }
    };
    match asking() {
        Ok(()) => (took, report),
        Err(error) => (took, sum([report, failed(&error)])),
    }
}
