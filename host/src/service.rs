//! A service: a load balancer that chooses one of its servers, or a handler inside the proxy.
//!
//! `middleware` calls it at the end of a chain. It never looks at the rule that led there.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::header::HOST;

use crate::forward::{self, Pools, Upstream};
use crate::http::{Failure, Request, Response};

/// What a router leads to.
#[derive(Debug)]
pub enum Service {
    LoadBalancer(LoadBalancer),
    Internal(Internal),
}

/// The handlers inside the proxy, named `…@internal` in routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Internal {
    Api,
    Dashboard,
    Ping,
    Prometheus,
    Whoami,
    /// Answers challenges of ACME by HTTP-01.
    Acme,
    /// Answers 418, as Traefik's does.
    Noop,
}

/// Answers for the internal services. `server` hands it in, since what answers (`admin`) looks at snapshots.
pub type InternalHandler = Rc<dyn Fn(Internal, &Request) -> Response>;

/// Weighted round robin over a service's servers.
#[derive(Debug)]
pub struct LoadBalancer {
    pub servers: Vec<Server>,
    pub pass_host_header: bool,
    /// The order of turns: each server as often as its weight says, spread evenly.
    turns: Box<[u16]>,
    /// Shared by the workers, so that the weights hold for the proxy as a whole.
    next_turn: AtomicUsize,
}

#[derive(Clone, Debug)]
pub struct Server {
    pub upstream: Arc<Upstream>,
    pub weight: u32,
}

/// The turns of one round at most; larger weights are scaled down to fit.
const TURNS_AT_MOST: u64 = 1024;

impl Service {
    pub async fn call(&self, pools: &Rc<Pools>, internal: &InternalHandler, request: &mut Request) -> Answer {
        match self {
            Self::LoadBalancer(balancer) => balancer.call(pools, request).await,
            Self::Internal(service) => Answer { response: Ok(internal(*service, request)), server: None },
        }
    }
}

/// What a service answers, and the URL of the server that answered or failed to.
pub struct Answer {
    pub response: Result<Response, Failure>,
    pub server: Option<Arc<str>>,
}

impl Internal {
    /// `name` without its `@internal`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "api" => Self::Api,
            "dashboard" => Self::Dashboard,
            "ping" => Self::Ping,
            "prometheus" => Self::Prometheus,
            "whoami" => Self::Whoami,
            "acme-http" => Self::Acme,
            "noop" => Self::Noop,
            _ => return None,
        })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Api => "api@internal",
            Self::Dashboard => "dashboard@internal",
            Self::Ping => "ping@internal",
            Self::Prometheus => "prometheus@internal",
            Self::Whoami => "whoami@internal",
            Self::Acme => "acme-http@internal",
            Self::Noop => "noop@internal",
        }
    }
}

impl LoadBalancer {
    pub fn new(servers: Vec<Server>, pass_host_header: bool) -> Self {
        let turns = turns(&servers.iter().map(|server| server.weight).collect::<Vec<_>>());
        Self { servers, pass_host_header, turns, next_turn: AtomicUsize::new(0) }
    }

