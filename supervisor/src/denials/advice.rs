//! What would allow a denied call, by asking the same policy in the other rings.
//!
//! A refused call is no line of a file: a ring is all of its calls. So the answer names the next ring that allows exactly this call with
//! exactly these arguments, what that ring takes, or says that there is none. A name is a line of the operator's file.

use agt_rings::Ring;
use agt_rings::names::lists::GIT_NAMES;
use agt_rings::names::{DENIED, PATH_TOO_LONG, PROTECTED_PATH, STANDING_REPOSITORY, WORKDIR_MOVED};
use agt_rings::seccomp::policy::Decision;
use agt_rings::seccomp::{Arch, Call, Nested, builtin, checks, groups};
use serde::Serialize;

use super::memory::{Denial, Tried};
use super::view::filter_options;
use super::words;
use crate::config::grant::scalar;

/// What would allow something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// The ring that would allow it; `None`: no ring does, or no ring is the answer.
    pub ring: Option<Ring>,
    /// The line of agent.yaml.
    pub agent_yaml: Option<String>,
    /// The line or command of an operator.
    pub operator: Option<String>,
    /// All of that in a sentence.
    pub text: String,
}

impl Advice {
    fn never(text: impl Into<String>) -> Advice {
        Advice { ring: None, agent_yaml: None, operator: None, text: text.into() }
    }
}

/// The most restricted ring above `ring` that lets this call with these arguments through.
#[must_use]
pub fn ring_that_allows(call: &str, arch: &str, args: [u64; 6], ring: Ring) -> Option<Ring> {
    let mut above: Vec<Ring> = Ring::ALL.into_iter().filter(|other| other.is_more_privileged_than(ring)).collect();
    above.sort_by_key(|other| std::cmp::Reverse(other.number()));
    above.into_iter().find(|other| allows(call, arch, args, *other, Nested::Refused))
}

/// The most restricted ring, `ring` or above it, that lets it through to an agent that may build sandboxes of its own.
#[must_use]
pub fn sandbox_ring(call: &str, arch: &str, args: [u64; 6], ring: Ring) -> Option<Ring> {
    let rings = [Ring::R2, Ring::R1].into_iter().filter(|other| !ring.is_more_privileged_than(*other));
    rings.into_iter().find(|other| allows(call, arch, args, *other, Nested::Allowed))
}

fn allows(call: &str, arch: &str, args: [u64; 6], ring: Ring, nested: Nested) -> bool {
    let Some(arch) = Arch::ALL.into_iter().find(|known| known.to_string() == arch).or_else(Arch::native) else {
        return false;
    };
    let (Some(number), Some(mut options)) = (arch.number(call), filter_options(ring, i32::MAX)) else { return false };
    (options.arch, options.nested) = (arch, nested);
    builtin::policy(ring, &options).decide(&Call::new(arch, number, args)) == Decision::Allow
}

/// Why the ring refused it, from the tables that its filter was made from.
#[must_use]
pub fn reason(denial: &Denial) -> String {
    match &denial.tried {
        Tried::Name { pattern, .. } => words::name_rule(pattern),
        Tried::Network { why, .. } => why.clone(),
        Tried::Rate { .. } => {
            "so many a minute may pass through the gateway and on the control socket together; the rest is refused until there is room"
                .to_owned()
        }
        Tried::Call { call, .. } => {
            let Some(group) = groups::of(call) else {
                return "the ring's list does not have it: newer than this program, or no call at all".to_owned();
            };
            if group.refused.in_ring(denial.ring).is_some() {
                return group.why.to_owned();
            }
            let refused: Vec<String> = checks::of(call, denial.ring)
                .map(|rule| format!("refused is {}: {}", rule.refuses, rule.why))
                .collect();
            if refused.is_empty() { group.why.to_owned() } else { refused.join("; ") }
        }
    }
}

/// The name that an operator's list has to have: `**/.vscode` is `.vscode` at any depth, and a repository is opened by its own folder
/// or by the name in it. A rule that is no such pattern is opened by the path itself.
fn opening(path: &str, pattern: &str) -> String {
    if pattern == STANDING_REPOSITORY {
        let last = path.rsplit('/').next().unwrap_or(path).to_lowercase();
        let is_git = last.ends_with(".git") || GIT_NAMES.contains(&&*last);
        return if is_git { path.to_owned() } else { format!("{path}/.git") };
    }
    let name = pattern.trim_start_matches("**/");
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || "*?[{:".contains(c));
    if is_name && pattern != PROTECTED_PATH { name.to_owned() } else { path.to_owned() }
}

