//! The provider `rfc2136`: a record is added and deleted by the zone's own name server (RFC 2136). It speaks the DNS and
//! not HTTP, so that it is part of the host and no component.
//!
//! Its variables are lego's, `DNSUPDATE_…` before `RFC2136_…`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::rdata::tsig::TsigError;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use jiff::Timestamp;

use super::address::Address;
use super::exchange::{Reply, Request, Transport};
use super::tsig::{Key, Signed};
use super::{Place, mnemonic, parse};

#[derive(Debug)]
pub(crate) struct Rfc2136 {
    server: Address,
    key: Option<Key>,
    /// In place of what the DNS says of zones.
    zones: Vec<Name>,
    ttl: u32,
    transport: Transport,
    pub propagation_timeout: Duration,
    pub polling_interval: Duration,
}

/// Why a record was not added or deleted.
#[derive(Debug)]
pub(crate) enum UpdateError {
    /// The server says so, or could not be asked: nothing has changed.
    Refused(String),
    /// It may have been, but nobody can tell.
    Unclear(String),
}

enum Change {
    Add,
    Delete,
}

impl Rfc2136 {
    pub(crate) const NAME: &str = "rfc2136";

    /// What it can be told, each also as `…_FILE`.
    pub(crate) const VARIABLES: [&str; 20] = [
        "DNSUPDATE_DNS_TIMEOUT",
        "DNSUPDATE_NAMESERVER",
        "DNSUPDATE_POLLING_INTERVAL",
        "DNSUPDATE_PROPAGATION_TIMEOUT",
        "DNSUPDATE_TSIG_ALGORITHM",
        "DNSUPDATE_TSIG_FILE",
        "DNSUPDATE_TSIG_KEY",
        "DNSUPDATE_TSIG_SECRET",
        "DNSUPDATE_TTL",
        "DNSUPDATE_ZONES",
        "RFC2136_DNS_TIMEOUT",
        "RFC2136_NAMESERVER",
        "RFC2136_POLLING_INTERVAL",
        "RFC2136_PROPAGATION_TIMEOUT",
        "RFC2136_TSIG_ALGORITHM",
        "RFC2136_TSIG_FILE",
        "RFC2136_TSIG_KEY",
        "RFC2136_TSIG_SECRET",
        "RFC2136_TTL",
        "RFC2136_ZONES",
    ];

    pub(crate) fn new(variables: &BTreeMap<String, String>, tcp_only: bool) -> anyhow::Result<Self> {
        let variables = Variables(variables);
        let Some(server) = variables.find("NAMESERVER") else {
            bail!("rfc2136: some credentials information are missing: RFC2136_NAMESERVER");
        };
        let zones = variables.find("ZONES").unwrap_or_default().split(',').map(str::trim);
        let zones = zones.filter(|zone| !zone.is_empty()).map(|zone| parse(&absolute(zone)));
        let ttl = u32::try_from(variables.seconds("TTL", 120).as_secs()).unwrap_or(u32::MAX);
        Ok(Self {
            server: server.parse().context("failed to read `RFC2136_NAMESERVER`")?,
            key: variables.key()?,
            zones: zones.collect::<anyhow::Result<_>>().context("failed to read `RFC2136_ZONES`")?,
            ttl,
            transport: Transport { timeout: variables.seconds("DNS_TIMEOUT", 10), tcp_only },
            propagation_timeout: variables.seconds("PROPAGATION_TIMEOUT", 60),
            polling_interval: variables.seconds("POLLING_INTERVAL", 2),
        })
    }

    /// Adds the record and leaves others of its name alone.
    pub(crate) async fn present(&self, place: &Place, value: &str, now: Timestamp) -> Result<(), UpdateError> {
        self.update(Change::Add, place, value, now).await
    }

    /// Deletes the record and no other. One that is not there is no error.
    pub(crate) async fn cleanup(&self, place: &Place, value: &str, now: Timestamp) -> Result<(), UpdateError> {
        self.update(Change::Delete, place, value, now).await
    }

