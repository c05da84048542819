//! The agent's side of a connection for hyper, with an eye on the clock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::clock::Clock;
use super::tunnel;

/// What the agent's side speaks over: a socket, or TLS over one.
pub(super) trait Near: AsyncRead + AsyncWrite + Unpin {
    /// The socket under it.
    fn socket(&self) -> &TcpStream;
}

impl Near for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

/// A connection whose movements the clock sees.
#[derive(Debug)]
pub(super) struct Wire<S: Near> {
    /// There until it is given back.
    stream: Option<TokioIo<S>>,
    clock: Arc<Clock>,
}

impl<S: Near> Wire<S> {
    pub(super) fn new(stream: S, clock: Arc<Clock>) -> Self {
        Self { stream: Some(TokioIo::new(stream)), clock }
    }

    pub(super) fn into_stream(mut self) -> S {
        self.stream.take().expect("given back once, here").into_inner()
    }

    fn stream(&mut self) -> Pin<&mut TokioIo<S>> {
        Pin::new(self.stream.as_mut().expect("given back by value, so nobody asks afterwards"))
    }

    fn wrote(&self, done: &Poll<io::Result<usize>>) {
        if matches!(done, Poll::Ready(Ok(_))) {
            self.clock.moved_out();
        }
    }
}

impl<S: Near> Drop for Wire<S> {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream
            && self.clock.is_reset()
        {
            tunnel::reset(stream.inner().socket());
        }
    }
}

impl<S: Near> Read for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let done = self.stream().poll_read(cx, buf);
        if matches!(done, Poll::Ready(Ok(()))) {
            self.clock.moved_in();
        }
        done
    }
}

impl<S: Near> Write for Wire<S> {
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
        self.stream.as_ref().is_some_and(Write::is_write_vectored)
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
