//! The loop: ask, record, act. The one module that knows every room, so it stays short.
//!
//! What follows from a turn is decided in `progress.rs`, without a look at the world; when the run may end with 0, by
//! [`Agent::judge`] and nothing else. Surprising: there is no deadline here. The Job has one, and it arrives as a signal.
//!
//! Everything that changes where the run stands is a [`Record`], written to the journal before it counts. What must not
//! happen twice is announced: its record is on the disk before it is done. So a process can be killed on every line here,
//! and the next one goes on from the last record; a call that was under way then is not repeated, but told.

use std::time::Instant;

use log::{info, warn};
use serde_json::json;

use crate::budget::{self, Meter, NextCall};
use crate::compaction::{self, Older, Plan};
use crate::config::{Config, ModelConfig};
use crate::conversation::{Edit, Record, StopReason, ToolCall, ToolResult, Tools, Turn, Usage};
use crate::host::stop::{self, Hold};
use crate::journal::Journal;
use crate::model::{Model, ModelErrorKind};
use crate::outcome::{CheckState, Established, Fatal, KeyResultState, Outcome, Reason, Spent};
use crate::progress::{Next, OpenCall, Progress};
use crate::prompt;
use crate::tools::finish::{self, Finish, FinishStatus};
use crate::tools::{Toolbox, excerpt};
use crate::verifier;
use crate::verify;

/// Times that a conversation is made shorter for one question; each halves it.
const COMPACTIONS_MAX: usize = 20;
/// A compaction ahead of need must win one part in this many of the request.
const WON_MIN: usize = 10;
/// What is told of claims that stand beside each other.
const FINISHED_TWICE: &str = "`finish` was called more than once in one turn";
/// Why a run ends when an answer finds no room and nothing can be dropped any more.
const NO_ROOM: &str = "the model's answer filled the context window, and nothing is left to shorten";
/// Tool calls of one turn that are run; no model that knows what it does asks for more.
const CALLS_PER_TURN_MAX: usize = 128;

