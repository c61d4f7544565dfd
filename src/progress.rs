//! Where a run stands: its records added up, and what follows from the last turn. Pure.
//!
//! [`Progress::add`] is the only way in which a run moves on. The live run adds each record when it has been written, and a
//! later process adds those that it finds in the journal; so both stand at the same place, with the same conversation,
//! budgets and counters, and a decision that a crash has cut off is made again with the same result.
//!
//! What may surprise: tool results enter the conversation when the last call of their turn has one, in the order of the
//! calls, because that is how providers want them; they are recorded in the order in which they came.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use serde_json::Value;

use crate::compaction;
use crate::conversation::{Conversation, Message, Record, StopReason, ToolCall, ToolResult, Turn, Usage};
use crate::outcome::{KeyResultState, Outcome, Reason, Spent};
use crate::prompt;
use crate::tools::finish::{self, Finish};
use crate::trail::Trail;

/// Turns in a row without a tool call, after which there is no verdict to be had.
const TURNS_WITHOUT_CALLS_MAX: u32 = 3;
/// Turns in a row that were cut off, or refused, after which the run ends.
const SPOILED_TURNS_MAX: u32 = 2;
/// Turns in a row that the provider may pause; after that a pause counts as an answer.
const PAUSES_MAX: u32 = 5;

/// Where a run stands.
pub struct Progress {
    pub conversation: Conversation,
    /// Of all processes that worked on the run. The seconds are kept by the agent.
    pub spent: Spent,
    pub key_results: Vec<KeyResultState>,
    pub rejections: u64,
    /// A tool call other than `finish` succeeded.
    pub had_success: bool,
    /// The last text that the model wrote.
    pub last_words: String,
    /// The turn that is being dealt with.
    pub open_turn: Option<OpenTurn>,
    /// What the tools did.
    pub trail: Trail,
    /// Bytes of the conversation when the model answered last, and what that took.
    pub measured: Option<(usize, Usage)>,
    /// Verdicts of the verifier.
    pub verifications: u64,
    streak: Streak,
    /// Hashes of every (tool, arguments, result) of the run.
    seen: HashSet<u64>,
    /// Turns in a row that added nothing to `seen`, the open one not included.
    stalled_turns: u64,
    processes: u64,
    verdict: Option<(Reason, String)>,
}

/// A turn from its arrival to the next question.
pub struct OpenTurn {
    /// What follows from it.
    pub next: Next,
    pub calls: Vec<OpenCall>,
    /// Its claim of achievement was not believed.
    pub is_rejected: bool,
    /// What the verifier says of it: for each key result why it is not met, or nothing.
    pub verifier_faults: Option<Vec<Option<String>>>,
    /// What the runtime has said since.
    said: Vec<String>,
    is_new: bool,
}

/// A tool call and how far it has come.
#[derive(Clone)]
pub struct OpenCall {
    pub call: ToolCall,
    pub is_started: bool,
    pub result: Option<ToolResult>,
}

impl Progress {
    /// A run before its first turn.
    pub fn new(opening: Conversation, key_results: usize, trail: Trail) -> Progress {
        Progress {
            conversation: opening,
            spent: Spent::default(),
            key_results: (1..=key_results).map(KeyResultState::unmet).collect(),
            rejections: 0,
            had_success: false,
            last_words: String::new(),
            open_turn: None,
            trail,
            measured: None,
            verifications: 0,
            streak: Streak::default(),
            seen: HashSet::new(),
            stalled_turns: 0,
            processes: 0,
            verdict: None,
        }
    }

