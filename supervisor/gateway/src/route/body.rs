//! The answer's body on its way to the agent.
//!
//! Every piece is read for its usage, cleaned of copies of the key, and handed on at once. The way upstream hangs on this body:
//! when the agent hangs up it is dropped, and with it the connection, which ends the generation and the bill.

use super::call::{Meter, Outcome};
use super::problem::{Problem, Trouble};
use super::redact::Redactor;
use super::spec::Provider;
use super::upstream::Returning;
use crate::usage::{EventCutter, EventFilter, Kept, tells_usage};
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// What a model route answers with.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// An answer that breaks off: the agent sees its connection cut.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream's connection broke.
    #[error("the upstream's answer broke off")]
    Upstream(#[source] hyper::Error),
    /// The upstream was silent.
    #[error("the upstream was silent for {0:?}")]
    Stalled(Duration),
    /// The answer took too long.
    #[error("the answer took more than {0:?}")]
    Long(Duration),
    /// The answer was too large.
    #[error("the answer is larger than {0} bytes")]
    Large(u64),
}

impl BodyError {
    fn trouble(&self) -> Trouble {
        match self {
            Self::Upstream(_) | Self::Large(_) => Trouble::Upstream,
            Self::Stalled(_) | Self::Long(_) => Trouble::Stalled,
        }
    }
}

/// A body that is there as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Bounds of one answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) idle: Duration,
    pub(super) total: Duration,
    pub(super) bytes: u64,
}

/// Whether an answer is a stream of events, and what is taken out of it.
#[derive(Debug)]
pub(super) enum Stream {
    Document,
    Events,
    /// The event that tells the usage goes out: we asked for it, the client did not.
    WithoutUsage(EventFilter),
}

/// Put into a request's extensions, it makes its answer's stream come as one frame for each event: for who wants to see events.
/// Else pieces are handed on as they come, which is quicker.
#[derive(Clone, Copy, Debug)]
pub struct Eventwise;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Metered {
    incoming: Incoming,
    returning: Option<Returning>,
    meter: Meter,
    redactor: Redactor,
    stream: Stream,
    provider: Provider,
    bounds: Bounds,
    began: Instant,
    /// Since when the upstream is waited for; none while it is the agent that is.
    waiting: Option<Instant>,
    /// Set by the first wait: the answers that are there at once need none.
    alarm: Option<Pin<Box<Sleep>>>,
    bytes: u64,
    /// The last two bytes that were handed on: an error can be told within a stream only between events.
    tail: [u8; 2],
    over: bool,
    cutter: Option<EventCutter>,
}

impl Metered {
    pub(super) fn new(
        incoming: Incoming,
        returning: Returning,
        meter: Meter,
        redactor: Redactor,
        stream: Stream,
        (provider, bounds): (Provider, Bounds),
    ) -> Self {
        let now = Instant::now();
        Self {
            incoming,
            returning: Some(returning),
            meter,
            redactor,
            stream,
            provider,
            bounds,
            began: now,
            waiting: Some(now),
            alarm: None,
            bytes: 0,
            tail: *b"\n\n",
            over: false,
            cutter: None,
        }
    }

    /// One frame for each event from here on.
    pub(super) fn eventwise(self) -> Self {
        Self { cutter: Some(EventCutter::default()), ..self }
    }

