//! What is refused, in every way in which it can be tried.

use std::path::Path;

use super::harness::{acting, attended, results, rules, tree};
use crate::names::{Rules, lists};
use crate::notice::What;

fn tried(top: &Path, acts: &[&str], rules: Rules) -> (Vec<String>, Vec<What>) {
    let acts: Vec<String> = acts.iter().map(|act| (*act).to_owned()).collect();
    let (output, notices) = attended(top, acting(top, top, &acts), rules);
    let results = results(&output);
    assert_eq!(results.len(), acts.len(), "{}", String::from_utf8_lossy(&output.stderr));
    (results, notices)
}

const REFUSED: &str = "EACCES: Permission denied";

fn scratch() -> (tempfile::TempDir, std::path::PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path().canonicalize().unwrap();
    std::fs::create_dir_all(top.join("1/2/3/4/5")).unwrap();
    std::fs::write(top.join("f"), "f").unwrap();
    std::fs::create_dir(top.join("d")).unwrap();
    (scratch, top)
}

#[test]
fn every_never_writable_name_is_refused_at_any_depth_by_every_call() {
    let (_scratch, top) = scratch();
    let before = tree(&top);
    let names = lists::NAMES.iter().copied().chain(["x.saga.yaml", ".ENVRC"]);
    let mut acts = Vec::new();
    for name in names {
        for folder in ["", "1/2/3/4/5/", "d/../"] {
            let path = format!("{folder}{name}");
            acts.extend([
                format!("open {path} {:o} 666", libc::O_CREAT | libc::O_WRONLY),
                format!("open {path} {:o} 666", libc::O_CREAT | libc::O_EXCL | libc::O_RDWR),
                format!("mkdir {path} 777"),
                format!("mkdir {path}/ 777"),
                format!("mknod {path} {:o}", libc::S_IFIFO | 0o666),
                format!("symlink f {path}"),
                format!("link f {path} 0"),
                format!("rename f {path} 0"),
                format!("rename d {path} 0"),
                format!("rename d {path}/ 1"),
            ]);
        }
    }
    let acts: Vec<&str> = acts.iter().map(String::as_str).collect();
    let (results, notices) = tried(&top, &acts, rules(&top));
    for (act, result) in acts.iter().zip(&results) {
        assert_eq!(result, REFUSED, "{act}");
    }
    assert_eq!(notices.len(), acts.len());
    assert!(
        notices
            .iter()
            .all(|notice| matches!(notice, What::Name { path, .. } if path.starts_with(top.to_str().unwrap())))
    );
    assert_eq!(tree(&top), before);
}

#[test]
fn no_way_round_leads_to_a_refused_name() {
    let (_scratch, top) = scratch();
    let acts = [
        "symlink .envrc dangling",
        "open dangling 101 666",
        "symlink dangling again",
        "open again 102 666",
        "symlink 1/2 way",
        "open way/.envrc 101 666",
        "open /proc/self/cwd/.envrc 101 666",
        "open /proc/thread-self/cwd/way/.envrc 101 666",
        "open /proc/self/root/proc/self/cwd/.envrc 101 666",
        "rename f d/x 0",
        "rename d/x .envrc 2",
        "mkdir 1/2/../../.vscode 777",
        "chdir 1/2",
        "open ../../.envrc 101 666",
        "mkdir .claude 777",
    ];
    let (results, _) = tried(&top, &acts, rules(&top));
    for at in [1, 3, 5, 6, 7, 8, 10, 11, 13, 14] {
        assert_eq!(results[at], REFUSED, "{}", acts[at]);
    }
    assert!(tree(&top).keys().all(|path| !path.ends_with(".envrc") && !path.ends_with(".vscode")));
}

#[test]
fn exchanged_names_are_both_asked_about() {
    let (_scratch, top) = scratch();
    std::fs::write(top.join(".envrc"), "mine").unwrap();
    let acts = [
        "rename f .envrc 2",
        "rename .envrc f 2",
        "rename .envrc moved 0",
        "rename moved .envrc 0",
        "open .envrc 101 666",
    ];
    let (results, _) = tried(&top, &acts, rules(&top));
    let expected = [REFUSED, REFUSED, "done", REFUSED, REFUSED];
    assert_eq!(results, expected);
    assert_eq!(std::fs::read(top.join("moved")).unwrap(), b"mine");
}

