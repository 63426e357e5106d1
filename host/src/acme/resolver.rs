//! One certificates resolver at work: what is wanted and due is ordered, stored, and handed on to be served.
//!
//! One task decides, and one for each order does. What they learn is kept beside the certificates, so that a restart goes
//! on where the process ended, and no reload makes a CA be asked earlier.

pub(super) mod solver;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};

use self::solver::Solvers;
use super::account::Account;
use super::challenge::Answers;
use super::client::{self, Authority, Wrong};
use super::dns01::Turns;
use super::failure::{Failure, Kind};
use super::journal::Journal;
use super::name::{Identity, Name};
use super::order::{self, Request};
use super::schedule::{FAILED_VALIDATIONS, Life, ORDERS, ORDERS_IN_FLIGHT, Pace, Refusal};
use super::state::{Advice, Progress, State, StateFile};
use super::storage::{self, Storage, Stored};
use super::wanted::{self, Ask, Asker, Challenges, Plan, Terms, Wanted};
use super::{Clock, LastError, ProviderUse, Shown, Step, renewal_info};
use crate::config::install::Acme;
use crate::config::routing::Certificate;
use crate::plugin::{Host, Plugins};
use crate::tls;

/// What a resolver is opened for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Work,
    /// To be looked at: nothing is written, and no CA is asked.
    Look,
}

/// What all resolvers share.
pub(super) struct Surroundings {
    host: Arc<Host>,
    answers: Answers,
    changed: Arc<Notify>,
    clock: Clock,
    turns: Turns,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// By the file: several resolvers may keep their certificates in one.
    shelves: BTreeMap<PathBuf, Arc<Shelf>>,
    /// By the URL of a CA's directory.
    orders: BTreeMap<String, Arc<Semaphore>>,
}

/// Where certificates are kept, and what lies beside them.
struct Shelf {
    storage: Storage,
    state: StateFile,
    journal: Arc<Journal>,
}

pub(super) struct Resolver {
    name: Arc<str>,
    options: Acme,
    authority: Arc<Authority>,
    account: tokio::sync::Mutex<Option<Account>>,
    /// Permits to have an order with this CA.
    orders: Arc<Semaphore>,
    shelf: Arc<Shelf>,
    solvers: Solvers,
    surroundings: Arc<Surroundings>,
    wish: watch::Sender<Wish>,
    running: Mutex<BTreeSet<Identity>>,
    /// The version of the DNS provider with which an order has failed before the CA has looked, if there was one.
    failed_with: Mutex<BTreeMap<Identity, Option<String>>>,
    /// When to ask for advice about certificates for which the CA had none.
    ask_again: Mutex<BTreeMap<Identity, Timestamp>>,
}

/// What the live snapshot asks for.
#[derive(Clone, Default)]
struct Wish {
    /// `None`: nobody has said yet.
    certificates: Option<Vec<Wanted>>,
    plugins: Plugins,
}

impl Surroundings {
    pub(super) fn new(host: Arc<Host>, answers: Answers, changed: Arc<Notify>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { host, answers, changed, clock, turns: Turns::default(), shared: Mutex::default() })
    }

    fn shelf(&self, path: &std::path::Path, purpose: Purpose) -> anyhow::Result<(Arc<Shelf>, Vec<String>)> {
        let mut shared = locked(&self.shared);
        if let Some(shelf) = shared.shelves.get(path) {
            return Ok((Arc::clone(shelf), Vec::new()));
        }
        let (storage, mut warnings) = match purpose {
            Purpose::Work => Storage::open(path)?,
            Purpose::Look => Storage::look(path)?,
        };
        let (state, warning) = StateFile::open(storage.beside(".state"));
        warnings.extend(warning);
        let journal = Journal::open(&storage.beside(".records"))?;
        let shelf = Arc::new(Shelf { storage, state, journal });
        shared.shelves.insert(path.to_owned(), Arc::clone(&shelf));
        Ok((shelf, warnings))
    }
}

