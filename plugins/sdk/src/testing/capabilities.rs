//! What stands in for the host's capabilities in native tests: the same functions, answered by a [`Host`](super::Host).

pub mod clock {
    use crate::testing::host;

    /// Time that only [`timer::sleep`](super::timer::sleep) moves.
    #[must_use]
    pub fn unix_ms() -> u64 {
        host::with(|host| host.now_ms)
    }

    #[must_use]
    pub fn monotonic_ns() -> u64 {
        host::with(|host| host.slept_ms * 1_000_000)
    }
}

pub mod fetch {
    use crate::Error;
    use crate::testing::host;

    pub use crate::bindings::weir::plugin::fetch::{ClientTls, Request, Response};

    /// Gives the answer that the test has for this request.
    ///
    /// # Errors
    /// If that is an error.
    pub fn send(request: &Request) -> Result<Response, Error> {
        host::with(|host| host.answer(request))
    }
}

pub mod log {
    use crate::testing::host;

    pub use crate::bindings::weir::plugin::log::Level;

    #[must_use]
    pub const fn enabled(_: Level) -> bool {
        true
    }

    /// Keeps the line for the test.
    pub fn write(_: Level, message: &str, _: &[(String, String)]) {
        host::with(|host| host.logged.push(message.to_owned()));
    }
}

pub mod secrets {
    use crate::testing::host;

    /// The variable of the test.
    #[must_use]
    pub fn get(name: &str) -> Option<String> {
        host::with(|host| host.variable(name))
    }
}

pub mod timer {
    use crate::testing::host;

    /// Moves the clock, and takes no time.
    pub fn sleep(ms: u32) {
        host::with(|host| host.sleep(ms));
    }
}
