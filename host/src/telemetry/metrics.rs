//! What is counted of requests, connections and reloads, under Traefik's names.
//!
//! Entry points count through a [`Meter`] for each worker, `server` counts reloads, `admin` writes it all out. A worker's lock
//! is nobody else's business but when somebody reads. It never looks at a configuration that may be reloaded.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use jiff::Timestamp;

use super::access::TlsFacts;
use super::exposition::{Exposition, Histogram};
use crate::config::install;

/// All counts. One for the process, if the install file asks for it.
#[derive(Debug)]
pub struct Metrics {
    levels: Levels,
    /// The upper ends of the classes of time, in seconds.
    ends: Box<[f64]>,
    workers: Box<[Worker]>,
    reloads: AtomicU64,
    /// In seconds since 1970; 0: never.
    last_success: AtomicU64,
}

/// What requests are counted for.
#[derive(Clone, Copy, Debug)]
struct Levels {
    entry_points: bool,
    routers: bool,
    services: bool,
}

/// A cache line of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Worker {
    counts: Mutex<Counts>,
    /// Open connections by entry point.
    open: BTreeMap<Arc<str>, AtomicU64>,
}

/// What one worker has counted.
#[derive(Debug, Default)]
struct Counts {
    entry_points: HashMap<Arc<str>, Traffic>,
    /// By router, and then by its service, which a reload may change.
    routers: HashMap<Arc<str>, HashMap<Arc<str>, Traffic>>,
    services: HashMap<Arc<str>, Traffic>,
}

#[derive(Clone, Debug, Default)]
struct Traffic {
    /// In the order of their classes, of which there are few.
    classes: Vec<(Class, Requests)>,
    tls: Vec<(TlsFacts, u64)>,
}

/// What requests have in common: the labels of their counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Class {
    status: StatusCode,
    method: &'static str,
    protocol: &'static str,
}

#[derive(Clone, Debug)]
struct Requests {
    seconds: Histogram,
    received: u64,
    sent: u64,
}

impl Metrics {
    pub fn new<'a>(
        config: &install::Prometheus,
        entry_points: impl Iterator<Item = &'a String> + Clone,
        workers: usize,
    ) -> Arc<Self> {
        let worker = move || Worker {
            counts: Mutex::default(),
            open: entry_points.clone().map(|name| (name.as_str().into(), AtomicU64::new(0))).collect(),
        };
        Arc::new(Self {
            levels: Levels {
                entry_points: config.add_entry_points_labels,
                routers: config.add_routers_labels,
                services: config.add_services_labels,
            },
            ends: config.buckets.as_slice().into(),
            workers: std::iter::repeat_with(worker).take(workers.max(1)).collect(),
            reloads: AtomicU64::new(0),
            last_success: AtomicU64::new(0),
        })
    }

    /// For one worker, counted from 0.
    pub fn meter(self: &Arc<Self>, worker: usize) -> Rc<Meter> {
        Rc::new(Meter { metrics: Arc::clone(self), worker: worker % self.workers.len() })
    }

    /// A reload, of which all was good or not. Nothing is kept of routers that are not among these, with their services.
    pub fn reloaded(&self, is_good: bool, routers: &BTreeSet<(Arc<str>, Arc<str>)>) {
        self.reloads.fetch_add(1, Ordering::Relaxed);
        if is_good {
            let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
            self.last_success.store(now, Ordering::Relaxed);
        }
        let services: BTreeSet<&Arc<str>> = routers.iter().map(|(_, service)| service).collect();
        for worker in &self.workers {
            let mut counts = worker.counts();
            counts.routers.retain(|router, of_router| {
                of_router.retain(|service, _| routers.contains(&(Arc::clone(router), Arc::clone(service))));
                !of_router.is_empty()
            });
            counts.services.retain(|service, _| services.contains(service));
        }
    }

    pub fn write(&self, exposition: &mut Exposition) {
        let reloads = self.reloads.load(Ordering::Relaxed);
        exposition.counter("traefik_config_reloads_total", "Config reloads").sample(&[], reloads);
        let last_success = self.last_success.load(Ordering::Relaxed);
        let mut family = exposition.gauge("traefik_config_last_reload_success", "Last config reload success");
        family.sample(&[], last_success);
        self.write_open(exposition);
        let (entry_points, routers, services) = self.sums();
        for (level, labels, of_level) in [
            ("entrypoint", &["entrypoint"][..], entry_points),
            ("router", &["router", "service"], routers),
            ("service", &["service"], services),
        ] {
            write_level(exposition, level, labels, &of_level, &self.ends);
        }
    }

    fn write_open(&self, exposition: &mut Exposition) {
        let mut family =
            exposition.gauge("traefik_open_connections", "How many open connections exist, by entryPoint and protocol");
        for name in self.workers.iter().take(1).flat_map(|worker| worker.open.keys()) {
            let of_workers = self.workers.iter().filter_map(|worker| worker.open.get(name));
            // One worker's count may be read before, another's after it has changed: never below none.
            let open: u64 = of_workers.map(|open| open.load(Ordering::Relaxed)).sum();
            family.sample(&[("entrypoint", name), ("protocol", "TCP")], open);
        }
    }

    fn sums(&self) -> (Sums, Sums, Sums) {
        let (mut entry_points, mut routers, mut services) = (Sums::new(), Sums::new(), Sums::new());
        let add = |sums: &mut Sums, names: Vec<Arc<str>>, traffic: &Traffic| {
            *sums.entry(names).or_default() += traffic;
        };
        for worker in &self.workers {
            let counts = worker.counts();
            for (name, traffic) in &counts.entry_points {
                add(&mut entry_points, vec![Arc::clone(name)], traffic);
            }
            for (router, of_router) in &counts.routers {
                for (service, traffic) in of_router {
                    add(&mut routers, vec![Arc::clone(router), Arc::clone(service)], traffic);
                }
            }
            for (name, traffic) in &counts.services {
                add(&mut services, vec![Arc::clone(name)], traffic);
            }
        }
        (entry_points, routers, services)
    }
}

