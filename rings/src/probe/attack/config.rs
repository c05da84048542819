//! Names inside the writable workdir that stay read-only: the agent's own agent.yaml, git's hooks and configuration. Whoever
//! writes them decides what the *user* runs later, outside every ring.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Answer, Attack, D, N, Ready, attack};
use crate::probe::Layer::{Landlock, MountNamespace, ReadOnlyMount};
use crate::probe::scene::Scene;

const RIGHTS: &str = "to write its own rights for the next start";
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
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
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
    .by(&[MountNamespace, ReadOnlyMount, Landlock]),
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

fn plant(git: &Path) -> Answer {
    fs::create_dir_all(git.join("hooks")).or_else(|e| if git.join("hooks").is_dir() { Ok(()) } else { Err(e) })?;
    let mut hook = fs::File::create_new(git.join("hooks/pre-commit"))?;
    hook.write_all(b"#!/bin/sh\n").ready("write the hook")
}
