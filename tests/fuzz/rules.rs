//! The rule language.

use http::{HeaderMap, Method};
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use weir::rule::{Hosts, Rule, Subject};

use super::{cases, mutated};

const RULES: [&str; 8] = [
    "Host(`a.example`) && (PathPrefix(`/api`) || Path(`/b`))",
    "!(Host(`*.example`) || ClientIP(`10.0.0.0/8`, `::1`))",
    "HostRegexp(`^[a-z]+\\.example$`) && Method(`GET`)",
    "Header(`X-A`, `b`) || HeaderRegexp(`X-A`, `^b+$`)",
    "Query(`a`, `b`) && QueryRegexp(`a`, `^b`)",
    "PathRegexp(\"^/\\u00e9/\\101\\n\") || Host(\"b\")",
    "Host(`a`)||Host(`b`)&&!Path(`/`) // remark",
    "((((Host(`a.example`,))))) /* remark */",
];

const TOKENS: &[&str] = &[
    "(",
    ")",
    "!",
    "&&",
    "||",
    ",",
    "`",
    "\"",
    "\\",
    "/*",
    "*/",
    "//",
    "\n",
    "Host(`",
    "`)",
    "\\x",
    "\\u12",
    "*.",
    "é",
    "\u{0}",
    "\u{1b}",
    "(?i)",
    "{1,1000}",
    "[^",
    "0x",
    "{name:[a-z]+}",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let rules = RULES.iter().map(|rule| rule.as_bytes().to_vec()).collect();
    prop_oneof![
        6 => mutated(rules, TOKENS),
        1 => proptest::collection::vec(any::<u8>(), 0..60),
    ]
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn any_text_is_a_rule_or_wrong_at_a_place(bytes in text(), host in "(a|b|a.example|x.example)", path in "/(api|b)?") {
        let text = String::from_utf8_lossy(&bytes);
        let rule = match Rule::parse(&text) {
            Ok(rule) => rule,
            Err(error) => {
                prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error);
                let shown = error.render(&text);
                prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{:?}", shown);
                return Ok(());
            }
        };
        let printed = rule.to_string();
        let again = Rule::parse(&printed).map_err(|error| {
            proptest::test_runner::TestCaseError::fail(format!("`{printed}` is no rule: {error}"))
        })?;
        prop_assert_eq!(&again, &rule);
        prop_assert_eq!(again.hosts(), rule.hosts());
        let headers = HeaderMap::new();
        let subject = Subject {
            host: &host,
            path: &path,
            query: Some("a=b"),
            method: &Method::GET,
            headers: &headers,
            client: [10, 0, 0, 1].into(),
        };
        let matches = rule.matches(&subject);
        prop_assert_eq!(again.matches(&subject), matches);
        if let (true, Hosts::Exact(hosts)) = (matches, rule.hosts()) {
            prop_assert!(hosts.contains(&host), "the index by host would not find it");
        }
    }
}
