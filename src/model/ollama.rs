//! What Ollama's servers need beside the exchange itself: the size of the context, and a look whether the prompt fitted.
//!
//! Ollama's default context is a few thousand tokens, and what does not fit is dropped without a word. So the size is
//! always said, and after each turn the server's count is compared with what was sent.

use log::{info, warn};
use serde_json::{Map, Value, json};

use super::connection::Fault;
use crate::conversation::{Conversation, ToolSpec, Usage};
use crate::wire::ollama::{self, Measured};
use crate::wire::{ApiFault, FaultKind, Options};

/// Tokens of context that are asked for at most, where nobody says otherwise: memory grows with it, and the documentation
/// wants at least 64,000 for agents (Ollama's documentation, "Context length", read 2026-11).
const NUM_CTX_MAX: u64 = 65_536;

#[derive(Default)]
pub struct Ollama {
    /// The context in force; 0 while it is not known.
    num_ctx: u64,
    is_prepared: bool,
    before: Option<Measured>,
}

impl Ollama {
    pub fn is_prepared(&self) -> bool {
        self.is_prepared
    }

    /// The context in force, once it is known.
    pub fn window(&self) -> Option<u64> {
        Some(self.num_ctx).filter(|num_ctx| *num_ctx > 0)
    }

    /// Chooses the size of the context from what the server shows of the model, and puts it into the options, unless it
    /// stands there. Whether the model is without tools.
    pub fn prepare(&mut self, shown: &[u8], context_window: Option<u64>, options: &mut Options) -> bool {
        let shown = ollama::decode_shown(shown);
        let chosen = chosen_num_ctx(&options.parameters).or(context_window).or(shown.num_ctx);
        let wanted = chosen.or_else(|| Some(shown.context_length?.min(NUM_CTX_MAX)));
        if let Some(num_ctx) = wanted {
            if chosen_num_ctx(&options.parameters).is_none() {
                options.parameters.insert("num_ctx".to_owned(), json!(num_ctx));
            }
            self.num_ctx = num_ctx.min(shown.context_length.unwrap_or(num_ctx));
            info!("model: a context of {} tokens", self.num_ctx);
        } else {
            warn!("model: the server does not say what the model can hold; set context_window or params.num_ctx");
        }
        self.is_prepared = true;
        shown.has_tools == Some(false)
    }

    /// A prompt that the server has cut counts as one that is too long.
    pub fn check_prompt(&mut self, conversation: &Conversation, tools: &[ToolSpec], usage: Usage) -> Result<(), Fault> {
        if usage.is_estimate || self.num_ctx == 0 {
            return Ok(());
        }
        let prompt_bytes = ollama::prompt_bytes(conversation, tools);
        let now = Measured { prompt_bytes, input_tokens: usage.input_tokens };
        if ollama::is_prompt_cut(conversation, now, self.before, self.num_ctx) {
            let message = format!("the server has cut the prompt to its context of {} tokens", self.num_ctx);
            let fault = ApiFault { kind: FaultKind::ContextTooLong, message, parameter: None, retry_after: None };
            return Err(Fault::Api { fault, status: 200, server_wait: None });
        }
        self.before = Some(now);
        Ok(())
    }
}

fn chosen_num_ctx(parameters: &Map<String, Value>) -> Option<u64> {
    parameters.get("num_ctx").or_else(|| parameters.get("options")?.get("num_ctx")).and_then(Value::as_u64)
}
