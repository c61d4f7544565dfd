//! When the exit code is 0, and why it is not: the rules of the verdict, and what the model is told.

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::Runtime;
use crate::server::Exchange;

fn two_key_results() -> Runtime {
    Runtime::new().key_results(json!(["The report exists", "It names five bottlenecks"]))
}

fn finishing(status: &str, key_results: Value) -> Exchange {
    chat::finish(json!({"status": status, "summary": "A summary.", "key_results": key_results}))
}

/// The claim is refused and says why; a right one afterwards is taken.
#[track_caller]
fn rejects(claim: Exchange, why: &str) {
    let ended = two_key_results().plays([claim, chat::achieved(2)]).run();
    ended.exits(0).reason("finished").tool_result_has(1, why);
}

// What the model is told.

#[test]
fn the_model_is_told_the_objective() {
    let ended = Runtime::new().objective("Count the red doors.").plays([chat::achieved(0)]).run();
    ended.exits(0).check(ended.request(1).opening().contains("Count the red doors."), "the objective is missing");
}

#[test]
fn the_model_is_told_the_key_results_with_their_numbers() {
    let ended = two_key_results().plays([chat::achieved(2)]).run();
    let opening = ended.request(1).opening();
    for (number, text) in [("1", "The report exists"), ("2", "It names five bottlenecks")] {
        let line = opening.lines().find(|line| line.contains(text)).unwrap_or_default();
        ended.check(line.contains(number), &format!("no line holds {number} and {text:?}"));
    }
}

#[test]
fn a_key_result_may_be_an_object_with_a_description() {
    let ended =
        Runtime::new().key_results(json!([{"description": "The door is shut"}])).plays([chat::achieved(1)]).run();
    ended.exits(0).check(ended.request(1).opening().contains("The door is shut"), "the description is missing");
}

#[test]
fn the_model_is_told_how_to_finish() {
    let ended = Runtime::new().plays([chat::achieved(0)]).run();
    ended.check(ended.request(1).opening().contains("finish"), "the opening does not name the tool finish");
}

#[test]
fn finish_is_offered_with_a_schema_of_its_arguments() {
    let ended = two_key_results().plays([chat::achieved(2)]).run();
    let parameters = ended.request(1).tool_parameters("finish");
    ended.check(parameters["properties"]["status"]["enum"] == json!(["achieved", "failed"]), "the schema of status");
    for name in ["summary", "key_results"] {
        ended.check(parameters["properties"][name].is_object(), name);
    }
}

#[test]
fn without_key_results_the_objective_alone_is_enough() {
    Runtime::new().plays([chat::achieved(0)]).run().exits(0).status("achieved").reason("finished");
}

#[test]
fn a_system_prompt_of_the_users_replaces_only_the_base_prompt() {
    let ended = two_key_results()
        .objective("Count the red doors.")
        .plays([chat::achieved(2)])
        .model_with(json!({"systemPrompt": "You are a careful door counter."}))
        .run();
    let opening = ended.request(1).opening();
    ended.check(ended.request(1).system().contains("careful door counter"), "the system prompt is missing");
    for text in ["Count the red doors.", "The report exists", "finish"] {
        ended.check(opening.contains(text), text);
    }
}

#[test]
fn the_base_prompt_is_gone_when_the_user_has_one() {
    let with = |fields: Value| Runtime::new().plays([chat::achieved(0)]).model_with(fields).run();
    let (base, own) = (with(json!({})), with(json!({"system_prompt": "Mine."})));
    let first_line = base.request(1).system().lines().next().unwrap_or_default().to_owned();
    own.check(!first_line.is_empty() && !own.request(1).system().contains(&first_line), "both prompts are told");
}

// Rule 1: the agent gives up.

#[test]
fn status_failed_ends_the_run_at_once() {
    let ended = two_key_results().plays([finishing("failed", json!([]))]).run();
    ended.exits(1).status("failed").reason("gave_up").counts("turns", 1);
}

#[test]
fn the_summary_of_a_failure_is_the_result() {
    let ended = Runtime::new().plays([finishing("failed", json!([]))]).run();
    ended.check(ended.outcome()["result"].as_str().is_some_and(|text| text.contains("A summary.")), "the result");
}

