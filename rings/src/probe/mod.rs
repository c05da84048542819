//! The probe: asks the kernel, in each ring, for what the ring must refuse and for what it must allow, and reports the answers.
//!
//! Why it can be believed: every attack is also run unconfined, by the same code and where possible the same user. Only when
//! that *control* gets through (or meets the errno that lies behind the permission check) does a refusal in the ring count;
//! else the verdict is `n/a`, which is no pass. A refusal counts only with an answer that one of the named layers gives.
//! Decoys are looked at again afterwards: a refusal that changed something is a success.
//!
//! Why it is safe on a production host: attacks aim at decoys that the probe makes and removes, pass arguments that the kernel
//! refuses after its permission check, or stop at a bound of their own. Rings are launched by the real launcher from a real
//! plan, one launch an attack, so that one attack's end is never another's.
//!
//! ```text
//! session: decoys, launcher, control group
//!   for each ring, for each attack:  fresh decoy tree -> control (once a user) -> launch in the ring -> look -> judge
//! ```

mod answering;
mod attack;
mod controls;
mod decoys;
mod judge;
mod launched;
mod layer;
pub mod outlook;
mod output;
mod scene;
mod session;
pub mod survey;
mod tree;
mod wire;

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::layer::{Layer, UnknownLayer};
use crate::launch::{By, LaunchError};
use crate::report::Gap;
use crate::ring::Ring;

/// `argv[0]` of an attacker.
const ATTACK_NAME: &str = "agt-probe-attack";

/// Becomes an attacker when this process was started as one; returns at once in every other process. To be called in `main`
/// right after [`crate::launch::become_launcher_if_asked`], while there is one thread.
pub fn run_attack_if_asked() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name.as_bytes() != ATTACK_NAME.as_bytes()) {
        return;
    }
    let text = |argument: Option<std::ffi::OsString>| argument.and_then(|text| text.into_string().ok());
    let (name, scene) = (text(arguments.next()), text(arguments.next()));
    std::process::exit(attack::stand::play(&name.unwrap_or_default(), scene.as_deref()));
}

/// What a ring should answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// It must not succeed.
    Denied,
    /// It must succeed.
    Allowed,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Expected::Denied => "denied",
            Expected::Allowed => "allowed",
        })
    }
}

/// What the answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// As expected.
    #[serde(rename = "pass")]
    Pass,
    /// Not as expected.
    #[serde(rename = "fail")]
    Fail,
    /// It shows nothing: the control did not get through, or it could not be tried. No pass.
    #[serde(rename = "n/a")]
    NotApplicable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::NotApplicable => "n/a",
        })
    }
}

/// One line of a probe: an attack or an act in one ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The ring.
    pub ring: Ring,
    /// The attack's name.
    pub name: String,
    /// What was asked.
    pub asked: String,
    /// What the ring should answer.
    pub expected: Expected,
    /// `ok`, the errno or signal by name, or words.
    pub got: String,
    /// The layers that should stop it in this ring, comma-separated; empty for an allowed act.
    pub layer: String,
    /// What the answer is worth.
    pub verdict: Verdict,
    /// Why this verdict; for a denial also what a success would give.
    pub reason: String,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Probed {
    /// In the order of rings and attacks.
    pub findings: Vec<Finding>,
    /// How long each of them took, its control included where that was not known yet, waiting for a worker left out.
    pub took: Vec<Duration>,
    /// Rings that can't be enforced in full here and were probed with what there is: their gaps show as failing attacks.
    pub gaps: Vec<(Ring, Vec<Gap>)>,
}

/// How many findings of a ring came out how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Attacks denied as promised.
    pub denied: usize,
    /// Acts allowed as promised.
    pub allowed: usize,
    /// Mismatches.
    pub failed: usize,
    /// What could not be judged.
    pub not_applicable: usize,
}

impl Probed {
    /// Whether everything that could be judged came out as expected.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        self.findings.iter().all(|finding| finding.verdict != Verdict::Fail)
    }

    /// Counts one ring's findings.
    #[must_use]
    pub fn tally(&self, ring: Ring) -> Tally {
        let mut tally = Tally::default();
        for finding in self.findings.iter().filter(|finding| finding.ring == ring) {
            match (finding.verdict, finding.expected) {
                (Verdict::Pass, Expected::Denied) => tally.denied += 1,
                (Verdict::Pass, Expected::Allowed) => tally.allowed += 1,
                (Verdict::Fail, _) => tally.failed += 1,
                (Verdict::NotApplicable, _) => tally.not_applicable += 1,
            }
        }
        tally
    }
}

/// What a caller can choose.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where decoys are made; `None`: /var/tmp, else the directory for temporary files. Not below a tree that a ring shows
    /// (/usr, /etc, /opt, /srv, /var/lib).
    pub directory: Option<PathBuf>,
    /// Only these attacks; empty: all.
    pub only: Vec<String>,
    /// Layers that the probe's own agents go without, so that what rests on them shows as mismatches. For tests of the rings
    /// themselves; it takes root, and some layers are only left out in a debug build.
    pub without: Vec<Layer>,
    /// How the launcher makes processes.
    pub by: By,
}

/// The probe itself could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A decoy could not be made.
    #[error("can't prepare the probe's decoys ({doing})")]
    Decoy {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The launcher is not there.
    #[error("can't launch")]
    Launch(#[from] LaunchError),
    /// A control group could not be made or removed.
    #[error("can't use control groups")]
    Cgroup(#[from] crate::cgroup::Error),
    /// A name in [`Options::only`] is none of ours.
    #[error("unknown attack `{0}`")]
    UnknownAttack(String),
}

impl Error {
    fn decoy(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let doing = doing.into();
        move |source| Error::Decoy { doing, source }
    }
}

/// The names of all attacks and acts, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    attack::all().map(|attack| attack.name)
}

/// Probes `rings`. Takes seconds. Call it from a process whose `main` begins with the two hooks, best before any thread is
/// started: only then can a secret be planted in the environment.
///
/// # Errors
/// Only when the probe itself can't run; an attack that gets through is a finding.
pub fn probe(rings: &[Ring], options: &Options) -> Result<Probed, Error> {
    if let Some(unknown) = options.only.iter().find(|name| !names().any(|known| known == name.as_str())) {
        return Err(Error::UnknownAttack(unknown.clone()));
    }
    session::run(rings, options)
}
