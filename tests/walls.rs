//! Walls that a review found open: each test is the way that was taken.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Outcome, Rig, effort, needs_root, quoted};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Rig {
    /// Runs this command in `ring`.
    fn act(&self, ring: u8, command: &[&str]) -> Outcome {
        let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
        let file = self.agent("act", &format!("ring: {ring}\n{}command: [{}]\n", effort(), words.join(", ")));
        self.output(["run".as_ref(), file.as_os_str()])
    }

    /// Something that is taken for a python's installation, with `cat` as its program.
    fn installation(&self) -> std::path::PathBuf {
        let app = self.dir.path().join("app");
        fs::create_dir_all(app.join("bin")).unwrap();
        fs::create_dir_all(app.join("lib/python3.11")).unwrap();
        fs::write(app.join("lib/python3.11/os.py"), "shown\n").unwrap();
        fs::copy("/bin/cat", app.join("bin/python3")).unwrap();
        app
    }
}

#[test]
fn an_installation_shows_no_file_that_its_owner_alone_may_read() {
    if !needs_root("an_installation_shows_no_file_that_its_owner_alone_may_read") {
        return;
    }
    let rig = Rig::new();
    let app = rig.installation();
    let secret = app.join("secret.conf");
    fs::write(&secret, "hunter2\n").unwrap();
    mode(&secret, 0o600);
    let (program, shown) = (app.join("bin/python3"), app.join("lib/python3.11/os.py"));
    for ring in [1, 2, 3] {
        let words = [&program, &secret, &shown].map(|path| path.to_str().unwrap());
        let outcome = rig.act(ring, &words);
        assert!(!outcome.stdout.contains("hunter2"), "R{ring} {}", outcome.stdout);
        // R1 needs more trust than a first start has: it runs in R2 then, and shows the same.
        assert_eq!(outcome.stdout, "shown\n", "R{ring} {}", outcome.stderr);
    }
    // In its workdir the agent is the owner.
    let own = rig.work.join("own");
    fs::write(&own, "mine\n").unwrap();
    mode(&own, 0o600);
    for ring in [2, 3] {
        assert_eq!(rig.act(ring, &["cat", "own"]).stdout, "mine\n", "R{ring}");
    }
}

