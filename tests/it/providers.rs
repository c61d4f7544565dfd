//! OpenAI Chat Completions on the wire: where the request goes, what it holds, which answers are understood, which failures
//! are tried again, and the provider that plays a file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{API_KEY, Ended, Runtime};
use crate::server::{Exchange, Point, ScriptedServer};

/// Less than the shortest `Retry-After` of these tests that must not be obeyed.
const SOON: Duration = Duration::from_secs(20);

fn one_turn() -> Runtime {
    Runtime::new().plays([chat::achieved(0)])
}

// Where the request goes.

#[track_caller]
fn posts_to(endpoint_path: &str, path: &str) {
    for provider in ["openai", "openai-compatible"] {
        let ended = one_turn()
            .model_config(|url| {
                let endpoint = format!("{url}{endpoint_path}");
                json!({"provider": provider, "name": "m", "endpoint": endpoint, "api_key": API_KEY})
            })
            .run();
        ended.exits(0).check(ended.request(1).method == "POST", "the method");
        ended.check(ended.request(1).path == path, &format!("{path} expected"));
    }
}

#[test]
fn the_path_of_the_endpoint_is_kept() {
    posts_to("/v1", "/v1/chat/completions");
}

#[test]
fn an_endpoint_without_a_path_gets_none() {
    posts_to("", "/chat/completions");
}

#[test]
fn a_slash_at_the_end_of_the_endpoint_does_not_matter() {
    posts_to("/v1/", "/v1/chat/completions");
    posts_to("/", "/chat/completions");
}

#[test]
fn a_longer_path_of_the_endpoint_is_kept() {
    posts_to("/gateway/team-a/openai/v1", "/gateway/team-a/openai/v1/chat/completions");
}

#[test]
fn every_spelling_of_the_endpoint_is_read() {
    for field in ["endpoint", "base_url", "baseUrl", "api_base"] {
        let ended = one_turn()
            .model_config(
                |url| json!({"provider": "openai", "name": "m", field: format!("{url}/v1"), "api_key": API_KEY}),
            )
            .run();
        ended.exits(0);
    }
}

#[test]
fn openai_base_url_is_used_without_an_endpoint() {
    let server = ScriptedServer::plays([chat::achieved(0)]);
    let ended = Runtime::new()
        .model(&server)
        .env("OPENAI_BASE_URL", &format!("{}/v1", server.url()))
        .model_config(|_| json!({"provider": "openai", "name": "m", "api_key": API_KEY}))
        .run();
    ended.exits(0).check(ended.request(1).path == "/v1/chat/completions", "the path");
}

#[test]
fn the_endpoint_wins_over_openai_base_url() {
    let other = ScriptedServer::plays([]);
    one_turn().env("OPENAI_BASE_URL", &other.url()).model_with(json!({"provider": "openai"})).run().exits(0);
}

#[test]
fn an_empty_endpoint_is_an_absent_one() {
    let server = ScriptedServer::plays([chat::achieved(0)]);
    let ended = Runtime::new()
        .model(&server)
        .env("OPENAI_BASE_URL", &server.url())
        .model_config(
            |_| json!({"worker": {"provider": "openai", "modelName": "m", "endpoint": "", "api_key": API_KEY}}),
        )
        .run();
    ended.exits(0);
}

// What the request holds.

#[test]
fn the_key_is_sent_as_a_bearer_token() {
    let ended = one_turn().run();
    let expected = format!("Bearer {API_KEY}");
    ended.check(ended.request(1).header("authorization") == Some(&expected), "the header");
}

#[test]
fn every_spelling_of_the_key_is_read() {
    for field in ["api_key", "apiKey"] {
        let ended = one_turn().model_with(json!({"api_key": null, field: "marker-51b0e2"})).run();
        ended.exits(0).check(ended.request(1).header("authorization") == Some("Bearer marker-51b0e2"), field);
    }
}

#[test]
fn the_key_of_the_environment_is_used_without_another() {
    for provider in ["openai", "openai-compatible"] {
        let ended = one_turn()
            .env("OPENAI_API_KEY", "marker-51b0e2")
            .model_with(json!({"provider": provider, "api_key": null}))
            .run();
        ended.exits(0).check(ended.request(1).header("authorization") == Some("Bearer marker-51b0e2"), provider);
    }
}

#[test]
fn the_key_of_the_configuration_wins_over_the_environment() {
    let ended = one_turn().env("OPENAI_API_KEY", "marker-51b0e2").run();
    ended.check(ended.request(1).header("authorization") == Some(&format!("Bearer {API_KEY}")), "the header");
}

#[test]
fn a_compatible_server_needs_no_key() {
    one_turn().model_with(json!({"api_key": null})).run().exits(0);
}

