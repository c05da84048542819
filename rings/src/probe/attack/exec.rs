//! A second process or program: R3 is one program, threads only. And programs that are no file, past every rule on paths.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::namespaces::{clone3, ended};
use super::stand::SAY_OK;
use super::{A, Answer, Attack, D, N, Ready, Stopped, attack, raw};
use crate::probe::Layer::{NoExecMount, Seccomp};
use crate::probe::scene::Scene;

const MORE: &str = "a second program, which can outlive or hide behind the first";
const NAMELESS: &str = "a program that no rule on paths and no scan of files sees";

pub(super) const ATTACKS: &[Attack] = &[
    single("fork", "fork", |_| {
        // SAFETY: the child has its own copy of everything and ends at once.
        let pid = unsafe { libc::fork() };
        if pid < 0 { Err(std::io::Error::last_os_error().into()) } else { ended(pid.into()) }
    }),
    #[cfg(target_arch = "x86_64")]
    single("vfork", "vfork", |_| vfork()),
    // R1 and R2 answer ENOSYS, so that callers take clone, whose flags can be checked.
    single("clone3-process", "start a process by clone3", |_| clone3(0)).rings([A, N, N, D]),
    single("spawn", "start a program by posix_spawn", |s| {
        let status =
            Command::new(&s.program).arg0(crate::probe::ATTACK_NAME).arg(SAY_OK).stdout(Stdio::null()).status()?;
        if status.success() { Ok(()) } else { Err(Stopped::Nothing(status.to_string())) }
    }),
    single("exec", "replace itself by a second program (execve)", |s| {
        let (path, argv) =
            (c_text(s.program.as_os_str().as_encoded_bytes())?, Argv::new(&[crate::probe::ATTACK_NAME, SAY_OK])?);
        let env = [std::ptr::null::<libc::c_char>()];
        // SAFETY: NUL-terminated strings in null-terminated lists, living past the call; a success never returns.
        unsafe { raw(libc::SYS_execve, [path.as_ptr() as usize, argv.pointer(), env.as_ptr() as usize, 0, 0, 0]) }
            .map(drop)
    }),
    single("execveat-path", "the same by execveat, at the launch's descriptor number, with an absolute path", |s| {
        exec_at(crate::builtin::EXEC_FD as usize, s.program.as_os_str().as_encoded_bytes(), 0)
    }),
    single("execveat-descriptor", "execute a descriptor (AT_EMPTY_PATH)", |s| {
        let file = std::fs::File::open(&s.program).ready("open a program")?;
        exec_at(std::os::fd::AsRawFd::as_raw_fd(&file) as usize, b"", libc::AT_EMPTY_PATH as usize)
    })
    .rings([A, A, D, D]),
    attack("memfd-exec", "execute a program that exists in memory only", NAMELESS, memfd_exec)
        .rings([N, N, D, D])
        .by(&[Seccomp]),
    attack("shm-exec", "execute a program that it wrote to shared memory", NAMELESS, |s| {
        let copy = copied(&s.shared)?;
        runs(Command::new(copy))
    })
    .by(&[NoExecMount, Seccomp]),
    attack("shm-loader-exec", "the same by calling the dynamic linker, which executes nothing", NAMELESS, |s| {
        let copy = copied(&s.shared)?;
        let mut command = Command::new(linker()?);
        command.arg(copy);
        runs(command)
    })
    .by(&[NoExecMount, Seccomp]),
    attack("shm-map-code", "map a file of shared memory as code, as that linker does", NAMELESS, |s| {
        map_as_code(&s.shared)
    })
    .by(&[NoExecMount]),
    attack("own-map-code", "map a file of its own as code (R3 runs nothing that it wrote)", NAMELESS, |s| {
        map_as_code(&s.home)
    })
    .rings([N, A, A, D])
    .by(&[NoExecMount]),
    attack("loader-exec", "execute a file without x bit by calling the dynamic linker", NAMELESS, loader)
        .rings([N, N, N, D])
        .by(&[Seccomp]),
];

const fn single(name: &'static str, asked: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, MORE, act).rings([A, A, A, D]).by(&[Seccomp])
}

fn c_text(bytes: &[u8]) -> Result<CString, Stopped> {
    CString::new(bytes).ready("a text without NUL")
}

/// A null-terminated list of strings that live as long as it.
struct Argv {
    _texts: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Argv {
    fn new(texts: &[&str]) -> Result<Argv, Stopped> {
        let texts: Vec<CString> = texts.iter().map(|text| c_text(text.as_bytes())).collect::<Result<_, _>>()?;
        let mut pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Argv { _texts: texts, pointers })
    }

