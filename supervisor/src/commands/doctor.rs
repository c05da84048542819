//! `doctor`: what this kernel offers, which rings can be enforced, what to do about gaps. The data is [`Survey`]; here it is
//! only put into words.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use agt_rings::Ring;
use agt_rings::host::{LaunchPath, Privilege, Support};
use agt_rings::probe::survey::{Survey, survey};
use agt_rings::report::{Gap, in_words};
use agt_rings::spec::Limits;
use anyhow::Context;

use super::{Form, limits};

/// Looks at this host as a home of agents whose workdir is `directory` and whose operator limits all together by `total`, and writes what it found. Finding gaps is no error.
///
/// # Errors
/// When the host can't be looked at, or the output can't be written.
pub fn doctor(directory: &Path, total: &Limits, form: Form, out: &mut dyn Write) -> anyhow::Result<()> {
    let survey = survey(directory).context("can't look at this host")?;
    match form {
        Form::Json => {
            let mut value = serde_json::to_value(&survey)?;
            value["total"] = serde_json::to_value(total)?;
            serde_json::to_writer_pretty(&mut *out, &value)?;
            writeln!(out)?;
        }
        Form::Text => {
            write!(out, "{}", render(&survey))?;
            let kept: Vec<&str> = survey.cgroup.controllers.iter().map(String::as_str).collect();
            if let Some(text) = limits::total_for_doctor(total, &kept) {
                writeln!(out, "{text}")?;
            }
        }
    }
    Ok(())
}

/// The survey in words.
#[must_use]
pub fn render(survey: &Survey) -> String {
    let mut lines = vec![format!("  {}", offers(survey).join("   ")), directory(survey)];
    lines.extend(survey.cgroup.asked.iter().map(|words| format!("  systemd: {words}")));
    lines.extend(supervisors_own(survey));
    lines.push(rings(survey));
    let gaps = distinct_gaps(survey);
    // What one thing helps against, in the same rings, is told together.
    for alike in gaps.chunk_by(|(gap, rings), (next, others)| gap.help == next.help && rings == others) {
        let (first, rings) = &alike[0];
        let of_them: Vec<Gap> = alike.iter().map(|(gap, _)| (*gap).clone()).collect();
        lines.extend(in_words(&of_them).into_iter().map(|words| format!("  missing in {}: {words}", list(rings))));
        lines.push(format!("  help: {}", first.help));
    }
    lines.join("\n") + "\n"
}

fn offers(survey: &Survey) -> Vec<String> {
    let host = &survey.host;
    let landlock = host.landlock_abi.map_or("Landlock no".to_owned(), |abi| format!("Landlock ABI {abi}"));
    let cgroup = match survey.cgroup.controllers.as_slice() {
        [] => format!("{}, delegated by {}: no controllers", survey.cgroup.layout, survey.cgroup.delegated_by),
        some => format!("{}, delegated by {}: {}", survey.cgroup.layout, survey.cgroup.delegated_by, some.join(" ")),
    };
    let groups = if survey.cgroup.layout == "none" { "cgroups none to use".to_owned() } else { cgroup };
    let mut offers = vec![
        format!("kernel {}", host.kernel),
        landlock,
        format!("seccomp {}", word(&host.seccomp)),
        format!("user namespaces {}", word(&survey.user_namespaces)),
    ];
    if let Some(reason) = host.namespaces.reason() {
        offers.push(format!("namespaces for agents no ({reason})"));
    }
    offers.push(groups);
    if let LaunchPath::Fork { because } = &host.launch {
        offers.push(format!("launches by fork, which is slower ({because})"));
    }
    offers
}

/// What keeps the supervisor alive under agents that take all there is, and what ends them should it die all the same.
fn supervisors_own(survey: &Survey) -> Vec<String> {
    let Some(reserve) = &survey.cgroup.reserve else {
        return vec!["  if the supervisor is killed, agents end by their init's parent death signal alone: watchdog and sweep need a \
                     cgroup"
            .to_owned()];
    };
    let weight = reserve.cpu_weight.map_or_else(
        || "no CPU weight of its own (agents have a fifth of it)".to_owned(),
        |weight| format!("CPU weight {weight} (all agents together 20)"),
    );
    let memory = reserve.memory_bytes.map_or_else(
        || "no memory reserve (that takes a group of our own on cgroup v2)".to_owned(),
        |bytes| format!("{} MiB of memory reserved", bytes >> 20),
    );
    vec![format!("  the supervisor itself: {weight}, {memory}")]
}

