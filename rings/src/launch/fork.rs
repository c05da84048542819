//! From the init to the agent's program by fork(2): where no child can share the init's memory, or be born in its group.
//!
//! The steps are those of [`super::child`], by the same code. What differs is how a failure comes back: over a pipe, because the
//! child's memory is its own. The exec closes the pipe, so that an end of file says that the program was executed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::child::{Agent, Failed, Shared, perform};
use super::protocol::Failure;
use super::step::Step;
use crate::sys::birth::{self, Birth, Cloned};
use crate::sys::process;

/// The number of a step, and an errno.
const WORD_BYTES: usize = 1 + size_of::<i32>();

/// Starts the program; returns once it was executed, or with the step that failed.
pub(super) fn start(shared: &Shared<'_>) -> Result<(Agent, Failed), Failure> {
    let failed = |step: &'static str| move |e: io::Error| Failure::new(step, &e);
    let (hear, tell) = pipe2(OFlag::O_CLOEXEC).map_err(|e| failed("make a pipe to the agent")(e.into()))?;
    // SAFETY: an init has one thread, and so has a checker.
    match unsafe { birth::fork_into(Birth::Fork, 0, None) }.map_err(failed("fork the agent"))? {
        Cloned::Child => {
            // SAFETY: this process has one thread, which alone has its memory, `shared` with it.
            let Err(step) = unsafe { perform(shared) };
            let word = word(step, io::Error::last_os_error().raw_os_error().unwrap_or(0));
            // SAFETY: so many bytes of an array that lives until the end; then ends without running exit handlers. A parent that
            // is gone needs no word.
            unsafe {
                libc::write(tell.as_raw_fd(), word.as_ptr().cast(), word.len());
                libc::_exit(127)
            }
        }
        Cloned::Parent { pid, pidfd } => {
            drop(tell);
            let mut said = Vec::new();
            let heard = File::from(hear).read_to_end(&mut said);
            let step = heard.and_then(|_| understood(&said).ok_or_else(|| io::ErrorKind::InvalidData.into()));
            if step.is_err() {
                // Nobody knows what it has become: nothing of it may go on. ESRCH: it has ended.
                let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            Ok((Agent { pid, pidfd }, step.map_err(failed("hear the agent's process"))?))
        }
    }
}

fn word(step: Step, errno: i32) -> [u8; WORD_BYTES] {
    let [a, b, c, d] = errno.to_ne_bytes();
    [step as u8, a, b, c, d]
}

/// Nothing said: executed. `None`: no word of ours.
fn understood(said: &[u8]) -> Option<Failed> {
    match *said {
        [] => Some(None),
        [number, a, b, c, d] => Some(Some((Step::from_number(number)?, i32::from_ne_bytes([a, b, c, d])))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_told_as_itself_and_silence_as_success() {
        let steps: Vec<Step> = (0..=u8::MAX).map_while(Step::from_number).collect();
        assert_eq!(steps.last(), Some(&Step::Execute), "the last of the steps is among them");
        for step in steps {
            assert_eq!(understood(&word(step, libc::ENOENT)), Some(Some((step, libc::ENOENT))));
        }
        assert_eq!(understood(&[]), Some(None));
        assert_eq!(understood(&[200, 0, 0, 0, 0]), None);
        assert_eq!(understood(&[0, 1]), None);
    }
}
