//! The plugin host: finds components, compiles and checks them, and calls them within limits.
//!
//! `snapshot` asks it for plugins and configures them; `middleware` and `acme` call them. It is the only module that
//! names wasmtime. It knows no routers, and never lets a guest reach the file system; of network and environment a DNS
//! provider gets what it declares.

mod about;
mod addresses;
mod bindings;
mod body;
mod breaker;
mod cache;
mod compiler;
mod edit;
mod engine;
mod filter;
mod found;
mod grants;
mod imports;
mod inspect;
mod instance;
mod lane;
mod limits;
mod metrics;
mod policy;
mod pool;
mod preamble;
mod provider;
mod said;
mod shared;
mod usage;
mod variables;
mod verdict;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::Uri;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

pub use self::about::{About, Variable, option};
use self::bindings::dns_provider::DnsProviderPre;
use self::bindings::filter::FilterIndices;
use self::bindings::middleware::MiddlewarePluginPre;
use self::breaker::{Breaker, Share};
use self::cache::{Cache, Code};
pub use self::compiler::{COMMAND as COMPILE, compile_here};
pub use self::edit::{FixedEdit, HeaderEdit, Plan};
pub use self::found::{Compiled, Entry, Plugins, Wanted};
use self::grants::{Exchanges, Reach};
pub use self::imports::Exchange;
use self::imports::State;
pub use self::inspect::Interfaces;
pub use self::instance::{Instances, RequestVerdict};
use self::lane::{Lane, Pace};
pub use self::metrics::GuestMetrics;
use self::metrics::Published;
pub use self::policy::Policy;
use self::pool::Held;
pub use self::provider::{Calls, Challenge, ErrorKind, Provider, ProviderError, Timing};
use self::shared::{Scopes, Shared};
pub use self::usage::{CAUSES, Cause, TIME_CLASSES, Totals, Usage, Usages};
use self::variables::Values;
pub use self::variables::Variables;
use crate::config::WebOrigin;
use crate::config::install::{OnFailure, PluginSettings};
use crate::http::Failure;

/// The built-in plugins: the name in the configuration and the component, built from `plugins/` by the build script.
const BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

/// The largest component that is compiled.
const COMPONENT_BYTES_AT_MOST: u64 = 64 << 20;
/// The options of one middleware, as JSON, with the files that they name. Built-in plugins have long lists of users.
const CONFIG_BYTES_AT_MOST: usize = 1 << 20;

/// The component of a built-in plugin, by its name in the configuration.
pub fn built_in(name: &str) -> Option<&'static [u8]> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}

/// The WebAssembly engine and what guests may import. One for the process.
pub struct Host {
    engine: Engine,
    linker: Linker<State>,
    cache: Cache,
    usages: Arc<Usages>,
    shared: Shared,
    metrics: Arc<GuestMetrics>,
    /// What administrators have set, by plugin name in lower case; `None`: plugins may do all that they ask for.
    settings: Option<BTreeMap<String, PluginSettings>>,
    /// Where exchanges of plugins run, and what is compiled aside is waited for.
    control: Option<Handle>,
    /// Something has been compiled aside.
    compiled: Notify,
    /// Where calls run that run long.
    lane: Lane,
    next_id: AtomicU64,
}

/// A compiled component that exports a middleware or a DNS provider.
pub struct Plugin {
    pub name: Arc<str>,
    pub origin: Origin,
    /// Of the component's bytes, in hexadecimal digits.
    pub sha256: String,
    pub about: About,
    /// What it imports of `weir:plugin`, without the package's name: what it may use.
    pub imports: Vec<String>,
    /// Whether it imports `connection`, so that its calls need an [`Exchange`].
    asks_for_connection: bool,
    /// Whether it imports what tells routers apart, so that its calls need a [`Usage`].
    tells_routers_apart: bool,
    pub policy: Policy,
    /// Whether it imports what is granted call by call.
    needs_grants: bool,
    exchanges: Arc<Exchanges>,
    share: Share,
    exports: Exports,
    /// Of its filter of bodies, where it has one.
    filter: Option<FilterIndices>,
    /// Its ticks must go on for as long as a guest may run, or nothing would interrupt it.
    host: Arc<Host>,
}

