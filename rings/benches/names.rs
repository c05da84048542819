//! What a call that makes a name costs an agent in R2, where the attendant makes it in the agent's stead, and where nobody asks
//! (`protect: existing`): in real launches that take turns, as root or as an ordinary user.
//!
//! Two kinds of numbers: single calls, timed in a loop of the agent's own with nothing else about, and work as agents do it: `tar`
//! unpacks small files, `git` clones a repository. Medians; last lines `RATIO name=value`, of which `names_create_us` is what an
//! agent waits for a new file beyond what it waited before, in microseconds.

mod timed;

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use agt_rings::host::Controllers;
use agt_rings::launch::{Launcher, become_launcher_if_asked};
use agt_rings::names::Rules;
use agt_rings::plan::Plan;
use agt_rings::spec::Spec;

/// Launches of each kind.
const LAUNCHES: usize = 5;
/// Calls of each kind in one launch.
const CALLS: usize = 500;
/// Files of the archive and of the repository, 50 to a folder.
const FILES: usize = 2000;

/// What is timed, in the order in which the agent prints it.
const SINGLE: [&str; 6] = ["create", "reopen", "folder", "rename", "symlink", "link"];
const WORK: [&str; 2] = ["tar", "clone"];

fn main() {
    become_launcher_if_asked();
    match measure() {
        Ok([free, asked]) => tell(&free, &asked),
        Err(e) => println!("names: not measured: {e}"),
    }
}

/// Medians of one plan: microseconds a call, then milliseconds of each work.
type Medians = Vec<f64>;

fn tell(free: &Medians, asked: &Medians) {
    for (at, name) in SINGLE.iter().chain(&WORK).enumerate().take(free.len()) {
        let unit = if at < SINGLE.len() { "us" } else { "ms" };
        println!(
            "{name:<8} {:>9.1} {unit} where nobody asks, {:>9.1} {unit} where the attendant does",
            free[at], asked[at]
        );
    }
    for (at, name) in SINGLE.iter().enumerate() {
        println!("RATIO names_{name}_us={:.1}", asked[at] - free[at]);
    }
    for (at, name) in
        WORK.iter().enumerate().map(|(at, name)| (at + SINGLE.len(), name)).take(free.len() - SINGLE.len())
    {
        println!("RATIO names_{name}_times={:.2}", asked[at] / free[at]);
    }
}

fn measure() -> Result<[Medians; 2], Box<dyn Error>> {
    let launcher = Launcher::start(Controllers::none("not needed"))?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().canonicalize()?;
    fs::set_permissions(&path, Permissions::from_mode(0o777))?;
    if !calls_alone() {
        material(&path)?;
    }
    let plan = |names| -> Result<Plan, Box<dyn Error>> { Ok(launcher.compile(&spec(&path, names))??) };
    let rules = Rules { roots: vec![path.clone()], workdir: path.clone(), ..Rules::default() };
    let plans = [plan(None)?, plan(Some(rules))?];
    if plans[1].names.is_none() {
        return Err("nobody can answer here".into());
    }
    let numbers = SINGLE.len() + if calls_alone() { 0 } else { WORK.len() };
    timed::in_turns(&launcher, &plans, LAUNCHES, numbers)
}

/// `calls` as an argument leaves the work out, which takes most of the time.
fn calls_alone() -> bool {
    std::env::args().any(|arg| arg == "calls")
}

/// An archive of small files, and a repository of the same.
fn material(folder: &Path) -> Result<(), Box<dyn Error>> {
    let from = folder.join("from");
    for at in 0..FILES {
        let folder = from.join(format!("d{}", at / 50));
        if at % 50 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("file-{at}.txt")), format!("{at}\n").repeat(20))?;
    }
    let did = |program: &str, args: &[&str]| -> Result<(), Box<dyn Error>> {
        let mut command = Command::new(program);
        command.args(args).current_dir(folder).stdout(Stdio::null()).env("HOME", folder);
        if command.status()?.success() { Ok(()) } else { Err(format!("{program} {args:?} failed").into()) }
    };
    did("tar", &["cf", "small.tar", "from"])?;
    let git = |args: &[&str]| {
        did(
            "git",
            &[&["-C", "from", "-c", "user.name=b", "-c", "user.email=b@localhost", "-c", "gc.auto=0"], args].concat(),
        )
    };
    git(&["init", "-q"])?;
    git(&["add", "."])?;
    git(&["commit", "-q", "-m", "files"])
}

/// The agent: prints a number for each of [`SINGLE`] and [`WORK`].
fn script() -> String {
    let work = u8::from(!calls_alone());
    format!(
        "use Time::HiRes 'time'; use Fcntl; my $d = 'run-' . time; mkdir $d or die; chdir $d or die;
         sub each_us {{ my $do = shift; $do->($_) for 1..50; my $s = time; $do->($_) for 1..{CALLS};
                       print +(time - $s) * 1e6 / {CALLS}, \"\\n\" }}
         sub work {{ my $s = time; system(@_) == 0 or die \"@_: $?\"; print +(time - $s) * 1e3, \"\\n\" }}
         $| = 1; my $new = O_WRONLY|O_CREAT|O_EXCL; my $old = O_WRONLY|O_CREAT;
         each_us(sub {{ sysopen(F, 'new', $new, 0644) or die $!; close F; unlink 'new' or die }});
         sysopen(F, 'stands', $new) or die; close F;
         each_us(sub {{ sysopen(F, 'stands', $old, 0644) or die $!; close F }});
         each_us(sub {{ mkdir 'folder' or die $!; rmdir 'folder' or die }});
         each_us(sub {{ rename 'stands', 'moved' or die $!; rename 'moved', 'stands' or die }});
         each_us(sub {{ symlink 'x', 'link' or die $!; unlink 'link' or die }});
         each_us(sub {{ link 'stands', 'second' or die $!; unlink 'second' or die }});
         exit if !{work};
         work('tar', 'xf', '../small.tar');
         work('git', '-c', 'safe.directory=*', 'clone', '-q', '--no-local', '../from', 'cloned');
         chdir '..'; system 'rm', '-rf', $d"
    )
}

fn spec(folder: &Path, names: Option<Rules>) -> Spec {
    let env = [("PATH", OsString::from("/usr/bin:/bin")), ("HOME", folder.into()), ("GIT_CONFIG_NOSYSTEM", "1".into())];
    let env = env.map(|(name, value)| (name.into(), value)).to_vec();
    Spec { env, names, ..timed::spec(&script(), folder) }
}
