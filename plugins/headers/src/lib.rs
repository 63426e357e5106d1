//! `headers`: sets and removes headers, answers CORS preflights and sends security headers. What is the same for every
//! request goes into the plan, so that most configurations cost no call at all.

mod config;
mod cors;
mod custom;
mod secure;
mod seen;

use weir_sdk::{About, Decision, Error, Middleware, Plan, Request, Response, ResponseEdit, ResponseVerdict};

use config::Config;
use cors::Cors;
use secure::{AllowedHosts, HttpsOnly};
use seen::Seen;

/// What one configuration leaves to do for each request.
pub struct Headers {
    cors: Option<Cors>,
    allowed_hosts: Option<AllowedHosts>,
    /// Headers for clients that use HTTPS up to a proxy before this one.
    https_only: Option<HttpsOnly>,
}

impl Middleware for Headers {
    type Config = Config;

    const ABOUT: About = weir_sdk::about!("headers").config_schema(include_str!("../config.schema.json"));

    fn init(config: Config) -> Result<(Self, Plan), Error> {
        Self::new(&config)
    }

    fn on_request(&self, request: &Request<'_>) -> Decision {
        if let Some(reply) = self.cors.as_ref().and_then(|cors| cors.preflight(request)) {
            return reply.into();
        }
        if let Some(reply) = self.allowed_hosts.as_ref().and_then(|hosts| hosts.refuse(request)) {
            return reply.into();
        }
        let seen = Seen {
            https: self.https_only.as_ref().is_some_and(|https_only| https_only.applies(request)),
            origin: self.cors.as_ref().and_then(|cors| cors.allowed_origin(request)),
        };
        Decision::pass().remember(seen.into_bytes())
    }

    fn on_response(&self, state: &[u8], response: &Response<'_>) -> ResponseVerdict {
        let seen = Seen::from_bytes(state);
        let mut edit = ResponseEdit::new();
        if seen.https {
            edit.headers.extend(self.https_only.iter().flat_map(HttpsOnly::edits));
        }
        if let Some(cors) = &self.cors {
            edit.headers.extend(cors.response_edits(seen.origin, response));
        }
        if edit.headers.is_empty() {
            return ResponseVerdict::Pass;
        }
        edit.into()
    }
}

weir_sdk::export!(Headers);

impl Headers {
    /// The order of the fixed edits is that of Traefik: a custom header wins over a security header, CORS over both.
    fn new(config: &Config) -> Result<(Self, Plan), Error> {
        if *config == Config::default() {
            return Err(Error::invalid_config("find an option that is set: name the headers to set"));
        }
        let (https_only, plan) = secure::plan(config, Plan::new())?;
        let plan = custom::plan(config, plan)?;
        let (cors, plan) = cors::plan(config, plan)?;
        let allowed_hosts = AllowedHosts::new(config)?;

        let mut names = Vec::new();
        names.extend(cors.iter().flat_map(Cors::request_headers));
        names.extend(allowed_hosts.iter().flat_map(AllowedHosts::request_headers));
        names.extend(https_only.iter().flat_map(HttpsOnly::request_headers));
        names.sort_unstable();
        names.dedup();

        let on_request = cors.is_some() || allowed_hosts.is_some() || https_only.is_some();
        let on_response = https_only.is_some() || cors.as_ref().is_some_and(Cors::wants_response);
        let plan = if on_request { plan.on_request(&names) } else { plan };
        let plan = if on_response { plan.on_response(&[]) } else { plan };
        Ok((Self { cors, allowed_hosts, https_only }, plan))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weir_sdk::testing::{request, response};
    use weir_sdk::{HeaderEdit, Reply, Transport};

    use super::*;

    const URL: &str = "http://example.com/";

    fn headers(config: Value) -> (Headers, Plan) {
        let config = serde_json::from_value(config).expect("a configuration of a test has the right types");
        Headers::new(&config).expect("a configuration of a test is valid")
    }

    fn problem(config: Value) -> String {
        let config = serde_json::from_value(config).expect("a configuration of a test has the right types");
        Headers::new(&config).err().expect("the configuration is wrong").message
    }

    /// `name: value` to set, `name` to remove; with `tls` in front where it is for TLS only.
    fn fixed(plan: &Plan) -> Vec<String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let edits = plan.request_edits.iter().chain(&plan.response_edits);
        let line = |edit: &HeaderEdit| match edit {
            HeaderEdit::Set((name, value)) => format!("{name}: {}", text(value)),
            HeaderEdit::Append((name, value)) => format!("+{name}: {}", text(value)),
            HeaderEdit::Remove(name) => name.clone(),
        };
        edits
            .map(
                |fixed| {
                    if fixed.on == Transport::Tls { format!("tls {}", line(&fixed.edit)) } else { line(&fixed.edit) }
                },
            )
            .collect()
    }

