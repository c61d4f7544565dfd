//! MCP: JSON-RPC envelopes and the few messages of the protocol that we send and read. Pure.
//!
//! There are two protocols (specification, read 2026-11): the one of 2024-11-05 to 2025-11-25 begins with `initialize`; the
//! one of 2026-07-28 has no beginning, every request says in `_meta` who asks. Which of them a server speaks is found out in
//! `tools/mcp`. What may surprise: nothing that a server sends is an error here as long as it can be read at all; what is
//! missing or odd in a list or a result is made the best of, because it is somebody else's program that wrote it.

use serde_json::{Map, Value, json};

/// The protocol without a beginning.
pub const MODERN: &str = "2026-07-28";
/// The versions of the older protocol, the newest first.
pub const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
/// A header of the modern protocol does not fit the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// The server wants a capability that we did not declare.
pub const CAPABILITY_MISSING: i64 = -32021;
/// The server does not speak this version; which it does stands in `data.supported`.
pub const VERSION_UNSUPPORTED: i64 = -32022;

const META: &str = "_meta";
const HEADER_KEYWORD: &str = "x-mcp-header";

/// Which of the two protocols.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Era {
    Legacy,
    Modern,
}

/// Something that a server sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// An answer to a request of ours; an error without `id` answers one that the server could not read.
    Response {
        id: Option<u64>,
        outcome: Result<Value, RpcError>,
    },
    /// The server asks; it waits for an answer with this id.
    Request {
        id: Value,
        method: String,
    },
    Notification {
        method: String,
        params: Value,
    },
}

/// A JSON-RPC error.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
    pub data: Value,
}

/// The messages in a line, a body or an event: one, or several in the batches of 2025-03-26. `None`: this is not MCP.
pub fn read(bytes: &[u8]) -> Option<Vec<Message>> {
    let messages: Vec<Message> = match serde_json::from_slice(bytes).ok()? {
        Value::Array(values) => values.into_iter().filter_map(read_one).collect(),
        value => read_one(value).into_iter().collect(),
    };
    (!messages.is_empty()).then_some(messages)
}

fn read_one(mut value: Value) -> Option<Message> {
    if value.get("jsonrpc")? != "2.0" {
        return None;
    }
    let id = value.get("id").filter(|id| !id.is_null()).cloned();
    if let Some(method) = value.get("method").and_then(Value::as_str).map(str::to_owned) {
        return Some(match id {
            Some(id) => Message::Request { id, method },
            None => Message::Notification { method, params: value["params"].take() },
        });
    }
    // Some servers give a number back as text.
    let id = id.and_then(|id| id.as_u64().or_else(|| id.as_str()?.parse().ok()));
    if let Some(error) = value.get_mut("error").filter(|error| error.is_object()) {
        let message = error["message"].as_str().unwrap_or_default().to_owned();
        let code = error["code"].as_i64().unwrap_or_default();
        return Some(Message::Response { id, outcome: Err(RpcError { code, message, data: error["data"].take() }) });
    }
    let result = value.get_mut("result")?.take();
    id.map(|id| Message::Response { id: Some(id), outcome: Ok(result) })
}

/// A request as one line; `params` is an object.
pub fn request(era: Era, id: u64, method: &str, mut params: Value) -> Vec<u8> {
    if era == Era::Modern {
        params[META]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
        params[META]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        params[META]["io.modelcontextprotocol/clientInfo"] = client_info();
    }
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into_bytes()
}

pub fn notification(method: &str, params: Value) -> Vec<u8> {
    let mut message = json!({"jsonrpc": "2.0", "method": method});
    if !params.is_null() {
        message["params"] = params;
    }
    message.to_string().into_bytes()
}

fn client_info() -> Value {
    json!({"name": "thoughtmesh-runtime", "version": env!("CARGO_PKG_VERSION")})
}

/// What `initialize` is asked with.
pub fn initialize_params(has_roots: bool) -> Value {
    let capabilities = if has_roots { json!({"roots": {}}) } else { json!({}) };
    json!({"protocolVersion": LEGACY[0], "capabilities": capabilities, "clientInfo": client_info()})
}

/// What `tools/call` is asked with. `wanted` is what a server wants back that needed another try.
pub fn call_params(id: u64, name: &str, arguments: &Map<String, Value>, wanted: &Wanted) -> Value {
    let mut params = json!({"name": name, "arguments": arguments, META: {"progressToken": id}});
    if let Some(state) = &wanted.state {
        params["requestState"] = json!(state);
    }
    if !wanted.answers.is_empty() {
        params["inputResponses"] = json!(wanted.answers);
    }
    params
}

