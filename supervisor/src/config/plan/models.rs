//! The model routes that a plan gives, and what their calls are held to.
//!
//! Where a key is to be found is part of the plan, the key is not: it is read at each launch, and a rotated one is no new plan.

use std::collections::{BTreeMap, BTreeSet};

use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::price::spec::TableSpec;
use agt_gateway::price::{self, BadTable, Table};
use agt_gateway::route::{KeySpec, RouteSpec, upstream_of};
use agt_rings::Ring;
use agt_rings::spec::ModelAccess;
use serde::{Deserialize, Serialize};

/// What an agent may ask of models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ModelPlan {
    /// Its routes, by name.
    pub routes: BTreeMap<String, RouteSpec>,
    /// Those of them that it keeps in R3, by the operator's line.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub in_r3: BTreeSet<String>,
    /// Its own limits, under the operator's.
    #[serde(default, skip_serializing_if = "LimitSpec::is_nothing")]
    pub limits: LimitSpec,
    /// What all agents of a ring may use together, R0 first.
    #[serde(default)]
    pub rings: [LimitSpec; 4],
    /// What models cost, over the built-in prices.
    #[serde(default)]
    pub prices: TableSpec,
}

impl ModelPlan {
    /// Whether it has no route: what plans without models have always been hashed as.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.routes.is_empty()
    }

    /// Its routes in a ring: none in R0, whose network is the host's, and in R3 those that the operator leaves to it there.
    #[must_use]
    pub fn routes_at(&self, ring: Ring) -> BTreeMap<String, RouteSpec> {
        match ring {
            Ring::R0 => BTreeMap::new(),
            Ring::R1 | Ring::R2 => self.routes.clone(),
            Ring::R3 => {
                let kept = self.routes.iter().filter(|(name, _)| self.in_r3.contains(*name));
                kept.map(|(name, spec)| (name.clone(), spec.clone())).collect()
            }
        }
    }

    /// Whether there is a route in a ring.
    #[must_use]
    pub fn has_routes_at(&self, ring: Ring) -> bool {
        !self.routes_at(ring).is_empty()
    }

    /// What a launch in R3 is given.
    #[must_use]
    pub fn access(&self) -> ModelAccess {
        if self.has_routes_at(Ring::R3) { ModelAccess::Granted } else { ModelAccess::None }
    }

    /// What is left of its routes in R3, for one line; nothing to be said where there is no route at all.
    #[must_use]
    pub fn in_r3_in_words(&self) -> Option<String> {
        let kept: Vec<String> = self.routes_at(Ring::R3).into_keys().collect();
        let words = if kept.is_empty() {
            "none, without `models_in_r3` in the operator's file".to_owned()
        } else {
            kept.join(", ")
        };
        (!self.is_nothing()).then_some(words)
    }

    /// The limits of all agents of a ring together.
    #[must_use]
    pub fn ring(&self, ring: Ring) -> &LimitSpec {
        &self.rings[usize::from(ring.number())]
    }

    /// The prices that its calls are charged by.
    ///
    /// # Errors
    /// A table that can't be used: a plan that was resolved has none of those.
    pub fn table(&self) -> Result<Table, BadTable> {
        Table::new(&self.prices)
    }

    /// Its routes in words, for one line each.
    #[must_use]
    pub fn in_words(&self) -> Vec<String> {
        let key = |spec: &RouteSpec| match &spec.key {
            Some(KeySpec::File(path)) => format!("key from {}", path.display()),
            Some(KeySpec::Variable(name)) => format!("key from the supervisor's {name}"),
            None => "no key".to_owned(),
        };
        let to = |name: &str, spec: &RouteSpec| upstream_of(name, spec).unwrap_or("nowhere").to_owned();
        self.routes.iter().map(|(name, spec)| format!("{name} to {}, {}", to(name, spec), key(spec))).collect()
    }

    /// How old the built-in prices are, and what lies over them.
    #[must_use]
    pub fn prices_in_words(&self) -> String {
        let oldest = price::sources().into_iter().map(|source| source.read).min().unwrap_or_default();
        let own = match self.prices.models.len() {
            0 => String::new(),
            models => format!(", {models} models priced by the operator's file over them"),
        };
        format!("built in, read from the providers' pages on {oldest}{own}")
    }

    /// Its limits in words; nothing where there is none.
    #[must_use]
    pub fn limits_in_words(&self) -> Option<String> {
        let LimitSpec { requests_per_minute, tokens_per_minute, concurrent, spend } = &self.limits;
        let parts: Vec<String> = [
            requests_per_minute.map(|most| format!("{most} calls a minute")),
            tokens_per_minute.map(|most| format!("{most} tokens a minute")),
            concurrent.map(|most| format!("{most} at the same time")),
            spend.task.map(|most| format!("{most} a task")),
            spend.hour.map(|most| format!("{most} an hour")),
            spend.day.map(|most| format!("{most} a day")),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}
