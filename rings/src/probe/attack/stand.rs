//! The attacker's own process, and the parts that are no attacks: victims and neighbours that hold a secret and wait.

use std::io::{Read, Write};

use super::{Got, MARK, Stopped, all};
use crate::probe::scene::{Scene, Victim};
use crate::probe::wire;

/// Prints the line of a success: what a second program would do.
pub(in crate::probe) const SAY_OK: &str = "say-ok";
/// Holds a secret in memory and environment until its input ends.
pub(in crate::probe) const VICTIM: &str = "victim";
/// Holds a secret in HOME until its input ends.
pub(in crate::probe) const NEIGHBOUR: &str = "neighbour";

/// A health check that takes its time.
pub(in crate::probe) const CHECKED: &str = "checked";

/// Makes a user namespace.
pub(in crate::probe) const USER_NAMESPACE: &str = "user-namespace";

/// After this many seconds a health check is ended by a signal, if nobody has ended it before.
const CHECKED_SECONDS_MAX: u32 = 120;

/// Plays the part `name` and returns the exit code.
pub(in crate::probe) fn play(name: &str, scene: Option<&str>) -> i32 {
    let part = match name {
        SAY_OK => Ok(Got::Ok),
        VICTIM => victim(),
        NEIGHBOUR => neighbour(),
        CHECKED => checked(),
        USER_NAMESPACE => {
            let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
            Ok(Got::from(made.map_err(Stopped::from)))
        }
        _ => attack(name, scene),
    };
    match part {
        Ok(got) => i32::from(say(&wire::line(&got)).is_err()),
        Err(e) => {
            eprintln!("agt-probe-attack {name}: {e}");
            70
        }
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn attack(name: &str, scene: Option<&str>) -> std::io::Result<Got> {
    let unknown = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "no such attack");
    let attack = all().find(|attack| attack.name == name).ok_or_else(unknown)?;
    let scene: Scene = serde_json::from_str(scene.ok_or_else(unknown)?)?;
    nix::unistd::alarm::set(scene.seconds);
    Ok(Got::from((attack.act)(&scene)))
}

fn wait_for_end() -> std::io::Result<()> {
    let mut rest = Vec::new();
    std::io::stdin().lock().take(1).read_to_end(&mut rest).map(drop)
}

fn victim() -> std::io::Result<Got> {
    // Yama lets a process be traced by its ancestors only, unless it says otherwise.
    const PR_SET_PTRACER: libc::c_int = 0x5961_6d61;
    let _without_yama = crate::sys::process::prctl(PR_SET_PTRACER, libc::c_ulong::MAX, 0);
    let secret = MARK.as_bytes().to_vec();
    let victim = Victim { pid: nix::unistd::getpid().as_raw(), address: secret.as_ptr() as usize };
    say(&serde_json::to_string(&victim)?)?;
    wait_for_end()?;
    Ok(if std::hint::black_box(secret).is_empty() { Got::from(Err(Stopped::Nothing(String::new()))) } else { Got::Ok })
}

/// Until whoever started it has ended.
fn checked() -> std::io::Result<Got> {
    nix::unistd::alarm::set(CHECKED_SECONDS_MAX);
    loop {
        nix::unistd::pause();
    }
}

fn neighbour() -> std::io::Result<Got> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    // A ring without a HOME of its own has no secret there either: the control shows it.
    if let Err(e) = std::fs::write(std::path::Path::new(&home).join("secret"), MARK) {
        eprintln!("no secret in HOME: {e}");
    }
    say(&wire::line(&Got::Ok))?;
    wait_for_end()?;
    Ok(Got::Ok)
}
