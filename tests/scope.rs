//! A delegated group asked from systemd: what the supervisor says on a real message bus, to a peer that plays systemd there and
//! really makes the groups.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use zbus::blocking::{Connection, connection};
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use crate::support::{Outcome, Rig, binary, needs_root, skip, until};

/// Debian's `games`: a message bus greets only who is in its user database.
const USER: u32 = 5;
/// Nobody's.
const GROUP: u32 = 65_532;

/// A message bus that lets everybody speak.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start(dir: &Path) -> Option<Bus> {
        let config = dir.join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context='default'><allow send_destination='*'/><allow receive_type='signal'/><allow eavesdrop='false'/>\
             <allow own='*'/><allow user='*'/></policy></busconfig>",
            dir.join("bus").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--print-address", "--config-file"]).arg(&config);
        let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        std::fs::set_permissions(dir.join("bus"), std::fs::Permissions::from_mode(0o666)).unwrap();
        Some(Bus { daemon, address: address.trim().to_owned() })
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What the peer does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    /// Makes the groups and moves the process.
    Gives,
    /// As systemd before 253: it knows no OOMPolicy of scopes.
    GivesAsOldOnesDo,
    /// Refuses, as polkit would have it.
    Refuses,
    /// Accepts the job, whose end is bad.
    Fails,
    /// Never answers.
    Hangs,
}

struct Systemd {
    mood: Mood,
    asked: SyncSender<Properties>,
    given: Arc<Mutex<Vec<String>>>,
}

type Properties = Vec<(String, OwnedValue)>;
type Auxiliary = Vec<(String, Properties)>;

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn subscribe(&self) {}

    async fn start_transient_unit(
        &self,
        name: String,
        _mode: String,
        properties: Properties,
        _auxiliary: Auxiliary,
        #[zbus(signal_emitter)] emitter: zbus::object_server::SignalEmitter<'_>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        let pids = properties.iter().find(|(key, _)| key == "PIDs").unwrap().1.try_clone().unwrap();
        let knows_policy = self.mood != Mood::GivesAsOldOnesDo;
        let said_policy = properties.iter().any(|(key, _)| key == "OOMPolicy");
        self.asked.send(properties).unwrap();
        if said_policy && !knows_policy {
            let text = "Cannot set property OOMPolicy, or unknown property.".to_owned();
            return Err(zbus::fdo::Error::PropertyReadOnly(text));
        }
        let result = match self.mood {
            Mood::Refuses => return Err(zbus::fdo::Error::AccessDenied("not for you".to_owned())),
            Mood::Hangs => std::future::pending().await,
            Mood::Fails => "failed",
            Mood::Gives | Mood::GivesAsOldOnesDo => {
                let pids = Vec::<u32>::try_from(pids).unwrap();
                scopes(&name).iter().for_each(|dir| give(dir, &pids));
                self.given.lock().unwrap().push(name.clone());
                "done"
            }
        };
        let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/7").unwrap();
        // Another's job first: only ours counts.
        let other = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/6").unwrap();
        Systemd::job_removed(&emitter, 6, other, "other.service".to_owned(), "failed".to_owned()).await?;
        Systemd::job_removed(&emitter, 7, job.clone(), name, result.to_owned()).await?;
        Ok(job)
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &zbus::object_server::SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

/// A scope's folder in each hierarchy that is mounted here, below this test's own groups.
fn scopes(name: &str) -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let below = |controller: &str, mount: &str| {
        let line = own.lines().find(|line| line.split(':').nth(1) == Some(controller))?;
        let path = line.splitn(3, ':').nth(2)?.trim_start_matches('/');
        let dir = Path::new(mount).join(path);
        dir.join("cgroup.procs").exists().then(|| dir.join(name))
    };
    let v2 = below("", "/sys/fs/cgroup/unified").or_else(|| below("", "/sys/fs/cgroup"));
    let v1 = ["cpu", "memory", "pids"].map(|name| below(name, &format!("/sys/fs/cgroup/{name}")));
    v2.into_iter().chain(v1.into_iter().flatten()).collect()
}

/// What systemd does for `Delegate=yes`: a group that its user may divide further.
fn give(dir: &Path, pids: &[u32]) {
    std::fs::create_dir(dir).unwrap();
    for name in ["", "cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"] {
        let path = dir.join(name);
        if path.exists() {
            std::os::unix::fs::chown(&path, Some(USER), Some(GROUP)).unwrap();
        }
    }
    pids.iter().for_each(|pid| std::fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap());
}

struct Scene {
    rig: Rig,
    bus: Bus,
    _peer: Connection,
    asked: Receiver<Properties>,
    /// The scopes that were made.
    given: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    fn new(test: &str, mood: Mood) -> Option<Scene> {
        if !needs_root(test) {
            return None;
        }
        let rig = Rig::new();
        std::fs::copy(binary(), rig.dir.path().join("program")).unwrap();
        for path in [rig.dir.path(), &rig.work] {
            std::os::unix::fs::chown(path, Some(USER), Some(GROUP)).unwrap();
        }
        let Some(bus) = Bus::start(rig.dir.path()) else {
            skip(test, "needs dbus-daemon");
            return None;
        };
        let (asked_tx, asked) = sync_channel(8);
        let given = Arc::<Mutex<Vec<String>>>::default();
        let systemd = Systemd { mood, asked: asked_tx, given: Arc::clone(&given) };
        let peer = connection::Builder::address(bus.address.as_str())
            .and_then(|builder| builder.name("org.freedesktop.systemd1"))
            .and_then(|builder| builder.serve_at("/org/freedesktop/systemd1", systemd))
            .and_then(connection::Builder::build)
            .unwrap();
        Some(Scene { rig, bus, _peer: peer, asked, given })
    }

