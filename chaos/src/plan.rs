//! From what the file says to what will be done: checked, resolved, all problems at once.
//!
//! A plan that exists is valid: bounded in time and samples, one fault with complete parameters, at least one SLI to score.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::catalog;
use crate::fault::{FaultKind, ReadyFault};
use crate::schedule::{Burst, schedule};
use crate::spec::{BlastRadius, Comparison, Condition, Expect, Spec, Windows};
use crate::target::Source;

/// The longest faulty phase.
pub const DURATION_MAX: Duration = Duration::from_secs(3600);
/// The longest baseline or observation.
pub const WINDOW_MAX: Duration = Duration::from_secs(3600);
/// The shortest look-back and the shortest time between two readings.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// The most bursts.
pub const BURSTS_MAX: u32 = 32;
/// The shortest burst.
pub const BURST_MIN: Duration = Duration::from_millis(500);
/// The most readings in one phase.
pub const SAMPLES_MAX: u128 = 3600;
/// The most conditions in one list.
pub const CONDITIONS_MAX: usize = 32;
/// The longest name.
pub const NAME_MAX: usize = 64;

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, like `steady_state[0].value`.
    pub path: String,
    /// What.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), help: None }
    }

    /// With what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        match &self.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

/// A condition on one reading.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Which reading.
    pub source: Source,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub value: f64,
}

impl Check {
    /// Whether it holds for this reading.
    pub fn holds(&self, reading: f64) -> bool {
        self.comparison.holds(reading, self.value)
    }

    /// Whether it is scored: SLIs are (they all grow with goodness); other readings only have to hold.
    pub fn is_scored(&self) -> bool {
        matches!(self.source, Source::Sli(_))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.source, self.comparison.sign(), self.value)
    }
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The experiment's name.
    pub name: String,
    /// The agent.
    pub agent: String,
    /// The fault, with its parameters.
    pub fault: ReadyFault,
    /// The seed of the schedule.
    pub seed: u64,
    /// How long the faulty phase lasts.
    #[serde(with = "crate::report::seconds", rename = "duration_seconds")]
    pub duration: Duration,
    /// When the fault acts in it.
    pub bursts: Vec<Burst>,
    /// Before, after, and how it is read.
    pub windows: Windows,
    /// What must hold.
    pub steady_state: Vec<Check>,
    /// What aborts.
    pub abort: Vec<Check>,
    /// Times to keep.
    pub expect: Expect,
    /// The largest part of any error budget that may be burned.
    pub max_budget_burn: Option<f64>,
}

impl Plan {
    /// Checks and resolves a file. Returns every problem in it, not only the first.
    pub fn resolve(spec: &Spec) -> Result<Plan, Vec<Problem>> {
        let mut problems = Vec::new();
        check_head(spec, &mut problems);
        check_times(spec, &mut problems);
        check_blast_radius(&spec.blast_radius, &mut problems);
        let steady_state = checks("steady_state", &spec.steady_state, &mut problems);
        if !steady_state.iter().any(Check::is_scored) && !spec.steady_state.iter().any(|line| line.sli.is_some()) {
            problems.push(
                Problem::new("steady_state", "nothing to score: no line names an SLI")
                    .help("- {sli: availability, comparison: at-least, value: 0.9}"),
            );
        }
        let abort = checks("abort", &spec.abort, &mut problems);
        let fault = fault_of(spec, &mut problems);
        match fault {
            Some(fault) if problems.is_empty() => Ok(Plan {
                name: spec.name.clone(),
                agent: spec.agent.clone(),
                fault,
                seed: spec.seed,
                duration: spec.duration,
                bursts: schedule(spec.seed, spec.duration, spec.bursts.count, burst_length(spec)),
                windows: spec.windows.clone(),
                steady_state,
                abort,
                expect: spec.expect.clone(),
                max_budget_burn: spec.blast_radius.max_budget_burn,
            }),
            _ => Err(problems),
        }
    }

    /// How long the whole experiment takes if nothing aborts it.
    pub fn total(&self) -> Duration {
        self.windows.baseline + self.duration + self.windows.observe
    }

    /// The fault's name.
    pub fn fault_kind(&self) -> FaultKind {
        self.fault.kind()
    }
}

fn burst_length(spec: &Spec) -> Duration {
    let count = spec.bursts.count.max(1);
    spec.bursts.length.unwrap_or(if count == 1 { spec.duration } else { spec.duration / (2 * count) })
}

fn check_head(spec: &Spec, problems: &mut Vec<Problem>) {
    if spec.version != 1 {
        problems.push(Problem::new("version", format!("{} is not known; this program reads version 1", spec.version)));
    }
    for (path, name) in [("name", &spec.name), ("agent", &spec.agent)] {
        if name.is_empty() {
            problems.push(Problem::new(path, "missing"));
        } else if name.len() > NAME_MAX || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            problems.push(
                Problem::new(path, format!("`{}` is no name", name.escape_debug()))
                    .help(format!("1 to {NAME_MAX} letters, digits, `-`, `_` and `.`")),
            );
        }
    }
}

