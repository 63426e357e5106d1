//! DNS providers: plugins that write and delete one TXT record for ACME's DNS-01.
//!
//! `acme` calls them, seldom and on the control runtime. Each call has an instance of its own, so that nothing is left
//! of one in the next; what it may use is in `grants`. It knows no zones and looks nothing up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use wasmtime::Store;

use super::bindings::dns_provider::exports::weir::plugin::dns01 as wit;
use super::bindings::dns_provider::{DnsProvider, DnsProviderPre};
use super::bindings::middleware::weir::plugin::log::Level;
use super::bindings::middleware::weir::plugin::types;
use super::grants::{Grants, Reach, SleepsTooLong};
use super::imports::{State, printable};
use super::limits::{self, INIT_BUDGET, trap_reason};
use super::variables::Values;
use super::{Host, Plugin, Variables};

/// How long one call may take, with all that it waits for.
const CALL_TIME: Duration = Duration::from_secs(5 * 60);
/// How long it may take to start one for the first time: a reload waits for that.
const INIT_TIME: Duration = Duration::from_secs(30);
/// For an exchange that names no time.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);
/// The most that a plugin may hand from `present` to `cleanup`.
const HANDLE_BYTES_AT_MOST: usize = 4 << 10;
/// Of the text of an error.
const MESSAGE_CHARACTERS_AT_MOST: usize = 1000;
/// The longest time to wait that a plugin can ask for.
const TIMES_AT_MOST: Duration = Duration::from_secs(24 * 60 * 60);

/// A plugin with its variables: what `dnsChallenge.provider` becomes.
pub struct Provider {
    plugin: Arc<Plugin>,
    pre: DnsProviderPre<State>,
    variables: Variables,
    timing: Timing,
    time_limit: Duration,
    calls: Arc<Calls>,
}

/// How often a provider was told to add or delete a record.
#[derive(Debug, Default)]
pub struct Calls {
    pub made: AtomicU64,
    /// Of those.
    pub failed: AtomicU64,
}

/// How long the provider's name servers take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When to give up waiting for a record.
    pub propagation_timeout: Duration,
    /// Between two looks.
    pub polling_interval: Duration,
    /// Whether only one challenge may be open at a time.
    pub sequential: bool,
}

/// The record that one challenge asks for. Names are absolute, with the trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// Where the record goes, CNAMEs followed.
    pub fqdn: String,
    /// The zone that holds it.
    pub zone: String,
    /// The text of the record.
    pub value: String,
    /// The domain that the certificate is for, without `*.`, and without the dot.
    pub domain: String,
    pub token: String,
    pub key_authorization: String,
}

/// Why a provider has not done what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderError {
    pub kind: ErrorKind,
    /// Begins with the provider's name, and holds none of its variables' values.
    pub message: String,
    /// When another try makes sense.
    pub retry_after: Option<Duration>,
    /// Its `init` has failed, so that nothing was asked of anybody.
    pub is_of_init: bool,
}

/// What callers act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Its variables cannot be used; another try does not help.
    InvalidConfig,
    /// It wants something that it may not.
    Denied,
    /// Its credentials were refused.
    Unauthorized,
    /// There is no such zone.
    NotFound,
    /// The record exists, or somebody else has changed it.
    Conflict,
    RateLimited,
    Timeout,
    /// Its API cannot be reached, or answers 5xx.
    Unavailable,
    TooLarge,
    /// A defect of the plugin.
    Internal,
}

impl Host {
    /// Starts a plugin with its variables, and asks it for its timing.
    ///
    /// # Errors
    ///
    /// It is no DNS provider, or its variables are missing or cannot be used, in lego's or its own words.
    pub async fn provider(&self, plugin: &Arc<Plugin>, variables: Variables) -> anyhow::Result<Provider> {
        let pre = plugin.dns_provider()?.clone();
        let plugin = Arc::clone(plugin);
        let timing = Timing { propagation_timeout: TIMES_AT_MOST, polling_interval: TIMES_AT_MOST, sequential: true };
        let mut provider = Provider { plugin, pre, variables, timing, time_limit: INIT_TIME, calls: Arc::default() };
        provider.timing = provider.within_time(async |deadline| Ok(provider.start(deadline).await?.timing)).await?;
        Ok(provider.time_limit(CALL_TIME))
    }
}

impl Provider {
    /// As `dnsChallenge.provider` has it.
    pub fn name(&self) -> &str {
        &self.plugin.name
    }

