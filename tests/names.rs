//! Names that an agent may not make, in real runs: by every call, at every depth, and against somebody who tries.

use std::fs;
use std::path::Path;

use crate::support::{Outcome, Rig, effort, needs_root, quoted};

/// Some of each kind; the list itself is tried whole beside the code.
const NAMES: [&str; 6] = [".envrc", ".vscode", ".mcp.json", ".bashrc", "agent.yaml", "x.saga.yaml"];

/// Every way to make `$1`, as a shell function: says LEAK and how where one works.
const TRY: &str = "t() { \
    (echo x > $1) 2>/dev/null && echo LEAK open $1; mkdir $1 2>/dev/null && echo LEAK mkdir $1; \
    mkfifo $1 2>/dev/null && echo LEAK mknod $1; ln -s f $1 2>/dev/null && echo LEAK symlink $1; \
    ln f $1 2>/dev/null && echo LEAK link $1; mv f $1 2>/dev/null && echo LEAK rename $1; mv dir $1 2>/dev/null && echo LEAK move $1; \
    ln -s $1 way 2>/dev/null; (echo x > way) 2>/dev/null && echo LEAK through a link $1; rm -f way; }; ";

impl Rig {
    fn python(&self, ring: u8, script: &str) -> Outcome {
        let file = self.agent("py", &format!("ring: {ring}\n{}command: [python3, -c, {}]\n", effort(), quoted(script)));
        self.output(["run".as_ref(), file.as_os_str()])
    }
}

fn found(top: &Path, names: &[&str]) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(top).unwrap() {
        let entry = entry.unwrap();
        if names.iter().any(|name| entry.file_name() == *name) {
            all.push(entry.path());
        }
        if entry.file_type().unwrap().is_dir() {
            all.extend(found(&entry.path(), names));
        }
    }
    all
}

#[test]
fn a_never_writable_name_cannot_be_made_at_any_depth() {
    let rig = Rig::new();
    let tries: String = NAMES.iter().map(|name| format!("t {name}; t 1/2/3/4/5/{name}; ")).collect();
    let script = format!("{TRY} mkdir -p 1/2/3/4/5 dir; touch f; {tries} touch dir/in 1/plain && ls dir");
    let outcome = rig.sh(2, &script);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "in\n"), "{}", outcome.stderr);
    assert_eq!(found(&rig.work, &NAMES), Vec::<std::path::PathBuf>::new());
}

#[test]
fn what_is_made_in_private_folders_is_the_agents_own() {
    let rig = Rig::new();
    let outcome = rig.sh(2, "touch ~/.bashrc /tmp/.envrc && mkdir ~/.vscode && mv /tmp/.envrc ~/x && echo fine");
    assert_eq!(outcome.stdout, "fine\n", "{}", outcome.stderr);
}

#[test]
fn what_it_has_at_its_standard_streams_opens_by_their_names() {
    let rig = Rig::new();
    // As root the pipes are root's, and the agent has an identity of its own.
    let script = "echo out > /dev/stdout; echo err > /dev/stderr; echo more | tee /dev/stderr; \
        echo again >> /proc/self/fd/1";
    let outcome = rig.sh(2, script);
    assert_eq!(outcome.stdout, "out\nmore\nagain\n", "{}", outcome.stderr);
    // The supervisor's own words may stand between them.
    let said: Vec<&str> = outcome.stderr.lines().filter(|line| matches!(*line, "err" | "more")).collect();
    assert_eq!(said, ["err", "more"], "{}", outcome.stderr);
}

/// Whoever made the name for it must have let go of the file: nobody executes what somebody has open for writing (ETXTBSY). Here,
/// because what makes names must be a process of its own: in one that others fork from, a copy may be left for a moment.
#[test]
fn a_program_that_was_just_written_can_be_executed_at_once() {
    let rig = Rig::new();
    let script = "import os\ntext = open('/bin/true', 'rb').read()\nfor i in range(500):\n  fd = os.open('t', os.O_CREAT | os.O_WRONLY, 0o755)\n  os.write(fd, text); os.close(fd)\n  pid = os.posix_spawn('./t', ['t'], {})\n  assert os.waitpid(pid, 0)[1] == 0\n  os.unlink('t')\nprint('all')";
    let outcome = rig.python(2, script);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "all\n"), "{}", outcome.stderr);
}

#[test]
fn git_works_and_what_stood_at_launch_gets_no_hooks() {
    let rig = Rig::new();
    fs::create_dir_all(rig.work.join("stood/.git/objects")).unwrap();
    let git = "git -c user.name=a -c user.email=a";
    let script = format!(
        "set -e; git init -q own; cd own; echo x > f; git add f; {git} commit -qm m; git config user.x y; \
         echo '#!/bin/sh' > .git/hooks/pre-commit; git checkout -qb b; cd ..; git clone -q own two; \
         cd two; git worktree add -q ../three; cd ../three; {git} commit -q --allow-empty -m n; git log --oneline | wc -l; cd ..; \
         set +e; mkdir stood/.git/hooks && echo LEAK; (echo x > stood/.git/config) && echo LEAK; mv stood/.git away && mkdir away/hooks && echo LEAK; \
         mv -T own/.git stood/.git && echo LEAK; mv stood gone && ln -s own stood && echo LEAK; mv own stood && echo LEAK; \
         mkdir -p stood/.git && mkdir stood/.git/hooks && echo LEAK; true"
    );
    let outcome = rig.sh(2, &script);
    assert_eq!((outcome.code, outcome.stdout.trim()), (0, "2"), "{}", outcome.stderr);
    assert!(rig.work.join("own/.git/hooks/pre-commit").exists());
    assert_eq!(fs::read_dir(rig.work.join("away")).map_or(0, Iterator::count), 1, "only its objects");
}

