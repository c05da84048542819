//! The two ends of a life: launching it and clearing away after it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agt_gateway::intercept::Bundle;
use agt_gateway::proxy;
use agt_rings::cgroup::{Group, Join};
use agt_rings::launch::{Exit, LaunchError, Running};
use agt_rings::spec::Spec;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::Supervisor;
use super::agent::STOP_WITHIN;
use super::beside::beside;
use super::event::{Event, Gone, Launched, NotLaunched, OutOfMemory};
use super::governing;
use super::ground::Ground;
use super::streams;
use crate::config::AgentPlan;
use crate::exit;
use crate::govern::socket;
use crate::machine::lifecycle;

impl Supervisor {
    /// Starts a launch beside the loop, after it was recorded. What fails at once comes back as the event for it.
    pub(super) async fn launch(&mut self, name: &str) -> Option<lifecycle::Event> {
        let failed = |error: String, code: u8| Some(lifecycle::Event::LaunchFailed { error, code });
        self.telemetry.launching(name);
        if self.is_marked(name) {
            return failed("the kill switch's mark waits to be taken up".to_owned(), exit::KILLED);
        }
        if let Err(refusal) = self.set_ring(name).await {
            let code = super::governing::launch_code(&refusal);
            return failed(refusal.to_string(), code);
        }
        if let Err(refusal) = self.record_launch(name).await {
            return failed(refusal.to_string(), exit::CANT_CREATE);
        }
        if let Err(e) = self.show_ports(name) {
            return failed(format!("{}\nhelp: {}", in_full(&e), e.help()), exit::UNAVAILABLE);
        }
        self.recall_models(name).await;
        let agent = self.agents.get_mut(name)?;
        agent.launches += 1;
        agent.kill = None;
        agent.strikes = 0;
        agent.gone = None;
        agent.denied.begin();
        agent.made = crate::repositories::Found::default();
        streams::give_way(std::mem::take(&mut agent.pumps), &agent.wiring).await;
        let wired = match streams::wire(name, &agent.wiring, agent.log.clone(), agent.definition.log_limits()) {
            Ok(wired) => wired,
            Err(e) => return failed(format!("its standard streams can't be made: {e}"), exit::CANT_CREATE),
        };
        agent.pumps = wired.pumps;
        let whose = agent.whose();
        let limits = agent.limits_at(agent.ring);
        let spec = match agent.definition.launch_spec(agent.ring) {
            Ok(spec) => Spec { limits, ..spec },
            Err(e) => return failed(in_full(&e), exit::UNAVAILABLE),
        };
        agent.models = match self.ways.accounts.models(&agent.definition.plan, agent.ring, &self.telemetry) {
            Ok(models) => models,
            Err(e) => {
                let (error, code) = e.launch_failure();
                return failed(error, code);
            }
        };
        let roots = match agent.definition.plan.network.opens_tls_at(agent.ring) {
            true => match self.ways.roots(&self.events) {
                Ok(roots) => Some(roots),
                Err(e) => return failed(format!("TLS can't be opened for it: {}", in_full(&e)), exit::UNAVAILABLE),
            },
            false => None,
        };
        let asked = Asked { plan: agent.definition.plan.clone(), spec, roots };
        let control = self.open_control(name);
        let (ground, events) = (Arc::clone(&self.ground), self.events.clone());
        // How it went comes back as an event.
        drop(beside("agt-launch", move || {
            let result = perform(&ground, asked, &whose, &wired.streams, control.as_deref());
            let _ = events.send(Event::Launched(whose, Box::new(result)));
        }));
        None
    }
}

/// A launch as it is asked for, and the plan that it is of.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) plan: AgentPlan,
    pub(crate) spec: Spec,
    /// Where the gateway opens TLS: whom programs must believe.
    pub(crate) roots: Option<Arc<Bundle>>,
}

