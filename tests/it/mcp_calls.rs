//! Calls of an MCP server's tools: never twice, whatever comes back, what the server asks meanwhile, and how long it may take.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::mcp::{calling, echo, gives_up, with, written};
use crate::mcp_server::{Act, Call, Manner, McpServer, annotated, tool};
use crate::runtime::{Ended, Runtime};
use crate::server::{Exchange, Point};

// Never twice.

/// A server whose first call loses its answer in this way.
fn losing(manner: Manner, annotations: &Value, loss: impl Fn(&Call) -> Vec<Act> + Send + Sync + 'static) -> McpServer {
    manner
        .tools([annotated("echo", annotations.clone())])
        .on("tools/call", move |call| match call.count {
            1 => loss(call),
            _ => vec![call.text("the answer")],
        })
        .start()
}

/// The ways in which an answer gets lost.
fn losses() -> Vec<(&'static str, Manner, Vec<Act>)> {
    let http = |exchange: Exchange| vec![Act::Http(exchange)];
    let page = || Exchange::new(502, "text/html", "<html>Bad Gateway</html>");
    vec![
        ("the child dies", Manner::stdio(), vec![Act::HangUp]),
        ("nothing comes", Manner::http(), http(page().hangs_up(Point::Start))),
        ("the head breaks off", Manner::http(), http(page().hangs_up(Point::InHeaders))),
        (
            "a body breaks off",
            Manner::http(),
            http(Exchange::json(200, &json!({"jsonrpc": "2.0"})).hangs_up(Point::InBody)),
        ),
        ("a stream breaks off", Manner::http(), vec![Act::raw(": hello\n\n"), Act::HangUp]),
        (
            "a stream ends",
            Manner::http(),
            vec![Act::notify("notifications/message", json!({"level": "info", "data": 1}))],
        ),
        ("a gateway fails", Manner::http(), http(page())),
        ("a gateway is impatient", Manner::http(), http(Exchange::new(504, "text/html", "<html>Timeout</html>"))),
        ("the stream beside breaks off", Manner::event_stream(), vec![Act::HangUp]),
        ("the newest kind breaks off", Manner::http().modern(), vec![Act::raw(": hello\n\n"), Act::HangUp]),
    ]
}

#[test]
fn a_call_whose_answer_is_lost_is_not_sent_again() {
    for (name, manner, acts) in losses() {
        let server = losing(manner, &json!({"destructiveHint": false}), move |_| acts.clone());
        let ended = calling(with(&server), &[echo()]);
        ended.check(server.calls().len() == 1, &format!("{name}: it was sent {} times", server.calls().len()));
        ended.tool_result_has(1, "unknown").tool_result_lacks(1, "the answer");
    }
}

#[test]
fn a_call_that_may_be_repeated_is_sent_again() {
    for hint in ["readOnlyHint", "idempotentHint"] {
        for (name, manner, acts) in losses() {
            let server = losing(manner, &json!({hint: true}), move |_| acts.clone());
            let ended = calling(with(&server), &[echo()]);
            ended.check(server.calls().len() == 2, &format!("{name}: it was sent {} times", server.calls().len()));
            ended.tool_result_has(1, "the answer");
        }
    }
}

/// The server says that it did not begin.
#[test]
fn a_call_that_was_refused_before_it_began_is_sent_again() {
    for status in [429, 503] {
        let refused = Exchange::new(status, "text/plain", "later").header("Retry-After", "0");
        let server = losing(Manner::http(), &json!({}), move |_| vec![Act::Http(refused.clone())]);
        let ended = calling(with(&server), &[echo()]);
        ended.tool_result_has(1, "the answer");
    }
}

#[test]
fn a_call_that_failed_there_is_told_and_not_sent_again() {
    let failed = Exchange::new(500, "text/plain", "the disk is full");
    let server = losing(Manner::http(), &json!({}), move |_| vec![Act::Http(failed.clone())]);
    let ended = calling(with(&server), &[echo()]);
    ended.check(server.calls().len() == 1, "it was sent again");
    ended.tool_result_has(1, "500").tool_result_lacks(1, "the answer");
}

