//! Sockets: to programs on this host, to the world, and of families that no network namespace holds.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use nix::errno::Errno;

use super::{A, Answer, Attack, D, N, Need, Ready, Stopped, attack};
use crate::probe::Layer::{Capabilities, Landlock, MountNamespace, Network, Seccomp};
use crate::probe::scene::Scene;

const SERVICES: &str = "services that trust whoever is on this host: databases, docker, ssh-agent, session buses";
const OUT: &str = "a way out for what it has read, past the supervisor's gateway";
const SURFACE: &str = "kernel code that agents have no use for, bound to no network namespace";
const UNSEEN: &str = "connections that rules on TCP and UDP don't see";
const RADIO: &str = "devices near the host";
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
        Ok(socket.send_to(b"udp-loopback", (Ipv4Addr::LOCALHOST, s.udp)).map(drop)?)
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
    unloaded("socket-alg", "make an AF_ALG socket", SURFACE, |_| make(libc::AF_ALG, NO_TYPE, 0)),
    unloaded("socket-smc", "make an AF_SMC socket", UNSEEN, |_| make(AF_SMC, NO_TYPE, 0)),
    unloaded("socket-kcm", "make an AF_KCM socket", UNSEEN, |_| make(AF_KCM, NO_TYPE, 0)),
    unloaded("socket-tipc", "make a TIPC socket", SURFACE, |_| make(libc::AF_TIPC, NO_TYPE, 0)),
    unloaded("socket-rds", "make an RDS socket", SURFACE, |_| make(libc::AF_RDS, NO_TYPE, 0)),
    unloaded("socket-bluetooth", "make a Bluetooth socket", RADIO, |_| make(libc::AF_BLUETOOTH, NO_TYPE, 0)),
    unloaded("socket-can", "make a CAN socket", "the buses of machines", |_| make(libc::AF_CAN, NO_TYPE, 0)),
    unloaded("socket-ppp", "make a PPP socket", SURFACE, |_| make(libc::AF_PPPOX, NO_TYPE, 0)),
    unloaded("socket-key", "make an IPsec key socket", SURFACE, |_| make(libc::AF_KEY, NO_TYPE, 0)),
    unloaded("socket-qrtr", "make a Qualcomm IPC socket", SURFACE, |_| make(AF_QIPCRTR, NO_TYPE, 0)),
    family("socket-udplite", "make a UDP-Lite socket", UNSEEN, |_| {
        make(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)
    })
    .with(&[Need::Protocol("UDP-Lite")]),
    // Where groups are not let: EACCES, which comes after the filter.
    family("socket-ping", "make an ICMP echo socket (ping)", "a way out that looks like ping", |_| {
        make(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)
    })
    .past(&[Errno::EACCES]),
    family("socket-raw-v6", "make a raw ICMPv6 socket", SNIFF, |_| {
        make(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6)
    })
    .rings([D; 4])
    .by(&[Seccomp, Capabilities]),
    unloaded("socket-netlink-diag", "make a socket-diagnosis netlink socket", "everybody's connections", |_| {
        make(libc::AF_NETLINK, libc::SOCK_STREAM, libc::NETLINK_INET_DIAG)
    }),
    unloaded("socket-netlink-netfilter", "make a netfilter netlink socket", SURFACE, |_| {
        make(libc::AF_NETLINK, libc::SOCK_STREAM, libc::NETLINK_NETFILTER)
    }),
    unloaded("socket-netlink-xfrm", "make an IPsec netlink socket", SURFACE, |_| {
        make(libc::AF_NETLINK, libc::SOCK_STREAM, libc::NETLINK_XFRM)
    }),
    unloaded("socket-netlink-connector", "make a process-event netlink socket", "every start of a program", |_| {
        make(libc::AF_NETLINK, libc::SOCK_STREAM, libc::NETLINK_CONNECTOR)
    }),
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
    family("listen-unbound", "listen on TCP without bind (R3 has no network at all)", OUT, |_| listen_unbound())
        .rings([N, N, N, D]),
];

/// A type that no family has. The kernel says so (EINVAL) before it looks for the family, so that no module is loaded by asking, and
/// after the filters have looked at it.
const NO_TYPE: i32 = 15;
const AF_KCM: i32 = 41;
const AF_QIPCRTR: i32 = 42;
const AF_SMC: i32 = 43;

/// A family or protocol that needn't be loaded here: asked for with a type that it doesn't have. Netlink has its own word for that.
const fn unloaded(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    family(name, asked, gain, act).past(&[Errno::EINVAL, Errno::ESOCKTNOSUPPORT])
}

const fn family(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).by(&[Seccomp])
}

pub(super) fn made(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Stopped> {
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

pub(super) fn listen_unbound() -> Answer {
    let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0)?;
    // SAFETY: numbers only.
    let ret = unsafe { libc::listen(socket.as_raw_fd(), 1) };
    if ret < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

pub(super) fn fast_open(scene: &Scene) -> Answer {
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
