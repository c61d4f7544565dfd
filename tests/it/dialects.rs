//! The six formats as their servers speak them: one neutral answer or fault, worded as each of them does, whole or in pieces.
//!
//! It knows nothing of the runtime; shapes and words are those of the providers' references and libraries (read 2026-11). What
//! may surprise: every answer says that it used the same tokens, each format in its own way of counting.

use serde_json::{Value, json};

use crate::chat::{CACHED_TOKENS, INPUT_TOKENS, OUTPUT_TOKENS};
use crate::server::Exchange;

/// Of the output tokens, those that were thinking.
const THINKING_TOKENS: u64 = 22;
/// Of the input tokens, those that Anthropic wrote to its cache.
const CACHE_WRITE_TOKENS: u64 = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Dialect {
    Chat,
    Responses,
    Anthropic,
    Gemini,
    Mistral,
    Ollama,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delivery {
    Streamed,
    Whole,
}

/// An answer of a model that thinks first.
#[derive(Clone)]
pub struct Answer {
    pub text: &'static str,
    /// Id, name, arguments.
    pub calls: Vec<(&'static str, &'static str, Value)>,
    pub ending: Ending,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Ending {
    Ordinary,
    Refused,
    TokenLimit,
}

/// What a server says instead of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    KeyRefused,
    Forbidden,
    UnknownModel,
    QuotaUsedUp,
    ContextTooLong,
    /// With a wait of one second.
    RateLimited,
    TemperatureRefused,
}

/// A streamed answer: what comes before its end mark, and the rest.
pub struct Pieces {
    pub body: Vec<String>,
    pub end: Vec<String>,
}

/// The words of every fault, so that a test finds them again.
pub const FAULT_WORDS: &str = "says the server";

impl Dialect {
    pub fn answer(self, delivery: Delivery, answer: &Answer) -> Exchange {
        match delivery {
            Delivery::Whole => Exchange::json(200, &self.whole(answer)),
            Delivery::Streamed => {
                let pieces = self.pieces(answer);
                self.streamed([pieces.body, pieces.end].concat())
            }
        }
    }

    /// These pieces as a stream.
    pub fn streamed(self, pieces: Vec<String>) -> Exchange {
        let content_type = match self {
            Dialect::Ollama => "application/x-ndjson",
            _ => "text/event-stream; charset=utf-8",
        };
        Exchange::new(200, content_type, pieces.concat()).chunked(61)
    }

    /// An overload that shows only when the stream has begun.
    pub fn overloaded_piece(self) -> String {
        match self {
            Dialect::Chat => data(&json!({"error": {"message": "overloaded", "type": "server_error", "code": 503}})),
            Dialect::Responses => event(
                "error",
                &json!({"type": "error", "code": "server_is_overloaded", "message": "overloaded", "param": null}),
            ),
            Dialect::Anthropic => event(
                "error",
                &json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            ),
            Dialect::Gemini => data(&json!({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})),
            Dialect::Mistral => data(&json!({
                "object": "error", "message": "overloaded", "type": "internal_server_error", "param": null, "code": "3700",
            })),
            Dialect::Ollama => line(&json!({"error": "an error was encountered while running the model"})),
        }
    }

    fn whole(self, answer: &Answer) -> Value {
        match self {
            Dialect::Chat => chat_whole(answer),
            Dialect::Responses => responses_whole(answer),
            Dialect::Anthropic => anthropic_whole(answer),
            Dialect::Gemini => gemini_whole(gemini_parts(answer), answer),
            Dialect::Mistral => mistral_whole(answer),
            Dialect::Ollama => ollama_whole(answer),
        }
    }

    pub fn pieces(self, answer: &Answer) -> Pieces {
        match self {
            Dialect::Chat => chat_pieces(answer),
            Dialect::Responses => responses_pieces(answer),
            Dialect::Anthropic => anthropic_pieces(answer),
            Dialect::Gemini => gemini_pieces(answer),
            Dialect::Mistral => mistral_pieces(answer),
            Dialect::Ollama => ollama_pieces(answer),
        }
    }

    /// Where the turn stands in the next request, and how: with its thinking as it came.
    pub fn sent_back(self, answer: &Answer) -> (&'static str, Value) {
        match self {
            Dialect::Chat => ("/messages/2", chat_message(answer)),
            Dialect::Responses => ("/input/1", responses_output(answer)[0].clone()),
            Dialect::Anthropic => ("/messages/1/content", json!(anthropic_blocks(answer))),
            Dialect::Gemini => ("/contents/1/parts", json!(gemini_parts(answer))),
            Dialect::Mistral => ("/messages/2/content/0", mistral_thinking()),
            Dialect::Ollama => ("/messages/2/thinking", json!("Let me see.")),
        }
    }

    pub fn trouble(self, trouble: Trouble) -> Exchange {
        let (status, body) = match self {
            Dialect::Chat | Dialect::Responses => openai_trouble(trouble),
            Dialect::Anthropic => anthropic_trouble(trouble),
            Dialect::Gemini => gemini_trouble(trouble),
            Dialect::Mistral => mistral_trouble(trouble),
            Dialect::Ollama => ollama_trouble(trouble),
        };
        let exchange = Exchange::json(status, &body);
        // Google says it in the body.
        match trouble == Trouble::RateLimited && self != Dialect::Gemini {
            true => exchange.header("Retry-After", "1"),
            false => exchange,
        }
    }

    /// How many cached tokens an answer tells of; Ollama does not.
    pub fn cached_tokens(self) -> u64 {
        if self == Dialect::Ollama { 0 } else { CACHED_TOKENS }
    }
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn event(name: &str, value: &Value) -> String {
    format!("event: {name}\ndata: {value}\n\n")
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// A text in two pieces.
fn halves(text: &str) -> [&str; 2] {
    let middle = text.char_indices().map(|(place, _)| place).find(|place| *place >= text.len() / 2);
    <[&str; 2]>::from(text.split_at(middle.unwrap_or_default()))
}

// Chat Completions.

fn chat_message(answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": null, "reasoning_content": "Let me see."});
    if !answer.text.is_empty() {
        message["content"] = json!(answer.text);
    }
    if !answer.calls.is_empty() {
        let calls = answer.calls.iter().map(|(id, name, arguments)| {
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}})
        });
        message["tool_calls"] = calls.collect();
    }
    message
}

