//! What stands outside for the whole session: sockets, IPC objects, a planted descriptor; and victims, one a run.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::answering::Answering;
use super::attack::inherit::Planted;
use super::attack::stand::VICTIM;
use super::attack::{self, MARK, egress, ipc, services};
use super::scene::{Interface, Victim};
use super::{ATTACK_NAME, Error};
use crate::plan::Ids;

/// The session's directory; everything in it goes when this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
}

impl Directory {
    pub(super) fn make(wanted: Option<&Path>) -> Result<Directory, Error> {
        let place = wanted.map_or_else(usual_place, Path::to_owned);
        let place = place.canonicalize().map_err(Error::decoy(format!("find {}", place.display())))?;
        let path = place.join(format!("agt-probe-{}", std::process::id()));
        let making = || Error::decoy(format!("make {}", path.display()));
        fs::DirBuilder::new().mode(0o755).create(&path).map_err(making())?;
        let directory = Directory { path };
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&directory.path, mode)
            .map_err(Error::decoy(format!("open {}", directory.path.display())))?;
        Ok(directory)
    }
}

/// On a disk rather than in memory: there id-mapped mounts work on older kernels too.
fn usual_place() -> PathBuf {
    let disk = Path::new("/var/tmp");
    if disk.is_dir() { disk.to_owned() } else { std::env::temp_dir() }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.path);
    }
}

/// Decoys that stand for the whole session.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) socket: PathBuf,
    pub(super) abstract_name: String,
    pub(super) services: PathBuf,
    pub(super) tcp: u16,
    pub(super) tcp6: Option<u16>,
    /// What answers at the port of a model's route, outside.
    pub(super) model: Answering,
    pub(super) udp: UdpSocket,
    pub(super) stub: UdpSocket,
    /// What came to either, and was not asked for yet.
    heard: Mutex<BTreeSet<Vec<u8>>>,
    pub(super) ipc: ipc::Decoys,
    _planted: Planted,
    _listeners: (UnixListener, TcpListener, Option<TcpListener>),
    _datagrams: [UnixDatagram; 2],
    _services: Vec<UnixListener>,
}

impl Standing {
    /// Must come before the launcher is started, which shall inherit what is planted.
    pub(super) fn raise(directory: &Path) -> Result<Standing, Error> {
        Standing::try_raise(directory).map_err(Error::decoy("raise sockets, IPC objects and a descriptor"))
    }

    fn try_raise(directory: &Path) -> io::Result<Standing> {
        let planted = directory.join("planted");
        fs::write(&planted, MARK)?;
        let socket = directory.join("decoy.sock");
        let by_path = UnixListener::bind(&socket)?;
        let datagram = socket.with_extension("dgram");
        let by_datagram = UnixDatagram::bind(&datagram)?;
        for path in [&socket, &datagram] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        }
        let abstract_name = format!("agt-probe-{}", std::process::id());
        let services_at = directory.join("run");
        let mut services = services_below(&services_at)?;
        for name in ["", services::BUS, services::X11] {
            let address = SocketAddr::from_abstract_name(format!("{abstract_name}{name}"))?;
            services.push(UnixListener::bind_addr(&address)?);
        }
        let by_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // A host without IPv6 has no such service to attack.
        let by_port6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let stub = UdpSocket::bind((egress::STUB, 0))?;
        udp.set_nonblocking(true)?;
        stub.set_nonblocking(true)?;
        let by_name = SocketAddr::from_abstract_name(format!("{abstract_name}{}", egress::DATAGRAMS))?;
        let by_name = UnixDatagram::bind_addr(&by_name)?;
        Ok(Standing {
            socket,
            abstract_name,
            services: services_at,
            tcp: by_port.local_addr()?.port(),
            model: Answering::start(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?)?,
            tcp6: by_port6.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| address.port()),
            udp,
            stub,
            heard: Mutex::default(),
            ipc: ipc::Decoys::make()?,
            _planted: Planted::plant(&planted)?,
            _listeners: (by_path, by_port, by_port6),
            _datagrams: [by_datagram, by_name],
            _services: services,
        })
    }

    /// Whether a datagram of this attack came in since the last look. Loopback delivers within the sender's call, so this needs no
    /// waiting. Attacks run side by side: each has its own name in its datagrams.
    pub(super) fn has_datagram(&self, attack: &str) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0u8; 64];
        for socket in [&self.udp, &self.stub] {
            while let Ok(length) = socket.recv(&mut buffer) {
                // Anybody on this host can send us anything: only what is an attack's is kept.
                if attack::all().any(|attack| attack.name.as_bytes() == &buffer[..length]) {
                    heard.insert(buffer[..length].to_vec());
                }
            }
        }
        heard.remove(attack.as_bytes())
    }
}

/// Sockets under the names of services that start programs or hold keys: decoys, because whoever connects to a real one may
/// start it.
fn services_below(directory: &Path) -> io::Result<Vec<UnixListener>> {
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let mut listeners = Vec::new();
    for name in services::PATHS {
        let path = directory.join(name);
        for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(directory)) {
            fs::create_dir_all(folder)?;
            open(folder, 0o755)?;
        }
        listeners.push(UnixListener::bind(&path)?);
        open(&path, 0o777)?;
    }
    Ok(listeners)
}

/// The first resolver that is no address of this host's own; else one that nobody has (RFC 5737).
pub(super) fn resolver() -> IpAddr {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    let mut servers = servers.filter(|server| !server.is_loopback() && server.is_ipv4());
    servers.next().unwrap_or(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)))
}

/// The host's address on the way to its resolver, or to the world. No packet is sent.
pub(super) fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((resolver(), 53)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

/// An interface that is not loopback: one with a link-local address before others.
pub(super) fn interface() -> Option<Interface> {
    // Address, number, prefix, scope, flags, name; the first two in hexadecimal.
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let linked = addresses.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, index, .., name] = fields[..] else { return None };
        let index = u32::from_str_radix(index, 16).ok()?;
        address.starts_with("fe80").then(|| Interface { name: name.to_owned(), index })
    });
    linked.or_else(|| {
        let names = fs::read_dir("/sys/class/net").ok()?.flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let name = names.find(|name| name != "lo")?;
        let index = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()?;
        Some(Interface { name, index })
    })
}

/// A process outside, of the given user; ended and reaped when dropped.
#[derive(Debug)]
pub(super) struct Target {
    child: Child,
    pub(super) victim: Victim,
}

impl Target {
    pub(super) fn start(user: Option<Ids>, home: &Path) -> io::Result<Target> {
        let mut command = attacker(user);
        command.arg(VICTIM).env("AGT_PROBE_VICTIM", MARK).current_dir(home);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.as_mut() {
            BufReader::new(out).read_line(&mut line)?;
        }
        match serde_json::from_str(&line) {
            Ok(victim) => Ok(Target { child, victim }),
            Err(e) => {
                let _ended = child.kill().and_then(|()| child.wait());
                Err(e.into())
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // SIGKILL also ends what an attack has stopped. A child of ours that we have not reaped: the pid is still its own.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Our own executable as an attacker, unconfined, as `user` (or as the caller).
pub(super) fn attacker(user: Option<Ids>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(ATTACK_NAME);
    if let Some(ids) = user {
        // std drops supplementary groups along with uid 0.
        command.uid(ids.uid).gid(ids.gid);
    }
    command
}
