//! MCP servers that do not come up, go away, or want to see a key: what a person is told, and who gets to see what.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::mcp::{calling, echo, gives_up, with};
use crate::mcp_server::{Act, Manner, McpServer};
use crate::runtime::{Ended, Runtime, wait_until};
use crate::server::{Exchange, Point, ScriptedServer};
use crate::stop::is_alive;

const TOKEN: &str = "xoxb-5d1f7a9c3e2b";

/// An error before the first model call that names the server and says these words; the same with `--check`.
#[track_caller]
fn refused(runtime: impl Fn() -> Runtime, words: &[&str]) -> Ended {
    let ended = runtime().plays([]).run();
    let checked = runtime().plays([]).arg("--check").run();
    for ended in [&ended, &checked] {
        ended.exits(1).reason("tool_unavailable").tells("[0]: kit");
        for word in words {
            ended.tells(word);
        }
        ended.check(ended.requests.is_empty(), "the model was asked");
    }
    ended
}

/// A server that gives this answer to everything.
fn always(exchange: Exchange) -> ScriptedServer {
    ScriptedServer::answers(move |_| exchange.clone())
}

fn at(server: &ScriptedServer) -> Runtime {
    let config = json!({"start_timeout_seconds": 1});
    Runtime::new()
        .tools(json!([{"name": "kit", "type": "mcp", "url": format!("{}/mcp", server.url()), "config": config}]))
}

/// A run with a server that is not waited for long.
fn brief(server: &McpServer) -> Runtime {
    Runtime::new().tools(json!([server.entry_with("kit", json!({"timeout_seconds": 2}))]))
}

fn child(command: &[&str]) -> Runtime {
    Runtime::new().tools(json!([{"name": "kit", "type": "mcp", "config": {"command": command, "timeout_seconds": 1}}]))
}

// The entry.

#[test]
fn an_entry_says_where_its_server_is() {
    for (entry, place) in [
        (json!({"name": "kit", "type": "mcp"}), "`url`"),
        (json!({"name": "kit", "type": "mcp", "url": ""}), "`url`"),
        (json!({"name": "kit", "url": "http://x/"}), "[0].url"),
        (json!({"name": "kit", "type": "mcp", "url": "http://me:secret@x/"}), "[0].url"),
        (json!({"name": "kit", "type": "mcp", "url": "ftp://x/"}), "[0].url"),
        (json!({"name": "kit", "type": "mcp", "url": "not a url"}), "[0].url"),
        (json!({"name": "kit", "type": "mcp", "url": "http://${NOWHERE}/mcp"}), "NOWHERE"),
        (json!({"name": "kit", "type": "mcp", "config": {"command": []}}), "[0].config.command"),
        (json!({"name": "kit", "type": "mcp", "config": {"command": "npx server"}}), "[0].config.command"),
        (json!({"name": "kit", "type": "mcp", "url": "http://x/", "config": {"headers": ["a"]}}), "[0].config.headers"),
        (json!({"name": "kit", "type": "mcp", "url": "http://x/", "config": {"allow": "a"}}), "[0].config.allow"),
        (json!({"name": "kit", "type": "mcp", "url": "http://x/", "config": {"timeout": 5}}), "[0].config.timeout"),
        (json!({"name": "kit", "type": "mcpp", "url": "http://x/"}), "[0].type"),
    ] {
        Runtime::new().tools(json!([entry])).plays([]).run().complains_about(&[place]);
    }
}

#[test]
fn a_url_may_hold_a_variable() {
    let server = Manner::http().start();
    let entry = json!({"name": "kit", "type": "mcp", "url": "http://127.0.0.1:${KIT_PORT_NUMBER}/mcp"});
    let runtime = Runtime::new().tools(json!([entry])).env("KIT_PORT_NUMBER", &server.address.port().to_string());
    calling(runtime, &[echo()]).tool_result_has(1, "echo was called");
}

// Authorization.

#[test]
fn the_variable_named_after_a_server_is_its_bearer_token() {
    for manner in [Manner::http(), Manner::http().modern(), Manner::event_stream()] {
        let server = manner.demands("authorization", &format!("Bearer {TOKEN}")).start();
        let runtime = Runtime::new().tools(json!([server.entry("slack-mcp")])).env("SLACK_MCP_TOKEN", TOKEN);
        let ended = calling(runtime.env("RUST_LOG", "debug"), &[("slack-mcp_echo", json!({"text": TOKEN}))]);
        ended.never_says(TOKEN).tool_result_has(1, "[secret SLACK_MCP_TOKEN]");
        ended.check(!ended.request(1).text().contains(TOKEN), "the model was told");
    }
}

