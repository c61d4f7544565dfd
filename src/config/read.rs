//! Reading JSON that a person wrote, so that every mistake is found in one go.
//!
//! A [`Reader`] collects the mistakes, each with its place ([`At`]: variable and path), and goes on. Nothing here
//! knows what the fields mean, and no message quotes a value: it may be a secret.

use std::fmt;

use serde_json::{Map, Value};

/// One mistake in the configuration. Its reader is whoever wrote the Agent.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    /// The environment variable.
    pub variable: String,
    /// The place in its JSON, such as `worker.params` or `[0].name`; empty for the whole variable.
    pub path: String,
    /// What is wrong and what is accepted; never a value.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => write!(formatter, "{}: {}", self.variable, self.what),
            path => write!(formatter, "{}: {path}: {}", self.variable, self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Collects what is wrong and what is only odd.
#[derive(Default)]
pub struct Reader {
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<String>,
}

/// A place in a variable's JSON.
#[derive(Clone, Debug)]
pub struct At {
    pub variable: &'static str,
    pub path: String,
}

impl At {
    pub fn root(variable: &'static str) -> At {
        At { variable, path: String::new() }
    }

    pub fn key(&self, key: &str) -> At {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        At { variable: self.variable, path }
    }

    pub fn index(&self, index: usize) -> At {
        At { variable: self.variable, path: format!("{}[{index}]", self.path) }
    }
}

impl Reader {
    pub fn error(&mut self, at: &At, what: impl Into<String>) {
        self.errors.push(ConfigError { variable: at.variable.to_owned(), path: at.path.clone(), what: what.into() });
    }

    pub fn warn(&mut self, at: &At, what: &str) {
        let place = if at.path.is_empty() { String::new() } else { format!(" {}:", at.path) };
        self.warnings.push(format!("{}:{place} {what}", at.variable));
    }

    /// The variable's text as JSON. The message has line and column, and nothing of the text: serde_json's syntax errors
    /// are fixed sentences.
    pub fn json(&mut self, at: &At, text: &str, accepted: &str) -> Option<Value> {
        match serde_json::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let whole = error.to_string();
                let what = whole.split(" at line ").next().unwrap_or("syntax error");
                self.error(
                    at,
                    format!(
                        "line {} column {}: not valid JSON ({what}), accepted: {accepted}",
                        error.line(),
                        error.column()
                    ),
                );
                None
            }
        }
    }

    pub fn object<'a>(&mut self, at: &At, value: &'a Value, accepted: &str) -> Option<&'a Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.error(at, format!("{} found, accepted: {accepted}", kind(value)));
        }
        object
    }

    pub fn array<'a>(&mut self, at: &At, value: &'a Value, accepted: &str) -> Option<&'a Vec<Value>> {
        let array = value.as_array();
        if array.is_none() {
            self.error(at, format!("{} found, accepted: {accepted}", kind(value)));
        }
        array
    }

    /// A string that is not empty after trimming; `null` and empty are the same as absent.
    pub fn text(&mut self, at: &At, object: &Map<String, Value>, key: &str) -> Option<String> {
        match object.get(key)? {
            Value::Null => None,
            Value::String(text) if text.trim().is_empty() => None,
            Value::String(text) => Some(text.trim().to_owned()),
            other => {
                self.error(&at.key(key), format!("{} found, accepted: a string", kind(other)));
                None
            }
        }
    }

    /// The first spelling of `keys` that has a text. Two that differ are a warning.
    pub fn text_spelled(&mut self, at: &At, object: &Map<String, Value>, keys: &[&str]) -> Option<String> {
        let found: Vec<(&str, String)> =
            keys.iter().filter_map(|key| Some((*key, self.text(at, object, key)?))).collect();
        let (first_key, first) = found.first()?;
        if let Some((other_key, _)) = found.iter().find(|(_, text)| text != first) {
            self.warn(&at.key(other_key), &format!("differs from `{first_key}`, which is used"));
        }
        Some(first.clone())
    }

    /// A whole number of at least `min`, also as a string; `null` and empty are the same as absent.
    pub fn whole_number(&mut self, at: &At, object: &Map<String, Value>, key: &str, min: u64) -> Option<u64> {
        let value = object.get(key)?;
        let number = match value {
            Value::Null => return None,
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => number.as_u64().or_else(|| {
                number
                    .as_f64()
                    .filter(|float| float.fract() == 0.0 && (0.0..1e15).contains(float))
                    .map(|float| float as u64)
            }),
            _ => None,
        };
        let number = number.filter(|number| *number >= min);
        if number.is_none() {
            self.error(&at.key(key), format!("not accepted, accepted: a whole number of at least {min}"));
        }
        number
    }

    /// `true` or `false`, also as a string; `null` and empty are the same as absent.
    pub fn boolean(&mut self, at: &At, object: &Map<String, Value>, key: &str) -> Option<bool> {
        match object.get(key)? {
            Value::Null => None,
            Value::Bool(is_true) => Some(*is_true),
            Value::String(text) if text.trim().is_empty() => None,
            Value::String(text) if text.trim() == "true" => Some(true),
            Value::String(text) if text.trim() == "false" => Some(false),
            other => {
                self.error(&at.key(key), format!("{} found, accepted: true, false", kind(other)));
                None
            }
        }
    }

    /// A list of strings, none of them empty.
    pub fn texts(&mut self, at: &At, object: &Map<String, Value>, key: &str) -> Option<Vec<String>> {
        let at = at.key(key);
        let value = object.get(key).filter(|value| !value.is_null())?;
        let array = self.array(&at, value, "a JSON array of strings")?;
        let mut texts = Vec::new();
        for (index, value) in array.iter().enumerate() {
            match value.as_str() {
                Some(text) if !text.is_empty() => texts.push(text.to_owned()),
                _ => self.error(&at.index(index), "not accepted, accepted: a string that is not empty"),
            }
        }
        (texts.len() == array.len()).then_some(texts)
    }

    /// Fields that nobody asked about. `known` are the accepted ones; each other one is an error that names the nearest.
    pub fn refuse_unknown(&mut self, at: &At, object: &Map<String, Value>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let near =
                nearest(key, known.iter().copied()).map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
            self.error(&at.key(&shown(key)), format!("not a known field{near}; accepted: {}", known.join(", ")));
        }
    }

    /// As [`Reader::refuse_unknown`], as warnings.
    pub fn ignore_unknown(&mut self, at: &At, object: &Map<String, Value>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let near =
                nearest(key, known.iter().copied()).map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
            self.warn(&at.key(&shown(key)), &format!("not a known field, ignored{near}"));
        }
    }
}

