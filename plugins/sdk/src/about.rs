//! What a middleware says of itself, as constants. Read by `component::describe`; never depends on a configuration.

/// Name, version and wishes of a middleware. Start with [`about!`](crate::about).
#[derive(Clone, Copy, Debug)]
pub struct About {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) config_schema: &'static str,
    pub(crate) files: &'static [&'static str],
    pub(crate) urls: &'static [&'static str],
    pub(crate) secrets: &'static [Secret],
    pub(crate) origins: &'static [&'static str],
}

/// A secret that the plugin will ask for by name.
#[derive(Clone, Copy, Debug)]
pub struct Secret {
    /// Like an environment variable: `API_TOKEN`.
    pub name: &'static str,
    /// Whether the plugin cannot work without it.
    pub required: bool,
    /// Whether its value is a URL whose origin [`fetch`](crate::fetch) may then reach.
    pub url: bool,
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
        Self { name, version, summary, config_schema, files: &[], urls: &[], secrets: &[], origins: &[] }
    }

    /// JSON Schema of the configuration, with every option by its exact name. Without it there are no options.
    #[must_use]
    pub const fn config_schema(mut self, schema: &'static str) -> Self {
        self.config_schema = schema;
        self
    }

    /// JSON pointers (RFC 6901) to file names in the configuration: `init` finds the file's text in their place.
    #[must_use]
    pub const fn files(mut self, pointers: &'static [&'static str]) -> Self {
        self.files = pointers;
        self
    }

    /// JSON pointers to addresses in the configuration that [`fetch`](crate::fetch) may reach.
    #[must_use]
    pub const fn urls(mut self, pointers: &'static [&'static str]) -> Self {
        self.urls = pointers;
        self
    }

    /// What [`secrets`](crate::secrets) will be asked for.
    #[must_use]
    pub const fn secrets(mut self, secrets: &'static [Secret]) -> Self {
        self.secrets = secrets;
        self
    }

    /// Origins (`https://api.example.com:443`) that [`fetch`](crate::fetch) wants to reach whatever the configuration.
    #[must_use]
    pub const fn origins(mut self, origins: &'static [&'static str]) -> Self {
        self.origins = origins;
        self
    }
}
