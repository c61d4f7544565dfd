//! Google's generateContent, as the Gemini API and Vertex AI speak it. Pure.
//!
//! Facts: the Gemini API's reference and its pages "Thought signatures", "Function calling" and "API errors", and the types
//! of google-genai 3.4, read 2026-11. It refuses to know the model and whether the answer is streamed: both stand in the URL.
//! What may surprise: a part that says more than its neutral part (a signature, an id) stands as it came in a `Part::Opaque`
//! directly before that part and is what goes back; so a call whose model gave no id goes back without one, whatever the loop
//! calls it. A refused turn is never sent back.

use core::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::sse::Event;
use super::{ApiFault, DecodeError, FaultKind, List, MESSAGE_CHARS_MAX, Options, Progress, excerpt, parse_json};
use crate::conversation::{Message, Part, StopReason, ToolCall, ToolResult, ToolSpec, Turn, Usage};

/// Characters of an unreadable body that an error quotes.
const EXCERPT_CHARS_MAX: usize = 200;
/// Parameters that stand beside `generationConfig` and not in it (google-genai 3.4, `models.py`, read 2026-11).
const TOP_LEVEL: [&str; 6] = ["safetySettings", "toolConfig", "cachedContent", "labels", "serviceTier", "store"];
/// The response of a call that has no result, because there must be one for each.
const NO_RESULT: &str = "no result";

/// The contents stand last, so that a request begins with the bytes of the one before.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(flatten)]
    parameters: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    generation_config: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Value>,
    /// A part without text is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Value>,
    contents: Vec<Value>,
}

/// The request before anything was said.
pub fn begin(system: &str, tools: &[ToolSpec], options: &Options) -> Vec<u8> {
    let (parameters, generation_config) = sorted(&options.parameters);
    let declarations: Vec<Value> = tools.iter().map(tool).collect();
    let request = Request {
        parameters,
        generation_config,
        tools: (!declarations.is_empty()).then(|| json!([{"functionDeclarations": declarations}])),
        system_instruction: text_part(system).map(|part| json!({"parts": [part]})),
        contents: Vec::new(),
    };
    serde_json::to_vec(&request).expect("JSON values under text keys serialize")
}

/// The parameters at the top, and those in `generationConfig`. Names may be written with underscores: to the provider both
/// spellings are the same field, but not to every gateway.
fn sorted(parameters: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let (mut top, mut config) = (Map::new(), Map::new());
    for (name, value) in parameters {
        let name = camel_case(name);
        match (name.as_str(), value) {
            ("generationConfig", Value::Object(fields)) => config.extend(fields.clone()),
            ("maxTokens", value) => config.extend([("maxOutputTokens".to_owned(), value.clone())]),
            (known, value) if TOP_LEVEL.contains(&known) => top.extend([(name, value.clone())]),
            (_, value) => config.extend([(name, value.clone())]),
        }
    }
    (top, config)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| match word.split_at_checked(1) {
        Some((initial, rest)) => camel + &initial.to_ascii_uppercase() + rest,
        None => camel + word,
    })
}

/// A call that was sent and waits for its response.
#[derive(Debug)]
struct Open {
    call_id: String,
    /// The id that the model gave; inventing one is refused by models that give none.
    model_id: Option<Value>,
    name: String,
}

/// What was said, in order. The responses to a turn's calls are a content of their own, before what is said besides.
#[derive(Debug, Default)]
pub struct Messages {
    open: Vec<Open>,
    results: Vec<ToolResult>,
    texts: Vec<Value>,
}

impl Messages {
    pub fn push(&mut self, message: &Message, list: &mut List<'_>) {
        match message {
            Message::User { text } => self.texts.extend(text_part(text)),
            Message::ToolResult(result) => self.results.push(result.clone()),
            Message::Assistant { parts } => {
                let sent = model_parts(parts);
                list.extend(responses(&self.open, &self.results));
                self.open.clear();
                self.results.clear();
                if !sent.is_empty() {
                    list.extend(user_content(&self.texts));
                    self.texts.clear();
                    list.push(&json!({"role": "model", "parts": sent}));
                    self.open = open_calls(parts);
                }
            }
        }
    }

    pub fn finish(&self, list: &mut List<'_>) {
        list.extend(responses(&self.open, &self.results));
        list.extend(user_content(&self.texts));
    }
}

