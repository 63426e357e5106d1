//! `ipAllowList`: lets clients pass whose IP address is listed, and refuses all others. The address is that of the
//! connection, never one from a header.

use std::net::IpAddr;

use http::StatusCode;
use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use weir_sdk::{About, Decision, Error, Middleware, Plan, Reply, Request};

/// One list, and the answer to who is not on it.
pub struct IpAllowList {
    networks: Vec<IpNet>,
    refusal: Reply,
}

/// The options, named as in Traefik.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    source_range: Vec<String>,
    #[serde(default)]
    reject_status_code: u16,
    #[serde(default)]
    ip_strategy: IpStrategy,
}

/// Other ways to tell who the client is. Each is refused, unless it says what holds anyway.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct IpStrategy {
    depth: i64,
    #[serde(rename = "excludedIPs")]
    excluded_ips: Vec<String>,
    ipv6_subnet: Option<i64>,
}

impl Middleware for IpAllowList {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("ipAllowList").config_schema(include_str!("../config.schema.json")).guards();

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        Ok((Self::new(&config)?, Plan::new().on_request(&[])))
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        if self.allows(&request.client_address()) {
            return Decision::pass();
        }
        self.refusal.clone().into()
    }
}

weir_sdk::export!(IpAllowList);

impl IpAllowList {
    fn new(config: &Config) -> Result<Self, Error> {
        config.ip_strategy.check()?;
        if config.source_range.is_empty() {
            return Err(Error::invalid_config(
                "use an empty `sourceRange`, which would let nobody pass: write `10.0.0.0/8`, for instance",
            ));
        }
        let networks = config.source_range.iter().map(|text| network(text));
        Ok(Self { networks: networks.collect::<Result<_, _>>()?, refusal: refusal(config.reject_status_code)? })
    }

    /// What is no address is on no list.
    fn allows(&self, client: &str) -> bool {
        client.parse::<IpAddr>().is_ok_and(|client| {
            let client = client.to_canonical();
            self.networks.iter().any(|network| network.contains(&client))
        })
    }
}

impl IpStrategy {
    fn check(&self) -> Result<(), Error> {
        let options = [
            ("depth", self.depth != 0),
            ("excludedIPs", !self.excluded_ips.is_empty()),
            ("ipv6Subnet", self.ipv6_subnet.is_some()),
        ];
        match options.into_iter().find(|&(_, given)| given) {
            Some((option, _)) => Err(Error::invalid_config(format!(
                "tell the client's address by `ipStrategy.{option}`, which is not supported yet"
            ))),
            None => Ok(()),
        }
    }
}

/// An address, or a network, as IPv4 also where it is written as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2).
fn network(text: &str) -> Result<IpNet, Error> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        Error::invalid_config(format!(
            "read `{text}` of `sourceRange`: write an IP address, or a network such as `10.0.0.0/8`"
        ))
    })?;
    if let IpNet::V6(mapped) = network
        && let Some(address) = mapped.addr().to_ipv4_mapped()
        && let Some(Ok(network)) = mapped.prefix_len().checked_sub(96).map(|length| Ipv4Net::new(address, length))
    {
        return Ok(network.into());
    }
    Ok(network)
}

/// The answer with that status, or with 403 if it is 0.
fn refusal(status: u16) -> Result<Reply, Error> {
    let status = if status == 0 { 403 } else { status };
    let text = StatusCode::from_u16(status)
        .ok()
        .filter(|_| (200..600).contains(&status))
        .and_then(|status| status.canonical_reason());
    match text {
        Some(text) => Ok(Reply::new(status).body(text)),
        None => Err(Error::invalid_config(format!(
            "use `{status}` as the `rejectStatusCode`: write a status of HTTP from 200 on"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::testing::request;

    use super::*;

    fn configured(config: Value) -> Result<IpAllowList, Error> {
        let config = serde_json::from_value(config).expect("a configuration of a test has the right types");
        IpAllowList::new(&config)
    }

    fn list(networks: &[&str]) -> IpAllowList {
        configured(json!({ "sourceRange": networks })).expect("a configuration of a test is valid")
    }

    fn problem(config: Value) -> String {
        configured(config).err().expect("the configuration is wrong").message
    }

    #[test]
    fn addresses_and_networks_are_listed() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7/24", "192.0.2.200", "192.0.3.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("0.0.0.0/0", "192.0.2.1", "::1"),
            ("::1", "0:0:0:0:0:0:0:1", "::2"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
        ] {
            assert!(list(&[network]).allows(inside), "{inside} in {network}");
            assert!(!list(&[network]).allows(outside), "{outside} in {network}");
            let with_another = list(&["198.51.100.1", network]);
            assert!(with_another.allows(inside) && with_another.allows("198.51.100.1"));
        }
    }

    #[test]
    fn mapped_addresses_are_the_same_as_their_ipv4() {
        for network in ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:a01:101", "10.1.1.1"] {
            for client in ["10.1.1.1", "::ffff:10.1.1.1", "::ffff:a01:101"] {
                assert!(list(&[network]).allows(client), "{client} in {network}");
            }
            assert!(!list(&[network]).allows("::ffff:11.1.1.1"), "{network}");
        }
    }

    #[test]
    fn what_is_no_address_does_not_pass() {
        for client in ["", "10.0.0.01", "10.0.0", "10.0.0.1:80", "fe80::1%eth0", "localhost"] {
            assert!(!list(&["0.0.0.0/0", "::/0"]).allows(client), "{client}");
        }
    }

    #[test]
    fn refuses_with_the_text_of_the_status() {
        let decide = |config| {
            let list = configured(config).expect("a configuration of a test is valid");
            let spoofed = [("X-Forwarded-For", "10.0.0.1"), ("X-Real-Ip", "10.0.0.1")];
            list.on_request(&request("GET", "http://example.com/", &spoofed))
        };
        let networks = json!(["10.0.0.0/8"]);
        let forbidden = Decision::from(Reply::new(403).body("Forbidden"));
        assert_eq!(decide(json!({"sourceRange": networks})), forbidden);
        assert_eq!(
            decide(
                json!({"sourceRange": networks, "rejectStatusCode": 0, "ipStrategy": {"depth": 0, "excludedIPs": []}})
            ),
            forbidden
        );
        assert_eq!(
            decide(json!({"sourceRange": networks, "rejectStatusCode": 404, "ipStrategy": {}})),
            Reply::new(404).body("Not Found").into()
        );
        assert_eq!(decide(json!({"sourceRange": ["192.0.2.0/24"]})), Decision::pass());
    }

    #[test]
    fn refuses_what_cannot_be_used() {
        assert!(problem(json!({"sourceRange": []})).contains("`sourceRange`"));
        for network in ["", "10.0.0.0/33", "10.0.0.256", "example.com", "10.0.0.0/8 "] {
            assert!(problem(json!({"sourceRange": ["::1", network]})).contains(&format!("`{network}`")));
        }
        for status in [1, 100, 199, 299, 600, 999] {
            let message = problem(json!({"sourceRange": ["::1"], "rejectStatusCode": status}));
            assert!(message.contains(&format!("`{status}`")), "{message}");
        }
        for (strategy, option) in [
            (json!({"depth": 1}), "`ipStrategy.depth`"),
            (json!({"excludedIPs": ["::1"]}), "`ipStrategy.excludedIPs`"),
            (json!({"ipv6Subnet": 64}), "`ipStrategy.ipv6Subnet`"),
        ] {
            assert!(problem(json!({"sourceRange": ["::1"], "ipStrategy": strategy})).contains(option));
        }
    }
}
