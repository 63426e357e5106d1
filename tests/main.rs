//! Weir as its users meet it: a proxy between clients and servers, each test with its own. `support` holds them.

mod article;
mod plugins;
mod reload;

mod support;
