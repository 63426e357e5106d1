//! Weir as its users meet it: a proxy between clients and servers, each test with its own. `support` holds them.

mod article;
mod forward;
mod load_balancing;
mod plugins;
mod reload;
mod routing;
mod websocket;

mod support;
