//! The forwarding fields: who may set them, and what they are when nobody has.
//!
//! They are set before any middleware, so that middlewares see and may change them. `X-Forwarded-For` alone is completed
//! at the very end, by `forward`.

use std::net::IpAddr;

use http::header::{Entry, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::http::{Connection, may_be_taken_for};

static PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
static HOST_NAME: HeaderName = HeaderName::from_static("x-forwarded-host");
static SERVER: HeaderName = HeaderName::from_static("x-forwarded-server");
static REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The fields that say where a request came from. A client's own are removed, in either spelling.
const MANAGED: [&str; 13] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-forwarded-uri",
    "x-real-ip",
    "x-scheme",
];

/// Whose forwarding fields are believed (Traefik's `forwardedHeaders`).
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub everybody: bool,
    pub networks: Vec<IpNet>,
}

impl Trust {
    pub fn includes(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.everybody || self.networks.iter().any(|network| network.contains(&client))
    }
}

/// Leaves the forwarding fields as servers may rely on them. `proxy` is this host's name.
pub fn set(headers: &mut HeaderMap, connection: &Connection, trusted: bool, websocket: bool, proxy: &HeaderValue) {
    remove(headers, trusted);
    // One growth of the table instead of two, `X-Forwarded-For` included.
    headers.reserve(6);
    set_if_missing(headers, &REAL_IP, || connection.client_address.clone());
    let secure = connection.tls.is_some();
    let proto = match (websocket, secure) {
        (false, false) => "http",
        (false, true) => "https",
        (true, false) => "ws",
        (true, true) => "wss",
    };
    set_if_missing(headers, &PROTO, || HeaderValue::from_static(proto));
    if is_missing(headers, &PORT) {
        let port = port(headers, secure);
        headers.insert(&PORT, port);
    }
    if let Some(host) = headers.get(HOST).cloned() {
        set_if_missing(headers, &HOST_NAME, || host);
    }
    headers.insert(&SERVER, proxy.clone());
}

/// Removes what a client may not say. A trusted one may, but in the one spelling that it manages itself.
fn remove(headers: &mut HeaderMap, trusted: bool) {
    let is_forbidden = |name: &str| is_managed(name) && !(trusted && MANAGED.contains(&name));
    // Most requests have none of them: one pass over the names costs less than a look-up for each.
    let sent: Vec<HeaderName> = headers.keys().filter(|name| is_forbidden(name.as_str())).cloned().collect();
    for name in sent {
        headers.remove(name);
    }
}

/// Whether servers may take a field for one of ours.
fn is_managed(name: &str) -> bool {
    name.starts_with('x') && MANAGED.into_iter().any(|managed| may_be_taken_for(name, managed))
}

fn is_missing(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get(name).is_none_or(HeaderValue::is_empty)
}

fn set_if_missing(headers: &mut HeaderMap, name: &HeaderName, value: impl FnOnce() -> HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(value())),
        Entry::Occupied(mut entry) if entry.get().is_empty() => drop(entry.insert(value())),
        Entry::Occupied(_) => {}
    }
}

/// The port the client named, else that of the scheme.
fn port(headers: &HeaderMap, secure: bool) -> HeaderValue {
    let authority = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let named = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| is_port(port));
    if let Some(port) = named.and_then(|port| HeaderValue::from_str(port).ok()) {
        return port;
    }
    let secure = secure || headers.get(&PROTO).is_some_and(|proto| proto == "https" || proto == "wss");
    HeaderValue::from_static(if secure { "443" } else { "80" })
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::TlsSession;

    fn connection(tls: bool) -> Connection {
        let session = TlsSession { server_name: None, version: "", cipher: "", client_certificates: Vec::new() };
        Connection {
            client: "10.0.0.9:1234".parse().expect("an address"),
            client_address: HeaderValue::from_static("10.0.0.9"),
            append_client_address: true,
            entry_point: Arc::from("web"),
            tls: tls.then_some(session),
        }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn an_untrusted_client_decides_nothing() {
        let mut fields = headers(&[
            ("host", "a.example:8443"),
            ("x-forwarded-proto", "https"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-prefix", "/evil"),
            ("x-real-ip", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
        ]);
        set(&mut fields, &connection(false), false, false, &HeaderValue::from_static("proxy"));
        let expected = headers(&[
            ("host", "a.example:8443"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "10.0.0.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-host", "a.example:8443"),
            ("x-forwarded-server", "proxy"),
        ]);
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_trusted_proxy_is_believed_where_it_speaks() {
        let mut fields = headers(&[
            ("host", "a.example"),
            ("x-forwarded-proto", "https"),
            ("x_forwarded_proto", "http"),
            ("x-real-ip", "1.1.1.1"),
        ]);
        set(&mut fields, &connection(false), true, false, &HeaderValue::from_static("proxy"));
        assert_eq!(fields["x-forwarded-proto"], "https");
        assert_eq!(fields["x-real-ip"], "1.1.1.1");
        assert_eq!(fields["x-forwarded-port"], "443");
        assert!(!fields.contains_key("x_forwarded_proto"));
    }

    #[test]
    fn websockets_have_schemes_of_their_own() {
        for (tls, proto, port) in [(false, "ws", "80"), (true, "wss", "443")] {
            let mut fields = headers(&[("host", "a")]);
            set(&mut fields, &connection(tls), false, true, &HeaderValue::from_static("proxy"));
            assert_eq!(fields["x-forwarded-proto"], proto);
            assert_eq!(fields["x-forwarded-port"], port);
        }
    }

    #[test]
    fn mapped_addresses_are_those_they_map() {
        let trust = Trust { everybody: false, networks: vec!["10.0.0.0/8".parse().expect("a network")] };
        assert!(trust.includes("10.1.2.3".parse().expect("an address")));
        assert!(trust.includes("::ffff:10.1.2.3".parse().expect("an address")));
        assert!(!trust.includes("11.0.0.1".parse().expect("an address")));
    }
}