#[test]
fn a_program_for_its_owner_alone_needs_an_operators_line() {
    if !needs_root("a_program_for_its_owner_alone_needs_an_operators_line") {
        return;
    }
    let rig = Rig::new();
    let program = rig.dir.path().join("tool");
    fs::copy("/bin/true", &program).unwrap();
    mode(&program, 0o700);
    let outcome = rig.act(2, &[program.to_str().unwrap()]);
    assert_eq!(outcome.code, 77, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("closed to other users") && outcome.stderr.contains("read:"), "{}", outcome.stderr);
    let operator = rig.dir.path().join("operator.yaml");
    let text = format!(
        "version: 1\nkind: operator\nagents:\n  act:\n    file: {}\n    read: [{}]\n",
        rig.work.join("act.yaml").display(),
        program.display()
    );
    fs::write(&operator, text).unwrap();
    mode(&operator, 0o644);
    let file = rig.work.join("act.yaml");
    let outcome = rig.output(["run".as_ref(), "--operator".as_ref(), operator.as_os_str(), file.as_os_str()]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

#[test]
fn a_protected_name_that_can_be_changed_all_the_same_refuses_the_launch() {
    if !needs_root("a_protected_name_that_can_be_changed_all_the_same_refuses_the_launch") {
        return;
    }
    type Make = fn(&Path);
    let cases: [(&str, Make); 3] = [
        (".envrc: it is a link", |work| {
            fs::write(work.join("rules"), "x").unwrap();
            symlink("rules", work.join(".envrc")).unwrap();
        }),
        (".bashrc: it has another name", |work| {
            fs::write(work.join(".bashrc"), "x").unwrap();
            fs::hard_link(work.join(".bashrc"), work.join("plain")).unwrap();
        }),
        ("act.yaml: it has another name", |work| {
            fs::write(work.join("act.yaml"), "x").unwrap();
            fs::hard_link(work.join("act.yaml"), work.join("plain")).unwrap();
        }),
    ];
    for (expected, make) in cases {
        let rig = Rig::new();
        make(&rig.work);
        let outcome = rig.act(2, &["touch", "made"]);
        assert_eq!(outcome.code, 69, "{expected}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(expected) && outcome.stderr.contains("writable: ["), "{}", outcome.stderr);
        assert!(!rig.work.join("made").exists());
        // R3 writes nothing there: nothing is missing.
        assert_eq!(rig.act(3, &["true"]).code, 0);
        let file = rig.agent("act", "ring: 2\nenforcement: best-effort\ncommand: ['true']\n");
        let end = rig.dir.path().join("end.json");
        let words = ["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), end.as_os_str()];
        assert_eq!(rig.output(words).code, 0);
        let status: serde_json::Value = serde_json::from_slice(&fs::read(&end).unwrap()).unwrap();
        let gap = &status["report"]["gaps"][0];
        assert_eq!(gap["protection"], "file-write", "{status}");
        assert!(gap["reason"].as_str().unwrap().contains(expected), "{gap}");
    }
}

#[test]
fn sockets_of_other_programs_do_not_answer_in_any_ring() {
    let rig = Rig::new();
    let app = rig.installation();
    fs::copy(fs::canonicalize("/usr/bin/python3").unwrap(), app.join("bin/python3")).unwrap();
    let paths = [rig.work.join("socket"), rig.work.join(".vscode/socket"), app.join("lib/socket")];
    fs::create_dir(rig.work.join(".vscode")).unwrap();
    let _listeners: Vec<_> = paths
        .iter()
        .map(|path| {
            let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
            mode(path, 0o777);
            listener
        })
        .collect();
    let script = format!(
        "import os, socket\nfor path in {paths:?}:\n    s = socket.socket(socket.AF_UNIX)\n    try: s.connect(path); print('LEAK', path)\n    except OSError as e: print(e.strerror)\n"
    );
    for ring in [2, 3] {
        // The installation is declared by being named; the interpreter itself is the system's.
        let env = "env: {set: {PYTHONHOME: /usr}}\n";
        let words = format!("[{}, -c, {}]", quoted(app.join("bin/python3").to_str().unwrap()), quoted(&script));
        let file = rig.agent("act", &format!("ring: {ring}\n{}{env}command: {words}\n", effort()));
        let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
        assert_eq!(outcome.stdout, "Connection refused\n".repeat(3), "R{ring} {}", outcome.stderr);
    }
    // One that is left over from an earlier run is the agent's to replace.
    drop(std::os::unix::net::UnixListener::bind(rig.work.join("left")).unwrap());
    let anew = "import os, socket\nos.unlink('left')\nsocket.socket(socket.AF_UNIX).bind('left')\nprint('bound')\n";
    assert_eq!(rig.act(2, &["python3", "-c", anew]).stdout, "bound\n");
    // Unconfined they do answer.
    for path in &paths {
        std::os::unix::net::UnixStream::connect(path).unwrap();
    }
}

#[test]
fn a_setuid_file_that_was_there_and_what_leads_git_away_stay_as_they_are() {
    let rig = Rig::new();
    for folder in [".git/hooks", "part/.git/worktrees/w"] {
        fs::create_dir_all(rig.work.join(folder)).unwrap();
    }
    let worktree = rig.work.join("part/.git/worktrees/w");
    for file in ["HEAD", "commondir", "gitdir"] {
        fs::write(worktree.join(file), "../..\n").unwrap();
    }
    fs::write(rig.work.join(".git/commondir"), ".\n").unwrap();
    fs::write(rig.work.join("set"), "old\n").unwrap();
    mode(&rig.work.join("set"), 0o4755);
    let outcome = rig.sh(
        2,
        "for f in set .git/commondir .git/hooks/pre-commit part/.git/worktrees/w/commondir part/.git/worktrees/w/gitdir; do \
         echo x > $f && echo LEAK $f; rm -f $f 2>/dev/null && test $f != .git/hooks/pre-commit && echo LEAK $f; done; \
         echo x > part/.git/worktrees/w/index && echo worked",
    );
    assert_eq!(outcome.stdout, "worked\n", "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(rig.work.join("set")).unwrap(), "old\n");
}

#[test]
fn a_repository_cannot_feed_or_hold_the_one_who_looks_at_it() {
    use std::time::{Duration, Instant};
    let rig = Rig::new();
    let (venv, package) = (rig.work.join("venv"), rig.work.join("node_modules/x"));
    fs::create_dir_all(venv.join("bin")).unwrap();
    fs::create_dir_all(&package).unwrap();
    symlink("/usr/bin/python3", venv.join("bin/python3")).unwrap();
    let (config, manifest) = (venv.join("pyvenv.cfg"), package.join("package.json"));
    let fifo = |path: &Path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for command in ["[venv/bin/python3, -c, pass]", "[npx, x]"] {
        for make in [|path: &Path| symlink("/dev/zero", path).unwrap(), fifo] {
            make(&config);
            make(&manifest);
            let file = rig.agent("held", &format!("ring: 2\ncommand: {command}\n"));
            let mut child = rig
                .command(["check".as_ref(), file.as_os_str()])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break Some(status);
                }
                let pages = fs::read_to_string(format!("/proc/{}/statm", child.id())).unwrap_or_default();
                let resident: u64 = pages.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
                if Instant::now() > deadline || resident > (256 << 20) / 4096 {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break None;
                }
                std::thread::sleep(Duration::from_millis(10));
            };
            assert!(ended.is_some(), "{command}: it was fed or held");
            fs::remove_file(&config).unwrap();
            fs::remove_file(&manifest).unwrap();
        }
    }
}

#[test]
fn a_directory_is_no_standard_stream() {
    let rig = Rig::new();
    let file = rig.agent("dir", &format!("ring: 2\n{}stdio: raw\ncommand: [ls, /proc/self/fd/0/]\n", effort()));
    let outcome = |input: fs::File| -> Outcome {
        let mut command = rig.command(["run".as_ref(), file.as_os_str()]);
        command.stdin(input).output().unwrap().into()
    };
    let refused = outcome(fs::File::open(rig.dir.path()).unwrap());
    assert_eq!((refused.code, refused.stdout.as_str()), (64, ""), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("standard input is a directory") && refused.stderr.contains("help:"),
        "{}",
        refused.stderr
    );
    let disk = rig.dir.path().join("bytes");
    fs::write(&disk, "bytes\n").unwrap();
    let file = rig.agent("dir", &format!("ring: 2\n{}stdio: raw\ncommand: [cat]\n", effort()));
    let mut command = rig.command(["run".as_ref(), file.as_os_str()]);
    let given: Outcome = command.stdin(fs::File::open(&disk).unwrap()).output().unwrap().into();
    assert_eq!((given.code, given.stdout.as_str()), (0, "bytes\n"), "{}", given.stderr);
}

#[test]
fn an_ordinary_users_agent_has_file_watches_of_its_own() {
    if crate::support::is_root() {
        // There an agent has a uid of its own, and with it a count of its own.
        return;
    }
    let rig = Rig::new();
    let names = ["/proc/sys/user/max_inotify_instances", "/proc/sys/user/max_inotify_watches"];
    let outside = names.map(|name| fs::read_to_string(name).unwrap());
    assert_eq!(rig.act(2, &["cat", names[0], names[1]]).stdout, "64\n65536\n");
    assert_eq!(names.map(|name| fs::read_to_string(name).unwrap()), outside);
}

#[test]
fn a_saga_step_is_not_started_beside_a_protected_name_that_is_a_link() {
    if !needs_root("a_saga_step_is_not_started_beside_a_protected_name_that_is_a_link") {
        return;
    }
    let rig = Rig::new();
    fs::write(rig.work.join("rules"), "x").unwrap();
    symlink("rules", rig.work.join(".envrc")).unwrap();
    let file = rig.work.join("saga.yaml");
    let step = "steps:\n  one:\n    ring: 2\n    command: [touch, made]\n";
    fs::write(&file, format!("version: 1\nkind: saga\nname: linked\n{step}")).unwrap();
    let outcome = rig.output(["saga".as_ref(), "run".as_ref(), file.as_os_str()]);
    assert_ne!(outcome.code, 0, "{}", outcome.stdout);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains(".envrc: it is a link"), "{said}");
    assert!(!rig.work.join("made").exists());
}
