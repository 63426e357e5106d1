//! The Rust side of `wit/`: a module for each world whose exports the host calls.
//!
//! What both import is generated once, so that one [`State`](super::imports::State) offers it to both.

pub(super) mod middleware {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "middleware-plugin",
        imports: { "weir:plugin/fetch.send": async | trappable, "weir:plugin/random.bytes": trappable },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// Of a middleware that works on bodies, beside its other exports.
pub(super) mod filter {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package weir:host;
            world filter {
                export weir:plugin/body-filter@0.1.0;
            }
        ",
        exports: { default: async },
        with: { "weir:plugin/types": super::middleware::weir::plugin::types },
    });
}

pub(super) mod dns_provider {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "dns-provider",
        imports: { "weir:plugin/timer.sleep": async | trappable },
        exports: { default: async },
        with: {
            "weir:plugin/types": super::middleware::weir::plugin::types,
            "weir:plugin/log": super::middleware::weir::plugin::log,
            "weir:plugin/clock": super::middleware::weir::plugin::clock,
            "weir:plugin/random": super::middleware::weir::plugin::random,
            "weir:plugin/secrets": super::middleware::weir::plugin::secrets,
            "weir:plugin/fetch": super::middleware::weir::plugin::fetch,
        },
    });
}
