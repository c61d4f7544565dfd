//! What comes out: exit code, termination message, stdout, log; whole when they can be, valid always, and without secrets.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{API_KEY, Ended, Runtime, Stream};
use crate::server::{Exchange, Point};

/// Less than a run would take that waits for somebody to read its output.
const SOON: Duration = Duration::from_secs(20);

fn failing() -> Exchange {
    chat::finish(json!({"status": "failed", "summary": "It can not be done.", "key_results": []}))
}

// Exit codes.

#[test]
fn each_way_of_ending_has_its_simple_exit_code() {
    for (exchange, code) in [
        (chat::achieved(0), 0),
        (failing(), 1),
        (chat::error(401, "x", Value::Null, Value::Null, "no"), 1),
        (chat::error(404, "x", Value::Null, Value::Null, "no"), 1),
    ] {
        for choice in ["", "simple"] {
            Runtime::new().env("THOUGHTMESH_EXIT_CODES", choice).plays([exchange.clone()]).run().exits(code);
        }
    }
}

#[test]
fn each_way_of_ending_has_its_detailed_exit_code() {
    for (exchange, code) in [
        (chat::achieved(0), 0),
        (failing(), 1),
        (chat::error(401, "x", Value::Null, Value::Null, "no"), 77),
        (chat::error(403, "x", Value::Null, Value::Null, "no"), 77),
        (chat::error(404, "x", Value::Null, Value::Null, "no"), 69),
    ] {
        Runtime::new().env("THOUGHTMESH_EXIT_CODES", "detailed").plays([exchange]).run().exits(code);
    }
}

#[test]
fn a_verdict_of_the_agents_own_has_no_code_of_its_own() {
    let detailed = || Runtime::new().env("THOUGHTMESH_EXIT_CODES", "detailed");
    let claim = chat::finish(json!({"status": "achieved", "summary": "s", "key_results": []}));
    let unmet = detailed().key_results(json!(["A"])).limits(json!({"max_finish_rejections": 1})).plays([claim]).run();
    unmet.exits(1).reason("key_results_unmet");
    let silent = detailed().plays((0..3).map(|_| chat::text("Hm."))).run();
    silent.exits(1).reason("no_verdict");
}

#[test]
fn a_model_that_never_answers_has_its_detailed_exit_code() {
    let ended =
        Runtime::new().env("THOUGHTMESH_EXIT_CODES", "detailed").plays((0..10).map(|_| chat::unavailable(503))).run();
    ended.exits(69).reason("model_unavailable");
}

// The outcome.

#[test]
fn the_outcome_has_every_field_of_the_contract() {
    let ended = Runtime::new().key_results(json!(["A"])).plays([chat::achieved(1)]).run();
    let outcome = ended.outcome();
    for (field, is_right) in [
        ("status", outcome["status"].is_string()),
        ("reason", outcome["reason"].is_string()),
        ("result", outcome["result"].is_string()),
        ("keyResults", outcome["keyResults"].is_array()),
        ("llmCallsUsed", outcome["llmCallsUsed"].is_u64()),
        ("turns", outcome["turns"].is_u64()),
        ("toolCalls", outcome["toolCalls"].is_u64()),
        ("usage", outcome["usage"].is_object()),
        ("durationSeconds", outcome["durationSeconds"].is_number()),
        ("resumed", outcome["resumed"] == false),
    ] {
        ended.check(is_right, field);
    }
}

#[test]
fn the_outcome_of_a_configuration_error_has_every_field_too() {
    let ended = Runtime::new().run();
    let outcome = ended.outcome();
    for field in ["status", "reason", "result", "keyResults", "llmCallsUsed", "turns", "toolCalls", "usage"] {
        ended.check(!outcome[field].is_null(), field);
    }
}

#[test]
fn the_summary_is_the_result() {
    let finish = chat::finish(json!({"status": "achieved", "summary": "Seven red doors.", "key_results": []}));
    let ended = Runtime::new().plays([finish]).run();
    ended.exits(0).check(ended.outcome()["result"] == "Seven red doors.", "the result");
    ended.check(ended.termination_message()["result"] == "Seven red doors.", "the result");
}

