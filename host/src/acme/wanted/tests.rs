use proptest::prelude::*;

use super::*;

const ALL: Challenges = Challenges { dns: true, http: true, tls_alpn: true };
const HTTP: Challenges = Challenges { dns: false, http: true, tls_alpn: false };
const DNS: Challenges = Challenges { dns: true, http: false, tls_alpn: false };

/// A router of resolver `le`: `rule: a b` for its hosts, `domains: a b; c` for its domains.
fn router(name: &str, text: &str) -> Ask {
    let asker = Asker::Router(name.to_owned());
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (kind, text) = text.split_once(':').expect("a kind");
    if kind == "rule" {
        return Ask { asker, resolver: "le".to_owned(), domains: Vec::new(), hosts: words(text) };
    }
    let domains = text.split(';').map(|text| {
        let mut names = words(text).into_iter();
        Domain { main: names.next().unwrap_or_default(), sans: names.collect() }
    });
    // As in Traefik the rule does not count beside them.
    Ask { asker, resolver: "le".to_owned(), domains: domains.collect(), hosts: vec!["ignored.example.com".to_owned()] }
}

fn default_certificate(text: &str) -> Ask {
    Ask { asker: Asker::DefaultCertificate, ..router("", text) }
}

struct Given {
    authority: Authority,
    challenges: Challenges,
    profile: &'static str,
    served: HashSet<Name>,
}

impl Given {
    fn new(authority: Authority, challenges: Challenges, profile: &'static str) -> Self {
        Self { authority, challenges, profile, served: HashSet::new() }
    }

    fn plan(&self, asks: &[Ask]) -> Plan {
        let Self { authority, challenges, profile, ref served } = *self;
        wanted(asks, &Terms { resolver: "le", authority, challenges, profile, served })
    }
}

fn public() -> Given {
    Given::new(Authority::LetsEncrypt, ALL, "")
}

/// `main san … < askers`, one line for each.
fn lines(plan: &Plan) -> Vec<String> {
    let line = |certificate: &Wanted| {
        let names: Vec<String> = certificate.names.iter().map(Name::to_string).collect();
        let askers: Vec<&str> = certificate
            .askers
            .iter()
            .map(|asker| match asker {
                Asker::DefaultCertificate => "default",
                Asker::Router(name) => name,
            })
            .collect();
        format!("{} < {}", names.join(" "), askers.join(" "))
    };
    plan.certificates.iter().map(line).collect()
}

fn messages(plan: &Plan) -> Vec<&str> {
    plan.problems.iter().map(|problem| problem.message.as_str()).collect()
}

#[test]
fn routers_get_the_certificates_that_traefik_would_order() {
    for (case, asks, expected) in [
        (
            "the hosts of a rule make one certificate",
            &[router("web", "rule: a.com b.com")][..],
            &["a.com b.com < web"][..],
        ),
        ("domains win over the rule", &[router("web", "domains: a.com www.a.com")], &["a.com www.a.com < web"]),
        (
            "each domain makes one",
            &[router("web", "domains: a.com; b.com c.com")],
            &["a.com < web", "b.com c.com < web"],
        ),
        ("an empty main name is none", &[router("web", "domains: ; a.com")], &["a.com < web"]),
        (
            "names have one form",
            &[router("web", "domains: A.com bücher.com a.com")],
            &["a.com xn--bcher-kva.com < web"],
        ),
        ("HostSNI(`*`) asks for nothing", &[router("tcp", "rule: *")], &[]),
        ("no host asks for nothing", &[router("tcp", "rule:")], &[]),
        ("the same name twice", &[router("a", "rule: a.com"), router("b", "rule: a.com")], &["a.com < a b"]),
        (
            "a domain that repeats",
            &[router("a", "domains: a.com b.com; a.com b.com; b.com c.com")],
            &["a.com b.com < a", "c.com < a"],
        ),
        (
            "domains come before rules, whatever the names of their routers",
            &[router("a", "rule: a.com"), router("b", "domains: b.com a.com")],
            &["b.com a.com < a b"],
        ),
        (
            "a router for one host does not split the certificate of another router",
            &[router("a", "rule: b.com"), router("b", "rule: a.com b.com")],
            &["a.com b.com < a b"],
        ),
        (
            "a wildcard is used for its names",
            &[router("a", "rule: a.x.com x.com"), router("b", "rule: b.x.com"), router("c", "domains: x.com *.x.com")],
            &["x.com *.x.com < a b c"],
        ),
        (
            "in the same certificate too, which authorities insist on",
            &[router("a", "domains: x.com *.x.com a.x.com b.a.x.com")],
            &["x.com *.x.com b.a.x.com < a"],
        ),
        (
            "a covered main name leaves its place to the next",
            &[router("a", "rule: a.x.com y.com z.com"), router("b", "domains: *.x.com")],
            &["*.x.com < a b", "y.com z.com < a"],
        ),
        (
            "the default certificate is exactly what is asked for, and serves others",
            &[
                default_certificate("domains: a.x.com b.com"),
                router("a", "rule: b.com c.com"),
                router("w", "domains: *.x.com"),
            ],
            &["a.x.com b.com < default a", "*.x.com < w", "c.com < a"],
        ),
        (
            "the default certificate has no name beside its own wildcard",
            &[default_certificate("domains: x.com a.x.com *.x.com")],
            &["x.com *.x.com < default"],
        ),
    ] {
        let plan = public().plan(asks);
        assert_eq!(lines(&plan), expected, "{case}");
        assert!(plan.problems.is_empty(), "{case}: {:?}", plan.problems);
    }
}