#[test]
fn a_wait_that_is_too_long_is_told_and_not_waited_for() {
    let refused = Exchange::new(429, "text/plain", "tomorrow").header("Retry-After", "86400");
    let server = losing(Manner::http(), &json!({}), move |_| vec![Act::Http(refused.clone())]);
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "86400 s").check(server.calls().len() == 1, "it was sent again");
}

/// 202 to a request says that no answer will ever come.
#[test]
fn a_call_that_is_merely_accepted_is_not_waited_for() {
    let accepted = Exchange::new(202, "text/plain", "");
    let server = losing(Manner::http(), &json!({}), move |_| vec![Act::Http(accepted.clone())]);
    let ended = calling(with(&server), &[echo()]);
    ended.check(server.calls().len() == 1, "it was sent again");
    ended.tool_result_has(1, "202");
}

/// The run is killed while a call is under way, and goes on from its journal.
fn resumed_in_a_call(annotations: Value) -> (McpServer, Ended) {
    let server = losing(Manner::http(), &annotations, |_| vec![Act::Silence]);
    let running = with(&server).journal().plays([chat::tool_call("kit_echo", json!({}))]).spawn();
    server.wait_for("tools/call");
    running.signal("KILL");
    let ended = running.wait().again().goes_on([gives_up()]).run();
    ended.exits(1).reason("gave_up");
    (server, ended)
}

#[test]
fn a_call_that_was_under_way_when_the_run_died_is_not_sent_again() {
    let (server, ended) = resumed_in_a_call(json!({}));
    ended.check(server.calls().len() == 1, "it was sent again");
    ended.tool_result_has(1, "unknown");
}

#[test]
fn a_call_that_changes_nothing_is_sent_again_when_the_run_goes_on() {
    for hint in ["readOnlyHint", "idempotentHint"] {
        let (server, ended) = resumed_in_a_call(json!({hint: true}));
        ended.check(server.calls().len() == 2, "it was not sent again");
        ended.tool_result_has(1, "the answer");
    }
}

/// What a server offers is no part of what a journal belongs to.
#[test]
fn a_run_goes_on_with_a_server_that_offers_other_tools_now() {
    let server = Manner::http()
        .tools([tool("echo"), tool("sing")])
        .on("tools/list", |call| {
            let tools = if call.count == 1 { vec![tool("echo")] } else { vec![tool("echo"), tool("sing")] };
            vec![call.result(json!({"tools": tools}))]
        })
        .start();
    let exchanges = [chat::tool_call("kit_echo", json!({})), gives_up().stalls(Point::Start)];
    let running = with(&server).journal().plays(exchanges).spawn();
    running.wait_for_requests(2);
    running.signal("KILL");
    let ended = running.wait().again().goes_on([chat::tool_call("kit_sing", json!({})), gives_up()]).run();
    ended.exits(1).reason("gave_up").tool_result_has(2, "sing was called");
}

// Results.

/// What the model is told when a call has this result.
fn told(result: &Value) -> String {
    let server = Manner::http().results_in(result.clone()).start();
    calling(with(&server), &[echo()]).tool_result(1)
}

