//! Sockets of services that start programs, hold keys or own the screen: to reach one is to act outside every ring.
//!
//! Only decoys under these names are called. The real ones are often made by systemd, and a mere connect would start what
//! stands behind them.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

use super::{A, Answer, Attack, D, Ready, attack};
use crate::probe::Layer::{Landlock, MountNamespace, Network};
use crate::probe::scene::Scene;

const CONTAINERS: &str = "a container with the host's files in it: root";
const KEYS: &str = "signatures with the user's keys: logins, commits, decrypted mail";
const NAMES: &str = "names asked of the world: a way out for what it has read";
const SCREEN: &str = "the user's keyboard, screen and clipboard";

const DOCKER: &str = "docker.sock";
const PODMAN: &str = "podman/podman.sock";
const CONTAINERD: &str = "containerd/containerd.sock";
const USER_BUS: &str = "user/bus";
const SSH_AGENT: &str = "ssh-agent";
const GPG_AGENT: &str = "gnupg/S.gpg-agent";
const X11_PATH: &str = "X11-unix/X0";
const WAYLAND: &str = "wayland-0";
const SYSTEM_BUS: &str = "dbus/system_bus_socket";
const RESOLVED: &str = "systemd/resolve/io.systemd.Resolve";
const NSCD: &str = "nscd/socket";
const AVAHI: &str = "avahi-daemon/socket";

/// The decoys, below the scene's `services`.
pub(in crate::probe) const PATHS: [&str; 12] =
    [DOCKER, PODMAN, CONTAINERD, USER_BUS, SSH_AGENT, GPG_AGENT, X11_PATH, WAYLAND, SYSTEM_BUS, RESOLVED, NSCD, AVAHI];
/// What follows the scene's abstract name in that of the session bus.
pub(in crate::probe) const BUS: &str = "-bus";
/// The same for the X server, which listens at a path and at an abstract name.
pub(in crate::probe) const X11: &str = "-x11";

pub(super) const ATTACKS: &[Attack] = &[
    service("service-docker", "connect to a socket like docker's", CONTAINERS, |s| path(s, DOCKER)),
    service("service-podman", "connect to a socket like podman's", CONTAINERS, |s| path(s, PODMAN)),
    service("service-containerd", "connect to a socket like containerd's", CONTAINERS, |s| path(s, CONTAINERD)),
    service(
        "service-session-bus",
        "connect to a socket like the session bus",
        "a unit that runs outside every ring (systemd-run --user)",
        |s| path(s, USER_BUS),
    ),
    service(
        "service-session-bus-abstract",
        "connect to a session bus by its abstract name",
        "a unit that runs outside every ring (systemd-run --user)",
        |s| by_name(s, BUS),
    )
    .by(&[Network, Landlock]),
    service("service-ssh-agent", "connect to a socket like ssh-agent's", KEYS, |s| path(s, SSH_AGENT)),
    service("service-gpg-agent", "connect to a socket like gpg-agent's", KEYS, |s| path(s, GPG_AGENT)),
    service("service-x11", "connect to a socket like the X server's", SCREEN, |s| path(s, X11_PATH)),
    service("service-x11-abstract", "connect to an X server by its abstract name", SCREEN, |s| by_name(s, X11))
        .by(&[Network, Landlock]),
    service("service-wayland", "connect to a socket like Wayland's", SCREEN, |s| path(s, WAYLAND)),
    service("service-system-bus", "connect to a socket like the system bus", "units, network settings, names", |s| {
        path(s, SYSTEM_BUS)
    }),
    service("service-resolved", "connect to a socket like systemd-resolved's", NAMES, |s| path(s, RESOLVED)),
    service("service-nscd", "connect to a socket like nscd's", NAMES, |s| path(s, NSCD)),
    service("service-avahi", "connect to a socket like Avahi's", "names and services of the local network", |s| {
        path(s, AVAHI)
    }),
    service("service-supervisor", "connect to a socket in the supervisor's state", "the operator's commands", |s| {
        Ok(UnixStream::connect(s.state.join("control")).map(drop)?)
    })
    .rings([D; 4]),
];

const fn service(name: &'static str, asked: &'static str, gain: &'static str, act: fn(&Scene) -> Answer) -> Attack {
    attack(name, asked, gain, act).rings([A, D, D, D]).by(&[MountNamespace])
}

fn path(scene: &Scene, name: &str) -> Answer {
    Ok(UnixStream::connect(scene.services.join(name)).map(drop)?)
}

fn by_name(scene: &Scene, name: &str) -> Answer {
    let address = SocketAddr::from_abstract_name(format!("{}{name}", scene.abstract_name)).ready("an abstract name")?;
    Ok(UnixStream::connect_addr(&address).map(drop)?)
}