#[test]
fn other_resolvers_are_none_of_its_business() {
    let other = Ask { resolver: "other".to_owned(), ..router("b", "domains: *.a.com bad..name") };
    let plan = public().plan(&[router("a", "rule: www.a.com"), other]);
    assert_eq!(lines(&plan), ["www.a.com < a"]);
    assert!(plan.problems.is_empty());
}

#[test]
fn what_files_serve_is_not_ordered() {
    let mut given = public();
    given.served = ["a.com", "*.b.com"].map(|name| Name::parse(name).expect("a name")).into();
    let plan = given.plan(&[
        router("web", "rule: A.com x.b.com b.com x.y.b.com"),
        router("all", "domains: *.b.com"),
        default_certificate("domains: a.com"),
    ]);
    assert_eq!(lines(&plan), ["a.com < default web", "b.com x.y.b.com < web"]);
}

#[test]
fn what_cannot_be_had_is_left_out_and_told_with_its_router() {
    let letsencrypt = |challenges, profile| Given::new(Authority::LetsEncrypt, challenges, profile);
    let unsigned = "and no public authority signs it";
    for (given, name, expected) in [
        (
            letsencrypt(ALL, ""),
            "*.*.a.com",
            "unable to generate a wildcard certificate in ACME provider for domain \"*.*.a.com\" : ACME does not allow '*.*' \
             wildcard domain"
                .to_owned(),
        ),
        (letsencrypt(ALL, ""), "a..com", "no certificate can be ordered for `a..com`: it has an empty label".to_owned()),
        (
            letsencrypt(HTTP, ""),
            "*.a.com",
            "no certificate is ordered for `*.a.com`: a wildcard needs `dnsChallenge`, which resolver `le` does not have; name \
             the hosts, or configure it"
                .to_owned(),
        ),
        (
            letsencrypt(ALL, ""),
            "printer",
            format!("no certificate is ordered for `printer`: it is a name of the local network: it has no dot, {unsigned}"),
        ),
        (
            letsencrypt(ALL, ""),
            "nas.local",
            format!("no certificate is ordered for `nas.local`: it is in a domain of private or special use, {unsigned}"),
        ),
        (
            Given::new(Authority::Public, ALL, ""),
            "10.0.0.1",
            format!("no certificate is ordered for `10.0.0.1`: it is an address of private or special use, {unsigned}"),
        ),
        (
            letsencrypt(DNS, "shortlived"),
            "1.1.1.1",
            "no certificate is ordered for `1.1.1.1`: an address needs `httpChallenge` or `tlsChallenge`, neither of which \
             resolver `le` has"
                .to_owned(),
        ),
        (
            letsencrypt(HTTP, ""),
            "1.1.1.1",
            "no certificate is ordered for `1.1.1.1`: Let's Encrypt signs addresses with `profile: shortlived` alone, which \
             resolver `le` does not have"
                .to_owned(),
        ),
    ] {
        let plan = given.plan(&[router("web", &format!("domains: {name} good.com"))]);
        assert_eq!(lines(&plan), ["good.com < web"], "{name}");
        assert_eq!(messages(&plan), [expected.as_str()]);
        assert_eq!(plan.problems[0].asker, Asker::Router("web".to_owned()));
        assert_eq!(plan.problems[0].severity, Severity::Error);
    }
}

#[test]
fn one_s_own_authority_decides_itself() {
    let given = Given::new(Authority::Unknown, ALL, "");
    let plan = given.plan(&[router("web", "rule: printer nas.local 10.0.0.1 a_b.internal *.lan")]);
    assert_eq!(lines(&plan), ["printer nas.local 10.0.0.1 a_b.internal *.lan < web"]);
    assert!(plan.problems.is_empty());
    let given = Given::new(Authority::Unknown, DNS, "");
    assert_eq!(given.plan(&[router("web", "rule: 10.0.0.1")]).problems.len(), 1, "the DNS knows nothing of addresses");
}

