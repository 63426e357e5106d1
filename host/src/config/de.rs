//! A [`Node`] as a typed value, through serde, read the way Traefik reads its files.
//!
//! Called by the readers of install and routing files. Keys of sections match without regard to case, a scalar is split
//! at commas where a list is wanted, numbers and booleans may be quoted, `true` is an empty section, null is absent.
//! All problems of a value are found in one call: serde stops at the first wrong value, so that value is noted, taken
//! as absent, and the section is read again.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;
use std::vec;

use http::HeaderName;
use ipnet::IpNet;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::tree::{Entry, Kind};
use super::{Node, Place, Problem, WebOrigin, did_you_mean};

pub(super) mod scalar;

use scalar::Number;

/// Keys that the types of a section leave out.
pub(super) struct Rest {
    /// The name of the section's type.
    pub(super) section: &'static str,
    pub(super) keys: &'static [&'static str],
    pub(super) treat: Treat,
}

/// What is said about a key that a section's type leaves out.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Treat {
    /// An error: Weir cannot do it yet.
    Refuse,
    /// A warning: Weir cannot do it yet and goes on without.
    Ignore,
    /// A warning: it means nothing any more, in Traefik either.
    Obsolete,
    /// Nothing: it is read elsewhere, or need not be.
    Pass,
}

/// What is said about an option that Weir cannot do yet and goes on without.
pub(super) fn no_effect(key: &str, place: Option<Place>) -> Problem {
    let name = key.rsplit('.').next().unwrap_or(key);
    Problem::warning(key, format!("`{name}` has no effect: not supported yet")).at(place)
}

/// Stands for every key in [`Rest::keys`].
pub(super) const ANY: &str = "*";

/// Reads what `key` stands for. Without a value there is an error among the problems; with errors the value lacks what
/// they concern. `skip` names whole keys that are taken as absent.
pub(super) fn read<T: DeserializeOwned>(
    key: &str,
    place: &Place,
    node: &Node,
    rest: &'static [Rest],
    skip: &[String],
) -> (Option<T>, Vec<Problem>) {
    let mut pass = Pass { rest, skip: skip.iter().cloned().collect(), notes: RefCell::default() };
    let mut wrong = Vec::new();
    for _ in 0..MOST_WRONG {
        let reader = Reader { pass: &pass, node: node.clone(), place: place.clone(), key: key.to_owned() };
        let error = match T::deserialize(reader) {
            Ok(value) => return (Some(value), sorted(wrong, pass.notes.take())),
            Err(error) => error.located(key, place),
        };
        let is_root = error.key == key;
        if !error.is_off || is_root {
            wrong.push(error.problem());
        }
        if is_root {
            return (None, sorted(wrong, pass.notes.take()));
        }
        pass.skip.insert(error.key);
        pass.notes.take();
    }
    (None, wrong)
}

/// Wrong values that are listed for one item before its reader gives up.
const MOST_WRONG: usize = 50;

fn sorted(mut problems: Vec<Problem>, notes: Vec<Problem>) -> Vec<Problem> {
    problems.extend(notes);
    problems.sort_by(|one, two| one.place.cmp(&two.place));
    problems
}

/// For durations: `10s`, `1m30s`, `100ms`, or whole seconds.
pub(super) fn duration<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    scalar::duration(&text).map_err(de::Error::custom)
}

/// As [`duration`], where unset differs from zero.
pub(super) fn optional_duration<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// As [`duration`], with zero for negative ones.
pub(super) fn duration_or_zero<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.strip_prefix('-') {
        Some(positive) => scalar::duration(positive).map(|_| Duration::ZERO),
        None => scalar::duration(&text),
    }
    .map_err(de::Error::custom)
}

/// For lists of networks: `10.0.0.0/8`, or single addresses.
pub(super) fn networks<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| scalar::network(text).map_err(de::Error::custom)).collect()
}

/// For lists of names of fields.
pub(super) fn field_names<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderName>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let name = |text: &String| text.parse().map_err(|_| de::Error::custom(format!("`{text}` is no name of a field")));
    texts.iter().map(name).collect()
}

/// For lists of web origins: `https://login.example.com`.
pub(super) fn origins<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Vec<WebOrigin>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| scalar::origin(text).map_err(de::Error::custom)).collect()
}

/// For sizes in bytes: `64MiB`, `500kB`, or bytes without a unit.
pub(super) fn optional_size<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    scalar::size(&text).map(Some).map_err(de::Error::custom)
}

/// For CPU time in processor cores: `0.5`.
pub(super) fn optional_cores<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    scalar::cores(&text).map(Some).map_err(de::Error::custom)
}

/// For megabytes, without a unit.
pub(super) fn megabytes<'de, D: de::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = String::deserialize(deserializer)?;
    scalar::megabytes(&text).map_err(de::Error::custom)
}

