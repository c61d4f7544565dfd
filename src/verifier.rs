//! Are the key results met? The second opinion of another model, which sees what the tools returned and none of the worker's
//! reasoning.
//!
//! What the worker and its tools wrote reaches it as JSON strings within one document, so that no text in them can pass for a
//! line of ours. Whatever is not a complete and readable verdict counts as not met: an opinion that nobody can read must
//! not end a run with 0.

use std::rc::Rc;

use log::{info, warn};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::conversation::{Conversation, StopReason, ToolSpec, Turn, Usage, replace_texts};
use crate::model::{Model, ModelErrorKind};
use crate::outcome::KeyResultState;
use crate::prompt;
use crate::tools::excerpt;
use crate::trail::Trail;

/// The tool through which it answers.
const NAME: &str = "verdict";
/// Bytes of calls and results that it is shown: some 10,000 tokens.
const SHOWN_BYTES_MAX: usize = 40 * 1024;
/// With less than this to see it could not judge anything.
const SHOWN_BYTES_MIN: usize = 2 * 1024;
/// Bytes for a token, to stay within half of its window where that is known.
const BYTES_PER_TOKEN: u64 = 4;
/// Bytes of the evidence for one key result that it is shown.
const EVIDENCE_BYTES_MAX: usize = 2 * 1024;
/// Characters of a reason that are handed on.
const REASON_CHARS_MAX: usize = 1000;

/// What came of asking.
pub struct Verdict {
    /// One for each key result, in their order: why it is not met, or nothing.
    pub faults: Vec<Option<String>>,
    pub usage: Usage,
}

/// Asks once for all key results. `claims` are the worker's.
pub fn ask(model: &mut Model, config: &Config, claims: &[KeyResultState], trail: &Trail) -> Verdict {
    let count = config.key_results.len();
    let mut bytes_max = shown_bytes_max(config);
    let turn = loop {
        let question = question(config, claims, trail, bytes_max);
        match model.ask(&question, &Rc::new(vec![spec(count)])) {
            Err(error) if error.kind == ModelErrorKind::ContextTooLong && bytes_max > SHOWN_BYTES_MIN => {
                warn!("verifier: {error}; shown less");
                bytes_max /= 2;
            }
            answer => break answer,
        }
    };
    let (read, usage) = match turn {
        Ok(turn) => {
            (read(&turn, count).map_err(|what| format!("the verifier's answer cannot be used ({what})")), turn.usage)
        }
        Err(error) => (Err(format!("the verifier could not be asked ({error})")), Usage::default()),
    };
    let faults = read.unwrap_or_else(|what| {
        warn!("verifier: {what}");
        vec![Some(format!("{what}, which counts as not met")); count]
    });
    let met = faults.iter().filter(|fault| fault.is_none()).count();
    info!(
        "verifier: {met} of {count} key results met, {} tokens in, {} tokens out",
        usage.input_tokens, usage.output_tokens
    );
    Verdict { faults, usage }
}

/// About how many tokens the question takes.
pub fn input_tokens(config: &Config, claims: &[KeyResultState], trail: &Trail) -> u64 {
    let question = question(config, claims, trail, shown_bytes_max(config));
    (serde_json::to_vec(&question).map_or(0, |json| json.len()) as u64).div_ceil(BYTES_PER_TOKEN)
}

