//! YAML text as a tree whose every node knows its place.
//!
//! Called by the readers of install and routing files. It decides what is YAML; what a scalar means (a number, a list,
//! a duration) is decided by whoever asks for it, so scalars keep their text: `1.10` and `yes` stay what they are.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{Place, Problem};

mod parse;

pub(super) use parse::parse;

/// A value in a YAML file. Cloning is cheap; comparing ignores places.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    place: Place,
    /// The path of keys that leads here, for a node that was taken out of its tree.
    key: String,
    kind: Kind,
    /// Values in this node with all aliases written out.
    size: usize,
    /// Levels in this node with all aliases written out.
    height: usize,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    /// `plain`: without quotes, so that `true` or `12` may be meant as such.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Section(Vec<Entry>),
}

/// A key of a section with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
    /// Whether it came in through a merge key, so that a key of the section itself wins.
    pub(super) merged: bool,
}

/// The text of a file without a byte order mark.
///
/// # Errors
///
/// A problem that names the first place that is not UTF-8.
pub(super) fn text<'a>(file: &Arc<Path>, bytes: &'a [u8]) -> Result<&'a str, Problem> {
    const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
    let bytes = bytes.strip_prefix(UTF8_MARK).unwrap_or(bytes);
    let error = match str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let problem = Problem::error("", "the file is not UTF-8 text").at(Place { file: Arc::clone(file), line, column });
    Err(problem.help("save it with the encoding UTF-8".to_owned()))
}

