//! Whole handshakes in memory against stores of every kind.

mod support;

use std::collections::BTreeMap;
use std::fs;

use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, version};

use self::support::{Authority, Files, handshake, speaking, trusting};
use super::*;
use crate::config::routing::{Certificate as Source, ClientAuth, ClientAuthType, ServersTransport};

#[test]
fn serves_certificates_by_name() {
    let files = Files::new();
    let mut tls = Tls::default();
    for (name, hosts) in
        [("site", &["a.example.com", "10.0.0.1"][..]), ("wild", &["*.example.com"]), ("other", &["x.org"])]
    {
        tls.certificates.push(Item::new("tls.certificates", files.certificate(name, hosts)));
    }
    let (store, problems) = Store::build(&tls, &HostOptions::new(), &[], None);
    assert_eq!(problems, []);
    let served = |name: Option<&str>| handshake(&store, name, &trusting(Alpn::Http2)).expect("a handshake").common_name;
    assert_eq!(served(Some("a.example.com")), "site");
    assert_eq!(served(Some("A.Example.com")), "site");
    assert_eq!(served(Some("b.example.com")), "wild");
    assert_eq!(served(Some("b.b.example.com")), GENERATED_NAME);
    assert_eq!(served(Some("example.com")), GENERATED_NAME);
    assert_eq!(served(None), GENERATED_NAME);

    tls.default_certificate = Some(Item::new("tls.stores.default", files.certificate("default", &["d.example.com"])));
    let (store, _) = Store::build(&tls, &HostOptions::new(), &[], None);
    let served = |name: Option<&str>| handshake(&store, name, &trusting(Alpn::Http2)).expect("a handshake").common_name;
    assert_eq!((served(None), served(Some("unknown.net"))), ("default".to_owned(), "default".to_owned()));
    let names: Vec<_> = store.certificates().map(|summary| summary.names.join(" ")).collect();
    assert_eq!(names, ["a.example.com 10.0.0.1", "*.example.com", "x.org", "d.example.com"]);
    let default: Vec<_> = store.certificates().map(|summary| summary.default).collect();
    assert_eq!(default, [false, false, false, true]);
}

#[test]
fn takes_inline_pem_and_the_common_name() {
    let files = Files::new();
    let source = files.certificate("Only.Example.com", &[]);
    let text = |path: &str| fs::read_to_string(path).expect("the file is there");
    let inline = Source { cert_file: text(&source.cert_file), key_file: text(&source.key_file), stores: Vec::new() };
    let tls = Tls { certificates: vec![Item::new("tls.certificates[0]", inline)], ..Tls::default() };
    let (store, problems) = Store::build(&tls, &HostOptions::new(), &[], None);
    assert_eq!(problems, []);
    let agreed = handshake(&store, Some("only.example.com"), &trusting(Alpn::Http2)).expect("a handshake");
    assert_eq!(agreed.common_name, "Only.Example.com");
}

#[test]
fn says_what_is_wrong_with_a_certificate() {
    let files = Files::new();
    let good = files.certificate("good", &["good.org"]);
    let other = files.certificate("other", &["other.org"]);
    let expired = files.expired("expired", "expired.org");
    fs::write(files.path("empty.crt"), "no certificate").expect("writes");
    let (missing, empty) = (files.path("missing.crt"), files.path("empty.crt"));
    let source = |cert_file: &str, key_file: &str| Source {
        cert_file: cert_file.to_owned(),
        key_file: key_file.to_owned(),
        stores: Vec::new(),
    };
    let cases = [
        (source(&missing, &good.key_file), "cannot be read: it does not exist", Severity::Error),
        (source(&empty, &good.key_file), "holds no certificate in PEM", Severity::Error),
        (source(&good.cert_file, &good.cert_file), "holds no private key in PEM", Severity::Error),
        (source(&good.cert_file, &other.key_file), "does not belong to the certificate in", Severity::Error),
        (source("", &good.key_file), "neither a file nor PEM text is given", Severity::Error),
        (expired, "the certificate of `expired.org` expired at 2001-", Severity::Warning),
        (
            Source { stores: vec!["b".to_owned()], ..good.clone() },
            "only the store `default` is, not `b`",
            Severity::Warning,
        ),
    ];
    for (source, message, severity) in cases {
        let certificates =
            vec![Item::new("tls.certificates[0]", source), Item::new("tls.certificates[1]", other.clone())];
        let (store, problems) = Store::build(&Tls { certificates, ..Tls::default() }, &HostOptions::new(), &[], None);
        let [problem] = problems.as_slice() else { panic!("{message}: {problems:?}") };
        assert!(problem.message.contains(message), "{problem}");
        assert_eq!(problem.severity, severity, "{problem}");
        let agreed = handshake(&store, Some("other.org"), &trusting(Alpn::Http2)).expect("the others are served");
        assert_eq!(agreed.common_name, "other");
    }
}