/// One objective, pursued once, by this process and those before it.
pub struct Agent {
    config: Config,
    model: Model,
    verifier: Option<Model>,
    toolbox: Toolbox,
    journal: Option<Journal>,
    progress: Progress,
    started: Instant,
    /// What earlier processes took.
    seconds_before: f64,
    /// The open turn is one that an earlier process received.
    is_catching_up: bool,
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
    /// `progress` is that of the journal's records, and `seconds_before` what they took.
    pub fn new(
        config: Config,
        mut model: Model,
        mut verifier: Option<Model>,
        toolbox: Toolbox,
        journal: Option<Journal>,
        progress: Progress,
        seconds_before: f64,
    ) -> Agent {
        model.skip_turns(progress.spent.turns);
        if let Some(verifier) = &mut verifier {
            verifier.skip_turns(progress.verifications);
        }
        let is_catching_up = progress.open_turn.is_some();
        let started = Instant::now();
        Agent { config, model, verifier, toolbox, journal, progress, started, seconds_before, is_catching_up }
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
        if let Some(verifier) = &self.verifier {
            text.push_str(&format!("verifier: {}\n", verifier.describe()));
        }
        let names: Vec<&str> = config.context.iter().map(|variable| variable.name.as_str()).collect();
        text.push_str(&format!("context: {}\n", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
        text.push_str(&format!("limits: {}\n", config.limits));
        config.secrets.mask(&text).into_owned()
    }

    /// Pursues the objective to its end. Every way of ending is an `Outcome`; a verdict is recorded, so that it is final.
    pub fn run(mut self) -> Outcome {
        let mut outcome = match self.begin().and_then(|()| self.pursue()) {
            Ok(End { reason, result }) => Outcome::new(reason, result),
            Err(fatal) => Outcome::of_fatal(&fatal),
        };
        outcome.key_results = self.progress.key_results.clone();
        outcome.spent = Spent { seconds: self.seconds(), ..self.progress.spent };
        outcome.resumed = self.progress.is_resumed();
        let outcome = outcome.masked(&self.config.secrets);
        if outcome.reason.is_verdict() {
            // Decided: a signal that comes now finds it so.
            Hold::start().for_good();
            let record = Record::Outcome {
                reason: outcome.reason.word(),
                result: outcome.result.clone(),
                key_results: json!(outcome.key_results),
            };
            // Only the telling is left: a disk that is full now makes it neither truer nor less true.
            if let Err(Fatal::Journal(error)) = self.announce_at(record, outcome.spent.seconds) {
                warn!("{error}; a later process would come to the outcome again");
            }
        }
        outcome
    }

    fn begin(&mut self) -> Result<(), Fatal> {
        let seconds = self.seconds();
        if let Some(journal) = &mut self.journal {
            let record = journal.begin(&self.config.fingerprint, seconds)?;
            self.progress.add(record);
        }
        if self.progress.is_resumed() {
            let spent = &self.progress.spent;
            info!("journal: the run goes on after {} turns and {} tool calls", spent.turns, spent.tool_calls);
        }
        Ok(())
    }

    fn pursue(&mut self) -> Result<End, Fatal> {
        if let Some(end) = self.act()? {
            return Ok(end);
        }
        loop {
            self.toolbox.refresh();
            self.make_room()?;
            let next = self.next_call();
            if let Some(budget) = budget::spent_for_turn(&self.config.limits, &self.progress.spent, next) {
                return Ok(self.budget_exhausted(&budget));
            }
            self.warn_of_low_budget(next)?;
            self.ask()?;
            if let Some(end) = self.act()? {
                return Ok(end);
            }
        }
    }

    /// Does what follows from the open turn, as far as it is not done.
    fn act(&mut self) -> Result<Option<End>, Fatal> {
        let Some(turn) = &self.progress.open_turn else { return Ok(None) };
        let end = match turn.next.clone() {
            Next::RunTools => self.run_tools()?,
            Next::Finish(finish) if !turn.is_rejected => self.judge(&finish, &[], None)?,
            Next::Finish(_) | Next::AskAgain => None,
            Next::Say(text) => {
                self.leave_out(prompt::NOT_RUN)?;
                self.say(text)?;
                None
            }
            Next::MakeRoom => {
                self.leave_out(prompt::NOT_RUN)?;
                self.say(prompt::CUT_OFF.to_owned())?;
                (!self.halve()?).then(|| End::new(Reason::ContextExhausted, NO_ROOM))
            }
            Next::End(reason, why) => Some(self.without_verdict(reason, why)),
        };
        if end.is_some() { Ok(end) } else { self.stalled() }
    }

    /// What is known of the next question to the worker.
    fn next_call(&self) -> NextCall {
        NextCall {
            input_tokens: self.meter().tokens(self.request_bytes()),
            answer_tokens_max: self.config.model.output_tokens_max(),
        }
    }

    fn request_bytes(&self) -> usize {
        self.toolbox.specs_bytes() + compaction::bytes(&self.progress.conversation)
    }

    fn meter(&self) -> Meter {
        let mut meter = Meter::default();
        if let Some((bytes, usage)) = self.progress.measured {
            meter.measure(self.toolbox.specs_bytes() + bytes, usage);
        }
        meter
    }

    /// Says once that a budget is nearly spent.
    fn warn_of_low_budget(&mut self, next: NextCall) -> Result<(), Fatal> {
        let what = budget::low_for_turn(&self.config.limits, &self.progress.spent, next);
        match what.filter(|_| !self.progress.conversation.has_said(prompt::BUDGET_LOW)) {
            Some(what) => {
                warn!("agent: a budget is nearly spent: {what}");
                self.record(Record::User { text: prompt::budget_low(&what) })
            }
            None => Ok(()),
        }
    }

    fn budget_exhausted(&self, budget: &str) -> End {
        let done = self.progress.trail.summary();
        self.without_verdict(Reason::BudgetExhausted, &format!("the budget {budget} is spent; done so far: {done}"))
    }

    fn ask(&mut self) -> Result<(), Fatal> {
        self.announce(Record::ModelCallStart)?;
        self.is_catching_up = false;
        let asked = Instant::now();
        let mut turn = self.ask_until_it_fits()?;
        // Most servers say of an answer that filled the window what they say of one that reached its own limit. Where the
        // answer itself took most of the window, a shorter question would not help.
        let Usage { input_tokens: input, output_tokens: output, is_estimate, .. } = turn.usage;
        let is_full = |window| !is_estimate && input + output >= window && input > window / 2;
        if turn.stop_reason == StopReason::TokenLimit && self.model.window().is_some_and(is_full) {
            turn.stop_reason = StopReason::ContextFull;
        }
        let turn = self.progress.conversation.with_unique_ids(turn);
        let usage = turn.usage;
        info!(
            "turn {}: {} tool calls, {} tokens in ({} cached), {} tokens out{}, {:.1} s",
            self.progress.spent.turns + 1,
            turn.tool_calls().count(),
            usage.input_tokens,
            usage.cached_input_tokens,
            usage.output_tokens,
            if usage.is_estimate { " (estimated)" } else { "" },
            asked.elapsed().as_secs_f64()
        );
        self.record(Record::Turn(turn))
    }

    /// The answer; as long as the conversation is too long for the model, it is made shorter.
    fn ask_until_it_fits(&mut self) -> Result<Turn, Fatal> {
        let mut compactions = 0;
        loop {
            self.prepare_stop(&format!("asking the model for turn {}", self.progress.spent.turns + 1));
            let error = match self.model.ask(&self.progress.conversation, self.toolbox.specs()) {
                Err(error) if error.kind == ModelErrorKind::ContextTooLong && compactions < COMPACTIONS_MAX => error,
                answer => return Ok(answer?),
            };
            warn!("agent: {error}");
            if !self.halve()? {
                return Err(error.into());
            }
            compactions += 1;
        }
    }

    /// Makes the conversation half as long, or as the window wants it. False: nothing can be dropped any more.
    fn halve(&mut self) -> Result<bool, Fatal> {
        let conversation = &self.progress.conversation;
        let half = compaction::bytes(conversation) / 2;
        let bytes_max = self.bytes_for_window().map_or(half, |bytes| bytes.min(half));
        let plan = compaction::plan(conversation, bytes_max, &self.config.secrets);
        let is_possible = plan.is_some();
        plan.map_or(Ok(()), |plan| self.compact(plan, bytes_max))?;
        Ok(is_possible)
    }

    /// Makes the conversation shorter before the known window is full, if that wins enough to be worth it.
    fn make_room(&mut self) -> Result<(), Fatal> {
        let Some(window) = self.model.window() else { return Ok(()) };
        let next = self.next_call();
        let answer = next.answer_tokens_max.unwrap_or(window / 8).min(window / 4);
        let is_full = next.input_tokens + answer > window;
        let Some(bytes_max) = self.bytes_for_window().filter(|_| is_full) else { return Ok(()) };
        let plan = compaction::plan(&self.progress.conversation, bytes_max, &self.config.secrets);
        match plan.filter(|plan| plan.won_bytes >= self.request_bytes() / WON_MIN) {
            Some(plan) => self.compact(plan, bytes_max),
            None => Ok(()),
        }
    }

    /// The size at which a conversation takes half of the window, so that there is room for a while.
    fn bytes_for_window(&self) -> Option<usize> {
        let (bytes, window) = (self.request_bytes(), self.model.window()?);
        let tokens = self.meter().tokens(bytes).max(1);
        let half = (bytes as u64).saturating_mul(window / 2) / tokens;
        Some(usize::try_from(half).unwrap_or(usize::MAX).saturating_sub(self.toolbox.specs_bytes()))
    }

    fn compact(&mut self, plan: Plan, bytes_max: usize) -> Result<(), Fatal> {
        let before = compaction::bytes(&self.progress.conversation);
        let Plan { mut edits, older, .. } = plan;
        let mut usage = None;
        if let Some(older) = older {
            let (notes, taken) = self.summarize(&older, bytes_max)?;
            usage = taken;
            let text = prompt::compacted(notes.as_deref(), &self.progress.trail.summary());
            let text = excerpt::excerpt(&text, older.summary_bytes_max, "");
            edits.push(Edit::Replace { end: older.end, text });
        }
        self.record(Record::Compaction { edits, usage })?;
        let after = compaction::bytes(&self.progress.conversation);
        info!("agent: the conversation was shortened from {before} to {after} bytes");
        Ok(())
    }

    /// The model's notes of the older part, if it writes any, and what they took. Whatever goes wrong, the part is dropped.
    fn summarize(&mut self, older: &Older, bytes_max: usize) -> Result<(Option<String>, Option<Usage>), Fatal> {
        let messages = self.progress.conversation.messages.get(1..older.end).unwrap_or_default();
        let question = prompt::summary(&self.config, &compaction::transcript(messages, bytes_max));
        // The turn for which it is needed takes a call, too.
        let after = Spent { llm_calls: self.progress.spent.llm_calls + 1, ..self.progress.spent };
        if let Some(budget) = budget::spent_for_call(&self.config.limits, &after, self.next_call()) {
            warn!("agent: no summary, the budget {budget} leaves no room for it");
            return Ok((None, None));
        }
        self.announce(Record::SummaryStart)?;
        self.prepare_stop(&format!("asking the model for a summary, turn {}", self.progress.spent.turns));
        match self.model.ask(&question, &Tools::default()) {
            Ok(turn) => {
                let is_usable = turn.stop_reason != StopReason::Refused && !turn.text().is_empty();
                if !is_usable {
                    warn!("agent: no summary came, the older part is dropped");
                }
                Ok((is_usable.then(|| self.config.secrets.mask(&turn.text()).into_owned()), Some(turn.usage)))
            }
            Err(error) => {
                warn!("agent: no summary, the older part is dropped: {error}");
                Ok((None, None))
            }
        }
    }

    /// The seconds of the run, in whole milliseconds as the journal has them.
    fn seconds(&self) -> f64 {
        let since = self.started.elapsed().as_secs_f64() + self.seconds_before;
        (since * 1000.0).round() / 1000.0
    }

    /// Keeps ready what is said if a signal ends the run now.
    fn prepare_stop(&self, doing: &str) {
        let outcome = Outcome {
            key_results: self.progress.key_results.clone(),
            spent: self.progress.spent,
            resumed: self.progress.is_resumed(),
            ..Outcome::of_stop(doing)
        };
        let (before, after) = outcome.masked(&self.config.secrets).to_stop_message();
        stop::prepare(&before, self.seconds_before, &after);
    }

    /// Moves the run on by one record, written first.
    fn record(&mut self, record: Record) -> Result<(), Fatal> {
        self.record_at(record, self.seconds())
    }

    fn record_at(&mut self, record: Record, seconds: f64) -> Result<(), Fatal> {
        if let Some(journal) = &mut self.journal {
            let secrets = &self.config.secrets;
            journal.append(&record.clone().with_texts(&|text| secrets.mask(text).into_owned()), seconds)?;
        }
        self.progress.add(record);
        Ok(())
    }

    /// Records something that must not be done twice; when this returns, it is on the disk.
    fn announce(&mut self, record: Record) -> Result<(), Fatal> {
        self.announce_at(record, self.seconds())
    }

    fn announce_at(&mut self, record: Record, seconds: f64) -> Result<(), Fatal> {
        self.record_at(record, seconds)?;
        self.sync()
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        self.journal.as_mut().map_or(Ok(()), Journal::sync).map_err(Fatal::from)
    }

    fn say(&mut self, text: String) -> Result<(), Fatal> {
        if self.progress.was_said(&text) { Ok(()) } else { self.record(Record::User { text }) }
    }

    /// The calls of the open turn that satisfy this, each with its place in the turn.
    fn calls(&self, is_wanted: impl Fn(&OpenCall) -> bool) -> Vec<(usize, OpenCall)> {
        let calls = self.progress.open_turn.iter().flat_map(|turn| turn.calls.iter().enumerate());
        calls.filter(|(_, open)| is_wanted(open)).map(|(index, open)| (index, open.clone())).collect()
    }

    /// Runs the calls that have no result in the order given, `finish` last.
    fn run_tools(&mut self) -> Result<Option<End>, Fatal> {
        for (index, open) in self.calls(|open| open.call.name != finish::NAME && open.result.is_none()) {
            let result = if index < CALLS_PER_TURN_MAX {
                self.run_call(&open)?
            } else {
                let text = format!("not run: more than {CALLS_PER_TURN_MAX} calls in one turn; ask again for this one");
                ToolResult { call_id: open.call.id, text, is_error: true }
            };
            self.record(Record::ToolResult(result))?;
        }
        let has_failed = |open: &OpenCall| {
            open.call.name != finish::NAME && open.result.as_ref().is_some_and(|result| result.is_error)
        };
        let failed: Vec<String> = self.calls(has_failed).into_iter().map(|(_, open)| open.call.name).collect();
        let finishing = self.calls(|open| open.call.name == finish::NAME);
        let last = finishing.len().saturating_sub(1);
        for (index, (_, OpenCall { call, result, .. })) in finishing.into_iter().enumerate() {
            if result.is_some() {
                continue;
            }
            let end = match read_finish(&call) {
                Ok(finish) if last == 0 => self.judge(&finish, &failed, Some(call.id))?,
                Ok(_) if index == last => self.reject(&[FINISHED_TWICE.to_owned()], "", Some(call.id))?,
                read => {
                    let text = read.err().unwrap_or_else(|| FINISHED_TWICE.to_owned());
                    self.record(Record::ToolResult(ToolResult { call_id: call.id, text, is_error: true }))?;
                    None
                }
            };
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }

    fn run_call(&mut self, open: &OpenCall) -> Result<ToolResult, Fatal> {
        let call = &open.call;
        let is_harmless = self.toolbox.is_repeatable(&call.name);
        let name = crate::wire::excerpt(&call.name, 64);
        let failed = |text: &str| ToolResult { call_id: call.id.clone(), text: text.to_owned(), is_error: true };
        if open.is_started && !is_harmless {
            warn!("tool {name}: an earlier process started this call and did not record its end; it is not repeated");
            return Ok(failed(prompt::OUTCOME_UNKNOWN));
        }
        if self.is_catching_up && self.config.secrets.has_mask(&call.arguments.to_string()) {
            return Ok(failed(prompt::ARGUMENTS_MASKED));
        }
        let start = Record::ToolCallStart { call_id: call.id.clone() };
        if is_harmless {
            self.record(start)?
        } else {
            self.announce(start)?
        };
        self.prepare_stop(&format!("running the tool {name}, turn {}", self.progress.spent.turns));
        let started = Instant::now();
        let (text, is_error) = match self.toolbox.run(call) {
            Ok(text) => (text, false),
            Err(error) => (error.to_string(), true),
        };
        let text = self.config.secrets.mask(&text).into_owned();
        let outcome = if is_error { "failed" } else { "ok" };
        info!("tool {name}: {outcome}, {} bytes, {:.1} s", text.len(), started.elapsed().as_secs_f64());
        Ok(ToolResult { call_id: call.id.clone(), text, is_error })
    }

    /// Answers calls that are not run: every call must have a result.
    fn leave_out(&mut self, why: &str) -> Result<(), Fatal> {
        for (_, open) in self.calls(|open| open.result.is_none()) {
            let result = ToolResult { call_id: open.call.id, text: why.to_owned(), is_error: true };
            self.record(Record::ToolResult(result))?;
        }
        Ok(())
    }

    /// Whether the run ends with this claim. The only place from which a run can end with 0; otherwise the model is told
    /// why. `failed` names the tools whose calls failed in the same turn, `call_id` the call of `finish`, if it was one.
    fn judge(&mut self, finish: &Finish, failed: &[String], call_id: Option<String>) -> Result<Option<End>, Fatal> {
        self.take_claims(finish);
        if finish.status == FinishStatus::Failed {
            return Ok(Some(End::new(Reason::GaveUp, finish.summary.clone())));
        }
        let mut faults = finish.faults(&self.config.key_results);
        if !failed.is_empty() {
            faults.push(format!(
                "other calls of the same turn failed ({}): look at their results first",
                failed.join(", ")
            ));
        }
        if self.progress.spent.tool_calls > 0 && !self.progress.had_success {
            faults.push("every tool call of this run failed, so nothing can have been achieved with tools".to_owned());
        }
        self.prepare_stop(&format!("checking the key results, turn {}", self.progress.spent.turns));
        if self.config.key_results.iter().any(|key_result| key_result.check.is_some()) {
            // Checks may take long, and the turn was paid for.
            self.sync()?;
        }
        for check in verify::run_checks(&self.config) {
            if let Some(state) = self.progress.key_results.get_mut(check.key_result - 1) {
                state.check = Some(if check.fault.is_none() { CheckState::Passed } else { CheckState::Failed });
                state.met &= check.fault.is_none();
                state.established = Some(Established::Check);
            }
            faults.extend(check.fault.map(|fault| self.config.secrets.mask(&fault).into_owned()));
        }
        if faults.is_empty() && self.verifier.is_some() && !self.config.key_results.is_empty() {
            match self.verify()? {
                Ok(found) => faults = found,
                Err(budget) => return Ok(Some(self.budget_exhausted(&budget))),
            }
        }
        if faults.is_empty() {
            return Ok(Some(End::new(Reason::Finished, finish.summary.clone())));
        }
        self.reject(&faults, &finish.summary, call_id)
    }

    /// What the verifier finds missing. An `Err` within names the budget that leaves no room to ask it.
    fn verify(&mut self) -> Result<Result<Vec<String>, String>, Fatal> {
        // An earlier process may have had its word on this claim.
        let known = self.progress.open_turn.as_ref().and_then(|turn| turn.verifier_faults.clone());
        let faults = match known {
            Some(faults) => faults,
            None => match self.ask_verifier()? {
                Ok(faults) => faults,
                Err(budget) => return Ok(Err(budget)),
            },
        };
        for (state, fault) in self.progress.key_results.iter_mut().zip(&faults) {
            state.met &= fault.is_none();
            if fault.is_some() || state.check.is_none() {
                state.established = Some(Established::Verifier);
            }
        }
        let mut faults: Vec<String> = faults.into_iter().flatten().collect();
        faults.dedup();
        Ok(Ok(faults))
    }

    fn ask_verifier(&mut self) -> Result<Result<Vec<Option<String>>, String>, Fatal> {
        let (config, progress) = (&self.config, &self.progress);
        let next = NextCall {
            input_tokens: verifier::input_tokens(config, &progress.key_results, &progress.trail),
            answer_tokens_max: config.verifier.as_ref().and_then(ModelConfig::output_tokens_max),
        };
        if let Some(budget) = budget::spent_for_call(&config.limits, &progress.spent, next) {
            return Ok(Err(format!("{budget}, so the verifier was not asked")));
        }
        self.announce(Record::VerificationStart)?;
        self.prepare_stop(&format!("asking the verifier, turn {}", self.progress.spent.turns));
        let (config, progress) = (&self.config, &self.progress);
        let Some(verifier) = &mut self.verifier else { return Ok(Ok(Vec::new())) };
        let verdict = verifier::ask(verifier, config, &progress.key_results, &progress.trail);
        let masked = |fault: String| config.secrets.mask(&fault).into_owned();
        let faults: Vec<Option<String>> = verdict.faults.into_iter().map(|fault| fault.map(masked)).collect();
        self.record(Record::Verification { faults: faults.clone(), usage: verdict.usage })?;
        Ok(Ok(faults))
    }

    /// Remembers what the model says of each key result; what it says twice or not at all counts as unmet.
    fn take_claims(&mut self, finish: &Finish) {
        for state in &mut self.progress.key_results {
            let claims: Vec<_> =
                finish.key_results.iter().filter(|claim| claim.key_result == state.key_result as u64).collect();
            *state = match claims[..] {
                [claim] => KeyResultState {
                    met: claim.met,
                    evidence: claim.evidence.clone(),
                    established: Some(Established::Claimed),
                    ..KeyResultState::unmet(state.key_result)
                },
                _ => KeyResultState::unmet(state.key_result),
            };
        }
    }

    /// Counts a rejection: the model is told, or the run ends when there were too many.
    fn reject(&mut self, faults: &[String], summary: &str, call_id: Option<String>) -> Result<Option<End>, Fatal> {
        let rejections = self.progress.rejections + 1;
        let why = faults.join("; ");
        warn!("finish: rejected ({rejections} of {}): {why}", self.config.limits.finish_rejections_max);
        let left = self.config.limits.finish_rejections_max.saturating_sub(rejections);
        if left == 0 {
            let claim = if summary.is_empty() { String::new() } else { format!("; the model claims: {summary}") };
            let result = format!("`finish` was rejected {rejections} times, at last because {why}{claim}");
            return Ok(Some(End::new(Reason::KeyResultsUnmet, result)));
        }
        let text = prompt::rejected(&why, left);
        self.record(Record::Rejection { call_id, text, key_results: json!(self.progress.key_results) })?;
        Ok(None)
    }

    /// Warns the model at half of the limit on turns that bring nothing new, and ends the run at the limit.
    fn stalled(&mut self) -> Result<Option<End>, Fatal> {
        let turns = self.progress.stalled_turns();
        let max = self.config.limits.stalled_turns_max;
        if turns >= max {
            let what = format!("{turns} turns in a row brought nothing new");
            return Ok(Some(self.without_verdict(Reason::Stalled, &what)));
        }
        if turns > 0 && turns == max / 2 {
            warn!("agent: {turns} turns in a row brought nothing new, the limit is {max}");
            self.say(prompt::stalled(turns, max))?;
        }
        Ok(None)
    }

    /// An end that the model did not ask for, with its last words for whoever looks.
    fn without_verdict(&self, reason: Reason, what: &str) -> End {
        match self.progress.last_words.as_str() {
            "" => End::new(reason, what),
            words => End::new(reason, format!("{what}; the model's last words: {words}")),
        }
    }
}

fn read_finish(call: &ToolCall) -> Result<Finish, String> {
    let arguments = call.arguments_object().map_err(|what| format!("bad arguments: {what}"))?;
    Finish::read(&arguments).map_err(|error| error.to_string())
}
