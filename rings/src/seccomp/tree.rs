//! Our compiler: one program per policy, a balanced search over ranges of numbers with the argument checks as leaves.
//!
//! Why not a list of comparisons, as most builders emit: the kernel runs a new filter once for every number to find
//! those that are always allowed (`seccomp_cache_prepare`), so a list of 320 calls costs 320 x 470 steps at each load,
//! about 700 us; a tree costs eight steps a number. Policies come in ranges, and in ranges with single exceptions (`all
//! of 17 to 63 but 29`): those become one comparison for equality instead of two for order. Only loads, `and`, jumps
//! and returns are used: with others the kernel gives up its table of always-allowed numbers and runs the filter each
//! time.

use super::bpf::{Assembler, Label, OFFSET_ARCH, OFFSET_NUMBER, offset_high, offset_low, opcode, verdict};
use super::leaf::{Block, Catches, Leaf, Step};
use super::policy::{Condition, Decision, Policy, Refusal, Rule, Test};
use super::program::Program;
use super::{Arch, Error};

/// Most single exceptions that one leaf of the search compares in a row: a bound on the depth.
const MAX_EXCEPTIONS: usize = 6;

/// Compiles a policy into one program.
///
/// # Errors
/// [`Error::JumpTooFar`] when the program grows past what BPF's short jumps can span (about 255 instructions).
pub fn compile(policy: &Policy) -> Result<Program, Error> {
    let mut compiler = Compiler::new(policy.arch);
    compiler.prologue();
    let segments = segments(&runs(policy));
    let root = compiler.entry(&segments);
    if let [only] = segments.as_slice()
        && only.exceptions.is_empty()
    {
        // One answer to every number: no search, but still a jump over what comes next.
        compiler.assembler.branch(opcode::JUMP_AT_LEAST, 0, root, root);
    }
    compiler.search(&segments, root);
    compiler.check_blocks();
    compiler.returns();
    Program::new(compiler.assembler.assemble(policy.arch)?)
}

/// A range of numbers with the same rule, from `first` to the next run's first.
#[derive(Debug, Clone)]
struct Run {
    first: u32,
    rule: Leaf,
}

/// Cuts the numbers 0 to 2^32 - 1 into runs, neighbours different.
fn runs(policy: &Policy) -> Vec<Run> {
    let unknown = Leaf::of(&Rule::Always(policy.unknown), policy);
    let mut runs: Vec<Run> = Vec::new();
    let mut push = |first, rule: &Leaf| {
        if runs.last().is_none_or(|last| last.rule != *rule) {
            runs.push(Run { first, rule: rule.clone() });
        }
    };
    let mut next = 0;
    for (&number, rule) in &policy.rules {
        if number > next {
            push(next, &unknown);
        }
        push(number, &Leaf::of(rule, policy));
        next = number + 1;
    }
    push(next, &unknown);
    runs
}

/// A range of numbers with one rule and a few single exceptions.
#[derive(Debug)]
struct Segment {
    first: u32,
    rule: Leaf,
    exceptions: Vec<Run>,
}

/// Joins runs into segments so that the number of comparisons (one an exception, one between two segments) is least.
fn segments(runs: &[Run]) -> Vec<Segment> {
    // best[i] = (comparisons, start of the last segment) for the runs before i. `segment` costs one per exception; the
    // one for the boundary counts for each segment, since only the number of segments matters to the comparison.
    let mut best: Vec<(usize, usize)> = vec![(0, 0)];
    for end in 1..=runs.len() {
        let earliest = end.saturating_sub(2 * MAX_EXCEPTIONS + 1);
        let candidates = (earliest..end).filter_map(|start| {
            let exceptions = exceptions(&runs[start..end], runs.get(end))?;
            Some((best[start].0 + exceptions + 1, start))
        });
        best.push(candidates.min().expect("a single run is a segment without exceptions"));
    }
    let mut segments = Vec::new();
    let mut end = runs.len();
    while end > 0 {
        let start = best[end].1;
        let (base, rest) = base(&runs[start..end], runs.get(end)).expect("chosen above as a segment");
        segments.push(Segment { first: runs[start].first, rule: base, exceptions: rest });
        end = start;
    }
    segments.reverse();
    segments
}

fn exceptions(runs: &[Run], next: Option<&Run>) -> Option<usize> {
    base(runs, next).map(|(_, exceptions)| exceptions.len())
}

