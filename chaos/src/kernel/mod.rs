//! The few things that an undo does to the kernel, each checked for the right object: a process by its start time, a file by
//! its inode and by being on a cgroup file system.
//!
//! Public, because whoever implements [`crate::target::Target`] needs the same calls to read what was there before. `Ok(None)`
//! always means that the process or file is gone, and the fault with it.

#![expect(clippy::disallowed_methods, reason = "this is where files and processes are touched")]

mod memory;
mod sys;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};

use crate::error::KernelError;
use crate::fault::fd_exhaustion;
use crate::undo::{BootId, FileId, ProcessId, UndoEntry, UndoSignal};

pub use memory::{OOM_SCORE_MOST, memory_available, oom_scores_back, prefer_for_oom};
pub(crate) use memory::{give_oom_scores_back, oom_kills_in};
pub(crate) use sys::{close_inherited, default_signals};

/// The longest content of a file that an undo writes or reads: cgroup control files are one page at most, `cgroup.procs`
/// of a large group is longer.
const CONTENT_MAX: usize = 1 << 20;

/// The present boot.
pub fn boot_id() -> Result<BootId, KernelError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|source| file_error("reading", path, source))?;
    Ok(BootId(text.trim().to_owned()))
}

/// The process that has this pid now; `None`: nobody has it.
pub fn identify(pid: i32) -> Result<Option<ProcessId>, KernelError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(source) => return Err(file_error("reading", &path, source)),
    };
    // The second field is the program's name in parentheses, and may itself hold both; the state is field 3.
    let start_time = text.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(22 - 3)?.parse().ok());
    match start_time {
        Some(start_time) => Ok(Some(ProcessId { pid, start_time })),
        None => Err(KernelError::Unreadable { path, content: text.chars().take(80).collect() }),
    }
}

/// Whether this very process still has its pid (a zombie has).
pub fn is_present(process: ProcessId) -> Result<bool, KernelError> {
    Ok(identify(process.pid)? == Some(process))
}

/// A pidfd of this very process: readable once it has ended. See pidfd_open(2).
pub fn open_process(process: ProcessId) -> Result<Option<OwnedFd>, KernelError> {
    let fd = match sys::pidfd_open(process.pid) {
        Ok(fd) => fd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(source) => return Err(process_error("opening the process", process.pid, source)),
    };
    // Checked after the opening: the descriptor can't change its process any more.
    Ok(is_present(process)?.then_some(fd))
}

/// Sends a signal to this very process.
pub fn signal(process: ProcessId, signal: UndoSignal) -> Result<Option<()>, KernelError> {
    let Some(fd) = open_process(process)? else { return Ok(None) };
    let number = match signal {
        UndoSignal::Continue => libc::SIGCONT,
        UndoSignal::Terminate => libc::SIGTERM,
        UndoSignal::Kill => libc::SIGKILL,
    };
    match sys::pidfd_send_signal(fd.as_fd(), number) {
        Ok(()) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(source) => Err(process_error(format!("sending signal {number} to the process"), process.pid, source)),
    }
}

/// A process's RLIMIT_NOFILE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileLimits {
    /// What holds.
    pub soft: u64,
    /// Up to where the process itself may raise it.
    pub hard: u64,
}

/// Reads a process's file limits (`/proc/PID/limits` needs no leave; see proc(5)).
pub fn file_limits(process: ProcessId) -> Result<Option<FileLimits>, KernelError> {
    let path = PathBuf::from(format!("/proc/{}/limits", process.pid));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(source) => return Err(file_error("reading", &path, source)),
    };
    if !is_present(process)? {
        return Ok(None);
    }
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let mut numbers = line.unwrap_or_default().split_whitespace().map_while(number);
    match (numbers.next(), numbers.next()) {
        (Some(soft), Some(hard)) => Ok(Some(FileLimits { soft, hard })),
        _ => Err(KernelError::Unreadable { path, content: line.unwrap_or("nothing on open files").to_owned() }),
    }
}

/// Sets a process's soft file limit, at most to its hard one, which stays.
///
/// Root without CAP_SYS_RESOURCE may not touch a process of another uid (prlimit(2)); then a short-lived thread takes that
/// uid and gid and does it. Credentials belong to the thread, and this one does nothing else and ends.
pub fn set_file_limit(process: ProcessId, soft: u64) -> Result<Option<()>, KernelError> {
    let Some(limits) = file_limits(process)? else { return Ok(None) };
    let limits = FileLimits { soft: soft.min(limits.hard), hard: limits.hard };
    let error = match sys::set_nofile(process.pid, limits) {
        Ok(()) => return Ok(Some(())),
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::ESRCH) => Ok(None),
        Some(libc::EPERM) => set_file_limit_as_owner(process, limits, error),
        _ => Err(process_error("setting the file limit of the process", process.pid, error)),
    }
}

