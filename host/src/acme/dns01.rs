//! DNS-01: a TXT record is made, waited for until the authority will see it, and deleted again (RFC 8555, section 8.4).
//!
//! `challenge` calls it for an order, `resolver` after a start for what an earlier run left behind. Which zone, and who
//! can see the record, is asked of `dns`; a DNS provider does nothing but add and delete one record, for one caller at
//! a time in each zone. Whoever drops a future here leaks nothing: the journal has the record, and the next run of
//! `clean_up_after_crash` deletes it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OwnedMutexGuard;

use super::clock::Clock;
use super::dns::{Absence, Checks, Dns, Place, Rfc2136, UpdateError, Visible};
use super::journal::{Entry, Hold, Journal};
use crate::plugin::{Challenge, Provider as Component, ProviderError, Timing};

/// A record that cannot be deleted is tried again after these. What is left then stays in the journal.
const PAUSES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];
/// Whatever a provider asks for.
const PAUSE_AT_MOST: Duration = Duration::from_secs(300);

pub(crate) struct Dns01 {
    /// The certificates resolver's name.
    pub resolver: String,
    pub provider: Provider,
    pub dns: Dns,
    pub propagation: Propagation,
    pub clock: Clock,
    pub journal: Arc<Journal>,
    pub turns: Turns,
}

pub(crate) enum Provider {
    Component(Box<Component>),
    Rfc2136(Box<Rfc2136>),
}

/// `dnsChallenge.propagation`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Propagation {
    pub checks: Checks,
    /// `delayBeforeChecks`: once for all records that stand there together, also where nothing is checked.
    pub delay_before: Duration,
}

/// Who may touch a zone now. One for the whole process: many providers read all records of a name, change them, and
/// write them back.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<HashMap<(String, String), Turn>>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

/// A record that stands in the DNS. It is deleted by `Dns01::cleanup`, and if it is dropped instead, later.
pub(crate) struct Record {
    entry: Entry,
    hold: Hold,
}

/// Why a record could not be made, or is not seen.
#[derive(Debug)]
pub(crate) struct Failure {
    pub message: String,
    pub retry_after: Option<Duration>,
    /// What was asked for may have happened all the same.
    is_unclear: bool,
}

/// lego has providers that no component can be; their names get an answer of their own.
pub(crate) fn refuse(provider: &str) -> anyhow::Result<()> {
    match provider {
        "exec" => bail!(
            "the DNS provider `exec` is not supported: plugins are sandboxed and start no programs (`httpreq` can ask a server of \
             your own instead)"
        ),
        "manual" => {
            bail!("the DNS provider `manual` is not supported: certificates are renewed with nobody there to ask")
        }
        _ => Ok(()),
    }
}

impl Dns01 {
    /// Makes the record that proves control of `domain` (without `*.`). The same one for two callers is made once.
    pub(crate) async fn present(
        &self,
        domain: &str,
        token: &str,
        key_authorization: &str,
        value: &str,
    ) -> Result<Record, Failure> {
        let place = self.dns.place(domain, self.clock.now()).await?;
        let mut entry = Entry {
            resolver: self.resolver.clone(),
            provider: self.provider.name().to_owned(),
            domain: domain.to_owned(),
            fqdn: place.fqdn,
            zone: place.zone,
            value: value.to_owned(),
            token: token.to_owned(),
            key_authorization: key_authorization.to_owned(),
            since: self.clock.now().to_string(),
            handle: None,
        };
        let hold = self.journal.hold(entry.key());
        let _turn = self.turns.take(&entry).await;
        let known = self.journal.find(hold.key());
        if let Some(made) = known.clone().filter(|known| known.handle.is_some()) {
            return Ok(Record { entry: made, hold });
        }
        self.journal.add(entry.clone()).await?;
        match self.provider.present(&entry, self.clock.now()).await {
            Ok(handle) => entry.handle = Some(handle),
            Err(failure) => {
                self.undo(&entry, &failure, known.is_some()).await;
                return Err(failure.within(&format!("failed to make the TXT record `{}`", entry.fqdn)));
            }
        }
        tracing::debug!("made the TXT record `{}` of {}", entry.fqdn, self.described());
        if let Err(error) = self.journal.update(hold.key().clone(), entry.handle.clone().unwrap_or_default()).await {
            // It is known that it exists, which is enough to delete it.
            tracing::warn!("{error:#}");
        }
        Ok(Record { entry, hold })
    }

