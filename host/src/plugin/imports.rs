//! What the host gives to guests: the interfaces of `wit/` that need no grant, and a WASI that denies everything.
//!
//! `plugin` links it once; `grants` has the rest. It never touches a file, a socket or the environment on a guest's
//! behalf.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, Uri};
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::Kind;
use super::bindings::dns_provider::weir::plugin::timer;
use super::bindings::middleware::weir::plugin::{
    clock, connection, fetch, log, message, metrics, random, secrets, shared, types,
};
use super::grants::Grants;
use super::lane::Meter;
use super::limits::Limits;
use super::metrics::Published;
use super::said::Said;
use super::shared::Scopes;
use super::usage::Usage;
use crate::http::{Ahead, Connection, Request};

/// The interfaces that plugins of a kind may import.
pub(super) const fn offered(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Middleware => {
            &["types", "message", "connection", "log", "clock", "random", "metrics", "secrets", "shared", "fetch"]
        }
        Kind::DnsProvider => &["types", "log", "clock", "random", "timer", "secrets", "fetch"],
    }
}

/// The most bytes that one `random.bytes` answers with.
const RANDOM_BYTES_AT_MOST: u32 = 4096;
/// The same by WASI, which languages ask in larger portions. All is made in one go, on a worker.
const WASI_RANDOM_BYTES_AT_MOST: u64 = 64 << 10;

/// The most characters of one log line that are kept.
const LOG_CHARACTERS_AT_MOST: usize = 4096;

/// Handles of WASI that an instance may have at the same time.
const HANDLES_AT_MOST: usize = 4096;

/// What a store holds: the message on loan during a call, and the guest's limits.
pub(super) struct State {
    pub(super) headers: HeaderMap,
    /// What the plan asked to have of the message's body.
    pub(super) body: Option<Box<Ahead>>,
    pub(super) exchange: Option<Exchange>,
    /// The middleware and the router that the call is for, where the guest may tell them apart.
    pub(super) usage: Option<Arc<Usage>>,
    /// Who makes the call, counted from 0.
    pub(super) worker: usize,
    /// What `init` sees of what is shared.
    pub(super) scopes: Weak<Scopes>,
    pub(super) metrics: Option<Arc<Published>>,
    pub(super) limits: Limits,
    /// Epoch ticks that the guest has begun to run in this call, and may.
    pub(super) ticks: u32,
    pub(super) ticks_at_most: u32,
    /// Tells the CPU time of this call, if it is measured.
    pub(super) meter: Meter,
    /// Whether it has waited for the host since the last tick that it was charged: those that went by are not its own.
    pub(super) has_waited: bool,
    /// Lines that the guest may still write in this call.
    pub(super) log_lines_left: u32,
    pub(super) plugin: Arc<str>,
    /// Of which there may be several that are made of the plugin.
    pub(super) middleware: Option<Arc<str>>,
    /// What this call may use beyond what all may.
    pub(super) grants: Option<Grants>,
    started: Instant,
    said: Said,
    wasi: WasiCtx,
    table: ResourceTable,
}

/// Facts of the request that a call is about.
#[derive(Clone)]
pub struct Exchange {
    connection: Arc<Connection>,
    original: Uri,
}

impl Exchange {
    pub fn of(request: &Request) -> Self {
        Self { connection: Arc::clone(&request.connection), original: request.original.clone() }
    }
}

impl State {
    /// `memory` is in bytes.
    pub(super) fn new(plugin: Arc<str>, memory: usize, grants: Option<Grants>) -> Self {
        let said = Said::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_AT_MOST);
        Self {
            headers: HeaderMap::new(),
            body: None,
            exchange: None,
            usage: None,
            worker: 0,
            scopes: Weak::new(),
            metrics: None,
            limits: Limits::new(memory),
            ticks: 0,
            ticks_at_most: 0,
            meter: Meter::default(),
            has_waited: false,
            log_lines_left: 0,
            plugin,
            middleware: None,
            grants,
            started: Instant::now(),
            wasi: WasiCtx::builder()
                .stdout(said.clone())
                .stderr(said.clone())
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .max_random_size(WASI_RANDOM_BYTES_AT_MOST)
                .build(),
            said,
            table,
        }
    }
}

impl State {
    /// Writes to the log what the guest has written to its standard output and error.
    pub(super) fn tell(&mut self, at: log::Level) {
        let Some(text) = self.said.take() else { return };
        let text = self.grants.as_ref().map_or_else(|| text.clone(), |grants| grants.values.redacted(&text));
        // Rust's advice after a panic is of no use to who has no environment.
        let is_told = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE");
        text.lines().filter(is_told).for_each(|line| self.log(at, line));
    }

