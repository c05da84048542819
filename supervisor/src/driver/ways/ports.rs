//! Ports of agents, shown to the host: listened at here, connected to inside.
//!
//! A listener stands from an agent's launch until it is dead for good. Between two of its lives it is held and not served, so that
//! nobody else takes the port, and who connects then waits for the next life as one waits for a busy server. The way inside is that
//! of one life: its init makes the sockets ([`agt_rings::launch::Entrance`]), and the connecting is done here, in the agent's own
//! network, because that is where such a socket belongs.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agt_gateway::live::Serve;
use agt_gateway::publish::{Connecting, Exposure, Inside};
use agt_rings::Ring;
use agt_rings::launch::{Entrance, Family, Running};
use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::Mutex;

use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::config::spec::Publish;
use crate::driver::Supervisor;
use crate::driver::audience::Line;
use crate::driver::event::Whose;
use crate::driver::records::wall_ms;
use crate::driver::status::PortSeen;

const PUBLISH: Action = Action::new("port.publish");
/// The shortest time between two lines about connections that nobody takes inside.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a launch has made in the agent's network.
#[derive(Debug)]
pub(in crate::driver) struct Made {
    pub(super) listeners: Vec<TcpListener>,
    /// The way to the agent's own ports.
    pub(super) inside: Option<Arc<dyn Inside>>,
}

impl Made {
    /// Takes it from a launch.
    pub(in crate::driver) fn by(running: &mut Running, whose: &Whose, ring: Ring) -> Made {
        let way = running.take_entrance().map(|entrance| Way::new(&whose.agent, entrance));
        let inside = match way.transpose() {
            Ok(way) => way.map(|way| -> Arc<dyn Inside> { Arc::new(way) }),
            Err(e) => {
                eprintln!("error: {}: there is no way to its ports: {e}", whose.agent);
                None
            }
        };
        let inside = inside.or_else(|| (ring == Ring::R0).then(|| -> Arc<dyn Inside> { Arc::new(Host) }));
        Made { listeners: running.take_listeners(), inside }
    }

    /// The way to the agent's own ports.
    pub(in crate::driver) fn inside(&self) -> Option<Arc<dyn Inside>> {
        self.inside.clone()
    }
}

/// The ports that an agent shows.
#[derive(Debug, Default)]
pub(in crate::driver) struct Shown {
    ports: Vec<Listening>,
    told: Option<Instant>,
}

#[derive(Debug)]
struct Listening {
    asked: Publish,
    at: SocketAddr,
    listener: TcpListener,
}

/// An address that can't be listened at.
#[derive(Debug, thiserror::Error)]
#[error("its port {} can't be shown at {}", .asked.port, .asked.listen)]
pub(in crate::driver) struct CantListen {
    asked: Publish,
    source: io::Error,
}

impl CantListen {
    /// What helps.
    pub(in crate::driver) fn help(&self) -> String {
        let Publish { listen, port } = self.asked;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "`ss -ltnp 'sport = :{}'` shows who listens there; `ports: [{} -> {port}]` takes any free port",
                listen.port(),
                SocketAddr::new(listen.ip(), 0),
            ),
            io::ErrorKind::AddrNotAvailable => "`ip address` shows this host's addresses".to_owned(),
            io::ErrorKind::PermissionDenied => "ports below 1024 are root's: take a higher one".to_owned(),
            _ => "another address or port in `ports:`".to_owned(),
        }
    }
}

