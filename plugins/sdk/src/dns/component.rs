//! The glue between the generated bindings and a [`DnsProvider`]. Called by the code that `export_dns_provider!` writes
//! and by nothing else; no part of the interface that plugins are written against.

use std::cell::OnceCell;

use super::{Challenge, DnsProvider, Timing, gone_is_fine, persist};
use crate::{Error, ErrorKind};

pub use super::bindings::exports::weir::plugin::dns01::Guest as Calls;

/// The one provider of a component instance, from `init` on.
pub struct Instance<P>(OnceCell<P>);

impl<P: DnsProvider> Instance<P> {
    #[expect(clippy::new_without_default, reason = "made by `export_dns_provider!` only, in a constant")]
    pub const fn new() -> Self {
        Self(OnceCell::new())
    }

    pub fn init(&self) -> Result<Timing, Error> {
        let (provider, timing) = P::init()?;
        match self.0.set(provider) {
            Ok(()) => Ok(timing),
            Err(_) => Err(Error::new(ErrorKind::Internal, "initialise an instance twice")),
        }
    }

    pub fn present(&self, challenge: &Challenge) -> Result<String, Error> {
        present(self.provider(), challenge)
    }

    pub fn cleanup(&self, challenge: &Challenge, handle: &str) -> Result<(), Error> {
        cleanup(self.provider(), challenge, handle)
    }

    fn provider(&self) -> &P {
        self.0.get().expect("the host calls init before anything else")
    }
}

/// As the host calls it.
pub fn present<P: DnsProvider>(provider: &P, challenge: &Challenge) -> Result<String, Error> {
    persist(|| provider.present(challenge))
}

/// As the host calls it. What does not exist has been deleted.
pub fn cleanup<P: DnsProvider>(provider: &P, challenge: &Challenge, handle: &str) -> Result<(), Error> {
    gone_is_fine(persist(|| provider.cleanup(challenge, handle)))
}

/// Makes `export_dns_provider!` an error for what is no provider, also where nothing is exported.
pub const fn check<P: DnsProvider>() {}
