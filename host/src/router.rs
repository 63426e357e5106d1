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

    use super::*;

    fn router(rules: &[(&str, i64)]) -> Router {
        let routes = rules.iter().map(|(text, priority)| {
            let rule = Rule::parse(text).expect(text);
            let priority = if *priority == 0 { rule.priority() } else { *priority };
            let (name, service) = ((*text).into(), "s@file".into());
            Arc::new(Route { name, rule, priority, service, access_log: true, target: Target::Disabled })
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
}