#[test]
fn headers_of_the_entry_go_with_every_request() {
    let value = format!("key {TOKEN}");
    for manner in [Manner::http(), Manner::http().modern(), Manner::event_stream()] {
        let server = manner.demands("x-api-key", &value).start();
        let entry = server.entry_with("kit", json!({"headers": {"X-Api-Key": "key ${KIT_LOGIN}"}}));
        let ended = calling(Runtime::new().tools(json!([entry])).env("KIT_LOGIN", TOKEN), &[echo()]);
        ended.tool_result_has(1, "echo was called").never_says(TOKEN);
    }
}

#[test]
fn a_refused_key_ends_the_start_and_names_its_variable() {
    for (status, header) in
        [(401, "Bearer resource_metadata=\"https://auth.invalid/\""), (403, "Bearer error=\"insufficient_scope\"")]
    {
        let refusal =
            Exchange::json(status, &json!({"error": format!("no: {TOKEN}")})).header("WWW-Authenticate", header);
        for token in ["", TOKEN] {
            let server = always(refusal.clone());
            let entry = json!({"name": "slack-mcp", "type": "mcp", "url": format!("{}/mcp", server.url())});
            let ended = Runtime::new().tools(json!([entry])).env("SLACK_MCP_TOKEN", token).plays([]).run();
            ended.exits(1).tells("slack-mcp").tells("SLACK_MCP_TOKEN").tells(&status.to_string());
            ended.check(ended.requests.is_empty(), "the model was asked");
            ended.check(token.is_empty() || !ended.stderr.contains(TOKEN), "the token was told");
            ended.check(server.script().requests().len() <= 3, "it was tried again and again");
        }
    }
}

#[test]
fn a_key_that_expires_is_told_to_the_model() {
    let refusal = Exchange::json(401, &json!({"error": "expired"}));
    let server = Manner::http().on("tools/call", move |_| vec![Act::Http(refusal.clone())]).start();
    let ended = calling(with(&server).env("KIT_TOKEN", TOKEN), &[echo()]);
    ended.tool_result_has(1, "401").never_says(TOKEN);
    ended.check(server.calls().len() == 1, "it was sent again");
}

#[test]
fn a_key_goes_to_no_other_origin() {
    for status in [301, 302, 307, 308] {
        // A request that it gets fails the test.
        let other = ScriptedServer::plays([]);
        let location = format!("{}/mcp", other.url());
        let server = always(Exchange::new(status, "text/plain", "").header("Location", &location));
        refused(|| at(&server).env("KIT_TOKEN", TOKEN), &[&status.to_string()]).never_says(TOKEN);
    }
}

#[test]
fn a_call_is_not_redirected_to_another_origin() {
    let other = ScriptedServer::plays([]);
    let redirect = Exchange::new(307, "text/plain", "").header("Location", &format!("{}/mcp", other.url()));
    let server = Manner::http().on("tools/call", move |_| vec![Act::Http(redirect.clone())]).start();
    let ended = calling(with(&server).env("KIT_TOKEN", TOKEN), &[echo()]);
    ended.tool_result_has(1, "307");
}

#[test]
fn an_endpoint_at_another_origin_is_refused() {
    let other = ScriptedServer::plays([]);
    let elsewhere = format!("{}/messages", other.url());
    for endpoint in
        [elsewhere.as_str(), "//other.invalid/m", "ftp://x/", "{url}@other.invalid/m", "https://127.0.0.1/m"]
    {
        let server = Manner::event_stream().endpoint(endpoint).start();
        refused(|| with(&server).env("KIT_TOKEN", TOKEN), &["endpoint"]).never_says(TOKEN);
    }
}

// Not there, or not MCP.