impl Resolver {
    /// Reads what is stored, and says what to mind.
    ///
    /// # Errors
    ///
    /// The storage cannot be used, or an option is wrong: no certificate can be had.
    pub(super) fn open(
        name: &str,
        options: &Acme,
        surroundings: &Arc<Surroundings>,
        purpose: Purpose,
    ) -> Result<(Self, Vec<Wrong>), Wrong> {
        const OPTION: &str = "storage";
        let (authority, mut warnings) = Authority::new(options, &environment())?;
        let account = || format!("unable to get ACME account of `{}`", options.storage.display());
        let shelf = surroundings.shelf(&options.storage, purpose).with_context(account);
        let (shelf, more) = shelf.map_err(|error| Wrong { option: OPTION, reason: format!("{error:#}") })?;
        warnings.extend(more.into_iter().map(|reason| Wrong { option: OPTION, reason }));
        let name: Arc<str> = name.into();
        let orders = Arc::clone(
            locked(&surroundings.shared)
                .orders
                .entry(authority.url().to_owned())
                .or_insert_with(|| Arc::new(Semaphore::new(ORDERS_IN_FLIGHT))),
        );
        let journal = Arc::clone(&shelf.journal);
        let solvers = Solvers::new(Arc::clone(&name), options.clone(), journal, Arc::clone(surroundings));
        let resolver = Self {
            name,
            options: options.clone(),
            authority: Arc::new(authority),
            account: tokio::sync::Mutex::default(),
            orders,
            shelf,
            solvers,
            surroundings: Arc::clone(surroundings),
            wish: watch::Sender::default(),
            running: Mutex::default(),
            failed_with: Mutex::default(),
            ask_again: Mutex::default(),
        };
        Ok((resolver, warnings))
    }

    /// What it has to be served.
    pub(super) fn obtained(&self) -> Vec<tls::Obtained> {
        let stored = self.shelf.storage.certificates(&self.name).into_iter();
        let obtained = stored.map(|stored| tls::Obtained {
            resolver: Arc::clone(&self.name),
            pair: Certificate {
                cert_file: stored.chain.clone(),
                key_file: stored.key_pem().to_owned(),
                stores: Vec::new(),
            },
        });
        obtained.collect()
    }

    pub(super) fn plan(&self, asks: &[Ask], served: &HashSet<Name>) -> Plan {
        let Acme { dns_challenge, http_challenge, tls_challenge, profile, .. } = &self.options;
        let challenges = Challenges {
            dns: dns_challenge.is_some(),
            http: http_challenge.is_some(),
            tls_alpn: tls_challenge.is_some(),
        };
        let authority = wanted::Authority::of(self.authority.url());
        wanted::wanted(asks, &Terms { resolver: &self.name, authority, challenges, profile, served })
    }

    /// Says which certificates there should be from now on.
    pub(super) fn want(&self, certificates: Vec<Wanted>, plugins: Plugins) {
        self.wish.send_replace(Wish { certificates: Some(certificates), plugins });
    }

    /// Works until the process ends.
    pub(super) async fn run(self: Arc<Self>) {
        let mut wish = self.wish.subscribe();
        let mut orders = JoinSet::new();
        let mut is_first = true;
        loop {
            let Wish { certificates, plugins } = wish.borrow_and_update().clone();
            let mut wake = None;
            if let Some(certificates) = certificates {
                if std::mem::take(&mut is_first) {
                    let (this, plugins) = (Arc::clone(&self), plugins.clone());
                    tokio::spawn(async move { this.solvers.prepare(&plugins).await });
                }
                self.forget_unwanted(&certificates);
                for wanted in certificates {
                    self.try_another_version(&wanted.identity(), &plugins);
                    match self.due(&wanted) {
                        Due::Running => {}
                        Due::At(time) if time > self.now() => wake = earliest(wake, time),
                        Due::At(_) => {
                            self.begin(&wanted.identity());
                            orders.spawn(Arc::clone(&self).work(wanted, plugins.clone()));
                        }
                    }
                }
            }
            let wake = wake.unwrap_or(Timestamp::MAX);
            tokio::select! {
                changed = wish.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Some(_) = orders.join_next() => {}
                () = self.surroundings.clock.sleep_until(wake) => {}
            }
        }
    }

