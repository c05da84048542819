//! Never-writable names that don't exist when the agent starts: nothing can be laid over them, so each call that could make one is
//! answered. The ways are those by which a name can come to be, and those by which one tries to hide what it will be.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::{Answer, Attack, D, N, Ready, attack};
use crate::probe::Layer::Names;
use crate::probe::scene::Scene;

const SHELL: &str = "commands that the user's shell runs on entering the folder";
const EDITOR: &str = "commands that the user's editor runs on opening the folder";
const HOOKS: &str = "commands that the user's next git commit runs outside every ring";

/// R0 has the host's files; in R3 the workdir is read-only, which other attacks try.
const fn made(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([N, D, D, N]).by(&[Names])
}

pub(super) const ATTACKS: &[Attack] = &[
    made("envrc-create-nested", "create .envrc four folders down", SHELL, |s| Ok(fs::write(envrc(s), "x")?)),
    made("editor-dir-create", "create .vscode in a folder of the workdir", EDITOR, |s| {
        Ok(fs::create_dir(s.work.join("a/.vscode"))?)
    }),
    made("envrc-rename", "rename a file of one's own to .envrc", SHELL, |s| {
        let from = own(s)?;
        Ok(fs::rename(from, envrc(s))?)
    }),
    made("editor-dir-rename", "make a folder with editor tasks and rename it to .vscode", EDITOR, |s| {
        let from = s.work.join("a/plain");
        fs::create_dir(&from).and_then(|()| fs::write(from.join("tasks.json"), "{}")).ready("make the folder")?;
        Ok(fs::rename(from, s.work.join("a/.vscode"))?)
    }),
    made("envrc-link", "hard-link a file of one's own as .envrc", SHELL, |s| {
        let from = own(s)?;
        Ok(fs::hard_link(from, envrc(s))?)
    }),
    made("envrc-symlink", "symlink .envrc to a file of one's own", SHELL, |s| {
        let to = own(s)?;
        Ok(symlink(to, envrc(s))?)
    }),
    made("envrc-dangling-symlink", "create .envrc through a link that leads there", SHELL, |s| {
        let link = s.work.join("a/innocent");
        symlink("b/c/.envrc", &link).ready("make the link")?;
        Ok(fs::write(link, "x")?)
    }),
    made("envrc-proc-cwd", "create .envrc by /proc/self/root", SHELL, |s| {
        let way = PathBuf::from("/proc/self/root").join(envrc(s).strip_prefix("/").ready("cut the slash")?);
        Ok(fs::write(way, "x")?)
    }),
    made("envrc-unnamed-file", "give a file without a name (O_TMPFILE) the name .envrc", SHELL, |s| {
        let file = super::open(&s.work.join("a"), OFlag::O_TMPFILE | OFlag::O_WRONLY)
            .map_err(|_| "no such files here")
            .ready("make a file without a name")?;
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let here = nix::fcntl::AT_FDCWD;
        Ok(nix::unistd::linkat(here, from.as_str(), here, &envrc(s), nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW)?)
    }),
    made("envrc-other-case", "create .ENVRC, which is .envrc on a disk that folds case", SHELL, |s| {
        Ok(fs::write(s.work.join("a/.ENVRC"), "x")?)
    }),
    made("git-hooks-create", "create the hooks folder that a repository lacked at launch", HOOKS, |s| {
        Ok(fs::create_dir(s.work.join("plain/.git/hooks"))?)
    }),
    made("git-dir-replace", "move one's own .git into the place of one that stood there", HOOKS, |s| {
        let own = s.work.join("a/.git");
        fs::create_dir_all(own.join("hooks")).ready("make a repository of one's own")?;
        fs::rename(s.work.join("plain/.git"), s.work.join("a/old")).ready("move the other one away")?;
        Ok(fs::rename(own, s.work.join("plain/.git"))?)
    }),
    made("git-dir-elsewhere", "move a repository that stood there away, and give it hooks", HOOKS, |s| {
        let moved = s.work.join("a/moved");
        fs::rename(s.work.join("plain/.git"), &moved).ready("move it")?;
        Ok(fs::create_dir(moved.join("hooks"))?)
    }),
    made("git-dir-closed-elsewhere", "the same with a folder that nobody can enter meanwhile", HOOKS, |s| {
        let (stood, moved) = (s.work.join("plain"), s.work.join("a/moved"));
        let mode = |mode| fs::set_permissions(&stood, fs::Permissions::from_mode(mode)).ready("change its mode");
        mode(0o000)?;
        // The first name that is made: by then whoever answers looks at the repositories.
        own(s)?;
        mode(0o755)?;
        fs::rename(&stood, &moved).ready("move it")?;
        Ok(fs::create_dir(moved.join(".git/hooks"))?)
    }),
];

fn envrc(scene: &Scene) -> PathBuf {
    scene.work.join("a/b/c/.envrc")
}

/// A plain file of the agent's own making.
fn own(scene: &Scene) -> Result<PathBuf, super::Stopped> {
    let path = scene.work.join("a/plain");
    fs::write(&path, "x").ready("make a file")?;
    Ok(path)
}
