//! The variables of DNS providers: from a resolver's own settings, else from the environment, by lego's conventions; and
//! the secrets of middlewares, as they are granted.
//!
//! Whoever configures a provider makes [`Variables`]; `provider` resolves the names that a plugin declares. What a
//! variable holds is a secret: it reaches the guest, and neither a log nor an error.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use http::Uri;
use tokio::io::AsyncReadExt;

use super::about::{About, Variable};
use crate::config::install::{DnsChallenge, Secret};
use crate::config::{WebOrigin, install, reason};

/// The most that a file may have in the place of a value.
const FILE_BYTES_AT_MOST: u64 = 64 << 10;
/// Shorter values are numbers, switches and the like, and would be found in words that have nothing to do with them.
const SECRET_BYTES_AT_LEAST: usize = 8;

/// Where values come from: first what one certificates resolver has of its own, then the environment of the process.
#[derive(Clone)]
pub struct Variables {
    own: BTreeMap<String, install::Variable>,
    environment: BTreeMap<String, OsString>,
}

/// The variables of one plugin that are set, by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Values(BTreeMap<String, String>);

impl Variables {
    /// What a certificates resolver has, with the environment of the process.
    pub fn of(challenge: &DnsChallenge) -> Self {
        Self::new(challenge.env.clone(), std::env::vars_os())
    }

    /// `own` is `dnsChallenge.env` of the resolver, `environment` [`std::env::vars_os`] but for tests.
    pub fn new(
        own: BTreeMap<String, install::Variable>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let environment = environment.into_iter();
        let environment = environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self { own, environment }
    }