#[test]
fn the_body_says_that_it_is_json() {
    let ended = one_turn().run();
    let content_type = ended.request(1).header("content-type").unwrap_or_default();
    ended.check(content_type.starts_with("application/json"), "the content type");
}

#[test]
fn headers_of_the_configuration_are_sent() {
    let ended = one_turn().model_with(json!({"headers": {"X-Team": "doors"}})).run();
    ended.exits(0).check(ended.request(1).header("x-team") == Some("doors"), "the header");
}

#[test]
fn every_spelling_of_the_model_is_read() {
    for field in ["name", "modelName", "model_name", "apiName", "model"] {
        let ended = one_turn().model_with(json!({"name": null, field: "gpt-doors"})).run();
        ended.exits(0).check(ended.request(1).json()["model"] == "gpt-doors", field);
    }
}

#[test]
fn a_temperature_is_sent_as_a_number_however_it_was_written() {
    for written in [json!("0.2"), json!(0.2)] {
        let ended = one_turn().model_with(json!({"temperature": written})).run();
        ended.exits(0).check(ended.request(1).json()["temperature"] == json!(0.2), "the temperature");
    }
}

#[test]
fn without_a_temperature_none_is_sent() {
    for fields in [json!({}), json!({"temperature": ""})] {
        let ended = one_turn().model_with(fields).run();
        ended.exits(0).check(ended.request(1).json().get("temperature").is_none(), "a temperature was sent");
    }
}

#[test]
fn params_are_sent_as_numbers_and_booleans_where_they_are_such() {
    let params = json!({"top_p": "0.9", "seed": "7", "store": "false", "user": "ops", "stop": ["END"], "n": 1});
    let ended = one_turn().model_with(json!({"params": params})).run();
    let body = ended.request(1).json();
    for (name, value) in [
        ("top_p", json!(0.9)),
        ("seed", json!(7)),
        ("store", json!(false)),
        ("user", json!("ops")),
        ("stop", json!(["END"])),
        ("n", json!(1)),
    ] {
        ended.check(body[name] == value, &format!("{name} is {}", body[name]));
    }
}

#[test]
fn max_tokens_is_sent() {
    for written in [json!(4096), json!("4096")] {
        let ended = one_turn().model_with(json!({"max_tokens": written})).run();
        let body = ended.request(1).json();
        let sent = [&body["max_tokens"], &body["max_completion_tokens"]];
        ended.exits(0).check(sent.contains(&&json!(4096)), "no limit was sent");
    }
}

#[test]
fn nothing_is_sent_that_was_not_asked_for() {
    let ended = one_turn().run();
    let body = ended.request(1).json();
    for name in ["parallel_tool_calls", "tool_choice", "store", "metadata", "strict", "max_tokens", "top_p"] {
        ended.check(body.get(name).is_none(), &format!("{name} was sent"));
    }
}

#[test]
fn a_call_is_sent_back_as_the_model_wrote_it() {
    let arguments = "{\"path\" :   \"\\u0061.txt\" }";
    let id = format!("call_1__thought__{}", "QUJD".repeat(800));
    let call = chat::call(&id, "read_file", json!(arguments));
    let turn = chat::message(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls");
    let ended = Runtime::new().tools_named(&["read_file"]).file("a.txt", "x").plays([turn, chat::achieved(0)]).run();
    let messages = ended.request(2).messages();
    let sent = messages.iter().find(|message| message["role"] == "assistant").unwrap();
    ended.check(sent["tool_calls"][0]["function"]["arguments"] == arguments, "the arguments changed");
    ended.check(sent["tool_calls"][0]["id"] == json!(id), "the id changed");
}

#[test]
fn what_was_said_before_stays_the_same_from_turn_to_turn() {
    let ended = Runtime::new()
        .tools_named(&["filesystem"])
        .file("a.txt", "x")
        .plays([
            chat::tool_call("read_file", json!({"path": "a.txt"})),
            chat::text("Hm."),
            chat::tool_call("list_directory", json!({})),
            chat::achieved(0),
        ])
        .run();
    // As text, where the order of keys counts.
    let text = |value: &Value| value.to_string();
    for pair in ended.requests.windows(2) {
        let (before, after) = (pair[0].json(), pair[1].json());
        let count = pair[0].messages().len();
        let earlier = Value::from(&pair[1].messages()[..count]);
        ended.check(text(&earlier) == text(&before["messages"]), "earlier messages changed");
        ended.check(text(&before["tools"]) == text(&after["tools"]), "the tools changed");
    }
}

// Which answers are understood.

/// One tool call, in a message of this shape, is run and answered.
#[track_caller]
fn understands(turn: Exchange) -> Ended {
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("a.txt", "the content of a")
        .plays([turn, chat::achieved(0)])
        .run();
    ended.exits(0).tool_result_has(1, "the content of a");
    ended
}

fn turn_with(call: Value) -> Exchange {
    chat::message(json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
}

#[test]
fn arguments_may_be_an_object() {
    understands(turn_with(chat::call("a", "read_file", json!({"path": "a.txt"}))));
}

#[test]
fn arguments_may_be_encoded_twice() {
    let once = json!({"path": "a.txt"}).to_string();
    understands(turn_with(chat::call("a", "read_file", json!(json!(once).to_string()))));
}

#[test]
fn arguments_that_are_null_or_empty_are_an_empty_object() {
    for arguments in [Value::Null, json!(""), json!("  "), json!("null"), json!({})] {
        let ended = Runtime::new()
            .tools_named(&["list_directory"])
            .file("a.txt", "x")
            .plays([turn_with(chat::call("a", "list_directory", arguments)), chat::achieved(0)])
            .run();
        ended.exits(0).tool_result_has(1, "a.txt");
    }
}

#[test]
fn arguments_may_be_missing() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "list_directory"}});
    let ended = Runtime::new()
        .tools_named(&["list_directory"])
        .file("a.txt", "x")
        .plays([turn_with(call), chat::achieved(0)])
        .run();
    ended.exits(0).tool_result_has(1, "a.txt");
}

