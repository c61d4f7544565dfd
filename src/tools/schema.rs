//! Do the arguments of a tool call fit the tool's parameters?
//!
//! Knows the part of JSON Schema that tools are described with: `type`, `required`, `properties`, `additionalProperties:
//! false`, `enum`, `items`, and the minima and maxima. Other keywords are ignored; the tool itself decides. Also reads single
//! arguments for the built-in tools, in the same lenient way. Pure.
//!
//! What may surprise: `null` for a property that is not required counts as left out, and `1.0` as an integer. Models write
//! both, and mean it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::ToolError;
use crate::config::read::nearest;

/// More mistakes than this are not told; the first ones are enough to try again.
pub const MISTAKES_MAX: usize = 8;
/// Nesting that is checked. The schema may be a stranger's (an MCP server's), the value a model's.
const DEPTH_MAX: usize = 32;
/// Of a value or a list in a message.
const QUOTED_CHARS_MAX: usize = 80;
/// How many known properties or accepted values are listed.
const LISTED_MAX: usize = 12;

/// All mistakes in `arguments`, each as `path: what is wrong, what is accepted`; none when they fit `schema`.
pub fn mistakes(schema: &Value, arguments: &Map<String, Value>) -> Vec<String> {
    let mut check = Check { mistakes: Vec::new() };
    check.object(schema, arguments, "", 0);
    check.mistakes
}

/// `value` as an integer, also when written `1.0`.
pub fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0)?;
        // Beyond 2^53 a float does not say which integer it means.
        (number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
    })
}

/// The text in a property that is required.
pub fn text<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<&'a str, ToolError> {
    optional_text(arguments, name)?.ok_or_else(|| ToolError::Arguments(format!("{name}: is missing, accepted: string")))
}

/// The text in a property that may be left out.
pub fn optional_text<'a>(arguments: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, ToolError> {
    optional(arguments, name, Value::as_str, "string")
}

/// The truth in a property that may be left out.
pub fn flag(arguments: &Map<String, Value>, name: &str) -> Result<Option<bool>, ToolError> {
    optional(arguments, name, Value::as_bool, "boolean")
}

/// The integer of at least 1 in a property that may be left out.
pub fn positive(arguments: &Map<String, Value>, name: &str) -> Result<Option<u64>, ToolError> {
    let read = |value| integer(value).and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
    optional(arguments, name, read, "integer of at least 1")
}

fn optional<'a, T>(
    arguments: &'a Map<String, Value>,
    name: &str,
    read: impl Fn(&'a Value) -> Option<T>,
    accepted: &str,
) -> Result<Option<T>, ToolError> {
    match arguments.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value)
            .map(Some)
            .ok_or_else(|| ToolError::Arguments(format!("{name}: is {}, accepted: {accepted}", quoted(value)))),
    }
}

struct Check {
    mistakes: Vec<String>,
}

impl Check {
    fn report(&mut self, path: &str, what: String) {
        if self.mistakes.len() < MISTAKES_MAX {
            let path = if path.is_empty() { "arguments" } else { path };
            self.mistakes.push(format!("{path}: {what}"));
        }
    }