/// What kind of JSON value this is, with its article.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A key as it may stand in a message: it comes from outside and may be long, or a value that slipped into a key's place.
pub fn shown(key: &str) -> String {
    const KEY_CHARS_MAX: usize = 40;
    let is_plain = key.len() <= KEY_CHARS_MAX && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_plain { key.to_owned() } else { "(a field with an unusual name)".to_owned() }
}

/// Characters of a name that are compared.
const NAME_CHARS_MAX: usize = 64;

/// The one of `known` that `name` was probably meant to be: at most a third of its letters differ.
pub fn nearest<'known>(name: &str, known: impl Iterator<Item = &'known str>) -> Option<&'known str> {
    let name: Vec<char> = simplified(name);
    known
        .map(|candidate| (distance(&name, &simplified(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().div_ceil(3).min(name.len() / 2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `oldText`, `old-text` and `old_text` are the same word. Long names are not looked at to their end.
fn simplified(name: &str) -> Vec<char> {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).take(NAME_CHARS_MAX).collect()
}

/// How many letters have to be added, removed or changed (Levenshtein).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, left_letter) in left.iter().enumerate() {
        let mut diagonal = above;
        let mut before = above + 1;
        let mut next_row = vec![before];
        for (right_letter, over) in right.iter().zip(row.iter().skip(1)) {
            let changed = diagonal + usize::from(left_letter != right_letter);
            before = changed.min(over + 1).min(before + 1);
            next_row.push(before);
            diagonal = *over;
        }
        row = next_row;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_known_word() {
        assert_eq!(nearest("max_turn", ["max_turns", "max_llm_calls"].into_iter()), Some("max_turns"));
        assert_eq!(nearest("colour", ["max_turns"].into_iter()), None);
    }

    #[test]
    fn a_syntax_error_has_its_place_and_nothing_of_the_text() {
        let mut reader = Reader::default();
        let text = "{\"api_key\": sk-secret}";
        assert!(reader.json(&At::root("V"), text, "an object").is_none());
        let message = reader.errors[0].to_string();
        assert!(message.starts_with("V: line 1 column 13: "), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}
