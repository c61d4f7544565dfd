//! A conversation that no longer fits: what to shorten, where to cut. Pure.
//!
//! It knows no model.

use serde_json::Value;

use crate::conversation::{Conversation, Message, Part};

/// What a message takes in a request beside its texts: names of fields, ids, marks.
const MESSAGE_BYTES: usize = 40;

/// The size of a conversation, about as it is sent.
pub fn bytes(conversation: &Conversation) -> usize {
    conversation.system.len() + conversation.messages.iter().map(message_bytes).sum::<usize>()
}

fn message_bytes(message: &Message) -> usize {
    MESSAGE_BYTES
        + match message {
            Message::User { text } => text.len(),
            Message::ToolResult(result) => result.text.len() + result.call_id.len(),
            Message::Assistant { parts } => parts.iter().map(part_bytes).sum(),
        }
}

fn part_bytes(part: &Part) -> usize {
    match part {
        Part::Text { text } => text.len(),
        Part::ToolCall(call) => MESSAGE_BYTES + call.id.len() + call.name.len() + value_bytes(&call.arguments),
        Part::Opaque { value } => value_bytes(value),
    }
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        other => other.to_string().len(),
    }
}
