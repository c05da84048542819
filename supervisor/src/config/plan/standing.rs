//! A launch's look at what stands in the agent's trees by then: the plan was made once, and its trees live on.
//!
//! The plan itself stays as it was loaded, and with it the hash that an attestation is bound to.

use agt_rings::Ring;
use agt_rings::names::Rules;
use agt_rings::spec::{Access, Spec, User};

use super::{AgentPlan, Keep};
use crate::config::resolve::look::{Known, Question, Seen, look};

/// As root, an agent with a uid of its own is a stranger wherever it was not made the owner.
pub(in crate::config) fn is_stranger(asking_uid: u32, user: User) -> bool {
    asking_uid == 0 && user == User::Own
}

impl AgentPlan {
    /// What this plan launches, with what exists now in the trees that it opens: never-writable names and files with power are
    /// protected, sockets of others covered, and what can't be is a gap. What the plan protects stays so as long as it exists;
    /// what is gone is no reason not to launch.
    ///
    /// Blocks for the disk: to be called where that holds nobody up.
    #[must_use]
    pub fn as_it_stands(&self, mut spec: Spec) -> Spec {
        // R0 promises nothing of the kind.
        if spec.ring == Ring::R0 {
            return spec;
        }
        let seen = look(&Question {
            ring: spec.ring,
            files: &spec.files,
            workdir: &self.workdir,
            source: &self.identity.source,
            opened: &self.opened,
            deny: &self.deny,
            as_owner: &self.as_owner,
            is_stranger: is_stranger(self.identity.uid, self.user),
            known: Known { protect: &self.protect, sockets: &self.sockets, denied: &self.denied },
            operator: "the operator's file",
        });
        spec.names = (self.keep == Keep::All).then(|| self.names(&spec, &seen));
        // The help of a gap that was there at load names the operator's file by its path.
        let told = |gap: &agt_rings::report::Gap| {
            self.gaps.iter().find(|known| (known.protection, &known.reason) == (gap.protection, &gap.reason)).cloned()
        };
        spec.gaps = seen.gaps.into_iter().map(|gap| told(&gap).unwrap_or(gap)).collect();
        spec.protect = seen.protect;
        spec.sockets = seen.sockets;
        spec.hide.extend(seen.denied);
        spec
    }

    /// What it may not make inside its writable trees: what is not there can't be masked.
    fn names(&self, spec: &Spec, seen: &Seen) -> Rules {
        let writable = spec.files.iter().filter(|rule| rule.access == Access::Write);
        let source = &self.identity.source;
        Rules {
            roots: writable.map(|rule| rule.path.clone()).collect(),
            denied: self.deny.clone(),
            workdir: self.workdir.clone(),
            paths: seen.protect.iter().chain([source]).cloned().collect(),
            opened: self.opened.names.clone(),
            repositories: seen.repositories.clone(),
        }
    }
}
