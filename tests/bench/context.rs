//! What shortening a conversation saves: `just bench`. It measures, and judges nothing.
//!
//! It runs the built executable over 500 turns, against a server that counts four bytes a token, with windows of several
//! sizes, and prints what was sent and how much of each request's beginning was that of the one before: providers' prompt
//! caches serve that part. What may surprise: the harness is that of the tests, so each request is also held to its format.
#![allow(clippy::unwrap_used, dead_code, unused_imports)]

#[path = "../it/chat.rs"]
mod chat;
#[path = "../it/runtime.rs"]
mod runtime;
#[path = "../it/server.rs"]
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use self::runtime::{Ended, Runtime};
use self::server::{Exchange, Request, ScriptedServer};

const TURNS: usize = 500;
const BYTES_PER_TOKEN: usize = 4;
const RESULT_LINES: usize = 25;

fn main() {
    println!("{TURNS} turns, each with a result of some 2 KiB; tokens are a quarter of the bytes");
    println!("{:>10} {:>9} {:>14} {:>12} {:>11}", "window", "requests", "tokens sent", "identical", "summaries");
    for window in [usize::MAX, 128_000, 32_000, 8_000] {
        let ended = run(window);
        let (requests, identical) = (&ended.requests, identical_bytes(&ended));
        let sent: usize = requests.iter().map(|request| request.body.len()).sum();
        let summaries = requests.iter().filter(|request| request.tool_names().is_empty()).count();
        let name = if window == usize::MAX { "unlimited".to_owned() } else { window.to_string() };
        let share = 100.0 * identical as f64 / sent as f64;
        println!("{name:>10} {:>9} {:>14} {share:>10.1} % {summaries:>11}", requests.len(), sent / BYTES_PER_TOKEN);
    }
}

fn run(window: usize) -> Ended {
    let turn = AtomicUsize::new(0);
    let server = ScriptedServer::answers(move |request| answer(request, window, &turn));
    let text: String = (0..TURNS + RESULT_LINES).map(|line| format!("line {line}: {}\n", "word ".repeat(15))).collect();
    let runtime = Runtime::new()
        .tools_named(&["read_file"])
        .limits(json!({"max_turns": 2 * TURNS}))
        .file("text", text)
        .timeout(Duration::from_secs(600))
        .model(&server);
    let runtime = if window == usize::MAX { runtime } else { runtime.model_with(json!({"context_window": window})) };
    let ended = runtime.run();
    ended.exits(0);
    ended
}

fn answer(request: &Request, window: usize, turn: &AtomicUsize) -> Exchange {
    let tokens = request.body.len() / BYTES_PER_TOKEN;
    if tokens > window {
        let message = format!("This model's maximum context length is {window} tokens.");
        return chat::error(400, "invalid_request_error", json!("context_length_exceeded"), Value::Null, &message);
    }
    let message = if request.tool_names().is_empty() {
        json!({"role": "assistant", "content": "Notes. ".repeat(60)})
    } else {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let (name, arguments) = match turn < TURNS {
            true => ("read_file", json!({"path": "text", "offset": 1 + turn, "limit": RESULT_LINES})),
            false => ("finish", chat::achieved_arguments(0)),
        };
        let call = chat::call(&format!("call_{turn}"), name, json!(arguments.to_string()));
        json!({"role": "assistant", "content": null, "tool_calls": [call]})
    };
    let usage = json!({"prompt_tokens": tokens, "completion_tokens": 30, "total_tokens": tokens + 30});
    chat::completion(json!([{"index": 0, "finish_reason": "stop", "message": message}]), usage)
}

/// Bytes at the beginning of requests that were those of the request before.
fn identical_bytes(ended: &Ended) -> usize {
    let pairs = ended.requests.iter().zip(ended.requests.iter().skip(1));
    pairs.map(|(one, next)| one.body.iter().zip(&next.body).take_while(|(a, b)| a == b).count()).sum()
}