impl Node {
    /// What a file without content holds.
    pub(super) fn nothing(file: Arc<Path>) -> Self {
        Self::new(Place { file, line: 1, column: 1 }, Kind::Null)
    }

    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// The path of keys that leads here where it is known, such as `http.middlewares.auth.basicAuth`; else empty.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// An error about this value, or about one below it at a path such as `tls.options`, with its place.
    pub fn problem(&self, path: &str, message: impl Into<String>) -> Problem {
        let key = [self.key(), path].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        Problem::error(key, message).at(self.nearest(path))
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// The same value as one that knows its key.
    pub(super) fn named(&self, key: String) -> Self {
        Self(Arc::new(Inner { key, ..(*self.0).clone() }))
    }

    /// A part of a scalar as a node of its own.
    pub(super) fn part(&self, text: &str) -> Self {
        let kind = Kind::Scalar { text: text.to_owned(), plain: true };
        Self::new(self.0.place.clone(), kind)
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match self.kind() {
            Kind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The keys of a section; none for anything else.
    pub(super) fn entries(&self) -> &[Entry] {
        match self.kind() {
            Kind::Section(entries) => entries,
            _ => &[],
        }
    }

    /// Whether it says nothing: null or a section without keys.
    pub(super) fn is_blank(&self) -> bool {
        match self.kind() {
            Kind::Null => true,
            Kind::Section(entries) => entries.is_empty(),
            Kind::Scalar { .. } | Kind::List(_) => false,
        }
    }

    /// Whether it is `value` without quotes, in any case.
    pub(super) fn is_plain(&self, value: &str) -> bool {
        matches!(self.kind(), Kind::Scalar { text, plain: true } if text.eq_ignore_ascii_case(value))
    }

    /// The entry below a path such as `tls.options`, in any case of keys.
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let entry = pick(self.entries(), first)?;
        match rest {
            Some(rest) => entry.value.entry(rest),
            None => Some(entry),
        }
    }

    /// The place of a path such as `servers[1].url`, or of the nearest parent that is there; `None` where not even the
    /// first step is.
    pub(super) fn find(&self, path: &str) -> Option<Place> {
        let mut node = self;
        let mut found = None;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            match (node.kind(), step.strip_suffix(']')) {
                (Kind::List(items), Some(index)) => {
                    let Some(item) = index.parse().ok().and_then(|index: usize| items.get(index)) else {
                        break;
                    };
                    found = Some(item.place().clone());
                    node = item;
                }
                (Kind::Section(entries), None) => {
                    let Some(entry) = pick(entries, step) else { break };
                    found = Some(entry.place().clone());
                    node = &entry.value;
                }
                _ => break,
            }
        }
        found
    }

    /// As [`Node::find`], falling back to this node's own place.
    pub(super) fn nearest(&self, path: &str) -> Place {
        self.find(path).unwrap_or_else(|| self.place().clone())
    }

    fn new(place: Place, kind: Kind) -> Self {
        let (size, height) = match &kind {
            Kind::Null | Kind::Scalar { .. } => (1, 1),
            Kind::List(items) => measure(items.iter()),
            Kind::Section(entries) => measure(entries.iter().map(|entry| &entry.value)),
        };
        Self(Arc::new(Inner { place, key: String::new(), kind, size, height }))
    }
}

impl Entry {
    /// Where to point at: a scalar itself, the key of anything larger.
    pub(super) fn place(&self) -> &Place {
        match self.value.kind() {
            Kind::Scalar { .. } => self.value.place(),
            Kind::Null | Kind::List(_) | Kind::Section(_) => &self.key_place,
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.kind == other.0.kind
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.value == other.value
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Kind::Null => f.write_str("null"),
            Kind::Scalar { text, plain: true } => f.write_str(text),
            Kind::Scalar { text, plain: false } => write!(f, "{text:?}"),
            Kind::List(items) => f.debug_list().entries(items).finish(),
            Kind::Section(entries) => {
                f.debug_map().entries(entries.iter().map(|entry| (&entry.key, &entry.value))).finish()
            }
        }
    }
}

fn pick<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Entry> {
    let exact = entries.iter().find(|entry| entry.key == key);
    exact.or_else(|| entries.iter().find(|entry| entry.key.eq_ignore_ascii_case(key)))
}

fn measure<'a>(children: impl Iterator<Item = &'a Node>) -> (usize, usize) {
    children.fold((1, 1), |(size, height), child| (size.saturating_add(child.0.size), height.max(child.0.height + 1)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{Node, parse, text};
    use crate::config::Problem;

    fn tree(yaml: &str) -> Result<Option<Node>, Vec<Problem>> {
        let file: Arc<Path> = Arc::from(Path::new("t.yaml"));
        parse(&file, text(&file, yaml.as_bytes()).map_err(|problem| vec![problem])?)
    }

    fn shown(yaml: &str) -> String {
        match tree(yaml) {
            Ok(node) => format!("{node:?}"),
            Err(problems) => problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn documents() {
        for (yaml, expected) in [
            ("", "None"),
            ("# nothing\n", "None"),
            ("---\n---\na: 1\n", "None"),
            ("a: 1\n---\nb: 2\n", "Some({\"a\": 1})"),
            ("\u{feff}a: 1.10\r\nb: yes\r\n", "Some({\"a\": 1.10, \"b\": yes})"),
            ("a: ~\nb:\nc: ''\nd: \"null\"\n", "Some({\"a\": null, \"b\": null, \"c\": \"\", \"d\": \"null\"})"),
            ("a: !!str 12\nb: |\n  x\n  y\n", "Some({\"a\": \"12\", \"b\": \"x\\ny\\n\"})"),
            (
                "a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n",
                "Some({\"a\": {\"b\": 1, \"c\": 2}, \"d\": {\"c\": 3, \"b\": 1}})",
            ),
            ("a: &x [1]\nb: *x\n", "Some({\"a\": [1], \"b\": [1]})"),
        ] {
            assert_eq!(shown(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn places() {
        let node = tree("http:\n  routers:\n    r1: {rule: x, middlewares: [a, b]}\n").expect("YAML").expect("content");
        for (path, expected) in [
            ("http", Some("t.yaml:1:1")),
            ("HTTP.Routers.r1.rule", Some("t.yaml:3:16")),
            ("http.routers.r1.middlewares[1]", Some("t.yaml:3:36")),
            ("http.routers.r1.middlewares[7]", Some("t.yaml:3:19")),
            ("http.routers.r1.rule.more", Some("t.yaml:3:16")),
            ("tls", None),
        ] {
            assert_eq!(node.find(path).map(|place| place.to_string()).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            laughs += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
        }
        assert!(shown(&laughs).contains("aliases stand for more than"), "{}", shown(&laughs));

        assert!(shown("a: &x [*x]\n").contains("inside the value"), "{}", shown("a: &x [*x]\n"));
        assert!(shown(&"[".repeat(5000)).starts_with("error: "));
        let deep: String = (0..500).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(shown(&deep).contains("levels deep"));
        let mut chain = "a0: &a0 x\n".to_owned();
        for level in 1..100 {
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(shown(&chain).contains("levels deep"), "{}", shown(&chain));
    }

    #[test]
    fn places_do_not_count_when_comparing() {
        assert_eq!(tree("a: {b: 1}\n"), tree("# moved\na:\n  b: 1\n"));
        assert_ne!(tree("a: {b: 1}\n"), tree("a: {b: '1'}\n"));
    }
}