    fn pointer(&self) -> usize {
        self.pointers.as_ptr() as usize
    }
}

fn exec_at(fd: usize, path: &[u8], flags: usize) -> Answer {
    let (path, argv) = (c_text(path)?, Argv::new(&[crate::probe::ATTACK_NAME, SAY_OK])?);
    let env = [std::ptr::null::<libc::c_char>()];
    // SAFETY: NUL-terminated strings in null-terminated lists, living past the call; a success never returns.
    unsafe { raw(libc::SYS_execveat, [fd, path.as_ptr() as usize, argv.pointer(), env.as_ptr() as usize, flags, 0]) }
        .map(drop)
}

/// The real vfork: its child shares our stack, so both sides are written here, and the child touches no memory.
#[cfg(target_arch = "x86_64")]
fn vfork() -> Answer {
    let mut pid: i64 = libc::SYS_vfork;
    // SAFETY: the child jumps straight to exit(0) without using the stack that it shares; the parent sleeps until then.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, 60",
            "xor edi, edi",
            "syscall",
            "2:",
            inout("rax") pid,
            out("rcx") _,
            out("r11") _,
            out("rdi") _,
        );
    }
    if pid < 0 {
        return Err(Stopped::Errno(i32::try_from(-pid).ready("an errno")?));
    }
    ended(pid)
}

/// A small program that prints what it is given.
fn echo() -> Result<&'static Path, Stopped> {
    let found = ["/usr/bin/echo", "/bin/echo"].iter().map(Path::new).find(|path| path.is_file());
    found.ok_or("there is no /bin/echo here").ready("find a small program")
}

fn memfd_exec(scene: &Scene) -> Answer {
    let _unused = scene;
    let program = std::fs::read(echo()?).ready("read a small program")?;
    let fd = nix::sys::memfd::memfd_create(c"agt-probe", nix::sys::memfd::MFdFlags::empty())?;
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, &program).ready("fill the memory file")?;
    exec_echo(std::os::fd::AsRawFd::as_raw_fd(&file) as usize)
}

fn exec_echo(fd: usize) -> Answer {
    let argv = Argv::new(&["echo", &crate::probe::wire::line(&super::Got::Ok)])?;
    let env = [std::ptr::null::<libc::c_char>()];
    let flags = libc::AT_EMPTY_PATH as usize;
    // SAFETY: NUL-terminated strings in null-terminated lists, living past the call; a success never returns.
    unsafe { raw(libc::SYS_execveat, [fd, c"".as_ptr() as usize, argv.pointer(), env.as_ptr() as usize, flags, 0]) }
        .map(drop)
}

fn linker() -> Result<&'static Path, Stopped> {
    let loaders: [&'static str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let linker = loaders.into_iter().map(Path::new).find(|path| path.is_file());
    linker.ok_or("there is none here").ready("find the dynamic linker")
}

fn loader(scene: &Scene) -> Answer {
    let copy = scene.own.join("program");
    std::fs::write(&copy, std::fs::read(echo()?).ready("read a small program")?).ready("copy it")?;
    let mut command = Command::new(linker()?);
    command.arg(&copy);
    runs(command)
}

/// A program of one's own in `directory`, with its x bit.
fn copied(directory: &Path) -> Result<PathBuf, Stopped> {
    use std::os::unix::fs::PermissionsExt;
    let copy = directory.join("agt-probe-program");
    std::fs::write(&copy, std::fs::read(echo()?).ready("read a small program")?).ready("copy it")?;
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).ready("make it executable")?;
    Ok(copy)
}

/// Whether `command` prints what it is told to.
fn runs(mut command: Command) -> Answer {
    let output = command.arg("ok").output()?;
    if output.stdout == b"ok\n" { Ok(()) } else { Err(Stopped::Nothing("it printed something else".to_owned())) }
}

fn map_as_code(directory: &Path) -> Answer {
    let path = directory.join("agt-probe-code");
    std::fs::write(&path, [0u8; 64]).ready("write a file of our own")?;
    let file = std::fs::File::open(&path).ready("open it")?;
    let (protection, fd) = ((libc::PROT_READ | libc::PROT_EXEC) as usize, std::os::fd::AsRawFd::as_raw_fd(&file));
    // SAFETY: a new private mapping of a file, never jumped to; it goes with this process.
    unsafe { raw(libc::SYS_mmap, [0, 64, protection, libc::MAP_PRIVATE as usize, fd as usize, 0]) }.map(drop)
}
