//! `THOUGHTMESH_MODEL_CONFIG`: which model, where, with which key.
//!
//! Two shapes: one model, or the controller's map of roles. Every spelling that the controller and its documentation use is
//! accepted. No message quotes a value.

use std::time::Duration;

use serde_json::{Map, Number, Value};

use super::Environment;
use super::read::{At, Reader, kind, shown};
use crate::secret::Secret;

/// How long one attempt may be silent, unless `timeout_seconds` says otherwise. Reasoning models think for minutes before
/// the first byte of an answer that is not streamed.
const SILENCE_DEFAULT: Duration = Duration::from_secs(600);

const VARIABLE: &str = "THOUGHTMESH_MODEL_CONFIG";
const SHAPES: &str = "an object with `provider` and `name`, or an object of roles with `worker`";
const NAME_SPELLINGS: [&str; 5] = ["name", "modelName", "model_name", "apiName", "model"];
const ENDPOINT_SPELLINGS: [&str; 4] = ["endpoint", "base_url", "baseUrl", "api_base"];
const KEY_SPELLINGS: [&str; 2] = ["api_key", "apiKey"];
const PROMPT_SPELLINGS: [&str; 2] = ["systemPrompt", "system_prompt"];
const OTHER_FIELDS: [&str; 8] =
    ["provider", "temperature", "params", "max_tokens", "context_window", "headers", "timeout_seconds", "stream"];
/// What the runtime itself says in every request.
const PARAMS_OF_OURS: [&str; 4] = ["model", "messages", "tools", "stream"];

/// Who serves the model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Provider {
    OpenAi,
    OpenAiCompatible,
    Replay,
}

impl Provider {
    /// Every accepted word; the first one of each is the provider's name.
    const WORDS: [(&'static str, Provider); 3] =
        [("openai", Provider::OpenAi), ("openai-compatible", Provider::OpenAiCompatible), ("replay", Provider::Replay)];

    fn from_word(word: &str) -> Option<Provider> {
        let word = word.to_ascii_lowercase();
        Self::WORDS.iter().find(|(known, _)| *known == word).map(|(_, provider)| *provider)
    }

    /// The provider's name as the configuration has it.
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, provider)| *provider == self).map_or("?", |(word, _)| word)
    }

    /// The environment variables that may hold the key and the base URL.
    fn variables(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Provider::OpenAi | Provider::OpenAiCompatible => (&["OPENAI_API_KEY"], &["OPENAI_BASE_URL"]),
            Provider::Replay => (&[], &[]),
        }
    }

    fn default_endpoint(self) -> Option<&'static str> {
        match self {
            // OpenAI's API reference, "Introduction", read 2026-11.
            Provider::OpenAi => Some("https://api.openai.com/v1"),
            Provider::OpenAiCompatible => None,
            Provider::Replay => Some(""),
        }
    }
}

/// One model, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub provider: Provider,
    /// The provider's name of the model; for `replay` the path of a file.
    pub name: String,
    /// Base URL without a slash at its end; empty for `replay`.
    pub endpoint: String,
    pub api_key: Option<Secret>,
    /// What a person must look at when the key is refused: the variable, and the field in it.
    pub api_key_source: String,
    pub temperature: Option<Number>,
    pub system_prompt: Option<String>,
    /// Passed to the provider as they are.
    pub params: Map<String, Value>,
    /// Limit on output tokens of one answer.
    pub max_tokens: Option<u64>,
    /// Tokens that the model can hold.
    pub context_window: Option<u64>,
    /// Further headers of each request.
    pub headers: Vec<(String, Secret)>,
    /// How long one attempt may be silent.
    pub silence: Duration,
    /// Whether answers come in pieces, where the provider can do that.
    pub stream: bool,
}

/// Reads the variable. `None` when something is wrong; the reader has the mistakes.
pub fn read(reader: &mut Reader, environment: &Environment) -> Option<ModelConfig> {
    let at = At::root(VARIABLE);
    let Some(text) = environment.text(reader, VARIABLE) else {
        reader.error(&at, format!("required and not set, accepted: {SHAPES}"));
        return None;
    };
    let value = reader.json(&at, &text, SHAPES)?;
    let object = reader.object(&at, &value, SHAPES)?;
    if !has_roles(object) {
        return read_model(reader, environment, &at, object);
    }
    for role in object.keys().filter(|role| *role != "worker") {
        match role.as_str() {
            "verifier" => reader.error(&at.key(role), "this version has no verifier, accepted: no such role"),
            _ => reader.warn(&at.key(&shown(role)), "a role that the runtime does not use, ignored"),
        }
    }
    let at = at.key("worker");
    match object.get("worker") {
        Some(worker) => {
            let worker = reader.object(&at, worker, "an object with `provider` and `name`")?;
            read_model(reader, environment, &at, worker)
        }
        None => {
            reader.error(&at, "required and missing, accepted: an object with `provider` and `name`");
            None
        }
    }
}

