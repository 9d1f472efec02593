//! The fields of a JSON object, read by kind. What was not asked for is found in the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::findings::Findings;

/// The fields that have not been taken yet. A field that is `null` counts as not there.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    place: String,
    left: BTreeMap<&'a str, &'a Value>,
}

impl<'a> Fields<'a> {
    /// Those of the object at `place`; of the whole source, `place` is empty.
    pub(super) fn new(place: impl Into<String>, object: &'a Map<String, Value>) -> Self {
        let left = object.iter().filter(|(_, value)| !value.is_null());
        Self { place: place.into(), left: left.map(|(key, value)| (key.as_str(), value)).collect() }
    }

    /// Where `key` stands.
    pub(super) fn at(&self, key: impl Display) -> String {
        if self.place.is_empty() { key.to_string() } else { format!("{}.{key}", self.place) }
    }

    /// Where the object stands.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Gives every key the name that `canonical` knows it by. A key that is there under two names
    /// counts by the first.
    pub(super) fn rename(&mut self, canonical: impl Fn(&'a str) -> Option<&'static str>) {
        let renamed: Vec<_> =
            self.left.keys().filter_map(|key| canonical(key).map(|name| (*key, name))).collect();
        for (key, name) in renamed {
            if let Some(value) = self.left.remove(key) {
                self.left.entry(name).or_insert(value);
            }
        }
    }

    /// Takes a value of any kind.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a Value> {
        self.left.remove(key)
    }

    /// Passes over a key, whatever it says.
    pub(super) fn skip(&mut self, key: &str) {
        self.left.remove(key);
    }

    /// Looks at a value of any kind.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.left.get(key).copied()
    }

    /// Takes a string.
    pub(super) fn text(&mut self, key: &str, findings: &mut Findings) -> Option<&'a str> {
        let value = self.take(key)?;
        if value.as_str().is_none() {
            findings.wrong(self.at(key), value, "a string");
        }
        value.as_str()
    }

    /// Takes a whole number; a string of digits is one too.
    pub(super) fn number(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
        findings: &mut Findings,
    ) -> Option<u64> {
        let value = self.take(key)?;
        let number = number(value).filter(|number| range.contains(number));
        if number.is_none() {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            findings.wrong(self.at(key), value, expected);
        }
        number
    }

    /// Takes a truth value.
    pub(super) fn boolean(&mut self, key: &str, findings: &mut Findings) -> Option<bool> {
        let value = self.take(key)?;
        if value.as_bool().is_none() {
            findings.wrong(self.at(key), value, "true or false");
        }
        value.as_bool()
    }

    /// Takes an object.
    pub(super) fn object(&mut self, key: &str, findings: &mut Findings) -> Option<Self> {
        let value = self.take(key)?;
        if value.as_object().is_none() {
            findings.wrong(self.at(key), value, "an object");
        }
        value.as_object().map(|object| Self::new(self.at(key), object))
    }

    /// Takes keys that have no counterpart, and says so of each that asks for something.
    pub(super) fn lost(&mut self, keys: &[&str], why: &str, findings: &mut Findings) {
        for key in keys {
            if self.take(key).is_some_and(asks_for_something) {
                findings.note(self.at(key), why);
            }
        }
    }

    /// The keys that are left and of which `are` is true.
    pub(super) fn keys(&self, are: impl Fn(&str) -> bool) -> Vec<&'a str> {
        self.left.keys().copied().filter(|key| are(key)).collect()
    }

    /// Says of each key that is left that `tool` has none of that name.
    pub(super) fn unknown(self, tool: &str, findings: &mut Findings) {
        for key in self.left.keys() {
            findings.note(self.at(key.escape_debug()), format_args!("{tool} has no such key; left out"));
        }
    }
}

/// A whole number, or a string of digits.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The strings of a value that is one or a list of them.
pub(super) fn one_or_many(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}
