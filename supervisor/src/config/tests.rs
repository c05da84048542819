//! A small world of folders, homes and files in which the whole layer is tried from the outside.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod misspelling;
mod models;
mod operator;
mod plans;
mod ports;
mod programs;
mod schemas;
mod standing;
mod workdirs;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agt_rings::spec::Limits;

use super::*;
use agt_rings::Ring;

const FULL_AGENT: &str = include_str!("tests/full-agent.yaml");
const FULL_OPERATOR: &str = include_str!("tests/full-operator.yaml");

/// The table of SEMANTICS.
pub(super) fn rings() -> RingTable {
    let row = |memory_mib: Option<u64>, cpu_millis, tasks, open_files, requests_per_minute| RingDefaults {
        limits: Limits { memory_bytes: memory_mib.map(|mib| mib << 20), cpu_millis, tasks },
        open_files,
        requests_per_minute,
    };
    RingTable([
        row(None, None, None, None, None),
        row(Some(4096), Some(2000), Some(512), Some(4096), Some(1000)),
        row(Some(1024), Some(1000), Some(256), Some(1024), Some(100)),
        row(Some(512), Some(500), Some(64), Some(1024), Some(10)),
    ])
}

/// A home with a project in it, our own folders beside it, and a user who asks. Gone when dropped.
pub(super) struct World {
    _folder: tempfile::TempDir,
    pub(super) root: PathBuf,
    pub(super) home: PathBuf,
    pub(super) project: PathBuf,
    pub(super) around: Surroundings,
}

impl World {
    pub(super) fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let home = root.join("homes/alice");
        let project = home.join("project");
        for path in [
            &project,
            &home.join(".ssh"),
            &root.join("etc"),
            &root.join("state"),
            &root.join("run"),
            &root.join("srv/data"),
        ] {
            fs::create_dir_all(path).unwrap();
        }
        let prices = "version: 1\nkind: prices\nmodels: {our-model: {input: \"1\", output: \"2\"}}\n";
        fs::write(root.join("etc/prices.yaml"), prices).unwrap();
        let account =
            |name: &str, uid, home: &Path| Account { name: name.to_owned(), uid, gid: uid, home: home.to_path_buf() };
        let uid = nix::unistd::getuid().as_raw();
        let around = Surroundings {
            cwd: project.clone(),
            uid,
            gid: uid,
            home: Some(home.clone()),
            accounts: vec![
                account("root", 0, Path::new("/root")),
                account("alice", 4711, &home),
                account("bob", 4712, &root.join("homes/bob")),
                account("daemon", 1, Path::new("/usr/sbin")),
            ],
            groups: BTreeMap::from([("staff".to_owned(), 50), ("wheel".to_owned(), 10)]),
            config_dir: root.join("etc"),
            state_dir: root.join("state"),
            runtime_dir: root.join("run"),
            operator_file: root.join("etc/operator.yaml"),
            env: BTreeMap::from([
                ("HOME".to_owned(), home.display().to_string()),
                ("LANG".to_owned(), "en_US.UTF-8".to_owned()),
                ("OPENAI_API_KEY".to_owned(), "sk-hunter2".to_owned()),
                ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ]),
            rings: rings(),
            faults: vec!["process-hang".to_owned(), "cpu-squeeze".to_owned()],
        };
        World { _folder: folder, root, home, project, around }
    }

    /// Writes a file below the root, with its folders.
    pub(super) fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub(super) fn program(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.write(path, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(super) fn operator(&self, text: &str) -> PathBuf {
        let path = self.write("etc/operator.yaml", text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// Loads `agent.yaml` of the project with this text.
    pub(super) fn load(&self, text: &str) -> Result<AgentPlan, ConfigError> {
        self.load_with(text, &Overrides::default())
    }

    pub(super) fn load_with(&self, text: &str, overrides: &Overrides) -> Result<AgentPlan, ConfigError> {
        fs::write(self.project.join("agent.yaml"), text).unwrap();
        load_agent(Path::new("agent.yaml"), &self.around, None, overrides)
    }

    /// Loads an agent of the least lines plus these.
    pub(super) fn agent(&self, lines: &str) -> Result<AgentPlan, ConfigError> {
        self.load(&minimal(lines))
    }
}

pub(super) fn minimal(lines: &str) -> String {
    format!("version: 1\nname: a\ncommand: [/bin/sh, -c, date]\n{lines}")
}

/// The message, which must have this exit code.
pub(super) fn message<T: std::fmt::Debug>(result: Result<T, ConfigError>, exit_code: u8) -> String {
    let error = result.expect_err("must be refused");
    let text = error.render(Color::Never);
    assert_eq!(error.exit_code(), exit_code, "{text}");
    assert!(text.contains("nothing was started"), "{text}");
    text
}
