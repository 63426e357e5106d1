//! `weir plugin new`: writes a small plugin that works.
//!
//! The templates are `plugins/templates`, embedded by the build script. Names in them are placeholders; all else is as it
//! is there. A folder that has something in it is left alone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::arguments::New;
use super::{line, refusal};
use crate::command::check::Report;
use crate::config::reason;

/// Language, path and text of each file.
const TEMPLATES: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/templates.rs"));
/// Path and text of the files of the Rust library, for who has nothing but this program and crates.io.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
const INTERFACE: &str = include_str!("../../../../wit/weir-plugin.wit");

const NAME_BYTES_AT_MOST: usize = 64;

/// The name of a plugin, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(Vec<String>);

impl Name {
    /// `two-words` or `twoWords`.
    ///
    /// # Errors
    ///
    /// In words, for who has written it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return Err("a name starts with a letter".to_owned());
        }
        if let Some(other) = text.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            let instead = text.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            let help = Self::parse(&instead).map_or_else(|_| String::new(), |_| format!(": write `{instead}`"));
            return Err(format!("a name has letters, digits and `-`, and no `{other}`{help}"));
        }
        if text.len() > NAME_BYTES_AT_MOST {
            return Err(format!("a name has at most {NAME_BYTES_AT_MOST} letters"));
        }
        let mut words = Vec::new();
        for part in text.split('-') {
            if part.is_empty() {
                return Err("a name has a word on both sides of each `-`".to_owned());
            }
            let mut word = String::new();
            for letter in part.chars() {
                if letter.is_ascii_uppercase() && !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                word.push(letter.to_ascii_lowercase());
            }
            words.push(word);
        }
        Ok(Self(words))
    }

    fn kebab(&self) -> String {
        self.0.join("-")
    }

    fn snake(&self) -> String {
        self.0.join("_")
    }

    fn camel(&self) -> String {
        let capital = |word: &String| [&word[..1].to_ascii_uppercase(), &word[1..]].concat();
        self.0[..1].iter().cloned().chain(self.0[1..].iter().map(capital)).collect()
    }

    fn fill_in(&self, text: &str) -> String {
        let text = text.replace("plugin-name", &self.kebab()).replace("plugin_name", &self.snake());
        text.replace("pluginName", &self.camel())
    }
}

/// Those that there are templates for.
pub(super) fn languages() -> BTreeSet<&'static str> {
    TEMPLATES.iter().map(|(language, ..)| *language).collect()
}

pub(super) fn new(asked: &New) -> Report {
    let folder = asked.into.clone().unwrap_or_else(|| PathBuf::from(asked.name.kebab()));
    if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        let help = "name another folder with --into";
        return refusal(format!("error: `{}` is not empty\n  help: {help}\n", folder.display()));
    }
    let files = files(&asked.name, &asked.language);
    for (path, text) in &files {
        if let Err(error) = write(&folder.join(path), text) {
            let file = folder.join(path);
            return refusal(format!("error: `{}` cannot be written: {}\n", file.display(), reason(&error)));
        }
    }
    Report { text: next(&folder, &files), good: true }
}

fn files(name: &Name, language: &str) -> Vec<(PathBuf, String)> {
    let of_language = TEMPLATES.iter().filter(|(of, ..)| *of == language);
    let mut files: Vec<(PathBuf, String)> =
        of_language.map(|(_, path, text)| (PathBuf::from(name.fill_in(path)), name.fill_in(text))).collect();
    files.push((PathBuf::from("wit/weir-plugin.wit"), INTERFACE.to_owned()));
    if language == "rust" {
        files.extend(SDK.iter().map(|(path, text)| (Path::new("weir-sdk").join(path), (*text).to_owned())));
    }
    files
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text)?;
    if file.extension().is_some_and(|extension| extension == "sh") { make_executable(file) } else { Ok(()) }
}

#[cfg(unix)]
fn make_executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The commands of the project's own README: those of its first example.
fn next(folder: &Path, files: &[(PathBuf, String)]) -> String {
    let readme = files.iter().find(|(path, _)| path == Path::new("README.md")).map_or("", |(_, text)| text);
    let example = readme.lines().skip_while(|line| *line != "```console").skip(1).take_while(|line| *line != "```");
    let commands = example.filter_map(|line| line.strip_prefix("$ "));
    let commands = commands.filter(|command| !command.starts_with("weir plugin new ") && !command.starts_with("cd "));
    let mut text = String::new();
    line(&mut text, format!("`{}` has a plugin that works. Next:", folder.display()));
    line(&mut text, format!("  cd {}", folder.display()));
    commands.for_each(|command| line(&mut text, format!("  {command}")));
    line(&mut text, "Its README.md says more.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_in_three_ways() {
        for (text, kebab, snake, camel) in [
            ("stamp", "stamp", "stamp", "stamp"),
            ("two-words", "two-words", "two_words", "twoWords"),
            ("twoWords", "two-words", "two_words", "twoWords"),
            ("Stamp2-b3", "stamp2-b3", "stamp2_b3", "stamp2B3"),
        ] {
            let name = Name::parse(text).expect(text);
            assert_eq!(
                (name.kebab(), name.snake(), name.camel()),
                (kebab.into(), snake.into(), camel.into()),
                "{text}"
            );
        }
        for text in ["", "2a", "-a", "a-", "a--b", "a_b", "a b", "a/b", "..", "ä", &"a".repeat(65)] {
            Name::parse(text).expect_err(text);
        }
    }

    #[test]
    fn placeholders_are_filled_in() {
        let name = Name::parse("two-words").expect("a name");
        let text = "plugin-name plugin_name.wasm pluginName: plugin name";
        assert_eq!(name.fill_in(text), "two-words two_words.wasm twoWords: plugin name");
    }

    #[test]
    fn every_language_has_a_readme_with_commands() {
        let name = Name::parse("two-words").expect("a name");
        for language in languages() {
            let files = files(&name, language);
            let said = next(Path::new("two-words"), &files);
            assert!(said.contains("weir plugin check"), "{language}: {said}");
            for (path, text) in &files {
                let path = path.display();
                assert!(!text.contains("plugin-name") && !text.contains("plugin_name"), "{language}: {path}");
            }
        }
    }
}
