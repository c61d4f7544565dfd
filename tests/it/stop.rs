//! Stopping: SIGTERM and SIGINT end the run from anywhere, at once, with message and code, and leave no process behind.

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Running, Runtime, Stream, wait_until};
use crate::server::{Exchange, Point};

/// The promise is 100 ms; machines that run several tests at once are slower, and everything that this must be told from
/// (the grace period, a back-off, a tool's limit) is much longer.
const SOON: Duration = Duration::from_secs(3);

/// Sends SIGTERM and holds the run to everything that is true of a stop.
#[track_caller]
fn stops(running: Running) -> Ended {
    stops_by(running, "TERM", 143)
}

#[track_caller]
fn stops_by(running: Running, signal: &str, code: i32) -> Ended {
    let sent = Instant::now();
    running.signal(signal);
    let ended = running.wait();
    let took = sent.elapsed();
    ended.check(took < SOON, &format!("it took {took:?} to stop")).exits(code);
    ended.status("interrupted").reason("terminated");
    ended.check(ended.outcome() == ended.termination_message(), "stdout and termination message differ");
    ended
}

fn shell(command: &str) -> Exchange {
    chat::tool_call("shell", json!({"command": command}))
}

/// A run whose model calls the shell once.
fn running(command: &str) -> Runtime {
    Runtime::new().tools_named(&["shell"]).plays([shell(command)])
}

// Places.

#[test]
fn stops_while_waiting_for_an_answer() {
    for point in [Point::Start, Point::InHeaders, Point::InBody] {
        let running = Runtime::new().plays([chat::achieved(0).stalls(point)]).spawn();
        running.wait_for_requests(1);
        let ended = stops(running);
        ended.check(ended.outcome()["result"].as_str().is_some_and(|text| text.contains("model")), "what was running");
    }
}

#[test]
fn stops_in_the_middle_of_a_body_in_chunks() {
    let running = Runtime::new().plays([chat::achieved(0).chunked(7).stalls(Point::InBody)]).spawn();
    running.wait_for_requests(1);
    stops(running);
}

#[test]
fn stops_in_a_tls_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}/v1", listener.local_addr().unwrap());
    let config = json!({"provider": "openai-compatible", "name": "m", "endpoint": endpoint, "api_key": "abcdef"});
    let running = Runtime::new().env("THOUGHTMESH_MODEL_CONFIG", &config.to_string()).spawn();
    let (mut connection, _) = listener.accept().unwrap();
    // The first bytes of the handshake are there, and nobody answers.
    connection.read_exact(&mut [0; 16]).unwrap();
    stops(running);
}

#[test]
fn stops_in_a_back_off() {
    let fault = chat::error(429, "requests", Value::Null, Value::Null, "slow down").header("retry-after", "500");
    let running = Runtime::new().plays([fault]).spawn();
    running.wait_for_log("again in 500");
    stops(running);
}

#[test]
fn stops_while_a_tool_runs() {
    let running = running("echo yes > begun; sleep 600").spawn();
    running.wait_for_file("begun");
    let ended = stops(running);
    ended.counts("toolCalls", 1).counts("turns", 1).counts("llmCallsUsed", 1);
    ended.check(ended.outcome()["result"].as_str().is_some_and(|text| text.contains("shell")), "what was running");
}

#[test]
fn stops_while_a_check_runs() {
    let check = json!({"command": ["sh", "-c", "echo yes > begun; sleep 600"]});
    let running =
        Runtime::new().key_results(json!([{"description": "A", "check": check}])).plays([chat::achieved(1)]).spawn();
    running.wait_for_file("begun");
    let ended = stops(running);
    ended.check(ended.outcome()["keyResults"][0]["keyResult"] == 1, "the key results");
}

#[test]
fn stops_while_it_starts() {
    let runtime =
        Runtime::new().env("THOUGHTMESH_MODEL_CONFIG", &json!({"provider": "replay", "name": "pipe"}).to_string());
    // Opening a FIFO to read waits for a writer.
    assert!(Command::new("mkfifo").arg(runtime.workspace().join("pipe")).status().unwrap().success());
    let running = runtime.spawn();
    let id = running.id();
    wait_until("it waits for the pipe", || {
        std::fs::read_to_string(format!("/proc/{id}/wchan")).is_ok_and(|place| place.contains("fifo"))
            || std::fs::read_to_string(format!("/proc/{id}/syscall"))
                .is_ok_and(|call| call.starts_with("257 ") || call.starts_with("56 "))
    });
    let ended = stops(running);
    ended.check(ended.outcome()["result"].as_str().is_some_and(|text| text.contains("starting")), "what was running");
}