/// A map of roles holds objects; one model has its fields at the top.
fn has_roles(object: &Map<String, Value>) -> bool {
    let is_model = ["provider"].iter().chain(&NAME_SPELLINGS).any(|key| object.get(*key).is_some_and(Value::is_string));
    object.contains_key("worker") || (!is_model && object.values().any(Value::is_object))
}

fn read_model(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    object: &Map<String, Value>,
) -> Option<ModelConfig> {
    let known: Vec<&str> =
        [&NAME_SPELLINGS[..], &ENDPOINT_SPELLINGS, &KEY_SPELLINGS, &PROMPT_SPELLINGS, &OTHER_FIELDS].concat();
    reader.ignore_unknown(at, object, &known);
    let provider = read_provider(reader, at, object);
    let name = reader.text_spelled(at, object, &NAME_SPELLINGS);
    if name.is_none()
        && !reader.errors.iter().any(|error| NAME_SPELLINGS.iter().any(|key| at.key(key).path == error.path))
    {
        reader.error(
            &at.key("name"),
            format!("required and missing, accepted: a string, also as {}", NAME_SPELLINGS[1..].join(", ")),
        );
    }
    let written_endpoint = reader.text_spelled(at, object, &ENDPOINT_SPELLINGS);
    let written_key = reader.text_spelled(at, object, &KEY_SPELLINGS);
    let temperature = read_temperature(reader, at, object);
    let system_prompt = reader.text_spelled(at, object, &PROMPT_SPELLINGS);
    let params = read_params(reader, at, object);
    let max_tokens = reader.whole_number(at, object, "max_tokens", 1);
    let context_window = reader.whole_number(at, object, "context_window", 1);
    let headers = read_headers(reader, at, object);
    let silence = reader.whole_number(at, object, "timeout_seconds", 1).map_or(SILENCE_DEFAULT, Duration::from_secs);
    let stream = reader.boolean(at, object, "stream").unwrap_or(true);
    let provider = provider?;
    let endpoint = read_endpoint(reader, environment, at, provider, written_endpoint);
    let (api_key, api_key_source) = read_key(reader, environment, at, provider, written_key);
    if api_key.is_none() && provider == Provider::OpenAi && endpoint.as_deref() == provider.default_endpoint() {
        let error = format!("required and missing, accepted: a string, or the variable {api_key_source}");
        reader.error(&at.key(KEY_SPELLINGS[0]), error);
    }
    Some(ModelConfig {
        provider,
        name: name?,
        endpoint: endpoint?,
        api_key,
        api_key_source,
        temperature,
        system_prompt,
        params,
        max_tokens,
        context_window,
        headers,
        silence,
        stream,
    })
}

fn read_provider(reader: &mut Reader, at: &At, object: &Map<String, Value>) -> Option<Provider> {
    let words = Provider::WORDS.map(|(word, _)| word).join(", ");
    let at_provider = at.key("provider");
    match object.get("provider") {
        None | Some(Value::Null) => reader.error(&at_provider, format!("required and missing, accepted: {words}")),
        Some(Value::String(word)) if word.trim().is_empty() => {
            reader.error(&at_provider, format!("required and empty, accepted: {words}"));
        }
        Some(Value::String(word)) => {
            let provider = Provider::from_word(word.trim());
            if provider.is_none() {
                reader.error(&at_provider, format!("not a provider, accepted: {words}"));
            }
            return provider;
        }
        Some(other) => reader.error(&at_provider, format!("{} found, accepted: {words}", kind(other))),
    }
    None
}

/// The controller sends it as a string.
fn read_temperature(reader: &mut Reader, at: &At, object: &Map<String, Value>) -> Option<Number> {
    let number = match object.get("temperature")? {
        Value::Null => return None,
        Value::String(text) if text.trim().is_empty() => return None,
        Value::String(text) => serde_json::from_str::<Number>(text.trim()).ok(),
        Value::Number(number) => Some(number.clone()),
        _ => None,
    };
    if number.is_none() {
        reader.error(&at.key("temperature"), "not accepted, accepted: a number, also as a string");
    }
    number
}

