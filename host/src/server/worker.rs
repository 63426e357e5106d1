//! Workers: one thread per core, each with its own runtime, listeners, connections to servers and plugin instances.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use http::HeaderValue;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::interval;

use super::listen::{self, Bound};
use crate::acme::Acme;
use crate::admin::Admin;
use crate::config::Install;
use crate::config::install::{self, CertificatesResolver, HeadersStrategy, Transport};
use crate::entrypoint::{self, Admission, Aliases, EntryPoint, Limits, Live, Reception, Sending, Trust, Worker};
use crate::forward::Pools;
use crate::middleware::Resources;
use crate::plugin::{GuestMetrics, Instances, Usages};
use crate::service::{Internal, InternalHandler};
use crate::snapshot::Snapshot;
use crate::target::{Allowed, Paths};
use crate::telemetry::{AccessLog, Metrics};

/// How often workers forget idle connections and instances that nobody needs any more.
const PRUNE_INTERVAL: Duration = Duration::from_secs(1);

/// What all workers look at.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) live: Arc<ArcSwap<Snapshot>>,
    pub(super) install: Arc<Install>,
    pub(super) access_log: Option<Arc<AccessLog>>,
    pub(super) draining: Arc<AtomicBool>,
    pub(super) admission: Arc<Admission>,
    pub(super) acme: Arc<Acme>,
    pub(super) usages: Arc<Usages>,
    pub(super) guest_metrics: Arc<GuestMetrics>,
    pub(super) metrics: Option<Arc<Metrics>>,
}

/// The running threads. They end when this is dropped.
pub(super) struct Workers {
    draining: watch::Sender<bool>,
    /// Ends when no worker accepts or serves connections any more.
    open: mpsc::Receiver<()>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    counts: Vec<Counts>,
}

/// What a worker has to do, to be looked at from outside.
#[derive(Clone, Default)]
struct Counts {
    requests: Arc<AtomicUsize>,
    runtime: Arc<OnceLock<Handle>>,
}

/// What one thread is started with.
struct Start {
    listeners: Vec<(Arc<EntryPoint>, std::net::TcpListener)>,
    shared: Shared,
    admin: Arc<Admin>,
    draining: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
    stop: watch::Receiver<bool>,
    counts: Counts,
    /// Counted from 0.
    number: usize,
}

impl Workers {
    pub(super) fn start(bound: BTreeMap<String, Bound>, shared: &Shared) -> anyhow::Result<Self> {
        let mut per_worker: Vec<Vec<(Arc<EntryPoint>, std::net::TcpListener)>> =
            (0..listen::workers()).map(|_| Vec::new()).collect();
        for (name, bound) in bound {
            let entry_point = Arc::new(entry_point(&name, &shared.install));
            tracing::info!(entry_point = name, address = %bound.address, "listening");
            for (listeners, listener) in per_worker.iter_mut().zip(bound.listeners) {
                listeners.push((Arc::clone(&entry_point), listener));
            }
        }
        let admin = Arc::new(Admin {
            acme: Arc::clone(&shared.acme),
            live: Arc::clone(&shared.live),
            install: Arc::clone(&shared.install),
            started: Timestamp::now(),
            draining: Arc::clone(&shared.draining),
            host_name: host_name(),
            usages: Arc::clone(&shared.usages),
            guest_metrics: Arc::clone(&shared.guest_metrics),
            metrics: shared.metrics.clone(),
        });
        let (draining, when_draining) = watch::channel(false);
        let (stop, when_stopped) = watch::channel(false);
        let (opened, open) = mpsc::channel(1);
        let mut threads = Vec::new();
        let mut counts = Vec::new();
        for (number, listeners) in per_worker.into_iter().enumerate() {
            let start = Start {
                listeners,
                shared: shared.clone(),
                admin: Arc::clone(&admin),
                draining: when_draining.clone(),
                open: opened.clone(),
                stop: when_stopped.clone(),
                counts: Counts::default(),
                number,
            };
            counts.push(start.counts.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(|| run(start));
            threads.push(thread.context("starting a worker thread")?);
        }
        Ok(Self { draining, open, stop, threads, counts })
    }

    /// Requests in flight, and tasks.
    pub(super) fn load(&self) -> (usize, usize) {
        let requests = self.counts.iter().map(|counts| counts.requests.load(Ordering::Relaxed)).sum();
        let runtimes = self.counts.iter().filter_map(|counts| counts.runtime.get());
        (requests, runtimes.map(|runtime| runtime.metrics().num_alive_tasks()).sum())
    }

    /// Accepts no more, and returns when the last connection has ended.
    pub(super) async fn drain(&mut self) {
        self.draining.send_replace(true);
        while self.open.recv().await.is_some() {}
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A worker that has panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn run(start: Start) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a worker without a runtime cannot serve");
    runtime.block_on(work(start));
}

async fn work(start: Start) {
    let Start { listeners, shared, admin, draining, open, mut stop, counts, number } = start;
    counts.runtime.get_or_init(Handle::current);
    let pools = Rc::new(Pools::default());
    let host_name = HeaderValue::from_str(&admin.host_name).unwrap_or(HeaderValue::from_static("localhost"));
    let internal: InternalHandler = Rc::new(move |service: Internal, request| admin.answer(service, request));
    let resources = Resources { instances: Instances::of_worker(number), pools: Rc::clone(&pools), internal };
    let worker = Rc::new(Worker {
        live: Live::new(shared.live),
        resources,
        access_log: shared.access_log,
        meter: shared.metrics.map(|metrics| metrics.meter(number)),
        admission: shared.admission,
        answers: shared.acme.answers().clone(),
        requests: counts.requests,
        host_name,
        last_failure: Cell::new(None),
    });
    for (entry_point, listener) in listeners {
        let listener = TcpListener::from_std(listener).expect("a bound listener can be polled");
        let serving = entrypoint::serve(listener, entry_point, Rc::clone(&worker), draining.clone(), open.clone());
        spawn_local(serving);
    }
    drop(open);
    let mut prune = interval(PRUNE_INTERVAL);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = prune.tick() => {
                worker.live.snapshot();
                pools.prune();
                worker.resources.instances.prune();
            }
        }
    }
}