fn chat_usage() -> Value {
    json!({
        "prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
        "completion_tokens_details": {"reasoning_tokens": THINKING_TOKENS},
    })
}

fn chat_finish_reason(answer: &Answer) -> &'static str {
    match answer.ending {
        Ending::Refused => "content_filter",
        Ending::TokenLimit => "length",
        Ending::Ordinary if answer.calls.is_empty() => "stop",
        Ending::Ordinary => "tool_calls",
    }
}

fn chat_whole(answer: &Answer) -> Value {
    let choice = json!({"index": 0, "finish_reason": chat_finish_reason(answer), "message": chat_message(answer)});
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": chat_usage(),
    })
}

fn chat_chunk(delta: Value, finish_reason: Value) -> String {
    data(&json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "usage": null,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
    }))
}

fn chat_pieces(answer: &Answer) -> Pieces {
    let piece = |delta: Value| chat_chunk(delta, Value::Null);
    let mut body = vec![": a comment\n\n".to_owned(), piece(json!({"role": "assistant", "content": null}))];
    body.extend(halves("Let me see.").map(|half| piece(json!({"reasoning_content": half}))));
    if !answer.text.is_empty() {
        body.extend(halves(answer.text).map(|half| piece(json!({"content": half}))));
    }
    for (index, (id, name, arguments)) in answer.calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        body.push(piece(json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})));
        for half in halves(&arguments.to_string()) {
            body.push(piece(json!({"tool_calls": [{"index": index, "function": {"arguments": half}}]})));
        }
    }
    let usage = data(
        &json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": chat_usage()}),
    );
    let end = vec![chat_chunk(json!({}), json!(chat_finish_reason(answer))), usage, "data: [DONE]\n\n".to_owned()];
    Pieces { body, end }
}