/// Whose line it is that would allow something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Whose<'a> {
    /// The name in the operator's file, and of the trust.
    name: &'a str,
    /// What its file is called in a sentence.
    file: &'static str,
    /// A step of a saga: its file has fewer keys.
    is_step: bool,
}

impl<'a> Whose<'a> {
    /// Of an agent's name, or of `SAGA/STEP`: what an operator knows is the saga's name, which its id begins with.
    fn of(agent: &'a str) -> Whose<'a> {
        match agent.split_once('/') {
            Some((saga, _)) => {
                let name = saga.rsplit_once('-').map_or(saga, |(name, _)| name);
                Whose { name, file: "at the step in its saga's file", is_step: true }
            }
            None => Whose { name: agent, file: "in its file", is_step: false },
        }
    }
}

/// What would allow a denial to `agent`, by its name or a step's as `ps` shows it.
#[must_use]
pub fn advice(agent: &str, denial: &Denial) -> Advice {
    let whose = Whose::of(agent);
    let agent = whose.name;
    let (call, arch, args) = match &denial.tried {
        Tried::Name { pattern, .. } if pattern.starts_with(DENIED) => {
            return Advice::never("`files.deny` of the agent's own file would have to say less".to_owned());
        }
        Tried::Name { pattern, .. } if pattern == WORKDIR_MOVED => {
            return Advice::never("no line can: without `files.deny` in its own file it could".to_owned());
        }
        Tried::Name { pattern, .. } if pattern == PATH_TOO_LONG => {
            return Advice::never("no line can: a shorter path is judged by its names".to_owned());
        }
        Tried::Name { path, pattern, .. } => {
            let line = format!("writable: [{}]", scalar(&opening(path, pattern)));
            return Advice {
                ring: None,
                agent_yaml: None,
                text: format!("`{line}` for `agents.{agent}` in the operator's file"),
                operator: Some(line),
            };
        }
        Tried::Network { help, .. } => {
            return match help {
                Some(help) => Advice { ring: None, agent_yaml: None, operator: None, text: help.clone() },
                None => Advice::never("no line can".to_owned()),
            };
        }
        Tried::Rate { per_minute } => return of_rate(whose, *per_minute),
        Tried::Call { call, arch, args, .. } => (call, arch, *args),
    };
    let kind = groups::of(call).map_or("newer than this program", |group| group.name);
    let above = ring_that_allows(call, arch, args, denial.ring);
    // R0 is the host itself: what a narrower line opens is never told to go there.
    if above.is_none_or(|ring| ring == Ring::R0)
        && let Some(ring) = sandbox_ring(call, arch, args, denial.ring)
    {
        return match whose.is_step {
            true => {
                Advice::never("no line can for a step of a saga: an agent with `nested_sandbox: on` builds sandboxes")
            }
            false => of_sandbox(agent, denial.ring, ring),
        };
    }
    match above {
        None => Advice::never(format!("no line can: no ring allows it ({kind})")),
        Some(ring) => of_ring(whose, denial.ring, ring, kind),
    }
}

/// Twice as many requests a minute; nobody knows what it needs.
fn of_rate(whose: Whose<'_>, per_minute: u64) -> Advice {
    if whose.is_step {
        return Advice::never("no line can for a step of a saga: it has its ring's".to_owned());
    }
    let (agent, more) = (whose.name, per_minute.saturating_mul(2));
    let line = format!("limits: {{requests_per_minute: {more}}}");
    Advice {
        ring: None,
        text: format!("`{line}` in its file and for `agents.{agent}` in the operator's file; waiting helps too"),
        agent_yaml: Some(line.clone()),
        operator: Some(line),
    }
}

/// A sandbox of the agent's own: its line and the operator's.
fn of_sandbox(agent: &str, now: Ring, ring: Ring) -> Advice {
    let line = "nested_sandbox: on";
    let file = if ring == now { line.to_owned() } else { format!("ring: {}\n{line}", ring.number()) };
    let words = file.replace('\n', "` and `");
    Advice {
        ring: (ring != now).then_some(ring),
        agent_yaml: Some(file),
        operator: Some(line.to_owned()),
        text: format!(
            "`{words}` in its file, and `{line}` for `agents.{agent}` in the operator's file: sandboxes of its own (bwrap, user namespaces, mounts), which takes Landlock away; SECURITY.md says what that opens"
        ),
    }
}

/// A more privileged ring, with the commands that give its trust.
fn of_ring(whose: Whose<'_>, now: Ring, ring: Ring, kind: &str) -> Advice {
    let Whose { name: agent, file, .. } = whose;
    let needed = match ring {
        Ring::R0 => 950,
        Ring::R1 => 800,
        Ring::R2 | Ring::R3 => 600,
    };
    let trust = format!("agt-supervise trust set {agent} {needed} --reason \"...\"");
    let line = format!("ring: {}", ring.number());
    let (operator, text) = if ring == Ring::R0 {
        let attest = format!("agt-supervise attest {agent} --reason \"...\" --ttl 1h");
        let text = format!(
            "no line can in {now}: only R0 allows it ({kind}), which is the host itself: `{line}` {file}, `{trust}` and `{attest}`"
        );
        (format!("{trust}\n{attest}"), text)
    } else {
        let text = format!(
            "no line can in {now}: {ring} allows it, with all else that it allows: `{line}` {file}, and trust of {needed} (`{trust}`)"
        );
        (trust, text)
    };
    Advice { ring: Some(ring), agent_yaml: Some(line), operator: Some(operator), text }
}

#[cfg(test)]
mod tests {
    use super::super::class::Class;
    use super::*;

