//! What holds of every policy, whatever stands in the lists.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::spec::{InterceptSpec, MethodName, Port, RangeSpec, SniSpec};
use super::*;
use crate::host::Host;
use crate::zone;

const NAMES: [&str; 6] = ["a.example", "b.example", "x.a.example", "y.a.example", "example", "z.y.a.example"];
const ADDRESSES: [&str; 8] =
    ["1.1.1.1", "10.0.0.1", "127.0.0.1", "::1", "fd12::1", "169.254.169.254", "2606:4700::1111", "64:ff9b::a00:1"];
const PATTERNS: [&str; 7] = ["a.example", "*.example", "*.a.example", "b.example", "1.1.1.1", "10.0.0.1", "::1"];
const RANGES: [&str; 8] =
    ["10.0.0.0/8", "10.0.0.1/32", "127.0.0.1/32", "0.0.0.0/0", "::/0", "fd12::/16", "169.254.169.254/32", "1.1.1.0/24"];
const PORTS: [u16; 4] = [80, 443, 22, 8443];
const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const PATHS: [&str; 6] = ["/", "/a", "/a/b", "/a/b/c", "/A/b", "/a/../b"];
const PATH_PATTERNS: [&str; 5] = ["/**", "/a", "/a/*", "/a/**", "/"];

fn ports() -> impl Strategy<Value = Vec<Port>> {
    vec(select(&PORTS[..]).prop_map(|port| Port::try_from(port).unwrap()), 0..3)
}

fn entry(any: bool) -> impl Strategy<Value = EntrySpec> {
    let hosts = if any { [&PATTERNS[..], &["*", "*"]].concat() } else { PATTERNS.to_vec() };
    let methods = vec(select(&METHODS[..]).prop_map(|method| MethodName::try_from(method.to_owned()).unwrap()), 0..2);
    let paths = vec(select(&PATH_PATTERNS[..]).prop_map(|path| PathPattern::parse(path).unwrap()), 0..2);
    let denied = [&PATTERNS[..], &RANGES[..3], &["*"]].concat();
    let tcp = (select([&NAMES[..], &ADDRESSES[..]].concat()), select(&PORTS[..]));
    (
        0..10_u8,
        select(hosts),
        select(denied),
        tcp,
        ports(),
        methods,
        paths,
        option::of(Just(SniSpec::Any)),
        any_intercept(),
    )
        .prop_map(|(kind, host, deny, (tcp, port), ports, methods, paths, sni, intercept)| match kind {
            0..=5 => EntrySpec {
                host: Some(HostPattern::parse(host).unwrap()),
                ports,
                methods,
                paths,
                sni,
                intercept,
                ..EntrySpec::default()
            },
            6 | 7 => EntrySpec {
                deny: Some(HostPattern::parse(deny).unwrap()),
                ports,
                methods,
                paths,
                ..EntrySpec::default()
            },
            _ => {
                let destination = Authority { host: Host::parse(tcp).unwrap(), port };
                EntrySpec { tcp: Some(destination.to_string().try_into().unwrap()), ..EntrySpec::default() }
            }
        })
}

fn any_intercept() -> impl Strategy<Value = Option<InterceptSpec>> {
    option::of(select(&[InterceptSpec::On, InterceptSpec::Off][..]))
}

/// Entries that make a list; those that contradict themselves are left out.
fn list(owner: Owner) -> impl Strategy<Value = Vec<EntrySpec>> {
    vec(entry(owner == Owner::Operator), 0..6).prop_map(move |entries| {
        entries
            .into_iter()
            .filter(|entry| List::new(owner, Base::Nothing, std::slice::from_ref(entry)).is_ok())
            .collect()
    })
}

fn ranges() -> impl Strategy<Value = Vec<RangeSpec>> {
    let range = (select(&RANGES[..]), ports())
        .prop_map(|(cidr, ports)| RangeSpec { cidr: cidr.to_owned().try_into().unwrap(), ports });
    vec(range, 0..3)
}

