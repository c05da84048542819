//! Capabilities by name: what an operator may leave to an agent in R0, as a set that the launch gives and nothing beyond.
//!
//! The names and numbers are those of capabilities(7) and linux/capability.h. A set is a mask, as the kernel has it, so "exactly
//! these" is one comparison.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names without `cap_`; the index is the kernel's number.
pub const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(u64);

impl Capabilities {
    /// None.
    pub const NONE: Capabilities = Capabilities(0);

    /// From the kernel's mask, as /proc/PID/status has it.
    #[must_use]
    pub fn from_mask(mask: u64) -> Capabilities {
        Capabilities(mask)
    }

    /// The kernel's mask.
    #[must_use]
    pub fn mask(self) -> u64 {
        self.0
    }

    /// The set of these names; the first name that is none comes back.
    ///
    /// # Errors
    /// The unknown name.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Capabilities, &'a str> {
        names.into_iter().try_fold(Capabilities::NONE, |set, name| {
            let number = NAMES.iter().position(|known| *known == name).ok_or(name)?;
            Ok(Capabilities(set.0 | 1 << number))
        })
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it holds the capability of this number.
    #[must_use]
    pub fn has(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }

    /// What is in here and not in `held`.
    #[must_use]
    pub fn without(self, held: Capabilities) -> Capabilities {
        Capabilities(self.0 & !held.0)
    }
}

impl fmt::Display for Capabilities {
    /// Names, in the kernel's order; numbers that have no name yet are shown as such.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = (0..u64::BITS).filter(|number| self.has(*number));
        let names: Vec<String> = held
            .map(|number| NAMES.get(number as usize).map_or_else(|| number.to_string(), |name| (*name).to_owned()))
            .collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_stand_at_the_kernels_numbers() {
        // linux/capability.h.
        for (name, number) in [("chown", 0), ("net_bind_service", 10), ("sys_admin", 21), ("checkpoint_restore", 40)] {
            let set = Capabilities::named([name]).unwrap();
            assert_eq!(set.mask(), 1 << number, "{name}");
            assert_eq!(set.to_string(), name);
        }
        assert_eq!(Capabilities::named(["kill", "fly"]), Err("fly"));
    }

    #[test]
    fn what_is_missing_is_what_is_wanted_and_not_held() {
        let wanted = Capabilities::named(["kill", "net_raw"]).unwrap();
        let held = Capabilities::named(["kill", "chown"]).unwrap();
        assert_eq!(wanted.without(held).to_string(), "net_raw");
        assert!(wanted.without(wanted).is_empty());
    }
}
