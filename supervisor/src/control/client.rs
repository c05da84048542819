//! The client's side of the operator socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::listener::{self, Stranger, Trust};
use super::protocol::Problem;
use crate::exit;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The longest an answer may take: a stop waits for the longest grace that anybody sensible configures.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);

/// How long the answer to a look may take: the supervisor reads it off what it knows.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// How long a supervisor that is ending is waited for.
const ENDED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long what is waited for.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// An answer.
    answer: Duration,
    /// The end of a supervisor that is ending.
    ended: Duration,
}

const FOR_LOOKS: Patience = Patience { answer: READ_WITHIN, ended: ENDED_WITHIN };
const FOR_ORDERS: Patience = Patience { answer: ANSWER_WITHIN, ended: ENDED_WITHIN };

/// Why a request got no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("no supervisor is running ({path})")]
    Nobody {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody may be there, but not for us.
    #[error("not permitted to use the operator socket {}", path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else than a supervisor that was meant is there.
    #[error(transparent)]
    Stranger(Stranger),
    /// The conversation broke.
    #[error("the supervisor did not answer")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not come in time.
    #[error("the supervisor{} does not answer (waited {} s)", of_pid(*.pid), .waited.as_secs())]
    Late {
        /// How long it was waited for.
        waited: Duration,
        /// Whose socket it is, where the kernel tells.
        pid: Option<i32>,
    },
    /// The supervisor says no.
    #[error("{0}")]
    Refused(String, u8),
}

impl ClientError {
    /// The exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Nobody { .. } | ClientError::Broken(_) | ClientError::Late { .. } => exit::UNAVAILABLE,
            ClientError::NotPermitted { .. } | ClientError::Stranger(_) => exit::REFUSED,
            ClientError::Refused(_, code) => *code,
        }
    }
}

fn of_pid(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn broken(e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Broken(e.into())
}

/// GET: a look, which a supervisor that hangs doesn't hold up for long.
///
/// # Errors
/// [`ClientError::Late`] when no answer came in time.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ClientError> {
    exchange(socket, Method::GET, path, Vec::new(), FOR_LOOKS).await
}

/// POST.
///
/// # Errors
/// [`ClientError`].
pub async fn post<B: Serialize, T: DeserializeOwned>(socket: &Path, path: &str, body: &B) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).map_err(broken)?;
    exchange(socket, Method::POST, path, body, FOR_ORDERS).await
}

/// POST of a question that changes nothing.
///
/// # Errors
/// [`ClientError::Late`] when no answer came in time.
pub async fn look<B: Serialize, T: DeserializeOwned>(socket: &Path, path: &str, body: &B) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).map_err(broken)?;
    exchange(socket, Method::POST, path, body, FOR_LOOKS).await
}

/// POST to a supervisor that may hang.
///
/// # Errors
/// [`ClientError::Late`] when no answer came in time.
pub async fn post_within<B: Serialize, T: DeserializeOwned>(
    socket: &Path,
    path: &str,
    body: &B,
    within: Duration,
) -> Result<T, ClientError> {
    let body = serde_json::to_vec(body).map_err(broken)?;
    let patience = Patience { answer: within, ended: ENDED_WITHIN.min(within) };
    exchange(socket, Method::POST, path, body, patience).await
}

/// Asks; a supervisor that is ending is waited for, because what is asked then is asked of nobody or of the next one.
async fn exchange<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    patience: Patience,
) -> Result<T, ClientError> {
    let deadline = Instant::now() + patience.ended;
    loop {
        let answer = match ask(socket, method.clone(), path, body.clone(), patience.answer).await {
            Err(ClientError::Broken(e)) if was_cut_off(e.as_ref()) => return Err(ended(socket, deadline, e).await),
            answer => answer?,
        };
        match answer {
            (StatusCode::SERVICE_UNAVAILABLE, _) if Instant::now() < deadline => {
                // It closes its socket when it has ended: no event tells a client of that.
                tokio::time::sleep(LOOK_EVERY).await;
            }
            (status, bytes) if status.is_success() => return serde_json::from_slice(&bytes).map_err(broken),
            (_, bytes) => {
                return Err(match serde_json::from_slice::<Problem>(&bytes) {
                    Ok(problem) => ClientError::Refused(problem.error, problem.exit_code),
                    Err(_) => ClientError::Refused(String::from_utf8_lossy(&bytes).into_owned(), exit::BUG),
                });
            }
        }
    }
}

