//! Chat Completions as Mistral speaks it. Pure.
//!
//! Facts: Mistral's API reference ("Chat completion"), the types of its Python library 3.7 and the checks of mistral-common 1.13,
//! which its servers run on each request, read 2026-11. It does not know which models reason.
//! What may surprise: a request that breaks the order of roles, or holds a tool call id of another shape, is refused; so ids are
//! translated, and where the runtime speaks right after a tool, the model is made to say a word in between. That never changes
//! what was sent before.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{ApiFault, DecodeError, FaultKind, List, MESSAGE_CHARS_MAX, Options, Progress, excerpt, parse_json};
use crate::conversation::{Message, Part, StopReason, ToolCall, ToolResult, ToolSpec, Turn, Usage};

/// Characters of an unreadable body that an error quotes.
const EXCERPT_CHARS_MAX: usize = 200;
/// "Tool call id was ... but must be a-z, A-Z, 0-9, with a length of 9." (error code 3280)
const ID_CHARS: usize = 9;
/// What stands between a tool's result and the runtime's words: "Unexpected role 'user' after role 'tool'" (error code 3230).
/// Added to the result instead, the words would change bytes that are in the provider's cache already.
const BETWEEN_TOOL_AND_USER: &str = "Understood.";
/// "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
const AFTER_ASSISTANT: &str = "Go on.";
/// "Not the same number of function calls and responses"
const WITHOUT_RESULT: &str = "This call has no result.";

/// The messages stand last, so that a request begins with the bytes of the one before.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    #[serde(flatten)]
    parameters: Map<String, Value>,
    /// The usage comes without asking; `stream_options` is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    messages: Vec<Value>,
}

/// The request before anything was said.
pub fn begin(system: &str, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
    let request = Request {
        model: &options.model,
        parameters: parameters(&options.parameters),
        stream: options.stream.then_some(true),
        tools: tools.iter().map(tool).collect(),
        messages: Vec::from_iter((!system.is_empty()).then(|| json!({"role": "system", "content": system}))),
    };
    serde_json::to_vec(&request).expect("JSON values under text keys serialize")
}

/// OpenAI's newer name of the limit is refused.
fn parameters(given: &Map<String, Value>) -> Map<String, Value> {
    let name = |name: &String| if name == "max_completion_tokens" { "max_tokens".to_owned() } else { name.clone() };
    given.iter().map(|(key, value)| (name(key), value.clone())).collect()
}

/// What was said, in an order that is taken.
#[derive(Debug, Default)]
pub struct Messages {
    /// The id that each call goes by.
    ids: HashMap<String, String>,
    taken: HashSet<String>,
    /// Calls without a result so far: id as sent, name.
    open: Vec<(String, String)>,
    last_role: &'static str,
}

impl Messages {
    pub fn push(&mut self, message: &Message, list: &mut List<'_>) {
        match message {
            Message::User { text } => self.push_user(text, list),
            Message::Assistant { parts } => self.push_assistant(parts, list),
            Message::ToolResult(result) => self.push_result(result, list),
        }
    }

    fn push_user(&mut self, text: &str, list: &mut List<'_>) {
        self.close_calls(list);
        if self.last_role == "tool" {
            list.push(&json!({"role": "assistant", "content": BETWEEN_TOOL_AND_USER}));
        }
        list.push(&json!({"role": "user", "content": text}));
        self.last_role = "user";
    }

    /// Nothing for a turn in which nothing was said: a message with neither content nor calls is refused.
    fn push_assistant(&mut self, parts: &[Part], list: &mut List<'_>) {
        self.close_calls(list);
        let mut calls = Vec::new();
        let mut has_text = false;
        for part in parts {
            match part {
                Part::ToolCall(call) => calls.push((self.id_of_call(&call.id), call)),
                Part::Text { text } => has_text |= !text.is_empty(),
                Part::Opaque { .. } => {}
            }
        }
        if calls.is_empty() && !has_text {
            return;
        }
        let mut message = Map::new();
        message.insert("role".to_owned(), json!("assistant"));
        message.insert("content".to_owned(), content(parts));
        if !calls.is_empty() {
            message.insert("tool_calls".to_owned(), calls.iter().map(|(id, call)| tool_call(call, id)).collect());
        }
        self.open = calls.into_iter().map(|(id, call)| (id, call.name.clone())).collect();
        list.push(&Value::Object(message));
        self.last_role = "assistant";
    }

