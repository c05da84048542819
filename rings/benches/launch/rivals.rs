//! Other ways to start /bin/true: posix_spawn, and sandboxes with every namespace that they offer.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Anything;

/// The sandboxes that are here: name, and the command that runs /usr/bin/true in them.
pub(crate) fn found() -> Vec<(&'static str, Vec<String>)> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let all = [
        (
            "bwrap",
            "BWRAP",
            "/usr/bin/bwrap",
            words(
                "--unshare-all --die-with-parent --new-session --ro-bind /usr /usr --symlink usr/lib /lib \
                 --symlink usr/lib64 /lib64 --symlink usr/bin /bin --proc /proc --dev /dev --tmpfs /tmp --dir /run \
                 --clearenv --uid 65534 --gid 65534 -- /usr/bin/true",
            ),
        ),
        (
            "nsjail",
            "NSJAIL",
            "/usr/bin/nsjail",
            words(
                "-Mo --really_quiet --user 65534 --group 65534 -R /usr -s usr/lib:/lib -s usr/lib64:/lib64 -s usr/bin:/bin \
                 -T /tmp -R /dev/null -R /dev/urandom -- /usr/bin/true",
            ),
        ),
    ];
    all.into_iter()
        .filter_map(|(name, variable, usual, arguments)| {
            let program = std::env::var(variable).unwrap_or_else(|_| usual.to_owned());
            let mut command = vec![program];
            command.extend(arguments);
            let works = PathBuf::from(&command[0]).exists() && spawned(&command).is_ok();
            if !works {
                println!("{name}: not here (set {variable} to its path)");
            }
            works.then_some((name, command))
        })
        .collect()
}

/// How long a command takes from posix_spawn to its exit.
pub(crate) fn spawned(command: &[String]) -> Result<Duration, Anything> {
    let start = Instant::now();
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { Err(format!("{} failed: {status}", command[0]).into()) }
}
