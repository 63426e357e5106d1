//! What a DNS provider for Weir is written with: implement [`DnsProvider`], name the type in
//! [`export_dns_provider!`](crate::export_dns_provider), build for `wasm32-wasip2`. The host finds the zone, follows
//! CNAMEs, waits for propagation and cleans up after a crash; a provider writes and deletes one TXT record.
//!
//! ```
//! use weir_sdk::dns::{Challenge, Client, DnsProvider, Settings, Timing, variables};
//! use weir_sdk::{About, Error, Secret};
//!
//! pub struct Example {
//!     api: Client,
//! }
//!
//! impl DnsProvider for Example {
//!     const ABOUT: About = weir_sdk::about!("example")
//!         .secrets(&[Secret::required("EXAMPLE_TOKEN")])
//!         .settings(&["EXAMPLE"])
//!         .origins(&["https://api.example.com"]);
//!
//!     fn init() -> Result<(Self, Timing), Error> {
//!         let [token] = variables::required(["EXAMPLE_TOKEN"])?;
//!         let settings = Settings::DEFAULT.read(&Self::ABOUT);
//!         let api = Client::new("https://api.example.com", &settings).authorization("Bearer", "EXAMPLE_TOKEN", &token)?;
//!         Ok((Self { api }, settings.timing()))
//!     }
//!
//!     fn present(&self, challenge: &Challenge) -> Result<String, Error> {
//!         self.api.put(&["txt", challenge.name(), &challenge.value]).send()?;
//!         Ok(String::new())
//!     }
//!
//!     fn cleanup(&self, challenge: &Challenge, _handle: &str) -> Result<(), Error> {
//!         self.api.delete(&["txt", challenge.name(), &challenge.value]).send()?;
//!         Ok(())
//!     }
//! }
//!
//! weir_sdk::export_dns_provider!(Example);
//! # fn main() {}
//! ```

mod client;
#[doc(hidden)]
pub mod component;
mod persist;
mod settings;
pub mod txt;
pub mod variables;

use crate::{About, Error, ErrorKind};

pub use bindings::exports::weir::plugin::dns01::{Challenge, Timing};
pub use client::{Answer, Call, Client, encode};
pub use persist::persist;
pub use settings::Settings;

#[cfg(not(any(target_arch = "wasm32", doc)))]
pub use crate::testing::capabilities::timer;
#[cfg(any(target_arch = "wasm32", doc))]
pub use bindings::weir::plugin::timer;

/// One account at a provider of DNS. The host makes an instance for a call or a few, so that nothing is worth keeping in
/// it; it makes one call at a time for a zone, so that a set of records can be read, changed and written.
///
/// A call that fails for a reason that may pass is made again by [`persist`], and so is one whose answer was lost:
/// [`present`](Self::present) takes a record that is there already, and [`cleanup`](Self::cleanup) one that is gone.
pub trait DnsProvider: Sized + 'static {
    /// What the host lists, and what the provider asks for: [`About::secrets`], [`About::settings`],
    /// [`About::origins`].
    const ABOUT: About;

    /// Reads the variables; makes no request.
    ///
    /// # Errors
    /// The provider cannot be used, with the message: make it say which variables to set.
    fn init() -> Result<(Self, Timing), Error>;

    /// Adds the record, and leaves others of the same name alone: a wildcard's certificate has two at a time. The answer
    /// comes back in [`cleanup`](Self::cleanup), and is at most 4 KiB. Where a change takes time at the provider, wait for it by
    /// [`timer::sleep`]: a call with all that it waits for may take 5 minutes.
    ///
    /// # Errors
    /// The host logs the message, calls [`cleanup`](Self::cleanup) with an empty handle, since the record may be there, and
    /// tries again later.
    fn present(&self, challenge: &Challenge) -> Result<String, Error>;

    /// Deletes the record. The handle is what `present` answered, perhaps long ago, or empty where the answer never
    /// came: the record is to be found by name and value then.
    ///
    /// # Errors
    /// As in `present`, but for [`ErrorKind::NotFound`]: what does not exist has been deleted.
    fn cleanup(&self, challenge: &Challenge, handle: &str) -> Result<(), Error>;
}

impl Challenge {
    /// Where the record goes, without the final dot: `_acme-challenge.www.example.com`.
    #[must_use]
    pub fn name(&self) -> &str {
        without_dot(&self.fqdn)
    }

    /// The zone without the final dot: `example.com`.
    #[must_use]
    pub fn zone_name(&self) -> &str {
        without_dot(&self.zone)
    }

