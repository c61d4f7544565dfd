//! Provider → URL, headers, wire format and parameters; and what to change when a parameter is refused. Pure.
//!
//! A provider is not a wire format: where and with which key is decided here, which JSON in `wire/`. URLs and headers are those
//! of the providers' API references and of their own libraries' sources, read 2026-11.

use serde_json::{Map, Value, json};

use crate::config::{Api, KeyForm, ModelConfig, Provider};
use crate::wire::{ApiFault, FaultKind, Options, WireFormat};

/// Where to ask, and how; without what proves who we are.
pub struct Endpoint {
    /// May hold [`PROJECT`].
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub format: WireFormat,
}

/// Stands in a URL of Vertex AI until the metadata server has told the project.
pub const PROJECT: &str = "{project}";
/// Gateways know this one best; `headers` can choose another (Claude documentation, "API versions", read 2026-11).
const ANTHROPIC_VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
/// New features of the Gemini API come here first; `parametersJsonSchema` is one.
const GEMINI_VERSION: &str = "v1beta";
const VERTEX_VERSION: &str = "v1";
/// Vertex AI in express mode, with an API key and without a project.
const VERTEX_EXPRESS_VERSION: &str = "v1beta1";
/// The names that one limit on output tokens goes by in Chat Completions: the newer models of OpenAI refuse the first, most
/// compatible servers know only the first (OpenAI's API reference, "Create chat completion", read 2026-11).
const MAX_TOKENS_NAMES: [&str; 2] = ["max_tokens", "max_completion_tokens"];

pub fn endpoint(config: &ModelConfig) -> Endpoint {
    let mut headers: Vec<(String, String)> =
        config.headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned())).collect();
    let (name, value) = ANTHROPIC_VERSION;
    if config.provider == Provider::Anthropic && !headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
        headers.push((name.to_owned(), value.to_owned()));
    }
    let format = format(config);
    Endpoint { url: url(config, format), headers, format }
}

/// The header that carries the configured key; `None` without a key, or where `headers` has its own.
pub fn key_header(config: &ModelConfig) -> Option<(String, String)> {
    let key = config.api_key.as_ref()?.reveal();
    let (name, value) = match (config.key_form, config.provider) {
        (KeyForm::Key, Provider::Anthropic) => ("x-api-key", key.to_owned()),
        (KeyForm::Key, Provider::AzureOpenAi) => ("api-key", key.to_owned()),
        (KeyForm::Key, Provider::Gemini | Provider::Vertex) => ("x-goog-api-key", key.to_owned()),
        _ => ("authorization", format!("Bearer {key}")),
    };
    let is_chosen = config.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    (!is_chosen).then(|| (name.to_owned(), value))
}

/// OpenAI itself speaks Responses: its newer models refuse tools together with reasoning on Chat Completions.
fn format(config: &ModelConfig) -> WireFormat {
    let is_openai_itself = config.provider == Provider::OpenAi && is_default_endpoint(config);
    match config.provider {
        Provider::OpenAi | Provider::AzureOpenAi | Provider::OpenAiCompatible | Provider::Replay => match config.api {
            Some(Api::Responses) => WireFormat::Responses,
            None if is_openai_itself => WireFormat::Responses,
            Some(Api::Chat) | None => WireFormat::OpenAi,
        },
        Provider::Anthropic => WireFormat::Anthropic,
        Provider::Ollama => WireFormat::Ollama,
        Provider::Gemini | Provider::Vertex => WireFormat::Gemini,
        Provider::Mistral => WireFormat::Mistral,
    }
}

fn is_default_endpoint(config: &ModelConfig) -> bool {
    config.provider.default_endpoint(&config.google.location).as_deref() == Some(config.endpoint.as_str())
}

