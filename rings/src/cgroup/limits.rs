//! Limits: written by the cgroups-rs controllers, then read back by us.
//!
//! Why both: cgroups-rs knows the files of both versions, and its single controllers take any directory (its `Cgroup`
//! would hard-code the v2 root and swallow memory errors, so only they are used). But a write that succeeds proves
//! nothing: the kernel rounds, a parent caps, another hierarchy may hold the file. What is not read back is not a limit.

use std::fs;
use std::path::{Path, PathBuf};

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use super::error::{Error, Result};
use super::file;
use super::layout::{Controller, Gap, GapReason};
use super::tree::{Tree, Version};
use crate::spec::Limits;

/// Length of a CPU period in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;
/// The longest period that the kernel takes, for quotas that would be too small in the usual one.
const PERIOD_LONG_US: u64 = 1_000_000;
/// The smallest quota that the kernel takes, in microseconds.
const QUOTA_MIN_US: u64 = 1_000;
/// The largest page of any Linux machine: memory limits are rounded down to whole pages.
const PAGE_MAX: u64 = 65_536;
/// More tasks than any kernel has (`PID_MAX_LIMIT`).
const TASKS_MAX: u32 = 4_194_304;

/// What `None` in [`Limits`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The group is new and has no limit: leave it.
    IsUnlimited,
    /// The group may have one: take it away.
    Lift,
}

/// Sets all limits and reads them back.
pub(super) fn apply(tree: &Tree, limits: &Limits, absent: Absent, gaps: &[Gap]) -> Result<()> {
    let place = |controller: Controller, wanted: bool| match tree.place(controller) {
        Some(place) if wanted || absent == Absent::Lift => Ok(Some(place)),
        None if wanted => {
            let known = gaps.iter().find(|gap| gap.controller == controller).cloned();
            Err(Error::NoController(known.unwrap_or(Gap { controller, reason: GapReason::NotOffered })))
        }
        _ => Ok(None),
    };
    if let Some((dir, version)) = place(Controller::Memory, limits.memory_bytes.is_some())? {
        set_memory(dir, version, limits.memory_bytes, Path::new("/proc/swaps"))?;
    }
    if let Some((dir, version)) = place(Controller::Cpu, limits.cpu_millis.is_some())? {
        set_cpu(dir, version, limits.cpu_millis)?;
    }
    if let Some((dir, version)) = place(Controller::Pids, limits.tasks.is_some())? {
        set_tasks(dir, version, limits.tasks)?;
    }
    Ok(())
}

/// Memory and swap together, in bytes.
fn set_memory(dir: &Path, version: Version, wanted: Option<u64>, swaps: &Path) -> Result<()> {
    let bytes = match wanted {
        None => -1,
        Some(bytes) => i64::try_from(bytes).ok().filter(|&b| b > 0).ok_or(Error::ImpossibleLimit {
            what: "memory",
            value: bytes,
            why: "bytes between 1 and 2^63 - 1",
        })?,
    };
    let controller = MemController::new(dir.to_owned(), PathBuf::new(), version == Version::V2);
    match version {
        Version::V2 => set_memory_v2(&controller, dir, bytes, swaps),
        Version::V1 => set_memory_v1(&controller, dir, bytes, swaps),
    }
}

fn set_memory_v2(controller: &MemController, dir: &Path, bytes: i64, swaps: &Path) -> Result<()> {
    let swap = dir.join("memory.swap.max");
    if has_file_or_no_swap(&swap, swaps)? {
        let value = if bytes < 0 { -1 } else { 0 };
        written(&swap, value, controller.set_memswap_limit(value))?;
        check_memory(&swap, value)?;
    }
    let max = dir.join("memory.max");
    written(&max, bytes, controller.set_limit(bytes))?;
    check_memory(&max, bytes)?;
    // An agent is one thing: half of it left alive by the OOM killer is worth nothing to anybody.
    let group = dir.join("memory.oom.group");
    if group.exists() {
        file::write(&group, "1")?;
        check(&group, "1")?;
    }
    Ok(())
}