/// What a component can be called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Middleware,
    DnsProvider,
}

enum Exports {
    Middleware(MiddlewarePluginPre<State>),
    DnsProvider(DnsProviderPre<State>),
}

/// Where a component came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    File(PathBuf),
}

/// A plugin with one configuration: what a middleware of the routing files becomes.
pub struct Configured {
    pub plugin: Arc<Plugin>,
    /// Of the middleware, with its provider: `auth@file`.
    pub name: Arc<str>,
    pub plan: Plan,
    breaker: Breaker,
    pace: Pace,
    held: Arc<Held>,
    secrets: Values,
    reach: Arc<Reach>,
    id: u64,
    config: Value,
    pre: MiddlewarePluginPre<State>,
    /// What its instances share, if it imports that.
    scopes: Option<Arc<Scopes>>,
    /// What they publish, if it imports that.
    metrics: Option<Arc<Published>>,
    usages: Arc<Usages>,
}

/// A configured plugin in the chain of one router.
#[derive(Clone)]
pub struct Step {
    pub configured: Arc<Configured>,
    pub usage: Arc<Usage>,
}

impl Host {
    /// `cache` is where compiled components are kept; `None` keeps them in memory alone. Calls come from so many workers.
    /// `compiler` is the program, weir itself, that compiles plugins in a process of its own; `None`: this one does. Made
    /// on the control runtime.
    pub fn new(
        cache: Option<PathBuf>,
        compiler: Option<PathBuf>,
        workers: usize,
        settings: &BTreeMap<String, PluginSettings>,
    ) -> anyhow::Result<Arc<Self>> {
        Self::with(cache, compiler, workers, Some(policy::by_name(settings)), Lane::default())
    }

    /// One at the desk of a plugin's author: plugins may do all that they ask for, and nobody else's calls wait for theirs.
    /// All of these are made on the thread that asks, so that it sees their log.
    pub fn trusting(cache: Option<PathBuf>) -> anyhow::Result<Arc<Self>> {
        Self::with(cache, None, 1, None, Lane::here())
    }

    fn with(
        cache: Option<PathBuf>,
        compiler: Option<PathBuf>,
        workers: usize,
        settings: Option<BTreeMap<String, PluginSettings>>,
        lane: Lane,
    ) -> anyhow::Result<Arc<Self>> {
        let engine = engine::engine()?;
        let mut linker = Linker::new(&engine);
        imports::link(&mut linker).map_err(opaque)?;
        let cache = Cache::open(cache, compiler, &engine);
        let usages = Arc::new(Usages::new(workers));
        let host = Arc::new(Self {
            engine,
            linker,
            cache,
            usages,
            shared: Shared::default(),
            metrics: Arc::new(GuestMetrics::new(workers)),
            settings,
            control: Handle::try_current().ok(),
            compiled: Notify::new(),
            lane,
            next_id: AtomicU64::new(0),
        });
        engine::tick(&host);
        Ok(host)
    }

    /// The directory of compiled components, if there is one.
    pub fn cache_directory(&self) -> Option<&Path> {
        self.cache.directory()
    }

    /// Returns when code is there, or refused, that a scan has left to be compiled.
    pub async fn compiled(&self) {
        self.compiled.notified().await;
    }

    /// Has a component compiled aside, if it has to be compiled.
    fn code(self: &Arc<Self>, sha256: &str, bytes: &[u8], origin: &Origin) -> Code {
        // What is no component is refused when it is loaded.
        let Some(control) = self.control.as_ref().filter(|_| preamble::check(bytes).is_ok()) else {
            return Code::Ready;
        };
        let (code, is_new) = self.cache.code(sha256);
        if is_new {
            let (host, sha256, bytes, origin) = (Arc::clone(self), sha256.to_owned(), bytes.to_vec(), origin.clone());
            control.spawn(async move {
                host.cache.compile_aside(&sha256, &bytes, &origin).await;
                host.compiled.notify_one();
            });
        }
        code
    }

