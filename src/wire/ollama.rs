//! Ollama's own API, /api/chat and the part of /api/show that concerns it. Pure.
//!
//! Facts: the sources and docs of ollama, from 0.9 to 0.33 (`api/types.go`, `server/routes.go`, `server/prompt.go`,
//! `llm/llama_server.go`, `docs/api.md`), read 2026-11. It does not know how much context the machine can afford.
//! What may surprise: a prompt that does not fit is cut without a word, the objective first. So `truncate: false` and
//! `shift: false` are sent, which make servers since 0.12.6 answer an error instead; older ones ignore both, and
//! [`is_prompt_cut`] tells it from the numbers.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{ApiFault, DecodeError, FaultKind, List, MESSAGE_CHARS_MAX, Options, Progress, excerpt, parse_json};
use crate::conversation::{Conversation, Message, Part, StopReason, ToolCall, ToolSpec, Turn, Usage};

/// Characters of an unreadable body that an error quotes.
const EXCERPT_CHARS_MAX: usize = 200;
/// Parameters that stand at the top of a request; all others are the model's and stand in `options` (`ChatRequest` in
/// `api/types.go`).
const TOP_PARAMETERS: [&str; 7] = ["format", "keep_alive", "logprobs", "shift", "think", "top_logprobs", "truncate"];
/// Bytes of text for a token, more than in any text but rows of the same character. English has 4 to 5, JSON and code 3 to 4.
const BYTES_PER_TOKEN_MAX: u64 = 8;

/// The messages stand last, so that a request begins with the bytes of the one before.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    /// Left out it means `true`.
    stream: bool,
    #[serde(flatten)]
    top: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    options: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    messages: Vec<Value>,
}

/// The request before anything was said.
pub fn begin(system: &str, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
    let (top, model_options) = parameters(&options.parameters);
    let request = Request {
        model: &options.model,
        stream: options.stream,
        top,
        options: model_options,
        tools: tools.iter().map(tool).collect(),
        messages: Vec::from_iter((!system.is_empty()).then(|| json!({"role": "system", "content": system}))),
    };
    serde_json::to_vec(&request).expect("JSON values under text keys serialize")
}

/// What was said, in order.
#[derive(Debug, Default)]
pub struct Messages {
    /// What the runtime has said since the model or a tool has.
    users: Vec<String>,
    /// The tool of each call: templates name a result by its tool, renderers by its call.
    names: HashMap<String, String>,
}

impl Messages {
    pub fn push(&mut self, message: &Message, list: &mut List<'_>) {
        if let Message::User { text } = message {
            return self.users.push(text.clone());
        }
        self.finish(list);
        self.users.clear();
        match message {
            Message::User { .. } => {}
            Message::Assistant { parts } => {
                for part in parts {
                    let Part::ToolCall(call) = part else { continue };
                    self.names.entry(call.id.clone()).or_insert_with(|| call.name.clone());
                }
                list.extend(assistant_message(parts));
            }
            Message::ToolResult(result) => {
                let name = self.names.get(&result.call_id).map_or("", String::as_str);
                list.push(&json!({
                    "role": "tool", "content": result.text, "tool_name": name, "tool_call_id": result.call_id,
                }));
            }
        }
    }

    pub fn finish(&self, list: &mut List<'_>) {
        list.extend(user_message(&self.users));
    }
}

/// Those at the top, and those of the model.
fn parameters(given: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let mut top = Map::new();
    let mut options = Map::new();
    top.insert("truncate".to_owned(), json!(false));
    top.insert("shift".to_owned(), json!(false));
    for (name, value) in given {
        match (name.as_str(), value) {
            ("options", Value::Object(given)) => options.extend(given.clone()),
            ("max_tokens" | "max_completion_tokens", _) => {
                drop(options.insert("num_predict".to_owned(), value.clone()))
            }
            (name, _) if TOP_PARAMETERS.contains(&name) => drop(top.insert(name.to_owned(), value.clone())),
            _ => drop(options.insert(name.clone(), value.clone())),
        }
    }
    (top, options)
}

