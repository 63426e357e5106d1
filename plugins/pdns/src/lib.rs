//! `pdns`: TXT records by the API of a PowerDNS Authoritative Server of your own, version 4 or later. It has the values
//! of a name as one set: they are read, changed and written.

use serde::{Deserialize, Serialize};
use weir_sdk::dns::{Challenge, Client, DnsProvider, Settings, Timing, txt, variables};
use weir_sdk::log::{self, Level};
use weir_sdk::{About, Error, Secret};

/// One server.
pub struct PowerDns {
    api: Client,
    /// As the API knows it: `localhost`, but for proxies of several servers.
    server: String,
    ttl: u32,
}

#[derive(Deserialize)]
struct Zone {
    id: String,
    #[serde(default)]
    kind: String,
    /// Servers before 4.6 give all sets of the zone, whatever they are asked for.
    rrsets: Vec<RecordSet>,
}

#[derive(Deserialize)]
struct RecordSet {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    ttl: u32,
    records: Vec<Record>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Record {
    /// In quotes.
    content: String,
    #[serde(default)]
    disabled: bool,
}

#[derive(Serialize)]
struct Changes<'a> {
    rrsets: [Change<'a>; 1],
}

#[derive(Serialize)]
struct Change<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    changetype: &'static str,
    /// A set that is deleted has neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    records: Vec<Record>,
}

impl DnsProvider for PowerDns {
    const ABOUT: About = weir_sdk::about!("pdns")
        .secrets(&[
            Secret::required("PDNS_API_KEY"),
            Secret { name: "PDNS_API_URL", required: true, url: true },
            Secret::optional("PDNS_API_VERSION"),
            Secret::optional("PDNS_SERVER_NAME"),
        ])
        .settings(&["PDNS"]);

    fn init() -> Result<(Self, Timing), Error> {
        let [key, url] = variables::required(["PDNS_API_KEY", "PDNS_API_URL"])?;
        let url = variables::url("PDNS_API_URL", &url)?;
        let version = variables::number(&["PDNS_API_VERSION"], 0);
        if version > 1 {
            return Err(Error::invalid_config(format!(
                "use `{version}` as PDNS_API_VERSION: write 1, or leave it out"
            )));
        }
        let server = variables::optional(&["PDNS_SERVER_NAME"]).unwrap_or_else(|| "localhost".to_owned());
        let settings = Settings { propagation_timeout_s: 120, ..Settings::DEFAULT }.read(&Self::ABOUT);
        let api = Client::new(&url, &settings).credential("x-api-key", "PDNS_API_KEY", &key)?;
        Ok((Self { api, server, ttl: settings.ttl }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let zone = self.zone(challenge).map_err(|error| challenge.explain_zone(error))?;
        let set = zone.set(challenge);
        if !set.is_some_and(|set| set.contains(&challenge.value)) {
            let (ttl, mut records) = set.map_or((self.ttl, Vec::new()), |set| (set.ttl, set.without(&challenge.value)));
            records.push(Record { content: txt::quote(&challenge.value), disabled: false });
            self.write(&zone, challenge, ttl, records)?;
        }
        Ok(String::new())
    }

    fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
        let zone = self.zone(challenge)?;
        let Some(set) = zone.set(challenge).filter(|set| set.contains(&challenge.value)) else {
            return Ok(());
        };
        self.write(&zone, challenge, set.ttl, set.without(&challenge.value))
    }
}

weir_sdk::export_dns_provider!(PowerDns);

impl PowerDns {
    fn zone(&self, challenge: &Challenge) -> Result<Zone, Error> {
        let call = self.api.get(&["api", "v1", "servers", &self.server, "zones", &challenge.zone]);
        call.query("rrset_name", &challenge.fqdn).query("rrset_type", "TXT").send()?.json()
    }

    fn write(&self, zone: &Zone, challenge: &Challenge, ttl: u32, records: Vec<Record>) -> Result<(), Error> {
        let (changetype, ttl) = if records.is_empty() { ("DELETE", None) } else { ("REPLACE", Some(ttl)) };
        let changes = Changes { rrsets: [Change { name: &challenge.fqdn, kind: "TXT", changetype, ttl, records }] };
        self.api.patch(&["api", "v1", "servers", &self.server, "zones", &zone.id]).json(&changes).send()?;
        self.notify(zone);
        Ok(())
    }

