//! `probe --ring N | --all`: asks each ring for what it must refuse and allow. The work is [`agt_rings::probe`]'s; here the
//! findings are put into a table.

use std::io::Write;

use agt_rings::Ring;
use agt_rings::probe::{Finding, Options, Probed, Verdict, probe as run_probe};
use anyhow::Context;
use clap::Args;

use super::Form;

/// `probe`.
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// One ring, 0 to 3
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3), required_unless_present = "all", conflicts_with = "all")]
    pub ring: Option<u8>,
    /// Every ring
    #[arg(long)]
    pub all: bool,
    /// A layer that the probe's own agents go without (tests of the rings; a release has no such option)
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "LAYER")]
    pub without: Vec<agt_rings::probe::Layer>,
    /// Launch as on a host without clone3, by fork and exec
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub fork: bool,
    /// Only these attacks
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "NAME")]
    pub only: Vec<String>,
    /// Say on stderr how long each took, the longest first
    #[cfg(debug_assertions)]
    #[arg(long, hide = true)]
    pub times: bool,
}

/// How it came out: the exit code is the caller's to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Everything that could be judged is as expected (exit 0).
    AsExpected,
    /// At least one mismatch (exit 1).
    Mismatch,
}

/// Probes `rings` and writes the findings: as JSON exactly the list of [`Finding`]s. How long each took goes to `times`.
///
/// # Errors
/// When the probe itself can't run, or the output can't be written.
pub fn probe(
    rings: &[Ring],
    options: &Options,
    form: Form,
    out: &mut dyn Write,
    times: Option<&mut dyn Write>,
) -> anyhow::Result<Outcome> {
    let probed = run_probe(rings, options).context("the probe could not run")?;
    if let Some(times) = times {
        let mut took: Vec<_> = probed.took.iter().zip(&probed.findings).collect();
        took.sort_by_key(|(took, _)| std::cmp::Reverse(**took));
        for (took, finding) in took {
            writeln!(times, "{:8.3} s  {}  {}", took.as_secs_f64(), finding.ring, finding.name)?;
        }
    }
    match form {
        Form::Json => {
            serde_json::to_writer_pretty(&mut *out, &probed.findings)?;
            writeln!(out)?;
        }
        Form::Text => write!(out, "{}", render(rings, &probed))?,
    }
    Ok(if probed.is_as_expected() { Outcome::AsExpected } else { Outcome::Mismatch })
}

/// The findings as a table per ring, with a line of counts, then what went wrong.
#[must_use]
pub fn render(rings: &[Ring], probed: &Probed) -> String {
    let mut text = String::new();
    for &ring in rings {
        let findings: Vec<&Finding> = probed.findings.iter().filter(|finding| finding.ring == ring).collect();
        text.push_str(&table(&findings));
        let tally = probed.tally(ring);
        text.push_str(&format!(
            "{ring}: {} attacks denied, {} acts allowed, {} mismatches, {} n/a\n",
            tally.denied, tally.allowed, tally.failed, tally.not_applicable
        ));
        if let Some((_, gaps)) = probed.gaps.iter().find(|(of, _)| *of == ring) {
            text.push_str(&format!("{ring} can't be enforced in full here; it was probed with what there is:\n"));
            for gap in gaps {
                text.push_str(&format!("  {}: {}\n  help: {}\n", gap.protection, gap.reason, gap.help));
            }
        }
        text.push('\n');
    }
    text
}

fn table(findings: &[&Finding]) -> String {
    let rows: Vec<[String; 5]> = findings
        .iter()
        .map(|f| [f.verdict.to_string(), f.name.clone(), f.expected.to_string(), f.got.clone(), f.layer.clone()])
        .collect();
    let head = ["VERDICT", "ASKED", "EXPECTED", "GOT", "LAYER"];
    let width = |column: usize| {
        let longest = rows.iter().map(|row| row[column].chars().count().min(WIDTH_MAX)).max().unwrap_or(0);
        longest.max(head[column].len())
    };
    let widths = [width(0), width(1), width(2), width(3)];
    let mut text = line(&head.map(str::to_owned), widths);
    for (row, finding) in rows.iter().zip(findings) {
        text.push_str(&line(row, widths));
        if finding.verdict != Verdict::Pass {
            text.push_str(&format!("         {}: {}\n", finding.asked, finding.reason));
        }
    }
    text
}

/// A longer cell pushes its row aside instead of widening all.
const WIDTH_MAX: usize = 28;

fn line(cells: &[String; 5], widths: [usize; 4]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        text.push_str(&format!("{cell:width$}  "));
    }
    text.push_str(&cells[4]);
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use agt_rings::probe::Expected;

    use super::*;

    fn finding(verdict: Verdict) -> Finding {
        Finding {
            ring: Ring::R2,
            name: "outside-read".to_owned(),
            asked: "read a file that nothing declares".to_owned(),
            expected: Expected::Denied,
            got: "ENOENT".to_owned(),
            layer: "mount namespace, Landlock".to_owned(),
            verdict,
            reason: "because".to_owned(),
        }
    }

    #[test]
    fn a_pass_is_one_line_and_everything_else_says_why() {
        let findings = vec![finding(Verdict::Pass), finding(Verdict::Fail), finding(Verdict::NotApplicable)];
        let text = render(&[Ring::R2], &Probed { findings, took: Vec::new(), gaps: Vec::new() });
        assert_eq!(text.matches("read a file that nothing declares: because").count(), 2, "{text}");
        assert!(text.contains("R2: 1 attacks denied, 0 acts allowed, 1 mismatches, 1 n/a"), "{text}");
        assert!(text.contains("pass     outside-read  denied    ENOENT  mount namespace, Landlock\n"), "{text}");
    }
}
