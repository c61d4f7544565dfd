//! What keeps a run within bounds: budgets, and the end of a run that gets nowhere.

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};
use crate::server::Exchange;

/// A call that is new each time.
fn new_call(number: usize) -> Exchange {
    chat::tool_call("write_file", json!({"path": format!("{number}.txt"), "content": "x"}))
}

fn same_call() -> Exchange {
    chat::tool_call("read_file", json!({"path": "a.txt"}))
}

/// Plays these exchanges under these limits, with the file tools and `a.txt`.
fn limited(limits: Value, exchanges: impl IntoIterator<Item = Exchange>) -> Ended {
    Runtime::new().tools_named(&["filesystem", "shell"]).file("a.txt", "x").limits(limits).plays(exchanges).run()
}

// Budgets.

#[test]
fn max_turns_that_are_reached_end_the_run() {
    let ended = limited(json!({"max_turns": 3}), (0..3).map(new_call));
    ended.exits(1).status("failed").reason("budget_exhausted").counts("turns", 3);
}

#[test]
fn the_calls_of_the_last_turn_still_run() {
    limited(json!({"max_turns": 1}), [new_call(7)]).reason("budget_exhausted").file_is("7.txt", "x");
}

#[test]
fn max_llm_calls_that_are_reached_end_the_run() {
    let ended = limited(json!({"max_llm_calls": 2}), (0..2).map(new_call));
    ended.exits(1).reason("budget_exhausted").counts("llmCallsUsed", 2);
}

#[test]
fn tries_again_are_not_calls_of_the_budget() {
    let script = [chat::unavailable(503), new_call(1), chat::unavailable(503), chat::achieved(0)];
    limited(json!({"max_llm_calls": 2}), script).exits(0).counts("llmCallsUsed", 2);
}

#[test]
fn max_total_tokens_that_are_reached_exactly_are_spent() {
    let limit = 2 * (chat::INPUT_TOKENS + chat::OUTPUT_TOKENS);
    let ended = limited(json!({"max_total_tokens": limit}), (0..2).map(new_call));
    ended.exits(1).reason("budget_exhausted").counts("turns", 2);
}

#[test]
fn max_total_tokens_that_are_not_reached_allow_another_turn() {
    let limit = 2 * (chat::INPUT_TOKENS + chat::OUTPUT_TOKENS) + 1;
    limited(json!({"max_total_tokens": limit}), [new_call(1), new_call(2), chat::achieved(0)]).exits(0);
}

#[test]
fn usage_that_is_missing_counts_as_an_estimate() {
    let call = chat::call("a", "list_directory", json!("{}"));
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let turn = chat::completion(json!([{"message": message, "finish_reason": "tool_calls"}]), Value::Null);
    let ended = limited(json!({"max_total_tokens": 20}), [turn]);
    ended.exits(1).reason("budget_exhausted");
    ended.check(ended.outcome()["usage"]["inputTokens"].as_u64().is_some_and(|tokens| tokens > 0), "the input tokens");
}

#[test]
fn an_estimate_is_not_wild() {
    let call = chat::call("a", "list_directory", json!("{}"));
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let turn = chat::completion(json!([{"message": message, "finish_reason": "tool_calls"}]), Value::Null);
    limited(json!({"max_total_tokens": 100_000}), [turn, chat::achieved(0)]).exits(0);
}

#[test]
fn a_verdict_that_uses_up_the_budget_counts() {
    limited(json!({"max_turns": 1}), [chat::achieved(0)]).exits(0).reason("finished");
    limited(json!({"max_total_tokens": 1}), [chat::achieved(0)]).exits(0).reason("finished");
}

#[test]
fn a_claim_that_is_rejected_by_the_last_turn_leaves_the_budget_spent() {
    let claim = chat::finish(json!({"status": "achieved", "summary": "s", "key_results": []}));
    let ended = Runtime::new().key_results(json!(["A"])).limits(json!({"max_turns": 1})).plays([claim]).run();
    ended.exits(1).reason("budget_exhausted");
}

#[test]
fn an_exhausted_budget_has_its_detailed_exit_code() {
    let ended = Runtime::new()
        .env("THOUGHTMESH_EXIT_CODES", "detailed")
        .limits(json!({"max_turns": 1}))
        .plays([chat::text("Hm.")])
        .run();
    ended.exits(75).reason("budget_exhausted");
}

#[test]
fn an_exhausted_budget_is_named() {
    for name in ["max_turns", "max_llm_calls", "max_total_tokens"] {
        limited(json!({name: 1}), [new_call(1)]).tells(name);
    }
}

#[test]
fn two_hundred_turns_are_the_most_without_a_word_about_it() {
    let ended = limited(json!({}), (0..200).map(new_call));
    ended.exits(1).reason("budget_exhausted").counts("turns", 200);
}

// Runs that get nowhere.

