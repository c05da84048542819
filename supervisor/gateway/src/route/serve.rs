//! A request to a model route, from the agent's socket to the upstream's and back.

use super::ask::{self, Asked, BadAsk};
use super::body::{Body, Bounds, Eventwise, Metered, Stream};
use super::call::{Basis, Call, Meter, Outcome};
use super::endpoint::{self, Endpoint, Found};
use super::head::{self, BadHead};
use super::problem::{Problem, Trouble};
use super::redact::Redactor;
use super::table::{Context, Route, Routes};
use super::upstream::{Answer, SendError};
use super::{Provider, path};
use crate::limit::{Account, Refusal, Worst};
use crate::price::{Known, Money};
use crate::usage::{EventFilter, Framing, Usage};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, Response, Uri};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Largest body of a request: what the providers take.
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// How long an agent may take to send a body, and how long to send the next piece of it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);
const REQUEST_IDLE_MAX: Duration = Duration::from_secs(30);

/// What a request will be once it leaves.
struct Ready {
    found: Found,
    asked: Option<Asked>,
    target: Uri,
    headers: HeaderMap,
    method: Method,
    eventwise: Option<Eventwise>,
}

impl Routes {
    /// Serves a request whose path is a route's ([`Routes::claims`]). Dropped before it is done, the call is cancelled.
    pub async fn serve<B>(&self, request: Request<B>, context: &Context) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
    {
        let (mut parts, body) = request.into_parts();
        let headers = std::mem::take(&mut parts.headers);
        let Some((route, rest)) = self.find(parts.uri.path()) else {
            let message = "no model route has this name";
            context.witness.refused("", Trouble::NotAllowed, message);
            return Problem::lasting(Trouble::NotAllowed, message).response(Provider::OpenAi);
        };
        match self.forward(route, rest, &parts, (headers, body), context).await {
            Ok(response) => response,
            Err(problem) => {
                context.witness.refused(route.name(), problem.trouble(), problem.message());
                problem.response(route.provider)
            }
        }
    }

    async fn forward<B>(
        &self,
        route: &Route,
        rest: &str,
        parts: &Parts,
        (headers, body): (HeaderMap, B),
        context: &Context,
    ) -> Result<Response<Body>, Problem>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
    {
        let normal = path::normal(rest).map_err(|bad| Problem::lasting(Trouble::NotAllowed, bad))?;
        let found = allowed(route, parts, &normal)?;
        let announced = head::length(&headers);
        let headers = head::outgoing(headers, &route.headers).map_err(bad_head)?;
        let target = target(route, parts, &normal)?;
        // The room is held until the request is sent, and freed with the copy that is sent.
        let (bytes, room) = match parts.method == Method::GET || parts.method == Method::DELETE {
            true => (Bytes::new(), None),
            false => self.collect(body, announced, &context.account).await.map(|(bytes, room)| (bytes, Some(room)))?,
        };
        // Counting tokens is free, but it can make the provider reach out as well.
        let asked = match found.endpoint {
            Endpoint::Free => None,
            endpoint => {
                let model = found.model.as_deref();
                Some(ask::read(endpoint, model, bytes.clone(), route.reach, route.ask_usage).map_err(bad_ask)?)
            }
        };
        let eventwise = parts.extensions.get().copied();
        let ready = Ready { found, asked, target, headers, method: parts.method.clone(), eventwise };
        let response = self.call(route, ready, bytes, context).await;
        drop(room);
        response
    }

    /// Reads a request's body within the bounds of one, of time, of the agent, and of all agents together.
    async fn collect<B>(&self, body: B, announced: Option<u64>, account: &Account) -> Result<(Bytes, Room), Problem>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
    {
        if announced.is_some_and(|bytes| bytes > REQUEST_BYTES_MAX as u64) {
            return Err(large());
        }
        let mut room = Room::default();
        let slow = |_| Problem::new(Trouble::Invalid, "the body took too long to arrive");
        let (mut body, mut pieces, mut size) = (pin!(body), Vec::new(), 0usize);
        let reading = async {
            while let Some(frame) = timeout(REQUEST_IDLE_MAX, body.frame()).await.map_err(slow)? {
                let Ok(frame) = frame else { return Err(Problem::new(Trouble::Invalid, "the body broke off")) };
                let Ok(bytes) = frame.into_data() else { continue };
                size += bytes.len();
                if size > REQUEST_BYTES_MAX {
                    return Err(large());
                }
                room.take([account.room(), &self.room], bytes.len())?;
                // Some that hang on to larger buffers, many that are tiny: one copy is the bound of both.
                pieces.push(bytes);
                if pieces.len() >= PIECES_MAX {
                    pieces = vec![joined(&pieces, size)];
                }
            }
            Ok(())
        };
        timeout(REQUEST_TIME_MAX, reading).await.map_err(slow)??;
        let bytes = if pieces.len() == 1 { pieces.swap_remove(0) } else { joined(&pieces, size) };
        Ok((bytes, room))
    }

