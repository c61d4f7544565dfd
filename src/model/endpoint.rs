//! Provider → URL, headers, wire format and parameters; and what to change when a parameter is refused. Pure.
//!
//! A provider is not a wire format: where and with which key is decided here, which JSON in `wire/`.

use serde_json::{Map, Value, json};

use crate::config::{ModelConfig, Provider};
use crate::wire::{ApiFault, FaultKind, Options, WireFormat};

/// Where to ask, and how.
pub struct Endpoint {
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub format: WireFormat,
}

/// The names that one limit on output tokens goes by: the newer models of OpenAI refuse the first, most compatible servers
/// know only the first (OpenAI's API reference, "Create chat completion", read 2026-11).
const MAX_TOKENS_NAMES: [&str; 2] = ["max_tokens", "max_completion_tokens"];

pub fn endpoint(config: &ModelConfig) -> Endpoint {
    let mut headers: Vec<(String, String)> =
        config.headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
    let is_chosen = |name: &str| config.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    if let Some(key) = config.api_key.as_ref().filter(|_| !is_chosen("authorization")) {
        headers.push(("authorization".to_owned(), format!("Bearer {}", key.reveal())));
    }
    Endpoint { url: joined(&config.endpoint, "/chat/completions"), headers, format: WireFormat::OpenAi }
}

/// The base URL keeps its own path, with `/v1` or without, and its query; a URL that is complete already stays as it is.
fn joined(base: &str, path: &str) -> String {
    let (place, query) = match base.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (base, String::new()),
    };
    let place = place.trim_end_matches('/');
    if place.ends_with(path) { format!("{place}{query}") } else { format!("{place}{path}{query}") }
}

/// What is sent besides the conversation. `params` stand last: who wrote them knows the provider.
pub fn options(config: &ModelConfig) -> Options {
    let mut parameters = Map::new();
    if let Some(temperature) = &config.temperature {
        parameters.insert("temperature".to_owned(), Value::Number(temperature.clone()));
    }
    if let Some(max_tokens) = config.max_tokens {
        let is_openai_itself = config.provider == Provider::OpenAi && config.endpoint.contains("api.openai.com");
        parameters.insert(MAX_TOKENS_NAMES[usize::from(is_openai_itself)].to_owned(), json!(max_tokens));
    }
    if config.stream {
        // Without it a stream has no usage. Some servers refuse it; then it is dropped like any other parameter.
        parameters.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    parameters.extend(config.params.clone());
    Options { model: config.name.clone(), parameters, stream: config.stream }
}

/// Drops or renames the parameter that the provider refuses, if it is one that we sent. `refused` remembers the names for
/// the run, so that each is tried once. Says what was changed; `None`: nothing of ours is to blame.
pub fn without_refused(options: &mut Options, refused: &mut Vec<String>, fault: &ApiFault) -> Option<String> {
    if fault.kind != FaultKind::BadRequest {
        return None;
    }
    let name = options.parameters.keys().find(|name| is_named(fault, name))?.clone();
    let value = options.parameters.shift_remove(&name)?;
    refused.push(name.clone());
    let other = MAX_TOKENS_NAMES.iter().find(|other| MAX_TOKENS_NAMES.contains(&name.as_str()) && **other != name);
    match other.filter(|other| !refused.iter().any(|name| name == *other)) {
        Some(other) => {
            options.parameters.insert((*other).to_owned(), value);
            Some(format!("`{name}` is refused, sent as `{other}` from now on"))
        }
        None => Some(format!("`{name}` is refused, not sent from now on")),
    }
}

/// By the field that is there for it, else by the whole word in the message.
fn is_named(fault: &ApiFault, name: &str) -> bool {
    match &fault.parameter {
        Some(parameter) => parameter == name || parameter.split(['.', '[']).next() == Some(name),
        None => fault.message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_keeps_its_own_path_and_query() {
        for (base, url) in [
            ("http://h/v1", "http://h/v1/chat/completions"),
            ("http://h:8000", "http://h:8000/chat/completions"),
            ("http://h/a/b/?x=1", "http://h/a/b/chat/completions?x=1"),
            ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ] {
            assert_eq!(joined(base, "/chat/completions"), url);
        }
    }

    fn fault(parameter: Option<&str>, message: &str) -> ApiFault {
        ApiFault {
            kind: FaultKind::BadRequest,
            message: message.to_owned(),
            parameter: parameter.map(str::to_owned),
            retry_after: None,
        }
    }

    fn options_of(parameters: Value) -> Options {
        Options {
            stream: false,
            model: "m".to_owned(),
            parameters: parameters.as_object().cloned().unwrap_or_default(),
        }
    }

    #[test]
    fn a_refused_limit_is_renamed_once_and_then_dropped() {
        let mut options = options_of(json!({"max_tokens": 5}));
        let mut refused = Vec::new();
        assert!(without_refused(&mut options, &mut refused, &fault(Some("max_tokens"), "")).is_some());
        assert_eq!(options.parameters, options_of(json!({"max_completion_tokens": 5})).parameters);
        assert!(without_refused(&mut options, &mut refused, &fault(Some("max_completion_tokens"), "")).is_some());
        assert!(options.parameters.is_empty());
    }

    #[test]
    fn a_parameter_is_found_in_the_message_as_a_whole_word_only() {
        let mut options = options_of(json!({"top_p": 1, "top": 2}));
        let message = "Unsupported value: 'top_p'";
        assert!(without_refused(&mut options, &mut Vec::new(), &fault(None, message)).is_some());
        assert_eq!(options.parameters, options_of(json!({"top": 2})).parameters);
    }

    #[test]
    fn a_parameter_that_we_did_not_send_changes_nothing() {
        let mut options = options_of(json!({"temperature": 0.2}));
        assert!(without_refused(&mut options, &mut Vec::new(), &fault(Some("messages"), "temperature")).is_none());
    }
}
