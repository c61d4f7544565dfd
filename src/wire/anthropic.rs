//! Anthropic Messages, as Anthropic and the gateways in front of it speak it. Pure.
//!
//! Facts: Anthropic's API reference ("Messages", "Errors", "Stop reasons", "Prompt caching", "Streaming refusals") and the
//! types of its Python library 2.12, read 2026-11. It refuses to know the version header and where the key comes from.
//! What may surprise: what a block says more than its neutral part (a caller, citations) stands in a `Part::Opaque` directly
//! before that part and goes back with it; a refused turn is never sent back, because the refusal would repeat itself.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{ApiFault, DecodeError, FaultKind, List, MESSAGE_CHARS_MAX, Options, Progress, excerpt, parse_json};
use crate::conversation::{Message, Part, StopReason, ToolCall, ToolResult, ToolSpec, Turn, Usage};

/// Output tokens asked for when the configuration names no limit, because the format requires one. Thinking counts toward
/// it, so it is generous; every model in service takes it (the smallest maximum is 32,000, "Models overview", read 2026-11),
/// and it leaves half of a 32k window to the prompt where a gateway serves a small model.
const MAX_TOKENS_DEFAULT: u64 = 16_384;
/// Characters of an unreadable body that an error quotes.
const EXCERPT_CHARS_MAX: usize = 200;
/// The text of a failed result that has none: with `is_error` an empty one is refused.
const ERROR_WITHOUT_TEXT: &str = "failed without output";

/// The messages stand last, so that a request begins with the bytes of the one before, but for the cache marks.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    #[serde(flatten)]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Value>,
    /// An empty text block is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<Value>,
    messages: Vec<Value>,
}

/// The request before anything was said.
pub fn begin(system: &str, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
    let system_block = json!([{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]);
    let mut parameters = options.parameters.clone();
    // Tools that run at the provider (web search) can only come from there; they stand before ours.
    let server_tools = match parameters.shift_remove("tools") {
        Some(Value::Array(tools)) => tools,
        _ => Vec::new(),
    };
    let request = Request {
        model: &options.model,
        max_tokens: (!parameters.contains_key("max_tokens")).then(|| max_tokens_default(&parameters)),
        parameters,
        stream: options.stream.then_some(true),
        tools: server_tools.into_iter().chain(tools.iter().map(tool)).collect(),
        system: (!system.trim().is_empty()).then_some(system_block),
        messages: Vec::new(),
    };
    serde_json::to_vec(&request).expect("JSON values under text keys serialize")
}

/// A budget for thinking must be smaller than the limit.
fn max_tokens_default(parameters: &Map<String, Value>) -> u64 {
    let budget = parameters.get("thinking").and_then(|thinking| thinking.get("budget_tokens")?.as_u64());
    MAX_TOKENS_DEFAULT.saturating_add(budget.unwrap_or(0))
}

/// What was said, in order. What is said to the model between two of its turns is one message: results first, as the format
/// wants it, then texts, each a block of its own, so that a text added later leaves the bytes before it as they are.
#[derive(Debug, Default)]
pub struct Messages {
    results: Vec<Value>,
    texts: Vec<Value>,
    /// A result without its call is refused, and the calls of a turn that is not sent have results all the same.
    answerable: Vec<String>,
    /// From the last user message but one on: what may still get or lose a mark.
    latest: Vec<Value>,
}

impl Messages {
    pub fn push(&mut self, message: &Message, list: &mut List<'_>) {
        match message {
            Message::User { text } => self.texts.extend(text_block(text)),
            Message::ToolResult(result) if self.answerable.contains(&result.call_id) => {
                self.results.push(tool_result(result));
            }
            Message::ToolResult(_) => {}
            Message::Assistant { parts } => {
                let blocks = assistant_blocks(parts);
                if blocks.is_empty() {
                    return self.answerable.clear();
                }
                let said = user_message(&mut self.results, &mut self.texts);
                self.latest.extend(said.into_iter().chain([json!({"role": "assistant", "content": blocks})]));
                self.answerable = call_ids(parts);
                let users = self.latest.iter().enumerate().rev().filter(|(_, message)| is_of_user(message));
                let end = users.map(|(place, _)| place).nth(1).unwrap_or(0);
                list.extend(self.latest.drain(..end));
            }
        }
    }

    pub fn finish(&self, list: &mut List<'_>) {
        let mut latest = self.latest.clone();
        latest.extend(user_message(&mut self.results.clone(), &mut self.texts.clone()));
        mark_for_cache(&mut latest);
        list.extend(latest);
    }
}

fn user_message(results: &mut Vec<Value>, texts: &mut Vec<Value>) -> Option<Value> {
    let mut blocks = std::mem::take(results);
    blocks.append(texts);
    (!blocks.is_empty()).then(|| json!({"role": "user", "content": blocks}))
}

fn is_of_user(message: &Value) -> bool {
    message.get("role").is_some_and(|role| role == "user")
}

/// Text that is empty or only white space is refused.
fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn tool_result(result: &ToolResult) -> Value {
    let id = &result.call_id;
    match (result.is_error, result.text.as_str()) {
        (false, "") => json!({"type": "tool_result", "tool_use_id": id}),
        (false, text) => json!({"type": "tool_result", "tool_use_id": id, "content": text}),
        (true, text) => {
            let text = if text.is_empty() { ERROR_WITHOUT_TEXT } else { text };
            json!({"type": "tool_result", "tool_use_id": id, "content": text, "is_error": true})
        }
    }
}

fn call_ids(parts: &[Part]) -> Vec<String> {
    let calls = parts.iter().filter_map(|part| match part {
        Part::ToolCall(call) => Some(call.id.clone()),
        _ => None,
    });
    calls.collect()
}

/// The blocks of a turn, in order; none for a turn with nothing to send and for a refused one ("Streaming refusals": going on
/// without removing the refused turn is refused again).
fn assistant_blocks(parts: &[Part]) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Text { text } => blocks.extend(text_block(text)),
            Part::ToolCall(call) => blocks.push(tool_use(call, &Value::Null)),
            Part::Opaque { value } => match (kind_of(value), parts.peek()) {
                ("refusal", _) => return Vec::new(),
                ("tool_use", Some(Part::ToolCall(call))) => {
                    blocks.push(tool_use(call, value));
                    parts.next();
                }
                // A call that the loop does not know of is never answered, which is refused.
                ("tool_use", _) => {}
                ("text", Some(Part::Text { .. })) => {
                    blocks.push(value.clone());
                    parts.next();
                }
                _ => blocks.push(value.clone()),
            },
        }
    }
    // Left over where the limit on output tokens cut the thinking; refused at the end ("The final block in an assistant
    // message cannot be `thinking`", issue threads of several clients, read 2026-11).
    while blocks.last().is_some_and(|block| matches!(kind_of(block), "thinking" | "redacted_thinking")) {
        blocks.pop();
    }
    blocks
}

