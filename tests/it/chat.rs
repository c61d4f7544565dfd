//! OpenAI Chat Completions as the tests need it: answers for the scripted server, and readings of the requests it saw.
//!
//! It knows nothing of the runtime. [`flaws`] is the format's own rules; every request of every test is held to them.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::server::{Exchange, Request};

/// What every answer here says it used.
pub const INPUT_TOKENS: u64 = 60;
pub const OUTPUT_TOKENS: u64 = 40;
pub const CACHED_TOKENS: u64 = 12;

/// An answer of text alone.
pub fn text(text: &str) -> Exchange {
    message(json!({"role": "assistant", "content": text}), "stop")
}

/// One tool call, with an id of its own.
pub fn tool_call(name: &str, arguments: Value) -> Exchange {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = format!("call_test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    tool_calls(&[(&id, name, arguments)])
}

/// Several tool calls in one turn: id, name, arguments.
pub fn tool_calls(calls: &[(&str, &str, Value)]) -> Exchange {
    let calls: Vec<Value> =
        calls.iter().map(|(id, name, arguments)| call(id, name, json!(arguments.to_string()))).collect();
    message(json!({"role": "assistant", "content": null, "tool_calls": calls}), "tool_calls")
}

/// A call of `finish` with these arguments.
pub fn finish(arguments: Value) -> Exchange {
    tool_call("finish", arguments)
}

/// The call of `finish` that ends a run well: each of `key_results` met, with evidence.
pub fn achieved(key_results: usize) -> Exchange {
    finish(achieved_arguments(key_results))
}

pub fn achieved_arguments(key_results: usize) -> Value {
    let key_results: Vec<Value> = (1..=key_results).map(|number| met(number, "seen with my own eyes")).collect();
    json!({"status": "achieved", "summary": "All is done.", "key_results": key_results})
}

pub fn met(number: usize, evidence: &str) -> Value {
    json!({"key_result": number, "met": true, "evidence": evidence})
}

/// One entry of `tool_calls`; the arguments as they are, so that they can be of any shape.
pub fn call(id: &str, name: &str, arguments: Value) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// An answer whose message is given.
pub fn message(message: Value, finish_reason: &str) -> Exchange {
    completion(json!([{"index": 0, "finish_reason": finish_reason, "message": message}]), usage())
}

/// An answer whose choices and usage are given; usage `null` is left out.
pub fn completion(choices: Value, usage: Value) -> Exchange {
    let mut body =
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "test", "choices": choices});
    if !usage.is_null() {
        body["usage"] = usage;
    }
    Exchange::json(200, &body)
}

pub fn usage() -> Value {
    json!({
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
    })
}

/// An error as OpenAI words it.
pub fn error(status: u16, kind: &str, code: Value, param: Value, message: &str) -> Exchange {
    Exchange::json(status, &json!({"error": {"message": message, "type": kind, "code": code, "param": param}}))
}

/// A failure that is worth another try, at once.
pub fn unavailable(status: u16) -> Exchange {
    error(status, "server_error", Value::Null, Value::Null, "try again").header("retry-after-ms", "1")
}

impl Request {
    pub fn is_chat(&self) -> bool {
        self.path.split('?').next().is_some_and(|path| path.ends_with("/chat/completions"))
    }

    pub fn messages(&self) -> Vec<Value> {
        self.json()["messages"].as_array().cloned().unwrap_or_default()
    }

    /// The text of the system message.
    pub fn system(&self) -> String {
        self.messages().first().filter(|message| message["role"] == "system").map(content).unwrap_or_default()
    }

    /// What the model is told before its first turn: system message and first user message.
    pub fn opening(&self) -> String {
        let said: Vec<String> =
            self.messages().iter().take_while(|message| message["role"] != "assistant").map(content).collect();
        said.join("\n")
    }

    /// The texts of all tool messages so far.
    pub fn tool_results(&self) -> Vec<String> {
        self.messages().iter().filter(|message| message["role"] == "tool").map(content).collect()
    }

    /// What was said to the model since its last turn: tool results and user messages.
    pub fn news(&self) -> String {
        let messages = self.messages();
        let start = messages.iter().rposition(|message| message["role"] == "assistant").map_or(0, |last| last + 1);
        let said: Vec<String> = messages.iter().skip(start).map(content).collect();
        said.join("\n")
    }

