//! The host and the rules, as a proposal asks them: the plan that ran, the file system, the resolver.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use agt_rings::plan::Plan;
use agt_rings::spec::Access;

use super::asking::mode;
use crate::config::spec::{AgentSpec, EnforcementSpec};
use crate::config::{self, ConfigError, Surroundings, Wish};
use crate::denials::view::{self, Verdict};
use crate::learning::propose::{Kind, Said, Stands, World};

/// What is asked.
pub(super) struct Here<'a> {
    pub(super) around: &'a Surroundings,
    pub(super) operator: Option<&'a Path>,
    /// What ran, compiled.
    pub(super) plan: &'a Plan,
    /// The file that is being proposed, without its lines.
    pub(super) spec: &'a AgentSpec,
    /// Where it will stand.
    pub(super) file: &'a Path,
}

impl Here<'_> {
    /// What the resolver says to the file with these lines.
    pub(super) fn resolve(&self, wishes: &[Wish]) -> Result<config::AgentPlan, ConfigError> {
        let mut spec = self.spec.clone();
        // About files and destinations; what this host can enforce is another question.
        spec.enforcement = EnforcementSpec::BestEffort;
        wishes.iter().for_each(|wish| wish.add_to(&mut spec));
        config::agent_from_spec(&spec, self.file, None, self.around, self.operator)
    }
}

impl World for Here<'_> {
    fn has(&self, path: &Path, access: Access) -> bool {
        let own = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        match view::path(self.plan, path, access, mode(path), own) {
            // No line opens a process, so none is lacking.
            Verdict::Allowed { .. } | Verdict::Unknown { .. } => true,
            Verdict::Denied { rule, .. } => rule == view::OTHER_PROCESS,
        }
    }

    fn stands(&self, path: &Path) -> Option<Stands> {
        let real = path.canonicalize().ok()?;
        let kind = if real.is_dir() { Kind::Folder } else { Kind::File };
        Some(Stands { real, kind })
    }

    fn installation(&self, path: &Path) -> Option<PathBuf> {
        let is_packages = |folder: &Path| {
            let name = folder.file_name().and_then(|name| name.to_str());
            matches!(name, Some("node_modules" | "site-packages" | "dist-packages"))
        };
        let venv = path.ancestors().skip(1).find(|folder| folder.join("pyvenv.cfg").is_file());
        // The outermost: packages bring packages of their own.
        let packages = path.ancestors().skip(1).filter(|folder| is_packages(folder)).last();
        venv.or(packages).map(Path::to_path_buf)
    }

    fn may_be_whole(&self, folder: &Path) -> bool {
        config::may_be_asked_for_whole(folder, self.around)
    }

    fn closed(&self, path: &Path, access: Access) -> Option<String> {
        config::not_to_be_offered(path, access, self.around)
    }

    fn says(&self, wish: &Wish) -> Said {
        let Err(error) = self.resolve(std::slice::from_ref(wish)) else { return Said::Free };
        let problems = error.report().map(|report| report.problems.as_slice()).unwrap_or_default();
        match problems.iter().find(|problem| problem.grant.is_none()) {
            Some(problem) => Said::Never(problem.message.clone()),
            None => {
                let reasons: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
                Said::Operator(reasons.join("; "))
            }
        }
    }

    fn listens(&self, address: SocketAddr) -> bool {
        let table = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
        let listening = |table: &str| std::fs::read_to_string(table).map(|text| listeners(&text)).unwrap_or_default();
        let takes =
            |at: &SocketAddr| at.port() == address.port() && (at.ip() == address.ip() || at.ip().is_unspecified());
        // A socket for all of IPv6 takes IPv4 as well.
        listening(table).iter().chain(&listening("/proc/net/tcp6")).any(takes)
    }
}

/// The listening sockets of a table of proc(5).
fn listeners(table: &str) -> Vec<SocketAddr> {
    const LISTEN: &str = "0A";
    let address = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        if state != LISTEN {
            return None;
        }
        let (ip, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        // 32-bit words, each as this machine has it in memory.
        let words: Vec<[u8; 4]> = (0..ip.len() / 8)
            .map(|at| u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
            .collect::<Option<_>>()?;
        match words.as_slice() {
            [word] => Some(SocketAddr::from((Ipv4Addr::from(*word), port))),
            words => {
                let bytes: [u8; 16] = words.concat().try_into().ok()?;
                Some(SocketAddr::from((Ipv6Addr::from(bytes), port)))
            }
        }
    };
    table.lines().skip(1).filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1FA3 00000000:0000 0A 0:0\n   \
                     1: 0100007F:1FA4 0100007F:1FA3 01 0:0\n   2: 00000000000000000000000001000000:0050 0:0 0A 0:0\n";
        let expected = ["127.0.0.1:8099", "[::1]:80"].map(|text| text.parse::<SocketAddr>().ok());
        assert_eq!(listeners(table).into_iter().map(Some).collect::<Vec<_>>(), expected);
    }
}
