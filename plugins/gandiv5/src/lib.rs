//! `gandiv5`: TXT records by the LiveDNS API of Gandi, which has the values of a name as one set: they are read, changed
//! and written.

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{Call, Challenge, Client, DnsProvider, Settings, Timing, txt, variables};
use weir_sdk::{About, Error, ErrorKind, Secret};

/// What Gandi takes.
const LEAST_TTL: u32 = 300;

/// One organisation.
pub struct Gandi {
    api: Client,
    ttl: u32,
}

#[derive(Deserialize, Serialize)]
struct RecordSet {
    rrset_ttl: u32,
    /// In quotes, or not: Gandi adds them.
    rrset_values: Vec<String>,
}

impl DnsProvider for Gandi {
    const ABOUT: About = weir_sdk::about!("gandiv5")
        .secrets(&[Secret::optional("GANDIV5_PERSONAL_ACCESS_TOKEN"), Secret::optional("GANDIV5_API_KEY")])
        .settings(&["GANDIV5"])
        .origins(&["https://api.gandi.net"]);

    fn init() -> Result<(Self, Timing), Error> {
        let defaults = Settings {
            ttl: LEAST_TTL,
            propagation_timeout_s: 1200,
            polling_interval_s: 20,
            http_timeout_s: 10,
            ..Settings::DEFAULT
        };
        let settings = defaults.read(&Self::ABOUT).with_ttl_of_at_least(LEAST_TTL, &Self::ABOUT)?;
        let api = Client::new("https://api.gandi.net/v5/livedns", &settings);
        let token = variables::optional(&["GANDIV5_PERSONAL_ACCESS_TOKEN"]);
        let api = match (token, variables::optional(&["GANDIV5_API_KEY"])) {
            (Some(token), _) => api.authorization("Bearer", "GANDIV5_PERSONAL_ACCESS_TOKEN", &token)?,
            (None, Some(key)) => api.authorization("Apikey", "GANDIV5_API_KEY", &key)?,
            (None, None) => return Err(variables::missing(&["GANDIV5_PERSONAL_ACCESS_TOKEN"])),
        };
        Ok((Self { api, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let mut set =
            self.read(challenge)?.unwrap_or_else(|| RecordSet { rrset_ttl: self.ttl, rrset_values: Vec::new() });
        if !set.contains(&challenge.value) {
            set.rrset_values.push(txt::quote(&challenge.value));
            let written = self.call(Client::put, challenge).json(&set).send();
            written.map_err(|error| challenge.explain_zone(error))?;
        }
        Ok(String::new())
    }

    fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
        let Some(mut set) = self.read(challenge)?.filter(|set| set.contains(&challenge.value)) else {
            return Ok(());
        };
        set.rrset_values.retain(|value| txt::unquote(value) != challenge.value);
        if set.rrset_values.is_empty() {
            self.call(Client::delete, challenge).send()?;
        } else {
            self.call(Client::put, challenge).json(&set).send()?;
        }
        Ok(())
    }
}

weir_sdk::export_dns_provider!(Gandi);

impl Gandi {
    fn read(&self, challenge: &Challenge) -> Result<Option<RecordSet>, Error> {
        match self.call(Client::get, challenge).send() {
            Ok(answer) => answer.json().map(Some),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All that is done is done to the set of the name.
    fn call<'a>(&'a self, method: fn(&'a Client, &[&str]) -> Call<'a>, challenge: &Challenge) -> Call<'a> {
        let path = ["domains", challenge.zone_name(), "records", challenge.relative_name("@"), "TXT"];
        method(&self.api, &path)
    }
}

impl RecordSet {
    fn contains(&self, value: &str) -> bool {
        self.rrset_values.iter().any(|given| txt::unquote(given) == value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const SET: &str = "https://api.gandi.net/v5/livedns/domains/example.com/records/_acme-challenge.www/TXT";

    fn host() -> Host {
        Host::of::<Gandi>(&[("GANDIV5_PERSONAL_ACCESS_TOKEN", "secret-token")])
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn set(values: &[&str]) -> Value {
        let values: Vec<String> = values.iter().map(|value| txt::quote(value)).collect();
        json!({"rrset_name": "_acme-challenge.www", "rrset_type": "TXT", "rrset_ttl": 3600, "rrset_values": values})
    }

    fn missing() -> Value {
        json!({"code": 404, "message": "The resource could not be found.", "object": "HTTPNotFound", "cause": "Not Found"})
    }

    #[test]
    fn adds_a_set_where_there_is_none() {
        let host = host();
        host.expect("GET", SET).header("authorization", "Bearer secret-token").answer(404, missing());
        host.expect("PUT", SET)
            .header("authorization", "Bearer secret-token")
            .json(json!({"rrset_ttl": 300, "rrset_values": [format!("\"{VALUE}\"")]}))
            .answer(201, json!({"message": "DNS Record Created"}));
        assert_eq!(host.present::<Gandi>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn keeps_other_values_and_their_ttl() {
        let host = host();
        host.expect("GET", SET).answer(200, set(&["another value"]));
        host.expect("PUT", SET)
            .json(json!({"rrset_ttl": 3600, "rrset_values": ["\"another value\"", format!("\"{VALUE}\"")]}))
            .answer(201, json!({"message": "DNS Record Created"}));
        assert_eq!(host.present::<Gandi>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn takes_a_value_that_exists() {
        let host = host();
        host.expect("GET", SET).answer(200, set(&["another value", VALUE]));
        assert_eq!(host.present::<Gandi>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn the_old_key_is_taken_too() {
        let host = Host::of::<Gandi>(&[("GANDIV5_API_KEY", "old-key")]);
        host.expect("GET", SET)
            .header("authorization", "Apikey old-key")
            .answer(403, json!({"code": 403, "message": "Access was denied to this resource."}));
        let error = host.present::<Gandi>(&www()).expect_err("the key is refused");
        let expected = format!("GET {SET}: status 403: `Access was denied to this resource.`; check GANDIV5_API_KEY");
        assert_eq!((error.kind, error.message), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_is_not_of_this_account() {
        let host = host();
        host.expect("GET", SET).answer(404, missing());
        host.expect("PUT", SET).answer(404, missing());
        let error = host.present::<Gandi>(&www()).expect_err("there is no such zone");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.ends_with("is `example.com` a zone of this account?"), "{error:?}");
    }

    #[test]
    fn waits_where_it_is_too_fast_and_where_gandi_is_ill() {
        let host = host();
        host.expect("GET", SET).answer_with(429, &[("retry-after", "5")], r#"{"message": "Too many requests"}"#);
        host.expect("GET", SET).answer(500, json!({"message": "Internal error"}));
        host.expect("GET", SET).answer(200, set(&[VALUE]));
        assert_eq!(host.present::<Gandi>(&www()).as_deref(), Ok(""));
        assert_eq!(host.slept_ms(), 7_000);
    }

    #[test]
    fn removes_its_value_and_leaves_the_others() {
        for handle in ["", "anything"] {
            let host = host();
            host.expect("GET", SET).answer(200, set(&["another value", VALUE]));
            host.expect("PUT", SET)
                .json(json!({"rrset_ttl": 3600, "rrset_values": ["\"another value\""]}))
                .answer(201, json!({"message": "DNS Record Created"}));
            assert_eq!(host.cleanup::<Gandi>(&www(), handle), Ok(()));
        }
    }

    #[test]
    fn deletes_the_set_with_the_last_value() {
        let host = host();
        host.expect("GET", SET).answer(200, set(&[VALUE]));
        host.expect("DELETE", SET).answer(204, Value::Null);
        assert_eq!(host.cleanup::<Gandi>(&www(), ""), Ok(()));
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = host();
        host.expect("GET", SET).answer(404, missing());
        assert_eq!(host.cleanup::<Gandi>(&www(), ""), Ok(()));
        host.expect("GET", SET).answer(200, set(&["another value"]));
        assert_eq!(host.cleanup::<Gandi>(&www(), ""), Ok(()));
    }

    #[test]
    fn says_which_variable_is_missing_or_wrong() {
        for (variables, expected) in [
            (&[][..], "some credentials information are missing: GANDIV5_PERSONAL_ACCESS_TOKEN"),
            (&[("GANDIV5_API_KEY", "k"), ("GANDIV5_TTL", "60")], "use `60` as GANDIV5_TTL: write 300 or more"),
        ] {
            let host = Host::of::<Gandi>(variables);
            let error = host.init::<Gandi>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<Gandi>().expect("the token is there");
        assert_eq!(timing, Timing { propagation_timeout_s: 1200, polling_interval_s: 20, sequential: false });
    }
}
