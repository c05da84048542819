//! A group of our own, asked from systemd where the one that we were started in can't hold agents.
//!
//! Why ask: whoever types a command at a terminal is in a session's group, together with a shell and without controllers, and
//! systemd is the only one who may make another (its Control Group API: one writer a subtree). It gives a *scope* with
//! `Delegate=yes` to whoever asks over D-Bus, the user's manager to its user, the system's to root. What it refuses is no
//! error here: everything is then as it would have been without asking, and the reason goes with the gaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, thread};

use nix::unistd::{Uid, getpid};
use zbus::blocking::{Connection, Proxy, connection};
use zbus::zvariant::{OwnedObjectPath, Value};

use super::base::Base;
use super::error::{Error, Result};
use super::layout::{Layout, Unusable};

/// How long systemd may take from the connection to the move. It takes milliseconds.
const GIVEN_WITHIN: Duration = Duration::from_secs(5);
/// Most signals of other jobs that are read while ours is awaited.
const SIGNALS_MAX: usize = 10_000;

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The group that we are in holds agents with all their limits.
    NotNeeded,
    /// There is no systemd to ask, or we are a unit of its already.
    Nobody,
    /// We are in a scope of our own now.
    Given {
        /// Its unit.
        unit: String,
    },
    /// It did not give one.
    Refused {
        /// Whom we asked, and the answer.
        reason: String,
    },
}

/// Our subtree, and how we came by the group above it.
#[derive(Debug)]
pub struct Claimed {
    /// Where we are now.
    pub layout: Layout,
    /// The subtree.
    pub base: Base,
    /// Whether systemd was asked.
    pub asked: Asked,
}

/// Opens a base below our own group; where that can't keep every limit, asks systemd for a better group first.
///
/// Nothing but this process may be there yet: systemd moves one pid.
///
/// # Errors
/// What [`Layout::detect`] or [`Base::open`] says, and with it what came of asking.
pub fn claim(id: &str) -> std::result::Result<Claimed, (Error, Asked)> {
    let (first, refusal) = match open(id) {
        Ok((layout, base)) if base.gaps().is_empty() => {
            return Ok(Claimed { layout, base, asked: Asked::NotNeeded });
        }
        Ok(opened) => (Some(opened), None),
        Err(error @ (Error::Unusable(_) | Error::Create { .. })) => (None, Some(error)),
        Err(error) => return Err((error, Asked::NotNeeded)),
    };
    let asked = ask(id);
    if let Asked::Given { .. } = asked {
        if let Some((_, base)) = first
            && let Err(error) = base.close()
        {
            return Err((error, asked));
        }
        return match open(id) {
            Ok((layout, base)) => Ok(Claimed { layout, base, asked }),
            Err(error) => Err((error, asked)),
        };
    }
    match (first, refusal) {
        (Some((layout, base)), _) => Ok(Claimed { layout, base, asked }),
        (None, refusal) => Err((refusal.unwrap_or(Error::Unusable(Unusable::NotMounted)), asked)),
    }
}

fn open(id: &str) -> Result<(Layout, Base)> {
    let layout = Layout::detect()?;
    let base = Base::open(&layout, id, &[])?;
    Ok((layout, base))
}

impl Asked {
    /// For a message beside the gaps: `None` where there is nothing to say.
    #[must_use]
    pub fn in_words(&self) -> Option<String> {
        match self {
            Asked::NotNeeded | Asked::Nobody => None,
            Asked::Given { unit } => Some(format!("systemd gave us {unit}")),
            Asked::Refused { reason } => Some(format!("asked for a scope of our own, {reason}")),
        }
    }
}

/// Which systemd would give us a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    System,
    User,
}

impl Manager {
    /// `None` where none can be there. A unit's own main process stays in its unit: systemd would lose sight of it.
    fn present() -> Option<Manager> {
        if env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid == getpid().to_string()) {
            return None;
        }
        if Uid::effective().is_root() {
            // sd_booted(3): the folder is there where systemd is pid 1.
            let booted = fs::symlink_metadata("/run/systemd/system").is_ok_and(|meta| meta.is_dir());
            return (booted || env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_some()).then_some(Manager::System);
        }
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(std::path::PathBuf::from);
        let bus = runtime.is_some_and(|folder| folder.join("bus").exists());
        (bus || env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()).then_some(Manager::User)
    }

    fn name(self) -> &'static str {
        match self {
            Manager::System => "systemd",
            Manager::User => "systemd --user",
        }
    }

    fn connect(self) -> zbus::Result<Connection> {
        let builder = match self {
            Manager::System => connection::Builder::system(),
            Manager::User => connection::Builder::session(),
        };
        builder?.method_timeout(GIVEN_WITHIN).build()
    }
}

