//! YAML events put together to a tree, with all that can be wrong with that.
//!
//! Anchors, aliases and merge keys are resolved here, within bounds: what reads a tree never meets them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{Entry, Kind, Node};
use crate::config::{Place, Problem};

/// Reads the first document of `text`, the content of `file`. `None`: it holds nothing.
///
/// # Errors
///
/// The syntax error, or all keys that are defined twice.
pub(in crate::config) fn parse(file: &Arc<Path>, text: &str) -> Result<Option<Node>, Vec<Problem>> {
    let mut builder = Builder {
        file,
        end: end(text),
        stack: Vec::new(),
        anchors: HashMap::new(),
        open: Vec::new(),
        expanded: 0,
        duplicates: Vec::new(),
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    builder.document(&mut parser).map_err(|problem| vec![problem])?;
    if !builder.duplicates.is_empty() {
        builder.duplicates.sort_by(|one, two| one.place.cmp(&two.place));
        return Err(builder.duplicates);
    }
    Ok(builder.root.filter(|root| *root.kind() != Kind::Null))
}

/// Line and column behind the last character.
fn end(text: &str) -> (usize, usize) {
    let breaks = text.matches(['\n', '\r']).count() - text.matches("\r\n").count();
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    (breaks + 1, last.chars().count() + 1)
}

/// Levels of nesting. Traefik's own options need nine.
const DEEPEST: usize = 64;

/// Values that aliases and merge keys may stand for in one file. Stops a small file that unfolds into gigabytes.
const MOST_EXPANDED: usize = 100_000;

struct Builder<'a> {
    file: &'a Arc<Path>,
    end: (usize, usize),
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    /// Anchors of collections that are not complete yet.
    open: Vec<usize>,
    expanded: usize,
    duplicates: Vec<Problem>,
    root: Option<Node>,
}

struct Frame {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Section { entries: Vec<Entry>, key: Option<(String, Place)> },
}

