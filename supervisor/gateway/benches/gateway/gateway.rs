//! The gateway under test, in a process of its own, set up as the supervisor does it on this machine: its default settings, a
//! policy, limits of an agent and of its ring, a key from a file, a witness, a hook, and somebody who takes what happened every
//! 200 ms.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agt_gateway::flow::{Ended, Flow, Label};
use agt_gateway::hook::{Hook, Hooks};
use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::limit::{Account, Refused, Shared};
use agt_gateway::live::{Gateway, Happenings, Models, Outside, Serve, Settings};
use agt_gateway::policy::{OwnAddresses, Policy, Reach, spec};
use agt_gateway::price::Table;
use agt_gateway::resolve::{Bounds, Resolver};
use agt_gateway::route::{Call, RouteSpec, Routes, Trouble, Witness, trust};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Anything;
use super::upstream::Upstream;

/// How often the supervisor takes what happened.
const GATHER: Duration = Duration::from_millis(200);

/// What it is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) agents: usize,
    pub(crate) upstream: Upstream,
    pub(crate) certificate: String,
    pub(crate) key: PathBuf,
    /// The supervisor reads every tunnel's ClientHello but those of entries with `sni: any`.
    pub(crate) tunnels: Tunnels,
}

/// How its policy treats tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Tunnels {
    Any,
    Named,
}

/// Counts, as metrics do.
#[derive(Debug, Default)]
struct Counts {
    flows: AtomicU64,
    calls: AtomicU64,
    nanos: AtomicU64,
}

impl Hook for Counts {
    fn ended(&self, _: &Flow, _: &Ended) {
        self.flows.fetch_add(1, Ordering::Relaxed);
    }
}

impl Witness for Counts {
    fn ended(&self, call: &Call) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(call.cost.nanos(), Ordering::Relaxed);
    }

    fn refused(&self, _: &str, _: Trouble, _: &str) {}

    fn limited(&self, _: &str, _: &Refused) {}
}

pub(crate) fn run(plan: &Plan) -> Result<(), Anything> {
    let resolver = Resolver::system(Bounds::default());
    let dial = Arc::new(resolver.clone());
    let tls = trust(&[CertificateDer::from_pem_slice(plan.certificate.as_bytes())?])?;
    let outside = Outside { resolver, own: OwnAddresses::new([], []), dial, tls };
    let counts = Arc::new(Counts::default());
    let hooks = Hooks::new(vec![counts.clone()]);
    let (gateway, happenings) = Gateway::start(Settings::default(), hooks, outside)?;
    let routes = routes(plan)?;
    let ring = Shared::new("ring 2", &limits()?);
    let (mut doors, mut agents) = (Vec::<SocketAddr>::new(), Vec::new());
    for number in 0..plan.agents {
        let name = format!("a{number}");
        let agent = gateway.register(Label::from(name.as_str()), policy(plan)?);
        let account = Arc::new(Account::new(vec![Shared::new(name, &limits()?), Arc::clone(&ring)]));
        agent.set_models(Some(Models { routes: routes.clone(), account, witness: counts.clone() }));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        doors.push(listener.local_addr()?);
        agent.listen(listener, Serve::Proxy)?;
        agents.push(agent);
    }
    gather(happenings);
    println!("{}", serde_json::to_string(&doors)?);
    std::io::stdout().flush()?;
    // Ends with the bench, whose end of this is closed then.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn gather(mut happenings: Happenings) {
    let taking = move || -> std::io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
            while happenings.next().await.is_some() {
                tokio::time::sleep(GATHER).await;
                while happenings.try_next().is_some() {}
            }
        });
        Ok(())
    };
    std::thread::spawn(taking);
}

/// `openai` in the clear, `secured` by TLS.
fn routes(plan: &Plan) -> Result<Routes, Anything> {
    let key = json!({ "file": plan.key });
    let route = |upstream: String| -> Result<RouteSpec, Anything> {
        Ok(serde_json::from_value(json!({ "upstream": upstream, "speaks": "openai", "key": key }))?)
    };
    let plain = route(format!("http://{}", plan.upstream.plain))?;
    let secured = route(format!("https://{}", plan.upstream.tls))?;
    let all = [("openai".to_owned(), plain), ("secured".to_owned(), secured)].into();
    Ok(Routes::new(&all, Arc::new(Table::built_in()))?)
}

/// Limits of every kind that nothing here meets: what they cost is measured, not what they refuse.
fn limits() -> Result<LimitSpec, Anything> {
    let spend = json!({ "task": "1000000000", "hour": "1000000000", "day": "1000000000" });
    let most = 1_000_000_000_u64;
    Ok(serde_json::from_value(json!({
        "requests_per_minute": most, "tokens_per_minute": most * 1_000, "concurrent": 100_000, "spend": spend,
    }))?)
}

fn policy(plan: &Plan) -> Result<Policy, Anything> {
    let port = plan.upstream.echo.port();
    let entry = match plan.tunnels {
        Tunnels::Any => json!({ "host": "127.0.0.1", "port": port, "sni": "any" }),
        Tunnels::Named => json!({ "host": "localhost", "port": port }),
    };
    // Not the first of its list, as in life.
    let entries: Vec<spec::EntrySpec> = serde_json::from_value(json!([
        { "host": "api.example.com" }, { "host": "*.example.org" }, { "host": "pypi.example.net" }, entry,
    ]))?;
    let ceiling: spec::CeilingSpec = serde_json::from_value(json!({
        "network": [{ "host": "*" }, { "host": "*", "port": port, "sni": "any" }],
        "addresses": [{ "cidr": "127.0.0.1/32" }, { "cidr": "::1/128" }],
    }))?;
    Ok(Policy::new(1, Reach::Listed, &entries, &ceiling)?)
}

/// Where a key stands that the gateway reads.
pub(crate) fn key_file(folder: &Path) -> Result<PathBuf, Anything> {
    let path = folder.join("key");
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?
        .write_all(super::KEY.as_bytes())?;
    Ok(path)
}