fn word(support: &Support) -> String {
    support.reason().map_or_else(|| "yes".to_owned(), |reason| format!("no ({reason})"))
}

fn directory(survey: &Survey) -> String {
    let directory = &survey.directory;
    let id_map = match (survey.host.privilege, directory.id_map.reason()) {
        (Privilege::User { uid: 0, .. }, _) => {
            "agents run as uid 0, as you do: root without CAP_SYS_ADMIN can give them no uid of \
             their own"
                .to_owned()
        }
        (Privilege::User { uid, .. }, _) => format!("agents run as uid {uid}, as you do; one of their own takes root"),
        (Privilege::Root, None) => "id-mapped mounts yes: agents get uids of their own, files keep theirs".to_owned(),
        (Privilege::Root, Some(reason)) => format!("id-mapped mounts no ({reason})"),
    };
    format!("  workdirs in {} ({}): {id_map}", directory.path.display(), directory.filesystem)
}

/// `R0-R3 in full`, `R0, R2, R3 in full; R1 not`.
fn rings(survey: &Survey) -> String {
    let full: Vec<Ring> = survey.full().collect();
    let partial: Vec<Ring> = survey.rings.iter().filter(|report| !report.is_full()).map(|report| report.ring).collect();
    let needs: Vec<&str> = full
        .iter()
        .filter_map(|ring| match ring {
            Ring::R0 => Some("R0 needs an attestation"),
            Ring::R1 => Some("R1 `trust set`"),
            Ring::R2 | Ring::R3 => None,
        })
        .collect();
    let needs = if needs.is_empty() { String::new() } else { format!(" ({})", needs.join(", ")) };
    let rest = format!("only with `enforcement: best-effort`: {}", list(&partial));
    match (full.is_empty(), partial.is_empty()) {
        (false, true) => format!("  rings you can run here: {} in full{needs}", list(&full)),
        (false, false) => format!("  rings you can run here: {} in full{needs}; {rest}", list(&full)),
        _ => format!("  no ring can be enforced in full here; {rest}"),
    }
}

/// Neighbours are joined: `R0-R3`, `R0, R2-R3`.
fn list(rings: &[Ring]) -> String {
    let mut parts: Vec<(Ring, Ring)> = Vec::new();
    for &ring in rings {
        match parts.last_mut() {
            Some((_, last)) if last.number() + 1 == ring.number() => *last = ring,
            _ => parts.push((ring, ring)),
        }
    }
    let shown =
        parts.iter().map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    shown.collect::<Vec<_>>().join(", ")
}

/// Each gap once, with the rings that it touches.
fn distinct_gaps(survey: &Survey) -> Vec<(&Gap, Vec<Ring>)> {
    let mut order: Vec<&Gap> = Vec::new();
    let mut touched: BTreeMap<(&str, &str), Vec<Ring>> = BTreeMap::new();
    for report in &survey.rings {
        for gap in &report.gaps {
            let rings = touched.entry((gap.protection.name(), &gap.reason)).or_default();
            if rings.is_empty() {
                order.push(gap);
            }
            rings.push(report.ring);
        }
    }
    let with_rings = order.into_iter().map(|gap| {
        let rings = touched.remove(&(gap.protection.name(), gap.reason.as_str())).unwrap_or_default();
        (gap, rings)
    });
    with_rings.collect()
}

#[cfg(test)]
mod tests {
    use agt_rings::cgroup::Reserve;
    use agt_rings::host::{Controllers, Host};
    use agt_rings::probe::survey::{Directory, Groups};
    use agt_rings::report::{Protection, Report};

    use super::*;

