//! The server's side of the operator socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::gate::{Gate, Operators, Peer};
use super::protocol::{ACT, AGENTS, About, ActBody, Agents, Problem, SUPERVISOR};
use super::steps::{self, OrderBody, Ordered, SAGA_ORDER};
use crate::chaosing::{AbortBody, CHAOS_ABORT, CHAOS_RUN, Chaos};
use crate::driver::Handle;
use crate::driver::event::Refusal;
use crate::driver::launching::in_full;
use crate::driver::limiting::{LIMITS, LimitBody};
use crate::driver::status::AgentStatus;
use crate::driver::total::Total;
use crate::exit;
use crate::govern::ask::{Ask, GOVERN};
use crate::reloading::{RELOAD, ReloadBody, Reloader};
use crate::sagas::host::saga_code;
use crate::sagas::hosted::Sagas;
use crate::store::Store;

#[derive(Debug, Clone)]
struct Shared {
    handle: Handle,
    about: Arc<About>,
    chaos: Chaos,
    sagas: Sagas,
    store: Store,
    reloader: Reloader,
    total: Option<Total>,
}

impl Shared {
    async fn answer(&self, agents: Vec<AgentStatus>) -> Response {
        let total = match self.total.clone() {
            // Small files, but of a kernel that may be busy reclaiming.
            Some(total) => tokio::task::spawn_blocking(move || total.read()).await.ok(),
            None => None,
        };
        Json(Agents { agents, supervisor: Some(self.about.as_ref().clone()), total }).into_response()
    }
}

/// Who answers what is asked.
#[derive(Debug)]
pub struct Answers {
    /// The loop.
    pub handle: Handle,
    /// About the supervisor.
    pub about: About,
    /// Experiments.
    pub chaos: Chaos,
    /// Sagas.
    pub sagas: Sagas,
    /// Reads files again.
    pub reloader: Reloader,
    /// All agents together, where they have cgroups.
    pub total: Option<Total>,
    /// For the audit log.
    pub store: Store,
}

/// A bound operator socket; the file goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    closes: Option<oneshot::Receiver<()>>,
}

