//! The filters in the running kernel: what it answers under them, and whether ordinary programs still work.
//!
//! A small C program, compiled by the test, is launcher and attacker: no unsafe code is needed here, and the filters
//! are loaded exactly as a launch does it, by seccomp(2) right before one `execveat`.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::super::policy::{Decision, Rule};
use super::*;

/// A folder with the shim and one ring's filters.
struct Bench {
    folder: tempfile::TempDir,
    options: Options,
}

impl Bench {
    fn new(ring: Ring) -> Bench {
        Bench::with(ring, Options::new(ring, COOKIE).unwrap())
    }

    fn with(ring: Ring, options: Options) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("shim.c"), include_str!("shim.c")).unwrap();
        let built = Command::new("cc").args(["-O1", "-o", "shim", "shim.c"]).current_dir(&folder).output();
        let built = built.expect("the tests need a C compiler (cc)");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut file = fs::File::create(folder.path().join("filters")).unwrap();
        for program in Filters::for_ring(ring, &options).unwrap().programs() {
            let words = Vec::<u64>::from(program.clone());
            file.write_all(&u32::try_from(words.len()).unwrap().to_ne_bytes()).unwrap();
            for word in words {
                file.write_all(&word.to_ne_bytes()).unwrap();
            }
        }
        fs::create_dir(folder.path().join("home")).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        Bench { folder, options }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command that starts `program` under the filters, in a folder of its own, with an own HOME.
    fn confined(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("shim"));
        command.arg("confine").arg(self.path("filters")).arg(EXEC_FD.to_string());
        command.arg(format!("{:#x}", self.options.exec_cookie.secret()));
        command.arg(program).arg(program).args(args);
        command.current_dir(self.path("work")).env("HOME", self.path("home")).env("TMPDIR", self.path("work"));
        command
    }

    /// Makes calls under the filters; gives the errno of each, 0 for those that worked.
    fn calls(&self, calls: &[String]) -> Vec<i32> {
        let args: Vec<&str> = ["call"].into_iter().chain(calls.iter().map(String::as_str)).collect();
        let output = self.confined(&self.path("shim"), &args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect()
    }

    fn call(&self, name: &str, args: &str) -> i32 {
        let number = self.options.arch.number(name).unwrap();
        self.calls(&[format!("{number},{args}")])[0]
    }

    fn succeeds(&self, program: &Path, args: &[&str]) -> String {
        let output = self.confined(program, args).output().unwrap();
        assert!(output.status.success(), "{} {args:?}: {}", program.display(), told(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{} {} {}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A test that can't run here says so; with AGT_FORBID_SKIP set (CI) that is a failure.
fn skip(why: &str) {
    assert!(std::env::var_os("AGT_FORBID_SKIP").is_none(), "skipped, and skips are forbidden: {why}");
    eprintln!("SKIPPED: {why}");
}

/// The program itself: PATH may name a shim script, which a confined launch can't start.
fn interpreter(name: &str, question: &[&str]) -> Option<PathBuf> {
    let answer = Command::new(name).args(question).output().ok().filter(|output| output.status.success());
    let path = answer.and_then(|output| fs::canonicalize(String::from_utf8(output.stdout).ok()?.trim()).ok());
    if path.is_none() {
        skip(&format!("{name} is not installed"));
    }
    path
}

fn python() -> Option<PathBuf> {
    interpreter("python3", &["-c", "import sys; print(sys.executable)"])
}

fn node() -> Option<PathBuf> {
    interpreter("node", &["-p", "process.execPath"])
}

fn program(name: &str) -> Option<PathBuf> {
    interpreter("sh", &["-c", &format!("command -v {name}")])
}

/// An answer of the kernel.
const EPERM: i32 = libc::EPERM;

#[test]
fn kernel_refuses_every_call_that_the_policy_refuses() {
    for ring in Ring::ALL {
        let bench = Bench::new(ring);
        let policy = builtin::policy(ring, &bench.options);
        // All arguments -1: no descriptor, no address, no flags that exist. Should a filter leak, nothing happens.
        let refused: Vec<_> = policy
            .rules
            .iter()
            .filter_map(|(number, rule)| match rule {
                Rule::Always(decision @ Decision::Refuse(_)) => Some((*number, *decision)),
                Rule::Always(Decision::Allow | Decision::Notify(_)) | Rule::Checked(_) => None,
            })
            .chain([337u32, 423, 470, 1000, 0x4000_0027].map(|number| (number, policy.unknown)))
            .collect();
        let calls: Vec<_> = refused.iter().map(|(number, _)| format!("{number},-1,-1,-1,-1,-1,-1")).collect();
        for ((number, decision), errno) in refused.into_iter().zip(bench.calls(&calls)) {
            let name = bench.options.arch.name(number).unwrap_or("?");
            assert_eq!(Verdict::Errno(errno as u16), Verdict::from(decision), "{ring} {number} {name}");
        }
    }
}

#[test]
fn kernel_looks_at_arguments_as_the_policy_does() {
    let eperm_from_one_on = [0, EPERM, EPERM, EPERM];
    // name, arguments, errno in R0 to R3. 0 = it worked: so the refusals are the filter's and nobody else's.
    let cases = [
        ("fchmodat", "-100,/proc/self/cwd/file,04755", eperm_from_one_on),
        ("fchmodat", "-100,/proc/self/cwd/file,02755", eperm_from_one_on),
        ("fchmodat", "-100,/proc/self/cwd/file,0755", [0; 4]),
        ("openat", "-100,/proc/self/cwd/new,0101,04755", eperm_from_one_on),
        ("openat", "-100,/proc/self/cwd/new,0101,0755", [0; 4]),
        ("mknodat", "-100,/proc/self/cwd/fifo,010644", [0, 0, 0, EPERM]),
        ("mknodat", "-100,/proc/self/cwd/suid,0104755", eperm_from_one_on),
        ("socket", "1,1,0", [0; 4]),
        ("socket", "2,1,0", [0, 0, 0, EPERM]),
        ("socket", "0x100000002,2,17", [0, 0, 0, EPERM]),
        ("socket", "16,3,0", [0, 0, 0, EPERM]),
        ("socket", "16,3,15", eperm_from_one_on),
        ("socketpair", "1,2,0,p", [0; 4]),
        ("personality", "0xffffffff", [0; 4]),
        ("personality", "0x0040000", eperm_from_one_on),
        ("prlimit64", "0,7,0,p", [0; 4]),
        ("memfd_create", "/x,1", [0, 0, EPERM, EPERM]),
        ("memfd_create", "/x,9", [0, 0, 0, EPERM]),
        ("prctl", "16,p", [0; 4]),
        ("prctl", "59,0", [0, 0, EPERM, EPERM]),
        ("ioctl", "-1,0x5412,p", [EPERM; 4]),
        ("ioctl", "-1,0x100005412,p", [EPERM; 4]),
        ("ioctl", "-1,0x5423,p", [libc::EBADF, EPERM, EPERM, EPERM]),
        ("ioctl", "-1,0x5413,p", [libc::EBADF; 4]),
        // CLONE_THREAD without CLONE_SIGHAND is invalid: the kernel says so where the filter lets it through.
        ("clone", "0x10000", [libc::EINVAL; 4]),
        ("clone", "0x10010000", [libc::EINVAL, EPERM, EPERM, EPERM]),
        // An absolute path makes the kernel ignore the descriptor. The file isn't there, so a leak starts nothing.
        ("execveat", "4095,/nowhere/program,p,p,0x1000", [libc::ENOENT, libc::ENOENT, EPERM, EPERM]),
        ("execveat", "-100,/nowhere/program,p,p,0", [libc::ENOENT, libc::ENOENT, libc::ENOENT, EPERM]),
        ("execve", "/nowhere/program,p,p", [libc::ENOENT, libc::ENOENT, libc::ENOENT, EPERM]),
    ];
    for (at, ring) in Ring::ALL.into_iter().enumerate() {
        let bench = Bench::new(ring);
        for (name, args, expected) in cases {
            fs::write(bench.path("work/file"), "").unwrap();
            assert_eq!(bench.call(name, args), expected[at], "{ring} {name}({args})");
            for made in ["new", "fifo", "suid"] {
                let _ = fs::remove_file(bench.path("work").join(made));
            }
        }
    }
}

#[test]
fn kernel_drops_setuid_and_setgid_from_mkdir_by_itself() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new(Ring::R2);
    assert_eq!(bench.call("mkdirat", "-100,/proc/self/cwd/made,06777"), 0);
    let mode = fs::metadata(bench.path("work/made")).unwrap().permissions().mode();
    assert_eq!(mode & 0o6000, 0, "{mode:o}");
}

#[test]
fn with_pairs_alone_no_socket_has_a_name() {
    let options = Options { sockets: Sockets::UnixPairs, ..Options::new(Ring::R2, COOKIE).unwrap() };
    let bench = Bench::with(Ring::R2, options);
    for (name, args, errno) in [
        ("socket", "1,1,0", EPERM),
        ("socketpair", "1,1,0,p", 0),
        ("socketpair", "1,2,0,p", EPERM),
        ("connect", "-1,p,2", EPERM),
        ("bind", "-1,p,2", EPERM),
        ("sendto", "-1,p,1,0,0,0", libc::EBADF),
    ] {
        assert_eq!(bench.call(name, args), errno, "{name}({args})");
    }
}

#[test]
fn a_call_by_the_32_bit_entry_kills_in_every_ring() {
    let bench = Bench::new(Ring::R0);
    let control = Command::new(bench.path("shim")).arg("int80").output().unwrap();
    if control.stdout != b"came back\n" {
        return skip("this kernel has no 32-bit entry");
    }
    for ring in Ring::ALL {
        let bench = Bench::new(ring);
        let output = bench.confined(&bench.path("shim"), &["int80"]).output().unwrap();
        assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{ring}: {}", told(&output));
    }
}

#[test]
fn shells_run_pipelines_in_ring_two() {
    let bench = Bench::new(Ring::R2);
    let sh = program("sh").expect("there is a shell");
    let script = "seq 1 100 | sort -r | head -1; (cd / && pwd); f=$(mktemp) && echo x > $f && cp -p $f copy && \
                  tar cf a.tar copy && mkdir -p out && tar xf a.tar -C out && cat out/copy; ulimit -n; \
                  mkfifo p && (echo through > p &) && cat p; kill -0 $$; nice -n 5 true; date +%Y >&2";
    let told = bench.succeeds(&sh, &["-euc", script]);
    assert!(told.starts_with("99\n/\nx\n") && told.contains("through"), "{told}");
}

#[test]
fn git_commits_and_clones_in_ring_two() {
    let Some(git) = program("git") else { return };
    let bench = Bench::new(Ring::R2);
    bench.succeeds(&git, &["init", "-q", "repo"]);
    fs::write(bench.path("work/repo/file"), "text\n").unwrap();
    bench.succeeds(&git, &["-C", "repo", "add", "file"]);
    let who = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
    bench.succeeds(&git, &[&["-C", "repo"], &who[..], &["commit", "-q", "-m", "first"]].concat());
    bench.succeeds(&git, &["clone", "-q", "repo", "copy"]);
    bench.succeeds(&git, &["-C", "copy", "gc", "-q"]);
    assert_eq!(bench.succeeds(&git, &["-C", "copy", "log", "--format=%s"]), "first\n");
}

#[test]
fn python_with_threads_processes_sockets_and_sqlite_works_in_ring_two() {
    let Some(python) = python() else { return };
    let bench = Bench::new(Ring::R2);
    let script = r#"
import asyncio, concurrent.futures, multiprocessing, os, shutil, socket, sqlite3, ssl, subprocess, tempfile

with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert sum(pool.map(lambda x: x * x, range(10))) == 285
db = sqlite3.connect("data.db")
db.execute("pragma journal_mode=wal")
db.execute("create table t (a)")
db.execute("insert into t values (1)")
db.commit()
assert subprocess.run(["sh", "-c", "echo out; exit 3"], capture_output=True).returncode == 3
assert subprocess.check_output("echo a | tr a b", shell=True) == b"b\n"
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].sendall(b"hi")
assert client.recv(2) == b"hi"
assert socket.getaddrinfo("127.0.0.1", 80)
async def main():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0
    await asyncio.sleep(0.001)
asyncio.run(main())
with multiprocessing.Pool(2) as pool:
    assert pool.map(abs, [-1, -2]) == [1, 2]
with tempfile.TemporaryDirectory() as d:
    os.mkdir(d + "/tree")
    shutil.copy2("data.db", d + "/tree")
    shutil.copytree(d + "/tree", d + "/copy")
os.setpriority(os.PRIO_PROCESS, 0, 5)
print("done")
"#;
    assert_eq!(bench.succeeds(&python, &["-c", script]), "done\n");
}

#[test]
fn node_with_workers_children_and_a_server_works_in_ring_two() {
    let Some(node) = node() else { return };
    let bench = Bench::new(Ring::R2);
    let script = r#"
const { Worker } = require('worker_threads'), http = require('http'), fs = require('fs');
const { execFileSync, spawn } = require('child_process');
(async () => {
  const answer = await new Promise((ok, no) => {
    const w = new Worker("require('worker_threads').parentPort.postMessage(42)", { eval: true });
    w.on('message', ok); w.on('error', no);
  });
  fs.writeFileSync('file', 'x'); fs.cpSync('file', 'copy'); await fs.promises.chmod('copy', 0o755);
  const watcher = fs.watch('.'); watcher.close();
  if (execFileSync('sh', ['-c', 'echo hi']).toString() !== 'hi\n') throw new Error('child');
  await new Promise(ok => spawn('true', { stdio: 'inherit' }).on('exit', ok));
  const server = http.createServer((q, a) => a.end('ok')).listen(0, '127.0.0.1');
  await new Promise(ok => server.on('listening', ok));
  const text = await (await fetch('http://127.0.0.1:' + server.address().port)).text();
  server.close();
  console.log(answer, text, require('os').networkInterfaces() !== null, require('os').cpus().length > 0);
  process.exit(0);
})();
"#;
    assert_eq!(bench.succeeds(&node, &["-e", script]), "42 ok true true\n");
}

#[test]
fn compilers_work_in_ring_two() {
    let Some(cc) = program("cc") else { return };
    let bench = Bench::new(Ring::R2);
    fs::write(bench.path("work/a.c"), "#include <stdio.h>\nint main(void) { puts(\"compiled\"); }\n").unwrap();
    bench.succeeds(&cc, &["-O2", "-g", "-o", "a", "a.c"]);
    assert_eq!(bench.succeeds(&bench.path("work/a"), &[]), "compiled\n");
}

#[test]
fn package_managers_work_in_ring_two() {
    let bench = Bench::new(Ring::R2);
    if let Some(python) = python() {
        bench.succeeds(&python, &["-m", "venv", "--without-pip", "venv"]);
        bench.succeeds(&bench.path("work/venv/bin/python"), &["-c", "import sys; assert sys.prefix.endswith('venv')"]);
        let pip = Command::new(&python).args(["-m", "pip", "--version"]).output().unwrap();
        if pip.status.success() {
            assert!(bench.succeeds(&python, &["-m", "pip", "list", "--disable-pip-version-check"]).contains("pip"));
        } else {
            skip("pip is not installed");
        }
    }
    let Some(sh) = program("npm").and_then(|_| program("sh")) else { return };
    fs::create_dir(bench.path("work/npm")).unwrap();
    fs::write(bench.path("work/npm/package.json"), r#"{"name":"thing","version":"1.0.0","scripts":{"x":"echo ran"}}"#)
        .unwrap();
    let script = "cd npm && npm run -s x && npm pack --silent --offline && mkdir ../user && cd ../user && \
                  npm init -y >/dev/null && npm install --silent --offline --no-audit ../npm/thing-1.0.0.tgz && \
                  ls node_modules";
    let told = bench.succeeds(&sh, &["-euc", script]);
    assert!(told.contains("ran") && told.contains("thing"), "{told}");
}

#[test]
fn node_and_python_with_threads_work_in_ring_three_and_start_nothing() {
    let bench = Bench::new(Ring::R3);
    if let Some(python) = python() {
        let script = r#"
import asyncio, os, subprocess, threading, time, tempfile
t = threading.Thread(target=time.sleep, args=(0.001,)); t.start(); t.join()
asyncio.run(asyncio.sleep(0.001))
tempfile.TemporaryFile().write(b"x")
for attempt in (lambda: os.fork(), lambda: subprocess.run(["true"]), lambda: os.execv("/bin/true", ["true"])):
    try:
        attempt(); print("started")
    except PermissionError:
        print("refused")
"#;
        assert_eq!(bench.succeeds(&python, &["-c", script]), "refused\nrefused\nrefused\n");
    }
    if let Some(node) = node() {
        let script = r#"
const { Worker } = require('worker_threads'), fs = require('fs');
fs.writeFileSync('file', 'x');
new Worker("require('worker_threads').parentPort.postMessage(42)", { eval: true }).on('message', m => {
  const { error } = require('child_process').spawnSync('true');
  console.log(m, error.code); process.exit(0);
});
"#;
        assert_eq!(bench.succeeds(&node, &["-e", script]), "42 EPERM\n");
    }
}

#[test]
fn nobody_repeats_the_launch_from_inside_ring_three() {
    // The second program asks for what the first was started with, but for the secret.
    let bench = Bench::new(Ring::R3);
    let number = bench.options.arch.number("execveat").unwrap();
    let again = format!("{number},{EXEC_FD},/proc/self/exe,p,p,0x1000,{}", COOKIE.secret() ^ 1);
    assert_eq!(bench.calls(&[again]), [EPERM]);
    // With the secret the kernel would do it, descriptor or not: this is what the secret is for.
    let with = format!("{number},{EXEC_FD},/nowhere/program,p,p,0x1000,{}", COOKIE.secret());
    assert_eq!(bench.calls(&[with]), [libc::ENOENT]);
}