/// `beside` holds what else came with the call. The input must be an object. Ids go back as they came, whatever is in them:
/// this provider made them, or the loop did (`call_1`).
fn tool_use(call: &ToolCall, beside: &Value) -> Value {
    let mut block = Map::from_iter([("type".to_owned(), json!("tool_use"))]);
    block.extend(beside.as_object().cloned().unwrap_or_default());
    block.insert("id".to_owned(), json!(call.id));
    block.insert("name".to_owned(), json!(call.name));
    block.insert("input".to_owned(), Value::Object(call.arguments_object().unwrap_or_default()));
    Value::Object(block)
}

fn kind_of(block: &Value) -> &str {
    block.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Marks the end of this request, which the next one reads from the cache, and the end of the one before: the server looks
/// back 20 blocks from a mark, and one turn with many calls has more. With the one on the system prompt that is three marks
/// of the four allowed. Marks on blocks and not the top-level field, because more gateways know them.
fn mark_for_cache(messages: &mut [Value]) {
    let mut is_own = true;
    let ends = messages.iter_mut().rev().filter(|message| {
        let is_end = is_own || is_of_user(message);
        is_own = false;
        is_end
    });
    for message in ends.take(2) {
        let blocks =
            message.get_mut("content").and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default();
        let last = blocks.iter_mut().rev().find(|block| {
            matches!(kind_of(block), "text" | "tool_use") || block.get("content").is_some_and(Value::is_string)
        });
        if let Some(fields) = last.and_then(Value::as_object_mut) {
            fields.insert("cache_control".to_owned(), json!({"type": "ephemeral"}));
        }
    }
}

fn tool(spec: &ToolSpec) -> Value {
    let mut schema = spec.parameters.clone();
    if let Some(fields) = schema.as_object_mut() {
        // Refused at the root ("input_schema does not support oneOf, allOf, or anyOf at the top level").
        fields.retain(|key, _| !["oneOf", "allOf", "anyOf"].contains(&key.as_str()));
    }
    json!({"name": spec.name, "description": spec.description, "input_schema": schema})
}

pub fn decode(body: &[u8]) -> Result<Turn, DecodeError> {
    let answer = parse_json(body).ok_or_else(|| unreadable("", "JSON", &String::from_utf8_lossy(body)))?;
    turn_of(&answer)
}

fn turn_of(answer: &Value) -> Result<Turn, DecodeError> {
    if let Some(fault) = error_in(answer) {
        return Err(DecodeError::Answered(fault));
    }
    let word = answer.get("stop_reason").and_then(Value::as_str);
    let blocks = match (answer.get("content"), word) {
        (Some(Value::Array(blocks)), _) => blocks.as_slice(),
        (None | Some(Value::Null), Some(_)) => &[],
        _ => return Err(unreadable("content", "a list of blocks", &answer.to_string())),
    };
    let mut parts = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        decode_block(block, &mut parts).ok_or_else(|| {
            unreadable(&format!("content[{index}]"), "a tool_use block with a name", &block.to_string())
        })?;
    }
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    if word == Some("refusal") {
        parts.extend(refusal(answer.get("stop_details").unwrap_or(&Value::Null)));
    }
    Ok(Turn { parts, stop_reason: stop_reason(word, has_calls), usage: usage(answer.get("usage")) })
}