#[test]
fn an_id_may_be_missing_null_or_empty() {
    let function = json!({"name": "read_file", "arguments": "{\"path\": \"a.txt\"}"});
    understands(turn_with(json!({"type": "function", "function": function})));
    understands(turn_with(json!({"id": null, "type": "function", "function": function})));
    understands(turn_with(json!({"id": "", "type": "function", "function": function})));
}

#[test]
fn the_type_of_a_call_may_be_missing() {
    understands(turn_with(json!({"id": "a", "function": {"name": "read_file", "arguments": "{\"path\": \"a.txt\"}"}})));
}

#[test]
fn the_same_id_twice_in_one_turn_is_two_calls() {
    let call = |path: &str| chat::call("0", "read_file", json!(json!({"path": path}).to_string()));
    let turn = chat::message(
        json!({"role": "assistant", "content": "", "tool_calls": [call("a.txt"), call("b.txt")]}),
        "tool_calls",
    );
    let ended = Runtime::new()
        .tools_named(&["read_file"])
        .file("a.txt", "first")
        .file("b.txt", "second")
        .plays([turn, chat::achieved(0)])
        .run();
    ended.exits(0).tool_result_has(1, "first").tool_result_has(2, "second");
}

#[test]
fn the_same_id_in_two_turns_is_two_calls() {
    let turn = || chat::tool_calls(&[("call_0", "read_file", json!({"path": "a.txt"}))]);
    let ended =
        Runtime::new().tools_named(&["read_file"]).file("a.txt", "x").plays([turn(), turn(), chat::achieved(0)]).run();
    ended.exits(0).check(ended.request(3).tool_results().len() == 2, "two results expected");
}

#[test]
fn tool_calls_count_whatever_the_finish_reason() {
    for reason in [json!("stop"), json!("eos_token"), json!("function_call"), json!(""), Value::Null] {
        let call = chat::call("a", "read_file", json!("{\"path\": \"a.txt\"}"));
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let choices = json!([{"index": 0, "finish_reason": reason, "message": message}]);
        understands(chat::completion(choices, chat::usage()));
    }
}

#[test]
fn a_finish_reason_may_be_missing() {
    let call = chat::call("a", "read_file", json!("{\"path\": \"a.txt\"}"));
    let message = json!({"role": "assistant", "tool_calls": [call]});
    understands(chat::completion(json!([{"message": message}]), chat::usage()));
}

#[test]
fn content_may_be_null_missing_or_empty_beside_calls() {
    let call = chat::call("a", "read_file", json!("{\"path\": \"a.txt\"}"));
    for message in [
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "assistant", "tool_calls": [call]}),
        json!({"role": "assistant", "content": "", "tool_calls": [call]}),
        json!({"role": "assistant", "content": [], "tool_calls": [call]}),
        json!({"content": null, "tool_calls": [call]}),
    ] {
        understands(chat::message(message, "tool_calls"));
    }
}

#[test]
fn content_may_be_a_list_of_parts() {
    let verdict = chat::achieved_arguments(0).to_string();
    let content = json!([{"type": "text", "text": verdict}]);
    let ended = Runtime::new().plays([chat::message(json!({"role": "assistant", "content": content}), "stop")]).run();
    ended.exits(0).reason("finished");
}