/// v1 keeps two numbers: memory, and memory plus swap, which must never be the smaller one, not even for a moment.
fn set_memory_v1(controller: &MemController, dir: &Path, bytes: i64, swaps: &Path) -> Result<()> {
    set_socket_memory_v1(dir, bytes)?;
    let (limit, both) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    if !has_file_or_no_swap(&both, swaps)? {
        written(&limit, bytes, controller.set_limit(bytes))?;
        return check_memory(&limit, bytes);
    }
    let raised = bytes < 0 || bytes.unsigned_abs() > file::read_u64(&both)?;
    if raised {
        written(&both, bytes, controller.set_memswap_limit(bytes))?;
        written(&limit, bytes, controller.set_limit(bytes))?;
    } else {
        written(&limit, bytes, controller.set_limit(bytes))?;
        written(&both, bytes, controller.set_memswap_limit(bytes))?;
    }
    check_memory(&limit, bytes)?;
    check_memory(&both, bytes)
}

/// v1 counts what waits in TCP and UDP sockets apart from all other memory, and only once a limit was set for it.
fn set_socket_memory_v1(dir: &Path, bytes: i64) -> Result<()> {
    let sockets = dir.join("memory.kmem.tcp.limit_in_bytes");
    // Kernels without this counter count no socket memory on v1 at all; R3, which makes no sockets, is bounded even there.
    if !sockets.exists() {
        return Ok(());
    }
    file::write(&sockets, &bytes.to_string())?;
    check_memory(&sockets, bytes)
}

/// Whether there is a file to limit swap with. Without one, swap in use would be memory that nobody counts.
fn has_file_or_no_swap(limit: &Path, swaps: &Path) -> Result<bool> {
    if limit.exists() {
        return Ok(true);
    }
    // One header line, then a line for each area.
    let in_use = fs::read_to_string(swaps).is_ok_and(|text| text.lines().count() > 1);
    if in_use { Err(Error::SwapNotLimited { file: limit.to_owned() }) } else { Ok(false) }
}

/// The kernel rounds down to whole pages; -1 is no limit, which v1 shows as the largest number of whole pages.
fn check_memory(file: &Path, wanted: i64) -> Result<()> {
    let text = file::read(file)?;
    let found = if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
    let sticks = found.is_some_and(|found| match u64::try_from(wanted) {
        Ok(wanted) => found <= wanted && wanted - found < PAGE_MAX,
        Err(_) => found > i64::MAX.unsigned_abs() - PAGE_MAX,
    });
    if sticks { Ok(()) } else { Err(did_not_stick(file, &none_or(wanted), text)) }
}

/// Thousandths of a CPU.
fn set_cpu(dir: &Path, version: Version, wanted: Option<u32>) -> Result<()> {
    let (quota, period) = match wanted {
        None => (-1, PERIOD_US),
        Some(0) => {
            return Err(Error::ImpossibleLimit {
                what: "cpu_millis",
                value: 0,
                why: "at least one thousandth of a CPU",
            });
        }
        Some(millis) => {
            let millis = u64::from(millis);
            let period = if millis * PERIOD_US / 1000 >= QUOTA_MIN_US { PERIOD_US } else { PERIOD_LONG_US };
            (i64::try_from(millis * period / 1000).expect("2^32 times 1000 is below 2^63"), period)
        }
    };
    let controller = CpuController::new(dir.to_owned(), PathBuf::new(), version == Version::V2);
    match version {
        Version::V2 => {
            let max = dir.join("cpu.max");
            written(&max, quota, controller.set_cfs_quota_and_period(Some(quota), Some(period)))?;
            check(&max, &format!("{} {period}", none_or(quota)))
        }
        Version::V1 => {
            let (quota_file, period_file) = (dir.join("cpu.cfs_quota_us"), dir.join("cpu.cfs_period_us"));
            if file::read_u64(&period_file)? != period {
                // An old quota may be too much or too little for the new period.
                written(&quota_file, -1, controller.set_cfs_quota(-1))?;
                written(&period_file, period, controller.set_cfs_period(period))?;
            }
            written(&quota_file, quota, controller.set_cfs_quota(quota))?;
            check(&period_file, &period.to_string())?;
            check(&quota_file, &quota.to_string())
        }
    }
}