fn unreadable(path: &str, expected: &'static str, found: &str) -> DecodeError {
    DecodeError::Unreadable { path: path.to_owned(), expected, excerpt: excerpt(found, EXCERPT_CHARS_MAX) }
}

/// An error under a good status, or in a stream. It has no status of its own, so that only its words count.
fn error_in(value: &Value) -> Option<ApiFault> {
    value.get("error").filter(|error| !error.is_null()).map(|_| explain_value(500, value))
}

/// Adds the parts that a block stands for. `None`: a call without a name.
fn decode_block(block: &Value, parts: &mut Vec<Part>) -> Option<()> {
    match (kind_of(block), block.get("text").and_then(Value::as_str)) {
        ("text", Some("")) => {}
        ("text", Some(text)) => {
            let is_more = fields_beside(block, &["text"]).is_some();
            parts.extend(is_more.then(|| Part::Opaque { value: block.clone() }));
            parts.push(Part::Text { text: text.to_owned() });
        }
        ("tool_use", _) => {
            let id = block.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = block.get("name")?.as_str()?.to_owned();
            // The input can be long, so it stands in one of the two parts only.
            parts.extend(fields_beside(block, &["id", "name", "input"]).map(|value| Part::Opaque { value }));
            let arguments = block.get("input").cloned().unwrap_or_default();
            parts.push(Part::ToolCall(ToolCall { id, name, arguments }));
        }
        _ => parts.push(Part::Opaque { value: block.clone() }),
    }
    Some(())
}

/// The block without the fields that its neutral part holds, if there is more than its type.
fn fields_beside(block: &Value, held: &[&str]) -> Option<Value> {
    let mut fields = block.as_object()?.clone();
    fields.retain(|key, value| !held.contains(&key.as_str()) && !value.is_null());
    (fields.len() > 1).then_some(Value::Object(fields))
}

/// What the provider says of a refusal, for the loop to read; what is opaque keeps the turn from being sent back.
fn refusal(details: &Value) -> Vec<Part> {
    let word = |key: &str| details.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let category = word("category").map(|category| format!("refused: {category}"));
    let text = word("explanation").map(str::to_owned).or(category);
    let mut parts = vec![Part::Opaque { value: json!({"type": "refusal", "category": details.get("category")}) }];
    parts.extend(text.map(|text| Part::Text { text }));
    parts
}

fn stop_reason(word: Option<&str>, has_calls: bool) -> StopReason {
    match word {
        Some("max_tokens") => StopReason::TokenLimit,
        Some("model_context_window_exceeded") => StopReason::ContextFull,
        Some("refusal") => StopReason::Refused,
        Some("pause_turn") if !has_calls => StopReason::Paused,
        _ if has_calls => StopReason::ToolCalls,
        None | Some("" | "end_turn" | "stop_sequence" | "tool_use") => StopReason::EndTurn,
        Some(other) => StopReason::Other(excerpt(other, 40)),
    }
}

