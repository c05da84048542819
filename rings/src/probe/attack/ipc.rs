//! System V IPC and POSIX queues: named outside the file tree, so no file rule reaches them.

use std::ffi::CString;
use std::io;

use super::{A, Answer, Attack, D, Ready, Stopped, attack, raw};
use crate::probe::Layer::{Ipc, Landlock, Seccomp};
use crate::probe::scene::Scene;

const GAIN: &str = "data and control of programs that talk this way (databases, printers, audio)";

pub(super) const ATTACKS: &[Attack] = &[
    attack("sysv-shm", "attach a System V segment of a program outside", GAIN, |s| {
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_shmget, [s.ipc_key as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .rings([A, D, D, D])
    .by(&[Ipc, Seccomp]),
    attack("sysv-sem", "open a System V semaphore of a program outside", GAIN, |s| {
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_semget, [s.ipc_key as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .rings([A, D, D, D])
    .by(&[Ipc, Seccomp]),
    attack("sysv-msg", "open a System V queue of a program outside", GAIN, |s| {
        // SAFETY: numbers only.
        unsafe { raw(libc::SYS_msgget, [s.ipc_key as usize, 0, 0, 0, 0, 0]) }.map(drop)
    })
    .rings([A, D, D, D])
    .by(&[Ipc, Seccomp]),
    attack("posix-queue", "open a POSIX message queue of a program outside", GAIN, open_queue)
        .rings([A, D, D, D])
        .by(&[Ipc, Seccomp, Landlock]),
];

fn queue_name(name: &str) -> io::Result<CString> {
    Ok(CString::new(name)?)
}

fn open_queue(scene: &Scene) -> Answer {
    let name = queue_name(&scene.queue).ready("a name without NUL")?;
    let flags = (libc::O_RDONLY | libc::O_CLOEXEC) as usize;
    // SAFETY: a NUL-terminated name that outlives the call.
    unsafe { raw(libc::SYS_mq_open, [name.as_ptr() as usize, flags, 0, 0, 0, 0]) }.map(drop)
}

/// Objects of ours to be attacked; gone when dropped.
#[derive(Debug)]
pub(in crate::probe) struct Decoys {
    /// Their key.
    pub(in crate::probe) key: i32,
    /// The queue's name.
    pub(in crate::probe) queue: String,
    ids: [Option<i32>; 3],
}

impl Decoys {
    /// Makes one of each kind; a kernel without one of them shows in the control.
    pub(in crate::probe) fn make() -> io::Result<Decoys> {
        let pid = nix::unistd::getpid().as_raw();
        // Never IPC_PRIVATE (0), and unlike what ftok(3) gives for low inodes.
        let key = 0x6167_0000 ^ pid;
        let flags = (libc::IPC_CREAT | libc::IPC_EXCL | 0o666) as usize;
        let made = |number, args| {
            // SAFETY: numbers only.
            let id = unsafe { raw(number, args) }.ok()?;
            i32::try_from(id).ok()
        };
        let key_arg = key as usize;
        let ids = [
            made(libc::SYS_shmget, [key_arg, 4096, flags, 0, 0, 0]),
            made(libc::SYS_semget, [key_arg, 1, flags, 0, 0, 0]),
            made(libc::SYS_msgget, [key_arg, flags, 0, 0, 0, 0]),
        ];
        let decoys = Decoys { key, queue: format!("agt-probe-{pid}"), ids };
        let name = queue_name(&decoys.queue)?;
        let flags = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC) as usize;
        // SAFETY: a NUL-terminated name; a null attribute means the defaults.
        if let Ok(fd) = unsafe { raw(libc::SYS_mq_open, [name.as_ptr() as usize, flags, 0o666, 0, 0, 0]) } {
            // SAFETY: a new descriptor of ours; the queue lives on by its name.
            unsafe { libc::close(fd as i32) };
        }
        Ok(decoys)
    }
}

impl Drop for Decoys {
    fn drop(&mut self) {
        let remove = libc::IPC_RMID as usize;
        let [shm, sem, msg] = self.ids;
        let calls = [
            (libc::SYS_shmctl, shm.map(|id| [id as usize, remove, 0, 0, 0, 0])),
            (libc::SYS_semctl, sem.map(|id| [id as usize, 0, remove, 0, 0, 0])),
            (libc::SYS_msgctl, msg.map(|id| [id as usize, remove, 0, 0, 0, 0])),
        ];
        for (number, args) in calls {
            if let Some(args) = args {
                // SAFETY: numbers of objects that we made; removal looks at no memory.
                let _gone: Result<_, Stopped> = unsafe { raw(number, args) };
            }
        }
        if let Ok(name) = queue_name(&self.queue) {
            // SAFETY: a NUL-terminated name that outlives the call.
            let _gone: Result<_, Stopped> =
                unsafe { raw(libc::SYS_mq_unlink, [name.as_ptr() as usize, 0, 0, 0, 0, 0]) };
        }
    }
}
