//! Asks a supervisor the smallest question again and again, and keeps how long each answer took: two wake-ups, its own and ours,
//! and what lies between them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const QUESTION: &[u8] = b"GET /v1/supervisor HTTP/1.1\r\nhost: it\r\n\r\n";

/// Asks until it is told to end.
pub struct Pulse {
    ends: Arc<AtomicBool>,
    asks: JoinHandle<Vec<Duration>>,
}

impl Pulse {
    /// Asks this socket, with this pause between two questions. No answer within `within` is a panic of [`Pulse::end`].
    pub fn start(socket: &Path, pause: Duration, within: Duration) -> Pulse {
        let (ends, socket) = (Arc::<AtomicBool>::default(), socket.to_owned());
        let until = Arc::clone(&ends);
        Pulse { ends, asks: std::thread::spawn(move || ask(&socket, pause, within, &until)) }
    }

    /// How long the answers took, sorted.
    pub fn end(self) -> Vec<Duration> {
        self.ends.store(true, Ordering::SeqCst);
        let mut took = self.asks.join().expect("each question was answered in time");
        took.sort_unstable();
        took
    }
}

fn ask(socket: &PathBuf, pause: Duration, within: Duration, ends: &AtomicBool) -> Vec<Duration> {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    stream.set_read_timeout(Some(within)).expect("not zero");
    let mut took = Vec::new();
    while !ends.load(Ordering::SeqCst) {
        let began = Instant::now();
        stream.write_all(QUESTION).expect("it reads");
        read_answer(&mut stream);
        took.push(began.elapsed());
        std::thread::sleep(pause);
    }
    took
}

fn read_answer(stream: &mut UnixStream) {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).expect("it answers in time");
        assert_ne!(length, 0, "it has closed the connection");
        answer.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let size =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() == size.unwrap_or(usize::MAX) {
            return;
        }
    }
}

/// The sample at this many thousandths of a sorted list.
pub fn at(sorted: &[Duration], thousandth: usize) -> Duration {
    sorted[(sorted.len() * thousandth / 1000).min(sorted.len() - 1)]
}
