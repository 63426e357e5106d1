//! The four settings that lego has for each provider. Read in `init`.

use super::{Timing, variables};
use crate::{About, Error};

/// Start with the provider's defaults: `Settings { ttl: 30, ..Settings::DEFAULT }.read(&Self::ABOUT)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Seconds that resolvers may keep the record: `…_TTL`.
    pub ttl: u32,
    /// Seconds after which the host gives up waiting for the name servers: `…_PROPAGATION_TIMEOUT`.
    pub propagation_timeout_s: u32,
    /// Seconds between two looks at them: `…_POLLING_INTERVAL`.
    pub polling_interval_s: u32,
    /// Seconds that one request to the provider may take: `…_HTTP_TIMEOUT`.
    pub http_timeout_s: u32,
    /// Whether only one challenge may be open at a time; no variable says so.
    pub sequential: bool,
}

impl Settings {
    /// Those of lego, for providers that have no others: records for 120 s, which the host looks for each 2 s, for 60 s at
    /// most; requests of 30 s.
    pub const DEFAULT: Self =
        Self { ttl: 120, propagation_timeout_s: 60, polling_interval_s: 2, http_timeout_s: 30, sequential: false };

    /// Puts what the variables with the prefixes of [`About::settings`] say in place of the defaults.
    #[must_use]
    pub fn read(self, about: &About) -> Self {
        let number = |setting: &str, default| {
            let names: Vec<String> = about.settings.iter().map(|prefix| format!("{prefix}_{setting}")).collect();
            variables::number(&names.iter().map(String::as_str).collect::<Vec<_>>(), default)
        };
        Self {
            ttl: number("TTL", self.ttl),
            propagation_timeout_s: number("PROPAGATION_TIMEOUT", self.propagation_timeout_s),
            polling_interval_s: number("POLLING_INTERVAL", self.polling_interval_s),
            http_timeout_s: number("HTTP_TIMEOUT", self.http_timeout_s),
            ..self
        }
    }

    /// For providers that refuse a shorter `…_TTL`.
    ///
    /// # Errors
    /// If it is shorter.
    pub fn with_ttl_of_at_least(self, least: u32, about: &About) -> Result<Self, Error> {
        if self.ttl >= least {
            return Ok(self);
        }
        let prefix = about.settings.first().copied().unwrap_or_default();
        Err(Error::invalid_config(format!("use `{}` as {prefix}_TTL: write {least} or more", self.ttl)))
    }

    /// What the host has to know.
    #[must_use]
    pub const fn timing(&self) -> Timing {
        Timing {
            propagation_timeout_s: self.propagation_timeout_s,
            polling_interval_s: self.polling_interval_s,
            sequential: self.sequential,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Host;

    use super::*;

    const ABOUT: About = About::new("test", "1.0.0", "A provider of a test").settings(&["LONG_NAME", "LN"]);

    #[test]
    fn variables_take_the_place_of_defaults() {
        let _host =
            Host::new().variables(&[("LN_TTL", "30"), ("LONG_NAME_HTTP_TIMEOUT", "5"), ("LN_HTTP_TIMEOUT", "6")]);
        let expected = Settings { ttl: 30, http_timeout_s: 5, ..Settings::DEFAULT };
        assert_eq!(Settings::DEFAULT.read(&ABOUT), expected);
    }

    #[test]
    fn what_is_no_number_of_seconds_leaves_the_default_with_a_warning() {
        for bad in ["-1", "1m", "1.5", "99999999999"] {
            let host = Host::new().variables(&[("LN_POLLING_INTERVAL", bad)]);
            assert_eq!(Settings::DEFAULT.read(&ABOUT), Settings::DEFAULT, "{bad}");
            assert_eq!(host.logged(), ["`LN_POLLING_INTERVAL` is no number of seconds, so that 2 is used"]);
        }
    }

    #[test]
    fn they_are_described_for_each_prefix() {
        let names: Vec<String> = ABOUT.setting_names().collect();
        assert_eq!(names.len(), 8);
        assert_eq!(names[..2], ["LONG_NAME_TTL", "LONG_NAME_PROPAGATION_TIMEOUT"]);
    }
}
