//! JSON whose members stay in their order, so that what Weir does not know goes back as it came.
//!
//! `document` alone uses it. It has no `Debug`, since most of what passes through are private keys.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;

#[derive(Clone, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Json {
    Array(Vec<Self>),
    Bool(bool),
    Null,
    Number(Number),
    Object(Object),
    String(String),
}

#[derive(Clone, Default, PartialEq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Object(Vec<(String, Json)>);

impl Json {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// As Go's encoder writes it: two spaces, no line break at the end, and `<`, `>` and `&` escaped.
    pub(super) fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("keys are strings, and nothing else can fail");
        let mut escaped = String::with_capacity(text.len());
        // Outside of strings none of them occurs.
        for character in text.chars() {
            match character {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
                }
                other => escaped.push(other),
            }
        }
        escaped
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }
}

impl Object {
    pub(super) fn find(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub(super) fn find_mut(&mut self, key: &str) -> Option<&mut Json> {
        self.0.iter_mut().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    /// Sets a member at its place, or at the end.
    pub(super) fn set(&mut self, key: &str, value: Json) {
        match self.find_mut(key) {
            Some(place) => *place = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Sets a member at its place, or before the first key that sorts after it.
    pub(super) fn set_sorted(&mut self, key: &str, value: Json) {
        if let Some(place) = self.find_mut(key) {
            *place = value;
            return;
        }
        let at = self.0.iter().position(|(known, _)| known.as_str() > key).unwrap_or(self.0.len());
        self.0.insert(at, (key.to_owned(), value));
    }

    /// Takes a member out, in whatever case its key is. Of several the last counts, as for Go's decoder.
    pub(super) fn take(&mut self, key: &str) -> Option<Json> {
        let is_it = |(known, _): &(String, Json)| known.eq_ignore_ascii_case(key);
        let value = self.0.iter().rposition(is_it).map(|at| self.0[at].1.clone());
        self.0.retain(|member| !is_it(member));
        value
    }

    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = (&str, &mut Json)> {
        self.0.iter_mut().map(|(key, value)| (key.as_str(), value))
    }
}

impl<const N: usize> From<[(&str, Json); N]> for Object {
    fn from(members: [(&str, Json); N]) -> Self {
        Self(members.map(|(key, value)| (key.to_owned(), value)).into())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Array(items) => items.serialize(serializer),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Null => serializer.serialize_unit(),
            Self::Number(number) => number.serialize(serializer),
            Self::Object(Object(members)) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::String(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::string(value))
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_stay_in_their_order_and_are_written_as_go_writes_them() {
        let text = r#"{"b":1,"a":[{"z":null,"Y":true},[],{}, -2, 1.5],"c":"<a&b> ü \" \u2028 \n"}"#;
        let json = Json::parse(text.as_bytes()).expect("it is JSON");
        let expected = r#"{
  "b": 1,
  "a": [
    {
      "z": null,
      "Y": true
    },
    [],
    {},
    -2,
    1.5
  ],
  "c": "\u003ca\u0026b\u003e ü \" \u2028 \n"
}"#;
        assert_eq!(json.to_text(), expected);
    }

    #[test]
    fn keys_are_taken_in_any_case_and_the_last_one_counts() {
        let Ok(Json::Object(mut object)) = Json::parse(br#"{"store":"1","x":2,"STORE":"3"}"#) else {
            panic!("it is an object");
        };
        assert_eq!(object.take("Store").as_ref().and_then(Json::as_str), Some("3"));
        assert_eq!(Json::Object(object).to_text(), "{\n  \"x\": 2\n}");
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            r"\PC{0,8}|[<>&\u{2028}\n]{1,3}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(r"\PC{0,4}", inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_goes_back_as_it_came(value in value()) {
            let json = Json::parse(value.to_string().as_bytes()).expect("it is JSON");
            let again: serde_json::Value = serde_json::from_str(&json.to_text()).expect("it is JSON again");
            prop_assert_eq!(again, value);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Json::parse(&bytes);
        }
    }
}