    fn value(&mut self, schema: &Value, value: &Value, path: &str, depth: usize) {
        if depth > DEPTH_MAX || self.mistakes.len() >= MISTAKES_MAX {
            return;
        }
        if !self.has_type(schema, value, path) || !self.is_listed(schema, value, path) {
            return;
        }
        match value {
            Value::Object(object) => self.object(schema, object, path, depth),
            Value::Array(items) => self.array(schema, items, path, depth),
            Value::String(text) => {
                self.length(schema, text.chars().count(), ["minLength", "maxLength"], "characters", path)
            }
            Value::Number(_) => self.number(schema, value, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn has_type(&mut self, schema: &Value, value: &Value, path: &str) -> bool {
        let accepted: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => return true,
        };
        let fits = accepted.is_empty() || accepted.iter().any(|name| is_of_type(value, name));
        if !fits {
            self.report(path, format!("is {}, accepted: {}", name_of_type(value), accepted.join(" or ")));
        }
        fits
    }

    fn is_listed(&mut self, schema: &Value, value: &Value, path: &str) -> bool {
        let Some(Value::Array(accepted)) = schema.get("enum") else { return true };
        let fits = accepted.iter().any(|one| are_equal(one, value));
        if !fits {
            let listed = list(accepted.iter().map(quoted));
            self.report(path, format!("is {}, accepted: {listed}", quoted(value)));
        }
        fits
    }

    fn object(&mut self, schema: &Value, object: &Map<String, Value>, path: &str, depth: usize) {
        let no_properties = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&no_properties);
        let required: HashSet<&str> = match schema.get("required") {
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => HashSet::new(),
        };
        // In the schema's order, so that the same mistakes give the same text.
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(name) {
                self.report(&join(path, name), format!("is missing, accepted: {}", describe(properties.get(name))));
            }
        }
        let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        for (name, value) in object {
            match properties.get(name) {
                Some(_) if value.is_null() && !required.contains(name.as_str()) => {}
                Some(property) => self.value(property, value, &join(path, name), depth + 1),
                None if is_closed => self.report(&join(path, name), unknown_property(name, properties)),
                None => {}
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], path: &str, depth: usize) {
        self.length(schema, items.len(), ["minItems", "maxItems"], "items", path);
        if let Some(item_schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                if self.mistakes.len() >= MISTAKES_MAX {
                    return;
                }
                self.value(item_schema, item, &format!("{path}[{index}]"), depth + 1);
            }
        }
    }

    fn length(&mut self, schema: &Value, length: usize, [minimum, maximum]: [&str; 2], unit: &str, path: &str) {
        let bound = |keyword| schema.get(keyword).and_then(integer).and_then(|bound| usize::try_from(bound).ok());
        if let Some(minimum) = bound(minimum).filter(|minimum| length < *minimum) {
            self.report(path, format!("has {length} {unit}, accepted: at least {minimum}"));
        }
        if let Some(maximum) = bound(maximum).filter(|maximum| length > *maximum) {
            self.report(path, format!("has {length} {unit}, accepted: at most {maximum}"));
        }
    }

