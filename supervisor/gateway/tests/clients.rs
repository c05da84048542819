//! Programs that people use, unchanged, behind the gateway. One that isn't here is skipped, and says so.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use agt_gateway::live::Serve;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::json;

use crate::rig::{Destination, Plan, Rig, all_at, listener};

/// A command with nothing in its environment but the proxy.
pub(crate) fn run(program: &str, variables: &[(String, String)], arguments: &[&str]) -> Option<Output> {
    let found =
        std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file());
    let Some(found): Option<PathBuf> = found else {
        eprintln!("SKIP {program} is not here");
        assert!(std::env::var_os("AGT_FORBID_SKIPS").is_none(), "skips are forbidden here: {program} is missing");
        return None;
    };
    let mut command = Command::new(found);
    command.env_clear().stdin(Stdio::null()).args(arguments);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Some(command.output().unwrap())
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// As an agent gets them, but for what is reached directly: the destinations of these tests are on loopback too.
pub(crate) fn variables(rig: &Rig) -> Vec<(String, String)> {
    let mut variables = agt_gateway::proxy::environment(rig.at, None);
    assert_eq!(variables.iter().filter(|(name, _)| name.eq_ignore_ascii_case("no_proxy")).count(), 2);
    variables.retain(|(name, _)| !name.eq_ignore_ascii_case("no_proxy"));
    variables
}

fn proxy(rig: &Rig) -> String {
    format!("http://{}", rig.at)
}

#[test]
fn curl_fetches_tunnels_and_is_told_why_not() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let url = format!("http://{}/x", destination.at);
    let quiet = ["-sS", "-q", "--max-time", "10"];
    for form in [&["--proxy"][..], &["--proxytunnel", "--proxy"][..]] {
        let proxy = proxy(&rig);
        let arguments: Vec<&str> = quiet.iter().chain(form).copied().chain([proxy.as_str(), url.as_str()]).collect();
        let Some(output) = run("curl", &[], &arguments) else { return };
        assert_eq!(text(&output), "ok", "{form:?}");
    }
    // By its variables, and with an upload that waits for 100 Continue.
    let variables = variables(&rig);
    let large = "x".repeat(2_000_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &large).unwrap();
    let upload = format!("@{}", file.path().display());
    let mut arguments = quiet.to_vec();
    arguments.extend(["-H", "Expect: 100-continue", "--data-binary", &upload, &url]);
    assert_eq!(text(&run("curl", &variables, &arguments).unwrap()), "ok");
    assert!(destination.requests().last().unwrap().ends_with(&large));
    let mut arguments = quiet.to_vec();
    arguments.push("https://evil.example/");
    let denied = run("curl", &variables, &arguments).unwrap();
    assert_eq!(denied.status.code(), Some(56));
    assert!(text(&denied).contains("403"), "{}", text(&denied));
}

#[test]
fn curl_speaks_tls_through_a_tunnel_and_socks() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der()).into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let (listener, at) = listener();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((stream, _)) = listener.accept() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(session, stream);
            let mut head = [0; 4096];
            if tls.read(&mut head).is_ok_and(|read| read > 0) {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecret");
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), issued.cert.pem()).unwrap();
    let entries = json!([{ "host": "localhost", "port": at.port() }]);
    let url = format!("https://localhost:{}/", at.port());
    for (serve, scheme) in [(Serve::Proxy, "http"), (Serve::Socks, "socks5h")] {
        let rig = Plan::new(entries.clone()).serve(serve).start();
        let (proxy, root) = (format!("{scheme}://{}", rig.at), root.path().to_str().unwrap());
        let arguments = ["-sS", "-q", "--max-time", "10", "--cacert", root, "--proxy", &proxy, &url];
        let Some(output) = run("curl", &[], &arguments) else { return };
        assert_eq!(text(&output), "secret", "{scheme}");
    }
}

#[test]
fn what_is_on_loopback_is_reached_directly() {
    let destination = Destination::http();
    let rig = Plan::new(json!([])).start();
    let variables = agt_gateway::proxy::environment(rig.at, None);
    let port = destination.port();
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}/");
        let Some(output) = run("curl", &variables, &["-sS", "-q", "-4", "--max-time", "10", &url]) else { return };
        assert_eq!(text(&output), "ok");
        let script = format!("import urllib.request as u\nprint(u.urlopen('{url}', timeout=10).read().decode())");
        let Some(output) = run("python3", &variables, &["-c", &script]) else { return };
        assert_eq!(text(&output), "ok\n");
    }
    assert_eq!(rig.agent().counts().accepted, 0);
}

#[test]
fn python_reads_the_rule_in_its_exception() {
    let destination = Destination::http();
    let rig = Plan::new(all_at(destination.port())).start();
    let variables = variables(&rig);
    let script = format!(
        "import urllib.request as u\nprint(u.urlopen('http://{}/', timeout=10).read().decode())\n\
         try: u.urlopen('https://evil.example/', timeout=10)\nexcept OSError as e: print(e)\n",
        destination.at
    );
    let Some(output) = run("python3", &variables, &["-c", &script]) else { return };
    let said = text(&output);
    assert!(said.starts_with("ok\n"), "{said}");
    assert!(said.contains("Denied by policy (not-listed, rule network.default)"), "{said}");
}
