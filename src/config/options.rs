//! The options that only one kind of tool has: `git`, `http_request`, MCP servers, and commands of the user's.
//!
//! What is read here is complete and consistent: a command's placeholders are parameters of it, a host is a host. Nothing
//! here knows how the tools work.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Environment;
use super::context::has_secret_name;
use super::read::{At, Reader, kind, nearest, shown};
use crate::secret::Secret;

/// What the `git` tool may do besides looking.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GitOptions {
    pub allow_write: bool,
    pub allow_network: bool,
}

/// Whom `http_request` may ask, and what it says to them.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpOptions {
    /// Never empty.
    pub allow: Vec<HostPattern>,
    pub headers: Vec<HeaderOption>,
}

/// A header that is sent along, and to whom: `None` is the host that the model asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderOption {
    pub host: Option<HostPattern>,
    pub name: String,
    pub value: Secret,
}

/// `api.example.com`, or `*.example.com` for every host beneath it; lower case; an IPv6 address without brackets.
#[derive(Clone, Debug, PartialEq)]
pub struct HostPattern(String);

/// An MCP server and what of it is offered.
#[derive(Clone, Debug, PartialEq)]
pub struct McpOptions {
    pub server: McpServer,
    /// Names of the server's own; without it all of its tools are offered.
    pub allow: Option<Vec<String>>,
    /// Names of the server's own that are not offered.
    pub deny: Vec<String>,
    /// How long a server that is not there yet is waited for.
    pub start_timeout: Duration,
}

/// Where an MCP server is.
#[derive(Clone, Debug, PartialEq)]
pub enum McpServer {
    Http {
        url: String,
        headers: Vec<HeaderOption>,
        /// What the variable below holds.
        token: Option<Secret>,
        /// The variable that a bearer token is read from.
        token_variable: String,
    },
    Child {
        program: String,
        arguments: Vec<String>,
        /// As seen from the workspace.
        directory: PathBuf,
        /// Directories that it is told of as its roots, as seen from the workspace.
        roots: Vec<PathBuf>,
    },
}

/// A command of the user's.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOptions {
    pub program: String,
    /// The arguments, as written.
    pub arguments: Vec<Template>,
    pub description: String,
    /// JSON Schema of an object.
    pub parameters: Value,
    /// The model's arguments are written to its stdin, as one JSON object.
    pub has_stdin: bool,
    /// An argument may begin with `-` because the model's value does.
    pub allows_options: bool,
}

/// One argument with its placeholders.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(String),
    /// Replaced by the value of this parameter.
    Parameter(String),
}

impl HttpOptions {
    /// The headers that are credentials, and the tokens in them: `Bearer <token>` is secret as a whole and in part.
    pub fn secrets(&self) -> Vec<(String, Secret)> {
        header_secrets(&self.headers)
    }
}

impl McpOptions {
    /// The headers that are credentials, and the token.
    pub fn secrets(&self) -> Vec<(String, Secret)> {
        match &self.server {
            McpServer::Http { headers, token, token_variable, .. } => {
                let token = token.iter().map(|token| (token_variable.clone(), token.clone()));
                header_secrets(headers).into_iter().chain(token).collect()
            }
            McpServer::Child { .. } => Vec::new(),
        }
    }
}

fn header_secrets(headers: &[HeaderOption]) -> Vec<(String, Secret)> {
    let is_secret = |name: &str| has_secret_name(name) || name.to_ascii_lowercase().ends_with("authorization");
    let both = headers.iter().filter(|header| is_secret(&header.name)).flat_map(|header| {
        let token = header.value.reveal().rsplit(' ').next().unwrap_or_default();
        [(header.name.clone(), header.value.clone()), (header.name.clone(), Secret::new(token))]
    });
    both.collect()
}

