//! What a listener inside an agent's network is served with: from the plan's words to the gateway's.

use std::io;

use agt_gateway::host::{Authority, Host};
use agt_gateway::live::Serve;

use crate::config::plan::{Opening, Way};
use crate::config::spec::Target;

/// How an opening of a plan is served.
///
/// # Errors
/// A host's name that is none: a plan that was resolved has none of those.
pub(super) fn serve(opening: Opening) -> io::Result<Serve> {
    Ok(match opening.way {
        // R3's policy permits nothing, so that of the proxy only the model routes are left; what else is asked of it is a denial.
        Way::Proxy | Way::Models => Serve::Proxy,
        Way::Socks => Serve::Socks,
        Way::Forward(forward) => Serve::Tcp(match forward.target.0 {
            Target::Address(address) => Authority { host: Host::Address(address.ip()), port: address.port() },
            Target::Name { host, port } => Authority { host: Host::parse(&host).map_err(io::Error::other)?, port },
        }),
    })
}
