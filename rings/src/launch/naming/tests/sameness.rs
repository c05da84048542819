//! What is not refused is as if nobody stood between: the same answers, the same tree.

use std::process::Command;

use proptest::prelude::*;

use super::harness::{acting, attended, has_walls, results, rules, tree};

fn names() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![".", "..", "link", "dangling", "loop", "f/", "a/", "new%0Aline"]).prop_map(str::to_owned),
    ];
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    prop_oneof![
        12 => path,
        1 => Just("//a".to_owned()).prop_map(|_| "a//b".to_owned()),
        1 => Just("x".repeat(255)),
        1 => Just("x".repeat(256)),
        1 => Just(format!("a/{}", "y/".repeat(2100))),
        1 => Just(String::new()),
        1 => Just("/proc/self/cwd/a".to_owned()),
        1 => Just("/proc/thread-self/cwd/b/c".to_owned()),
    ]
}

/// Outside of the folder: opened, and nothing else.
fn opened() -> impl Strategy<Value = String> {
    let outside = prop::sample::select(vec!["/", "/dev/null", "/dev/fd/2", "/proc/self/nothing"]);
    prop_oneof![10 => names(), 1 => outside.prop_map(str::to_owned)]
}

fn flags() -> impl Strategy<Value = i32> {
    let some = vec![
        libc::O_EXCL,
        libc::O_TRUNC,
        libc::O_APPEND,
        libc::O_NOFOLLOW,
        libc::O_CLOEXEC,
        libc::O_DIRECTORY,
        libc::O_NONBLOCK,
        libc::O_PATH,
        libc::O_SYNC,
    ];
    let access = prop::sample::select(vec![libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR]);
    let kind = prop_oneof![6 => Just(libc::O_CREAT), 1 => Just(libc::O_TMPFILE)];
    (access, kind, prop::sample::subsequence(some, 0..3))
        .prop_map(|(access, kind, some)| some.iter().fold(access | kind, |all, flag| all | flag))
}

fn act() -> impl Strategy<Value = String> {
    let mode = || prop::sample::select(vec![0o666, 0o777, 0o600, 0o400, 0, 0o1777]);
    prop_oneof![
        5 => (opened(), flags(), mode()).prop_map(|(path, flags, mode)| format!("open {path} {flags:o} {mode:o}")),
        3 => (names(), mode()).prop_map(|(path, mode)| format!("mkdir {path} {mode:o}")),
        1 => (names(), mode()).prop_map(|(path, mode)| format!("mknod {path} {:o}", libc::S_IFREG | mode)),
        2 => (names(), names()).prop_map(|(target, path)| format!("symlink {target} {path}")),
        2 => (names(), names(), prop::sample::select(vec![0, libc::AT_SYMLINK_FOLLOW])).prop_map(|(old, new, flags)| format!("link {old} {new} {flags:o}")),
        4 => (names(), names(), prop::sample::select(vec![0, 1, 2, 3])).prop_map(|(old, new, flags)| format!("rename {old} {new} {flags:o}")),
        1 => names().prop_map(|path| format!("rmdir {path}")),
        1 => names().prop_map(|path| format!("unlink {path}")),
        1 => prop::sample::select(vec![0o022, 0o077, 0o002, 0o777]).prop_map(|mask| format!("umask {mask:o}")),
        1 => prop::sample::select(vec!["chdir a", "chdir ..", "chdir b"]).prop_map(str::to_owned),
    ]
}

/// A tree to begin with, so that most paths lead somewhere.
fn beginning() -> Vec<String> {
    let acts = [
        "mkdir a 777",
        "mkdir a/b 777",
        "mkdir c 777",
        "open b 101 666",
        "symlink a link",
        "symlink nowhere dangling",
        "symlink loop loop",
    ];
    acts.map(str::to_owned).into()
}

fn compare(acts: &[String]) {
    let tops = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // So deep that no number of `..` leaves the test's own.
    let deep = "deep/".repeat(2 * acts.len() + 8);
    let folders = tops.each_ref().map(|top| top.path().join(&deep));
    folders.iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    let alone = acting(tops[0].path(), &folders[0], acts).output().unwrap();
    let (attended, notices) =
        attended(tops[1].path(), acting(tops[1].path(), &folders[1], acts), rules(tops[1].path()));
    assert_eq!(notices, [], "nothing here is refused");
    let (alone, attended) = (results(&alone), results(&attended));
    assert_eq!(alone.len(), acts.len());
    for (at, act) in acts.iter().enumerate() {
        assert_eq!(alone[at], attended[at], "act {at} of {acts:#?}: {act}");
    }
    assert_eq!(tree(tops[0].path()), tree(tops[1].path()), "{acts:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_creating_calls_gives_the_same_answers_and_the_same_tree(
        acts in prop::collection::vec(act(), 1..32),
    ) {
        if has_walls() {
            compare(&[beginning(), acts].concat());
        }
    }
}