#[test]
fn turns_and_calls_are_counted() {
    let turn = chat::tool_calls(&[("a", "list_directory", json!({})), ("b", "teleport", json!({}))]);
    let ended = Runtime::new()
        .tools_named(&["list_directory"])
        .plays([chat::unavailable(503), turn, chat::text("Hm."), chat::achieved(0)])
        .run();
    ended.exits(0).counts("llmCallsUsed", 3).counts("turns", 3).counts("toolCalls", 2);
}

#[test]
fn usage_is_the_sum_over_all_turns() {
    let ended = Runtime::new().plays([chat::text("Hm."), chat::achieved(0)]).run();
    let expected = json!({
        "inputTokens": 2 * chat::INPUT_TOKENS, "outputTokens": 2 * chat::OUTPUT_TOKENS,
        "cachedInputTokens": 2 * chat::CACHED_TOKENS,
    });
    ended.exits(0).check(ended.outcome()["usage"] == expected, "the usage");
}

#[test]
fn the_duration_is_that_of_the_run() {
    let fault = chat::error(429, "requests", Value::Null, Value::Null, "slow").header("retry-after-ms", "700");
    let ended = Runtime::new().plays([fault, chat::achieved(0)]).run();
    let seconds = ended.outcome()["durationSeconds"].as_f64().unwrap_or(-1.0);
    ended.check((0.7..=ended.duration.as_secs_f64()).contains(&seconds), "the duration");
}

#[test]
fn stdout_and_termination_message_are_the_same_object() {
    let ended = Runtime::new().key_results(json!(["A"])).plays([chat::achieved(1)]).run();
    ended.exits(0).check(ended.outcome() == ended.termination_message(), "they differ");
}

#[test]
fn stdout_is_one_line_whatever_the_summary() {
    let summary = "line one\nline two\r\n\u{2028}\"quoted\" \\ \u{0} \u{1b}[31m";
    let ended = Runtime::new()
        .plays([chat::finish(json!({"status": "achieved", "summary": summary, "key_results": []}))])
        .run();
    ended.exits(0).check(ended.outcome()["result"] == summary, "the result");
}

// The termination message.

fn finishing_with(summary: &str, evidence: &str) -> Ended {
    let arguments = json!({"status": "achieved", "summary": summary, "key_results": [chat::met(1, evidence)]});
    let ended = Runtime::new().key_results(json!(["A"])).plays([chat::finish(arguments)]).run();
    // Asks for the message, so that its size and form are checked.
    ended.exits(0).status("achieved").reason("finished");
    ended
}

#[test]
fn a_short_result_is_told_whole() {
    let ended = finishing_with("naïve 🚪", "Überall");
    ended.check(ended.termination_message()["result"] == "naïve 🚪", "the result");
    ended.check(ended.termination_message()["keyResults"][0]["evidence"] == "Überall", "the evidence");
}

#[test]
fn a_long_summary_is_cut_for_the_termination_message() {
    for summary in ["a".repeat(100_000), "🚪".repeat(30_000), "\"\\\n".repeat(30_000), "\u{1}".repeat(30_000)] {
        let ended = finishing_with(&summary, "short");
        let result = ended.termination_message()["result"].as_str().unwrap_or_default().to_owned();
        ended.check(!result.is_empty() && result.len() < summary.len(), "the result is not cut");
        ended.check(summary.starts_with(&result[..4]), "the head is missing");
        ended.check(ended.outcome()["result"] == summary, "stdout is cut too");
    }
}

#[test]
fn every_length_of_a_summary_makes_a_valid_termination_message() {
    for length in [800, 900, 990, 1000, 1010, 1100, 1300, 1900, 2000, 2100] {
        finishing_with(&"ä🚪".repeat(length), "short");
    }
}

#[test]
fn long_evidence_is_cut_for_the_termination_message() {
    let evidence = "🚪 ".repeat(30_000);
    let ended = finishing_with("short", &evidence);
    ended.check(ended.termination_message()["result"] == "short", "the result is cut before the evidence");
    ended.check(ended.outcome()["keyResults"][0]["evidence"] == evidence, "stdout is cut too");
}

