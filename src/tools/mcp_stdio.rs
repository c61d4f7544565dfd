//! An MCP server that is a child of ours: one message a line over its stdin and stdout, its stderr into the log.

use std::path::PathBuf;
use std::time::Duration;

use super::child::Surroundings;
use super::mcp_desk::{Desk, Patience, Taken};
use super::mcp_fault::Fault;
use crate::config::options::McpServer;
use crate::host::dialog::{Dialog, Heard, LINE_BYTES_MAX};
use crate::host::process::{ProcessError, Start};
use crate::wire::mcp;

/// How long a line is waited for before it is looked what stands on stderr.
const HEAR_WAIT: Duration = Duration::from_secs(1);
/// Lines that are taken between two turns.
const PENDING_LINES_MAX: usize = 1000;

/// A child and what is left of it.
pub struct Stdio {
    dialog: Dialog,
    /// Why there is nothing more to be heard.
    end: Option<String>,
    /// What it wrote to stderr at last.
    last_words: String,
}

impl Stdio {
    /// Starts it. `server` is a child.
    pub fn start(server: &McpServer, surroundings: &Surroundings) -> Result<Stdio, String> {
        let (program, arguments, directory) = match server {
            McpServer::Child { program, arguments, directory, .. } => {
                (program.as_str(), arguments.as_slice(), directory.clone())
            }
            McpServer::Http { .. } => ("", &[][..], PathBuf::new()),
        };
        let arguments: Vec<_> = arguments.iter().map(Into::into).collect();
        let dialog = Dialog::start(&Start {
            program: program.as_ref(),
            arguments: &arguments,
            directory: &surroundings.directory.join(directory),
            environment: &surroundings.environment,
        });
        let dialog = dialog.map_err(|error| match error {
            ProcessError::Directory { .. } => format!("config.cwd: {error}"),
            _ => format!("config.command: {error}"),
        })?;
        Ok(Stdio { dialog, end: None, last_words: String::new() })
    }

    pub fn tell(&mut self, message: &[u8]) {
        self.dialog.say(message);
    }

    /// The answer to the request `id`, which has been told.
    pub fn answer(&mut self, id: u64, desk: &mut Desk, mut patience: Patience) -> Result<serde_json::Value, Fault> {
        loop {
            let heard = self.dialog.hear(patience.left().min(HEAR_WAIT)).unwrap_or(Heard::End);
            self.log_complaints(desk);
            let line = match heard {
                Heard::Line(line) => line,
                Heard::Nothing if patience.is_over() => return Err(Fault::Silent),
                Heard::Nothing => continue,
                Heard::TooLong => {
                    self.finish(desk, &format!("sent a line of more than {LINE_BYTES_MAX} bytes and was ended"));
                    return Err(Fault::Lost(self.end.clone().unwrap_or_default()));
                }
                Heard::End => {
                    let was_taken = !self.dialog.has_unsent();
                    self.finish(desk, "ended");
                    if !was_taken {
                        return Err(Fault::SessionLost);
                    }
                    return Err(Fault::Lost(self.end.clone().unwrap_or_default()));
                }
            };
            let mut answer = None;
            for taken in self.take(&line, id, desk) {
                match taken {
                    Taken::Answer(outcome) => answer = Some(outcome),
                    Taken::Progress => patience.renew(),
                    Taken::Reply(_) | Taken::Nothing => {}
                }
            }
            if let Some(outcome) = answer {
                return outcome.map_err(|error| Fault::Rpc { status: 0, error });
            }
            if patience.is_over() {
                return Err(Fault::Silent);
            }
        }
    }

    /// Takes what has come since the last time, without waiting.
    pub fn take_pending(&mut self, desk: &mut Desk) {
        for _ in 0..PENDING_LINES_MAX {
            if self.end.is_some() {
                return;
            }
            match self.dialog.hear(Duration::ZERO).unwrap_or(Heard::End) {
                // No request is under way, and none has this number.
                Heard::Line(line) => drop(self.take(&line, 0, desk)),
                Heard::Nothing => break,
                Heard::TooLong => self.finish(desk, "sent a line that is too long and was ended"),
                Heard::End => self.finish(desk, "ended"),
            }
        }
        self.log_complaints(desk);
    }

    /// Why nothing more will come of it, once that is so.
    pub fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// It is asked to end, by the end of its input.
    pub fn close(&mut self) {
        self.dialog.close();
    }

    pub fn is_alive(&mut self) -> bool {
        self.end.is_none() && self.dialog.is_alive()
    }

    pub fn ask_to_end(&self) {
        self.dialog.ask_to_end();
    }

    /// Deals with a line; replies have been sent.
    fn take(&mut self, line: &[u8], id: u64, desk: &mut Desk) -> Vec<Taken> {
        if line.trim_ascii().is_empty() {
            return Vec::new();
        }
        let Some(messages) = mcp::read(line) else {
            desk.warn_of_garbage(line);
            return Vec::new();
        };
        let taken: Vec<Taken> = messages.into_iter().map(|message| desk.take(message, id)).collect();
        for one in &taken {
            if let Taken::Reply(reply) = one {
                self.dialog.say(reply);
            }
        }
        taken
    }

    fn log_complaints(&mut self, desk: &mut Desk) {
        for line in self.dialog.take_complaints() {
            desk.log(&line);
            if !line.trim().is_empty() {
                self.last_words = desk.shown(line.trim());
            }
        }
    }

    fn finish(&mut self, desk: &mut Desk, what: &str) {
        let status = self.dialog.end();
        self.log_complaints(desk);
        let words = match self.last_words.as_str() {
            "" => String::new(),
            words => format!("; its last line on stderr: {words}"),
        };
        self.end = Some(format!("the server {what} ({status}){words}"));
    }
}