#[test]
fn turns_without_anything_new_end_the_run() {
    let ended = limited(json!({"max_stalled_turns": 4}), (0..5).map(|_| same_call()));
    ended.exits(1).status("failed").reason("stalled").counts("turns", 5);
}

#[test]
fn ten_turns_without_anything_new_are_the_most_without_a_word_about_it() {
    limited(json!({}), (0..11).map(|_| same_call())).exits(1).reason("stalled").counts("turns", 11);
}

#[test]
fn the_model_is_warned_at_half_of_it() {
    let script = [same_call(), same_call(), same_call(), chat::achieved(0)];
    let ended = limited(json!({"max_stalled_turns": 4}), script);
    let news: Vec<String> = ended.requests.iter().map(|request| request.news()).collect();
    ended.exits(0).check(news[2] == news[1], "the model was warned too early");
    ended.check(news[3].len() > news[2].len() && news[3].contains(&news[2]), "the model was not warned");
}

#[test]
fn other_arguments_are_something_new() {
    let path = |depth: usize| vec!["."; depth].join("/");
    let calls = (1..=6).map(|depth| chat::tool_call("list_directory", json!({"path": path(depth)})));
    limited(json!({"max_stalled_turns": 2}), calls.chain([chat::achieved(0)])).exits(0);
}

#[test]
fn another_result_is_something_new() {
    let count = || chat::tool_call("shell", json!({"command": "echo x >> log; wc -l < log"}));
    let calls = (0..6).map(|_| count());
    limited(json!({"max_stalled_turns": 2}), calls.chain([chat::achieved(0)])).exits(0);
}

#[test]
fn one_new_call_makes_a_turn_new() {
    let turn = |number: usize| {
        chat::tool_calls(&[
            (&format!("a{number}"), "read_file", json!({"path": "a.txt"})),
            (&format!("b{number}"), "write_file", json!({"path": format!("{number}.txt"), "content": "x"})),
        ])
    };
    limited(json!({"max_stalled_turns": 2}), (0..6).map(turn).chain([chat::achieved(0)])).exits(0);
}

#[test]
fn something_new_starts_the_count_again() {
    let script = [same_call(), same_call(), new_call(1), same_call(), same_call(), new_call(2), chat::achieved(0)];
    limited(json!({"max_stalled_turns": 3}), script).exits(0);
}

#[test]
fn what_was_seen_earlier_in_the_run_is_not_new() {
    let found = |name: &str| chat::tool_call("find_files", json!({"pattern": name}));
    let script = [found("a*"), found("b*"), found("a*"), found("b*"), found("a*")];
    limited(json!({"max_stalled_turns": 3}), script).exits(1).reason("stalled").counts("turns", 5);
}

#[test]
fn a_call_that_fails_again_and_again_is_nothing_new() {
    let call = || chat::tool_call("read_file", json!({"path": "missing.txt"}));
    limited(json!({"max_stalled_turns": 3}), (0..4).map(|_| call())).reason("stalled").counts("turns", 4);
}

