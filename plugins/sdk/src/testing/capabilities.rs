//! What stands in for the host's capabilities in native tests: the same functions, answered by a [`Host`](super::Host).

pub mod clock {
    use crate::testing::host;

    /// Time that only [`timer::sleep`](super::timer::sleep) and [`Host::advance`](crate::testing::Host::advance) move.
    #[must_use]
    pub fn unix_ms() -> u64 {
        host::with(|host| host.now_ms)
    }

    /// The same, since the test began.
    #[must_use]
    pub fn monotonic_ns() -> u64 {
        host::with(|host| (host.now_ms - host::BEGAN_MS) * 1_000_000)
    }
}

pub mod connection {
    use crate::testing::host;

    pub use crate::bindings::weir::plugin::connection::Peer;

    /// 192.0.2.1 if the test says nothing else, port 50000.
    #[must_use]
    pub fn client() -> Peer {
        Peer { address: host::client(), port: 50_000 }
    }

    /// `web`.
    #[must_use]
    pub fn entry_point() -> String {
        "web".to_owned()
    }

    /// `test@file`.
    #[must_use]
    pub fn router() -> String {
        "test@file".to_owned()
    }

    /// `/`.
    #[must_use]
    pub fn original_path_with_query() -> String {
        "/".to_owned()
    }

    /// None.
    #[must_use]
    pub const fn server_name() -> Option<String> {
        None
    }

    /// None.
    #[must_use]
    pub const fn client_certificates() -> Vec<Vec<u8>> {
        Vec::new()
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

pub mod metrics {
    use crate::testing::host;

    /// Adds to a counter, which the test can ask for.
    ///
    /// # Panics
    /// If the host would drop it.
    pub fn add(counter: &str, by: u64, labels: &[(String, String)]) {
        host::with(|host| host.metrics.add(counter, by, labels));
    }

    /// Notes a value, which the test can ask for.
    ///
    /// # Panics
    /// If the host would drop it.
    pub fn observe(histogram: &str, value: f64, labels: &[(String, String)]) {
        host::with(|host| host.metrics.observe(histogram, value, labels));
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

pub mod shared {
    use crate::Error;
    use crate::testing::host;
    use crate::testing::shared::Ask;

    pub use crate::bindings::weir::plugin::shared::Scope;

    /// What was put there in this test.
    #[must_use]
    pub fn get(scope: Scope, key: &str) -> Option<Vec<u8>> {
        host::with(|host| host.shared.get(scope, key, host.now_ms))
    }

    /// Keeps a value for the rest of the test, or until its time has passed.
    ///
    /// # Errors
    /// Those of the host, but that there is no router during `init`.
    pub fn set(scope: Scope, key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), Error> {
        host::with(|host| host.shared.set(scope, key, value, ttl_ms, host.now_ms))
    }

    /// Adds to a counter.
    ///
    /// # Errors
    /// Those of the host, but that there is no router during `init`.
    pub fn increment(scope: Scope, key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
        host::with(|host| host.shared.increment(scope, key, by, ttl_ms, host.now_ms))
    }

    /// Takes tokens from a bucket, or says after how many milliseconds there are enough.
    ///
    /// # Errors
    /// If there are not enough.
    pub fn take(
        scope: Scope,
        bucket: &str,
        per_second: f64,
        burst: u32,
        cost: u32,
        max_wait_ms: u32,
    ) -> Result<u32, u64> {
        let ask = Ask { per_second, burst, cost, max_wait_ms };
        host::with(|host| host.shared.take(scope, bucket, &ask, host.now_ms))
    }
}

pub mod timer {
    use crate::testing::host;

    /// Moves the clock, and takes no time.
    pub fn sleep(ms: u32) {
        host::with(|host| host.sleep(ms));
    }
}
