//! The tool `http_request`: whom it asks, what it says to them, and what comes back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Runtime};
use crate::server::{Exchange, Point, Request, ScriptedServer};

const SOON: Duration = Duration::from_secs(20);

fn tools(config: Value) -> Value {
    json!([{"name": "http_request", "config": config}])
}

/// Calls with these arguments, one turn after the other, then gives up.
fn calling(runtime: Runtime, calls: &[Value]) -> Ended {
    let calls = calls.iter().map(|arguments| chat::tool_call("http_request", arguments.clone()));
    let last = chat::finish(json!({"status": "failed", "summary": "The test is over.", "key_results": []}));
    let ended = runtime.plays(calls.chain([last])).run();
    ended.exits(1).reason("gave_up");
    ended
}

fn local() -> Runtime {
    Runtime::new().tools(tools(json!({"allow": ["127.0.0.1"]})))
}

fn text(body: &str) -> Exchange {
    Exchange::new(200, "text/plain; charset=utf-8", body)
}

/// The one request that a server saw.
#[track_caller]
fn only(server: &ScriptedServer) -> Request {
    let requests = server.script().requests();
    assert_eq!(requests.len(), 1);
    requests[0].clone()
}

#[test]
fn an_answer_is_told() {
    let server = ScriptedServer::plays([text("hello there").header("ETag", "\"7\"").header("X-Other", "not this")]);
    let ended = calling(local(), &[json!({"url": format!("{}/a?b=c", server.url())})]);
    ended.tool_result_has(1, "HTTP 200\n").tool_result_has(1, "hello there").tool_result_has(1, "etag: \"7\"");
    ended.tool_result_lacks(1, "not this");
    let request = only(&server);
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.header("accept")),
        ("GET", "/a?b=c", Some("*/*"))
    );
}

#[test]
fn every_method_is_sent_with_headers_and_body() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
        let server = ScriptedServer::plays([match method {
            "HEAD" => Exchange::new(200, "text/plain", ""),
            _ => text("done"),
        }]);
        let has_body = ["POST", "PUT", "PATCH"].contains(&method);
        let mut arguments =
            json!({"url": server.url(), "method": method, "headers": {"X-Note": "n", "Content-Type": "a/b"}});
        if has_body {
            arguments["body"] = json!("a\u{e9}body");
        }
        let ended = calling(local(), &[arguments]);
        ended.tool_result_has(1, "HTTP 200");
        let request = only(&server);
        assert_eq!((request.method.as_str(), request.header("x-note")), (method, Some("n")));
        assert_eq!(request.header("content-type"), Some("a/b"));
        assert_eq!(request.body, if has_body { "a\u{e9}body".as_bytes() } else { b"" });
    }
}

#[test]
fn a_body_where_there_is_none_is_refused() {
    let ended = calling(local(), &[json!({"url": "http://127.0.0.1:9/", "body": "x"})]);
    ended.tool_result_has(1, "body");
}

#[test]
fn a_status_of_400_or_more_is_a_failure_that_is_told() {
    let server = ScriptedServer::plays([Exchange::new(418, "text/plain", "I am a teapot")]);
    let ended = calling(local(), &[json!({"url": server.url()})]);
    ended.tool_result_has(1, "failed").tool_result_has(1, "HTTP 418").tool_result_has(1, "teapot");
}

// Hosts.

#[test]
fn without_a_list_of_hosts_it_does_not_start() {
    for config in [json!({}), json!({"allow": []}), json!({"allow": null})] {
        Runtime::new().tools(tools(config)).plays([]).run().complains_about(&["[0].config.allow"]);
    }
    for wrong in ["https://x.example", "x.example:80", "*", "", "a b"] {
        let runtime = Runtime::new().tools(tools(json!({"allow": [wrong]}))).plays([]);
        runtime.run().complains_about(&["[0].config.allow[0]"]);
    }
}

