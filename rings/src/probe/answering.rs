//! Whoever stands behind a model's route, for the probe: it answers each call with the decoys' mark.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::JoinHandle;
use std::time::Duration;

use super::attack::MARK;

/// Where the route stands inside a ring: the port that agents find it at.
pub(super) const PORT: u16 = 20_789;
/// How long a caller may take to say what it wants.
const SAID_WITHIN: Duration = Duration::from_secs(5);

/// The route's address inside a ring.
pub(super) fn inside() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

/// Answers until it is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    /// One call after the other.
    pub(super) fn start(listener: TcpListener) -> std::io::Result<Answering> {
        let accepting = listener.try_clone()?;
        let thread = std::thread::Builder::new().name("agt-probe-model".to_owned()).spawn(move || {
            // Ends when the listener is shut down.
            while let Ok((stream, _)) = accepting.accept() {
                // Whoever hangs up needs no answer.
                let _hung_up = answer(stream);
            }
        })?;
        Ok(Answering { listener, thread: Some(thread) })
    }

    /// At a port of the host's own loopback.
    pub(super) fn outside() -> std::io::Result<Answering> {
        Answering::start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)
    }

    /// Its port.
    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SAID_WITHIN))?;
    if stream.read(&mut [0; 1024])? == 0 {
        return Ok(());
    }
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{MARK}", MARK.len())?;
    stream.shutdown(Shutdown::Both)
}

impl Drop for Answering {
    fn drop(&mut self) {
        // The thread's accept returns by that; a listener that can't be shut down has no thread waiting on it.
        let shut = nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let (Ok(()), Some(thread)) = (shut, self.thread.take()) {
            let _ended = thread.join();
        }
    }
}