/// The answer to a request of the server's. `roots` are the URIs of the directories that it may know of, if it was told
/// that there are some.
pub fn answer(id: &Value, method: &str, roots: &[String]) -> Vec<u8> {
    let answer = match method {
        "ping" => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
        "roots/list" if !roots.is_empty() => {
            let roots: Vec<Value> = roots.iter().map(|uri| json!({"uri": uri})).collect();
            json!({"jsonrpc": "2.0", "id": id, "result": {"roots": roots}})
        }
        _ => {
            let error = json!({"code": METHOD_NOT_FOUND, "message": "this client does not offer that"});
            json!({"jsonrpc": "2.0", "id": id, "error": error})
        }
    };
    answer.to_string().into_bytes()
}

/// `file://` and the path, as a URI.
pub fn file_uri(path: &str) -> String {
    path.bytes().fold("file://".to_owned(), |mut uri, byte| {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
        uri
    })
}

/// What is known of a server after the beginning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peer {
    pub version: String,
    pub has_tools: bool,
    /// It says when its list of tools changes.
    pub tells_changes: bool,
}

/// The result of `initialize`. `None`: it is none.
pub fn read_initialized(result: &Value) -> Option<Peer> {
    Some(Peer { version: result.get("protocolVersion")?.as_str()?.to_owned(), ..peer(result) })
}

/// The result of `server/discover`: the server, and the versions that it speaks. `None`: it is none.
pub fn read_discovered(result: &Value) -> Option<(Peer, Vec<String>)> {
    let versions = result.get("supportedVersions")?.as_array()?;
    Some((Peer { version: MODERN.to_owned(), ..peer(result) }, texts(versions)))
}

fn peer(result: &Value) -> Peer {
    let tools = result.get("capabilities").and_then(|capabilities| capabilities.get("tools"));
    let tells_changes = tools.and_then(|tools| tools.get("listChanged")).and_then(Value::as_bool);
    Peer {
        version: String::new(),
        has_tools: tools.is_some_and(|tools| !tools.is_null()),
        tells_changes: tells_changes.unwrap_or_default(),
    }
}

/// The versions that an error says are spoken.
pub fn versions_in(error: &RpcError) -> Vec<String> {
    error.data.get("supported").and_then(Value::as_array).map(|versions| texts(versions)).unwrap_or_default()
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether a server that refuses `initialize` so may speak the modern protocol.
pub fn looks_modern(error: &RpcError) -> bool {
    matches!(error.code, VERSION_UNSUPPORTED | METHOD_NOT_FOUND | INVALID_PARAMS)
        || error.message.contains(MODERN)
        || versions_in(error).iter().any(|version| version == MODERN)
}

/// A tool of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: String,
    /// JSON Schema of an object, as the server has it.
    pub parameters: Value,
    /// The server says that calling it twice does no harm.
    pub is_repeatable: bool,
    /// It can only be called in a way that we do not offer.
    pub needs_task: bool,
    /// Arguments that go into headers too, or what is wrong with how they are declared.
    pub mirrored: Result<Vec<Mirrored>, String>,
}

/// An argument that goes into a header too.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirrored {
    header: String,
    /// The names that lead to it.
    path: Vec<String>,
}

/// One page of the list, and the cursor of the next one.
pub fn read_page(mut result: Value) -> Option<(Vec<Tool>, Option<String>)> {
    let next = result.get("nextCursor").and_then(Value::as_str).filter(|cursor| !cursor.is_empty()).map(str::to_owned);
    let Value::Array(tools) = result.get_mut("tools")?.take() else { return None };
    Some((tools.into_iter().filter_map(read_tool).collect(), next))
}

fn read_tool(mut tool: Value) -> Option<Tool> {
    let text = |key: &str| tool.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = text("name")?.to_owned();
    let description = text("description").or_else(|| text("title")).unwrap_or_default().to_owned();
    let hint = |key: &str| tool.get("annotations").and_then(|hints| hints.get(key)) == Some(&Value::Bool(true));
    let is_repeatable = hint("readOnlyHint") || hint("idempotentHint");
    let needs_task =
        tool.get("execution").and_then(|execution| execution.get("taskSupport")) == Some(&json!("required"));
    let parameters = object_schema(tool.get_mut("inputSchema").map(Value::take).unwrap_or_default());
    let mut mirrored = Vec::new();
    let found = find_mirrored(&parameters, Some(&[]), &mut mirrored);
    Some(Tool { name, description, is_repeatable, needs_task, mirrored: found.map(|()| mirrored), parameters })
}