/// Looks at what stands in its trees by now, compiles, makes the group and launches; what a failed launch left is ended and
/// taken away. Blocks for all of that.
pub(crate) fn perform(
    ground: &Ground,
    asked: Asked,
    whose: &super::event::Whose,
    streams: &agt_rings::launch::Streams,
    control: Option<&Path>,
) -> Result<Launched, NotLaunched> {
    let not = |error: String, code: u8| NotLaunched { error, code };
    let launcher = ground.launcher().map_err(|e| not(e.in_full(), exit::UNAVAILABLE))?;
    let spec = asked.plan.as_it_stands(asked.spec);
    let spec = &ground.loaded.guarded(&spec).map_err(|e| not(e.to_string(), exit::REFUSED))?;
    let mut plan = match launcher.compile(spec) {
        Ok(Ok(plan)) => plan,
        Ok(Err(refused)) => {
            let mut text = refused.to_string();
            if let Some(gap) = refused.gaps.first() {
                let without = going_without(&asked.plan);
                let help = &gap.help;
                text.push_str(&format!("\nhelp: {help}. `agt-supervise doctor` shows what works here; {without}"));
            }
            return Err(not(text, exit::UNAVAILABLE));
        }
        Err(e) => return Err(not(in_full(&e), exit::UNAVAILABLE)),
    };
    if spec.scratch.is_some() {
        let nobody = || not("nobody can listen to its system calls on this host".to_owned(), exit::UNAVAILABLE);
        plan = plan.learning().ok_or_else(nobody)?;
    }
    let shown = control.and_then(|folder| Some((folder, plan.show_control(folder)?)));
    if let Some((_, shown)) = &shown {
        plan.env.push((governing::SOCKET_VARIABLE.into(), shown.join(socket::NAME).into()));
    }
    if let Some(roots) = &asked.roots {
        let Some((folder, shown)) = &shown else {
            let text =
                "TLS can't be opened for it (`intercept: on`): there is no place to show it the gateway's certificate";
            return Err(not(text.to_owned(), exit::UNAVAILABLE));
        };
        give_roots(roots, folder, shown, &mut plan.env)
            .map_err(|e| not(format!("the gateway's certificate can't be shown to it: {e}"), exit::UNAVAILABLE))?;
    }
    let group = ground.group(&format!("{}-{}", whose.agent, whose.life), &spec.limits).map_err(|e| {
        let help = "help: `agt-supervise doctor` shows what the control groups here keep";
        not(format!("{}\n{help}", in_full(&e)), exit::UNAVAILABLE)
    })?;
    let join = match &group {
        Some(group) => group.join().map_err(|e| not(in_full(&e), exit::UNAVAILABLE))?,
        None => Join::default(),
    };
    match launcher.launch(&plan, streams, &join) {
        Ok(running) => Ok(Launched { running, group: group.map(Arc::new), plan }),
        Err(e) => {
            if let Some(group) = group {
                // Nothing was started, or it is dying: make sure, then take the group away.
                if let Err(e) = group.kill(STOP_WITHIN).and_then(|_| group.remove(STOP_WITHIN)) {
                    eprintln!("warning: {}: its cgroup could not be removed: {e}", whose.agent);
                }
            }
            let mut text = in_full(&e);
            if matches!(e, LaunchError::Unfit { .. }) {
                text.push_str("\nhelp: connect a pipe, a socket, a terminal, a file or /dev/null");
            }
            Err(not(text, exit_code(&e)))
        }
    }
}

/// What the file of roots is called beside the control socket.
const ROOTS: &str = "roots.pem";

/// Shows the agent whom to believe, and has its programs told by the variables that they read, but for those that are set already.
fn give_roots(roots: &Bundle, folder: &Path, shown: &Path, env: &mut Vec<(OsString, OsString)>) -> io::Result<()> {
    let file = folder.join(ROOTS);
    fs::write(&file, roots.as_str())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    for (name, value) in proxy::trust_environment(&shown.join(ROOTS)) {
        if !env.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            env.push((name.into(), value.into()));
        }
    }
    Ok(())
}

/// How somebody says that less will do: where their other choices stand.
fn going_without(plan: &AgentPlan) -> String {
    if plan.has_file() {
        return "`enforcement: best-effort` in its file starts it without what can't be had, and says so".to_owned();
    }
    let ring = plan.ceiling.number();
    format!("`run --ring {ring} --enforcement best-effort -- ...` starts it without what can't be had, and says so")
}

fn exit_code(error: &LaunchError) -> u8 {
    match error {
        LaunchError::Step { step, source } if step.starts_with("execute") || step.starts_with("open the program") => {
            if source.kind() == io::ErrorKind::NotFound {
                127
            } else {
                126
            }
        }
        LaunchError::Unfit { .. } => exit::USAGE,
        _ => exit::UNAVAILABLE,
    }
}

/// An error with its causes, in one line.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    // File names are among what errors name, and a file's name is what its maker wants it to be.
    super::streams::escaped(&text)
}

/// Waits for the channel's word without blocking a thread.
pub(crate) async fn exit_of(running: &Running) -> io::Result<Exit> {
    // Registered as a stream: readiness is all that is asked of it, and the packet is read by its owner.
    let channel = std::os::unix::net::UnixStream::from(running.channel().try_clone_to_owned()?);
    channel.set_nonblocking(true)?;
    let channel = UnixStream::from_std(channel)?;
    loop {
        channel.readable().await?;
        match channel.try_io(Interest::READABLE, || running.read_exit()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Waits until the init is gone, ends whatever may be left, reads the last numbers and takes the group away.
pub(crate) fn clear_away(name: &str, exit: Exit, running: &Running, group: Option<&Group>) -> Gone {
    let complain = |what: &str, e: &dyn std::error::Error| eprintln!("error: {name}: {what}: {e}");
    match running.wait_gone(STOP_WITHIN) {
        Ok(true) => {}
        Ok(false) => complain("its init did not end", &io::Error::from(io::ErrorKind::TimedOut)),
        Err(e) => complain("its init can't be watched", &e),
    }
    let mut out_of_memory = OutOfMemory::NotSeen;
    let mut last = None;
    if let Some(group) = group {
        match group.usage() {
            Ok(usage) => {
                last = Some(usage);
                if usage.oom_kills.unwrap_or(0) > 0 {
                    out_of_memory = OutOfMemory::Seen;
                }
            }
            Err(e) => complain("its last numbers can't be read", &e),
        }
        if let Err(e) = group.kill(STOP_WITHIN) {
            complain("what it left can't be ended", &e);
        }
        if let Err(e) = group.tree().remove(Duration::from_secs(5)) {
            complain("its cgroup can't be removed", &e);
        }
    }
    Gone { exit, out_of_memory, usage: last }
}
