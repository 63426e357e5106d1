//! The format of `acme.json`: an object for each resolver, with an account and a list of certificates.
//!
//! Keys are read in any case, as Go does, and written in Traefik's case and order; whatever else there is stays. Weir's own
//! account has a key of its own, as its keys are of a kind that Traefik cannot read; Traefik's account is left alone.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};

use super::json::{Json, Object};
use super::stored::Stored;
use crate::acme::name::Identity;

/// In the order of the file.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Document(Object);

/// An account of Weir's at an authority.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Account {
    /// The URL of the authority's directory.
    pub(crate) directory: String,
    /// JSON with the account's URL and its private key.
    pub(crate) credentials: String,
}

impl Document {
    /// Reads a file's content, with a sentence for each entry that is left out.
    ///
    /// # Errors
    ///
    /// Words about the file.
    pub(super) fn parse(content: &[u8]) -> Result<(Self, Vec<String>), String> {
        if content.trim_ascii().is_empty() {
            return Ok((Self::default(), Vec::new()));
        }
        let mut resolvers = match Json::parse(content) {
            Ok(Json::Object(resolvers)) => resolvers,
            Ok(Json::Null) => Object::default(),
            Ok(_) => return Err("it holds no object with resolvers".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let mut left_out = Vec::new();
        for (name, value) in resolvers.members_mut() {
            if let Json::Object(resolver) = value {
                normalise(name, resolver, &mut left_out)?;
            }
        }
        Ok((Self(resolvers), left_out))
    }

    pub(super) fn to_text(&self) -> String {
        Json::Object(self.0.clone()).to_text()
    }

    pub(super) fn resolvers(&self) -> impl Iterator<Item = &str> {
        self.0.members().map(|(name, _)| name)
    }

    /// Each certificate, or a sentence about one that cannot be used.
    pub(super) fn certificates(&self, resolver: &str) -> impl Iterator<Item = Result<Stored, String>> {
        self.entries(resolver).iter().filter_map(entry_object).map(move |entry| {
            let Domain { main, sans } = Domain::of(entry);
            let about = |reason: String| {
                format!("the certificate of `{main}` of resolver `{resolver}` is ordered anew: {reason}")
            };
            let chain = decoded(entry, CERTIFICATE).ok_or_else(|| about("its chain is no text".to_owned()))?;
            let key = decoded(entry, KEY).ok_or_else(|| about("its key is no text".to_owned()))?;
            Stored::parse(main.clone(), sans, chain, key).map_err(about)
        })
    }

    pub(super) fn put(&mut self, resolver: &str, certificate: &Stored) {
        let identity = certificate.identity();
        let mut entries = self.entries(resolver).to_vec();
        let place = entries.iter().position(|entry| is_of(entry, &identity));
        let old = place.map_or(Json::Null, |place| std::mem::replace(&mut entries[place], Json::Null));
        let new = with_certificate(old, certificate);
        match place {
            Some(place) => entries[place] = new,
            None => entries.push(new),
        }
        // Of several for the same names the first has just been replaced.
        let mut at = 0..;
        let kept = place.unwrap_or(entries.len() - 1);
        entries.retain(|entry| at.next() == Some(kept) || !is_of(entry, &identity));
        self.resolver_mut(resolver).set(CERTIFICATES, Json::Array(entries));
    }

    pub(super) fn remove(&mut self, resolver: &str, certificate: &Identity) {
        let mut entries = self.entries(resolver).to_vec();
        let before = entries.len();
        entries.retain(|entry| !is_of(entry, certificate));
        if entries.len() < before {
            let entries = if entries.is_empty() { Json::Null } else { Json::Array(entries) };
            self.resolver_mut(resolver).set(CERTIFICATES, entries);
        }
    }

    pub(super) fn account(&self, resolver: &str) -> Option<Account> {
        let Json::Object(resolver) = self.0.find(resolver)? else { return None };
        let Json::Object(account) = resolver.find(OWN_ACCOUNT)? else { return None };
        let directory = account.find("directory")?.as_str()?.to_owned();
        let credentials = serde_json::to_string(account.find("credentials")?).ok()?;
        Some(Account { directory, credentials })
    }

    pub(super) fn set_account(&mut self, resolver: &str, account: Option<&Account>) {
        let resolver = self.resolver_mut(resolver);
        resolver.take(OWN_ACCOUNT);
        let Some(Account { directory, credentials }) = account else { return };
        let credentials = Json::parse(credentials.as_bytes()).unwrap_or_else(|_| Json::string(credentials.as_str()));
        let account = [("directory", Json::string(directory.as_str())), ("credentials", credentials)];
        resolver.set(OWN_ACCOUNT, Json::Object(account.into()));
    }

    fn entries(&self, resolver: &str) -> &[Json] {
        match self.0.find(resolver) {
            Some(Json::Object(resolver)) => match resolver.find(CERTIFICATES) {
                Some(Json::Array(entries)) => entries,
                _ => &[],
            },
            _ => &[],
        }
    }

    fn resolver_mut(&mut self, name: &str) -> &mut Object {
        if !matches!(self.0.find(name), Some(Json::Object(_))) {
            let empty = [(ACCOUNT, Json::Null), (CERTIFICATES, Json::Null)];
            // Go writes the keys of maps in their order.
            self.0.set_sorted(name, Json::Object(empty.into()));
        }
        match self.0.find_mut(name) {
            Some(Json::Object(resolver)) => resolver,
            _ => unreachable!("an object has just been put there"),
        }
    }
}

/// Without the key.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("directory", &self.directory).finish_non_exhaustive()
    }
}

