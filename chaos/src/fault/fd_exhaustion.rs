//! The agent can open no further file: every open, socket and pipe fails with EMFILE; what is open keeps working.
//!
//! Lowering the soft RLIMIT_NOFILE takes no descriptors and no help from the agent. The number is chosen so that exactly
//! `headroom` free slots are left: the kernel gives out the lowest free number under the limit, so holes count. Only the
//! soft limit is touched: a hard limit once lowered can't be raised again without CAP_SYS_RESOURCE. The agent may raise its
//! own soft limit again at any time; then the fault is seen not to act.

use serde::{Deserialize, Serialize};

use super::{About, Fault, Risk, Seen};
use crate::spec::Parameters;
use crate::target::{Act, Need, Observation};

/// See [`super::FaultKind::FdExhaustion`].
pub const ABOUT: About = About {
    does: "lowers the soft file limit of the agent's processes until no further file can be opened (EMFILE)",
    undo: "the soft limit is raised to what it was, also in processes forked meanwhile; by the guardian if the supervisor dies",
    sign: "the process with the least room can open no more than `headroom` further files",
    needs: &[Need::Prlimit],
    risk: Risk::Errors,
    watch: "correctness",
    parameters: &["headroom"],
};

/// The fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdExhaustion {
    /// How many more files each process may open.
    pub headroom: u32,
}

impl FdExhaustion {
    /// None at all unless it says otherwise.
    pub fn new(parameters: &Parameters) -> Self {
        Self { headroom: parameters.headroom.unwrap_or(0) }
    }
}

impl Fault for FdExhaustion {
    fn acts(&self) -> Vec<Act> {
        vec![Act::LimitFds { headroom: self.headroom }]
    }

    fn refuse(&self, now: &Observation) -> Option<String> {
        match now.fd_room {
            Some(room) if room <= u64::from(self.headroom) => {
                Some(format!("it can open only {room} more files already"))
            }
            Some(_) => None,
            None => Some("how many files it can still open can't be read".to_owned()),
        }
    }

    fn acted(&self, before: &Observation, now: &Observation) -> Seen {
        let lowered = before.fd_soft_limit.zip(now.fd_soft_limit).map(|(before, now)| now < before);
        let full = now.fd_room.map(|room| room <= u64::from(self.headroom));
        Seen::from(lowered.zip(full).map(|(lowered, full)| lowered && full))
    }

    fn restored(&self, before: &Observation, now: &Observation) -> Seen {
        Seen::from(before.fd_soft_limit.zip(now.fd_soft_limit).map(|(before, now)| now >= before))
    }
}

/// The soft limit that leaves a process with these open descriptors exactly `headroom` free slots, or with fewer if
/// `soft`, its present limit, leaves fewer.
pub fn soft_limit_for(open: &[u32], headroom: u32, soft: u64) -> u64 {
    let taken: std::collections::BTreeSet<u64> = open.iter().copied().map(u64::from).collect();
    let mut free = 0;
    let mut limit = 0;
    // Ends after at most headroom + taken.len() + 1 rounds: each round passes a taken slot or counts a free one.
    while limit < soft {
        if !taken.contains(&limit) {
            if free == headroom {
                break;
            }
            free += 1;
        }
        limit += 1;
    }
    limit
}

/// How many more files a process can open: the free slots under its soft limit.
pub fn room(open: &[u32], soft: u64) -> u64 {
    let taken: std::collections::BTreeSet<u64> = open.iter().copied().map(u64::from).filter(|fd| *fd < soft).collect();
    soft - taken.len() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn holes_under_the_highest_descriptor_count() {
        assert_eq!(soft_limit_for(&[0, 1, 2, 7], 0, 1024), 3);
        assert_eq!(soft_limit_for(&[0, 1, 2, 7], 4, 1024), 8);
        assert_eq!(soft_limit_for(&[0, 1, 2, 7], 5, 1024), 9);
        assert_eq!(soft_limit_for(&[], 0, 1024), 0);
    }

    #[test]
    fn a_limit_that_the_agent_raised_again_is_not_acting() {
        let at = |soft, room| Observation { fd_soft_limit: Some(soft), fd_room: Some(room), ..Observation::default() };
        let fault = FdExhaustion { headroom: 0 };
        assert_eq!(fault.acted(&at(1024, 1000), &at(24, 0)), Seen::Yes);
        assert_eq!(fault.acted(&at(1024, 1000), &at(1024, 1000)), Seen::No);
        assert_eq!(fault.restored(&at(1024, 1000), &at(24, 0)), Seen::No);
    }

    proptest! {
        #[test]
        fn exactly_the_headroom_is_left(open in prop::collection::btree_set(0_u32..200, 0..60), headroom in 0_u32..40) {
            let open: Vec<u32> = open.into_iter().collect();
            let limit = soft_limit_for(&open, headroom, 1024);
            prop_assert_eq!(room(&open, limit), u64::from(headroom));
        }

        #[test]
        fn the_limit_is_never_raised(open in prop::collection::btree_set(0_u32..50, 0..40), headroom in 0_u32..90, soft in 0_u64..60) {
            let open: Vec<u32> = open.into_iter().collect();
            prop_assert!(soft_limit_for(&open, headroom, soft) <= soft);
        }
    }
}
