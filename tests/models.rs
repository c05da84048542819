//! Model routes: real programs in real rings, a provider on loopback that this test writes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::docs::only_its_owner_writes;
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
        (_, "reflects") => ("401 Unauthorized", json!({"error": {"message": format!("bad key {:?}", asked.headers), "type": "x"}})),
        ("/v1/messages", _) => ("200 OK", json!({"id": "m", "type": "message", "role": "assistant", "model": model,
            "content": [{"type": "text", "text": "it works"}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 1000, "output_tokens": 500}})),
        (path, _) if path.starts_with("/v1beta/") => ("200 OK", json!({
            "candidates": [{"content": {"role": "model", "parts": [{"text": "it works"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 500, "totalTokenCount": 1500}})),
        _ if asked.body["stream"] == true => return events(stream, asked, model),
        _ => ("200 OK", json!({"id": "c", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "it works"}}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}})),
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
struct Bench {
    rig: Rig,
    provider: Provider,
    operator: PathBuf,
    file: PathBuf,
}

impl Bench {
    /// `command` is YAML; `routes` are further lines of each provider, `grant` and `agent` further lines of both files.
    fn new(command: &str, routes: &str, grant: &str, agent: &str) -> Bench {
        let (rig, provider) = (Rig::new(), Provider::start());
        let rest = format!("ring: 2\n{}models: [openai, anthropic, gemini]\n{agent}command: {command}\n", effort());
        let file = rig.agent("caller", &rest);
        let key = rig.work.join("the.key");
        std::fs::write(&key, format!("{KEY}\n")).unwrap();
        closed(&key);
        let operator = rig.dir.path().join("operator.yaml");
        let port = provider.port;
        let route = |name: &str| {
            format!("    {name}: {{upstream: \"http://127.0.0.1:{port}\", key: {{file: work/the.key}}{routes}}}\n")
        };
        let routes: String = ["openai", "anthropic", "gemini"].map(route).concat();
        let text = format!(
            "version: 1\nkind: operator\nmodels:\n  providers:\n{routes}agents:\n  caller:\n    file: {}\n    \
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

    fn args(&self) -> Vec<&std::ffi::OsStr> {
        vec!["run".as_ref(), self.file.as_os_str(), "--operator".as_ref(), self.operator.as_os_str()]
    }

    fn run(&self) -> Outcome {
        self.rig.output(self.args())
    }

    /// Starts it with metrics and waits until it has written `done`.
    fn metrics(&self) -> (Supervisor, String) {
        let mut command = self.rig.command(["run", "--metrics", "127.0.0.1:0"]);
        command.args(&self.args()[1..]);
        let supervisor = Supervisor { child: Some(command.spawn().unwrap()) };
        until("the agent has done its calls", || self.rig.work.join("done").exists());
        let text = scrape(&address(&self.rig.ps()));
        (supervisor, text)
    }
}

fn closed(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// A shell's words for a call of Chat Completions.
fn curl(model: &str, more: &str) -> String {
    let body = format!(r#"{{"model":"{model}","max_tokens":500{more},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    format!("curl -sS \"$OPENAI_BASE_URL/chat/completions\" -H \"Authorization: Bearer $OPENAI_API_KEY\" -H 'Content-Type: application/json' -d '{body}'")
}

fn shell(script: &str) -> String {
    format!("[sh, -c, {}]", quoted(script))
}

#[test]
fn an_unchanged_openai_program_works_and_never_sees_the_key() {
    let test = "an_unchanged_openai_program_works_and_never_sees_the_key";
    let program = r#"
import os, openai
client = openai.OpenAI()
ask = dict(model="gpt-4o", max_tokens=500, messages=[{"role": "user", "content": "hi"}])
print("plain:", client.chat.completions.create(**ask).choices[0].message.content)
print("stream:", "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(stream=True, **ask)))
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
    assert!(outcome.stdout.contains("plain: it works\nstream: it works\n"), "{said}");
    assert!(outcome.stdout.contains("reflected: ") && outcome.stdout.contains("Bearer ****"), "{said}");
    assert!(!said.contains(KEY) && !said.contains(&KEY[8..]), "the key was seen: {said}");
    let asked = bench.provider.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for one in &asked {
        assert_eq!(one.headers["authorization"], format!("Bearer {KEY}"));
        assert_eq!(one.path, "/v1/chat/completions");
    }
    // It asks for a stream's usage where the program did not, whose library would have stumbled over the event.
    assert_eq!(asked[1].body["stream_options"]["include_usage"], true);
}

#[test]
fn calls_are_counted_in_tokens_and_money_and_an_unknown_model_is_flagged() {
    let stream = r#","stream":true"#;
    let script = format!("{}; {}; {}; touch done; sleep 1000", curl("gpt-4o", ""), curl("gpt-4o", stream), curl("nobody-knows", ""));
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
