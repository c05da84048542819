//! The questions of `why`: what a file as it stands now would come to for a path, a call or a destination.
//!
//! The plan is resolved and compiled as for a launch, and asked. Where the answer is no, the file is resolved again with the one line
//! more that asks for it: what the resolver then says is what would have to be written, and by whom.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agt_rings::Ring;
use agt_rings::builtin::OWN_ID_BASE;
use agt_rings::plan::Plan;
use agt_rings::probe::outlook::outlook;
use agt_rings::spec::Access;
use serde_json::{Value, json};

use super::asked_about::{Named, Source, source};
use super::check::{config_failure, surroundings};
use super::why::ring_words;
use super::{Failure, Outcome, dirs, print, show};
use crate::cli::Global;
use crate::config::plan::is_file_of_ours;
use crate::config::spec::HostPort;
use crate::config::{self, AgentPlan, ConfigError, Surroundings, Wish, grant};
use crate::denials::advice;
use crate::denials::view::{self, Mode, Verdict};
use crate::denials::words;
use crate::driver::launching::in_full;
use crate::driver::streams::escaped;
use crate::exit;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// Reading or writing a path.
    Path { path: PathBuf, access: Access },
    /// A system call.
    Call(String),
    /// A connection.
    Connect(HostPort),
}

pub(super) fn access(write: bool) -> Access {
    if write { Access::Write } else { Access::Read }
}

/// What would have to be written, and by whom.
#[derive(Debug, Default)]
struct Remedy {
    /// Lines of agent.yaml.
    agent_yaml: Option<String>,
    /// The block for the operator's file.
    operator: Option<String>,
    /// What else there is to say, above all why nothing helps.
    text: Option<String>,
}

/// The file that is asked about, and what it comes to.
struct Subject {
    source: Source,
    around: Surroundings,
    plan: AgentPlan,
    compiled: Plan,
}

/// Asks; 0 = it would be allowed, 1 = it would not, or no plan can tell.
pub(super) fn ask(global: &Global, who: &str, operator: Option<&Path>, question: &Question) -> Outcome {
    let subject = subject(global, who, operator)?;
    let (words, verdict) = subject.judge(question)?;
    let remedy = match &verdict {
        Verdict::Allowed { .. } | Verdict::Unknown { .. } => Remedy::default(),
        Verdict::Denied { rule, .. } if rule == view::OTHER_PROCESS => {
            Remedy { text: Some("no line can: each process is its own".to_owned()), ..Remedy::default() }
        }
        Verdict::Denied { rule, .. } if rule == view::PROTECTED => subject.unprotected(question),
        Verdict::Denied { rule, .. } if rule == view::DENY => {
            Remedy { text: Some("the agent's own file denies it: `files.deny`".to_owned()), ..Remedy::default() }
        }
        Verdict::Denied { .. } => subject.remedy(question),
    };
    let name = subject.plan.name();
    if global.json {
        show::json(&as_json(&subject, &words, &verdict, &remedy))?;
    } else {
        print(&(as_text(name, subject.plan.ceiling, &words, &verdict, &remedy) + &subject.asked_of()));
    }
    Ok(match verdict {
        Verdict::Allowed { .. } => 0,
        Verdict::Denied { .. } | Verdict::Unknown { .. } => exit::NO,
    })
}

fn subject(global: &Global, who: &str, operator: Option<&Path>) -> Result<Subject, Failure> {
    let around = surroundings(&dirs(global)?)?;
    let source = source(global, who, operator)?;
    if !is_file_of_ours(&source.file) {
        let file = source.file.display();
        let text =
            format!("{} was started without a file, so there is no plan to ask: it is known by {file}", escaped(who));
        return Err(Failure::usage(text)
            .help("write its agent.yaml (`agt-supervise learn -- COMMAND` proposes one) and name that"));
    }
    if let (Named::AtLaunch, Some(gone)) = (source.named, source.operator.as_deref().filter(|file| !file.exists())) {
        let text = format!(
            "{} was last launched with the operator's file {}, which is not there",
            escaped(who),
            gone.display()
        );
        return Err(Failure::usage(text).help("name the one that counts now: --operator FILE"));
    }
    let operator = source.operator.as_deref();
    let plan =
        config::load_agent(&source.file, &around, operator, &source.overrides).map_err(|e| config_failure(&e))?;
    let compiled = compiled(&plan)?;
    Ok(Subject { source, around, plan, compiled })
}

/// As a launch at its ceiling would have it, but for the environment, whose secrets are nothing to a question.
fn compiled(plan: &AgentPlan) -> Result<Plan, Failure> {
    let mut bare = plan.clone();
    bare.env.clear();
    let mut spec = bare.launch_spec(plan.ceiling).map_err(|e| Failure::of(exit::BUG, &e))?;
    spec.own_id = OWN_ID_BASE;
    let spec = plan.as_it_stands(spec);
    let judged = outlook(&[spec]).map_err(|e| Failure::new(exit::UNAVAILABLE, in_full(&e)))?;
    match judged.into_iter().next() {
        Some(Ok(plan)) => Ok(plan),
        Some(Err(refused)) => {
            Err(Failure::new(exit::UNAVAILABLE, format!("`run` would refuse it on this host: {refused}"))
                .help("`agt-supervise doctor` shows what works here"))
        }
        None => Err(Failure::new(exit::BUG, "the launcher has compiled nothing")),
    }
}

