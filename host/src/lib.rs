//! Weir: a reverse proxy that reads Traefik's configuration and is extended by WebAssembly components.
//!
//! The modules in the order in which a start, then a request, then a reload meets them. ARCHITECTURE.md says which may use
//! which.

pub mod command;
pub mod server;
pub mod watch;

pub mod entrypoint;
pub mod target;
pub mod router;
pub mod rule;
pub mod middleware;
pub mod plugin;
pub mod service;
pub mod forward;
pub mod http;

pub mod config;
pub mod snapshot;
pub mod acme;
pub mod fetch;
pub mod tls;
pub mod admin;
pub mod telemetry;
