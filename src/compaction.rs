//! A conversation that no longer fits: what to shorten, where to cut. Pure.
//!
//! First the oldest tool results become notes of what they were; if that is not enough, the older part gives way to one
//! message. A call is never parted from its result: cuts lie before an answer of the model, or after everything. The first
//! message, with objective and key results, is never touched. Surprising: sizes are bytes, because tokens are known only
//! for a whole request, afterwards.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::conversation::{Conversation, Edit, Message, Part, ToolCall};
use crate::secret::Secrets;
use crate::tools::excerpt;

/// What a message takes in a request beside its texts: names of fields, ids, marks.
const MESSAGE_BYTES: usize = 40;
/// A result is shortened only where this much is won, so that a note is never shortened again.
const WON_BYTES_MIN: usize = 64;
/// Bytes of a call's arguments that stand in the note of its result.
const NOTE_ARGUMENTS_BYTES_MAX: usize = 100;
/// Less than this is not worth a cut: the message in its place takes as much.
const OLDER_BYTES_MIN: usize = 640;
/// Bytes of a summary of the older part.
const SUMMARY_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one result, or of one call's arguments, in a transcript.
const TRANSCRIPT_TEXT_BYTES_MAX: usize = 800;
/// A result of the last turn is not shortened below this.
const LATEST_BYTES_MIN: usize = 256;

/// What can be done to make a conversation shorter.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Results that become shorter.
    pub edits: Vec<Edit>,
    /// The messages after the first, up to but not including this one, are to give way to one message.
    pub older: Option<Older>,
    /// At least this many bytes are won.
    pub won_bytes: usize,
}

/// The part of a conversation that gives way.
#[derive(Debug, PartialEq)]
pub struct Older {
    pub end: usize,
    /// Bytes of what comes in its place, at most, so that the conversation becomes shorter in any case.
    pub summary_bytes_max: usize,
}

/// How to come to `bytes_max` or near it. `None`: nothing can be dropped any more. What is cut is masked first, because half
/// a secret could no longer be recognized in the journal.
pub fn plan(conversation: &Conversation, bytes_max: usize, secrets: &Secrets) -> Option<Plan> {
    let now = bytes(conversation);
    let shorter = shorten_oldest(conversation, bytes_max, secrets);
    let won_bytes = won(conversation, &shorter);
    // A summary costs a call and loses more, so half as much again is near enough.
    if !shorter.is_empty() && now - won_bytes <= bytes_max.saturating_add(bytes_max / 2) {
        return Some(Plan { edits: shorter, older: None, won_bytes });
    }
    if let Some(older) = older(conversation, &shorter, bytes_max) {
        let is_after = |edit: &Edit| matches!(edit, Edit::Shorten { message, .. } if *message >= older.end);
        let edits: Vec<Edit> = shorter.into_iter().filter(is_after).collect();
        let won_bytes =
            won(conversation, &edits) + part_bytes_between(conversation, older.end) - older.summary_bytes_max;
        return Some(Plan { edits, older: Some(older), won_bytes });
    }
    let edits = [shorter, shorten_latest(conversation, bytes_max)].concat();
    if !edits.is_empty() {
        let won_bytes = won(conversation, &edits);
        return Some(Plan { edits, older: None, won_bytes });
    }
    // The last turn itself is all there is.
    let end = conversation.messages.len();
    let gone = part_bytes_between(conversation, end);
    let older = Older { end, summary_bytes_max: summary_bytes_max(gone) };
    (gone >= OLDER_BYTES_MIN).then(|| Plan {
        edits: Vec::new(),
        won_bytes: gone - older.summary_bytes_max,
        older: Some(older),
    })
}

fn summary_bytes_max(gone: usize) -> usize {
    (gone / 2).min(SUMMARY_BYTES_MAX)
}

/// Bytes of the messages after the first, up to but not including `end`.
fn part_bytes_between(conversation: &Conversation, end: usize) -> usize {
    conversation.messages.get(1..end).unwrap_or_default().iter().map(|message| message_bytes(message)).sum()
}

/// What these edits win, which all shorten.
fn won(conversation: &Conversation, edits: &[Edit]) -> usize {
    let wins = edits.iter().filter_map(|edit| match edit {
        Edit::Shorten { message, text } => match &**conversation.messages.get(*message)? {
            Message::ToolResult(result) => Some(result.text.len().saturating_sub(text.len())),
            _ => None,
        },
        Edit::Replace { .. } => None,
    });
    wins.sum()
}

/// Where the model's last answer stands; results before it have been read.
fn last_turn(conversation: &Conversation) -> usize {
    conversation.messages.iter().rposition(|message| matches!(**message, Message::Assistant { .. })).unwrap_or(0)
}

