//! The nouns of a run: what is said between the model, the tools and the runtime.
//!
//! Plain data, neutral between providers: the files in `wire/` translate it. It serializes as it stands into the journal,
//! one [`Record`] a line, and that is also what the provider `replay` reads. It knows nothing else of ours.
//! What may surprise: `ToolCall::arguments` is the text that the model wrote, when the wire had it as text, because a
//! provider's prompt cache compares bytes.

use std::collections::HashSet;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The whole exchange with the model so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// The system prompt, the same from the first turn to the last.
    pub system: String,
    /// In the order they were said. A message is never changed, only replaced by another one, so that whoever has kept
    /// one can tell by its place in memory that it is still the same.
    pub messages: Vec<Rc<Message>>,
}

/// The tools that are offered. As a message they are never changed while somebody else has kept them.
pub type Tools = Rc<Vec<ToolSpec>>;

/// One entry of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// What the runtime says to the model.
    User { text: String },
    /// What the model answered.
    Assistant { parts: Vec<Part> },
    /// What a tool call came back with.
    ToolResult(ToolResult),
}

/// A piece of the model's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    Text {
        text: String,
    },
    ToolCall(ToolCall),
    /// Something the provider wants back unread (a reasoning signature, an encrypted part). Only the wire file that made
    /// it reads it.
    Opaque {
        value: Value,
    },
}

/// The model asks for a tool to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique in its conversation; empty when the provider gave none and [`Conversation::with_unique_ids`] has not run.
    #[serde(default)]
    pub id: String,
    pub name: String,
    /// A JSON object, or the text that the model wrote where one was expected.
    #[serde(default)]
    pub arguments: Value,
}

impl ToolCall {
    /// The arguments as a JSON object. Nothing, `null` and empty text count as an empty object; text is parsed, and once
    /// more when it holds a JSON string (small models encode twice).
    ///
    /// Fails with what is wrong, worded for the model.
    pub fn arguments_object(&self) -> Result<Map<String, Value>, String> {
        let mut value = self.arguments.clone();
        for _ in 0..2 {
            let Value::String(text) = &value else { break };
            if text.trim().is_empty() {
                return Ok(Map::new());
            }
            value = serde_json::from_str(text).map_err(|error| format!("the arguments are not JSON: {error}"))?;
        }
        match value {
            Value::Object(object) => Ok(object),
            Value::Null => Ok(Map::new()),
            _ => Err("the arguments are not a JSON object".to_owned()),
        }
    }
}

/// What came back from a tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    pub call_id: String,
    /// Text for the model, bounded by the tool.
    pub text: String,
    /// The call failed; the text says why and what to try instead.
    #[serde(default)]
    pub is_error: bool,
}

/// One answer of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    #[serde(default)]
    pub parts: Vec<Part>,
    #[serde(default)]
    pub stop_reason: StopReason,
    #[serde(default)]
    pub usage: Usage,
}

impl Turn {
    /// The tool calls of this turn, in the order given.
    pub fn tool_calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.parts.iter().filter_map(|part| match part {
            Part::ToolCall(call) => Some(call),
            _ => None,
        })
    }

    /// The text of this turn, its parts joined by line ends and trimmed.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .parts
            .iter()
            .filter_map(|part| match part {
                Part::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        texts.join("\n").trim().to_owned()
    }

    /// The text as one JSON object and nothing else; reasoning in front of it and a code fence around it do not count as
    /// something else.
    pub fn whole_object(&self) -> Option<Map<String, Value>> {
        let text = self.text();
        let text = match text.split_once("</think>") {
            Some((thought, rest)) if thought.trim_start().starts_with("<think>") => rest.trim(),
            _ => text.as_str(),
        };
        let unfenced =
            text.strip_prefix("```json").or_else(|| text.strip_prefix("```")).and_then(|rest| rest.strip_suffix("```"));
        match serde_json::from_str(unfenced.unwrap_or(text).trim()) {
            Ok(Value::Object(object)) => Some(object),
            _ => None,
        }
    }
}

