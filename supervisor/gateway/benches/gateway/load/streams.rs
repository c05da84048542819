//! Streams of events that say which they are and when they were made.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::{Reading, ended};
use super::{failed, quantiles, sum};
use crate::Anything;
use crate::orders::{Door, Report};
use crate::threads::Threads;
use crate::upstream::now;

/// Around the number and the time in an event.
const MARK: u8 = b'@';

/// Opens them spread over a second, reads each to its end.
pub(super) fn run(
    threads: &Threads,
    doors: &[Door],
    count: usize,
    warm_millis: u64,
    millis: u64,
) -> Result<Report, Anything> {
    let starts = Instant::now();
    let begins = starts + Duration::from_millis(warm_millis);
    let until = begins + Duration::from_millis(millis);
    let streams = (0..count).map(|number| {
        let opens = starts + Duration::from_secs(1) * number as u32 / count as u32;
        let door = doors[number % doors.len()].clone();
        threads.of(number).spawn(stream(door, opens, begins, until))
    });
    let (mut took, mut reports) = (Vec::new(), Vec::new());
    for (times, report) in super::wait(streams.collect())? {
        took.extend(times);
        reports.push(report);
    }
    let report = Report { seconds: millis as f64 / 1e3, ..sum(reports) };
    Ok(quantiles(took, report))
}

async fn stream(door: Door, opens: Instant, begins: Instant, until: Instant) -> (Vec<u64>, Report) {
    let (mut took, mut report) = (Vec::new(), Report::default());
    tokio::time::sleep_until(opens.into()).await;
    let reading = async {
        let mut events = Events::open(&door).await?;
        while Instant::now() < until {
            let came = events.next().await?;
            let read = Instant::now();
            report.all += came.len() as u64;
            if read < begins {
                continue;
            }
            report.counted += came.len() as u64;
            report.merged += came.len().saturating_sub(1) as u64;
            let now = now();
            took.extend(came.iter().map(|made| now.saturating_sub(*made)));
        }
        report.lost = events.lost;
        Ok::<_, io::Error>(())
    };
    match reading.await {
        Ok(()) => (took, report),
        Err(error) => (took, sum([report, failed(&error)])),
    }
}

/// The events of one stream.
pub(super) struct Events {
    stream: TcpStream,
    bytes: Reading,
    next: u64,
    /// Numbers that were not the next.
    pub(super) lost: u64,
}

impl Events {
    /// Asks for them, and waits until the answer begins.
    pub(super) async fn open(door: &Door) -> io::Result<Events> {
        let mut stream = TcpStream::connect(door.at).await?;
        stream.set_nodelay(true)?;
        stream.write_all(door.request.as_bytes()).await?;
        let mut bytes = Reading::default();
        while !bytes.head()? {
            if stream.read_buf(bytes.room()).await? == 0 {
                return Err(ended());
            }
        }
        Ok(Events { stream, bytes, next: 0, lost: 0 })
    }

    /// When those were made that came at once: mostly one, and after pieces of one none.
    pub(super) async fn next(&mut self) -> io::Result<VecDeque<u64>> {
        let mut came = self.take();
        while came.is_empty() {
            // Room is asked for only now: held streams hold no buffer that nothing is in.
            if self.stream.read_buf(self.bytes.room()).await? == 0 {
                return Err(ended());
            }
            came = self.take();
        }
        Ok(came)
    }

    fn take(&mut self) -> VecDeque<u64> {
        let (mut came, kept) = (VecDeque::new(), self.bytes.rest());
        let mut done = 0;
        while let Some((inside, end)) = marked(&kept[done..]) {
            let text = std::str::from_utf8(&kept[done..][inside..end - 1]).unwrap_or_default();
            let (number, made) = text.split_once(' ').unwrap_or_default();
            self.lost += u64::from(number.parse() != Ok(self.next));
            self.next += 1;
            came.extend(made.parse::<u64>().ok());
            done += end;
        }
        kept.drain(..done);
        came
    }
}

/// Where what stands between two marks begins, and where the second mark ends.
fn marked(bytes: &[u8]) -> Option<(usize, usize)> {
    let begin = bytes.iter().position(|byte| *byte == MARK)? + 1;
    let length = bytes[begin..].iter().position(|byte| *byte == MARK)?;
    Some((begin, begin + length + 1))
}
