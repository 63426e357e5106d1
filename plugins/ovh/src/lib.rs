//! `ovh`: TXT records by the API of OVHcloud. A change shows when the zone has been refreshed.

mod access;

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{self, Answer, Call, Challenge, DnsProvider, Settings, Timing, txt, variables};
use weir_sdk::{About, Error, Secret};

use access::Access;

/// One account.
pub struct Ovh {
    access: Access,
    ttl: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewRecord<'a> {
    field_type: &'static str,
    sub_domain: &'a str,
    target: &'a str,
    ttl: u32,
}

#[derive(Deserialize)]
struct Created {
    id: u64,
}

#[derive(Deserialize)]
struct Record {
    /// In quotes, or not.
    target: String,
}

impl DnsProvider for Ovh {
    const ABOUT: About = weir_sdk::about!("ovh")
        .secrets(&[
            Secret::optional("OVH_ENDPOINT"),
            Secret::optional("OVH_APPLICATION_KEY"),
            Secret::optional("OVH_APPLICATION_SECRET"),
            Secret::optional("OVH_CONSUMER_KEY"),
            Secret::optional("OVH_CLIENT_ID"),
            Secret::optional("OVH_CLIENT_SECRET"),
            Secret::optional("OVH_ACCESS_TOKEN"),
        ])
        .settings(&["OVH"])
        .origins(&[
            "https://eu.api.ovh.com",
            "https://ca.api.ovh.com",
            "https://api.us.ovhcloud.com",
            "https://www.ovh.com",
            "https://ca.ovh.com",
            "https://us.ovhcloud.com",
        ]);

