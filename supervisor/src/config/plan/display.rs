//! A plan in words: one line for `run`, a page for `check`.

use std::fmt;
use std::fmt::Write as _;

use agt_rings::Ring;
use agt_rings::spec::{Access, Limits, User};
use agt_sre::slo::DEFAULT_PERIOD;
use agt_sre::spec::{Limit, SloSpec};

use super::{AgentPlan, EnvValue, HIDDEN_VALUE, Way, joined};
use crate::config::diagnostic::harmless;
use crate::config::spec::{Environment, NestedSpec, RestartPolicy, Stdio};
use crate::config::units::{ByteSize, Cpu, Span};

impl AgentPlan {
    /// `researcher  R2  memory 1GiB  cpu 100%  tasks 256  9 file rules  net 127.0.0.1:8099`.
    #[must_use]
    pub fn summary(&self, ring: Ring) -> String {
        let mut line = format!("{}  {ring}  {}", self.identity.name, limits(&self.limits_at(ring)));
        let rules = self.files_at(ring).len();
        let _ = write!(line, "  {rules} file rule{}", if rules == 1 { "" } else { "s" });
        let ways = self.destinations_at(ring);
        let network = match (ring, ways.is_empty()) {
            (Ring::R0, _) => "host".to_owned(),
            (_, true) => "none".to_owned(),
            (_, false) => joined(&ways),
        };
        let _ = write!(line, "  net {network}");
        line
    }

    /// What `check` prints: everything that was decided, nothing secret. `user` is what this host makes of the plan's user,
    /// where that is known.
    #[must_use]
    pub fn page(&self, user: Option<&str>) -> String {
        let mut page = Page(format!("{}\n", self.summary(self.ceiling)));
        page.row("from", self.identity.source.display());
        page.row("program", self.program.display());
        page.row("arguments", joined(&self.argv));
        page.row("workdir", self.workdir.display());
        page.row("user", user.map_or_else(|| self.user_in_words(), str::to_owned));
        self.view(&mut page);
        self.environment_rows(&mut page);
        self.life(&mut page);
        self.judgement(&mut page);
        page.row("plan", self.hash());
        for refusal in &self.needs_attestation {
            page.row("attestation", format!("needed: {}", refusal.message));
        }
        self.notes.iter().for_each(|note| page.row("note", note));
        self.gaps.iter().for_each(|gap| page.row("gap", &gap.reason));
        page.0
    }

    /// Whose uid it has, as far as the plan alone tells.
    fn user_in_words(&self) -> String {
        let uid = self.identity.uid;
        match self.user {
            User::Fixed { uid, gid } => format!("uid {uid}, gid {gid}"),
            User::Own if self.ceiling == Ring::R0 => format!("uid {uid}, as whoever starts it"),
            User::Own if uid != 0 => format!("uid {uid}: an ordinary user's supervisor has no other to give"),
            User::Own => "its own".to_owned(),
        }
    }

    fn view(&self, page: &mut Page) {
        for rule in self.files_at(self.ceiling) {
            let access = match rule.access {
                Access::Read => "read",
                Access::Write => "write",
            };
            page.row(access, rule.path.display());
        }
        self.protect.iter().for_each(|path| page.row("read-only", path.display()));
        self.sockets.iter().for_each(|path| page.row("covered", format!("the socket {}", path.display())));
        self.deny.iter().for_each(|pattern| page.row("denied", pattern));
        self.denied.iter().for_each(|path| page.row("hidden", path.display()));
        for forward in self.forwards_at(self.ceiling) {
            page.row("network", format!("tcp {} as {} inside", forward.target, forward.listen));
        }
        for way in self.openings_at(self.ceiling) {
            match way.way {
                Way::Forward(_) => {}
                Way::Proxy => page.row("network", format!("HTTP proxy at {} inside", way.listen)),
                Way::Models => page.row("network", format!("model routes alone, at {} inside", way.listen)),
                Way::Socks => page.row("network", format!("SOCKS5 at {} inside", way.listen)),
            }
        }
        self.ways_at(self.ceiling).iter().for_each(|(row, to)| page.row(row, to));
        for port in self.ports_at(self.ceiling) {
            page.row("shows", format!("its port {} at {}", port.port, port.listen));
        }
        self.models.in_words().iter().for_each(|route| page.row("model", route));
        self.models.in_r3_in_words().iter().for_each(|kept| page.row("models in R3", kept));
        if !self.models.is_nothing() {
            page.row("model prices", self.models.prices_in_words());
        }
        self.models.limits_in_words().iter().for_each(|limits| page.row("model limits", limits));
        page.row("requests", self.requests_in_words(self.ceiling));
        let files = self.open_files_at(self.ceiling);
        page.row("open files", files.map_or_else(|| "the host's limit".to_owned(), |files| files.to_string()));
        if self.nested_sandbox == NestedSpec::On {
            page.row(
                "sandboxes",
                "of its own: user, mount, PID and network namespaces and mounts inside them; no Landlock",
            );
        }
        if !self.capabilities.is_empty() {
            page.row("capabilities", joined(&self.capabilities));
        }
    }