/// For lists of status codes: `404`, `500-599`.
pub(super) fn status_codes<'de, D>(deserializer: D) -> Result<Vec<RangeInclusive<u16>>, D::Error>
where
    D: de::Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| scalar::status_codes(text).map_err(de::Error::custom)).collect()
}

pub(super) fn ascending<'de, D>(deserializer: D) -> Result<Vec<f64>, D::Error>
where
    D: de::Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    scalar::ascending(&texts).map_err(de::Error::custom)
}

/// One attempt to read a value.
struct Pass {
    rest: &'static [Rest],
    /// Whole keys that are taken as absent.
    skip: HashSet<String>,
    notes: RefCell<Vec<Problem>>,
}

struct Reader<'a> {
    pass: &'a Pass,
    node: Node,
    place: Place,
    key: String,
}

impl<'a> Reader<'a> {
    fn below(&self, key: String, place: &Place, node: Node) -> Self {
        Self { pass: self.pass, node, place: place.clone(), key }
    }

    fn wrong(&self, message: impl fmt::Display) -> Error {
        <Error as de::Error>::custom(message).located(&self.key, &self.place)
    }

    fn scalar(&self, wanted: &str) -> Result<&str, Error> {
        match self.node.kind() {
            Kind::Scalar { text, .. } => Ok(text),
            Kind::Null => Ok(""),
            Kind::List(_) => Err(self.wrong(format!("this is a list where {wanted} is wanted"))),
            Kind::Section(_) => Err(self.wrong(format!("this is a section where {wanted} is wanted"))),
        }
    }

    fn number<T: Number>(&self) -> Result<T, Error> {
        let text = self.scalar("a number")?;
        scalar::number(text).map_err(|message| self.wrong(message))
    }

    /// The entries of a section that say something.
    fn section(&self) -> Result<Vec<Entry>, Error> {
        match self.node.kind() {
            Kind::Null => Ok(Vec::new()),
            Kind::Section(entries) => {
                Ok(entries.iter().filter(|entry| *entry.value.kind() != Kind::Null).cloned().collect())
            }
            Kind::Scalar { .. } if self.node.is_plain("true") => Ok(Vec::new()),
            Kind::Scalar { .. } if self.node.is_plain("false") => {
                Err(Error { is_off: true, ..self.wrong("`false` cannot stand for a section") })
            }
            Kind::Scalar { text, .. } => Err(self.wrong(format!("`{text}` stands where a section is wanted"))),
            Kind::List(_) => Err(self.wrong("this is a list where a section is wanted")),
        }
    }

    fn list(&self) -> Result<Vec<(usize, Node)>, Error> {
        let items = match self.node.kind() {
            Kind::Null => Vec::new(),
            Kind::List(items) => items.clone(),
            Kind::Scalar { text, .. } => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| self.node.part(part))
                .collect(),
            Kind::Section(_) => return Err(self.wrong("this is a section where a list is wanted")),
        };
        let used = |(index, item): &(usize, Node)| {
            *item.kind() != Kind::Null && !self.pass.skip.contains(&format!("{}[{index}]", self.key))
        };
        Ok(items.into_iter().enumerate().filter(used).collect())
    }

    /// The fields of a section with the entries that fill them. Unknown keys are noted.
    fn fields(&self, section: &str, fields: &'static [&'static str]) -> Result<Vec<(&'static str, Entry)>, Error> {
        let mut found: Vec<(&'static str, Entry)> = Vec::new();
        for entry in self.section()? {
            let Some(field) = fields.iter().copied().find(|field| field.eq_ignore_ascii_case(&entry.key)) else {
                self.note(section, fields, &entry);
                continue;
            };
            if self.pass.skip.contains(&join(&self.key, field)) {
                continue;
            }
            match found.iter_mut().find(|(known, _)| *known == field) {
                None => found.push((field, entry)),
                Some((_, first)) if first.merged => *first = entry,
                Some(_) if entry.merged => {}
                Some((_, first)) => {
                    let message =
                        format!("`{}` is already given as `{}` in line {}", entry.key, first.key, first.key_place.line);
                    let problem = Problem::error(join(&self.key, &entry.key), message).at(entry.key_place.clone());
                    self.pass
                        .notes
                        .borrow_mut()
                        .push(problem.help("the case of keys does not count: remove one of the two".to_owned()));
                }
            }
        }
        Ok(found)
    }

    fn note(&self, section: &str, fields: &[&str], entry: &Entry) {
        let key = join(&self.key, &entry.key);
        if self.pass.skip.contains(&key) {
            return;
        }
        let rest = || self.pass.rest.iter().filter(|rest| rest.section == section);
        let known =
            |rest: &&Rest| rest.keys.iter().any(|known| *known == ANY || known.eq_ignore_ascii_case(&entry.key));
        let all = || fields.iter().copied().chain(rest().flat_map(|rest| rest.keys.iter().copied()));
        let name = &entry.key;
        let problem = match rest().find(known).map(|rest| rest.treat) {
            Some(Treat::Pass) => return,
            Some(Treat::Refuse) => Problem::error(key, format!("`{name}` is not supported yet")),
            Some(Treat::Ignore) => no_effect(&key, None),
            Some(Treat::Obsolete) => Problem::warning(key, format!("`{name}` has no effect")),
            None => Problem::error(key, format!("`{name}` is not a known key")).help(did_you_mean(name, all())),
        };
        self.pass.notes.borrow_mut().push(problem.at(entry.key_place.clone()));
    }
}

