//! The never-writable names: the one list of them, for the masks over what exists and for the patterns about what does not.
//!
//! What an agent could leave there is run or obeyed later by its user (hooks, editor tasks, shell start-up files), or by us
//! (its own agent.yaml).

/// Files and folders that are protected wherever they stand.
pub const NAMES: [&str; 29] = [
    ".bash_login",
    ".bash_logout",
    ".bash_profile",
    ".bashrc",
    ".claude",
    ".cshrc",
    ".cursor",
    ".envrc",
    ".gitconfig",
    ".idea",
    ".inputrc",
    ".kshrc",
    ".login",
    ".mcp.json",
    ".profile",
    ".tcshrc",
    ".vscode",
    ".xprofile",
    ".xsessionrc",
    ".zlogin",
    ".zlogout",
    ".zprofile",
    ".zshenv",
    ".zshrc",
    "agent.yaml",
    "operator.yaml",
    "saga.yaml",
    "chaos.yaml",
    "ring.yaml",
];

/// Our own files under other names end like this: `refund.saga.yaml`.
pub const ENDINGS: [&str; 4] = [".agent.yaml", ".saga.yaml", ".chaos.yaml", ".operator.yaml"];

/// What git obeys or runs in a repository's folder. `commondir` and `gitdir` say where the rest of a repository is.
pub const GIT_NAMES: [&str; 5] = ["hooks", "config", "config.worktree", "commondir", "gitdir"];

/// By these names a folder is known to be git's.
pub const GIT_MARKS: [&str; 3] = ["HEAD", "objects", "refs"];

/// Whether a name is protected wherever it stands.
#[must_use]
pub fn is_never_writable(name: &str) -> bool {
    // Nearly every name is none of them: said by a look at its two ends.
    (name.starts_with('.') || name.ends_with(".yaml")) && is_listed(name)
}

fn is_listed(name: &str) -> bool {
    NAMES.contains(&name) || ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_two_ends_of_a_name_passes_over_none_that_is_listed() {
        assert!(NAMES.iter().chain(&ENDINGS).copied().all(is_never_writable));
    }
}
