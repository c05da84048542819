//! What the operator allows one agent: the other half of every request.
//!
//! Without an operator's file everything here is empty, and that is the ceiling. Rights only ever come from this file;
//! a wrong or unsafe file is an error, never "no file".

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agt_gateway::limit::spec::LimitSpec;
use agt_gateway::policy::shortfalls;
use agt_gateway::policy::spec::{CeilingSpec, EntrySpec, RangeSpec};
use agt_gateway::price::Table;
use agt_gateway::price::spec::TableSpec;
use agt_gateway::route::RouteSpec;
use agt_rings::Ring;
use agt_rings::capability;
use agt_rings::spec::Limits;

use super::diagnostic::{Class, ConfigError, Problem, Report};
use super::document::{Document, Kind, Loaded, parse_partial, parse_typed};
use super::resolve::{models, network};
use super::source;
use super::spec::{
    AgentGrant, ChaosSpec, Environment, Keep, LimitsSpec, ListenAt, NestedSpec, OperatorSpec, Operators, Switch,
};
use super::surroundings::{RingDefaults, Surroundings};
use super::tree::KeyPath;
use super::zones::settled;

/// Less memory than this for all agents together starts none.
const MIN_TOTAL_MEMORY: u64 = 1 << 20;

/// The operator's file, read and checked.
#[derive(Debug, Clone)]
pub struct Operator {
    /// What it says.
    pub spec: OperatorSpec,
    /// Where it stands, links resolved.
    pub path: PathBuf,
    /// Its text, for messages.
    pub document: Document,
    /// Who may command the supervisor, by number.
    pub commanders: Commanders,
    /// What models cost, from the file that it names.
    pub prices: TableSpec,
}

/// Who may command the supervisor besides root and its own user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commanders {
    /// Users.
    pub uids: BTreeSet<u32>,
    /// Groups.
    pub gids: BTreeSet<u32>,
}

fn commanders(named: &Operators, document: &Document, around: &Surroundings) -> (Commanders, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut numbers = |list: &str, names: &[String], number: &dyn Fn(&str) -> Option<u32>| {
        let mut found = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            match number(name) {
                Some(number) => drop(found.insert(number)),
                None => {
                    let problem = Problem::config(format!("this host has no {} `{name}`", list.trim_end_matches('s')))
                        .label("unknown")
                        .help("a name, or its number in quotes");
                    problems.push(document.locate(problem, &KeyPath::of("operators").key(list).item(index)));
                }
            }
        }
        found
    };
    // A number may stand for a user whom a directory service knows and passwd(5) doesn't.
    let user = |text: &str| around.account(text).map(|account| account.uid).or_else(|| text.parse().ok());
    let uids = numbers("users", &named.users, &user);
    let gids = numbers("groups", &named.groups, &|text| around.group(text));
    (Commanders { uids, gids }, problems)
}

/// Reads the operator's file. It must belong to root or to the asking user and nobody else may write it: whoever can
/// change it holds all the power of this program.
///
/// # Errors
/// A file that others could have written (exit 77), and all that can be wrong with a file of any kind (64).
pub fn load_operator(path: &Path, around: &Surroundings) -> Result<Operator, ConfigError> {
    let file = source::open(path)?;
    trusted(&file, path, around)?;
    let text = source::read_from(&file, path)?;
    let partial = parse_partial::<OperatorSpec>(&text, path, Kind::Operator)?;
    let Loaded { value, document } = &partial.loaded;
    let mut problems = consistency(value, document);
    let (commanders, unknown) = commanders(&value.operators, document, around);
    problems.extend(unknown);
    if partial.has_problems() || !problems.is_empty() {
        return Err(partial.error_with(problems));
    }
    let Loaded { value, document } = partial.loaded;
    let path = settled(path);
    let prices =
        value.models.prices.as_ref().map(|file| load_prices(&path.with_file_name(file), around)).transpose()?;
    Ok(Operator { spec: value, path, document, commanders, prices: prices.unwrap_or_default() })
}

/// Reads a price table. Who could change it could make a model free, so it is held to the same as the file that names it.
fn load_prices(path: &Path, around: &Surroundings) -> Result<TableSpec, ConfigError> {
    let file = source::open(path)?;
    trusted(&file, path, around)?;
    let text = source::read_from(&file, path)?;
    let Loaded { value, document } = parse_typed::<TableSpec>(&text, path, Kind::Prices)?;
    match Table::new(&value) {
        Ok(_) => Ok(value),
        Err(bad) => {
            let problem = Problem::config(bad.to_string()).label("no price table");
            Err(document.error(vec![document.locate(problem, &KeyPath::of("models"))]))
        }
    }
}

