//! The journal: what a run leaves behind, how the next process goes on from it, and when it refuses to.

use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};

use crate::chat;
use crate::runtime::{Ended, Running, Runtime};
use crate::server::{Exchange, Point};

fn shell(command: &str) -> Exchange {
    chat::tool_call("shell", json!({"command": command}))
}

fn list() -> Exchange {
    chat::tool_call("list_directory", json!({}))
}

/// A run with a journal that calls tools.
fn journaled() -> Runtime {
    Runtime::new().journal().tools_named(&["shell", "filesystem"])
}

/// Kills the process as the kernel does when memory is short.
#[track_caller]
fn killed(running: Running) -> Ended {
    running.signal("KILL");
    let ended = running.wait();
    ended.check(ended.status.signal() == Some(9), "it was not killed");
    ended
}

/// A run of one turn that is killed while the second one is asked for.
fn killed_in_the_second_call(first: Exchange) -> Ended {
    let running = journaled().plays([first, chat::achieved(0).stalls(Point::Start)]).spawn();
    running.wait_for_requests(2);
    killed(running)
}

// Going on.

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let first = killed_in_the_second_call(shell("echo x >> effects"));
    let asked = first.request(2).body.clone();
    let ended = first.again().goes_on([chat::achieved(0)]).run();
    ended.exits(0).reason("finished").file_is("effects", "x\n");
    ended.check(ended.requests.len() == 1, "a turn was asked for twice");
    ended.check(ended.request(1).body == asked, "the request differs from the one that was under way");
}

#[test]
fn a_stopped_run_goes_on_where_it_was() {
    let running = journaled().plays([list(), chat::achieved(0).stalls(Point::InBody)]).spawn();
    running.wait_for_requests(2);
    running.signal("TERM");
    let first = running.wait();
    first.exits(143).check(first.outcome()["resumed"] == false, "resumed");
    let ended = first.again().goes_on([chat::achieved(0)]).run();
    ended.exits(0).check(ended.outcome()["resumed"] == true, "not resumed");
}

#[test]
fn the_numbers_are_those_of_all_processes_together() {
    let first = killed_in_the_second_call(list());
    let ended = first.again().goes_on([list(), chat::achieved(0)]).run();
    // The question that was under way was asked, and is asked again.
    ended.exits(0).counts("turns", 3).counts("llmCallsUsed", 4).counts("toolCalls", 2);
    let outcome = ended.outcome();
    ended.check(outcome["usage"]["inputTokens"] == 3 * chat::INPUT_TOKENS, "the usage");
    ended.check(outcome["resumed"] == true, "not resumed");
}

#[test]
fn seconds_add_up() {
    let running = journaled().plays([shell("sleep 1.2"), chat::achieved(0).stalls(Point::Start)]).spawn();
    running.wait_for_requests(2);
    let ended = killed(running).again().goes_on([chat::achieved(0)]).run();
    ended.check(ended.outcome()["durationSeconds"].as_f64().is_some_and(|seconds| seconds >= 1.2), "the duration");
}

#[test]
fn a_run_that_goes_on_can_be_killed_again() {
    let mut ended = killed_in_the_second_call(shell("echo x >> effects"));
    for number in 2..5 {
        let command = format!("echo {number} >> effects");
        let running = ended.again().goes_on([shell(&command), list().stalls(Point::InBody)]).spawn();
        running.wait_for_requests(2 * number);
        ended = killed(running);
    }
    let ended = ended.again().goes_on([chat::achieved(0)]).run();
    ended.exits(0).file_is("effects", "x\n2\n3\n4\n").counts("turns", 5).counts("toolCalls", 4);
}

#[test]
fn a_call_that_was_under_way_is_not_repeated_and_the_model_is_told() {
    let running = journaled().plays([shell("echo x >> effects; sleep 600")]).spawn();
    running.wait_for_file("effects");
    let first = killed(running);
    let ended = first.again().goes_on([chat::achieved(0), list(), chat::achieved(0)]).run();
    ended.file_is("effects", "x\n");
    ended.check(ended.request(1).tool_results().concat().contains("outcome unknown"), "the model is not told");
    ended.log_has("not repeated").counts("toolCalls", 2);
}

#[test]
fn the_calls_behind_it_are_run() {
    let turn = chat::tool_calls(&[
        ("a", "shell", json!({"command": "echo a >> effects"})),
        ("b", "shell", json!({"command": "echo b >> effects; test -e go || sleep 600"})),
        ("c", "shell", json!({"command": "echo c >> effects"})),
    ]);
    let running = journaled().plays([turn]).spawn();
    crate::runtime::wait_until("the second call runs", || {
        running.file("effects").is_some_and(|text| text.contains('b'))
    });
    let ended = killed(running).again().goes_on([list(), chat::achieved(0)]).run();
    ended.exits(0).file_is("effects", "a\nb\nc\n");
    let results = ended.request(1).tool_results();
    ended.check(results.len() == 3 && results[1].contains("outcome unknown"), "the results");
}

