//! The ways out of the agents: one gateway for all of them, begun with the first that has one, and what happens on them.

mod gathering;
mod inside;
mod models;
mod ports;
mod rates;
mod spent;

use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agt_gateway::flow::Label;
use agt_gateway::hook::Hooks;
use agt_gateway::intercept::{Bundle, bundle};
use agt_gateway::limit::rate::Rate;
use agt_gateway::live::{self, Gateway, Outside, Serve, Settings};
use agt_gateway::policy::{OwnAddresses, Policy};
use agt_gateway::resolve::{Bounds, Resolver};
use agt_gateway::route::{self, BadTrust};
use agt_rings::Ring;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::gathering::{Carried, Gathered, Took};
pub(super) use self::ports::{Made, Shown};
use super::Supervisor;
use super::agent::Agent;
use super::event::Event;
use super::launching::in_full;
use crate::config::AgentPlan;

/// How long the end of an agent waits for the ends of its connections, to have them counted with its life.
const END_WITHIN: Duration = Duration::from_millis(250);

/// The gateway, once it is needed.
#[derive(Debug, Default)]
pub(super) struct Ways {
    running: Option<Running>,
    /// What the agents have spent on models.
    pub(super) accounts: models::Accounts,
    /// Ports that the supervisor itself listens on.
    ports: Vec<u16>,
    /// For agents whose TLS is opened, once there is one.
    roots: Option<Arc<Bundle>>,
}

#[derive(Debug)]
struct Running {
    /// Never contended: the loop alone has it. The lock makes what it holds shareable, which the loop's own future must be.
    gateway: Mutex<Gateway>,
    last: mpsc::Sender<oneshot::Sender<Gathered>>,
}

impl Ways {
    /// Ports that agents reach only if the operator names them.
    pub(super) fn keep_from_agents(&mut self, ports: impl IntoIterator<Item = u16>) {
        self.ports.extend(ports);
    }

    fn running(&mut self, events: &mpsc::UnboundedSender<Event>) -> io::Result<&mut Gateway> {
        let own = OwnAddresses::new(host_addresses()?, self.ports.iter().copied());
        match &mut self.running {
            Some(running) => unlocked(&mut running.gateway).set_own(own),
            none => {
                let resolver = Resolver::system(Bounds::default());
                let dial = Arc::new(resolver.clone());
                let tls = match route::trust(&[]) {
                    Err(nobody @ BadTrust::NoRoots) => {
                        eprintln!(
                            "warning: {nobody}: model routes by TLS and hosts with `intercept: on` are refused\nhelp: install ca-certificates"
                        );
                        route::trust_nobody()
                    }
                    trust => trust,
                };
                let tls = tls.map_err(io::Error::other)?;
                let outside = Outside { resolver, own, dial, tls };
                let (gateway, happenings) = Gateway::start(Settings::default(), Hooks::default(), outside)?;
                let (last, asked) = mpsc::channel(1);
                tokio::spawn(gathering::gather(happenings, asked, events.clone()));
                *none = Some(Running { gateway: Mutex::new(gateway), last });
            }
        }
        Ok(unlocked(&mut self.running.as_mut().expect("set right above").gateway))
    }

    /// Gives an agent that was launched its ways out: `listeners` are those that its plan opens in this ring, in their order. With
    /// them come the ports that it shows.
    ///
    /// # Errors
    /// When the gateway can't be started, or a listener not be served.
    pub(super) fn open(
        &mut self,
        plan: &AgentPlan,
        ring: Ring,
        (listeners, shown): (Vec<TcpListener>, Vec<(TcpListener, Serve)>),
        (models, rate): (Option<live::Models>, Arc<Rate>),
        events: &mpsc::UnboundedSender<Event>,
    ) -> io::Result<Option<live::Agent>> {
        if listeners.is_empty() && shown.is_empty() {
            return Ok(None);
        }
        let policy = plan.network.policy_at(ring, FIRST).map_err(io::Error::other)?;
        let agent = self.running(events)?.register(Label::from(plan.name()), policy);
        // Before anybody is served: a first call must find its route.
        agent.set_models(models);
        agent.set_rate(rate);
        for (listener, opening) in listeners.into_iter().zip(plan.openings_at(ring)) {
            agent.listen(listener, inside::serve(opening)?)?;
        }
        for (listener, serve) in shown {
            agent.listen(listener, serve)?;
        }
        Ok(Some(agent))
    }