    fn init() -> Result<(Self, Timing), Error> {
        let settings = Settings { http_timeout_s: 180, ..Settings::DEFAULT }.read(&Self::ABOUT);
        let endpoint = variables::optional(&["OVH_ENDPOINT"]).unwrap_or_else(|| "ovh-eu".to_owned());
        Ok((Self { access: Access::new(&endpoint, &settings)?, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let found = self.find(challenge).map_err(|error| challenge.explain_zone(error))?;
        let id = found.map_or_else(|| self.create(challenge), Ok)?;
        self.refresh(challenge)?;
        Ok(id)
    }

    fn cleanup(&self, challenge: &Challenge, handle: &str) -> Result<(), Error> {
        let found = if handle.is_empty() { self.find(challenge)? } else { Some(handle.to_owned()) };
        if let Some(id) = found {
            let path = ["domain", "zone", challenge.zone_name(), "record", &id];
            dns::gone_is_fine(self.send(self.access.api.delete(&path)).map(drop))?;
        }
        // Also where there was nothing to delete: the attempt before may have come no further.
        self.refresh(challenge)
    }
}

weir_sdk::export_dns_provider!(Ovh);

impl Ovh {
    fn create(&self, challenge: &Challenge) -> Result<String, Error> {
        let sub_domain = challenge.relative_name("");
        let record = NewRecord { field_type: "TXT", sub_domain, target: &challenge.value, ttl: self.ttl };
        let call = self.access.api.post(&["domain", "zone", challenge.zone_name(), "record"]).json(&record);
        Ok(self.send(call)?.json::<Created>()?.id.to_string())
    }

    /// The number of the record with this name and value.
    fn find(&self, challenge: &Challenge) -> Result<Option<String>, Error> {
        let path = ["domain", "zone", challenge.zone_name(), "record"];
        let call = self.access.api.get(&path).query("fieldType", "TXT");
        let ids: Vec<u64> = self.send(call.query("subDomain", challenge.relative_name("")))?.json()?;
        for id in ids.iter().map(u64::to_string) {
            let path = ["domain", "zone", challenge.zone_name(), "record", &id];
            let record: Record = self.send(self.access.api.get(&path))?.json()?;
            if txt::unquote(&record.target) == challenge.value {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    fn refresh(&self, challenge: &Challenge) -> Result<(), Error> {
        self.send(self.access.api.post(&["domain", "zone", challenge.zone_name(), "refresh"])).map(drop)
    }

    fn send<'a>(&'a self, call: Call<'a>) -> Result<Answer<'a>, Error> {
        self.access.authenticate(call)?.send()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::ErrorKind;
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const API: &str = "https://eu.api.ovh.com/1.0";
    const ZONE: &str = "https://eu.api.ovh.com/1.0/domain/zone/example.com";
    const LIST: &str = "https://eu.api.ovh.com/1.0/domain/zone/example.com/record\
                        ?fieldType=TXT&subDomain=_acme-challenge.www";

    /// With a token, which makes no requests of its own.
    fn host() -> Host {
        Host::of::<Ovh>(&[("OVH_ACCESS_TOKEN", "secret-token")])
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn record(host: &Host, id: u64, target: &str) {
        let body =
            json!({"id": id, "fieldType": "TXT", "subDomain": "_acme-challenge.www", "target": target, "ttl": 60});
        host.expect("GET", &format!("{ZONE}/record/{id}")).answer(200, body);
    }

    fn refresh(host: &Host) {
        host.expect("POST", &format!("{ZONE}/refresh")).text("").answer(200, Value::Null);
    }

    #[test]
    fn adds_a_record_and_answers_its_number() {
        let host = host();
        host.expect("GET", LIST).header("authorization", "Bearer secret-token").answer(200, json!([7]));
        record(&host, 7, "\"another value\"");
        host.expect("POST", &format!("{ZONE}/record"))
            .header("authorization", "Bearer secret-token")
            .json(json!({"fieldType": "TXT", "subDomain": "_acme-challenge.www", "target": VALUE, "ttl": 120}))
            .answer(200, json!({"id": 5_000_000_001_u64, "fieldType": "TXT", "target": VALUE, "zone": "example.com"}));
        refresh(&host);
        assert_eq!(host.present::<Ovh>(&www()).as_deref(), Ok("5000000001"));
    }

    #[test]
    fn takes_a_record_that_exists_and_refreshes_the_zone() {
        let host = host();
        host.expect("GET", LIST).answer(200, json!([7, 8]));
        record(&host, 7, "another value");
        record(&host, 8, &format!("\"{VALUE}\""));
        refresh(&host);
        assert_eq!(host.present::<Ovh>(&www()).as_deref(), Ok("8"));
    }

    #[test]
    fn signs_with_the_time_of_ovh() {
        let keys = [
            ("OVH_APPLICATION_KEY", "app-key"),
            ("OVH_APPLICATION_SECRET", "app-secret"),
            ("OVH_CONSUMER_KEY", "consumer"),
        ];
        let host = Host::of::<Ovh>(&keys);
        host.expect("GET", &format!("{API}/auth/time")).answer(200, json!(1_457_018_875));
        // printf %s "app-secret+consumer+DELETE+$ZONE/record/8++1457018875" | sha1sum
        host.expect("DELETE", &format!("{ZONE}/record/8"))
            .header("x-ovh-application", "app-key")
            .header("x-ovh-consumer", "consumer")
            .header("x-ovh-timestamp", "1457018875")
            .header("x-ovh-signature", "$1$0d4c99e0c71e626caf0f743ec77879315f9ee95b")
            .answer(200, Value::Null);
        refresh(&host);
        assert_eq!(host.cleanup::<Ovh>(&www(), "8"), Ok(()));
    }

    #[test]
    fn asks_for_a_token_as_a_client() {
        let client = [("OVH_ENDPOINT", "ovh-ca"), ("OVH_CLIENT_ID", "EU.abc"), ("OVH_CLIENT_SECRET", "s&cret")];
        let host = Host::of::<Ovh>(&client);
        host.expect("POST", "https://ca.ovh.com/auth/oauth2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .text("grant_type=client_credentials&scope=all&client_id=EU.abc&client_secret=s%26cret")
            .answer(
                200,
                json!({"access_token": "short-lived", "token_type": "Bearer", "expires_in": 3599, "scope": "all"}),
            );
        host.expect("DELETE", "https://ca.api.ovh.com/1.0/domain/zone/example.com/record/8")
            .header("authorization", "Bearer short-lived")
            .answer(200, Value::Null);
        host.expect("POST", "https://ca.api.ovh.com/1.0/domain/zone/example.com/refresh").answer(200, Value::Null);
        assert_eq!(host.cleanup::<Ovh>(&www(), "8"), Ok(()));
    }

    #[test]
    fn says_what_is_wrong_with_the_keys() {
        let keys = [("OVH_APPLICATION_KEY", "a-key"), ("OVH_APPLICATION_SECRET", "b"), ("OVH_CONSUMER_KEY", "c")];
        let host = Host::of::<Ovh>(&keys);
        host.expect("GET", &format!("{API}/auth/time")).answer(200, json!(1));
        let refusal = json!({"class": "Client::Forbidden", "message": "This application key is invalid"});
        host.expect("GET", LIST).answer(403, refusal);
        let error = host.present::<Ovh>(&www()).expect_err("the keys are refused");
        let expected = format!(
            "GET {ZONE}/record: status 403: `This application key is invalid`; check OVH_APPLICATION_KEY and \
             OVH_APPLICATION_SECRET and OVH_CONSUMER_KEY"
        );
        assert_eq!((error.kind, error.message), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_is_not_of_this_account() {
        let host = host();
        host.expect("GET", LIST).answer(404, json!({"message": "This service does not exist"}));
        let error = host.present::<Ovh>(&www()).expect_err("there is no such zone");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.ends_with("is `example.com` a zone of this account?"), "{error:?}");
    }

    #[test]
    fn waits_where_it_is_too_fast_and_where_ovh_is_ill() {
        let host = host();
        host.expect("GET", LIST).answer_with(429, &[("retry-after", "5")], r#"{"message": "Too many requests"}"#);
        host.expect("GET", LIST).answer(500, json!({"message": "Internal server error"}));
        host.expect("GET", LIST).answer(200, json!([8]));
        record(&host, 8, VALUE);
        refresh(&host);
        assert_eq!(host.present::<Ovh>(&www()).as_deref(), Ok("8"));
        assert_eq!(host.slept_ms(), 7_000);
    }

    #[test]
    fn deletes_by_name_and_value_where_the_number_is_lost() {
        let host = host();
        host.expect("GET", LIST).answer(200, json!([7, 8]));
        record(&host, 7, "another value");
        record(&host, 8, VALUE);
        host.expect("DELETE", &format!("{ZONE}/record/8")).answer(200, Value::Null);
        refresh(&host);
        assert_eq!(host.cleanup::<Ovh>(&www(), ""), Ok(()));
    }

    #[test]
    fn what_is_gone_already_is_fine_and_the_zone_is_refreshed() {
        let host = host();
        host.expect("DELETE", &format!("{ZONE}/record/8"))
            .answer(404, json!({"message": "The requested object does not exist"}));
        refresh(&host);
        assert_eq!(host.cleanup::<Ovh>(&www(), "8"), Ok(()));
        host.expect("GET", LIST).answer(200, json!([]));
        refresh(&host);
        assert_eq!(host.cleanup::<Ovh>(&www(), ""), Ok(()));
    }

    #[test]
    fn says_which_variables_are_missing_or_wrong() {
        for (variables, expected) in [
            (
                &[][..],
                "some credentials information are missing: OVH_APPLICATION_KEY,OVH_APPLICATION_SECRET,OVH_CONSUMER_KEY",
            ),
            (
                &[("OVH_APPLICATION_KEY", "a")],
                "some credentials information are missing: OVH_APPLICATION_SECRET,OVH_CONSUMER_KEY",
            ),
            (&[("OVH_CLIENT_ID", "a")], "some credentials information are missing: OVH_CLIENT_SECRET"),
            (
                &[("OVH_CLIENT_SECRET", "a"), ("OVH_ACCESS_TOKEN", "b")],
                "choose how to authenticate: set OVH_APPLICATION_KEY and what belongs to it, or OVH_CLIENT_ID with \
                 OVH_CLIENT_SECRET, or OVH_ACCESS_TOKEN, and no two of them",
            ),
            (
                &[("OVH_ACCESS_TOKEN", "b"), ("OVH_ENDPOINT", "https://eu.api.ovh.com/1.0")],
                "use `https://eu.api.ovh.com/1.0` as OVH_ENDPOINT: write `ovh-eu`, `ovh-ca` or `ovh-us`",
            ),
        ] {
            let host = Host::of::<Ovh>(variables);
            let error = host.init::<Ovh>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<Ovh>().expect("the token is there");
        assert_eq!(timing, Timing { propagation_timeout_s: 60, polling_interval_s: 2, sequential: false });
    }
}
