//! Why an MCP server did not do what was asked, and the words for it: for the model after a call, for the person at the beginning.

use std::time::Duration;

use crate::config::options::McpServer;
use crate::wire::mcp::RpcError;

/// Why a request has no result.
#[derive(Debug)]
pub enum Fault {
    /// The server says no, in words of the protocol. `status` is 0 where there is no HTTP.
    Rpc {
        status: u16,
        error: RpcError,
    },
    /// The server says no, in words of HTTP.
    Status {
        status: u16,
        text: String,
    },
    /// It was not looked at; it may be sent again, after what the server says.
    NotTaken {
        what: String,
        wait: Option<Duration>,
    },
    /// It was not looked at, because the server does not know the session any more.
    SessionLost,
    /// It was sent, and there will be no answer.
    Lost(String),
    /// It was sent, and there was no answer in time.
    Silent,
    Unauthorized {
        status: u16,
        text: String,
    },
    /// What answers is not an MCP server.
    NotMcp(String),
    Other(String),
}

/// How a server is to be asked, for a message.
pub struct Asked<'a> {
    pub server: &'a McpServer,
    /// What it was asked at last.
    pub method: &'a str,
    /// How long it was waited for.
    pub silence: Duration,
}

impl Fault {
    /// For the model, after a call.
    pub fn of_call(self, timeout: Duration) -> String {
        const UNKNOWN: &str =
            "the outcome of the call is unknown, it may have been carried out; look before you call again";
        match self {
            Fault::Rpc { error, .. } => format!("the server refuses the call: {} (code {})", error.message, error.code),
            Fault::Status { status: status @ ..500, text } => {
                format!("the server refuses the call: {}", described(status, &text))
            }
            Fault::Status { status, text } => {
                format!("the server answered with {}; {UNKNOWN}", described(status, &text))
            }
            Fault::NotTaken { what, .. } => {
                format!("not done, the server could not be reached or takes no calls: {what}")
            }
            Fault::SessionLost => "not done, the server lost the session twice".to_owned(),
            Fault::Lost(what) => format!("{what}; {UNKNOWN}"),
            Fault::Silent => {
                format!("no answer within {} s, so the call was cancelled; {UNKNOWN}", timeout.as_secs_f64())
            }
            Fault::Unauthorized { status, .. } => {
                format!("not done, the server refuses our credentials (status {status})")
            }
            Fault::NotMcp(what) => format!("the server's answer is none: {what}; {UNKNOWN}"),
            Fault::Other(what) => what,
        }
    }

    /// For the person, at the beginning.
    pub fn of_beginning(&self, asked: &Asked<'_>) -> String {
        let (place, way) = match asked.server {
            McpServer::Http { url, .. } => (url.split('?').next().unwrap_or(url), "HTTP"),
            McpServer::Child { program, .. } => (program.as_str(), "stdin and stdout"),
        };
        match self {
            Fault::Rpc { error, .. } => format!("{place} refuses to begin: {} (code {})", error.message, error.code),
            Fault::Status { status, text } => format!("{place} is not an MCP server: {}", described(*status, text)),
            Fault::NotTaken { what, .. } if what.starts_with("status") => format!("{place} is not ready: {what}"),
            Fault::NotTaken { what, .. } => what.clone(),
            Fault::SessionLost => format!("{place} loses the session at once"),
            Fault::Silent => format!(
                "{place} gave no answer within {} s to {}; is it an MCP server that speaks over {way}?",
                asked.silence.as_secs_f64(),
                asked.method
            ),
            Fault::Unauthorized { status, text } => refused_credentials(asked.server, place, &described(*status, text)),
            Fault::NotMcp(what) => format!("{place} is not an MCP server: {what}"),
            Fault::Lost(what) | Fault::Other(what) => format!("{place}: {what}"),
        }
    }
}

fn refused_credentials(server: &McpServer, place: &str, said: &str) -> String {
    let McpServer::Http { headers, token, token_variable, .. } = server else { return said.to_owned() };
    if headers.iter().any(|header| header.name.eq_ignore_ascii_case("authorization")) {
        return format!("config.headers: Authorization is refused by {place} ({said})");
    }
    match token {
        Some(_) => format!("{token_variable}: the token is refused by {place} ({said})"),
        None => format!("{token_variable} is not set, and {place} wants a token; set it, or config.headers ({said})"),
    }
}

pub fn described(status: u16, text: &str) -> String {
    if text.is_empty() { format!("status {status}") } else { format!("status {status}: {text}") }
}
