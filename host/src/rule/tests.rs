use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{Error, Hosts, Rule, Subject};

/// A request in one line: `METHOD host/path?query | Name: value | from address`; all but the host may be absent.
struct Sent {
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
    client: IpAddr,
}

impl Sent {
    fn new(line: &str) -> Self {
        let mut parts = line.split(" | ");
        let target = parts.next().expect("split yields a first part");
        let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
        let uri: Uri = format!("http://{target}").parse().expect("a URI");
        let mut sent = Self {
            host: uri.host().unwrap_or_default().to_owned(),
            path: uri.path().to_owned(),
            query: uri.query().map(str::to_owned),
            method: method.parse().expect("a method"),
            headers: HeaderMap::new(),
            client: IpAddr::from([192, 0, 2, 1]),
        };
        for part in parts {
            if let Some(address) = part.strip_prefix("from ") {
                sent.client = address.parse().expect("an address");
            } else {
                let (name, value) = part.split_once(": ").expect("a header");
                let value = HeaderValue::from_bytes(value.as_bytes()).expect("a field value");
                sent.headers.append(name.parse::<HeaderName>().expect("a field name"), value);
            }
        }
        sent
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            client: self.client,
        }
    }
}

fn parse(text: &str) -> Rule {
    Rule::parse(text).unwrap_or_else(|error| panic!("{}", error.render(text)))
}

fn fail(text: &str) -> Error {
    match Rule::parse(text) {
        Ok(rule) => panic!("`{text}` is read as `{rule}`"),
        Err(error) => error,
    }
}

/// Rule, requests that it matches, requests that it does not match.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

fn check(cases: &[Case]) {
    for (text, matching, other) in cases {
        let rule = parse(text);
        for line in *matching {
            assert!(rule.matches(&Sent::new(line).subject()), "{text} should match {line}");
        }
        for line in *other {
            assert!(!rule.matches(&Sent::new(line).subject()), "{text} should not match {line}");
        }
    }
}

#[test]
fn hosts_match() {
    check(&[
        ("Host(`a.example`)", &["a.example/", "a.example:8080/x"], &["b.example", "x.a.example", "example"]),
        ("Host(`A.Example`)", &["a.example"], &["b.example"]),
        ("Host(`a.example.`)", &["a.example"], &["b.example"]),
        ("Host(`127.0.0.1`)", &["127.0.0.1:80"], &["127.0.0.2"]),
        ("Host(`xn--9t9h.com`)", &["xn--9t9h.com"], &["a.com"]),
        ("Host(`*.a.example`)", &["x.a.example", "yy.a.example"], &["a.example", "x.y.a.example", "x.ba.example"]),
        ("Host(`*.A.example.`)", &["x.a.example"], &["a.example"]),
        ("Host(`*a.example`)", &[], &["a.example", "xa.example", "x.a.example"]),
        ("Host(`*`)", &["a.example", "localhost"], &[]),
        ("HostRegexp(`^[a-z]+\\.example\\.com$`)", &["abc.example.com"], &["a1.example.com", "x.abc.example.com"]),
        ("HostRegexp(`example`)", &["www.example.com"], &["sample.com"]),
        ("HostRegexp(`^[A-Z]+\\.com$`)", &[], &["example.com"]),
        ("HostRegexp(`(?i)^A\\.`)", &["a.example"], &["b.example"]),
    ]);
}

#[test]
fn an_absent_host_matches_only_all_hosts() {
    let sent = Sent { host: String::new(), ..Sent::new("a.example") };
    for (text, expected) in
        [("Host(`*`)", true), ("Host(`*.`)", false), ("HostRegexp(`.`)", false), ("HostRegexp(`^$`)", true)]
    {
        assert_eq!(parse(text).matches(&sent.subject()), expected, "{text}");
    }
}

