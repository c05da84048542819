//! Tries the probe from a shell: `probe [--json] [RING ...] [ATTACK ...]`.

use std::process::ExitCode;

use agt_rings::Ring;
use agt_rings::launch::become_launcher_if_asked;
use agt_rings::probe::{Options, Verdict, probe, run_attack_if_asked};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    become_launcher_if_asked();
    run_attack_if_asked();
    let mut rings: Vec<Ring> = Vec::new();
    let mut options = Options::default();
    let mut json = false;
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(ring) => rings.push(ring),
            Err(_) if argument == "--json" => json = true,
            Err(_) => options.only.push(argument),
        }
    }
    if options.only == ["doctor"] {
        let survey = agt_rings::probe::survey::survey(&std::env::current_dir()?)?;
        println!("{}", serde_json::to_string_pretty(&survey)?);
        return Ok(ExitCode::SUCCESS);
    }
    if rings.is_empty() {
        rings = Ring::ALL.to_vec();
    }
    let start = std::time::Instant::now();
    let probed = probe(&rings, &options)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&probed.findings)?);
    }
    for finding in probed.findings.iter().filter(|f| f.verdict != Verdict::Pass || !options.only.is_empty()) {
        eprintln!(
            "{} {} {}: {} ({}) {}",
            finding.ring, finding.name, finding.verdict, finding.got, finding.layer, finding.reason
        );
    }
    for ring in rings {
        eprintln!("{ring} {:?}", probed.tally(ring));
    }
    for (ring, gaps) in &probed.gaps {
        eprintln!("{ring} gaps {gaps:?}");
    }
    eprintln!("{:?}", start.elapsed());
    Ok(if probed.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