    /// What can be seen of each certificate that is wanted.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let certificates = self.wish.borrow().certificates.clone().unwrap_or_default();
        certificates.iter().map(|wanted| self.show(wanted)).collect()
    }

    /// The plugin that it proves names with, if it does.
    pub(super) fn provider(&self) -> Option<ProviderUse> {
        self.solvers.provider()
    }

    fn show(&self, wanted: &Wanted) -> Shown {
        let identity = wanted.identity();
        let Progress { last_error, next_attempt, advice, .. } = self.progress(&identity);
        let held = self.held(wanted);
        let is_running = locked(&self.running).contains(&identity);
        let seed = identity.seed();
        Shown {
            resolver: Arc::clone(&self.name),
            names: wanted.names.iter().map(ToString::to_string).collect(),
            routers: wanted.askers.iter().filter_map(router).collect(),
            step: match (&held, is_running, &last_error) {
                (_, true, _) => Step::Ordering,
                (_, _, Some(_)) => Step::Failed,
                (Some(_), ..) => Step::Obtained,
                (None, ..) => Step::Waiting,
            },
            not_after: held.as_ref().map(|held| held.not_after),
            renewal: held.as_ref().map(|held| life(held).renewal(advice.as_ref(), seed)),
            window: advice.as_ref().map(|advice| (advice.start, advice.end)),
            last_error: last_error.map(|error| LastError { time: error.time, message: error.message }),
            next_attempt,
        }
    }

    /// Another version of the DNS provider than the one that has failed need not wait.
    fn try_another_version(&self, identity: &Identity, plugins: &Plugins) {
        let mut failed_with = locked(&self.failed_with);
        if failed_with.get(identity).is_some_and(|version| *version != self.solvers.version(plugins)) {
            failed_with.remove(identity);
            self.update(|state| state.progress_mut(&self.name, identity).next_attempt = None);
        }
    }

    /// When something is to be done about a certificate.
    fn due(&self, wanted: &Wanted) -> Due {
        let identity = wanted.identity();
        if locked(&self.running).contains(&identity) {
            return Due::Running;
        }
        let held = self.held(wanted);
        let order = self.next_order(wanted, held.as_ref(), &identity);
        // A CA that gives advice changes its mind when it has to revoke.
        Due::At(held.map_or(order, |_| order.min(self.next_advice(&identity))))
    }

    /// When to order, for the first time or again.
    fn next_order(&self, wanted: &Wanted, held: Option<&Stored>, identity: &Identity) -> Timestamp {
        let state = self.shelf.state.state();
        let progress = state.progress(&self.name, identity).cloned().unwrap_or_default();
        // What another CA has signed, such as one for tries, is not what this resolver is for.
        let is_ours = progress.directory.as_ref().is_none_or(|directory| directory == self.authority.url());
        let life = held.filter(|_| is_ours).map(life);
        let authority = state.authorities.get(self.authority.url()).cloned().unwrap_or_default();
        let names: Vec<String> = wanted.names.iter().map(ToString::to_string).collect();
        let validations = names.iter().filter_map(|name| state.failed_validations(&self.name, name));
        progress.attempt(life, &authority, validations, self.now(), identity.seed())
    }

    fn next_advice(&self, identity: &Identity) -> Timestamp {
        let advised = self.progress(identity).advice.map(|advice| advice.ask_again);
        let unadvised = || locked(&self.ask_again).get(identity).copied();
        advised.or_else(unadvised).unwrap_or(Timestamp::MIN)
    }

    /// Asks the CA for its advice, and orders what is due then.
    async fn work(self: Arc<Self>, wanted: Wanted, plugins: Plugins) {
        let identity = wanted.identity();
        match self.attempt(&wanted, &plugins).await {
            Ok(Done::Obtained) => {
                let directory = self.authority.url();
                self.update(|state| state.progress_mut(&self.name, &identity).succeeded(directory));
                locked(&self.ask_again).remove(&identity);
                self.surroundings.changed.notify_one();
            }
            Ok(Done::Nothing) => {}
            Err(failure) => {
                if matches!(failure.kind, Kind::Presentation | Kind::Settings) {
                    locked(&self.failed_with).insert(identity.clone(), self.solvers.version(&plugins));
                }
                self.note(&identity, &wanted, &failure);
            }
        }
        locked(&self.running).remove(&identity);
    }

    async fn attempt(&self, wanted: &Wanted, plugins: &Plugins) -> Result<Done, Failure> {
        let _permit = self.orders.acquire().await;
        let identity = wanted.identity();
        if self.refreshed().await? && self.held(wanted).is_some() {
            self.surroundings.changed.notify_one();
        }
        let held = self.held(wanted);
        if let Some(held) = &held {
            self.take_advice(held, &identity).await;
        }
        // Others may have been told meanwhile to leave the CA alone.
        if self.next_order(wanted, held.as_ref(), &identity) > self.now() {
            return Ok(Done::Nothing);
        }
        self.update(|state| ORDERS.note(&mut state.authority_mut(self.authority.url()).orders, self.now()));
        let names = wanted.names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (domains, resolver) = (names.join(", "), &*self.name);
        let provider = self.options.dns_challenge.as_ref().map(|dns| dns.provider.as_str());
        tracing::info!(resolver, domains, provider, "ordering a certificate from {}", self.authority.host());
        let begun = self.now();
        let stored = self.order(names, held.as_ref(), wanted, plugins).await?;
        let (shelf, name) = (Arc::clone(&self.shelf), Arc::clone(&self.name));
        let not_after = stored.not_after;
        blocking(move || shelf.storage.put(&name, &stored)).await?;
        let seconds = self.now().duration_since(begun).as_secs();
        tracing::info!(resolver, domains, %not_after, seconds, "obtained a certificate");
        Ok(Done::Obtained)
    }

    async fn order(
        &self,
        names: Vec<String>,
        held: Option<&Stored>,
        wanted: &Wanted,
        plugins: &Plugins,
    ) -> Result<Stored, Failure> {
        let shelf = Arc::clone(&self.shelf);
        // An order is not spent on what cannot be kept.
        blocking(move || shelf.storage.probe()).await?;
        let solver = self.solvers.choose(wanted, plugins).await.map_err(|error| settings(&error))?;
        let replaces = held.map(|held| held.chain.as_str());
        let request = || Request { names: &names, options: &self.options, replaces };
        let clock = &self.surroundings.clock;
        let account = self.account().await?;
        let obtained = match order::obtain(&account, request(), &solver, clock).await {
            Err(failure) if failure.is_account_gone() => {
                tracing::warn!(resolver = &*self.name, "{failure}: registering anew");
                self.forget_account().await?;
                order::obtain(&self.account().await?, request(), &solver, clock).await
            }
            outcome => outcome,
        }?;
        for warning in &obtained.warnings {
            tracing::warn!(resolver = &*self.name, "{warning}");
        }
        let mut names = names.into_iter();
        let main = names.next().unwrap_or_default();
        Stored::parse(main, names.collect(), obtained.chain, obtained.key)
            .map_err(|reason| Failure::new(Kind::Certificate, format!("read what the CA has issued: {reason}")))
    }

    /// The account with the CA: the one that is stored, or a new one.
    async fn account(&self) -> Result<Account, Failure> {
        let mut account = self.account.lock().await;
        if let Some(account) = account.as_ref() {
            return Ok(account.clone());
        }
        let stored = self.shelf.storage.account(&self.name).filter(|stored| stored.directory == self.authority.url());
        if let Some(stored) = stored {
            match Account::restore(&self.authority, &stored.credentials) {
                Ok(restored) => return Ok(account.insert(restored).clone()),
                Err(reason) => tracing::warn!(resolver = &*self.name, "{reason}: registering anew"),
            }
        }
        let registered = Account::register(&self.authority, &self.options, &self.surroundings.clock).await?;
        let stored = storage::Account {
            directory: self.authority.url().to_owned(),
            credentials: registered.credentials().to_owned(),
        };
        let (shelf, name) = (Arc::clone(&self.shelf), Arc::clone(&self.name));
        blocking(move || shelf.storage.set_account(&name, Some(&stored))).await?;
        Ok(account.insert(registered).clone())
    }

    async fn forget_account(&self) -> Result<(), Failure> {
        *self.account.lock().await = None;
        let (shelf, name) = (Arc::clone(&self.shelf), Arc::clone(&self.name));
        blocking(move || shelf.storage.set_account(&name, None)).await
    }

    async fn take_advice(&self, held: &Stored, identity: &Identity) {
        let now = self.now();
        if self.next_advice(identity) > now {
            return;
        }
        let previous = self.progress(identity).advice;
        let info = renewal_info::renewal_info(&self.authority, &held.chain, &self.surroundings.clock).await;
        let Some(info) = info else {
            locked(&self.ask_again).insert(identity.clone(), life(held).ask_again(None, now));
            return;
        };
        let window = (info.start, info.end);
        if previous.as_ref().is_none_or(|previous| (previous.start, previous.end) != window) {
            let (resolver, explanation) = (&*self.name, info.explanation.as_deref());
            let (start, end) = window;
            tracing::info!(resolver, domains = %identity, %start, %end, explanation, "the CA advises when to renew");
        }
        let ask_again = life(held).ask_again(Some(info.ask_again), now);
        let advice = Advice::of(window, info.explanation, ask_again, previous.as_ref(), identity.seed());
        self.update(|state| state.progress_mut(&self.name, identity).advice = Some(advice));
    }

    fn note(&self, identity: &Identity, wanted: &Wanted, failure: &Failure) {
        let now = self.now();
        let is_counted = failure.counts_as_failed_validation();
        let pace = match failure.kind {
            Kind::Unavailable | Kind::Presentation => Pace::Brisk,
            _ => Pace::Patient,
        };
        let names: Vec<String> = match failure.names.as_slice() {
            [] => wanted.names.iter().map(ToString::to_string).collect(),
            names => names.to_vec(),
        };
        self.update(|state| {
            let progress = state.progress_mut(&self.name, identity);
            progress.failed(pace, failure.to_string(), failure.retry_after, now, identity.seed());
            if is_counted {
                for name in &names {
                    FAILED_VALIDATIONS.note(state.failed_validations_mut(&self.name, name), now);
                }
            }
            let refusal = match failure.kind {
                Kind::RateLimited => Some(Refusal::RateLimited),
                Kind::Unavailable => Some(Refusal::Overloaded),
                _ => None,
            };
            if let (Some(refusal), Some(retry_after)) = (refusal, failure.retry_after) {
                state.authority_mut(self.authority.url()).pause(refusal, retry_after, now);
            }
        });
        let next_attempt = self.progress(identity).next_attempt.map(|time| time.to_string());
        let routers = wanted.askers.iter().filter_map(router).collect::<Vec<_>>().join(", ");
        let provider = self.options.dns_challenge.as_ref().map(|dns| dns.provider.as_str());
        let resolver = &*self.name;
        tracing::error!(resolver, domains = %identity, routers, provider, next_attempt, "failed to obtain a certificate: {failure}");
    }

    /// Certificates that nobody wants are kept for a while: a router may come back.
    fn forget_unwanted(&self, wanted: &[Wanted]) {
        let now = self.now();
        for stored in self.shelf.storage.certificates(&self.name) {
            let identity = stored.identity();
            let is_wanted = wanted.iter().any(|wanted| stored.covers(&wanted.names));
            let mut is_dropped = false;
            self.update(|state| is_dropped = state.progress_mut(&self.name, &identity).is_dropped(is_wanted, now));
            if !is_dropped {
                continue;
            }
            let resolver = &*self.name;
            tracing::info!(resolver, domains = %identity, "dropping a certificate that no router wants");
            match self.shelf.storage.remove(&self.name, &identity) {
                Ok(()) => self.update(|state| state.forget(&self.name, &identity)),
                Err(error) => tracing::warn!(resolver, "{error:#}"),
            }
        }
    }

    /// The certificate that serves what is wanted and lives longest.
    fn held(&self, wanted: &Wanted) -> Option<Stored> {
        let stored = self.shelf.storage.certificates(&self.name).into_iter();
        stored.filter(|stored| stored.covers(&wanted.names)).max_by_key(|stored| stored.not_after)
    }

    /// Whether another process has written the file since.
    async fn refreshed(&self) -> Result<bool, Failure> {
        let shelf = Arc::clone(&self.shelf);
        blocking(move || shelf.storage.refresh()).await
    }

    fn begin(&self, identity: &Identity) {
        locked(&self.running).insert(identity.clone());
    }

    fn progress(&self, identity: &Identity) -> Progress {
        self.shelf.state.state().progress(&self.name, identity).cloned().unwrap_or_default()
    }

    /// What cannot be written is learned again after a restart: it is no reason to stop.
    fn update(&self, edit: impl FnOnce(&mut State)) {
        if let Err(error) = self.shelf.state.update(edit) {
            tracing::warn!(resolver = &*self.name, "what is known of certificates cannot be written down: {error}");
        }
    }

    fn now(&self) -> Timestamp {
        self.surroundings.clock.now()
    }
}

enum Due {
    Running,
    At(Timestamp),
}

enum Done {
    Obtained,
    /// It is not yet time to renew.
    Nothing,
}

const fn life(held: &Stored) -> Life {
    Life { not_before: held.not_before, not_after: held.not_after }
}

fn router(asker: &Asker) -> Option<String> {
    match asker {
        Asker::Router(name) => Some(name.clone()),
        Asker::DefaultCertificate => None,
    }
}

fn earliest(one: Option<Timestamp>, other: Timestamp) -> Option<Timestamp> {
    Some(one.map_or(other, |one| one.min(other)))
}

/// Reading and writing files takes as long as the disk does.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> Result<T, Failure> {
    let done = spawn_blocking(work).await.map_err(|error| anyhow!("a task has ended early: {error}"));
    done.flatten().map_err(|error| settings(&error))
}

fn settings(error: &anyhow::Error) -> Failure {
    Failure::new(Kind::Settings, format!("{error:#}"))
}

fn environment() -> client::Environment {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    client::Environment {
        certificates: variable("LEGO_CA_CERTIFICATES"),
        server_name: variable("LEGO_CA_SERVER_NAME"),
        system_cert_pool: variable("LEGO_CA_SYSTEM_CERT_POOL"),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