const ACCOUNT: &str = "Account";
const CERTIFICATES: &str = "Certificates";
const OWN_ACCOUNT: &str = "WeirAccount";
const DOMAIN: &str = "domain";
const MAIN: &str = "main";
const SANS: &str = "sans";
const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
const STORE: &str = "Store";
const DEFAULT_STORE: &str = "default";

/// Go's decoder takes line breaks and wants padding; it costs nothing to do without.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Puts the keys that Traefik knows into its case and order, and leaves out entries that it could not read.
fn normalise(name: &str, resolver: &mut Object, left_out: &mut Vec<String>) -> Result<(), String> {
    let account = resolver.take(ACCOUNT).unwrap_or(Json::Null);
    let certificates = match resolver.take(CERTIFICATES) {
        None | Some(Json::Null) => Json::Null,
        Some(Json::Array(entries)) => {
            let normal = entries.into_iter().filter_map(|entry| match normal_entry(entry) {
                Ok(entry) => Some(entry),
                Err(problem) => {
                    left_out.push(format!("an entry of resolver `{name}` is left out: {problem}"));
                    None
                }
            });
            Json::Array(normal.collect())
        }
        Some(_) => return Err(format!("the certificates of resolver `{name}` are no list")),
    };
    let rest = std::mem::replace(resolver, [(ACCOUNT, account), (CERTIFICATES, certificates)].into());
    resolver.append(rest);
    Ok(())
}

fn normal_entry(entry: Json) -> Result<Json, String> {
    let Json::Object(mut entry) = entry else { return Err("it is no object".to_owned()) };
    let domain = match entry.take(DOMAIN) {
        Some(Json::Object(domain)) => normal_domain(domain)?,
        _ => return Err("it has no domain".to_owned()),
    };
    let main = domain.find(MAIN).and_then(Json::as_str).unwrap_or_default().to_owned();
    let mut normal = Object::from([(DOMAIN, Json::Object(domain))]);
    for key in [CERTIFICATE, KEY] {
        let value = entry.take(key).filter(|value| value.as_str().is_some_and(|text| !text.is_empty()));
        let value = value.ok_or_else(|| format!("that of `{main}` has no {key}"))?;
        normal.set(key, value);
        decoded(&normal, key).ok_or_else(|| format!("the {key} of `{main}` is no base64"))?;
    }
    normal.set(STORE, entry.take(STORE).unwrap_or_else(|| Json::string(DEFAULT_STORE)));
    normal.append(entry);
    Ok(Json::Object(normal))
}

fn normal_domain(mut domain: Object) -> Result<Object, String> {
    let main = domain.take(MAIN).filter(|main| main.as_str().is_some_and(|main| !main.is_empty()));
    let sans = match domain.take(SANS) {
        Some(Json::Array(sans)) if sans.iter().any(|san| san.as_str().is_none()) => {
            return Err("one of its names is no text".to_owned());
        }
        Some(Json::Array(sans)) if !sans.is_empty() => Some(Json::Array(sans)),
        _ => None,
    };
    if main.is_none() && sans.is_none() {
        return Err("it has no name".to_owned());
    }
    let mut normal = Object::default();
    for (key, value) in [(MAIN, main), (SANS, sans)] {
        if let Some(value) = value {
            normal.set(key, value);
        }
    }
    normal.append(domain);
    Ok(normal)
}

/// An entry with its certificate replaced; what else it had stays.
fn with_certificate(entry: Json, certificate: &Stored) -> Json {
    let mut entry = match entry {
        Json::Object(entry) => entry,
        _ => Object::default(),
    };
    let mut domain = match entry.take(DOMAIN) {
        Some(Json::Object(domain)) => domain,
        _ => Object::default(),
    };
    domain.take(MAIN);
    domain.take(SANS);
    let mut new_domain = Object::from([(MAIN, Json::string(certificate.main.as_str()))]);
    if !certificate.sans.is_empty() {
        let sans = certificate.sans.iter().map(|san| Json::string(san.as_str()));
        new_domain.set(SANS, Json::Array(sans.collect()));
    }
    new_domain.append(domain);
    entry.take(CERTIFICATE);
    entry.take(KEY);
    let store = entry.take(STORE).unwrap_or_else(|| Json::string(DEFAULT_STORE));
    let mut new = Object::from([
        (DOMAIN, Json::Object(new_domain)),
        (CERTIFICATE, Json::string(STANDARD.encode(&certificate.chain))),
        (KEY, Json::string(STANDARD.encode(&certificate.key))),
        (STORE, store),
    ]);
    new.append(entry);
    Json::Object(new)
}

fn entry_object(entry: &Json) -> Option<&Object> {
    match entry {
        Json::Object(entry) => Some(entry),
        _ => None,
    }
}

fn is_of(entry: &Json, identity: &Identity) -> bool {
    entry_object(entry).is_some_and(|entry| Domain::of(entry).identity() == *identity)
}

fn decoded(entry: &Object, key: &str) -> Option<String> {
    let text: String = entry.find(key)?.as_str()?.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    String::from_utf8(LENIENT.decode(text).ok()?).ok()
}

/// The names under which an entry is kept.
struct Domain {
    main: String,
    sans: Vec<String>,
}

impl Domain {
    fn of(entry: &Object) -> Self {
        let Some(Json::Object(domain)) = entry.find(DOMAIN) else {
            return Self { main: String::new(), sans: Vec::new() };
        };
        let main = domain.find(MAIN).and_then(Json::as_str).map(str::to_owned);
        let sans = match domain.find(SANS) {
            Some(Json::Array(sans)) => sans.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        let mut names = main.into_iter().chain(sans);
        Self { main: names.next().unwrap_or_default(), sans: names.collect() }
    }

    fn identity(&self) -> Identity {
        Identity::of_texts([&self.main].into_iter().chain(&self.sans))
    }
}