fn user_content(parts: &[Value]) -> Option<Value> {
    (!parts.is_empty()).then(|| json!({"role": "user", "parts": parts}))
}

/// A part without text counts as no part, which is refused.
fn text_part(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!({"text": text}))
}

/// One response for each call, in the order of the calls: another number is refused. Results of calls that were not sent,
/// because their turn was not, are left out.
fn responses(open: &[Open], results: &[ToolResult]) -> Option<Value> {
    let response = |call: &Open| {
        let result = results.iter().find(|result| result.call_id == call.call_id);
        let (key, text) = match result {
            Some(result) if result.is_error => ("error", result.text.as_str()),
            Some(result) => ("output", result.text.as_str()),
            None => ("error", NO_RESULT),
        };
        let mut fields = Map::new();
        fields.extend(call.model_id.clone().map(|id| ("id".to_owned(), id)));
        fields.insert("name".to_owned(), json!(call.name));
        fields.insert("response".to_owned(), json!({ key: text }));
        json!({"functionResponse": fields})
    };
    let parts: Vec<Value> = open.iter().map(response).collect();
    (!parts.is_empty()).then(|| json!({"role": "user", "parts": parts}))
}

/// The parts of a turn, each as it came, in their order; none for a turn with nothing to send (thoughts and empty text
/// are nothing) and for a refused one.
fn model_parts(parts: &[Part]) -> Vec<Value> {
    let mut sent = Vec::new();
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        match part {
            Part::Text { text } => sent.extend(text_part(text)),
            Part::ToolCall(call) => sent.push(function_call(call)),
            Part::Opaque { value } if value.get("finishReason").is_some() => return Vec::new(),
            Part::Opaque { value } => {
                sent.push(value.clone());
                parts.next_if(|next| is_reading_of(next, value));
            }
        }
    }
    let is_nothing = |part: &Value| is_thought(part) || part.get("text").is_some_and(|text| text == "");
    if sent.iter().all(is_nothing) { Vec::new() } else { sent }
}

fn function_call(call: &ToolCall) -> Value {
    json!({"functionCall": {"name": call.name, "args": call.arguments_object().unwrap_or_default()}})
}

/// Whether the neutral part is what the loop reads of the part as it came.
fn is_reading_of(part: &Part, value: &Value) -> bool {
    match part {
        Part::ToolCall(_) => value.get("functionCall").is_some(),
        Part::Text { text } => !is_thought(value) && value.get("text").is_some_and(|own| own == text.as_str()),
        Part::Opaque { .. } => false,
    }
}

fn is_thought(part: &Value) -> bool {
    part.get("thought") == Some(&Value::Bool(true))
}

fn open_calls(parts: &[Part]) -> Vec<Open> {
    let mut open = Vec::new();
    let mut model_id = None;
    for part in parts {
        match part {
            Part::Opaque { value } => model_id = value.pointer("/functionCall/id"),
            Part::ToolCall(call) => {
                let model_id = model_id.take().cloned();
                open.push(Open { call_id: call.id.clone(), model_id, name: call.name.clone() });
            }
            Part::Text { .. } => model_id = None,
        }
    }
    open
}

fn tool(spec: &ToolSpec) -> Value {
    let mut schema = spec.parameters.clone();
    if let Some(fields) = schema.as_object_mut() {
        // Names of the schema itself, which some API versions refuse as unknown keywords (issue threads, read 2026-11).
        fields.retain(|key, _| !["$schema", "$id"].contains(&key.as_str()));
    }
    json!({"name": spec.name, "description": spec.description, "parametersJsonSchema": schema})
}

pub fn decode(body: &[u8]) -> Result<Turn, DecodeError> {
    let answer = parse_json(body).ok_or_else(|| unreadable("", "JSON", &String::from_utf8_lossy(body)))?;
    turn_of(&answer)
}

