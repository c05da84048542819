//! Model routes: real programs in real rings, a provider on loopback that this test writes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::docs::{only_its_owner_reads, only_its_owner_writes};
use crate::metrics::{address, scrape, value};
use crate::real_agents::{PYTHON, Packages};
use crate::support::{Outcome, Rig, Supervisor, effort, needs_root, quoted, skip, until};

/// The key that no agent may ever see.
const KEY: &str = "sk-real-0123456789abcdef";

/// What a provider was asked.
#[derive(Debug, Clone)]
struct Asked {
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// A provider: it answers by the model that it is asked for.
struct Provider {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Calls whose caller has hung up before they were answered.
    left: Arc<AtomicUsize>,
}

impl Provider {
    fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let left = Arc::<AtomicUsize>::default();
        let (notes, leaving) = (Arc::clone(&asked), Arc::clone(&left));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), notes, left) = (stream, Arc::clone(&notes), Arc::clone(&leaving)) else { return };
                std::thread::spawn(move || while serve(&stream, &notes, &left).is_some() {});
            }
        });
        Provider { port, asked, left }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request of a connection; `None`: it is over.
fn serve(stream: &TcpStream, notes: &Mutex<Vec<Asked>>, left: &AtomicUsize) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let asked = Asked { path, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) };
    notes.lock().unwrap().push(asked.clone());
    if asked.body["model"] == "stalls" {
        // Accepted and never answered: the other side gives up.
        let _ = (&*stream).read(&mut [0; 1]);
        left.fetch_add(1, Ordering::SeqCst);
        return None;
    }
    answer(stream, &asked)
}