    /// Both phases for one request; the headers that the calls set.
    fn exchange(headers: &Headers, url: &str, sent: &[(&str, &str)], received: &[(&str, &str)]) -> Vec<HeaderEdit> {
        let decision = headers.on_request(&request("GET", url, sent));
        match headers.on_response(&decision.state, &response(200, received, b"")) {
            ResponseVerdict::Edit(edit) => edit.headers,
            _ => Vec::new(),
        }
    }

    fn preflight(headers: &Headers, origin: &str) -> Reply {
        let sent =
            [("Origin", origin), ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "X-A")];
        let decision = headers.on_request(&request("OPTIONS", URL, &sent));
        let weir_sdk::RequestVerdict::Reply(reply) = decision.verdict else { panic!("a preflight is answered") };
        reply
    }

    #[test]
    fn custom_headers_cost_no_call() {
        let (_, plan) = headers(json!({
            "customRequestHeaders": {"X-Forwarded-Proto": "https", "X-Remove": "", "Host": "other.example"},
            "customResponseHeaders": {"X-Added": "1", "Server": ""},
        }));
        let expected = ["host: other.example", "x-forwarded-proto: https", "x-remove", "server", "x-added: 1"];
        assert_eq!(fixed(&plan), expected);
        assert!(plan.phases.is_empty());
        assert_eq!(fixed(&headers(json!({"customRequestHeaders": {"Host": ""}})).1), [""; 0]);
    }

    #[test]
    fn refuses_what_http_does_not_allow() {
        assert!(problem(json!({})).contains("option"));
        assert!(problem(json!({"customRequestHeaders": {"X A": "1"}})).contains("`X A`"));
        assert!(problem(json!({"customResponseHeaders": {"X-A": "1\r\nX-B: 2"}})).contains("`x-a`"));
        assert!(problem(json!({"contentSecurityPolicy": "a\nb"})).contains("content-security-policy"));
        assert!(problem(json!({"accessControlAllowOriginListRegex": ["("]})).contains("`(`"));
    }

    #[test]
    fn security_headers_are_fixed() {
        let (_, plan) = headers(json!({
            "stsSeconds": 31_536_000, "stsIncludeSubdomains": true, "stsPreload": true,
            "frameDeny": true, "contentTypeNosniff": true, "browserXssFilter": true, "customBrowserXSSValue": "0",
            "referrerPolicy": "same-origin", "publicKey": "pin", "customResponseHeaders": {"X-Frame-Options": ""},
        }));
        let expected = [
            "tls strict-transport-security: max-age=31536000; includeSubDomains; preload",
            "tls public-key-pins: pin",
            "x-frame-options: DENY",
            "x-content-type-options: nosniff",
            "x-xss-protection: 0",
            "referrer-policy: same-origin",
            "x-frame-options",
        ];
        assert_eq!(fixed(&plan), expected);
        assert!(plan.phases.is_empty());
    }

    #[test]
    fn strict_transport_can_be_forced_and_left_out() {
        let sts = |config| fixed(&headers(config).1);
        assert_eq!(sts(json!({"stsSeconds": 5, "forceSTSHeader": true})), ["strict-transport-security: max-age=5"]);
        assert_eq!(sts(json!({"stsSeconds": 0, "stsPreload": true})), [""; 0]);
        let development =
            json!({"stsSeconds": 5, "forceSTSHeader": true, "isDevelopment": true, "allowedHosts": ["x"]});
        let (headers, plan) = headers(development);
        assert_eq!((fixed(&plan), plan.phases.is_empty()), (vec![], true));
        assert!(headers.allowed_hosts.is_none());
    }

    #[test]
    fn a_header_may_prove_https() {
        let (headers, plan) = headers(json!({"stsSeconds": 100, "sslProxyHeaders": {"X-Forwarded-Proto": "https"}}));
        assert_eq!(fixed(&plan), ["tls strict-transport-security: max-age=100"]);
        assert_eq!(plan.request_headers, ["x-forwarded-proto"]);
        let sts = [HeaderEdit::set("strict-transport-security", "max-age=100")];
        assert_eq!(exchange(&headers, URL, &[("X-Forwarded-Proto", "https")], &[]), sts);
        assert_eq!(exchange(&headers, URL, &[("X-Forwarded-Proto", "http")], &[]), []);
        assert_eq!(
            exchange(&headers, "https://example.com", &[("X-Forwarded-Proto", "https")], &[]),
            [],
            "the plan does"
        );
    }

    #[test]
    fn serves_allowed_hosts_only() {
        let (headers, _) = headers(json!({"allowedHosts": ["Example.com"], "hostsProxyHeaders": ["X-Host"]}));
        let refused = |url, sent: &[_]| headers.on_request(&request("GET", url, sent)) != Decision::pass();
        assert!(!refused(URL, &[]));
        assert!(refused("http://example.com:8080/", &[]));
        assert!(refused(URL, &[("X-Host", "other.example")]));
        assert!(!refused("http://other.example/", &[("X-Host", "EXAMPLE.com")]));
    }

    #[test]
    fn any_origin_is_fixed() {
        let (headers, plan) = headers(json!({"accessControlAllowOriginList": ["*"]}));
        assert_eq!(fixed(&plan), ["access-control-allow-origin: *"]);
        assert_eq!(exchange(&headers, URL, &[("Origin", "https://x.org")], &[]), []);
        assert_eq!(preflight(&headers, "https://x.org"), Reply::new(200).header("access-control-allow-origin", "*"));
    }

    #[test]
    fn credentials_want_names_in_place_of_stars() {
        let (headers, plan) = headers(json!({
            "accessControlAllowOriginList": ["*"], "accessControlAllowCredentials": true, "accessControlExposeHeaders": ["*"],
            "accessControlAllowHeaders": ["*"], "accessControlAllowMethods": ["*"], "accessControlMaxAge": 0,
        }));
        assert_eq!(fixed(&plan), ["access-control-allow-credentials: true"]);
        let origin = [HeaderEdit::set("access-control-allow-origin", "https://x.org")];
        assert_eq!(exchange(&headers, URL, &[("Origin", "https://x.org")], &[]), origin);
        assert_eq!(exchange(&headers, URL, &[], &[]), []);
        let expected = Reply::new(200)
            .header("access-control-allow-credentials", "true")
            .header("access-control-allow-headers", "X-A")
            .header("access-control-allow-methods", "PUT")
            .header("access-control-max-age", "0")
            .header("access-control-allow-origin", "https://x.org");
        assert_eq!(preflight(&headers, "https://x.org"), expected);
    }

    #[test]
    fn origins_are_listed_or_match() {
        let (headers, _) = headers(json!({
            "accessControlAllowOriginList": ["https://a.org"],
            "accessControlAllowOriginListRegex": [r"^https://\w+\.b\.org$"],
            "accessControlAllowMethods": ["GET", "PUT"],
        }));
        for (origin, allowed) in [
            ("https://a.org", true),
            ("https://A.org", false),
            ("https://x.b.org", true),
            ("https://x.b.org.evil.net", false),
            ("", false),
        ] {
            let edits = exchange(&headers, URL, &[("Origin", origin)], &[]);
            assert_eq!(edits.contains(&HeaderEdit::set("access-control-allow-origin", origin)), allowed, "{origin}");
        }
        let refused = Reply::new(200).header("access-control-allow-methods", "GET,PUT");
        assert_eq!(preflight(&headers, "https://evil.net"), refused);
        let no_preflight = headers.on_request(&request("OPTIONS", URL, &[("Origin", "https://x.c.org")]));
        assert_eq!(no_preflight, Decision::pass());
    }

    #[test]
    fn vary_gets_the_origin_once() {
        let (headers, _) = headers(json!({"addVaryHeader": true}));
        let vary = |lines: &[_]| exchange(&headers, URL, &[], lines);
        assert_eq!(vary(&[]), [HeaderEdit::set("vary", "Origin")]);
        assert_eq!(vary(&[("Vary", "Accept-Encoding")]), [HeaderEdit::set("vary", "Accept-Encoding,Origin")]);
        assert_eq!(vary(&[("Vary", "A"), ("Vary", "B")]), [HeaderEdit::set("vary", "A,B,Origin")]);
        assert_eq!(vary(&[("Vary", "A, origin")]), []);
    }

    #[test]
    fn the_schema_has_the_options_of_the_code() {
        let schema: Value = serde_json::from_str(include_str!("../config.schema.json")).expect("the schema is JSON");
        for (name, option) in schema["properties"].as_object().expect("the schema has options") {
            let sample = match option["type"].as_str() {
                Some("string") => json!("x"),
                Some("boolean") => json!(true),
                Some("integer") => json!(1),
                Some("array") => json!(["x"]),
                _ => json!({"x": "y"}),
            };
            let config: Config = serde_json::from_value(json!({ name: sample })).expect("the type is right");
            assert!(config != Config::default(), "{name}");
        }
    }
}
