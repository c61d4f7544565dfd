//! What MCP servers cost at the start: part of `just bench`. It measures, and judges nothing.
//!
//! It runs the built executable with five servers of ten tools each, as children and over HTTP, and prints the time from its
//! start to the first request to the model, and its peak memory at that point, which the kernel tells. What may surprise: the
//! servers are this program again, with an argument, or threads of it, so that the numbers are the runtime's and not theirs.
#![allow(clippy::unwrap_used, dead_code, unused_imports)]

#[path = "../it/chat.rs"]
mod chat;
#[path = "../it/server.rs"]
mod server;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::server::{Exchange, Request, ScriptedServer};

const SERVERS: usize = 5;
const TOOLS: usize = 10;
const RUNS: usize = 21;
const STDIO: &str = "--stdio-server";

fn main() {
    if std::env::args().any(|argument| argument == STDIO) {
        return stdio_server();
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-mcp-{}", std::process::id()));
    std::fs::create_dir_all(&place).unwrap();
    let program = std::env::current_exe().unwrap();
    let child = |number| json!({"name": format!("s{number}"), "type": "mcp", "config": {"command": [program, STDIO]}});
    let numbers = 0..SERVERS;
    measure("no MCP server", &place, 0, &json!([]));
    measure("5 stdio servers", &place, SERVERS, &numbers.clone().map(child).collect());
    for (name, is_stateless) in [("5 HTTP servers, 2025-11-25", false), ("5 HTTP servers, 2026-07-28", true)] {
        let servers: Vec<ScriptedServer> =
            numbers.clone().map(|_| ScriptedServer::answers(move |request| over_http(request, is_stateless))).collect();
        let entry = |(number, server): (usize, &ScriptedServer)| json!({"name": format!("s{number}"), "type": "mcp", "url": format!("{}/mcp", server.url())});
        measure(name, &place, SERVERS, &servers.iter().enumerate().map(entry).collect());
    }
    let _ = std::fs::remove_dir_all(&place);
}

fn measure(name: &str, place: &Path, servers: usize, tools: &Value) {
    let mut runs: Vec<(Duration, u64)> = (0..RUNS).map(|_| run(place, servers, tools)).collect();
    runs.sort();
    let peak = runs.iter().map(|(_, peak)| *peak).max().unwrap_or_default();
    let milliseconds = |run: Option<&(Duration, u64)>| run.map_or(0.0, |(time, _)| time.as_secs_f64() * 1e3);
    println!(
        "{name:<27} start to first model request {:>6.1} ms (median of {RUNS}, {:.1} to {:.1}), peak memory {:.1} MiB",
        milliseconds(runs.get(RUNS / 2)),
        milliseconds(runs.first()),
        milliseconds(runs.last()),
        peak as f64 / 1024.0
    );
}

/// Time to the first request to the model, and peak memory at that point in kilobytes.
fn run(place: &Path, servers: usize, tools: &Value) -> (Duration, u64) {
    let (tell_pid, pid) = channel();
    let (tell, told) = channel();
    let pid = std::sync::Mutex::new(pid);
    let model = ScriptedServer::answers(move |request| {
        let now = Instant::now();
        let names = request.tool_names();
        tell.send((now, peak_memory(&pid.lock().unwrap()), names.len())).unwrap();
        chat::achieved(0)
    });
    let config = json!({
        "provider": "openai-compatible", "name": "m", "api_key": "sk-bench-0f3a", "stream": false,
        "endpoint": format!("{}/v1", model.url()),
    });
    let started = Instant::now();
    let child = Command::new(env!("CARGO_BIN_EXE_thoughtmesh-runtime"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("THOUGHTMESH_OBJECTIVE", "measure")
        .env("THOUGHTMESH_MODEL_CONFIG", config.to_string())
        .env("THOUGHTMESH_TOOLS", tools.to_string())
        .env("THOUGHTMESH_WORKSPACE", place)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tell_pid.send(child.id()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (at, peak, tools) = told.recv().unwrap();
    assert_eq!(tools, servers * TOOLS + 1, "not all tools were offered");
    (at - started, peak)
}

/// Of the process whose id comes through the channel: it may ask its model before its parent knows its id.
fn peak_memory(pid: &Receiver<u32>) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.recv().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn stdio_server() {
    for line in std::io::stdin().lines() {
        let Some(answer) = answer(&serde_json::from_str(&line.unwrap()).unwrap(), false) else { continue };
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}

fn over_http(request: &Request, is_stateless: bool) -> Exchange {
    if request.method != "POST" {
        return Exchange::json(405, &json!({}));
    }
    match answer(&request.json(), is_stateless) {
        Some(answer) if is_stateless && answer.get("error").is_some() => Exchange::json(404, &answer),
        Some(answer) => Exchange::json(200, &answer),
        None => Exchange::new(202, "application/json", ""),
    }
}

/// What the server answers to a message; nothing to a notification.
fn answer(message: &Value, is_stateless: bool) -> Option<Value> {
    let id = message.get("id")?;
    let capabilities = json!({"tools": {}});
    let result = match (message["method"].as_str().unwrap(), is_stateless) {
        ("initialize", false) => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": capabilities,
            "serverInfo": {"name": "bench", "version": "1"},
        }),
        ("server/discover", true) => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "supportedVersions": ["2026-07-28"],
            "capabilities": capabilities,
        }),
        ("tools/list", false) => json!({"tools": tools()}),
        ("tools/list", true) => {
            json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": tools()})
        }
        (method, _) => {
            let error = json!({"code": -32601, "message": format!("no method {method}")});
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn tools() -> Vec<Value> {
    let schema = json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "Which one of them, as it is named in the list."},
            "limit": {"type": "integer", "minimum": 1, "description": "How many at most."},
        },
        "required": ["path"],
    });
    let tool = |number| json!({"name": format!("tool_{number}"), "description": "Looks at one of them.", "inputSchema": schema});
    (0..TOOLS).map(tool).collect()
}