    /// Moves the run on by one record.
    pub fn add(&mut self, record: Record) {
        self.trail.add(&record);
        match record {
            Record::Start { .. } | Record::Resume => self.processes += 1,
            Record::ModelCallStart => {
                self.stalled_turns = self.stalled_turns();
                self.open_turn = None;
                self.spent.llm_calls += 1;
            }
            Record::Turn(turn) => self.add_turn(turn),
            Record::ToolCallStart { call_id } => {
                let open = self.open_call(&call_id).filter(|open| !open.is_started);
                if let Some(open) = open {
                    open.is_started = true;
                    self.spent.tool_calls += 1;
                }
            }
            Record::ToolResult(result) => self.add_result(result),
            Record::User { text } => self.say(text),
            Record::Rejection { call_id, text, key_results } => {
                self.rejections += 1;
                self.key_results = serde_json::from_value(key_results).unwrap_or_default();
                if let Some(turn) = &mut self.open_turn {
                    turn.is_rejected = true;
                }
                match call_id {
                    Some(call_id) => self.add_result(ToolResult { call_id, text, is_error: true }),
                    None => self.say(text),
                }
            }
            Record::VerificationStart => {
                self.spent.llm_calls += 1;
                self.spent.verifier_calls += 1;
            }
            Record::Verification { faults, usage } => self.add_verification(faults, usage),
            Record::SummaryStart => self.spent.llm_calls += 1,
            Record::Compaction { edits, usage } => {
                self.spent.usage = self.spent.usage.plus(usage.unwrap_or_default());
                self.conversation.edit(&edits);
            }
            Record::Outcome { reason, result, key_results } => {
                self.key_results = serde_json::from_value(key_results).unwrap_or_default();
                self.verdict = Reason::from_word(&reason).map(|reason| (reason, result));
            }
            Record::Unknown => {}
        }
    }

    fn add_verification(&mut self, faults: Vec<Option<String>>, usage: Usage) {
        self.verifications += 1;
        self.spent.usage = self.spent.usage.plus(usage);
        self.spent.verifier_usage = self.spent.verifier_usage.plus(usage);
        if let Some(turn) = &mut self.open_turn {
            turn.verifier_faults = Some(faults);
        }
    }

    fn add_turn(&mut self, turn: Turn) {
        // The answer is not in it yet.
        self.measured = Some((compaction::bytes(&self.conversation), turn.usage));
        self.spent.turns += 1;
        self.spent.usage = self.spent.usage.plus(turn.usage);
        let words = turn.text();
        if !words.is_empty() {
            self.last_words = words;
        }
        let calls = turn.tool_calls().map(|call| OpenCall { call: call.clone(), is_started: false, result: None });
        self.open_turn = Some(OpenTurn {
            next: decide(&turn, &mut self.streak),
            calls: calls.collect(),
            is_rejected: false,
            verifier_faults: None,
            said: Vec::new(),
            is_new: false,
        });
        self.conversation.messages.push(Rc::new(Message::Assistant { parts: turn.parts }));
    }

    fn add_result(&mut self, result: ToolResult) {
        let Some(turn) = &mut self.open_turn else { return };
        let Some(open) = turn.calls.iter_mut().find(|open| open.call.id == result.call_id) else { return };
        if turn.next == Next::RunTools {
            turn.is_new |= self.seen.insert(hash_of(&open.call, &result));
        }
        self.had_success |= !result.is_error && open.call.name != finish::NAME;
        open.result = Some(result);
        if turn.calls.iter().all(|open| open.result.is_some()) {
            let results = turn.calls.iter().filter_map(|open| open.result.clone());
            self.conversation.messages.extend(results.map(Message::ToolResult).map(Rc::new));
        }
    }

    fn say(&mut self, text: String) {
        if let Some(turn) = &mut self.open_turn {
            turn.said.push(text.clone());
        }
        self.conversation.messages.push(Rc::new(Message::User { text }));
    }

    fn open_call(&mut self, id: &str) -> Option<&mut OpenCall> {
        self.open_turn.as_mut()?.calls.iter_mut().find(|open| open.call.id == id)
    }

    /// Turns in a row that brought nothing new, the open one included.
    pub fn stalled_turns(&self) -> u64 {
        match &self.open_turn {
            None => self.stalled_turns,
            Some(turn) if turn.is_new => 0,
            Some(_) => self.stalled_turns + 1,
        }
    }