#[test]
fn a_finish_reason_of_tool_calls_without_one_is_an_ordinary_text() {
    let message = json!({"role": "assistant", "content": "Hm.", "tool_calls": [], "function_call": null});
    let ended = Runtime::new().plays([chat::message(message, "tool_calls"), chat::achieved(0)]).run();
    ended.exits(0).counts("turns", 2);
}

#[test]
fn tool_calls_may_be_null() {
    let message = json!({"role": "assistant", "content": "Hm.", "tool_calls": null, "refusal": null, "audio": null});
    Runtime::new().plays([chat::message(message, "stop"), chat::achieved(0)]).run().exits(0).counts("turns", 2);
}

#[test]
fn fields_that_nobody_knows_do_not_matter() {
    let call = json!({
        "id": "a", "type": "function", "index": 0, "provider_specific_fields": {"x": 1},
        "function": {"name": "read_file", "arguments": "{\"path\": \"a.txt\"}", "parsed": null}
    });
    let message = json!({"role": "assistant", "reasoning_content": "Let me see.", "tool_calls": [call]});
    let choices = json!([{"index": 0, "finish_reason": "tool_calls", "matched_stop": 7, "message": message}]);
    understands(chat::completion(choices, chat::usage()));
}

#[test]
fn usage_may_be_missing_or_null() {
    let message = json!({"role": "assistant", "content": chat::achieved_arguments(0).to_string()});
    let choices = json!([{"index": 0, "finish_reason": "stop", "message": message}]);
    let null = Exchange::json(200, &json!({"choices": choices, "usage": null}));
    for turn in [chat::completion(choices.clone(), Value::Null), null] {
        Runtime::new().plays([turn]).run().exits(0);
    }
}

#[test]
fn counts_may_be_floats_or_missing() {
    let message = json!({"role": "assistant", "content": chat::achieved_arguments(0).to_string()});
    let choices = json!([{"index": 0, "finish_reason": "stop", "message": message}]);
    let usage = json!({"prompt_tokens": 60.0, "completion_tokens": 4e1, "prompt_tokens_details": null});
    let ended = Runtime::new().plays([chat::completion(choices, usage)]).run();
    ended.exits(0).check(ended.outcome()["usage"]["inputTokens"] == 60, "the input tokens");
    ended.check(ended.outcome()["usage"]["outputTokens"] == 40, "the output tokens");
}

#[test]
fn text_that_is_not_ascii_comes_through() {
    let ended = Runtime::new()
        .tools_named(&["filesystem"])
        .plays([
            chat::tool_call("write_file", json!({"path": "ä.txt", "content": "naïve 🚪 \u{7f} end"})),
            chat::tool_call("read_file", json!({"path": "ä.txt"})),
            chat::achieved(0),
        ])
        .run();
    ended.exits(0).tool_result_has(2, "naïve 🚪");
}

#[test]
fn a_lone_surrogate_in_an_answer_does_not_end_the_run() {
    let body = r#"{"choices":[{"message":{"role":"assistant","content":"half \ud83d of it"},"finish_reason":"stop"}]}"#;
    let turn = Exchange::new(200, "application/json", body);
    let ended = Runtime::new().plays([turn, chat::achieved(0)]).run();
    ended.exits(0);
}

// How answers arrive.

#[test]
fn a_chunked_answer_is_read() {
    Runtime::new().plays([chat::achieved(0).chunked(7)]).run().exits(0);
}

#[test]
fn an_answer_that_arrives_byte_by_byte_is_read() {
    Runtime::new().plays([chat::achieved(0).one_by_one()]).run().exits(0);
}

#[test]
fn an_answer_that_ends_with_the_connection_is_read() {
    Runtime::new().plays([chat::achieved(0).until_close()]).run().exits(0);
}

#[test]
fn a_content_type_that_is_not_json_does_not_matter() {
    let body = json!({"choices": [{"message": {"content": chat::achieved_arguments(0).to_string()}}]});
    Runtime::new().plays([Exchange::new(200, "text/plain", body.to_string())]).run().exits(0);
}

fn two_turns() -> [Exchange; 2] {
    [chat::tool_call("list_directory", json!({})), chat::achieved(0)]
}

#[test]
fn a_connection_is_used_again() {
    let ended = Runtime::new().tools_named(&["list_directory"]).plays(two_turns()).run();
    ended.exits(0).check(ended.request(2).connection == 0, "a second connection was opened");
}

#[test]
fn a_connection_that_was_closed_in_between_is_no_fault() {
    let [first, second] = two_turns();
    let ended = Runtime::new().tools_named(&["list_directory"]).plays([first.then_closes(), second]).run();
    ended.exits(0).counts("llmCallsUsed", 2);
}

