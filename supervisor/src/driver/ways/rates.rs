//! An agent's requests a minute: one bucket for its gateway and its control socket, kept over its lives.
//!
//! The ring sets the rate, so each launch does (a ring is another one only in the next life), and a reload that changes it. Refusals are
//! gathered where they happen and told here: once as a denial with its rule, then as a number.

use crate::denials::Tried;
use crate::driver::Supervisor;
use crate::driver::agent::Agent;
use crate::driver::audience::Line;

/// The metric's word for it.
const REQUESTS: &str = "requests";

impl Agent {
    /// Holds it to what its plan says for its ring.
    pub(in crate::driver) fn set_rate(&self) {
        self.rate.set(Some(self.definition.plan.most_requests_at(self.ring).into()));
    }
}

impl Supervisor {
    /// Tells that an agent made more requests than its rate lets through.
    pub(in crate::driver) fn throttled(&mut self, name: &str) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        let times = agent.rate.untold();
        let Some(per_minute) = agent.rate.pace().per_minute.filter(|_| times > 0) else { return };
        self.telemetry.throttled(name, REQUESTS, times);
        let heard = agent.denied.refused(Tried::Rate { per_minute }, agent.ring, times, &self.store);
        if let Some(line) = heard.line {
            self.say(name, Line::Course, line);
        }
    }
}
