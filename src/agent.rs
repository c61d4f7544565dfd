//! The loop: ask, record, decide, act. The one module that knows every room, so it stays short.
//!
//! What follows from a turn is decided by a pure function, [`decide`]; when the run may end with 0, by [`Agent::judge`] and
//! nothing else. Surprising: there is no deadline here. The Job has one, and it arrives as a signal.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use log::{info, warn};
use serde_json::Value;

use crate::config::Config;
use crate::conversation::{Conversation, Message, Record, StopReason, ToolCall, ToolResult, Turn};
use crate::host::stop;
use crate::model::Model;
use crate::outcome::{CheckState, Fatal, KeyResultState, Outcome, Reason, Spent};
use crate::prompt;
use crate::tools::Toolbox;
use crate::tools::finish::{self, Finish, FinishStatus};
use crate::verify;

/// Turns in a row without a tool call, after which there is no verdict to be had.
const TURNS_WITHOUT_CALLS_MAX: u32 = 3;
/// Turns in a row that were cut off, or refused, after which the run ends.
const SPOILED_TURNS_MAX: u32 = 2;
/// Turns in a row that the provider may pause; after that a pause counts as an answer.
const PAUSES_MAX: u32 = 5;
/// Tool calls of one turn that are run; no model that knows what it does asks for more.
const CALLS_PER_TURN_MAX: usize = 128;

/// One objective, pursued once.
pub struct Agent {
    config: Config,
    model: Model,
    toolbox: Toolbox,
    conversation: Conversation,
    started: Instant,
    spent: Spent,
    streak: Streak,
    rejections: u64,
    /// Hashes of every (tool, arguments, result) of the run.
    seen: HashSet<u64>,
    /// Turns in a row that added nothing to `seen`.
    stalled_turns: u64,
    /// A tool call other than `finish` succeeded.
    had_success: bool,
    key_results: Vec<KeyResultState>,
    last_words: String,
}

/// The end of the run: one word, and the text for a person.
struct End {
    reason: Reason,
    result: String,
}

impl End {
    fn new(reason: Reason, result: impl Into<String>) -> End {
        End { reason, result: result.into() }
    }
}

impl Agent {
    pub fn new(config: Config, model: Model, toolbox: Toolbox) -> Agent {
        let conversation = prompt::opening(&config);
        let key_results = (1..=config.key_results.len()).map(KeyResultState::unmet).collect();
        Agent {
            config,
            model,
            toolbox,
            conversation,
            started: Instant::now(),
            spent: Spent::default(),
            streak: Streak::default(),
            rejections: 0,
            seen: HashSet::new(),
            stalled_turns: 0,
            had_success: false,
            key_results,
            last_words: String::new(),
        }
    }

