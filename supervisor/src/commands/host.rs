//! `doctor`, `probe`, `schema`: what the command line asks of them.

use std::io;

use agt_rings::Ring;
use agt_rings::spec::Limits;

use super::check::{config_failure, surroundings};
use super::probe::ProbeArgs;
use super::{Failure, Form, Outcome, doctor as survey, print, probe as attacks};
use crate::cli::Global;
use crate::config::{self, SchemaKind, schema as schema_of_kind};
use crate::driver::streams::escaped;
use crate::exit;

fn form(global: &Global) -> Form {
    if global.json { Form::Json } else { Form::Text }
}

fn failed(error: &anyhow::Error) -> Failure {
    Failure::new(exit::UNAVAILABLE, format!("{error:#}"))
}

/// Shows what this machine can enforce.
///
/// # Errors
/// When it can't be found out.
pub fn doctor(global: &Global) -> Outcome {
    let directory = std::env::current_dir().map_err(|e| Failure::of(exit::USAGE, &e))?;
    // A wrong operator's file is said, and is no reason to say nothing of the host.
    let total = match super::dirs(global).and_then(|dirs| surroundings(&dirs)) {
        Ok(around) => config::total(None, &around).unwrap_or_else(|e| {
            let _ = config_failure(&e).report();
            Limits::default()
        }),
        Err(_) => Limits::default(),
    };
    survey::doctor(&directory, &total, form(global), &mut io::stdout().lock()).map_err(|e| failed(&e))?;
    Ok(0)
}

/// Attacks the rings; 1 on any mismatch.
///
/// # Errors
/// When the probe can't run.
pub fn probe(global: &Global, args: &ProbeArgs) -> Outcome {
    let rings: Vec<Ring> = match args.ring.and_then(Ring::from_number) {
        Some(ring) => vec![ring],
        None => Ring::ALL.to_vec(),
    };
    let options = agt_rings::probe::Options {
        #[cfg(debug_assertions)]
        without: args.without.clone(),
        #[cfg(debug_assertions)]
        only: args.only.clone(),
        #[cfg(debug_assertions)]
        by: if args.fork { agt_rings::launch::By::Fork } else { agt_rings::launch::By::WhatWorks },
        ..agt_rings::probe::Options::default()
    };
    #[cfg(debug_assertions)]
    let mut stderr = io::stderr().lock();
    #[cfg(debug_assertions)]
    let times = args.times.then_some(&mut stderr as &mut dyn io::Write);
    #[cfg(not(debug_assertions))]
    let times = None;
    match attacks::probe(&rings, &options, form(global), &mut io::stdout().lock(), times).map_err(|e| failed(&e))? {
        attacks::Outcome::AsExpected => Ok(0),
        attacks::Outcome::Mismatch => Ok(exit::NO),
    }
}

/// Prints a schema.
///
/// # Errors
/// An unknown kind.
pub fn schema(kind: &str) -> Outcome {
    let kind = SchemaKind::from_word(kind).ok_or_else(|| {
        let words = SchemaKind::ALL.map(SchemaKind::word).join(", ");
        Failure::usage(format!("there is no kind `{}`", escaped(kind))).help(format!("kinds: {words}"))
    })?;
    print(&schema_of_kind(kind));
    Ok(0)
}