fn set_file_limit_as_owner(
    process: ProcessId,
    limits: FileLimits,
    denied: io::Error,
) -> Result<Option<()>, KernelError> {
    let path = PathBuf::from(format!("/proc/{}", process.pid));
    let owner = match fs::read_to_string(path.join("status")) {
        Ok(status) => owner_of(&status),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(source) => return Err(file_error("reading", &path, source)),
    };
    let Some((uid, gid)) = owner else {
        return Err(process_error("setting the file limit of the process, whose ids differ", process.pid, denied));
    };
    let done = std::thread::scope(|scope| {
        let thread =
            scope.spawn(|| sys::become_for_this_thread(uid, gid).and_then(|()| sys::set_nofile(process.pid, limits)));
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    });
    match done {
        Ok(()) => Ok(Some(())),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(source) => Err(process_error("setting the file limit of the process as its owner", process.pid, source)),
    }
}

/// The uid and gid of a process whose real, effective and saved ids are the same; prlimit(2) asks for all three.
fn owner_of(status: &str) -> Option<(u32, u32)> {
    let same = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let ids: Vec<u32> = line.split_whitespace().map_while(|word| word.parse().ok()).take(3).collect();
        (ids.len() == 3 && ids.iter().all(|id| *id == ids[0])).then_some(ids[0])
    };
    Some((same("Uid:")?, same("Gid:")?))
}

/// A file of a cgroup file system, opened and checked.
#[derive(Debug)]
pub struct CgroupFile {
    file: File,
    path: PathBuf,
    id: FileId,
}

impl CgroupFile {
    /// Opens a file for reading and writing. `None`: it isn't there.
    pub fn open(path: &Path) -> Result<Option<Self>, KernelError> {
        let open = File::options().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = match open {
            Ok(file) => file,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(source) => return Err(file_error("opening", path, source)),
        };
        let kind = fstatfs(&file).map_err(|errno| file_error("looking at the file system of", path, errno.into()))?;
        if ![CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC].contains(&kind.filesystem_type()) {
            return Err(KernelError::NotCgroup(path.to_owned()));
        }
        let meta = file.metadata().map_err(|source| file_error("looking at", path, source))?;
        let id = FileId { device: meta.dev(), inode: meta.ino() };
        Ok(Some(Self { file, path: path.to_owned(), id }))
    }

    /// Opens it only if it is still the same file.
    pub fn reopen(path: &Path, id: FileId) -> Result<Option<Self>, KernelError> {
        Ok(Self::open(path)?.filter(|file| file.id == id))
    }

    /// Which file it is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Its content without the white space at the end. `None`: its cgroup is gone.
    pub fn read(&self) -> Result<Option<String>, KernelError> {
        let mut content = Vec::new();
        let mut part = [0; 4096];
        loop {
            match self.file.read_at(&mut part, content.len() as u64) {
                Ok(0) => break,
                Ok(n) if content.len() + n <= CONTENT_MAX => content.extend_from_slice(&part[..n]),
                Ok(_) => {
                    return Err(file_error("reading too much from", &self.path, io::ErrorKind::FileTooLarge.into()));
                }
                Err(error) if is_gone(&error) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(file_error("reading", &self.path, source)),
            }
        }
        Ok(Some(String::from_utf8_lossy(&content).trim_end().to_owned()))
    }

    /// Writes it, in one call as cgroup files need it. `None`: its cgroup is gone.
    pub fn write(&self, content: &str) -> Result<Option<()>, KernelError> {
        match self.file.write_at(content.as_bytes(), 0) {
            Ok(_) => Ok(Some(())),
            Err(error) if is_gone(&error) => Ok(None),
            Err(source) => Err(file_error(format!("writing {content} to"), &self.path, source)),
        }
    }
}

/// The entry that writes back what a cgroup file holds now. `None`: it isn't there.
pub fn write_back(path: &Path) -> Result<Option<UndoEntry>, KernelError> {
    let Some(file) = CgroupFile::open(path)? else { return Ok(None) };
    Ok(file.read()?.map(|content| UndoEntry::WriteFile { path: path.to_owned(), content, file: file.id() }))
}

/// The entry that thaws a frozen cgroup, given its `freezer.state` (v1) or `cgroup.freeze` (v2).
pub fn thaw(path: &Path) -> Result<Option<UndoEntry>, KernelError> {
    let Some(file) = CgroupFile::open(path)? else { return Ok(None) };
    let is_v1 = path.file_name().is_some_and(|name| name == "freezer.state");
    let content = if is_v1 { "THAWED" } else { "0" };
    Ok(Some(UndoEntry::WriteFile { path: path.to_owned(), content: content.to_owned(), file: file.id() }))
}