/// Traffic of all workers, by the values of a level's labels.
type Sums = BTreeMap<Vec<Arc<str>>, Traffic>;

fn write_level(exposition: &mut Exposition, level: &str, labels: &[&str], sums: &Sums, ends: &[f64]) {
    let name = |metric: &str| format!("traefik_{level}_{metric}");
    let mut rows: Vec<(Vec<(&str, &str)>, &Requests)> = Vec::new();
    let mut rows_with_tls: Vec<(Vec<(&str, &str)>, u64)> = Vec::new();
    for (names, traffic) in sums {
        let named = || labels.iter().copied().zip(names.iter().map(|name| &**name));
        for (Class { status, method, protocol }, requests) in &traffic.classes {
            let class = [("code", status.as_str()), ("method", method), ("protocol", protocol)];
            rows.push((class.into_iter().chain(named()).collect(), requests));
        }
        for (tls, count) in &traffic.tls {
            let facts = [("tls_version", tls.version), ("tls_cipher", tls.cipher)];
            rows_with_tls.push((facts.into_iter().chain(named()).collect(), *count));
        }
    }
    let requests_total = name("requests_total");
    let mut family = exposition.counter(&requests_total, "How many HTTP requests were answered.");
    rows.iter().for_each(|(labels, requests)| family.sample(labels, requests.count()));
    let requests_tls_total = name("requests_tls_total");
    let mut family = exposition.counter(&requests_tls_total, "How many HTTP requests with TLS were answered.");
    rows_with_tls.iter().for_each(|(labels, count)| family.sample(labels, count));
    let seconds = name("request_duration_seconds");
    let mut family = exposition.histogram(&seconds, "From a request's head to the last byte of its response.");
    rows.iter().for_each(|(labels, requests)| family.observations(labels, ends, &requests.seconds));
    let received = name("requests_bytes_total");
    let mut family = exposition.counter(&received, "Bytes of requests' bodies.");
    rows.iter().for_each(|(labels, requests)| family.sample(labels, requests.received));
    let sent = name("responses_bytes_total");
    let mut family = exposition.counter(&sent, "Bytes of responses' bodies.");
    rows.iter().for_each(|(labels, requests)| family.sample(labels, requests.sent));
}