#[test]
fn what_is_not_mcp_is_refused_by_what_it_is() {
    let page = || Exchange::new(200, "text/html", "<!DOCTYPE html><html><body>Welcome</body></html>");
    let json = |status, value: Value| Exchange::json(status, &value);
    for (name, exchange, words) in [
        ("a page", page(), vec!["text/html"]),
        ("plain text", Exchange::new(200, "text/plain", "ok"), vec!["text/plain"]),
        ("nothing", Exchange::new(200, "application/json", ""), vec![]),
        ("a list", json(200, json!([])), vec![]),
        ("an object", json(200, json!({"status": "up"})), vec![]),
        ("a number", json(200, json!(5)), vec![]),
        ("a stream of nothing", Exchange::new(200, "text/event-stream", ": hello\n\n"), vec![]),
        ("a defect", Exchange::new(500, "text/plain", "boom"), vec!["500", "boom"]),
        ("not found", Exchange::new(404, "text/plain", "404 page not found"), vec!["404"]),
        ("gone", Exchange::new(410, "text/plain", "gone"), vec!["410"]),
        ("wrong host", Exchange::new(421, "text/plain", "Invalid Host header"), vec!["421", "Invalid Host"]),
        (
            "an error",
            json(200, json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no database"}})),
            vec![],
        ),
        ("not HTTP", Exchange::raw("SSH-2.0-OpenSSH_9.6\r\n"), vec![]),
    ] {
        let server = always(exchange);
        let ended = refused(|| at(&server), &words);
        ended
            .check(ended.duration < Duration::from_secs(40), &format!("{name}: it was tried for {:?}", ended.duration));
    }
}

#[test]
fn an_error_of_the_handshake_is_told_in_its_words() {
    for manner in Manner::each() {
        let server = manner.on("initialize", |call| vec![call.error(-32603, "no database")]).start();
        refused(|| with(&server), &["no database"]);
    }
}

#[test]
fn a_handshake_or_a_list_without_sense_is_refused() {
    for (method, result) in [
        ("initialize", json!({})),
        ("initialize", json!(null)),
        ("initialize", json!([])),
        ("initialize", json!({"protocolVersion": 5})),
        ("tools/list", json!({})),
        ("tools/list", json!(null)),
        ("tools/list", json!({"tools": 5})),
        ("tools/list", json!({"tools": [5, {"x": 1}, {"name": ""}]})),
    ] {
        for manner in Manner::each() {
            let result = result.clone();
            let server = manner.on(method, move |call| vec![call.result(result.clone())]).start();
            refused(|| brief(&server), &[]);
        }
    }
    let server = Manner::http().on("tools/list", |call| vec![call.error(-32603, "the database is down")]).start();
    refused(|| brief(&server), &["the database is down"]);
}

#[test]
fn redirects_without_end_are_not_followed_for_ever() {
    let server = always(Exchange::new(307, "text/plain", "").header("Location", "/mcp"));
    refused(|| at(&server), &[]);
    let requests = server.script().requests().len();
    assert!(requests < 60, "{requests} requests");
}

/// A key in the URL is a secret as well.
#[test]
fn a_url_is_told_without_its_query() {
    let server = always(Exchange::new(404, "text/plain", "nothing here"));
    let url = format!("{}/mcp?key=${{KIT_LOGIN}}", server.url());
    let tools = json!([{"name": "kit", "type": "mcp", "url": url}]);
    let ended = Runtime::new().tools(tools).env("KIT_LOGIN", TOKEN).env("RUST_LOG", "debug").plays([]).run();
    ended.exits(1).tells("kit").never_says(TOKEN);
    let path = format!("/mcp?key={TOKEN}");
    ended.check(server.script().requests().iter().all(|request| request.path == path), "the query was not sent");
}

#[test]
fn a_server_without_tools_is_refused() {
    for manner in Manner::each() {
        let server = manner.tools([]).start();
        refused(|| with(&server), &["no tools"]);
    }
}

#[test]
fn a_server_that_is_not_there_is_refused_after_some_tries() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    let tools = json!([{"name": "kit", "type": "mcp", "url": url, "config": {"start_timeout_seconds": 3}}]);
    let ended = Runtime::new().tools(tools).plays([]).env("THOUGHTMESH_EXIT_CODES", "detailed").run();
    ended.exits(69).reason("tool_unavailable").tells("kit").tells("refused");
    ended.check(ended.duration > Duration::from_secs(1), "it gave up at once");
    ended.check(ended.outcome()["durationSeconds"].as_f64() > Some(0.9), "the time that it took is not told");
}

