//! The routes of one supervisor, and what a request is served with.

use super::call::Witness;
use super::endpoint::Extra;
use super::key::{BadKey, Key};
use super::problem::{Problem, Trouble};
use super::redact::Needles;
use super::spec::{AskUsage, Provider, Reach, RouteSpec};
use super::upstream::{Base, Client};
use crate::limit::Account;
use crate::limit::rate::{RULE, TooMany};
use crate::price::Table;
use hyper::Response;
use hyper::header::{HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What stands in the agent's variables where a library wants to see a key. It is none, and is replaced on the way.
pub const PLACEHOLDER_KEY: &str = "agt-held-by-the-supervisor";
/// Most routes.
const ROUTES_MAX: usize = 64;
/// Bytes of requests that are held at the same time, by all who share a [`Room`].
const BUFFERED_BYTES_MAX: usize = 256 << 20;

/// A route that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRoute {
    /// Too many.
    #[error("{0} model routes are more than {ROUTES_MAX}")]
    TooMany(usize),
    /// A name that can't be the first part of a path.
    #[error("model route {0:?}: a name is lower-case letters, digits and dashes, at most 32")]
    Name(String),
    /// Nothing says whose language it speaks.
    #[error("model route {0}: say `speaks: openai`, `anthropic` or `gemini`, and its `upstream`")]
    Speaks(String),
    /// Not a base URL.
    #[error("model route {route}: {url:?} is no base URL, as `https://api.example.com`")]
    Upstream {
        /// The route.
        route: String,
        /// What was written.
        url: String,
    },
    /// A key over an unencrypted connection to another machine.
    #[error("model route {0}: a key is sent over https, or to this machine")]
    KeyInClear(String),
    /// An entry of `allow`.
    #[error("model route {route}: {entry:?} is no call, as `GET /v1/files/*`")]
    Allow {
        /// The route.
        route: String,
        /// What was written.
        entry: String,
    },
    /// An entry of `headers`.
    #[error("model route {route}: {header:?} can't be passed on")]
    Header {
        /// The route.
        route: String,
        /// What was written.
        header: String,
    },
    /// A bound of nothing.
    #[error("model route {0}: idle, answer, total and answer_bytes must be above 0")]
    Bound(String),
    /// Its key can't be had.
    #[error("model route {route}")]
    Key {
        /// The route.
        route: String,
        /// Why.
        #[source]
        source: BadKey,
    },
}

/// One model route, ready.
#[derive(Debug)]
pub struct Route {
    pub(super) name: Arc<str>,
    pub(super) provider: Provider,
    pub(super) base: Arc<Base>,
    pub(super) authority: HeaderValue,
    pub(super) key: Option<(HeaderName, HeaderValue)>,
    pub(super) needles: Needles,
    pub(super) extra: Vec<Extra>,
    pub(super) headers: Vec<HeaderName>,
    pub(super) reach: Reach,
    pub(super) ask_usage: AskUsage,
    pub(super) idle: Duration,
    pub(super) answer: Duration,
    pub(super) total: Duration,
    pub(super) answer_bytes: u64,
}

impl Route {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose language it speaks.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Where it leads.
    pub fn base(&self) -> &Base {
        &self.base
    }

    fn new(name: &str, spec: &RouteSpec, key: Option<&Key>) -> Result<Self, BadRoute> {
        let own = || name.to_owned();
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(lower) {
            return Err(BadRoute::Name(name.chars().take(40).collect()));
        }
        let known = known(name);
        let provider = spec.speaks.or(known.map(|(provider, _)| provider)).ok_or_else(|| BadRoute::Speaks(own()))?;
        let url = spec.upstream.as_deref().or(known.map(|(_, url)| url)).ok_or_else(|| BadRoute::Speaks(own()))?;
        let bad_url = || BadRoute::Upstream { route: own(), url: url.chars().take(200).collect() };
        let base = Base::parse(url).ok_or_else(bad_url)?;
        let authority = HeaderValue::from_str(&base.authority()).map_err(|_| bad_url())?;
        if spec.key.is_some() && !url.starts_with("https:") && !is_own(base.host()) {
            return Err(BadRoute::KeyInClear(own()));
        }
        if spec.idle.is_zero() || spec.answer.is_zero() || spec.total.is_zero() || spec.answer_bytes == 0 {
            return Err(BadRoute::Bound(own()));
        }
        Ok(Self {
            name: name.into(),
            provider,
            base: Arc::new(base),
            authority,
            key: key.map(|key| key.header(provider)),
            needles: key.map(Key::needles).unwrap_or_default(),
            extra: spec.allow.iter().map(|entry| extra(name, entry)).collect::<Result<_, _>>()?,
            headers: spec.headers.iter().map(|header| passed(name, header)).collect::<Result<_, _>>()?,
            reach: spec.reach,
            ask_usage: spec.ask_usage,
            idle: spec.idle,
            answer: spec.answer,
            total: spec.total,
            answer_bytes: spec.answer_bytes,
        })
    }
}

