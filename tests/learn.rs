//! `learn`: a run that changes nothing, and a proposal that is enough for the same command.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::docs::only_its_owner_writes;
use crate::support::{Outcome, Rig};

/// Says hello to everybody, until the process ends.
fn greeter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut caller in listener.incoming().filter_map(Result::ok) {
            let _ = caller.write_all(b"hello");
        }
    });
    port
}

/// Reads files outside, one more by a child, writes in its folder and HOME, starts a child, and calls somebody.
fn researcher(rig: &Rig, outside: &Path, port: u16) {
    std::fs::create_dir_all(outside.join("prices")).unwrap();
    for number in 0..5 {
        std::fs::write(outside.join(format!("prices/{number}.csv")), format!("{number}")).unwrap();
    }
    std::fs::write(outside.join("notes.txt"), "a note").unwrap();
    std::fs::write(outside.join("not-asked-for.txt"), "private").unwrap();
    std::fs::write(rig.work.join("diary.txt"), "as it was").unwrap();
    let script = format!(
        r"import pathlib, socket, subprocess
failed = []
def attempt(what):
    try:
        return what()
    except OSError as error:
        failed.append(str(error))
outside = pathlib.Path('{}')
total = sum(int(attempt((outside / 'prices' / f'{{n}}.csv').read_text) or 0) for n in range(5))
child = subprocess.run(['sh', '-c', f'cat {{outside}}/notes.txt'], capture_output=True, text=True)
if child.returncode:
    failed.append(child.stderr)
pathlib.Path('diary.txt').write_text('changed')
pathlib.Path('result.txt').write_text(str(total))
(pathlib.Path.home() / '.settings').write_text('x')
def call():
    with socket.create_connection(('127.0.0.1', {port}), 5) as s:
        return s.recv(9).decode()
print('total', total, 'note', child.stdout, 'heard', attempt(call))
raise SystemExit('; '.join(failed) or 0)
",
        outside.display()
    );
    std::fs::write(rig.work.join("researcher.py"), script).unwrap();
}

fn learn(rig: &Rig, options: &[&str]) -> Outcome {
    rig.output([&["learn"], options, &["--", "/usr/bin/python3", "researcher.py"]].concat())
}

/// The operator's lines that were printed, as a file.
fn operators_file(rig: &Rig, stderr: &str) -> PathBuf {
    let lines: Vec<&str> = stderr
        .lines()
        .skip_while(|line| !line.contains("an operator can allow this in"))
        .skip(1)
        .map_while(|line| line.strip_prefix("    "))
        .collect();
    let head = if lines[0].starts_with("version") { "" } else { "version: 1\nkind: operator\n" };
    let file = rig.dir.path().join("operator.yaml");
    std::fs::write(&file, format!("{head}{}\n", lines.join("\n"))).unwrap();
    only_its_owner_writes(&file);
    file
}

#[test]
fn the_proposal_is_enough_for_the_same_command_and_no_more() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside");
    researcher(&rig, &outside, greeter());
    let learnt = learn(&rig, &["-o", "agent.yaml", "--drop"]);
    assert_eq!(learnt.code, 0, "{}\n{}", learnt.stdout, learnt.stderr);
    assert!(learnt.stdout.contains("total 0 note  heard None"), "it had nothing: {}", learnt.stdout);
    assert!(learnt.stderr.contains("3 for the operator's file"), "{}", learnt.stderr);
    assert!(learnt.stderr.contains("what it would have done after that"), "{}", learnt.stderr);
    // Nothing that it wrote is there.
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    };
    assert_eq!(names(&rig.work), ["agent.yaml", "diary.txt", "researcher.py"]);
    assert_eq!(std::fs::read_to_string(rig.work.join("diary.txt")).unwrap(), "as it was");
    assert_eq!(names(&rig.state.join("learn")), [""; 0], "what it wrote is dropped");
    // The smallest rules: the folder of five, the one file; each marked.
    let proposed = std::fs::read_to_string(rig.work.join("agent.yaml")).unwrap();
    let marked: Vec<&str> = proposed.lines().filter(|line| line.contains("  # REVIEW: ")).collect();
    assert_eq!(marked.len(), 3, "{proposed}");
    let path = |line: &str| line.trim().trim_start_matches("- ").split("  #").next().unwrap().to_owned();
    let expected = [outside.join("notes.txt"), outside.join("prices")].map(|path| path.display().to_string());
    assert_eq!([path(marked[0]), path(marked[1])], expected, "{proposed}");
    assert!(marked[2].trim().starts_with("- tcp: "), "{proposed}");
    // Without the operator it is what it says: requests.
    assert_eq!(rig.output(["check", "agent.yaml"]).code, 77);
    let operator = operators_file(&rig, &learnt.stderr);
    let operator = operator.to_str().unwrap();
    let checked = rig.output(["check", "agent.yaml", "--operator", operator]);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    let run = rig.output(["run", "agent.yaml", "--operator", operator]);
    assert_eq!(run.code, 0, "{}\n{}", run.stdout, run.stderr);
    assert!(run.stdout.contains("total 10 note a note heard hello"), "{}", run.stdout);
    assert_eq!(std::fs::read_to_string(rig.work.join("diary.txt")).unwrap(), "changed");
    let more = outside.join("not-asked-for.txt").display().to_string();
    assert_eq!(rig.output(["why", "agent.yaml", "--operator", operator, "--path", &more]).code, 1);
}