    /// Tells the other name servers of the zone. The record is there without it, and they will ask some day.
    fn notify(&self, zone: &Zone) {
        if zone.kind != "Master" && zone.kind != "Slave" {
            return;
        }
        if let Err(error) = self.api.put(&["api", "v1", "servers", &self.server, "zones", &zone.id, "notify"]).send() {
            log::write(Level::Warn, &format!("failed to notify the other name servers: {}", error.message), &[]);
        }
    }
}

impl Zone {
    fn set(&self, challenge: &Challenge) -> Option<&RecordSet> {
        self.rrsets.iter().find(|set| set.kind == "TXT" && set.name.eq_ignore_ascii_case(&challenge.fqdn))
    }
}

impl RecordSet {
    fn contains(&self, value: &str) -> bool {
        self.records.iter().any(|record| !record.disabled && txt::unquote(&record.content) == value)
    }

    fn without(&self, value: &str) -> Vec<Record> {
        self.records.iter().filter(|record| txt::unquote(&record.content) != value).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::ErrorKind;
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const VARIABLES: [(&str, &str); 2] = [("PDNS_API_KEY", "secret-key"), ("PDNS_API_URL", "http://127.0.0.1:8081")];
    const ZONE: &str = "http://127.0.0.1:8081/api/v1/servers/localhost/zones/example.com.";
    const READ: &str = "http://127.0.0.1:8081/api/v1/servers/localhost/zones/example.com.\
                        ?rrset_name=_acme-challenge.www.example.com.&rrset_type=TXT";

    fn host() -> Host {
        Host::of::<PowerDns>(&VARIABLES)
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn zone(kind: &str, values: &[&str]) -> Value {
        let records: Vec<Value> = values.iter().map(|&value| record(value)).collect();
        let mut sets = vec![
            json!({"name": "example.com.", "type": "SOA", "ttl": 3600, "comments": [],
                "records": [{"content": "ns. host. 1 2 3 4 5", "disabled": false}]}),
            json!({"name": "_acme-challenge.www.example.com.", "type": "CAA", "ttl": 60, "records": []}),
        ];
        if !records.is_empty() {
            sets.push(
                json!({"name": "_acme-challenge.www.example.com.", "type": "TXT", "ttl": 60, "records": records}),
            );
        }
        json!({"id": "example.com.", "name": "example.com.", "kind": kind, "rrsets": sets})
    }

    fn record(value: &str) -> Value {
        json!({"content": txt::quote(value), "disabled": false})
    }

    fn replace(ttl: u32, values: &[&str]) -> Value {
        let records: Vec<Value> = values.iter().map(|&value| record(value)).collect();
        let name = "_acme-challenge.www.example.com.";
        json!({"rrsets": [{"name": name, "type": "TXT", "changetype": "REPLACE", "ttl": ttl, "records": records}]})
    }

    #[test]
    fn adds_a_set_where_there_is_none() {
        let host = host();
        host.expect("GET", READ).header("x-api-key", "secret-key").answer(200, zone("Native", &[]));
        host.expect("PATCH", ZONE)
            .header("x-api-key", "secret-key")
            .json(replace(120, &[VALUE]))
            .answer(204, Value::Null);
        assert_eq!(host.present::<PowerDns>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn keeps_other_values_and_their_ttl() {
        let host = host();
        host.expect("GET", READ).answer(200, zone("Native", &["another value"]));
        host.expect("PATCH", ZONE).json(replace(60, &["another value", VALUE])).answer(204, Value::Null);
        assert_eq!(host.present::<PowerDns>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn takes_a_value_that_exists() {
        let host = host();
        host.expect("GET", READ).answer(200, zone("Native", &["another value", VALUE]));
        assert_eq!(host.present::<PowerDns>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn tells_other_name_servers_and_does_not_depend_on_it() {
        let host = host();
        host.expect("GET", READ).answer(200, zone("Master", &[]));
        host.expect("PATCH", ZONE).answer(204, Value::Null);
        host.expect("PUT", &format!("{ZONE}/notify")).answer(422, json!({"error": "Notification failed"}));
        assert_eq!(host.present::<PowerDns>(&www()).as_deref(), Ok(""));
        let expected =
            format!("failed to notify the other name servers: PUT {ZONE}/notify: status 422: `Notification failed`");
        assert_eq!(host.logged(), [expected]);
    }

    #[test]
    fn says_which_variable_holds_a_key_that_is_refused() {
        let host = host();
        host.expect("GET", READ).answer_with(401, &[], "Unauthorized");
        let error = host.present::<PowerDns>(&www()).expect_err("the key is refused");
        let expected = format!("GET {ZONE}: status 401: `Unauthorized`; check PDNS_API_KEY");
        assert_eq!((error.kind, error.message), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_the_server_does_not_have() {
        let host = host();
        host.expect("GET", READ).answer(404, json!({"error": "Not Found"}));
        let error = host.present::<PowerDns>(&www()).expect_err("there is no such zone");
        assert_eq!(error.kind, ErrorKind::NotFound);
        assert!(error.message.ends_with("`Not Found`; is `example.com` a zone of this account?"), "{error:?}");
    }

    #[test]
    fn waits_where_the_server_is_ill() {
        let host = host();
        host.expect("GET", READ).answer_with(500, &[], "Internal Server Error");
        host.expect("GET", READ).answer_with(429, &[("retry-after", "5")], "");
        host.expect("GET", READ).answer(200, zone("Native", &[VALUE]));
        assert_eq!(host.present::<PowerDns>(&www()).as_deref(), Ok(""));
        assert_eq!(host.slept_ms(), 6_000);
    }

    #[test]
    fn removes_its_value_and_leaves_the_others() {
        for handle in ["", "anything"] {
            let host = host();
            host.expect("GET", READ).answer(200, zone("Native", &["another value", VALUE]));
            host.expect("PATCH", ZONE).json(replace(60, &["another value"])).answer(204, Value::Null);
            assert_eq!(host.cleanup::<PowerDns>(&www(), handle), Ok(()));
        }
    }

    #[test]
    fn deletes_the_set_with_the_last_value() {
        let host = host();
        host.expect("GET", READ).answer(200, zone("Native", &[VALUE]));
        let set = json!({"name": "_acme-challenge.www.example.com.", "type": "TXT", "changetype": "DELETE"});
        host.expect("PATCH", ZONE).json(json!({"rrsets": [set]})).answer(204, Value::Null);
        assert_eq!(host.cleanup::<PowerDns>(&www(), ""), Ok(()));
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = host();
        host.expect("GET", READ).answer(200, zone("Native", &["another value"]));
        assert_eq!(host.cleanup::<PowerDns>(&www(), ""), Ok(()));
        host.expect("GET", READ).answer(404, json!({"error": "Not Found"}));
        assert_eq!(host.cleanup::<PowerDns>(&www(), ""), Ok(()));
    }

    #[test]
    fn the_server_may_have_another_name() {
        let host = host().variables(&[("PDNS_SERVER_NAME", "ns1")]);
        host.expect("GET", &READ.replace("localhost", "ns1")).answer(200, zone("Native", &[VALUE]));
        assert_eq!(host.present::<PowerDns>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn says_which_variables_are_missing_or_wrong() {
        for (variables, expected) in [
            (&[][..], "some credentials information are missing: PDNS_API_KEY,PDNS_API_URL"),
            (
                &[VARIABLES[0], VARIABLES[1], ("PDNS_API_VERSION", "2")],
                "use `2` as PDNS_API_VERSION: write 1, or leave it out",
            ),
        ] {
            let host = Host::of::<PowerDns>(variables);
            let error = host.init::<PowerDns>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<PowerDns>().expect("key and address are there");
        assert_eq!(timing, Timing { propagation_timeout_s: 120, polling_interval_s: 2, sequential: false });
    }
}