    /// A result whose call is not open would be refused, and has nothing to refer to.
    fn push_result(&mut self, result: &ToolResult, list: &mut List<'_>) {
        let id = self.ids.get(&result.call_id).unwrap_or(&result.call_id);
        let Some(place) = self.open.iter().position(|(open, _)| open == id) else { return };
        let call = self.open.remove(place);
        list.push(&tool_message(&call, &result.text));
        self.last_role = "tool";
    }

    fn close_calls(&mut self, list: &mut List<'_>) {
        for call in std::mem::take(&mut self.open) {
            list.push(&tool_message(&call, WITHOUT_RESULT));
            self.last_role = "tool";
        }
    }

    pub fn finish(&self, list: &mut List<'_>) {
        list.extend(self.open.iter().map(|call| tool_message(call, WITHOUT_RESULT)));
        if self.open.is_empty() && self.last_role == "assistant" {
            list.push(&json!({"role": "user", "content": AFTER_ASSISTANT}));
        }
    }

    /// Its own if it has the right shape, else one made from it. Calls are taken in their order, so that an id never changes
    /// because of what comes later, and no two calls get the same.
    fn id_of_call(&mut self, id: &str) -> String {
        if let Some(sent) = self.ids.get(id) {
            return sent.clone();
        }
        let is_good = id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mut sent = if is_good { id.to_owned() } else { made_id(id, 0) };
        let mut attempt = 1;
        while !self.taken.insert(sent.clone()) {
            sent = made_id(id, attempt);
            attempt += 1;
        }
        self.ids.insert(id.to_owned(), sent.clone());
        sent
    }
}

fn tool_message((id, name): &(String, String), text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "name": name, "content": text})
}

/// The FNV-1a hash of an id and a number, as nine letters and digits.
fn made_id(id: &str, attempt: u64) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in id.bytes().chain(attempt.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let digits = (0..ID_CHARS).scan(hash, |rest, _| {
        let digit = usize::try_from(*rest % 62).unwrap_or(0);
        *rest /= 62;
        LETTERS.get(digit).map(|letter| char::from(*letter))
    });
    digits.collect()
}

/// A text, or a list of chunks when there is thinking to hand back, which must stand first. Chunks of other kinds are refused
/// in a request.
fn content(parts: &[Part]) -> Value {
    let mut chunks = Vec::new();
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text { text: piece } => text.push_str(piece),
            Part::Opaque { value } if word(value, "type") == "thinking" => chunks.push(value.clone()),
            Part::Opaque { .. } | Part::ToolCall(_) => {}
        }
    }
    if chunks.is_empty() {
        return Value::String(text);
    }
    if !text.is_empty() {
        chunks.push(json!({"type": "text", "text": text}));
    }
    Value::Array(chunks)
}