#[test]
fn a_repository_that_an_agent_closes_before_its_first_name_gets_no_hooks_where_it_is_moved() {
    let rig = Rig::new();
    // Nothing in it is masked, so nothing holds the folder in its place.
    fs::create_dir_all(rig.work.join("stood/.git/objects")).unwrap();
    let script = "chmod 000 stood; touch first; chmod 755 stood; mv stood moved && mkdir moved/.git/hooks && echo LEAK; \
                  chmod 000 moved; mv moved again && echo moved; chmod 755 again && mkdir again/.git/hooks && echo LEAK; true";
    let outcome = rig.sh(2, script);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "moved\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("rule name.standing-repository"), "{}", outcome.stderr);
    let left: Vec<_> =
        fs::read_dir(rig.work.join("again/.git")).unwrap().map(|name| name.unwrap().file_name()).collect();
    assert_eq!(left, ["objects"]);
}

#[test]
fn somebody_who_swaps_links_and_folders_under_running_calls_gets_no_name_through() {
    let rig = Rig::new();
    let script = "
import os, threading
end = threading.Event()
os.makedirs('in/side', exist_ok=True); open('f', 'w').close()
def swap():
    n = 0
    while not end.is_set():
        for target in ('.envrc', 'plain', 'in/.bashrc', '/proc/self/cwd/.mcp.json'):
            try: os.symlink(target, 't%d' % n); os.replace('t%d' % n, 'swap')
            except OSError: pass
            n += 1
        try: os.rename('in', 'x'); os.rename('x', 'in')
        except OSError: pass
swaps = [threading.Thread(target=swap) for _ in range(2)]
[s.start() for s in swaps]
made = 0
for i in range(1500):
    for path in ('swap', 'in/side/../.envrc', 'x/../.envrc'):
        try: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)); made += 1
        except OSError: pass
    try: os.link('f', 'swap/../.envrc')
    except OSError: pass
end.set(); [s.join() for s in swaps]
print('made' if made else 'nothing worked')
";
    let outcome = rig.python(2, script);
    assert_eq!(outcome.stdout, "made\n", "{}", outcome.stderr);
    assert_eq!(found(&rig.work, &[".envrc", ".bashrc", ".mcp.json"]), Vec::<std::path::PathBuf>::new());
}

#[test]
fn programs_that_hide_their_memory_make_names_as_others_do() {
    let rig = Rig::new();
    // PR_SET_DUMPABLE, as ssh-agent and gpg-agent do.
    let script = "import ctypes; ctypes.CDLL(None).prctl(4, 0); open('kept', 'w').close(); print('made')";
    assert_eq!(rig.python(2, script).stdout, "made\n");
    assert!(rig.work.join("kept").exists());
}

#[test]
fn the_mechanism_is_named_and_an_operator_can_keep_to_the_masks() {
    if !needs_root("the_mechanism_is_named_and_an_operator_can_keep_to_the_masks") {
        return;
    }
    let rig = Rig::new();
    let file = rig.agent("keep", "ring: 2\ncommand: [sh, -c, 'touch .envrc; echo $?']\n");
    let operator = rig.dir.path().join("operator.yaml");
    for (line, code, named) in [("", "1\n", true), ("    protect: existing\n", "0\n", false)] {
        let grant = format!("version: 1\nkind: operator\nagents:\n  keep:\n    file: {}\n{line}", file.display());
        fs::write(&operator, grant).unwrap();
        let end = rig.dir.path().join("end.json");
        let words = ["run".as_ref(), "--operator".as_ref(), operator.as_os_str(), file.as_os_str()];
        let outcome = rig.output(words.into_iter().chain(["--status-file".as_ref(), end.as_os_str()]));
        assert_eq!(outcome.stdout, code, "{}", outcome.stderr);
        let status: serde_json::Value = serde_json::from_slice(&fs::read(&end).unwrap()).unwrap();
        let enforced = status["report"]["enforced"].as_array().unwrap();
        let written = enforced.iter().find(|entry| entry["protection"] == "file-write").unwrap();
        let by = written["by"].as_array().unwrap();
        assert_eq!(by.iter().any(|by| by == "seccomp notification"), named, "{written}");
    }
}