#[test]
fn addresses_need_a_profile_of_let_s_encrypt() {
    let given = Given::new(Authority::LetsEncrypt, HTTP, "shortlived");
    assert_eq!(lines(&given.plan(&[router("web", "rule: 1.1.1.1 [2606:4700::1]")])), ["1.1.1.1 2606:4700::1 < web"]);
}

#[test]
fn a_final_dot_and_control_characters_are_shown_safely() {
    let plan = public().plan(&[router("web", "domains: a.com.")]);
    assert_eq!(lines(&plan), ["a.com < web"]);
    assert_eq!(messages(&plan), ["`a.com.` is taken without its final dot: leave it away"]);
    assert_eq!(plan.problems[0].severity, Severity::Warning);
    let hostile = Domain { main: "a\u{1b}[31m".to_owned() + &"b".repeat(1000), sans: Vec::new() };
    let plan = public().plan(&[Ask { domains: vec![hostile], ..router("web", "rule:") }]);
    let [message] = messages(&plan).try_into().expect("there is one");
    assert!(message.len() < 200 && !message.contains('\u{1b}'), "{message}");
}

#[test]
fn long_lists_are_split() {
    let hosts: String = (0..230).map(|number| format!(" h{number:03}.com")).collect();
    for (authority, profile, expected) in [
        (Authority::LetsEncrypt, "", vec![100, 100, 30]),
        (Authority::LetsEncrypt, "tlsserver", vec![25, 25, 25, 25, 25, 25, 25, 25, 25, 5]),
        (Authority::Unknown, "tlsserver", vec![100, 100, 30]),
    ] {
        let plan = Given::new(authority, ALL, profile).plan(&[router("web", &format!("rule:{hosts}"))]);
        let sizes: Vec<usize> = plan.certificates.iter().map(|certificate| certificate.names.len()).collect();
        assert_eq!(sizes, expected);
        assert_eq!(plan.certificates[1].names[0].to_string(), format!("h{:03}.com", expected[0]));
    }
}

#[test]
fn authorities_are_known_by_their_host() {
    for (directory, expected) in [
        ("https://acme-v02.api.letsencrypt.org/directory", Authority::LetsEncrypt),
        ("https://acme-staging-v02.api.LetsEncrypt.org/directory", Authority::LetsEncrypt),
        ("https://acme.zerossl.com/v2/DV90", Authority::Public),
        ("https://dv.acme-v02.api.pki.goog/directory", Authority::Public),
        ("https://localhost:14000/dir", Authority::Unknown),
        ("https://ca.example.com/acme/acme/directory", Authority::Unknown),
        ("https://letsencrypt.org.example.com/", Authority::Unknown),
        ("https://notletsencrypt.org/", Authority::Unknown),
        ("no URL", Authority::Unknown),
    ] {
        assert_eq!(Authority::of(directory), expected, "{directory}");
    }
}

fn name() -> impl Strategy<Value = String> {
    r"(\*\.)?([abc]\.){0,2}[xy]\.com"
}

fn ask() -> impl Strategy<Value = Ask> {
    let domain = prop::collection::vec(name(), 1..4)
        .prop_map(|names| Domain { main: names[0].clone(), sans: names[1..].to_vec() });
    (prop::collection::vec(domain, 0..3), prop::collection::vec(name(), 0..4)).prop_map(|(domains, hosts)| Ask {
        asker: Asker::DefaultCertificate,
        resolver: "le".to_owned(),
        domains,
        hosts,
    })
}

fn asks() -> impl Strategy<Value = (Vec<Ask>, Vec<Ask>)> {
    prop::collection::vec(ask(), 0..6).prop_flat_map(|mut asks| {
        for (number, ask) in asks.iter_mut().enumerate() {
            ask.asker = Asker::Router(format!("router{number}"));
        }
        (Just(asks.clone()), Just(asks).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn each_name_is_in_one_certificate_and_each_asker_is_served((asks, shuffled) in asks()) {
        let plan = public().plan(&asks);
        prop_assert_eq!(&plan, &public().plan(&shuffled));
        let all: Vec<&Name> = plan.certificates.iter().flat_map(|certificate| &certificate.names).collect();
        for (at, name) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                prop_assert!(at == other_at || !name.covers(other), "{} {}", name, other);
            }
        }
        for ask in &asks {
            let domains = ask.domains.iter().flat_map(|domain| [&domain.main].into_iter().chain(&domain.sans));
            let asked: Vec<&String> = if ask.domains.is_empty() { ask.hosts.iter().collect() } else { domains.collect() };
            for name in asked.into_iter().filter_map(|text| Name::parse(text).ok()) {
                let serves = |certificate: &Wanted| {
                    certificate.names.iter().any(|own| own.covers(&name)) && certificate.askers.contains(&ask.asker)
                };
                prop_assert!(plan.certificates.iter().any(serves), "{} for {:?}", name, ask.asker);
            }
        }
        prop_assert!(plan.certificates.iter().all(|certificate| !certificate.names.is_empty()));
    }
}