#[test]
fn calls_beside_a_failed_finish_still_run() {
    let failed = json!({"status": "failed", "summary": "No.", "key_results": []});
    let turn = chat::tool_calls(&[
        ("a", "write_file", json!({"path": "left.txt", "content": "behind"})),
        ("b", "finish", failed),
    ]);
    let ended = Runtime::new().tools_named(&["filesystem"]).plays([turn]).run();
    ended.exits(1).reason("gave_up").file_is("left.txt", "behind");
}

// Rule 2: a claim is checked.

#[test]
fn a_claim_with_every_key_result_met_is_taken() {
    let ended = two_key_results().plays([chat::achieved(2)]).run();
    ended.exits(0).status("achieved").reason("finished").counts("turns", 1);
}

#[test]
fn the_outcome_tells_each_key_result_with_its_evidence() {
    let claim = finishing("achieved", json!([chat::met(1, "report.md, 40 lines"), chat::met(2, "its table")]));
    let ended = two_key_results().plays([claim]).run();
    let expected = json!([
        {"keyResult": 1, "met": true, "evidence": "report.md, 40 lines", "established": "claimed"},
        {"keyResult": 2, "met": true, "evidence": "its table", "established": "claimed"},
    ]);
    ended.exits(0).check(ended.outcome()["keyResults"] == expected, "keyResults");
}

#[test]
fn key_results_may_be_claimed_in_any_order() {
    let claim = finishing("achieved", json!([chat::met(2, "b"), chat::met(1, "a")]));
    two_key_results().plays([claim]).run().exits(0);
}

#[test]
fn a_claim_that_leaves_a_key_result_out_is_rejected() {
    rejects(finishing("achieved", json!([chat::met(1, "a")])), "2");
}

#[test]
fn a_claim_without_any_key_result_is_rejected() {
    rejects(finishing("achieved", json!([])), "1");
}

#[test]
fn a_claim_whose_key_results_are_absent_is_rejected() {
    rejects(chat::finish(json!({"status": "achieved", "summary": "s"})), "key_result");
}

#[test]
fn a_claim_with_a_key_result_not_met_is_rejected() {
    let unmet = json!({"key_result": 2, "met": false, "evidence": "only four found"});
    rejects(finishing("achieved", json!([chat::met(1, "a"), unmet])), "2");
}

#[test]
fn a_claim_that_gives_a_key_result_twice_is_rejected() {
    rejects(finishing("achieved", json!([chat::met(1, "a"), chat::met(2, "b"), chat::met(2, "c")])), "2");
}

#[test]
fn a_claim_with_an_unknown_key_result_is_rejected() {
    rejects(finishing("achieved", json!([chat::met(1, "a"), chat::met(2, "b"), chat::met(7, "c")])), "7");
}

#[test]
fn a_key_result_numbered_from_zero_is_unknown() {
    rejects(finishing("achieved", json!([chat::met(0, "a"), chat::met(1, "b")])), "0");
}

#[test]
fn a_claim_with_empty_evidence_is_rejected() {
    rejects(finishing("achieved", json!([chat::met(1, "a"), chat::met(2, "")])), "evidence");
}

#[test]
fn a_claim_with_blank_evidence_is_rejected() {
    rejects(finishing("achieved", json!([chat::met(1, "a"), chat::met(2, " \n\t ")])), "evidence");
}

#[test]
fn a_claim_without_evidence_is_rejected() {
    rejects(finishing("achieved", json!([chat::met(1, "a"), {"key_result": 2, "met": true}])), "evidence");
}

#[test]
fn a_status_that_is_not_one_of_the_two_is_rejected() {
    rejects(finishing("done", json!([chat::met(1, "a"), chat::met(2, "b")])), "achieved");
}

#[test]
fn a_claim_of_the_wrong_shape_is_rejected() {
    rejects(chat::finish(json!({"status": "achieved", "summary": "s", "key_results": "all of them"})), "key_results");
}