#[test]
fn paths_match() {
    check(&[
        ("Path(`/css`)", &["a/css", "a/css?x"], &["a/", "a/css/", "a/css/main.css", "a/CSS"]),
        ("PathPrefix(`/app`)", &["a/app", "a/app/", "a/application"], &["a/", "a/ap", "a/App"]),
        ("PathPrefix(`/app/`)", &["a/app/", "a/app/x"], &["a/app"]),
        ("PathPrefix(`/a/b`)", &["a/a/b"], &["a/a%2Fb"]),
        ("PathRegexp(`^/v[0-9]+/(a|b)$`)", &["a/v1/a", "a/v12/b"], &["a/v1/c", "a/x/v1/a"]),
        ("PathRegexp(`(?i)^/HELLO`)", &["a/hello", "a/HeLLo/x"], &["a/x"]),
        ("PathRegexp(\"/{path:(css|js)}\")", &["a/{path:css}", "a/{path:js}/"], &["a/css"]),
        ("PathPrefix(\"/a\\u0062\")", &["a/ab"], &["a/a"]),
    ]);
    let sent = Sent { path: "/foo bar".to_owned(), ..Sent::new("a") };
    assert!(parse("Path(`/foo bar`)").matches(&sent.subject()));
}

#[test]
fn methods_headers_and_clients_match() {
    check(&[
        ("Method(`post`)", &["POST a"], &["GET a", "post a"]),
        (
            "Header(`x-Proto`, `https`)",
            &["a | X-Proto: https", "a | X-Proto: http | X-Proto: https"],
            &["a", "a | X-Proto: HTTPS", "a | X-Proto: http, https", "a | Y: https"],
        ),
        (
            "HeaderRegexp(`X-Proto`, `^https?$`)",
            &["a | X-Proto: http", "a | X-Proto: ws | X-Proto: https"],
            &["a", "a | X-Proto: HTTPS"],
        ),
        (
            "HeaderRegexp(`X-Proto`, `http{secure:s?}`)",
            &["a | X-Proto: http{secure:}", "a | X-Proto: http{secure:s}"],
            &["a | X-Proto: https"],
        ),
        ("HeaderRegexp(`X`, `.`)", &["a | X: é"], &["a | X: "]),
        ("Header(`Host`, `a`)", &[], &["a", "a | Host: a"]),
        (
            "ClientIP(`127.0.0.1`)",
            &["a | from 127.0.0.1", "a | from ::ffff:127.0.0.1"],
            &["a | from 127.0.0.2", "a | from ::1"],
        ),
        ("ClientIP(`10.1.2.3/8`)", &["a | from 10.9.9.9", "a | from ::ffff:10.0.0.1"], &["a | from 11.0.0.1"]),
        ("ClientIP(`::ffff:10.0.0.0/104`)", &["a | from 10.9.9.9"], &["a | from 11.0.0.1"]),
        ("ClientIP(`::ffff:10.0.0.1`)", &["a | from 10.0.0.1"], &["a | from 10.0.0.2"]),
        ("ClientIP(`::/0`)", &["a | from 2001:db8::1"], &["a | from 10.0.0.1"]),
        ("ClientIP(`2001:db8::/32`)", &["a | from 2001:db8:1::1"], &["a | from 2001:db9::1"]),
    ]);
}

#[test]
fn header_bytes_outside_of_utf_8_are_searched() {
    let mut sent = Sent::new("a");
    sent.headers.insert("x", HeaderValue::from_bytes(b"caf\xe9!").expect("a field value"));
    assert!(parse("HeaderRegexp(`X`, `^caf.!$`)").matches(&sent.subject()));
}

#[test]
fn queries_match() {
    check(&[
        (
            "Query(`q`, `x`)",
            &["a?q=x", "a?r=1&q=x", "a?q=y&q=x", "a?r=1;q=x", "a?%71=%78"],
            &["a", "a?q=X", "a?Q=x", "a?r=x"],
        ),
        ("Query(`mobile`)", &["a?mobile", "a?mobile=", "a?x&mobile"], &["a", "a?mobile=true"]),
        ("QueryRegexp(`mobile`)", &["a?mobile"], &["a?mobile=true"]),
        ("Query(`q`, `a b&c`)", &["a?q=a%20b%26c", "a?q=a+b%26c"], &["a?q=a", "a?q=a%20b%26c%zz"]),
        ("QueryRegexp(`q`, `^(t|n)$`)", &["a?q=t", "a?q=p&q=n", "a?q=%74"], &["a", "a?q=T", "a?r=t", "a?q=tt"]),
        ("QueryRegexp(`q`, `^.*$`)", &["a?q", "a?q=x"], &["a", "a?Q=x"]),
    ]);
}