    /// Compiles (or takes from the cache) and checks a component. Runs its `describe`. Takes from milliseconds to
    /// seconds of CPU: never call it on a worker.
    pub async fn load(self: &Arc<Self>, name: &str, bytes: &[u8], origin: Origin) -> anyhow::Result<Plugin> {
        if bytes.len() as u64 > COMPONENT_BYTES_AT_MOST {
            bail!("{} bytes are too many: at most {COMPONENT_BYTES_AT_MOST} are accepted", bytes.len());
        }
        preamble::check(bytes)?;
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        let component = self.cache.component(&self.engine, &sha256, bytes, &origin).await?;
        let kind = self.kind(&component)?;
        let imports = self.check_imports(&component, kind)?;
        let pre = self.linker.instantiate_pre(&component).map_err(opaque)?;
        let exports = Exports::new(kind, &pre)?;
        let filter = self.filter(&component, &pre)?;
        let settings = self.settings.as_ref().map(|settings| settings.get(&name.to_lowercase()));
        let policy = settings.map_or_else(Policy::trusting, |settings| Policy::new(&origin, settings));
        let name: Arc<str> = name.into();
        let about = about::describe(&name, policy.memory, &pre).await?;
        policy.admits(&name, kind, &imports, &about)?;
        let uses = |names: &[&str]| imports.iter().any(|import| names.contains(&import.as_str()));
        let asks_for_connection = uses(&["connection"]);
        let tells_routers_apart = uses(&["connection", "shared", "metrics"]);
        let needs_grants = uses(&["fetch", "secrets"]);
        let share = Share::new(policy.share);
        Ok(Plugin {
            name,
            origin,
            sha256,
            about,
            imports,
            asks_for_connection,
            tells_routers_apart,
            policy,
            needs_grants,
            // DNS providers are called on the control runtime.
            exchanges: Arc::new(Exchanges::new(self.control.clone().filter(|_| kind == Kind::Middleware))),
            share,
            exports,
            filter,
            host: Arc::clone(self),
        })
    }

    /// What middlewares have cost on each router.
    pub const fn usages(&self) -> &Arc<Usages> {
        &self.usages
    }

    /// What middlewares count for themselves.
    pub const fn metrics(&self) -> &Arc<GuestMetrics> {
        &self.metrics
    }

    /// Makes a plugin the middleware of that name. Runs its `init` with a configuration: JSON that fits its schema, files
    /// inlined.
    ///
    /// # Errors
    ///
    /// A secret that is granted cannot be read, or `init` says what is wrong with the configuration.
    pub async fn configure(&self, name: &str, plugin: &Arc<Plugin>, config: &Value) -> anyhow::Result<Configured> {
        let size = config.to_string().len();
        if plugin.origin != Origin::BuiltIn && size > CONFIG_BYTES_AT_MOST {
            bail!("its options have {size} bytes as JSON: at most {CONFIG_BYTES_AT_MOST} are accepted");
        }
        let name: Arc<str> = name.into();
        let pace = if plugin.origin == Origin::BuiltIn { Pace::trusted() } else { Pace::unknown() };
        let mut configured = Configured {
            plugin: Arc::clone(plugin),
            plan: Plan::default(),
            breaker: Breaker::new(),
            pace,
            held: Arc::default(),
            secrets: plugin.secrets()?,
            reach: Arc::new(plugin.reach(config)?),
            scopes: plugin.imports("shared").then(|| Arc::new(self.shared.of(&plugin.name, &name))),
            metrics: plugin.imports("metrics").then(|| self.metrics.of(&plugin.name)),
            name,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            config: config.clone(),
            pre: plugin.middleware()?.clone(),
            usages: Arc::clone(&self.usages),
        };
        configured.plan = pool::init(&configured).await?;
        Ok(configured)
    }

