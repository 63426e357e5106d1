//! Start, reload, shutdown. Owns the one live [`Snapshot`], and prints every bound address.
//!
//! `main` starts it, tests too. [`Reloader`] alone builds snapshots, on one thread, so that there is no lock and no race.

mod limits;
mod listen;
mod worker;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::acme::{Acme, Shown};
use crate::config::{Files, Install, Problem};
use crate::entrypoint::Admission;
use crate::plugin::{Compiled, Host, Plugins, Wanted};
use crate::snapshot::{Snapshot, Sources};
use crate::telemetry::{AccessLog, Metrics};
use crate::watch::{Followed, Watch};

/// A running proxy. Dropping it without [`Server::shut_down`] cuts its connections.
pub struct Server {
    /// What each entry point listens on, with the port that port 0 became.
    pub addresses: BTreeMap<String, SocketAddr>,
    pub live: Arc<ArcSwap<Snapshot>>,
    pub access_log: Option<Arc<AccessLog>>,
    reloads: mpsc::Sender<oneshot::Sender<()>>,
    workers: worker::Workers,
    draining: Arc<AtomicBool>,
    admission: Arc<Admission>,
    install: Arc<Install>,
}

/// What a proxy has to do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Of clients.
    pub connections: usize,
    pub requests: usize,
    /// On all workers; some are there without any client.
    pub tasks: usize,
}

/// Where a proxy's configuration is.
pub struct Settings {
    pub install: Install,
    /// Routing files in place of the install file's `providers.file`: the quick start's, which are in no directory.
    pub files: Option<Files>,
    /// The directory of plugins where the install file names none.
    pub plugin_directory: PathBuf,
    /// Where compiled plugins are kept where the install file names no place; `None`: in memory.
    pub plugin_cache: Option<PathBuf>,
    /// The program, weir itself, that compiles plugins in a process of its own; `None`: this process does.
    pub compiler: Option<PathBuf>,
}

impl Server {
    /// Binds every entry point, reads the routing files and serves.
    ///
    /// # Errors
    ///
    /// An address cannot be bound, or the access log cannot be opened. Problems of routing files are no errors.
    pub async fn start(mut settings: Settings) -> anyhow::Result<Self> {
        let listeners = listen::bind(&settings.install.entry_points)?;
        let admission = limits::admission(&settings.install.limits, listen::workers());
        tokio::spawn(limits::watch_memory(settings.install.limits.clone(), Arc::downgrade(&admission)));
        for (name, entry_point) in &mut settings.install.entry_points {
            // Redirections name the port that clients can reach.
            if let Some(bound) = listeners.get(name) {
                entry_point.address.port = bound.address.port();
            }
        }
        let addresses = listeners.iter().map(|(name, bound)| (name.clone(), bound.address)).collect();
        let access_log = settings.install.access_log.as_ref().map(AccessLog::open).transpose()?.map(Arc::new);
        let reloader = Reloader::new(settings, Acme::start)?;
        let (live, install) = (Arc::clone(&reloader.live), Arc::clone(&reloader.install));
        let draining = Arc::new(AtomicBool::new(false));
        let shared = worker::Shared {
            live: Arc::clone(&live),
            install: Arc::clone(&install),
            access_log: access_log.clone(),
            draining: Arc::clone(&draining),
            admission: Arc::clone(&admission),
            acme: Arc::clone(&reloader.acme),
            usages: Arc::clone(reloader.host.usages()),
            guest_metrics: Arc::clone(reloader.host.metrics()),
            metrics: reloader.metrics.clone(),
        };
        let (reloads, requests) = mpsc::channel(1);
        reloader.start(requests).await?;
        let workers = worker::Workers::start(listeners, &shared)?;
        Ok(Self { addresses, live, access_log, reloads, workers, draining, admission, install })
    }

    pub fn load(&self) -> Load {
        let (requests, tasks) = self.workers.load();
        Load { connections: self.admission.open(), requests, tasks }
    }

    /// Reads the configuration again, and returns when it serves.
    pub async fn reload(&self) {
        let (done, when_done) = oneshot::channel();
        if self.reloads.send(done).await.is_ok() {
            // The reloader ends only with the process; then there is nothing to wait for.
            let _ = when_done.await;
        }
    }

