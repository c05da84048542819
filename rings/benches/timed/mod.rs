//! Agents in R2 that time something themselves and print it: two plans, launched in turns, and the medians of what they printed.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use agt_rings::Ring;
use agt_rings::cgroup::Join;
use agt_rings::launch::{Launcher, Streams};
use agt_rings::plan::Plan;
use agt_rings::spec::{Access, Enforcement, FileRule, Spec};

/// A script in a folder that is its own.
pub(crate) fn spec(script: &str, folder: &Path) -> Spec {
    Spec {
        // Limits of control groups are not what is measured here.
        enforcement: Enforcement::BestEffort,
        argv: ["perl", "-e", script].map(OsString::from).to_vec(),
        files: vec![FileRule { path: folder.to_owned(), access: Access::Write }],
        own_id: agt_rings::builtin::OWN_ID_BASE + 8,
        ..Spec::new("bench", Ring::R2, "/usr/bin/perl", folder)
    }
}

/// Launches each plan so many times, in turns; the medians of each number that they print, which are `numbers` many.
pub(crate) fn in_turns(
    launcher: &Launcher,
    plans: &[Plan; 2],
    launches: usize,
    numbers: usize,
) -> Result<[Vec<f64>; 2], Box<dyn Error>> {
    let mut printed = [Vec::new(), Vec::new()];
    for _ in 0..launches {
        for (plan, printed) in plans.iter().zip(&mut printed) {
            printed.push(run(launcher, plan, numbers)?);
        }
    }
    Ok(printed.map(|all| (0..numbers).map(|at| median(all.iter().map(|one| one[at]))).collect()))
}

fn run(launcher: &Launcher, plan: &Plan, numbers: usize) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut out = tempfile::tempfile()?;
    let copy = || out.try_clone().map(Into::into);
    let streams = Streams { stdin: File::open("/dev/null")?.into(), stdout: copy()?, stderr: copy()? };
    let mut running = launcher.launch(plan, &streams, &Join::default())?;
    // Held to the end: an attendant that nobody listens to would have less to do.
    let notices = running.take_notices();
    let _ = running.read_exit()?;
    drop(notices);
    let mut text = String::new();
    out.rewind()?;
    out.read_to_string(&mut text)?;
    match text.lines().map(str::parse).collect::<Result<Vec<f64>, _>>() {
        Ok(all) if all.len() == numbers => Ok(all),
        _ => Err(format!("the agent said: {text}").into()),
    }
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
