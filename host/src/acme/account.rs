//! An account with a CA (RFC 8555, section 7.1.2): registered, or restored from the credentials that were stored.
//!
//! `resolver` has one for each CA and e-mail address, and stores its credentials as soon as it has it. Its key is of
//! P-256, the only kind that the ACME library signs with.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use instant_acme::{AccountCredentials, ExternalAccountKey, NewAccount};
use serde::Deserialize;

use super::Clock;
use super::client::Authority;
use super::failure::{Failure, Kind, Stage};
use super::session::{Patience, Session};
use crate::config::install::{Acme, ExternalAccountBinding};

#[derive(Clone)]
pub(crate) struct Account {
    authority: Arc<Authority>,
    url: String,
    /// JSON, with the private key.
    credentials: Arc<str>,
}

impl Account {
    /// Registers a new account for `email` and `eab` of the options, and agrees to the CA's terms.
    pub(crate) async fn register(authority: &Arc<Authority>, options: &Acme, clock: &Clock) -> Result<Self, Failure> {
        let binding = options.eab.as_ref().map(binding).transpose()?;
        let directory = authority.directory(clock).await?;
        if directory.is_external_account_required && binding.is_none() {
            let message = format!("`{}` wants an account that is bound to one of its customers", authority.host());
            return Err(Failure::new(Kind::Account, message).help("set `eab.kid` and `eab.hmacEncoded`"));
        }
        let contact = format!("mailto:{}", options.email);
        let contact: Vec<&str> = Some(contact.as_str()).filter(|_| !options.email.is_empty()).into_iter().collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let session = Session::new(authority, clock);
        let mut patience = Patience::careful(&session);
        let credentials = loop {
            let builder = instant_acme::Account::builder_with_http(Box::new(session.clone()));
            match builder.create(&wanted, authority.url().to_owned(), binding.as_ref()).await {
                Ok((_, credentials)) => break credentials,
                Err(error) => patience.after(&error, Stage::Account).await?,
            }
        };
        let credentials = serde_json::to_string(&credentials)
            .map_err(|error| Failure::new(Kind::Account, format!("the account cannot be written down: {error}")))?;
        Self::restore(authority, &credentials).map_err(|words| Failure::new(Kind::Unavailable, words))
    }

    /// Takes what `credentials` gave. Asks nobody whether the account still exists.
    pub(crate) fn restore(authority: &Arc<Authority>, credentials: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Credentials {
            id: String,
            directory: String,
        }
        // Errors of a JSON parser may repeat what they do not understand, and here that may be a key.
        let unreadable = |_| "the credentials of the account cannot be read".to_owned();
        let Credentials { id, directory } = serde_json::from_str(credentials).map_err(unreadable)?;
        let parsed: AccountCredentials = serde_json::from_str(credentials).map_err(unreadable)?;
        let key = parsed.private_key().clone_key();
        instant_acme::Key::from_pkcs8_der(key).map_err(|_| "the account's key is none of P-256".to_owned())?;
        if directory != authority.url() {
            return Err(format!("the account belongs to `{directory}`, and not to `{}`", authority.url()));
        }
        Ok(Self { authority: Arc::clone(authority), url: id, credentials: credentials.into() })
    }

    /// To be stored where nobody else reads.
    pub(crate) fn credentials(&self) -> &str {
        &self.credentials
    }

    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    pub(super) async fn converse(&self, clock: &Clock) -> Result<(Session, instant_acme::Account), Failure> {
        self.authority.directory(clock).await?;
        let session = Session::new(&self.authority, clock);
        let credentials = serde_json::from_str(&self.credentials)
            .map_err(|_| Failure::new(Kind::Account, "the credentials of the account cannot be read"))?;
        let builder = instant_acme::Account::builder_with_http(Box::new(session.clone()));
        let account = builder.from_credentials(credentials).await;
        let account = account.map_err(|error| session.failure(&error, Stage::Account))?;
        Ok((session, account))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("url", &self.url).finish_non_exhaustive()
    }
}

/// External account binding (RFC 8555, section 7.3.4): `eab`, whose key is base64 of the URL-safe kind, with or without its padding.
fn binding(eab: &ExternalAccountBinding) -> Result<ExternalAccountKey, Failure> {
    if eab.kid.is_empty() || eab.hmac_encoded.is_empty() {
        return Err(Failure::new(Kind::Settings, "`eab` needs both `kid` and `hmacEncoded`"));
    }
    let encoded = eab.hmac_encoded.trim();
    let key = URL_SAFE_NO_PAD.decode(encoded).or_else(|_| URL_SAFE.decode(encoded));
    let key = key.map_err(|_| Failure::new(Kind::Settings, "`eab.hmacEncoded` is not base64 of the URL-safe kind"))?;
    Ok(ExternalAccountKey::new(eab.kid.clone(), &key))
}
