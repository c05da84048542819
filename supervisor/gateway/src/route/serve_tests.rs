//! Model routes with real sockets: an upstream that does as it is told, and an agent's requests.
#![allow(clippy::unwrap_used)]

use super::super::{Client, Key, PLACEHOLDER_KEY, RouteSpec, Routes, Witness, environment, trust};
use super::*;
use crate::limit::spec::{LimitSpec, SpendSpec};
use crate::limit::{Account, Refused, Shared};
use crate::price::Table;
use crate::resolve::Resolver;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const KEY: &str = "sk-secret/0123456789";

/// What an upstream does with one request.
#[derive(Clone)]
enum Step {
    Send(String),
    /// Says nothing for a while.
    Wait(Duration),
    /// Says nothing more, and tells when the other side goes.
    Hang,
    Close,
}

/// What an upstream saw.
#[derive(Debug, PartialEq)]
enum Saw {
    Request(String),
    Gone,
}

#[derive(Debug, Default)]
struct Told {
    calls: Mutex<Vec<Call>>,
    refused: Mutex<Vec<(Trouble, String)>>,
    limited: Mutex<Vec<Refused>>,
}

impl Witness for Told {
    fn ended(&self, call: &Call) {
        self.calls.lock().unwrap().push(call.clone());
    }
    fn refused(&self, _: &str, trouble: Trouble, message: &str) {
        self.refused.lock().unwrap().push((trouble, message.to_owned()));
    }
    fn limited(&self, _: &str, refused: &Refused) {
        self.limited.lock().unwrap().push(refused.clone());
    }
}

impl Told {
    fn only(&self) -> Call {
        let calls = self.calls.lock().unwrap();
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls[0].clone()
    }
}

struct Rig {
    routes: Routes,
    context: Context,
    told: Arc<Told>,
    agent: Arc<Shared>,
    saw: mpsc::UnboundedReceiver<Saw>,
    /// Connections that the upstream accepted.
    connections: Arc<AtomicUsize>,
}

impl Rig {
    async fn new(steps: Vec<Step>, limits: LimitSpec, change: impl Fn(&mut RouteSpec)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, saw) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(upstream(stream, steps.clone(), tell.clone()));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, KEY).unwrap();
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, owner_only).unwrap();
        let mut specs = BTreeMap::new();
        for name in ["openai", "anthropic", "gemini"] {
            let mut spec = RouteSpec {
                upstream: Some(format!("http://127.0.0.1:{port}")),
                key: Some(super::super::KeySpec::File(file.clone())),
                ..RouteSpec::default()
            };
            change(&mut spec);
            specs.insert(name.to_owned(), spec);
        }
        let routes = Routes::new(&specs, Arc::new(Table::built_in())).unwrap();
        let agent = Shared::new("agent a", &limits);
        let told = Arc::new(Told::default());
        let context = Context {
            account: Arc::new(Account::new(vec![Arc::clone(&agent)])),
            client: Client::new(Arc::new(Resolver::system(crate::resolve::Bounds::default())), no_trust()),
            witness: Arc::clone(&told) as Arc<dyn Witness>,
        };
        Self { routes, context, told, agent, saw, connections }
    }

    async fn plain(steps: Vec<Step>) -> Self {
        Self::new(steps, LimitSpec::default(), |_| {}).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        self.routes.serve(request, &self.context).await
    }

    async fn post(&self, path: &str, body: Value) -> Response<Body> {
        self.send(post(path, &body)).await
    }

    fn saw(&mut self) -> Option<String> {
        match self.saw.try_recv() {
            Ok(Saw::Request(text)) => Some(text),
            Ok(Saw::Gone) => panic!("gone"),
            Err(_) => None,
        }
    }
}

fn no_trust() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

fn post(path: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {PLACEHOLDER_KEY}"))
        .body(Full::from(body.to_string()))
        .unwrap()
}

async fn upstream(mut stream: TcpStream, steps: Vec<Step>, tell: mpsc::UnboundedSender<Saw>) {
    let mut buffer = Vec::new();
    loop {
        let Some(text) = request(&mut stream, &mut buffer).await else { return };
        let _ = tell.send(Saw::Request(text));
        for step in &steps {
            match step {
                Step::Send(text) => {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        let _ = tell.send(Saw::Gone);
                        return;
                    }
                }
                Step::Wait(time) => tokio::time::sleep(*time).await,
                Step::Hang => {
                    let mut rest = [0; 64];
                    while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
                    let _ = tell.send(Saw::Gone);
                    return;
                }
                Step::Close => return,
            }
        }
    }
}

