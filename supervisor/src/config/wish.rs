//! A line that an agent.yaml does not have: for questions about what would be if it had.

use std::path::{Path, PathBuf};

use agt_gateway::policy::HostPattern;
use agt_gateway::policy::spec::{Destination, EntrySpec, Port};
use agt_rings::spec::Access;

use super::grant::flow;
use super::spec::{AgentSpec, HostPort, Target};

/// One line more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A path among `files`.
    File(PathBuf, Access),
    /// A destination.
    Network(HostPort),
}

impl Wish {
    /// The line, as it would stand in the file.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Wish::File(path, Access::Read) => format!("files: {{read: [{}]}}", quoted(path)),
            Wish::File(path, Access::Write) => format!("files: {{write: [{}]}}", quoted(path)),
            Wish::Network(to) => format!("network: [{}]", flow(&entry(to))),
        }
    }

    pub(crate) fn add_to(&self, spec: &mut AgentSpec) {
        let text = |path: &Path| literal(path);
        match self {
            Wish::File(path, Access::Read) => spec.files.read.push(text(path)),
            Wish::File(path, Access::Write) => spec.files.write.push(text(path)),
            Wish::Network(to) => spec.network.push(entry(to)),
        }
    }
}

/// The narrowest entry for a destination: by what its port is for a name is one of the web, where the gateway looks at what it carries;
/// anything else is one for whatever protocol. Whatever is a destination to us is one to the gateway, whose reading is the wider.
fn entry(to: &HostPort) -> EntrySpec {
    if let Target::Name { host, port: port @ (80 | 443) } = &to.0
        && let Ok(host) = HostPattern::try_from(host.clone())
    {
        let port = (*port != DEFAULT_PORT).then(|| Port::try_from(*port).expect("80 is a port"));
        return EntrySpec { host: Some(host), port, ..EntrySpec::default() };
    }
    EntrySpec { tcp: Destination::try_from(to.to_string()).ok(), ..EntrySpec::default() }
}

/// What an entry for a host means without a port.
const DEFAULT_PORT: u16 = 443;

/// A path in which nothing is replaced.
fn literal(path: &Path) -> String {
    path.display().to_string().replace("${", "$${")
}

/// A path as a YAML scalar that reads back as exactly this path.
#[must_use]
pub fn quoted(path: &Path) -> String {
    super::grant::scalar(&literal(path))
}