/// This machine, however it is spelled usually.
fn is_own(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn known(name: &str) -> Option<(Provider, &'static str)> {
    Some(match name {
        "openai" => (Provider::OpenAi, "https://api.openai.com"),
        "anthropic" => (Provider::Anthropic, "https://api.anthropic.com"),
        "gemini" => (Provider::Gemini, "https://generativelanguage.googleapis.com"),
        _ => return None,
    })
}

fn extra(route: &str, entry: &str) -> Result<Extra, BadRoute> {
    Extra::parse(entry)
        .ok_or_else(|| BadRoute::Allow { route: route.to_owned(), entry: entry.chars().take(100).collect() })
}

/// Headers that are never the agent's, whatever the operator says: they carry keys, or belong to a connection.
const NEVER: [&str; 18] = [
    "authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
    "accept-encoding",
    "expect",
    "proxy-authorization",
    "proxy-connection",
];

fn passed(route: &str, header: &str) -> Result<HeaderName, BadRoute> {
    let bad = || BadRoute::Header { route: route.to_owned(), header: header.chars().take(100).collect() };
    let name: HeaderName = header.parse().map_err(|_| bad())?;
    match NEVER.contains(&name.as_str()) {
        true => Err(bad()),
        false => Ok(name),
    }
}

/// Room for the bytes of requests that are held at the same time, for all who share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)))
    }
}

/// All routes, immutable: another configuration is another value.
#[derive(Clone, Debug)]
pub struct Routes {
    pub(super) routes: Arc<BTreeMap<String, Route>>,
    pub(super) table: Arc<Table>,
    /// Bytes of requests that may still be held.
    pub(super) room: Arc<Semaphore>,
}

impl Routes {
    /// Routes by name, with their keys read here and now.
    pub fn new(specs: &BTreeMap<String, RouteSpec>, table: Arc<Table>) -> Result<Self, BadRoute> {
        if specs.len() > ROUTES_MAX {
            return Err(BadRoute::TooMany(specs.len()));
        }
        let mut routes = BTreeMap::new();
        for (name, spec) in specs {
            let bad = |source| BadRoute::Key { route: name.clone(), source };
            let key = spec.key.as_ref().map(Key::read).transpose().map_err(bad)?;
            routes.insert(name.clone(), Route::new(name, spec, key.as_ref())?);
        }
        Ok(Self { routes: Arc::new(routes), table, room: Room::default().0 })
    }

    /// The same routes, whose requests take their bytes from a room that others take from as well.
    #[must_use]
    pub fn within(self, room: &Room) -> Self {
        Self { room: Arc::clone(&room.0), ..self }
    }

    /// The routes.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// Whether an origin-form path is a route's, and not the proxy's own.
    pub fn claims(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The no to a request for a path of a route when its agent makes too many of any kind, in the words of the route's provider;
    /// nothing where no route has the path.
    pub fn too_many(&self, path: &str, too_many: &TooMany) -> Option<Response<String>> {
        let (route, _) = self.find(path)?;
        let message = format!("{too_many} (rule {RULE}): it holds for requests of every kind together");
        let problem = Problem::limited(Trouble::RateLimited, message, Some(too_many.retry_after));
        Some(problem.answer(route.provider))
    }

    /// The route of a path, and the path behind it.
    pub(super) fn find<'a>(&self, path: &'a str) -> Option<(&Route, &'a str)> {
        let rest = path.strip_prefix('/')?;
        let name = rest.split('/').next().unwrap_or(rest);
        Some((self.routes.get(name)?, &rest[name.len()..]))
    }
}

/// What a request is served with: the agent's side of it.
#[derive(Clone, Debug)]
pub struct Context {
    /// The limits it stands under.
    pub account: Arc<Account>,
    /// The client of the runtime that serves it.
    pub client: Client,
    /// Who is told.
    pub witness: Arc<dyn Witness>,
}

/// Checks routes without asking for their keys: what is wrong with them is wrong before anything runs.
///
/// # Errors
/// All of [`Routes::new`] but a key that can't be had.
pub fn check(name: &str, spec: &RouteSpec) -> Result<(), BadRoute> {
    Route::new(name, spec, None).map(drop)
}

/// Where a route leads, if it says so or its name does.
#[must_use]
pub fn upstream<'a>(name: &str, spec: &'a RouteSpec) -> Option<&'a str> {
    spec.upstream.as_deref().or(known(name).map(|(_, url)| url))
}

/// Variables that point an agent's libraries at its routes; `origin` is where the agent reaches the gateway, as
/// `http://127.0.0.1:8080`.
pub fn environment(specs: &BTreeMap<String, RouteSpec>, origin: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    for (name, spec) in specs {
        let (base, key) = (format!("{origin}/{name}"), PLACEHOLDER_KEY.to_owned());
        match name.as_str() {
            "openai" => {
                set("OPENAI_BASE_URL", format!("{base}/v1"));
                // The name before version 1 of its library.
                set("OPENAI_API_BASE", format!("{base}/v1"));
                set("OPENAI_API_KEY", key);
            }
            "anthropic" => {
                set("ANTHROPIC_BASE_URL", base);
                set("ANTHROPIC_API_KEY", key);
            }
            "gemini" => {
                set("GOOGLE_GEMINI_BASE_URL", base);
                set("GEMINI_API_KEY", key);
            }
            name => {
                let name = name.to_ascii_uppercase().replace('-', "_");
                let suffix = if spec.speaks == Some(Provider::OpenAi) { "/v1" } else { "" };
                set(&format!("{name}_BASE_URL"), format!("{base}{suffix}"));
                set(&format!("{name}_API_KEY"), key);
            }
        }
    }
    variables
}