/// The old name's folder is asked for before the new one is looked for.
#[test]
fn a_rename_out_of_a_folder_that_may_not_be_searched_is_answered_as_the_kernel_does() {
    if has_walls() {
        let acts =
            ["mkdir d 600", "rename d/x c/none/a 0", "rename d/x c/a 0", "rename c d/x/y 0", "rename none d/x 0"];
        compare(&[beginning(), acts.map(str::to_owned).into()].concat());
    }
}

fn same_by_shell(script: &str) -> Option<()> {
    let tops = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let command = |at: usize| {
        let mut command = Command::new("/bin/sh");
        command.args(["-ec", script]).current_dir(tops[at].path()).stdin(std::process::Stdio::null());
        let top = tops[at].path();
        // What compilers leave for a moment stays behind the same wall.
        command.env("HOME", top).env("TMPDIR", top).env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C");
        for (who, what) in [("AUTHOR", "a"), ("COMMITTER", "c")] {
            command.env(format!("GIT_{who}_NAME"), what).env(format!("GIT_{who}_EMAIL"), what);
            command.env(format!("GIT_{who}_DATE"), "2020-01-01T00:00:00Z");
        }
        command
    };
    let alone = command(0).output().unwrap();
    if alone.status.code() == Some(127) {
        eprintln!("skipped: {}", String::from_utf8_lossy(&alone.stderr));
        return None;
    }
    let (attended, _) = attended(tops[1].path(), command(1), rules(tops[1].path()));
    let said = |output: &std::process::Output| {
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (alone, attended) = (said(&alone), said(&attended));
    assert_eq!(alone.0, Some(0), "{}", alone.2);
    assert_eq!(alone, attended);
    let named = |at: usize| {
        let own = tops[at].path().to_str().unwrap();
        tree(tops[at].path()).into_iter().map(|(path, what)| (path, what.replace(own, "TOP"))).collect::<Vec<_>>()
    };
    let (one, other) = (named(0), named(1));
    let names = |tree: &[(std::path::PathBuf, String)]| tree.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for ((path, what), (_, other)) in one.iter().zip(&other) {
        // An index holds inode numbers and times, a database its own clock.
        if !path.ends_with("index") && path.extension().is_none_or(|end| end != "db") {
            assert_eq!(what, other, "{}", path.display());
        }
    }
    Some(())
}

#[test]
fn git_makes_repositories_clones_worktrees_and_commits() {
    same_by_shell(
        "git init -q one; cd one; echo x > f; mkdir d; echo y > d/g; ln -s f l; git add .; git commit -qm m; \
         git checkout -qb other; git mv f h; git commit -qm n; git checkout -q -; cd ..; \
         git clone -q one two; cd two; git worktree add -q ../three; cd ../three; echo z > z; git add z; git commit -qm o; \
         git -C ../two merge -q three; rm -r ../two/.git/hooks; git init -q ../two; git init -q --bare ../bare.git; git push -q ../bare.git HEAD:refs/heads/x",
    );
}

#[test]
fn archives_copies_and_compilers_work() {
    same_by_shell(
        "umask 027; mkdir -p s/a/b; echo x > s/a/f; ln s/a/f s/a/hard; ln -s ../f s/a/b/l; mkfifo s/p; chmod 640 s/a/f; \
         tar cf t.tar s; mkdir o; tar xf t.tar -C o; cp -r --preserve=links s c; mv c/a c/z; rm t.tar; \
         echo out > /dev/stdout; echo err > /dev/stderr; echo null > /dev/null; echo fd > /dev/fd/1; echo more >> s/a/f",
    );
    same_by_shell("printf 'int main(void){return 0;}' > m.c; gcc -c m.c -o m.o; gcc m.o -o m; ./m; rm m m.o");
    same_by_shell(
        "sqlite3 x.db 'pragma journal_mode=wal; create table t(a); insert into t values (1); select * from t;'",
    );
}

#[test]
fn storms_of_temporary_files_and_replacements_work() {
    same_by_shell(
        "python3 -c '
import os, tempfile, threading
def work(name):
    for i in range(50):
        fd, path = tempfile.mkstemp(dir=\".\")
        os.write(fd, str(i).encode()); os.close(fd)
        os.replace(path, name)
    with tempfile.TemporaryFile(dir=\".\") as f: f.write(b\"x\")
    with tempfile.TemporaryDirectory(dir=\".\") as d: open(os.path.join(d, \"f\"), \"x\").close()
threads = [threading.Thread(target=work, args=(\"n%d\" % n,)) for n in range(6)]
[t.start() for t in threads]; [t.join() for t in threads]
'",
    );
}

#[test]
fn a_fifo_that_waits_for_its_other_end_holds_up_nobody_else() {
    same_by_shell("mkfifo p; echo through > p & mkdir meanwhile; echo more > meanwhile/f; cat p; wait");
}
