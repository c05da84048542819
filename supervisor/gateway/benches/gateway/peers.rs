//! Other proxies, set up for speed: connections to the provider kept, nothing logged, as many workers as there are cores.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Anything;
use super::children::Process;
use super::{KEY, request};

/// Where peers are looked for before the usual places.
const FOLDER: &str = "AGT_BENCH_PEERS";
const STARTS_WITHIN: Duration = Duration::from_secs(90);
/// Lines of a peer that does not start.
const SHOWN: usize = 8;

/// A proxy that runs.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) at: SocketAddr,
    pub(crate) process: Process,
    /// The key that the client has to send.
    pub(crate) key: Option<&'static str>,
}

/// What a peer is started with.
struct Setting<'a> {
    at: SocketAddr,
    upstream: SocketAddr,
    folder: &'a Path,
    workers: usize,
}

type Start = fn(PathBuf, &Setting) -> Result<Command, Anything>;

/// A peer as it is looked for.
struct Known {
    name: &'static str,
    program: &'static str,
    /// How to get it.
    how: &'static str,
    key: Option<&'static str>,
    role: Role,
    start: Start,
}

/// What it is measured as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    BeforeProvider,
    Tunnels,
}

const REVERSE: [Known; 3] = [
    Known {
        name: "nginx",
        program: "nginx",
        how: "apt install nginx-light",
        key: None,
        role: Role::BeforeProvider,
        start: nginx,
    },
    Known {
        name: "mitmproxy",
        program: "mitmproxy/bin/mitmdump",
        how: "pip install mitmproxy",
        key: Some(KEY),
        role: Role::BeforeProvider,
        start: mitmproxy,
    },
    Known {
        name: "litellm",
        program: "litellm/bin/litellm",
        how: "pip install 'litellm[proxy]'",
        key: Some(KEY),
        role: Role::BeforeProvider,
        start: litellm,
    },
];

const FORWARD: [Known; 2] = [
    Known {
        name: "tinyproxy",
        program: "tinyproxy",
        how: "apt install tinyproxy",
        key: None,
        role: Role::Tunnels,
        start: tinyproxy,
    },
    Known { name: "squid", program: "squid", how: "apt install squid", key: None, role: Role::Tunnels, start: squid },
];

/// Those that stand before a provider.
pub(crate) fn reverse(upstream: SocketAddr, folder: &Path) -> Vec<Peer> {
    REVERSE.iter().filter_map(|known| peer(known, upstream, folder)).collect()
}

/// Those that CONNECT goes through.
pub(crate) fn forward(target: SocketAddr, folder: &Path) -> Vec<Peer> {
    FORWARD.iter().filter_map(|known| peer(known, target, folder)).collect()
}

/// Starts one; says so where it isn't there or doesn't start.
fn peer(known: &Known, upstream: SocketAddr, folder: &Path) -> Option<Peer> {
    let name = known.name;
    let Some(program) = found(known.program) else {
        println!("{name}: not here, so it has no row ({}; see the head of this bench)", known.how);
        return None;
    };
    let started = || -> Result<Peer, Anything> {
        let at = free()?;
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = (known.start)(program, &Setting { at, upstream, folder: &folder, workers })?;
        let log = std::fs::File::create(folder.join("said"))?;
        command.current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start(&mut command)?;
        let ready = process.listens(at, STARTS_WITHIN).and_then(|()| match known.role {
            Role::BeforeProvider => answers(at, known.key),
            Role::Tunnels => Ok(()),
        });
        ready.map_err(|error| {
            let said = std::fs::read_to_string(folder.join("said")).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(SHOWN).collect();
            format!("{error}; the last that it said, latest first: {}", last.join(" | "))
        })?;
        Ok(Peer { name, at, process, key: known.key })
    };
    started().inspect_err(|error| println!("{name}: does not start, so it has no row: {error}")).ok()
}

/// Waits until it answers several times in a row, for some listen long before their workers are there.
fn answers(at: SocketAddr, key: Option<&str>) -> Result<(), Anything> {
    let ask = request("GET", "", key, "");
    let once = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(ask.as_bytes())?;
        let mut begin = [0; 12];
        stream.read_exact(&mut begin)?;
        Ok(begin.ends_with(b" 200"))
    };
    let (begun, mut row) = (Instant::now(), 0);
    while row < 16 {
        row = if once().unwrap_or(false) { row + 1 } else { 0 };
        std::thread::sleep(Duration::from_millis(10));
        if begun.elapsed() > STARTS_WITHIN {
            return Err(format!("no answer within {STARTS_WITHIN:?}").into());
        }
    }
    Ok(())
}

