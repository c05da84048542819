//! What single entries mean.

use super::*;
use crate::host::Name;

#[test]
fn nothing_listed_is_nothing_allowed() {
    let policy = Policy::nothing(7);
    assert_eq!(policy.generation, 7);
    assert_eq!(denied(&policy, &connect("evil.example:443")), ("network.default".into(), "not-listed"));
}

#[test]
fn an_entry_allows_its_host_at_its_port_and_nothing_else() {
    let policy = listed(r#"[{"host": "a.example"}, {"host": "b.example", "ports": [80, 8443]}]"#, WIDE);
    assert_eq!(allowed(&policy, &connect("A.example.:443")).rule, RuleId::Agent(0));
    assert_eq!(allowed(&policy, &connect("b.example:8443")).rule, RuleId::Agent(1));
    assert_eq!(denied(&policy, &connect("a.example:80")), ("network[0]".into(), "port"));
    assert_eq!(denied(&policy, &connect("b.example:443")), ("network[1]".into(), "port"));
    for other in ["x.a.example:443", "example:443", "aa.example:443", "a.example.evil:443", "a-example:443"] {
        assert_eq!(denied(&policy, &connect(other)), ("network.default".into(), "not-listed"), "{other}");
    }
}

#[test]
fn a_star_is_exactly_one_label() {
    let policy = listed(r#"[{"host": "*.example.com"}]"#, WIDE);
    for inside in ["a.example.com:443", "xn--bcher-kva.example.com:443", "A.EXAMPLE.COM.:443", "_x.example.com:443"] {
        assert!(is_allowed(&policy, &connect(inside)), "{inside}");
    }
    for outside in [
        "example.com:443",
        "a.b.example.com:443",
        "aexample.com:443",
        "a.example.com.evil.org:443",
        "com:443",
        "1.1.1.1:443",
    ] {
        assert!(!is_allowed(&policy, &connect(outside)), "{outside}");
    }
}

#[test]
fn deny_wins_in_either_list_and_is_named() {
    let policy = listed(
        r#"[{"host": "*.example"}, {"deny": "ads.example"}]"#,
        r#"{"network": [{"deny": "mine.example", "ports": [443]}, {"host": "*"}]}"#,
    );
    assert!(is_allowed(&policy, &connect("a.example:443")));
    assert_eq!(denied(&policy, &connect("ads.example:443")), ("network[1]".into(), "denied"));
    assert_eq!(denied(&policy, &connect("mine.example:443")), ("operator.network[0]".into(), "denied"));
    // Also when a host is listed word by word.
    let policy = listed(r#"[{"deny": "a.example"}, {"host": "a.example"}]"#, WIDE);
    assert_eq!(denied(&policy, &connect("a.example:443")), ("network[0]".into(), "denied"));
}

#[test]
fn the_ceiling_is_above_every_entry() {
    let agent = r#"[{"host": "a.example"}, {"host": "b.example"}, {"host": "c.example", "port": 80}]"#;
    let policy = listed(agent, r#"{"network": [{"host": "a.example"}, {"host": "c.example"}]}"#);
    assert!(is_allowed(&policy, &connect("a.example:443")));
    assert_eq!(denied(&policy, &connect("b.example:443")), ("operator.network.default".into(), "not-listed"));
    assert_eq!(denied(&policy, &connect("c.example:80")), ("operator.network[1]".into(), "port"));
    let without = listed(agent, "{}");
    assert_eq!(denied(&without, &connect("a.example:443")), ("operator.network.default".into(), "not-listed"));
}

#[test]
fn methods_and_paths_hold_for_what_can_be_read() {
    let policy = listed(
        r#"[{"host": "a.example", "port": 80, "methods": ["GET"], "paths": ["/v1/models", "/v1/files/*", "/repo/**"]}]"#,
        WIDE,
    );
    for path in [
        "/v1/models",
        "/v1/models?limit=5",
        "/v1/files/x",
        "/repo",
        "/repo/",
        "/repo/a/b.git",
        "/v1/%6dodels",
        "/v1/files/a%20b",
    ] {
        assert!(is_allowed(&policy, &http("GET", "a.example:80", path)), "{path}");
    }
    for path in [
        "/",
        "",
        "/v1",
        "/v1/models/",
        "/v1/models/x",
        "/v1/files/",
        "/v1/files/a/b",
        "/V1/models",
        "/repository",
        "/v2/models",
        "*",
    ] {
        assert_eq!(denied(&policy, &http("GET", "a.example:80", path)), ("network[0]".into(), "path"), "{path}");
    }
    for method in ["POST", "get", "HEAD", "TRACE"] {
        assert_eq!(denied(&policy, &http(method, "a.example:80", "/v1/models")), ("network[0]".into(), "method"));
    }
    // What is in a tunnel can't be held to them.
    for via in [Via::Connect, Via::Socks] {
        assert_eq!(denied(&policy, &by(via, "a.example:80")), ("network[0]".into(), "opaque"));
    }
}

#[test]
fn a_path_of_two_readings_is_allowed_by_no_listed_path_and_denied_by_each() {
    let paths = [
        "/repo/../admin",
        "/repo/./x",
        "/repo/%2e%2e/admin",
        "/repo/.%2E/admin",
        "/repo/..",
        "/repo//x",
        "//repo/x",
        "/repo/a%2fb",
        "/repo/a%2Fb",
        "/repo/a%5cb",
        "/repo/a\\b",
        "/repo/%00",
        "/repo/a%0d%0ab",
        "/repo/a;x=1/b",
        "/repo/a%3bb",
        "/repo/%252e%252e/x",
        "/repo/%",
        "/repo/%4",
        "/repo/%zz",
        "/repo/%+1",
        "/repo/\u{e9}",
        "/repo/a b",
        "repo/x",
        "http://a.example/repo/x",
    ];
    let listed_paths = listed(r#"[{"host": "a.example", "port": 80, "paths": ["/repo/**"]}]"#, WIDE);
    let denied_paths =
        listed(r#"[{"host": "a.example", "port": 80}, {"deny": "a.example", "paths": ["/admin/**"]}]"#, WIDE);
    assert!(is_allowed(&denied_paths, &http("GET", "a.example:80", "/repo/x")));
    for path in paths {
        let ask = http("GET", "a.example:80", path);
        assert_eq!(denied(&listed_paths, &ask), ("network[0]".into(), "path"), "{path}");
        assert_eq!(denied(&denied_paths, &ask), ("network[1]".into(), "denied"), "{path}");
    }
    let long = format!("/repo/{}", "a".repeat(20_000));
    assert!(!is_allowed(&listed_paths, &http("GET", "a.example:80", &long)));
}

#[test]
fn a_denied_path_is_denied_in_its_other_spellings() {
    let policy = listed(
        r#"[{"host": "a.example", "port": 80}, {"deny": "a.example", "methods": ["DELETE", "POST"], "paths": ["/admin/**", "/x/*", "/y"]}]"#,
        WIDE,
    );
    for path in [
        "/admin",
        "/admin/",
        "/admin/users",
        "/ADMIN/users",
        "/%61dmin/users",
        "/admin?x",
        "/x/1",
        "/x/1/",
        "/X/1",
        "/y",
        "/y/",
        "/Y?z",
    ] {
        assert!(!is_allowed(&policy, &http("DELETE", "a.example:80", path)), "{path}");
        assert!(!is_allowed(&policy, &http("delete", "a.example:80", path)), "{path}");
        assert!(is_allowed(&policy, &http("GET", "a.example:80", path)), "{path}");
    }
    for path in ["/", "/administrator", "/x", "/x/1/2", "/y/z"] {
        assert!(is_allowed(&policy, &http("DELETE", "a.example:80", path)), "{path}");
    }
    // A tunnel could carry what is denied.
    assert_eq!(denied(&policy, &connect("a.example:80")), ("network[1]".into(), "opaque"));
}

#[test]
fn interception_lets_tunnels_to_entries_with_methods_and_denials() {
    let policy = listed(
        r#"[{"host": "a.example", "methods": ["GET"], "intercept": "on"}, {"deny": "a.example", "paths": ["/admin/**"]}]"#,
        WIDE,
    );
    for via in [Via::Connect, Via::Socks] {
        let permit = allowed(&policy, &by(via, "a.example:443"));
        assert_eq!(permit.intercept, Intercept::On);
        assert_eq!(permit.sni, SniRule::Name(Name::parse("a.example").unwrap()));
    }
    assert!(is_allowed(&policy, &http("GET", "a.example:443", "/x")));
    assert_eq!(denied(&policy, &http("GET", "a.example:443", "/admin/x")).1, "denied");
    assert_eq!(denied(&policy, &http("POST", "a.example:443", "/x")).1, "method");
}

#[test]
fn interception_is_on_when_either_list_says_so() {
    let on = r#"{"network": [{"host": "a.example", "intercept": "on"}]}"#;
    let permit = allowed(&listed(r#"[{"host": "a.example", "sni": "any"}]"#, on), &connect("a.example:443"));
    assert_eq!((permit.intercept, permit.sni), (Intercept::On, SniRule::Name(Name::parse("a.example").unwrap())));
    let permit = allowed(&listed(r#"[{"host": "a.example", "intercept": "on"}]"#, WIDE), &connect("a.example:443"));
    assert_eq!(permit.intercept, Intercept::On);
    // Also beside entries that let anything pass.
    let both = r#"{"network": [{"host": "*", "sni": "any"}, {"host": "a.example", "intercept": "on"}]}"#;
    let permit = allowed(&listed(r#"[{"host": "a.example", "sni": "any"}]"#, both), &connect("a.example:443"));
    assert_eq!((permit.intercept, permit.sni), (Intercept::On, SniRule::Name(Name::parse("a.example").unwrap())));
    // In the open reach as well.
    let permit = allowed(&open(r#"[{"host": "a.example", "intercept": "on"}]"#, "{}"), &connect("a.example:443"));
    assert_eq!((permit.intercept, permit.sni), (Intercept::On, SniRule::Name(Name::parse("a.example").unwrap())));
}

#[test]
fn names_of_tls_are_checked_unless_both_lists_say_any() {
    let any = r#"[{"host": "a.example", "sni": "any"}, {"host": "1.1.1.1"}]"#;
    let name = SniRule::Name(Name::parse("a.example").unwrap());
    assert_eq!(allowed(&listed(any, WIDE), &connect("a.example:443")).sni, name);
    let wide_any = r#"{"network": [{"host": "*", "sni": "any"}]}"#;
    assert_eq!(allowed(&listed(any, wide_any), &connect("a.example:443")).sni, SniRule::Any);
    assert_eq!(allowed(&listed(r#"[{"host": "a.example"}]"#, wide_any), &connect("a.example:443")).sni, name);
    // TLS names no addresses.
    assert_eq!(allowed(&listed(any, WIDE), &connect("1.1.1.1:443")).sni, SniRule::Absent);
    // The name that was asked for, not the pattern.
    let below = allowed(&listed(r#"[{"host": "*.example"}]"#, WIDE), &connect("b.example:443"));
    assert_eq!(below.sni, SniRule::Name(Name::parse("b.example").unwrap()));
}

#[test]
fn plain_tcp_needs_an_entry_of_its_own_in_both_lists() {
    let tcp = r#"[{"tcp": "db.internal:5432"}]"#;
    let both = listed(tcp, r#"{"network": [{"tcp": "db.internal:5432"}]}"#);
    for via in [Via::Tcp, Via::Socks, Via::Connect] {
        assert_eq!(allowed(&both, &by(via, "db.internal:5432")).sni, SniRule::Any);
    }
    assert_eq!(denied(&both, &by(Via::Tcp, "db.internal:5433")).1, "port");
    let host = r#"{"network": [{"host": "db.internal", "port": 5432, "sni": "any"}]}"#;
    assert_eq!(denied(&listed(tcp, host), &by(Via::Tcp, "db.internal:5432")), ("operator.network[0]".into(), "way"));
    let agent_host = r#"[{"host": "db.internal", "port": 5432}]"#;
    let only_host = listed(agent_host, r#"{"network": [{"tcp": "db.internal:5432"}]}"#);
    assert_eq!(denied(&only_host, &by(Via::Tcp, "db.internal:5432")), ("network[0]".into(), "way"));
    assert!(matches!(allowed(&only_host, &by(Via::Socks, "db.internal:5432")).sni, SniRule::Name(_)));
}

#[test]
fn the_open_reach_is_every_public_destination_that_nobody_denies() {
    let policy = open(
        r#"[{"deny": "ads.example"}, {"deny": "9.9.9.0/24"}]"#,
        r#"{"network": [{"deny": "*.evil.example"}], "addresses": [{"cidr": "10.1.0.0/16", "ports": [5432]}]}"#,
    );
    let permit = allowed(&policy, &connect("anything.example:9999"));
    assert_eq!((permit.rule, permit.sni, permit.intercept), (RuleId::Open, SniRule::Any, Intercept::Off));
    assert!(is_allowed(&policy, &by(Via::Tcp, "8.8.8.8:53")));
    assert!(is_allowed(&policy, &by(Via::Tcp, "10.1.2.3:5432")));
    assert_eq!(denied(&policy, &connect("ads.example:443")).0, "network[0]");
    assert_eq!(denied(&policy, &connect("x.evil.example:443")).0, "operator.network[0]");
    assert_eq!(denied(&policy, &connect("9.9.9.9:443")), ("network[1]".into(), "denied"));
    assert_eq!(denied(&policy, &connect("10.1.2.3:80")), ("network.zone.private".into(), "zone"));
    assert_eq!(denied(&policy, &connect("127.0.0.1:80")).0, "network.zone.loopback");
}

#[test]
fn entries_that_contradict_themselves_are_refused() {
    let wrong: [(&str, Wrong); 15] = [
        (r#"{}"#, Wrong::Kind),
        (r#"{"ports": [80]}"#, Wrong::Kind),
        (r#"{"host": "a.example", "deny": "b.example"}"#, Wrong::Kind),
        (r#"{"host": "a.example", "tcp": "b.example:1"}"#, Wrong::Kind),
        (r#"{"host": "a.example", "port": 1, "ports": [2]}"#, Wrong::Ports),
        (r#"{"tcp": "a.example:1", "port": 1}"#, Wrong::Tcp),
        (r#"{"tcp": "a.example:1", "sni": "any"}"#, Wrong::Tcp),
        (r#"{"tcp": "a.example:1", "methods": ["GET"]}"#, Wrong::Tcp),
        (r#"{"deny": "a.example", "sni": "any"}"#, Wrong::Deny),
        (r#"{"deny": "a.example", "intercept": "on"}"#, Wrong::Deny),
        (r#"{"host": "*"}"#, Wrong::Everything),
        (r#"{"host": "10.0.0.0/8"}"#, Wrong::Range),
        (r#"{"host": "a.example", "methods": ["GET"]}"#, Wrong::Hidden),
        (r#"{"host": "a.example", "paths": ["/x"], "ports": [80, 443]}"#, Wrong::Hidden),
        (r#"{"host": "a.example", "sni": "any", "intercept": "on"}"#, Wrong::SniAndIntercept),
    ];
    for (entry, expected) in wrong {
        let list = entries(&format!("[{{\"host\": \"ok.example\"}}, {entry}]"));
        let error = Policy::new(1, Reach::Listed, &list, &CeilingSpec::default()).unwrap_err();
        assert_eq!(error, BadPolicy::Entry { rule: RuleId::Agent(1), index: 1, wrong: expected }, "{entry}");
        assert!(error.to_string().starts_with("network[1]: "), "{error}");
    }
    let many = vec![entries(r#"[{"host": "a.example"}]"#).remove(0); ENTRIES_MAX + 1];
    let error = Policy::new(1, Reach::Listed, &many, &CeilingSpec::default()).unwrap_err();
    assert_eq!(error, BadPolicy::TooMany { count: ENTRIES_MAX + 1 });
    let ports: Vec<String> = (1..=65).map(|port: u16| port.to_string()).collect();
    let items = entries(&format!(r#"[{{"host": "a.example", "ports": [{}]}}]"#, ports.join(",")));
    let error = Policy::new(1, Reach::Listed, &items, &CeilingSpec::default()).unwrap_err();
    assert!(matches!(error, BadPolicy::Entry { wrong: Wrong::Items, .. }));
}

#[test]
fn no_misspelling_of_an_entry_is_read() {
    let refused = [
        r#"{"hosts": "a.example"}"#,
        r#"{"host": "a.example", "Port": 1}"#,
        r#"{"host": "a.example", "port": 0}"#,
        r#"{"host": "a.example", "port": 65536}"#,
        r#"{"host": "a.example", "port": "443"}"#,
        r#"{"host": "a.example", "port": -1}"#,
        r#"{"host": "a.example", "ports": 443}"#,
        r#"{"host": "a.example:443"}"#,
        r#"{"host": "https://a.example"}"#,
        r#"{"host": "a.example/x"}"#,
        r#"{"host": "user@a.example"}"#,
        r#"{"host": "a.*.example"}"#,
        r#"{"host": "a*.example"}"#,
        r#"{"host": "**.example"}"#,
        r#"{"host": "*.*.example"}"#,
        r#"{"host": "*.1.2.3.4"}"#,
        r#"{"host": "*."}"#,
        r#"{"host": ""}"#,
        r#"{"host": "*example.com"}"#,
        r#"{"deny": "10.0.0.1/8"}"#,
        r#"{"deny": "10.0.0.0/33"}"#,
        r#"{"host": "a", "methods": ["get"]}"#,
        r#"{"host": "a", "methods": ["CONNECT"]}"#,
        r#"{"host": "a", "methods": [""]}"#,
        r#"{"host": "a", "methods": ["GE T"]}"#,
        r#"{"host": "a", "paths": ["x"]}"#,
        r#"{"host": "a", "paths": ["/a/../b"]}"#,
        r#"{"host": "a", "paths": ["/a*"]}"#,
        r#"{"host": "a", "paths": ["/**/a"]}"#,
        r#"{"host": "a", "paths": ["/a//**"]}"#,
        r#"{"host": "a", "paths": ["/a?b"]}"#,
        r#"{"host": "a", "paths": ["/a;b"]}"#,
        r#"{"host": "a", "sni": "none"}"#,
        r#"{"host": "a", "sni": true}"#,
        r#"{"host": "a", "intercept": true}"#,
        r#"{"host": "a", "intercept": "yes"}"#,
        r#"{"tcp": "a"}"#,
        r#"{"tcp": "a:0"}"#,
        r#"{"tcp": "*.a:1"}"#,
        r#"{"tcp": "http://a:1"}"#,
    ];
    for entry in refused {
        assert!(serde_json::from_str::<EntrySpec>(entry).is_err(), "{entry}");
    }
    for (text, meant) in [("10.0.0.1/8", "10.0.0.0/8"), ("fd00::1/8", "fd00::/8")] {
        assert!(HostPattern::parse(text).unwrap_err().to_string().contains(meant), "{text}");
    }
    for cidr in ["::ffff:10.0.0.0/104", "64:ff9b::/96", "2002::/16", "2002:a00::/24", "10.0.0.0", "10.0.0.0/8 ", "a/8"]
    {
        let json = format!(r#"{{"addresses": [{{"cidr": "{cidr}"}}]}}"#);
        assert!(serde_json::from_str::<CeilingSpec>(&json).is_err(), "{cidr}");
    }
}

#[test]
fn entries_are_written_as_they_are_read() {
    let text = r#"[{"host":"*.example"},{"tcp":"[::1]:1"},{"deny":"10.0.0.0/8","methods":["GET"],"paths":["/a/*/b/**","/**","/"]}]"#;
    assert_eq!(serde_json::to_string(&entries(text)).unwrap(), text);
}

#[test]
fn the_schema_knows_every_key() {
    let schema = serde_json::to_value(schemars::schema_for!(CeilingSpec)).unwrap();
    let text = schema.to_string();
    for key in
        ["host", "tcp", "deny", "port", "ports", "methods", "paths", "sni", "intercept", "cidr", "addresses", "network"]
    {
        assert!(text.contains(&format!("\"{key}\":")), "{key}");
    }
    assert!(!text.contains("\"additionalProperties\":true"));
}

#[test]
fn what_the_operator_lacks_is_found_when_the_file_is_loaded() {
    let lacks = |agent: &str, operator: &str| -> Vec<(usize, Lacks)> {
        let found = shortfalls(&entries(agent), &ceiling(operator)).unwrap();
        found.into_iter().map(|short| (short.index, short.lacks)).collect()
    };
    let covered = [
        (r#"{"host": "a.example"}"#, r#"{"host": "a.example"}"#),
        (r#"{"host": "a.example"}"#, r#"{"host": "*.example"}"#),
        (r#"{"host": "*.example"}"#, r#"{"host": "*.example", "sni": "any"}"#),
        (r#"{"host": "*.example"}"#, r#"{"host": "*"}"#),
        (r#"{"host": "a.example", "ports": [80, 443]}"#, r#"{"host": "a.example", "port": 80}, {"host": "*"}"#),
        (
            r#"{"host": "a.example", "port": 80, "methods": ["GET"]}"#,
            r#"{"host": "a.example", "port": 80, "methods": ["POST", "GET"]}"#,
        ),
        (
            r#"{"host": "a.example", "port": 80, "paths": ["/a/b"]}"#,
            r#"{"host": "a.example", "port": 80, "paths": ["/x", "/a/*"]}"#,
        ),
        (r#"{"host": "a.example", "sni": "any"}"#, r#"{"tcp": "a.example:443"}"#),
        (r#"{"tcp": "127.0.0.1:1"}"#, r#"{"tcp": "127.0.0.1:1"}"#),
        (r#"{"host": "1.1.1.1"}"#, r#"{"host": "*"}"#),
        (r#"{"deny": "b.example"}"#, ""),
    ];
    for (agent, operator) in covered {
        assert_eq!(
            lacks(&format!("[{agent}]"), &format!(r#"{{"network": [{operator}]}}"#)),
            [],
            "{agent} under {operator}"
        );
    }
    let short = [
        (r#"{"host": "a.example"}"#, ""),
        (r#"{"host": "*.example"}"#, r#"{"host": "a.example"}"#),
        (r#"{"host": "a.b.example"}"#, r#"{"host": "*.example"}"#),
        (r#"{"host": "a.example", "ports": [80, 443]}"#, r#"{"host": "a.example"}"#),
        (r#"{"host": "a.example", "port": 80}"#, r#"{"host": "a.example", "port": 80, "methods": ["GET"]}"#),
        (
            r#"{"host": "a.example", "port": 80, "methods": ["GET", "PUT"]}"#,
            r#"{"host": "a.example", "port": 80, "methods": ["GET"]}"#,
        ),
        (
            r#"{"host": "a.example", "port": 80, "paths": ["/a/**"]}"#,
            r#"{"host": "a.example", "port": 80, "paths": ["/a/*"]}"#,
        ),
        (r#"{"host": "a.example", "sni": "any"}"#, r#"{"host": "a.example"}"#),
        (r#"{"tcp": "a.example:443"}"#, r#"{"host": "a.example", "sni": "any"}"#),
        // The tunnel that the agent's entry opens is closed by the operator's, which would not see into it.
        (
            r#"{"host": "a.example", "port": 80, "methods": ["GET"], "intercept": "on"}"#,
            r#"{"host": "a.example", "port": 80, "methods": ["GET"], "sni": "any"}"#,
        ),
    ];
    for (agent, operator) in short {
        let found =
            lacks(&format!(r#"[{{"deny": "z.example"}}, {agent}]"#), &format!(r#"{{"network": [{operator}]}}"#));
        assert_eq!(found, [(1, Lacks::Entry)], "{agent} under {operator}");
    }
    let private = r#"[{"host": "10.0.0.1"}]"#;
    assert_eq!(lacks(private, r#"{"network": [{"host": "*"}]}"#), [(0, Lacks::Address(Zone::Private))]);
    assert_eq!(lacks(private, r#"{"network": [{"host": "*"}], "addresses": [{"cidr": "10.0.0.0/8"}]}"#), []);
    assert_eq!(
        lacks(private, r#"{"network": [{"host": "*"}], "addresses": [{"cidr": "10.0.0.0/8", "ports": [80]}]}"#).len(),
        1
    );
}

#[test]
fn port_0_is_no_destination() {
    let policy = open("[]", "{}");
    let ask = Ask { port: 0, ..connect("a.example:1") };
    assert_eq!(denied(&policy, &ask), ("network.names".into(), "bad-host"));
}
