//! Kills that somebody else did while this supervisor hung: it catches up with them as soon as it runs again.

use super::Supervisor;
use super::launching::in_full;
use super::records::RECORDED_WITHIN;
use crate::govern::kill_mark;
use crate::machine::lifecycle;

impl Supervisor {
    /// Once a second: what others have killed, then what the budgets say.
    pub(super) async fn look_around(&mut self) {
        self.heed_kill_marks().await;
        self.tick().await;
    }

    /// Takes up the marks that wait, so that whom they killed is not started again. What is still alive of them is ended.
    pub(super) async fn heed_kill_marks(&mut self) {
        // What the disk keeps waiting stays where it is until the next look; nobody whom it names is launched meanwhile.
        let taking = kill_mark::take_up(&self.store, &self.dirs.state);
        let marks = match tokio::time::timeout(RECORDED_WITHIN, taking).await {
            Err(_) => return,
            Ok(Ok(marks)) => marks,
            Ok(Err(e)) => {
                eprintln!("error: {}", in_full(&e));
                return;
            }
        };
        for mark in marks {
            let mut names = mark.agents.clone();
            if mark.everyone {
                names.extend(self.agents.iter().filter(|(_, agent)| !agent.is_dead()).map(|(name, _)| name.clone()));
                names.sort();
                names.dedup();
            }
            for name in names {
                eprintln!("warning: {name} was killed by `kill --all` while this supervisor did not answer");
                self.governor.mark_killed(&name, &mark.reason);
                let alive = self.agents.get(&name).is_some_and(|agent| !agent.is_dead());
                if alive {
                    self.step(&name, lifecycle::Event::Kill { reason: mark.reason.clone() }).await;
                }
            }
        }
    }

    /// Whether a mark waits for this agent, which must then not be launched.
    pub(super) fn is_marked(&self, name: &str) -> bool {
        match kill_mark::waiting(&self.dirs.state) {
            Ok(marks) => marks.iter().any(|(_, mark)| mark.everyone || mark.agents.iter().any(|agent| agent == name)),
            // Unreadable: it may well be about this one.
            Err(_) => true,
        }
    }
}
