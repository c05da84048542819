//! Sockets: to programs on this host, to the world, and of families that no network namespace holds.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use super::{A, Answer, Attack, D, N, Need, Ready, Stopped, attack};
use crate::probe::Layer::{Capabilities, Landlock, MountNamespace, Network, Seccomp};
use crate::probe::scene::Scene;

const SERVICES: &str = "services that trust whoever is on this host: databases, docker, ssh-agent, session buses";
const OUT: &str = "a way out for what it has read, past the supervisor's gateway";
const SURFACE: &str = "kernel code that agents have no use for, bound to no network namespace";
const SNIFF: &str = "everybody's packets, and forged ones";

pub(super) const ATTACKS: &[Attack] = &[
    attack("unix-path", "connect to a pathname unix socket outside", SERVICES, |s| {
        Ok(UnixStream::connect(&s.socket).map(drop)?)
    })
    .rings([A, D, D, D])
    .by(&[MountNamespace, Landlock]),
    attack("socket-in-view", "connect to a socket in a tree declared for reading", SERVICES, |s| {
        Ok(UnixStream::connect(s.readonly.join("socket")).map(drop)?)
    })
    .by(&[MountNamespace, Seccomp]),
    attack("socket-in-workdir", "connect to another program's socket in the workdir", SERVICES, |s| {
        Ok(UnixStream::connect(s.work.join("socket")).map(drop)?)
    })
    .by(&[MountNamespace, Seccomp]),
    attack("unix-datagram", "send a datagram to a pathname unix socket outside", SERVICES, |s| {
        let socket = UnixDatagram::unbound().ready("make a unix datagram socket")?;
        Ok(socket.send_to(b"x", s.socket.with_extension("dgram")).map(drop)?)
    })
    .by(&[MountNamespace, Landlock]),
    attack("unix-abstract", "connect to an abstract unix socket outside", SERVICES, |s| {
        let address = UnixAddr::from_abstract_name(&s.abstract_name).ready("an abstract name")?;
        Ok(UnixStream::connect_addr(&address).map(drop)?)
    })
    .rings([A, D, D, D])
    .by(&[Network, Landlock]),
    attack("tcp-loopback", "connect to a TCP service on the host's 127.0.0.1", SERVICES, |s| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, s.tcp));
        Ok(TcpStream::connect_timeout(&address, Duration::from_secs(2)).map(drop)?)
    })
    .rings([A, D, D, D])
    .by(&[Network, Seccomp, Landlock]),
    attack("tcp-fast-open", "connect to it with data in the first packet (MSG_FASTOPEN)", SERVICES, fast_open)
        .by(&[Network, Seccomp, Landlock]),
    attack("udp-loopback", "send a datagram to a service on the host's 127.0.0.1", SERVICES, |s| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(socket.send_to(b"agt-probe", (Ipv4Addr::LOCALHOST, s.udp)).map(drop)?)
    })
    .rings([A, D, D, D])
    .by(&[Network, Seccomp])
    .with(&[Need::Datagram]),
    attack("route-out", "find a route to the world (192.0.2.1; no packet is sent)", OUT, |s| {
        let _unused = s;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        Ok(socket.connect((Ipv4Addr::new(192, 0, 2, 1), 53))?)
    })
    .rings([A, D, D, D])
    .by(&[Network, Seccomp]),
    attack(
        "route-metadata",
        "find a route to the cloud's metadata address (169.254.169.254; no packet is sent)",
        OUT,
        |s| {
            let _unused = s;
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            Ok(socket.connect((Ipv4Addr::new(169, 254, 169, 254), 80))?)
        },
    )
    .by(&[Network, Seccomp]),
    attack("route-resolver", "find a route to the host's resolver (no packet is sent)", OUT, |s| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        Ok(socket.connect((s.resolver, 53))?)
    })
    .rings([A, D, D, D])
    .by(&[Network, Seccomp]),
    family("socket-raw", "make a raw IP socket", SNIFF, |_| make(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP))
        .rings([D; 4])
        .by(&[Seccomp, Capabilities]),
    family("socket-packet", "make a packet socket", SNIFF, |_| make(libc::AF_PACKET, libc::SOCK_RAW, 0))
        .rings([D; 4])
        .by(&[Seccomp, Capabilities])
        .with(&[Need::Protocol("PACKET")]),
    family("socket-vsock", "make a vsock socket", "the hypervisor, through every network namespace", |_| {
        make(libc::AF_VSOCK, libc::SOCK_STREAM, 0)
    })
    .with(&[Need::Protocol("AF_VSOCK")]),
    family("socket-alg", "make an AF_ALG socket", SURFACE, |_| make(libc::AF_ALG, libc::SOCK_SEQPACKET, 0))
        .with(&[Need::Protocol("ALG")]),
    family("socket-xdp", "make an AF_XDP socket", SURFACE, |_| make(libc::AF_XDP, libc::SOCK_RAW, 0))
        .rings([D; 4])
        .by(&[Seccomp, Capabilities])
        .with(&[Need::Protocol("XDP")]),
    family("socket-mptcp", "make a multipath TCP socket", "connections that TCP rules don't see", |_| {
        make(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
    })
    .with(&[Need::Protocol("MPTCP")]),
    family("socket-netlink-generic", "make a generic netlink socket", SURFACE, |_| {
        make(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC)
    }),
    family("socket-netlink-uevent", "make a uevent netlink socket", SURFACE, |_| {
        make(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT)
    }),
    family("socket-netlink-audit", "make an audit netlink socket", SURFACE, |_| {
        make(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)
    }),
    family("socket-inet", "make a TCP socket (R3 has no network at all)", OUT, |_| {
        make(libc::AF_INET, libc::SOCK_STREAM, 0)
    })
    .rings([A, A, A, D]),
    family("socket-inet6", "make an IPv6 datagram socket (R3 has no network at all)", OUT, |_| {
        make(libc::AF_INET6, libc::SOCK_DGRAM, 0)
    })
    .rings([N, A, A, D]),
    family("listen-unbound", "listen on TCP without bind (R3 has no network at all)", OUT, |_| {
        let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        // SAFETY: numbers only.
        let ret = unsafe { libc::listen(socket.as_raw_fd(), 1) };
        if ret < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    })
    .rings([N, N, N, D]),
];

const fn family(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).by(&[Seccomp])
}

fn made(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Stopped> {
    // SAFETY: numbers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: a new descriptor of ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn make(family: i32, kind: i32, protocol: i32) -> Answer {
    made(family, kind, protocol).map(drop)
}

fn fast_open(scene: &Scene) -> Answer {
    let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: scene.tcp.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: one byte of data and an address of the size given, both living past the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            b"x".as_ptr().cast(),
            1,
            libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL,
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(std::fs::File::from(socket).flush()?)
}