/// The rule that all of `runs` share but for single numbers, and those; none where there is no such rule.
fn base(runs: &[Run], next: Option<&Run>) -> Option<(Leaf, Vec<Run>)> {
    let is_single = |at: usize| {
        let following = runs.get(at + 1).or(next);
        following.is_some_and(|following| following.first == runs[at].first + 1)
    };
    // Among the first two, since two neighbours can't both be exceptions to a third rule and still be worth it.
    runs.iter()
        .take(2)
        .filter_map(|candidate| {
            let others: Vec<usize> = (0..runs.len()).filter(|at| runs[*at].rule != candidate.rule).collect();
            let fits = others.len() <= MAX_EXCEPTIONS && others.iter().all(|at| is_single(*at));
            fits.then(|| (candidate.rule.clone(), others.iter().map(|at| runs[*at].clone()).collect::<Vec<_>>()))
        })
        .min_by_key(|(_, exceptions)| exceptions.len())
}

/// What the accumulator holds: an argument's low half, under a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loaded {
    arg: u8,
    mask: u32,
}

struct Compiler {
    arch: Arch,
    assembler: Assembler,
    /// Labels of the verdicts in use, to be emitted last.
    returns: Vec<(u32, Label)>,
    /// Labels of the blocks of checks in use.
    blocks: Vec<(Block, Label)>,
}

impl Compiler {
    fn new(arch: Arch) -> Compiler {
        Compiler { arch, assembler: Assembler::default(), returns: Vec::new(), blocks: Vec::new() }
    }

    /// The ABI first: the same number means another call in another ABI.
    fn prologue(&mut self) {
        let (native, foreign) =
            (self.assembler.label(), self.return_label(verdict(Decision::Refuse(Refusal::KillProcess))));
        self.assembler.statement(opcode::LOAD, OFFSET_ARCH);
        self.assembler.branch(opcode::JUMP_EQUAL, self.arch.audit(), native, foreign);
        self.assembler.place(native);
        self.assembler.statement(opcode::LOAD, OFFSET_NUMBER);
    }

    fn return_label(&mut self, verdict: u32) -> Label {
        if let Some((_, label)) = self.returns.iter().find(|(known, _)| *known == verdict) {
            return *label;
        }
        let label = self.assembler.label();
        self.returns.push((verdict, label));
        label
    }

    fn rule_label(&mut self, rule: &Leaf) -> Label {
        match rule {
            Leaf::Always(verdict) => self.return_label(*verdict),
            Leaf::Checked(block) => {
                if let Some((_, label)) = self.blocks.iter().find(|(known, _)| known == block) {
                    return *label;
                }
                let label = self.assembler.label();
                self.blocks.push((block.clone(), label));
                label
            }
        }
    }

    /// Where the search among these segments starts: the rule itself when there is nothing left to search.
    fn entry(&mut self, segments: &[Segment]) -> Label {
        match segments {
            [only] if only.exceptions.is_empty() => self.rule_label(&only.rule),
            _ => self.assembler.label(),
        }
    }

    fn search(&mut self, segments: &[Segment], entry: Label) {
        if let [only] = segments {
            // Without exceptions `entry` is the rule's own label, and the search above jumps there.
            if !only.exceptions.is_empty() {
                self.assembler.place(entry);
                self.exceptions(only);
            }
            return;
        }
        self.assembler.place(entry);
        let (left, right) = segments.split_at(segments.len() / 2);
        let (lower, upper) = (self.entry(left), self.entry(right));
        self.assembler.branch(opcode::JUMP_AT_LEAST, right[0].first, upper, lower);
        self.search(left, lower);
        self.search(right, upper);
    }

    fn exceptions(&mut self, segment: &Segment) {
        for (at, exception) in segment.exceptions.iter().enumerate() {
            let last = at + 1 == segment.exceptions.len();
            let yes = self.rule_label(&exception.rule);
            let no = if last { self.rule_label(&segment.rule) } else { self.assembler.label() };
            self.assembler.branch(opcode::JUMP_EQUAL, exception.first, yes, no);
            if !last {
                self.assembler.place(no);
            }
        }
    }

    fn check_blocks(&mut self) {
        for (block, label) in std::mem::take(&mut self.blocks) {
            self.assembler.place(label);
            for (at, step) in block.steps.iter().enumerate() {
                let last = at + 1 == block.steps.len();
                let pass = if last { self.return_label(block.otherwise) } else { self.assembler.label() };
                self.step(step, pass);
                if !last {
                    self.assembler.place(pass);
                }
            }
        }
    }

