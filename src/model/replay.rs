//! Answers from a file instead of a provider: the turns of a journal, for trying the runtime without a key.
//!
//! Not a mock of a provider: the wire is not exercised. The tools are the real ones, so their results may differ from those
//! that stand in the file; they are not compared. Surprising: `{{result:ID}}` in a string of a recorded turn stands for what the
//! tool call ID really returned in this run, so that a transcript can work with it as a model would.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::Value;

use crate::conversation::{Conversation, Message, Part, Turn};

/// Bytes of a file that are read; a journal of a long run stays far below.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The turns that are still to come.
pub struct Replay {
    turns: VecDeque<Turn>,
    turns_total: usize,
}

impl Replay {
    /// Reads the file: one record a line, of which only turns count. A last line without its end is left out, as after a
    /// crash. Fails with what is wrong and the number of the line, never with what stands there.
    pub fn open(path: &str) -> Result<Replay, String> {
        let file = File::open(path).map_err(|error| format!("the file cannot be opened ({error})"))?;
        let mut reader = BufReader::new(file.take(FILE_BYTES_MAX));
        let mut turns = VecDeque::new();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let length =
                reader.read_until(b'\n', &mut line).map_err(|error| format!("the file cannot be read ({error})"))?;
            if length == 0 {
                break;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match turn_of(&line) {
                Ok(turn) => turns.extend(turn),
                Err(_) if line.last() != Some(&b'\n') => break,
                Err(error) => {
                    let column = error.column();
                    return Err(format!("line {number} column {column}: not a record of a journal"));
                }
            }
        }
        if turns.is_empty() {
            return Err("the file holds no turn".to_owned());
        }
        let turns_total = turns.len();
        Ok(Replay { turns, turns_total })
    }

    /// Leaves out the next turn, which an earlier attempt has had.
    pub fn skip_turn(&mut self) {
        self.turns.pop_front();
    }

    /// The next turn, with what the tools have returned in `conversation` put in its places.
    pub fn next_turn(&mut self, conversation: &Conversation) -> Option<Turn> {
        let mut turn = self.turns.pop_front()?;
        for part in &mut turn.parts {
            match part {
                Part::Text { text } => *text = filled(text, conversation),
                Part::ToolCall(call) => fill(&mut call.arguments, conversation),
                Part::Opaque { .. } => {}
            }
        }
        Some(turn)
    }

    pub fn turns_total(&self) -> usize {
        self.turns_total
    }
}

/// The turn that a line holds; `None`: another record, whatever it is made of.
fn turn_of(line: &[u8]) -> serde_json::Result<Option<Turn>> {
    #[derive(Deserialize)]
    struct Kind {
        record: String,
    }
    let Kind { record } = serde_json::from_slice(line)?;
    if record == "turn" { serde_json::from_slice(line).map(Some) } else { Ok(None) }
}

fn fill(value: &mut Value, conversation: &Conversation) {
    match value {
        Value::String(text) => *text = filled(text, conversation),
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, conversation)),
        Value::Object(fields) => fields.values_mut().for_each(|value| fill(value, conversation)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A place whose call has no result stays as it is.
fn filled(text: &str, conversation: &Conversation) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{result:") {
        whole.push_str(before);
        match after.split_once("}}").and_then(|(id, tail)| Some((result_of(conversation, id)?, tail))) {
            Some((result, tail)) => {
                whole.push_str(result);
                rest = tail;
            }
            None => {
                whole.push_str("{{result:");
                rest = after;
            }
        }
    }
    whole + rest
}

fn result_of<'a>(conversation: &'a Conversation, id: &str) -> Option<&'a str> {
    conversation.messages.iter().find_map(|message| match &**message {
        Message::ToolResult(result) if result.call_id == id => Some(result.text.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::ToolResult;

    #[test]
    fn results_stand_in_their_places() {
        let result = ToolResult { call_id: "a".to_owned(), text: "7 files".to_owned(), is_error: false };
        let conversation = Conversation { system: String::new(), messages: vec![Message::ToolResult(result).into()] };
        assert_eq!(
            filled("x {{result:a}}, {{result:b}} {{result:", &conversation),
            "x 7 files, {{result:b}} {{result:"
        );
    }
}
