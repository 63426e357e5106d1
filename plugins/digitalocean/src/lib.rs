//! `digitalocean`: TXT records by the API of DigitalOcean. The shortest of the DNS providers that find a record by its
//! number, and so the one to copy first.

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{Challenge, Client, DnsProvider, Settings, Timing, variables};
use weir_sdk::{About, Error, Secret};

/// The most that the API gives at a time.
const PER_PAGE: usize = 200;

/// Nobody has so many records of one name: an API that always has one more page is ill.
const MOST_PAGES: u32 = 20;

/// One account.
pub struct DigitalOcean {
    api: Client,
    ttl: u32,
}

#[derive(Serialize)]
struct NewRecord<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// Absolute, with the final dot: other names are taken as relative to the zone.
    name: &'a str,
    data: &'a str,
    ttl: u32,
}

#[derive(Deserialize)]
struct Created {
    domain_record: Record,
}

#[derive(Deserialize)]
struct Records {
    domain_records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    id: u64,
    data: String,
}

impl DnsProvider for DigitalOcean {
    const ABOUT: About = weir_sdk::about!("digitalocean")
        .secrets(&[Secret::required("DO_AUTH_TOKEN"), Secret::url("DO_API_URL")])
        .settings(&["DO"])
        .origins(&["https://api.digitalocean.com"]);