/// Processes and threads.
fn set_tasks(dir: &Path, version: Version, wanted: Option<u32>) -> Result<()> {
    let value = match wanted {
        None => MaxValue::Max,
        Some(tasks) if (1..TASKS_MAX).contains(&tasks) => MaxValue::Value(i64::from(tasks)),
        Some(tasks) => {
            return Err(Error::ImpossibleLimit { what: "tasks", value: tasks.into(), why: "tasks between 1 and 2^22" });
        }
    };
    let max = dir.join("pids.max");
    let controller = PidController::new(dir.to_owned(), PathBuf::new(), version == Version::V2);
    written(&max, value, controller.set_pid_max(value))?;
    check(&max, &value.to_string())
}

/// The agents' CPU weight together, against 100 of the supervisor's and of everything else's: under full load their tasks
/// wait, not ours (measured wake-up latency of the supervisor under a fork bomb: 77 ms without, 0.1 ms with).
const WEIGHT: u64 = 20;
/// Everybody's weight, on v2's scale from 1 to 10000.
const WEIGHT_DEFAULT: u64 = 100;

/// How the agents weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Little, so that they never keep the supervisor from running.
    Agents,
    /// As much as everybody else: for the moment in which one of them is ended.
    Dying,
}

/// The text for a weight file of either version.
fn weight_text(file: &Path, weight: Weight) -> String {
    let weight = if weight == Weight::Agents { WEIGHT } else { WEIGHT_DEFAULT };
    // v1 counts its default as 1024.
    if file.ends_with("cpu.shares") { weight * 1024 / WEIGHT_DEFAULT } else { weight }.to_string()
}

/// Gives `dir` the agents' weight and reads it back; the file that holds it.
pub(super) fn set_weight(dir: &Path, version: Version) -> Result<PathBuf> {
    let file = dir.join(if version == Version::V1 { "cpu.shares" } else { "cpu.weight" });
    let text = weight_text(&file, Weight::Agents);
    file::write(&file, &text)?;
    check(&file, &text)?;
    Ok(file)
}

/// Changes the weight in a file that [`set_weight`] returned.
pub(super) fn weigh(file: &Path, weight: Weight) -> Result<()> {
    file::write(file, &weight_text(file, weight))
}

/// cgroups-rs repeats its cause in its own text: only the kernel's answer is kept.
fn written(file: &Path, value: impl ToString, result: cgroups_rs::fs::error::Result<()>) -> Result<()> {
    use std::error::Error as _;
    result.map_err(|error| {
        let cause = error.source().and_then(|e| e.downcast_ref::<std::io::Error>()).and_then(|e| e.raw_os_error());
        let source = cause.map_or_else(|| std::io::Error::other(error), std::io::Error::from_raw_os_error);
        Error::Write { path: file.to_owned(), value: value.to_string(), source }
    })
}

fn check(file: &Path, wanted: &str) -> Result<()> {
    let found = file::read(file)?;
    if found == wanted { Ok(()) } else { Err(did_not_stick(file, wanted, found)) }
}

fn did_not_stick(file: &Path, wanted: &str, found: String) -> Error {
    Error::LimitDidNotStick { file: file.to_owned(), wanted: wanted.to_owned(), found }
}