fn turn_of(answer: &Value) -> Result<Turn, DecodeError> {
    if let Some(fault) = fault_in(answer) {
        return Err(DecodeError::Answered(fault));
    }
    let candidate = answer.pointer("/candidates/0").filter(|candidate| candidate.is_object());
    let candidate = candidate.ok_or_else(|| unreadable("candidates", "a candidate", &answer.to_string()))?;
    let word = candidate.get("finishReason").and_then(Value::as_str);
    let given = candidate.pointer("/content/parts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut parts = Vec::new();
    for (index, part) in given.iter().enumerate() {
        decode_part(part, &mut parts).ok_or_else(|| {
            let path = format!("candidates[0].content.parts[{index}].functionCall");
            unreadable(&path, "a whole call with a name", &part.to_string())
        })?;
    }
    let has_calls = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    let stop_reason = stop_reason(word, has_calls);
    if stop_reason == StopReason::Refused {
        // What is opaque keeps the turn from being sent back.
        parts.push(Part::Opaque { value: json!({"finishReason": word}) });
        let said = candidate.get("finishMessage").and_then(Value::as_str).filter(|text| !text.is_empty());
        parts.extend(said.map(|text| Part::Text { text: text.to_owned() }));
    }
    Ok(Turn { parts, stop_reason, usage: usage(answer.get("usageMetadata")) })
}

fn unreadable(path: &str, expected: &'static str, found: &str) -> DecodeError {
    DecodeError::Unreadable { path: path.to_owned(), expected, excerpt: excerpt(found, EXCERPT_CHARS_MAX) }
}

/// What a good status hides: an error, also in a list of one; a prompt that was blocked; an account or a request at fault.
fn fault_in(answer: &Value) -> Option<ApiFault> {
    let body = answer.get(0).unwrap_or(answer);
    if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
        let code = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        return Some(explain_value(code.filter(|code| (400..600).contains(code)).unwrap_or(500), body));
    }
    let word = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
    if let Some(reason) = word("/promptFeedback/blockReason") {
        let message = word("/promptFeedback/blockReasonMessage").unwrap_or("the prompt was blocked");
        return Some(fault(FaultKind::Refused, &format!("{reason}: {message}")));
    }
    let reason = word("/candidates/0/finishReason")?;
    let message = format!("{reason}: {}", word("/candidates/0/finishMessage").unwrap_or("no answer"));
    match reason {
        "MISSING_THOUGHT_SIGNATURE" => Some(fault(FaultKind::BadRequest, &message)),
        // The account is limited because of violations of the use policy.
        "PUP_LIMITED_DISABLED" => Some(fault(FaultKind::Unauthorized, &message)),
        _ => None,
    }
}

fn fault(kind: FaultKind, message: &str) -> ApiFault {
    ApiFault { kind, message: excerpt(message, MESSAGE_CHARS_MAX), parameter: None, retry_after: None }
}

/// Adds the parts that a part as it came stands for. `None`: a call without a name, or one whose arguments come in pieces
/// (`streamFunctionCallArguments`, Vertex only and off unless asked for).
fn decode_part(part: &Value, parts: &mut Vec<Part>) -> Option<()> {
    let opaque = || Part::Opaque { value: part.clone() };
    let held = |held: &str| part.as_object().is_some_and(|fields| fields.keys().all(|key| key == held));
    if let Some(call) = part.get("functionCall").filter(|call| !call.is_null()) {
        let is_piece = call.get("willContinue") == Some(&Value::Bool(true)) || call.get("partialArgs").is_some();
        let name = call.get("name").and_then(Value::as_str).filter(|_| !is_piece)?.to_owned();
        let is_plain = held("functionCall")
            && call.as_object().is_some_and(|fields| fields.keys().all(|key| key == "name" || key == "args"));
        parts.extend((!is_plain).then(opaque));
        let id = call.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let arguments = call.get("args").cloned().unwrap_or_default();
        parts.push(Part::ToolCall(ToolCall { id, name, arguments }));
    } else if let Some(text) = part.get("text").and_then(Value::as_str).filter(|_| !is_thought(part)) {
        let is_plain = held("text");
        parts.extend((!is_plain).then(opaque));
        // Empty text with a signature stays: signatures come so at the end of a stream.
        if !is_plain || !text.is_empty() {
            parts.push(Part::Text { text: text.to_owned() });
        }
    } else {
        parts.push(opaque());
    }
    Some(())
}

/// Calls come under `STOP`. A turn that the model spoiled (`MALFORMED_FUNCTION_CALL`, `UNEXPECTED_TOOL_CALL`,
/// `MALFORMED_RESPONSE`, `OTHER`) is no error here: it was counted and paid for, and the loop bounds how often it asks again.
fn stop_reason(word: Option<&str>, has_calls: bool) -> StopReason {
    match word {
        // The second could be continued by a token; being told to be shorter serves an agent better.
        Some("MAX_TOKENS" | "CONTINUATION") => StopReason::TokenLimit,
        Some(
            "SAFETY"
            | "RECITATION"
            | "LANGUAGE"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "ESCALATION"
            | "MODEL_ARMOR"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION",
        ) => StopReason::Refused,
        _ if has_calls => StopReason::ToolCalls,
        None | Some("" | "STOP" | "FINISH_REASON_UNSPECIFIED") => StopReason::EndTurn,
        Some(other) => StopReason::Other(excerpt(other, 40)),
    }
}

