//! `stop`, `kill`, `revive`, `restart`, `freeze`, `thaw`: something done to running agents.

use std::io::IsTerminal;

use agt_rings::cgroup;

use super::{Failure, Outcome, client_runtime, dirs, print};
use crate::cli::{ActArgs, Global};
use crate::control::client::{self, ClientError};
use crate::control::protocol::{ACT, ActBody, ActWord, Agents};
use crate::dirs::Dirs;
use crate::driver::launching::in_full;
use crate::driver::records::wall_ms;
use crate::driver::status::AgentStatus;
use crate::exit;
use crate::govern::kill_mark::{self, KillMark};
use crate::store::StateLock;

/// How long a supervisor may take to kill everything before it is taken for hung: a kill takes milliseconds.
const SUPERVISOR_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);
/// How long it may take to kill one agent: after a moment it does so past whatever holds it up, and says so.
const ONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(4);
/// How long the kill of a hung supervisor's agents may take...
const KILL_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
/// ... and how much longer for each of them: the kernel tears each one's namespaces down, which took 12 ms where others worked too.
const KILL_EACH_WITHIN: std::time::Duration = std::time::Duration::from_millis(50);

/// Performs the verb through the operator socket.
///
/// # Errors
/// No supervisor, a refusal, or no answer to the question.
pub fn act(global: &Global, args: &ActArgs, act: ActWord) -> Outcome {
    let dirs = dirs(global)?;
    confirm(args, act)?;
    let body = ActBody { agent: args.agent.clone(), act, reason: args.reason.clone() };
    // Steps have no group of their agent's name; who is hung is asked for `--all` then.
    let agent = args.agent.as_deref();
    let kills = act == ActWord::Kill && agent.is_none_or(|agent| !agent.contains('/'));
    let within = if args.all { SUPERVISOR_WITHIN } else { ONE_WITHIN };
    let socket = dirs.operator_socket();
    let answered = client_runtime()?.block_on(async {
        if kills {
            // A hung supervisor must not keep agents alive: after this the kernel is asked without it.
            client::post_within::<_, Agents>(&socket, ACT, &body, within).await
        } else {
            client::post::<_, Agents>(&socket, ACT, &body).await
        }
    });
    let agents = match answered {
        Ok(agents) => agents.agents,
        Err(e @ (ClientError::Nobody { .. } | ClientError::Late { .. } | ClientError::Broken(_)))
            if kills && args.all =>
        {
            return kill_without_supervisor(&dirs, None, &args.reason, hung(&dirs, &e));
        }
        Err(e @ (ClientError::Late { .. } | ClientError::Broken(_))) if kills => {
            return kill_without_supervisor(&dirs, agent, &args.reason, hung(&dirs, &e));
        }
        Err(ClientError::Nobody { .. }) if act == ActWord::Revive && args.agent.is_some() => {
            let agent = args.agent.as_deref().unwrap_or_default();
            return super::trust::revive_without_supervisor(&dirs, agent, &args.reason);
        }
        Err(e) => return Err(e.into()),
    };
    let acted = agents.is_empty() || agents.iter().any(|agent| agent.remark.is_none());
    if global.json {
        print(
            &(serde_json::to_string_pretty(&Agents { agents, supervisor: None, total: None })
                .map_err(|e| Failure::of(exit::BUG, &e))?
                + "\n"),
        );
    } else {
        if agents.is_empty()
            && let (ActWord::Revive, Some(name)) = (act, &args.agent)
        {
            eprintln!("{name}  may live again: `run` starts it");
        }
        agents.iter().for_each(|agent| eprintln!("{}", done(agent, act)));
    }
    // Ending what does not run is done; anything else that fitted nobody is not.
    let ends = matches!(act, ActWord::Stop | ActWord::Kill | ActWord::Freeze);
    if !ends && !acted {
        return Ok(exit::NO);
    }
    Ok(0)
}

fn confirm(args: &ActArgs, act: ActWord) -> Result<(), Failure> {
    let destructive = matches!(act, ActWord::Stop | ActWord::Kill | ActWord::Restart);
    if !destructive || args.yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    let whom = args.agent.as_deref().unwrap_or("every agent");
    eprint!("{act:?} {whom}? [y/N] ");
    crate::say::flush();
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(exit::NO, "nothing was done"))
    }
}

/// Who was asked and does not answer.
fn hung(dirs: &Dirs, error: &ClientError) -> Option<u32> {
    let ClientError::Late { pid, .. } = error else { return None };
    pid.and_then(|pid| u32::try_from(pid).ok()).or_else(|| StateLock::holder(&dirs.state))
}

/// Its agents can be ended only with it.
fn without_cgroups(pid: u32, agent: Option<&str>) -> Failure {
    let whom = agent.map_or_else(|| "its agents".to_owned(), |agent| format!("{agent} alone"));
    let text = format!(
        "the supervisor (pid {pid}) does not answer, and it has no control groups here by which {whom} could be killed without it"
    );
    Failure::new(exit::UNAVAILABLE, text).help(format!(
        "kill -9 {pid} ends it, and its agents with it (but what has left them by setsid and a second fork: see ps -e)"
    ))
}

