//! What we say on standard error, without ever being held up or brought down by whoever reads it.
//!
//! Why not the macros of the standard library: they panic when the other end is closed, and block when it is not read. Our
//! standard error is often shared with an agent (`stdio: raw` hands over our own descriptors), which may fill it or make it
//! non-blocking; and a terminal can go away. Neither may end or stop a supervisor. So `eprintln!` and `eprint!` mean these
//! here: a line goes into a bounded queue, and one thread writes it. What does not fit is dropped, counted, and said later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Messages that wait to be written.
const QUEUE_MESSAGES_MAX: usize = 1024;
/// How long the end of the process waits for a reader.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Writes a line to standard error, some time soon.
macro_rules! eprintln {
    () => { $crate::say::say(::std::string::String::from("\n")) };
    ($($arg:tt)*) => {{
        let mut text = ::std::format!($($arg)*);
        text.push('\n');
        $crate::say::say(text)
    }};
}

/// Writes to standard error, some time soon.
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::say::say(::std::format!($($arg)*)) };
}

enum Message {
    Text(String),
    /// Everything before it is written: say so.
    Flush(SyncSender<()>),
}

/// Whether programs read what we say.
static AS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on each message is a JSON object on a line of its own.
pub fn speak_json() {
    AS_JSON.store(true, Ordering::Relaxed);
}

/// Messages that found no room, since the last one that did.
static DROPPED: AtomicU64 = AtomicU64::new(0);

fn queue() -> &'static Mutex<Option<SyncSender<Message>>> {
    static QUEUE: OnceLock<Mutex<Option<SyncSender<Message>>>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel(QUEUE_MESSAGES_MAX);
        let thread = std::thread::Builder::new().name("agt-say".to_owned()).spawn(move || write_all(&receiver));
        // Without a thread there is nobody to say it, and nobody to say that to.
        Mutex::new(thread.is_ok().then_some(sender))
    })
}

fn send(message: Message) -> Result<(), TrySendError<Message>> {
    match queue().lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        Some(sender) => sender.try_send(message),
        None => Err(TrySendError::Disconnected(message)),
    }
}

/// Queues a text for standard error. Never blocks, never fails.
#[doc(hidden)]
pub fn say(text: String) {
    if send(Message::Text(text)).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until everything said so far is written, or nobody has read it for a while. Before the process ends, and before
/// anything that must come after it.
pub fn flush() {
    let (done, wait) = sync_channel(1);
    if send(Message::Flush(done)).is_ok() {
        // A reader that is gone or asleep costs this much and no more.
        let _ = wait.recv_timeout(FLUSH_WITHIN);
    }
}

fn write_all(messages: &Receiver<Message>) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Text(text) => write_stderr(formed(text).as_bytes()),
            Message::Flush(done) => {
                let _ = done.send(());
            }
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text = format!("warning: {dropped} messages were lost here: nobody read standard error in time\n");
            write_stderr(formed(text).as_bytes());
        }
    }
}

/// A text as it is written: as it stands, or as one JSON object on a line of its own.
fn formed(text: String) -> String {
    if !AS_JSON.load(Ordering::Relaxed) {
        return text;
    }
    let text = text.trim_matches('\n');
    let (level, text) = ["error", "refused", "denied", "warning", "note", "help"]
        .into_iter()
        .find_map(|level| Some((level, text.strip_prefix(level)?.strip_prefix(": ")?)))
        .unwrap_or(("info", text));
    format!("{}\n", serde_json::json!({ "level": level, "text": text }))
}

/// Writes to standard error. One at a time, so that what an agent prints there and what we say don't run into each other.
pub(crate) fn write_stderr(bytes: &[u8]) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    write(io::stderr().as_fd(), bytes);
}

/// Writes all of it, waiting for room where there is none. A descriptor whose other end is gone swallows the rest.
pub(crate) fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match nix::unistd::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(nix::errno::Errno::EINTR) => {}
            // Somebody who shares it has made it non-blocking.
            Err(nix::errno::Errno::EAGAIN) => {
                let mut fds = [PollFd::new(to, PollFlags::POLLOUT)];
                let _ = poll(&mut fds, PollTimeout::NONE);
                if fds[0].revents().is_some_and(|events| !events.contains(PollFlags::POLLOUT)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