/// The prompt's count includes the cached tokens; thoughts are counted apart from the answer. Counts of zero are left out.
fn usage(usage: Option<&Value>) -> Usage {
    let count = |key: &str| {
        let number = usage?.get(key)?;
        number.as_u64().or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
    };
    let sum = |one: &str, other: &str| count(one).unwrap_or(0).saturating_add(count(other).unwrap_or(0));
    if count("promptTokenCount").is_none() && count("totalTokenCount").is_none() {
        return Usage { is_estimate: true, ..Usage::default() };
    }
    Usage {
        input_tokens: sum("promptTokenCount", "toolUsePromptTokenCount"),
        output_tokens: sum("candidatesTokenCount", "thoughtsTokenCount"),
        cached_input_tokens: count("cachedContentTokenCount").unwrap_or(0),
        is_estimate: false,
    }
}

/// The fragments of a streamed answer, put together to the answer that the same question has without streaming.
///
/// There is no end mark but the finish reason, and older models gave one with each fragment: so a stream is read until the
/// connection ends, and is whole when a finish reason or a blocked prompt was in it.
#[derive(Debug, Default)]
pub struct Stream {
    parts: Vec<Value>,
    /// The last candidate's fields besides its content.
    candidate: Map<String, Value>,
    /// The last of each of the answer's fields besides the candidates.
    answer: Map<String, Value>,
}

impl Stream {
    pub fn push(&mut self, event: &Event) -> Result<Progress, DecodeError> {
        let data = event.data.trim();
        // Not Google's, but gateways add it.
        if data.is_empty() || data == "[DONE]" {
            return Ok(Progress::More);
        }
        let fragment = parse_json(data.as_bytes()).ok_or_else(|| unreadable("stream", "JSON", data))?;
        if let Some(fault) = fault_in(&fragment) {
            return Err(DecodeError::Answered(fault));
        }
        if let Some(Value::Array(parts)) = fragment.pointer("/candidates/0/content/parts") {
            parts.iter().for_each(|part| self.append(part));
        }
        let given = |fields: &Map<String, Value>, without: &'static str| {
            let fields = fields.clone().into_iter();
            fields.filter(move |(key, value)| key != without && !value.is_null())
        };
        if let Some(fields) = fragment.pointer("/candidates/0").and_then(Value::as_object) {
            self.candidate.extend(given(fields, "content"));
        }
        if let Some(fields) = fragment.as_object() {
            self.answer.extend(given(fields, "candidates"));
        }
        Ok(Progress::More)
    }

    /// Text goes on with the text before it, and a thought with a thought; whatever has a signature stays a part of its own.
    fn append(&mut self, part: &Value) {
        let piece = mergeable_text(part);
        if let (Some(piece), Some(last)) = (piece, self.parts.last_mut()) {
            let is_same_kind = mergeable_text(last).is_some() && is_thought(last) == is_thought(part);
            if let Some(Value::String(whole)) = last.get_mut("text").filter(|_| is_same_kind) {
                whole.push_str(piece);
                return;
            }
        }
        self.parts.push(part.clone());
    }

    pub fn finish(mut self) -> Result<Turn, DecodeError> {
        if !self.candidate.contains_key("finishReason") {
            return Err(unreadable("stream", "a finish reason before its end", "the end of the connection"));
        }
        self.candidate.insert("content".to_owned(), json!({"parts": self.parts}));
        self.answer.insert("candidates".to_owned(), json!([self.candidate]));
        turn_of(&Value::Object(self.answer))
    }
}

/// The text of a part that has nothing else but the mark of a thought.
fn mergeable_text(part: &Value) -> Option<&str> {
    let is_bare = part.as_object()?.keys().all(|key| key == "text" || key == "thought");
    part.get("text")?.as_str().filter(|_| is_bare)
}

pub fn explain(status: u16, body: &[u8]) -> ApiFault {
    match parse_json(body) {
        Some(value) => explain_value(status, &value),
        None => fault(kind_of_status(status), &String::from_utf8_lossy(body)),
    }
}

