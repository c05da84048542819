//! What an agent may say on its own socket: one JSON object a line. Pure.
//!
//! ```text
//! {"task":"start","id":"t1"}
//! {"task":"end","id":"t1","outcome":"bad","cost_usd":0.02,"latency_s":1.5}
//! {"task":"end","id":"t2","outcome":"bad","about":"safety"}
//! ```
//!
//! Each line gets one answer: `{"ok":true}`, or `{"ok":false,"error":...,"retry":...}`. Strict, as every input is: a misspelled
//! key would lose a report without anybody noticing.

use agt_sre::sli::Sli;
use serde::{Deserialize, Serialize};

/// The longest line, in bytes.
pub const LINE_BYTES_MAX: usize = 4096;
/// The longest task id, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// One report.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A task begins.
    Start {
        /// The agent's own name for it.
        id: String,
    },
    /// A task has ended.
    End {
        /// The agent's own name for it.
        id: String,
        /// How it went, by its own word.
        outcome: Outcome,
        /// What `bad` is about.
        about: Sli,
        /// US dollars spent.
        cost_usd: Option<f64>,
        /// Seconds it took; without it the time since its start counts.
        latency_s: Option<f64>,
    },
}

/// How a task went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Well. Counts for throughput only.
    Ok,
    /// Badly.
    Bad,
}

/// The answer to a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reply {
    /// It was taken.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether the same line can be taken later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<bool>,
    /// When to try again, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<f64>,
}

impl Reply {
    /// It was taken.
    #[must_use]
    pub fn taken() -> Reply {
        Reply { ok: true, error: None, retry: None, retry_after_s: None }
    }

    /// It never will be.
    #[must_use]
    pub fn refused(error: impl Into<String>) -> Reply {
        Reply { ok: false, error: Some(error.into()), retry: Some(false), retry_after_s: None }
    }

    /// Not now.
    #[must_use]
    pub fn later(error: impl Into<String>, after_s: Option<f64>) -> Reply {
        Reply { ok: false, error: Some(error.into()), retry: Some(true), retry_after_s: after_s }
    }

    /// As a line.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers") + "\n"
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Start,
    End,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    task: Word,
    id: String,
    outcome: Option<Outcome>,
    about: Option<Sli>,
    cost_usd: Option<f64>,
    latency_s: Option<f64>,
}

/// Reads a line.
///
/// # Errors
/// The refusal to send back.
pub fn parse(line: &[u8]) -> Result<Report, Reply> {
    let line: Line = serde_json::from_slice(line).map_err(|e| Reply::refused(format!("not a report: {e}")))?;
    if line.id.is_empty() || line.id.len() > ID_BYTES_MAX {
        return Err(Reply::refused(format!("`id` has 1 to {ID_BYTES_MAX} bytes")));
    }
    match line.task {
        Word::Start => {
            if line.outcome.is_some() || line.about.is_some() || line.cost_usd.is_some() || line.latency_s.is_some() {
                return Err(Reply::refused("a start has an `id` and nothing else"));
            }
            Ok(Report::Start { id: line.id })
        }
        Word::End => {
            let outcome = line.outcome.ok_or_else(|| Reply::refused("an end needs `outcome`: ok or bad"))?;
            let about = line.about.unwrap_or(Sli::Correctness);
            if !matches!(about, Sli::Correctness | Sli::Safety | Sli::Delegation) {
                return Err(Reply::refused("`about` is correctness, safety or delegation"));
            }
            for (name, value) in [("cost_usd", line.cost_usd), ("latency_s", line.latency_s)] {
                if value.is_some_and(|value| !value.is_finite() || value < 0.0) {
                    return Err(Reply::refused(format!("`{name}` is a number of 0 or more")));
                }
            }
            Ok(Report::End { id: line.id, outcome, about, cost_usd: line.cost_usd, latency_s: line.latency_s })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_read_strictly() {
        assert_eq!(parse(br#"{"task":"start","id":"a"}"#), Ok(Report::Start { id: "a".to_owned() }));
        let end = parse(br#"{"task":"end","id":"a","outcome":"bad","cost_usd":0.5}"#).unwrap();
        assert!(matches!(end, Report::End { outcome: Outcome::Bad, cost_usd: Some(0.5), about: Sli::Correctness, .. }));
        for bad in [
            r#"{"task":"end","id":"a"}"#,
            r#"{"task":"end","id":"a","outcom":"bad"}"#,
            r#"{"task":"end","id":"a","outcome":"bad","trust":1000}"#,
            r#"{"task":"end","id":"a","outcome":"bad","cost_usd":-1}"#,
            r#"{"task":"end","id":"a","outcome":"bad","about":"cost"}"#,
            r#"{"task":"start","id":""}"#,
            r#"{"task":"start","id":"a","outcome":"ok"}"#,
            "",
            "null",
        ] {
            let refused = parse(bad.as_bytes()).unwrap_err();
            assert!(!refused.ok && refused.retry == Some(false), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