#[test]
fn a_server_that_fails_is_refused_after_some_tries() {
    let server = always(Exchange::new(503, "text/plain", "no healthy upstream"));
    let tools = json!([{"name": "kit", "type": "mcp", "url": server.url(), "config": {"start_timeout_seconds": 2}}]);
    let ended = Runtime::new().tools(tools).plays([]).run();
    ended.exits(1).reason("tool_unavailable").tells("kit").tells("503").tells("no healthy upstream");
    let tries = server.script().requests().len();
    ended.check((3..=50).contains(&tries), &format!("{tries} tries"));
}

/// Sidecars start at the same time as we do, and take longer.
#[test]
fn a_server_that_comes_up_late_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let entry = json!({"name": "kit", "type": "mcp", "url": format!("http://{address}/mcp")});
    let running =
        Runtime::new().tools(json!([entry])).plays([chat::tool_call("kit_echo", json!({})), gives_up()]).spawn();
    running.wait_for_log("kit");
    let server = Manner::http().start_at(TcpListener::bind(address).unwrap());
    let ended = running.wait();
    ended.reason("gave_up").tool_result_has(1, "echo was called");
    drop(server);
}

#[test]
fn a_server_that_is_not_ready_is_asked_again() {
    for status in [429, 502, 503, 504] {
        let busy = Exchange::new(status, "text/plain", "starting").header("Retry-After", "0");
        let server = Manner::http()
            .on("initialize", move |call| match call.count {
                1 => vec![Act::Http(busy.clone())],
                _ => vec![call.result(json!({
                    "protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s", "version": "1"},
                }))],
            })
            .start();
        calling(with(&server), &[echo()]).tool_result_has(1, "echo was called");
    }
}

#[test]
fn a_server_that_does_not_answer_is_refused() {
    for method in ["initialize", "tools/list"] {
        for manner in Manner::each() {
            let transport = manner.transport;
            let server = manner.on(method, |_| vec![Act::Silence]).start();
            let tools = json!([server.entry_with("kit", json!({"timeout_seconds": 1}))]);
            let ended = Runtime::new().tools(tools).plays([]).run();
            ended.exits(1).reason("tool_unavailable").tells("kit").tells("no answer").tells(method);
            ended.check(ended.duration < Duration::from_secs(40), &format!("{transport:?}: {:?}", ended.duration));
            // The specification forbids it.
            ended.check(
                method == "tools/list" || server.asked("notifications/cancelled").is_empty(),
                "it was cancelled",
            );
        }
    }
}

#[test]
fn a_server_that_takes_connections_and_says_nothing_is_refused() {
    let server = always(Exchange::new(200, "text/plain", "").stalls(Point::Start));
    let tools = json!([{"name": "kit", "type": "mcp", "url": server.url(), "config": {"timeout_seconds": 1}}]);
    let ended = Runtime::new().tools(tools).plays([]).run();
    ended.exits(1).reason("tool_unavailable").tells("kit");
}

#[test]
fn a_program_that_is_not_there_is_refused() {
    refused(|| child(&["no-such-program-here"]), &["no such program"]);
    refused(|| child(&["./a.txt"]).file("a.txt", "not a program"), &["./a.txt", "not an executable file"]);
}

#[test]
fn a_directory_that_is_not_there_is_refused() {
    let server = Manner::stdio().start();
    let entry = server.entry_with("kit", json!({"cwd": "nowhere"}));
    refused(|| Runtime::new().tools(json!([entry])), &["nowhere", "not a directory"]);
}

#[test]
fn a_child_that_is_dead_at_start_is_refused_with_its_last_words() {
    let server = Manner::stdio().greets([Act::Stderr("reading\ncannot read kit.toml".to_owned()), Act::HangUp]).start();
    let ended = refused(|| with(&server), &["code 3"]);
    ended.log_has("reading").tells("cannot read kit.toml");
    refused(|| child(&["true"]), &["code 0"]);
    refused(|| child(&["sh", "-c", "kill -9 $$"]), &["signal 9"]);
}

#[test]
fn a_child_that_is_no_server_is_refused() {
    refused(|| child(&["sh", "-c", "echo hello; echo there; cat >/dev/null"]), &[]);
    refused(|| child(&["sh", "-c", "head -c 3000000 /dev/zero; cat >/dev/null"]), &[]);
    refused(|| child(&["sh", "-c", "exec >&-; cat >/dev/null"]), &[]);
    // It says back what it is told.
    refused(|| child(&["cat"]), &[]);
}

