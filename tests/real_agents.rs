//! Other people's agents, unchanged, from npm and PyPI, in their rings.
//!
//! The packages are not part of this repository: `.ci/run` installs them into a cache that `AGT_TEST_CACHE` names.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::docs::{copy_tree, free_port, only_its_owner_reads, only_its_owner_writes};
use crate::examples::example;
use crate::support::{Outcome, Rig, skip};

/// A kind of packages.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// What a document that installs them says.
    pub install: &'static str,
    /// Where they stand in the cache.
    cached: &'static str,
    /// What stands there when they are installed whole.
    complete: &'static str,
    /// What they are called in an example's folder.
    local: &'static str,
}

/// The MCP server's packages.
pub const NODE: Kind = Kind {
    name: "npm",
    install: "npm install ",
    cached: "node/node_modules",
    complete: "node/complete",
    local: "node_modules",
};

/// The Python agent's packages: a venv.
pub const PYTHON: Kind =
    Kind { name: "PyPI", install: "pip install ", cached: "python/.venv", complete: "python/complete", local: ".venv" };

/// Packages in the cache.
#[derive(Debug)]
pub struct Packages {
    from: PathBuf,
    local: &'static str,
}

impl Packages {
    /// The packages, where CI has installed them.
    pub fn installed(kind: Kind) -> Option<Packages> {
        let cache = PathBuf::from(std::env::var_os("AGT_TEST_CACHE")?);
        cache.join(kind.complete).exists().then(|| Packages { from: cache.join(kind.cached), local: kind.local })
    }

    /// Puts a copy of them into an example's folder, as installing them there would. Their files are links to those of the cache,
    /// where that is on the same disk: to make and remove twenty thousand files each time takes longer than most tests. Nobody
    /// writes into them: what Python compiles is a new file that takes the old one's name.
    pub fn put_into(&self, folder: &Path) {
        let to = folder.join(self.local);
        let copy = |how: &str| Command::new("cp").arg(how).arg(&self.from).arg(&to).output().unwrap().status.success();
        let is_there = copy("-al") || {
            let _partly = std::fs::remove_dir_all(&to);
            copy("-a")
        };
        assert!(is_there, "the packages could not be copied to {}", to.display());
    }
}

/// A copy of an example with its packages; `None` (and said) where they are not installed.
fn prepared(rig: &Rig, test: &str, name: &str, kind: Kind, port: u16) -> Option<PathBuf> {
    let Some(packages) = Packages::installed(kind) else {
        skip(test, &format!("the {} packages are not installed (.ci/run installs them)", kind.name));
        return None;
    };
    let folder = rig.work.join(name);
    copy_tree(&example(name), &folder, port);
    packages.put_into(&folder);
    Some(folder)
}

/// A child that a failing test does not leave behind.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An MCP client on the supervisor's own standard input and output.
struct Client {
    server: Guard,
    answers: std::io::Lines<BufReader<std::process::ChildStdout>>,
    asked: u64,
}

impl Client {
    fn connect(rig: &Rig, file: &Path) -> Client {
        let mut child = rig
            .command(["run".as_ref(), file.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Client { server: Guard(child), answers, asked: 0 }
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.server.0.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}));
        let line = self.answers.next().expect("an answer before the end").unwrap();
        let answer: Value = serde_json::from_str(&line).expect("nothing but the protocol on standard output");
        assert_eq!(answer["id"], self.asked, "{answer}");
        answer["result"].clone()
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    /// Closes its input; its exit code.
    fn close(mut self) -> Option<i32> {
        drop(self.server.0.stdin.take());
        assert!(self.answers.next().is_none(), "nothing comes after the last answer");
        self.server.0.wait().unwrap().code()
    }
}

/// A client that has said hello.
fn greeted(rig: &Rig, file: &Path) -> Client {
    let mut client = Client::connect(rig, file);
    let hello =
        json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let greeted = client.ask("initialize", &hello);
    assert_eq!(greeted["serverInfo"]["name"], "secure-filesystem-server", "{greeted}");
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    client
}