    fn arch() -> String {
        Arch::native().map_or_else(String::new, |arch| arch.to_string())
    }

    fn denial(call: &str, args: [u64; 6], ring: Ring) -> Denial {
        let tried = Tried::Call { call: call.to_owned(), arch: arch(), args, argument: None, errno: 1 };
        Denial {
            id: "4f2c".to_owned(),
            tried,
            class: Class::of_call(call),
            ring,
            pid: 7,
            comm: "sh".to_owned(),
            count: 1,
            first_ms: 1,
            last_ms: 1,
        }
    }

    #[test]
    fn the_next_ring_that_allows_exactly_this_call_is_named() {
        let of = |call: &str, args: [u64; 6], ring| advice("a", &denial(call, args, ring)).ring;
        assert_eq!(of("setns", [0; 6], Ring::R2), Some(Ring::R0));
        assert_eq!(of("shmget", [0; 6], Ring::R2), Some(Ring::R1));
        assert_eq!(of("execve", [0; 6], Ring::R3), Some(Ring::R2));
        assert_eq!(of("bpf", [0; 6], Ring::R2), None);
        // A process is R2's, a user namespace is not.
        assert_eq!(of("clone", [17, 0, 0, 0, 0, 0], Ring::R3), Some(Ring::R2));
        assert!(advice("a", &denial("bpf", [0; 6], Ring::R2)).text.contains("no ring allows it"));
    }

    #[test]
    fn a_sandbox_of_its_own_is_opened_by_its_line_and_never_by_the_host_itself() {
        let user_namespace = [0x1000_0011, 0, 0, 0, 0, 0];
        let calls = [("mount", [0; 6]), ("unshare", user_namespace), ("clone", user_namespace), ("pivot_root", [0; 6])];
        for (call, args) in calls {
            for ring in [Ring::R1, Ring::R2] {
                let advice = advice("a", &denial(call, args, ring));
                assert_eq!(advice.agent_yaml.as_deref(), Some("nested_sandbox: on"), "{call} in {ring}");
                assert_eq!((advice.ring, advice.operator.as_deref()), (None, Some("nested_sandbox: on")));
                assert!(advice.text.contains("agents.a") && !advice.text.contains("R0"), "{}", advice.text);
            }
            let advice = advice("a", &denial(call, args, Ring::R3));
            assert_eq!(advice.agent_yaml.as_deref(), Some("ring: 2\nnested_sandbox: on"), "{call}");
            assert!(advice.text.starts_with("`ring: 2` and `nested_sandbox: on` in its file"), "{}", advice.text);
        }
    }