/// Who may read and write what is there; `None` where nothing is, or nobody can tell.
pub(super) fn mode(path: &Path) -> Option<Mode> {
    let found = path.metadata().ok()?;
    Some(Mode { bits: found.mode(), uid: found.uid(), gid: found.gid() })
}

impl Subject {
    /// The operator's file that counts, and `None` where there is none.
    fn operator_file(&self) -> Option<&Path> {
        let default = || Some(self.around.operator_file.as_path()).filter(|file| file.symlink_metadata().is_ok());
        self.source.operator.as_deref().or_else(default)
    }

    /// What was asked, for people: whoever reads a no has to know by which files.
    fn asked_of(&self) -> String {
        let of = match self.source.named {
            Named::Typed => ", as named",
            Named::AtLaunch => ", that of its last launch",
            Named::Nowhere => ", the default one",
        };
        let operator = match self.operator_file() {
            Some(file) => format!("the operator's file {}{of}", escaped(&file.display().to_string())),
            None => "no operator's file".to_owned(),
        };
        format!("  asked: {}, with {operator}\n", escaped(&self.source.file.display().to_string()))
    }

    /// A path as it is meant, links resolved.
    fn settled(&self, path: &Path) -> PathBuf {
        let path = self.plan.workdir.join(path);
        // What is behind the names there is each process's own.
        if path.starts_with("/proc") { path } else { config::settled(&path) }
    }

    fn judge(&self, question: &Question) -> Result<(String, Verdict), Failure> {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Ok(match question {
            Question::Path { path, access } => {
                let real = self.settled(path);
                let verb = if *access == Access::Write { "write" } else { "read" };
                let verdict = view::path(&self.compiled, &real, *access, mode(&real), own);
                (format!("{verb} {}", escaped(&real.display().to_string())), verdict)
            }
            Question::Call(call) => {
                let (ring, compiled) = (self.plan.ceiling, &self.compiled);
                let of_ring = || view::filter_options(ring, compiled.namespaces);
                let options = compiled.filter_options.or_else(of_ring);
                let verdict = options.and_then(|options| view::call(ring, &options, call)).ok_or_else(|| {
                    let text = format!("there is no system call `{}` here", escaped(call));
                    Failure::usage(text).help("the name is that of section 2 of the manual: openat, connect, ptrace")
                })?;
                (call.clone(), verdict)
            }
            Question::Connect(to) => (format!("connect {to}"), view::connect(&self.plan, self.plan.ceiling, to)),
        })
    }

    /// The line that opens a never-writable name: an operator's, and for the agent's own file there is none.
    fn unprotected(&self, question: &Question) -> Remedy {
        let Question::Path { path, .. } = question else { return Remedy::default() };
        let (path, file) = (self.settled(path), self.plan.identity.source.clone());
        if path == file {
            return Remedy { text: Some("no line opens an agent's own file to it".to_owned()), ..Remedy::default() };
        }
        // The mask stands at the name itself or at the folder that it is in: that is what has to be opened.
        let masked = self.compiled.protected().filter(|masked| path.starts_with(masked));
        let path = masked.max_by_key(|masked| masked.components().count()).map_or(path.clone(), Path::to_path_buf);
        self.granted(None, grant::Right::Writable(path))
    }

    /// The operator's block for a right.
    fn granted(&self, agent_yaml: Option<String>, right: grant::Right) -> Remedy {
        let operator_file = self.source.operator.clone().unwrap_or_else(|| self.around.operator_file.clone());
        let (agent, file) = (self.plan.name().to_owned(), self.plan.identity.source.clone());
        let grant = grant::Grant { agent, file, operator_file, right };
        Remedy { agent_yaml, operator: grant::yaml_block(std::iter::once(&grant)), text: None }
    }

    /// A sandbox of its own, or the ring that has the call.
    fn call_remedy(&self, call: &str) -> Remedy {
        let (ring, none) = (self.plan.ceiling, [0; 6]);
        let arch = agt_rings::seccomp::Arch::native().map_or_else(String::new, |arch| arch.to_string());
        match (advice::ring_that_allows(call, &arch, none, ring), advice::sandbox_ring(call, &arch, none, ring)) {
            (None | Some(Ring::R0), Some(with)) => {
                let line = "nested_sandbox: on";
                let lines = if with == ring { line.to_owned() } else { format!("ring: {}\n{line}", with.number()) };
                self.granted(Some(lines), grant::Right::NestedSandbox)
            }
            (Some(above), _) => Remedy {
                agent_yaml: Some(format!("ring: {}", above.number())),
                operator: None,
                text: Some(format!("{above} allows it, with all else that it allows, and takes more trust")),
            },
            (None, None) => Remedy { text: Some("no ring allows it".to_owned()), ..Remedy::default() },
        }
    }

