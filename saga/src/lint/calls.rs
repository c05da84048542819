//! What a step, its probe and its undo do, resolved; keys that mean nothing for their kind.

use std::collections::BTreeSet;

use super::problem::{Path, ProblemKind};
use super::resolve::Linter;
use crate::plan::{Approval, Body, Call, Delegate, Http, Mcp, SubSaga, Wait};
use crate::spec::{
    AgentSpec, ApprovalSpec, BodySpec, CheckSpec, CompensateSpec, EffectsSpec, HttpSpec, McpSpec, StepSpec, SubSagaSpec,
};

/// What stands in a file where a call can.
#[derive(Default)]
struct Said<'a> {
    command: &'a [String],
    http: Option<&'a HttpSpec>,
    mcp: Option<&'a McpSpec>,
    agent: Option<&'a AgentSpec>,
    saga: Option<&'a SubSagaSpec>,
}

impl Linter<'_> {
    pub(super) fn call(&mut self, at: usize, spec: &StepSpec) -> Call {
        let path = self.shape.paths[at].clone();
        let kinds = kinds(spec);
        if kinds.len() > 1 {
            self.report(path.clone(), ProblemKind::SeveralKinds { kinds });
        }
        let call = if let Some(limit) = spec.wait {
            Call::Wait(Wait { ms: self.milliseconds(limit, path.key("wait")) })
        } else if let Some(approval) = &spec.approval {
            self.approval(approval, &path.key("approval"))
        } else {
            let said = Said {
                command: &spec.command,
                http: spec.http.as_ref(),
                mcp: spec.mcp.as_ref(),
                agent: spec.agent.as_ref(),
                saga: spec.saga.as_ref(),
            };
            self.effect(at, &said, &path, path.key("command"))
        };
        for key in meaningless(spec, &call) {
            self.report(path.key(key), ProblemKind::NotForKind { key, kind: call.kind() });
        }
        call
    }

    pub(super) fn probe_call(&mut self, at: usize, spec: &CheckSpec, path: &Path) -> Call {
        let (http, mcp) = (spec.http.as_ref(), spec.mcp.as_ref());
        let said = Said { command: &spec.command, http, mcp, ..Said::default() };
        self.one_kind(&said, path);
        self.effect(at, &said, path, path.clone())
    }

    pub(super) fn undo_call(&mut self, at: usize, spec: &CompensateSpec, path: &Path) -> Call {
        let said = Said {
            command: &spec.command,
            http: spec.http.as_ref(),
            mcp: spec.mcp.as_ref(),
            agent: spec.agent.as_ref(),
            saga: spec.saga.as_ref(),
        };
        self.one_kind(&said, path);
        self.effect(at, &said, path, path.key("command"))
    }

    fn one_kind(&mut self, said: &Said<'_>, path: &Path) {
        let kinds = said.kinds();
        if kinds.len() > 1 {
            self.report(path.clone(), ProblemKind::SeveralKinds { kinds });
        }
    }

    /// The first kind that was said; a command where none was.
    fn effect(&mut self, at: usize, said: &Said<'_>, path: &Path, command_path: Path) -> Call {
        if !said.command.is_empty() {
            return Call::Command(self.command(said.command, command_path));
        }
        if let Some(http) = said.http {
            return self.http(at, http, &path.key("http"));
        }
        if let Some(mcp) = said.mcp {
            let path = path.key("mcp");
            self.not_empty(&mcp.tool, "tool", &path);
            let server = self.command(&mcp.server, path.key("server"));
            return Call::Mcp(Mcp { server, tool: mcp.tool.clone() });
        }
        if let Some(agent) = said.agent {
            self.not_empty(&agent.file, "file", &path.key("agent"));
            return Call::Agent(Delegate { file: agent.file.clone() });
        }
        if let Some(saga) = said.saga {
            self.not_empty(&saga.file, "file", &path.key("saga"));
            return Call::Saga(SubSaga { file: saga.file.clone() });
        }
        Call::Command(self.command(said.command, command_path))
    }

    fn command(&mut self, command: &[String], path: Path) -> Vec<String> {
        if command.first().is_none_or(String::is_empty) {
            self.report(path, ProblemKind::EmptyCommand);
        }
        command.to_vec()
    }

    fn not_empty(&mut self, text: &str, key: &'static str, owner: &Path) {
        if text.is_empty() {
            self.report(owner.key(key), ProblemKind::Empty { key });
        }
    }

    fn http(&mut self, at: usize, spec: &HttpSpec, path: &Path) -> Call {
        let method = spec.method.clone().unwrap_or_else(|| "GET".to_owned());
        if method.is_empty() || !method.chars().all(|c| c.is_ascii_uppercase()) {
            self.report(path.key("method"), ProblemKind::Method { method: method.clone() });
        }
        let body = match &spec.body {
            None => Body::None,
            Some(BodySpec::Input(name)) => Body::Input(name.clone()),
            Some(BodySpec::Inputs(names)) => Body::Inputs(names.clone()),
        };
        let (url, query, headers) = (spec.url.clone(), spec.query.clone(), spec.headers.clone());
        let http = Http { method, url, query, headers, body };
        let is_url = ["http://", "https://"].iter().any(|scheme| {
            // The host stands there for everybody to read: no input decides whom a saga talks to.
            let host = http.url.strip_prefix(scheme).map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
            host.is_some_and(|host| !host.is_empty() && !host.contains(['{', '}']))
        });
        match http.placeholders().filter(|_| is_url) {
            None => self.report(path.key("url"), ProblemKind::Url { url: spec.url.clone() }),
            Some(names) => names.into_iter().for_each(|name| self.known_input(at, name, path.key("url"))),
        }
        for (key, name) in &spec.query {
            self.known_input(at, name, path.key("query").key(key));
        }
        match &spec.body {
            None => {}
            Some(BodySpec::Input(name)) => self.known_input(at, name, path.key("body")),
            Some(BodySpec::Inputs(names)) => {
                names.iter().for_each(|name| self.known_input(at, name, path.key("body")));
            }
        }
        Call::Http(http)
    }

    fn known_input(&mut self, at: usize, name: &str, path: Path) {
        let inputs = &self.spec.steps.list[at].inputs;
        if !inputs.contains_key(name) {
            let candidates = inputs.keys().cloned().collect();
            self.report(path, ProblemKind::NoSuchInput { name: name.to_owned(), candidates });
        }
    }

    fn approval(&mut self, spec: &ApprovalSpec, path: &Path) -> Call {
        let quorum = spec.quorum.unwrap_or(1);
        let most = if spec.who.is_empty() { usize::MAX } else { spec.who.len() };
        if quorum == 0 || usize::try_from(quorum).is_ok_and(|quorum| quorum > most) {
            self.report(path.key("quorum"), ProblemKind::Quorum { quorum, of: spec.who.len() });
        }
        let mut seen = BTreeSet::new();
        for (number, name) in spec.who.iter().enumerate() {
            if name.is_empty() {
                self.report(path.key("who").index(number), ProblemKind::Empty { key: "who" });
            } else if !seen.insert(name) {
                self.report(path.key("who").index(number), ProblemKind::NamedTwice { name: name.clone() });
            }
        }
        let timeout_ms = spec.timeout.map(|limit| self.milliseconds(limit, path.key("timeout")));
        Call::Approval(Approval { who: spec.who.clone(), quorum, ask: spec.ask.clone(), timeout_ms })
    }
}