#[test]
fn a_read_that_was_under_way_is_run_again() {
    let runtime = journaled().plays([chat::tool_call("search_text", json!({"pattern": "needle"}))]);
    // Enough to search in that it takes a while.
    let runtime = (0..1500).fold(runtime, |runtime, number| {
        runtime.file(&format!("d{}/f{number}", number % 30), "hay and straw\n".repeat(2000) + "needle\n")
    });
    let running = runtime.spawn();
    running.wait_for_journal("tool_call_start");
    let ended = killed(running).again().goes_on([chat::achieved(0)]).run();
    ended.exits(0).counts("toolCalls", 1);
    ended.check(ended.request(1).tool_results().concat().contains("needle"), "it was not run again");
}

#[test]
fn budgets_carry_over() {
    for limits in [json!({"max_turns": 2}), json!({"max_total_tokens": 150})] {
        let runtime = journaled().limits(limits).plays([list(), list().stalls(Point::Start)]);
        let running = runtime.spawn();
        running.wait_for_requests(2);
        let ended = killed(running).again().goes_on([list()]).run();
        ended.exits(1).reason("budget_exhausted").counts("turns", 2);
    }
}

#[test]
fn rejections_carry_over() {
    let claim = || chat::finish(json!({"status": "achieved", "summary": "s", "key_results": []}));
    let runtime = journaled().key_results(json!(["A"])).limits(json!({"max_finish_rejections": 2}));
    let running = runtime.plays([claim(), claim().stalls(Point::Start)]).spawn();
    running.wait_for_requests(2);
    let ended = killed(running).again().goes_on([claim()]).run();
    ended.exits(1).reason("key_results_unmet").counts("turns", 2);
}

#[test]
fn turns_that_brought_nothing_new_carry_over() {
    let runtime = journaled().limits(json!({"max_stalled_turns": 4}));
    let running = runtime.plays([list(), list(), list(), list().stalls(Point::Start)]).spawn();
    running.wait_for_requests(4);
    let ended = killed(running).again().goes_on([list(), list()]).run();
    ended.exits(1).reason("stalled").counts("turns", 5);
}

#[test]
fn turns_without_calls_carry_over() {
    let running = journaled().plays([chat::text("1"), chat::text("2"), list().stalls(Point::Start)]).spawn();
    running.wait_for_requests(3);
    let ended = killed(running).again().goes_on([chat::text("3")]).run();
    ended.exits(1).reason("no_verdict").counts("turns", 3);
}

#[test]
fn a_model_that_was_unavailable_is_asked_again() {
    let fault = || chat::error(404, "x", Value::Null, Value::Null, "no");
    let first = journaled().plays([list(), fault()]).run();
    first.exits(1).reason("model_unavailable");
    first.again().goes_on([chat::achieved(0)]).run().exits(0).counts("turns", 2);
}

#[test]
fn a_replay_goes_on_behind_the_turns_that_were_played() {
    let call = |id: &str, name: &str, arguments: Value| {
        json!({"record": "turn", "parts": [{"type": "tool_call", "id": id, "name": name, "arguments": arguments}]})
            .to_string()
    };
    let lines = [
        call("1", "shell", json!({"command": "echo x >> effects"})),
        call("2", "shell", json!({"command": "test -e go || { touch ready; echo y > begun; sleep 600; }"})),
        call("3", "list_directory", json!({})),
        call("4", "finish", chat::achieved_arguments(0)),
    ];
    let running = journaled()
        .file("run.jsonl", lines.join("\n") + "\n")
        .env("THOUGHTMESH_MODEL_CONFIG", &json!({"provider": "replay", "name": "run.jsonl"}).to_string())
        .spawn();
    running.wait_for_file("begun");
    let ended = killed(running).again().run();
    ended.exits(0).counts("turns", 4).file_is("effects", "x\n");
}

#[test]
fn a_journal_can_be_replayed() {
    let first = journaled().plays([shell("echo x >> effects"), chat::achieved(0)]).run();
    let bytes = first.exits(0).journal();
    let ended = Runtime::new()
        .tools_named(&["shell"])
        .file("run.jsonl", bytes)
        .env("THOUGHTMESH_MODEL_CONFIG", &json!({"provider": "replay", "name": "run.jsonl"}).to_string())
        .run();
    ended.exits(0).counts("turns", 2).file_is("effects", "x\n");
}