#[test]
fn other_hosts_are_not_asked() {
    let server = ScriptedServer::plays([]);
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let runtime = Runtime::new().tools(tools(json!({"allow": ["api.example.com", "*.example.org"]})));
    let urls = [
        server.url(),
        format!("http://localhost:{port}/"),
        "http://example.com/".to_owned(),
        "http://example.org/".to_owned(),
        "http://api.example.com.evil.org/".to_owned(),
        format!("http://127.0.0.1:{port}#@api.example.com/"),
        format!("http://127.0.0.1:{port}/?x=http://api.example.com"),
    ];
    let calls: Vec<Value> = urls.iter().map(|url| json!({"url": url})).collect();
    let ended = calling(runtime, &calls);
    for number in 1..=urls.len() {
        ended.tool_result_has(number, "is not asked, accepted: api.example.com, *.example.org");
    }
}

#[test]
fn what_is_no_url_is_answered() {
    let urls = [
        "",
        "127.0.0.1",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://user:pass@127.0.0.1/",
        "http://a b/",
        "//127.0.0.1/",
    ];
    let calls: Vec<Value> = urls.iter().map(|url| json!({"url": url})).collect();
    let ended = calling(local(), &calls);
    for number in 1..=urls.len() {
        ended.tool_result_has(number, "url").tool_result_lacks(number, "root:");
    }
}

#[test]
fn link_local_and_metadata_addresses_are_refused_even_when_listed() {
    // The last two are names: the C library reads such numbers as addresses, so that they lead there without a name server.
    let hosts = [
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "::ffff:169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
    ];
    let runtime = Runtime::new().tools(tools(json!({"allow": hosts})));
    let calls: Vec<Value> = hosts
        .iter()
        .map(|host| match host.contains(':') {
            true => json!({"url": format!("http://[{host}]/latest/meta-data")}),
            false => json!({"url": format!("http://{host}/latest/meta-data")}),
        })
        .collect();
    let ended = calling(runtime, &calls);
    for number in 1..=hosts.len() {
        ended.tool_result_has(number, "refused").tool_result_has(number, "link-local");
    }
    ended.check(ended.duration < SOON, "it tried");
}

// Redirects.

fn redirect(status: u16, location: &str) -> Exchange {
    Exchange::new(status, "text/plain", "elsewhere").header("Location", location)
}

#[test]
fn a_redirect_within_the_list_is_followed() {
    let server = ScriptedServer::plays([redirect(302, "/b?c"), text("arrived")]);
    let ended = calling(local(), &[json!({"url": format!("{}/a", server.url()), "method": "POST", "body": "x"})]);
    ended.tool_result_has(1, "arrived");
    let requests = server.script().requests();
    let second = (requests[1].method.as_str(), requests[1].path.as_str(), requests[1].body.len());
    assert_eq!(second, ("GET", "/b?c", 0));
}

#[test]
fn a_redirect_that_keeps_the_method_keeps_the_body() {
    let server = ScriptedServer::plays([redirect(307, "b"), text("arrived")]);
    let ended = calling(local(), &[json!({"url": format!("{}/a", server.url()), "method": "POST", "body": "x"})]);
    ended.tool_result_has(1, "arrived");
    assert_eq!(server.script().requests()[1].body, b"x");
}

#[test]
fn a_redirect_out_of_the_list_is_not_followed() {
    let other = ScriptedServer::plays([]);
    let outside = other.url().replace("127.0.0.1", "localhost");
    for location in [&outside, "http://169.254.169.254/", "file:///etc/passwd", "//localhost/x"] {
        let server = ScriptedServer::plays([redirect(302, location)]);
        let ended = calling(local(), &[json!({"url": server.url()})]);
        ended.tool_result_has(1, "refused").tool_result_has(1, "redirect").tool_result_lacks(1, "root:");
    }
}

#[test]
fn a_circle_of_redirects_ends() {
    let server = ScriptedServer::plays([redirect(302, "/again").for_ever()]);
    calling(local(), &[json!({"url": server.url()})]).tool_result_has(1, "redirects");
    assert!(server.script().requests().len() <= 10);
}

