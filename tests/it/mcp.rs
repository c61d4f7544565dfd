//! MCP servers: every transport and revision, and the life of a connection from its first message to its last.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chat;
use crate::mcp_server::{Act, LEGACY, MODERN, Manner, McpServer, tool};
use crate::runtime::{Ended, Runtime, wait_until};
use crate::server::{Exchange, Point, ScriptedServer};
use crate::stop::is_alive;
use crate::tls::{Certificate, Kind, TlsDoor};

/// A stop is a matter of milliseconds, and of more on a machine that runs several tests at once.
const SOON: Duration = Duration::from_secs(5);

/// A run whose model makes these calls, one a turn, and gives up.
pub fn calling(runtime: Runtime, calls: &[(&str, Value)]) -> Ended {
    let calls = calls.iter().map(|(name, arguments)| chat::tool_call(name, arguments.clone()));
    let ended = runtime.plays(calls.chain([gives_up()])).run();
    ended.exits(1).reason("gave_up");
    ended
}

pub fn gives_up() -> Exchange {
    chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}))
}

/// A run with this server, under the name `kit`.
pub fn with(server: &McpServer) -> Runtime {
    Runtime::new().tools(json!([server.entry("kit")]))
}

/// One call of `kit_echo`.
pub fn echo() -> (&'static str, Value) {
    ("kit_echo", json!({"text": "hello"}))
}

/// With its keys in their order, which comparing values does not look at.
pub fn written(value: &Value) -> String {
    value.to_string()
}

const ECHOED: &str = "echo was called with {\"text\":\"hello\"}";

#[track_caller]
fn works(manner: Manner) -> (McpServer, Ended) {
    let server = manner.start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, ECHOED);
    ended.check(server.calls() == [("echo".to_owned(), json!({"text": "hello"}))], "the call");
    (server, ended)
}

// Transports.

#[test]
fn a_child_process_serves_in_every_revision() {
    for version in LEGACY {
        let (server, ended) = works(Manner::stdio().versions(&[version]));
        ended.check(server.lives() == 1, "it was started more than once");
    }
    works(Manner::stdio().and_modern());
    works(Manner::stdio().modern());
}

#[test]
fn streamable_http_serves_in_every_revision() {
    for version in &LEGACY[..3] {
        works(Manner::http().versions(&[version]));
        works(Manner::http().versions(&[version]).without_sessions());
        works(Manner::http().versions(&[version]).answers_json());
    }
}

#[test]
fn the_newest_revision_is_spoken_where_it_is_known() {
    for manner in [Manner::http().modern(), Manner::http().modern().answers_json(), Manner::http().and_modern()] {
        let (server, ended) = works(manner);
        ended.check(server.asked("initialize").is_empty(), "initialize");
        ended.check(server.http("GET").is_empty() && server.http("DELETE").is_empty(), "something but POST");
        let meta = server.asked("tools/call")[0]["params"]["_meta"].clone();
        ended.check(meta["io.modelcontextprotocol/protocolVersion"] == MODERN, "the version");
        ended.check(meta["io.modelcontextprotocol/clientInfo"]["name"].is_string(), "who asks");
    }
}

#[test]
fn the_older_http_with_two_places_serves() {
    for endpoint in ["/messages?session_id=5f", "{url}/messages?session_id=5f", "messages/"] {
        let (server, ended) = works(Manner::event_stream().endpoint(endpoint));
        let posts = server.http("POST").iter().filter(|request| request.path.starts_with("/messages")).count();
        ended.check(posts == 4, "initialize, initialized, list and call go to the endpoint, and nothing else");
        ended.check(server.http("GET").len() == 1, "one stream");
    }
}

/// The rule of the specification goes by what the server answers.
#[test]
fn what_a_url_ends_in_says_nothing() {
    let server = Manner::http().start();
    let mut entry = server.entry("kit");
    entry["url"] = json!(format!("http://{}/sse", server.address));
    let ended = calling(Runtime::new().tools(json!([entry])), &[echo()]);
    ended.tool_result_has(1, ECHOED);
}