/// The supervisor is dead or hangs: its cgroups are on record, and the kernel needs no supervisor to end what is in them.
fn kill_without_supervisor(dirs: &Dirs, agent: Option<&str>, reason: &str, hung: Option<u32>) -> Outcome {
    let record = dirs.cgroup_record();
    let bytes = match std::fs::read(&record) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            if let Some(pid) = hung {
                return Err(without_cgroups(pid, agent));
            }
            return Err(Failure::new(
                exit::UNAVAILABLE,
                "no supervisor is running, and none has left a record of its cgroups",
            ));
        }
        Err(e) => return Err(Failure::new(exit::UNAVAILABLE, format!("{}: {e}", record.display()))),
    };
    let of = |e: cgroup::Error| Failure::of(exit::UNAVAILABLE, &e);
    let tree: cgroup::Tree = serde_json::from_slice(&bytes).map_err(|e| Failure::of(exit::DATA, &e))?;
    let agents = cgroup::base::agents_of(&tree).map_err(of)?;
    if !agents.exists() {
        // What an earlier one left on record says nothing of this one.
        if let Some(pid) = hung {
            return Err(without_cgroups(pid, agent));
        }
        eprintln!("nothing to kill: the supervisor's cgroups are gone");
        return Ok(0);
    }
    let mut killed = cgroup::base::names_in(&agents).map_err(of)?;
    let within = KILL_WITHIN + KILL_EACH_WITHIN * u32::try_from(killed.len()).unwrap_or(u32::MAX);
    let kill = |tree| cgroup::Grip::open(tree).and_then(|grip| grip.kill(within)).map_err(of);
    let began = std::time::Instant::now();
    let processes = match agent {
        None => kill(agents)?.processes,
        Some(agent) => {
            killed.retain(|group| agent_of(group).as_deref() == Some(agent));
            let kills = killed.iter().map(|group| kill(cgroup::base::group_in(&agents, group)));
            kills.map(|report| Ok(report?.processes)).sum::<Result<usize, Failure>>()?
        }
    };
    eprintln!(
        "killed {processes} {} in {:.1} ms without the supervisor's help; verified empty",
        if processes == 1 { "process" } else { "processes" },
        began.elapsed().as_secs_f64() * 1000.0
    );
    let mut agents: Vec<String> = killed.iter().filter_map(|group| agent_of(group)).collect();
    agents.dedup();
    // One that hangs may hold agents that run nothing now and wait to be restarted.
    let everyone = agent.is_none() && StateLock::holder(&dirs.state).is_some();
    if agents.is_empty() && !everyone {
        return Ok(0);
    }
    // After the kill, which waits for no disk.
    let reason = if reason.is_empty() { "manual" } else { reason };
    let by = nix::unistd::geteuid().as_raw();
    let mark = KillMark { agents, reason: reason.to_owned(), by, at_ms: wall_ms(), everyone };
    kill_mark::leave(&dirs.state, &mark).map_err(|e| {
        let text = format!("they are dead, but not marked so: {}", in_full(&e));
        Failure::new(e.exit_code(), text).help("a next start would start them: make room, and kill once more")
    })?;
    if everyone {
        eprintln!("note: whoever waits to be restarted is marked too, once the supervisor answers again");
    }
    let stay = if mark.agents.len() == 1 { "stays" } else { "stay" };
    if !mark.agents.is_empty() {
        eprintln!("{} {stay} dead until `agt-supervise revive`", mark.agents.join(", "));
    }
    Ok(0)
}

/// The agent whose life a group was: `NAME-LIFE`.
fn agent_of(group: &str) -> Option<String> {
    let (agent, life) = group.rsplit_once('-')?;
    life.parse::<u64>().ok().map(|_| agent.to_owned())
}

fn done(agent: &AgentStatus, act: ActWord) -> String {
    let name = &agent.name;
    if let Some(remark) = &agent.remark {
        // Refusals name the agent themselves.
        let remark = remark.strip_prefix(name.as_str()).unwrap_or(remark).trim_start();
        let left = matches!(act, ActWord::Revive | ActWord::Restart | ActWord::Thaw | ActWord::Freeze);
        return format!("{name}  {}{remark}", if left { "left alone: " } else { "" });
    }
    // What a step's end leads to is its saga's business; there is nothing to revive.
    let after = match name.split_once('/') {
        Some((saga, _)) => format!("Its saga turns back: `agt-supervise saga show {saga}`"),
        None => format!("`agt-supervise revive {name}` lets it live again"),
    };
    match act {
        ActWord::Kill => match &agent.kill {
            Some(kill) => format!("{name}  killed: {}. {after}", kill.words()),
            None => format!("{name}  killed. {after}"),
        },
        ActWord::Stop => format!("{name}  stopped"),
        ActWord::Revive => format!("{name}  lives again"),
        ActWord::Restart => format!("{name}  restarts"),
        ActWord::Freeze => format!("{name}  frozen. `agt-supervise thaw {name}` lets it run on"),
        ActWord::Thaw => format!("{name}  runs on"),
    }
}