#[test]
fn three_hundred_key_results_make_a_valid_termination_message() {
    let descriptions: Vec<String> = (1..=300).map(|number| format!("Door {number} is shut")).collect();
    let claims: Vec<Value> = (1..=300).map(|number| chat::met(number, &"🚪 and more of it ".repeat(20))).collect();
    let arguments = json!({"status": "achieved", "summary": "All doors are shut.", "key_results": claims});
    let ended = Runtime::new().key_results(json!(descriptions)).plays([chat::finish(arguments)]).run();
    ended.exits(0).status("achieved").reason("finished").counts("turns", 1);
    ended.check(ended.termination_message()["result"] == "All doors are shut.", "the result is cut first");
    ended.check(ended.outcome()["keyResults"].as_array().is_some_and(|list| list.len() == 300), "stdout is cut too");
}

#[test]
fn everything_long_at_once_makes_a_valid_termination_message() {
    let descriptions: Vec<String> = (1..=300).map(|number| format!("Door {number} is shut")).collect();
    let claims: Vec<Value> = (1..=300).map(|number| chat::met(number, &"\"\\🚪".repeat(50))).collect();
    let arguments = json!({"status": "achieved", "summary": "\"🚪\n".repeat(20_000), "key_results": claims});
    let ended = Runtime::new().key_results(json!(descriptions)).plays([chat::finish(arguments)]).run();
    ended.exits(0).status("achieved").reason("finished");
}

#[test]
fn an_older_termination_message_is_gone() {
    let runtime = Runtime::new().file_outside("termination-log", "x".repeat(10_000));
    runtime.plays([chat::achieved(0)]).run().exits(0).reason("finished");
}

#[test]
fn a_termination_log_that_can_not_be_written_is_a_warning() {
    for path in ["/no/such/place/termination-log", "/"] {
        let ended = Runtime::new().env("THOUGHTMESH_TERMINATION_LOG", path).plays([chat::achieved(0)]).run();
        ended.exits(0).log_has("warn").log_has("THOUGHTMESH_TERMINATION_LOG");
        ended.check(ended.outcome()["reason"] == "finished", "stdout");
    }
}

#[test]
fn a_termination_log_without_room_is_a_warning() {
    let ended = Runtime::new().env("THOUGHTMESH_TERMINATION_LOG", "/dev/full").plays([chat::achieved(0)]).run();
    ended.exits(0).log_has("warn");
}

// The log.

#[test]
fn each_turn_tool_call_and_retry_has_a_line() {
    let ended = Runtime::new()
        .tools_named(&["list_directory"])
        .plays([chat::tool_call("list_directory", json!({})), chat::unavailable(503), chat::achieved(0)])
        .run();
    ended.exits(0).log_has("list_directory").log_has("503");
    ended.check(ended.stderr.lines().filter(|line| line.contains("turn")).count() >= 2, "turns are missing");
}

#[test]
fn the_log_is_text_without_colors() {
    let ended = Runtime::new().plays([chat::achieved(0)]).run();
    ended.check(!ended.stderr.is_empty() && !ended.stderr.contains('\u{1b}'), "the log");
}

#[test]
fn the_log_is_one_json_object_a_line_where_asked_for() {
    let ended = Runtime::new()
        .env("THOUGHTMESH_LOG_FORMAT", "json")
        .env("RUST_LOG", "debug")
        .tools_named(&["shell"])
        .plays([
            chat::unavailable(503),
            chat::tool_call("shell", json!({"command": "printf 'a\\nb\"\\377'"})),
            chat::text("Line one\nline \"two\" \u{1b}[31m"),
            chat::achieved(0),
        ])
        .run();
    ended.exits(0).check(ended.stderr.lines().count() >= 4, "lines are missing");
    for line in ended.stderr.lines() {
        let is_object = serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object());
        ended.check(is_object, &format!("not an object: {line}"));
    }
}