/// Results become notes of what they were, from the oldest on, until the rest fits or only those of the last turn are left.
fn shorten_oldest(conversation: &Conversation, bytes_max: usize, secrets: &Secrets) -> Vec<Edit> {
    let calls = calls(conversation);
    let mut left = bytes(conversation);
    let mut edits = Vec::new();
    for (message, entry) in conversation.messages.iter().enumerate().take(last_turn(conversation)) {
        let Message::ToolResult(result) = &**entry else { continue };
        if left <= bytes_max {
            break;
        }
        let call = calls.get(result.call_id.as_str()).copied();
        let text = note(call, result.text.len(), result.is_error, secrets);
        if text.len() + WON_BYTES_MIN <= result.text.len() {
            left -= result.text.len() - text.len();
            edits.push(Edit::Shorten { message, text });
        }
    }
    edits
}

fn note(call: Option<&ToolCall>, bytes: usize, is_error: bool, secrets: &Secrets) -> String {
    let (name, arguments) =
        call.map_or(("a tool", String::new()), |call| (call.name.as_str(), arguments_text(&call.arguments)));
    let arguments = excerpt::excerpt(&secrets.mask(&arguments), NOTE_ARGUMENTS_BYTES_MAX, "");
    let name = excerpt::beginning(name, NOTE_ARGUMENTS_BYTES_MAX);
    let how = if is_error { "failed with" } else { "returned" };
    format!("[removed to make room: {name} {arguments} {how} {bytes} bytes; call it again if you need them]")
}

fn calls(conversation: &Conversation) -> HashMap<&str, &ToolCall> {
    let parts = conversation.messages.iter().filter_map(|message| match &**message {
        Message::Assistant { parts } => Some(parts),
        _ => None,
    });
    let calls = parts.flatten().filter_map(|part| match part {
        Part::ToolCall(call) => Some((call.id.as_str(), call)),
        _ => None,
    });
    calls.collect()
}

/// The shortest older part whose end makes the rest fit; where none does, all but the last turn.
fn older(conversation: &Conversation, shorter: &[Edit], bytes_max: usize) -> Option<Older> {
    let messages = &conversation.messages;
    let kept_at_first = conversation.system.len() + messages.first().map_or(0, |message| message_bytes(message));
    let room = bytes_max.saturating_sub(kept_at_first + SUMMARY_BYTES_MAX.min(bytes_max / 8));
    let notes: HashMap<usize, usize> = shorter
        .iter()
        .filter_map(|edit| match edit {
            Edit::Shorten { message, text } => Some((*message, text.len() + MESSAGE_BYTES)),
            Edit::Replace { .. } => None,
        })
        .collect();
    let mut rest = 0;
    let mut end = None;
    for (index, message) in messages.iter().enumerate().skip(2).rev() {
        rest += notes.get(&index).copied().unwrap_or_else(|| message_bytes(message));
        let is_cut = matches!(**message, Message::Assistant { .. });
        if is_cut && (rest <= room || end.is_none()) {
            end = Some(index);
        }
    }
    let end = end?;
    let gone = part_bytes_between(conversation, end);
    (gone >= OLDER_BYTES_MIN).then(|| Older { end, summary_bytes_max: summary_bytes_max(gone) })
}

/// The results of the last turn share what room there is.
fn shorten_latest(conversation: &Conversation, bytes_max: usize) -> Vec<Edit> {
    let results: Vec<(usize, &str)> = conversation
        .messages
        .iter()
        .enumerate()
        .skip(last_turn(conversation))
        .filter_map(|(index, message)| match &**message {
            Message::ToolResult(result) => Some((index, result.text.as_str())),
            _ => None,
        })
        .collect();
    let all: usize = results.iter().map(|(_, text)| text.len()).sum();
    let room = bytes_max.saturating_sub(bytes(conversation) - all);
    let each = (room / results.len().max(1)).max(LATEST_BYTES_MIN);
    let longer = results.into_iter().filter(|(_, text)| text.len() >= each + WON_BYTES_MIN);
    longer
        .map(|(message, text)| Edit::Shorten { message, text: excerpt::excerpt(text, each, "removed to make room") })
        .collect()
}

/// The messages as one JSON object a line, each text cut, at most `bytes_max` bytes: what a summary is made from.
pub fn transcript(messages: &[Rc<Message>], bytes_max: usize) -> String {
    let cut = |text: &str| excerpt::excerpt(text, TRANSCRIPT_TEXT_BYTES_MAX, "");
    let mut lines = Vec::new();
    for message in messages {
        match &**message {
            Message::User { text } => lines.push(json!({"runtime": excerpt::excerpt(text, SUMMARY_BYTES_MAX, "")})),
            Message::ToolResult(result) => lines.push(json!({"result": cut(&result.text), "failed": result.is_error})),
            Message::Assistant { parts } => lines.extend(parts.iter().filter_map(|part| match part {
                Part::Text { text } => Some(json!({"said": cut(text)})),
                Part::ToolCall(call) => {
                    Some(json!({"call": call.name, "arguments": cut(&arguments_text(&call.arguments))}))
                }
                Part::Opaque { .. } => None,
            })),
        }
    }
    let lines: Vec<String> = lines.iter().map(Value::to_string).collect();
    excerpt::excerpt(&lines.join("\n"), bytes_max, "")
}

fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The size of a conversation, about as it is sent.
pub fn bytes(conversation: &Conversation) -> usize {
    conversation.system.len() + conversation.messages.iter().map(|message| message_bytes(message)).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::ToolResult;
    use crate::testing::{Random, check_property};

    fn words(random: &mut Random, bytes: usize) -> String {
        (0..random.below(bytes)).map(|_| random.pick(&['a', 'é', ' ', '\n', '"', '🙂'])).collect()
    }

    fn any_conversation(random: &mut Random) -> Conversation {
        let mut messages = vec![Rc::new(Message::User { text: words(random, 600) })];
        for turn in 0..random.below(30) {
            let calls = random.below(4);
            let mut parts = vec![Part::Text { text: words(random, 200) }];
            parts.extend((0..calls).map(|call| {
                let arguments = json!({"text": words(random, 300)});
                Part::ToolCall(ToolCall { id: format!("{turn}-{call}"), name: "read_file".to_owned(), arguments })
            }));
            messages.push(Rc::new(Message::Assistant { parts }));
            for call in 0..calls {
                let text = words(random, 2000);
                let result = ToolResult { call_id: format!("{turn}-{call}"), text, is_error: false };
                messages.push(Rc::new(Message::ToolResult(result)));
            }
            if calls == 0 || random.below(5) == 0 {
                messages.push(Rc::new(Message::User { text: words(random, 500) }));
            }
        }
        Conversation { system: words(random, 500), messages }
    }

    /// Every result follows its call, and every call has its result.
    fn assert_whole(conversation: &Conversation) {
        let mut open: Vec<String> = Vec::new();
        for message in &conversation.messages {
            match &**message {
                Message::ToolResult(result) => {
                    let place = open.iter().position(|id| *id == result.call_id).expect("a result without its call");
                    open.remove(place);
                }
                Message::User { .. } => assert!(open.is_empty(), "a call without its result"),
                Message::Assistant { parts } => {
                    assert!(open.is_empty(), "a call without its result");
                    let ids = parts.iter().filter_map(|part| match part {
                        Part::ToolCall(call) => Some(call.id.clone()),
                        _ => None,
                    });
                    open.extend(ids);
                }
            }
        }
        assert!(open.is_empty(), "a call without its result");
    }

    fn applied(conversation: &Conversation, plan: Plan) -> Conversation {
        let mut shorter = conversation.clone();
        let replace = plan
            .older
            .map(|Older { end, summary_bytes_max }| Edit::Replace { end, text: "s".repeat(summary_bytes_max) });
        shorter.edit(&[plan.edits, replace.into_iter().collect()].concat());
        shorter
    }

    #[test]
    fn any_plan_makes_it_shorter_and_keeps_what_belongs_together() {
        check_property(150, |random: &mut Random| {
            let mut conversation = any_conversation(random);
            let first = conversation.messages[0].clone();
            for _ in 0..40 {
                let before = bytes(&conversation);
                let Some(plan) = plan(&conversation, before / 2, &Secrets::default()) else {
                    assert!(
                        conversation.messages.len() <= 1
                            || part_bytes_between(&conversation, conversation.messages.len()) < OLDER_BYTES_MIN
                    );
                    return;
                };
                let won = plan.won_bytes;
                conversation = applied(&conversation, plan);
                assert!(bytes(&conversation) < before, "{before} bytes are not fewer");
                assert!(bytes(&conversation) <= before + MESSAGE_BYTES - won, "less was won than said");
                assert_eq!(conversation.messages[0], first);
                assert_whole(&conversation);
            }
            panic!("it does not come to an end");
        });
    }

    #[test]
    fn the_oldest_results_go_first_and_the_last_turn_stays() {
        let mut messages = vec![Rc::new(Message::User { text: "objective".to_owned() })];
        for turn in 0..10 {
            let call =
                ToolCall { id: format!("{turn}"), name: "read_file".to_owned(), arguments: json!({"path": "a.txt"}) };
            messages.push(Rc::new(Message::Assistant { parts: vec![Part::ToolCall(call)] }));
            let result = ToolResult { call_id: format!("{turn}"), text: "x".repeat(1000), is_error: false };
            messages.push(Rc::new(Message::ToolResult(result)));
        }
        let conversation = Conversation { system: String::new(), messages };
        let now = bytes(&conversation);
        let plan = plan(&conversation, now - 2000, &Secrets::default()).unwrap();
        let places: Vec<usize> = plan
            .edits
            .iter()
            .map(|edit| match edit {
                Edit::Shorten { message, .. } => *message,
                Edit::Replace { .. } => 0,
            })
            .collect();
        assert_eq!((places, plan.older), (vec![2, 4, 6], None));
        let Edit::Shorten { text, .. } = &plan.edits[0] else { panic!("no note") };
        assert_eq!(
            text,
            "[removed to make room: read_file {\"path\":\"a.txt\"} returned 1000 bytes; call it again if you need them]"
        );
    }

    #[test]
    fn a_transcript_is_bounded_and_no_text_breaks_out_of_its_line() {
        check_property(50, |random: &mut Random| {
            let conversation = any_conversation(random);
            let whole = transcript(&conversation.messages, usize::MAX);
            assert!(whole.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
            assert!(transcript(&conversation.messages, 3000).len() <= 3000);
        });
    }
}
