//! Model routes: real programs in real rings, a provider on loopback that this test writes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::docs::{only_its_owner_reads, only_its_owner_writes};
use crate::metrics::{address, scrape, value};
use crate::real_agents::{PYTHON, Packages};
use crate::support::{Outcome, Rig, Supervisor, effort, quoted, skip, until};

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
}

impl Provider {
    fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let notes = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), notes) = (stream, Arc::clone(&notes)) else { return };
                std::thread::spawn(move || while serve(&stream, &notes).is_some() {});
            }
        });
        Provider { port, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// One request of a connection; `None`: it is over.
fn serve(stream: &TcpStream, notes: &Mutex<Vec<Asked>>) -> Option<()> {
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
    answer(stream, &asked)
}

fn answer(mut stream: &TcpStream, asked: &Asked) -> Option<()> {
    let model = asked.body["model"].as_str().unwrap_or_default();
    if model == "stalls" {
        // Accepted and never answered: the other side gives up.
        let _ = stream.read(&mut [0; 1]);
        return None;
    }
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
        let (rig, provider) = (Rig::new(), Provider::start());
        let rest = format!("ring: 2\n{}models: [openai, anthropic, gemini]\n{agent}command: {command}\n", effort());
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
        let Some(packages) = Packages::installed(PYTHON) else {
            skip(test, "the PyPI packages are not installed (.ci/run installs them)");
            return None;
        };
        let bench = Bench::new("[.venv/bin/python, agent.py]", routes, grant, agent);
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
    let Some(bench) = Bench::python(test, program, "", "", "") else { return };
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.code, 0, "{said}");
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
    let bench = Bench::new("[node, agent.mjs]", "", "", "");
    std::fs::write(bench.rig.work.join("agent.mjs"), script).unwrap();
    let outcome = bench.run();
    let said = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("200 true false true agt-held-by-the-supervisor"), "{said}");
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
    assert_ne!(outcome.code, 0);
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
    assert_eq!(read("agt_network_duration_seconds_count{agent=\"caller\",kind=\"route\"}"), Some(5.0), "{text}");
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
