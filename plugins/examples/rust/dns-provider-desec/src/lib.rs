//! `desec`: TXT records by the API of deSEC, which has the values of a name as one set: they are read, changed and
//! written. A set without values is none.

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{Challenge, Client, DnsProvider, Settings, Timing, txt, variables};
use weir_sdk::{About, Error, ErrorKind, Secret};

/// One account.
pub struct Desec {
    api: Client,
    ttl: u32,
}

#[derive(Deserialize)]
struct Found {
    ttl: u32,
    /// In quotes.
    records: Vec<String>,
}

#[derive(Serialize)]
struct Change<'a> {
    subname: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    ttl: u32,
    records: Vec<String>,
}

impl DnsProvider for Desec {
    const ABOUT: About = weir_sdk::about!("desec")
        .secrets(&[Secret::required("DESEC_TOKEN")])
        .settings(&["DESEC"])
        .origins(&["https://desec.io"]);

    fn init() -> Result<(Self, Timing), Error> {
        let [token] = variables::required(["DESEC_TOKEN"])?;
        let defaults = Settings { ttl: 3600, propagation_timeout_s: 120, polling_interval_s: 4, ..Settings::DEFAULT };
        let settings = defaults.read(&Self::ABOUT);
        let api = Client::new("https://desec.io/api/v1", &settings).authorization("Token", "DESEC_TOKEN", &token)?;
        Ok((Self { api, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let mut set = self.read(challenge)?;
        let value = txt::quote(&challenge.value);
        if !set.records.contains(&value) {
            set.records.push(value);
            self.write(challenge, set).map_err(|error| challenge.explain_zone(error))?;
        }
        Ok(String::new())
    }

    fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
        let mut set = self.read(challenge)?;
        let before = set.records.len();
        set.records.retain(|record| txt::unquote(record) != challenge.value);
        if set.records.len() == before { Ok(()) } else { self.write(challenge, set) }
    }
}

weir_sdk::export_dns_provider!(Desec);

impl Desec {
    fn read(&self, challenge: &Challenge) -> Result<Found, Error> {
        let path = ["domains", challenge.zone_name(), "rrsets", challenge.relative_name("@"), "TXT", ""];
        match self.api.get(&path).send() {
            Ok(answer) => answer.json(),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Found { ttl: self.ttl, records: Vec::new() }),
            Err(error) => Err(error),
        }
    }

    /// Makes, changes or deletes the set: what the API calls a bulk operation does not care which.
    fn write(&self, challenge: &Challenge, set: Found) -> Result<(), Error> {
        let change = Change { subname: challenge.relative_name(""), kind: "TXT", ttl: set.ttl, records: set.records };
        self.api.patch(&["domains", challenge.zone_name(), "rrsets", ""]).json(&[change]).send()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const SETS: &str = "https://desec.io/api/v1/domains/example.com/rrsets/";

    fn host() -> Host {
        Host::of::<Desec>(&[("DESEC_TOKEN", "secret-token")])
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn read(host: &Host, status: u16, answer: Value) {
        host.expect("GET", &format!("{SETS}_acme-challenge.www/TXT/"))
            .header("authorization", "Token secret-token")
            .answer(status, answer);
    }

    fn write(host: &Host, ttl: u32, records: Value) {
        host.expect("PATCH", SETS)
            .json(json!([{"subname": "_acme-challenge.www", "type": "TXT", "ttl": ttl, "records": records}]))
            .answer(200, json!([]));
    }

    #[test]
    fn adds_a_set_where_there_is_none() {
        let host = host();
        read(&host, 404, json!({"detail": "Not found."}));
        write(&host, 3600, json!([txt::quote(VALUE)]));
        assert_eq!(host.present::<Desec>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn keeps_other_values_and_takes_one_that_exists() {
        let host = host();
        read(&host, 200, json!({"ttl": 7200, "records": ["\"another value\""]}));
        write(&host, 7200, json!(["\"another value\"", txt::quote(VALUE)]));
        assert_eq!(host.present::<Desec>(&www()).as_deref(), Ok(""));
        read(&host, 200, json!({"ttl": 7200, "records": ["\"another value\"", txt::quote(VALUE)]}));
        assert_eq!(host.present::<Desec>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn removes_its_value_and_with_the_last_one_the_set() {
        let host = host();
        read(&host, 200, json!({"ttl": 7200, "records": [txt::quote(VALUE)]}));
        write(&host, 7200, json!([]));
        assert_eq!(host.cleanup::<Desec>(&www(), ""), Ok(()));
        read(&host, 404, json!({"detail": "Not found."}));
        assert_eq!(host.cleanup::<Desec>(&www(), ""), Ok(()));
    }

    #[test]
    fn waits_as_long_as_desec_wants_and_says_which_token_it_refuses() {
        let host = host();
        host.expect("GET", &format!("{SETS}_acme-challenge.www/TXT/")).answer_with(
            429,
            &[("retry-after", "6")],
            r#"{"detail": "Request was throttled. Expected available in 6 seconds."}"#,
        );
        read(&host, 401, json!({"detail": "Invalid token."}));
        let error = host.present::<Desec>(&www()).expect_err("the token is refused");
        assert_eq!((error.kind, host.slept_ms()), (ErrorKind::Unauthorized, 6_000));
        assert!(error.message.ends_with("status 401: `Invalid token.`; check DESEC_TOKEN"), "{error:?}");
    }
}