#[test]
fn an_mcp_server_in_r3_serves_what_it_may_read_and_writes_nothing() {
    let rig = Rig::new();
    let test = "an_mcp_server_in_r3_serves_what_it_may_read_and_writes_nothing";
    let Some(folder) = prepared(&rig, test, "03-mcp-server", NODE, 8099) else { return };
    let shopping = folder.join("shared/shopping.txt");
    let before = fs::read_to_string(&shopping).unwrap();
    let mut client = greeted(&rig, &folder.join("agent.yaml"));
    let tools = client.ask("tools/list", &json!({}));
    let names: Vec<&str> = tools["tools"].as_array().unwrap().iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"read_text_file") && names.contains(&"write_file"), "{names:?}");
    let path = json!({"path": shopping.to_str().unwrap()});
    let read = client.call("read_text_file", &path);
    assert_eq!(read["content"][0]["text"], before, "{read}");
    let write = client.call("write_file", &json!({"path": shopping.to_str().unwrap(), "content": "nothing"}));
    assert_eq!(write["isError"], true, "{write}");
    let created = client.call("create_directory", &json!({"path": folder.join("shared/new").to_str().unwrap()}));
    assert_eq!(created["isError"], true, "{created}");
    let outside = client.call("read_text_file", &json!({"path": "/etc/hostname"}));
    assert_eq!(outside["isError"], true, "{outside}");
    assert_eq!(client.close(), Some(0));
    assert_eq!(fs::read_to_string(&shopping).unwrap(), before);
    assert!(!folder.join("shared/new").exists());
}

#[test]
fn an_mcp_server_named_with_npx_or_by_its_shim_is_node_itself() {
    let rig = Rig::new();
    let test = "an_mcp_server_named_with_npx_or_by_its_shim_is_node_itself";
    let Some(folder) = prepared(&rig, test, "03-mcp-server", NODE, 8099) else { return };
    let file = folder.join("agent.yaml");
    let text = fs::read_to_string(&file).unwrap();
    for words in [
        "[npx, -y, \"@modelcontextprotocol/server-filesystem\", shared]",
        "[node_modules/.bin/mcp-server-filesystem, shared]",
    ] {
        let lines = text
            .lines()
            .map(|line| if line.starts_with("command:") { format!("command: {words}") } else { line.to_owned() });
        fs::write(&file, lines.collect::<Vec<String>>().join("\n")).unwrap();
        let mut client = greeted(&rig, &file);
        let read = client.call("read_text_file", &json!({"path": "shopping.txt"}));
        assert!(read["content"][0]["text"].as_str().unwrap().contains("kernel"), "{words}: {read}");
        assert_eq!(client.close(), Some(0), "{words}");
    }
}

/// The example's stand-in for a model, ready when it has said so.
fn model(folder: &Path) -> Guard {
    let mut child = Command::new("python3").arg(folder.join("model.py")).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let guard = Guard(child);
    assert!(line.contains("listening"), "{line}");
    guard
}

fn run_python_agent(rig: &Rig, folder: &Path) -> Outcome {
    let (agent, operator) = (folder.join("agent.yaml"), folder.join("operator.yaml"));
    only_its_owner_writes(&operator);
    only_its_owner_writes(&folder.join("prices.yaml"));
    only_its_owner_reads(&folder.join("model.key"));
    rig.output(["run".as_ref(), agent.as_os_str(), "--operator".as_ref(), operator.as_os_str()])
}

#[test]
fn a_python_agent_in_r2_does_its_task_with_a_model_outside() {
    let rig = Rig::new();
    let test = "a_python_agent_in_r2_does_its_task_with_a_model_outside";
    let Some(folder) = prepared(&rig, test, "02-python-agent", PYTHON, free_port()) else { return };
    let model = model(&folder);
    let outcome = run_python_agent(&rig, &folder);
    assert_eq!(outcome.code, 0, "{}\n{}", outcome.stdout, outcome.stderr);
    let summary = fs::read_to_string(folder.join("summary.txt")).unwrap();
    assert_eq!(summary, "3 things to do, first: call the plumber\n");
    drop(model);
    fs::remove_file(folder.join("summary.txt")).unwrap();
    let without = run_python_agent(&rig, &folder);
    assert_ne!(without.code, 0, "without its model it can't have done anything: {}", without.stdout);
    assert!(!folder.join("summary.txt").exists());
}

#[test]
fn the_model_needs_the_operators_line() {
    let rig = Rig::new();
    let test = "the_model_needs_the_operators_line";
    let Some(folder) = prepared(&rig, test, "02-python-agent", PYTHON, free_port()) else { return };
    let outcome = rig.output(["run".as_ref(), folder.join("agent.yaml").as_os_str()]);
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("models: [openai]"), "{}", outcome.stderr);
    assert!(!rig.state.exists(), "nothing was started");
}