#[test]
fn each_kind_of_content_is_told() {
    let base64 = "aGVsbG8gdGhlcmUsIHRoaXMgaXMgbm90IGZvciBtb2RlbHM=";
    let resource = |fields: Value| json!({"type": "resource", "resource": fields});
    for (content, told_words, left_out) in [
        (json!({"type": "text", "text": "plain \u{e9} words"}), vec!["plain \u{e9} words"], "none"),
        (
            resource(json!({"uri": "file:///a.txt", "mimeType": "text/plain", "text": "the text of a"})),
            vec!["the text of a"],
            base64,
        ),
        (
            resource(json!({"uri": "file:///a.bin", "mimeType": "application/zip", "blob": base64})),
            vec!["file:///a.bin", "application/zip"],
            base64,
        ),
        (
            json!({"type": "resource_link", "uri": "file:///b.txt", "name": "notes of b", "description": "what b said"}),
            vec!["file:///b.txt", "notes of b"],
            base64,
        ),
        (json!({"type": "image", "data": base64, "mimeType": "image/png"}), vec!["image", "image/png"], base64),
        (json!({"type": "audio", "data": base64, "mimeType": "audio/wav"}), vec!["audio", "audio/wav"], base64),
        (json!({"type": "hologram", "data": base64}), vec!["hologram"], base64),
    ] {
        let text = told(&json!({"content": [content.clone(), {"type": "text", "text": "and more"}]}));
        for words in told_words {
            assert!(text.contains(words), "{content}: {text}");
        }
        assert!(text.contains("and more") && !text.contains(left_out), "{content}: {text}");
    }
}

#[test]
fn structured_content_is_told_where_there_is_no_other() {
    let structured = json!({"celsius": 22.5, "sky": ["clear", "blue"]});
    for content in [json!([]), Value::Null] {
        let mut result = json!({"structuredContent": structured});
        if content.is_array() {
            result["content"] = content;
        }
        let text = told(&result);
        assert!(text.contains("\"celsius\":22.5") && text.contains("\"sky\":[\"clear\",\"blue\"]"), "{text}");
    }
    let text = told(&json!({"content": [{"type": "text", "text": "22.5 and clear"}], "structuredContent": structured}));
    assert!(text.contains("22.5 and clear") && !text.contains("celsius"), "{text}");
}

#[test]
fn an_error_of_the_tool_is_a_failed_call() {
    let server = Manner::http()
        .results_in(json!({"isError": true, "content": [{"type": "text", "text": "no such city"}]}))
        .start();
    let exchanges = [chat::tool_call("kit_echo", json!({})), chat::achieved(0), gives_up()];
    let ended = with(&server).plays(exchanges).run();
    // Every call of the run failed, so it cannot have achieved anything.
    ended.exits(1).reason("gave_up").tool_result_has(1, "no such city");
}

#[test]
fn an_error_of_the_protocol_is_a_failed_call() {
    for manner in Manner::each() {
        let server = manner.on("tools/call", |call| vec![call.error(-32602, "Unknown tool: echo")]).start();
        let exchanges = [chat::tool_call("kit_echo", json!({})), chat::achieved(0), gives_up()];
        let ended = with(&server).plays(exchanges).run();
        ended.exits(1).reason("gave_up").tool_result_has(1, "Unknown tool: echo");
        ended.check(server.calls().len() == 1, "it was sent again");
    }
}

#[test]
fn a_result_without_sense_is_told_and_ends_nothing() {
    for result in [
        json!({}),
        json!({"content": []}),
        json!({"content": "text"}),
        json!({"content": [7, null, {}, {"type": "text"}, {"type": "resource"}]}),
        json!(null),
        json!([]),
        json!("text"),
    ] {
        let text = told(&result);
        assert!(!text.trim().is_empty(), "{result}: the result is empty");
    }
}

#[test]
fn a_long_result_is_cut_and_says_so() {
    let text = format!("begin {} end", "x".repeat(3_000_000));
    for manner in Manner::each() {
        let server = manner.results_in(json!({"content": [{"type": "text", "text": text}]})).start();
        let tools = json!([server.entry_with("kit", json!({"output_bytes_max": 2048}))]);
        let told = calling(Runtime::new().tools(tools), &[echo()]).tool_result(1);
        assert!(told.len() < 4096 && told.contains("begin") && told.contains("end"), "{told}");
        assert!(told.contains("bytes"), "it does not say that it was cut: {told}");
    }
}