    fn remedy(&self, question: &Question) -> Remedy {
        let wish = match question {
            Question::Path { path, access } => Wish::File(self.settled(path), *access),
            Question::Connect(to) => Wish::Network(to.clone()),
            Question::Call(call) => return self.call_remedy(call),
        };
        let ring_first = self.plan.ceiling == Ring::R3 && !matches!(wish, Wish::File(_, Access::Read));
        let Source { file, operator, overrides, .. } = &self.source;
        let wishes = std::slice::from_ref(&wish);
        let loaded = config::load_agent_with(file, &self.around, operator.as_deref(), overrides, wishes);
        let line = Some(wish.line());
        match loaded {
            Ok(plan) => {
                // The line alone does not help where something else stands in the way.
                let still = match (question, compiled(&plan)) {
                    (Question::Path { path, access }, Ok(compiled)) => {
                        let real = self.settled(path);
                        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
                        view::path(&compiled, &real, *access, mode(&real), own)
                    }
                    _ => Verdict::Allowed { by: String::new() },
                };
                match still {
                    Verdict::Allowed { .. } | Verdict::Unknown { .. } => {
                        Remedy { agent_yaml: line, ..Remedy::default() }
                    }
                    Verdict::Denied { why, .. } => {
                        Remedy { text: Some(format!("no line helps: {why}")), ..Remedy::default() }
                    }
                }
            }
            Err(_) if ring_first => Remedy {
                agent_yaml: Some(format!("ring: 2\n{}", wish.line())),
                operator: None,
                text: Some("R3 writes nothing but its private HOME and TMPDIR, and has no network".to_owned()),
            },
            Err(error) => from_problems(&error, line),
        }
    }
}

/// What the resolver says to the line.
fn from_problems(error: &ConfigError, line: Option<String>) -> Remedy {
    let problems = error.report().map(|report| report.problems.as_slice()).unwrap_or_default();
    let operator = grant::yaml_block(problems.iter().filter_map(|problem| problem.grant.as_ref()));
    let rest: Vec<String> = problems
        .iter()
        .filter(|problem| problem.grant.is_none())
        .map(|problem| match &problem.help {
            Some(help) => format!("{} ({help})", problem.message),
            None => problem.message.clone(),
        })
        .collect();
    let text = (!rest.is_empty()).then(|| rest.join("; "));
    Remedy { agent_yaml: line.filter(|_| rest.is_empty()), operator, text }
}

fn as_json(subject: &Subject, words: &str, verdict: &Verdict, remedy: &Remedy) -> Value {
    let answer = match verdict {
        Verdict::Allowed { by } => json!({ "answer": "allowed", "by": by }),
        Verdict::Unknown { why } => json!({ "answer": "unknown", "why": why }),
        Verdict::Denied { layer, rule, errno, why } => json!({
            "answer": "denied",
            "layer": layer,
            "rule": rule,
            "errno": words::errno(*errno),
            "why": why,
            "allow": { "agent_yaml": remedy.agent_yaml, "operator": remedy.operator, "text": remedy.text },
            "retry": false,
        }),
    };
    let mut value = json!({
        "agent": subject.plan.name(),
        "file": subject.source.file,
        "operator_file": subject.operator_file(),
        "operator_named": subject.source.named.word(),
        "ring": subject.plan.ceiling,
        "question": words,
    });
    if let (Some(all), Some(answer)) = (value.as_object_mut(), answer.as_object()) {
        all.extend(answer.clone());
    }
    value
}

fn as_text(name: &str, ring: Ring, words: &str, verdict: &Verdict, remedy: &Remedy) -> String {
    match verdict {
        Verdict::Allowed { by } => format!("allowed: {words}   {name} ({})\n  {}\n", ring_words(ring), escaped(by)),
        Verdict::Unknown { why } => format!("unknown: {words}   {name} ({})\n  {}\n", ring_words(ring), escaped(why)),
        Verdict::Denied { layer, rule, errno, why } => {
            let mut text = format!(
                "denied: {words}   {name} ({})\n  {layer}, rule {rule}, answered with {}: {}\n",
                ring_words(ring),
                words::errno(*errno),
                escaped(why)
            );
            let indented = |block: &str| block.lines().map(|line| format!("    {line}\n")).collect::<String>();
            if let Some(lines) = &remedy.agent_yaml {
                text.push_str(&format!("  to allow it, in its agent.yaml:\n{}", indented(lines)));
            }
            if let Some(block) = &remedy.operator {
                text.push_str(&format!("  {block}\n"));
            }
            if let Some(words) = &remedy.text {
                text.push_str(&format!("  {}\n", escaped(words)));
            }
            text
        }
    }
}
