//! A proposal as an agent.yaml: for a person to read, and for `check` and `run` to take as it is.

use std::fmt::Write as _;

use agt_rings::Ring;
use agt_rings::spec::Access;

use super::observed::Observed;
use super::propose::{Line, Proposal, Said};
use crate::config::grant::scalar;
use crate::config::{Wish, quoted};
use crate::driver::streams::escaped;

/// What stands in a proposal beside its lines.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The agent's name.
    pub name: String,
    /// Its command.
    pub command: Vec<String>,
    /// The ring that it ran in.
    pub ring: Ring,
    /// Variables to take over.
    pub pass: Vec<String>,
    /// What this host can't enforce, in words: the file opts out of what is missing.
    pub missing: Vec<String>,
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    items.iter().map(|item| scalar(item.as_ref())).collect::<Vec<String>>().join(", ")
}

fn counted(count: u64, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

/// What a run did, in numbers.
#[must_use]
pub fn numbers(observed: &Observed) -> String {
    format!(
        "{}, {}, {}, {}, {}",
        counted(observed.reads, "read", "reads"),
        counted(observed.writes, "write", "writes"),
        counted(observed.programs.len() as u64, "program", "programs"),
        counted(observed.addresses.len() as u64, "address", "addresses"),
        counted(observed.refused.values().sum(), "refused call", "refused calls"),
    )
}

/// Writes it down.
#[must_use]
pub fn yaml(frame: &Frame, observed: &Observed, proposal: &Proposal) -> String {
    let mut out = format!(
        "# Proposed by `agt-supervise learn` from one run: {}.\n\
         # What it did not do in that run is not in here. Lines marked REVIEW need a line of the operator's file.\n\
         version: 1\nname: {}\ncommand: [{}]\nring: {}\n",
        numbers(observed),
        scalar(&frame.name),
        list(&frame.command),
        frame.ring.number()
    );
    if !frame.pass.is_empty() {
        let _ = writeln!(out, "env: {{pass: [{}]}}", list(&frame.pass));
    }
    if !frame.missing.is_empty() {
        out.push_str("# REVIEW: this host can't keep all of the ring. Without this line it is refused here.\n");
        frame.missing.iter().for_each(|words| {
            let _ = writeln!(out, "#   not enforced: {}", comment(words));
        });
        out.push_str("enforcement: best-effort\n");
    }
    out.push_str(&lines(proposal));
    out
}

/// The lines of a proposal alone: what a file that is there already lacks.
#[must_use]
pub fn lines(proposal: &Proposal) -> String {
    let mut out = String::new();
    let of = |access: Access| -> Vec<&Line> {
        proposal.lines.iter().filter(|line| matches!(&line.wish, Wish::File(_, wanted) if *wanted == access)).collect()
    };
    let (reads, writes) = (of(Access::Read), of(Access::Write));
    if !reads.is_empty() || !writes.is_empty() {
        section(&mut out, "files:", |out| {
            for (key, lines) in [("read", &reads), ("write", &writes)] {
                if !lines.is_empty() {
                    section(out, &format!("  {key}:"), |out| lines.iter().for_each(|line| entry(out, "    ", line)));
                }
            }
        });
    }
    let destinations: Vec<&Line> = proposal.lines.iter().filter(|line| matches!(line.wish, Wish::Network(_))).collect();
    if !destinations.is_empty() {
        section(&mut out, "network:", |out| destinations.iter().for_each(|line| entry(out, "  ", line)));
    }
    proposal.notes.iter().for_each(|note| {
        let _ = writeln!(out, "# note: {}", comment(note));
    });
    out
}

/// A key with what stands below it; the key alone would be a mistake, so without a real line it becomes a comment.
fn section(out: &mut String, key: &str, fill: impl FnOnce(&mut String)) {
    let mut body = String::new();
    fill(&mut body);
    let is_real = body.lines().any(|line| !line.trim_start().starts_with('#'));
    let _ = writeln!(out, "{}{key}", if is_real { "" } else { "# " });
    out.push_str(&body);
}

fn entry(out: &mut String, indent: &str, line: &Line) {
    let text = match &line.wish {
        Wish::File(path, _) => quoted(path),
        Wish::Network(to) => format!("tcp: {}", scalar(&to.to_string())),
    };
    let _ = match &line.said {
        Said::Free => writeln!(out, "{indent}- {text}"),
        Said::Operator(why) => writeln!(out, "{indent}- {text}  # REVIEW: {}", comment(why)),
        Said::Never(why) => writeln!(out, "{indent}# - {text}  # never: {}", comment(why)),
    };
}

/// On one line, and nothing in it that acts on a terminal.
fn comment(text: &str) -> String {
    escaped(&text.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::spec::HostPort;

    fn frame() -> Frame {
        Frame {
            name: "researcher".to_owned(),
            command: ["python3", "researcher.py", "find: flights"].map(str::to_owned).to_vec(),
            ring: Ring::R2,
            pass: Vec::new(),
            missing: Vec::new(),
        }
    }

    fn file(path: &str, access: Access, said: Said) -> Line {
        Line { wish: Wish::File(path.into(), access), said }
    }

    #[test]
    fn a_proposal_reads_like_a_file_that_somebody_wrote() {
        let proposal = Proposal {
            lines: vec![
                file("/srv/data", Access::Read, Said::Operator("it is outside\nof all".to_owned())),
                file("/srv/ours", Access::Read, Said::Never("ours".to_owned())),
                file("/srv/out: 1", Access::Write, Said::Free),
                Line {
                    wish: Wish::Network(HostPort::parse("127.0.0.1:8099").unwrap()),
                    said: Said::Operator("free is none".to_owned()),
                },
            ],
            notes: vec!["the ring refused mount (once)".to_owned()],
        };
        let text = yaml(&frame(), &Observed::default(), &proposal);
        let body: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            body,
            [
                "version: 1",
                "name: researcher",
                "command: [python3, researcher.py, \"find: flights\"]",
                "ring: 2",
                "files:",
                "  read:",
                "    - /srv/data  # REVIEW: it is outside of all",
                "    # - /srv/ours  # never: ours",
                "  write:",
                "    - \"/srv/out: 1\"",
                "network:",
                "  - tcp: \"127.0.0.1:8099\"  # REVIEW: free is none",
                "# note: the ring refused mount (once)",
            ]
        );
    }

    #[test]
    fn a_section_of_refusals_alone_is_a_comment() {
        let proposal =
            Proposal { lines: vec![file("/x", Access::Read, Said::Never("no".to_owned()))], notes: Vec::new() };
        let text = yaml(&frame(), &Observed::default(), &proposal);
        assert!(text.contains("# files:\n#   read:\n    # - /x") || text.contains("# files:\n"), "{text}");
        assert!(
            text.lines().all(|line| !line.trim_start().starts_with("read:") && !line.starts_with("files:")),
            "{text}"
        );
    }
}