/// Why the model stopped. What follows is decided by the presence of tool calls first: many servers say `EndTurn` with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    #[default]
    EndTurn,
    ToolCalls,
    /// The answer was cut off by a limit on output tokens.
    TokenLimit,
    /// The answer was cut off because question and answer together filled the context window.
    ContextFull,
    /// The model refused, or a filter removed the answer.
    Refused,
    /// The provider wants the answer so far back, and goes on with it.
    Paused,
    /// A word of the provider's that we do not know.
    Other(String),
}

/// Tokens counted by the provider, in one meaning for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Including those read from a cache.
    pub input_tokens: u64,
    /// Including reasoning.
    pub output_tokens: u64,
    pub cached_input_tokens: u64,
    /// The provider did not count; the numbers are ours, from the length of what was sent and received.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_estimate: bool,
}

impl Usage {
    pub fn total_tokens(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }

    /// The sum of both; an estimate if either is.
    pub fn plus(self, other: Usage) -> Usage {
        Usage {
            input_tokens: self.input_tokens.saturating_add(other.input_tokens),
            output_tokens: self.output_tokens.saturating_add(other.output_tokens),
            cached_input_tokens: self.cached_input_tokens.saturating_add(other.cached_input_tokens),
            is_estimate: self.is_estimate || other.is_estimate,
        }
    }
}

/// A tool as the model sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// `^[a-zA-Z_][a-zA-Z0-9_-]{0,63}$`, which every provider takes.
    pub name: String,
    pub description: String,
    /// A JSON Schema whose root has `"type": "object"` and `"properties"`.
    pub parameters: Value,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The first line: the form of the file, and of which configuration the run is.
    Start { version: u32, fingerprint: Fingerprint },
    /// Another process goes on with the run.
    Resume,
    /// The model is about to be asked.
    ModelCallStart,
    /// The model answered.
    Turn(Turn),
    /// A tool call starts; without a `ToolResult` of the same id its outcome is unknown.
    ToolCallStart { call_id: String },
    /// A tool call ended.
    ToolResult(ToolResult),
    /// The runtime said something to the model.
    User { text: String },
    /// A claim of achievement was not believed: what the model was told, as the result of its call of `finish` or, when
    /// it claimed in words, as a message; and how the key results stand.
    Rejection { call_id: Option<String>, text: String, key_results: Value },
    /// The verifier is about to be asked.
    VerificationStart,
    /// The verifier was asked: for each key result why it is not met, or nothing, and what its answer took.
    Verification { faults: Vec<Option<String>>, usage: Usage },
    /// The model is about to be asked for a summary of the older part of the conversation.
    SummaryStart,
    /// The conversation was made shorter; `usage` is what a summary took, if the model was asked for one.
    Compaction {
        edits: Vec<Edit>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The run has ended with a verdict.
    Outcome { reason: String, result: String, key_results: Value },
    /// A kind that a later version writes.
    #[serde(other)]
    Unknown,
}

impl Record {
    /// The record with every text that came from a model or a tool replaced. Names and ids stay: what they are for would
    /// be lost.
    pub fn with_texts(mut self, replace: &dyn Fn(&str) -> String) -> Record {
        match &mut self {
            Record::Turn(turn) => turn.parts.iter_mut().for_each(|part| match part {
                Part::Text { text } => *text = replace(text),
                Part::ToolCall(call) => replace_texts(&mut call.arguments, replace),
                Part::Opaque { value } => replace_texts(value, replace),
            }),
            Record::ToolResult(result) => result.text = replace(&result.text),
            Record::User { text } => *text = replace(text),
            Record::Rejection { text, key_results, .. } | Record::Outcome { result: text, key_results, .. } => {
                *text = replace(text);
                replace_texts(key_results, replace);
            }
            Record::Verification { faults, .. } => {
                faults.iter_mut().flatten().for_each(|fault| *fault = replace(fault));
            }
            Record::Compaction { edits, .. } => edits.iter_mut().for_each(|edit| match edit {
                Edit::Shorten { text, .. } | Edit::Replace { text, .. } => *text = replace(text),
            }),
            Record::Start { .. }
            | Record::Resume
            | Record::ModelCallStart
            | Record::VerificationStart
            | Record::SummaryStart
            | Record::ToolCallStart { .. }
            | Record::Unknown => {}
        }
        self
    }
}