#[test]
fn the_order_of_arguments_is_nothing_new() {
    let call = |number: usize| {
        let arguments = match number % 2 {
            0 => "{\"pattern\": \"*\", \"path\": \".\"}",
            _ => "{\"path\":\".\",\"pattern\":\"*\"}",
        };
        let call = chat::call(&format!("c{number}"), "find_files", json!(arguments));
        chat::message(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
    };
    limited(json!({"max_stalled_turns": 3}), (0..4).map(call)).reason("stalled").counts("turns", 4);
}

#[test]
fn the_objective_is_not_achieved_by_stalling_in_any_exit_code() {
    let ended = Runtime::new()
        .env("THOUGHTMESH_EXIT_CODES", "detailed")
        .tools_named(&["read_file"])
        .limits(json!({"max_stalled_turns": 1}))
        .plays([same_call(), same_call()])
        .run();
    ended.exits(1).reason("stalled");
}

// What a call may cost, and the word before the end.

/// How often the model was told that a budget is nearly spent, by the last request.
fn warnings(ended: &Ended) -> usize {
    ended.last_request().text().matches("nearly spent").count()
}

#[test]
fn the_model_is_told_once_when_a_tenth_is_left() {
    let ended = limited(json!({"max_turns": 20}), (0..19).map(new_call).chain([chat::achieved(0)]));
    ended.exits(0).check(warnings(&ended) == 1, "it was not told once");
    ended.check(!ended.request(18).text().contains("nearly spent"), "it was told too early");
    ended.check(ended.request(19).news().contains("2 of 20 left of max_turns"), "it was not told in time");
}

#[test]
fn the_model_is_told_before_the_last_call_of_a_small_budget() {
    for name in ["max_turns", "max_llm_calls"] {
        let ended = limited(json!({name: 2}), [new_call(1), chat::achieved(0)]);
        ended.exits(0).check(ended.request(2).news().contains(name), name);
        ended.check(!ended.request(1).text().contains("nearly spent"), "it was told before the first turn");
    }
}

#[test]
fn the_model_is_told_when_few_tokens_are_left() {
    let of_one = chat::INPUT_TOKENS + chat::OUTPUT_TOKENS;
    let ended = limited(json!({"max_total_tokens": 20 * of_one}), (0..18).map(new_call).chain([chat::achieved(0)]));
    ended.exits(0).check(warnings(&ended) == 1, "it was not told once");
}

#[test]
fn a_run_with_budget_enough_is_told_nothing() {
    let ended = limited(json!({}), (0..20).map(new_call).chain([chat::achieved(0)]));
    ended.exits(0).check(warnings(&ended) == 0, "it was told");
}

#[test]
fn a_call_whose_question_goes_over_the_budget_is_not_made() {
    let ended = Runtime::new()
        .tools_named(&["filesystem"])
        .file("big.txt", "line of text\n".repeat(20_000))
        .limits(json!({"max_total_tokens": 5_000, "max_output_tokens_per_call": 500}))
        .plays([chat::tool_call("read_file", json!({"path": "big.txt"}))])
        .run();
    ended.exits(1).reason("budget_exhausted").tells("the next call would take").tells("done so far");
}

#[test]
fn a_budget_smaller_than_the_first_question_asks_nothing() {
    let ended = limited(json!({"max_total_tokens": 100, "max_output_tokens_per_call": 50}), []);
    ended.exits(1).reason("budget_exhausted").counts("llmCallsUsed", 0);
}

#[test]
fn an_exhausted_budget_says_what_was_done() {
    let failing = chat::tool_call("read_file", json!({"path": "missing.txt"}));
    let ended = limited(json!({"max_turns": 3}), [new_call(1), new_call(2), failing]);
    ended.reason("budget_exhausted").tells("3 tool calls (read_file 1 of which 1 failed, write_file 2)");
}

#[test]
fn key_results_of_the_last_claim_stand_in_an_exhausted_run() {
    let claim = chat::finish(json!({"status": "achieved", "summary": "s", "key_results": [chat::met(1, "report.md")]}));
    let ended = Runtime::new().key_results(json!(["A", "B"])).limits(json!({"max_turns": 1})).plays([claim]).run();
    let key_results = ended.outcome()["keyResults"].clone();
    ended.reason("budget_exhausted").check(key_results[0]["evidence"] == "report.md", "the first");
    ended.check(key_results[1]["met"] == false && key_results[1].get("established").is_none(), "the second");
}

#[test]
fn an_estimate_is_marked_in_the_outcome() {
    let call = chat::call("a", "finish", json!(chat::achieved_arguments(0).to_string()));
    let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let turn = chat::completion(json!([{"message": message, "finish_reason": "tool_calls"}]), Value::Null);
    let ended = limited(json!({}), [turn]);
    ended.exits(0).check(ended.outcome()["usage"]["estimated"] == true, "it is not marked");
}

// The limit on one answer.

/// A parameter of the request, under this limit and with these fields of the model.
fn sent(limits: Value, fields: Value, parameter: &str) -> Value {
    let ended = Runtime::new().limits(limits).plays([chat::achieved(0)]).model_with(fields).run();
    ended.exits(0);
    ended.request(1).json()[parameter].clone()
}

#[test]
fn max_output_tokens_per_call_is_sent_and_the_smaller_one_counts() {
    let limit = || json!({"max_output_tokens_per_call": 500});
    assert_eq!(sent(limit(), json!({}), "max_tokens"), 500);
    assert_eq!(sent(limit(), json!({"max_tokens": 300}), "max_tokens"), 300);
    assert_eq!(sent(limit(), json!({"max_tokens": 900}), "max_tokens"), 500);
    assert_eq!(sent(limit(), json!({"params": {"max_tokens": "900"}}), "max_tokens"), 500);
    assert_eq!(sent(limit(), json!({"params": {"max_completion_tokens": 900}}), "max_completion_tokens"), 500);
    assert_eq!(sent(limit(), json!({"params": {"max_completion_tokens": 900}}), "max_tokens"), Value::Null);
    assert_eq!(sent(json!({}), json!({}), "max_tokens"), Value::Null);
}

// What looks like a stall and is none, and the other way round.

#[test]
fn polling_with_answers_that_change_is_no_stall() {
    let poll = || chat::tool_call("shell", json!({"command": "echo x >> polls; wc -l < polls"}));
    let script = (0..30).map(|_| poll()).chain([chat::achieved(0)]);
    limited(json!({"max_stalled_turns": 3}), script).exits(0).counts("turns", 31);
}

#[test]
fn loops_of_two_and_three_steps_are_stalls() {
    for length in [2, 3] {
        let call = |number: usize| chat::tool_call("find_files", json!({"pattern": format!("{}*", number % length)}));
        let ended = limited(json!({"max_stalled_turns": 6}), (0..6 + length).map(call));
        ended.exits(1).reason("stalled");
    }
}
