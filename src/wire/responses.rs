//! OpenAI Responses, with nothing kept on the server. Pure.
//!
//! Facts: OpenAI's API reference ("Create a model response", "Streaming events") and the types of its Python library 3.54, read
//! 2026-11; the deviations of vLLM, LiteLLM and Azure from issue threads. It does not know which models want this API, nor which
//! of them refuse `include`: parameters come with the options.
//! What may surprise: an answer is a list of items that must come back as they were. Each is kept in an opaque part, followed
//! by the neutral parts that the loop reads of it; of a function call only what the neutral call does not hold is kept.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{ApiFault, DecodeError, FaultKind, List, MESSAGE_CHARS_MAX, Options, Progress, excerpt, parse_json};
use crate::conversation::{Message, Part, StopReason, ToolCall, ToolSpec, Turn, Usage};
use crate::sort;

/// Characters of an unreadable body that an error quotes.
const EXCERPT_CHARS_MAX: usize = 200;
/// What a function call has in the neutral part.
const CALL_FIELDS: [&str; 3] = ["call_id", "name", "arguments"];

/// The input stands last, so that a request begins with the bytes of the one before.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    #[serde(flatten)]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    input: Vec<Value>,
}

/// The request before anything was said.
pub fn begin(system: &str, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
    let request = Request {
        model: &options.model,
        parameters: parameters(&options.parameters),
        stream: options.stream.then_some(true),
        instructions: system,
        tools: tools.iter().map(tool).collect(),
        input: Vec::new(),
    };
    serde_json::to_vec(&request).expect("JSON values under text keys serialize")
}

/// What was said, in order. Each message stands for itself.
#[derive(Debug, Default)]
pub struct Messages;

impl Messages {
    pub fn push(&mut self, message: &Message, list: &mut List<'_>) {
        match message {
            Message::User { text } => list.push(&json!({"role": "user", "content": text})),
            Message::Assistant { parts } => list.extend(items(parts)),
            Message::ToolResult(result) => {
                list.push(&json!({"type": "function_call_output", "call_id": result.call_id, "output": result.text}));
            }
        }
    }

    pub fn finish(&self, _: &mut List<'_>) {}
}

/// The parameters under the names of this API. Answers are stored for 30 days unless it is told not to.
fn parameters(given: &Map<String, Value>) -> Map<String, Value> {
    let mut parameters = Map::new();
    parameters.insert("store".to_owned(), json!(false));
    for (name, value) in given {
        match (name.as_str(), parameters.get_mut("reasoning")) {
            ("max_tokens" | "max_completion_tokens", _) => {
                parameters.insert("max_output_tokens".to_owned(), value.clone());
            }
            ("reasoning_effort", Some(Value::Object(reasoning))) => {
                reasoning.insert("effort".to_owned(), value.clone());
            }
            ("reasoning_effort", _) => {
                parameters.insert("reasoning".to_owned(), json!({"effort": value}));
            }
            _ => {
                parameters.insert(name.clone(), value.clone());
            }
        }
    }
    parameters
}

/// The items of a turn, in their order.
fn items(parts: &[Part]) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut call_item = None;
    let mut is_said = false;
    for part in parts {
        match part {
            Part::Opaque { value } => {
                let kind = kind_of_item(value);
                is_said = kind == "message";
                match kind {
                    "function_call" => call_item = value.as_object(),
                    "reasoning" if !has_reasoning(value) => {}
                    "" => {}
                    _ => items.push(value.clone()),
                }
            }
            // The message item before it holds the same text.
            Part::Text { text } if is_said || text.is_empty() => {}
            Part::Text { text } => items.push(json!({"role": "assistant", "content": text})),
            Part::ToolCall(call) => {
                items.push(function_call(call_item.take(), call));
                is_said = false;
            }
        }
    }
    // "Item 'rs_...' of type 'reasoning' was provided without its required following item": an answer that was cut off while
    // the model reasoned (openai-node issue 1567 and others, read 2026-11).
    while items.last().is_some_and(|item| kind_of_item(item) == "reasoning") {
        items.pop();
    }
    items
}

