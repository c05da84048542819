//! Processes that the bench starts: their addresses, what they cost, and their end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Anything;
use super::orders::{Order, Report};

/// Clock ticks of /proc/PID/stat in a second: what every Linux says (USER_HZ).
const TICKS: f64 = 100.0;

/// A process with all that it starts. Dropped, it is killed with them.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it in a process group of its own.
    pub(crate) fn start(command: &mut Command) -> Result<Process, Anything> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.process_group(0).spawn().map_err(|error| format!("{name}: {error}"))?;
        Ok(Process { child })
    }

    /// Itself and those below it.
    fn pids(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = all.get(at) {
            all.extend(children_of(*pid));
            at += 1;
        }
        all
    }

    /// CPU time of all of them so far, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.pids().into_iter().map(cpu).sum()
    }

    /// Memory of all of them: what is resident, and their share in it (PSS), in KiB.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let of = |pid: &u32, what| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(what).map(str::to_owned));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or_default()
        };
        let pids = self.pids();
        (pids.iter().map(|pid| of(pid, "Rss:")).sum(), pids.iter().map(|pid| of(pid, "Pss:")).sum())
    }

    /// Waits until something listens there.
    pub(crate) fn listens(&mut self, at: SocketAddr, within: Duration) -> Result<(), Anything> {
        let begun = Instant::now();
        while TcpStream::connect(at).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("it ended: {status}").into());
            }
            if begun.elapsed() > within {
                return Err(format!("nothing listens at {at} after {within:?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Those below first: one that is orphaned is found no more.
        let below = self.pids().split_off(1);
        let _ = self.child.kill();
        for pid in below {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let _ = self.child.wait();
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks.map(of).flat_map(|text| text.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect()
}

fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name, which may hold anything: state is field 3, user and system time are 14 and 15.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).flat_map(str::parse::<f64>).sum::<f64>() / TICKS
}

/// This program in another role.
pub(crate) struct Role {
    pub(crate) process: Process,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Role {
    /// Starts it with as many descriptors as it may have.
    pub(crate) fn start(role: &str, plan: &impl Serialize) -> Result<Role, Anything> {
        let plan = serde_json::to_string(plan)?;
        let program = std::env::current_exe()?;
        let raised = "ulimit -n \"$(ulimit -Hn)\" && exec \"$0\" \"$@\"";
        let arguments = [OsStr::new("-c"), raised.as_ref(), program.as_os_str(), role.as_ref(), plan.as_ref()];
        let mut command = Command::new("sh");
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let stdin = process.child.stdin.take().ok_or("no pipe to it")?;
        let stdout = BufReader::new(process.child.stdout.take().ok_or("no pipe from it")?);
        Ok(Role { process, stdin, stdout })
    }

    /// The next thing that it says.
    pub(crate) fn says<T: DeserializeOwned>(&mut self) -> Result<T, Anything> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("a process of the bench ended".into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Gives it an order and waits for what came of it.
    pub(crate) fn order(&mut self, order: &Order) -> Result<Report, Anything> {
        let mut line = serde_json::to_string(order)?;
        line.push('\n');
        self.stdin.write_all(line.as_bytes())?;
        self.says()
    }
}