fn none_or(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cgroup::tree::LegacyDir;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn files(list: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        list.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        dir
    }

    fn v2() -> tempfile::TempDir {
        files(&[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("memory.oom.group", "0"),
            ("cpu.max", "max 100000"),
            ("cpu.weight", "100"),
            ("pids.max", "max"),
        ])
    }

    fn v1() -> tempfile::TempDir {
        files(&[
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712"),
            ("memory.kmem.tcp.limit_in_bytes", "9223372036854771712"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.shares", "1024"),
            ("pids.max", "max"),
        ])
    }

    fn tree(dir: &Path, version: Version) -> Tree {
        let controllers = Controller::LIMITING.to_vec();
        match version {
            Version::V2 => Tree { unified: Some(dir.to_owned()), unified_controllers: controllers, ..Tree::default() },
            Version::V1 => Tree { legacy: vec![LegacyDir { controllers, dir: dir.to_owned() }], ..Tree::default() },
        }
    }

    fn held(dir: &tempfile::TempDir, name: &str) -> String {
        fs::read_to_string(dir.path().join(name)).unwrap()
    }

    const SOME: Limits = Limits { memory_bytes: Some(64 << 20), cpu_millis: Some(500), tasks: Some(64) };

    #[test]
    fn v2_limits_land_in_v2_files_and_swap_is_shut() {
        let dir = v2();
        apply(&tree(dir.path(), Version::V2), &SOME, Absent::IsUnlimited, &[]).unwrap();
        assert_eq!(held(&dir, "memory.max"), "67108864");
        assert_eq!(held(&dir, "memory.swap.max"), "0");
        assert_eq!(held(&dir, "memory.oom.group"), "1");
        assert_eq!(held(&dir, "cpu.max"), "50000 100000");
        assert_eq!(held(&dir, "pids.max"), "64");
        weigh(&set_weight(dir.path(), Version::V2).unwrap(), Weight::Agents).unwrap();
        assert_eq!(held(&dir, "cpu.weight"), "20");
    }

    #[test]
    fn v1_limits_land_in_v1_files_swap_included() {
        let dir = v1();
        apply(&tree(dir.path(), Version::V1), &SOME, Absent::IsUnlimited, &[]).unwrap();
        assert_eq!(held(&dir, "memory.limit_in_bytes"), "67108864");
        assert_eq!(held(&dir, "memory.memsw.limit_in_bytes"), "67108864");
        assert_eq!(held(&dir, "memory.kmem.tcp.limit_in_bytes"), "67108864");
        assert_eq!(
            (held(&dir, "cpu.cfs_quota_us"), held(&dir, "cpu.cfs_period_us")),
            ("50000".into(), "100000".into())
        );
        assert_eq!(held(&dir, "pids.max"), "64");
        let shares = set_weight(dir.path(), Version::V1).unwrap();
        assert_eq!(held(&dir, "cpu.shares"), "204");
        weigh(&shares, Weight::Dying).unwrap();
        assert_eq!(held(&dir, "cpu.shares"), "1024");
    }

    #[test]
    fn absent_limits_leave_a_new_group_alone_and_free_a_running_one() {
        let dir = v2();
        let tree = tree(dir.path(), Version::V2);
        apply(&tree, &SOME, Absent::IsUnlimited, &[]).unwrap();
        apply(&tree, &Limits::default(), Absent::IsUnlimited, &[]).unwrap();
        assert_eq!(held(&dir, "memory.max"), "67108864");
        apply(&tree, &Limits::default(), Absent::Lift, &[]).unwrap();
        assert_eq!((held(&dir, "memory.max"), held(&dir, "memory.swap.max")), ("max".into(), "max".into()));
        assert_eq!((held(&dir, "cpu.max"), held(&dir, "pids.max")), ("max 100000".into(), "max".into()));
    }

    #[test]
    fn limit_that_is_swallowed_is_an_error_with_file_wanted_and_found() {
        for (version, name) in [
            (Version::V2, "memory.max"),
            (Version::V2, "memory.swap.max"),
            (Version::V2, "memory.oom.group"),
            (Version::V2, "pids.max"),
            (Version::V1, "memory.limit_in_bytes"),
            (Version::V1, "cpu.cfs_quota_us"),
            (Version::V1, "pids.max"),
        ] {
            let dir = if version == Version::V2 { v2() } else { v1() };
            let file = dir.path().join(name);
            fs::remove_file(&file).unwrap();
            // Takes every write and holds nothing.
            symlink("/dev/null", &file).unwrap();
            let error = apply(&tree(dir.path(), version), &SOME, Absent::IsUnlimited, &[]).unwrap_err();
            assert!(matches!(&error, Error::LimitDidNotStick { file: f, .. } if *f == file), "{name}: {error:?}");
        }
    }

    #[test]
    fn refused_write_names_file_and_value_and_keeps_the_kernels_answer() {
        let dir = v2();
        let file = dir.path().join("pids.max");
        fs::remove_file(&file).unwrap();
        symlink("/dev/full", &file).unwrap();
        let error = apply(&tree(dir.path(), Version::V2), &SOME, Absent::IsUnlimited, &[]).unwrap_err();
        let Error::Write { path, value, source } = &error else { panic!("{error:?}") };
        assert_eq!((path, value.as_str()), (&file, "64"));
        assert_eq!(source.raw_os_error(), Some(nix::errno::Errno::ENOSPC as i32));
        assert!(!error.to_string().contains("caused by"), "{error}");
    }

    #[test]
    fn swap_in_use_without_a_way_to_count_it_is_refused() {
        let (dir, proc) =
            (v2(), files(&[("none", "Filename\tType\n"), ("one", "Filename\tType\n/dev/sda2 partition\n")]));
        fs::remove_file(dir.path().join("memory.swap.max")).unwrap();
        set_memory(dir.path(), Version::V2, Some(1 << 20), &proc.path().join("none")).unwrap();
        let refused = set_memory(dir.path(), Version::V2, Some(1 << 20), &proc.path().join("one"));
        assert!(matches!(refused, Err(Error::SwapNotLimited { file }) if file.ends_with("memory.swap.max")));
    }

    #[test]
    fn limit_without_its_controller_is_refused_with_the_known_reason() {
        let gap = Gap { controller: Controller::Cpu, reason: GapReason::NotOffered };
        let only_cpu = Limits { cpu_millis: Some(100), ..Limits::default() };
        let refused = apply(&Tree::default(), &only_cpu, Absent::IsUnlimited, std::slice::from_ref(&gap));
        assert!(matches!(refused, Err(Error::NoController(g)) if g == gap));
        apply(&Tree::default(), &Limits::default(), Absent::Lift, &[]).unwrap();
    }

    #[test]
    fn zero_is_no_limit() {
        let dir = v2();
        for limits in [
            Limits { memory_bytes: Some(0), ..Limits::default() },
            Limits { memory_bytes: Some(u64::MAX), ..Limits::default() },
            Limits { cpu_millis: Some(0), ..Limits::default() },
            Limits { tasks: Some(0), ..Limits::default() },
            Limits { tasks: Some(u32::MAX), ..Limits::default() },
        ] {
            let refused = apply(&tree(dir.path(), Version::V2), &limits, Absent::IsUnlimited, &[]);
            assert!(matches!(refused, Err(Error::ImpossibleLimit { .. })), "{limits:?}");
        }
    }

    proptest! {
        /// Whatever is asked for, the files then say exactly that share of a CPU, within what the kernel takes.
        #[test]
        fn cpu_quota_is_exact_and_never_below_the_kernels_minimum(millis in 1_u32..200_000) {
            for version in [Version::V1, Version::V2] {
                let dir = if version == Version::V2 { v2() } else { v1() };
                set_cpu(dir.path(), version, Some(millis)).unwrap();
                let (quota, period) = match version {
                    Version::V2 => {
                        let text = held(&dir, "cpu.max");
                        let (quota, period) = text.split_once(' ').unwrap();
                        (quota.parse::<u64>().unwrap(), period.parse::<u64>().unwrap())
                    }
                    Version::V1 => (
                        held(&dir, "cpu.cfs_quota_us").parse().unwrap(),
                        held(&dir, "cpu.cfs_period_us").parse().unwrap(),
                    ),
                };
                prop_assert_eq!(quota * 1000, u64::from(millis) * period);
                prop_assert!(quota >= QUOTA_MIN_US && period <= PERIOD_LONG_US);
            }
        }

        /// v1's invariant memory <= memory+swap holds after any sequence of changes.
        #[test]
        fn v1_memory_can_be_raised_and_lowered_in_any_order(steps in proptest::collection::vec(1_u64..1 << 40, 1..6)) {
            let dir = v1();
            for bytes in steps {
                set_memory(dir.path(), Version::V1, Some(bytes), Path::new("/dev/null")).unwrap();
                prop_assert_eq!(held(&dir, "memory.limit_in_bytes"), bytes.to_string());
                prop_assert_eq!(held(&dir, "memory.memsw.limit_in_bytes"), bytes.to_string());
            }
        }
    }
}
