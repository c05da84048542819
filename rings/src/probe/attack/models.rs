//! R3 with access to models: one listener more, and no network for it. Its way is that to the listener and no other.
//!
//! These are launched with the access that an operator's line gives, and what stands behind the listener answers any call.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::time::Duration;

use nix::errno::Errno;

use super::egress::own_address;
use super::sockets::{fast_open, listen_unbound, made};
use super::{A, Answer, Attack, D, N, Need, Ready, Stopped, allowed, attack, holds_mark};
use crate::probe::Layer::{Capabilities, Landlock, MountNamespace, Network, Seccomp};
use crate::probe::scene::Scene;

const OUT: &str = "a way out for what it has read, past the model's route";
const SERVICES: &str = "services that trust whoever is on this host";
const SURFACE: &str = "kernel code that a client of HTTP has no use for";
const CALLED: &str = "to be called by others, where it should only call";
/// How long a call and its answer may take.
const WITHIN: Duration = Duration::from_secs(5);
/// RFC 863; nobody has served it for decades.
const DISCARD: u16 = 9;

pub(super) const ATTACKS: &[Attack] = &[
    reaching(
        "model-other-port",
        "connect to another port of 127.0.0.1, where a service of the host listens",
        SERVICES,
        |s| connected((Ipv4Addr::LOCALHOST.into(), s.tcp)),
    )
    .by(&[Network, Landlock]),
    reaching("model-any-address", "the same by 0.0.0.0", SERVICES, |s| {
        connected((Ipv4Addr::UNSPECIFIED.into(), s.tcp))
    })
    .by(&[Network, Landlock]),
    reaching("model-fast-open", "the same with data in the first packet (MSG_FASTOPEN)", SERVICES, fast_open)
        .by(&[Network, Landlock]),
    reaching("model-own-address", "connect to the host by its own address, at a port where nobody listens", OUT, |s| {
        connected((own_address(s)?, DISCARD))
    })
    .past(&[Errno::ECONNREFUSED])
    .by(&[Network, Landlock]),
    // Landlock knows ports only: here the namespace is alone.
    reaching(
        "model-port-at-own-address",
        "connect to the host by its own address, at the port of the model's route",
        OUT,
        |s| connected((own_address(s)?, s.model)),
    )
    .past(&[Errno::ECONNREFUSED])
    .by(&[Network]),
    reaching("model-unix-path", "connect to a pathname unix socket outside", SERVICES, |s| {
        Ok(UnixStream::connect(&s.socket).map(drop)?)
    })
    .by(&[MountNamespace, Landlock]),
    reaching("model-unix-abstract", "connect to an abstract unix socket outside", SERVICES, |s| {
        let address = UnixAddr::from_abstract_name(&s.abstract_name).ready("an abstract name")?;
        Ok(UnixStream::connect_addr(&address).map(drop)?)
    })
    .by(&[Network, Landlock]),
    reaching("model-v6", "make a TCP socket of IPv6", OUT, |_| made(libc::AF_INET6, libc::SOCK_STREAM, 0).map(drop)),
    reaching("model-udp", "make a UDP socket", OUT, |_| made(libc::AF_INET, libc::SOCK_DGRAM, 0).map(drop)),
    reaching("model-udp-v6", "make a UDP socket of IPv6", OUT, |_| made(libc::AF_INET6, libc::SOCK_DGRAM, 0).map(drop)),
    reaching("model-raw", "make a raw IP socket", OUT, |_| {
        made(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).map(drop)
    })
    .by(&[Seccomp, Capabilities]),
    reaching("model-multipath", "make a multipath TCP socket", "connections that TCP rules don't see", |_| {
        made(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP).map(drop)
    })
    .with(&[Need::Models, Need::Protocol("MPTCP")]),
    reaching("model-netlink", "make a routing netlink socket", SURFACE, |_| {
        made(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE).map(drop)
    }),
    reaching("model-vsock", "make a vsock socket", "the hypervisor, through every network namespace", |_| {
        made(libc::AF_VSOCK, libc::SOCK_STREAM, 0).map(drop)
    })
    .with(&[Need::Models, Need::Protocol("AF_VSOCK")]),
    reaching("model-bind", "give a TCP socket an address", CALLED, |_| {
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)?)
    })
    .by(&[Seccomp, Landlock]),
    reaching("model-listen", "listen on TCP without bind", CALLED, |_| listen_unbound()),
    reaching("model-ip-option", "set an option of IP", SURFACE, |_| {
        let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0).map_err(not_made)?;
        super::netlink::option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_TTL, 64)
    }),
    allowed("model-call", "call a model at its route and read the answer", |s| {
        let mut route = TcpStream::connect_timeout(&at((Ipv4Addr::LOCALHOST.into(), s.model)), WITHIN)?;
        // As clients of HTTP do.
        route.set_nodelay(true)?;
        route.set_read_timeout(Some(WITHIN))?;
        route.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = Vec::new();
        route.read_to_end(&mut answer)?;
        if holds_mark(&answer) { Ok(()) } else { Err(Stopped::Nothing("it was not answered".to_owned())) }
    })
    .rings([N, N, N, A])
    .with(&[Need::Models]),
];

const fn reaching(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([N, N, N, D]).by(&[Seccomp]).with(&[Need::Models])
}

fn at((address, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(address, port)
}

fn connected(to: (IpAddr, u16)) -> Answer {
    Ok(TcpStream::connect_timeout(&at(to), WITHIN).map(drop)?)
}

fn not_made(stopped: Stopped) -> Stopped {
    Stopped::Setup(format!("make a socket: {stopped:?}"))
}