    /// A piece came: what of it is handed on.
    fn take(&mut self, bytes: Bytes) -> Result<Bytes, BodyError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bounds.bytes {
            return Err(BodyError::Large(self.bounds.bytes));
        }
        self.waiting = None;
        self.meter.feed(&bytes);
        let clean = self.redactor.feed(bytes);
        Ok(match &mut self.stream {
            Stream::WithoutUsage(filter) => filter.feed(clean, judge),
            Stream::Document | Stream::Events => clean,
        })
    }

    /// The answer is whole: what was still held.
    fn finish(&mut self) -> Bytes {
        self.over = true;
        self.meter.end(Outcome::Whole);
        if let Some(returning) = self.returning.take() {
            returning.give_back();
        }
        self.flush()
    }

    fn flush(&mut self) -> Bytes {
        let rest = self.redactor.finish();
        match &mut self.stream {
            Stream::WithoutUsage(filter) => joined(filter.feed(rest, judge), filter.finish()),
            Stream::Document | Stream::Events => rest,
        }
    }

    /// The answer breaks off. In a stream the agent is told as the provider would tell it; else its connection is cut.
    fn cut(&mut self, error: BodyError) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.over = true;
        self.meter.end(Outcome::Failed(error.trouble()));
        self.returning = None;
        let between = matches!(&self.tail, b"\n\n" | b"\r\r") || self.tail == *b"\r\n";
        if matches!(self.stream, Stream::Document) || !between {
            return Some(Err(error));
        }
        let told = Problem::new(error.trouble(), &error).event(self.provider);
        Some(Ok(Frame::data(told.into())))
    }

    /// Nothing came. An upstream is silent from when it was first asked in vain: a slow agent is not its fault.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let first = self.began + self.bounds.idle.min(self.bounds.total);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(first)));
        // Armed for the earliest time at which it can matter, not anew for every piece.
        while alarm.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.began + self.bounds.total {
                return Some(BodyError::Long(self.bounds.total));
            }
            if now >= since + self.bounds.idle {
                return Some(BodyError::Stalled(self.bounds.idle));
            }
            let next = (since + self.bounds.idle).min(self.began + self.bounds.total);
            alarm.as_mut().reset(next);
        }
        None
    }

    fn hand_on(&mut self, bytes: Bytes) -> Frame<Bytes> {
        match &bytes[..] {
            [.., a, b] => self.tail = [*a, *b],
            [b] => self.tail = [self.tail[1], *b],
            [] => {}
        }
        Frame::data(bytes)
    }
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, _) => second,
        _ => {
            let mut both = BytesMut::from(first);
            both.extend_from_slice(&second);
            both.freeze()
        }
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this.cutter.as_mut().and_then(EventCutter::next_event) {
                return Poll::Ready(Some(Ok(Frame::data(event))));
            }
            if this.over {
                let rest = this.cutter.take().map(|mut cutter| cutter.rest()).filter(|rest| !rest.is_empty());
                return Poll::Ready(rest.map(|rest| Ok(Frame::data(rest))));
            }
            let frame = match Pin::new(&mut this.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    return match this.poll_alarm(cx) {
                        Some(error) => Poll::Ready(this.cut(error)),
                        None => Poll::Pending,
                    };
                }
            };
            let bytes = match frame {
                None => this.finish(),
                Some(Err(error)) => return Poll::Ready(this.cut(BodyError::Upstream(error))),
                // Trailers are not handed on: nothing that a model route answers has any.
                Some(Ok(frame)) => match frame.into_data().map(|bytes| this.take(bytes)) {
                    Err(_) => continue,
                    Ok(Err(error)) => return Poll::Ready(this.cut(error)),
                    // Who announced a length may not be asked for more after it.
                    Ok(Ok(bytes)) if this.incoming.is_end_stream() => joined(bytes, this.finish()),
                    Ok(Ok(bytes)) => bytes,
                },
            };
            // A flood of small pieces must not outlive the bound of time.
            if !this.over && Instant::now() >= this.began + this.bounds.total {
                return Poll::Ready(this.cut(BodyError::Long(this.bounds.total)));
            }
            if bytes.is_empty() {
                continue;
            }
            let frame = this.hand_on(bytes);
            match (&mut this.cutter, frame.data_ref()) {
                (Some(cutter), Some(bytes)) => cutter.push(bytes),
                _ => return Poll::Ready(Some(Ok(frame))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over && self.cutter.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// Whether an event of a chat stream is handed on: not the one that OpenAI sends for `include_usage`, with usage and no choices.
fn judge(event: &[u8]) -> Kept {
    #[derive(Deserialize)]
    struct Chunk {
        #[serde(default)]
        usage: Option<IgnoredAny>,
        choices: Vec<IgnoredAny>,
    }
    if !std::str::from_utf8(event).is_ok_and(tells_usage) {
        return Kept::Yes;
    }
    let usage_alone = |data: &[u8]| match serde_json::from_slice::<Chunk>(data) {
        Ok(chunk) => chunk.usage.is_some() && chunk.choices.is_empty(),
        Err(_) => false,
    };
    match crate::usage::event_data(event, usage_alone) {
        Some(true) => Kept::No,
        Some(false) | None => Kept::Yes,
    }
}
