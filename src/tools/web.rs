//! The tool `http_request`: one HTTP request on the model's behalf, to the hosts that its entry lists and to no other.
//!
//! Every URL is held against the list, those of redirects too; which addresses are never asked is in `host/http.rs`. Headers
//! of the entry go only where the entry says. What may surprise: when a redirect leads to another server, the headers of the
//! request stay behind, also the model's own: they were meant for the first one.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::ToolError;
use super::excerpt::{beginning, excerpt};
use super::files::binary_description;
use super::schema;
use crate::config::Network;
use crate::config::options::HttpOptions;
use crate::conversation::ToolSpec;
use crate::host::Deadline;
use crate::host::http::{Client, HttpFault, Request, Response, Roots, Server};
use crate::secret::Secrets;

pub const NAME: &str = "http_request";

/// More redirects than this are a circle.
const REDIRECTS_MAX: usize = 5;
/// Room in a result for status and headers.
const HEAD_BYTES_MAX: usize = 1_000;
/// Of one header in a result.
const HEADER_BYTES_SHOWN: usize = 200;
const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// Headers of an answer that tell a model what to do next.
const HEADERS_SHOWN: [&str; 7] =
    ["content-type", "content-length", "location", "link", "retry-after", "etag", "last-modified"];
/// Headers that decide where a request goes and where it ends: not the model's to set.
const HEADERS_OURS: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
    "proxy-connection",
];

/// A client and whom it may ask.
pub struct Web {
    client: Client,
    network: Network,
    options: HttpOptions,
}

/// Within which limits, and what no result may hold.
pub struct Bounds<'a> {
    pub timeout: Duration,
    pub output_bytes_max: usize,
    pub secrets: &'a Secrets,
}

/// One hop.
struct Question {
    method: String,
    url: String,
    /// The model's.
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Web {
    pub fn new(options: HttpOptions, network: Network, roots: &Roots) -> Web {
        Web { client: Client::guarded(roots), network, options }
    }

    /// The tool as the model sees it.
    pub fn spec(&self) -> ToolSpec {
        let hosts: Vec<&str> = self.options.allow.iter().map(|host| host.as_str()).collect();
        ToolSpec {
            name: NAME.to_owned(),
            description: format!(
                "Make one HTTP request. Gives status, some headers, and the body if it is text. Only these hosts are asked: \
                 {}. Their credentials, if any, are added without you. A status of 400 or more is a failed call.",
                hosts.join(", ")
            ),
            parameters: json!({
                "type": "object",
                "properties": {
                    "url": {"type": "string", "minLength": 1, "description": "The absolute URL."},
                    "method": {"type": "string", "enum": METHODS, "description": "Default GET."},
                    "headers": {"type": "object", "description": "Names and values of headers, all strings."},
                    "body": {"type": "string", "description": "The body, for POST, PUT and PATCH."},
                },
                "required": ["url"],
                "additionalProperties": false,
            }),
        }
    }

    pub fn run(&self, arguments: &Map<String, Value>, bounds: &Bounds<'_>) -> Result<String, ToolError> {
        let mut question = read_question(arguments)?;
        let deadline = Deadline::after(bounds.timeout);
        let first = self.checked(&question.url)?;
        let mut server = first.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = self.ask(&question, &server, &first, deadline)?;
            let location = match response.status {
                301 | 302 | 303 | 307 | 308 => response.header("location"),
                _ => None,
            };
            let Some(location) = location else { return told(&question.method, response, bounds) };
            let url = joined(&question.url, location);
            let next = self.checked(&url).map_err(|error| redirect_refused(response.status, &error))?;
            if server.is_secure && !next.is_secure {
                let what = ToolError::Refused("it leads from https to http".to_owned());
                return Err(redirect_refused(response.status, &what));
            }
            let keeps_method =
                matches!(response.status, 307 | 308) || ["GET", "HEAD"].contains(&question.method.as_str());
            if !keeps_method {
                question.method = "GET".to_owned();
                question.body = Vec::new();
            }
            if next != server {
                question.headers.clear();
            }
            question.url = url;
            server = next;
        }
        Err(ToolError::Failed(format!("more than {REDIRECTS_MAX} redirects in a row")))
    }

    /// The server of a URL that may be asked.
    fn checked(&self, url: &str) -> Result<Server, ToolError> {
        let Some(server) = Server::of(url) else {
            let what = "not a URL that is asked, accepted: http:// or https://, a host, without user and password";
            return Err(ToolError::Arguments(format!("url: {what}")));
        };
        if server.is_refused() {
            return Err(ToolError::Refused(format!("{}: link-local addresses are never asked", server.host)));
        }
        match self.options.allow.iter().any(|host| host.matches(&server.host)) {
            true => Ok(server),
            false => {
                let hosts: Vec<&str> = self.options.allow.iter().map(|host| host.as_str()).collect();
                let host = beginning(&server.host, 100);
                Err(ToolError::Refused(format!("{host} is not asked, accepted: {}", hosts.join(", "))))
            }
        }
    }

    fn ask(
        &self,
        question: &Question,
        server: &Server,
        first: &Server,
        deadline: Deadline,
    ) -> Result<Response, ToolError> {
        let mut headers = question.headers.clone();
        for header in &self.options.headers {
            let is_for_it = match &header.host {
                Some(host) => host.matches(&server.host),
                None => server == first,
            };
            if is_for_it {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&header.name));
                headers.push((header.name.clone(), header.value.reveal().to_owned()));
            }
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
            headers.push(("accept".to_owned(), "*/*".to_owned()));
        }
        let left = deadline.left();
        if left.is_zero() {
            return Err(ToolError::Failed("it took too long".to_owned()));
        }
        let request = Request {
            url: &question.url,
            headers: &headers,
            body: &question.body,
            silence: left,
            proxy: self.network.proxy_for(&question.url),
        };
        self.client.ask(&question.method, &request, left).map_err(|error| match error.fault() {
            HttpFault::Refused => ToolError::Refused(error.to_string()),
            _ => ToolError::Failed(error.to_string()),
        })
    }
}

