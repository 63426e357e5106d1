//! A [`Node`] as JSON, directed by the JSON Schema of a plugin.
//!
//! Called by the plugin host before `init`. The schema says what a scalar means, so that a plugin's options are read as
//! leniently as Traefik reads its own: keys in any case, a scalar split at commas where an array is wanted, quoted
//! numbers and booleans. Nothing is filled in: defaults are the plugin's.

use serde_json::{Map, Number, Value};

use super::de::scalar;
use super::tree::{Entry, Kind};
use super::{Node, Place, Problem, did_you_mean};

impl Node {
    /// This value as JSON, and as `schema` wants it. Of JSON Schema count `type`, `properties`, `required`, `items`,
    /// `additionalProperties`, `enum`, `minimum` and `maximum`; null or `{}` accepts anything. Null values are left
    /// out; nothing, or `true`, is an object without members.
    ///
    /// # Errors
    ///
    /// All problems, with places, and with whole keys where [`Node::key`] is known.
    pub fn to_json(&self, schema: &Value) -> Result<Value, Vec<Problem>> {
        let mut writer = Writer { problems: Vec::new() };
        let at = At { key: self.key().to_owned(), place: self.place().clone() };
        let value = match self.kind() {
            Kind::Null => writer.object(&at, &[], schema),
            _ if self.is_plain("true") => writer.object(&at, &[], schema),
            _ => writer.value(&at, self, schema),
        };
        match value {
            Some(value) if writer.problems.is_empty() => Ok(value),
            _ => Err(writer.problems),
        }
    }
}

struct Writer {
    problems: Vec<Problem>,
}

/// Where a value stands.
struct At {
    key: String,
    place: Place,
}

impl Writer {
    /// `None`: null, switched off, or wrong and noted.
    fn value(&mut self, at: &At, node: &Node, schema: &Value) -> Option<Value> {
        if *node.kind() == Kind::Null {
            return None;
        }
        let value = match wanted(schema).as_slice() {
            [] => self.unsaid(at, node, schema),
            [one] => self.typed(at, node, schema, one),
            several => self.any_of(at, node, schema, several),
        }?;
        self.check(at, node, &value, schema);
        Some(value)
    }