    #[test]
    fn a_step_is_opened_by_its_sagas_lines() {
        let step = |call: &str, ring| advice("refund-1a2b3c4d/ship", &denial(call, [0; 6], ring));
        let text = step("shmget", Ring::R2).text;
        assert!(
            text.contains("`ring: 1` at the step in its saga's file") && text.contains("trust set refund 800"),
            "{text}"
        );
        assert_eq!(step("mount", Ring::R2).agent_yaml, None, "saga.yaml has no such key");
        let tried = Tried::Name { call: "mkdir".into(), path: "/w/.vscode".into(), pattern: "**/.vscode".into() };
        let text = advice("refund-1a2b3c4d/ship", &Denial { tried, ..denial("mkdir", [0; 6], Ring::R2) }).text;
        assert!(text.contains("`agents.refund`"), "{text}");
    }

    #[test]
    fn what_is_advised_can_be_typed_as_it_stands() {
        let text = advice("a", &denial("setns", [0; 6], Ring::R2)).text;
        assert!(text.contains("`agt-supervise trust set a 950 --reason \"...\"`"), "{text}");
        assert!(text.contains("`agt-supervise attest a --reason \"...\" --ttl 1h`"), "{text}");
        let text = advice("a", &denial("shmget", [0; 6], Ring::R2)).text;
        assert!(text.contains("`agt-supervise trust set a 800 --reason \"...\"`"), "{text}");
    }

    #[test]
    fn a_name_is_opened_by_the_operators_word_for_it() {
        let of = |path: &str, pattern: &str| {
            let tried = Tried::Name { call: "mkdir".to_owned(), path: path.to_owned(), pattern: pattern.to_owned() };
            advice("a", &Denial { tried, ..denial("mkdir", [0; 6], Ring::R2) }).operator.unwrap_or_default()
        };
        assert_eq!(of("/w/x/.vscode", "**/.vscode"), "writable: [\".vscode\"]");
        assert_eq!(of("/w/.git/hooks", ".git/hooks"), "writable: [\".git/hooks\"]");
        assert_eq!(of("/w/a.key", "**/*.key"), "writable: [/w/a.key]");
        assert_eq!(of("/w/.env", "files.deny **/.env"), "", "no operator opens what the file itself denies");
        assert_eq!(of("/w/x.yaml", "protected-path"), "writable: [/w/x.yaml]");
        assert_eq!(of("/w/r/.git/Hooks", "standing-repository"), "writable: [/w/r/.git/Hooks]");
        assert_eq!(of("/w/r/.git", "standing-repository"), "writable: [/w/r/.git]");
        assert_eq!(of("/w/r", "standing-repository"), "writable: [/w/r/.git]", "what was to be replaced is in it");
        assert_eq!(of("y", "path-too-long") + &of("/w/x", "workdir-moved"), "");
    }

    #[test]
    fn a_rules_word_has_its_sentence_and_a_pattern_is_shown_in_one() {
        let of = |pattern: &str| {
            let tried = Tried::Name { call: "mkdir".to_owned(), path: "/w/x".to_owned(), pattern: pattern.to_owned() };
            let denial = Denial { tried, ..denial("mkdir", [0; 6], Ring::R2) };
            (denial.tried.rule(), reason(&denial))
        };
        for word in [PROTECTED_PATH, STANDING_REPOSITORY, PATH_TOO_LONG, WORKDIR_MOVED] {
            let (rule, why) = of(word);
            assert_eq!(rule, format!("name.{word}"));
            assert!(!why.contains(word) && why.contains(' '), "{why}");
        }
        assert!(of("**/.vscode").1.starts_with("`**/.vscode` is never"));
        assert!(of("files.deny **/.env").1.contains("own file"));
    }

    #[test]
    fn the_reason_is_that_of_the_tables_not_of_the_notice() {
        assert!(reason(&denial("mount", [0; 6], Ring::R2)).contains("made of mounts"));
        assert!(reason(&denial("socket", [40, 1, 0, 0, 0, 0], Ring::R2)).contains("vsock"));
        assert!(reason(&denial("#9999", [0; 6], Ring::R2)).contains("newer"));
    }
}
