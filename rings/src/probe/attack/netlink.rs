//! Changes of the network itself: interfaces, addresses, routes and rules by netlink, and what sockets may claim to be.
//!
//! Requests name an interface that no host has, or something that is there already: the kernel looks at the capability first and
//! then finds nothing to do, so that a success changes nothing either.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::egress::interface;
use super::sockets::made;
use super::{Answer, Attack, Ready, Stopped, attack};
use crate::probe::Layer::{Capabilities, Network, Seccomp};
use crate::probe::scene::Scene;

const ROADS: &str = "a road of its own out of the empty network";
const FORGES: &str = "packets and connections in somebody else's name";

/// An interface's number that the kernel never gives.
const NOBODY: i32 = 0x7fff_fff0;
/// The kernel answers within the call.
const ANSWERS_WITHIN_SECONDS: i64 = 2;
/// RFC 5737.
const DOCUMENTED: [u8; 4] = [192, 0, 2, 1];

// linux/netlink.h and linux/rtnetlink.h.
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const NEW_NEIGHBOUR: u16 = 28;
const NEW_RULE: u16 = 32;
const NEW_QUEUE: u16 = 36;

pub(super) const ATTACKS: &[Attack] = &[
    admin("netlink-route-add", "add a route", ROADS, |_| {
        // Family, lengths, table main, protocol static, scope, unicast; RTA_DST and RTA_OIF.
        let mut body = vec![libc::AF_INET as u8, 32, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        attribute(&mut body, 1, &DOCUMENTED);
        attribute(&mut body, 4, &NOBODY.to_ne_bytes());
        request(NEW_ROUTE, CREATE | EXCLUSIVE, &body)
    })
    .past(&[Errno::ENODEV]),
    admin("netlink-address-add", "give an interface an address", ROADS, |_| {
        let mut body = vec![libc::AF_INET as u8, 32, 0, 0];
        body.extend(NOBODY.to_ne_bytes());
        attribute(&mut body, 2, &DOCUMENTED);
        request(NEW_ADDRESS, CREATE | EXCLUSIVE, &body)
    })
    .past(&[Errno::ENODEV]),
    // The name is taken already; without a kind no module is asked for.
    admin("netlink-link-add", "make an interface, as a veth pair is made", ROADS, |_| {
        let mut body = link(0, 0);
        attribute(&mut body, 3, b"lo\0");
        request(NEW_LINK, CREATE | EXCLUSIVE, &body)
    })
    .past(&[Errno::EEXIST]),
    admin("netlink-link-up", "bring an interface up", ROADS, |_| {
        request(NEW_LINK, 0, &link(NOBODY, libc::IFF_UP as u32))
    })
    .past(&[Errno::ENODEV]),
    admin("netlink-neighbour-add", "say which machine has an address", FORGES, |_| {
        let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
        body.extend(NOBODY.to_ne_bytes());
        // Permanent.
        body.extend([0x80, 0, 0, 0]);
        attribute(&mut body, 1, &DOCUMENTED);
        request(NEW_NEIGHBOUR, CREATE | EXCLUSIVE, &body)
    })
    .past(&[Errno::ENODEV]),
    // A family that has no rules.
    admin("netlink-rule-add", "add a routing rule", ROADS, |_| {
        request(NEW_RULE, CREATE | EXCLUSIVE, &[0x7f, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])
    })
    .past(&[Errno::EAFNOSUPPORT]),
    admin("netlink-queue-add", "hang a traffic rule on an interface", "to redirect or hold up packets", |_| {
        let mut body = vec![0; 20];
        body[4..8].copy_from_slice(&NOBODY.to_ne_bytes());
        request(NEW_QUEUE, CREATE | EXCLUSIVE, &body)
    })
    .past(&[Errno::ENODEV]),
    attack("netlink-links", "find an interface of the host by netlink", "who the host is", |s| {
        finds(&interface(s)?.name)
    })
    .by(&[Network, Seccomp]),
    admin("interface-flags", "set the flags of the loopback interface, as they are", ROADS, |_| same_flags()),
    admin("so-mark", "mark packets for the host's routing and firewall (SO_MARK)", ROADS, |_| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_MARK, 1)
    }),
    admin("ip-transparent", "take connections to other hosts (IP_TRANSPARENT)", FORGES, |_| {
        let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        option(socket.as_fd(), libc::SOL_IP, libc::IP_TRANSPARENT, 1)
    }),
    admin("tcp-repair", "write the state of a connection by hand (TCP_REPAIR)", FORGES, |_| {
        let socket = made(libc::AF_INET, libc::SOCK_STREAM, 0)?;
        option(socket.as_fd(), libc::SOL_TCP, libc::TCP_REPAIR, 1)
    }),
    admin("bind-privileged", "take a port below 1024", "to be taken for a service of the host", |_| {
        Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 1)).map(drop)?)
    })
    .past(&[Errno::EADDRINUSE]),
    attack("so-bindtodevice", "tie a socket to an interface of the host (SO_BINDTODEVICE)", ROADS, |s| {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let name = &interface(s)?.name;
        // SAFETY: a name of the length given, living past the call.
        let ret = unsafe {
            let (level, number) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
            libc::setsockopt(socket.as_raw_fd(), level, number, name.as_ptr().cast(), name.len() as u32)
        };
        if ret < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
    })
    .by(&[Network, Seccomp]),
];