#[test]
fn an_agent_that_has_a_file_is_told_only_what_it_still_lacks_and_writes_nothing_anywhere() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    for name in ["had", "lacked", "written"] {
        std::fs::write(outside.join(name), name).unwrap();
    }
    std::fs::write(rig.dir.path().join("token"), "secret").unwrap();
    let script = "cat $O/had; cat $O/lacked; echo changed > $O/written; echo \"token=$TOKEN\"; echo changed > own";
    let lines = format!(
        "ring: 2\n{}command: [sh, -c, {}]\nenv:\n  set: {{O: {o}}}\n  secrets: {{TOKEN: {{file: {d}/token}}}}\n\
         files: {{read: [{o}/had], write: [{o}/written]}}\nrestart: {{policy: always}}\n",
        crate::support::effort(),
        crate::support::quoted(script),
        o = outside.display(),
        d = rig.dir.path().display(),
    );
    let file = rig.agent("has", &lines);
    let operator = rig.dir.path().join("operator.yaml");
    let granted = format!(
        "version: 1\nkind: operator\nagents:\n  has: {{file: {}, read: [{o}/had], write: [{o}/written], secrets: [{d}/token]}}\n",
        file.display(),
        o = outside.display(),
        d = rig.dir.path().display(),
    );
    std::fs::write(&operator, granted).unwrap();
    only_its_owner_writes(&operator);
    let (file, operator) = (file.to_str().unwrap(), operator.to_str().unwrap());
    let outcome = rig.output(["learn", file, "--operator", operator, "--drop"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("had") && outcome.stdout.contains("token=\n"), "{}", outcome.stdout);
    let proposed = &outcome.stdout[outcome.stdout.find("files:").unwrap()..];
    let paths: Vec<&str> = proposed.lines().filter(|line| line.trim().starts_with("- ")).collect();
    assert!(paths.len() == 1 && paths[0].contains("/lacked  # REVIEW: "), "{proposed}");
    assert_eq!(std::fs::read_to_string(outside.join("written")).unwrap(), "written", "it is the user's");
    assert!(!rig.work.join("own").exists());
}