fn kind_of_item(item: &Value) -> &str {
    item.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// A reasoning item with neither its encrypted nor its plain content is only an id, and nothing is stored under it: "Item with
/// id 'rs_...' not found".
fn has_reasoning(item: &Value) -> bool {
    let has_content = |content: &Value| content.as_array().is_some_and(|content| !content.is_empty());
    item.get("encrypted_content").is_some_and(Value::is_string) || item.get("content").is_some_and(has_content)
}

/// The call as it came, under the id that the conversation knows it by.
fn function_call(item: Option<&Map<String, Value>>, call: &ToolCall) -> Value {
    let as_written = call.arguments.as_str().filter(|text| serde_json::from_str::<Map<String, Value>>(text).is_ok());
    // Compatible servers parse the arguments, so a call that was cut off goes back with none.
    let arguments = match as_written {
        Some(text) => text.to_owned(),
        None => Value::Object(call.arguments_object().unwrap_or_default()).to_string(),
    };
    let mut item = item.cloned().unwrap_or_default();
    item.insert("type".to_owned(), json!("function_call"));
    for (field, value) in CALL_FIELDS.into_iter().zip([&call.id, &call.name, &arguments]) {
        item.insert(field.to_owned(), json!(value));
    }
    Value::Object(item)
}

/// Without `strict: false` the server rewrites a schema to make it strict, and refuses those that it cannot.
fn tool(spec: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "strict": false,
        "parameters": spec.parameters,
    })
}

pub fn decode(body: &[u8]) -> Result<Turn, DecodeError> {
    let response = parse_json(body).ok_or_else(|| unreadable("", "JSON", &String::from_utf8_lossy(body)))?;
    turn_of(&response)
}

fn turn_of(response: &Value) -> Result<Turn, DecodeError> {
    if let Some(fault) = fault_in(response) {
        return Err(DecodeError::Answered(fault));
    }
    let status = response.get("status").and_then(Value::as_str).unwrap_or_default();
    if matches!(status, "queued" | "in_progress" | "cancelled") {
        return Err(unreadable("status", "a response that has ended", status));
    }
    let Some(items) = response.get("output").and_then(Value::as_array) else {
        return Err(unreadable("output", "a list of items", &response.to_string()));
    };
    let mut parts = Vec::new();
    let mut is_refusal = false;
    for (index, item) in items.iter().enumerate() {
        match kind_of_item(item) {
            "function_call" => {
                let expected = "a call with a name";
                let call = decode_call(item);
                let call = call.ok_or_else(|| unreadable(&format!("output[{index}]"), expected, &item.to_string()))?;
                let mut rest = item.as_object().cloned().unwrap_or_default();
                rest.retain(|field, _| !CALL_FIELDS.contains(&field.as_str()));
                parts.extend([Part::Opaque { value: Value::Object(rest) }, Part::ToolCall(call)]);
            }
            "message" => is_refusal |= append_message(&mut parts, item),
            _ if item.is_object() => parts.push(Part::Opaque { value: item.clone() }),
            _ => {}
        }
    }
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    Ok(Turn {
        parts,
        stop_reason: stop_reason(response, status, is_refusal, has_calls),
        usage: usage(response.get("usage")),
    })
}

fn unreadable(path: &str, expected: &'static str, found: &str) -> DecodeError {
    DecodeError::Unreadable { path: path.to_owned(), expected, excerpt: excerpt(found, EXCERPT_CHARS_MAX) }
}

/// An error under a good status: a response that failed, a bare error, or the event `error` of a stream.
fn fault_in(response: &Value) -> Option<ApiFault> {
    let error = response.get("error").filter(|error| !error.is_null());
    let has_failed = response.get("status").and_then(Value::as_str) == Some("failed");
    if error.is_none() && !has_failed {
        return None;
    }
    let error = error.unwrap_or(response);
    let code = word(error, "code");
    let status = code.parse().ok().filter(|status| (400..600).contains(status));
    let by_words = match (code.as_str(), word(error, "type").as_str()) {
        // `invalid_prompt` is told apart later.
        (code, _) if code.starts_with("invalid_") || code.starts_with("unsupported_") => 400,
        ("data_residency_mismatch", _) | (_, "invalid_request_error") => 400,
        (_, "authentication_error" | "permission_error") => 401,
        (_, "not_found_error") => 404,
        (_, "rate_limit_error") => 429,
        _ => 500,
    };
    let mut fault = explain_value(status.unwrap_or(by_words), &json!({ "error": error }));
    if word(error, "message").is_empty() && has_failed {
        "the response has failed, and no reason is given".clone_into(&mut fault.message);
    }
    Some(fault)
}