    /// Whether the model has been told this since its last turn.
    pub fn was_said(&self, text: &str) -> bool {
        self.open_turn.as_ref().is_some_and(|turn| turn.said.iter().any(|said| said == text))
    }

    /// An earlier process began this run.
    pub fn is_resumed(&self) -> bool {
        self.processes > 1
    }

    /// How the run ended, if it has; `seconds` is what it took.
    pub fn outcome(&self, seconds: f64) -> Option<Outcome> {
        let (reason, result) = self.verdict.clone()?;
        Some(Outcome {
            reason,
            result,
            key_results: self.key_results.clone(),
            spent: Spent { seconds, ..self.spent },
            resumed: self.is_resumed(),
        })
    }
}

fn hash_of(call: &ToolCall, result: &ToolResult) -> u64 {
    let mut hasher = DefaultHasher::new();
    let arguments = match call.arguments_object() {
        Ok(mut arguments) => {
            arguments.values_mut().for_each(Value::sort_all_objects);
            arguments.sort_keys();
            Value::Object(arguments)
        }
        Err(_) => call.arguments.clone(),
    };
    (&call.name, arguments.to_string(), &result.text).hash(&mut hasher);
    hasher.finish()
}

/// What follows from a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    RunTools,
    /// The arguments of `finish`, given in words by a model that cannot call tools.
    Finish(Finish),
    /// The same question once more.
    AskAgain,
    /// Answer calls that are not run, say this to the model, and ask.
    Say(String),
    /// The answer found no room: as `Say`, of a conversation that is made shorter.
    MakeRoom,
    End(Reason, &'static str),
}

/// What the last turns had in common.
#[derive(Debug, Default, PartialEq)]
pub struct Streak {
    without_calls: u32,
    cut_off: u32,
    refused: u32,
    paused: u32,
    was_empty: bool,
}

/// What follows from a turn, given what came before.
pub fn decide(turn: &Turn, streak: &mut Streak) -> Next {
    let before = std::mem::take(streak);
    let text = turn.text();
    match turn.stop_reason {
        StopReason::ContextFull => return Next::MakeRoom,
        StopReason::TokenLimit => {
            streak.cut_off = before.cut_off + 1;
            if streak.cut_off >= SPOILED_TURNS_MAX {
                return Next::End(Reason::NoVerdict, "two answers in a row were cut off by the limit on output tokens");
            }
            return Next::Say(prompt::CUT_OFF.to_owned());
        }
        StopReason::Refused => {
            streak.refused = before.refused + 1;
            if streak.refused >= SPOILED_TURNS_MAX {
                return Next::End(Reason::Refused, "two answers in a row were refused or removed by a filter");
            }
            return Next::Say(prompt::REFUSED.to_owned());
        }
        _ if turn.tool_calls().next().is_some() => return Next::RunTools,
        StopReason::Paused if before.paused < PAUSES_MAX => {
            *streak = Streak { paused: before.paused + 1, without_calls: before.without_calls, ..Streak::default() };
            return Next::AskAgain;
        }
        _ if text.is_empty() && !before.was_empty => {
            *streak = Streak { was_empty: true, without_calls: before.without_calls, ..Streak::default() };
            return Next::AskAgain;
        }
        _ => {}
    }
    let problem = match finish_in_words(turn) {
        Some(Ok(finish)) => return Next::Finish(finish),
        Some(Err(what)) => Some(what),
        None => None,
    };
    streak.was_empty = text.is_empty();
    streak.without_calls = before.without_calls + 1;
    if streak.without_calls >= TURNS_WITHOUT_CALLS_MAX {
        return Next::End(Reason::NoVerdict, "three answers in a row called no tool, so there is no verdict");
    }
    Next::Say(prompt::how_to_finish(problem.as_deref()))
}