/// Far above everything that a model could be shown.
#[test]
fn a_message_without_end_is_not_held_in_memory() {
    const LONG: usize = 100 * 1024 * 1024;
    for (manner, start) in [(Manner::stdio(), ""), (Manner::http(), "data: ")] {
        let transport = manner.transport;
        let server = manner
            .on("tools/call", move |call| match call.count {
                1 => {
                    let message = format!("{start}{{\"jsonrpc\": \"2.0\", \"id\": {}, \"result\": \"", call.id());
                    let mut message = message.into_bytes();
                    message.resize(LONG, b'x');
                    vec![Act::Raw(message), Act::raw("\"}\n\n")]
                }
                _ => vec![call.text("still here")],
            })
            .start();
        // The executable with its libraries needs about a tenth of this.
        let runtime = with(&server).after("ulimit -v 100000");
        let ended = calling(runtime, &[echo(), echo()]);
        let first = ended.tool_result(1);
        ended.check(first.len() < 4096, &format!("{transport:?}: {} bytes were told", first.len()));
        ended.tool_result_has(2, "still here");
        ended.check(server.calls().len() == 2, "a call was sent again");
    }
}

#[test]
fn a_secret_in_a_result_is_masked() {
    let secret = "deploy-8c1d2e7f6a5b";
    for result in [
        json!({"content": [{"type": "text", "text": format!("token: {secret}")}]}),
        json!({"structuredContent": {"token": secret}}),
        json!({"isError": true, "content": [{"type": "text", "text": format!("refused: {secret}")}]}),
        json!({"content": [{"type": "resource_link", "uri": format!("https://x/?t={secret}"), "name": "n"}]}),
    ] {
        let server = Manner::http().results_in(result).start();
        let ended = calling(with(&server).env("DEPLOY_TOKEN", secret).journal(), &[echo()]);
        ended.tool_result_has(1, "[secret DEPLOY_TOKEN]").never_says(secret);
        ended.check(!ended.last_request().text().contains(secret), "the model was told");
        ended.check(!String::from_utf8_lossy(&ended.journal()).contains(secret), "the journal holds it");
    }
}

#[test]
fn arguments_arrive_as_the_model_wrote_them() {
    let long = "x".repeat(1_000_000);
    let arguments =
        json!({"long": long, "z": 1, "a": {"deep": [1, 2.5, null, true]}, "text": "\u{e9}\n\"quoted\"", "m": []});
    for manner in Manner::each() {
        let server = manner.start();
        let ended = calling(with(&server), &[("kit_echo", arguments.clone()), ("kit_echo", json!({}))]);
        let calls = server.calls();
        ended.check(written(&calls[0].1) == written(&arguments), "the arguments");
        ended.check(calls[1].1 == json!({}), "no arguments are an empty object");
    }
}

/// Some servers give a number back as text.
#[test]
fn an_answer_is_found_by_its_number_in_either_form() {
    let server = Manner::stdio()
        .on("tools/call", |call| {
            let text = json!([{"type": "text", "text": "well"}]);
            vec![Act::Send(json!({"jsonrpc": "2.0", "id": call.id().to_string(), "result": {"content": text}}))]
        })
        .start();
    calling(with(&server), &[echo()]).tool_result_has(1, "well");
}

// Answers of the newest revision that are none yet.

#[test]
fn a_state_is_given_back_as_it_came_with_a_new_number() {
    let state = "opaque \u{e9}\u{1f600} \"==\" \n";
    let server = Manner::http()
        .modern()
        .on("tools/call", move |call| match call.count {
            1 | 2 => {
                let again = json!({"resultType": "input_required", "requestState": format!("{state}{}", call.count)});
                vec![Act::Send(json!({"jsonrpc": "2.0", "id": call.id(), "result": again}))]
            }
            _ => vec![call.text("at last")],
        })
        .start();
    calling(with(&server), &[echo()]).tool_result_has(1, "at last");
    let calls = server.asked("tools/call");
    assert_eq!(calls[1]["params"]["requestState"], format!("{state}1"));
    assert_eq!(calls[2]["params"]["requestState"], format!("{state}2"));
    assert!(calls[0]["id"] != calls[1]["id"] && calls[1]["params"]["arguments"] == calls[0]["params"]["arguments"]);
    assert!(calls[0]["params"].get("requestState").is_none(), "{}", calls[0]);
}

