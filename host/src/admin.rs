//! The internal services: `api@internal`, `dashboard@internal`, `ping@internal`, `prometheus@internal`, `whoami@internal`,
//! `acme-http@internal`, `noop@internal`.
//!
//! Routers reach them like any other service, so that rules and basic auth apply to them. They answer from the live
//! snapshot and change nothing.

mod api;
mod certificates;
mod plugins;
mod prometheus;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use http::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;

use crate::acme::Acme;
use crate::config::Install;
use crate::http::{Request, Response, plain_text};
use crate::plugin::{GuestMetrics, Usages};
use crate::service::Internal;
use crate::snapshot::Snapshot;
use crate::telemetry::Metrics;

const DASHBOARD: &str = include_str!("admin/dashboard.html");
const DASHBOARD_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Where CAs look for the proof of HTTP-01.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Answers for the internal services.
pub struct Admin {
    pub acme: Arc<Acme>,
    pub live: Arc<ArcSwap<Snapshot>>,
    pub install: Arc<Install>,
    pub started: Timestamp,
    /// Set when the proxy has been told to end: ping then tells load balancers in front.
    pub draining: Arc<AtomicBool>,
    pub host_name: String,
    pub usages: Arc<Usages>,
    /// What plugins count for themselves.
    pub guest_metrics: Arc<GuestMetrics>,
    pub metrics: Option<Arc<Metrics>>,
}

impl Admin {
    pub fn answer(&self, service: Internal, request: &Request) -> Response {
        match service {
            Internal::Api => self.api_or_dashboard(request),
            Internal::Dashboard => self.dashboard(request.head.uri.path()),
            Internal::Ping => self.ping(),
            Internal::Prometheus => prometheus::answer(self),
            Internal::Whoami => self.whoami(request),
            Internal::Acme => self.challenge(request),
            Internal::Noop => plain_text(StatusCode::IM_A_TEAPOT, "I'm a teapot\n"),
        }
    }

    /// As in Traefik, `api@internal` serves the dashboard too, so that one router is enough for both.
    fn api_or_dashboard(&self, request: &Request) -> Response {
        let path = self.below_base(request.head.uri.path());
        if path != "/api" && !path.starts_with("/api/") {
            return self.dashboard(request.head.uri.path());
        }
        if !matches!(request.head.method, Method::GET | Method::HEAD) {
            let mut response = plain_text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        api::answer(self, path, request.head.uri.query().unwrap_or_default())
    }

    fn dashboard(&self, path: &str) -> Response {
        let shown = self.install.api.as_ref().is_some_and(|api| api.dashboard);
        match self.below_base(path) {
            "/" if shown => redirect(&format!("{}/dashboard/", self.base())),
            "/dashboard/" if shown => page(),
            _ => plain_text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// Nothing but a status and its word, as load balancers expect it of Traefik.
    fn ping(&self) -> Response {
        if !self.draining.load(Ordering::Relaxed) {
            return Response::new("OK".into());
        }
        let status = self.install.ping.as_ref().map_or(503, |ping| ping.terminating_status_code);
        let mut response = Response::new("Service Unavailable".into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        response
    }

    /// The request as a server would see it: something to route to before there is a server.
    fn whoami(&self, request: &Request) -> Response {
        let head = &request.head;
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut text = format!("Hostname: {}\nRemoteAddr: {}\n", self.host_name, request.connection.client);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} {target} {:?}\nHost: {}", head.method, head.version, request.authority());
        for (name, value) in head.headers.iter().filter(|(name, _)| *name != http::header::HOST) {
            let _ = writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
        }
        let mut response = plain_text(StatusCode::OK, "");
        *response.body_mut() = bytes::Bytes::from(text).into();
        response
    }

    /// What a CA looks for by HTTP-01 (RFC 8555, section 8.3).
    fn challenge(&self, request: &Request) -> Response {
        let token = request.head.uri.path().strip_prefix(CHALLENGES).unwrap_or_default();
        let Some(authorization) = self.acme.answers().http(token, request.authority()) else {
            return plain_text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let mut response = Response::new(bytes::Bytes::from(authorization).into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        response
    }

    fn base(&self) -> &str {
        self.install.api.as_ref().map_or("", |api| api.base_path.trim_end_matches('/'))
    }

    fn below_base<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(self.base()).filter(|path| path.starts_with('/')).unwrap_or(path)
    }
}

fn page() -> Response {
    let mut response = Response::new(DASHBOARD.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(DASHBOARD_POLICY));
    response
}

fn redirect(location: &str) -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::FOUND;
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