#[test]
fn operators_bind_as_in_go() {
    check(&[
        ("Host(`a`) && PathPrefix(`/p`)", &["a/p"], &["a/x", "b/p"]),
        ("Host(`a`) || Host(`b`) && PathPrefix(`/p`)", &["a/x", "b/p"], &["b/x", "c/p"]),
        ("Host(`b`) && PathPrefix(`/p`) || Host(`a`)", &["a/x", "b/p"], &["b/x"]),
        ("(Host(`a`) || Host(`b`)) && PathPrefix(`/p`)", &["a/p", "b/p"], &["a/x"]),
        ("!Host(`a`) && Path(`/x`)", &["b/x"], &["a/x", "b/y"]),
        ("!(Host(`a`) && Path(`/x`))", &["a/y", "b/x"], &["a/x"]),
        ("!(Host(`a`) || Host(`b`))", &["c"], &["a", "b"]),
        ("!(Host(`a`) && !Path(`/x`))", &["a/x", "b/x", "b/y"], &["a/y"]),
        ("!!(Host(`a`) && !!!Path(`/x`))", &["a/y"], &["a/x", "b/y"]),
    ]);
}

#[test]
fn the_same_rule_has_many_spellings() {
    let plain = parse("Host(`a.example`) && PathPrefix(`/x`)");
    for text in [
        "host(`a.example`)&&pathprefix(`/x`)",
        "HOST(`A.Example.`) && PATHPREFIX(\"/x\")",
        "Host(\"\\x61.example\") && Pathprefix(`/x`,)",
        "\n( Host(`a.example`)\n&&\t((PathPrefix( `/x` ))) )\r\n",
        "Host(`a.example`) && // the shop\n /* and */ PathPrefix(`/x`)",
        "!!Host(`a.example`) && PathPrefix(\"\\057\\U00000078\")",
        "Host(`a.example`) /*/ && Path(`/`) */ && PathPrefix(`/x`) //",
    ] {
        let rule = parse(text);
        assert_eq!(rule, plain, "{text}");
        assert_eq!(rule.to_string(), "Host(`a.example`) && PathPrefix(`/x`)");
        assert_eq!(rule.priority(), i64::try_from(text.len()).expect("a short text"));
    }
    assert_ne!(plain, parse("PathPrefix(`/x`) && Host(`a.example`)"));
}

#[test]
fn rules_print_as_plain_text() {
    for (text, printed) in [
        ("(Host(`a`)||(Host(`b`)||Host(`c`)))", "Host(`a`) || Host(`b`) || Host(`c`)"),
        ("((Host(`a`)||Host(`b`))&&Method(`get`))", "(Host(`a`) || Host(`b`)) && Method(`GET`)"),
        ("!(!Host(`a`)||Host(`b`))", "!(!Host(`a`) || Host(`b`))"),
        ("Header(\"X-A\",\"a`\\t\\\\b\")", "Header(`x-a`, \"a`\\u0009\\\\b\")"),
        ("QueryRegexp(`k`)", "Query(`k`)"),
        ("ClientIP(`10.1.2.3/8`)", "ClientIP(`10.0.0.0/8`)"),
        ("ClientIP(`::FFFF:10.1.2.3`)", "ClientIP(`10.1.2.3`)"),
        ("Host(`*`) && Host(`*.X`)", "Host(`*`) && Host(`*.x`)"),
    ] {
        assert_eq!(parse(text).to_string(), printed);
    }
}