    /// What programs have to believe where the gateway opens TLS: the host's roots, and the gateway's own.
    ///
    /// # Errors
    /// When the gateway can't be started, or its authority not be made.
    pub(super) fn roots(&mut self, events: &mpsc::UnboundedSender<Event>) -> io::Result<Arc<Bundle>> {
        if let Some(roots) = &self.roots {
            return Ok(Arc::clone(roots));
        }
        let authority = self.running(events)?.authority().map_err(io::Error::other)?;
        let made = Arc::new(bundle(&authority, &[]));
        self.roots = Some(Arc::clone(&made));
        Ok(made)
    }

    /// What has happened until now.
    async fn last(&mut self) -> Gathered {
        let Some(running) = &self.running else { return Gathered::default() };
        let (answer, hears) = oneshot::channel();
        if running.last.send(answer).await.is_err() {
            return Gathered::default();
        }
        hears.await.unwrap_or_default()
    }
}

fn unlocked(gateway: &mut Mutex<Gateway>) -> &mut Gateway {
    gateway.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// The first policy of a life.
const FIRST: u64 = 1;

/// Addresses of all interfaces of this host.
fn host_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| interface.address).filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(addresses.collect())
}

/// A changed plan holds for what is open as well. A ring is only ever another one in the next life.
pub(super) fn renew(agent: &Agent) {
    agent.set_rate();
    let Some(way) = &agent.way_out else { return };
    let generation = way.generation() + 1;
    let plan = &agent.definition.plan;
    let policy = plan.network.policy_at(agent.ring, generation).unwrap_or_else(|e| {
        eprintln!("error: {}: its network entries make no policy, so it reaches nothing: {e}", plan.name());
        Policy::nothing(generation)
    });
    if let Err(e) = way.set_policy(policy) {
        eprintln!("error: {}: {e}", plan.name());
    }
}

impl Supervisor {
    /// Keeps these ports of the supervisor from agents.
    #[must_use]
    pub fn keeping_from_agents(mut self, ports: impl IntoIterator<Item = u16>) -> Supervisor {
        self.ways.keep_from_agents(ports);
        self
    }

    /// Takes the network of a life that has ended away, and counts what came of it before the life is closed.
    pub(super) async fn close_way_out(&mut self, name: &str) {
        let Some(way) = self.agents.get_mut(name).and_then(|agent| agent.way_out.take()) else { return };
        // What is cut later than that is counted with the next life.
        let _ = tokio::time::timeout(END_WITHIN, way.close()).await;
        let gathered = self.ways.last().await;
        self.passed(gathered).await;
        self.throttled(name);
        self.keep_models();
    }

    /// Serves the listeners of a launch, and the ports that it shows; without them it has no way out, which is said and is all.
    pub(super) fn open_way_out(&mut self, name: &str, made: Made) {
        let served = (made.listeners, self.shown(name, made.inside));
        let Some(agent) = self.agents.get_mut(name) else { return };
        let held = (agent.models.take(), Arc::clone(&agent.rate));
        match self.ways.open(&agent.definition.plan, agent.ring, served, held, &self.events) {
            Ok(way) => {
                if way.is_some() {
                    self.telemetry.opened(name);
                }
                agent.way_out = way;
            }
            Err(e) => eprintln!("error: {name}: it has no way out: {}", in_full(&e)),
        }
    }
}