    /// Returns when all that are asked show each of the records, which stand there together.
    pub(crate) async fn wait(&self, records: &[&Record]) -> Result<(), Failure> {
        let delay = self.propagation.delay_before;
        if !records.is_empty() && !delay.is_zero() {
            tracing::debug!("waiting for {} s before TXT records are looked for", delay.as_secs());
            self.clock.sleep(delay).await;
        }
        for record in records {
            self.wait_for(&record.entry).await?;
        }
        Ok(())
    }

    async fn wait_for(&self, entry: &Entry) -> Result<(), Failure> {
        let timing = self.provider.timing();
        let until = later(self.clock.now(), timing.propagation_timeout);
        let place = place(entry);
        loop {
            let why = match self.dns.is_visible(&place, &entry.value, self.propagation.checks).await {
                Ok(Visible::Yes) => return Ok(()),
                Ok(Visible::NotYet(absence)) => explain(&absence),
                Err(error) => format!("{error:#}"),
            };
            if later(self.clock.now(), timing.polling_interval) > until {
                let seconds = timing.propagation_timeout.as_secs();
                let message = format!("failed to find the TXT record `{}` within {seconds} s: {why}", place.fqdn);
                return Err(Failure { message, retry_after: None, is_unclear: false });
            }
            tracing::debug!("the TXT record `{}` is not seen yet: {why}", place.fqdn);
            self.clock.sleep(timing.polling_interval).await;
        }
    }

    /// Deletes the record, unless somebody else needs it. What cannot be deleted is logged and stays in the journal.
    pub(crate) async fn cleanup(&self, record: Record) {
        self.delete(record.entry, record.hold).await;
    }

    /// Deletes what this resolver's earlier runs left behind.
    pub(crate) async fn clean_up_after_crash(&self) {
        for entry in self.journal.records().into_iter().filter(|entry| entry.resolver == self.resolver) {
            if self.journal.is_held(&entry.key()) {
                continue;
            }
            if entry.provider != self.provider.name() {
                tracing::warn!(
                    "a TXT record may be left at `{}`, made by the DNS provider `{}`: only that one can delete it",
                    entry.fqdn,
                    entry.provider
                );
                continue;
            }
            let hold = self.journal.hold(entry.key());
            self.delete(entry, hold).await;
        }
    }

    /// Whether the provider takes one challenge at a time: made, checked and deleted before the next.
    pub(crate) fn is_sequential(&self) -> bool {
        self.provider.timing().sequential
    }

    /// A failure leaves nothing to delete, unless nobody can tell.
    async fn undo(&self, entry: &Entry, failure: &Failure, was_known: bool) {
        if failure.is_unclear {
            if let Err(failure) = self.provider.cleanup(entry, self.clock.now()).await {
                tracing::debug!("a TXT record may be left at `{}` for a while: {failure}", entry.fqdn);
                return;
            }
        } else if was_known {
            return;
        }
        self.forget(entry).await;
    }