/// Whenever the signal comes: before `main` the kernel's own action ends the process; after it, ours.
#[test]
fn a_signal_at_any_moment_of_a_run_is_a_stop() {
    for microseconds in (0..40).map(|step| step * 400) {
        let running = Runtime::new()
            .journal()
            .tools_named(&["shell", "filesystem"])
            .plays(
                [
                    shell("true"),
                    chat::tool_call("write_file", json!({"path": "a.txt", "content": "a"})),
                    chat::achieved(0).stalls(Point::InBody),
                ]
                .map(Exchange::for_ever),
            )
            .spawn();
        std::thread::sleep(Duration::from_micros(microseconds));
        running.signal("TERM");
        let ended = running.wait();
        use std::os::unix::process::ExitStatusExt;
        if ended.status.signal() == Some(15) {
            ended.check(ended.stdout.is_empty(), "ended by the kernel with something on stdout");
        } else {
            ended.exits(143).check(ended.outcome()["status"] == "interrupted", "the status");
        }
    }
}

// Nothing stays behind.

/// Whether the process is there and is more than an entry that its parent has not read.
pub fn is_alive(id: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).is_some_and(|state| !"ZX".contains(state))
}

const STUBBORN: &str = "trap '' TERM INT HUP
    sh -c 'trap \"\" TERM; echo $$ > grandchild; while :; do sleep 1; done' &
    setsid sh -c 'trap \"\" TERM; echo $$ > daemon; while :; do sleep 1; done' &
    echo $$ > child
    while :; do sleep 1; done";

#[test]
fn children_that_ignore_signals_are_gone_with_their_children() {
    for signal in [("TERM", 143), ("INT", 130)] {
        let running = running(STUBBORN).spawn();
        ["child", "grandchild", "daemon"].iter().for_each(|file| running.wait_for_file(file));
        let ended = stops_by(running, signal.0, signal.1);
        for file in ["child", "grandchild", "daemon"] {
            let id = ended.file(file).unwrap();
            wait_until(&format!("the {file} is gone"), || !is_alive(&id));
        }
    }
}

#[test]
fn a_signal_to_the_whole_group_is_a_stop_too() {
    let running = running(STUBBORN).spawn();
    running.wait_for_file("daemon");
    running.signal_group("TERM");
    running.wait().exits(143).status("interrupted");
}

#[test]
fn stops_as_process_1() {
    for signal in [("TERM", 143), ("INT", 130)] {
        let Some(runtime) = running(STUBBORN).into_process_1() else {
            eprintln!("no namespaces here: not tried");
            return;
        };
        let running = runtime.spawn();
        running.wait_for_file("daemon");
        stops_by(running, signal.0, signal.1);
    }
}

#[test]
fn stops_as_process_1_while_waiting_for_an_answer() {
    let Some(runtime) = Runtime::new().plays([chat::achieved(0).stalls(Point::Start)]).into_process_1() else { return };
    let running = runtime.spawn();
    running.wait_for_requests(1);
    stops(running);
}

// The message.

#[test]
fn the_message_has_the_numbers_so_far() {
    let running = Runtime::new()
        .key_results(json!(["A", "B"]))
        .tools_named(&["list_directory"])
        .plays([chat::tool_call("list_directory", json!({})), chat::achieved(0).stalls(Point::Start)])
        .spawn();
    running.wait_for_requests(2);
    std::thread::sleep(Duration::from_millis(250));
    let ended = stops(running);
    ended.counts("turns", 1).counts("llmCallsUsed", 2).counts("toolCalls", 1);
    let outcome = ended.outcome();
    ended.check(outcome["usage"]["inputTokens"] == chat::INPUT_TOKENS, "the usage");
    ended.check(outcome["keyResults"].as_array().is_some_and(|list| list.len() == 2), "the key results");
    ended.check(outcome["resumed"] == false, "resumed");
    let seconds = outcome["durationSeconds"].as_f64().unwrap_or(-1.0);
    ended.check((0.2..=ended.duration.as_secs_f64()).contains(&seconds), "the duration");
}

