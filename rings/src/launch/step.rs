//! The steps from a clone of the init to the agent's program, in their order: what a failed launch names.
//!
//! One list for both ways to make the child and for the checker: a step that one of them did not take would be a name that its
//! failures never have. Numbers, names and words are made from it, so that none of them can miss a step.

macro_rules! steps {
    ($($step:ident => $words:literal,)*) => {
        /// The child's steps, in order. The one that failed comes back through shared memory, its number from a fork.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Step {
            $($step,)*
        }

        impl Step {
            /// All of them: each stands at its number.
            const ALL: &[Step] = &[$(Step::$step,)*];

            /// What was being done, for a message.
            pub(super) fn words(self) -> &'static str {
                match self {
                    $(Step::$step => $words,)*
                }
            }
        }
    };
}

steps! {
    Cgroup => "join a cgroup",
    Signals => "reset signals",
    Session => "start a session",
    Streams => "connect the standard streams",
    Terminal => "take the terminal",
    CoreLimit => "set RLIMIT_CORE",
    BoundingSet => "lower the bounding set",
    NoNewPrivileges => "set no_new_privs",
    Groups => "drop supplementary groups",
    Gid => "change the gid",
    Uid => "change the uid",
    Capabilities => "set the capabilities",
    DeathSignal => "ask for the parent death signal",
    Workdir => "enter the workdir",
    OpenProgram => "open the program",
    ProgramNumber => "give the program its descriptor number",
    FileLimit => "set RLIMIT_NOFILE",
    Landlock => "load the Landlock rules",
    Descriptors => "close descriptors",
    Filters => "load the seccomp filters",
    Listener => "hand over the listener of the filters",
    Execute => "execute the program",
}

impl Step {
    /// The step with this number.
    pub(super) fn from_number(number: u8) -> Option<Step> {
        Step::ALL.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_words_of_its_own() {
        let words: std::collections::BTreeSet<&str> = Step::ALL.iter().map(|step| step.words()).collect();
        assert_eq!(words.len(), Step::ALL.len());
    }
}
