//! Tells of the repositories that an agent made, when one of its lives has ended: a line for each that matters, a record, its status.
//!
//! That one was begun is heard while the agent runs; what is in it counts only at the end, and is looked at before the end is told, on
//! a thread of its own: the loop waits for no disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agt_rings::names::Rules;
use agt_rings::notice::{Notice, What};

use super::Supervisor;
use super::audience::Line;
use super::beside::beside;
use super::records::wall_ms;
use crate::audit::record::{Action, Actor, Outcome, Record};
use crate::repositories::{Found, look};

/// An agent made a repository.
const MADE: Action = Action::new("repository.made");

/// Places that are kept for the look; the trees are looked through in any case.
const PLACES_MAX: usize = 256;
/// Lines that are said of one life.
const LINES_MAX: usize = 8;
/// How long an end waits for the look.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);

/// Where an agent was seen to begin repositories.
#[derive(Debug)]
pub(super) struct Places {
    rules: Option<Rules>,
    begun: Mutex<BTreeSet<PathBuf>>,
}

impl Places {
    pub(super) fn new(rules: Option<&Rules>) -> Places {
        Places { rules: rules.cloned(), begun: Mutex::default() }
    }

    pub(super) fn take(&self, notice: &Notice) {
        let What::Repository { path } = &notice.what else { return };
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.len() < PLACES_MAX {
            begun.insert(PathBuf::from(path));
        }
    }

    /// Looks at what came of them; `None` where nothing was begun.
    pub(super) async fn look(&self) -> Option<Found> {
        let begun = std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
        let rules = self.rules.clone().filter(|_| !begun.is_empty())?;
        let looked = beside("agt-made", move || look(&rules, &begun));
        Some(match tokio::time::timeout(LOOKED_WITHIN, looked).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => {
                Found { made: Vec::new(), missed: Some("the disk did not answer in time".to_owned()) }
            }
        })
    }
}

impl Supervisor {
    pub(super) fn made(&mut self, name: &str, found: Found) {
        for made in &found.made {
            let record = Record::new(wall_ms(), Actor::Agent(name.to_owned()), MADE, Outcome::Noted)
                .agent(name)
                .detail("path", made.path.as_str())
                .detail("hooks", made.hooks.join(", "))
                .detail("settings", made.settings.join(", "))
                .detail("more", made.more as i64)
                .detail("unread", made.unread.join(", "));
            self.note(record);
        }
        let telling: Vec<_> = found.made.iter().filter(|made| made.matters()).collect();
        for made in telling.iter().take(LINES_MAX) {
            self.say(name, Line::Matter, format!("warning: {name}: {}", made.line()));
        }
        if telling.len() > LINES_MAX {
            let more = telling.len() - LINES_MAX;
            self.say(name, Line::Matter, format!("warning: {name}: and {more} more: agt-supervise audit"));
        }
        if let Some(missed) = &found.missed {
            let text = format!("warning: {name}: made repositories, and {missed}: look before you use git there");
            self.say(name, Line::Matter, text);
        }
        if let Some(agent) = self.agents.get_mut(name) {
            agent.made = found;
        }
    }
}