impl Shown {
    /// Listens for these, and for nothing else from now on; those that are new.
    fn listen(&mut self, wanted: &[Publish]) -> Result<Vec<PortSeen>, CantListen> {
        self.ports.retain(|port| wanted.contains(&port.asked));
        let mut new = Vec::new();
        for &asked in wanted {
            if self.ports.iter().any(|port| port.asked == asked) {
                continue;
            }
            let listening = TcpListener::bind(asked.listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (at, listener) = listening.map_err(|source| CantListen { asked, source })?;
            self.ports.push(Listening { asked, at, listener });
            new.push(PortSeen { listen: at, port: asked.port });
        }
        Ok(new)
    }

    /// The listeners, for one life with this way inside.
    fn serve(&self, inside: &Arc<dyn Inside>) -> io::Result<Vec<(TcpListener, Serve)>> {
        let serve = |port: &Listening| {
            let exposure = if port.at.ip().is_loopback() { Exposure::Loopback } else { Exposure::Everywhere };
            let serve = Serve::Publish { port: port.asked.port, inside: Arc::clone(inside), exposure };
            Ok((port.listener.try_clone()?, serve))
        };
        self.ports.iter().map(serve).collect()
    }

    /// What is listened at.
    pub(in crate::driver) fn status(&self) -> Vec<PortSeen> {
        self.ports.iter().map(|port| PortSeen { listen: port.at, port: port.asked.port }).collect()
    }
}

/// The way to what an agent in R0 listens at: this host's network is its own.
#[derive(Debug)]
struct Host;

impl Inside for Host {
    fn connect(&self, port: u16) -> Connecting<'_> {
        Box::pin(TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
    }
}

/// The way into the network of one life.
struct Way {
    agent: String,
    entrance: Entrance,
    /// The same socket.
    ready: UnixStream,
    /// Who asks has the turn until the answer is there. Sockets of a family are all alike: an answer that comes after its question was
    /// given up is the next one's.
    turn: Mutex<Owed>,
    told: AtomicBool,
}

/// Questions without an answer yet.
#[derive(Debug, Default)]
struct Owed {
    v4: bool,
    v6: bool,
}

impl Owed {
    fn of(&mut self, family: Family) -> &mut bool {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

impl Way {
    fn new(agent: &str, entrance: Entrance) -> io::Result<Way> {
        // Registered as a stream: readiness is all that is asked of it, and the packet is read by its owner.
        let ready = std::os::unix::net::UnixStream::from(entrance.as_fd().try_clone_to_owned()?);
        let ready = UnixStream::from_std(ready)?;
        Ok(Way { agent: agent.to_owned(), entrance, ready, turn: Mutex::default(), told: AtomicBool::new(false) })
    }

    async fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        let mut owed = self.turn.lock().await;
        if !*owed.of(family) {
            self.entrance.ask(family)?;
            *owed.of(family) = true;
        }
        loop {
            self.ready.readable().await?;
            match self.ready.try_io(Interest::READABLE, || self.entrance.take()) {
                Ok(Some(made)) => {
                    *owed.of(made.family) = false;
                    if made.family == family {
                        return made.socket;
                    }
                }
                Ok(None) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    async fn reach(&self, family: Family, port: u16) -> io::Result<TcpStream> {
        let to = match family {
            Family::V4 => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Family::V6 => SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        };
        let socket = self.socket(family).await.inspect_err(|e| self.tell(e))?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// An init that is gone has taken its agent along: that is said by others.
    fn tell(&self, error: &io::Error) {
        let expected = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        let no_such_family = error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT);
        if !expected && !no_such_family && !self.told.swap(true, Ordering::Relaxed) {
            eprintln!("error: {}: there is no way to its ports: {error}", self.agent);
        }
    }
}

impl Inside for Way {
    /// By 127.0.0.1, and where nobody listens there by ::1: what `localhost` is differs from program to program.
    fn connect(&self, port: u16) -> Connecting<'_> {
        Box::pin(async move {
            match self.reach(Family::V4, port).await {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    self.reach(Family::V6, port).await.map_err(|_| refused)
                }
                reached => reached,
            }
        })
    }
}

impl Supervisor {
    /// Listens for the ports of a launch.
    pub(in crate::driver) fn show_ports(&mut self, name: &str) -> Result<(), CantListen> {
        let Some(agent) = self.agents.get_mut(name) else { return Ok(()) };
        let plan = &agent.definition.plan;
        let new = agent.shown.listen(plan.ports_at(agent.ring))?;
        let none = !plan.ports.is_empty() && plan.ports_at(agent.ring).is_empty();
        let ring = agent.ring;
        for port in new {
            self.note(
                Record::new(wall_ms(), Actor::Supervisor, PUBLISH, Outcome::Done)
                    .agent(name)
                    .detail("at", port.listen.to_string())
                    .detail("port", i64::from(port.port)),
            );
        }
        if none {
            let instead = if ring == Ring::R0 { "it listens on the host itself" } else { "it listens nowhere" };
            self.say(name, Line::Course, format!("note: {name}: its ports are not shown in {ring}: {instead}"));
        }
        Ok(())
    }

    /// What the gateway serves of an agent's ports in this life.
    pub(super) fn shown(&mut self, name: &str, inside: Option<Arc<dyn Inside>>) -> Vec<(TcpListener, Serve)> {
        let Some(agent) = self.agents.get_mut(name) else { return Vec::new() };
        if agent.shown.ports.is_empty() {
            return Vec::new();
        }
        let no_network = || io::Error::other("it has no network of its own here");
        match inside.ok_or_else(no_network).and_then(|inside| agent.shown.serve(&inside)) {
            Ok(served) => served,
            Err(e) => {
                agent.shown = Shown::default();
                let text = format!("error: {name}: its ports are not shown: {e}");
                self.say(name, Line::Matter, text);
                Vec::new()
            }
        }
    }

    /// Says that somebody connected to a port at which nobody listens inside.
    pub(super) fn nobody_listens(&mut self, name: &str, port: u16, times: u64) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let now = Instant::now();
        if agent.shown.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return;
        }
        agent.shown.told = Some(now);
        let what = if times == 1 { "a connection was".to_owned() } else { format!("{times} connections were") };
        let text = format!("note: {name}: {what} closed: it does not listen at its port {port}");
        self.say(name, Line::Course, text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_stays_over_lives_and_goes_with_its_line() {
        let mut shown = Shown::default();
        let any = Publish::parse("0 -> 8080").unwrap();
        let first = shown.listen(&[any]).unwrap();
        assert!(first.len() == 1 && first[0].listen.port() != 0);
        assert!(shown.listen(&[any]).unwrap().is_empty(), "it is listened at already");
        assert_eq!(shown.status(), first);
        shown.listen(&[]).unwrap();
        assert!(shown.status().is_empty());
        // The port is free again.
        TcpListener::bind(first[0].listen).unwrap();
    }

    #[test]
    fn a_port_in_use_is_told_with_what_to_write() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = other.local_addr().unwrap();
        let wanted = Publish::parse(&format!("{at} -> 80")).unwrap();
        let error = Shown::default().listen(&[wanted]).unwrap_err();
        assert!(error.to_string().contains(&at.to_string()), "{error}");
        assert!(error.help().contains("ports: [127.0.0.1:0 -> 80]"), "{}", error.help());
    }
}