fn url(config: &ModelConfig, format: WireFormat) -> String {
    let base = config.endpoint.as_str();
    let path = if format == WireFormat::Responses { "/responses" } else { "/chat/completions" };
    match config.provider {
        Provider::OpenAi | Provider::OpenAiCompatible | Provider::Replay => joined(base, path),
        Provider::Mistral => joined(&versioned(base, "/v1"), path),
        Provider::Anthropic => joined(&versioned(base, "/v1"), "/messages"),
        Provider::Ollama => {
            let base = base.strip_suffix("/v1").or_else(|| base.strip_suffix("/api")).unwrap_or(base);
            joined(base, "/api/chat")
        }
        Provider::AzureOpenAi => azure_url(config, path),
        Provider::Gemini => {
            let version = config.api_version.as_deref().unwrap_or(GEMINI_VERSION);
            let is_versioned = base.rsplit('/').next().is_some_and(|last| last.starts_with("v1"));
            let base = if is_versioned { base.to_owned() } else { format!("{base}/{version}") };
            format!("{base}/models/{}{}", segment(config.name.trim_start_matches("models/")), gemini_method(config))
        }
        Provider::Vertex => vertex_url(config),
    }
}

/// The base URL with the version, unless it has it already.
fn versioned(base: &str, version: &str) -> String {
    if base.ends_with(version) || base.contains(&format!("{version}/")) {
        base.to_owned()
    } else {
        format!("{base}{version}")
    }
}

/// Classic deployments with an `api-version`, else the newer v1 path, which has the deployment in the body.
fn azure_url(config: &ModelConfig, path: &str) -> String {
    let base = config.endpoint.as_str();
    let place = base.split('?').next().unwrap_or(base);
    if place.contains("/openai/v1") || place.contains("/openai/deployments/") || base.contains("api-version=") {
        return match &config.api_version {
            Some(version) if !base.contains("api-version=") && !place.contains("/openai/v1") => {
                joined(&format!("{base}?api-version={}", segment(version)), path)
            }
            _ => joined(base, path),
        };
    }
    match &config.api_version {
        Some(version) if path == "/responses" => format!("{base}/openai/responses?api-version={}", segment(version)),
        Some(version) => {
            format!("{base}/openai/deployments/{}{path}?api-version={}", segment(&config.name), segment(version))
        }
        None => format!("{base}/openai/v1{path}"),
    }
}

fn vertex_url(config: &ModelConfig) -> String {
    let base = config.endpoint.as_str();
    let model = format!("publishers/google/models/{}{}", segment(&config.name), gemini_method(config));
    let version = config.api_version.as_deref();
    if is_express(config) {
        return format!("{base}/{}/{model}", version.unwrap_or(VERTEX_EXPRESS_VERSION));
    }
    let project = config.google.project.as_deref().unwrap_or(PROJECT);
    let location = &config.google.location;
    format!("{base}/{}/projects/{project}/locations/{location}/{model}", version.unwrap_or(VERTEX_VERSION))
}

fn is_express(config: &ModelConfig) -> bool {
    config.api_key.is_some() && config.key_form == KeyForm::Key
}

fn gemini_method(config: &ModelConfig) -> &'static str {
    // Without alt=sse a stream is one JSON array.
    if config.stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" }
}