#[test]
fn a_call_that_needs_more_and_more_is_given_up() {
    for (result, count_max) in [
        (json!({"resultType": "input_required", "requestState": "again"}), 20),
        (json!({"resultType": "input_required", "inputRequests": {"a": {"method": "elicitation/create"}}}), 20),
        (json!({"resultType": "input_required", "inputRequests": {"a": {"method": "sampling/createMessage"}}}), 1),
        (json!({"resultType": "never heard of", "content": []}), 1),
    ] {
        let server = Manner::http()
            .modern()
            .on("tools/call", move |call| vec![Act::Send(json!({"jsonrpc": "2.0", "id": call.id(), "result": result}))])
            .start();
        let ended = calling(with(&server), &[echo()]);
        ended.tool_result_has(1, "failed").check(server.calls().len() <= count_max, "how often it was sent");
    }
}

#[test]
fn a_capability_that_we_lack_is_told() {
    let error = json!({
        "code": -32021, "message": "Missing capability", "data": {"requiredCapabilities": {"elicitation": {}}},
    });
    let server = Manner::http()
        .modern()
        .on("tools/call", move |call| {
            vec![Act::Http(Exchange::json(400, &json!({"jsonrpc": "2.0", "id": call.id(), "error": error})))]
        })
        .start();
    calling(with(&server), &[echo()]).tool_result_has(1, "Missing capability");
}

#[test]
fn headers_that_do_not_fit_have_the_list_read_again() {
    let server = Manner::http()
        .modern()
        .on("tools/list", |call| {
            let mut later = tool("echo");
            later["inputSchema"]["properties"]["text"]["x-mcp-header"] = json!("Text");
            let tools = if call.count == 1 { vec![tool("echo")] } else { vec![later] };
            vec![call.result(json!({"tools": tools, "ttlMs": 1, "cacheScope": "private"}))]
        })
        .on("tools/call", |call| match call.count {
            1 => {
                let error = json!({"code": -32020, "message": "Header mismatch"});
                vec![Act::Http(Exchange::json(400, &json!({"jsonrpc": "2.0", "id": call.id(), "error": error})))]
            }
            _ => vec![call.text("well")],
        })
        .start();
    calling(with(&server), &[echo()]).tool_result_has(1, "well");
    let last = server.seen().into_iter().rfind(|seen| seen.is("tools/call")).unwrap();
    assert_eq!(last.header("mcp-param-text"), Some("hello"));
}

// What a server may ask.

/// Asks the client for something in the middle of a call; its answer.
fn asked_in_a_call(manner: Manner, id: &Value, method: &'static str) -> Value {
    let question = id.clone();
    let server = manner
        .on("tools/call", move |call| {
            let asks = Act::ask(question.clone(), method, json!({}));
            [asks.to_vec(), vec![call.text("thank you")]].concat()
        })
        .start();
    calling(with(&server), &[echo()]).tool_result_has(1, "thank you");
    server.answer_to(id)
}

#[test]
fn what_a_server_asks_is_answered() {
    for (id, method) in [
        (json!("p-1"), "ping"),
        (json!("s"), "sampling/createMessage"),
        (json!(0), "elicitation/create"),
        (json!(-5), "tasks/get"),
        (json!("x y"), "never/heard/of"),
    ] {
        for manner in Manner::each() {
            let transport = manner.transport;
            let answer = asked_in_a_call(manner, &id, method);
            match method {
                "ping" => assert_eq!(answer, json!({"jsonrpc": "2.0", "id": id, "result": {}}), "{transport:?}"),
                _ => {
                    assert_eq!(answer["error"]["code"], -32601, "{transport:?} {method}: {answer}");
                    assert!(answer["error"]["message"].is_string(), "{transport:?} {method}: {answer}");
                }
            }
        }
    }
}

