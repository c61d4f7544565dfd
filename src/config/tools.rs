//! `THOUGHTMESH_TOOLS`: which tools the agent may use, and within which limits.

use std::ffi::OsString;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Environment;
use super::options::{self, CommandOptions, GitOptions, HttpOptions, McpOptions, McpServer};
use super::read::{At, Reader, nearest, shown};
use crate::secret::Secret;

const VARIABLE: &str = "THOUGHTMESH_TOOLS";
const ACCEPTED: &str = "a JSON array of objects with `name`";
const ENTRY_FIELDS: [&str; 5] = ["name", "config", "type", "url", "required"];

/// Limit on one tool call, unless its entry says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(120);
/// Bytes of a result that the model is shown, unless the entry says otherwise.
const OUTPUT_BYTES_DEFAULT: u64 = 32 * 1024;
/// Below this a result would be only the note that it was cut.
const OUTPUT_BYTES_MIN: u64 = 1024;

/// What an entry stands for, with the options that only this kind of tool has.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolKind {
    /// The file tool of the entry's name.
    File,
    /// All file tools.
    Filesystem,
    Shell,
    Git(GitOptions),
    CodeAnalyzer,
    HttpRequest(HttpOptions),
    /// All tools of an MCP server.
    Mcp(McpOptions),
    /// A command of the user's.
    Command(CommandOptions),
}

/// The tools of ours.
pub const BUILT_IN: [&str; 11] = [
    "filesystem",
    "read_file",
    "write_file",
    "edit_file",
    "list_directory",
    "find_files",
    "search_text",
    "shell",
    "git",
    "code_analyzer",
    "http_request",
];

impl ToolKind {
    /// The fields of `config` that mean something to this kind of tool, besides those that every tool has.
    fn fields(&self) -> &'static [&'static str] {
        match self {
            ToolKind::File | ToolKind::Filesystem => &[],
            ToolKind::Shell => &["timeout_seconds", "env"],
            ToolKind::Git(_) => &["timeout_seconds", "env", "allow_write", "allow_network"],
            ToolKind::CodeAnalyzer => &["timeout_seconds"],
            ToolKind::HttpRequest(_) => &["timeout_seconds", "allow", "headers"],
            ToolKind::Mcp(McpOptions { server: McpServer::Http { .. }, .. }) => {
                &["timeout_seconds", "start_timeout_seconds", "headers", "allow", "deny"]
            }
            ToolKind::Mcp(McpOptions { server: McpServer::Child { .. }, .. }) => {
                &["timeout_seconds", "env", "command", "cwd", "roots", "allow", "deny"]
            }
            ToolKind::Command(_) => {
                &["timeout_seconds", "env", "command", "description", "parameters", "stdin", "allow_options"]
            }
        }
    }
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolEntry {
    /// As `THOUGHTMESH_TOOLS: [0]`, for messages.
    pub place: String,
    pub name: String,
    pub kind: ToolKind,
    /// `false`: when it cannot work here it is left out with a warning.
    pub is_required: bool,
    /// Limit on one call.
    pub timeout: Duration,
    /// Bytes of a result that the model is shown.
    pub output_bytes_max: usize,
    /// Variables handed on to the tool's processes.
    pub environment: Vec<(OsString, OsString)>,
    /// What the entry uses as a credential, with the name of the variable or header it came from.
    pub secrets: Vec<(String, Secret)>,
}

/// Reads the variable; mistakes are left in the reader.
pub fn read(reader: &mut Reader, environment: &Environment) -> Vec<ToolEntry> {
    let at = At::root(VARIABLE);
    let Some(text) = environment.text(reader, VARIABLE) else { return Vec::new() };
    let Some(value) = reader.json(&at, &text, ACCEPTED) else { return Vec::new() };
    let Some(array) = reader.array(&at, &value, ACCEPTED) else { return Vec::new() };
    let mut entries: Vec<ToolEntry> = Vec::new();
    for (index, value) in array.iter().enumerate() {
        let at = at.index(index);
        let Some(object) = reader.object(&at, value, "an object with `name`") else { continue };
        let Some(entry) = read_entry(reader, environment, &at, object) else { continue };
        if entries.iter().any(|other| other.name == entry.name) {
            reader.error(&at.key("name"), "the same name as an earlier entry, accepted: each name once");
        } else {
            entries.push(entry);
        }
    }
    entries
}