/// The schema as it is; what is none becomes that of an object without known properties. Providers want to see `type` and
/// `properties` at the root.
fn object_schema(schema: Value) -> Value {
    let Value::Object(mut fields) = schema else { return json!({"type": "object", "properties": {}}) };
    fields.entry("type").or_insert(json!("object"));
    fields.entry("properties").or_insert(json!({}));
    Value::Object(fields)
}

/// Collects the properties that are declared to go into a header. `path` is `None` where only more than `properties` leads
/// to. Fails with what is wrong with a declaration.
fn find_mirrored(schema: &Value, path: Option<&[String]>, found: &mut Vec<Mirrored>) -> Result<(), String> {
    // As deep as serde_json reads, so this recursion is bounded.
    let fields = match schema {
        Value::Object(fields) => fields,
        Value::Array(schemas) => return schemas.iter().try_for_each(|schema| find_mirrored(schema, None, found)),
        _ => return Ok(()),
    };
    if let Some(header) = fields.get(HEADER_KEYWORD) {
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name = header.as_str().filter(|name| !name.is_empty() && name.chars().all(is_token));
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
        let (Some(name), Some(path)) = (name, path) else {
            return Err(format!("{HEADER_KEYWORD} {header} stands where it may not, or is no name"));
        };
        if !["string", "integer", "boolean"].contains(&kind) {
            return Err(format!("{HEADER_KEYWORD} {header} is on a value that fits no header"));
        }
        if found.iter().any(|other| other.header.eq_ignore_ascii_case(name)) {
            return Err(format!("{HEADER_KEYWORD} {header} is there twice"));
        }
        found.push(Mirrored { header: name.to_owned(), path: path.to_vec() });
    }
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    let path = path.map(|path| [path, std::slice::from_ref(name)].concat());
                    find_mirrored(property, path.as_deref(), found)?;
                }
            }
            // Names with schemas.
            ("$defs" | "definitions" | "patternProperties" | "dependentSchemas", Value::Object(schemas)) => {
                schemas.values().try_for_each(|schema| find_mirrored(schema, None, found))?;
            }
            // Data.
            ("enum" | "const" | "default" | "examples" | "example" | HEADER_KEYWORD, _) => {}
            (_, schemas) => find_mirrored(schemas, None, found)?,
        }
    }
    Ok(())
}

/// The headers of a request of the modern protocol, beside those that every request has.
pub fn headers(method: &str, name: Option<&str>) -> Vec<(String, String)> {
    let mut headers =
        vec![("MCP-Protocol-Version".to_owned(), MODERN.to_owned()), ("Mcp-Method".to_owned(), method.to_owned())];
    headers.extend(name.map(|name| ("Mcp-Name".to_owned(), header_value(name))));
    headers
}

/// The headers of arguments that go into one.
pub fn mirrored_headers(mirrored: &[Mirrored], arguments: &Map<String, Value>) -> Vec<(String, String)> {
    let header = |one: &Mirrored| {
        let (first, rest) = one.path.split_first()?;
        let value = rest.iter().try_fold(arguments.get(first)?, |value, name| value.get(name))?;
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(is_true) => is_true.to_string(),
            Value::Number(number) => match number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15) {
                Some(whole) => (whole as i64).to_string(),
                None => number.to_string(),
            },
            Value::Null | Value::Array(_) | Value::Object(_) => return None,
        };
        Some((format!("Mcp-Param-{}", one.header), header_value(&text)))
    };
    mirrored.iter().filter_map(header).collect()
}

/// A text as it may stand in a header: as it is, or as base64 between marks.
pub fn header_value(text: &str) -> String {
    const MARKS: (&str, &str) = ("=?base64?", "?=");
    let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && text.trim() == text;
    let is_marked = text.starts_with(MARKS.0) && text.ends_with(MARKS.1);
    if is_plain && !is_marked { text.to_owned() } else { format!("{}{}{}", MARKS.0, base64(text.as_bytes()), MARKS.1) }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().enumerate().fold(0_u32, |bits, (place, byte)| bits | u32::from(*byte) << (16 - 8 * place));
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place) & 63) as usize;
            text.push(if place <= group.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
    text
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Called {
    /// Text for the model, and whether the tool says that it failed.
    Done { text: String, is_error: bool },
    /// The server wants to be asked again, with this.
    Again(Wanted),
    /// The server wants something that cannot be declined.
    NeedsInput,
    /// What came is no result.
    Unreadable,
}

/// What a server wants back: its own state, and answers to what it asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    state: Option<String>,
    answers: Map<String, Value>,
}