fn check_times(spec: &Spec, problems: &mut Vec<Problem>) {
    let windows = &spec.windows;
    let mut between = |path: &str, value: Duration, least: Duration, most: Duration| {
        if value < least || value > most {
            problems
                .push(Problem::new(path, format!("{value:?} is out of range")).help(format!("{least:?} to {most:?}")));
        }
    };
    between("windows.every", windows.every, EVERY_MIN, WINDOW_MAX);
    between("windows.look_back", windows.look_back, EVERY_MIN, WINDOW_MAX);
    // A phase shorter than the look-back would have no reading of its own.
    let least = windows.look_back.clamp(EVERY_MIN, WINDOW_MAX);
    between("windows.baseline", windows.baseline, least, WINDOW_MAX);
    between("windows.observe", windows.observe, least, WINDOW_MAX);
    between("duration", spec.duration, least, DURATION_MAX);
    let count = spec.bursts.count;
    if !(1..=BURSTS_MAX).contains(&count) {
        problems
            .push(Problem::new("bursts.count", format!("{count} is out of range")).help(format!("1 to {BURSTS_MAX}")));
        return;
    }
    let length = burst_length(spec);
    if length < BURST_MIN || length.checked_mul(count).is_none_or(|all| all > spec.duration) {
        problems.push(
            Problem::new("bursts.length", format!("{count} x {length:?} doesn't fit into {:?}", spec.duration))
                .help(format!("at least {BURST_MIN:?} each, together at most the duration")),
        );
    }
    for (path, phase) in [("baseline", windows.baseline), ("observe", windows.observe), ("duration", spec.duration)] {
        let samples = phase.as_millis() / windows.every.as_millis().max(1);
        if samples > SAMPLES_MAX {
            let problem = Problem::new("windows.every", format!("{samples} readings in {path} are too many"));
            problems.push(problem.help(format!("at most {SAMPLES_MAX} in a phase: read less often")));
        }
    }
}

fn check_blast_radius(radius: &BlastRadius, problems: &mut Vec<Problem>) {
    if radius.max_agents != 1 {
        let text = format!("{} agents: an experiment touches exactly one", radius.max_agents);
        problems.push(Problem::new("blast_radius.max_agents", text).help("1"));
    }
    if radius.max_budget_burn.is_some_and(|burn| !(burn > 0.0 && burn <= 1.0)) {
        problems
            .push(Problem::new("blast_radius.max_budget_burn", "is no part of a budget").help("above 0, at most 1"));
    }
}

fn checks(list: &str, conditions: &[Condition], problems: &mut Vec<Problem>) -> Vec<Check> {
    if conditions.len() > CONDITIONS_MAX {
        problems.push(Problem::new(list, format!("{} lines; at most {CONDITIONS_MAX}", conditions.len())));
        return Vec::new();
    }
    let mut good = Vec::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("{list}[{i}]");
        let sources = [
            condition.sli.clone().map(Source::Sli),
            condition.metric.clone().map(Source::Metric),
            condition.budget.clone().map(Source::Budget),
        ];
        let mut named: Vec<Source> = sources.into_iter().flatten().collect();
        let (Some(source), true) = (named.pop(), named.is_empty()) else {
            problems.push(Problem::new(path, "name exactly one reading").help("one of `sli`, `metric`, `budget`"));
            continue;
        };
        let is_ratio = matches!(source, Source::Sli(_) | Source::Budget(_));
        let value = condition.value;
        if !value.is_finite() || (is_ratio && !(0.0..=1.0).contains(&value)) {
            let range = if is_ratio { "0 to 1" } else { "a finite number" };
            problems.push(Problem::new(format!("{path}.value"), format!("{value} is out of range")).help(range));
            continue;
        }
        good.push(Check { source, comparison: condition.comparison, value });
    }
    good
}

