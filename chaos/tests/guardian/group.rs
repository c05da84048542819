//! A cgroup of our own, under our own current one, on each hierarchy that can freeze.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::scene::wait_for;

/// A cgroup that a test has made, with its freezer. Emptied and removed at the end.
pub(crate) struct Group {
    dir: PathBuf,
    is_v1: bool,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl Group {
    /// One on each hierarchy that is there: v1 `freezer`, v2.
    pub(crate) fn on_every_hierarchy() -> Vec<Group> {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = |wanted: &str| {
            let line = own.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            line.filter(|parts| parts[1] == wanted).map(|parts| parts[2].trim_start_matches('/').to_owned()).next()
        };
        let mut groups = Vec::new();
        if let Some(own) = path("freezer") {
            groups.extend(Group::make(Path::new("/sys/fs/cgroup/freezer").join(own), true));
        }
        for mount in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            if let (Some(own), true) = (path(""), Path::new(mount).join("cgroup.procs").exists()) {
                groups.extend(Group::make(Path::new(mount).join(own), false));
                break;
            }
        }
        assert!(!groups.is_empty(), "no hierarchy here can freeze");
        groups
    }

    fn make(parent: PathBuf, is_v1: bool) -> Option<Group> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = Group { dir: parent.join(format!("agt-chaos-test-{}-{count}", std::process::id())), is_v1 };
        fs::create_dir(&group.dir).ok()?;
        group.freezer().exists().then_some(group)
    }

    pub(crate) fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    pub(crate) fn freezer(&self) -> PathBuf {
        self.dir.join(if self.is_v1 { "freezer.state" } else { "cgroup.freeze" })
    }

    pub(crate) fn add(&self, pid: u32) {
        fs::write(self.procs(), pid.to_string()).unwrap();
    }

    pub(crate) fn freeze(&self) {
        fs::write(self.freezer(), if self.is_v1 { "FROZEN" } else { "1" }).unwrap();
        wait_for("the group to be frozen", || self.is_frozen());
    }

    /// As the kernel sees it, not as it was asked for.
    pub(crate) fn is_frozen(&self) -> bool {
        if self.is_v1 {
            fs::read_to_string(self.freezer()).unwrap().trim() == "FROZEN"
        } else {
            fs::read_to_string(self.dir.join("cgroup.events")).unwrap().contains("frozen 1")
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.freezer(), if self.is_v1 { "THAWED" } else { "0" });
        wait_for("the group to be removed", || {
            for pid in fs::read_to_string(self.procs()).unwrap_or_default().split_whitespace() {
                let _ = kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL);
            }
            fs::remove_dir(&self.dir).is_ok()
        });
    }
}