    fn init() -> Result<(Self, Timing), Error> {
        let [token] = variables::required(["DO_AUTH_TOKEN"])?;
        let base = variables::url("DO_API_URL", "https://api.digitalocean.com")?;
        let settings = Settings { ttl: 30, polling_interval_s: 5, ..Settings::DEFAULT }.read(&Self::ABOUT);
        let api = Client::new(&base, &settings).authorization("Bearer", "DO_AUTH_TOKEN", &token)?;
        Ok((Self { api, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        if let Some(id) = self.find(challenge).map_err(|error| challenge.explain_zone(error))? {
            return Ok(id);
        }
        let record = NewRecord { kind: "TXT", name: &challenge.fqdn, data: &challenge.value, ttl: self.ttl };
        let created = self.api.post(&["v2", "domains", challenge.zone_name(), "records"]).json(&record).send()?;
        Ok(created.json::<Created>()?.domain_record.id.to_string())
    }

    fn cleanup(&self, challenge: &Challenge, handle: &str) -> Result<(), Error> {
        let found = if handle.is_empty() { self.find(challenge)? } else { Some(handle.to_owned()) };
        let Some(id) = found else {
            return Ok(());
        };
        self.api.delete(&["v2", "domains", challenge.zone_name(), "records", &id]).send()?;
        Ok(())
    }
}

weir_sdk::export_dns_provider!(DigitalOcean);

impl DigitalOcean {
    /// The number of the record with this name and value.
    fn find(&self, challenge: &Challenge) -> Result<Option<String>, Error> {
        for page in 1..=MOST_PAGES {
            let call = self.api.get(&["v2", "domains", challenge.zone_name(), "records"]);
            let call = call.query("type", "TXT").query("name", challenge.name());
            let call = call.query("per_page", &PER_PAGE.to_string()).query("page", &page.to_string());
            let records = call.send()?.json::<Records>()?.domain_records;
            if let Some(record) = records.iter().find(|record| record.data == challenge.value) {
                return Ok(Some(record.id.to_string()));
            }
            if records.len() < PER_PAGE {
                break;
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::ErrorKind;
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const RECORDS: &str = "https://api.digitalocean.com/v2/domains/example.com/records";

    fn host() -> Host {
        Host::of::<DigitalOcean>(&[("DO_AUTH_TOKEN", "dop_v1_secret")])
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn list(host: &Host, page: u32, status: u16, answer: Value) {
        let query = format!("type=TXT&name=_acme-challenge.www.example.com&per_page=200&page={page}");
        let call = host.expect("GET", &format!("{RECORDS}?{query}"));
        call.header("authorization", "Bearer dop_v1_secret").answer(status, answer);
    }

    fn record(id: u64, data: &str) -> Value {
        json!({"id": id, "type": "TXT", "name": "_acme-challenge.www", "data": data, "priority": null, "ttl": 30})
    }

    #[test]
    fn adds_a_record_and_answers_its_number() {
        let host = host();
        list(&host, 1, 200, json!({"domain_records": [record(7, "another value")], "links": {}, "meta": {"total": 1}}));
        host.expect("POST", RECORDS)
            .header("authorization", "Bearer dop_v1_secret")
            .header("content-type", "application/json")
            .json(json!({"type": "TXT", "name": "_acme-challenge.www.example.com.", "data": VALUE, "ttl": 30}))
            .answer(201, json!({"domain_record": record(28448433, VALUE)}));
        assert_eq!(host.present::<DigitalOcean>(&www()).as_deref(), Ok("28448433"));
    }

    #[test]
    fn takes_a_record_that_exists() {
        let host = host();
        let others: Vec<Value> = (0..200).map(|id| record(id, "another value")).collect();
        list(&host, 1, 200, json!({"domain_records": others}));
        list(&host, 2, 200, json!({"domain_records": [record(300, VALUE)]}));
        assert_eq!(host.present::<DigitalOcean>(&www()).as_deref(), Ok("300"));
    }

    #[test]
    fn says_which_variable_holds_a_token_that_is_refused() {
        let host = host();
        let refusal = json!({"id": "Unauthorized", "message": "Unable to authenticate you with dop_v1_secret"});
        list(&host, 1, 401, refusal);
        let error = host.present::<DigitalOcean>(&www()).expect_err("the token is refused");
        let expected = "GET https://api.digitalocean.com/v2/domains/example.com/records: status 401: `Unable to \
                        authenticate you with …`; check DO_AUTH_TOKEN";
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_is_not_of_this_account() {
        let host = host();
        list(&host, 1, 404, json!({"id": "not_found", "message": "The resource you requested could not be found."}));
        let error = host.present::<DigitalOcean>(&www()).expect_err("there is no such zone");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.ends_with("is `example.com` a zone of this account?"), "{}", error.message);
    }

    #[test]
    fn waits_as_long_as_it_is_told() {
        let host = host();
        let url = format!("{RECORDS}?type=TXT&name=_acme-challenge.www.example.com&per_page=200&page=1");
        let busy = r#"{"id": "too_many_requests", "message": "API Rate limit exceeded."}"#;
        host.expect("GET", &url).answer_with(429, &[("retry-after", "9")], busy);
        host.expect("GET", &url).answer_with(429, &[("ratelimit-reset", "1767323061")], busy);
        host.expect("GET", &url).answer_with(429, &[("retry-after", "3600")], busy);
        let error = host.present::<DigitalOcean>(&www()).expect_err("an hour is too long to wait");
        assert_eq!((error.kind, error.retry_after_ms), (ErrorKind::RateLimited, Some(3_600_000)));
        assert_eq!(host.slept_ms(), 16_000);
    }

    #[test]
    fn a_record_whose_answer_is_lost_is_not_added_twice() {
        let host = host();
        list(&host, 1, 200, json!({"domain_records": []}));
        host.expect("POST", RECORDS)
            .answer(500, json!({"id": "server_error", "message": "Unexpected server-side error"}));
        list(&host, 1, 200, json!({"domain_records": [record(8, VALUE)]}));
        assert_eq!(host.present::<DigitalOcean>(&www()).as_deref(), Ok("8"));
    }

    #[test]
    fn deletes_by_number() {
        let host = host();
        host.expect("DELETE", &format!("{RECORDS}/28448433"))
            .header("authorization", "Bearer dop_v1_secret")
            .answer(204, Value::Null);
        assert_eq!(host.cleanup::<DigitalOcean>(&www(), "28448433"), Ok(()));
    }

    #[test]
    fn deletes_by_name_and_value_where_the_number_is_lost() {
        let host = host();
        list(&host, 1, 200, json!({"domain_records": [record(7, "another value"), record(8, VALUE)]}));
        host.expect("DELETE", &format!("{RECORDS}/8")).answer(204, Value::Null);
        assert_eq!(host.cleanup::<DigitalOcean>(&www(), ""), Ok(()));
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = host();
        host.expect("DELETE", &format!("{RECORDS}/8")).answer(404, json!({"id": "not_found", "message": "…"}));
        assert_eq!(host.cleanup::<DigitalOcean>(&www(), "8"), Ok(()));
        list(&host, 1, 200, json!({"domain_records": []}));
        assert_eq!(host.cleanup::<DigitalOcean>(&www(), ""), Ok(()));
    }

    #[test]
    fn the_address_of_the_api_can_be_another_one() {
        let host = Host::of::<DigitalOcean>(&[("DO_AUTH_TOKEN", "t"), ("DO_API_URL", "http://127.0.0.1:8080/api/")]);
        host.expect("DELETE", "http://127.0.0.1:8080/api/v2/domains/example.com/records/8").answer(204, Value::Null);
        assert_eq!(host.cleanup::<DigitalOcean>(&www(), "8"), Ok(()));
    }

    #[test]
    fn says_which_variable_is_missing_or_wrong() {
        for (variables, expected) in [
            (&[][..], "some credentials information are missing: DO_AUTH_TOKEN"),
            (
                &[("DO_AUTH_TOKEN", "a\nb")],
                "use the value of `DO_AUTH_TOKEN`: it has a line break or control character",
            ),
        ] {
            let host = Host::of::<DigitalOcean>(variables);
            let error = host.init::<DigitalOcean>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<DigitalOcean>().expect("the token is there");
        assert_eq!(timing, Timing { propagation_timeout_s: 60, polling_interval_s: 5, sequential: false });
    }
}
