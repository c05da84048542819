//! The way out that a plan gives: listeners inside the agent's network, and the policy that what comes there is decided by.
//!
//! The plan keeps entries as they were written, not a compiled policy: it is hashed, shown and compared, and a ring that changes
//! while the agent is dead compiles another policy from the same entries.

use std::net::{Ipv4Addr, SocketAddr};

use agt_gateway::policy::spec::{CeilingSpec, EntrySpec, InterceptSpec};
use agt_gateway::policy::{BadPolicy, Policy, Reach};
use agt_gateway::{proxy, route};
use agt_rings::Ring;
use agt_rings::spec::Inbound;
use serde::{Deserialize, Serialize};

use super::{AgentPlan, Forward, HealthPlan};
use crate::config::spec::Publish;

/// Where the HTTP proxy is looked for first inside an agent's own network; SOCKS5 is at the next port. Below the ports that the
/// kernel gives by itself, and nobody's well-known one: the agent's own servers keep theirs.
const PROXY_PORT: u16 = 20_789;

/// Whether it reaches, in R1, what nobody lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Openness {
    /// Only what is listed.
    #[default]
    Listed,
    /// Every public destination in R1, since the operator's file knows this agent. Logged.
    PublicInR1,
}

/// What an agent may reach.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// Its own entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntrySpec>,
    /// The operator's, above them.
    #[serde(default)]
    pub ceiling: CeilingSpec,
    /// What R1 adds.
    #[serde(default)]
    pub openness: Openness,
}

impl NetworkPlan {
    /// Whether there is nothing in it: what plans without a way out have always been hashed as.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == NetworkPlan::default()
    }

    fn reach_at(&self, ring: Ring) -> Reach {
        match (ring, self.openness) {
            (Ring::R1, Openness::PublicInR1) => Reach::Open,
            _ => Reach::Listed,
        }
    }

    /// Whether there is a host whose TLS the gateway opens: programs have to believe its certificate.
    #[must_use]
    pub fn opens_tls_at(&self, ring: Ring) -> bool {
        let on = |entry: &EntrySpec| entry.intercept == Some(InterceptSpec::On);
        matches!(ring, Ring::R1 | Ring::R2) && self.entries.iter().chain(&self.ceiling.network).any(on)
    }

    /// The policy in a ring.
    ///
    /// # Errors
    /// Entries that make none: a plan that was resolved has none of those.
    pub fn policy_at(&self, ring: Ring, generation: u64) -> Result<Policy, BadPolicy> {
        match ring {
            Ring::R0 | Ring::R3 => Ok(Policy::nothing(generation)),
            Ring::R1 | Ring::R2 => Policy::new(generation, self.reach_at(ring), &self.entries, &self.ceiling),
        }
    }
}

/// What stands behind a listener inside an agent's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The HTTP proxy, and model routes.
    Proxy,
    /// Model routes alone.
    Models,
    /// SOCKS5.
    Socks,
    /// One destination.
    Forward(Forward),
}

/// A listener inside an agent's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What for.
    pub way: Way,
}

impl AgentPlan {
    /// Ways out in this ring: none in R3.
    #[must_use]
    pub fn forwards_at(&self, ring: Ring) -> &[Forward] {
        match ring {
            Ring::R3 => &[],
            Ring::R0 | Ring::R1 | Ring::R2 => &self.forwards,
        }
    }

    /// The listeners inside in a ring, in the order in which a launch gives them: none in R0, whose network is the host's, and in R3
    /// that of model routes alone, where it is granted.
    #[must_use]
    pub fn openings_at(&self, ring: Ring) -> Vec<Opening> {
        if matches!(ring, Ring::R0 | Ring::R3) {
            let models = self.proxies_at(ring).http;
            return models.map(|listen| Opening { listen, way: Way::Models }).into_iter().collect();
        }
        let forwards = self.forwards_at(ring).iter();
        let mut openings: Vec<Opening> =
            forwards.map(|forward| Opening { listen: forward.listen, way: Way::Forward(forward.clone()) }).collect();
        let proxies = self.proxies_at(ring);
        openings.extend(proxies.http.map(|listen| Opening { listen, way: Way::Proxy }));
        openings.extend(proxies.socks.map(|listen| Opening { listen, way: Way::Socks }));
        openings
    }

    /// The ports that are shown to the host in a ring: none in R0, whose network is the host's, and none in R3.
    #[must_use]
    pub fn ports_at(&self, ring: Ring) -> &[Publish] {
        if matches!(ring, Ring::R0 | Ring::R3) { &[] } else { &self.ports }
    }

    /// The agent's own ports that something of ours connects to.
    fn own_ports(&self) -> impl Iterator<Item = u16> {
        let health = self.health.as_ref().and_then(HealthPlan::port);
        self.ports.iter().map(|shown| shown.port).chain(health)
    }