#[test]
fn keeps_a_certificate_whose_files_break() {
    let files = Files::new();
    let source = files.certificate("site", &["site.org"]);
    let tls = Tls { certificates: vec![Item::new("tls.certificates[0]", source.clone())], ..Tls::default() };
    let (first, _) = Store::build(&tls, &HostOptions::new(), &[], None);
    let served = |store: &Store, name| handshake(store, Some(name), &trusting(Alpn::Http2)).expect("a handshake");
    let generated = served(&first, "unknown.org").certificate;

    fs::write(&source.cert_file, "half a").expect("writes");
    let (second, problems) = Store::build(&tls, &HostOptions::new(), &[], Some(&first));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.ends_with("the certificate as it was is still served"), "{}", problems[0]);
    assert_eq!(served(&second, "site.org").common_name, "site");
    assert!(second.certificates().next().is_some_and(|summary| summary.stale));

    files.certificate("site", &["new.org"]);
    let (third, problems) = Store::build(&tls, &HostOptions::new(), &[], Some(&second));
    assert_eq!(problems, []);
    assert_eq!(served(&third, "new.org").common_name, "site");
    assert_eq!(served(&third, "site.org").certificate, generated, "the generated certificate outlives reloads");
}

#[test]
fn refuses_unknown_names_if_strict() {
    let files = Files::new();
    let certificates = vec![Item::new("tls.certificates[0]", files.certificate("site", &["site.org"]))];
    let tls = Tls { certificates, ..options("default", TlsOptions { sni_strict: true, ..TlsOptions::default() }) };
    let (store, _) = Store::build(&tls, &HostOptions::new(), &[], None);
    assert!(handshake(&store, Some("site.org"), &trusting(Alpn::Http2)).is_ok());
    assert!(handshake(&store, Some("other.org"), &trusting(Alpn::Http2)).is_err());
    assert!(handshake(&store, None, &trusting(Alpn::Http2)).is_err());
}