/// Takes a message item; true when the model refuses in it. One without a word is left out, it would be refused as input.
fn append_message(parts: &mut Vec<Part>, item: &Value) -> bool {
    let mut texts: Vec<&str> = Vec::new();
    let mut is_refusal = false;
    match item.get("content") {
        Some(Value::String(text)) => texts.push(text),
        Some(Value::Array(content)) => {
            for piece in content {
                let refusal = piece.get("refusal").and_then(Value::as_str);
                is_refusal |= refusal.is_some();
                texts.extend(refusal.or_else(|| piece.get("text").and_then(Value::as_str)));
            }
        }
        _ => {}
    }
    texts.retain(|text| !text.is_empty());
    if !texts.is_empty() {
        parts.push(Part::Opaque { value: item.clone() });
        parts.extend(texts.into_iter().map(|text| Part::Text { text: text.to_owned() }));
    }
    is_refusal
}

/// A result refers to `call_id`; `id` names the item. Some servers give only one of them.
fn decode_call(item: &Value) -> Option<ToolCall> {
    let id = match word(item, "call_id") {
        id if id.is_empty() => word(item, "id"),
        id => id,
    };
    let name = item.get("name")?.as_str()?.to_owned();
    Some(ToolCall { id, name, arguments: item.get("arguments").cloned().unwrap_or_default() })
}

/// A text, or a number as text; else empty.
fn word(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn stop_reason(response: &Value, status: &str, is_refusal: bool, has_calls: bool) -> StopReason {
    let reason = response.pointer("/incomplete_details/reason").and_then(Value::as_str).unwrap_or_default();
    match (status, reason) {
        ("incomplete", "max_output_tokens") => StopReason::TokenLimit,
        ("incomplete", "content_filter") => StopReason::Refused,
        _ if is_refusal && !has_calls => StopReason::Refused,
        _ if has_calls => StopReason::ToolCalls,
        ("" | "completed", _) => StopReason::EndTurn,
        (other, "") | (_, other) => StopReason::Other(excerpt(other, 40)),
    }
}

/// Input tokens include the cached ones, output tokens the reasoning.
fn usage(usage: Option<&Value>) -> Usage {
    let count = |pointer: &str| {
        let number = usage?.pointer(pointer)?;
        number.as_u64().or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
    };
    match (count("/input_tokens"), count("/output_tokens")) {
        (None, None) => Usage { is_estimate: true, ..Usage::default() },
        (input, output) => Usage {
            input_tokens: input.unwrap_or(0),
            output_tokens: output.unwrap_or(0),
            cached_input_tokens: count("/input_tokens_details/cached_tokens").unwrap_or(0),
            is_estimate: false,
        },
    }
}

/// A streamed answer. The last event carries the whole response; the pieces before it are not read, but for finished items:
/// some servers leave the output of the last event empty, some leave the event out.
#[derive(Debug, Default)]
pub struct Stream {
    /// With their place in the output.
    items: Vec<(Option<u64>, Value)>,
    response: Option<Value>,
    /// `[DONE]` has come, which only compatible servers send.
    is_done: bool,
}

impl Stream {
    pub fn push(&mut self, event: &Event) -> Result<Progress, DecodeError> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.is_done = true;
            return Ok(Progress::Whole);
        }
        if data.is_empty() {
            return Ok(Progress::More);
        }
        let value = parse_json(data.as_bytes()).ok_or_else(|| unreadable("stream", "JSON", data))?;
        let name = match kind_of_item(&value) {
            "" => event.name.as_str(),
            name => name,
        };
        match name {
            "response.output_item.done" => {
                let index = value.get("output_index").and_then(Value::as_u64);
                self.items.extend(value.get("item").map(|item| (index, item.clone())));
                Ok(Progress::More)
            }
            "response.completed" | "response.incomplete" | "response.failed" | "response.done" => {
                self.response = value.get("response").cloned();
                Ok(Progress::Whole)
            }
            // The error stands in the event itself, or in `error` as in a body.
            "error" => {
                let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(&value);
                Err(fault_in(&json!({ "error": error }))
                    .map_or_else(|| unreadable("stream", "an error with words", data), DecodeError::Answered))
            }
            _ => match fault_in(&value) {
                Some(fault) => Err(DecodeError::Answered(fault)),
                None => Ok(Progress::More),
            },
        }
    }

    pub fn finish(self) -> Result<Turn, DecodeError> {
        let items = sort::by_key(self.items, |(index, _)| index.unwrap_or(u64::MAX));
        let items: Vec<Value> = items.into_iter().map(|(_, item)| item).collect();
        let mut response = match self.response {
            Some(response) => response,
            None if self.is_done && !items.is_empty() => json!({"status": "completed"}),
            None => return Err(unreadable("stream", "`response.completed` at its end", "the end of the connection")),
        };
        let is_empty = response.get("output").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if let (true, Some(response)) = (is_empty && !items.is_empty(), response.as_object_mut()) {
            response.insert("output".to_owned(), Value::Array(items));
        }
        turn_of(&response)
    }
}