    /// Stops accepting, lets requests in flight finish, and ends. Takes as long as `lifeCycle` allows at most.
    pub async fn shut_down(mut self) {
        let life_cycles = || self.install.entry_points.values().map(|entry_point| &entry_point.transport.life_cycle);
        self.draining.store(true, Ordering::Relaxed);
        sleep(life_cycles().map(|life| life.request_accept_grace_timeout).max().unwrap_or_default()).await;
        let grace = life_cycles().map(|life| life.grace_timeout).max().unwrap_or_default();
        if timeout(grace, self.workers.drain()).await.is_err() {
            tracing::warn!("connections were cut after {grace:?}");
        }
    }
}

/// What a start would serve, and what its certificates resolvers would do.
pub struct Preview {
    pub snapshot: Arc<Snapshot>,
    pub certificates: Vec<Shown>,
}

/// The snapshot that a start would serve, without serving it; with `every_plugin` also those that nothing uses.
///
/// # Errors
///
/// The WebAssembly engine cannot be started.
pub async fn preview(settings: Settings, every_plugin: bool) -> anyhow::Result<Preview> {
    let mut reloader = Reloader { every_plugin, ..Reloader::new(settings, Acme::preview)? };
    reloader.reload("read").await;
    Ok(Preview { snapshot: reloader.live.load_full(), certificates: reloader.acme.shown() })
}

/// Reads configurations again and again; the only maker of snapshots.
struct Reloader {
    live: Arc<ArcSwap<Snapshot>>,
    install: Arc<Install>,
    files: Option<Files>,
    host: Arc<Host>,
    acme: Arc<Acme>,
    plugin_directory: PathBuf,
    metrics: Option<Arc<Metrics>>,
    /// Whether built-in plugins that nothing uses are compiled too.
    every_plugin: bool,
    /// What the next reload waits for.
    compiled: Compiled,
}

impl Reloader {
    fn new(settings: Settings, acme: impl FnOnce(&Install, &Arc<Host>) -> Acme) -> anyhow::Result<Self> {
        let Settings { install, files, plugin_directory, plugin_cache, compiler } = settings;
        let cache = install.plugins.cache.directory.clone().or(plugin_cache);
        let host = Host::new(cache, compiler, listen::workers(), &install.plugins.settings)?;
        match host.cache_directory() {
            Some(directory) => tracing::debug!("compiled plugins are kept in `{}`", directory.display()),
            None => tracing::debug!("compiled plugins are kept in memory alone"),
        }
        let files = files.or_else(|| install.providers.file.as_ref().map(Files::new));
        let plugin_directory = install.plugins.directory.clone().unwrap_or(plugin_directory);
        let live = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let acme = Arc::new(acme(&install, &host));
        let entry_points = install.entry_points.keys();
        let metrics = install.prometheus().map(|config| Metrics::new(config, entry_points, listen::workers()));
        let install = Arc::new(install);
        Ok(Self {
            live,
            install,
            files,
            host,
            acme,
            plugin_directory,
            metrics,
            every_plugin: false,
            compiled: Compiled::All,
        })
    }

    /// Goes on reloading on a thread of its own, and returns when that has read everything for the first time.
    ///
    /// It is one thread for memory's sake. The allocator keeps memory by thread: a task of a runtime goes from thread to
    /// thread, and each would keep what the largest reload that it has seen needed.
    async fn start(mut self, requests: mpsc::Receiver<oneshot::Sender<()>>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting a runtime for reloads")?;
        let (started, when_started) = oneshot::channel();
        let all = async move {
            // Followed first and read then, so that no change falls in between.
            let mut watch = self.watch();
            self.follow(&mut watch);
            self.compiled = Compiled::Wanted;
            self.reload("started").await;
            self.compiled = Compiled::None;
            // Whoever starts the proxy may have changed his mind.
            let _ = started.send(());
            self.run(watch, requests).await;
        };
        let thread = std::thread::Builder::new().name("reloads".to_owned()).spawn(move || runtime.block_on(all));
        thread.context("starting a thread for reloads")?;
        when_started.await.context("reading the configuration for the first time")
    }