fn answer(mut stream: &TcpStream, asked: &Asked) -> Option<()> {
    let model = asked.body["model"].as_str().unwrap_or_default();
    let (status, body) = match (asked.path.as_str(), model) {
        (_, "reflects") => {
            ("401 Unauthorized", json!({"error": {"message": format!("bad key {:?}", asked.headers), "type": "x"}}))
        }
        ("/v1/messages", _) => (
            "200 OK",
            json!({"id": "m", "type": "message", "role": "assistant", "model": model,
            "content": [{"type": "text", "text": "it works"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 1000, "output_tokens": 500}}),
        ),
        (path, _) if path.ends_with(":generateContent") => (
            "200 OK",
            json!({
            "candidates": [{"content": {"role": "model", "parts": [{"text": "it works"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 500, "totalTokenCount": 1500}}),
        ),
        _ if asked.body["stream"] == true => return events(stream, asked, model),
        _ => (
            "200 OK",
            json!({"id": "c", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "it works"}}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}}),
        ),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok()
}

fn events(mut stream: &TcpStream, asked: &Asked, model: &str) -> Option<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n").ok()?;
    let mut event = |data: &str| stream.write_all(format!("data: {data}\n\n").as_bytes()).ok();
    let chunk = |choices: Value, usage: Value| {
        json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices, "usage": usage})
            .to_string()
    };
    for word in ["it ", "works"] {
        event(&chunk(json!([{"index": 0, "delta": {"content": word}, "finish_reason": null}]), Value::Null))?;
    }
    if asked.body["stream_options"]["include_usage"] == true {
        event(&chunk(json!([]), json!({"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500})))?;
    }
    event("[DONE]")?;
    let _ = stream.shutdown(std::net::Shutdown::Both);
    None
}

/// An agent with model routes to a provider.
pub(crate) struct Bench {
    pub(crate) rig: Rig,
    provider: Provider,
    operator: PathBuf,
    file: PathBuf,
}

impl Bench {
    /// `command` is YAML; `routes` are further lines of each provider, `grant` and `agent` further lines of both files.
    pub(crate) fn new(command: &str, routes: &str, grant: &str, agent: &str) -> Bench {
        Bench::at(2, command, routes, grant, agent)
    }

    /// The same in another ring.
    fn at(ring: u8, command: &str, routes: &str, grant: &str, agent: &str) -> Bench {
        let (rig, provider) = (Rig::new(), Provider::start());
        let rest =
            format!("ring: {ring}\n{}models: [openai, anthropic, gemini]\n{agent}command: {command}\n", effort());
        let file = rig.agent("caller", &rest);
        let key = rig.work.join("the.key");
        std::fs::write(&key, format!("{KEY}\n")).unwrap();
        only_its_owner_reads(&key);
        let prices = rig.dir.path().join("prices.yaml");
        let cheap = "{input: \"0.01\", output: \"0.01\"}";
        std::fs::write(&prices, format!("version: 1\nkind: prices\nmodels: {{stalls: {cheap}, reflects: {cheap}}}\n"))
            .unwrap();
        only_its_owner_writes(&prices);
        let operator = rig.dir.path().join("operator.yaml");
        let port = provider.port;
        let route = |name: &str| {
            format!("    {name}: {{upstream: \"http://127.0.0.1:{port}\", key: {{file: work/the.key}}{routes}}}\n")
        };
        let routes: String = ["openai", "anthropic", "gemini"].map(route).concat();
        let text = format!(
            "version: 1\nkind: operator\nmodels:\n  prices: prices.yaml\n  providers:\n{routes}agents:\n  caller:\n    file: {}\n    \
             models: [openai, anthropic, gemini]\n{grant}",
            quoted(file.to_str().unwrap())
        );
        std::fs::write(&operator, text).unwrap();
        only_its_owner_writes(&operator);
        Bench { rig, provider, operator, file }
    }

    /// The same with a program in Python that imports what PyPI has; `None` (and said) where that is not installed.
    fn python(test: &str, program: &str, routes: &str, grant: &str, agent: &str) -> Option<Bench> {
        Bench::python_at(2, test, program, routes, grant, agent)
    }

    fn python_at(ring: u8, test: &str, program: &str, routes: &str, grant: &str, agent: &str) -> Option<Bench> {
        let Some(packages) = Packages::installed(PYTHON) else {
            skip(test, "the PyPI packages are not installed (.ci/run installs them)");
            return None;
        };
        let bench = Bench::at(ring, "[.venv/bin/python, agent.py]", routes, grant, agent);
        packages.put_into(&bench.rig.work);
        std::fs::write(bench.rig.work.join("agent.py"), program).unwrap();
        Some(bench)
    }

    pub(crate) fn args(&self) -> Vec<&std::ffi::OsStr> {
        vec!["run".as_ref(), self.file.as_os_str(), "--operator".as_ref(), self.operator.as_os_str()]
    }

    fn run(&self) -> Outcome {
        self.rig.output(self.args())
    }

    /// Starts it with metrics and waits until it has written `done`.
    pub(crate) fn metrics(&self) -> (Supervisor, String) {
        let mut command = self.rig.command(["run", "--metrics", "127.0.0.1:0"]);
        command.args(&self.args()[1..]);
        let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
        until("the agent has done its calls", || self.rig.work.join("done").exists());
        let text = scrape(&address(&self.rig.ps()));
        (supervisor, text)
    }
}

/// The operator's line that leaves its routes to an agent in R3.
const IN_R3: &str = "    models_in_r3: [openai, anthropic, gemini]\n";

/// A shell's words for a call of Chat Completions.
pub(crate) fn curl(model: &str, more: &str) -> String {
    let body = format!(r#"{{"model":"{model}","max_tokens":500{more},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    format!(
        "curl -sS \"$OPENAI_BASE_URL/chat/completions\" -H \"Authorization: Bearer $OPENAI_API_KEY\" -H 'Content-Type: application/json' -d '{body}'"
    )
}

pub(crate) fn shell(script: &str) -> String {
    format!("[sh, -c, {}]", quoted(script))
}

#[test]
fn unchanged_programs_of_three_providers_work_and_never_see_the_key() {
    let test = "unchanged_programs_of_three_providers_work_and_never_see_the_key";
    let program = r#"
import os, anthropic, openai
from google import genai
said = [{"role": "user", "content": "hi"}]
client = openai.OpenAI()
ask = dict(model="gpt-4o", max_tokens=500, messages=said)
print("plain:", client.chat.completions.create(**ask).choices[0].message.content)
print("stream:", "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(stream=True, **ask)))
message = anthropic.Anthropic().messages.create(model="claude-3-haiku", max_tokens=500, messages=said)
print("anthropic:", message.content[0].text, message.usage.output_tokens)
google = genai.Client()
gemini = google.models.generate_content(model="gemini-2.5-flash", contents="hi")
print("gemini:", gemini.text)
try:
    client.chat.completions.create(**{**ask, "model": "reflects"})
except openai.AuthenticationError as e:
    print("reflected:", e)
print("variables:", dict(os.environ))
for path in ["the.key", f"/proc/{os.getppid()}/environ", "/proc/1/environ"]:
    try:
        print(path, open(path, "rb").read())
    except OSError as e:
        print(path, e.strerror)
"#;
    for (ring, grant) in [(2, ""), (3, IN_R3)] {
        let Some(bench) = Bench::python_at(ring, test, program, "", grant, "") else { return };
        reached_three_providers(&bench);
    }
}

fn reached_three_providers(bench: &Bench) {
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, 0, "{said}");
    // Some libraries ask a program what machine this is: in R3 there is no second one. Their sockets meet no wall.
    let refused = |line: &str| line.starts_with("denied: ") && line.contains("sock");
    assert!(!outcome.stderr.lines().any(refused), "{said}");
    for line in ["plain: it works", "stream: it works", "anthropic: it works 500", "gemini: it works"] {
        assert!(outcome.stdout.lines().any(|said| said == line), "{line}\n{said}");
    }
    assert!(outcome.stdout.contains("reflected: ") && outcome.stdout.contains("Bearer ****"), "{said}");
    assert!(!said.contains(KEY) && !said.contains(&KEY[8..]), "the key was seen: {said}");
    let asked = bench.provider.asked();
    let with_key = |one: &Asked, name: &str, value: &str| one.headers.get(name).is_some_and(|held| held == value);
    let bearer = format!("Bearer {KEY}");
    let places = [("authorization", bearer.as_str()), ("x-api-key", KEY), ("x-goog-api-key", KEY)];
    for (one, place) in asked.iter().zip([0, 0, 1, 2, 0]) {
        // In the header of its provider, and in no other.
        for (index, (name, value)) in places.iter().enumerate() {
            assert_eq!(with_key(one, name, value), index == place, "{one:?}");
            assert_eq!(one.headers.contains_key(*name), index == place, "{one:?}");
        }
    }
    assert_eq!(asked.len(), 5, "{asked:?}");
    // It asks for a stream's usage where the program did not, whose library would have stumbled over the event.
    assert_eq!(asked[1].body["stream_options"]["include_usage"], true);
}

#[test]
fn libraries_raise_their_own_errors_for_a_spent_cap_and_a_stalled_provider() {
    let test = "libraries_raise_their_own_errors_for_a_spent_cap_and_a_stalled_provider";
    let program = r#"
import anthropic, openai, time
said = [{"role": "user", "content": "hi"}]
client = openai.OpenAI(max_retries=0)
began = time.monotonic()
try:
    client.chat.completions.create(model="stalls", max_tokens=5, messages=said)
except openai.InternalServerError as e:
    print("stalled:", e.status_code, e.code, time.monotonic() - began < 30)
done = 0
try:
    for _ in range(20):
        # As it comes: with its own retries, of which a spent cap deserves none.
        openai.OpenAI().chat.completions.create(model="gpt-4o", max_tokens=500, messages=said)
        done += 1
except openai.RateLimitError as e:
    print("openai:", done, e.code, "spend cap" in str(e))
try:
    anthropic.Anthropic().messages.create(model="claude-3-haiku", max_tokens=15000, messages=said)
except anthropic.RateLimitError as e:
    print("anthropic:", e.status_code, "spend cap" in str(e))
"#;
    let cap = "    model_limits: {spend: {task: \"0.05\"}}\n";
    let Some(bench) = Bench::python(test, program, ", idle: 2s, answer: 2s", cap, "") else { return };
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, 0, "{said}");
    assert!(outcome.stdout.contains("stalled: 504 agt_upstream_timeout True"), "{said}");
    let asked = bench.provider.asked().len();
    assert!(outcome.stdout.contains(&format!("openai: {} insufficient_quota True", asked - 1)), "{said}");
    assert!(outcome.stdout.contains("anthropic: 429 True"), "{said}");
}

#[test]
fn node_reaches_a_model_by_fetch() {
    let script = r#"
const ask = {model: "gpt-4o", max_tokens: 5, stream: true, messages: [{role: "user", content: "hi"}]};
const key = process.env.OPENAI_API_KEY;
const answer = await fetch(process.env.OPENAI_BASE_URL + "/chat/completions", {
  method: "POST", headers: {"content-type": "application/json", authorization: `Bearer ${key}`}, body: JSON.stringify(ask)});
let text = "";
for await (const piece of answer.body) text += Buffer.from(piece).toString();
console.log(answer.status, text.includes("works"), text.includes("prompt_tokens"), text.trimEnd().endsWith("[DONE]"), key);
"#;
    for (ring, grant) in [(2, ""), (3, IN_R3)] {
        let bench = Bench::at(ring, "[node, agent.mjs]", "", grant, "");
        std::fs::write(bench.rig.work.join("agent.mjs"), script).unwrap();
        let outcome = bench.run();
        let said = format!("R{ring}: {}\n{}", outcome.stdout, outcome.stderr);
        assert!(!outcome.stderr.contains("denied: "), "{said}");
        assert!(outcome.stdout.contains("200 true false true agt-held-by-the-supervisor"), "{said}");
    }
}

#[test]
fn what_is_no_call_of_a_route_is_refused_told_and_recorded() {
    let script = "curl -sS -X DELETE \"$OPENAI_BASE_URL/models/gpt-4o\"; curl -sS \"$OPENAI_BASE_URL/models\" -H 'Authorization: Bearer sk-of-mine'; \
                  curl -sS \"${OPENAI_BASE_URL%/v1}/../anthropic/v1/models\" --path-as-is";
    let bench = Bench::new(&shell(script), "", "", "");
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("agt_not_allowed") && outcome.stdout.contains("invalid_api_key"), "{said}");
    assert!(
        outcome.stderr.contains("denied: caller: a model call was refused: openai: DELETE /v1/models/gpt-4o"),
        "{said}"
    );
    assert!(bench.provider.asked().is_empty(), "{:?}", bench.provider.asked());
    let audit = bench.rig.output(["audit", "show", "--json"]);
    assert!(
        audit.stdout.contains("model.refused") && !audit.stdout.contains("sk-of-mine"),
        "{} {}",
        audit.stdout,
        audit.stderr
    );
}

#[test]
fn a_day_does_not_begin_anew_with_another_supervisor() {
    let cap = "    model_limits: {spend: {day: \"0.025\"}}\n";
    let bench = Bench::new(&shell(&format!("{0}; {0}", curl("gpt-4o", ""))), "", cap, "");
    assert_eq!(bench.run().stdout.matches("it works").count(), 2);
    let second = bench.run();
    assert!(second.stdout.contains("insufficient_quota") && !second.stdout.contains("it works"), "{}", second.stdout);
    assert!(second.stderr.contains("per day"), "{}", second.stderr);
    assert_eq!(bench.provider.asked().len(), 2);
}

#[test]
fn a_day_does_not_begin_anew_for_an_agent_that_a_reload_gives_its_routes_back() {
    let call = format!("{} >> answers", curl("gpt-4o", ""));
    let script = format!("if [ -n \"$OPENAI_BASE_URL\" ]; then {call}; {call}; else touch idle; exec sleep 1000; fi");
    // A port gives it a way into the gateway without any route.
    let cap = "    model_limits: {spend: {day: \"0.025\"}}\n";
    let bench = Bench::new(&shell(&script), "", cap, "ports: [0 -> 8080]\n");
    bench.run();
    let answers = bench.rig.work.join("answers");
    let worked = || std::fs::read_to_string(&answers).unwrap().matches("it works").count();
    assert_eq!(worked(), 2);
    let text = std::fs::read_to_string(&bench.file).unwrap();
    std::fs::write(&bench.file, text.replace("models: [openai, anthropic, gemini]\n", "")).unwrap();
    let mut supervisor = Supervisor { child: Some(bench.rig.command(bench.args()).spawn().unwrap()) };
    until("it runs without routes", || bench.rig.work.join("idle").exists());
    std::fs::write(&bench.file, text).unwrap();
    let reload = bench.rig.output(["reload", "caller", "--yes"]);
    assert_eq!(reload.code, 0, "{} {}", reload.stdout, reload.stderr);
    assert!(supervisor.child.take().unwrap().wait().unwrap().success());
    assert_eq!((worked(), bench.provider.asked().len()), (2, 2), "{}", std::fs::read_to_string(&answers).unwrap());
}

#[test]
fn a_cap_of_a_whole_ring_does_not_begin_anew_with_another_supervisor() {
    let bench = Bench::new(&shell(&format!("{0}; {0}", curl("gpt-4o", ""))), "", "", "");
    let text = std::fs::read_to_string(&bench.operator).unwrap();
    let ring = "models:\n  rings: {\"2\": {spend: {day: \"0.025\"}}}\n";
    std::fs::write(&bench.operator, text.replacen("models:\n", ring, 1)).unwrap();
    assert_eq!(bench.run().stdout.matches("it works").count(), 2);
    let second = bench.run();
    assert!(second.stdout.contains("insufficient_quota") && !second.stdout.contains("it works"), "{}", second.stdout);
    assert!(second.stderr.contains("all of R2") && second.stderr.contains("per day"), "{}", second.stderr);
    assert_eq!(bench.provider.asked().len(), 2);
}

#[test]
fn what_was_spent_before_and_cant_be_read_counts_as_spent_until_the_operator_raises_the_cap() {
    let cap = "    model_limits: {spend: {day: \"1\"}}\n";
    let bench = Bench::new(&shell(&curl("gpt-4o", "")), "", cap, "");
    assert!(bench.run().stdout.contains("it works"));
    let torn = "UPDATE agent_state SET value = '{\"sums\": \"torn\"}' WHERE agent = 'caller' AND kind = 'models.spent'";
    let database = rusqlite::Connection::open(bench.rig.state.join("state.db")).unwrap();
    assert_eq!(database.execute(torn, []).unwrap(), 1);
    drop(database);
    let second = bench.run();
    assert!(second.stdout.contains("insufficient_quota") && !second.stdout.contains("it works"), "{}", second.stdout);
    assert!(
        second.stderr.contains("warning: caller: what was spent on models before can't be read")
            && second.stderr.contains("agt-supervise reload caller"),
        "{}",
        second.stderr
    );
    let audit = bench.rig.output(["audit", "show", "--json"]).stdout;
    assert!(audit.contains("model.spent.unread"), "{audit}");
    // Now it is written down: the next supervisor can read it, and still refuses.
    let third = bench.run();
    assert!(!third.stdout.contains("it works") && !third.stderr.contains("can't be read"), "{}", third.stderr);
    let text = std::fs::read_to_string(&bench.operator).unwrap();
    std::fs::write(&bench.operator, text.replace("{day: \"1\"}", "{day: \"2\"}")).unwrap();
    assert!(bench.run().stdout.contains("it works"), "more room helps");
    assert_eq!(bench.provider.asked().len(), 2);
}

#[test]
fn a_key_that_others_can_read_is_used_for_nobody() {
    let bench = Bench::new(&shell(&curl("gpt-4o", "")), "", "", "");
    only_its_owner_writes(&bench.rig.work.join("the.key"));
    let outcome = bench.run();
    assert_eq!(outcome.code, 64);
    assert!(
        outcome.stderr.contains("can be read by others") && outcome.stderr.contains("chmod 600"),
        "{}",
        outcome.stderr
    );
    assert!(bench.provider.asked().is_empty());
}

#[test]
fn calls_are_counted_in_tokens_and_money_and_an_unknown_model_is_flagged() {
    let stream = r#","stream":true"#;
    let script = format!(
        "{}; {}; {}; touch done; sleep 1000",
        curl("gpt-4o", ""),
        curl("gpt-4o", stream),
        curl("nobody-knows", "")
    );
    let bench = Bench::new(&shell(&script), "", "", "");
    let (supervisor, text) = bench.metrics();
    let one = "agent=\"caller\",gen_ai_operation_name=\"chat\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"gpt-4o\"";
    let read = |series: String| value(&text, &series);
    assert_eq!(read(format!("gen_ai_client_operation_duration_seconds_count{{{one}}}")), Some(2.0), "{text}");
    assert_eq!(read(format!("gen_ai_client_operation_time_to_first_chunk_seconds_count{{{one}}}")), Some(2.0));
    for (kind, tokens) in [("input", 2000.0), ("output", 1000.0)] {
        let series = format!("gen_ai_client_token_usage_sum{{{one},gen_ai_token_type=\"{kind}\"}}");
        assert_eq!(read(series), Some(tokens), "{text}");
    }
    let cost = |model: &str, price: &str| {
        read(format!(
            "agt_model_cost_usd_total{{agent=\"caller\",gen_ai_provider_name=\"openai\",gen_ai_request_model=\"{model}\",price=\"{price}\"}}"
        ))
    };
    // Twice 1000 tokens at 2.50 and 500 at 10 a million; a model that is not in the table at 150 and 600.
    assert_eq!(cost("gpt-4o", "listed"), Some(0.015), "{text}");
    assert_eq!(cost("unknown", "unknown"), Some(0.45), "{text}");
    drop(supervisor);
    let told = bench.rig.output(["log", "caller"]);
    assert!(!format!("{}{}", told.stdout, told.stderr).contains(KEY));
}

#[test]
fn status_ps_and_metrics_show_what_was_spent_against_its_caps_and_what_is_under_way() {
    let script = format!(
        "{1} & for i in 1 2 3 4 5; do {0}; done; touch done; sleep 1000",
        curl("gpt-4o", ""),
        curl("stalls", "")
    );
    let bench = Bench::new(&shell(&script), "", "    model_limits: {spend: {task: \"0.02\", day: \"5\"}}\n", "");
    let (_supervisor, _) = bench.metrics();
    let rig = &bench.rig;
    let status = || rig.output(["status", "caller"]).stdout;
    until("the call that stalls is under way, too", || status().contains(" refused, 1 under way; "));
    let agent = &rig.ps()["agents"][0];
    let (models, status) = (&agent["models"], status());
    let (calls, refused) = (models["calls"].as_u64().unwrap(), models["refused"].as_u64().unwrap());
    assert!(calls >= 1 && refused >= 1 && calls + refused == 5, "{agent}");
    let spent = 0.0075 * calls as f64;
    for part in [
        format!(
            "  models: {calls} calls, {refused} refused, 1 under way; {} tokens in, {} out\n",
            1000 * calls,
            500 * calls
        ),
        format!(
            "  spent: ${spent} of $0.02 in this task, ${spent} in the last hour, ${spent} of $5.00 in the last day"
        ),
        " more under way)".to_owned(),
        "  requests: 6 made, 0 refused, 1 under way; 100 a minute, ".to_owned(),
    ] {
        assert!(status.contains(&part), "{part}: {status}");
    }
    let ps = rig.output(["ps"]).stdout;
    assert!(ps.contains("SPENT 1D") && ps.contains(&format!("${spent}/$5.00")), "{ps}");
    assert_eq!(models["spend"][0], json!({"period": "task", "spent_usd": spent, "cap_usd": 0.02}));
    assert_eq!((&models["throttled"], &models["in_flight"]), (&json!(refused), &json!(1)));
    assert_eq!((&agent["requests"]["made"], &agent["requests"]["per_minute"]), (&json!(6), &json!(100)));
    // Counters follow in a moment, the last of them those of calls that are over.
    let ended = "agt_network_duration_seconds_count{agent=\"caller\",kind=\"route\"}";
    until("what is over is counted", || value(&scrape(&address(&rig.ps())), ended) == Some(5.0));
    let text = scrape(&address(&rig.ps()));
    let read = |series: &str| value(&text, series);
    assert_eq!(read("agt_model_spent_usd{agent=\"caller\",period=\"task\"}"), Some(spent), "{text}");
    assert_eq!(read("agt_model_spend_cap_usd{agent=\"caller\",period=\"task\"}"), Some(0.02));
    assert_eq!(read("agt_model_spend_cap_usd{agent=\"caller\",period=\"hour\"}"), None, "no cap, no series");
    assert_eq!(read("agt_model_in_flight{agent=\"caller\"}"), Some(1.0), "{text}");
    assert_eq!(read("agt_network_in_flight{agent=\"caller\"}"), Some(1.0), "{text}");
    assert_eq!(
        read("agt_throttled_total{agent=\"caller\",limit=\"model-spend-task\"}"),
        Some(refused as f64),
        "{text}"
    );
}

#[test]
fn a_model_call_is_a_request_of_the_ring_and_refused_in_the_providers_words() {
    let script = format!(
        "{0}; {0}; {0} -w '%{{http_code}}'; curl -sS -D - \"$ANTHROPIC_BASE_URL/v1/models\"",
        curl("gpt-4o", "")
    );
    let bench = Bench::new(&shell(&script), "", "", "limits: {requests_per_minute: 2}\n");
    let outcome = bench.run();
    assert_eq!(bench.provider.asked().len(), 2, "{} {}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("rate_limit_exceeded") && outcome.stdout.contains("429"), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("rate_limit_error") && outcome.stdout.contains("retry-after: "),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains("limits.requests_per_minute"), "{}", outcome.stdout);
}

#[test]
fn ten_times_the_cap_can_be_tried_and_not_spent() {
    let script = format!("for i in $(seq 67); do {} >> answers; echo >> answers; done", curl("gpt-4o", ""));
    let bench = Bench::new(&shell(&script), "", "    model_limits: {spend: {task: \"0.05\"}}\n", "");
    let outcome = bench.run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let asked = bench.provider.asked().len();
    assert!((3..=6).contains(&asked), "at 0.0075 dollars each: {asked}");
    let answers = std::fs::read_to_string(bench.rig.work.join("answers")).unwrap();
    assert_eq!(answers.matches("insufficient_quota").count(), 2 * (67 - asked), "{answers}");
    assert!(outcome.stderr.contains("limit: caller: a model call was refused"), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("limit: caller").count(), 1, "told once: {}", outcome.stderr);
}

#[test]
fn a_limit_that_is_lowered_holds_for_the_running_agent_at_once() {
    let script = format!(
        "{0} > first; touch one; until [ -e go ]; do sleep 0.1; done; {0} > second; touch done; sleep 1000",
        curl("gpt-4o", "")
    );
    let bench = Bench::new(&shell(&script), "", "    model_limits: {spend: {task: \"5\"}}\n", "");
    let work = &bench.rig.work;
    let _supervisor = Supervisor { child: Some(bench.rig.command(bench.args()).spawn().unwrap()) };
    until("the first call is over", || work.join("one").exists());
    let text = std::fs::read_to_string(&bench.operator).unwrap();
    std::fs::write(&bench.operator, text.replace("task: \"5\"", "task: \"0.001\"")).unwrap();
    let reload = bench.rig.output(["reload", "caller", "--yes"]);
    assert!(reload.code == 0 && reload.stdout.contains("runs on with"), "{} {}", reload.stdout, reload.stderr);
    std::fs::write(work.join("go"), "").unwrap();
    until("the second call is over", || work.join("done").exists());
    let said = |name: &str| std::fs::read_to_string(work.join(name)).unwrap();
    assert!(said("first").contains("it works"), "{}", said("first"));
    assert!(said("second").contains("insufficient_quota"), "{}", said("second"));
}

/// What an agent in R3 can try, each by its name, as Python; `{port}` is the provider's.
const TRIED: &str = r#"
import asyncio, errno, json, os, socket, sys, threading, time, urllib.request

def ask(model="gpt-4o"):
    base, key = os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_API_KEY"]
    body = json.dumps({"model": model, "max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = {"Content-Type": "application/json", "Authorization": "Bearer " + key}
    with urllib.request.urlopen(urllib.request.Request(base + "/chat/completions", body, head), timeout=60) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]

def attempt(name, act):
    try:
        print(name + ":", act(), flush=True)
    except OSError as e:
        print(name + ":", errno.errorcode.get(e.errno, str(e)), flush=True)

def call(address, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(5)
        s.connect(address)
        return "connected"

def made(*kind):
    socket.socket(*kind).close()
    return "made"

def tcp(act):
    with socket.socket() as s:
        act(s)
        return "done"

def say(text):
    with socket.create_connection(("127.0.0.1", 20789), 20) as s:
        s.sendall(text.encode())
        return s.recv(100).split(b" ")[1].decode()

def try_all():
    attempt("another port", lambda: call(("127.0.0.1", 20790)))
    attempt("the provider itself", lambda: call(("127.0.0.1", {port})))
    attempt("another address", lambda: call(("127.0.0.2", 20789)))
    attempt("the world", lambda: call(("192.0.2.1", 20789)))
    attempt("a name", lambda: call(("localhost", {port})))
    attempt("tcp v6", lambda: made(socket.AF_INET6, socket.SOCK_STREAM))
    attempt("udp", lambda: made(socket.AF_INET, socket.SOCK_DGRAM))
    attempt("raw", lambda: made(socket.AF_INET, socket.SOCK_RAW, 1))
    attempt("multipath", lambda: made(socket.AF_INET, socket.SOCK_STREAM, 262))
    attempt("netlink", lambda: made(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    attempt("vsock", lambda: made(40, socket.SOCK_STREAM))
    attempt("bind", lambda: tcp(lambda s: s.bind(("127.0.0.1", 0))))
    attempt("listen", lambda: tcp(lambda s: s.listen()))
    attempt("an option", lambda: tcp(lambda s: s.setsockopt(socket.IPPROTO_TCP, 31, b"tls")))
    attempt("abstract", lambda: call("\0somebody", socket.AF_UNIX))
    print("variables:", sorted(name for name in os.environ if name.endswith(("_URL", "_BASE", "_KEY")) or "proxy" in name.lower()))
"#;

/// What each of those comes to, with model access and without.
const REFUSED: [(&str, &[&str], &[&str]); 15] = [
    ("another port", &["EACCES", "ECONNREFUSED"], &["EPERM"]),
    ("the provider itself", &["EACCES", "ECONNREFUSED"], &["EPERM"]),
    ("another address", &["ECONNREFUSED"], &["EPERM"]),
    ("the world", &["ENETUNREACH"], &["EPERM"]),
    (
        "a name",
        &[
            "EACCES",
            "ECONNREFUSED",
            "[Errno -2] Name or service not known",
            "[Errno -3] Temporary failure in name resolution",
        ],
        &["EPERM"],
    ),
    ("tcp v6", &["EPERM"], &["EPERM"]),
    ("udp", &["EPERM"], &["EPERM"]),
    ("raw", &["EPERM"], &["EPERM"]),
    ("multipath", &["EPERM"], &["EPERM"]),
    ("netlink", &["EPERM"], &["EPERM"]),
    ("vsock", &["EPERM"], &["EPERM"]),
    ("bind", &["EPERM"], &["EPERM"]),
    ("listen", &["EPERM"], &["EPERM"]),
    ("an option", &["EPERM"], &["EPERM"]),
    ("abstract", &["EPERM", "ECONNREFUSED"], &["EPERM", "ECONNREFUSED"]),
];

/// An agent in Python that tries `rest` after [`TRIED`].
fn tries(ring: u8, rest: &str, grant: &str, agent: &str) -> Bench {
    let bench = Bench::at(ring, "[python3, agent.py]", "", grant, agent);
    let port = bench.provider.port.to_string();
    std::fs::write(bench.rig.work.join("agent.py"), format!("{}{rest}", TRIED.replace("{port}", &port))).unwrap();
    bench
}

fn line<'a>(stdout: &'a str, name: &str) -> &'a str {
    let found = stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("nothing of {name:?} in {stdout}"))
}

#[test]
fn with_the_operators_line_r3_calls_its_models_and_reaches_nothing_else() {
    let rest = r#"
attempt("model", ask)
threads = [threading.Thread(target=attempt, args=(f"thread {n}", ask)) for n in range(4)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
async def connected():
    reader, writer = await asyncio.open_connection("127.0.0.1", 20789)
    writer.close()
    return "connected"
attempt("asyncio", lambda: asyncio.run(connected()))
try_all()
attempt("connect", lambda: say("CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"))
attempt("absolute", lambda: say("GET http://127.0.0.1:{port}/v1/models HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"))
attempt("socks", lambda: say("\x05\x01\x00\r\n\r\n"))
attempt("another route", lambda: say("GET /anthropic/v1/models HTTP/1.1\r\nHost: 127.0.0.1:20789\r\n\r\n"))
"#;
    // Of three routes that it has in R2.
    let bench = tries(3, "", "    models_in_r3: [openai]\n", "");
    let file = bench.rig.work.join("agent.py");
    // Its own file asks for the one that it is given.
    let yaml = std::fs::read_to_string(&bench.file)
        .unwrap()
        .replace("models: [openai, anthropic, gemini]", "models: [openai]");
    std::fs::write(&bench.file, yaml).unwrap();
    let rest = rest.replace("{port}", &bench.provider.port.to_string());
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &rest).unwrap();
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, 0, "{said}");
    for name in ["model", "thread 0", "thread 1", "thread 2", "thread 3"] {
        assert_eq!(line(&outcome.stdout, name), "it works", "{said}");
    }
    assert_eq!(line(&outcome.stdout, "asyncio"), "connected", "{said}");
    for (name, with, _) in REFUSED {
        let got = line(&outcome.stdout, name);
        assert!(with.contains(&got), "{name}: {got}\n{said}");
    }
    assert_eq!(line(&outcome.stdout, "variables"), "['OPENAI_API_BASE', 'OPENAI_API_KEY', 'OPENAI_BASE_URL']");
    for (name, status) in [("connect", "403"), ("absolute", "403"), ("socks", "400"), ("another route", "404")] {
        assert_eq!(line(&outcome.stdout, name), status, "{name}\n{said}");
    }
    let why = bench.rig.output(["why", "caller"]).stdout;
    assert!(why.contains("R3 calls models and reaches nothing else"), "{why}");
    assert!(!said.contains(KEY), "{said}");
    let asked = bench.provider.asked();
    assert!(asked.len() == 5 && asked.iter().all(|one| one.path == "/v1/chat/completions"), "{asked:?}");
}

#[test]
fn without_the_operators_line_r3_has_no_model_and_nothing_else() {
    // Asked for in R3 it is refused, with the line.
    let bench = tries(3, "try_all()\n", "", "");
    let refused = bench.run();
    assert_eq!(refused.code, 77, "{}", refused.stderr);
    assert!(refused.stderr.contains("models_in_r3: [anthropic, gemini, openai]"), "{}", refused.stderr);
    // In R3 for its trust, or by a demotion, it has none, with whatever it is granted above.
    let bench = tries(2, "try_all()\n", "", "");
    assert!(bench.run().stdout.contains("OPENAI_BASE_URL"));
    assert_eq!(bench.rig.output(["trust", "set", "caller", "500", "--reason", "test"]).code, 0);
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert!(outcome.code == 0 && outcome.stderr.contains("caller  R3"), "{said}");
    for (name, _, without) in REFUSED {
        let got = line(&outcome.stdout, name);
        assert!(without.contains(&got), "{name}: {got}\n{said}");
    }
    assert_eq!(line(&outcome.stdout, "variables"), "[]");
    assert!(bench.provider.asked().is_empty());
}

#[test]
fn a_demotion_to_r3_cuts_open_calls_and_leaves_the_routes_that_are_granted_there() {
    let test = "a_demotion_to_r3_cuts_open_calls_and_leaves_the_routes_that_are_granted_there";
    if !needs_root(test) {
        return;
    }
    let rest = r#"
try:
    open("written", "w").close()
except OSError:
    attempt("model", ask) if "OPENAI_BASE_URL" in os.environ else print("model: no route", flush=True)
    attempt("the provider itself", lambda: call(("127.0.0.1", {port})))
    sys.exit(5)
threading.Thread(target=attempt, args=("stalled", lambda: ask("stalls")), daemon=True).start()
time.sleep(1)
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["AGT_SOCKET"]); f = s.makefile("rw")
for _ in range(3):
    f.write('{"task":"end","id":"t","outcome":"bad"}\n'); f.flush(); f.readline()
time.sleep(1000)
"#;
    let slo = "slos: [{name: answers, sli: correctness, objective: 90%, period: 1h, minimum_events: 3, remedies: [{on: exhausted, \
               action: demote}]}]\n";
    for (grant, model, routes) in
        [("    models_in_r3: [openai]\n", "it works", "3 model routes -> 1"), ("", "no route", "3 model routes -> 0")]
    {
        let bench = tries(2, "", grant, slo);
        let file = bench.rig.work.join("agent.py");
        let rest = rest.replace("{port}", &bench.provider.port.to_string());
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &rest).unwrap();
        let outcome = bench.run();
        let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code, 5, "{said}");
        assert!(outcome.stderr.contains("Demoted from R2 to R3") && outcome.stderr.contains(routes), "{said}");
        assert_eq!(line(&outcome.stdout, "model"), model, "{said}");
        assert!(["EPERM", "EACCES", "ECONNREFUSED"].contains(&line(&outcome.stdout, "the provider itself")), "{said}");
        assert_eq!(bench.provider.left.load(Ordering::SeqCst), 1, "the open call was not cut: {said}");
    }
}