fn question(config: &Config, claims: &[KeyResultState], trail: &Trail, bytes_max: usize) -> Conversation {
    let evidence: Vec<&str> = claims.iter().map(|claim| claim.evidence.as_str()).collect();
    let (steps, others) = trail.bearing_on(&evidence, bytes_max);
    let key_results = config.key_results.iter().zip(1..).zip(claims).map(|((key_result, number), claim)| {
        let mut entry = json!({"key_result": number, "description": key_result.description});
        if let (Some(check), Some(state)) = (&key_result.check, claim.check) {
            let command: Vec<&String> = [&check.program].into_iter().chain(&check.arguments).collect();
            entry["check"] = json!({"command": command, "result": state});
        }
        entry
    });
    let claimed = claims.iter().map(|claim| {
        // Masked before it is cut: half a secret matches nothing.
        let evidence = excerpt::excerpt(&config.secrets.mask(&claim.evidence), EVIDENCE_BYTES_MAX, "");
        json!({"key_result": claim.key_result, "evidence": evidence})
    });
    let calls = steps.iter().map(|step| {
        json!({
            "number": step.number, "tool": step.tool, "arguments": step.arguments, "failed": step.is_error, "result": step.result,
        })
    });
    let mut document = json!({
        "objective": config.objective,
        "key_results": key_results.collect::<Vec<Value>>(),
        "claims": claimed.collect::<Vec<Value>>(),
        "tool_calls": calls.collect::<Vec<Value>>(),
        "other_tool_calls": others,
    });
    replace_texts(&mut document, &|text| config.secrets.mask(text).into_owned());
    prompt::verification(config.verifier.as_ref().and_then(|model| model.system_prompt.as_deref()), &document)
}

fn shown_bytes_max(config: &Config) -> usize {
    let window = config.verifier.as_ref().and_then(|model| model.context_window);
    let half = window.map(|tokens| usize::try_from(tokens.saturating_mul(BYTES_PER_TOKEN) / 2).unwrap_or(usize::MAX));
    half.unwrap_or(SHOWN_BYTES_MAX).clamp(SHOWN_BYTES_MIN, SHOWN_BYTES_MAX)
}

fn spec(key_results: usize) -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description: "Says for each key result whether it is met. Call it once.".to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {"key_results": {
                "type": "array",
                "description": format!("one entry for each of the {key_results} key results"),
                "items": {
                    "type": "object",
                    "properties": {
                        "key_result": {"type": "integer", "minimum": 1, "maximum": key_results, "description": "its number"},
                        "met": {"type": "boolean"},
                        "reason": {"type": "string", "description": "which tool result shows it, or what is missing"},
                    },
                    "required": ["key_result", "met", "reason"],
                },
            }},
            "required": ["key_results"],
        }),
    }
}

#[derive(Deserialize)]
struct Opinion {
    /// The schema takes `1.0` for a whole number.
    key_result: f64,
    met: bool,
    #[serde(default)]
    reason: String,
}

/// For each key result why it is not met, or nothing. An error: the whole answer cannot be used.
fn read(turn: &Turn, key_results: usize) -> Result<Vec<Option<String>>, String> {
    let arguments = arguments(turn)?;
    let entries = arguments.get("key_results").and_then(Value::as_array).ok_or("`key_results` is no list")?;
    let mut opinions = Vec::new();
    for entry in entries {
        let opinion: Opinion =
            serde_json::from_value(entry.clone()).map_err(|_| "an entry without `key_result` and `met`".to_owned())?;
        if !(1..=key_results).any(|number| number as f64 == opinion.key_result) {
            return Err(format!("there is no key result {}", opinion.key_result));
        }
        opinions.push(opinion);
    }
    Ok((1..=key_results).map(|number| fault(number, &opinions)).collect())
}

fn fault(number: usize, opinions: &[Opinion]) -> Option<String> {
    let own: Vec<&Opinion> = opinions.iter().filter(|opinion| opinion.key_result == number as f64).collect();
    match own[..] {
        [] => Some(format!("the verifier says nothing of key result {number}, which counts as not met")),
        [opinion] if opinion.reason.trim().is_empty() => {
            Some(format!("the verifier gives no reason for key result {number}, which counts as not met"))
        }
        [opinion] if opinion.met => None,
        [opinion] => {
            let reason: String = opinion.reason.trim().chars().take(REASON_CHARS_MAX).collect();
            Some(format!("the verifier says that key result {number} is not met: {reason}"))
        }
        _ => Some(format!("the verifier judges key result {number} more than once, which counts as not met")),
    }
}