    fn environment_rows(&self, page: &mut Page) {
        for (name, value) in &self.env {
            let value = match value {
                EnvValue::Plain(text) if name == "PATH" || name == "LANG" => text.clone(),
                EnvValue::Plain(_) => HIDDEN_VALUE.to_owned(),
                EnvValue::Secret(_) => "[secret, from the environment]".to_owned(),
                EnvValue::SecretFile(path) => format!("[secret, from {}]", path.display()),
            };
            page.row("env", format!("{name}={value}"));
        }
    }

    /// When it is started, looked after and ended.
    fn life(&self, page: &mut Page) {
        let restart = &self.restart;
        let often = || {
            let backoff = &restart.backoff;
            let waits = format!("after {} to {}, {} of it random", backoff.initial, backoff.max, backoff.jitter);
            format!("{} times in {}, {waits}", restart.attempts, restart.window)
        };
        page.row(
            "restart",
            match restart.policy {
                RestartPolicy::Never => "never".to_owned(),
                RestartPolicy::OnFailure => format!("on failure, {}", often()),
                RestartPolicy::Always => format!("always, {}", often()),
            },
        );
        if let Some(health) = &self.health {
            let (what, often) = (health.in_words(), health.interval);
            let (timeout, retries, start) = (health.timeout, health.retries, health.start_period);
            page.row(
                "health",
                format!("{what}: each {often}, for at most {timeout}, unhealthy after {retries}, from {start} on"),
            );
        }
        let times = &self.timeouts;
        let run = times.run.map_or_else(|| "without limit".to_owned(), |span: Span| format!("at most {span}"));
        page.row("timeouts", format!("start {}, run {run}, stop {}", times.start, times.stop));
        let stdio = match self.stdio {
            None => "by context",
            Some(Stdio::Raw) => "raw",
            Some(Stdio::Pty) => "pty",
            Some(Stdio::Prefixed) => "prefixed",
        };
        page.row("stdio", stdio);
        page.row("log", format!("files of {}, {} kept", self.log.max_size, self.log.keep));
        self.labels.iter().for_each(|(name, value)| page.row("label", format!("{name}={value}")));
    }

    /// What it is measured by, and what may be done to it.
    fn judgement(&self, page: &mut Page) {
        self.slos.iter().for_each(|slo| page.row("slo", slo_in_words(slo)));
        if self.chaos.opt_in {
            let faults = &self.chaos.faults;
            let which = if faults.is_empty() { "every fault".to_owned() } else { joined(faults) };
            page.row("chaos", format!("opted in: {which}"));
        } else {
            page.row("chaos", "not opted in");
        }
        page.row(
            "environment",
            match self.environment {
                Environment::Production => "production",
                Environment::Staging => "staging",
                Environment::Dev => "dev",
            },
        );
    }
}

/// `safe: safety 99 % of 30d; below 50 % of the budget demote; trip kill`.
fn slo_in_words(slo: &SloSpec) -> String {
    let period = slo.period.unwrap_or(DEFAULT_PERIOD);
    let mut text = format!("{}: {} {} in {}", slo.name, slo.sli, percent(slo.objective.0), Span(period));
    match slo.threshold {
        Some(Limit::Duration(most)) => text.push_str(&format!(", good up to {}", Span(most))),
        Some(Limit::Number(number)) => text.push_str(&format!(", threshold {number}")),
        None => {}
    }
    for remedy in slo.remedies.iter().flatten() {
        let on = format!("{:?}", remedy.on).to_lowercase();
        let below = remedy.below.map_or_else(String::new, |below| format!(" below {}", percent(below.0)));
        text.push_str(&format!("; {on}{below}: {}", remedy.action));
    }
    if slo.remedies.is_none() {
        text.push_str("; the default remedies");
    }
    text
}

fn percent(share: f64) -> String {
    // 99.9 % has no exact double: what a person wrote is what they read.
    format!("{}%", (share * 1e8).round() / 1e6)
}

/// Rows under each other.
struct Page(String);

impl Page {
    fn row(&mut self, name: &str, value: impl fmt::Display) {
        // What an agent.yaml says is printed as text that can't act on the terminal.
        let _ = writeln!(self.0, "  {name:<12} {}", harmless(&value.to_string()));
    }
}

fn limits(limits: &Limits) -> String {
    let memory = limits.memory_bytes.map_or("host".to_owned(), |bytes| ByteSize(bytes).to_string());
    let cpu = limits.cpu_millis.map_or("host".to_owned(), |millis| Cpu(millis).to_string());
    let tasks = limits.tasks.map_or("host".to_owned(), |tasks| tasks.to_string());
    format!("memory {memory}  cpu {cpu}  tasks {tasks}")
}

impl fmt::Display for AgentPlan {
    /// [`AgentPlan::page`], without a host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.page(None))
    }
}
