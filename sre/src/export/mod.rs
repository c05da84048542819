//! The SLOs as Prometheus recording and alerting rules, with the windows and thresholds of [`crate::burn`].
//!
//! Two counts of the same events, one here and one in Prometheus, must come to the same alert; so the rules are
//! generated, as sloth does it, and never written by hand. The counter must be exported from the start with both
//! outcomes at zero: Prometheus sees no increase in a series that is born with its first event.
//!
//! What PromQL can't have is the exact bucket: `rate` extrapolates, and a window shorter than a few scrapes is empty.
//! [`RuleNames::shortest_window`] keeps windows of short periods readable.

use std::fmt::Write;
use std::time::Duration;

use crate::burn::{Alert, LookBack, PAIRS, Pair};
use crate::ratio::number;
use crate::slo::Slo;
use crate::time::compact;

/// Names used in the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleNames {
    /// The counter of events, with the labels below; a valid metric name.
    pub events: String,
    /// The label that names the agent.
    pub agent_label: String,
    /// The label that names the SLO.
    pub slo_label: String,
    /// The label whose value is `good` or `bad`.
    pub outcome_label: String,
    /// No range in the rules is shorter than this: at least four scrape intervals.
    pub shortest_window: Duration,
}

impl Default for RuleNames {
    /// `agt_slo_events_total{agent, slo, outcome}`, and one minute for a scrape every 15 s.
    fn default() -> Self {
        Self {
            events: "agt_slo_events_total".to_owned(),
            agent_label: "agent".to_owned(),
            slo_label: "slo".to_owned(),
            outcome_label: "outcome".to_owned(),
            shortest_window: Duration::from_secs(60),
        }
    }
}

/// The rules for the SLOs of one agent, as a Prometheus rules file. Several agents' groups can be joined by leaving out
/// the later `groups:` lines; [`rules_for_all`] does it.
pub fn rules(agent: &str, slos: &[Slo], names: &RuleNames) -> String {
    rules_for_all([(agent, slos)], names)
}

/// The rules for the SLOs of several agents, as one Prometheus rules file. The text is YAML and ends with a newline.
pub fn rules_for_all<'a>(agents: impl IntoIterator<Item = (&'a str, &'a [Slo])>, names: &RuleNames) -> String {
    let mut text = String::new();
    for (agent, slos) in agents {
        for slo in slos {
            let rules = SloRules { agent, slo, names };
            rules.recordings(&mut text);
            rules.alerts(&mut text);
        }
    }
    if text.is_empty() { "groups: []\n".to_owned() } else { format!("groups:\n{text}") }
}

struct SloRules<'a> {
    agent: &'a str,
    slo: &'a Slo,
    names: &'a RuleNames,
}

