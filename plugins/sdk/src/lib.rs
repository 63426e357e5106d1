//! What a plugin for Weir is written with: implement [`Middleware`], name the type in [`export!`], build for
//! `wasm32-wasip2`. The crate turns the calls of the host (`wit/weir-plugin.wit`) into Rust and back; it keeps no
//! policy of its own, and imports nothing that the plugin does not use. For DNS providers see [`dns`].
//!
//! ```
//! use weir_sdk::{About, Decision, Error, Middleware, Plan, Request, RequestEdit};
//!
//! pub struct Stamp {
//!     text: String,
//! }
//!
//! #[derive(serde::Deserialize)]
//! pub struct Config {
//!     text: String,
//! }
//!
//! impl Middleware for Stamp {
//!     type Config = Config;
//!
//!     const ABOUT: About = weir_sdk::about!("stamp")
//!         .config_schema(r#"{"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}"#);
//!
//!     fn init(config: Config) -> Result<(Self, Plan), Error> {
//!         Ok((Self { text: config.text }, Plan::new().on_request(&[])))
//!     }
//!
//!     fn on_request(&self, request: &Request<'_>) -> Decision {
//!         RequestEdit::new().set("x-stamp", format!("{} {}", self.text, request.path())).into()
//!     }
//! }
//!
//! weir_sdk::export!(Stamp);
//! # fn main() {}
//! ```

mod about;
#[doc(hidden)]
pub mod component;
#[doc(hidden)]
pub mod description;
pub mod dns;
mod edit;
mod exchange;
#[doc(hidden)]
pub mod filter;
pub mod header;
mod message;
mod plan;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

use serde::de::DeserializeOwned;

pub use about::{About, Secret};
pub use bindings::exports::weir::plugin::middleware::{
    BodyMode, FixedEdit, Plan, RequestVerdict, ResponseVerdict, Transport,
};
pub use bindings::weir::plugin::random;
pub use bindings::weir::plugin::types::{Error, ErrorKind, HeaderEdit, Reply, RequestEdit, ResponseEdit};
pub use edit::Decision;
pub use filter::{BodyFilter, Direction, Header};
pub use message::{Request, Response};

// What stands in for the host in native tests says little of what the host does: documents have the interface itself.
#[cfg(any(target_arch = "wasm32", doc))]
pub use bindings::weir::plugin::{clock, connection, fetch, log, metrics, secrets, shared};
#[cfg(not(any(target_arch = "wasm32", doc)))]
pub use testing::capabilities::{clock, connection, fetch, log, metrics, secrets, shared};

/// One configured middleware. The host makes several instances of it and calls each for one request at a time, so that
/// `RefCell` is enough for state; what must be seen by all instances goes into [`shared`].
pub trait Middleware: Sized + 'static {
    /// The YAML block of the middleware. The host has checked it with [`About::config_schema`] and filled in nothing:
    /// defaults are serde's.
    type Config: DeserializeOwned;

    /// What the host lists, and what the middleware asks for.
    const ABOUT: About;

    /// Reads the configuration once per instance and answers what the host has to do and to call.
    ///
    /// # Errors
    /// The middleware is disabled with the message, as it is after a panic, 5 s of CPU time, or 10 s in all: make it say what to
    /// change, by [`Error::invalid_config`].
    fn init(config: Self::Config) -> Result<(Self, Plan), Error>;

    /// Called for each request if the plan asks for it with [`Plan::on_request`]. It has 50 ms of CPU time, and 10 s with all
    /// that it waits for. A panic is a 500 and a line of the log; the instance is dropped.
    fn on_request(&self, _request: &Request<'_>) -> Decision {
        Decision::pass()
    }

    /// Called for each response if the plan asks for it with [`Plan::on_response`]. `state` is what `on_request` had remembered
    /// for this request, perhaps in another instance; empty if nothing. Sees replies of later middlewares and errors of the host
    /// too, but not this middleware's own replies. Its limits are those of [`on_request`](Self::on_request).
    fn on_response(&self, _state: &[u8], _response: &Response<'_>) -> ResponseVerdict {
        ResponseVerdict::Pass
    }
}

/// Makes the crate a component that runs the given [`Middleware`], and its [`BodyFilter`] if it has one: `export!(M)` or
/// `export!(M, filter = F)`. Once per crate, which is a `cdylib`. Built for anything but WebAssembly it exports nothing, so
/// that the logic can be tested as usual.
#[macro_export]
macro_rules! export {
    ($middleware:ty) => {
        $crate::export!(@middleware $middleware, {});
    };
    ($middleware:ty, filter = $filter:ty) => {
        $crate::export!(@middleware $middleware, {
            impl $crate::filter::Filters for Component {
                type Filter = $crate::filter::Exported<Self, $filter>;
            }

            impl $crate::filter::Configured<$middleware> for Component {
                fn with<T>(work: impl FnOnce(&$middleware) -> T) -> T {
                    INSTANCE.with(|instance| work(instance.middleware()))
                }
            }

    $crate::filter::bindings::export_filter!(Component with_types_in $crate::filter::bindings);
        });

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::filter::check::<$middleware, $filter>();
    };
    (@middleware $middleware:ty, { $($filter:item)* }) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::component::Instance<$middleware> =
                    const { $crate::component::Instance::new() };
            }

            struct Component;

            impl $crate::description::Guest for Component {
                fn describe() -> $crate::description::About {
                    $crate::description::answer(<$middleware as $crate::Middleware>::ABOUT)
                }
            }

            impl $crate::component::Calls for Component {
                fn init(config: ::std::string::String) -> ::std::result::Result<$crate::Plan, $crate::Error> {
                    INSTANCE.with(|instance| instance.init(&config))
                }

                fn on_request(
                    head: $crate::component::RequestHead,
                ) -> ($crate::component::RequestVerdict, ::std::vec::Vec<u8>) {
                    INSTANCE.with(|instance| instance.on_request(head))
                }

                fn on_response(
                    state: ::std::vec::Vec<u8>,
                    head: $crate::component::ResponseHead,
                ) -> $crate::ResponseVerdict {
                    INSTANCE.with(|instance| instance.on_response(&state, head))
                }
            }

    $crate::description::bindings::export_description!(Component with_types_in $crate::description::bindings);
    $crate::bindings::export_middleware!(Component with_types_in $crate::bindings);

            $($filter)*
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::component::check::<$middleware>();
    };
}

/// The worlds of `wit/` in parts, of which a component takes those that it needs: macros that export one interface can be
/// there but once in a crate.
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package weir:sdk;
            world middleware-part {
                import weir:plugin/message@0.1.0;
                import weir:plugin/log@0.1.0;
                import weir:plugin/clock@0.1.0;
                import weir:plugin/random@0.1.0;
                import weir:plugin/connection@0.1.0;
                import weir:plugin/metrics@0.1.0;
                import weir:plugin/secrets@0.1.0;
                import weir:plugin/shared@0.1.0;
                import weir:plugin/fetch@0.1.0;
                export weir:plugin/middleware@0.1.0;
            }
        ",
        generate_all,
        export_macro_name: "export_middleware",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::bindings",
        additional_derives: [PartialEq],
    });
}