fn join(key: &str, below: &str) -> String {
    if key.is_empty() { below.to_owned() } else { format!("{key}.{below}") }
}

macro_rules! numbers {
    ($($method:ident $visit:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number()?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Error;

    numbers! {
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64,
        deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32, deserialize_u64 visit_u64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.scalar("`true` or `false`")?;
        visitor.visit_bool(scalar::boolean(text).map_err(|message| self.wrong(message))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.scalar("text")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.kind() {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let items = self.list()?.into_iter();
        visitor.visit_seq(List { reader: self, items })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let mut entries = self.section()?;
        entries.retain(|entry| !self.pass.skip.contains(&join(&self.key, &entry.key)));
        let entries = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect::<Vec<_>>().into_iter();
        visitor.visit_map(Section { reader: self, entries, value: None })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = self.fields(name, fields)?.into_iter();
        let entries = entries.map(|(field, entry)| (field.to_owned(), entry)).collect::<Vec<_>>().into_iter();
        visitor.visit_map(Section { reader: self, entries, value: None })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = self.scalar("a name")?;
        let Some(variant) = variants.iter().copied().find(|variant| variant.eq_ignore_ascii_case(text)) else {
            let list = variants.iter().map(|variant| format!("`{variant}`")).collect::<Vec<_>>().join(", ");
            let help = did_you_mean(text, variants.iter().copied());
            return Err(Error { help, ..self.wrong(format!("`{text}` is none of {list}")) });
        };
        visitor.visit_enum(Variant(variant))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.kind() {
            Kind::Null => visitor.visit_unit(),
            Kind::Scalar { .. } => self.deserialize_str(visitor),
            Kind::List(_) => self.deserialize_seq(visitor),
            Kind::Section(_) => self.deserialize_map(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Section<'a> {
    reader: Reader<'a>,
    entries: vec::IntoIter<(String, Entry)>,
    value: Option<(String, Entry)>,
}

impl<'de> MapAccess<'de> for Section<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.value = self.entries.next();
        let Some((key, _)) = &self.value else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (key, entry) = self.value.take().expect("serde asks for a value after its key");
        let key = join(&self.reader.key, &key);
        let reader = self.reader.below(key.clone(), entry.place(), entry.value.clone());
        seed.deserialize(reader).map_err(|error| error.located(&key, entry.place()))
    }
}

struct List<'a> {
    reader: Reader<'a>,
    items: vec::IntoIter<(usize, Node)>,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.items.next() else {
            return Ok(None);
        };
        let key = format!("{}[{index}]", self.reader.key);
        let place = node.place().clone();
        let reader = self.reader.below(key.clone(), &place, node);
        seed.deserialize(reader).map(Some).map_err(|error| error.located(&key, &place))
    }
}

struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

/// Only names without content are read as enums.
impl<'de> VariantAccess<'de> for Variant {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(de::Error::custom("a name stands where a section is wanted"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a name stands where a list is wanted"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("a name stands where a section is wanted"))
    }
}

/// The first wrong value of a pass.
#[derive(Debug)]
pub(super) struct Error {
    message: String,
    help: Option<String>,
    key: String,
    place: Option<Place>,
    /// A section that is switched off by `false`: absent, and nothing is wrong.
    is_off: bool,
}

impl Error {
    /// Fills in where it happened, unless somebody nearer did.
    fn located(mut self, key: &str, place: &Place) -> Self {
        if self.place.is_none() {
            key.clone_into(&mut self.key);
            self.place = Some(place.clone());
        }
        self
    }

    fn problem(&self) -> Problem {
        Problem::error(self.key.clone(), self.message.clone()).at(self.place.clone()).help(self.help.clone())
    }
}

impl de::Error for Error {
    /// Text after a line break is the help.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let (message, help) = scalar::split(&message.to_string());
        Self { message, help, key: String::new(), place: None, is_off: false }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
