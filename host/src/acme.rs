//! Certificates by ACME (RFC 8555): which ones are wanted, when they are ordered, and how control of a name is proved.
//!
//! `server` starts it, takes what it has into each snapshot, and tells it what routers want; `entrypoint` and `admin` ask
//! it for the answers to challenges. It runs on the control runtime alone, and serves nothing itself.

mod account;
mod challenge;
mod client;
mod clock;
mod dns;
mod dns01;
mod failure;
mod file;
mod journal;
mod key;
#[cfg(test)]
mod mock;
mod name;
mod order;
mod renewal_info;
mod resolver;
mod schedule;
mod session;
mod state;
mod storage;
mod wanted;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;

pub use self::challenge::Answers;
use self::client::Wrong;
pub use self::clock::Clock;
pub use self::name::Name;
pub(crate) use self::resolver::solver::try_provider;
use self::resolver::{Resolver, Surroundings};
pub use self::wanted::{Ask, Asker, Domain, Plan, Problem as Refusal, Severity, Wanted};
use crate::config::{Install, Problem};
use crate::plugin::{Host, Plugins};
use crate::tls::Obtained;

/// All certificates resolvers of an install file.
pub struct Acme {
    resolvers: BTreeMap<String, State>,
    answers: Answers,
    changed: Arc<Notify>,
    /// Of the resolvers' options, and of the files that certificates are kept in.
    problems: Vec<Problem>,
}

enum State {
    Running(Arc<Resolver>),
    /// It cannot be used, for this reason.
    Refused(String),
}

/// What can be seen of a certificate that a resolver should have.
#[derive(Clone, Debug)]
pub struct Shown {
    pub resolver: Arc<str>,
    pub names: Vec<String>,
    /// Of which routers; empty for the default certificate.
    pub routers: Vec<String>,
    pub step: Step,
    /// The end of the one that there is.
    pub not_after: Option<Timestamp>,
    /// When it is renewed, if there is one.
    pub renewal: Option<Timestamp>,
    /// In which time the CA would have it renewed (RFC 9773).
    pub window: Option<(Timestamp, Timestamp)>,
    /// Of the last attempt, if that failed.
    pub last_error: Option<LastError>,
    pub next_attempt: Option<Timestamp>,
}

/// A plugin that a resolver proves names with.
#[derive(Clone, Debug)]
pub struct ProviderUse {
    pub resolver: Arc<str>,
    /// The plugin's name.
    pub provider: String,
    pub calls: u64,
    /// Of those.
    pub failures: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none yet.
    Waiting,
    /// It is being ordered or renewed.
    Ordering,
    Obtained,
    /// The last attempt has failed. What there was before is still served.
    Failed,
}

#[derive(Clone, Debug)]
pub struct LastError {
    pub time: Timestamp,
    /// With what to do about it.
    pub message: String,
}

impl Acme {
    /// Opens what is stored, and begins to work on what [`Acme::want`] will ask for. Never waits for a CA.
    pub fn start(install: &Install, host: &Arc<Host>) -> Self {
        let acme = Self::open(install, host, resolver::Purpose::Work);
        for state in acme.resolvers.values() {
            if let State::Running(resolver) = state {
                tokio::spawn(Arc::clone(resolver).run());
            }
        }
        acme
    }

    /// The same, without doing or writing anything.
    pub fn preview(install: &Install, host: &Arc<Host>) -> Self {
        Self::open(install, host, resolver::Purpose::Look)
    }

    fn open(install: &Install, host: &Arc<Host>, purpose: resolver::Purpose) -> Self {
        let answers = Answers::default();
        let changed = Arc::<Notify>::default();
        let surroundings = Surroundings::new(Arc::clone(host), answers.clone(), Arc::clone(&changed), Clock::system());
        let mut resolvers = BTreeMap::new();
        let mut problems = Vec::new();
        for (name, options) in &install.certificates_resolvers {
            let Some(options) = &options.acme else { continue };
            let key = |option| format!("certificatesResolvers.{name}.acme.{option}");
            let state = match Resolver::open(name, options, &surroundings, purpose) {
                Ok((resolver, warnings)) => {
                    problems.extend(warnings.into_iter().map(|Wrong { option, reason }| {
                        let key = key(option);
                        Problem::warning(key.as_str(), reason).at(install.place(&key))
                    }));
                    State::Running(Arc::new(resolver))
                }
                Err(Wrong { option, reason }) => {
                    let message = format!("the ACME resolver `{name}` is not used: {reason}");
                    problems.push(install.problem(&key(option), message));
                    State::Refused(reason)
                }
            };
            resolvers.insert(name.clone(), state);
        }
        Self { resolvers, answers, changed, problems }
    }

    /// To the challenges of CAs.
    pub const fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Returns when there is another certificate to be served than before.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Every certificate there is.
    pub fn obtained(&self) -> Vec<Obtained> {
        self.running().flat_map(Resolver::obtained).collect()
    }

    /// Which certificates a resolver should have; `None` if it is not used.
    pub fn plan(&self, resolver: &str, asks: &[Ask], served: &HashSet<Name>) -> Option<Plan> {
        match self.resolvers.get(resolver)? {
            State::Running(resolver) => Some(resolver.plan(asks, served)),
            State::Refused(_) => None,
        }
    }

    /// Why a resolver is not used.
    pub fn refused(&self, resolver: &str) -> Option<&str> {
        match self.resolvers.get(resolver)? {
            State::Running(_) => None,
            State::Refused(reason) => Some(reason),
        }
    }

    /// What is wrong with resolvers, and with the files that certificates are kept in.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.problems.iter().cloned()
    }

    /// Says which certificates each resolver should have from now on, and which plugins may be its DNS provider.
    pub fn want(&self, wanted: &BTreeMap<String, Vec<Wanted>>, plugins: &Plugins) {
        for (name, wanted) in wanted {
            if let Some(State::Running(resolver)) = self.resolvers.get(name) {
                resolver.want(wanted.clone(), plugins.clone());
            }
        }
    }

    pub fn shown(&self) -> Vec<Shown> {
        self.running().flat_map(Resolver::shown).collect()
    }

    /// The DNS providers in use, which need not exist.
    pub fn providers(&self) -> Vec<ProviderUse> {
        self.running().filter_map(Resolver::provider).collect()
    }

    fn running(&self) -> impl Iterator<Item = &Resolver> {
        self.resolvers.values().filter_map(|state| match state {
            State::Running(resolver) => Some(&**resolver),
            State::Refused(_) => None,
        })
    }
}
