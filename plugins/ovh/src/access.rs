//! The three ways to authenticate at OVHcloud: three keys and a signature, a client of OAuth 2 (RFC 6749, section 4.4),
//! or a token. Called for each request.

use std::cell::{Cell, RefCell};

use serde::Deserialize;
use sha1::{Digest, Sha1};
use weir_sdk::dns::{Call, Client, Settings, encode, variables};
use weir_sdk::{Error, clock};

/// The API of one region, and how to be let in.
pub(crate) struct Access {
    pub(crate) api: Client,
    way: Way,
}

enum Way {
    Keys {
        secret: String,
        consumer: String,
        /// Seconds by which the clock of OVHcloud is ahead of ours, once it has been asked.
        ahead_s: Cell<Option<i64>>,
    },
    OAuth {
        /// Where tokens are given.
        tokens: Client,
        id: String,
        secret: String,
        granted: RefCell<Option<Token>>,
    },
    /// The API's client has it.
    Token,
}

struct Token {
    text: String,
    /// Milliseconds since 1970.
    expires_ms: u64,
}

/// API and tokens of a region.
const REGIONS: [(&str, &str, &str); 3] = [
    ("ovh-eu", "https://eu.api.ovh.com/1.0", "https://www.ovh.com"),
    ("ovh-ca", "https://ca.api.ovh.com/1.0", "https://ca.ovh.com"),
    ("ovh-us", "https://api.us.ovhcloud.com/1.0", "https://us.ovhcloud.com"),
];

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

/// Seconds before the end in which a token is not used any more.
const MARGIN_S: u64 = 60;

impl Access {
    pub(crate) fn new(endpoint: &str, settings: &Settings) -> Result<Self, Error> {
        let Some((_, api, tokens)) = REGIONS.iter().find(|(name, ..)| *name == endpoint) else {
            return Err(Error::invalid_config(format!(
                "use `{endpoint}` as OVH_ENDPOINT: write `ovh-eu`, `ovh-ca` or `ovh-us`"
            )));
        };
        let api = Client::new(api, settings);
        let any = |names: &[&str]| variables::optional(names).is_some();
        let keys = any(&["OVH_APPLICATION_KEY", "OVH_APPLICATION_SECRET", "OVH_CONSUMER_KEY"]);
        let oauth = any(&["OVH_CLIENT_ID", "OVH_CLIENT_SECRET"]);
        match (keys, oauth, variables::optional(&["OVH_ACCESS_TOKEN"])) {
            (_, false, None) => Self::with_keys(api),
            (false, true, None) => Self::with_oauth(api, Client::new(tokens, settings)),
            (false, false, Some(token)) => {
                Ok(Self { api: api.authorization("Bearer", "OVH_ACCESS_TOKEN", &token)?, way: Way::Token })
            }
            _ => Err(Error::invalid_config(
                "choose how to authenticate: set OVH_APPLICATION_KEY and what belongs to it, or OVH_CLIENT_ID with \
                 OVH_CLIENT_SECRET, or OVH_ACCESS_TOKEN, and no two of them",
            )),
        }
    }

    fn with_keys(api: Client) -> Result<Self, Error> {
        let names = ["OVH_APPLICATION_KEY", "OVH_APPLICATION_SECRET", "OVH_CONSUMER_KEY"];
        let [application, secret, consumer] = variables::required(names)?;
        let api = api.credential("x-ovh-application", names[0], &application)?.secret(names[1], &secret);
        let api = api.credential("x-ovh-consumer", names[2], &consumer)?;
        Ok(Self { api, way: Way::Keys { secret, consumer, ahead_s: Cell::new(None) } })
    }

    fn with_oauth(api: Client, tokens: Client) -> Result<Self, Error> {
        let [id, secret] = variables::required(["OVH_CLIENT_ID", "OVH_CLIENT_SECRET"])?;
        let tokens = tokens.secret("OVH_CLIENT_SECRET", &secret);
        Ok(Self { api, way: Way::OAuth { tokens, id, secret, granted: RefCell::new(None) } })
    }

    /// Adds what the request has to carry.
    pub(crate) fn authenticate<'a>(&'a self, call: Call<'a>) -> Result<Call<'a>, Error> {
        match &self.way {
            Way::Token => Ok(call),
            Way::Keys { secret, consumer, ahead_s } => {
                let timestamp = self.timestamp(ahead_s)?;
                let signature = signature(secret, consumer, &call, &timestamp);
                Ok(call.header("x-ovh-timestamp", &timestamp).header("x-ovh-signature", &signature))
            }
            Way::OAuth { tokens, id, secret, granted } => {
                let now_ms = clock::unix_ms();
                if granted.borrow().as_ref().is_none_or(|token| token.expires_ms <= now_ms) {
                    granted.replace(Some(grant(tokens, id, secret, now_ms)?));
                }
                let granted = granted.borrow();
                let token = granted.as_ref().map_or("", |token| &token.text);
                Ok(call.header("authorization", &format!("Bearer {token}")))
            }
        }
    }

    /// Seconds since 1970 by the clock of OVHcloud, which refuses other times.
    fn timestamp(&self, ahead_s: &Cell<Option<i64>>) -> Result<String, Error> {
        let now_s = i64::try_from(clock::unix_ms() / 1_000).unwrap_or(i64::MAX);
        let ahead = match ahead_s.get() {
            Some(ahead) => ahead,
            None => self.api.get(&["auth", "time"]).send()?.json::<i64>()?.saturating_sub(now_s),
        };
        ahead_s.set(Some(ahead));
        Ok(now_s.saturating_add(ahead).to_string())
    }
}

/// The first version, and the only one there is.
fn signature(secret: &str, consumer: &str, call: &Call<'_>, timestamp: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(format!("{secret}+{consumer}+{}+{}+", call.method(), call.url()));
    sha1.update(call.content());
    sha1.update(format!("+{timestamp}"));
    let hex: String = sha1.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("$1${hex}")
}

fn grant(tokens: &Client, id: &str, secret: &str, now_ms: u64) -> Result<Token, Error> {
    let form =
        format!("grant_type=client_credentials&scope=all&client_id={}&client_secret={}", encode(id), encode(secret));
    let call = tokens.post(&["auth", "oauth2", "token"]);
    let granted: Granted = call.body("application/x-www-form-urlencoded", form.into_bytes()).send()?.json()?;
    let lifetime_s = granted.expires_in.saturating_sub(MARGIN_S);
    Ok(Token { text: granted.access_token, expires_ms: now_ms.saturating_add(lifetime_s.saturating_mul(1_000)) })
}
