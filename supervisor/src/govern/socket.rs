//! The agent's own control socket: one per agent, made by the supervisor, shown to nobody else.
//!
//! Who speaks is known from the socket itself, and the peer's credentials must be the agent's: a name in a message would be
//! input. Everything is bounded: connections, the length of a line, lines a minute (of the agent's requests, which its gateway counts
//! too). A line is answered before the next one is
//! read, so an agent can't fill the supervisor's queue.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agt_gateway::limit::rate::Rate;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

use super::report::{LINE_BYTES_MAX, Reply, parse};
use crate::driver::Gathered;
use crate::driver::event::{Event, Whose};

/// The socket's name in its folder.
pub const NAME: &str = "agent.sock";
/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 8;
/// How long a connection that spoke too often is left waiting before its next line is read.
const PENALTY: Duration = Duration::from_millis(100);

/// Makes the folder and the socket in it. A socket of an earlier life is replaced.
///
/// # Errors
/// What the kernel says, with the path.
pub fn bind(folder: &Path) -> io::Result<UnixListener> {
    let at = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", folder.display()));
    // The folder itself stays: what is prepared for the agent's next life shows this very one.
    match std::fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => empty(folder).map_err(at)?,
        Ok(_) => std::fs::remove_file(folder).map_err(at)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(at(e)),
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(at)?;
    // The umask is the caller's own affair: the agent has another uid and must get through.
    for made in folder.ancestors().take(2) {
        std::fs::set_permissions(made, std::fs::Permissions::from_mode(0o755)).map_err(at)?;
    }
    // By descriptor, because sun_path holds 107 bytes and a state directory's path may be longer.
    let opened = std::fs::File::open(folder).map_err(at)?;
    let short = format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd());
    let listener = UnixListener::bind(&short).map_err(at)?;
    // The agent has another uid; who may speak is checked by credentials.
    std::fs::set_permissions(folder.join(NAME), std::fs::Permissions::from_mode(0o666)).map_err(at)?;
    Ok(listener)
}

/// Takes away what is in a folder, and leaves the folder: the socket of a life that is over, where another may follow.
///
/// # Errors
/// What the kernel says.
pub fn empty(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whom a socket serves.
#[derive(Debug, Clone)]
pub struct Served {
    /// Which life of which agent.
    pub whose: Whose,
    /// Its uid, as the supervisor sees it.
    pub uid: u32,
    /// Its requests a minute, of which each report is one.
    pub rate: Arc<Rate>,
    /// The driver's loop.
    pub events: mpsc::UnboundedSender<Event>,
}

/// Serves until the set is aborted.
pub fn serve(listener: UnixListener, served: Served, tasks: &mut JoinSet<()>) {
    tasks.spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| peer.uid() == served.uid) => {
                        let served = served.clone();
                        connections.spawn(async move {
                            // A connection that breaks is the agent's own affair.
                            let _ = converse(stream, &served).await;
                            drop(permit);
                        });
                    }
                    // Somebody else on this host: not one word.
                    Ok(_) => {}
                    // Out of descriptors, say: the listener stays readable, and trying at once would only burn CPU.
                    Err(_) => tokio::time::sleep(PENALTY).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    });
}

async fn converse(stream: UnixStream, served: &Served) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let mut line = Vec::new();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    loop {
        line.clear();
        let length = (&mut reader).take(most + 1).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        if line.len() > LINE_BYTES_MAX {
            let reply = Reply::refused(format!("a line has at most {LINE_BYTES_MAX} bytes"));
            return write.write_all(reply.line().as_bytes()).await;
        }
        let reply = match parse(line.trim_ascii_end()) {
            Err(reply) => reply,
            Ok(report) => {
                match served.rate.take() {
                    Err(too_many) => {
                        if served.rate.is_news() {
                            // The loop has ended: nobody is left to tell.
                            let throttled = Box::new(Gathered::throttled(&served.whose.agent));
                            let _ = served.events.send(Event::Passed(throttled));
                        }
                        let text = format!("{too_many}, those through the gateway included");
                        Reply::later(text, Some(too_many.retry_after.as_secs_f64()))
                    }
                    Ok(()) => {
                        let (answer, hears) = oneshot::channel();
                        if served.events.send(Event::Said(served.whose.clone(), report, answer)).is_err() {
                            return Ok(());
                        }
                        hears.await.unwrap_or_else(|_| Reply::later("the supervisor is ending", None))
                    }
                }
            }
        };
        write.write_all(reply.line().as_bytes()).await?;
        if !reply.ok {
            tokio::time::sleep(PENALTY).await;
        }
    }
}
