//! A conversation that no longer fits the model: it is shortened, what matters stays, and the run goes on.
//!
//! The server counts four bytes a token and refuses what is too much, in the words of real ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};
use crate::server::{Exchange, Request};

const BYTES_PER_TOKEN: usize = 4;
const OBJECTIVE: &str = "Find every door \"in the house\",\nand count the red ones.";

fn tokens(request: &Request) -> usize {
    request.body.len() / BYTES_PER_TOKEN
}

fn too_long(window: usize) -> Exchange {
    let message = format!("This model's maximum context length is {window} tokens. However, you requested more.");
    chat::error(400, "invalid_request_error", json!("context_length_exceeded"), json!("messages"), &message)
}

/// Counted as this server counts.
fn answer(request: &Request, message: Value, finish_reason: &str) -> Exchange {
    let input = tokens(request);
    let usage = json!({"prompt_tokens": input, "completion_tokens": 20, "total_tokens": input + 20});
    chat::completion(json!([{"index": 0, "finish_reason": finish_reason, "message": message}]), usage)
}

fn calls(request: &Request, id: usize, name: &str, arguments: &Value) -> Exchange {
    let call = chat::call(&format!("call_{id}"), name, json!(arguments.to_string()));
    answer(request, json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
}

/// What is asked for a summary.
type Summary = fn(&Request) -> Exchange;

fn writes_notes(request: &Request) -> Exchange {
    answer(request, json!({"role": "assistant", "content": "NOTES: rooms up to here are done."}), "stop")
}

fn is_summary(request: &Request) -> bool {
    request.tool_names().is_empty()
}

/// A model with this window that reads `turns` different parts of a file and then finishes.
fn reader(window: usize, turns: usize, summary: Summary) -> Exchange {
    let turn = AtomicUsize::new(0);
    Exchange::answers(move |request| {
        if tokens(request) > window {
            return too_long(window);
        }
        if is_summary(request) {
            return summary(request);
        }
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        match turn < turns {
            true => calls(request, turn, "read_file", &json!({"path": "house.txt", "offset": 1 + turn, "limit": 6})),
            false => calls(request, turn, "finish", &chat::achieved_arguments(1)),
        }
    })
}

fn house() -> Runtime {
    let lines: Vec<String> =
        (1..=1000).map(|room| format!("room {room}: {} doors, {}\n", room % 7, "x".repeat(60))).collect();
    Runtime::new()
        .objective(OBJECTIVE)
        .key_results(json!(["Every door is counted, and the \"red\" ones too"]))
        .tools_named(&["read_file"])
        .limits(json!({"max_turns": 1000}))
        .file("house.txt", lines.concat())
        .timeout(Duration::from_secs(300))
}

fn summaries(ended: &Ended) -> usize {
    ended.requests.iter().filter(|request| is_summary(request)).count()
}

/// Objective, key result and finishing rule stand in every question to the worker as in the first.
#[track_caller]
fn keeps_what_matters(ended: &Ended) {
    let (system, first) = (ended.request(1).system(), ended.request(1).messages()[1]["content"].clone());
    let first = first.as_str().unwrap_or_default();
    for request in ended.requests.iter().filter(|request| !is_summary(request)) {
        let second = request.messages()[1]["content"].as_str().unwrap_or_default().to_owned();
        ended.check(request.system() == system, "the system prompt has changed");
        ended.check(second.starts_with(first), "the objective or a key result has changed");
    }
}

#[test]
fn five_hundred_turns_fit_into_a_window_of_8000_tokens() {
    let ended = house().plays([reader(8_000, 500, writes_notes)]).run();
    ended.exits(0).reason("finished").counts("turns", 501).log_has("shortened");
    keeps_what_matters(&ended);
    let refused = ended.requests.iter().filter(|request| tokens(request) > 8_000).count();
    ended.check(refused <= 2, "it ran into the known window again and again");
    ended.check(summaries(&ended) > 0, "there was no summary");
    let spent = ended.outcome();
    ended.check(spent["llmCallsUsed"] == 501 + summaries(&ended) as u64, "summaries are not counted");
}

#[test]
fn a_window_that_is_configured_is_never_exceeded() {
    let ended = house().plays([reader(8_000, 60, writes_notes)]).model_with(json!({"context_window": 8_000})).run();
    ended.exits(0).check(ended.requests.iter().all(|request| tokens(request) <= 8_000), "it was exceeded");
    keeps_what_matters(&ended);
}

#[test]
fn the_oldest_results_give_way_first() {
    let ended = house().plays([reader(4_000, 19, writes_notes)]).run();
    ended.exits(0).check(summaries(&ended) == 0, "there was a summary already");
    ended.tool_result_has(1, "removed to make room").tool_result_has(19, "room 19");
}

#[test]
fn a_server_that_does_not_tell_its_window_is_served_too() {
    let script = reader(6_000, 60, writes_notes);
    let silent = Exchange::answers(move |request| match tokens(request) > 6_000 {
        true => chat::error(400, "invalid_request_error", json!("context_length_exceeded"), Value::Null, "too long"),
        false => script.answer_to(request),
    });
    let ended = house().plays([silent]).run();
    ended.exits(0).reason("finished");
    keeps_what_matters(&ended);
}

#[test]
fn the_notes_stand_in_the_conversation_afterwards() {
    let ended = house().plays([reader(4_000, 80, writes_notes)]).run();
    ended.exits(0).check(ended.last_request().opening().contains("NOTES: rooms up to here"), "the notes are gone");
}

/// A summary that comes to nothing does not end the run.
#[track_caller]
fn falls_back(summary: Summary) {
    let ended = house().plays([reader(4_000, 80, summary)]).run();
    ended.exits(0).reason("finished").check(summaries(&ended) > 0, "no summary was asked for");
    ended.check(ended.last_request().opening().contains("was removed to make room"), "nothing was dropped");
    keeps_what_matters(&ended);
}

#[test]
fn a_summary_that_is_empty_falls_back_to_dropping() {
    falls_back(|request| answer(request, json!({"role": "assistant", "content": ""}), "stop"));
}

#[test]
fn a_summary_that_is_a_tool_call_falls_back_to_dropping() {
    falls_back(|request| calls(request, 9_999, "read_file", &json!({"path": "house.txt"})));
}

#[test]
fn a_summary_that_is_a_claim_ends_nothing() {
    falls_back(|request| calls(request, 9_999, "finish", &chat::achieved_arguments(1)));
}

#[test]
fn a_summary_that_is_refused_falls_back_to_dropping() {
    falls_back(|request| answer(request, json!({"role": "assistant", "content": null, "refusal": "No."}), "stop"));
}

#[test]
fn a_summary_that_fails_falls_back_to_dropping() {
    falls_back(|_| chat::error(400, "invalid_request_error", Value::Null, Value::Null, "bad request"));
}

#[test]
fn a_result_that_alone_is_too_long_is_shortened() {
    let window = 5_000;
    let turn = AtomicUsize::new(0);
    let script = Exchange::answers(move |request| match turn.load(Ordering::Relaxed) {
        _ if tokens(request) > window => too_long(window),
        0 => {
            turn.store(1, Ordering::Relaxed);
            calls(request, 0, "read_file", &json!({"path": "house.txt"}))
        }
        _ => calls(request, 1, "finish", &chat::achieved_arguments(1)),
    });
    let ended = house().plays([script]).run();
    ended.exits(0).tool_result_has(1, "cut here; removed to make room").tool_result_has(1, "room 1:");
}

#[test]
fn an_objective_that_alone_is_too_long_is_context_exhausted() {
    let ended = house().objective(&"long ".repeat(10_000)).plays([reader(5_000, 1, writes_notes)]).run();
    ended.exits(1).reason("context_exhausted").tells("no longer fits");
}

#[test]
fn a_model_that_never_has_room_is_context_exhausted() {
    let turn = AtomicUsize::new(0);
    let script = Exchange::answers(move |request| match turn.fetch_add(1, Ordering::Relaxed) {
        number @ 0..5 => {
            calls(request, number, "read_file", &json!({"path": "house.txt", "offset": 1 + number, "limit": 60}))
        }
        _ => too_long(8_000),
    });
    let ended = house().plays([script]).run();
    ended.exits(1).reason("context_exhausted").check(ended.requests.len() < 60, "it was asked too often");
}

/// A model with this window whose answers are cut off where question and answer reach its end, as vLLM and llama.cpp do it.
fn cut_at_the_window(window: usize, turns: usize) -> Exchange {
    let script = reader(window, turns, writes_notes);
    Exchange::answers(move |request| {
        let input = tokens(request);
        if !(window - 100..=window).contains(&input) {
            return script.answer_to(request);
        }
        let usage = json!({"prompt_tokens": input, "completion_tokens": window - input, "total_tokens": window});
        let message = json!({"role": "assistant", "content": "I will now"});
        chat::completion(json!([{"index": 0, "finish_reason": "length", "message": message}]), usage)
    })
}

#[test]
fn an_answer_that_found_no_room_is_asked_for_again_with_more() {
    // The runtime leaves room for an answer of its own accord; this server wants all of that and more.
    let model = json!({"context_window": 4_000, "max_tokens": 1});
    let ended = house().plays([cut_at_the_window(4_000, 60)]).model_with(model).run();
    ended.exits(0).reason("finished").log_has("shortened");
    let was_cut = |request: &&Request| (3_900..=4_000).contains(&tokens(request));
    ended.check(ended.requests.iter().filter(was_cut).count() > 0, "no answer was cut off");
    keeps_what_matters(&ended);
}

#[test]
fn answers_that_never_find_room_are_context_exhausted() {
    let turn = AtomicUsize::new(0);
    let script = Exchange::answers(move |request| match turn.fetch_add(1, Ordering::Relaxed) {
        number @ 0..5 => {
            calls(request, number, "read_file", &json!({"path": "house.txt", "offset": 1 + number, "limit": 20}))
        }
        _ => {
            let usage = json!({"prompt_tokens": 3_900, "completion_tokens": 100, "total_tokens": 4_000});
            let message = json!({"role": "assistant", "content": "I will now"});
            chat::completion(json!([{"index": 0, "finish_reason": "length", "message": message}]), usage)
        }
    });
    let ended = house().plays([script]).model_with(json!({"context_window": 4_000})).run();
    ended.exits(1).reason("context_exhausted").check(ended.requests.len() < 60, "it was asked too often");
}

#[test]
fn summaries_do_not_go_over_the_budget() {
    let ended = house()
        .limits(json!({"max_turns": 1000, "max_llm_calls": 60, "max_stalled_turns": 50}))
        .plays([reader(4_000, 500, writes_notes)])
        .run();
    ended.exits(1).reason("budget_exhausted").counts("llmCallsUsed", 60);
    ended.check(summaries(&ended) > 0, "there was no summary");
}

/// A finished run that was shortened with a summary, where its last summary stands among the requests, and the lines of its
/// journal with the place of that summary's announcement.
fn summarized() -> (Ended, usize, Vec<Vec<u8>>, usize) {
    let model = json!({"context_window": 4_000});
    let ended = house().journal().plays([reader(4_000, 80, writes_notes)]).model_with(model).run();
    ended.exits(0);
    let request = ended.requests.iter().rposition(is_summary).unwrap();
    let lines: Vec<Vec<u8>> = ended.journal().split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = lines.iter().rposition(|line| line.starts_with(b"{\"record\":\"summary_start\"")).unwrap();
    (ended, request, lines, line)
}

#[test]
fn a_run_that_was_shortened_goes_on_shortened() {
    let (first, summary, lines, line) = summarized();
    let asked = first.requests[summary + 1].body.clone();
    let ended = first.again().file_outside("journal", lines[..line + 2].concat()).run();
    ended.exits(0).check(ended.request(1).body == asked, "the conversation is another one");
}

#[test]
fn a_summary_that_was_being_asked_for_is_asked_for_again() {
    let (first, summary, lines, line) = summarized();
    let asked = first.requests[summary].body.clone();
    let ended = first.again().file_outside("journal", lines[..line + 1].concat()).run();
    ended.exits(0).check(ended.request(1).body == asked, "the question is another one");
    let records = ended.records();
    let questions = records
        .iter()
        .filter(|record| ["model_call_start", "summary_start"].iter().any(|kind| record["record"] == **kind));
    ended.counts("llmCallsUsed", questions.count() as u64);
}
