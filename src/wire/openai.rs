//! OpenAI Chat Completions, as OpenAI and the servers that are compatible with it speak it. Pure.
//!
//! Facts: OpenAI's API reference ("Create chat completion") and the types of its Python library 3.54, read 2026-11; the
//! deviations of vLLM, llama.cpp, SGLang, TGI, LocalAI, LiteLLM and OpenRouter from their sources and issue threads.
//! What may surprise: arguments are read as text or object and sent back byte for byte when they are a JSON object, but as
//! an object in any case, because chat templates parse them; the finish reason counts less than the presence of tool calls.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{ApiFault, DecodeError, FaultKind, List, MESSAGE_CHARS_MAX, Options, Progress, excerpt, parse_json};
use crate::conversation::{Message, Part, StopReason, ToolCall, ToolSpec, Turn, Usage};

/// Characters of an unreadable body that an error quotes.
const EXCERPT_CHARS_MAX: usize = 200;
/// Fields in which servers give reasoning and some want it back (DeepSeek's API, "Thinking mode", read 2026-11).
const REASONING_FIELDS: [&str; 2] = ["reasoning_content", "reasoning"];

/// The messages stand last, so that a request begins with the bytes of the one before.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    #[serde(flatten)]
    parameters: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    /// An empty list is refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    messages: Vec<Value>,
}

/// The request before anything was said.
pub fn begin(system: &str, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
    let request = Request {
        model: &options.model,
        parameters: &options.parameters,
        stream: options.stream.then_some(true),
        tools: tools.iter().map(tool).collect(),
        messages: vec![json!({"role": "system", "content": system})],
    };
    serde_json::to_vec(&request).expect("JSON values under text keys serialize")
}

/// What was said, in order.
#[derive(Debug, Default)]
pub struct Messages {
    /// What the runtime has said since the model or a tool has.
    users: Vec<String>,
}

impl Messages {
    pub fn push(&mut self, message: &Message, list: &mut List<'_>) {
        let encoded = match message {
            Message::User { text } => return self.users.push(text.clone()),
            Message::Assistant { parts } => assistant_message(parts),
            Message::ToolResult(result) => {
                Some(json!({"role": "tool", "tool_call_id": result.call_id, "content": result.text}))
            }
        };
        if let Some(encoded) = encoded {
            self.finish(list);
            self.users.clear();
            list.push(&encoded);
        }
    }

    pub fn finish(&self, list: &mut List<'_>) {
        list.extend(user_message(&self.users));
    }
}

/// Chat templates want roles to alternate, so what the runtime says in a row becomes one message.
fn user_message(texts: &[String]) -> Option<Value> {
    let text = texts.join("\n\n");
    (!text.is_empty()).then(|| json!({"role": "user", "content": text}))
}

/// `None` for a turn with nothing to send: an empty assistant message is refused.
fn assistant_message(parts: &[Part]) -> Option<Value> {
    let mut message = Map::new();
    let mut text = String::new();
    let mut calls = Vec::new();
    message.insert("role".to_owned(), json!("assistant"));
    message.insert("content".to_owned(), Value::Null);
    for part in parts {
        match part {
            Part::Text { text: piece } => text.push_str(piece),
            Part::ToolCall(call) => calls.push(tool_call(call)),
            Part::Opaque { value } => {
                let fields =
                    REASONING_FIELDS.iter().filter_map(|field| Some(((*field).to_owned(), value.get(field)?.clone())));
                message.extend(fields);
            }
        }
    }
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    if !text.is_empty() {
        message.insert("content".to_owned(), Value::String(text));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Some(Value::Object(message))
}

fn tool_call(call: &ToolCall) -> Value {
    let as_written = call.arguments.as_str().filter(|text| serde_json::from_str::<Map<String, Value>>(text).is_ok());
    let arguments = match as_written {
        Some(text) => text.to_owned(),
        None => Value::Object(call.arguments_object().unwrap_or_default()).to_string(),
    };
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
}

fn tool(spec: &ToolSpec) -> Value {
    json!({
        "type": "function",
        "function": {"name": spec.name, "description": spec.description, "parameters": spec.parameters},
    })
}

pub fn decode(body: &[u8]) -> Result<Turn, DecodeError> {
    let answer = parse_json(body).ok_or_else(|| unreadable("", "JSON", &String::from_utf8_lossy(body)))?;
    turn_of(&answer)
}

fn turn_of(answer: &Value) -> Result<Turn, DecodeError> {
    let choice = first_choice(answer);
    if let Some(fault) = error_in(answer).or_else(|| error_in(choice)) {
        return Err(DecodeError::Answered(fault));
    }
    let Some(message) = choice.get("message").and_then(Value::as_object) else {
        let path = if choice.is_null() { "choices" } else { "choices[0].message" };
        return Err(unreadable(path, "a message", &answer.to_string()));
    };
    let mut parts: Vec<Part> = REASONING_FIELDS
        .iter()
        .filter_map(|field| Some((field, message.get(*field)?.as_str().filter(|text| !text.is_empty())?)))
        .map(|(field, text)| Part::Opaque { value: json!({ *field: text }) })
        .collect();
    let text = content_text(message.get("content"));
    if !text.is_empty() {
        parts.push(Part::Text { text });
    }
    let calls = message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, call) in calls.iter().enumerate() {
        let call = decode_call(call).ok_or_else(|| {
            unreadable(&format!("choices[0].message.tool_calls[{index}]"), "a call with a name", &call.to_string())
        })?;
        parts.push(Part::ToolCall(call));
    }
    let refusal = message.get("refusal").and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(refusal) = refusal {
        parts.push(Part::Text { text: refusal.to_owned() });
    }
    let stop_reason =
        stop_reason(choice.get("finish_reason").and_then(Value::as_str), refusal.is_some(), !calls.is_empty());
    Ok(Turn { parts, stop_reason, usage: usage(answer.get("usage")) })
}