fn read_entry(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    object: &Map<String, Value>,
) -> Option<ToolEntry> {
    reader.ignore_unknown(at, object, &ENTRY_FIELDS);
    let at_config = at.key("config");
    let mut config = match object.get("config") {
        None | Some(Value::Null) => Map::new(),
        Some(config) => reader.object(&at_config, config, "an object")?.clone(),
    };
    let mut secrets = Vec::new();
    if let Some(headers) = config.get("headers") {
        collect_variables(environment, headers, &mut secrets);
    }
    if let Some(url) = object.get("url") {
        collect_variables(environment, url, &mut secrets);
    }
    for (key, value) in &mut config {
        expand(reader, environment, &at_config.key(key), value);
    }
    let config = &config;
    let Some(name) = reader.text(at, object, "name") else {
        if !matches!(object.get("name"), Some(Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_))) {
            reader.error(&at.key("name"), "required and missing, accepted: a string");
        }
        return None;
    };
    let kind = read_kind(reader, environment, at, object, config, &name)?;
    reader.refuse_unknown(&at_config, config, &[&["required", "output_bytes_max"], kind.fields()].concat());
    match &kind {
        ToolKind::HttpRequest(options) => secrets.extend(options.secrets()),
        ToolKind::Mcp(options) => secrets.extend(options.secrets()),
        _ => {}
    }
    let is_required = reader.boolean(at, object, "required").or_else(|| reader.boolean(&at_config, config, "required"));
    let timeout = reader.whole_number(&at_config, config, "timeout_seconds", 1);
    let output_bytes_max = reader.whole_number(&at_config, config, "output_bytes_max", OUTPUT_BYTES_MIN);
    Some(ToolEntry {
        place: format!("{VARIABLE}: {}", at.path),
        name,
        kind,
        is_required: is_required.unwrap_or(true),
        timeout: timeout.map_or(TIMEOUT_DEFAULT, Duration::from_secs),
        output_bytes_max: usize::try_from(output_bytes_max.unwrap_or(OUTPUT_BYTES_DEFAULT)).unwrap_or(usize::MAX),
        environment: handed_on(reader, environment, &at_config, config),
        secrets,
    })
}

/// Replaces `${NAME}` in every string by the variable's value.
fn expand(reader: &mut Reader, environment: &Environment, at: &At, value: &mut Value) {
    match value {
        Value::String(text) => *text = expanded(reader, environment, at, text),
        Value::Array(values) => {
            values
                .iter_mut()
                .enumerate()
                .for_each(|(index, value)| expand(reader, environment, &at.index(index), value));
        }
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(key, value)| expand(reader, environment, &at.key(key), value));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn expanded(reader: &mut Reader, environment: &Environment, at: &At, text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let name = after.split_once('}').filter(|(name, _)| is_variable_name(name));
        whole.push_str(before);
        let Some((name, tail)) = name else {
            whole.push_str("${");
            rest = after;
            continue;
        };
        match environment.lossy(name) {
            Some(value) => whole.push_str(&value),
            None => reader.error(at, format!("${{{name}}} is not set, accepted: the name of a variable that is")),
        }
        rest = tail;
    }
    whole + rest
}

fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The variables that the strings of `value` name, with their values: what goes into a header is a credential.
fn collect_variables(environment: &Environment, value: &Value, found: &mut Vec<(String, Secret)>) {
    match value {
        Value::String(text) => {
            let names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
            found.extend(names.filter_map(|name| Some((name.to_owned(), Secret::new(environment.lossy(name)?)))));
        }
        Value::Array(values) => values.iter().for_each(|value| collect_variables(environment, value, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect_variables(environment, value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What the entry is. Servers and commands are recognized before names: an entry of any name can be one.
fn read_kind(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    object: &Map<String, Value>,
    config: &Map<String, Value>,
    name: &str,
) -> Option<ToolKind> {
    let accepted = BUILT_IN.join(", ");
    let at_config = at.key("config");
    let url = reader.text(at, object, "url");
    match reader.text(at, object, "type").as_deref() {
        None if url.is_some() => {
            reader.error(&at.key("url"), "only an MCP server has one, accepted: with `type` set to `mcp`");
            return None;
        }
        None => {}
        Some("mcp") => {
            let at_url = at.key("url");
            let url = url.map(|url| (&at_url, expanded(reader, environment, &at_url, &url)));
            if url.is_none() && config.get("command").is_none_or(Value::is_null) {
                reader.error(at, "an MCP server that is nowhere, accepted: with `url`, or with `config.command`");
                return None;
            }
            return options::read_mcp(reader, environment, name, url, &at_config, config).map(ToolKind::Mcp);
        }
        Some(_) => {
            reader.error(&at.key("type"), "not a type of tool, accepted: `mcp`, or no type");
            return None;
        }
    }
    if config.get("command").is_some_and(|command| !command.is_null()) {
        if !options::is_tool_name(name) {
            let what = "not a name for a command, accepted: at most 64 letters, digits, _ and -; `finish` is taken";
            reader.error(&at.key("name"), what);
            return None;
        }
        return options::read_command(reader, &at_config, config).map(ToolKind::Command);
    }
    Some(match name {
        "filesystem" => ToolKind::Filesystem,
        "read_file" | "write_file" | "edit_file" | "list_directory" | "find_files" | "search_text" => ToolKind::File,
        "shell" => ToolKind::Shell,
        "git" => ToolKind::Git(options::read_git(reader, &at_config, config)),
        "code_analyzer" => ToolKind::CodeAnalyzer,
        "http_request" => ToolKind::HttpRequest(options::read_http(reader, &at_config, config)?),
        _ => {
            let near = nearest(name, BUILT_IN.into_iter());
            let near = near.map(|near| format!(", did you mean `{near}`")).unwrap_or_default();
            let what = format!(
                "not a built-in tool{near}; accepted: {accepted}, or any name with config.command or `type: mcp`"
            );
            reader.error(&at.key("name"), what);
            return None;
        }
    })
}

/// `config.env`: what the tool's processes get. A list of names of variables, or an object of names and values.
pub fn handed_on(
    reader: &mut Reader,
    environment: &Environment,
    at: &At,
    config: &Map<String, Value>,
) -> Vec<(OsString, OsString)> {
    if let Some(Value::Object(object)) = config.get("env") {
        return given(reader, &at.key("env"), object);
    }
    let names = reader.texts(at, config, "env").unwrap_or_default();
    let at = at.key("env");
    let mut pairs = Vec::new();
    for (index, name) in names.iter().enumerate() {
        match environment.raw(name) {
            _ if name.starts_with("THOUGHTMESH_") => {
                reader.error(&at.index(index), "a variable of the runtime's own, accepted: any other");
            }
            Some(value) => pairs.push((OsString::from(name), value.clone())),
            None => reader.error(&at.index(index), "this variable is not set, accepted: the name of one that is"),
        }
    }
    pairs
}

fn given(reader: &mut Reader, at: &At, object: &Map<String, Value>) -> Vec<(OsString, OsString)> {
    let mut pairs = Vec::new();
    for (name, value) in object {
        match value.as_str() {
            Some(value) if is_variable_name(name) => pairs.push((OsString::from(name), OsString::from(value))),
            _ => reader.error(&at.key(&shown(name)), "not accepted, accepted: the name of a variable with a string"),
        }
    }
    pairs
}
