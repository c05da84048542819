//! A finished program and its form for storage.
//!
//! Held as the kernel's `struct sock_filter`, so that a child that shares the launcher's memory can pass it on as it
//! is, without allocating. Stored as plain 64-bit words, because a plan travels between our processes and libc's types
//! have no place in a file format. What is read back is checked as strictly as the kernel checks it, and stricter where
//! we never emit something: a program that exists can be loaded and interpreted.

use libc::sock_filter;
use serde::{Deserialize, Serialize};

use super::Error;
use super::bpf::{OFFSET_ARCH, opcode};

/// Most instructions in one program (BPF_MAXINSNS of linux/bpf_common.h).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// One checked classic BPF program for seccomp.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Program {
    instructions: Vec<sock_filter>,
}

impl Program {
    /// Checks a program: every instruction known, every jump inside, every path ending in a return.
    ///
    /// # Errors
    /// [`Error::Malformed`] with the first instruction that isn't so.
    pub fn new(instructions: Vec<sock_filter>) -> Result<Program, Error> {
        let length = instructions.len();
        let malformed = |at, what| Err(Error::Malformed { what, at, length });
        if length == 0 || length > MAX_INSTRUCTIONS {
            return malformed(0, "no or too many instructions");
        }
        for (at, instruction) in instructions.iter().enumerate() {
            let left = length - at - 1;
            match instruction.code {
                opcode::LOAD if instruction.k > MAX_OFFSET || instruction.k % 4 != 0 => {
                    return malformed(at, "a load outside seccomp_data");
                }
                opcode::LOAD | opcode::AND if left == 0 => return malformed(at, "no return at the end"),
                opcode::JUMP if instruction.k as usize >= left => return malformed(at, "a jump past the end"),
                opcode::JUMP_EQUAL | opcode::JUMP_ABOVE | opcode::JUMP_AT_LEAST | opcode::JUMP_ANY_BIT
                    if usize::from(instruction.jt.max(instruction.jf)) >= left =>
                {
                    return malformed(at, "a jump past the end");
                }
                opcode::LOAD | opcode::AND | opcode::JUMP | opcode::RETURN => {}
                opcode::JUMP_EQUAL | opcode::JUMP_ABOVE | opcode::JUMP_AT_LEAST | opcode::JUMP_ANY_BIT => {}
                _ => return malformed(at, "an instruction that our compilers don't emit"),
            }
        }
        let checks_abi = instructions[0].code == opcode::LOAD && instructions[0].k == OFFSET_ARCH;
        if !checks_abi {
            return malformed(0, "no look at the ABI");
        }
        Ok(Program { instructions })
    }

    /// The program as the kernel takes it (`struct sock_fprog.filter`), without copying.
    #[must_use]
    pub fn as_sock_filters(&self) -> &[sock_filter] {
        &self.instructions
    }

    /// How many instructions it has.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.instructions.len()
    }
}

/// The last word of `struct seccomp_data`: 64 bytes.
const MAX_OFFSET: u32 = 60;

impl std::fmt::Debug for Program {
    /// Says its length alone: the instructions hold the launcher's secret ([`ExecCookie`](super::ExecCookie)).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.instructions.len())
    }
}

impl PartialEq for Program {
    fn eq(&self, other: &Program) -> bool {
        self.instructions.len() == other.instructions.len()
            && self.instructions.iter().zip(&other.instructions).all(|(a, b)| pack(a) == pack(b))
    }
}

impl Eq for Program {}

/// `code | jt << 16 | jf << 24 | k << 32`: the same on every machine.
fn pack(instruction: &sock_filter) -> u64 {
    u64::from(instruction.code)
        | u64::from(instruction.jt) << 16
        | u64::from(instruction.jf) << 24
        | u64::from(instruction.k) << 32
}

fn unpack(word: u64) -> sock_filter {
    sock_filter { code: word as u16, jt: (word >> 16) as u8, jf: (word >> 24) as u8, k: (word >> 32) as u32 }
}

impl From<Program> for Vec<u64> {
    fn from(program: Program) -> Vec<u64> {
        program.instructions.iter().map(pack).collect()
    }
}

impl TryFrom<Vec<u64>> for Program {
    type Error = Error;

    fn try_from(words: Vec<u64>) -> Result<Program, Error> {
        Program::new(words.into_iter().map(unpack).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ALLOW: sock_filter = sock_filter { code: opcode::RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
    const LOAD_ABI: sock_filter = sock_filter { code: opcode::LOAD, jt: 0, jf: 0, k: OFFSET_ARCH };

    fn refused(instructions: Vec<sock_filter>) -> &'static str {
        match Program::new(instructions) {
            Err(Error::Malformed { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn storage_gives_the_same_program_back() {
        let branch = sock_filter { code: opcode::JUMP_EQUAL, jt: 1, jf: 0, k: 0xc000_003e };
        let program = Program::new(vec![LOAD_ABI, branch, ALLOW, ALLOW]).unwrap();
        let text = serde_json::to_string(&program).unwrap();
        assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
        assert_eq!(
            text,
            format!(
                "[{},{},{},{}]",
                0x20u64 | 4 << 32,
                0xc000_003e_0001_0015u64,
                0x7fff_0000_0000_0006u64,
                0x7fff_0000_0000_0006u64
            )
        );
    }

    #[test]
    fn programs_that_run_off_their_end_or_outside_their_data_are_refused() {
        assert_eq!(refused(vec![]), "no or too many instructions");
        assert_eq!(refused(vec![LOAD_ABI; MAX_INSTRUCTIONS + 1]), "no or too many instructions");
        assert_eq!(refused(vec![LOAD_ABI]), "no return at the end");
        assert_eq!(refused(vec![ALLOW]), "no look at the ABI");
        let past = sock_filter { code: opcode::JUMP_EQUAL, jt: 0, jf: 1, k: 0 };
        assert_eq!(refused(vec![LOAD_ABI, past, ALLOW]), "a jump past the end");
        assert_eq!(
            refused(vec![LOAD_ABI, sock_filter { code: opcode::JUMP, jt: 0, jf: 0, k: 1 }, ALLOW]),
            "a jump past the end"
        );
        for k in [61, 64, 3, u32::MAX] {
            assert_eq!(refused(vec![LOAD_ABI, sock_filter { k, ..LOAD_ABI }, ALLOW]), "a load outside seccomp_data");
        }
        // BPF_RET | BPF_A returns what it read: never ours.
        let odd = sock_filter { code: 0x16, jt: 0, jf: 0, k: 0 };
        assert_eq!(refused(vec![LOAD_ABI, odd]), "an instruction that our compilers don't emit");
    }
}
