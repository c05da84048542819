//! Metrics as Prometheus sees them: the real exposition, promtool's opinion of it, a real Prometheus, the dashboard's queries.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agt_supervise::telemetry::names::{self, Metric};
use serde_json::Value;

use crate::support::{PATIENCE, Rig, Supervisor, effort, needs_root, quoted, skip, until};

// Built in: an ordinary user who runs these tests need not reach the folder they were built from.
const RULES: &str = include_str!("../supervisor/dashboards/rules.yml");
pub(crate) const DASHBOARD: &str = include_str!("../supervisor/dashboards/agents.json");

/// The shipped rules as a file.
fn shipped_rules(dir: &Path) -> PathBuf {
    let path = dir.join("shipped-rules.yml");
    std::fs::write(&path, RULES).unwrap();
    path
}

/// GET over a connection of its own; the status and the body.
fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunked(body) } else { body.to_owned() }))
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        whole.push_str(&rest[..size]);
        if size == 0 {
            break;
        }
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// Starts a supervisor on a free port and waits until an agent runs; its metrics' address.
fn start(rig: &Rig, files: &[&Path]) -> (Supervisor, String) {
    let mut command = rig.command(["run", "--metrics", "127.0.0.1:0"]);
    let child = command.args(files).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let supervisor = Supervisor { child: Some(child) };
    until("an agent runs", || {
        let ps = rig.output(["ps", "--json"]);
        ps.code == 0 && ps.stdout.contains("\"state\": \"running\"")
    });
    let address = address(&rig.ps());
    (supervisor, address)
}

pub fn address(ps: &Value) -> String {
    let url = ps["supervisor"]["metrics"].as_str().unwrap_or_else(|| panic!("no address in {ps}"));
    url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap().to_owned()
}

pub fn scrape(address: &str) -> String {
    let (status, text) = get(address, "/metrics").unwrap();
    assert_eq!(status, 200, "{text}");
    text
}

pub fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn sleeper(rig: &Rig, name: &str) -> PathBuf {
    rig.agent(name, &format!("ring: 2\n{}command: [sleep, '1000']\n", effort()))
}

pub(crate) fn has(test: &str, program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        skip(test, &format!("{program} is not installed (Debian: apt-get install prometheus)"));
    }
    found
}

fn promtool(args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The labels of a series' text.
fn labels(series: &str) -> BTreeMap<&str, &str> {
    let Some((_, inside)) = series.split_once('{') else { return BTreeMap::new() };
    let inside = inside.trim_end_matches('}');
    inside.split(',').map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k, v.trim_matches('"'))).collect()
}

fn family<'a>(name: &str, types: &BTreeMap<&'a str, &'a Metric>) -> Option<&'a Metric> {
    let whole = types.get(name).copied();
    whole.or_else(|| {
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
        types.get(stem).copied().filter(|metric| metric.kind == names::Kind::Histogram)
    })
}

#[test]
fn the_exposition_is_clean_and_holds_only_what_the_table_of_names_says() {
    let rig = Rig::new();
    let file = sleeper(&rig, "quiet");
    let (_supervisor, address) = start(&rig, &[&file]);
    let text = scrape(&address);
    if has("the_exposition_is_clean_and_holds_only_what_the_table_of_names_says", "promtool") {
        let (clean, said) = promtool(&["check", "metrics"], &text);
        assert!(clean && said.trim().is_empty(), "{said}\n{text}");
    }
    let table: BTreeMap<&str, &Metric> = names::ALL.iter().map(|metric| (metric.name, metric)).collect();
    let mut typed = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(table[name].kind.word(), kind, "{name}");
        typed.insert(name, table[name]);
    }
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let metric = family(name, &typed).unwrap_or_else(|| panic!("{name} has no TYPE"));
        let mut found = labels(series);
        found.remove("le");
        for label in metric.labels {
            let value = found.remove(label.name).unwrap_or_else(|| panic!("{series} lacks {}", label.name));
            assert!(label.values.is_empty() || label.values.contains(&value), "{series}: an open set of values");
        }
        assert!(found.is_empty(), "{series} has labels that the table doesn't know");
    }
    let running = "agt_agent_state{agent=\"quiet\",state=\"running\"}";
    assert_eq!(value(&text, running), Some(1.0), "{text}");
    assert_eq!(value(&text, "agt_agent_state{agent=\"quiet\",state=\"ended\"}"), Some(0.0));
    assert_eq!(value(&text, "agt_agent_ring{agent=\"quiet\",ring=\"2\"}"), Some(1.0));
    assert_eq!(value(&text, "agt_launch_seconds_count{ring=\"2\"}"), Some(1.0));
    assert!(value(&text, "agt_audit_records_total") >= Some(1.0), "{text}");
}