    /// Goes on with the round where an equal balancer of the previous snapshot stood.
    pub fn continue_from(&self, previous: &Self) {
        self.next_turn.store(previous.next_turn.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    async fn call(&self, pools: &Rc<Pools>, request: &mut Request) -> Answer {
        let Some(mut upstream) = self.choose(pools, request) else {
            return Answer { response: Err(Failure::NoServer), server: None };
        };
        if self.turns.len() > 1 && !pools.has_idle(upstream) {
            match Box::pin(self.reach(pools, request, upstream)).await {
                Ok(reached) => upstream = reached,
                Err(failure) => return Answer { response: Err(failure), server: Some(Arc::clone(&upstream.url)) },
            }
        }
        if !self.pass_host_header {
            request.head.headers.insert(HOST, upstream.authority.clone());
        }
        let response = forward::send(pools, upstream, request).await;
        Answer { response, server: Some(Arc::clone(&upstream.url)) }
    }

    /// The chosen server, or the first after it that takes connections. Nothing has been sent yet, so that nothing can
    /// happen twice.
    async fn reach<'a>(
        &'a self,
        pools: &Pools,
        request: &Request,
        chosen: &'a Arc<Upstream>,
    ) -> Result<&'a Arc<Upstream>, Failure> {
        if pools.binds(&request.connection, chosen) {
            return Ok(chosen);
        }
        let mut reached = forward::reach(pools, chosen).await.map(|()| chosen);
        let at = self.servers.iter().position(|server| Arc::ptr_eq(&server.upstream, chosen)).unwrap_or(0);
        let others = self.servers[at..].iter().skip(1).chain(&self.servers[..at]).filter(|server| server.weight > 0);
        for Server { upstream, .. } in others {
            let Err(Failure::Unreachable(_)) = reached else { break };
            reached = forward::reach(pools, upstream).await.map(|()| upstream);
        }
        reached
    }

    fn choose(&self, pools: &Pools, request: &Request) -> Option<&Arc<Upstream>> {
        let server = match &*self.turns {
            [] => return None,
            [only] => *only,
            turns => {
                // A login that holds for a connection holds for its server alone.
                let mut upstreams = self.servers.iter().map(|server| &server.upstream);
                if let Some(bound) = upstreams.find(|upstream| pools.binds(&request.connection, upstream)) {
                    return Some(bound);
                }
                turns[self.next_turn.fetch_add(1, Ordering::Relaxed) % turns.len()]
            }
        };
        self.servers.get(usize::from(server)).map(|server| &server.upstream)
    }
}

/// One round of nginx's smooth weighted round robin: a server of weight 5 beside two of weight 1 gets `a a b a c a a`.
fn turns(weights: &[u32]) -> Box<[u16]> {
    let weights = reduced(weights);
    let total: u64 = weights.iter().sum();
    let mut current: Vec<i64> = vec![0; weights.len()];
    (0..total)
        .filter_map(|_| {
            for (current, weight) in current.iter_mut().zip(&weights) {
                *current += i64::try_from(*weight).unwrap_or(0);
            }
            let candidates = (0..current.len()).filter(|&server| weights[server] > 0);
            let chosen = candidates.max_by_key(|&server| (current[server], std::cmp::Reverse(server)))?;
            current[chosen] -= i64::try_from(total).unwrap_or(0);
            u16::try_from(chosen).ok()
        })
        .collect()
}

/// The same proportions in smaller numbers; a weight that is not zero stays at least one.
fn reduced(weights: &[u32]) -> Vec<u64> {
    let divisor = weights.iter().fold(0, |divisor, &weight| greatest_common_divisor(divisor, u64::from(weight))).max(1);
    let weights: Vec<u64> = weights.iter().map(|&weight| u64::from(weight) / divisor).collect();
    let total: u64 = weights.iter().sum();
    if total <= TURNS_AT_MOST {
        return weights;
    }
    weights.iter().map(|&weight| if weight == 0 { 0 } else { (weight * TURNS_AT_MOST / total).max(1) }).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_the_weights_and_are_spread() {
        for (weights, expected) in [
            (&[1][..], &[0][..]),
            (&[1, 1, 1], &[0, 1, 2]),
            (&[10, 10], &[0, 1]),
            (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
            (&[0, 1], &[1]),
            (&[0, 0], &[]),
            (&[], &[]),
        ] {
            assert_eq!(&*turns(weights), expected, "{weights:?}");
        }
    }

    #[test]
    fn large_weights_keep_their_proportions_in_a_bounded_round() {
        let turns = turns(&[1_000_000, 333_333, 1]);
        assert!(turns.len() <= usize::try_from(TURNS_AT_MOST).expect("a small number") + 3);
        let count = |server| turns.iter().filter(|&&turn| turn == server).count();
        assert_eq!(count(2), 1);
        assert!((count(0) as f64 / count(1) as f64 - 3.0).abs() < 0.05);
    }
}