    /// Reloads when files change and when asked to, never twice within `providersThrottleDuration` for files.
    async fn run(mut self, mut watch: Option<Watch>, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
        let throttle = self.install.providers.providers_throttle_duration;
        let mut rested = Instant::now();
        loop {
            while self.follow(&mut watch) {
                self.reload("read again what is watched now").await;
            }
            tokio::select! {
                () = changed(&mut watch) => {
                    sleep_until(rested).await;
                    self.reload("reloaded").await;
                    rested = Instant::now() + throttle;
                }
                () = self.acme.changed() => self.reload("certificates have changed").await,
                () = self.host.compiled() => self.reload("a plugin has been compiled").await,
                request = requests.recv() => {
                    let Some(done) = request else { return };
                    self.reload("reloaded").await;
                    // Whoever asked may not wait for the answer.
                    let _ = done.send(());
                }
            }
        }
    }

    /// One reload, whatever asked for it: files, plugins and certificates become the live snapshot. It blocks its thread.
    async fn reload(&mut self, what: &str) {
        let begun = std::time::Instant::now();
        let (routing, file_problems) = match self.files.as_mut() {
            Some(files) => files.read(),
            None => Default::default(),
        };
        let previous = self.live.load_full();
        let wanted = match self.every_plugin {
            true => Wanted::All,
            false => Wanted::Named(Snapshot::used_plugins(&self.install, &routing)),
        };
        let plugins =
            Plugins::scan(&self.host, &self.plugin_directory, &wanted, self.compiled, &previous.plugins).await;
        let sources = Sources {
            install: &self.install,
            routing: &routing,
            plugins,
            plugin_directory: &self.plugin_directory,
            host: &self.host,
            acme: &self.acme,
            previous: &previous,
        };
        let snapshot = Arc::new(Snapshot::build(sources, file_problems).await);
        log_problems(&previous, &snapshot);
        let items = &snapshot.items;
        let stale = items.stale();
        if !stale.is_empty() && stale != previous.items.stale() {
            tracing::warn!("the last good version serves on: {}", stale.join(", "));
        }
        let disabled = items.routers.values().filter(|router| !router.serves_requests()).count();
        tracing::info!(
            routers = items.routers.len(),
            disabled,
            stale = stale.len(),
            services = items.services.len(),
            middlewares = items.middlewares.len(),
            plugins = snapshot.plugins.iter().count(),
            problems = items.all_problems().count(),
            milliseconds = begun.elapsed().as_millis(),
            "{what}"
        );
        self.acme.want(&snapshot.wanted, &snapshot.plugins);
        if let Some(metrics) = &self.metrics {
            let is_good = !items.all_problems().any(Problem::is_error);
            metrics.reloaded(is_good, &snapshot.routers_and_services());
        }
        self.live.store(snapshot);
    }

    /// Follows the files that the live snapshot was made of. Answers whether there are more than before.
    fn follow(&self, watch: &mut Option<Watch>) -> bool {
        let followed = self.followed();
        watch.as_mut().is_some_and(|watch| watch.follow(&followed))
    }

    fn watch(&self) -> Option<Watch> {
        if self.install.providers.file.as_ref().is_some_and(|file| !file.watch) {
            return None;
        }
        match Watch::new() {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!("files are not watched, send SIGHUP after a change: {error:#}");
                None
            }
        }
    }

    fn followed(&self) -> Followed {
        let mut followed = Followed::default();
        followed.directories.insert(self.plugin_directory.clone());
        if let Some(file) = self.install.providers.file.as_ref() {
            followed.directories.extend(file.directory.clone());
            followed.files.extend(file.filename.clone().filter(|_| file.directory.is_none()));
        }
        followed.files.extend(self.live.load().items.files.iter().cloned());
        followed
    }
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

/// Each problem is logged when it appears, not at every reload.
fn log_problems(previous: &Snapshot, snapshot: &Snapshot) {
    let known: Vec<&Problem> = previous.items.all_problems().collect();
    for problem in snapshot.items.all_problems().filter(|problem| !known.contains(problem)) {
        let Problem { key, message, help, .. } = problem;
        let place = problem.place.as_ref().map(ToString::to_string).unwrap_or_default();
        let help = help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
        let text = [place.as_str(), key, message].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let text = format!("{}{help}", text.join(": "));
        if problem.is_error() {
            tracing::error!("{text}");
        } else {
            tracing::warn!("{text}");
        }
    }
}
