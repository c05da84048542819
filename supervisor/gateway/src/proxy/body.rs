//! Bodies on their way, counted, shown to the hooks where they want it, and ended exactly once.
//!
//! One type for all answers and no box around what only passes through. Trailers stop here: they are fields of one hop's framing
//! unless both sides agree on more, and nobody who could read them here asked for them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::clock::Clock;
use super::upstream::Driver;
use crate::flow::{Outcome, Wait};
use crate::hook::{Act, Direction, Event, Failure};
use crate::live::Passage;
use crate::route::{self, BodyError};

/// Why a body ends before its end. The connection is closed then, so that what came doesn't look whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Torn {
    #[error("the other side broke off")]
    Broken(#[source] hyper::Error),
    #[error("the model route broke off")]
    Route(#[source] BodyError),
    #[error("a hook ended it")]
    Failed(Failure),
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Body {
    from: From,
    /// Told when the answer is out.
    clock: Option<Arc<Clock>>,
}

#[derive(Debug)]
enum From {
    Nothing,
    Whole(Bytes),
    Far(Box<Carried>),
}

/// An answer from outside.
#[derive(Debug)]
struct Carried {
    source: Source,
    passage: Arc<Passage>,
    held: Option<(Pin<Box<Sleep>>, Bytes)>,
}

#[derive(Debug)]
enum Source {
    /// The connection that it comes by lives as long as it does.
    Destination(Incoming, #[expect(dead_code, reason = "held, not used")] Arc<Driver>),
    Route(route::Body),
}

impl Body {
    pub(super) fn empty() -> Self {
        Self { from: From::Nothing, clock: None }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { from: From::Whole(bytes), clock: None }
    }

    /// The answer of a destination.
    pub(super) fn carried(incoming: Incoming, passage: Arc<Passage>, driver: Arc<Driver>) -> Self {
        Self::far(Source::Destination(incoming, driver), passage)
    }

    /// The answer of a model route.
    pub(super) fn routed(body: route::Body, passage: Arc<Passage>) -> Self {
        Self::far(Source::Route(body), passage)
    }

    fn far(source: Source, passage: Arc<Passage>) -> Self {
        if source.is_end_stream() {
            passage.end(Outcome::Complete);
        }
        Self { from: From::Far(Box::new(Carried { source, passage, held: None })), clock: None }
    }

    /// Tells the clock when this answer is out.
    pub(super) fn on(mut self, clock: Arc<Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(clock) = &self.clock {
            clock.answered();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Torn;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Torn>>> {
        match &mut self.from {
            From::Nothing => Poll::Ready(None),
            From::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.from = From::Nothing;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            From::Far(carried) => carried.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Nothing => true,
            From::Whole(bytes) => bytes.is_empty(),
            From::Far(carried) => carried.held.is_none() && carried.source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Nothing => SizeHint::with_exact(0),
            From::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // What hooks may change has no length yet.
            From::Far(carried) if carried.passage.is_watched() && !self.is_end_stream() => SizeHint::default(),
            From::Far(carried) => carried.source.size_hint(),
        }
    }
}

impl Carried {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Torn>>> {
        if let Some((sleep, _)) = &mut self.held {
            ready!(sleep.as_mut().poll(cx));
            let data = self.held.take().map_or_else(Bytes::new, |(_, data)| data);
            return Poll::Ready(Some(Ok(self.out(data))));
        }
        loop {
            let frame = match ready!(self.source.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(torn)) => {
                    self.passage.end(torn.outcome());
                    return Poll::Ready(Some(Err(torn)));
                }
                None => {
                    self.passage.end(Outcome::Complete);
                    return Poll::Ready(None);
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            if !self.passage.is_watched() {
                return Poll::Ready(Some(Ok(self.out(data))));
            }
            let mut event = Event { direction: Direction::Back, data };
            match self.passage.on_event(&mut event) {
                Act::Go if event.data.is_empty() => {}
                Act::Go => return Poll::Ready(Some(Ok(self.out(event.data)))),
                Act::Delay(time) => {
                    let mut sleep = Box::pin(tokio::time::sleep(time));
                    if sleep.as_mut().poll(cx).is_pending() {
                        self.held = Some((sleep, event.data));
                        return Poll::Pending;
                    }
                    return Poll::Ready(Some(Ok(self.out(event.data))));
                }
                Act::Fail(failure) => {
                    self.passage.end(Outcome::Failed(failure));
                    return Poll::Ready(Some(Err(Torn::Failed(failure))));
                }
            }
        }
    }

    fn out(&self, data: Bytes) -> Frame<Bytes> {
        self.passage.count(Direction::Back, data.len());
        if self.source.is_end_stream() {
            // hyper asks no further once it knows that this was the last.
            self.passage.end(Outcome::Complete);
        }
        Frame::data(data)
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Torn>>> {
        match self {
            Self::Destination(incoming, _) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Torn::Broken)))
            }
            Self::Route(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Torn::Route)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Destination(incoming, _) => incoming.is_end_stream(),
            Self::Route(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Destination(incoming, _) => incoming.size_hint(),
            Self::Route(body) => body.size_hint(),
        }
    }
}

impl Torn {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Broken(_) | Self::Route(BodyError::Upstream(_) | BodyError::Large(_)) => Outcome::Broken,
            Self::Route(BodyError::Stalled(_) | BodyError::Long(_)) => Outcome::TimedOut(Wait::Idle),
            Self::Failed(failure) => Outcome::Failed(*failure),
        }
    }
}

/// Why the body of a request goes no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("the agent broke off, or broke the rules of the body's framing")]
    Broken(#[source] hyper::Error),
    #[error("its flow is over")]
    Over,
}

/// The body of a request on its way out. It goes as far as its flow: what comes after the whole answer is of no use to anybody,
/// and no policy would see it.
#[derive(Debug)]
pub(super) struct Outward {
    /// Nothing for a request without a body that is sent once more.
    incoming: Option<Incoming>,
    passage: Arc<Passage>,
}

impl Outward {
    pub(super) fn new(incoming: Incoming, passage: Arc<Passage>) -> Self {
        Self { incoming: Some(incoming), passage }
    }

    pub(super) fn empty(passage: Arc<Passage>) -> Self {
        Self { incoming: None, passage }
    }
}

impl HttpBody for Outward {
    type Data = Bytes;
    type Error = Stopped;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Stopped>>> {
        loop {
            let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
            let frame = ready!(Pin::new(incoming).poll_frame(cx));
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.passage.is_over() {
                        return Poll::Ready(Some(Err(Stopped::Over)));
                    }
                    self.passage.count(Direction::Out, data.len());
                    Some(Ok(Frame::data(data)))
                }
                Some(Err(error)) => {
                    self.passage.garble();
                    Some(Err(Stopped::Broken(error)))
                }
                None => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