fn ask(id: &str) -> Asked {
    let Some(manager) = Manager::present() else { return Asked::Nobody };
    let pid = getpid().as_raw().unsigned_abs();
    let unit = format!("agt-supervise-{id}-{pid}.scope");
    let (given_up, known) = (Arc::new(AtomicBool::new(false)), unit.clone());
    let (answer, answered) = mpsc::sync_channel(1);
    let late = Arc::clone(&given_up);
    // A thread, because a bus that hangs while it greets knows no timeout. One that is given up asks for nothing any more.
    let asker = thread::Builder::new().name("agt-scope".to_owned());
    let started = asker.spawn(move || answer.send(request(manager, &unit, pid, &late)));
    let refused = |words: String| Asked::Refused { reason: format!("{} {words}", manager.name()) };
    if let Err(e) = started {
        return refused(format!("can't be asked: {e}"));
    }
    match answered.recv_timeout(GIVEN_WITHIN) {
        Ok(Ok(())) if is_inside(&known) => Asked::Given { unit: known },
        Ok(Ok(())) => refused(format!("said that {known} is ours, and we are not in it")),
        Ok(Err(NotGiven::Bus(zbus::Error::MethodError(name, _, _)))) if name.as_str().ends_with(".ServiceUnknown") => {
            Asked::Nobody
        }
        Ok(Err(e)) => refused(e.to_string()),
        Err(_) => {
            given_up.store(true, Ordering::SeqCst);
            refused(format!("did not answer within {} s", GIVEN_WITHIN.as_secs()))
        }
    }
}

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
enum NotGiven {
    #[error("answered: {0}")]
    Bus(#[from] zbus::Error),
    #[error("ended the job with `{0}`")]
    Job(String),
    #[error("never told how the job ended")]
    Silent,
    #[error("was asked too late")]
    Late,
}

/// org.freedesktop.systemd1(5), StartTransientUnit: name, mode, properties, auxiliary units.
fn request(manager: Manager, unit: &str, pid: u32, given_up: &AtomicBool) -> std::result::Result<(), NotGiven> {
    let connection = manager.connect()?;
    let systemd = Proxy::new(
        &connection,
        "org.freedesktop.systemd1",
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
    )?;
    // Signals are sent to those who subscribed; heard before the job begins, so that its end can't be missed.
    systemd.call::<_, _, ()>("Subscribe", &())?;
    let ends = systemd.receive_signal("JobRemoved")?;
    let job = match start(&systemd, unit, pid, OomPolicy::Continue, given_up) {
        // Scopes have the property since systemd 253; before, the kernel's choice was all there was.
        Err(NotGiven::Bus(zbus::Error::MethodError(_, Some(text), _))) if text.contains("OOMPolicy") => {
            start(&systemd, unit, pid, OomPolicy::Unsaid, given_up)?
        }
        other => other?,
    };
    for signal in ends.take(SIGNALS_MAX) {
        let (_, ended, _, result): (u32, OwnedObjectPath, String, String) = signal.body().deserialize()?;
        if ended == job {
            return if result == "done" { Ok(()) } else { Err(NotGiven::Job(result)) };
        }
    }
    Err(NotGiven::Silent)
}

/// What systemd does when the kernel kills for memory somewhere in the scope.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OomPolicy {
    /// Nothing: an agent that meets its limit is our business, and no reason to stop all others.
    Continue,
    Unsaid,
}

fn start(
    systemd: &Proxy<'_>,
    unit: &str,
    pid: u32,
    oom: OomPolicy,
    given_up: &AtomicBool,
) -> std::result::Result<OwnedObjectPath, NotGiven> {
    let mut properties: Vec<(&str, Value<'_>)> = vec![
        ("Description", Value::from("agt-supervise and its agents")),
        ("PIDs", Value::from(vec![pid])),
        ("Delegate", Value::from(true)),
        ("CollectMode", Value::from("inactive-or-failed")),
    ];
    if oom == OomPolicy::Continue {
        properties.push(("OOMPolicy", Value::from("continue")));
    }
    let auxiliary: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
    if given_up.load(Ordering::SeqCst) {
        return Err(NotGiven::Late);
    }
    Ok(systemd.call("StartTransientUnit", &(unit, "fail", properties, auxiliary))?)
}

/// Whether the kernel says that we are there.
fn is_inside(unit: &str) -> bool {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines().any(|line| line.split('/').any(|part| part == unit))
}
