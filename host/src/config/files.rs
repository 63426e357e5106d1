//! The routing files that `providers.file` names, read again and again.
//!
//! `server` calls [`Files::read`] at every reload. It remembers of each file what it last said, so that a file that is
//! half-written, emptied or broken goes on saying it. It never watches anything itself.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::install::FileProvider;
use super::routing::{self, Routing};
use super::{Item, Place, Problem, tree};

/// The routing files of an installation.
#[derive(Debug)]
pub struct Files {
    from: From,
    known: BTreeMap<PathBuf, Known>,
    merged: Arc<Routing>,
    /// Names that several of the files define.
    clashes: Vec<Problem>,
}

#[derive(Debug)]
enum From {
    Directory(PathBuf),
    File(PathBuf),
    /// No file: what is there was there from the start.
    Text,
    Nowhere,
}

/// A file that has been read.
#[derive(Debug, Default)]
struct Known {
    /// What was read last; `None` where that failed.
    bytes: Option<Vec<u8>>,
    /// What is wrong with it.
    problems: Vec<Problem>,
    /// What the file said when it last could be used.
    content: Option<Arc<Routing>>,
}

impl Files {
    pub fn new(provider: &FileProvider) -> Self {
        let from = match (&provider.directory, &provider.filename) {
            (Some(directory), _) => From::Directory(directory.clone()),
            (None, Some(filename)) => From::File(filename.clone()),
            (None, None) => From::Nowhere,
        };
        Self { from, known: BTreeMap::new(), merged: Arc::default(), clashes: Vec::new() }
    }

    /// One routing file that is part of the program. `name` stands for it in messages.
    pub fn of_text(name: &Path, text: &str) -> Self {
        let (merged, clashes) = match parse(&Arc::from(name), text.as_bytes()) {
            Ok(Some((routing, problems))) => (Arc::new(routing), problems),
            Ok(None) => Default::default(),
            Err(problems) => (Arc::default(), problems),
        };
        Self { from: From::Text, known: BTreeMap::new(), merged, clashes }
    }

    /// Reads all files and puts together what they say, with the problems that concern no single item. Nothing read so
    /// far is lost to a file that cannot be used now; a file that was removed from the directory is forgotten. The
    /// result is the same `Arc` as before as long as no file has changed.
    pub fn read(&mut self) -> (Arc<Routing>, Vec<Problem>) {
        let mut problems = Vec::new();
        let files = self.list(&mut problems);
        let mut before = std::mem::take(&mut self.known);
        let mut is_changed = false;
        for file in &files {
            let old = before.remove(file);
            is_changed |= old.is_none();
            let old = old.unwrap_or_default();
            let content = old.content.clone();
            let new = refresh(file, old);
            is_changed |= !same(content.as_ref(), new.content.as_ref());
            problems.extend(new.problems.iter().cloned());
            self.known.insert(file.clone(), new);
        }
        if is_changed || !before.is_empty() {
            self.clashes.clear();
            let contents: Vec<_> = files.iter().filter_map(|file| self.known.get(file)?.content.as_ref()).collect();
            self.merged = match contents.as_slice() {
                [only] => Arc::clone(only),
                several => {
                    let mut merged = Routing::default();
                    for content in several {
                        merge(&mut merged, content, &mut self.clashes);
                    }
                    Arc::new(merged)
                }
            };
        }
        problems.extend(self.clashes.iter().cloned());
        (Arc::clone(&self.merged), problems)
    }

    /// The files to read, in the order in which they count.
    fn list(&self, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
        match &self.from {
            From::File(file) if Format::of(file) == Some(Format::Toml) => {
                problems.push(toml(file));
                Vec::new()
            }
            From::File(file) => vec![file.clone()],
            From::Directory(directory) => {
                let mut walk = Walk { known: &self.known, above: Vec::new(), files: Vec::new(), problems };
                walk.directory(directory);
                walk.files
            }
            From::Text => Vec::new(),
            From::Nowhere => {
                let problem = Problem::error("providers.file", "neither `directory` nor `filename` is set");
                problems.push(problem.help("write `directory:` with the folder of the routing files".to_owned()));
                Vec::new()
            }
        }
    }
}

fn same(one: Option<&Arc<Routing>>, two: Option<&Arc<Routing>>) -> bool {
    match (one, two) {
        (Some(one), Some(two)) => Arc::ptr_eq(one, two),
        (one, two) => one.is_none() && two.is_none(),
    }
}