    fn typed(&mut self, at: &At, node: &Node, schema: &Value, wanted: &str) -> Option<Value> {
        match (wanted, node.kind()) {
            ("object", Kind::Section(entries)) => self.object(at, entries, schema),
            ("object", Kind::Scalar { .. }) if node.is_plain("true") => self.object(at, &[], schema),
            ("object", Kind::Scalar { .. }) if node.is_plain("false") => None,
            ("array", Kind::List(items)) => Some(self.array(at, items, schema)),
            ("array", Kind::Scalar { text, .. }) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                let parts: Vec<Node> = parts.map(|part| node.part(part)).collect();
                Some(self.array(at, &parts, schema))
            }
            ("string", Kind::Scalar { text, .. }) => Some(Value::String(text.clone())),
            ("integer", Kind::Scalar { text, .. }) => self.or_note(at, integer(text)),
            ("number", Kind::Scalar { text, .. }) => self.or_note(at, real(text)),
            ("boolean", Kind::Scalar { text, .. }) => self.or_note(at, scalar::boolean(text).map(Value::Bool)),
            _ => {
                let found = match node.kind() {
                    Kind::Section(_) => "this is a section".to_owned(),
                    Kind::List(_) => "this is a list".to_owned(),
                    Kind::Scalar { text, .. } => format!("`{text}` stands"),
                    Kind::Null => "nothing stands".to_owned(),
                };
                self.note(at, format!("{found} where {} is wanted", named(wanted)));
                None
            }
        }
    }

    /// Takes the first type that fits, the one that plain YAML would give first.
    fn any_of(&mut self, at: &At, node: &Node, schema: &Value, wanted: &[&str]) -> Option<Value> {
        let mut wanted = wanted.to_vec();
        let natural = match node.kind() {
            Kind::Section(_) => "object",
            Kind::List(_) => "array",
            Kind::Null => "null",
            Kind::Scalar { text, plain } => match resolve(text, *plain) {
                Value::Bool(_) => "boolean",
                Value::Number(number) if number.is_f64() => "number",
                Value::Number(_) => "integer",
                _ => "string",
            },
        };
        wanted.sort_by_key(|kind| *kind != natural);
        for kind in &wanted {
            let mut attempt = Self { problems: Vec::new() };
            let value = attempt.typed(at, node, schema, kind);
            if attempt.problems.is_empty() {
                return value;
            }
        }
        let list = wanted.iter().map(|kind| named(kind)).collect::<Vec<_>>().join(" or ");
        self.note(at, format!("this is not {list}"));
        None
    }

    /// Where the schema has no type: as YAML's core schema has it.
    fn unsaid(&mut self, at: &At, node: &Node, schema: &Value) -> Option<Value> {
        match node.kind() {
            Kind::Null => None,
            Kind::Section(entries) => self.object(at, entries, schema),
            Kind::List(items) => Some(self.array(at, items, schema)),
            Kind::Scalar { text, plain } => Some(resolve(text, *plain)),
        }
    }

    fn array(&mut self, at: &At, items: &[Node], schema: &Value) -> Value {
        let schema = &schema["items"];
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let at = At { key: format!("{}[{index}]", at.key), place: item.place().clone() };
            values.extend(self.value(&at, item, schema));
        }
        Value::Array(values)
    }

    fn object(&mut self, at: &At, entries: &[Entry], schema: &Value) -> Option<Value> {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let mut members: Map<String, Value> = Map::new();
        for entry in entries.iter().filter(|entry| *entry.value.kind() != Kind::Null) {
            let Some((name, schema)) = self.member(at, entry, properties, &schema["additionalProperties"]) else {
                continue;
            };
            let at = At { key: join(&at.key, name), place: entry.place().clone() };
            if !members.contains_key(name) {
                if let Some(value) = self.value(&at, &entry.value, schema) {
                    members.insert(name.to_owned(), value);
                }
            } else if !entry.merged {
                self.note(&At { place: entry.key_place.clone(), ..at }, format!("`{}` is given twice", entry.key));
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for name in required.filter(|name| !members.contains_key(*name)) {
            let wrong = self.problems.iter().any(|problem| problem.key.starts_with(&join(&at.key, name)));
            if !wrong {
                self.note(at, format!("`{name}` is missing"));
            }
        }
        Some(Value::Object(members))
    }

    /// The name and schema of a member. Known names match without regard to case, others keep theirs.
    fn member<'a>(
        &mut self,
        at: &At,
        entry: &'a Entry,
        properties: &'a Map<String, Value>,
        additional: &'a Value,
    ) -> Option<(&'a str, &'a Value)> {
        let exact = properties.get_key_value(&entry.key);
        let known = exact.or_else(|| properties.iter().find(|(name, _)| name.eq_ignore_ascii_case(&entry.key)));
        if let Some((name, schema)) = known {
            return Some((name, schema));
        }
        let open = if properties.is_empty() { *additional != Value::Bool(false) } else { accepts_more(additional) };
        if open {
            return Some((&entry.key, additional));
        }
        let problem = Problem::error(join(&at.key, &entry.key), format!("`{}` is not a known key", entry.key));
        let help = did_you_mean(&entry.key, properties.keys().map(String::as_str));
        self.problems.push(problem.at(entry.key_place.clone()).help(help));
        None
    }

    fn check(&mut self, at: &At, node: &Node, value: &Value, schema: &Value) {
        let text = node.text().unwrap_or_default();
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            let list = allowed.iter().map(|one| format!("`{}`", plain(one))).collect::<Vec<_>>().join(", ");
            let problem = Problem::error(at.key.clone(), format!("`{text}` is none of {list}"));
            self.problems.push(problem.at(at.place.clone()).help(did_you_mean(text, names)));
        }
        let Some(number) = value.as_f64() else { return };
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            self.note(at, format!("`{text}` is less than {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            self.note(at, format!("`{text}` is more than {most}"));
        }
    }

    fn or_note(&mut self, at: &At, value: Result<Value, String>) -> Option<Value> {
        match value {
            Ok(value) => Some(value),
            Err(message) => {
                self.note(at, message);
                None
            }
        }
    }

    fn note(&mut self, at: &At, message: String) {
        let (message, help) = scalar::split(&message);
        self.problems.push(Problem::error(at.key.clone(), message).at(at.place.clone()).help(help));
    }
}

fn join(key: &str, below: &str) -> String {
    if key.is_empty() { below.to_owned() } else { format!("{key}.{below}") }
}

/// The types that a schema names or implies.
fn wanted(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ if schema["properties"].is_object() => vec!["object"],
        _ if schema["items"].is_object() => vec!["array"],
        _ => Vec::new(),
    }
}

fn accepts_more(additional: &Value) -> bool {
    matches!(additional, Value::Bool(true) | Value::Object(_))
}

fn named(kind: &str) -> &str {
    match kind {
        "object" => "a section",
        "array" => "a list",
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        other => other,
    }
}

fn integer(text: &str) -> Result<Value, String> {
    let fits = |number: i128| {
        let small = i64::try_from(number).map(Number::from);
        small.or_else(|_| u64::try_from(number).map(Number::from)).ok()
    };
    let number = scalar::whole(text).ok_or_else(|| format!("`{text}` is not a whole number"))?;
    fits(number).map(Value::Number).ok_or_else(|| format!("`{text}` is too large"))
}

