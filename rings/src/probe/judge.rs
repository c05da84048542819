//! From what an attack got to a verdict. Pure.

use nix::errno::Errno;

use super::attack::{Attack, Got};
use super::controls::{Control, gets_through};
use super::{Expected, Finding, Layer, Verdict};
use crate::ring::Ring;

impl Layer {
    /// Whether the ring has it at all: R0 sees the host's files and network.
    fn is_in(self, ring: Ring) -> bool {
        match self {
            Layer::Landlock | Layer::NoExecMount | Layer::Network | Layer::Ipc => ring != Ring::R0,
            Layer::Names => matches!(ring, Ring::R1 | Ring::R2),
            _ => true,
        }
    }

    /// Whether this answer is one that the layer gives. Any other refusal has another cause, and proves nothing.
    fn answers(self, got: &Got) -> bool {
        use Errno as E;
        let errnos: &[Errno] = match self {
            Layer::MountNamespace => {
                &[E::ENOENT, E::ENOTDIR, E::EACCES, E::EXDEV, E::EBUSY, E::ECONNREFUSED, E::ENOSPC]
            }
            Layer::ReadOnlyMount => &[E::EROFS, E::EXDEV, E::EBUSY],
            Layer::NoExecMount => &[E::EACCES, E::EPERM],
            Layer::Landlock => &[E::EACCES, E::EPERM, E::EXDEV],
            Layer::Seccomp => &[E::EPERM, E::ENOSYS],
            Layer::Names => &[E::EACCES],
            Layer::Pid => &[E::ESRCH, E::ENOENT],
            // No listener, no route, no such address of one's own, no such interface.
            Layer::Network => &[E::ECONNREFUSED, E::ENETUNREACH, E::EADDRNOTAVAIL, E::ENODEV],
            Layer::Ipc => &[E::ENOENT],
            Layer::Uid | Layer::Capabilities | Layer::NonDumpable => &[E::EACCES, E::EPERM],
            Layer::NoNewPrivileges => &[E::EPERM],
            Layer::Cgroup => &[E::EAGAIN, E::ENOMEM],
            Layer::Rlimit => &[E::EMFILE, E::EBADF, E::EPERM],
            Layer::CleanStart => &[],
        };
        match got {
            Got::Errno(errno) => errnos.iter().any(|known| *known as i32 == *errno),
            Got::Signal(libc::SIGSYS) => self == Layer::Seccomp,
            Got::Signal(libc::SIGKILL) => matches!(self, Layer::Cgroup | Layer::Pid),
            // A call that succeeds and gives nothing: no filter and no permission check does that.
            Got::Nothing(_) => {
                !matches!(self, Layer::Seccomp | Layer::Names | Layer::ReadOnlyMount | Layer::Rlimit | Layer::Ipc)
            }
            Got::Ok | Got::Signal(_) | Got::Setup(_) | Got::Silent(_) | Got::Late => false,
        }
    }
}

/// One run, to be judged.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) attack: &'a Attack,
    pub(super) ring: Ring,
    pub(super) expected: Expected,
    pub(super) got: Got,
    /// The decoys are not as they were.
    pub(super) has_changed: bool,
    pub(super) control: &'a Control,
}

/// What came of one attack.
pub(super) enum Ended {
    /// It was refused, got through, or could not be tried.
    Found(Finding),
    /// It came to no end in its time, or its control did; what that is worth if it stays so.
    Late(Finding),
}

impl Ended {
    pub(super) fn finding(self) -> Finding {
        match self {
            Ended::Found(finding) | Ended::Late(finding) => finding,
        }
    }
}

/// The verdict, with its reason.
pub(super) fn judge(run: &Run<'_>) -> Finding {
    let layers: Vec<Layer> = match run.expected {
        Expected::Denied => run.attack.layers.iter().copied().filter(|layer| layer.is_in(run.ring)).collect(),
        Expected::Allowed => Vec::new(),
    };
    let (verdict, reason) = verdict(run, &layers);
    Finding {
        ring: run.ring,
        name: run.attack.name.to_owned(),
        asked: run.attack.asked.to_owned(),
        expected: run.expected,
        got: run.got.words(),
        layer: names(&layers),
        verdict,
        reason,
    }
}

