//! Sagas of every kind of step, made from a seed: what each step is, and how the world answers it.
//!
//! The description is the harness's own; the plan is made from it by way of a spec, and the model reads nothing else.

use std::collections::BTreeMap;

use agt_saga::lint;
use agt_saga::plan::Plan;
use serde_json::{Value, json};

use crate::cases::Dice;

/// What a step is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Effect,
    Wait,
    /// Two of three have to agree; so many of them do.
    Approval {
        yes: usize,
    },
    Fan {
        items: usize,
        enough: usize,
        word: Value,
    },
}

/// How an effect that nobody knows of is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settle {
    Rerun,
    Probe,
    Undo,
    Operator,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) needs: Vec<String>,
    pub(crate) pivot: bool,
    pub(crate) past: bool,
    pub(crate) reads_only: bool,
    pub(crate) irreversible: bool,
    pub(crate) settle: Settle,
    /// The step whose `flag` has to be true.
    pub(crate) when: Option<String>,
    /// Whether it fails where a need gave nothing.
    pub(crate) strict: bool,
    /// What it gives under `flag`.
    pub(crate) flag: bool,
}

/// How the world answers one step or branch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) always_fails: bool,
    pub(crate) fails: u32,
    pub(crate) hangs: bool,
    pub(crate) hang_applies: bool,
    pub(crate) undo_fails: u32,
    pub(crate) undo_always_fails: bool,
    pub(crate) probe_fails: u32,
    pub(crate) ms: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Graph {
    pub(crate) seed: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) scripts: BTreeMap<String, Script>,
    /// After so many appends an operator cancels it, and once more after so many.
    pub(crate) cancels: Vec<usize>,
    pub(crate) plan: Plan,
}

impl Graph {
    pub(crate) fn node(&self, name: &str) -> &Node {
        let step = name.split('.').next().unwrap();
        self.nodes.iter().find(|node| node.name == step).unwrap()
    }

    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5a6a_5a6a);
        let before = 2 + dice.below(4);
        let pivot = dice.percent(30);
        let after = if pivot { dice.below(3) } else { 0 };
        let mut nodes: Vec<Node> = Vec::new();
        for at in 0..before + u64::from(pivot) + after {
            let node = node(&mut dice, at, before, pivot, &nodes);
            nodes.push(node);
        }
        let mut scripts = BTreeMap::new();
        for node in &nodes {
            for name in node.actors() {
                let branch = matches!(node.kind, Kind::Fan { .. });
                scripts.insert(name, script(&mut dice, branch));
            }
        }
        if dice.percent(50) {
            let at = dice.below(scripts.len().max(1) as u64) as usize;
            if let Some(script) = scripts.values_mut().nth(at) {
                script.always_fails = true;
            }
        }
        let cancels = if !pivot && dice.percent(15) {
            let first = 1 + dice.below(8) as usize;
            (0..1 + dice.below(3) as usize).map(|more| first + more).collect()
        } else {
            Vec::new()
        };
        Self::new(seed, nodes, scripts, cancels)
    }

    pub(crate) fn new(seed: u64, nodes: Vec<Node>, scripts: BTreeMap<String, Script>, cancels: Vec<usize>) -> Self {
        let steps: Vec<Value> = nodes.iter().map(|node| node.spec(&nodes, &scripts)).collect();
        let spec = json!({"version": 1, "kind": "saga", "name": format!("seed-{seed}"), "steps": steps});
        let plan = lint::plan(&serde_json::from_value(spec).unwrap());
        let plan = plan.unwrap_or_else(|problems| panic!("seed {seed}: {problems:#?}\n{steps:#?}"));
        Self { seed, nodes, scripts, cancels, plan }
    }
}

fn node(dice: &mut Dice, at: u64, before: u64, pivot: bool, earlier: &[Node]) -> Node {
    let (is_pivot, past) = (pivot && at == before, pivot && at > before);
    let name = format!("s{at}");
    let needs: Vec<String> = if is_pivot {
        earlier.iter().map(|node| node.name.clone()).collect()
    } else {
        let first = if past { before } else { 0 };
        let mut needs: Vec<String> =
            (first..at).filter(|_| dice.percent(45)).map(|other| format!("s{other}")).collect();
        if past && !needs.contains(&format!("s{before}")) {
            needs.push(format!("s{before}"));
        }
        needs
    };
    let kind = match dice.below(100) {
        _ if is_pivot => Kind::Effect,
        0..8 => Kind::Wait,
        8..18 => {
            Kind::Approval { yes: if dice.percent(75) { 2 + dice.below(2) as usize } else { dice.below(2) as usize } }
        }
        18..38 => {
            let items = 1 + dice.below(3) as usize;
            let (enough, word) = match dice.below(4) {
                _ if past => (items, json!("all")),
                0 => (1, json!("any")),
                1 => (items / 2 + 1, json!("majority")),
                2 => (items.min(2), json!(items.min(2))),
                _ => (items, json!("all")),
            };
            Kind::Fan { items, enough, word }
        }
        _ => Kind::Effect,
    };
    let reads_only = kind == Kind::Effect && !is_pivot && dice.percent(12);
    let irreversible = kind == Kind::Effect && !is_pivot && !past && !reads_only && dice.percent(10);
    let settle = match dice.below(4) {
        _ if reads_only || past => Settle::Rerun,
        _ if irreversible => Settle::Probe,
        0 => Settle::Rerun,
        1 => Settle::Probe,
        2 if !is_pivot => Settle::Undo,
        _ => Settle::Operator,
    };
    let asked = needs.iter().filter(|need| earlier.iter().any(|node| node.name == **need && node.kind == Kind::Effect));
    let asked: Vec<&String> = asked.collect();
    let when = (!is_pivot && !asked.is_empty() && dice.percent(20))
        .then(|| asked[dice.below(asked.len() as u64) as usize].clone());
    let strict = kind == Kind::Effect && dice.percent(15);
    Node {
        name,
        kind,
        needs,
        pivot: is_pivot,
        past,
        reads_only,
        irreversible,
        settle,
        when,
        strict,
        flag: dice.percent(70),
    }
}