    /// The names of the tools offered, sorted.
    pub fn tool_names(&self) -> Vec<String> {
        let body = self.json();
        let tools = body["tools"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> =
            tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The parameters of an offered tool.
    pub fn tool_parameters(&self, name: &str) -> Value {
        let body = self.json();
        let tools = body["tools"].as_array().cloned().unwrap_or_default();
        let tool = tools.iter().find(|tool| tool["function"]["name"] == name);
        tool.map(|tool| tool["function"]["parameters"].clone()).unwrap_or_default()
    }
}

fn content(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}

/// What is wrong with a request body by the rules of the format and of the strictest servers that speak it.
pub fn flaws(body: &Value) -> Vec<String> {
    let mut flaws = Vec::new();
    if body["model"].as_str().is_none_or(str::is_empty) {
        flaws.push("no model".to_owned());
    }
    if body.get("tools").is_some_and(|tools| tools.as_array().is_none_or(Vec::is_empty)) {
        flaws.push("tools is not a list with an entry".to_owned());
    }
    for tool in body["tools"].as_array().into_iter().flatten() {
        let (name, parameters) = (tool["function"]["name"].as_str().unwrap_or(""), &tool["function"]["parameters"]);
        if tool["type"] != "function" || parameters["type"] != "object" || !parameters["properties"].is_object() {
            flaws.push(format!("tool {name:?} is not a function whose parameters are an object with properties"));
        }
        if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            flaws.push(format!("tool name {name:?}"));
        }
    }
    let Some(messages) = body["messages"].as_array() else { return [flaws, vec!["no messages".to_owned()]].concat() };
    let mut open: Vec<String> = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut role_before = "";
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or("");
        if role != "tool" && !open.is_empty() {
            flaws.push(format!("message {index}: tool calls {open:?} were not answered"));
            open.clear();
        }
        if role == role_before && role != "tool" {
            flaws.push(format!("message {index}: {role} follows {role}"));
        }
        match role {
            "system" if index == 0 => {}
            "user" if !content(message).trim().is_empty() => {}
            "assistant" => flaws.extend(assistant_flaws(index, message, &mut open, &mut seen)),
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or("");
                if open.first().is_some_and(|first| first == id) {
                    open.remove(0);
                } else {
                    flaws.push(format!("message {index}: answers {id:?}, open are {open:?}"));
                }
                if !message["content"].is_string() {
                    flaws.push(format!("message {index}: the content of a tool message is not text"));
                }
            }
            _ => flaws.push(format!("message {index}: role {role:?} has no place or no content here")),
        }
        role_before = role;
    }
    if !open.is_empty() {
        flaws.push(format!("tool calls {open:?} were not answered"));
    }
    if !["user", "tool"].contains(&role_before) {
        flaws.push("the last message is not the user's or a tool's".to_owned());
    }
    flaws
}

fn assistant_flaws(index: usize, message: &Value, open: &mut Vec<String>, seen: &mut Vec<String>) -> Vec<String> {
    let mut flaws = Vec::new();
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    if calls.is_empty() && (content(message).is_empty() || message.get("tool_calls").is_some()) {
        flaws.push(format!("message {index}: an assistant message without content, or an empty list of tool calls"));
    }
    for call in calls {
        let id = call["id"].as_str().unwrap_or("").to_owned();
        if id.is_empty() || seen.contains(&id) {
            flaws.push(format!("message {index}: tool call id {id:?} is empty or not unique"));
        }
        if call["type"] != "function" || !call["function"]["name"].is_string() {
            flaws.push(format!("message {index}: tool call {id:?} has no type or no name"));
        }
        if !call["function"]["arguments"].is_string() {
            flaws.push(format!("message {index}: the arguments of {id:?} are not text"));
        }
        open.push(id.clone());
        seen.push(id);
    }
    flaws
}

mod tests {
    use super::*;

    fn body(messages: Value) -> Value {
        json!({"model": "m", "messages": messages})
    }

    fn assistant(ids: &[&str]) -> Value {
        let calls: Vec<Value> = ids.iter().map(|id| call(id, "read_file", json!("{}"))).collect();
        json!({"role": "assistant", "content": null, "tool_calls": calls})
    }

    fn answer(id: &str) -> Value {
        json!({"role": "tool", "tool_call_id": id, "content": "text"})
    }

    #[test]
    fn a_sound_request_has_no_flaws() {
        let messages = json!([
            {"role": "system", "content": "s"}, {"role": "user", "content": "u"}, assistant(&["1", "2"]), answer("1"),
            answer("2"), {"role": "user", "content": "go on"}
        ]);
        assert_eq!(flaws(&body(messages)), Vec::<String>::new());
    }

    #[test]
    fn each_flaw_is_found() {
        let user = json!({"role": "user", "content": "u"});
        for (messages, what) in [
            (json!([user, assistant(&["1"]), user]), "were not answered"),
            (json!([user, assistant(&["1"])]), "were not answered"),
            (json!([user, assistant(&["1", "2"]), answer("2"), answer("1")]), "open are"),
            (json!([user, assistant(&["1", "1"]), answer("1"), answer("1")]), "not unique"),
            (json!([user, assistant(&[""]), answer("")]), "is empty"),
            (json!([user, user]), "user follows user"),
            (json!([user, {"role": "assistant", "content": ""}, user]), "without content"),
            (json!([user, {"role": "system", "content": "s"}]), "has no place"),
            (json!([user, {"role": "assistant", "content": "done"}]), "last message"),
        ] {
            let found = flaws(&body(messages.clone())).join("; ");
            assert!(found.contains(what), "{messages}: {found}");
        }
        assert!(!flaws(&json!({"model": "m", "messages": [user], "tools": []})).is_empty());
    }
}