impl Worker {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Traffic {
    fn add(&mut self, measured: &Measured, seconds: f64, ends: &[f64]) {
        let Measured { method, protocol, status, sent, .. } = *measured;
        let class = Class { status, method, protocol };
        let at = self.classes.binary_search_by_key(&class, |(class, _)| *class).unwrap_or_else(|at| {
            let none = Requests { seconds: Histogram::new(ends), received: 0, sent: 0 };
            self.classes.insert(at, (class, none));
            at
        });
        let requests = &mut self.classes[at].1;
        requests.seconds.observe(ends, seconds);
        requests.received += measured.received.get();
        requests.sent += sent;
        let Some(tls) = measured.tls else { return };
        match self.tls.iter_mut().find(|(known, _)| *known == tls) {
            Some((_, count)) => *count += 1,
            None => self.tls.push((tls, 1)),
        }
    }
}

impl std::ops::AddAssign<&Self> for Traffic {
    fn add_assign(&mut self, other: &Self) {
        for (class, requests) in &other.classes {
            match self.classes.binary_search_by_key(class, |(class, _)| *class) {
                Ok(at) => self.classes[at].1 += requests,
                Err(at) => self.classes.insert(at, (*class, requests.clone())),
            }
        }
        for (tls, count) in &other.tls {
            match self.tls.iter_mut().find(|(known, _)| known == tls) {
                Some((_, sum)) => *sum += count,
                None => self.tls.push((*tls, *count)),
            }
        }
    }
}

impl Requests {
    fn count(&self) -> u64 {
        self.seconds.counts.iter().sum()
    }
}

impl std::ops::AddAssign<&Self> for Requests {
    fn add_assign(&mut self, other: &Self) {
        self.seconds += &other.seconds;
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// One worker's way to count. It stays there, so that no request touches what other workers touch.
#[derive(Debug)]
pub struct Meter {
    metrics: Arc<Metrics>,
    worker: usize,
}

/// A connection, which is counted for as long as this lives.
#[derive(Debug)]
pub struct OpenConnection {
    meter: Rc<Meter>,
    entry_point: Arc<str>,
}

/// A request on its way. It is counted when this is dropped, if it is to be counted at all.
#[derive(Debug)]
pub struct Measured {
    meter: Rc<Meter>,
    begun: Instant,
    method: &'static str,
    protocol: &'static str,
    entry_point: Arc<str>,
    tls: Option<TlsFacts>,
    received: Rc<Cell<u64>>,
    /// Unless somebody says otherwise.
    pub is_counted: bool,
    /// The router and its service, once they are known.
    pub routed: Option<(Arc<str>, Arc<str>)>,
    /// Whether it has come as far as a server of the service.
    pub is_served: bool,
    pub status: StatusCode,
    /// Bytes of the response's body.
    pub sent: u64,
}

impl Meter {
    pub fn open(self: &Rc<Self>, entry_point: &Arc<str>) -> OpenConnection {
        self.count_open(entry_point, 1);
        OpenConnection { meter: Rc::clone(self), entry_point: Arc::clone(entry_point) }
    }

    /// A request whose head has come. It has the status of one whose client has gone until there is an answer.
    pub fn begin<B>(
        self: &Rc<Self>,
        request: &http::Request<B>,
        entry_point: &Arc<str>,
        tls: Option<TlsFacts>,
        client_gone: StatusCode,
    ) -> Measured {
        Measured {
            meter: Rc::clone(self),
            begun: Instant::now(),
            method: method(request.method()),
            protocol: protocol(request.headers()),
            entry_point: Arc::clone(entry_point),
            tls,
            received: Rc::default(),
            is_counted: true,
            routed: None,
            is_served: false,
            status: client_gone,
            sent: 0,
        }
    }

    fn count_open(&self, entry_point: &str, by: u64) {
        if let Some(open) = self.metrics.workers[self.worker].open.get(entry_point) {
            // A connection stays with its worker, and nobody else writes there.
            open.store(open.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        }
    }

    fn end(&self, measured: &Measured) {
        let Metrics { levels, ends, workers, .. } = &*self.metrics;
        let seconds = measured.begun.elapsed().as_secs_f64();
        let mut counts = workers[self.worker].counts();
        if levels.entry_points {
            entry(&mut counts.entry_points, &measured.entry_point).add(measured, seconds, ends);
        }
        let Some((router, service)) = &measured.routed else { return };
        if levels.routers {
            let of_router = entry(&mut counts.routers, router);
            entry(of_router, service).add(measured, seconds, ends);
        }
        if levels.services && measured.is_served {
            entry(&mut counts.services, service).add(measured, seconds, ends);
        }
    }
}

impl Measured {
    /// Where to count the bytes of the request's body.
    pub fn received(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.received)
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if self.is_counted {
            self.meter.end(self);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.meter.count_open(&self.entry_point, u64::MAX);
    }
}

/// The name is cloned for the first request alone.
fn entry<'a, T: Default>(of: &'a mut HashMap<Arc<str>, T>, name: &Arc<str>) -> &'a mut T {
    if !of.contains_key(&**name) {
        of.insert(Arc::clone(name), T::default());
    }
    of.get_mut(&**name).expect("it is there or has just been put there")
}

/// Clients may name any method: those that are none of HTTP's are counted as one.
fn method(method: &Method) -> &'static str {
    const METHODS: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];

    METHODS.into_iter().find(|known| method == known).unwrap_or("EXTENSION_METHOD")
}

/// What a request asks for, by its head.
fn protocol(headers: &HeaderMap) -> &'static str {
    let names = |field: HeaderName, wanted: &[u8]| {
        let first = headers.get(field).map(|value| value.as_bytes().split(|byte| *byte == b','));
        first.is_some_and(|mut members| members.any(|member| member.trim_ascii().eq_ignore_ascii_case(wanted)))
    };
    let content_type = || headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    if names(UPGRADE, b"websocket") && names(CONNECTION, b"upgrade") {
        "websocket"
    } else if names(ACCEPT, b"text/event-stream") {
        "sse"
    } else if content_type().starts_with(b"application/grpc-web") {
        "grpc-web"
    } else if content_type().starts_with(b"application/grpc") {
        "grpc"
    } else {
        "http"
    }
}

#[cfg(test)]
mod tests;