#[test]
fn an_event_stream_may_look_in_many_ways() {
    let server = Manner::http()
        .on("tools/call", |call| {
            let id = call.id();
            let texts = [
                "\u{feff}: a comment\r\nretry: 10\r\nid: 1\r\ndata:\r\n\r\n".to_owned(),
                "event: other\ndata: {\"jsonrpc\": \"2.0\", \"id\": 1, \"result\": {}}\n\n".to_owned(),
                "event: message\rdata: {\"jsonrpc\": \"2.0\", \"method\": \"notifications/unheard_of\"}\r\r".to_owned(),
                format!("data: {{\"jsonrpc\": \"2.0\",\r\ndata: \"id\": {id}, \"result\": {{\"content\":\r\n"),
                "data:[{\"type\": \"text\", \"text\": \"in lines\"}]}}\r\nid: 2\r\n\r\n".to_owned(),
            ];
            texts.iter().map(|text| Act::raw(text)).collect()
        })
        .start();
    calling(with(&server), &[echo()]).tool_result_has(1, "in lines");
}

#[test]
fn an_answer_in_a_batch_is_found() {
    let server = Manner::http()
        .versions(&["2025-03-26"])
        .on("tools/call", |call| {
            let Act::Send(answer) = call.text("one of many") else { return Vec::new() };
            let note =
                json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}});
            let batch = json!([note, answer]);
            match call.count {
                1 => vec![Act::Send(batch)],
                _ => vec![Act::Http(Exchange::json(200, &batch))],
            }
        })
        .start();
    let ended = calling(with(&server), &[echo(), echo()]);
    ended.tool_result_has(1, "one of many").tool_result_has(2, "one of many");
}

/// Some servers answer 200 or 204, with or without a body.
#[test]
fn a_notification_may_be_taken_in_many_ways() {
    for (status, body) in [(200, "{}"), (200, ""), (202, "Accepted"), (204, "")] {
        let answer = Exchange::new(status, "application/json", body);
        works(Manner::http().on("notifications/initialized", move |_| vec![Act::Http(answer.clone())]));
    }
}

#[test]
fn a_stream_that_stays_open_after_its_answer_holds_nothing_up() {
    let started = Instant::now();
    let silent = |manner: Manner| manner.on("tools/call", |call| vec![call.text("done"), Act::Silence]);
    for manner in Manner::each() {
        let server = silent(manner).start();
        calling(with(&server), &[echo(), echo()]).tool_result_has(2, "done");
    }
    assert!(started.elapsed() < 4 * SOON, "{:?}", started.elapsed());
}

#[test]
fn redirects_within_a_server_are_followed() {
    for status in [307, 308] {
        let server = Manner::http()
            .on("initialize", move |call| match call.count {
                1 => vec![Act::Http(Exchange::new(status, "text/plain", "").header("Location", "/mcp/"))],
                _ => vec![call.result(json!({
                    "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s", "version": "1"},
                }))],
            })
            .start();
        let ended = calling(with(&server), &[echo()]);
        ended.tool_result_has(1, ECHOED);
        ended.check(server.http("POST").iter().any(|request| request.path == "/mcp/"), "the redirect");
    }
}

/// The same roots count for servers of tools as for the model.
#[test]
fn a_server_behind_a_private_authority_is_reached() {
    let answers = ScriptedServer::answers(|request| {
        let message = request.json();
        let version = &message["params"]["protocolVersion"];
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"},
            }),
            "tools/list" => json!({"tools": [tool("echo")]}),
            "tools/call" => json!({"content": [{"type": "text", "text": "behind the door"}]}),
            "notifications/initialized" => return Exchange::new(202, "text/plain", ""),
            _ => return Exchange::new(400, "text/plain", "no"),
        };
        Exchange::json(200, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    });
    let root = Certificate::self_signed(Kind::Authority);
    let door = TlsDoor::before(&answers, &root.signs(Kind::Server));
    let tools = json!([{"name": "kit", "type": "mcp", "url": door.url()}]);
    let runtime = Runtime::new().tools(tools).file_outside("root.pem", root.pem());
    let path = runtime.path_outside("root.pem");
    calling(runtime.env_raw("SSL_CERT_FILE", path), &[echo()]).tool_result_has(1, "behind the door");
}

// What a child gets.