fn redirect_refused(status: u16, error: &ToolError) -> ToolError {
    ToolError::Refused(format!("status {status} is a redirect that is not followed: {error}"))
}

fn read_question(arguments: &Map<String, Value>) -> Result<Question, ToolError> {
    let method = schema::optional_text(arguments, "method")?.unwrap_or("GET").to_owned();
    let body = schema::optional_text(arguments, "body")?.unwrap_or_default().as_bytes().to_vec();
    if !body.is_empty() && !["POST", "PUT", "PATCH"].contains(&method.as_str()) {
        return Err(ToolError::Arguments(format!("body: {method} has none, leave it out")));
    }
    let mut headers = Vec::new();
    for (name, value) in arguments.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let Some(value) = value.as_str() else {
            return Err(ToolError::Arguments(format!("headers.{}: accepted: a string", beginning(name, 80))));
        };
        if HEADERS_OURS.contains(&name.to_ascii_lowercase().as_str()) {
            return Err(ToolError::Refused(format!("headers.{name}: is set by the runtime, leave it out")));
        }
        headers.push((name.clone(), value.to_owned()));
    }
    Ok(Question { method, url: schema::text(arguments, "url")?.trim().to_owned(), headers, body })
}

/// Where a `Location` leads (RFC 9110, section 10.2.2), for the forms that are in use.
pub fn joined(base: &str, location: &str) -> String {
    let location = location.trim();
    let scheme_end = base.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = base.split_at(scheme_end);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    match location {
        _ if location.contains("://") && !location.starts_with(['/', '?', '#']) => location.to_owned(),
        _ if location.starts_with("//") => format!("{}{location}", scheme.trim_end_matches("//")),
        _ if location.starts_with('/') => format!("{scheme}{authority}{location}"),
        _ if location.starts_with(['?', '#']) || location.is_empty() => format!("{scheme}{rest}{location}"),
        _ => match rest.rsplit_once('/') {
            Some((directory, _)) => format!("{scheme}{directory}/{location}"),
            None => format!("{scheme}{rest}/{location}"),
        },
    }
}

/// Status, headers, and the body if it is text. Secrets are masked before anything is cut.
fn told(method: &str, mut response: Response, bounds: &Bounds<'_>) -> Result<String, ToolError> {
    let mut text = format!("HTTP {}\n", response.status);
    for name in HEADERS_SHOWN {
        if let Some(value) = response.header(name) {
            text.push_str(&format!("{name}: {}\n", beginning(&bounds.secrets.mask(value), HEADER_BYTES_SHOWN)));
        }
    }
    if method != "HEAD" {
        let room = bounds.output_bytes_max.saturating_sub(HEAD_BYTES_MAX);
        let (bytes, is_cut, fault) = read_body(&mut response, room.saturating_add(bounds.secrets.margin_bytes()));
        text.push('\n');
        text.push_str(&body_text(&bytes, is_cut, response.header("content-length"), bounds.secrets));
        if let Some(fault) = fault {
            let text = format!("{text}\n[the answer is not whole: {fault}]");
            return Err(ToolError::Failed(excerpt(&text, bounds.output_bytes_max, "")));
        }
    }
    let text = excerpt(&text, bounds.output_bytes_max, "");
    if response.status < 400 { Ok(text) } else { Err(ToolError::Failed(text)) }
}

/// At most `bytes_max` bytes of the body, whether there were more, and why there were not.
fn read_body(response: &mut Response, bytes_max: usize) -> (Vec<u8>, bool, Option<String>) {
    const PIECE_BYTES: usize = 16 * 1024;
    let mut bytes = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match response.read_piece(&mut piece) {
            Ok(0) => return (bytes, false, None),
            Ok(count) => bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
            Err(error) => return (bytes, false, Some(error.to_string())),
        }
        if bytes.len() > bytes_max {
            bytes.truncate(bytes_max);
            return (bytes, true, None);
        }
    }
}

fn body_text(bytes: &[u8], is_cut: bool, length: Option<&str>, secrets: &Secrets) -> String {
    let size = length.and_then(|length| length.parse().ok()).unwrap_or(bytes.len() as u64);
    if let Some(description) = binary_description(bytes, size) {
        return format!("[{description}]");
    }
    let text = String::from_utf8_lossy(bytes);
    if !is_cut {
        return if text.is_empty() { "[no body]".to_owned() } else { secrets.mask(&text).into_owned() };
    }
    let shown = secrets.mask_sides(&text, "").0;
    format!("{shown}\n[the body is longer, its first {} bytes are shown; ask for a part of it]", shown.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_joined_to_its_base() {
        let base = "https://h:1/a/b?c";
        for (location, expected) in [
            ("http://x/y", "http://x/y"),
            ("//x/y", "https://x/y"),
            ("/y?z", "https://h:1/y?z"),
            ("y", "https://h:1/a/y"),
            ("../y", "https://h:1/a/../y"),
            ("?q", "https://h:1/a/b?q"),
            ("/x?u=http://y", "https://h:1/x?u=http://y"),
        ] {
            assert_eq!(joined(base, location), expected);
        }
        assert_eq!(joined("http://h", "y"), "http://h/y");
    }
}