    /// The value of a variable: `NAME`, or the text of the file that `NAME_FILE` names where `NAME` is empty.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the value is no text.
    pub async fn find(&self, name: &str) -> anyhow::Result<Option<String>> {
        let file_name = format!("{name}_FILE");
        let own = [self.own.get(name), self.own.get(&file_name)];
        for (setting, names_file) in own.into_iter().zip([false, true]) {
            let found = match setting {
                None => None,
                Some(install::Variable::Value(value)) if names_file => of_file(name, Path::new(value)).await?,
                Some(install::Variable::Value(value)) => present(value.clone()),
                Some(install::Variable::File(file)) => of_file(name, file).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        if let Some(value) = self.environment.get(name).filter(|value| !value.is_empty()) {
            return match value.to_str() {
                Some(value) => Ok(Some(value.to_owned())),
                None => Err(anyhow::anyhow!("the value of `{name}` is not UTF-8")),
            };
        }
        match self.environment.get(&file_name) {
            Some(file) => of_file(name, Path::new(file)).await,
            None => Ok(None),
        }
    }

    /// What a plugin may see: the variables that it declares.
    pub(super) async fn resolve(&self, about: &About) -> anyhow::Result<Values> {
        if let Some(name) = self.own.keys().find(|name| !is_declared(about, name)) {
            let known: Vec<&str> = about.variables.iter().map(|variable| variable.name.as_str()).collect();
            anyhow::bail!("there is no variable `{name}`; it knows {}", known.join(", "));
        }
        let (mut values, mut missing) = (BTreeMap::new(), Vec::new());
        for Variable { name, required, .. } in &about.variables {
            match self.find(name).await? {
                Some(value) => drop(values.insert(name.clone(), value)),
                None if *required => missing.push(name.as_str()),
                None => {}
            }
        }
        if !missing.is_empty() {
            anyhow::bail!("some credentials information are missing: {}", missing.join(","));
        }
        Ok(Values(values))
    }
}

impl Values {
    /// What an administrator grants a middleware by name.
    ///
    /// # Errors
    ///
    /// A variable is not set, a file cannot be read, or a value is no text.
    pub(super) fn granted(plugin: &str, secrets: &BTreeMap<String, Secret>) -> anyhow::Result<Self> {
        let value = |(name, secret): (&String, &Secret)| {
            let key = format!("plugins.settings.{plugin}.allow.secrets.{name}");
            let value = granted(secret).with_context(|| format!("reading the secret of `{key}`"))?;
            Ok((name.clone(), value))
        };
        secrets.iter().map(value).collect::<anyhow::Result<_>>().map(Self)
    }

    /// What a plugin declares, as far as the environment of the process has it.
    ///
    /// # Errors
    ///
    /// One is not there that it requires.
    pub(super) fn of_environment(about: &About) -> anyhow::Result<Self> {
        let mut values = BTreeMap::new();
        for Variable { name, required, .. } in &about.variables {
            match std::env::var(name) {
                Ok(value) => drop(values.insert(name.clone(), value)),
                Err(_) if *required => {
                    anyhow::bail!("the secret `{name}` is not set: write `{name}=…` in front of the command")
                }
                Err(_) => {}
            }
        }
        Ok(Self(values))
    }

    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The origins that values name: they take the place of those that the plugin declares.
    pub(super) fn origins(&self, about: &About) -> anyhow::Result<Vec<WebOrigin>> {
        let urls = about.variables.iter().filter(|variable| variable.url);
        let set = urls.filter_map(|variable| Some((&variable.name, self.find(&variable.name)?)));
        let origins = set.map(|(name, value)| {
            let origin = Uri::from_str(value.trim()).map_err(|_| "it is no URL").and_then(|url| WebOrigin::of(&url));
            origin.map_err(|problem| anyhow::anyhow!("the value of `{name}` cannot be used: {problem}"))
        });
        origins.collect()
    }

    /// A text of the guest with names in the place of values, so that what it says gives nothing away.
    pub(super) fn redacted(&self, text: &str) -> String {
        let mut values: Vec<(&String, &String)> =
            self.0.iter().filter(|(_, value)| value.len() >= SECRET_BYTES_AT_LEAST).collect();
        // A value that is part of another must not spoil the search for it.
        values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        let replaced =
            |text: String, (name, value): (&String, &String)| text.replace(value.as_str(), &format!("${name}"));
        values.into_iter().fold(text.to_owned(), replaced)
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.own.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

fn is_declared(about: &About, name: &str) -> bool {
    let is = |name: &str| about.variables.iter().any(|variable| variable.name == name);
    is(name) || name.strip_suffix("_FILE").is_some_and(is)
}

fn granted(secret: &Secret) -> anyhow::Result<String> {
    if let Some(variable) = &secret.env {
        return std::env::var(variable).map_err(|error| match error {
            std::env::VarError::NotPresent => anyhow::anyhow!("the variable `{variable}` is not set"),
            std::env::VarError::NotUnicode(_) => anyhow::anyhow!("the value of `{variable}` is not UTF-8"),
        });
    }
    let Some(file) = &secret.file else { anyhow::bail!("it is not said where the value comes from") };
    let failed = |reason: String| anyhow::anyhow!("`{}` cannot be read: {reason}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|error| failed(reason(&error)))?;
    let read = std::io::Read::read_to_string(&mut std::io::Read::take(opened, FILE_BYTES_AT_MOST + 1), &mut text);
    read.map_err(|error| failed(reason(&error)))?;
    if text.len() as u64 > FILE_BYTES_AT_MOST {
        return Err(failed(format!("it has more than {FILE_BYTES_AT_MOST} bytes")));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

async fn of_file(name: &str, file: &Path) -> anyhow::Result<Option<String>> {
    if file.as_os_str().is_empty() {
        return Ok(None);
    }
    let failed = |reason: String| anyhow::anyhow!("the file `{}` of `{name}` cannot be read: {reason}", file.display());
    let mut text = String::new();
    let opened = tokio::fs::File::open(file).await.map_err(|error| failed(reason(&error)))?;
    let read = opened.take(FILE_BYTES_AT_MOST + 1).read_to_string(&mut text).await;
    read.map_err(|error| failed(reason(&error)))?;
    if text.len() as u64 > FILE_BYTES_AT_MOST {
        return Err(failed(format!("it has more than {FILE_BYTES_AT_MOST} bytes")));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(present(text))
}

fn present(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "canary-7f3a9c";

    type Own = install::Variable;

    fn about() -> About {
        let variable = |name: &str, required, url| Variable { name: name.to_owned(), required, url };
        About {
            version: "1.0.0".to_owned(),
            summary: String::new(),
            schema: serde_json::Value::Null,
            files: Vec::new(),
            urls: Vec::new(),
            variables: vec![variable("TOKEN", true, false), variable("KEY", true, false), variable("URL", false, true)],
            origins: Vec::new(),
            guards: false,
        }
    }

    fn variables(own: &[(&str, Own)], environment: &[(&str, &str)]) -> Variables {
        let own = own.iter().map(|(name, setting)| ((*name).to_owned(), setting.clone())).collect();
        Variables::new(own, environment.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn value(text: &str) -> Own {
        Own::Value(text.to_owned())
    }

    #[tokio::test]
    async fn the_nearest_place_that_has_a_value_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("secret");
        std::fs::write(&file, " of file \r\n\n").expect("a file");
        let path = file.to_str().expect("a path in UTF-8");
        let file = Own::File(file.clone());
        for (own, environment, expected) in [
            (&[("TOKEN", value("own"))][..], &[("TOKEN", "process")][..], Some("own")),
            (&[("TOKEN", file.clone())], &[("TOKEN", "process")], Some(" of file ")),
            (&[("TOKEN_FILE", value(path))], &[("TOKEN", "process")], Some(" of file ")),
            (&[("TOKEN_FILE", file.clone())], &[], Some(" of file ")),
            (&[("TOKEN", value("own")), ("TOKEN_FILE", value("/missing"))], &[], Some("own")),
            (&[("TOKEN", value(""))], &[("TOKEN", "process")], Some("process")),
            (&[], &[("TOKEN", "process"), ("TOKEN_FILE", "/missing")], Some("process")),
            (&[], &[("TOKEN", ""), ("TOKEN_FILE", path)], Some(" of file ")),
            (&[], &[("TOKEN_FILE", path)], Some(" of file ")),
            (&[], &[("TOKEN_FILE", "")], None),
            (&[], &[("OTHER", "x")], None),
        ] {
            let found = variables(own, environment).find("TOKEN").await.expect("files that are there");
            assert_eq!(found.as_deref(), expected, "{own:?} {environment:?}");
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_said_in_legos_words() {
        let error = variables(&[], &[("OTHER", "x")]).resolve(&about()).await.expect_err("nothing is set");
        assert_eq!(error.to_string(), "some credentials information are missing: TOKEN,KEY");
        let error = variables(&[], &[("KEY", "x")]).resolve(&about()).await.expect_err("one is not set");
        assert_eq!(error.to_string(), "some credentials information are missing: TOKEN");
        let missing = [("KEY", "x"), ("TOKEN_FILE", "/missing/token")];
        let error = variables(&[], &missing).resolve(&about()).await.expect_err("the file is missing");
        assert_eq!(error.to_string(), "the file `/missing/token` of `TOKEN` cannot be read: it does not exist");
        let error = variables(&[("TOKE", value(CANARY))], &[]).resolve(&about()).await.expect_err("a typing error");
        assert_eq!(error.to_string(), "there is no variable `TOKE`; it knows TOKEN, KEY, URL");
    }

    #[tokio::test]
    async fn a_plugin_sees_what_it_declares_and_nothing_else() {
        let environment = [("TOKEN", "a"), ("KEY", "b"), ("PATH", "/bin"), ("AWS_SECRET_ACCESS_KEY", CANARY)];
        let values = variables(&[], &environment).resolve(&about()).await.expect("all is set");
        assert_eq!((values.find("TOKEN"), values.find("KEY")), (Some("a"), Some("b")));
        assert_eq!((values.find("PATH"), values.find("AWS_SECRET_ACCESS_KEY"), values.find("URL")), (None, None, None));
    }

    #[tokio::test]
    async fn urls_are_origins_and_other_values_are_not() {
        let environment = |url: &'static str| [("TOKEN", "https://other.example"), ("KEY", "b"), ("URL", url)];
        for (url, expected) in [
            ("http://127.0.0.1:8053/api/v1", Ok(vec!["http://127.0.0.1:8053".to_owned()])),
            ("", Ok(Vec::new())),
            ("canary-7f3a9c", Err("the value of `URL` cannot be used: it does not begin with `https://` or `http://`")),
            ("https://canary-7f3a9c:x@a.example", {
                Err("the value of `URL` cannot be used: it has a user or a password before its host")
            }),
        ] {
            let values = variables(&[], &environment(url)).resolve(&about()).await.expect("all is set");
            let origins = values.origins(&about()).map_err(|error| error.to_string());
            let origins = origins.map(|origins| origins.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(origins, expected.map_err(str::to_owned), "{url}");
        }
    }

    #[tokio::test]
    async fn values_are_never_shown() {
        let longer = format!("{CANARY}-and-more");
        let environment = [("KEY", longer.as_str()), ("URL", "30")];
        let variables = variables(&[("TOKEN", value(CANARY))], &environment);
        let values = variables.resolve(&about()).await.expect("all is set");
        let shown = format!("{variables:?} {values:?} {:?}", value(CANARY));
        assert!(!shown.contains("canary"), "{shown}");
        let said = format!("use {CANARY}, then {longer}, 30 times");
        assert_eq!(values.redacted(&said), "use $TOKEN, then $KEY, 30 times");
    }
}
