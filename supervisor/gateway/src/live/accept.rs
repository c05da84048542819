//! Accepting: one task a listener, connections spread over the threads.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::Limit;
use super::agent::Shared;
use super::seat::{Rooms, Sitting};
use crate::host::Authority;
use crate::publish::{Exposure, Inside};
use crate::{forward, proxy, publish, socks};

/// Between two tries to accept when this process is out of descriptors or memory.
const SHORT_OF_ROOM: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Clone, Debug)]
pub enum Serve {
    /// HTTP: the forward proxy and the model routes. The listener is inside the ring.
    Proxy,
    /// SOCKS5. The listener is inside the ring.
    Socks,
    /// Everything to this one target, decided anew for each connection. The listener is inside the ring.
    Tcp(Authority),
    /// A port of the agent, shown to the host. The listener is outside.
    Publish {
        /// The agent's port.
        port: u16,
        /// How to get inside.
        inside: Arc<dyn Inside>,
        /// Whether the listener may be seen from other hosts.
        exposure: Exposure,
    },
}

/// Begins to accept.
pub(super) fn start(shared: &Arc<Shared>, listener: TcpListener, serve: Serve) -> io::Result<AbortHandle> {
    if let Serve::Publish { exposure, .. } = &serve {
        exposure.check(&listener)?;
    }
    listener.set_nonblocking(true)?;
    let home = shared.gateway.pick(None);
    // The reactor that watches the listener is that of the thread that it is accepted on.
    let listener = {
        let _in = shared.gateway.workers[home].handle.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let task = shared.gateway.workers[home].handle.spawn(accept(Arc::clone(shared), listener, serve, home));
    Ok(task.abort_handle())
}

/// An accepting task that dies of a panic takes the agent's network with it.
struct Mourner<'a>(&'a Arc<Shared>);

impl Drop for Mourner<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lost();
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener, serve: Serve, home: usize) {
    let _mourner = Mourner(&shared);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // ECONNABORTED and the like concern one connection; EMFILE passes when others close, and until then the
            // listener stays readable: trying at once would only burn the CPU that the closing needs.
            Err(_) => {
                tokio::time::sleep(SHORT_OF_ROOM).await;
                continue;
            }
        };
        // One connection a listener waits here for its places; those behind it stand in the kernel's backlog.
        let all = &shared.gateway.room;
        let (Some(mine), Some(ours)) =
            (room(&shared, &shared.room, Limit::Connections).await, room(&shared, all, Limit::AllConnections).await)
        else {
            return;
        };
        let Some(sitting) = shared.sit(Rooms([mine, ours])) else { return };
        carry(&shared, stream, sitting, &serve, home);
    }
}

/// Waits for a place.
async fn room(shared: &Shared, room: &Arc<Semaphore>, limit: Limit) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(room).try_acquire_owned() {
        return Some(place);
    }
    shared.limited(limit);
    Arc::clone(room).acquire_owned().await.ok()
}

fn carry(shared: &Shared, stream: TcpStream, sitting: Sitting, serve: &Serve, home: usize) {
    let chosen = shared.gateway.pick(Some(home));
    let worker = &shared.gateway.workers[chosen];
    let load = worker.load.enter();
    let (serve, client) = (serve.clone(), worker.client.clone());
    let seat = Arc::clone(sitting.seat());
    // A socket that can't be used is one that the other side closed already.
    let Ok(handed) = Handed::new(stream, chosen == home) else { return };
    let task = worker.handle.spawn(async move {
        let _load = load;
        let Ok(stream) = handed.take() else { return };
        match serve {
            Serve::Proxy => proxy::serve(stream, sitting.seat(), client).await,
            Serve::Socks => socks::serve(stream, sitting.seat()).await,
            Serve::Tcp(target) => forward::serve(stream, sitting.seat(), target).await,
            Serve::Publish { port, inside, .. } => publish::serve(stream, sitting.seat(), port, &*inside).await,
        }
    });
    seat.attach(task.abort_handle());
}

/// A connection on its way to the thread that carries it: only one that moves to another has to leave its reactor.
enum Handed {
    Stays(TcpStream),
    Moves(std::net::TcpStream),
}

impl Handed {
    fn new(stream: TcpStream, stays: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(if stays { Self::Stays(stream) } else { Self::Moves(stream.into_std()?) })
    }

    fn take(self) -> io::Result<TcpStream> {
        match self {
            Self::Stays(stream) => Ok(stream),
            Self::Moves(stream) => TcpStream::from_std(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::flow::Label;
    use crate::hook::Hooks;
    use crate::live::{Gateway, Happening, Outside, Settings};
    use crate::policy::{OwnAddresses, Policy};
    use crate::resolve::Resolver;
    use crate::route::{SystemDial, trust};

    #[tokio::test]
    async fn an_accepting_task_that_panics_takes_the_network_and_tells() {
        let outside = Outside {
            resolver: Resolver::system(crate::resolve::Bounds::default()),
            own: OwnAddresses::default(),
            dial: Arc::new(SystemDial),
            tls: trust(&[]).unwrap(),
        };
        let settings = Settings { threads: 1, ..Settings::default() };
        let (gateway, mut happenings) = Gateway::start(settings, Hooks::default(), outside).unwrap();
        let agent = gateway.register(Label::from("researcher"), Policy::nothing(1));
        let shared = Arc::clone(agent.shared());
        let rooms = || async {
            let all = &shared.gateway.room;
            Rooms([
                room(&shared, &shared.room, Limit::Connections).await.unwrap(),
                room(&shared, all, Limit::AllConnections).await.unwrap(),
            ])
        };
        assert!(shared.sit(rooms().await).is_some());
        let mourned = Arc::clone(&shared);
        let died = tokio::spawn(async move {
            let _mourner = Mourner(&mourned);
            panic!("a fault of ours");
        });
        assert!(died.await.is_err());
        assert!(matches!(happenings.next().await, Some(Happening::Lost { agent }) if agent.as_str() == "researcher"));
        assert!(shared.sit(rooms().await).is_none(), "a connection still finds a seat");
    }
}