// A run that has ended.

#[test]
fn a_run_that_has_ended_is_not_run_again() {
    for (exchange, code) in
        [(chat::achieved(1), 0), (chat::finish(json!({"status": "failed", "summary": "No.", "key_results": []})), 1)]
    {
        let first = journaled().key_results(json!(["A"])).plays([list(), exchange]).run();
        first.exits(code);
        let (outcome, journal) = (first.outcome(), first.journal());
        let ended = first.again().run();
        ended.exits(code).check(ended.outcome() == outcome, "another outcome");
        ended
            .check(ended.requests.is_empty(), "the model was asked")
            .check(ended.journal() == journal, "it was written to");
    }
}

#[test]
fn its_code_is_that_of_its_reason() {
    let runtime = journaled().env("THOUGHTMESH_EXIT_CODES", "detailed").limits(json!({"max_turns": 1}));
    let first = runtime.plays([list()]).run();
    first.exits(75);
    first.again().run().exits(75).reason("budget_exhausted");
}

// The configuration.

#[test]
fn a_journal_of_another_configuration_is_refused_with_what_changed() {
    for (what, name, value) in [
        ("objective", "THOUGHTMESH_OBJECTIVE", json!("marker-51b0e2")),
        ("key results", "THOUGHTMESH_KEY_RESULTS", json!(["marker-51b0e2"])),
        ("tools", "THOUGHTMESH_TOOLS", json!([{"name": "shell", "config": {"timeout_seconds": 7}}])),
        ("limits", "THOUGHTMESH_LIMITS", json!({"max_turns": 7})),
        (
            "model",
            "THOUGHTMESH_MODEL_CONFIG",
            json!({
                "provider": "openai-compatible", "name": "marker-51b0e2", "endpoint": "http://127.0.0.1:1", "api_key": "abcdefg"
            }),
        ),
    ] {
        let first = journaled().plays([chat::achieved(0)]).run();
        let journal = first.exits(0).journal();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let ended = first.again().env(name, &value).run();
        ended.complains_about(&["THOUGHTMESH_JOURNAL", &format!("what differs: {what};")]).never_says("marker-51b0e2");
        ended.check(ended.journal() == journal, "the file was changed");
    }
}

#[test]
fn a_new_key_and_another_log_go_on_with_the_run() {
    let first = killed_in_the_second_call(list());
    let runtime = first.again().model_with(json!({"api_key": "sk-another-key-0815", "timeout_seconds": 77}));
    let runtime = runtime.env("THOUGHTMESH_LOG_FORMAT", "json").env("RUST_LOG", "debug").goes_on([chat::achieved(0)]);
    runtime.env("THOUGHTMESH_EXIT_CODES", "detailed").run().exits(0).counts("turns", 2);
}

#[test]
fn white_space_and_the_order_of_fields_do_not_matter() {
    let limits = ["{\"max_turns\": 50, \"max_llm_calls\": 60}", "{ \"max_llm_calls\":60,\n\"max_turns\":50 }"];
    let running = journaled().env("THOUGHTMESH_LIMITS", limits[0]).plays([list().stalls(Point::Start)]).spawn();
    running.wait_for_requests(1);
    killed(running).again().env("THOUGHTMESH_LIMITS", limits[1]).goes_on([chat::achieved(0)]).run().exits(0);
}

// The file.

#[test]
fn a_journal_that_can_not_be_written_is_a_configuration_error() {
    for path in ["/no/such/place/journal", "/", "/dev/full", "/dev/null", "/proc/self/status", "."] {
        let ended = Runtime::new().env("THOUGHTMESH_JOURNAL", path).plays([]).run();
        ended.complains_about(&["THOUGHTMESH_JOURNAL", path]);
    }
}

#[test]
fn a_disk_that_is_full_from_the_start_is_a_configuration_error() {
    let ended = journaled().after("ulimit -f 0").env("THOUGHTMESH_TERMINATION_LOG", "/dev/null").plays([]).run();
    ended.exits(1).check(ended.outcome()["reason"] == "config_invalid", "the reason").log_has("THOUGHTMESH_JOURNAL");
    ended.check(ended.requests.is_empty() && ended.journal().is_empty(), "something was done");
}