    async fn update(&self, change: Change, place: &Place, value: &str, now: Timestamp) -> Result<(), UpdateError> {
        let name = parse(&place.fqdn).map_err(refused)?;
        let zone = self.zone(&name, place).map_err(refused)?;
        let mut message = self.message(change, name, zone, value);
        let signed = self.key.as_ref().map(|key| key.sign(&mut message, now)).transpose().map_err(refused)?;
        let request = Request::new(message).map_err(|error| refused(error.into()))?;
        let addresses = self.server.resolve().await;
        let addresses =
            addresses.map_err(|error| refused(anyhow!("`{}` cannot be looked up: {error}", self.server)))?;
        let mut unclear = format!("`{}` has no address", self.server);
        for address in addresses {
            match self.transport.exchange(address, &request).await {
                Ok(reply) => return self.outcome(&reply, signed.as_ref(), place, now),
                Err(trouble) => unclear = format!("`{}` {trouble}", self.server),
            }
        }
        Err(UpdateError::Unclear(unclear))
    }

    /// The longest of the configured zones that holds the name, else what was found.
    fn zone(&self, name: &Name, place: &Place) -> anyhow::Result<Name> {
        let configured = self.zones.iter().filter(|zone| zone.zone_of(name)).max_by_key(|zone| zone.num_labels());
        configured.map_or_else(|| parse(&place.zone), |zone| Ok(zone.clone()))
    }

    fn message(&self, change: Change, name: Name, zone: Name, value: &str) -> Message {
        let mut record = Record::from_rdata(name, self.ttl, RData::TXT(TXT::new(vec![value.to_owned()])));
        if let Change::Delete = change {
            // This one of them (RFC 2136, section 2.5.4).
            record.dns_class = DNSClass::NONE;
            record.ttl = 0;
        }
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        // The zone and the update are where other messages have question and authority.
        message.add_query(Query::query(zone, RecordType::SOA));
        message.add_authority(record);
        message
    }

    fn outcome(
        &self,
        reply: &Reply,
        signed: Option<&Signed>,
        place: &Place,
        now: Timestamp,
    ) -> Result<(), UpdateError> {
        let code = reply.message.metadata.response_code;
        if code != ResponseCode::NoError {
            return Err(UpdateError::Refused(format!("`{}` {}", self.server, self.refusal(reply, place))));
        }
        let (Some(key), Some(signed)) = (&self.key, signed) else {
            return Ok(());
        };
        key.verify(reply, signed, now).map_err(|error| {
            UpdateError::Unclear(format!("the answer of `{}` is not to be trusted: {error}", self.server))
        })
    }

    /// Reads after the server's name.
    fn refusal(&self, reply: &Reply, place: &Place) -> String {
        let Place { fqdn, zone } = place;
        let key = self.key.as_ref().map_or_else(|| "no key".to_owned(), |key| format!("the key `{key}`"));
        // Errors about the key are not signed, and change nothing.
        match reply.message.signature().and_then(|signature| signature.data.error) {
            Some(TsigError::BadKey) => return format!("does not know {key}, or not with this algorithm"),
            Some(TsigError::BadSig) => return format!("has another secret for {key}"),
            Some(TsigError::BadTime) => return "has another time: one of the clocks is wrong".to_owned(),
            _ => {}
        }
        match reply.message.metadata.response_code {
            ResponseCode::NotAuth => format!("does not serve the zone `{zone}`, or not for {key}"),
            ResponseCode::NotZone => format!("says that `{fqdn}` is not within the zone `{zone}`"),
            ResponseCode::Refused => {
                format!("refuses to change `{fqdn}`: its update policy must let {key} change TXT records")
            }
            ResponseCode::NotImp => "does not support dynamic updates".to_owned(),
            code => format!("answers {} to the change of `{fqdn}`", mnemonic(code)),
        }
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(message) | Self::Unclear(message)) = self;
        f.write_str(message)
    }
}