#[test]
fn a_connection_that_closes_under_the_next_request_is_no_fault() {
    let [first, second] = two_turns();
    let quiet = Runtime::new().tools_named(&["list_directory"]).plays([first, second]).run();
    let [first, second] = two_turns();
    let ended = Runtime::new().tools_named(&["list_directory"]).plays([first.then_drops_next_request(), second]).run();
    let lines = |ended: &Ended| ended.stderr.lines().count();
    ended.exits(0).check(lines(&ended) == lines(&quiet), "the log speaks of it");
}

// Which failures are tried again.

#[track_caller]
fn tries_again(fault: Exchange) {
    let ended = Runtime::new().plays([fault, chat::achieved(0)]).run();
    ended.exits(0).counts("llmCallsUsed", 1).counts("turns", 1);
    ended.check(ended.request(1).body == ended.request(2).body, "the second request is another one");
}

#[test]
fn statuses_that_pass_are_tried_again() {
    for status in [408, 409, 429, 500, 502, 503, 504, 520, 529] {
        tries_again(chat::unavailable(status));
    }
}

#[test]
fn a_server_that_is_still_loading_its_model_is_tried_again() {
    let body = json!({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}});
    tries_again(Exchange::json(503, &body));
}

#[test]
fn an_error_without_json_is_tried_again_by_its_status() {
    tries_again(Exchange::new(502, "text/html", "<html>Bad Gateway</html>").header("retry-after-ms", "1"));
    tries_again(Exchange::new(503, "text/plain", "").header("retry-after-ms", "1"));
}

#[test]
fn a_connection_that_closes_without_an_answer_is_tried_again() {
    tries_again(chat::achieved(0).hangs_up(Point::Start));
}

#[test]
fn headers_that_break_off_are_tried_again() {
    tries_again(chat::achieved(0).hangs_up(Point::InHeaders));
}

#[test]
fn a_body_that_breaks_off_is_tried_again() {
    tries_again(chat::achieved(0).hangs_up(Point::InBody));
}

#[test]
fn a_chunked_body_that_breaks_off_is_tried_again() {
    tries_again(chat::achieved(0).chunked(16).hangs_up(Point::InBody));
}

#[test]
fn a_body_without_a_length_that_breaks_off_is_tried_again() {
    tries_again(chat::achieved(0).until_close().hangs_up(Point::InBody));
}

#[test]
fn an_error_whose_body_breaks_off_is_tried_again() {
    tries_again(chat::unavailable(503).hangs_up(Point::InBody));
}

#[test]
fn a_login_page_is_tried_again() {
    tries_again(Exchange::login_page());
}

#[test]
fn an_answer_that_is_not_http_is_tried_again() {
    tries_again(Exchange::raw("220 mail.internal ESMTP ready\r\n"));
}

#[test]
fn an_empty_body_is_tried_again() {
    tries_again(Exchange::new(200, "application/json", ""));
}

#[test]
fn an_answer_without_choices_is_tried_again() {
    tries_again(chat::completion(json!([]), chat::usage()));
}

#[test]
fn an_overload_inside_200_is_tried_again() {
    let error = json!({"error": {"message": "The server had an error", "type": "server_error", "code": 500}});
    tries_again(Exchange::json(200, &error));
}

#[test]
fn a_body_beyond_any_limit_is_not_read_to_its_end() {
    let ended = Runtime::new().plays([Exchange::huge(&[b' '; 1 << 20], 100)]).run();
    ended.exits(1).reason("model_unavailable").tells("more than is accepted");
}

#[test]
fn silence_before_an_answer_is_tried_again_after_the_timeout() {
    let ended = Runtime::new()
        .plays([chat::achieved(0).stalls(Point::Start), chat::achieved(0)])
        .model_with(json!({"timeout_seconds": 1}))
        .run();
    ended.exits(0).check(ended.duration < SOON, "it waited too long");
}

#[test]
fn silence_within_an_answer_is_tried_again_after_the_timeout() {
    let ended = Runtime::new()
        .plays([chat::achieved(0).stalls(Point::InBody), chat::achieved(0)])
        .model_with(json!({"timeout_seconds": "1"}))
        .run();
    ended.exits(0).check(ended.duration < SOON, "it waited too long");
}

#[test]
fn ten_tries_are_the_most() {
    let ended = Runtime::new().plays((0..10).map(|_| chat::unavailable(429))).run();
    ended.exits(1).status("failed").reason("model_unavailable").counts("llmCallsUsed", 1).counts("turns", 0);
}