    fn survey_with(gaps: [&[Protection]; 4]) -> Survey {
        let report = |(ring, gaps): (Ring, &[Protection])| Report {
            ring,
            enforced: Vec::new(),
            launch: Default::default(),
            gaps: gaps
                .iter()
                .map(|protection| Gap {
                    protection: *protection,
                    reason: "needs the cgroup controller memory".to_owned(),
                    help: "delegate it".to_owned(),
                    controller: None,
                })
                .collect(),
        };
        Survey {
            host: Host {
                kernel: "6.18".to_owned(),
                landlock_abi: Some(7),
                seccomp: Support::Yes,
                privilege: Privilege::User { uid: 1000, gid: 1000 },
                namespaces: Support::Yes,
                controllers: Controllers::none("test"),
                capabilities: agt_rings::capability::Capabilities::NONE,
                own_ids: Support::Yes,
                groups: Vec::new(),
                launch: Default::default(),
                notify: Support::Yes,
            },
            user_namespaces: Support::Yes,
            cgroup: Groups {
                layout: "cgroup v2".to_owned(),
                own: None,
                delegated_by: "systemd --user".to_owned(),
                asked: None,
                reserve: None,
                controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
                gaps: Vec::new(),
            },
            directory: Directory { path: "/w".into(), filesystem: "ext4".to_owned(), id_map: Support::Yes },
            rings: Ring::ALL.into_iter().zip(gaps).map(report).collect(),
        }
    }

    #[test]
    fn a_host_that_can_do_everything_says_so_in_one_line() {
        let text = render(&survey_with([&[], &[], &[], &[]]));
        assert!(
            text.contains("rings you can run here: R0-R3 in full (R0 needs an attestation, R1 `trust set`)"),
            "{text}"
        );
        assert!(text.contains("kernel 6.18   Landlock ABI 7   seccomp yes   user namespaces yes"), "{text}");
        assert!(text.contains("cgroup v2, delegated by systemd --user: cpu memory pids"), "{text}");
        assert!(!text.contains("missing") && !text.contains("help:"), "{text}");
    }

    #[test]
    fn a_host_that_must_fork_says_so_and_why() {
        let mut survey = survey_with([&[], &[], &[], &[]]);
        assert!(!render(&survey).contains("fork"));
        survey.host.launch = LaunchPath::Fork { because: "clone3(2): Function not implemented".to_owned() };
        assert!(
            render(&survey).contains("launches by fork, which is slower (clone3(2): Function"),
            "{}",
            render(&survey)
        );
    }

    #[test]
    fn a_gap_of_several_rings_is_told_once_with_its_help() {
        let memory: &[Protection] = &[Protection::MemoryLimit];
        let text = render(&survey_with([&[], memory, memory, memory]));
        assert!(
            text.contains("R0 in full (R0 needs an attestation); only with `enforcement: best-effort`: R1-R3"),
            "{text}"
        );
        assert_eq!(text.matches("missing in R1-R3: memory-limit").count(), 1, "{text}");
        assert_eq!(text.matches("help: delegate it").count(), 1, "{text}");
    }

    #[test]
    fn no_ring_in_full_is_not_called_runnable() {
        let memory: &[Protection] = &[Protection::MemoryLimit];
        let text = render(&survey_with([memory; 4]));
        assert!(text.contains("no ring can be enforced in full here"), "{text}");
    }

    #[test]
    fn what_the_supervisor_has_for_itself_and_what_is_left_when_it_dies_is_said() {
        let mut survey = survey_with([&[], &[], &[], &[]]);
        assert!(render(&survey).contains("by their init's parent death signal alone"));
        survey.cgroup.reserve = Some(Reserve { cpu_weight: Some(1000), memory_bytes: Some(64 << 20) });
        let text = render(&survey);
        assert!(
            text.contains("the supervisor itself: CPU weight 1000 (all agents together 20), 64 MiB of memory reserved")
        );
        survey.cgroup.reserve = Some(Reserve::default());
        assert!(render(&survey).contains("no memory reserve (that takes a group of our own on cgroup v2)"));
    }

    #[test]
    fn neighbouring_rings_are_joined() {
        assert_eq!(list(&[Ring::R0, Ring::R2, Ring::R3]), "R0, R2-R3");
        assert_eq!(list(&[Ring::R1]), "R1");
    }
}
