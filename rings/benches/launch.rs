//! Launch cost: the rings as `run` launches them against posix_spawn of /bin/true, interleaved in one run.
//!
//! `cargo bench -p agt-rings --bench launch [-- COUNT]`; the last lines are `RATIO name=value`.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agt_rings::cgroup::{Base, Layout};
use agt_rings::host::{Controllers, Support};
use agt_rings::launch::{Exit, Launcher, Streams, become_launcher_if_asked};
use agt_rings::ring::Ring;
use agt_rings::spec::{Access, Enforcement, FileRule, Limits, Spec, Terminal, User};

type Anything = Box<dyn std::error::Error>;

fn main() -> Result<(), Anything> {
    become_launcher_if_asked();
    let count: usize = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(300);
    let yes = Support::Yes;
    let controllers =
        Controllers { memory: yes.clone(), cpu: yes.clone(), tasks: yes.clone(), kill: yes, layout: "measured".into() };
    let launcher = Launcher::start(controllers)?;
    println!("host: {:?}", launcher.host());
    let layout = Layout::detect()?;
    let base = Base::open(&layout, &format!("bench-{}", std::process::id()), &[launcher.pid().cast_signed()])?;
    let workdir = tempdir()?;
    let mut r2 = Vec::new();
    let mut r3 = Vec::new();
    let mut spawned = Vec::new();
    let plans: Vec<_> = [Ring::R2, Ring::R3]
        .into_iter()
        .map(|ring| launcher.compile(&spec(ring, &workdir)))
        .collect::<Result<Result<Vec<_>, _>, _>>()??;
    let limits = |index: usize| -> Limits { plans[index].limits };
    for round in 0..count + 10 {
        let start = Instant::now();
        let status = Command::new("/bin/true").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        let posix = start.elapsed();
        if !status.success() {
            return Err("/bin/true failed".into());
        }
        let mut timed = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            let group = base.create(&format!("b{round}-{index}"), &limits(index))?;
            let streams = Streams { stdin: null()?, stdout: null()?, stderr: null()? };
            let start = Instant::now();
            let running = launcher.launch(plan, &streams, &group.join()?)?;
            let exit = running.read_exit()?;
            timed.push(start.elapsed());
            if !matches!(exit, Exit::Ended(usage) if usage.status == 0) {
                return Err(format!("the agent ended with {exit:?}").into());
            }
            running.wait_gone(Duration::from_secs(5))?;
            let _ = group.kill(Duration::from_secs(5))?;
            group.remove(Duration::from_secs(5))?;
        }
        if round >= 10 {
            spawned.push(posix);
            r2.push(timed[0]);
            r3.push(timed[1]);
        }
    }
    base.close()?;
    std::fs::remove_dir_all(&workdir)?;
    report("posix_spawn", &mut spawned);
    report("R2", &mut r2);
    report("R3", &mut r3);
    let ratio = |times: &[Duration], q: usize| {
        times[times.len() * q / 100].as_secs_f64() / spawned[spawned.len() * q / 100].as_secs_f64()
    };
    println!("RATIO r2_real_p50={:.2}", ratio(&r2, 50));
    println!("RATIO r2_real_p95={:.2}", ratio(&r2, 95));
    println!("RATIO r3_real_p50={:.2}", ratio(&r3, 50));
    println!("RATIO r3_real_p95={:.2}", ratio(&r3, 95));
    Ok(())
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |q: usize| times[times.len() * q / 100];
    println!("{name}: p50 {:?} p95 {:?} min {:?}", at(50), at(95), times[0]);
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

fn tempdir() -> std::io::Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("agt-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    dir.canonicalize()
}

fn spec(ring: Ring, workdir: &std::path::Path) -> Spec {
    Spec {
        name: "bench".to_owned(),
        ring,
        enforcement: Enforcement::Required,
        program: PathBuf::from("/usr/bin/true"),
        argv: vec![OsString::from("true")],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        workdir: workdir.to_owned(),
        files: vec![FileRule { path: workdir.to_owned(), access: Access::Write }],
        as_owner: Vec::new(),
        protect: Vec::new(),
        gaps: Vec::new(),
        sockets: Vec::new(),
        hide: Vec::new(),
        listen: vec![],
        limits: agt_rings::builtin::definition(ring).limits,
        user: User::Own,
        own_id: agt_rings::builtin::OWN_ID_BASE + 7,
        capabilities: agt_rings::capability::Capabilities::NONE,
        open_files: None,
        terminal: Terminal::None,
        check: None,
    }
}
