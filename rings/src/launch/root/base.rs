//! The layer of a root that is the same at each launch of a plan: a small tmpfs, read-only once it is made.
//!
//! The first launch makes it in its own mount namespace and offers that namespace to the launcher before it goes on in a copy.
//! Later launches of the same plan enter the namespace and copy it in one step (unshare(2)): no old root to let go of, which
//! costs a grace period of the kernel, and no mount that is made one by one. Nobody lives in the kept namespace, and no agent
//! can write what it shows: the file system is read-only as a whole, not only its mount.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, umount2};

use super::copies::{self, Copy, Seen};
use super::layers::Layers;
use super::{CONSOLE, PRIVATE, STAGE, file, link, make_dir, open_dir, place};
use crate::launch::protocol::Failure;
use crate::plan::Mount;
use crate::sys::{fdpass, mount, process};

/// Room for small files and mount points; nobody can fill it.
const BASE_BYTES: u64 = 16 * 1024 * 1024;
const BASE_INODES: u32 = 1 << 16;

/// A made layer, kept by the launcher.
#[derive(Debug)]
pub(in crate::launch) struct Kept {
    namespace: OwnedFd,
    seen: Vec<Seen>,
}

/// Makes the layer in the caller's mount namespace and makes it the root.
pub(super) fn build(
    layers: &Layers<'_>,
    kept: &[Option<Copy>],
    fresh: &[Option<Copy>],
    console: Option<&Copy>,
) -> Result<(), Failure> {
    let failed = |step: &'static str| move |e: nix::errno::Errno| Failure::new(step, &e.into());
    let options = format!("size={BASE_BYTES},nr_inodes={BASE_INODES},mode=0755");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("agt-root"), STAGE, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(failed("mount the new root"))?;
    std::env::set_current_dir(STAGE).map_err(|e| Failure::new("enter the new root", &e))?;
    // The old root comes to lie upon the new one, and goes.
    mount::pivot_root(Path::new("."), Path::new(".")).map_err(|e| Failure::new("pivot_root", &e))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("let go of the old root"))?;
    std::env::set_current_dir("/").map_err(|e| Failure::new("enter the new root", &e))?;
    let root = open_dir("/")?;
    for (entry, copy) in layers.kept.iter().zip(kept) {
        add(root.as_fd(), entry, copy.as_ref())?;
    }
    for (number, target) in layers.on_the_kept() {
        // What is no copy is a directory: /proc, /dev/pts, the private ones.
        let is_dir = fresh[number].as_ref().is_none_or(|copy| copy.is_dir);
        place(root.as_fd(), &target, is_dir)
            .map_err(|e| Failure::new(format!("make a place for {}", target.display()), &e))?;
    }
    make_dir(Path::new(PRIVATE)).map_err(|e| Failure::new("make a place for the private directories", &e))?;
    if console.is_some() {
        file(Path::new(CONSOLE), b"").map_err(|e| Failure::new("make a place for its terminal", &e))?;
    }
    drop(root);
    // The file system itself, then its mount.
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | flags;
    for how in [read_only, read_only | MsFlags::MS_BIND] {
        nix::mount::mount(None::<&str>, "/", None::<&str>, how, None::<&str>)
            .map_err(failed("make the root read-only"))?;
    }
    Ok(())
}

fn add(root: BorrowedFd<'_>, entry: &Mount, copy: Option<&Copy>) -> Result<(), Failure> {
    let (target, added) = match (entry, copy) {
        (Mount::Bind { target, .. } | Mount::Device { path: target }, Some(copy)) => {
            (target, super::show(root, target, copy))
        }
        (Mount::Link { target, to }, _) => (target, link(target, to)),
        (Mount::File { target, content }, _) => (target, file(target, content.as_bytes())),
        _ => return Ok(()),
    };
    added.map_err(|e| Failure::new(format!("show {}", target.display()), &e))
}

/// Gives the layer just built, in the caller's mount namespace, to whoever listens, and goes on in a copy of it.
///
/// `proc`: the host's /proc, as a directory: none is mounted here yet.
pub(super) fn offer(proc: BorrowedFd<'_>, to: BorrowedFd<'_>, seen: &[Seen]) -> Result<(), Failure> {
    let failed = |e: io::Error| Failure::new("keep the root for the next launch", &e);
    let bytes = serde_json::to_vec(seen).map_err(|e| failed(e.into()))?;
    if bytes.len() > fdpass::MESSAGE_BYTES_MAX {
        return Ok(());
    }
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let namespace = nix::fcntl::openat(proc, "self/ns/mnt", flags, nix::sys::stat::Mode::empty());
    let namespace = namespace.map_err(|e| failed(e.into()))?;
    match fdpass::send(to, &bytes, &[namespace.as_raw_fd()]) {
        // From here on that one is nobody's, and ours is a copy.
        Ok(()) => process::unshare(libc::CLONE_NEWNS).map_err(failed),
        // Nobody wants it any more: mounts of the host have changed meanwhile.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

impl Kept {
    /// Takes an offer that is there already; `Ok(None)` when there is none yet.
    pub(in crate::launch) fn take(from: BorrowedFd<'_>) -> io::Result<Option<Kept>> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        if poll(&mut [PollFd::new(from, PollFlags::POLLIN)], PollTimeout::ZERO)? == 0 {
            return Ok(None);
        }
        let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (bytes, fds) = fdpass::receive(from)?.ok_or_else(gone)?;
        let namespace = fds.into_iter().next().ok_or_else(gone)?;
        Ok(Some(Kept { namespace, seen: serde_json::from_slice(&bytes)? }))
    }

    /// Whether every name of the host that it shows still leads to what it shows.
    pub(super) fn is_true(&self, host: BorrowedFd<'_>) -> bool {
        copies::are_as_seen(host, &self.seen)
    }

    /// The descriptor of its namespace.
    pub(in crate::launch) fn number(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }

    /// What it shows of the host.
    pub(super) fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Moves the caller into a copy of it.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new("enter a copy of the kept root", &e);
        process::enter_namespace(self.namespace.as_fd(), libc::CLONE_NEWNS).map_err(failed)?;
        process::unshare(libc::CLONE_NEWNS).map_err(failed)
    }
}

/// The host's names that the launcher keeps open for its inits: an init that has left the host's mount namespace still has to
/// look there.
#[derive(Debug)]
pub(in crate::launch) struct HostView {
    /// Its root.
    pub(in crate::launch) root: OwnedFd,
    /// Its /proc.
    pub(in crate::launch) proc: OwnedFd,
}

impl HostView {
    /// Of the caller's mount namespace.
    pub(in crate::launch) fn open() -> io::Result<HostView> {
        Ok(HostView { root: fs::File::open("/")?.into(), proc: fs::File::open("/proc")?.into() })
    }
}