fn found(program: &str) -> Option<PathBuf> {
    let own = std::env::var_os(FOLDER).map(PathBuf::from);
    let own = own.into_iter().flat_map(|folder| [folder.join(program), folder.join("bin").join(program)]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = std::env::split_paths(&path).map(|folder| folder.join(program)).collect::<Vec<_>>();
    own.chain(usual).chain([Path::new("/usr/sbin").join(program)]).find(|path| path.is_file())
}

/// An address that nobody listens at.
fn free() -> Result<SocketAddr, Anything> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Anything> {
    let file = folder.join(name);
    std::fs::write(&file, text)?;
    Ok(file)
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn nginx(program: PathBuf, setting: &Setting) -> Result<Command, Anything> {
    let Setting { at, upstream, folder, workers } = setting;
    let user = if is_root() { "user root;" } else { "" };
    let here = folder.display();
    let text = format!(
        "{user} daemon off; worker_processes {workers}; pid {here}/pid; error_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log off; keepalive_requests 100000000; client_body_temp_path {here}/b; proxy_temp_path {here}/p;\n\
           fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
           upstream provider {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}\n\
           server {{ listen {at};\n\
             location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
               proxy_set_header Authorization \"Bearer {KEY}\"; proxy_buffering on; }} }}\n\
         }}\n"
    );
    let mut command = Command::new(program);
    command.arg("-c").arg(write(folder, "conf", &text)?).arg("-p").arg(folder).args(["-e", "stderr"]);
    Ok(command)
}

fn mitmproxy(program: PathBuf, setting: &Setting) -> Result<Command, Anything> {
    let Setting { at, upstream, folder, .. } = setting;
    let mut command = Command::new(program);
    command.args(["-q", "--mode", &format!("reverse:http://{upstream}"), "--listen-host", "127.0.0.1"]);
    command.args(["--listen-port", &at.port().to_string(), "--set", "flow_detail=0"]);
    command.arg("--set").arg(format!("confdir={}", folder.display()));
    Ok(command)
}

fn litellm(program: PathBuf, setting: &Setting) -> Result<Command, Anything> {
    let Setting { at, upstream, folder, workers } = setting;
    let text = format!(
        "model_list:\n  - model_name: gpt-4o\n    litellm_params: {{ model: openai/gpt-4o, api_base: \"http://{upstream}/v1\", api_key: {KEY} }}\n\
         litellm_settings: {{ set_verbose: false, telemetry: false, num_retries: 0 }}\n"
    );
    let path = std::env::join_paths(
        program
            .parent()
            .map(Path::to_owned)
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut command = Command::new(program);
    command.arg("--config").arg(write(folder, "config.yaml", &text)?).args(["--host", "127.0.0.1"]);
    command.args(["--port", &at.port().to_string(), "--num_workers", &workers.to_string()]);
    // Its workers take longer to start than they are given to say that they live.
    command.args(["--timeout_worker_healthcheck", "120"]);
    command
        .env("PATH", path)
        .env("HOME", folder)
        .env("LITELLM_MASTER_KEY", KEY)
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_LOG", "ERROR");
    Ok(command)
}

fn tinyproxy(program: PathBuf, setting: &Setting) -> Result<Command, Anything> {
    let Setting { at, folder, .. } = setting;
    let text = format!(
        "Port {}\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nLogFile \"/dev/null\"\nMaxClients 2000\nAllow 127.0.0.1\n",
        at.port()
    );
    let mut command = Command::new(program);
    command.arg("-d").arg("-c").arg(write(folder, "conf", &text)?);
    Ok(command)
}

fn squid(program: PathBuf, setting: &Setting) -> Result<Command, Anything> {
    let Setting { at, folder, .. } = setting;
    // One worker: several of them need shared memory, and names of it that are the whole machine's.
    let text = format!(
        "http_port {at}\nacl all_of_it src 127.0.0.1\nhttp_access allow all_of_it\ncache deny all\naccess_log none\n\
         cache_log /dev/null\ncache_store_log none\npid_filename none\nshutdown_lifetime 0 seconds\nlogfile_rotate 0\n\
         visible_hostname localhost\nnetdb_filename none\npinger_enable off\ncoredump_dir none\n"
    );
    let mut command = Command::new(program);
    command.arg("-N").arg("-f").arg(write(folder, "conf", &text)?);
    Ok(command)
}