impl Builder<'_> {
    fn document(&mut self, parser: &mut Parser<'_, StrInput<'_>>) -> Result<(), Problem> {
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| self.syntax(&error))?;
            let place = self.place(&span.start);
            match event {
                Event::DocumentEnd | Event::StreamEnd => return Ok(()),
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => {}
                Event::Alias(anchor) => {
                    let node = self.alias(anchor, place.clone())?;
                    self.add(node, place)?;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), &place)?;
                    let node = Node::new(place.clone(), scalar(text.into_owned(), plain));
                    self.anchor(anchor, &node);
                    self.add(node, place)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    is_text(tag.as_deref(), &place)?;
                    self.open(place, anchor, Content::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    is_text(tag.as_deref(), &place)?;
                    let content = Content::Section { entries: Vec::new(), key: None };
                    self.open(place, anchor, content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
            }
        }
        Ok(())
    }

    fn open(&mut self, place: Place, anchor: usize, content: Content) -> Result<(), Problem> {
        if self.stack.len() >= DEEPEST {
            return Err(too_deep(place));
        }
        self.open.push(anchor);
        self.stack.push(Frame { place, anchor, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(Frame { place, anchor, content }) = self.stack.pop() else {
            return Ok(());
        };
        self.open.pop();
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Section { entries, .. } => {
                self.check(&entries);
                Kind::Section(self.merge(entries)?)
            }
        };
        let node = Node::new(place.clone(), kind);
        if node.0.height + self.stack.len() > DEEPEST {
            return Err(too_deep(place));
        }
        self.anchor(anchor, &node);
        self.add(node, place)
    }

    fn anchor(&mut self, anchor: usize, node: &Node) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<Node, Problem> {
        if self.open.contains(&anchor) {
            return Err(Problem::error("", "an alias stands inside the value that it stands for").at(place));
        }
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Problem::error("", "an alias stands for nothing").at(place));
        };
        self.expand(&node, place)?;
        Ok(node)
    }

    fn expand(&mut self, node: &Node, place: Place) -> Result<(), Problem> {
        self.expanded = self.expanded.saturating_add(node.0.size);
        if self.expanded > MOST_EXPANDED {
            return Err(Problem::error("", format!("aliases stand for more than {MOST_EXPANDED} values")).at(place));
        }
        Ok(())
    }

    /// Puts a finished value where it belongs: a list, a key or a value of a section, or the root. `place` is that of
    /// an alias where one stands here.
    fn add(&mut self, node: Node, place: Place) -> Result<(), Problem> {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let (entries, key) = match &mut frame.content {
            Content::Section { entries, key } => (entries, key),
            Content::List(items) => {
                items.push(node);
                return Ok(());
            }
        };
        if let Some((key, key_place)) = key.take() {
            entries.push(Entry { key, key_place, value: node, merged: false });
            return Ok(());
        }
        let text = match node.kind() {
            Kind::Scalar { text, .. } => text.clone(),
            Kind::Null => String::new(),
            Kind::List(_) | Kind::Section(_) => {
                return Err(Problem::error(self.path(), "a list or a section cannot be a key").at(place));
            }
        };
        *key = Some((text, place));
        Ok(())
    }

    /// Notes the keys that a section has twice.
    fn check(&mut self, entries: &[Entry]) {
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by(|one, two| one.key.cmp(&two.key));
        for pair in sorted.windows(2) {
            let [first, second] = pair else { continue };
            if first.key != second.key {
                continue;
            }
            let path = self.path();
            let path = if path.is_empty() { first.key.clone() } else { format!("{path}.{}", first.key) };
            let message = format!("`{}` is already defined in line {}", first.key, first.key_place.line);
            let help = format!("the first is at {}: remove one of the two", first.key_place);
            self.duplicates.push(Problem::error(path, message).at(second.key_place.clone()).help(help));
        }
    }

    /// The path of keys to what is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.stack {
            match &frame.content {
                Content::List(items) => path += &format!("[{}]", items.len()),
                Content::Section { key: Some((key, _)), .. } if path.is_empty() => path += key,
                Content::Section { key: Some((key, _)), .. } => path += &format!(".{key}"),
                Content::Section { key: None, .. } => {}
            }
        }
        path
    }

    /// Replaces `<<` by the entries it stands for: keys of the section itself win, then the first section that has one.
    fn merge(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, Problem> {
        let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key == "<<");
        if merges.is_empty() {
            return Ok(own);
        }
        let mut names: HashSet<String> = own.iter().map(|entry| entry.key.clone()).collect();
        for merge in merges {
            let sources = match merge.value.kind() {
                Kind::List(items) => items.clone(),
                Kind::Null | Kind::Scalar { .. } | Kind::Section(_) => vec![merge.value.clone()],
            };
            for source in sources {
                let Kind::Section(inherited) = source.kind() else {
                    return Err(Problem::error("", "`<<` takes a section or a list of sections").at(merge.key_place));
                };
                self.expand(&source, merge.key_place.clone())?;
                for entry in inherited {
                    if names.insert(entry.key.clone()) {
                        own.push(Entry { merged: true, ..entry.clone() });
                    }
                }
            }
        }
        Ok(own)
    }

    /// The parser ends every file with a line break: what is missing at the end would be in a line that is not there.
    fn place(&self, marker: &Marker) -> Place {
        let (line, column) = (marker.line().max(1), marker.col() + 1).min(self.end);
        Place { file: Arc::clone(self.file), line, column }
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let message = error.info().trim_end_matches('.');
        let problem = Problem::error("", format!("this is no YAML: {message}")).at(self.place(error.marker()));
        if message.contains("tab") {
            return problem.help("indent with spaces".to_owned());
        }
        problem
    }
}

fn scalar(text: String, plain: bool) -> Kind {
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Kind::Null;
    }
    Kind::Scalar { text, plain }
}

/// Whether a tag asks for text. Other tags of YAML's own say nothing new; foreign ones would be lost silently.
fn is_text(tag: Option<&Tag>, place: &Place) -> Result<bool, Problem> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        Some(tag) if tag.handle.is_empty() || tag.suffix.is_empty() => Ok(true),
        Some(tag) => Err(Problem::error("", format!("the tag `{tag}` is not supported")).at(place.clone())),
    }
}

fn too_deep(place: Place) -> Problem {
    Problem::error("", format!("values are nested more than {DEEPEST} levels deep")).at(place)
}
