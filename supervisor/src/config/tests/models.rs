//! Model routes: declared and granted by the operator, asked for by the agent, their keys in no plan.

use super::*;

const KEY: &str = "sk-in-a-file-0123456789";

fn world(provider: &str, grant: &str) -> World {
    let world = World::new();
    world.write("homes/alice/project/the.key", KEY);
    world.operator(&format!(
        "version: 1\nkind: operator\nmodels:\n  providers:\n    openai: {provider}\n  prices: prices.yaml\nagents:\n  a:\n    file: {}/agent.yaml\n    \
         models: [openai]\n{grant}",
        world.project.display()
    ));
    world
}

#[test]
fn a_granted_route_is_in_the_plan_under_the_tighter_limits_and_its_key_is_nowhere() {
    let world = world(
        "{key: {file: ../homes/alice/project/the.key}}",
        "    model_limits: {concurrent: 4, spend: {task: \"5\", day: \"9\"}}\n",
    );
    let plan = world
        .agent("ring: 2\nmodels: [openai]\nmodel_limits: {concurrent: 8, requests_per_minute: 7, spend: {task: \"1.50\"}}\n")
        .unwrap();
    let limits = &plan.models.limits;
    assert_eq!((limits.concurrent, limits.requests_per_minute, limits.tokens_per_minute), (Some(4), Some(7), None));
    let page = plan.page(None);
    assert!(
        page.contains("openai to https://api.openai.com, key from ") && page.contains("$1.50 a task, $9.00 a day"),
        "{page}"
    );
    assert!(plan.hide.contains(&world.project.join("the.key")), "{:?}", plan.hide);
    let shown = format!("{page}{plan:?}{}{}", plan.to_json(), String::from_utf8(plan.to_wire()).unwrap());
    assert!(!shown.contains(KEY), "{shown}");
    let hash = plan.hash();
    world.write("homes/alice/project/the.key", "sk-another-0123456789");
    let lines =
        "ring: 2\nmodels: [openai]\nmodel_limits: {concurrent: 8, requests_per_minute: 7, spend: {task: \"1.50\"}}\n";
    assert_eq!(world.agent(lines).unwrap().hash(), hash, "a rotated key is no new plan");
    assert_eq!(AgentPlan::from_wire(&plan.to_wire()).unwrap(), plan);
}

#[test]
fn variables_point_at_routes_unless_the_file_sets_them_itself() {
    let world = world("{key: {env: OPENAI_API_KEY}}", "");
    let plan = world.agent("ring: 2\nmodels: [openai]\n").unwrap();
    let variables: BTreeMap<String, String> = plan.way_variables(Ring::R2).into_iter().collect();
    assert_eq!(variables["OPENAI_BASE_URL"], "http://127.0.0.1:20789/openai/v1");
    assert_eq!(variables["OPENAI_API_KEY"], "agt-held-by-the-supervisor");
    assert!(!variables.contains_key("HTTPS_PROXY"), "it reaches nothing else: {variables:?}");
    assert_eq!(plan.openings_at(Ring::R2).len(), 1);
    assert!(plan.openings_at(Ring::R3).is_empty() && plan.way_variables(Ring::R3).is_empty());
    let own = world.agent("ring: 2\nmodels: [openai]\nenv: {set: {OPENAI_BASE_URL: http://127.0.0.1:1/}}\n").unwrap();
    assert!(own.way_variables(Ring::R2).iter().all(|(name, _)| name != "OPENAI_BASE_URL"));
}

#[test]
fn an_operators_mistake_about_models_is_one_with_its_place() {
    let asks = "ring: 2\nmodels: [openai]\n";
    for (provider, says) in [
        ("{upstream: \"ftp://x\"}", "is no base URL"),
        ("{upstream: \"http://far.example\", key: {env: K}}", "a key is sent over https, or to this machine"),
        ("{allow: [\"GET v1\"]}", "is no call"),
        ("{key: {file: a, env: B}}", "a key comes from one place"),
        ("{key: sk-1}", "key"),
        ("{upstraem: x}", "did you mean `upstream`"),
    ] {
        let text = message(world(provider, "").agent(asks), 64);
        assert!(text.contains(says) && text.contains("operator.yaml:5:"), "{provider}: {text}");
    }
    let world = world("{}", "");
    world.write("etc/prices.yaml", "version: 1\nkind: prices\nmodels: {m: {input: free, output: \"1\"}}\n");
    let text = message(world.agent(asks), 64);
    assert!(text.contains("prices.yaml:3:"), "{text}");
}