    fn step(&mut self, step: &Step, pass: Label) {
        let caught = self.return_label(step.verdict);
        let (clauses, hit, miss) = match step.catches {
            Catches::When => (&step.clauses, caught, pass),
            Catches::Unless => (&step.clauses, pass, caught),
        };
        let mut loaded: Option<Loaded> = None;
        for (at, clause) in clauses.iter().enumerate() {
            assert!(!clause.is_empty(), "a clause without conditions would refuse or allow everything");
            // A clause is left by its first condition with that argument still loaded ("warm"), by a later one with
            // something else. The next clause gets a way in for each, and loads only where it must.
            let next_needs = clauses.get(at + 1).and_then(|next| next.first()).map(|condition| condition.arg);
            let (warm, cold) = match next_needs {
                None => (miss, miss),
                Some(_) => (self.assembler.label(), self.assembler.label()),
            };
            let mut after_first = None;
            for (position, condition) in clause.iter().enumerate() {
                let yes = if position + 1 == clause.len() { hit } else { self.assembler.label() };
                self.condition(condition, yes, if position == 0 { warm } else { cold }, &mut loaded);
                if position == 0 {
                    after_first = loaded;
                }
                if position + 1 != clause.len() {
                    self.assembler.place(yes);
                }
            }
            if let Some(arg) = next_needs {
                let wanted = Some(Loaded { arg, mask: u32::MAX });
                let warm_has_it = after_first == wanted;
                if !warm_has_it {
                    self.assembler.place(warm);
                }
                self.assembler.place(cold);
                // Nobody comes in cold when the clause had one condition.
                if !warm_has_it || clause.len() > 1 {
                    self.assembler.statement(opcode::LOAD, offset_low(arg));
                }
                if warm_has_it {
                    self.assembler.place(warm);
                }
                loaded = wanted;
            }
        }
    }

    fn condition(&mut self, condition: &Condition, yes: Label, no: Label, loaded: &mut Option<Loaded>) {
        match &condition.test {
            Test::OneOf { mask, values } => self.any_equal(condition.arg, *mask, values, (yes, no), loaded),
            Test::NoneOf { mask, values } => self.any_equal(condition.arg, *mask, values, (no, yes), loaded),
            Test::AnyBit(bits) => self.compare(condition.arg, opcode::JUMP_ANY_BIT, *bits, (yes, no), loaded),
            Test::NoBit(bits) => self.compare(condition.arg, opcode::JUMP_ANY_BIT, *bits, (no, yes), loaded),
            Test::Above(limit) => self.compare(condition.arg, opcode::JUMP_ABOVE, *limit, (yes, no), loaded),
            Test::AtMost(limit) => self.compare(condition.arg, opcode::JUMP_ABOVE, *limit, (no, yes), loaded),
            Test::Whole(value) => self.equal_whole(condition.arg, *value, (yes, no), loaded),
            Test::NotWhole(value) => self.equal_whole(condition.arg, *value, (no, yes), loaded),
        }
    }

    fn load(&mut self, arg: u8, mask: u32, loaded: &mut Option<Loaded>) {
        let wanted = Loaded { arg, mask };
        if *loaded == Some(wanted) {
            return;
        }
        if *loaded != Some(Loaded { arg, mask: u32::MAX }) {
            self.assembler.statement(opcode::LOAD, offset_low(arg));
        }
        if mask != u32::MAX {
            self.assembler.statement(opcode::AND, mask);
        }
        *loaded = Some(wanted);
    }

    fn compare(&mut self, arg: u8, code: u16, k: u32, (yes, no): (Label, Label), loaded: &mut Option<Loaded>) {
        self.load(arg, u32::MAX, loaded);
        self.assembler.branch(code, k, yes, no);
    }

    fn any_equal(
        &mut self,
        arg: u8,
        mask: u32,
        values: &[u32],
        (yes, no): (Label, Label),
        loaded: &mut Option<Loaded>,
    ) {
        self.load(arg, mask, loaded);
        for (at, value) in values.iter().enumerate() {
            let last = at + 1 == values.len();
            let next = if last { no } else { self.assembler.label() };
            self.assembler.branch(opcode::JUMP_EQUAL, *value, yes, next);
            if !last {
                self.assembler.place(next);
            }
        }
    }

    fn equal_whole(&mut self, arg: u8, value: u64, (yes, no): (Label, Label), loaded: &mut Option<Loaded>) {
        let low_fits = self.assembler.label();
        self.compare(arg, opcode::JUMP_EQUAL, value as u32, (low_fits, no), loaded);
        self.assembler.place(low_fits);
        self.assembler.statement(opcode::LOAD, offset_high(arg));
        self.assembler.branch(opcode::JUMP_EQUAL, (value >> 32) as u32, yes, no);
        *loaded = None;
    }

    /// One return for each verdict in use, at the end, where everything can jump to.
    fn returns(&mut self) {
        for (verdict, label) in std::mem::take(&mut self.returns) {
            self.assembler.place(label);
            self.assembler.statement(opcode::RETURN, verdict);
        }
    }
}