    /// The name within its zone, `_acme-challenge.www`, or `apex` where it is the zone itself, as some CNAMEs have it.
    #[must_use]
    pub fn relative_name<'a>(&'a self, apex: &'a str) -> &'a str {
        match self.name().strip_suffix(self.zone_name()) {
            Some("") => apex,
            Some(labels) => without_dot(labels),
            None => self.name(),
        }
    }

    /// Puts the zone's name into the words of a provider that knows no such zone; other errors stay.
    #[must_use]
    pub fn explain_zone(&self, error: Error) -> Error {
        if error.kind != ErrorKind::NotFound {
            return error;
        }
        let zone = self.zone_name();
        Error { message: format!("{}; is `{zone}` a zone of this account?", error.message), ..error }
    }
}

/// What does not exist has been deleted. For a [`DnsProvider::cleanup`] that has more to do then.
///
/// # Errors
/// Any other error.
pub fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Makes the crate a component that is the given [`DnsProvider`]. Once per crate, which is a `cdylib`. Built for anything
/// but WebAssembly it exports nothing, so that the logic can be tested as usual.
#[macro_export]
macro_rules! export_dns_provider {
    ($provider:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::dns::component::Instance<$provider> =
                    const { $crate::dns::component::Instance::new() };
            }

            struct Component;

            impl $crate::description::Guest for Component {
                fn describe() -> $crate::description::About {
                    $crate::description::answer(<$provider as $crate::dns::DnsProvider>::ABOUT)
                }
            }

            impl $crate::dns::component::Calls for Component {
                fn init() -> ::std::result::Result<$crate::dns::Timing, $crate::Error> {
                    INSTANCE.with(|instance| instance.init())
                }

                fn present(
                    challenge: $crate::dns::Challenge,
                ) -> ::std::result::Result<::std::string::String, $crate::Error> {
                    INSTANCE.with(|instance| instance.present(&challenge))
                }

                fn cleanup(
                    challenge: $crate::dns::Challenge,
                    handle: ::std::string::String,
                ) -> ::std::result::Result<(), $crate::Error> {
                    INSTANCE.with(|instance| instance.cleanup(&challenge, &handle))
                }
            }

    $crate::description::bindings::export_description!(Component with_types_in $crate::description::bindings);
    $crate::dns::bindings::export_dns01!(Component with_types_in $crate::dns::bindings);
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = $crate::dns::component::check::<$provider>();
    };
}

#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package weir:sdk;
            world dns01-part {
                import weir:plugin/log@0.1.0;
                import weir:plugin/clock@0.1.0;
                import weir:plugin/random@0.1.0;
                import weir:plugin/timer@0.1.0;
                import weir:plugin/secrets@0.1.0;
                import weir:plugin/fetch@0.1.0;
                export weir:plugin/dns01@0.1.0;
            }
        ",
        generate_all,
        export_macro_name: "export_dns01",
        pub_export_macro: true,
        default_bindings_module: "weir_sdk::dns::bindings",
        additional_derives: [PartialEq],
        with: {
            "weir:plugin/types@0.1.0": crate::bindings::weir::plugin::types,
            "weir:plugin/log@0.1.0": crate::bindings::weir::plugin::log,
            "weir:plugin/clock@0.1.0": crate::bindings::weir::plugin::clock,
            "weir:plugin/random@0.1.0": crate::bindings::weir::plugin::random,
            "weir:plugin/secrets@0.1.0": crate::bindings::weir::plugin::secrets,
            "weir:plugin/fetch@0.1.0": crate::bindings::weir::plugin::fetch,
        },
    });
}

#[cfg(test)]
mod tests {
    use crate::testing::challenge;

    use super::*;

    #[test]
    fn a_name_is_relative_to_its_zone() {
        for (fqdn, zone, expected) in [
            ("_acme-challenge.example.com.", "example.com.", "_acme-challenge"),
            ("_acme-challenge.a.b.example.com.", "example.com.", "_acme-challenge.a.b"),
            ("acme.example.net.", "acme.example.net.", "@"),
        ] {
            assert_eq!(challenge(fqdn, zone).relative_name("@"), expected, "{fqdn}");
        }
    }

    #[test]
    fn only_what_is_not_found_is_gone() {
        assert_eq!(gone_is_fine(Err(Error::new(ErrorKind::NotFound, "x"))), Ok(()));
        let refused = Err(Error::new(ErrorKind::Unauthorized, "x"));
        assert_eq!(gone_is_fine(refused.clone()), refused);
    }
}