/// Looks for routing files in a directory and all below it.
struct Walk<'a> {
    known: &'a BTreeMap<PathBuf, Known>,
    /// The directories that lead here, without symbolic links, so that a link to one of them ends the walk.
    above: Vec<PathBuf>,
    files: Vec<PathBuf>,
    problems: &'a mut Vec<Problem>,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path) {
        match self.entries(directory) {
            Ok(Some(names)) => {
                for name in names {
                    self.entry(directory.join(name));
                }
                self.above.pop();
            }
            Ok(None) => {}
            Err(error) => {
                let text = format!("the directory `{}` cannot be read: {}", directory.display(), reason(&error));
                self.problems.push(Problem::error("providers.file.directory", text));
                self.files.extend(self.known.keys().filter(|file| file.starts_with(directory)).cloned());
            }
        }
    }

    /// The names in a directory in their order; `None` for one that the walk stands in already.
    fn entries(&mut self, directory: &Path) -> io::Result<Option<Vec<std::ffi::OsString>>> {
        let real = fs::canonicalize(directory)?;
        if self.above.contains(&real) {
            return Ok(None);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.push(entry?.file_name());
        }
        names.sort();
        names.retain(|name| !is_hidden(name));
        self.above.push(real);
        Ok(Some(names))
    }

    fn entry(&mut self, path: PathBuf) {
        let is_directory = fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir());
        if is_directory {
            return self.directory(&path);
        }
        match Format::of(&path) {
            Some(Format::Yaml) => self.files.push(path),
            Some(Format::Toml) => self.problems.push(toml(&path)),
            None => {}
        }
    }
}

/// How a file is written, by the end of its name.
#[derive(Clone, Copy, PartialEq)]
enum Format {
    Yaml,
    Toml,
}

impl Format {
    fn of(file: &Path) -> Option<Self> {
        let extension = file.extension()?.to_ascii_lowercase();
        match extension.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

fn toml(file: &Path) -> Problem {
    let text = format!("`{}` is not read: TOML is not supported yet", file.display());
    Problem::warning("", text).help("write it as YAML".to_owned())
}

/// Hidden files are none of ours (Kubernetes keeps its versions in `..data`), nor are editors' locks and backups.
fn is_hidden(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(['.', '#']) || name.starts_with("~$") || name.ends_with('~')
}

/// Reads a file again. What it said before stays unless it says something new.
fn refresh(file: &Path, old: Known) -> Known {
    let bytes = match bytes(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            let text = format!("`{}` cannot be read: {}", file.display(), reason(&error));
            let problems = kept(vec![Problem::error("", text)], old.content.is_some());
            return Known { bytes: None, problems, content: old.content };
        }
    };
    if old.bytes.as_ref() == Some(&bytes) {
        return old;
    }
    let (problems, content) = match parse(&Arc::from(file), &bytes) {
        Ok(Some((routing, problems))) => (problems, Some(Arc::new(routing))),
        Ok(None) if old.content.is_some() => {
            let problem = Problem::warning("", format!("`{}` is empty now", file.display()));
            let help = "delete the file if its routers, services and middlewares are to go".to_owned();
            (kept(vec![problem.help(help)], true), old.content)
        }
        Ok(None) => (Vec::new(), None),
        Err(problems) => (kept(problems, old.content.is_some()), old.content),
    };
    Known { bytes: Some(bytes), problems, content }
}

fn kept(mut problems: Vec<Problem>, is_kept: bool) -> Vec<Problem> {
    if is_kept {
        for problem in &mut problems {
            problem.message += "; the file keeps its last good content";
        }
    }
    problems
}

/// Far above any routing file, far below what would hurt.
const LARGEST: u64 = 16 << 20;

fn bytes(file: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(bytes)
}

/// `None`: the file holds nothing.
pub(super) fn parse(file: &Arc<Path>, bytes: &[u8]) -> Result<Option<(Routing, Vec<Problem>)>, Vec<Problem>> {
    let text = tree::text(file, bytes).map_err(|problem| vec![problem])?;
    if let Some(place) = template(file, text) {
        let problem = Problem::error("", "`{{` opens a Go template, and templates are not supported yet").at(place);
        return Err(vec![problem]);
    }
    Ok(tree::parse(file, text)?.map(|root| routing::read(&root)))
}

/// Where the first `{{` stands that is not in a comment.
fn template(file: &Arc<Path>, text: &str) -> Option<Place> {
    let column = |line: &str| -> Option<usize> {
        let mut quote = None;
        let mut last = ' ';
        for (at, character) in line.char_indices() {
            match (quote, character) {
                (_, '{') if last == '{' => return Some(line[..at].chars().count()),
                (None, '#') if last.is_whitespace() => return None,
                (None, '"' | '\'') if last.is_whitespace() || "[{,:".contains(last) => quote = Some(character),
                (Some(open), close) if open == close => quote = None,
                _ => {}
            }
            last = character;
        }
        None
    };
    text.lines().enumerate().find_map(|(line, content)| {
        let column = column(content)?;
        Some(Place { file: Arc::clone(file), line: line + 1, column })
    })
}

/// Adds what a file says. Of two items with one name the first stays.
fn merge(into: &mut Routing, from: &Routing, clashes: &mut Vec<Problem>) {
    merge_items(&mut into.routers, &from.routers, clashes);
    merge_items(&mut into.services, &from.services, clashes);
    merge_items(&mut into.middlewares, &from.middlewares, clashes);
    merge_items(&mut into.servers_transports, &from.servers_transports, clashes);
    merge_items(&mut into.tls.options, &from.tls.options, clashes);
    into.tls.certificates.extend(from.tls.certificates.iter().cloned());
    match (&into.tls.default_certificate, &from.tls.default_certificate) {
        (Some(first), Some(second)) => clashes.push(clash("defaultCertificate", first, second)),
        (None, Some(_)) => into.tls.default_certificate.clone_from(&from.tls.default_certificate),
        (_, None) => {}
    }
}

fn merge_items<T: Clone>(
    into: &mut BTreeMap<String, Item<T>>,
    from: &BTreeMap<String, Item<T>>,
    clashes: &mut Vec<Problem>,
) {
    for (name, item) in from {
        match into.get(name) {
            Some(first) => clashes.push(clash(name, first, item)),
            None => {
                into.insert(name.clone(), item.clone());
            }
        }
    }
}

fn clash<T>(name: &str, first: &Item<T>, second: &Item<T>) -> Problem {
    routing::twice(second.key(), name, first.place("")).at(second.place(""))
}

/// Why a file or a directory could not be read, in our words.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::{Files, template};
    use crate::config::Problem;
    use crate::config::install::FileProvider;