#[test]
fn obeys_versions_suites_curves_and_protocols() {
    let defaults = handshake(&build(TlsOptions::default()), None, &trusting(Alpn::Http2)).expect("a handshake");
    assert_eq!(defaults.version, Some(ProtocolVersion::TLSv1_3));
    assert_eq!(defaults.group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(defaults.alpn.as_deref(), Some(&b"h2"[..]));

    let old = TlsOptions { max_version: Some("VersionTLS12".to_owned()), ..TlsOptions::default() };
    let agreed = handshake(&build(old), None, &trusting(Alpn::Http1)).expect("a handshake");
    assert_eq!((agreed.version, agreed.alpn.as_deref()), (Some(ProtocolVersion::TLSv1_2), Some(&b"http/1.1"[..])));

    let new = TlsOptions { min_version: Some("VersionTLS13".to_owned()), ..TlsOptions::default() };
    assert!(handshake(&build(new), None, &speaking(&version::TLS12)).is_err());

    let chosen = TlsOptions {
        cipher_suites: ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_AES_128_CBC_SHA"]
            .map(str::to_owned)
            .into(),
        curve_preferences: ["CurveP521", "CurveP384"].map(str::to_owned).into(),
        alpn_protocols: vec!["http/1.1".to_owned()],
        ..TlsOptions::default()
    };
    let (store, problems) = Store::build(&options("default", chosen), &HostOptions::new(), &[], None);
    let skipped: Vec<_> = problems.iter().map(|problem| (problem.severity, problem.key.as_str())).collect();
    let (suites, curves) = ("tls.options.default.cipherSuites", "tls.options.default.curvePreferences");
    assert_eq!(skipped, [(Severity::Warning, suites), (Severity::Warning, curves)]);
    let mut both = (*speaking(&version::TLS12)).clone();
    both.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let agreed = handshake(&store, None, &Arc::new(both)).expect("a handshake");
    assert_eq!(agreed.cipher, "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256");
    assert_eq!((agreed.group, agreed.alpn.as_deref()), (Some(NamedGroup::secp384r1), Some(&b"http/1.1"[..])));
}

#[test]
fn refuses_hosts_whose_options_are_broken() {
    let word = |word: &str| Some(word.to_owned());
    let verify = Some(ClientAuthType::RequireAndVerifyClientCert);
    let missing = ClientAuth { ca_files: vec!["missing.pem".to_owned()], client_auth_type: None };
    let cases = [
        (TlsOptions { min_version: word("VersionTLS10"), ..TlsOptions::default() }, "`VersionTLS10` is not served"),
        (TlsOptions { max_version: word("1.3"), ..TlsOptions::default() }, "`1.3` is not a TLS version"),
        (
            TlsOptions {
                min_version: word("VersionTLS13"),
                max_version: word("VersionTLS12"),
                ..TlsOptions::default()
            },
            "it is lower than `minVersion`",
        ),
        (
            TlsOptions { cipher_suites: vec!["TLS_NOPE".to_owned()], ..TlsOptions::default() },
            "`TLS_NOPE` is not a cipher",
        ),
        (TlsOptions { curve_preferences: vec!["P17".to_owned()], ..TlsOptions::default() }, "`P17` is not a curve"),
        (TlsOptions { client_auth: missing, ..TlsOptions::default() }, "`missing.pem` cannot be read"),
        (
            TlsOptions {
                client_auth: ClientAuth { ca_files: Vec::new(), client_auth_type: verify },
                ..TlsOptions::default()
            },
            "`RequireAndVerifyClientCert` needs at least one of them",
        ),
    ];
    let hosts = host_options(&[("a.org", "strict"), ("c.org", "unknown")]);
    for (broken, message) in cases {
        let (store, problems) = Store::build(&options("strict", broken), &hosts, &[], None);
        assert!(problems.iter().any(|problem| problem.message.contains(message)), "{message}: {problems:?}");
        assert!(problems[problems.len() - 1].message.contains("handshakes for their hosts are refused"));
        let refused = store.server_config("websecure", Some("a.org")).expect_err("it fails closed");
        assert_eq!(refused.to_string(), "the TLS options `strict` are broken");
        assert!(store.server_config("websecure", Some("b.org")).is_ok() && !store.has_option_set("strict"));
        assert!(store.server_config("websecure", Some("c.org")).is_err(), "options that nothing defines");
    }
}

#[test]
fn finds_option_sets_by_entry_point_and_host() {
    let hosts = host_options(&[("a.org", "strict"), ("*.b.org", "strict")]);
    let (store, _) = Store::build(&options("strict", TlsOptions::default()), &hosts, &[], None);
    for (entry_point, host, expected) in [
        ("websecure", "a.org", "strict"),
        ("websecure", "A.org.", "strict"),
        ("websecure", "x.b.org", "strict"),
        ("websecure", "b.org", "default"),
        ("websecure", "", "default"),
        ("other", "a.org", "default"),
    ] {
        assert_eq!(store.option_set_of(entry_point, host), expected, "{entry_point} {host}");
    }
}

#[test]
fn keeps_options_that_break_and_their_tickets() {
    let strict = |alpn: &str| TlsOptions { alpn_protocols: vec![alpn.to_owned()], ..TlsOptions::default() };
    let hosts = host_options(&[("a.org", "strict")]);
    let (first, _) = Store::build(&options("strict", strict("http/1.1")), &hosts, &[], None);
    let client = trusting(Alpn::Http2);
    let visit = |store: &Store, host| handshake(store, Some(host), &client).expect("a handshake");
    assert_eq!(visit(&first, "a.org").kind, Some(HandshakeKind::Full));
    assert_eq!(visit(&first, "a.org").kind, Some(HandshakeKind::Resumed));

    let (same, _) = Store::build(&options("strict", strict("http/1.1")), &hosts, &[], Some(&first));
    assert_eq!(visit(&same, "a.org").kind, Some(HandshakeKind::Resumed), "tickets survive a reload");

    let broken = TlsOptions { cipher_suites: vec!["TLS_NOPE".to_owned()], ..strict("http/1.1") };
    let (stale, problems) = Store::build(&options("strict", broken), &hosts, &[], Some(&same));
    assert!(problems[problems.len() - 1].message.ends_with("as they were they are still in force"));
    let agreed = visit(&stale, "a.org");
    assert_eq!((agreed.kind, agreed.alpn.as_deref()), (Some(HandshakeKind::Resumed), Some(&b"http/1.1"[..])));

    let (changed, _) = Store::build(&options("strict", strict("h2")), &hosts, &[], Some(&stale));
    assert_eq!(visit(&changed, "a.org").kind, Some(HandshakeKind::Full), "other options have other tickets");

    let without = TlsOptions { disable_session_tickets: true, ..TlsOptions::default() };
    let (without, _) = Store::build(&options("strict", without), &hosts, &[], Some(&changed));
    assert_eq!(visit(&without, "a.org").kind, Some(HandshakeKind::Full));
    assert_eq!(visit(&without, "a.org").kind, Some(HandshakeKind::Full));
}

#[test]
fn asks_clients_for_certificates() {
    let files = Files::new();
    let (own, rogue) = (files.authority("own"), files.authority("rogue"));
    let client = |authority: Option<&Authority>| {
        let certificates = authority.map(|authority| files.issued(authority, "client", "client")).into_iter().collect();
        let transport = ServersTransport { insecure_skip_verify: true, certificates, ..ServersTransport::default() };
        client_config(&transport, Alpn::Http1).expect("the files are there")
    };
    let (nobody, friend, stranger) = (client(None), client(Some(&own)), client(Some(&rogue)));
    for (wanted, expected) in [
        (None, [false, true, false]),
        (Some(ClientAuthType::NoClientCert), [true, true, true]),
        (Some(ClientAuthType::RequestClientCert), [true, true, true]),
        (Some(ClientAuthType::RequireAnyClientCert), [false, true, true]),
        (Some(ClientAuthType::VerifyClientCertIfGiven), [true, true, false]),
        (Some(ClientAuthType::RequireAndVerifyClientCert), [false, true, false]),
    ] {
        let client_auth = ClientAuth { ca_files: vec![own.file.clone()], client_auth_type: wanted };
        // TLS 1.2 tells both sides of a refusal within the handshake.
        let max_version = Some("VersionTLS12".to_owned());
        let store = build(TlsOptions { client_auth, max_version, ..TlsOptions::default() });
        let let_in = [&nobody, &friend, &stranger].map(|client| handshake(&store, None, client).is_ok());
        assert_eq!(let_in, expected, "{wanted:?}");
    }
}

#[test]
fn verifies_servers() {
    let files = Files::new();
    let authority = files.authority("own");
    let issued = files.issued(&authority, "issued", "server.org");
    let alone = files.certificate("alone", &["server.org"]);
    let expired = files.expired("expired", "server.org");
    let trust = |file: &str| ServersTransport { root_cas: vec![file.to_owned()], ..ServersTransport::default() };
    let none = ServersTransport { insecure_skip_verify: true, ..ServersTransport::default() };
    for (certificate, transport, name, expected) in [
        (&issued, trust(&authority.file), "server.org", true),
        (&issued, trust(&authority.file), "other.org", false),
        (&issued, trust(&alone.cert_file), "server.org", false),
        (&issued, ServersTransport::default(), "server.org", false),
        (&alone, trust(&alone.cert_file), "server.org", true),
        (&alone, trust(&alone.cert_file), "other.org", false),
        (&expired, trust(&expired.cert_file), "server.org", false),
        (&expired, none, "other.org", true),
    ] {
        let tls = Tls { default_certificate: Some(Item::new("", certificate.clone())), ..Tls::default() };
        let (store, _) = Store::build(&tls, &HostOptions::new(), &[], None);
        // A machine without any authority of its own refuses the third transport earlier.
        let agreed = client_config(&transport, Alpn::Http1).map(|client| handshake(&store, Some(name), &client));
        assert_eq!(matches!(agreed, Ok(Ok(_))), expected, "{name} {transport:?}");
    }
}

#[test]
fn says_everything_that_is_wrong_with_a_transport() {
    let transport = ServersTransport {
        root_cas: vec!["missing.pem".to_owned(), "-----BEGIN nothing".to_owned()],
        certificates: vec![Source { cert_file: "missing.crt".to_owned(), ..Source::default() }],
        ..ServersTransport::default()
    };
    let problems = client_config(&transport, Alpn::Http2).expect_err("files are missing");
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].starts_with("`missing.pem` cannot be read: "));
    assert!(problems[1].starts_with("the inline PEM text "));
    assert!(problems[2].starts_with("`missing.crt` cannot be read: "));
}

#[test]
fn names_versions_and_suites_as_traefik_does() {
    assert_eq!(version_name(Some(ProtocolVersion::TLSv1_3)), "1.3");
    assert_eq!(version_name(None), "unknown");
    for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
        let name = cipher_name(suite.suite());
        assert!(name.starts_with("TLS_"), "{name}");
    }
}

fn build(default: TlsOptions) -> Store {
    let (store, problems) = Store::build(&options("default", default), &HostOptions::new(), &[], None);
    assert_eq!(problems, []);
    store
}

fn options(name: &str, options: TlsOptions) -> Tls {
    let item = Item::new(format!("tls.options.{name}"), options);
    Tls { options: BTreeMap::from([(name.to_owned(), item)]), ..Tls::default() }
}

fn host_options(hosts: &[(&str, &str)]) -> HostOptions {
    let hosts = hosts.iter().map(|(host, set)| ((*host).to_owned(), (*set).to_owned()));
    BTreeMap::from([("websecure".to_owned(), hosts.collect())])
}
