//! Classic BPF as far as seccomp needs it: an assembler with labels.
//!
//! The kernel's jumps go forward by at most 255 instructions and hold offsets; here they name labels, and the offsets
//! are worked out at the end. Instructions and limits: bpf(4) of FreeBSD, seccomp(2), linux/bpf_common.h.

use libc::sock_filter;

use super::policy::{Decision, Refusal};
use super::{Arch, Error};

/// Offsets into `struct seccomp_data` (linux/seccomp.h).
pub(crate) const OFFSET_NUMBER: u32 = 0;
/// Where the `AUDIT_ARCH_*` value stands.
pub(crate) const OFFSET_ARCH: u32 = 4;

/// Where the low 32 bits of an argument stand: both architectures are little-endian.
pub(crate) fn offset_low(arg: u8) -> u32 {
    16 + 8 * u32::from(arg)
}

/// Where its high 32 bits stand.
pub(crate) fn offset_high(arg: u8) -> u32 {
    offset_low(arg) + 4
}

/// Opcodes that filters use; the kernel's own list for seccomp is longer (`seccomp_check_filter`).
pub(crate) mod opcode {
    /// A = the 32 bits at offset k.
    pub(crate) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    /// A = A & k.
    pub(crate) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    /// Jump by k.
    pub(crate) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    /// Jump on A == k.
    pub(crate) const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    /// Jump on A > k, unsigned.
    pub(crate) const JUMP_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    /// Jump on A >= k, unsigned.
    pub(crate) const JUMP_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    /// Jump on A & k != 0.
    pub(crate) const JUMP_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    /// End with verdict k.
    pub(crate) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
}

/// The value a program returns for a decision: `SECCOMP_RET_*` with the errno in the low half.
pub(crate) fn verdict(decision: Decision) -> u32 {
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    match decision {
        Decision::Allow => libc::SECCOMP_RET_ALLOW,
        Decision::Refuse(Refusal::NotPermitted) => errno(libc::EPERM),
        Decision::Refuse(Refusal::NoSuchCall) => errno(libc::ENOSYS),
        Decision::Refuse(Refusal::KillProcess) => libc::SECCOMP_RET_KILL_PROCESS,
        Decision::Notify(_) => libc::SECCOMP_RET_USER_NOTIF,
    }
}

/// A place in a program that jumps name before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

#[derive(Debug)]
struct Instruction {
    code: u16,
    k: u32,
    /// Where to go on yes and on no; `None` = the next instruction.
    jump: Option<(Label, Label)>,
}

/// A program under construction.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    instructions: Vec<Instruction>,
    places: Vec<Option<usize>>,
}

impl Assembler {
    /// A label without a place yet.
    pub(crate) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub(crate) fn place(&mut self, label: Label) {
        let place = &mut self.places[label.0];
        assert!(place.is_none(), "a label has one place");
        *place = Some(self.instructions.len());
    }

    /// An instruction that goes on with the next one, or a return.
    pub(crate) fn statement(&mut self, code: u16, k: u32) {
        self.instructions.push(Instruction { code, k, jump: None });
    }

    /// A conditional jump.
    pub(crate) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) {
        self.instructions.push(Instruction { code, k, jump: Some((yes, no)) });
    }

    /// The finished program.
    pub(crate) fn assemble(self, arch: Arch) -> Result<Vec<sock_filter>, Error> {
        let offset = |at: usize, label: Label| {
            let place = self.places[label.0].expect("every label that is jumped to has been placed");
            let distance = place.checked_sub(at + 1).expect("blocks are emitted after the jumps to them");
            u8::try_from(distance).map_err(|_| Error::JumpTooFar { arch, at, distance })
        };
        let instructions = self.instructions.iter().enumerate();
        instructions
            .map(|(at, instruction)| {
                let (jt, jf) = match instruction.jump {
                    None => (0, 0),
                    Some((yes, no)) => (offset(at, yes)?, offset(at, no)?),
                };
                Ok(sock_filter { code: instruction.code, jt, jf, k: instruction.k })
            })
            .collect()
    }
}
