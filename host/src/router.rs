//! Finds the route of a request: of the routers that match, the one with the highest priority.
//!
//! `snapshot` builds one [`Router`] per entry point and kind of connection; `entrypoint` asks it. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::middleware::Chain;
use crate::rule::{Hosts, Rule, Subject};

/// The routes of one entry point, indexed by host so that thousands of hosts cost no more than a few.
#[derive(Default)]
pub struct Router {
    /// By descending priority: an index into it is a rank.
    routes: Vec<Arc<Route>>,
    /// The ranks of the routes that can match a host, for hosts that rules name.
    by_host: HashMap<String, Vec<u32>>,
    /// The ranks of the routes that may match any host.
    any_host: Vec<u32>,
}

/// One router of the configuration, ready to serve.
pub struct Route {
    /// With its provider: `web@file`.
    pub name: Arc<str>,
    pub rule: Rule,
    pub priority: i64,
    /// The service's name with its provider, for the access log.
    pub service: Arc<str>,
    pub access_log: bool,
    pub metrics: bool,
    pub target: Target,
}

pub enum Target {
    Serve(Chain),
    /// The router is broken: it still matches, and answers 503, so that no wider router answers in its place.
    Disabled,
}

impl Router {
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
        let mut router = Self::default();
        for (rank, route) in (0..).zip(&routes) {
            match route.rule.hosts() {
                Hosts::Any => router.any_host.push(rank),
                Hosts::Exact(hosts) => {
                    for host in hosts {
                        router.by_host.entry(host).or_default().push(rank);
                    }
                }
            }
        }
        router.routes = routes;
        router
    }

    pub fn find(&self, subject: &Subject<'_>) -> Option<&Arc<Route>> {
        let named = self.by_host.get(subject.host).map_or(&[][..], Vec::as_slice);
        let ranks = merged(named, &self.any_host);
        ranks.map(|rank| &self.routes[rank as usize]).find(|route| route.rule.matches(subject))
    }
}

/// Two ascending lists as one.
fn merged<'a>(mut a: &'a [u32], mut b: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    std::iter::from_fn(move || {
        let list = match (a.first(), b.first()) {
            (Some(first), Some(second)) if first <= second => &mut a,
            (Some(_), None) => &mut a,
            (_, Some(_)) => &mut b,
            (None, None) => return None,
        };
        let (first, rest) = list.split_first()?;
        *list = rest;
        Some(*first)
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::{HeaderMap, Method};
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
    use proptest::sample::select;

    use super::*;

    fn router(rules: &[(&str, i64)]) -> Router {
        let routes = rules.iter().map(|(text, priority)| {
            let rule = Rule::parse(text).expect(text);
            let priority = if *priority == 0 { rule.priority() } else { *priority };
            let (name, service) = ((*text).into(), "s@file".into());
            Arc::new(Route { name, rule, priority, service, access_log: true, metrics: true, target: Target::Disabled })
        });
        Router::new(routes.collect())
    }

    fn found<'a>(router: &'a Router, host: &str, path: &str) -> Option<&'a str> {
        let subject = Subject {
            host,
            path,
            query: None,
            method: &Method::GET,
            headers: &HeaderMap::new(),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        router.find(&subject).map(|route| &*route.name)
    }

    #[test]
    fn priority_decides_among_named_and_other_hosts() {
        let router = router(&[
            ("Host(`a.example`)", 0),
            ("Host(`a.example`) && PathPrefix(`/api`)", 0),
            ("PathPrefix(`/`)", 0),
            ("PathPrefix(`/urgent`)", 1000),
            ("HostRegexp(`^.*\\.example$`)", 0),
        ]);
        assert_eq!(found(&router, "a.example", "/"), Some("HostRegexp(`^.*\\.example$`)"));
        assert_eq!(found(&router, "a.example", "/api/x"), Some("Host(`a.example`) && PathPrefix(`/api`)"));
        assert_eq!(found(&router, "a.example", "/urgent"), Some("PathPrefix(`/urgent`)"));
        assert_eq!(found(&router, "elsewhere", "/api"), Some("PathPrefix(`/`)"));
    }

    #[test]
    fn nothing_matches_nothing() {
        assert_eq!(found(&router(&[]), "a.example", "/"), None);
        assert_eq!(found(&router(&[("Host(`a.example`)", 0)]), "b.example", "/"), None);
    }

    #[test]
    fn large_and_small_tables_give_one_answer() {
        let rules: Vec<(String, i64)> = (0..2000).map(|n| (format!("Host(`h{n}.example`)"), 0)).collect();
        let rules: Vec<(&str, i64)> = rules.iter().map(|(rule, priority)| (rule.as_str(), *priority)).collect();
        let large = router(&rules);
        for (rule, _) in &rules {
            let host = &rule["Host(`".len()..rule.len() - 2];
            assert_eq!(found(&large, host, "/"), Some(*rule));
        }
        assert_eq!(found(&large, "h2000.example", "/"), None);
    }
    /// What the index finds is what looking at every rule finds, however many others there are.
    fn found_by_looking<'a>(rules: &[&'a str], subject: &Subject<'_>) -> Option<&'a str> {
        let matching = rules.iter().filter(|rule| Rule::parse(rule).expect(rule).matches(subject));
        let priority = |rule: &str| Rule::parse(rule).expect(rule).priority();
        matching.min_by_key(|rule| (std::cmp::Reverse(priority(rule)), **rule)).copied()
    }

    const RULES: [&str; 12] = [
        "Host(`a.example`)",
        "Host(`A.Example`) && PathPrefix(`/Api`)",
        "Host(`a.example`) || Host(`b.example`)",
        "Host(`a.example`) || PathPrefix(`/x`)",
        "!Host(`a.example`)",
        "Host(`*.example`)",
        "HostRegexp(`^[ab]\\.example$`)",
        "PathPrefix(`/api`)",
        "Path(`/api/%2e`)",
        "Host(`b.example`) && !PathPrefix(`/api`)",
        "Host(`c.example`) && (Path(`/x`) || Method(`GET`))",
        "PathRegexp(`(?i)^/API`)",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

        #[test]
        fn the_index_changes_no_answer(
            chosen in vec(select(RULES.to_vec()), 0..8),
            others in select(vec![0, 1, 150, 400]),
            host in select(vec!["a.example", "b.example", "c.example", "h7.example", "x", ""]),
            path in select(vec!["/", "/api", "/Api", "/api/x", "/x", "/api/%2e", "/api/%2E"]),
        ) {
            let many: Vec<String> = (0..others).map(|number| format!("Host(`h{number}.example`)")).collect();
            let mut rules: Vec<&str> = chosen.iter().copied().chain(many.iter().map(String::as_str)).collect();
            rules.sort_unstable();
            rules.dedup();
            let headers = HeaderMap::new();
            let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let subject = Subject { host, path, query: None, method: &Method::GET, headers: &headers, client };
            let table = router(&rules.iter().map(|rule| (*rule, 0)).collect::<Vec<_>>());
            prop_assert_eq!(table.find(&subject).map(|route| &*route.name), found_by_looking(&rules, &subject));
        }
    }
}
