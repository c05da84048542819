//! The agent's file system view, made inside its mount namespace.
//!
//! Every source is opened without following links, below the old root, and copied as a detached mount whose attributes are set
//! before it becomes visible: at no moment does a writable mount stand where a read-only one belongs.

mod host;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, umount2};

use super::protocol::Failure;
use crate::plan::{Execute, Ids, Mount, Plan, Root};
use crate::spec::Access;
use crate::sys::mount::{self, ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY};

/// Where the new root is assembled: a directory that exists wherever we run, covered only inside the new namespace.
const STAGE: &str = "/proc";
const OLD: &str = ".host";
const INODES_MAX: u32 = 1 << 18;

/// What root's uid alone may write, without any capability, and with it take the machine: core_pattern and uevent_helper name
/// programs that the kernel runs as root, cgroup.procs lets a process out of its limits and of a kill.
const KERNEL_FILES: [&str; 6] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys"];

/// The on-disk owners that a plan maps, each once.
pub(super) fn id_maps(plan: &Plan) -> Vec<(u32, u32)> {
    let Root::Built { mounts, .. } = &plan.root else { return Vec::new() };
    let mut owners: Vec<(u32, u32)> = mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Bind { id_map, .. } => *id_map,
            _ => None,
        })
        .collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// For each on-disk (uid, gid) that is mapped: a user namespace with that map.
pub(super) type Maps = [((u32, u32), std::rc::Rc<OwnedFd>)];

struct Builder<'a> {
    old: OwnedFd,
    new: OwnedFd,
    ids: Option<Ids>,
    maps: &'a Maps,
}

/// Makes the view. The caller is alone in a new mount namespace (unless the root is left unchanged).
pub(super) fn enter(
    root: &Root,
    ids: Option<Ids>,
    maps: &Maps,
    terminal: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    match root {
        Root::Unchanged => Ok(()),
        Root::Host { hide, show } => {
            private_propagation()?;
            mount_proc(Path::new("/proc"), MsFlags::empty())?;
            let root = open_dir("/")?;
            for path in KERNEL_FILES.iter().map(Path::new) {
                make_read_only(root.as_fd(), path)
                    .map_err(|e| Failure::new(format!("make {} read-only", path.display()), &e))?;
            }
            host::cover_all(root.as_fd(), hide, show.as_deref())
        }
        Root::Built { mounts, bytes } => built(mounts, *bytes, ids, maps, terminal),
    }
}

/// Makes a mount with all below it read-only, or what is no mount a read-only mount of itself.
fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let at = match mount::open_in_root(root, path) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        at => at?,
    };
    match mount::set_attributes(at.as_fd(), ATTR_RDONLY) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            let copy = mount::clone_tree(at.as_fd())?;
            mount::set_attributes(copy.as_fd(), ATTR_RDONLY)?;
            mount::attach(copy.as_fd(), at.as_fd())
        }
        result => result,
    }
}

fn private_propagation() -> Result<(), Failure> {
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|e| Failure::new("cut mount propagation", &e.into()))
}

fn open_dir(path: &str) -> Result<OwnedFd, Failure> {
    fs::File::open(path).map(OwnedFd::from).map_err(|e| Failure::new(format!("open {path}"), &e))
}

fn built(
    mounts: &[Mount],
    bytes: u64,
    ids: Option<Ids>,
    maps: &Maps,
    terminal: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: nix::errno::Errno| Failure::new(step, &e.into());
    private_propagation()?;
    let options = format!("size={bytes},nr_inodes={INODES_MAX},mode=0755");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("agt-root"), STAGE, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(failed("mount the new root"))?;
    let old = PathBuf::from(STAGE).join(OLD);
    fs::create_dir(&old).map_err(|e| Failure::new("make the place of the old root", &e))?;
    mount::pivot_root(Path::new(STAGE), &old).map_err(|e| Failure::new("pivot_root", &e))?;
    std::env::set_current_dir("/").map_err(|e| Failure::new("enter the new root", &e))?;
    let inside = format!("/{OLD}");
    let builder = Builder { old: open_dir(&inside)?, new: open_dir("/")?, ids, maps };
    for mount in mounts {
        builder.add(mount)?;
    }
    if let Some(terminal) = terminal {
        builder.console(terminal).map_err(|e| Failure::new("show its terminal as /dev/console", &e))?;
    }
    drop(builder);
    umount2(inside.as_str(), MntFlags::MNT_DETACH).map_err(failed("let go of the old root"))?;
    fs::remove_dir(&inside).map_err(|e| Failure::new("remove the place of the old root", &e))?;
    // Only the root's own mount: the private directories are mounts of their own and stay writable.
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed("make the root read-only"))
}

