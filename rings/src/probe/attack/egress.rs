//! Ways out of an empty network: by TCP and UDP in every spelling of an address, by another namespace, by a device.
//!
//! What aims at the world only asks for a route or connects to a port where nobody listens: no packet leaves the host. What aims
//! at the host is caught by decoys on its loopback.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;

use super::processes::settled_init;
use super::sockets::made;
use super::{Answer, Attack, N, Need, Ready, Stopped, attack, open, proc_path};
use crate::probe::Layer::{Capabilities, Landlock, MountNamespace, Network, NonDumpable, Pid, Seccomp};
use crate::probe::scene::{Interface, Scene};

const OUT: &str = "a way out for what it has read, past the supervisor's gateway";
const SERVICES: &str = "services that trust whoever is on this host";
const NAMES: &str = "names asked of the world: a way out for what it has read";
const OTHERS: &str = "the host's network, or another agent's";
const LEARNS: &str = "who the host is and who it talks to";

pub(super) const ATTACKS: &[Attack] = &[
    tcp("tcp-zero", "connect to a service on the host by 0.0.0.0", |s| stream((Ipv4Addr::UNSPECIFIED, s.tcp))),
    tcp("tcp-v4-mapped", "connect to a service on the host by ::ffff:127.0.0.1", |s| {
        stream((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), s.tcp))
    }),
    tcp("tcp-loopback-v6", "connect to a service on the host's ::1", |s| {
        stream((Ipv6Addr::LOCALHOST, s.tcp6.ok_or("no IPv6 here").ready("find the decoy")?))
    }),
    tcp("tcp-unspec", "dissolve a connection to itself and connect the socket to the host", tcp_unspec),
    tcp("tcp-fast-open-connect", "connect to it with the connection put off (TCP_FASTOPEN_CONNECT)", put_off),
    tcp("tcp-own-address", "connect to the host by its own address, at a port where nobody listens", |s| {
        stream((own_address(s)?, DISCARD))
    })
    .past(&[Errno::ECONNREFUSED]),
    datagram("udp-v4-mapped", "send a datagram to the host by ::ffff:127.0.0.1", |s| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        Ok(socket.send_to(b"udp-v4-mapped", (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), s.udp)).map(drop)?)
    }),
    datagram("udp-sendmsg", "send a datagram to the host by sendmsg with a name", |s| message(s, Call::One)),
    datagram("udp-sendmmsg", "send a datagram to the host by sendmmsg with a name", |s| message(s, Call::Many)),
    datagram("udp-connected-elsewhere", "send to the host on a socket that is connected to itself", |s| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        Ok(socket.send_to(b"udp-connected-elsewhere", (Ipv4Addr::LOCALHOST, s.udp)).map(drop)?)
    }),
    datagram("udp-unspec", "dissolve a connected socket (AF_UNSPEC) and connect it to the host", |s| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(socket.local_addr()?)?;
        dissolve(socket.as_fd())?;
        socket.connect((Ipv4Addr::LOCALHOST, s.udp))?;
        Ok(socket.send(b"udp-unspec").map(drop)?)
    }),
    attack("dns-stub", "ask a resolver on 127.0.0.53", NAMES, |s| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(socket.send_to(b"dns-stub", (STUB, s.stub)).map(drop)?)
    })
    .by(&[Network, Seccomp])
    .with(&[Need::Datagram]),
    attack("dns-tcp", "ask a resolver on the host's own address by TCP", NAMES, |s| stream((own_address(s)?, 53)))
        .past(&[Errno::ECONNREFUSED])
        .by(&[Network, Seccomp]),
    route("route-broadcast", "find a way to everybody (255.255.255.255; no packet is sent)", |_| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_broadcast(true)?;
        Ok(socket.connect((Ipv4Addr::BROADCAST, 9))?)
    }),
    route("route-multicast", "find a way to a multicast group (224.0.0.251; no packet is sent)", |_| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        Ok(socket.connect((Ipv4Addr::new(224, 0, 0, 251), 5353))?)
    }),
    route("route-out-v6", "find a route to the world by IPv6 (2001:db8::1; no packet is sent)", |_| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        Ok(socket.connect((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 53))?)
    }),
    route("route-link-local-v6", "find a way to a neighbour on the host's link (fe80::1; no packet is sent)", |s| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        let neighbour = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        Ok(socket.connect(SocketAddr::V6(SocketAddrV6::new(neighbour, 9, 0, interface(s)?.index)))?)
    }),
    attack("bind-own-address", "take a port of the host's own address", "to answer in the host's place", |s| {
        Ok(UdpSocket::bind((own_address(s)?, 0)).map(drop)?)
    })
    .by(&[Network, Seccomp]),
    attack("unix-abstract-datagram", "send a datagram to an abstract unix socket outside", SERVICES, |s| {
        let address = UnixAddr::from_abstract_name(format!("{}{DATAGRAMS}", s.abstract_name)).ready("a name")?;
        let socket = UnixDatagram::unbound().ready("make a unix datagram socket")?;
        Ok(socket.send_to_addr(b"x", &address).map(drop)?)
    })
    .by(&[Network, Landlock]),
    attack("network-of-victim", "enter the network namespace of a process outside", OTHERS, |s| {
        enter(s.victim.ok_or("there is no victim").ready("find one")?.pid)
    })
    .by(&[Pid, Landlock, Seccomp, Capabilities])
    .with(&[Need::Victim]),
    attack("network-of-init", "enter the network namespace of the init", OTHERS, |s| enter(settled_init(s)))
        .by(&[NonDumpable, Landlock, Seccomp, Capabilities])
        .with(&[Need::Victim]),
    attack("unshare-user-network", "make a user and a network namespace in one call", OTHERS, |_| {
        Ok(nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?)
    })
    .by(&[Seccomp]),
    device("tun-open", "open /dev/net/tun", OUT, |_| read_write("/dev/net/tun")).with(&[Need::Device("tun")]),
    device("vsock-open", "open /dev/vsock", "the hypervisor's number for this host", |_| read_write("/dev/vsock"))
        .with(&[Need::Device("vsock")]),
    attack("proc-net-tcp", "find a listener of the host in /proc/net/tcp", LEARNS, |s| {
        let port = format!(":{:04X} ", s.tcp);
        shows("/proc/net/tcp", &port)
    })
    .by(&[Network, MountNamespace]),
    attack("proc-net-unix", "find an abstract socket of the host in /proc/net/unix", LEARNS, |s| {
        shows("/proc/net/unix", &s.abstract_name)
    })
    .by(&[Network, MountNamespace]),
    attack("proc-net-dev", "find an interface of the host in /proc/net/dev", LEARNS, |s| {
        shows("/proc/net/dev", &format!("{}:", interface(s)?.name))
    })
    .by(&[Network, MountNamespace]),
    attack("sys-class-net", "find an interface of the host in /sys/class/net", LEARNS, |s| {
        Ok(std::fs::metadata(Path::new("/sys/class/net").join(&interface(s)?.name)).map(drop)?)
    })
    .by(&[MountNamespace]),
];

