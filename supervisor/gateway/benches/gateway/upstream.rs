//! The provider that all ways lead to: answers as OpenAI's Chat Completions does, whole and as a stream, in the clear and by TLS;
//! and a server that answers one byte to whatever a tunnel brings.
//!
//! It insists on the key: a way that puts none on would be measured at work that it doesn't do.

use std::convert::Infallible;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsAcceptor;

use super::{Anything, KEY, threads::Threads};

/// Where it listens.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Upstream {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) echo: SocketAddr,
}

/// The certificate that it shows and its key, as PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// One of about the size that a short answer has.
const ANSWER: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1741569952,"model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":"Hello! How can I assist you today? I can look things up, write and explain code, or summarise a text that you give me.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":27,"total_tokens":46,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_f85bea6784"}"#;
const MODELS: &str = r#"{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1715367049,"owned_by":"system"},{"id":"gpt-4o-mini","object":"model","created":1721172741,"owned_by":"system"},{"id":"gpt-4.1","object":"model","created":1744316542,"owned_by":"system"},{"id":"gpt-4.1-mini","object":"model","created":1744318173,"owned_by":"system"},{"id":"text-embedding-3-small","object":"model","created":1705948997,"owned_by":"system"}]}"#;
const USAGE: &str = "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":27,\"total_tokens\":46}}\n\n";

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// What a request's body says, as far as it matters here. How fast a stream comes is said in `user`: microseconds between two
/// events, and how many.
#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    user: String,
}

pub(crate) fn run(identity: &Identity) -> Result<(), Anything> {
    let threads = Arc::new(Threads::start()?);
    let tls = acceptor(identity)?;
    let plain = listen(&threads, |stream| async move { serve(TokioIo::new(stream)).await })?;
    let tls = listen(&threads, move |stream| {
        let tls = tls.clone();
        async move {
            if let Ok(stream) = tls.accept(stream).await {
                serve(TokioIo::new(stream)).await;
            }
        }
    })?;
    let echo = listen(&threads, echo)?;
    println!("{}", serde_json::to_string(&Upstream { plain, tls, echo })?);
    std::io::stdout().flush()?;
    // Ends with the bench, whose end of this is closed then.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn acceptor(identity: &Identity) -> Result<TlsAcceptor, Anything> {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn listen<F, S>(threads: &Arc<Threads>, serve: S) -> Result<SocketAddr, Anything>
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(TcpStream) -> F + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let at = listener.local_addr()?;
    let threads = Arc::clone(threads);
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            if ready.is_err() {
                continue;
            }
            let handle = threads.of(number);
            let stream = {
                let _in = handle.enter();
                TcpStream::from_std(stream)
            };
            if let Ok(stream) = stream {
                handle.spawn(serve(stream));
            }
        }
    });
    Ok(at)
}

async fn serve<S>(stream: S)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    // Whoever goes away in the middle of an answer is no concern of a provider.
    let _ = http1::Builder::new().serve_connection(stream, service_fn(answer)).await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let key = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if key.and_then(|value| value.strip_prefix("Bearer ")) != Some(KEY) {
        return Ok(json(StatusCode::UNAUTHORIZED, r#"{"error":{"message":"no key"}}"#));
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/v1/models") => Ok(json(StatusCode::OK, MODELS)),
        (&Method::POST, "/v1/chat/completions") => {
            let Ok(body) = request.into_body().collect().await else {
                return Ok(json(StatusCode::BAD_REQUEST, "{}"));
            };
            match serde_json::from_slice::<Ask>(&body.to_bytes()) {
                Ok(ask) if ask.stream => Ok(stream(&ask.user)),
                Ok(_) => Ok(json(StatusCode::OK, ANSWER)),
                Err(_) => Ok(json(StatusCode::BAD_REQUEST, "{}")),
            }
        }
        _ => Ok(json(StatusCode::NOT_FOUND, "{}")),
    }
}

fn json(status: StatusCode, body: &'static str) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn stream(user: &str) -> Response<Answer> {
    let (every, count) = user.split_once('x').unwrap_or(("50000", "20"));
    let every = Duration::from_micros(every.parse().unwrap_or(50_000));
    let count = count.parse().unwrap_or(20);
    // Its first event comes at once, the others in its own rhythm, which began somewhere within the first interval.
    let events = Events { next: 0, count, every, due: Instant::now(), timer: Box::pin(sleep_until(Instant::now())) };
    let mut response = Response::new(events.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// A stream whose events say when they were made.
struct Events {
    next: u64,
    count: u64,
    every: Duration,
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.next {
            next if next > self.count + 1 => return Poll::Ready(None),
            next if next == self.count + 1 => Bytes::from_static(b"data: [DONE]\n\n"),
            next if next == self.count => Bytes::from_static(USAGE.as_bytes()),
            next => {
                ready!(self.timer.as_mut().poll(cx));
                let due = self.due + self.every;
                self.due = due;
                self.timer.as_mut().reset(due);
                event(next)
            }
        };
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

/// Nanoseconds of the clock that all processes here read.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn event(number: u64) -> Bytes {
    let stamp = now();
    Bytes::from(format!(
        "data: {{\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1741570283,\
         \"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_f85bea6784\",\"choices\":[{{\
         \"index\":0,\"delta\":{{\"content\":\"@{number} {stamp}@\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    ))
}

async fn echo(mut stream: TcpStream) {
    let mut piece = [0; 4096];
    while let Ok(1..) = stream.read(&mut piece).await {
        if stream.write_all(b"!").await.is_err() {
            return;
        }
    }
}