#[test]
fn a_banner_on_stdout_is_skipped_with_one_warning() {
    let banner = [Act::raw("Welcome to kit 1.0\n\nListening on stdio\r\n{\"not\": \"a message\"}\n[1, 2]\n")];
    let server = Manner::stdio().greets(banner).start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "echo was called").log_has("Welcome to kit 1.0");
    let warnings = ended.stderr.lines().filter(|line| line.contains("WARN") && line.contains("kit")).count();
    ended.check(warnings == 1, &format!("{warnings} warnings"));
}

#[test]
fn bytes_that_are_no_text_are_skipped_too() {
    let noise = vec![Act::Raw(b"\xff\xfe\x00 noise\n".to_vec()), Act::Raw(vec![b'.'; 100_000]), Act::raw("\n")];
    let server = Manner::stdio().greets(noise).start();
    calling(with(&server), &[echo()]).tool_result_has(1, "echo was called").never_says("\u{0}");
}

#[test]
fn several_servers_that_fail_are_told_together() {
    let server = always(Exchange::new(404, "text/plain", "nothing here"));
    let entry = |name: &str| json!({"name": name, "type": "mcp", "url": format!("{}/{name}", server.url())});
    let tools = json!([entry("one"), {"name": "two", "type": "mcp", "config": {"command": ["no-such-program-here"]}}]);
    let ended = Runtime::new().tools(tools).plays([]).run();
    ended.exits(1).reason("tool_unavailable").tells("[0]: one").tells("[1]: two");
}

#[test]
fn what_is_not_required_is_left_out_with_a_warning() {
    let good = Manner::http().start();
    let absent = always(Exchange::new(404, "text/plain", "nothing here"));
    let tools = json!([
        {"name": "absent", "type": "mcp", "url": absent.url(), "required": false},
        {"name": "dead", "type": "mcp", "config": {"command": ["false"], "required": false}},
        good.entry("kit"),
    ]);
    let ended = calling(Runtime::new().tools(tools), &[echo()]);
    ended.tool_result_has(1, "echo was called").log_has("absent").log_has("dead");
    ended.check(ended.request(1).tool_names() == ["finish", "kit_echo"], "what is offered");
}

#[test]
fn a_check_says_what_a_server_offers_and_leaves_nothing_behind() {
    let servers = Manner::each().map(Manner::start);
    let entries: Vec<Value> =
        servers.iter().zip(["one", "two", "three"]).map(|(server, name)| server.entry(name)).collect();
    let ended = Runtime::new().tools(json!(entries)).plays([]).arg("--check").run();
    ended.exits(0);
    for name in ["one_echo", "two_echo", "three_echo"] {
        ended.check(ended.stdout.contains(name), &format!("{name} is not told"));
    }
    let id = servers[0].of_child(0, "id").unwrap();
    ended.check(!is_alive(&id), "the child is still there");
    ended.check(servers[1].http("DELETE").len() == 1, "the session is still open");
}

// Dying in the middle.

#[test]
fn a_child_that_dies_is_started_once_more() {
    let server = Manner::stdio()
        .on("tools/call", |call| match call.count {
            2 => vec![call.text("back again")],
            _ => vec![Act::Stderr("out of cheese\n".to_owned()), Act::HangUp],
        })
        .start();
    let calls = vec![echo(); 4];
    let ended = calling(with(&server), &calls);
    ended.tool_result_has(1, "unknown").tool_result_has(2, "back again").tool_result_has(3, "unknown");
    ended.check(server.lives() == 2, &format!("it was started {} times", server.lives()));
    ended.check(server.calls().len() == 3, "a call to a server that is gone");
    ended.tool_result_has(4, "kit").log_has("out of cheese").log_has("code 3");
}

/// Two calls; the second one is made when this is so.
fn calling_again_when(server: &Arc<McpServer>, is_so: impl Fn(&McpServer) -> bool + Send + Sync + 'static) -> Ended {
    let shared = server.clone();
    let second = chat::tool_call("kit_echo", json!({})).when(move |_| {
        wait_until("the server is as it should be", || is_so(&shared));
        Ok(())
    });
    with(server).plays([chat::tool_call("kit_echo", json!({})), second, gives_up()]).run()
}