/// Chat templates want roles to alternate, so what the runtime says in a row becomes one message.
fn user_message(texts: &[String]) -> Option<Value> {
    let text = texts.join("\n\n");
    (!text.is_empty()).then(|| json!({"role": "user", "content": text}))
}

/// `None` for a turn with nothing to send. The thinking goes back with it; the model's template takes what it wants of it.
fn assistant_message(parts: &[Part]) -> Option<Value> {
    let mut text = String::new();
    let mut thinking = String::new();
    let mut calls = Vec::new();
    for part in parts {
        match part {
            Part::Text { text: piece } => text.push_str(piece),
            Part::ToolCall(call) => calls.push(tool_call(calls.len(), call)),
            Part::Opaque { value } => {
                thinking.push_str(value.get("thinking").and_then(Value::as_str).unwrap_or_default())
            }
        }
    }
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    // A text in any case: a list or `null` is refused by some versions.
    message.insert("content".to_owned(), Value::String(text));
    if !thinking.is_empty() {
        message.insert("thinking".to_owned(), Value::String(thinking));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Some(Value::Object(message))
}

/// Arguments are an object here; a text is refused.
fn tool_call(index: usize, call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "function": {"index": index, "name": call.name, "arguments": call.arguments_object().unwrap_or_default()},
    })
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
    let Some(message) = answer.get("message").and_then(Value::as_object) else {
        return Err(unreadable("message", "a message", &answer.to_string()));
    };
    // The server gives up without an error when the model repeats itself: the last piece is then not marked as done.
    if answer.get("done") == Some(&json!(false)) {
        return Err(unreadable("done", "true", &answer.to_string()));
    }
    let text_of = |field: &str| message.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut parts = Vec::new();
    parts.extend(text_of("thinking").map(|thinking| Part::Opaque { value: json!({ "thinking": thinking }) }));
    parts.extend(text_of("content").map(|text| Part::Text { text: text.to_owned() }));
    let calls = message.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, call) in calls.iter().enumerate() {
        let call = decode_call(call).ok_or_else(|| {
            unreadable(&format!("message.tool_calls[{index}]"), "a call with a name", &call.to_string())
        })?;
        parts.push(Part::ToolCall(call));
    }
    let word = answer.get("done_reason").and_then(Value::as_str).unwrap_or_default();
    // The model was loaded or unloaded, and nothing was asked of it.
    if parts.is_empty() && matches!(word, "load" | "unload") {
        return Err(unreadable("message", "an answer", word));
    }
    let stop_reason = match word {
        "length" => StopReason::TokenLimit,
        _ if !calls.is_empty() => StopReason::ToolCalls,
        "" | "stop" | "load" | "unload" => StopReason::EndTurn,
        other => StopReason::Other(excerpt(other, 40)),
    };
    Ok(Turn { parts, stop_reason, usage: usage(answer) })
}

fn unreadable(path: &str, expected: &'static str, found: &str) -> DecodeError {
    DecodeError::Unreadable { path: path.to_owned(), expected, excerpt: excerpt(found, EXCERPT_CHARS_MAX) }
}

/// An error in the middle of a stream has no status; a server without streaming gives it 500.
fn fault_in(answer: &Value) -> Option<ApiFault> {
    let is_error = answer.get("error").is_some_and(|error| !error.is_null());
    is_error.then(|| explain_value(500, answer))
}

/// `{"id", "function": {"name", "arguments"}}`; ids are given since 0.12.10.
fn decode_call(call: &Value) -> Option<ToolCall> {
    let function = call.get("function")?;
    let id = call.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = function.get("name")?.as_str()?.to_owned();
    Some(ToolCall { id, name, arguments: function.get("arguments").cloned().unwrap_or_default() })
}

