//! Signature Version 4 of Amazon's APIs: an HMAC over the request by a key that is made of the secret, the day, the region
//! and the service. Called for each request.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use weir_sdk::Error;
use weir_sdk::dns::{Call, Client, variables};

/// Who signs.
pub(crate) struct Keys {
    id: String,
    secret: String,
    session: Option<String>,
}

/// Where Route 53 is, and the region that the signature names.
pub(crate) struct Scope {
    pub(crate) endpoint: &'static str,
    region: &'static str,
}

impl Keys {
    pub(crate) fn read() -> Result<Self, Error> {
        let keys = variables::required(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
        let [id, secret] = keys.map_err(|error| {
            Error::invalid_config(format!("{} (profiles and roles of instances are not supported)", error.message))
        })?;
        Ok(Self { id, secret, session: variables::optional(&["AWS_SESSION_TOKEN"]) })
    }

    /// Keeps them out of errors.
    pub(crate) fn hidden_in(&self, client: Client) -> Client {
        let client = client.secret("AWS_ACCESS_KEY_ID", &self.id).secret("AWS_SECRET_ACCESS_KEY", &self.secret);
        match &self.session {
            Some(session) => client.secret("AWS_SESSION_TOKEN", session),
            None => client,
        }
    }

    pub(crate) fn sign<'a>(&self, call: Call<'a>, scope: &Scope, now_ms: u64) -> Call<'a> {
        let time = time(now_ms);
        let day = &time[..8];
        let (host, path, query) = parts(call.url());
        let mut headers = vec![("host", host), ("x-amz-date", time.clone())];
        if let Some(session) = &self.session {
            headers.push(("x-amz-security-token", session.clone()));
        }
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let content = hex(&Sha256::digest(call.content()));
        let canonical = format!("{}\n{path}\n{query}\n{lines}\n{names}\n{content}", call.method());

        let credential = format!("{day}/{}/route53/aws4_request", scope.region);
        let digest = hex(&Sha256::digest(canonical));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{credential}\n{digest}");
        let root = format!("AWS4{}", self.secret).into_bytes();
        let key = [day, scope.region, "route53", "aws4_request"].iter().fold(root, |key, part| hmac(&key, part));
        let signature = hex(&hmac(&key, &to_sign));

        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{credential}, SignedHeaders={names}, Signature={signature}",
            self.id
        );
        let call = headers.iter().skip(1).fold(call, |call, (name, value)| call.header(name, value));
        call.header("authorization", &authorization)
    }
}

impl Scope {
    /// Route 53 is there once for the world, and once more for China and for the government of the United States.
    pub(crate) fn of_region(region: &str) -> Self {
        if region.starts_with("cn-") {
            return Self { endpoint: "https://route53.amazonaws.com.cn", region: "cn-northwest-1" };
        }
        if region.starts_with("us-gov-") {
            return Self { endpoint: "https://route53.us-gov.amazonaws.com", region: "us-gov-west-1" };
        }
        Self { endpoint: "https://route53.amazonaws.com", region: "us-east-1" }
    }
}

/// Host, path and query of an address. Queries are written in the order of their names, as the signature wants them.
fn parts(url: String) -> (String, String, String) {
    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    (host.to_owned(), path.to_owned(), query.to_owned())
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20260102T030405Z`
fn time(now_ms: u64) -> String {
    let seconds = now_ms / 1_000;
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// The date so many days after 1970-01-01, counted in years that begin with March, in which a leap day is the last.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_time_as_iso_8601_does_without_its_marks() {
        for (seconds, expected) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_767_323_045, "20260102T030405Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(time(seconds * 1_000), expected);
        }
    }

    #[test]
    fn a_region_decides_where_route_53_is() {
        let endpoint = |region| Scope::of_region(region).endpoint;
        assert_eq!(endpoint(""), "https://route53.amazonaws.com");
        assert_eq!(endpoint("eu-central-1"), "https://route53.amazonaws.com");
        assert_eq!(endpoint("cn-north-1"), "https://route53.amazonaws.com.cn");
        assert_eq!(endpoint("us-gov-east-1"), "https://route53.us-gov.amazonaws.com");
    }
}
