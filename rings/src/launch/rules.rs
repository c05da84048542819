//! The Landlock rules of an agent, built by its init in the agent's own view: they are rules about what stands there.

use std::os::fd::OwnedFd;

use super::protocol::Failure;
use crate::plan::{Plan, Tcp};
use crate::spec;

/// Builds the Landlock ruleset in the agent's own view. Best effort inside the crate is off: what was planned must be had.
pub(super) fn landlock(plan: &Plan) -> Result<Option<OwnedFd>, Failure> {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset,
        RulesetAttr, RulesetCreatedAttr, Scope,
    };
    let Some(wanted) = &plan.landlock else { return Ok(None) };
    let failed = |e: &dyn std::fmt::Display| Failure { step: format!("build the Landlock rules: {e}"), errno: 0 };
    let abi = ABI::from(i32::try_from(wanted.abi).unwrap_or(i32::MAX).min(ABI::V7 as i32));
    let all: BitFlags<AccessFs> = AccessFs::from_all(abi);
    let read = AccessFs::from_read(abi);
    let of_files = AccessFs::from_file(abi);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(all).map_err(|e| failed(&e))?;
    if let Tcp::Calls(_) = &wanted.tcp {
        ruleset = ruleset.handle_access(AccessNet::from_all(abi)).map_err(|e| failed(&e))?;
    }
    if abi >= ABI::V6 {
        ruleset = ruleset.scope(Scope::from_all(abi)).map_err(|e| failed(&e))?;
    }
    let mut created = ruleset.create().map_err(|e| failed(&e))?;
    for (path, access) in &wanted.rules {
        let fd = match PathFd::new(path) {
            Ok(fd) => fd,
            // What is not there needs no rule, and can't come to be there: the directories around it are ours or are rules.
            Err(_) if !path.exists() => continue,
            Err(e) => return Err(failed(&e)),
        };
        let mut rights = if *access == spec::Access::Write { all } else { read };
        let mode = nix::sys::stat::fstat(&fd).map_err(|e| failed(&e))?.st_mode;
        if mode & libc::S_IFMT != libc::S_IFDIR {
            rights &= of_files;
        }
        created = created.add_rule(PathBeneath::new(fd, rights)).map_err(|e| failed(&e))?;
    }
    if let Tcp::Calls(ports) = &wanted.tcp {
        for port in ports {
            created = created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(|e| failed(&e))?;
        }
    }
    let fd: Option<OwnedFd> = created.into();
    fd.map(Some)
        .ok_or(Failure { step: "build the Landlock rules: the kernel enforces none".to_owned(), errno: libc::ENOSYS })
}