#[test]
fn what_a_repository_of_its_own_would_run_is_told_at_the_end_and_a_quiet_one_is_not() {
    let rig = Rig::new();
    let git = "git -c user.name=a -c user.email=a";
    let quiet =
        format!("set -e; git init -q own; cd own; echo x > f; git add f; {git} commit -qm m; git clone -q . ../two");
    let outcome = rig.sh(2, &quiet);
    assert_eq!((outcome.code, outcome.stderr.contains("repository")), (0, false), "{}", outcome.stderr);

    // Begun at another place than where it ends, and with links out of the tree.
    let loud = "set -e; git init -q a; cd a; printf '#!/bin/sh\\ntouch ran' > .git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; \
                git config core.fsmonitor './.git/x'; git config filter.f.clean y; cd ..; mkdir deep; mv a deep/b; \
                git init -q c; rm -rf c/.git/hooks; ln -s /etc c/.git/hooks";
    let file = rig.agent("loud", &format!("ring: 2\n{}command: [sh, -c, {}]\n", effort(), quoted(loud)));
    let end = rig.dir.path().join("end.json");
    let outcome = rig.output(["run".as_ref(), file.as_os_str(), "--status-file".as_ref(), end.as_os_str()]);
    let top = rig.work.canonicalize().unwrap();
    let line = format!(
        "warning: loud: made a repository: {}; hooks: pre-commit; config runs: core.fsmonitor, filter.f.clean. Look before you use git there.",
        top.join("deep/b/.git").display()
    );
    assert!(outcome.stderr.contains(&line), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(&format!("{}; not to be read: hooks (", top.join("c/.git").display())),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("own/.git") && !rig.work.join("deep/b/ran").exists(), "{}", outcome.stderr);
    let status: serde_json::Value = serde_json::from_slice(&fs::read(&end).unwrap()).unwrap();
    let made = status["made"]["made"].as_array().unwrap();
    assert_eq!((made.len(), &made[1]["hooks"][0]), (2, &serde_json::json!("pre-commit")), "{made:?}");
    let audit = rig.output(["audit", "show", "--json"]);
    assert!(audit.stdout.contains("repository.made") && audit.stdout.contains("core.fsmonitor"), "{}", audit.stdout);
}

#[test]
fn what_a_file_denies_is_hidden_where_it_exists_and_cannot_be_made_later() {
    let rig = Rig::new();
    fs::create_dir_all(rig.work.join("a/b/c")).unwrap();
    fs::create_dir_all(rig.work.join("secrets/deep")).unwrap();
    for name in [".env", "a/b/c/.env", "secrets/deep/key", "plain", "a/b/secrets"] {
        fs::write(rig.work.join(name), "hush\n").unwrap();
    }
    std::os::unix::fs::symlink(".env", rig.work.join("link")).unwrap();
    let script = format!(
        "{TRY} mkdir dir; touch f; for d in .env a/b/c/.env link secrets/deep/key; do grep -s hush $d && echo LEAK read $d; \
         (echo x > $d) 2>/dev/null; rm -f $d 2>/dev/null; done; \
         mv .env seen 2>/dev/null && echo LEAK away; ln .env seen 2>/dev/null && echo LEAK linked; mv secrets s 2>/dev/null && echo LEAK folder; \
         t a/.env; t a/b/d/.env; mkdir -p a/b/d; t a/b/d/.env; mkdir -p x/y; echo x > x/y/z; mv x secrets 2>/dev/null && echo LEAK moved; \
         cat plain a/b/secrets; echo y > a/b/fine && ls a/b/fine"
    );
    let file = rig.agent(
        "deny",
        &format!(
            "ring: 2\n{}files: {{deny: [\"**/.env\", \"secrets/*\"]}}\ncommand: [sh, -c, {}]\n",
            effort(),
            quoted(&script)
        ),
    );
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    if outcome.stderr.contains("not enforced: file-read") {
        return crate::support::skip("what_a_file_denies_is_hidden", "no mounts here");
    }
    assert_eq!(outcome.stdout, "hush\nhush\na/b/fine\n", "{}", outcome.stderr);
    for name in [".env", "a/b/c/.env", "secrets/deep/key"] {
        assert_eq!(fs::read_to_string(rig.work.join(name)).unwrap(), "hush\n");
    }
    assert_eq!(found(&rig.work, &[".env"]).len(), 2);

    let why = |path: &str, access: &str| {
        let real = rig.work.canonicalize().unwrap().join(path);
        rig.output(["why".as_ref(), file.as_os_str(), "--path".as_ref(), real.as_os_str(), access.as_ref()])
    };
    for (path, rule) in [("a/.env", "files.deny"), ("a/.envrc", "files.protected"), ("secrets/new", "files.deny")] {
        let told = why(path, "--write");
        assert!(
            told.stdout.contains(rule) && told.stdout.contains("seccomp notification"),
            "{}{}",
            told.stdout,
            told.stderr
        );
    }
    assert!(!why("a/new", "--write").stdout.contains("files.deny"));

    // By another name it is still reached: refused where all is required.
    fs::hard_link(rig.work.join(".env"), rig.work.join("other")).unwrap();
    let required = fs::read_to_string(&file).unwrap().replace(effort(), "");
    fs::write(&file, required).unwrap();
    let outcome = rig.output(["run".as_ref(), file.as_os_str()]);
    assert!(outcome.code != 0 && outcome.stderr.contains(".env: it has another name"), "{}", outcome.stderr);
}