fn tool_call(call: &ToolCall, id: &str) -> Value {
    let as_written = call.arguments.as_str().filter(|text| serde_json::from_str::<Map<String, Value>>(text).is_ok());
    let arguments = match as_written {
        Some(text) => text.to_owned(),
        None => Value::Object(call.arguments_object().unwrap_or_default()).to_string(),
    };
    json!({"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
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
    if let Some(fault) = fault_in(answer) {
        return Err(DecodeError::Answered(fault));
    }
    let choice = answer.pointer("/choices/0").unwrap_or(&Value::Null);
    let Some(message) = choice.get("message").and_then(Value::as_object) else {
        let path = if choice.is_null() { "choices" } else { "choices[0].message" };
        return Err(unreadable(path, "a message", &answer.to_string()));
    };
    let mut parts = Vec::new();
    append_content(&mut parts, message.get("content"));
    let calls = message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, call) in calls.iter().enumerate() {
        let call = decode_call(call).ok_or_else(|| {
            unreadable(&format!("choices[0].message.tool_calls[{index}]"), "a call with a name", &call.to_string())
        })?;
        parts.push(Part::ToolCall(call));
    }
    let usage = usage(answer.get("usage"));
    let word = choice.get("finish_reason").and_then(Value::as_str).unwrap_or_default();
    let stop_reason = stop_reason(word, !calls.is_empty(), usage).map_err(DecodeError::Answered)?;
    Ok(Turn { parts, stop_reason, usage })
}

fn unreadable(path: &str, expected: &'static str, found: &str) -> DecodeError {
    DecodeError::Unreadable { path: path.to_owned(), expected, excerpt: excerpt(found, EXCERPT_CHARS_MAX) }
}

/// An error under a good status, as a line of a stream or from a proxy.
fn fault_in(answer: &Value) -> Option<ApiFault> {
    let error = answer.get("error").filter(|error| !error.is_null());
    let is_error = word(answer, "object").eq_ignore_ascii_case("error");
    if error.is_none() && !is_error {
        return None;
    }
    let error = error.unwrap_or(answer);
    let status = ["raw_status_code", "code", "status"].iter().find_map(|key| word(error, key).parse().ok());
    let by_type = match word(error, "type").as_str() {
        kind if kind.starts_with("invalid_") => 400,
        "rate_limited" => 429,
        _ => 500,
    };
    Some(explain_value(status.filter(|status| (400..600).contains(status)).unwrap_or(by_type), answer))
}

/// Text, `null`, nothing, or a list of chunks. What is not text is kept as it is.
fn append_content(parts: &mut Vec<Part>, content: Option<&Value>) {
    let chunks = match content {
        Some(Value::String(text)) => vec![json!({"type": "text", "text": text})],
        Some(Value::Array(chunks)) => chunks.clone(),
        _ => return,
    };
    for chunk in chunks {
        let is_text = word(&chunk, "type") == "text";
        match (chunk.as_str().or_else(|| chunk.get("text")?.as_str().filter(|_| is_text)), parts.last_mut()) {
            (Some(""), _) => {}
            (Some(piece), Some(Part::Text { text })) => text.push_str(piece),
            (Some(piece), _) => parts.push(Part::Text { text: piece.to_owned() }),
            (None, _) => parts.push(Part::Opaque { value: chunk }),
        }
    }
}

/// The id may be missing, a number, or the text `null`, which the types name as its default.
fn decode_call(call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let id = Some(word(call, "id")).filter(|id| id != "null").unwrap_or_default();
    let name = function.get("name")?.as_str()?.to_owned();
    Some(ToolCall { id, name, arguments: function.get("arguments").cloned().unwrap_or_default() })
}

/// A text, or a number as text; else empty.
fn word(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn stop_reason(word: &str, has_calls: bool, usage: Usage) -> Result<StopReason, ApiFault> {
    let fault =
        |kind, message: &str| ApiFault { kind, message: message.to_owned(), parameter: None, retry_after: None };
    match word {
        "error" => Err(fault(FaultKind::Unavailable, "the model stopped with an error")),
        // The model's own limit. When most of it is the prompt, a shorter conversation helps; else the answer ran away.
        "model_length" if usage.input_tokens > usage.output_tokens => {
            Err(fault(FaultKind::ContextTooLong, "the answer reached the end of the model's context"))
        }
        "length" | "model_length" => Ok(StopReason::TokenLimit),
        "content_filter" => Ok(StopReason::Refused),
        _ if has_calls => Ok(StopReason::ToolCalls),
        "" | "stop" | "tool_calls" => Ok(StopReason::EndTurn),
        other => Ok(StopReason::Other(excerpt(other, 40))),
    }
}

/// Prompt tokens include the cached ones, which stand in one of two places.
fn usage(usage: Option<&Value>) -> Usage {
    let count = |pointer: &str| {
        let number = usage?.pointer(pointer)?;
        number.as_u64().or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
    };
    let cached = count("/prompt_tokens_details/cached_tokens").or_else(|| count("/num_cached_tokens"));
    match (count("/prompt_tokens"), count("/completion_tokens")) {
        (None, None) => Usage { is_estimate: true, ..Usage::default() },
        (input, output) => Usage {
            input_tokens: input.unwrap_or(0),
            output_tokens: output.unwrap_or(0),
            cached_input_tokens: cached.unwrap_or(0),
            is_estimate: false,
        },
    }
}

/// The pieces of a streamed answer, put together to the message that the same answer has without streaming.
#[derive(Debug, Default)]
pub struct Stream {
    chunks: Vec<Value>,
    calls: Vec<Map<String, Value>>,
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
        let piece = parse_json(data.as_bytes()).ok_or_else(|| unreadable("stream", "JSON", data))?;
        if let Some(fault) = fault_in(&piece) {
            return Err(DecodeError::Answered(fault));
        }
        if let Some(usage) = piece.get("usage").filter(|usage| !usage.is_null()) {
            self.usage = Some(usage.clone());
        }
        let choice = piece.pointer("/choices/0").unwrap_or(&Value::Null);
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish_reason = Some(reason.to_owned());
        }
        let delta = choice.get("delta").unwrap_or(&Value::Null);
        match delta.get("content") {
            Some(Value::String(text)) => self.append_chunk(&json!({"type": "text", "text": text})),
            Some(Value::Array(chunks)) => chunks.iter().for_each(|chunk| self.append_chunk(chunk)),
            _ => {}
        }
        for call in delta.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default() {
            self.append_call(call);
        }
        Ok(Progress::More)
    }

    /// Text and thinking come in fragments of one chunk: texts grow together, other fields (a signature) are the last's.
    fn append_chunk(&mut self, chunk: &Value) {
        let kind = word(chunk, "type");
        let can_grow = matches!(kind.as_str(), "text" | "thinking");
        let last = self.chunks.last_mut().filter(|last| can_grow && word(last, "type") == kind);
        let Some(last) = last.and_then(Value::as_object_mut) else {
            self.chunks.push(chunk.clone());
            return;
        };
        for (field, value) in chunk.as_object().into_iter().flatten() {
            match (last.get_mut(field), value) {
                (Some(Value::Array(texts)), Value::Array(pieces)) => append_texts(texts, pieces),
                (Some(Value::String(text)), Value::String(piece)) if field == "text" => text.push_str(piece),
                (Some(_), Value::Null) => {}
                _ => drop(last.insert(field.clone(), value.clone())),
            }
        }
    }

    /// Mistral sends a call whole; vLLM in fragments, of which the first has the name.
    fn append_call(&mut self, fragment: &Value) {
        let (Some(fragment), Some(function)) = (fragment.as_object(), fragment.get("function")) else { return };
        let arguments_of =
            |call: &Map<String, Value>| call.get("function")?.get("arguments")?.as_str().map(str::to_owned);
        let is_first = !word(function, "name").is_empty();
        let index = fragment.get("index");
        let known = self.calls.iter_mut().rev().find(|call| index.is_none() || call.get("index") == index);
        let (false, Some(call)) = (is_first, known) else {
            self.calls.push(fragment.clone());
            return;
        };
        let whole = arguments_of(call).unwrap_or_default() + &arguments_of(fragment).unwrap_or_default();
        if let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) {
            function.insert("arguments".to_owned(), Value::String(whole));
        }
    }

    pub fn finish(self) -> Result<Turn, DecodeError> {
        if !self.is_whole && self.finish_reason.is_none() {
            return Err(unreadable("stream", "`[DONE]` or a finish reason at its end", "the end of the connection"));
        }
        turn_of(&json!({
            "choices": [{
                "finish_reason": self.finish_reason,
                "message": {"content": self.chunks, "tool_calls": self.calls},
            }],
            "usage": self.usage,
        }))
    }
}

