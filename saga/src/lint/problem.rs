//! What can be wrong with a saga, and where.

use std::fmt;

use super::{ATTEMPTS_MAX, ITEMS_MAX, NAME_BYTES_MAX, STEPS_MAX};

/// One fault and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file.
    pub path: Path,
    /// What is wrong.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.kind)
    }
}

impl std::error::Error for Problem {}

/// A place in the file, as `steps[2].needs[0]` or `steps.charge.needs[0]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Segment>);

/// One step down into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// A key of a map.
    Key(String),
    /// A position in a list, from 0.
    Index(usize),
}

impl Path {
    /// The path one key further down.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// The path one list position further down.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Every fault that the linter knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message is its variant's documentation")]
pub enum ProblemKind {
    #[error("version {found} is unknown; this program reads version 1")]
    Version { found: u32 },
    #[error("kind is `{found}`; a saga's file says `kind: saga`")]
    Kind { found: String },
    #[error("`{name}` is no name: 1 to {NAME_BYTES_MAX} letters, digits, `-` or `_`, beginning with a letter or digit")]
    Name { name: String },
    #[error("a saga needs at least one step")]
    NoSteps,
    #[error("{found} steps are too many; the limit is {STEPS_MAX}")]
    TooManySteps { found: usize },
    #[error("another step is called `{name}`")]
    DuplicateName { name: String },
    #[error("the command is empty")]
    EmptyCommand,
    #[error("no step is called `{name}`")]
    UnknownNeed { name: String, candidates: Vec<String> },
    #[error("`{name}` is needed twice")]
    DuplicateNeed { name: String },
    #[error("these steps wait for each other: {}", .path.join(" -> "))]
    Cycle { path: Vec<String> },
    #[error("`{text}` is no reference; write `steps.NAME.outputs` or `steps.NAME.outputs.KEY`")]
    BadReference { text: String },
    #[error("the input comes from `{name}`, but no step is called that")]
    UnknownInput { name: String, candidates: Vec<String> },
    #[error("the input comes from `{name}`, which need not be done by then")]
    InputNotBefore { name: String },
    #[error("a time limit of zero lets nothing run")]
    ZeroTimeout,
    #[error("{found} attempts are outside 1 to {ATTEMPTS_MAX}")]
    Attempts { found: u32 },
    #[error("the first wait is longer than the longest one")]
    Backoff,
    #[error("`on_unknown: rerun` needs `idempotent: true`: running it twice may act twice")]
    RerunNotIdempotent,
    #[error("`on_unknown: check` needs a `check`")]
    CheckMissing,
    #[error("`on_unknown: compensate` needs a `compensate`")]
    CompensateForUnknownMissing,
    #[error("nothing undoes this step if a later one fails")]
    CompensationMissing,
    #[error("a step without effects has nothing to compensate")]
    CompensationOfNothing,
    #[error("`{first}` is the pivot already; a saga has one point of no return")]
    SecondPivot { first: String },
    #[error("this step stands beside the pivot `{pivot}`: it must be done before it or start after it")]
    BesidePivot { pivot: String },
    #[error("past the pivot a step must be repeatable until it succeeds: `idempotent: true`")]
    NotRetriable,
    #[error("past the pivot `{pivot}` nothing is ever undone")]
    CompensationPastPivot { pivot: String },
    #[error("a step does one thing; this one says {}", .kinds.join(", "))]
    SeveralKinds { kinds: Vec<&'static str> },
    #[error("`{key}` means nothing for a step of kind `{kind}`")]
    NotForKind { key: &'static str, kind: &'static str },
    #[error("`{first}` and `{second}` are two words for one thing")]
    Twice { first: &'static str, second: &'static str },
    #[error("`class: {class}` contradicts `{other}`")]
    ClassContradicts { class: &'static str, other: &'static str },
    #[error("what is compensatable is undone, and past the pivot `{pivot}` nothing is ever undone")]
    CompensatablePastPivot { pivot: String },
    #[error("a retriable step comes after a pivot, and this one doesn't")]
    RetriableBeforePivot,
    #[error("what can't be undone needs an approval before it, or a `probe`")]
    IrreversibleUnguarded,
    #[error("an irreversible step has nothing that undoes it")]
    IrreversibleWithUndo,
    #[error("ring {ring} is more privileged than the saga's own, {ceiling}")]
    RingAboveCeiling { ring: u8, ceiling: u8 },
    #[error("`{url}` is no URL: it begins with `http://` or `https://`, and each `{{` has its `}}`")]
    Url { url: String },
    #[error("`{method}` is no method of HTTP")]
    Method { method: String },
    #[error("this step has no input called `{name}`")]
    NoSuchInput { name: String, candidates: Vec<String> },
    #[error("`{key}` is empty")]
    Empty { key: &'static str },
    #[error("{quorum} of {of} can never agree")]
    Quorum { quorum: u32, of: usize },
    #[error("`{name}` is named twice")]
    NamedTwice { name: String },
    #[error("`items` is a list, or a reference to one")]
    NoList,
    #[error("{found} items are too many; the limit is {ITEMS_MAX}")]
    TooManyItems { found: usize },
    #[error("{count} of {of} branches can never be done")]
    Enough { count: u32, of: usize },
    #[error("the point of no return is one step and can't fan out")]
    EachPivot,
    #[error("branches that are not needed are undone, and nothing undoes these")]
    LosersStay,
    #[error("the condition tests nothing")]
    EmptyCondition,
    #[error("a test needs a `value`")]
    TestWithoutValue,
    #[error("the saga has no parameter `{name}`")]
    UnknownParam { name: String, candidates: Vec<String> },
    #[error("the schema can't be used: {fault}")]
    BadSchema { fault: String },
    #[error("the default doesn't fit the schema: {fault}")]
    BadDefault { fault: String },
    #[error("dropping its files undoes it already")]
    FilesWithUndo,
    #[error("only the files of a step with `effects: files` are published")]
    PublishWithoutFiles,
}

impl ProblemKind {
    /// One thing that helps, where there is one.
    #[must_use]
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::CompensationMissing => {
                "add `compensate: {command: [...]}`, or `effects: none` when it only reads, or mark it `pivot: true`"
            }
            Self::IrreversibleUnguarded => {
                "let it need a step with `approval`, or give it a `probe` that looks for its effect"
            }
            Self::RetriableBeforePivot => "give it an `undo`, or let it need the pivot",
            Self::LosersStay => "give it an `undo`, or say `enough: all`",
            Self::BadSchema { .. } => {
                "known are type, enum, const, properties, required, items, sizes and bounds, allOf, anyOf, oneOf, not"
            }
            Self::InputNotBefore { .. } => "add that step to `needs`",
            Self::BadReference { .. } => "for a text that begins with `steps.` write `{literal: \"steps. ...\"}`",
            Self::BesidePivot { .. } => "add the pivot to its `needs`, or add this step to the pivot's",
            Self::NotRetriable => "use `AGT_IDEMPOTENCY_KEY` in the step so that a repeat is recognised",
            Self::RerunNotIdempotent => "or settle it with `on_unknown: check` or `on_unknown: compensate`",
            _ => return None,
        })
    }

    /// The word that was not known and those that would have been, for a "did you mean".
    #[must_use]
    pub fn unknown_word(&self) -> Option<(&str, &[String])> {
        match self {
            Self::UnknownNeed { name, candidates }
            | Self::UnknownInput { name, candidates }
            | Self::UnknownParam { name, candidates }
            | Self::NoSuchInput { name, candidates } => Some((name, candidates)),
            _ => None,
        }
    }
}