    /// What would run, for a person, without secrets.
    pub fn describe(&self) -> String {
        let config = &self.config;
        let mut text = format!(
            "model: {}\nobjective: {}\nworkspace: {}\ntools: {}\n",
            self.model.describe(),
            config.objective,
            config.workspace.display(),
            self.toolbox.describe()
        );
        for (index, key_result) in config.key_results.iter().enumerate() {
            let check =
                key_result.check.as_ref().map(|check| format!(" (check: {})", check.program)).unwrap_or_default();
            text.push_str(&format!("key result {}: {}{check}\n", index + 1, key_result.description));
        }
        let names: Vec<&str> = config.context.iter().map(|variable| variable.name.as_str()).collect();
        text.push_str(&format!("context: {}\n", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        text.push_str(&format!("limits: {}\n", config.limits));
        config.secrets.mask(&text).into_owned()
    }

    /// Pursues the objective to its end. Every way of ending is an `Outcome`.
    pub fn run(mut self) -> Outcome {
        let mut outcome = match self.pursue() {
            Ok(End { reason, result }) => {
                Outcome { reason, result, key_results: Vec::new(), spent: Spent::default(), resumed: false }
            }
            Err(fatal) => Outcome::of_fatal(&fatal),
        };
        outcome.key_results = self.key_results;
        outcome.spent = Spent { seconds: self.started.elapsed().as_secs_f64(), ..self.spent };
        outcome.masked(&self.config.secrets)
    }

    fn pursue(&mut self) -> Result<End, Fatal> {
        loop {
            if let Some(budget) = self.spent_budget() {
                return Ok(self.without_verdict(Reason::BudgetExhausted, &format!("the budget {budget} is spent")));
            }
            let turn = self.ask()?;
            let next = decide(&turn, &mut self.streak);
            let calls: Vec<ToolCall> = turn.tool_calls().cloned().collect();
            self.record(Record::Turn(turn));
            let is_new = match next {
                Next::RunTools => match self.run_tools(&calls) {
                    Acted::End(end) => return Ok(end),
                    Acted::GoOn { is_new } => is_new,
                },
                Next::Finish(finish) => {
                    match self.judge(&finish, &[]) {
                        Ok(end) => return Ok(end),
                        Err(rejection) => self.record(Record::User { text: rejection }),
                    }
                    false
                }
                Next::AskAgain => false,
                Next::Say(text) => {
                    self.leave_out(&calls, prompt::NOT_RUN);
                    self.record(Record::User { text });
                    false
                }
                Next::End(reason, why) => return Ok(self.without_verdict(reason, why)),
            };
            if let Some(end) = self.stalled(is_new) {
                return Ok(end);
            }
        }
    }

    /// The first budget that is spent. One that is reached exactly is spent.
    fn spent_budget(&self) -> Option<String> {
        let limits = &self.config.limits;
        let budgets = [
            ("max_turns", self.spent.turns, Some(limits.turns_max)),
            ("max_llm_calls", self.spent.llm_calls, limits.llm_calls_max),
            ("max_total_tokens", self.spent.usage.total_tokens(), limits.total_tokens_max),
        ];
        let spent = budgets.into_iter().find(|(_, used, max)| max.is_some_and(|max| *used >= max));
        spent.map(|(name, used, max)| format!("{name} of {} ({used} used)", max.unwrap_or_default()))
    }

    fn ask(&mut self) -> Result<Turn, Fatal> {
        let asked = Instant::now();
        self.spent.llm_calls += 1;
        self.prepare_stop(&format!("asking the model for turn {}", self.spent.turns + 1));
        let turn = self.model.ask(&self.conversation, self.toolbox.specs())?;
        let turn = self.conversation.with_unique_ids(turn);
        self.spent.turns += 1;
        self.spent.usage = self.spent.usage.plus(turn.usage);
        let usage = turn.usage;
        info!(
            "turn {}: {} tool calls, {} tokens in ({} cached), {} tokens out{}, {:.1} s",
            self.spent.turns,
            turn.tool_calls().count(),
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.output_tokens,
            if usage.is_estimate { " (estimated)" } else { "" },
            asked.elapsed().as_secs_f64()
        );
        let words = turn.text();
        if !words.is_empty() {
            self.last_words = words;
        }
        Ok(turn)
    }

    /// Keeps ready what is said if a signal ends the run now.
    fn prepare_stop(&self, doing: &str) {
        let outcome = Outcome { key_results: self.key_results.clone(), spent: self.spent, ..Outcome::of_stop(doing) };
        let (before, after) = outcome.masked(&self.config.secrets).to_stop_message();
        stop::prepare(&before, self.spent.seconds, &after);
    }

    /// Adds to the conversation.
    fn record(&mut self, record: Record) {
        let message = match record {
            Record::Turn(turn) => Message::Assistant { parts: turn.parts },
            Record::ToolResult(result) => Message::ToolResult(result),
            Record::User { text } => Message::User { text },
            Record::ToolCallStart { .. } | Record::Unknown => return,
        };
        self.conversation.messages.push(message);
    }

    /// Runs the calls in the order given, `finish` last. The results stand in the order of the calls.
    fn run_tools(&mut self, calls: &[ToolCall]) -> Acted {
        let mut results: Vec<(usize, ToolResult)> = Vec::new();
        let (finishing, others): (Vec<_>, Vec<_>) =
            calls.iter().enumerate().partition(|(_, call)| call.name == finish::NAME);
        for (index, call) in others {
            let result = if index < CALLS_PER_TURN_MAX {
                self.run_call(call)
            } else {
                let text = format!("not run: more than {CALLS_PER_TURN_MAX} calls in one turn; ask again for this one");
                ToolResult { call_id: call.id.clone(), text, is_error: true }
            };
            results.push((index, result));
        }
        let failed: Vec<String> = results
            .iter()
            .filter(|(_, result)| result.is_error)
            .filter_map(|(index, _)| Some(calls.get(*index)?.name.clone()))
            .collect();
        for (index, call) in &finishing {
            let answer = match (finishing.len(), read_finish(call)) {
                (1, Ok(finish)) => match self.judge(&finish, &failed) {
                    Ok(end) => return Acted::End(end),
                    Err(rejection) => rejection,
                },
                (1, Err(what)) => what,
                _ => match self.reject(&["`finish` was called more than once in one turn".to_owned()], "") {
                    Ok(end) => return Acted::End(end),
                    Err(rejection) => rejection,
                },
            };
            results.push((*index, ToolResult { call_id: call.id.clone(), text: answer, is_error: true }));
        }
        results.sort_by_key(|(index, _)| *index);
        let mut is_new = false;
        for (index, result) in results {
            if let Some(call) = calls.get(index) {
                is_new |= self.seen.insert(hash_of(call, &result));
            }
            self.record(Record::ToolResult(result));
        }
        Acted::GoOn { is_new }
    }

    fn run_call(&mut self, call: &ToolCall) -> ToolResult {
        let started = Instant::now();
        self.spent.tool_calls += 1;
        self.record(Record::ToolCallStart { call_id: call.id.clone() });
        self.prepare_stop(&format!(
            "running the tool {}, turn {}",
            crate::wire::excerpt(&call.name, 64),
            self.spent.turns
        ));
        let (text, is_error) = match self.toolbox.run(call) {
            Ok(text) => (text, false),
            Err(error) => (error.to_string(), true),
        };
        let text = self.config.secrets.mask(&text).into_owned();
        self.had_success |= !is_error;
        let outcome = if is_error { "failed" } else { "ok" };
        let name = crate::wire::excerpt(&call.name, 64);
        info!("tool {name}: {outcome}, {} bytes, {:.1} s", text.len(), started.elapsed().as_secs_f64());
        ToolResult { call_id: call.id.clone(), text, is_error }
    }

    /// Answers calls that are not run: every call must have a result.
    fn leave_out(&mut self, calls: &[ToolCall], why: &str) {
        for call in calls {
            self.record(Record::ToolResult(ToolResult {
                call_id: call.id.clone(),
                text: why.to_owned(),
                is_error: true,
            }));
        }
    }

    /// Whether the run ends with this claim. The only place from which a run can end with 0. An `Err` is the rejection, for
    /// the model. `failed` names the tools whose calls failed in the same turn.
    fn judge(&mut self, finish: &Finish, failed: &[String]) -> Result<End, String> {
        self.take_claims(finish);
        if finish.status == FinishStatus::Failed {
            return Ok(End::new(Reason::GaveUp, finish.summary.clone()));
        }
        let mut faults = finish.faults(&self.config.key_results);
        if !failed.is_empty() {
            faults.push(format!(
                "other calls of the same turn failed ({}): look at their results first",
                failed.join(", ")
            ));
        }
        if self.spent.tool_calls > 0 && !self.had_success {
            faults.push("every tool call of this run failed, so nothing can have been achieved with tools".to_owned());
        }
        self.prepare_stop(&format!("checking the key results, turn {}", self.spent.turns));
        for check in verify::run_checks(&self.config) {
            if let Some(state) = self.key_results.get_mut(check.key_result - 1) {
                state.check = Some(if check.fault.is_none() { CheckState::Passed } else { CheckState::Failed });
                state.met &= check.fault.is_none();
            }
            faults.extend(check.fault.map(|fault| self.config.secrets.mask(&fault).into_owned()));
        }
        if faults.is_empty() {
            return Ok(End::new(Reason::Finished, finish.summary.clone()));
        }
        self.reject(&faults, &finish.summary)
    }

    /// Remembers what the model says of each key result; what it says twice or not at all counts as unmet.
    fn take_claims(&mut self, finish: &Finish) {
        for state in &mut self.key_results {
            let claims: Vec<_> =
                finish.key_results.iter().filter(|claim| claim.key_result == state.key_result as u64).collect();
            *state = match claims[..] {
                [claim] => KeyResultState {
                    met: claim.met,
                    evidence: claim.evidence.clone(),
                    ..KeyResultState::unmet(state.key_result)
                },
                _ => KeyResultState::unmet(state.key_result),
            };
        }
    }

    /// Counts a rejection: the sentence for the model, or the end when there were too many.
    fn reject(&mut self, faults: &[String], summary: &str) -> Result<End, String> {
        self.rejections += 1;
        let why = faults.join("; ");
        warn!("finish: rejected ({} of {}): {why}", self.rejections, self.config.limits.finish_rejections_max);
        let left = self.config.limits.finish_rejections_max.saturating_sub(self.rejections);
        if left == 0 {
            let claim = if summary.is_empty() { String::new() } else { format!("; the model claims: {summary}") };
            let result = format!("`finish` was rejected {} times, at last because {why}{claim}", self.rejections);
            return Ok(End::new(Reason::KeyResultsUnmet, result));
        }
        Err(format!(
            "`finish` is rejected: {why}. Go on working and call `finish` again when this is put right, or with status \
\"failed\". After {left} more rejections the run ends."
        ))
    }

    /// Counts turns that bring nothing new, warns the model at half of the limit, and ends the run at the limit.
    fn stalled(&mut self, is_new: bool) -> Option<End> {
        self.stalled_turns = if is_new { 0 } else { self.stalled_turns + 1 };
        let max = self.config.limits.stalled_turns_max;
        if self.stalled_turns >= max {
            let what = format!("{} turns in a row brought nothing new", self.stalled_turns);
            return Some(self.without_verdict(Reason::Stalled, &what));
        }
        if self.stalled_turns > 0 && self.stalled_turns == max / 2 {
            warn!("agent: {} turns in a row brought nothing new, the limit is {max}", self.stalled_turns);
            self.record(Record::User { text: prompt::stalled(self.stalled_turns, max) });
        }
        None
    }

    /// An end that the model did not ask for, with its last words for whoever looks.
    fn without_verdict(&self, reason: Reason, what: &str) -> End {
        match self.last_words.as_str() {
            "" => End::new(reason, what),
            words => End::new(reason, format!("{what}; the model's last words: {words}")),
        }
    }
}

/// What running the calls of a turn led to.
enum Acted {
    End(End),
    GoOn { is_new: bool },
}

fn read_finish(call: &ToolCall) -> Result<Finish, String> {
    let arguments = call.arguments_object().map_err(|what| format!("bad arguments: {what}"))?;
    Finish::read(&arguments).map_err(|error| error.to_string())
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
#[derive(Debug, PartialEq)]
pub enum Next {
    RunTools,
    /// The arguments of `finish`, given in words by a model that cannot call tools.
    Finish(Finish),
    /// The same question once more.
    AskAgain,
    /// Answer calls that are not run, say this to the model, and ask.
    Say(String),
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
    let problem = match finish_in_words(&text) {
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

/// The arguments of `finish` as one JSON object and nothing else; reasoning in front of it and a code fence around it do not
/// count as something else. `None`: these are just words.
fn finish_in_words(text: &str) -> Option<Result<Finish, String>> {
    let text = match text.split_once("</think>") {
        Some((thought, rest)) if thought.trim_start().starts_with("<think>") => rest.trim(),
        _ => text.trim(),
    };
    let unfenced =
        text.strip_prefix("```json").or_else(|| text.strip_prefix("```")).and_then(|rest| rest.strip_suffix("```"));
    let Ok(Value::Object(arguments)) = serde_json::from_str(unfenced.unwrap_or(text).trim()) else { return None };
    Some(Finish::read(&arguments).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::{Part, Usage};

    fn turn(text: &str, stop_reason: StopReason) -> Turn {
        let parts = if text.is_empty() { Vec::new() } else { vec![Part::Text { text: text.to_owned() }] };
        Turn { parts, stop_reason, usage: Usage::default() }
    }

    #[test]
    fn a_paused_turn_goes_on_a_bounded_number_of_times() {
        let mut streak = Streak::default();
        for _ in 0..PAUSES_MAX {
            assert_eq!(decide(&turn("Searching.", StopReason::Paused), &mut streak), Next::AskAgain);
        }
        assert!(matches!(decide(&turn("Searching.", StopReason::Paused), &mut streak), Next::Say(_)));
    }
}