/// By the part of their names that both families share.
struct Variables<'a>(&'a BTreeMap<String, String>);

impl Variables<'_> {
    fn find(&self, name: &str) -> Option<&str> {
        let families = ["DNSUPDATE", "RFC2136"].into_iter();
        let mut values = families.filter_map(|family| self.0.get(&format!("{family}_{name}")));
        values.find(|value| !value.is_empty()).map(String::as_str)
    }

    /// What is no number means the default, as in lego.
    fn seconds(&self, name: &str, default: u64) -> Duration {
        let Some(text) = self.find(name) else {
            return Duration::from_secs(default);
        };
        let seconds = text.trim().parse().unwrap_or_else(|_| {
            tracing::warn!("`RFC2136_{name}` is not a number of seconds: `{text}`; {default} is used");
            default
        });
        Duration::from_secs(seconds)
    }

    fn key(&self) -> anyhow::Result<Option<Key>> {
        if let Some(path) = self.find("TSIG_FILE") {
            let key = key_file(Path::new(path)).with_context(|| format!("failed to read the key file `{path}`"))?;
            return Ok(Some(key));
        }
        match (self.find("TSIG_KEY"), self.find("TSIG_SECRET")) {
            (None, None) => Ok(None),
            (Some(name), Some(secret)) => {
                let algorithm = self.find("TSIG_ALGORITHM").unwrap_or("hmac-sha1");
                Ok(Some(Key::new(name, algorithm, secret).context("failed to read the key of `rfc2136`")?))
            }
            (Some(_), None) => bail!("rfc2136: `RFC2136_TSIG_KEY` has no use without `RFC2136_TSIG_SECRET`"),
            (None, Some(_)) => bail!("rfc2136: `RFC2136_TSIG_SECRET` has no use without `RFC2136_TSIG_KEY`"),
        }
    }
}

/// As `tsig-keygen` writes it: `key "name" { algorithm hmac-sha256; secret "…"; };`
fn key_file(path: &Path) -> anyhow::Result<Key> {
    let text = std::fs::read_to_string(path)?;
    let mut words = text.split(|c: char| c.is_whitespace() || "{};\"".contains(c)).filter(|word| !word.is_empty());
    let (mut name, mut algorithm, mut secret) = (None, None, None);
    while let Some(word) = words.next() {
        match word {
            "key" => name = words.next(),
            "algorithm" => algorithm = words.next(),
            "secret" => secret = words.next(),
            // Its text may be a part of the secret.
            _ => bail!("it is not of the form `key \"name\" {{ algorithm hmac-sha256; secret \"…\"; }};`"),
        }
    }
    match (name, algorithm, secret) {
        (Some(name), Some(algorithm), Some(secret)) => Key::new(name, algorithm, secret),
        _ => bail!("it needs a name, an algorithm and a secret"),
    }
}

fn absolute(zone: &str) -> String {
    format!("{}.", zone.trim_end_matches('.'))
}

