//! One question to a language model, made dependable: encode, post, decode, and again when that may help.
//!
//! It knows no tools and no agent. A [`ModelError`] is for a person to repair and ends the run.

mod connection;
mod credential;
mod endpoint;
mod ollama;
mod replay;
mod retry;

use std::fmt;

use self::connection::Connection;
use self::replay::Replay;
use crate::config::{ModelConfig, Network, Provider};
use crate::conversation::{Conversation, Tools, Turn};
use crate::host::http::Roots;
use crate::secret::Secrets;
use crate::wire::context_window_in;

/// A model that can be asked.
pub struct Model {
    config: ModelConfig,
    source: Source,
    /// Tokens that the model can hold, as it said itself when it was asked too much.
    told_window: Option<u64>,
}

enum Source {
    Provider(Box<Connection>),
    Replay(Replay),
}

/// Why the model cannot be asked. Its reader is a person.
#[derive(Debug)]
pub struct ModelError {
    pub kind: ModelErrorKind,
    /// What to look at and what the provider said.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ModelErrorKind {
    /// The configuration cannot be used.
    Config,
    /// The key is missing, refused, or has nothing left to spend.
    Credentials,
    /// The model cannot be reached, is unknown, or does not take the request.
    Unavailable,
    /// The conversation does not fit the model.
    ContextTooLong,
}

impl fmt::Display for ModelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for ModelError {}

impl Model {
    pub fn new(config: &ModelConfig, network: &Network, roots: &Roots, secrets: &Secrets) -> Result<Model, ModelError> {
        let source = match config.provider {
            Provider::Replay => Source::Replay(Replay::open(&config.name).map_err(|what| ModelError {
                kind: ModelErrorKind::Config,
                message: format!(
                    "THOUGHTMESH_MODEL_CONFIG: name: {what}, accepted with provider replay: the path of a journal file"
                ),
            })?),
            _ => Source::Provider(Box::new(Connection::new(config, network, roots, secrets))),
        };
        Ok(Model { config: config.clone(), source, told_window: None })
    }

    /// The model's answer to the conversation so far. Waits, and asks again, as long as that may help.
    pub fn ask(&mut self, conversation: &Conversation, tools: &Tools) -> Result<Turn, ModelError> {
        match &mut self.source {
            Source::Replay(replay) => replay.next_turn(conversation).ok_or_else(|| ModelError {
                kind: ModelErrorKind::Unavailable,
                message: format!("replay: the file holds {} turns, and the run needs more", replay.turns_total()),
            }),
            Source::Provider(connection) => connection.ask(&self.config, conversation, tools).inspect_err(|error| {
                if error.kind == ModelErrorKind::ContextTooLong {
                    self.told_window = context_window_in(&error.message).or(self.told_window);
                }
            }),
        }
    }

    /// Tokens that the model can hold, as far as anybody has said.
    pub fn window(&self) -> Option<u64> {
        match &self.source {
            Source::Replay(_) => None,
            Source::Provider(connection) => {
                let served = connection.served_window().or(self.config.context_window);
                self.told_window.into_iter().chain(served).min()
            }
        }
    }

    /// Leaves out answers that an earlier process has had from a `replay`.
    pub fn skip_turns(&mut self, count: u64) {
        if let Source::Replay(replay) = &mut self.source {
            (0..count).for_each(|_| replay.skip_turn());
        }
    }

    /// What would be asked, without secrets, on one line.
    pub fn describe(&self) -> String {
        match &self.source {
            Source::Replay(replay) => format!("replay of {} turns from {}", replay.turns_total(), self.config.name),
            Source::Provider(connection) => {
                format!("{} {} at {}", self.config.provider.name(), self.config.name, connection.url())
            }
        }
    }
}