#[test]
fn a_child_gets_what_its_entry_gives_and_nothing_else() {
    let server = Manner::stdio().start();
    let entry = server.entry_with("kit", json!({"env": {"KIT_MODE": "${MODE_OF_KIT}"}, "cwd": "inner"}));
    let runtime = Runtime::new()
        .tools(json!([entry]))
        .env("MODE_OF_KIT", "quiet")
        .env("DEPLOY_TOKEN", "hands-off-8c1d2e")
        .file("inner/a.txt", "a");
    let workspace = runtime.workspace().canonicalize().unwrap();
    let ended = calling(runtime, &[echo()]);
    let names: Vec<String> =
        server.hello(0).iter().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect();
    for name in &names {
        let is_known = ["id", "directory", "PATH", "HOME", "LANG", "TMPDIR", "KIT_MODE"].contains(&name.as_str());
        ended.check(is_known, &format!("{name} was handed on"));
    }
    ended.check(server.of_child(0, "KIT_MODE").as_deref() == Some("quiet"), "config.env");
    let directory = server.of_child(0, "directory").unwrap();
    ended.check(directory == workspace.join("inner").to_str().unwrap(), &directory);
}

#[test]
fn a_child_works_in_the_workspace() {
    let server = Manner::stdio().start();
    let runtime = Runtime::new().tools(json!([server.entry_with("kit", json!({"env": ["MODE_OF_KIT"]}))]));
    let workspace = runtime.workspace().canonicalize().unwrap();
    let ended = calling(runtime.env("MODE_OF_KIT", "loud"), &[echo()]);
    ended.check(server.of_child(0, "directory").as_deref() == workspace.to_str(), "the directory");
    ended.check(server.of_child(0, "MODE_OF_KIT").as_deref() == Some("loud"), "config.env as a list");
}

// Handshake.

#[test]
fn a_handshake_comes_before_everything() {
    for manner in Manner::each() {
        let (server, ended) = works(manner);
        let asked: Vec<String> = server
            .seen()
            .iter()
            .filter_map(|seen| Some(seen.message["method"].as_str()?.to_owned()))
            .filter(|method| !method.starts_with("server/"))
            .collect();
        // The older kind is found by a request that it refuses.
        let start = usize::from(asked[1] == "initialize");
        let expected = ["initialize", "notifications/initialized", "tools/list", "tools/call"];
        ended.check(asked[start..] == expected, &format!("{asked:?}"));
        let hello = server.asked("initialize")[start].clone();
        ended.check(hello["params"]["protocolVersion"] == LEGACY[0], "the newest version is asked for");
    }
}

#[test]
fn an_unknown_version_is_refused_by_both_names() {
    for manner in Manner::each() {
        let server = manner
            .on("initialize", |call| {
                vec![call.result(json!({
                    "protocolVersion": "1999-12-31", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s", "version": "1"},
                }))]
            })
            .start();
        let ended = with(&server).plays([]).run();
        ended.exits(1).reason("tool_unavailable").tells("kit").tells("1999-12-31").tells(LEGACY[0]);
    }
}

#[test]
fn a_newest_revision_that_is_not_ours_is_refused_by_name() {
    let server = Manner::http()
        .modern()
        .on("server/discover", |call| {
            let data = json!({"supported": ["2031-01-01"], "requested": MODERN});
            let error = json!({"code": -32022, "message": "Unsupported protocol version", "data": data});
            vec![Act::Http(Exchange::json(400, &json!({"jsonrpc": "2.0", "id": call.id(), "error": error})))]
        })
        .start();
    let ended = with(&server).plays([]).run();
    ended.exits(1).reason("tool_unavailable").tells("kit").tells("2031-01-01");
}

/// A server of both kinds may have reasons to want the older one.
#[test]
fn a_server_that_offers_only_older_revisions_is_spoken_to_in_those() {
    let server = Manner::http()
        .and_modern()
        .on("server/discover", |call| {
            vec![call.result(json!({"supportedVersions": ["2025-11-25"], "capabilities": {"tools": {}}}))]
        })
        .start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, ECHOED).check(server.asked("initialize").len() == 1, "initialize");
}