    /// Whether a launch in a ring has a way into its network.
    pub(super) fn inbound_at(&self, ring: Ring) -> Inbound {
        match ring {
            Ring::R1 | Ring::R2 if self.own_ports().next().is_some() => Inbound::Open,
            _ => Inbound::Closed,
        }
    }

    /// Where the HTTP proxy and SOCKS5 listen inside. Model routes are served by the proxy's listener, so that is there for them
    /// alone, too: without a destination it lets nothing else out.
    fn proxies_at(&self, ring: Ring) -> Proxies {
        let reaches = self.reaches_at(ring);
        let is_free = |port: &u16| {
            // A port of the gateway's that was shown as the agent's would be the proxy, open to this host.
            self.forwards.iter().all(|forward| forward.listen.port() != *port)
                && self.own_ports().all(|own| own != *port)
        };
        let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Both are bounded in number, so two ports that none of them has are near.
        let mut free = (PROXY_PORT..).filter(is_free).map(at);
        Proxies {
            http: free.next().filter(|_| reaches || self.models.has_routes_at(ring)),
            socks: free.next().filter(|_| reaches),
        }
    }

    /// Whether there is a destination beside forwards and model routes.
    fn reaches_at(&self, ring: Ring) -> bool {
        let has_network = matches!(ring, Ring::R1 | Ring::R2);
        has_network && (self.network.reach_at(ring) == Reach::Open || !self.network.entries.is_empty())
    }

    /// The variables by which programs find the proxy and the model routes in a ring. What the plan itself says of a variable, in
    /// capitals or not, is left as it is.
    #[must_use]
    pub fn way_variables(&self, ring: Ring) -> Vec<(String, String)> {
        let proxies = self.proxies_at(ring);
        let Some(http) = proxies.http else { return Vec::new() };
        let said = |name: &str| self.env.keys().any(|known| known.eq_ignore_ascii_case(name));
        let ways = self.reaches_at(ring).then(|| proxy::environment(http, proxies.socks)).into_iter().flatten();
        let models = route::environment(&self.models.routes_at(ring), &format!("http://{http}"));
        ways.chain(models).filter(|(name, _)| !said(name)).collect()
    }
}

/// Where the proxies listen inside.
#[derive(Debug, Default)]
struct Proxies {
    http: Option<SocketAddr>,
    socks: Option<SocketAddr>,
}

impl AgentPlan {
    /// The destinations of a ring in words, for one line.
    #[must_use]
    pub fn destinations_at(&self, ring: Ring) -> Vec<String> {
        if matches!(ring, Ring::R0 | Ring::R3) {
            return Vec::new();
        }
        let open = (self.network.reach_at(ring) == Reach::Open).then(|| "any public destination".to_owned());
        open.into_iter().chain(self.network.entries.iter().filter_map(in_words)).collect()
    }
}

/// An entry as `check` and `reload` show it: a row's name, and what it is about with all that narrows or widens it.
#[must_use]
pub(super) fn in_full(entry: &EntrySpec) -> (&'static str, String) {
    let (row, mut text) = match (&entry.deny, in_words(entry)) {
        (Some(host), _) => ("denies", with_ports(&host.to_string(), entry)),
        (None, words) => ("reaches", words.unwrap_or_default()),
    };
    let methods: Vec<String> = entry.methods.iter().map(|method| method.as_str().to_owned()).collect();
    let paths: Vec<String> = entry.paths.iter().map(ToString::to_string).collect();
    for list in [methods, paths].into_iter().filter(|list| !list.is_empty()) {
        text.push_str(&format!("  {}", list.join(" ")));
    }
    if entry.intercept == Some(InterceptSpec::On) {
        text.push_str("  TLS is opened");
    }
    if entry.sni.is_some() {
        text.push_str("  whatever its tunnel carries");
    }
    (row, text)
}

impl AgentPlan {
    /// The destinations of a ring for `check`: rows with their names.
    #[must_use]
    pub(super) fn ways_at(&self, ring: Ring) -> Vec<(&'static str, String)> {
        if matches!(ring, Ring::R0 | Ring::R3) {
            return Vec::new();
        }
        let open =
            (self.network.reach_at(ring) == Reach::Open).then(|| ("reaches", "any public destination".to_owned()));
        open.into_iter().chain(self.network.entries.iter().map(in_full)).collect()
    }
}

fn in_words(entry: &EntrySpec) -> Option<String> {
    if let Some(to) = &entry.tcp {
        return Some(to.0.to_string());
    }
    Some(with_ports(&entry.host.as_ref()?.to_string(), entry))
}

fn with_ports(host: &str, entry: &EntrySpec) -> String {
    let ports: Vec<String> = entry.port.iter().chain(&entry.ports).map(|port| port.number().to_string()).collect();
    if ports.is_empty() { host.to_owned() } else { format!("{host}:{}", ports.join(",")) }
}