    pub const fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Gives calls less time than the usual five minutes.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit.min(CALL_TIME);
        self
    }

    /// Goes on with what others have counted.
    #[must_use]
    pub fn counting(mut self, calls: Arc<Calls>) -> Self {
        self.calls = calls;
        self
    }

    /// Adds the record. The answer is a handle for [`Provider::cleanup`], which may be kept over a restart and means
    /// nothing to anybody else.
    pub async fn present(&self, challenge: &Challenge) -> Result<String, ProviderError> {
        self.counted(async |deadline| {
            let mut call = self.start(deadline).await?;
            let answer = call.guest.weir_plugin_dns01().call_present(&mut call.store, &challenge.into()).await;
            let handle = self.answer(&mut call.store, answer)?;
            if handle.len() > HANDLE_BYTES_AT_MOST {
                let problem = format!("its handle has {} bytes: at most {HANDLE_BYTES_AT_MOST} are kept", handle.len());
                return Err(self.error(ErrorKind::TooLarge, &problem));
            }
            Ok(handle)
        })
        .await
    }

    /// Deletes the record. With an empty handle the plugin looks for it.
    pub async fn cleanup(&self, challenge: &Challenge, handle: &str) -> Result<(), ProviderError> {
        self.counted(async |deadline| {
            let mut call = self.start(deadline).await?;
            let answer = call.guest.weir_plugin_dns01().call_cleanup(&mut call.store, &challenge.into(), handle).await;
            self.answer(&mut call.store, answer)
        })
        .await
    }

    async fn counted<T>(
        &self,
        call: impl AsyncFnOnce(Instant) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        self.calls.made.fetch_add(1, Ordering::Relaxed);
        let answer = self.within_time(call).await;
        if answer.is_err() {
            self.calls.failed.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn within_time<T>(
        &self,
        call: impl AsyncFnOnce(Instant) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let deadline = Instant::now() + self.time_limit;
        let too_long = |_| self.error(ErrorKind::Timeout, &format!("it took more than {:?}", self.time_limit));
        timeout_at(deadline, call(deadline)).await.map_err(too_long)?
    }

    /// A new instance, after its `init`.
    async fn start(&self, deadline: Instant) -> Result<Call, ProviderError> {
        self.started(deadline).await.map_err(|error| ProviderError { is_of_init: true, ..error })
    }

    async fn started(&self, deadline: Instant) -> Result<Call, ProviderError> {
        let unusable = |problem: anyhow::Error| self.error(ErrorKind::InvalidConfig, &format!("{problem:#}"));
        let about = &self.plugin.about;
        let values = self.variables.resolve(about).await.map_err(unusable)?;
        let configured = values.origins(about).map_err(unusable)?;
        let reach = Arc::new(match configured.is_empty() {
            true => Reach::Declared(about.origins.clone()),
            false => Reach::Configured(configured),
        });
        let exchanges = Arc::clone(&self.plugin.exchanges);
        let grants = Grants {
            values,
            reach,
            deadline,
            usual_time: EXCHANGE_TIME,
            time_at_most: CALL_TIME,
            left: u32::MAX,
            hops: None,
            exchanges,
        };
        let state = State::new(Arc::clone(&self.plugin.name), self.plugin.policy.memory, Some(grants));
        let mut store = limits::store(self.pre.engine(), state, INIT_BUDGET);
        let guest = self.pre.instantiate_async(&mut store).await;
        let guest = guest.map_err(|error| self.error(ErrorKind::Internal, &format!("starting it: {error:#}")))?;
        let answer = guest.weir_plugin_dns01().call_init(&mut store).await;
        let timing = self.answer(&mut store, answer)?.into();
        limits::allow(&mut store, INIT_BUDGET);
        Ok(Call { store, guest, timing })
    }

    fn answer<T>(
        &self,
        store: &mut Store<State>,
        answer: wasmtime::Result<Result<T, types::Error>>,
    ) -> Result<T, ProviderError> {
        store.data_mut().tell(if answer.is_ok() { Level::Info } else { Level::Error });
        let none = Values::default();
        let values = store.data().grants.as_ref().map_or(&none, |grants| &grants.values);
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(ProviderError {
                retry_after: error.retry_after_ms.map(|ms| Duration::from_millis(ms).min(TIMES_AT_MOST)),
                ..self.error(error.kind.into(), &values.redacted(&error.message))
            }),
            Err(trap) => {
                let is_late =
                    matches!(trap.downcast_ref(), Some(wasmtime::Trap::Interrupt)) || trap.is::<SleepsTooLong>();
                let kind = if is_late { ErrorKind::Timeout } else { ErrorKind::Internal };
                Err(self.error(kind, &values.redacted(&trap_reason(&trap, store.data()))))
            }
        }
    }

    fn error(&self, kind: ErrorKind, problem: &str) -> ProviderError {
        let message = format!("{}: {problem}", self.plugin.name);
        ProviderError {
            kind,
            message: printable(&message, MESSAGE_CHARACTERS_AT_MOST),
            retry_after: None,
            is_of_init: false,
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Provider")
            .field("name", &self.plugin.name)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for ProviderError {}

/// An instance for one call.
struct Call {
    store: Store<State>,
    guest: DnsProvider,
    timing: Timing,
}

impl From<&Challenge> for wit::Challenge {
    fn from(challenge: &Challenge) -> Self {
        Self {
            fqdn: challenge.fqdn.clone(),
            zone: challenge.zone.clone(),
            value: challenge.value.clone(),
            domain: challenge.domain.clone(),
            token: challenge.token.clone(),
            key_authorization: challenge.key_authorization.clone(),
        }
    }
}

impl From<wit::Timing> for Timing {
    /// Within what makes sense: never all the time, and not for ever.
    fn from(timing: wit::Timing) -> Self {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into()).min(TIMES_AT_MOST);
        Self {
            propagation_timeout: seconds(timing.propagation_timeout_s),
            polling_interval: seconds(timing.polling_interval_s.max(1)),
            sequential: timing.sequential,
        }
    }
}

impl From<types::ErrorKind> for ErrorKind {
    fn from(kind: types::ErrorKind) -> Self {
        match kind {
            types::ErrorKind::InvalidConfig => Self::InvalidConfig,
            types::ErrorKind::Denied => Self::Denied,
            types::ErrorKind::Unauthorized => Self::Unauthorized,
            types::ErrorKind::NotFound => Self::NotFound,
            types::ErrorKind::Conflict => Self::Conflict,
            types::ErrorKind::RateLimited => Self::RateLimited,
            types::ErrorKind::Timeout => Self::Timeout,
            types::ErrorKind::Unavailable => Self::Unavailable,
            types::ErrorKind::TooLarge => Self::TooLarge,
            types::ErrorKind::Internal => Self::Internal,
        }
    }
}