impl Said<'_> {
    fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            ("command", !self.command.is_empty()),
            ("http", self.http.is_some()),
            ("mcp", self.mcp.is_some()),
            ("agent", self.agent.is_some()),
            ("saga", self.saga.is_some()),
        ];
        kinds.into_iter().filter_map(|(kind, said)| said.then_some(kind)).collect()
    }
}

fn kinds(spec: &StepSpec) -> Vec<&'static str> {
    let (http, mcp, agent) = (spec.http.as_ref(), spec.mcp.as_ref(), spec.agent.as_ref());
    let mut kinds = Said { command: &spec.command, http, mcp, agent, saga: spec.saga.as_ref() }.kinds();
    kinds.extend(spec.wait.map(|_| "wait"));
    kinds.extend(spec.approval.as_ref().map(|_| "approval"));
    kinds
}

/// The keys that a step of this kind has no use for.
fn meaningless(spec: &StepSpec, call: &Call) -> Vec<&'static str> {
    let own = matches!(call, Call::Wait(_) | Call::Approval(_));
    let process = matches!(call, Call::Command(_) | Call::Mcp(_));
    let said = [
        ("ring", spec.ring.is_some(), !own && !matches!(call, Call::Http(_))),
        ("workdir", spec.workdir.is_some(), process),
        ("env", !spec.env.is_empty(), process),
        ("secrets", !spec.secrets.is_empty(), !own && !matches!(call, Call::Saga(_))),
        ("inputs", !spec.inputs.is_empty(), !own),
        ("each", spec.each.is_some(), !own),
        ("output_schema", spec.output_schema.is_some(), !own),
        ("timeout", spec.timeout.is_some(), !own),
        ("retry", spec.retry.is_some(), !own),
        ("idempotent", spec.idempotent, !own),
        ("class", spec.class.is_some(), !own),
        ("effects", spec.effects == EffectsSpec::Files, !own),
        ("on_unknown", spec.on_unknown.is_some(), !own),
        ("check", spec.check.is_some(), !own),
        ("probe", spec.probe.is_some(), !own),
        ("compensate", spec.compensate.is_some(), !own),
        ("undo", spec.undo.is_some(), !own),
        ("pivot", spec.pivot, !own),
    ];
    said.into_iter().filter_map(|(key, is_said, means)| (is_said && !means).then_some(key)).collect()
}
