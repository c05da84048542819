//! Bytes both ways until both sides are done.
//!
//! An idle tunnel holds no buffer: bytes are read when there are some, into a buffer that all tunnels of a thread share, and
//! written at once; only what the other side does not take is kept, and nothing more is read until it took it.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use crate::flow::{Outcome, Wait};
use crate::hook::{Act, Direction, Event, Failure};
use crate::live::{Passage, Waits};

/// Read at once. Larger reads cost fewer calls, and delay the other connections of the thread.
const PIECE: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; PIECE].into_boxed_slice());
}

/// How long a connection is kept after our last word for the other side to read it.
const LINGER: Duration = Duration::from_secs(1);
/// Pieces that are read and thrown away meanwhile.
const LINGER_PIECES: usize = 512;
/// The size of such a piece.
const LINGER_PIECE: usize = 2048;

/// Pieces after which a tunnel lets the others of its thread go on, however much it has.
const TURN: u32 = 8;

/// Why a direction ended before its last word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Torn {
    /// The agent's side or the far one broke off.
    Broken(Direction),
    /// A hook ended it.
    Failed(Failure),
}

/// What both directions share.
#[derive(Debug)]
struct Between<'a> {
    passage: &'a Passage,
    begun: Instant,
    /// The last movement, in milliseconds after `begun`.
    moved: AtomicU64,
    /// One side has said its last word.
    half: AtomicBool,
}

/// Carries bytes between the agent's side and the other; gives how it ended. Resets are passed on as such, so that a torn-off
/// answer doesn't look like a whole one. `early` is what was read from the agent's side already.
pub(crate) async fn carry(
    mut near: TcpStream,
    mut far: TcpStream,
    early: Bytes,
    passage: &Passage,
    waits: Waits,
) -> Outcome {
    let between = Between { passage, begun: Instant::now(), moved: AtomicU64::new(0), half: AtomicBool::new(false) };
    let outcome = {
        let (near_read, near_write) = near.split();
        let (far_read, mut far_write) = far.split();
        let out = async {
            if !early.is_empty() {
                held(Event { direction: Direction::Out, data: early }, &mut far_write, Direction::Back, &between)
                    .await?;
            }
            one_way(near_read, far_write, Direction::Out, &between).await
        };
        let back = one_way(far_read, near_write, Direction::Back, &between);
        // The first that is torn ends both.
        let both = async { tokio::try_join!(out, back) };
        tokio::select! {
            ended = both => match ended {
                Ok(_) => Outcome::Complete,
                Err(Torn::Broken(Direction::Out)) => Outcome::HungUp,
                Err(Torn::Broken(Direction::Back)) => Outcome::Broken,
                Err(Torn::Failed(failure)) => Outcome::Failed(failure),
            },
            () = between.idle(waits) => Outcome::TimedOut(Wait::Idle),
        }
    };
    match outcome {
        Outcome::Broken | Outcome::HungUp | Outcome::Failed(Failure::Reset) | Outcome::TimedOut(_) => {
            reset(&near);
            reset(&far);
        }
        _ => {}
    }
    outcome
}

/// Closes with RST instead of FIN: what was not delivered is lost, and the other side knows it.
pub(crate) fn reset(stream: &TcpStream) {
    // Fails only for a socket that is not connected any more.
    let _ = stream.set_zero_linger();
}

/// Ends a connection after our last word so that it is read: closing with bytes unread would reset it, and the answer with it.
pub(crate) async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        for _ in 0..LINGER_PIECES {
            // On the heap: what stands in a task's own state stands there for the task's whole life.
            let mut piece = Vec::with_capacity(LINGER_PIECE);
            match stream.read_buf(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    // Who sends on and on has had its answer.
    let _ = tokio::time::timeout(LINGER, rest).await;
}

impl Between<'_> {
    fn touch(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing moved for too long.
    async fn idle(&self, waits: Waits) {
        // Half-closed tunnels wait less: the timer has to look often enough for them.
        let tick = waits.idle.min(waits.half_closed);
        loop {
            let most = if self.half.load(Ordering::Relaxed) { tick } else { waits.idle };
            let due = self.begun + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + most;
            let now = Instant::now();
            if due <= now {
                return;
            }
            tokio::time::sleep_until(due.min(now + tick)).await;
        }
    }
}

async fn one_way(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    between: &Between<'_>,
) -> Result<(), Torn> {
    let other = match direction {
        Direction::Out => Direction::Back,
        Direction::Back => Direction::Out,
    };
    for turn in 1_u32.. {
        match piece(&from, &to, direction, between).await.map_err(|_| Torn::Broken(direction))? {
            Piece::Nothing => {}
            Piece::Rest(rest) => {
                to.write_all(&rest).await.map_err(|_| Torn::Broken(other))?;
                between.touch();
            }
            Piece::Held(event) => held(event, &mut to, other, between).await?,
            Piece::Last => {
                between.half.store(true, Ordering::Relaxed);
                between.touch();
                // A side that is gone already needs no last word.
                let _ = to.shutdown().await;
                return Ok(());
            }
            Piece::NotTaken => return Err(Torn::Broken(other)),
        }
        if turn.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// What came of one reading.
enum Piece {
    /// All went through, or nothing was there yet.
    Nothing,
    /// The other side did not take all at once.
    Rest(Bytes),
    /// Hooks want to see it first.
    Held(Event),
    /// The reading side said its last word.
    Last,
    /// The other side is broken.
    NotTaken,
}

async fn piece(
    from: &ReadHalf<'_>,
    to: &WriteHalf<'_>,
    direction: Direction,
    between: &Between<'_>,
) -> io::Result<Piece> {
    from.readable().await?;
    BUFFER.with_borrow_mut(|buffer| {
        let read = match from.try_read(buffer) {
            Ok(0) => return Ok(Piece::Last),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Piece::Nothing),
            Err(error) => return Err(error),
        };
        between.touch();
        let data = &buffer[..read];
        if between.passage.is_watched() {
            return Ok(Piece::Held(Event { direction, data: Bytes::copy_from_slice(data) }));
        }
        between.passage.count(direction, read);
        match to.try_write(data) {
            Ok(written) if written == read => Ok(Piece::Nothing),
            Ok(written) => Ok(Piece::Rest(Bytes::copy_from_slice(&data[written..]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Piece::Rest(Bytes::copy_from_slice(data))),
            Err(_) => Ok(Piece::NotTaken),
        }
    })
}

/// Shows a piece to the hooks and writes what they leave of it.
async fn held(mut event: Event, to: &mut WriteHalf<'_>, other: Direction, between: &Between<'_>) -> Result<(), Torn> {
    let act = if between.passage.is_watched() { between.passage.on_event(&mut event) } else { Act::Go };
    match act {
        Act::Go => {}
        Act::Delay(time) => {
            tokio::time::sleep(time).await;
            between.touch();
        }
        Act::Fail(failure) => return Err(Torn::Failed(failure)),
    }
    between.passage.count(event.direction, event.data.len());
    to.write_all(&event.data).await.map_err(|_| Torn::Broken(other))?;
    between.touch();
    Ok(())
}