/// One request's text, by its Content-Length.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .map_or(0, |rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            if buffer.len() >= end + 4 + length {
                let text = buffer.drain(..end + 4 + length).collect();
                return Some(String::from_utf8(text).unwrap());
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&piece[..read]),
        }
    }
}

fn plain_answer(body: &str) -> Step {
    Step::Send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn events_head() -> Step {
    Step::Send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned())
}

fn chunk(text: &str) -> Step {
    Step::Send(format!("{:x}\r\n{text}\r\n", text.len()))
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn task_cap(text: &str) -> LimitSpec {
    LimitSpec { spend: SpendSpec { task: Some(text.parse().unwrap()), ..SpendSpec::default() }, ..LimitSpec::default() }
}

const USED: &str = r#"{"model":"gpt-4o-2024-08-06","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":10}}"#;

#[tokio::test]
async fn a_call_gets_its_key_outside_and_is_metered() {
    let mut rig = Rig::plain(vec![plain_answer(USED)]).await;
    let response = rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o", "max_tokens": 20})).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(text(response).await, USED);
    let seen = rig.saw().unwrap();
    assert!(seen.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("authorization: Bearer {KEY}\r\n")) && !seen.contains(PLACEHOLDER_KEY), "{seen}");
    assert!(seen.contains("accept-encoding: identity\r\n") && seen.contains("host: 127.0.0.1:"), "{seen}");
    let call = rig.told.only();
    assert_eq!((call.cost.to_string().as_str(), call.basis, call.known), ("$0.00035", Basis::Reported, Known::Listed));
    assert_eq!((call.outcome, call.status, call.overran), (Outcome::Whole, Some(200), false));
    assert_eq!(call.answered.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!((rig.agent.standing().task, rig.agent.standing().reserved), (call.cost, Money::ZERO));
}

#[tokio::test]
async fn a_base_url_is_written_as_clients_write_it() {
    for (suffix, target) in
        [("", "/v1/models"), ("/", "/v1/models"), ("/v1", "/v1/models"), ("/v1beta/openai/", "/v1beta/openai/models")]
    {
        let listed = [Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned())].to_vec();
        let mut rig = Rig::new(listed, LimitSpec::default(), |spec| {
            spec.upstream = spec.upstream.take().map(|base| format!("{base}{suffix}"));
        })
        .await;
        let request = Request::get("/openai/v1/models?limit=5").body(Full::default()).unwrap();
        assert_eq!(rig.send(request).await.status(), StatusCode::OK);
        assert!(rig.saw().unwrap().starts_with(&format!("GET {target}?limit=5 HTTP/1.1\r\n")), "{suffix}");
    }
}

#[tokio::test]
async fn one_agents_uploads_leave_room_for_the_others() {
    let rig = Rig::plain(vec![plain_answer(USED)]).await;
    let other = Context { account: Arc::new(Account::new(vec![])), ..rig.context.clone() };
    let room = Arc::clone(rig.context.account.room());
    let taken = Arc::clone(&room).try_acquire_many_owned(u32::try_from(room.available_permits()).unwrap()).unwrap();
    let call = json!({"model": "gpt-4o", "max_tokens": 5});
    assert_eq!(rig.post("/openai/v1/chat/completions", call.clone()).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.routes.serve(post("/openai/v1/chat/completions", &call), &other).await.status(), StatusCode::OK);
    drop(taken);
    let before = room.available_permits();
    assert_eq!(rig.post("/openai/v1/chat/completions", call).await.status(), StatusCode::OK);
    assert_eq!(room.available_permits(), before);
}

#[tokio::test]
async fn connections_are_used_again_and_a_closed_one_is_not() {
    let rig = Rig::plain(vec![plain_answer(USED)]).await;
    for _ in 0..5 {
        let response = rig.post("/anthropic/v1/messages", json!({"model": "claude-haiku-4-5", "max_tokens": 5})).await;
        text(response).await;
    }
    assert_eq!((rig.told.calls.lock().unwrap().len(), rig.connections.load(Ordering::Relaxed)), (5, 1));
    let closing = Rig::plain(vec![plain_answer(USED), Step::Close]).await;
    for _ in 0..20 {
        let response = closing.post("/openai/v1/responses", json!({"model": "gpt-4o", "input": "x"})).await;
        // A connection that closes at this very moment can take the request with it: that is said, never charged twice.
        assert!([200, 502].contains(&response.status().as_u16()));
    }
}

