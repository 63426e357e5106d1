//! `hetzner`: TXT records by the Cloud API of Hetzner, in which a change is an action that is waited for. Values are
//! added to and removed from the set of records with that name.

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{Answer, Challenge, Client, DnsProvider, Settings, Timing, timer, txt, variables};
use weir_sdk::{About, Error, ErrorKind, Secret};

/// How often an action is looked at, each second: they take less.
const LOOKS: u32 = 30;

/// One project.
pub struct Hetzner {
    api: Client,
    ttl: u32,
}

#[derive(Deserialize)]
struct Found {
    rrset: RecordSet,
}

#[derive(Deserialize)]
struct RecordSet {
    records: Vec<Record>,
}

#[derive(Deserialize, Serialize)]
struct Record {
    /// In quotes.
    value: String,
}

#[derive(Serialize)]
struct Change {
    /// A set that exists keeps its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    records: [Record; 1],
}

#[derive(Deserialize)]
struct Started {
    action: Action,
}

#[derive(Deserialize)]
struct Action {
    id: u64,
    status: Status,
    error: Option<Problem>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Status {
    Running,
    Success,
    Error,
}

#[derive(Deserialize)]
struct Problem {
    message: String,
}

impl DnsProvider for Hetzner {
    const ABOUT: About = weir_sdk::about!("hetzner")
        // Both are optional to the host, so that it is `init` that says what is missing.
        .secrets(&[Secret::optional("HETZNER_API_TOKEN"), Secret::optional("HETZNER_API_KEY")])
        .settings(&["HETZNER"])
        .origins(&["https://api.hetzner.cloud"]);