/// The entries that give every process of a cgroup (by its `cgroup.procs`) the soft file limit back that it has now, and
/// to those forked later the lowest of them. `None`: the cgroup isn't there.
pub fn file_limits_back(procs: &Path) -> Result<Option<Vec<UndoEntry>>, KernelError> {
    let Some(file) = CgroupFile::open(procs)? else { return Ok(None) };
    let Some(content) = file.read()? else { return Ok(None) };
    let mut entries = Vec::new();
    let mut lowest: Option<u64> = None;
    for process in members(&content)? {
        let Some(FileLimits { soft, .. }) = file_limits(process)? else { continue };
        lowest = Some(lowest.map_or(soft, |lowest| lowest.min(soft)));
        entries.push(UndoEntry::Prlimit { process, soft });
    }
    if let Some(soft) = lowest {
        entries.push(UndoEntry::PrlimitGroup { procs: procs.to_owned(), file: file.id(), soft });
    }
    Ok(Some(entries))
}

/// The room for further files in a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRoom {
    /// The lowest soft limit among its processes.
    pub soft: u64,
    /// How many more files the process with the least room can open.
    pub room: u64,
}

/// Looks how much room the processes of a cgroup (by its `cgroup.procs`) have. `None`: no process, or no cgroup.
pub fn file_room(procs: &Path) -> Result<Option<FileRoom>, KernelError> {
    let mut least: Option<FileRoom> = None;
    for (_, limits, open) in open_files_of(procs)? {
        let room = fd_exhaustion::room(&open, limits.soft);
        least = Some(least.map_or(FileRoom { soft: limits.soft, room }, |least| FileRoom {
            soft: least.soft.min(limits.soft),
            room: least.room.min(room),
        }));
    }
    Ok(least)
}

/// Lowers the soft file limit of every process of a cgroup until it can open only `headroom` more. Returns how many
/// processes that were. [`file_limits_back`] must have been asked before.
pub fn lower_file_limits(procs: &Path, headroom: u32) -> Result<usize, KernelError> {
    let mut count = 0;
    for (process, limits, open) in open_files_of(procs)? {
        let soft = fd_exhaustion::soft_limit_for(&open, headroom, limits.soft);
        count += usize::from(set_file_limit(process, soft)?.is_some());
    }
    Ok(count)
}

fn open_files_of(procs: &Path) -> Result<Vec<(ProcessId, FileLimits, Vec<u32>)>, KernelError> {
    let Some(file) = CgroupFile::open(procs)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for process in members(&file.read()?.unwrap_or_default())? {
        if let (Some(limits), Some(open)) = (file_limits(process)?, open_files(process)?) {
            found.push((process, limits, open));
        }
    }
    Ok(found)
}

/// The numbers of a process's open descriptors.
pub fn open_files(process: ProcessId) -> Result<Option<Vec<u32>>, KernelError> {
    let path = PathBuf::from(format!("/proc/{}/fd", process.pid));
    let names: io::Result<Vec<_>> = fs::read_dir(&path).and_then(Iterator::collect);
    let open = match names {
        Ok(names) => names.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect(),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(source) => return Err(file_error("reading", &path, source)),
    };
    Ok(is_present(process)?.then_some(open))
}

/// The processes in a `cgroup.procs`. 0 stands for one outside of our PID namespace, which can't be touched.
pub fn members(content: &str) -> Result<Vec<ProcessId>, KernelError> {
    let pids = content.split_whitespace().filter_map(|word| word.parse().ok()).filter(|pid: &i32| *pid > 0);
    pids.filter_map(|pid| identify(pid).transpose()).collect()
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV))
}

fn file_error(doing: impl Into<String>, path: &Path, source: io::Error) -> KernelError {
    KernelError::File { doing: doing.into(), path: path.to_owned(), source }
}

fn process_error(doing: impl Into<String>, pid: i32, source: io::Error) -> KernelError {
    KernelError::Process { doing: doing.into(), pid, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_with_another_start_time_is_another_process() {
        let me = identify(std::process::id() as i32).unwrap().unwrap();
        assert!(is_present(me).unwrap());
        let earlier = ProcessId { start_time: me.start_time - 1, ..me };
        assert!(!is_present(earlier).unwrap());
        assert!(open_process(earlier).unwrap().is_none());
        assert_eq!(file_limits(earlier).unwrap(), None);
        // Would end this test.
        assert_eq!(signal(earlier, UndoSignal::Kill).unwrap(), None);
    }

    #[test]
    fn nobody_has_an_impossible_pid() {
        assert_eq!(identify(i32::MAX).unwrap(), None);
    }

    #[test]
    fn a_file_outside_of_cgroups_is_never_opened_for_an_undo() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        fs::write(&path, "root").unwrap();
        assert!(matches!(CgroupFile::open(&path), Err(KernelError::NotCgroup(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "root");
    }

    #[test]
    fn different_ids_name_no_owner() {
        assert_eq!(owner_of("Uid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\n"), Some((7, 8)));
        assert_eq!(owner_of("Uid:\t7\t0\t7\t7\nGid:\t8\t8\t8\t8\n"), None);
        assert_eq!(owner_of("Uid:\t7\t7\t7\t7\n"), None);
    }

    #[test]
    fn our_own_file_limits_are_read_as_getrlimit_says() {
        let me = identify(std::process::id() as i32).unwrap().unwrap();
        let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(file_limits(me).unwrap(), Some(FileLimits { soft, hard }));
    }
}