impl SloRules<'_> {
    fn recordings(&self, text: &mut String) {
        self.group(text, "recordings");
        let mut windows: Vec<String> = LookBack::ALL.iter().map(|look_back| self.window(*look_back)).collect();
        windows.push(self.range(self.slo.period()));
        // Short periods bring several windows to the same shortest length.
        windows.dedup();
        for window in windows {
            let ratio = format!(
                "sum(rate({bad}[{window}]))\n/\nsum(rate({all}[{window}]))",
                bad = self.selector(Some("bad")),
                all = self.selector(None)
            );
            self.recording(text, &self.ratio_name(&window), &ratio);
        }
        let allowed = self.slo.objective().allowed().as_f64();
        self.recording(text, "slo:error_budget:ratio", &format!("vector({allowed})"));
        let period = self.range(self.slo.period());
        let left = format!("1 - {}{} / {allowed}", self.ratio_name(&period), self.labels(None));
        self.recording(text, "slo:error_budget_left:ratio", &left);
    }

    fn alerts(&self, text: &mut String) {
        self.group(text, "alerts");
        for alert in [Alert::Page, Alert::Ticket] {
            let conditions: Vec<String> =
                PAIRS.iter().filter(|pair| pair.alert == alert).map(|pair| self.condition(*pair)).collect();
            let name = match alert {
                Alert::Page => "AgtErrorBudgetBurnsFast",
                Alert::Ticket => "AgtErrorBudgetBurns",
            };
            let what = format!("the error budget of {} / {} burns too fast", self.agent, self.slo.name());
            self.alert(text, name, &conditions.join("\nor\n"), alert.as_str(), &what);
        }
        let period = self.range(self.slo.period());
        let allowed = self.slo.objective().allowed().as_f64();
        let spent =
            format!("({}{} >= {allowed})\n{}", self.ratio_name(&period), self.labels(None), self.enough(&period));
        let what = format!("the error budget of {} / {} is spent", self.agent, self.slo.name());
        self.alert(text, "AgtErrorBudgetExhausted", &spent, Alert::Page.as_str(), &what);
    }

    fn condition(&self, pair: Pair) -> String {
        let (long, short) = (self.window(pair.long), self.window(pair.short));
        let labels = self.labels(None);
        // Both sides are kept apart so that the threshold stays readable: burn rate times allowed error ratio.
        let over = format!("({} * {})", number(pair.over()), self.slo.objective().allowed().as_f64());
        format!(
            "(\n  ({}{labels} > {over})\n  and\n  ({}{labels} > {over})\n  {}\n)",
            self.ratio_name(&long),
            self.ratio_name(&short),
            self.enough(&long)
        )
    }

    /// Enough events to be believed, as [`crate::budget::is_evidence`] has it. `increase` extrapolates to fractions, so
    /// half an event less is enough.
    fn enough(&self, window: &str) -> String {
        let minimum = self.slo.minimum_events();
        let least_bad = crate::budget::LEAST_BAD.min(minimum);
        format!(
            "and on() (sum(increase({}[{window}])) > {}) and on() (sum(increase({}[{window}])) > {})",
            self.selector(None),
            minimum as f64 - 0.5,
            self.selector(Some("bad")),
            least_bad as f64 - 0.5,
        )
    }

    fn ratio_name(&self, window: &str) -> String {
        format!("slo:sli_error:ratio_rate{window}")
    }

    fn window(&self, look_back: LookBack) -> String {
        self.range(look_back.scaled(self.slo.period()))
    }

    fn range(&self, length: Duration) -> String {
        compact(length.max(self.names.shortest_window))
    }

    fn selector(&self, outcome: Option<&str>) -> String {
        format!("{}{}", self.names.events, self.labels(outcome))
    }

    fn labels(&self, outcome: Option<&str>) -> String {
        let mut labels = format!(
            "{{{}={}, {}={}",
            self.names.agent_label,
            quoted(self.agent),
            self.names.slo_label,
            quoted(self.slo.name().as_str())
        );
        if let Some(outcome) = outcome {
            let _ = write!(labels, ", {}={}", self.names.outcome_label, quoted(outcome));
        }
        labels.push('}');
        labels
    }

    fn group(&self, text: &mut String, kind: &str) {
        line(text, 2, &format!("- name: {}", quoted(&format!("agt-slo-{}-{}-{kind}", self.agent, self.slo.name()))));
        line(text, 4, "rules:");
    }

    fn recording(&self, text: &mut String, name: &str, expression: &str) {
        line(text, 6, &format!("- record: {name}"));
        self.expression(text, expression);
        line(text, 8, "labels:");
        self.identity(text);
    }

    fn alert(&self, text: &mut String, name: &str, expression: &str, severity: &str, what: &str) {
        line(text, 6, &format!("- alert: {name}"));
        self.expression(text, expression);
        line(text, 8, "labels:");
        self.identity(text);
        line(text, 10, &format!("severity: {severity}"));
        line(text, 8, "annotations:");
        line(text, 10, &format!("summary: {}", quoted(&escaped_template(what))));
        let budget = format!("objective {} over {}", self.slo.objective(), compact(self.slo.period()));
        line(text, 10, &format!("description: {}", quoted(&budget)));
    }

    fn expression(&self, text: &mut String, expression: &str) {
        line(text, 8, "expr: |-");
        expression.lines().for_each(|part| line(text, 10, part));
    }

    fn identity(&self, text: &mut String) {
        line(text, 10, &format!("{}: {}", self.names.agent_label, quoted(self.agent)));
        line(text, 10, &format!("{}: {}", self.names.slo_label, quoted(self.slo.name().as_str())));
    }
}

fn line(text: &mut String, indent: usize, content: &str) {
    let _ = writeln!(text, "{:indent$}{content}", "");
}

/// A string in double quotes that YAML and PromQL both read as meant. Both know `\\`, `\"`, `\n` and `\xNN`; what lies
/// outside ASCII stays as it is.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control.is_ascii_control() => {
                let _ = write!(quoted, "\\x{:02x}", u32::from(control));
            }
            // NEL, LS and PS end a line in YAML; C1 controls are not allowed in it at all.
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Annotations are Go templates: braces of a name must not open an action.
fn escaped_template(text: &str) -> String {
    text.replace("{{", "{{ \"{{\" }}")
}

#[cfg(test)]
mod tests;