/// Where a stub resolver listens (systemd-resolved's default).
pub(in crate::probe) const STUB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
/// What follows the scene's abstract name in that of the datagram decoy.
pub(in crate::probe) const DATAGRAMS: &str = "-dgram";
/// RFC 863; nobody has served it for decades.
const DISCARD: u16 = 9;

const fn tcp(name: &'static str, asked: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, SERVICES, act).by(&[Network, Seccomp])
}

const fn datagram(name: &'static str, asked: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, SERVICES, act).by(&[Network, Seccomp]).with(&[Need::Datagram])
}

const fn route(name: &'static str, asked: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, OUT, act).by(&[Network, Seccomp])
}

const fn device(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    let mut device = attack(name, asked, gain, act).by(&[MountNamespace, Landlock]);
    device.expected[0] = N;
    device
}

fn stream(to: (impl Into<IpAddr>, u16)) -> Answer {
    Ok(TcpStream::connect_timeout(&SocketAddr::new(to.0.into(), to.1), Duration::from_secs(2)).map(drop)?)
}

pub(super) fn own_address(scene: &Scene) -> Result<IpAddr, Stopped> {
    scene.own_address.ok_or("the host has none").ready("find an address of the host")
}

pub(super) fn interface(scene: &Scene) -> Result<&Interface, Stopped> {
    scene.interface.as_ref().ok_or("the host has none").ready("find an interface of the host")
}

