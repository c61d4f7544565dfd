//! `THOUGHTMESH_MODEL_CONFIG`: which model, where, with which key.
//!
//! Two shapes: one model, or the controller's map of roles. Every spelling that the controller and its documentation use is
//! accepted. No message quotes a value.

use std::time::Duration;

use serde_json::{Map, Number, Value};

use super::Environment;
use super::provider::{Api, KeyForm, Provider};
use super::read::{At, Reader, kind, shown};
use crate::secret::Secret;

/// How long one attempt may be silent, unless `timeout_seconds` says otherwise. Reasoning models think for minutes before
/// the first byte of an answer that is not streamed.
const SILENCE_DEFAULT: Duration = Duration::from_secs(600);

const VARIABLE: &str = "THOUGHTMESH_MODEL_CONFIG";
const SHAPES: &str = "an object with `provider` and `name`, or an object of roles with `worker`";
const MODEL_SHAPE: &str = "an object with `provider` and `name`";
/// Who pursues the objective, and who gives a second opinion on every key result.
const ROLES: [&str; 2] = ["worker", "verifier"];
const NAME_SPELLINGS: [&str; 5] = ["name", "modelName", "model_name", "apiName", "model"];
const ENDPOINT_SPELLINGS: [&str; 4] = ["endpoint", "base_url", "baseUrl", "api_base"];
const KEY_SPELLINGS: [&str; 2] = ["api_key", "apiKey"];
const PROMPT_SPELLINGS: [&str; 2] = ["systemPrompt", "system_prompt"];
const OTHER_FIELDS: [&str; 12] = [
    "provider",
    "temperature",
    "params",
    "max_tokens",
    "context_window",
    "headers",
    "timeout_seconds",
    "stream",
    "api",
    "api_version",
    "project",
    "location",
];
/// Where Google's own libraries look for a model when nobody says otherwise.
const LOCATION_DEFAULT: &str = "global";
/// Google Cloud's documentation, "About VM metadata", read 2026-11.
const METADATA_HOST_DEFAULT: &str = "metadata.google.internal";
const KEY_FILE_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The names under which providers take a limit on output tokens.
const OUTPUT_LIMIT_NAMES: [&str; 5] =
    ["max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict"];
/// What the runtime itself says in every request.
const PARAMS_OF_OURS: [&str; 9] =
    ["model", "messages", "tools", "stream", "input", "instructions", "contents", "system", "systemInstruction"];

/// One model, ready to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub provider: Provider,
    /// The provider's name of the model; for `replay` the path of a file.
    pub name: String,
    /// Base URL without a slash at its end; empty for `replay`.
    pub endpoint: String,
    pub api_key: Option<Secret>,
    pub key_form: KeyForm,
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
    /// Which of OpenAI's formats, where the configuration says so.
    pub api: Option<Api>,
    /// Azure's `api-version`; the Gemini API's `v1` or `v1beta`.
    pub api_version: Option<String>,
    pub google: Google,
}

impl ModelConfig {
    /// Makes this the limit on output tokens of one answer where there is none or a larger one, also in `params`.
    pub fn limit_output(&mut self, tokens_max: u64) {
        // Two names for one limit are refused by some providers.
        if self.max_tokens.is_some() || self.output_tokens_max().is_none() {
            self.max_tokens = Some(self.max_tokens.map_or(tokens_max, |tokens| tokens.min(tokens_max)));
        }
        let nested = self.params.iter_mut().flat_map(|(_, value)| value.as_object_mut());
        nested.for_each(|fields| limit_numbers(fields, tokens_max));
        limit_numbers(&mut self.params, tokens_max);
    }

    /// The limit on output tokens of one answer, wherever the configuration has it.
    pub fn output_tokens_max(&self) -> Option<u64> {
        output_limit(&self.params).or(self.max_tokens)
    }
}

/// A limit on output tokens among parameters, wherever it stands.
fn output_limit(fields: &Map<String, Value>) -> Option<u64> {
    let own = OUTPUT_LIMIT_NAMES.iter().filter_map(|name| fields.get(*name)?.as_u64());
    own.chain(fields.values().filter_map(|value| output_limit(value.as_object()?))).min()
}