#[test]
fn a_claim_that_is_not_json_is_rejected() {
    let call = chat::call("a", "finish", json!("{\"status\": \"achieved\","));
    let claim = chat::message(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls");
    rejects(claim, "json");
}

#[test]
fn a_claim_beside_a_call_that_failed_is_rejected() {
    let turn = chat::tool_calls(&[
        ("a", "read_file", json!({"path": "missing.txt"})),
        ("b", "finish", chat::achieved_arguments(0)),
    ]);
    let read = chat::tool_call("read_file", json!({"path": "here.txt"}));
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("here.txt", "hello")
        .plays([read, turn, chat::achieved(0)])
        .run();
    ended.exits(0).counts("turns", 3).tool_result_has(3, "fail");
}

#[test]
fn claims_beside_each_other_are_one_rejection() {
    let claim = |id| (id, "finish", chat::achieved_arguments(0));
    let twice = || chat::tool_calls(&[claim("a"), claim("b")]);
    let ended = Runtime::new().plays([twice(), twice(), chat::achieved(0)]).run();
    ended.exits(0).counts("turns", 3).tool_result_has(2, "more than once");
    let ended = Runtime::new().plays([twice(), twice(), twice()]).run();
    ended.exits(1).reason("key_results_unmet");
}

#[test]
fn finish_is_decided_after_the_calls_beside_it() {
    let turn = chat::tool_calls(&[
        ("a", "finish", chat::achieved_arguments(0)),
        ("b", "read_file", json!({"path": "missing.txt"})),
    ]);
    let read = chat::tool_call("read_file", json!({"path": "here.txt"}));
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("here.txt", "hello")
        .plays([read, turn, chat::achieved(0)])
        .run();
    ended.exits(0).counts("turns", 3);
}

#[test]
fn a_claim_beside_calls_that_succeed_is_taken_after_them() {
    let turn = chat::tool_calls(&[
        ("a", "finish", chat::achieved_arguments(0)),
        ("b", "write_file", json!({"path": "out.txt", "content": "done"})),
    ]);
    let ended = Runtime::new().tools_named(&["filesystem"]).plays([turn]).run();
    ended.exits(0).counts("turns", 1).counts("toolCalls", 1).file_is("out.txt", "done");
}

#[test]
fn a_claim_is_rejected_when_every_tool_call_of_the_run_failed() {
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("here.txt", "hello")
        .plays([
            chat::tool_call("read_file", json!({"path": "missing.txt"})),
            chat::achieved(0),
            chat::tool_call("read_file", json!({"path": "here.txt"})),
            chat::achieved(0),
        ])
        .run();
    ended.exits(0).counts("turns", 4).tool_result_has(2, "fail");
}

#[test]
fn a_claim_is_taken_when_one_tool_call_of_the_run_succeeded() {
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("here.txt", "hello")
        .plays([
            chat::tool_call("read_file", json!({"path": "here.txt"})),
            chat::tool_call("read_file", json!({"path": "missing.txt"})),
            chat::achieved(0),
        ])
        .run();
    ended.exits(0).counts("turns", 3);
}

// Rule 3: claims that are never right.

#[test]
fn three_rejections_end_the_run() {
    let claims = (0..3).map(|_| finishing("achieved", json!([chat::met(1, "a")])));
    let ended = two_key_results().plays(claims).run();
    ended.exits(1).status("failed").reason("key_results_unmet").counts("turns", 3);
}

#[test]
fn max_finish_rejections_is_obeyed() {
    let ended =
        two_key_results().limits(json!({"max_finish_rejections": 1})).plays([finishing("achieved", json!([]))]).run();
    ended.exits(1).reason("key_results_unmet").counts("turns", 1);
}

#[test]
fn rejections_count_over_the_whole_run() {
    let claim = || finishing("achieved", json!([]));
    let read = || chat::tool_call("list_directory", json!({}));
    let ended =
        two_key_results().tools_named(&["list_directory"]).plays([claim(), read(), claim(), read(), claim()]).run();
    ended.exits(1).reason("key_results_unmet").counts("turns", 5);
}

// Rule 4: turns without tool calls.

#[test]
fn a_turn_without_tool_calls_is_not_the_end() {
    let ended = Runtime::new().plays([chat::text("I am done, the report is written."), chat::achieved(0)]).run();
    ended.exits(0).counts("turns", 2).check(ended.request(2).news().contains("finish"), "the model is not told how");
}

#[test]
fn three_turns_in_a_row_without_tool_calls_are_no_verdict() {
    let ended = Runtime::new().plays([chat::text("One."), chat::text("Two."), chat::text("Three.")]).run();
    ended.exits(1).status("failed").reason("no_verdict").counts("turns", 3);
}

#[test]
fn only_turns_in_a_row_count() {
    let call = || chat::tool_call("list_directory", json!({}));
    let ended = Runtime::new()
        .tools_named(&["list_directory"])
        .plays([chat::text("1"), chat::text("2"), call(), chat::text("3"), chat::text("4"), chat::achieved(0)])
        .run();
    ended.exits(0).counts("turns", 6);
}

#[test]
fn the_arguments_of_finish_as_the_whole_text_are_a_verdict() {
    let text = chat::achieved_arguments(2).to_string();
    two_key_results().plays([chat::text(&text)]).run().exits(0).reason("finished").counts("toolCalls", 0);
}

#[test]
fn white_space_around_the_arguments_of_finish_does_not_matter() {
    let text = format!("\n  {:#}\n", chat::achieved_arguments(2));
    two_key_results().plays([chat::text(&text)]).run().exits(0);
}

#[test]
fn a_failure_as_the_whole_text_is_a_verdict() {
    let text = json!({"status": "failed", "summary": "No.", "key_results": []}).to_string();
    two_key_results().plays([chat::text(&text)]).run().exits(1).reason("gave_up");
}

#[test]
fn a_verdict_with_words_around_it_is_not_one() {
    let text = format!("Here it is: {}", chat::achieved_arguments(2));
    two_key_results().plays([chat::text(&text), chat::achieved(2)]).run().exits(0).counts("turns", 2);
}

#[test]
fn a_verdict_as_text_is_checked_like_any_other() {
    let text = json!({"status": "achieved", "summary": "s", "key_results": [chat::met(1, "a")]}).to_string();
    let ended = two_key_results().plays([chat::text(&text), chat::achieved(2)]).run();
    ended.exits(0).counts("turns", 2).check(ended.request(2).news().contains('2'), "the model is not told why");
}

#[test]
fn verdicts_as_text_that_are_rejected_three_times_end_the_run() {
    let text = json!({"status": "achieved", "summary": "s", "key_results": []}).to_string();
    let ended = two_key_results().plays([chat::text(&text), chat::text(&text), chat::text(&text)]).run();
    ended.exits(1).reason("key_results_unmet");
}

#[test]
fn json_text_that_is_not_a_verdict_is_an_ordinary_text() {
    let ended = Runtime::new().plays([chat::text("{\"answer\": 42}"), chat::achieved(0)]).run();
    ended.exits(0).counts("turns", 2);
}

// Rule 5: answers that are cut, refused or empty.

fn cut(content: Value, calls: Value) -> Exchange {
    let mut message = json!({"role": "assistant", "content": content});
    if !calls.is_null() {
        message["tool_calls"] = calls;
    }
    chat::message(message, "length")
}

fn half_call() -> Value {
    json!([chat::call("half", "write_file", json!("{\"path\": \"a.txt\", \"content\": \"abc"))])
}

#[test]
fn the_half_call_of_a_cut_answer_is_not_run() {
    let ended =
        Runtime::new().tools_named(&["filesystem"]).plays([cut(Value::Null, half_call()), chat::achieved(0)]).run();
    ended.exits(0).check(ended.file("a.txt").is_none(), "a.txt was written");
}

#[test]
fn the_model_is_told_that_its_answer_was_cut() {
    let ended = Runtime::new().plays([cut(json!("The report begins"), Value::Null), chat::achieved(0)]).run();
    ended.exits(0).check(ended.request(2).news().to_lowercase().contains("cut"), "the model is not told");
}

#[test]
fn the_model_is_told_that_its_call_was_cut() {
    let ended = Runtime::new()
        .tools_named(&["filesystem"])
        .plays([cut(json!("I write it."), half_call()), chat::achieved(0)])
        .run();
    ended.exits(0).check(ended.request(2).news().to_lowercase().contains("cut"), "the model is not told");
}

#[test]
fn two_cut_answers_in_a_row_are_no_verdict() {
    let text = || cut(json!("The report begins"), Value::Null);
    Runtime::new().plays([text(), text()]).run().exits(1).status("failed").reason("no_verdict");
}

#[test]
fn two_cut_calls_in_a_row_are_no_verdict() {
    let ended = Runtime::new()
        .tools_named(&["filesystem"])
        .plays([cut(Value::Null, half_call()), cut(Value::Null, half_call())])
        .run();
    ended.exits(1).reason("no_verdict");
}

#[test]
fn a_thought_that_used_up_the_limit_is_a_cut_answer() {
    Runtime::new().plays([cut(json!(""), Value::Null), cut(json!(""), Value::Null)]).run().reason("no_verdict");
}

#[test]
fn cut_answers_apart_do_not_end_the_run() {
    let text = || cut(json!("The report begins"), Value::Null);
    let call = chat::tool_call("list_directory", json!({}));
    Runtime::new().tools_named(&["list_directory"]).plays([text(), call, text(), chat::achieved(0)]).run().exits(0);
}

fn refusal() -> Exchange {
    chat::message(json!({"role": "assistant", "content": null, "refusal": "I can not help with that."}), "stop")
}

fn filtered() -> Exchange {
    chat::message(json!({"role": "assistant", "content": ""}), "content_filter")
}

#[test]
fn two_refusals_in_a_row_end_the_run() {
    Runtime::new().plays([refusal(), refusal()]).run().exits(1).status("failed").reason("refused");
}

#[test]
fn two_filtered_answers_in_a_row_end_the_run() {
    Runtime::new().plays([filtered(), filtered()]).run().exits(1).reason("refused");
}

#[test]
fn a_refusal_and_a_filtered_answer_in_a_row_end_the_run() {
    Runtime::new().plays([refusal(), filtered()]).run().exits(1).reason("refused");
}

#[test]
fn one_refusal_does_not_end_the_run() {
    Runtime::new().plays([refusal(), chat::achieved(0)]).run().exits(0);
}

#[test]
fn refusals_apart_do_not_end_the_run() {
    let call = chat::tool_call("list_directory", json!({}));
    Runtime::new()
        .tools_named(&["list_directory"])
        .plays([refusal(), call, filtered(), chat::achieved(0)])
        .run()
        .exits(0);
}

fn empty() -> Exchange {
    chat::text("")
}

#[test]
fn an_empty_answer_is_asked_again() {
    let ended = Runtime::new().plays([empty(), chat::achieved(0)]).run();
    ended.exits(0).check(ended.request(1).body == ended.request(2).body, "it was asked something else");
}

#[test]
fn a_second_empty_answer_counts_as_a_turn_without_tool_calls() {
    let ended = Runtime::new().plays([empty(), empty(), chat::achieved(0)]).run();
    ended.exits(0).check(ended.request(3).news().contains("finish"), "the model is not told how to finish");
}

#[test]
fn a_model_that_says_nothing_is_no_verdict() {
    let ended = Runtime::new().plays([empty().for_ever()]).run();
    ended.exits(1).reason("no_verdict").check((4..=6).contains(&ended.requests.len()), "asked too often or too seldom");
}

// Several calls in one turn.

#[test]
fn calls_of_one_turn_run_in_order() {
    let turn = chat::tool_calls(&[
        ("a", "write_file", json!({"path": "a.txt", "content": "one two"})),
        ("b", "edit_file", json!({"path": "a.txt", "old_text": "two", "new_text": "three"})),
        ("c", "read_file", json!({"path": "a.txt"})),
    ]);
    let ended = Runtime::new().tools_named(&["filesystem"]).plays([turn, chat::achieved(0)]).run();
    ended.exits(0).counts("toolCalls", 3).tool_result_has(3, "one three");
}

#[test]
fn a_call_that_fails_does_not_keep_the_next_one_from_running() {
    let turn = chat::tool_calls(&[
        ("a", "read_file", json!({"path": "missing.txt"})),
        ("b", "read_file", json!({"path": "here.txt"})),
    ]);
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("here.txt", "hello there")
        .plays([turn, chat::achieved(0)])
        .run();
    ended.exits(0).tool_result_has(2, "hello there");
}

#[test]
fn text_beside_a_call_is_kept_in_the_conversation() {
    let call = chat::call("a", "list_directory", json!("{}"));
    let turn = chat::message(
        json!({"role": "assistant", "content": "First I look around.", "tool_calls": [call]}),
        "tool_calls",
    );
    let ended = Runtime::new().tools_named(&["list_directory"]).plays([turn, chat::achieved(0)]).run();
    let said = ended.request(2).messages().iter().any(|message| message["content"] == "First I look around.");
    ended.exits(0).check(said, "the text is gone");
}

// Context.

fn context(name: &str, value: &str) -> String {
    let ended = Runtime::new().env(name, value).plays([chat::achieved(0)]).run();
    ended.exits(0);
    ended.request(1).text()
}

#[test]
fn a_variable_of_the_context_is_told_with_its_value() {
    let told = context("TICKET_ID", "OPS-4711");
    assert!(told.contains("TICKET_ID") && told.contains("OPS-4711"), "{told}");
}

#[test]
fn a_variable_of_several_lines_is_told_whole() {
    let told = context("RUNBOOK", "first line\nsecond line");
    assert!(told.contains("first line") && told.contains("second line"), "{told}");
}

#[test]
fn of_a_secret_only_the_name_is_told() {
    for name in [
        "DEPLOY_KEY",
        "SLACK_TOKEN",
        "CLIENT_SECRET",
        "DB_PASSWORD",
        "AWS_CREDENTIALS",
        "db_password",
        "GITHUB_TOKEN_2",
        "SECRET_SAUCE",
        "APIKEY",
        "PGPASSWORD",
    ] {
        let told = context(name, "marker-51b0e2");
        assert!(told.contains(name), "{name} is not told: {told}");
        assert!(!told.contains("marker-51b0e2"), "the value of {name} is told: {told}");
    }
}

#[test]
fn a_value_that_has_the_form_of_a_secret_is_not_told() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtYXJrZXIifQ.c2lnbmF0dXJlLW1hcmtlci01MWIwZTI";
    let key = "-----BEGIN PRIVATE KEY-----\nmarker51b0e2\n-----END PRIVATE KEY-----";
    for (value, part) in [
        (jwt, "c2lnbmF0dXJlLW1hcmtlci01MWIwZTI"),
        (key, "marker51b0e2"),
        ("postgres://report:marker51b0e2@db.internal/reports", "marker51b0e2"),
    ] {
        let told = context("REPORT_SOURCE", value);
        assert!(told.contains("REPORT_SOURCE"), "the name is not told: {told}");
        assert!(!told.contains(part), "the value is told: {told}");
    }
}