/// A count of 0 is left out, and no prompt is empty, so a missing count of the prompt is unknown.
fn usage(answer: &Value) -> Usage {
    let count = |field: &str| {
        let number = answer.get(field)?;
        number.as_u64().or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
    };
    match count("prompt_eval_count").filter(|count| *count > 0) {
        None => Usage { is_estimate: true, ..Usage::default() },
        Some(input_tokens) => {
            Usage { input_tokens, output_tokens: count("eval_count").unwrap_or(0), ..Usage::default() }
        }
    }
}

/// The pieces of a streamed answer, put together to what the same answer is without streaming. Calls come whole.
#[derive(Debug, Default)]
pub struct Stream {
    content: String,
    thinking: String,
    calls: Vec<Value>,
    /// The piece that is marked as done.
    last: Option<Value>,
}

impl Stream {
    pub fn push(&mut self, event: &Event) -> Result<Progress, DecodeError> {
        let data = event.data.trim();
        if data.is_empty() {
            return Ok(Progress::More);
        }
        let piece = parse_json(data.as_bytes()).ok_or_else(|| unreadable("stream", "JSON", data))?;
        if let Some(fault) = fault_in(&piece) {
            return Err(DecodeError::Answered(fault));
        }
        let message = piece.get("message").unwrap_or(&Value::Null);
        let text_of = |field: &str| message.get(field).and_then(Value::as_str).unwrap_or_default();
        self.content.push_str(text_of("content"));
        self.thinking.push_str(text_of("thinking"));
        self.calls.extend(message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().cloned());
        if piece.get("done") != Some(&json!(true)) {
            return Ok(Progress::More);
        }
        self.last = Some(piece);
        Ok(Progress::Whole)
    }

    pub fn finish(self) -> Result<Turn, DecodeError> {
        let Some(Value::Object(mut answer)) = self.last else {
            return Err(unreadable("stream", "a line with `\"done\": true` at its end", "the end of the connection"));
        };
        let message = json!({"content": self.content, "thinking": self.thinking, "tool_calls": self.calls});
        answer.insert("message".to_owned(), message);
        turn_of(&Value::Object(answer))
    }
}

pub fn explain(status: u16, body: &[u8]) -> ApiFault {
    match parse_json(body) {
        Some(value) => explain_value(status, &value),
        None => fault(status, &String::from_utf8_lossy(body)),
    }
}

/// `{"error": "text"}`; proxies make it an object with a message.
fn explain_value(status: u16, body: &Value) -> ApiFault {
    let error = body.get("error").unwrap_or(body);
    match error.as_str().or_else(|| error.get("message")?.as_str()) {
        Some(text) => fault(status, text),
        None => fault(status, &body.to_string()),
    }
}

fn fault(status: u16, text: &str) -> ApiFault {
    let parameter = refused_parameter(text);
    let kind = match status {
        _ if is_context_too_long(text) => FaultKind::ContextTooLong,
        _ if parameter.is_some() => FaultKind::BadRequest,
        401 | 403 => FaultKind::Unauthorized,
        402 => FaultKind::QuotaExhausted,
        404 => FaultKind::NotFound,
        429 => FaultKind::RateLimited,
        408 | 409 | 424 | 425 | 499 | 500 | 502..=504 | 506..=599 => FaultKind::Unavailable,
        _ => FaultKind::BadRequest,
    };
    ApiFault { kind, message: excerpt(text, MESSAGE_CHARS_MAX), parameter, retry_after: None }
}

/// What `truncate: false` and `shift: false` lead to: of the runners up to 0.29, of the server since 0.30, of llama.cpp's server
/// (its answer as text in the error), of MLX models.
fn is_context_too_long(text: &str) -> bool {
    const WORDS: [&str; 5] = [
        "exceeds the context length",
        "longer than the context length",
        "exceeds the available context size",
        "exceeds the model's maximum context length",
        "context shift is disabled",
    ];
    WORDS.iter().any(|words| text.contains(words))
}