fn script(dice: &mut Dice, branch: bool) -> Script {
    Script {
        always_fails: branch && dice.percent(15),
        fails: if dice.percent(25) { 1 + dice.below(2) as u32 } else { 0 },
        hangs: dice.percent(15),
        hang_applies: dice.percent(50),
        undo_fails: if dice.percent(25) { 1 + dice.below(2) as u32 } else { 0 },
        undo_always_fails: dice.percent(6),
        probe_fails: dice.below(2) as u32,
        ms: 1 + dice.below(30) as i64,
    }
}

impl Node {
    /// Who of it acts on the world.
    pub(crate) fn actors(&self) -> Vec<String> {
        match &self.kind {
            Kind::Effect => vec![self.name.clone()],
            Kind::Fan { items, .. } => (0..*items).map(|item| format!("{}.{item}", self.name)).collect(),
            Kind::Wait | Kind::Approval { .. } => Vec::new(),
        }
    }

    pub(crate) fn has_undo(&self) -> bool {
        !self.reads_only && !self.irreversible && !self.past && !self.pivot
    }

    fn spec(&self, nodes: &[Node], scripts: &BTreeMap<String, Script>) -> Value {
        let mut step = json!({"name": self.name, "needs": self.needs});
        if let Some(step_name) = &self.when {
            step["when"] = json!({"value": format!("steps.{step_name}.outputs.flag")});
        }
        match &self.kind {
            Kind::Wait => {
                step["wait"] = json!("1s");
                return step;
            }
            Kind::Approval { .. } => {
                step["approval"] = json!({"who": ["ann", "bob", "eve"], "quorum": 2, "timeout": "5s"});
                return step;
            }
            Kind::Fan { items, word, .. } => {
                let items: Vec<usize> = (0..*items).collect();
                step["each"] = json!({"items": items, "enough": word});
            }
            Kind::Effect => {}
        }
        let most =
            |count: &dyn Fn(&Script) -> u32| self.actors().iter().map(|name| count(&scripts[name])).max().unwrap_or(0);
        let retry = |attempts: u32| json!({"attempts": attempts, "backoff": {"initial": "10ms", "max": "100ms"}});
        step["retry"] = retry(most(&|script| script.fails + u32::from(script.hangs)) + 1);
        step["timeout"] = json!("1s");
        let mut inputs = serde_json::Map::new();
        for need in self.needs.iter().filter(|need| nodes.iter().any(|n| n.name == **need && n.kind == Kind::Effect)) {
            let from = format!("steps.{need}.outputs.of");
            inputs.insert(need.clone(), if self.strict { json!(from) } else { json!({"from": from, "default": 0}) });
        }
        step["inputs"] = Value::Object(inputs);
        // The engine makes no difference between kinds of effects; here stands one of each now and then.
        match self.name.len() + self.needs.len() {
            3 => step["http"] = json!({"method": "POST", "url": "https://example.com/x"}),
            4 => step["mcp"] = json!({"server": ["server"], "tool": "tool"}),
            _ => step["command"] = json!(["run"]),
        }
        if self.reads_only {
            step["effects"] = json!("none");
            return step;
        }
        if self.pivot {
            step["class"] = json!("pivot");
        }
        if self.irreversible {
            step["class"] = json!("irreversible");
        }
        step["idempotent"] = json!(self.settle == Settle::Rerun);
        if self.settle == Settle::Probe {
            step["probe"] = json!(["probe"]);
        }
        if self.settle == Settle::Operator {
            step["on_unknown"] = json!("operator");
        }
        if self.has_undo() {
            step["undo"] = json!({"command": ["undo"]});
            step["undo"]["retry"] = retry(most(&|script| script.undo_fails) + 1);
        }
        step
    }
}
