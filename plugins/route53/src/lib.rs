//! `route53`: TXT records by the API of Amazon Route 53, which has the values of a name as one set: they are read, changed
//! and written. A change is waited for until all name servers have it.

mod signature;
mod xml;

use weir_sdk::dns::{Answer, Call, Challenge, Client, DnsProvider, Settings, Timing, timer, txt, variables};
use weir_sdk::log::{self, Level};
use weir_sdk::{About, Error, ErrorKind, Secret, clock};

use signature::{Keys, Scope};

const VERSION: &str = "2013-04-01";

/// Whose answers tell the kind of a problem by a code: the status is 400 for most.
const BUSY: [&str; 4] = ["Throttling", "ThrottlingException", "PriorRequestNotComplete", "RequestLimitExceeded"];

/// One account.
pub struct Route53 {
    api: Client,
    keys: Keys,
    scope: Scope,
    /// Where a name is a zone twice, public and private, this one.
    private: bool,
    zone_id: Option<String>,
    waits: bool,
    settings: Settings,
}

/// The values of one name.
struct RecordSet {
    ttl: String,
    /// In quotes.
    values: Vec<String>,
}

impl DnsProvider for Route53 {
    const ABOUT: About = weir_sdk::about!("route53")
        // The keys are optional to the host, so that it is `init` that says what is missing.
        .secrets(&[
            Secret::optional("AWS_ACCESS_KEY_ID"),
            Secret::optional("AWS_SECRET_ACCESS_KEY"),
            Secret::optional("AWS_SESSION_TOKEN"),
            Secret::optional("AWS_REGION"),
            Secret::optional("AWS_HOSTED_ZONE_ID"),
            Secret::optional("AWS_PRIVATE_ZONE"),
            Secret::optional("AWS_WAIT_FOR_RECORD_SETS_CHANGED"),
            Secret::optional("AWS_ASSUME_ROLE_ARN"),
            Secret::url("AWS_ENDPOINT_URL_ROUTE_53"),
        ])
        .settings(&["AWS"])
        .origins(&[
            "https://route53.amazonaws.com",
            "https://route53.amazonaws.com.cn",
            "https://route53.us-gov.amazonaws.com",
        ]);

    fn init() -> Result<(Self, Timing), Error> {
        if variables::optional(&["AWS_ASSUME_ROLE_ARN"]).is_some() {
            return Err(Error::invalid_config(
                "use AWS_ASSUME_ROLE_ARN: roles are not supported; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a \
                 user who may change the zone",
            ));
        }
        let keys = Keys::read()?;
        let defaults = Settings { ttl: 10, propagation_timeout_s: 120, polling_interval_s: 4, ..Settings::DEFAULT };
        let settings = defaults.read(&Self::ABOUT);
        let scope = Scope::of_region(variables::optional(&["AWS_REGION"]).as_deref().unwrap_or_default());
        let base = variables::url("AWS_ENDPOINT_URL_ROUTE_53", scope.endpoint)?;
        let zone_id = variables::optional(&["AWS_HOSTED_ZONE_ID"]);
        let provider = Self {
            api: keys.hidden_in(Client::new(&base, &settings)),
            keys,
            scope,
            private: variables::flag("AWS_PRIVATE_ZONE", false),
            zone_id: zone_id.map(|id| id.trim_start_matches("/hostedzone/").to_owned()),
            waits: variables::flag("AWS_WAIT_FOR_RECORD_SETS_CHANGED", true),
            settings,
        };
        Ok((provider, settings.timing()))
    }

    fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        let zone = self.zone(challenge)?;
        let set = self.read(&zone, challenge).map_err(|error| challenge.explain_zone(error))?;
        let mut set = set.unwrap_or_else(|| RecordSet { ttl: self.settings.ttl.to_string(), values: Vec::new() });
        if !set.contains(&challenge.value) {
            set.values.push(txt::quote(&challenge.value));
        }
        // Also where it is there already: only a change can be waited for.
        let change = self.write(&zone, challenge, "UPSERT", &set)?;
        if self.waits {
            self.wait(&change)?;
        }
        Ok(String::new())
    }

    fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
        let zone = self.zone(challenge)?;
        let Some(mut set) = self.read(&zone, challenge)?.filter(|set| set.contains(&challenge.value)) else {
            return Ok(());
        };
        if set.values.len() > 1 {
            set.values.retain(|value| txt::unquote(value) != challenge.value);
            self.write(&zone, challenge, "UPSERT", &set)?;
        } else {
            self.write(&zone, challenge, "DELETE", &set)?;
        }
        Ok(())
    }
}