#[test]
fn headers_stay_behind_when_a_redirect_leads_to_another_server() {
    let second = ScriptedServer::plays([text("arrived")]);
    let first = ScriptedServer::plays([redirect(307, &second.url())]);
    let config = json!({"allow": ["127.0.0.1"], "headers": {"X-Api-Key": "${SERVICE_KEY}"}});
    let runtime = Runtime::new().tools(tools(config)).env("SERVICE_KEY", "marker-5c11e0");
    let ended = calling(runtime, &[json!({"url": first.url(), "headers": {"Authorization": "Bearer mine"}})]);
    ended.tool_result_has(1, "arrived");
    assert_eq!(only(&first).header("x-api-key"), Some("marker-5c11e0"));
    assert_eq!(only(&first).header("authorization"), Some("Bearer mine"));
    assert_eq!((only(&second).header("x-api-key"), only(&second).header("authorization")), (None, None));
}

// Headers.

#[test]
fn headers_of_the_entry_are_sent_and_win() {
    let server = ScriptedServer::plays([text("x")]);
    let config =
        json!({"allow": ["127.0.0.1"], "headers": {"Authorization": "Bearer ${SERVICE_TOKEN}", "X-Team": "blue"}});
    let runtime = Runtime::new().tools(tools(config)).env("SERVICE_TOKEN", "marker-90bb3c");
    calling(runtime, &[json!({"url": server.url(), "headers": {"authorization": "Bearer mine"}})]);
    assert_eq!(only(&server).header("authorization"), Some("Bearer marker-90bb3c"));
    assert_eq!(only(&server).header("x-team"), Some("blue"));
    assert_eq!(only(&server).text().matches("uthorization:").count(), 1);
}

#[test]
fn headers_of_a_host_are_sent_to_that_host_only() {
    let server = ScriptedServer::plays([text("x"), text("y")]);
    let headers = json!({"localhost": {"X-Key": "${SERVICE_KEY}"}});
    let config = json!({"allow": ["127.0.0.1", "localhost"], "headers": headers});
    let runtime = Runtime::new().tools(tools(config)).env("SERVICE_KEY", "marker-5c11e0");
    let by_name = server.url().replace("127.0.0.1", "localhost");
    calling(runtime, &[json!({"url": server.url()}), json!({"url": by_name})]);
    let requests = server.script().requests();
    assert_eq!((requests[0].header("x-key"), requests[1].header("x-key")), (None, Some("marker-5c11e0")));
}

#[test]
fn a_header_of_a_host_that_is_not_listed_is_a_mistake() {
    let config = json!({"allow": ["a.example"], "headers": {"b.example": {"X-Key": "x"}, "X Bad": "y"}});
    let ended = Runtime::new().tools(tools(config)).plays([]).run();
    ended.complains_about(&["config.headers.b.example", "config.headers"]);
}

#[test]
fn a_variable_in_a_header_is_a_secret_whatever_its_name() {
    let server = ScriptedServer::plays([
        text("you said marker-of-the-header-7f"),
        text("x").header("Location", "/?k=marker-of-the-header-7f"),
    ]);
    let config = json!({"allow": ["127.0.0.1"], "headers": {"X-Thing": "${SOME_THING}"}});
    let runtime = Runtime::new().tools(tools(config)).env("SOME_THING", "marker-of-the-header-7f");
    let ended = calling(runtime, &[json!({"url": server.url()}), json!({"url": server.url()})]);
    ended.tool_result_has(1, "[secret SOME_THING]").tool_result_lacks(1, "marker-of").tool_result_lacks(2, "marker-of");
    ended.never_says("marker-of-the-header-7f");
}

#[test]
fn an_error_page_that_quotes_a_header_tells_no_secret() {
    let long = "x".repeat(40_000);
    let page = format!("bad header: Bearer marker-90bb3c-{long}marker-90bb3c");
    let server = ScriptedServer::plays([Exchange::new(400, "text/html", page)]);
    let config = json!({"allow": ["127.0.0.1"], "headers": {"Authorization": "Bearer ${SERVICE_TOKEN}"}});
    let runtime = Runtime::new().tools(tools(config)).env("SERVICE_TOKEN", "marker-90bb3c");
    let ended = calling(runtime, &[json!({"url": server.url()})]);
    ended.tool_result_lacks(1, "marker-90").never_says("marker-90bb3c");
}