#[tokio::test]
async fn what_an_agent_must_not_ask_never_reaches_the_upstream() {
    let mut rig = Rig::plain(vec![plain_answer(USED)]).await;
    let body = json!({"model": "gpt-4o"});
    for (request, status) in [
        (post("/openai/v1/files", &body), 403),
        (post("/openai/v1/chat/completions/../files", &body), 403),
        (post("/openai/v1/%2e%2e/v1/files", &body), 403),
        (post("/openai//v1/chat/completions", &body), 403),
        (post("/openai/v1/chat%2fcompletions", &body), 403),
        (post("/openai", &body), 403),
        (post("/openai/v1/chat/completions?key=mine", &body), 401),
        (post("/openai/v1/chat/completions?x=1", &body), 403),
        (post("/nobody/v1/chat/completions", &body), 403),
        (Request::get("/openai/v1/chat/completions").body(Full::default()).unwrap(), 403),
        (Request::delete("/openai/v1/models/x").body(Full::default()).unwrap(), 403),
        (
            Request::get("/openai/v1/models").header("authorization", "Bearer sk-mine").body(Full::default()).unwrap(),
            401,
        ),
        (Request::get("/openai/v1/models").header("openai-organization", "org").body(Full::default()).unwrap(), 401),
        (Request::get("/gemini/v1beta/models").header("x-goog-api-key", "mine").body(Full::default()).unwrap(), 401),
        (post("/openai/v1/chat/completions", &json!({"messages": []})), 400),
        (post("/openai/v1/chat/completions", &json!({"model": "gpt-4o", "web_search_options": {}})), 403),
        (post("/openai/v1/responses", &json!({"model": "gpt-4o", "background": true})), 403),
        (
            post(
                "/anthropic/v1/messages/count_tokens",
                &json!({"model": "m", "messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "https://evil.example"}}]}]}),
            ),
            403,
        ),
    ] {
        let shown = format!("{} {}", request.method(), request.uri());
        let response = rig.send(request).await;
        assert_eq!(response.status().as_u16(), status, "{shown}");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert!(body["error"].is_object(), "{shown}");
    }
    let large =
        Request::post("/openai/v1/chat/completions").header("content-length", "99999999999").body(Full::default());
    assert_eq!(rig.send(large.unwrap()).await.status().as_u16(), 413);
    assert_eq!(rig.saw(), None);
    assert!(rig.told.calls.lock().unwrap().is_empty());
    assert_eq!(rig.told.refused.lock().unwrap().len(), 19);
}

#[tokio::test]
async fn a_reflected_key_is_starred_wherever_it_is_cut() {
    let body = format!(
        "{{\"error\":\"bad key {KEY}\",\"escaped\":\"{}\",\"url\":\"{}\"}}",
        KEY.replace('/', "\\/"),
        KEY.replace('/', "%2F")
    );
    let (first, second) = body.split_at(body.find("secret").unwrap());
    let mut head = Step::Send(format!(
        "HTTP/1.1 401 Unauthorized\r\nx-echo: {KEY}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    ));
    if let Step::Send(head) = &mut head {
        head.push_str(first);
    }
    let rig = Rig::plain(vec![head, Step::Send(second.to_owned())]).await;
    let response = rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o"})).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["x-echo"], "*".repeat(KEY.len()));
    let text = text(response).await;
    assert!(!text.contains("secret") && text.len() == body.len(), "{text}");
    // What the upstream refused costs nothing.
    assert_eq!((rig.told.only().basis, rig.agent.standing().task), (Basis::Nothing, Money::ZERO));
}

const DELTA: &str = "data: {\"model\":\"gpt-4o\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n";
const USAGE: &str =
    "data: {\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":10}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn a_streams_usage_is_asked_for_and_taken_out_again() {
    let steps = vec![events_head(), chunk(DELTA), chunk(USAGE), chunk(DONE), Step::Send("0\r\n\r\n".to_owned())];
    for (options, left) in
        [(Value::Null, format!("{DELTA}{DONE}")), (json!({"include_usage": true}), format!("{DELTA}{USAGE}{DONE}"))]
    {
        let mut rig = Rig::plain(steps.clone()).await;
        let body = json!({"model": "gpt-4o", "stream": true, "max_tokens": 50, "stream_options": options});
        let response = rig.post("/openai/v1/chat/completions", body).await;
        assert_eq!(text(response).await, left);
        assert!(rig.saw().unwrap().contains(r#""include_usage":true"#));
        let call = rig.told.only();
        assert_eq!(
            (call.cost.to_string().as_str(), call.basis, call.outcome),
            ("$0.00035", Basis::Reported, Outcome::Whole)
        );
    }
}

#[tokio::test]
async fn events_pass_before_the_next_one_comes() {
    let rig = Rig::plain(vec![events_head(), chunk(DELTA), Step::Hang]).await;
    let body = json!({"model": "gpt-4o", "stream": true, "max_tokens": 50});
    let mut body = rig.post("/openai/v1/chat/completions", body).await.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, DELTA);
}

#[tokio::test]
async fn who_wants_events_gets_one_a_frame() {
    let together = format!("{DELTA}{DELTA}data: {{\"x\"");
    let steps = vec![
        events_head(),
        chunk(&together),
        chunk(":1}\n\n"),
        chunk(USAGE),
        chunk("data: [DONE]"),
        chunk("\n"),
        Step::Send("0\r\n\r\n".to_owned()),
    ];
    let rig = Rig::plain(steps).await;
    let mut request =
        post("/openai/v1/chat/completions", &json!({"model": "gpt-4o", "stream": true, "max_tokens": 50}));
    request.extensions_mut().insert(Eventwise);
    let mut body = rig.send(request).await.into_body();
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(frame.unwrap().into_data().unwrap());
    }
    assert_eq!(frames, [DELTA, DELTA, "data: {\"x\":1}\n\n", "data: [DONE]\n"]);
    assert_eq!(rig.told.only().basis, Basis::Reported);
}

#[tokio::test]
async fn an_agent_that_reads_slowly_is_not_the_upstreams_silence() {
    // The end comes only once the agent reads again, and later than an upstream may be silent.
    let mut rig = impatient(vec![events_head(), chunk(DELTA), Step::Hang]).await;
    let mut body = rig.post("/openai/v1/responses", json!({"model": "gpt-4o", "stream": true})).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert!(matches!(rig.saw.recv().await, Some(Saw::Request(_))));
    tokio::time::sleep(PATIENCE * 2).await;
    let again = tokio::time::Instant::now();
    body.frame().await.unwrap().unwrap();
    assert!(again.elapsed() >= PATIENCE * 9 / 10, "the upstream had its time: {:?}", again.elapsed());
}

#[tokio::test]
async fn hanging_up_cancels_the_upstream_and_is_charged_by_estimate() {
    let mut rig = Rig::plain(vec![events_head(), chunk(DELTA), Step::Hang]).await;
    let body = json!({"model": "gpt-4o", "stream": true, "max_tokens": 50});
    let mut body = rig.post("/openai/v1/chat/completions", body).await.into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert!(matches!(rig.saw.recv().await, Some(Saw::Request(_))));
    assert_eq!(rig.saw.recv().await, Some(Saw::Gone));
    let call = rig.told.only();
    assert_eq!((call.outcome, call.basis), (Outcome::HungUp, Basis::Estimated));
    assert!(!call.cost.is_zero() && call.usage.output >= 1);
    assert_eq!((rig.agent.standing().in_flight, rig.agent.standing().task), (0, call.cost));
}

#[tokio::test]
async fn hanging_up_on_an_earlier_conversation_is_charged_all_that_it_can_hold() {
    let cost = |body: Value| async move {
        let rig = Rig::plain(vec![events_head(), chunk(DELTA), Step::Hang]).await;
        let mut body = rig.post("/openai/v1/responses", body).await.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        rig.told.only().usage
    };
    let short = cost(json!({"model": "gpt-4o", "input": "hi", "stream": true, "max_output_tokens": 50})).await;
    assert!(short.input < 100, "{short:?}");
    let long = json!({"model": "gpt-4o", "input": "hi", "stream": true, "max_output_tokens": 50, "previous_response_id": "resp_1"});
    assert_eq!(cost(long).await.input, 128_000, "as much as the model takes in");
}

#[tokio::test]
async fn a_model_that_worked_in_silence_after_its_first_word_is_paid_for_that() {
    let mut rig =
        Rig::plain(vec![events_head(), chunk(DELTA), Step::Wait(Duration::from_secs(1)), chunk(DELTA), Step::Hang])
            .await;
    let body = json!({"model": "gpt-4o", "input": "hi", "stream": true, "max_output_tokens": 5_000});
    let mut body = rig.post("/openai/v1/responses", body).await.into_body();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    assert!(matches!(rig.saw.recv().await, Some(Saw::Request(_))));
    let usage = rig.told.only().usage;
    assert!(usage.output >= 200, "a second of work: {usage:?}");
}

#[tokio::test]
async fn all_who_share_a_room_share_its_bytes() {
    let rig = Rig::plain(vec![plain_answer(USED)]).await;
    // Two agents' routes are made apart, each time one of them is launched.
    let made_apart = Rig::plain(vec![]).await.routes;
    let room = super::super::Room::default();
    let (one, other) = (made_apart.within(&room), rig.routes.clone().within(&room));
    let free = u32::try_from(one.room.available_permits()).unwrap();
    let taken = Arc::clone(&one.room).try_acquire_many_owned(free).unwrap();
    let call = json!({"model": "gpt-4o", "max_tokens": 5});
    let asked = |routes: Routes| {
        let (call, context) = (call.clone(), rig.context.clone());
        async move { routes.serve(post("/openai/v1/chat/completions", &call), &context).await.status() }
    };
    assert_eq!(asked(other.clone()).await, StatusCode::SERVICE_UNAVAILABLE);
    drop(taken);
    assert_eq!(asked(other).await, StatusCode::OK);
}

#[tokio::test]
async fn hanging_up_before_the_answer_cancels_as_well() {
    let mut rig = Rig::plain(vec![Step::Hang]).await;
    let (routes, context) = (rig.routes.clone(), rig.context.clone());
    let request = post("/anthropic/v1/messages", &json!({"model": "claude-haiku-4-5", "max_tokens": 50}));
    let serving = tokio::spawn(async move { routes.serve(request, &context).await.status() });
    assert!(matches!(rig.saw.recv().await, Some(Saw::Request(_))));
    serving.abort();
    assert_eq!(rig.saw.recv().await, Some(Saw::Gone));
    assert!(serving.await.unwrap_err().is_cancelled());
    assert_eq!((rig.told.only().basis, rig.agent.standing().in_flight), (Basis::Estimated, 0));
}

#[tokio::test]
async fn a_stream_that_ends_without_usage_is_charged_and_flagged() {
    let steps = vec![events_head(), chunk(DELTA), chunk(DELTA), chunk(DONE), Step::Send("0\r\n\r\n".to_owned())];
    let rig = Rig::plain(steps).await;
    let body = json!({"model": "gpt-4o", "stream": true, "max_tokens": 50});
    text(rig.post("/openai/v1/chat/completions", body).await).await;
    let call = rig.told.only();
    assert_eq!((call.outcome, call.basis), (Outcome::Whole, Basis::Estimated));
    assert!(!call.cost.is_zero() && call.usage.input > 0 && call.usage.output >= 2);
}

#[tokio::test]
async fn a_stream_that_breaks_off_keeps_the_input_it_told_and_guesses_the_output() {
    let start = r#"{"type":"message_start","message":{"model":"claude-haiku-4-5","usage":{"input_tokens":250,"output_tokens":1}}}"#;
    let delta = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello, and more"}}"#;
    let mut steps = vec![events_head(), chunk(&format!("data: {start}\n\n"))];
    steps.extend((0..9).map(|_| chunk(&format!("data: {delta}\n\n"))));
    steps.push(Step::Close);
    let rig = Rig::plain(steps).await;
    let body = json!({"model": "claude-haiku-4-5", "max_tokens": 500, "stream": true});
    let told = text(rig.post("/anthropic/v1/messages", body).await).await;
    assert!(told.contains("event: error\ndata: {\"error\"") && told.contains("api_error"), "{told}");
    let call = rig.told.only();
    assert_eq!((call.outcome, call.basis), (Outcome::Failed(Trouble::Upstream), Basis::Estimated));
    assert_eq!(call.usage.input, 250);
    assert!((10..=500).contains(&call.usage.output), "{:?}", call.usage);
}

/// How long upstreams may be silent in tests that wait for it. On the real clock: a paused one runs ahead of real sockets.
const PATIENCE: Duration = Duration::from_secs(1);

async fn impatient(steps: Vec<Step>) -> Rig {
    Rig::new(steps, LimitSpec::default(), |spec| (spec.idle, spec.answer) = (PATIENCE, PATIENCE)).await
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_an_error_in_the_providers_shape() {
    let silent = |stream: bool| async move {
        let rig = impatient(vec![Step::Hang]).await;
        let body = json!({"model": "claude-haiku-4-5", "max_tokens": 9, "stream": stream});
        let response = rig.post("/anthropic/v1/messages", body).await;
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        assert!(text(response).await.contains("timeout_error"));
        assert_eq!(rig.told.only().outcome, Outcome::Failed(Trouble::Stalled));
    };
    tokio::join!(silent(true), silent(false));
}

#[tokio::test]
async fn a_stream_that_stalls_ends_in_an_event_that_the_client_understands() {
    let rig = impatient(vec![events_head(), chunk(DELTA), Step::Hang]).await;
    let body = json!({"model": "gpt-4o", "stream": true, "max_tokens": 50});
    let whole = text(rig.post("/openai/v1/chat/completions", body).await).await;
    let told = whole.strip_prefix(DELTA).unwrap();
    assert!(told.starts_with("data: {\"error\"") && told.contains("agt_upstream_timeout"), "{whole}");
    assert_eq!(rig.told.only().outcome, Outcome::Failed(Trouble::Stalled));
}

#[tokio::test]
async fn what_stalls_within_a_document_or_an_event_is_cut() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"model\"";
    let cut = |steps| async move {
        let rig = impatient(steps).await;
        let body =
            json!({"model": "gpt-4o", "max_tokens": 50, "stream_options": {"include_usage": true}, "stream": true});
        let response = rig.post("/openai/v1/chat/completions", body).await;
        assert!(response.into_body().collect().await.is_err());
        assert_eq!((rig.told.only().basis, rig.agent.standing().in_flight), (Basis::Estimated, 0));
    };
    tokio::join!(
        cut(vec![Step::Send(head.to_owned()), Step::Hang]),
        cut(vec![events_head(), chunk("data: {\"mo"), Step::Hang]),
    );
}

#[tokio::test]
async fn answers_are_bounded() {
    let rig =
        Rig::new(vec![plain_answer(&"x".repeat(5_000))], LimitSpec::default(), |spec| spec.answer_bytes = 4_000).await;
    assert_eq!(
        rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o"})).await.status(),
        StatusCode::BAD_GATEWAY
    );
    let unsized_answer = vec![events_head(), chunk(&"x".repeat(5_000)), Step::Hang];
    let mut rig = Rig::new(unsized_answer, LimitSpec::default(), |spec| spec.answer_bytes = 4_000).await;
    let response = rig.post("/openai/v1/responses", json!({"model": "gpt-4o", "stream": true})).await;
    let text = text(response).await;
    assert!(text.len() < 500 && text.contains("larger than 4000 bytes"), "{text}");
    assert!(matches!(rig.saw.recv().await, Some(Saw::Request(_))));
    assert_eq!(rig.saw.recv().await, Some(Saw::Gone));
}

#[tokio::test]
async fn compressed_answers_and_redirects_are_refused_unread() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n",
    ] {
        let rig = Rig::plain(vec![Step::Send(head.to_owned())]).await;
        let response = rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o"})).await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        assert!(!text(response).await.contains("evil"));
        assert_eq!(rig.agent.standing().in_flight, 0);
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_costs_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let upstream = format!("http://127.0.0.1:{port}");
    let rig = Rig::new(vec![], task_cap("1"), |spec| spec.upstream = Some(upstream.clone())).await;
    let response = rig.post("/gemini/v1beta/models/gemini-2.5-flash:generateContent", json!({"contents": []})).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(text(response).await.contains("UNAVAILABLE"));
    let standing = rig.agent.standing();
    assert_eq!((rig.told.only().basis, standing.task, standing.reserved), (Basis::Nothing, Money::ZERO, Money::ZERO));
}

#[tokio::test]
async fn a_cap_is_a_hard_stop_in_the_providers_shape() {
    let mut rig = Rig::new(vec![plain_answer(USED)], task_cap("0.001"), |_| {}).await;
    let call = |max: u64| json!({"model": "gpt-4o", "max_tokens": max});
    assert_eq!(rig.post("/openai/v1/chat/completions", call(10)).await.status(), StatusCode::TOO_MANY_REQUESTS);
    let response = rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o"})).await;
    let body = text(response).await;
    assert!(body.contains("insufficient_quota") && body.contains("names no maximum"), "{body}");
    assert_eq!(rig.saw(), None);
    assert_eq!(rig.told.limited.lock().unwrap()[0].refusal.word(), "spend-task");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_the_same_time_that_try_ten_times_the_cap_stay_within_it() {
    // Each reserves about $0.0105 (2,100 tokens of input at most, 50 of output) and takes $0.00035.
    let rig = Rig::new(vec![plain_answer(USED)], task_cap("0.05"), |_| {}).await;
    let calls = (0..1_500).map(|_| {
        let (routes, context, agent) = (rig.routes.clone(), rig.context.clone(), Arc::clone(&rig.agent));
        tokio::spawn(async move {
            let request = post("/openai/v1/chat/completions", &json!({"model": "gpt-4o", "max_tokens": 50}));
            let response = routes.serve(request, &context).await;
            let standing = agent.standing();
            let status = response.status().as_u16();
            text(response).await;
            (status, standing.task.plus(standing.reserved))
        })
    });
    let cap: Money = "0.05".parse().unwrap();
    let mut passed = 0u64;
    for call in calls.collect::<Vec<_>>() {
        let (status, at_once) = call.await.unwrap();
        assert!(at_once <= cap, "{at_once}");
        assert!([200, 429].contains(&status));
        passed += u64::from(status == 200);
    }
    let standing = rig.agent.standing();
    assert!(standing.task <= cap && standing.in_flight == 0 && standing.reserved.is_zero());
    assert_eq!(standing.task.nanos(), passed * 350_000);
    // One after another they use what is left, and then no more.
    for _ in 0..150 {
        text(rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o", "max_tokens": 50})).await).await;
    }
    let spent = rig.agent.standing().task;
    assert!(spent <= cap && spent.plus("0.011".parse().unwrap()) > cap, "{spent}");
}

#[tokio::test]
async fn an_unknown_model_is_charged_the_worst_price_and_flagged() {
    let rig = Rig::plain(vec![plain_answer(&USED.replace("gpt-4o-2024-08-06", "their-name-for-it"))]).await;
    text(rig.post("/openai/v1/chat/completions", json!({"model": "brand-new", "max_tokens": 9})).await).await;
    let call = rig.told.only();
    assert_eq!((call.known, call.cost.to_string().as_str()), (Known::Unknown, "$0.021"));
}

#[tokio::test]
async fn it_works_behind_a_real_server_with_lengths_and_hang_ups() {
    let mut rig = Rig::plain(vec![plain_answer(USED)]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (routes, context) = (rig.routes.clone(), rig.context.clone());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request| {
            let (routes, context) = (routes.clone(), context.clone());
            async move { Ok::<_, std::convert::Infallible>(routes.serve(request, &context).await) }
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
    });
    let mut agent = TcpStream::connect(address).await.unwrap();
    let body = r#"{"model":"gpt-4o","max_tokens":20}"#;
    let request =
        format!("POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..2 {
        agent.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(USED.as_bytes()) {
            let mut piece = [0; 1024];
            let read = agent.read(&mut piece).await.unwrap();
            assert!(read > 0);
            answer.extend_from_slice(&piece[..read]);
        }
        assert!(String::from_utf8(answer).unwrap().contains(&format!("content-length: {}\r\n", USED.len())));
    }
    assert!(rig.saw().is_some() && rig.saw().is_some());
    for call in &*rig.told.calls.lock().unwrap() {
        assert_eq!((call.outcome, call.basis), (Outcome::Whole, Basis::Reported));
    }
}

#[test]
fn routes_that_make_no_sense_are_refused_when_they_are_made() {
    let make = |name: &str, json: Value| {
        let spec: RouteSpec = serde_json::from_value(json).unwrap();
        Routes::new(&BTreeMap::from([(name.to_owned(), spec)]), Arc::new(Table::built_in()))
    };
    assert!(make("openai", json!({})).is_ok());
    assert!(make("local", json!({"upstream": "http://10.0.0.5:8000/v1x", "speaks": "openai"})).is_ok());
    for (name, json) in [
        ("local", json!({"upstream": "http://10.0.0.5:8000"})),
        ("local", json!({"speaks": "openai"})),
        ("Open/AI", json!({"upstream": "http://x", "speaks": "openai"})),
        ("openai", json!({"upstream": "ftp://x"})),
        ("openai", json!({"upstream": "https://user:pw@x"})),
        ("openai", json!({"upstream": "https://x/a/../b"})),
        ("openai", json!({"upstream": "https://x?key=1"})),
        ("openai", json!({"upstream": "http://far.example", "key": {"env": "PATH"}})),
        ("openai", json!({"key": {"env": "AGT_NO_SUCH_VARIABLE"}})),
        ("openai", json!({"key": {"file": "/nonexistent/agt-key"}})),
        ("openai", json!({"allow": ["GET /v1/../x"]})),
        ("openai", json!({"headers": ["authorization"]})),
        ("openai", json!({"headers": ["b\u{e4}d"]})),
        ("openai", json!({"idle": "0s"})),
    ] {
        assert!(make(name, json.clone()).is_err(), "{name} {json}");
    }
    assert!(serde_json::from_value::<RouteSpec>(json!({"upstreem": "x"})).is_err());
}

#[test]
fn an_agents_variables_point_at_its_routes_and_hold_no_key() {
    let specs = ["openai", "anthropic", "gemini"].map(|name| (name.to_owned(), RouteSpec::default()));
    let mut specs = BTreeMap::from(specs);
    let local = json!({"upstream": "http://127.0.0.1:1", "speaks": "openai"});
    specs.insert("my-vllm".to_owned(), serde_json::from_value(local).unwrap());
    let routes = Routes::new(&specs, Arc::new(Table::built_in())).unwrap();
    let variables: BTreeMap<String, String> = environment(&specs, "http://127.0.0.1:8080").into_iter().collect();
    assert_eq!(variables["OPENAI_BASE_URL"], "http://127.0.0.1:8080/openai/v1");
    assert_eq!(variables["ANTHROPIC_BASE_URL"], "http://127.0.0.1:8080/anthropic");
    assert_eq!(variables["GOOGLE_GEMINI_BASE_URL"], "http://127.0.0.1:8080/gemini");
    assert_eq!(variables["MY_VLLM_BASE_URL"], "http://127.0.0.1:8080/my-vllm/v1");
    assert_eq!(variables["MY_VLLM_API_KEY"], PLACEHOLDER_KEY);
    assert!(
        routes.claims("/openai/v1/x")
            && routes.claims("/openai")
            && !routes.claims("/openaix/v1")
            && !routes.claims("x")
    );
    let key = Key::new(KEY, "here").unwrap();
    assert!(!format!("{key:?} {routes:?}").contains("secret"));
}

/// An upstream with TLS, for `name`, by an authority of its own; its certificate is good from `from` to `to`.
async fn tls_upstream(name: &str, (from, to): (i32, i32)) -> (u16, rustls::pki_types::CertificateDer<'static>) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut piece = [0; 8192];
            let Ok(_) = stream.read(&mut piece).await else { continue };
            let Step::Send(answer) = plain_answer(USED) else { unreachable!("an answer is sent") };
            drop(stream.write_all(answer.as_bytes()).await);
            drop(stream.read(&mut piece).await);
        }
    });
    (port, authority.der().clone())
}

#[tokio::test]
async fn an_upstream_must_show_a_good_certificate_for_its_name() {
    for (name, years, trusted, status) in [
        ("localhost", (2020, 4000), true, 200),
        ("localhost", (2020, 4000), false, 502),
        ("localhost", (2019, 2020), true, 502),
        ("elsewhere.example", (2020, 4000), true, 502),
    ] {
        let (port, authority) = tls_upstream(name, years).await;
        let mut rig = Rig::new(vec![], LimitSpec::default(), |spec| {
            spec.upstream = Some(format!("https://localhost:{port}"));
        })
        .await;
        let (other, _) = (tls_upstream("localhost", years).await.1, ());
        let tls = trust(&[if trusted { authority } else { other }]).unwrap();
        rig.context.client = Client::new(Arc::new(Resolver::system(crate::resolve::Bounds::default())), tls);
        let response = rig.post("/openai/v1/chat/completions", json!({"model": "gpt-4o", "max_tokens": 5})).await;
        assert_eq!(response.status().as_u16(), status, "{name} {years:?} {trusted}");
        let told = text(response).await;
        assert_eq!(status == 502, told.contains("certificate"), "{told}");
        // What failed before it left costs nothing.
        assert_eq!(status == 502, rig.agent.standing().task.is_zero());
    }
}