impl Socket {
    /// Binds the socket, mode 0600 or, for operators of other uids, 0666 behind the check of credentials. The caller holds the
    /// state directory's lock, so a file that is there was left by a dead supervisor.
    ///
    /// # Errors
    /// What bind(2) says, with the path.
    pub fn bind(path: &Path, operators: &Operators) -> io::Result<Socket> {
        use std::os::unix::fs::PermissionsExt;
        let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(at)?;
        let mode = if operators.is_empty() { 0o600 } else { 0o666 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(at)?;
        Ok(Socket { listener: Some(listener), path: path.to_owned(), closes: None })
    }

    /// From this word on nobody new is served; those who are get their answers.
    #[must_use]
    pub fn until(mut self, closes: oneshot::Receiver<()>) -> Socket {
        self.closes = Some(closes);
        self
    }

    /// Serves until the task is aborted, or the word of [`Socket::until`].
    ///
    /// # Errors
    /// What accept(2) says, when it can't go on.
    pub async fn serve(mut self, operators: Operators, answers: Answers) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let Answers { handle, about, chaos, sagas, reloader, store, total } = answers;
        let shared = Shared { handle, about: Arc::new(about), chaos, sagas, store, reloader, total };
        let router = Router::new()
            .route(AGENTS, get(agents))
            .route(ACT, post(act))
            .route(SUPERVISOR, get(supervisor))
            .route(GOVERN, post(govern))
            .route(RELOAD, post(reload))
            .route(LIMITS, post(limits))
            .route(CHAOS_RUN, post(chaos_run))
            .route(CHAOS_ABORT, post(chaos_abort))
            .route(SAGA_ORDER, post(saga_order))
            // Before any body is read: a stranger's is none of our business.
            .layer(axum::middleware::from_fn(operators_only))
            .with_state(shared);
        let closes = self.closes.take();
        let closed = async move {
            match closes {
                // Dropped is as good as said: whoever held it has ended.
                Some(closes) => drop(closes.await),
                None => std::future::pending().await,
            }
        };
        axum::serve(Gate::new(listener, operators), router.into_make_service_with_connect_info::<Peer>())
            .with_graceful_shutdown(closed)
            .await
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// An operator's uid, known to every handler behind [`operators_only`].
#[derive(Debug, Clone, Copy)]
struct By(u32);

async fn operators_only(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    let Some(uid) = peer.0 else {
        let text =
            "only operators may use this socket: root, the supervisor's own user, and those in the operator's file";
        return problem(StatusCode::FORBIDDEN, text.to_owned(), exit::REFUSED);
    };
    request.extensions_mut().insert(By(uid));
    next.run(request).await
}

fn problem(status: StatusCode, error: String, exit_code: u8) -> Response {
    (status, Json(Problem { error, exit_code })).into_response()
}

fn refused(refusal: &Refusal) -> Response {
    let (status, code) = match refusal {
        Refusal::Unknown(_) => (StatusCode::NOT_FOUND, exit::USAGE),
        Refusal::NameTaken { .. } => (StatusCode::CONFLICT, exit::REFUSED),
        Refusal::NotNow(_) => (StatusCode::CONFLICT, exit::NO),
        Refusal::Killed { .. } => (StatusCode::CONFLICT, exit::KILLED),
        Refusal::BreakerOpen { .. } | Refusal::AlreadyRuns(_) => (StatusCode::CONFLICT, exit::TRY_AGAIN),
        Refusal::Policy(_) => (StatusCode::FORBIDDEN, exit::REFUSED),
        Refusal::BadState(_) => (StatusCode::INTERNAL_SERVER_ERROR, exit::DATA),
        Refusal::HostCant(_) => (StatusCode::CONFLICT, exit::UNAVAILABLE),
        Refusal::NotRecorded(_) => (StatusCode::INSUFFICIENT_STORAGE, exit::CANT_CREATE),
        Refusal::Ending => (StatusCode::SERVICE_UNAVAILABLE, exit::UNAVAILABLE),
    };
    problem(status, refusal.to_string(), code)
}

#[derive(Debug, Deserialize)]
struct Which {
    agent: Option<String>,
}

async fn agents(State(shared): State<Shared>, Query(which): Query<Which>) -> Response {
    let steps = steps::statuses(&shared.sagas, which.agent.as_deref());
    let answer = match &which.agent {
        Some(_) if !steps.is_empty() => Ok(Vec::new()),
        _ => shared.handle.status(which.agent).await,
    };
    match answer {
        Ok(agents) => shared.answer([agents, steps].concat()).await,
        Err(refusal) => refused(&refusal),
    }
}

async fn limits(
    State(shared): State<Shared>,
    Extension(By(by)): Extension<By>,
    Json(body): Json<LimitBody>,
) -> Response {
    match shared.handle.limit(body, by).await {
        Ok(agents) => shared.answer(agents).await,
        Err(refusal) => refused(&refusal),
    }
}

async fn act(State(shared): State<Shared>, Extension(By(by)): Extension<By>, Json(body): Json<ActBody>) -> Response {
    match act_on(&shared, body, by).await {
        Ok(agents) => shared.answer(agents).await,
        Err(refusal) => refused(&refusal),
    }
}

/// Steps first: ending them waits for nobody.
async fn act_on(shared: &Shared, body: ActBody, by: u32) -> Result<Vec<AgentStatus>, Refusal> {
    let act = body.act.into();
    let name = body.agent.as_deref();
    if name.is_some_and(|name| !steps::means_saga(&shared.sagas, name)) {
        return shared.handle.act(body.agent, act, by, body.reason).await;
    }
    let steps = steps::act(&shared.sagas, &shared.store, name, act, by, &body.reason);
    match &body.agent {
        Some(_) => steps.await,
        None => {
            // Side by side: neither a hanging loop nor a step that dies slowly keeps the other alive.
            let (steps, agents) = tokio::join!(steps, shared.handle.act(None, act, by, body.reason.clone()));
            Ok([agents?, steps?].concat())
        }
    }
}

async fn saga_order(
    State(shared): State<Shared>,
    Extension(By(by)): Extension<By>,
    Json(body): Json<OrderBody>,
) -> Response {
    let (id, command) = body.command(by);
    match shared.sagas.command(&id, command).await {
        Ok(()) => {
            // The journal is read beside the answers to others.
            let going = tokio::task::spawn_blocking(move || shared.sagas.go_on(&id)).await;
            Json(Ordered { driven: going.unwrap_or(false) }).into_response()
        }
        Err(error) => problem(StatusCode::CONFLICT, in_full(&error), saga_code(&error)),
    }
}

async fn govern(State(shared): State<Shared>, Extension(By(by)): Extension<By>, Json(ask): Json<Ask>) -> Response {
    match shared.handle.govern(ask, by).await {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn reload(
    State(shared): State<Shared>,
    Extension(By(by)): Extension<By>,
    Json(body): Json<ReloadBody>,
) -> Response {
    match shared.reloader.reload(body, by).await {
        Ok(difference) => Json(difference).into_response(),
        Err(error) => problem(StatusCode::CONFLICT, error.to_string(), error.exit_code()),
    }
}

async fn chaos_run(
    State(shared): State<Shared>,
    Extension(By(by)): Extension<By>,
    Json(spec): Json<agt_chaos::spec::Spec>,
) -> Response {
    match shared.chaos.run(&spec, by).await {
        Ok(report) => Json(report).into_response(),
        Err(error) => problem(StatusCode::CONFLICT, error.to_string(), error.exit_code()),
    }
}

async fn chaos_abort(
    State(shared): State<Shared>,
    Extension(By(by)): Extension<By>,
    Json(body): Json<AbortBody>,
) -> Response {
    match shared.chaos.abort(&body.reason, by) {
        Ok(aborted) => Json(aborted).into_response(),
        Err(error) => problem(StatusCode::CONFLICT, error.to_string(), error.exit_code()),
    }
}

async fn supervisor(State(shared): State<Shared>) -> Response {
    Json(shared.about.as_ref().clone()).into_response()
}