fn via() -> impl Strategy<Value = Via> {
    let http = (select(&METHODS[..]), select(&PATHS[..]))
        .prop_map(|(method, path)| Via::Http { method: method.parse().unwrap(), path: path.to_owned() });
    prop_oneof![Just(Via::Connect), Just(Via::Socks), Just(Via::Tcp), http]
}

fn ask() -> impl Strategy<Value = Ask> {
    (select([&NAMES[..], &ADDRESSES[..]].concat()), select(&PORTS[..]), via()).prop_map(|(host, port, via)| Ask {
        host: Host::parse(host).unwrap(),
        port,
        via,
    })
}

fn policy(agent: &[EntrySpec], network: &[EntrySpec], addresses: &[RangeSpec]) -> Policy {
    let above = CeilingSpec { network: network.to_vec(), addresses: addresses.to_vec() };
    Policy::new(1, Reach::Listed, agent, &above).unwrap()
}

fn own() -> OwnAddresses {
    OwnAddresses::new(["10.0.0.1", "1.1.1.1", "::1"].map(|text| text.parse().unwrap()), [22, 8443])
}

/// Whether a permit is at most as wide as another.
fn is_within(one: &Permit, other: &Permit) -> bool {
    let sni = one.sni == other.sni || other.sni == SniRule::Any;
    sni && one.intercept >= other.intercept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1000)))]

    #[test]
    fn a_list_under_a_ceiling_allows_exactly_what_both_allow(
        agent in list(Owner::Agent), network in list(Owner::Operator), addresses in ranges(), ask in ask(),
    ) {
        let both = policy(&agent, &network, &addresses);
        let agents = List::new(Owner::Agent, Base::Nothing, &agent).unwrap();
        let operators = List::new(Owner::Operator, Base::Nothing, &network).unwrap();
        let by_agent = agents.denies(&ask.host, &ask).is_ok() && agents.grants(&ask).is_ok();
        let by_operator = operators.denies(&ask.host, &ask).is_ok() && operators.grants(&ask).is_ok();
        let by_zone = match &ask.host {
            Host::Address(address) => both.opens(&ask, *address, zone::of(*address)).is_ok(),
            Host::Name(_) => true,
        };
        prop_assert_eq!(is_allowed(&both, &ask), by_agent && by_operator && by_zone);
    }

    #[test]
    fn an_entry_less_in_the_agents_list_never_opens_what_an_allow_entry_did_not(
        agent in list(Owner::Agent), network in list(Owner::Operator), addresses in ranges(), ask in ask(), at: prop::sample::Index,
    ) {
        // Without denials less is less; a denial more is less.
        let (allow, deny): (Vec<_>, Vec<_>) = agent.into_iter().partition(|entry| entry.deny.is_none());
        let whole = policy(&allow, &network, &addresses);
        let mut fewer = allow.clone();
        if !fewer.is_empty() {
            fewer.remove(at.index(allow.len()));
        }
        let fewer = policy(&fewer, &network, &addresses);
        if is_allowed(&fewer, &ask) {
            // Only interception may make the tunnel stricter when there is more, never close it.
            prop_assert!(is_allowed(&whole, &ask));
        }
        let denying = policy(&[allow, deny].concat(), &network, &addresses);
        if let Verdict::Allowed(permit) = denying.decide(&ask) {
            prop_assert!(is_within(&permit, &allowed(&whole, &ask)));
        }
    }

    #[test]
    fn whatever_the_agent_lists_it_gets_no_more_than_the_operator_gives(
        agent in list(Owner::Agent), network in list(Owner::Operator), addresses in ranges(), ask in ask(), address in select(&ADDRESSES[..]),
    ) {
        let both = policy(&agent, &network, &addresses);
        let operators = List::new(Owner::Operator, Base::Nothing, &network).unwrap();
        if let Verdict::Allowed(permit) = both.decide(&ask) {
            let limit = operators.grants(&ask).unwrap();
            prop_assert!(is_within(&permit, &limit.clone().under(&limit, &ask.host)));
        }
        // Addresses are opened by the operator alone.
        let nothing = policy(&[], &network, &addresses);
        let address: IpAddr = address.parse().unwrap();
        if both.admit(&ask, address, &own()).is_ok() {
            prop_assert_eq!(nothing.admit(&ask, address, &own()), Ok(()));
        }
    }

    #[test]
    fn what_a_list_denies_is_denied_whatever_else_it_says(
        agent in list(Owner::Agent), network in list(Owner::Operator), addresses in ranges(), ask in ask(), by_operator: bool,
    ) {
        let denial = EntrySpec { deny: Some(HostPattern::parse(&ask.host.to_string()).unwrap()), ..EntrySpec::default() };
        let (mut agent, mut network) = (agent, network);
        if by_operator { network.push(denial) } else { agent.push(denial) }
        let policy = policy(&agent, &network, &addresses);
        prop_assert!(!is_allowed(&policy, &ask));
        if let Host::Address(address) = ask.host {
            let name = Ask { host: Host::parse("named.example").unwrap(), ..ask.clone() };
            prop_assert!(policy.admit(&name, address, &own()).is_err());
        }
    }

    #[test]
    fn every_form_of_an_address_decides_as_the_address_itself(
        agent in list(Owner::Agent), network in list(Owner::Operator), addresses in ranges(), port in select(&PORTS[..]), via in via(),
        number in prop_oneof![any::<u32>(), select(&[0x0101_0101, 0x0a00_0001, 0x7f00_0001, 0xa9fe_a9fe, 0_u32][..])], low: u64, open: bool,
    ) {
        let above = CeilingSpec { network, addresses };
        let reach = if open { Reach::Open } else { Reach::Listed };
        let policy = Policy::new(1, reach, &agent, &above).unwrap();
        let address = Ipv4Addr::from(number);
        let (high, second) = ((number >> 16) as u16, number as u16);
        let forms: [IpAddr; 4] = [
            address.to_ipv6_mapped().into(),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, second).into(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, second).into(),
            Ipv6Addr::from(0x2002_u128 << 112 | u128::from(number) << 80 | u128::from(low)).into(),
        ];
        let asked = |host: IpAddr| Ask { host: host.into(), port, via: via.clone() };
        let plain = asked(address.into());
        let named = Ask { host: Host::parse("a.example").unwrap(), port, via: via.clone() };
        let outcome = |verdict: Verdict| match verdict {
            Verdict::Allowed(permit) => Ok(permit),
            Verdict::Denied(denial) => Err((denial.rule, denial.reason)),
        };
        let admitted = |ask: &Ask, address: IpAddr| policy.admit(ask, address, &own()).map_err(|denial| (denial.rule, denial.reason));
        for form in forms {
            prop_assert_eq!(outcome(policy.decide(&asked(form))), outcome(policy.decide(&plain)), "{}", form);
            prop_assert_eq!(admitted(&named, form), admitted(&named, address.into()), "{}", form);
            prop_assert_eq!(admitted(&asked(form), form), admitted(&plain, address.into()), "{}", form);
        }
    }

    #[test]
    fn the_open_reach_admits_public_addresses_and_what_is_listed_alone(number: u128, small: u32, v6: bool, port: u16) {
        let address: IpAddr = if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(small).into() };
        let policy = Policy::new(1, Reach::Open, &[], &CeilingSpec::default()).unwrap();
        let ask = Ask { host: Host::parse("a.example").unwrap(), port, via: Via::Connect };
        let public = zone::of(address) == zone::Zone::Public;
        prop_assert_eq!(policy.admit(&ask, address, &OwnAddresses::default()).is_ok(), public);
        prop_assert!(policy.admit(&ask, address, &OwnAddresses::new([address], [])).is_err());
    }

    #[test]
    fn a_star_stands_for_one_label(labels in vec("[a-z0-9]{1,8}", 1..5), suffix in "[a-z]{2,5}\\.[a-z]{2,5}") {
        let pattern = HostPattern::parse(&format!("*.{suffix}")).unwrap();
        let host = Host::parse(&format!("{}.{suffix}", labels.join("."))).unwrap();
        prop_assert_eq!(pattern.matches(&host), labels.len() == 1);
        prop_assert!(!pattern.matches(&Host::parse(&suffix).unwrap()));
    }

    #[test]
    fn a_pattern_covers_exactly_what_it_matches_more(one in select(&PATTERNS[..]), other in select(&PATTERNS[..]), host in select(&NAMES[..])) {
        let (one, other) = (HostPattern::parse(one).unwrap(), HostPattern::parse(other).unwrap());
        let host = Host::parse(host).unwrap();
        if one.covers(&other) && other.matches(&host) {
            prop_assert!(one.matches(&host));
        }
    }

    #[test]
    fn a_path_that_is_allowed_is_denied_by_the_same_pattern(pattern in select(&PATH_PATTERNS[..]), path in "/[a-c/.%;?A-C0-9]{0,12}") {
        let pattern = PathPattern::parse(pattern).unwrap();
        let asked = path::Asked::read(&path);
        if pattern.allows(&asked) {
            prop_assert!(pattern.denies(&asked), "{}", path);
        }
    }

    #[test]
    fn what_an_entry_allows_is_allowed_under_a_ceiling_that_covers_it(
        agent in list(Owner::Agent), network in list(Owner::Operator), addresses in ranges(), asks in vec(ask(), 1..30),
        (sni, intercept) in (option::of(Just(SniSpec::Any)), any_intercept()),
    ) {
        // The operator gives much of what is asked for, in a way of his own.
        let given = agent.iter().cloned().map(|entry| match entry.host {
            Some(_) => EntrySpec { sni, intercept, ..entry },
            None => entry,
        });
        let fits = |entry: &EntrySpec| List::new(Owner::Operator, Base::Nothing, std::slice::from_ref(entry)).is_ok();
        let network: Vec<EntrySpec> = network.into_iter().chain(given.filter(fits)).collect();
        let above = CeilingSpec { network: network.clone(), addresses: addresses.clone() };
        let short = shortfalls(&agent, &above).unwrap();
        let allow = |entries: &[EntrySpec]| entries.iter().filter(|entry| entry.deny.is_none()).cloned().collect::<Vec<_>>();
        for (index, entry) in agent.iter().enumerate().filter(|(_, entry)| entry.deny.is_none()) {
            let alone = std::slice::from_ref(entry);
            let under = policy(alone, &allow(&network), &addresses);
            let list = List::new(Owner::Agent, Base::Nothing, alone).unwrap();
            if !short.iter().any(|short| short.index == index) {
                for ask in asks.iter().filter(|ask| list.grants(ask).is_ok()) {
                    let verdict = under.decide(ask);
                    let by_zone = matches!(&verdict, Verdict::Denied(denial) if denial.reason == Reason::Zone);
                    // A star means names only, so an address that is asked for is one that the entry names.
                    prop_assert!(matches!(verdict, Verdict::Allowed(_)) && !by_zone, "{:?} {}", entry, ask);
                }
            }
        }
    }
}

#[test]
fn a_star_of_the_path_is_no_wildcard_after_it_was_written_down_and_read_again() {
    for text in ["/v1/%2a", "/v1/%2A%2a", "/%2a%2a", "/a%2ab/**"] {
        let pattern = PathPattern::parse(text).unwrap();
        let again = PathPattern::parse(&pattern.to_string()).unwrap();
        assert_eq!(again, pattern, "{text} {pattern}");
        assert!(!pattern.covers(&PathPattern::parse("/v1/*").unwrap()), "{text}");
    }
}