/// What takes a capability over the network namespace.
const fn admin(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).by(&[Capabilities, Seccomp])
}

/// setsockopt(2) of one int.
pub(super) fn option(socket: BorrowedFd<'_>, level: i32, number: i32, value: i32) -> Answer {
    let length = size_of_val(&value) as u32;
    // SAFETY: one int, living past the call.
    let ret = unsafe { libc::setsockopt(socket.as_raw_fd(), level, number, (&raw const value).cast(), length) };
    if ret < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((value.len() as u16 + 4).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// ifinfomsg: these flags, and no others, are to be as given.
fn link(index: i32, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

/// Asks the kernel, and hands what it answers to `each`, message by message, until that has enough.
fn ask<T>(kind: u16, flags: u16, body: &[u8], mut each: impl FnMut(u16, &[u8]) -> Option<T>) -> Result<T, Stopped> {
    let socket = made(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWERS_WITHIN_SECONDS)).ready("bound the wait")?;
    let mut asked = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    asked.extend(kind.to_ne_bytes());
    asked.extend((REQUEST | flags).to_ne_bytes());
    asked.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    asked.extend(body);
    // SAFETY: as many bytes as there are.
    let sent = unsafe { libc::send(socket.as_raw_fd(), asked.as_ptr().cast(), asked.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error().into());
    }
    let mut answer = vec![0u8; 32 * 1024];
    loop {
        // SAFETY: the kernel writes at most as many bytes as there are.
        let read = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        let read = usize::try_from(read).map_err(|_| Stopped::from(io::Error::last_os_error()))?;
        let mut rest = &answer[..read];
        while let Some((length, kind)) = header(rest) {
            if let Some(found) = each(kind, &rest[HEADER..length]) {
                return Ok(found);
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
    }
}

/// Length and kind of the first message, when it is whole.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let [a, b, c, d, kind_low, kind_high, ..] = *bytes else { return None };
    let length = u32::from_ne_bytes([a, b, c, d]) as usize;
    (HEADER..=bytes.len()).contains(&length).then(|| (length, u16::from_ne_bytes([kind_low, kind_high])))
}

/// A change; the kernel's acknowledgement is the answer.
fn request(kind: u16, flags: u16, body: &[u8]) -> Answer {
    let said = ask(kind, ACK | flags, body, |kind, body| {
        let error = (kind == ERROR).then(|| body.first_chunk::<4>()).flatten()?;
        Some(i32::from_ne_bytes(*error))
    })?;
    if said == 0 { Ok(()) } else { Err(Stopped::Errno(-said)) }
}

/// Whether the kernel lists an interface of this name.
pub(super) fn finds(name: &str) -> Answer {
    let wanted = format!("{name}\0");
    let is_there = ask(GET_LINK, DUMP, &link(0, 0), |kind, body| match kind {
        DONE | ERROR => Some(false),
        _ => body.windows(wanted.len()).any(|window| window == wanted.as_bytes()).then_some(true),
    })?;
    if is_there { Ok(()) } else { Err(Stopped::Nothing("it is not listed".to_owned())) }
}

fn same_flags() -> Answer {
    let socket = made(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: ifreq is plain old data; all zeroes is a valid value.
    let mut lo: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in lo.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    for number in [libc::SIOCGIFFLAGS, libc::SIOCSIFFLAGS] {
        // SAFETY: both requests take one ifreq, which outlives the call.
        if unsafe { libc::ioctl(socket.as_raw_fd(), number as _, &raw mut lo) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(())
}
