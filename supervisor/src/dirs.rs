//! Where state, sockets and configuration live: systemd's directories, else root's, else the user's (XDG).

use std::path::{Path, PathBuf};

const NAME: &str = "agt-supervise";
/// Where root's supervisor keeps its state when nothing else is said.
const ROOTS_STATE: &str = "/var/lib/agt-supervise";

/// The three directories of one supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// The store, keys, logs: survives a reboot.
    pub state: PathBuf,
    /// Sockets: gone with a reboot.
    pub runtime: PathBuf,
    /// The operator's file.
    pub config: PathBuf,
}

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// Variables by name.
    pub vars: std::collections::HashMap<String, PathBuf>,
    /// Whether we are uid 0.
    pub uid: u32,
}

impl Environment {
    /// Reads the process's own.
    #[must_use]
    pub fn of_process(state_dir: Option<PathBuf>) -> Environment {
        let names =
            ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"];
        let vars = names.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?.into()))).collect();
        Environment { state_dir, vars, uid: nix::unistd::geteuid().as_raw() }
    }

    /// Whether an ordinary user's state directory would have to be guessed: neither HOME nor anything instead of it is there.
    #[must_use]
    pub fn is_homeless(&self) -> bool {
        let named = ["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"].iter().any(|name| self.var(name).is_some());
        self.uid != 0 && self.state_dir.is_none() && !named
    }

    fn var(&self, name: &str) -> Option<&Path> {
        // XDG: a relative path is to be ignored.
        self.vars.get(name).map(PathBuf::as_path).filter(|path| path.is_absolute())
    }
}

impl Dirs {
    /// Resolves them. A given state directory also holds the sockets, so that supervisors with different ones never meet.
    #[must_use]
    pub fn resolve(environment: &Environment) -> Dirs {
        let home = environment.var("HOME").unwrap_or(Path::new("/")).to_owned();
        let root = environment.uid == 0;
        let config = if root {
            PathBuf::from("/etc").join(NAME)
        } else {
            environment.var("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), Path::to_owned).join(NAME)
        };
        if let Some(state) = environment.state_dir.as_ref().filter(|state| *state != Path::new(ROOTS_STATE)) {
            return Dirs { state: state.clone(), runtime: state.clone(), config };
        }
        // How an operator of another user names the supervisor of the system: its sockets are where root's are.
        if environment.state_dir.is_some() {
            return Dirs { state: PathBuf::from(ROOTS_STATE), runtime: PathBuf::from("/run").join(NAME), config };
        }
        let state = match environment.var("STATE_DIRECTORY") {
            Some(given) => given.to_owned(),
            None if root => PathBuf::from(ROOTS_STATE),
            None => {
                environment.var("XDG_STATE_HOME").map_or_else(|| home.join(".local/state"), Path::to_owned).join(NAME)
            }
        };
        let runtime = match (environment.var("RUNTIME_DIRECTORY"), environment.var("XDG_RUNTIME_DIR")) {
            (Some(given), _) => given.to_owned(),
            (None, _) if root => PathBuf::from("/run").join(NAME),
            (None, Some(xdg)) => xdg.join(NAME),
            (None, None) => state.clone(),
        };
        Dirs { state, runtime, config }
    }

    /// The operator socket.
    #[must_use]
    pub fn operator_socket(&self) -> PathBuf {
        self.runtime.join("operator.sock")
    }

    /// The socket over which a second `run` hands its agents over.
    #[must_use]
    pub fn handoff_socket(&self) -> PathBuf {
        self.runtime.join("handoff.sock")
    }

    /// The folder of one agent's control socket: it alone is shown to that agent.
    #[must_use]
    pub fn agent_socket_folder(&self, agent: &str) -> PathBuf {
        self.runtime.join("agents").join(agent)
    }

    /// The operator's file.
    #[must_use]
    pub fn operator_file(&self) -> PathBuf {
        self.config.join("operator.yaml")
    }

    /// Logs of agents.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Where the supervisor writes which cgroups are its own, for a sweep or a kill by another process.
    #[must_use]
    pub fn cgroup_record(&self) -> PathBuf {
        self.state.join("cgroup.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(uid: u32, vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), PathBuf::from(v))).collect();
        Environment { state_dir: None, vars, uid }
    }

    #[test]
    fn root_user_and_systemd_each_get_their_own_places() {
        let root = Dirs::resolve(&environment(0, &[("HOME", "/root")]));
        assert_eq!(root.state, Path::new("/var/lib/agt-supervise"));
        assert_eq!(root.runtime, Path::new("/run/agt-supervise"));
        let user = Dirs::resolve(&environment(
            7,
            &[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7"), ("XDG_STATE_HOME", "relative")],
        ));
        assert_eq!(user.state, Path::new("/h/.local/state/agt-supervise"));
        assert_eq!(user.runtime, Path::new("/run/user/7/agt-supervise"));
        let named = Environment { state_dir: Some(ROOTS_STATE.into()), ..environment(7, &[("HOME", "/h")]) };
        assert_eq!(Dirs::resolve(&named).operator_socket(), root.operator_socket());
        let service = Dirs::resolve(&environment(7, &[("STATE_DIRECTORY", "/s"), ("RUNTIME_DIRECTORY", "/r")]));
        assert_eq!((service.state.as_path(), service.runtime.as_path()), (Path::new("/s"), Path::new("/r")));
    }

    #[test]
    fn a_given_state_directory_holds_the_sockets_too() {
        let mut given = environment(0, &[]);
        given.state_dir = Some(PathBuf::from("/x"));
        assert_eq!(Dirs::resolve(&given).operator_socket(), Path::new("/x/operator.sock"));
    }
}