    /// Makes another version of its plugin the same middleware.
    pub async fn configure_again(&self, like: &Configured, plugin: &Arc<Plugin>) -> anyhow::Result<Configured> {
        self.configure(&like.name, plugin, &like.config).await
    }

    /// By what it exports.
    fn kind(&self, component: &Component) -> anyhow::Result<Kind> {
        let exports = |interface: &str| self.has_export(component, interface);
        match (exports("weir:plugin/middleware"), exports("weir:plugin/dns01")) {
            (true, false) => Ok(Kind::Middleware),
            (false, true) => Ok(Kind::DnsProvider),
            (true, true) => bail!("it exports both a middleware and a DNS provider: make two components of it"),
            (false, false) => bail!(
                "it exports neither a middleware nor a DNS provider of `weir:plugin`: build it for one of the worlds in \
                 wit/weir-plugin.wit"
            ),
        }
    }

    fn filter(&self, component: &Component, pre: &InstancePre<State>) -> anyhow::Result<Option<FilterIndices>> {
        if !self.has_export(component, "weir:plugin/body-filter") {
            return Ok(None);
        }
        let indices = FilterIndices::new(pre).map_err(opaque);
        indices.map(Some).context("its filter of bodies is none of `weir:plugin@0.1` (see wit/)")
    }

    fn has_export(&self, component: &Component, interface: &str) -> bool {
        let component_type = component.component_type();
        component_type.exports(&self.engine).any(|(export, _)| export.split('@').next() == Some(interface))
    }

    /// A guest's imports are its manifest: what is not offered is refused by name.
    fn check_imports(&self, component: &Component, kind: Kind) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, _) in component.component_type().imports(&self.engine) {
            if name.starts_with("wasi:") {
                continue;
            }
            let Some(interface) = name.strip_prefix("weir:plugin/") else {
                bail!("it imports `{name}`, which no plugin may use");
            };
            let (interface, version) = interface.split_once('@').unwrap_or((interface, "0.0"));
            if !version.starts_with("0.1.") {
                bail!(
                    "it was built for version {version} of weir:plugin, and this weir offers 0.1: build it with this weir's wit/, \
                     which `weir plugin new` writes"
                );
            }
            if !imports::offered(kind).contains(&interface) {
                bail!("it imports `weir:plugin/{interface}`, which {}", why_not(interface, kind));
            }
            if !matches!(interface, "types" | "message") {
                names.push(interface.to_owned());
            }
        }
        Ok(names)
    }
}

impl Plugin {
    pub const fn kind(&self) -> Kind {
        match self.exports {
            Exports::Middleware(_) => Kind::Middleware,
            Exports::DnsProvider(_) => Kind::DnsProvider,
        }
    }

    /// Whether it can work on bodies as they flow.
    pub const fn filters_bodies(&self) -> bool {
        self.filter.is_some()
    }

    /// An error in words if it is of another kind.
    pub fn must_be(&self, wanted: Kind) -> anyhow::Result<()> {
        if self.kind() == wanted { Ok(()) } else { Err(self.is_no(wanted)) }
    }

    fn imports(&self, interface: &str) -> bool {
        self.imports.iter().any(|import| import == interface)
    }