    /// A directory that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("weir-files-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("the temporary directory can be written");
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("the file is in a directory")).expect("a directory can be made");
            fs::write(path, text).expect("the temporary directory can be written");
        }

        fn files(&self) -> Files {
            Files::new(&FileProvider { directory: Some(self.0.clone()), ..FileProvider::default() })
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn router(name: &str) -> String {
        format!("http:\n  routers:\n    {name}:\n      rule: Host(`{name}`)\n      service: s\n")
    }

    /// The routers and the problems of a reading, each on one line.
    fn read(files: &mut Files, folder: &Folder) -> (String, String) {
        let (routing, problems) = files.read();
        let routers: Vec<&str> = routing.routers.keys().map(String::as_str).collect();
        let shown = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        (routers.join(" "), shown.replace(&format!("{}/", folder.0.display()), ""))
    }

    #[test]
    fn a_directory_in_the_order_of_names() {
        let folder = Folder::new("order");
        folder.write("b.yaml", &router("one"));
        folder.write("a/deep/x.YML", &router("two"));
        folder.write("c.yml", &router("one"));
        folder.write("d.toml", "");
        for hidden in [".hidden.yaml", "..data/x.yaml", "#x.yaml", "~$x.yaml", "x.yaml~", "notes.txt"] {
            folder.write(hidden, "nonsense: [");
        }
        let mut files = folder.files();
        let (routers, problems) = read(&mut files, &folder);
        assert_eq!(routers, "one two");
        assert_eq!(
            problems,
            "warning: `d.toml` is not read: TOML is not supported yet\n  help: write it as YAML\n\
             error: c.yml:3:5: http.routers.one: `one` is already defined at b.yaml:3:5: this one is not used"
        );
    }

    #[test]
    fn the_last_good_content_stays() {
        let folder = Folder::new("stays");
        folder.write("a.yaml", &router("a"));
        folder.write("b.yaml", "# nothing yet\n");
        let mut files = folder.files();
        assert_eq!(read(&mut files, &folder), ("a".to_owned(), String::new()));
        for (text, expected) in [
            ("http: [", "this is no YAML"),
            ("", "warning: `a.yaml` is empty now; the file keeps its last good content"),
            ("# later\n", "is empty now"),
            ("{{ range }}", "error: a.yaml:1:1: `{{` opens a Go template"),
        ] {
            folder.write("a.yaml", text);
            let (routers, problems) = read(&mut files, &folder);
            assert_eq!(routers, "a", "{text}");
            assert!(problems.contains(expected), "{text}: {problems}");
            assert!(problems.contains("; the file keeps its last good content"), "{problems}");
            assert_eq!(read(&mut files, &folder), (routers, problems), "the same again");
        }
        folder.write("a.yaml", &router("new"));
        folder.write("b.yaml", &router("b"));
        assert_eq!(read(&mut files, &folder), ("b new".to_owned(), String::new()));
        fs::remove_file(folder.0.join("a.yaml")).expect("the file is there");
        assert_eq!(read(&mut files, &folder), ("b".to_owned(), String::new()));
    }

    #[test]
    fn nothing_new_is_the_same_value() {
        let folder = Folder::new("same");
        folder.write("a.yaml", &router("a"));
        let mut files = folder.files();
        let (first, _) = files.read();
        let (second, _) = files.read();
        assert!(Arc::ptr_eq(&first, &second));
        folder.write("a.yaml", &format!("# moved\n{}", router("a")));
        let (third, _) = files.read();
        assert!(!Arc::ptr_eq(&first, &third));
        assert_eq!(first, third);
    }

    #[test]
    fn a_missing_directory_is_looked_for_again() {
        let folder = Folder::new("missing");
        let directory = folder.0.join("dyn");
        let mut files = Files::new(&FileProvider { directory: Some(directory.clone()), ..FileProvider::default() });
        let (routers, problems) = read(&mut files, &folder);
        assert_eq!(routers, "");
        assert_eq!(problems, "error: providers.file.directory: the directory `dyn` cannot be read: it does not exist");
        folder.write("dyn/a.yaml", &router("a"));
        assert_eq!(read(&mut files, &folder), ("a".to_owned(), String::new()));
        fs::rename(&directory, folder.0.join("gone")).expect("the directory is there");
        assert_eq!(read(&mut files, &folder).0, "a");
    }

    #[test]
    fn one_file() {
        let folder = Folder::new("one");
        let filename = Some(folder.0.join("a.yaml"));
        let mut files = Files::new(&FileProvider { filename, ..FileProvider::default() });
        assert_eq!(read(&mut files, &folder).1, "error: `a.yaml` cannot be read: it does not exist");
        folder.write("a.yaml", &router("a"));
        assert_eq!(read(&mut files, &folder), ("a".to_owned(), String::new()));
        let filename = Some(folder.0.join("a.toml"));
        let mut files = Files::new(&FileProvider { filename, ..FileProvider::default() });
        assert!(read(&mut files, &folder).1.starts_with("warning: `a.toml` is not read"));
        assert!(
            Files::new(&FileProvider::default()).read().1[0].message.contains("neither `directory` nor `filename`")
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_but_not_in_circles() {
        use std::os::unix::fs::symlink;

        let folder = Folder::new("links");
        folder.write("..2026/a.yaml", &router("a"));
        symlink("..2026", folder.0.join("..data")).expect("links can be made");
        symlink("..data/a.yaml", folder.0.join("a.yaml")).expect("links can be made");
        symlink(".", folder.0.join("circle")).expect("links can be made");
        symlink("nowhere.yaml", folder.0.join("broken.yaml")).expect("links can be made");
        let (routers, problems) = read(&mut folder.files(), &folder);
        assert_eq!(routers, "a");
        assert_eq!(problems, "error: `broken.yaml` cannot be read: it does not exist");
    }

    #[test]
    fn templates() {
        let file: Arc<Path> = Arc::from(Path::new("t.yaml"));
        for (text, expected) in [
            ("a: {{ env \"X\" }}", Some((1, 4))),
            ("a: 1\nb: \"http://{{ x }}\"", Some((2, 12))),
            ("a: \"x # {{ y }}\"", Some((1, 9))),
            ("# {{ x }}\na: 1 # {{ y }}\n", None),
            ("a: it's # {{ y }}\n", None),
            ("a: {b: {c: 1}}\n", None),
            ("", None),
        ] {
            let place = template(&file, text).map(|place| (place.line, place.column));
            assert_eq!(place, expected, "{text}");
        }
    }
}
