//! Two files with one name in one `run` or `serve`: a mistake to be named before anything starts, not a race between the two.

use std::collections::BTreeMap;
use std::path::Path;

use super::Failure;
use crate::config::AgentPlan;

/// Refuses plans of which two have one name.
///
/// # Errors
/// Names both files.
pub(super) fn refuse<'a>(plans: impl Iterator<Item = &'a AgentPlan>) -> Result<(), Failure> {
    let mut known: BTreeMap<&str, &Path> = BTreeMap::new();
    for plan in plans {
        let source = plan.identity.source.as_path();
        let Some(other) = known.insert(plan.name(), source) else { continue };
        let text = if other == source {
            format!("{} is named twice", source.display())
        } else {
            format!("{} and {} have one name, `{}`", other.display(), source.display(), plan.name())
        };
        return Err(Failure::usage(text).help("give each agent a `name:` of its own; nothing was started"));
    }
    Ok(())
}
