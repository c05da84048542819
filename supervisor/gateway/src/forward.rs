//! Plain TCP ways out: one listener, one named target.
//!
//! The agent can't choose the target: the listener's address decides it. What is said on the connection is not ours to read, so
//! the entry's `tcp:` is all there is to decide; a name is resolved and its addresses admitted anew for each connection.

use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::flow::Kind;
use crate::host::Authority;
use crate::live::{Seat, reach};
use crate::policy::{Ask, Via};
use crate::proxy;

/// Serves one connection to its end. A refusal is a closed connection: there is no protocol to say more in.
pub(crate) async fn serve(stream: TcpStream, seat: &Arc<Seat>, target: Authority) {
    let waits = seat.agent.gateway.settings.waits;
    if seat.agent.request().is_err() {
        return;
    }
    let Ok(decided) = seat.decide(Kind::Tcp, Ask::new(target, Via::Tcp)) else { return };
    let Ok(reached) = reach(&decided).await else { return };
    proxy::carry_tunnel(stream, reached, Bytes::new(), decided, waits).await;
}