impl HostPattern {
    fn parse(text: &str) -> Option<HostPattern> {
        let lower = text.trim().trim_end_matches('.').to_ascii_lowercase();
        let unbracketed = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = unbracketed.unwrap_or(&lower).parse::<std::net::Ipv6Addr>().is_ok();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let is_name = !name.is_empty()
            && name.split('.').all(|label| {
                !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            });
        match (is_address, is_name) {
            (true, _) => Some(HostPattern(unbracketed.unwrap_or(&lower).to_owned())),
            (_, true) => Some(HostPattern(lower)),
            _ => None,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `host`, in lower case and without brackets, is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.0,
        }
    }
}

/// Whether every provider takes this as the name of a tool, and nobody else has it.
pub fn is_tool_name(name: &str) -> bool {
    const NAME_CHARS_MAX: usize = 64;
    name.len() <= NAME_CHARS_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && name != "finish"
}

pub fn read_git(reader: &mut Reader, at: &At, config: &Map<String, Value>) -> GitOptions {
    GitOptions {
        allow_write: reader.boolean(at, config, "allow_write").unwrap_or_default(),
        allow_network: reader.boolean(at, config, "allow_network").unwrap_or_default(),
    }
}

pub fn read_http(reader: &mut Reader, at: &At, config: &Map<String, Value>) -> Option<HttpOptions> {
    const ACCEPTED: &str =
        "a host such as api.example.com, or *.example.com for all beneath it; no scheme, port or path";
    let at_allow = at.key("allow");
    let hosts = reader.texts(at, config, "allow").unwrap_or_default();
    if hosts.is_empty() && !reader.errors.iter().any(|error| error.path.starts_with(&at_allow.path)) {
        reader.error(&at_allow, "required and missing, accepted: a JSON array of hosts");
    }
    let mut allow = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        match HostPattern::parse(host) {
            Some(pattern) => allow.push(pattern),
            None => reader.error(&at_allow.index(index), format!("not a host, accepted: {ACCEPTED}")),
        }
    }
    let headers = read_headers(reader, &at.key("headers"), config.get("headers"), &allow);
    (!allow.is_empty()).then_some(HttpOptions { allow, headers })
}

/// A header for the host that is asked, or an object of headers under the host that they are for.
fn read_headers(reader: &mut Reader, at: &At, value: Option<&Value>, allow: &[HostPattern]) -> Vec<HeaderOption> {
    const ACCEPTED: &str = "an object of header names and strings; under the name of a host, an object of its headers";
    let Some(value) = value.filter(|value| !value.is_null()) else { return Vec::new() };
    let Some(object) = reader.object(at, value, ACCEPTED) else { return Vec::new() };
    let mut headers = Vec::new();
    for (key, value) in object {
        let at_key = at.key(&shown(key));
        match value {
            Value::Object(of_host) => match HostPattern::parse(key).filter(|host| allow.contains(host)) {
                Some(host) => {
                    for (name, value) in of_host {
                        headers.extend(read_header(reader, &at_key.key(&shown(name)), Some(&host), name, value));
                    }
                }
                None => reader.error(&at_key, "not a host of `allow`, accepted: one that stands there, as it does"),
            },
            value => headers.extend(read_header(reader, &at_key, None, key, value)),
        }
    }
    headers
}

fn read_header(
    reader: &mut Reader,
    at: &At,
    host: Option<&HostPattern>,
    name: &str,
    value: &Value,
) -> Option<HeaderOption> {
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
    let text = value.as_str().map(str::trim).filter(|text| !text.chars().any(char::is_control));
    match text {
        Some(text) if is_name => {
            Some(HeaderOption { host: host.cloned(), name: name.to_owned(), value: Secret::new(text) })
        }
        _ => {
            reader.error(at, "not a header, accepted: a name of letters, digits and -, with a string of one line");
            None
        }
    }
}

/// How long a server that is not there yet is waited for: sidecars start late.
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(20);