#[test]
fn a_line_of_the_json_log_has_a_level() {
    let ended = Runtime::new().env("THOUGHTMESH_LOG_FORMAT", "json").plays([chat::achieved(0)]).run();
    let first: Value = serde_json::from_str(ended.stderr.lines().next().unwrap_or_default()).unwrap_or_default();
    ended.check(first["level"].as_str().is_some_and(|level| level.eq_ignore_ascii_case("info")), "the level");
}

#[test]
fn words_of_the_model_make_no_lines_of_their_own() {
    let finish = chat::finish(json!({"status": "failed", "summary": "a\nERROR forged line", "key_results": []}));
    let ended = Runtime::new().plays([finish]).run();
    ended.check(!ended.stderr.lines().any(|line| line.starts_with("ERROR forged")), "a line is forged");
}

#[test]
fn rust_log_sets_the_level() {
    let lines = |level: &str| {
        let ended = Runtime::new().env("RUST_LOG", level).plays([chat::text("Hm."), chat::achieved(0)]).run();
        ended.exits(0);
        ended.stderr.lines().count()
    };
    assert_eq!((lines("off"), lines("error")), (0, 0));
    assert!(lines("info") > lines("error"));
    assert!(lines("debug") > lines("info"));
}

#[test]
fn a_rust_log_that_nobody_understands_does_not_end_the_run() {
    for level in ["loud", "=,=", ""] {
        Runtime::new().env("RUST_LOG", level).plays([chat::achieved(0)]).run().exits(0);
    }
}

#[test]
fn the_reason_of_a_failure_is_in_the_log() {
    let ended = Runtime::new().env("RUST_LOG", "error").plays((0..10).map(|_| chat::unavailable(503))).run();
    ended.exits(1).log_has("503");
}

// Outputs that nobody takes.

/// A run whose log is much longer than a pipe, at level debug.
fn talkative() -> Runtime {
    let read = |id: &str| chat::tool_calls(&[(id, "read_file", json!({"path": "a.txt"}))]);
    Runtime::new()
        .env("RUST_LOG", "debug")
        .tools_named(&["read_file"])
        .file("a.txt", "a long line of text that is said again and again\n".repeat(1000))
        .plays([read("a"), read("b"), read("c"), chat::achieved(0)])
}

#[track_caller]
fn goes_on(stdout: Stream, stderr: Stream) {
    let ended = talkative().stdout(stdout).stderr(stderr).run();
    ended.exits(0).reason("finished").check(ended.duration < SOON, "it waited");
}

#[test]
fn a_closed_stdout_does_not_matter() {
    goes_on(Stream::Closed, Stream::Captured);
}

#[test]
fn a_closed_stderr_does_not_matter() {
    goes_on(Stream::Captured, Stream::Closed);
}

#[test]
fn both_closed_do_not_matter() {
    goes_on(Stream::Closed, Stream::Closed);
}

#[test]
fn a_stdout_whose_reader_is_gone_does_not_matter() {
    goes_on(Stream::ReaderGone, Stream::Captured);
}

#[test]
fn a_stderr_whose_reader_is_gone_does_not_matter() {
    goes_on(Stream::Captured, Stream::ReaderGone);
}

#[test]
fn a_full_stdout_that_nobody_reads_does_not_hold_the_run() {
    goes_on(Stream::NobodyReads, Stream::Captured);
}

#[test]
fn a_full_stderr_that_nobody_reads_does_not_hold_the_run() {
    goes_on(Stream::Captured, Stream::NobodyReads);
}

#[test]
fn a_failure_has_its_exit_code_though_nobody_reads() {
    for stream in [Stream::Closed, Stream::ReaderGone, Stream::NobodyReads] {
        let ended = Runtime::new().plays([failing()]).stdout(stream).stderr(stream).run();
        ended.exits(1).reason("gave_up").check(ended.duration < SOON, "it waited");
    }
}

#[test]
fn a_configuration_error_has_its_exit_code_though_nobody_reads() {
    for stream in [Stream::Closed, Stream::ReaderGone, Stream::NobodyReads] {
        let ended = Runtime::new().stdout(stream).stderr(stream).run();
        ended.exits(1).reason("config_invalid").check(ended.duration < SOON, "it waited");
    }
}

