//! `top`: what the agents use, again and again on a terminal, once anywhere else.
//!
//! Rates need two looks: the supervisor keeps counts and no history, so the difference is made here. On a terminal the screen is the
//! alternate one, so that what stood there before is there again afterwards; in a pipe, with `--json`, NO_COLOR or a dumb terminal
//! one look is printed, without a single escape code.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use agt_rings::cgroup::Usage;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Failure, Outcome, client_runtime, dirs, limits, print, show, used};
use crate::cli::Global;
use crate::control::client;
use crate::control::protocol::{AGENTS, Agents};
use crate::driver::status::AgentStatus;
use crate::exit;

/// The shortest and the longest time between two looks.
const INTERVAL: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(60);
/// To the alternate screen, cursor off; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// `top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// Between two looks: 200ms to 60s
    #[arg(long, short = 'i', value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let span = crate::config::units::Span::parse(text).map_err(|e| format!("{}; {}", e.message, e.instead))?;
    if INTERVAL.contains(&span.0) { Ok(span.0) } else { Err("expected 200ms to 60s".to_owned()) }
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
struct Rate {
    /// CPUs used.
    cpu_cores: Option<f64>,
    /// Share of CPU periods in which its limit held it back, 0 to 1.
    throttled_ratio: Option<f64>,
    read_bytes_per_second: Option<f64>,
    written_bytes_per_second: Option<f64>,
}

impl Rate {
    /// From two looks at one life.
    #[expect(clippy::cast_precision_loss, reason = "differences over at most a minute")]
    fn between(before: &Usage, now: &Usage, passed: Duration) -> Rate {
        let more = |before: Option<u64>, now: Option<u64>| Some(now?.checked_sub(before?)? as f64);
        let seconds = passed.as_secs_f64().max(0.001);
        let periods = more(before.cpu_periods, now.cpu_periods).filter(|periods| *periods > 0.0);
        let throttled = more(before.cpu_throttled_periods, now.cpu_throttled_periods);
        let io = |get: fn(&agt_rings::cgroup::Io) -> u64| {
            more(before.io.as_ref().map(get), now.io.as_ref().map(get)).map(|bytes| bytes / seconds)
        };
        Rate {
            cpu_cores: more(before.cpu_usec, now.cpu_usec).map(|usec| usec / 1e6 / seconds),
            throttled_ratio: periods.and_then(|periods| Some((throttled? / periods).min(1.0))),
            read_bytes_per_second: io(|io| io.read_bytes),
            written_bytes_per_second: io(|io| io.written_bytes),
        }
    }
}

/// One look.
struct Look {
    at: Instant,
    agents: Agents,
}

impl Look {
    async fn take(socket: &Path) -> Result<Look, Failure> {
        let agents = client::get(socket, AGENTS).await?;
        Ok(Look { at: Instant::now(), agents })
    }

    /// The rates of those that were there, in the same life, at the look before.
    fn rates(&self, before: &Look) -> BTreeMap<&str, Rate> {
        let passed = self.at.duration_since(before.at);
        let rate = |agent: &AgentStatus| {
            let earlier =
                before.agents.agents.iter().find(|other| other.name == agent.name && other.life == agent.life)?;
            Some(Rate::between(earlier.usage.as_ref()?, agent.usage.as_ref()?, passed))
        };
        self.agents.agents.iter().filter_map(|agent| Some((agent.name.as_str(), rate(agent)?))).collect()
    }
}

/// Performs `top`.
///
/// # Errors
/// No supervisor.
pub fn top(global: &Global, args: &TopArgs) -> Outcome {
    let socket = dirs(global)?.operator_socket();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let live = !global.json && !plain && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let runtime = client_runtime()?;
    let code = if live {
        runtime.block_on(watch(&socket, args.interval))
    } else {
        runtime.block_on(once(&socket, args.interval, global.json))
    };
    runtime.shutdown_background();
    code
}

async fn once(socket: &Path, interval: Duration, json: bool) -> Outcome {
    let before = Look::take(socket).await?;
    tokio::time::sleep(interval).await;
    let now = Look::take(socket).await?;
    let rates = now.rates(&before);
    if json {
        let mut value = serde_json::to_value(&now.agents).map_err(|e| Failure::of(exit::BUG, &e))?;
        value["rates"] = serde_json::to_value(&rates).map_err(|e| Failure::of(exit::BUG, &e))?;
        value["interval_s"] = now.at.duration_since(before.at).as_secs_f64().into();
        show::json(&value)?;
    } else {
        print(&page(&now.agents, &rates).join("\n"));
        print("\n");
    }
    Ok(0)
}

/// Draws until a key (`q`), a signal, or the supervisor's end.
async fn watch(socket: &Path, interval: Duration) -> Outcome {
    let mut before = Look::take(socket).await?;
    let quiet = signals()?;
    let _screen = Screen::enter().map_err(|e| Failure::of(exit::CANT_CREATE, &e))?;
    let mut keys = keys();
    let mut quit = std::pin::pin!(quiet);
    // What needs no second look is there at once.
    draw(&page(&before.agents, &BTreeMap::new()));
    loop {
        let wait = async {
            // Whoever can't type can still send a signal.
            while let Some(key) = keys.recv().await {
                if matches!(key, b'q' | b'Q' | 4 | 27) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = &mut quit => return Ok(0),
            () = wait => return Ok(0),
            () = tokio::time::sleep(interval) => {}
        }
        let now = Look::take(socket).await?;
        draw(&page(&now.agents, &now.rates(&before)));
        before = now;
    }
}

/// Any signal that ends us, so that the screen is put back first.
fn signals() -> Result<impl Future<Output = ()>, Failure> {
    let heard = |kind| signal(kind).map_err(|e| Failure::of(exit::BUG, &e));
    let (mut int, mut term) = (heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?);
    let mut hup = heard(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    })
}