/// Replaces every string of a value, names of fields included.
pub fn replace_texts(value: &mut Value, replace: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = replace(text),
        Value::Array(values) => values.iter_mut().for_each(|value| replace_texts(value, replace)),
        Value::Object(fields) => {
            let replaced = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                replace_texts(&mut value, replace);
                (replace(&name), value)
            });
            *fields = replaced.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What a run must have in common with the one that its journal holds, as checksums, so that nothing of it can be read there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub model: String,
    pub objective: String,
    pub key_results: String,
    pub tools: String,
    pub limits: String,
}

impl Fingerprint {
    /// The names of what differs.
    pub fn changes(&self, other: &Fingerprint) -> Vec<&'static str> {
        let pairs = [
            ("model", &self.model, &other.model),
            ("objective", &self.objective, &other.objective),
            ("key results", &self.key_results, &other.key_results),
            ("tools", &self.tools, &other.tools),
            ("limits", &self.limits, &other.limits),
        ];
        pairs.into_iter().filter(|(_, ours, theirs)| ours != theirs).map(|(name, _, _)| name).collect()
    }
}

/// FNV-1a of 64 bits, going on from `start`. The same in every version, and any one changed byte changes it: each step
/// can be undone, so that two states which differ once differ to the end.
pub fn checksum(start: u64, bytes: &[u8]) -> u64 {
    let start = start ^ 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A change that makes a conversation shorter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub enum Edit {
    /// The tool result at this place in the messages says this from now on.
    Shorten { message: usize, text: String },
    /// The messages after the first, up to but not including `end`, become one that the runtime says. Stands last.
    Replace { end: usize, text: String },
}

impl Conversation {
    /// Changes the messages. An edit whose place does not exist changes nothing.
    pub fn edit(&mut self, edits: &[Edit]) {
        for edit in edits {
            match edit {
                Edit::Shorten { message, text } => {
                    let Some(place) = self.messages.get_mut(*message) else { continue };
                    if let Message::ToolResult(result) = &**place {
                        *place = Rc::new(Message::ToolResult(ToolResult { text: text.clone(), ..result.clone() }));
                    }
                }
                Edit::Replace { end, text } if (2..=self.messages.len()).contains(end) => {
                    self.messages.splice(1..*end, [Rc::new(Message::User { text: text.clone() })]);
                }
                Edit::Replace { .. } => {}
            }
        }
    }

    /// Whether the runtime has said something that begins so.
    pub fn has_said(&self, beginning: &str) -> bool {
        self.messages.iter().any(|message| matches!(&**message, Message::User { text } if text.starts_with(beginning)))
    }

    /// The turn with every call's id made unique in this conversation: servers give none, `"0"`, or the same one again.
    /// An id that is unique already is never rewritten: gateways carry signatures in it.
    pub fn with_unique_ids(&self, mut turn: Turn) -> Turn {
        let known = || {
            let parts = self.messages.iter().filter_map(|message| match &**message {
                Message::Assistant { parts } => Some(parts),
                _ => None,
            });
            parts.flatten().filter_map(|part| match part {
                Part::ToolCall(call) => Some(&call.id),
                _ => None,
            })
        };
        // What nearly every turn is, without a set of all ids of the run.
        if let [call] = turn.tool_calls().collect::<Vec<_>>()[..]
            && !call.id.is_empty()
            && known().all(|id| *id != call.id)
        {
            return turn;
        }
        let mut taken: HashSet<String> = known().cloned().collect();
        for part in &mut turn.parts {
            let Part::ToolCall(call) = part else { continue };
            if call.id.is_empty() || taken.contains(&call.id) {
                let mut number = taken.len() + 1;
                while taken.contains(&format!("call_{number}")) {
                    number += 1;
                }
                call.id = format!("call_{number}");
            }
            taken.insert(call.id.clone());
        }
        turn
    }
}