/// The part of the request that the model or the server cannot take: `tools` and `think` (several may be named, a line each),
/// or an option of a wrong type.
fn refused_parameter(text: &str) -> Option<String> {
    if let Some((_, lacking)) = text.split_once("does not support ") {
        let is_lacking = |what: &str| lacking.split_whitespace().any(|word| word == what);
        let names = [("tools", "tools"), ("thinking", "think")];
        return names.into_iter().find(|(what, _)| is_lacking(what)).map(|(_, name)| name.to_owned());
    }
    if text.contains("think must be") || text.contains("think value") {
        return Some("think".to_owned());
    }
    let (_, rest) = text.split_once("option \"")?;
    rest.split_once("\" must be").map(|(name, _)| name.to_owned())
}

/// What the server knows of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shown {
    /// Tokens that the model was made for. The server bounds `num_ctx` by it.
    pub context_length: Option<u64>,
    /// The `num_ctx` that the model's file sets.
    pub num_ctx: Option<u64>,
    /// Whether it can call tools. Servers before 0.6.4 do not say.
    pub has_tools: Option<bool>,
}

/// What a body of /api/show says; nothing for what it does not say.
pub fn decode_shown(body: &[u8]) -> Shown {
    let shown = parse_json(body).unwrap_or_default();
    let info = shown.get("model_info").and_then(Value::as_object);
    let architecture = info.and_then(|info| info.get("general.architecture")?.as_str()).unwrap_or_default();
    let field = format!("{architecture}.context_length");
    let context_length = info.and_then(|info| {
        // Models put together of several parts have one for each; the part that writes is named by the architecture.
        info.get(&field)
            .or_else(|| info.iter().find(|(name, _)| name.ends_with(".context_length")).map(|(_, value)| value))
    });
    // One parameter a line; the server prints numbers as Go does, 1048576 as 1.048576e+06.
    let parameters = shown.get("parameters").and_then(Value::as_str).unwrap_or_default();
    let num_ctx = parameters.lines().find_map(|line| line.trim().strip_prefix("num_ctx ")?.trim().parse::<f64>().ok());
    let capabilities = shown.get("capabilities").and_then(Value::as_array);
    Shown {
        context_length: context_length.and_then(Value::as_u64).filter(|length| *length > 0),
        num_ctx: num_ctx.filter(|number| *number >= 1.0).map(|number| number as u64),
        has_tools: capabilities.map(|list| list.iter().any(|capability| capability == "tools")),
    }
}

/// The size of a prompt, as we know it and as the server counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// From [`prompt_bytes`].
    pub prompt_bytes: u64,
    pub input_tokens: u64,
}

/// Bytes of text that surely reach the model. Thinking is left out: templates drop it as they like.
pub fn prompt_bytes(conversation: &Conversation, tools: &[ToolSpec]) -> u64 {
    let bytes_of_part = |part: &Part| match part {
        Part::Text { text } => text.len(),
        Part::ToolCall(call) => call.name.len() + call.arguments.to_string().len(),
        Part::Opaque { .. } => 0,
    };
    let messages = conversation.messages.iter().map(|message| match &**message {
        Message::User { text } => text.len(),
        Message::Assistant { parts } => parts.iter().map(bytes_of_part).sum(),
        Message::ToolResult(result) => result.text.len(),
    });
    // Of a schema the server takes the keywords that it knows, so only names and descriptions are sure.
    let tools = tools.iter().map(|spec| spec.name.len() + spec.description.len());
    (conversation.system.len() + messages.sum::<usize>() + tools.sum::<usize>()) as u64
}