#[test]
fn a_header_is_not_in_the_most_talkative_log() {
    let server = ScriptedServer::plays([text("x")]);
    let config = json!({"allow": ["127.0.0.1"], "headers": {"X-Api-Key": "${SERVICE_KEY}"}});
    let runtime = Runtime::new().tools(tools(config)).env("SERVICE_KEY", "marker-5c11e0").env("RUST_LOG", "trace");
    calling(runtime, &[json!({"url": server.url()})]).never_says("marker-5c11e0");
}

#[test]
fn a_header_that_cannot_be_sent_is_not_quoted() {
    let config = json!({"allow": ["127.0.0.1"], "headers": {"Authorization": "${SERVICE_TOKEN}"}});
    let ended = Runtime::new().tools(tools(config)).env("SERVICE_TOKEN", "marker\n90bb3c").plays([]).run();
    ended.exits(1).reason("config_invalid").never_says("marker").never_says("90bb3c");
    let ended = calling(local(), &[json!({"url": "http://127.0.0.1:9/", "headers": {"X-A": "b\nc: d"}})]);
    ended.tool_result_has(1, "cannot be asked");
}

#[test]
fn headers_that_steer_the_connection_are_refused() {
    for name in ["Host", "Content-Length", "Transfer-Encoding", "connection", "Proxy-Authorization"] {
        let ended = calling(local(), &[json!({"url": "http://127.0.0.1:9/", "headers": {name: "x"}})]);
        ended.tool_result_has(1, "refused").tool_result_has(1, name);
    }
}

// Peers that misbehave.

#[test]
fn a_large_body_is_cut_with_a_note() {
    let server = ScriptedServer::plays([Exchange::huge(&[b'x'; 100_000], 1_000)]);
    let config = json!({"allow": ["127.0.0.1"], "output_bytes_max": 4000});
    // It hangs up on the server in the middle of the body.
    let ended = calling(Runtime::new().tools(tools(config)), &[json!({"url": server.url()})]);
    ended.check(ended.tool_result(1).len() <= 4000, "it is too long").tool_result_has(1, "the body is longer");
    ended.check(ended.duration < SOON, "it read on");
}

#[test]
fn a_binary_body_is_described() {
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let server = ScriptedServer::plays([Exchange::new(200, "image/png", bytes)]);
    let ended = calling(local(), &[json!({"url": server.url()})]);
    ended.tool_result_has(1, "binary").tool_result_has(1, "5000 bytes").tool_result_has(1, "image/png");
}

#[test]
fn a_peer_that_sends_nothing_half_or_garbage_does_not_hold_the_run() {
    for exchange in [
        text("abcdef").stalls(Point::Start),
        text("abcdef").stalls(Point::InHeaders),
        text("abcdef").stalls(Point::InBody),
        text("abcdef").hangs_up(Point::Start),
        text("abcdef").hangs_up(Point::InBody),
        Exchange::raw("garbage\r\n\r\n"),
        Exchange::raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    ] {
        let server = ScriptedServer::plays([exchange]);
        let runtime = Runtime::new().tools(tools(json!({"allow": ["127.0.0.1"], "timeout_seconds": 1})));
        let ended = calling(runtime, &[json!({"url": server.url()})]);
        ended.tool_result_has(1, "failed").check(ended.duration < SOON, "it took too long");
    }
}

#[test]
fn a_peer_that_sends_byte_by_byte_is_ended_at_the_limit() {
    let body = "x".repeat(3_000_000);
    let server = ScriptedServer::plays([text(&body).one_by_one()]);
    let runtime =
        Runtime::new().tools(tools(json!({"allow": ["127.0.0.1"], "timeout_seconds": 1, "output_bytes_max": 4000000})));
    let ended = calling(runtime, &[json!({"url": server.url()})]);
    ended.check(ended.duration < SOON, "it took too long");
}

#[test]
fn a_host_that_nobody_serves_is_told() {
    calling(local(), &[json!({"url": "http://127.0.0.1:9/"})]).tool_result_has(1, "cannot be reached");
}
