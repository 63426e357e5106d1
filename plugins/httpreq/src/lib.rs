//! `httpreq`: hands the record to a server of your own, which speaks the small protocol of lego's `httpreq` and does the
//! rest: the bridge to any DNS that has no component.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use weir_sdk::dns::{Challenge, Client, DnsProvider, Settings, Timing, variables};
use weir_sdk::{About, Error, Secret};

/// One server.
pub struct HttpReq {
    server: Client,
    mode: Mode,
}

/// What the server wants to be told.
#[derive(Clone, Copy)]
enum Mode {
    /// The record.
    Record,
    /// The challenge, from which it makes the record itself.
    Raw,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Message<'a> {
    Record {
        fqdn: &'a str,
        value: &'a str,
    },
    Raw {
        domain: &'a str,
        token: &'a str,
        #[serde(rename = "keyAuth")]
        key_authorization: &'a str,
    },
}

impl DnsProvider for HttpReq {
    const ABOUT: About = weir_sdk::about!("httpreq")
        .secrets(&[
            Secret { name: "HTTPREQ_ENDPOINT", required: true, url: true },
            Secret::optional("HTTPREQ_MODE"),
            Secret::optional("HTTPREQ_USERNAME"),
            Secret::optional("HTTPREQ_PASSWORD"),
        ])
        .settings(&["HTTPREQ"]);

    fn init() -> Result<(Self, Timing), Error> {
        let [endpoint] = variables::required(["HTTPREQ_ENDPOINT"])?;
        let endpoint = variables::url("HTTPREQ_ENDPOINT", &endpoint)?;
        let settings = Settings::DEFAULT.read(&Self::ABOUT);
        let server = authenticated(Client::new(&endpoint, &settings))?;
        Ok((Self { server, mode: Mode::read()? }, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        self.tell("present", challenge)?;
        Ok(String::new())
    }

    fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
        self.tell("cleanup", challenge)
    }
}

weir_sdk::export_dns_provider!(HttpReq);

impl HttpReq {
    fn tell(&self, what: &str, challenge: &Challenge) -> Result<(), Error> {
        let message = match self.mode {
            Mode::Record => Message::Record { fqdn: &challenge.fqdn, value: &challenge.value },
            Mode::Raw => Message::Raw {
                domain: &challenge.domain,
                token: &challenge.token,
                key_authorization: &challenge.key_authorization,
            },
        };
        self.server.post(&[what]).json(&message).send()?;
        Ok(())
    }
}

impl Mode {
    fn read() -> Result<Self, Error> {
        match variables::optional(&["HTTPREQ_MODE"]).as_deref() {
            None => Ok(Self::Record),
            Some("RAW") => Ok(Self::Raw),
            Some(other) => {
                Err(Error::invalid_config(format!("use `{other}` as HTTPREQ_MODE: write `RAW`, or leave it out")))
            }
        }
    }
}

/// With user name and password where there are some (RFC 7617).
fn authenticated(server: Client) -> Result<Client, Error> {
    let set = ["HTTPREQ_USERNAME", "HTTPREQ_PASSWORD"].map(|name| variables::optional(&[name]).is_some());
    if set == [false, false] {
        return Ok(server);
    }
    let [user, password] = variables::required(["HTTPREQ_USERNAME", "HTTPREQ_PASSWORD"])?;
    let pair = STANDARD.encode(format!("{user}:{password}"));
    server.secret("HTTPREQ_PASSWORD", &password).header("authorization", &format!("Basic {pair}"), "HTTPREQ_PASSWORD")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::ErrorKind;
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const ENDPOINT: (&str, &str) = ("HTTPREQ_ENDPOINT", "http://10.0.0.1:8080/dns/");

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    fn record() -> Value {
        json!({"fqdn": "_acme-challenge.www.example.com.", "value": VALUE})
    }

    #[test]
    fn hands_over_the_record() {
        let host = Host::of::<HttpReq>(&[ENDPOINT]);
        host.expect("POST", "http://10.0.0.1:8080/dns/present")
            .header("content-type", "application/json")
            .json(record())
            .answer(200, Value::Null);
        assert_eq!(host.present::<HttpReq>(&www()).as_deref(), Ok(""));
        host.expect("POST", "http://10.0.0.1:8080/dns/cleanup").json(record()).answer(204, Value::Null);
        assert_eq!(host.cleanup::<HttpReq>(&www(), ""), Ok(()));
    }

    #[test]
    fn hands_over_the_challenge_where_it_is_asked_to() {
        let host = Host::of::<HttpReq>(&[ENDPOINT, ("HTTPREQ_MODE", "RAW")]);
        host.expect("POST", "http://10.0.0.1:8080/dns/present")
            .json(json!({"domain": "www.example.com", "token": "tOkEn", "keyAuth": "tOkEn.tHuMbPrInT"}))
            .answer(200, Value::Null);
        assert_eq!(host.present::<HttpReq>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn says_who_it_is_and_which_password_is_refused() {
        let host = Host::of::<HttpReq>(&[ENDPOINT, ("HTTPREQ_USERNAME", "weir"), ("HTTPREQ_PASSWORD", "secret")]);
        host.expect("POST", "http://10.0.0.1:8080/dns/present")
            .header("authorization", "Basic d2VpcjpzZWNyZXQ=")
            .answer_with(401, &[], "no such user");
        let error = host.present::<HttpReq>(&www()).expect_err("the password is refused");
        let expected = "POST http://10.0.0.1:8080/dns/present: status 401: `no such user`; check \
                        HTTPREQ_PASSWORD";
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn waits_where_the_server_is_ill() {
        let host = Host::of::<HttpReq>(&[ENDPOINT]);
        for (status, after) in [(500, "0"), (429, "3"), (200, "0")] {
            host.expect("POST", "http://10.0.0.1:8080/dns/present").json(record()).answer_with(
                status,
                &[("retry-after", after)],
                "",
            );
        }
        assert_eq!(host.present::<HttpReq>(&www()).as_deref(), Ok(""));
        assert_eq!(host.slept_ms(), 4_000);
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = Host::of::<HttpReq>(&[ENDPOINT]);
        host.expect("POST", "http://10.0.0.1:8080/dns/cleanup").answer_with(404, &[], "no such record");
        assert_eq!(host.cleanup::<HttpReq>(&www(), ""), Ok(()));
        host.expect("POST", "http://10.0.0.1:8080/dns/present").answer_with(404, &[], "no such zone");
        assert_eq!(host.present::<HttpReq>(&www()).map_err(|error| error.kind), Err(ErrorKind::NotFound));
    }

    #[test]
    fn says_which_variable_is_missing_or_wrong() {
        for (variables, expected) in [
            (&[][..], "some credentials information are missing: HTTPREQ_ENDPOINT"),
            (&[ENDPOINT, ("HTTPREQ_USERNAME", "weir")], "some credentials information are missing: HTTPREQ_PASSWORD"),
            (&[ENDPOINT, ("HTTPREQ_MODE", "raw")], "use `raw` as HTTPREQ_MODE: write `RAW`, or leave it out"),
            (
                &[("HTTPREQ_ENDPOINT", "10.0.0.1:8080")],
                "use the value of HTTPREQ_ENDPOINT: write it as `https://host`, with a path where there is one",
            ),
        ] {
            let host = Host::of::<HttpReq>(variables);
            let error = host.init::<HttpReq>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = Host::of::<HttpReq>(&[ENDPOINT]);
        let (_, timing) = host.init::<HttpReq>().expect("the endpoint is there");
        assert_eq!(timing, Timing { propagation_timeout_s: 60, polling_interval_s: 2, sequential: false });
    }
}