    /// The files that its secrets are in.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        self.policy.secret_files()
    }

    fn secrets(&self) -> anyhow::Result<Values> {
        match self.policy.trusts {
            true => Values::of_environment(&self.about),
            false => Values::granted(&self.name, &self.policy.allow.secrets),
        }
    }

    /// Where `fetch` may go: to what is granted, and to the addresses of a configuration.
    fn reach(&self, config: &Value) -> anyhow::Result<Reach> {
        let mut origins = self.policy.allow.fetch.clone();
        for pointer in &self.about.urls {
            let Some(url) = config.pointer(pointer).and_then(Value::as_str).filter(|url| !url.is_empty()) else {
                continue;
            };
            let origin = Uri::from_str(url).map_err(|_| "it is no URL").and_then(|url| WebOrigin::of(&url));
            let option = option(pointer);
            origins
                .push(origin.map_err(|problem| anyhow!("`{option}` has `{url}`, which cannot be reached: {problem}"))?);
        }
        if self.policy.trusts {
            return Ok(Reach::Anywhere);
        }
        Ok(Reach::Granted { plugin: Arc::clone(&self.name), origins })
    }

    fn middleware(&self) -> anyhow::Result<&MiddlewarePluginPre<State>> {
        match &self.exports {
            Exports::Middleware(pre) => Ok(pre),
            Exports::DnsProvider(_) => Err(self.is_no(Kind::Middleware)),
        }
    }

    fn dns_provider(&self) -> anyhow::Result<&DnsProviderPre<State>> {
        match &self.exports {
            Exports::DnsProvider(pre) => Ok(pre),
            Exports::Middleware(_) => Err(self.is_no(Kind::DnsProvider)),
        }
    }

    fn is_no(&self, wanted: Kind) -> anyhow::Error {
        let (name, kind) = (&self.name, self.kind());
        let place = match kind {
            Kind::Middleware => "`http.middlewares`",
            Kind::DnsProvider => "`dnsChallenge.provider` of a certificates resolver",
        };
        anyhow!("the plugin `{name}` is a {kind} and no {wanted}: it belongs into {place}")
    }
}

impl Exports {
    fn new(kind: Kind, pre: &InstancePre<State>) -> anyhow::Result<Self> {
        let exports = match kind {
            Kind::Middleware => MiddlewarePluginPre::new(pre.clone()).map(Self::Middleware),
            Kind::DnsProvider => DnsProviderPre::new(pre.clone()).map(Self::DnsProvider),
        };
        exports.map_err(opaque).with_context(|| format!("it is no {kind} of `weir:plugin@0.1` (see wit/)"))
    }
}

impl Step {
    /// Whether a request does without this middleware, which has failed.
    fn goes_on_without(&self, failure: &Failure) -> bool {
        self.configured.plugin.policy.on_failure == OnFailure::Bypass && failure.is_of_plugin()
    }
}

impl Configured {
    /// The instances there are on all workers, and the bytes of their memory.
    pub fn instances(&self) -> (usize, usize) {
        self.held.now()
    }

    /// For how long it is not called from now on, if it has failed too often.
    pub fn open_for(&self) -> Option<Duration> {
        self.breaker.open_for()
    }

    /// Whether its calls need an [`Exchange`].
    pub fn asks_for_connection(&self) -> bool {
        self.plugin.asks_for_connection
    }

    /// Puts it into the chain of a router.
    pub fn on_router(self: &Arc<Self>, router: &Arc<str>) -> Step {
        let usage = self.usages.of(&self.plugin.name, &self.name, router);
        if let Some(scopes) = &self.scopes {
            usage.scopes.get_or_init(|| scopes.on_router());
        }
        Step { configured: Arc::clone(self), usage }
    }

    /// Whether it is this plugin with this configuration, so that a reload may keep it with all its state.
    pub fn is(&self, plugin: &Arc<Plugin>, config: &Value) -> bool {
        let has_the_same_secrets = || plugin.secrets().is_ok_and(|secrets| secrets == self.secrets);
        Arc::ptr_eq(&self.plugin, plugin) && self.config == *config && has_the_same_secrets()
    }
}

fn why_not(interface: &str, kind: Kind) -> String {
    let other = match kind {
        Kind::Middleware => Kind::DnsProvider,
        Kind::DnsProvider => Kind::Middleware,
    };
    match imports::offered(other).contains(&interface) {
        true => format!("is for a {other} and not for a {kind}: wit/weir-plugin.wit says what each may import"),
        false => format!("this version of weir does not offer to a {kind} yet"),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Middleware => "middleware",
            Self::DnsProvider => "DNS provider",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => out.write_str("built-in"),
            Self::File(path) => write!(out, "{}", path.display()),
        }
    }
}

/// The engine's errors are of a type of its own.
fn opaque(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