fn names(layers: &[Layer]) -> String {
    layers.iter().map(|layer| layer.name()).collect::<Vec<_>>().join(", ")
}

fn verdict(run: &Run<'_>, layers: &[Layer]) -> (Verdict, String) {
    let control = run.control;
    if !control.reaches(run.attack) {
        let text = format!("shows nothing: unconfined, {} got {}", control.user, control.got.words());
        return (Verdict::NotApplicable, text);
    }
    if let Got::Setup(text) = &run.got {
        return (Verdict::NotApplicable, format!("could not be tried in the ring: {text}"));
    }
    if run.got == Got::Late && !(run.has_changed && run.expected == Expected::Denied) {
        let text =
            "neither held nor broken: twice it came to no end, the second time with nothing of the probe's beside it";
        return (Verdict::NotApplicable, text.to_owned());
    }
    let unconfined = format!("unconfined, {} got {}", control.user, control.got.words());
    let through = gets_through(run.attack, &run.got);
    match run.expected {
        Expected::Allowed if through => (Verdict::Pass, unconfined),
        Expected::Allowed => (Verdict::Fail, format!("the ring should allow this; {unconfined}")),
        Expected::Denied if through => (Verdict::Fail, format!("got through, which gives {}", run.attack.gain)),
        Expected::Denied if run.has_changed => {
            (Verdict::Fail, format!("not let through, and yet a decoy has changed: this gives {}", run.attack.gain))
        }
        Expected::Denied => {
            let by: Vec<Layer> = layers.iter().copied().filter(|layer| layer.answers(&run.got)).collect();
            if by.is_empty() {
                return (
                    Verdict::Fail,
                    format!(
                        "stopped, but this is no answer of {}: it may have failed for another reason",
                        names(layers)
                    ),
                );
            }
            let text = format!("an answer of {}; a success gives {}; {unconfined}", names(&by), run.attack.gain);
            (Verdict::Pass, text)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::probe::attack;

    fn find(name: &str) -> &'static Attack {
        attack::all().find(|attack| attack.name == name).unwrap()
    }

    fn verdict_of(name: &str, got: Got, control: Got) -> Finding {
        let control = Control { user: "uid 1".to_owned(), got: control };
        let attack = find(name);
        let expected = attack.expected[2].unwrap();
        judge(&Run { attack, ring: Ring::R2, expected, got, has_changed: false, control: &control })
    }

    #[test]
    fn a_refusal_counts_only_when_the_control_got_through() {
        let refused = Got::Errno(libc::EPERM);
        assert_eq!(verdict_of("bpf", refused.clone(), Got::Ok).verdict, Verdict::Pass);
        let without = verdict_of("bpf", refused.clone(), refused);
        assert_eq!(without.verdict, Verdict::NotApplicable);
        assert!(without.reason.contains("EPERM"), "{}", without.reason);
    }

    #[test]
    fn the_errno_behind_the_permission_check_is_a_success() {
        assert_eq!(verdict_of("kexec", Got::Errno(libc::EINVAL), Got::Errno(libc::EINVAL)).verdict, Verdict::Fail);
        assert_eq!(verdict_of("kexec", Got::Errno(libc::EPERM), Got::Errno(libc::EINVAL)).verdict, Verdict::Pass);
    }

    #[test]
    fn an_answer_that_no_named_layer_gives_is_no_pass() {
        let odd = verdict_of("outside-read", Got::Errno(libc::EIO), Got::Ok);
        assert_eq!(odd.verdict, Verdict::Fail);
        assert_eq!(verdict_of("outside-read", Got::Silent("no answer".into()), Got::Ok).verdict, Verdict::Fail);
        assert_eq!(verdict_of("memory-hog", Got::Signal(libc::SIGSEGV), Got::Ok).verdict, Verdict::Fail);
        assert_eq!(verdict_of("memory-hog", Got::Signal(libc::SIGKILL), Got::Ok).verdict, Verdict::Pass);
    }

    #[test]
    fn what_came_to_no_end_is_neither_held_nor_broken() {
        for (name, got, control) in [
            ("outside-symlink", Got::Late, Got::Ok),
            ("database", Got::Late, Got::Ok),
            ("outside-symlink", Got::Errno(libc::ENOENT), Got::Late),
        ] {
            let finding = verdict_of(name, got, control);
            assert_eq!(finding.verdict, Verdict::NotApplicable, "{finding:?}");
            assert!(finding.got == "no end in time" || finding.reason.contains("got no end in time"), "{finding:?}");
        }
    }

    #[test]
    fn a_refusal_that_changed_a_decoy_is_a_failure() {
        let control = Control { user: "uid 1".to_owned(), got: Got::Ok };
        let attack = find("readonly-chmod");
        let got = Got::Errno(libc::EROFS);
        let run = Run { attack, ring: Ring::R2, expected: Expected::Denied, got, has_changed: true, control: &control };
        assert_eq!(judge(&run).verdict, Verdict::Fail);
    }

    #[test]
    fn an_allowed_act_that_is_refused_is_a_failure() {
        assert_eq!(verdict_of("database", Got::Errno(libc::EPERM), Got::Ok).verdict, Verdict::Fail);
        assert_eq!(verdict_of("database", Got::Ok, Got::Ok).verdict, Verdict::Pass);
        assert_eq!(verdict_of("database", Got::Setup("x".into()), Got::Ok).verdict, Verdict::NotApplicable);
    }

    #[test]
    fn findings_have_exactly_the_published_keys() {
        let finding = verdict_of("bpf", Got::Errno(libc::EPERM), Got::Ok);
        let value = serde_json::to_value(&finding).unwrap();
        let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["asked", "expected", "got", "layer", "name", "reason", "ring", "verdict"]);
        assert_eq!(
            (&value["ring"], &value["expected"], &value["verdict"]),
            (&2.into(), &"denied".into(), &"pass".into())
        );
        let none = verdict_of("bpf", Got::Errno(libc::EPERM), Got::Errno(libc::EPERM));
        assert_eq!(serde_json::to_value(&none).unwrap()["verdict"], "n/a");
    }

    #[test]
    fn the_table_is_sound() {
        let mut names = std::collections::BTreeSet::new();
        for attack in attack::all() {
            assert!(names.insert(attack.name), "{} twice", attack.name);
            assert!(attack.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(attack.expected.iter().any(Option::is_some), "{} is asked nowhere", attack.name);
            for (ring, expected) in Ring::ALL.into_iter().zip(attack.expected) {
                if expected == Some(Expected::Denied) {
                    assert!(!attack.gain.is_empty(), "{} gives nothing", attack.name);
                    assert!(
                        attack.layers.iter().any(|layer| layer.is_in(ring)),
                        "{ring}: nothing stops {}",
                        attack.name
                    );
                }
            }
        }
    }

    #[test]
    fn denied_in_a_ring_is_denied_in_every_less_privileged_one() {
        for attack in attack::all() {
            // Where it is not asked, something else is already in its way.
            let denied: Vec<bool> = attack.expected.iter().flatten().map(|e| *e == Expected::Denied).collect();
            assert!(denied.is_sorted(), "{}: {denied:?}", attack.name);
        }
    }

    #[test]
    fn every_ring_without_the_hosts_network_has_enough_ways_out_of_it_tried() {
        for ring in [Ring::R1, Ring::R2, Ring::R3] {
            let index = usize::from(ring.number());
            let count = attack::network().filter(|attack| attack.expected[index] == Some(Expected::Denied)).count();
            assert!(count >= 70, "{ring}: {count}");
        }
    }

    #[test]
    fn every_ring_has_enough_attacks_and_acts() {
        for ring in Ring::ALL {
            let index = usize::from(ring.number());
            let count = |wanted| attack::all().filter(|attack| attack.expected[index] == Some(wanted)).count();
            assert!(count(Expected::Denied) >= 40, "{ring}: {}", count(Expected::Denied));
            assert!(count(Expected::Allowed) >= 15, "{ring}: {}", count(Expected::Allowed));
        }
    }
}
