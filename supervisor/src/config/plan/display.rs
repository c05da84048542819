//! A plan in words: one line for `run`, a page for `check`.

use std::fmt;
use std::fmt::Write as _;

use agt_rings::Ring;
use agt_rings::spec::{Access, Limits, User};

use super::{AgentPlan, EnvValue, HIDDEN_VALUE, joined};
use crate::config::diagnostic::harmless;
use crate::config::spec::RestartPolicy;
use crate::config::units::{ByteSize, Cpu};

impl AgentPlan {
    /// `researcher  R2  memory 1GiB  cpu 100%  tasks 256  9 file rules  net 127.0.0.1:8099`.
    #[must_use]
    pub fn summary(&self, ring: Ring) -> String {
        let mut line = format!("{}  {ring}  {}", self.identity.name, limits(&self.limits_at(ring)));
        let rules = self.files_at(ring).len();
        let _ = write!(line, "  {rules} file rule{}", if rules == 1 { "" } else { "s" });
        let ways: Vec<String> = self.forwards_at(ring).iter().map(|forward| forward.target.to_string()).collect();
        let network = match (ring, ways.is_empty()) {
            (Ring::R0, _) => "host".to_owned(),
            (_, true) => "none".to_owned(),
            (_, false) => joined(&ways),
        };
        let _ = write!(line, "  net {network}");
        line
    }
}

fn limits(limits: &Limits) -> String {
    let memory = limits.memory_bytes.map_or("host".to_owned(), |bytes| ByteSize(bytes).to_string());
    let cpu = limits.cpu_millis.map_or("host".to_owned(), |millis| Cpu(millis).to_string());
    let tasks = limits.tasks.map_or("host".to_owned(), |tasks| tasks.to_string());
    format!("memory {memory}  cpu {cpu}  tasks {tasks}")
}

impl fmt::Display for AgentPlan {
    /// What `check` prints: everything that was decided, nothing secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary(self.ceiling))?;
        // What an agent.yaml says is printed as text that can't act on the terminal.
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<12} {}", harmless(&value));
        row("from", self.identity.source.display().to_string())?;
        row("program", self.program.display().to_string())?;
        row("arguments", joined(&self.argv))?;
        row("workdir", self.workdir.display().to_string())?;
        let user = match self.user {
            User::Own => "its own".to_owned(),
            User::Fixed { uid, gid } => format!("uid {uid}, gid {gid}"),
        };
        row("user", user)?;
        for rule in self.files_at(self.ceiling) {
            let access = match rule.access {
                Access::Read => "read",
                Access::Write => "write",
            };
            row(access, rule.path.display().to_string())?;
        }
        for path in &self.protect {
            row("read-only", path.display().to_string())?;
        }
        for path in &self.sockets {
            row("covered", format!("the socket {}", path.display()))?;
        }
        for forward in self.forwards_at(self.ceiling) {
            row("network", format!("tcp {} as {} inside", forward.target, forward.listen))?;
        }
        for (name, value) in &self.env {
            let value = match value {
                EnvValue::Plain(text) if name == "PATH" || name == "LANG" => text.clone(),
                EnvValue::Plain(_) => HIDDEN_VALUE.to_owned(),
                EnvValue::Secret(_) => "[secret, from the environment]".to_owned(),
                EnvValue::SecretFile(path) => format!("[secret, from {}]", path.display()),
            };
            row("env", format!("{name}={value}"))?;
        }
        let restart = &self.restart;
        let policy = match restart.policy {
            RestartPolicy::Never => "never".to_owned(),
            RestartPolicy::OnFailure => format!("on failure, {} times in {}", restart.attempts, restart.window),
            RestartPolicy::Always => format!("always, {} times in {}", restart.attempts, restart.window),
        };
        row("restart", policy)?;
        row("plan", self.hash().to_string())?;
        for refusal in &self.needs_attestation {
            row("attestation", format!("needed: {}", refusal.message))?;
        }
        for note in &self.notes {
            row("note", note.clone())?;
        }
        for gap in &self.gaps {
            row("gap", gap.reason.clone())?;
        }
        Ok(())
    }
}