/// Whether the other side went away with the question: with all of it read, or (the kernel resets the connection then) not.
fn was_cut_off(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<hyper::Error>() else { return false };
    let kernels = || std::error::Error::source(error)?.downcast_ref::<io::Error>().map(io::Error::kind);
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || matches!(kernels(), Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
}

/// A supervisor that ends does not answer what it has not read yet: then nobody is there, which is for the caller to know. One that
/// is still there has cut us off, and is not asked twice.
async fn ended(socket: &Path, deadline: Instant, error: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
    while Instant::now() < deadline {
        if let Err(source) = UnixStream::connect(socket).await {
            return ClientError::Nobody { path: socket.to_owned(), source };
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    ClientError::Broken(error)
}

async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    within: Duration,
) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        // So many wait already that the kernel lets nobody else.
        io::ErrorKind::WouldBlock => ClientError::Late { waited: Duration::ZERO, pid: None },
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path: socket.to_owned(), source },
        _ => ClientError::Nobody { path: socket.to_owned(), source },
    })?;
    listener::check(&stream, socket, Trust::Orders).map_err(|e| match listener::stranger(&e) {
        Some(Stranger { path, uid }) => ClientError::Stranger(Stranger { path: path.clone(), uid: *uid }),
        None => broken(e),
    })?;
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0);
    let answer = tokio::time::timeout(within, converse(stream, method, path, body));
    answer.await.map_err(|_| ClientError::Late { waited: within, pid })?
}

async fn converse(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), ClientError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let carried = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "agt-supervise")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?.to_bytes();
    carried.abort();
    Ok((status, bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    use super::*;

    const PATIENT: Patience = Patience { answer: Duration::from_secs(60), ended: Duration::from_secs(60) };

    /// More than a question.
    const ALL: usize = 4096;

    /// Takes so much of a question and closes the connection; whether it was one.
    async fn cut_off(listener: &UnixListener, bytes: usize) -> bool {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read(&mut vec![0; bytes]).await.unwrap() > 0
    }

    async fn asked(socket: &Path, patience: Patience) -> Result<serde_json::Value, ClientError> {
        exchange(socket, Method::POST, "/v1/act", b"{}".to_vec(), patience).await
    }

    #[tokio::test]
    async fn a_supervisor_that_goes_away_with_the_question_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        for read in [1, ALL] {
            let socket = folder.path().join(read.to_string());
            let listener = UnixListener::bind(&socket).unwrap();
            let goes = async move { cut_off(&listener, read).await };
            let (answer, was_asked) = tokio::join!(asked(&socket, PATIENT), goes);
            assert!(was_asked && matches!(answer, Err(ClientError::Nobody { .. })), "{read} bytes read: {answer:?}");
        }
        // One that never got to the question.
        let socket = folder.path().join("unread");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let goes = tokio::task::spawn_blocking(move || {
            let mut waits = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut waits, PollTimeout::from(60_000u16)).unwrap()
        });
        let (answer, knocked) = tokio::join!(asked(&socket, PATIENT), goes);
        assert!(knocked.unwrap() == 1 && matches!(answer, Err(ClientError::Nobody { .. })), "{answer:?}");
    }

    #[tokio::test]
    async fn a_supervisor_that_cuts_off_and_stays_is_not_asked_twice() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut questions = 0;
        let stays = async {
            loop {
                questions += usize::from(cut_off(&listener, 1).await);
            }
        };
        let briefly = Patience { ended: LOOK_EVERY * 3, ..PATIENT };
        let answer = tokio::select! {
            answer = asked(&socket, briefly) => answer,
            () = stays => unreachable!("it stays"),
        };
        assert!(matches!(answer, Err(ClientError::Broken(_))), "{answer:?}");
        assert_eq!(questions, 1, "what was asked may have been done");
    }
}