/// The options of an MCP server; `url` is the entry's, as it was given, with its place.
pub fn read_mcp(
    reader: &mut Reader,
    environment: &Environment,
    name: &str,
    url: Option<(&At, String)>,
    at: &At,
    config: &Map<String, Value>,
) -> Option<McpOptions> {
    let server = match url {
        Some((at_url, url)) => read_mcp_http(reader, environment, name, at_url, url, at, config),
        None => read_mcp_child(reader, at, config),
    };
    let allow = reader.texts(at, config, "allow");
    let start_timeout = reader.whole_number(at, config, "start_timeout_seconds", 1);
    Some(McpOptions {
        allow,
        deny: reader.texts(at, config, "deny").unwrap_or_default(),
        start_timeout: start_timeout.map_or(START_TIMEOUT_DEFAULT, Duration::from_secs),
        server: server?,
    })
}

fn read_mcp_http(
    reader: &mut Reader,
    environment: &Environment,
    name: &str,
    at_url: &At,
    url: String,
    at: &At,
    config: &Map<String, Value>,
) -> Option<McpServer> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('#') && !authority.contains('@');
    if authority.is_empty() || !is_plain {
        let what = "not accepted, accepted: an http:// or https:// URL without user and password; keys go into headers";
        reader.error(at_url, what);
        return None;
    }
    let at_headers = at.key("headers");
    let headers = read_headers(reader, &at_headers, config.get("headers"), &[]);
    for header in headers.iter().filter(|header| is_of_transport(&header.name)) {
        reader.error(&at_headers.key(&header.name), "is set by the runtime, accepted: any other header");
    }
    let token_variable = token_variable(name);
    let token = environment.lossy(&token_variable).map(Secret::new);
    Some(McpServer::Http { url, headers, token, token_variable })
}

/// Headers that decide where a request goes, where it ends, and what it means.
fn is_of_transport(name: &str) -> bool {
    const NAMES: [&str; 7] =
        ["accept", "connection", "content-length", "content-type", "host", "last-event-id", "transfer-encoding"];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || name.starts_with("mcp-")
}

/// `slack-mcp` → `SLACK_MCP_TOKEN`.
pub fn token_variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(plain).chain("_TOKEN".chars()).collect()
}

fn read_mcp_child(reader: &mut Reader, at: &At, config: &Map<String, Value>) -> Option<McpServer> {
    let at_command = at.key("command");
    let words = reader.texts(at, config, "command");
    let roots = reader.texts(at, config, "roots").unwrap_or_else(|| vec![".".to_owned()]);
    let directory = reader.text(at, config, "cwd").unwrap_or_else(|| ".".to_owned());
    match words.as_deref() {
        Some([program, arguments @ ..]) => Some(McpServer::Child {
            program: program.clone(),
            arguments: arguments.to_vec(),
            directory: directory.into(),
            roots: roots.into_iter().map(PathBuf::from).collect(),
        }),
        Some([]) => {
            reader.error(&at_command, "is empty, accepted: a JSON array of a program and its arguments");
            None
        }
        None => None,
    }
}

pub fn read_command(reader: &mut Reader, at: &At, config: &Map<String, Value>) -> Option<CommandOptions> {
    let at_command = at.key("command");
    let words = reader.texts(at, config, "command")?;
    let Some((program, arguments)) = words.split_first() else {
        reader.error(&at_command, "is empty, accepted: a JSON array of a program and its arguments");
        return None;
    };
    let parameters = read_parameters(reader, &at.key("parameters"), config.get("parameters"))?;
    let names: Vec<&str> = match parameters.get("properties") {
        Some(Value::Object(properties)) => properties.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let mut templates = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let template = read_template(word, !names.is_empty());
        for piece in &template.0 {
            let Piece::Parameter(name) = piece else { continue };
            if index == 0 {
                reader.error(&at_command.index(0), "the program is fixed, accepted: a name on PATH, or a path");
            } else if !names.contains(&name.as_str()) {
                let near = nearest(name, names.iter().copied());
                let near = near.map(|near| format!(", did you mean `{{{near}}}`")).unwrap_or_default();
                let what = format!("a placeholder that is no parameter{near}, accepted: {}", names.join(", "));
                reader.error(&at_command.index(index), what);
            }
        }
        templates.push(template);
    }
    let is_silent = arguments.is_empty() && !names.is_empty();
    let has_stdin = reader.boolean(at, config, "stdin").unwrap_or_default();
    let is_used =
        |name: &&str| templates.iter().any(|template| template.0.contains(&Piece::Parameter((*name).to_owned())));
    if let Some(unused) = names.iter().find(|name| !has_stdin && (is_silent || !is_used(name))) {
        let what = "reaches the command nowhere, accepted: a parameter with a placeholder in `command`, or `stdin`";
        reader.error(&at.key("parameters").key("properties").key(&shown(unused)), what);
    }
    let description = reader.text(at, config, "description");
    Some(CommandOptions {
        program: program.clone(),
        arguments: templates.split_off(1),
        description: description.unwrap_or_else(|| format!("Run the command {program}.")),
        parameters,
        has_stdin,
        allows_options: reader.boolean(at, config, "allow_options").unwrap_or_default(),
    })
}