fn openai_trouble(trouble: Trouble) -> (u16, Value) {
    let error = |kind: &str, code: &str, param: Value, message: String| json!({"error": {"message": message, "type": kind, "param": param, "code": code}});
    let request = "invalid_request_error";
    match trouble {
        Trouble::KeyRefused => {
            (401, error(request, "invalid_api_key", Value::Null, format!("Incorrect API key, {FAULT_WORDS}")))
        }
        Trouble::Forbidden => (403, error(request, "forbidden", Value::Null, format!("No access, {FAULT_WORDS}"))),
        Trouble::UnknownModel => {
            (404, error(request, "model_not_found", Value::Null, format!("It does not exist, {FAULT_WORDS}")))
        }
        Trouble::QuotaUsedUp => (
            429,
            error("insufficient_quota", "credit_balance_exhausted", Value::Null, format!("No credit, {FAULT_WORDS}")),
        ),
        Trouble::ContextTooLong => {
            (400, error(request, "context_length_exceeded", json!("input"), format!("Too long, {FAULT_WORDS}")))
        }
        Trouble::RateLimited => {
            (429, error("tokens", "rate_limit_exceeded", Value::Null, format!("Too fast, {FAULT_WORDS}")))
        }
        Trouble::TemperatureRefused => {
            let message = "Unsupported parameter: 'temperature' is not supported with this model.".to_owned();
            (400, error(request, "unsupported_parameter", json!("temperature"), message))
        }
    }
}

// Responses.

fn responses_output(answer: &Answer) -> Vec<Value> {
    let mut output =
        vec![json!({"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "U2lnbmF0dXJlX0E="})];
    if !answer.text.is_empty() {
        let content = match answer.ending {
            Ending::Refused => json!([{"type": "refusal", "refusal": answer.text}]),
            _ => json!([{"type": "output_text", "text": answer.text, "annotations": []}]),
        };
        output.push(json!({
            "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content,
        }));
    }
    output.extend(answer.calls.iter().enumerate().map(|(index, (id, name, arguments))| {
        json!({
            "type": "function_call", "id": format!("fc_{index}"), "call_id": id, "name": name,
            "arguments": arguments.to_string(), "status": "completed",
        })
    }));
    output
}

fn responses_whole(answer: &Answer) -> Value {
    let (status, details) = match answer.ending {
        Ending::TokenLimit => ("incomplete", json!({"reason": "max_output_tokens"})),
        _ => ("completed", Value::Null),
    };
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "error": null,
        "incomplete_details": details, "output": responses_output(answer), "parallel_tool_calls": true, "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": INPUT_TOKENS, "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
            "output_tokens": OUTPUT_TOKENS, "output_tokens_details": {"reasoning_tokens": THINKING_TOKENS},
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        },
    })
}

fn responses_pieces(answer: &Answer) -> Pieces {
    let started =
        json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}});
    let mut body = vec![event("response.created", &started)];
    for (index, item) in responses_output(answer).into_iter().enumerate() {
        let added = json!({"type": "response.output_item.added", "output_index": index, "item": item});
        body.push(event("response.output_item.added", &added));
        for half in halves(item["arguments"].as_str().unwrap_or_default()) {
            let delta = json!({"type": "response.function_call_arguments.delta", "output_index": index, "delta": half});
            body.push(event("response.function_call_arguments.delta", &delta));
        }
        let done = json!({"type": "response.output_item.done", "output_index": index, "item": item});
        body.push(event("response.output_item.done", &done));
    }
    let kind = if answer.ending == Ending::TokenLimit { "response.incomplete" } else { "response.completed" };
    let end = vec![event(kind, &json!({"type": kind, "response": responses_whole(answer)}))];
    Pieces { body, end }
}

// Anthropic.

fn anthropic_blocks(answer: &Answer) -> Vec<Value> {
    let mut blocks = vec![json!({"type": "thinking", "thinking": "Let me see.", "signature": "U2lnbmF0dXJlX0E="})];
    if !answer.text.is_empty() {
        blocks.push(json!({"type": "text", "text": answer.text}));
    }
    blocks.extend(
        answer
            .calls
            .iter()
            .map(|(id, name, input)| json!({"type": "tool_use", "id": id, "name": name, "input": input})),
    );
    blocks
}

fn anthropic_input_usage() -> Value {
    json!({
        "input_tokens": INPUT_TOKENS - CACHED_TOKENS - CACHE_WRITE_TOKENS, "cache_creation_input_tokens": CACHE_WRITE_TOKENS,
        "cache_read_input_tokens": CACHED_TOKENS, "output_tokens": 1,
    })
}

fn anthropic_stop_reason(answer: &Answer) -> &'static str {
    match answer.ending {
        Ending::Refused => "refusal",
        Ending::TokenLimit => "max_tokens",
        Ending::Ordinary if answer.calls.is_empty() => "end_turn",
        Ending::Ordinary => "tool_use",
    }
}

fn anthropic_message(content: Vec<Value>, stop_reason: Value, usage: Value) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": stop_reason,
        "stop_sequence": null, "usage": usage,
    })
}