#[test]
fn help_has_its_exit_code_though_its_reader_is_gone() {
    Runtime::new().arg("--help").stdout(Stream::ReaderGone).run().exits(0);
}

// Secrets.

#[test]
fn an_error_that_repeats_the_key_is_not_repeated() {
    for status in [400, 401, 403, 404, 422] {
        let message = format!("Incorrect API key provided: {API_KEY}. Headers: Authorization: Bearer {API_KEY}");
        let fault = chat::error(status, "invalid_request_error", Value::Null, Value::Null, &message);
        Runtime::new().env("RUST_LOG", "trace").plays([fault]).run().exits(1).never_says(API_KEY);
    }
}

#[test]
fn a_retry_that_repeats_the_key_is_not_repeated() {
    let fault =
        Exchange::new(503, "text/plain", format!("Bearer {API_KEY} is overloaded")).header("retry-after-ms", "1");
    Runtime::new().env("RUST_LOG", "trace").plays([fault, chat::achieved(0)]).run().exits(0).never_says(API_KEY);
}

#[test]
fn an_unreadable_answer_that_repeats_the_key_is_not_repeated() {
    let page = Exchange::new(200, "text/html", format!("<html>{API_KEY}</html>"));
    Runtime::new().env("RUST_LOG", "trace").plays([page, chat::achieved(0)]).run().exits(0).never_says(API_KEY);
}

#[test]
fn a_redirect_that_repeats_the_key_is_not_repeated() {
    let location = format!("http://127.0.0.1:9/?key={API_KEY}");
    let redirect = Exchange::new(307, "text/plain", "").header("Location", &location);
    Runtime::new().env("RUST_LOG", "trace").plays([redirect]).run().exits(1).never_says(API_KEY);
}

#[test]
fn no_level_of_the_log_tells_a_key() {
    for level in ["debug", "trace", "ureq=trace,ureq_proto=trace,rustls=trace"] {
        let ended = Runtime::new()
            .env("RUST_LOG", level)
            .env("DEPLOY_TOKEN", "marker-51b0e2")
            .tools_named(&["list_directory"])
            .plays([chat::tool_call("list_directory", json!({})), chat::achieved(0)])
            .model_with(json!({"headers": {"X-Auth": "marker-0a4c77"}}))
            .run();
        ended.exits(0).never_says("marker-51b0e2").never_says("marker-0a4c77");
    }
}

// A peer that is there and says nothing.

#[test]
fn a_silent_model_holds_the_run_no_longer_than_its_timeout() {
    let running = Runtime::new()
        .plays([chat::text("x").stalls(Point::InHeaders), failing()])
        .model_with(json!({"timeout_seconds": 1}))
        .timeout(SOON)
        .spawn();
    running.wait_for_requests(2);
    running.wait().exits(1).reason("gave_up");
}

#[test]
fn a_rust_log_that_cannot_be_understood_leaves_the_log_whole() {
    let ended = Runtime::new()
        .env("RUST_LOG", "!!bad==")
        .env("THOUGHTMESH_LOG_FORMAT", "json")
        .plays([chat::achieved(0)])
        .run();
    ended.exits(0).check(!ended.stderr.contains("invalid logging spec"), "a line that is not of the log");
}

#[test]
fn the_working_directory_is_no_secret() {
    let ended = Runtime::new().env("PWD", "All is done").plays([chat::achieved(0)]).run();
    ended.exits(0).check(ended.stdout.contains("All is done"), "the directory is masked");
}

#[test]
fn a_key_that_stands_where_an_error_page_is_cut_leaves_no_half() {
    let page = format!("{} {API_KEY} and more", "x".repeat(480));
    let body = json!({"error": {"message": page, "type": "invalid_request_error"}}).to_string();
    let ended = Runtime::new().plays([Exchange::new(400, "application/json", body)]).run();
    let half = &API_KEY[..API_KEY.len() / 2];
    ended.exits(1).check(!ended.stderr.contains(half) && !ended.stdout.contains(half), "half a key");
}