impl Builder<'_> {
    fn add(&self, mount: &Mount) -> Result<(), Failure> {
        let named = |path: &Path, e: io::Error| Failure::new(format!("show {}", path.display()), &e);
        match mount {
            Mount::Bind { source, target, access, id_map } => {
                self.bind(source, target, *access, *id_map).map_err(|e| named(target, e))
            }
            Mount::Device { path } => self.device(path).map_err(|e| named(path, e)),
            Mount::Private { target, mode, execute } => {
                self.private(target, *mode, *execute).map_err(|e| named(target, e))
            }
            Mount::Link { target, to } => link(target, to).map_err(|e| named(target, e)),
            Mount::File { target, content } => file(target, content.as_bytes()).map_err(|e| named(target, e)),
            Mount::Proc => {
                make_dir(Path::new("/proc")).map_err(|e| named(Path::new("/proc"), e))?;
                mount_proc(Path::new("/proc"), MsFlags::MS_RDONLY)
            }
            Mount::Terminals => {
                make_dir(Path::new("/dev/pts")).map_err(|e| named(Path::new("/dev/pts"), e))?;
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
                nix::mount::mount(
                    Some("devpts"),
                    "/dev/pts",
                    Some("devpts"),
                    flags,
                    Some("newinstance,ptmxmode=0666,mode=0620"),
                )
                .map_err(|e| Failure::new("mount /dev/pts", &e.into()))
            }
            Mount::Pin { target } => {
                self.pin(target).map_err(|e| Failure::new(format!("pin {}", target.display()), &e))
            }
            Mount::Protect { target } => {
                self.protect(target).map_err(|e| Failure::new(format!("keep {} read-only", target.display()), &e))
            }
            Mount::Hide { target } => match mount::open_in_root(self.new.as_fd(), target) {
                Ok(_) => cover(self.new.as_fd(), target),
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(()),
                Err(e) => Err(named(target, e)),
            },
        }
    }

    fn bind(&self, source: &Path, target: &Path, access: Access, id_map: Option<(u32, u32)>) -> io::Result<()> {
        let at = mount::open_in_root(self.old.as_fd(), source)?;
        let copy = mount::clone_tree(at.as_fd())?;
        if let Some(owner) = id_map {
            let namespace = self.maps.iter().find(|(mapped, _)| *mapped == owner).map(|(_, fd)| fd);
            let namespace = namespace.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
            mount::set_id_map(copy.as_fd(), namespace.as_fd())?;
        }
        let write = if access == Access::Write { 0 } else { ATTR_RDONLY };
        mount::set_attributes(copy.as_fd(), ATTR_NOSUID | ATTR_NODEV | write)?;
        let is_dir = nix::sys::stat::fstat(&at)?.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let place = self.place(target, is_dir)?;
        mount::attach(copy.as_fd(), place.as_fd())
    }

    fn device(&self, path: &Path) -> io::Result<()> {
        let at = mount::open_in_root(self.old.as_fd(), path)?;
        let copy = mount::clone_tree(at.as_fd())?;
        mount::set_attributes(copy.as_fd(), ATTR_NOSUID | ATTR_NOEXEC)?;
        let place = self.place(path, false)?;
        mount::attach(copy.as_fd(), place.as_fd())
    }

    /// Its terminal belongs to the host's /dev/pts, so none of its own paths names it and ttyname(3) fails. Shown as
    /// /dev/console, where that looks. A terminal that our own /dev/pts does not have (another container's) stays without a name.
    fn console(&self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        let given = nix::sys::stat::fstat(terminal)?;
        let path = PathBuf::from(format!("/dev/pts/{}", libc::minor(given.st_rdev)));
        let at = match mount::open_in_root(self.old.as_fd(), &path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            at => at?,
        };
        let found = nix::sys::stat::fstat(&at)?;
        if (found.st_dev, found.st_ino, found.st_rdev) != (given.st_dev, given.st_ino, given.st_rdev) {
            return Ok(());
        }
        let copy = mount::clone_tree(at.as_fd())?;
        mount::set_attributes(copy.as_fd(), ATTR_NOSUID | ATTR_NOEXEC)?;
        mount::attach(copy.as_fd(), self.place(Path::new("/dev/console"), false)?.as_fd())
    }

    /// The mount point: what an earlier mount shows there, else made on the tmpfs.
    fn place(&self, target: &Path, is_dir: bool) -> io::Result<OwnedFd> {
        match mount::open_in_root(self.new.as_fd(), target) {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            found => return found,
        }
        if is_dir {
            make_dir(target)?;
        } else {
            file(target, b"")?;
        }
        mount::open_in_root(self.new.as_fd(), target)
    }

    fn private(&self, target: &Path, mode: u32, execute: Execute) -> io::Result<()> {
        make_dir(target)?;
        fs::set_permissions(target, fs::Permissions::from_mode(mode))?;
        if let Some(ids) = self.ids {
            chown(target, Some(ids.uid), Some(ids.gid))?;
        }
        let at = mount::open_in_root(self.new.as_fd(), target)?;
        let copy = mount::clone_tree(at.as_fd())?;
        let noexec = if execute == Execute::Refused { ATTR_NOEXEC } else { 0 };
        mount::set_attributes(copy.as_fd(), ATTR_NOSUID | ATTR_NODEV | noexec)?;
        mount::attach(copy.as_fd(), at.as_fd())
    }

    fn pin(&self, target: &Path) -> io::Result<()> {
        let at = match mount::open_in_root(self.new.as_fd(), target) {
            // Nothing there, nothing to hold in place: an agent may have removed it between two launches.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            at => at?,
        };
        let copy = mount::clone_tree(at.as_fd())?;
        mount::attach(copy.as_fd(), at.as_fd())
    }

    fn protect(&self, target: &Path) -> io::Result<()> {
        let at = match mount::open_in_root(self.new.as_fd(), target) {
            // Its owner has removed it since the plan was made: a reason for nothing.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(()),
            at => at?,
        };
        let copy = mount::clone_tree(at.as_fd())?;
        mount::set_attributes(copy.as_fd(), ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?;
        mount::attach(copy.as_fd(), at.as_fd())
    }
}