/// The arguments of `finish` as one JSON object and nothing else. `None`: these are just words.
fn finish_in_words(turn: &Turn) -> Option<Result<Finish, String>> {
    Some(Finish::read(&turn.whole_object()?).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conversation::Part;
    use crate::secret::Secrets;

    fn turn(ids: &[&str]) -> Record {
        let call =
            |id: &&str| Part::ToolCall(ToolCall { id: id.to_string(), name: "a".to_owned(), arguments: json!({}) });
        let usage = Usage { input_tokens: 5, ..Usage::default() };
        Record::Turn(Turn { parts: ids.iter().map(call).collect(), stop_reason: StopReason::ToolCalls, usage })
    }

    fn result(id: &str) -> Record {
        Record::ToolResult(ToolResult { call_id: id.to_owned(), text: "same".to_owned(), is_error: false })
    }

    fn after(records: &[Record]) -> Progress {
        let trail = Trail::new(true, finish::NAME, Secrets::default());
        let mut progress = Progress::new(Conversation::default(), 1, trail);
        records.iter().for_each(|record| progress.add(record.clone()));
        progress
    }

    #[test]
    fn results_enter_the_conversation_in_the_order_of_the_calls() {
        let mut progress = after(&[Record::ModelCallStart, turn(&["1", "2"]), result("2")]);
        assert_eq!(progress.conversation.messages.len(), 1);
        progress.add(result("1"));
        let ids = progress.conversation.messages.iter().filter_map(|message| match &**message {
            Message::ToolResult(result) => Some(result.call_id.as_str()),
            _ => None,
        });
        assert_eq!(ids.collect::<Vec<_>>(), ["1", "2"]);
    }

    #[test]
    fn a_turn_that_repeats_what_was_seen_is_stalled_from_its_own_end_on() {
        let round = |id: &str| vec![Record::ModelCallStart, turn(&[id]), result(id)];
        let mut records = round("1");
        assert_eq!(after(&records).stalled_turns(), 0);
        for count in 1..4 {
            records.extend(round(&count.to_string()));
            assert_eq!(after(&records).stalled_turns(), count);
        }
    }

    #[test]
    fn a_call_is_counted_once_and_a_question_each_time() {
        let start = Record::ToolCallStart { call_id: "1".to_owned() };
        let records = [
            Record::ModelCallStart,
            Record::Resume,
            Record::ModelCallStart,
            turn(&["1"]),
            start.clone(),
            Record::Resume,
            start,
        ];
        let spent = after(&records).spent;
        assert_eq!((spent.llm_calls, spent.turns, spent.tool_calls, spent.usage.input_tokens), (2, 1, 1, 5));
    }

    #[test]
    fn what_the_verifier_takes_is_in_the_totals_and_apart() {
        let usage = Usage { input_tokens: 3, ..Usage::default() };
        let verification = Record::Verification { faults: vec![Some("no".to_owned())], usage };
        let start = || Record::VerificationStart;
        // The first question was under way when its process ended.
        let records = [Record::ModelCallStart, turn(&["1"]), start(), Record::Resume, start(), verification];
        let mut progress = after(&records);
        let spent = progress.spent;
        assert_eq!((spent.llm_calls, spent.verifier_calls, progress.verifications), (3, 2, 1));
        assert_eq!((spent.usage.input_tokens, spent.verifier_usage.input_tokens), (8, 3));
        let faults = |progress: &Progress| progress.open_turn.as_ref().map(|turn| turn.verifier_faults.clone());
        assert_eq!(faults(&progress), Some(Some(vec![Some("no".to_owned())])));
        for record in [Record::ModelCallStart, turn(&["2"])] {
            progress.add(record);
        }
        assert_eq!(faults(&progress), Some(None));
    }

    fn said(text: &str, stop_reason: StopReason) -> Turn {
        Turn { parts: vec![Part::Text { text: text.to_owned() }], stop_reason, usage: Usage::default() }
    }

    #[test]
    fn a_paused_turn_goes_on_a_bounded_number_of_times() {
        let mut streak = Streak::default();
        for _ in 0..PAUSES_MAX {
            assert_eq!(decide(&said("Searching.", StopReason::Paused), &mut streak), Next::AskAgain);
        }
        assert!(matches!(decide(&said("Searching.", StopReason::Paused), &mut streak), Next::Say(_)));
    }
}