fn trusted(file: &File, path: &Path, around: &Surroundings) -> Result<(), ConfigError> {
    let metadata = file.metadata().map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
    let refuse = |message: String, help: String| {
        let problem = Problem::new(Class::Refused, message).help(help);
        Err(ConfigError::from_report(Report::new(path, "".into(), vec![problem])))
    };
    let shown = path.display();
    if metadata.is_file() && metadata.uid() != 0 && metadata.uid() != around.uid {
        return refuse(
            format!(
                "the operator's file belongs to uid {}, not to root or to you (uid {})",
                metadata.uid(),
                around.uid
            ),
            format!("sudo chown root {shown}"),
        );
    }
    if metadata.is_file() && metadata.mode() & 0o022 != 0 {
        return refuse(
            format!("the operator's file can be written by others (mode {:04o})", metadata.mode() & 0o7777),
            format!("chmod go-w {shown}"),
        );
    }
    Ok(())
}

/// What no schema can say.
fn consistency(spec: &OperatorSpec, document: &Document) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.total.memory.is_some_and(|size| size.0 < MIN_TOTAL_MEMORY) {
        let problem = Problem::config("no agent runs with less than 1MiB of memory for all").label("impossible value");
        problems.push(document.locate(problem, &KeyPath::of("total.memory")));
    }
    problems.extend(models::consistency(spec, document));
    for (name, grant) in &spec.agents {
        let agent = KeyPath::of("agents").key(name);
        for (index, capability) in grant.capabilities.iter().enumerate() {
            let bare = capability.to_ascii_lowercase();
            if !capability::NAMES.contains(&bare.strip_prefix("cap_").unwrap_or(&bare)) {
                let problem = Problem::config(format!("unknown capability `{capability}`"))
                    .label("see capabilities(7)")
                    .help("for example `net_bind_service`");
                problems.push(document.locate(problem, &agent.key("capabilities").item(index)));
            }
        }
        let ceiling = CeilingSpec { network: grant.network.clone(), addresses: grant.addresses.clone() };
        if let Err(bad) = shortfalls(&[], &ceiling) {
            let list = agent.key(if network::is_operators(&bad) { "network" } else { "addresses" });
            let problem = Problem::config(network::wrong(&bad)).label("no entry");
            problems.push(document.locate(problem, &network::place(&list, &bad)));
        }
        let lists = [("read", &grant.read), ("write", &grant.write), ("secrets", &grant.secrets)];
        for (key, paths) in lists {
            for (index, path) in paths.iter().enumerate() {
                if let Some(problem) = operator_path(key, path) {
                    problems.push(document.locate(problem, &agent.key(key).item(index)));
                }
            }
        }
    }
    problems
}

fn operator_path(key: &str, path: &str) -> Option<Problem> {
    if path.contains("${") || path.starts_with('~') {
        return Some(
            Problem::config(format!("`{path}`: nothing is replaced in the operator's file"))
                .label("write the path out")
                .help("what a file allows must not depend on who reads it"),
        );
    }
    (key == "write" && Path::new(path).components().count() <= 1 && path.starts_with('/')).then(|| {
        Problem::config("no agent may write `/`").label("impossible value").help("name the folders that it needs")
    })
}

/// What one agent may have, links resolved.
#[derive(Debug, Clone, Default)]
pub(super) struct Rights {
    pub(super) ceiling: Option<Ring>,
    pub(super) read: Vec<PathBuf>,
    pub(super) write: Vec<PathBuf>,
    pub(super) writable: Vec<String>,
    pub(super) keep: Keep,
    /// Whether the operator's file has an entry for this agent.
    pub(super) known: bool,
    pub(super) network: Vec<EntrySpec>,
    pub(super) addresses: Vec<RangeSpec>,
    /// Where its ports may be shown beyond what is free.
    pub(super) publish: Vec<ListenAt>,
    /// All model routes that the operator declares, with the names of those that this agent may use.
    pub(super) providers: BTreeMap<String, RouteSpec>,
    pub(super) models: Vec<String>,
    pub(super) models_in_r3: Vec<String>,
    pub(super) model_limits: LimitSpec,
    pub(super) model_rings: [LimitSpec; 4],
    pub(super) prices: TableSpec,
    pub(super) secrets: Vec<PathBuf>,
    pub(super) env: Vec<String>,
    pub(super) user: Option<String>,
    pub(super) nested_sandbox: NestedSpec,
    pub(super) limits: LimitsSpec,
    pub(super) chaos: ChaosSpec,
    pub(super) vouch: Switch,
    pub(super) capabilities: Vec<String>,
    pub(super) environment: Environment,
    /// Built-in limits with the operator's `rings` laid over them.
    pub(super) rings: [RingDefaults; 4],
    /// Set when an entry has the agent's name and another file.
    pub(super) other_file: Option<PathBuf>,
}