/// Declines whatever a person would have to answer. Nothing, when something else is asked: that has no answer that says no.
fn declined(asked: &Map<String, Value>) -> Option<Map<String, Value>> {
    let decline = |(key, request): (&String, &Value)| {
        (request.get("method")? == "elicitation/create").then(|| (key.clone(), json!({"action": "decline"})))
    };
    asked.iter().map(decline).collect()
}

/// Reads the result of a call. What is not text is described.
pub fn read_called(result: &Value) -> Called {
    match result.get("resultType").and_then(Value::as_str) {
        None | Some("complete") => {}
        Some("input_required") => {
            let state = result.get("requestState").and_then(Value::as_str).map(str::to_owned);
            let answers = result.get("inputRequests").and_then(Value::as_object).map(declined);
            return match answers.unwrap_or_else(|| Some(Map::new())) {
                Some(answers) => Called::Again(Wanted { state, answers }),
                None => Called::NeedsInput,
            };
        }
        Some(_) => return Called::Unreadable,
    }
    let content = result.get("content").and_then(Value::as_array);
    let structured = result.get("structuredContent").filter(|value| !value.is_null());
    let text = match (content, structured) {
        (Some(content), structured) if structured.is_none() || !content.is_empty() => {
            content.iter().map(shown).collect::<Vec<_>>().join("\n")
        }
        (_, Some(structured)) => structured.to_string(),
        _ => return Called::Unreadable,
    };
    Called::Done { text, is_error: result.get("isError").and_then(Value::as_bool).unwrap_or_default() }
}

/// A piece of content as text.
fn shown(content: &Value) -> String {
    let text = |key: &str| content.get(key).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "text" => text("text").to_owned(),
        kind @ ("image" | "audio") => not_shown(kind, &[text("mimeType")], text("data")),
        "resource_link" => {
            let parts = [text("name"), text("uri"), text("mimeType"), text("description")];
            format!("[resource {}]", joined(&parts))
        }
        "resource" => {
            let resource = content.get("resource").unwrap_or(&Value::Null);
            let text = |key: &str| resource.get(key).and_then(Value::as_str);
            let parts = [text("uri").unwrap_or_default(), text("mimeType").unwrap_or_default()];
            match text("text") {
                Some(text) => format!("[resource {}]\n{text}", joined(&parts)),
                None => not_shown("resource", &parts, text("blob").unwrap_or_default()),
            }
        }
        kind => format!("[content of the type {kind:?}, not shown]"),
    }
}

fn not_shown(kind: &str, parts: &[&str], base64: &str) -> String {
    let digits = base64.bytes().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=').count();
    let bytes = format!("{} bytes", digits * 3 / 4);
    let parts: Vec<&str> = [&[kind], parts, &[bytes.as_str(), "not shown"]].concat();
    format!("[{}]", joined(&parts))
}

fn joined(parts: &[&str]) -> String {
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ")
}

/// Whether a notification of progress is about this request.
pub fn is_progress_of(id: u64, params: &Value) -> bool {
    let token = params.get("progressToken");
    token.is_some_and(|token| token.as_u64() == Some(id) || token.as_str() == Some(&id.to_string()))
}