fn read_write(path: &str) -> Answer {
    open(Path::new(path), OFlag::O_RDWR | OFlag::O_NONBLOCK).map(drop)
}

fn shows(path: &str, what: &str) -> Answer {
    let text = std::fs::read_to_string(path)?;
    if text.contains(what) { Ok(()) } else { Err(Stopped::Nothing("it is not there".to_owned())) }
}

fn enter(pid: i32) -> Answer {
    let namespace = open(&proc_path(pid, "ns/net"), OFlag::O_RDONLY)?;
    Ok(nix::sched::setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

fn ipv4(address: Ipv4Addr, port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    }
}

/// connect(2) without the library around it.
fn connect(socket: BorrowedFd<'_>, address: &libc::sockaddr_in) -> Answer {
    let length = size_of_val(address) as u32;
    // SAFETY: an address of the size given, living past the call.
    let ret = unsafe { libc::connect(socket.as_raw_fd(), std::ptr::from_ref(address).cast(), length) };
    if ret < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

fn dissolve(socket: BorrowedFd<'_>) -> Answer {
    let nowhere = libc::sockaddr_in { sin_family: libc::AF_UNSPEC as u16, ..ipv4(Ipv4Addr::UNSPECIFIED, 0) };
    connect(socket, &nowhere)
}

fn tcp_unspec(scene: &Scene) -> Answer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    dissolve(socket.as_fd())?;
    connect(socket.as_fd(), &ipv4(Ipv4Addr::LOCALHOST, scene.tcp))
}

fn put_off(scene: &Scene) -> Answer {
    let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    super::netlink::option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)
        .map_err(|stopped| Stopped::Setup(format!("set TCP_FASTOPEN_CONNECT: {stopped:?}")))?;
    connect(socket.as_fd(), &ipv4(Ipv4Addr::LOCALHOST, scene.tcp))?;
    // SAFETY: one byte that lives past the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), b"x".as_ptr().cast(), 1, libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

#[derive(Clone, Copy)]
enum Call {
    One,
    Many,
}

/// A datagram with the address in the message.
fn message(scene: &Scene, call: Call) -> Answer {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut address = ipv4(Ipv4Addr::LOCALHOST, scene.udp);
    let text: &[u8] = match call {
        Call::One => b"udp-sendmsg",
        Call::Many => b"udp-sendmmsg",
    };
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    // SAFETY: mmsghdr is plain old data; all zeroes is an empty message.
    let mut many: libc::mmsghdr = unsafe { std::mem::zeroed() };
    many.msg_hdr.msg_name = (&raw mut address).cast();
    many.msg_hdr.msg_namelen = size_of_val(&address) as u32;
    many.msg_hdr.msg_iov = &raw mut part;
    many.msg_hdr.msg_iovlen = 1;
    let sent = match call {
        // SAFETY: one message whose name and part live past the call; the kernel only reads them.
        Call::One => unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const many.msg_hdr, 0) },
        // SAFETY: as above; the kernel writes the length into the one message.
        Call::Many => unsafe { libc::sendmmsg(socket.as_raw_fd(), &raw mut many, 1, 0) as isize },
    };
    if sent < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}