#[test]
fn a_key_that_the_provider_uses_is_not_told() {
    let ended = Runtime::new()
        .env("OPENAI_API_KEY", "marker-51b0e2")
        .plays([chat::achieved(0)])
        .model_with(json!({"api_key": null}))
        .run();
    ended.exits(0).never_says("marker-51b0e2");
    assert!(!String::from_utf8_lossy(&ended.request(1).body).contains("marker-51b0e2"));
}

#[test]
fn variables_of_the_platform_are_not_told() {
    for name in [
        "HOME",
        "HOSTNAME",
        "KUBERNETES_SERVICE_HOST",
        "KUBERNETES_PORT_443_TCP_ADDR",
        "HTTPS_PROXY",
        "https_proxy",
        "NO_PROXY",
        "OTEL_SERVICE_NAME",
        "SSL_CERT_DIR",
        "THOUGHTMESH_SOMETHING",
    ] {
        let ended = Runtime::new().env(name, "/marker-51b0e2").plays([chat::achieved(0)]).run();
        let told = String::from_utf8_lossy(&ended.request(1).body).into_owned();
        ended.exits(0).check(!told.contains("marker-51b0e2"), &format!("the value of {name} is told"));
        ended.check(!told.contains(name), &format!("{name} is told"));
    }
}

