//! `cloudflare`: TXT records by the API of Cloudflare. A token for the records may have another one beside it that reads
//! the list of zones; the global key of an account does both.

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{Challenge, Client, DnsProvider, Settings, Timing, txt, variables};
use weir_sdk::{About, Error, ErrorKind, Secret};

/// Records that are asked for at a time.
const PER_PAGE: usize = 100;

/// Nobody has so many records of one name: an API that always has one more page is ill.
const MOST_PAGES: u32 = 20;

/// What Cloudflare takes, but for `automatic`.
const LEAST_TTL: u32 = 120;

/// One account.
pub struct Cloudflare {
    zones: Client,
    records: Client,
    ttl: u32,
}

/// Who asks.
enum Credentials {
    Tokens { records: String, zones: Option<String> },
    Key { email: String, key: String },
}

/// Each answer has its content in here.
#[derive(Deserialize)]
struct Envelope<T> {
    result: T,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
}

#[derive(Deserialize)]
struct Record {
    id: String,
    content: String,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    name: &'a str,
    /// In quotes: without them Cloudflare adds some, and warns.
    content: String,
    ttl: u32,
}

impl DnsProvider for Cloudflare {
    const ABOUT: About = weir_sdk::about!("cloudflare")
        .secrets(&[
            Secret::optional("CLOUDFLARE_DNS_API_TOKEN"),
            Secret::optional("CF_DNS_API_TOKEN"),
            Secret::optional("CLOUDFLARE_ZONE_API_TOKEN"),
            Secret::optional("CF_ZONE_API_TOKEN"),
            Secret::optional("CLOUDFLARE_EMAIL"),
            Secret::optional("CF_API_EMAIL"),
            Secret::optional("CLOUDFLARE_API_KEY"),
            Secret::optional("CF_API_KEY"),
            Secret::url("CLOUDFLARE_BASE_URL"),
        ])
        .settings(&["CLOUDFLARE", "CF"])
        .origins(&["https://api.cloudflare.com"]);

    fn init() -> Result<(Self, Timing), Error> {
        let base = variables::url("CLOUDFLARE_BASE_URL", "https://api.cloudflare.com/client/v4")?;
        let settings = Settings { ttl: LEAST_TTL, propagation_timeout_s: 120, ..Settings::DEFAULT };
        let settings = settings.read(&Self::ABOUT).with_ttl_of_at_least(LEAST_TTL, &Self::ABOUT)?;
        let client = || Client::new(&base, &settings);
        let with_token = |variable, token: &str| client().authorization("Bearer", variable, token);
        let with_key = |email: &str, key: &str| {
            client().header("x-auth-email", email, "CLOUDFLARE_EMAIL")?.credential(
                "x-auth-key",
                "CLOUDFLARE_API_KEY",
                key,
            )
        };
        let (zones, records) = match Credentials::read()? {
            Credentials::Tokens { records, zones: Some(zones) } => {
                (with_token("CLOUDFLARE_ZONE_API_TOKEN", &zones)?, with_token("CLOUDFLARE_DNS_API_TOKEN", &records)?)
            }
            Credentials::Tokens { records, zones: None } => {
                (with_token("CLOUDFLARE_DNS_API_TOKEN", &records)?, with_token("CLOUDFLARE_DNS_API_TOKEN", &records)?)
            }
            Credentials::Key { email, key } => (with_key(&email, &key)?, with_key(&email, &key)?),
        };
        Ok((Self { zones, records, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let zone = self.zone(challenge)?;
        if let Some(id) = self.find(&zone, challenge)? {
            return Ok(id);
        }
        let content = txt::quote(&challenge.value);
        let record = NewRecord { kind: "TXT", name: challenge.name(), content, ttl: self.ttl };
        let created = self.records.post(&["zones", &zone, "dns_records"]).json(&record).send()?;
        Ok(created.json::<Envelope<Record>>()?.result.id)
    }

    fn cleanup(&self, challenge: &Challenge, handle: &str) -> Result<(), Error> {
        let zone = self.zone(challenge)?;
        let found = if handle.is_empty() { self.find(&zone, challenge)? } else { Some(handle.to_owned()) };
        if let Some(id) = found {
            self.records.delete(&["zones", &zone, "dns_records", &id]).send()?;
        }
        Ok(())
    }
}

weir_sdk::export_dns_provider!(Cloudflare);

impl Credentials {
    /// The key goes before tokens, as in lego.
    fn read() -> Result<Self, Error> {
        let email = variables::optional(&["CLOUDFLARE_EMAIL", "CF_API_EMAIL"]);
        let key = variables::optional(&["CLOUDFLARE_API_KEY", "CF_API_KEY"]);
        if let (Some(email), Some(key)) = (email, key) {
            return Ok(Self::Key { email, key });
        }
        let Some(records) = variables::optional(&["CLOUDFLARE_DNS_API_TOKEN", "CF_DNS_API_TOKEN"]) else {
            let missing = variables::missing(&["CLOUDFLARE_DNS_API_TOKEN"]).message;
            return Err(Error::invalid_config(format!(
                "{missing} (or else CLOUDFLARE_EMAIL,CLOUDFLARE_API_KEY; each with CF_ for CLOUDFLARE_ too)"
            )));
        };
        let zones = variables::optional(&["CLOUDFLARE_ZONE_API_TOKEN", "CF_ZONE_API_TOKEN"]);
        Ok(Self::Tokens { records, zones })
    }
}

impl Cloudflare {
    fn zone(&self, challenge: &Challenge) -> Result<String, Error> {
        let name = challenge.zone_name();
        let answer = self.zones.get(&["zones"]).query("name", name).query("per_page", "50").send()?;
        let mut zones = answer.json::<Envelope<Vec<Zone>>>()?.result;
        match (zones.pop(), zones.len()) {
            (Some(zone), 0) => Ok(zone.id),
            (Some(_), _) => Err(Error::new(
                ErrorKind::Conflict,
                format!("choose a zone: `{name}` is one of several accounts; use a token of one account alone"),
            )),
            (None, _) => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "find the zone `{name}`: the token sees none of that name; it needs Zone:Read and DNS:Edit there"
                ),
            )),
        }
    }