    /// The program as an ordinary user who has this bus and no group of their own.
    fn run(&self, args: &[&str]) -> Outcome {
        let (uid, gid, dir) = (USER.to_string(), GROUP.to_string(), self.rig.dir.path());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--"]).arg(dir.join("program"));
        command.arg("--state-dir").arg(&self.rig.state).args(args).current_dir(&self.rig.work);
        command.env("HOME", dir).env("DBUS_SESSION_BUS_ADDRESS", &self.bus.address).env_remove("SYSTEMD_EXEC_PID");
        Outcome::from(command.stdin(Stdio::null()).output().unwrap())
    }

    /// The units that were asked for, as the properties have them.
    fn properties(&self) -> Vec<String> {
        self.asked.try_iter().map(|all| format!("{all:?}")).collect()
    }
}

impl Drop for Scene {
    /// As systemd does when the last process of a scope is gone.
    fn drop(&mut self) {
        for dir in self.given.lock().unwrap().iter().flat_map(|name| scopes(name)) {
            until("the scope is empty", || std::fs::remove_dir(&dir).is_ok());
        }
    }
}

const AGENT: &str = "ring: 2\ncommand: [cat, /proc/self/cgroup]\n";

#[test]
fn an_ordinary_user_with_systemd_gets_full_rings_from_a_scope_of_its_own() {
    let name = "an_ordinary_user_with_systemd_gets_full_rings_from_a_scope_of_its_own";
    for mood in [Mood::Gives, Mood::GivesAsOldOnesDo] {
        let Some(scene) = Scene::new(name, mood) else { return };
        // `enforcement` is what it is by default: required. Without the scope this user's limits can't be kept.
        let file = scene.rig.agent("limited", AGENT);
        let outcome = scene.run(&["run", &file.display().to_string()]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("enforced: full"), "{}", outcome.stderr);
        let asked = scene.properties();
        assert_eq!(asked.len(), if mood == Mood::Gives { 1 } else { 2 }, "{asked:?}");
        assert!(asked[0].contains("Delegate") && asked[0].contains("OOMPolicy") && asked[0].contains("continue"));
        let doctor = scene.run(&["doctor", "--json"]);
        let survey: Json = serde_json::from_str(&doctor.stdout).unwrap();
        assert!(survey["cgroup"]["asked"].as_str().unwrap().contains(".scope"), "{}", survey["cgroup"]);
        assert!(survey["rings"].as_array().unwrap().iter().all(|ring| ring["gaps"] == Json::Array(vec![])));
        assert!(scene.run(&["doctor"]).stdout.contains("systemd gave us agt-supervise-"));
    }
}

#[test]
fn a_systemd_that_refuses_fails_or_hangs_leaves_the_gap_and_its_answer_in_it() {
    let name = "a_systemd_that_refuses_fails_or_hangs_leaves_the_gap_and_its_answer_in_it";
    for (mood, words) in [
        (Mood::Refuses, "systemd --user answered: org.freedesktop.DBus.Error.AccessDenied: not for you"),
        (Mood::Fails, "systemd --user ended the job with `failed`"),
        (Mood::Hangs, "systemd --user did not answer within 5 s"),
    ] {
        let Some(scene) = Scene::new(name, mood) else { return };
        let file = scene.rig.agent("limited", AGENT);
        let refused = scene.run(&["run", &file.display().to_string()]);
        assert_eq!(refused.code, 69, "{}", refused.stderr);
        assert!(refused.stderr.contains("memory-limit") && refused.stderr.contains(words), "{}", refused.stderr);
        assert_eq!(scene.properties().len(), 1);
    }
}

#[test]
fn a_bus_without_systemd_is_as_good_as_none_and_root_asks_nobody_who_is_not_there() {
    let name = "a_bus_without_systemd_is_as_good_as_none_and_root_asks_nobody_who_is_not_there";
    let Some(scene) = Scene::new(name, Mood::Gives) else { return };
    let file = scene.rig.agent("limited", AGENT);
    // As root this host's own groups do, so that nobody is asked.
    let full = scene.rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(full.code, 0, "{}", full.stderr);
    assert_eq!(scene.properties(), [""; 0]);
    std::os::unix::fs::chown(&scene.rig.state, Some(USER), Some(GROUP)).unwrap();
    std::fs::remove_dir_all(&scene.rig.state).unwrap();
    let Scene { rig, bus, _peer: peer, .. } = &scene;
    peer.release_name("org.freedesktop.systemd1").unwrap();
    let (uid, gid, dir) = (USER.to_string(), GROUP.to_string(), rig.dir.path());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--"]).arg(dir.join("program"));
    command.arg("--state-dir").arg(&rig.state).args(["run"]).arg(&file).current_dir(&rig.work).env("HOME", dir);
    let refused = Outcome::from(command.env("DBUS_SESSION_BUS_ADDRESS", &bus.address).output().unwrap());
    assert_eq!(refused.code, 69, "{}", refused.stderr);
    assert!(!refused.stderr.contains("asked for a scope"), "{}", refused.stderr);
}
