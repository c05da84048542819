//! Names that an agent may not make: decided by patterns, for what does not exist yet when it starts.
//!
//! What exists at launch is covered by mounts; a name that does not exist has nothing to cover. So in R1 and R2 the calls that
//! can make one (O_CREAT, mkdir, mknod, link, symlink, rename) go to a process of ours, which finds out where the name would
//! come to be, asks the [`Rules`] here, and performs the call in the agent's place. This part is pure: a parent's path, a last
//! name and the kind of call in, a verdict out.

mod fold;
pub mod lists;
mod pattern;
mod rules;

pub use pattern::{BadPattern, Pattern};
pub use rules::{
    DENIED, Kind, PATH_TOO_LONG, PROTECTED_PATH, Place, Rules, STANDING_REPOSITORY, Verdict, WORKDIR_MOVED, is_opened,
    relative,
};
