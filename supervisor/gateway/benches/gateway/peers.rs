//! Other proxies, set up for speed: connections to the provider kept, nothing logged, as many workers as there are cores.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Anything;
use super::KEY;
use super::children::Process;

/// Where peers are looked for before the usual places.
const FOLDER: &str = "AGT_BENCH_PEERS";
const STARTS_WITHIN: Duration = Duration::from_secs(90);

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

/// Those that stand before a provider.
pub(crate) fn reverse(upstream: SocketAddr, folder: &Path) -> Result<Vec<Peer>, Anything> {
    let all: [(&'static str, &str, &str, Option<&'static str>, Start); 3] = [
        ("nginx", "nginx", "apt install nginx-light", None, nginx),
        ("mitmproxy", "mitmproxy/bin/mitmdump", "pip install mitmproxy", Some(KEY), mitmproxy),
        ("litellm", "litellm/bin/litellm", "pip install 'litellm[proxy]'", None, litellm),
    ];
    Ok(all
        .into_iter()
        .filter_map(|(name, program, how, key, start)| peer(name, program, how, key, start, upstream, folder))
        .collect())
}

/// Those that CONNECT goes through.
pub(crate) fn forward(port: u16, folder: &Path) -> Result<Vec<Peer>, Anything> {
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let all: [(&'static str, Start); 2] = [("tinyproxy", tinyproxy), ("squid", squid)];
    Ok(all
        .into_iter()
        .filter_map(|(name, start)| peer(name, name, &format!("apt install {name}"), None, start, upstream, folder))
        .collect())
}

/// Starts one; says so where it isn't there or doesn't start.
fn peer(
    name: &'static str,
    program: &str,
    how: &str,
    key: Option<&'static str>,
    start: Start,
    upstream: SocketAddr,
    folder: &Path,
) -> Option<Peer> {
    let Some(program) = found(program) else {
        println!("{name}: not here, so it has no row ({how}; see the head of this bench)");
        return None;
    };
    let started = || -> Result<Peer, Anything> {
        let at = free()?;
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = start(program, &Setting { at, upstream, folder: &folder, workers })?;
        let log = std::fs::File::create(folder.join("said"))?;
        command.current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process::start(&mut command)?;
        process.listens(at, STARTS_WITHIN).map_err(|error| {
            let said = std::fs::read_to_string(folder.join("said")).unwrap_or_default();
            format!("{error}; it said: {said}")
        })?;
        // Some workers come up later than the first.
        std::thread::sleep(Duration::from_secs(1));
        Ok(Peer { name, at, process, key })
    };
    started().inspect_err(|error| println!("{name}: does not start, so it has no row: {error}")).ok()
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
