//! A line that an agent.yaml does not have: for questions about what would be if it had.

use std::path::{Path, PathBuf};

use agt_gateway::policy::spec::{Destination, EntrySpec};
use agt_rings::spec::Access;

use super::spec::{AgentSpec, HostPort};

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
            Wish::Network(to) => format!("network: [{{tcp: \"{to}\"}}]"),
        }
    }

    pub(crate) fn add_to(&self, spec: &mut AgentSpec) {
        let text = |path: &Path| literal(path);
        match self {
            Wish::File(path, Access::Read) => spec.files.read.push(text(path)),
            Wish::File(path, Access::Write) => spec.files.write.push(text(path)),
            Wish::Network(to) => {
                // Whatever is a destination to us is one to the gateway, whose reading is the wider.
                let tcp = Destination::try_from(to.to_string()).ok();
                spec.network.push(EntrySpec { tcp, ..EntrySpec::default() });
            }
        }
    }
}

/// A path in which nothing is replaced.
fn literal(path: &Path) -> String {
    path.display().to_string().replace("${", "$${")
}

/// A path as a YAML scalar that reads back as exactly this path.
#[must_use]
pub fn quoted(path: &Path) -> String {
    super::grant::scalar(&literal(path))
}
