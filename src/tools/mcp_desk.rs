//! What comes from an MCP server beside the answer that is waited for: notifications are noted, requests are answered.
//!
//! The same for every way to a server. What may surprise: a server's words reach the log masked and cut, and nothing else.

use std::time::Duration;

use log::{debug, info, warn};
use serde_json::Value;

use super::excerpt::beginning;
use crate::host::Deadline;
use crate::secret::Secrets;
use crate::wire::mcp::{self, Message, RpcError};

/// The longest that one call may take, however much progress the server reports.
const CALL_TIME_MAX: Duration = Duration::from_secs(3600);
/// Of one line of a server's that is logged.
const LOGGED_BYTES_MAX: usize = 1000;
/// Lines of a server's that are logged; then no more of them.
const LOGGED_LINES_MAX: u32 = 10_000;

/// What is known and noted of a server's other messages.
pub struct Desk {
    /// The entry's name, for the log.
    pub name: String,
    /// URIs of the directories that the server may ask for; empty when it was told that there are none.
    pub roots: Vec<String>,
    /// Those of the run, and what only this connection knows.
    pub secrets: Secrets,
    /// The server said that its tools are others now.
    pub is_list_stale: bool,
    has_warned_of_garbage: bool,
    logged_lines: u32,
}

/// What a message means to whoever waits for an answer.
#[derive(Debug, PartialEq)]
pub enum Taken {
    Answer(Result<Value, RpcError>),
    /// To be sent to the server.
    Reply(Vec<u8>),
    /// The request is being worked on.
    Progress,
    Nothing,
}

/// How long an answer is waited for.
#[derive(Clone, Copy)]
pub struct Patience {
    pub silence: Duration,
    heard: Deadline,
    end: Deadline,
}

impl Patience {
    pub fn new(silence: Duration) -> Patience {
        let end = Deadline::after(CALL_TIME_MAX.max(silence));
        Patience { silence, heard: Deadline::after(silence), end }
    }

    /// Something was heard of the request.
    pub fn renew(&mut self) {
        self.heard = Deadline::after(self.silence);
    }

    pub fn left(self) -> Duration {
        self.heard.left().min(self.end.left())
    }

    pub fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

impl Desk {
    pub fn new(name: &str, roots: Vec<String>, secrets: Secrets) -> Desk {
        Desk {
            name: name.to_owned(),
            roots,
            secrets,
            is_list_stale: false,
            has_warned_of_garbage: false,
            logged_lines: 0,
        }
    }

    /// Deals with one message while the answer to the request `id` is waited for.
    pub fn take(&mut self, message: Message, id: u64) -> Taken {
        match message {
            Message::Response { id: answered, outcome } if answered == Some(id) => Taken::Answer(outcome),
            Message::Response { .. } => Taken::Nothing,
            Message::Request { id, method } => {
                debug!("tool {}: the server asks for {}", self.name, self.shown(&method));
                Taken::Reply(mcp::answer(&id, &method, &self.roots))
            }
            Message::Notification { method, params } => self.note(&method, &params, id),
        }
    }

    fn note(&mut self, method: &str, params: &Value, id: u64) -> Taken {
        match method {
            "notifications/progress" if mcp::is_progress_of(id, params) => return Taken::Progress,
            "notifications/tools/list_changed" => self.is_list_stale = true,
            "notifications/message" => match mcp::logged(params) {
                (text, true) => self.log(&text),
                (text, false) => debug!("tool {}: the server says: {}", self.name, self.shown(&text)),
            },
            _ => {}
        }
        Taken::Nothing
    }

    /// Logs a line of the server's.
    pub fn log(&mut self, line: &str) {
        if line.trim().is_empty() || self.logged_lines > LOGGED_LINES_MAX {
            return;
        }
        self.logged_lines += 1;
        if self.logged_lines > LOGGED_LINES_MAX {
            warn!("tool {}: the server has said {LOGGED_LINES_MAX} lines, the further ones are left out", self.name);
        } else {
            info!("tool {}: the server says: {}", self.name, self.shown(line.trim_end()));
        }
    }

    /// Warns once of what is no message.
    pub fn warn_of_garbage(&mut self, bytes: &[u8]) {
        if !std::mem::replace(&mut self.has_warned_of_garbage, true) {
            let text = self.shown(&String::from_utf8_lossy(bytes));
            warn!("tool {}: the server writes what is no message, such lines are skipped: {text}", self.name);
        }
    }

    /// A server's text, masked and short.
    pub fn shown(&self, text: &str) -> String {
        beginning(&self.secrets.mask(text), LOGGED_BYTES_MAX).to_owned()
    }
}