pub fn explain(status: u16, body: &[u8]) -> ApiFault {
    match parse_json(body) {
        Some(value) => explain_value(status, &value),
        None => ApiFault {
            kind: kind_of_status(status),
            message: excerpt(&String::from_utf8_lossy(body), MESSAGE_CHARS_MAX),
            parameter: None,
            retry_after: None,
        },
    }
}

/// `{"error": {"message", "type", "param", "code"}}`; gateways leave `error` out, make it a text, or say `detail`.
fn explain_value(status: u16, body: &Value) -> ApiFault {
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
    let message = match (error, error.get("message").or_else(|| body.get("detail"))) {
        (Value::String(text), _) | (_, Some(Value::String(text))) => text.clone(),
        (_, Some(other)) if !other.is_null() => other.to_string(),
        _ => body.to_string(),
    };
    let parameter = word(error, "param");
    // An item of ours that is not stored, which is not a model or a path that is not there.
    let status = if status == 404 && parameter == "input" { 400 } else { status };
    ApiFault {
        kind: kind(status, &word(error, "type"), &word(error, "code"), &message),
        message: excerpt(&message, MESSAGE_CHARS_MAX),
        parameter: (!parameter.is_empty()).then_some(parameter),
        retry_after: None,
    }
}

fn kind(status: u16, kind: &str, code: &str, message: &str) -> FaultKind {
    const QUOTA_CODES: [&str; 6] = [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "billing_hard_limit_reached",
    ];
    // With `bio_policy`, `misalignment_policy_violation` and others of that shape.
    let is_policy =
        code.ends_with("_policy") || code.ends_with("policy_violation") || code.ends_with("PolicyViolation");
    if QUOTA_CODES.contains(&code) || kind == "insufficient_quota" || status == 402 {
        FaultKind::QuotaExhausted
    } else if is_context_too_long(code, message) {
        FaultKind::ContextTooLong
    } else if is_policy || matches!(code, "content_filter" | "invalid_prompt") {
        FaultKind::Refused
    } else if matches!(code, "rate_limit_exceeded" | "slow_down") {
        FaultKind::RateLimited
    } else if code == "invalid_api_key" || kind == "no_db_connection" {
        // The second is LiteLLM without a database, which then knows no key but its own (seen 2026-11).
        FaultKind::Unauthorized
    } else if matches!(code, "server_is_overloaded" | "invalid_encrypted_content") {
        // Encrypted reasoning that one of several servers behind a gateway cannot read; the next may (LiteLLM pull request
        // 22651, codex issue 8119, read 2026-11).
        FaultKind::Unavailable
    } else {
        kind_of_status(status)
    }
}

/// OpenAI's two sentences, and those of vLLM and LiteLLM.
fn is_context_too_long(code: &str, message: &str) -> bool {
    const WORDS: [&str; 5] = [
        "exceeds the context window",
        "input tokens exceed the configured limit",
        "maximum context length",
        "exceeds the available context size",
        "contextwindowexceedederror",
    ];
    let message = message.to_ascii_lowercase();
    code == "context_length_exceeded" || WORDS.iter().any(|words| message.contains(words))
}

fn kind_of_status(status: u16) -> FaultKind {
    match status {
        401 | 403 => FaultKind::Unauthorized,
        402 => FaultKind::QuotaExhausted,
        404 => FaultKind::NotFound,
        429 => FaultKind::RateLimited,
        408 | 409 | 424 | 425 | 499 | 500 | 502..=504 | 506..=599 => FaultKind::Unavailable,
        _ => FaultKind::BadRequest,
    }
}
