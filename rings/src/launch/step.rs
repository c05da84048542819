//! The steps from a clone of the init to the agent's program, in their order: what a failed launch names.
//!
//! One list for both ways to make the child and for the checker: a step that one of them did not take would be a name that its
//! failures never have.

/// The child's steps, in order. The one that failed comes back through shared memory, its number from a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Cgroup,
    Signals,
    Session,
    Terminal,
    Streams,
    CoreLimit,
    FileLimit,
    BoundingSet,
    NoNewPrivileges,
    Groups,
    Gid,
    Uid,
    Capabilities,
    DeathSignal,
    Workdir,
    OpenProgram,
    ProgramNumber,
    Landlock,
    Descriptors,
    Filters,
    Execute,
}

impl Step {
    /// The step with this number.
    pub(super) fn from_number(number: u8) -> Option<Step> {
        use Step::*;
        let all = [
            Cgroup,
            Signals,
            Session,
            Terminal,
            Streams,
            CoreLimit,
            FileLimit,
            BoundingSet,
            NoNewPrivileges,
            Groups,
            Gid,
            Uid,
            Capabilities,
            DeathSignal,
            Workdir,
            OpenProgram,
            ProgramNumber,
            Landlock,
            Descriptors,
            Filters,
            Execute,
        ];
        all.get(usize::from(number)).copied()
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Step::Cgroup => "join a cgroup",
            Step::Signals => "reset signals",
            Step::Session => "start a session",
            Step::Terminal => "take the terminal",
            Step::Streams => "connect the standard streams",
            Step::CoreLimit => "set RLIMIT_CORE",
            Step::FileLimit => "set RLIMIT_NOFILE",
            Step::BoundingSet => "lower the bounding set",
            Step::NoNewPrivileges => "set no_new_privs",
            Step::Groups => "drop supplementary groups",
            Step::Gid => "change the gid",
            Step::Uid => "change the uid",
            Step::Capabilities => "set the capabilities",
            Step::DeathSignal => "ask for the parent death signal",
            Step::Workdir => "enter the workdir",
            Step::OpenProgram => "open the program",
            Step::ProgramNumber => "give the program its descriptor number",
            Step::Landlock => "load the Landlock rules",
            Step::Descriptors => "close descriptors",
            Step::Filters => "load the seccomp filters",
            Step::Execute => "execute the program",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_its_number_and_words_of_its_own() {
        let steps: Vec<Step> = (0..=u8::MAX).map_while(Step::from_number).collect();
        assert_eq!(steps.last(), Some(&Step::Execute), "the last of the steps is among them");
        assert!((0..).zip(&steps).all(|(number, step)| *step as u8 == number));
        let words: std::collections::BTreeSet<&str> = steps.iter().map(|step| step.words()).collect();
        assert_eq!(words.len(), steps.len());
    }
}