/// What a server wants to be logged, and whether it is more than a remark.
pub fn logged(params: &Value) -> (String, bool) {
    let level = params.get("level").and_then(Value::as_str).unwrap_or_default();
    let text = match params.get("data") {
        Some(Value::String(text)) => text.clone(),
        Some(data) => data.to_string(),
        None => String::new(),
    };
    (text, !["debug", "info", "notice"].contains(&level))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, check_property};

    fn text(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn one(message: &Value) -> Option<Message> {
        read(message.to_string().as_bytes()).map(|mut messages| messages.remove(0))
    }

    fn tool_of(tool: Value) -> Tool {
        read_page(json!({"tools": [tool]})).unwrap().0.remove(0)
    }

    fn told(result: &Value) -> (String, bool) {
        match read_called(result) {
            Called::Done { text, is_error } => (text, is_error),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_is_a_request_a_notification_or_a_response() {
        let ok = Message::Response { id: Some(7), outcome: Ok(json!({})) };
        assert_eq!(one(&json!({"jsonrpc": "2.0", "id": 7, "result": {}})), Some(ok.clone()));
        assert_eq!(one(&json!({"jsonrpc": "2.0", "id": "7", "result": {}})), Some(ok));
        let error = RpcError { code: -32601, message: "no".to_owned(), data: Value::Null };
        let refused = |id| Some(Message::Response { id, outcome: Err(error.clone()) });
        let body = json!({"code": -32601, "message": "no"});
        assert_eq!(one(&json!({"jsonrpc": "2.0", "id": 1, "error": body})), refused(Some(1)));
        assert_eq!(one(&json!({"jsonrpc": "2.0", "id": null, "error": body})), refused(None));
        let ping = Message::Request { id: json!("p"), method: "ping".to_owned() };
        assert_eq!(one(&json!({"jsonrpc": "2.0", "id": "p", "method": "ping"})), Some(ping));
        let note = Message::Notification { method: "x".to_owned(), params: json!([1]) };
        assert_eq!(one(&json!({"jsonrpc": "2.0", "method": "x", "params": [1]})), Some(note));
        assert_eq!(read(br#"[{"jsonrpc":"2.0","method":"a"},5,{"jsonrpc":"2.0","method":"b"}]"#).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_message_is_nothing() {
        for bytes in
            ["", "hello", "{}", "[]", "5", "{\"id\":1,\"result\":{}}", "{\"jsonrpc\":\"2.0\",\"id\":1}", "<html>"]
        {
            assert_eq!(read(bytes.as_bytes()), None, "{bytes}");
        }
    }

    #[test]
    fn a_modern_request_says_who_asks() {
        let asked = text(&request(Era::Modern, 3, "tools/call", call_params(3, "t", &Map::new(), &Wanted::default())));
        let meta = &asked["params"]["_meta"];
        assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], MODERN);
        assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
        assert_eq!((&meta["progressToken"], &asked["params"]["arguments"]), (&json!(3), &json!({})));
        let asked = text(&request(Era::Legacy, 1, "initialize", initialize_params(false)));
        assert_eq!(asked["params"]["protocolVersion"], LEGACY[0]);
        assert!(asked["params"]["_meta"].is_null() && asked["params"]["capabilities"] == json!({}));
    }

    #[test]
    fn a_schema_stays_as_it_is_or_becomes_that_of_an_object() {
        let rich =
            json!({"$schema": "x", "type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {}}});
        let schema = |schema: &Value| tool_of(json!({"name": "t", "inputSchema": schema})).parameters.to_string();
        assert_eq!(schema(&rich), rich.to_string());
        let bare = json!({"type": "object", "properties": {}}).to_string();
        for odd in [json!(null), json!(true), json!([]), json!({"type": "object"})] {
            assert_eq!(schema(&odd), bare, "{odd}");
        }
        assert_eq!(tool_of(json!({"name": "t"})).parameters.to_string(), bare);
    }

    #[test]
    fn a_page_is_read_as_far_as_it_makes_sense() {
        let page = json!({"nextCursor": "n", "tools": [{"name": "a", "title": "A"}, {"name": ""}, {}, 5,
            {"name": "b", "description": "does b", "annotations": {"idempotentHint": true}, "execution": {"taskSupport": "required"}}]});
        let (tools, next) = read_page(page).unwrap();
        let [a, b] = &tools[..] else { panic!("{tools:?}") };
        assert_eq!((a.description.as_str(), a.is_repeatable, a.needs_task), ("A", false, false));
        assert_eq!((b.description.as_str(), b.is_repeatable, b.needs_task), ("does b", true, true));
        assert_eq!(next.as_deref(), Some("n"));
        assert_eq!(read_page(json!({"tools": [], "nextCursor": ""})), Some((Vec::new(), None)));
        assert_eq!(read_page(json!({"tools": {}})), None);
    }

    #[test]
    fn arguments_are_mirrored_where_the_schema_says_so() {
        let schema = json!({"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}, "count": {"type": "integer", "x-mcp-header": "Count"},
            "deep": {"type": "object", "properties": {"dry": {"type": "boolean", "x-mcp-header": "Dry-Run"}}},
            "data": {"default": {"x-mcp-header": ""}}, "x-mcp-header": {"type": "string"}
        }});
        let mirrored = tool_of(json!({"name": "t", "inputSchema": schema})).mirrored.unwrap();
        let headers = |arguments: Value| {
            let headers = mirrored_headers(&mirrored, arguments.as_object().unwrap());
            headers.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        let all = json!({"region": "eu", "count": 5.0, "deep": {"dry": false}, "x-mcp-header": "no"});
        assert_eq!(headers(all), ["Mcp-Param-Region: eu", "Mcp-Param-Count: 5", "Mcp-Param-Dry-Run: false"]);
        assert!(headers(json!({"region": null, "deep": 5})).is_empty());
    }

    #[test]
    fn a_wrong_declaration_of_a_header_is_found() {
        let text = |header: Value| json!({"type": "string", "x-mcp-header": header});
        for properties in [
            json!({"a": text(json!(""))}),
            json!({"a": text(json!("a b"))}),
            json!({"a": text(json!(5))}),
            json!({"a": text(json!("X")), "b": text(json!("x"))}),
            json!({"a": {"type": "number", "x-mcp-header": "X"}}),
            json!({"a": {"type": "object", "x-mcp-header": "X"}}),
            json!({"a": {"type": "array", "items": text(json!("X"))}}),
            json!({"a": {"anyOf": [text(json!("X"))]}}),
        ] {
            let tool = tool_of(json!({"name": "t", "inputSchema": {"properties": properties}}));
            assert!(tool.mirrored.is_err(), "{properties}");
        }
        let elsewhere = json!({"$defs": {"a": text(json!("X"))}});
        assert!(tool_of(json!({"name": "t", "inputSchema": elsewhere})).mirrored.is_err());
    }

    #[test]
    fn a_header_holds_any_text() {
        for plain in ["a", "two words", "a/b.c", "=?x?=", ""] {
            assert_eq!(header_value(plain), plain);
        }
        // GNU base64.
        for (text, encoded) in
            [(" a", "IGE="), ("é", "w6k="), ("a\nb", "YQpi"), ("=?base64?YQ==?=", "PT9iYXNlNjQ/WVE9PT89")]
        {
            assert_eq!(header_value(text), format!("=?base64?{encoded}?="));
        }
    }

    #[test]
    fn content_that_is_not_text_is_described() {
        let content = json!([
            {"type": "text", "text": "one"}, {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
            {"type": "resource_link", "uri": "file:///a", "name": "a"}, {"type": "hologram"},
            {"type": "resource", "resource": {"uri": "file:///b", "text": "two"}},
            {"type": "resource", "resource": {"uri": "file:///c", "mimeType": "x/y", "blob": "AAAA"}}
        ]);
        let expected = "one\n[image, image/png, 5 bytes, not shown]\n[resource a, file:///a]\n\
            [content of the type \"hologram\", not shown]\n[resource file:///b]\ntwo\n\
            [resource, file:///c, x/y, 3 bytes, not shown]";
        assert_eq!(told(&json!({"content": content, "isError": true})), (expected.to_owned(), true));
    }

    #[test]
    fn structured_content_stands_in_for_text() {
        let both = json!({"content": [{"type": "text", "text": "t"}], "structuredContent": {"a": 1}});
        assert_eq!(told(&both), ("t".to_owned(), false));
        assert_eq!(told(&json!({"structuredContent": {"a": 1}})).0, "{\"a\":1}");
        assert_eq!(told(&json!({"content": [], "structuredContent": [1]})).0, "[1]");
        assert_eq!(told(&json!({"content": []})).0, "");
        for odd in [json!({}), json!(null), json!({"content": 5}), json!({"resultType": "later", "content": []})] {
            assert_eq!(read_called(&odd), Called::Unreadable, "{odd}");
        }
    }

    #[test]
    fn a_path_becomes_a_uri() {
        assert_eq!(file_uri("/work space/é"), "file:///work%20space/%C3%A9");
    }

    #[test]
    fn bytes_of_any_kind_do_not_panic() {
        let page = json!({"tools": [{"name": "t", "inputSchema": {"properties": {"a": {"x-mcp-header": "X"}}}}]});
        let sound = json!({"jsonrpc": "2.0", "id": 1, "result": page}).to_string().into_bytes();
        check_property(2_000, |random: &mut Random| {
            let mut bytes = sound.clone();
            for _ in 0..random.below(4) + 1 {
                let place = random.below(bytes.len());
                bytes[place] = random.pick(b"\"{}[],:0antx\\\xff");
            }
            for message in read(&bytes).unwrap_or_default() {
                if let Message::Response { outcome: Ok(result), .. } = message {
                    read_called(&result);
                    read_initialized(&result);
                    read_discovered(&result);
                    read_page(result);
                }
            }
        });
    }
}