/// The status by which an older server refuses what it does not know.
#[test]
fn the_older_kind_is_found_behind_every_refusal_that_the_rule_names() {
    for status in [400, 404, 405] {
        let refusal = Exchange::new(status, "text/plain", "no");
        works(Manner::event_stream().on("POST", move |_| vec![Act::Http(refusal.clone())]));
    }
}

// Sessions.

#[test]
fn the_session_and_the_version_are_told_with_every_request() {
    let (server, ended) = works(Manner::http());
    let seen = server.seen();
    let after = seen.iter().skip_while(|seen| !seen.is("initialize")).skip(1);
    let mut count = 0;
    for seen in after {
        ended.check(seen.header("mcp-session-id") == Some("session-1"), "the session");
        ended.check(seen.header("mcp-protocol-version") == Some(LEGACY[0]), "the version");
        count += 1;
    }
    ended.check(count >= 4, "initialized, list, call, DELETE");
}

#[test]
fn a_session_is_ended() {
    let (server, ended) = works(Manner::http());
    ended.check(server.http("DELETE").len() == 1, "DELETE");
    for status in [200, 404, 405, 500] {
        let answer = Exchange::new(status, "text/plain", "");
        works(Manner::http().on("DELETE", move |_| vec![Act::Http(answer.clone())]));
    }
    let (server, ended) = works(Manner::http().without_sessions());
    ended.check(server.http("DELETE").is_empty(), "there is no session to end");
}

#[test]
fn the_end_does_not_wait_for_a_silent_server() {
    let stalls = Exchange::new(200, "text/plain", "never").stalls(Point::Start);
    let server = Manner::http().on("DELETE", move |_| vec![Act::Http(stalls.clone())]).start();
    let ended = calling(with(&server), &[echo()]);
    ended.check(ended.duration < 2 * SOON, "it waited for the answer to DELETE");
}

#[test]
fn a_lost_session_begins_again() {
    let server = Manner::http()
        .on("tools/call", |call| match call.count {
            1 => vec![Act::ForgetSessions, call.text("before")],
            _ => vec![call.text("after")],
        })
        .start();
    let ended = calling(with(&server), &[echo(), echo(), echo()]);
    ended.tool_result_has(1, "before").tool_result_has(2, "after").tool_result_has(3, "after");
    ended.check(server.asked("initialize").len() == 2, "initialize");
    ended.check(server.asked("tools/list").len() > 1, "the list is asked for again");
    // Sent, refused and sent again, sent.
    ended.check(server.calls().len() == 4, "the calls");
    let seen = server.seen();
    let again = seen.iter().rfind(|seen| seen.is("initialize")).unwrap();
    ended.check(again.header("mcp-session-id").is_none(), "the new handshake bears the old session");
}

/// Some versions of the Python library say it with 400.
#[test]
fn a_session_that_is_lost_by_400_begins_again() {
    let server = Manner::http()
        .on("tools/call", |call| match call.count {
            2 => {
                let error = json!({"code": -32600, "message": "Bad Request: No valid session ID provided"});
                vec![Act::Http(Exchange::json(400, &json!({"jsonrpc": "2.0", "id": "server-error", "error": error})))]
            }
            _ => vec![call.text("well")],
        })
        .start();
    let ended = calling(with(&server), &[echo(), echo()]);
    ended.tool_result_has(2, "well");
    ended.check(server.asked("initialize").len() == 2, "initialize");
}

#[test]
fn sessions_that_are_always_lost_are_given_up() {
    let lost = Exchange::json(
        404,
        &json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32001, "message": "Session not found"}}),
    );
    let server = Manner::http().on("tools/call", move |_| vec![Act::Http(lost.clone())]).start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "session");
    ended.check(server.calls().len() <= 3, "the call was repeated without end");
}

#[test]
fn a_session_is_a_secret() {
    let server = Manner::http().on("tools/call", |call| vec![call.text("you are session-1, are you not?")]).start();
    let ended = calling(with(&server).env("RUST_LOG", "debug").journal(), &[echo()]);
    ended.never_says("session-1").tool_result_has(1, "you are");
}