    async fn delete(&self, entry: Entry, hold: Hold) {
        let mut pauses = PAUSES.iter();
        loop {
            let turn = self.turns.take(&entry).await;
            if !hold.is_last() || self.journal.find(hold.key()).is_none() {
                // Before the turn ends, so that the next one knows whether it is the last.
                drop(hold);
                return;
            }
            let Err(failure) = self.provider.cleanup(&entry, self.clock.now()).await else {
                tracing::debug!("deleted the TXT record `{}` of {}", entry.fqdn, self.described());
                return self.forget(&entry).await;
            };
            drop(turn);
            let Some(&pause) = pauses.next() else {
                tracing::warn!(
                    "failed to delete the TXT record `{}` of {}, which is tried again later: {failure}",
                    entry.fqdn,
                    self.described()
                );
                return;
            };
            let pause = failure.retry_after.unwrap_or_default().clamp(pause, PAUSE_AT_MOST);
            self.clock.sleep(pause).await;
        }
    }

    async fn forget(&self, entry: &Entry) {
        if let Err(error) = self.journal.remove(entry.key()).await {
            tracing::warn!("{error:#}");
        }
    }

    fn described(&self) -> String {
        format!("certificates resolver `{}` by DNS provider `{}`", self.resolver, self.provider.name())
    }
}

impl Provider {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Component(component) => component.name(),
            Self::Rfc2136(_) => Rfc2136::NAME,
        }
    }

    fn timing(&self) -> Timing {
        match self {
            Self::Component(component) => *component.timing(),
            // Records of several challenges stand side by side.
            Self::Rfc2136(rfc2136) => Timing {
                propagation_timeout: rfc2136.propagation_timeout,
                polling_interval: rfc2136.polling_interval,
                sequential: false,
            },
        }
    }

    async fn present(&self, entry: &Entry, now: Timestamp) -> Result<String, Failure> {
        match self {
            Self::Component(component) => Ok(component.present(&challenge(entry)).await?),
            Self::Rfc2136(rfc2136) => {
                rfc2136.present(&place(entry), &entry.value, now).await?;
                // The record's name and value are all that it takes.
                Ok(String::new())
            }
        }
    }

    async fn cleanup(&self, entry: &Entry, now: Timestamp) -> Result<(), Failure> {
        match self {
            Self::Component(component) => {
                Ok(component.cleanup(&challenge(entry), entry.handle.as_deref().unwrap_or_default()).await?)
            }
            Self::Rfc2136(rfc2136) => Ok(rfc2136.cleanup(&place(entry), &entry.value, now).await?),
        }
    }
}

impl Turns {
    async fn take(&self, entry: &Entry) -> OwnedMutexGuard<()> {
        let key = (entry.provider.clone(), entry.zone.clone());
        let turn = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        turn.lock_owned().await
    }
}

impl Failure {
    fn within(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { message: format!("{error:#}"), retry_after: None, is_unclear: false }
    }
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        // Whatever it is that failed, it may have come after the request that made the record.
        Self { message: error.message, retry_after: error.retry_after, is_unclear: !error.is_of_init }
    }
}

impl From<UpdateError> for Failure {
    fn from(error: UpdateError) -> Self {
        let is_unclear = matches!(error, UpdateError::Unclear(_));
        Self { message: error.to_string(), retry_after: None, is_unclear }
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| time.saturating_add(by).ok()).unwrap_or(Timestamp::MAX)
}

fn challenge(entry: &Entry) -> Challenge {
    Challenge {
        fqdn: entry.fqdn.clone(),
        zone: entry.zone.clone(),
        value: entry.value.clone(),
        domain: entry.domain.clone(),
        token: entry.token.clone(),
        key_authorization: entry.key_authorization.clone(),
    }
}

fn place(entry: &Entry) -> Place {
    Place { fqdn: entry.fqdn.clone(), zone: entry.zone.clone() }
}

/// With the way out, which differs.
fn explain(absence: &Absence) -> String {
    if absence.lacking.is_empty() {
        return format!(
            "{absence} (if they cannot be reached from here, set `propagation.disableANSChecks`, or name others by \
             `dnsChallenge.resolvers`)"
        );
    }
    format!("{absence} (a provider that takes longer has a variable `…_PROPAGATION_TIMEOUT`)")
}
