//! Runs filters as the kernel would: what a stack of programs answers to a call.
//!
//! Tests compare it with the policies, `why` and the probe explain denials with it. It takes [`Program`]s only, which
//! are checked, so it always ends: jumps go forward and every path has a return.

use super::Filters;
use super::bpf::{OFFSET_ARCH, OFFSET_NUMBER, opcode};
use super::policy::{Call, Decision, Refusal};
use super::program::Program;

/// What the kernel does with a call after all filters ran (seccomp(2)), most restrictive first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[must_use]
pub enum Verdict {
    /// SIGSYS kills the process.
    KillProcess,
    /// SIGSYS kills the thread.
    KillThread,
    /// SIGSYS that can be caught.
    Trap,
    /// The call fails with this errno.
    Errno(u16),
    /// The listener of the filter decides.
    Notify,
    /// The tracer decides.
    Trace,
    /// The call is made and logged.
    Log,
    /// The call is made.
    Allow,
}

impl Verdict {
    /// From the value a program returns. Unknown actions kill the process, as in the kernel.
    fn from_returned(value: u32) -> Verdict {
        match value & libc::SECCOMP_RET_ACTION_FULL {
            libc::SECCOMP_RET_KILL_THREAD => Verdict::KillThread,
            libc::SECCOMP_RET_TRAP => Verdict::Trap,
            libc::SECCOMP_RET_ERRNO => Verdict::Errno((value & libc::SECCOMP_RET_DATA) as u16),
            libc::SECCOMP_RET_USER_NOTIF => Verdict::Notify,
            libc::SECCOMP_RET_TRACE => Verdict::Trace,
            libc::SECCOMP_RET_LOG => Verdict::Log,
            libc::SECCOMP_RET_ALLOW => Verdict::Allow,
            _ => Verdict::KillProcess,
        }
    }

    /// How far up the kernel's order of actions it stands: of two filters the smaller wins.
    fn precedence(self) -> u8 {
        match self {
            Verdict::KillProcess => 0,
            Verdict::KillThread => 1,
            Verdict::Trap => 2,
            Verdict::Errno(_) => 3,
            Verdict::Notify => 4,
            Verdict::Trace => 5,
            Verdict::Log => 6,
            Verdict::Allow => 7,
        }
    }
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Verdict {
        match decision {
            Decision::Allow => Verdict::Allow,
            Decision::Refuse(Refusal::NotPermitted) => Verdict::Errno(libc::EPERM as u16),
            Decision::Refuse(Refusal::NoSuchCall) => Verdict::Errno(libc::ENOSYS as u16),
            Decision::Refuse(Refusal::KillProcess) => Verdict::KillProcess,
            Decision::Notify(_) => Verdict::Notify,
        }
    }
}

impl Program {
    /// What this program alone answers, and how many instructions that took.
    pub fn run(&self, call: &Call) -> (Verdict, usize) {
        let instructions = self.as_sock_filters();
        let (mut accumulator, mut at, mut steps) = (0u32, 0usize, 0usize);
        loop {
            let instruction = instructions[at];
            let k = instruction.k;
            steps += 1;
            at += 1;
            let jump = |yes: bool| usize::from(if yes { instruction.jt } else { instruction.jf });
            match instruction.code {
                opcode::LOAD => accumulator = load(call, k),
                opcode::AND => accumulator &= k,
                opcode::JUMP => at += k as usize,
                opcode::JUMP_EQUAL => at += jump(accumulator == k),
                opcode::JUMP_ABOVE => at += jump(accumulator > k),
                opcode::JUMP_AT_LEAST => at += jump(accumulator >= k),
                opcode::JUMP_ANY_BIT => at += jump(accumulator & k != 0),
                opcode::RETURN => return (Verdict::from_returned(k), steps),
                other => unreachable!("a checked program has no instruction {other:#x}"),
            }
        }
    }
}

/// A word of `struct seccomp_data`, little-endian.
fn load(call: &Call, offset: u32) -> u32 {
    match offset {
        OFFSET_NUMBER => call.number,
        OFFSET_ARCH => call.audit_arch,
        // The instruction pointer: our programs don't look at it.
        8 | 12 => 0,
        _ => {
            let register = call.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { register as u32 } else { (register >> 32) as u32 }
        }
    }
}

impl Filters {
    /// What the kernel does with `call` under these filters: the most restrictive answer, of equal ones the one of the
    /// filter that was loaded last.
    pub fn decide(&self, call: &Call) -> Verdict {
        self.programs()
            .iter()
            .rev()
            .map(|program| program.run(call).0)
            .fold(Verdict::Allow, |sofar, next| if next.precedence() < sofar.precedence() { next } else { sofar })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use libc::sock_filter;

    use super::*;

    fn always(value: u32) -> Program {
        let load = sock_filter { code: opcode::LOAD, jt: 0, jf: 0, k: OFFSET_ARCH };
        Program::new(vec![load, sock_filter { code: opcode::RETURN, jt: 0, jf: 0, k: value }]).unwrap()
    }

    fn stack(values: &[u32]) -> Verdict {
        let filters = Filters { programs: values.iter().map(|value| always(*value)).collect() };
        filters.decide(&Call { number: 0, audit_arch: 0, args: [0; 6] })
    }

    #[test]
    fn the_most_restrictive_answer_wins_and_of_equal_ones_the_last_loaded() {
        let (allow, log, kill) = (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_KILL_PROCESS);
        let errno = |errno| libc::SECCOMP_RET_ERRNO | errno;
        assert_eq!(stack(&[allow, errno(1), log]), Verdict::Errno(1));
        assert_eq!(stack(&[errno(1), errno(38), allow]), Verdict::Errno(38));
        assert_eq!(stack(&[kill, errno(38)]), Verdict::KillProcess);
        assert_eq!(stack(&[libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_TRACE]), Verdict::Notify);
        assert_eq!(stack(&[0x1234_0000, allow]), Verdict::KillProcess);
        assert_eq!(stack(&[]), Verdict::Allow);
    }
}
