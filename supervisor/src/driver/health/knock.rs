//! Health checks that ask a port of the agent: connected to as a shown port is, from inside its network.
//!
//! Nothing of it runs in the ring, so it costs the agent no process. What answers is the agent's own word: bounded in time, in
//! headers and in what is kept of its body.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agt_gateway::publish::Inside;
use agt_rings::launch::OUTPUT_BYTES_MAX;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::looked::Looked;
use crate::config::plan::Ask;
use crate::config::units::Span;
use crate::machine::health::Passed;

/// The longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long the body of a bad answer is waited for: it may say why.
const BODY_WITHIN: Duration = Duration::from_secs(1);

/// What is asked, and by which way.
#[derive(Debug, Clone)]
pub(super) struct Knock {
    /// `None`: there is none in this life.
    pub(super) inside: Option<Arc<dyn Inside>>,
    pub(super) port: u16,
    pub(super) http: Option<Ask>,
}

/// What was answered.
#[derive(Debug, Default)]
struct Answer {
    /// Why that is not good enough.
    wrong: Option<String>,
    body: Vec<u8>,
}

impl Knock {
    /// Knocks once.
    pub(super) async fn look(self, timeout: Span) -> Looked {
        let began = Instant::now();
        let (wrong, body) = match tokio::time::timeout(timeout.0, self.answer()).await {
            Ok(Ok(Answer { wrong, body })) => (wrong, body),
            Ok(Err(wrong)) => (Some(wrong), Vec::new()),
            Err(_) => (Some(format!("had no answer within {timeout}")), Vec::new()),
        };
        looked(wrong, body, began.elapsed())
    }

    async fn answer(&self) -> Result<Answer, String> {
        let Some(inside) = &self.inside else {
            return Err("could not be made: the agent has no network of its own here".to_owned());
        };
        let port = self.port;
        let stream = inside.connect(port).await.map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused => format!("was refused: it does not listen at its port {port}"),
            _ => format!("did not get through to its port {port}: {e}"),
        })?;
        match &self.http {
            None => Ok(Answer::default()),
            Some(ask) => exchange(stream, port, ask).await.map_err(|e| format!("had no answer that is HTTP ({e})")),
        }
    }
}

fn looked(wrong: Option<String>, output: Vec<u8>, took: Duration) -> Looked {
    let passed = if wrong.is_none() { Passed::Yes } else { Passed::No };
    Looked { passed, result: wrong.unwrap_or_else(|| "passed".to_owned()), output, dropped: 0, took }
}

async fn exchange(stream: TcpStream, port: u16, ask: &Ask) -> Result<Answer, hyper::Error> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // It ends with what it was made for: dropped here, also when the time is over, the request's end closes it.
    tokio::spawn(connection);
    let request = Request::get(&ask.path)
        .header(HOST, format!("localhost:{port}"))
        .header(USER_AGENT, concat!("agt-supervise/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the path was read when the plan was made");
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let wrong = match ask.status {
        Some(wanted) if status.as_u16() != wanted => Some(format!("was answered {}, not {wanted}", status.as_u16())),
        None if !status.is_success() => Some(format!("was answered {}", status.as_u16())),
        _ => None,
    };
    // A good answer may be one that never ends.
    let body = match &wrong {
        Some(_) => tokio::time::timeout(BODY_WITHIN, first_of(answer.into_body())).await.unwrap_or_default(),
        None => Vec::new(),
    };
    Ok(Answer { wrong, body })
}

/// As much of a body as is kept; one that breaks off is what came of it.
async fn first_of(mut body: Incoming) -> Vec<u8> {
    let mut kept = Vec::new();
    while kept.len() < OUTPUT_BYTES_MAX {
        let Some(Ok(frame)) = body.frame().await else { break };
        let Ok(data) = frame.into_data() else { continue };
        kept.extend_from_slice(&data[..data.len().min(OUTPUT_BYTES_MAX - kept.len())]);
    }
    kept
}