fn fault_of(spec: &Spec, problems: &mut Vec<Problem>) -> Option<ReadyFault> {
    let (kind, parameters) = match (&spec.template, spec.fault) {
        (None, Some(kind)) => (kind, spec.parameters.clone()),
        (Some(name), None) => match catalog::find(name) {
            Some(template) => (template.fault, template.parameters_with(&spec.parameters)),
            None => {
                let names: Vec<_> = catalog::TEMPLATES.iter().map(|template| template.name).collect();
                problems.push(
                    Problem::new("template", format!("no template is called `{}`", name.escape_debug()))
                        .help(names.join(", ")),
                );
                return None;
            }
        },
        (Some(_), Some(_)) => {
            problems.push(Problem::new("fault", "both `template` and `fault` are given").help("keep one of them"));
            return None;
        }
        (None, None) => {
            problems.push(Problem::new("fault", "missing").help("name a `fault` or a `template`"));
            return None;
        }
    };
    match ReadyFault::new(kind, &parameters) {
        Ok(fault) => Some(fault),
        Err(found) => {
            problems.extend(found);
            None
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::spec::Parameters;
    use crate::unit::CpuShare;

    pub(crate) fn spec() -> Spec {
        let availability = Condition {
            sli: Some("availability".into()),
            metric: None,
            budget: None,
            comparison: Comparison::AtLeast,
            value: 0.9,
        };
        Spec {
            name: "hang".into(),
            agent: "researcher".into(),
            fault: Some(FaultKind::ProcessHang),
            steady_state: vec![availability],
            ..Spec::default()
        }
    }

    fn paths(spec: &Spec) -> Vec<String> {
        Plan::resolve(spec).unwrap_err().into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_small_spec_becomes_a_plan() {
        let plan = Plan::resolve(&spec()).unwrap();
        assert_eq!(plan.fault_kind(), FaultKind::ProcessHang);
        assert_eq!(plan.bursts, [Burst { start: Duration::ZERO, length: Duration::from_secs(30) }]);
        assert_eq!(plan.total(), Duration::from_secs(120));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let mut wrong = spec();
        wrong.version = 2;
        wrong.name = "a b".into();
        wrong.agent = String::new();
        wrong.windows.baseline = Duration::from_secs(1);
        wrong.blast_radius.max_agents = 2;
        wrong.steady_state[0].value = 1.5;
        wrong.parameters.score = Some(3);
        let expected = [
            "version",
            "name",
            "agent",
            "windows.baseline",
            "blast_radius.max_agents",
            // Not that nothing is scored: that follows from it.
            "steady_state[0].value",
            "parameters.score",
        ];
        assert_eq!(paths(&wrong), expected);
    }

    #[test]
    fn exactly_one_of_template_and_fault() {
        let neither = Spec { fault: None, ..spec() };
        assert_eq!(paths(&neither), ["fault"]);
        let both = Spec { template: Some("process-hang".into()), ..spec() };
        assert_eq!(paths(&both), ["fault"]);
        let unknown = Spec { fault: None, template: Some("proces-hang".into()), ..spec() };
        assert!(Plan::resolve(&unknown).unwrap_err()[0].help.as_ref().unwrap().contains("process-hang"));
    }

    #[test]
    fn own_parameters_replace_those_of_the_template() {
        let mut asked = Spec { fault: None, template: Some("cpu-squeeze".into()), ..spec() };
        asked.parameters = Parameters { cpu: Some(CpuShare(50)), ..Parameters::default() };
        let plan = Plan::resolve(&asked).unwrap();
        assert!(matches!(plan.fault, ReadyFault::CpuSqueeze(fault) if fault.cpu == CpuShare(50)));
    }

    #[test]
    fn a_condition_names_exactly_one_reading() {
        let mut asked = spec();
        asked.abort = vec![asked.steady_state[0].clone(); 2];
        asked.abort[0].metric = Some("oom_kills".into());
        asked.abort[1].sli = None;
        assert_eq!(paths(&asked), ["abort[0]", "abort[1]"]);
    }

    #[test]
    fn nothing_that_is_no_number_gets_in() {
        for value in [f64::NAN, f64::INFINITY, -0.1] {
            let mut asked = spec();
            asked.steady_state[0].value = value;
            assert!(Plan::resolve(&asked).is_err(), "{value}");
        }
        for burn in [f64::NAN, 0.0, 1.1] {
            let mut asked = spec();
            asked.blast_radius.max_budget_burn = Some(burn);
            assert_eq!(paths(&asked), ["blast_radius.max_budget_burn"]);
        }
    }

    #[test]
    fn bursts_must_fit() {
        let mut asked = spec();
        asked.bursts.count = 4;
        asked.bursts.length = Some(Duration::from_secs(8));
        assert_eq!(paths(&asked), ["bursts.length"]);
        asked.bursts.count = 0;
        assert_eq!(paths(&asked), ["bursts.count"]);
        asked.bursts.count = 3;
        assert_eq!(Plan::resolve(&asked).unwrap().bursts.len(), 3);
    }

    #[test]
    fn extreme_times_are_refused_without_overflow() {
        let mut asked = spec();
        asked.duration = Duration::MAX;
        asked.windows.every = Duration::ZERO;
        asked.windows.look_back = Duration::MAX;
        asked.bursts.length = Some(Duration::MAX);
        asked.bursts.count = 32;
        assert!(Plan::resolve(&asked).is_err());
    }
}