#[test]
fn health_is_told_to_service_managers() {
    let rig = Rig::new();
    let file = sleeper(&rig, "well");
    let (_supervisor, address) = start(&rig, &[&file]);
    assert_eq!(get(&address, "/livez"), Some((200, "ok\n".to_owned())));
    assert_eq!(get(&address, "/readyz"), Some((200, "ok\n".to_owned())));
    assert_eq!(get(&address, "/readyz?verbose"), Some((200, "[+]loop ok\n[+]store ok\nok\n".to_owned())));
    assert_eq!(get(&address, "/anything").map(|(status, _)| status), Some(404));
}

#[test]
fn a_taken_address_that_was_asked_for_is_refused_before_anything_starts() {
    let rig = Rig::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = rig.agent("never", &format!("ring: 2\n{}command: [touch, started]\n", effort()));
    let outcome = rig.output(["run".as_ref(), "--metrics".as_ref(), address.as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 73, "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&address) && outcome.stderr.contains("help:"), "{}", outcome.stderr);
    assert!(!rig.work.join("started").exists());
    let outcome = rig.output(["run".as_ref(), "--metrics".as_ref(), "9464".as_ref(), file.as_os_str()]);
    assert_eq!(outcome.code, 64, "{}", outcome.stderr);
}

#[test]
fn a_taken_default_is_a_warning_and_the_next_free_port_and_status_shows_it() {
    const TRIES: usize = 20;
    let (mut rig, mut supervisor, mut address, mut _ours);
    let mut tries = 0;
    loop {
        rig = Rig::new();
        // Another supervisor may have it already: taken is taken.
        _ours = TcpListener::bind("127.0.0.1:9464");
        supervisor = rig.start(&sleeper(&rig, "moved"));
        address = self::address(&rig.ps());
        if address != "127.0.0.1:9464" {
            break;
        }
        // That one has ended in between.
        tries += 1;
        assert!(_ours.is_err() && tries < TRIES, "it has a port that was taken");
        assert_eq!(rig.output(["kill", "moved", "--yes"]).code, 0);
        supervisor.wait();
    }
    assert_eq!(get(&address, "/livez").map(|(status, _)| status), Some(200));
    let status = rig.output(["status", "moved"]);
    assert!(status.stdout.contains(&format!("metrics: http://{address}/metrics")), "{}", status.stdout);
    assert_eq!(rig.output(["kill", "moved", "--yes"]).code, 0);
    let outcome = supervisor.wait();
    assert!(
        outcome.stderr.contains(&format!("warning: port 9464 is taken: metrics are at http://{address}")),
        "{}",
        outcome.stderr
    );
}

#[test]
fn without_metrics_there_is_no_port() {
    let rig = Rig::new();
    let file = sleeper(&rig, "dark");
    let child = rig
        .command(["run".as_ref(), "--metrics".as_ref(), "off".as_ref(), file.as_os_str()])
        .stderr(Stdio::null())
        .spawn();
    let _supervisor = Supervisor { child: Some(child.unwrap()) };
    until("it answers", || rig.output(["ps", "--json"]).stdout.contains("running"));
    assert_eq!(rig.ps()["supervisor"]["metrics"], Value::Null);
}

#[test]
fn deaths_and_restarts_are_counted_and_what_runs_no_more_has_no_memory() {
    let rig = Rig::new();
    let script = "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) > n; [ $n -ge 2 ] && exec sleep 1000; exit 3";
    let flaky = rig.agent(
        "flaky",
        &format!(
            "ring: 2\n{}restart: {{policy: on-failure, attempts: 5, backoff: {{initial: 50ms, max: 50ms}}}}\ncommand: [sh, -c, {}]\n",
            effort(),
            quoted(script)
        ),
    );
    let steady = sleeper(&rig, "steady");
    let (_supervisor, address) = start(&rig, &[&flaky, &steady]);
    let died = "agt_agent_deaths_total{agent=\"flaky\",cause=\"exit\"}";
    let running = "agt_agent_state{agent=\"flaky\",state=\"running\"}";
    until("it lives for the third time", || {
        let text = scrape(&address);
        value(&text, died) == Some(2.0) && value(&text, running) == Some(1.0)
    });
    let text = scrape(&address);
    assert_eq!(value(&text, "agt_agent_restarts_total{agent=\"flaky\"}"), Some(2.0));
    assert_eq!(value(&text, "agt_agent_deaths_total{agent=\"steady\",cause=\"exit\"}"), Some(0.0));
    let limited = crate::support::is_root();
    let memory = "agt_agent_memory_bytes{agent=\"flaky\"}";
    let cpu = "agt_agent_cpu_seconds_total{agent=\"flaky\"}";
    assert_eq!(value(&text, memory).is_some(), limited);
    let before = value(&text, cpu);
    assert_eq!(rig.output(["kill", "flaky", "--reason", "test", "--yes"]).code, 0);
    until("the killed agent is seen", || {
        value(&scrape(&address), "agt_agent_deaths_total{agent=\"flaky\",cause=\"killed\"}") == Some(1.0)
    });
    let text = scrape(&address);
    assert_eq!(value(&text, memory), None, "{text}");
    assert!(value(&text, cpu) >= before, "{:?} after {before:?}", value(&text, cpu));
    assert_eq!(value(&text, "agt_agent_state{agent=\"flaky\",state=\"ended\"}"), Some(1.0));
    assert!(value(&text, "agt_kill_seconds_count").is_some_and(|count| count >= 1.0), "{text}");
}

#[test]
fn a_memory_limit_that_was_met_is_counted() {
    if !needs_root("a_memory_limit_that_was_met_is_counted") {
        return;
    }
    let rig = Rig::new();
    let hog = rig.agent("hog", "ring: 2\nlimits: {memory: 32MiB}\ncommand: [sh, -c, 'exec tail /dev/zero']\n");
    let steady = sleeper(&rig, "steady");
    let (_supervisor, address) = start(&rig, &[&steady, &hog]);
    until("the hog is dead", || {
        value(&scrape(&address), "agt_agent_deaths_total{agent=\"hog\",cause=\"memory_limit\"}") == Some(1.0)
    });
    assert!(value(&scrape(&address), "agt_agent_oom_kills_total{agent=\"hog\"}") >= Some(1.0));
}

/// A Prometheus with a folder of its own that a failing test does not leave behind.
pub(crate) struct Prometheus {
    _process: Supervisor,
    address: String,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    pub(crate) fn start(target: &str, rules: &[PathBuf]) -> Prometheus {
        let dir = tempfile::Builder::new().prefix("agt-test-prometheus-").tempdir().unwrap();
        let files: Vec<String> = rules.iter().map(|path| quoted(path.to_str().unwrap())).collect();
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n- job_name: agt\n  static_configs: [{{targets: [{}]}}]\n",
            files.join(","),
            quoted(target)
        );
        std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
        // The port is free when it is looked for; should another take it before Prometheus does, the next one is tried.
        for _ in 0..5 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap().to_string();
            drop(free);
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=error")
                .current_dir(dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut process = Supervisor { child: Some(child) };
            let mut ended = false;
            until("Prometheus is ready or has ended", || {
                ended = process.child.as_mut().unwrap().try_wait().unwrap().is_some();
                ended || get(&address, "/-/ready").is_some_and(|(status, _)| status == 200)
            });
            if !ended {
                return Prometheus { _process: process, address, _dir: dir };
            }
        }
        panic!("Prometheus did not start");
    }

    fn ask(&self, path: &str) -> Value {
        let (_, body) = get(&self.address, path).unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"].clone()
    }

    /// The values of an instant query (already encoded for a URL).
    pub(crate) fn query(&self, encoded: &str) -> Vec<String> {
        let data = self.ask(&format!("/api/v1/query?query={encoded}"));
        let results = data["result"].as_array().unwrap();
        results.iter().map(|result| result["value"][1].as_str().unwrap().to_owned()).collect()
    }

    fn fires(&self, alert: &str, agent: &str) -> bool {
        let data = self.ask("/api/v1/alerts");
        data["alerts"].as_array().unwrap().iter().any(|found| {
            let labels = &found["labels"];
            found["state"] == "firing" && labels["alertname"] == alert && labels["agent"] == agent
        })
    }
}

#[test]
fn a_real_prometheus_scrapes_a_supervisor_and_its_alerts_fire() {
    if !has("a_real_prometheus_scrapes_a_supervisor_and_its_alerts_fire", "prometheus") {
        return;
    }
    let rig = Rig::new();
    let flaky = rig.agent(
        "flaky",
        &format!(
            "ring: 2\n{}restart: {{policy: on-failure, attempts: 5, backoff: {{initial: 300ms, max: 300ms}}}}\ncommand: [sh, -c, 'while [ ! -e go ]; do sleep 0.1; done; exit 9']\n",
            effort()
        ),
    );
    let steady = sleeper(&rig, "steady");
    let (_supervisor, address) = start(&rig, &[&flaky, &steady]);
    let prometheus = Prometheus::start(&address, &[shipped_rules(rig.dir.path())]);
    // An increase needs a first value to increase from.
    until("the first value is in", || prometheus.query("agt_agent_restarts_total%7Bagent%3D%22flaky%22%7D") == ["0"]);
    assert_eq!(prometheus.query("up"), ["1"]);
    std::fs::write(rig.work.join("go"), "").unwrap();
    until("the alerts fire", || {
        prometheus.fires("AgentGaveUp", "flaky") && prometheus.fires("AgentRestartsOften", "flaky")
    });
    assert!(!prometheus.fires("AgentGaveUp", "steady") && !prometheus.fires("AgentRestartsOften", "steady"));
    assert!(!prometheus.fires("AgentNotFullyEnforced", "steady"), "it has to hold for a minute");
}

#[test]
fn a_burning_budget_fires_both_in_our_burn_rates_and_in_the_rules_that_slo_rules_prints() {
    const NAME: &str = "a_burning_budget_fires_both_in_our_burn_rates_and_in_the_rules_that_slo_rules_prints";
    if !has(NAME, "prometheus") || !has(NAME, "python3") {
        return;
    }
    let rig = Rig::new();
    let script = "import os, socket, time\n\
        link = socket.socket(socket.AF_UNIX)\n\
        link.connect(os.environ['AGT_SOCKET'])\n\
        talk = link.makefile('rw')\n\
        while not os.path.exists('go'): time.sleep(0.05)\n\
        for n in range(30):\n    \
            talk.write('{\"task\":\"start\",\"id\":\"%d\"}\\n{\"task\":\"end\",\"id\":\"%d\",\"outcome\":\"bad\"}\\n' % (n, n))\n    \
            talk.flush(); talk.readline(); talk.readline()\n\
        time.sleep(1000)\n";
    std::fs::write(rig.work.join("wrong.py"), script).unwrap();
    let file = rig.agent(
        "wrong",
        &format!(
            "ring: 2\n{}command: [python3, wrong.py]\nslos:\n- {{name: answers, sli: correctness, objective: 95%, minimum_events: 5, remedies: [{{on: exhausted, action: alert}}]}}\n",
            effort()
        ),
    );
    let printed = rig.output(["slo".as_ref(), "rules".as_ref(), file.as_os_str()]);
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let rules = rig.dir.path().join("slo-rules.yml");
    std::fs::write(&rules, &printed.stdout).unwrap();
    let (_supervisor, address) = start(&rig, &[&file]);
    let prometheus = Prometheus::start(&address, &[shipped_rules(rig.dir.path()), rules]);
    let bad = "agt_slo_events_total%7Bagent%3D%22wrong%22%2Cslo%3D%22answers%22%2Coutcome%3D%22bad%22%7D";
    until("the first value is in", || prometheus.query(bad) == ["0"]);
    std::fs::write(rig.work.join("go"), "").unwrap();
    until("our own burn rate fires", || prometheus.fires("AgentBudgetBurnsFast", "wrong"));
    until("the printed rules fire", || prometheus.fires("AgtErrorBudgetBurnsFast", "wrong"));
    let text = scrape(&address);
    let slo = |name: &str, more: &str| value(&text, &format!("{name}{{agent=\"wrong\",slo=\"answers\"{more}}}"));
    assert_eq!(slo("agt_slo_objective_ratio", ""), Some(0.95));
    assert_eq!(slo("agt_slo_budget_left_ratio", ""), Some(0.0));
    // Every event was bad: 1 by 0.05.
    assert!((slo("agt_slo_burn_ratio", ",window=\"5m\"").unwrap() - 20.0).abs() < 0.01, "{text}");
    assert_eq!(slo("agt_slo_status", ",status=\"exhausted\""), Some(1.0));
    assert_eq!(value(&text, "agt_breaker_state{agent=\"wrong\",state=\"closed\"}"), Some(1.0));
    assert!(value(&text, "agt_trust_score{agent=\"wrong\"}").is_some());
}

#[test]
fn the_shipped_rules_fire_on_what_they_are_for_and_on_nothing_else() {
    if !has("the_shipped_rules_fire_on_what_they_are_for_and_on_nothing_else", "promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let tests = dir.path().join("tests.yml");
    let burn = |slo: &str, window: &str, rate: f64| {
        format!(
            "  - {{series: 'agt_slo_burn_ratio{{agent=\"a\",slo=\"{slo}\",window=\"{window}\"}}', values: '{rate}x10'}}\n"
        )
    };
    let mut text = format!(
        "rule_files: [{}]\nevaluation_interval: 1m\ntests:\n- interval: 1m\n  input_series:\n",
        quoted(shipped_rules(dir.path()).to_str().unwrap())
    );
    // One burns in both windows, one burned an hour ago and has stopped, one burns slowly.
    for (slo, windows) in [
        ("fast", [("1h", 20.0), ("5m", 15.0), ("6h", 1.0), ("30m", 1.0)]),
        ("over", [("1h", 20.0), ("5m", 0.0), ("6h", 7.0), ("30m", 0.0)]),
        ("slow", [("3d", 2.0), ("6h", 2.0), ("1d", 2.0), ("2h", 2.0)]),
    ] {
        windows.iter().for_each(|(window, rate)| text.push_str(&burn(slo, window, *rate)));
    }
    text.push_str("  - {series: 'agt_audit_lost_total{instance=\"h\"}', values: '0x5 1x5'}\n");
    text.push_str("  - {series: 'agt_agent_enforced{agent=\"a\",extent=\"partial\"}', values: '1x10'}\n");
    text.push_str("  promql_expr_test:\n  - eval_time: 8m\n");
    text.push_str("    expr: count by (alertname, severity, agent, slo, instance) (ALERTS{alertstate='firing'})\n    exp_samples:\n");
    for labels in [
        "alertname='AgentBudgetBurnsFast', severity='page', agent='a', slo='fast'",
        "alertname='AgentBudgetBurns', severity='ticket', agent='a', slo='slow'",
        "alertname='AuditRecordsLost', severity='page', instance='h'",
        "alertname='AgentNotFullyEnforced', severity='ticket', agent='a'",
    ] {
        text.push_str(&format!("    - {{labels: {}, value: 1}}\n", quoted(&format!("{{{labels}}}"))));
    }
    std::fs::write(&tests, text).unwrap();
    let (ok, said) = promtool(&["test", "rules", tests.to_str().unwrap()], "");
    assert!(ok, "{said}");
}

/// Names of metrics in a query: words that are no label, function or number, as far as our own names go.
fn named(query: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    query
        .split(|c| !word(c))
        .filter(|name| ["agt_", "process_", "gen_ai_client_"].iter().any(|ours| name.starts_with(ours)))
        .collect()
}

fn known(name: &str) -> bool {
    let types: BTreeMap<&str, &Metric> = names::ALL.iter().map(|metric| (metric.name, metric)).collect();
    family(name, &types).is_some()
}

/// The labels that a query matches or groups by.
fn labels_of_query(query: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let matched = query.split('{').skip(1).flat_map(|rest| rest.split('}').next().unwrap().split(','));
    let grouped = query.split("by (").skip(1).flat_map(|rest| rest.split(')').next().unwrap().split(','));
    let names = matched.chain(grouped).map(|label| label.trim().split(|c| !word(c)).next().unwrap());
    names.filter(|label| !label.is_empty()).collect()
}

#[test]
fn the_dashboard_shows_denials_by_the_labels_that_a_scrape_has() {
    let rig = Rig::new();
    let script = "import ctypes, os, time\n\
        ctypes.CDLL(None).syscall(165 if os.uname().machine == 'x86_64' else 40, 0, 0, 0, 0, 0)\ntime.sleep(1000)\n";
    std::fs::write(rig.work.join("mounts.py"), script).unwrap();
    let lines = format!("ring: 2\n{}stdio: prefixed\ncommand: [python3, mounts.py]\n", effort());
    let file = rig.agent("denied", &lines);
    let (_supervisor, address) = start(&rig, &[&file]);
    let series = "agt_denials_total{agent=\"denied\",class=\"mounts\"}";
    until("the denial is counted", || value(&scrape(&address), series) == Some(1.0));
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|p| p["targets"].as_array().into_iter().flatten())
        .map(|t| t["expr"].as_str().unwrap())
        .collect();
    let of_denials = queries.iter().find(|query| query.contains("agt_denials_total")).expect("a panel shows denials");
    assert!(of_denials.contains("by (agent, class)"), "{of_denials}");
    // No query of the whole dashboard matches or groups by a label that its metric lacks: it would show nothing, for ever.
    let types: BTreeMap<&str, &Metric> = names::ALL.iter().map(|metric| (metric.name, metric)).collect();
    for query in queries {
        let metrics: Vec<&Metric> = named(query).iter().map(|name| family(name, &types).unwrap()).collect();
        for label in labels_of_query(query) {
            let has = |metric: &Metric| metric.labels.iter().any(|known| known.name == label);
            assert!(["instance", "le"].contains(&label) || metrics.iter().all(|m| has(m)), "{label} in {query}");
        }
    }
}

#[test]
fn every_query_of_the_dashboard_parses_and_names_only_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert_eq!(dashboard["uid"], "agt-supervise-agents");
    let variables: Vec<&str> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert!(variables.contains(&"agent"));
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<String> = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(queries.len() > 20);
    let ids: std::collections::BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same id");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (index, query) in queries.iter().enumerate() {
        let names = named(query);
        assert!(!names.is_empty(), "{query}");
        names.iter().for_each(|name| assert!(known(name), "{name} in {query}"));
        let plain = query.replace("$__rate_interval", "1m");
        // What is left of variables stands in matchers and is text there.
        for variable in plain.split('$').skip(1) {
            assert!(variables.iter().any(|name| variable.starts_with(name)), "${variable}");
        }
        rules.push_str(&format!("  - {{record: 'q{index}', expr: {}}}\n", quoted(&plain)));
    }
    let expressions = RULES.lines().filter(|line| !line.trim_start().starts_with('#'));
    expressions.flat_map(named).for_each(|name| assert!(known(name), "{name} in rules.yml"));
    if !has("every_query_of_the_dashboard_parses_and_names_only_metrics_that_exist", "promtool") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("queries.yml");
    std::fs::write(&file, rules).unwrap();
    for path in [file, shipped_rules(dir.path())] {
        let (ok, said) = promtool(&["check", "rules", path.to_str().unwrap()], "");
        assert!(ok, "{said}");
    }
}