#[test]
fn three_hundred_key_results_make_a_valid_message() {
    let descriptions: Vec<String> = (1..=300).map(|number| format!("Door {number} is shut")).collect();
    let running = Runtime::new().key_results(json!(descriptions)).plays([chat::text("x").stalls(Point::Start)]).spawn();
    running.wait_for_requests(1);
    let ended = stops(running);
    ended.check(ended.outcome()["keyResultsLeftOut"].as_u64().is_some_and(|count| count > 0), "nothing is left out");
}

#[test]
fn the_code_is_the_same_with_detailed_exit_codes() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let runtime = Runtime::new().env("THOUGHTMESH_EXIT_CODES", "detailed");
        let running = runtime.plays([chat::text("x").stalls(Point::Start)]).spawn();
        running.wait_for_requests(1);
        stops_by(running, signal, code);
    }
}

#[test]
fn an_older_termination_message_is_gone() {
    let runtime = Runtime::new().file_outside("termination-log", "x".repeat(10_000));
    let running = runtime.plays([chat::text("x").stalls(Point::Start)]).spawn();
    running.wait_for_requests(1);
    stops(running);
}

// Outputs that nobody takes.

#[test]
fn a_stdout_that_nobody_reads_does_not_hold_a_stop() {
    for stream in [Stream::NobodyReads, Stream::ReaderGone, Stream::Closed] {
        let running = Runtime::new().plays([chat::text("x").stalls(Point::Start)]).stdout(stream).spawn();
        running.wait_for_requests(1);
        let sent = Instant::now();
        running.signal("TERM");
        let ended = running.wait();
        ended.check(sent.elapsed() < SOON, "it waited").exits(143).reason("terminated");
    }
}

#[test]
fn a_stderr_that_nobody_reads_does_not_hold_a_stop() {
    let running = Runtime::new().plays([chat::text("x").stalls(Point::Start)]).stderr(Stream::NobodyReads).spawn();
    running.wait_for_requests(1);
    stops(running);
}

#[test]
fn a_termination_log_that_waits_for_a_reader_does_not_hold_a_stop() {
    let runtime = Runtime::new().plays([chat::text("x").stalls(Point::Start)]);
    let path = runtime.path_outside("pipe");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let running = runtime.env("THOUGHTMESH_TERMINATION_LOG", path.to_str().unwrap()).spawn();
    running.wait_for_requests(1);
    let sent = Instant::now();
    running.signal("TERM");
    let ended = running.wait();
    ended.check(sent.elapsed() < SOON, "it waited").exits(143);
    ended.check(ended.outcome()["status"] == "interrupted", "stdout");
}

// Other signals, and more of them.

#[test]
fn a_second_signal_changes_nothing() {
    for _ in 0..10 {
        let running = running(STUBBORN).stdout(Stream::NobodyReads).spawn();
        running.wait_for_file("daemon");
        running.signal("TERM");
        running.wait_for_termination_message();
        let script = format!("for s in TERM INT TERM INT HUP USR1 ALRM; do kill -$s {}; done", running.id());
        let _ = Command::new("/bin/sh").arg("-c").arg(script).output();
        running.wait().exits(143).reason("terminated");
    }
}

#[test]
fn signals_that_mean_nothing_do_not_end_the_run() {
    let fault = chat::error(429, "requests", Value::Null, Value::Null, "slow").header("retry-after-ms", "400");
    let running = Runtime::new()
        .tools_named(&["shell"])
        .plays([fault, shell("echo yes > begun; while ! test -e end; do sleep 0.01; done"), chat::achieved(0)])
        .spawn();
    let send_all =
        || ["PIPE", "HUP", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO"].iter().for_each(|s| running.signal(s));
    running.wait_for_log("again in");
    send_all();
    running.wait_for_file("begun");
    send_all();
    std::fs::write(format!("/proc/{}/cwd/end", running.id()), "x").unwrap();
    running.wait().exits(0).reason("finished");
}

#[test]
fn what_a_tool_starts_has_the_default_signals() {
    let ended = Runtime::new()
        .tools_named(&["shell"])
        .plays([shell("grep -hE 'Sig(Ign|Blk)' /proc/self/status"), chat::achieved(0)])
        .run();
    let result = ended.request(2).tool_results().concat();
    let masks = result.lines().filter_map(|line| u64::from_str_radix(line.split_once(":\t")?.1, 16).ok());
    // One bit for each signal, from signal 1 at the right. Those from 32 on are the C library's own.
    let masks: Vec<u64> = masks.map(|mask| mask & 0x7fff_ffff).collect();
    ended.exits(0).check(masks == [0, 0], &format!("{masks:x?} are blocked and ignored"));
}
