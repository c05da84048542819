//! Sagas made from a seed: a graph, and how each step behaves when it is run.
//!
//! A generator of our own, because a seed then means the same saga on every machine and in every version.

use std::collections::BTreeMap;

use agt_saga::lint;
use agt_saga::plan::Plan;
use serde_json::{Value, json};

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a step behaves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) reads_only: bool,
    pub(crate) idempotent: bool,
    /// Its first runs fail cleanly, this many.
    pub(crate) fails: u64,
    pub(crate) always_fails: bool,
    /// Its run of this number never ends by itself.
    pub(crate) hangs_at: Option<u64>,
    /// A hanging run takes effect first.
    pub(crate) hang_applies: bool,
    pub(crate) check_fails: u64,
    pub(crate) undo_fails: u64,
    pub(crate) undo_always_fails: bool,
    pub(crate) before_ms: u64,
    pub(crate) after_ms: u64,
}

/// A saga and its steps' behaviour.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) plan: Plan,
    pub(crate) scripts: BTreeMap<String, Script>,
}

impl Case {
    pub(crate) fn from_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let before = 2 + dice.below(4);
        let pivot = dice.percent(35);
        let after = if pivot { dice.below(3) } else { 0 };
        let count = before + u64::from(pivot) + after;
        let fails_at = dice.percent(60).then(|| dice.below(count));
        let mut steps: Vec<Value> = Vec::new();
        let mut scripts = BTreeMap::new();
        for at in 0..count {
            let name = format!("s{at}");
            let past_pivot = pivot && at > before;
            let is_pivot = pivot && at == before;
            let needs: Vec<String> = if is_pivot {
                (0..before).map(|other| format!("s{other}")).collect()
            } else {
                let first = if past_pivot { before } else { 0 };
                let mut needs: Vec<String> =
                    (first..at).filter(|_| dice.percent(45)).map(|other| format!("s{other}")).collect();
                if past_pivot && !needs.contains(&format!("s{before}")) {
                    needs.push(format!("s{before}"));
                }
                needs
            };
            let mut script = script(&mut dice);
            script.always_fails = fails_at == Some(at);
            let step = step(&mut dice, &name, needs, is_pivot, past_pivot, &mut script);
            steps.push(step);
            scripts.insert(name, script);
        }
        let spec = json!({"version": 1, "kind": "saga", "name": format!("seed-{seed}"), "steps": steps});
        let plan = lint::plan(&serde_json::from_value(spec).unwrap());
        let plan = plan.unwrap_or_else(|problems| panic!("seed {seed}: {problems:?}\n{steps:#?}"));
        Self { plan, scripts }
    }
}

fn script(dice: &mut Dice) -> Script {
    let hangs = dice.percent(20);
    Script {
        fails: if dice.percent(30) { 1 + dice.below(2) } else { 0 },
        hangs_at: hangs.then(|| 1 + dice.below(2)),
        hang_applies: dice.percent(50),
        check_fails: dice.below(2),
        undo_fails: if dice.percent(30) { 1 } else { 0 },
        undo_always_fails: dice.percent(8),
        before_ms: dice.below(20),
        after_ms: dice.below(20),
        ..Script::default()
    }
}

fn step(dice: &mut Dice, name: &str, needs: Vec<String>, pivot: bool, past: bool, script: &mut Script) -> Value {
    let mut step = json!({"name": name, "command": ["run"], "needs": needs, "timeout": "1s"});
    let attempts = script.fails + u64::from(script.hangs_at.is_some()) + 1;
    step["retry"] = json!({"attempts": attempts, "backoff": {"initial": "10ms", "max": "100ms"}});
    // Inputs that can only be had when the order is kept.
    let inputs: BTreeMap<&str, Value> =
        needs.iter().map(|n| (n.as_str(), json!(format!("steps.{n}.outputs.of")))).collect();
    step["inputs"] = json!(inputs);
    if !pivot && dice.percent(15) {
        script.reads_only = true;
        script.idempotent = true;
        step["effects"] = json!("none");
        return step;
    }
    let undo = json!({"command": ["undo"], "timeout": "1s",
        "retry": {"attempts": 3, "backoff": {"initial": "10ms", "max": "100ms"}}});
    step["pivot"] = json!(pivot);
    if past {
        script.idempotent = true;
        step["idempotent"] = json!(true);
    } else if pivot {
        match dice.below(3) {
            0 => step["check"] = json!(["check"]),
            1 => step["on_unknown"] = json!("operator"),
            _ => step["compensate"] = undo,
        }
    } else {
        step["compensate"] = undo;
        match dice.below(4) {
            0 => {
                script.idempotent = true;
                step["idempotent"] = json!(true);
            }
            1 => step["check"] = json!(["check"]),
            2 => {
                step["check"] = json!({"command": ["check"], "timeout": "1s"});
                step["idempotent"] = json!(true);
                script.idempotent = true;
            }
            _ => step["on_unknown"] = json!("compensate"),
        }
    }
    step
}
