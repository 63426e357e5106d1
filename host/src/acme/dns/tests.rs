use std::net::IpAddr;

use super::server::{DnsServer, How, On};
use super::*;

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

const AUTHORITATIVE: Checks = Checks { authoritative: true, recursive: false };
const RECURSIVE: Checks = Checks { authoritative: false, recursive: true };
const BOTH: Checks = Checks { authoritative: true, recursive: true };
const NONE: Checks = Checks { authoritative: false, recursive: false };

const FQDN: &str = "_acme-challenge.example.com.";

fn settings(resolvers: &[&DnsServer]) -> Settings {
    Settings {
        resolvers: resolvers.iter().map(|server| server.address().to_string()).collect(),
        timeout: Duration::from_secs(2),
        port: resolvers[0].address().port(),
        ..Settings::default()
    }
}

fn dns(server: &DnsServer) -> Dns {
    Dns::new(&settings(&[server])).expect("addresses")
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn example() -> Place {
    Place { fqdn: FQDN.to_owned(), zone: "example.com.".to_owned() }
}

/// `example.com` on two servers.
async fn two() -> (DnsServer, DnsServer) {
    let primary = DnsServer::start().await;
    let secondary = primary.secondary(THERE).await.expect("the same port on another address");
    primary.add_zone("example.com", &[("ns1.example.com", HERE), ("ns2.example.com", THERE)]);
    (primary, secondary)
}

#[tokio::test]
async fn a_record_has_its_place() {
    let server = DnsServer::start().await;
    for zone in
        ["com", "example.com", "sub.example.com", "_acme-challenge.cut.example.com", "example.net", "example.org"]
    {
        server.add_zone(zone, &[]);
    }
    server.add_cname("_acme-challenge.one.example.com", "One.acme.example.NET");
    server.add_cname("_acme-challenge.two.example.com", "two.acme.example.net");
    server.add_cname("two.acme.example.net", "three.example.org");
    // Whose SOA comes along when one asks for that of `www`.
    server.add_cname("www.example.com", "example.org");
    let dns = dns(&server);
    for (domain, fqdn, zone) in [
        ("example.com", "_acme-challenge.example.com.", "example.com."),
        ("Example.COM.", "_acme-challenge.example.com.", "example.com."),
        ("a.b.example.com", "_acme-challenge.a.b.example.com.", "example.com."),
        ("sub.example.com", "_acme-challenge.sub.example.com.", "sub.example.com."),
        ("x.sub.example.com", "_acme-challenge.x.sub.example.com.", "sub.example.com."),
        ("cut.example.com", "_acme-challenge.cut.example.com.", "_acme-challenge.cut.example.com."),
        ("one.example.com", "one.acme.example.net.", "example.net."),
        ("two.example.com", "three.example.org.", "example.org."),
        ("www.example.com", "_acme-challenge.www.example.com.", "example.com."),
        ("unregistered.com", "_acme-challenge.unregistered.com.", "com."),
    ] {
        let place = dns.place(domain, now()).await.expect(domain);
        assert_eq!(place, Place { fqdn: fqdn.to_owned(), zone: zone.to_owned() }, "{domain}");
    }
}

#[tokio::test]
async fn cnames_are_left_alone_where_that_is_asked_for() {
    let server = DnsServer::start().await;
    server.add_zone("example.com", &[]);
    server.add_cname(FQDN, "elsewhere.example.net");
    let dns = Dns::new(&Settings { follow_cnames: false, ..settings(&[&server]) }).expect("addresses");
    assert_eq!(dns.place("example.com", now()).await.expect("a place"), example());
}

#[tokio::test]
async fn a_place_that_cannot_be_found_says_why() {
    let server = DnsServer::start().await;
    server.add_zone("example.com", &[]);
    server.add_cname("_acme-challenge.circle.example.com", "circle.example.com");
    server.add_cname("circle.example.com", "_acme-challenge.circle.example.com");
    for i in 0..60 {
        server.add_cname(&format!("{i}.long.example.com"), &format!("{}.long.example.com", i + 1));
    }
    server.add_cname("_acme-challenge.long.example.com", "0.long.example.com");
    server.misbehave(On::Name("_acme-challenge.broken.example.com"), How::Answers(ResponseCode::ServFail), 9);
    server.misbehave(On::Name("_acme-challenge.old.example.com"), How::Answers(ResponseCode::NotImp), 9);
    let dns = dns(&server);
    for (domain, expected) in [
        ("circle.example.com", "lead in a circle"),
        ("long.example.com", "more than 50 CNAME records"),
        ("nowhere.example", "no zone holds `_acme-challenge.nowhere.example.`"),
        ("broken.example.com", "answers SERVFAIL"),
        ("old.example.com", "answers NOTIMP"),
        ("a..example.com", "is not a name of the DNS"),
    ] {
        let error = format!("{:#}", dns.place(domain, now()).await.expect_err(domain));
        assert!(error.contains(expected), "{domain}: {error}");
    }
}

#[tokio::test]
async fn a_zone_is_remembered_as_long_as_its_soa_says() {
    let server = DnsServer::start().await;
    server.add_zone("example.com", &[]);
    let dns = dns(&server);
    let soa = || server.asked().iter().filter(|(_, kind)| *kind == RecordType::SOA).count();
    for (seconds, expected) in [(0, 2), (1, 2), (599, 2), (600, 4)] {
        dns.place("example.com", now() + Duration::from_secs(seconds)).await.expect("a place");
        assert_eq!(soa(), expected, "after {seconds} s");
    }
}

#[tokio::test]
async fn another_resolver_is_asked_where_one_cannot_tell() {
    let (first, second) = (DnsServer::start().await, DnsServer::start().await);
    second.add_zone("example.com", &[]);
    let dns = Dns::new(&settings(&[&first, &second])).expect("addresses");
    for how in [
        None,
        Some(How::IsSilent),
        Some(How::Answers(ResponseCode::ServFail)),
        Some(How::Answers(ResponseCode::Refused)),
        Some(How::Answers(ResponseCode::NotImp)),
    ] {
        first.behave();
        if let Some(how) = how {
            first.misbehave(On::Any, how, usize::MAX);
        }
        // Long after what was learnt before is forgotten.
        let found = dns.zone(&parse(FQDN).expect("a name"), now()).await.expect("a zone");
        assert_eq!(found.to_ascii(), "example.com.", "{how:?}");
        dns.zones.lock().expect("no panic").clear();
    }
}

#[tokio::test]
async fn resolvers_that_cannot_be_reached_are_named() {
    let server = DnsServer::start().await;
    let address = server.address();
    let dns = dns(&server);
    drop(server);
    let error = format!("{:#}", dns.place("example.com", now()).await.expect_err("nobody is there"));
    assert!(error.contains(&format!("`{address}` cannot be reached")), "{error}");
    assert!(error.contains("dnsChallenge.resolvers"), "{error}");
}

#[tokio::test]
async fn an_answer_comes_through_all_troubles() {
    for how in [How::Forges, How::Truncates, How::KnowsNoEdns, How::IsSilent] {
        let server = DnsServer::start().await;
        server.add_zone("example.com", &[]);
        server.misbehave(On::Type(RecordType::SOA), how, 1);
        assert_eq!(dns(&server).place("example.com", now()).await.expect("a place"), example(), "{how:?}");
        assert_eq!(server.over_tcp() > 0, how == How::Truncates, "{how:?}");
    }
}

#[tokio::test]
async fn forgeries_are_not_believed() {
    let server = DnsServer::start().await;
    server.add_zone("example.com", &[]);
    server.misbehave(On::Any, How::ForgesAlone, usize::MAX);
    let dns = Dns::new(&Settings { timeout: Duration::from_millis(300), ..settings(&[&server]) }).expect("addresses");
    let error = format!("{:#}", dns.place("example.com", now()).await.expect_err("no answer"));
    assert!(error.contains("does not answer within 0.3 s"), "{error}");
}

#[tokio::test]
async fn tcp_alone_is_used_where_that_is_asked_for() {
    let server = DnsServer::start().await;
    server.add_zone("example.com", &[]);
    let dns = Dns::new(&Settings { tcp_only: true, ..settings(&[&server]) }).expect("addresses");
    dns.place("example.com", now()).await.expect("a place");
    assert_eq!(server.over_tcp(), server.asked().len());
}

#[tokio::test]
async fn a_record_is_visible_when_all_that_are_asked_show_it() {
    for (shown_by, checks, visible) in [
        ("none", AUTHORITATIVE, false),
        ("none", RECURSIVE, false),
        ("none", BOTH, false),
        ("none", NONE, true),
        ("all", AUTHORITATIVE, true),
        ("all", RECURSIVE, true),
        ("all", BOTH, true),
        ("the first", AUTHORITATIVE, false),
        // The resolver is the first server.
        ("the first", RECURSIVE, true),
        ("the first", BOTH, false),
        ("the second", AUTHORITATIVE, false),
        ("the second", RECURSIVE, false),
    ] {
        let (first, second) = two().await;
        let text = On::Type(RecordType::TXT);
        match shown_by {
            "none" => {}
            "the first" => second.misbehave(text, How::Lacks, usize::MAX),
            "the second" => first.misbehave(text, How::Lacks, usize::MAX),
            _ => first.add_txt_of(FQDN, &["val", "ue"]),
        }
        if shown_by.starts_with("the") {
            first.add_txt(FQDN, "value");
        }
        first.add_txt(FQDN, "of another");
        let seen = dns(&first).is_visible(&example(), "value", checks).await.expect("an answer");
        assert_eq!(seen == Visible::Yes, visible, "shown by {shown_by}, {checks:?}: {seen:?}");
    }
}

#[tokio::test]
async fn who_does_not_show_a_record_is_named() {
    let (first, second) = two().await;
    first.add_txt(FQDN, "other");
    second.misbehave(On::Type(RecordType::TXT), How::Lacks, usize::MAX);
    let seen = dns(&first).is_visible(&example(), "value", BOTH).await.expect("an answer");
    let Visible::NotYet(absence) = seen else { panic!("it is not there") };
    assert_eq!(
        absence.to_string(),
        "`ns1.example.com.` does not have it, but 1 other, `ns2.example.com.` does not have it"
    );
}

#[tokio::test]
async fn resolvers_are_not_asked_before_the_zones_own_servers_show_a_record() {
    let (first, second) = two().await;
    let resolver = DnsServer::start().await;
    let dns =
        Dns::new(&Settings { port: first.address().port(), ..settings(&[&first, &resolver]) }).expect("addresses");
    second.misbehave(On::Type(RecordType::TXT), How::Lacks, 1);
    first.add_txt(FQDN, "value");
    let text = |server: &DnsServer| server.asked().iter().filter(|(_, kind)| *kind == RecordType::TXT).count();
    assert_ne!(dns.is_visible(&example(), "value", BOTH).await.expect("an answer"), Visible::Yes);
    assert_eq!(text(&resolver), 0, "it would remember that there is no such record");
    assert_ne!(dns.is_visible(&example(), "value", BOTH).await.expect("an answer"), Visible::Yes);
    assert_eq!(text(&resolver), 1);
}

#[tokio::test]
async fn a_server_that_does_not_serve_the_zone_is_left_out() {
    for how in [How::IsLame, How::Answers(ResponseCode::Refused), How::Answers(ResponseCode::ServFail), How::IsSilent] {
        let (first, second) = two().await;
        first.add_txt(FQDN, "value");
        let dns = Dns::new(&Settings { timeout: Duration::from_secs(1), ..settings(&[&first]) }).expect("addresses");
        second.misbehave(On::Type(RecordType::TXT), how, usize::MAX);
        let seen = dns.is_visible(&example(), "value", AUTHORITATIVE).await.expect("an answer");
        assert_eq!(seen, Visible::Yes, "{how:?}");
        first.misbehave(On::Type(RecordType::TXT), how, usize::MAX);
        let seen = dns.is_visible(&example(), "value", AUTHORITATIVE).await.expect("an answer");
        let Visible::NotYet(absence) = seen else { panic!("nobody shows it") };
        assert!(absence.lacking.is_empty() && absence.unreachable.len() == 2, "{how:?}: {absence}");
    }
}

#[tokio::test]
async fn a_server_is_tried_at_all_its_addresses() {
    let (first, second) = two().await;
    drop(second);
    first.add_zone("example.net", &[("ns.example.net", THERE)]);
    first.add_address("ns.example.net", HERE);
    first.add_txt("_acme-challenge.example.net", "value");
    let place = Place { fqdn: "_acme-challenge.example.net.".to_owned(), zone: "example.net.".to_owned() };
    let seen = dns(&first).is_visible(&place, "value", AUTHORITATIVE).await.expect("an answer");
    assert_eq!(seen, Visible::Yes);
}