/// Servers close connections that were silent for some seconds; a model thinks for longer.
#[test]
fn a_connection_that_was_closed_meanwhile_loses_nothing() {
    let server = Manner::http()
        .on("tools/call", |call| {
            let Act::Send(answer) = call.text("done") else { return Vec::new() };
            vec![Act::Http(Exchange::json(200, &answer).then_closes())]
        })
        .start();
    let ended = calling(with(&server), &[echo(), echo(), echo()]);
    for number in 1..=3 {
        ended.tool_result_has(number, "done");
    }
    ended.check(server.calls().len() == 3, "a call was sent again");
}

// Streams that end early.

#[test]
fn a_stream_that_ends_early_is_resumed() {
    for ending in [vec![], vec![Act::HangUp]] {
        let asked = Arc::new(Mutex::new(Value::Null));
        let id = asked.clone();
        let server = Manner::http()
            .on("tools/call", move |call| {
                *asked.lock().unwrap() = call.id();
                [vec![Act::raw("id: first\nretry: 120\ndata:\n\nid: second\n\n")], ending.clone()].concat()
            })
            .on("GET", move |call| match call.count {
                1 => vec![Act::raw("id: third\ndata:\n\n")],
                _ => {
                    let text = json!([{"type": "text", "text": "at last"}]);
                    vec![
                        Act::Send(json!({"jsonrpc": "2.0", "id": *id.lock().unwrap(), "result": {"content": text}})),
                        Act::Silence,
                    ]
                }
            })
            .start();
        let ended = calling(with(&server), &[echo()]);
        ended.tool_result_has(1, "at last");
        let gets = server.http("GET");
        let last: Vec<&str> = gets.iter().filter_map(|get| get.header("last-event-id")).collect();
        ended.check(last == ["second", "third"], &format!("{last:?}"));
        ended.check(gets.iter().all(|get| get.header("accept") == Some("text/event-stream")), "Accept");
        ended.check(server.calls().len() == 1, "the call was sent again");
        let call = server.seen().into_iter().find(|seen| seen.is("tools/call")).unwrap().http.unwrap();
        let waited = gets[0].arrived - call.arrived;
        ended.check(waited >= Duration::from_millis(110), &format!("it came back after {waited:?}"));
    }
}

#[test]
fn a_stream_that_cannot_be_resumed_is_told_as_unknown() {
    let server = Manner::http().on("tools/call", |_| vec![Act::raw("id: first\nretry: 1\ndata:\n\n")]).start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "unknown").check(server.http("GET").len() == 1, "how often it came back");
    ended.check(server.calls().len() == 1, "the call was sent again");
}

#[test]
fn a_stream_cannot_ask_for_a_longer_wait_than_there_is_patience() {
    let server = Manner::http().on("tools/call", |_| vec![Act::raw("id: first\nretry: 86400000\ndata:\n\n")]).start();
    let tools = json!([server.entry_with("kit", json!({"timeout_seconds": 1}))]);
    let ended = calling(Runtime::new().tools(tools), &[echo()]);
    ended.tool_result_has(1, "unknown").check(ended.duration < 2 * SOON, "it waited");
}

#[test]
fn a_stream_that_never_brings_the_answer_is_given_up() {
    let server = Manner::http()
        .on("tools/call", |_| vec![Act::raw("id: first\nretry: 1\ndata:\n\n")])
        .on("GET", |_| vec![Act::raw(": nothing new\n\n")])
        .start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "unknown");
    ended.check(server.calls().len() == 1, "the call was sent again");
    ended.check((1..=20).contains(&server.http("GET").len()), "how often it came back");
}

// The end of a child.

#[test]
fn a_child_is_ended_by_closing_its_stdin() {
    let (server, ended) = works(Manner::stdio());
    wait_until("the child saw the end", || server.inputs_closed() == 1);
    let id = server.of_child(0, "id").unwrap();
    ended.check(!is_alive(&id), "the child is still there");
    ended.check(ended.duration < SOON, "it took long");
}

#[test]
fn a_child_that_reads_on_is_told_to_end() {
    let script = "trap 'echo told > told; exit 0' TERM; exec 3<&0; \"$@\" <&3 & wait";
    let server = Manner::stdio().ignores_end_of_input().wrapped(script).start();
    let ended = calling(with(&server), &[echo()]);
    ended.check(server.inputs_closed() == 1, "its stdin was not closed first");
    ended.file_is("told", "told\n");
    let id = server.of_child(0, "id").unwrap();
    wait_until("the child is gone", || !is_alive(&id));
}