/// Whether the server has cut the prompt of this turn, or would have with one token more. `before` is the turn before it.
///
/// Only two things are taken as proof. The prompt fills the context, which older servers cut it to. Or what the server counted
/// before, and what was added since at [`BYTES_PER_TOKEN_MAX`], cannot both fit. A count that is merely small proves nothing:
/// 0.30.0, and all before 0.4, leave out tokens that they have in their cache. Nor is the count before compared when the
/// runtime has spoken since, because templates then drop the thinking of earlier turns.
pub fn is_prompt_cut(conversation: &Conversation, now: Measured, before: Option<Measured>, num_ctx: u64) -> bool {
    let is_in_tool_cycle = matches!(conversation.messages.last().map(|last| &**last), Some(Message::ToolResult(_)));
    let before =
        before.filter(|before| is_in_tool_cycle && before.prompt_bytes <= now.prompt_bytes).unwrap_or_default();
    let added_bytes = now.prompt_bytes.saturating_sub(before.prompt_bytes);
    let tokens_min = before.input_tokens.saturating_add(added_bytes / BYTES_PER_TOKEN_MAX);
    num_ctx > 0 && (now.input_tokens.saturating_add(1) >= num_ctx || tokens_min > num_ctx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::ToolResult;

    #[test]
    fn a_model_s_context_length_is_read_under_its_architecture() {
        let shown = json!({
            "parameters": "num_keep                       24\nnum_ctx                        1.048576e+06\nstop \"num_ctx 5\"",
            "model_info": {
                "clip.context_length": 77, "general.architecture": "llama", "llama.context_length": 8192,
            },
            "capabilities": ["completion", "tools"],
        });
        let expected = Shown { context_length: Some(8192), num_ctx: Some(1_048_576), has_tools: Some(true) };
        assert_eq!(decode_shown(shown.to_string().as_bytes()), expected);
    }

    #[test]
    fn what_a_server_does_not_say_of_a_model_is_unknown() {
        for body in ["", "{}", "[]", r#"{"model_info": null, "parameters": 5, "capabilities": null}"#] {
            assert_eq!(decode_shown(body.as_bytes()), Shown::default(), "{body}");
        }
        let found = decode_shown(br#"{"model_info": {"gemma3.context_length": 131072}, "capabilities": []}"#);
        assert_eq!((found.context_length, found.has_tools), (Some(131_072), Some(false)));
    }

    fn conversation(last: Message) -> Conversation {
        Conversation { system: String::new(), messages: vec![last.into()] }
    }

    fn result() -> Conversation {
        conversation(Message::ToolResult(ToolResult { call_id: String::new(), text: String::new(), is_error: false }))
    }

    #[test]
    fn a_prompt_that_fills_the_context_counts_as_cut() {
        let now = |input_tokens| Measured { prompt_bytes: 0, input_tokens };
        assert!(is_prompt_cut(&result(), now(4096), None, 4096));
        assert!(is_prompt_cut(&result(), now(4095), None, 4096));
        assert!(!is_prompt_cut(&result(), now(4000), None, 4096));
    }

    #[test]
    fn a_prompt_that_cannot_have_fit_counts_as_cut() {
        let before = Some(Measured { prompt_bytes: 12_000, input_tokens: 3900 });
        let now = Measured { prompt_bytes: 14_000, input_tokens: 1200 };
        assert!(is_prompt_cut(&result(), now, before, 4096));
        let alone = Measured { prompt_bytes: 40_000, input_tokens: 1200 };
        assert!(is_prompt_cut(&result(), alone, None, 4096));
    }

    #[test]
    fn a_small_count_alone_is_no_cut() {
        // What a server counts that leaves out its cache.
        let before = Some(Measured { prompt_bytes: 12_000, input_tokens: 3000 });
        assert!(!is_prompt_cut(&result(), Measured { prompt_bytes: 14_000, input_tokens: 500 }, before, 4096));
    }

    #[test]
    fn the_count_before_is_not_compared_when_thinking_may_have_been_dropped_or_the_conversation_shortened() {
        let before = Some(Measured { prompt_bytes: 12_000, input_tokens: 3900 });
        let now = Measured { prompt_bytes: 14_000, input_tokens: 2500 };
        assert!(!is_prompt_cut(&conversation(Message::User { text: String::new() }), now, before, 4096));
        let shortened = Measured { prompt_bytes: 6000, input_tokens: 1500 };
        assert!(!is_prompt_cut(&result(), shortened, before, 4096));
    }
}