fn real(text: &str) -> Result<Value, String> {
    if let Ok(number) = integer(text) {
        return Ok(number);
    }
    let number = text.parse().ok().filter(|_| text.contains(|digit: char| digit.is_ascii_digit()));
    number.and_then(Number::from_f64).map(Value::Number).ok_or_else(|| format!("`{text}` is not a number"))
}

/// YAML's core schema for one scalar.
fn resolve(text: &str, plain: bool) -> Value {
    if !plain {
        return Value::String(text.to_owned());
    }
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => real(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    }
}

/// Text as it is, anything else as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::config::{Problem, tree};

    fn convert(yaml: &str, schema: &Value) -> Result<Value, Vec<String>> {
        let file: Arc<Path> = Arc::from(Path::new("t.yaml"));
        let node = tree::parse(&file, &format!("m: {yaml}")).expect("YAML").expect("content");
        let entry = node.entry("m").expect("the key is there");
        let shown = |problems: Vec<Problem>| problems.iter().map(|problem| problem.to_string()).collect();
        entry.value.named("m".to_owned()).to_json(schema).map_err(shown)
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["users"],
            "properties": {
                "users": {"type": "array", "items": {"type": "string"}},
                "removeHeader": {"type": "boolean"},
                "stsSeconds": {"type": "integer", "minimum": 0, "maximum": 100},
                "ratio": {"type": "number"},
                "mode": {"enum": ["keep", "drop"]},
                "status": {"type": ["integer", "string"]},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}}
            }
        })
    }

    #[test]
    fn what_the_schema_wants() {
        for (yaml, expected) in [
            ("{users: 'a, b'}", json!({"users": ["a", "b"]})),
            ("{USERS: [1, yes], removeheader: 'true'}", json!({"users": ["1", "yes"], "removeHeader": true})),
            ("{users: [], stsSeconds: '0x10', ratio: 1.50}", json!({"users": [], "stsSeconds": 16, "ratio": 1.5})),
            (
                "{users: [], headers: {X-a: 1.50, x-A: 2020-01-02, b: }}",
                json!({"users": [], "headers": {"X-a": "1.50", "x-A": "2020-01-02"}}),
            ),
            ("{users: [], mode: keep, headers: true}", json!({"users": [], "mode": "keep", "headers": {}})),
            ("{users: [], status: 404}", json!({"users": [], "status": 404})),
            ("{users: [], status: 400-499}", json!({"users": [], "status": "400-499"})),
            ("{users: [], headers: false}", json!({"users": []})),
        ] {
            assert_eq!(convert(yaml, &schema()), Ok(expected), "{yaml}");
        }
    }

    #[test]
    fn what_it_refuses() {
        for (yaml, expected) in [
            ("{}", "error: t.yaml:1:4: m: `users` is missing"),
            ("true", "error: t.yaml:1:4: m: `users` is missing"),
            ("[1]", "error: t.yaml:1:4: m: this is a list where a section is wanted"),
            ("{users: {a: 1}}", "error: t.yaml:1:5: m.users: this is a section where a list is wanted"),
            ("{users: [[a]]}", "error: t.yaml:1:13: m.users[0]: this is a list where text is wanted"),
            (
                "{users: a, user: b}",
                "error: t.yaml:1:15: m.user: `user` is not a known key\n  help: did you mean `users`?",
            ),
            (
                "{users: a, removeHeader: yes}",
                "error: t.yaml:1:29: m.removeHeader: `yes` is neither `true` nor `false`\n  help: write `true`",
            ),
            ("{users: a, stsSeconds: 101}", "error: t.yaml:1:27: m.stsSeconds: `101` is more than 100"),
            ("{users: a, stsSeconds: -1}", "error: t.yaml:1:27: m.stsSeconds: `-1` is less than 0"),
            ("{users: a, stsSeconds: x}", "error: t.yaml:1:27: m.stsSeconds: `x` is not a whole number"),
            (
                "{users: a, mode: kep}",
                "error: t.yaml:1:21: m.mode: `kep` is none of `keep`, `drop`\n  help: did you mean `keep`?",
            ),
            ("{users: a, Users: b}", "error: t.yaml:1:15: m.users: `Users` is given twice"),
        ] {
            assert_eq!(convert(yaml, &schema()), Err(vec![expected.to_owned()]), "{yaml}");
        }
    }

    #[test]
    fn without_a_schema() {
        for (yaml, expected) in [
            (
                "{a: 1, b: 1.10, c: '1', d: yes, e: True, f: , g: [0x1F, 1e3, .inf, 2020-01-02]}",
                json!({"a": 1, "b": 1.1, "c": "1", "d": "yes", "e": true, "g": [31, 1000.0, ".inf", "2020-01-02"]}),
            ),
            ("", json!({})),
            ("true", json!({})),
        ] {
            assert_eq!(convert(yaml, &json!({})), Ok(expected.clone()), "{yaml}");
            assert_eq!(convert(yaml, &Value::Null), Ok(expected), "{yaml}");
        }
    }
}
