//! Weir: a reverse proxy that reads Traefik's configuration and is extended by WebAssembly components.
//!
//! The modules in the order in which a request, and then a reload, meets them. ARCHITECTURE.md says which may know which.

pub mod command;
pub mod server;
pub mod watch;

pub mod entrypoint;
pub mod forward;
pub mod http;
pub mod middleware;
pub mod plugin;
pub mod router;
pub mod rule;
pub mod service;
pub mod target;

pub mod admin;
pub mod config;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