#[test]
fn routes_that_a_reload_takes_are_cut_before_the_agent_has_had_its_grace() {
    // It heeds no TERM for longer than the test waits.
    let script = format!("trap '' TERM; {} & touch one; while :; do sleep 0.1; done", curl("stalls", ""));
    let bench = Bench::new(&shell(&script), "", "", "timeouts: {stop: 40s}\n");
    let _supervisor = Supervisor { child: Some(bench.rig.command(bench.args()).spawn().unwrap()) };
    until("the call waits", || !bench.provider.asked().is_empty());
    let text = std::fs::read_to_string(&bench.file).unwrap();
    std::fs::write(&bench.file, text.replace("models: [openai, anthropic, gemini]\n", "models: [anthropic]\n"))
        .unwrap();
    let began = std::time::Instant::now();
    let reload = bench.rig.output(["reload", "caller", "--yes"]);
    assert!(
        reload.code == 0 && reload.stdout.contains("is stopped and started"),
        "{} {}",
        reload.stdout,
        reload.stderr
    );
    until("the call is cut", || bench.provider.left.load(Ordering::SeqCst) == 1);
    assert!(began.elapsed().as_secs() < 35, "it had its grace first");
    assert_eq!(bench.rig.output(["kill", "caller", "--reason", "test", "--yes"]).code, 0);
}