#[test]
fn service_links_are_not_told() {
    let links = [
        ("LEDGER_API_SERVICE_HOST", "10.96.7.11"),
        ("LEDGER_API_SERVICE_PORT", "8080"),
        ("LEDGER_API_SERVICE_PORT_HTTP", "8080"),
        ("LEDGER_API_PORT", "tcp://10.96.7.11:8080"),
        ("LEDGER_API_PORT_8080_TCP", "tcp://10.96.7.11:8080"),
        ("LEDGER_API_PORT_8080_TCP_ADDR", "10.96.7.11"),
        ("LEDGER_API_PORT_8080_TCP_PORT", "8080"),
        ("LEDGER_API_PORT_8080_TCP_PROTO", "tcp"),
    ];
    let runtime = links.iter().fold(Runtime::new(), |runtime, (name, value)| runtime.env(name, value));
    let ended = runtime.plays([chat::achieved(0)]).run();
    ended.exits(0).check(!ended.request(1).opening().contains("LEDGER_API"), "a service link is told");
}

#[test]
fn the_path_is_not_told() {
    let ended = Runtime::new().plays([chat::achieved(0)]).run();
    let told = ended.request(1).opening();
    ended.check(!told.contains(&std::env::var("PATH").unwrap()), "PATH is told");
}

#[test]
fn our_own_variables_are_not_told_as_context() {
    let ended = Runtime::new().plays([chat::achieved(0)]).run();
    ended.check(!ended.request(1).opening().contains("THOUGHTMESH_"), "a variable of ours is told");
}

#[test]
fn a_variable_that_is_not_utf8_does_not_end_the_run() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = std::ffi::OsString::from_vec(vec![b'a', 0xff, 0xfe]);
    Runtime::new().env_raw("ODD", bytes).plays([chat::achieved(0)]).run().exits(0);
}
