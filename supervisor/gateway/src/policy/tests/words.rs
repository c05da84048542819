//! What a person reads.

use super::*;

fn said(policy: &Policy, ask: &Ask) -> String {
    match policy.decide(ask) {
        Verdict::Denied(denial) => denial.about(ask).to_string(),
        Verdict::Allowed(_) => panic!("{ask} is allowed"),
    }
}

#[test]
fn a_denial_names_what_was_tried_the_rule_and_the_line_to_add() {
    let policy = listed(r#"[{"host": "a.example"}]"#, WIDE);
    assert_eq!(
        said(&policy, &connect("evil.example:443")),
        "denied: connect evil.example:443   rule network.default\n\
         no entry of `network` lists it. This is policy: a retry will not help.\n\
         help: add to `network` in agent.yaml: {host: \"evil.example\"}"
    );
    assert_eq!(
        said(&policy, &http("GET", "a.example:8080", "/x?key=secret")),
        "denied: GET a.example:8080/x   rule network[0]\n\
         the host is listed, this port is not. This is policy: a retry will not help.\n\
         help: add to `network` in agent.yaml: {host: \"a.example\", ports: [8080]}"
    );
    assert_eq!(
        said(&listed(r#"[{"tcp": "db.internal:5432"}]"#, "{}"), &by(Via::Tcp, "db.internal:5432")),
        "denied: tcp db.internal:5432   rule operator.network.default\n\
         the operator's file doesn't list it. This is policy: a retry will not help.\n\
         help: add to `network` in the operator's file: {tcp: \"db.internal:5432\"}"
    );
}

#[test]
fn a_name_that_points_inside_is_shown_with_its_address() {
    let policy = open("[]", "{}");
    let ask = connect("db.internal:5432");
    let denial = policy.admit(&ask, "10.0.0.5".parse().unwrap(), &OwnAddresses::default()).unwrap_err();
    assert_eq!(
        denial.about(&ask).to_string(),
        "denied: connect db.internal:5432   rule network.zone.private\n\
         db.internal is 10.0.0.5: addresses of this kind need the operator's word. This is policy: a retry will not help.\n\
         help: add to `addresses` in the operator's file: {cidr: \"10.0.0.5/32\", ports: [5432]}"
    );
    assert_eq!(
        denial.to_string(),
        "rule network.zone.private: 10.0.0.5: addresses of this kind need the operator's word"
    );
}

#[test]
fn the_line_that_is_offered_is_read_and_opens_what_was_denied() {
    let cases = [
        (connect("evil.example:443"), Reach::Listed),
        (connect("evil.example:8443"), Reach::Listed),
        (connect("1.1.1.1:443"), Reach::Listed),
        (connect("[2606:4700::1]:443"), Reach::Listed),
        (http("POST", "evil.example:80", "/x"), Reach::Listed),
        (by(Via::Tcp, "evil.example:22"), Reach::Listed),
        (by(Via::Socks, "evil.example:22"), Reach::Listed),
        (connect("127.0.0.1:80"), Reach::Listed),
        (connect("[fd00:ec2::254]:80"), Reach::Open),
        (connect("169.254.169.254:80"), Reach::Open),
        (connect("[64:ff9b::a00:1]:80"), Reach::Open),
    ];
    for (ask, reach) in cases {
        let (mut agent, mut operator) = (String::new(), [String::new(), String::new()]);
        // Each denial offers one line; with three at most everything is said.
        let opened = (0..4).any(|_| {
            let above = format!(r#"{{"network": [{}], "addresses": [{}]}}"#, operator[0], operator[1]);
            let policy = Policy::new(1, reach, &entries(&format!("[{agent}]")), &ceiling(&above)).unwrap();
            let denial = match policy.decide(&ask) {
                Verdict::Allowed(_) => return true,
                Verdict::Denied(denial) => denial,
            };
            let help = denial.help(&ask).unwrap();
            let (place, entry) = help.split_once(": ").unwrap();
            let json = ["host", "tcp", "ports", "cidr"]
                .iter()
                .fold(entry.to_owned(), |text, key| text.replace(&format!("{key}: "), &format!("\"{key}\": ")));
            match place {
                "add to `network` in agent.yaml" => agent = json,
                "add to `network` in the operator's file" => operator[0] = json,
                "add to `addresses` in the operator's file" => operator[1] = json,
                other => panic!("{other}"),
            }
            false
        });
        assert!(opened, "{ask}");
    }
}

#[test]
fn paths_in_messages_are_one_line_and_bounded() {
    let ask = http("GET", "a.example:80", &format!("/a\u{1b}[2J\n{}?token=s3cret", "x".repeat(5000)));
    let shown = ask.to_string();
    assert!(!shown.contains(['\n', '\u{1b}']) && shown.len() < 300 && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn reasons_have_stable_words_of_their_own() {
    let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.word()).collect();
    let distinct: std::collections::BTreeSet<_> = words.iter().collect();
    assert_eq!(distinct.len(), words.len());
    assert!(words.iter().all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    for known in [
        "not-listed",
        "denied",
        "zone",
        "own-address",
        "sni-mismatch",
        "sni-missing",
        "ech",
        "bad-host",
        "method",
        "path",
        "unresolvable",
    ] {
        assert!(words.contains(&known), "{known}");
    }
}