fn append_texts(texts: &mut Vec<Value>, pieces: &[Value]) {
    for piece in pieces {
        match (texts.last_mut().and_then(|last| last.get_mut("text")), piece.get("text")) {
            (Some(Value::String(text)), Some(Value::String(more))) => text.push_str(more),
            _ => texts.push(piece.clone()),
        }
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

/// Three shapes: the fields at the top, a gateway's `{"message", "request_id"}`, and a list of what is wrong where, which
/// stands in `detail`, in `message`, in `message.detail`, or in the latter as text.
fn explain_value(status: u16, body: &Value) -> ApiFault {
    let error = body.get("error").filter(|error| error.is_object()).unwrap_or(body);
    let message =
        ["message", "detail", "error"].iter().find_map(|key| error.get(*key).filter(|value| !value.is_null()));
    let message = message.cloned().unwrap_or_else(|| Value::String(body.to_string()));
    let parsed = message.as_str().and_then(|text| serde_json::from_str(text).ok()).filter(Value::is_object);
    let found = parsed.as_ref().unwrap_or(&message);
    let details = found.get("detail").unwrap_or(found).as_array().map(Vec::as_slice).unwrap_or_default();
    let details: Vec<&Value> = details.iter().filter(|detail| detail.get("msg").is_some()).collect();
    let words: Vec<String> =
        details.iter().map(|detail| format!("{}: {}", place(detail), word(detail, "msg"))).collect();
    let text = match (&message, words.is_empty()) {
        (_, false) => words.join("; "),
        (Value::String(text), true) => text.clone(),
        (other, true) => other.to_string(),
    };
    let parameter = Some(word(error, "param")).filter(|name| !name.is_empty());
    ApiFault {
        kind: kind(status, &word(error, "type"), &text),
        message: excerpt(&text, MESSAGE_CHARS_MAX),
        parameter: parameter.or_else(|| details.first().map(|detail| place(detail))).filter(|name| !name.is_empty()),
        retry_after: None,
    }
}

/// `["body", "messages", 0, "content"]` as `messages.0.content`.
fn place(detail: &Value) -> String {
    let path = detail.get("loc").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let names = path.iter().map(|name| name.as_str().map_or_else(|| name.to_string(), str::to_owned));
    names.skip_while(|name| name == "body").collect::<Vec<String>>().join(".")
}

fn kind(status: u16, kind: &str, message: &str) -> FaultKind {
    let message = message.to_ascii_lowercase();
    // "Prompt contains N tokens, too large for model with M maximum context length"; the second is vLLM's.
    let is_too_long = message.contains("too large for model with") || message.contains("maximum context length");
    let is_guarded = kind.contains("guardrail") || kind.contains("moderation") || message.contains("guardrail");
    match kind {
        _ if is_too_long && (400..500).contains(&status) => FaultKind::ContextTooLong,
        "invalid_model" => FaultKind::NotFound,
        "rate_limited" | "service_tier_capacity_exceeded" => FaultKind::RateLimited,
        _ if is_guarded && matches!(status, 400 | 403 | 422) => FaultKind::Refused,
        _ => kind_of_status(status),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Random};

    fn random_message(random: &mut Random) -> Message {
        const IDS: [&str; 5] = ["call_1", "call_2", "aB3dE5gH9", "RzIA5JmCj", ""];
        match random.below(4) {
            0 => Message::User { text: "u".to_owned() },
            1 => Message::ToolResult(ToolResult {
                call_id: random.pick(&IDS).to_owned(),
                text: "r".to_owned(),
                is_error: false,
            }),
            _ => {
                let mut parts = vec![Part::Text { text: random.pick(&["", "said"]).to_owned() }];
                parts.extend(IDS.iter().filter(|_| random.below(3) == 0).map(|id| {
                    Part::ToolCall(ToolCall { id: (*id).to_owned(), name: "t".to_owned(), arguments: Value::Null })
                }));
                Message::Assistant { parts }
            }
        }
    }

    /// mistral-common 1.13, `MistralRequestValidatorV13`, and the order that the hosted API wants.
    fn check_order(messages: &[Value]) {
        let mut open: HashSet<String> = HashSet::new();
        let mut before = String::new();
        for message in messages {
            let role = word(message, "role");
            if role == "tool" {
                assert!(open.remove(&word(message, "tool_call_id")), "a result without its call");
            } else {
                assert!(open.is_empty(), "a call without its result");
                assert!(!(role == "user" && before == "tool"), "a user after a tool");
            }
            for call in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
                let id = word(call, "id");
                assert!(id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
                assert!(open.insert(id), "two calls with the same id");
            }
            before = role;
        }
        assert!(open.is_empty() && before != "assistant");
    }

    #[test]
    fn any_conversation_is_sent_in_an_order_that_is_taken() {
        testing::check_property(2000, |random| {
            let mut body = b"[".to_vec();
            let (mut messages, mut list) = (Messages::default(), List(&mut body));
            (0..random.below(8)).for_each(|_| messages.push(&random_message(random), &mut list));
            messages.finish(&mut list);
            body.push(b']');
            let sent: Vec<Value> = serde_json::from_slice(&body).unwrap();
            check_order(&sent);
        });
    }
}
