//! Names inside the writable workdir that stay read-only: the agent's own agent.yaml, git's hooks and configuration. Whoever
//! writes them decides what the *user* runs later, outside every ring.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Answer, Attack, D, N, Ready, Stopped, attack};
use crate::probe::Layer::{Landlock, MountNamespace, Names, ReadOnlyMount};
use crate::probe::scene::Scene;

const RIGHTS: &str = "to write its own rights for the next start";
const PAGE: usize = 4096;
const EDITOR: &str = "commands that the user's editor runs on opening the folder";
const HOOKS: &str = "commands that the user's next git commit runs outside every ring";

pub(super) const ATTACKS: &[Attack] = &[
    attack("own-config-write", "write to one's own agent.yaml", RIGHTS, |s| overwrite(&config(s)))
        .by(&[ReadOnlyMount, Landlock]),
    attack("own-config-truncate", "truncate one's own agent.yaml", RIGHTS, |s| {
        Ok(nix::unistd::truncate(&config(s), 0)?)
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("own-config-chmod", "chmod one's own agent.yaml", RIGHTS, |s| {
        Ok(fs::set_permissions(config(s), fs::Permissions::from_mode(0o666))?)
    })
    .by(&[ReadOnlyMount]),
    attack("own-config-replace", "rename another file over one's own agent.yaml", RIGHTS, |s| {
        Ok(fs::rename(s.work.join("file"), config(s))?)
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock, Names]),
    attack("own-config-move", "move one's own agent.yaml away", RIGHTS, |s| {
        Ok(fs::rename(config(s), s.work.join("moved"))?)
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
    attack("own-config-unlink", "remove one's own agent.yaml", RIGHTS, |s| Ok(fs::remove_file(config(s))?)).by(&[
        MountNamespace,
        ReadOnlyMount,
        Landlock,
    ]),
    attack("own-config-link", "hard-link one's own agent.yaml and write through the link", RIGHTS, |s| {
        let link = s.work.join("link");
        fs::hard_link(config(s), &link)?;
        overwrite(&link)
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock, Names]),
    attack("git-hook-plant", "create .git/hooks/pre-commit", HOOKS, |s| plant(&s.work.join(".git")))
        .by(&[ReadOnlyMount, Landlock]),
    attack("git-hooks-swap", "move .git/hooks away and make a new one", HOOKS, |s| {
        fs::rename(s.work.join(".git/hooks"), s.work.join(".git/old"))?;
        plant(&s.work.join(".git"))
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
    attack("git-dir-swap", "move .git away and make a new one with hooks", HOOKS, |s| {
        fs::rename(s.work.join(".git"), s.work.join("old"))?;
        plant(&s.work.join(".git"))
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
    attack("git-config-write", "write to .git/config", HOOKS, |s| overwrite(&s.work.join(".git/config")))
        .by(&[ReadOnlyMount, Landlock]),
    attack("git-commondir-write", "point .git/commondir at another repository", HOOKS, |s| {
        overwrite(&s.work.join(".git/commondir"))
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("nested-git-hook-plant", "create a hook of a repository inside the workdir", HOOKS, |s| {
        plant(&s.work.join("vendor/.git"))
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("nested-git-swap", "move the folder of that repository away and make a new one", HOOKS, |s| {
        fs::rename(s.work.join("vendor"), s.work.join("old"))?;
        plant(&s.work.join("vendor/.git"))
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
    attack("editor-task-plant", "create .vscode/tasks.json", EDITOR, |s| {
        Ok(fs::File::create_new(s.work.join(".vscode/tasks.json")).map(drop)?)
    })
    .by(&[ReadOnlyMount, Landlock, Names]),
    attack("editor-dir-swap", "move .vscode away and make a new one", EDITOR, |s| {
        fs::rename(s.work.join(".vscode"), s.work.join("moved"))?;
        Ok(fs::create_dir(s.work.join(".vscode"))?)
    })
    .by(&[MountNamespace, ReadOnlyMount, Landlock, Names]),
    attack(
        "agent-settings-plant",
        "create .claude/settings.json",
        "commands that the user's own coding agent runs",
        |s| Ok(fs::File::create_new(s.work.join(".claude/settings.json")).map(drop)?),
    )
    .by(&[ReadOnlyMount, Landlock, Names]),
    attack("mcp-config-write", "write to .mcp.json", "programs that the user's own coding agent starts", |s| {
        overwrite(&s.work.join(".mcp.json"))
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("envrc-write", "write to .envrc", "commands that the user's shell runs on entering the folder", |s| {
        overwrite(&s.work.join(".envrc"))
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack("shell-startup-write", "write to .bashrc", "commands that the user's next shell runs", |s| {
        overwrite(&s.work.join(".bashrc"))
    })
    .by(&[ReadOnlyMount, Landlock]),
    attack(
        "set-id-rewrite",
        "rewrite a setuid file through shared memory, which keeps the bit",
        "the user's uid for whoever runs that file",
        |s| rewrite_in_memory(&s.work.join("setuid")),
    )
    .by(&[ReadOnlyMount, Landlock]),
    attack("hidden-dir-swap", "move the covered state directory of the workdir away", "to get under its cover", |s| {
        fs::rename(s.work.join(".state"), s.work.join("moved"))?;
        super::read_secret(&s.work.join("moved/key"))
    })
    .rings([N, D, D, D])
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
];

fn config(scene: &Scene) -> PathBuf {
    scene.work.join("agent.yaml")
}

fn overwrite(path: &Path) -> Answer {
    Ok(fs::OpenOptions::new().write(true).open(path)?.write_all(b"changed")?)
}

fn rewrite_in_memory(path: &Path) -> Answer {
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: the first byte of a file that has some, mapped for writing a moment ago; nobody else has this mapping.
    unsafe { memory.cast::<u8>().write_volatile(b'!') };
    // SAFETY: the mapping above, used no more.
    let _gone = unsafe { libc::munmap(memory, PAGE) };
    if fs::metadata(path).ready("look at it")?.permissions().mode() & 0o4000 != 0 {
        Ok(())
    } else {
        Err(Stopped::Nothing("the bit is gone".to_owned()))
    }
}

fn plant(git: &Path) -> Answer {
    fs::create_dir_all(git.join("hooks")).or_else(|e| if git.join("hooks").is_dir() { Ok(()) } else { Err(e) })?;
    let mut hook = fs::File::create_new(git.join("hooks/pre-commit"))?;
    hook.write_all(b"#!/bin/sh\n").ready("write the hook")
}