fn anthropic_whole(answer: &Answer) -> Value {
    let mut usage = anthropic_input_usage();
    usage["output_tokens"] = json!(OUTPUT_TOKENS);
    anthropic_message(anthropic_blocks(answer), json!(anthropic_stop_reason(answer)), usage)
}

fn anthropic_pieces(answer: &Answer) -> Pieces {
    let message = anthropic_message(Vec::new(), Value::Null, anthropic_input_usage());
    let mut body = vec![
        event("message_start", &json!({"type": "message_start", "message": message})),
        event("ping", &json!({"type": "ping"})),
    ];
    for (index, block) in anthropic_blocks(answer).into_iter().enumerate() {
        let (start, deltas) = anthropic_deltas(&block);
        let started = json!({"type": "content_block_start", "index": index, "content_block": start});
        body.push(event("content_block_start", &started));
        for delta in deltas {
            let piece = json!({"type": "content_block_delta", "index": index, "delta": delta});
            body.push(event("content_block_delta", &piece));
        }
        body.push(event("content_block_stop", &json!({"type": "content_block_stop", "index": index})));
    }
    let delta = json!({"stop_reason": anthropic_stop_reason(answer), "stop_sequence": null});
    let end = vec![
        event(
            "message_delta",
            &json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": OUTPUT_TOKENS}}),
        ),
        event("message_stop", &json!({"type": "message_stop"})),
    ];
    Pieces { body, end }
}