/// `{"error": {"code", "message", "status", "details"}}`, also in a list of one; gateways send a text or a flat object.
fn explain_value(status: u16, body: &Value) -> ApiFault {
    let body = body.get(0).unwrap_or(body);
    let error = body.get("error").filter(|error| !error.is_null()).unwrap_or(body);
    let message = match error.get("message").or_else(|| body.get("detail")) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => error.as_str().map_or_else(|| body.to_string(), str::to_owned),
    };
    let details = error.get("details").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let word = error.get("status").and_then(Value::as_str).unwrap_or_default();
    let kind = kind(status, word, &message, details);
    ApiFault {
        kind,
        parameter: if kind == FaultKind::BadRequest { refused_parameter(&message) } else { None },
        message: excerpt(&message, MESSAGE_CHARS_MAX),
        retry_after: details.iter().find_map(retry_delay),
    }
}

fn kind(status: u16, word: &str, message: &str, details: &[Value]) -> FaultKind {
    // "The input token count (N) exceeds the maximum number of tokens allowed (M)." and Vertex's "the input token count is N
    // but the model only supports up to M".
    const CONTEXT_WORDS: [&str; 2] = ["exceeds the maximum number of tokens allowed", "input token count is"];
    let reason = |reason: &str| details.iter().any(|detail| detail.get("reason").is_some_and(|own| own == reason));
    let message = message.to_ascii_lowercase();
    // A wrong key comes under 400.
    if reason("API_KEY_INVALID") || message.contains("api key not valid") {
        FaultKind::Unauthorized
    } else if status == 429 && (details.iter().any(is_per_day) || message.contains("credits are depleted")) {
        FaultKind::QuotaExhausted
    } else if (400..500).contains(&status) && CONTEXT_WORDS.iter().any(|words| message.contains(words)) {
        FaultKind::ContextTooLong
    } else {
        match word {
            "UNAUTHENTICATED" | "PERMISSION_DENIED" => FaultKind::Unauthorized,
            "NOT_FOUND" => FaultKind::NotFound,
            "RESOURCE_EXHAUSTED" if status == 429 => FaultKind::RateLimited,
            "ABORTED" | "CANCELLED" | "DEADLINE_EXCEEDED" | "INTERNAL" | "UNAVAILABLE" | "UNKNOWN" => {
                FaultKind::Unavailable
            }
            _ => kind_of_status(status),
        }
    }
}

/// A `QuotaFailure` with a quota for the day, as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`: `RetryInfo` names a
/// short wait beside it all the same.
fn is_per_day(detail: &Value) -> bool {
    let violations = detail.get("violations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let quota = |violation: &Value| violation.get("quotaId").and_then(Value::as_str).map(|id| id.contains("PerDay"));
    violations.iter().filter_map(quota).any(|is_per_day| is_per_day)
}

/// `"37s"` or `"0.84s"` of a `RetryInfo`.
fn retry_delay(detail: &Value) -> Option<Duration> {
    let seconds = detail.get("retryDelay")?.as_str()?.strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The parameter to blame, where the words do not name it as we send it, or name more than one. A message about a place in
/// the contents or the tools is about that, whatever else it mentions.
fn refused_parameter(message: &str) -> Option<String> {
    for place in ["contents", "tools"] {
        if message.contains(&format!("'{place}[")) || message.contains(&format!("GenerateContentRequest.{place}")) {
            return Some(place.to_owned());
        }
    }
    // `Unknown name "x" at 'generation_config': Cannot find field.`
    if let Some((_, rest)) = message.split_once("Unknown name \"") {
        return rest.split('"').next().map(str::to_owned);
    }
    let message = message.to_ascii_lowercase();
    let is_about_thinking = ["thinking level", "thinking budget", "thinking mode", "thinking_budget", "thinking can't"];
    is_about_thinking.iter().any(|words| message.contains(words)).then(|| "thinkingConfig".to_owned())
}

fn kind_of_status(status: u16) -> FaultKind {
    match status {
        401 | 403 => FaultKind::Unauthorized,
        402 => FaultKind::QuotaExhausted,
        404 => FaultKind::NotFound,
        413 => FaultKind::ContextTooLong,
        429 => FaultKind::RateLimited,
        408 | 409 | 425 | 499 | 500 | 502..=504 | 506..=599 => FaultKind::Unavailable,
        _ => FaultKind::BadRequest,
    }
}
