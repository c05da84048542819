//! What an agent can't do, seen from inside its ring and from outside.

use crate::support::{Rig, effort, is_root, needs_root, quoted};

#[test]
fn r2_sees_neither_the_host_nor_the_supervisor() {
    let rig = Rig::new();
    let secret = rig.dir.path().join("secret");
    std::fs::write(&secret, "outside").unwrap();
    let script = format!(
        "cat {} && echo LEAK; ls {} && echo LEAK; cat /etc/shadow && echo LEAK; ls /root && echo LEAK; ls /var/lib && echo LEAK; echo done",
        secret.display(),
        rig.state.display()
    );
    let outcome = rig.sh(2, &script);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "done\n"), "{}", outcome.stderr);
}

#[test]
fn r2_writes_nothing_but_its_workdir_and_its_private_folders() {
    let rig = Rig::new();
    let outcome = rig.sh(
        2,
        "touch /usr/x /etc/x /x /dev/x /proc/x && echo LEAK; chmod 777 /usr/bin/env && echo LEAK; touch $HOME/a /tmp/b c && echo fine",
    );
    assert_eq!(outcome.stdout, "fine\n", "{}", outcome.stderr);
    assert!(rig.work.join("c").exists());
}

#[test]
fn an_agent_cannot_rewrite_its_own_file() {
    let rig = Rig::new();
    let outcome = rig.sh(2, "echo x >> sh.yaml; rm -f sh.yaml; mv sh.yaml y; ln sh.yaml z; chmod 777 sh.yaml; ls");
    let text = std::fs::read_to_string(rig.work.join("sh.yaml")).unwrap();
    assert!(text.starts_with("version: 1\n") && text.ends_with("]\n"), "{text}");
    assert_eq!(outcome.stdout, "sh.yaml\n", "{}", outcome.stderr);
}

#[test]
fn no_ring_keeps_a_capability_or_a_way_to_one() {
    let rig = Rig::new();
    for ring in [2, 3] {
        let file = rig.agent("status", &format!("ring: {ring}\n{}command: [cat, /proc/self/status]\n", effort()));
        let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let line = |key: &str| outcome.stdout.lines().find(|l| l.starts_with(key)).unwrap_or_default().to_owned();
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert!(line(set).ends_with("0000000000000000"), "R{ring} {}", line(set));
        }
        assert!(line("NoNewPrivs:").ends_with('1'));
        assert!(line("Seccomp:").ends_with('2'));
        if is_root() {
            assert!(!line("Uid:").contains("\t0\t"), "R{ring} {}", line("Uid:"));
        }
    }
}

#[test]
fn r2_has_only_its_own_loopback() {
    let rig = Rig::new();
    let outside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    let script = format!(
        "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0)); s.listen(); c = socket.create_connection(s.getsockname()); print('own')\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 2); print('LEAK')\nexcept OSError as e: print(type(e).__name__)\n"
    );
    let file = rig.agent("net", &format!("ring: 2\n{}command: [python3, -c, {}]\n", effort(), quoted(&script)));
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.stdout, "own\nConnectionRefusedError\n", "{}", outcome.stderr);
}

#[test]
fn r3_runs_threads_but_no_second_program() {
    let rig = Rig::new();
    let script = "import os, threading\nt = threading.Thread(target=print, args=['thread']); t.start(); t.join()\nfor f in (os.fork, lambda: os.execv('/usr/bin/true', ['true']), lambda: os.posix_spawn('/usr/bin/true', ['true'], {})):\n    try: f(); print('LEAK')\n    except OSError as e: print(e.errno)\n";
    let file = rig.agent("one", &format!("ring: 3\n{}command: [python3, -c, {}]\n", effort(), quoted(script)));
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.stdout, "thread\n1\n1\n1\n", "{}", outcome.stderr);
}

#[test]
fn r3_cannot_write_its_workdir() {
    let rig = Rig::new();
    let file = rig.agent("ro", &format!("ring: 3\n{}command: [touch, made]\n", effort()));
    assert_ne!(rig.output(["run".as_ref(), file.as_os_str()]).code, 0);
    assert!(!rig.work.join("made").exists());
}

#[test]
fn a_setuid_file_cannot_be_made_in_the_workdir() {
    let rig = Rig::new();
    let outcome =
        rig.sh(2, "cp /usr/bin/true t; chmod u+s t && echo LEAK; chmod 4755 t && echo LEAK; ls -l t | cut -c1-10");
    assert_eq!(outcome.stdout, "-rwxr-xr-x\n", "{}", outcome.stderr);
}

#[test]
fn inherited_descriptors_and_environment_stay_outside() {
    let rig = Rig::new();
    let file = rig.agent("fds", &format!("ring: 2\n{}command: [sh, -c, 'ls /proc/self/fd; env']\n", effort()));
    let secret = std::fs::File::open("/etc/hostname").unwrap();
    let mut command = rig.command(["run".as_ref(), file.as_os_str()]);
    command.env("AGT_TEST_SECRET", "hunter2");
    nix::fcntl::fcntl(&secret, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let outcome: crate::support::Outcome = command.output().unwrap().into();
    let fds: Vec<&str> = outcome.stdout.lines().take_while(|l| l.bytes().all(|b| b.is_ascii_digit())).collect();
    assert_eq!(fds, ["0", "1", "2", "3"], "3 is ls's own: {}", outcome.stdout);
    assert!(!outcome.stdout.contains("hunter2"));
}

#[test]
fn required_is_refused_where_the_host_falls_short_and_says_what_helps() {
    if is_root() {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("strict", "ring: 2\ncommand: ['true']\n");
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 69, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("memory") && outcome.stderr.contains("help:"), "{}", outcome.stderr);
}

#[test]
fn best_effort_enforces_what_required_does_where_the_host_can() {
    if !needs_root("best_effort_enforces_what_required_does_where_the_host_can") {
        return;
    }
    let rig = Rig::new();
    let report = |enforcement: &str| {
        let path = rig.dir.path().join("end.json");
        let file = rig.agent("same", &format!("ring: 2\nenforcement: {enforcement}\ncommand: ['true']\n"));
        let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), path.as_os_str()]);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let status: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        status["report"].clone()
    };
    let required = report("required");
    assert_eq!(required["gaps"].as_array().map(Vec::len), Some(0), "{required}");
    assert_eq!(required, report("best-effort"));
}
