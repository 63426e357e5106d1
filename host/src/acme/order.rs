//! One certificate from a CA: order, proof of control, issue (RFC 8555, section 7.4).
//!
//! `resolver` calls it when the schedule says so, and stores what comes out. It keeps nothing, and tries again only what
//! costs seconds.

mod authorize;
mod chain;
mod issue;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

use instant_acme::{CertificateIdentifier, Error, Identifier, NewOrder, OrderStatus};
use jiff::Timestamp;

use self::chain::Chain;
use super::Clock;
use super::account::Account;
use super::challenge::Solver;
use super::client::Directory;
use super::failure::{Failure, Kind, Stage};
use super::key::Key;
use super::session::{Patience, Session};
use crate::config::install::Acme;

/// The certificate that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    /// DNS names in their ASCII form, wildcards, IP addresses; the first is the main one.
    pub names: &'a [String],
    pub options: &'a Acme,
    /// The chain in PEM of the certificate that this one follows, if the same CA has issued it.
    pub replaces: Option<&'a str>,
}

/// A certificate that belongs to its key and has the names.
#[derive(Clone)]
pub(crate) struct Obtained {
    /// PEM, the certificate itself first.
    pub chain: String,
    /// PEM. A secret.
    pub key: String,
    /// The common name of who has issued it.
    pub issuer: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// What was asked for and is not so.
    pub warnings: Vec<String>,
}

/// Orders a certificate, proves control of its names by `solver`, and waits for it.
///
/// Whatever happens, answers to challenges are cleaned up; should the future be dropped, those of HTTP-01 and TLS-ALPN-01
/// are, and records are left to the journal of `dns01`.
pub(crate) async fn obtain(
    account: &Account,
    request: Request<'_>,
    solver: &Solver,
    clock: &Clock,
) -> Result<Obtained, Failure> {
    let directory = account.authority().directory(clock).await?;
    let options = request.options;
    check_profile(&options.profile, &directory, account.authority().host())?;
    // Before the order, so that a key that cannot be made costs none.
    let key = Key::generate(options.key_type).await?;
    let csr = key.request(request.names, options)?;
    let (session, account) = account.converse(clock).await?;
    let mut order = begin(&session, &account, request, &directory).await?;
    if order.state().status == OrderStatus::Pending {
        authorize::authorize(&session, &mut order, solver).await?;
    }
    let (pem, alternates) = issue::issue(&session, &mut order, &csr, options.certificate_timeout).await?;
    let mut warnings = Vec::new();
    let chain = Chain::parse(pem)?;
    let chain = match options.preferred_chain.as_str() {
        "" => chain,
        preferred => chain::prefer(&session, &account, chain, &alternates, preferred, &mut warnings).await,
    };
    let validity = chain.verify(&key.public(), request.names, clock.now())?;
    Ok(Obtained {
        key: key.pem(),
        issuer: chain.issuer()?,
        not_before: validity.start,
        not_after: validity.end,
        chain: chain.into_pem(),
        warnings,
    })
}

impl fmt::Debug for Obtained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, not_before, not_after, warnings, chain: _, key: _ } = self;
        f.debug_struct("Obtained")
            .field("issuer", issuer)
            .field("not_before", not_before)
            .field("not_after", not_after)
            .field("warnings", warnings)
            .finish_non_exhaustive()
    }
}

/// Some CAs ignore what they do not know, and issue for 90 days what was to live for six.
fn check_profile(profile: &str, directory: &Directory, host: &str) -> Result<(), Failure> {
    if profile.is_empty() || directory.profiles.contains_key(profile) {
        return Ok(());
    }
    let names = directory.profiles.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let help = match names.is_empty() {
        true => "it offers none: remove `profile`".to_owned(),
        false => format!("it offers {names}"),
    };
    Err(Failure::new(Kind::Settings, format!("`{host}` does not offer the profile `{profile}`")).help(help))
}

/// A new order, or one of the account's that the CA takes up again.
async fn begin(
    session: &Session,
    account: &instant_acme::Account,
    request: Request<'_>,
    directory: &Directory,
) -> Result<instant_acme::Order, Failure> {
    let names: Vec<Identifier> = request.names.iter().map(|name| identifier(name)).collect();
    let mut replaces = request.replaces.filter(|_| directory.renewal_info.is_some()).and_then(chain::first);
    let mut is_second = false;
    let mut patience = Patience::careful(session);
    loop {
        let mut wanted = NewOrder::new(&names);
        if !request.options.profile.is_empty() {
            wanted = wanted.profile(&request.options.profile);
        }
        if let Some(id) = replaces.as_ref().and_then(|certificate| CertificateIdentifier::try_from(certificate).ok()) {
            wanted = wanted.replaces(id);
        }
        match account.new_order(&wanted).await {
            Ok(mut order) => match order.state().status {
                // Of a certificate that is there already, only whoever made its request has the key.
                OrderStatus::Processing | OrderStatus::Valid if is_second => {
                    let message = "the CA answers a new order with an old one, whose key is not known here";
                    return Err(Failure::new(Kind::Unavailable, message));
                }
                OrderStatus::Processing | OrderStatus::Valid => is_second = true,
                _ => return Ok(order),
            },
            Err(error) if replaces.is_some() && is_about_replacing(&error, session) => {
                tracing::debug!(%error, "the CA does not take the order as a renewal: it is made anew");
                replaces = None;
            }
            Err(error) => patience.after(&error, Stage::Order).await?,
        }
    }
}

/// What it replaces was replaced before, or the CA does not say `replaces` back (RFC 9773, section 5).
fn is_about_replacing(error: &Error, session: &Session) -> bool {
    match error {
        Error::Api(problem) => problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:alreadyReplaced"),
        Error::Other(_) => session.last().is_success(),
        _ => false,
    }
}

fn identifier(name: &str) -> Identifier {
    match name.parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(name.to_owned()),
    }
}