/// A JSON Schema of an object. Other properties are refused unless it says otherwise: they would reach nobody.
fn read_parameters(reader: &mut Reader, at: &At, value: Option<&Value>) -> Option<Value> {
    const ACCEPTED: &str = "a JSON Schema: {\"type\": \"object\", \"properties\": {…}, \"required\": […]}";
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Some(json!({"type": "object", "properties": {}, "additionalProperties": false}));
    };
    let mut schema = reader.object(at, value, ACCEPTED)?.clone();
    let is_object_schema = schema.get("type").is_none_or(|kind| kind == "object")
        && schema.get("properties").is_some_and(Value::is_object)
        && schema.get("required").is_none_or(Value::is_array);
    if !is_object_schema {
        reader.error(at, format!("not the schema of an object with `properties`, accepted: {ACCEPTED}"));
        return None;
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if !property.is_object() {
            let at = at.key("properties").key(&shown(name));
            reader.error(&at, format!("{} found, accepted: a JSON Schema", kind(property)));
        }
    }
    schema.insert("type".to_owned(), json!("object"));
    schema.entry("additionalProperties").or_insert(json!(false));
    Some(Value::Object(schema))
}

/// Finds the placeholders: a name in braces. Without parameters there are none.
fn read_template(word: &str, has_parameters: bool) -> Template {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        match after.split_once('}').filter(|(name, _)| has_parameters && is_parameter_name(name)) {
            Some((name, tail)) => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Parameter(name.to_owned()));
                rest = tail;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Template(pieces)
}

fn is_parameter_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_names_in_braces() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let parameter = |name: &str| Piece::Parameter(name.to_owned());
        assert_eq!(read_template("{path}", true).0, [parameter("path")]);
        assert_eq!(
            read_template("--in={a}:{b-c}", true).0,
            [text("--in="), parameter("a"), text(":"), parameter("b-c")]
        );
        for plain in ["{}", "{ x }", "{print $1}", "a{", "}", "{{}", "{x"] {
            assert_eq!(read_template(plain, true).0, [text(plain)], "{plain}");
        }
        assert_eq!(read_template("{{x}}", true).0, [text("{"), parameter("x"), text("}")]);
        assert_eq!(read_template("{x}", false).0, [text("{x}")]);
    }

    #[test]
    fn a_host_is_exact_or_beneath() {
        let host = |text: &str| HostPattern::parse(text).unwrap();
        assert!(host("API.example.com.").matches("api.example.com"));
        assert!(!host("example.com").matches("api.example.com") && !host("example.com").matches("badexample.com"));
        assert!(host("*.example.com").matches("a.b.example.com"));
        for other in ["example.com", ".example.com", "badexample.com", "a.example.com.evil.org"] {
            assert!(!host("*.example.com").matches(other), "{other}");
        }
        assert!(host("[::1]").matches("::1") && host("10.0.0.1").matches("10.0.0.1"));
        for wrong in ["", "*", "*.", "https://x", "x:80", "x/y", "a b", "**.x", "a.*.b", "x..y"] {
            assert!(HostPattern::parse(wrong).is_none(), "{wrong}");
        }
    }
}