/// The newest kind asks in place of a result, and is answered with the call made again under another id.
#[test]
fn what_a_person_would_have_to_answer_is_declined() {
    let question = json!({"method": "elicitation/create", "params": {"message": "Go on?", "requestedSchema": {}}});
    let server = Manner::http()
        .modern()
        .on("tools/call", move |call| match call.count {
            1 => {
                let mut result = json!({"resultType": "input_required", "requestState": "s 1"});
                result["inputRequests"] = json!({"sure": question, "very": question});
                vec![Act::Send(json!({"jsonrpc": "2.0", "id": call.id(), "result": result}))]
            }
            _ => vec![call.text("left alone")],
        })
        .start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "left alone");
    let calls = server.asked("tools/call");
    ended.check(calls.len() == 2 && calls[0]["id"] != calls[1]["id"], "two calls with an id each");
    let decline = json!({"action": "decline"});
    ended.check(calls[1]["params"]["inputResponses"] == json!({"sure": decline, "very": decline}), "what was answered");
    ended.check(calls[1]["params"]["requestState"] == "s 1", "the state comes back as it was");
}

/// Directories are the business of a child alone: a server elsewhere cannot reach them.
#[test]
fn a_child_is_told_of_the_workspace_as_its_root() {
    for (config, paths) in [(json!({}), vec![""]), (json!({"roots": [".", "a b"]}), vec!["", "/a%20b"])] {
        let server = Manner::stdio()
            .on("tools/call", |call| {
                [Act::ask(json!(1), "roots/list", json!({})).to_vec(), vec![call.text("ok")]].concat()
            })
            .start();
        let runtime = Runtime::new().tools(json!([server.entry_with("kit", config)])).file("a b/c", "c");
        let workspace = runtime.workspace().canonicalize().unwrap();
        calling(runtime, &[echo()]).tool_result_has(1, "ok");
        let uris: Vec<Value> =
            paths.iter().map(|path| json!({"uri": format!("file://{}{path}", workspace.display())})).collect();
        assert_eq!(server.answer_to(&json!(1))["result"], json!({"roots": uris}));
        assert_eq!(server.asked("initialize")[0]["params"]["capabilities"], json!({"roots": {}}));
    }
    for manner in [Manner::http(), Manner::event_stream()] {
        let answer = asked_in_a_call(manner, &json!(1), "roots/list");
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
    }
}

/// The numbers of both sides are independent: the server's question has the number of the call that it belongs to.
#[test]
fn a_question_is_not_taken_for_an_answer() {
    for manner in Manner::each() {
        let server = manner
            .on("tools/call", |call| {
                [Act::ask(call.id(), "ping", json!({})).to_vec(), vec![call.text("the true answer")]].concat()
            })
            .start();
        calling(with(&server), &[echo()]).tool_result_has(1, "the true answer");
    }
}

#[test]
fn a_ping_before_the_handshake_is_answered() {
    let server = Manner::stdio().greets(Act::ask(json!("early"), "ping", json!({}))).start();
    let ended = calling(with(&server), &[echo()]);
    ended.check(server.answer_to(&json!("early"))["result"] == json!({}), "the ping");
    let server = Manner::http()
        .on("initialize", |call| {
            let result = json!({
                "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "s", "version": "1"},
            });
            [Act::ask(json!("early"), "ping", json!({})).to_vec(), vec![call.result(result)]].concat()
        })
        .without_sessions()
        .start();
    let ended_http = calling(with(&server), &[echo()]);
    ended_http.check(server.answer_to(&json!("early"))["result"] == json!({}), "the ping over HTTP");
}