/// Covers a directory with an empty one, anything else with /dev/null.
fn cover(root: BorrowedFd<'_>, path: &Path) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::new(format!("hide {}", path.display()), &e);
    let at = match mount::open_in_root(root, path) {
        Ok(at) => at,
        // What is not there needs no cover; anything else (a link in the way) is a reason to stop.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let mode = nix::sys::stat::fstat(&at).map_err(|e| failed(e.into()))?.st_mode;
    if mode & libc::S_IFMT == libc::S_IFDIR {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
        nix::mount::mount(Some("agt-hidden"), path, Some("tmpfs"), flags, Some("size=4k,mode=0000"))
            .map_err(|e| failed(e.into()))
    } else {
        let null = mount::open_in_root(root, Path::new("/dev/null")).map_err(failed)?;
        let copy = mount::clone_tree(null.as_fd()).map_err(failed)?;
        mount::attach(copy.as_fd(), at.as_fd()).map_err(failed)
    }
}

fn mount_proc(at: &Path, more: MsFlags) -> Result<(), Failure> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | more;
    nix::mount::mount(Some("proc"), at, Some("proc"), flags, None::<&str>)
        .map_err(|e| Failure::new("mount a fresh /proc", &e.into()))
}

fn make_dir(path: &Path) -> io::Result<()> {
    // The parent is there already nearly always: parents come first.
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new().recursive(true).mode(0o755).create(path),
        done => done,
    }
}

fn file(path: &Path, content: &[u8]) -> io::Result<()> {
    with_parent(path, || fs::write(path, content))
}

fn link(path: &Path, to: &Path) -> io::Result<()> {
    with_parent(path, || symlink(to, path))
}

fn with_parent(path: &Path, make: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match (make(), path.parent()) {
        (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => {
            make_dir(parent)?;
            make()
        }
        (made, _) => made,
    }
}