/// Input tokens are counted apart from those written to the cache and those read from it; output includes thinking.
fn usage(usage: Option<&Value>) -> Usage {
    let count = |key: &str| {
        let number = usage?.get(key)?;
        number.as_u64().or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
    };
    let cached = count("cache_read_input_tokens").unwrap_or(0);
    let written = count("cache_creation_input_tokens").unwrap_or(0);
    match (count("input_tokens"), count("output_tokens")) {
        (None, None) => Usage { is_estimate: true, ..Usage::default() },
        (input, output) => Usage {
            input_tokens: input.unwrap_or(0).saturating_add(written).saturating_add(cached),
            output_tokens: output.unwrap_or(0),
            cached_input_tokens: cached,
            is_estimate: false,
        },
    }
}

/// The pieces of a streamed answer, put together to the message that the same answer has without streaming.
#[derive(Debug, Default)]
pub struct Stream {
    message: Map<String, Value>,
    blocks: Vec<Block>,
    /// `message_stop` has come.
    is_whole: bool,
}

#[derive(Debug)]
struct Block {
    /// As the server counts.
    index: u64,
    fields: Map<String, Value>,
    /// The text of `input`, as far as it has come.
    input: String,
}

impl Stream {
    pub fn push(&mut self, event: &Event) -> Result<Progress, DecodeError> {
        let data = event.data.trim();
        if data.is_empty() {
            return Ok(Progress::More);
        }
        let value = parse_json(data.as_bytes()).ok_or_else(|| unreadable("stream", "JSON", data))?;
        if let Some(fault) = error_in(&value) {
            return Err(DecodeError::Answered(fault));
        }
        let index = value.get("index").and_then(Value::as_u64).unwrap_or_default();
        let field = |key: &str| value.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        match kind_of(&value) {
            "message_start" => self.message = field("message"),
            "content_block_start" => {
                self.blocks.push(Block { index, fields: field("content_block"), input: String::new() });
            }
            "content_block_delta" => {
                let block = self.blocks.iter_mut().rev().find(|block| block.index == index);
                block.ok_or_else(|| unreadable("stream", "a block before its pieces", data))?.append(field("delta"));
            }
            "message_delta" => self.end_message(field("delta"), field("usage")),
            "message_stop" => {
                self.is_whole = true;
                return Ok(Progress::Whole);
            }
            // `ping`, `content_block_stop`, and what a later version has.
            _ => {}
        }
        Ok(Progress::More)
    }

    /// The counts are totals so far; one that is missing leaves that of the beginning as it is.
    fn end_message(&mut self, delta: Map<String, Value>, usage: Map<String, Value>) {
        self.message.extend(delta);
        let counts = self.message.entry("usage").or_insert_with(|| json!({}));
        if !counts.is_object() {
            *counts = json!({});
        }
        if let Some(counts) = counts.as_object_mut() {
            counts.extend(usage.into_iter().filter(|(_, count)| !count.is_null()));
        }
    }

    pub fn finish(mut self) -> Result<Turn, DecodeError> {
        if !self.is_whole {
            return Err(unreadable("stream", "`message_stop` at its end", "the end of the connection"));
        }
        let blocks: Vec<Value> = self.blocks.into_iter().map(Block::finish).collect();
        // Where there is no block, what the beginning says about the content stands.
        if !blocks.is_empty() {
            self.message.insert("content".to_owned(), Value::Array(blocks));
        }
        turn_of(&Value::Object(self.message))
    }
}

impl Block {
    /// Text, thinking and input come in pieces, citations one by one; of everything else the last one counts, as in
    /// Anthropic's own library.
    fn append(&mut self, delta: Map<String, Value>) {
        for (key, piece) in delta {
            match (key.as_str(), piece) {
                ("type", _) => {}
                ("partial_json", Value::String(piece)) => self.input.push_str(&piece),
                ("citation", piece) => match self.fields.get_mut("citations") {
                    Some(Value::Array(citations)) => citations.push(piece),
                    _ => self.fields.extend([("citations".to_owned(), json!([piece]))]),
                },
                ("text" | "thinking", Value::String(piece)) => match self.fields.get_mut(&key) {
                    Some(Value::String(whole)) => whole.push_str(&piece),
                    _ => self.fields.extend([(key, Value::String(piece))]),
                },
                (_, piece) => self.fields.extend([(key, piece)]),
            }
        }
    }