/// The controller's type has strings only, so a string that is a JSON number or boolean becomes one.
fn read_params(reader: &mut Reader, at: &At, object: &Map<String, Value>) -> Map<String, Value> {
    let at = at.key("params");
    let Some(value) = object.get("params").filter(|value| !value.is_null()) else { return Map::new() };
    let Some(params) = reader.object(&at, value, "an object") else { return Map::new() };
    let mut plain = Map::new();
    for (key, value) in params {
        if PARAMS_OF_OURS.contains(&key.as_str()) {
            reader.error(&at.key(key), "set by the runtime itself, accepted: any other parameter of the provider");
        }
        let value = match value {
            Value::String(text) => match serde_json::from_str(text.trim()) {
                Ok(parsed @ (Value::Number(_) | Value::Bool(_))) => parsed,
                _ => value.clone(),
            },
            other => other.clone(),
        };
        plain.insert(key.clone(), value);
    }
    plain
}

fn read_headers(reader: &mut Reader, at: &At, object: &Map<String, Value>) -> Vec<(String, Secret)> {
    let at = at.key("headers");
    let Some(value) = object.get("headers").filter(|value| !value.is_null()) else { return Vec::new() };
    let Some(headers) = reader.object(&at, value, "an object of strings") else { return Vec::new() };
    let mut read = Vec::new();
    for (name, value) in headers {
        match value.as_str() {
            Some(value) if is_header_name(name) && is_header_value(value) => {
                read.push((name.clone(), Secret::new(value.trim())));
            }
            _ => reader.error(&at.key(name), "not accepted, accepted: a header name with a string of visible ASCII"),
        }
    }
    read
}

/// RFC 9110, section 5.6.2: a token.
fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn is_header_value(value: &str) -> bool {
    value.trim().bytes().all(|byte| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic())
}

fn read_endpoint(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    provider: Provider,
    written: Option<String>,
) -> Option<String> {
    let at_endpoint = at.key(ENDPOINT_SPELLINGS[0]);
    let (_, url_variables) = provider.variables();
    let from_variable = || url_variables.iter().find_map(|variable| Some((*variable, environment.lossy(variable)?)));
    if let Some(url) = written {
        return match endpoint_fault(&url) {
            None => Some(url.trim_end_matches('/').to_owned()),
            Some(fault) => {
                reader.error(&at_endpoint, fault);
                None
            }
        };
    }
    if let Some((variable, url)) = from_variable() {
        return match endpoint_fault(&url) {
            None => Some(url.trim_end_matches('/').to_owned()),
            Some(fault) => {
                reader.error(&At::root(variable), fault);
                None
            }
        };
    }
    let endpoint = provider.default_endpoint();
    if endpoint.is_none() {
        let also = url_variables.join(", ");
        reader.error(
            &at_endpoint,
            format!("required for this provider and missing, accepted: an http:// or https:// URL, also in {also}"),
        );
    }
    endpoint.map(str::to_owned)
}

/// What is wrong with a base URL. A password in it would stand in every error message, so it is not accepted.
fn endpoint_fault(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
        return Some("not accepted, accepted: a URL that begins with http:// or https://");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.contains('@') {
        return Some("has a user name or password, accepted: a URL without; use api_key or headers");
    }
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    if authority.is_empty() || authority.starts_with(':') || !is_plain || url.contains('#') {
        return Some(
            "not accepted, accepted: an http:// or https:// URL of visible ASCII with a host and without a fragment",
        );
    }
    None
}

fn read_key(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    provider: Provider,
    written: Option<String>,
) -> (Option<Secret>, String) {
    let (key_variables, _) = provider.variables();
    let at_key = at.key(KEY_SPELLINGS[0]);
    let (key, place) = match written {
        Some(key) => (Some(key), at_key),
        None => {
            let found = key_variables.iter().find_map(|variable| Some((*variable, environment.lossy(variable)?)));
            let variable =
                found.as_ref().map_or(key_variables.first().copied().unwrap_or(VARIABLE), |(variable, _)| variable);
            (found.map(|(_, key)| key), At::root(variable))
        }
    };
    let source = if place.path.is_empty() { place.variable.to_owned() } else { format!("{VARIABLE}: {}", place.path) };
    if key.as_deref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        reader.error(&place, "has characters that no HTTP header carries, accepted: visible ASCII without spaces");
        return (None, source);
    }
    (key.map(Secret::new), source)
}