#[test]
fn a_child_that_died_between_two_calls_is_started_before_the_next() {
    let server = Manner::stdio()
        .on("tools/call", |call| match call.count {
            1 => vec![call.text("farewell"), Act::HangUp],
            _ => vec![call.text("back again")],
        })
        .start();
    let server = Arc::new(server);
    let ended = calling_again_when(&server, |server| !is_alive(&server.of_child(0, "id").unwrap()));
    ended.tool_result_has(1, "farewell").tool_result_has(2, "back again");
    ended.check(server.lives() == 2, &format!("it was started {} times", server.lives()));
}

/// The child dies with the first call, and then at every start.
#[test]
fn a_child_that_does_not_come_back_fails_its_calls() {
    let script = "[ -e begun ] && exit 7; touch begun; exec \"$@\"";
    let server = Manner::stdio().wrapped(script).on("tools/call", |_| vec![Act::HangUp]).start();
    let exchanges = [chat::tool_call("kit_echo", json!({})), chat::tool_call("kit_echo", json!({})), gives_up()];
    let ended = with(&server).plays(exchanges).run();
    ended.reason("gave_up").tool_result_has(1, "unknown").tool_result_has(2, "kit");
    ended.check(server.calls().len() == 1, "the calls");
}

#[test]
fn a_server_that_goes_away_fails_its_calls() {
    for manner in [Manner::http(), Manner::event_stream()] {
        let server = manner.start();
        let runtime = with(&server);
        let server = Mutex::new(Some(server));
        // It goes when the model is asked for the second time.
        let gone = chat::tool_call("kit_echo", json!({})).when(move |_| {
            drop(server.lock().unwrap().take());
            Ok(())
        });
        let ended = runtime.plays([chat::tool_call("kit_echo", json!({})), gone, gives_up()]).run();
        ended.reason("gave_up").tool_result_has(1, "echo was called").tool_result_has(2, "reached");
    }
}

#[test]
fn a_stream_that_breaks_between_two_calls_is_opened_again() {
    let server = Manner::event_stream()
        .on("tools/call", |call| match call.count {
            1 => vec![call.text("farewell"), Act::HangUp],
            _ => vec![call.text("back again")],
        })
        .start();
    let server = Arc::new(server);
    let ended = calling_again_when(&server, |server| !server.has_stream());
    ended.tool_result_has(1, "farewell").tool_result_has(2, "back again");
    ended.check(server.http("GET").len() == 2, "the streams");
}

// What a child writes on stderr.

#[test]
fn what_a_child_writes_on_stderr_is_logged_line_by_line_and_masked() {
    let words = format!("one\ntoken {TOKEN}\n\u{1b}[31mred\u{1b}[0m\nunfinished");
    let server =
        Manner::stdio().on("tools/call", move |call| vec![Act::Stderr(words.clone()), call.text("done")]).start();
    let ended = calling(with(&server).env("DEPLOY_TOKEN", TOKEN), &[echo(), echo()]);
    ended.log_has("token [secret DEPLOY_TOKEN]").log_has("unfinished").never_says(TOKEN).never_says("\u{1b}");
    let line = ended.stderr.lines().find(|line| line.contains("token [secret")).unwrap();
    ended.check(line.contains("kit") && !line.contains("one"), &format!("the line is {line:?}"));
}

/// A pipe that nobody reads would stop it at 64 KiB.
#[test]
fn a_child_may_write_much_on_stderr() {
    let words = "a line of words\n".repeat(100_000);
    let server = Manner::stdio()
        .greets([Act::Stderr(words.clone())])
        .on("tools/call", move |call| vec![Act::Stderr(words.clone()), call.text("done")])
        .start();
    let ended = calling(with(&server), &[echo()]);
    ended.tool_result_has(1, "done");
    ended.check(ended.stderr.len() < 1_000_000, &format!("{} bytes of log", ended.stderr.len()));
}

#[test]
fn a_child_may_write_on_stderr_while_nobody_asks_it() {
    let server: McpServer = Manner::stdio()
        .on("tools/call", |call| {
            vec![
                call.text("done"),
                Act::Stderr("afterthought\n".repeat(30_000)),
                Act::raw("\n"),
                Act::Stderr("over\n".to_owned()),
            ]
        })
        .start();
    let ended = calling(with(&server), &[echo(), echo()]);
    ended.tool_result_has(2, "done").log_has("afterthought");
}