weir_sdk::export_dns_provider!(Route53);

impl Route53 {
    /// The identifier of the zone.
    fn zone(&self, challenge: &Challenge) -> Result<String, Error> {
        if let Some(id) = &self.zone_id {
            return Ok(id.clone());
        }
        let call = self.api.get(&[VERSION, "hostedzonesbyname"]).query("dnsname", challenge.zone_name());
        let answer = self.send(call)?;
        let body = String::from_utf8_lossy(answer.body());
        let zone = xml::elements(&body, "HostedZone").find(|zone| {
            let is_private = xml::text(zone, "PrivateZone").is_some_and(|text| text == "true");
            xml::text(zone, "Name").is_some_and(|name| name == challenge.zone) && is_private == self.private
        });
        let id = zone.and_then(|zone| xml::text(zone, "Id"));
        id.map(|id| id.trim_start_matches("/hostedzone/").to_owned()).ok_or_else(|| {
            let kind = if self.private { "private" } else { "public" };
            let name = challenge.zone_name();
            Error::new(ErrorKind::NotFound, format!("find `{name}` among the {kind} hosted zones of the account"))
        })
    }

    fn read(&self, zone: &str, challenge: &Challenge) -> Result<Option<RecordSet>, Error> {
        // The list begins at this name, and has the next ones where there is no such name.
        let call = self.api.get(&[VERSION, "hostedzone", zone, "rrset"]);
        let call = call.query("maxitems", "1").query("name", &challenge.fqdn).query("type", "TXT");
        let answer = self.send(call)?;
        let body = String::from_utf8_lossy(answer.body());
        let set = xml::elements(&body, "ResourceRecordSet").find(|set| {
            xml::text(set, "Name").is_some_and(|name| name.eq_ignore_ascii_case(&challenge.fqdn))
                && xml::text(set, "Type").is_some_and(|kind| kind == "TXT")
        });
        Ok(set.map(|set| RecordSet {
            ttl: xml::text(set, "TTL").unwrap_or_else(|| self.settings.ttl.to_string()),
            values: xml::elements(set, "Value").map(xml::unescape).collect(),
        }))
    }

    /// Answers the identifier of the change.
    fn write(&self, zone: &str, challenge: &Challenge, action: &str, set: &RecordSet) -> Result<String, Error> {
        let records: String = set
            .values
            .iter()
            .map(|value| format!("<ResourceRecord><Value>{}</Value></ResourceRecord>", xml::escape(value)))
            .collect();
        let body = format!(
            "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/{VERSION}/\"><ChangeBatch><Changes>\
             <Change><Action>{action}</Action><ResourceRecordSet><Name>{}</Name><Type>TXT</Type><TTL>{}</TTL>\
             <ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></Change></Changes></ChangeBatch>\
             </ChangeResourceRecordSetsRequest>",
            xml::escape(&challenge.fqdn),
            xml::escape(&set.ttl),
        );
        let call = self.api.post(&[VERSION, "hostedzone", zone, "rrset"]).body("application/xml", body.into_bytes());
        let answer = self.send(call)?;
        let id = xml::text(&String::from_utf8_lossy(answer.body()), "Id");
        let id = id.ok_or_else(|| answer.unexpected("there is no identifier of the change"))?;
        Ok(id.trim_start_matches("/change/").to_owned())
    }

    /// The host will look at the name servers too, so that a change which takes too long is no error.
    fn wait(&self, change: &str) -> Result<(), Error> {
        let interval_s = self.settings.polling_interval_s.max(1);
        for _ in 0..=self.settings.propagation_timeout_s / interval_s {
            let answer = self.send(self.api.get(&[VERSION, "change", change]))?;
            if xml::text(&String::from_utf8_lossy(answer.body()), "Status").is_some_and(|status| status == "INSYNC") {
                return Ok(());
            }
            timer::sleep(interval_s.saturating_mul(1_000));
        }
        log::write(Level::Warn, &format!("the change `{change}` is not at all name servers yet"), &[]);
        Ok(())
    }

