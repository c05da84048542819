//! The way into an agent's network: sockets that its init makes lead to the agent's ports and nowhere else, however it was launched.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use agt_rings::cgroup::Join;
use agt_rings::host::Controllers;
use agt_rings::launch::{Ahead, By, Entrance, Family, Launcher, Running, Streams};
use agt_rings::plan::Plan;
use agt_rings::ring::Ring;
use agt_rings::spec::{Inbound, Spec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrIn, connect};

use super::{WITHIN, compile, launcher, shell};

/// As root and as an ordinary user.
pub(crate) const TESTS: [super::Test; 2] = [
    ("a_socket_from_inside_leads_to_the_agent_in_every_way", a_socket_from_inside_leads_to_the_agent_in_every_way),
    ("there_is_a_way_in_only_where_it_was_asked_for", there_is_a_way_in_only_where_it_was_asked_for),
];

/// Tells whoever connects how many descriptors it has; the port is its first argument.
const GREETS: &str = "exec perl -MIO::Socket::INET -e '
    my $s = IO::Socket::INET->new(LocalAddr => \"127.0.0.1:$ARGV[0]\", Listen => 8) or die;
    open(my $f, \">\", \"up\"); close($f);
    while (my $c = $s->accept) { opendir(my $d, \"/proc/self/fd\"); print $c scalar(grep /\\d/, readdir $d); close $c }' ";

fn start(launcher: &Launcher, plan: &Plan) -> Running {
    let null = || -> OwnedFd { fs::File::options().read(true).write(true).open("/dev/null").unwrap().into() };
    launcher.launch(plan, &Streams { stdin: null(), stdout: null(), stderr: null() }, &Join::default()).unwrap()
}

fn socket(entrance: &Entrance) -> TcpStream {
    entrance.ask(Family::V4).unwrap();
    let mut fds = [PollFd::new(entrance.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)).unwrap(), 1, "the init does not answer");
    let made = entrance.take().unwrap().unwrap();
    assert_eq!(made.family, Family::V4);
    let stream = TcpStream::from(made.socket.unwrap());
    stream.set_nonblocking(false).unwrap();
    stream
}

fn reach(entrance: &Entrance, port: u16) -> nix::Result<String> {
    let mut stream = socket(entrance);
    connect(stream.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    Ok(text)
}

fn a_socket_from_inside_leads_to_the_agent_in_every_way() {
    // The host's own, at the same address as the agent's: nobody may end up there.
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = host.local_addr().unwrap().port();
    let work = tempfile::tempdir().unwrap();
    let by_fork = Launcher::start_by(By::Fork, Controllers::none("not looked at")).unwrap();
    for (ring, launcher) in [
        (Ring::R2, launcher(Ahead::Nothing)),
        (Ring::R1, launcher(Ahead::Layers)),
        // As root the later ones are prepared ahead.
        (Ring::R2, launcher(Ahead::Inits(1))),
        (Ring::R2, by_fork),
    ] {
        let spec = Spec { ring, inbound: Inbound::Open, ..shell(work.path(), &format!("{GREETS}{port}")) };
        let plan = compile(&launcher, &spec);
        for _ in 0..4 {
            let up = work.path().join("up");
            let _ = fs::remove_file(&up);
            let mut running = start(&launcher, &plan);
            let entrance = running.take_entrance().expect("the plan opens a way in");
            let began = Instant::now();
            while !up.exists() {
                assert!(began.elapsed() < WITHIN, "it does not listen");
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            // Its streams, its listener, the connection, and what it counts them by: nothing of the way in.
            assert_eq!(reach(&entrance, port).unwrap(), "6", "{ring}");
            assert_eq!(reach(&entrance, port + 1).unwrap_err(), nix::Error::ECONNREFUSED);
            running.kill_init().unwrap();
            assert!(running.wait_gone(WITHIN).unwrap());
            assert!(entrance.take().unwrap().is_none() && entrance.ask(Family::V4).is_err(), "it ends with its init");
        }
    }
    host.set_nonblocking(true).unwrap();
    assert_eq!(host.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

fn there_is_a_way_in_only_where_it_was_asked_for() {
    let work = tempfile::tempdir().unwrap();
    let launcher = launcher(Ahead::Nothing);
    for (ring, inbound) in [(Ring::R2, Inbound::Closed), (Ring::R3, Inbound::Open), (Ring::R0, Inbound::Open)] {
        let spec = Spec { ring, inbound, ..super::spec(ring, work.path(), "/usr/bin/sleep", &["sleep", "1000"]) };
        let mut running = start(&launcher, &compile(&launcher, &spec));
        assert!(running.take_entrance().is_none(), "{ring} {inbound:?}");
        running.kill_init().unwrap();
        assert!(running.wait_gone(WITHIN).unwrap());
    }
}