#[test]
fn tries_are_counted_anew_for_each_question() {
    let failing = |count: usize| (0..count).map(|_| chat::unavailable(503));
    let [first, second] = two_turns();
    let script: Vec<Exchange> = failing(6).chain([first]).chain(failing(6)).chain([second]).collect();
    Runtime::new().tools_named(&["list_directory"]).plays(script).run().exits(0).counts("llmCallsUsed", 2);
}

#[test]
fn each_try_again_is_in_the_log() {
    let ended = Runtime::new().plays([chat::unavailable(503), chat::achieved(0)]).run();
    ended.exits(0).log_has("503");
}

/// The time between the first request and the second.
#[track_caller]
fn wait_after(fault: Exchange) -> Duration {
    let ended = Runtime::new().plays([fault, chat::achieved(0)]).run();
    ended.exits(0);
    ended.request(2).arrived - ended.request(1).arrived
}

fn limited() -> Exchange {
    chat::error(429, "requests", json!("rate_limit_exceeded"), Value::Null, "slow down")
}

#[test]
fn retry_after_in_seconds_is_obeyed() {
    let wait = wait_after(limited().header("Retry-After", "2"));
    assert!((Duration::from_secs(2)..SOON).contains(&wait), "{wait:?}");
}

#[test]
fn retry_after_in_decimal_seconds_is_obeyed() {
    let wait = wait_after(limited().header("Retry-After", "1.5"));
    assert!((Duration::from_millis(1500)..SOON).contains(&wait), "{wait:?}");
}

#[test]
fn retry_after_as_a_date_is_obeyed() {
    let wait = wait_after(limited().header("Retry-After", &http_date(SystemTime::now() + Duration::from_secs(4))));
    // A date has whole seconds, and the run has to start first.
    assert!((Duration::from_millis(2000)..SOON).contains(&wait), "{wait:?}");
}

#[test]
fn retry_after_in_milliseconds_is_obeyed() {
    let wait = wait_after(limited().header("retry-after-ms", "1200"));
    assert!((Duration::from_millis(1200)..SOON).contains(&wait), "{wait:?}");
}

#[test]
fn milliseconds_win_over_seconds() {
    let wait = wait_after(limited().header("retry-after-ms", "1").header("Retry-After", "120"));
    assert!(wait < SOON, "{wait:?}");
}

#[test]
fn a_retry_after_that_nobody_understands_does_not_matter() {
    for value in ["soon", "-5", "", "1e999"] {
        let wait = wait_after(limited().header("Retry-After", value));
        assert!(wait < SOON, "{value:?}: {wait:?}");
    }
}

#[test]
fn a_date_in_the_past_is_no_wait() {
    let wait = wait_after(limited().header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"));
    assert!(wait < SOON, "{wait:?}");
}

/// A date as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (days, second_of_day) = (seconds / 86400, seconds % 86400);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let (mut year, mut day) = (1970, days);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    format!("{weekday}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", day + 1)
}

#[test]
fn the_date_of_these_tests_is_right() {
    let time = UNIX_EPOCH + Duration::from_secs(1_445_412_480);
    assert_eq!(http_date(time), "Wed, 21 Oct 2015 07:28:00 GMT");
}

// Which failures end the run at once.

#[track_caller]
fn ends_at_once(fault: Exchange, reason: &str, code: i32) -> Ended {
    let ended = Runtime::new()
        .env("THOUGHTMESH_EXIT_CODES", "detailed")
        .env("OPENAI_API_KEY", "marker-51b0e2")
        .plays([fault])
        .model_with(json!({"api_key": null}))
        .run();
    ended.exits(code).status("failed").reason(reason).never_says("marker-51b0e2");
    ended
}

#[test]
fn a_key_that_is_refused_ends_the_run() {
    let message = "Incorrect API key provided: marker***.";
    let fault = chat::error(401, "invalid_request_error", json!("invalid_api_key"), Value::Null, message);
    ends_at_once(fault, "credentials_refused", 77).tells("OPENAI_API_KEY").log_has("401");
}

#[test]
fn an_account_that_is_forbidden_ends_the_run() {
    let fault = chat::error(403, "forbidden", Value::Null, Value::Null, "no access to this model");
    ends_at_once(fault, "credentials_refused", 77).tells("OPENAI_API_KEY").log_has("403");
}

#[test]
fn a_model_that_does_not_exist_ends_the_run() {
    let fault = chat::error(404, "invalid_request_error", json!("model_not_found"), Value::Null, "does not exist");
    ends_at_once(fault, "model_unavailable", 69).tells("THOUGHTMESH_MODEL_CONFIG").log_has("404");
}

