//! `finish`: the model says that it is done, and how each key result stands. The only way to exit code 0.
//!
//! What the model says is a claim; [`Finish::faults`] finds what is missing in it. Whether the claim is believed, the agent decides.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ToolError, schema};
use crate::config::KeyResult;
use crate::conversation::ToolSpec;

pub const NAME: &str = "finish";

/// The arguments of the tool.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Finish {
    pub status: FinishStatus,
    pub summary: String,
    #[serde(default)]
    pub key_results: Vec<Claim>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishStatus {
    Achieved,
    Failed,
}

/// What the model says about one key result.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Claim {
    /// Its number, from 1.
    #[serde(deserialize_with = "whole_number")]
    pub key_result: u64,
    pub met: bool,
    #[serde(default)]
    pub evidence: String,
}

/// The schema takes `1.0` for a whole number, so serde must too.
fn whole_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(f64::deserialize(deserializer)? as u64)
}

/// The tool as the model sees it; its schema names the configured key results.
pub fn spec(key_results: &[KeyResult]) -> ToolSpec {
    let mut properties = json!({
        "status": {
            "type": "string",
            "enum": ["achieved", "failed"],
            "description": "achieved: the objective is reached and every key result is met; failed: it cannot be reached",
        },
        "summary": {"type": "string", "description": "what was achieved, or why it cannot be"},
    });
    let mut required = vec!["status", "summary"];
    if !key_results.is_empty() {
        required.push("key_results");
        properties["key_results"] = json!({
            "type": "array",
            "description": format!("one entry for each of the {} key results", key_results.len()),
            "items": {
                "type": "object",
                "properties": {
                    "key_result": {"type": "integer", "minimum": 1, "maximum": key_results.len(), "description": "its number"},
                    "met": {"type": "boolean"},
                    "evidence": {"type": "string", "description": "what shows it: what a tool returned, a file, a number"},
                },
                "required": ["key_result", "met", "evidence"],
            },
        });
    }
    ToolSpec {
        name: NAME.to_owned(),
        description: "Ends the run. The only way to end it; call it last and alone.".to_owned(),
        parameters: json!({"type": "object", "properties": properties, "required": required}),
    }
}

impl Finish {
    /// The claim in a call's arguments. Only its form is looked at here: a key result that is missing or unknown is for
    /// [`Finish::faults`].
    pub fn read(arguments: &Map<String, Value>) -> Result<Finish, ToolError> {
        let form = json!({
            "type": "object",
            "properties": {
                "status": {"type": "string", "enum": ["achieved", "failed"]},
                "summary": {"type": "string"},
                "key_results": {"type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "key_result": {"type": "integer", "minimum": 0},
                        "met": {"type": "boolean"},
                        "evidence": {"type": "string"},
                    },
                    "required": ["key_result", "met"],
                }},
            },
            "required": ["status", "summary"],
        });
        let mistakes = schema::mistakes(&form, arguments);
        if !mistakes.is_empty() {
            return Err(ToolError::Arguments(mistakes.join("; ")));
        }
        serde_json::from_value(Value::Object(arguments.clone()))
            .map_err(|error| ToolError::Arguments(error.to_string()))
    }

    /// Why a claim of achievement cannot be true, one sentence each; empty when nothing is missing.
    pub fn faults(&self, key_results: &[KeyResult]) -> Vec<String> {
        let mut faults = Vec::new();
        for number in 1..=key_results.len() as u64 {
            let claims: Vec<&Claim> = self.key_results.iter().filter(|claim| claim.key_result == number).collect();
            match claims[..] {
                [] => faults.push(format!("key result {number} is missing from `key_results`")),
                [claim] if !claim.met => faults.push(format!("key result {number} is not met")),
                [claim] if claim.evidence.trim().is_empty() => {
                    faults.push(format!("key result {number} has no evidence"))
                }
                [_] => {}
                _ => faults.push(format!("key result {number} is given {} times", claims.len())),
            }
        }
        let unknown =
            self.key_results.iter().filter(|claim| !(1..=key_results.len() as u64).contains(&claim.key_result));
        faults.extend(unknown.map(|claim| format!("key result {} does not exist", claim.key_result)));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_results(count: usize) -> Vec<KeyResult> {
        (0..count).map(|number| KeyResult { description: format!("result {number}"), check: None }).collect()
    }

    fn faults(claims: Value, count: usize) -> Vec<String> {
        let arguments = json!({"status": "achieved", "summary": "s", "key_results": claims});
        Finish::read(arguments.as_object().unwrap()).unwrap().faults(&key_results(count))
    }

    #[test]
    fn a_complete_claim_has_no_faults() {
        let claims =
            json!([{"key_result": 2, "met": true, "evidence": "b"}, {"key_result": 1.0, "met": true, "evidence": "a"}]);
        assert_eq!(faults(claims, 2), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_found() {
        let met = |number: i32| json!({"key_result": number, "met": true, "evidence": "e"});
        assert_eq!(faults(json!([]), 1), ["key result 1 is missing from `key_results`"]);
        assert_eq!(faults(json!([{"key_result": 1, "met": false, "evidence": "e"}]), 1), ["key result 1 is not met"]);
        assert_eq!(
            faults(json!([{"key_result": 1, "met": true, "evidence": " "}]), 1),
            ["key result 1 has no evidence"]
        );
        assert_eq!(faults(json!([met(1), met(1)]), 1), ["key result 1 is given 2 times"]);
        assert_eq!(faults(json!([met(1), met(7)]), 1), ["key result 7 does not exist"]);
        assert_eq!(faults(json!([met(0)]), 0), ["key result 0 does not exist"]);
    }

    #[test]
    fn arguments_of_the_wrong_form_are_named() {
        let arguments = json!({"status": "done", "summary": 5});
        let message = Finish::read(arguments.as_object().unwrap()).unwrap_err().to_string();
        assert!(message.contains("status") && message.contains("summary"), "{message}");
    }
}