#[test]
fn models_in_r3_need_a_line_of_their_own_and_are_all_that_it_has() {
    let asks = "ring: 3\nmodels: [openai]\n";
    let text = message(world("{key: {env: K}}", "").agent(asks), 77);
    assert!(text.contains("needs a line of its own in R3") && text.contains("models_in_r3: [openai]"), "{text}");
    // Both lines at once where neither is there.
    let nothing = message(World::new().agent(asks), 77);
    assert!(nothing.contains("models: [openai]") && nothing.contains("models_in_r3: [openai]"), "{nothing}");
    let text =
        message(world("{key: {env: K}}", "    models_in_r3: [anthropic]\n").agent("ring: 2\nmodels: [openai]\n"), 64);
    assert!(text.contains("`models` of this agent has no `anthropic`"), "{text}");

    let granted = world("{key: {env: K}}", "    models_in_r3: [openai]\n    network: [{host: a.example}]\n");
    let reaches = "ring: 2\nmodels: [openai]\nnetwork: [{host: a.example}]\n";
    for (asks, has) in [(asks, "model routes alone, at 127.0.0.1:20789 inside"), (reaches, "HTTP proxy at")] {
        let plan = granted.agent(asks).unwrap();
        let openings = plan.openings_at(Ring::R3);
        assert_eq!(openings.iter().map(|o| &o.way).collect::<Vec<_>>(), [&crate::config::plan::Way::Models]);
        let variables: BTreeMap<String, String> = plan.way_variables(Ring::R3).into_iter().collect();
        assert_eq!(variables["OPENAI_BASE_URL"], "http://127.0.0.1:20789/openai/v1");
        assert!(!variables.keys().any(|name| name.to_ascii_lowercase().ends_with("_proxy")), "{variables:?}");
        assert!(plan.destinations_at(Ring::R3).is_empty() && plan.forwards_at(Ring::R3).is_empty());
        let page = plan.page(None);
        assert!(page.contains(has) && page.contains("models in R3") && !page.contains("none, without"), "{page}");
    }
    let plan = world("{key: {env: K}}", "").agent("ring: 2\nmodels: [openai]\n").unwrap();
    assert!(!plan.models.has_routes_at(Ring::R3) && plan.openings_at(Ring::R3).is_empty());
    assert!(plan.page(None).contains("none, without `models_in_r3` in the operator's file"), "{}", plan.page(None));
}

#[test]
fn a_price_table_with_a_mistake_is_named_also_beside_a_named_operators_file() {
    let world = world("{key: {env: K}}", "");
    let around = &world.around;
    world.write("etc/prices.yaml", "version: 1\nkind: prices\nmodels: {m: {inptu: \"1\", output: \"1\"}}\n");
    let operator = world.root.join("etc/operator.yaml");
    let file = world.write("homes/alice/project/agent.yaml", minimal("ring: 2\nmodels: [openai]\n"));
    let told = message(crate::config::load_agent(&file, around, Some(&operator), &Overrides::default()), 64);
    assert!(told.contains("did you mean `input`?") && told.contains("prices.yaml:3:"), "{told}");
    assert!(!told.contains("operator.yaml"), "{told}");
}

#[test]
fn a_provider_that_would_get_no_key_is_told_of() {
    let notes = |provider: &str| world(provider, "").agent("ring: 2\nmodels: [openai]\n").unwrap().notes;
    assert!(notes("{}").iter().any(|note| note.contains("gets no key")), "{:?}", notes("{}"));
    for fine in ["{key: {env: K}}", "{upstream: \"http://127.0.0.1:8000/v1\"}"] {
        assert!(notes(fine).is_empty(), "{fine}");
    }
}