#[test]
fn an_endpoint_that_does_not_exist_ends_the_run() {
    let fault = Exchange::new(404, "text/html", "<html>Not Found</html>");
    ends_at_once(fault, "model_unavailable", 69).tells("THOUGHTMESH_MODEL_CONFIG");
}

#[test]
fn an_exhausted_quota_ends_the_run_though_its_status_is_429() {
    for (kind, code) in [
        ("insufficient_quota", json!("credit_balance_exhausted")),
        ("insufficient_quota", json!("insufficient_quota")),
        ("requests", json!("insufficient_quota")),
    ] {
        let fault =
            chat::error(429, kind, code, Value::Null, "You exceeded your current quota").header("retry-after", "1");
        ends_at_once(fault, "credentials_refused", 77).tells("OPENAI_API_KEY");
    }
}

#[test]
fn a_key_of_the_configuration_that_is_refused_names_the_configuration() {
    let fault = chat::error(401, "invalid_request_error", json!("invalid_api_key"), Value::Null, "no");
    let ended = Runtime::new().plays([fault]).run();
    ended.exits(1).reason("credentials_refused").tells("THOUGHTMESH_MODEL_CONFIG");
}

#[test]
fn a_refused_key_inside_200_ends_the_run() {
    let body = json!({"error": {"message": "bad key", "type": "authentication_error", "code": 401}});
    Runtime::new().plays([Exchange::json(200, &body)]).run().exits(1).status("failed");
}

#[test]
fn a_request_that_is_wrong_ends_the_run_with_what_the_server_said() {
    let message = "Invalid schema for function 'read_file'";
    let fault = chat::error(400, "invalid_request_error", json!("invalid_function_parameters"), Value::Null, message);
    Runtime::new().plays([fault]).run().exits(1).status("failed").tells(message);
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere = ScriptedServer::plays([]);
    for status in [301, 302, 307, 308] {
        let location = format!("{}/v1/chat/completions", elsewhere.url());
        let redirect = Exchange::new(status, "text/plain", "").header("Location", &location);
        Runtime::new().plays([redirect]).run().exits(1).status("failed").tells(&status.to_string());
    }
    assert!(elsewhere.script().requests().is_empty());
}

#[test]
fn an_error_in_any_shape_tells_its_message() {
    for body in [
        json!({"error": "input validation failed", "error_type": "validation"}),
        json!({"error": {"code": 400, "message": "input validation failed"}}),
        json!({"object": "error", "message": "input validation failed", "code": 400}),
        json!({"detail": "input validation failed"}),
        json!({"detail": [{"msg": "input validation failed"}]}),
    ] {
        Runtime::new().plays([Exchange::json(422, &body)]).run().exits(1).log_has("input validation failed");
    }
}

// Parameters that a model does not take.

#[test]
fn a_temperature_that_is_refused_is_left_out_from_then_on() {
    let message = "Unsupported value: 'temperature' does not support 0.2 with this model.";
    let fault = chat::error(400, "invalid_request_error", json!("unsupported_value"), json!("temperature"), message);
    let [first, second] = two_turns();
    let ended = Runtime::new()
        .tools_named(&["list_directory"])
        .plays([fault, first, second])
        .model_with(json!({"temperature": "0.2"}))
        .run();
    ended.exits(0).log_has("temperature").counts("llmCallsUsed", 2);
    let sent: Vec<bool> = ended.requests.iter().map(|request| request.json().get("temperature").is_some()).collect();
    ended.check(sent == [true, false, false], "the temperature was sent again");
}

#[test]
fn a_param_that_is_refused_is_left_out_from_then_on() {
    let message = "Unsupported parameter: 'top_p' is not supported with this model.";
    let fault = chat::error(400, "invalid_request_error", json!("unsupported_parameter"), json!("top_p"), message);
    let ended = Runtime::new().plays([fault, chat::achieved(0)]).model_with(json!({"params": {"top_p": "0.9"}})).run();
    ended.exits(0).log_has("top_p").check(ended.request(2).json().get("top_p").is_none(), "top_p was sent again");
}

#[test]
fn a_limit_on_tokens_is_renamed_when_its_name_is_refused() {
    let sent = |request: &crate::server::Request| {
        let body = request.json();
        ["max_tokens", "max_completion_tokens"].map(|name| body[name] == 4096)
    };
    let probe = Runtime::new().plays([chat::achieved(0)]).model_with(json!({"max_tokens": 4096})).run();
    let (refused, accepted) = match sent(probe.request(1)) {
        [true, _] => ("max_tokens", "max_completion_tokens"),
        _ => ("max_completion_tokens", "max_tokens"),
    };
    let message =
        format!("Unsupported parameter: '{refused}' is not supported with this model. Use '{accepted}' instead.");
    let fault = chat::error(400, "invalid_request_error", json!("unsupported_parameter"), json!(refused), &message);
    let ended = Runtime::new().plays([fault, chat::achieved(0)]).model_with(json!({"max_tokens": 4096})).run();
    let body = ended.request(2).json();
    ended.exits(0).check(body[accepted] == 4096 && body.get(refused).is_none(), "it was not renamed");
}