#[test]
fn a_child_that_does_not_listen_is_killed() {
    let server = Manner::stdio().ignores_end_of_input().wrapped("trap '' TERM; exec \"$@\"").start();
    let ended = calling(with(&server), &[echo()]);
    ended.check(server.inputs_closed() == 1, "its stdin was not closed first");
    let id = server.of_child(0, "id").unwrap();
    ended.check(!is_alive(&id), "the child is still there");
    ended.check(ended.duration < 4 * SOON, "it took long");
}

#[test]
fn the_children_of_a_child_are_gone_with_it() {
    let script = "sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 1; done' & \"$@\"; exit";
    let server = Manner::stdio().wrapped(script).start();
    let ended = calling(with(&server), &[echo()]);
    let id = ended.file("grandchild").unwrap();
    wait_until("the grandchild is gone", || !is_alive(&id));
}

/// Tools of ours reap what they leave behind, and take nobody else's children.
#[test]
fn a_child_lives_beside_the_orphans_of_a_process_1() {
    let server = Manner::stdio().start();
    let tools = json!([server.entry("kit"), {"name": "shell"}]);
    let shell = |command: &str| ("shell", json!({"command": command}));
    let Some(runtime) = Runtime::new().tools(tools).into_process_1() else {
        eprintln!("no namespaces here: not tried");
        return;
    };
    let orphan = "setsid sh -c 'sleep 0.1; exit 3' >/dev/null 2>&1 & true";
    let ended = calling(runtime, &[echo(), shell(orphan), shell("sleep 0.3"), echo()]);
    ended.tool_result_has(4, ECHOED).check(server.lives() == 1, "the child was lost");
}

// Stopping.

/// The outcome stands when the servers are told to end.
#[test]
fn a_stop_after_the_end_changes_nothing() {
    let server = Manner::stdio().ignores_end_of_input().wrapped("trap '' TERM; exec \"$@\"").start();
    let running = with(&server).plays([chat::tool_call("kit_echo", json!({})), chat::achieved(0)]).spawn();
    wait_until("the child is told to end", || server.inputs_closed() == 1);
    running.signal("TERM");
    let ended = running.wait();
    ended.exits(0).status("achieved").reason("finished");
    let id = server.of_child(0, "id").unwrap();
    wait_until("the child is gone", || !is_alive(&id));
}

#[test]
fn a_stop_leaves_no_child_behind() {
    let server = Manner::stdio()
        .ignores_end_of_input()
        .wrapped("trap '' TERM INT; exec \"$@\"")
        .on("tools/call", |_| vec![Act::Silence])
        .start();
    let running = with(&server).plays([chat::tool_call("kit_echo", json!({}))]).spawn();
    server.wait_for("tools/call");
    let sent = Instant::now();
    running.signal("TERM");
    let ended = running.wait();
    ended.exits(143).reason("terminated").check(sent.elapsed() < SOON, "it took long");
    let id = server.of_child(0, "id").unwrap();
    wait_until("the child is gone", || !is_alive(&id));
}

#[test]
fn a_stop_does_not_wait_for_a_handshake() {
    for manner in Manner::each() {
        let transport = manner.transport;
        let server = manner.on("initialize", |_| vec![Act::Silence]).start();
        let running = with(&server).plays([]).spawn();
        server.wait_for("initialize");
        let sent = Instant::now();
        running.signal("TERM");
        let ended = running.wait();
        ended.exits(143).reason("terminated");
        ended.check(sent.elapsed() < SOON, &format!("{transport:?}: it took {:?}", sent.elapsed()));
    }
}

#[test]
fn a_stop_does_not_wait_for_a_server_that_is_not_there_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let running = Runtime::new().tools(json!([{"name": "kit", "type": "mcp", "url": url}])).plays([]).spawn();
    running.wait_for_log("kit");
    let sent = Instant::now();
    running.signal("TERM");
    let ended = running.wait();
    ended.exits(143).reason("terminated").check(sent.elapsed() < SOON, "it took long");
}