/// Of the call of the tool, or the object that is its whole text.
fn arguments(turn: &Turn) -> Result<Map<String, Value>, String> {
    match turn.stop_reason {
        StopReason::TokenLimit => return Err("it was cut off by the limit on output tokens".to_owned()),
        StopReason::Refused => return Err("it was refused or removed by a filter".to_owned()),
        _ => {}
    }
    let calls: Vec<_> = turn.tool_calls().collect();
    match calls[..] {
        [] => turn.whole_object().ok_or_else(|| format!("no call of `{NAME}`, and no JSON object in its place")),
        [call] if call.name == NAME => call.arguments_object(),
        [_] => Err(format!("a call of another tool than `{NAME}`")),
        _ => Err("more than one tool call".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Part, ToolCall};

    fn called(arguments: Value) -> Turn {
        let call = ToolCall { id: "1".to_owned(), name: NAME.to_owned(), arguments };
        Turn { parts: vec![Part::ToolCall(call)], stop_reason: StopReason::ToolCalls, usage: Usage::default() }
    }

    fn opinion(number: impl Into<Value>, met: bool, reason: &str) -> Value {
        json!({"key_result": number.into(), "met": met, "reason": reason})
    }

    #[test]
    fn a_complete_verdict_is_read_from_a_call_and_from_text() {
        let verdict = json!({"key_results": [opinion(2, false, "no such file"), opinion(1.0, true, "call 3")]});
        let faults = vec![None, Some("the verifier says that key result 2 is not met: no such file".to_owned())];
        assert_eq!(read(&called(verdict.clone()), 2), Ok(faults.clone()));
        assert_eq!(read(&called(Value::String(verdict.to_string())), 2), Ok(faults.clone()));
        for text in [verdict.to_string(), format!("```json\n{verdict:#}\n```"), format!("<think>hm</think> {verdict}")]
        {
            let turn =
                Turn { parts: vec![Part::Text { text }], stop_reason: StopReason::EndTurn, usage: Usage::default() };
            assert_eq!(read(&turn, 2), Ok(faults.clone()));
        }
    }

    #[test]
    fn what_is_incomplete_is_not_met() {
        let count_of_faults = |verdict: Value| {
            read(&called(verdict), 2).map(|faults| faults.iter().filter(|fault| fault.is_some()).count())
        };
        let good = opinion(1, true, "r");
        assert_eq!(count_of_faults(json!({"key_results": [good, opinion(2, true, "r")]})), Ok(0));
        assert_eq!(count_of_faults(json!({"key_results": [good]})), Ok(1));
        assert_eq!(count_of_faults(json!({"key_results": []})), Ok(2));
        assert_eq!(count_of_faults(json!({"key_results": [good, good, opinion(2, true, "r")]})), Ok(1));
        assert_eq!(count_of_faults(json!({"key_results": [good, opinion(2, true, " ")]})), Ok(1));
        assert_eq!(count_of_faults(json!({"key_results": [good, {"key_result": 2, "met": true}]})), Ok(1));
        for broken in [
            json!({}),
            json!({"key_results": {"1": true}}),
            json!({"key_results": [good, opinion(3, true, "r")]}),
            json!({"key_results": [good, opinion(0, true, "r")]}),
            json!({"key_results": [good, opinion(1.5, true, "r")]}),
            json!({"key_results": [good, opinion("2", true, "r")]}),
            json!({"key_results": [good, {"key_result": 2, "met": "true", "reason": "r"}]}),
            json!("{\"key_results\": ["),
        ] {
            assert!(count_of_faults(broken.clone()).is_err(), "{broken}");
        }
    }

    #[test]
    fn an_answer_that_is_not_whole_is_not_read() {
        let verdict = json!({"key_results": [opinion(1, true, "r")]});
        for stop_reason in [StopReason::TokenLimit, StopReason::Refused] {
            assert!(read(&Turn { stop_reason, ..called(verdict.clone()) }, 1).is_err());
        }
        let mut twice = called(verdict.clone());
        twice.parts.extend(called(verdict).parts);
        assert!(read(&twice, 1).is_err());
    }
}
