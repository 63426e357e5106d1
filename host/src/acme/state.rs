//! What must survive a restart beside `acme.json`: failures, when to try again, what authorities have advised.
//!
//! `resolver` reads and changes it, `schedule` reckons with it. Nothing in it is secret, and nothing is lost for good without
//! it: it can be removed at any time, and then each certificate has a fresh start.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::file;
use super::name::Identity;

/// A file of it, which several resolvers share.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct State {
    pub(crate) resolvers: BTreeMap<String, ResolverState>,
    /// By the URL of the directory.
    pub(crate) authorities: BTreeMap<String, AuthorityState>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ResolverState {
    certificates: BTreeMap<String, Progress>,
    /// When authorities failed to validate a name, for each name. Its account counts them, so that another resolver does not.
    failed_validations: BTreeMap<String, Moments>,
}

/// How it goes with one certificate.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Progress {
    /// In a row.
    pub(crate) failures: u32,
    pub(crate) last_error: Option<LastError>,
    #[serde(with = "moment::optional")]
    pub(crate) next_attempt: Option<Timestamp>,
    pub(crate) advice: Option<Advice>,
    /// Since when nobody has asked for it.
    #[serde(with = "moment::optional")]
    pub(crate) unused_since: Option<Timestamp>,
    /// The directory of the authority that has signed it: a resolver that turns to another one starts over.
    pub(crate) directory: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct LastError {
    pub(crate) message: String,
    #[serde(with = "moment")]
    pub(crate) time: Timestamp,
}

/// When an authority would have a certificate renewed (RFC 9773).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Advice {
    #[serde(with = "moment")]
    pub(crate) start: Timestamp,
    #[serde(with = "moment")]
    pub(crate) end: Timestamp,
    /// The instant in this window at which it is renewed.
    #[serde(with = "moment")]
    pub(crate) chosen: Timestamp,
    #[serde(with = "moment")]
    pub(crate) ask_again: Timestamp,
    /// A page with the reason.
    pub(crate) explanation: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AuthorityState {
    #[serde(with = "moment::optional")]
    pub(crate) paused_until: Option<Timestamp>,
    /// The last orders.
    pub(crate) orders: Moments,
}

/// Instants that a limit counts, in their order.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Moments(#[serde(with = "moment::list")] pub(crate) Vec<Timestamp>);

impl StateFile {
    /// Reads the file; a missing one is empty. A broken one is set aside and forgotten, which the sentence tells.
    pub(crate) fn open(path: PathBuf) -> (Self, Option<String>) {
        file::sweep(&path);
        let (state, warning) = match read(&path) {
            Ok(state) => (state, None),
            Err(problem) => (State::default(), Some(problem)),
        };
        (Self { path, state: Mutex::new(state) }, warning)
    }

    /// What is known at the moment.
    pub(crate) fn state(&self) -> State {
        self.lock().clone()
    }

    /// Changes it, and writes it if that has changed anything.
    ///
    /// # Errors
    ///
    /// It cannot be written. It holds for this process all the same.
    pub(crate) fn update<T>(&self, edit: impl FnOnce(&mut State) -> T) -> io::Result<T> {
        let mut state = self.lock();
        let before = state.clone();
        let answer = edit(&mut state);
        state.forget_what_says_nothing();
        if *state != before {
            file::replace(&self.path, &serde_json::to_vec_pretty(&*state)?)?;
        }
        Ok(answer)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves what had been changed until then, each part of which holds by itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn progress(&self, resolver: &str, certificate: &Identity) -> Option<&Progress> {
        self.resolvers.get(resolver)?.certificates.get(&certificate.to_string())
    }

    pub(crate) fn progress_mut(&mut self, resolver: &str, certificate: &Identity) -> &mut Progress {
        let resolver = self.resolvers.entry(resolver.to_owned()).or_default();
        resolver.certificates.entry(certificate.to_string()).or_default()
    }

    /// Forgets a certificate that is gone for good.
    pub(crate) fn forget(&mut self, resolver: &str, certificate: &Identity) {
        if let Some(resolver) = self.resolvers.get_mut(resolver) {
            resolver.certificates.remove(&certificate.to_string());
        }
    }

    pub(crate) fn failed_validations(&self, resolver: &str, name: &str) -> Option<&Moments> {
        self.resolvers.get(resolver)?.failed_validations.get(name)
    }

    pub(crate) fn failed_validations_mut(&mut self, resolver: &str, name: &str) -> &mut Moments {
        let resolver = self.resolvers.entry(resolver.to_owned()).or_default();
        resolver.failed_validations.entry(name.to_owned()).or_default()
    }

    pub(crate) fn authority_mut(&mut self, directory: &str) -> &mut AuthorityState {
        self.authorities.entry(directory.to_owned()).or_default()
    }

    fn forget_what_says_nothing(&mut self) {
        for resolver in self.resolvers.values_mut() {
            resolver.certificates.retain(|_, progress| *progress != Progress::default());
            resolver.failed_validations.retain(|_, moments| !moments.0.is_empty());
        }
        self.resolvers.retain(|_, resolver| *resolver != ResolverState::default());
        self.authorities.retain(|_, authority| *authority != AuthorityState::default());
    }
}

fn read(path: &Path) -> Result<State, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(format!("`{}` cannot be read and is forgotten: {error}", path.display())),
    };
    if bytes.trim_ascii().is_empty() {
        return Ok(State::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let aside = file::beside(path, ".corrupt");
        let kept = match file::replace(&aside, &bytes) {
            Ok(()) => format!("it is set aside as `{}`", aside.display()),
            Err(error) => format!("it cannot be set aside: {error}"),
        };
        format!("`{}` is broken ({error}), and what failed before is forgotten; {kept}", path.display())
    })
}

