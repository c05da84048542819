//! The agent's side of a connection for hyper, with an eye on the clock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::clock::Clock;
use super::tunnel;

/// A connection whose movements the clock sees.
#[derive(Debug)]
pub(super) struct Wire {
    /// There until it is given back.
    stream: Option<TokioIo<TcpStream>>,
    clock: Arc<Clock>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, clock: Arc<Clock>) -> Self {
        Self { stream: Some(TokioIo::new(stream)), clock }
    }

    pub(super) fn into_stream(mut self) -> TcpStream {
        self.stream.take().expect("given back once, here").into_inner()
    }

    fn stream(&mut self) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(self.stream.as_mut().expect("given back by value, so nobody asks afterwards"))
    }

    fn wrote(&self, done: &Poll<io::Result<usize>>) {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.clock.moved_out();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream
            && self.clock.is_reset()
        {
            tunnel::reset(stream.inner());
        }
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let done = self.stream().poll_read(cx, buf);
        if matches!(done, Poll::Ready(Ok(()))) {
            self.clock.moved_in();
        }
        done
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = self.stream().poll_write(cx, buf);
        self.wrote(&done);
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = self.stream().poll_write_vectored(cx, bufs);
        self.wrote(&done);
        done
    }
}