    /// The handles of WASI that the guest has.
    pub(super) fn handles(&mut self) -> usize {
        if self.table.is_empty() { 0 } else { self.table.iter_mut().count() }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    message::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    connection::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    log::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    clock::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    random::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    timer::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    metrics::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    secrets::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    shared::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    fetch::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

impl types::Host for State {}

impl message::Host for State {
    fn get(&mut self, name: String) -> Option<Vec<u8>> {
        self.headers.get(name.as_str()).map(|value| value.as_bytes().to_vec())
    }

    fn get_many(&mut self, names: Vec<String>) -> Vec<Option<Vec<u8>>> {
        names.iter().map(|name| self.headers.get(name.as_str()).map(|value| value.as_bytes().to_vec())).collect()
    }

    fn get_all(&mut self, name: String) -> Vec<Vec<u8>> {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            return Vec::new();
        };
        self.headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect()
    }

    fn entries(&mut self) -> Vec<(String, Vec<u8>)> {
        self.headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn body(&mut self) -> Vec<u8> {
        self.body.as_ref().map(|ahead| ahead.pieces.concat()).unwrap_or_default()
    }

    fn body_complete(&mut self) -> bool {
        self.body.as_ref().is_some_and(|ahead| ahead.is_all)
    }
}

impl connection::Host for State {
    fn client(&mut self) -> connection::Peer {
        match &self.exchange {
            Some(Exchange { connection, .. }) => {
                let address = connection.client.ip().to_canonical();
                connection::Peer { address: address.to_string(), port: connection.client.port() }
            }
            None => connection::Peer { address: String::new(), port: 0 },
        }
    }

    fn entry_point(&mut self) -> String {
        self.exchange.as_ref().map(|exchange| exchange.connection.entry_point.to_string()).unwrap_or_default()
    }

    fn router(&mut self) -> String {
        self.usage.as_ref().map(|usage| usage.router.to_string()).unwrap_or_default()
    }

    fn original_path_with_query(&mut self) -> String {
        self.exchange.as_ref().map(|exchange| exchange.original.to_string()).unwrap_or_default()
    }

    fn server_name(&mut self) -> Option<String> {
        self.exchange.as_ref()?.connection.tls.as_ref()?.server_name.clone()
    }

    fn client_certificates(&mut self) -> Vec<Vec<u8>> {
        let tls = self.exchange.as_ref().and_then(|exchange| exchange.connection.tls.as_ref());
        tls.map(|tls| tls.client_certificates.clone()).unwrap_or_default()
    }
}

impl log::Host for State {
    fn enabled(&mut self, at: log::Level) -> bool {
        match at {
            log::Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
            log::Level::Info => tracing::enabled!(tracing::Level::INFO),
            log::Level::Warn => tracing::enabled!(tracing::Level::WARN),
            log::Level::Error => tracing::enabled!(tracing::Level::ERROR),
        }
    }

    fn write(&mut self, at: log::Level, mut message: String, fields: Vec<(String, String)>) {
        if self.log_lines_left == 0 {
            return;
        }
        for (name, value) in fields {
            message.push_str(&format!(" {name}={value:?}"));
        }
        let redacted = self.grants.as_ref().map(|grants| grants.values.redacted(&message));
        self.log(at, redacted.as_ref().unwrap_or(&message));
    }
}

impl State {
    /// Writes a line in the name of the guest, unless it has had enough of them.
    pub(super) fn log(&mut self, at: log::Level, message: &str) {
        if self.log_lines_left == 0 || !log::Host::enabled(self, at) {
            return;
        }
        self.log_lines_left -= 1;
        let message = printable(message, LOG_CHARACTERS_AT_MOST);
        let (plugin, middleware) = (&*self.plugin, self.middleware.as_deref());
        match at {
            log::Level::Debug => tracing::debug!(plugin, middleware, "{message}"),
            log::Level::Info => tracing::info!(plugin, middleware, "{message}"),
            log::Level::Warn => tracing::warn!(plugin, middleware, "{message}"),
            log::Level::Error => tracing::error!(plugin, middleware, "{message}"),
        }
    }
}

/// A guest's text as logs and messages may show it: on one line, in the order it is written in, and not too long.
pub(super) fn printable(text: &str, characters_at_most: usize) -> String {
    let turns_or_hides =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || turns_or_hides(c) { ' ' } else { c };
    text.chars().map(shown).take(characters_at_most).collect()
}

impl clock::Host for State {
    fn unix_ms(&mut self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }

    /// Since the instance was made, so that guests learn nothing of the host's uptime.
    fn monotonic_ns(&mut self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl random::Host for State {
    fn bytes(&mut self, n: u32) -> wasmtime::Result<Vec<u8>> {
        if n > RANDOM_BYTES_AT_MOST {
            return Err(wasmtime::format_err!(
                "it asked for {n} random bytes: at most {RANDOM_BYTES_AT_MOST} are given"
            ));
        }
        let mut bytes = vec![0; n as usize];
        fill_random(&mut bytes);
        Ok(bytes)
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        fill_random(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

fn fill_random(bytes: &mut [u8]) {
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(bytes)
        .expect("the operating system's random numbers do not fail once they have been read at start");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::limits::MEMORY;
    use super::*;

    #[test]
    fn a_client_has_the_address_that_people_know_it_by() {
        for (client, address) in [
            ("192.0.2.1:50000", "192.0.2.1"),
            ("[::ffff:192.0.2.1]:50000", "192.0.2.1"),
            ("[2001:db8::1%3]:50000", "2001:db8::1"),
        ] {
            let connection = Connection {
                client: client.parse().expect("an address with a port"),
                client_address: HeaderValue::from_static("192.0.2.1"),
                append_client_address: true,
                entry_point: "web".into(),
                tls: None,
            };
            let mut state = State::new("asks".into(), MEMORY, None);
            state.exchange = Some(Exchange { connection: Arc::new(connection), original: Uri::default() });
            let peer = connection::Host::client(&mut state);
            assert_eq!((peer.address.as_str(), peer.port), (address, 50_000), "{client}");
        }
    }
}
