//! Connections that are opened, used once, and then rest.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::answer::{Reading, ended};
use super::streams::Events;
use super::{failed, sum, tunnels};
use crate::Anything;
use crate::orders::{Door, First, Held, Report};
use crate::threads::Threads;

/// Connections that are being opened at the same time: less than any backlog.
const OPENING: usize = 32;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is held, and what broke while it was.
pub(super) struct Holding {
    tasks: Vec<JoinHandle<()>>,
    broken: Arc<AtomicU64>,
}

pub(super) fn hold(threads: &Threads, doors: &[Door], count: usize, held: Held) -> Result<(Holding, Report), Anything> {
    let broken = Arc::new(AtomicU64::new(0));
    let opening = Arc::new(Semaphore::new(OPENING));
    let hello: Arc<[u8]> = tunnels::spoken(First::Hello)?.into();
    let (there, all) = std::sync::mpsc::channel();
    let tasks = (0..count).map(|number| {
        let (door, hello) = (doors[number % doors.len()].clone(), Arc::clone(&hello));
        let (broken, opening, there) = (Arc::clone(&broken), Arc::clone(&opening), there.clone());
        threads.of(number).spawn(async move {
            let place = opening.acquire().await;
            let opened = tokio::time::timeout(PATIENCE, open(&door, &hello, held)).await;
            drop(place);
            let mut rests = match opened.unwrap_or_else(|late| Err(late.into())) {
                Ok(rests) => rests,
                Err(error) => return drop(there.send(failed(&error))),
            };
            if there.send(Report { counted: 1, all: 1, ..Report::default() }).is_ok() {
                rests.until_it_breaks().await;
                broken.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    drop(there);
    // One word each; those that failed have said theirs.
    let report = sum(all.iter().take(count));
    Ok((Holding { tasks, broken }, report))
}

/// Closes them; the errors are those that broke by themselves before.
pub(super) fn release(holding: Holding) -> Report {
    let errors = holding.broken.load(Ordering::Relaxed);
    holding.tasks.iter().for_each(JoinHandle::abort);
    let first_error = (errors > 0).then(|| "a connection at rest was closed".to_owned());
    Report { errors, first_error, ..Report::default() }
}

enum Rests {
    Silent(TcpStream),
    Events(Events),
}

impl Rests {
    async fn until_it_breaks(&mut self) {
        match self {
            Rests::Silent(stream) => drop(stream.read(&mut [0]).await),
            Rests::Events(events) => while events.lost == 0 && events.next().await.is_ok() {},
        }
    }
}

async fn open(door: &Door, hello: &[u8], held: Held) -> io::Result<Rests> {
    match held {
        Held::KeepAlive => {
            let mut stream = TcpStream::connect(door.at).await?;
            stream.set_nodelay(true)?;
            stream.write_all(door.request.as_bytes()).await?;
            let mut reading = Reading::default();
            while !reading.whole()? {
                if stream.read_buf(reading.room()).await? == 0 {
                    return Err(ended());
                }
            }
            Ok(Rests::Silent(stream))
        }
        Held::Tunnel => tunnels::open(door.at, &door.request, hello).await.map(Rests::Silent),
        Held::Stream => {
            let mut events = Events::open(door).await?;
            events.next().await?;
            Ok(Rests::Events(events))
        }
    }
}