fn entry_point(name: &str, install: &Install) -> EntryPoint {
    let install::EntryPoint { http, forwarded_headers, transport, http2, observability, allow_acme_by_pass, .. } =
        &install.entry_points[name];
    EntryPoint {
        name: name.into(),
        trust: Trust { everybody: forwarded_headers.insecure, networks: forwarded_headers.trusted_ips.clone() },
        append_client_address: !forwarded_headers.not_append_x_forwarded_for,
        paths: paths(http),
        kept_for_middlewares: forwarded_headers.connection.clone(),
        aliases: aliases(http),
        limits: limits(transport),
        keep_alive_time_at_most: unless_zero(transport.keep_alive_max_time),
        keep_alive_requests_at_most: (transport.keep_alive_max_requests > 0)
            .then_some(transport.keep_alive_max_requests),
        header_bytes_at_most: http.max_header_bytes,
        http2_streams_at_most: http2.max_concurrent_streams,
        access_log: observability.access_logs.unwrap_or(true),
        metrics: observability.metrics.unwrap_or(true),
        answers_tls_alpn: !allow_acme_by_pass && install.certificates_resolvers.values().any(has_tls_challenge),
    }
}

fn has_tls_challenge(resolver: &CertificatesResolver) -> bool {
    resolver.acme.as_ref().is_some_and(|acme| acme.tls_challenge.is_some())
}

fn paths(http: &install::EntryPointHttp) -> Paths {
    let characters = http.encoded_characters;
    let allowed = Allowed {
        slash: characters.slash,
        backslash: characters.back_slash,
        null: characters.null_character,
        semicolon: characters.semicolon,
        percent: characters.percent,
        question_mark: characters.question_mark,
        hash: characters.hash,
    };
    Paths { resolve: http.sanitize_path, encode_semicolons: http.encode_query_semicolons, allowed }
}

fn aliases(http: &install::EntryPointHttp) -> Aliases {
    let chosen = [(http.alias_headers_strategy, &b"_."[..]), (http.underscore_headers_strategy, &b"_"[..])];
    chosen.into_iter().fold(Aliases::Keep, |aliases, (strategy, marks)| match (aliases, strategy) {
        (Aliases::Keep, HeadersStrategy::Delete) => Aliases::Delete(marks),
        (Aliases::Keep, HeadersStrategy::Reject) => Aliases::Reject(marks),
        _ => aliases,
    })
}

/// Traefik's time limits where they are set, else our own.
fn limits(transport: &Transport) -> Limits {
    let (timeouts, deadlines) = (&transport.responding_timeouts, &transport.deadlines);
    let (read, idle) = (timeouts.read_timeout, timeouts.idle_timeout);
    Limits {
        handshake: unless_zero(read.unwrap_or(deadlines.handshake)),
        head: unless_zero(read.unwrap_or(deadlines.head)),
        body: match read {
            Some(whole) => unless_zero(whole).map(Reception::Whole),
            None => unless_zero(deadlines.body).map(Reception::Steady),
        },
        idle: unless_zero(idle.unwrap_or(deadlines.idle)),
        http2_idle: unless_zero(idle.unwrap_or(deadlines.http2_idle)),
        send: match timeouts.write_timeout {
            Some(whole) => unless_zero(whole).map(Sending::Whole),
            None => unless_zero(deadlines.send).map(Sending::Stalled),
        },
    }
}

fn unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// As the system knows this machine, for `X-Forwarded-Server`.
fn host_name() -> String {
    gethostname::gethostname().into_string().unwrap_or_else(|_| "localhost".to_owned())
}