    async fn call(
        &self,
        route: &Route,
        ready: Ready,
        plain: Bytes,
        context: &Context,
    ) -> Result<Response<Body>, Problem> {
        let Ready { found, asked, target, headers, method, eventwise } = ready;
        let (worst, most, known) = self.worst(found.endpoint, asked.as_ref());
        let held = context.account.reserve(&worst).map_err(|refused| {
            context.witness.limited(route.name(), &refused);
            limited(&refused, &worst, asked.as_ref(), known)
        })?;
        let stream = asked.as_ref().is_some_and(|asked| asked.stream);
        let hides = asked.as_ref().is_some_and(|asked| asked.hidden_input);
        let filter = asked.as_ref().and_then(|asked| asked.usage_is_ours.then(EventFilter::default));
        let (model, body) = asked.map_or((String::new(), plain), |asked| (asked.model, asked.body));
        let call = new_call(route, found.endpoint, model, body.len());
        let mut meter = Meter::new(Arc::clone(&self.table), Arc::clone(&context.witness), held, call, most);
        if hides {
            meter.hides_input();
        }
        let request = outgoing(route, method, target, headers, body);
        let patience = if stream { route.idle } else { route.answer }.min(route.total);
        let answer = match context.client.send(&route.base, request, patience, || meter.leaves()).await {
            Ok(answer) => answer,
            Err(error) => {
                let problem = unsent(&error);
                if !error.left() {
                    meter.stays();
                }
                meter.end(Outcome::Failed(problem.trouble()));
                return Ok(problem.response(route.provider));
            }
        };
        Ok(incoming(route, answer, meter, filter, eventwise))
    }

    /// The most that a call can take: tokens and money together, and tokens of input and output apart.
    fn worst(&self, endpoint: Endpoint, asked: Option<&Asked>) -> (Worst, (u64, u64), Known) {
        let Some(asked) = asked.filter(|_| endpoint.shape().is_some()) else {
            return (Worst::default(), (0, 0), Known::Listed);
        };
        let (price, known) = self.table.price(&asked.model);
        let input = asked.max_input.map_or(price.context, |most| most.min(price.context));
        let output = match endpoint.makes_output() {
            true => asked.max_output.unwrap_or(price.max_output).saturating_mul(asked.choices),
            false => 0,
        };
        let cost = self.table.worst(&asked.model, input, output).cost;
        (Worst { tokens: input.saturating_add(output), cost }, (input, output), known)
    }
}

fn large() -> Problem {
    Problem::lasting(Trouble::TooLarge, format!("the body is larger than {REQUEST_BYTES_MAX} bytes"))
}

/// Room that a request's bytes take, given back when they have gone.
#[derive(Debug, Default)]
struct Room {
    taken: [Option<OwnedSemaphorePermit>; 2],
}

impl Room {
    fn take(&mut self, from: [&Arc<Semaphore>; 2], bytes: usize) -> Result<(), Problem> {
        let busy = || Problem::new(Trouble::Busy, "too many bytes of requests are held at the moment");
        let bytes = u32::try_from(bytes).map_err(|_| large())?;
        for (taken, from) in self.taken.iter_mut().zip(from) {
            let more = Arc::clone(from).try_acquire_many_owned(bytes).map_err(|_| busy())?;
            match taken {
                Some(taken) => taken.merge(more),
                None => *taken = Some(more),
            }
        }
        Ok(())
    }
}

/// Pieces of a body that are held before they are put together.
const PIECES_MAX: usize = 1024;

fn joined(pieces: &[Bytes], size: usize) -> Bytes {
    let mut whole = BytesMut::with_capacity(size);
    pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
    whole.freeze()
}

/// What the call does, if it is on the list.
fn allowed(route: &Route, parts: &Parts, normal: &str) -> Result<Found, Problem> {
    if let Some(name) = parts.uri.query().and_then(endpoint::foreign_parameter) {
        let name: String = name.chars().take(40).collect();
        let trouble = if name.to_ascii_lowercase().contains("key") { Trouble::Key } else { Trouble::NotAllowed };
        return Err(Problem::lasting(trouble, format!("the query parameter {name:?} is not passed on")));
    }
    let listed = endpoint::find(route.provider, &parts.method, normal);
    let free = || Found { endpoint: Endpoint::Free, model: None };
    let extra = || route.extra.iter().any(|extra| extra.allows(&parts.method, normal)).then(free);
    let not = || {
        let (method, name) = (&parts.method, &route.name);
        format!(
            "{method} {normal} is not a call that the route {name} allows: more than inference and model lists is opened by \
             `allow: [\"{method} {normal}\"]` under the route in the operator's file"
        )
    };
    listed.or_else(extra).ok_or_else(|| Problem::lasting(Trouble::NotAllowed, not()))
}