    fn number(&mut self, schema: &Value, value: &Value, path: &str) {
        let number = value.as_f64().unwrap_or(f64::NAN);
        let bound = |keyword| schema.get(keyword).filter(|bound| bound.is_number());
        if let Some(minimum) = bound("minimum").filter(|bound| bound.as_f64().is_some_and(|bound| number < bound)) {
            self.report(path, format!("is {value}, accepted: at least {minimum}"));
        }
        if let Some(maximum) = bound("maximum").filter(|bound| bound.as_f64().is_some_and(|bound| number > bound)) {
            self.report(path, format!("is {value}, accepted: at most {maximum}"));
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "integer" => value.is_number() && value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        // A type that we do not know is the tool's business.
        _ => true,
    }
}

fn name_of_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// JSON Schema has one kind of number: `1` and `1.0` are the same.
fn are_equal(left: &Value, right: &Value) -> bool {
    left == right || left.is_number() && right.is_number() && left.as_f64() == right.as_f64()
}

fn join(path: &str, name: &str) -> String {
    let name: String = name.chars().take(QUOTED_CHARS_MAX).collect();
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// What a property that is missing should hold.
fn describe(schema: Option<&Value>) -> String {
    match schema.and_then(|schema| schema.get("type")) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any value".to_owned(),
    }
}

fn unknown_property(name: &str, properties: &Map<String, Value>) -> String {
    match nearest(name, properties.keys().map(String::as_str)) {
        Some(near) => format!("is unknown, did you mean {near}?"),
        None if properties.is_empty() => "is unknown, accepted: no properties".to_owned(),
        None => format!("is unknown, accepted: {}", list(properties.keys().cloned())),
    }
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let hidden = items.len().saturating_sub(LISTED_MAX);
    let mut shown: Vec<String> = items.take(LISTED_MAX).collect();
    if hidden > 0 {
        shown.push(format!("and {hidden} more"));
    }
    shown.join(", ")
}

fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Random, check_property};

    fn of(schema: &Value, arguments: &Value) -> Vec<String> {
        mistakes(schema, arguments.as_object().unwrap())
    }

    fn property(schema: Value, value: Value) -> Vec<String> {
        of(&json!({"properties": {"x": schema}}), &json!({"x": value}))
    }

    #[test]
    fn arguments_that_fit_have_no_mistakes() {
        let schema = json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "minLength": 1}, "limit": {"type": "integer", "minimum": 1},
                "tags": {"type": "array", "items": {"type": "string"}}, "deep": {"properties": {"on": {"type": "boolean"}}}
            },
            "required": ["path"], "additionalProperties": false
        });
        let arguments = json!({"path": "a", "limit": 3.0, "tags": ["x"], "deep": {"on": true, "more": 1}});
        assert!(of(&schema, &arguments).is_empty());
        assert!(of(&json!({}), &json!({"anything": [1, null]})).is_empty());
        assert!(of(&json!(true), &json!({"anything": 1})).is_empty());
    }

    #[test]
    fn types_are_checked_by_name_and_by_list() {
        assert_eq!(property(json!({"type": "string"}), json!(5)), ["x: is a number, accepted: string"]);
        let either = json!({"type": ["string", "null"]});
        assert!(property(either.clone(), json!(null)).is_empty());
        assert_eq!(property(either, json!([])), ["x: is an array, accepted: string or null"]);
        assert_eq!(property(json!({"type": "integer"}), json!("5")), ["x: is a string, accepted: integer"]);
        assert_eq!(property(json!({"type": "integer"}), json!(1.5)), ["x: is a number, accepted: integer"]);
        assert!(property(json!({"type": "integer"}), json!(-1.0)).is_empty());
        assert!(property(json!({"type": "integer"}), json!(u64::MAX)).is_empty());
        assert!(property(json!({"type": "martian"}), json!(1)).is_empty());
        assert!(property(json!({"type": []}), json!(1)).is_empty());
    }

    #[test]
    fn what_is_missing_is_named_with_its_type() {
        let schema =
            json!({"properties": {"path": {"type": "string"}, "any": {}}, "required": ["path", "any", "other"]});
        let expected = [
            "path: is missing, accepted: string",
            "any: is missing, accepted: any value",
            "other: is missing, accepted: any value",
        ];
        assert_eq!(of(&schema, &json!({})), expected);
    }

    #[test]
    fn null_is_left_out_unless_required() {
        let schema = json!({"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]});
        assert_eq!(of(&schema, &json!({"a": null, "b": null})), ["a: is null, accepted: string"]);
    }

    #[test]
    fn an_unknown_property_is_answered_with_the_nearest_known_one() {
        let schema =
            json!({"properties": {"path": {}, "old_text": {}, "ignore_case": {}}, "additionalProperties": false});
        let answer = |name: &str| of(&schema, &json!({name: 1})).join("");
        assert_eq!(answer("oldText"), "oldText: is unknown, did you mean old_text?");
        assert_eq!(answer("paht"), "paht: is unknown, did you mean path?");
        assert_eq!(answer("zzz"), "zzz: is unknown, accepted: path, old_text, ignore_case");
        assert!(answer(&"z".repeat(10_000)).len() < 300);
        let empty = json!({"properties": {}, "additionalProperties": false});
        assert_eq!(of(&empty, &json!({"a": 1})), ["a: is unknown, accepted: no properties"]);
    }

    #[test]
    fn an_enum_lists_what_it_accepts() {
        assert_eq!(property(json!({"enum": ["a", 1]}), json!("b")), [r#"x: is "b", accepted: "a", 1"#]);
        assert!(property(json!({"enum": ["a", 1]}), json!(1.0)).is_empty());
        let many: Vec<usize> = (0..1_000).collect();
        assert!(property(json!({"enum": many}), json!("x".repeat(10_000))).join("").len() < 300);
    }

    #[test]
    fn bounds_are_checked_at_their_edges() {
        let bounded = json!({"minimum": 1, "maximum": 2.5});
        assert!(property(bounded.clone(), json!(1)).is_empty());
        assert!(property(bounded.clone(), json!(2.5)).is_empty());
        assert_eq!(property(bounded.clone(), json!(0)), ["x: is 0, accepted: at least 1"]);
        assert_eq!(property(bounded, json!(3)), ["x: is 3, accepted: at most 2.5"]);
        let text = json!({"minLength": 2, "maxLength": 3});
        assert!(property(text.clone(), json!("éé")).is_empty());
        assert_eq!(property(text.clone(), json!("é")), ["x: has 1 characters, accepted: at least 2"]);
        assert_eq!(property(text, json!("éééé")), ["x: has 4 characters, accepted: at most 3"]);
        let items = json!({"minItems": 1, "maxItems": 1});
        assert_eq!(property(items.clone(), json!([])), ["x: has 0 items, accepted: at least 1"]);
        assert_eq!(property(items, json!([1, 2])), ["x: has 2 items, accepted: at most 1"]);
    }

    #[test]
    fn a_mistake_inside_is_given_with_its_path() {
        let schema =
            json!({"properties": {"list": {"items": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}}});
        let arguments = json!({"list": [{"n": 1}, {"n": "x"}, {}]});
        let expected = ["list[1].n: is a string, accepted: integer", "list[2].n: is missing, accepted: integer"];
        assert_eq!(of(&schema, &arguments), expected);
    }

    #[test]
    fn only_the_first_mistakes_are_told() {
        let items: Vec<usize> = (0..100_000).collect();
        let found = property(json!({"items": {"type": "string"}}), json!(items));
        assert_eq!(found.len(), MISTAKES_MAX);
    }

    #[test]
    fn nonsense_for_a_schema_is_ignored() {
        let schemas = [
            json!({"properties": {"x": 1}}),
            json!({"properties": 1, "required": "x"}),
            json!({"properties": {"x": {"enum": 1, "minimum": "1", "maxLength": -1, "type": 7, "items": null}}}),
        ];
        for schema in schemas {
            assert!(of(&schema, &json!({"x": ["y"]})).is_empty(), "{schema}");
            assert!(of(&schema, &json!({"x": "y"})).is_empty(), "{schema}");
        }
    }

    #[test]
    fn any_schema_with_any_value_ends_within_bounds() {
        check_property(2_000, |random: &mut Random| {
            let (schema, value) = (made_up(random, 4), made_up(random, 4));
            let found = mistakes(&json!({"properties": {"x": schema}}), json!({"x": value}).as_object().unwrap());
            assert!(found.len() <= MISTAKES_MAX);
            assert!(found.iter().all(|mistake| mistake.len() < 4_000));
        });
    }

    fn made_up(random: &mut Random, depth: usize) -> Value {
        let words = ["type", "properties", "required", "items", "enum", "minimum", "maxLength", "object", "array", "x"];
        match random.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(random.below(2) == 0),
            2 => json!(random.below(9)),
            3 => json!(0.5),
            4 => json!(random.pick(&words)),
            5 => (0..random.below(4)).map(|_| made_up(random, depth - 1)).collect(),
            _ => (0..random.below(5)).map(|_| (random.pick(&words).to_owned(), made_up(random, depth - 1))).collect(),
        }
    }

    #[test]
    fn an_integer_may_be_written_as_a_float() {
        assert_eq!(integer(&json!(3.0)), Some(3));
        assert_eq!(integer(&json!(-3)), Some(-3));
        assert_eq!((integer(&json!(3.5)), integer(&json!("3")), integer(&json!(1e300))), (None, None, None));
    }
}