impl Rights {
    /// What `operator` allows the agent with this name and file.
    pub(super) fn of(operator: Option<&Operator>, name: &str, file: &Path, around: &Surroundings) -> Rights {
        let mut rights = Rights { rings: around.rings.0, ..Rights::default() };
        let Some(operator) = operator else { return rights };
        let spec = &operator.spec;
        rights.ceiling = spec.ceiling;
        rights.vouch = spec.vouch;
        rights.environment = spec.environment;
        for ring in Ring::ALL {
            if let Some(limits) = spec.rings.get(&ring.number().to_string()) {
                overlay(&mut rights.rings[usize::from(ring.number())], limits);
            }
        }
        let folder = operator.path.parent().unwrap_or(Path::new("/"));
        rights.providers = models::providers(&spec.models, folder);
        rights.prices.clone_from(&operator.prices);
        for ring in Ring::ALL {
            let limits = spec.models.rings.get(&ring.number().to_string()).cloned();
            rights.model_rings[usize::from(ring.number())] = limits.unwrap_or_default();
        }
        let Some(grant) = spec.agents.get(name) else { return rights };
        let granted_file = settled(&folder.join(&grant.file));
        if granted_file != file {
            rights.other_file = Some(granted_file);
            return rights;
        }
        rights.give(grant, folder);
        rights
    }

    fn give(&mut self, grant: &AgentGrant, folder: &Path) {
        let settle = |paths: &[String]| paths.iter().map(|path| settled(&folder.join(path))).collect();
        self.ceiling = grant.ceiling.or(self.ceiling);
        self.read = settle(&grant.read);
        self.write = settle(&grant.write);
        self.secrets = settle(&grant.secrets);
        self.writable.clone_from(&grant.writable);
        self.keep = grant.protect;
        self.known = true;
        self.network.clone_from(&grant.network);
        self.addresses.clone_from(&grant.addresses);
        self.publish.clone_from(&grant.publish);
        self.models.clone_from(&grant.models);
        self.models_in_r3.clone_from(&grant.models_in_r3);
        self.model_limits = grant.model_limits.clone();
        self.env.clone_from(&grant.env);
        self.user.clone_from(&grant.user);
        self.nested_sandbox = grant.nested_sandbox;
        self.limits = grant.limits.clone();
        self.chaos = grant.chaos.clone();
        self.vouch = grant.vouch.unwrap_or(self.vouch);
        self.capabilities = grant
            .capabilities
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .map(|name| name.strip_prefix("cap_").map(str::to_owned).unwrap_or(name))
            .collect();
    }

    pub(super) fn may_read(&self, path: &Path) -> bool {
        self.read.iter().chain(&self.write).any(|granted| path.starts_with(granted))
    }

    pub(super) fn may_write(&self, path: &Path) -> bool {
        self.write.iter().any(|granted| path.starts_with(granted))
    }

    /// Whether exactly this path stands in a list: for sockets, which a folder's grant must not open by the way.
    pub(super) fn names_path(&self, path: &Path) -> bool {
        self.read.iter().chain(&self.write).any(|granted| path == granted)
    }

    pub(super) fn may_have_secret(&self, path: &Path) -> bool {
        self.secrets.iter().any(|granted| path.starts_with(granted))
    }

    pub(super) fn ring(&self, ring: Ring) -> RingDefaults {
        self.rings[usize::from(ring.number())]
    }
}

/// Lays the limits that stand in a file over a ring's own.
fn overlay(defaults: &mut RingDefaults, limits: &LimitsSpec) {
    defaults.limits = Limits {
        memory_bytes: limits.memory.map(|size| size.0).or(defaults.limits.memory_bytes),
        cpu_millis: limits.cpu.map(|cpu| cpu.0).or(defaults.limits.cpu_millis),
        tasks: limits.tasks.or(defaults.limits.tasks),
    };
    defaults.open_files = limits.files.or(defaults.open_files);
    defaults.requests_per_minute = limits.requests_per_minute.or(defaults.requests_per_minute);
}