/// Instants as RFC 3339.
mod moment {
    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }

    pub(super) mod optional {
        use super::{Deserialize, Deserializer, Error, Serializer, Timestamp};

        pub(in crate::acme::state) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => serializer.collect_str(time),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::acme::state) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse()).transpose().map_err(D::Error::custom)
        }
    }

    pub(super) mod list {
        use super::{Deserialize, Deserializer, Error, Serializer, Timestamp};

        pub(in crate::acme::state) fn serialize<S: Serializer>(
            times: &[Timestamp],
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(times.iter().map(Timestamp::to_string))
        }

        pub(in crate::acme::state) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Vec<Timestamp>, D::Error> {
            let texts = Vec::<String>::deserialize(deserializer)?;
            texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map_err(D::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("it is a time")
    }

    fn identity() -> Identity {
        Identity::of_texts(["b.example", "a.example"])
    }

    fn fill(state: &mut State) {
        *state.progress_mut("le", &identity()) = Progress {
            failures: 3,
            last_error: Some(LastError { message: "no".to_owned(), time: time("2026-01-02T03:04:05Z") }),
            next_attempt: Some(time("2026-01-02T03:34:05.25Z")),
            advice: Some(Advice {
                start: time("2026-02-01T00:00:00Z"),
                end: time("2026-02-03T00:00:00Z"),
                chosen: time("2026-02-02T00:00:00Z"),
                ask_again: time("2026-01-02T09:04:05Z"),
                explanation: Some("https://ca.example/why".to_owned()),
            }),
            unused_since: Some(time("2026-01-01T00:00:00Z")),
            directory: Some("https://ca.example/directory".to_owned()),
        };
        state.failed_validations_mut("le", "a.example").0.push(time("2026-01-02T03:04:05Z"));
        let authority = state.authority_mut("https://ca.example/directory");
        authority.paused_until = Some(time("2026-01-02T04:00:00Z"));
        authority.orders.0.push(time("2026-01-02T03:00:00Z"));
    }

    #[test]
    fn all_of_it_survives_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json.state");
        let (file, warning) = StateFile::open(path.clone());
        assert_eq!((file.state(), warning), (State::default(), None));
        file.update(fill).expect("it can be written");
        let (again, warning) = StateFile::open(path);
        assert_eq!((again.state(), warning), (file.state(), None));
        assert_eq!(again.state().progress("le", &identity()).expect("it is known").failures, 3);
        assert_eq!(again.state().progress("other", &identity()), None);
        assert_eq!(again.state().failed_validations("le", "a.example").map(|moments| moments.0.len()), Some(1));
    }

    #[test]
    fn what_says_nothing_is_not_kept_and_nothing_is_written_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json.state");
        let (file, _) = StateFile::open(path.clone());
        file.update(|state| state.progress_mut("le", &identity()).failures).expect("there is nothing to write");
        assert!(!path.exists());
        file.update(fill).expect("it can be written");
        file.update(|state| {
            state.forget("le", &identity());
            state.failed_validations_mut("le", "a.example").0.clear();
            *state.authority_mut("https://ca.example/directory") = AuthorityState::default();
        })
        .expect("it can be written");
        assert_eq!(file.state(), State::default());
        assert_eq!(StateFile::open(path).0.state(), State::default());
    }

    #[test]
    fn a_broken_file_is_set_aside_and_forgotten() {
        for broken in ["{", "7", r#"{"resolvers":{"le":{"certificates":{"a":{"nextAttempt":"soon"}}}}}"#, "\0"] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("acme.json.state");
            fs::write(&path, broken).expect("it can be written");
            let (file, warning) = StateFile::open(path.clone());
            assert_eq!(file.state(), State::default());
            let warning = warning.expect("it is told");
            assert!(warning.contains("is broken") && warning.contains("acme.json.state.corrupt"), "{warning}");
            let aside = file::beside(&path, ".corrupt");
            assert_eq!(fs::read_to_string(aside).expect("it is there"), broken);
            file.update(fill).expect("it can be written");
            assert_eq!(StateFile::open(path).1, None);
        }
    }

    #[test]
    fn fields_of_other_versions_do_no_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("acme.json.state");
        for content in
            ["", "{}", r#"{"new":1,"resolvers":{"le":{"certificates":{"a.example":{"failures":2,"new":[]}}}}}"#]
        {
            fs::write(&path, content).expect("it can be written");
            let (file, warning) = StateFile::open(path.clone());
            assert_eq!(warning, None, "{content}");
            let failures =
                file.state().progress("le", &Identity::of_texts(["a.example"])).map(|progress| progress.failures);
            assert_eq!(failures, content.contains("failures").then_some(2));
        }
    }

    #[test]
    fn it_holds_for_this_process_when_it_cannot_be_written() {
        let (file, warning) = StateFile::open("/nonexistent/acme.json.state".into());
        assert_eq!(warning, None);
        assert!(file.update(fill).is_err());
        assert!(file.state().progress("le", &identity()).is_some());
    }
}