fn target(route: &Route, parts: &Parts, normal: &str) -> Result<Uri, Problem> {
    // Base URLs of OpenAI's language hold the version, whatever it is called there (`/v1beta/openai`).
    let path = match route.provider {
        Provider::OpenAi if !route.base.prefix.is_empty() => normal.strip_prefix("/v1").unwrap_or(normal),
        _ => normal,
    };
    let query = parts.uri.query().map_or(["", ""], |query| ["?", query]);
    let target = [&*route.base.prefix, path, query[0], query[1]].concat();
    Uri::from_maybe_shared(Bytes::from(target)).map_err(|error| Problem::lasting(Trouble::Invalid, error))
}

fn outgoing(route: &Route, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, uri, headers);
    request.headers_mut().insert(HOST, route.authority.clone());
    if let Some((name, value)) = &route.key {
        request.headers_mut().insert(name, value.clone());
    }
    request
}

/// The answer as the agent gets it.
fn incoming(
    route: &Route,
    answer: Answer,
    mut meter: Meter,
    filter: Option<EventFilter>,
    eventwise: Option<Eventwise>,
) -> Response<Body> {
    let Answer { response, returning } = answer;
    let (parts, body) = response.into_parts();
    let events = head::is_events(&parts.headers);
    meter.answered(parts.status.as_u16(), if events { Framing::Events } else { Framing::Json });
    let refuse = |mut meter: Meter, message: String| {
        meter.end(Outcome::Failed(Trouble::Upstream));
        Problem::new(Trouble::Upstream, message).response(route.provider)
    };
    if !head::is_plain(&parts.headers) {
        return refuse(
            meter,
            "the upstream answered compressed although it was asked not to: nothing of it can be read".to_owned(),
        );
    }
    if parts.status.is_informational() || parts.status.is_redirection() {
        return refuse(
            meter,
            format!("the upstream answered {}: a model route follows nobody elsewhere", parts.status.as_u16()),
        );
    }
    if head::length(&parts.headers).is_some_and(|bytes| bytes > route.answer_bytes) {
        return refuse(meter, format!("the answer is larger than {} bytes", route.answer_bytes));
    }
    let mut headers = head::incoming(parts.headers, &route.needles);
    let stream = match filter {
        _ if !events => Stream::Document,
        None => Stream::Events,
        Some(filter) => Stream::WithoutUsage(filter),
    };
    if events {
        // What is taken out or put in changes the length.
        headers.remove(CONTENT_LENGTH);
    }
    let bounds = Bounds { idle: route.idle, total: route.total, bytes: route.answer_bytes };
    let redactor = Redactor::new(route.needles.clone());
    let metered = Metered::new(body, returning, meter, redactor, stream, (route.provider, bounds));
    let metered = if events && eventwise.is_some() { metered.eventwise() } else { metered };
    let mut response = Response::new(metered.boxed_unsync());
    (*response.status_mut(), *response.headers_mut()) = (parts.status, headers);
    response
}

fn new_call(route: &Route, endpoint: Endpoint, model: String, request_bytes: usize) -> Call {
    Call {
        route: Arc::clone(&route.name),
        provider: route.provider,
        endpoint,
        model,
        answered: None,
        status: None,
        usage: Usage::default(),
        cost: Money::ZERO,
        basis: Basis::Nothing,
        known: Known::Listed,
        overran: false,
        outcome: Outcome::HungUp,
        first_byte: None,
        total: Duration::ZERO,
        bytes: (request_bytes as u64, 0),
    }
}

fn bad_head(bad: BadHead) -> Problem {
    let trouble = match bad {
        BadHead::Key(_) | BadHead::Payer(_) => Trouble::Key,
        BadHead::Twice(_) | BadHead::Encoded(_) => Trouble::Invalid,
    };
    Problem::lasting(trouble, bad)
}

fn bad_ask(bad: BadAsk) -> Problem {
    let trouble = match bad {
        BadAsk::Background | BadAsk::Dearer(_) | BadAsk::Reach(_) => Trouble::NotAllowed,
        _ => Trouble::Invalid,
    };
    Problem::lasting(trouble, bad)
}

/// What a limit's no says: also why a call that looks small can cost so much.
fn limited(refused: &crate::limit::Refused, worst: &Worst, asked: Option<&Asked>, known: Known) -> Problem {
    let mut message = format!("{refused}");
    let trouble = match refused.refusal {
        Refusal::Spend { .. } => Trouble::SpendCap,
        _ => Trouble::RateLimited,
    };
    if let (Trouble::SpendCap, Some(asked)) = (trouble, asked) {
        if asked.max_output.is_none() {
            message.push_str("; the call names no maximum of output tokens, so the model's own was counted");
        }
        if known == Known::Unknown {
            message.push_str("; the price table does not know the model, so the worst price was counted");
        }
        message.push_str(&format!("; up to {} tokens", worst.tokens));
    }
    Problem::limited(trouble, message, refused.refusal.retry_after())
}

fn unsent(error: &SendError) -> Problem {
    use std::error::Error;
    let trouble = match error {
        SendError::Busy => Trouble::Busy,
        SendError::ConnectTimeout { .. } | SendError::Silent(_) => Trouble::Stalled,
        SendError::Connect { .. } | SendError::Unsent(_) | SendError::Lost(_) => Trouble::Upstream,
    };
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Problem::new(trouble, message)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