    /// Input that is not JSON, as a limit cuts it off, stays text: the loop does not run it. Without a piece the block's own
    /// `{}` stands.
    fn finish(mut self) -> Value {
        if !self.input.is_empty() {
            let input = parse_json(self.input.as_bytes()).unwrap_or(Value::String(self.input));
            self.fields.insert("input".to_owned(), input);
        }
        Value::Object(self.fields)
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

/// Anthropic's own body is `{"error": {"type", "message", "details"}}`; gateways send a text, a `detail`, or a flat object.
fn explain_value(status: u16, body: &Value) -> ApiFault {
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
    let message = match error.get("message").or_else(|| body.get("message")).or_else(|| body.get("detail")) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => error.as_str().map_or_else(|| body.to_string(), str::to_owned),
    };
    let code = error.pointer("/details/error_code").and_then(Value::as_str).unwrap_or_default();
    let kind = kind(status, kind_of(error), code, &message.to_ascii_lowercase());
    ApiFault {
        kind,
        parameter: if kind == FaultKind::BadRequest { refused_parameter(&message) } else { None },
        message: excerpt(&message, MESSAGE_CHARS_MAX),
        retry_after: None,
    }
}

/// The code first, then the type; the words only where neither says it, because they change.
fn kind(status: u16, kind: &str, code: &str, message: &str) -> FaultKind {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    match (code, kind) {
        (
            "enforced_spend_limit_reached"
            | "contract_spend_limit_reached"
            | "linked_organization_spend_limit_reached"
            | "linked_organization_billing_unavailable",
            _,
        ) => FaultKind::QuotaExhausted,
        ("ramp_limit_exceeded", _) => FaultKind::RateLimited,
        ("organization_on_hold", _) => FaultKind::Unauthorized,
        (_, "billing_error") => FaultKind::QuotaExhausted,
        (_, "authentication_error" | "permission_error") => FaultKind::Unauthorized,
        // LiteLLM without a database, which then knows no key but its own (seen 2026-11).
        (_, "no_db_connection") => FaultKind::Unauthorized,
        (_, "not_found_error") => FaultKind::NotFound,
        (_, "rate_limit_error") => FaultKind::RateLimited,
        (_, "request_too_large") => FaultKind::ContextTooLong,
        (_, "overloaded_error" | "timeout_error" | "conflict_error") => FaultKind::Unavailable,
        // From here on only words tell: own spend limits and an empty account come as `invalid_request_error` too.
        _ if says(&CONTEXT_WORDS) => FaultKind::ContextTooLong,
        _ if says(&QUOTA_WORDS) => FaultKind::QuotaExhausted,
        _ if says(&["blocked by content filtering policy"]) => FaultKind::Refused,
        (_, "invalid_request_error") if status >= 500 => FaultKind::BadRequest,
        _ => kind_of_status(status),
    }
}

/// Anthropic's, then those of servers behind gateways (LiteLLM 1.109's list).
const CONTEXT_WORDS: [&str; 6] = [
    "prompt is too long",
    "exceed context limit",
    "exceeds the context window",
    "maximum context length",
    "exceeds the available context size",
    "contextwindowexceedederror",
];

/// "Errors" names the 400 for own spend limits; the texts are from issue threads, read 2026-11.
const QUOTA_WORDS: [&str; 2] = ["credit balance is too low", "reached your specified api usage limits"];

/// The parameter to blame, where the words name more than one. A message that begins with the path of a block or a tool is
/// about that, whatever else it mentions. Of two parameters that exclude each other the first of this list goes: the
/// controller always sends a temperature, while whoever wrote the other one meant it.
fn refused_parameter(message: &str) -> Option<String> {
    let root = message.split(['.', ':']).next().unwrap_or_default();
    if ["messages", "system", "tools"].contains(&root) {
        return Some(root.to_owned());
    }
    let is_named =
        |name: &&&str| message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == **name);
    ["temperature", "top_p", "top_k", "thinking"].iter().find(is_named).map(|name| (*name).to_owned())
}

fn kind_of_status(status: u16) -> FaultKind {
    match status {
        401 | 403 => FaultKind::Unauthorized,
        402 => FaultKind::QuotaExhausted,
        404 => FaultKind::NotFound,
        // More than 32 MB; from the edge it comes without JSON.
        413 => FaultKind::ContextTooLong,
        429 => FaultKind::RateLimited,
        // 529 is Anthropic's own: overloaded.
        408 | 409 | 425 | 499 | 500 | 502..=504 | 506..=599 => FaultKind::Unavailable,
        _ => FaultKind::BadRequest,
    }
}