/// A negative number stands for no limit (Ollama's documentation of `num_predict`, read 2026-11).
fn limit_numbers(fields: &mut Map<String, Value>, tokens_max: u64) {
    for (name, value) in fields.iter_mut() {
        if OUTPUT_LIMIT_NAMES.contains(&name.as_str()) && value.as_u64().is_none_or(|tokens| tokens > tokens_max) {
            *value = Value::from(tokens_max);
        }
    }
}

/// Where a model of Vertex AI lives.
#[derive(Clone, Debug, PartialEq)]
pub struct Google {
    pub project: Option<String>,
    pub location: String,
    pub metadata_host: String,
}

/// The models of the run, by role.
pub struct Models {
    pub worker: ModelConfig,
    pub verifier: Option<ModelConfig>,
}

impl Models {
    pub fn all(&self) -> impl Iterator<Item = &ModelConfig> {
        [Some(&self.worker), self.verifier.as_ref()].into_iter().flatten()
    }
}

/// Reads the variable. `None` when something is wrong; the reader has the mistakes.
pub fn read(reader: &mut Reader, environment: &Environment) -> Option<Models> {
    let at = At::root(VARIABLE);
    let Some(text) = environment.text(reader, VARIABLE) else {
        reader.error(&at, format!("required and not set, accepted: {SHAPES}"));
        return None;
    };
    let value = reader.json(&at, &text, SHAPES)?;
    let object = reader.object(&at, &value, SHAPES)?;
    if !has_roles(object) {
        let worker = read_model(reader, environment, &at, object)?;
        return Some(Models { worker, verifier: None });
    }
    for role in object.keys().filter(|role| !ROLES.contains(&role.as_str())) {
        reader.warn(&at.key(&shown(role)), "a role that the runtime does not use, ignored");
    }
    let [worker, verifier] = ROLES.map(|role| {
        let value = object.get(role).filter(|value| !value.is_null())?;
        let at = at.key(role);
        let model = reader.object(&at, value, MODEL_SHAPE)?;
        read_model(reader, environment, &at, model)
    });
    if object.get("worker").is_none_or(Value::is_null) {
        reader.error(&at.key("worker"), format!("required and missing, accepted: {MODEL_SHAPE}"));
    }
    Some(Models { worker: worker?, verifier })
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
    let params = read_params(reader, at, object, provider);
    let max_tokens = reader.whole_number(at, object, "max_tokens", 1);
    let context_window = reader.whole_number(at, object, "context_window", 1);
    let mut headers = read_headers(reader, at, object);
    let silence = reader.whole_number(at, object, "timeout_seconds", 1).map_or(SILENCE_DEFAULT, Duration::from_secs);
    let stream = reader.boolean(at, object, "stream").unwrap_or(true);
    let api = read_api(reader, at, object);
    let google = read_google(reader, environment, at, object);
    let api_version = reader.text(at, object, "api_version");
    let provider = provider?;
    let default_endpoint = provider.default_endpoint(&google.location);
    let endpoint = read_endpoint(reader, environment, at, provider, written_endpoint);
    let endpoint = endpoint.unwrap_or_else(|| {
        if default_endpoint.is_none() && !has_endpoint_error(reader, at) {
            let also = provider.url_variable().unwrap_or_default();
            let accepted = format!("an http:// or https:// URL, also in {also}");
            reader.error(
                &at.key(ENDPOINT_SPELLINGS[0]),
                format!("required for this provider and missing, accepted: {accepted}"),
            );
        }
        default_endpoint.clone().unwrap_or_default()
    });
    // As in Google's libraries, a project in the environment counts more than a key there.
    let is_vertex_project = provider == Provider::Vertex && google.project.is_some() && written_key.is_none();
    let Key { key: api_key, form: key_form, source: api_key_source } =
        read_key(reader, environment, at, provider, written_key);
    let api_key = api_key.filter(|_| !(is_vertex_project && key_form == KeyForm::Key));
    let api_version = api_version.or_else(|| version_variable(environment, provider));
    headers.extend(openai_headers(environment, provider));
    let is_default_endpoint = default_endpoint.as_ref() == Some(&endpoint);
    let is_key_missing =
        api_key.is_none() && !reader.errors.iter().any(|error| error.path == at.key(KEY_SPELLINGS[0]).path);
    if is_key_missing && provider.wants_key(is_default_endpoint) {
        let error = format!("required and missing, accepted: a string, or the variable {api_key_source}");
        reader.error(&at.key(KEY_SPELLINGS[0]), error);
    }
    if provider == Provider::Vertex && api_key.is_none() && environment.raw(KEY_FILE_VARIABLE).is_some() {
        let accepted =
            "workload identity (the metadata server), GOOGLE_OAUTH_ACCESS_TOKEN, or an API key in GOOGLE_API_KEY";
        reader.error(
            &At::root(KEY_FILE_VARIABLE),
            format!("key files are not read, accepted: not set; instead {accepted}"),
        );
    }
    Some(ModelConfig {
        provider,
        name: name?,
        endpoint,
        api_key,
        key_form,
        api_key_source,
        temperature,
        system_prompt,
        params,
        max_tokens,
        context_window,
        headers,
        silence,
        stream,
        api,
        api_version,
        google,
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
/// Tools that run at the provider can only be named here, which Anthropic's format has room for.
fn read_params(
    reader: &mut Reader,
    at: &At,
    object: &Map<String, Value>,
    provider: Option<Provider>,
) -> Map<String, Value> {
    let at = at.key("params");
    let Some(value) = object.get("params").filter(|value| !value.is_null()) else { return Map::new() };
    let Some(params) = reader.object(&at, value, "an object") else { return Map::new() };
    let mut plain = Map::new();
    for (key, value) in params {
        let is_server_tools = key == "tools" && provider == Some(Provider::Anthropic);
        if is_server_tools && !value.is_array() {
            reader.error(&at.key(key), "not accepted, accepted: a list of tools that run at the provider");
        }
        if PARAMS_OF_OURS.contains(&key.as_str()) && !is_server_tools {
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
            _ => reader
                .error(&at.key(&shown(name)), "not accepted, accepted: a header name with a string of visible ASCII"),
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

/// `None`: nobody says, or what is said cannot be used, which the reader knows.
fn read_endpoint(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    provider: Provider,
    written: Option<String>,
) -> Option<String> {
    let from_variable = || {
        let variable = provider.url_variable()?;
        let url = environment.lossy(variable)?;
        Some((At::root(variable), if provider == Provider::Ollama { url_of_ollama_host(&url) } else { url }))
    };
    let (place, url) = written.map(|url| (at.key(ENDPOINT_SPELLINGS[0]), url)).or_else(from_variable)?;
    match endpoint_fault(&url) {
        None => Some(url.trim_end_matches('/').to_owned()),
        Some(fault) => {
            reader.error(&place, fault);
            None
        }
    }
}

fn has_endpoint_error(reader: &Reader, at: &At) -> bool {
    let path = at.key(ENDPOINT_SPELLINGS[0]).path;
    reader.errors.iter().any(|error| {
        error.path == path || error.variable.ends_with("_BASE_URL") || error.variable.ends_with("_ENDPOINT")
    })
}

/// `OLLAMA_HOST` may lack scheme and port, and may be the address that a server binds to (Ollama's `envconfig`, read
/// 2026-11).
fn url_of_ollama_host(host: &str) -> String {
    const PORT_DEFAULT: &str = "11434";
    let (scheme, rest) = host.split_once("://").unwrap_or(("http", host));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (name, port) = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, Some(port)),
        _ => (authority, None),
    };
    let name = match name {
        "" | "0.0.0.0" => "127.0.0.1",
        name => name,
    };
    match port {
        Some(port) => format!("{scheme}://{name}:{port}{path}"),
        None if host.contains("://") => format!("{scheme}://{name}{path}"),
        None => format!("{scheme}://{name}:{PORT_DEFAULT}{path}"),
    }
}

fn read_api(reader: &mut Reader, at: &At, object: &Map<String, Value>) -> Option<Api> {
    match reader.text(at, object, "api")?.as_str() {
        "chat" => Some(Api::Chat),
        "responses" => Some(Api::Responses),
        _ => {
            reader.error(&at.key("api"), "not accepted, accepted: chat, responses");
            None
        }
    }
}

fn read_google(reader: &mut Reader, environment: &Environment, at: &At, object: &Map<String, Value>) -> Google {
    let mut word = |key: &str, variable: &str| {
        let word = reader.text(at, object, key).or_else(|| environment.lossy(variable));
        // It becomes a piece of a URL.
        let is_plain = |word: &String| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
        if word.as_ref().is_some_and(|word| !is_plain(word)) {
            reader.error(&at.key(key), "not accepted, accepted: letters, digits, and -._:");
        }
        word.filter(is_plain)
    };
    Google {
        project: word("project", "GOOGLE_CLOUD_PROJECT"),
        location: word("location", "GOOGLE_CLOUD_LOCATION").unwrap_or_else(|| LOCATION_DEFAULT.to_owned()),
        metadata_host: environment.lossy("GCE_METADATA_HOST").unwrap_or_else(|| METADATA_HOST_DEFAULT.to_owned()),
    }
}

fn version_variable(environment: &Environment, provider: Provider) -> Option<String> {
    match provider {
        Provider::AzureOpenAi => {
            environment.lossy("OPENAI_API_VERSION").or_else(|| environment.lossy("AZURE_OPENAI_API_VERSION"))
        }
        Provider::Gemini => environment.lossy("GOOGLE_GENAI_API_VERSION"),
        _ => None,
    }
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

struct Key {
    key: Option<Secret>,
    form: KeyForm,
    /// Where it came from, or where one would be looked for.
    source: String,
}

fn read_key(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    provider: Provider,
    written: Option<String>,
) -> Key {
    let variables = provider.key_variables();
    let (key, form, place) = match written {
        // Google's access tokens begin so (its OAuth documentation, read 2026-11); no API key does.
        Some(key) if provider == Provider::Vertex && key.starts_with("ya29.") => {
            (Some(key), KeyForm::Token, at.key(KEY_SPELLINGS[0]))
        }
        Some(key) => (Some(key), KeyForm::Key, at.key(KEY_SPELLINGS[0])),
        None => {
            let found = variables.iter().find_map(|(name, form)| Some((environment.lossy(name)?, *form, *name)));
            match found {
                Some((key, form, variable)) => (Some(key), form, At::root(variable)),
                None => (None, KeyForm::Key, At::root(variables.first().map_or(VARIABLE, |(name, _)| name))),
            }
        }
    };
    let source = if place.path.is_empty() { place.variable.to_owned() } else { format!("{VARIABLE}: {}", place.path) };
    if key.as_deref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
        reader.error(&place, "has characters that no HTTP header carries, accepted: visible ASCII without spaces");
        return Key { key: None, form, source };
    }
    Key { key: key.map(Secret::new), form, source }
}

/// Headers that name the organization and project of OpenAI (its API reference, "Authentication", read 2026-11).
fn openai_headers(environment: &Environment, provider: Provider) -> Vec<(String, Secret)> {
    let names = [("OPENAI_ORG_ID", "OpenAI-Organization"), ("OPENAI_PROJECT_ID", "OpenAI-Project")];
    let set = names.iter().filter(|_| provider == Provider::OpenAi).filter_map(|(variable, header)| {
        let value = environment.lossy(variable).filter(|value| is_header_value(value))?;
        Some(((*header).to_owned(), Secret::new(value)))
    });
    set.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_ollama_is_completed() {
        for (host, url) in [
            ("1.2.3.4", "http://1.2.3.4:11434"),
            (":5000", "http://127.0.0.1:5000"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("https://ollama.example.com", "https://ollama.example.com"),
            ("http://h:80/x", "http://h:80/x"),
        ] {
            assert_eq!(url_of_ollama_host(host), url);
        }
    }
}