#[test]
fn a_disk_that_becomes_full_ends_the_run_cleanly() {
    let first = journaled()
        .after("ulimit -f 16")
        .plays([shell("echo x >> effects"), shell("head -c 12000 /dev/zero | tr '\\0' a; echo; seq 1000")])
        .run();
    first.exits(1).reason("internal_error").tells("THOUGHTMESH_JOURNAL").tells("record");
    let records = first.records();
    first.check(first.journal().ends_with(b"\n") && records.iter().all(Value::is_object), "a half line");
    // With room again, it goes on. The call whose end found no room is told, not repeated.
    let ended = first.again().after(":").goes_on([list(), chat::achieved(0)]).run();
    ended.exits(0).file_is("effects", "x\n").counts("turns", 4);
    ended.check(ended.request(1).tool_results().concat().contains("outcome unknown"), "the model is not told");
}

#[test]
fn two_processes_do_not_write_one_journal() {
    let running = journaled().plays([list().stalls(Point::Start)]).spawn();
    running.wait_for_requests(1);
    let path = running.path_outside("journal");
    let second = Runtime::new().env_raw("THOUGHTMESH_JOURNAL", path).plays([]).run();
    second.complains_about(&["THOUGHTMESH_JOURNAL", "in use by another process"]);
    killed(running);
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let first = killed_in_the_second_call(list());
    let runtime = first.again().goes_on([chat::achieved(0)]);
    let path = runtime.path_outside("journal");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], b"{\"record\":\"tur"].concat()).unwrap();
    let ended = runtime.run();
    ended.exits(0).check(ended.journal().starts_with(&whole), "what was whole is gone");
    ended.check(ended.records().iter().all(Value::is_object), "a half line");
}

#[test]
fn a_damaged_line_is_an_error_with_its_number() {
    let first = killed_in_the_second_call(list());
    let mut bytes = first.journal();
    let place = bytes.windows(4).position(|window| window == b"turn").unwrap();
    let number = bytes[..place].iter().filter(|byte| **byte == b'\n').count() + 1;
    bytes[place] ^= 1;
    let runtime = first.again();
    std::fs::write(runtime.path_outside("journal"), &bytes).unwrap();
    let ended = runtime.run();
    ended.complains_about(&["THOUGHTMESH_JOURNAL", &format!("record {number}: damaged")]);
    ended.check(ended.journal() == bytes, "the file was changed");
}

#[test]
fn a_transcript_made_by_hand_is_no_journal() {
    let line = json!({"record": "turn", "parts": []}).to_string() + "\n";
    let ended = journaled().file_outside("journal", &line).plays([]).run();
    ended.complains_about(&["THOUGHTMESH_JOURNAL", "record 1"]).check(ended.journal() == line.as_bytes(), "changed");
}

#[test]
fn a_journal_in_the_workspace_is_a_warning() {
    let runtime = Runtime::new().env("THOUGHTMESH_JOURNAL", "journal").plays([chat::achieved(0)]);
    runtime.run().exits(0).log_has("THOUGHTMESH_JOURNAL: lies in the workspace");
}

#[test]
fn without_a_journal_nothing_is_written() {
    let ended = Runtime::new().plays([chat::achieved(0)]).run();
    ended.exits(0).check(ended.journal().is_empty(), "a journal").check(ended.outcome()["resumed"] == false, "resumed");
}

// Secrets.

#[test]
fn secrets_are_masked_in_the_journal() {
    let secret = "hunter2-and-more";
    let turn = chat::message(
        json!({"role": "assistant", "content": format!("I use {secret}."), "tool_calls": [chat::call(
            "a", "shell", json!(json!({"command": format!("echo {secret} | tee copy")}).to_string()))]}),
        "tool_calls",
    );
    let running = journaled().env("DEPLOY_TOKEN", secret).plays([turn, list().stalls(Point::Start)]).spawn();
    running.wait_for_requests(2);
    let first = killed(running);
    let text = String::from_utf8_lossy(&first.journal()).into_owned();
    first.check(!text.contains(secret), "the secret is in the journal");
    first.check(text.contains("[secret DEPLOY_TOKEN]"), "nothing is masked");
    // The tool got what the model wrote.
    first.file_is("copy", &format!("{secret}\n"));
    first.again().goes_on([chat::achieved(0)]).run().exits(0);
}

#[test]
fn a_call_whose_arguments_were_masked_is_not_run_with_the_mask() {
    let secret = "hunter2-and-more";
    let turn = chat::tool_calls(&[
        ("a", "shell", json!({"command": "echo a > begun; test -e go || sleep 600"})),
        ("b", "shell", json!({"command": format!("echo {secret} > copy")})),
    ]);
    let running = journaled().env("DEPLOY_TOKEN", secret).plays([turn]).spawn();
    running.wait_for_file("begun");
    let ended = killed(running).again().goes_on([list(), chat::achieved(0)]).run();
    ended.exits(0).check(ended.file("copy").is_none(), "it was run");
    ended.check(ended.request(1).tool_results()[1].contains("ask for it again"), "the model is not told");
}