/// How a block begins in a stream, and what is added to it.
fn anthropic_deltas(block: &Value) -> (Value, Vec<Value>) {
    let text_of = |field: &str| block[field].as_str().unwrap_or_default().to_owned();
    match block["type"].as_str().unwrap_or_default() {
        "thinking" => {
            let mut deltas: Vec<Value> =
                halves(&text_of("thinking")).map(|half| json!({"type": "thinking_delta", "thinking": half})).into();
            deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
            (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
        }
        "text" => {
            let deltas = halves(&text_of("text")).map(|half| json!({"type": "text_delta", "text": half}));
            (json!({"type": "text", "text": ""}), deltas.into())
        }
        _ => {
            let input = block["input"].to_string();
            let deltas = halves(&input).map(|half| json!({"type": "input_json_delta", "partial_json": half}));
            (json!({"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}), deltas.into())
        }
    }
}

fn anthropic_trouble(trouble: Trouble) -> (u16, Value) {
    let error = |kind: &str, message: String| json!({"type": "error", "error": {"type": kind, "message": message}});
    match trouble {
        Trouble::KeyRefused => (401, error("authentication_error", format!("invalid x-api-key, {FAULT_WORDS}"))),
        Trouble::Forbidden => (403, error("permission_error", format!("no permission, {FAULT_WORDS}"))),
        Trouble::UnknownModel => (404, error("not_found_error", format!("model: m-1, {FAULT_WORDS}"))),
        Trouble::QuotaUsedUp => (
            400,
            error(
                "invalid_request_error",
                format!("Your credit balance is too low to access the Anthropic API. {FAULT_WORDS}"),
            ),
        ),
        Trouble::ContextTooLong => (
            400,
            error(
                "invalid_request_error",
                format!("prompt is too long: 201548 tokens > 200000 maximum, {FAULT_WORDS}"),
            ),
        ),
        Trouble::RateLimited => (429, error("rate_limit_error", format!("Too fast, {FAULT_WORDS}"))),
        Trouble::TemperatureRefused => {
            (400, error("invalid_request_error", "`temperature` is deprecated for this model.".to_owned()))
        }
    }
}

// Gemini.

fn gemini_parts(answer: &Answer) -> Vec<Value> {
    let mut parts = vec![json!({"text": "Let me see.", "thought": true})];
    if !answer.text.is_empty() {
        parts.push(json!({"text": answer.text}));
    }
    for (index, (id, name, args)) in answer.calls.iter().enumerate() {
        let mut part = json!({"functionCall": {"id": id, "name": name, "args": args}});
        // Of several calls in one turn only the first has it.
        if index == 0 {
            part["thoughtSignature"] = json!("U2lnbmF0dXJlX0E=");
        }
        parts.push(part);
    }
    parts
}

fn gemini_whole(parts: Vec<Value>, answer: &Answer) -> Value {
    let reason = match answer.ending {
        Ending::Refused => "SAFETY",
        Ending::TokenLimit => "MAX_TOKENS",
        Ending::Ordinary => "STOP",
    };
    json!({
        "candidates": [{"index": 0, "finishReason": reason, "content": {"role": "model", "parts": parts}}],
        "usageMetadata": {
            "promptTokenCount": INPUT_TOKENS, "cachedContentTokenCount": CACHED_TOKENS,
            "candidatesTokenCount": OUTPUT_TOKENS - THINKING_TOKENS, "thoughtsTokenCount": THINKING_TOKENS,
            "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
        },
        "modelVersion": "m", "responseId": "r1",
    })
}

fn gemini_pieces(answer: &Answer) -> Pieces {
    let piece = |part: Value| {
        data(&json!({
            "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}],
            "usageMetadata": {"promptTokenCount": INPUT_TOKENS, "totalTokenCount": INPUT_TOKENS}, "responseId": "r1",
        }))
    };
    let mut body = Vec::new();
    for part in gemini_parts(answer) {
        match part["text"].as_str() {
            Some(text) => body.extend(halves(text).map(|half| {
                let mut part = part.clone();
                part["text"] = json!(half);
                piece(part)
            })),
            None => body.push(piece(part)),
        }
    }
    Pieces { body, end: vec![data(&gemini_whole(Vec::new(), answer))] }
}

fn gemini_trouble(trouble: Trouble) -> (u16, Value) {
    let error = |code: u16, status: &str, message: String, details: Value| {
        (code, json!({"error": {"code": code, "message": message, "status": status, "details": details}}))
    };
    let none = || json!([]);
    match trouble {
        Trouble::KeyRefused => {
            let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
            error(400, "INVALID_ARGUMENT", format!("API key not valid, {FAULT_WORDS}"), details)
        }
        Trouble::Forbidden => error(403, "PERMISSION_DENIED", format!("Permission denied, {FAULT_WORDS}"), none()),
        Trouble::UnknownModel => error(404, "NOT_FOUND", format!("models/m-1 is not found, {FAULT_WORDS}"), none()),
        Trouble::QuotaUsedUp => error(402, "RESOURCE_EXHAUSTED", format!("No credit, {FAULT_WORDS}"), none()),
        Trouble::ContextTooLong => {
            let message =
                "The input token count (1212000) exceeds the maximum number of tokens allowed (1048576)".to_owned();
            error(400, "INVALID_ARGUMENT", format!("{message}, {FAULT_WORDS}"), none())
        }
        Trouble::RateLimited => {
            let details = json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1s"}]);
            error(429, "RESOURCE_EXHAUSTED", format!("Too fast, {FAULT_WORDS}"), details)
        }
        Trouble::TemperatureRefused => {
            let message =
                "Unable to submit request because it has a temperature value of 0.2 but the supported range is 1.";
            error(400, "INVALID_ARGUMENT", message.to_owned(), none())
        }
    }
}

// Mistral.

fn mistral_thinking() -> Value {
    json!({
        "type": "thinking", "thinking": [{"type": "text", "text": "Let me see."}], "signature": "U2lnbmF0dXJlX0E=",
        "closed": true,
    })
}

fn mistral_calls(answer: &Answer) -> Vec<Value> {
    let calls = answer.calls.iter().enumerate().map(|(index, (id, name, arguments))| {
        json!({"id": id, "index": index, "function": {"name": name, "arguments": arguments.to_string()}})
    });
    calls.collect()
}

fn mistral_usage() -> Value {
    json!({
        "prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    })
}

fn mistral_whole(answer: &Answer) -> Value {
    let mut content = vec![mistral_thinking()];
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    let message = json!({"role": "assistant", "content": content, "tool_calls": mistral_calls(answer)});
    let choice = json!({"index": 0, "finish_reason": chat_finish_reason(answer), "message": message});
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
        "usage": mistral_usage(),
    })
}

fn mistral_pieces(answer: &Answer) -> Pieces {
    let piece = |delta: Value| chat_chunk(delta, Value::Null);
    let mut body = vec![piece(json!({"role": "assistant", "content": ""}))];
    for half in halves("Let me see.") {
        let thinking = json!([{"type": "text", "text": half}]);
        body.push(piece(json!({"content": [{"type": "thinking", "thinking": thinking}]})));
    }
    let signature = json!({"type": "thinking", "thinking": [], "signature": "U2lnbmF0dXJlX0E=", "closed": true});
    body.push(piece(json!({"content": [signature]})));
    if !answer.text.is_empty() {
        body.extend(halves(answer.text).map(|half| piece(json!({"content": half}))));
    }
    let calls = mistral_calls(answer);
    let last = if calls.is_empty() { json!({"content": ""}) } else { json!({"content": "", "tool_calls": calls}) };
    let end = json!({
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "usage": mistral_usage(),
        "choices": [{"index": 0, "delta": last, "finish_reason": chat_finish_reason(answer)}],
    });
    Pieces { body, end: vec![data(&end), "data: [DONE]\n\n".to_owned()] }
}

fn mistral_trouble(trouble: Trouble) -> (u16, Value) {
    let error = |kind: &str, code: Value, message: String| json!({"object": "error", "message": message, "type": kind, "param": null, "code": code});
    match trouble {
        Trouble::KeyRefused => (401, json!({"message": format!("Unauthorized, {FAULT_WORDS}"), "request_id": "1"})),
        Trouble::Forbidden => (403, json!({"message": format!("Forbidden, {FAULT_WORDS}"), "request_id": "1"})),
        Trouble::UnknownModel => {
            (400, error("invalid_model", json!("1500"), format!("Invalid model: m-1, {FAULT_WORDS}")))
        }
        Trouble::QuotaUsedUp => (402, json!({"detail": format!("Payment required, {FAULT_WORDS}")})),
        Trouble::ContextTooLong => {
            let message = "Prompt contains 66385 tokens, too large for model with 32768 maximum context length";
            (400, error("invalid_request_error", Value::Null, format!("{message}, {FAULT_WORDS}")))
        }
        Trouble::RateLimited => (429, json!({"message": format!("Requests rate limit exceeded, {FAULT_WORDS}")})),
        Trouble::TemperatureRefused => {
            let detail = json!([{
                "type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Extra inputs are not permitted",
                "input": 0.2,
            }]);
            let fields = json!({"type": "invalid_request_error", "param": null, "code": null});
            let mut body = json!({"object": "error", "message": {"detail": detail}});
            body.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
            (422, body)
        }
    }
}

// Ollama.

fn ollama_message(content: &str, thinking: &str, answer: Option<&Answer>) -> Value {
    let mut message = json!({"role": "assistant", "content": content});
    if !thinking.is_empty() {
        message["thinking"] = json!(thinking);
    }
    let calls = answer.iter().flat_map(|answer| &answer.calls).enumerate();
    let calls: Vec<Value> = calls
        .map(|(index, (id, name, arguments))| {
            json!({"id": id, "function": {"index": index, "name": name, "arguments": arguments}})
        })
        .collect();
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    message
}

fn ollama_last(message: Value, answer: &Answer) -> Value {
    let reason = if answer.ending == Ending::TokenLimit { "length" } else { "stop" };
    json!({
        "model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": true, "done_reason": reason,
        "prompt_eval_count": INPUT_TOKENS, "eval_count": OUTPUT_TOKENS, "total_duration": 1,
    })
}

fn ollama_whole(answer: &Answer) -> Value {
    ollama_last(ollama_message(answer.text, "Let me see.", Some(answer)), answer)
}

fn ollama_pieces(answer: &Answer) -> Pieces {
    let piece = |message: Value| {
        line(&json!({"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false}))
    };
    let mut body: Vec<String> =
        halves("Let me see.").map(|half| piece(ollama_message("", half, None))).into_iter().collect();
    body.extend(halves(answer.text).map(|half| piece(ollama_message(half, "", None))));
    body.push(piece(ollama_message("", "", Some(answer))));
    Pieces { body, end: vec![line(&ollama_last(ollama_message("", "", None), answer))] }
}

fn ollama_trouble(trouble: Trouble) -> (u16, Value) {
    let (status, words) = match trouble {
        Trouble::KeyRefused => (401, "unauthorized"),
        Trouble::Forbidden => (403, "forbidden"),
        Trouble::UnknownModel => (404, "model 'm-1' not found"),
        Trouble::QuotaUsedUp => (402, "payment required"),
        Trouble::ContextTooLong => (400, "the input length exceeds the context length"),
        Trouble::RateLimited => (429, "you've reached your hourly usage limit"),
        Trouble::TemperatureRefused => {
            return (400, json!({"error": "option \"temperature\" must be of type float32"}));
        }
    };
    (status, json!({"error": format!("{words}, {FAULT_WORDS}")}))
}
