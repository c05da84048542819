//! From a caller's path to a pinned folder and a last name, as the kernel would have gone for the caller.
//!
//! The kernel walks itself (openat2), from the caller's own folder and without magic links. Only a way through /proc is walked
//! here, name by name: `self` there means whoever walks, and its magic links lead into other processes. They are followed for
//! the caller's own process alone, since this walker can look into more processes than its caller may.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::caller::Reader;

/// Links that one path may lead through (MAXSYMLINKS).
const LINKS_MAX: u32 = 40;

/// A folder that can't change under us any more, and what is asked for in it.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) folder: OwnedFd,
    /// The last part of the path: a name, or `.`, `..` or `/`, which name nothing that could be made.
    pub(super) name: Vec<u8>,
    /// A slash came behind it.
    pub(super) slash: bool,
}

/// What stands at a last name.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    Link,
    Other(FileStat),
}

/// Where a link leads.
#[derive(Debug)]
pub(super) enum Target {
    /// To a path, from the link's folder on.
    Path(Vec<u8>),
    /// To an object, whatever its name.
    Object(OwnedFd),
}

/// Walks for one caller; counts the links.
pub(super) struct Walk<'a> {
    caller: &'a Reader,
    root: BorrowedFd<'a>,
    links: u32,
}

impl Spot {
    /// Whether the name could come to be: `.`, `..` and `/` stand already.
    pub(super) fn is_name(&self) -> bool {
        !matches!(&self.name[..], b"." | b".." | b"/")
    }

    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// As the kernel is asked for it: with the slash that says "a folder".
    pub(super) fn asked(&self) -> Vec<u8> {
        let mut asked = self.name.clone();
        if self.slash {
            asked.push(b'/');
        }
        asked
    }

    /// What stands there now; a link is not followed.
    pub(super) fn look(&self) -> Result<Found, Errno> {
        match fstatat(&self.folder, self.name(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK => Ok(Found::Link),
            Ok(stat) => Ok(Found::Other(stat)),
            Err(Errno::ENOENT) => Ok(Found::Nothing),
            Err(e) => Err(e),
        }
    }

    /// Holds what stands there; a link is not followed.
    pub(super) fn pin(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.folder, self.name(), flags, Mode::empty())
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(caller: &'a Reader, root: BorrowedFd<'a>) -> Walk<'a> {
        Walk { caller, root, links: 0 }
    }

    /// The folder and the last name of a path that starts at `start`. The last name is not looked at.
    pub(super) fn spot(&mut self, start: BorrowedFd<'_>, path: &[u8]) -> Result<Spot, Errno> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        if end == 0 {
            return Ok(Spot {
                folder: self.root.try_clone_to_owned().map_err(errno)?,
                name: b"/".into(),
                slash: false,
            });
        }
        let (trimmed, slash) = (&path[..end], end < path.len());
        let cut = trimmed.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (way, name) = trimmed.split_at(cut);
        Ok(Spot { folder: self.folder(start, way)?, name: name.to_vec(), slash })
    }

    /// The folder at the end of a path; an empty one leads to `start` itself.
    pub(super) fn folder(&mut self, start: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let way = if path.is_empty() { b"." } else { path };
        match openat2(start, OsStr::from_bytes(way), how) {
            // A magic link on the way, or too many links, which the slow way finds out as well.
            Err(Errno::ELOOP) => self.slowly(start, way),
            // What `self` means depends on who walks.
            Ok(folder) if !path.is_empty() && is_proc(folder.as_fd())? => self.slowly(start, way),
            walked => walked,
        }
    }

    /// One more turn on the way.
    pub(super) fn count(&mut self) -> Result<(), Errno> {
        self.links += 1;
        if self.links > LINKS_MAX { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// The spot to which the link at a spot leads, or the object.
    pub(super) fn onward(&mut self, spot: &Spot) -> Result<Result<Spot, OwnedFd>, Errno> {
        match self.follow(spot.folder.as_fd(), spot.name())? {
            Target::Object(object) => Ok(Err(object)),
            Target::Path(text) => {
                let next = self.spot(spot.folder.as_fd(), &text)?;
                Ok(Ok(Spot { slash: next.slash || spot.slash, ..next }))
            }
        }
    }

    /// Where a link leads that stands in `folder`. Counts it.
    pub(super) fn follow(&mut self, folder: BorrowedFd<'_>, name: &OsStr) -> Result<Target, Errno> {
        self.count()?;
        let text = || match readlinkat(folder, name)?.into_vec() {
            text if text.is_empty() => Err(Errno::ENOENT),
            text => Ok(Target::Path(text)),
        };
        if !is_proc(folder)? {
            return text();
        }
        let Some(place) = path_of(folder) else { return Err(Errno::EACCES) };
        let mut names = place.components().skip(1).map(|name| name.as_os_str().to_owned());
        if names.next().is_none_or(|top| top != "proc") {
            return Err(Errno::EACCES);
        }
        let process = || self.caller.process();
        match names.next() {
            None if name == "self" => Ok(Target::Path(process()?.to_string().into_bytes())),
            None if name == "thread-self" => {
                Ok(Target::Path(format!("{}/task/{}", process()?, self.caller.tid()).into_bytes()))
            }
            Some(number) if number.as_bytes().iter().all(u8::is_ascii_digit) => {
                if !self.is_own(&number)? {
                    return Err(Errno::EACCES);
                }
                Ok(Target::Object(openat(folder, name, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?))
            }
            _ => text(),
        }
    }

    /// Whether a number in /proc is the caller's process or one of its threads.
    fn is_own(&self, number: &OsStr) -> Result<bool, Errno> {
        let process = self.caller.process()?;
        Ok(number == process.to_string().as_str()
            || Path::new("/proc").join(process.to_string()).join("task").join(number).exists())
    }

    /// Name by name.
    fn slowly(&mut self, start: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut at = self.top(start, path)?;
        let mut ahead: Vec<Vec<u8>> = names(path);
        while let Some(name) = ahead.pop() {
            let next = openat(
                &at,
                OsStr::from_bytes(&name),
                OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            match fstat(&next)?.st_mode & libc::S_IFMT {
                libc::S_IFDIR => at = next,
                libc::S_IFLNK => match self.follow(at.as_fd(), OsStr::from_bytes(&name))? {
                    Target::Path(text) => {
                        at = self.top(at.as_fd(), &text)?;
                        ahead.extend(names(&text));
                    }
                    Target::Object(object) => at = object,
                },
                _ => return Err(Errno::ENOTDIR),
            }
        }
        match fstat(&at)?.st_mode & libc::S_IFMT {
            libc::S_IFDIR => Ok(at),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn top(&self, start: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
        let top = if path.starts_with(b"/") { self.root } else { start };
        top.try_clone_to_owned().map_err(errno)
    }
}

/// A path's names, the first one last; `.` and doubled slashes lead nowhere.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    parts.rev().map(<[u8]>::to_vec).collect()
}

fn is_proc(folder: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(fstatfs(folder)?.filesystem_type() == PROC_SUPER_MAGIC)
}

/// The path that the kernel has for a descriptor; `None` if it has none below the root.
pub(super) fn path_of(fd: BorrowedFd<'_>) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    readlink(Path::new(&link)).ok().map(PathBuf::from).filter(|path| path.is_absolute())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