#[test]
fn hosts_bound_what_a_rule_matches() {
    let cases: &[(&str, Option<&[&str]>)] = &[
        ("Host(`B`)", Some(&["b"])),
        ("Host(`b`) || Host(`a`) || Host(`b.`)", Some(&["a", "b"])),
        ("Host(`a`) && Path(`/`)", Some(&["a"])),
        ("Path(`/`) && (Host(`b`) || Host(`a`)) && !Host(`c`)", Some(&["a", "b"])),
        ("(Host(`a`) || Host(`b`)) && (Host(`b`) || Host(`c`))", Some(&["b"])),
        ("Host(`a`) && Host(`b`)", Some(&[])),
        ("Host(`a`) || Path(`/`)", None),
        ("Host(`*`)", None),
        ("Host(`*.a`)", None),
        ("HostRegexp(`^a$`)", None),
        ("!Host(`a`)", None),
        ("!(!Host(`a`) || Path(`/`))", None),
    ];
    for (text, names) in cases {
        let expected = names.map_or(Hosts::Any, |names| Hosts::Exact(names.iter().map(ToString::to_string).collect()));
        assert_eq!(parse(text).hosts(), expected, "{text}");
    }
}

#[test]
fn certificates_name_positive_hosts() {
    let cases: &[(&str, &[&str])] = &[
        ("Path(`/`)", &[]),
        ("Host(`B.example`) || Host(`a.example.`) && Path(`/`) || Host(`b.example`)", &["b.example", "a.example"]),
        ("Host(`*.a`) || Host(`*`) || HostRegexp(`b`)", &["*.a"]),
        ("Host(`a`) && !Host(`b`)", &["a"]),
        ("!(Host(`a`) || !Host(`b`))", &["b"]),
    ];
    for (text, names) in cases {
        assert_eq!(parse(text).certificate_names(), *names, "{text}");
    }
}

/// What is wrong with a text that is no rule, as people see it.
fn shown(text: &str) -> String {
    let error = fail(text);
    let help = error.help.iter().map(|help| format!("\n  help: {help}"));
    [error.render(text)].into_iter().chain(help).collect()
}

#[test]
fn errors_show_their_place() {
    // The rule, then what is shown below its line.
    let cases = include_str!("errors.txt").split("\n\n").map(str::trim_end);
    let mut count = 0;
    for case in cases {
        let text = case.lines().next().and_then(|line| line.strip_prefix("  ")).expect("a rule, indented");
        let text = text.replace("⏎", "\n");
        assert_eq!(shown(&text), case.replace("⏎", "\n"), "for {text}");
        count += 1;
    }
    assert!(count > 50);
}

#[test]
fn errors_find_their_line() {
    let text = "Host(`ä.example`) ||\n\tHost(`日本`) ||\r\n  Hots(`a`) ||\r\n  Host(`b`)";
    let error = fail(text);
    assert_eq!(&text[error.span], "`ä.example`");
    let text = text.replace('ä', "a");
    assert_eq!(
        shown(&text),
        "  \tHost(`日本`) ||\n  \t     ^^^^ `日本` is not ASCII\n  \
         help: write an internationalised name in its encoded form, `xn--…`"
    );
    let text = text.replace("日本", "x");
    assert_eq!(shown(&text), "    Hots(`a`) ||\n    ^^^^ unknown matcher `Hots`\n  help: did you mean `Host`?");
}

#[test]
fn a_rule_without_matchers_is_empty() {
    for text in ["", " \n", "// Host(`a`)", "/* */"] {
        let error = fail(text);
        assert_eq!(error.message, "the rule is empty");
        assert_eq!(error.span, 0..text.len());
        assert!(error.render(text).contains("^ the rule is empty"));
    }
}

#[test]
fn errors_of_long_rules_show_a_part() {
    let many = vec!["Host(`a.example`)"; 40].join(" || ");
    let text = format!("{many} || Pth(`/`) || {many}");
    let shown = fail(&text).render(&text);
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("  …") && lines[0].ends_with('…'), "{shown}");
    let caret = lines[1].find('^').expect("a caret");
    let column = lines[0].char_indices().position(|(at, _)| lines[0][at..].starts_with("Pth"));
    assert_eq!(Some(caret), column, "{shown}");

    let text = format!("Host({})", "a".repeat(10_000));
    let shown = fail(&text).render(&text);
    assert!(shown.lines().take(2).all(|line| line.chars().count() < 200), "{shown}");
}