    fn send<'a>(&'a self, call: Call<'a>) -> Result<Answer<'a>, Error> {
        let answer = self.keys.sign(call, &self.scope, clock::unix_ms()).send_for_any_status()?;
        if answer.is_success() { Ok(answer) } else { Err(refusal(&answer)) }
    }
}

impl RecordSet {
    fn contains(&self, value: &str) -> bool {
        self.values.iter().any(|given| txt::unquote(given) == value)
    }
}

fn refusal(answer: &Answer<'_>) -> Error {
    let body = String::from_utf8_lossy(answer.body());
    let (code, message) = (xml::text(&body, "Code"), xml::text(&body, "Message"));
    let kind = match code.as_deref() {
        Some(code) if BUSY.contains(&code) => ErrorKind::RateLimited,
        _ => answer.refusal().kind,
    };
    let said: Vec<String> = code.into_iter().chain(message).collect();
    answer.refusal_of(kind, (!said.is_empty()).then(|| said.join(": ")).as_deref())
}

#[cfg(test)]
mod tests {
    use weir_sdk::testing::{Host, VALUE, challenge};

    use super::*;

    const API: &str = "https://route53.amazonaws.com/2013-04-01";
    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret-key")];

    fn host() -> Host {
        Host::of::<Route53>(&KEYS)
    }

    fn www() -> Challenge {
        challenge("_acme-challenge.www.example.com.", "example.com.")
    }

    /// A private zone of the same name, and another public one, are there too.
    fn zones(host: &Host) {
        let zone = |id: &str, name: &str, private: bool| {
            format!(
                "<HostedZone><Id>/hostedzone/{id}</Id><Name>{name}</Name><CallerReference>x</CallerReference>\
                 <Config><PrivateZone>{private}</PrivateZone></Config></HostedZone>"
            )
        };
        let zones =
            [zone("ZP", "example.com.", true), zone("Z1", "example.com.", false), zone("Z2", "example.net.", false)];
        let body = format!(
            "<ListHostedZonesByNameResponse><HostedZones>{}</HostedZones></ListHostedZonesByNameResponse>",
            zones.concat()
        );
        host.expect("GET", &format!("{API}/hostedzonesbyname?dnsname=example.com")).answer_with(200, &[], &body);
    }

    fn read(host: &Host, name: &str, values: &[&str]) {
        let records: String =
            values.iter().map(|value| format!("<ResourceRecord><Value>\"{value}\"</Value></ResourceRecord>")).collect();
        let body = format!(
            "<ListResourceRecordSetsResponse><ResourceRecordSets><ResourceRecordSet><Name>{name}</Name><Type>TXT</Type>\
             <TTL>60</TTL><ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></ResourceRecordSets>\
             <IsTruncated>true</IsTruncated></ListResourceRecordSetsResponse>"
        );
        let query = "maxitems=1&name=_acme-challenge.www.example.com.&type=TXT";
        host.expect("GET", &format!("{API}/hostedzone/Z1/rrset?{query}")).answer_with(200, &[], &body);
    }

    fn write(host: &Host, action: &str, ttl: u32, values: &[&str]) {
        let records: String = values
            .iter()
            .map(|value| format!("<ResourceRecord><Value>&quot;{value}&quot;</Value></ResourceRecord>"))
            .collect();
        let body = format!(
            "<ChangeResourceRecordSetsRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><ChangeBatch><Changes>\
             <Change><Action>{action}</Action><ResourceRecordSet><Name>_acme-challenge.www.example.com.</Name>\
             <Type>TXT</Type><TTL>{ttl}</TTL><ResourceRecords>{records}</ResourceRecords></ResourceRecordSet></Change>\
             </Changes></ChangeBatch></ChangeResourceRecordSetsRequest>"
        );
        host.expect("POST", &format!("{API}/hostedzone/Z1/rrset")).text(&body).answer_with(
            200,
            &[],
            &change("PENDING"),
        );
    }

    fn change(status: &str) -> String {
        format!("<R><ChangeInfo><Id>/change/C1</Id><Status>{status}</Status></ChangeInfo></R>")
    }

    fn look(host: &Host, status: &str) {
        host.expect("GET", &format!("{API}/change/C1")).answer_with(200, &[], &change(status));
    }

