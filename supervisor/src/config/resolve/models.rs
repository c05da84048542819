//! Model routes: declared and granted by the operator, asked for by an agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agt_gateway::route::{self, KeySpec, RouteSpec};
use agt_rings::Ring;

use super::Context;
use crate::config::diagnostic::Problem;
use crate::config::document::Document;
use crate::config::grant::{Right, provider};
use crate::config::plan::ModelPlan;
use crate::config::spec::{ModelsSpec, OperatorSpec};
use crate::config::tree::KeyPath;
use crate::config::zones::settled;

/// Resolves what an agent asks of models.
pub(super) fn resolve(context: &mut Context<'_>) -> ModelPlan {
    let mut routes = BTreeMap::new();
    for (index, name) in context.spec.models.iter().enumerate() {
        let path = KeyPath::of("models").item(index);
        if context.ceiling == Ring::R3 && !context.rights.models_in_r3.contains(name) {
            let message = format!(
                "the model route `{name}` needs a line of its own in R3, which has no network; `ring: 2` needs none"
            );
            context.needs_operator(&path, message, Right::ModelsInR3(name.clone()));
        }
        if !context.rights.models.contains(name) {
            match context.rights.providers.contains_key(name) {
                true => {
                    let message = format!("the model route `{name}` needs an operator's line: no model is free");
                    context.needs_operator(&path, message, Right::Models(name.clone()));
                }
                false => {
                    let message =
                        format!("the model route `{name}` needs an operator's line, which says where its key is");
                    context.needs_operator(&path, message, Right::Provider(name.clone()));
                }
            }
            continue;
        }
        match context.rights.providers.get(name) {
            Some(spec) => {
                context.notes.extend(without_key(name, spec));
                routes.insert(name.clone(), spec.clone());
            }
            None => context.problem(&path, Problem::config(undeclared(name)).label("no such provider")),
        }
    }
    if routes.is_empty() {
        return ModelPlan::default();
    }
    if context.ceiling == Ring::R0 {
        context.notes.push("model routes are inside a ring's network: it has none of them in R0".to_owned());
    }
    let rights = &context.rights;
    ModelPlan {
        in_r3: routes.keys().filter(|name| rights.models_in_r3.contains(name)).cloned().collect(),
        routes,
        limits: context.spec.model_limits.under(&rights.model_limits),
        rings: rights.model_rings.clone(),
        prices: rights.prices.clone(),
    }
}

/// A provider that wants a key, and gets none.
fn without_key(name: &str, spec: &RouteSpec) -> Option<String> {
    (spec.key.is_none() && spec.upstream.is_none()).then(|| {
        format!("model route {name}: its provider gets no key: say `key: {{file: FILE}}` in the operator's file")
    })
}

fn undeclared(name: &str) -> String {
    format!("the operator's file declares no provider `{name}`")
}

/// The declared routes, their key files by full paths.
pub(in crate::config) fn providers(spec: &ModelsSpec, folder: &Path) -> BTreeMap<String, RouteSpec> {
    let settle = |spec: &RouteSpec| match &spec.key {
        Some(KeySpec::File(path)) => {
            RouteSpec { key: Some(KeySpec::File(settled(&folder.join(path)))), ..spec.clone() }
        }
        Some(KeySpec::Variable(_)) | None => spec.clone(),
    };
    spec.providers.iter().map(|(name, spec)| (name.clone(), settle(spec))).collect()
}

/// The files that hold keys: no agent sees one, whatever tree it lies in and whoever uses the route.
pub(super) fn key_files(providers: &BTreeMap<String, RouteSpec>) -> impl Iterator<Item = PathBuf> {
    providers.values().filter_map(|spec| match &spec.key {
        Some(KeySpec::File(path)) => Some(path.clone()),
        Some(KeySpec::Variable(_)) | None => None,
    })
}

/// What no schema can say of routes.
pub(in crate::config) fn consistency(spec: &OperatorSpec, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    let providers = KeyPath::of("models.providers");
    for (name, declared) in &spec.models.providers {
        if let Err(bad) = route::check(name, declared) {
            let problem = Problem::config(bad.to_string()).label("no model route");
            problems.push(document.locate(problem, &providers.key(name)));
        }
    }
    for (agent, grant) in &spec.agents {
        let path = KeyPath::of("agents").key(agent).key("models_in_r3");
        for (index, name) in grant.models_in_r3.iter().enumerate().filter(|(_, name)| !grant.models.contains(name)) {
            let problem = Problem::config(format!("`models` of this agent has no `{name}`")).label("not its route");
            let problem = problem.help("R3 keeps some of the routes that an agent has: add it to `models`, too");
            problems.push(document.locate(problem, &path.clone().item(index)));
        }
        for (index, name) in grant.models.iter().enumerate() {
            if !spec.models.providers.contains_key(name) {
                let known: Vec<&str> = spec.models.providers.keys().map(String::as_str).collect();
                let problem = Problem::config(format!("`models.providers` has no `{name}`")).label("no such provider");
                let problem = match known.is_empty() {
                    true => problem.help(format!("declare it: `models: {{providers: {{{}}}}}`", provider(name))),
                    false => problem.help(format!("there is {}", known.join(", "))),
                };
                let path = KeyPath::of("agents").key(agent).key("models").item(index);
                problems.push(document.locate(problem, &path));
            }
        }
    }
    problems
}
