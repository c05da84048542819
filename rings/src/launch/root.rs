//! The agent's file system view, made inside its mount namespace.
//!
//! Every source is opened without following links, below the host's root, and copied as a detached mount whose attributes are
//! set before it becomes visible. A built root has two layers: one that is the same at each launch of a plan and can be kept
//! ([`base`]), and one that is made anew for each agent ([`dress`]); [`layers`] says what is which.

mod base;
mod copies;
mod dress;
mod host;
mod layers;
mod overlay;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use nix::mount::MsFlags;

pub(super) use base::{HostView, Kept};
use copies::{Copy, Seen};
use dress::Mask;

use super::protocol::Failure;
use crate::plan::{Ids, Mount, Plan, ProcView, Root};
use crate::sys::mount::{self, ATTR_RDONLY};
use crate::sys::process;

/// Where the new root is assembled: a directory that exists wherever we run, covered only inside the new namespace.
const STAGE: &str = "/proc";
/// Where the file system of the private directories is mounted: closed to the agent, who has its directories elsewhere.
const PRIVATE: &str = "/.private";
/// Where the agent finds its terminal.
const CONSOLE: &str = "/dev/console";

/// What root's uid alone may write, without any capability, and with it take the machine: core_pattern and uevent_helper name
/// programs that the kernel runs as root, cgroup.procs lets a process out of its limits and of a kill.
const KERNEL_FILES: [&str; 6] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys"];

/// The on-disk owners that a plan maps, each once.
pub(super) fn id_maps(plan: &Plan) -> Vec<(u32, u32)> {
    let Root::Built { mounts, .. } = &plan.root else { return Vec::new() };
    let mut owners: Vec<(u32, u32)> = mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Bind { id_map, .. } | Mount::Overlay { id_map, .. } => *id_map,
            _ => None,
        })
        .collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// For each on-disk (uid, gid) that is mapped: a user namespace with that map.
pub(super) type Maps = [((u32, u32), std::rc::Rc<OwnedFd>)];

/// What is there when a view is made.
pub(super) enum Ground<'a> {
    /// The caller has a mount namespace of its own, a copy of the host's.
    Own,
    /// The caller is in the host's mount namespace, with its root and its /proc at hand.
    Host {
        host: &'a HostView,
        /// The layer that an earlier launch of the same plan made.
        kept: Option<&'a Kept>,
        /// Who wants the layer if this launch has to make one.
        offer: Option<BorrowedFd<'a>>,
    },
}

/// What a view was made of: for whoever uses it later than at once.
#[derive(Debug, Default)]
pub(super) struct Basis {
    seen: Vec<Seen>,
    masks: Vec<Mask>,
}

impl Basis {
    /// Whether the names of the host still lead to what the view shows, and every mask stands. The caller is in the view.
    pub(super) fn holds(&self, host: &HostView) -> bool {
        copies::are_as_seen(host.root.as_fd(), &self.seen) && dress::masks_stand(&self.masks)
    }
}

/// Makes the view. Unless the root is left unchanged the caller is in a mount namespace of its own afterwards.
pub(super) fn enter(
    root: &Root,
    ids: Option<Ids>,
    maps: &Maps,
    terminal: Option<BorrowedFd<'_>>,
    ground: &Ground<'_>,
) -> Result<Basis, Failure> {
    match root {
        Root::Unchanged => Ok(Basis::default()),
        Root::Host { hide, show } => {
            own_namespace(ground)?;
            mount_proc(Path::new("/proc"), ProcView::Whole)?;
            let root = open_dir("/")?;
            for path in KERNEL_FILES.iter().map(Path::new) {
                make_read_only(root.as_fd(), path)
                    .map_err(|e| Failure::new(format!("make {} read-only", path.display()), &e))?;
            }
            host::cover_all(root.as_fd(), hide, show.as_deref())?;
            Ok(Basis::default())
        }
        Root::Built { mounts, bytes } => built(mounts, *bytes, ids, maps, terminal, ground),
    }
}

/// A mount namespace that nothing reaches from outside.
fn own_namespace(ground: &Ground<'_>) -> Result<(), Failure> {
    if let Ground::Host { .. } = ground {
        process::unshare(libc::CLONE_NEWNS).map_err(|e| Failure::new("make a mount namespace", &e))?;
    }
    private_propagation()
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
    ground: &Ground<'_>,
) -> Result<Basis, Failure> {
    let layers = layers::split(mounts);
    if let Ground::Own = ground {
        own_namespace(ground)?;
    }
    let root = open_dir("/")?;
    let mut seen = Vec::new();
    let fresh = copies::take(root.as_fd(), &layers.fresh, maps, &mut seen)?;
    let console = match terminal {
        Some(terminal) => copies::console(root.as_fd(), terminal)
            .map_err(|e| Failure::new("show its terminal as /dev/console", &e))?,
        None => None,
    };
    let proc = match ground {
        Ground::Own => own_proc(root.as_fd(), &layers.fresh)?,
        Ground::Host { .. } => None,
    };
    match ground {
        Ground::Host { host, kept: Some(kept), .. } if kept.is_true(host.root.as_fd()) => {
            kept.enter()?;
            seen.extend_from_slice(kept.seen());
        }
        Ground::Own | Ground::Host { .. } => {
            let mut shown = Vec::new();
            let kept = copies::take(root.as_fd(), &layers.kept, maps, &mut shown)?;
            if let Ground::Host { .. } = ground {
                own_namespace(ground)?;
            }
            base::build(&layers, &kept, &fresh, console.as_ref())?;
            if let Ground::Host { host, offer: Some(to), .. } = ground {
                base::offer(host.proc.as_fd(), *to, &shown)?;
            }
            seen.append(&mut shown);
        }
    }
    drop(root);
    let copies = dress::Copies { fresh: &fresh, console: console.as_ref(), proc: proc.as_ref() };
    let masks = dress::dress(&layers.fresh, &copies, bytes, ids)?;
    Ok(Basis { seen, masks })
}

/// A fresh /proc, not attached anywhere. In a user namespace the kernel mounts one only where another can be seen in full, so it is
/// made while the old root is there.
fn own_proc(root: BorrowedFd<'_>, fresh: &[&Mount]) -> Result<Option<Copy>, Failure> {
    let wanted = fresh.iter().find_map(|mount| if let Mount::Proc { view } = mount { Some(*view) } else { None });
    let Some(view) = wanted else { return Ok(None) };
    mount_proc(Path::new("/proc"), view)?;
    let copied = mount::open_in_root(root, Path::new("/proc")).and_then(|at| mount::clone_tree(at.as_fd()));
    let mount = copied.map_err(|e| Failure::new("copy the fresh /proc", &e))?;
    Ok(Some(Copy { mount, is_dir: true, scratch: None }))
}

/// Attaches a copy at its place.
fn show(root: BorrowedFd<'_>, target: &Path, copy: &Copy) -> io::Result<()> {
    mount::attach(copy.mount.as_fd(), place(root, target, copy.is_dir)?.as_fd())
}

/// The mount point: what an earlier mount shows there, else made on the tmpfs.
fn place(root: BorrowedFd<'_>, target: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    match mount::open_in_root(root, target) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        found => return found,
    }
    if is_dir {
        make_dir(target)?;
    } else {
        file(target, b"")?;
    }
    mount::open_in_root(root, target)
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

fn mount_proc(at: &Path, view: ProcView) -> Result<(), Failure> {
    let more = if view == ProcView::ReadOnly { MsFlags::MS_RDONLY } else { MsFlags::empty() };
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