#[test]
fn errors_keep_control_characters_to_themselves() {
    let text = "Host(`a`) \u{1b}[2J";
    assert!(!fail(text).render(text).contains('\u{1b}'));
    assert!(!fail("Path(`\u{7}`)").to_string().contains('\u{7}'));
}

#[test]
fn hostile_nesting_is_refused() {
    for text in ["(".repeat(100_000), "!(".repeat(100_000), format!("{}Host(`a`)", "(".repeat(65))] {
        assert!(fail(&text).message.contains("nested"));
    }
    let deep = format!("{}Host(`a`){}", "!(".repeat(64), ")".repeat(64));
    assert_eq!(parse(&deep).to_string(), "Host(`a`)");
    let long = format!("{}Host(`a`)", "!".repeat(100_000));
    assert_eq!(parse(&long).to_string(), "Host(`a`)");
    let wide = vec!["Host(`a`)"; 20_000].join(" || ");
    assert_eq!(parse(&wide).hosts(), Hosts::Exact(vec!["a".to_owned()]));
}

fn literal() -> impl Strategy<Value = String> {
    let quoted = "[a-z*. /é\t]{1,8}".prop_map(|value| format!("`{value}`"));
    let escaped = r#"([a-z `]|\\n|\\"|\\\\|\\u00e9|\\101){1,6}"#.prop_map(|value| format!("\"{value}\""));
    prop_oneof![quoted, escaped]
}

fn matcher() -> impl Strategy<Value = String> {
    let host = prop_oneof!["[ABab]", Just("*.b".to_owned()), Just("*".to_owned()), Just("a.b.".to_owned())];
    let pattern = prop_oneof!["[a-c]{1,3}", "\\^[ab]\\+", Just("[`\\\\w-.]".to_owned())];
    prop_oneof![
        3 => host.prop_map(|name| format!("Host(`{name}`)")),
        1 => pattern.prop_map(|text| format!("HostRegexp(\"{text}\")")),
        1 => (literal(), literal()).prop_map(|(name, value)| format!("query({name}, {value},)")),
        1 => literal().prop_map(|value| format!("Header(`X-A`,{value})")),
        1 => "(10\\.0\\.0\\.[0-9]{1,2}/[12][0-9]|::[0-9a-f]{1,4})".prop_map(|network| format!("ClientIP(`{network}`)")),
        1 => "/[ab]{0,2}".prop_map(|path| format!("PATHPREFIX( `{path}` )")),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    matcher().prop_recursive(5, 24, 3, |inner| {
        let joined = (proptest::collection::vec(inner.clone(), 2..4), any::<bool>());
        prop_oneof![
            inner.clone().prop_map(|rule| format!("!({rule})")),
            inner.prop_map(|rule| format!("( {rule}\n)")),
            joined.prop_map(|(rules, and)| rules.join(if and { "&&" } else { " || " })),
        ]
    })
}

/// Text that is nearly a rule.
const SCRAPS: &str = r#"([a-zA-Z(){}!&|,`"\\/*. \n\[\]^é]|Host\(`|PathRegexp\(`|`\)){0,24}"#;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn printed_rules_are_read_again(text in rule()) {
        let rule = parse(&text);
        let printed = rule.to_string();
        let again = parse(&printed);
        prop_assert_eq!(&again, &rule);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn hosts_never_miss(text in rule(), host in "[abc]", path in "/[ab]{0,2}") {
        let rule = parse(&text);
        let sent = Sent::new(&format!("{host}{path}"));
        if let Hosts::Exact(names) = rule.hosts() {
            prop_assert!(!rule.matches(&sent.subject()) || names.contains(&host));
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place(text in SCRAPS) {
        if let Err(error) = Rule::parse(&text) {
            prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
            prop_assert!(error.render(&text).contains('^'));
        }
    }
}