#[test]
fn a_command_that_needs_nothing_gets_no_line_and_what_it_wrote_can_be_kept() {
    let rig = Rig::new();
    let script = "mkdir -p new/deep && echo one > new/deep/file && rm diary.txt && ls";
    std::fs::write(rig.work.join("diary.txt"), "as it was").unwrap();
    let outcome = rig.output(["learn", "--keep", "--", "sh", "-c", script]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.starts_with("new\n"), "it sees what it did: {}", outcome.stdout);
    assert!(outcome.stdout.contains("command: [sh, \"-c\", "), "the proposal is data: {}", outcome.stdout);
    assert!(!outcome.stdout.contains("files:") && !outcome.stdout.contains("network:"), "{}", outcome.stdout);
    assert_eq!(std::fs::read_to_string(rig.work.join("diary.txt")).unwrap(), "as it was");
    assert!(!rig.work.join("new").exists());
    let kept: Vec<PathBuf> =
        std::fs::read_dir(rig.state.join("learn")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(std::fs::read_to_string(kept[0].join("upper/new/deep/file")).unwrap(), "one\n");
    assert!(outcome.stderr.contains(&kept[0].join("upper").display().to_string()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("rm -r "), "{}", outcome.stderr);
}

#[test]
fn a_refused_call_and_a_stranger_on_the_network_are_told_and_no_lines() {
    let rig = Rig::new();
    let lines = "import socket\nfor to in (('192.0.2.1', 443), ('127.0.0.1', 1)):\n  \
        try: socket.create_connection(to, 1)\n  except OSError: pass\n\
        try: socket.socket(40, 1)\nexcept OSError: pass\n";
    std::fs::write(rig.work.join("calls.py"), lines).unwrap();
    let outcome = rig.output(["learn", "--quiet", "--drop", "--", "/usr/bin/python3", "calls.py"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let notes: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("# note: ")).collect();
    assert!(notes.iter().any(|note| note.contains("192.0.2.1:443") && note.contains("proxy")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("socket(AF_VSOCK, SOCK_STREAM)")), "{notes:?}");
    assert!(!outcome.stdout.contains("network:"), "nobody listens at port 1 here: {}", outcome.stdout);
}

#[test]
fn no_home_no_system_folder_and_no_secret_is_offered_and_they_hide_nothing() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("read"), "x").unwrap();
    let name = crate::support::unique("made");
    let script = format!(
        r"import os
def attempt(path, flags):
    try:
        os.open(path, flags)
    except OSError:
        pass
for folder in ('/', '/home/', '/opt/', '/srv/', '/usr/local/bin/'):
    attempt(folder + '{name}', os.O_CREAT | os.O_WRONLY)
attempt('/etc/shadow', os.O_WRONLY)
attempt('{o}/read', os.O_RDONLY)
",
        o = outside.display()
    );
    std::fs::write(rig.work.join("tries.py"), script).unwrap();
    let outcome = rig.output(["learn", "--drop", "--", "/usr/bin/python3", "tries.py"]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stdout.lines().filter(|line| line.contains("  - ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(&format!("{}/read  # REVIEW", outside.display())), "{lines:?}");
    for told in
        [format!("/home/{name}"), format!("/usr/local/bin/{name}"), format!("/{name}"), "/etc/shadow".to_owned()]
    {
        let is_told = |line: &str| line.starts_with("# note: ") && line.contains(told.as_str());
        assert!(outcome.stdout.lines().any(is_told), "{told}: {}", outcome.stdout);
    }
    let granted = outcome.stderr.split("an operator can allow this in").nth(1).unwrap();
    assert!(
        !["/home,", "/home]", "/opt", "/srv", "shadow", "write:"].iter().any(|bad| granted.contains(bad)),
        "{granted}"
    );
}

#[test]
fn a_tree_deeper_than_there_are_descriptors_is_dropped_behind_the_proposal() {
    let rig = Rig::new();
    let script =
        "import os\nfor _ in range(1500):\n  os.mkdir('level'); os.chdir('level')\nopen('file', 'w').close()\n";
    std::fs::write(rig.work.join("deep.py"), script).unwrap();
    let learn = rig.command(["learn", "--drop", "--", "/usr/bin/python3", "deep.py"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 1024 && exec \"$@\"", "sh"]).arg(learn.get_program()).args(learn.get_args());
    command.envs(learn.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.current_dir(learn.get_current_dir().unwrap_or(&rig.work));
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("ring: 2"), "the proposal");
    assert_eq!(std::fs::read_dir(rig.state.join("learn")).unwrap().count(), 0, "{stderr}");
}

#[test]
fn what_can_not_be_learnt_is_refused_before_anything_runs() {
    let rig = Rig::new();
    let there = rig.work.join("there.yaml");
    std::fs::write(&there, "mine").unwrap();
    let elsewhere = rig.dir.path().join("agent.yaml");
    let touch = ["--", "sh", "-c", "touch ran"];
    for (options, code) in [
        (vec!["-o", "there.yaml"], 73),
        (vec!["-o", elsewhere.to_str().unwrap()], 64),
        (vec!["--workdir", "/nowhere/at/all"], 64),
        (vec!["--ring", "0"], 64),
        (vec!["--keep", "--drop"], 64),
    ] {
        let outcome = rig.output([&["learn"], &options[..], &touch].concat());
        assert_eq!(outcome.code, code, "{options:?}: {}", outcome.stderr);
    }
    assert_eq!(rig.output(["learn", "--", "no-such-program-at-all"]).code, 127);
    for args in [&["learn"][..], &["learn", "there.yaml"], &["learn", "there.yaml", "--", "sh"]] {
        assert_eq!(rig.output(args).code, 64, "{args:?}");
    }
    assert_eq!(std::fs::read_to_string(&there).unwrap(), "mine");
    assert!(!rig.state.join("learn").exists(), "nothing was begun");
}

#[test]
fn what_a_watched_run_is_denied_is_told_under_the_name_that_the_agent_will_have() {
    let rig = Rig::new();
    let script = "import ctypes, os\nctypes.CDLL(None).syscall(165 if os.uname().machine == 'x86_64' else 40, 0, 0, 0, 0, 0, 0)\n";
    std::fs::write(rig.work.join("mounter.py"), script).unwrap();
    let learnt = rig.output(["learn", "--drop", "--", "/usr/bin/python3", "mounter.py"]);
    assert_eq!(learnt.code, 0, "{}", learnt.stderr);
    assert!(learnt.stderr.contains("denied: mount   mounter (pid "), "{}", learnt.stderr);
    let told = rig.output(["why", "mounter"]);
    assert!(told.code == 0 && told.stdout.contains("  mounter  mount "), "{}{}", told.stdout, told.stderr);
    let all = rig.output(["why"]).stdout;
    assert!(!all.contains("mounter-"), "under no other name: {all}");
    assert!(rig.output(["audit", "show", "--agent", "mounter"]).stdout.contains("rule=\"seccomp.mounts\""));
    // The name is still free for the file that was proposed.
    rig.agent("mounter", &format!("ring: 2\n{}command: ['true']\n", crate::support::effort()));
    assert_eq!(rig.output(["run", "mounter.yaml"]).code, 0);
}