#[test]
fn a_parameter_is_dropped_only_once() {
    let fault = || chat::error(400, "invalid_request_error", json!("unsupported_value"), json!("temperature"), "no");
    Runtime::new().plays([fault(), fault()]).model_with(json!({"temperature": "0.2"})).run().exits(1);
}

// The provider that plays a file.

fn turn_record(parts: Value) -> String {
    json!({"record": "turn", "parts": parts}).to_string()
}

fn part(id: &str, name: &str, arguments: Value) -> Value {
    json!({"type": "tool_call", "id": id, "name": name, "arguments": arguments})
}

fn replaying(lines: &[String]) -> Runtime {
    Runtime::new()
        .file("run.jsonl", lines.join("\n") + "\n")
        .env("THOUGHTMESH_MODEL_CONFIG", &json!({"provider": "replay", "name": "run.jsonl"}).to_string())
}

#[test]
fn a_recorded_turn_is_played() {
    let lines = [turn_record(json!([part("1", "finish", chat::achieved_arguments(0))]))];
    replaying(&lines).run().exits(0).reason("finished").counts("turns", 1);
}

#[test]
fn recorded_turns_use_the_real_tools() {
    let lines = [
        turn_record(json!([
            {"type": "text", "text": "I write."},
            part("1", "write_file", json!({"path": "out.txt", "content": "real"})),
        ])),
        turn_record(json!([part("2", "finish", chat::achieved_arguments(0))])),
    ];
    let ended = replaying(&lines).tools_named(&["filesystem"]).run();
    ended.exits(0).counts("toolCalls", 1).file_is("out.txt", "real");
}

#[test]
fn records_that_are_not_turns_are_passed_over() {
    let lines = [
        json!({"record": "fingerprint", "of": "another version"}).to_string(),
        turn_record(json!([part("1", "list_directory", json!({}))])),
        json!({"record": "tool_call_start", "call_id": "1"}).to_string(),
        json!({"record": "tool_result", "call_id": "1", "text": "what it was then"}).to_string(),
        json!({"record": "user", "text": "Go on."}).to_string(),
        turn_record(json!([part("2", "finish", chat::achieved_arguments(0))])),
        json!({"record": "outcome", "status": "failed"}).to_string(),
    ];
    replaying(&lines).tools_named(&["list_directory"]).run().exits(0).counts("turns", 2);
}

#[test]
fn recorded_usage_is_counted() {
    let usage = json!({"input_tokens": 100, "output_tokens": 20, "cached_input_tokens": 5});
    let parts = json!([part("1", "finish", chat::achieved_arguments(0))]);
    let line = json!({"record": "turn", "parts": parts, "usage": usage}).to_string();
    let ended = replaying(&[line]).run();
    let expected = json!({"inputTokens": 100, "outputTokens": 20, "cachedInputTokens": 5});
    ended.exits(0).check(ended.outcome()["usage"] == expected, "the usage");
}

#[test]
fn a_recorded_claim_is_checked_like_any_other() {
    let lines = [turn_record(json!([part("1", "finish", json!({"status": "achieved", "summary": "s"}))]))];
    let ended = replaying(&lines).key_results(json!(["A"])).limits(json!({"max_finish_rejections": 1})).run();
    ended.exits(1).reason("key_results_unmet");
}

#[test]
fn a_file_that_ends_before_the_verdict_fails_the_run() {
    let ended = replaying(&[turn_record(json!([{"type": "text", "text": "Hm."}]))]).run();
    ended.exits(1).status("failed").tells("replay");
}

#[test]
fn a_file_that_is_missing_fails_the_run() {
    let config = json!({"provider": "replay", "name": "no-such.jsonl"}).to_string();
    Runtime::new()
        .env("THOUGHTMESH_MODEL_CONFIG", &config)
        .run()
        .exits(1)
        .reason("config_invalid")
        .tells("cannot be opened");
}

#[test]
fn a_line_that_is_not_a_record_is_named_by_its_number() {
    let lines = [json!({"record": "user", "text": "a"}).to_string(), "{\"record\": ".to_owned(), "{}".to_owned()];
    let ended = replaying(&lines).run();
    ended.exits(1).status("failed").tells("line 2");
}