    fn init() -> Result<(Self, Timing), Error> {
        let Some(token) = variables::optional(&["HETZNER_API_TOKEN"]) else {
            return Err(missing_token());
        };
        let settings = Settings::DEFAULT.read(&Self::ABOUT);
        let api = Client::new("https://api.hetzner.cloud/v1", &settings);
        let api = api.authorization("Bearer", "HETZNER_API_TOKEN", &token)?;
        Ok((Self { api, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let values = self.values(challenge)?;
        if values.as_ref().is_some_and(|values| values.contains(&challenge.value)) {
            return Ok(String::new());
        }
        let ttl = values.is_none().then_some(self.ttl);
        self.change("add_records", ttl, challenge).map_err(|error| challenge.explain_zone(error))?;
        Ok(String::new())
    }

    fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
        if !self.values(challenge)?.is_some_and(|values| values.contains(&challenge.value)) {
            return Ok(());
        }
        self.change("remove_records", None, challenge)
    }
}

weir_sdk::export_dns_provider!(Hetzner);

impl Hetzner {
    /// The values that the name has, or none if there is no such set.
    fn values(&self, challenge: &Challenge) -> Result<Option<Vec<String>>, Error> {
        let zone = challenge.zone_name();
        let found = match self.api.get(&["zones", zone, "rrsets", challenge.relative_name("@"), "TXT"]).send() {
            Ok(answer) => answer.json::<Found>()?,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(found.rrset.records.iter().map(|record| txt::unquote(&record.value)).collect()))
    }

    fn change(&self, action: &str, ttl: Option<u32>, challenge: &Challenge) -> Result<(), Error> {
        let name = challenge.relative_name("@");
        let path = ["zones", challenge.zone_name(), "rrsets", name, "TXT", "actions", action];
        let change = Change { ttl, records: [Record { value: txt::quote(&challenge.value) }] };
        self.wait(&self.api.post(&path).json(&change).send()?)
    }

    fn wait(&self, started: &Answer<'_>) -> Result<(), Error> {
        let mut action = started.json::<Started>()?.action;
        for _ in 0..LOOKS {
            match action.status {
                Status::Success => return Ok(()),
                Status::Error => {
                    let said = action.error.map_or_else(|| "without a reason".to_owned(), |error| error.message);
                    return Err(started.refusal_of(ErrorKind::Unavailable, Some(&said)));
                }
                Status::Running => timer::sleep(1_000),
            }
            action = self.api.get(&["actions", &action.id.to_string()]).send()?.json::<Started>()?.action;
        }
        Err(started.refusal_of(ErrorKind::Timeout, Some("the change is still running")))
    }
}

fn missing_token() -> Error {
    let missing = variables::missing(&["HETZNER_API_TOKEN"]);
    if variables::optional(&["HETZNER_API_KEY"]).is_none() {
        return missing;
    }
    Error::invalid_config(format!(
        "{}; HETZNER_API_KEY is for the old DNS console, which is not supported: move the zone to the Hetzner Console and \
         make a token there",
        missing.message
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const SET: &str = "https://api.hetzner.cloud/v1/zones/example.com/rrsets/_acme-challenge.www/TXT";
    const ACTION: &str = "https://api.hetzner.cloud/v1/actions/1";

    fn host() -> Host {
        Host::of::<Hetzner>(&[("HETZNER_API_TOKEN", "secret-token")])
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn set(values: &[&str]) -> Value {
        let records: Vec<Value> =
            values.iter().map(|value| json!({"value": txt::quote(value), "comment": ""})).collect();
        json!({"rrset": {"id": "_acme-challenge.www/TXT", "type": "TXT", "ttl": null, "records": records, "zone": 42}})
    }

    fn no_set(host: &Host) {
        host.expect("GET", SET).answer(404, json!({"error": {"code": "not_found", "message": "rrset not found"}}));
    }

    fn action(status: &str) -> Value {
        let error =
            if status == "error" { json!({"code": "action_failed", "message": "Action failed"}) } else { Value::Null };
        json!({"action": {"id": 1, "command": "add_rrset_records", "status": status, "progress": 100, "error": error}})
    }

    #[test]
    fn adds_a_value_and_waits_until_it_is_there() {
        let host = host();
        no_set(&host);
        host.expect("POST", &format!("{SET}/actions/add_records"))
            .header("authorization", "Bearer secret-token")
            .json(json!({"ttl": 120, "records": [{"value": format!("\"{VALUE}\"")}]}))
            .answer(201, action("running"));
        host.expect("GET", ACTION).answer(200, action("running"));
        host.expect("GET", ACTION).answer(200, action("success"));
        assert_eq!(host.present::<Hetzner>(&www()).as_deref(), Ok(""));
        assert_eq!(host.slept_ms(), 2_000);
    }

    #[test]
    fn keeps_other_values_and_their_ttl() {
        let host = host();
        host.expect("GET", SET).answer(200, set(&["another value"]));
        host.expect("POST", &format!("{SET}/actions/add_records"))
            .json(json!({"records": [{"value": format!("\"{VALUE}\"")}]}))
            .answer(201, action("success"));
        assert_eq!(host.present::<Hetzner>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn takes_a_value_that_exists() {
        let host = host();
        host.expect("GET", SET).answer(200, set(&["another value", VALUE]));
        assert_eq!(host.present::<Hetzner>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn a_record_of_the_zone_itself_has_a_name_of_its_own() {
        let host = host();
        host.expect("GET", "https://api.hetzner.cloud/v1/zones/acme.example.net/rrsets/%40/TXT")
            .answer(200, set(&[VALUE]));
        let apex = challenge("acme.example.net.", "acme.example.net.");
        assert_eq!(host.present::<Hetzner>(&apex).as_deref(), Ok(""));
    }

    #[test]
    fn says_which_variable_holds_a_token_that_is_refused() {
        let host = host();
        let refusal = json!({"error": {"code": "unauthorized", "message": "the token you provided is invalid"}});
        host.expect("GET", SET).answer(401, refusal);
        let error = host.present::<Hetzner>(&www()).expect_err("the token is refused");
        let expected = format!("GET {SET}: status 401: `the token you provided is invalid`; check HETZNER_API_TOKEN");
        assert_eq!((error.kind, error.message), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_is_not_of_this_project() {
        let host = host();
        no_set(&host);
        host.expect("POST", &format!("{SET}/actions/add_records"))
            .answer(404, json!({"error": {"code": "not_found", "message": "zone not found"}}));
        let error = host.present::<Hetzner>(&www()).expect_err("there is no such zone");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.ends_with("`zone not found`; is `example.com` a zone of this account?"), "{error:?}");
    }

    #[test]
    fn waits_where_it_is_too_fast_and_where_hetzner_is_ill() {
        let host = host();
        let busy = r#"{"error": {"code": "rate_limit_exceeded", "message": "limit reached"}}"#;
        host.expect("GET", SET).answer_with(429, &[("ratelimit-reset", "1767323050")], busy);
        host.expect("GET", SET).answer(503, json!({"error": {"code": "unavailable", "message": "…"}}));
        host.expect("GET", SET).answer(200, set(&[VALUE]));
        assert_eq!(host.present::<Hetzner>(&www()).as_deref(), Ok(""));
        assert_eq!(host.slept_ms(), 7_000);
    }

    #[test]
    fn an_action_that_fails_is_started_again() {
        let host = host();
        for status in ["error", "success"] {
            no_set(&host);
            host.expect("POST", &format!("{SET}/actions/add_records")).answer(201, action(status));
        }
        assert_eq!(host.present::<Hetzner>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn removes_its_value_with_a_handle_and_without() {
        for handle in ["", "anything"] {
            let host = host();
            host.expect("GET", SET).answer(200, set(&["another value", VALUE]));
            host.expect("POST", &format!("{SET}/actions/remove_records"))
                .json(json!({"records": [{"value": format!("\"{VALUE}\"")}]}))
                .answer(201, action("success"));
            assert_eq!(host.cleanup::<Hetzner>(&www(), handle), Ok(()));
        }
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = host();
        no_set(&host);
        assert_eq!(host.cleanup::<Hetzner>(&www(), ""), Ok(()));
        host.expect("GET", SET).answer(200, set(&["another value"]));
        assert_eq!(host.cleanup::<Hetzner>(&www(), ""), Ok(()));
    }

    #[test]
    fn says_which_variable_is_missing() {
        let host = Host::of::<Hetzner>(&[]);
        let error = host.init::<Hetzner>().err().expect("it cannot be used");
        assert_eq!(error.message, "some credentials information are missing: HETZNER_API_TOKEN");
        drop(host);
        let host = Host::of::<Hetzner>(&[("HETZNER_API_KEY", "of the old console")]);
        let error = host.init::<Hetzner>().err().expect("it cannot be used");
        assert!(error.message.contains("HETZNER_API_TOKEN; HETZNER_API_KEY is for the old DNS console"), "{error:?}");
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<Hetzner>().expect("the token is there");
        assert_eq!(timing, Timing { propagation_timeout_s: 60, polling_interval_s: 2, sequential: false });
    }
}