    fn refusal(code: &str, message: &str) -> String {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
        )
    }

    #[test]
    fn adds_a_set_where_there_is_none_and_waits_until_all_name_servers_have_it() {
        let host = host();
        zones(&host);
        read(&host, "_next.www.example.com.", &["of another name"]);
        write(&host, "UPSERT", 10, &[VALUE]);
        look(&host, "PENDING");
        look(&host, "INSYNC");
        assert_eq!(host.present::<Route53>(&www()).as_deref(), Ok(""));
        assert_eq!(host.slept_ms(), 4_000);
    }

    #[test]
    fn keeps_other_values_and_their_ttl() {
        let host = host().variables(&[("AWS_WAIT_FOR_RECORD_SETS_CHANGED", "false")]);
        zones(&host);
        read(&host, "_acme-challenge.www.example.com.", &["another value"]);
        write(&host, "UPSERT", 60, &["another value", VALUE]);
        assert_eq!(host.present::<Route53>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn takes_a_value_that_exists() {
        let host = host();
        zones(&host);
        read(&host, "_acme-challenge.www.example.com.", &[VALUE]);
        write(&host, "UPSERT", 60, &[VALUE]);
        look(&host, "INSYNC");
        assert_eq!(host.present::<Route53>(&www()).as_deref(), Ok(""));
    }

    #[test]
    fn a_change_that_takes_too_long_is_left_to_the_host() {
        let host = host().variables(&[("AWS_PROPAGATION_TIMEOUT", "8"), ("AWS_HOSTED_ZONE_ID", "/hostedzone/Z1")]);
        read(&host, "_acme-challenge.www.example.com.", &[]);
        write(&host, "UPSERT", 60, &[VALUE]);
        for _ in 0..3 {
            look(&host, "PENDING");
        }
        assert_eq!(host.present::<Route53>(&www()).as_deref(), Ok(""));
        assert_eq!(host.logged(), ["the change `C1` is not at all name servers yet"]);
    }

    /// The signatures are those that botocore 1.40 makes of the same.
    #[test]
    fn signs_as_amazons_own_library_does() {
        let host = host().variables(&[("AWS_SESSION_TOKEN", "session-token")]);
        let credential = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-east-1/route53/aws4_request";
        host.expect("GET", &format!("{API}/hostedzonesbyname?dnsname=example.com"))
            .header("x-amz-date", "20260102T030405Z")
            .header("x-amz-security-token", "session-token")
            .header(
                "authorization",
                &format!(
                    "{credential}, SignedHeaders=host;x-amz-date;x-amz-security-token, \
                 Signature=02e842b28b1f18a207444369148b8b1835db847afb11eebd8da92bf3ce771443"
                ),
            )
            .answer_with(200, &[], "");
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()), "there is no such zone");
        drop(host);

        let host = self::host().variables(&[("AWS_HOSTED_ZONE_ID", "Z1")]);
        let query = "maxitems=1&name=_acme-challenge.www.example.com.&type=TXT";
        host.expect("GET", &format!("{API}/hostedzone/Z1/rrset?{query}"))
            .header(
                "authorization",
                &format!(
                    "{credential}, SignedHeaders=host;x-amz-date, \
                 Signature=5d426cd17205d3db6d5cba7f764061a752dd10c0ca93fb1b2f09c3d2059f16fa"
                ),
            )
            .answer_with(200, &[], "");
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()), "there is no such record");
    }

    #[test]
    fn a_private_zone_is_used_where_it_is_asked_for() {
        let host = host().variables(&[("AWS_PRIVATE_ZONE", "true")]);
        zones(&host);
        let query = "maxitems=1&name=_acme-challenge.www.example.com.&type=TXT";
        host.expect("GET", &format!("{API}/hostedzone/ZP/rrset?{query}")).answer_with(200, &[], "");
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()));
    }

    #[test]
    fn says_which_keys_are_refused() {
        let host = host();
        let body = refusal("InvalidClientTokenId", "The security token included in the request is invalid.");
        host.expect("GET", &format!("{API}/hostedzonesbyname?dnsname=example.com")).answer_with(403, &[], &body);
        let error = host.present::<Route53>(&www()).expect_err("the keys are refused");
        let expected = "GET https://route53.amazonaws.com/2013-04-01/hostedzonesbyname: status 403: \
                        `InvalidClientTokenId: The security token included in the request is invalid.`; check \
                        AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthorized, expected));
    }

    #[test]
    fn says_which_zone_is_not_of_this_account() {
        let host = host();
        host.expect("GET", &format!("{API}/hostedzonesbyname?dnsname=example.com")).answer_with(200, &[], "<R></R>");
        let error = host.present::<Route53>(&www()).expect_err("there is no such zone");
        let expected = "find `example.com` among the public hosted zones of the account";
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, expected));
    }

    #[test]
    fn waits_where_it_is_too_fast_and_where_amazon_is_ill() {
        let host = host();
        let url = format!("{API}/hostedzonesbyname?dnsname=example.com");
        host.expect("GET", &url).answer_with(400, &[], &refusal("Throttling", "Rate exceeded"));
        host.expect("GET", &url).answer_with(429, &[("retry-after", "5")], "");
        host.expect("GET", &url).answer_with(503, &[], &refusal("ServiceUnavailable", "…"));
        zones(&host);
        read(&host, "_acme-challenge.www.example.com.", &["another value"]);
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()));
        assert_eq!(host.slept_ms(), 10_000);
    }

    #[test]
    fn a_refused_change_is_an_error_in_amazons_words() {
        let host = host();
        zones(&host);
        read(&host, "_acme-challenge.www.example.com.", &[]);
        let body = "<InvalidChangeBatch><Messages><Message>RRSet of type TXT is not permitted</Message></Messages></InvalidChangeBatch>";
        host.expect("POST", &format!("{API}/hostedzone/Z1/rrset")).answer_with(400, &[], body);
        let error = host.present::<Route53>(&www()).expect_err("the change is refused");
        assert!(error.message.ends_with("status 400: `RRSet of type TXT is not permitted`"), "{error:?}");
    }

    #[test]
    fn removes_its_value_and_leaves_the_others() {
        for handle in ["", "anything"] {
            let host = host();
            zones(&host);
            read(&host, "_acme-challenge.www.example.com.", &["another value", VALUE]);
            write(&host, "UPSERT", 60, &["another value"]);
            assert_eq!(host.cleanup::<Route53>(&www(), handle), Ok(()));
        }
    }

    #[test]
    fn deletes_the_set_as_it_is_with_the_last_value() {
        let host = host();
        zones(&host);
        read(&host, "_acme-challenge.www.example.com.", &[VALUE]);
        write(&host, "DELETE", 60, &[VALUE]);
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()));
    }

    #[test]
    fn what_is_gone_already_is_fine() {
        let host = host();
        zones(&host);
        read(&host, "_acme-challenge.www.example.com.", &["another value"]);
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()));
        zones(&host);
        read(&host, "_next.www.example.com.", &[VALUE]);
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()));
    }

    #[test]
    fn the_address_of_the_api_can_be_another_one() {
        let variables = [("AWS_ENDPOINT_URL_ROUTE_53", "http://127.0.0.1:4566"), ("AWS_HOSTED_ZONE_ID", "Z1")];
        let host = host().variables(&variables);
        let query = "maxitems=1&name=_acme-challenge.www.example.com.&type=TXT";
        host.expect("GET", &format!("http://127.0.0.1:4566/2013-04-01/hostedzone/Z1/rrset?{query}")).answer_with(
            200,
            &[],
            "",
        );
        assert_eq!(host.cleanup::<Route53>(&www(), ""), Ok(()));
    }

    #[test]
    fn says_which_variables_are_missing_or_not_supported() {
        for (variables, expected) in [
            (
                &[][..],
                "some credentials information are missing: AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY (profiles and roles of \
                 instances are not supported)",
            ),
            (
                &[KEYS[0], KEYS[1], ("AWS_ASSUME_ROLE_ARN", "arn:aws:iam::1:role/dns")],
                "use AWS_ASSUME_ROLE_ARN: roles are not supported; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of a \
                 user who may change the zone",
            ),
        ] {
            let host = Host::of::<Route53>(variables);
            let error = host.init::<Route53>().err().expect("it cannot be used");
            assert_eq!((error.kind, error.message.as_str()), (ErrorKind::InvalidConfig, expected));
        }
    }

    #[test]
    fn has_the_defaults_of_lego() {
        let host = host();
        let (_, timing) = host.init::<Route53>().expect("the keys are there");
        assert_eq!(timing, Timing { propagation_timeout_s: 120, polling_interval_s: 4, sequential: false });
    }
}