/// Keys, one by one. The thread sleeps in read(2) until the process ends.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel(16);
    let read = move || {
        for key in std::io::stdin().lock().bytes() {
            if key.is_err() || key.is_ok_and(|key| sender.blocking_send(key).is_err()) {
                return;
            }
        }
    };
    // Without it there are no keys, and signals still end us.
    let _ = std::thread::Builder::new().name("agt-keys".to_owned()).spawn(read);
    keys
}

/// The alternate screen, and keys without a line's end; dropping it puts both back.
struct Screen {
    before: Termios,
}

impl Screen {
    fn enter() -> std::io::Result<Screen> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut modes = before.clone();
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &modes)?;
        print(ENTER);
        Ok(Screen { before })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print(LEAVE);
        // A terminal that went away needs no modes.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before);
    }
}

/// From the upper left corner on, no line longer and no more of them than the terminal has.
fn draw(lines: &[String]) {
    // A terminal that was never told its size says 0.
    let size = tcgetwinsize(rustix::stdio::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (rows, columns) = size.map_or((24, 80), |size| (usize::from(size.ws_row), usize::from(size.ws_col)));
    let mut text = "\x1b[H".to_owned();
    for (index, line) in lines.iter().take(rows).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        text.extend(line.chars().take(columns));
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J");
    print(&text);
}

/// The busiest first.
fn page(agents: &Agents, rates: &BTreeMap<&str, Rate>) -> Vec<String> {
    let running = agents.agents.iter().filter(|agent| agent.pid.is_some()).count();
    let mut lines = vec![format!("{running} of {} agents run", agents.agents.len())];
    lines.extend(agents.total.as_ref().and_then(limits::total_line));
    let mut order: Vec<(&AgentStatus, Rate)> = agents
        .agents
        .iter()
        .map(|agent| (agent, rates.get(agent.name.as_str()).copied().unwrap_or_default()))
        .collect();
    order.sort_by(|(a, one), (b, other)| {
        let cores = |rate: &Rate| rate.cpu_cores.unwrap_or(-1.0);
        cores(other).total_cmp(&cores(one)).then_with(|| a.name.cmp(&b.name))
    });
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "AGENT",
        "STATE",
        "RING",
        "CPU",
        "HELD",
        "MEMORY",
        "PEAK",
        "TASKS",
        "WAIT% CPU/MEM/IO",
        "READ/s",
        "WRITE/s",
        "OOM",
        "UP",
    ]);
    for (agent, rate) in order {
        let usage = agent.usage.unwrap_or_default();
        let cell = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            agent.name.clone(),
            show::state_word(agent),
            show::ring(agent),
            cell(rate.cpu_cores.map(|cores| format!("{:.0}%", cores * 100.0))),
            cell(rate.throttled_ratio.map(|ratio| format!("{:.0}%", ratio * 100.0))),
            show::memory(agent),
            cell(usage.memory_peak_bytes.map(|bytes| format!("{} MiB", bytes.div_ceil(1 << 20)))),
            used::tasks(agent),
            used::pressure_cell(&usage),
            cell(rate.read_bytes_per_second.map(traffic)),
            cell(rate.written_bytes_per_second.map(traffic)),
            cell(usage.oom_kills.map(|kills| kills.to_string())),
            agent.up_ms.map_or("-".to_owned(), show::up),
        ]);
    }
    lines.extend(table.trim_fmt().lines().map(str::to_owned));
    lines
}

fn traffic(bytes: f64) -> String {
    match bytes {
        _ if bytes < 1024.0 => format!("{bytes:.0} B"),
        _ if bytes < 1024.0 * 1024.0 => format!("{:.0} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rate_is_the_difference_of_two_looks_and_unknown_without_both() {
        let before = Usage {
            cpu_usec: Some(1_000_000),
            cpu_periods: Some(10),
            cpu_throttled_periods: Some(2),
            ..Usage::default()
        };
        let now = Usage { cpu_usec: Some(2_000_000), cpu_periods: Some(30), cpu_throttled_periods: Some(12), ..before };
        let rate = Rate::between(&before, &now, Duration::from_secs(2));
        assert_eq!((rate.cpu_cores, rate.throttled_ratio), (Some(0.5), Some(0.5)));
        assert_eq!(rate.read_bytes_per_second, None);
        assert_eq!(Rate::between(&now, &before, Duration::from_secs(1)).cpu_cores, None, "a count that went back");
        assert_eq!(
            Rate::between(&before, &before, Duration::from_secs(1)).throttled_ratio,
            None,
            "no period has passed"
        );
    }

    #[test]
    fn traffic_is_told_in_units_that_people_read() {
        assert_eq!([traffic(0.0), traffic(2048.0), traffic(3.5 * 1048576.0)], ["0 B", "2 KiB", "3.5 MiB"]);
    }
}