    /// The identifier of the record with this name and value.
    fn find(&self, zone: &str, challenge: &Challenge) -> Result<Option<String>, Error> {
        for page in 1..=MOST_PAGES {
            let call = self.records.get(&["zones", zone, "dns_records"]);
            let call = call.query("type", "TXT").query("name", challenge.name());
            let call = call.query("per_page", &PER_PAGE.to_string()).query("page", &page.to_string());
            let records = call.send()?.json::<Envelope<Vec<Record>>>()?.result;
            let full = records.len() == PER_PAGE;
            if let Some(record) = records.into_iter().find(|record| txt::unquote(&record.content) == challenge.value) {
                return Ok(Some(record.id));
            }
            if !full {
                break;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const API: &str = "https://api.cloudflare.com/client/v4";
    const ZONE: &str = "023e105f4ecef8ad9ca31a8372d0c353";

    fn host() -> Host {
        Host::of::<Cloudflare>(&[("CF_DNS_API_TOKEN", "secret-token")])
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn zones(host: &Host, zones: Value) {
        let answer = json!({"success": true, "errors": [], "messages": [], "result": zones});
        host.expect("GET", &format!("{API}/zones?name=example.com&per_page=50")).answer(200, answer);
    }

    fn one_zone(host: &Host) {
        zones(host, json!([{"id": ZONE, "name": "example.com", "status": "active"}]));
    }

    fn list(host: &Host, page: u32, records: &[Value]) {
        let query = format!("type=TXT&name=_acme-challenge.www.example.com&per_page=100&page={page}");
        host.expect("GET", &format!("{API}/zones/{ZONE}/dns_records?{query}"))
            .answer(200, json!({"success": true, "result": records}));
    }

    fn record(id: &str, value: &str) -> Value {
        json!({"id": id, "type": "TXT", "name": "_acme-challenge.www.example.com", "content": format!("\"{value}\"")})
    }

    fn refusal(code: u32, message: &str) -> Value {
        json!({"success": false, "errors": [{"code": code, "message": message}], "messages": [], "result": null})
    }

    #[test]
    fn adds_a_record_and_answers_its_identifier() {
        let host = host();
        one_zone(&host);
        list(&host, 1, &[record("other", "another value")]);
        host.expect("POST", &format!("{API}/zones/{ZONE}/dns_records"))
            .header("authorization", "Bearer secret-token")
            .json(json!({
                "type": "TXT",
                "name": "_acme-challenge.www.example.com",
                "content": format!("\"{VALUE}\""),
                "ttl": 120,
            }))
            .answer(200, json!({"success": true, "result": record("372e6795", VALUE)}));
        assert_eq!(host.present::<Cloudflare>(&www()).as_deref(), Ok("372e6795"));
    }

    #[test]
    fn takes_a_record_that_exists() {
        let host = host();
        one_zone(&host);
        let others: Vec<Value> = (0..100).map(|id| record(&id.to_string(), "another value")).collect();
        list(&host, 1, &others);
        list(&host, 2, &[record("372e6795", VALUE)]);
        assert_eq!(host.present::<Cloudflare>(&www()).as_deref(), Ok("372e6795"));
    }

    #[test]
    fn one_token_may_see_the_zones_and_another_one_the_records() {
        let tokens = [("CLOUDFLARE_DNS_API_TOKEN", "records"), ("CF_ZONE_API_TOKEN", "zones")];
        let host = Host::of::<Cloudflare>(&tokens);
        host.expect("GET", &format!("{API}/zones?name=example.com&per_page=50"))
            .header("authorization", "Bearer zones")
            .answer(200, json!({"result": [{"id": ZONE}]}));
        host.expect("DELETE", &format!("{API}/zones/{ZONE}/dns_records/372e6795"))
            .header("authorization", "Bearer records")
            .answer(200, json!({"result": {"id": "372e6795"}}));
        assert_eq!(host.cleanup::<Cloudflare>(&www(), "372e6795"), Ok(()));
    }

    #[test]
    fn the_global_key_goes_before_tokens() {
        let host = Host::of::<Cloudflare>(&[
            ("CF_API_EMAIL", "a@example.com"),
            ("CF_API_KEY", "key"),
            ("CF_DNS_API_TOKEN", "t"),
        ]);
        host.expect("GET", &format!("{API}/zones?name=example.com&per_page=50"))
            .header("x-auth-email", "a@example.com")
            .header("x-auth-key", "key")
            .answer(403, refusal(9103, "Unknown X-Auth-Key or X-Auth-Email"));
        let error = host.present::<Cloudflare>(&www()).expect_err("the key is refused");
        assert_eq!(error.kind, ErrorKind::Unauthorized);
        assert!(error.message.ends_with("`Unknown X-Auth-Key or X-Auth-Email`; check CLOUDFLARE_API_KEY"), "{error:?}");
    }

    #[test]
    fn says_what_is_wrong_with_a_token() {
        let host = host();
        host.expect("GET", &format!("{API}/zones?name=example.com&per_page=50"))
            .answer(401, refusal(1000, "Invalid API Token"));
        let error = host.present::<Cloudflare>(&www()).expect_err("the token is refused");
        let expected = "GET https://api.cloudflare.com/client/v4/zones: status 401: `Invalid API Token`; check \
                        CLOUDFLARE_DNS_API_TOKEN";
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_the_token_does_not_see() {
        let host = host();
        zones(&host, json!([]));
        let error = host.present::<Cloudflare>(&www()).expect_err("there is no such zone");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.contains("`example.com`"), "{error:?}");
        zones(&host, json!([{"id": "a"}, {"id": "b"}]));
        let error = host.present::<Cloudflare>(&www()).expect_err("there are two");
        assert_eq!(error.kind, ErrorKind::Conflict);
    }

    #[test]
    fn waits_where_it_is_too_fast_and_where_cloudflare_is_ill() {
        let host = host();
        let url = format!("{API}/zones?name=example.com&per_page=50");
        let busy = refusal(10000, "Rate limited").to_string();
        host.expect("GET", &url).answer_with(429, &[("retry-after", "7")], &busy);
        host.expect("GET", &url).answer_with(502, &[], "<html>Bad gateway</html>");
        one_zone(&host);
        list(&host, 1, &[record("372e6795", VALUE)]);
        assert_eq!(host.present::<Cloudflare>(&www()).as_deref(), Ok("372e6795"));
        assert_eq!(host.slept_ms(), 9_000);
    }

    #[test]
    fn deletes_by_name_and_value_where_the_identifier_is_lost() {
        let host = host();
        one_zone(&host);
        list(&host, 1, &[record("other", "another value"), record("372e6795", VALUE)]);
        host.expect("DELETE", &format!("{API}/zones/{ZONE}/dns_records/372e6795")).answer(200, json!({"result": {}}));
        assert_eq!(host.cleanup::<Cloudflare>(&www(), ""), Ok(()));
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = host();
        one_zone(&host);
        host.expect("DELETE", &format!("{API}/zones/{ZONE}/dns_records/372e6795"))
            .answer(404, refusal(81044, "Record does not exist."));
        assert_eq!(host.cleanup::<Cloudflare>(&www(), "372e6795"), Ok(()));
        one_zone(&host);
        list(&host, 1, &[]);
        assert_eq!(host.cleanup::<Cloudflare>(&www(), ""), Ok(()));
    }

    #[test]
    fn the_address_of_the_api_can_be_another_one() {
        let variables = [("CF_DNS_API_TOKEN", "t"), ("CLOUDFLARE_BASE_URL", "http://127.0.0.1:8080")];
        let host = Host::of::<Cloudflare>(&variables);
        host.expect("GET", "http://127.0.0.1:8080/zones?name=example.com&per_page=50")
            .answer(200, json!({"result": []}));
        assert!(host.present::<Cloudflare>(&www()).is_err());
    }

    #[test]
    fn says_which_variables_are_missing_or_wrong() {
        let missing = "some credentials information are missing: CLOUDFLARE_DNS_API_TOKEN (or else \
                       CLOUDFLARE_EMAIL,CLOUDFLARE_API_KEY; each with CF_ for CLOUDFLARE_ too)";
        let short = "use `60` as CLOUDFLARE_TTL: write 120 or more";
        for (variables, expected) in [
            (&[][..], missing),
            (&[("CF_API_KEY", "without an email")], missing),
            (&[("CF_DNS_API_TOKEN", "t"), ("CF_TTL", "60")], short),
        ] {
            let host = Host::of::<Cloudflare>(variables);
            let error = host.init::<Cloudflare>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<Cloudflare>().expect("the token is there");
        assert_eq!(timing, Timing { propagation_timeout_s: 120, polling_interval_s: 2, sequential: false });
    }
}