fn first_choice(answer: &Value) -> &Value {
    answer.get("choices").and_then(|choices| choices.get(0)).unwrap_or(&Value::Null)
}

fn unreadable(path: &str, expected: &'static str, found: &str) -> DecodeError {
    DecodeError::Unreadable { path: path.to_owned(), expected, excerpt: excerpt(found, EXCERPT_CHARS_MAX) }
}

/// An `error` beside or instead of the choices: OpenRouter and proxies answer so with status 200.
fn error_in(value: &Value) -> Option<ApiFault> {
    let error = value.get("error").filter(|error| !error.is_null())?;
    let code = error.get("code").and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let status = code.and_then(|code| u16::try_from(code).ok()).filter(|status| (400..600).contains(status));
    let by_kind = match error.get("type").and_then(Value::as_str) {
        Some("invalid_request_error" | "BadRequestError") => 400,
        Some("authentication_error" | "permission_error") => 401,
        Some("not_found_error") => 404,
        Some("rate_limit_error") => 429,
        _ => 500,
    };
    Some(explain_value(status.unwrap_or(by_kind), value))
}

/// Text, `null`, nothing, or a list of parts of which only the text counts.
fn content_text(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            parts.iter().filter_map(|part| part.as_str().or_else(|| part.get("text")?.as_str())).collect()
        }
        _ => String::new(),
    }
}

/// `{"id", "type", "function": {"name", "arguments"}}`; the id may be missing, empty or a number.
fn decode_call(call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let id = match call.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) => id.to_string(),
        _ => String::new(),
    };
    let name = function.get("name")?.as_str()?.to_owned();
    Some(ToolCall { id, name, arguments: function.get("arguments").cloned().unwrap_or_default() })
}

fn stop_reason(word: Option<&str>, is_refusal: bool, has_calls: bool) -> StopReason {
    match word {
        Some("length") => StopReason::TokenLimit,
        Some("content_filter") => StopReason::Refused,
        _ if is_refusal && !has_calls => StopReason::Refused,
        _ if has_calls => StopReason::ToolCalls,
        None | Some("" | "stop" | "tool_calls" | "function_call" | "eos_token" | "eos" | "stop_sequence") => {
            StopReason::EndTurn
        }
        Some(other) => StopReason::Other(excerpt(other, 40)),
    }
}

/// Prompt tokens include the cached ones, completion tokens the reasoning. Some servers count in floats, some not at all.
fn usage(usage: Option<&Value>) -> Usage {
    let count = |path: &[&str]| {
        let number = path.iter().try_fold(usage?, |value, field| value.get(*field))?;
        number.as_u64().or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
    };
    match (count(&["prompt_tokens"]), count(&["completion_tokens"])) {
        (None, None) => Usage { is_estimate: true, ..Usage::default() },
        (input, output) => Usage {
            input_tokens: input.unwrap_or(0),
            output_tokens: output.unwrap_or(0),
            cached_input_tokens: count(&["prompt_tokens_details", "cached_tokens"]).unwrap_or(0),
            is_estimate: false,
        },
    }
}

/// The pieces of a streamed answer, put together to the message that the same answer has without streaming.
///
/// Tool calls come in fragments that carry an index; some servers repeat the id in each, and some leave the index out.
#[derive(Debug, Default)]
pub struct Stream {
    message: Map<String, Value>,
    /// With the index that the server gave.
    calls: Vec<(Option<u64>, ToolCall)>,
    finish_reason: Option<String>,
    usage: Option<Value>,
    /// `[DONE]` has come.
    is_whole: bool,
}