#[test]
fn what_stands_already_is_answered_as_the_kernel_answers_it() {
    let (_scratch, top) = scratch();
    std::fs::write(top.join(".envrc"), "mine").unwrap();
    std::fs::create_dir(top.join(".vscode")).unwrap();
    let acts =
        ["open .envrc 100 666", "mkdir .vscode 777", "open .envrc 301 666", "open .vscode 101 666", "symlink x .envrc"];
    let (results, notices) = tried(&top, &acts, rules(&top));
    assert!(results[0].starts_with("fd "), "{}", results[0]);
    let exists = "EEXIST: File exists";
    assert_eq!(results[1..], [exists, exists, "EISDIR: Is a directory", exists]);
    assert_eq!(notices, []);
}

#[test]
fn a_repository_that_stood_keeps_what_it_lacked_and_one_of_its_own_is_told_of() {
    let (_scratch, top) = scratch();
    std::fs::create_dir_all(top.join("repo/.git/objects")).unwrap();
    let mut all = rules(&top);
    all.repositories.push(top.join("repo/.git"));
    let acts = [
        "mkdir repo/.git/hooks 777",
        "open repo/.git/config 101 666",
        // Under another name it is the same repository.
        "rename repo/.git moved 0",
        "mkdir moved/hooks 777",
        "open moved/config 101 666",
        // And nothing comes into its place but an empty folder, which is kept as it was.
        "mkdir own 777",
        "mkdir own/.git 777",
        "mkdir own/.git/hooks 777",
        "rename own/.git repo/.git 0",
        "symlink ../own/.git repo/.git",
        "open repo/.git 101 666",
        "link f repo/.git 0",
        "rename repo elsewhere 0",
        "rename own repo 0",
        "symlink own repo",
        "mkdir repo 777",
        "mkdir repo/.git 777",
        "mkdir repo/.git/hooks 777",
    ];
    let (results, notices) = tried(&top, &acts, all);
    let done = [2, 5, 6, 7, 12, 15, 16];
    for (at, act) in acts.iter().enumerate() {
        let expected = if done.contains(&at) { "done" } else { REFUSED };
        assert_eq!(results[at], expected, "{at} {act}");
    }
    let own = What::Repository { path: top.join("own/.git").to_str().unwrap().to_owned() };
    let told: Vec<_> = notices.iter().filter(|notice| matches!(notice, What::Repository { .. })).collect();
    assert_eq!(told, [&own]);
}

#[test]
fn a_path_too_long_for_the_kernel_to_say_hides_no_name() {
    let (_scratch, top) = scratch();
    let name = "n".repeat(250);
    let mut acts = vec![];
    for _ in 0..20 {
        acts.push(format!("mkdir {name} 777"));
        acts.push(format!("chdir {name}"));
    }
    acts.extend(
        ["open .envrc 101 666", "open plain 101 666", "mkdir .vscode 777", "rename plain other 0"].map(str::to_owned),
    );
    let acts: Vec<&str> = acts.iter().map(String::as_str).collect();
    let (results, _) = tried(&top, &acts, rules(&top));
    let last = &results[40..];
    assert_eq!(last[0], REFUSED);
    assert!(last[1].starts_with("fd "), "{}", last[1]);
    assert_eq!(last[2..], [REFUSED, REFUSED]);
}

#[test]
fn swapped_links_under_running_calls_bring_no_refused_name_about() {
    let (_scratch, top) = scratch();
    std::fs::create_dir_all(top.join("in/side")).unwrap();
    let script = "
import os, threading, errno
end = threading.Event()
def swap():
    n = 0
    while not end.is_set():
        for target in ('.envrc', 'plain', '1/2/.bashrc', 'in/side/f'):
            try:
                os.symlink(target, 't%d' % n); os.replace('t%d' % n, 'swap')
            except OSError: pass
            n += 1
        try: os.rename('in', 'x'); os.rename('x', 'in')
        except OSError: pass
thread = threading.Thread(target=swap); thread.start()
made = 0
for i in range(3000):
    for path in ('swap', 'in/side/../.envrc', 'swap/../.envrc'):
        try: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)); made += 1
        except OSError: pass
    try: os.rename('f', 'swap/.envrc')
    except OSError: pass
end.set(); thread.join()
print('made', made)
";
    let mut command = std::process::Command::new("python3");
    command.args(["-c", script]).current_dir(&top);
    let (output, _) = attended(&top, command, rules(&top));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("made ") && said.trim() != "made 0", "{said} {}", String::from_utf8_lossy(&output.stderr));
    let found = tree(&top);
    assert!(found.keys().all(|path| !path.ends_with(".envrc") && !path.ends_with(".bashrc")), "{:?}", found.keys());
}
