//! Variables by which an agent's programs find the proxy without being changed.

use std::net::SocketAddr;

/// What is reached directly: the agent's own loopback, with its model routes and whatever it listens on itself.
const DIRECT: &str = "localhost,127.0.0.1,::1,[::1]";

/// Variables for programs that read them: curl, git, pip, npm, cargo, Go, Python's and Rust's HTTP libraries.
///
/// Both cases, because curl reads `http_proxy` in small letters only and others only capitals. Node reads them when its own switch
/// is on (22.21, 24). `ALL_PROXY` isn't set: with SOCKS in it, Python's httpx (and with it the SDKs of model providers) refuses to
/// start unless an extra package is installed. Where there is a SOCKS listener, `AGT_SOCKS5` names it, for ssh's `ProxyCommand` and
/// the like.
#[must_use]
pub fn environment(http: SocketAddr, socks: Option<SocketAddr>) -> Vec<(String, String)> {
    let proxy = format!("http://{http}");
    let both =
        |name: &str, value: &str| [(name.to_owned(), value.to_owned()), (name.to_ascii_uppercase(), value.to_owned())];
    let mut variables: Vec<_> = [both("http_proxy", &proxy), both("https_proxy", &proxy), both("no_proxy", DIRECT)]
        .into_iter()
        .flatten()
        .collect();
    variables.push(("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
    if let Some(socks) = socks {
        variables.push(("AGT_SOCKS5".to_owned(), socks.to_string()));
    }
    variables
}