/// A text as one segment of a path (RFC 3986, section 3.3).
fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut segment, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~@:".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
        segment
    })
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
    let format = format(config);
    let mut parameters = Map::new();
    if let Some(temperature) = &config.temperature {
        parameters.insert("temperature".to_owned(), Value::Number(temperature.clone()));
    }
    if let Some(max_tokens) = config.max_tokens {
        let [old_name, new_name] = MAX_TOKENS_NAMES;
        let is_new = config.provider == Provider::AzureOpenAi || is_default_endpoint(config);
        let name = match format {
            WireFormat::OpenAi if is_new => new_name,
            WireFormat::OpenAi | WireFormat::Mistral | WireFormat::Anthropic => old_name,
            WireFormat::Responses => "max_output_tokens",
            WireFormat::Ollama => "num_predict",
            WireFormat::Gemini => "maxOutputTokens",
        };
        parameters.insert(name.to_owned(), json!(max_tokens));
    }
    match format {
        // Without it a stream has no usage. Some servers refuse it; then it is dropped like any other parameter.
        WireFormat::OpenAi if config.stream => {
            parameters.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        // What a stateless conversation hands back; older models have nothing of the kind and refuse to be asked.
        WireFormat::Responses => {
            parameters.insert("include".to_owned(), json!(["reasoning.encrypted_content"]));
        }
        _ => {}
    }
    for (name, value) in &config.params {
        match (format, name.as_str()) {
            (WireFormat::Responses, "reasoning_effort") => {
                parameters.insert("reasoning".to_owned(), json!({"effort": value}))
            }
            (WireFormat::Responses, "max_tokens") => parameters.insert("max_output_tokens".to_owned(), value.clone()),
            (WireFormat::Ollama, "max_tokens") => parameters.insert("num_predict".to_owned(), value.clone()),
            _ => parameters.insert(name.clone(), value.clone()),
        };
    }
    Options { model: config.name.clone(), parameters, stream: config.stream }
}

/// Drops or renames the parameter that the provider refuses, if it is one that we sent. `refused` remembers the names for
/// the run, so that each is tried once. Says what was changed; `None`: nothing of ours is to blame.
pub fn without_refused(
    format: WireFormat,
    options: &mut Options,
    refused: &mut Vec<String>,
    fault: &ApiFault,
) -> Option<String> {
    if fault.kind != FaultKind::BadRequest {
        return None;
    }
    let name = options.parameters.keys().find(|name| is_named(fault, name))?.clone();
    let value = options.parameters.shift_remove(&name)?;
    refused.push(name.clone());
    let other = MAX_TOKENS_NAMES.iter().find(|other| MAX_TOKENS_NAMES.contains(&name.as_str()) && **other != name);
    // Only Chat Completions knows the limit by two names.
    let other = other.filter(|_| format == WireFormat::OpenAi);
    match other.filter(|other| !refused.iter().any(|name| name == *other)) {
        Some(other) => {
            options.parameters.insert((*other).to_owned(), value);
            Some(format!("`{name}` is refused, sent as `{other}` from now on"))
        }
        None => Some(format!("`{name}` is refused, not sent from now on")),
    }
}

/// By the field that is there for it, else by the whole word in the message. Providers name a parameter in their own
/// spelling, such as `topP` for `top_p`.
fn is_named(fault: &ApiFault, name: &str) -> bool {
    let plain = |word: &str| word.replace('_', "").to_ascii_lowercase();
    let name = plain(name);
    match &fault.parameter {
        Some(parameter) => plain(parameter) == name || parameter.split(['.', '[']).any(|part| plain(part) == name),
        None => fault.message.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| plain(word) == name),
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
        assert!(
            without_refused(WireFormat::OpenAi, &mut options, &mut refused, &fault(Some("max_tokens"), "")).is_some()
        );
        assert_eq!(options.parameters, options_of(json!({"max_completion_tokens": 5})).parameters);
        assert!(
            without_refused(WireFormat::OpenAi, &mut options, &mut refused, &fault(Some("max_completion_tokens"), ""))
                .is_some()
        );
        assert!(options.parameters.is_empty());
    }

    #[test]
    fn a_parameter_is_found_in_the_message_as_a_whole_word_only() {
        let mut options = options_of(json!({"top_p": 1, "top": 2}));
        let message = "Unsupported value: 'top_p'";
        assert!(without_refused(WireFormat::OpenAi, &mut options, &mut Vec::new(), &fault(None, message)).is_some());
        assert_eq!(options.parameters, options_of(json!({"top": 2})).parameters);
    }

    #[test]
    fn a_parameter_that_we_did_not_send_changes_nothing() {
        let mut options = options_of(json!({"temperature": 0.2}));
        assert!(
            without_refused(WireFormat::OpenAi, &mut options, &mut Vec::new(), &fault(Some("messages"), "temperature"))
                .is_none()
        );
    }
}
