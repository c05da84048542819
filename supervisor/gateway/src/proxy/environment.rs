//! Variables by which an agent's programs find the proxy without being changed.

use std::net::SocketAddr;
use std::path::Path;

/// What is reached directly: the agent's own loopback, with its model routes and whatever it listens on itself. No brackets around
/// `::1`: httpx takes what it can't read as an address for a domain, finds `1]` to be no port, and doesn't start.
const DIRECT: &str = "localhost,127.0.0.1,::1";

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

/// Variables that name a file of roots. All but the last two make a program believe that file *instead of* what it believes
/// otherwise; those add it.
const ROOTS: [&str; 11] = [
    // OpenSSL (Python's ssl, httpx, aiohttp, Ruby, .NET), Go, Rust's rustls-native-certs, uv, curl built with OpenSSL. OpenSSL still looks
    // into its directory of roots beside it.
    "SSL_CERT_FILE",
    // Python's requests, and with it much of what is installed by pip; instead of certifi.
    "REQUESTS_CA_BUNDLE",
    // curl, and requests where the one above is missing.
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    // npm reads its settings from the environment in either case.
    "NPM_CONFIG_CAFILE",
    // The AWS command line and botocore.
    "AWS_CA_BUNDLE",
    // gRPC's C core (Python, Ruby).
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
];

/// Variables by which an agent's programs believe the certificates in a file: a [`Bundle`](crate::intercept::Bundle), which has the
/// host's usual roots too, because most of these variables replace those.
///
/// Not reached by variables: Java (a key store of its own), wget with GnuTLS and browsers (the system's own file), and programs that
/// believe one certificate only. A path that isn't UTF-8 is not found by anybody.
#[must_use]
pub fn trust_environment(path: &Path) -> Vec<(String, String)> {
    let path = path.to_string_lossy();
    ROOTS.iter().map(|name| ((*name).to_owned(), path.clone().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn what_is_reached_directly_are_names_and_bare_addresses_that_httpx_can_read() {
        let listener = "127.0.0.1:20789".parse().unwrap();
        for (name, value) in
            environment(listener, None).iter().filter(|(name, _)| name.eq_ignore_ascii_case("no_proxy"))
        {
            for item in value.split(',') {
                let is_name = item.bytes().all(|b| b.is_ascii_alphabetic());
                assert!(is_name || item.parse::<IpAddr>().is_ok(), "{name}: {item}");
            }
        }
    }
}
