//! What a plugin says of itself, as constants. Read by `describe`, which each component exports; never depends on a configuration.

use crate::description::{self, Variable};

/// What lego's users can set for each DNS provider.
pub(crate) const SETTINGS: [&str; 4] = ["TTL", "PROPAGATION_TIMEOUT", "POLLING_INTERVAL", "HTTP_TIMEOUT"];

/// Name, version and wishes of a plugin. Start with [`about!`](crate::about).
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) config_schema: &'static str,
    pub(crate) files: &'static [&'static str],
    pub(crate) urls: &'static [&'static str],
    pub(crate) secrets: &'static [Secret],
    pub(crate) settings: &'static [&'static str],
    pub(crate) origins: &'static [&'static str],
    pub(crate) guards: bool,
}

/// A secret that the plugin will ask for by name.
#[derive(Clone, Copy, Debug)]
pub struct Secret {
    /// Like an environment variable: `API_TOKEN`.
    pub name: &'static str,
    /// Whether the plugin cannot work without it.
    pub required: bool,
    /// Whether its value is a URL whose origin [`fetch`](crate::fetch) of a DNS provider may then reach.
    pub url: bool,
}

impl Secret {
    /// One that the plugin cannot work without: a middleware is not loaded before `allow.secrets` grants it.
    #[must_use]
    pub const fn required(name: &'static str) -> Self {
        Self { name, required: true, url: false }
    }

    /// One that the plugin can do without, or has another for.
    #[must_use]
    pub const fn optional(name: &'static str) -> Self {
        Self { name, required: false, url: false }
    }

    /// An address in place of [`About::origins`], for a DNS provider.
    #[must_use]
    pub const fn url(name: &'static str) -> Self {
        Self { name, required: false, url: true }
    }
}

/// An [`About`] with the version and the description of the crate that calls it. The name is the one that configuration
/// files use, in camelCase.
#[macro_export]
macro_rules! about {
    ($name:literal) => {
        $crate::About::new($name, env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_DESCRIPTION"))
    };
}

impl About {
    /// The summary is one sentence.
    #[must_use]
    pub const fn new(name: &'static str, version: &'static str, summary: &'static str) -> Self {
        let config_schema = r#"{"type": "object", "additionalProperties": false}"#;
        Self {
            name,
            version,
            summary,
            config_schema,
            files: &[],
            urls: &[],
            secrets: &[],
            settings: &[],
            origins: &[],
            guards: false,
        }
    }

    /// JSON Schema of the configuration. Count `type`, `properties`, `required`, `items`, `additionalProperties`, `enum`,
    /// `minimum` and `maximum`; other keywords do nothing, and defaults are serde's. Name each option as [`Middleware::Config`]
    /// has it: an administrator may write it in any case, and a number in quotes. Options that it does not name are refused,
    /// unless `additionalProperties` is true. Without a schema there are no options.
    ///
    /// ```
    /// # use weir_sdk::About;
    /// const ABOUT: About = About::new("quota", "1.0.0", "Counts requests")
    ///     .config_schema(r#"{"type": "object", "required": ["limit"], "properties": {
    ///         "limit": {"type": "integer", "minimum": 1, "description": "requests of a client per minute"}}}"#);
    /// ```
    ///
    /// [`Middleware::Config`]: crate::Middleware::Config
    #[must_use]
    pub const fn config_schema(mut self, schema: &'static str) -> Self {
        self.config_schema = schema;
        self
    }

    /// JSON pointers (RFC 6901) to file names in the configuration, such as `/usersFile`: `init` finds the file's text in their
    /// place. What is not there or empty is left alone; a file that cannot be read as UTF-8 is an error before `init`.
    #[must_use]
    pub const fn files(mut self, pointers: &'static [&'static str]) -> Self {
        self.files = pointers;
        self
    }

    /// JSON pointers to addresses in the configuration, such as `/jwksUrl`, that [`fetch`](crate::fetch) may reach without a
    /// grant. What is not there or empty is left alone; what is no `http` or `https` URL is an error before `init`.
    #[must_use]
    pub const fn urls(mut self, pointers: &'static [&'static str]) -> Self {
        self.urls = pointers;
        self
    }

    /// What [`secrets`](crate::secrets) will be asked for: at most 64, each with a name of at most 128 bytes.
    #[must_use]
    pub const fn secrets(mut self, secrets: &'static [Secret]) -> Self {
        self.secrets = secrets;
        self
    }

    /// For DNS providers: what the names of their [`Settings`](crate::dns::Settings) begin with, such as `DO` for
    /// `DO_TTL`. Where there are several, the first that is set counts.
    #[must_use]
    pub const fn settings(mut self, prefixes: &'static [&'static str]) -> Self {
        self.settings = prefixes;
        self
    }

    /// Origins (`https://api.example.com:443`) that [`fetch`](crate::fetch) wants to reach whatever the configuration: at most
    /// 64. A middleware is not loaded before `allow.fetch` grants each; a DNS provider reaches those on the public internet.
    #[must_use]
    pub const fn origins(mut self, origins: &'static [&'static str]) -> Self {
        self.origins = origins;
        self
    }

    /// It decides who may pass, as a password does: where it fails, the request is denied. With `onFailure: bypass` in the
    /// install file it is not loaded.
    #[must_use]
    pub const fn guards(mut self) -> Self {
        self.guards = true;
        self
    }

    /// The same as the host wants it.
    pub(crate) fn to_host(self) -> description::About {
        let owned = |list: &[&str]| list.iter().map(|&item| item.to_owned()).collect();
        let secret = |&Secret { name, required, url }: &Secret| Variable { name: name.to_owned(), required, url };
        let setting = |name| Variable { name, required: false, url: false };
        description::About {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            summary: self.summary.to_owned(),
            config_schema: self.config_schema.to_owned(),
            files: owned(self.files),
            urls: owned(self.urls),
            variables: self.secrets.iter().map(secret).chain(self.setting_names().map(setting)).collect(),
            origins: owned(self.origins),
            guards: self.guards,
        }
    }

    /// The variables that [`Settings`](crate::dns::Settings) are read from.
    pub(crate) fn setting_names(&self) -> impl Iterator<Item = String> {
        let names = |prefix: &&str| SETTINGS.map(|name| format!("{prefix}_{name}"));
        self.settings.iter().flat_map(names)
    }
}
