//! Weir as its users meet it: a proxy between clients and servers, each test with its own. `support` holds them.

mod access_log;
mod acme;
mod admin;
mod architecture;
mod article;
mod bodies;
mod command;
mod errors;
mod examples;
mod floods;
mod forward;
mod fuzz;
mod hostile;
mod hostile_plugins;
mod hostile_upstreams;
mod limits;
mod load_balancing;
mod metrics;
mod middlewares;
mod ntlm;
mod plugin_command;
mod plugins;
mod providers;
mod reload;
mod routing;
mod secrets;
mod servers;
mod shared;
mod slow;
mod tls;
mod transports;
mod websocket;

mod support;

/// That of the binary. What threads of a process wait for each other in the system, where one of them takes or gives back
/// memory, depends on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
