//! A freeze that goes on until everybody stands still.
//!
//! A task that waits for another's answer in a way that only a kill ends (a call that the agent's attendant answers) can't stop, and
//! the other can't answer once it has stopped. So where not all stand still soon, all go on for a moment and are stopped again, as
//! the groups' own freeze does; here between polls, so that nothing acts any more once this future is dropped.

use std::time::Duration;

use agt_chaos::target::TargetError;
use agt_rings::cgroup::Group;
use tokio::time::{Instant, sleep};

use super::acts::{no_file, write};
use super::places;

/// How long the tasks of a group may take to stop at the first attempt, and at most at a later one: each has twice the time of the one
/// before. An agent that nearly always waits is met by many attempts, a busy machine by long ones.
const SETTLES_WITHIN: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(80)];
/// For how long they go on between two attempts, likewise: on an idle machine many times what an answer takes, on a busy one enough
/// for both sides to have had the processor.
const MOMENTS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(40)];
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// Attempts after the first: five seconds.
const AGAIN_MAX: usize = 43;

/// Sees to it that what was asked to freeze does. The request stands even if somebody never stops (an uninterruptible call, say): what
/// is seen of the fault decides then.
pub(super) async fn insist(group: &Group) -> Result<(), TargetError> {
    let freezer = places::freezer(group.tree()).ok_or_else(no_file)?;
    let ([mut within, most], [mut moment, longest]) = (SETTLES_WITHIN, MOMENTS);
    for _ in 0..AGAIN_MAX {
        let until = Instant::now() + within;
        within = most.min(within * 2);
        while Instant::now() < until {
            // One that can't be read is seen by the experiment's own looks.
            if group.is_frozen().unwrap_or(true) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        write(&freezer, places::thawed_word(&freezer))?;
        sleep(moment).await;
        moment = longest.min(moment * 2);
        write(&freezer, places::frozen_word(&freezer))?;
    }
    Ok(())
}