impl Stream {
    pub fn push(&mut self, event: &Event) -> Result<Progress, DecodeError> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.is_whole = true;
            return Ok(Progress::Whole);
        }
        if data.is_empty() {
            return Ok(Progress::More);
        }
        let chunk = parse_json(data.as_bytes()).ok_or_else(|| unreadable("stream", "JSON", data))?;
        let choice = first_choice(&chunk);
        if let Some(fault) = error_in(&chunk).or_else(|| error_in(choice)) {
            return Err(DecodeError::Answered(fault));
        }
        if let Some(usage) = chunk.get("usage").filter(|usage| !usage.is_null()) {
            self.usage = Some(usage.clone());
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish_reason = Some(reason.to_owned());
        }
        if let Some(delta) = choice.get("delta").or_else(|| choice.get("message")) {
            self.append(delta);
        }
        Ok(Progress::More)
    }

    fn append(&mut self, delta: &Value) {
        for field in ["content", "refusal"].iter().chain(&REASONING_FIELDS) {
            let piece = content_text(delta.get(*field));
            if !piece.is_empty() {
                let whole = self.message.entry(*field).or_insert_with(|| Value::String(String::new()));
                if let Value::String(whole) = whole {
                    whole.push_str(&piece);
                }
            }
        }
        for fragment in delta.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            self.append_call(fragment);
        }
    }

    fn append_call(&mut self, fragment: &Value) {
        let index = fragment.get("index").and_then(Value::as_u64);
        let id = fragment.get("id").and_then(Value::as_str).unwrap_or_default();
        let function = fragment.get("function").unwrap_or(&Value::Null);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        let known = match index {
            Some(_) => self.calls.iter().position(|(other, _)| *other == index),
            // Without an index a new id or a name begins a call, and anything else goes on with the last one.
            None => self.calls.len().checked_sub(1).filter(|last| {
                let is_same_id = id.is_empty() || self.calls.get(*last).is_some_and(|(_, call)| call.id == id);
                is_same_id && (name.is_empty() || !id.is_empty())
            }),
        };
        if known.is_none() {
            let call = ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: Value::String(String::new()) };
            self.calls.push((index, call));
        }
        let place = known.unwrap_or(self.calls.len() - 1);
        let Some((_, call)) = self.calls.get_mut(place) else { return };
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.name.is_empty() {
            name.clone_into(&mut call.name);
        }
        match (function.get("arguments"), &mut call.arguments) {
            (Some(Value::String(piece)), Value::String(whole)) => whole.push_str(piece),
            (Some(object @ Value::Object(_)), arguments) => *arguments = object.clone(),
            _ => {}
        }
    }

    pub fn finish(mut self) -> Result<Turn, DecodeError> {
        // Some servers leave `[DONE]` out; a finish reason is an end mark too.
        if !self.is_whole && self.finish_reason.is_none() {
            return Err(unreadable("stream", "`[DONE]` or a finish reason at its end", "the end of the connection"));
        }
        let calls = self.calls.into_iter().map(|(_, call)| {
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        self.message.insert("tool_calls".to_owned(), calls.collect());
        turn_of(&json!({
            "choices": [{"finish_reason": self.finish_reason, "message": self.message}],
            "usage": self.usage,
        }))
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

/// The body's fields stand at the top, in `error`, or in `detail`; an error may be a text, and the body a list of one.
fn explain_value(status: u16, body: &Value) -> ApiFault {
    let body = body.get(0).unwrap_or(body);
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
    let word = |key: &str| match error.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let message = match (error, error.get("message"), body.get("detail")) {
        (Value::String(text), _, _) => text.clone(),
        (_, Some(Value::String(text)), _) => text.clone(),
        (_, Some(other), _) => other.to_string(),
        (_, None, Some(Value::String(text))) => text.clone(),
        (_, None, Some(detail)) => detail.to_string(),
        _ => body.to_string(),
    };
    let parameter = word("param");
    ApiFault {
        kind: kind(status, &word("type"), &word("code"), &message),
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
    const REFUSED_CODES: [&str; 4] =
        ["content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation"];
    if QUOTA_CODES.contains(&code) || kind == "insufficient_quota" || status == 402 {
        FaultKind::QuotaExhausted
    } else if (400..500).contains(&status) && is_context_too_long(kind, code, message) {
        FaultKind::ContextTooLong
    } else if status == 400 && REFUSED_CODES.contains(&code) {
        FaultKind::Refused
    } else if code == "rate_limit_exceeded" || code == "slow_down" {
        FaultKind::RateLimited
    } else if code == "invalid_api_key" || kind == "no_db_connection" {
        // The second is LiteLLM without a database, which then knows no key but its own (seen 2026-11).
        FaultKind::Unauthorized
    } else {
        kind_of_status(status)
    }
}

/// What servers say in words when the conversation is too long (LiteLLM 1.109's list and llama.cpp's error type).
fn is_context_too_long(kind: &str, code: &str, message: &str) -> bool {
    const WORDS: [&str; 11] = [
        "maximum context length",
        "maximum context limit",
        "exceed context limit",
        "is longer than the model's context length",
        "input tokens exceed the configured limit",
        "exceeds the context window",
        "exceeds the available context size",
        "exceeds the maximum number of tokens allowed",
        "`inputs` tokens + `max_new_tokens` must be",
        "prompt is too long",
        "contextwindowexceedederror",
    ];
    let message = message.to_ascii_lowercase();
    code == "context_length_exceeded"
        || kind == "exceed_context_size_error"
        || WORDS.iter().any(|words| message.contains(words))
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