#[test]
fn notifications_are_taken_in_silence() {
    for manner in Manner::each() {
        let server = manner
            .on("tools/call", |call| {
                let level = json!({"level": "error", "logger": "disk", "data": {"free": "none\u{1b}[31m"}});
                vec![
                    Act::notify("notifications/message", level),
                    Act::notify("notifications/cancelled", json!({"requestId": 12345})),
                    Act::notify("notifications/resources/updated", json!({"uri": "file:///a"})),
                    Act::notify("notifications/progress", json!({"progressToken": "nobody's", "progress": 1})),
                    Act::notify("notifications/never/heard/of", json!({})),
                    Act::Send(json!({"jsonrpc": "2.0", "id": 987_654, "result": {}})),
                    call.text("done"),
                ]
            })
            .start();
        let ended = calling(with(&server).env("RUST_LOG", "debug"), &[echo()]);
        ended.tool_result_has(1, "done").log_has("none").never_says("\u{1b}");
        let answers =
            server.seen().into_iter().filter(|seen| seen.message.is_object() && seen.message["method"].is_null());
        ended.check(answers.count() == 0, "a notification was answered");
    }
}

// How long it may take.

fn impatient(server: &McpServer) -> Runtime {
    Runtime::new().tools(json!([server.entry_with("kit", json!({"timeout_seconds": 1}))]))
}

#[test]
fn a_silent_call_is_cancelled_and_the_next_one_is_heard() {
    for manner in Manner::each() {
        let transport = manner.transport;
        let server = manner
            .on("tools/call", |call| match call.count {
                // The answer comes when nobody waits for it any more.
                1 => vec![Act::until(|seen| seen.is("notifications/cancelled")), call.text("late")],
                _ => vec![call.text("in time")],
            })
            .start();
        let ended = calling(impatient(&server), &[echo(), echo()]);
        ended.tool_result_lacks(1, "late").tool_result_has(1, "1 s").tool_result_has(2, "in time");
        let (cancelled, calls) = (server.asked("notifications/cancelled"), server.asked("tools/call"));
        ended.check(cancelled.len() == 1, &format!("{transport:?}: it was cancelled {} times", cancelled.len()));
        ended.check(cancelled[0]["params"]["requestId"] == calls[0]["id"], "what was cancelled");
        ended.check(calls.len() == 2, "a call was sent again");
    }
}

/// Cancelling is closing the stream.
#[test]
fn a_silent_call_of_the_newest_kind_is_dropped() {
    let server = Manner::http()
        .modern()
        .on("tools/call", |call| match call.count {
            1 => vec![Act::raw(": wait\n\n"), Act::Silence],
            _ => vec![call.text("in time")],
        })
        .start();
    let ended = calling(impatient(&server), &[echo(), echo()]);
    ended.tool_result_has(1, "1 s").tool_result_has(2, "in time");
    ended.check(server.asked("notifications/cancelled").is_empty(), "a notification that this revision has not");
}

#[test]
fn progress_keeps_a_call_alive() {
    for manner in Manner::each() {
        let server = manner
            .on("tools/call", |call| {
                let token = call.params()["_meta"]["progressToken"].clone();
                let steps = (1..=4).flat_map(move |step| {
                    let progress = json!({"progressToken": token, "progress": step, "total": 4, "message": "slowly"});
                    [Act::Pause(Duration::from_millis(500)), Act::notify("notifications/progress", progress)]
                });
                steps.chain([call.text("at last")]).collect()
            })
            .start();
        let ended = calling(impatient(&server), &[echo()]);
        ended.tool_result_has(1, "at last");
        let token = &server.asked("tools/call")[0]["params"]["_meta"]["progressToken"];
        ended.check(token.is_string() || token.is_i64(), "no progress was asked for");
    }
}

/// Comments and log lines are no sign of work.
#[test]
fn a_stream_that_only_breathes_is_silent() {
    let server = Manner::http()
        .on("tools/call", |call| match call.count {
            1 => {
                let breath = || [Act::Pause(Duration::from_millis(300)), Act::raw(": ping\n\n")];
                std::iter::repeat_with(breath).take(40).flatten().collect()
            }
            _ => vec![call.text("in time")],
        })
        .start();
    let ended = calling(impatient(&server), &[echo(), echo()]);
    ended.tool_result_has(1, "1 s").tool_result_has(2, "in time");
}