fn refused(error: anyhow::Error) -> UpdateError {
    UpdateError::Refused(format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hmac;

    use super::super::server::{DnsServer, How, On};
    use super::*;

    const FQDN: &str = "_acme-challenge.example.com.";
    const SECRET: &str = "c2VjcmV0IGtleQ==";

    fn place() -> Place {
        Place { fqdn: FQDN.to_owned(), zone: "example.com.".to_owned() }
    }

    fn provider(server: &DnsServer, variables: &[(&str, &str)]) -> Rfc2136 {
        let server = server.address().to_string();
        let variables = [("RFC2136_NAMESERVER", server.as_str())].into_iter().chain(variables.iter().copied());
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut provider = Rfc2136::new(&variables, false).expect("variables");
        provider.transport.timeout = Duration::from_secs(2);
        provider
    }

    async fn server() -> DnsServer {
        let server = DnsServer::start().await;
        server.add_zone("example.com", &[]);
        server
    }

    fn new(variables: &[(&str, &str)]) -> anyhow::Result<Rfc2136> {
        Rfc2136::new(&variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(), false)
    }

    #[tokio::test]
    async fn a_record_is_added_and_deleted_and_others_stay() {
        let server = server().await;
        let provider = provider(&server, &[]);
        server.add_txt(FQDN, "other");
        for _ in 0..2 {
            provider.present(&place(), "value", Timestamp::now()).await.expect("added");
            assert_eq!(server.txt(FQDN), ["other", "value"]);
        }
        for _ in 0..2 {
            provider.cleanup(&place(), "value", Timestamp::now()).await.expect("deleted");
            assert_eq!(server.txt(FQDN), ["other"]);
        }
    }

    #[tokio::test]
    async fn updates_are_signed_by_every_algorithm() {
        for (algorithm, digest) in [
            (None, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            (Some("hmac-sha1."), hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
            (Some("hmac-sha224."), hmac::HMAC_SHA224),
            (Some("hmac-sha256."), hmac::HMAC_SHA256),
            (Some("HMAC-SHA384"), hmac::HMAC_SHA384),
            (Some("hmac-sha512"), hmac::HMAC_SHA512),
        ] {
            let server = server().await;
            server.require_key("key.example", digest, b"secret key");
            let mut variables = vec![("DNSUPDATE_TSIG_KEY", "key.example."), ("RFC2136_TSIG_SECRET", SECRET)];
            variables.extend(algorithm.map(|algorithm| ("RFC2136_TSIG_ALGORITHM", algorithm)));
            let provider = provider(&server, &variables);
            provider.present(&place(), "value", Timestamp::now()).await.expect("added");
            assert_eq!(server.txt(FQDN), ["value"], "{algorithm:?}");
        }
    }

    #[tokio::test]
    async fn a_key_file_names_key_algorithm_and_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("example.key");
        std::fs::write(
            &file,
            format!("key \"key.example\" {{\n\talgorithm hmac-sha256;\n\tsecret \"{SECRET}\";\n}};\n"),
        )
        .expect("written");
        let server = server().await;
        server.require_key("key.example", hmac::HMAC_SHA256, b"secret key");
        let provider = provider(&server, &[("RFC2136_TSIG_FILE", file.to_str().expect("UTF-8"))]);
        provider.present(&place(), "value", Timestamp::now()).await.expect("added");
        assert_eq!(server.txt(FQDN), ["value"]);
    }

    #[tokio::test]
    async fn a_refusal_says_what_to_do() {
        for (how, expected) in [
            (How::Answers(ResponseCode::Refused), "its update policy must let no key change TXT records"),
            (How::Answers(ResponseCode::NotAuth), "does not serve the zone `example.com.`"),
            (How::Answers(ResponseCode::NotZone), "is not within the zone `example.com.`"),
            (How::Answers(ResponseCode::NotImp), "does not support dynamic updates"),
            (How::Answers(ResponseCode::ServFail), "answers SERVFAIL to the change"),
        ] {
            let server = server().await;
            server.misbehave(On::Update, how, 1);
            let error = provider(&server, &[]).present(&place(), "value", Timestamp::now()).await.expect_err("refused");
            assert!(matches!(&error, UpdateError::Refused(message) if message.contains(expected)), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_key_is_told() {
        let server = server().await;
        server.require_key("key.example", hmac::HMAC_SHA256, b"secret key");
        for (name, secret, expected) in [
            ("other.example", SECRET, "does not know the key `other.example.`"),
            ("key.example", "b3RoZXI=", "has another secret for the key `key.example.`"),
        ] {
            let variables = [
                ("RFC2136_TSIG_KEY", name),
                ("RFC2136_TSIG_SECRET", secret),
                ("RFC2136_TSIG_ALGORITHM", "hmac-sha256"),
            ];
            let provider = provider(&server, &variables);
            let error = provider.present(&place(), "value", Timestamp::now()).await.expect_err("refused");
            assert!(matches!(&error, UpdateError::Refused(message) if message.contains(expected)), "{error}");
            assert_eq!(server.txt(FQDN), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn an_answer_that_anybody_could_have_given_is_not_trusted() {
        let server = server().await;
        server.require_key("key.example", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"secret key");
        server.misbehave(On::Update, How::Unsigned, 1);
        let provider = provider(&server, &[("RFC2136_TSIG_KEY", "key.example"), ("RFC2136_TSIG_SECRET", SECRET)]);
        let error = provider.present(&place(), "value", Timestamp::now()).await.expect_err("not signed");
        assert!(matches!(&error, UpdateError::Unclear(_)), "{error}");
    }

    #[tokio::test]
    async fn silence_leaves_open_what_has_happened() {
        let server = server().await;
        server.misbehave(On::Update, How::AppliesInSilence, usize::MAX);
        let mut provider = provider(&server, &[]);
        provider.transport.timeout = Duration::from_millis(300);
        let error = provider.present(&place(), "value", Timestamp::now()).await.expect_err("silence");
        assert!(matches!(&error, UpdateError::Unclear(message) if message.contains("does not answer")), "{error}");
    }

    #[tokio::test]
    async fn a_zone_can_be_named() {
        let server = server().await;
        server.add_zone("sub.example.com", &[]);
        let zones = [("RFC2136_ZONES", "example.com, sub.example.com,example.net")];
        let place = Place { fqdn: "a.sub.example.com.".to_owned(), zone: "wrong.example.".to_owned() };
        provider(&server, &zones).present(&place, "value", Timestamp::now()).await.expect("added");
        assert_eq!(server.txt("a.sub.example.com"), ["value"]);
    }

    #[test]
    fn variables_are_read_as_lego_reads_them() {
        let provider = new(&[
            ("RFC2136_NAMESERVER", "ns1.example.com"),
            ("DNSUPDATE_NAMESERVER", "ns2.example.com:5353"),
            ("RFC2136_TTL", "30"),
            ("RFC2136_PROPAGATION_TIMEOUT", "-1"),
            ("RFC2136_POLLING_INTERVAL", "7"),
        ])
        .expect("variables");
        assert_eq!(provider.server.to_string(), "ns2.example.com:5353");
        assert_eq!(provider.ttl, 30);
        assert_eq!((provider.propagation_timeout.as_secs(), provider.polling_interval.as_secs()), (60, 7));
    }

    #[test]
    fn bad_variables_are_named_and_secrets_are_not() {
        let server = ("RFC2136_NAMESERVER", "ns.example.com");
        let (name, secret) = (("RFC2136_TSIG_KEY", "key"), ("RFC2136_TSIG_SECRET", "s3cret!"));
        for (variables, expected) in [
            (vec![], "some credentials information are missing: RFC2136_NAMESERVER"),
            (vec![("RFC2136_NAMESERVER", "")], "some credentials information are missing: RFC2136_NAMESERVER"),
            (vec![("RFC2136_NAMESERVER", "a:b:c:d")], "failed to read `RFC2136_NAMESERVER`"),
            (vec![server, name], "no use without `RFC2136_TSIG_SECRET`"),
            (vec![server, secret], "no use without `RFC2136_TSIG_KEY`"),
            (vec![server, name, secret], "the secret is not base64"),
            (vec![server, name, secret, ("RFC2136_TSIG_ALGORITHM", "hmac-md5.")], "`hmac-md5.` is not one of"),
            (vec![server, ("RFC2136_TSIG_FILE", "/nonexistent")], "failed to read the key file `/nonexistent`"),
        ] {
            let error = format!("{:?}", new(&variables).expect_err(expected));
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let provider = new(&[server, name, ("RFC2136_TSIG_SECRET", SECRET)]).expect("variables");
        assert!(!format!("{provider:?}").contains("c2VjcmV0"));
    }
}
